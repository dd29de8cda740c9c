"""The report as a page: hostile text is text, nothing is loaded, it works without script."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Snakehook
from reports import HOSTILE, a_phase, an_order, assert_inert, report_of, saying
from standins import Discord, Index

from jail.report.lists import process_entry
from jail.report.page import MAX_OPEN_ROWS, render_page, text_html
from jail.report.rows import MAX_ROWS, process_tree, render_text, sections
from jail.report.text import CUT
from jail.report.verdict import Report
from jail.watch.events import (
    Actor,
    BaitRead,
    Change,
    Code,
    Exec,
    FileChanged,
    NameAsked,
    NotRun,
    Omission,
    Outcome,
    PhaseName,
    Printed,
    ProcessEnded,
    StartupCode,
)

MAX_PAGE_BYTES = 5_000_000
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Page(HTMLParser):
    """What a browser would make of a page: the tags, each attribute's values, the text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.values: dict[tuple[str, str], set[str]] = {}
        self.words: list[str] = []
        self.others: list[str] = []
        self.stack: list[str] = []
        self.feed(page.decode())
        self.close()
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.stack.append(tag)
        for name, value in attributes:
            self.values.setdefault((tag, name), set()).add(value or "")
        if tag == "meta":
            self.stack.pop()

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)


CONTENT = (POLICY, "width=device-width, initial-scale=1", "no-referrer")
ATTRIBUTES = {
    ("html", "lang"): "en",
    ("meta", "charset"): "utf-8",
    ("meta", "http-equiv"): "Content-Security-Policy",
    ("meta", "name"): "viewport|referrer",
    ("meta", "content"): "|".join(map(re.escape, CONTENT)),
    ("header", "class"): "high|medium|unseen|clean",
    ("p", "class"): "missed|dim",
    ("li", "class"): "(high|medium|info|gap|note|dns|tcp|other|created|ok|failed|timeout)? d[0-9]",
    ("pre", "tabindex"): "0",
    ("svg", "viewbox"): "0 0 360 [0-9]+",
    ("svg", "role"): "img",
    ("svg", "aria-label"): "Time line",
    ("g", "class"): "(ok|failed|timeout)( high)?",
    ("g", "transform"): "translate\\(0 [0-9]+\\)",
    ("text", "y"): "[0-9.]+",
    ("rect", "x"): "[0-9.]+",
    ("rect", "y"): "[0-9.]+",
    ("rect", "width"): "[0-9.]+",
    ("rect", "height"): "[0-9.]+",
}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "strong"),
    *("main", "section", "ul", "li", "b", "bdi", "small", "details", "summary", "pre", "footer"),
    *("svg", "g", "text", "rect"),
}


def page_of(report: Report) -> Page:
    """The page of a report, which has our own elements and attributes only."""
    page = Page(render_page(report))
    assert not page.stack
    assert not page.others
    assert set(page.tags) <= ELEMENTS
    once = [page.tags[tag] for tag in ("html", "style", "title", "svg")]
    assert once == [1, 1, 1, 1]
    for where, values in page.values.items():
        assert all(re.fullmatch(ATTRIBUTES[where], value) for value in values), (where, values)
    assert_inert(page.text)
    return page


# --- hostile text ---


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_page_shows_hostile_text_as_text(kind: str) -> None:
    page = page_of(saying(HOSTILE[kind]))
    # Nothing more and nothing less than a harmless word makes, or one so long that titles are cut
    # and alike; where there is no word, rows differ.
    harmless = [page_of(saying(word)).tags for word in ("x", "x" * 10_000)]
    assert page.tags in harmless or kind == "empty"


def test_a_hostile_name_is_text() -> None:
    for said in HOSTILE.values():
        page_of(report_of(order=an_order(package_name=said, version=said)))


def test_a_page_loads_and_runs_nothing() -> None:
    page = render_page(saying("x")).decode()
    assert POLICY in page
    for word in ("script", "@import", "url(", "src=", "href="):
        assert word not in page


