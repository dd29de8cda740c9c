"""What a package says to the decoy internet is searched, however odd it is, and whatever of our own
code fails at it.
"""

import selectors
import socket
from collections.abc import Iterator

import pytest
from decoy_lab import ENVIRONMENT, SECRET

from jail.watch.decoy import Decoy
from jail.watch.endpoint import MAX_TUNNELS, Endpoint
from jail.watch.talk import Talk, Target
from jail.watch.world import Traffic, World, make_world
from jail.watch.world_events import Conversation, Request

TARGET = Target("93.184.216.34", 4444, None, 0)
BAIT = (("AWS_SECRET_ACCESS_KEY",),)
DIGITS = b"9" * 5000


@pytest.fixture
def world() -> World:
    return make_world(None, {"AWS_SECRET_ACCESS_KEY": SECRET}, ENVIRONMENT)


def bait_in(traffic: Traffic) -> tuple[tuple[str, ...], ...]:
    told = [event for _, event in traffic.events]
    return tuple(
        event.bait for event in told if isinstance(event, Request | Conversation) and event.bait
    )


def body(size_bytes: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % size_bytes + SECRET.encode()


@pytest.mark.parametrize(
    "said",
    [
        # Where the URL can't be taken apart, or a number is too long for Python.
        b"CONNECT //[x HTTP/1.1\r\n" + body(len(SECRET)),
        b"CONNECT //[x HTTP/1.1\r\n" + body(1000),
        b"POST /resolve?name=a.example&type=" + DIGITS + b" HTTP/1.1\r\n" + body(len(SECRET)),
        b"POST / HTTP/1.1\r\nX: &#" + DIGITS + b";\r\n" + body(len(SECRET)),
        b"&#" + DIGITS + b"; " + SECRET.encode(),
    ],
    ids=["proxy", "proxy, cut off", "kind of a question", "character", "raw"],
)
def test_an_odd_request_does_not_hide_what_it_carries(world: World, said: bytes) -> None:
    traffic = Traffic(world)
    talk = Talk(traffic, TARGET, False, None)
    talk.take(said)
    talk.finish(None)
    assert bait_in(traffic) == BAIT


def test_what_a_fault_of_ours_meets_is_told_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError

    traffic = Traffic(world)
    talk = Talk(traffic, TARGET, False, None)
    with monkeypatch.context() as patches:
        patches.setattr("jail.watch.talk.answer", fail)
        with pytest.raises(ArithmeticError):
            talk.take(b"POST / HTTP/1.1\r\n" + body(len(SECRET)))
    talk.finish(None)
    assert bait_in(traffic) == BAIT


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def hear(endpoint: Endpoint, theirs: socket.socket, said: bytes) -> None:
    theirs.sendall(said)
    endpoint.read()
    endpoint.write()


@pytest.mark.parametrize("last", [b"SEND data\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"])
def test_what_is_sent_after_our_last_word_is_searched(
    world: World, pair: tuple[socket.socket, socket.socket], last: bytes
) -> None:
    traffic = Traffic(world)
    ours, theirs = pair
    endpoint = Endpoint(ours, traffic, TARGET)
    hear(endpoint, theirs, last + SECRET[:20].encode())
    assert endpoint.drained
    hear(endpoint, theirs, SECRET[20:].encode())
    endpoint.close()
    assert bait_in(traffic) == BAIT


def test_proxies_behind_proxies_hide_nothing(
    world: World, pair: tuple[socket.socket, socket.socket]
) -> None:
    traffic = Traffic(world)
    ours, theirs = pair
    endpoint = Endpoint(ours, traffic, TARGET)
    hear(endpoint, theirs, b"CONNECT a.example:1 HTTP/1.1\r\n\r\n" * 1500 + SECRET.encode())
    assert endpoint.tunnels == MAX_TUNNELS + 1
    endpoint.close()
    assert bait_in(traffic) == BAIT


def test_a_fault_at_one_connection_does_not_end_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the jail has ended: each connection and each flow is told by itself."""
    decoy = Decoy(world, [])
    finish = Talk.finish

    def finish_some(talk: Talk, tls: None) -> None:
        if talk.target.port == 1:
            raise ArithmeticError
        finish(talk, tls)

    monkeypatch.setattr(Talk, "finish", finish_some)
    others = []
    for port in (1, 2):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        endpoint = Endpoint(ours, decoy.traffic, Target(TARGET.host, port, None, 0))
        decoy.connections[ours.fileno()] = endpoint
        decoy.selector.register(ours, selectors.EVENT_READ, endpoint)
        theirs.sendall(SECRET.encode())
        others.append(theirs)
    decoy.start()
    events = decoy.close()
    assert [event.target for _, event in events if isinstance(event, Conversation)] == [
        f"{TARGET.host}:2"
    ]
    assert decoy.traffic.lost == {"connection, by ArithmeticError": 1}
    for theirs in others:
        theirs.close()


def test_a_decoy_internet_that_has_failed_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy = Decoy(world, [])
    monkeypatch.setattr(decoy, "end", lambda: None)
    decoy.start()
    decoy.close()
    assert decoy.traffic.lost.total() == 1
