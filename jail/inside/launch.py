"""First process of the jail: runs pip or what a trigger needs in children, and passes on how it went.

Arguments: what to run, then what that needs. It holds no secret and is believed in nothing but its
first line, which it writes before any foreign code runs.
"""

import os
import signal
import sys
import time
from types import ModuleType

AFTER_SEC = 2.0  # for what detaches itself, so that it is seen at work before the jail goes
# As orders.STARTED: only this folder can be imported from here.
READY_LINE = b"jail ready\n"
FOLDER = __file__.rpartition("/")[0]
# The rooms that do many jobs; all others run one trigger.
MANY = ("imports", "call")


def open_rooms() -> None:
    """Make the modules of this folder those of jail.inside."""
    for name, places in (("jail", [""]), ("jail.inside", [FOLDER])):
        module = ModuleType(name)
        module.__path__ = places
        sys.modules[name] = module


def run_one(argv: list[str]) -> int:
    """Run a program, bury the orphans that we inherit, and return its exit code."""
    child = os.fork()
    if child == 0:
        os.execv(argv[0], argv)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def linger() -> None:
    """Wait for what is still at work. No sleep: the kernel witness may skip those."""
    deadline_sec = time.monotonic() + AFTER_SEC
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        left_sec = deadline_sec - time.monotonic()
        if left_sec <= 0:
            return
        if pid == 0:
            signal.sigtimedwait({signal.SIGCHLD}, left_sec)


def main() -> int:
    """Run it, stay a little longer, and return its exit code."""
    os.write(1, READY_LINE)
    open_rooms()
    from jail.inside.supervise import launch, starter

    kind, words = sys.argv[1], sys.argv[2:]
    if kind in MANY:
        code = launch(kind, words)
    elif kind == "pip":
        # -P: nothing in the working directory is pip's.
        code = run_one([sys.executable, "-P", "-m", "pip", *words])
    elif kind == "program":
        code = run_one(words)
    else:
        code = run_one([*starter("run"), kind, *words])
    # A package may send it to the whole jail.
    linger()
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os._exit(main())
