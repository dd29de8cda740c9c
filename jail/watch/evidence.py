"""The evidence: every event of the run as JSON lines, compressed as they come.

The README names the fields of each kind.
"""

import json
import zlib
from dataclasses import asdict
from typing import Any

from jail.watch.events import (
    Actor,
    BaitLeaked,
    BaitRead,
    Code,
    Connection,
    DependencyDenied,
    Downloaded,
    Event,
    Exec,
    FailedOften,
    FileChanged,
    IndexRefused,
    LeftAtWork,
    NameAsked,
    Net,
    Phase,
    Printed,
    ProcessEnded,
    Seen,
    StartsUnchecked,
    StartupCode,
    TraceContradicted,
    TraceCut,
    WitnessTampered,
    WorldEvent,
)
from jail.watch.noticed import Noticed, Remark, Slept

MAX_EVIDENCE_BYTES = 64 << 20  # before it is compressed
MAX_PACKED_BYTES = 32_000_000
PENDING_BYTES = 256 << 10  # at most what the packer has taken and not yet given
GZIP_FORMAT = 31  # zlib's wbits: the largest window, with gzip's header
FAST = 1
# What events of the decoy internet are called.
WORLD_KINDS = {"Conversation": "conversation", "Request": "request"}
WORLD_KINDS |= {"RemoteCode": "remote_code", "NamesDecoded": "names_decoded"}
WORLD_KINDS |= {"PiecesJoined": "pieces_joined"}
# What other remarks are called.
REMARK_KINDS = {"WriteRefused": "write_refused", "Sought": "sought", "Walked": "walked"}
REMARK_KINDS |= {"MachineRead": "machine_read", "CommandTaken": "command_taken"}
REMARK_KINDS |= {"PlaceTaken": "place_taken", "OddlyNamed": "oddly_named"}
REMARK_KINDS |= {"ChannelLeft": "channel_left"}
REMARK_KINDS |= {"ReleaseNoted": "release", "LookedInto": "looked_into"}


class Evidence:
    """A gzip file in memory. What there is no room for is counted."""

    def __init__(self) -> None:
        self.packer = zlib.compressobj(FAST, zlib.DEFLATED, GZIP_FORMAT)
        self.packed = bytearray()
        self.size_bytes = 0
        self.lost = 0

    def keep(self, seen: Seen) -> None:
        """Write the line of an event."""
        self.write(seen.phase, seen.at_sec, describe(seen.event))

    def keep_output(self, phase: Phase, at_sec: float, stream: str, printed: Printed) -> None:
        """Write what was printed to stdout or stderr."""
        about = {"text": printed.text, "bytes": printed.size_bytes, "truncated": printed.truncated}
        self.write(phase, at_sec, {"kind": "output", "stream": stream, **about})

    def keep_end(self, phase: Phase, at_sec: float, dropped: dict[str, int]) -> None:
        """Write how a phase ended, and by kind what there was no room for."""
        about = {
            "outcome": phase.outcome,
            "reason": phase.reason,
            "exit_code": phase.exit_code,
            "signal": phase.signal,
            "python_witness": phase.python_witness,
            "duration_s": phase.duration_sec,
            "dropped": dropped,
        }
        self.write(phase, at_sec, {"kind": "end", **about})

    def write(self, phase: Phase, at_sec: float, about: dict[str, Any]) -> None:
        """Write one line, if there is room for it."""
        where = {"at": round(at_sec, 6), "phase": phase.name, "trigger": phase.trigger}
        line = json.dumps({"kind": about["kind"], **where, **about}).encode() + b"\n"
        # Text that can't be compressed grows by a thousandth.
        packed_bytes = len(self.packed) + PENDING_BYTES + len(line) + (len(line) >> 10)
        if self.size_bytes + len(line) > MAX_EVIDENCE_BYTES or packed_bytes > MAX_PACKED_BYTES:
            self.lost += 1
            return
        self.size_bytes += len(line)
        self.packed += self.packer.compress(line)

    def take_lost(self) -> int:
        """How many lines had no room since this was asked last."""
        lost, self.lost = self.lost, 0
        return lost

    def close(self) -> bytes:
        """End the file and return it."""
        return bytes(self.packed + self.packer.flush())


def who(actor: Actor) -> dict[str, Any]:
    """The fields of whoever did it."""
    return {
        "pid": actor.pid,
        "process": actor.process,
        "place": actor.place,
        "witness": actor.witness,
        "own": actor.own,
        "hidden": actor.hidden,
        "native": actor.native,
    }


