"""strace's lines, recorded from real processes (strace 6.1), and what is read from them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    Socket,
)
from jail.watch.trace import HELD_SEC, MAX_TRACE_LINE_BYTES, MAX_UNFINISHED_BYTES, TraceReader

SOCKET_15989 = r"\x73\x6f\x63\x6b\x65\x74\x3a\x5b\x31\x35\x39\x38\x39\x5d"
INODE = SOCKET_15989.encode()
FD = f"4<{SOCKET_15989}>"
LOCALHOST_53 = (
    r'{sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("\x31\x32\x37\x2e\x30\x2e\x30\x2e'
    r'\x31")}'
)
FAR_9 = (
    r'{sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("\x32\x30\x33\x2e\x30\x2e\x31\x31'
    r'\x33\x2e\x33")}'
)
LOCALHOST_6 = (
    r"{sa_family=AF_INET6, sin6_port=htons(1), sin6_flowinfo=htonl(0), "
    r'inet_pton(AF_INET6, "\x3a\x3a\x31", &sin6_addr), sin6_scope_id=0}'
)
UNREACHABLE = "-1 ENETUNREACH (Network is unreachable)"
NEAR, FAR = Address(Family.INET, "127.0.0.1:53", "53"), Address(Family.INET, "203.0.113.3:9", "9")


def hexed(data: bytes) -> str:
    """As strace writes a string with -xx."""
    return "".join(f"\\x{byte:02x}" for byte in data)


def read(*lines: str) -> list[Call]:
    return TraceReader().take("".join(f"{line}\n" for line in lines).encode())


def reach(act: Act, *addresses: Address, error: str | None = None, **more: object) -> Reach:
    fields = {"payloads": (), **more}
    return Reach(11520, act, INODE, addresses, error=error, **fields)  # type: ignore[arg-type]


CALLS: dict[str, tuple[str, list[Call]]] = {
    "a program": (
        r'11564 execve("\x2f\x62\x69\x6e\x2f\x73\x68", ["\x73\x68", "\x2d\x63", "\x74\x0a\xc3"],'
        " 0x7fff67ca10b0 /* 38 vars */) = 0",
        [Execute(11564, b"", b"/bin/sh", (b"sh", b"-c", b"t\n\xc3"), None)],
    ),
    "a program that is not there": (
        r'6685  execve("\x2f\x6e", ["\x61"], 0x7fff67ca10b0 /* 38 vars */) = -1 ENOENT'
        " (No such file or directory)",
        [Execute(6685, b"", b"/n", (b"a",), "ENOENT")],
    ),
    "a program without arguments": (
        r'11566 execve("\x2f\x62\x69\x6e\x2f\x74\x72\x75\x65", NULL, NULL) = 0',
        [Execute(11566, b"", b"/bin/true", (), None)],
    ),
    "a file in memory": (
        r'11565 execveat(7<\x2f\x6d\x65\x6d\x66\x64\x3a\x78>(deleted), "", ["\x6d"], '
        "0x7f539d6c4a60 /* 0 vars */, AT_EMPTY_PATH) = 0",
        [Execute(11565, b"/memfd:x", b"", (b"m",), None)],
    ),
    "more arguments than strace shows": (
        r'1 execve("\x2f\x78", ["\x77\x30", "\x77\x31"..., ...], 0x1 /* 1 var */) = 0',
        [Execute(1, b"", b"/x", (b"w0", b"w1"), None, is_abridged=True)],
    ),
    "a program that is held for a moment": (
        r'1 100.250000 execve("\x2f\x78", ["\x78"], 0x1 /* 1 var */) = 0 (DELAYED) <0.500000>',
        [Execute(1, b"", b"/x", (b"x",), None, held_until_sec=100.75 + HELD_SEC)],
    ),
    "a program that could not be held, since it is none": (
        r'1 100.25 execve("\x2f\x78", ["\x78"], 0x1 /* 1 var */) = -1 ENOENT (No such file or '
        "directory) (DELAYED) <0.500000>",
        [Execute(1, b"", b"/x", (b"x",), "ENOENT", held_until_sec=100.75 + HELD_SEC)],
    ),
    "a name that could not be read": (
        "11566 execve(0x1000, NULL, NULL)        = -1 EFAULT (Bad address)",
        [Execute(11566, b"", b"", (), "EFAULT")],
    ),
    "a name that only the kernel could read": (
        r'1 execve(0x1000, ["\x67\x63\x63"], 0x1 /* 1 var */) = 0',
        [Execute(1, b"", b"", (b"gcc",), None, is_unread=True)],
    ),
    "an argument that only the kernel could read": (
        r'1 execve("\x2f\x78", ["\x67\x63\x63", 0x1000], 0x1 /* 1 var */) = 0',
        [Execute(1, b"", b"/x", (b"gcc",), None, is_unread=True)],
    ),
    "a process": (
        "11520 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD,"
        " child_tidptr=0x7f539e044e50) = 45 /* 11564 in strace's PID NS */",
        [Fork(11520, 11564, 45, False)],
    ),
    "a process of the same numbers": ("7 fork() = 8", [Fork(7, 8, 8, False)]),
    "a thread": (
        "11520 clone3({flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SETTLS,"
        " child_tid=0x7f539d097990, parent_tid=0x7f539d097990, exit_signal=0, stack=0x7f539c897000,"
        " stack_size=0x7fff80, tls=0x7f539d0976c0} => {parent_tid=[51 /* 11570 in strace's PID NS"
        " */]}, 88) = 51 /* 11570 in strace's PID NS */",
        [Fork(11520, 11570, 51, True)],
    ),
    "a look at itself": (
        "11520 ptrace(PTRACE_TRACEME) = -1 ENOSYS (Function not implemented) (INJECTED) <0.000104>",
        [LookInto(11520, "ptrace(PTRACE_TRACEME)", 0)],
    ),
    "a look into another process": (
        "11520 ptrace(PTRACE_SEIZE, 7 /* 11562 in strace's PID NS */, NULL, PTRACE_O_EXITKILL)"
        " = -1 ENOSYS (Function not implemented) (INJECTED)",
        [LookInto(11520, "ptrace(PTRACE_SEIZE)", 7)],
    ),
    "a look that nobody knows": (
        "1 ptrace(0x1234 /* PTRACE_??? */, 7, NULL, NULL) = -1 ENOSYS (Function not implemented)",
        [LookInto(1, "ptrace(another request)", 7)],
    ),
    "another process's memory": (
        "1 process_vm_readv(7 /* 11562 in strace's PID NS */, [{iov_base=0x7f15, iov_len=8}], 1,"
        " [{iov_base=0x7f16, iov_len=8}], 1, 0) = -1 ENOSYS (Function not implemented) (INJECTED)",
        [LookInto(1, "process_vm_readv", 7)],
    ),
    "a write into another process's memory": (
        "1 process_vm_writev(7, NULL, 0, NULL, 0, 0) = -1 ENOSYS (Function not implemented)",
        [LookInto(1, "process_vm_writev", 7)],
    ),
    "no process": ("7 clone(flags=SIGCHLD) = -1 EAGAIN (Resource temporarily unavailable)", []),
    "an interrupted one": ("7 clone(flags=SIGCHLD) = ? ERESTARTNOINTR (To be restarted)", []),
    "a socket": (
        f"11520 socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = {FD}",
        [Socket(11520, INODE, Family.INET, False)],
    ),
    "a socket for datagrams": (
        f"11520 socket(AF_INET6, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = {FD}",
        [Socket(11520, INODE, Family.INET, True)],
    ),
    "a socket of this machine": (
        f"11520 socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = {FD}",
        [Socket(11520, INODE, Family.UNIX, False)],
    ),
    "no socket": (
        "7 socket(AF_VSOCK, SOCK_STREAM, 0) = -1 EAFNOSUPPORT (Address family not supported)",
        [],
    ),
    "a connection": (
        f"11520 connect({FD}, {FAR_9}, 16) = {UNREACHABLE}",
        [reach(Act.CONNECT, FAR, error="ENETUNREACH")],
    ),
    "a connection by IPv6": (
        f"11520 connect({FD}, {LOCALHOST_6}, 28) = 0",
        [reach(Act.CONNECT, Address(Family.INET, "[::1]:1", "1"))],
    ),
    "a connection to a path": (
        f"11520 connect({FD}, {{sa_family=AF_UNIX, sun_path="
        r'"\x2f\x72\x75\x6e\x2f\x6e\x73\x63\x64"}, 12) = -1 ENOENT (No such file or directory)',
        [reach(Act.CONNECT, Address(Family.UNIX, "unix:/run/nscd"), error="ENOENT")],
    ),
    "a connection to a name": (
        f'11520 connect({FD}, {{sa_family=AF_UNIX, sun_path=@"'
        r'\x61\x62\xc3\xbf"}, 7) = -1 ECONNREFUSED (Connection refused)',
        [reach(Act.CONNECT, Address(Family.UNIX, r"unix:@ab\xff"), error="ECONNREFUSED")],
    ),
    "the end of a connection": (
        f"11520 connect({FD}, {{sa_family=AF_UNSPEC, "
        r'sa_data="\x00\x35\xc0\x00\x02\x09\x00\x00\x00\x00\x00\x00\x00\x00"}, 16) = 0',
        [reach(Act.CONNECT, Address(Family.UNSPEC))],
    ),
    "a socket that talks to the kernel": (
        f"11520 bind({FD}, {{sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}}, 12) = 0",
        [reach(Act.BIND, Address(Family.OTHER))],
    ),
    "an address that is too short": (
        f"11520 connect({FD}, {{sa_family=AF_INET, "
        r'sa_data="\x01\xbb\xcb\x00\x71\x01"}, 8) = -1 EINVAL (Invalid argument)',
        [reach(Act.CONNECT, Address(Family.INET), error="EINVAL")],
    ),
    "a question": (
        f'11520 sendto({FD}, "' + r'\x61\x62\x01", 3, 0, ' + f"{LOCALHOST_53}, 16) = 3",
        [reach(Act.SEND, NEAR, payloads=(b"ab\x01",))],
    ),
    "a datagram by IPv6": (
        f'11520 sendto({FD}, "' + r'\x73\x69\x78", 3, 0, ' + f"{LOCALHOST_6}, 28) = 3",
        [reach(Act.SEND, Address(Family.INET, "[::1]:1", "1"), payloads=(b"six",))],
    ),
    "a datagram to an address of no family": (
        f'11520 sendto({FD}, "' + r'\x73", 1, 0, {sa_family=AF_UNSPEC, sa_data="\x00\x35\xc0\x00'
        r'\x02\x09\x00\x00\x00\x00\x00\x00\x00\x00"}, 16) = ' + UNREACHABLE,
        [
            reach(
                Act.SEND,
                Address(Family.UNSPEC, "192.0.2.9:53", "53"),
                payloads=(b"s",),
                error="ENETUNREACH",
            )
        ],
    ),
    "nothing sent": (
        f'11520 sendto({FD}, "", 0, 0, NULL, 0) = 0',
        [reach(Act.SEND, payloads=(b"",))],
    ),
    "a message in parts": (
        f"11520 sendmsg({FD}, {{msg_name={FAR_9}, msg_namelen=16, "
        r'msg_iov=[{iov_base="\x61\x62\x63", iov_len=3}, {iov_base="\x64\x65\x66", iov_len=3}], '
        f"msg_iovlen=2, msg_controllen=0, msg_flags=0}}, 0) = {UNREACHABLE}",
        [reach(Act.SEND, FAR, payloads=(b"abc", b"def"), error="ENETUNREACH")],
    ),
    "two messages, one of which was sent": (
        f"11520 sendmmsg({FD}, [{{msg_hdr={{msg_name={LOCALHOST_53}, msg_namelen=16, "
        r'msg_iov=[{iov_base="\x78", iov_len=1}], msg_iovlen=1, msg_controllen=0, msg_flags=0}, '
        f"msg_len=1}}, {{msg_hdr={{msg_name={FAR_9}, msg_namelen=16, "
        r'msg_iov=[{iov_base="\x79", iov_len=1}], msg_iovlen=1, msg_controllen=0, msg_flags=0}}]'
        ", 2, MSG_DONTWAIT) = 1",
        [reach(Act.SEND, NEAR, FAR, payloads=(b"x", b"y"), is_short=True)],
    ),
    "an interrupted connection": (
        f"11520 connect({FD}, {FAR_9}, 16) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)",
        [reach(Act.CONNECT, FAR, error="ERESTARTSYS")],
    ),
    "a connection without an address": (
        f"11520 connect({FD}, NULL, 0) = -1 EINVAL (Invalid argument)",
        [reach(Act.CONNECT, error="EINVAL")],
    ),
    "a file": (
        r'11520 unlink("\x2f\x74\x6d\x70\x2f\x61") = 0',
        [Delete(11520, b"", b"/tmp/a")],
    ),
    "a file in a folder": (
        r'11520 unlinkat(6<\x2f\x74\x6d\x70>, "\x62", 0) = 0',
        [Delete(11520, b"/tmp", b"b")],
    ),
    "a file that is not there": (r'7 unlink("\x61") = -1 ENOENT (No such file or directory)', []),
    "all threads": ("11520 exit_group(0)                     = ?", [ExitAll(11520)]),
    "an end": ("11520 +++ exited with 3 +++", [End(11520, 3, None)]),
    "a kill": ("11571 +++ killed by SIGKILL +++", [End(11571, None, "SIGKILL")]),
    "a crash": ("1 +++ killed by SIGSEGV (core dumped) +++", [End(1, None, "SIGSEGV")]),
    "a signal": (
        "11572 --- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL} ---",
        [],
    ),
    "nonsense": ("strace: Process 7 attached", []),
}


@pytest.mark.parametrize(("line", "calls"), CALLS.values(), ids=CALLS)
def test_a_line_is_read(line: str, calls: list[Call]) -> None:
    assert read(line) == calls


UNREAD = {
    f"connect({FD}, 0x1000, 16) = 0": True,
    f"connect({FD}, 0x1000, 16) = {UNREACHABLE}": True,
    f"connect({FD}, 0x1000, 16) = -1 EFAULT (Bad address)": False,
    f"connect({FD}, 0x1000, 0) = -1 EINVAL (Invalid argument)": False,
    f'sendto({FD}, "\\x78", 1, 0, 0x1000, 16) = 1': True,
    f'sendto({FD}, "\\x78", 1, 0, NULL, 0) = 1': False,
    f"sendto({FD}, 0x1000, 6, 0, NULL, 0) = 6": True,
    f"sendto({FD}, 0x1000, 0, 0, NULL, 0) = 0": False,
    f"sendmsg({FD}, 0x1000, 0) = 1": True,
    f"sendmsg({FD}, 0x1000, MSG_DONTWAIT) = 1": True,
    f"sendmmsg({FD}, 0x1000, 2, 0) = 2": True,
    f"sendmsg({FD}, {{msg_name=0x1000, msg_namelen=16, msg_iov=[], msg_iovlen=0}}, 0) = 1": True,
    f"sendmsg({FD}, {{msg_name=NULL, msg_iov=[{{iov_base=0x1, iov_len=1}}]}}, 0) = 1": True,
    f"sendmsg({FD}, {{msg_name=NULL, msg_iov=[{{iov_base=0x1, iov_len=0}}]}}, 0) = 0": False,
}


@pytest.mark.parametrize(("line", "is_unread"), UNREAD.items())
def test_what_only_the_kernel_could_read_is_marked(line: str, is_unread: bool) -> None:
    (call,) = read(f"11520 {line}")
    assert isinstance(call, Reach) and call.is_unread == is_unread


def test_calls_of_several_processes_are_put_together() -> None:
    calls = read(
        "11520 vfork( <unfinished ...>",
        r'11562 execve("\x2f\x62", ["\x62"], 0x1 /* 38 vars */ <unfinished ...>',
        "11520 <... vfork resumed>)              = 43 /* 11562 in strace's PID NS */",
        "11562 <... execve resumed>)             = 0",
    )
    assert calls == [
        Fork(11520, 11562, 43, False),
        Execute(11562, b"", b"/b", (b"b",), None),
    ]


@pytest.mark.parametrize(
    ("result", "unseen"),
    [
        # The number of the next call, and what it is as an argument of it that looks like an error.
        ("-1 (errno 18446744073709551385)", [FirstCallUnseen(11568, 231)]),
        ("42", [FirstCallUnseen(11568, 42)]),
        ("0", []),
    ],
)
def test_a_thread_that_becomes_a_program(result: str, unseen: list[Call]) -> None:
    calls = read(
        r'11569 execve("\x2f\x62", ["\x62"], 0x7fff67ca10b /* 3 vars */ <pid changed to 11568 ...>',
        "11568 +++ superseded by execve in pid 11569 +++",
        f"11568 <... execve resumed>)             = {result}",
    )
    became = Execute(11568, b"", b"/b", (b"b",), None)
    assert calls == [End(11569, None, None), became, *unseen]


def test_who_ends_in_the_middle_of_a_call_may_have_done_it() -> None:
    calls = read(f"11520 connect({FD}, {FAR_9}, 16 <unfinished ...>", "11520 +++ exited with 0 +++")
    assert calls == [reach(Act.CONNECT, FAR, error=UNFINISHED), End(11520, 0, None)]
    reader = TraceReader()
    assert reader.take(f"11520 connect({FD}, {FAR_9}, 16 <unfinished ...>\n".encode()) == []
    assert reader.finish() == [reach(Act.CONNECT, FAR, error=UNFINISHED)]
    assert reader.finish() == []


def test_a_result_that_is_not_known_is_no_success() -> None:
    for result in ("-1 (errno 524)", "?", "", "nonsense"):
        (call,) = read(f"11520 connect({FD}, {FAR_9}, 16) = {result}")
        assert isinstance(call, Reach) and call.error == UNFINISHED, result


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    lines = [line for line, _ in CALLS.values()]
    data = "".join(f"{line}\n" for line in lines).encode()
    reader, calls = TraceReader(), []
    for start in range(0, len(data), size):
        calls += reader.take(data[start : start + size])
    assert calls == [call for _, found in CALLS.values() for call in found]


def feed(reader: TraceReader, line: str) -> list[Call]:
    """As the warden's pipe gives it."""
    data, calls = f"{line}\n".encode(), []
    for start in range(0, len(data), 1 << 16):
        calls += reader.take(data[start : start + (1 << 16)])
    return calls


