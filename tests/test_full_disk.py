"""A disk that fills up: a small tmpfs, filled at each place that writes. Nothing is lost, and nothing is made up."""

import contextlib
import errno
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Serve, Service, Snakehook, serving
from standins import Discord, Index, Recorded, Reply, wait_for

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
        [mount, "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "small", str(root)], capture_output=True, text=True
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
    state = disk.root / "state"
    state.mkdir()
    (state / "python").symlink_to(jail_python_cache)
    environment["STATE_DIR"] = str(state)
    return state


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})


def ask(service: Service) -> Answer:
    return service.post({"package_name": "tiny", "version": "1.0"})


def health(service: Service) -> int:
    return service.get("/healthz", token=None).status


def messages_of(discord: Discord) -> Counter[str]:
    footers = (message.payload["embeds"][0]["footer"]["text"] for message in list(discord.messages))
    return Counter(footer.split()[-1] for footer in footers)


def assert_whole(state: Path) -> None:
    with contextlib.closing(sqlite3.connect(state / "snakehook.sqlite", timeout=20)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def in_log(service: Service, *words: str) -> bool:
    return any(all(word in line for word in words) for line in service.log.read_text().splitlines())


def test_a_request_gets_503_until_there_is_space(serve: Serve, disk: Disk, full_state: Path, discord: Discord) -> None:
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
        assert service.report(first)["outcome"] == "ok"  # what is kept can be read
        assert service.get(f"/v1/triage/{first}/report.html").status == 200
        disk.free()
        accepted = wait_for(lambda: (answer := ask(service)).status == 202 and answer, 30, every_sec=0.2)
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
    asked, opened = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        asked.set()
        opened.wait(30)
        Reply(404)(exchange)

    index.answer("/simple/slow/", wait)
    try:
        with serve(MAX_CONCURRENCY=1) as service:
            slow, queued = service.accept("slow"), service.accept("tiny")
            assert asked.wait(60)
            disk.fill()
            opened.set()
            wait_for(lambda: in_log(service, slow, "can't be written"), 60)
            assert [service.report(one)["status"] for one in (slow, queued)] == ["running", "queued"]
            assert ask(service).status == 503
            assert discord.messages == []
            disk.free()
            reports = [service.finished(one, 60) for one in (slow, queued)]
            assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
    finally:
        opened.set()
    assert [report["outcome"] for report in reports] == ["failed", "ok"]
    assert reports[0]["phases"][0]["exit_code"] == 1  # nothing of the run that was is missing
    assert [messages_of(discord)[one] for one in (slow, queued)] == [1, 1]
    assert_whole(full_state)


def test_a_run_under_way_on_a_full_disk_survives_a_crash(
    serve: Serve, disk: Disk, full_state: Path, index: Index, discord: Discord
) -> None:
    asked, opened = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        asked.set()
        opened.wait(30)
        Reply(404)(exchange)

    index.answer("/simple/slow/", wait)
    try:
        with serve(API_TOKEN="t") as service:
            slow = service.accept("slow")
            assert asked.wait(60)
            disk.fill()
            opened.set()
            wait_for(lambda: in_log(service, slow, "can't be written"), 60)
            service.process.kill()
            service.process.wait()
        disk.free()
        with serve(API_TOKEN="t") as service:
            assert service.finished(slow, 60)["outcome"] == "failed"
    finally:
        opened.set()
    assert messages_of(discord) == {slow: 1}
    assert_whole(full_state)


def test_sigterm_is_quick_on_a_full_disk(serve: Serve, disk: Disk, full_state: Path, index: Index) -> None:
    asked, opened = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        asked.set()
        opened.wait(30)
        Reply(404)(exchange)

    index.answer("/simple/slow/", wait)
    try:
        with serve(API_TOKEN="t") as service:
            slow = service.accept("slow")
            assert asked.wait(60)
            disk.fill()
            begun = time.monotonic()
            service.process.terminate()
            assert service.process.wait(60) == 0
            assert time.monotonic() - begun < 5
        disk.free()
        opened.set()
        with serve(API_TOKEN="t") as service:
            assert service.finished(slow, 60)["outcome"] == "failed"
    finally:
        opened.set()


def test_a_delivery_waits_for_space_and_is_made_once(
    serve: Serve, disk: Disk, full_state: Path, discord: Discord
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        asked.set()
        answered.wait(20)
        Reply(503)(exchange)

    discord.script(wait)
    try:
        with serve() as service:
            run_id = service.accept("tiny")
            assert asked.wait(60)
            disk.fill()
            answered.set()
            wait_for(lambda: in_log(service, run_id, "can't be written"), 60)
            disk.free()
            delivery = service.finished(run_id, 60)["delivery"]
            assert delivery["state"] == "delivered"
            assert "Traceback" not in service.log.read_text()
    finally:
        answered.set()
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


def test_a_full_cache_is_told_or_done_without(serve: Serve, disk: Disk, index: Index, discord: Discord) -> None:
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
        [report["reason"], *report["coverage"]["notes"], *(one["stderr"]["text"] for one in report["phases"])]
    )
    assert report["outcome"] == "ok" or any(word in told.lower() for word in ("space", "disk", "cache")), report


def test_the_disk_comes_and_goes_under_load(serve: Serve, disk: Disk, full_state: Path, discord: Discord) -> None:
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
    serve: Serve, snakehook: Snakehook, disk: Disk, full_state: Path, discord: Discord, index: Index, tmp_path: Path
) -> None:
    asked, opened = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        asked.set()
        opened.wait(30)
        Reply(404)(exchange)

    index.answer("/simple/slow/", wait)
    try:
        with serve(API_TOKEN="t") as service:
            runs = [service.accept("slow"), service.accept("tiny")]
            assert asked.wait(60)
            service.process.kill()
            service.process.wait()
        opened.set()
        disk.fill()
        # It may start all the same, for it can read; if not, it says why.
        with socket.socket() as free, (tmp_path / "second.log").open("w") as log:
            free.bind(("127.0.0.1", 0))
            listen = f"127.0.0.1:{free.getsockname()[1]}"
            free.close()
            program = snakehook.with_settings(API_TOKEN="t", DISCORD_WEBHOOK_URL=discord.url)
            process = program.start("serve", "--listen", listen, stdout=log, stderr=log)
            second = replace(service, process=process, port=int(listen.rpartition(":")[2]))
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
        opened.set()
    assert messages_of(discord) == dict.fromkeys(runs, 1)
    assert_whole(full_state)


