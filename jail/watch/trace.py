"""The kernel witness: reads what strace writes of one jail, and makes typed calls of it. It judges
nothing.

strace runs as `strace -f -q -y --seccomp-bpf --decode-pids=pidns -xx -s 4096`: a line for each
call, with every string in hexadecimal, so that nothing of the jail can look like a part of a
line. What is hostile is the amount: long lines, many lines, calls that never come to an end. All
are bounded, and what was cut is marked.
"""

import re
import socket
from collections.abc import Callable, Iterator
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
    Reach,
    Socket,
)
from jail.watch.events import printable

MAX_LINE_BYTES = 1 << 20
# Kept of a longer line: its start and, since there stand address and result, its end.
HEAD_BYTES, TAIL_BYTES = 64 << 10, 4 << 10
# Of the lines of all calls that have not returned; beyond it only their heads are kept.
MAX_UNFINISHED_BYTES = 64 << 20


# 11520 connect(8<...>, {sa_family=AF_INET, ...}, 16) = -1 ECONNREFUSED (Connection refused)
# 11520 <... vfork resumed>)              = 43 /* 11562 in strace's PID NS */
# 11564 +++ exited with 0 +++
# 11571 +++ killed by SIGSEGV (core dumped) +++
# 11568 +++ superseded by execve in pid 11569 +++
LINE = re.compile(
    rb"(\d+) +(?:(\w+)\(|<\.\.\. (\w+) resumed>|\+\+\+ (exited with|killed by) (\w+))"
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
RESULT = re.compile(
    rb"= (-?\d+|\?)(?:<((?:\\x[0-9a-f]{2})*)>\S*)?"
    rb"(?: (E\w+) \(.*\)| \(errno (\d+)\)| /\* (\d+) in strace's PID NS \*/)?"
)
# "\x74\x72\x75\x65", and "\x74\x72\x75\x65"... where it is longer than strace shows
HEX = rb'"((?:\\x[0-9a-f]{2})*)"'
STRING = re.compile(HEX)
# execve("\x2f\x62\x69\x6e\x2f\x73\x68", ["\x73\x68", "\x2d\x63"], 0x7fff67ca10b0 /* 38 vars */)
# execveat(7<\x2f\x6d\x65\x6d\x66\x64\x3a\x78>(deleted), "", ["\x6d"], 0x7f539d6c4a60 /* 0 vars */,
#     AT_EMPTY_PATH)
# execve(0x1000, NULL, NULL): what strace can't read is shown as its address
# execve("\x2f\x62", [0x1000, "\x79", ...], 0x7fff67ca10b0 /* 38 vars */)
EXECUTE = re.compile(
    rb'(?:[^",<]*(?:<((?:\\x[0-9a-f]{2})*)>)?\S*, )??'
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
DESCRIPTOR = re.compile(rb"[^<,]*<((?:\\x[0-9a-f]{2})*)>")
# sendto(4<...>, "\x61\x62\x01", 30, 0, ...)
# sendmsg(4<...>, {..., msg_iov=[{iov_base="\x61\x62\x63", iov_len=3}], ...
PAYLOAD = re.compile(rb"(?:(?<!AF_INET6), |iov_base=)" + HEX)
# What strace can't read:
# connect(4<...>, 0x1000, 16)
# sendto(4<...>, "\x78", 1, 0, 0x1000, 16)
# sendmsg(4<...>, 0x1000, 0)
# sendmsg(4<...>, {msg_name=0x1000, msg_namelen=16, msg_iov=[{iov_base=0x1000, iov_len=1}], ...
# but not what is of no length: sendto(4<...>, 0x1000, 0, 0, NULL, 0)
UNREAD = re.compile(
    rb"^[^,]*, 0x[0-9a-f]+, (?!0,)"
    rb"|, 0x[0-9a-f]+, [1-9]\d*\)"
    rb"|msg_name=0x"
    rb"|iov_base=0x[0-9a-f]+, iov_len=[1-9]"
)
# What the kernel may answer without having read it, either.
UNREAD_ERRORS = {
    "EFAULT",
    "EBADF",
    "ENOTSOCK",
    "EINVAL",
    "EOPNOTSUPP",
    "EISCONN",
    "ENOTCONN",
    "EPIPE",
    UNFINISHED,
}
MAX_MESSAGES = 1024  # the kernel's own bound of one sendmmsg


def unescaped(string: bytes) -> bytes:
    r"""The bytes of `\x73\x68`."""
    return bytes.fromhex(string.replace(b"\\x", b"").decode())


FAMILIES = {
    b"AF_INET": Family.INET,
    b"AF_INET6": Family.INET,
    b"AF_UNIX": Family.UNIX,
    b"AF_UNSPEC": Family.UNSPEC,
}


@dataclass(slots=True)
class Unfinished:
    """The start of a call that has not returned. `is_renumbered`: by a thread that became another
    program.
    """

    name: bytes = b""
    arguments: bytes = b""
    is_cut: bool = False
    is_renumbered: bool = False


class TraceReader:
    """Takes strace's bytes as they come, and gives the calls that are whole."""

    def __init__(self) -> None:
        self.rest = b""
        self.is_rest_cut = False
        self.unfinished: dict[int, Unfinished] = {}
        self.unfinished_bytes = 0

    def take(self, data: bytes) -> Iterator[Call]:
        """The calls that some bytes of the trace bring to an end; all are to be taken before the
        next bytes.
        """
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            is_cut, self.is_rest_cut = self.is_rest_cut, False
            yield from self.read(line, is_cut)
        if len(self.rest) > MAX_LINE_BYTES:
            self.rest = self.rest[:HEAD_BYTES] + self.rest[-TAIL_BYTES:]
            self.is_rest_cut = True

    def finish(self) -> Iterator[Call]:
        """The calls that had not returned when the trace ended."""
        for pid in [*self.unfinished]:
            yield from self.give_up(pid)

    def read(self, line: bytes, is_cut: bool) -> Iterator[Call]:
        match = LINE.match(line)
        if not match:
            return
        number, name, resumed, how, what = match.groups()
        pid, rest = int(number), line[match.end() :]
        if how:
            yield from self.give_up(pid)
            if how == b"killed by":
                yield End(pid, None, what.decode())
            else:
                yield End(pid, int(what), None)
        elif resumed:
            begun = self.pop(pid)
            begun.name = resumed
            begun.is_cut |= is_cut
            yield from parse(pid, begun, rest)
        elif rest.endswith(b" ...>"):
            yield from self.begin(pid, name, rest, is_cut)
        else:
            yield from parse(pid, Unfinished(name, b"", is_cut), rest)

    def begin(self, pid: int, name: bytes, rest: bytes, is_cut: bool) -> Iterator[Call]:
        at = rest.rfind(b"<")
        end = UNFINISHED_END.fullmatch(rest, at)
        if not end:
            return
        renumbered = int(end[1]) if end[1] else None
        if renumbered:
            yield End(pid, None, None)
            pid = renumbered
        yield from self.give_up(pid)
        arguments = rest[:at]
        if self.unfinished_bytes + len(arguments) > MAX_UNFINISHED_BYTES:
            arguments, is_cut = arguments[:HEAD_BYTES], True
        self.unfinished[pid] = Unfinished(name, arguments, is_cut, renumbered is not None)
        self.unfinished_bytes += len(arguments)

    def pop(self, pid: int) -> Unfinished:
        begun = self.unfinished.pop(pid, None) or Unfinished()
        self.unfinished_bytes -= len(begun.arguments)
        return begun

    def give_up(self, pid: int) -> Iterator[Call]:
        """Whoever ends in the middle of a call may have done it."""
        begun = self.pop(pid)
        if begun.name:
            yield from parse(pid, begun, b") = ?")


@dataclass(slots=True)
class Returned:
    """A whole call: what stands between its parentheses and after, and what it came to."""

    pid: int
    name: bytes
    text: bytes
    value: int | None
    descriptor: bytes | None
    error: str | None
    number_outside: int | None
    is_cut: bool
    is_renumbered: bool


def parse(pid: int, begun: Unfinished, rest: bytes) -> Iterator[Call]:
    parser = PARSERS.get(begun.name)
    if not parser:
        return
    text = begun.arguments + rest
    match = RESULT.fullmatch(text, max(text.rfind(b"= "), 0))
    value, descriptor, error, errno, outside = match.groups() if match else (b"?",) + (None,) * 4
    if value == b"?" and not error:
        error = UNFINISHED.encode()
    if errno:
        value = b"%d" % (int(errno) - (1 << 64))
    yield from parser(
        Returned(
            pid,
            begun.name,
            text,
            None if value == b"?" else int(value),
            descriptor,
            error.decode() if error else None,
            int(outside) if outside else None,
            begun.is_cut,
            begun.is_renumbered,
        )
    )


def parse_fork(call: Returned) -> Iterator[Call]:
    if call.value and call.value > 0:
        child = call.number_outside or call.value
        yield Fork(call.pid, child, call.value, b"CLONE_THREAD" in call.text)


def parse_execute(call: Returned) -> Iterator[Call]:
    match = EXECUTE.match(call.text)
    folder, file, unread_file, argv = match.groups() if match else (None, None, None, b"")
    # Its number changes only when it is done; what strace shows as the result is the next call.
    error = None if call.is_renumbered else call.error
    is_unread = error is None and (not match or unread_file is not None or b"0x" in argv)
    words = tuple(map(unescaped, STRING.findall(argv)))
    yield Execute(
        call.pid,
        unescaped(folder or b""),
        unescaped(file or b""),
        words,
        error,
        is_unread,
        call.is_cut,
    )
    if call.is_renumbered and call.value:
        yield FirstCallUnseen(call.pid, abs(call.value))


def parse_socket(call: Returned) -> Iterator[Call]:
    if call.descriptor:
        family = FAMILIES.get(call.text.partition(b",")[0], Family.OTHER)
        yield Socket(call.pid, call.descriptor, family, b"SOCK_DGRAM" in call.text)


def parse_delete(call: Returned) -> Iterator[Call]:
    folder, name = DESCRIPTOR.match(call.text), STRING.search(call.text)
    if name and call.error is None:
        yield Delete(call.pid, unescaped(folder[1]) if folder else b"", unescaped(name[1]))


def parse_exit(call: Returned) -> Iterator[Call]:
    yield ExitAll(call.pid)


def parse_reach(call: Returned) -> Iterator[Call]:
    act = ACTS[call.name]
    descriptor = DESCRIPTOR.match(call.text)
    addresses = (
        tuple(parse_address(match, act) for match in ADDRESS.finditer(call.text))
        if b"sa_family" in call.text
        else ()
    )
    payloads = tuple(map(unescaped, PAYLOAD.findall(call.text))) if act is Act.SEND else ()
    yield Reach(
        call.pid,
        act,
        descriptor[1] if descriptor else b"",
        addresses,
        payloads,
        call.error,
        call.name == b"sendmmsg" and messages_left(call) > 0,
        call.error not in UNREAD_ERRORS and UNREAD.search(call.text) is not None,
        call.is_cut,
    )


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
PARSERS: dict[bytes, Callable[[Returned], Iterator[Call]]] = {
    **dict.fromkeys((b"fork", b"vfork", b"clone", b"clone3"), parse_fork),
    **dict.fromkeys((b"execve", b"execveat"), parse_execute),
    **dict.fromkeys((b"unlink", b"unlinkat"), parse_delete),
    **dict.fromkeys(ACTS, parse_reach),
    b"socket": parse_socket,
    b"exit_group": parse_exit,
}
