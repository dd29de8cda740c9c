"""What is found of an installation in real folders, and what is run of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_watch import SETTINGS

from jail.inside.victims import victim_of
from jail.inside.words import read_names
from jail.orders import AUDIT_IN_JAIL, SCRATCH_FOLDERS, WORK_IN_JAIL, Order, Start, parse_request
from jail.watch import scratch as scratch_room
from jail.watch.contents import Contents, EntryPoint
from jail.watch.events import Omission, PhaseName
from jail.watch.installed import Installed, read_installed, reader_of
from jail.watch.requirements import required_elsewhere
from jail.watch.scratch import Scratch
from jail.watch.triggers import (
    MAX_DEPENDENCY_MODULES,
    MAX_TRIGGERS,
    Trigger,
    installation,
    triggers,
    variables,
    without_installation,
)

ORDER = Order("triage", "0" * 32, "big-tool", "1.0", "detonate")
TARGET = f"{WORK_IN_JAIL}/site/big-tool-1.0"
LIBRARY = "lib/python3.11/site-packages"
SITE = f"{TARGET}/{LIBRARY}"
FIRST = (AUDIT_IN_JAIL, TARGET)  # of the words of a trigger of one thing


class Site:
    """An install target in a scratch."""

    def __init__(self, folder: Path) -> None:
        for name in SCRATCH_FOLDERS:
            (folder / name).mkdir()
        self.scratch_folder = folder
        self.folder = folder / ORDER.site
        self.scratch = Scratch(folder, 1 << 30)

    def write(self, path: str, text: str = "") -> None:
        file = self.folder / LIBRARY / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def describe(self, folder: str, name: str, record: str = "", entries: str = "") -> None:
        """The metadata of a distribution."""
        self.write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        self.write(f"{folder}/RECORD", record)
        if entries:
            self.write(f"{folder}/entry_points.txt", entries)

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
../../../bin/big-tool,sha256=x,1
../../../bin/native-tool,sha256=x,1
absent.py,,
big_tool-1.0.dist-info/RECORD,,
"""


def test_files_that_a_record_names_are_listed_if_they_are_there(site: Site) -> None:
    site.describe("big_tool-1.0.dist-info", "big-tool", RECORD)
    for path in ("big_tool/__init__.py", "other_top.py", "a, quoted.py", "x.py"):
        site.write(path)
    site.write("../../../bin/big-tool")
    owners = site.read().owners
    names = ["a, quoted.py", "big_tool-1.0.dist-info/RECORD", "big_tool/__init__.py"]
    paths = {f"{ORDER.site}/{LIBRARY}/{name}" for name in [*names, "other_top.py"]}
    assert owners == dict.fromkeys(paths | {f"{ORDER.site}/bin/big-tool"}, "big-tool")


@pytest.mark.parametrize("folder", ["Big.Tool-1.0.dist-info", "big-tool-1.0.dist-info"])
def test_modules_are_the_target_s_with_its_namesake_first(site: Site, folder: str) -> None:
    """However the folder of its metadata is spelled."""
    site.describe(folder, "Big.Tool", RECORD)
    for path in ("big_tool/__init__.py", "big_tool/sub/deep.py", "other_top.py", "dependency.py"):
        site.write(path)
    site.write("native.cpython-311-x86_64-linux-gnu.so")
    plug = "[pytest11]\nx = dependency:plug\n"
    site.describe("dependency-2.0.dist-info", "dependency", "dependency.py,,\n", entries=plug)
    installed = site.read()
    assert installed.is_there
    assert installed.site == LIBRARY
    assert installed.contents.first == ["big_tool", "native", "other_top"]
    assert installed.contents.others == ["big_tool.sub.deep"]
    assert f"{LIBRARY}/absent.py" in installed.contents.missing
    assert installed.dependencies == {"dependency": ["dependency", "dependency:plug"]}


def test_scripts_are_the_target_s_with_its_namesake_first(site: Site) -> None:
    entries = (
        "[console_scripts]\naardvark = big_tool:a\nBig_Tool=big_tool.cli:App.run [extra]\n"
        "[gui_scripts]\nwindow = big_tool:w\n[pytest11]\nplugin = big_tool.plugin\n"
    )
    site.describe("big_tool-1.0.dist-info", "big-tool", entries=entries)
    site.describe("aaa-1.0.dist-info", "aaa", entries="[console_scripts]\naaa = a:a\n")
    contents = site.read().contents
    assert [(script.name, script.target) for script in contents.scripts] == [
        ("Big_Tool", "big_tool.cli:App.run"),
        ("aardvark", "big_tool:a"),
        ("window", "big_tool:w"),
    ]
    assert [plugin.target for plugin in contents.plugins] == ["big_tool.plugin"]


