"""The story of a jail, from traces as strace writes them: who did what, and what the trace was not
shown.
"""

# ruff: noqa: S108 - paths of the jail, none of which is opened
import json
from typing import Any

import pytest

from jail.watch.calls import Observed
from jail.watch.events import (
    Actor,
    Change,
    Connection,
    Event,
    Exec,
    FailedOften,
    FileChanged,
    LeftAtWork,
    NameAsked,
    Net,
    ProcessEnded,
    StartsUnchecked,
    TraceContradicted,
    TraceCut,
    WitnessTampered,
    plain_path,
)
from jail.watch.ledger import MANY_FAILURES, MAX_FAILURES
from jail.watch.names import Questions
from jail.watch.noticed import LookedInto
from jail.watch.processes import MAX_QUIET, MAX_WAITING_BYTES
from jail.watch.programs import JAIL_PYTHON, NAMELESS, is_pool_helper, keeps_hook
from jail.watch.python_witness import PythonWitness
from jail.watch.reaches import MAX_ASKED
from jail.watch.story import Story

MAIN, CHILD = 101, 102  # the launcher is 100
UNREACHABLE = "-1 ENETUNREACH (Network is unreachable)"
REFUSED = "-1 ECONNREFUSED (Connection refused)"
MISSING = "-1 ENOENT (No such file or directory)"
NOT_OF_FAMILY = "-1 EAFNOSUPPORT (Address family not supported by protocol)"
UNDER_WAY = "-1 EINPROGRESS (Operation now in progress)"


def hexed(text: str) -> str:
    """A string as strace writes it with -xx."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogateescape")) + '"'


def inet(host: str, port: int) -> str:
    if ":" in host:
        return (
            f"{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl(0), "
            f"inet_pton(AF_INET6, {hexed(host)}, &sin6_addr), sin6_scope_id=0}}"
        )
    return f"{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr({hexed(host)})}}"


def unix(path: str) -> str:
    return f"{{sa_family=AF_UNIX, sun_path={hexed(path)}}}"


NSCD = unix("/var/run/nscd/socket")
FAR = inet("203.0.113.1", 443)


class Tape:
    """A jail that does what the test says, and the story that is told of it."""

    def __init__(self, kind: str = "script", **options: Any) -> None:
        self.events: list[Event] = []
        self.searched: list[tuple[str, str, bytes, Actor]] = []
        self.witness = PythonWitness(self.tell)
        self.story = Story(kind, kind == "pip", self.witness, self, self.tell, **options)
        self.is_full = False

    def tell(self, event: Event, at_sec: float | None) -> bool:
        if self.is_full:
            return False
        self.events.append(event)
        return True

    def search(self, kind: str, where: str, data: bytes, actor: Actor) -> bool:
        self.searched.append((kind, where, data, actor))
        return False

    def line(self, pid: int, text: str) -> None:
        self.story.take_trace(f"{pid} {text}\n".encode())

    def execute(self, pid: int, program: str, *argv: str, result: str = "0") -> None:
        words = ", ".join(map(hexed, argv or (program,)))
        self.line(pid, f"execve({hexed(program)}, [{words}], 0x1 /* 3 vars */) = {result}")

    def fork(self, pid: int, child: int, flags: str = "SIGCHLD") -> None:
        jail_pid = child - 99
        outside = f"/* {child} in strace's PID NS */"
        self.line(pid, f"clone(child_stack=NULL, flags={flags}) = {jail_pid} {outside}")

    def start(self, *argv: str) -> None:
        """The launcher, and its child that becomes a Python with these arguments."""
        self.execute(99, "/usr/bin/nsjail")
        self.fork(99, 100)
        self.execute(100, JAIL_PYTHON, JAIL_PYTHON, "launch.py")
        self.fork(100, MAIN)
        self.execute(MAIN, JAIL_PYTHON, JAIL_PYTHON, *argv)

    def run(self, program: str, *argv: str, pid: int = CHILD) -> None:
        """A child of the phase's own process that becomes another program."""
        self.fork(MAIN, pid)
        self.execute(pid, program, *argv)

    def socket(self, pid: int, inode: int, family: str = "AF_INET", kind: str = "STREAM") -> str:
        fd = f"4<{hexed(f'socket:[{inode}]')[1:-1]}>"
        self.line(pid, f"socket({family}, SOCK_{kind}|SOCK_CLOEXEC, 0) = {fd}")
        return fd

    def connect(self, pid: int, address: str, result: str = UNREACHABLE, fd: str = "4") -> None:
        self.line(pid, f"connect({fd}, {address}, 16) = {result}")

    def send(self, pid: int, data: str, address: str = "NULL", result: str = "1") -> None:
        length = 0 if address == "NULL" else 16
        self.line(pid, f"sendto(4, {hexed(data)}, 9, 0, {address}, {length}) = {result}")

    def end(self, pid: int, code: int = 0) -> None:
        self.line(pid, f"exit_group({code}) = ?")
        self.line(pid, f"+++ exited with {code} +++")

    def say(self, event: str, pid: int = MAIN, **fields: Any) -> None:
        line = json.dumps({"event": event, "pid": pid - 99, **fields})
        self.witness.take(f"{line}\n".encode())

    def finish(self, **questions: float) -> None:
        self.story.finish(
            {name.replace("_", "."): Questions(at, ["A"]) for name, at in questions.items()}
        )

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def lies(self) -> list[str]:
        return [event.what for event in self.of(TraceContradicted)]


@pytest.fixture
def tape() -> Tape:
    tape = Tape()
    tape.start("-c", "import x")
    return tape


# --- processes ------------------------------------------------------------------------------------


def test_a_phase_from_its_launcher_to_its_end(tape: Tape) -> None:
    assert (tape.story.started, tape.story.main_exit) == (True, None)
    assert not tape.story.python_witness
    tape.say("start")
    tape.run("/bin/sh", "sh", "-c", "true")
    tape.line(CHILD, "+++ killed by SIGKILL +++")
    tape.end(MAIN, 3)
    tape.end(100, 3)
    assert tape.story.main_exit == (3, None)
    tape.finish()
    assert tape.story.python_witness
    main = (JAIL_PYTHON, "-c", "import x")
    assert tape.of(ProcessEnded) == [
        ProcessEnded(100, 0, ("launch.py",), 3, None, True, False),
        ProcessEnded(MAIN, 100, main, 3, None, True, True),
        ProcessEnded(CHILD, MAIN, ("sh", "-c", "true"), None, "SIGKILL", False, True),
    ]
    assert not tape.of(WitnessTampered)


def test_without_a_launcher_nothing_is_told() -> None:
    tape = Tape()
    tape.execute(99, "/usr/bin/nsjail")
    tape.connect(99, FAR)
    tape.finish()
    assert (tape.story.started, tape.story.main_exit, tape.events) == (False, None, [])


