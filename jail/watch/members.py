"""What wheels and source distributions have in them, without unpacking anything.

Hostile input: all of an archive. Members are read one after the other, within bounds in number,
size and time; what is odd about them, or was too much, is told. The tar format is read here, and
not by the library's tarfile, which reads what a header announces without a bound.
"""

import gzip
import hashlib
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from jail.watch.events import printable

MAX_ARCHIVE_MEMBERS = 20_000
MAX_UNPACKED_BYTES, MAX_UNPACK_SEC = 200 << 20, 2.0  # of one archive
# Kept of one member, and of one archive, to be compared line by line.
MAX_KEPT_BYTES, MAX_KEPT_IN_ALL_BYTES = 200_000, 24 << 20
MAX_MEMBER_PATH_CHARS, MAX_WHOLE_NAME_CHARS = 300, 1000
MAX_ODD = 30  # notes on one archive
MAX_HEADER_BYTES = 64 << 10  # of a long name in a tar file
UNPACK_BLOCK_BYTES = 64 << 10

# The record at the end of a zip file: b"PK\5\6", ..., members, size of the list of them, ...
ZIP_END_RECORD = struct.Struct("<4s4xHHII2x")
ZIP_END_MARK, ZIP64_MARK = b"PK\5\6", b"PK\6\7"
ZIP_LIST_TAIL_BYTES, ZIP64_RECORD_BYTES = (64 << 10) + 22, 20
MAX_ZIP_LIST_BYTES = 8 << 20
# Others may take any amount of memory; nobody builds packages with them.
READ_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
TAR_BLOCK_BYTES = 512
TAR_FILES, TAR_FOLDER, TAR_LONG_NAME, TAR_PAX = b"\x0007", b"5", b"L", b"x"
# Beside these two, the long name of a link, and what is said of all members.
TAR_WITH_HEADER = (TAR_LONG_NAME, TAR_PAX, b"K", b"g")
# `26 path=a-package-1.0/x.py\n`
PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=]{1,200})=")
# Names that lead elsewhere when somebody unpacks them carelessly.
LEADS_OUT = re.compile(r"/|[A-Za-z]:|(?:.*/)?\.\.(?:/|$)|.*\\", re.DOTALL)


# What the library says of a broken archive.
BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, struct.error),
    *(NotImplementedError, RuntimeError, UnicodeError, LookupError),
)


class Readable(Protocol):
    """What is needed of a file."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes."""


class TooMuch(Exception):
    """No archive, or none that can be read within the bounds; says why."""


@dataclass(frozen=True)
class Member:
    """A file in an archive. `start`: all of it, if it is not too large, or else too little to
    compare.
    """

    size_bytes: int
    sha256: str
    start: bytes
    is_whole: bool


@dataclass
class Archive:
    """The files by their names; `odd` says what is strange about them, or was not looked at."""

    is_source: bool
    members: dict[str, Member] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    left_bytes: int = field(default_factory=lambda: MAX_UNPACKED_BYTES)
    left_kept_bytes: int = MAX_KEPT_IN_ALL_BYTES
    end_sec: float = field(default_factory=lambda: time.monotonic() + MAX_UNPACK_SEC)

    def note(self, what: str, name: str = "") -> None:
        """Tell what is odd."""
        shown = printable(name.encode(errors="replace"))[:MAX_MEMBER_PATH_CHARS]
        text = f"{what}: {shown}" if name else what
        if text not in self.odd and len(self.odd) < MAX_ODD:
            self.odd.append(text)

    def take(self, name: str, read: Callable[[int], bytes]) -> None:
        """Read a member to its end. Raises TooMuch where a bound is passed."""
        if len(name) > MAX_WHOLE_NAME_CHARS:
            self.note("a name that is too long", name)
            name = name[:MAX_WHOLE_NAME_CHARS]
        if name in self.members:
            self.note("two members with one name", name)
        if LEADS_OUT.match(name):
            self.note("a name that leads out of the archive", name)
        if not name.isprintable():
            self.note("a name with characters that act", name)
        digest, size_bytes, start = hashlib.sha256(), 0, b""
        while block := read(UNPACK_BLOCK_BYTES):
            self.spend(len(block))
            digest.update(block)
            size_bytes += len(block)
            if len(start) < min(MAX_KEPT_BYTES, self.left_kept_bytes):
                start += block
        self.left_kept_bytes -= len(start)
        is_whole = len(start) == size_bytes
        # Of the last of two with one name: an installer writes that over the first.
        self.members[name] = Member(size_bytes, digest.hexdigest(), start, is_whole)

    def spend(self, size_bytes: int) -> None:
        """Count what was unpacked. Raises TooMuch."""
        self.left_bytes -= size_bytes
        if self.left_bytes < 0:
            raise TooMuch(f"more than {MAX_UNPACKED_BYTES >> 20} MiB when it is unpacked")
        if time.monotonic() > self.end_sec:
            raise TooMuch(f"more than can be unpacked in {MAX_UNPACK_SEC:g} s")
        if len(self.members) >= MAX_ARCHIVE_MEMBERS:
            raise TooMuch(f"more than {MAX_ARCHIVE_MEMBERS} members")


def read_archive(name: str, file: BinaryIO) -> Archive:
    """What is in an archive; where that is too much, what came first, and a note."""
    archive = Archive(is_source=not name.lower().endswith(".whl"))
    try:
        if name.lower().endswith(".tar.gz"):
            read_tar(archive, file)
        else:
            read_zip(archive, file)
    except TooMuch as error:
        archive.note(f"not all was looked at: {error}")
    except BROKEN_ARCHIVE as error:
        archive.note(f"not all was looked at: it is broken ({type(error).__name__})")
    return archive