def test_a_program_that_no_python_runs_is_known_by_its_first_line(site: Site) -> None:
    site.describe("big_tool-1.0.dist-info", "big-tool", RECORD)
    site.write("../../../bin/big-tool", "#!/opt/python/bin/python\nprint()\n")
    site.write("../../../bin/native-tool", "\x7fELF python")
    installed = site.read()
    assert installed.contents.programs == ["bin/big-tool", "bin/native-tool"]
    assert installed.natives == {"bin/native-tool"}


def test_who_reads_is_told_by_the_file_that_is_listed(site: Site) -> None:
    site.describe("big_tool-1.0.dist-info", "big-tool", RECORD)
    site.write("other_top.py")
    installed = site.read()
    assert reader_of(f"{SITE}/other_top.py:7", installed, ORDER) == "big-tool"
    for place in (None, "<string>:1", f"{SITE}/x.py:7", "/usr/lib/python3.11/os.py:1"):
        assert reader_of(place, installed, ORDER) is None


@pytest.mark.parametrize(
    ("path", "acts"),
    [
        (f"{ORDER.site}/{LIBRARY}/x.pth", True),
        (f"{ORDER.site}/{LIBRARY}/sitecustomize.py", True),
        (f"{ORDER.site}/{LIBRARY}/usercustomize/__init__.py", True),
        ("home/.local/lib/python3.11/site-packages/x.pth", True),
        (f"{ORDER.site}/{LIBRARY}/x.py", False),
        (f"{ORDER.site}/{LIBRARY}/customize.py", False),
    ],
)
def test_what_acts_at_a_start_is_found_wherever_it_lies(site: Site, path: str, acts: bool) -> None:
    """Without any no bare interpreter is started: nothing would be seen that is not elsewhere."""
    file = site.scratch_folder / path
    file.parent.mkdir(parents=True)
    file.touch()
    assert site.read().has_startup == acts


def test_a_long_record_is_read_to_its_end(site: Site) -> None:
    filler = "".join(f"data/{number:06}-{'x' * 60}.json,,\n" for number in range(20_000))
    site.describe("big_tool-1.0.dist-info", "big-tool", filler + "other_top.py,,\n")
    site.write("other_top.py")
    assert site.read().contents.first == ["other_top"]


def test_a_record_that_is_none_does_no_harm(site: Site) -> None:
    site.describe(
        "big_tool-1.0.dist-info",
        "big-tool",
        "\0\n,,,\n../../../../../../etc/passwd,,\n" + "x" * 5000,
    )
    site.write("odd.dist-info/RECORD/file")
    installed = site.read()
    assert installed.contents.first == []
    assert installed.owners == {}


def test_a_flood_of_records_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_room, "MAX_READ_BYTES", 4 * scratch_room.PAGE_BYTES)
    for number in range(10):
        site.describe(f"d{number}-1.0.dist-info", f"d{number}", "x.py,,\n")
    site.read()
    assert site.scratch.lost["RECORD, read"] > 6


CONTENTS = Contents(
    first=["big_tool", "other_top"],
    others=["big_tool.cli"],
    tests=["big_tool.tests.test_it"],
    mains=["big_tool"],
    scripts=[
        EntryPoint("console_scripts", "big-tool", "big_tool:main"),
        EntryPoint("gui_scripts", "z", "big_tool.cli:App.run"),
    ],
    plugins=[EntryPoint("pytest11", "p", "big_tool.plug")],
    programs=["bin/run", "bin/native"],
)
INSTALLED = Installed(
    site=LIBRARY,
    contents=CONTENTS,
    dependencies={"six": ["six"], "odd-thing": ["odd", "thing"]},
    natives={"bin/native"},
    files=frozenset({f"{LIBRARY}/a/b.py", "bin/run"}),
    has_startup=True,
)


def plan(installed: Installed = INSTALLED, **fields: Any) -> tuple[list[Trigger], list[str]]:
    """The triggers, and why others are not run."""
    found, not_run = triggers(ORDER._replace(**fields), installed, SETTINGS)
    return found, [item.why for item in not_run]


def launches(found: list[Trigger]) -> list[tuple[str, ...]]:
    return [trigger.launch for trigger in found]


def test_install_runs_nothing_more() -> None:
    assert plan(mode="install") == ([], [])


def names_of(launch: tuple[str, ...]) -> str:
    """The names that the worker makes of its words."""
    return ",".join(read_names(launch[6:]))