def test_what_a_child_does_before_its_birth_is_told_waits(tape: Tape) -> None:
    tape.line(MAIN, "vfork( <unfinished ...>")
    tape.execute(CHILD, "/nowhere/sh", "sh", result=MISSING)
    tape.fork(CHILD, 103)
    tape.connect(103, FAR)
    tape.execute(CHILD, "/bin/sh", "sh")
    tape.end(103)
    assert len(tape.of(Exec)) == 1
    tape.line(MAIN, f"<... vfork resumed>) = 3 /* {CHILD} in strace's PID NS */")
    assert [event.program for event in tape.of(Exec)] == [JAIL_PYTHON, "/bin/sh"]
    tape.finish()
    parents = {event.pid: event.ppid for event in tape.of(ProcessEnded)}
    assert parents == {100: 0, MAIN: 100, CHILD: MAIN, 103: CHILD}


def test_a_parent_that_never_returns_hides_nothing(tape: Tape) -> None:
    tape.line(MAIN, "vfork( <unfinished ...>")
    for port in range(MAX_WAITING_BYTES // 4096 + 10):
        tape.connect(CHILD, inet("203.0.113.1", port))
    assert len(tape.of(Connection)) == MAX_WAITING_BYTES // 4096 + 10
    tape.line(MAIN, "vfork( <unfinished ...>")
    tape.connect(103, FAR)
    tape.finish()
    assert tape.of(Connection)[-1].target == "203.0.113.1:443"


def test_a_chain_of_a_thousand_births_is_followed(tape: Tape) -> None:
    for pid in range(MAIN, MAIN + 1000):
        tape.line(pid, "vfork( <unfinished ...>")
    tape.connect(MAIN + 1000, FAR)
    for pid in range(MAIN + 999, MAIN - 1, -1):
        outside = f"/* {pid + 1} in strace's PID NS */"
        tape.line(pid, f"<... vfork resumed>) = {pid - 98} {outside}")
    assert [event.actor.pid for event in tape.of(Connection)] == [MAIN + 1000]


def test_threads_act_in_the_name_of_their_process(tape: Tape) -> None:
    tape.connect(103, FAR)
    tape.fork(MAIN, 103, "CLONE_VM|CLONE_THREAD")
    tape.connect(103, inet("203.0.113.2", 1))
    tape.line(103, "+++ exited with 0 +++")
    assert {event.actor.pid for event in tape.of(Connection)} == {MAIN}
    # The number comes again, as a process.
    tape.fork(MAIN, 103)
    tape.connect(103, inet("203.0.113.3", 1))
    assert tape.of(Connection)[-1].actor.pid == 103


def test_a_thread_that_becomes_a_program(tape: Tape) -> None:
    tape.fork(MAIN, 103, "CLONE_VM|CLONE_THREAD")
    program = f"execve({hexed('/bin/sh')}, [{hexed('sh')}], 0x1 /* 3 vars */"
    tape.line(103, f"{program} <pid changed to {MAIN} ...>")
    tape.line(MAIN, "+++ superseded by execve in pid 103 +++")
    tape.line(MAIN, "<... execve resumed>) = 42")
    assert tape.of(Exec)[-1].program == "/bin/sh"
    assert tape.lies() == ["the first call of sh, number 42, was not shown"]
    tape.fork(MAIN, 103)
    tape.connect(103, FAR)
    assert tape.of(Connection)[-1].actor.pid == 103


@pytest.mark.parametrize("number", [231, 273], ids=["it only ends", "its C library starts"])
def test_a_thread_s_program_that_begins_like_any_other_hides_nothing(
    tape: Tape, number: int
) -> None:
    tape.fork(MAIN, 103, "CLONE_VM|CLONE_THREAD")
    program = f"execve({hexed('/bin/sh')}, [{hexed('sh')}], 0x1 /* 3 vars */"
    tape.line(103, f"{program} <pid changed to {MAIN} ...>")
    tape.line(MAIN, f"<... execve resumed>) = -1 (errno {(1 << 64) - number})")
    assert tape.of(Exec)[-1].program == "/bin/sh" and not tape.lies()
    # What comes after that is shown.
    tape.connect(MAIN, FAR)
    assert tape.of(Connection)[-1].actor.pid == MAIN


def test_in_a_flood_of_processes_those_that_acted_are_kept(tape: Tape) -> None:
    for pid in range(200, 200 + MAX_QUIET + 50):
        tape.fork(MAIN, pid)
        tape.end(pid)
    tape.run("/bin/true", "true")
    tape.end(CHILD)
    tape.finish()
    kept = tape.of(ProcessEnded)
    assert tape.story.lost == {"process": 50}
    assert [event.pid for event in kept if event.acted] == [MAIN, CHILD]
    assert len(kept) == MAX_QUIET + 3


def test_what_waits_for_the_end_is_told(tape: Tape) -> None:
    tape.run("/bin/sleep", "sleep", "60")
    tape.end(MAIN)
    tape.end(100)
    tape.finish()
    assert tape.of(LeftAtWork) == [LeftAtWork(1, "sleep 60")]


# --- programs -------------------------------------------------------------------------------------


def test_a_search_along_the_path_is_one_program(tape: Tape) -> None:
    tape.fork(MAIN, CHILD)
    for folder in ("/usr/local/bin", "/nowhere"):
        tape.execute(CHILD, f"{folder}/true", "true", "x", result=MISSING)
    tape.execute(CHILD, "/usr/bin/true", "true", "x")
    (event,) = tape.of(Exec)[1:]
    assert (event.program, event.argv, event.error) == ("/usr/bin/true", ("true", "x"), None)


def test_a_program_that_is_nowhere_is_told_once(tape: Tape) -> None:
    tape.fork(MAIN, CHILD)
    for folder in ("/usr/local/bin", "/usr/bin"):
        tape.execute(CHILD, f"{folder}/curl-x", "curl", result=MISSING)
    tape.execute(CHILD, "/usr/bin/wget-x", "wget", result=MISSING)
    tape.end(CHILD, 127)
    found = [(event.program, event.error) for event in tape.of(Exec)[1:]]
    assert found == [("/usr/local/bin/curl-x", "ENOENT"), ("/usr/bin/wget-x", "ENOENT")]


def test_who_started_it_and_where_python_says_so(tape: Tape) -> None:
    tape.say("spawn", what="true a", at="x.py:3")
    tape.run("/bin/true", "true", "a")
    event = tape.of(Exec)[-1]
    main = f"{JAIL_PYTHON} -c import x"
    assert event.actor == Actor(CHILD, main, "x.py:3", own=False, hidden=False)
    assert event.actor.witness == ["kernel", "python"]


@pytest.mark.parametrize("program", ["/tmp/python3", JAIL_PYTHON])
def test_what_a_python_starts_without_a_word_is_hidden(tape: Tape, program: str) -> None:
    tape.run(program, "python3")
    tape.fork(CHILD, 103)
    tape.execute(103, "/bin/true", "true")
    assert tape.of(Exec)[-1].actor.hidden


def test_the_library_s_look_for_its_own_address_is_not_hidden(tape: Tape) -> None:
    """getaddrinfo of a server that listens everywhere; and of nobody else's address."""
    tape.say("start")
    for number, address in enumerate(("0.0.0.0", "203.0.113.9")):  # noqa: S104
        fd = tape.socket(MAIN, 70 + number, kind="DGRAM")
        tape.connect(MAIN, inet(address, 1), "0", fd)
    hidden = {event.target: event.actor.hidden for event in tape.of(Connection)}
    assert hidden == {"0.0.0.0:1": False, "203.0.113.9:1": True}


def test_a_datagram_to_this_machine_is_told_when_it_is_sent(tape: Tape) -> None:
    """getaddrinfo of a server on the loopback gives its socket an address, and sends nothing."""
    for number, address in enumerate(("127.0.0.1", "::1")):
        family = "AF_INET6" if ":" in address else "AF_INET"
        fd = tape.socket(MAIN, 70 + number, family, "DGRAM")
        tape.connect(MAIN, inet(address, 8888), "0", fd)
    assert tape.of(Connection) == []
    tape.line(MAIN, f'sendto({fd}, "\\x61", 1, 0, NULL, 0) = 1')
    stream = tape.socket(MAIN, 80)
    tape.connect(MAIN, inet("127.0.0.1", 9), "0", stream)
    told = [(event.net, event.target) for event in tape.of(Connection)]
    assert told == [(Net.UDP, "[::1]:8888"), (Net.TCP, "127.0.0.1:9")]


def test_what_is_deleted_among_our_own_samples_is_no_news(tape: Tape) -> None:
    tape.story.passed_over = ("/tmp/samples/",)
    tape.line(MAIN, f"unlink({hexed('/tmp/samples/x.pth')}) = 0")
    tape.line(MAIN, f"unlink({hexed('/tmp/samples/../x.pth')}) = 0")
    assert [event.path for event in tape.of(FileChanged)] == ["/tmp/x.pth"]


def test_what_the_launcher_starts_in_an_installation_is_pip_each_time() -> None:
    """And what pip starts is not."""
    tape = Tape("pip")
    tape.start("-P", "-m", "pip", "install", "a", "b")
    tape.say("start")
    tape.fork(100, 300)
    tape.execute(300, JAIL_PYTHON, JAIL_PYTHON, "-P", "-m", "pip", "install", "a")
    tape.say("start", 300)
    tape.fork(300, 301)
    tape.execute(301, "/usr/bin/uname", "uname", "-rs")
    tape.fork(300, 302)
    tape.execute(302, "/bin/git", "git", "clone")
    owns = {event.program: event.actor.own for event in tape.of(Exec)}
    assert owns[JAIL_PYTHON] and owns["/usr/bin/uname"]
    tape.connect(302, FAR)
    assert not tape.of(Connection)[-1].actor.own


def test_a_python_of_the_system_has_no_hook_that_could_be_silent(tape: Tape) -> None:
    tape.run("/usr/bin/python3", "python3")
    tape.connect(CHILD, FAR)
    assert not tape.of(Connection)[-1].actor.hidden


def test_what_compiled_code_does_is_told_as_that(tape: Tape) -> None:
    tape.say("native", MAIN, what="/srv/site/x/numpy/core.so", at="x.py:1")
    tape.say("native", MAIN, what="/srv/site/x/x/_native.abi3.so", at="x.py:2")
    tape.connect(MAIN, FAR)
    actor = tape.of(Connection)[-1].actor
    assert (actor.hidden, actor.native) == (False, "_native.abi3.so, core.so")
    # What is loaded in one process is not in another.
    tape.run(JAIL_PYTHON, "python")
    tape.connect(CHILD, FAR)
    assert tape.of(Connection)[-1].actor.hidden


def test_who_goes_around_python_is_hidden_whatever_else_is_loaded(tape: Tape) -> None:
    tape.say("native", MAIN, what="/srv/site/x/numpy/core.so", at="x.py:1")
    tape.say("around", MAIN, what="connect", at="x.py:2")
    tape.connect(MAIN, FAR)
    actor = tape.of(Connection)[-1].actor
    assert (actor.hidden, actor.native) == (True, "")


def test_a_python_that_speaks_to_a_resolver_by_itself_is_not_hidden(tape: Tape) -> None:
    tape.say("address", what=["127.0.0.1", 53], at="resolver.py:9")
    tape.send(MAIN, question("own.example"), inet("127.0.0.1", 53))
    tape.story.finish({"own.example": Questions(1.0, ["A"])})
    (event,) = tape.of(NameAsked)
    assert (event.actor.place, event.actor.hidden) == ("resolver.py:9", False)


def test_what_a_shell_starts_without_a_word_is_not_hidden(tape: Tape) -> None:
    tape.say("spawn", what="sh", at="x.py:3")
    tape.run("/bin/sh", "sh")
    tape.fork(CHILD, 103)
    tape.execute(103, "/bin/true", "true")
    assert not any(event.actor.hidden for event in tape.of(Exec))


def test_a_process_in_which_the_hook_spoke_is_a_python_whatever_its_name(tape: Tape) -> None:
    tape.run("/bin/sh", "sh")
    tape.say("start", CHILD)
    tape.connect(CHILD, FAR)
    assert tape.of(Connection)[-1].actor.hidden


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("//tmp/x", "/tmp/x"),
        ("/usr/../tmp/./x", "/tmp/x"),
        ("/tmp/link/../../usr/bin/gcc", "/tmp/link/../../usr/bin/gcc"),
        ("/usr/../tmp/link/../../usr/bin/gcc", "/tmp/link/../../usr/bin/gcc"),
        ("./here", "here"),
        ("../here", "../here"),
        ("", NAMELESS),
        ("/tmp/\udcff\n", "/tmp/\\\\xff\\n"),
    ],
)
def test_a_program_s_path_is_told_plainly(tape: Tape, path: str, shown: str) -> None:
    tape.run(path, "x")
    assert tape.of(Exec)[-1].program == shown
    assert plain_path(shown) == shown


