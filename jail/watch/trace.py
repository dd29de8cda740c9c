"""The kernel witness: reads what strace writes of one jail, and makes typed calls of it. It judges
nothing.
"""

# strace runs as `strace -fqyTttt --seccomp-bpf --decode-pids=pidns -xxs4096`, and holds each
# program that was started (`-einject=/^execve:delay_exit=5000`): a line for each call, with every
# string in hexadecimal, so that nothing of the jail can look like a part of a line. What is hostile
# is the amount: long lines, many lines, calls that never come to an end. All are bounded, and what
# was cut is marked.

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from jail.watch.calls import (
    UNFINISHED,
    Act,
    Address,
    Call,
    Delete,
    End,
    Execute,
    ExitAll,
    Family,
    FirstCallUnseen,
    Fork,
    LookInto,
    Reach,
    Sleep,
    Socket,
)
from jail.watch.events import printable
from jail.watch.looks import look_asked
from jail.watch.sleeps import skipped_sec
from jail.watch.unread import reach_is_unread

MAX_TRACE_LINE_BYTES = 1 << 20
# Kept of a longer line: its start and, since there stand address and result, its end.
HEAD_BYTES, TAIL_BYTES = 64 << 10, 4 << 10
# Of the lines of all calls that have not returned; beyond it only their heads are kept.
MAX_UNFINISHED_BYTES = 64 << 20


# How long strace holds a program that was started, as keeper has it say.
HELD_SEC = 0.005

# 11520 1795658308.156638 connect(8<...>, {sa_family=AF_INET, ...}, 16) = -1 ECONNREFUSED (Conn...)
# 11520 1795658308.159859 <... vfork resumed>)     = 43 /* 11562 in strace's PID NS */ <0.001480>
# 11564 1795658308.168123 +++ exited with 0 +++
# 11571 1795658308.168123 +++ killed by SIGSEGV (core dumped) +++
# 11568 1795658308.168123 +++ superseded by execve in pid 11569 +++
LINE = re.compile(
    rb"(\d{1,10}) +(?:(\d+\.\d+) )?"
    rb"(?:(\w+)\(|<\.\.\. (\w+) resumed>|\+\+\+ (exited with|killed by) (\w+))"
)
# 11520 vfork( <unfinished ...>
# 11569 execve("\x2f\x62...", ["\x73\x68", ...], 0x7fff67ca10b0 <pid changed to 11568 ...>
UNFINISHED_END = re.compile(rb"<(?:unfinished|pid changed to (\d+)) \.\.\.>")
# = 0
# = -1 ENOENT (No such file or directory)
# = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
# = -1 (errno 18446744073709551385)
# = 43 /* 11562 in strace's PID NS */
# = 8<\x73\x6f\x63\x6b\x65\x74\x3a\x5b\x31\x35\x39\x39\x39\x5d>
# and after that how long the call took: = 0 (DELAYED) <0.001047>
RESULT = re.compile(
    rb"= (-?\d+|\?)(?:<([\\x0-9a-f]*)>\S*)?"
    rb"(?: (E\w+) \(.*\)| \(errno (\d+)\)| /\* (\d+) in strace's PID NS \*/)?"
    rb"(?: \((?:DELAYED|INJECTED)\))?(?: <(\d+\.\d+)>)?"
)
# "\x74\x72\x75\x65", and "\x74\x72\x75\x65"... where it is longer than strace shows
HEX = rb'"([\\x0-9a-f]*)"'
STRING = re.compile(HEX)
# execve("\x2f\x62\x69\x6e\x2f\x73\x68", ["\x73\x68", "\x2d\x63"], 0x7fff67ca10b0 /* 38 vars */)
# execveat(7<\x2f\x6d\x65\x6d\x66\x64\x3a\x78>(deleted), "", ["\x6d"], 0x7f539d6c4a60 /* 0 vars */,
#     AT_EMPTY_PATH)
# execve(0x1000, NULL, NULL): what strace can't read is shown as its address
# execve("\x2f\x62", [0x1000, "\x79", ...], 0x7fff67ca10b0 /* 38 vars */)
EXECUTE = re.compile(
    rb'(?:[^",<]*(?:<([\\x0-9a-f]*)>)?\S*, )??'
    + rb"(?:"
    + HEX
    + rb"(?:\.\.\.)?|NULL|(0x[0-9a-f]+)), (\[[^]]*(?:\]|$)|NULL|0x[0-9a-f]+|)"
)
# {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("\x32\x30...")}
# {sa_family=AF_INET6, sin6_port=htons(1), sin6_flowinfo=htonl(0),
#     inet_pton(AF_INET6, "\x3a\x3a\x31", &sin6_addr), sin6_scope_id=0}
# {sa_family=AF_UNIX, sun_path="\x2f\x76\x61\x72..."}, with @ before the string if it is abstract
# {sa_family=AF_UNSPEC, sa_data="\x00\x35\xc0\x00\x02\x09..."}
# {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}
ADDRESS = re.compile(
    rb"sa_family=(AF_\w+|0x\w+)"
    rb'(?:, sin6?_port=htons\((\d+)\)[^"]{1,80}'
    + HEX
    + rb"|, sun_path=(@?)"
    + HEX
    + rb"|, sa_data="
    + HEX
    + rb")?"
)
# 4<\x73\x6f\x63\x6b\x65\x74\x3a\x5b\x31\x35\x5d>: the first argument, and what it stands for
DESCRIPTOR = re.compile(rb"[^<,]*<([\\x0-9a-f]*)>")
# sendto(4<...>, "\x61\x62\x01", 30, 0, ...)
# sendmsg(4<...>, {..., msg_iov=[{iov_base="\x61\x62\x63", iov_len=3}], ...
BEFORE_PAYLOAD, BEFORE_ADDRESS = (b", ", b"iov_base="), b"AF_INET6, "
MAX_MESSAGES = 1024  # the kernel's own bound of one sendmmsg


