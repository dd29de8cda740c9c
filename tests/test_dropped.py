"""dropped.tar.gz: what a package left behind, or ran and removed again, in a file that can do no
harm to who opens it.
"""

import gzip
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve
from hostile import ONCE
from reports import an_order
from standins import Index

from jail.orders import HOME_IN_JAIL
from jail.watch.calls import Execute
from jail.watch.captures import (
    MAX_CAPTURED_BYTES,
    MAX_CAPTURES,
    MAX_INPUT_WAITS,
    Captures,
    reads_input,
)
from jail.watch.dropped import MANIFEST, MAX_DROPPED_BYTES, Drop, Dropped, Way
from jail.watch.events import Phase, PhaseName
from jail.watch.scratch import FileState
from snakehook import Frame

MIB = 1 << 20
PHASE = Phase(PhaseName.IMPORT, "x")

# Each kind of thing that a package can leave or run; what it runs does nothing.
DROPPER = (
    ONCE
    + r"""
import socket, subprocess, sys
home, work = "/home/dev/", "/tmp/"
def put(path, data):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o755)
    return path
put(home + "small", b"left behind\n")
os.link(home + "small", home + "other name of small")
put(home + "large", bytes(range(256)) * (3 << 12))
with open(home + "sparse", "wb") as file:
    file.truncate(900_000_000)
os.symlink("/etc/passwd", home + "link")
os.symlink("/proc/self/fd/0", home + "endless")
os.mkfifo(home + "fifo")
os.umask(0o077)
socket.socket(socket.AF_UNIX).bind(home + "socket")
put(home + "\x1b[2J\n..\\..\\x\u202e", b"odd name\n")
os.makedirs(work + "d/" * 60)
put(work + "d/" * 60 + "deep", b"deep\n")
with open("/bin/true", "rb") as file:
    true = file.read()
run = lambda *words, **more: subprocess.run(words, check=False, stdout=-3, **more)
def filled(data):
    near, far = os.pipe()
    os.write(far, data)
    os.close(far)
    return os.fdopen(near)
# A machine that is busy may look too late.
for _ in range(4):
    run(put(work + "fleeting", true + b"fleeting"))
    os.unlink(work + "fleeting")
    fd = os.memfd_create("nameless")
    os.write(fd, true + b"from memory")
    run(f"/proc/self/fd/{fd}", pass_fds=[fd])
    run("sh", put(work + "script.sh", b": removed\n"))
    os.unlink(work + "script.sh")
    with open(put(work + "input", b": from a file\n"), "rb") as file:
        os.unlink(work + "input")
        run("sh", stdin=file)
    run("sh", "-s", "word", stdin=filled(b": piped to a shell\n"))
    run(sys.executable, "-", stdin=filled(b"'piped to Python'\n"))
    run("sh", "-c", ": not kept", stdin=filled(b": nobody's script\n"))
"""
)


class Archive:
    """dropped.tar.gz, as somebody reads it who unpacks nothing."""

    def __init__(self, packed: bytes) -> None:
        self.tar = tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed)))  # noqa: SIM115
        self.members = self.tar.getmembers()
        self.manifest: dict[str, Any] = json.loads(self.data(MANIFEST))
        self.files: list[dict[str, Any]] = self.manifest["files"]

    def data(self, name: str) -> bytes:
        file = self.tar.extractfile(name)
        assert file
        return file.read()

    def kept(self, **about: object) -> bytes:
        """The content of the one entry with these fields."""
        found = [entry for entry in self.files if entry.items() >= about.items()]
        assert len(found) == 1, (about, self.files)
        data = self.data(found[0]["member"])
        assert found[0]["cut"] or found[0]["bytes"] == len(data)
        if found[0]["sha256"] and not found[0]["cut"]:
            assert found[0]["sha256"] == hashlib.sha256(data).hexdigest()
        return data