def test_a_program_that_is_started_by_its_folder(tape: Tape) -> None:
    tape.fork(MAIN, CHILD)
    folder = f"5<{hexed('/tmp/x')[1:-1]}>"
    words = f"[{hexed('gcc')}], 0x1 /* 3 vars */"
    tape.line(CHILD, f"execveat({folder}, {hexed('gcc')}, {words}, 0) = 0")
    tape.line(CHILD, f"execveat({folder}, {hexed('')}, {words}, AT_EMPTY_PATH) = 0")
    assert [event.program for event in tape.of(Exec)[1:]] == ["/tmp/x/gcc", NAMELESS]


def test_long_commands_are_bounded_and_searched(tape: Tape) -> None:
    tape.run("/bin/sh", "sh", *["x" * 4000] * 200)
    event = tape.of(Exec)[-1]
    assert sum(map(len, event.argv)) <= 16 << 10
    kind, where, data, actor = tape.searched[-1]
    assert (kind, len(where), actor.pid) == ("command", 200, CHILD)
    assert len(data) == 64 << 10


def test_a_look_into_another_process_is_told_once_and_into_its_own_memory_is_not(
    tape: Tape,
) -> None:
    own, other = MAIN - 99, CHILD - 99
    for line in (
        "ptrace(PTRACE_TRACEME)",
        "ptrace(PTRACE_TRACEME)",
        f"process_vm_readv({own}, NULL, 0, NULL, 0, 0)",
        f"process_vm_writev({other} /* {CHILD} in strace's PID NS */, NULL, 0, NULL, 0, 0)",
    ):
        tape.line(MAIN, f"{line} = -1 ENOSYS (Function not implemented) (INJECTED)")
    told = [event.call for event in tape.of(LookedInto)]
    assert told == ["ptrace(PTRACE_TRACEME)", "process_vm_writev"]


