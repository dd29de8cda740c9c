"""The report as one Discord embed, within Discord's limits. Nothing in it acts but our words."""

import json
import re
from typing import Any
from urllib.parse import quote, urlsplit

from jail.orders import Order
from jail.report.news import news_line
from jail.report.rows import Headline, Section, circumstances, headline, sections
from jail.report.text import Row, plain, row
from jail.report.verdict import Report, Verdict
from jail.watch.events import Rule, Severity

Embed = dict[str, Any]

# Discord's limits. It counts characters, of which UTF-16 units are never fewer.
MAX_TITLE_UNITS = 256
MAX_DESCRIPTION_UNITS = 4096
MAX_FIELD_UNITS = 1024
MAX_EMBED_UNITS = 6000  # titles, names, values and footer together
# The service adds a field of its own that names what it could not attach.
SERVICE_UNITS = 500
MAX_EMBED_BYTES = 32 << 10  # as JSON, on the way to the service
# Each list has room of its own: together with title, description, footer, the names of the fields
# and the start of a decoded code they stay below MAX_EMBED_UNITS - SERVICE_UNITS.
LIST_UNITS = {
    "Findings": 1000,
    "URLs": 450,
    "Hosts": 450,
    "Commands": 450,
    "Files": 350,
    "Code made at run time": 350,
    "Not covered": 350,
    "Phases": 250,
    "Downloads": 250,
}
MAX_WORST_CHARS, MAX_MISSED_CHARS, MAX_LINE_CHARS, MAX_CODE_CHARS = 200, 120, 150, 240
MAX_NEW_CHARS = 200
MORE_UNITS = 20  # the room for "… and 499 more"
LOOKS = {
    Verdict.HIGH: ("🔴", 0xC62828),
    Verdict.MEDIUM: ("🟠", 0xEF6C00),
    Verdict.UNSEEN: ("🟡", 0xF9A825),
    Verdict.CLEAN: ("🟢", 0x2E7D32),
}
MARKS = {
    str(Severity.HIGH): "🔴",
    str(Severity.MEDIUM): "🟠",
    str(Severity.INFO): "⚪",
    "gap": "⚠️",
}
# "https://evil.example/", up to the path.
URL_START = re.compile(r"\bhttp(s?)://([^/\s]+)", re.IGNORECASE)
BACKTICK = "\\x60"  # in a code span or block Discord shows all as it is, and only a backtick acts


def units(text: str) -> int:
    """UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def defanged(text: str) -> str:
    """The text with URLs that no program takes for a URL: hxxps://evil[.]example/x."""
    return URL_START.sub(lambda url: f"hxxp{url[1]}://{url[2].replace('.', '[.]')}", text)


def code_span(text: str, limit_chars: int) -> str:
    """Untrusted text in a code span, in which nothing acts; never an empty span, which is none."""
    safe = plain(defanged(text.replace("`", BACKTICK)[: 4 * limit_chars]), limit_chars)
    return f"`{safe or ' '}`"


def render_embed(report: Report, index_url: str, default_index: bool) -> Embed:
    """One embed, readable on a phone: the verdict first, then the lists, worst first."""
    top = headline(report)
    dot, colour = LOOKS[report.verdict]
    # A title acts on markup, too; a checked name and version have no other characters.
    package = re.sub(r"[^A-Za-z0-9.+! -]", "?", top.package)
    embed: Embed = {
        # A phone's notification shows no more than that.
        "title": f"{dot} {report.verdict}: {package}"[: MAX_TITLE_UNITS - 1],
        "url": project_page(report.order, index_url, default_index),
        "description": description(report, top),
        "color": colour,
        "fields": fields(report),
        "footer": footer(report.order),
        "timestamp": report.finished_at,
    }
    # The last lists are worth the least.
    while embed["fields"] and not is_within_limits(embed):
        embed["fields"].pop()
    return embed


