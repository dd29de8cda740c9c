"""One conversation of the decoy internet, TLS taken off: HTTP, a dialog in lines, or raw bytes.

Nothing here waits or touches a socket: bytes go in, bytes come out. What was said is told to the
traffic. Hostile input: all of it.
"""

import http.client
import re
import zlib
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum, auto
from urllib.parse import urlsplit

from jail.watch.answers import Asked, Given, answer
from jail.watch.dialogs import Dialog, Protocol, protocol_of
from jail.watch.dns_over_https import question_in
from jail.watch.events import MAX_TEXT_CHARS, Net
from jail.watch.http_request import HttpError, HttpRequest, RequestReader
from jail.watch.payload import Carried
from jail.watch.pieces import owner_of
from jail.watch.sink import MAX_START_BYTES, Sink
from jail.watch.world import Traffic, unix_sec
from jail.watch.world_events import Conversation, Reply, Request, Speaker, Tls
from jail.watch.wrappings import unpack_deflate, unpack_gzip, unpack_zlib

MAX_BODY_TEXT_BYTES = 64 << 10
MAX_RAW_TEXT_BYTES = 4 << 10
USUAL_PORTS = {"http": 80, "https": 443}
# "GET ", as far as it came.
METHOD = re.compile(rb"[A-Z]{3,10} ")
METHOD_SO_FAR = re.compile(rb"[A-Z]{0,10}")
# "example.com", "example.com:8080", "[::1]:80".
AUTHORITY = re.compile(
    r"[A-Za-z0-9._-]{1,255}(?::[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](?::[0-9]{1,5})?"
)


@dataclass(frozen=True)
class Target:
    """Where a connection was meant to go; `name` was asked for before, if any was."""

    host: str
    port: int
    name: str | None
    number: int

    @property
    def text(self) -> str:
        return target_text(self.host, self.port)

    @property
    def owner(self) -> str:
        return owner_of(self.name or self.host)


def target_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Speech(Enum):
    """What is spoken."""

    UNKNOWN = auto()
    HTTP = auto()
    DIALOG = auto()
    RAW = auto()


