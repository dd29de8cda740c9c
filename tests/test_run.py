"""All five modes and what can go wrong in them: stand-in packages, real pip, real jails."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Triage
from standins import Endless, Index, Reply, redirect, wheel

HELLO = "def main():\n    print('hello from', __name__)\n"


def phases(report: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    return [(phase["name"], phase["trigger"], phase["outcome"]) for phase in report["phases"]]


def said(report: dict[str, Any], number: int = -1) -> str:
    """What a phase printed, the last one unless told."""
    text: str = report["phases"][number]["stdout"]["text"]
    return text


def test_install_installs_and_runs_nothing(triage: Triage, index: Index) -> None:
    index.add_wheel(
        "calm",
        "1.0",
        {"calm.py": "print('I was imported')\n"},
        console_scripts={"calm": "calm:main"},
    )
    code, report, progress = triage("calm")
    assert (code, report["outcome"], report["reason"]) == (0, "ok", "")
    assert phases(report) == [("install", None, "ok")]
    assert report["phases"][0]["exit_code"] == 0
    assert "Successfully installed calm-1.0" in said(report)
    assert "I was imported" not in said(report)
    assert report["coverage"]["not_run"] == []
    assert report["submitted_at"] <= report["started_at"] <= report["finished_at"]
    assert "install" in progress


def test_a_source_distribution_is_built_in_the_jail(triage: Triage, index: Index) -> None:
    index.add_backend_sdist("built", "1.0", "print('the build ran here')\n", {"built.py": ""})
    code, report, _ = triage("built")
    assert (code, report["outcome"]) == (0, "ok")
    assert [download["file"] for download in report["downloads"]] == ["built-1.0.tar.gz"]


def test_a_setup_py_is_built_with_what_it_asks_for(triage: Triage, index: Index) -> None:
    index.add_sdist(
        "classic", "1.0", {"classic.py": HELLO}, console_scripts={"classic": "classic:main"}
    )
    code, report, _ = triage("classic", "--mode", "execute")
    if "No matching distribution found for wheel" in report["phases"][0]["stderr"]["text"]:
        pytest.skip("the jail's pip needs wheel to build, and it is not installed here")
    assert (code, said(report)) == (0, "hello from classic\n")


def test_a_failed_build_is_reported_and_nothing_is_run_after_it(
    triage: Triage, index: Index
) -> None:
    index.add_backend_sdist(
        "broken", "1.0", "raise RuntimeError('this build is broken')\n", {"broken.py": ""}
    )
    code, report, _ = triage("broken", "--mode", "detonate")
    assert (code, report["outcome"]) == (4, "failed")
    assert report["reason"].startswith("install: ")
    assert phases(report) == [("install", None, "failed")]
    assert "this build is broken" in report["phases"][0]["stderr"]["text"]
    assert len(report["coverage"]["not_run"]) == 4
    for left_out in report["coverage"]["not_run"]:
        assert "the installation did not succeed" in left_out


ABSENT = {
    "absent": "the index has no project absent",
    "another-version": "the index has no version 1.0 of another-version; the newest that it names",
}


@pytest.mark.parametrize("name", ABSENT)
def test_what_the_index_does_not_have_is_a_failed_installation(
    triage: Triage, index: Index, name: str
) -> None:
    index.add_wheel("another-version", "2.0", {"a.py": ""})
    code, report, _ = triage(name)
    assert (code, report["outcome"]) == (4, "failed")
    assert ABSENT[name] in report["reason"]


RUN_AS = "import sys; print('run as', __name__, sys.argv[0].rpartition('/')[2])\n"
APP = """
class App:
    @staticmethod
    def run():
        print('the app ran')
        return 3
