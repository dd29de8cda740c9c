"""One act, one line: what a name, a connection and a request say of the same act is said once."""

from collections.abc import Sequence
from dataclasses import replace

from jail.report.text import plain
from jail.watch.events import (
    BaitRead,
    Connection,
    Finding,
    NameAsked,
    Phase,
    Rule,
    Seen,
    Severity,
)
from jail.watch.world_events import Conversation, Kept, NamesDecoded, RemoteCode, Request

MAX_SUSPICION_CHARS = 400


def without_repeats(seen: Sequence[Seen]) -> list[tuple[Phase, tuple[Finding, ...]]]:
    """The findings of each event, without what a better one of the same phase says again.

    A request says more than its conversation, that more than the connection, and each of them more
    than that the name was asked for. What is sent counts beside where it goes.
    """
    better = told_in_full(seen)
    known = baits_read(seen)
    kept: set[tuple[str, Severity]] = set()
    found = []
    for one in seen:
        findings = one.findings
        if isinstance(one.event, Request) and one.event.opaque and id(one.phase) in known:
            read = known[id(one.phase)]
            findings = tuple(with_suspicion(finding, read) for finding in findings)
        if isinstance(one.event, RemoteCode) and one.event.kept == Kept.FILE:
            # Of an archive that was unpacked, the first file of a kind stands for all.
            urls = [(one.event.url, finding.severity) for finding in findings]
            findings = () if kept.issuperset(urls) else findings
            kept.update(urls)
        if better & keys_of_lesser(one):
            findings = tuple(f for f in findings if f.rule != Rule.NETWORK_ATTEMPT)
        found.append((one.phase, findings))
    return found


def baits_read(seen: Sequence[Seen]) -> dict[int, str]:
    """By phase: the first bait that was read until its end, if any was."""
    first = ""
    known: dict[int, str] = {}
    for one in seen:
        if isinstance(one.event, BaitRead) and not first:
            first = one.event.path
        if first:
            known[id(one.phase)] = first
    return known


def with_suspicion(finding: Finding, bait: str) -> Finding:
    """Of a request whose body can't be read: what may be in it."""
    if finding.rule != Rule.NETWORK_ATTEMPT:
        return finding
    title = plain(f"{finding.title}, after {bait} was read", MAX_SUSPICION_CHARS)
    return replace(finding, severity=Severity.HIGH, title=title)


Key = tuple[int, str, str]


def told_in_full(seen: Sequence[Seen]) -> set[Key]:
    """Of each phase: names and targets of which something better than a connection is told."""
    keys: set[Key] = set()
    for one in seen:
        phase, event = id(one.phase), one.event
        attempts = any(found.rule == Rule.NETWORK_ATTEMPT for found in one.findings)
        match event:
            case Conversation():
                # Its name was asked for on the way to it.
                keys.add((phase, "name", (event.name or "").lower()))
                if attempts:
                    keys.add((phase, f"connection {event.net}", event.target))
            case Request():
                keys.add((phase, "connection tcp", event.target))
                keys.add((phase, "conversation", event.target))
            case NamesDecoded():
                keys.add((phase, "domain", event.domain))
    return keys


def keys_of_lesser(one: Seen) -> set[Key]:
    """What would have to be told in full elsewhere, to make this event's own line needless."""
    phase, event = id(one.phase), one.event
    match event:
        case NameAsked():
            labels = event.name.lower().split(".")
            domains = [".".join(labels[at:]) for at in range(len(labels))]
            below = {(phase, "domain", domain) for domain in domains[1:]}
            return {(phase, "name", event.name.lower()), *below}
        case Connection() if not event.listens:
            return {(phase, f"connection {event.net}", event.target)}
        case Conversation() if event.payload is None or event.tls is None or event.tls.trusted_us:
            return {(phase, "conversation", event.target)}
    return set()
