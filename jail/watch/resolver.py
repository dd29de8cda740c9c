"""The resolver on the jail's loopback: knows no name, and remembers each that it was asked for.

Hostile input: DNS messages by UDP and TCP (RFC 1035), in any number and at any speed.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from jail.watch.events import printable

MAX_MESSAGE_BYTES = 4096
MAX_LABELS = 127
MAX_LABEL_BYTES = 63
SLOW_SEC = 0.5  # a question by TCP must be whole by then, for the next one waits for it
MAX_CLOSE_SEC = 1.0
HEADER_BYTES = 12
# Of a response with one question: recursion available, no such name; one question, no answers.
NO_SUCH_NAME = b"\x81\x83\0\1\0\0\0\0\0\0"


@dataclass(frozen=True)
class Question:
    """The name that a message asks for, safe to show, and the answer "no such name"; "" where it
    can't be answered.
    """

    name: str
    answer: bytes


MALFORMED = Question("(malformed question)", b"")


def parse_question(message: bytes) -> Question:
    """Read a DNS message, or MALFORMED.

    `ab cd 01 00 00 01 00 00 00 00 00 00  07 e x a m p l e 03 c o m 00  00 01 00 01`: id, flags,
    counts; the name as labels with their lengths; type and class.
    """
    labels: list[bytes] = []
    at = HEADER_BYTES
    while at < len(message) and message[at]:
        length = message[at]
        if length > MAX_LABEL_BYTES or len(labels) > MAX_LABELS:
            return MALFORMED
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    end = at + 5
    if len(message) < end:
        return MALFORMED
    return Question(
        printable(b".".join(labels)), message[:2] + NO_SUCH_NAME + message[HEADER_BYTES:end]
    )


def close_listener(server: socket.socket) -> None:
    """Wake the thread that waits at this socket, so that it ends."""
    # The kernel wakes it though it answers ENOTCONN for a socket of datagrams.
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


class Resolver:
    """Answers one jail. `note(name)` is called for each question, maybe in two threads at once."""

    def __init__(
        self, datagrams: socket.socket, listener: socket.socket, note: Callable[[str], None]
    ) -> None:
        self.datagrams = datagrams
        self.listener = listener
        self.note = note
        self.closed = threading.Event()
        self.threads = [
            threading.Thread(target=self.answer_datagrams, daemon=True),
            threading.Thread(target=self.answer_streams, daemon=True),
        ]

    def start(self) -> None:
        """Answer in two threads, until `close`."""
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """End both threads, when the questions that are waiting have been noted."""
        self.closed.set()
        close_listener(self.datagrams)
        close_listener(self.listener)
        for thread in self.threads:
            thread.join(MAX_CLOSE_SEC)

    def answer_datagrams(self) -> None:
        with self.datagrams:
            while True:
                message, client = self.datagrams.recvfrom(MAX_MESSAGE_BYTES)
                # A socket that was shut down still gives what it has; then it gives nothing.
                if self.closed.is_set() and not client:
                    return
                question = parse_question(message)
                self.note(question.name)
                # Nobody may wait for it any more.
                with contextlib.suppress(OSError):
                    self.datagrams.sendto(question.answer, client)

    def answer_streams(self) -> None:
        """DNS over TCP (RFC 7766), one question a connection: enough to say no."""
        with self.listener:
            while True:
                try:
                    connection, _ = self.listener.accept()
                except OSError:
                    if self.closed.is_set():
                        return
                    continue
                with connection:
                    self.answer_stream(connection)

    def answer_stream(self, connection: socket.socket) -> None:
        """Who is slow, or leaves in the middle, asked too: it is noted as malformed."""
        message = b""
        connection.settimeout(SLOW_SEC)
        with contextlib.suppress(OSError):
            length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
            message = connection.recv(min(length, MAX_MESSAGE_BYTES), socket.MSG_WAITALL)
        question = parse_question(message)
        self.note(question.name)
        with contextlib.suppress(OSError):
            connection.sendall(len(question.answer).to_bytes(2) + question.answer)
