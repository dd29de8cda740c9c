"""What is new in a release: found beside the one before it, told to people, and never a reason to
wait.
"""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import Triage
from reports import HOSTILE, INDEX_URL, an_order, assert_inert, report_of
from standins import Index, Reply, hang, sdist, wait_for, wheel

from jail.report.message import description, render_embed
from jail.report.news import news_line, news_rows, news_total
from jail.report.page import render_page
from jail.report.rows import headline, render_text
from jail.report.verdict import as_json
from jail.watch import comparison
from jail.watch import earlier as earlier_room
from jail.watch.comparison import MAX_COMPARED, MAX_DIFF_CHARS, compare_releases, diff
from jail.watch.earlier import EarlierRelease
from jail.watch.events import Downloaded, Phase, PhaseName, Seen
from jail.watch.gateway import Gateway
from jail.watch.members import Archive, read_archive
from jail.watch.resources import Resources
from jail.watch.sample import BesideIndex, Sample
from jail.watch.upstream import PackageCache, Upstream

CODE = "def one():\n    return 1\n"
STEALS = 'import os\nos.system("true")\n'
PYPROJECT = '[build-system]\nbuild-backend = "{}"\nrequires = ["{}"]\n'


def a_wheel(version: str, files: dict[str, str | bytes], **about: Any) -> Archive:
    name, data = wheel("x", version, files, **about)
    return read_archive(name, io.BytesIO(data))


def a_sdist(version: str, files: dict[str, str | bytes]) -> Archive:
    name, data = sdist("x", version, files)
    return read_archive(name, io.BytesIO(data))


def test_all_that_is_new_in_a_wheel_is_told() -> None:
    before = a_wheel("1.0", {"x.py": CODE, "old.py": "", "same.py": "1"}, requires=["a", "b>1"])
    after = a_wheel(
        "2.0",
        {
            "x.py": CODE + STEALS,
            "same.py": "1",
            "evil.pth": "import x\n",
            "x/fast.so": b"\x7fELF...",
            "x/data.txt": b"MZ\0\0",
        },
        requires=["b>1", "c"],
        console_scripts={"go": "x:one"},
    )
    found = compare_releases(before, after)
    assert found["counts"] == {"added": 4, "removed": 1, "changed": 1}
    assert found["removed"] == ["old.py"]
    (changed,) = found["changed"]
    assert (changed["path"], changed["bytes_before"]) == ("x.py", len(CODE))
    assert changed["diff"] == '@@ 3 @@\n+import os\n+os.system("true")'
    assert found["added"][0]["path"] == "evil.pth"
    assert found["added"][0]["diff"] == "@@ 1 @@\n+import x"
    assert found["startup_files"] == ["evil.pth"]
    assert set(found["binaries"]) == {"x/fast.so", "x/data.txt"}
    assert found["dependencies"] == {"added": ["c"], "removed": ["a"]}
    assert found["entry_points"] == {"added": ["console_scripts: go = x:one"], "removed": []}
    assert found["build"] is None and found["odd"] == []


def test_another_build_is_told() -> None:
    before = a_sdist("1.0", {"pyproject.toml": PYPROJECT.format("a.build", "a"), "x.py": ""})
    after = a_sdist("2.0", {"pyproject.toml": PYPROJECT.format("b.build", "b"), "x.py": ""})
    found = compare_releases(before, after)
    assert found["build"] == ['["a.build", ["a"], null]', '["b.build", ["b"], null]']
    assert [item["path"] for item in found["changed"]] == ["pyproject.toml"]
    assert compare_releases(before, before)["build"] is None
    setup = a_sdist("2.0", {"setup.py": "x"})
    assert compare_releases(before, setup)["build"][1] == "setup.py"
    deep = a_sdist("2.0", {"pyproject.toml": "x = " + "[" * 50_000})
    assert "can't be read" in compare_releases(before, deep)["build"][1]


def test_nothing_hides_behind_an_odd_folder() -> None:
    before = a_sdist("1.0", {"x.py": CODE})
    name, data = sdist("x", "2.0", {"x.py": CODE})
    after = read_archive(name, io.BytesIO(data))
    # A second folder beside the one that has all, and a second one of metadata.
    odd = next(iter(after.members.values()))
    after.members["aside/setup.py"] = odd
    found = compare_releases(before, after)
    assert [item["path"] for item in found["added"]] == ["aside/setup.py"]
    assert (found["counts"]["added"], found["counts"]["removed"]) == (1, 0)
    wheels = a_wheel("1.0", {"x.py": CODE}), a_wheel("2.0", {"x.py": CODE})
    wheels[1].members["x-9.dist-info/entry_points.txt"] = odd
    wheels[1].members["x-8.dist-info/entry_points.txt"] = odd
    found = compare_releases(*wheels)
    assert found["counts"]["added"] == 2


