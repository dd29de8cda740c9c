"""How people see a report: nothing that a package says acts, nothing is without bound, and no report is lost."""

import json
import re
import urllib.request
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import Snakehook
from standins import Discord, Index

import snakehook

HOSTILE = {
    "html": "</pre></li><script>alert(1)</script><img src=x onerror=alert(1)><!--<style>*{}</style>",
    "attribute": "\"' onclick=alert(1) x=\"'><svg/onload=alert(1)>&lt;b&gt;&#60;i&#62;",
    "template": "$head ${kind} $$ {0} %s <!-- report -->",
    "markdown": "**b** __u__ ~~s~~ ||spoiler|| # h\n> q\n- l\n[click](http://evil.example) <http://evil.example> \\",
    "backticks": "`a` ``b`` ```c\nd``` `",
    "mentions": "@everyone @here <@1> <@&2> <#3> <:a:4> <t:0:R> </a:5>",
    "ansi": "\x1b[2J\x1b]0;title\x07\x1b[31mred\x9b1A\x08\x7f\r",
    "bidi": "\u202ecod.exe\u2066\u200f\u061c\u200b\ufeff",
    "surrogates": "\ud800 \udfff \udc80",
    "nul": "a\0b\0",
    "separators": "a\nb\u2028c\u2029d\x85e\x0bf\x0cg\x1ch",
    "astral": "\U0001f40d" * 5000,
    "combining": "z" + "\u0301" * 5000,
    "empty": "",
    "blank": " \t ",
    "long": "A" * 10_000_000,
    "quotes": "\"'&<>" * 100_000,
    "folders": "/opt/snakehook/work/site/x/" * 10_000 + "evil",
}
LISTS = ("findings", "network", "processes", "files", "code", "downloads")
TAGS = Counter[str]
SANDBOX = snakehook.Sandbox("", "", Path("/"), "", "https://index.example/simple", True, True)


def items(said: str, number: int = 0) -> dict[str, dict[str, Any]]:
    """One item of each list in which everything that a package has a say in is `said`."""
    return {
        "findings": {
            "severity": snakehook.SEVERITIES[number % 3],
            "rule": ("network.attempt", "process.spawn")[number % 2],
            "phase": "install",
            "title": said,
            "at": said,
            "process": said,
            "trigger": None,
        },
        "network": {
            "phase": "install",
            "kind": "dns",
            "target": said,
            "process": said,
            "place": said,
            "witness": ["kernel", "python"],
        },
        "processes": {
            "phase": "install",
            "pid": number + 7,
            "ppid": number + 6,
            "argv": [said, said],
            "exit_code": None,
            "signal": None,
            "own": False,
        },
        "files": {"phase": "install", "path": said, "change": "created", "bytes": None},
        "code": {"phase": "install", "sha256": "ab" * 32, "bytes": 3, "at": said, "text": said},
        "downloads": {"file": said, "bytes": 3, "sha256": "cd" * 32, "from_cache": False},
    }


def report(**changes: Any) -> snakehook.Report:
    """A finished report with nothing in it."""
    coverage = {"kernel_witness": True, "python_witness": True, "dropped_events": 0, "not_run": [], "notes": []}
    fields = {"finished_at": "2026-01-01T00:00:03+00:00", "outcome": "ok", "coverage": coverage} | changes
    fields["coverage"] = coverage | fields["coverage"]
    fields.setdefault("phases", [snakehook.Phase("install", None, "ok", 0, None, 1.5)])
    request = snakehook.TriageRequest("a-package", "1.0", "install")
    return snakehook.Report("ab" * 16, "finished", request, "2026-01-01T00:00:00+00:00", **fields)


def saying(said: str, count: int = 1) -> snakehook.Report:
    """A report in which a package says `said` wherever it can, `count` times in each list."""
    found = [items(said, number) for number in range(count)]
    output = {"text": said, "bytes": len(said) + 1, "truncated": True}
    phase = snakehook.Phase("import", said, "failed", 1, None, 0.5, output, output)
    return report(
        outcome="failed",
        reason=said,
        phases=[phase] * min(count, 2 * snakehook.MAX_TRIGGERS + 2),
        coverage={"not_run": [said] * count, "notes": [said] * count, "dropped_events": 7},
        delivery=snakehook.Delivery("refused", 1, said),
        **{name: [one[name] for one in found] for name in LISTS},
    )