def assert_harmless(archive: Archive) -> None:
    """No member can surprise who unpacks it."""
    for member in archive.members:
        assert member.isreg() and member.mode == 0o600, member.get_info()
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 0
        assert member.name == MANIFEST or (
            member.name.endswith(".bin") and "/" not in member.name and member.name.isascii()
        )


def a_drop(data: bytes, **about: Any) -> Drop:
    fields: dict[str, Any] = {"way": Way.FILE, "path": "/x", "process": None, "data": data}
    fields |= {"size_bytes": len(data), "sha256": None, "is_cut": False}
    return Drop(**fields | about)


def test_a_flood_takes_half_of_the_room_and_hides_nothing_that_comes_later() -> None:
    dropped = Dropped()
    noise = [os.urandom(MIB) for _ in range(20)]
    dropped.take(PHASE, [a_drop(data) for data in noise])
    dropped.take(PHASE, [a_drop(noise[0] + b"x"), a_drop(b"small"), a_drop(noise[19])])
    archive = Archive(dropped.close(an_order()))
    kept = [archive.data(entry["member"]) for entry in archive.files]
    assert kept == [*noise[:7], b"small", noise[19], noise[0] + b"x"]
    assert archive.manifest["left_out"] == 13


def test_it_is_full_at_its_bound_whatever_comes() -> None:
    dropped = Dropped()
    for number in range(60):
        drops = [a_drop(os.urandom(40_000), path="p" * 9000) for _ in range(20)]
        dropped.take(Phase(PhaseName.IMPORT, f"{number}" * 5000), drops)
    packed = dropped.close(an_order())
    assert MAX_DROPPED_BYTES * 0.95 < len(gzip.decompress(packed)) <= MAX_DROPPED_BYTES
    # As the service takes it.
    assert len(packed) <= Frame.DROPPED.value[0]
    assert_harmless(Archive(packed))
    entry = Archive(packed).files[-1]
    assert len(entry["path"]) < 5000 and len(entry["trigger"]) < 1000


def test_what_ran_comes_before_what_lies_there_and_the_small_before_the_large() -> None:
    dropped = Dropped()
    large, small = a_drop(b"l" * 1000), a_drop(b"s")
    ran = a_drop(b"r" * 2000, way=Way.PROGRAM, sha256="ab" * 32)
    dropped.take(PHASE, [large, small, ran])
    files = Archive(dropped.close(an_order())).files
    assert [entry["bytes"] for entry in files] == [2000, 1, 1000]
    assert files[0] == {
        "member": f"0001-{hashlib.sha256(b'r' * 2000).hexdigest()[:16]}.bin",
        "way": "program",
        "path": "/x",
        "process": None,
        "phase": "import",
        "trigger": "x",
        "sha256": "ab" * 32,
        "bytes": 2000,
        "cut": False,
    }


def test_the_same_contents_give_the_same_bytes_and_one_member() -> None:
    def made() -> bytes:
        dropped = Dropped()
        dropped.take(PHASE, [a_drop(b"same", path="/a"), a_drop(b"same", path="/b")])
        dropped.take(PHASE, [a_drop(b"same", path="/c")])
        return dropped.close(an_order())

    first, second = made(), made()
    assert first == second
    archive = Archive(first)
    assert [entry["path"] for entry in archive.files] == ["/a", "/b", "/c"]
    assert len(archive.members) == 2


def test_nothing_dropped_is_no_file() -> None:
    assert Dropped().close(an_order()) == b""


@pytest.mark.parametrize(
    ("command", "reads"),
    [
        ("sh", True),
        ("sh -e", True),
        ("bash -s -- word", True),
        ("python -", True),
        ("python -u - word", True),
        ("sh -c id", False),
        ("sh -ec id", False),
        ("python -m pip", False),
        ("python x.py -", False),
    ],
)
def test_who_reads_a_script_from_its_input_is_known_by_its_words(command: str, reads: bool) -> None:
    assert reads_input(command.encode().split()) is reads


