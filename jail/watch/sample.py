"""What is given out in the place of the index's files: a file in hand, which comes with the order,
or a sample that was kept of a release that is gone.

Hostile input: the file, and how the index answers for its project.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jail.orders import JailSettings, Order
from jail.watch.archive import Unreadable, read_fields
from jail.watch.contents import plain_project
from jail.watch.events import Downloaded, Seen, printable
from jail.watch.offered import status_in
from jail.watch.samples import KeptFile, SampleStore
from jail.watch.upstream import PackageCache, Refused

KEEP_SEC = 10.0  # of the GRACE_SEC that a run has for its report

# `1.0.0-Beta_2`, `v1.0`: what PEP 440 takes for the same version, taken apart far enough.
SPELLINGS = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
SPELLINGS |= {"rev": "post", "r": "post"}


def plain_version(version: str) -> str:
    """A version in a form in which all of its usual spellings are alike.

    >>> [plain_version(text) for text in ("1.0.0", "v1.0-Beta_2", "1-preview1", "1.0.post1")]
    ['1', '1.b.2', '1.rc.1', '1.post.1']
    """
    parts = re.findall(r"\d+|[a-z]+|[+!]", version.lower().strip().removeprefix("v"))
    parts = [SPELLINGS.get(part, part.lstrip("0") or "0") for part in parts]
    number = 0
    while number < len(parts) and parts[number].isdigit():
        number += 1
    release, rest = parts[:number], parts[number:]
    while len(release) > 1 and release[-1] == "0":
        release.pop()
    return ".".join(release + rest)


def release_in(name: str) -> tuple[str, str]:
    """The project, in its canonical form, and the version that the name of a file has.

    >>> [release_in(name) for name in ("six-1.17.0-py2.py3-none-any.whl", "A.b-1.0.tar.gz")]
    [('six', '1.17.0'), ('a-b', '1.0')]
    """
    if name.endswith(".whl"):
        project, version, *_ = [*name.split("-"), ""]
    else:
        stem = re.sub(r"\.(?:tar\.[a-z0-9]+|zip|tgz)", "", name)
        project, _, version = stem.rpartition("-")
    return plain_project(project), version


def is_of_order(order: Order, name: str) -> bool:
    """Whether a file belongs to the release that an order names."""
    _, version = release_in(name)
    return plain_version(version) == plain_version(order.version)


@dataclass(frozen=True)
class Sample:
    """A file that the gateway gives out as the release; its bytes are in the cache."""

    name: str
    sha256: str

    def entry(self) -> dict[str, Any]:
        """Its entry on the page of its project."""
        url = f"/files/{self.sha256}/{self.name}"
        return {"filename": self.name, "url": url, "hashes": {"sha256": self.sha256}}


@dataclass
class BesideIndex:
    """What a run has beside the index. `notes` are for the report.

    Args:
        in_hand: the file that is the release.
        samples: where a release that is gone may be found.
    """

    order: Order
    cache: PackageCache
    notes: list[str]
    in_hand: Sample | None = None
    samples: SampleStore | None = None
    kept: Sample | None = None

    def find_kept(self, answer: str) -> Sample | None:
        """The sample of a release that the index does not have.

        Args:
            answer: what the index said.
        """
        if not self.samples or self.kept:
            return self.kept
        for found in self.samples.all():
            file = self.samples.open(found.sha256) if self.is_wanted(found) else None
            if not file:
                continue
            with file, contextlib.suppress(Refused):
                sha256 = self.cache.keep(file, found.size_bytes)
                self.kept = Sample(found.file, sha256)
                gone = f"the index does not have {self.order.package_name} {self.order.version}"
                used = f"the kept sample {found.file} was used, sha256 {sha256}"
                self.notes.append(f"{gone} ({answer}): {used}")
                break
        return self.kept

    def is_wanted(self, found: KeptFile) -> bool:
        """Whether it is of the release, and such a file as the order asks for."""
        artifact, is_wheel = self.order.artifact, found.file.endswith(".whl")
        kinds = (None, "wheel" if is_wheel else "sdist", found.file)
        is_release = found.name == self.order.package_name and is_of_order(self.order, found.file)
        return is_release and artifact in kinds


def make_given(
    order: Order, fds: Sequence[int], cache: PackageCache, settings: JailSettings, folder: Path
) -> tuple[BesideIndex, str]:
    """What a run has beside the index; and why it can't be run, where the file in hand is no file.

    Args:
        fds: the descriptor of the file that came with the order, or none.
        folder: of the samples.
    """
    given, name = BesideIndex(order, cache, []), order.artifact
    try:
        given.samples = SampleStore(folder, settings.keep_samples_bytes)
    except OSError as error:
        given.notes.append(f"no samples can be used or kept: {error.strerror}")
    if not fds or not name:
        return given, ""
    try:
        if not stat.S_ISREG(os.fstat(fds[0]).st_mode):
            return given, f"the file in hand is none: {name}"
        with os.fdopen(fds[0], "rb") as file:
            # Copied, so that it stays as it was hashed.
            sha256 = cache.keep(file, settings.max_download_bytes)
            given.in_hand = Sample(name, sha256)
            given.notes.append(f"a file in hand was used, not the index's: {name}")
            given.notes += differences(order, file, name)
    except (Refused, OSError) as error:
        return given, f"the file in hand can't be used: {error}"
    return given, ""


def differences(order: Order, file: BinaryIO, file_name: str) -> list[str]:
    """Where the metadata of a file says something else than its name."""
    try:
        name, version = read_fields(file, file_name)
    except Unreadable as error:
        return [f"the metadata of {file_name} could not be compared with its name: {error}"]
    is_same = plain_project(name) == order.package_name
    is_same = is_same and plain_version(version) == plain_version(order.version)
    said = printable(f"{name or 'no name'} {version or 'no version'}".encode())
    return [] if is_same else [f"the metadata of {file_name} says that it is {said}"]


def keep_samples(seen: Iterable[Seen], given: BesideIndex, verdict: str) -> OSError | None:
    """Keep each file that a run with findings loaded; what was in the way of that.

    Only as long as there is time: a run is ended when its time is over.
    """
    if not given.samples or verdict not in ("medium", "high"):
        return None
    events = [item.event for item in seen]
    files = {event.sha256: event.file for event in events if isinstance(event, Downloaded)}
    end_sec = time.monotonic() + KEEP_SEC
    try:
        for sha256, name in files.items():
            file = given.cache.find(sha256) if time.monotonic() < end_sec else None
            if file:
                keep_file(file, name, sha256, verdict, given.samples)
    except OSError as error:
        return error
    return None


def keep_file(file: BinaryIO, name: str, sha256: str, verdict: str, samples: SampleStore) -> None:
    with file:
        size_bytes = os.fstat(file.fileno()).st_size
        file.seek(0)
        about = KeptFile(*release_in(name), name, sha256, verdict, size_bytes, time.time())
        samples.keep(file, about)


def status_of(page: dict[str, Any]) -> str:
    """Why a page may lack a release: "quarantined", or that it is not there."""
    status, _ = status_in(page)
    return status if status == "quarantined" else "no such version"
