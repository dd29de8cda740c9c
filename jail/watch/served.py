"""What became of what the decoy internet served, and who talked to it.

The decoy sees connections, the kernel's witness sees processes: what one of them knows is put to
the other here, when a jail has ended.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from jail.watch.events import (
    NOBODY,
    Actor,
    Code,
    Connection,
    Event,
    Exec,
    FileChanged,
    Net,
    WorldEvent,
)
from jail.watch.labels import join_labels
from jail.watch.payload import Search
from jail.watch.peers import plain_target
from jail.watch.stubs import Marks
from jail.watch.world_events import (
    Conversation,
    Kept,
    NamesDecoded,
    RemoteCode,
    Request,
)

MAX_SUBJECT_CHARS = 300
MAX_TOLD = 500  # of a run: one for each URL, way and subject
Told = tuple[float, WorldEvent]


def attribute(told: Iterable[Told], connections: Iterable[Connection]) -> Iterator[Told]:
    """The events of the decoy with who did it.

    Both witnesses see the connections to one target in the same order. Where the kernel's told
    less than there were, the last that is known counts.

    Args:
        told: what Decoy.close returned.
        connections: what the kernel saw in the same jail, in order.
    """
    actors: defaultdict[tuple[Net, str], list[Actor]] = defaultdict(list)
    for connection in connections:
        if not connection.listens:
            actors[connection.net, plain_target(connection.target)].append(connection.actor)
    for at_sec, event in told:
        if isinstance(event, Conversation | Request):
            net = event.net if isinstance(event, Conversation) else Net.TCP
            known = actors[net, plain_target(event.target)] or [NOBODY]
            actor = known[min(event.number, len(known) - 1)]
            yield at_sec, replace(event, actor=actor)
        else:
            yield at_sec, event


class SecondStages:
    """Finds where what was served in this run is executed, passed on or kept."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.known: set[tuple[str, Kept, str]] = set()

    def of_event(self, event: Event) -> RemoteCode | None:
        """What an event says of it; None for most, and for what was said before."""
        match event:
            case Exec():
                words = " ".join(event.argv)
                url = self.marks.find(words.encode(errors="replace"))
                kept = Kept.EXECUTED if self.is_own_act(event) else Kept.ARGUMENT
                # What our script does says that it ran; the command is not the package's.
                subject = event.actor.process if kept == Kept.EXECUTED else words
                return self.tell(url, kept, subject, event.actor.place, event.actor)
            case Code():
                url = self.marks.find(event.text.encode(errors="replace"))
                return self.tell(url, Kept.EXECUTED, event.text, event.place, NOBODY)
        return None

    def of_file(self, event: FileChanged, start: bytes) -> RemoteCode | None:
        """What a changed file says of it.

        Args:
            start: the first bytes of the file.
        """
        url = self.marks.find(start)
        return self.tell(url, Kept.FILE, event.path, event.place, event.actor)

    def is_own_act(self, event: Exec) -> bool:
        """Whether it is a served script that does this: no act of the package."""
        return self.marks.is_own_act(event.argv)

    def tell(
        self, url: str | None, kept: Kept, subject: str, place: str | None, actor: Actor
    ) -> RemoteCode | None:
        if url is None or len(self.known) >= MAX_TOLD:
            return None
        # That it ran is one fact, whichever witness saw it first.
        key = (url, kept, "" if kept == Kept.EXECUTED else subject[:MAX_SUBJECT_CHARS])
        if key in self.known:
            return None
        self.known.add(key)
        return RemoteCode(url, kept, subject[:MAX_SUBJECT_CHARS], place, actor)


def decode_names(names: Iterable[str], search: Search) -> Iterator[NamesDecoded]:
    """What the names say that a jail asked for, in the order of its questions."""
    for hidden in join_labels(names):
        text = (hidden.data or b"").decode("utf-8", "backslashreplace")
        # A value may have been cut without being encoded, or be no text when it is decoded.
        bait = search.look(hidden.data or hidden.coded.encode()).bait
        if text or bait:
            yield NamesDecoded(hidden.domain, hidden.questions, text, bait)
