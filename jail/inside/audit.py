"""The audit hook: tells the watch which line of which file asked for what the kernel sees being
done.

Runs in every Python of the jail, by a .pth file of the interpreter, and is given FIFO, where its
lines go, HOME, the home folder, and CPU_SEC, the limit of CPU time for what pip starts. It writes
JSON lines, each in one piece, and holds nothing open: a package sees its own descriptors.
Anything in the process can forge or silence it: what it says is annotation, and its silence is
evidence.
"""

from __future__ import annotations

import _thread
import marshal
import os
import site
import sys

# What is loaded here, is loaded at the start of every Python: re, json and typing would take as
# long as all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIFO: str = globals()["FIFO"]
HOME: str = globals()["HOME"]
CPU_SEC: int = globals()["CPU_SEC"]

# Variables that jails have in which others than this machine's owner are the victims.
VICTIM_NAMES = {"OS", "__CF_USER_TEXT_ENCODING", "GITHUB_ACTIONS"}

# What a package put first on the path, by PYTHONPATH say, must not stand for the library that this
# is made of; and what this is made of must not stand for modules of a package.
whole_path, library = sys.path[:], os.__file__.removesuffix("/os.py")
sys.path[:] = [library, f"{library}/lib-dynload"]
from types import CodeType, FrameType  # noqa: E402

from jail.inside.import_acts import (  # noqa: E402
    is_import_system,
    is_library_read,
    is_of_import,
    opens_to_write,
)
from jail.inside.instructions import (  # noqa: E402
    how_assembled,
    how_compiled,
    listing,
    sourceless_file,
    stands_in_source,
)
from jail.inside.json_line import line_within  # noqa: E402
from jail.inside.origins import (  # noqa: E402
    Written,
    called_by_nobody,
    is_decoded,
    is_foreign_file,
    is_literal,
    nearest_foreign,
    place,
    program_of,
    who_compiles,
)
from jail.inside.paths import absolute, meant  # noqa: E402
from jail.inside.unwritten import Readings, is_media  # noqa: E402
from jail.inside.watched import (  # noqa: E402
    COMPILED,
    GOES_AROUND,
    LIBRARY_ACTS,
    LISTED,
    MADE,
    MADE_HOW,
    NAMES_OF_CODE,
    TOLD_FUNCTIONS,
    WATCHED,
    exact_text,
    is_odd_text,
)

# Before any .pth file of the installation acts. Most jails have none of these variables.
if not VICTIM_NAMES.isdisjoint(os.environ):
    from jail.inside.victims import become, victim_of

    become(victim_of(os.environ))
# Set for pip by watch, and handed down to what pip starts.
IS_BELOW_PIP = "PIP_CONFIG_FILE" in os.environ
if IS_BELOW_PIP:
    import resource
sys.path[:] = whole_path

LINE_BYTES = 4000  # below PIPE_BUF, so that the lines of many processes don't mix
SPAWN_CHARS = 500  # of a command: as many as the watch compares
SOURCE_BYTES = 64 << 10
PIECE_BYTES = 1600

MAX_NATIVES_TOLD = 20
# Reads are told of what stands here: where people and programs keep what is theirs, and what tells
# a machine from a sandbox.
TOLD_FOLDERS = (
    *(f"{HOME}/", "/etc/", "/proc/", "/sys/", "/run/", "/var/", "/root/", "/."),
    *("/home/", "/Users/", "/mnt/"),
)
MAX_TOLD_READS = 4000  # of one process; each path once
MORE_READS = f"more than {MAX_TOLD_READS} files were looked at, and no more are told"

# Our own names for them: a package may replace those of the modules, as gevent does.
write, open_fd, getpid, getframe = os.write, os.open, os.getpid, sys._getframe
thread, loads, fspath, fsencode = _thread.get_ident, marshal.loads, os.fspath, os.fsencode
let_go = os.close

busy: set[int] = set()  # threads: what we do ourselves is not told
codes_told = natives_told = 0
saved = Written()
readings = Readings()
told_reads: set[str] = set()
unheard: set[str] = set()  # events


def send(event: str, **fields: Any) -> None:
    """Write a line, with shorter fields if it would be too long."""
    # Of source each piece is there as it was cut.
    whole = "text" if event == "code" else ""
    line = line_within({"event": event, "pid": getpid(), **fields}, LINE_BYTES, whole)
    fifo = open_fd(FIFO, os.O_WRONLY | os.O_CLOEXEC)
    try:
        write(fifo, line.encode())
    finally:
        let_go(fifo)


