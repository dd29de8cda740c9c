"""What the kernel witness tells of: a dataclass for each kind of call. trace.py makes them."""

from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """What is done with an address."""

    CONNECT = "connect"
    BIND = "bind"
    SEND = "send"


class Family(StrEnum):
    """Of a socket or an address."""

    INET = "inet"
    UNIX = "unix"
    UNSPEC = "unspec"
    OTHER = "other"


@dataclass(slots=True)
class Fork:
    """A process or thread was made: its number for strace, and its number in the jail."""

    pid: int
    child: int
    jail_pid: int
    is_thread: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """What a process was found to be when a program had been started in it.

    `program` is its file, b"" where that can't be seen. `is_as_told`: it is what the call names.
    `in_time`: it had not done anything yet.
    """

    program: bytes
    argv: tuple[bytes, ...]
    is_as_told: bool
    in_time: bool


@dataclass(slots=True)
class Execute:
    """A program was started, or `error`.

    Of a file that has no name, as execveat can start it, `file` is empty, and `folder` is what it
    was opened as. `is_unread`: strace could not read all that the kernel read. `is_cut`: the line
    was too long. `is_abridged`: strace does not show all words. `held_until_sec`, since 1970: for
    how long strace keeps the new program from doing anything. `started`: what was found then.
    """

    pid: int
    folder: bytes
    file: bytes
    argv: tuple[bytes, ...]
    error: str | None
    is_unread: bool = False
    is_cut: bool = False
    is_abridged: bool = False
    held_until_sec: float = 0.0
    started: Observed | None = None


@dataclass(slots=True)
class FirstCallUnseen:
    """A thread became a program, whose first call strace took for the result of that: its number in
    the kernel.
    """

    pid: int
    number: int


@dataclass(slots=True)
class Socket:
    """A socket was made; `inode` names it in later calls."""

    pid: int
    inode: bytes
    family: Family
    is_datagram: bool


@dataclass(slots=True)
class Address:
    """`target` is host:port, [host]:port or unix:path, and "" of what is no place to reach."""

    family: Family
    target: str = ""
    port: str = ""


@dataclass(slots=True)
class Reach:
    """A socket was connected, bound or sent from. `addresses` are those that the call names,
    `payloads` what it sent.

    `is_short`: fewer messages were sent than were given. `is_unread`, `is_cut`: see Execute.
    `is_unshown`: it has not returned, and only then strace would have shown its addresses.
    """

    pid: int
    act: Act
    inode: bytes
    addresses: tuple[Address, ...]
    payloads: tuple[bytes, ...]
    error: str | None
    is_short: bool = False
    is_unread: bool = False
    is_cut: bool = False
    is_unshown: bool = False


@dataclass(slots=True)
class Delete:
    """A file was deleted: `name`, in `folder` if the name is relative."""

    pid: int
    folder: bytes
    name: bytes


@dataclass(slots=True)
class ExitAll:
    """A process is about to end with all its threads."""

    pid: int


@dataclass(slots=True)
class End:
    """A process or thread is gone. Both are None for a thread that became a program: it goes on as
    its process.
    """

    pid: int
    exit_code: int | None
    signal: str | None


@dataclass(slots=True)
class Sleep:
    """A process asked to sleep for long, and the kernel witness let it go on at once."""

    pid: int
    asked_sec: int


@dataclass(slots=True)
class LookInto:
    """A process asked to look into another, or to be looked into. `call` says by what;
    `jail_pid` is the number of the other in the jail, 0 where it names none.
    """

    pid: int
    call: str
    jail_pid: int


Call = Fork | Execute | FirstCallUnseen | Socket | Reach | Delete | ExitAll | Sleep | LookInto | End

# How the error of a call is written that had not returned when its process ended.
UNFINISHED = "unfinished"
