"""Nothing accepted is ever lost, though the service is killed and stopped at any moment."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Serve, Service, Snakehook, free_port
from hostile import family_of, leftovers, our_groups, processes_of
from standins import Discord, Drip, Gate, Index, Recorded, Reply, Step, gate, messages_of, wait_for

from snakehook import (
    STATEMENTS,
    Delivery,
    Store,
    TriageRequest,
    find_nsjail,
    make_own_result,
)

TOKEN = "one-token-for-all-starts"
KILLS = 20
LOST = re.compile("lost|cut short")  # what `last_error` says of an attempt whose end is not known


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})


def kill(service: Service) -> None:
    service.process.kill()
    service.process.wait()


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
            f"POST /v1/triage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Connection: close\r\n"
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


def test_every_accepted_run_is_reported_though_the_service_is_killed_twenty_times(
    jail: None, snakehook: Snakehook, serve: Serve, discord: Discord, state: Path, tmp_path: Path
) -> None:
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CRASH_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311
    # Some of Discord's answers take a while, so that some of the kills come between a message and
    # its answer.
    slow: Step = Recorded(Drip(b'{"id": "1"}', gap_sec=0.03))
    discord.script(*(slow if chance.random() < 0.3 else None for _ in range(1000)))
    port = free_port()
    settings = {
        "API_TOKEN": TOKEN,
        "DISCORD_WEBHOOK_URL": discord.url,
        "QUEUE_LIMIT": 6,
        "PER_IP_RATE_LIMIT": 100_000,
    }
    configured = snakehook.with_settings(**settings)
    kills_before_it_listened = 0
    begun = time.monotonic()
    with serve(**settings):
        start_sec = (
            time.monotonic() - begun
        )  # of this machine at this moment: the kills come before and after it
    with load(port) as client, (tmp_path / "service.log").open("a") as log:
        for _ in range(KILLS):
            answered = sum(client.statuses.values())
            process = configured.start(
                "serve", "--listen", f"127.0.0.1:{port}", stdout=log, stderr=log
            )
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.1, 2 * start_sec + 0.5))  # the random moment
                assert process.poll() is None, (tmp_path / "service.log").read_text()[-3000:]
            finally:
                process.kill()
                process.wait()
            kills_before_it_listened += sum(client.statuses.values()) == answered
    print(
        f"a start takes {start_sec:.1f} s;"
        f" {kills_before_it_listened} of {KILLS} kills before it answered"
    )
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
    for run_id in (
        twice
    ):  # once for each answer that was lost: two kills may cut two attempts at the same message
        delivery = reports[run_id]["delivery"]
        assert shown[run_id] <= delivery["attempts"]
        assert LOST.search(delivery["last_error"] or ""), (shown[run_id], delivery)
    # What is shown but was not accepted is what the service kept when it was killed before its 202
    # got through.
    assert len(shown.keys() - set(accepted)) <= client.unanswered
    wait_for(lambda: not leftovers(state), 20)
    with contextlib.closing(sqlite3.connect(state / "snakehook.sqlite")) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_run_is_run_once_more_after_one_crash(
    serve: Serve, index: Index, discord: Discord
) -> None:
    with gate(index, "slow") as slow:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("slow")
            wait_for(lambda: slow.count == 1, 60)
            kill(service)
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            report = service.finished(run_id, 60)
    assert report["outcome"] == "failed"  # as the stand-in's 404 has it: it was run to its end
    assert slow.count == 2
    assert messages_of(discord) == {run_id: 1}


def test_a_run_under_way_at_two_crashes_is_interrupted(
    serve: Serve, index: Index, discord: Discord
) -> None:
    with gate(index, "slow") as slow:
        for crash in (1, 2):
            with serve(API_TOKEN=TOKEN, MAX_CONCURRENCY=1) as service:
                if crash == 1:
                    runs = [service.accept("slow"), service.accept("tiny")]
                wait_for(lambda: slow.count == crash, 60)  # noqa: B023
                kill(service)
        with serve(API_TOKEN=TOKEN, MAX_CONCURRENCY=1) as service:
            reports = [service.finished(run_id, 60) for run_id in runs]
            page = service.get(f"/v1/triage/{runs[0]}/report.html")
    assert [report["outcome"] for report in reports] == ["interrupted", "ok"]
    assert "twice" in reports[0]["reason"]
    assert reports[0]["started_at"] and reports[0]["finished_at"]
    assert b"interrupted" in page.body
    assert slow.count == 2  # it was not run a third time
    assert messages_of(discord) == dict.fromkeys(runs, 1)


def test_the_jails_of_a_killed_service_die_with_it(serve: Serve, index: Index, state: Path) -> None:
    source = """
