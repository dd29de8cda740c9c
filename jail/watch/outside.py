"""All that one jail can reach: the resolver, the index, and the decoy internet.

Hostile input goes to the rooms that read it; here are the names that were asked for.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from jail.orders import DNS_PORT
from jail.watch.decoy import Decoy
from jail.watch.events import MAX_EVENTS, Connection, Event, Phase
from jail.watch.fitting import python_tag
from jail.watch.gateway import Gateway
from jail.watch.labels import domains_left_out
from jail.watch.names import Questions
from jail.watch.offered import tell_release
from jail.watch.peers import Arrivals, Named, find_unnamed, tell_unnamed
from jail.watch.record import SEARCHED_FOR_BAIT
from jail.watch.resolver import Records, Resolver
from jail.watch.resources import Journal, Resources
from jail.watch.served import attribute, decode_names
from jail.watch.sink import Sink
from jail.watch.sockets import Sockets
from jail.watch.talk import MAX_RAW_TEXT_BYTES
from jail.watch.world import Traffic
from jail.watch.world_events import Conversation, Reply, Speaker


class Outside:
    """What is outside of one jail. `questions`: what was asked for each name."""

    def __init__(
        self, resources: Resources, journal: Journal, fds: Iterable[int], is_second: bool
    ) -> None:
        self.resources = resources
        self.journal = journal
        self.questions: dict[str, Questions] = {}
        self.lock = threading.Lock()
        sockets = Sockets(fds)
        resources.reach = sockets.reach()
        self.arrivals = Arrivals()
        self.resolver = Resolver(sockets.dns, self.note_question, self.records, self.arrivals)
        self.resolver.start()
        self.decoy: Decoy | None = None
        if resources.world:
            self.decoy = Decoy(resources.world, sockets.decoys, self.arrivals)
            self.decoy.traffic.note_question = self.note_question
            self.decoy.start()
        self.gateway: Gateway | None = None
        if sockets.index:
            denylist = resources.settings.package_denylist
            self.gateway = Gateway(
                resources.order,
                denylist,
                resources.upstream,
                resources.cache,
                self.search,
                journal.tell,
                resources.given,
            )
            self.gateway.is_second = is_second
            self.gateway.release = resources.release
            self.gateway.own_tag = python_tag(Path(f"/proc/self/fd/{resources.scratch.fd}/venv"))
            self.gateway.start(sockets.index)

    def note_question(self, name: str, kind: int) -> None:
        """Keep what is asked for a name, and look whether it carries bait."""
        self.search("DNS name", name[:200], name.replace(".", "").encode())
        with self.lock:
            if name not in self.questions and len(self.questions) < MAX_EVENTS:
                is_answered = self.records(name.lower(), kind) is not None
                self.questions[name] = Questions(self.resources.now_sec(), [], is_answered)
            if name in self.questions:
                self.questions[name].add(kind)
                return
        self.journal.lose("NameAsked")

    def search(self, kind: str, where: str, data: bytes) -> bool:
        """Look for bait in what came from this jail's network."""
        return self.journal.is_open and self.resources.decoys.search(kind, where, data)

    def records(self, name: str, kind: int) -> Records | None:
        """What the resolver answers; None: there is no such name."""
        world = self.resources.world
        return world.names.answer(name, kind) if world else None

    def close(self) -> None:
        """Take no more: the jail has ended."""
        self.resolver.close()
        if self.gateway:
            self.gateway.close()

    def tell(self, named: Named) -> None:
        """Tell what the decoy internet saw, with who did it. To be called after `close`.

        Args:
            named: whom the calls named that the kernel's witness saw.
        """
        world = self.resources.world
        if not self.decoy or not world:
            return
        said = [*self.decoy.close(), *self.resolvers_asked(self.decoy.traffic)]
        for at_sec, event in attribute(said, self.connections()):
            self.journal.tell(event, at_sec)
        for unnamed in find_unnamed(self.arrivals.counts, named):
            for told in tell_unnamed(unnamed):
                self.journal.tell(told)
        names = list(self.questions)
        for hidden in decode_names(names, world.search):
            self.journal.tell(hidden)
        left_out = domains_left_out(names)
        self.journal.lose(f"names below a domain, {SEARCHED_FOR_BAIT}", left_out)
        for kind, count in (self.decoy.traffic.lost + self.arrivals.lost).items():
            self.journal.lose(kind, count)

    def tell_release(self, phase: Phase, tell: Callable[[Event], object]) -> None:
        """Tell what the index says of the release, once it was asked."""
        gateway = self.gateway
        if gateway and gateway.offered:
            tell_release(gateway.offered, self.resources.order, phase, gateway.python, tell)

    def resolvers_asked(self, traffic: Traffic) -> Iterator[tuple[float, Conversation]]:
        """The conversations with far resolvers: what was asked is told name by name, and what was
        sent there otherwise as on any port.
        """
        far_ends = [peer for peer in self.arrivals.counts if peer[1].endswith(f":{DNS_PORT}")]
        for net, target in far_ends[:MAX_EVENTS]:
            event = Conversation(net, target, 0, None, Reply.DECOY, Speaker.PACKAGE)
            sink = Sink()
            sink.take(self.resolver.other.get((net, target), b""))
            if sink.size_bytes:
                carried = traffic.look_at(target, sink)
                payload = sink.payload(MAX_RAW_TEXT_BYTES)
                event = replace(event, payload=payload, bait=carried.bait)
                event = replace(event, environment=carried.environment, opaque=carried.opaque)
            yield self.resources.now_sec(), event

    def connections(self) -> Iterator[Connection]:
        """Those of this jail that the kernel's witness saw."""
        for seen in self.resources.record.seen:
            if seen.phase is self.journal.phase and isinstance(seen.event, Connection):
                yield seen.event
