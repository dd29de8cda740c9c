"""The store: each run goes its way from the queue to Discord, and nothing of it gets lost."""

import json
import sqlite3
from pathlib import Path

import falcon
import pytest

from snakehook import (
    ATTACHMENTS,
    STATEMENTS,
    Delivery,
    Result,
    Store,
    TriageRequest,
    demand_service,
)

SIX = TriageRequest("six", "1.16.0", "install")
REPORT = b'{"phases": [], "findings": []}'
RESULT = Result(
    "ok", "all ran", "clean", REPORT, b'{"title": "t"}', b"page", b"evidence", b"dropped", "shown"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs.sqlite")


def shown(store: Store, run_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(store.report(run_id) or b"{}")
    return found


def test_a_run_is_shown_at_each_step_of_its_way(store: Store) -> None:
    run_id = store.add(SIX, 1)
    waiting = shown(store, run_id)
    assert (waiting["status"], waiting["started_at"], waiting["outcome"]) == ("queued", None, None)
    assert waiting["request"] == SIX._asdict()
    claim = store.write(STATEMENTS["claim"])
    assert (claim["run_id"], json.loads(claim["request"]), claim["starts"]) == (
        run_id,
        SIX._asdict(),
        1,
    )
    assert shown(store, run_id)["status"] == "running"
    store.finish(run_id, RESULT)
    finished = shown(store, run_id)
    assert (finished["status"], finished["outcome"], finished["reason"], finished["verdict"]) == (
        "finished",
        "ok",
        "all ran",
        "clean",
    )
    assert finished["phases"] == []
    assert finished["finished_at"]
    store.note_delivery(run_id, Delivery("delivered", 2, "Discord answered 500", True))
    delivery = {"state": "delivered", "attempts": 2, "last_error": "Discord answered 500"}
    assert shown(store, run_id)["delivery"] == delivery


def test_each_attachment_is_the_file_that_its_name_says(store: Store) -> None:
    run_id = store.add(SIX, 1)
    for name in ATTACHMENTS:
        assert store.file(run_id, name) is None
    store.finish(run_id, RESULT)
    for name, (column, _) in ATTACHMENTS.items():
        assert store.file(run_id, name) == getattr(RESULT, column)
        assert store.read(STATEMENTS["message"], run_id=run_id)[column] == getattr(RESULT, column)
    assert store.file(run_id, "embed") is None
    assert store.file("unknown", "report.html") is None


def test_a_change_concerns_its_run_alone(store: Store) -> None:
    first, second = store.add(SIX, 2), store.add(SIX, 2)
    before = shown(store, second)
    store.finish(first, RESULT)
    store.note_delivery(first, Delivery("refused", 1, "no"))
    assert shown(store, second) == before
    assert store.report("unknown") is None


def test_the_queue_takes_no_more_than_its_limit(store: Store) -> None:
    assert store.add(SIX, 1)
    assert store.add(SIX, 1) == ""


def test_what_is_due_first_is_delivered_first(store: Store) -> None:
    assert store.read(STATEMENTS["next_delivery"]) == {}
    runs = [store.add(SIX, 3) for _ in range(3)]
    for run_id, due_at in zip(runs, (20.0, 10.0, 30.0), strict=True):
        store.finish(run_id, RESULT)
        store.note_delivery(run_id, Delivery("pending", 1), due_at)
    assert store.read(STATEMENTS["next_delivery"]) == {"run_id": runs[1], "due_at": 10.0}
    store.note_delivery(runs[1], Delivery("delivered", 2))
    assert store.read(STATEMENTS["next_delivery"])["run_id"] == runs[0]


def test_a_store_of_another_version_is_refused_before_it_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE runs (run_id TEXT, status TEXT, state TEXT, due_at REAL)")
    other.execute("INSERT INTO runs VALUES ('kept', 'queued', '', 0)")
    other.commit()
    with pytest.raises(sqlite3.Error):
        Store(path)
    assert other.execute("SELECT run_id FROM runs").fetchall() == [("kept",)]
    other.close()


def test_a_store_from_before_files_were_kept_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    store = Store(path)
    run_id = store.add(SIX, 1)
    store.finish(run_id, RESULT)
    store.note_delivery(run_id, Delivery("delivered", 1))
    store.db.execute("ALTER TABLE runs DROP COLUMN dropped")
    store.db.close()
    store = Store(path)
    assert store.file(run_id, "evidence.jsonl.gz") == b"evidence"
    assert store.file(run_id, "dropped.tar.gz") is None
    # What there is of it counts all the same.
    store.write(STATEMENTS["forget"], keep_runs=1000, keep_bytes=20)
    assert store.report(run_id) is None


def test_what_a_package_dropped_takes_room_of_what_is_kept(store: Store) -> None:
    run_id = store.add(SIX, 1)
    store.finish(run_id, RESULT._replace(dropped=bytes(1000)))
    store.note_delivery(run_id, Delivery("delivered", 1))
    store.write(STATEMENTS["forget"], keep_runs=1000, keep_bytes=1200)
    assert store.report(run_id)
    store.write(STATEMENTS["forget"], keep_runs=1000, keep_bytes=900)
    assert store.report(run_id) is None


def detonated(store: Store, version: str, acts: bytes = b"{}", **more: str) -> str:
    """Have a release triaged, whose watch tells these acts; its run id."""
    about = {"package_name": "grows", "mode": "detonate"} | more
    outcome = about.pop("outcome", "ok")
    run_id = store.add(TriageRequest(version=version, **about), 1000)
    store.finish(run_id, RESULT._replace(outcome=outcome, acts=acts))
    return run_id


def known_line(store: Store, version: str, mode: str = "detonate") -> bytes:
    request = TriageRequest("grows", version, mode)
    return bytes(store.read(STATEMENTS["known"], **request._asdict())["line"])


def known(store: Store, version: str, mode: str = "detonate") -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(known_line(store, version, mode))
    return found


def test_what_the_newest_run_of_each_other_release_told_is_known(store: Store) -> None:
    detonated(store, "1.0", b"long ago")
    newest = detonated(store, "1.0", b'{"findings": []}')
    detonated(store, "1.1")
    detonated(store, "1.2", b"")
    detonated(store, "0.9", outcome="error")
    detonated(store, "0.8", mode="install")
    detonated(store, "1.0", package_name="other")
    about = {"version": "1.0", "run_id": newest, "outcome": "ok", "verdict": "clean"}
    assert known(store, "1.1") == [about | {"acts": '{"findings": []}'}]
    assert [item["version"] for item in known(store, "2.0")] == ["1.1", "1.0"]
    assert known(store, "1.1", "install") == []


@pytest.mark.parametrize(
    "acts",
    [b"\0", b'"]}\\', b'\n"', b"[" * 30_000, b"\x01" * 30_000],
    ids=("nul", "quotes", "line", "deep", "controls"),
)
def test_acts_that_are_hostile_cost_nothing_but_themselves(store: Store, acts: bytes) -> None:
    detonated(store, "1.0", acts)
    detonated(store, "1.1")
    line = known_line(store, "2.0")
    found = json.loads(line)
    assert (found[0]["version"], found[0]["acts"]) == ("1.1", "{}")
    assert len(line) < 96 << 10
    assert b"\n" not in line


def test_many_releases_are_known_within_bounds(store: Store) -> None:
    for number in range(20):
        detonated(store, f"1.{number}", b"x" * 20_000)
    line = known_line(store, "2.0")
    assert [item["version"] for item in json.loads(line)] == ["1.19", "1.18", "1.17", "1.16"]


def test_trouble_is_answered_with_503_and_when_to_come_back() -> None:
    demand_service("")
    with pytest.raises(falcon.HTTPServiceUnavailable) as raised:
        demand_service("The queue is full.")
    error = raised.value
    assert (error.status, error.description) == (falcon.HTTP_503, "The queue is full.")
    assert error.headers == {"Retry-After": "10"}