def test_nothing_new_is_nothing() -> None:
    files: dict[str, str | bytes] = {"x.py": CODE}
    found = compare_releases(a_wheel("1.0", files), a_wheel("2.0", files))
    assert found["counts"] == {"added": 0, "removed": 0, "changed": 0}
    assert not found["startup_files"] and not found["binaries"] and not found["odd"]


def test_differences_are_short_and_cost_little() -> None:
    assert diff("a\nb\nc\n", "a\nB\nc\n") == "@@ -1 +1 @@\n-b\n+B"
    lines = [f"line {number % 40}" for number in range(3000)]
    worst = "\n".join(lines), "\n".join([*reversed(lines), "new"])
    begun_sec = time.process_time()
    text = diff(*worst)
    assert time.process_time() - begun_sec < 5
    assert "+new" in text
    long = diff("", "x" * 100_000)
    assert len(long) < 1000 and "100000 characters" in long


def test_a_flood_of_changes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MAX_DIFF_SEC", 60.0)
    before = a_wheel("1.0", {f"m{number}.py": "1\n" * 400 for number in range(300)})
    changed = {f"m{number}.py": f"{number}\n" * 4000 for number in range(300)}
    added = {f"n{number}\u202e.py": "\x1b[2J" * 2000 for number in range(300)}
    after = a_wheel("2.0", {**changed, **added})
    found = compare_releases(before, after)
    assert found["counts"]["changed"] == found["counts"]["added"] == 300
    assert len(found["changed"]) == len(found["added"]) == MAX_COMPARED
    diffs = [item["diff"] for item in (*found["changed"], *found["added"]) if item["diff"]]
    assert 0 < sum(map(len, diffs)) <= comparison.MAX_DIFFS_CHARS + MAX_DIFF_CHARS + 10
    changes = {"earlier": {"version": "1.0", "file": "f"}, "reason": None} | found
    body = as_json(report_of(changes=changes))
    assert len(body) < 500_000 and json.loads(body)["changes"]["counts"]["added"] == 300
    # A part of two that are told by their paths is safe to show.
    assert_inert(render_text(report_of(changes=changes)).decode())


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_it_acts(kind: str) -> None:
    said = HOSTILE[kind][:5000]
    item = {"path": said, "bytes": 1, "sha256": said, "diff": said, "bytes_before": 2}
    changes = {
        "earlier": {"version": said, "file": said, "sha256": said},
        "file": said,
        "reason": None,
        "added": [item],
        "changed": [item],
        "removed": [said],
        "counts": {"added": 1, "changed": 1, "removed": 1},
        "startup_files": [said],
        "binaries": [said],
        "build": [said, said],
        "dependencies": {"added": [said], "removed": [said]},
        "entry_points": {"added": [said], "removed": [said]},
        "odd": [said],
        "reported": {"run_id": said, "outcome": said, "verdict": said, "is_whole": False},
        "new_findings": [a_new_finding("high", said) | {"at": said, "trigger": said}],
        "new_finding_counts": {"high": 1, "medium": 0, "info": 0},
    }
    for shown in (changes, changes | {"reason": said}):
        report = report_of(changes=shown)
        assert_inert(render_text(report).decode())
        assert_inert(render_page(report).decode())
        assert_inert(news_line(shown))
        assert b"<script" not in render_page(report)
        line = description(report, headline(report)).splitlines()[1]
        assert line.startswith("🆕 `") and line.endswith("`") and line.count("`") == 2
        assert render_embed(report, INDEX_URL, False)["description"]
        assert json.loads(as_json(report))["changes"]["counts"]["added"] == 1


def a_new_finding(severity: str, title: str) -> dict[str, Any]:
    about = {"severity": severity, "rule": "secret.read", "phase": "import", "title": title}
    return about | {"trigger": None, "at": "x.py:1"}


