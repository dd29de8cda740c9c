"""What was seen: a dataclass for each kind of event, and that no flood of one hides another."""

# The rooms of watch make events; jail/report/ judges and draws them. Texts in them are the
# package's own: bounded by who made the event, and made safe to show only by jail/report/text.py.

import re
from dataclasses import dataclass, field
from enum import StrEnum

from jail.watch.downloads import Downloaded as Downloaded
from jail.watch.noticed import Remark

MAX_TEXT_CHARS = 4096  # of any one text in an event, output and code apart
# Of one kind and severity in one phase. What is graver has room of its own, and so has the first
# of each subject.
MAX_EVENTS = 2000
MAX_CODES = 500  # pieces of generated source, each up to MAX_CODE_BYTES
MAX_CODE_BYTES = 64 << 10


# This machine: its loopback and its own sockets. "127.0.0.1:80", "[::1]:80", "unix:/tmp/socket".
NEAR = re.compile(
    r"(?:127\.[0-9.]+|\[::1\]|\[::ffff:127\.[0-9.]+\]):[0-9]+|unix:.*", re.ASCII | re.DOTALL
)


# The machine's own, which nobody in the jail can write to.
SYSTEM_FOLDERS = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/")


def is_near(target: str) -> bool:
    """Whether the target of a Connection is this machine. Not for names: anybody's name can look
    near.
    """
    return NEAR.fullmatch(target) is not None


def plain_path(path: str) -> str:
    """`path` without what makes it look like another: "//tmp/./x" and "/usr/../tmp/x" are "/tmp/x".

    Where a package may have made a link, "/tmp/link/../x" can be anywhere: then ".." stays.
    """
    plain: list[str] = []
    for part in path.split("/"):
        if part == ".." and path.startswith("/") and not plain:
            continue
        if part == ".." and plain and f"/{plain[0]}/".startswith(SYSTEM_FOLDERS):
            plain.pop()
        elif part not in ("", "."):
            plain.append(part)
    start = "/" if path.startswith("/") else ""
    return start + "/".join(plain)


def printable(data: bytes) -> str:
    """Bytes of the jail as ASCII text in which no control character can act, whoever prints it."""
    return data.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


class PhaseName(StrEnum):
    INSTALL = "install"
    START = "start"
    IMPORT = "import"
    CALL = "call"
    EXECUTE = "execute"


class Outcome(StrEnum):
    """How a phase ended; of a run, also INTERRUPTED."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    DISK = "disk"
    DOWNLOAD_CAP = "download_cap"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class Severity(StrEnum):
    HIGH = "high"
    MEDIUM = "medium"
    INFO = "info"


class Rule(StrEnum):
    """The rules of findings; the names are a contract."""

    NETWORK_ATTEMPT = "network.attempt"
    SECRET_READ = "secret.read"  # noqa: S105 - the name of a rule
    SECRET_SENT = "secret.sent"  # noqa: S105 - the name of a rule
    PROCESS_SPAWN = "process.spawn"
    CODE_DYNAMIC = "code.dynamic"
    CODE_REMOTE = "code.remote"
    CODE_GATED = "code.gated"
    PERSISTENCE_WRITE = "persistence.write"
    PTH_CODE = "pth.code"
    WITNESS_HIDDEN = "witness.hidden"
    EVIDENCE_TAMPER = "evidence.tamper"
    LIMIT_HIT = "limit.hit"


class Net(StrEnum):
    DNS = "dns"
    TCP = "tcp"
    UDP = "udp"
    OTHER = "other"


class Change(StrEnum):
    CREATED = "created"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True)
class Actor:
    """Who did it: the process (its command line), the file and line that Python tells, if it does.

    `own`: the launcher's or pip's doing, not the package's. `hidden`: a Python with the hook did
    it unsaid; `native` is the compiled code that may have, then it is not hidden."""

    pid: int = 0
    process: str = ""
    place: str | None = None
    own: bool = False
    hidden: bool = False
    native: str = ""

    @property
    def witness(self) -> list[str]:
        return ["kernel", "python"] if self.place else ["kernel"]


NOBODY = Actor()


@dataclass(frozen=True)
class Exec:
    """A program was started or, with `error`, could not be.

    `pool_helper`: it has the exact shape of a helper that the standard library's multiprocessing
    starts.
    """

    program: str
    argv: tuple[str, ...]
    error: str | None
    actor: Actor
    pool_helper: bool = False


@dataclass(frozen=True)
class Connection:
    """A socket was connected, sent from or, if it `listens`, bound. `target` is host:port,
    [host]:port or unix:path. `is_inside`: the jail's own processes listen there.
    """

    net: Net
    target: str
    listens: bool
    error: str | None
    actor: Actor
    is_inside: bool = False


@dataclass(frozen=True)
class NameAsked:
    """A question to the resolver, for these kinds of records; `answered`: there is such a name."""

    name: str
    actor: Actor
    kinds: tuple[str, ...] = ()
    answered: bool = False


@dataclass(frozen=True)
class FileChanged:
    """A change of the scratch beyond what the installed distributions list as theirs; `path` as the
    jail sees it.

    `other_paths`: further names under which the same file can be reached, by linked folders.
    `shadows`: the module of another distribution that Python no longer finds for it.
    `was_there`: whether it lay in the home before the package came.
    """

    path: str
    change: Change
    size_bytes: int | None
    place: str | None
    actor: Actor = NOBODY
    other_paths: tuple[str, ...] = ()
    shadows: str | None = None
    sha256: str | None = None
    was_there: bool = False


@dataclass(frozen=True)
class StartupCode:
    """A file that every interpreter executes at its start, with the line that is executed."""

    path: str
    line: str


@dataclass(frozen=True)
class Code:
    """Source that was made at run time and executed; `decoded` from what nobody can read."""

    sha256: str
    size_bytes: int
    place: str | None
    decoded: bool
    text: str
    how: str = ""  # of decoded code, where no decoder's name says it


@dataclass(frozen=True)
class BaitRead:
    """A decoy file was read, or touched in a way that could hide it.

    `reader` is the project whose code did it, as far as Python says.
    """

    path: str
    place: str | None
    reader: str | None = None


@dataclass(frozen=True)
class BaitLeaked:
    """The value of decoy `name` turned up: `where` says in what."""

    name: str
    where: str
    actor: Actor = NOBODY


@dataclass(frozen=True)
class WitnessTampered:
    """The Python witness was made to say what can't be true."""

    reason: str


