"""The decoy internet of one jail: takes every connection and datagram, and lets each talk.

One thread, one selector, no byte of it waits for another. Hostile input: connections, datagrams
and bytes in any number and at any speed. What is open at once, how long, how much comes in, all is
bounded; nothing is ever sent to anybody but the jail.
"""

import ipaddress
import selectors
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from jail.watch.endpoint import Endpoint
from jail.watch.events import Net, WorldEvent
from jail.watch.peers import Arrivals
from jail.watch.sink import Sink
from jail.watch.talk import MAX_RAW_TEXT_BYTES, Target, target_text
from jail.watch.world import Traffic, World, unix_sec
from jail.watch.world_events import Conversation, Reply, Speaker

MAX_OPEN = 128  # connections; what was silent for longest makes room for the next
MAX_WAITING = 1024  # connections that nobody has accepted yet
WAITING_BYTES = 64 << 10  # of a connection, until they are read
DATAGRAMS_BYTES = 1 << 20  # until they are read; the kernel may give less
MAX_FLOWS = 500  # of datagrams
MAX_ACCEPTED = 64  # before others have their turn
MAX_DATAGRAMS = 64
MAX_DATAGRAM_BYTES = 64 << 10
MAX_END_SEC = 3.0
MAX_LAST_ROUNDS = 64  # at the end, for what still lies in a socket
ROUND_SEC = 0.25
# Levels and types of the control messages that say where a datagram was sent to, and at which byte
# of `02 00  00 35  08 08 08 08` and `0a 00  01 bb  <flow>  <16 bytes>` the address begins.
ORIGINAL_TARGET = {(socket.SOL_IP, 20): (4, 4), (socket.IPPROTO_IPV6, 74): (8, 16)}
RESET = struct.pack("ii", 1, 0)


