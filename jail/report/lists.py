"""The lists of the report: which entry an event makes, and how each list keeps its bounds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jail.report.text import CUT, fair_shares
from jail.watch.events import (
    Code,
    Connection,
    Downloaded,
    FileChanged,
    NameAsked,
    Net,
    Phase,
    ProcessEnded,
    Seen,
    Severity,
    is_near,
)
from jail.watch.world_events import Conversation, Payload, Request

Item = dict[str, Any]

MAX_LIST_ITEMS = 500  # of each list of a report
# The report is at most 10 MB as JSON, after escaping. Each list has a share of its own, so that a
# flood in one takes nothing from the others.
LIST_BYTES = {
    "phases": 2_600_000,
    "findings": 900_000,
    "downloads": 200_000,
    "network": 1_000_000,
    "requests": 500_000,
    "processes": 1_000_000,
    "files": 700_000,
    "code": 2_000_000,
    "indicators": 100_000,
    "coverage": 400_000,
    "changes": 400_000,
}
LEAST_CHARS = 4  # a text is cut no shorter than that


@dataclass(frozen=True)
class Entry:
    """An item for the list `name`. It is kept once: `more` makes it no other item.

    Of a full list what ranks worse, by a greater number, gives way.
    """

    name: str
    item: Item
    more: Item = field(default_factory=dict)
    rank: int = len(Severity)


def entries(seen: Seen) -> Iterator[Entry]:
    """What an event adds to the lists, its findings apart."""
    ranks = list(Severity)
    rank = min((ranks.index(found.severity) for found in seen.findings), default=len(ranks))
    phase, event = seen.phase, seen.event
    match event:
        case Downloaded():
            item = {"file": event.file, "bytes": event.size_bytes, "sha256": event.sha256}
            more: Item = {"from_cache": event.from_cache, "url": event.url}
            yield Entry("downloads", item | more, {}, rank)
        case NameAsked() | Connection():
            yield from network_entries(phase, event, rank)
        case ProcessEnded():
            yield process_entry(phase, event)
        case FileChanged():
            item = {"phase": phase.name, "path": event.path, "change": event.change}
            item |= {"bytes": event.size_bytes, "sha256": event.sha256, "place": event.place}
            yield Entry("files", item, {"trigger": phase.trigger}, rank)
        case Request():
            yield request_entry(phase, event, seen.at_sec, rank)
        case Conversation():
            yield conversation_entry(phase, event, rank)
        case Code():
            item = {"phase": phase.name, "sha256": event.sha256, "bytes": event.size_bytes}
            item["at"] = event.place
            more = {"trigger": phase.trigger, "text": event.text}
            more["severity"] = ranks[rank] if rank < len(ranks) else None
            yield Entry("code", item, more, rank)


def network_entries(phase: Phase, event: NameAsked | Connection, rank: int) -> Iterator[Entry]:
    """What pip says to its index is nobody's news."""
    kind, target = str(Net.DNS), event.name if isinstance(event, NameAsked) else event.target
    if isinstance(event, Connection):
        kind = str(event.net)
        if event.actor.own and is_near(event.target):
            return
        if event.listens:
            kind, target = str(Net.OTHER), f"listen {target}"
    actor = event.actor
    item: Item = {"phase": phase.name, "kind": kind, "target": target, "place": actor.place}
    item["witness"] = actor.witness
    more: Item = {"trigger": phase.trigger, "name": None, "process": actor.process}
    more |= {"answer": "refused", "tls": None, "first": None, "payload": None, "questions": []}
    if isinstance(event, NameAsked):
        more["questions"] = list(event.kinds)
        more["answer"] = "decoy" if event.answered else "refused"
    yield Entry("network", item, more, rank)


def payload_item(payload: Payload) -> Item:
    about: Item = {"bytes": payload.size_bytes, "sha256": payload.sha256, "text": payload.text}
    return about | {"truncated": payload.truncated}


