"""The walk over the scratch and what is read of it: real folders, with all that a package can do to
them.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from jail.orders import HOME_IN_JAIL, SCRATCH_FOLDERS, WORK_IN_JAIL
from jail.watch import scratch as scratch_room
from jail.watch.changes import is_in_new_environment, source_of
from jail.watch.scratch import MAX_DEPTH, MAX_FILE_BYTES, UNREADABLE, Scratch, as_seen

NOBODY_ID = 65534


@pytest.fixture
def folder(home: Path) -> Path:
    """A scratch that anybody may write to."""
    home.chmod(0o755)
    for name in SCRATCH_FOLDERS:
        path = home / name
        path.mkdir()
        path.chmod(0o777)
    return home


@pytest.fixture
def scratch(folder: Path) -> Scratch:
    return Scratch(folder, 1_000_000)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def unprivileged(work: Callable[[], None]) -> None:
    """Do it as a user for whom permissions count, in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setresgid(NOBODY_ID, NOBODY_ID, NOBODY_ID)
                os.setresuid(NOBODY_ID, NOBODY_ID, NOBODY_ID)
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("home/.bashrc", f"{HOME_IN_JAIL}/.bashrc"),
        ("tmp/a/b", "/tmp/a/b"),  # noqa: S108
        ("shm/x", "/dev/shm/x"),  # noqa: S108
        ("site/six-1.17.0/six.py", f"{WORK_IN_JAIL}/site/six-1.17.0/six.py"),
        ("odd", f"{WORK_IN_JAIL}/odd"),
        ("home/a\nb\udcff", f"{HOME_IN_JAIL}/a\\nb\\\\xff"),
    ],
)
def test_a_path_is_told_as_the_jail_sees_it(path: str, seen: str) -> None:
    assert as_seen(path) == seen


def test_a_look_finds_files_in_every_folder(folder: Path, scratch: Scratch) -> None:
    for path in ("home/.config/a/b", "site/x-1/x.py", "tmp/t", "shm/s"):
        write(folder / path, path)
    states = scratch.snapshot()
    assert {path: state.size_bytes for path, state in states.items()} == {
        path: len(path) for path in ("home/.config/a/b", "site/x-1/x.py", "tmp/t", "shm/s")
    }
    assert not scratch.lost


def test_what_was_changed_shows_though_its_times_were_restored(
    folder: Path, scratch: Scratch
) -> None:
    path = write(folder / "home" / "file", "old")
    about = path.stat()
    before = scratch.snapshot()
    time.sleep(0.02)
    with path.open("r+") as file:
        file.write("new")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert scratch.snapshot() != before


def test_links_are_files_and_lead_nowhere(folder: Path, scratch: Scratch) -> None:
    (folder / "home" / "etc").symlink_to("/etc")
    (folder / "home" / "passwd").symlink_to("/etc/passwd")
    assert set(scratch.snapshot()) == {"home/etc", "home/passwd"}
    assert scratch.read("home/passwd", "file") == b""
    assert scratch.read("home/etc/passwd", "file") == b""
    assert scratch.read("home/../../etc/passwd", "file") == b""


def test_special_files_are_listed_and_read_without_waiting(folder: Path, scratch: Scratch) -> None:
    os.mkfifo(folder / "tmp" / "fifo")
    signal.alarm(20)
    assert set(scratch.snapshot()) == {"tmp/fifo"}
    assert scratch.read("tmp/fifo", "file") == b""
    signal.alarm(0)


def test_names_may_be_any_bytes(folder: Path, scratch: Scratch) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b" "):
        Path(os.fsdecode(bytes(folder / "home") + b"/" + name)).write_text("text")
    states = scratch.snapshot()
    assert len(states) == 4
    assert all(scratch.read(path, "file") == b"text" for path in states)


def test_permissions_that_were_taken_away_are_given_back(folder: Path) -> None:
    def work() -> None:
        for name, mode in (("shut", 0), ("no-search", 0o400), ("no-list", 0o100)):
            write(folder / "home" / name / "inner" / "file", "text")
            (folder / "home" / name / "inner").chmod(mode)
            (folder / "home" / name).chmod(mode)
        states = Scratch(folder, 1_000_000).snapshot()
        names = ("no-list", "no-search", "shut")
        assert sorted(states) == [f"home/{name}/inner/file" for name in names]

    unprivileged(work)


