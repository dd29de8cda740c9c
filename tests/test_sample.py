"""The file that comes with an order: what the gateway gives out in the place of the index's."""

import hashlib
import io
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from standins import Index, Reply, json_reply, sdist, wheel
from test_gateway import ORDER, Jail
from test_watch import SETTINGS

from jail.watch.events import Downloaded, Phase, PhaseName, Seen
from jail.watch.sample import keep_samples, make_given, plain_version, release_in
from jail.watch.samples import KeptFile, SampleStore

NAME, WHEEL = wheel("calm", "1.0", {"calm.py": "found = True\n"})
DIGEST = hashlib.sha256(WHEEL).hexdigest()
# Of two index servers, one tells by its page's status, the other by the example of the standard.
QUARANTINED: tuple[dict[str, Any], ...] = (
    {"project-status": {"status": "quarantined"}, "meta": {}, "files": []},
    {"meta": {"project-status": "quarantined"}, "files": []},
)

Make = Callable[..., Jail]


@pytest.fixture
def samples(tmp_path: Path) -> SampleStore:
    (tmp_path / "samples").mkdir()
    return SampleStore(tmp_path / "samples", 1_000_000)


@pytest.fixture
def make(index: Index, tmp_path: Path, samples: SampleStore) -> Iterator[Make]:
    """`make(file)`: a client of a gateway that has this file in hand; without, of one that has
    samples."""
    made: list[Jail] = []

    def make(name: str = "", data: bytes = WHEEL, **changes: Any) -> Jail:
        cache = tmp_path / "cache"
        cache.mkdir(exist_ok=True)
        jail = Jail(index, cache)
        order = ORDER._replace(**{"artifact": name or None} | changes)
        (tmp_path / "file").write_bytes(data)
        fds = [os.open(tmp_path / "file", os.O_RDONLY)] if name else []
        jail.gateway = jail.make(order)
        jail.gateway.given, trouble = make_given(
            order, fds, jail.cache, SETTINGS, tmp_path / "samples"
        )
        assert trouble == ""
        made.append(jail)
        jail.start()
        return jail

    yield make
    for jail in made:
        jail.gateway.close()


def notes(jail: Jail) -> list[str]:
    assert jail.gateway.given
    return jail.gateway.given.notes


