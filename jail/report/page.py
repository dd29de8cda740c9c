"""The report as a page of its own: no script, nothing loaded, at most 5 MB."""

import html
from collections import Counter
from pathlib import Path
from string import Template

from jail.report.rows import MAX_ROWS, Section, headline, sections
from jail.report.text import Row, fair_shares, middle_cut, short
from jail.report.verdict import Report
from jail.watch.events import Severity

MAX_OPEN_ROWS = 15  # of each list; the others are there to unfold
MAX_INDENT = 9  # of rows that are indented
# Of the texts of one list together. There are five lists with texts of many lines, and rows take at
# most 3 MB.
MAX_TEXTS_BYTES = 350_000
BAR_PIXELS, PHASE_PIXELS = 360, 36

TEMPLATE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))


def render_page(report: Report) -> bytes:
    """The page in UTF-8: the verdict first, then the findings, the time line, all other lists."""
    findings, *others = sections(report)
    filled = [section_html(section) for section in others if section.rows]
    top = headline(report)
    words = {
        "kind": report.verdict,
        "package": top.package,
        "head": top.head,
        "worst": top.worst,
        "missed": top.missed,
        "summary": top.summary,
        "run": report.order.run_id,
        "times": f"{report.started_at}, {report.finished_at}",
    }
    safe = {name: html.escape(text) for name, text in words.items()}
    safe |= {"findings": section_html(findings) if findings.rows else ""}
    safe |= {"timeline": timeline_html(report), "others": "".join(filled)}
    # An empty box tells less than its name among others.
    empty = [section.title for section in (findings, *others) if not section.rows]
    safe["empty"] = f"None seen: {', '.join(empty)}." if empty else ""
    return TEMPLATE.substitute(safe).encode()


def section_html(section: Section) -> str:
    """A list: its first rows, the others folded away, and how many only the JSON report has."""
    texts = texts_html(section)
    items = [row_html(shown, text) for shown, text in zip(section.rows, texts, strict=True)]
    body = f"<ul>{''.join(items[:MAX_OPEN_ROWS])}</ul>"
    folded = items[MAX_OPEN_ROWS:]
    if folded:
        body += (
            f"<details><summary>{len(folded)} more</summary><ul>{''.join(folded)}</ul></details>"
        )
    if section.total > len(items):
        body += f"<p>… and {section.total - len(items)} more: the JSON report has them.</p>"
    return f"<section><h2>{section.title} <small>{section.total}</small></h2>{body}</section>\n"


def row_html(shown: Row, texts: str) -> str:
    """A row, in which its texts are folded away.

    <bdi>: letters that are written from right to left don't turn round what stands beside them.
    """
    mark, what, about = (html.escape(text) for text in (shown.mark, shown.what, shown.about))
    line = f"<b>{mark}</b> <bdi>{what}</bdi> <small>{about}</small>"
    if texts:
        line = f"<details><summary>{line}</summary>{texts}</details>"
    return f'<li class="{mark} d{min(shown.depth, MAX_INDENT)}">{line}</li>'


def texts_html(section: Section) -> list[str]:
    """The texts of each row, within the room that the list has for all of them."""
    texts = [text for shown in section.rows for text in shown.texts.values()]
    sizes = [len(html.escape(text).encode()) for text in texts]
    shares = iter(fair_shares(sizes, MAX_TEXTS_BYTES))
    found = []
    for shown in section.rows:
        parts = [
            # A box that scrolls can be reached with the keyboard.
            f"<small>{html.escape(heading)}</small>"
            f'<pre tabindex="0">{text_html(text, next(shares))}</pre>'
            for heading, text in shown.texts.items()
        ]
        found.append("".join(parts))
    return found


def text_html(text: str, limit_bytes: int) -> str:
    """Escaped text. Where it is too long, its middle is left out, again until it fits."""
    escaped, limit_chars = html.escape(text), len(text)
    while len(escaped.encode()) > limit_bytes and limit_chars > 1:
        limit_chars //= 2
        escaped = html.escape(middle_cut(text, limit_chars))
    return escaped


def timeline_html(report: Report) -> str:
    """The phases one after the other: bars as long as they took, with their high findings."""
    total_sec = sum(phase.duration_sec for phase in report.phases)
    scale, start_sec, bars = BAR_PIXELS / max(total_sec, 0.001), 0.0, []
    high: Counter[tuple[str, str | None]] = Counter()
    for finding in report.lists["findings"]:
        if finding["severity"] == Severity.HIGH:
            high[finding["phase"], finding["trigger"]] += 1
    for number, phase in enumerate(report.phases[:MAX_ROWS]):
        count = high[phase.name, phase.trigger]
        label = f"{short(phase.title, 30)}: {phase.outcome}, {phase.duration_sec:.1f} s"
        kind = str(phase.outcome)
        if count:
            label += f", {count} high"
            kind += " high"
        left = min(start_sec * scale, BAR_PIXELS - 3)
        width = max(phase.duration_sec * scale, 3)
        bars.append(
            f'<g transform="translate(0 {PHASE_PIXELS * number})" class="{kind}">'
            f'<text y="13">{html.escape(label)}</text>'
            f'<rect x="{left:.1f}" y="19" width="{width:.1f}" height="9"/></g>'
        )
        start_sec += phase.duration_sec
    height = PHASE_PIXELS * len(bars)
    return (
        f'<svg viewBox="0 0 {BAR_PIXELS} {height}" role="img" aria-label="Time line">'
        f"{''.join(bars)}</svg>"
    )