def test_how_often_the_trace_was_lied_to_is_told_when_the_process_ends(tape: Tape) -> None:
    for _ in range(3):
        tape.run("/usr/bin/x86_64-linux-gnu-gcc-none", "gcc")
    assert len(tape.lies()) == 1
    tape.line(CHILD, "+++ exited with 0 +++")
    assert len(tape.lies()) == 2 and tape.lies()[-1].endswith(", 3 times")


def test_a_program_that_can_t_have_been_started_is_a_lie_of_the_trace(tape: Tape) -> None:
    tape.run("/usr/bin/x86_64-linux-gnu-gcc-none", "gcc")
    assert len(tape.lies()) == 1 and "/usr/bin/x86_64-linux-gnu-gcc-none" in tape.lies()[0]
    assert tape.of(Exec)[-1].program == "/usr/bin/x86_64-linux-gnu-gcc-none"
    tape.line(CHILD, f"execve(0x1000, [{hexed('gcc')}], 0x1 /* 3 vars */) = 0")
    assert len(tape.lies()) == 2 and tape.of(Exec)[-1].program == NAMELESS


def test_what_the_kernel_started_counts_where_it_is_known() -> None:
    found = {
        CHILD: Observed(b"/usr/bin/wget", (b"wget", b"http://x"), False, True),
        103: Observed(b"/usr/bin/true", (b"true",), True, True),
    }
    tape = Tape(look=lambda call: found.get(call.pid))
    tape.start("-c", "x")
    tape.run("/bin/cat", "cat")
    event = tape.of(Exec)[-1]
    assert (event.program, event.argv) == ("/usr/bin/wget", ("wget", "http://x"))
    assert len(tape.lies()) == 1 and "/usr/bin/wget http://x" in tape.lies()[0]
    tape.run("/bin/true", "true", pid=103)
    assert len(tape.lies()) == 1 and tape.of(Exec)[-1].program == "/bin/true"


def test_a_process_that_starts_its_own_program_anew_has_that_program_s_name() -> None:
    tape = Tape(look=lambda _: Observed(b"/usr/bin/wget", (b"x", b"y"), True, True))
    tape.start("-c", "x")
    tape.run("/proc/self/exe", "x", "y")
    assert tape.of(Exec)[-1].program == "/usr/bin/wget"
    assert tape.lies() == []


def test_what_had_gone_on_before_it_could_be_looked_at_is_told_as_both_and_counted() -> None:
    tape = Tape(look=lambda _: Observed(b"/usr/bin/wget", (b"wget",), False, False))
    tape.start("-c", "x")
    tape.run("/bin/cat", "cat")
    assert [event.program for event in tape.of(Exec)][-2:] == ["/bin/cat", "/usr/bin/wget"]
    assert tape.lies() == []
    tape.finish()
    (unchecked,) = tape.of(StartsUnchecked)
    assert unchecked.count >= 1


def test_what_the_launcher_starts_may_have_changed_its_words_before_it_is_looked_at() -> None:
    words = (JAIL_PYTHON.encode(), b"-c", b"import asyncio")
    tape = Tape(look=lambda _: Observed(b"/usr/local/bin/python3.11", words, False, False))
    tape.start("launch.py", "run")
    # Its own child, which knows the trick, is no child of the launcher.
    tape.run(JAIL_PYTHON, JAIL_PYTHON, "launch.py", "run")
    told = [event.argv[1] for event in tape.of(Exec)]
    assert told == ["launch.py", "launch.py", "-c"]
    tape.finish()
    (unchecked,) = tape.of(StartsUnchecked)
    assert (unchecked.count, tape.lies()) == (1, [])


def test_what_was_gone_is_told_as_the_trace_has_it_and_counted() -> None:
    tape = Tape(look=lambda _: None)
    tape.start("-c", "x")
    tape.run("/bin/true", "true")
    tape.finish()
    assert tape.of(Exec)[-1].program == "/bin/true"
    assert tape.lies() == [] and len(tape.of(StartsUnchecked)) == 1


LATE = Observed(b"/usr/sbin/ldconfig", (b"ldconfig",), True, False)


@pytest.mark.parametrize(
    ("found", "then", "count"),
    [
        (LATE, "", 0),
        (None, "", 0),
        # It may have been another before.
        (LATE, "/sbin/ldconfig", 1),
        # Whatever it was, it has done something.
        (None, "/bin/curl", 1),
        (None, "a child", 0),
        (None, "a copy", 1),
    ],
)
def test_a_plain_program_that_was_looked_at_late_is_known(
    found: Observed | None, then: str, count: int
) -> None:
    in_time = Observed(b"/usr/bin/curl", (b"curl",), True, True)
    looks = iter([found, in_time])
    tape = Tape(look=lambda call: next(looks) if call.pid == 103 else in_time)
    tape.start("-c", "x")
    tape.run("/sbin/ldconfig", "ldconfig", "-p", pid=103)
    if then.startswith("/"):
        tape.execute(103, then, then.rpartition("/")[2])
    elif then:
        tape.fork(103, 104)
    if then == "a child":
        tape.execute(104, "/bin/ld", "ld")
    elif then == "a copy":
        tape.connect(104, FAR)
    tape.finish()
    assert sum(event.count for event in tape.of(StartsUnchecked)) == count


def test_what_pip_starts_need_not_be_looked_at() -> None:
    tape = Tape("pip", look=lambda _: None)
    tape.start("-P", "-m", "pip", "install")
    tape.run("/usr/bin/uname", "uname")
    tape.finish()
    assert tape.of(StartsUnchecked) == []