def keep(
    samples: SampleStore,
    name: str = NAME,
    data: bytes = WHEEL,
    verdict: str = "high",
    **changes: Any,
) -> str:
    """Keep a file: its sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    kept = KeptFile(*release_in(name), name, sha256, verdict, len(data), 1000.0)
    samples.keep(io.BytesIO(data), replace(kept, **changes))
    return sha256


def names(jail: Jail) -> list[str]:
    return [file["filename"] for file in jail.page("calm")]


def test_a_file_in_hand_is_the_only_one_of_its_project(make: Make, index: Index) -> None:
    index.add_wheel("calm", "1.0", {"calm.py": "found = False\n"})
    index.add_wheel("calm", "2.0", {"calm.py": ""})
    index.add_wheel("other", "1.0", {"other.py": ""})
    jail = make(NAME)
    (file,) = jail.page("calm")
    assert (file["filename"], file["hashes"]) == (NAME, {"sha256": DIGEST})
    assert jail.get(file["url"]) == (200, WHEEL)
    assert jail.told(Downloaded) == [Downloaded(NAME, len(WHEEL), DIGEST, True)]
    assert not [path for _, path in index.requests if "calm" in path]
    assert len(jail.page("other")) == 1
    assert notes(jail) == [f"a file in hand was used, not the index's: {NAME}"]


def test_what_changes_after_it_was_taken_is_not_given_out(make: Make, tmp_path: Path) -> None:
    jail = make(NAME)
    (tmp_path / "sample").write_bytes(b"changed")
    (file,) = jail.page("calm")
    assert jail.get(file["url"]) == (200, WHEEL)


def test_a_file_in_hand_that_is_gone_from_the_cache_is_refused(make: Make) -> None:
    jail = make(NAME)
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
    told = notes(make(name, data))[1:]
    assert len(told) == bool(word)
    assert all(word in note and note.isprintable() for note in told)


def test_a_kept_file_is_used_where_the_index_has_the_release_no_more(
    make: Make, samples: SampleStore
) -> None:
    keep(samples)
    jail = make()
    assert names(jail) == [NAME]
    assert jail.get(f"/files/{DIGEST}/{NAME}") == (200, WHEEL)
    assert names(jail) == [NAME]
    (note,) = notes(jail)
    assert "404" in note and DIGEST in note


@pytest.mark.parametrize("page", QUARANTINED)
def test_a_kept_file_is_used_when_its_project_is_in_quarantine(
    make: Make, index: Index, samples: SampleStore, page: dict[str, Any]
) -> None:
    index.answer("/simple/calm/", json_reply(200, page))
    keep(samples)
    jail = make()
    assert names(jail) == [NAME]
    assert "quarantined" in notes(jail)[0]


def test_a_kept_file_stands_beside_other_versions(
    make: Make, index: Index, samples: SampleStore
) -> None:
    index.add_wheel("calm", "1.0.1", {"calm.py": ""})
    keep(samples)
    jail = make()
    assert names(jail) == [NAME, "calm-1.0.1-py3-none-any.whl"]
    assert "no such version" in notes(jail)[0]


@pytest.mark.parametrize("name", ["calm-1.0.0-py3-none-any.whl", "calm-1.tar.gz", "Calm-v1.0.zip"])
def test_a_kept_file_is_not_used_where_the_index_has_the_release(
    make: Make, index: Index, samples: SampleStore, name: str
) -> None:
    index.add_file("calm", name, WHEEL)
    keep(samples)
    jail = make()
    assert names(jail) == [name]
    assert notes(jail) == []
    # Nor can the jail have it by guessing.
    assert jail.get(f"/files/{DIGEST}/{NAME}")[0] == 404


def test_a_kept_file_is_not_used_when_the_index_fails(
    make: Make, index: Index, samples: SampleStore
) -> None:
    index.answer("/simple/calm/", Reply(500))
    keep(samples)
    jail = make()
    assert jail.get("/simple/calm/")[0] == 502
    assert notes(jail) == []


@pytest.mark.parametrize(
    ("artifact", "found"),
    [("wheel", [NAME]), ("sdist", ["calm-1.0.tar.gz"]), (NAME, [NAME]), ("calm-1.0.zip", [])],
)
def test_a_kept_file_is_of_the_kind_that_is_asked_for(
    make: Make, samples: SampleStore, artifact: str, found: list[str]
) -> None:
    keep(samples, "calm-1.0.tar.gz", b"an sdist")
    keep(samples)
    keep(samples, "calm-1.0.1-py3-none-any.whl", b"another version", kept_sec=2000.0)
    keep(samples, "other-1.0-py3-none-any.whl", b"another project", kept_sec=2000.0)
    jail = make(artifact=artifact)
    assert names(jail) == found if found else jail.get("/simple/calm/")[0] == 404


def test_a_kept_file_that_has_changed_is_not_used(
    make: Make, samples: SampleStore, tmp_path: Path
) -> None:
    sha256 = keep(samples)
    path = tmp_path / f"samples/{sha256}.sample"
    path.unlink()
    path.write_bytes(WHEEL + b"changed")
    assert make().get("/simple/calm/")[0] == 404


def test_without_the_index_a_file_in_hand_needs_none(make: Make, index: Index) -> None:
    """The run fails for want of the index when something else is asked for."""
    index.answer("/simple/pip/", Reply(500))
    jail = make(NAME)
    jail.upstream.is_needed = False
    assert names(jail) == [NAME]
    assert not jail.upstream.is_needed
    jail.get("/simple/other/")
    assert jail.upstream.is_needed


def test_a_file_in_hand_that_is_none_ends_the_run(index: Index, tmp_path: Path) -> None:
    """A service that was taken over may hand over what it likes."""
    jail = Jail(index, tmp_path)
    order = ORDER._replace(artifact=NAME)
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", 1 << 40)
    settings = SETTINGS._replace(max_download_bytes=1000)
    near, far = socket.socketpair()
    odd = [os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "large", os.O_RDONLY)]
    odd += [near.detach(), os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)]
    odd += [os.open(tmp_path / "large", os.O_WRONLY), os.memfd_create("x")]
    os.close(odd[-1])
    with far:
        for fd in odd:
            given, trouble = make_given(order, (fd,), jail.cache, settings, tmp_path / "no")
            assert given.in_hand is None
            assert trouble.startswith("the file in hand ")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]
    jail.listener.close()


# What is kept.


def test_what_a_run_loaded_is_kept_and_each_file_once(
    make: Make, index: Index, samples: SampleStore, tmp_path: Path
) -> None:
    other = index.add_wheel("Other_One", "1.0rc1", {"other.py": "x = 1\n" * 100})
    jail = make(NAME)
    for project in ("calm", "other-one", "calm"):
        for file in jail.page(project):
            assert jail.get(file["url"])[0] == 200
    phase = Phase(PhaseName.INSTALL)
    seen = [Seen(event, phase, 0.0, ()) for event in jail.events]
    given = jail.gateway.given
    assert given
    assert keep_samples(seen, given, "clean") is None
    assert samples.all() == []
    assert keep_samples(seen, given, "medium") is None
    assert {(kept.name, kept.version, kept.verdict) for kept in samples.all()} == {
        ("calm", "1.0", "medium"),
        ("other-one", "1.0rc1", "medium"),
    }
    assert samples.all()[0].file == other["filename"]
    assert (tmp_path / f"samples/{DIGEST}.sample").read_bytes() == WHEEL
    for path in (tmp_path / "samples").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_sample_that_comes_again_is_new_and_keeps_its_worst_verdict(samples: SampleStore) -> None:
    keep(samples, verdict="high")
    keep(samples, "other-1.0.tar.gz", b"other", kept_sec=2000.0)
    keep(samples, verdict="medium", kept_sec=3000.0)
    assert [(kept.name, kept.verdict) for kept in samples.all()] == [
        ("calm", "high"),
        ("other", "high"),
    ]


def test_the_oldest_samples_go_first(samples: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        data = bytes([number]) * 300_000
        keep(samples, f"a-{number}.tar.gz", data, kept_sec=1000.0 - number)
    assert [kept.version for kept in samples.all()] == ["0", "1", "2"]
    monkeypatch.setattr("jail.watch.samples.MAX_SAMPLES", 2)
    keep(samples, "a-9.tar.gz", b"x", kept_sec=2000.0)
    assert [kept.version for kept in samples.all()] == ["9", "0"]


def test_what_is_half_written_or_no_sample_vanishes(samples: SampleStore, tmp_path: Path) -> None:
    """A run that is ended leaves nothing, or a half that the next one removes."""
    folder = tmp_path / "samples"
    pid = os.fork()
    if pid == 0:
        with samples.unnamed() as file:
            file.write(bytes(100_000))
            file.flush()
            os._exit(0)
    os.waitpid(pid, 0)
    assert list(folder.iterdir()) == []
    with pytest.raises(OSError):
        samples.keep(Broken(), KeptFile("a", "1", "a-1.tar.gz", DIGEST, "high", 5, 1.0))
    samples.keep(io.BytesIO(b"x"), KeptFile("a", "1", "a-1.tar.gz", DIGEST, "high", 1, 1.0))
    assert list(folder.iterdir()) == []
    (folder / f"{'0' * 64}.sample").write_bytes(b"of which nothing is known")
    (folder / f"{'1' * 64}.json").write_bytes(b"{}")
    assert samples.all() == []
    keep(samples)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".sample"]


class Broken(io.BytesIO):
    """A disk that fails in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