def read_zip(archive: Archive, file: BinaryIO) -> None:
    check_zip_end(file)
    with zipfile.ZipFile(file) as opened:
        for about in opened.infolist():
            if about.is_dir():
                continue
            # The upper half of these is the mode of the file, where a Unix has made it.
            if about.external_attr >> 28 == 0o12:
                archive.note("a link", about.filename)
            if about.compress_type not in READ_METHODS:
                archive.note("not looked at, for how it is compressed", about.filename)
                continue
            # One that is broken hides no other.
            try:
                with opened.open(about) as member:
                    archive.take(about.filename, member.read)
            except BROKEN_ARCHIVE:
                archive.note("it can't be read", about.filename)


def check_zip_end(file: BinaryIO) -> None:
    """Look how long the list of members is before the library reads all of it. Raises TooMuch,
    OSError, struct.error.
    """
    size_bytes = file.seek(0, 2)
    file.seek(max(size_bytes - ZIP_LIST_TAIL_BYTES - ZIP64_RECORD_BYTES, 0))
    tail = file.read()
    # Without a comment it is the very end, and the library looks there first.
    at = len(tail) - ZIP_END_RECORD.size
    if tail[max(at, 0) : at + 4] != ZIP_END_MARK:
        at = tail.rfind(ZIP_END_MARK)
    if at < 0:
        raise TooMuch("it has no list of its members")
    _, _, members, list_bytes, _ = ZIP_END_RECORD.unpack_from(tail, at)
    is_huge = tail[max(at - ZIP64_RECORD_BYTES, 0) :].startswith(ZIP64_MARK)
    if is_huge or members > MAX_ARCHIVE_MEMBERS or list_bytes > MAX_ZIP_LIST_BYTES:
        raise TooMuch(f"its list of members is too long, for more than {MAX_ARCHIVE_MEMBERS}")


def read_tar(archive: Archive, file: BinaryIO) -> None:
    for name, kind, member in tar_members(archive, file):
        if kind in TAR_FILES:
            archive.take(name, member.read)
        elif kind != TAR_FOLDER:
            archive.note("a link or a special file", name)


@dataclass
class Bounded:
    """The next bytes of a file, and no more."""

    file: Readable
    left_bytes: int

    def read(self, size_bytes: int) -> bytes:
        """Raises EOFError where the file ends before."""
        wanted = min(size_bytes, self.left_bytes)
        data = self.file.read(wanted)
        if len(data) < wanted:
            raise EOFError
        self.left_bytes -= wanted
        return data


def tar_members(archive: Archive, file: BinaryIO) -> Iterator[tuple[str, bytes, Bounded]]:
    """Name, type and content of each member; what is not read of it is passed over, and counts."""
    with gzip.open(file) as unpacked:
        for name, kind, size_bytes in tar_headers(archive, unpacked):
            member = Bounded(unpacked, size_bytes)
            yield name, kind, member
            while block := member.read(UNPACK_BLOCK_BYTES):
                archive.spend(len(block))
            unpacked.read(-size_bytes % TAR_BLOCK_BYTES)


def tar_headers(archive: Archive, file: Readable) -> Iterator[tuple[str, bytes, int]]:
    """Name, type and size of each member; who asks for the next has read all of the last."""
    name: bytes | None = None
    size_bytes: int | None = None
    while True:
        header = file.read(TAR_BLOCK_BYTES)
        if len(header) < TAR_BLOCK_BYTES:
            archive.note("it has no end")
            return
        if not header.strip(b"\0"):
            return
        archive.spend(TAR_BLOCK_BYTES)
        kind, own_bytes = header[156:157], tar_number(header[124:136])
        if kind in TAR_WITH_HEADER:
            if own_bytes > MAX_HEADER_BYTES:
                raise TooMuch("a header that is too long")
            body = Bounded(file, own_bytes).read(own_bytes)
            file.read(-own_bytes % TAR_BLOCK_BYTES)
            if kind == TAR_LONG_NAME:
                name = body.partition(b"\0")[0]
            elif kind == TAR_PAX:
                told = pax_records(body)
                name = told.get(b"path", name)
                size_bytes = int(told[b"size"]) if b"size" in told else size_bytes
            continue
        size = own_bytes if size_bytes is None else size_bytes
        # Folders and links have no content, whatever they say.
        if kind not in TAR_FILES:
            size = 0 if kind in b"123456" else size
        if size < 0:
            raise TooMuch("a member of less than nothing")
        shown = tar_name(header) if name is None else name
        yield shown.decode("utf-8", "replace"), kind, size
        name = size_bytes = None


def tar_number(text: bytes) -> int:
    """A number of a header: octal digits, or binary. Raises ValueError."""
    if text[0] & 0x80:
        return int.from_bytes(text[1:])
    return int(text.partition(b"\0")[0].strip() or b"0", 8)


def tar_name(header: bytes) -> bytes:
    """The name of a member: in POSIX's format its folders may stand apart."""
    name = header[:100].partition(b"\0")[0]
    folder = header[345:500].partition(b"\0")[0]
    is_posix = header[257:263] == b"ustar\0"
    return folder + b"/" + name if is_posix and folder else name


def pax_records(body: bytes) -> dict[bytes, bytes]:
    """`26 path=a-package-1.0/x.py\n` and so on. What is none ends it."""
    found, at = {}, 0
    while match := PAX_RECORD.match(body, at):
        end = at + int(match[1])
        if end <= match.end() or end > len(body):
            break
        found[match[2]] = body[match.end() : end - 1]
        at = end
    return found
