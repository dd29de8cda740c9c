"""First process of the jail: runs pip or one trigger in a child and passes its exit code on.

Arguments: what to run (pip, start, import, script, file, module), the install target, then what the
kind needs. It holds no secret and is believed in nothing but its first line, which it writes before
any foreign code runs.
"""

import os
import signal
import sys
import time

LINGER_SEC = 2.0  # for what detaches itself, so that it is seen at work before the jail goes
REAP_SEC = 0.02
# As orders.STARTED: only this folder can be imported from here.
READY_LINE = b"jail ready\n"

# What a person would type; sys.argv is [name, target, argument ...] when a snippet starts.
# audit.py has made the target a site directory.
ENTER = "import sys; target = sys.argv.pop(1); "
RUN_SCRIPT = (
    "import importlib, operator; sys.argv.pop(0); "
    "module, _, attr = sys.argv.pop(1).partition(':'); "
    "sys.exit(operator.attrgetter(attr)(importlib.import_module(module))())"
)
RUN_FILE = (
    "import os, runpy; sys.argv.pop(0); sys.argv[0] = os.path.join(target, sys.argv[0]); "
    "sys.path[0] = os.path.dirname(sys.argv[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
)
RUN_MODULE = (
    "import runpy; sys.argv.pop(0); "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
SNIPPETS = {
    "start": ENTER,
    "import": f"{ENTER}import importlib; importlib.import_module(sys.argv.pop(1))",
    "script": ENTER + RUN_SCRIPT,
    "file": ENTER + RUN_FILE,
    "module": ENTER + RUN_MODULE,
}


def command(kind: str, arguments: list[str]) -> list[str]:
    """The program that runs it."""
    if kind == "pip":
        # -P: nothing in the working directory is pip's.
        return [sys.executable, "-P", "-m", "pip", *arguments]
    return [sys.executable, "-c", SNIPPETS[kind], *arguments]


def main() -> int:
    """Run it, stay a little longer for what it left at work, and return its exit code."""
    os.write(1, READY_LINE)
    argv = command(sys.argv[1], sys.argv[2:])
    child = os.fork()
    if child == 0:
        os.execv(argv[0], argv)
    # A package may send it to the whole jail.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = os.waitstatus_to_exitcode(wait_for(child))
    deadline_sec = time.monotonic() + LINGER_SEC
    while time.monotonic() < deadline_sec:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            time.sleep(REAP_SEC)
    return code if code >= 0 else 128 - code


def wait_for(child: int) -> int:
    """The status of `child`. As the first process here it inherits the orphans: bury them, too."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return status


if __name__ == "__main__":
    os._exit(main())
