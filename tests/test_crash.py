"""Nothing accepted is ever lost: the service is killed and stopped, and every accepted run is accounted for."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, Service, Snakehook, patched
from standins import Discord, Drip, Index, Recorded, Reply, Step, wait_for

import snakehook as program
from snakehook import Delivery, Report, Store, TriageRequest

TOKEN = "one-token-for-all-starts"
KILLS = 20
LOST = re.compile("lost|cut short")  # what `last_error` says of an attempt whose end is not known
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})


class Gate:
    """A project page of the index that is given out when the test says so: a run that installs it hangs until then."""

    def __init__(self, index: Index, project: str) -> None:
        self.index, self.path, self.opened = index, f"/simple/{project}/", threading.Event()
        index.answer(self.path, self)

    def __call__(self, exchange: BaseHTTPRequestHandler) -> None:
        self.opened.wait(40)
        Reply(404)(exchange)

    @property
    def asked(self) -> int:
        return sum(path == self.path for _, path in self.index.requests)


@contextmanager
def gate(index: Index, project: str) -> Iterator[Gate]:
    gate = Gate(index, project)
    try:
        yield gate
    finally:
        gate.opened.set()


def messages_of(discord: Discord) -> Counter[str]:
    """How many messages stand in the channel for each run id."""
    footers = (message.payload["embeds"][0]["footer"]["text"] for message in list(discord.messages))
    return Counter(footer.split()[-1] for footer in footers)


def kill(service: Service) -> None:
    service.process.kill()
    service.process.wait()


# --- what a service leaves behind -------------------------------------------------------------------------------------


def processes_of(state: Path) -> list[str]:
    """Processes that name this STATE_DIR in their command line or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            shown = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if str(state).encode() in shown:
                found.append(f"{entry.name} {shown.decode(errors='replace')}")
    return found


def mounts_of(state: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {state.resolve()}/" in line]


def cgroups_of(state: Path) -> list[Path]:
    mark = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]
    return [one for parent in CGROUPS.glob("**/snakehook") for one in parent.glob(f"{mark}-*")]


def scratch_of(state: Path) -> list[Path]:
    return list((state / "scratch").glob("*"))


def leftovers(state: Path) -> list[Any]:
    return [*processes_of(state), *mounts_of(state), *cgroups_of(state), *scratch_of(state)]


# --- twenty kills under load ------------------------------------------------------------------------------------------


