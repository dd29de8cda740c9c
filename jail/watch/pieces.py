"""What is sent in pieces: one field of many requests, or many connections, put together, to one
place or to several of one owner.

Hostile input: requests and connections in any number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from jail.watch.fields import Field, fields_of, fields_of_query
from jail.watch.names import registered

MAX_PIECED = 500  # fields of one jail
MAX_PIECE_BYTES = 4 << 10  # what is longer was searched by itself
MAX_JOINED_BYTES = 16 << 10  # of one field
ANYWHERE = "*"
MAX_PLACES = 500  # of one owner
# Every client sends them, and hardly ever as pieces of anything.
USUAL_HEADER_NAMES = """
accept accept-encoding accept-language connection content-length content-type host
"""
USUAL_HEADERS = frozenset(USUAL_HEADER_NAMES.split())


@dataclass
class Joined:
    """The values of one field, in the order in which they came, and where they were sent to."""

    data: bytearray = field(default_factory=bytearray)
    count: int = 0
    places: set[str] = field(default_factory=set)

    def add(self, value: bytes | bytearray, place: str) -> None:
        """Put one more value behind the others."""
        self.data += value[: MAX_JOINED_BYTES - len(self.data)]
        self.count += 1
        if len(self.places) < MAX_PLACES:
            self.places.add(place)


def owner_of(host: str) -> str:
    """Whom a host belongs to: the part of its name that is registered, or the host."""
    return registered(host.lower().rstrip(".")) or host


class Pieces:
    """The fields of what one jail sends, by where it is sent to, or whose that is, and the field's
    name.
    """

    def __init__(self) -> None:
        self.of_places: dict[tuple[str, str], Joined] = {}
        self.of_owners: dict[tuple[str, str], Joined] = {}
        self.of_all: dict[tuple[str, str], Joined] = {}
        self.fields = (self.of_places, self.of_owners, self.of_all)

    def take(self, place: str, owner: str, fields: Iterable[tuple[str, bytes | bytearray]]) -> None:
        """Add what came to `place`, which is the `owner`'s."""
        for name, value in fields:
            if not 0 < len(value) <= MAX_PIECE_BYTES:
                continue
            keys = (place, name), (owner, name), (ANYWHERE, name)
            for known, key in zip(self.fields, keys, strict=True):
                if key in known or len(known) < MAX_PIECED:
                    known.setdefault(key, Joined()).add(value, place)

    def take_request(self, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Add the parts of a request that may be pieces: of the path, the query, the headers and
        the body.
        """
        parts = urlsplit(url)
        found: list[Field] = []
        found += [
            (f"/{number}", part.encode()) for number, part in enumerate(parts.path.split("/"))
        ]
        found += [(f"?{name}", value) for name, value in fields_of_query(parts.query.encode())]
        for name, value in headers:
            if name.lower() not in USUAL_HEADERS:
                found.append((f"{name.lower()}:", value.encode("latin-1", "replace")))
        if len(body) <= MAX_JOINED_BYTES:
            found += fields_of(body) or [("body", body)]
        self.take(f"{parts.scheme}://{parts.netloc}", owner_of(parts.hostname or ""), found)

    def joined(self) -> Iterator[tuple[str, Joined]]:
        """Where something was sent to in pieces, and what it is: first to single places, at last to
        any.
        """
        for (place, _), joined in self.of_places.items():
            if joined.count > 1:
                yield place, joined
        for (owner, _), joined in self.of_owners.items():
            if len(joined.places) > 1:
                yield owner, joined
        for joined in self.of_all.values():
            if len(joined.places) > 1:
                yield f"{len(joined.places)} places", joined
