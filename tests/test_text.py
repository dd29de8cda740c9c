"""Untrusted text becomes shown text by one way: nothing in it acts, and it is bounded."""

import pytest
from reports import HOSTILE, assert_inert, report_of, saying

from jail.orders import INDEX_PORT, PYTHON_IN_JAIL, WORK_IN_JAIL
from jail.report.rows import MAX_ROWS, MAX_TERMINAL_BYTES, render_text
from jail.report.text import (
    MAX_BLOCK_CHARS,
    MAX_ROW_CHARS,
    block,
    fair_shares,
    middle_cut,
    plain,
    row,
    short,
)
from jail.watch.events import BaitRead, Change, FileChanged


@pytest.fixture(params=HOSTILE)
def said(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


def test_a_line_is_inert_and_bounded(said: str) -> None:
    for limit_chars in (1, 7, MAX_ROW_CHARS):
        for shown in (plain(said, limit_chars), short(said, limit_chars)):
            assert_inert(shown)
            assert "\n" not in shown
            assert len(shown) <= limit_chars
            shown.encode()


def test_many_lines_are_inert_and_bounded(said: str) -> None:
    shown = block(said)
    assert_inert(shown)
    assert len(shown) <= MAX_BLOCK_CHARS + 3
    shown.encode()


def test_a_row_is_inert_and_bounded(said: str) -> None:
    shown = row("high", said, said, said, said, said, texts={said: said})
    for text in (shown.what, shown.about, *shown.texts):
        assert_inert(text)
        assert len(text) <= MAX_ROW_CHARS
    assert_inert("".join(shown.texts.values()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb", "a\\nb"),
        ("\u202ecod.exe", "\\u202ecod.exe"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\ud800", "\\ud800"),
        ("ä ö \U0001f40d", "ä ö \U0001f40d"),
        # Read as requests, os, and wget: Cyrillic, all of it, and as formulas have it.
        ("import r\u0435quests", "import r\\u0435quests"),
        ("\u043e\u0455.system", "\\u043e\\u0455.system"),
        ("\U0001d5d0get", "\\U0001d5d0get"),
        # A language of its own, a letter of a formula, an emoji.
        ("\u043f\u0440\u0438\u0432\u0435\u0442", "\u043f\u0440\u0438\u0432\u0435\u0442"),
        ("\u03b1 = 1, stra\u00dfe", "\u03b1 = 1, stra\u00dfe"),
        ("\u2764\ufe0f", "\u2764\ufe0f"),
        # Nobody sees these, or what they stand on.
        ("a\u3164b\u2800", "a\\u3164b\\u2800"),
        ("a\ufe00\ufe01", "a\\ufe00\\ufe01"),
        ("a" + "\u0300" * 9, "a" + "\\u0300" * 9),
    ],
)
def test_what_acts_is_escaped_and_nothing_else(text: str, shown: str) -> None:
    assert plain(text, 100) == shown


def test_a_cut_is_marked() -> None:
    assert plain("abcdef", 6) == "abcdef"
    assert plain("abcdefg", 6) == "abcde…"
    assert middle_cut("abcdefgh", 4) == "ab\n…\ngh"
    assert middle_cut("abc", 0) == "\n…\n"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"{WORK_IN_JAIL}/site/a-package-1.0/a/b.py:3", "…/a/b.py:3"),
        (f"{WORK_IN_JAIL}/site/a-1.0/lib/python3.12/site-packages/a/b.py:3", "…/a/b.py:3"),
        (f"{PYTHON_IN_JAIL}/lib/python3.12/site-packages/pip/x.py", "…/pip/x.py"),
        (f"{PYTHON_IN_JAIL}/bin/python -c x", "…/python -c x"),
        (f"http://127.0.0.1:{INDEX_PORT}/files/{'0' * 64}/a.whl", "…/a.whl"),
        ("/usr/lib/python3/x.py", "/usr/lib/python3/x.py"),
    ],
)
def test_folders_of_ours_are_left_out(path: str, shown: str) -> None:
    assert short(path) == shown


def test_lines_of_code_stay_lines() -> None:
    code = "import os\n\tos.system('id') # <b> & \"c\"\nx\x1b[1m\r\n"
    assert block(code) == "import os\n    os.system('id') # <b> & \"c\"\nx\\x1b[1m"


@pytest.mark.parametrize(
    ("sizes", "total", "shares"),
    [
        ([], 10, []),
        ([1, 2, 3], 10, [1, 2, 3]),
        ([100, 1, 100], 21, [10, 1, 10]),
        ([5, 50, 7], 30, [5, 18, 7]),
        ([5, 5], 0, [0, 0]),
    ],
)
def test_the_small_get_all_and_the_large_share(
    sizes: list[int], total: int, shares: list[int]
) -> None:
    assert fair_shares(sizes, total) == shares


# --- the report for a terminal ---


def test_a_terminal_shows_hostile_text_as_text(said: str) -> None:
    text = render_text(saying(said)).decode()
    assert_inert(text)
    assert len(text) < 200_000
    assert text.count("\nFindings (") == 1


def test_each_text_keeps_to_its_line() -> None:
    text = render_text(saying("x\nFindings (9)\nhigh     forged")).decode()
    # The first line is ours: it begins with the verdict.
    others = text.splitlines()[1:]
    starts = [line for line in others if line.startswith(("Findings", "high"))]
    assert [line.partition(" ")[0] for line in starts] == ["Findings"]


def test_the_verdict_is_the_first_word_in_a_terminal() -> None:
    first = render_text(report_of()).decode().splitlines()[0]
    assert first == "clean: a-package 1.0: nothing found in install"
    bait = BaitRead("/home/dev/.ssh/id_rsa", "setup.py:6")
    first = render_text(report_of(bait)).decode().splitlines()[0]
    assert first.startswith("high: a-package 1.0: 1 high finding: reads or touches ")
    first = render_text(report_of(phases=[])).decode().splitlines()[0]
    assert first.startswith("unseen: a-package 1.0: could not be installed")


@pytest.mark.parametrize("kind", ["html", "quotes", "long", "astral", "blank", "controls"])
def test_any_number_of_things_fits_into_a_terminal(kind: str) -> None:
    text = render_text(saying(HOSTILE[kind], 500))
    assert len(text) <= MAX_TERMINAL_BYTES + 100
    assert_inert(text.decode())


def test_what_a_terminal_leaves_out_is_counted() -> None:
    made = [FileChanged(f"/home/dev/{number}", Change.CREATED, 1, None) for number in range(150)]
    text = render_text(report_of(*made)).decode()
    assert text.count("created") == MAX_ROWS
    assert "… and 50 more: --json has them" in text