@dataclass
class Load:
    """A client that asks for runs until it is told to stop, whatever becomes of the service."""

    port: int
    accepted: list[str] = field(default_factory=list)
    unanswered: int = 0  # requests that the service may have kept, though no 202 arrived
    statuses: Counter[int] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        body = json.dumps({"package_name": "tiny", "version": "1.0"}).encode()
        head = (
            f"POST /v1/triage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        while not self.stopping.wait(0.05):
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
            except OSError:
                continue  # it does not run at the moment
            received = b""
            with connection, contextlib.suppress(OSError):
                connection.sendall(head.encode() + body)
                while block := connection.recv(65536):
                    received += block
            start, _, answer = received.partition(b"\r\n\r\n")
            try:
                run_id = json.loads(answer).get("run_id")
                self.statuses[int(start[9:12])] += 1
            except ValueError:
                self.unanswered += 1
                continue
            if run_id:
                self.accepted.append(run_id)


@contextmanager
def load(port: int) -> Iterator[Load]:
    client = Load(port)
    thread = threading.Thread(target=client)
    thread.start()
    try:
        yield client
    finally:
        client.stopping.set()
        thread.join(30)
    assert not thread.is_alive()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_every_accepted_run_is_reported_though_the_service_is_killed_twenty_times(
    jail: None, snakehook: Snakehook, serve: Serve, discord: Discord, state: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CRASH_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311
    # Some of Discord's answers take a while, so that some of the kills come between a message and its answer.
    slow: Step = Recorded(Drip(b'{"id": "1"}', gap_sec=0.03))
    discord.script(*(slow if chance.random() < 0.3 else None for _ in range(1000)))
    port = free_port()
    settings = {"API_TOKEN": TOKEN, "DISCORD_WEBHOOK_URL": discord.url, "QUEUE_LIMIT": 6, "PER_IP_RATE_LIMIT": 100_000}
    configured = snakehook.with_settings(**settings)
    kills_before_it_listened = 0
    begun = time.monotonic()
    with serve(**settings):
        start_sec = time.monotonic() - begun  # of this machine at this moment: the kills come before and after it
    with load(port) as client, (tmp_path / "service.log").open("a") as log:
        for _ in range(KILLS):
            answered = sum(client.statuses.values())
            process = configured.start("serve", "--listen", f"127.0.0.1:{port}", stdout=log, stderr=log)
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.1, start_sec + 2.5))  # the random moment
                assert process.poll() is None, (tmp_path / "service.log").read_text()[-3000:]
            finally:
                process.kill()
                process.wait()
            kills_before_it_listened += sum(client.statuses.values()) == answered
    print(f"a start takes {start_sec:.1f} s; {kills_before_it_listened} of {KILLS} kills before it answered")
    print(f"{dict(client.statuses)}, {client.unanswered} unanswered")
    accepted = client.accepted
    assert len(accepted) == len(set(accepted))
    assert accepted, "no load: nothing was tested"

    with serve(**settings) as service:
        reports = {run_id: service.finished(run_id, 60) for run_id in accepted}
    shown = messages_of(discord)
    outcomes = Counter(report["outcome"] for report in reports.values())
    twice = [run_id for run_id in accepted if shown[run_id] > 1]
    print(f"{len(accepted)} accepted: {outcomes}; {len(twice)} shown twice")
    assert [run_id for run_id in accepted if not shown[run_id]] == []
    assert {report["delivery"]["state"] for report in reports.values()} == {"delivered"}
    assert set(outcomes) <= {"ok", "interrupted"}, reports
    for run_id in twice:  # once for each answer that was lost: two kills may cut two attempts at the same message
        delivery = reports[run_id]["delivery"]
        assert shown[run_id] <= delivery["attempts"]
        assert LOST.search(delivery["last_error"] or ""), (shown[run_id], delivery)
    # What is shown but was not accepted is what the service kept when it was killed before its 202 got through.
    assert len(shown.keys() - set(accepted)) <= client.unanswered
    wait_for(lambda: not leftovers(state), 20)
    with contextlib.closing(sqlite3.connect(state / "snakehook.sqlite")) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_run_is_run_once_more_after_one_crash(serve: Serve, index: Index, discord: Discord) -> None:
    with gate(index, "slow") as slow:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("slow")
            wait_for(lambda: slow.asked == 1, 60)
            kill(service)
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            report = service.finished(run_id, 60)
    assert report["outcome"] == "failed"  # as the stand-in's 404 has it: it was run to its end
    assert slow.asked == 2
    assert messages_of(discord) == {run_id: 1}


def test_a_run_under_way_at_two_crashes_is_interrupted(serve: Serve, index: Index, discord: Discord) -> None:
    with gate(index, "slow") as slow:
        for crash in (1, 2):
            with serve(API_TOKEN=TOKEN, MAX_CONCURRENCY=1) as service:
                if crash == 1:
                    runs = [service.accept("slow"), service.accept("tiny")]
                wait_for(lambda: slow.asked == crash, 60)  # noqa: B023
                kill(service)
        with serve(API_TOKEN=TOKEN, MAX_CONCURRENCY=1) as service:
            reports = [service.finished(run_id, 60) for run_id in runs]
            page = service.get(f"/v1/triage/{runs[0]}/report.html")
    assert [report["outcome"] for report in reports] == ["interrupted", "ok"]
    assert "twice" in reports[0]["reason"]
    assert reports[0]["started_at"] and reports[0]["finished_at"]
    assert b"interrupted" in page.body
    assert slow.asked == 2  # it was not run a third time
    assert messages_of(discord) == dict.fromkeys(runs, 1)


# --- what a dead service left -----------------------------------------------------------------------------------------


