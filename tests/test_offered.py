"""Why pip finds nothing, and what the index says of a release; commands by the names of others."""

from typing import Any

import pytest

from jail.orders import Order
from jail.report.rules import judge
from jail.watch.commands import PROGRAMS_OF_OTHERS, RIGHTFUL, commands_taken
from jail.watch.events import Event, Finding, Outcome, Phase, PhaseName, Printed, Rule, Severity
from jail.watch.installed import Installed
from jail.watch.noticed import ReleaseNoted
from jail.watch.offered import (
    Offered,
    read_page,
    suits,
    tell_release,
    version_in,
    why_nothing,
)
from jail.watch.taken_places import all_taken

ORDER = Order("triage", "0" * 32, "a-package", "1.0", "install")
PYTHON = (3, 11)


def page(*files: str | dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"files": [{"filename": f} if isinstance(f, str) else f for f in files]} | more


def of(name: str, **about: Any) -> dict[str, Any]:
    return {"filename": name} | {key.replace("_", "-"): value for key, value in about.items()}


WINDOWS = "a_package-1.0-cp311-cp311-win_amd64.whl"
MAC = "a_package-1.0-cp311-cp311-macosx_11_0_arm64.whl"
QUARANTINED = {"project-status": {"status": "quarantined", "reason": "malware\x1b[2J"}}
ELSEWHERE = {"meta": {"project-status": "quarantined", "project-status-reason": "malware"}}
WHY = {
    "quarantined, as the example has it": (
        page(**ELSEWHERE),
        "the index has quarantined a-package (malware): it gives out none of its files",
    ),
    "quarantined": (page(**QUARANTINED), "the index has quarantined a-package (malware\\x1b[2J)"),
    "emptied": (page(), "the index names no file of a-package: all its releases were removed"),
    "no such version": (
        page("a_package-0.17-py3-none-any.whl", "a-package-0.9.tar.gz", "a-package-0.17_x.exe"),
        "the index has no version 1.0 of a-package; the newest that it names is 0.17",
    ),
    "another Python": (
        page(of("a-package-1.0.tar.gz", requires_python=">=3.13")),
        "a-package 1.0 requires Python >=3.13, and the jail's is 3.11",
    ),
    "other platforms": (
        page(WINDOWS, MAC),
        "a-package 1.0 has only wheels for other machines or Pythons:"
        " cp311 win_amd64, cp311 macosx_11_0_arm64",
    ),
    "nothing to say": (page("a-package-1.0.tar.gz"), ""),
}


@pytest.mark.parametrize("kind", WHY)
def test_why_there_is_nothing_is_said_in_one_sentence(kind: str) -> None:
    read, sentence = WHY[kind]
    why = why_nothing(read_page(read, "1.0"), ORDER, PYTHON)
    assert why.startswith(sentence) if sentence else why == ""
    assert why.isprintable()


def test_a_project_without_a_page_was_removed() -> None:
    assert why_nothing(Offered(), ORDER, PYTHON).startswith("the index has no project a-package")


@pytest.mark.parametrize(
    ("artifact", "files", "sentence"),
    [
        ("sdist", [WINDOWS], "a-package 1.0 has no source distribution, only wheels"),
        ("wheel", ["a-package-1.0.zip"], "a-package 1.0 has no wheel, only a source distribution"),
        ("x-1.0.zip", ["a-package-1.0.zip"], "a-package 1.0 has no file x-1.0.zip"),
        ("wheel", [WINDOWS, "a-package-1.0.zip"], "a-package 1.0 has only wheels for other"),
    ],
)
def test_an_artifact_that_is_not_there_is_named(
    artifact: str, files: list[str], sentence: str
) -> None:
    order = ORDER._replace(artifact=artifact)
    assert why_nothing(read_page(page(*files), "1.0"), order, PYTHON).startswith(sentence)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("six-1.17.0-py2.py3-none-any.whl", "1.17.0"),
        ("python-dateutil-2.9.0.post0.tar.gz", "2.9.0.post0"),
        ("x-1.0.zip", "1.0"),
        ("x-1.0-1-cp311-cp311-any.whl", "1.0"),
        ("x-1.0.exe", ""),
        ("x.whl", ""),
    ],
)
def test_the_version_stands_in_the_file_s_name(name: str, version: str) -> None:
    assert version_in(name) == version


