"""The Python witness: tells the warden which line of which file asked for what the kernel sees being done.

Runs in every Python of the jail, by a .pth file of the interpreter, and writes JSON lines to a FIFO. Anything in the
process can forge or silence it: what it says is annotation, and its silence is evidence.
"""

import _thread
import marshal
import os
import site
import sys

LIBRARY = os.__file__.removesuffix("os.py")
# What a package put first on the path, by PYTHONPATH say, must not stand for the library that the hook is made of.
whole_path, sys.path[:] = sys.path[:], [LIBRARY.rstrip("/"), f"{LIBRARY}lib-dynload"]
import json  # noqa: E402
from types import CodeType, FrameType  # noqa: E402
from typing import Any  # noqa: E402

sys.path[:] = whole_path

FIFO = "/opt/snakehook/audit"
HOME = "/home/dev/"
TRUSTED = (LIBRARY, f"{sys.prefix}/", "<frozen", "/opt/snakehook/launch", f"{FIFO}.py")
MAX_LINE_BYTES = 4000  # below PIPE_BUF, so that the lines of many processes don't mix
MAX_TWIN_CHARS = 500  # of a command: as many as the warden compares
MAX_CODE_BYTES = 64 << 10
CHUNK_BYTES = 1600
# What turns text that nobody can read into code: seen in whoever executes it, it makes the code worth a look.
DECODERS = {"b64decode", "b32decode", "b16decode", "b85decode", "a85decode", "urlsafe_b64decode", "decodebytes"}
DECODERS |= {"decompress", "unhexlify", "fromhex", "a2b_base64", "rot13", "rot_13", "marshal"}
# Audit event: the argument that a reader wants (Python's "Audit events table").
COMMANDS = {"subprocess.Popen": 1, "os.system": 0, "os.exec": 1, "os.posix_spawn": 1, "pty.spawn": 0}
ADDRESSES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.bind": 1}
NAMES = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
PATHS = {"os.remove": 0, "os.rename": 1, "open": 0}
KINDS = {"spawn": COMMANDS, "address": ADDRESSES, "name": NAMES, "open": PATHS}
WATCHED = {event: (kind, at) for kind, events in KINDS.items() for event, at in events.items()}
EVENTS = {*WATCHED, "compile", "marshal.loads"}

# Our own names for them: a package may replace those of the modules, as gevent does.
write, open_fd, getpid, getframe, dumps = os.write, os.open, os.getpid, sys._getframe, json.dumps
thread, loads, fspath, fsencode = _thread.get_ident, marshal.loads, os.fspath, os.fsencode
absolute = os.path.abspath

fifo = open_fd(FIFO, os.O_WRONLY | os.O_CLOEXEC)
busy: set[int] = set()  # threads: what we do ourselves is not told
codes = 0


def foreign(frame: FrameType | None) -> FrameType | None:
    """The nearest frame that is neither the standard library's nor pip's nor the import system's."""
    while frame and frame.f_code.co_filename.startswith(TRUSTED):
        frame = frame.f_back
    return frame


def place(frame: FrameType) -> str:
    """File and line; for code that has no file those of the code that it came from, too."""
    inner = ""
    while (name := frame.f_code.co_filename).startswith("<") and (caller := frame.f_back):
        is_module, by_file = frame.f_code.co_name == "<module>", str(frame.f_globals.get("__file__"))
        if caller.f_code.co_name == "addpackage":  # a line of a .pth file, which site executes
            name = str(caller.f_locals.get("fullname"))
            break
        if by_file.endswith("/setup.py") and (not is_module or "/setuptools/" in caller.f_code.co_filename):
            name = "setup.py"  # which setuptools executes as a string
            break
        inner = inner or f"{name}:{frame.f_lineno} from "
        if not (outer := foreign(caller)):
            return inner.removesuffix(" from ")
        frame = outer
    return f"{inner}{name}:{frame.f_lineno}"


def decodes(frame: FrameType | None) -> bool:
    """Whether whoever executes generated code, or the generated code that does so itself, also decodes."""
    while frame and not frame.f_code.co_filename.startswith(FIFO):  # which has the words of all decoders
        code = frame.f_code
        if not DECODERS.isdisjoint((*code.co_names, *(one for one in code.co_consts if isinstance(one, str)))):
            return True
        frame = frame.f_back if code.co_filename.startswith("<") else None
    return False


def listing(code: CodeType) -> bytes:
    import dis
    import io

    dis.dis(code, file=(lines := io.StringIO()))
    return lines.getvalue().encode("utf-8", "replace")


def readable(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)


def send(event: str, **fields: Any) -> None:
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
    global codes
    codes += 1
    about: dict[str, Any] = {"at": place(frame), "bytes": len(source), "decoded": decoded}
    for start in range(0, min(len(source), MAX_CODE_BYTES), CHUNK_BYTES):
        send("code", id=codes, text=source[start : start + CHUNK_BYTES].hex(), **about)
        about = {}


def look(event: str, args: tuple[Any, ...], direct: FrameType) -> None:
    frame = foreign(direct)
    if frame is None:
        return
    kind, at = WATCHED.get(event, ("code", 0))
    what = args[at]
    if kind == "open" and not isinstance(what, int):
        path = absolute(fspath(what))
        if isinstance(path, str) and (path.startswith(HOME) or event != "open" or {*(args[1] or "")} & {*"wax+"}):
            send(kind, what=path, at=place(frame))
    elif kind == "spawn":  # as the bytes that the kernel gets
        words = [what] if isinstance(what, str | bytes | os.PathLike) else what
        line = b" ".join(fsencode(word) for word in words)[:MAX_TWIN_CHARS]
        send(kind, what=line.decode("latin-1"), at=place(frame))
    elif kind == "name" and what:
        name = what if isinstance(what, bytes) else what.encode("idna")
        send(kind, what=name.decode("latin-1"), at=place(frame))
    elif kind == "address" and what:
        send(kind, what=what, at=place(frame))
    elif frame is direct and event == "marshal.loads" and isinstance(code := loads(what), CodeType):
        send_code(listing(code), frame, True)
    elif frame is direct and event == "compile" and "/setuptools/" not in frame.f_code.co_filename:
        source = what.encode("utf-8", "replace") if isinstance(what, str) else what
        if isinstance(source, bytes):
            send_code(source, frame, decodes(frame))


def hook(event: str, args: tuple[Any, ...]) -> None:
    if event not in EVENTS or thread() in busy:
        return
    busy.add(thread())
    try:
        look(event, args, getframe(1))
    except Exception:  # noqa: S110 - a witness must not change what it sees, whatever it is shown
        pass
    finally:
        busy.discard(thread())


send("start", what=sys.orig_argv)
sys.addaudithook(hook)
if "SNAKEHOOK_SITE" in os.environ:  # as site-packages: after the library, and with its .pth files
    site.addsitedir(os.environ["SNAKEHOOK_SITE"])
