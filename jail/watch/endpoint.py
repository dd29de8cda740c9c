"""One connection of the decoy internet: its socket, its deadlines, and the TLS around what is said.

Hostile input: bytes, in any order and at any speed; none of it is waited for.
"""

import contextlib
import selectors
import socket
import ssl
import time

from jail.watch.client_hello import is_tls, read_client_hello
from jail.watch.talk import Talk, Target
from jail.watch.world import Traffic
from jail.watch.world_events import Tls

SOCKET_READ_BYTES = 64 << 10
MAX_ENDPOINT_BYTES = 100 << 20
MAX_UNSENT_BYTES = 256 << 10  # beyond it nothing more is read
SILENCE_SEC = 1.0  # then we speak first
MAX_SILENT_SEC = 5.0
MAX_AGE_SEC = 120.0
MAX_TUNNELS = 8  # one within the other
DRAIN_SEC = 1.0  # for the rest of what is refused, so that the refusal arrives
NO_CERTIFICATE_ALERT = b"\x15\x03\x03\x00\x02\x02\x70"  # alert: fatal, unrecognized_name


class Secret:
    """Our end of TLS, in memory. `is_over`: the other end refused, said goodbye, or broke it."""

    def __init__(self, context: ssl.SSLContext, name: str | None) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.name = name
        self.is_agreed = False
        self.is_over = False

    def take(self, data: bytes) -> bytes:
        """What was said within."""
        self.incoming.write(data)
        said = b""
        try:
            if not self.is_agreed:
                self.tls.do_handshake()
                self.is_agreed = True
            while piece := self.tls.read(SOCKET_READ_BYTES):
                said += piece
            self.is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.is_over = True
        return said


class Endpoint:
    """One connection. `is_done`: it is to be closed."""

    def __init__(self, accepted: socket.socket, traffic: Traffic, target: Target) -> None:
        self.socket = accepted
        self.traffic = traffic
        self.target = target
        self.talk = Talk(traffic, target, False, None)
        self.secret: Secret | None = None
        self.tls: Tls | None = None
        self.hello = bytearray()
        self.may_begin_tls = True
        self.unsent = bytearray()
        self.received_bytes = 0
        self.tunnels = 0
        self.begun = self.used = time.monotonic()
        self.drained: float | None = None  # until when what comes in is thrown away
        self.is_ending = False
        self.is_done = False
        self.is_closed = False

    @property
    def interest(self) -> int:
        """What the selector is to wait for."""
        if not self.unsent:
            return selectors.EVENT_READ
        is_full = len(self.unsent) > MAX_UNSENT_BYTES or self.is_ending
        return selectors.EVENT_WRITE | (0 if is_full else selectors.EVENT_READ)

    def read(self) -> None:
        """Take what there is. Raises nothing for what the other end does."""
        try:
            data = self.socket.recv(SOCKET_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.is_done = True
            return
        self.used = time.monotonic()
        self.received_bytes += len(data)
        if not self.traffic.receive(len(data)) or self.received_bytes > MAX_ENDPOINT_BYTES:
            self.traffic.lost["bytes of a connection"] += 1
            self.is_done = True
        elif self.drained is not None:
            self.overhear(data)
            self.is_done = self.is_done or not data
        elif not data:
            self.end()
        else:
            self.take(data)

    def take(self, data: bytes) -> None:
        """Take bytes as they came over the wire."""
        if self.secret:
            self.take_secret(data)
            return
        if self.may_begin_tls and (self.hello or is_tls(data)):
            self.hello += data
            self.begin_tls()
            return
        self.may_begin_tls = False
        self.unsent += self.talk.take(data)
        self.follow()

    def overhear(self, data: bytes) -> None:
        """Take what comes after our last word. Of TLS that was refused nobody can read it."""
        if self.tls is None:
            self.talk.overhear(data)
        elif self.secret:
            self.talk.overhear(self.secret.take(data))

    def begin_tls(self) -> None:
        """Agree on TLS once it is known for which name."""
        hello = read_client_hello(self.hello)
        if hello is None:
            return
        data = bytes(self.hello)
        self.hello.clear()
        self.may_begin_tls = False
        if not hello.is_hello:
            self.take(data)
            return
        self.tls = Tls(hello.name, trusted_us=False)
        self.talk.is_secret = True
        context = self.context(hello.name or self.talk.name)
        if context is None:
            self.unsent += NO_CERTIFICATE_ALERT
            self.end()
            return
        self.secret = Secret(context, hello.name)
        self.take_secret(data)

    def context(self, name: str) -> ssl.SSLContext | None:
        """A certificate for this name, else for any; None without openssl."""
        authority = self.traffic.world.authority
        if authority is None:
            return None
        context = authority.context(name)
        if context is None:
            self.traffic.lost["certificate"] += 1
        return context or authority.any_context()

    def take_secret(self, data: bytes) -> None:
        if self.secret is None:
            return
        said = self.secret.take(data)
        if self.secret.is_agreed:
            self.tls = Tls(self.secret.name, trusted_us=True)
        if said:
            self.say(self.talk.take(said))
        self.unsent += self.secret.outgoing.read()
        if self.secret.is_over:
            self.end()
        self.follow()

    def say(self, data: bytes) -> None:
        """Send what the talk answers."""
        if self.secret is None:
            self.unsent += data
        elif data:
            with contextlib.suppress(ssl.SSLError):
                self.secret.tls.write(data)
            self.unsent += self.secret.outgoing.read()

    def follow(self) -> None:
        """Do what the talk came to: end, begin TLS, or become what a proxy leads to."""
        if self.talk.is_over:
            self.end()
        if self.talk.starts_tls:
            self.talk.starts_tls = False
            self.may_begin_tls = True
        if self.talk.tunnel_to and not self.secret:
            via = self.talk.tunnel_to
            self.tunnels += 1
            if self.tunnels > MAX_TUNNELS:
                self.end()
                return
            rest = bytes(self.talk.reader.buffer)
            self.talk = Talk(self.traffic, self.target, False, via)
            self.may_begin_tls = True
            if rest:
                self.take(rest)

    def end(self) -> None:
        """Nothing more is answered."""
        self.is_ending = True

    def write(self) -> None:
        """Send what can be sent; at the end of it all say goodbye."""
        if self.unsent:
            try:
                sent = self.socket.send(self.unsent)
            except BlockingIOError:
                return
            except OSError:
                self.is_done = True
                return
            del self.unsent[:sent]
            self.used = time.monotonic()
        if self.is_ending and not self.unsent and self.drained is None:
            self.drained = time.monotonic() + DRAIN_SEC
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def is_due(self, now: float) -> bool:
        """Whether there is something to be done without a byte from the other end."""
        return now - self.used >= SILENCE_SEC or now - self.begun >= MAX_AGE_SEC

    def wake(self, now: float) -> None:
        """Greet, or give up."""
        is_drained = self.drained is not None and now >= self.drained
        if is_drained or now - self.used >= MAX_SILENT_SEC or now - self.begun >= MAX_AGE_SEC:
            self.is_done = True
        elif not self.is_ending and (self.secret is None or self.secret.is_agreed):
            greeting = b"" if self.hello else self.talk.greet()
            if greeting:
                self.say(greeting)
                self.used = now

    def close(self) -> None:
        """Let go of the socket, and tell what was said."""
        self.is_closed = True
        self.socket.close()
        if self.hello:
            self.talk.take(bytes(self.hello))
        self.talk.finish(self.tls)
