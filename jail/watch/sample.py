"""The file that comes with an order: one in hand, or one that was kept of a release that is gone.

Hostile input: the file, and how the index answers for its project.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

from jail.orders import JailSettings, Order
from jail.watch.archive import Unreadable, read_fields
from jail.watch.contents import plain_project
from jail.watch.events import Downloaded, Seen, printable
from jail.watch.upstream import PackageCache, Refused, Upstream

SAMPLE_PIECE_BYTES = 1 << 20
SEND_SEC = 10.0  # of the GRACE_SEC that a run has for its report

# `1.0.0-Beta_2`, `v1.0`: what PEP 440 takes for the same version, taken apart far enough.
WORDS = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
WORDS |= {"rev": "post", "r": "post"}


def plain_version(version: str) -> str:
    """A version in a form in which the usual spellings of one are alike.

    >>> [plain_version(text) for text in ("1.0.0", "v1.0-Beta_2", "1-preview1", "1.0.post1")]
    ['1', '1.b.2', '1.rc.1', '1.post.1']
    """
    parts = re.findall(r"\d+|[a-z]+|[+!]", version.lower().strip().removeprefix("v"))
    parts = [WORDS.get(part, part.lstrip("0") or "0") for part in parts]
    number = 0
    while number < len(parts) and parts[number].isdigit():
        number += 1
    release, rest = parts[:number], parts[number:]
    while len(release) > 1 and release[-1] == "0":
        release.pop()
    return ".".join(release + rest)


def version_in(name: str) -> str:
    """The version that the name of a file has, "" for an odd one.

    >>> [version_in(name) for name in ("six-1.17.0-py2.py3-none-any.whl", "a-b-1.0.tar.gz")]
    ['1.17.0', '1.0']
    """
    if name.endswith(".whl"):
        return [*name.split("-"), ""][1]
    return re.sub(r"\.(?:tar\.[a-z0-9]+|zip|tgz)", "", name).rpartition("-")[2]


class Sample:
    """The file of an order's `sample`.

    Args:
        fd: of the file.
        cache: where it is copied to, so that what is given out stays as it was hashed.
        settings: how large it may be.

    Raises:
        Refused, OSError: it can't be given out.
    """

    def __init__(self, order: Order, fd: int, cache: PackageCache, settings: JailSettings) -> None:
        self.order = order
        use, _, self.name = (order.sample or "").partition(":")
        self.is_in_hand = use == "in-hand"
        self.is_used = self.is_in_hand
        self.notes: list[str] = []
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused(403, f"{self.name} is not a file")
        with os.fdopen(fd, "rb") as file:
            self.sha256 = cache.keep(file, settings.max_download_bytes)
            if self.is_in_hand:
                self.notes.append(f"a file in hand was used, not the index's: {self.name}")
                self.notes += self.differences(file)

    def differences(self, file: BinaryIO) -> list[str]:
        """Where the metadata of the file says something else than its name."""
        order = self.order
        try:
            name, version = read_fields(file, self.name)
        except Unreadable as error:
            return [f"the metadata of {self.name} could not be compared with its name: {error}"]
        is_same = plain_project(name) == order.package_name
        is_same = is_same and plain_version(version) == plain_version(order.version)
        said = printable(f"{name or 'no name'} {version or 'no version'}".encode())
        return [] if is_same else [f"the metadata of {self.name} says that it is {said}"]

    def is_missed(self, names: list[str]) -> bool:
        """Whether none of the files of a page is of the release that was kept."""
        wanted = plain_version(self.order.version)
        return all(plain_version(version_in(name)) != wanted for name in names)

    def entry(self, answer: str) -> dict[str, Any]:
        """The file's entry on its project's page; that a kept one is used is noted.

        Args:
            answer: what the index said, "" where it was not asked.
        """
        if not self.is_used:
            self.is_used = True
            gone = f"the index does not have {self.order.package_name} {self.order.version}"
            used = f"the kept sample {self.name} was used, sha256 {self.sha256}"
            self.notes.append(f"{gone} ({answer}): {used}")
        url = f"/files/{self.sha256}/{self.name}"
        return {"filename": self.name, "url": url, "hashes": {"sha256": self.sha256}}


def take_sample(
    order: Order,
    fds: Sequence[int],
    cache: PackageCache,
    upstream: Upstream,
    settings: JailSettings,
) -> tuple[Sample | None, str]:
    """The file that came with the order, if one did; and why the run can't go on without it.

    Args:
        fds: its descriptor, or none.
    """
    if not fds:
        return None, ""
    try:
        sample = Sample(order, fds[0], cache, settings)
    except (Refused, OSError) as refused:
        is_in_hand = (order.sample or "").startswith("in-hand")
        return None, f"the file in hand can't be given out: {refused}" if is_in_hand else ""
    upstream.is_needed = not sample.is_in_hand
    return sample, ""


def send_samples(
    seen: Iterable[Seen], cache: PackageCache, send: Callable[[str, bytes], None]
) -> None:
    """Send what a run with findings loaded, for the service to keep: of each file its name, then
    its bytes in pieces, of which the last is empty.

    Only as long as there is time: the report has been sent, and must not be lost for that.
    """
    files = {
        item.event.sha256: item.event.file for item in seen if isinstance(item.event, Downloaded)
    }
    end_sec = time.monotonic() + SEND_SEC
    for digest, name in files.items():
        file = cache.find(digest) if time.monotonic() < end_sec else None
        if not file:
            continue
        with file:
            file.seek(0)
            send("sample", name.encode())
            while piece := file.read(SAMPLE_PIECE_BYTES):
                send("piece", piece)
            send("piece", b"")


# Both as PEP 792 has it, `{"project-status": {"status": "quarantined"}}`, and as the example of its
# specification does, `{"meta": {"project-status": "quarantined"}}`.
def status_of(page: dict[str, Any]) -> str:
    """Why a page may lack a release: "quarantined", or that it is not there."""
    for place in (page.get("project-status"), page.get("meta")):
        found = place if isinstance(place, dict) else {}
        if "quarantined" in (found.get("status"), found.get("project-status")):
            return "quarantined"
    return "no such version"
