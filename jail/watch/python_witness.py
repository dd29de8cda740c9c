"""What the Python witness says: the lines of jail/inside/audit.py. Annotation, never proof.

Anything in the jail can write to the FIFO that they come by: lines may be forged, malformed,
endless.
"""

import hashlib
import ipaddress
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from jail.watch.attempts import Attempts, Opened
from jail.watch.events import MAX_CODE_BYTES, MAX_CODES, MAX_TEXT_CHARS, Code, Event, printable
from jail.watch.noticed import Notice, Noticed

MAX_AUDIT_LINE_BYTES = 8 << 10  # the hook keeps to half of it
MAX_PID = 1 << 22  # the kernel's own limit
MAX_PIDS = 200_000
MAX_SOURCE_BYTES = 1 << 40  # that a piece of source may say it has
# Of each kind. A build may run thousands of commands, and each without a saying would count as
# hidden.
MAX_SAYINGS, MAX_SAYINGS_BYTES = 10_000, 8 << 20
MAX_NATIVES = 20  # compiled libraries of one process that are remembered
NOTICES = frozenset(Notice)
MAX_HOW_CHARS = 200
RAN = "ran"  # how a job ended that came to its end
# Of a command: as much as two witnesses need to be found to tell of the same.
MAX_TWIN_CHARS = 500


class Said(StrEnum):
    """The kinds of acts that the hook tells with their place."""

    SPAWN = "spawn"
    ADDRESS = "address"
    NAME = "name"
    OPEN = "open"
    NATIVE = "native"  # a compiled library that is none of Python's was loaded
    AROUND = "around"  # a function of the C library by which Python code goes around the hook


@dataclass(frozen=True)
class Started:
    """A Python with the hook began."""

    pid: int


@dataclass(frozen=True)
class Saying:
    """`subject` is what it was done to, as the kernel witness writes it, `place` file and line."""

    kind: Said
    pid: int
    subject: str
    place: str
    how: Opened = Opened.READ  # of a file


@dataclass(frozen=True)
class Head:
    """What the first piece of generated source says of the whole."""

    size_bytes: int
    place: str
    decoded: bool
    how: str = ""


@dataclass(frozen=True)
class Piece:
    """A piece of generated source `number` of process `pid`; with `head` it is the first."""

    pid: int
    number: int
    data: bytes
    head: Head | None


class Malformed(Exception):
    """A line that the hook does not write."""


def parse_event(line: bytes) -> Started | Saying | Piece | Noticed:
    """A line of the hook, or of a worker. Raises Malformed.

    {"event": "start", "pid": 7, "what": ["/usr/bin/python3", "x.py"]}
    {"event": "spawn", "pid": 7, "what": "true from-pth", "at": "/tmp/x.py:3"}
    {"event": "address", "pid": 7, "what": ["203.0.113.1", 443], "at": "/tmp/x.py:4"}
    {"event": "open", "pid": 7, "what": "/etc/cron.d/x", "at": "/tmp/x.py:4", "how": "write"}
    {"event": "code", "pid": 7, "id": 1, "text": "7072696e74", "at": "x.py:5", "bytes": 7,
     "decoded": true}
    {"event": "code", "pid": 7, "id": 1, "text": "2829"}
    {"event": "ended", "pid": 7, "what": "s.proxy", "how": "raised", "text": "ImportError: x"}
    """
    if len(line) > MAX_AUDIT_LINE_BYTES:
        raise Malformed
    try:
        said = json.loads(line)
        event, pid = said["event"], int(said["pid"])
        if not 0 < pid <= MAX_PID:
            raise Malformed
        if event == "start":
            return Started(pid)
        if event in NOTICES:
            return parse_notice(said)
        if event == "code":
            return Piece(pid, int(said["id"]), bytes.fromhex(said["text"]), parse_head(said))
        kind = Said(event)
        subject = SUBJECTS[kind](said["what"])[:MAX_TEXT_CHARS]
        how = Opened(said.get("how", Opened.READ))
        return Saying(kind, pid, subject, parse_place(said), how)
    except (
        *(ValueError, LookupError, TypeError, AttributeError),
        *(RecursionError, OverflowError),
    ) as error:
        raise Malformed from error