def test_a_folder_that_cannot_be_opened_is_told(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a folder of another user")
    write(folder / "home" / "roots" / "file")
    (folder / "home" / "roots").chmod(0)

    def work() -> None:
        assert Scratch(folder, 1_000_000).snapshot() == {"home/roots/": UNREADABLE}

    unprivileged(work)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are opened, one after the other."""
    names: list[str] = []
    real = scratch_room.open_folder

    def counting(name: str, parent_fd: int) -> int:
        names.append(name)
        return real(name, parent_fd)

    monkeypatch.setattr(scratch_room, "open_folder", counting)
    return names


def test_each_folder_is_opened_about_once_however_deep_it_lies(
    folder: Path, scratch: Scratch, opened: list[str]
) -> None:
    nested = folder / "home" / "/".join("d" * 90)
    for number in range(1000):
        (nested / str(number)).mkdir(parents=True)
        (nested / str(number) / "file").touch()
    states = scratch.snapshot()
    assert len(states) == 1000
    assert not scratch.lost
    # The way down is gone once for each band of depth.
    assert len(opened) < 1000 + 4 * 90


def test_each_folder_of_many_deep_branches_is_opened_about_once(
    folder: Path, scratch: Scratch, opened: list[str]
) -> None:
    for number in range(30):
        (folder / "home" / str(number) / "/".join("d" * 90)).mkdir(parents=True)
    scratch.snapshot()
    assert len(opened) < 30 * 90 * 3


def test_what_lies_near_comes_before_what_lies_deep(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        write(folder / "home" / "a" / "b" / "c" / "d" / str(number) / "file")
    for near in ("home/z/near", "site/z/near", "tmp/z/near", "shm/z/near"):
        write(folder / near)
    monkeypatch.setattr(scratch_room, "MAX_FOLDERS", 50)
    states = scratch.snapshot()
    assert {"home/z/near", "site/z/near", "tmp/z/near", "shm/z/near"} <= states.keys()
    assert scratch.lost["FileChanged, not looked at"] > 100


def test_a_look_has_a_time_and_says_what_it_missed(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "home" / "file")
    monkeypatch.setattr(scratch_room, "MAX_WALK_SEC", -1.0)
    assert scratch.snapshot() == {}
    assert scratch.lost["FileChanged, not looked at"] == len(SCRATCH_FOLDERS)


def test_names_have_a_length_in_all(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        write(folder / "home" / str(number))
    monkeypatch.setattr(scratch_room, "MAX_LISTING_CHARS", 10 * scratch_room.PATH_CHARS)
    assert 5 < len(scratch.snapshot()) < 10
    assert scratch.lost["FileChanged, not looked at"] > 10


def test_what_is_too_deep_is_missed_and_told(folder: Path, scratch: Scratch) -> None:
    path = folder / "home"
    for _ in range(MAX_DEPTH + 10):
        path = path / "d"
    write(path / "file")
    assert scratch.snapshot() == {}
    assert scratch.lost == {"FileChanged, not looked at": 1}


def test_a_file_is_read_up_to_a_bound(folder: Path, scratch: Scratch) -> None:
    write(folder / "tmp" / "large", "x" * (MAX_FILE_BYTES + 1))
    assert len(scratch.read("tmp/large", "file")) == MAX_FILE_BYTES
    assert scratch.read("tmp/absent", "file") == b""


def test_the_hash_is_of_the_whole_of_a_plain_file(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = b"x" * (MAX_FILE_BYTES + 1)
    (folder / "tmp" / "large").write_bytes(whole)
    (folder / "tmp" / "empty").touch()
    (folder / "tmp" / "link").symlink_to("large")
    os.mkfifo(folder / "tmp" / "fifo")
    with (folder / "tmp" / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert scratch.digest("tmp/large") == sha256(whole).hexdigest()
    assert scratch.digest("tmp/empty") == sha256(b"").hexdigest()
    for name in ("link", "fifo", "sparse", "none"):
        assert scratch.digest(f"tmp/{name}") is None
    # Of one phase not more than so much.
    monkeypatch.setattr(scratch_room, "MAX_HASHED_BYTES", 2 * len(whole))
    scratch.snapshot()
    found = [scratch.digest("tmp/large") for _ in range(3)]
    assert (found[1], found[2]) == (sha256(whole).hexdigest(), None)
    scratch.snapshot()
    assert scratch.digest("tmp/large")


def test_a_flood_of_one_kind_keeps_no_other_from_being_read(
    folder: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "tmp" / "file", "text")
    monkeypatch.setattr(scratch_room, "MAX_READ_BYTES", 2 * scratch_room.PAGE_BYTES)
    assert [scratch.read("tmp/file", "RECORD") for _ in range(3)] == [b"text", b"text", b""]
    assert scratch.read("tmp/file", ".pth") == b"text"
    assert scratch.lost == {"RECORD, read": 1}
    scratch.snapshot()
    assert scratch.read("tmp/file", "RECORD") == b"text"
    assert not scratch.lost


FILL = """
import ctypes, os, sys
from pathlib import Path
sys.path.append(sys.argv[2])
from jail.watch.scratch import Scratch
folder = sys.argv[1].encode()
options = b"size=4m,nr_inodes=200"
assert ctypes.CDLL(None).mount(b"none", folder, b"tmpfs", 0, options) == 0
scratch = Scratch(Path(sys.argv[1]), 1 << 20)
print(scratch.is_full())
Path(sys.argv[1], "large").write_bytes(bytes((1 << 20) + 1))
print(scratch.is_full())
"""


def test_fullness_is_that_of_the_file_system(home: Path, jail: None) -> None:
    unshare = ["unshare", "--mount", "--user", "--map-root-user", sys.executable, "-c", FILL]
    done = subprocess.run(
        [*unshare, str(home), str(ROOT)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_a_virtual_environment_that_was_there_is_not_a_new_one() -> None:
    """A .pth file acts in one that a victim has, and in no interpreter of a new one."""
    state: Any = object()
    mark, file = "home/work/.venv/pyvenv.cfg", "home/work/.venv/lib/python3.11/site-packages/x.pth"
    assert is_in_new_environment(file, {}, {mark: state, file: state})
    assert not is_in_new_environment(file, {mark: state}, {mark: state, file: state})
    assert not is_in_new_environment(file, {}, {file: state})
    assert not is_in_new_environment(file, {}, {"home/other/pyvenv.cfg": state, file: state})


def test_what_was_compiled_after_pip_is_known_by_its_source() -> None:
    cache = "site/a-1.0/lib/python3.11/site-packages/a/__pycache__"
    for name in ("b", "hook-x.y"):
        source = f"site/a-1.0/lib/python3.11/site-packages/a/{name}.py"
        assert source_of(f"{cache}/{name}.cpython-311.pyc") == source
    assert source_of("site/a-1.0/evil.pyc") == "site/a-1.0/evil.pyc"