"""
PRINTS_ARGUMENTS = """
import os, sys
print(__name__, os.path.basename(sys.argv[0]), len(sys.argv))
"""


@pytest.fixture
def tool(index: Index) -> None:
    """A distribution with several scripts, one named like it, and a dependency with others."""
    index.add_wheel(
        "aaa-dep",
        "1.0",
        {"dep.py": HELLO},
        console_scripts={"aaa": "dep:main", "big-tool": "dep:main"},
    )
    files = {
        "big_tool/__init__.py": HELLO,
        "big_tool/__main__.py": RUN_AS,
        "big_tool/cli.py": APP,
        "big_tool/file.py": PRINTS_ARGUMENTS,
        "other_top.py": "print('other top-level module')\n",
    }
    scripts = {
        "Big_Tool": "big_tool:main",
        "aardvark": "big_tool:nothing",
        "z": "big_tool.cli:App.run",
    }
    index.add_wheel("big-tool", "1.0", files, console_scripts=scripts, requires=["aaa-dep"])


@pytest.mark.usefixtures("tool")
class TestExecute:
    def test_the_script_named_like_the_distribution_comes_first(self, triage: Triage) -> None:
        code, report, _ = triage("big-tool", "--mode", "execute")
        assert (code, report["outcome"]) == (0, "ok")
        assert phases(report) == [("install", None, "ok"), ("execute", "Big_Tool", "ok")]
        assert said(report) == "hello from big_tool\n"

    def test_an_entrypoint_by_a_script_s_name(self, triage: Triage) -> None:
        code, report, _ = triage("big-tool", "--mode", "execute", "--entrypoint", "z")
        assert phases(report)[-1] == ("execute", "z", "failed")
        assert said(report) == "the app ran\n"
        assert (code, report["phases"][-1]["exit_code"]) == (
            4,
            3,
        )  # a script's return value is its exit code

    def test_an_entrypoint_by_module_and_attribute(self, triage: Triage) -> None:
        _, report, _ = triage(
            "big-tool", "--mode", "execute", "--entrypoint", "big_tool.cli:App.run"
        )
        assert phases(report)[-1] == ("execute", "big_tool.cli:App.run", "failed")
        assert said(report) == "the app ran\n"

    def test_a_file_of_the_install_target(self, triage: Triage) -> None:
        code, report, _ = triage("big-tool", "--mode", "execute", "--file-path", "big_tool/file.py")
        assert phases(report)[-1] == ("execute", "big_tool/file.py", "ok")
        assert (code, said(report)) == (0, "__main__ file.py 1\n")

    def test_a_file_that_is_not_there_fails(self, triage: Triage) -> None:
        code, report, _ = triage(
            "big-tool", "--mode", "execute", "--file-path", "big_tool/absent.py"
        )
        assert (code, report["outcome"]) == (4, "failed")
        assert "absent.py" in report["reason"]

    def test_a_script_of_a_dependency_is_not_the_distribution_s_own(self, triage: Triage) -> None:
        code, report, _ = triage("big-tool", "--mode", "execute", "--entrypoint", "aaa")
        assert (code, report["outcome"]) == (4, "failed")
        assert phases(report) == [("install", None, "ok")]
        assert "aaa" in report["reason"]
        assert report["coverage"]["not_run"] == [report["reason"]]

    def test_a_module_by_name(self, triage: Triage) -> None:
        code, report, _ = triage(
            "big-tool", "--mode", "execute_module", "--module-name", "other_top"
        )
        assert phases(report)[-1] == ("execute", "python -m other_top", "ok")
        assert (code, said(report)) == (0, "other top-level module\n")

    def test_the_distribution_s_own_module(self, triage: Triage) -> None:
        code, report, _ = triage("big-tool", "--mode", "execute_module")
        assert phases(report)[-1] == ("execute", "python -m big_tool", "ok")
        assert (code, said(report)) == (0, "run as __main__ __main__.py\n")

    def test_import_imports_each_top_level_module(self, triage: Triage) -> None:
        code, report, _ = triage("big-tool", "--mode", "import")
        assert (code, report["outcome"]) == (0, "ok")
        assert phases(report)[1:3] == [("import", "big_tool", "ok"), ("import", "other_top", "ok")]
        assert said(report, 2) == "other top-level module\n"
        others = ["all modules", "dependencies", "as windows", "as macos", "as ci, later"]
        assert phases(report)[3:] == [("import", other, "ok") for other in others]


def test_detonate_does_it_all_and_goes_on_when_one_fails(triage: Triage, index: Index) -> None:
    files = {
        "many.pth": "import sys; sys.stdout.write('the pth file ran\\n')\n",
        "bad.py": "raise RuntimeError('bad import')\n",
        "many.py": "print('many was imported')\n"
        + HELLO
        + "def fail():\n    raise SystemExit(7)\n",
    }
    index.add_wheel("many", "1.0", files, console_scripts={"aaa": "many:fail", "bbb": "many:main"})
    code, report, progress = triage("many", "--mode", "detonate")
    # It ran all that there was: how a trigger ends by itself is the package's own affair.
    assert (code, report["outcome"], report["reason"]) == (0, "ok", "")
    assert phases(report) == [
        ("install", None, "ok"),
        ("start", None, "ok"),
        ("import", "many", "ok"),
        ("import", "bad", "failed"),
        ("import", "all modules", "ok"),
        ("execute", "aaa", "failed"),
        ("execute", "bbb", "ok"),
        ("import", "as windows", "ok"),
        ("import", "as macos", "ok"),
        ("import", "as ci, later", "ok"),
        ("call", None, "ok"),
    ]
    assert "the pth file ran" not in said(report, 0)
    assert "the pth file ran" in said(report, 1)
    assert "many was imported" in said(report, 2)
    assert "bad import" in report["phases"][3]["stderr"]["text"]
    assert report["phases"][5]["exit_code"] == 7
    assert "hello from many" in said(report, 6)
    assert [line.split()[0] for line in progress.splitlines()] == [
        phase["name"] for phase in report["phases"]
    ]


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("--mode", "execute"), "console script"),
        (("--mode", "execute", "--entrypoint", "nope"), "nope"),
        (("--mode", "execute_module"), "module"),
        (("--mode", "import"), "module"),
    ],
)
def test_when_nothing_fits_the_report_says_so(
    triage: Triage, index: Index, arguments: tuple[str, ...], missing: str
) -> None:
    index.add_wheel("hollow", "1.0", {"hollow-data/readme.txt": "nothing to run here\n"})
    code, report, _ = triage("hollow", *arguments)
    assert (code, report["outcome"]) == (4, "failed")
    assert phases(report) == [("install", None, "ok")]
    assert missing in report["reason"]
    assert report["coverage"]["not_run"] == [report["reason"]]


def test_detonate_says_what_there_was_not(triage: Triage, index: Index) -> None:
    index.add_wheel("hollow", "1.0", {"hollow-data/readme.txt": "nothing to run here\n"})
    code, report, _ = triage("hollow", "--mode", "detonate")
    assert (code, report["outcome"]) == (0, "ok")
    assert len(report["coverage"]["not_run"]) == 4
    assert phases(report)[1:] == []


ENDS = {
    "e137": (
        "import os; os._exit(137)",
        "failed",
        137,
        None,
    ),  # what a timeout looks like to those who guess
    "e255": ("import os; os._exit(255)", "failed", 255, None),  # what a broken sandbox looks like
    "e109": ("raise SystemExit(109)", "failed", 109, None),
    "k9": ("import os; os.kill(os.getpid(), 9)", "failed", None, "SIGKILL"),
    "k11": ("import os; os.kill(os.getpid(), 11)", "failed", None, "SIGSEGV"),
    "fine": ("raise SystemExit(0)", "ok", 0, None),
}


def test_exit_codes_and_signals_that_a_package_chooses_are_told_apart(
    triage: Triage, index: Index
) -> None:
    index.add_wheel("ends", "1.0", {f"{name}.py": source for name, (source, *_) in ENDS.items()})
    code, report, _ = triage("ends", "--mode", "import")
    assert (code, report["outcome"]) == (0, "ok")
    found = {
        phase["trigger"]: (phase["outcome"], phase["exit_code"], phase["signal"])
        for phase in report["phases"][1:]
    }
    ends = {name: tuple(end) for name, (_, *end) in ENDS.items()}
    assert {name: found[name] for name in ends} == ends


def test_a_phase_that_lasts_too_long_is_stopped_whatever_it_does(
    triage: Triage, index: Index
) -> None:
    stubborn = """
