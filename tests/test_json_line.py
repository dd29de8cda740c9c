"""What the audit hook says can be read as JSON, whatever a package made it quote."""

import json
import subprocess
import sys
from typing import Any

import pytest
from conftest import ROOT

from jail.inside.json_line import json_of, line_within
from jail.inside.origins import without_fields

VALUES: tuple[object, ...] = (
    *("", "plain", 'a "word"', "back\\slash", "two\nlines\t\r\x00\x1b[0m\x7f", "é 漢 🐍"),
    *("\ud800 half", "\udcff", 0, -17, 10**30, True, False, None),
    *([], ["a", 1, ["é"]], {"what": ["a", 'b"'], "decoded": False, "n": {"ü": None}}),
)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_it_means_what_json_means(value: object) -> None:
    line = json_of(value)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == value


def test_what_json_has_no_word_for_is_told_as_text() -> None:
    told = json.loads(json_of({"bytes": b"a\xff", "address": ("::1", 80), "other": {1}}))
    assert told == {"bytes": "a\\xff", "address": ["::1", 80], "other": "{1}"}


class Loud(str):
    """A package's own text, whose methods tell that they were called."""

    def isascii(self) -> bool:
        raise AssertionError("code of a package ran")

    isprintable = isascii
    __contains__ = __iter__ = __str__ = __format__ = isascii  # type: ignore[assignment]


class LoudNumber(int):
    def __repr__(self) -> str:
        raise AssertionError("code of a package ran")

    __str__ = __repr__


def test_no_code_of_a_package_runs() -> None:
    assert json.loads(json_of([Loud("é"), LoudNumber(7)])) == ["é", 7]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("def inner(_it, _timer{init}):", "def inner(_it, _timer):"),
        ("{a}{b_1} {0}", " "),
        ("{} {a b} {a!r} {a", "{} {a b} {a!r} {a"),
        ("{{a}}", "{}"),
        ("nothing", "nothing"),
    ],
)
def test_the_fields_of_a_format_are_left_out(text: str, left: str) -> None:
    assert without_fields(text) == left


HOOK_ALONE = """
import sys
sys.path.append({root!r})
import jail.inside.json_line, jail.inside.origins, jail.inside.unwritten
names = {{"FIFO": "/dev/null", "HOME": "/home/dev", "CPU_SEC": 1, "__name__": "__main__"}}
with open({root!r} + "/jail/inside/audit.py") as file:
    exec(file.read(), names)
print(*sys.modules)
"""


def test_no_python_of_a_jail_waits_for_modules_that_take_longer_to_load_than_itself() -> None:
    code = HOOK_ALONE.format(root=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    assert "jail.inside.origins" in loaded
    assert not loaded & {"re", "json", "typing", "collections", "contextlib", "enum", "zlib"}


def test_a_line_that_is_too_long_has_shorter_texts_and_is_as_true() -> None:
    said: dict[str, Any] = {
        "event": "code",
        "at": "\u00e9" * 5000,
        "decoded": True,
        "bytes": 1600,
        "id": 3,
    }
    line = line_within({**said, "text": "00" * 1600}, 4000, "text")
    told = json.loads(line)
    assert len(line) <= 4000
    assert said["at"].startswith(told["at"])
    assert (told["decoded"], told["bytes"], told["text"]) == (True, 1600, "00" * 1600)
    assert line_within({"what": ["a", 1]}, 4000) == '{"what": ["a", 1]}\n'
