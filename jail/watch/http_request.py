"""Reads requests of HTTP/1.1 (RFC 9112) as they come in, piece by piece.

Hostile input: anything. What two programs could understand in two ways is refused, so that no
request hides within another. All parts are bounded; a body is not kept but for its start.
"""

import re
from dataclasses import dataclass, field
from enum import Enum, auto

from jail.watch.sink import Sink

MAX_REQUEST_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100
MAX_CHUNKS = 100_000
MAX_CHUNK_LINE_BYTES = 256
MAX_TRAILER_BYTES = 8 << 10
MAX_CHUNK_TEXTS_BYTES = 16 << 10  # of what stands beside the lengths of chunks
END_OF_HEAD = b"\r\n\r\n"

# "POST /upload?key=1 HTTP/1.1".
REQUEST_LINE = re.compile(rb"([A-Za-z-]{1,20}) ([!-\xff]{1,60000}) HTTP/1\.([01])")
# "Content-Type: text/plain".
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}):[ \t]*([^\r\n\0]*)")
# "1f4", "1f4;name=value".
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(;[^\r\n\0]*)?")
LENGTH = re.compile(rb"[0-9]{1,15}")
# A "\r" at the very end may still get its "\n".
LONE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?=[^\n])", re.DOTALL)


class HttpError(Exception):
    """A request that is not answered but by this status; the connection can't go on."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class HttpRequest:
    """A request; `body` goes on growing until the reader gives it out.

    `chunk_texts`: what stood beside the lengths of its chunks, where no server looks.
    """

    method: str
    target: str
    is_old: bool  # HTTP/1.0
    headers: list[tuple[str, str]]
    body: Sink = field(default_factory=Sink)
    chunk_texts: bytearray = field(default_factory=bytearray)

    def values(self, name: str) -> list[str]:
        """The values of a header, by its name in lower case."""
        return [value for key, value in self.headers if key.lower() == name]

    def value(self, name: str) -> str:
        """The first value of a header; "" where there is none."""
        return next(iter(self.values(name)), "")

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may carry another request."""
        said = self.value("connection").lower()
        return "keep-alive" in said if self.is_old else "close" not in said


class Part(Enum):
    """What the next bytes are."""

    HEAD = auto()
    BODY = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()


