"""What a release has beside what was run: which of it is told, and how much."""

import doctest

import pytest

from jail.watch import release
from jail.watch.events import Downloaded, Phase, PhaseName, Seen
from jail.watch.release import absent_files, is_of_version, other_files


def test_the_examples_in_the_functions_hold() -> None:
    assert doctest.testmod(release).failed == 0
    assert doctest.testmod(release).attempted >= 1


@pytest.mark.parametrize(
    ("file", "version", "is_it"),
    [
        ("evil-1.0-py3-none-any.whl", "1.0", True),
        ("evil-1.0-1-py3-none-any.whl", "1.0", True),
        ("Evil_Pkg-1.0.0.tar.gz", "1.0", True),
        ("evil-pkg-1.0.zip", "1.0", True),
        ("evil_pkg-1.0-py2.7.egg", "1.0", True),
        ("evil-pkg-1.0.win32-py2.7.exe", "1.0", True),
        ("evil-1.0.1.tar.gz", "1.0", False),
        ("evil-10.tar.gz", "1", False),
        ("evil-1.10.tar.gz", "1.1", False),
        ("evil-1.0rc1-py3-none-any.whl", "1.0", False),
        ("evil", "1.0", False),
    ],
)
def test_a_file_of_the_release_is_known_by_its_version(
    file: str, version: str, is_it: bool
) -> None:
    assert is_of_version(file, version) == is_it


def taken(*files: str) -> list[Seen]:
    phase = Phase(PhaseName.INSTALL)
    return [Seen(Downloaded(file, 1, "0" * 64, False), phase, 0.0, ()) for file in files]


def test_the_files_that_pip_did_not_take_are_named_the_source_first() -> None:
    wheels = {f"a-1-cp3{number}-cp3{number}-win32.whl" for number in range(10, 30)}
    note = other_files({"a-1.tar.gz", *wheels}, taken("a-1-cp310-cp310-win32.whl", "b-1.whl"))
    assert "artifact" in note
    assert note.index("a-1.tar.gz") < note.index("a-1-cp311")
    assert "cp310" not in note
    assert note.endswith("and 15 more")


def test_a_release_of_one_file_tells_nothing() -> None:
    assert other_files({"a-1.whl"}, taken("a-1.whl")) == ""
    assert other_files({"a-1.whl"}, []) == other_files(set(), []) == ""


def test_rows_of_record_that_name_nothing_are_told() -> None:
    assert absent_files([], "site/a-1") == ""
    note = absent_files([f"lib/{number}.py" for number in range(7)], "site/a-1")
    assert "/site/a-1/lib/0.py" in note
    assert note.endswith("and 2 more")