import os, signal, sys, time
print("waiting", flush=True)
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
if os.fork() == 0:
    os.setsid()
while True:
    time.sleep(1)
"""
    index.add_backend_sdist("stubborn", "1.0", stubborn, {"stubborn.py": ""})
    code, report, _ = triage("stubborn", RUN_TIMEOUT_SEC=6)
    assert (code, report["outcome"]) == (4, "timeout")
    assert phases(report) == [("install", None, "timeout")]
    assert "RUN_TIMEOUT_SEC" in report["reason"]
    assert (report["phases"][0]["exit_code"], report["phases"][0]["signal"]) == (None, None)


def test_output_is_kept_up_to_a_mebibyte_and_counted_to_the_end(
    triage: Triage, index: Index
) -> None:
    source = """
import sys
sys.stdout.buffer.write(b"\\xff\\x00\\x1b[2J" + b"x" * 3_000_000)
print("one line", file=sys.stderr)
"""
    index.add_wheel("loud", "1.0", {"loud.py": source})
    _, report, _ = triage("loud", "--mode", "execute_module")
    out, err = report["phases"][-1]["stdout"], report["phases"][-1]["stderr"]
    assert (out["bytes"], out["truncated"]) == (3_000_006, True)
    assert 1_000_000 < len(out["text"]) <= 1 << 20
    assert (err["text"], err["bytes"], err["truncated"]) == ("one line\n", 9, False)


def test_downloads_are_listed_with_their_hash_and_come_from_the_cache_next_time(
    triage: Triage, index: Index
) -> None:
    filename, data = wheel("cached", "1.0", {"cached.py": "x = 1\n" * 1000})
    url = index.add_file("cached", filename, data)["url"]
    expected = {"file": filename, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    expected["url"] = url
    assert triage("cached")[1]["downloads"] == [{**expected, "from_cache": False}]
    asked = index.requests.count(("GET", f"/files/{filename}"))
    assert triage("cached")[1]["downloads"] == [{**expected, "from_cache": True}]
    assert asked == index.requests.count(("GET", f"/files/{filename}")) == 1


def test_a_cache_that_was_tampered_with_is_not_believed(
    triage: Triage, index: Index, home: Path
) -> None:
    index.add_wheel("cached", "1.0", {"cached.py": ""})
    (first,) = triage("cached")[1]["downloads"]
    (kept,) = (path for path in (home / "cache").rglob("*") if path.name == first["sha256"])
    kept.write_bytes(b"something else")
    code, report, _ = triage("cached")
    assert (code, report["outcome"]) == (0, "ok")
    assert report["downloads"] == [{**first, "from_cache": False}]


@pytest.mark.parametrize(
    ("listed", "required"), [("evil-dep", "Evil.dep"), ("Evil_Dep", "evil__DEP")]
)
def test_a_denylisted_dependency_is_withheld_in_any_spelling(
    triage: Triage, index: Index, listed: str, required: str
) -> None:
    """A stand-in takes its place, and the rest runs: but green that can't be."""
    index.add_wheel("evil-dep", "2.0", {"evil_dep.py": "print('evil')\n"})
    source = (
        "import evil_dep.nn\n"
        "class Model(evil_dep.nn.Module):\n    pass\n"
        "print('innocent was imported', evil_dep.tensor([1]).shape is not None)\n"
    )
    index.add_wheel("innocent", "1.0", {"innocent.py": source}, requires=[f"{required}>=2"])
    code, report, _ = triage("innocent", "--mode", "import", PACKAGE_DENYLIST=listed)
    assert (code, report["outcome"]) == (0, "ok")
    assert said(report, 1) == "innocent was imported True\n"
    assert any("evil-dep" in note and "denylist" in note for note in report["coverage"]["notes"])
    assert report["verdict"] == "unseen"
    assert not [path for _, path in index.requests if path.startswith("/files/evil")]


