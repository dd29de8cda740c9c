"""All that a jail can reach: the resolver, the index, and the decoy internet, for one jail."""

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jail.orders import DNS_PORT, INDEX_PORT
from jail.watch.decoy import Decoy
from jail.watch.events import Connection
from jail.watch.resolver import Records, Resolver
from jail.watch.served import Told, attribute, decode_names
from jail.watch.world import World

MAX_NETWORK_SOCKETS = 150  # of a jail's network
MAX_QUESTIONS = 5000  # that are kept for what hides in their names


@dataclass
class Outside:
    """The sockets of one jail's network, by what they are for."""

    world: World | None
    dns: list[socket.socket]
    index: socket.socket | None
    decoys: list[socket.socket]

    def start(self, note: Callable[[str, int], None]) -> None:
        """Answer the jail. `note` is called for each question, maybe in several threads."""
        self.note = note
        self.names: list[str] = []
        self.resolver = Resolver(self.dns, self.note_question, self.records)
        self.resolver.start()
        self.decoy = Decoy(self.world, self.decoys) if self.world else None
        if self.decoy:
            self.decoy.start()

    def note_question(self, name: str, kind: int) -> None:
        if len(self.names) < MAX_QUESTIONS:
            self.names.append(name)
        self.note(name, kind)

    def records(self, name: str, kind: int) -> Records | None:
        return self.world.names.answer(name, kind) if self.world else None

    def close(self) -> None:
        """The jail has ended."""
        self.resolver.close()

    def told(self, connections: Iterable[Connection], at_sec: float) -> Iterator[Told]:
        """What the decoy internet saw, with who did it. To be called after `close`."""
        if self.decoy and self.world:
            yield from attribute(self.decoy.close(), connections)
            for event in decode_names(self.names, self.world.search):
                yield at_sec, event


def sort_sockets(world: World | None, fds: Iterable[int]) -> Outside:
    """The sockets that the run keeper made, in whatever order."""
    outside = Outside(world, [], None, [])
    for fd in fds:
        held = socket.socket(fileno=fd)
        port = held.getsockname()[1]
        if port == DNS_PORT:
            outside.dns.append(held)
        elif port == INDEX_PORT:
            outside.index = held
        else:
            outside.decoys.append(held)
    return outside


def reach(outside: Outside) -> str:
    """How much of the world is answered: a word of the report's coverage."""
    ports = {held.getsockname()[1] for held in outside.decoys}
    if not ports:
        return "off"
    return "full" if len(ports) == 1 else "ports"
