"""What a run leaves behind, for whoever investigates: the start of each file that the package wrote
outside of its RECORD, and of what it ran and removed again, as one tar file.

Hostile input: the contents, and how many there are. Nothing of them is unpacked. A member has a
name of ours; the package's own names stand in the manifest alone, as ASCII text.
"""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jail.orders import Order
from jail.watch.events import MAX_TEXT_CHARS, Phase
from jail.watch.evidence import FAST, GZIP_FORMAT

# Of the whole tar file, before it is compressed; and what its end takes of that.
MAX_DROPPED_BYTES, END_BYTES = 16 << 20, 4 << 10
MAX_DROPPED_TRIGGER_CHARS = 300
MANIFEST = "manifest.json"
# Of one content, in the name of its member.
DIGEST_CHARS = 16
PRIVATE = 0o600


class Way(StrEnum):
    """How a content came to be kept."""

    FILE = "file"  # it lay there when its phase had ended
    PROGRAM = "program"  # it was started, and was gone or changed by then
    SCRIPT = "script"  # the same, of what an interpreter was given by name
    PIPED = "piped"  # it waited in the input of an interpreter


@dataclass(frozen=True)
class Drop:
    """The start of a content, `data`, and what is known of the whole.

    `path` as the package saw it; of what was piped there is none, and `process` says to whom.
    `sha256` is of the whole, None where not all of it was read.
    """

    way: Way
    path: str | None
    process: str | None
    data: bytes
    size_bytes: int
    sha256: str | None
    is_cut: bool

    @property
    def rank(self) -> tuple[bool, int]:
        """What ran comes first, then the small: one large file takes no room from many."""
        return self.way is Way.FILE, len(self.data)


class Dropped:
    """A gzip file in memory, made as the contents come. What there is no room for is counted."""

    def __init__(self) -> None:
        self.packer = zlib.compressobj(FAST, zlib.DEFLATED, GZIP_FORMAT)
        self.packed = bytearray()
        self.left_bytes = MAX_DROPPED_BYTES - END_BYTES
        self.members: dict[str, str] = {}  # by the sha256 of what they hold
        self.listed: list[str] = []  # entries of the manifest, as JSON
        self.left_out = 0

    def take(self, phase: Phase, drops: Iterable[Drop]) -> None:
        """Keep what one jail has dropped.

        It gets at most half of the room that is left, so that no flood of one trigger hides what a
        later trigger drops.
        """
        floor_bytes = self.left_bytes // 2
        for drop in sorted(drops, key=lambda drop: drop.rank):
            digest = hashlib.sha256(drop.data).hexdigest()
            member = self.members.get(digest)
            name = member or f"{len(self.members) + 1:04}-{digest[:DIGEST_CHARS]}.bin"
            entry = json.dumps(entry_of(name, phase, drop))
            need_bytes = len(entry) + 2 + (0 if member else size_in_tar(drop.data))
            if self.left_bytes - need_bytes < floor_bytes:
                self.left_out += 1
                continue
            self.left_bytes -= need_bytes
            self.listed.append(entry)
            if not member:
                self.members[digest] = name
                self.add(name, drop.data)

    def add(self, name: str, data: bytes) -> None:
        """Write a member: mode, owner and time are the same for all."""
        about = tarfile.TarInfo(name)
        about.size, about.mode = len(data), PRIVATE
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        for part in (about.tobuf(tarfile.USTAR_FORMAT), data, padding):
            self.packed += self.packer.compress(part)

    def close(self, order: Order) -> bytes:
        """End the file and return it; nothing when nothing was dropped."""
        if not self.listed:
            return b""
        about: dict[str, Any] = {"run_id": order.run_id, "package_name": order.package_name}
        about |= {"version": order.version, "left_out": self.left_out}
        head = json.dumps(about)[:-1]
        self.add(MANIFEST, f'{head}, "files": [{", ".join(self.listed)}]}}\n'.encode())
        end = self.packer.compress(bytes(2 * tarfile.BLOCKSIZE))
        return bytes(self.packed + end + self.packer.flush())


def size_in_tar(data: bytes) -> int:
    """What a member takes of the tar file."""
    return tarfile.BLOCKSIZE + len(data) + -len(data) % tarfile.BLOCKSIZE


def entry_of(member: str, phase: Phase, drop: Drop) -> dict[str, Any]:
    """What the manifest says of one content."""
    trigger = phase.trigger[:MAX_DROPPED_TRIGGER_CHARS] if phase.trigger else None
    about: dict[str, Any] = {"member": member, "way": drop.way}
    about |= {"path": drop.path[:MAX_TEXT_CHARS] if drop.path else None, "process": drop.process}
    about |= {"phase": phase.name, "trigger": trigger, "sha256": drop.sha256}
    return about | {"bytes": drop.size_bytes, "cut": drop.is_cut}