def test_a_file_whose_hash_is_not_the_index_s_is_not_given_out(
    triage: Triage, index: Index, home: Path
) -> None:
    index.add_wheel("forged", "1.0", {"forged.py": ""})
    index.entry("forged", hashes={"sha256": "0" * 64}, core_metadata=None)
    code, report, _ = triage("forged")
    assert (code, report["outcome"]) == (4, "failed")
    assert report["downloads"] == []
    assert any("sha256" in note for note in report["coverage"]["notes"])
    assert not [path for path in (home / "cache").rglob("*") if path.is_file()]


def test_a_file_without_a_hash_is_not_offered(triage: Triage, index: Index) -> None:
    index.add_wheel("unhashed", "1.0", {"unhashed.py": ""})
    index.entry("unhashed", hashes={})
    code, report, _ = triage("unhashed")
    assert (code, report["outcome"]) == (4, "failed")
    assert not [path for _, path in index.requests if path.startswith("/files/unhashed")]


@pytest.fixture
def foreign() -> Iterator[Index]:
    """Another host: it must never be asked for anything."""
    with Index() as foreign:
        yield foreign
        assert foreign.requests == []


def test_a_file_on_a_foreign_host_is_not_offered(
    triage: Triage, index: Index, foreign: Index
) -> None:
    entry = foreign.add_wheel("lured", "1.0", {"lured.py": ""})
    index.entry("lured", **{key.replace("-", "_"): value for key, value in entry.items()})
    code, report, _ = triage("lured")
    assert (code, report["outcome"]) == (4, "failed")
    assert any(foreign.origin in note for note in report["coverage"]["notes"])


