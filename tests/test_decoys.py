"""The decoys: real files that are read in every way, and values in every disguise."""

import base64
import configparser
import json
import mmap
import netrc
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from jail.orders import HOME_IN_JAIL
from jail.watch import decoys as decoys_room
from jail.watch.bait_forms import DIGITS_62
from jail.watch.decoys import Decoys
from jail.watch.events import BaitLeaked, Event

NAME = ".aws/credentials"
GOOGLE = ".config/gcloud/application_default_credentials.json"


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
    assert len(first.paths) == len(second.paths) > 15
    # Some names are drawn, too.
    for path, other in zip(first.paths, second.paths, strict=True):
        assert first.texts[path] != second.texts[other], path
    key = (tmp_path / "a" / NAME).read_text().split()[3]
    assert key.startswith("AKIA")
    assert key not in (tmp_path / "b" / NAME).read_text()


# As those write them who give them out.
FORMS = {
    "AWS_SECRET_ACCESS_KEY": r"[0-9A-Za-z]{40}",
    "GITHUB_TOKEN": r"ghp_[0-9A-Za-z]{36}",
    "TWINE_PASSWORD": r"pypi-AgEI[0-9A-Za-z]{60,71}",
    "NPM_TOKEN": r"npm_[0-9A-Za-z]{36}",
    "OPENAI_API_KEY": r"sk-proj-[0-9A-Za-z]{20}T3BlbkFJ[0-9A-Za-z]{20}",
}


def test_no_value_says_by_its_form_that_it_is_none(decoys: Decoys) -> None:
    for name, form in FORMS.items():
        assert re.fullmatch(form, decoys.variables[name]), name
        # What is drawn for tests mostly is hexadecimal.
        assert not re.fullmatch(r"\w+[_-][0-9a-f]+", decoys.variables[name])
    for name in ("GITHUB_TOKEN", "NPM_TOKEN"):
        word = decoys.variables[name].partition("_")[2]
        number = 0
        for digit in word[-6:]:
            number = number * 62 + DIGITS_62.index(digit)
        assert number == zlib.crc32(word[:-6].encode())


def folder_of_firefox(home: Path) -> Path:
    """Where its settings say that the profile is."""
    settings = configparser.ConfigParser()
    settings.read(home / ".mozilla/firefox/profiles.ini")
    return home / ".mozilla/firefox" / settings["Profile0"]["Path"]


def test_what_thieves_open_is_what_they_expect(decoys: Decoys, tmp_path: Path) -> None:
    """Who can't open what was found goes away."""
    home = tmp_path
    for name, table in (
        (".config/google-chrome/Default/Login Data", "logins"),
        (".config/gcloud/credentials.db", "credentials"),
        (".config/google-chrome/Default/Cookies", "cookies"),
        (folder_of_firefox(home).joinpath("key4.db").relative_to(home), "nssPrivate"),
    ):
        with sqlite3.connect(home / name) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            rows = database.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        assert decoys.values.get(f"~/{name}", "") in repr(rows) and rows
    assert len(json.loads((home / ".config/solana/id.json").read_text())) == 64
    logins = folder_of_firefox(home) / "logins.json"
    assert json.loads(logins.read_text())["logins"][0]["encryptedPassword"]
    key = (home / ".ssh/id_rsa").read_text().split("-----")[2]
    assert base64.b64decode(key).startswith(b"openssh-key-v1\0") and len(key) > 2400
    assert len(json.loads((home / ".docker/config.json").read_text())["auths"]) == 1
    ((login, _, password),) = netrc.netrc(home / ".netrc").hosts.values()
    assert (login, password) == ("dev", decoys.values["~/.netrc"])
    for line in (home / ".pgpass").read_text().splitlines():
        assert len(line.split(":")) == 5
    for name in (GOOGLE, ".claude/.credentials.json", ".config/google-chrome/Local State"):
        assert json.loads((home / name).read_text())


def test_the_value_of_each_file_stands_near_its_start(decoys: Decoys) -> None:
    """Of a long body only the start is kept and searched."""
    for path, text in decoys.texts.items():
        name = path.replace(HOME_IN_JAIL, "~", 1)
        # In some there is nothing that anybody would send.
        forms = decoys.forms.get(name, {text[:9]})
        assert any(form in text[: 32 << 10] for form in forms), path


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
    # What nobody searches may have a value in it.
    assert decoys.search("command", "long", b"x" * 1001 + value)
    assert heard.leaks == []
    assert decoys.search("file", "short", value)
    assert heard.lost == {"command, searched for bait": 1}
