"""The report on Discord: what matters first, nothing that acts, within all of Discord's limits."""

import json
import re
import socket
import urllib.request
from typing import Any

import pytest
from reports import HOSTILE, INDEX_URL, a_phase, an_order, assert_inert, report_of, saying
from standins import Discord

from jail.orders import Machine
from jail.report.message import (
    MAX_EMBED_BYTES,
    MAX_EMBED_UNITS,
    MAX_FIELD_UNITS,
    SERVICE_UNITS,
    code_span,
    fallback_embed,
    project_page,
    render_embed,
    units,
)
from jail.report.verdict import Report
from jail.watch import main as watch_main
from jail.watch.dropped import Dropped
from jail.watch.events import (
    Actor,
    BaitRead,
    Code,
    Event,
    Exec,
    NameAsked,
    NotRun,
    Omission,
    Outcome,
    PhaseName,
    Printed,
    StartupCode,
)
from jail.watch.evidence import Evidence
from jail.watch.main import send_report
from jail.watch.outlet import Outlet
from jail.watch.world_events import Payload, Request

HIGH, MEDIUM = BaitRead("/home/dev/.ssh/id_rsa", "setup.py:6"), StartupCode("/x.pth", "y")
INFO = Code("0", 1, None, False, "x")


def embed_of(report: Report, default_index: bool = True) -> dict[str, Any]:
    return render_embed(report, INDEX_URL, default_index)


def size(embed: dict[str, Any]) -> int:
    """What Discord counts at most of an embed."""
    texts = [embed["title"], embed["description"], embed["footer"]["text"]]
    for field in embed["fields"]:
        texts += [field["name"], field["value"]]
    return sum(map(units, texts))


def post(discord: Discord, embed: dict[str, Any]) -> int:
    payload = {"embeds": [embed], "allowed_mentions": {"parse": []}}
    request = urllib.request.Request(  # noqa: S310 - the stand-in
        f"{discord.url}?wait=true",
        data=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "DiscordBot (test, 0)"},
    )
    with urllib.request.build_opener(urllib.request.HTTPErrorProcessor).open(request) as answer:
        status: int = answer.status
    return status


def assert_quoted(embed: dict[str, Any]) -> None:
    """In a code block or span nothing acts; outside of them are our words only."""
    for text in (embed["description"], *(field["value"] for field in embed["fields"])):
        assert text.strip()
        assert_inert(text)
        outside = re.sub(r"```\n[^`]*\n```|`[^`]+`", "", text)
        assert re.fullmatch(r"[A-Za-z0-9_ ,.:…*\n🔴🟠🟡🟢⚪⚠️]*", outside), outside


@pytest.mark.parametrize("count", [1, 3, 500])
@pytest.mark.parametrize("kind", HOSTILE)
def test_discord_takes_hostile_reports(discord: Discord, kind: str, count: int) -> None:
    embed = embed_of(saying(HOSTILE[kind], count))
    assert post(discord, embed) == 200
    assert size(embed) <= MAX_EMBED_UNITS - SERVICE_UNITS
    assert len(json.dumps(embed)) <= MAX_EMBED_BYTES
    assert all(units(field["value"]) <= MAX_FIELD_UNITS for field in embed["fields"])
    assert_quoted(embed)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("default_index", [True, False])
def test_discord_takes_any_name(discord: Discord, kind: str, default_index: bool) -> None:
    order = an_order(package_name=HOSTILE[kind], version=HOSTILE[kind])
    embed = embed_of(report_of(order=order), default_index)
    assert re.fullmatch(r"🟢 clean: [A-Za-z0-9.+! ?-]{1,246}", embed["title"])
    assert units(embed["title"]) <= 256
    assert post(discord, embed) == 200


@pytest.mark.parametrize("kind", ["astral", "quotes", "backticks", "combining", "html"])
def test_every_list_has_its_place(kind: str) -> None:
    names = [
        field["name"].rpartition(" ")[0] for field in embed_of(saying(HOSTILE[kind], 500))["fields"]
    ]
    first = [
        "Findings",
        "URLs",
        "Hosts",
        "Commands",
        "Files",
        "Code made at run time",
        "Not covered",
    ]
    assert names == [*first, "Phases", "Downloads"]


def test_urls_are_defanged_in_a_code_span_where_no_program_takes_them_for_one() -> None:
    body = Payload(0, "", "")
    url = "https://discord.com/api/webhooks/1/a.b"
    request = Request("24.1.2.3:443", 0, "POST", url, (), body, 204)
    shown = json.dumps(embed_of(report_of(request)))
    assert "`POST hxxps://discord[.]com/api/webhooks/1/a.b" in shown
    assert url not in shown


def test_nothing_makes_no_empty_fields() -> None:
    assert [field["name"] for field in embed_of(report_of())["fields"]] == ["Phases (1)"]


NO_MODULE = Printed("Traceback\nModuleNotFoundError: No module named 'x`y'\n", 9)
TOOL = a_phase(PhaseName.EXECUTE, "tool", Outcome.FAILED, 1, stderr=NO_MODULE)
ENDED_BADLY: dict[str, Any] = {"mode": "execute", "phases": [a_phase(), TOOL]}
WHY = r"failed: execute tool: exit code 1: ModuleNotFoundError: No module named 'x\x60y'"