def test_whole_lines_of_code_and_output_are_shown() -> None:
    code = "import os\n\tos.system('id') # <b> & \"c\"\nx\x1b[1m"
    stream = Printed(code, len(code))
    report = report_of(
        Code("0", 9, "/x.py:1", True, code), phases=[a_phase(stdout=stream, stderr=stream)]
    )
    shown = "import os\n    os.system('id') # <b> & \"c\"\nx\\x1b[1m"
    assert page_of(report).text.count(shown) == 3


# --- bounds ---


@pytest.mark.parametrize("kind", HOSTILE)
def test_any_number_of_things_makes_a_bounded_page(kind: str) -> None:
    page = render_page(saying(HOSTILE[kind], 500))
    assert len(page) <= MAX_PAGE_BYTES


def test_many_long_texts_make_a_bounded_page() -> None:
    stream = Printed("\"'" * 500_000, 1_000_000)
    codes = [Code(f"{n:064}", 9, "'" * 4096, True, '"' * 65_536) for n in range(500)]
    phases = [
        a_phase(PhaseName.IMPORT, "'" * 300 + str(n), stdout=stream, stderr=stream)
        for n in range(200)
    ]
    page = render_page(report_of(*codes, phases=phases))
    assert len(page) <= MAX_PAGE_BYTES


def test_a_text_that_must_be_cut_keeps_start_and_end() -> None:
    shown = text_html("start" + '"' * 1000 + "end", 600)
    assert len(shown) <= 600
    assert shown.startswith("start&quot;") and shown.endswith("&quot;end")
    assert CUT in shown
    assert text_html("<b>", 100) == "&lt;b&gt;"
    assert text_html("", 0) == ""


def test_what_is_cut_is_counted() -> None:
    report = saying("<x>" * 100, 400)
    page = page_of(report)
    more = re.findall(r"and ([0-9]+) more: the JSON report", page.text)
    total = sum(section.total for section in sections(report))
    assert page.tags["li"] + sum(map(int, more)) == total


def test_the_first_rows_are_open_and_the_others_folded() -> None:
    made = [FileChanged(f"/home/dev/{n}", Change.CREATED, 1, None) for n in range(150)]
    page = render_page(report_of(*made)).decode()
    folded = f"<summary>{MAX_ROWS - MAX_OPEN_ROWS} more</summary>"
    assert folded in page
    assert "and 50 more: the JSON report has them" in page
    assert "<h2>Files <small>150</small></h2>" in page


# --- what matters comes first ---


def header_of(report: Report) -> tuple[str, str]:
    page = render_page(report).decode()
    match = re.search(r'<header class="(\w+)">(.*?)</header>', page, re.DOTALL)
    assert match
    return match[1], re.sub(r"<[^>]*>", "", match[2])


HIGH, MEDIUM = BaitRead("/home/dev/.ssh/id_rsa", "setup.py:6"), StartupCode("/x.pth", "y")


def test_the_verdict_is_the_first_that_is_read() -> None:
    kind, text = header_of(report_of(MEDIUM, HIGH))
    assert kind == "high"
    assert text.split("\n")[1:4] == [
        "high: a-package 1.0",
        "1 high finding",
        "reads or touches /home/dev/.ssh/id_rsa (install, setup.py:6)",
    ]
    assert header_of(report_of(MEDIUM))[0] == "medium"
    kind, text = header_of(report_of())
    assert (kind, "nothing found in install" in text) == ("clean", True)


def test_what_was_not_seen_is_said_beside_what_was_found() -> None:
    not_run = [NotRun(PhaseName.IMPORT, "y", Omission.LEFT_OUT, "one of more than 8")]
    kind, text = header_of(report_of(not_run=not_run))
    assert (kind, "nothing found in install, but not all was seen" in text) == ("unseen", True)
    assert "not run: import y: one of more than 8" in text
    kind, text = header_of(report_of(HIGH, not_run=not_run))
    assert (kind, "not all was seen: not run: import y" in text) == ("high", True)
    assert header_of(report_of(phases=[]))[1].split("\n")[2] == "could not be installed"