class Talk:
    """One conversation.

    Args:
        target: where the package connected to.
        is_secret: TLS is around it.
        via: the host and port that we were asked for as a proxy, if we were.
    """

    def __init__(self, traffic: Traffic, target: Target, is_secret: bool, via: str | None) -> None:
        self.traffic = traffic
        self.target = target
        self.is_secret = is_secret
        self.via = via
        self.begun_sec = unix_sec()
        self.stage = Speech.UNKNOWN
        self.first = Speaker.NOBODY
        self.buffer = b""
        self.raw = Sink()
        self.reader = RequestReader()
        self.untold: HttpRequest | None = None  # that is being answered
        self.requests = 0
        self.refusals = 0
        self.dialog: Dialog | None = None
        # What the connection is to do when all is sent.
        self.is_over = False
        self.starts_tls = False
        self.tunnel_to: str | None = None

    @property
    def name(self) -> str:
        """Whom the package means to talk to."""
        via = self.via.rpartition(":")[0].strip("[]") if self.via else None
        return via or self.target.name or self.target.host

    def take(self, data: bytes) -> bytes:
        """What the package said: what it is answered."""
        if self.first == Speaker.NOBODY:
            self.first = Speaker.PACKAGE
        if self.stage == Speech.UNKNOWN:
            self.buffer += data
            if METHOD_SO_FAR.fullmatch(self.buffer):
                return b""
            data, self.buffer = self.buffer, b""
            return self.begin(data)
        if self.stage == Speech.HTTP:
            return self.take_http(data)
        return self.take_raw(data)

    def begin(self, data: bytes) -> bytes:
        """Find out what is spoken, from the first bytes."""
        if METHOD.match(data):
            self.stage = Speech.HTTP
            return self.take_http(data)
        protocol = protocol_of(self.target.port, data)
        self.stage = Speech.RAW
        greeting = self.open_dialog(protocol) if protocol else b""
        return greeting + self.take_raw(data)

    def take_raw(self, data: bytes) -> bytes:
        self.raw.take(data)
        if self.dialog is None:
            return b""
        answers = self.dialog.take(data)
        self.is_over = self.dialog.is_over
        self.starts_tls = self.dialog.starts_tls
        self.dialog.starts_tls = False
        return answers

    def open_dialog(self, protocol: Protocol) -> bytes:
        self.stage = Speech.DIALOG
        self.dialog = Dialog(protocol, self.target.host)
        return self.dialog.greet()

    def greet(self) -> bytes:
        """What we say when the package waits for a word: maybe nothing."""
        protocol = protocol_of(self.target.port, b"")
        if protocol is None or self.first != Speaker.NOBODY:
            return b""
        self.first = Speaker.DECOY
        return self.open_dialog(protocol)

    def finish(self, tls: Tls | None) -> None:
        """The connection is closed: tell what was not told yet."""
        if self.untold:
            self.tell_request(self.untold, None)
        if self.reader.request:
            self.tell_request(self.reader.request, None)
        else:
            self.raw.take(self.buffer + bytes(self.reader.buffer))
        is_told_elsewhere = self.stage == Speech.HTTP and not self.raw.size_bytes
        carried = (
            Carried() if is_told_elsewhere else self.traffic.look_at(self.target.text, self.raw)
        )
        self.traffic.pieces.take(self.target.text, self.target.owner, [("", self.raw.start)])
        is_refused = self.requests > 0 and self.refusals == self.requests
        conversation = Conversation(
            Net.TCP,
            self.target.text,
            self.target.number,
            self.target.name,
            Reply.REFUSED if is_refused else Reply.DECOY,
            self.first,
            tls,
            self.raw.payload(MAX_RAW_TEXT_BYTES) if self.raw.size_bytes else None,
            carried.bait,
            carried.environment,
            carried.opaque,
        )
        self.traffic.tell(self.begun_sec, conversation)

    def overhear(self, data: bytes) -> None:
        """What comes when we answer nothing any more: another server might have read it."""
        self.raw.take(self.reader.buffer + data)
        self.reader.buffer.clear()

    def take_http(self, data: bytes) -> bytes:
        self.reader.take(data)
        answers = b""
        try:
            while not self.is_over and not self.tunnel_to:
                request = self.reader.next_request()
                if request is None:
                    break
                answers += self.respond(request)
            if self.reader.wants_continue():
                answers += b"HTTP/1.1 100 Continue\r\n\r\n"
        except HttpError as error:
            self.is_over = True
            if self.reader.request:
                self.tell_request(self.reader.request, error.status)
                self.reader.request = None
            answers += response(Given(error.status), is_last=True, has_body=True)
        return answers

    def respond(self, request: HttpRequest) -> bytes:
        self.untold = request
        self.requests += 1
        self.traffic.requests += 1
        if request.method == "CONNECT" and AUTHORITY.fullmatch(request.target):
            self.tunnel_to = request.target
            self.tell_request(request, 200)
            return b"HTTP/1.1 200 Connection established\r\n\r\n"
        url = self.url(request)
        parts = urlsplit(url)
        asked = Asked(
            request,
            url,
            (parts.hostname or self.target.host).lower(),
            parts.path.lower() or "/",
            parts.query,
            self.traffic.world.marks.mark(url[:MAX_TEXT_CHARS]),
            self.traffic.world.public_address,
        )
        given = self.name_answer(asked) or answer(asked)
        self.refusals += given.refused
        self.is_over = not request.keeps_alive or self.requests >= self.traffic.max_requests
        self.tell_request(request, given.status)
        return response(given, self.is_over, request.method != "HEAD")

    def name_answer(self, asked: Asked) -> Given | None:
        """The answer to a question for a name, if that is what was asked."""
        question = question_in(asked.request, asked.url)
        if question is None:
            return None
        self.traffic.note_question(question.name, question.kind)
        records = self.traffic.world.names.answer(question.name, question.kind)
        content_type, body = question.answer(records)
        return Given(200, content_type, body)

    def url(self, request: HttpRequest) -> str:
        """What was asked for, in full. A proxy is asked with the whole URL."""
        if request.target.startswith(("http://", "https://")) and is_url(request.target):
            return request.target
        if request.method == "CONNECT" and is_url(request.target):
            return request.target
        scheme = "https" if self.is_secret else "http"
        authority = request.value("host")
        if not AUTHORITY.fullmatch(authority):
            host, port = self.target.name or self.target.host, self.target.port
            bare = f"[{host}]" if ":" in host else host
            usual = bare if port == USUAL_PORTS[scheme] else f"{bare}:{port}"
            authority = self.via or usual
        url = f"{scheme}://{authority}/{request.target.removeprefix('/')}"
        return url if is_url(url) else f"{scheme}://{self.target.text}/"

    def tell_request(self, request: HttpRequest, status: int | None) -> None:
        self.untold = None
        url = self.url(request)
        text = "\n".join([url, *(f"{name}: {value}" for name, value in request.headers)])
        head = text.encode("latin-1", "replace") + bytes(request.chunk_texts)
        # Values that come in pieces are found in each: the body is searched by itself, too.
        headers = self.traffic.look(self.target.text, head)
        body = headers
        if request.body.size_bytes:
            body = self.traffic.look_at(self.target.text, request.body)
        self.traffic.pieces.take_request(url, request.headers, bytes(request.body.start))
        told = Request(
            self.target.text,
            self.target.number,
            request.method,
            url[:MAX_TEXT_CHARS],
            tuple((name, value[:MAX_TEXT_CHARS]) for name, value in request.headers),
            request.body.payload(MAX_BODY_TEXT_BYTES, decoded_body(request)),
            status,
            tuple(sorted({*headers.bait, *body.bait})),
            headers.environment or body.environment,
            body.opaque and request.body.size_bytes > 0,
        )
        self.traffic.tell(unix_sec(), told)


def is_url(text: str) -> bool:
    """Whether it can be taken apart: `http://[x]/` can't."""
    try:
        urlsplit(text).port  # noqa: B018 - it raises ValueError for a wrong port
    except ValueError:
        return False
    return True


def decoded_body(request: HttpRequest) -> bytes | None:
    """The start of a body as it was before it was packed; None where it was not, or can't be."""
    coding = request.value("content-encoding").lower()
    unpackers = {"gzip": [unpack_gzip], "deflate": [unpack_zlib, unpack_deflate]}
    for unpack in unpackers.get(coding.removeprefix("x-"), []):
        try:
            return unpack(bytes(request.body.start))[:MAX_START_BYTES]
        except zlib.error:
            continue
    return None


def response(given: Given, is_last: bool, has_body: bool) -> bytes:
    """A response as it is sent."""
    reason = http.client.responses.get(given.status, "")
    lines = [
        f"HTTP/1.1 {given.status} {reason}",
        "Server: nginx",
        f"Date: {formatdate(usegmt=True)}",
    ]
    if given.status != http.client.NO_CONTENT:
        lines += [f"Content-Type: {given.content_type}", f"Content-Length: {len(given.body)}"]
    lines += [f"{name}: {value}" for name, value in given.headers]
    lines.append("Connection: close" if is_last else "Connection: keep-alive")
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return head + given.body if has_body else head
