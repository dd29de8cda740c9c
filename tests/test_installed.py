"""What is found of an installation in real folders, and what is run of it."""

import json
from pathlib import Path

import pytest

from jail.orders import SCRATCH_FOLDERS, WORK_IN_JAIL, Order, Start, parse_request
from jail.watch import scratch as scratch_room
from jail.watch.events import Omission, PhaseName
from jail.watch.installed import Installed, parse_scripts, read_installed
from jail.watch.scratch import Scratch
from jail.watch.triggers import (
    MAX_TRIGGERS,
    Trigger,
    installation,
    triggers,
    variables,
    without_installation,
)

ORDER = Order("triage", "0" * 32, "big-tool", "1.0", "detonate")
TARGET = f"{WORK_IN_JAIL}/site/big-tool-1.0"


class Site:
    """An install target in a scratch."""

    def __init__(self, folder: Path) -> None:
        for name in SCRATCH_FOLDERS:
            (folder / name).mkdir()
        self.folder = folder / ORDER.site
        self.scratch = Scratch(folder, 1 << 30)

    def write(self, path: str, text: str = "") -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self) -> Installed:
        return read_installed(self.scratch, self.scratch.snapshot(), ORDER)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


RECORD = """\
big_tool/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
big_tool/sub/deep.py,sha256=x,1
"a, quoted.py",sha256=x,1
other_top.py,,
native.cpython-311-x86_64-linux-gnu.so,sha256=x,9
__pycache__/other_top.cpython-311.pyc,,
data/file.txt,sha256=x,1
../../bin/big-tool,sha256=x,1
absent.py,,
big_tool-1.0.dist-info/RECORD,,
"""


def test_files_that_a_record_names_are_listed_if_they_are_there(site: Site) -> None:
    site.write("big_tool-1.0.dist-info/RECORD", RECORD)
    for path in ("big_tool/__init__.py", "other_top.py", "a, quoted.py", "bin/big-tool", "x.py"):
        site.write(path)
    owners = site.read().owners
    names = ["a, quoted.py", "big_tool-1.0.dist-info/RECORD", "big_tool/__init__.py"]
    names += ["bin/big-tool", "other_top.py"]
    assert owners == {f"{ORDER.site}/{name}": "big-tool" for name in names}


def test_modules_are_the_target_s_top_level_with_its_namesake_first(site: Site) -> None:
    site.write("Big.Tool-1.0.dist-info/RECORD", RECORD)
    site.write("dependency-2.0.dist-info/RECORD", "dependency.py,,\n")
    assert site.read().modules == ["big_tool", "absent", "native", "other_top"]


def test_scripts_are_the_target_s_with_its_namesake_first(site: Site) -> None:
    site.write("big_tool-1.0.dist-info/RECORD")
    site.write(
        "big_tool-1.0.dist-info/entry_points.txt",
        "[console_scripts]\naardvark = big_tool:a\nBig_Tool=big_tool.cli:App.run [extra]\n"
        "[gui_scripts]\nwindow = big_tool:w\n[pytest11]\nplugin = big_tool.plugin\n",
    )
    site.write("aaa-1.0.dist-info/RECORD")
    site.write("aaa-1.0.dist-info/entry_points.txt", "[console_scripts]\naaa = a:a\n")
    assert list(site.read().scripts.items()) == [
        ("Big_Tool", "big_tool.cli:App.run"),
        ("aardvark", "big_tool:a"),
        ("window", "big_tool:w"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "no equals sign",
        "name = module",
        "name = mod ule:f",
        "na/me = m:f",
        "name = -m:f",
        "name = m:f; import os",
        "x" * 101 + " = m:f",
        "nämé = m:f",
    ],
)
def test_a_line_that_is_no_script_is_passed_over(line: str) -> None:
    assert parse_scripts(["[console_scripts]", line]) == {}


def test_a_record_that_is_none_does_no_harm(site: Site) -> None:
    site.write("big_tool-1.0.dist-info/RECORD", "\0\n,,,\n../../../../etc/passwd,,\n" + "x" * 5000)
    site.write("odd.dist-info/RECORD/file")
    installed = site.read()
    assert installed.modules == []
    assert installed.owners.keys() <= {f"{ORDER.site}/big_tool-1.0.dist-info/RECORD"}


def test_a_flood_of_records_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_room, "MAX_READ_BYTES", 4 * scratch_room.PAGE_BYTES)
    for number in range(10):
        site.write(f"d{number}-1.0.dist-info/RECORD", "x.py,,\n")
    site.read()
    assert site.scratch.lost == {"RECORD, read": 6}