def unescaped(string: bytes) -> bytes:
    r"""The bytes of `\x73\x68`; none of a string in which the line was cut."""
    try:
        return bytes.fromhex(string.replace(b"\\x", b"").decode())
    except ValueError:
        return b""


FAMILIES = {
    b"AF_INET": Family.INET,
    b"AF_INET6": Family.INET,
    b"AF_UNIX": Family.UNIX,
    b"AF_UNSPEC": Family.UNSPEC,
}


@dataclass(slots=True)
class Unfinished:
    """The start of a call that has not returned.

    `is_renumbered`: by a thread that became a program. `at_sec`: when it was made, since 1970.
    """

    name: bytes = b""
    arguments: bytes = b""
    is_cut: bool = False
    is_renumbered: bool = False
    at_sec: float = 0.0


class TraceReader:
    """Takes strace's bytes as they come, and gives the calls that are whole."""

    def __init__(self) -> None:
        self.rest = b""
        self.is_rest_cut = False
        self.unfinished: dict[int, Unfinished] = {}
        self.unfinished_bytes = 0

    def take(self, data: bytes) -> list[Call]:
        """The calls that some bytes of the trace bring to an end, in order."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        calls: list[Call] = []
        for line in lines:
            is_cut, self.is_rest_cut = self.is_rest_cut, False
            match = LINE.match(line)
            if match:
                calls += self.read(match, line[match.end() :], is_cut)
        if len(self.rest) > MAX_TRACE_LINE_BYTES:
            self.rest = self.rest[:HEAD_BYTES] + self.rest[-TAIL_BYTES:]
            self.is_rest_cut = True
        return calls

    def finish(self) -> list[Call]:
        """The calls that had not returned when the trace ended."""
        calls: list[Call] = []
        for pid in [*self.unfinished]:
            calls += self.give_up(pid)
        return calls

    def read(self, match: re.Match[bytes], rest: bytes, is_cut: bool) -> list[Call]:
        number, made, name, resumed, how, what = match.groups()
        pid, at_sec = int(number), float(made or 0)
        if name:
            begun = Unfinished(name, b"", is_cut, at_sec=at_sec)
            if rest.endswith(b" ...>"):
                return self.begin(pid, begun, rest)
            return parse(pid, begun, rest)
        if resumed:
            begun = self.pop(pid)
            begun.name = resumed
            begun.is_cut |= is_cut
            return parse(pid, begun, rest)
        calls = self.give_up(pid)
        if how == b"killed by":
            calls.append(End(pid, None, what.decode()))
        else:
            calls.append(End(pid, int(what), None))
        return calls

    def begin(self, pid: int, begun: Unfinished, rest: bytes) -> list[Call]:
        at = rest.rfind(b"<")
        end = UNFINISHED_END.fullmatch(rest, at)
        if not end:
            return []
        calls: list[Call] = []
        if end[1]:
            calls.append(End(pid, None, None))
            pid = int(end[1])
        calls += self.give_up(pid)
        arguments = rest[:at]
        if self.unfinished_bytes + len(arguments) > MAX_UNFINISHED_BYTES:
            arguments, begun.is_cut = arguments[:HEAD_BYTES], True
        begun.arguments, begun.is_renumbered = arguments, end[1] is not None
        self.unfinished[pid] = begun
        self.unfinished_bytes += len(arguments)
        return calls

    def pop(self, pid: int) -> Unfinished:
        begun = self.unfinished.pop(pid, None) or Unfinished()
        self.unfinished_bytes -= len(begun.arguments)
        return begun

    def give_up(self, pid: int) -> list[Call]:
        """Whoever ends in the middle of a call may have done it."""
        begun = self.pop(pid)
        return parse(pid, begun, b") = ?") if begun.name else []


@dataclass(slots=True)
class Returned:
    """A whole call: what stands between its parentheses and after, and what it came to.

    `value` is 0 where it is not known, and `error` then not None. `ended_sec` is 0 where that is
    not known.
    """

    pid: int
    begun: Unfinished
    text: bytes
    value: int = 0
    error: str | None = UNFINISHED
    descriptor: bytes | None = None
    number_outside: bytes | None = None
    ended_sec: float = 0.0


def parse(pid: int, begun: Unfinished, rest: bytes) -> list[Call]:
    """The calls in one line: one or none; two at most, after the exec of a thread."""
    parser = PARSERS.get(begun.name)
    if not parser:
        return []
    text = begun.arguments + rest
    returned = Returned(pid, begun, text)
    result = RESULT.fullmatch(text, max(text.rfind(b"= "), 0))
    if result:
        number, returned.descriptor, name, error_number, outside, took = result.groups()
        returned.number_outside = outside
        value = 0 if number == b"?" else int(number)
        if error_number:
            # A number without a name that strace shows as if it were negative.
            value = int(error_number) - (1 << 64)
        is_known = value >= 0 and number != b"?"
        returned.value, returned.error = value, None if is_known else UNFINISHED
        if name:
            returned.error = name.decode()
        if took:
            returned.ended_sec = begun.at_sec + float(took)
    return parser(returned)


def parse_fork(call: Returned) -> list[Call]:
    if call.value <= 0:
        return []
    child = int(call.number_outside or call.value)
    return [Fork(call.pid, child, call.value, b"CLONE_THREAD" in call.text)]


def parse_execute(call: Returned) -> list[Call]:
    match = EXECUTE.match(call.text)
    folder, file, unread_file, argv = match.groups() if match else (None, None, None, b"")
    # Its number changes only when it is done; what strace shows as the result is the next call.
    error = None if call.begun.is_renumbered else call.error
    is_unread = error is None and (not match or unread_file is not None or b"0x" in argv)
    words = tuple(map(unescaped, STRING.findall(argv)))
    opened, name = unescaped(folder or b""), unescaped(file or b"")
    start = Execute(call.pid, opened, name, words, error, is_unread, call.begun.is_cut)
    start.is_abridged = argv.endswith(b"...]")
    # Of a thread's, strace shows the end only with its first call.
    if call.ended_sec and not call.begun.is_renumbered:
        start.held_until_sec = call.ended_sec + HELD_SEC
    calls: list[Call] = [start]
    if call.begun.is_renumbered and call.value:
        calls.append(FirstCallUnseen(call.pid, abs(call.value)))
    return calls


def parse_socket(call: Returned) -> list[Call]:
    if not call.descriptor:
        return []
    family = FAMILIES.get(call.text.partition(b",")[0], Family.OTHER)
    return [Socket(call.pid, call.descriptor, family, b"SOCK_DGRAM" in call.text)]


def parse_delete(call: Returned) -> list[Call]:
    folder, name = DESCRIPTOR.match(call.text), STRING.search(call.text)
    if not name or call.error:
        return []
    return [Delete(call.pid, unescaped(folder[1]) if folder else b"", unescaped(name[1]))]


def parse_exit(call: Returned) -> list[Call]:
    return [ExitAll(call.pid)]


def parse_sleep(call: Returned) -> list[Call]:
    asked_sec = skipped_sec(call.text, time.monotonic(), time.time())
    return [Sleep(call.pid, asked_sec)] if asked_sec else []


def parse_look(call: Returned) -> list[Call]:
    return [LookInto(call.pid, *look_asked(call.begun.name, call.text))]


def parse_reach(call: Returned) -> list[Call]:
    act, text = ACTS[call.begun.name], call.text
    descriptor = DESCRIPTOR.match(text)
    addresses = [parse_address(match, act) for match in ADDRESS.finditer(text)]
    is_many = call.begun.name == b"sendmmsg"
    reach = Reach(
        call.pid,
        act,
        descriptor[1] if descriptor else b"",
        tuple(addresses),
        parse_payloads(text) if act is Act.SEND else (),
        call.error,
        is_many and messages_left(call) > 0,
        reach_is_unread(text, call.error),
        call.begun.is_cut,
        is_many and call.error == UNFINISHED,
    )
    return [reach]


def parse_payloads(text: bytes) -> tuple[bytes, ...]:
    found = []
    for match in STRING.finditer(text):
        start = match.start()
        before = text[max(start - len(BEFORE_ADDRESS), 0) : start]
        if before.endswith(BEFORE_PAYLOAD) and before != BEFORE_ADDRESS:
            found.append(unescaped(match[1]))
    return tuple(found)


def parse_address(match: re.Match[bytes], act: Act) -> Address:
    family, port, host, abstract, path, raw = match.groups()
    kind = FAMILIES.get(family, Family.OTHER)
    if port:
        ip = unescaped(host).decode("ascii", "replace")
        number = port.decode()
        return Address(kind, f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}", number)
    if path is not None:
        return Address(kind, f"unix:{abstract.decode()}{printable(unescaped(path))}")
    data = unescaped(raw or b"")
    # The kernel takes it for IPv4 where a datagram is sent; a connect with it only ends a
    # connection.
    if kind is Family.UNSPEC and act is Act.SEND and len(data) >= 6:
        number = str(int.from_bytes(data[:2]))
        return Address(kind, f"{socket.inet_ntoa(data[2:6])}:{number}", number)
    return Address(kind)


def messages_left(call: Returned) -> int:
    """How many messages of a sendmmsg were not sent, though some were: `..., {...}], 2,
    MSG_DONTWAIT) = 1`.
    """
    _, _, tail = call.text.rpartition(b"], ")
    given = tail.partition(b",")[0]
    if not given.isdigit() or not call.value:
        return 0
    return min(int(given), MAX_MESSAGES) - call.value


ACTS = {
    b"connect": Act.CONNECT,
    b"bind": Act.BIND,
    b"sendto": Act.SEND,
    b"sendmsg": Act.SEND,
    b"sendmmsg": Act.SEND,
}
PARSERS: dict[bytes, Callable[[Returned], list[Call]]] = {
    **dict.fromkeys((b"fork", b"vfork", b"clone", b"clone3"), parse_fork),
    **dict.fromkeys((b"execve", b"execveat"), parse_execute),
    **dict.fromkeys((b"unlink", b"unlinkat"), parse_delete),
    **dict.fromkeys(ACTS, parse_reach),
    b"socket": parse_socket,
    b"exit_group": parse_exit,
    **dict.fromkeys((b"nanosleep", b"clock_nanosleep"), parse_sleep),
    **dict.fromkeys((b"ptrace", b"process_vm_readv", b"process_vm_writev"), parse_look),
}