def test_without_the_right_to_see_the_file_the_words_of_the_kernel_are_told() -> None:
    words = (b"/bin/sh", b"-e", b"/usr/bin/which", b"cc")
    tape = Tape(look=lambda _: Observed(b"", words, True, True))
    tape.start("-c", "x")
    tape.run("/usr/bin/which", "which", "cc")
    assert tape.of(Exec)[-1].argv == ("/bin/sh", "-e", "/usr/bin/which", "cc")
    assert tape.lies() == []


# --- pip ------------------------------------------------------------------------------------------

RUNNER = "/opt/venv/lib/python3.11/site-packages/pip/__pip-runner__.py"


@pytest.fixture
def pip() -> Tape:
    tape = Tape("pip")
    tape.start("-P", "-m", "pip", "install")
    return tape


def test_pip_s_own_doing_is_its_own(pip: Tape) -> None:
    pip.connect(MAIN, inet("127.0.0.1", 3141), "0")
    pip.run(JAIL_PYTHON, JAIL_PYTHON, RUNNER, "install")
    pip.connect(CHILD, inet("127.0.0.1", 8), REFUSED)
    pip.run("/usr/bin/lsb_release", "lsb_release", pid=103)
    pip.execute(103, "/usr/bin/python3", "python3", "/usr/bin/lsb_release")
    assert all(event.actor.own for event in pip.of(Exec))
    (connection,) = pip.of(Connection)
    assert connection.actor.own and not connection.actor.hidden


@pytest.mark.parametrize(
    ("program", "argv"),
    [
        ("/usr/bin/git", ("git", "clone")),
        (JAIL_PYTHON, (JAIL_PYTHON, "-c", "x", RUNNER)),
        (JAIL_PYTHON, (JAIL_PYTHON, "/tmp/x/pip/__pip-runner__.py")),
        ("/tmp/lsb_release", ("lsb_release",)),
        ("/usr/bin/../../tmp/lsb_release", ("lsb_release",)),
    ],
)
def test_what_pip_starts_is_the_package_s(pip: Tape, program: str, argv: tuple[str, ...]) -> None:
    pip.run(program, *argv)
    pip.connect(CHILD, FAR)
    assert not pip.of(Connection)[-1].actor.own
    pip.execute(CHILD, JAIL_PYTHON, JAIL_PYTHON, RUNNER)  # it is too late to become pip
    pip.fork(CHILD, 103)
    pip.execute(103, JAIL_PYTHON, JAIL_PYTHON, RUNNER)
    assert not any(event.actor.own for event in pip.of(Exec)[2:])


def test_a_far_host_is_not_pip_s_own(pip: Tape) -> None:
    pip.connect(MAIN, FAR)
    assert not pip.of(Connection)[-1].actor.own
    pip.finish(exfil_example=1.0)
    assert not pip.of(NameAsked)[-1].actor.own


def test_without_the_index_its_port_is_anybody_s(tape: Tape) -> None:
    tape.connect(MAIN, inet("127.0.0.1", 3141), REFUSED)
    assert [event.target for event in tape.of(Connection)] == ["127.0.0.1:3141"]


# --- helpers of multiprocessing -------------------------------------------------------------------

TRACKER = "from multiprocessing.resource_tracker import main;main(5)"
SPAWN = "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=6, pipe_handle=8)"
SERVER = (
    "from multiprocessing.forkserver import main; main(5, 6, ['__main__'], **{'sys_path': "
    "['/x', \"/it's\", '/usr/lib/python311.zip'], 'main_path': '/x/y.py'})"
)
FORK = "--multiprocessing-fork"
POOLS: dict[tuple[str, ...], bool] = {
    ("-c", TRACKER): True,
    ("-E", "-Wdefault", "-c", TRACKER): True,
    ("-c", SPAWN, FORK): True,
    ("-c", SERVER): True,
    ("-c", "from multiprocessing.forkserver import main; main(5, 6, [], **{})"): True,
    ("-c", SPAWN): False,
    ("-c", TRACKER, FORK): False,
    ("-c", f"{TRACKER}; import os"): False,
    ("-c", f"import os; {TRACKER}"): False,
    ("-c", f"{TRACKER}\nimport os"): False,
    ("-c", SERVER.replace("'/x'", "__import__('os').system('id')")): False,
    ("-c", SERVER.replace("'/x/y.py'", "'/x' + exec('x')")): False,
    ("-c", SPAWN, FORK, "more"): False,
    ("-S", "-c", SPAWN, FORK): False,
    ("-I", "-c", SPAWN, FORK): False,
    ("-X", "frozen_modules", "-c", SPAWN, FORK): False,
    ("x.py", "-c", SPAWN, FORK): False,
    ("-c", "from multiprocessing.x import y"): False,
    ("from multiprocessing.",): False,
    ("-c",): False,
    (): False,
}


@pytest.mark.parametrize(("words", "is_helper"), POOLS.items())
def test_only_the_library_s_own_helpers_are_that(words: tuple[str, ...], is_helper: bool) -> None:
    assert is_pool_helper(JAIL_PYTHON, (JAIL_PYTHON, *words)) == is_helper
    assert not is_pool_helper("/usr/bin/python3", ("/usr/bin/python3", *words))
    assert not is_pool_helper("/tmp/python3", (JAIL_PYTHON, *words))
    assert not is_pool_helper(JAIL_PYTHON, ("gcc", *words))


def test_a_helper_is_never_hidden_and_what_only_looks_like_one_is(tape: Tape) -> None:
    tape.run(JAIL_PYTHON, JAIL_PYTHON, "-c", TRACKER)
    event = tape.of(Exec)[-1]
    assert event.pool_helper and not event.actor.hidden
    tape.run("/bin/true", "true", "from multiprocessing.x", pid=103)
    event = tape.of(Exec)[-1]
    assert not event.pool_helper and event.actor.hidden


WORKERS: dict[tuple[str, ...], bool] = {
    ("-B", "-c", "from loky.backend.resource_tracker import main; main(5, 0)"): True,
    ("-m", "joblib.externals.loky.backend.popen_loky_posix", "--process-name", "x"): True,
    ("-Wdefault", "x.py", "-S"): True,
    ("-B",): True,
    (): True,
    ("-S", "-c", "x"): False,
    ("-I", "x.py"): False,
    ("-B", "-E", "-X", "dev", "-c", "x"): False,
    ("-",): False,
}


@pytest.mark.parametrize(("words", "keeps"), WORKERS.items())
def test_only_the_jail_s_own_python_keeps_the_hook(words: tuple[str, ...], keeps: bool) -> None:
    assert keeps_hook(JAIL_PYTHON, (JAIL_PYTHON, *words)) == keeps
    assert not keeps_hook("/usr/bin/python3", ("/usr/bin/python3", *words))
    assert not keeps_hook("/tmp/python", ("/tmp/python", *words))
    assert not keeps_hook(JAIL_PYTHON, ("sh", *words))


