# A file in hand: it is opened with the rights of who started us, and named by its own name.
#
# Nothing of it is read here but what every zip and every gzip file has at its end and its start,
# and that without a right of root's. All else that is in it, a watch reads.

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

from snakehook import ServiceError, printable_line

MAX_SHOWN_NAME_CHARS = 100  # shown of a name
# b"PK\5\6" stands where a zip file ends, 22 bytes and a comment from its end.
ZIP_MARK, ZIP_TAIL_BYTES = b"PK\5\6", 22 + (1 << 16)
GZIP_MARK = b"\x1f\x8b\x08"
OPEN_ERRORS = {
    errno.ELOOP: "is a link: name the file itself",
    errno.EISDIR: "is a folder: name a file",
    errno.ENOENT: "is not there: give a NAME and a VERSION, or a FILE",
    errno.EACCES: "may not be read by you",
}


class InHand:
    # Open a wheel or an sdist. Raises ServiceError.
    def __init__(self, path: str, limit_bytes: int) -> None:
        self.name = Path(path).name
        self.shown = printable_line(path, MAX_SHOWN_NAME_CHARS)
        # A FIFO must not keep us, a link not lead us to what its maker may not read.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            self.fd = os.open(path, flags)
        except (OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None
            self.refuse(OPEN_ERRORS.get(number or 0, "can't be opened"))
        found = os.fstat(self.fd)
        self.size_bytes = found.st_size
        if stat.S_ISDIR(found.st_mode):
            self.refuse(OPEN_ERRORS[errno.EISDIR])
        if not stat.S_ISREG(found.st_mode):
            self.refuse("is not a file")
        if found.st_size > limit_bytes:
            self.refuse(f"is larger than {limit_bytes} bytes (MAX_DOWNLOAD_BYTES)")

    def refuse(self, why: str) -> NoReturn:
        raise ServiceError(f"{self.shown} {why}.")

    # What it is by its name, as fields of a request. Raises ServiceError.
    def release(self) -> dict[str, str]:
        is_wheel = self.name.endswith(".whl")
        try:
            parse = parse_wheel_filename if is_wheel else parse_sdist_filename
            name, version, *_ = parse(self.name)
            canonicalize_name(name, validate=True)
        except ValueError:
            self.refuse("is not named like a wheel or an sdist (NAME-VERSION.tar.gz)")
        return {"package_name": name, "version": str(version), "artifact": self.name}

    # To be called when root is given up. Raises ServiceError.
    def demand_archive(self) -> None:
        if self.name.endswith(".tar.gz"):
            is_archive = os.pread(self.fd, len(GZIP_MARK), 0) == GZIP_MARK
        else:
            tail = os.pread(self.fd, ZIP_TAIL_BYTES, max(0, self.size_bytes - ZIP_TAIL_BYTES))
            is_archive = ZIP_MARK in tail
        if not is_archive:
            self.refuse("is not an archive, whatever its name says")