def request_entry(phase: Phase, event: Request, at_sec: float, rank: int) -> Entry:
    """A request to the decoy internet."""
    item: Item = {"phase": phase.name, "trigger": phase.trigger, "at": round(at_sec, 6)}
    item |= {"process": event.actor.process, "place": event.actor.place}
    item |= {"method": event.method, "url": event.url, "status": event.status}
    item |= {"headers": [list(header) for header in event.headers], "bait": list(event.bait)}
    item |= {"environment": event.environment, "body": payload_item(event.body)}
    return Entry("requests", item, {}, rank)


def conversation_entry(phase: Phase, event: Conversation, rank: int) -> Entry:
    """What was said on a connection: the entry of the connection, with what the decoy knows."""
    item: Item = {"phase": phase.name, "kind": str(event.net), "target": event.target}
    item |= {"place": event.actor.place, "witness": event.actor.witness}
    more: Item = {"trigger": phase.trigger, "name": event.name, "process": event.actor.process}
    tls = {"sni": event.tls.sni, "trusted_us": event.tls.trusted_us} if event.tls else None
    more |= {"answer": str(event.reply), "tls": tls, "first": str(event.first)}
    more["payload"] = payload_item(event.payload) if event.payload else None
    more["questions"] = []
    return Entry("network", item, more, rank)


def process_entry(phase: Phase, event: ProcessEnded) -> Entry:
    """A process that did something worth an event goes before those that did not."""
    item: Item = {"phase": phase.name, "trigger": phase.trigger}
    item |= {"pid": event.pid, "ppid": event.ppid}
    item |= {"argv": list(event.argv), "exit_code": event.exit_code, "signal": event.signal}
    item["own"] = event.own
    return Entry("processes", item, {}, 0 if event.acted else len(Severity))


def best_items(found: Sequence[Entry]) -> tuple[list[Item], int]:
    """The items of one list in the order of `found`, each once; and how many had no room."""
    known: dict[str, Entry] = {}
    fresh: list[Entry] = []
    for entry in found:
        key = json.dumps(entry.item, sort_keys=True)
        if key not in known:
            known[key] = entry
            fresh.append(entry)
            continue
        # What the decoy internet knows of a connection comes after the connection itself.
        for name, value in entry.more.items():
            if known[key].more.get(name) in (None, "refused") and value is not None:
                known[key].more[name] = value
    by_rank = sorted(range(len(fresh)), key=lambda number: fresh[number].rank)
    kept = sorted(by_rank[:MAX_LIST_ITEMS])
    return [fresh[number].item | fresh[number].more for number in kept], len(fresh) - len(kept)


def as_ascii(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


def fitted(items: Sequence[Item], limit_bytes: int) -> tuple[list[str], int]:
    """The items as JSON, `limit_bytes` in all; and of how many the texts were cut for that.

    Each has a fair share; who needs more has its texts and lists cut to half until they fit. One
    that can't be made to fit is left out and counted, too.
    """
    # Two bytes for what stands between two items, two for the brackets. The texts are made again
    # below: kept from here, they could take a hundred times the room that they get.
    sizes = [len(as_ascii(item)) + 2 for item in items]
    kept, cut = [], 0
    for item, size, share in zip(items, sizes, fair_shares(sizes, limit_bytes - 2), strict=True):
        text, chars = "", share
        if size <= share:
            text = as_ascii(item)
        else:
            cut += 1
        while not text and chars >= LEAST_CHARS:
            smaller = as_ascii(with_shorter_texts(item, chars))
            if len(smaller) + 2 <= share:
                text = smaller
            chars //= 2
        if text:
            kept.append(text)
    return kept, cut


def with_shorter_texts(value: Any, limit: int) -> Any:
    """A JSON value whose texts have at most `limit` characters and whose lists as many items."""
    if isinstance(value, str):
        return value if len(value) <= limit else value[: limit - 1] + CUT
    if isinstance(value, list):
        return [with_shorter_texts(item, limit) for item in value[:limit]]
    if isinstance(value, Mapping):
        smaller = {key: with_shorter_texts(item, limit) for key, item in value.items()}
        if "truncated" in smaller and smaller["text"] != value["text"]:
            smaller["truncated"] = True
        return smaller
    return value