@pytest.mark.parametrize(
    ("program", "words", "speaks", "is_hidden"),
    [
        # A worker of a pool, which joblib starts by a call that has no audit event.
        (JAIL_PYTHON, ("-m", "pool.worker"), True, False),
        # What never speaks, and what is no Python of the jail.
        (JAIL_PYTHON, ("-m", "pool.worker"), False, True),
        (JAIL_PYTHON, ("-S", "-m", "pool.worker"), True, True),
        ("/usr/bin/python3", ("-m", "pool.worker"), True, True),
        ("/bin/true", (), True, True),
    ],
)
def test_a_python_that_was_started_unsaid_is_hidden_unless_it_speaks(
    tape: Tape, program: str, words: tuple[str, ...], speaks: bool, is_hidden: bool
) -> None:
    tape.run(program, program, *words)
    if speaks:
        tape.say("start", CHILD, what=[program, *words])
    tape.end(CHILD)
    told = [event for event in tape.of(Exec) if event.argv == (program, *words)]
    assert told
    assert any(event.actor.hidden for event in told) == is_hidden


def test_a_python_that_nobody_let_speak_is_not_hidden(tape: Tape) -> None:
    tape.run(JAIL_PYTHON, JAIL_PYTHON, "-m", "pool.worker")
    tape.line(CHILD, "+++ killed by SIGKILL +++")
    assert not any(event.actor.hidden for event in tape.of(Exec))


def test_a_forged_list_of_paths_takes_no_time() -> None:
    path = "'" + "\\'" * 2000 + "a', " * 2000
    assert not is_pool_helper(JAIL_PYTHON, (JAIL_PYTHON, "-c", SERVER.replace("'/x', ", path)))


# --- whom it reaches for --------------------------------------------------------------------------


def test_a_connection_is_told_once_with_its_kind(tape: Tape) -> None:
    tcp, udp = tape.socket(MAIN, 7), tape.socket(MAIN, 8, kind="DGRAM")
    for _ in range(3):
        tape.connect(MAIN, FAR, fd=tcp)
        tape.connect(MAIN, FAR, fd=udp)
        tape.connect(MAIN, FAR, UNDER_WAY, tcp)
    found = [(event.net, event.target, event.error) for event in tape.of(Connection)]
    target = "203.0.113.1:443"
    assert found == [
        (Net.TCP, target, "ENETUNREACH"),
        (Net.UDP, target, "ENETUNREACH"),
        (Net.TCP, target, "EINPROGRESS"),
    ]


def test_what_there_is_no_room_for_is_told_when_there_is(tape: Tape) -> None:
    tape.is_full = True
    tape.connect(MAIN, FAR)
    tape.is_full = False
    tape.connect(MAIN, FAR)
    assert len(tape.of(Connection)) == 1


def test_python_s_word_for_a_connection(tape: Tape) -> None:
    tape.say("address", what=["203.0.113.1", 443], at="x.py:3")
    tape.say("address", what=["localhost", 8], at="x.py:4")
    tape.say("address", what=["far.example", 9], at="x.py:5")
    tape.connect(MAIN, FAR)
    tape.connect(MAIN, inet("::1", 8), REFUSED)
    tape.connect(MAIN, inet("203.0.113.9", 9))
    tape.connect(MAIN, inet("127.0.0.1", 7), REFUSED)
    found = [(event.target, event.actor.place) for event in tape.of(Connection)]
    assert found == [
        ("203.0.113.1:443", "x.py:3"),
        ("[::1]:8", "x.py:4"),
        ("203.0.113.9:9", None),  # a host by name can't be it: it would not have resolved
        ("127.0.0.1:7", None),
    ]
    assert [event.actor.hidden for event in tape.of(Connection)] == [False, False, True, False]


def test_a_listener(tape: Tape) -> None:
    tape.say("address", what=["", 80], at="x.py:3")
    tape.line(MAIN, f"bind(4, {inet('0.0.0.0', 80)}, 16) = 0")  # noqa: S104
    (event,) = tape.of(Connection)
    assert (event.net, event.listens, event.actor.place) == (Net.OTHER, True, "x.py:3")


@pytest.mark.parametrize(
    ("bound", "port", "result", "is_inside"),
    [
        (0, 40000, "0", True),
        (0, 40000, UNDER_WAY, True),
        (40000, 40000, "0", True),
        # Nobody answers: he looks for another's server.
        (0, 40000, REFUSED, False),
        # A port that nobody is given by chance may be the victim's.
        (0, 9222, "0", False),
        (9222, 9222, "0", False),
        (40001, 40000, "0", False),
        (None, 40000, "0", False),
    ],
)
def test_who_connects_to_a_port_that_he_was_given_speaks_to_himself(
    tape: Tape, bound: int | None, port: int, result: str, is_inside: bool
) -> None:
    if bound is not None:
        tape.line(MAIN, f"bind(4, {inet('127.0.0.1', bound)}, 16) = 0")
    tape.connect(MAIN, inet("127.0.0.1", port), result)
    (event,) = [event for event in tape.of(Connection) if not event.listens]
    assert event.is_inside is is_inside


def test_what_could_not_be_bound_is_no_server(tape: Tape) -> None:
    in_use = "-1 EADDRINUSE (Address already in use)"
    tape.line(MAIN, f"bind(4, {inet('127.0.0.1', 40000)}, 16) = {in_use}")
    tape.connect(MAIN, inet("127.0.0.1", 40000), "0")
    assert not any(event.is_inside for event in tape.of(Connection))


def test_the_jail_s_plumbing_is_passed_over(tape: Tape) -> None:
    tape.connect(MAIN, inet("127.0.0.1", 53), "0")
    tape.connect(MAIN, inet("127.0.0.1", 53), UNDER_WAY)
    tape.connect(MAIN, NSCD, MISSING)
    tape.connect(MAIN, NSCD, REFUSED)
    assert tape.of(Connection) == [] and tape.lies() == []
    tape.line(MAIN, f"bind(4, {inet('127.0.0.1', 53)}, 16) = -1 EACCES (Permission denied)")
    assert len(tape.of(Connection)) == 1


LIES = {
    "nscd, to which there is no route": (NSCD, UNREACHABLE),
    "nscd, of another family": (NSCD, NOT_OF_FAMILY),
    "nscd, under way": (NSCD, UNDER_WAY),
    "nscd, which is not there": (NSCD, "0"),
    "another path": (unix("/tmp/s"), UNREACHABLE),
    "the resolver": (inet("127.0.0.1", 53), UNREACHABLE),
    "this machine": (inet("127.0.0.1", 9), UNREACHABLE),
    "this machine by IPv6": (inet("::1", 9), UNREACHABLE),
    "this machine, of another family": (inet("127.0.0.1", 9), NOT_OF_FAMILY),
    "this machine, no host": (inet("127.0.0.1", 9), "-1 EHOSTUNREACH (No route to host)"),
    "an end": ('{sa_family=AF_UNSPEC, sa_data=""}', UNREACHABLE),
    "the kernel": ("{sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}", UNREACHABLE),
    "what can't be read": ("0x1000", "0"),
}