def test_the_jails_of_a_killed_service_die_with_it(serve: Serve, index: Index, state: Path) -> None:
    source = "import os, signal, time\nfor number in range(1, 65):\n  try: signal.signal(number, signal.SIG_IGN)\n"
    source += "  except (OSError, ValueError): pass\nif os.fork() == 0: os.setsid()\ntime.sleep(600)\n"
    index.add_wheel("stubborn", "1.0", {"stubborn.py": source})
    with serve() as service:
        service.accept("stubborn", mode="import")
        wait_for(
            lambda: any(
                "nsjail" in one and "launch.py import" in one.replace("\0", " ") for one in processes_of(state)
            ),
            60,
        )
        kill(service)
        wait_for(lambda: not processes_of(state), 10)


def test_what_a_dead_service_left_is_swept_at_start(
    serve: Serve, index: Index, state: Path, discord: Discord, tmp_path: Path
) -> None:
    with gate(index, "slow") as slow:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("slow")
            wait_for(lambda: slow.asked == 1, 60)
            had_cgroups = bool(cgroups_of(state))
            kill(service)
        assert scratch_of(state)
        if os.geteuid() == 0:
            assert mounts_of(state)
        # And what no run of the store accounts for: as if the store had been lost between.
        dead = state / "scratch" / ("d" * 32)
        deep = dead / "work" / "/".join(["closed"] * 50)
        deep.mkdir(parents=True)
        (deep / "file").write_text("x")
        deep.chmod(0)
        (dead / "link").symlink_to(tmp_path)  # it is not followed
        keep = tmp_path / "keep"
        keep.write_text("x")
        groups = [one.parent / one.name.replace(run_id, dead.name) for one in cgroups_of(state)]
        for group in groups:
            group.mkdir()
        assert bool(groups) == had_cgroups
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            assert not dead.exists()
            assert [group for group in groups if group.exists()] == []
            service.finished(run_id, 60)
            wait_for(lambda: not mounts_of(state) and not cgroups_of(state) and not scratch_of(state), 20)
    assert keep.read_text() == "x"
    wait_for(lambda: not leftovers(state), 20)
    assert messages_of(discord) == {run_id: 1}