GOOD = asdict(KeptFile("calm", "1.0", NAME, DIGEST, "high", 5, 1000.0))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"[" * 4000,
        b"\xff",
        GOOD | {"name": "\x1b[2J"},
        GOOD | {"name": None},
        GOOD | {"version": "../.."},
        GOOD | {"file": "../x.whl"},
        GOOD | {"sha256": "0" * 64},
        GOOD | {"verdict": "clean"},
        GOOD | {"size_bytes": -1},
        GOOD | {"size_bytes": True},
        GOOD | {"kept_sec": 1e300},
        GOOD | {"kept_sec": "1"},
        {"name": "calm"},
    ],
)
def test_what_is_known_of_a_sample_is_not_believed(
    samples: SampleStore, tmp_path: Path, said: object
) -> None:
    """A watch that was taken over may have written it."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    (tmp_path / f"samples/{DIGEST}.json").write_bytes(text)
    (tmp_path / f"samples/{DIGEST}.sample").write_bytes(b"12345")
    assert samples.all() == []


def test_links_and_pipes_are_no_samples(samples: SampleStore, tmp_path: Path) -> None:
    folder, secret = tmp_path / "samples", tmp_path / "secret"
    secret.write_bytes(WHEEL)
    (folder / f"{DIGEST}.json").write_text(json.dumps(GOOD))
    (folder / f"{DIGEST}.sample").symlink_to(secret)
    assert (samples.all(), samples.open(DIGEST)) == ([], None)
    (folder / f"{DIGEST}.sample").unlink()
    os.mkfifo(folder / f"{DIGEST}.sample")
    assert (samples.all(), samples.open(DIGEST)) == ([], None)
    keep(samples)
    assert secret.read_bytes() == WHEEL
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(OSError):
        SampleStore(tmp_path / "link", 1)


def test_a_sample_that_is_too_large_to_be_one_is_not_read(
    samples: SampleStore, tmp_path: Path
) -> None:
    """A file with holes costs who wrote it nothing, and who reads it an hour."""
    keep(samples)
    os.truncate(tmp_path / f"samples/{DIGEST}.sample", 1 << 40)
    assert samples.open(DIGEST) is None


def test_nobody_waits_long_for_another_who_keeps_samples(
    samples: SampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that was taken over may never let go; a run must come to its end all the same."""
    monkeypatch.setattr("jail.watch.samples.MAX_LOCK_WAIT_SEC", 0.05)
    other = SampleStore(tmp_path / "samples", 1)
    with other.locked(), pytest.raises(BlockingIOError):
        keep(samples)
    keep(samples)
    assert [kept.sha256 for kept in samples.all()] == [DIGEST]


def test_spellings_of_one_version_are_alike() -> None:
    alike = ["1.0-beta.2", "v1b2", "1.0.0b2", "1.0_BETA2"]
    assert {plain_version(text) for text in alike} == {plain_version("1b2")}
    others = ["1", "1.0.1", "10", "1b3", "1.dev2", "1!1b2", "1b2+x"]
    assert len({plain_version(text) for text in [*others, "1b2"]}) == len(others) + 1


def test_the_release_that_the_name_of_a_file_has() -> None:
    names = ("A.b-1.0.tar.gz", "a_b-2-py3-none-any.whl", "x", "", "a.whl", "a-1.zip")
    found = [release_in(name) for name in names]
    wanted = [("a-b", "1.0"), ("a-b", "2"), ("", "x"), ("", ""), ("a-whl", ""), ("a", "1")]
    assert found == wanted