def describe(event: Event) -> dict[str, Any]:
    """The fields of an event in the evidence, `kind` among them."""
    match event:
        case Exec():
            about = {"target": event.program, "argv": event.argv, "error": event.error}
            return {"kind": "exec", **about, **who(event.actor)}
        case Connection():
            target = f"listen {event.target}" if event.listens else event.target
            about = {"target": target, "net": event.net, "error": event.error}
            return {"kind": "network", **about, **who(event.actor)}
        case NameAsked():
            asked = {"target": event.name, "questions": event.kinds, "answered": event.answered}
            return {"kind": "dns", "net": Net.DNS, **asked, **who(event.actor)}
        case FileChanged():
            return describe_file(event)
        case StartupCode():
            return {"kind": "pth", "path": event.path, "line": event.line, "place": event.path}
        case Code():
            return describe_code(event)
        case BaitRead():
            return {"kind": "bait", "target": event.path, "place": event.place}
        case BaitLeaked():
            return {"kind": "leak", "target": event.name, "reason": event.where, **who(event.actor)}
        case WitnessTampered():
            return {"kind": "tamper", "target": "the Python witness", "reason": event.reason}
        case TraceContradicted():
            return {"kind": "contradicted", "reason": event.what, **who(event.actor)}
        case TraceCut():
            return {"kind": "cut", "target": event.call, **who(event.actor)}
        case FailedOften():
            often = {"error": event.error, "count": event.count}
            return {"kind": "failed_often", "target": event.what, **often, **who(event.actor)}
        case StartsUnchecked():
            return {"kind": "unchecked", "target": event.program, "count": event.count}
        case LeftAtWork():
            return {"kind": "left", "count": event.count, "process": event.process}
        case ProcessEnded():
            return describe_process(event)
        case WorldEvent():
            return describe_world(event)
        case Remark():
            return describe_remark(event)
        case _:
            return describe_request(event)


def describe_remark(event: Remark) -> dict[str, Any]:
    """The fields of what is noticed of a trigger: those of its class, where it is no other kind."""
    match event:
        case Noticed():
            about = {"target": event.what, "how": event.how, "reason": event.text}
            return {"kind": "notice", "notice": event.kind, **about, "place": event.place}
        case Slept():
            return {"kind": "slept", "seconds": event.asked_sec, "process": event.process}
    told: Any = event
    return {"kind": REMARK_KINDS[type(event).__name__], **asdict(told)}


def describe_world(event: WorldEvent) -> dict[str, Any]:
    """The fields of what the decoy internet saw: those of its class, by their names."""
    told: Any = event
    about: dict[str, Any] = asdict(told)
    if "actor" in about:
        about = {name: value for name, value in about.items() if name != "actor"}
        about |= who(told.actor)
    return {"kind": WORLD_KINDS[type(event).__name__], **about}


def describe_file(event: FileChanged) -> dict[str, Any]:
    """The fields of a changed file."""
    about: dict[str, Any] = {"path": event.path, "change": event.change, "bytes": event.size_bytes}
    about["sha256"] = event.sha256
    about |= {"other_paths": event.other_paths, "shadows": event.shadows}
    process = {"pid": event.actor.pid, "process": event.actor.process}
    return {"kind": "file", **about, "place": event.place, **process}


def describe_code(event: Code) -> dict[str, Any]:
    """The fields of source that was executed."""
    about: dict[str, Any] = {"sha256": event.sha256, "bytes": event.size_bytes}
    about |= {"place": event.place, "decoded": event.decoded}
    return {"kind": "code", **about, "text": event.text, "how": event.how}


def describe_process(event: ProcessEnded) -> dict[str, Any]:
    """The fields of a process that has ended."""
    about: dict[str, Any] = {"pid": event.pid, "ppid": event.ppid, "argv": event.argv}
    about |= {"exit_code": event.exit_code, "signal": event.signal}
    return {"kind": "process", **about, "own": event.own, "acted": event.acted}


def describe_request(event: Downloaded | IndexRefused | DependencyDenied) -> dict[str, Any]:
    """The fields of what the index gave, or did not."""
    match event:
        case Downloaded():
            about = {"file": event.file, "bytes": event.size_bytes, "sha256": event.sha256}
            return {"kind": "download", **about, "from_cache": event.from_cache}
        case IndexRefused():
            return {"kind": "refused", "target": event.target, "reason": event.reason}
        case DependencyDenied():
            return {"kind": "denied", "project": event.project}
