"""Says to the launcher what a worker says, and whether the file of each module was run as it lies
there. The modules are in the same interpreter, and must not be able to say it in our place.

So the word that lines begin with, and the pipe, are in an audit hook alone: the interpreter keeps
it, no variable does, no frame that a module finds below itself, and nobody can take it away. Our
own code asks it to say something by an event. Who asks is known by the stack: from `main` of the
room up there is nothing but our code. What else could find the hook is told before it is done. A
module that reads the memory by code of its own that is not Python is beyond this.
"""

from __future__ import annotations

import builtins
import marshal
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import cache_from_source
from types import CodeType, FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

QUIT_CODE = 82
# Events of our own, called as if they were the interpreter's.
SAY, EXPECT = "cpython.run_stdin", "cpython.run_module"
# By these, objects and frames are found that nobody was given.
LOOK_NAMES = """
gc.get_objects gc.get_referrers gc.get_referents sys._current_frames sys._current_exceptions
"""
SEARCHES = frozenset(LOOK_NAMES.split())
# Of any process, /proc/self/mem.
MEMORY_ENDS: dict[Any, Any] = {str: ("mem", "/mem"), bytes: (b"mem", b"/mem")}
COMPILED_HEADER_BYTES = 16  # of a compiled file

audit = sys.audit


def say(line: str) -> None:
    """Ask the hook to say a line. Without the pipe this interpreter ends, and the next goes on."""
    audit(SAY, line.encode(errors="backslashreplace"))


def codes_of(codes: Iterable[CodeType]) -> set[int]:
    """These, and those of functions within them, by identity."""
    waiting, found = [*codes], set()
    while waiting:
        code = waiting.pop()
        found.add(id(code))
        waiting += [inner for inner in code.co_consts if type(inner) is CodeType]
    return found


def expect(site: str, names: Sequence[str], early: Iterable[str]) -> None:
    """Let the hook look for the files of modules, by the numbers of the jobs. Where a compiled
    module lies beside the source, that is not run.

    Args:
        early: the files of modules that were run before.
    """
    table: dict[bytes, tuple[bytes, str, str]] = {}
    folders: dict[str, set[str]] = {}
    for number, name in enumerate(names):
        module = name.partition(":")[0]
        path = f"{site}/{module.replace('.', '/')}"
        for file in (f"{path}/__init__.py", f"{path}.py"):
            folder, _, last = file.rpartition("/")
            if folder not in folders:
                folders[folder] = {*os.listdir(folder)} if os.path.isdir(folder) else set()
            there, stem = folders[folder], last.removesuffix(".py")
            if last in there:
                is_source = not any(f"{stem}{suffix}" in there for suffix in EXTENSION_SUFFIXES)
                if is_source:
                    compiled = cache_from_source(file)
                    said = module.encode(errors="backslashreplace")
                    table[str(number).encode()] = said, file, compiled
                break
    audit(EXPECT, table, frozenset(early))


def attest(pipe: int, sign: str, main: FrameType, codes: set[int]) -> None:
    """Let nobody but our own code say lines from now on.

    Args:
        pipe: the descriptor of the pipe to the launcher. A package that closes all descriptors
            closes this, too: what has its number then is not ours to write to.
        sign: the word that lines begin with.
        main: the frame of the room.
        codes: of what may say something when `main` has called it, by identity.
    """
    # Nothing here looks a name up when it is run: a module may have replaced it.
    identity, kind_of, length = id, type, len
    text, octets, code_kind, os_error, any_error = str, bytes, CodeType, OSError, Exception
    write, fstat, quit_now, frame_at = os.write, os.fstat, os._exit, sys._getframe
    open_path, read, close, loads = os.open, os.read, os.close, marshal.loads
    compiled_by, read_only, most_bytes = builtins.compile, os.O_RDONLY | os.O_CLOEXEC, 1 << 26
    say_event, expect_event, looks = SAY, EXPECT, SEARCHES
    heard = SEARCHES | {SAY, EXPECT, "exec", "open"}
    memory_ends, header, quit_code = MEMORY_ENDS, COMPILED_HEADER_BYTES, QUIT_CODE
    inode, begin = fstat(pipe).st_ino, f"{sign} ".encode()
    expected: dict[bytes, tuple[bytes, str, str]] = {}
    compiled: dict[str, str] = {}
    run: set[str] = set()
    told: set[str] = set()
    has_begun = False  # before the first module has its turn, our own code looks
    # The module whose turn it is: its name and its file.
    turn: tuple[bytes, str] | None = None

    def put(line: bytes) -> None:
        try:
            if fstat(pipe).st_ino == inode:
                write(pipe, begin + line + b"\n")
                return
        except os_error:
            pass
        quit_now(quit_code)

    def is_ours(frame: FrameType | None) -> bool:
        while frame is not None and frame is not main:
            if identity(frame.f_code) not in codes:
                return False
            frame = frame.f_back
        return frame is main

    def content(path: str) -> bytes:
        try:
            fd = open_path(path, read_only)
        except os_error:
            return b""
        try:
            data = b""
            while piece := read(fd, most_bytes):
                data += piece
            return data
        finally:
            close(fd)

    def is_as_it_lies(path: str, code: CodeType) -> bool:
        """Whether code is that of a file: of the compiled one, or else of the source."""
        try:
            data = content(compiled[path])
            if length(data) > header and loads(data[header:]) == code:
                return True
            made = compiled_by(content(path), path, "exec", dont_inherit=True)
            return kind_of(made) is code_kind and made == code
        except any_error:
            return False

    def take(line: bytes) -> None:
        """Say a line of ours; where a turn ends, what did not run in it first."""
        nonlocal turn
        word, _, rest = line.partition(b" ")
        if word == b"begin" or word == b"done":
            if turn is not None and turn[1] not in run:
                put(b"failed 0 " + turn[0])
            found = expected.get(rest.partition(b" ")[0])
            turn = (found[0], found[1]) if found is not None else None
        elif word == b"failed" or word == b"missed":
            turn = None
        put(line)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal has_begun
        # Most events are none of these.
        if event not in heard:
            return
        if event == "exec":
            code = arguments[0]
            if kind_of(code) is not code_kind or code.co_name != "<module>":
                return
            path = code.co_filename
            is_awaited = kind_of(path) is text and path in compiled and path not in run
            if is_awaited and is_as_it_lies(path, code):
                run.add(path)
        elif event == say_event:
            line = arguments[0]
            if kind_of(line) is octets and is_ours(frame_at(0).f_back):
                take(line)
        elif event == expect_event:
            if not has_begun and is_ours(frame_at(0).f_back):
                has_begun = True
                expected.update(arguments[0])
                run.update(arguments[1])
                for _, source, place in expected.values():
                    compiled[source] = place
        else:
            is_look = event in looks
            if event == "open":
                path = arguments[0]
                ends = memory_ends.get(kind_of(path))
                is_look = ends is not None and (path == ends[0] or path.endswith(ends[1]))
            if is_look and has_begun and event not in told and not is_ours(frame_at(0).f_back):
                told.add(event)
                put(b"looked 0 " + event.encode())

    sys.addaudithook(hook)