class Flow:
    """The datagrams of one socket to one address."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.begun_sec = unix_sec()
        self.sink = Sink()


class Decoy:
    """Answers one jail.

    Args:
        world: the run's.
        sockets: transparent listeners and sockets of datagrams of the jail's network.
        arrivals: takes who was reached.
    """

    def __init__(
        self, world: World, sockets: Iterable[socket.socket], arrivals: Arrivals | None = None
    ) -> None:
        self.arrivals = arrivals or Arrivals()
        self.traffic = Traffic(world)
        self.sockets = list(sockets)
        self.selector = selectors.DefaultSelector()
        # By last use, the latest last.
        self.connections: OrderedDict[int, Endpoint] = OrderedDict()
        self.flows: OrderedDict[tuple[object, str], Flow] = OrderedDict()
        self.near, self.far = socket.socketpair()
        self.has_ended = False  # with all that there was
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def start(self) -> None:
        """Answer in a thread, until `close`."""
        self.thread.start()

    def close(self) -> list[tuple[float, WorldEvent]]:
        """End the thread, and return what was seen: when, in seconds since 1970, and what.

        To be called when the jail has ended; what there was no room for is in `traffic.lost`.
        """
        self.far.close()
        self.thread.join()
        if not self.has_ended:
            self.traffic.lost["connection, after a fault of the decoy internet"] += 1
        return self.traffic.events

    def serve(self) -> None:
        """The loop."""
        for listener in self.sockets:
            listener.setblocking(False)
            if listener.type == socket.SOCK_STREAM:
                # What waits in the kernel takes memory, too; each connection has this from here.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WAITING_BYTES)
                # What is sent as urgent is read in its turn, too.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
                listener.listen(MAX_WAITING)
            else:
                # A burst of datagrams is to wait there rather than be lost.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAMS_BYTES)
            self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(self.near, selectors.EVENT_READ)
        ticked_sec = time.monotonic()
        is_open = True
        while is_open:
            for key, mask in self.selector.select(ROUND_SEC):
                source = key.fileobj
                if source is self.near:
                    is_open = False
                elif isinstance(key.data, Endpoint):
                    self.attend(key.data, mask)
                elif isinstance(source, socket.socket) and source.type == socket.SOCK_STREAM:
                    self.accept(source)
                elif isinstance(source, socket.socket):
                    self.receive(source)
            if time.monotonic() - ticked_sec >= ROUND_SEC:
                ticked_sec = time.monotonic()
                self.tick(ticked_sec)
        self.end()

    def end(self) -> None:
        """The jail has ended: take what still lies in the sockets, then let go of all."""
        end_sec = time.monotonic() + MAX_END_SEC
        for listener in self.sockets:
            take = self.accept if listener.type == socket.SOCK_STREAM else self.receive
            for _ in range(MAX_LAST_ROUNDS):
                if time.monotonic() > end_sec or not take(listener):
                    break
            self.arrivals.note_dropped(listener)
        for endpoint in list(self.connections.values()):
            if time.monotonic() < end_sec:
                self.finish(endpoint)
            else:
                self.traffic.lost["connection, to its end"] += 1
                self.drop(endpoint)
        for flow in self.flows.values():
            self.guard("datagrams", self.tell_flow, flow)
        self.guard("what came in pieces", self.tell_joined)
        for held in (*self.sockets, self.near):
            held.close()
        self.selector.close()
        self.has_ended = True

    def guard(self, what: str, work: Callable[..., None], *arguments: object) -> None:
        """Do a part of the work. A fault of ours must not end the others, and is told."""
        try:
            work(*arguments)
        # Whatever it is, as in `attend`.
        except Exception as error:
            self.traffic.lost[f"{what}, by {type(error).__name__}"] += 1

    def tell_joined(self) -> None:
        """Tell what was sent in pieces."""
        for joined in list(self.traffic.join()):
            self.traffic.tell(unix_sec(), joined)

    def accept(self, listener: socket.socket) -> bool:
        """Take new connections: whether there may be more."""
        for _ in range(MAX_ACCEPTED):
            try:
                accepted, sender = listener.accept()
            except BlockingIOError:
                return False
            except OSError:
                # Gone already, or there are too many descriptors: the oldest makes room.
                if self.connections:
                    self.make_room()
                    continue
                time.sleep(ROUND_SEC)
                return False
            self.welcome(accepted, sender)
        return True

    def welcome(self, accepted: socket.socket, sender: object) -> None:
        """Begin to talk, if the jail does not only talk to itself."""
        host, port = accepted.getsockname()[:2]
        address = ipaddress.ip_address(host)
        if address.is_loopback:
            # Only where single ports are served: elsewhere none of these get here.
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            accepted.close()
            return
        self.arrivals.note(Net.TCP, host, port, sender)
        if len(self.connections) >= MAX_OPEN:
            self.make_room()
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = self.traffic.number(target_text(host, port))
        name = self.traffic.world.names.name_of(host)
        endpoint = Endpoint(accepted, self.traffic, Target(host, port, name, number))
        self.connections[accepted.fileno()] = endpoint
        self.selector.register(accepted, selectors.EVENT_READ, endpoint)

    def attend(self, endpoint: Endpoint, mask: int) -> None:
        """Let one connection read and write what it can."""
        # It may have made room for another connection within this round.
        if endpoint.is_closed:
            return
        try:
            if mask & selectors.EVENT_READ:
                endpoint.read()
            endpoint.write()
        # Whatever it is: it must not end the other conversations.
        except Exception as error:
            self.traffic.lost[f"connection, by {type(error).__name__}"] += 1
            endpoint.is_done = True
        self.settle(endpoint)

    def settle(self, endpoint: Endpoint) -> None:
        """Close what is done; else wait for what the connection waits for."""
        if endpoint.is_done:
            self.drop(endpoint)
            return
        self.connections.move_to_end(endpoint.socket.fileno())
        self.selector.modify(endpoint.socket, endpoint.interest, endpoint)

    def make_room(self) -> None:
        """Give up the connection that was silent for longest."""
        oldest = next(iter(self.connections.values()))
        self.finish(oldest)
        if not oldest.is_ending:
            self.traffic.lost["connection, to its end"] += 1

    def finish(self, endpoint: Endpoint) -> None:
        """Take what still lies in the socket of an endpoint, and close it."""
        for _ in range(MAX_LAST_ROUNDS):
            before_bytes = endpoint.received_bytes
            self.attend(endpoint, selectors.EVENT_READ)
            if endpoint.is_closed or endpoint.received_bytes == before_bytes:
                break
        if not endpoint.is_closed:
            self.drop(endpoint)

    def drop(self, endpoint: Endpoint) -> None:
        del self.connections[endpoint.socket.fileno()]
        self.selector.unregister(endpoint.socket)
        self.guard("connection", endpoint.close)

    def tick(self, now: float) -> None:
        """Greet who waits for a word, and give up who is too slow."""
        for endpoint in list(self.connections.values()):
            if endpoint.is_due(now):
                endpoint.wake(now)
                self.attend(endpoint, 0)

    def receive(self, source: socket.socket) -> bool:
        """Take datagrams: whether there may be more."""
        for _ in range(MAX_DATAGRAMS):
            try:
                data, control, _, sender = source.recvmsg(MAX_DATAGRAM_BYTES, 256)
            except OSError:
                return False
            port = source.getsockname()[1]
            for level, kind, value in control:
                if (level, kind) in ORIGINAL_TARGET:
                    at, length = ORIGINAL_TARGET[level, kind]
                    host = str(ipaddress.ip_address(value[at : at + length]))
                    meant_port = int.from_bytes(value[2:4])
                    self.take_datagram(sender, host, meant_port, data)
                    break
            else:
                self.traffic.lost[f"datagram to port {port}"] += 1
        return True

    def take_datagram(self, sender: object, host: str, port: int, data: bytes) -> None:
        self.arrivals.note(Net.UDP, host, port, sender)
        key = (sender, target_text(host, port))
        if key not in self.flows:
            if len(self.flows) >= MAX_FLOWS:
                self.guard("datagrams", self.tell_flow, self.flows.popitem(last=False)[1])
            name = self.traffic.world.names.name_of(host)
            self.flows[key] = Flow(Target(host, port, name, self.traffic.number(f"udp {key[1]}")))
        if self.traffic.receive(len(data)):
            self.flows[key].sink.take(data)
        self.flows.move_to_end(key)

    def tell_flow(self, flow: Flow) -> None:
        carried = self.traffic.look_at(flow.target.text, flow.sink)
        self.traffic.pieces.take(flow.target.text, flow.target.owner, [("", flow.sink.start)])
        conversation = Conversation(
            Net.UDP,
            flow.target.text,
            flow.target.number,
            flow.target.name,
            Reply.DECOY,
            Speaker.PACKAGE,
            None,
            flow.sink.payload(MAX_RAW_TEXT_BYTES),
            carried.bait,
            carried.environment,
            carried.opaque,
        )
        self.traffic.tell(flow.begun_sec, conversation)
