"""What the Python witness says: the lines of jail/inside/audit.py. Annotation, never proof."""

from collections import Counter
from collections.abc import Callable, Iterable

from jail.watch.events import Event


class PythonWitness:
    """The account that all Pythons of one jail give, by the pid that each process knows itself by.

    `tell` takes each piece of generated source (Code) as soon as it is whole; its second argument is the time, in
    seconds since 1970, or None for now. It returns whether there was room.
    """

    def __init__(self, tell: Callable[[Event, float | None], bool]) -> None:
        self.lost: Counter[str] = Counter()  # by kind: what there was no room for

    def take(self, data: bytes) -> None:
        """Some bytes of the audit FIFO. Give them before the trace of the same time: Python says what it will do."""

    def finish(self) -> None:
        """Tell the source that was cut off in the middle. Story.finish calls it."""

    def place(self, kind: str, pids: Iterable[int], subjects: Iterable[str]) -> str | None:
        """File and line where one of `pids` (0: any) says that it did `kind` to one of `subjects`."""
        return None