def parse_notice(said: dict[str, Any]) -> Noticed:
    what, how, text = (
        printable(str(said.get(key, "")).encode(errors="replace"))[:MAX_TEXT_CHARS]
        for key in ("what", "how", "text")
    )
    return Noticed(
        Notice(said["event"]), what, how, text, parse_place(said) if said.get("at") else None
    )


def parse_head(said: dict[str, Any]) -> Head | None:
    if "at" not in said:
        return None
    size_bytes = min(max(int(said["bytes"]), 0), MAX_SOURCE_BYTES)
    how = printable(str(said.get("how", "")).encode(errors="replace"))[:MAX_HOW_CHARS]
    return Head(size_bytes, parse_place(said), said["decoded"] is True, how)


def parse_place(said: dict[str, Any]) -> str:
    return printable(str(said["at"]).encode(errors="replace"))[:MAX_TEXT_CHARS]


def parse_peer(what: Any) -> str:
    """A Python socket address as the kernel witness writes it, or with a name for the host."""
    if not isinstance(what, list) or len(what) < 2:
        path = str(what)
        if path.startswith("\0"):
            path = f"@{path[1:]}"
        return f"unix:{printable(path.encode(errors='surrogateescape'))}"
    port = what[1]
    try:
        host = ipaddress.ip_address(str(what[0]).partition("%")[0])
    except ValueError:
        return f"{parse_name(what[0])}:{port}"
    if host.version == 6:
        return f"[{socket.inet_ntop(socket.AF_INET6, host.packed)}]:{port}"
    return f"{host}:{port}"


def implied(saying: Saying) -> list[Saying]:
    """What else is said by ["evil.example", 443]: the name is asked for, and may be this machine's.

    Of what may be this machine's only the port counts: ":443".
    """
    host, _, port = saying.subject.rpartition(":")
    if saying.kind is not Said.ADDRESS or host in ("", "unix") or is_number(host.strip("[]")):
        return []
    return [replace(saying, kind=Said.NAME, subject=host), replace(saying, subject=f":{port}")]


def is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_name(what: Any) -> str:
    return plain_name(printable(str(what).encode("latin-1", "replace")))


def plain_name(name: str) -> str:
    """A host name as it is compared."""
    return name.rstrip(".").lower()


SUBJECTS: dict[Said, Callable[[Any], str]] = {
    Said.SPAWN: lambda what: str(what)[:MAX_TWIN_CHARS],
    Said.ADDRESS: parse_peer,
    Said.NAME: parse_name,
    Said.OPEN: lambda what: printable(str(what).encode(errors="surrogateescape")),
    Said.NATIVE: lambda what: printable(str(what).encode(errors="surrogateescape")),
    Said.AROUND: lambda what: printable(str(what).encode(errors="surrogateescape")),
}


@dataclass
class Source:
    """Generated source of which not all pieces have come."""

    head: Head
    data: bytearray = field(default_factory=bytearray)

    @property
    def is_whole(self) -> bool:
        return len(self.data) >= min(self.head.size_bytes, MAX_CODE_BYTES)


