"""Which command was started by which, by the process tree that the kernel tells, not by words."""

from collections.abc import Iterator, Sequence
from itertools import islice

from jail.watch.events import Exec, ProcessEnded, Seen

MAX_GENERATIONS, MAX_ABOVE = 100, 100  # of one command: ancestors, and what these were, looked at

Pid = tuple[int, int]  # a phase has numbers of its own


class Descent:
    """The commands that findings tell of, each by its number in `seen`."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.parents: dict[Pid, int] = {}
        again: set[Pid] = set()
        for entry in seen:
            if isinstance(entry.event, ProcessEnded):
                pid = id(entry.phase), entry.event.pid
                if pid in self.parents:
                    again.add(pid)
                self.parents[pid] = entry.event.ppid
        # Of a number that came again it is not known whose child is meant.
        for pid in again:
            del self.parents[pid]
        self.told: dict[Pid, list[int]] = {}
        self.above: dict[int, list[int]] = {}
        for number, entry in enumerate(seen):
            if isinstance(entry.event, Exec) and entry.findings:
                pid = id(entry.phase), entry.event.actor.pid
                self.above[number] = [*islice(self.commands_above(pid), MAX_ABOVE)]
                self.told.setdefault(pid, []).insert(0, number)

    def commands_above(self, pid: Pid) -> Iterator[int]:
        """The commands that a command comes from, the nearest first: what its process was before,
        and what its ancestors were.
        """
        phase, number = pid
        for _ in range(MAX_GENERATIONS):
            if (phase, number) not in self.parents:
                return
            yield from self.told.get((phase, number), [])
            number = self.parents[phase, number]
