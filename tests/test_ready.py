"""A run that is made ready before its request sees what any other run sees, and nothing of it is
left when nobody comes."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Serve, Service, Snakehook, groups
from standins import Index, wait_for
from test_keeper import ORDER

import snakehook as program
from jail import orders
from jail.orders import Order, OrderError
from jail.watch import ready
from jail.watch.inlet import Inlet
from jail.watch.main import Run

INSTALLER = "installer"
# Reads bait, starts a program, asks for a name, and looks for what another run has left. It builds
# only where pip's children find the same Python as with a pip that was told all at its start.
SETUP = """
import hashlib, os, pathlib, socket, subprocess, sys
from setuptools import setup
pathlib.Path.home().joinpath(".ssh/id_rsa").read_text()
subprocess.run(["/bin/sh", "-c", "exit 3"])
try:
    socket.gethostbyname("exfil.example")
except OSError:
    pass
# Setup runs more than once; what it has left bears the mark of this run's bait.
left, bait = pathlib.Path("/tmp/left"), os.environ["AWS_SECRET_ACCESS_KEY"]
own = hashlib.sha256(bait.encode()).hexdigest()
assert not left.exists() or left.read_text() == own, "somebody else was here"
left.write_text(own)
assert sys.prefix == os.environ["VIRTUAL_ENV"] == "/srv/site/NAME-1.0"
setup(name="NAME", version="1.0", py_modules=["calm"])
"""


def ready_groups(service: Service) -> list[Path]:
    """The cgroups of a service's runs whose jail stands: strace, nsjail, the launcher, and pip."""
    keepers = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text()
    own = [group for group in groups() if group.name.partition("-")[0] in keepers.split()]
    with suppress(OSError):
        return [group for group in own if len((group / "cgroup.procs").read_text().split()) >= 4]
    return []


def told(report: dict[str, Any]) -> dict[str, Any]:
    """What a report tells, without what differs between any two runs."""
    keys = ("severity", "rule", "phase", "trigger", "title", "at")
    findings = [tuple(finding[key] for key in keys) for finding in report["findings"]]
    network = [(row["kind"], row["target"], row["witness"]) for row in report["network"]]
    phases = [(phase["name"], phase["outcome"], phase["exit_code"]) for phase in report["phases"]]
    coverage = {key: report["coverage"][key] for key in ("kernel_witness", "python_witness")}
    seen = {"findings": sorted(map(str, findings)), "network": sorted(map(str, network))}
    return seen | coverage | {"phases": phases, "outcome": report["outcome"]}


def test_a_ready_run_sees_what_another_sees(
    snakehook: Snakehook, serve: Serve, index: Index
) -> None:
    files = {"setup.py": SETUP.replace("NAME", "acts"), "calm.py": ""}
    index.add_sdist("acts", "1.0", files)
    _, cold, _ = snakehook.triage("acts")
    warm = []
    with serve(READY_RUN="true") as service:
        for _ in range(2):
            wait_for(lambda: ready_groups(service), 30)
            run_id = service.accept("acts")
            warm.append(service.finished(run_id, 60))
            assert run_id.encode() in service.get(f"/v1/triage/{run_id}/report.html").body
    # The one had the words of pip from the start, the others heard them later. A child of pip that
    # finds no program to be does not count.
    pips = [
        [
            len(row["argv"]) > 4
            for row in report["processes"]
            if INSTALLER in row["argv"] and row["exit_code"] == 0
        ]
        for report in (cold, *warm)
    ]
    assert pips == [[True], [False], [False]]
    assert told(warm[0]) == told(warm[1]) == told(cold)
    rules = {finding["rule"] for finding in cold["findings"]}
    assert {"secret.read", "process.spawn", "network.attempt"} <= rules, cold["findings"]
    # Nothing of one run was there in the next: else it would not have been built.
    assert [report["outcome"] for report in warm] == ["ok", "ok"]


def order_line(**fields: object) -> bytes:
    return json.dumps(ORDER | fields).encode() + b"\n"


@pytest.fixture
def streams() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_order_may_come_in_pieces(streams: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = streams
    line = order_line(package_name="later")
    ours.sendall(line[:9])
    ours.sendall(line[9:])
    found = ready.await_order(Inlet(theirs))
    assert found == Order(**ORDER | {"package_name": "later"})


@pytest.mark.parametrize(
    "line",
    [
        order_line(package_name="-x"),
        order_line(version="1 --index-url"),
        b"nonsense\n",
        b"x" * (2 * orders.MAX_PACKET_BYTES),
    ],
    ids=("name", "version", "nonsense", "endless"),
)
def test_an_order_on_the_stream_is_checked_like_any(
    streams: tuple[socket.socket, socket.socket], line: bytes
) -> None:
    ours, theirs = streams
    ours.sendall(line)
    with pytest.raises(OrderError):
        ready.await_order(Inlet(theirs))


def test_nobody_waits_for_a_service_that_hung_up(
    streams: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = streams
    ours.sendall(b'{"task"')
    ours.close()
    assert ready.await_order(Inlet(theirs)) is None


def test_it_goes_when_nobody_comes(
    streams: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "READY_SEC", 0.01)
    assert ready.await_order(Inlet(streams[1])) is None


def test_threads_that_are_idle_at_once_make_one_ready() -> None:
    """As at the start of a service, when all of its pool finds nothing to do."""
    made: list[str] = []

    def order(task: str, *_others: object) -> socket.socket:
        made.append(task)
        for _ in range(1000):
            os.sched_yield()
        return near

    near, far = socket.socketpair()
    keeper = SimpleNamespace(ready={}, order=order)
    settings = SimpleNamespace(ready_run=True)
    service: Any = SimpleNamespace(
        settings=settings, keeper=keeper, closed=str, making_ready=threading.Lock()
    )
    idle = [threading.Thread(target=program.Service.make_ready, args=(service,)) for _ in range(8)]
    with near, far:
        for thread in idle:
            thread.start()
        for thread in idle:
            thread.join()
    assert made == ["ready"]


def test_a_ready_run_ends_with_its_service(serve: Serve, index: Index, tmp_path: Path) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})
    with serve(READY_RUN="true") as service:
        wait_for(lambda: ready_groups(service), 30)
        ours = ready_groups(service)
    wait_for(lambda: not [group for group in ours if group.exists()], 10)


def test_where_there_is_no_room_for_a_fifo_no_jail_is_made_ready(tmp_path: Path) -> None:
    nothing: Any = None
    run = Run(nothing, tmp_path, nothing)
    # As on a disk that is full: the folder is not there.
    assert run.make_ready_jail() is None
