"""Programs by the words that they were started with: which are pip's own, which the library's
helpers.

Whatever is exempt here is exempt only in its exact form. The words are the package's own, and so
is what a thread of it may have changed them to: see story.py.
"""

import os
import re

from jail.orders import PYTHON_IN_JAIL
from jail.watch.calls import Execute, Observed
from jail.watch.events import SYSTEM_FOLDERS, plain_path, printable

JAIL_PYTHON = f"{PYTHON_IN_JAIL}/bin/python"
NAMELESS = "(a file without a name)"
OWN_PROGRAM = "/proc/self/exe"
MAX_WORDS, MAX_WORD_CHARS, MAX_COMMAND_CHARS = 64, 1000, 16 << 10

# pip starts itself anew for builds: [python, /opt/.../pip/__pip-runner__.py, ...]
PIP_AGAIN = re.compile(
    re.escape(PYTHON_IN_JAIL) + r"/lib/python[0-9.]+/site-packages/pip/__pip-runner__\.py"
)
# and asks these what system it is on.
SYSTEM_LOOK = re.compile(r"(/usr)?/bin/(lsb_release|uname)")
# The standard library's multiprocessing starts helpers by a call that has no audit event:
# [python, "-c", "from multiprocessing.resource_tracker import main;main(5)"]
# [python, "-c", "from multiprocessing.spawn import spawn_main; "
#     "spawn_main(tracker_fd=6, pipe_handle=8)", "--multiprocessing-fork"]
# [python, "-c", "from multiprocessing.forkserver import main; "
#     "main(5, 6, ['__main__'], **{'sys_path': ['/x', '/y']})"]
POOL_PROGRAM = re.compile(re.escape(PYTHON_IN_JAIL) + r"/bin/python[0-9.]*")
POOL_FLAG = re.compile(r"-(?:[BbdEOPqsuv]+|W\w+)")  # none that leaves out the hook
TEXT = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|None)"
TEXTS = rf"\[(?:{TEXT}(?:, {TEXT})*)?\]"
PAIR = rf"{TEXT}: (?:{TEXT}|{TEXTS})"
TRACKER_CODE = r"from multiprocessing\.resource_tracker import main;main\(\d+\)"
FORK_SERVER_CODE = (
    r"from multiprocessing\.forkserver import main; "
    rf"main\(\d+, \d+, {TEXTS}, \*\*\{{(?:{PAIR}(?:, {PAIR})*)?\}}\)"
)
SPAWN_CODE = re.compile(
    r"from multiprocessing\.spawn import spawn_main; spawn_main\(tracker_fd=\d+, pipe_handle=\d+\)"
)
OTHER_CODE = re.compile(f"{TRACKER_CODE}|{FORK_SERVER_CODE}")


def keeps_hook(program: str, argv: tuple[str, ...]) -> bool:
    """Whether it is the jail's own Python, started in a way that has the hook.

    Samples of joblib: [python, "-B", "-c", "from joblib.…resource_tracker import main; main(5, 0)"]
    [python, "-m", "joblib.externals.loky.backend.popen_loky_posix", "--process-name", "x"]
    """
    if not POOL_PROGRAM.fullmatch(program) or argv[:1] != (program,):
        return False
    is_flag = [word.startswith("-") and word not in ("-c", "-m") for word in argv[1:]]
    flags = argv[1 : 1 + (is_flag.index(False) if False in is_flag else len(is_flag))]
    return all(POOL_FLAG.fullmatch(flag) for flag in flags)


def program_name(call: Execute) -> str:
    """The file that was started, as far as the call tells."""
    file = call.file
    if not file:
        return NAMELESS
    if call.folder and not file.startswith(b"/"):
        file = call.folder + b"/" + file
    return plain_path(printable(file))


def found_program(started: Observed) -> str:
    """The file of a program that was looked at, "" where that could not be seen."""
    return plain_path(printable(started.program.removesuffix(b" (deleted)")))


def program_words(call: Execute, program: str) -> tuple[str, ...]:
    """Its arguments, safe to show and bounded; the kernel gives an empty word to who has none."""
    shown = [printable(word[:MAX_WORD_CHARS])[:MAX_WORD_CHARS] for word in call.argv[:MAX_WORDS]]
    while sum(map(len, shown)) > MAX_COMMAND_CHARS:
        shown.pop()
    return tuple(shown) or (program,)


def is_missing(program: str) -> bool:
    """Whether a program of the machine's own folders is not there: nothing in the jail can change
    them.
    """
    return program.startswith(SYSTEM_FOLDERS) and not os.path.lexists(program)


def is_jail_python(program: str, base: str) -> bool:
    """Whether it is the Python that has the hook. Other Pythons of the machine have no hook that
    could be silent, nor has that in `base`, which the jail's is made of, under its own name.

    A program of that name that lies elsewhere may be the same file.
    """
    is_others = program.startswith((*SYSTEM_FOLDERS, f"{base}/"))
    return program.rpartition("/")[2].startswith("python") and not is_others


def is_pip_again(program: str, argv: tuple[str, ...]) -> bool:
    return program == JAIL_PYTHON and PIP_AGAIN.fullmatch("".join(argv[1:2])) is not None


def is_system_look(program: str, before: str) -> bool:
    """Whether pip looks at its system with it; `before` is what the process was, for those that are
    scripts.
    """
    if SYSTEM_LOOK.fullmatch(program):
        return True
    return SYSTEM_LOOK.fullmatch(before) is not None and program.startswith(SYSTEM_FOLDERS)


def is_pool_helper(program: str, argv: tuple[str, ...]) -> bool:
    """Whether it is a helper of the standard library's multiprocessing, run by the jail's own
    Python.
    """
    if not POOL_PROGRAM.fullmatch(program) or argv[:1] != (program,) or "-c" not in argv:
        return False
    at = argv.index("-c")
    if not all(POOL_FLAG.fullmatch(flag) for flag in argv[1:at]):
        return False
    match argv[at + 1 :]:
        case (code, "--multiprocessing-fork"):
            return SPAWN_CODE.fullmatch(code) is not None
        case (code,):
            return OTHER_CODE.fullmatch(code) is not None
    return False
