"""One act, one line: what a name, a connection and a request say of the same act is said once."""

import re
from collections.abc import Sequence
from dataclasses import replace

from jail.report.descent import Descent
from jail.report.text import plain
from jail.watch.events import (
    BaitLeaked,
    BaitRead,
    Connection,
    Exec,
    Finding,
    NameAsked,
    Phase,
    PhaseName,
    Rule,
    Seen,
    Severity,
)
from jail.watch.noticed import LookedInto, Notice, Noticed
from jail.watch.world_events import Conversation, Kept, NamesDecoded, RemoteCode, Request

MAX_SUSPICION_CHARS = 400
RANKS = list(Severity)

# Of these the lines of one file are one act.
WHOLE_FILES = {Rule.SECRET_READ, Rule.CODE_GATED, Rule.LIMIT_HIT}
# "/srv/site/x-1.0/x.py:12"
PLACE_NUMBER = re.compile(r":\d+\Z", re.ASCII)
# "passes on NPM_TOKEN in output on stdout"
TAKEN_TO = re.compile(r"passes on \S+ (in .*)", re.DOTALL)
# "x.y did not end, and was stopped after 10 s": of what is slow, each module is.
STOPPED_AFTER = re.compile(r".*( did not end, and was stopped) after [0-9.]+ s", re.DOTALL)


def without_repeats(seen: Sequence[Seen]) -> list[tuple[Phase, tuple[Finding, ...]]]:
    """The findings of each event, without what a better one of the same phase says again.

    A request says more than its conversation, that more than the connection, and each of them more
    than that the name was asked for. What is sent counts beside where it goes. That what it fetched
    was executed says more than the request.
    """
    better = told_in_full(seen)
    used = fetched_and_used(seen)
    descent = Descent(seen)
    asked = functions_asked_for(seen)
    names = names_of_targets(seen)
    known = baits_read(seen)
    kept: set[tuple[str, Severity]] = set()
    found = []
    for number, entry in enumerate(seen):
        findings = entry.findings
        if is_unreadable(entry.event) and id(entry.phase) in known:
            read = known[id(entry.phase)]
            findings = tuple(with_suspicion(finding, read) for finding in findings)
        if isinstance(entry.event, RemoteCode) and entry.event.kept == Kept.FILE:
            # Of an archive that was unpacked, the first file of a kind stands for all.
            urls = [(entry.event.url, finding.severity) for finding in findings]
            findings = () if kept.issuperset(urls) else findings
            kept.update(urls)
        if isinstance(entry.event, Request):
            worst = used.get(entry.event.url)
            findings = tuple(f for f in findings if not is_said_by(worst, entry.event, f))
        if isinstance(entry.event, Exec):
            place = place_of_command(number, seen, descent)
            findings = tuple(replace(f, place=f.place or place) for f in findings)
        if isinstance(entry.event, LookedInto):
            place = asked.get((id(entry.phase), entry.event.call.partition("(")[0]))
            findings = tuple(replace(f, place=place) for f in findings)
        if isinstance(entry.event, Connection):
            name = names.get((id(entry.phase), entry.event.target))
            findings = tuple(with_name(finding, entry.phase, name) for finding in findings)
        if better & keys_of_lesser(entry):
            dropped = (Rule.NETWORK_ATTEMPT, Rule.SECRET_READ)
            findings = tuple(f for f in findings if f.rule not in dropped)
        found.append((entry.phase, findings))
    return found


def fetched_and_used(seen: Sequence[Seen]) -> dict[str, Severity]:
    """By URL: how grave it is at worst that what it gave was executed or kept, in any phase."""
    found: dict[str, Severity] = {}
    for entry in seen:
        if isinstance(entry.event, RemoteCode):
            url = entry.event.url
            severities = [finding.severity for finding in entry.findings]
            severities += [found[url]] if url in found else []
            found[url] = min(severities, key=RANKS.index)
    return found


def is_said_by(worst: Severity | None, request: Request, finding: Finding) -> bool:
    """Whether a finding of a request that sent nothing adds nothing to what came of its answer."""
    if worst is None or finding.rule != Rule.NETWORK_ATTEMPT or request.body.size_bytes:
        return False
    return RANKS.index(worst) <= RANKS.index(finding.severity)


def place_of_command(number: int, seen: Sequence[Seen], descent: Descent) -> str | None:
    """Which line of code has started a command: its own, or that of the nearest above it.

    `sh -c "curl -s http://x | sh"` starts `curl -s http://x` and `sh`: one act of one line.
    """
    commands = [seen[other].event for other in (number, *descent.above.get(number, []))]
    places = (event.actor.place for event in commands if isinstance(event, Exec))
    return next(filter(None, places), None)


def functions_asked_for(seen: Sequence[Seen]) -> dict[tuple[int, str], str | None]:
    """By phase and name: where a function of the C library by which processes look into each other
    was asked for, by ctypes say, before the kernel saw the call itself.
    """
    return {
        (id(entry.phase), entry.event.what): entry.event.place
        for entry in seen
        if isinstance(entry.event, Noticed) and entry.event.kind is Notice.TRACES
    }