def send_code(source: bytes, at: str, decoded: bool, how: str = "") -> None:
    """Write source in pieces; the first line tells what it is."""
    global codes_told
    codes_told += 1
    about: dict[str, Any] = {"at": at, "bytes": len(source), "decoded": decoded}
    about |= {"how": how} if how else {}
    for start in range(0, min(len(source), SOURCE_BYTES), PIECE_BYTES):
        send("code", id=codes_told, text=source[start : start + PIECE_BYTES].hex(), **about)
        about = {}


def tell_open(event: str, arguments: tuple[Any, ...], frame: FrameType) -> None:
    """What is written, made or removed, and reads where there may be something to find."""
    is_write = event in MADE or (event == "open" and opens_to_write(arguments[2]))
    for name in meant(event, arguments, MADE.get(event, 0)):
        # The workers tell there, too. lib2to3 keeps its grammar beside itself, if it can.
        is_own = name == FIFO or name.startswith(f"{library}/lib2to3/")
        if is_own or "/__pycache__/" in name:
            continue
        if is_write:
            send("open", what=name, at=place(frame), how=MADE_HOW.get(event, "write"))
            continue
        if not f"{name}/".startswith(TOLD_FOLDERS) or len(told_reads) >= MAX_TOLD_READS:
            continue
        if name not in told_reads:
            told_reads.add(name)
            how = "list" if event in LISTED else "read"
            send("open", what=name, at=place(frame), how=how)
            if len(told_reads) == MAX_TOLD_READS:
                send("reads", what="", text=MORE_READS)


def note_file(event: str, arguments: tuple[Any, ...], frame: FrameType, is_import: bool) -> None:
    """Remember a file that is written or read, or that has another name now."""
    if event == "os.rename":
        saved.move(*(absolute(path) for path in arguments[:2]))
    elif event == "open" and not isinstance(arguments[0], int):
        path = absolute(arguments[0])
        if opens_to_write(arguments[2]):
            saved.note(path, frame)
        elif not is_import:
            readings.note(path, frame)


def tell_spawn(command: Any, frame: FrameType) -> None:
    """As the bytes that the kernel gets."""
    arguments = [command] if isinstance(command, str | bytes | os.PathLike) else command
    line = b" ".join(fsencode(word) for word in arguments)[:SPAWN_CHARS]
    send("spawn", what=line.decode("latin-1"), at=place(frame))


def tell_name(name: Any, frame: FrameType) -> None:
    if name:
        asked = name if isinstance(name, bytes) else name.encode("idna")
        send("name", what=asked.decode("latin-1"), at=place(frame))


def tell_native(what: Any, direct: FrameType) -> None:
    """A compiled module or library was loaded that is not Python's, which does not see its acts."""
    global natives_told
    name = fspath(what) if what is not None else ""
    name = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
    is_libc = name.rpartition("/")[2].startswith(("libc.", "libc-"))
    if name and not is_libc and is_foreign_file(name) and natives_told < MAX_NATIVES_TOLD:
        natives_told += 1
        send("native", what=name, at=place(nearest_foreign(direct) or direct))


def tell_file_run(source: Any, path: Any, direct: FrameType) -> None:
    """A module is imported, or a file is run."""
    is_file = isinstance(source, bytes) and isinstance(path, str)
    # Nearly always it was not written here, and is no picture: then who runs it is not looked up.
    if not is_file or not (saved.has(path) or is_media(path)):
        return
    frame = nearest_foreign(direct)
    if not frame:
        return
    how = readings.how(frame, source, path) if is_media(path) else ""
    if how or saved.is_decoded(absolute(path), source, frame):
        send_code(source, place(frame), True, how)


def tell_sourceless(data: Any, direct: FrameType) -> None:
    """A compiled file becomes code."""
    path = sourceless_file(direct)
    code = loads(data) if path else None
    if isinstance(code, CodeType):
        send_code(listing(code), f"{path}:1", *how_compiled(path))