class RequestReader:
    """The requests of one connection."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.stage = Part.HEAD
        self.request: HttpRequest | None = None
        self.left_bytes = 0  # of the body, or of the chunk
        self.chunks = 0
        self.searched_bytes = 0  # of the buffer, for the end of the head
        self.is_waited_for = False

    def take(self, data: bytes) -> None:
        """Add what has come in."""
        self.buffer += data

    def next_request(self) -> HttpRequest | None:
        """The next whole request; None while more bytes are needed.

        Raises:
            HttpError: the bytes are no request that is understood.
        """
        while True:
            stage = self.stage
            before_bytes = len(self.buffer)
            if self.advance():
                request = self.request
                self.request = None
                self.stage = Part.HEAD
                self.searched_bytes = 0
                return request
            if self.stage == stage and len(self.buffer) == before_bytes:
                return None

    def wants_continue(self) -> bool:
        """Whether the client waits to be told that it may send its body; true once."""
        waits = self.is_waited_for and self.request is not None and not self.buffer
        self.is_waited_for = False
        return waits

    def advance(self) -> bool:
        """Take what there is of the current stage: whether that ends the request."""
        match self.stage:
            case Part.HEAD:
                return self.read_head()
            case Part.BODY | Part.CHUNK:
                return self.read_body()
            case Part.CHUNK_LINE:
                self.read_chunk_line()
            case Part.CHUNK_END:
                self.read_chunk_end()
            case Part.TRAILERS:
                return self.read_trailers()
        return False

    def read_head(self) -> bool:
        # An empty line may be left over from the request before.
        while self.buffer.startswith(b"\r\n"):
            del self.buffer[:2]
            self.searched_bytes = 0
        start = max(0, self.searched_bytes - len(END_OF_HEAD))
        end = self.buffer.find(END_OF_HEAD, start)
        size_bytes = end if end >= 0 else len(self.buffer)
        if LONE_LINE_END.search(self.buffer, max(0, start - 1), size_bytes):
            raise HttpError(400, "a line that ends in an unusual way")
        if size_bytes > MAX_REQUEST_HEAD_BYTES:
            raise HttpError(431, "a head that is too large")
        if end < 0:
            self.searched_bytes = len(self.buffer)
            return False
        self.request = parse_request_head(bytes(self.buffer[:end]))
        del self.buffer[: end + len(END_OF_HEAD)]
        expected = self.request.value("expect").lower()
        if expected and expected != "100-continue":
            raise HttpError(417, "an expectation that is not known")
        self.is_waited_for = bool(expected) and not self.request.is_old
        return self.begin_body(self.request)

    def begin_body(self, request: HttpRequest) -> bool:
        """Find out how long the body is: whether there is none."""
        lengths = request.values("content-length")
        codings = request.values("transfer-encoding")
        if lengths and codings:
            raise HttpError(400, "two ways to tell the length of a body")
        if len(lengths) > 1 or len(codings) > 1 or len(request.values("host")) > 1:
            raise HttpError(400, "a header that may stand once stands twice")
        if codings:
            if codings[0].lower() != "chunked" or request.is_old:
                raise HttpError(501, "an encoding of the transfer that is not known")
            self.chunks = 0
            self.stage = Part.CHUNK_LINE
            return False
        length = lengths[0].encode("latin-1") if lengths else b"0"
        if not LENGTH.fullmatch(length):
            raise HttpError(400, "a length that is no number")
        self.left_bytes = int(length)
        self.stage = Part.BODY
        return self.left_bytes == 0

    def read_body(self) -> bool:
        """Take bytes of the body, or of a chunk of it: whether the body is whole."""
        data = bytes(self.buffer[: self.left_bytes])
        del self.buffer[: self.left_bytes]
        self.left_bytes -= len(data)
        if self.request:
            self.request.body.take(data)
        if self.left_bytes:
            return False
        if self.stage == Part.CHUNK:
            self.stage = Part.CHUNK_END
            return False
        return True

    def read_line(self, max_bytes: int) -> bytes | None:
        """The next line without its end; None where it is not whole yet."""
        end = self.buffer.find(b"\r\n", 0, max_bytes)
        if end < 0:
            if len(self.buffer) >= max_bytes:
                raise HttpError(400, "a line that is too long")
            return None
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        return line

    def read_chunk_line(self) -> None:
        line = self.read_line(MAX_CHUNK_LINE_BYTES)
        if line is None:
            return
        found = CHUNK_LINE.fullmatch(line)
        self.chunks += 1
        if not found or self.chunks > MAX_CHUNKS:
            raise HttpError(400, "chunks that are not understood")
        self.left_bytes = int(found[1], 16)
        if self.request and found[2] and len(self.request.chunk_texts) < MAX_CHUNK_TEXTS_BYTES:
            self.request.chunk_texts += found[2]
        self.stage = Part.CHUNK if self.left_bytes else Part.TRAILERS

    def read_chunk_end(self) -> None:
        if len(self.buffer) < 2:
            return
        if not self.buffer.startswith(b"\r\n"):
            raise HttpError(400, "a chunk that is longer than it says")
        del self.buffer[:2]
        self.stage = Part.CHUNK_LINE

    def read_trailers(self) -> bool:
        """Take headers that follow the body: whether that were all."""
        line = self.read_line(MAX_TRAILER_BYTES)
        if line is None or self.request is None:
            return False
        if not line:
            return True
        self.request.headers.append(parse_header(line))
        if len(self.request.headers) > MAX_HEADERS:
            raise HttpError(431, "too many headers")
        return False


def parse_request_head(head: bytes) -> HttpRequest:
    """A request without its body. Raises HttpError."""
    first, *lines = head.split(b"\r\n")
    found = REQUEST_LINE.fullmatch(first)
    if not found:
        raise HttpError(400, "no request of HTTP/1")
    if len(lines) > MAX_HEADERS:
        raise HttpError(431, "too many headers")
    method, target = found[1].decode(), found[2].decode("latin-1")
    return HttpRequest(method, target, found[3] == b"0", [parse_header(line) for line in lines])


def parse_header(line: bytes) -> tuple[str, str]:
    """Raises HttpError, also for a line that goes on with the line before."""
    found = HEADER.fullmatch(line)
    if not found:
        raise HttpError(400, "a header that is not understood")
    return found[1].decode(), found[2].rstrip(b" \t").decode("latin-1")