def baits_read(seen: Sequence[Seen]) -> dict[int, str]:
    """By phase: the first bait that was read until its end, if any was; not by its own tool."""
    first = ""
    known: dict[int, str] = {}
    for entry in seen:
        is_theft = any(found.severity is Severity.HIGH for found in entry.findings)
        if isinstance(entry.event, BaitRead) and is_theft and not first:
            first = entry.event.path
        if first:
            known[id(entry.phase)] = first
    return known


def is_unreadable(event: object) -> bool:
    """Whether something was sent that nobody here can read."""
    if isinstance(event, Conversation) and event.tls and not event.tls.trusted_us:
        return True
    return isinstance(event, Request | Conversation) and event.opaque


def names_of_targets(seen: Sequence[Seen]) -> dict[tuple[int, str], str]:
    """By phase and address: the name that the package had asked for when it was given it."""
    return {
        (id(entry.phase), entry.event.target): entry.event.name
        for entry in seen
        if isinstance(entry.event, Conversation) and entry.event.name
    }


def with_name(finding: Finding, phase: Phase, name: str | None) -> Finding:
    """Of a connection: whom it was meant for. Its address is made up, and says nothing.

    When a program is run, that it connects to a name is no more than that it asks for it.
    """
    if finding.rule != Rule.NETWORK_ATTEMPT or not name:
        return finding
    title = plain(f"{finding.title} ({name})", MAX_SUSPICION_CHARS)
    is_softer = phase.name == PhaseName.EXECUTE and finding.severity is Severity.HIGH
    return replace(
        finding, title=title, severity=Severity.MEDIUM if is_softer else finding.severity
    )


def with_suspicion(finding: Finding, bait: str) -> Finding:
    """Of what was sent and can't be read: what may be in it."""
    if finding.rule != Rule.NETWORK_ATTEMPT:
        return finding
    title = plain(f"{finding.title}, after {bait} was read", MAX_SUSPICION_CHARS)
    return replace(finding, severity=Severity.HIGH, title=title)


Key = tuple[int, str, str]
# "https://dns.google/resolve?name=evil.example&type=TXT": the request says all of the question.
NAME_IN_URL = re.compile(r"/(?:resolve|dns-query)\?(?:[^#]*&)?name=([A-Za-z0-9._-]+)")


def told_in_full(seen: Sequence[Seen]) -> set[Key]:
    """Of each phase: names and targets of which something better than a connection is told."""
    keys: set[Key] = set()
    for entry in seen:
        phase, event = id(entry.phase), entry.event
        attempts = any(found.rule == Rule.NETWORK_ATTEMPT for found in entry.findings)
        match event:
            case Conversation():
                # Its name was asked for on the way to it.
                keys.add((phase, "name", (event.name or "").lower()))
                sent = f"packet to {event.target}"
                keys.update((phase, f"bait {name}", sent) for name in event.bait)
                if attempts:
                    keys.add((phase, f"connection {event.net}", event.target))
            case Request():
                keys.add((phase, "connection tcp", event.target))
                keys.add((phase, "conversation", event.target))
                asked = NAME_IN_URL.search(event.url)
                if asked:
                    keys.add((phase, "name", asked[1].lower().rstrip(".")))
                sent = f"packet to {event.target}"
                keys.update((phase, f"bait {name}", sent) for name in event.bait)
            case NamesDecoded():
                keys.add((phase, "domain", event.domain))
    return keys


def keys_of_lesser(entry: Seen) -> set[Key]:
    """What would have to be told in full elsewhere, to make this event's own line needless."""
    phase, event = id(entry.phase), entry.event
    match event:
        case NameAsked():
            labels = event.name.lower().split(".")
            domains = [".".join(labels[at:]) for at in range(len(labels))]
            below = {(phase, "domain", domain) for domain in domains[1:]}
            return {(phase, "name", event.name.lower()), *below}
        case BaitLeaked():
            # The trace saw the bytes that the decoy internet took, word for word.
            return {(phase, f"bait {event.name}", event.where)}
        case Connection() if not event.listens:
            return {(phase, f"connection {event.net}", event.target)}
        case Conversation() if event.payload is None or event.tls is None or event.tls.trusted_us:
            return {(phase, "conversation", event.target)}
    return set()


def act_of(finding: Finding) -> str:
    """What makes findings of one rule and severity one act: one line of code or the same words.

    Whoever takes one secret takes more, by many lines of one file, or passes all on at one place.
    What is slow once is slow again.
    """
    place = finding.place or ""
    if finding.rule in WHOLE_FILES and place:
        return PLACE_NUMBER.sub("", place)
    many = TAKEN_TO.fullmatch(finding.title) or STOPPED_AFTER.fullmatch(finding.title)
    return place or (many[1] if many else finding.title)
