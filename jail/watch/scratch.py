"""The files that the jail can write to: what is there, how full it is, what stands in them.

Hostile input: names, depth, number, permissions and contents of the files. Every look is bounded,
and what was too much is counted. No jail is at work while this looks.
"""

import contextlib
import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from jail.orders import MAX_INODES, SCRATCH_FOLDERS, WORK_IN_JAIL
from jail.watch.events import printable

MAX_WALK_SEC = 5.0  # of one look at the whole scratch
MAX_FOLDERS = 40_000  # that are looked into
MAX_DEPTH = 100
MAX_LINKS = 5000  # that are followed by name
# Of the paths of the scratch, each counted as PATH_CHARS more: about 200,000 of usual length.
MAX_LISTING_CHARS = 48 << 20
PATH_CHARS = 200
# The walk goes this deep everywhere before it goes deeper anywhere: no crowd further down hides
# what lies near.
BANDS = (2, 4, 8, 16, 32, 64, MAX_DEPTH)
MAX_FILE_BYTES = 1 << 20  # read of any one file
# Of which the sha256 is made: of one file, and in one phase.
MAX_HASHED_FILE_BYTES, MAX_HASHED_BYTES = 64 << 20, 128 << 20
MAX_READ_BYTES = (
    8 << 20
)  # read of each kind of file in one phase; a file counts PAGE_BYTES at least
PAGE_BYTES = 4096
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Home and site first: what lies there lasts.
LASTING = ("home", "site")
FOLDERS = (*LASTING, *sorted(SCRATCH_FOLDERS.keys() - set(LASTING)))


@dataclass(frozen=True)
class FileState:
    """What shows that a file has changed. Nobody in the jail can set the change time."""

    size_bytes: int
    inode: int
    changed_ns: int


UNREADABLE = FileState(0, 0, -1)  # a folder that can't be opened


def as_seen(path: str) -> str:
    """A path of the scratch as the jail sees it; its bytes may be any."""
    folder, _, rest = path.partition("/")
    inside = SCRATCH_FOLDERS.get(folder)
    seen = f"{inside}/{rest}" if inside and rest else f"{WORK_IN_JAIL}/{path}"
    return printable(os.fsencode(seen))


# Of files that are none: what they serve to, by their kind.
CHANNELS = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
CHANNELS |= {stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


class Chain:
    """The open folders on the way to that which was opened last, from the scratch down.

    The next is opened from the nearest of them, so that a walk in order opens each folder once,
    however deep it lies. No part may be a link, which could lead to files of ours. A permission
    that was taken away is given back: what is in the jail has our own user id.
    """

    def __init__(self, root_fd: int) -> None:
        self.steps = [("", root_fd)]  # path with a slash at its end, descriptor

    def enter(self, folder: str) -> int:
        """The descriptor of a folder, whose path ends with a slash; good until the next call.

        Raises OSError.
        """
        while not folder.startswith(self.steps[-1][0]):
            os.close(self.steps.pop()[1])
        while len(self.steps[-1][0]) < len(folder):
            path, fd = self.steps[-1]
            part = folder[len(path) : folder.index("/", len(path))]
            self.steps.append((f"{path}{part}/", open_folder(part, fd)))
        return self.steps[-1][1]

    def close(self) -> None:
        """Close all but the scratch itself."""
        while len(self.steps) > 1:
            os.close(self.steps.pop()[1])


def open_folder(name: str, parent_fd: int) -> int:
    """Open a folder for reading, with its permissions given back where they are missing.

    Raises OSError.
    """
    try:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=parent_fd)
    except PermissionError:
        path_fd = os.open(name, FOLDER_FLAGS | os.O_PATH, dir_fd=parent_fd)
        try:
            Path(f"/proc/self/fd/{path_fd}").chmod(0o700)
            fd = os.open(name, FOLDER_FLAGS, dir_fd=parent_fd)
        finally:
            os.close(path_fd)
    if os.fstat(fd).st_mode & 0o500 != 0o500:
        with contextlib.suppress(OSError):
            os.fchmod(fd, 0o700)
    return fd


