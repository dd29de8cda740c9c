"""The process tree of one jail, by the kernel's account: whose doing each call of the trace is.

strace tells a child's first calls maybe before the call that made it has returned, and a thread's
calls under a number of its own. Here each call gets the process that it counts for.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from jail.watch.calls import Call, End, Execute, ExitAll, Fork, Reach
from jail.watch.events import Exec

# Of the calls of a process whose parent is not known yet; each counts CALL_BYTES at least.
MAX_WAITING_BYTES = 1 << 20
CALL_BYTES = 4096
# Of processes that ended and had done nothing that is an event: a flood of them must not hide the
# others.
MAX_QUIET = 1000
MAX_TITLE_CHARS = 300


@dataclass(eq=False, slots=True)
class Process:
    """A process of the jail. `pid` is strace's number for it, `jail_pid` the number that it
    knows itself by.
    """

    pid: int
    number: int  # in order of birth: pids come again
    parent: "Process | None" = None
    jail_pid: int = 0
    program: str = ""
    argv: tuple[str, ...] = ()
    own: bool = False  # the launcher, or pip: its doing is not the package's
    fresh: bool = True  # a copy of its parent, no program of its own yet
    exit_code: int | None = None
    signal: str | None = None
    acted: bool = False  # something that it did is an event
    failed: "Execute | None" = None  # a program that it tried to become and could not, yet
    unsaid: Exec | None = None  # the Python that it became, if nobody said so and it has not spoken
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)  # by target and error
    contradictions: Counter[str] = field(default_factory=Counter)  # of the trace, by what it says
    waiting: list[Call] = field(default_factory=list)  # what it did before its parent was known
    waiting_bytes: int = 0

    @property
    def title(self) -> str:
        """Its command line."""
        return " ".join(self.argv)[:MAX_TITLE_CHARS]

    @property
    def family(self) -> tuple[int, ...]:
        """Who may have asked for what it does, by jail_pid: itself or, while it is a copy, its
        parent.
        """
        if self.fresh and self.parent:
            return (self.jail_pid, self.parent.jail_pid)
        return (self.jail_pid,)


# Stands for who is not known.
STRANGER = Process(0, 0)


class ProcessTree:
    """Give `assign` each call of the trace, and take what it yields before the next.

    What comes before the first start of `launcher` is the sandbox's own, and nobody's.
    """

    def __init__(self, launcher: bytes) -> None:
        self.launcher_file = launcher
        self.launcher: Process | None = None
        self.main: Process | None = None  # the launcher's child that runs the phase
        self.lost: Counter[str] = Counter()
        self.births = 0
        self.quiet = 0
        self.outside: set[int] = set()
        self.alive: dict[int, Process] = {}
        self.ended: list[Process] = []
        self.leaders: dict[int, int] = {}  # of threads
        self.jail_pids: set[int] = set()
        self.unnumbered = 0  # processes whose number in the jail is not known
        self.left_at_work: list[Process] = []  # when the launcher ended

    def assign(self, call: Call) -> Iterator[tuple[Process, Call]]:
        """The calls that can now be said to be somebody's: this, those that waited for it, or
        none.
        """
        if not self.launcher:
            self.wait_for_launcher(call)
            return
        if call.pid in self.outside:
            if isinstance(call, End):  # its number may come again
                self.outside.remove(call.pid)
            return
        calls = deque([call])
        while calls:
            call = calls.popleft()
            pid = self.leaders.get(call.pid, call.pid)
            if pid != call.pid and isinstance(call, End):
                del self.leaders[call.pid]
                continue
            process = self.alive.get(pid) or self.born(pid)
            if isinstance(call, ExitAll):
                self.note_exit(process)
            elif not process.parent:
                calls.extendleft(reversed(self.keep_waiting(process, call)))
            elif isinstance(call, Fork):
                calls.extendleft(reversed(self.fork(process, call)))
            else:
                yield process, call
                if isinstance(call, End):
                    self.end(process, call)

    def wait_for_launcher(self, call: Call) -> None:
        self.outside.add(call.pid)
        if isinstance(call, End):
            self.outside.discard(call.pid)
        if isinstance(call, Execute) and call.file == self.launcher_file and call.error is None:
            self.outside.discard(call.pid)
            self.launcher = self.born(call.pid)
            self.launcher.argv = ("launch.py",)
            self.launcher.own, self.launcher.fresh = True, False
            self.settle(self.launcher, STRANGER, 1)

    def born(self, pid: int) -> Process:
        self.births += 1
        process = Process(pid, self.births)
        self.alive[pid] = process
        return process

    def settle(self, process: Process, parent: Process, jail_pid: int) -> list[Call]:
        """Now that its parent is known, what it did can be told."""
        process.parent, process.jail_pid = parent, jail_pid
        self.jail_pids.add(jail_pid)
        self.unnumbered += jail_pid == 0
        waiting, process.waiting = process.waiting, []
        return waiting

    def keep_waiting(self, process: Process, call: Call) -> list[Call]:
        process.waiting.append(call)
        process.waiting_bytes += CALL_BYTES + weight_bytes(call)
        if process.waiting_bytes > MAX_WAITING_BYTES:  # the call that made it never returns
            return self.settle(process, STRANGER, 0)
        return []

    def fork(self, parent: Process, call: Fork) -> list[Call]:
        child = self.alive.get(call.child) or self.born(call.child)
        if child.parent:
            return []
        if call.is_thread:
            del self.alive[call.child]
            self.leaders[call.child] = parent.pid
            return child.waiting
        child.program, child.argv, child.own = parent.program, parent.argv, parent.own
        if parent is self.launcher and not self.main:
            self.main = child
        return self.settle(child, parent, call.jail_pid)

    def note_exit(self, process: Process) -> None:
        """When the launcher ends, it has lingered: nobody sees what the others still wait to do."""
        if process is self.launcher:
            self.left_at_work = [other for other in self.alive.values() if not other.own]

    def end(self, process: Process, end: End) -> None:
        process.exit_code, process.signal = end.exit_code, end.signal
        self.alive.pop(process.pid, None)
        if not process.acted and process not in (self.launcher, self.main):
            self.quiet += 1
            if self.quiet > MAX_QUIET:
                self.lost["process"] += 1
                return
        self.ended.append(process)

    def settle_all(self) -> Iterator[tuple[Process, Call]]:
        """At the end of the trace: what was done by those whose parent never got to be known."""
        for process in [*self.alive.values()]:
            if not process.parent:
                for call in self.settle(process, STRANGER, 0):
                    yield from self.assign(call)

    def everybody(self) -> list[Process]:
        """In order of birth, so that parents come first."""
        return sorted([*self.ended, *self.alive.values()], key=lambda process: process.number)


def weight_bytes(call: Call) -> int:
    if isinstance(call, Execute):
        return sum(map(len, call.argv))
    if isinstance(call, Reach):
        return sum(map(len, call.payloads))
    return 0