def tell_code(event: str, arguments: tuple[Any, ...], direct: FrameType) -> None:
    what = arguments[0]
    # It would run whenever we ask where code stands, and say what it likes.
    if event in NAMES_OF_CODE and any(map(is_odd_text, arguments[NAMES_OF_CODE[event]])):
        send("unheard", what=event, at=place(direct))
    if event == "code.__new__":
        if how_made := how_assembled(direct, what):
            send_code(listing(what), place(direct), *how_made)
        return
    frame, runners = who_compiles(direct)
    if not frame:
        if event == "compile":
            tell_file_run(what, exact_text(arguments[1]), direct)
        else:
            tell_sourceless(what, direct)
        return
    if event == "marshal.loads":
        code = loads(what) if frame is direct else None
        if isinstance(code, CodeType) and not stands_in_source(code):
            send_code(listing(code), place(frame), True)
        return
    source = what.encode("utf-8", "replace") if isinstance(what, str) else what
    if not isinstance(source, bytes):
        if built := readings.how_built(frame, what):
            send_code(built[0], place(frame), *built[1:])
        return
    readings.note_text(source)
    how, path = "", exact_text(arguments[1])
    # Python itself parses the lines that it shows of a traceback.
    is_in_file = len(source) < SPAWN_CHARS and readings.has(path, source)
    decoded = not is_in_file and is_decoded(frame, runners, source)
    if not decoded and not is_in_file and not is_literal(frame, runners, source):
        how = readings.how(frame, source, path)
        decoded = bool(how)
    # What was not decoded is told only of who executes it himself. setuptools executes setup.py
    # as a string.
    if decoded or (frame is direct and "/setuptools/" not in frame.f_code.co_filename):
        send_code(source, place(frame), decoded, how)


def tell(event: str, arguments: tuple[Any, ...], direct: FrameType) -> None:
    """Write what a reader wants to know of an audit event, if it was brought about by a package."""
    kind, position = WATCHED[event]
    what = arguments[position] if arguments else event
    if kind == "code":
        tell_code(event, arguments, direct)
        return
    if kind == "native":
        tell_native(what, direct)
        return
    if is_of_import(event, arguments, direct):
        return
    frame = nearest_foreign(direct) or called_by_nobody(direct)
    if frame is None and kind in LIBRARY_ACTS:
        frame = program_of(direct)
    if frame is None or (kind == "around" and what not in GOES_AROUND | TOLD_FUNCTIONS):
        return
    if kind == "open":
        tell_open(event, arguments, frame)
        note_file(event, arguments, frame, is_import_system(direct))
    elif kind == "around" and what in TOLD_FUNCTIONS:
        send("traces", what=what, at=place(frame))
    elif kind == "spawn":
        tell_spawn(what, frame)
    elif kind == "name":
        tell_name(what, frame)
    elif kind == "registry":
        send("registry", what=f"{what}\\{arguments[1]}", text=str(arguments[3]), at=place(frame))
    elif what:
        send(kind, what=what, at=place(frame))


def tell_unheard(event: str) -> None:
    """Say, once, that an object in an act kept us from telling it, where nobody else sees it."""
    if event in COMPILED and event not in unheard:
        unheard.add(event)
        send("unheard", what="", text=f"what code was made by {event} could not be told")


def caller_of_hook() -> FrameType | None:
    """The frame that brought an event about. None where the interpreter did so by itself: when it
    compiles the program that it starts with.
    """
    try:
        return getframe(2)
    except ValueError:
        return None


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in WATCHED or thread() in busy or (event == "import" and arguments[1] is None):
        return
    busy.add(thread())
    try:
        direct = None if is_library_read(event, arguments) else caller_of_hook()
        if direct:
            tell(event, arguments, direct)
    except Exception:  # a witness must not change what it sees, whatever it is shown
        tell_unheard(event)
    finally:
        busy.discard(thread())


send("start", what=sys.orig_argv)
sys.addaudithook(hook)
OWN_PREFIX, PREFIX = sys.prefix, os.environ.get("VIRTUAL_ENV")


def is_pip() -> bool:
    """Whether this is pip itself, which has the whole deadline, or pip once more for what a build
    needs: [python, "/…/pip/__pip-runner__.py", "install", ...]

    What a build starts in that shape has its parent's limit, which nothing lifts again.
    """
    is_again = "".join(sys.orig_argv[1:2]).endswith("/site-packages/pip/__pip-runner__.py")
    return os.getppid() == 1 or is_again


if IS_BELOW_PIP and not is_pip():
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SEC, CPU_SEC))


def look_installed() -> None:
    """Let this interpreter look like that of the installation. What the package brings comes before
    our own modules, pip that is.
    """
    sys.prefix = sys.exec_prefix = str(PREFIX)
    site.PREFIXES[:] = [sys.prefix]
    for folder in [folder for folder in sys.path if folder.startswith(f"{OWN_PREFIX}/")]:
        sys.path.remove(folder)
        sys.path.append(folder)
    customize()


if PREFIX:
    # site calls it last, when all .pth files have been read.
    customize = site.execsitecustomize
    site.execsitecustomize = look_installed
    # From here on site reads the .pth files of the installation; not in pip, whose doing is not
    # the package's.
    if not IS_BELOW_PIP:
        sys.prefix = sys.exec_prefix = PREFIX