@pytest.fixture(params=HOSTILE)
def said(request: pytest.FixtureRequest) -> str:
    text: str = HOSTILE[request.param]
    return text


# --- nothing that acts, to the eye or to a terminal -------------------------------------------------------------------


def assert_inert(text: str) -> None:
    bad = {char for char in set(text) if not (char.isprintable() or char == "\n")}
    assert not bad, f"characters that act: {sorted(map(hex, map(ord, bad)))}"


class Page(HTMLParser):
    """What a browser would make of a page: how often each tag, each attribute's values, the text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: TAGS = Counter()
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


CONTENT = (
    "default-src 'none'; style-src 'unsafe-inline'",
    "width=device-width, initial-scale=1",
    "no-referrer",
)
ATTRIBUTES = {
    ("html", "lang"): "en",
    ("meta", "charset"): "utf-8",
    ("meta", "http-equiv"): "Content-Security-Policy",
    ("meta", "name"): "viewport|referrer",
    ("meta", "content"): "|".join(map(re.escape, CONTENT)),
    ("header", "class"): "high|medium|unseen|clean",
    ("p", "class"): "missed|dim",
    ("li", "class"): "(high|medium|info|gap|note|dns|tcp|other|created|ok|failed)? d[0-9]",
    ("svg", "viewbox"): "0 0 360 [0-9]+",
    ("svg", "role"): "img",
    ("svg", "aria-label"): "Time line",
    ("g", "class"): "(ok|failed)( high)?",
    ("g", "transform"): "translate\\(0 [0-9]+\\)",
    **{(tag, name): "[0-9.]+" for tag in ("text", "rect") for name in ("x", "y", "width", "height")},
}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "strong", "main", "section"),
    *("ul", "li", "b", "small", "details", "summary", "pre", "footer", "svg", "g", "text", "rect"),
}


def page_of(about: snakehook.Report | bytes) -> Page:
    """The page of a report, which has our own elements and attributes only."""
    page = Page(about if isinstance(about, bytes) else snakehook.render_html(about))
    assert not page.stack
    assert not page.others
    assert set(page.tags) <= ELEMENTS
    assert (page.tags["html"], page.tags["style"], page.tags["title"], page.tags["svg"]) == (1, 1, 1, 1)
    for where, values in page.values.items():
        assert all(re.fullmatch(ATTRIBUTES[where], value) for value in values), (where, values)
    assert_inert(page.text)
    return page


def test_page_shows_hostile_text_as_text(said: str) -> None:
    page, empty = page_of(saying(said)), page_of(saying("x"))
    assert page.tags == empty.tags  # nothing more and nothing less than a harmless word makes


def test_page_loads_and_runs_nothing() -> None:
    page = snakehook.render_html(saying("x")).decode()
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert "script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_page_shows_whole_lines_of_code_and_output() -> None:
    code = "import os\n\tos.system('id') # <b> & \"c\"\nx\x1b[1m"
    about = saying("x")
    about.code[0]["text"] = about.phases[0].stdout["text"] = code
    page = page_of(about)
    assert page.text.count("import os\n    os.system('id') # <b> & \"c\"\nx\\x1b[1m") == 3  # code, stdout, stderr


def test_terminal_shows_hostile_text_as_text(said: str) -> None:
    text = snakehook.render_text(saying(said))
    assert_inert(text)
    assert len(text) < 200_000
    assert text.count("\nFindings (1)\n") == 1


def test_terminal_keeps_each_text_on_its_own_lines() -> None:
    lines = snakehook.render_text(saying("x\nFindings (9)\nhigh     forged")).splitlines()
    assert [line for line in lines if line.startswith(("Findings", "high"))] == ["Findings (1)"]


def test_a_defect_of_ours_costs_the_looks_but_not_the_report(
    monkeypatch: pytest.MonkeyPatch, discord: Discord, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(snakehook, "html_timeline")
    message, page, evidence = snakehook.shown(saying("x"), SANDBOX, [])
    assert (page, evidence) == (b"", b"")
    assert post(discord, json.dumps(message).encode(), "application/json") == 200
    assert "ab" * 16 in message["embeds"][0]["footer"]["text"]
    assert "its report can't be shown" in caplog.text


def test_everything_is_encodable(said: str) -> None:
    snakehook.render_text(saying(said)).encode()
    json.dumps(snakehook.discord_message(saying(said), SANDBOX), ensure_ascii=False).encode()


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, snakehook.MAX_LIST_ITEMS])
@pytest.mark.parametrize("kind", ["html", "quotes", "long", "astral", "blank"])
def test_any_number_of_things_makes_a_bounded_report(kind: str, count: int) -> None:
    about = saying(HOSTILE[kind], count)
    page, text = snakehook.render_html(about), snakehook.render_text(about)
    assert len(page) < 8_000_000
    assert len(text) < 1_500_000
    assert units(snakehook.discord_message(about, SANDBOX)) <= 6000
    assert f"<h2>Hosts <small>{count}</small></h2>" in page.decode()
    assert f"\nHosts ({count})\n" in text
    assert_inert(text)


def test_what_is_cut_is_counted() -> None:
    about = saying("<x>" * 100, 1_000)
    page = page_of(about)
    shown = page.tags["li"] + sum(map(int, re.findall(r"and ([0-9]+) more: the JSON report", page.text)))
    gaps = 1 + 1 + 1_000 + 1_000  # the outcome, dropped events, not run, notes
    assert shown == 1_000 * len(LISTS) + len(about.phases) + gaps
    assert "and 900 more" in snakehook.render_text(about)


def test_processes_nested_deeper_than_python_recurses() -> None:
    about = saying("sh", 2_000)
    assert [row.depth for row in snakehook.process_tree(about)] == [*range(2_000)]


def test_process_tree() -> None:
    def process(jail: str, pid: int, ppid: int, words: str, *, own: bool = False) -> dict[str, Any]:
        phase, _, trigger = jail.partition(" ")
        about = {"phase": phase, "trigger": trigger, "pid": pid, "ppid": ppid, "own": own}
        return {**about, "argv": words.split(), "exit_code": 0, "signal": None}

    rows = snakehook.process_tree(
        report(
            processes=[
                process("install", 6, 0, "launch.py", own=True),
                process("install", 7, 6, f"pip install {'--option ' * 20}", own=True),
                process("install", 8, 7, "uname", own=True),
                process("install", 9, 7, "python setup.py egg_info"),
                process("install", 10, 7, "other"),
                process("install", 11, 9, "sh"),
                process("install", 12, 12, "ring"),
                process("install", 13, 14, "before its parent"),
                process("install", 14, 13, "parent"),
                process("import one", 6, 0, "launch.py", own=True),
                process("import one", 7, 6, "first"),
                process("import one", 8, 7, "child of the first"),
                process("import two", 7, 6, "second"),
                process("import two", 8, 7, "child of the second"),
                process("import three", 7, 6, "python -c of the launcher", own=True),
            ]
        )
    )
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


# --- what matters comes first -----------------------------------------------------------------------------------------


def finding(severity: str, title: str, rule: str = "network.attempt") -> dict[str, Any]:
    about = {"severity": severity, "rule": rule, "title": title, "at": "setup.py:6", "process": "python"}
    return items("x")["findings"] | about


def looks(about: snakehook.Report) -> tuple[str, str, str, int]:
    """The kind of a report, how it starts in a terminal and on Discord, and the colour there."""
    embed = snakehook.discord_message(about, SANDBOX)["embeds"][0]
    kind = page_of(about).values["header", "class"]
    terminal = snakehook.render_text(about).partition("\nmode ")[0]
    return kind.pop(), terminal, embed["description"].split("\n")[0], embed["color"]


def test_the_worst_finding_comes_first() -> None:
    found = [
        finding("info", "c"),
        finding("medium", "b"),
        finding("high", "asks for evil.example.com"),
        finding("high", "d"),
    ]
    kind, terminal, discord, colour = looks(report(findings=found))
    assert kind == "high"
    assert terminal == "a-package 1.0: 2 high findings: asks for evil.example.com (install, setup.py:6)"
    assert discord == "🔴 **2 high findings**: `asks for evil.example.com (install, setup.py:6)`"
    assert colour == 0xC62828
    rows = snakehook.sections(report(findings=found))["Findings"]
    assert [row.mark for row in rows] == ["high", "high", "medium", "info"]


def test_a_flood_of_one_rule_hides_no_other() -> None:
    flood = [finding("high", f"connects to {number}") for number in range(400)]
    rare = [finding("high", "reads a secret", "secret.read"), finding("high", "writes .bashrc", "persistence.write")]
    about = report(findings=[*flood, *rare, finding("info", "runs uname", "process.spawn")])
    first = ["reads a secret", "writes .bashrc", "connects to 0", "connects to 1"]
    assert [row.what for row in snakehook.sections(about)["Findings"]][:4] == first
    value = snakehook.discord_message(about, SANDBOX)["embeds"][0]["fields"][0]["value"]
    assert all(title in value for title in first)
    assert looks(about)[2].startswith("🔴 **402 high findings**: `reads a secret")


def test_medium_findings_are_not_high_ones() -> None:
    kind, terminal, discord, _ = looks(report(findings=[finding("info", "c"), finding("medium", "b")]))
    assert (kind, "1 medium finding: b" in terminal, discord[0]) == ("medium", True, "🟠")


@pytest.mark.parametrize("found", [[], [finding("info", "c")]])
def test_clean_says_what_was_looked_at(found: list[dict[str, Any]]) -> None:
    kind, terminal, discord, colour = looks(report(findings=found))
    assert kind == "clean"
    assert terminal == "a-package 1.0: nothing found in install"
    assert (discord, colour) == ("🟢 **nothing found in install**", 0x2E7D32)


def test_a_missing_console_script_is_no_gap() -> None:
    about = report(coverage={"not_run": ["execute: the distribution declares no console script"]})
    assert looks(about)[0] == "clean"
    assert "declares no console script" in page_of(about).text


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"coverage": {"kernel_witness": False}}, "kernel witness was off"),
        ({"coverage": {"python_witness": False}}, "Python witness was silent"),
        ({"coverage": {"dropped_events": 3}}, "3 events were dropped"),
        ({"coverage": {"not_run": ["execute tool: one of more than 8"]}}, "not run: execute tool"),
        ({"outcome": "timeout", "reason": "install: stopped after 45 s"}, "timeout: install: stopped"),
        ({"outcome": "error", "reason": "no jail", "phases": []}, "could not be installed"),
        ({"outcome": None, "phases": []}, "could not be installed"),
    ],
)
@pytest.mark.parametrize("severity", ["", "high"])
def test_what_was_not_seen_is_never_clean(changes: dict[str, Any], words: str, severity: str) -> None:
    about = report(**changes | {"findings": [finding(severity, "t")] if severity else []})
    kind, terminal, discord, colour = looks(about)
    description = snakehook.discord_message(about, SANDBOX)["embeds"][0]["description"]
    if severity:
        assert kind == "high"
        assert "not all was seen" in description
        assert "not all was seen" in page_of(about).text
        assert "not all was seen" in terminal
    else:
        assert (kind, discord[0], colour) == ("unseen", "🟡", 0xF9A825)
        assert words in terminal
        assert words in description
        assert words in page_of(about).text


# --- Discord ----------------------------------------------------------------------------------------------------------


def units(message: dict[str, Any]) -> int:
    """What Discord counts at most of an embed: UTF-16 units."""
    embed = message["embeds"][0]
    texts = [embed["title"], embed["description"], embed["footer"]["text"]]
    texts += [text for field in embed["fields"] for text in (field["name"], field["value"])]
    return sum(len(text.encode("utf-16-le")) // 2 for text in texts)


def post(discord: Discord, body: bytes, kind: str) -> int:
    request = urllib.request.Request(  # noqa: S310 - the stand-in
        discord.url + "?wait=true", data=body, headers={"Content-Type": kind, "User-Agent": "DiscordBot (test, 0)"}
    )
    with urllib.request.build_opener(urllib.request.HTTPErrorProcessor).open(request, timeout=20) as answer:
        status: int = answer.status
    return status


@pytest.mark.parametrize("count", [1, 3, 600])
def test_discord_takes_hostile_reports(discord: Discord, said: str, count: int) -> None:
    message = snakehook.discord_message(saying(said, count), SANDBOX)
    assert post(discord, json.dumps(message).encode(), "application/json") == 200
    assert message["allowed_mentions"] == {"parse": []}
    assert units(message) <= 6000
    assert_quoted(message["embeds"][0])


def assert_quoted(embed: dict[str, Any]) -> None:
    """In a code block or span nothing acts; outside of them are our words only."""
    for text in (embed["description"], *(field["value"] for field in embed["fields"])):
        assert text.strip()
        assert len(text.encode("utf-16-le")) // 2 <= (4096 if text == embed["description"] else 1024)
        assert_inert(text)
        outside = re.sub(r"```\n[^`]*\n```|`[^`]+`", "", text)
        assert re.fullmatch(r"[A-Za-z0-9 ,.:…*\n🔴🟠🟡🟢⚪⚠️]*", outside), outside


@pytest.mark.parametrize("default_index", [True, False])
def test_discord_takes_any_name(discord: Discord, said: str, default_index: bool) -> None:
    about = report()
    about.request = replace(about.request, package_name=said, version=said)
    message = snakehook.discord_message(about, replace(SANDBOX, default_index=default_index))
    assert re.fullmatch(r"[A-Za-z0-9.+! ?-]{1,256}", message["embeds"][0]["title"])
    assert post(discord, json.dumps(message).encode(), "application/json") == 200


@pytest.mark.parametrize("kind", ["astral", "quotes", "backticks", "combining"])
def test_every_list_has_its_place_on_discord(kind: str) -> None:
    about = saying(HOSTILE[kind], 500)
    about.request = replace(about.request, package_name="x" * 300)
    message = snakehook.discord_message(about, SANDBOX)
    names = [field["name"] for field in message["embeds"][0]["fields"]]
    first = ["Findings (500)", "Hosts (500)", "Commands (250)", "Files (500)", "Decoded code (500)"]
    assert names == [*first, "Not covered (1002)", "Phases (18)", "Downloads (500)"]
    assert units(message) <= 5500  # the rest is for `attach`


def test_nothing_makes_no_empty_fields() -> None:
    fields = snakehook.discord_message(report(), SANDBOX)["embeds"][0]["fields"]
    assert [field["name"] for field in fields] == ["Phases (1)"]


# --- from a package to all three --------------------------------------------------------------------------------------

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
    all_in_one = f"{HOSTILE['bidi']} @everyone ` <script>alert(1)</script> \x1b[2J"
    said = [all_in_one, *(text for kind, text in HOSTILE.items() if kind not in ("quotes", "folders"))]
    index.add_wheel("hostile", "1.0", {"hostile.py": HOSTILE_PACKAGE.format(said=said)})
    program, page = snakehook.with_settings(DISCORD_WEBHOOK_URL=discord.url), tmp_path / "page.html"
    done = program.run("triage", "hostile", "1.0", "--mode", "import", "--html", str(page))
    assert done.returncode == 1, done.stderr
    assert discord.refusals == []
    (message,) = discord.messages
    assert message.payload["allowed_mentions"] == {"parse": []}
    assert_quoted(message.payload["embeds"][0])
    assert_inert(done.stdout)
    assert_inert(done.stderr)
    for text in (done.stdout, page_of(page.read_bytes()).text, str(message.payload["embeds"])):
        assert "@everyone" in text
        assert "<script>alert(1)</script>" in text
        assert "\\u202ecod.exe" in text
    assert len(done.stdout) < 200_000
    assert page.stat().st_size < 1_000_000