def test_new_findings_are_told_first() -> None:
    counts = {"high": 2, "medium": 1, "info": 40}
    known = {"run_id": "0af3" * 8, "outcome": "timeout", "verdict": "high", "is_whole": True}
    changes: dict[str, Any] = {"earlier": {"version": "1.0", "file": "f"}, "reason": None}
    changes |= compare_releases(a_wheel("1.0", {"x.py": "1"}), a_wheel("2.0", {"x.py": "2"}))
    changes |= {"reported": known, "new_finding_counts": counts}
    changes["new_findings"] = [a_new_finding("high", "reads a key"), a_new_finding("info", "looks")]
    assert news_line(changes).startswith(
        "3 new findings since 1.0; new since 1.0: files: 1 changed"
    )
    told, first, second, *others = news_rows(changes)
    assert told.what == "43 findings are new beside the report of 1.0"
    assert told.about == f"run {'0af3' * 8}, outcome timeout"
    assert (first.mark, first.what) == ("high", "reads a key")
    assert (second.mark, second.what) == ("info", "looks")
    assert news_total(changes) == 3 + len(others) + 41
    # Of little things the message says nothing, of no report nobody does.
    little = changes | {"new_finding_counts": {"high": 0, "medium": 0, "info": 43}}
    assert news_line(little).startswith("new since 1.0")
    none = changes | {"new_findings": [], "new_finding_counts": {"high": 0}}
    assert news_rows(none)[0].what == "no findings are new beside the report of 1.0"
    unknown = changes | {"reported": None, "new_findings": [], "new_finding_counts": {}}
    assert len(news_rows(unknown)) == news_total(unknown) == len(others)
    # Where the files can't be compared, the findings still can.
    alone = changes | {"reason": "it was not loaded in time"}
    assert news_line(alone).startswith("3 new findings since 1.0; not compared")
    assert news_total(alone) == len(news_rows(alone)) + 41 == 4 + 41


# Loading the release before.

PAGE, EARLIER_FILE = "/simple/x/", "/files/x-1.0-py3-none-any.whl"


class Run:
    """What EarlierRelease needs of a run whose pip has loaded `x` 2.0; of one with a file in hand,
    pip has not asked the index for that.
    """

    def __init__(
        self, index: Index, folder: Path, max_bytes: int = 10_000_000, *, in_hand: bytes = b""
    ) -> None:
        self.upstream, self.cache = Upstream(index.url, max_bytes), PackageCache(folder)
        self.upstream.learn_hosts(())
        order = an_order("detonate", package_name="x", version="2.0")
        seen: list[Seen] = []

        def tell(event: Any) -> None:
            seen.append(Seen(event, Phase(PhaseName.INSTALL), 0.0, ()))

        given = BesideIndex(order, self.cache, [])
        if in_hand:
            sha256 = self.cache.keep(io.BytesIO(in_hand), len(in_hand))
            given.in_hand = Sample("x-2.0-py3-none-any.whl", sha256)
        gateway = Gateway(order, (), self.upstream, self.cache, lambda *_: False, tell, given)
        page = json.loads(gateway.page("x").read())
        for file in page["files"]:
            if "-2.0" in file["filename"]:
                gateway.file(file["hashes"]["sha256"], file["filename"]).close()
        self.loaded = [item.event.file for item in seen if isinstance(item.event, Downloaded)]
        self.resources = SimpleNamespace(
            order=order,
            given=given,
            record=SimpleNamespace(seen=seen),
            upstream=self.upstream,
            cache=self.cache,
            end_sec=time.monotonic() + 300,
        )

    def release(self) -> EarlierRelease:
        release = EarlierRelease(cast("Resources", self.resources))
        release.begin()
        return release


@pytest.fixture
def two(index: Index) -> Iterator[Index]:
    """Two releases, and one more that was withdrawn."""
    index.add_wheel("x", "1.0", {"x.py": CODE})
    index.entry("x", **index.add_wheel("x", "1.5", {"x.py": "withdrawn"}) | {"yanked": "why"})
    index.add_wheel("x", "2.0", {"x.py": CODE + STEALS})
    index.add_wheel("x", "3.0", {"x.py": "later"})
    yield index


def test_the_release_before_is_loaded_once_and_compared(two: Index, tmp_path: Path) -> None:
    run = Run(two, tmp_path)
    before_bytes = run.upstream.left_bytes
    found = run.release().report()
    assert found["reason"] is None
    assert (found["earlier"]["version"], found["file"]) == ("1.0", "x-2.0-py3-none-any.whl")
    assert [item["path"] for item in found["changed"]] == ["x.py"]
    files = [path for _, path in two.requests if path.startswith("/files/")]
    assert files == ["/files/x-2.0-py3-none-any.whl", "/files/x-1.0-py3-none-any.whl"]
    # It counts towards what the run may load.
    size_bytes = two.entry("x", filename="x-1.0-py3-none-any.whl")["size"]
    assert run.upstream.left_bytes == before_bytes - size_bytes
    # The next run has it in its cache.
    run = Run(two, tmp_path)
    two.requests.clear()
    assert run.release().report()["counts"] == found["counts"]
    assert not [path for _, path in two.requests if path.startswith("/files/")]


