"""The decoys: real files that are read in every way, and values in every disguise."""

import base64
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jail.orders import HOME_IN_JAIL
from jail.watch import decoys as decoys_room
from jail.watch.decoys import Decoys
from jail.watch.events import BaitLeaked, Event

NAME = ".aws/credentials"


class Heard:
    """What the decoys told."""

    def __init__(self) -> None:
        self.leaks: list[BaitLeaked] = []
        self.lost: dict[str, int] = {}

    def tell(self, event: Event) -> None:
        assert isinstance(event, BaitLeaked)
        self.leaks.append(event)

    def lose(self, kind: str, count: int) -> None:
        self.lost[kind] = self.lost.get(kind, 0) + count


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def decoys(tmp_path: Path, heard: Heard) -> Decoys:
    decoys = Decoys(tmp_path)
    decoys.begin(heard.tell, heard.lose)
    # The clock of a file system moves in steps.
    time.sleep(0.02)
    return decoys


def test_they_lie_where_thieves_look_private_and_old(decoys: Decoys, tmp_path: Path) -> None:
    for path in decoys.paths:
        about = Path(path.replace(HOME_IN_JAIL, str(tmp_path))).stat()
        # Not all alike; what programs keep private is private.
        assert about.st_mode & 0o777 in (0o600, 0o644)
        assert about.st_mode & 0o777 == 0o600 or "/.ssh/" not in path
        assert about.st_mtime < time.time() - 29 * 86_400
        assert about.st_atime < time.time() - 86_400 / 2
    assert f"{HOME_IN_JAIL}/.ssh/id_rsa" in decoys.paths


def test_no_two_runs_have_a_value_in_common(tmp_path: Path) -> None:
    first, second = Decoys(tmp_path / "a"), Decoys(tmp_path / "b")
    assert not set(first.variables.values()) & set(second.variables.values())
    for path in first.paths:
        texts = [
            Path(path.replace(HOME_IN_JAIL, str(tmp_path / name))).read_bytes() for name in "ab"
        ]
        assert texts[0] != texts[1]
    key = (tmp_path / "a" / NAME).read_text().split()[3]
    assert key.startswith("AKIA")
    assert key not in (tmp_path / "b" / NAME).read_text()


def read(path: Path) -> None:
    path.read_bytes()


