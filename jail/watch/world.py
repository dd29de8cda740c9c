"""What the decoy internet is in one run, and what it remembers of one jail.

The world is made once: names, certificates, marks, bait stay the same in all jails of a run. A
traffic is one jail's: it takes the events, and bounds what they and the search for bait cost.
"""

import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jail.watch.ages import set_age
from jail.watch.answers import MADE_UP_PARTS, token_of
from jail.watch.certificates import Authority, CertificateError
from jail.watch.events import MAX_EVENTS, MAX_TEXT_CHARS, WorldEvent
from jail.watch.names import Names
from jail.watch.payload import Carried, Search
from jail.watch.pieces import Pieces
from jail.watch.record import SEARCHED_FOR_BAIT
from jail.watch.sink import Sink
from jail.watch.stubs import Marks
from jail.watch.world_events import Conversation, Payload, PiecesJoined, Request

MAX_TEXTS_CHARS = 24 << 20  # of all events of a run
MAX_SEARCH_SEC = 5.0  # for bait, of a jail; what is first to its target has as much once more
MAX_FIRST_BYTES = 64 << 10
MAX_RECEIVED_BYTES = 300 << 20  # of a jail
MAX_REQUESTS = 100  # of one connection, so that none keeps the others waiting
MANY_REQUESTS = 10_000  # of a jail
MAX_TARGETS = 20_000  # whose connections are counted
MAX_FIRSTS = 500  # of events of one kind that are the first of their target
NO_TEXT_CHARS = 200  # of a text where there is no room left
# What the run's authority is called, and from where the jail seems to come.
TITLES = ("Meadow", "Granite", "Harbor", "Juniper", "Lakeside", "Orchard", "Summit", "Willow")
HOME_NETWORKS = (24, 50, 67, 68, 71, 73, 76, 96, 98, 107, 174)
# The files in the jail's /etc/ssl/certs, and the usual variables that point there.
BUNDLE = "ca-certificates.crt"
BUNDLE_IN_JAIL = f"/etc/ssl/certs/{BUNDLE}"
KINDS_OF_AUTHORITIES = ("Trust Services", "Certification Authority", "Global Trust", "Secure TLS")
MAX_TRUSTED_DAYS = 300  # since the list of authorities was made
TRUST_NAMES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
TRUST_VARIABLES = dict.fromkeys(TRUST_NAMES, BUNDLE_IN_JAIL)


@dataclass
class World:
    """The decoy internet of one run; `authority` is None where there is no openssl."""

    names: Names
    authority: Authority | None
    marks: Marks
    search: Search
    public_address: str
    left_chars: int = MAX_TEXTS_CHARS

    def made_up(self) -> tuple[set[str], list[str]]:
        """What the package can only know from us: addresses and parts of URLs, and what is in a
        text from us.
        """
        tokens = {token_of(mark) for mark in (*self.marks.urls, self.marks.last)}
        wholes = {*self.names.by_address, self.public_address, *tokens, *MADE_UP_PARTS}
        return wholes, [self.marks.prefix]

    def lay_trust(self, folder: Path) -> None:
        """What /etc/ssl/certs of the jail holds besides: the machine's authorities and ours in one
        file, and ours by name and by checksum, as others lie there. Raises OSError.
        """
        if self.authority is None:
            return
        machine = Path(BUNDLE_IN_JAIL)
        known = machine.read_bytes() if machine.exists() else b""
        own, name = self.authority.certificate, f"{self.authority.title.replace(' ', '_')}.pem"
        (folder / BUNDLE).write_bytes(known + own)
        (folder / name).write_bytes(own)
        (folder / self.authority.link_name).symlink_to(name)
        for path in (BUNDLE, name, self.authority.link_name, "."):
            set_age(folder / path, MAX_TRUSTED_DAYS)


def make_world(
    openssl: str | None, values: Mapping[str, str], environment: Mapping[str, str]
) -> World:
    """The decoy internet of a run.

    Args:
        openssl: the program's path, None where there is none: then no TLS is spoken.
        values: the bait's values by name; `environment`: the jail's variables. See payload.Search.
    """
    marks = Marks()
    authority = None
    if openssl:
        # Without it all is as where there is no openssl.
        with contextlib.suppress(CertificateError):
            title = f"{secrets.choice(TITLES)} {secrets.choice(KINDS_OF_AUTHORITIES)}"
            authority = Authority(openssl, title)
    parts = [secrets.choice(HOME_NETWORKS), *(1 + secrets.randbelow(254) for _ in range(3))]
    address = ".".join(str(part) for part in parts)
    names = Names(secrets.token_bytes(16), marks.mark)
    return World(names, authority, marks, Search(values, environment), address)


