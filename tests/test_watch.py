"""The watch of a run, in a process of its own; the test plays the service and the run keeper.

The jails are threads of the test that write to real pipes and a real scratch; real jails have tests
of their own.
"""

import contextlib
import fcntl
import gzip
import itertools
import json
import marshal
import os
import select
import shutil
import socket
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from standins import Index, hang, wait_for

from jail.orders import (
    DNS_PORT,
    HOME_IN_JAIL,
    INDEX_PORT,
    MADE_FOLDERS,
    SCRATCH_FOLDERS,
    STARTED,
    Answer,
    JailSettings,
    Kill,
    Machine,
    Order,
    Start,
    parse_request,
)
from jail.watch import changes as changes_room
from jail.watch import gateway as gateway_room
from jail.watch import session as session_room
from jail.watch.jails import FILL, MAX_LAST_READS, WAIT, Jails, said_on
from jail.watch.main import watch
from jail.watch.programs import JAIL_PYTHON
from snakehook import Frame

# The last part of addresses of the loopback.
HOSTS = itertools.cycle(range(1, 255))
SETTINGS = JailSettings(
    cgroup_pids_max=128,
    decoy_internet=False,
    enable_cgroup_pids_limit=True,
    index_file_hosts=(),
    jail_python_name="",
    keep_samples_bytes=2_000_000_000,
    max_concurrency=2,
    max_disk_bytes=1 << 60,
    max_download_bytes=1 << 30,
    nsjail_chroot_path="",
    nsjail_config_path="",
    nsjail_disable_clone_newuser=True,
    nsjail_group=65534,
    nsjail_path="",
    nsjail_user=65534,
    package_denylist=("torch",),
    pip_cache_dir="",
    pip_index_url="",
    pip_package="",
    rlimit_as_mb=1024,
    rlimit_cpu_sec=30,
    rlimit_nofile=1024,
    run_budget_sec=60,
    run_timeout_sec=30,
    state_dir="",
)
ORDER = Order("triage", "0" * 32, "calm", "1.0", "install")
SITE = f"{ORDER.site}/lib/python3.11/site-packages"
# A .pth file may add modules to the one that the package has.
ALL = ("import", "all modules")
# What detonate runs after the programs of a package with one module.
LATER = [("import", "as windows"), ("import", "as macos"), ("import", "as ci, later")]
LATER_OK = [*((*what, "ok") for what in LATER), ("call", None, "ok")]


WORK_FAILED = 70 << 8  # the status of a jail whose stand-in has raised an exception


