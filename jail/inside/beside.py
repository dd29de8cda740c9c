"""The launcher's children that only read what was installed, where no package runs: odd source may
end the child that reads, and so may a package in the same jail.

Whoever reaps a process says so here: how a child ended is known by its exit status alone, which
nobody in the jail can forge.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

statuses: dict[int, int | None] = {}  # of those that were begun; None while nobody has reaped it


def begin(work: Callable[[], None]) -> int:
    """Do `work` in a child, and return its process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    statuses[child] = None
    return child


def note(pid: int, status: int) -> None:
    """A child was reaped, one of these maybe. A number that comes again is another's."""
    if pid in statuses and statuses[pid] is None:
        statuses[pid] = status


def came_to_end(child: int) -> bool:
    """Wait for it: whether its work came to its end."""
    if statuses[child] is None:
        note(*os.waitpid(child, 0))
    return statuses[child] == 0


def in_child(work: Callable[[], None]) -> bool:
    """Do `work` in a child, and wait for it: whether it came to its end."""
    return came_to_end(begin(work))
