"""What is noticed of a trigger beside what it does: events that jail/watch/events.py counts among
its own.
"""

from dataclasses import dataclass
from enum import StrEnum


class Remark:
    """What is noticed of a trigger: the base of the kinds below."""


class Notice(StrEnum):
    """What the workers in the jail tell, and of the hook what no kernel sees, by the words of
    jail/inside/.
    """

    ENDED = "ended"  # a module, a call: `how` it ended, where not by itself
    MISSED = "missed"  # a module that its own code asked for and that is not there, or fails: `how`
    SHADOWED = "shadowed"  # a top-level module that Python does not find: `text` comes first
    PATCHED = "patched"  # a function of others whose code is the package's own now
    HOOKED = "import hook"  # `text`: well-known modules that it answers for
    GATED = "gated"  # an act behind a condition: `what` it waits for, `text` is the act
    REGISTRY = "registry"  # a value that is set in the made-up registry of Windows: `text`
    UNMET = "unmet"  # an act, `text`, behind a project that is not there, `what`
    UNRUN = "unrun"  # a module that failed: what would have come after that, and its place
    COUNTED = "jobs"  # how many jobs ended how
    UNHEARD = (
        "unheard"  # code was made in a way that keeps the hook from telling it: `what`, `text`
    )
    READS = "reads"  # more was read than the hook tells: `text`
    TRACES = "traces"  # a function of the C library, by its name: `ptrace`
    CROWDED = "crowded"  # a line of source in which code stands far to the right, behind blanks


@dataclass(frozen=True)
class Noticed(Remark):
    """What a worker tells, in an interpreter that it shares with the package: annotation."""

    kind: Notice
    what: str
    how: str = ""
    text: str = ""
    place: str | None = None


@dataclass(frozen=True)
class WriteRefused(Remark):
    """Python was to write, make or remove a file where nobody in the jail can."""

    path: str
    place: str | None
    removes: bool = False


@dataclass(frozen=True)
class Sought(Remark):
    """Files were opened that hold credentials on other machines, and are not there.

    `stores`: whose, by the names of credential_stores.py; `is_grave` where nothing but a thief
    looks there.
    """

    stores: tuple[str, ...]
    paths: tuple[str, ...]
    is_grave: bool
    place: str | None


@dataclass(frozen=True)
class Walked(Remark):
    """The folders of the home were listed, one after the other."""

    folders: tuple[str, ...]
    place: str | None


@dataclass(frozen=True)
class MachineRead(Remark):
    """Files were read that tell one machine from another, or a sandbox from a machine: `signs`."""

    signs: tuple[str, ...]
    paths: tuple[str, ...]
    place: str | None


@dataclass(frozen=True)
class CommandTaken(Remark):
    """A project installs a command by the name of a well-known program that is not its own."""

    name: str
    project: str


@dataclass(frozen=True)
class PlaceTaken(Remark):
    """A project installs a file, `path` below the prefix, that programs beside its own execute or
    obey: by which kind of them it is used.
    """

    path: str
    used_by: str
    project: str


@dataclass(frozen=True)
class OddlyNamed(Remark):
    """A project installs a file or a folder, `path` below the prefix, whose name has letters of
    other alphabets.
    """

    path: str
    project: str


@dataclass(frozen=True)
class ChannelLeft(Remark):
    """A file was made and left through which processes talk: `form`, FIFO or socket say."""

    path: str
    form: str


@dataclass(frozen=True)
class ReleaseNoted(Remark):
    """What the index says of the release that was installed: that it was yanked, say."""

    text: str


@dataclass(frozen=True)
class Slept(Remark):
    """A process asked to sleep, and was not let: the kernel witness tells it."""

    asked_sec: int
    process: str


@dataclass(frozen=True)
class LookedInto(Remark):
    """A process asked the kernel to look into another, or to be looked into: by which `call`,
    `ptrace(PTRACE_TRACEME)` say. The kernel witness tells it, and nothing came of it.
    """

    call: str
    process: str
