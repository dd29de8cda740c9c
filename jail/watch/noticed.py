"""What is noticed of a trigger beside what it does: events that jail/watch/events.py counts among
its own.
"""

from dataclasses import dataclass
from enum import StrEnum


class Notice(StrEnum):
    """What the workers in the jail tell, and of the hook what no kernel sees, by the words of
    jail/inside/.
    """

    ENDED = "ended"  # a module, a call: `how` it ended, where not by itself
    MISSED = "missed"  # a module that its own code asked for and that is not there
    SHADOWED = "shadowed"  # a top-level module that Python does not find: `text` comes first
    PATCHED = "patched"  # a function of others whose code is the package's own now
    HOOKED = "import hook"  # `text`: well-known modules that it answers for
    GATED = "gated"  # an act behind a condition: `what` it waits for, `text` is the act
    REGISTRY = "registry"  # a value that is set in the made-up registry of Windows: `text`
    COUNTED = "jobs"  # how many jobs ended how


@dataclass(frozen=True)
class Noticed:
    """What a worker tells, in an interpreter that it shares with the package: annotation."""

    kind: Notice
    what: str
    how: str = ""
    text: str = ""
    place: str | None = None


@dataclass(frozen=True)
class Slept:
    """A process asked to sleep, and was not let: the kernel witness tells it."""

    asked_sec: int
    process: str