class Traffic:
    """What was seen in one jail, in order. `lost` counts, by kind, what there was no room for.

    `note_question` takes names that were asked for in requests, and the kind of the question.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: list[tuple[float, WorldEvent]] = []
        self.lost: Counter[str] = Counter()
        self.counts: Counter[tuple[str, bool]] = Counter()
        self.firsts: dict[str, set[str]] = {}
        self.numbers: Counter[str] = Counter()
        self.search_sec = {True: 0.0, False: 0.0}
        self.searched_bytes: Counter[str] = Counter()
        self.received_bytes = 0
        self.requests = 0
        self.pieces = Pieces()
        self.note_question: Callable[[str, int], object] = lambda _name, _kind: None

    def number(self, target: str) -> int:
        """The number of a new connection among those to its target."""
        if target in self.numbers or len(self.numbers) < MAX_TARGETS:
            self.numbers[target] += 1
        return max(0, self.numbers[target] - 1)

    @property
    def max_requests(self) -> int:
        """How many requests one connection may carry; who floods gets no more than one each."""
        return MAX_REQUESTS if self.requests < MANY_REQUESTS else 1

    def receive(self, size_bytes: int) -> bool:
        """Count what came in: whether more may come."""
        self.received_bytes += size_bytes
        return self.received_bytes <= MAX_RECEIVED_BYTES

    def look(self, target: str, payload: bytes) -> Carried:
        """What a payload carries; nothing, and counted as lost, where searching took too long.

        The first bytes to each target have time of their own: no flood keeps them from being seen.
        """
        if len(self.searched_bytes) < MAX_TARGETS:
            self.searched_bytes[target] += len(payload)
        is_first = 0 < self.searched_bytes[target] <= MAX_FIRST_BYTES
        if self.search_sec[is_first] > MAX_SEARCH_SEC:
            self.lost[f"payload, {SEARCHED_FOR_BAIT}"] += 1
            return Carried()
        begun_sec = time.thread_time()
        carried = self.world.search.look(payload)
        self.search_sec[is_first] += time.thread_time() - begun_sec
        if carried.cut:
            self.lost[f"end of a payload, {SEARCHED_FOR_BAIT}"] += 1
        return carried

    def look_at(self, target: str, sink: Sink) -> Carried:
        """What a body or a connection carries: its start, and its end where there is more of it."""
        start = self.look(target, bytes(sink.start))
        if not sink.last:
            return start
        end = self.look(target, bytes(sink.last))
        if not sink.is_whole:
            self.lost[f"end of a payload, {SEARCHED_FOR_BAIT}"] += 1
        bait = tuple(sorted({*start.bait, *end.bait}))
        environment = start.environment or end.environment
        return Carried(bait, environment, start.opaque or end.opaque, start.cut or end.cut)

    def join(self) -> Iterator[PiecesJoined]:
        """What was sent in pieces, none of which says it by itself. To be called at the end."""
        told = [event for _, event in self.events if isinstance(event, Conversation | Request)]
        found: set[tuple[str, str]] = set()
        for place, joined in self.pieces.joined():
            carried = self.look(place, bytes(joined.data))
            known = {name for event in told if is_at(event, joined.places) for name in event.bait}
            known |= {name for at, name in found if at in joined.places}
            bait = tuple(name for name in carried.bait if name not in known)
            found.update((at, name) for at in joined.places for name in bait)
            if bait or carried.environment:
                yield PiecesJoined(place, joined.count, bait, carried.environment)

    def tell(self, at_sec: float, event: WorldEvent) -> None:
        """Keep an event. What carries bait has room of its own, and so has the first of a target.

        Args:
            at_sec: when it was, in seconds since 1970.
        """
        kind = type(event).__name__
        is_grave = isinstance(event, Conversation | Request) and bool(
            event.bait or event.environment
        )
        self.counts[kind, is_grave] += 1
        if self.counts[kind, is_grave] > MAX_EVENTS and not self.is_first(kind, event):
            self.lost[kind] += 1
            return
        self.events.append((at_sec, self.fit(event)))

    def is_first(self, kind: str, event: WorldEvent) -> bool:
        """Whether nothing was told of its target yet."""
        firsts = self.firsts.setdefault(kind, set())
        subject = getattr(event, "url", "") or getattr(event, "target", "")
        host = "/".join(subject.split("/")[:3])
        if len(firsts) >= MAX_FIRSTS or host in firsts:
            return False
        firsts.add(host)
        return True

    def fit(self, event: WorldEvent) -> WorldEvent:
        """The event with texts that there is room for."""
        match event:
            case Request():
                max_chars = self.take_room(text_chars(event))
                headers = tuple((key, value[:max_chars]) for key, value in event.headers)
                if max_chars < MAX_TEXT_CHARS:
                    headers = headers[:5]
                body = fit_payload(event.body, max_chars)
                return replace(event, url=event.url[:max_chars], headers=headers, body=body)
            case Conversation(payload=Payload()):
                payload = event.payload
                max_chars = self.take_room(len(payload.text) if payload else 0)
                return replace(event, payload=payload and fit_payload(payload, max_chars))
        return event

    def take_room(self, chars: int) -> int:
        """How long a text may be of an event that has so many characters."""
        if self.world.left_chars >= chars:
            self.world.left_chars -= chars
            return MAX_TEXT_CHARS
        self.lost["text of an event"] += 1
        return NO_TEXT_CHARS


def is_at(event: Conversation | Request, places: set[str]) -> bool:
    if isinstance(event, Request):
        return "/".join(event.url.split("/")[:3]) in places
    return event.target in places


def text_chars(request: Request) -> int:
    headers = sum(len(key) + min(len(value), MAX_TEXT_CHARS) for key, value in request.headers)
    return min(len(request.url), MAX_TEXT_CHARS) + headers + len(request.body.text)


def fit_payload(payload: Payload, max_chars: int) -> Payload:
    """A body is longer than other texts, unless there is no room left."""
    if max_chars >= MAX_TEXT_CHARS:
        return payload
    return replace(payload, text=payload.text[:max_chars], truncated=True)


def unix_sec() -> float:
    """Seconds since 1970."""
    return time.time()
