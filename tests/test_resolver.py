"""The resolver: real questions on real sockets, and messages that are none."""

import socket
import threading
from collections.abc import Iterator

import pytest
from standins import wait_for

from jail.watch.resolver import MALFORMED, Resolver, parse_question

HEAD = b"\xab\xcd\x01\0\0\1\0\0\0\0\0\0"
EXAMPLE = HEAD + b"\x07example\x03com\0\0\x01\0\x01"
NO_SUCH_NAME = b"\xab\xcd\x81\x83\0\1\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01"


def test_a_question_is_answered_with_no_such_name() -> None:
    question = parse_question(EXAMPLE)
    assert (question.name, question.answer) == ("example.com", NO_SUCH_NAME)


def test_what_follows_the_question_is_not_repeated() -> None:
    assert parse_question(EXAMPLE + b"\0\0\x29" * 50).answer == NO_SUCH_NAME


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


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def resolver(asked: list[str]) -> Iterator[Resolver]:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    resolver = Resolver(datagrams, socket.create_server(("127.0.0.1", 0)), asked.append)
    resolver.start()
    yield resolver
    resolver.close()


def test_datagrams_are_answered(resolver: Resolver, asked: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect(resolver.datagrams.getsockname())
        client.send(EXAMPLE)
        assert client.recv(512) == NO_SUCH_NAME
        client.send(b"nonsense")
        assert client.recv(512) == b""
    assert asked == ["example.com", MALFORMED.name]


def test_streams_are_answered(resolver: Resolver, asked: list[str]) -> None:
    with socket.create_connection(resolver.listener.getsockname(), timeout=10) as client:
        client.sendall(len(EXAMPLE).to_bytes(2) + EXAMPLE)
        assert client.recv(512) == len(NO_SUCH_NAME).to_bytes(2) + NO_SUCH_NAME
    assert asked == ["example.com"]


def test_who_says_nothing_keeps_nobody_waiting_for_long(
    resolver: Resolver, asked: list[str]
) -> None:
    address = resolver.listener.getsockname()
    with socket.create_connection(address), socket.create_connection(address, timeout=10) as client:
        client.sendall(len(EXAMPLE).to_bytes(2) + EXAMPLE)
        assert client.recv(512)
    assert asked == [MALFORMED.name, "example.com"]


def test_it_ends_when_its_jail_has_ended() -> None:
    before = set(threading.enumerate())
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    resolver = Resolver(datagrams, socket.create_server(("127.0.0.1", 0)), print)
    resolver.start()
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    resolver.close()
    wait_for(lambda: not any(thread.is_alive() for thread in started))
    assert datagrams.fileno() == -1