INSTALLED = Installed(
    scripts={"big-tool": "big_tool:main", "z": "big_tool.cli:App.run"},
    modules=["big_tool", "other_top"],
)


def launches(found: list[Trigger]) -> list[tuple[str, ...]]:
    return [trigger.launch for trigger in found]


def test_install_runs_nothing_more() -> None:
    assert triggers(ORDER._replace(mode="install"), INSTALLED) == ([], [])


def test_detonate_starts_imports_and_executes() -> None:
    found, not_run = triggers(ORDER, INSTALLED)
    assert launches(found) == [
        ("start", TARGET),
        ("import", TARGET, "big_tool"),
        ("import", TARGET, "other_top"),
        ("script", TARGET, "big-tool", "big_tool:main"),
        ("script", TARGET, "z", "big_tool.cli:App.run"),
    ]
    assert [trigger.title for trigger in found] == [None, "big_tool", "other_top", "big-tool", "z"]
    assert not_run == []


def test_detonate_is_content_with_what_there_is() -> None:
    found, not_run = triggers(ORDER, Installed())
    assert launches(found) == [("start", TARGET)]
    assert [(item.phase, item.why) for item in not_run] == [
        (PhaseName.IMPORT, Omission.LEFT_OUT),
        (PhaseName.EXECUTE, Omission.NOTHING_THERE),
    ]


def test_a_crowd_of_triggers_is_bounded_and_told() -> None:
    many = Installed(modules=[f"m{number:03}" for number in range(200)])
    found, not_run = triggers(ORDER._replace(mode="import"), many)
    assert [trigger.title for trigger in found] == many.modules[:MAX_TRIGGERS]
    assert [item.trigger for item in not_run] == many.modules[MAX_TRIGGERS:][: len(not_run)]
    assert {item.why for item in not_run} == {Omission.LEFT_OUT}
    assert 20 < len(not_run) < 100


@pytest.mark.parametrize(
    ("fields", "launch"),
    [
        ({"mode": "execute"}, ("script", TARGET, "big-tool", "big_tool:main")),
        (
            {"mode": "execute", "entrypoint": "z"},
            ("script", TARGET, "z", "big_tool.cli:App.run"),
        ),
        (
            {"mode": "execute", "entrypoint": "a.b:c"},
            ("script", TARGET, "big-tool", "a.b:c"),
        ),
        ({"mode": "execute", "file_path": "a/b.py"}, ("file", TARGET, "a/b.py")),
        ({"mode": "execute_module"}, ("module", TARGET, "big_tool")),
        ({"mode": "execute_module", "module_name": "x.y"}, ("module", TARGET, "x.y")),
    ],
)
def test_execute_runs_what_was_named_or_the_first(
    fields: dict[str, str], launch: tuple[str, ...]
) -> None:
    found, not_run = triggers(ORDER._replace(**fields), INSTALLED)
    assert launches(found) == [launch]
    assert not_run == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mode": "execute"}, "no console script (it declares none)"),
        ({"mode": "execute", "entrypoint": "x"}, "no console script x (it declares none)"),
        ({"mode": "execute_module"}, "the distribution has no module"),
        ({"mode": "import"}, "the distribution has no importable module"),
    ],
)
def test_what_is_not_there_is_not_found(fields: dict[str, str], reason: str) -> None:
    found, not_run = triggers(ORDER._replace(**fields), Installed())
    assert found == []
    assert [(item.why, item.reason) for item in not_run] == [(Omission.NOT_FOUND, reason)]


def test_without_an_installation_each_phase_is_left_out() -> None:
    assert [item.phase for item in without_installation(ORDER)] == [
        PhaseName.START,
        PhaseName.IMPORT,
        PhaseName.EXECUTE,
    ]
    assert without_installation(ORDER._replace(mode="install")) == []


def test_the_run_keeper_understands_every_launch() -> None:
    found, _ = triggers(ORDER, INSTALLED)
    for trigger in [installation(ORDER, 45), *found]:
        start = Start(1, trigger.launch, variables(ORDER, trigger.phase), True)
        packet = {"jail": 1, "launch": start.launch, "variables": start.variables, "index": True}
        assert parse_request(json.dumps(packet).encode()) == start


def test_pip_is_given_the_requirement_and_no_option_of_a_stranger() -> None:
    launch = installation(ORDER, 45).launch
    assert launch[0] == "pip"
    assert launch[-2:] == ("--", "big-tool==1.0")