@dataclass(frozen=True)
class TraceContradicted:
    """A call came to a result that it can't have: the trace was shown another. `what`: both."""

    what: str
    actor: Actor


@dataclass(frozen=True)
class TraceCut:
    """The line of a call (`connect`, say) was too long to be kept whole: what was in its middle is
    not known.
    """

    call: str
    actor: Actor


@dataclass(frozen=True)
class FailedOften:
    """A process did the same in vain hundreds of times: `what` is the target or the program."""

    what: str
    error: str
    count: int
    actor: Actor


@dataclass(frozen=True)
class StartsUnchecked:
    """Programs that had gone on before they could be looked at: what they were is known by the
    trace alone. `program` is the first of them.
    """

    count: int
    program: str


@dataclass(frozen=True)
class LeftAtWork:
    """Processes still at work when the phase ended; `process` is the command line of the first."""

    count: int
    process: str


@dataclass(frozen=True)
class IndexRefused:
    """A request to the index that was not answered with what it asked for."""

    target: str
    reason: str


@dataclass(frozen=True)
class DependencyDenied:
    """A project on the denylist was asked for and not given out."""

    project: str


@dataclass(frozen=True)
class ProcessEnded:
    """A process of the jail, told when its phase is over. `acted`: it did what is an event."""

    pid: int
    ppid: int
    argv: tuple[str, ...]
    exit_code: int | None
    signal: str | None
    own: bool
    acted: bool


class WorldEvent:
    """What the decoy internet saw or served: the kinds are in world_events.py."""


Event = (
    Exec
    | Connection
    | NameAsked
    | FileChanged
    | StartupCode
    | Code
    | BaitRead
    | BaitLeaked
    | WitnessTampered
    | TraceContradicted
    | TraceCut
    | FailedOften
    | StartsUnchecked
    | LeftAtWork
    | Downloaded
    | IndexRefused
    | DependencyDenied
    | ProcessEnded
    | WorldEvent
    | Remark
)


@dataclass
class Printed:
    """What was written to stdout or stderr: the start of it, and how much it was."""

    text: str = ""
    size_bytes: int = 0
    truncated: bool = False


@dataclass
class Phase:
    """One jail: what it ran (`trigger`), how it ended, what it printed."""

    name: PhaseName
    trigger: str | None = None
    outcome: Outcome = Outcome.ERROR
    exit_code: int | None = None
    signal: str | None = None
    duration_sec: float = 0.0
    stdout: Printed = field(default_factory=Printed)
    stderr: Printed = field(default_factory=Printed)
    reason: str = ""  # ours, of what went wrong in the sandbox
    python_witness: bool = False  # whether the hook spoke in the phase's own process
    shortfall: str = ""  # what of it there was no time for

    @property
    def title(self) -> str:
        return f"{self.name} {self.trigger}" if self.trigger else str(self.name)


class Omission(StrEnum):
    """Why something that a mode runs was not run."""

    NOTHING_THERE = "nothing there"  # the distribution has none: nothing was missed
    LEFT_OUT = "left out"  # a bound, or what came before did not succeed
    OUT_OF_TIME = "out of time"  # RUN_BUDGET_SEC
    NOT_FOUND = "not found"  # what the request names, or all that its mode is for: the run failed


@dataclass(frozen=True)
class NotRun:
    """A trigger, or with None all of a phase, that was not run; `reason` for people."""

    phase: PhaseName
    trigger: str | None
    why: Omission
    reason: str


@dataclass(frozen=True)
class Finding:
    severity: Severity
    rule: Rule
    title: str
    place: str | None = None
    process: str | None = None
    technique: str = ""  # in MITRE ATT&CK, where it is not the rule's


@dataclass(frozen=True)
class Seen:
    """An event, its phase, when it was (seconds since 1970), and what the rules say of it."""

    event: Event
    phase: Phase
    at_sec: float
    findings: tuple[Finding, ...]