def test_a_line_that_is_too_long_is_cut_and_marked() -> None:
    reader = TraceReader()
    padding = ", ".join([f'"{hexed(b"x" * 4096)}"'] * 400)
    (call,) = feed(reader, rf'7 execve("\x2f\x78", ["\x73\x68", {padding}], 0x1 /* 1 var */) = 0')
    assert isinstance(call, Execute) and call.is_cut
    assert (call.file, call.argv[0], call.error) == (b"/x", b"sh", None)
    message = (
        f'{{msg_hdr={{msg_name={LOCALHOST_53}, msg_iov=[{{iov_base="{hexed(b"y" * 400)}"}}]}}}}'
    )
    middle = ", ".join([message] * (2 * MAX_TRACE_LINE_BYTES // len(message)))
    (call,) = feed(reader, f"11520 sendmmsg({FD}, [{middle}], 900, 0) = 900")
    assert isinstance(call, Reach) and call.is_cut and NEAR in call.addresses
    assert read(f"11520 connect({FD}, {FAR_9}, 16) = 0") == [reach(Act.CONNECT, FAR)]
    (call,) = feed(reader, f"11520 connect({FD}, {FAR_9}, 16) = 0")
    assert isinstance(call, Reach) and not call.is_cut  # the next one is whole
    assert len(reader.rest) == 0


def test_calls_that_never_return_take_a_bounded_memory() -> None:
    reader = TraceReader()
    data = f'"{hexed(b"x" * 200_000)}"'
    for pid in range(100):
        feed(reader, f"{pid} sendto({FD}, {data}, 200000, 0, {FAR_9}, 16 <unfinished ...>")
    assert reader.unfinished_bytes < MAX_UNFINISHED_BYTES + 100 * (64 << 10)
    calls = reader.finish()
    assert len(calls) == 100 and reader.unfinished_bytes == 0
    assert calls[0] == Reach(0, Act.SEND, INODE, (FAR,), (b"x" * 200_000,), UNFINISHED)
    assert isinstance(calls[-1], Reach) and calls[-1].is_cut


@pytest.mark.parametrize(
    "line",
    [
        "7 execve(" + "<" * 900_000 + ") = 0",
        "7 sendmmsg(" + "], " * 300_000 + ") = 1",
        "7 connect(" + ", 0x1" * 200_000 + ") = 0",
        "7 connect(" + "= -1 E" * 150_000 + ") = 0",
        "7 sendto(" + ', iov_base="\\x4' * 60_000 + ") = 1",
        "7 connect(" + "{sa_family=AF_INET, sin_port=htons(1)" * 25_000 + ") = 1",
        "9" * 5000 + " exit_group(0) = ?",
        "7 <... " + "x" * 900_000,
    ],
    ids=["folders", "ends", "pointers", "results", "payloads", "addresses", "numbers", "names"],
)
def test_no_line_takes_long(line: str) -> None:
    feed(TraceReader(), line)


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace here")
def test_lines_of_this_machine_s_strace(tmp_path: Path) -> None:
    source = (
        "import os, socket\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.sendto(b'data', ('127.0.0.1', 9))\n"
        "open('x', 'w').close(); os.unlink('x')\n"
        "os.waitpid(os.posix_spawn('/bin/true', ['true', 'ä'], {}), 0)\n"
    )
    calls = "execve,clone,clone3,vfork,socket,sendto,unlink,exit_group"
    argv = ["strace", "-f", "-q", "-y", "--seccomp-bpf", "--decode-pids=pidns", "-xx", "-s", "4096"]
    argv += ["-e", f"trace={calls}", "-e", "signal=!SIGCHLD", "-o", "trace"]
    done = subprocess.run([*argv, sys.executable, "-I", "-c", source], cwd=tmp_path, check=False)
    if done.returncode != 0:
        pytest.skip("strace may not be used here")
    found = TraceReader().take((tmp_path / "trace").read_bytes())
    sent = [call for call in found if isinstance(call, Reach)]
    assert [(call.addresses, call.payloads, call.error) for call in sent] == [
        ((Address(Family.INET, "127.0.0.1:9", "9"),), (b"data",), None)
    ]
    sockets = [call.inode for call in found if isinstance(call, Socket) and call.is_datagram]
    assert sent[0].inode in sockets
    deleted = [call.name for call in found if isinstance(call, Delete)]
    started = [call.argv for call in found if isinstance(call, Execute) and not call.error]
    assert deleted == [b"x"] and started[-1] == (b"true", "ä".encode())
    (fork,) = [call for call in found if isinstance(call, Fork)]
    ends = [call.pid for call in found if isinstance(call, End)]
    assert fork.child in ends and len(ends) == 2