def test_a_package_that_fills_the_disk_of_the_store(
    ordinary: Snakehook, disk: Disk, discord: Discord, index: Index, tmp_path: Path
) -> None:
    """Without the privilege to mount, the scratch is on the same disk as the store."""
    source = (
        "import os\nwith open(os.path.expanduser('~/big'), 'wb') as file:\n  while True: file.write(bytes(1 << 20))\n"
    )
    index.add_wheel("greedy", "1.0", {"greedy.py": source})
    os.chown(disk.root, 1000, 1000)
    settings = {"STATE_DIR": disk.root / "state", "DISCORD_WEBHOOK_URL": discord.url}
    with (disk.root / "probe").open("wb") as probe, pytest.raises(OSError, match="space"):
        while True:  # it really is that small
            probe.write(bytes(1 << 20))
    (disk.root / "probe").unlink()
    python_bytes = 40 << 20  # the jail's interpreter has a place in STATE_DIR, too
    subprocess.run(
        [shutil.which("mount") or "mount", "-o", f"remount,size={DISK_BYTES + python_bytes}", str(disk.root)],
        check=True,
    )
    with serving(ordinary, tmp_path / "service.log", **settings) as service:
        run_id = service.accept("greedy", mode="import")
        report = service.finished(run_id, 90)
        assert report["outcome"] in ("disk", "failed"), report
        assert_honest(report)
        assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
        assert service.healthy()
    assert messages_of(discord)[run_id] == 1
    assert_whole(disk.root / "state")
