"""The Python witness: tells the warden which line of which file asked for what the kernel sees being done.

Runs in every Python of the jail, by a .pth file of the interpreter, and writes JSON lines to a FIFO. Anything in the
process can forge or silence it: what it says is annotation, and its silence is evidence.
"""

import _thread
import json
import marshal
import os
import sys
from types import CodeType, FrameType
from typing import Any

FIFO = "/opt/snakehook/audit"
MAX_LINE_BYTES = 4000  # below PIPE_BUF, so that the lines of many processes don't mix
MAX_CODE_BYTES = 64 << 10
CHUNK_BYTES = 1600
# What turns text that nobody can read into code: seen in whoever executes it, it makes the code worth a look.
DECODERS = {"b64decode", "b32decode", "b16decode", "b85decode", "a85decode", "urlsafe_b64decode", "decodebytes"}
DECODERS |= {"decompress", "unhexlify", "fromhex", "a2b_base64", "rot13", "rot_13", "marshal"}
# Audit event: the argument that a reader wants (Python's "Audit events table").
COMMANDS = {"subprocess.Popen": 1, "os.system": 0, "os.exec": 1, "os.posix_spawn": 1, "pty.spawn": 0}
ADDRESSES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.bind": 1}
NAMES = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
CHANGES = {"os.remove": 0, "os.rename": 0, "shutil.rmtree": 0}
KINDS = {"spawn": COMMANDS, "address": ADDRESSES, "name": NAMES, "change": CHANGES}
WATCHED = {event: (kind, at) for kind, events in KINDS.items() for event, at in events.items()}


def install() -> None:
    write, open_fd, getpid, getframe, dumps = os.write, os.open, os.getpid, sys._getframe, json.dumps
    thread, loads, fspath = _thread.get_ident, marshal.loads, os.fspath
    trusted = (
        os.__file__.removesuffix("os.py"),
        f"{sys.prefix}/",
        "<frozen",
        "/opt/snakehook/launch",
        "/opt/snakehook/audit",
    )
    home = os.environ.get("HOME", "/home/dev") + "/"
    fifo = open_fd(FIFO, os.O_WRONLY | os.O_CLOEXEC)
    busy: set[int] = set()
    codes = 0

    def readable(value: Any) -> Any:
        value = value.__fspath__() if hasattr(value, "__fspath__") else value
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)

    def send(event: str, **fields: Any) -> None:
        nonlocal fifo
        line = dumps({"event": event, "pid": getpid(), **fields}, default=readable).encode()
        if len(line) > MAX_LINE_BYTES:
            short = {key: str(value)[:600] for key, value in fields.items()}
            line = dumps({"event": event, "pid": getpid(), **short}).encode()
        try:
            write(fifo, line + b"\n")
        except OSError:  # the package closed descriptors that it did not know
            fifo = open_fd(FIFO, os.O_WRONLY | os.O_CLOEXEC)
            write(fifo, line + b"\n")

    def foreign(frame: FrameType | None) -> FrameType | None:
        """The nearest frame that is neither the standard library's nor pip's nor the import system's."""
        while frame and frame.f_code.co_filename.startswith(trusted):
            frame = frame.f_back
        return frame

    def place(frame: FrameType) -> str:
        name, caller = frame.f_code.co_filename, frame.f_back
        if name == "<string>" and caller:
            if caller.f_code.co_filename.endswith("setuptools/build_meta.py"):
                name = "setup.py"  # which setuptools executes as a string
            elif caller.f_code.co_name == "addpackage":
                name = str(caller.f_locals.get("fullname"))  # a line of a .pth file, executed by site
        return f"{name}:{frame.f_lineno}"

    def decodes(frame: FrameType | None) -> bool:
        """Whether whoever executes generated code, or the generated code that does so itself, also decodes."""
        while frame:
            words = (*frame.f_code.co_names, *(one for one in frame.f_code.co_consts if isinstance(one, str)))
            if DECODERS & {*words}:
                return True
            frame = frame.f_back if frame.f_code.co_filename.startswith("<") else None
        return False

    def send_code(source: bytes, frame: FrameType, decoded: bool) -> None:
        nonlocal codes
        codes += 1
        first = {"at": place(frame), "bytes": len(source), "decoded": decoded}
        for start in range(0, min(len(source), MAX_CODE_BYTES), CHUNK_BYTES):
            send("code", id=codes, text=source[start : start + CHUNK_BYTES].hex(), **(first if start == 0 else {}))

    def listing(code: CodeType) -> bytes:
        import dis
        import io

        lines = io.StringIO()
        dis.dis(code, file=lines)
        return lines.getvalue().encode("utf-8", "replace")

    def look(event: str, args: tuple[Any, ...], direct: FrameType) -> None:
        frame = foreign(direct)
        if frame is None:
            return
        if event in WATCHED:
            kind, at = WATCHED[event]
            send(kind, call=event, what=args[at] or args[0], at=place(frame))
        elif event == "open":
            path, mode = fspath(args[0]) if not isinstance(args[0], int) else "", args[1]
            if isinstance(path, str) and (path.startswith(home) or set(mode or "") & set("wax+")):
                send("open", what=path, mode=mode, at=place(frame))
        elif frame is direct:
            builder = "/setuptools/" in frame.f_code.co_filename
            if event == "compile" and isinstance(source := args[0], str | bytes) and not builder:
                send_code(
                    source.encode("utf-8", "replace") if isinstance(source, str) else source, frame, decodes(frame)
                )
            elif event == "marshal.loads" and isinstance(code := loads(args[0]), CodeType):
                send_code(listing(code), frame, True)

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


EVENTS = {*WATCHED, "open", "compile", "marshal.loads"}
install()