def test_a_sweep_leaves_alone_what_another_process_works_in(
    serve: Serve, snakehook: Snakehook, index: Index, state: Path
) -> None:
    with gate(index, "slow") as slow:
        process = snakehook.start("triage", "slow", "1.0", "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: slow.asked == 1, 60)
            (folder,) = scratch_of(state)
            with serve() as service:
                assert folder.exists()
                assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
            slow.opened.set()
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert json.loads(output)["outcome"] == "failed"
    assert process.returncode == 4
    wait_for(lambda: not leftovers(state), 20)


def test_a_half_made_interpreter_is_swept(serve: Serve, state: Path) -> None:
    """One that a service was killed over: each is some twenty megabytes."""
    fresh, old = (state / "python" / f"tmp{name}" for name in ("fresh", "old"))
    for one in (fresh, old):
        (one / "python" / "lib").mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    try:
        with serve():
            assert not old.exists()
            assert fresh.exists()  # perhaps somebody is making it
    finally:
        shutil.rmtree(fresh)
        shutil.rmtree(old, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_can_t_be_swept_does_not_keep_the_service_from_starting(serve: Serve, state: Path) -> None:
    mount, umount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    stuck = state / "scratch" / ("e" * 32) / "stuck"
    stuck.mkdir(parents=True)
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=4096", "stuck", str(stuck)], check=True)
    try:
        with serve() as service:
            assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
            words = service.log.read_text()
            assert stuck.parent.name in words  # and it says what is left
            assert "Traceback" not in words
    finally:
        subprocess.run([umount, "--lazy", str(stuck)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the jail's user")
def test_other_processes_of_the_jail_s_user_do_not_keep_the_service_from_starting(
    jail: None, snakehook: Snakehook
) -> None:
    """Such as the jails of a service beside this one, or those of a dead one that are not gone yet."""
    crowd = "import os, sys\nfor _ in range(40):\n  if os.fork() == 0: break\nprint(flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-I", "-c", f"import os\nos.setgid(65534); os.setuid(65534)\n{crowd}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout
        for _ in range(41):
            process.stdout.readline()
        done = snakehook.with_settings(CGROUP_PIDS_MAX=16, MAX_CONCURRENCY=1).run("check")
        process.stdin.close()
    assert done.returncode == 0, done.stdout


# --- SIGTERM ----------------------------------------------------------------------------------------------------------


def stop(service: Service) -> tuple[int, float]:
    """SIGTERM: the exit code and the seconds that it took."""
    begun = time.monotonic()
    service.process.terminate()
    code = service.process.wait(60)
    return code, time.monotonic() - begun


def test_sigterm_ends_the_jails_and_keeps_the_queue(serve: Serve, index: Index, discord: Discord, state: Path) -> None:
    with gate(index, "slow") as slow:
        for times in (1, 2, 3):  # a stop on purpose is no crash: however often, the run is not given up
            with serve(API_TOKEN=TOKEN, MAX_CONCURRENCY=1) as service:
                if times == 1:
                    runs = [service.accept("slow"), service.accept("tiny"), service.accept("tiny")]
                wait_for(lambda: slow.asked == times, 60)  # noqa: B023
                code, seconds = stop(service)
                assert (code, seconds < 5) == (0, True), (code, seconds, service.log.read_text())
                assert "Traceback" not in service.log.read_text(), service.log.read_text()
                assert leftovers(state) == []
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            reports = [service.finished(run_id, 60) for run_id in runs]
    assert [report["outcome"] for report in reports] == ["failed", "ok", "ok"]
    assert messages_of(discord) == dict.fromkeys(runs, 1)


def test_requests_get_503_while_it_stops(serve: Serve, discord: Discord) -> None:
    asked, released = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:  # the courier is given a moment to end its delivery
        asked.set()
        released.wait(20)
        Reply(503)(exchange)

    discord.script(wait)
    try:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("tiny")
            assert asked.wait(60)
            with load(service.port) as client:
                wait_for(lambda: client.accepted, 20)
                code, seconds = stop(service)
            assert (code, seconds < 5) == (0, True), (code, seconds, service.log.read_text())
        released.set()
        assert client.statuses[503] > 0, client.statuses
        assert set(client.statuses) <= {202, 503}
        assert "Traceback" not in service.log.read_text(), service.log.read_text()
        with serve(API_TOKEN=TOKEN) as service:
            for one in (run_id, *client.accepted):
                assert service.finished(one, 60)["outcome"] == "ok"
    finally:
        released.set()
    assert all(messages_of(discord)[one] == 1 for one in (run_id, *client.accepted))


def test_sigterm_is_quick_while_the_index_keeps_silent(serve: Serve, index: Index, state: Path) -> None:
    released = threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        released.wait(40)
        Reply(404)(exchange)

    try:
        with gate(index, "slow") as slow, serve(API_TOKEN=TOKEN) as service:
            index.answer("/simple/pip/", wait)
            service.accept("slow")
            wait_for(lambda: slow.asked, 60)
            code, seconds = stop(service)
            assert (code, seconds < 5) == (0, True), (code, seconds)
        index.answer("/simple/pip/", Reply(500))
        with serve(API_TOKEN=TOKEN) as service:  # the hosts of its files could not be learnt at start
            index.answer("/simple/pip/", wait)
            before = index.requests.count(("GET", "/simple/pip/"))
            service.accept("tiny")
            wait_for(lambda: index.requests.count(("GET", "/simple/pip/")) > before, 60)
            code, seconds = stop(service)
            assert (code, seconds < 5) == (0, True), (code, seconds)
    finally:
        released.set()
        for line in mounts_of(state):  # what the next start would sweep
            subprocess.run([shutil.which("umount") or "umount", "--lazy", line.split()[4]], check=True)


def test_sigterm_works_where_interrupts_are_ignored(serve: Serve, snakehook: Snakehook) -> None:
    """As for a service that a script starts in the background: POSIX has its shell ignore SIGINT for it."""
    shell = shutil.which("sh") or "/bin/sh"
    command = [shell, "-c", 'trap "" INT; exec "$@"', "sh", *snakehook.command]
    with serve(command=command) as service:
        service.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(8)
        code = service.process.poll()
        service.process.kill()
        assert code == 0


def test_a_hail_of_signals_ends_it_like_one(serve: Serve) -> None:
    with serve() as service:
        deadline = time.monotonic() + 15
        while service.process.poll() is None and time.monotonic() < deadline:
            service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(1) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_changes_nothing(serve: Serve, index: Index, discord: Discord, number: int) -> None:
    with gate(index, "slow") as slow:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("slow")
            wait_for(lambda: slow.asked == 1, 60)
            service.process.send_signal(number)
            service.process.send_signal(number)
            assert service.process.wait(20) == 0, service.log.read_text()
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            assert service.finished(run_id, 60)["outcome"] == "failed"
    assert messages_of(discord) == {run_id: 1}


# --- one owner --------------------------------------------------------------------------------------------------------


def test_a_second_service_on_the_same_state_says_so_and_exits(
    serve: Serve, snakehook: Snakehook, discord: Discord, state: Path
) -> None:
    with serve(API_TOKEN=TOKEN) as service:
        second = snakehook.with_settings(API_TOKEN=TOKEN, DISCORD_WEBHOOK_URL=discord.url)
        done = second.run("serve", "--listen", f"127.0.0.1:{free_port()}")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert str(state) in line and "STATE_DIR" in line
        run_id = service.accept("tiny")
        assert service.finished(run_id, 60)["outcome"] == "ok"
        kill(service)
    with serve(API_TOKEN=TOKEN) as service:  # what is dead owns nothing
        assert service.report(run_id)["outcome"] == "ok"
    assert messages_of(discord) == {run_id: 1}


# --- /healthz ---------------------------------------------------------------------------------------------------------


def test_healthz_tells_that_the_sandbox_is_gone(serve: Serve, snakehook: Snakehook, tmp_path: Path) -> None:
    settings = program.load_settings(snakehook.environment, service=False)
    nsjail = tmp_path / "nsjail"
    nsjail.symlink_to(program.find_nsjail(settings))
    with serve(NSJAIL_PATH=nsjail) as service:
        assert service.healthy()
        nsjail.unlink()
        wait_for(lambda: not service.healthy(), 10, every_sec=0.2)
        assert service.get("/healthz", token=None).status == 503
        report = service.finished(service.accept("tiny"), 60)
        assert report["outcome"] not in ("ok", "failed"), report  # "failed" would blame the package


def test_healthz_tells_that_no_jail_can_be_made_any_more(serve: Serve, snakehook: Snakehook, tmp_path: Path) -> None:
    nsjail, real = tmp_path / "nsjail", program.find_nsjail(program.load_settings(snakehook.environment, service=False))
    nsjail.symlink_to(real)
    with serve(NSJAIL_PATH=nsjail, **patched(JAIL_PROBE_SEC=1, HEALTH_SEC=0.2)) as service:
        assert service.healthy()
        for target, works in ((shutil.which("false") or "/bin/false", False), (real, True)):
            nsjail.unlink()
            nsjail.symlink_to(target)
            wait_for(lambda: service.healthy() == works, 20, every_sec=0.2)  # noqa: B023


def test_where_no_jail_can_be_made_it_serves_and_delivers_what_there_is(serve: Serve, discord: Discord) -> None:
    discord.script(*[Reply(500)] * 2)
    with serve(API_TOKEN=TOKEN) as service:
        run_id = service.accept("tiny")
        wait_for(lambda: service.report(run_id)["status"] == "finished", 60, every_sec=0.1)
    with serve(API_TOKEN=TOKEN, NSJAIL_PATH=shutil.which("false"), health=503) as service:
        assert service.finished(run_id, 60)["delivery"]["state"] == "delivered"
        refused = service.post({"package_name": "tiny", "version": "1.0"})
        assert (refused.status, "Retry-After".lower() in refused.headers) == (503, True)
        assert "snakehook check" in refused.json["error"]
        assert "namespaces" in service.log.read_text()  # what is in the way


def test_healthz_tells_of_a_dead_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.Service, "repeat", lambda *_: None)
    places = {"STATE_DIR": str(tmp_path), "PIP_CACHE_DIR": str(tmp_path), "JAIL_PYTHON_NAME": "/bin/sh"}
    settings = program.load_settings({**places, "API_TOKEN": "t", "DISCORD_WEBHOOK_URL": "http://127.0.0.1:9/x"})
    service = program.Service(settings, program.Sandbox("", None, Path(), "", "", False, False))
    wait_for(lambda: "worker" in service.look(), 5)


# --- retention --------------------------------------------------------------------------------------------------------


def ended(service: Service, run_id: str) -> None:
    wait_for(lambda: service.report(run_id)["status"] == "finished", 60, every_sec=0.1)


def test_keep_runs_drops_the_oldest_delivered_and_no_undelivered_one(serve: Serve, discord: Discord) -> None:
    asked, released = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        asked.set()
        released.wait(28)
        Reply(503)(exchange)

    try:
        with serve(KEEP_RUNS=2, MAX_CONCURRENCY=1) as service:
            delivered = [service.accept("tiny") for _ in range(2)]
            for run_id in delivered:
                service.finished(run_id, 60)
            discord.script(wait)
            pending = [service.accept("tiny") for _ in range(4)]
            for run_id in pending:  # it has its report, though not delivered
                ended(service, run_id)
            assert [service.get(f"/v1/triage/{run_id}").status for run_id in delivered] == [404, 404]
            assert {service.report(run_id)["delivery"]["state"] for run_id in pending} == {"pending"}
            released.set()
            for run_id in pending:
                service.finished(run_id, 60)
            last = service.accept("tiny")
            service.finished(last, 60)

            def kept() -> list[str]:
                return [one for one in (*pending, last) if service.get(f"/v1/triage/{one}").status == 200]

            wait_for(lambda: kept() == [pending[-1], last], 20)
            assert service.get(f"/v1/triage/{pending[0]}/report.html").status == 404
    finally:
        released.set()
    assert messages_of(discord) == dict.fromkeys((*delivered, *pending, last), 1)


def kept_store(tmp_path: Path, states: str, evidence: bytes) -> tuple[Store, list[str]]:
    """A store with a finished run for each letter: (d)elivered, (p)ending, (r)efused; oldest first."""
    store, runs = Store(tmp_path / "one.sqlite"), []
    for letter in states:
        request = TriageRequest("six", "1.16.0", "install")
        run_id = store.add(request, 1000) or ""
        store.claim()
        store.finish(Report(run_id, "finished", request, "2026-01-01T00:00:00+00:00"), b"p", evidence, {})
        state = {"d": "delivered", "p": "pending", "r": "refused"}[letter]
        store.note_delivery(run_id, Delivery(state, 1))
        runs.append(run_id)
    return store, runs


@pytest.mark.parametrize(
    ("states", "keep", "kept"),
    [
        ("dddd", 2, [2, 3]),
        ("pppp", 2, [0, 1, 2, 3]),
        ("pdpd", 3, [0, 2, 3]),
        ("pdpd", 2, [0, 2]),
        ("rddd", 2, [0, 3]),
        ("dddd", 4, [0, 1, 2, 3]),
    ],
)
def test_what_is_kept_by_number_and_by_bytes(tmp_path: Path, states: str, keep: int, kept: list[int]) -> None:
    size = 1_000_000
    for by_number in (True, False):
        place = tmp_path / str(by_number)
        place.mkdir()
        store, runs = kept_store(place, states, bytes(size))
        store.forget(keep if by_number else 1000, 10**12 if by_number else int((keep + 0.5) * size))
        assert [n for n, run_id in enumerate(runs) if store.report(run_id)] == kept


def test_a_run_that_waits_or_runs_is_never_dropped(tmp_path: Path) -> None:
    store, runs = kept_store(tmp_path, "dd", b"e")
    waiting = store.add(TriageRequest("six", "1.16.0", "install"), 1000) or ""
    running = store.add(TriageRequest("six", "1.16.0", "install"), 1000) or ""
    store.claim()
    store.forget(1, 1)
    assert [bool(store.report(run_id)) for run_id in (*runs, waiting, running)] == [False, False, True, True]


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    store, _ = kept_store(tmp_path, "", b"")
    sizes = []
    for _ in range(40):
        request = TriageRequest("six", "1.16.0", "install")
        run_id = store.add(request, 1000) or ""
        whole = Report(run_id, "finished", request, "2026-01-01T00:00:00+00:00")
        store.finish(whole, b"p", bytes(500_000), {})
        store.note_delivery(run_id, Delivery("delivered", 1))
        store.forget(5, 10**12)
        sizes.append(sum(one.stat().st_size for one in tmp_path.iterdir()))
    assert max(sizes) < 12_000_000, sizes
