"""What the metadata of a wheel or an sdist says of it: its name and version.

Hostile input: zip and tar files, of which no more is read than the bounds below.
"""

import gzip
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

MAX_DIRECTORY_BYTES = 4 << 20  # of a zip file's list of members
MAX_TAR_BYTES = 32 << 20  # unpacked; who hides its metadata behind more is told
MAX_METADATA_BYTES = 1 << 20
# The end of a zip file: b"PK\5\6", six numbers, of which the fifth is the list's length, and a
# comment.
ZIP_END, ZIP_END_BYTES = b"PK\5\6", 22
# What may stand before it says that there are larger numbers.
ZIP64_LOCATOR, ZIP64_LOCATOR_BYTES = b"PK\6\7", 20
MAX_COMMENT_BYTES = 1 << 16
ENCRYPTED = 1
# `six-1.17.0.dist-info/METADATA` in a wheel, `six-1.17.0/PKG-INFO` in an sdist.
WHEEL_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
SDIST_METADATA = re.compile(r"[^/]+/PKG-INFO")
# `Name: s06_evil` and `Version: 1.0`, lines before the first blank one.
FIELD = re.compile(r"(name|version):[ \t]*([!-~]{1,200})[ \t]*\r?", re.ASCII | re.IGNORECASE)
# All that the readers of the library raise for what is not as it should be.
READ_ERRORS = (
    *(OSError, EOFError, ValueError, LookupError, ArithmeticError, RuntimeError, TypeError),
    *(zlib.error, struct.error, zipfile.BadZipFile, tarfile.TarError, NotImplementedError),
)


class Unreadable(Exception):
    """Why the metadata of an archive is not known, in words for a report."""


def read_fields(file: BinaryIO, name: str) -> tuple[str, str]:
    """The name and the version that the metadata of an archive has, "" for one that is missing.

    Args:
        name: of the file, which says what it should be.

    Raises:
        Unreadable.
    """
    try:
        file.seek(0)
        pattern = WHEEL_METADATA if name.endswith(".whl") else SDIST_METADATA
        is_tar = name.endswith(".tar.gz")
        texts = tar_metadata(file) if is_tar else zip_metadata(file, pattern)
        found = [parse_fields(text) for text in texts]
    except READ_ERRORS as error:
        raise Unreadable(f"it can't be read as an archive ({type(error).__name__})") from error
    if not found:
        raise Unreadable("it has no metadata")
    if len(set(found)) > 1:
        raise Unreadable(f"it has {len(found)} files of metadata that differ")
    return found[0]


def parse_fields(metadata: bytes) -> tuple[str, str]:
    """Name and version.

    >>> parse_fields(b"Metadata-Version: 2.1\\nName: s06_evil\\nVersion: 1.0\\n\\nName: other")
    ('s06_evil', '1.0')
    """
    found: dict[str, str] = {}
    for line in metadata.decode(errors="replace").split("\n"):
        if not line.strip():
            break
        match = FIELD.fullmatch(line)
        if match:
            found.setdefault(match[1].lower(), match[2])
    return found.get("name", ""), found.get("version", "")


def zip_metadata(file: BinaryIO, pattern: re.Pattern[str]) -> Iterator[bytes]:
    """The members of a zip file that are its metadata. Raises READ_ERRORS, Unreadable."""
    demand_short_directory(file)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not pattern.fullmatch(member.filename):
                continue
            if member.flag_bits & ENCRYPTED:
                raise Unreadable("its metadata is encrypted")
            # Others unpack more at a time than they are asked for.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Unreadable("its metadata is compressed in an odd way")
            with archive.open(member) as opened:
                yield opened.read(MAX_METADATA_BYTES)


def demand_short_directory(file: BinaryIO) -> None:
    """The library reads the whole list of members into memory. Raises Unreadable."""
    size_bytes = file.seek(0, 2)
    file.seek(max(0, size_bytes - ZIP_END_BYTES - MAX_COMMENT_BYTES))
    tail = file.read(ZIP_END_BYTES + MAX_COMMENT_BYTES)
    at = tail.rfind(ZIP_END)
    if at < 0 or len(tail) - at < ZIP_END_BYTES:
        raise Unreadable("it is no zip file")
    (length_bytes,) = struct.unpack_from("<I", tail, at + 12)
    is_long = tail[:at][-ZIP64_LOCATOR_BYTES:].startswith(ZIP64_LOCATOR)
    if is_long or length_bytes > MAX_DIRECTORY_BYTES:
        raise Unreadable("its list of members is too long")


class Unpacked:
    """A gzip file as it is unpacked, up to MAX_TAR_BYTES."""

    def __init__(self, file: BinaryIO) -> None:
        self.stream = gzip.GzipFile(fileobj=file)
        self.left_bytes = MAX_TAR_BYTES

    def read(self, size_bytes: int) -> bytes:
        """As of a file. Raises Unreadable when it is too much."""
        if self.left_bytes <= 0:
            raise Unreadable(f"no metadata is among its first {MAX_TAR_BYTES} bytes")
        data = self.stream.read(min(size_bytes, self.left_bytes))
        self.left_bytes -= len(data)
        return data


def tar_metadata(file: BinaryIO) -> Iterator[bytes]:
    """The first member of a tar.gz file that is its metadata. Raises READ_ERRORS, Unreadable.

    Only as much as that is unpacked: pip takes what comes last of the same name, so a second one
    can say something else.
    """
    with tarfile.open(fileobj=Unpacked(file), mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            # The library keeps all that it has met.
            archive.members = []
            if SDIST_METADATA.fullmatch(member.name) and member.isreg():
                opened = archive.extractfile(member)
                if opened:
                    yield opened.read(MAX_METADATA_BYTES)
                return
