"""The file that comes with an order: what the gateway gives out in the place of the index's."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from standins import Index, Reply, json_reply, sdist, wheel
from test_gateway import ORDER, Jail
from test_watch import SETTINGS

from jail.watch.events import Downloaded
from jail.watch.sample import Sample, plain_version, send_samples, take_sample, version_in

NAME, WHEEL = wheel("calm", "1.0", {"calm.py": "found = True\n"})
DIGEST = hashlib.sha256(WHEEL).hexdigest()
# Of two index servers, one tells by its page's status, the other by the example of the standard.
QUARANTINED: tuple[dict[str, Any], ...] = (
    {"project-status": {"status": "quarantined"}, "meta": {}, "files": []},
    {"meta": {"project-status": "quarantined"}, "files": []},
)

Make = Callable[..., Jail]


@pytest.fixture
def make(index: Index, tmp_path: Path) -> Iterator[Make]:
    """`make(use, name, data)`: a client of a gateway that has this file."""
    made: list[Jail] = []

    def make(use: str = "in-hand", name: str = NAME, data: bytes = WHEEL) -> Jail:
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        jail = Jail(index, cache)
        order = ORDER._replace(sample=f"{use}:{name}")
        path = tmp_path / "sample"
        path.write_bytes(data)
        jail.gateway = jail.make(order)
        fd = os.open(path, os.O_RDONLY)
        jail.gateway.sample = Sample(order, fd, jail.cache, SETTINGS)
        made.append(jail)
        jail.start()
        return jail

    yield make
    for jail in made:
        jail.gateway.close()


def notes(jail: Jail) -> list[str]:
    assert jail.gateway.sample
    return jail.gateway.sample.notes


def names(jail: Jail) -> list[str]:
    return [file["filename"] for file in jail.page("calm")]


def test_a_file_in_hand_is_the_only_one_of_its_project(make: Make, index: Index) -> None:
    index.add_wheel("calm", "1.0", {"calm.py": "found = False\n"})
    index.add_wheel("calm", "2.0", {"calm.py": ""})
    index.add_wheel("other", "1.0", {"other.py": ""})
    jail = make()
    (file,) = jail.page("calm")
    assert (file["filename"], file["hashes"]) == (NAME, {"sha256": DIGEST})
    assert jail.get(file["url"]) == (200, WHEEL)
    assert jail.told(Downloaded) == [Downloaded(NAME, len(WHEEL), DIGEST, True)]
    assert not [path for _, path in index.requests if "calm" in path]
    assert len(jail.page("other")) == 1
    assert notes(jail) == [f"a file in hand was used, not the index's: {NAME}"]


def test_what_changes_after_it_was_taken_is_not_given_out(make: Make, tmp_path: Path) -> None:
    jail = make()
    (tmp_path / "sample").write_bytes(b"changed")
    (file,) = jail.page("calm")
    assert jail.get(file["url"]) == (200, WHEEL)


def test_a_file_in_hand_that_is_gone_from_the_cache_is_refused(make: Make) -> None:
    jail = make()
    (file,) = jail.page("calm")
    (jail.cache.folder / DIGEST).unlink()
    assert jail.get(file["url"])[0] == 502


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        (*wheel("calm", "1.0.0", {}), ""),
        (*sdist("Calm", "1.0", {"calm.py": ""}), ""),
        (NAME, wheel("calm", "1.1", {})[1], "calm 1.1"),
        (NAME, wheel("other", "1.0", {})[1], "other 1.0"),
        ("calm-1.0.tar.gz", sdist("calm", "9.9", {"calm.py": ""})[1], "calm 9.9"),
        (NAME, b"PK\3\4 and no more", "could not be compared"),
        (NAME, wheel("calm", "1.0", {"calm-1.0.dist-info/METADATA": "Name: \x1b[2J\n"})[1], "no n"),
    ],
)
def test_metadata_that_differs_from_the_name_is_noted(
    make: Make, name: str, data: bytes, word: str
) -> None:
    told = notes(make("in-hand", name, data))[1:]
    assert len(told) == bool(word)
    assert all(word in note and note.isprintable() for note in told)


def test_a_kept_file_is_used_where_the_index_has_the_release_no_more(
    make: Make, index: Index
) -> None:
    jail = make("kept")
    assert names(jail) == [NAME]
    assert jail.get(f"/files/{DIGEST}/{NAME}") == (200, WHEEL)
    assert names(jail) == [NAME]
    (note,) = notes(jail)
    assert "404" in note and DIGEST in note


@pytest.mark.parametrize("page", QUARANTINED)
def test_a_kept_file_is_used_when_its_project_is_in_quarantine(
    make: Make, index: Index, page: dict[str, Any]
) -> None:
    index.answer("/simple/calm/", json_reply(200, page))
    jail = make("kept")
    assert names(jail) == [NAME]
    assert "quarantined" in notes(jail)[0]


def test_a_kept_file_stands_beside_other_versions(make: Make, index: Index) -> None:
    index.add_wheel("calm", "1.0.1", {"calm.py": ""})
    jail = make("kept")
    assert names(jail) == [NAME, "calm-1.0.1-py3-none-any.whl"]
    assert "no such version" in notes(jail)[0]


@pytest.mark.parametrize("name", ["calm-1.0.0-py3-none-any.whl", "calm-1.tar.gz", "Calm-v1.0.zip"])
def test_a_kept_file_is_not_used_where_the_index_has_the_release(
    make: Make, index: Index, name: str
) -> None:
    index.add_file("calm", name, WHEEL)
    jail = make("kept")
    assert names(jail) == [name]
    assert notes(jail) == []
    # Nor can the jail have it by guessing.
    assert jail.get(f"/files/{DIGEST}/{NAME}")[0] == 404


def test_a_kept_file_is_not_used_when_the_index_fails(make: Make, index: Index) -> None:
    index.answer("/simple/calm/", Reply(500))
    jail = make("kept")
    assert jail.get("/simple/calm/")[0] == 502
    assert notes(jail) == []


def test_without_the_index_a_file_in_hand_needs_none(make: Make, index: Index) -> None:
    """The run fails for want of the index when something else is asked for."""
    index.answer("/simple/pip/", Reply(500))
    jail = make()
    _, trouble = take_sample(ORDER, (), jail.cache, jail.upstream, SETTINGS)
    assert trouble == ""
    jail.upstream.is_needed = False
    assert names(jail) == [NAME]
    assert not jail.upstream.is_needed
    jail.get("/simple/other/")
    assert jail.upstream.is_needed


@pytest.mark.parametrize("use", ["in-hand", "kept"])
def test_what_can_t_be_given_out_is_told(index: Index, tmp_path: Path, use: str) -> None:
    """A service that was taken over may hand over what it likes."""
    jail = Jail(index, tmp_path)
    order = ORDER._replace(sample=f"{use}:{NAME}")
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 1 << 40)
    settings = SETTINGS._replace(max_download_bytes=1000)
    near, far = socket.socketpair()
    odd = [os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "large", os.O_RDONLY)]
    odd += [near.detach(), os.open("/dev/zero", os.O_RDONLY)]
    odd += [os.open(tmp_path / "large", os.O_WRONLY), os.memfd_create("x")]
    os.set_blocking(odd[2], False)
    os.close(odd[-1])
    with far:
        for fd in odd:
            sample, trouble = take_sample(order, (fd,), jail.cache, jail.upstream, settings)
            assert sample is None
            assert trouble.startswith("the file in hand can't be given out") == (use == "in-hand")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]
    jail.listener.close()


def test_what_a_run_loaded_is_sent_whole_and_each_file_once(
    make: Make, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jail.watch.sample.SAMPLE_PIECE_BYTES", 100)
    index.add_wheel("other", "1.0", {"other.py": "x = 1\n" * 100})
    jail = make()
    for project in ("calm", "other", "calm"):
        for file in jail.page(project):
            assert jail.get(file["url"])[0] == 200
    sent: list[tuple[str, bytes]] = []
    seen = [Fact(event) for event in jail.events]
    send_samples(seen, jail.cache, lambda *frame: sent.append(frame))  # type: ignore[arg-type]
    assert [data for kind, data in sent if kind == "sample"] == [
        NAME.encode(),
        b"other-1.0-py3-none-any.whl",
    ]
    end = sent.index(("piece", b""))
    assert b"".join(data for _, data in sent[1:end]) == WHEEL
    assert sent[-1] == ("piece", b"")
    assert max(len(data) for _, data in sent) == 100


class Fact:
    def __init__(self, event: object) -> None:
        self.event = event


def test_spellings_of_one_version_are_alike() -> None:
    alike = ["1.0-beta.2", "v1b2", "1.0.0b2", "1.0_BETA2"]
    assert {plain_version(text) for text in alike} == {plain_version("1b2")}
    others = ["1", "1.0.1", "10", "1b3", "1.dev2", "1!1b2", "1b2+x"]
    assert len({plain_version(text) for text in [*others, "1b2"]}) == len(others) + 1


def test_the_version_of_a_file_s_name() -> None:
    found = [version_in(name) for name in ("a-b-1.0.tar.gz", "a_b-2-py3-none-any.whl", "x", "")]
    assert found == ["1.0", "2", "x", ""]
