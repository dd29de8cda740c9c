"""A disk that fills up: a small tmpfs, filled at each place that writes. Nothing is lost, and
nothing is made up."""

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Serve, Service, Snakehook, free_port, make_state, serving
from standins import Discord, Gate, Index, Recorded, Reply, messages_of, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")

DISK_BYTES = 24 << 20


class Disk:
    """A file system of its own, and the file that fills it."""

    def __init__(self, root: Path) -> None:
        self.root, self.ballast = root, root / "ballast"

    def fill(self) -> None:
        with self.ballast.open("ab", buffering=0) as file:
            for block in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(block))
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    root = Path(tempfile.mkdtemp(prefix="snakehook-small-"))  # an ordinary user can reach it
    mount, umount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "small", str(root)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(root)
    finally:
        subprocess.run([umount, "--lazy", str(root)], check=True)
        root.rmdir()


@pytest.fixture
def full_state(disk: Disk, jail_python_cache: Path, environment: dict[str, str]) -> Path:
    """A STATE_DIR on that disk."""
    state = make_state(disk.root, jail_python_cache)
    environment["STATE_DIR"] = str(state)
    return state


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})


def ask(service: Service) -> Answer:
    return service.post({"package_name": "tiny", "version": "1.0"})


def health(service: Service) -> int:
    return service.get("/healthz", token=None).status


