"""First process of the jail: runs pip or one trigger in a child of its own and passes its exit code on.

Arguments: what to run (pip, start, import, script, file, module), the install target, then what the kind needs.
It holds no secret and is believed in nothing but its first line, which it writes before any foreign code runs.
"""

import os
import signal
import sys
import time

LINGER_SEC = 2.0  # for what detaches itself, so that it is seen at work before the jail goes
STARTED = b"snakehook: jail ready\n"

# What a person would type; sys.argv is [name, target, argument ...] when a snippet starts.
ENTER = "import sys; target = sys.argv.pop(1); "  # audit.py has made it a site directory
SNIPPETS = {
    "start": ENTER,
    "import": ENTER + "import importlib; importlib.import_module(sys.argv.pop(1))",
    "script": ENTER + "import importlib, operator; sys.argv.pop(0); module, _, attr = sys.argv.pop(1).partition(':'); "
    "sys.exit(operator.attrgetter(attr)(importlib.import_module(module))())",
    "file": ENTER + "import os, runpy; sys.argv.pop(0); sys.argv[0] = os.path.join(target, sys.argv[0]); "
    "sys.path[0] = os.path.dirname(sys.argv[0]); runpy.run_path(sys.argv[0], run_name='__main__')",
    "module": ENTER + "import runpy; sys.argv.pop(0); "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)",
}


def command(kind: str, arguments: list[str]) -> list[str]:
    if kind == "pip":
        return [sys.executable, "-P", "-m", "pip", *arguments]  # -P: nothing in the working directory is pip's
    return [sys.executable, "-c", SNIPPETS[kind], *arguments]


def main() -> int:
    os.write(1, STARTED)
    argv = command(sys.argv[1], sys.argv[2:])
    child = os.fork()
    if child == 0:
        os.execv(argv[0], argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a package may send it to the whole jail
    code, deadline = None, 0.0
    while code is None or time.monotonic() < deadline:
        # As the first process of the namespace it inherits the orphans, and must bury them.
        try:
            pid, status = os.waitpid(-1, os.WNOHANG if code is not None else 0)
        except ChildProcessError:
            break
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            deadline = time.monotonic() + LINGER_SEC
        elif pid == 0:
            time.sleep(0.02)
    return 1 if code is None else code if code >= 0 else 128 - code


if __name__ == "__main__":
    os._exit(main())
