"""What is found to run in what pip has installed."""

import doctest

import pytest

from jail.watch import contents
from jail.watch.contents import (
    Contents,
    EntryPoint,
    module_name,
    parse_entry_points,
    parse_project,
    parse_record,
    read_contents,
)

SITE = "lib/python3.11/site-packages"


def distribution(
    record: list[str], entry_points: str = "", *, folder: str = "evil-1.0", name: str = "evil"
) -> dict[str, str]:
    """The files of a distribution, all that RECORD lists but those that begin with `gone`."""
    info = f"{SITE}/{folder}.dist-info"
    files = {path: "" for path in parse_record("\n".join(record), SITE) if "gone" not in path}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files[f"{info}/RECORD"] = "".join(f"{path},sha256=x,1\n" for path in record)
    files[f"{info}/entry_points.txt"] = entry_points
    return files


def read(files: dict[str, str], project: str = "evil") -> Contents:
    return read_contents(files, lambda path: files.get(path, ""), project)


def test_the_examples_in_the_functions_hold() -> None:
    assert doctest.testmod(contents).failed == 0
    assert doctest.testmod(contents).attempted >= 5


@pytest.mark.parametrize(
    ("record", "first", "others"),
    [
        (["six.py"], ["six"], []),
        (["s/client/__init__.py"], ["s.client"], []),
        (["g/cloud/core/__init__.py", "g/cloud/x.py", "g/cloud/core/y.py"],
         ["g.cloud.core", "g.cloud.x"], ["g.cloud.core.y"]),
        (["a/__init__.py", "a/z/server.py", "a/b.py"], ["a"], ["a.b", "a.z.server"]),
        (["a/tests/test_x.py", "a/__init__.py", "a/z.py"], ["a"], ["a.z"]),
        (["zz.py", "evil.py", "aa.py"], ["evil", "aa", "zz"], []),
        (["a.cpython-311-x86_64-linux-gnu.so", "b.so", "c.pyd", "d.pyc"], ["a", "b", "d"], []),
        (["a/__pycache__/x.cpython-311.pyc", "a.b/c.py", "a,b/c.py", "a:b.py"], [], []),
        (["x-y.py", "1a.py", "a b/c.py"], ["1a", "x-y", "a b.c"], []),
        (["a/__init__.py", "a/__main__.py"], ["a"], []),
        (["../../../bin/tool.py", "../other.py"], [], []),
    ],
)  # fmt: skip
def test_the_shallowest_modules_with_code_come_first(
    record: list[str], first: list[str], others: list[str]
) -> None:
    found = read(distribution(record))
    assert (found.first, found.others) == (first, others)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("evil-1.0", "evil"),
        ("s06-evil-1.0", "s06_evil"),
        ("anything", "S06.Evil"),
        ("s06_evil-1.0", "another"),
    ],
)
def test_the_metadata_is_found_however_its_folder_is_spelled(folder: str, name: str) -> None:
    files = distribution(["a.py"], folder=folder, name=name)
    project = "evil" if name == "evil" else "s06-evil"
    assert read(files, project).first == ["a"]
    assert read(files, "unrelated") == Contents()


def test_a_name_in_the_description_is_no_name() -> None:
    assert parse_project("Version: 1\n\nName: evil\n") is None


def test_what_record_lists_and_is_not_there_is_found() -> None:
    found = read(distribution(["a.py", "gone.py", "../../../etc/a.conf"]))
    assert found.missing == [f"{SITE}/gone.py"]
    assert found.listed == [f"{SITE}/a.py", "etc/a.conf"]


@pytest.mark.parametrize(
    "row",
    ["/etc/passwd", "../../../../x", "../../..", "", "a/../../../../../x", '"a.py', "\x00\x00"],
)
def test_no_row_of_record_leads_out_of_the_prefix(row: str) -> None:
    for path in parse_record(f"{row},sha256=x,1\n", SITE):
        assert not path.startswith(("/", ".."))


def test_a_path_with_commas_and_quotes_is_read_as_pip_writes_it() -> None:
    assert parse_record('"a,b/""c"".py",sha256=x,1\n', SITE) == [f'{SITE}/a,b/"c".py']


def test_a_field_that_is_too_long_loses_nothing_before_it() -> None:
    assert parse_record("a.py,,\n" + "x" * 200_000 + ",,\n", SITE) == [f"{SITE}/a.py"]


def test_entry_points_of_all_groups_are_found() -> None:
    text = (
        "[console_scripts]\nb = e.cli:main\nevil = e.cli:run [extra]\n; c = d:e\n\n"
        "[gui_scripts]\nwin=e.gui : App.main\n[pytest11]\n p = e.plug\n[odd group]\nx = 1bad:y\n"
    )
    found = read(distribution(["e/__init__.py"], text))
    assert [(entry.name, entry.target) for entry in found.scripts] == [
        ("evil", "e.cli:run"), ("b", "e.cli:main"), ("win", "e.gui:App.main"),
    ]  # fmt: skip
    assert found.plugins == [EntryPoint("pytest11", "p", "e.plug")]


def test_entries_without_a_group_and_floods_are_left_out() -> None:
    assert parse_entry_points("a = b:c\n") == []
    flood = "[g]\n" + "".join(f"n{number} = m:a\n" for number in range(3000))
    assert len(parse_entry_points(flood)) == 2000


def test_programs_are_what_no_entry_point_made() -> None:
    record = ["../../../bin/go", "../../../bin/tool", "../../../share/bin/x", "bin/y.py"]
    found = read(distribution(record, "[console_scripts]\ngo = e:main\n"))
    assert found.programs == ["bin/tool"]


def test_packages_with_a_main_are_found() -> None:
    record = ["evil/__main__.py", "evil/__init__.py", "evil/sub/__main__.py", "__main__.py"]
    record += ["evil/tests/__main__.py"]
    assert read(distribution(record)).mains == ["evil", "evil.sub"]


def test_a_long_record_hides_nothing() -> None:
    junk = [f"junk{number}.txt" for number in range(5200)]
    assert read(distribution([*junk, "real/__init__.py"])).first == ["real"]


def test_more_modules_than_are_taken_are_counted() -> None:
    record = ["a/__init__.py", *(f"a/m{number}.py" for number in range(20_010))]
    found = read(distribution(record))
    assert (len(found.others), found.left_out) == (19_999, 11)


def test_tests_are_set_apart() -> None:
    record = ["a/__init__.py", "a/tests/__init__.py", "a/tests/help.py", "a/test_b.py", "a/c.py"]
    found = read(distribution(record))
    assert found.others == ["a.c"]
    assert found.tests == ["a.test_b", "a.tests", "a.tests.help"]
    assert read(distribution(["tests/help.py"])).first == ["tests.help"]


@pytest.mark.parametrize("path", ["x" * 301 + ".py", ".py", "a//b.py", "a/.py", "a.py\n"])
def test_odd_paths_are_no_modules(path: str) -> None:
    assert module_name(path) is None
