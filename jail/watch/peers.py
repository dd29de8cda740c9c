"""Whom the kernel really reached, as the far ends saw it, beside whom the trace names.

strace reads an address just before the kernel does (of a sendmmsg just after), and a second thread
can change it in between. The far end of a connection knows the true one.

Hostile input: connections, datagrams and calls in any number.
"""

import ipaddress
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from jail.watch.calls import Act, Reach, Socket
from jail.watch.events import NOBODY, Connection, Net, TraceContradicted, is_near

MAX_ARRIVED = 50_000  # far ends, and sockets that send datagrams to them
MAX_NAMED = 200_000  # far ends that calls name
# An option of sockets that tells of their memory in nine numbers: what had no room is the last.
SO_MEMINFO, MEMINFO = 55, struct.Struct("9I")

Peer = tuple[Net, str]


def peer_text(host: str, port: object) -> str:
    """host:port, one text for one address.

    Of "::ffff:8.8.8.8" the kernel makes 8.8.8.8, and the far end sees that.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return f"{host}:{port}"
    if isinstance(address, ipaddress.IPv6Address):
        if not address.ipv4_mapped:
            return f"[{address}]:{port}"
        address = address.ipv4_mapped
    return f"{address}:{port}"


def plain_target(target: str) -> str:
    """The target of a call or a conversation, "[::1]:80" say, as peer_text writes it."""
    host, _, port = target.rpartition(":")
    return peer_text(host.strip("[]"), port)


class Arrivals:
    """The far ends that one jail reached, with the number of sockets that did so: at least that
    many calls have named it. Several threads note.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[Peer] = Counter()
        self.senders: set[tuple[str, int]] = set()
        self.lost: Counter[str] = Counter()  # by kind: what nobody took or had room for

    def note(self, net: Net, host: str, port: int, sender: object) -> None:
        """A connection, or a datagram, came to this far end.

        A socket may send many datagrams after it named whom to, all from one port of its own:
        where those of different ports arrive, there were as many calls.

        Args:
            sender: the other end's address, as the socket module gives it.
        """
        target = peer_text(host, port)
        if is_near(target):
            return
        own_port = sender[1] if isinstance(sender, tuple) else 0
        with self.lock:
            if (net, target) not in self.counts and len(self.counts) >= MAX_ARRIVED:
                self.lost["far end"] += 1
                return
            if net is Net.UDP:
                if (target, own_port) in self.senders or len(self.senders) >= MAX_ARRIVED:
                    return
                self.senders.add((target, own_port))
            self.counts[net, target] += 1

    def note_dropped(self, held: socket.socket) -> None:
        """What the kernel had no room for at one of our sockets. To be called before it is
        closed.
        """
        kind = "datagram" if held.type == socket.SOCK_DGRAM else "connection"
        # Another kernel may not tell.
        with suppress(OSError, struct.error):
            told = held.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size)
            dropped = MEMINFO.unpack(told)[-1]
            with self.lock:
                self.lost[kind] += dropped


class Named:
    """The far ends that the calls of one jail named, and how often.

    `is_whole`: so far as the trace tells, those were all. `has_all_datagrams`: the same of
    sendmmsg, which strace shows only when it has returned.
    """

    def __init__(self) -> None:
        self.counts: Counter[Peer] = Counter()
        self.is_whole = True
        self.has_all_datagrams = True

    def take(self, call: Reach, known: Socket | None) -> None:
        """Note whom a call names, whatever it came to.

        Args:
            known: its socket, if that was seen being made; else it may be a socket of any kind.
        """
        if call.act is Act.BIND:
            return
        if call.is_cut:
            self.is_whole = False
        if call.is_unshown:
            self.has_all_datagrams = False
        nets = (Net.TCP, Net.UDP) if known is None else (udp_or_tcp(known),)
        for address in call.addresses:
            if not address.port:
                continue
            target = plain_target(address.target)
            for net in nets:
                self.count(net, target)

    def count(self, net: Net, target: str) -> None:
        if (net, target) in self.counts or len(self.counts) < MAX_NAMED:
            self.counts[net, target] += 1
        else:
            self.is_whole = False


def udp_or_tcp(known: Socket) -> Net:
    return Net.UDP if known.is_datagram else Net.TCP


@dataclass(frozen=True)
class Unnamed:
    """A far end that was reached more often than it was named: `count` times more.

    `is_new`: no call named it at all. `is_lie`: the trace is whole, so that a call must have named
    another to it.
    """

    net: Net
    target: str
    count: int
    is_new: bool
    is_lie: bool


def find_unnamed(arrived: Counter[Peer], named: Named) -> Iterator[Unnamed]:
    """The far ends that the kernel reached by calls of which the trace shows others.

    Args:
        arrived: of Arrivals, when the jail has ended.
    """
    for (net, target), count in arrived.items():
        known = named.counts[net, target]
        if count > known:
            is_lie = named.is_whole and (net is Net.TCP or named.has_all_datagrams)
            yield Unnamed(net, target, count - known, known == 0, is_lie)


def tell_unnamed(unnamed: Unnamed) -> Iterator[Connection | TraceContradicted]:
    """The events of it. Who did it is not known: a process that showed another address."""
    if unnamed.is_new:
        yield Connection(unnamed.net, unnamed.target, False, None, NOBODY)
    if unnamed.is_lie:
        often = f", {unnamed.count} times" if unnamed.count > 1 else ""
        what = f"{unnamed.net} to {unnamed.target}, which no call names{often}"
        yield TraceContradicted(what, NOBODY)