import os, select, signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork() == 0: os.setsid()
select.select([], [], [], 600)  # unlike a sleep, this is not skipped
"""
    index.add_wheel("stubborn", "1.0", {"stubborn.py": source})
    with serve() as service:
        service.accept("stubborn", mode="import")
        # As its process calls itself once the package is at work.
        begun = "import stubborn"
        wait_for(lambda: any(begun in words for words in processes_of(state)), 60)
        kill(service)
        wait_for(lambda: not processes_of(state), 10)


def kill_family(service: Service) -> None:
    """Service, keeper and run keepers at once: none can tidy up after another."""
    family = family_of(service.process.pid)
    pids = [family.service, family.keeper, *family.run_keepers]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            assert pid
            os.kill(pid, number)
    service.process.wait()


def test_what_a_dead_service_left_is_swept_at_start(
    serve: Serve, index: Index, state: Path, discord: Discord
) -> None:
    with gate(index, "slow") as slow:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("slow")
            wait_for(lambda: slow.count == 1, 60)
            had_groups = our_groups()
            kill_family(service)
        # Empty cgroups are all that can be left; another test's keeper may have swept them already.
        wait_for(lambda: leftovers(state) == [str(group) for group in our_groups()], 2)
        assert {*our_groups()} <= {*had_groups}
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            service.finished(run_id, 60)
            wait_for(lambda: not leftovers(state), 20)
    assert messages_of(discord) == {run_id: 1}


def test_a_sweep_leaves_alone_what_another_process_works_in(
    serve: Serve, snakehook: Snakehook, index: Index, state: Path
) -> None:
    with gate(index, "slow") as slow:
        process = snakehook.start(
            "triage", "slow", "1.0", "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: slow.count == 1, 60)
            groups = our_groups()
            with serve() as service:
                assert our_groups() == groups
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
    """One that a keeper was killed over, whose pid it bears: each is some twenty megabytes."""
    nobody = int(Path("/proc/sys/kernel/pid_max").read_text())
    being_made, left = (state / "python" / f"{pid}-python" for pid in (os.getpid(), nobody))
    for folder in (being_made, left):
        (folder / "lib").mkdir(parents=True)
    try:
        with serve():
            assert not left.exists()
            assert being_made.exists()
    finally:
        shutil.rmtree(being_made)
        shutil.rmtree(left, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the jail's user")
def test_other_processes_of_the_jail_s_user_do_not_keep_the_service_from_starting(
    jail: None, snakehook: Snakehook
) -> None:
    """Such as the jails of a service beside this, or of a dead one that are not gone yet."""
    crowd = "import os, sys\nfor _ in range(40):\n  if os.fork() == 0: break\n"
    crowd += "print(flush=True)\nsys.stdin.read()\n"
    crowd = f"import os\nos.setgid(65534); os.setuid(65534)\n{crowd}"
    pipe = subprocess.PIPE
    command = [sys.executable, "-I", "-c", crowd]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(41):
            process.stdout.readline()
        done = snakehook.with_settings(CGROUP_PIDS_MAX=16, MAX_CONCURRENCY=1).run("check")
        process.stdin.close()
    assert done.returncode == 0, done.stdout


def stop(service: Service) -> tuple[int, float]:
    """SIGTERM: the exit code and the seconds that it took."""
    begun = time.monotonic()
    service.process.terminate()
    code = service.process.wait(60)
    return code, time.monotonic() - begun


def test_sigterm_ends_the_jails_and_keeps_the_queue(
    serve: Serve, index: Index, discord: Discord, state: Path
) -> None:
    with gate(index, "slow") as slow:
        # A stop on purpose is no crash: however often, the run is not given up.
        for times in (1, 2, 3):
            with serve(API_TOKEN=TOKEN, MAX_CONCURRENCY=1) as service:
                if times == 1:
                    runs = [service.accept("slow"), service.accept("tiny"), service.accept("tiny")]
                wait_for(lambda: slow.count == times, 60)  # noqa: B023
                code, seconds = stop(service)
                assert code == 0, service.log.read_text()
                assert seconds < 5
                assert "Traceback" not in service.log.read_text(), service.log.read_text()
                assert leftovers(state) == []
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            reports = [service.finished(run_id, 60) for run_id in runs]
    assert [report["outcome"] for report in reports] == ["failed", "ok", "ok"]
    assert messages_of(discord) == dict.fromkeys(runs, 1)


def test_requests_get_503_while_it_stops(serve: Serve, discord: Discord) -> None:
    # The courier is given a moment to end its delivery.
    slow = Gate(Reply(503))
    discord.script(slow)
    try:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("tiny")
            assert slow.asked.wait(60)
            with load(service.port) as client:
                wait_for(lambda: client.accepted, 20)
                code, seconds = stop(service)
            assert code == 0, service.log.read_text()
            assert seconds < 5
        slow.opened.set()
        assert client.statuses[503] > 0, client.statuses
        assert set(client.statuses) <= {202, 503}
        assert "Traceback" not in service.log.read_text(), service.log.read_text()
        with serve(API_TOKEN=TOKEN) as service:
            for accepted in (run_id, *client.accepted):
                assert service.finished(accepted, 60)["outcome"] == "ok"
    finally:
        slow.opened.set()
    assert all(messages_of(discord)[accepted] == 1 for accepted in (run_id, *client.accepted))


def test_sigterm_is_quick_while_the_index_keeps_silent(
    serve: Serve, index: Index, state: Path
) -> None:
    silent = Gate(Reply(404))
    try:
        with gate(index, "slow") as slow, serve(API_TOKEN=TOKEN) as service:
            index.answer("/simple/pip/", silent)
            service.accept("slow")
            assert slow.asked.wait(60)
            code, seconds = stop(service)
            assert code == 0
            assert seconds < 5
            assert leftovers(state) == []
        index.answer("/simple/pip/", Reply(500))
        # The hosts of its files could not be learnt at start.
        with serve(API_TOKEN=TOKEN) as service:
            before = silent.count
            index.answer("/simple/pip/", silent)
            service.accept("tiny")
            wait_for(lambda: silent.count > before, 60)
            code, seconds = stop(service)
            assert code == 0
            assert seconds < 5
            assert leftovers(state) == []
    finally:
        silent.opened.set()


def test_sigterm_works_where_interrupts_are_ignored(serve: Serve, snakehook: Snakehook) -> None:
    """As for a service that a script starts in the background: its shell ignores SIGINT for it."""
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
def test_a_second_signal_changes_nothing(
    serve: Serve, index: Index, discord: Discord, number: int
) -> None:
    with gate(index, "slow") as slow:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("slow")
            wait_for(lambda: slow.count == 1, 60)
            service.process.send_signal(number)
            service.process.send_signal(number)
            assert service.process.wait(20) == 0, service.log.read_text()
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            assert service.finished(run_id, 60)["outcome"] == "failed"
    assert messages_of(discord) == {run_id: 1}


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


def test_healthz_tells_that_runs_fail_until_they_work_again(
    serve: Serve, snakehook: Snakehook, home: Path
) -> None:
    real = find_nsjail()
    nsjail = home / "nsjail"
    nsjail.symlink_to(real)
    with serve(NSJAIL_PATH=nsjail) as service:
        assert service.healthy()
        nsjail.unlink()
        for _ in range(3):
            report = service.finished(service.accept("tiny"), 60)
            # "failed" would blame the package.
            assert report["outcome"] == "error", report
        assert service.health() == 503
        nsjail.symlink_to(real)
        assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
        assert service.healthy()


def test_healthz_tells_that_keeper_is_gone(serve: Serve, discord: Discord) -> None:
    with serve(API_TOKEN=TOKEN) as service:
        family = family_of(service.process.pid)
        assert family.keeper
        os.kill(family.keeper, signal.SIGKILL)
        wait_for(lambda: service.health() == 503, 5)
        refused = service.post({"package_name": "tiny", "version": "1.0"})
        assert refused.status == 503
        assert "retry-after" in refused.headers
        code, seconds = stop(service)
        assert code == 0
        assert seconds < 5


def test_a_run_that_loses_its_keeper_is_run_again(
    serve: Serve, index: Index, discord: Discord
) -> None:
    with gate(index, "slow") as slow:
        with serve(API_TOKEN=TOKEN) as service:
            run_id = service.accept("slow")
            wait_for(lambda: slow.count == 1, 60)
            family = family_of(service.process.pid)
            assert family.keeper
            os.kill(family.keeper, signal.SIGKILL)
            wait_for(lambda: service.report(run_id)["status"] == "queued", 10)
        slow.opened.set()
        with serve(API_TOKEN=TOKEN) as service:
            assert service.finished(run_id, 60)["outcome"] == "failed"
    assert messages_of(discord) == {run_id: 1}


def test_where_no_jail_can_be_made_it_serves_and_delivers_what_there_is(
    serve: Serve, discord: Discord
) -> None:
    discord.script(*[Reply(500)] * 2)
    with serve(API_TOKEN=TOKEN) as service:
        run_id = service.accept("tiny")
        wait_for(lambda: service.report(run_id)["status"] == "finished", 60, every_sec=0.1)
    with serve(API_TOKEN=TOKEN, NSJAIL_PATH=shutil.which("false"), health=503) as service:
        assert service.finished(run_id, 60)["delivery"]["state"] == "delivered"

        def refusal() -> str:
            refused = service.post({"package_name": "tiny", "version": "1.0"})
            assert refused.status == 503
            assert "retry-after" in refused.headers
            return str(refused.json["error"])

        wait_for(lambda: "snakehook check" in refusal(), 10)
        assert "namespaces" in service.log.read_text()  # what is in the way


def ended(service: Service, run_id: str) -> None:
    wait_for(lambda: service.report(run_id)["status"] == "finished", 60, every_sec=0.1)


def test_keep_runs_drops_the_oldest_delivered_and_no_undelivered_one(
    serve: Serve, discord: Discord
) -> None:
    slow = Gate(Reply(503))
    try:
        with serve(KEEP_RUNS=2, MAX_CONCURRENCY=1) as service:
            delivered = [service.accept("tiny") for _ in range(2)]
            for run_id in delivered:
                service.finished(run_id, 60)
            discord.script(slow)
            pending = [service.accept("tiny") for _ in range(4)]
            for run_id in pending:  # it has its report, though not delivered
                ended(service, run_id)
            for run_id in delivered:
                assert service.get(f"/v1/triage/{run_id}").status == 404
            for run_id in pending:
                assert service.report(run_id)["delivery"]["state"] == "pending"
            slow.opened.set()
            for run_id in pending:
                service.finished(run_id, 60)
            last = service.accept("tiny")
            service.finished(last, 60)

            def kept() -> list[str]:
                every = [*pending, last]
                return [run for run in every if service.get(f"/v1/triage/{run}").status == 200]

            wait_for(lambda: kept() == [pending[-1], last], 20)
            assert service.get(f"/v1/triage/{pending[0]}/report.html").status == 404
    finally:
        slow.opened.set()
    assert messages_of(discord) == dict.fromkeys((*delivered, *pending, last), 1)


SIX = TriageRequest("six", "1.16.0", "install")


def finish(store: Store, delivery: str, evidence: bytes) -> str:
    """Have a run of the store finished; its id."""
    run_id = store.add(SIX, 1000) or ""
    store.write(STATEMENTS["claim"])
    store.finish(run_id, make_own_result(SIX, "ok", "")._replace(evidence=evidence))
    store.note_delivery(run_id, Delivery(delivery, 1))
    return run_id


STATES = {"d": "delivered", "p": "pending", "r": "refused"}


def kept_store(folder: Path, states: str, evidence: bytes) -> tuple[Store, list[str]]:
    """A store with a finished run for each letter of `states`, the oldest first."""
    store = Store(folder / "runs.sqlite")
    return store, [finish(store, STATES[letter], evidence) for letter in states]


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
def test_what_is_kept_by_number_and_by_bytes(
    tmp_path: Path, states: str, keep: int, kept: list[int]
) -> None:
    size = 1_000_000
    for by_number in (True, False):
        place = tmp_path / str(by_number)
        place.mkdir()
        store, runs = kept_store(place, states, bytes(size))
        if by_number:
            store.write(STATEMENTS["forget"], keep_runs=keep, keep_bytes=10**12)
        else:
            store.write(STATEMENTS["forget"], keep_runs=1000, keep_bytes=int((keep + 0.5) * size))
        assert [n for n, run_id in enumerate(runs) if store.report(run_id)] == kept


def test_a_run_that_waits_or_runs_is_never_dropped(tmp_path: Path) -> None:
    store, runs = kept_store(tmp_path, "dd", b"e")
    running = store.add(SIX, 1000) or ""
    store.write(STATEMENTS["claim"])
    waiting = store.add(SIX, 1000) or ""
    store.write(STATEMENTS["forget"], keep_runs=1, keep_bytes=1)
    assert [store.report(run_id) for run_id in runs] == [None, None]
    assert store.report(running)
    assert store.report(waiting)


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    store, _ = kept_store(tmp_path, "", b"")
    sizes = []
    for _ in range(40):
        finish(store, "delivered", bytes(500_000))
        store.write(STATEMENTS["forget"], keep_runs=5, keep_bytes=10**12)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert max(sizes) < 12_000_000, sizes


def test_nobody_else_can_read_the_store(serve: Serve, state: Path) -> None:
    """Whatever the umask: what is asked for and found is nobody else's business."""
    with serve() as service:
        service.finished(service.accept("tiny"), 60)
        paths = list(state.glob("snakehook.sqlite*"))
        assert paths
        for path in paths:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
