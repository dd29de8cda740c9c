"""The audit hook: tells the watch which line of which file asked for what the kernel sees being
done.

Runs in every Python of the jail, by a .pth file of the interpreter, which gives it two names:
FIFO, where its lines go, and HOME, the home folder. It writes JSON lines, each in one piece.
Anything in the process can forge or silence it: what it says is annotation, and its silence is
evidence.
"""

import _thread
import marshal
import os
import site
import sys

FIFO: str = globals()["FIFO"]
HOME: str = globals()["HOME"]

LIBRARY = os.__file__.removesuffix("os.py")
# What a package put first on the path, by PYTHONPATH say, must not stand for the library that
# this is made of.
whole_path = sys.path[:]
sys.path[:] = [LIBRARY.rstrip("/"), f"{LIBRARY}lib-dynload"]
import json  # noqa: E402
import re  # noqa: E402
from types import (  # noqa: E402
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any  # noqa: E402

sys.path[:] = whole_path

OWN_FILE = sys._getframe().f_code.co_filename
# Nobody's doing but the machinery's: the standard library and pip, the import system, the
# launcher and this.
TRUSTED = (LIBRARY, f"{sys.prefix}/", "<frozen", f"{OWN_FILE.rpartition('/')[0]}/")
MAX_LINE_BYTES = 4000  # below PIPE_BUF, so that the lines of many processes don't mix
MAX_TWIN_CHARS = 500  # of a command: as many as the watch compares
MAX_CODE_BYTES = 64 << 10
CHUNK_BYTES = 1600

# Audit events by what a reader calls them, each with the place of the argument that a reader wants
# (Python's "Audit events table").
COMMANDS = {
    "subprocess.Popen": 1,
    "os.system": 0,
    "os.exec": 1,
    "os.posix_spawn": 1,
    "pty.spawn": 0,
}
ADDRESSES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.bind": 1}
NAMES = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
PATHS = {"os.remove": 0, "os.rename": 1, "open": 0}
CODES = {"compile": 0, "marshal.loads": 0}
WATCHED = {
    event: (kind, position)
    for kind, events in (
        ("spawn", COMMANDS),
        ("address", ADDRESSES),
        ("name", NAMES),
        ("open", PATHS),
        ("code", CODES),
    )
    for event, position in events.items()
}

# What turns text that nobody can read into code, by the names that code has for it.
DECODERS = {
    *("b64decode", "b32decode", "b16decode", "b85decode", "a85decode", "urlsafe_b64decode"),
    *(
        "decodebytes",
        "decompress",
        "unhexlify",
        "fromhex",
        "a2b_base64",
        "rot13",
        "rot_13",
        "marshal",
    ),
}
FORMAT_FIELD = re.compile(r"\{\w+\}")  # "def inner(_it, _timer{init}):"
MAX_DEPTH, MAX_CODES_READ = 3, 300  # of functions that call functions, in search of a decoder
# These execute what they are given; what the rest of the library compiles, it has written itself.
RUNNERS = {
    f"{LIBRARY}{name}.py"
    for name in (
        *("ast", "bdb", "code", "codeop", "cProfile"),
        *("doctest", "pdb", "profile", "timeit", "trace"),
    )
}

# Our own names for them: a package may replace those of the modules, as gevent does.
write, open_fd, getpid, getframe, dumps = os.write, os.open, os.getpid, sys._getframe, json.dumps
thread, loads, fspath, fsencode = _thread.get_ident, marshal.loads, os.fspath, os.fsencode
absolute = os.path.abspath

fifo = open_fd(FIFO, os.O_WRONLY | os.O_CLOEXEC)
busy: set[int] = set()  # threads: what we do ourselves is not told
codes_told = 0


def is_foreign_file(name: str) -> bool:
    return not name.startswith(TRUSTED)


def is_foreign(frame: FrameType) -> bool:
    return is_foreign_file(frame.f_code.co_filename)


def nearest_foreign(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of code that is none of the machinery's."""
    while frame and not is_foreign(frame):
        frame = frame.f_back
    return frame


def called_by_nobody(frame: FrameType) -> FrameType | None:
    """The function of the library that began all this, in a thread, for a signal, or at the end.

    A package may have asked for it long ago.
    """
    while frame.f_back:
        frame = frame.f_back
    is_program = frame.f_code.co_name == "<module>"
    is_import_system = frame.f_code.co_filename.startswith("<frozen")
    return None if is_program or is_import_system else frame


def place(frame: FrameType) -> str:
    """File and line; for code that has no file those of the code that it came from, too."""
    inner = ""
    while True:
        name, caller = frame.f_code.co_filename, frame.f_back
        if not name.startswith("<") or not caller:
            break
        # A line of a .pth file, which site executes.
        if caller.f_code.co_name == "addpackage":
            name = str(caller.f_locals.get("fullname"))
            break
        # setup.py, which setuptools executes as a string.
        is_module = frame.f_code.co_name == "<module>"
        by_setuptools = "/setuptools/" in caller.f_code.co_filename
        in_setup = str(frame.f_globals.get("__file__")).endswith("/setup.py")
        if in_setup and (by_setuptools or not is_module):
            name = "setup.py"
            break
        inner = inner or f"{name}:{frame.f_lineno} from "
        outer = nearest_foreign(caller)
        if not outer:
            return inner.removesuffix(" from ")
        frame = outer
    return f"{inner}{name}:{frame.f_lineno}"


def who_compiles(direct: FrameType) -> tuple[FrameType | None, list[FrameType]]:
    """Whose text is compiled: that of who called, or gave it to runners, which come second.

    None if the library has written it.
    """
    frame: FrameType | None = direct
    runners = []
    while frame and frame.f_code.co_filename in RUNNERS:
        if frame.f_code.co_name == "literal_eval":  # it executes nothing
            return None, []
        runners.append(frame)
        frame = frame.f_back
    return (frame, runners) if frame and is_foreign(frame) else (None, [])


def words(code: CodeType) -> set[str]:
    return {*code.co_names, *(const for const in code.co_consts if isinstance(const, str))}


def nameless(code: CodeType) -> list[CodeType]:
    """The lambdas and comprehensions in it."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return [item for item in inner if item.co_name.startswith("<")]


def is_function(value: Any) -> bool:
    return type(value) is FunctionType


def functions(value: Any, names: tuple[str, ...]) -> list[Any]:
    """What of a variable's value may decode: of a class or a module what is called by one of
    `names`.

    No code of the package runs when it is looked at.
    """
    kind = type(value)
    if kind in (FunctionType, BuiltinFunctionType):
        return [value]
    if kind is MethodType:
        return [value.__func__]
    members: Any = {}
    if isinstance(value, type):
        members = type.__dict__["__dict__"].__get__(value)
    elif kind is ModuleType:
        members = value.__dict__
    return [members[name] for name in names if is_function(members.get(name))]


def reaches_decoder(frame: FrameType) -> bool:
    """Whether the code of `frame` names a decoder, or a function that does, and so on."""
    known = {**frame.f_globals, **frame.f_locals}
    level: list[tuple[CodeType, dict[str, Any]]] = [(frame.f_code, known)]
    seen: set[CodeType] = set()
    for _ in range(MAX_DEPTH):
        callees: list[tuple[CodeType, dict[str, Any]]] = []
        for code, variables in level:
            if code in seen or len(seen) > MAX_CODES_READ:
                continue
            seen.add(code)
            if not DECODERS.isdisjoint(words(code)):
                return True
            callees += [(inner, variables) for inner in nameless(code)]
            for name in (*code.co_names, *code.co_varnames, *code.co_freevars):
                for function in functions(variables.get(name), code.co_names):
                    if function.__name__ in DECODERS:
                        return True
                    if is_function(function) and is_foreign_file(function.__code__.co_filename):
                        callees.append((function.__code__, function.__globals__))
        level = callees
    return False


def lines(text: Any) -> set[str]:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return {line.strip() for line in text.split("\n")} if isinstance(text, str) else set()


def is_literal(frame: FrameType, runners: list[FrameType], source: bytes) -> bool:
    """Whether a person can read each line of `source` in the code that executes it, or in what the
    runners put around it.
    """
    known = {"", "pass"}
    for const in frame.f_code.co_consts:
        known |= lines(const)
    for runner in runners:
        for value in runner.f_globals.values():
            if isinstance(value, str):
                known |= lines(FORMAT_FIELD.sub("", value))
    return lines(source) <= known


def is_decoded(frame: FrameType, runners: list[FrameType], source: bytes) -> bool:
    """Whether who executes `source`, or the generated code that does so itself, decodes: and not
    only what is there to be read.
    """
    if is_literal(frame, runners, source):
        return False
    asker: FrameType | None = frame
    # The machinery that executes a .pth file ends in this file, which has the words of all
    # decoders.
    while asker and asker.f_code.co_filename != OWN_FILE:
        if reaches_decoder(asker):
            return True
        asker = asker.f_back if asker.f_code.co_filename.startswith("<") else None
    return False


def listing(code: CodeType) -> bytes:
    """The instructions of code that has no source."""
    import dis
    import io

    text = io.StringIO()
    dis.dis(code, file=text)
    return text.getvalue().encode("utf-8", "replace")


def readable(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)


def send(event: str, **fields: Any) -> None:
    """Write a line, with shorter fields if it would be too long."""
    global fifo
    line = dumps({"event": event, "pid": getpid(), **fields}, default=readable) + "\n"
    if len(line) > MAX_LINE_BYTES:
        short = {key: str(value)[:MAX_TWIN_CHARS] for key, value in fields.items()}
        line = dumps({"event": event, "pid": getpid(), **short}) + "\n"
    try:
        write(fifo, line.encode())
    except OSError:  # the package closed descriptors that it did not know
        fifo = open_fd(FIFO, os.O_WRONLY | os.O_CLOEXEC)
        write(fifo, line.encode())


def send_code(source: bytes, frame: FrameType, decoded: bool) -> None:
    """Write source in pieces; the first line tells what it is."""
    global codes_told
    codes_told += 1
    about: dict[str, Any] = {"at": place(frame), "bytes": len(source), "decoded": decoded}
    for start in range(0, min(len(source), MAX_CODE_BYTES), CHUNK_BYTES):
        send("code", id=codes_told, text=source[start : start + CHUNK_BYTES].hex(), **about)
        about = {}


def tell_open(event: str, path: Any, mode: Any, frame: FrameType) -> None:
    """Only what is written, renamed, removed, or lies in the home, where the bait is."""
    if isinstance(path, int):
        return
    name = absolute(fspath(path))
    writes = event != "open" or not {*"wax+"}.isdisjoint(mode or "")
    if isinstance(name, str) and (writes or name.startswith(f"{HOME}/")):
        send("open", what=name, at=place(frame))


def tell_spawn(command: Any, frame: FrameType) -> None:
    """As the bytes that the kernel gets."""
    arguments = [command] if isinstance(command, str | bytes | os.PathLike) else command
    line = b" ".join(fsencode(word) for word in arguments)[:MAX_TWIN_CHARS]
    send("spawn", what=line.decode("latin-1"), at=place(frame))


def tell_name(name: Any, frame: FrameType) -> None:
    if name:
        asked = name if isinstance(name, bytes) else name.encode("idna")
        send("name", what=asked.decode("latin-1"), at=place(frame))


def tell_code(event: str, what: Any, direct: FrameType) -> None:
    frame, runners = who_compiles(direct)
    if not frame:
        return
    if event == "marshal.loads":
        code = loads(what) if frame is direct else None
        if isinstance(code, CodeType):
            send_code(listing(code), frame, True)
        return
    source = what.encode("utf-8", "replace") if isinstance(what, str) else what
    if not isinstance(source, bytes):
        return
    decoded = is_decoded(frame, runners, source)
    # What was not decoded is told only of who executes it himself. setuptools executes setup.py
    # as a string.
    if decoded or (frame is direct and "/setuptools/" not in frame.f_code.co_filename):
        send_code(source, frame, decoded)


def tell(event: str, arguments: tuple[Any, ...], direct: FrameType) -> None:
    """Write what a reader wants to know of an audit event, if it was brought about by a package."""
    kind, position = WATCHED[event]
    what = arguments[position]
    if kind == "code":
        tell_code(event, what, direct)
        return
    frame = nearest_foreign(direct) or called_by_nobody(direct)
    if frame is None:
        return
    if kind == "open":
        tell_open(event, what, arguments[1], frame)
    elif kind == "spawn":
        tell_spawn(what, frame)
    elif kind == "name":
        tell_name(what, frame)
    elif what:
        send(kind, what=what, at=place(frame))


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in WATCHED or thread() in busy:
        return
    busy.add(thread())
    try:
        tell(event, arguments, getframe(1))
    except Exception:  # noqa: S110 - a witness must not change what it sees, whatever it is shown
        pass
    finally:
        busy.discard(thread())


send("start", what=sys.orig_argv)
sys.addaudithook(hook)
# As site-packages: after the library, and with its .pth files.
if "SNAKEHOOK_SITE" in os.environ:
    site.addsitedir(os.environ["SNAKEHOOK_SITE"])