def read_and_restore_the_times(path: Path) -> None:
    about = path.stat()
    path.read_bytes()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def map_into_memory(path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        bytes(mapped)


def send(path: Path) -> None:
    with path.open("rb") as file:
        out = os.memfd_create("copy")
        os.sendfile(out, file.fileno(), 0, 100)
        os.close(out)


def splice(path: Path) -> None:
    with path.open("rb") as file:
        far, near = os.pipe()
        os.splice(file.fileno(), near, 10)
        os.close(far)
        os.close(near)


def read_under_another_name(path: Path) -> None:
    other = path.rename(path.with_name("other"))
    other.read_bytes()


def read_by_a_link(path: Path) -> None:
    other = path.with_name("link")
    other.hardlink_to(path)
    other.read_bytes()


def move_the_folder_and_read(path: Path) -> None:
    other = path.parent.rename(path.parent.with_name("elsewhere"))
    (other / path.name).read_bytes()


def read_and_delete(path: Path) -> None:
    path.read_bytes()
    path.unlink()


def overwrite(path: Path) -> None:
    path.write_text("other")


def change_the_mode(path: Path) -> None:
    path.chmod(0o644)


WAYS = [
    read,
    read_and_restore_the_times,
    map_into_memory,
    send,
    splice,
    read_under_another_name,
    read_by_a_link,
    move_the_folder_and_read,
    read_and_delete,
    overwrite,
    change_the_mode,
]


@pytest.mark.parametrize("steal", WAYS)
def test_whatever_touches_a_file_springs_it(
    decoys: Decoys, tmp_path: Path, steal: Callable[[Path], None]
) -> None:
    assert decoys.sprung() == []
    steal(tmp_path / NAME)
    assert decoys.sprung() == [f"{HOME_IN_JAIL}/{NAME}"]


def test_the_next_phase_begins_with_every_file_set(
    decoys: Decoys, tmp_path: Path, heard: Heard
) -> None:
    read(tmp_path / NAME)
    decoys.begin(heard.tell, heard.lose)
    assert decoys.sprung() == []
    time.sleep(0.02)
    read(tmp_path / NAME)
    assert decoys.sprung() == [f"{HOME_IN_JAIL}/{NAME}"]


def test_a_look_at_the_names_springs_nothing(decoys: Decoys, tmp_path: Path) -> None:
    for _ in os.walk(tmp_path):
        pass
    assert (tmp_path / NAME).stat()
    assert decoys.sprung() == []


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "reversed": lambda value: value[::-1],
    "hex": lambda value: value.hex().encode(),
    "upper hex": lambda value: value.hex().upper().encode(),
    "base32": base64.b32encode,
    "base64": base64.b64encode,
    "base64 with more before it": lambda value: base64.b64encode(b"x" + value),
    "base64 with more around it": lambda value: base64.b64encode(b"xy" + value + b"z"),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(b"?" + value),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_value_is_found_in_every_disguise(decoys: Decoys, heard: Heard, disguise: str) -> None:
    value = decoys.variables["GITHUB_TOKEN"].encode()
    found = decoys.search("command", "curl", b"before " + DISGUISES[disguise](value) + b" after")
    assert found
    assert [(leak.name, leak.where) for leak in heard.leaks] == [("GITHUB_TOKEN", "command curl")]


def test_a_file_s_value_is_found_too(decoys: Decoys, heard: Heard, tmp_path: Path) -> None:
    assert decoys.search("file", "/tmp/x", (tmp_path / NAME).read_bytes())  # noqa: S108
    assert [leak.name for leak in heard.leaks] == [f"~/{NAME}"]


def test_a_decoy_in_its_own_place_is_no_leak(decoys: Decoys, heard: Heard, tmp_path: Path) -> None:
    data = (tmp_path / NAME).read_bytes() + decoys.variables["NPM_TOKEN"].encode()
    decoys.search_file(f"{HOME_IN_JAIL}/{NAME}", data)
    decoys.search_file(f"{HOME_IN_JAIL}/copy", data)
    assert [(leak.name, leak.where) for leak in heard.leaks] == [
        ("NPM_TOKEN", f"file {HOME_IN_JAIL}/{NAME}"),
        (f"~/{NAME}", f"file {HOME_IN_JAIL}/copy"),
    ]


def test_a_file_whose_times_alone_are_new_is_unchanged(decoys: Decoys, tmp_path: Path) -> None:
    path, file = f"{HOME_IN_JAIL}/{NAME}", tmp_path / NAME
    read_and_restore_the_times(file)
    assert decoys.is_unchanged(path, file.stat().st_ino)
    assert not decoys.is_unchanged(f"{HOME_IN_JAIL}/other", file.stat().st_ino)
    with file.open("a") as text:
        text.write("more")
    assert not decoys.is_unchanged(path, file.stat().st_ino)


def test_the_first_place_in_each_phase_is_told(decoys: Decoys, heard: Heard) -> None:
    value = decoys.variables["NPM_TOKEN"].encode()
    for _ in range(3):
        assert decoys.search("command", "a", value)
    assert len(heard.leaks) == 1
    decoys.begin(heard.tell, heard.lose)
    assert decoys.search("command", "b", value)
    assert [leak.where for leak in heard.leaks] == ["command a", "command b"]


def test_a_flood_of_one_kind_keeps_no_other_from_being_searched(
    decoys: Decoys, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoys_room, "MAX_SEARCHED_BYTES", 1000)
    value = decoys.variables["NPM_TOKEN"].encode()
    assert not decoys.search("command", "long", b"x" * 1001 + value)
    assert decoys.search("file", "short", value)
    assert heard.lost == {"command, searched for bait": 1}
