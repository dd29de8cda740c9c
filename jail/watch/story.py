"""The story of one jail: what the kernel saw, with who did it and what Python should have said of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from jail.watch.events import Actor, Event, FileChanged
from jail.watch.python_witness import PythonWitness

# Tells an event and when it was, in seconds since 1970, or None for now: whether there was room for it.
Tell = Callable[[Event, float | None], bool]


class Bait(Protocol):
    """What the story needs of the decoys."""

    @property
    def paths(self) -> Sequence[str]:
        """The decoy files, as the jail sees them."""

    def search(self, kind: str, where: str, data: bytes, actor: Actor) -> bool:
        """Tell each decoy whose value is in `data`, the first time (BaitLeaked with `kind where`): whether one is.

        `kind` ("command", "packet to") has a bound of its own on the bytes that are searched.
        """


class Story:
    """Reads the trace of one jail and tells its events, each with the process and the place that it came from.

    Args:
        launch_kind: the first word for launch.py; "pip" is the only one that makes a difference.
        index: whether the jail has the index on its loopback.
        account: what Python says; feed it before the trace of the same time.
        bait: where values of decoys are searched for.
        tell: takes the events.
        program_of: for a process, by the pid of the trace, that has just started a program: which program and
            arguments the kernel started, as the call should have named them; None where that can't be known.
    """

    def __init__(
        self,
        launch_kind: str,
        index: bool,
        account: PythonWitness,
        bait: Bait,
        tell: Tell,
        program_of: Callable[[int], tuple[str, tuple[str, ...]] | None] | None = None,
    ) -> None:
        self.lost: Counter[str] = Counter()  # by kind, for Record.lose; the account's are among them after finish()

    @property
    def started(self) -> bool:
        """Whether the kernel saw the launcher start."""
        return False

    @property
    def main_exit(self) -> tuple[int | None, str | None] | None:
        """How the launcher's child, which runs the phase, ended: (exit code, None) or (None, signal's name).

        None while it runs, and where the trace ends before it does.
        """
        return None

    @property
    def python_witness(self) -> bool:
        """Whether the hook spoke in the launcher's child; where there is no trace, in any process."""
        return False

    def take_trace(self, data: bytes) -> None:
        """Some bytes of strace's output."""

    def file_changed(self, event: FileChanged) -> None:
        """Tell a change of a file, once, with the place where Python says it opened it."""

    def opened_at(self, path: str) -> str | None:
        """Where Python says that it opened `path`, as the jail names it: for BaitRead and the like."""
        return None

    def finish(self, questions: dict[str, float]) -> None:
        """Tell what is known only at the end: names asked for, processes, source cut off, a false Python witness.

        Args:
            questions: each name that the resolver was asked for, and when first, in seconds since 1970.
        """