class Scratch:
    """`folder` with the four folders of orders.SCRATCH_FOLDERS, on a file system of its own."""

    def __init__(self, folder: Path, max_disk_bytes: int) -> None:
        self.fd = os.open(folder, FOLDER_FLAGS)
        # What we have put there ourselves is not the package's.
        used_bytes, used_inodes = self.used()
        self.max_used_bytes, self.max_inodes = used_bytes + max_disk_bytes, used_inodes + MAX_INODES
        self.chain = Chain(self.fd)
        self.lost: Counter[str] = Counter()  # by kind: what was not looked at or not read
        self.links: dict[str, str] = {}  # where each symbolic link leads
        # The home's files that were there before any package, as the jail sees them.
        self.lived_in: frozenset[str] | None = None
        self.left_hashed_bytes = MAX_HASHED_BYTES
        self.read_bytes: Counter[str] = (
            Counter()
        )  # by kind: no flood of one keeps another from being read

    def read(self, path: str, kind: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """The start of a file; nothing of what is none, is gone, or is too much of its kind."""
        if self.read_bytes[kind] >= MAX_READ_BYTES:
            self.lost[f"{kind}, read"] += 1
            return b""
        data = b""
        with contextlib.suppress(OSError), self.open(path) as file:
            data = file.read(max_bytes)
        self.read_bytes[kind] += max(len(data), PAGE_BYTES)
        return data

    def open(self, path: str) -> BufferedReader:
        """Open a file without following a link or waiting for anybody. Raises OSError."""
        folder, slash, name = path.rpartition("/")
        fd = os.open(name, FILE_FLAGS, dir_fd=self.chain.enter(folder + slash))
        return os.fdopen(fd, "rb")

    def digest(self, path: str) -> str | None:
        """The sha256 of a whole file; None of what is none, is gone, or is too large."""
        with contextlib.suppress(OSError), self.open(path) as file:
            about = os.fstat(file.fileno())
            cost_bytes = max(about.st_size, PAGE_BYTES)
            most_bytes = min(MAX_HASHED_FILE_BYTES, self.left_hashed_bytes)
            if stat.S_ISREG(about.st_mode) and cost_bytes <= most_bytes:
                self.left_hashed_bytes -= cost_bytes
                return hashlib.file_digest(file, "sha256").hexdigest()
        return None

    def channel_at(self, path: str) -> str:
        """What a file is that is made to talk through, "" of any other."""
        folder, slash, name = path.rpartition("/")
        with contextlib.suppress(OSError):
            fd = self.chain.enter(folder + slash)
            return CHANNELS.get(stat.S_IFMT(os.lstat(name, dir_fd=fd).st_mode), "")
        return ""

    def lines(self, path: str, kind: str, max_bytes: int = MAX_FILE_BYTES) -> list[str]:
        """The lines of a text file, within the bounds of `read`."""
        return self.read(path, kind, max_bytes).decode("utf-8", "replace").splitlines()

    def snapshot(self) -> dict[str, FileState]:
        """Every file by its path, and every folder that can't be opened.

        A new phase begins with it: what was read and lost in the last phase is forgotten, and so
        is every open folder, which its processes may have moved.
        """
        self.lost.clear()
        self.read_bytes.clear()
        self.left_hashed_bytes = MAX_HASHED_BYTES
        self.chain.close()
        walk = Walk(self.chain)
        states = dict(walk.files())
        self.links = walk.links
        if self.lived_in is None:
            own = [path for path in states if path.startswith("home/")]
            self.lived_in = frozenset(map(as_seen, own))
        if walk.missed:
            self.lost["FileChanged, not looked at"] = walk.missed
        return states

    def is_full(self) -> bool:
        """Whether the run took more disk than it may.

        The disk is somewhat larger, and so never full before this is seen: a package that tidies up
        in time would hide that its disk was full.
        """
        used_bytes, inodes = self.used()
        return used_bytes > self.max_used_bytes or inodes > self.max_inodes

    def used(self) -> tuple[int, int]:
        """Bytes and inodes that are taken of the disk."""
        disk = os.fstatvfs(self.fd)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_files - disk.f_ffree


class Walk:
    """One look at every folder of the scratch, with bounds in time, number and length."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.deadline = time.monotonic() + MAX_WALK_SEC
        self.left_folders = MAX_FOLDERS
        self.left_chars = MAX_LISTING_CHARS
        self.links: dict[str, str] = {}
        self.missed = 0  # files and folders that were not looked at

    def files(self) -> Iterator[tuple[str, FileState]]:
        """Every file, and every folder that can't be opened, the nearer first."""
        waiting = [f"{name}/" for name in FOLDERS]
        for max_depth in BANDS:
            starts, waiting = waiting, []
            for start in starts:
                yield from self.branch(start, max_depth, waiting)
        self.missed += len(waiting)

    def branch(
        self, start: str, max_depth: int, deeper: list[str]
    ) -> Iterator[tuple[str, FileState]]:
        """The files below one folder, parents before children; what lies deeper goes to `deeper`,
        unopened.
        """
        stack = [start]
        while stack:
            folder = stack.pop()
            if folder.count("/") > max_depth:
                deeper.append(folder)
                continue
            self.left_folders -= 1
            if self.left_folders < 0 or time.monotonic() > self.deadline:
                self.missed += 1
                continue
            try:
                fd = self.chain.enter(folder)
            except OSError:
                yield folder, UNREADABLE
                continue
            folders: list[str] = []
            yield from self.entries(fd, folder, folders)
            stack += reversed(folders)

    def entries(self, fd: int, folder: str, folders: list[str]) -> Iterator[tuple[str, FileState]]:
        """The files of one folder; the folders in it go to `folders`."""
        with os.scandir(fd) as entries:
            for entry in entries:
                path = folder + entry.name
                self.left_chars -= len(path) + PATH_CHARS
                if self.left_chars < 0:
                    self.missed += 1
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/")
                else:
                    if entry.is_symlink() and len(self.links) < MAX_LINKS:
                        self.links[path] = os.readlink(entry.name, dir_fd=fd)
                    about = entry.stat(follow_symlinks=False)
                    yield path, FileState(about.st_size, about.st_ino, about.st_ctime_ns)