def test_a_missing_console_script_is_a_note_and_no_gap() -> None:
    reason = "the distribution declares no console script"
    not_run = [NotRun(PhaseName.EXECUTE, None, Omission.NOTHING_THERE, reason)]
    report = report_of(not_run=not_run)
    assert header_of(report)[0] == "clean"
    assert f"execute: {reason}" in page_of(report).text


def test_findings_come_before_the_time_line_and_that_before_the_rest() -> None:
    page = render_page(report_of(HIGH, NameAsked("x.example", Actor(7)))).decode()
    titles = re.findall(r"<h2>([A-Za-z ]*[A-Za-z])", page)
    assert titles == ["Findings", "Time line", "Hosts", "Phases"]


def test_what_was_not_seen_has_no_box_and_is_named_in_one_line() -> None:
    page = page_of(report_of())
    assert page.tags["section"] == 2  # the time line, the phases
    assert "None seen: Findings, URLs, Hosts, Processes, Files, Code made at run time" in page.text
    assert "None seen" not in page_of(saying("x")).text


def test_code_is_shown_where_it_is_a_finding_and_generated_code_is_not() -> None:
    made = [Code(f"{n:064}", 9, f"/x.py:{n}", False, f"class Plain{n}: pass") for n in range(3)]
    busy = Code("8" * 64, 9, "/x.py:8", False, "import subprocess\nsubprocess.run(x)")
    decoded = Code("9" * 64, 9, "/x.py:9", True, "import evil")
    report = report_of(*made, busy, decoded)
    page = page_of(report)
    assert "Code made at run time 2" in page.text
    assert "Plain" not in page.text
    assert page.text.index("import evil") < page.text.index("subprocess.run")
    # The report for programs has all of it.
    graves = [item["severity"] for item in report.lists["code"]]
    assert graves == ["info", "info", "info", "medium", "high"]
    assert "made at run time (" not in render_text(report_of(*made)).decode()


def test_one_act_is_one_row_that_tells_all_of_it() -> None:
    actor = Actor(7, "python", "/x.py:3")
    asked = [NameAsked(f"n{number}.example", actor) for number in range(3)]
    page = page_of(report_of(*asked))
    # Of hosts as many as there is room for: the first may be everybody's.
    assert "asks for the name n0.example; asks for the name n1.example; asks" in page.text
    assert "n0.example\nasks for the name n1.example\nasks for the name n2.example" in page.text
    assert "install, /x.py:3, 3 times, network.attempt" in page.text


def test_the_time_line_has_a_bar_for_each_phase() -> None:
    phases = [
        a_phase(duration_sec=1.0),
        a_phase(PhaseName.IMPORT, "x", Outcome.TIMEOUT, None, duration_sec=3.0),
        a_phase(PhaseName.IMPORT, "y", duration_sec=0.0),
    ]
    page = page_of(report_of((phases[1], HIGH), phases=phases))
    for words in ("install: ok, 1.0 s", "import x: timeout, 3.0 s, 1 high", "import y: ok, 0.0 s"):
        assert words in page.text
    assert page.values["g", "class"] == {"ok", "timeout high"}
    assert page.values["rect", "width"] == {"90.0", "270.0", "3.0"}
    assert page.values["rect", "x"] == {"0.0", "90.0", "357.0"}


# --- processes ---


def test_processes_nested_deeper_than_python_recurses() -> None:
    chain = [ProcessEnded(n + 7, n + 6, ("sh",), 0, None, False, True) for n in range(2_000)]
    items = [process_entry(a_phase(), process).item for process in chain]
    assert [row.depth for row in process_tree(items)] == [*range(2_000)]