@pytest.fixture
def captures(tmp_path: Path) -> Iterator[Captures]:
    """Of this machine's processes."""
    proc = os.open("/proc", os.O_PATH)
    yield Captures(proc, tmp_path.stat().st_dev)
    os.close(proc)


def held(process: "subprocess.Popen[bytes]", for_sec: float) -> Execute:
    """The call that started a process, which strace holds."""
    return Execute(process.pid, b"", b"", (b"sh",), None, held_until_sec=time.time() + for_sec)


@contextmanager
def holding(stdin: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that reads nothing yet."""
    process = subprocess.Popen(["/bin/sleep", "60"], stdin=stdin)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_waits_in_a_pipe_is_copied_and_goes_on_waiting(captures: Captures) -> None:
    near, far = os.pipe()
    os.set_inheritable(far, False)
    os.write(far, b"x" * 60_000)
    with holding(near) as process:
        # The far end is open: more may come.
        captures.keep_input(held(process, 0.05), [b"sh"])
        os.write(far, b"y")
        os.close(far)
        captures.keep_input(held(process, 5.0), [b"sh"])
        assert os.read(near, 70_000) == b"x" * 60_000 + b"y"
        captures.keep_input(held(process, 5.0), [b"sh"])
    os.close(near)
    first, second = captures.gone([])
    assert (first.data, first.is_cut, first.sha256) == (b"x" * 60_000, True, None)
    assert (len(second.data), second.is_cut) == (60_001, False)
    assert second.sha256 == hashlib.sha256(second.data).hexdigest()


def test_nobody_s_input_is_waited_for_too_often(captures: Captures) -> None:
    near, far = os.pipe()
    with holding(near) as process:
        for _ in range(3 * MAX_INPUT_WAITS):
            captures.keep_input(held(process, 0.001), [b"sh"])
    assert captures.left_waits == 0
    assert captures.gone([]) == []
    os.close(near)
    os.close(far)


def test_inputs_that_are_no_script_are_left_alone(captures: Captures, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    signal.alarm(30)
    kept_open = os.open(fifo, os.O_RDWR)
    left, right = socket.socketpair()
    with open("/dev/zero", "rb") as endless:  # noqa: PTH123
        for stdin in (subprocess.DEVNULL, left, endless, kept_open):
            with holding(stdin) as process:
                captures.keep_input(held(process, 0.01), [b"sh"])
    signal.alarm(0)
    left.close()
    right.close()
    os.close(kept_open)
    assert captures.gone([]) == []


def test_a_script_is_found_by_its_name_and_links_lead_nowhere_else(
    captures: Captures, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text("text")
    (tmp_path / "large").write_bytes(bytes(2 * MIB))
    (tmp_path / "out").symlink_to("/proc/self/mounts")
    (tmp_path / "round").symlink_to("round")
    os.mkfifo(tmp_path / "fifo")
    with holding(subprocess.DEVNULL) as process:
        for name in ("out", "round", "fifo", "none", "/dev/zero", "/proc/self/fd/0", ""):
            path = os.path.join(tmp_path, name)  # noqa: PTH118 - the empty name, too
            captures.keep_script(process.pid, [b"sh", os.fsencode(path)])
        assert captures.gone([]) == []
        for name in ("script", "script", "large"):
            captures.keep_script(process.pid, [b"sh", b"-e", bytes(tmp_path / name)])
    script, large = captures.gone([])
    assert (script.data, script.is_cut) == (b"text", False)
    assert (len(large.data), large.size_bytes, large.is_cut) == (MIB, 2 * MIB, True)
    about = (tmp_path / "script").stat()
    unchanged = FileState(about.st_size, about.st_ino, about.st_ctime_ns)
    assert [drop.data for drop in captures.gone([unchanged])] == [large.data]
    changed = replace(unchanged, changed_ns=unchanged.changed_ns + 1)
    assert [drop.data for drop in captures.gone([changed])] == [b"text", large.data]


def test_a_flood_of_scripts_is_bounded(captures: Captures, tmp_path: Path) -> None:
    with holding(subprocess.DEVNULL) as process:
        for number in range(MAX_CAPTURES + 50):
            path = tmp_path / f"{number}"
            path.write_bytes(os.urandom(100_000))
            captures.keep_script(process.pid, [b"sh", bytes(path)])
    found = captures.gone([])
    assert len(found) <= MAX_CAPTURES
    assert sum(len(drop.data) for drop in found) <= MAX_CAPTURED_BYTES


def test_what_a_package_leaves_and_what_it_runs_and_removes_is_kept(
    serve: Serve, index: Index
) -> None:
    index.add_wheel("dropper", "1.0", {"dropper.py": DROPPER})
    index.add_wheel("tiny", "1.0", {"tiny.py": "x = 1\n"})
    with serve() as service:
        runs = [service.accept(name, mode="import") for name in ("dropper", "tiny")]
        report, calm = (service.finished(run_id, 90) for run_id in runs)
        answer, nothing = (service.get(f"/v1/triage/{run_id}/dropped.tar.gz") for run_id in runs)
    assert nothing.status == 404 and calm["outcome"] == "ok" and calm["verdict"] == "clean"
    assert answer.status == 200 and answer.headers["content-type"] == "application/gzip"
    archive = Archive(answer.body)
    assert_harmless(archive)
    assert archive.manifest["run_id"] == runs[0] and archive.manifest["package_name"] == "dropper"
    home = {"phase": "import", "trigger": "dropper", "way": "file"}
    assert archive.kept(path=f"{HOME_IN_JAIL}/small", **home) == b"left behind\n"
    assert archive.kept(path=f"{HOME_IN_JAIL}/other name of small", **home) == b"left behind\n"
    large = bytes(range(256)) * (3 << 12)
    whole = hashlib.sha256(large).hexdigest()
    kept = archive.kept(path=f"{HOME_IN_JAIL}/large", cut=True, sha256=whole, **home)
    assert kept == large[:MIB]
    sparse = archive.kept(path=f"{HOME_IN_JAIL}/sparse", cut=True, sha256=None, bytes=900_000_000)
    assert sparse == bytes(MIB)
    assert archive.kept(bytes=len(b"odd name\n"), **home) == b"odd name\n"
    assert archive.kept(bytes=len(b"deep\n"), **home) == b"deep\n"
    paths = {entry["path"] for entry in archive.files}
    assert not paths & {f"{HOME_IN_JAIL}/{name}" for name in ("link", "endless", "fifo", "socket")}
    assert all(path is None or (path.isascii() and path.isprintable()) for path in paths)
    # What ran and is gone.
    true = Path("/bin/true").read_bytes()
    ran = {(entry["way"], archive.data(entry["member"])) for entry in archive.files}
    assert {found for found in ran if found[0] != "file"} == {
        ("program", true + b"fleeting"),
        ("program", true + b"from memory"),
        ("script", b": removed\n"),
        ("script", b": from a file\n"),
        ("piped", b": piped to a shell\n"),
        ("piped", b"'piped to Python'\n"),
    }
    about = {(entry["way"], entry["path"], entry["process"]) for entry in archive.files}
    assert {
        ("program", "/tmp/fleeting", None),  # noqa: S108
        ("program", "/memfd:nameless (deleted)", None),
        ("script", "/tmp/script.sh", None),  # noqa: S108
        ("piped", None, "sh -s word"),
    } <= about
    # The same hashes stand in the report.
    by_path = {entry["path"]: entry["sha256"] for entry in report["files"]}
    assert by_path[f"{HOME_IN_JAIL}/large"] == whole
    assert by_path[f"{HOME_IN_JAIL}/small"] == hashlib.sha256(b"left behind\n").hexdigest()
    for name in ("link", "endless", "fifo", "socket", "sparse"):
        assert by_path[f"{HOME_IN_JAIL}/{name}"] is None