def test_a_version_is_known_however_it_is_written() -> None:
    assert read_page(page("a-1.0.0.tar.gz"), "1.0").files
    assert read_page(page("a-1.0_x1-py3-none-any.whl"), "1.0+x1").files
    assert not read_page(page("a-1.0.1.tar.gz", "a-10.tar.gz"), "1.0").files


@pytest.mark.parametrize(
    ("wanted", "is_fit"),
    [
        ("", True),
        (">=3.8", True),
        (">=3.8, <4", True),
        (">=3.12", False),
        ("<3.11", False),
        ("<3.11.5", True),
        (">3.11", False),
        ("==2.7.*", False),
        ("==3.*", True),
        ("!=3.11.*", False),
        ("!=3.11.2", True),
        ("~=3.8", True),
        ("~=2.7", False),
        ("<=3.10", False),
        ("what?", True),
    ],
)
def test_which_python_a_file_wants(wanted: str, is_fit: bool) -> None:
    assert suits(wanted, PYTHON) is is_fit


def told(read: dict[str, Any], outcome: Outcome, stderr: str = "") -> tuple[Phase, list[Event]]:
    events: list[Event] = []
    phase = Phase(PhaseName.INSTALL, None, outcome, stderr=Printed(stderr))
    tell_release(read_page(read, "1.0"), ORDER, phase, PYTHON, events.append)
    return phase, events


NOTHING = "No matching distribution found for"


def test_only_a_pip_that_found_nothing_gets_that_reason() -> None:
    phase, _ = told(page(), Outcome.FAILED, f"ERROR: {NOTHING} a-package==1.0\n")
    assert "all its releases were removed" in phase.reason
    # That the release has a wheel is not why what it needs is not there.
    wheel = page(of("a_package-1.0-py3-none-any.whl"))
    phase, _ = told(wheel, Outcome.FAILED, f"ERROR: {NOTHING} other<2,>=1 (from a-package)\n")
    needed = "a-package needs other<2,>=1, of which the index has nothing that fits here"
    assert phase.reason == needed
    phase, _ = told(page(), Outcome.FAILED, "error: command 'gcc' failed\n")
    assert phase.reason == ""


def test_a_yanked_release_is_told_with_its_reason() -> None:
    for yanked, words in ((True, ", without a reason"), ("broken\x07", ": broken\\x07")):
        phase, events = told(page(of("a-1.0.tar.gz", yanked=yanked)), Outcome.OK)
        assert events == [ReleaseNoted(f"a-package 1.0 was yanked by its owner{words}")]
        assert phase.reason == ""
    harmless = page(of("a-1.0.tar.gz", yanked=False), of("a-0.9.tar.gz", yanked="old"))
    assert told(harmless, Outcome.OK)[1] == []


def test_a_command_by_the_name_of_a_well_known_program_is_told() -> None:
    owners = {
        "site/a-1.0/bin/docker": "a",
        "site/a-1.0/bin/aws": "awscli",
        "site/a-1.0/bin/black": "black",
        "site/a-1.0/bin/cmake": "cmake",
        "site/a-1.0/share/bin/npm": "a",
    }
    (taken,) = commands_taken(owners, "site/a-1.0/")
    (found,) = judge(Phase(PhaseName.INSTALL), taken)
    assert (found.severity, found.rule) == (Severity.MEDIUM, Rule.PERSISTENCE_WRITE)
    assert found.title == "installs a command by the name of a well-known program: docker"
    assert set(RIGHTFUL) <= PROGRAMS_OF_OTHERS


