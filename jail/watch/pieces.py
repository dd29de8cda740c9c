"""What is sent in pieces: one field of many requests, or many connections, put together.

Hostile input: requests and connections in any number.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from jail.watch.fields import Field, fields_of, fields_of_query

MAX_PIECED = 500  # fields of one jail
MAX_PIECE_BYTES = 4 << 10  # what is longer was searched by itself
MAX_JOINED_BYTES = 16 << 10  # of one field


@dataclass
class Joined:
    """The values of one field, in the order in which they came."""

    data: bytearray = field(default_factory=bytearray)
    count: int = 0


class Pieces:
    """The fields of what one jail sends, by where it is sent to and the field's name."""

    def __init__(self) -> None:
        self.fields: dict[tuple[str, str], Joined] = {}

    def take(self, place: str, fields: Iterable[Field]) -> None:
        """Add what came to `place`."""
        for name, value in fields:
            key = (place, name)
            if not 0 < len(value) <= MAX_PIECE_BYTES:
                continue
            if key in self.fields or len(self.fields) < MAX_PIECED:
                joined = self.fields.setdefault(key, Joined())
                joined.data += value[: MAX_JOINED_BYTES - len(joined.data)]
                joined.count += 1

    def take_request(self, url: str, body: bytes) -> None:
        """Add the parts of a request that may be pieces: of the path, the query and the body."""
        parts = urlsplit(url)
        found = [(f"/{number}", part.encode()) for number, part in enumerate(parts.path.split("/"))]
        found += [(f"?{name}", value) for name, value in fields_of_query(parts.query.encode())]
        if len(body) <= MAX_JOINED_BYTES:
            found += fields_of(body) or [("body", body)]
        self.take(f"{parts.scheme}://{parts.netloc}", found)

    def joined(self) -> Iterator[tuple[str, Joined]]:
        """Where something was sent to in pieces, and what it is."""
        for (place, _), joined in self.fields.items():
            if joined.count > 1:
                yield place, joined
