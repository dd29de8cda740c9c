"""What the kernel started, as the jail's /proc has it while strace still holds the process.

The trace names a program as strace read it, just before the kernel did: a second thread can have
changed it in between. After the call nobody can: the new program has not done anything yet, nobody
else has a hand in its memory, and nothing in the jail can write to /proc.

Hostile input: the words of a command line, and the first line of a file that was started.
"""

import ctypes
import os
import re
import stat
import time

from jail.watch.calls import Execute, Observed
from jail.watch.events import SYSTEM_FOLDERS

MAX_CMDLINE_BYTES = 128 << 10
MAX_SHOWN_BYTES = 4096  # of one word, by strace
# The kernel's own: of the line that names an interpreter, and of scripts that interpret scripts.
MAX_FIRST_LINE_BYTES, MAX_SCRIPTS = 256, 5
# How far apart two looks at the same clock may be.
SLACK_SEC = 0.0002
SYS_OPENAT2, RESOLVE_IN_ROOT = 437, 0x10
# Names that lead elsewhere for each process, or to no file. The rules judge them by the name alone,
# but for that of a process's own program, which is told by its true name.
NO_NAME = re.compile(rb"/proc/|/dev/fd/|$")
# #!/bin/sh -e
FIRST_LINE = re.compile(
    rb"#![ \t]*([^ \t\n\0]+)(?:[ \t]+([^\n\0]*?))?[ \t]*(?:[\n\0].*)?", re.DOTALL
)
DELETED = b" (deleted)"

c_library = ctypes.CDLL(None, use_errno=True)


class Starts:
    """Looks at programs that have just been started.

    `proc` is a descriptor of the view of processes that strace has.
    """

    def __init__(self, proc: int) -> None:
        self.proc = proc
        # To see which file a process runs; the first process is ours, and is no secret.
        self.has_rights = False

    def close(self) -> None:
        """Let go of the view."""
        os.close(self.proc)

    def look(self, call: Execute) -> Observed | None:
        """What a call that has just returned has started; None where the process is gone."""
        try:
            text = self.read(f"{call.pid}/cmdline", MAX_CMDLINE_BYTES)
            # Whoever was killed has no words left.
            if not text:
                return None
            argv = tuple(text.removesuffix(b"\0").split(b"\0"))
            is_short = call.is_abridged or len(text) == MAX_CMDLINE_BYTES
            program = self.program(call.pid)
            if program:
                is_as_told = self.agrees(call, program, argv, is_short)
            else:
                is_as_told = self.resembles(call, argv, is_short)
                # A package can make a program that nobody can look into; the system's have no
                # use for that, or were made so by somebody else.
                is_as_told &= not self.has_rights or is_closed(call.file)
        except OSError:
            return None
        in_time = time.time() + SLACK_SEC < call.held_until_sec
        return Observed(program, argv, is_as_told, in_time)

    def read(self, name: str, most_bytes: int) -> bytes:
        """The start of a file of /proc."""
        with open(os.open(name, os.O_RDONLY, dir_fd=self.proc), "rb") as file:  # noqa: PTH123
            return file.read(most_bytes)

    def program(self, pid: int) -> bytes:
        """The file that a process runs; b"" where we have no right to see it."""
        try:
            program = os.readlink(os.fsencode(f"{pid}/exe"), dir_fd=self.proc)
        except PermissionError:
            return b""
        self.has_rights = True
        return program

    def agrees(
        self, call: Execute, program: bytes, argv: tuple[bytes, ...], is_short: bool
    ) -> bool:
        """Whether the kernel started what the call names.

        A script is started as its interpreter, with the script among the words.
        """
        told, given = call.argv or (b"",), call.file
        path = os.path.join(call.folder, given)  # noqa: PTH118 - they are bytes
        if NO_NAME.match(given) or NO_NAME.match(path):
            return are_alike(told, argv, is_short)
        cwd = os.readlink(os.fsencode(f"{call.pid}/cwd"), dir_fd=self.proc)
        about = os.stat(f"{call.pid}/exe", dir_fd=self.proc)
        root = os.open(f"{call.pid}/root", os.O_PATH, dir_fd=self.proc)
        try:
            for _ in range(MAX_SCRIPTS):
                path = os.path.join(cwd, path)  # noqa: PTH118 - they are bytes
                if path == program.removesuffix(DELETED) or is_file(root, path, about):
                    return are_alike(told, argv, is_short)
                match = FIRST_LINE.fullmatch(first_line(root, path))
                if not match:
                    return False
                interpreter, flag = match.groups()
                told = (interpreter, *filter(None, [flag]), given, *told[1:])
                path = given = interpreter
        finally:
            os.close(root)
        return False

    def resembles(self, call: Execute, argv: tuple[bytes, ...], is_short: bool) -> bool:
        """The same, as far as it can be told without the right to see which file it is: by the name
        of the file without its folders, and by the words.
        """
        told, given = call.argv or (b"",), call.file
        name = self.read(f"{call.pid}/comm", MAX_FIRST_LINE_BYTES).removesuffix(b"\n")
        if not NO_NAME.match(given) and not given.rpartition(b"/")[2].startswith(name):
            return False
        script = (given, *told[1:])
        is_script = any(are_alike(script, argv[count:], is_short) for count in (1, 2))
        return is_script or are_alike(told, argv, is_short)


def are_alike(told: tuple[bytes, ...], argv: tuple[bytes, ...], is_short: bool) -> bool:
    """Whether these are the words of a call; where `is_short`, one of them has only the first."""
    if len(told) != len(argv) and not is_short:
        return False
    pairs = list(zip(told, argv, strict=False))
    if is_short:
        pairs = pairs[:-1]
    return all(word == shown or is_start(shown, word) for shown, word in pairs)


def is_start(shown: bytes, word: bytes) -> bool:
    return len(shown) == MAX_SHOWN_BYTES and word.startswith(shown)


def is_closed(path: bytes) -> bool:
    """Whether it is a program of the machine that may be started, but not read."""
    is_system = path.startswith(tuple(map(os.fsencode, SYSTEM_FOLDERS)))
    return is_system and os.access(path, os.X_OK) and not os.access(path, os.R_OK)


def open_in(root: int, path: bytes, flags: int) -> int:
    """Open a file as a process sees it whose root folder is given. Raises OSError."""
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT)
    fd = int(c_library.syscall(SYS_OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how)))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "a file of the jail can't be opened")
    return fd


def is_file(root: int, path: bytes, about: os.stat_result) -> bool:
    """Whether a path leads to that file."""
    try:
        fd = open_in(root, path, os.O_PATH)
    except OSError:
        return False
    try:
        return os.path.samestat(os.fstat(fd), about)
    finally:
        os.close(fd)


def first_line(root: int, path: bytes) -> bytes:
    """What stands at the start of a file; b"" of what is none."""
    try:
        fd = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.read(fd, MAX_FIRST_LINE_BYTES) if is_regular else b""
    finally:
        os.close(fd)
