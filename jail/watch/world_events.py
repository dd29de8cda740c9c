"""What the decoy internet saw and served: a dataclass for each kind of event.

As in events.py, texts in them are the package's own, bounded by who made the event, and made safe
to show only by jail/report/text.py.
"""

from dataclasses import dataclass
from enum import StrEnum

from jail.watch.events import NOBODY, Actor, Net, WorldEvent


class Reply(StrEnum):
    """What the package got for its connection; the values are a contract."""

    DECOY = "decoy"
    REFUSED = "refused"


class Speaker(StrEnum):
    """Who said the first word of a connection."""

    PACKAGE = "package"
    DECOY = "decoy"
    NOBODY = "nobody"


class Kept(StrEnum):
    """How the package came to keep or run what the decoy internet had served."""

    EXECUTED = "executed"  # as source of Python, or as a script that said so itself
    ARGUMENT = "argument"  # of a program that was started
    FILE = "file"


@dataclass(frozen=True)
class Payload:
    """What was sent: how much, the sha256 of all of it, the start of it as text."""

    size_bytes: int
    sha256: str
    text: str
    truncated: bool = False


@dataclass(frozen=True)
class Tls:
    """That a client wanted TLS, for which name, and whether it took our certificate."""

    sni: str | None
    trusted_us: bool


@dataclass(frozen=True)
class Conversation(WorldEvent):
    """One connection, or the datagrams of one socket to one address.

    `number`: it is the how manieth to this target in its phase, from 0; so it finds its Connection.
    `name`: what the package had asked for when it was given this address. `payload`: what was sent,
    where that was no request of HTTP. `bait`, `environment`, `opaque`: what was found in it.
    """

    net: Net
    target: str
    number: int
    name: str | None
    reply: Reply
    first: Speaker
    tls: Tls | None = None
    payload: Payload | None = None
    bait: tuple[str, ...] = ()
    environment: bool = False
    opaque: bool = False
    actor: Actor = NOBODY


@dataclass(frozen=True)
class Request(WorldEvent):
    """One request of HTTP. `target` and `number` are those of its Conversation.

    `status`: what was answered; None where the connection ended before the request did. `bait`,
    `environment`, `opaque`: what was found in URL, headers and body.
    """

    target: str
    number: int
    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: Payload
    status: int | None
    bait: tuple[str, ...] = ()
    environment: bool = False
    opaque: bool = False
    actor: Actor = NOBODY


@dataclass(frozen=True)
class RemoteCode(WorldEvent):
    """What was served from `url` was executed or kept; `subject`: the source, command or path."""

    url: str
    kept: Kept
    subject: str
    place: str | None = None
    actor: Actor = NOBODY


@dataclass(frozen=True)
class PiecesJoined(WorldEvent):
    """Bait, or the whole environment, that `count` requests or connections to `place` carry
    together.
    """

    place: str
    count: int
    bait: tuple[str, ...] = ()
    environment: bool = False


@dataclass(frozen=True)
class NamesDecoded(WorldEvent):
    """What `questions` questions for names below `domain` say when they are put together; `text`
    is empty where that is no text.
    """

    domain: str
    questions: int
    text: str
    bait: tuple[str, ...] = ()
