"""Whom the kernel reached, beside whom the trace names."""

import socket
from collections import Counter

import pytest

from jail.watch.calls import UNFINISHED, Act, Address, Family, Reach, Socket
from jail.watch.events import NOBODY, Connection, Net, TraceContradicted
from jail.watch.peers import (
    MAX_ARRIVED,
    Arrivals,
    Named,
    Peer,
    find_unnamed,
    plain_target,
    tell_unnamed,
)

FAR = "8.8.8.8:443"
STREAM, DATAGRAM = Socket(1, b"7", Family.INET, False), Socket(1, b"8", Family.INET, True)


def call(
    *targets: str,
    act: Act = Act.CONNECT,
    error: str | None = None,
    is_cut: bool = False,
    is_unshown: bool = False,
) -> Reach:
    addresses = tuple(
        Address(Family.INET, target, "" if target.startswith("unix:") else "443")
        for target in targets
    )
    reach = Reach(1, act, b"7", addresses, (), error)
    reach.is_cut, reach.is_unshown = is_cut, is_unshown
    return reach


def told(
    arrived: dict[Peer, int], *calls: tuple[Reach, Socket | None]
) -> list[Connection | TraceContradicted]:
    named = Named()
    for reach, known in calls:
        named.take(reach, known)
    found = find_unnamed(Counter(arrived), named)
    return [event for unnamed in found for event in tell_unnamed(unnamed)]


def lie(what: str) -> TraceContradicted:
    return TraceContradicted(what, NOBODY)


def new(net: Net = Net.TCP) -> Connection:
    return Connection(net, FAR, False, None, NOBODY)


@pytest.mark.parametrize("shown", ["unix:/var/run/nscd/socket", "127.0.0.1:443", "9.9.9.9:443"])
def test_whom_no_call_names_is_told_and_that_another_was_shown(shown: str) -> None:
    found = told({(Net.TCP, FAR): 1}, (call(shown), STREAM))
    assert found == [new(), lie("tcp to 8.8.8.8:443, which no call names")]


def test_each_one_more_than_calls_name_counts() -> None:
    calls = [(call(FAR, error="EINPROGRESS"), STREAM)] * 3
    found = told({(Net.TCP, FAR): 1000}, *calls)
    assert found == [lie("tcp to 8.8.8.8:443, which no call names, 997 times")]


def test_a_call_for_datagrams_names_nobody_to_connect_to() -> None:
    arrived = {(Net.TCP, FAR): 1, (Net.UDP, FAR): 1}
    found = told(arrived, (call(FAR), DATAGRAM))
    assert found == [new(), lie("tcp to 8.8.8.8:443, which no call names")]


@pytest.mark.parametrize("known", [STREAM, None])
@pytest.mark.parametrize(
    "honest",
    [
        call(FAR),
        call("[::ffff:8.8.8.8]:443"),
        call(FAR, act=Act.SEND),
        call("unix:/x", FAR, act=Act.SEND),
        call(FAR, error=UNFINISHED),
    ],
)
def test_whom_a_call_names_in_any_way_is_no_news(honest: Reach, known: Socket | None) -> None:
    assert told({(Net.TCP, FAR): 1}, (honest, known)) == []


def test_who_is_called_and_does_not_answer_is_no_news() -> None:
    assert told({}, (call(FAR, error="ETIMEDOUT"), STREAM)) == []


def test_a_name_to_listen_at_names_nobody_else() -> None:
    assert len(told({(Net.TCP, FAR): 1}, (call(FAR, act=Act.BIND), STREAM))) == 2


def test_a_trace_that_was_cut_shows_nothing_false() -> None:
    found = told({(Net.TCP, FAR): 1}, (call(act=Act.SEND, is_cut=True), STREAM))
    assert found == [new()]


def test_what_ended_in_the_middle_of_a_sendmmsg_may_have_named_anybody() -> None:
    arrived = {(Net.UDP, FAR): 1, (Net.TCP, FAR): 1}
    ended = call(act=Act.SEND, error=UNFINISHED, is_unshown=True)
    found = told(arrived, (ended, DATAGRAM))
    assert found == [new(Net.UDP), new(), lie("tcp to 8.8.8.8:443, which no call names")]


def test_the_datagrams_of_one_socket_need_one_call() -> None:
    arrivals = Arrivals()
    for own_port in (5000, 5000, 5001):
        arrivals.note(Net.UDP, "8.8.8.8", 443, ("10.0.2.15", own_port))
    for _ in range(2):
        arrivals.note(Net.TCP, "2001:db8::1%lo", 443, ("10.0.2.15", 5000))
    assert arrivals.counts == {(Net.UDP, FAR): 2, (Net.TCP, "[2001:db8::1]:443"): 2}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"])
def test_what_stays_on_this_machine_is_not_counted(host: str) -> None:
    arrivals = Arrivals()
    arrivals.note(Net.TCP, host, 80, ("127.0.0.1", 5000))
    assert not arrivals.counts


def test_a_flood_of_far_ends_is_bounded_and_counted() -> None:
    arrivals = Arrivals()
    for number in range(MAX_ARRIVED + 5):
        arrivals.note(Net.TCP, f"20.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1, None)
    assert len(arrivals.counts) == MAX_ARRIVED
    assert arrivals.lost == {"far end": 5}


def test_what_the_kernel_had_no_room_for_is_counted() -> None:
    arrivals = Arrivals()
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        far.bind(("127.0.0.1", 0))
        for _ in range(100):
            near.sendto(bytes(1000), far.getsockname())
        arrivals.note_dropped(far)
        arrivals.note_dropped(near)
    assert 50 < arrivals.lost["datagram"] <= 100


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("[::FFFF:1.2.3.4]:5", "1.2.3.4:5"),
        ("[2001:0db8:0::1]:5", "[2001:db8::1]:5"),
        ("[fe80::1%lo]:5", "[fe80::1]:5"),
        ("no address:5", "no address:5"),
    ],
)
def test_one_address_has_one_text(written: str, plain: str) -> None:
    assert plain_target(written) == plain