def test_the_tree_of_processes() -> None:
    install = a_phase()
    one, two, three = (a_phase(PhaseName.IMPORT, name) for name in ("one", "two", "three"))

    def process(pid: int, ppid: int, words: str, own: bool = False) -> ProcessEnded:
        return ProcessEnded(pid, ppid, tuple(words.split()), 0, None, own, True)

    report = report_of(
        (install, process(6, 0, "launch.py", own=True)),
        (install, process(7, 6, f"pip install {'--option ' * 20}", own=True)),
        (install, process(8, 7, "uname", own=True)),
        (install, process(9, 7, "python setup.py egg_info")),
        (install, process(10, 7, "other")),
        (install, process(11, 9, "sh")),
        (install, process(12, 12, "ring")),
        (install, process(13, 14, "before its parent")),
        (install, process(14, 13, "parent")),
        (one, process(6, 0, "launch.py", own=True)),
        (one, process(7, 6, "first")),
        (one, process(8, 7, "child of the first")),
        (two, process(7, 6, "second")),
        (two, process(8, 7, "child of the second")),
        (three, process(7, 6, "python -c of the launcher", own=True)),
        mode="import",
        phases=[install, one, two, three],
    )
    rows = process_tree(report.lists["processes"])
    assert [(row.depth, row.what) for row in rows] == [
        (0, f"pip install {'--option ' * 6}--op…"),
        (1, "python setup.py egg_info"),
        (2, "sh"),
        (1, "other"),
        (0, "ring"),
        (0, "before its parent"),
        (1, "parent"),
        (0, "first"),
        (1, "child of the first"),
        (0, "second"),
        (1, "child of the second"),
    ]


def test_how_processes_ended() -> None:
    ends = [
        (0, None, "exit 0"),
        (None, "SIGKILL", "killed by SIGKILL"),
        (None, None, "no end seen"),
    ]
    events = [
        ProcessEnded(n, 0, ("x", str(n)), code, signal, False, True)
        for n, (code, signal, _) in enumerate(ends, 7)
    ]
    rows = process_tree(report_of(*events).lists["processes"])
    assert [row.about.rpartition(", ")[2] for row in rows] == [words for _, _, words in ends]


def test_a_command_of_many_words_is_bounded() -> None:
    words = tuple("w" * 4000 for _ in range(600))
    event = Exec("/bin/true", words, None, Actor(7))
    ended = ProcessEnded(7, 0, words, 0, None, False, True)
    assert len(render_page(report_of(event, ended))) < 20_000


# --- from a package to terminal, page and message ---

HOSTILE_PACKAGE = """
import base64, os, socket, subprocess, sys
said = {said!r}
for text in said:
    raw = text.encode("utf-8", "surrogatepass")
    os.write(1, raw + b"\\n")
    os.write(2, raw + b"\\n")
    name = raw[:200].replace(b"/", b"").replace(b"\\0", b"")
    with open(b"/home/dev/.x" + name, "wb") as file:
        file.write(raw)
    subprocess.run([b"/bin/true", raw[:1000].replace(b"\\0", b"")], check=False)
    code = "text = 1  # " + " ".join(text.replace("\\0", "").split())
    exec(base64.b64decode(base64.b64encode(code.encode("utf-8", "replace"))))
    try:
        socket.getaddrinfo(raw[:50].replace(b"\\0", b"") + b".example", 80)
    except (OSError, ValueError):
        pass
raise SystemExit(said[0])
"""


def test_what_a_package_says_acts_nowhere(
    snakehook: Snakehook, jail: None, index: Index, discord: Discord, tmp_path: Path
) -> None:
    all_in_one = f"{HOSTILE['bidi']} r\u0435quests @everyone ` <script>alert(1)</script> \x1b[2J"
    said = [all_in_one, *(text for text in HOSTILE.values() if len(text) < 10_000)]
    index.add_wheel("hostile", "1.0", {"hostile.py": HOSTILE_PACKAGE.format(said=said)})
    page = tmp_path / "page.html"
    program = snakehook.with_settings(DISCORD_WEBHOOK_URL=discord.url)
    done = program.run("triage", "hostile", "1.0", "--mode", "import", "--html", str(page))
    assert done.returncode == 1, done.stderr
    assert discord.refusals == []
    (message,) = discord.messages
    assert message.payload["allowed_mentions"] == {"parse": []}
    assert_inert(done.stdout)
    assert_inert(done.stderr)
    for text in (done.stdout, Page(page.read_bytes()).text, str(message.payload["embeds"])):
        assert "@everyone" in text
        assert "<script>alert(1)</script>" in text
        assert "\\u202ecod.exe" in text
        assert "\\u0435quests" in text
    assert len(done.stdout) < 200_000
    assert page.stat().st_size < 1_000_000