def test_a_file_in_hand_is_compared_with_what_the_index_has(two: Index, tmp_path: Path) -> None:
    _, data = wheel("x", "2.0", {"x.py": CODE + STEALS, "in_hand.py": ""})
    run = Run(two, tmp_path, in_hand=data)
    assert not [path for _, path in two.requests if path == PAGE]
    found = run.release().report()
    assert (found["reason"], found["earlier"]["version"]) == (None, "1.0")
    assert [item["path"] for item in found["added"]] == ["in_hand.py"]
    assert [item["path"] for item in found["changed"]] == ["x.py"]
    # No second page, and no other file.
    asked = [path for _, path in two.requests if path == PAGE or path.startswith("/files/x")]
    assert asked == [PAGE, EARLIER_FILE]


@pytest.mark.parametrize(
    ("reply", "reason"), [(Reply(404), "the index answered 404"), (hang, "not loaded in time")]
)
def test_a_file_in_hand_needs_no_index_to_be_told_so(
    two: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: Any, reason: str
) -> None:
    monkeypatch.setattr(earlier_room, "MAX_WAIT_SEC", 0.5)
    two.answer(PAGE, reply)
    run = Run(two, tmp_path, in_hand=wheel("x", "2.0", {"x.py": CODE})[1])
    found = run.release().report()
    assert found["earlier"] is None
    assert found["reason"].startswith("no earlier release is known: ")
    assert reason in found["reason"]


def test_a_project_without_an_earlier_release_is_told(index: Index, tmp_path: Path) -> None:
    index.add_sdist("x", "1.0", {"x.py": CODE})
    index.add_wheel("x", "2.0", {"x.py": CODE})
    found = Run(index, tmp_path).release().report()
    assert found["reason"] == "the index has no earlier release with a wheel"
    assert found["earlier"] is None


def test_nobody_waits_for_an_index_that_does_not_answer(
    two: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_room, "MAX_WAIT_SEC", 0.1)
    two.answer(EARLIER_FILE, hang)
    run = Run(two, tmp_path)
    release = run.release()
    wait_for(lambda: ("GET", EARLIER_FILE) in two.requests)
    # pip's own connection is free meanwhile.
    assert run.upstream.lock.acquire(timeout=5)
    run.upstream.lock.release()
    assert "not loaded in time" in release.report()["reason"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(404), "answered 404"),
        (Reply(200, b"another file"), "sha256"),
        (Reply(302, headers={"Location": "http://192.0.2.1/x"}), "redirect to another host"),
        (Reply(200, bytes(2_000_000)), "limit is spent"),
    ],
)
def test_what_can_t_be_loaded_is_told_and_costs_nothing_else(
    two: Index, tmp_path: Path, reply: Reply, reason: str
) -> None:
    two.answer(EARLIER_FILE, reply)
    run = Run(two, tmp_path, 1_000_000)
    found = run.release().report()
    assert reason in found["reason"] and found["earlier"]["version"] == "1.0"
    assert run.upstream.left_bytes > 0


def test_without_time_nothing_is_compared(two: Index, tmp_path: Path) -> None:
    run = Run(two, tmp_path)
    run.resources.end_sec = time.monotonic() + 1
    assert "no time" in run.release().report()["reason"]


def test_an_archive_that_is_none_is_told(index: Index, tmp_path: Path) -> None:
    index.add_file("x", "x-1.0-py3-none-any.whl", b"no archive")
    index.add_wheel("x", "2.0", {"x.py": CODE})
    found = Run(index, tmp_path).release().report()
    assert found["odd"] == ["before: not all was looked at: it has no list of its members"]
    assert [item["path"] for item in found["added"]] == ["x.py"]


def test_a_detonation_tells_what_is_new(index: Index, triage: Triage) -> None:
    index.add_wheel("changed", "0.9", {"changed.py": CODE})
    index.add_wheel("changed", "1.0", {"changed.py": CODE, "changed-init.pth": "import sys\n"})
    _, report, _ = triage("changed", "--mode", "detonate")
    changes = report["changes"]
    assert (changes["reason"], changes["earlier"]["version"]) == (None, "0.9")
    assert (changes["odd"], changes["startup_files"]) == ([], ["changed-init.pth"])
    assert changes["counts"] == {"added": 1, "removed": 0, "changed": 0}
    assert report["outcome"] == "ok"
    _, report, _ = triage("changed")
    assert report["changes"] is None