def test_dependencies_beyond_the_bound_are_a_gap() -> None:
    many = {"odd": [f"m{number}" for number in range(MAX_DEPENDENCY_MODULES + 1)]}
    assert plan(replace(INSTALLED, dependencies=many))[1] == [Omission.LEFT_OUT]
    assert plan(replace(INSTALLED, more_dependencies=1))[1] == [Omission.LEFT_OUT]


def test_what_is_required_elsewhere_is_named() -> None:
    text = (
        "Name: a\nRequires-Dist: b>=1\nRequires-Dist: win-thing (>=2) ; sys_platform == 'win32'\n"
        "Requires-Dist: colorama; os_name == 'nt'\nRequires-Dist: c; extra == 'os_name'\n"
        "Requires-Dist: d; python_version < '3' and extra == 'x'\n\n"
        "Requires-Dist: text; os_name == 'nt'\n"
    )
    assert required_elsewhere(text) == ["win-thing"]


def test_detonate_runs_all_there_is() -> None:
    found, not_run = plan()
    assert [(str(trigger.phase), trigger.title) for trigger in found] == [
        ("start", None),
        ("import", "big_tool"),
        ("import", "other_top"),
        ("import", "all modules"),
        ("import", "dependencies"),
        ("execute", "big-tool"),
        ("execute", "z"),
        ("execute", "bin/run"),
        ("execute", "bin/native"),
        ("execute", "python -m big_tool"),
        ("import", "as windows"),
        ("import", "as macos"),
        ("import", "as ci, later"),
        ("call", None),
        ("call", "tests"),
    ]
    by_title = {trigger.title: trigger.launch for trigger in found}
    assert by_title["other_top"] == ("import", *FIRST, "other_top")
    assert by_title["z"] == ("script", *FIRST, "z", "big_tool.cli:App.run")
    assert by_title["bin/run"] == ("file", *FIRST, "bin/run")
    assert by_title["bin/native"] == ("program", f"{TARGET}/bin/native")
    assert by_title["python -m big_tool"] == ("module", *FIRST, "big_tool")
    # What the worker imports: all modules and plug-ins, and of dependencies those that few have.
    assert by_title["all modules"][:2] == ("imports", AUDIT_IN_JAIL)
    assert by_title["all modules"][4:6] == (SITE, "self")
    assert "big_tool.plug" in names_of(by_title["as windows"])
    assert names_of(by_title["dependencies"]) == "odd,thing"
    assert names_of(by_title["tests"]) == "big_tool.tests.test_it"
    assert not_run == []


def test_only_one_victim_works_in_ci() -> None:
    found, _ = plan()
    assert [trigger.title for trigger in found if trigger.is_in_ci] == ["as ci, later"]
    for trigger in found:
        assert ("GITHUB_ACTIONS" in variables(ORDER, trigger)) == trigger.is_in_ci


def test_the_jobs_of_a_jail_end_before_its_time_is_over() -> None:
    for timeout_sec in (1, 20, 45, 600):
        settings = SETTINGS._replace(run_timeout_sec=timeout_sec)
        found, _ = triggers(ORDER, INSTALLED, settings)
        totals = [float(t.launch[2]) for t in found if t.launch[0] in ("imports", "call")]
        assert all(0 < total <= max(timeout_sec - 10, 1) for total in totals)


def test_detonate_is_content_with_what_there_is() -> None:
    found, not_run = triggers(ORDER, Installed(), SETTINGS)
    assert found == []
    assert [(item.phase, item.why) for item in not_run] == [
        (PhaseName.START, Omission.NOTHING_THERE),
        (PhaseName.IMPORT, Omission.LEFT_OUT),
        (PhaseName.CALL, Omission.NOTHING_THERE),
        (PhaseName.EXECUTE, Omission.NOTHING_THERE),
    ]


def test_a_module_that_is_the_only_one_is_imported_once_as_ourselves() -> None:
    installed = Installed(site=LIBRARY, contents=Contents(first=["m"]))
    found, _ = plan(installed, mode="import")
    assert [trigger.title for trigger in found] == ["m", "as windows", "as macos", "as ci, later"]
    assert found[0].launch == ("import", *FIRST, "m", SITE)
    # A plug-in is one more.
    installed.contents.plugins = [EntryPoint("pytest11", "p", "m:plug")]
    assert plan(installed, mode="import")[0][1].title == "all modules"


def test_other_victims_are_known_by_their_variables() -> None:
    """The audit hook becomes them before any .pth file acts."""
    found, _ = plan()
    for trigger in found:
        assert victim_of(variables(ORDER, trigger)) == trigger.victim


