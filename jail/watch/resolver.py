"""The resolver of the jail, whatever address it is asked at: remembers each name and its kind.

Hostile input: DNS messages by UDP and TCP (RFC 1035), in any number and at any speed.
"""

import contextlib
import errno
import ipaddress
import select
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jail.orders import DNS_PORT
from jail.watch.events import Net, printable
from jail.watch.names import DNS_HEADER_BYTES, reply
from jail.watch.peers import Arrivals, peer_text

MAX_MESSAGE_BYTES = 4096
MAX_LABELS = 127
MAX_LABEL_BYTES = 63
SLOW_SEC = 0.5  # a question by TCP must be whole by then, for the next one waits for it
MAX_CLOSE_SEC = 1.0
# Where no descriptor is left, it is waited until others end.
NO_ROOM_SEC, NO_ROOM_ERRORS = 0.05, {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
MAX_CONTROL_BYTES = 256
# Of what came to the port and is no question, by whom it was sent to.
MAX_OTHER_TARGETS = 200
MAX_OTHER_BYTES = 16 << 10
# A control message that says at which address a datagram came in, of IPv4 and of IPv6.
MEANT = {(socket.SOL_IP, 8), (socket.IPPROTO_IPV6, 50)}

Records = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Question:
    """The name that a message asks for, safe to show, the kind of records, and where it ends."""

    name: str
    kind: int
    end: int


MALFORMED = Question("(malformed question)", 0, 0)


def parse_question(message: bytes) -> Question:
    """Read a DNS message, or MALFORMED.

    `ab cd 01 00 00 01 00 00 00 00 00 00  07 e x a m p l e 03 c o m 00  00 01 00 01`: id, flags,
    counts; the name as labels with their lengths; type and class.
    """
    labels: list[bytes] = []
    at = DNS_HEADER_BYTES
    while at < len(message) and message[at]:
        length = message[at]
        if length > MAX_LABEL_BYTES or len(labels) > MAX_LABELS:
            return MALFORMED
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    end = at + 5
    if len(message) < end:
        return MALFORMED
    kind = int.from_bytes(message[end - 4 : end - 2])
    return Question(printable(b".".join(labels)), kind, end)


def close_listener(server: socket.socket) -> None:
    """Wake the thread that waits at this socket, so that it ends."""
    # The kernel wakes it though it answers ENOTCONN for a socket of datagrams.
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


def from_there(control: Sequence[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The control messages that send an answer from the address that was asked.

    Of IPv4 `interface, own address, address of the header`; of IPv6 `address, interface`.
    """
    found = []
    for level, kind, data in control:
        if (level, kind) in MEANT and level == socket.SOL_IP:
            found.append((level, kind, bytes(4) + data[8:12] + bytes(4)))
        elif (level, kind) in MEANT:
            found.append((level, kind, data[:16] + bytes(4)))
    return found


def meant_hosts(control: Sequence[tuple[int, int, bytes]]) -> list[str]:
    """The address that a datagram was sent to."""
    found = []
    for level, kind, data in control:
        if (level, kind) in MEANT:
            packed = data[8:12] if level == socket.SOL_IP else data[:16]
            found.append(str(ipaddress.ip_address(packed)))
    return found


class Resolver:
    """Answers one jail.

    Args:
        sockets: of datagrams and of streams.
        note: called for each question, its name and kind, maybe in several threads at once.
        records: what there is for a name and a kind, or None; from the same threads.
        arrivals: takes who was asked.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        note: Callable[[str, int], None],
        records: Callable[[str, int], Records | None],
        arrivals: Arrivals | None = None,
    ) -> None:
        self.arrivals = arrivals or Arrivals()
        self.near, self.far = socket.socketpair()  # closed to wake who waits for connections
        self.sockets = sockets
        self.note = note
        self.records = records
        self.closed = threading.Event()
        self.other: dict[tuple[Net, str], bytes] = {}  # what was sent and is no question
        self.threads = []
        for held in sockets:
            is_stream = held.type == socket.SOCK_STREAM
            work = self.answer_streams if is_stream else self.answer_datagrams
            self.threads.append(threading.Thread(target=work, args=(held,), daemon=True))

    def start(self) -> None:
        """Answer in a thread for each socket, until `close`."""
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """End the threads, when the questions that are waiting have been noted."""
        self.closed.set()
        self.far.close()
        for held in self.sockets:
            if held.type == socket.SOCK_DGRAM:
                close_listener(held)
        for thread in self.threads:
            thread.join(MAX_CLOSE_SEC)
        self.near.close()

    def answer(self, message: bytes) -> bytes:
        """The answer to a message; none to what is no question."""
        question = parse_question(message)
        self.note(question.name, question.kind)
        if question is MALFORMED:
            return b""
        records = self.records(question.name.lower(), question.kind)
        return reply(message, question.end, records)

    def keep_other(self, net: Net, host: str, data: bytes) -> None:
        """Keep what was sent to the port of resolvers, and asks for nothing."""
        key = (net, peer_text(host, DNS_PORT))
        if key in self.other or len(self.other) < MAX_OTHER_TARGETS:
            self.other[key] = (self.other.get(key, b"") + data)[:MAX_OTHER_BYTES]

    def answer_datagrams(self, server: socket.socket) -> None:
        with server:
            while True:
                message, control, _, client = server.recvmsg(MAX_MESSAGE_BYTES, MAX_CONTROL_BYTES)
                # A socket that was shut down still gives what it has; then it gives nothing.
                if self.closed.is_set() and not client:
                    self.arrivals.note_dropped(server)
                    return
                answer = self.answer(message)
                for host in meant_hosts(control):
                    self.arrivals.note(Net.UDP, host, server.getsockname()[1], client)
                    if not answer:
                        self.keep_other(Net.UDP, host, message)
                # Nobody may wait for it any more.
                with contextlib.suppress(OSError):
                    server.sendmsg([answer], from_there(control), 0, client)

    def answer_streams(self, server: socket.socket) -> None:
        """DNS over TCP (RFC 7766), one question a connection.

        Who still waits when the jail has ended is taken, too: it may have reached for somebody.
        """
        server.setblocking(False)
        poll = select.poll()
        for held in (server, self.near):
            poll.register(held, select.POLLIN)
        with server:
            while True:
                if not self.closed.is_set():
                    poll.poll()
                try:
                    connection, client = server.accept()
                except OSError as error:
                    if self.closed.is_set():
                        self.arrivals.note_dropped(server)
                        return
                    if error.errno in NO_ROOM_ERRORS:
                        self.closed.wait(NO_ROOM_SEC)
                    continue
                host, port = connection.getsockname()[:2]
                self.arrivals.note(Net.TCP, host, port, client)
                with connection:
                    self.answer_stream(connection)

    def answer_stream(self, connection: socket.socket) -> None:
        """Who is slow, or leaves in the middle, asked too: it is noted as malformed. Who only looks
        whether somebody is there did not.
        """
        start = message = b""
        connection.settimeout(0 if self.closed.is_set() else SLOW_SEC)
        with contextlib.suppress(OSError):
            start = connection.recv(2, socket.MSG_WAITALL)
            if not start:
                return
            length = int.from_bytes(start)
            message = connection.recv(min(length, MAX_MESSAGE_BYTES), socket.MSG_WAITALL)
        answer = self.answer(message)
        with contextlib.suppress(OSError):
            if not answer:
                self.keep_other(Net.TCP, connection.getsockname()[0], start + message)
            connection.sendall(len(answer).to_bytes(2) + answer)
