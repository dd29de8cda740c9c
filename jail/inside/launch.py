"""First process of the jail: runs pip or what a trigger needs in children, and tells how it went.

Arguments: `wait` where its turn is to come, what to run, then what that needs. It holds no secret
and is believed in nothing but its first line, which it writes before any foreign code runs.
"""

from __future__ import annotations

# What signal itself is made of, without its names for numbers, which take as long to load as the
# rest of the launcher.
import _signal as signal  # type: ignore[import-not-found]
import os
import sys
import time

from jail.inside.beside import in_child, note
from jail.inside.command_line import look_like

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LOOKS_SEC = 9.0  # after the time that all jobs have; watch ends the jail MARGIN_SEC after that
AFTER_SEC = 2.0  # for what detaches itself, so that it is seen at work before the jail goes
# As orders.STARTED: only this folder can be imported from here.
STARTED_LINE = b"\n"
DRAWN_BYTES = 2  # of a number


def run_one(argv: list[str], look: Callable[[], None] | None = None) -> int:
    """Run a program, reap the orphans that we inherit, and return its exit code. `look` is begun
    while it runs.
    """
    # The kernel witness takes our first child for what the phase is about.
    child = os.fork()
    if child == 0:
        os.execv(argv[0], argv)
    if look:
        look()
    return exit_code_of(child)


def run_later(argv: list[str], path: str) -> tuple[int, list[str]]:
    """The same of a program that gets its words on its input, when they come: from a FIFO which
    nobody else knows, and which is gone before foreign code runs. The environment comes with them.

    Returns the words, too.
    """
    import json

    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(near, 0)
        os.execv(argv[0], argv)
    os.close(near)
    with open(path, "rb") as given:
        line = given.readline()
    os.unlink(path)
    said = json.loads(line)
    os.environ.update(said["variables"])
    os.write(far, line)
    os.close(far)
    return exit_code_of(child), said["words"]


def exit_code_of(child: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        note(pid, status)


def await_orphans() -> None:
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


def command(kind: str, words: list[str]) -> list[str]:
    """The program that a trigger of one thing is.

    -P: nothing in the working directory is pip's.
    """
    if kind == "program":
        return words
    from jail.inside.enter import starter

    if kind == "pip":
        python, *others = starter("installer")
        return [python, "-P", *others, *words]
    return [*starter("run"), kind, *words]


def launch(kind: str, words: list[str]) -> int:
    """Run a trigger, and return its exit code.

    imports, call: many jobs, in workers. several: many triggers of one thing, each a word.
    """
    if kind in ("pip", "ready"):
        return install(kind, words)
    if kind == "start":
        return start_bare(words)
    if kind not in ("imports", "call", "several"):
        # The only module of a package comes with its site-packages.
        if kind == "import" and len(words) == 4:
            return import_and_look(words)
        return run_one(command(kind, words))
    from jail.inside import supervise

    if kind == "several":
        import json

        path, total_sec, each_sec, *others = words
        commands = [command(other[0], other[1:]) for other in map(json.loads, others)]
        return supervise.run_several(commands, path, float(total_sec), float(each_sec))
    fallen: dict[str, tuple[int, bool]] = {}
    if kind == "imports" and words[4] == "self":
        from jail.inside.source_look import SourceLook

        look = SourceLook(words, float(words[1]) + LOOKS_SEC)
        code = supervise.launch_jobs(kind, words, fallen, look.begin)
        look.end()
    else:
        code = supervise.launch_jobs(kind, words, fallen)
    if kind == "imports" and fallen:
        has_looked = in_child(lambda: look_at_rest(words, fallen))
        if not has_looked:
            tell_not_looked_at(words)
    return code


def import_and_look(words: list[str]) -> int:
    """The only module of a package, as `import_alone` of run.py, and the look at its source."""
    from jail.inside.source_look import SourceLook

    path, _, name, site = words
    look = SourceLook([path, "", "", site, "", name], LOOKS_SEC)
    code = run_one(command("import", words), look.begin)
    look.end()
    return code


def start_bare(words: list[str]) -> int:
    """A bare interpreter. Where files act at its start, pip starts, too: its next run is what such
    a file may wait for. Returns the exit code of the first.
    """
    code = run_one(command("start", words))
    folder = f"{words[1]}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    if any(name.endswith(".pth") or "customize" in name for name in names):
        run_one([sys.executable, "-P", "-m", "pip", "--version"])
    return code


def install(kind: str, words: list[str]) -> int:
    """pip for all requirements, which come last; where that fails for more than one, for each
    alone: what can be had must not go without for what can't. Returns the exit code of the first.
    """
    if kind == "ready":
        code, words = run_later(command("pip", []), *words)
    else:
        code = run_one(command("pip", words))
    options = words[: words.index("--") + 1]
    requirements = words[len(options) :]
    if code and len(requirements) > 1:
        for requirement in requirements:
            run_one(command("pip", [*options, requirement]))
    if "PIP_NO_COMPILE" in os.environ:
        in_child(compile_all)
    return code


def compile_all() -> None:
    from jail.inside.compiling import compile_installed

    compile_installed(os.environ["VIRTUAL_ENV"])


def look_at_rest(words: list[str], fallen: dict[str, tuple[int, bool]]) -> None:
    from jail.inside.rest import tell_rest

    tell_rest(words[0], words[3], fallen)


def tell_not_looked_at(words: list[str]) -> None:
    from jail.inside.ending import Teller
    from jail.inside.fallen import NOT_LOOKED_AT

    Teller(words[0]).tell("unrun", "", text=NOT_LOOKED_AT)


def wait_for_reader() -> None:
    """Fill our output, so that we can write no more until somebody reads it."""
    import fcntl

    left_bytes = fcntl.fcntl(1, fcntl.F_GETPIPE_SZ)
    # Who wants for memory may write a part.
    while left_bytes:
        left_bytes -= os.write(1, bytes(left_bytes))


def write_nowhere() -> None:
    """Write a number of bytes that is drawn: /proc/1/io has them in a count, which would be the
    same in each jail.
    """
    with open(os.devnull, "wb", buffering=0) as nowhere:
        nowhere.write(bytes(int.from_bytes(os.urandom(DRAWN_BYTES))))


def main() -> int:
    """Run it where a person would, stay a little longer, and return its exit code."""
    # This jail is made while another is at work, and must not begin before watch reads what it
    # prints. The word and the zeros are as in jails.WAIT and jails.FILL.
    if sys.argv[1] == "wait":
        del sys.argv[1]
        wait_for_reader()
    write_nowhere()
    os.write(1, STARTED_LINE)
    os.chdir(os.environ.get("PWD", "."))
    code = launch(sys.argv[1], sys.argv[2:])
    # A package may send it to the whole jail.
    await_orphans()
    return code


def start() -> NoReturn:
    """Be the first process of the jail: loader.py calls it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    look_like("-c", "import signal; signal.pause()")
    os._exit(main())