@pytest.mark.parametrize(
    ("events", "more", "start", "colour"),
    [
        ([HIGH, MEDIUM], {}, "🔴 **1 high finding**: `reads or touches", 0xC62828),
        ([MEDIUM, INFO], {}, "🟠 **1 medium finding**: `/x.pth runs code", 0xEF6C00),
        ([INFO], {"kernel_witness": False}, "🟡 **nothing found in install, but not", 0xF9A825),
        ([], {"phases": []}, "🟡 **could not be installed**: `error: nothing was run`", 0xF9A825),
        ([INFO], {}, "🟢 **nothing found in install**\n", 0x2E7D32),
        # A green run that did not end well says why.
        ([], ENDED_BADLY, f"🟢 **nothing found in install, execute**: `{WHY}`\n", 0x2E7D32),
        ([MEDIUM], ENDED_BADLY, "🟠 **1 medium finding**: `/x.pth runs code", 0xEF6C00),
    ],
)
def test_the_verdict_comes_first(
    events: list[Event], more: dict[str, Any], start: str, colour: int
) -> None:
    embed = embed_of(report_of(*events, **more))
    assert embed["description"].startswith(start)
    assert embed["color"] == colour
    *_, summary = embed["description"].splitlines()
    assert summary.startswith(f"mode {more.get('mode', 'install')}, outcome ")


def test_an_orange_run_that_did_not_end_well_says_why_below_what_is_worse() -> None:
    embed = embed_of(report_of(MEDIUM, **ENDED_BADLY))
    assert embed["description"].splitlines()[1] == f"⚠️ `{WHY}`"


def test_a_grave_report_says_what_was_not_seen() -> None:
    not_run = [NotRun(PhaseName.IMPORT, "y", Omission.LEFT_OUT, "one of more than 8")]
    embed = embed_of(report_of(HIGH, not_run=not_run))
    second = embed["description"].splitlines()[1]
    assert second == "⚠️ `not all was seen: not run: import y: one of more than 8`"


def test_the_worst_of_each_list_is_shown_and_the_others_are_counted() -> None:
    asked = [NameAsked(f"n{number}.example", Actor(7, "python")) for number in range(90)]
    ran = [Exec("/bin/true", ("true", str(number)), None, Actor(7)) for number in range(90)]
    embed = embed_of(report_of(*asked, *ran, HIGH, Code("0", 9, "/x.py:1", True, "a `b`\nc")))
    values = {field["name"]: field["value"] for field in embed["fields"]}
    findings = values["Findings (182)"].splitlines()
    circumstances = "install, setup.py:6, secret.read T1552.001"
    assert findings[0] == f"🔴 `reads or touches /home/dev/.ssh/id_rsa ({circumstances})`"
    assert "executes decoded code" in findings[1]
    assert re.fullmatch("… and [0-9]+ more", findings[-1])
    assert values["Commands (90)"].startswith("`true 0 (install)`\n`true 1 (install)`")
    assert values["Code made at run time (1)"].endswith("\n```\na \\x60b\\x60\nc\n```")


def test_a_code_span_is_never_empty_and_never_left() -> None:
    assert code_span("", 10) == "` `"
    assert code_span("a`b", 10) == "`a\\x60b`"
    assert code_span("x" * 20, 10) == "`xxxxxxxxx…`"


def test_units_are_those_of_utf_16() -> None:
    assert (units("a"), units("ä"), units("\U0001f40d"), units("\ud800")) == (1, 1, 2, 1)


def test_the_title_leads_to_the_project() -> None:
    order = an_order(package_name="a-package", version="1!2.0+x")
    site = project_page(order, "https://index.example/simple", True)
    assert site == "https://index.example/project/a-package/1!2.0+x/"
    page = project_page(order, "https://index.example/simple", False)
    assert page == "https://index.example/simple/a-package/"


def test_the_phases_are_in_there() -> None:
    phases = [a_phase(stdout=Printed("x", 1)), a_phase(PhaseName.IMPORT, "x")]
    fields = embed_of(report_of(mode="import", phases=phases))["fields"]
    assert fields == [
        {
            "name": "Phases (2)",
            "value": "ok `install (exit 0, 1.5 s)`\nok `import x (exit 0, 1.5 s)`",
        }
    ]


def test_there_is_a_message_when_drawing_failed(discord: Discord) -> None:
    embed = fallback_embed(an_order(), "time`out")
    assert post(discord, embed) == 200
    assert "ab" * 16 in embed["footer"]["text"]
    assert embed["description"] == "time?out: see the JSON report."


def test_a_defect_of_ours_costs_the_looks_but_not_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(report: Report) -> bytes:
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(watch_main, "render_page", fail)
    near, far = socket.socketpair()
    machine = Machine("", None, "", "", "", INDEX_URL, True)
    send_report(report_of(HIGH), Evidence(), Dropped(), machine, Outlet(near))
    near.close()
    with far, far.makefile("rb") as frames:
        sent = {}
        for line in frames:
            name, length = line.split()
            sent[name.decode()] = frames.read(int(length))
    assert [*sent] == ["summary", "report", "evidence", "dropped", "acts", "complaint", "embed"]
    assert b"a defect of ours" in sent["complaint"]
    assert json.loads(sent["embed"])["title"] == "A report that can't be shown"
    assert json.loads(sent["report"])["findings"]