@pytest.mark.parametrize(("address", "result"), LIES.values(), ids=LIES)
def test_a_result_that_the_address_can_t_have_is_told(
    tape: Tape, address: str, result: str
) -> None:
    tape.connect(MAIN, address, result)
    tape.connect(MAIN, address, result)
    assert len(tape.lies()) == 1, tape.events
    tape.send(MAIN, "x", address, result)
    assert len(tape.lies()) == 2


TRUTHS = {
    "far": (FAR, UNREACHABLE),
    "far, of another family": (FAR, NOT_OF_FAMILY),
    "this machine": (inet("127.0.0.1", 9), REFUSED),
    "this machine, answering": (inet("127.0.0.1", 9), "0"),
    "no such address": (inet("::1", 9), "-1 EADDRNOTAVAIL (Cannot assign requested address)"),
    "a path": (unix("/tmp/s"), "0"),
    "a path that is not there": (unix("/tmp/s"), MISSING),
    "an end": ('{sa_family=AF_UNSPEC, sa_data=""}', "0"),
    "the kernel": ("{sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}", "0"),
    "what can't be read": ("0x1000", "-1 EFAULT (Bad address)"),
}


@pytest.mark.parametrize(("address", "result"), TRUTHS.values(), ids=TRUTHS)
def test_a_result_that_an_address_can_have_is_no_lie(tape: Tape, address: str, result: str) -> None:
    tape.connect(MAIN, address, result)
    tape.send(MAIN, "x", address, result)
    assert tape.lies() == []


def test_an_address_of_another_family_than_its_socket_is_a_lie(tape: Tape) -> None:
    fd = tape.socket(MAIN, 7)
    tape.connect(MAIN, NSCD, MISSING, fd)
    assert len(tape.lies()) == 1
    tape.connect(MAIN, "{sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}", "0", fd)
    assert len(tape.lies()) == 2
    udp = tape.socket(MAIN, 8, "AF_INET6", "DGRAM")
    tape.connect(MAIN, FAR, fd=udp)  # the C library does so
    tape.connect(MAIN, NSCD, MISSING, tape.socket(MAIN, 9, "AF_UNIX"))
    assert len(tape.lies()) == 2


def test_messages_to_this_machine_that_were_left_unsent_are_a_lie(tape: Tape) -> None:
    def send(first: str, second: str, count: int) -> None:
        message = "{{msg_hdr={{msg_name={}, msg_namelen=16, msg_iov=[], msg_iovlen=0}}}}"
        both = f"[{message.format(first)}, {message.format(second)}]"
        tape.line(MAIN, f"sendmmsg(4, {both}, 2, 0) = {count}")

    near = inet("127.0.0.1", 9)
    send(near, near, 2)
    send(near, FAR, 1)
    assert tape.lies() == [] and tape.of(Connection)[-1].target == "203.0.113.1:443"
    send(near, near, 1)
    assert len(tape.lies()) == 1


def test_a_call_whose_line_is_cut_is_told(tape: Tape) -> None:
    words = ", ".join([hexed("x" * 4000)] * 100)
    line = f"{MAIN} execve({hexed('/bin/sh')}, [{words}], 0x1 /* 3 vars */) = 0\n".encode()
    for start in range(0, len(line), 1 << 16):
        tape.story.take_trace(line[start : start + (1 << 16)])
    assert [event.call for event in tape.of(TraceCut)] == ["exec"]
    assert tape.of(Exec)[-1].program == "/bin/sh"


@pytest.mark.parametrize(
    ("count", "told"), [(MANY_FAILURES - 1, []), (MANY_FAILURES, [MANY_FAILURES])]
)
def test_hundreds_of_failures_are_told_once(tape: Tape, count: int, told: list[int]) -> None:
    tape.run("/bin/sh", "sh")
    for _ in range(count):
        tape.connect(CHILD, NSCD, MISSING)
        tape.connect(CHILD, inet("127.0.0.1", 9), UNDER_WAY)
        tape.execute(CHILD, "/nowhere", "x", result=MISSING)
    tape.end(CHILD)
    found = tape.of(FailedOften)
    assert [event.count for event in found] == told * 2
    if told:
        assert {(event.what, event.error) for event in found} == {
            ("unix:/var/run/nscd/socket", "ENOENT"),
            ("/nowhere", "ENOENT"),
        }


def test_a_flood_of_other_failures_hides_no_many(tape: Tape) -> None:
    for port in range(3 * MAX_FAILURES):
        tape.connect(MAIN, inet("203.0.113.1", port))
        tape.connect(MAIN, NSCD, MISSING)
    tape.end(MAIN)
    (event,) = tape.of(FailedOften)
    assert event.count == 3 * MAX_FAILURES


# --- names and packets ----------------------------------------------------------------------------


def question(name: str) -> str:
    labels = "".join(chr(len(label)) + label for label in name.split("."))
    return f"ab\1\0\0\1\0\0\0\0\0\0{labels}\0\0\1\0\1"


def test_a_name_and_who_asked_for_it(tape: Tape) -> None:
    tape.say("name", what="known.example", at="x.py:3")
    tape.connect(MAIN, inet("127.0.0.1", 53), "0")
    tape.send(MAIN, question("known.example"))
    tape.send(MAIN, question("silent.example"))
    tape.send(MAIN, question("1.0.0.10.in-addr.arpa"))
    tape.run("/bin/sh", "sh")
    tape.send(CHILD, question("known.example"), inet("127.0.0.1", 53))
    names = [f"{name}.example" for name in ("known", "silent", "unseen")]
    asked = dict.fromkeys(names, Questions(1.0, ["A"]))
    tape.story.finish({**asked, "1.0.0.10.in-addr.arpa": Questions(2.0, ["PTR"])})
    found = [(e.name, e.actor.pid, e.actor.place, e.actor.hidden) for e in tape.of(NameAsked)]
    assert found == [
        ("known.example", MAIN, "x.py:3", False),
        ("known.example", CHILD, "x.py:3", False),
        ("silent.example", MAIN, None, True),
        ("unseen.example", CHILD, None, False),  # the last who turned to the resolver
        ("1.0.0.10.in-addr.arpa", MAIN, None, False),
    ]


