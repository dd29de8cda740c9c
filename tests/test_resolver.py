"""The resolver: real questions on real sockets, and messages that are none."""

import socket
import threading
from collections.abc import Iterator

import pytest
from standins import wait_for

from jail.watch.events import Net
from jail.watch.peers import Arrivals
from jail.watch.resolver import (
    MALFORMED,
    Question,
    Records,
    Resolver,
    meant_hosts,
    parse_question,
)

IP_PKTINFO = 8
HEAD = b"\xab\xcd\x01\0\0\1\0\0\0\0\0\0"
EXAMPLE = HEAD + b"\x07example\x03com\0\0\x01\0\x01"
NO_SUCH_NAME = b"\xab\xcd\x81\x83\0\1\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01"


def test_the_name_the_kind_and_the_end_of_a_question_are_read() -> None:
    assert parse_question(EXAMPLE) == Question("example.com", 1, len(EXAMPLE))


def test_what_follows_the_question_is_not_read() -> None:
    assert parse_question(EXAMPLE + b"\0\0\x29" * 50) == parse_question(EXAMPLE)


def test_the_root_has_an_empty_name() -> None:
    assert parse_question(HEAD + b"\0\0\x01\0\x01").name == ""


def test_a_name_may_be_any_bytes_and_none_acts() -> None:
    assert parse_question(HEAD + b"\x04\x1b[2J\0\0\x01\0\x01").name == r"\x1b[2J"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        HEAD,
        EXAMPLE[:-1],
        HEAD + b"\x3fshort",
        HEAD + b"\xc0\x0c\0\x01\0\x01",
        HEAD + b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01",
        HEAD + b"\x01a" * 200 + b"\0\0\x01\0\x01",
    ],
)
def test_what_is_no_question_has_no_answer(message: bytes) -> None:
    assert parse_question(message) == MALFORMED


def make_sockets() -> list[socket.socket]:
    """Of datagrams and of streams, as a run keeper makes them."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_IP, IP_PKTINFO, 1)
    datagrams.bind(("", 0))
    return [datagrams, socket.create_server(("", 0))]


def no_records(name: str, kind: int) -> Records | None:
    return None


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def resolver(asked: list[str]) -> Iterator[Resolver]:
    resolver = Resolver(make_sockets(), lambda name, kind: asked.append(name), no_records)
    resolver.start()
    yield resolver
    resolver.close()


def test_datagrams_are_answered(resolver: Resolver, asked: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        # The answer comes from where the question was sent to, or connect would not let it in.
        client.connect(("127.7.7.7", resolver.sockets[0].getsockname()[1]))
        client.send(EXAMPLE)
        assert client.recv(512) == NO_SUCH_NAME
        client.send(b"nonsense")
        assert client.recv(512) == b""
    assert asked == ["example.com", MALFORMED.name]


def test_streams_are_answered(resolver: Resolver, asked: list[str]) -> None:
    with socket.create_connection(resolver.sockets[1].getsockname(), timeout=10) as client:
        client.sendall(len(EXAMPLE).to_bytes(2) + EXAMPLE)
        assert client.recv(512) == len(NO_SUCH_NAME).to_bytes(2) + NO_SUCH_NAME
    assert asked == ["example.com"]


def test_an_answer_has_the_records_of_the_name() -> None:
    sockets = make_sockets()
    asked: list[tuple[str, int]] = []

    def records(name: str, kind: int) -> Records | None:
        asked.append((name, kind))
        return [(kind, b"\x18\1\2\3")]

    resolver = Resolver(sockets, lambda name, kind: None, records)
    resolver.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect(("127.0.0.1", sockets[0].getsockname()[1]))
        client.send(EXAMPLE.replace(b"example", b"eXamPle"))
        answer = client.recv(512)
    resolver.close()
    assert asked == [("example.com", 1)]
    assert answer[:8] == b"\xab\xcd\x81\x80\0\1\0\1"
    assert answer.endswith(b"\0\4\x18\1\2\3")


def test_who_says_nothing_keeps_nobody_waiting_for_long(
    resolver: Resolver, asked: list[str]
) -> None:
    address = resolver.sockets[1].getsockname()
    with socket.create_connection(address), socket.create_connection(address, timeout=10) as client:
        client.sendall(len(EXAMPLE).to_bytes(2) + EXAMPLE)
        assert client.recv(512)
    assert asked == [MALFORMED.name, "example.com"]


def test_it_ends_when_its_jail_has_ended() -> None:
    before = set(threading.enumerate())
    sockets = make_sockets()
    resolver = Resolver(sockets, print, no_records)
    resolver.start()
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    resolver.close()
    wait_for(lambda: not any(thread.is_alive() for thread in started))
    assert [held.fileno() for held in sockets] == [-1, -1]


def test_the_far_end_of_a_question_is_the_address_that_was_asked() -> None:
    # Interface, own address, the address of the header; of IPv6 address, interface.
    v4 = (socket.SOL_IP, IP_PKTINFO, bytes(4) + b"\x0a\0\x02\x0f" + b"\x08\x08\x08\x08")
    v6 = (socket.IPPROTO_IPV6, 50, b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01" + bytes(4))
    assert meant_hosts([v4, v6, (socket.SOL_SOCKET, 1, b"x")]) == ["8.8.8.8", "2001:db8::1"]


class Elsewhere(Arrivals):
    """Notes this machine, too."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Net] = []

    def note(self, net: Net, host: str, port: int, sender: object) -> None:
        self.noted.append(net)


def test_who_waits_when_the_jail_has_ended_is_noted() -> None:
    arrivals, asked = Elsewhere(), list[str]()
    resolver = Resolver(make_sockets(), lambda name, kind: asked.append(name), no_records, arrivals)
    address = resolver.sockets[1].getsockname()
    clients = [socket.create_connection(address) for _ in range(5)]
    clients[3].sendall(len(EXAMPLE).to_bytes(2) + EXAMPLE)
    clients[3].close()
    resolver.start()
    resolver.close()
    for client in clients:
        client.close()
    assert arrivals.noted == [Net.TCP] * 5
    assert "example.com" in asked