class Jail:
    """One jail, as the thread that stands for it sees it."""

    def __init__(self, start: Start, scratch: Path) -> None:
        self.start = start
        self.scratch = scratch
        self.killed = threading.Event()
        self.far_ends: list[int] = []
        self.ends: dict[str, int] = {}
        for name in ("stdout", "stderr", "log", "trace"):
            far_end, self.ends[name] = os.pipe()
            self.far_ends.append(far_end)
        # The run's, as long as there is a jail.
        fifo = scratch / "initctl"
        if not fifo.exists():
            os.mkfifo(fifo)
        self.far_ends.append(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
        self.ends["audit"] = os.open(fifo, os.O_WRONLY)
        # Watch knows them by their ports.
        host = free_host()
        self.servers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        self.servers[0].bind((host, DNS_PORT))
        for port in (DNS_PORT, INDEX_PORT) if start.has_index else (DNS_PORT,):
            self.servers.append(socket.create_server((host, port)))
        self.server_fds = [server.fileno() for server in self.servers]
        self.addresses = [server.getsockname() for server in self.servers]

    def write(self, name: str, data: bytes) -> None:
        """Write to a pipe; who reads it may be gone."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.ends[name], data)

    def put(self, path: str, text: str = "") -> None:
        """Write a file of the scratch."""
        file = self.scratch / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def free_host() -> str:
    """An address of the loopback that no other test has."""
    return ".".join(str(part) for part in (127, *os.getpid().to_bytes(3)[1:], next(HOSTS)))


# What a jail does, and the status that it ends with.
Work = Callable[[Jail], int]


def calm(jail: Jail) -> int:
    jail.write("stdout", STARTED + b"all is well\n")
    return 0


def install(jail: Jail) -> int:
    """What pip would leave of a package with a module and a script."""
    jail.put(f"{SITE}/calm.py", "x = 1\n")
    files = {"METADATA": "Name: calm\n", "entry_points.txt": "[console_scripts]\ncalm = calm:x\n"}
    # So that there is a start to be seen.
    jail.put(f"{SITE}/calm.pth", "# nothing\n")
    listed = ["calm.py", "calm.pth", *(f"calm-1.0.dist-info/{name}" for name in [*files, "RECORD"])]
    for name, text in {**files, "RECORD": "".join(f"{path},,\n" for path in listed)}.items():
        jail.put(f"{SITE}/calm-1.0.dist-info/{name}", text)
    return calm(jail)


def endless(jail: Jail) -> int:
    calm(jail)
    jail.killed.wait(30)
    return -9


@dataclass
class Ran:
    """What came of a run."""

    frames: list[tuple[str, bytes]]
    starts: list[Start]
    kills: list[int]

    def frame(self, name: str) -> bytes:
        found = [data for frame, data in self.frames if frame == name]
        assert len(found) == 1, f"{name}: {self.frames!r:.3000}"
        return found[0]

    def names(self) -> list[str]:
        return [name for name, _ in self.frames]

    @property
    def summary(self) -> dict[str, str]:
        summary: dict[str, str] = json.loads(self.frame("summary"))
        return summary

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.frame("report"))
        return report

    @property
    def outcomes(self) -> list[tuple[str, str | None, str]]:
        phases = self.report["phases"]
        return [(phase["name"], phase["trigger"], phase["outcome"]) for phase in phases]

    @property
    def evidence(self) -> list[dict[str, Any]]:
        text = gzip.decompress(self.frame("evidence")).decode()
        return [json.loads(line) for line in text.splitlines()]


class RunKeeper:
    """The other end of everything that a watch has."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.scratch = folder / "scratch"
        self.cache = folder / "cache"
        self.cache.mkdir()
        (folder / "samples").mkdir()
        for name in (*SCRATCH_FOLDERS, *MADE_FOLDERS):
            (self.scratch / name).mkdir(parents=True)
        self.image = folder / "image"
        environment: dict[str, object] = {"files": {}, "links": {}, "places": []}
        self.image.write_bytes(marshal.dumps(environment) + marshal.dumps({}))
        self.cgroup = folder / "cgroup" / f"1-{ORDER.run_id}"
        self.cgroup.mkdir(parents=True)
        self.machine = Machine(
            nsjail="/nsjail",
            strace=None,
            python=str(self.image),
            base="/usr",
            cache=str(self.cache),
            index_url=index.url,
            default_index=False,
            cgroups=(str(self.cgroup.parent),),
        )
        self.works: dict[str, Work] = {"pip": install}
        self.starts: list[Start] = []
        self.kills: list[int] = []
        self.jails: dict[int, Jail] = {}
        self.stream, self.far_stream = socket.socketpair()
        self.control, self.far_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.received = b""

    def answer(self, answer: Answer, fds: list[int]) -> None:
        with contextlib.suppress(OSError):
            socket.send_fds(self.control, [json.dumps(answer._asdict()).encode()], fds)

    def request(self) -> bytes:
        """What watch asks; nothing where it has ended, maybe with an answer unread."""
        with contextlib.suppress(ConnectionResetError):
            return self.control.recv(1 << 17)
        return b""

    def attend(self) -> None:
        """Take requests until watch hangs up."""
        while packet := self.request():
            request = parse_request(packet)
            if isinstance(request, Kill):
                self.kills.append(request.jail)
                self.jails[request.jail].killed.set()
            else:
                self.starts.append(request)
                threading.Thread(target=self.be_jail, args=(request,), daemon=True).start()

    def be_jail(self, start: Start) -> None:
        self.jails[start.jail] = jail = Jail(start, self.scratch)
        self.answer(Answer(start.jail, False), [*jail.far_ends, *jail.server_fds])
        for fd in jail.far_ends:
            os.close(fd)
        for server in jail.servers:
            server.close()
        status = WORK_FAILED
        kind = start.launch[0]
        try:
            # As the launcher does: it goes on when somebody reads.
            if kind == WAIT:
                kind = start.launch[1]
                size_bytes = fcntl.fcntl(jail.ends["stdout"], fcntl.F_GETPIPE_SZ)
                jail.write("stdout", FILL * size_bytes)
                jail.write("stdout", FILL)
            status = self.works.get(kind, calm)(jail)
        # Else watch would wait for the end of this jail, and the test for that of watch.
        finally:
            for fd in jail.ends.values():
                os.close(fd)
            self.answer(Answer(start.jail, True, status), [])

    def receive(self) -> None:
        """Be the service: take all that comes."""
        while data := self.stream.recv(1 << 16):
            self.received += data

    def run(self, order: Order = ORDER, **settings: Any) -> Ran:
        """Let a watch do its work, and return all that it said."""
        pid = os.fork()
        if pid == 0:
            self.stream.close()
            self.control.close()
            os.chdir(self.scratch)
            with contextlib.suppress(BaseException):
                watch(
                    SETTINGS._replace(**settings),
                    order,
                    self.machine,
                    Path(),
                    self.far_control,
                    self.far_stream,
                )
                os._exit(0)
            os._exit(1)
        self.far_stream.close()
        self.far_control.close()
        attending = threading.Thread(target=self.attend, daemon=True)
        attending.start()
        self.receive()
        attending.join(10)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return Ran(frames(self.received), self.starts, self.kills)


def frames(data: bytes) -> list[tuple[str, bytes]]:
    """The frames of a stream, which must be whole."""
    found = []
    while data:
        head, _, data = data.partition(b"\n")
        name, size = head.decode().split(" ")
        assert len(data) >= int(size)
        found.append((name, data[: int(size)]))
        data = data[int(size) :]
    return found


@pytest.fixture
def keeper(index: Index) -> Iterator[RunKeeper]:
    # A tmpfs, as the real scratch is.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield RunKeeper(Path(folder), index)


# What a run does.


def test_the_stream_has_the_report_in_all_its_shapes_and_an_end(keeper: RunKeeper) -> None:
    ran = keeper.run()
    assert ran.names() == [
        "progress",
        "summary",
        "report",
        "evidence",
        "dropped",
        "acts",
        "page",
        "embed",
        "text",
        "end",
    ]
    assert ran.frame("progress") == b"install"
    assert ran.frame("report").startswith(b'{"phases":')
    assert ran.frame("page").startswith(b"<!doctype html>") or b"<html" in ran.frame("page")
    assert json.loads(ran.frame("embed"))["title"]
    assert b"calm 1.0" in ran.frame("text")
    assert ran.frame("end") == b""
    assert ran.summary["outcome"] == "ok"
    assert ran.outcomes == [("install", None, "ok")]


def test_each_trigger_is_a_jail_of_its_own(keeper: RunKeeper) -> None:
    ran = keeper.run(ORDER._replace(mode="detonate"))
    assert ran.outcomes == [
        ("install", None, "ok"),
        ("start", None, "ok"),
        ("import", "calm", "ok"),
        (*ALL, "ok"),
        ("execute", "calm", "ok"),
        *LATER_OK,
    ]
    assert [start.jail for start in ran.starts] == [*range(9)]
    assert [start.has_index for start in ran.starts] == [True, *([False] * 8)]
    progress = [data for name, data in ran.frames if name == "progress"]
    assert progress[:3] == [b"install", b"start", b"import calm"]
    assert len(progress) == 9


def test_the_next_jail_is_made_while_one_is_at_work_and_waits(keeper: RunKeeper) -> None:
    at_work: list[list[int]] = []
    begun: list[int] = []
    ended: list[int] = []

    def work(jail: Jail) -> int:
        begun.append(jail.start.jail)
        code = calm(jail)
        if jail.start.jail < 8:
            # What comes after the programs is known when they have run.
            wait_for(lambda: len(keeper.starts) > jail.start.jail + 1 or jail.start.jail == 4, 10)
        at_work.append([number for number in begun if number not in ended])
        ended.append(jail.start.jail)
        return code

    keeper.works |= dict.fromkeys(("start", "import", "imports", "script", "call"), work)
    ran = keeper.run(ORDER._replace(mode="detonate"))
    assert begun == [*range(1, 9)]
    assert at_work == [[number] for number in begun]
    waited = [start.jail for start in ran.starts if start.launch[0] == WAIT]
    # All but the installation, what follows on that, and what follows on the programs.
    assert waited == [2, 3, 4, 6, 7, 8]


def test_a_jail_that_ends_while_it_waits_is_made_anew(
    keeper: RunKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package at work may have left it no memory, or no processes."""
    be_jail = keeper.be_jail

    def end_early(start: Start) -> None:
        if start.launch[:2] != (WAIT, "imports"):
            be_jail(start)
            return
        jail = Jail(start, keeper.scratch)
        keeper.jails[start.jail] = jail
        jail.write("stdout", FILL)
        keeper.answer(Answer(start.jail, False), [*jail.far_ends, *jail.server_fds])
        for fd in (*jail.far_ends, *jail.ends.values()):
            os.close(fd)
        keeper.answer(Answer(start.jail, True, -9), [])

    monkeypatch.setattr(keeper, "be_jail", end_early)
    ran = keeper.run(ORDER._replace(mode="import"))
    assert {outcome for _, _, outcome in ran.outcomes} == {"ok"}
    assert len(ran.outcomes) == 6
    ends = [line for line in ran.evidence if line["kind"] == "end"]
    assert len(ends) == len(ran.outcomes)
    # All modules, and two of the other victims.
    assert len(ran.starts) == 6 + 3


def test_a_jail_beside_which_nothing_was_at_work_is_made_once(keeper: RunKeeper) -> None:
    """What is wrong with it is no package's doing, and will be wrong again. The run keeper makes no
    second jail for an installation.
    """

    def fail(jail: Jail) -> int:
        jail.write("log", b"no such mount")
        return 255 << 8

    keeper.works["pip"] = fail
    ran = keeper.run()
    assert len(ran.starts) == 1
    assert ran.outcomes == [("install", None, "error")]
    assert "no such mount" in ran.summary["reason"]


def test_what_has_run_is_not_run_again_whatever_was_printed(keeper: RunKeeper) -> None:
    """An ordinary user's package can read its own output, and may be there before us."""
    launcher = "".join(f"\\x{byte:02x}" for byte in JAIL_PYTHON.encode())

    def mute(jail: Jail) -> int:
        begun = f'7 1.5 execve("{launcher}", ["{launcher}"], 0x1 /* 3 vars */) = 0\n'
        child = "7 1.6 clone(child_stack=NULL, flags=SIGCHLD) = 2 /* 8 in strace's PID NS */\n"
        jail.write("trace", (begun + child).encode())
        return 0

    keeper.works["imports"] = mute
    ran = keeper.run(ORDER._replace(mode="import"))
    assert len(ran.starts) == len(ran.outcomes)
    assert ("import", "all modules", "error") in ran.outcomes


def test_a_jail_that_keeps_watch_from_reading_has_no_more_time_than_any_other(
    keeper: RunKeeper,
) -> None:
    """Who splices into a pipe has it for itself until something comes, and a read of it waits, be
    it non-blocking. A package can do so with the FIFO, and with its output.
    """
    killed: list[bool] = []

    def hold(jail: Jail) -> int:
        calm(jail)
        near, far = socket.socketpair()
        into = (near.fileno(), jail.ends["audit"], 1)
        holding = threading.Thread(target=os.splice, args=into, daemon=True)
        holding.start()
        killed.append(jail.killed.wait(15))
        far.close()
        holding.join()
        near.close()
        return -9

    keeper.works["pip"] = hold
    ran = keeper.run(run_timeout_sec=1)
    assert killed == [True]
    assert ran.outcomes == [("install", None, "timeout")]
    assert ran.report["phases"][0]["stdout"]["text"] == "all is well\n"


def test_nothing_is_left_of_what_a_jail_said_for_the_next(keeper: RunKeeper) -> None:
    """All jails have the same FIFO. It holds more than its size says, where it is filled from a
    connection: by reference, in pieces larger than pages.
    """
    path = keeper.scratch / "filled"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    near.setblocking(False)
    spliced_bytes = 0
    # Until there is no room.
    with contextlib.suppress(BlockingIOError):
        while True:
            far.send(b"x" * (256 << 10))
            select.select([near], [], [])
            spliced_bytes += os.splice(near.fileno(), fd, 1 << 20, flags=os.SPLICE_F_NONBLOCK)
    assert spliced_bytes > 1 << 20
    assert sum(map(len, said_on(fd, MAX_LAST_READS))) == spliced_bytes
    with pytest.raises(BlockingIOError):
        os.read(fd, 1)
    os.close(fd)
    near.close()
    far.close()
    left: list[bytes] = []

    def speak(jail: Jail) -> int:
        fcntl.fcntl(jail.ends["audit"], fcntl.F_SETPIPE_SZ, 1 << 20)
        code = calm(jail)
        # As the last that it does.
        jail.write("audit", b"x" * (1 << 20))
        return code

    def listen(jail: Jail) -> int:
        left.append(fcntl.ioctl(jail.ends["audit"], termios.FIONREAD, bytes(4)))
        return calm(jail)

    keeper.works |= {"start": speak, "import": listen}
    keeper.run(ORDER._replace(mode="detonate"))
    assert left == [bytes(4)]


def test_nothing_is_left_of_a_jail_that_is_not_needed_any_more(keeper: RunKeeper) -> None:
    jails = Jails(keeper.far_control)
    number = jails.ask(("ready",), {}, has_index=False)
    start = parse_request(keeper.control.recv(1 << 17))
    assert isinstance(start, Start)
    jail = Jail(start, keeper.scratch)
    jail.write("audit", b'{"event": "start", "pid": 2}\n')
    keeper.answer(Answer(number, False), [*jail.far_ends, *jail.server_fds])
    keeper.answer(Answer(number, True, -9), [])
    jails.end(number)
    assert parse_request(keeper.control.recv(1 << 17)) == Kill(number)
    assert fcntl.ioctl(jail.ends["audit"], termios.FIONREAD, bytes(4)) == bytes(4)
    for fd in (*jail.far_ends, *jail.ends.values()):
        os.close(fd)


def test_the_environment_is_a_person_s_with_bait(keeper: RunKeeper) -> None:
    variables = keeper.run().starts[0].variables
    assert variables["HOME"] == HOME_IN_JAIL
    assert variables["GITHUB_TOKEN"].startswith("ghp_")
    assert variables["PIP_CONFIG_FILE"] == os.devnull


def test_what_is_printed_is_kept_up_to_a_bound(keeper: RunKeeper) -> None:
    def work(jail: Jail) -> int:
        calm(jail)
        for _ in range(2 << 10):
            jail.write("stderr", b"x" * 1024)
        return 0

    keeper.works["pip"] = work
    phase = keeper.run().report["phases"][0]
    assert phase["stdout"] == {"text": "all is well\n", "bytes": 12, "truncated": False}
    assert phase["stderr"]["bytes"] == 2 << 20
    assert phase["stderr"]["truncated"]


def test_the_status_of_the_jail_is_the_phase_s(keeper: RunKeeper) -> None:
    def fail(jail: Jail) -> int:
        calm(jail)
        return 3

    keeper.works["pip"] = fail
    ran = keeper.run(ORDER._replace(mode="detonate"))
    assert ran.outcomes == [("install", None, "failed")]
    assert ran.report["phases"][0]["exit_code"] == 3
    assert ran.summary["outcome"] == "failed"
    assert len(ran.report["coverage"]["not_run"]) == 4


def test_changes_are_told_and_what_a_record_lists_is_not(keeper: RunKeeper) -> None:
    def work(jail: Jail) -> int:
        jail.put("home/.bashrc", "evil\n")
        jail.put(f"{SITE}/extra.py")
        jail.put(f"{SITE}/x.pth", "import os\n")
        return install(jail)

    keeper.works["pip"] = work
    ran = keeper.run()
    changed = {(item["path"], item["change"]) for item in ran.report["files"]}
    work_folder = "/srv"
    assert changed == {
        (f"{HOME_IN_JAIL}/.bashrc", "modified"),
        (f"{work_folder}/{SITE}/extra.py", "created"),
        (f"{work_folder}/{SITE}/x.pth", "created"),
    }
    rules = {finding["rule"] for finding in ran.report["findings"]}
    assert {"persistence.write", "pth.code"} <= rules
    assert [line["line"] for line in ran.evidence if line["kind"] == "pth"] == ["import os"]


def test_a_later_phase_is_compared_with_the_one_before(keeper: RunKeeper) -> None:
    def change(jail: Jail) -> int:
        jail.put(f"{SITE}/calm.py", "x = 22\n")
        (jail.scratch / SITE / "calm-1.0.dist-info" / "RECORD").unlink()
        return calm(jail)

    keeper.works["import"] = change
    ran = keeper.run(ORDER._replace(mode="import"))
    lines = [line for line in ran.evidence if line["kind"] == "file" and line["phase"] == "import"]
    assert {(line["path"].rpartition("/")[2], line["change"]) for line in lines} == {
        ("calm.py", "modified"),
        ("RECORD", "deleted"),
    }


def test_a_linked_folder_is_judged_by_both_its_names(keeper: RunKeeper) -> None:
    def link_later(jail: Jail) -> int:
        jail.put("home/data/bin/pip")
        return install(jail)

    def link(jail: Jail) -> int:
        # The homes of some runs have one.
        shutil.rmtree(jail.scratch / "home" / ".local", ignore_errors=True)
        (jail.scratch / "home" / ".local").symlink_to("data")
        return calm(jail)

    def write(jail: Jail) -> int:
        jail.put("home/data/share/systemd/user/evil.service")
        return calm(jail)

    keeper.works |= {"pip": link_later, "start": link, "import": write}
    ran = keeper.run(ORDER._replace(mode="detonate"))
    grave = [
        (finding["phase"], finding["title"])
        for finding in ran.report["findings"]
        if finding["severity"] == "high" and finding["title"].split()[0] == "created"
    ]
    assert [phase for phase, _ in grave] == ["start", "import"]
    assert f"{HOME_IN_JAIL}/.local/bin/pip" in grave[0][1]
    assert f"{HOME_IN_JAIL}/.local/share/systemd/user/evil.service" in grave[1][1]


def test_a_file_that_hides_a_module_of_another_is_grave(keeper: RunKeeper) -> None:
    def shadow(jail: Jail) -> int:
        jail.put(f"{SITE}/calm/__init__.py")
        return calm(jail)

    keeper.works["import"] = shadow
    ran = keeper.run(ORDER._replace(mode="import"))
    assert [(finding["severity"], finding["rule"]) for finding in ran.report["findings"]] == [
        ("high", "persistence.write")
    ]
    assert "calm.py" in ran.report["findings"][0]["title"]


def test_a_flood_of_changes_has_a_time_and_home_comes_first(
    keeper: RunKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_room, "MAX_COMPARE_SEC", 0.2)

    def flood(jail: Jail) -> int:
        for number in range(20_000):
            (jail.scratch / "shm" / str(number)).touch()
        jail.put("home/.bashrc")
        return calm(jail)

    keeper.works["pip"] = flood
    ran = keeper.run()
    assert ran.report["files"][0]["path"] == f"{HOME_IN_JAIL}/.bashrc"
    assert ran.report["coverage"]["dropped_events"] > 10_000
    assert ran.summary["verdict"] == "high"


def test_bait_that_is_read_is_told_in_its_phase(keeper: RunKeeper) -> None:
    def steal(jail: Jail) -> int:
        time.sleep(0.02)
        path = jail.scratch / "home" / ".ssh" / "id_rsa"
        about = path.stat()
        path.read_bytes()
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        return calm(jail)

    keeper.works["import"] = steal
    ran = keeper.run(ORDER._replace(mode="detonate"))
    read = [finding for finding in ran.report["findings"] if finding["rule"] == "secret.read"]
    assert [(finding["severity"], finding["phase"]) for finding in read] == [("high", "import")]
    assert f"{HOME_IN_JAIL}/.ssh/id_rsa" in read[0]["title"]
    assert ran.summary["verdict"] == "high"
    # Laying and setting the decoys is no change of the package's.
    assert ran.report["files"] == []


def test_bait_that_turns_up_in_a_file_or_the_output_is_told(keeper: RunKeeper) -> None:
    def leak(jail: Jail) -> int:
        jail.put("tmp/loot", jail.start.variables["NPM_TOKEN"])
        calm(jail)
        jail.write("stderr", jail.start.variables["GITHUB_TOKEN"].encode()[::-1])
        return 0

    keeper.works["import"] = leak
    ran = keeper.run(ORDER._replace(mode="import"))
    leaks = {(line["target"], line["reason"]) for line in ran.evidence if line["kind"] == "leak"}
    assert leaks == {("NPM_TOKEN", "file /tmp/loot"), ("GITHUB_TOKEN", "output on stderr")}


def test_names_that_are_asked_for_are_told(keeper: RunKeeper) -> None:
    question = b"\xab\xcd\x01\0\0\1\0\0\0\0\0\0\x04evil\x07example\0\0\x01\0\x01"

    def ask(jail: Jail) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.sendto(question, jail.addresses[0])
            client.recv(512)
        return calm(jail)

    keeper.works["import"] = ask
    ran = keeper.run(ORDER._replace(mode="import"))
    assert [(item["kind"], item["target"]) for item in ran.report["network"]] == [
        ("dns", "evil.example")
    ]


def test_the_index_is_there_while_pip_runs(keeper: RunKeeper, index: Index) -> None:
    index.add_wheel("calm", "1.0", {"calm.py": ""})
    heard: list[bytes] = []

    def ask(jail: Jail) -> int:
        with socket.create_connection(jail.addresses[2], timeout=20) as client:
            client.sendall(b"GET /simple/calm/ HTTP/1.1\r\n\r\n")
            heard.append(client.recv(1 << 16))
        return calm(jail)

    keeper.works["pip"] = ask
    keeper.run()
    assert heard[0].startswith(b"HTTP/1.1 200")


def test_the_evidence_has_each_line_with_its_phase_and_time(keeper: RunKeeper) -> None:
    before_sec = time.time()
    ran = keeper.run(ORDER._replace(mode="import"))
    assert {line["kind"] for line in ran.evidence} >= {"output", "end"}
    for line in ran.evidence:
        assert before_sec - 1 < line["at"] < time.time() + 1
        own = (("install", None), ("import", "calm"), ALL, *LATER)
        assert (line["phase"], line["trigger"]) in own
    ends = [line for line in ran.evidence if line["kind"] == "end"]
    assert [(end["outcome"], end["exit_code"], end["dropped"]) for end in ends] == [
        ("ok", 0, {})
    ] * 6


# What ends a phase or a run.


def test_a_phase_has_a_time(keeper: RunKeeper) -> None:
    keeper.works["import"] = endless
    ran = keeper.run(ORDER._replace(mode="detonate"), run_timeout_sec=1)
    assert ("import", "calm", "timeout") in ran.outcomes
    assert ("execute", "calm", "ok") in ran.outcomes
    assert ran.kills == [2]
    assert ran.summary["outcome"] == "timeout"
    assert "RUN_TIMEOUT_SEC" in ran.summary["reason"]


def test_a_run_has_a_budget_and_what_it_leaves_out_is_not_run(keeper: RunKeeper) -> None:
    keeper.works["start"] = endless
    ran = keeper.run(ORDER._replace(mode="detonate"), run_budget_sec=1)
    assert ran.outcomes == [("install", None, "ok"), ("start", None, "timeout")]
    assert "RUN_BUDGET_SEC" in ran.summary["reason"]
    assert len(ran.report["coverage"]["not_run"]) == 8
    assert all("RUN_BUDGET_SEC" in item for item in ran.report["coverage"]["not_run"])
    # That there was no time left is no finding about the package.
    assert ran.summary["verdict"] == "unseen"


def test_the_service_can_stop_a_run_and_gets_its_report(keeper: RunKeeper) -> None:
    def stopped(jail: Jail) -> int:
        jail.put("home/.bashrc")
        calm(jail)
        keeper.stream.shutdown(socket.SHUT_WR)
        return endless(jail)

    keeper.works["start"] = stopped
    ran = keeper.run(ORDER._replace(mode="detonate"))
    assert ran.outcomes == [("install", None, "ok"), ("start", None, "interrupted")]
    assert ran.summary["outcome"] == "interrupted"
    assert [item["path"] for item in ran.report["files"]] == [f"{HOME_IN_JAIL}/.bashrc"]
    assert ran.names()[-1] == "end"


def test_a_stop_is_heard_while_the_index_is_silent(keeper: RunKeeper, index: Index) -> None:
    index.answer("/simple/pip/", hang)

    def stopped(jail: Jail) -> int:
        keeper.stream.shutdown(socket.SHUT_WR)
        return endless(jail)

    keeper.works["pip"] = stopped
    before_sec = time.monotonic()
    assert keeper.run().summary["outcome"] == "interrupted"
    assert time.monotonic() - before_sec < 10


def test_the_disk_has_a_size(keeper: RunKeeper) -> None:
    def fill(jail: Jail) -> int:
        # Other programs use this tmpfs, too, and may free some of it meanwhile.
        jail.put("tmp/large", "x" * (64 << 20))
        return endless(jail)

    keeper.works["pip"] = fill
    ran = keeper.run(max_disk_bytes=0)
    assert ran.outcomes == [("install", None, "disk")]
    assert "MAX_DISK_BYTES" in ran.summary["reason"]


def test_a_kill_for_want_of_memory_is_told_in_its_phase(keeper: RunKeeper) -> None:
    def greedy(jail: Jail) -> int:
        calm(jail)
        (keeper.cgroup / "memory.events").write_text("oom 1\noom_kill 1\n")
        return -9

    keeper.works["import"] = greedy
    ran = keeper.run(ORDER._replace(mode="detonate"))
    assert ran.outcomes[2] == ("import", "calm", "memory")
    assert ("execute", "calm", "ok") in ran.outcomes
    assert "RLIMIT_AS_MB" in ran.summary["reason"]


def test_the_download_limit_ends_the_phase(keeper: RunKeeper, index: Index) -> None:
    index.add_wheel("calm", "1.0", {"calm.py": ""})

    def ask(jail: Jail) -> int:
        with socket.create_connection(jail.addresses[2], timeout=20) as client:
            client.sendall(b"GET /simple/calm/ HTTP/1.1\r\n\r\n")
            client.recv(1 << 16)
        return endless(jail)

    keeper.works["pip"] = ask
    ran = keeper.run(max_download_bytes=10)
    assert ran.outcomes == [("install", None, "download_cap")]
    assert "MAX_DOWNLOAD_BYTES" in ran.summary["reason"]


def test_an_index_that_does_not_answer_ends_the_run(keeper: RunKeeper) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    keeper.machine = keeper.machine._replace(index_url=f"http://127.0.0.1:{port}/simple")
    keeper.works["pip"] = endless
    ran = keeper.run()
    assert ran.outcomes == [("install", None, "error")]
    assert ran.summary["outcome"] == "error"
    assert "does not answer" in ran.summary["reason"]


def test_a_jail_that_cannot_be_made_is_an_error(
    keeper: RunKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(start: Start) -> None:
        keeper.answer(Answer(start.jail, True, error="no namespaces here"), [])

    monkeypatch.setattr(keeper, "be_jail", refuse)
    ran = keeper.run()
    assert ran.outcomes == [("install", None, "error")]
    assert "no namespaces here" in ran.summary["reason"]


def test_a_jail_that_does_not_come_to_the_launcher_is_an_error(keeper: RunKeeper) -> None:
    def fail(jail: Jail) -> int:
        jail.write("log", b"[E] no such mount\x1b[2J")
        return 255

    keeper.works["pip"] = fail
    ran = keeper.run()
    assert ran.outcomes == [("install", None, "error")]
    assert "no such mount" in ran.summary["reason"]
    assert "\x1b" not in ran.summary["reason"]


def test_a_run_keeper_that_ends_costs_the_phase(keeper: RunKeeper) -> None:
    def vanish(jail: Jail) -> int:
        keeper.control.shutdown(socket.SHUT_RDWR)
        return calm(jail)

    keeper.works["pip"] = vanish
    ran = keeper.run()
    assert ran.summary["outcome"] in ("ok", "error")
    assert ran.names()[-1] == "end"


def test_a_pipe_that_somebody_holds_open_keeps_nobody_waiting(
    keeper: RunKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_room, "MAX_DRAIN_SEC", 0.3)
    spare: list[int] = []

    def hold(jail: Jail) -> int:
        spare.append(os.dup(jail.ends["trace"]))
        return calm(jail)

    keeper.works["pip"] = hold
    assert keeper.run().outcomes == [("install", None, "ok")]
    os.close(spare[0])


def test_a_fault_of_ours_is_a_complaint_and_nothing_more(keeper: RunKeeper) -> None:
    keeper.machine = keeper.machine._replace(cache="/absent")
    ran = keeper.run()
    assert ran.names() == ["complaint"]
    assert b"FileNotFoundError" in ran.frame("complaint")


def test_what_a_thread_that_fails_would_have_seen_is_a_gap(
    keeper: RunKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_room, "read_head", lambda connection: {}[connection])

    def ask(jail: Jail) -> int:
        # More of them than the service takes complaints.
        for _ in range(30):
            with socket.create_connection(jail.addresses[2]) as connection:
                connection.recv(1)
        return install(jail)

    keeper.works["pip"] = ask
    ran = keeper.run()
    assert ran.summary["verdict"] == "unseen"
    assert any("30 parts of the watch" in gap for gap in ran.report["coverage"]["gaps"])
    assert 0 < ran.names().count("complaint") < Frame.COMPLAINT.value[1]
    assert ran.names()[-1] == "end"


# Only the hosts.


def test_hosts_are_told_one_a_line(keeper: RunKeeper, index: Index) -> None:
    index.entry("pip", url="https://files.example/pip.whl")
    ran = keeper.run(ORDER._replace(task="hosts"))
    own = index.origin.partition("//")[2]
    assert sorted(ran.frame("text").decode().splitlines()) == sorted([own, "files.example"])
    assert ran.summary["outcome"] == "ok"
    assert ran.starts == []
    assert ran.names()[-1] == "end"


def test_hosts_of_an_index_that_is_down_are_an_error(keeper: RunKeeper) -> None:
    keeper.machine = keeper.machine._replace(index_url="http://127.0.0.1:1/simple")
    ran = keeper.run(ORDER._replace(task="hosts"))
    assert ran.names() == ["report", "embed", "summary", "end"]
    assert ran.summary["outcome"] == "error"
    assert "does not answer" in ran.summary["reason"]


def test_nothing_waits_for_a_service_that_is_gone(keeper: RunKeeper) -> None:
    def leave(jail: Jail) -> int:
        keeper.stream.shutdown(socket.SHUT_RDWR)
        return endless(jail)

    keeper.works["pip"] = leave
    keeper.run()
    wait_for(lambda: keeper.kills == [0])