def fallback_embed(order: Order, outcome: str) -> Embed:
    """What is posted where drawing failed: a defect of ours must not cost the report."""
    return {
        "title": "A report that can't be shown",
        "description": f"{re.sub(r'[^a-z_]', '?', outcome)[:40]}: see the JSON report.",
        "color": LOOKS[Verdict.UNSEEN][1],
        "fields": [],
        "footer": footer(order),
    }


def footer(order: Order) -> dict[str, str]:
    return {"text": f"snakehook run {order.run_id}"}


def description(report: Report, top: Headline) -> str:
    dot, _ = LOOKS[report.verdict]
    worst = f": {code_span(top.worst, MAX_WORST_CHARS)}" if top.worst else ""
    lines = [f"{dot} **{top.head}**{worst}"]
    if top.missed:
        lines.append(f"⚠️ {code_span(top.missed, MAX_MISSED_CHARS)}")
    news = news_line(report.changes)
    if news:
        lines.append(f"🆕 {code_span(news, MAX_NEW_CHARS)}")
    return "\n".join([*lines, top.summary])


def fields(report: Report) -> list[dict[str, str]]:
    lists = {section.title: section for section in sections(report)}
    lists["Commands"] = commands(report)
    found = []
    for name, limit_units in LIST_UNITS.items():
        section = lists[name]
        if not section.rows:
            continue
        value = list_value(section, limit_units)
        if name == "Code made at run time":
            value += code_block(section.rows[0])
        found.append({"name": f"{name} ({section.total})", "value": value})
    return found


def commands(report: Report) -> Section:
    """The programs that were started, as the findings tell them."""
    groups = [group for group in report.groups if group.finding.rule == Rule.PROCESS_SPAWN]
    rows = []
    for group in groups:
        more = f" and {len(group.titles) - 1} more" if len(group.titles) > 1 else ""
        words = group.finding.title.removeprefix("runs ")
        rows.append(row("", words + more, *circumstances(group)))
    return Section("Commands", rows, len(rows))


def list_value(section: Section, limit_units: int) -> str:
    """The first rows that fit, a line each, and how many do not."""
    lines: list[str] = []
    for number, shown in enumerate(section.rows):
        what = f"{shown.what} ({shown.about})" if shown.about else shown.what
        mark = MARKS.get(shown.mark, shown.mark)
        line = f"{mark} {code_span(what, MAX_LINE_CHARS)}".strip()
        limit_units -= units(line) + 1
        if limit_units < MORE_UNITS:
            return "\n".join([*lines, f"… and {section.total - number} more"])
        lines.append(line)
    if section.total > len(lines):
        lines.append(f"… and {section.total - len(lines)} more")
    return "\n".join(lines)


def code_block(shown: Row) -> str:
    text = "".join(shown.texts.values()).replace("`", BACKTICK)[:MAX_CODE_CHARS]
    return f"\n```\n{text}\n```"


def is_within_limits(embed: Embed) -> bool:
    texts = [embed["title"], embed["description"], embed["footer"]["text"]]
    for item in embed["fields"]:
        texts += [item["name"], item["value"]]
        if units(item["value"]) > MAX_FIELD_UNITS:
            return False
    if units(embed["description"]) > MAX_DESCRIPTION_UNITS:
        return False
    if len(json.dumps(embed)) > MAX_EMBED_BYTES:
        return False
    return sum(units(text) for text in texts) <= MAX_EMBED_UNITS - SERVICE_UNITS


def project_page(order: Order, index_url: str, default_index: bool) -> str:
    """Where people look at the project: the site of pip's own index, or the index's page of it."""
    name = quote(order.package_name[:200].encode("ascii", "replace"), "!+")
    version = quote(order.version[:200].encode("ascii", "replace"), "!+")
    if default_index:
        parts = urlsplit(index_url)
        return f"{parts.scheme}://{parts.netloc}/project/{name}/{version}/"
    return f"{index_url}/{name}/"
