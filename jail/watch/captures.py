"""The content of what is started from the scratch, from memory or from a pipe, read while strace
holds its process: when the phase ends, it may be gone.

Hostile input: what is read, how large it is, and where words and links lead. Nothing is opened but
regular files and the input of a process, and nothing of it is taken away: who is to read it still
can.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import select
import stat
import sys
import termios
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from jail.watch.calls import Call, Execute
from jail.watch.dropped import Drop, Way
from jail.watch.events import printable
from jail.watch.scratch import MAX_FILE_BYTES, FileState
from jail.watch.started import c_library, open_in

# Of one phase: how many contents, how many bytes of them, and how often input is waited for.
MAX_CAPTURES, MAX_CAPTURED_BYTES, MAX_INPUT_WAITS = 200, 8 << 20, 30
MAX_CAPTURED_NAME_CHARS = 1000
MAX_SCRIPT_WORDS = 8  # of a command line, that may name a script
# What is left of the time that strace holds a process, so that it is not kept from going on.
RESERVE_SEC = 0.0005
SPLICE_NONBLOCK = 2  # of tee(2)
# `/memfd:a name (deleted)`: the package can write to these, and to the scratch.
IN_MEMORY = b"/memfd:"
# /usr/bin/dash, /opt/.../bin/python3.11, /usr/bin/perl5.36
SCRIPT_READER = re.compile(
    rb".*/(?:[a-z]{0,2}sh|busybox|node|(?:python|perl|ruby|php|lua)[0-9.]*)(?: \(deleted\))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Captured:
    """A content, and which file it was, if it was a file."""

    drop: Drop
    device: int = 0
    inode: int = 0
    changed_ns: int = 0


class Captures:
    """Of one jail.

    Args:
        proc: a descriptor of the view of processes that strace has.
        device: the scratch's.
    """

    def __init__(self, proc: int, device: int) -> None:
        self.proc = proc
        self.device = device
        self.captured: list[Captured] = []
        self.known: set[tuple[int, int, int]] = set()  # files
        self.left_bytes = MAX_CAPTURED_BYTES
        self.left_waits = MAX_INPUT_WAITS

    def take(self, calls: Iterable[Call]) -> None:
        """Look at each program that has just been started, after it was seen what it is."""
        for call in calls:
            if isinstance(call, Execute) and call.started and call.started.program:
                # It may be gone by now, or have become what we have no right to see.
                try:
                    self.look(call, call.started.program, call.started.argv)
                except OSError:
                    continue

    def look(self, call: Execute, program: bytes, argv: Sequence[bytes]) -> None:
        """Keep the program, the script, or what waits in its input."""
        self.keep_file(Way.PROGRAM, program, f"{call.pid}/exe")
        if SCRIPT_READER.fullmatch(program):
            if reads_input(argv):
                self.keep_input(call, argv)
            else:
                self.keep_script(call.pid, argv)

    def keep_file(self, way: Way, name: bytes, path: str) -> None:
        """Keep the start of a file that a link of /proc leads to. Raises OSError."""
        # What the link leads to is looked at first: to open a pipe could be noticed.
        about = os.stat(path, dir_fd=self.proc)
        is_ours = about.st_dev == self.device or name.startswith(IN_MEMORY)
        if is_ours and self.is_new(about):
            self.keep(way, name, os.open(path, os.O_RDONLY | os.O_NONBLOCK, dir_fd=self.proc))

    def is_new(self, about: os.stat_result) -> bool:
        """Whether it is a regular file with something in it that was not kept yet."""
        is_regular = stat.S_ISREG(about.st_mode) and about.st_size > 0
        key = about.st_dev, about.st_ino, about.st_ctime_ns
        if not is_regular or key in self.known or len(self.captured) >= MAX_CAPTURES:
            return False
        self.known.add(key)
        return True

    def keep(self, way: Way, name: bytes, fd: int) -> None:
        """Keep the start of an open file, and close it. Raises OSError."""
        with os.fdopen(fd, "rb") as file:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                return
            data = file.read(min(MAX_FILE_BYTES, self.left_bytes))
        self.left_bytes -= len(data)
        is_cut = len(data) < about.st_size
        digest = None if is_cut else hashlib.sha256(data).hexdigest()
        path = printable(name)[:MAX_CAPTURED_NAME_CHARS]
        drop = Drop(way, path, None, data, about.st_size, digest, is_cut)
        if data:
            self.captured.append(Captured(drop, about.st_dev, about.st_ino, about.st_ctime_ns))

    def keep_script(self, pid: int, argv: Sequence[bytes]) -> None:
        """Keep the first file of the scratch that the words of an interpreter name."""
        cwd = os.readlink(f"{pid}/cwd", dir_fd=self.proc)
        root = os.open(f"{pid}/root", os.O_PATH, dir_fd=self.proc)
        try:
            for word in argv[1 : 1 + MAX_SCRIPT_WORDS]:
                path = os.path.join(os.fsencode(cwd), word)  # noqa: PTH118 - they are bytes
                if self.is_of_scratch(root, path):
                    fd = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK)
                    self.keep(Way.SCRIPT, path, fd)
                    return
        finally:
            os.close(root)

    def is_of_scratch(self, root: int, path: bytes) -> bool:
        """Whether a path leads to a file of the scratch that was not kept yet.

        What the jail can only read is ours: the launcher, pip. Nobody in it can mount.
        """
        try:
            fd = open_in(root, path, os.O_PATH)
        except OSError:
            return False
        try:
            about, mount_flags = os.fstat(fd), os.fstatvfs(fd).f_flag
        finally:
            os.close(fd)
        is_written = about.st_dev == self.device and not mount_flags & os.ST_RDONLY
        return is_written and self.is_new(about)

    def keep_input(self, call: Execute, argv: Sequence[bytes]) -> None:
        """Keep what an interpreter is about to read from its input. Raises OSError."""
        path = f"{call.pid}/fd/0"
        about = os.stat(path, dir_fd=self.proc)
        if stat.S_ISREG(about.st_mode):
            name = os.readlink(path, dir_fd=self.proc)
            self.keep_file(Way.SCRIPT, os.fsencode(name), path)
        elif stat.S_ISFIFO(about.st_mode) and self.left_waits and self.left_bytes:
            self.left_waits -= 1
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK, dir_fd=self.proc)
            try:
                has_ended = await_end(fd, call.held_until_sec - RESERVE_SEC)
                waiting = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
                data = copy_of_pipe(fd)[: self.left_bytes]
                is_whole = has_ended and len(data) == int.from_bytes(waiting, sys.byteorder)
            finally:
                os.close(fd)
            self.keep_piped(argv, data, is_whole)

    def keep_piped(self, argv: Sequence[bytes], data: bytes, is_whole: bool) -> None:
        """Keep what waited in a pipe."""
        if not data or len(self.captured) >= MAX_CAPTURES:
            return
        self.left_bytes -= len(data)
        digest = hashlib.sha256(data).hexdigest() if is_whole else None
        process = printable(b" ".join(argv)[:MAX_CAPTURED_NAME_CHARS])[:MAX_CAPTURED_NAME_CHARS]
        drop = Drop(Way.PIPED, None, process, data, len(data), digest, not is_whole)
        self.captured.append(Captured(drop))

    def gone(self, after: Collection[FileState]) -> list[Drop]:
        """What is not there any more as it was, now that the phase has ended."""
        there = {(state.inode, state.changed_ns) for state in after}
        return [
            found.drop
            for found in self.captured
            if found.device != self.device or (found.inode, found.changed_ns) not in there
        ]


def reads_input(argv: Sequence[bytes]) -> bool:
    """Whether an interpreter that is started so reads a script from its input.

    >>> [reads_input(words.split()) for words in (b"sh", b"sh -s x", b"python -", b"sh -c id")]
    [True, True, True, False]
    """
    for word in argv[1:]:
        if word in (b"-", b"-s"):
            return True
        if not word.startswith(b"-"):
            return False
    return True


def await_end(fd: int, until_sec: float) -> bool:
    """Wait until all that is to come is in the pipe, but not longer than the time (time.time())
    that its reader is held: whether it is.
    """
    poll = select.poll()
    poll.register(fd, 0)  # only to hear that nobody writes any more
    left_sec = min(until_sec - time.time(), 1.0)
    return bool(poll.poll(max(left_sec * 1000, 0)))


def copy_of_pipe(fd: int) -> bytes:
    """What waits in a pipe, and goes on waiting there."""
    near, far = os.pipe()
    try:
        # Ours should take as much as it holds; it may not, and then only the start is kept.
        with contextlib.suppress(PermissionError):
            fcntl.fcntl(far, fcntl.F_SETPIPE_SZ, fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))
        size = c_library.tee(fd, far, ctypes.c_size_t(MAX_FILE_BYTES), SPLICE_NONBLOCK)
        data = b""
        while len(data) < size:
            data += os.read(near, size - len(data))
        return data
    finally:
        os.close(near)
        os.close(far)
