"""The rules for what the decoy internet saw; above each is an example of it."""

import re

from jail.report.harmless import INSTALLERS
from jail.report.own_secrets import is_for_its_service
from jail.report.text import plain
from jail.watch.events import (
    NOBODY,
    Actor,
    Finding,
    Phase,
    PhaseName,
    Rule,
    Severity,
    WorldEvent,
)
from jail.watch.world_events import (
    Conversation,
    Kept,
    NamesDecoded,
    PiecesJoined,
    RemoteCode,
    Request,
)

MAX_WORLD_FINDING_CHARS = 300
ENVIRONMENT = "its whole environment"
# What is kept without being run, by the names of files that programs keep for themselves.
DATA_FILE = re.compile(
    r".*/\.cache/.*|.*\.(?:json|jsonl|txt|dat|csv|tsv|html?|xml|css|svg|png|jpe?g|gif|ico|pdf|md"
    r"|ya?ml|toml|log|pem|crt|sha256|asc|ttf|woff2?|parquet|sqlite3?|db|npy|npz|h5|onnx|safetensors"
    r"|gguf|tflite|vocab|model)",
    re.DOTALL,
)


def judge_world(phase: Phase, event: WorldEvent) -> tuple[Finding, ...]:
    """The findings of an event of the decoy internet."""
    match event:
        case Request():
            return (*secrets_in(event, event.url), requested(phase, event))
        case Conversation():
            return (*secrets_in(event, reached_name(event)), *talked(phase, event))
        case RemoteCode():
            return (ran_remote(phase, event),)
        case NamesDecoded():
            return (spelled(event),)
        case PiecesJoined():
            return (sent_in_pieces(event),)
    return ()


def found(
    severity: Severity, rule: Rule, title: str, actor: Actor, place: str | None = None
) -> Finding:
    shown = plain(title, MAX_WORLD_FINDING_CHARS)
    return Finding(severity, rule, shown, place or actor.place, actor.process or None)


# Request("POST", "https://x/", bait=("NPM_TOKEN",)):
#     high secret.sent "sends NPM_TOKEN to https://x/". To its own service: info.
def secrets_in(event: Request | Conversation, target: str) -> tuple[Finding, ...]:
    names = [*event.bait, *([ENVIRONMENT] if event.environment else [])]
    if not names:
        return ()
    title = f"sends {', '.join(names)} to {target}"
    is_usual = isinstance(event, Request) and is_for_its_service(event)
    severity = Severity.INFO if is_usual else Severity.HIGH
    return (found(severity, Rule.SECRET_SENT, title, event.actor),)


# PiecesJoined("https://x", 5, ("NPM_TOKEN",)): high secret.sent
# "sends NPM_TOKEN in 5 pieces to https://x"
def sent_in_pieces(event: PiecesJoined) -> Finding:
    names = [*event.bait, *([ENVIRONMENT] if event.environment else [])]
    title = f"sends {', '.join(names)} in {event.count} pieces to {event.place}"
    return found(Severity.HIGH, Rule.SECRET_SENT, title, NOBODY)


# Request("POST", "https://x/", ...): high network.attempt "POST https://x/, 1,234 bytes"
# A function that sends what nobody can read may send what it found, whatever it was called with.
def requested(phase: Phase, event: Request) -> Finding:
    size = f", {event.body.size_bytes:,} bytes" if event.body.size_bytes else ""
    unread = " that can't be read" if event.opaque else ""
    title = f"{event.method} {event.url}{size}{unread}"
    severity = severity_in(phase)
    if event.opaque and severity is Severity.INFO:
        severity = Severity.MEDIUM
    return found(severity, Rule.NETWORK_ATTEMPT, title, event.actor)


def severity_in(phase: Phase) -> Severity:
    """What a function does that is called with made-up arguments is what it is for."""
    if phase.name == PhaseName.CALL:
        return Severity.INFO
    return Severity.MEDIUM if phase.name == PhaseName.EXECUTE else Severity.HIGH


# Conversation("1.2.3.4:4444", payload of 12 bytes): high network.attempt
# "sends 12 bytes to 1.2.3.4:4444 (c2.evil.example)". Without a payload its Connection says it all.
def talked(phase: Phase, event: Conversation) -> tuple[Finding, ...]:
    if event.tls and not event.tls.trusted_us:
        title = f"speaks TLS with {reached_name(event)} and trusts nobody but its own authority"
    elif event.payload:
        unread = " that can't be read" if event.opaque else ""
        title = f"sends {event.payload.size_bytes:,} bytes{unread} to {reached_name(event)}"
    else:
        return ()
    return (found(severity_in(phase), Rule.NETWORK_ATTEMPT, title, event.actor),)


def reached_name(event: Conversation) -> str:
    name = event.tls.sni if event.tls and event.tls.sni else event.name
    return f"{event.target} ({name})" if name else event.target


WAYS = {
    Kept.EXECUTED: "executes what it fetched from",
    Kept.ARGUMENT: "starts a program with what it fetched from",
    Kept.FILE: "keeps in a file what it fetched from",
}


# RemoteCode("http://x/stage2", Kept.EXECUTED, ...): high code.remote
# "executes what it fetched from http://x/stage2". A file of data that nobody ran is only kept. Of
# functions that are called with a made-up address many exist to fetch a file, and some to run an
# installer that everybody knows.
def ran_remote(phase: Phase, event: RemoteCode) -> Finding:
    is_data = event.kept == Kept.FILE and DATA_FILE.fullmatch(event.subject) is not None
    is_call = phase.name == PhaseName.CALL
    is_known = is_call and event.url in INSTALLERS
    severity = Severity.MEDIUM if is_data or is_known else Severity.HIGH
    if event.kept == Kept.FILE and is_call:
        severity = Severity.INFO
    title = f"{WAYS[event.kept]} {event.url}"
    if event.kept != Kept.EXECUTED:
        title += f": {event.subject}"
    return found(severity, Rule.CODE_REMOTE, title, event.actor, event.place)


# NamesDecoded("evil.example", 12, "root:x:0", ()): high network.attempt
# "says in 12 names below evil.example: root:x:0"
def spelled(event: NamesDecoded) -> Finding:
    title = f"says in {event.questions} names below {event.domain}: {event.text}"
    if event.bait:
        title = f"sends {', '.join(event.bait)} in names below {event.domain}"
        return found(Severity.HIGH, Rule.SECRET_SENT, title, NOBODY)
    return found(Severity.HIGH, Rule.NETWORK_ATTEMPT, title, NOBODY)