class PythonWitness:
    """The account that all Pythons of one jail give, by the pid that each process knows itself by.

    `tell` takes each piece of generated source (Code) as soon as it is whole; its second argument
    is the time, in seconds since 1970, or None for now. It returns whether there was room. `base`
    is the folder of the interpreter that the jail's Python is made of.
    """

    def __init__(
        self, tell: Callable[[Event, float | None], bool], base: str = "/usr/local"
    ) -> None:
        self.tell, self.base = tell, base
        self.lost: Counter[str] = Counter()  # by kind: what there was no room for
        self.malformed = 0  # lines
        self.came_to_end = False  # what was to be run says so
        self.pids: set[int] = set()  # that something was said of
        self.started: set[int] = set()
        self.natives: dict[int, list[str]] = {}  # the first compiled libraries of each pid
        self.around: set[int] = set()  # pids that go around the hook
        self.places: dict[tuple[Said, int, str], str] = {}  # by kind, pid (0 for any) and subject
        self.sayings: Counter[Said] = Counter()
        self.sayings_bytes: Counter[Said] = Counter()
        self.attempts = Attempts()
        self.sources: dict[tuple[int, int], Source] = {}
        self.rest = b""

    def take(self, data: bytes) -> None:
        """Some bytes of the audit FIFO. Give them before the trace of the same time: Python says
        what it will do.
        """
        *lines, self.rest = (self.rest + data).split(b"\n")
        # Enough to be seen to be too long.
        self.rest = self.rest[: MAX_AUDIT_LINE_BYTES + 1]
        for line in lines:
            try:
                self.take_event(parse_event(line))
            except Malformed:
                self.malformed += 1

    def take_event(self, event: Started | Saying | Piece | Noticed) -> None:
        if isinstance(event, Noticed):
            self.came_to_end |= event.how == RAN
            if event.how != RAN:
                self.tell(event, None)
            return
        if len(self.pids) < MAX_PIDS:
            self.pids.add(event.pid)
        if isinstance(event, Started):
            if event.pid in self.pids:
                self.started.add(event.pid)
        elif isinstance(event, Saying):
            for saying in (event, *implied(event)):
                self.take_saying(saying)
        else:
            self.take_piece(event)

    def take_saying(self, event: Saying) -> None:
        if event.kind is Said.OPEN:
            self.attempts.note(event.how, event.subject, event.place)
        if event.kind is Said.SPAWN:
            self.attempts.note_command(event.subject, event.place)
        if event.kind is Said.NATIVE and event.pid in self.pids:
            known = self.natives.setdefault(event.pid, [])
            if len(known) < MAX_NATIVES:
                known.append(event.subject)
            return
        if event.kind is Said.AROUND and event.pid in self.pids:
            self.around.add(event.pid)
        key = (event.kind, event.pid, event.subject)
        if key in self.places:
            return
        self.sayings[event.kind] += 1
        self.sayings_bytes[event.kind] += len(event.subject) + len(event.place)
        is_many = self.sayings[event.kind] > MAX_SAYINGS
        if is_many or self.sayings_bytes[event.kind] > MAX_SAYINGS_BYTES:
            self.lost[f"Python's {event.kind}"] += 1
            return
        self.places[key] = event.place
        self.places.setdefault((event.kind, 0, event.subject), event.place)

    def take_piece(self, piece: Piece) -> None:
        """Put generated source together, and tell it when it is whole."""
        key = (piece.pid, piece.number)
        if piece.head and key not in self.sources:
            if len(self.sources) < MAX_CODES:
                self.sources[key] = Source(piece.head)
            else:
                self.lost["Python's code"] += 1
        source = self.sources.get(key)
        if not source:
            return
        source.data += piece.data[: MAX_CODE_BYTES - len(source.data)]
        if source.is_whole:
            del self.sources[key]
            self.tell_code(source)

    def tell_code(self, source: Source) -> None:
        digest = hashlib.sha256(source.data).hexdigest()
        text = source.data.decode("utf-8", "replace")
        head = source.head
        code = Code(digest, head.size_bytes, head.place, head.decoded, text, head.how)
        self.tell(code, None)

    def finish(self) -> None:
        """Tell what was tried, and the source that was cut off in the middle. Story.finish calls
        it.
        """
        for event in self.attempts.events():
            self.tell(event, None)
        if self.attempts.lost:
            self.lost["Python's attempts"] = self.attempts.lost
        for source in self.sources.values():
            self.tell_code(source)
        self.sources.clear()

    def place(self, kind: Said, pids: Iterable[int], subjects: Iterable[str]) -> str | None:
        """File and line where one of `pids` (0: any) says it did `kind` to one of `subjects`."""
        wanted = [*subjects]
        for pid in pids:
            for subject in wanted:
                place = self.places.get((kind, pid, subject))
                if place is not None:
                    return place
        return None