def test_modules_beyond_the_bound_are_among_all_modules() -> None:
    """Nothing is left out: each is imported in the one jail, if not in a jail of its own."""
    modules = [f"m{number:03}" for number in range(200)]
    many = Installed(site=LIBRARY, contents=Contents(first=modules))
    found, not_run = plan(many, mode="import")
    assert [trigger.title for trigger in found][:MAX_TRIGGERS] == modules[:MAX_TRIGGERS]
    (whole,) = [trigger for trigger in found if trigger.title == "all modules"]
    assert names_of(whole.launch) == ",".join(modules)
    assert not_run == []


def test_programs_beyond_the_bound_share_a_jail() -> None:
    scripts = [EntryPoint("console_scripts", f"s{number}", "m:f") for number in range(100)]
    many = Installed(site=LIBRARY, contents=Contents(first=["m"], scripts=scripts))
    many.has_startup = True
    found, not_run = plan(many)
    programs = [trigger for trigger in found if trigger.phase is PhaseName.EXECUTE]
    assert len(programs) == MAX_TRIGGERS + 1
    shared = [json.loads(word) for word in programs[-1].launch[4:]]
    assert shared[0] == ["script", *FIRST, "s8", "m:f"]
    assert programs[-1].title == f"{len(shared)} more programs"
    assert MAX_TRIGGERS + len(shared) + len(not_run) == 100


@pytest.mark.parametrize(
    ("fields", "launch"),
    [
        ({"mode": "execute"}, ("script", *FIRST, "big-tool", "big_tool:main")),
        (
            {"mode": "execute", "entrypoint": "z"},
            ("script", *FIRST, "z", "big_tool.cli:App.run"),
        ),
        (
            {"mode": "execute", "entrypoint": "a.b:c"},
            ("script", *FIRST, "big-tool", "a.b:c"),
        ),
        # Where a module lies, or a program.
        ({"mode": "execute", "file_path": "a/b.py"}, ("file", *FIRST, f"{LIBRARY}/a/b.py")),
        ({"mode": "execute", "file_path": "bin/run"}, ("file", *FIRST, "bin/run")),
        ({"mode": "execute_module"}, ("module", *FIRST, "big_tool")),
        ({"mode": "execute_module", "module_name": "x.y"}, ("module", *FIRST, "x.y")),
    ],
)
def test_execute_runs_what_was_named_or_the_first(
    fields: dict[str, Any], launch: tuple[str, ...]
) -> None:
    found, not_run = plan(**fields)
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
    found, not_run = triggers(ORDER._replace(**fields), Installed(), SETTINGS)
    assert found == []
    assert [(item.why, item.reason) for item in not_run] == [(Omission.NOT_FOUND, reason)]


def test_without_an_installation_each_phase_is_left_out() -> None:
    assert [item.phase for item in without_installation(ORDER)] == [
        PhaseName.START,
        PhaseName.IMPORT,
        PhaseName.CALL,
        PhaseName.EXECUTE,
    ]
    assert without_installation(ORDER._replace(mode="install")) == []


def test_the_run_keeper_understands_every_launch() -> None:
    found, _ = plan()
    for trigger in [installation(ORDER, 45), *found]:
        start = Start(1, trigger.launch, variables(ORDER, trigger), True)
        packet = {
            "jail": 1,
            "launch": start.launch,
            "variables": start.variables,
            "has_index": True,
        }
        assert parse_request(json.dumps(packet).encode()) == start


def test_pip_is_given_the_requirement_and_no_option_of_a_stranger() -> None:
    launch = installation(ORDER, 45).launch
    assert launch[0] == "pip"
    assert launch[-2:] == ("--", "big-tool==1.0")
    # All lands as in a virtual environment.
    assert launch[launch.index("--prefix") :][:2] == ("--prefix", TARGET)


def test_programs_run_before_what_is_missed_is_installed() -> None:
    """Most people do not have it; what it leads to is seen with calls and other victims."""
    found, _ = plan()
    first = [trigger.with_missed for trigger in found].index(True)
    assert found[first].title == "as windows"
    assert not any(t.with_missed for t in found if t.phase is PhaseName.EXECUTE)


def test_modules_are_compiled_where_they_are_imported_many_times() -> None:
    for mode in ("install", "execute", "execute_module", "import", "detonate"):
        order = ORDER._replace(mode=mode)
        is_compiled = "PIP_NO_COMPILE" in variables(order, installation(order, 45))
        assert is_compiled == (mode in ("import", "detonate"))