@pytest.mark.parametrize("path", ["/simple/lured/", "/files/lured-1.0-py3-none-any.whl"])
def test_a_redirect_to_a_foreign_host_is_refused(
    triage: Triage, index: Index, foreign: Index, path: str
) -> None:
    index.add_wheel("lured", "1.0", {"lured.py": ""})
    index.answer(path, redirect(f"{foreign.origin}{path}"))
    code, report, _ = triage("lured")
    assert (code, report["outcome"]) == (4, "failed")
    assert any("redirect" in note for note in report["coverage"]["notes"])


def test_a_redirect_on_the_index_s_own_host_is_followed(triage: Triage, index: Index) -> None:
    _, data = wheel("moved", "1.0", {"moved.py": ""})
    index.add_wheel("moved", "1.0", {"moved.py": ""})
    index.answer("/files/moved-1.0-py3-none-any.whl", redirect("/elsewhere/moved"))
    index.answer("/elsewhere/moved", Reply(200, data))
    code, report, _ = triage("moved")
    assert (code, report["outcome"]) == (0, "ok"), report["coverage"]


def test_the_file_hosts_that_the_page_for_pip_names_are_asked(triage: Triage, index: Index) -> None:
    with Index() as files:
        entry = files.add_wheel("spread", "1.0", {"spread.py": ""})
        index.entry("spread", **{key.replace("-", "_"): value for key, value in entry.items()})
        index.entry(
            "pip", filename="pip-0.1-py3-none-any.whl", url=f"{files.origin}/files/pip", hashes={}
        )
        code, report, _ = triage("spread")
        assert (code, report["outcome"]) == (0, "ok"), report["coverage"]


def test_index_file_hosts_override_them(triage: Triage, index: Index) -> None:
    with Index() as files:
        entry = files.add_wheel("spread", "1.0", {"spread.py": ""})
        index.entry("spread", **{key.replace("-", "_"): value for key, value in entry.items()})
        code, report, _ = triage("spread", INDEX_FILE_HOSTS=files.origin.removeprefix("http://"))
        assert (code, report["outcome"]) == (0, "ok"), report["coverage"]


def test_nothing_of_the_jail_s_headers_goes_upstream(triage: Triage, index: Index) -> None:
    index.add_wheel("plain", "1.0", {"plain.py": ""})
    triage("plain")
    assert {method for method, _ in index.requests} == {"GET"}
    for headers in index.headers:
        assert "pip/" not in headers.get("user-agent", "")
        assert not {"cookie", "authorization", "content-length", "x-forwarded-for"} & set(headers)


def test_a_download_that_is_too_large_is_cut(triage: Triage, index: Index) -> None:
    index.add_wheel("fat", "1.0", {"fat.py": ""})
    index.entry("fat", core_metadata=None)
    index.answer("/files/fat-1.0-py3-none-any.whl", Endless())
    code, report, _ = triage("fat", MAX_DOWNLOAD_BYTES=2_000_000)
    assert (code, report["outcome"]) == (4, "download_cap")
    assert phases(report) == [("install", None, "download_cap")]
    assert "MAX_DOWNLOAD_BYTES" in report["reason"]


def test_dependencies_count_against_the_download_limit_together(
    triage: Triage, index: Index
) -> None:
    noise = [hashlib.shake_256(bytes([n])).digest(300_000) for n in range(4)]
    for number, data in enumerate(noise):
        index.add_wheel(f"part-{number}", "1.0", {f"part_{number}/data.bin": data})
    index.add_wheel(
        "whole", "1.0", {"whole.py": ""}, requires=[f"part-{number}" for number in range(4)]
    )
    code, report, _ = triage("whole", MAX_DOWNLOAD_BYTES=1_000_000)
    assert (code, report["outcome"]) == (4, "download_cap")
    assert sum(download["bytes"] for download in report["downloads"]) <= 1_000_000
    code, report, _ = triage("whole", MAX_DOWNLOAD_BYTES=2_000_000)
    assert (code, report["outcome"]) == (0, "ok")


@pytest.mark.parametrize(
    "page",
    ["", "[]", '{"files": [3]}', '{"files": [{}]}', '{"a":' * 50_000],
    ids=lambda page: page[:16] or "empty",
)
def test_a_page_that_is_none_is_a_failed_installation(
    triage: Triage, index: Index, page: str
) -> None:
    index.answer("/simple/odd/", Reply(200, page))
    code, report, _ = triage("odd")
    assert (code, report["outcome"]) == (4, "failed")
    assert any("odd" in note for note in report["coverage"]["notes"])