USED_BY_OTHERS = {
    "pyvenv.cfg": "virtual environment",
    "bin/activate": "virtual environment",
    "bin/activate.fish": "virtual environment",
    "bin/python3.11": "virtual environment",
    "etc/conda/activate.d/x.sh": "conda environment",
    "etc/ipython/ipython_config.py": "notebook start",
    "share/jupyter/kernels/python3/kernel.json": "notebook start",
    "share/fish/vendor_conf.d/x.fish": "shell start",
    "share/bash-completion/completions/git": "shell start",
    "share/systemd/user/default.target.wants/x.service": "login session",
    # Python's own folder, where the prefix is that of a container's only Python.
    "lib/python3.11/json/__init__.py": "library of a Python",
    "lib/python3.12/site-packages/a.py": "library of a Python",
}
USED_BY_ITSELF = (
    *("bin/activate-global-python-argcomplete", "bin/python-tool", "bin/a", "share/man/man1/a.1"),
    *("etc/jupyter/jupyter_server_config.d/a.json", "share/jupyter/labextensions/a/package.json"),
    *("share/applications/a.desktop", "share/bash-completion/completions/a", "etc/a.conf"),
    *("lib/python3.11/site-packages/a.py", "lib64/python3.11/site-packages/a.so", "lib/liba.so"),
)


def test_what_others_than_its_own_programs_use_is_told() -> None:
    site = "lib/python3.11/site-packages"
    names = (*USED_BY_OTHERS, *USED_BY_ITSELF)
    installed = Installed({f"site/a-1.0/{name}": "a" for name in names}, site)
    installed.owners["site/a-1.0/share/jupyter/kernels/python3/logo.png"] = "ipykernel"
    found = [
        judge(Phase(PhaseName.INSTALL), taken) for taken in all_taken(installed, "site/a-1.0/")
    ]
    assert {(finding.severity, finding.rule) for (finding,) in found} == {
        (Severity.MEDIUM, Rule.PERSISTENCE_WRITE)
    }
    assert {finding.title for (finding,) in found} == {
        f"installs {path}, which others than its own programs use ({kind})"
        for path, kind in USED_BY_OTHERS.items()
    }


# Read as requests and curl; what nobody knows; words of a language.
READ_AS_OTHERS = {
    "lib/python3.11/site-packages/r\u0435quests": ("requests", Severity.MEDIUM),
    "lib/python3.11/site-packages/\u0455s.py": ("ss.py", Severity.INFO),
    "bin/\u0441url": ("curl", Severity.MEDIUM),
    "bin/g\\u0456t": ("git", Severity.MEDIUM),  # as it was made safe
}
READ_AS_THEY_ARE = (
    *("share/doc/\u043f\u0440\u0438\u0432\u0435\u0442.txt", "a/stra\u00dfe.py", "a/requests.py"),
    *("a/caf\u00e9.json", "a/\u65e5\u672c.py", "a/\\x41.py"),
)


def test_a_name_that_is_read_as_another_is_told() -> None:
    site = "lib/python3.11/site-packages"
    paths = [*READ_AS_THEY_ARE, *READ_AS_OTHERS, f"{site}/r\u0435quests/a.py"]
    installed = Installed({f"site/a-1.0/{path}": "a" for path in paths}, site)
    found: dict[str, Finding] = {}
    for taken in all_taken(installed, "site/a-1.0/"):
        for finding in judge(Phase(PhaseName.INSTALL), taken):
            found[finding.place or ""] = finding
    assert {path: found[path].severity for path in found} == {
        path: severity for path, (_, severity) in READ_AS_OTHERS.items()
    }
    for path, (name, _) in READ_AS_OTHERS.items():
        assert found[path].title.endswith(f", which is read as {name}")
        assert found[path].title.isascii()
        assert found[path].technique == "T1036.005"
