"""What the metadata of a wheel or an sdist says of it: its name and version.

Hostile input: zip and tar files, of which members.py reads no more than the bounds say.
"""

import re
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from jail.watch.members import (
    BROKEN_ARCHIVE,
    READ_METHODS,
    TAR_FILES,
    Archive,
    TooMuch,
    check_zip_end,
    tar_members,
)

MAX_TAR_BYTES = 32 << 20  # unpacked; who hides its metadata behind more is told
MAX_METADATA_BYTES = 1 << 20
ENCRYPTED = 1
# `six-1.17.0.dist-info/METADATA` in a wheel, `six-1.17.0/PKG-INFO` in an sdist.
WHEEL_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
SDIST_METADATA = re.compile(r"[^/]+/PKG-INFO")
# `Name: s06_evil` and `Version: 1.0`, lines before the first blank one.
FIELD = re.compile(r"(name|version):[ \t]*([!-~]{1,200})[ \t]*\r?", re.ASCII | re.IGNORECASE)


class Unreadable(Exception):
    """Why the metadata of an archive is not known, in words for a report."""


def read_fields(file: BinaryIO, name: str) -> tuple[str, str]:
    """The name and the version that the metadata of an archive has, "" for what is missing.

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
    except TooMuch as error:
        raise Unreadable(str(error)) from error
    except BROKEN_ARCHIVE as error:
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
    """The members of a zip file that are its metadata. Raises Unreadable, TooMuch and others."""
    check_zip_end(file)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if not pattern.fullmatch(member.filename):
                continue
            if member.flag_bits & ENCRYPTED:
                raise Unreadable("its metadata is encrypted")
            # Others unpack more at a time than they are asked for.
            if member.compress_type not in READ_METHODS:
                raise Unreadable("its metadata is compressed in an odd way")
            with archive.open(member) as opened:
                yield opened.read(MAX_METADATA_BYTES)


def tar_metadata(file: BinaryIO) -> Iterator[bytes]:
    """The first member of a tar.gz file that is its metadata. Raises Unreadable and others.

    Only as much as that is unpacked: pip takes what comes last of the same name, so a second
    member can say something else.
    """
    archive = Archive(is_source=True, left_bytes=MAX_TAR_BYTES, end_sec=float("inf"))
    try:
        for name, kind, member in tar_members(archive, file):
            if kind in TAR_FILES and SDIST_METADATA.fullmatch(name):
                yield member.read(MAX_METADATA_BYTES)
                return
    except TooMuch as error:
        text = f"no metadata is among its first {MAX_TAR_BYTES} bytes"
        raise Unreadable(text) from error