def test_who_connects_to_a_name_or_asks_for_one_himself_hides_nothing(tape: Tape) -> None:
    """socket.connect(("given.example", 80)), and a question that Python's own socket sends."""
    given = {"203.0.113.1": "given.example", "203.0.113.2": "other.example"}
    tape.story.reaches.name_of = given.get
    tape.say("address", what=["Given.example.", 80], at="x.py:3")
    tape.say("address", what=["127.0.0.1", 53], at="x.py:4", pid=CHILD)
    tape.send(MAIN, question("given.example"), inet("127.0.0.1", 53))
    tape.connect(MAIN, inet("203.0.113.1", 80), "0")
    tape.run(JAIL_PYTHON, JAIL_PYTHON)
    tape.send(CHILD, question("own.example"), inet("127.0.0.1", 53))
    # What neither of them says.
    tape.connect(MAIN, inet("203.0.113.2", 80), "0")
    tape.send(MAIN, question("other.example"), inet("127.0.0.1", 53))
    tape.finish(given_example=1.0, own_example=2.0, other_example=3.0)
    reached = [(e.target, e.actor.place, e.actor.hidden) for e in tape.of(Connection)]
    assert reached == [("203.0.113.1:80", "x.py:3", False), ("203.0.113.2:80", None, True)]
    asked = [(e.name, e.actor.place, e.actor.hidden) for e in tape.of(NameAsked)]
    assert asked == [
        ("given.example", "x.py:3", False),
        ("own.example", "x.py:4", False),
        ("other.example", None, True),
    ]


def test_a_name_is_never_taken_for_an_address(tape: Tape) -> None:
    names = ["unix:x.example", "127.0.0.1:80", "127.0.0.1"]
    for name in names:
        tape.send(MAIN, question(name), inet("127.0.0.1", 53))
    tape.story.finish(dict.fromkeys(names, Questions(1.0, ["A"])))
    assert [event.actor.hidden for event in tape.of(NameAsked)] == [True] * 3


def test_a_name_that_is_asked_for_elsewhere_is_told_too(tape: Tape) -> None:
    tape.send(MAIN, question("a.exfil.example"), inet("8.8.8.8", 53), UNREACHABLE)
    assert ("DNS name", "a.exfil.example", b"aexfilexample") in [
        found[:3] for found in tape.searched
    ]
    tape.finish()
    assert [event.name for event in tape.of(NameAsked)] == ["a.exfil.example"]


def test_senders_of_questions_are_bounded(tape: Tape) -> None:
    for number in range(MAX_ASKED + 10):
        tape.send(MAIN, question(f"n{number}.example"), inet("8.8.8.8", 53), UNREACHABLE)
    reaches = tape.story.reaches
    assert len(reaches.asked) == len(reaches.asked_elsewhere) == MAX_ASKED
    tape.story.finish({"late.example": Questions(1.0, ["A"])})
    assert tape.of(NameAsked)[-1].name == "late.example"


def test_what_is_sent_is_searched_for_bait(tape: Tape) -> None:
    tape.send(MAIN, "a secret")
    tape.send(MAIN, "another", FAR, UNREACHABLE)
    searched = [found[:3] for found in tape.searched if found[0] == "packet to"]
    assert searched == [
        ("packet to", "who it was connected to", b"a secret"),
        ("packet to", "203.0.113.1:443", b"another"),
    ]


# --- files ----------------------------------------------------------------------------------------


def delete(tape: Tape, pid: int, path: str, folder: str | None = None) -> None:
    if folder is None:
        tape.line(pid, f"unlink({hexed(path)}) = 0")
    else:
        tape.line(pid, f"unlinkat(5<{hexed(folder)[1:-1]}>, {hexed(path)}, 0) = 0")


def test_deleted_files_are_told_by_their_plain_name(tape: Tape) -> None:
    tape.say("open", what="/home/dev/x", at="x.py:3")
    delete(tape, MAIN, "/home/dev/x")
    delete(tape, MAIN, "x", "/home/dev")
    delete(tape, MAIN, "//tmp/../home/dev/y")
    found = [(event.path, event.change, event.place) for event in tape.of(FileChanged)]
    assert found == [
        ("/home/dev/x", Change.DELETED, "x.py:3"),
        ("/home/dev/y", Change.DELETED, None),
    ]
    tape.story.file_changed(FileChanged("/home/dev/x", Change.DELETED, None, None))
    assert len(tape.of(FileChanged)) == 2
    tape.story.file_changed(FileChanged("/home/dev/x", Change.CREATED, 5, None))
    assert tape.of(FileChanged)[-1].place == tape.story.opened_at("/home/dev/x") == "x.py:3"


def test_pip_tidies_up_and_nobody_by_way_of_it(pip: Tape) -> None:
    delete(pip, MAIN, "/home/dev/own")
    pip.run("/bin/sh", "sh")
    delete(pip, CHILD, "/tmp/pip-build/x")
    assert pip.of(FileChanged) == []
    delete(pip, CHILD, "/tmp/pip-x/../../home/dev/mark")
    delete(pip, CHILD, "/home/link/../../tmp/pip-x")
    paths = [event.path for event in pip.of(FileChanged)]
    assert paths == ["/home/dev/mark", "/tmp/pip-x"]


# --- the Python witness's own lines ---------------------------------------------------------------


def test_a_witness_that_speaks_of_nobody_is_told(tape: Tape) -> None:
    tape.say("start")
    tape.say("start", 5000)
    tape.witness.take(b"nonsense\n")
    tape.finish()
    (event,) = tape.of(WitnessTampered)
    assert event.reason == "1 malformed lines, 1 processes that do not exist"


def test_a_process_whose_number_was_never_told_is_nobody_s_forgery(tape: Tape) -> None:
    tape.line(MAIN, "vfork( <unfinished ...>")
    tape.connect(CHILD, FAR)
    tape.say("start", CHILD)
    tape.finish()
    assert tape.of(WitnessTampered) == []


def test_without_a_trace_nothing_is_said_to_be_forged() -> None:
    tape = Tape()
    tape.say("start")
    tape.finish()
    assert tape.events == [] and tape.story.python_witness


def test_whom_calls_name_is_known_when_the_launcher_has_ended() -> None:
    tape = Tape()
    tape.start("-c", "pass")
    fd = tape.socket(MAIN, 7, kind="DGRAM")
    tape.connect(MAIN, FAR, "0", fd)
    tape.connect(MAIN, FAR, "0", fd)
    tape.connect(MAIN, NSCD, "-1 ENOENT (No such file or directory)")
    tape.end(MAIN)
    assert not tape.story.named.is_whole
    tape = Tape()
    tape.start("-c", "pass")
    tape.connect(MAIN, FAR, "0", tape.socket(MAIN, 7, kind="DGRAM"))
    tape.end(MAIN)
    tape.end(100)
    tape.story.finish({})
    assert tape.story.named.is_whole
    assert tape.story.named.counts == {(Net.UDP, "203.0.113.1:443"): 1}


def test_a_sendmmsg_that_never_returned_named_nobody_knows_whom() -> None:
    tape = Tape()
    tape.start("-c", "pass")
    tape.line(MAIN, "sendmmsg(4,  <unfinished ...>")
    tape.line(MAIN, "+++ killed by SIGKILL +++")
    tape.line(100, "+++ killed by SIGKILL +++")
    assert not tape.story.named.has_all_datagrams
    assert tape.story.named.is_whole
