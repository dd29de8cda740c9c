"""The samples: each file that a run with findings loaded, by sha256, in STATE_DIR.

Only watch and who asks for them by `snakehook samples` open this folder; no jail sees it. Hostile
input: what lies in it, since a watch that was taken over may have written it. All that is read is
checked again, and no file is what its name says unless its sha256 is.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import BinaryIO

MAX_SAMPLES = 5000
MAX_ABOUT_BYTES = 4 << 10
COPY_BYTES = 1 << 20
MODE = 0o400
MAX_LOCK_WAIT_SEC, LOCK_RETRY_SEC = 3.0, 0.02
# What is known of a sample, as `<sha256>.json` beside `<sha256>.sample`, and what it may look like:
# `{"name": "evil", "version": "1.0", "file": "evil-1.0.tar.gz", "sha256": "47...", "verdict":
# "high", "size_bytes": 4711, "kept_sec": 1764130000.0}`
WORDS = {
    "name": r"(?!.{201})[a-z0-9]+(?:-[a-z0-9]+)*",
    "version": r"[0-9A-Za-z.!+_]{0,200}",
    "file": r"(?!\.)[A-Za-z0-9._+!-]{1,255}",
    "sha256": r"[0-9a-f]{64}",
    "verdict": r"medium|high",
}
NUMBER_FIELDS = ("size_bytes", "kept_sec")


@dataclass(frozen=True)
class KeptFile:
    """A file that was kept; `verdict` is the worst of the runs that loaded it."""

    name: str
    version: str
    file: str
    sha256: str
    verdict: str
    size_bytes: int
    kept_sec: float  # since 1970, when a run loaded it last


def parse_about(text: bytes) -> KeptFile | None:
    """What is known of a sample; None for what is none."""
    try:
        said = json.loads(text)
        words = {key: said[key] for key in WORDS}
        numbers = {key: said[key] for key in NUMBER_FIELDS}
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    for key, word in words.items():
        if not isinstance(word, str) or not re.fullmatch(WORDS[key], word, re.ASCII):
            return None
    for number in numbers.values():
        if type(number) not in (int, float) or not 0 <= number < 1 << 50:
            return None
    return KeptFile(**words, size_bytes=int(numbers["size_bytes"]), kept_sec=numbers["kept_sec"])


class SampleStore:
    """The samples of a folder. Raises OSError where it can't be opened.

    Args:
        keep_bytes: how much there may be; the oldest go first.
    """

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self.keep_bytes = keep_bytes
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(folder, flags)

    def all(self) -> list[KeptFile]:
        """What there is, the newest first."""
        found = [kept for kept in self.abouts() if self.is_there(kept.sha256)]
        return sorted(found, key=lambda kept: -kept.kept_sec)

    def abouts(self) -> Iterator[KeptFile]:
        """What is known of each, whether the file itself is there or not."""
        for name in self.names():
            kept = self.about(name.removesuffix(".json")) if name.endswith(".json") else None
            if kept:
                yield kept

    def names(self) -> list[str]:
        """The files of the folder, as many as two for each sample and some that do not belong."""
        with os.scandir(self.fd) as entries:
            return [entry.name for entry in islice(entries, 3 * MAX_SAMPLES)]

    def about(self, sha256: str) -> KeptFile | None:
        """What is known of a sample; None where nothing is."""
        file = self.open_file(f"{sha256}.json")
        if not file:
            return None
        with file:
            kept = parse_about(file.read(MAX_ABOUT_BYTES))
        return kept if kept and kept.sha256 == sha256 else None

    def is_there(self, sha256: str) -> bool:
        with contextlib.suppress(OSError):
            found = os.stat(f"{sha256}.sample", dir_fd=self.fd, follow_symlinks=False)
            return stat.S_ISREG(found.st_mode)
        return False

    def open_file(self, name: str) -> BufferedReader | None:
        """A file of the folder: no link, no pipe."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.fd)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return os.fdopen(fd, "rb")
        os.close(fd)
        return None

    def open(self, sha256: str) -> BinaryIO | None:
        """The bytes of a sample, if they are still what they were.

        One that is larger than all may be together is none that we keep, and is not read.
        """
        file = self.open_file(f"{sha256}.sample")
        if not file:
            return None
        is_huge = os.fstat(file.fileno()).st_size > self.keep_bytes
        if is_huge or hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            file.close()
            return None
        file.seek(0)
        return file

    def keep(self, source: BinaryIO, kept: KeptFile) -> None:
        """Keep a file, of which `kept` is known. Raises OSError.

        What is half written has no name yet: it vanishes with us, whatever ends us.
        """
        with self.unnamed() as copy:
            digest = hashlib.sha256()
            while block := source.read(COPY_BYTES):
                digest.update(block)
                copy.write(block)
            if digest.hexdigest() != kept.sha256:
                return
            copy.flush()
            with self.locked():
                before = self.about(kept.sha256)
                is_worse = before is not None and before.verdict == "high"
                about = asdict(kept) | ({"verdict": "high"} if is_worse else {})
                # First what is known of it: nobody takes a file for a sample of which nothing is.
                with self.unnamed() as text:
                    text.write(json.dumps(about).encode())
                    text.flush()
                    self.name(text, f"{kept.sha256}.json")
                self.name(copy, f"{kept.sha256}.sample")
                self.trim()

    def unnamed(self) -> BinaryIO:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        return os.fdopen(os.open(".", flags, MODE, dir_fd=self.fd), "w+b")

    def name(self, file: BinaryIO, name: str) -> None:
        """Give an unnamed file its name, in the place of what has it."""
        self.remove(name)
        os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=self.fd)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else keeps or removes samples meanwhile.

        Raises OSError where somebody does for too long: a watch that was taken over must not keep
        the others from ending their runs.
        """
        end_sec = time.monotonic() + MAX_LOCK_WAIT_SEC
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end_sec:
                    raise
            time.sleep(LOCK_RETRY_SEC)
        try:
            yield
        finally:
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def trim(self) -> None:
        """The oldest go that there is no room for, and what is no sample."""
        left_bytes, stay = self.keep_bytes, set()
        for kept in self.all()[:MAX_SAMPLES]:
            left_bytes -= os.stat(f"{kept.sha256}.sample", dir_fd=self.fd).st_size
            if left_bytes >= 0:
                stay |= {f"{kept.sha256}.sample", f"{kept.sha256}.json"}
        for name in self.names():
            if name not in stay:
                with contextlib.suppress(IsADirectoryError, PermissionError):
                    self.remove(name)
