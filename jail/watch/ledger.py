"""The ledger of one jail: tells each act once, with who did it and whether Python was silent."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from jail.watch.calls import UNFINISHED, LookInto, Sleep
from jail.watch.events import (
    Actor,
    Event,
    FailedOften,
    FileChanged,
    TraceContradicted,
    TraceCut,
)
from jail.watch.noticed import LookedInto, Slept
from jail.watch.processes import Process
from jail.watch.programs import is_jail_python
from jail.watch.python_witness import PythonWitness, Said

# Tells an event and when it was, in seconds since 1970, or None for now: whether there was room.
Tell = Callable[[Event, float | None], bool]

MANY_FAILURES = 200  # of the same act of one process
# Different acts of one process that are counted; when they are more, what happened once gives way.
MAX_FAILURES, MAX_FAILURE_CHARS = 200, 300
MAX_NATIVES_TOLD_OF = 2  # names of compiled libraries, of one act
# No failures: it is under way, or will be tried again.
UNDER_WAY = {"EINPROGRESS", "EAGAIN", "EALREADY", "EINTR", UNFINISHED}


class Bait(Protocol):
    """What is needed of the decoys."""

    def search(self, kind: str, where: str, data: bytes, actor: Actor) -> bool:
        """Tell each decoy whose value is in `data`, the first time: whether one is.

        BaitLeaked then says `kind where`. `kind` ("command", "packet to") has a bound of its own on
        the bytes that are searched.
        """


class Ledger:
    """`account` is what Python says; `tell` takes the events."""

    def __init__(self, account: PythonWitness, tell: Tell) -> None:
        self.account, self.tell = account, tell
        self.told: set[tuple[object, ...]] = set()

    def actor(self, process: Process, place: str | None = None, *, expected: bool = False) -> Actor:
        """Who did it.

        Where Python was `expected` to say something and did not (no `place`), it is hidden: if the
        process is a Python with the hook, or the hook spoke in it before. Unless it has loaded
        compiled code that may have done it, and does not go around the hook itself.
        """
        speaks = is_jail_python(process.program, self.account.base)
        speaks |= not self.account.started.isdisjoint(process.family)
        is_silent = expected and speaks and place is None and not process.own
        native = self.native_code(process) if is_silent else ""
        is_hidden = is_silent and not native
        return Actor(process.pid, process.title, place, process.own, is_hidden, native)

    def native_code(self, process: Process) -> str:
        """The compiled code that a process has loaded, or had when it was copied, in words."""
        holder: Process | None = process
        loaded: list[str] = []
        while holder:
            if holder.jail_pid in self.account.around:
                return ""
            loaded += self.account.natives.get(holder.jail_pid, [])
            holder = holder.parent if holder.fresh else None
        names = [name.rpartition("/")[2] for name in loaded]
        # What was loaded last is likelier to be the package's own than what it needs.
        return ", ".join(names[: -MAX_NATIVES_TOLD_OF - 1 : -1])

    def has(self, key: tuple[object, ...]) -> bool:
        """Whether an event was told under this key: its type, the process's number, its target."""
        return key in self.told

    def tell_once(
        self, key: tuple[object, ...], process: Process, event: Event, at_sec: float | None = None
    ) -> None:
        """Tell an event of a process, if none was told under this key."""
        if key not in self.told and self.tell(event, at_sec):
            process.acted = True
            self.told.add(key)

    def tell_contradiction(self, process: Process, what: str) -> None:
        """Tell that the trace was shown what was not done: at once, and how often when its process
        ends.
        """
        key = what[:MAX_FAILURE_CHARS]
        if key in process.contradictions or len(process.contradictions) < MAX_FAILURES:
            process.contradictions[key] += 1
        event = TraceContradicted(what, self.actor(process))
        self.tell_once((TraceContradicted, process.number, what), process, event)

    def tell_cut(self, process: Process, call: str) -> None:
        """Tell that a line of the trace was too long to be kept whole."""
        event = TraceCut(call, self.actor(process))
        self.tell_once((TraceCut, process.number, call), process, event)

    def count_failure(self, process: Process, what: str, error: str | None) -> None:
        """Count what came to nothing: who looks for the moment between strace's look and the
        kernel's fails very often.
        """
        if not error or error in UNDER_WAY:
            return
        key = (what[:MAX_FAILURE_CHARS], error)
        if key not in process.failures and len(process.failures) >= MAX_FAILURES:
            rare = [other for other, count in process.failures.items() if count == 1]
            for other in rare:
                del process.failures[other]
        if key in process.failures or len(process.failures) < MAX_FAILURES:
            process.failures[key] += 1

    def tell_failures(self, process: Process) -> None:
        """At a process's end: what it did in vain hundreds of times, and how often it showed the
        trace what it did not do.
        """
        for what, count in process.contradictions.items():
            if count > 1:
                event = TraceContradicted(f"{what}, {count} times", self.actor(process))
                self.tell_once((TraceContradicted, process.number, what, count), process, event)
        process.contradictions.clear()
        for (what, error), count in process.failures.items():
            if count >= MANY_FAILURES:
                failed = FailedOften(what, error, count, self.actor(process))
                self.tell_once((FailedOften, process.number, what, error), process, failed)
        process.failures.clear()

    def tell_remark(self, process: Process, call: Sleep | LookInto) -> None:
        """Tell what a process only asked for: a long sleep, a look into another process."""
        if isinstance(call, Sleep):
            slept = Slept(call.asked_sec, process.title)
            self.tell_once((Slept, process.number), process, slept)
        # Who reads its own memory in this way wants to know whether an address is good.
        elif call.call.startswith("ptrace") or call.jail_pid != process.jail_pid:
            looked = LookedInto(call.call, process.title)
            self.tell_once((LookedInto, process.number, call.call), process, looked)

    def tell_file(self, event: FileChanged) -> None:
        """Tell a change of a file, with the place where Python says it opened it."""
        key = (FileChanged, event.path, event.change)
        if key in self.told:
            return
        place = event.place or self.account.place(Said.OPEN, [0], [event.path])
        was_there = event.path in self.account.attempts.lived_in
        if self.tell(replace(event, place=place, was_there=was_there), None):
            self.told.add(key)