def assert_whole(state: Path) -> None:
    with contextlib.closing(sqlite3.connect(state / "snakehook.sqlite", timeout=20)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def threads(service: Service) -> int:
    return len([*Path(f"/proc/{service.process.pid}/task").iterdir()])


def in_log(service: Service, *words: str) -> bool:
    return any(all(word in line for word in words) for line in service.log.read_text().splitlines())


def test_a_request_gets_503_until_there_is_space(
    serve: Serve, disk: Disk, full_state: Path, discord: Discord
) -> None:
    with serve() as service:
        first = service.accept("tiny")
        service.finished(first, 60)
        assert health(service) == 200
        disk.fill()
        for _ in range(5):
            refused = ask(service)
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "queue" not in refused.json["error"].lower()  # the reason is another
        # Who goes on asking costs no thread, and no line of the log, that stays.
        before = threads(service)
        assert {ask(service).status for _ in range(12)} == {503}
        assert threads(service) <= before + 1
        assert service.report(first)["outcome"] == "ok"  # what is kept can be read
        assert service.get(f"/v1/triage/{first}/report.html").status == 200
        disk.free()
        accepted = wait_for(
            lambda: (answer := ask(service)).status == 202 and answer, 30, every_sec=0.2
        )
        second = accepted.json["run_id"] if accepted else ""
        assert service.finished(second, 60)["outcome"] == "ok"
        wait_for(lambda: health(service) == 200, 20)
        assert "Traceback" not in service.log.read_text()
    assert messages_of(discord) == {first: 1, second: 1}
    assert_whole(full_state)


def test_healthz_tells_that_the_disk_is_full(serve: Serve, disk: Disk, full_state: Path) -> None:
    with serve() as service:
        disk.fill()
        assert ask(service).status == 503
        wait_for(lambda: health(service) == 503, 10, every_sec=0.2)
        assert service.get("/healthz", token=None).json["error"]
        disk.free()
        wait_for(lambda: health(service) == 200, 20)


def test_a_run_under_way_ends_with_an_honest_report(
    serve: Serve, disk: Disk, full_state: Path, index: Index, discord: Discord
) -> None:
    gate = Gate(Reply(404))
    index.answer("/simple/slow/", gate)
    try:
        with serve(MAX_CONCURRENCY=1) as service:
            slow, queued = service.accept("slow"), service.accept("tiny")
            assert gate.asked.wait(60)
            disk.fill()
            gate.opened.set()
            wait_for(lambda: in_log(service, slow, "can't be written"), 60)
            assert [service.report(accepted)["status"] for accepted in (slow, queued)] == [
                "running",
                "queued",
            ]
            assert ask(service).status == 503
            assert discord.messages == []
            disk.free()
            reports = [service.finished(accepted, 60) for accepted in (slow, queued)]
            assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
    finally:
        gate.opened.set()
    assert [report["outcome"] for report in reports] == ["failed", "ok"]
    assert reports[0]["phases"][0]["exit_code"] == 1  # nothing of the run that was is missing
    assert [messages_of(discord)[accepted] for accepted in (slow, queued)] == [1, 1]
    assert_whole(full_state)


def test_a_run_under_way_on_a_full_disk_survives_a_crash(
    serve: Serve, disk: Disk, full_state: Path, index: Index, discord: Discord
) -> None:
    gate = Gate(Reply(404))
    index.answer("/simple/slow/", gate)
    try:
        with serve(API_TOKEN="t") as service:
            slow = service.accept("slow")
            assert gate.asked.wait(60)
            disk.fill()
            gate.opened.set()
            wait_for(lambda: in_log(service, slow, "can't be written"), 60)
            service.process.kill()
            service.process.wait()
        disk.free()
        with serve(API_TOKEN="t") as service:
            assert service.finished(slow, 60)["outcome"] == "failed"
    finally:
        gate.opened.set()
    assert messages_of(discord) == {slow: 1}
    assert_whole(full_state)


def test_sigterm_is_quick_on_a_full_disk(
    serve: Serve, disk: Disk, full_state: Path, index: Index
) -> None:
    gate = Gate(Reply(404))
    index.answer("/simple/slow/", gate)
    try:
        with serve(API_TOKEN="t") as service:
            slow = service.accept("slow")
            assert gate.asked.wait(60)
            disk.fill()
            begun = time.monotonic()
            service.process.terminate()
            assert service.process.wait(60) == 0
            assert time.monotonic() - begun < 5
        disk.free()
        gate.opened.set()
        with serve(API_TOKEN="t") as service:
            assert service.finished(slow, 60)["outcome"] == "failed"
    finally:
        gate.opened.set()


def test_a_delivery_waits_for_space_and_is_made_once(
    serve: Serve, disk: Disk, full_state: Path, discord: Discord
) -> None:
    gate = Gate(Reply(503))
    discord.script(gate)
    try:
        with serve() as service:
            run_id = service.accept("tiny")
            assert gate.asked.wait(60)
            disk.fill()
            gate.opened.set()
            wait_for(lambda: in_log(service, run_id, "can't be written"), 60)
            disk.free()
            delivery = service.finished(run_id, 60)["delivery"]
            assert delivery["state"] == "delivered"
            assert "Traceback" not in service.log.read_text()
    finally:
        gate.opened.set()
    assert messages_of(discord) == {run_id: 1}
    assert_whole(full_state)


def test_a_message_whose_delivery_can_t_be_noted_is_not_sent_again(
    serve: Serve, disk: Disk, full_state: Path, discord: Discord
) -> None:
    def answer(exchange: BaseHTTPRequestHandler) -> None:
        disk.fill()  # between the message and the note that it was delivered
        Reply(200, '{"id": "1"}', {"Content-Type": "application/json"})(exchange)

    discord.script(Recorded(answer))
    with serve() as service:
        run_id = service.accept("tiny")
        wait_for(lambda: in_log(service, run_id, "can't be written"), 60)
        disk.free()
        assert service.finished(run_id, 60)["delivery"]["state"] == "delivered"
    assert messages_of(discord) == {run_id: 1}


def test_a_full_cache_is_told_or_done_without(
    serve: Serve, disk: Disk, index: Index, discord: Discord
) -> None:
    cache = disk.root / "cache"
    cache.mkdir()
    with serve(PIP_CACHE_DIR=cache) as service:
        disk.fill()
        report = service.finished(service.accept("tiny"), 60)
        assert_honest(report)
        disk.free()
        assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
        disk.free()
    assert len(discord.messages) == 2


def assert_honest(report: dict[str, Any]) -> None:
    """It went well, or the report says that the disk was in the way."""
    told = " ".join(
        [
            report["reason"],
            *report["coverage"]["notes"],
            *(phase["stderr"]["text"] for phase in report["phases"]),
        ]
    )
    assert report["outcome"] == "ok" or any(
        word in told.lower() for word in ("space", "disk", "cache")
    ), report


def test_the_disk_comes_and_goes_under_load(
    serve: Serve, disk: Disk, full_state: Path, discord: Discord
) -> None:
    statuses: Counter[int] = Counter()
    accepted = []
    with serve(QUEUE_LIMIT=8, LOG_LEVEL="WARNING") as service:
        for turn in range(8):
            disk.free() if turn % 2 else disk.fill()
            end = time.monotonic() + 0.6
            while time.monotonic() < end:
                answer = ask(service)
                statuses[answer.status] += 1
                if answer.status == 202:
                    accepted.append(answer.json["run_id"])
        disk.free()
        reports = [service.finished(run_id, 60) for run_id in accepted]
        print(f"{statuses}, {len(accepted)} accepted")
        assert set(statuses) == {202, 503}
        assert Counter(report["outcome"] for report in reports) == {"ok": len(accepted)}
        assert "Traceback" not in service.log.read_text()
        wait_for(lambda: health(service) == 200, 20)
    assert messages_of(discord) == dict.fromkeys(accepted, 1)
    assert_whole(full_state)


def refused(service: Service) -> bool:
    with contextlib.suppress(OSError):
        return ask(service).status == health(service) == 503
    return False


def test_a_start_on_a_full_disk_says_so_and_harms_nothing(
    serve: Serve,
    snakehook: Snakehook,
    disk: Disk,
    full_state: Path,
    discord: Discord,
    index: Index,
    tmp_path: Path,
) -> None:
    gate = Gate(Reply(404))
    index.answer("/simple/slow/", gate)
    try:
        with serve(API_TOKEN="t") as service:
            runs = [service.accept("slow"), service.accept("tiny")]
            assert gate.asked.wait(60)
            service.process.kill()
            service.process.wait()
        gate.opened.set()
        disk.fill()
        # It may start all the same, for it can read; if not, it says why.
        port = free_port()
        program = snakehook.with_settings(API_TOKEN="t", DISCORD_WEBHOOK_URL=discord.url)
        with (tmp_path / "second.log").open("w") as log:
            words = ("serve", "--listen", f"127.0.0.1:{port}")
            process = program.start(*words, stdout=log, stderr=log)
            second = replace(service, process=process, port=port)
            try:
                wait_for(lambda: process.poll() is not None or refused(second), 60)
            finally:
                process.terminate()
                assert process.wait(20) in (0, 2, 3)
        assert "Traceback" not in (tmp_path / "second.log").read_text()
        disk.free()
        with serve(API_TOKEN="t") as service:
            for run_id in runs:
                assert service.finished(run_id, 60)["status"] == "finished"
    finally:
        gate.opened.set()
    assert messages_of(discord) == dict.fromkeys(runs, 1)
    assert_whole(full_state)


def test_a_package_that_fills_its_disk_takes_nothing_from_the_store(
    ordinary: Snakehook, disk: Disk, discord: Discord, index: Index, tmp_path: Path
) -> None:
    """Not as an ordinary user, either: the scratch is a file system of its own, in memory."""
    source = """
import os
with open(os.path.expanduser('~/big'), 'wb') as file:
    while True: file.write(bytes(1 << 20))
"""
    index.add_wheel("greedy", "1.0", {"greedy.py": source})
    store = disk.root / "state"
    store.mkdir()
    os.chown(store, 1000, 1000)
    (store / "python").symlink_to(ordinary.state / "python")
    settings = {"STATE_DIR": store, "MAX_DISK_BYTES": 4 * DISK_BYTES}
    webhook = {"DISCORD_WEBHOOK_URL": discord.url}
    with serving(ordinary, tmp_path / "service.log", **settings, **webhook) as service:
        before = shutil.disk_usage(disk.root).used
        run_id = service.accept("greedy", mode="import")
        assert service.finished(run_id, 90)["outcome"] == "disk"
        assert shutil.disk_usage(disk.root).used - before < 2 << 20
        assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
        assert service.healthy()
    assert messages_of(discord)[run_id] == 1
    assert_whole(store)
