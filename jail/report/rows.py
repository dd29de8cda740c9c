"""What people see of a report, row by row, and the report for a terminal: what matters first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from jail.report.groups import Group
from jail.report.lists import Item
from jail.report.news import news_rows, news_total
from jail.report.techniques import technique_in
from jail.report.text import Row, plain, row, short
from jail.report.verdict import Report, Verdict
from jail.watch.events import Outcome, Phase, PhaseName, Rule, Severity

MAX_ROWS = 100  # of each list for people; the JSON report has more
MAX_SHOWN_LINES = 16  # of a piece of code or of a stream, in a terminal
MAX_SHOWN_CHARS = 110  # of a line of these
MAX_TERMINAL_BYTES = 1_900_000
MAX_NAMED_CHARS = 120  # of the titles in the name of a group
MAX_OWN_COMMAND_CHARS = 70  # pip's own command line is long and always the same


@dataclass(frozen=True)
class Section:
    """A list for people: its first rows, and how many there are in all."""

    title: str
    rows: list[Row]
    total: int


@dataclass(frozen=True)
class Headline:
    """What matters, safe to show. `missed` is the first thing that was not seen."""

    package: str
    head: str
    worst: str
    missed: str
    summary: str


def headline(report: Report) -> Headline:
    """The words for the verdict: "clean" names what was looked at, and never means "nowhere"."""
    order, missed = report.order, report.gaps[0] if report.gaps else ""
    worst = ""
    ran = ", ".join(dict.fromkeys(phase.name for phase in report.phases))
    match report.verdict:
        case Verdict.HIGH | Verdict.MEDIUM:
            groups = [
                group
                for group in report.groups
                if group.finding.severity.value == report.verdict.value
            ]
            plural = "" if len(groups) == 1 else "s"
            head = f"{len(groups)} {report.verdict} finding{plural}"
            worst = f"{named(groups[0])} ({', '.join(circumstances(groups[0]))})"
            missed = f"not all was seen: {missed}" if missed else why_not_ok(report)
        case Verdict.UNSEEN:
            head, worst, missed = "could not be installed", missed, ""
            if is_installed(report):
                head = f"nothing found in {ran}, but not all was seen"
        case Verdict.CLEAN:
            head, worst = f"nothing found in {ran}", why_not_ok(report)
    duration_sec = sum(phase.duration_sec for phase in report.phases)
    return Headline(
        package=short(f"{order.package_name} {order.version}"),
        head=head,
        worst=short(worst),
        missed=short(missed),
        summary=f"mode {order.mode}, outcome {report.outcome}, {duration_sec:.1f} s",
    )


def why_not_ok(report: Report) -> str:
    """Why the sandbox did not do all that was asked for, though nothing is missing; "" if it did:
    "failed: execute tool: exit code 2".
    """
    if report.outcome == Outcome.OK:
        return ""
    return f"{report.outcome}: {report.reason}" if report.reason else str(report.outcome)


def is_installed(report: Report) -> bool:
    return any(
        phase.name == PhaseName.INSTALL and phase.outcome == Outcome.OK for phase in report.phases
    )


def named(group: Group) -> str:
    """What the group is called; of many different things done by one line the first. One line may
    reach for many hosts, of which the first may be everybody's: there as many as there is room for.
    """
    told = 1
    if group.finding.rule is Rule.NETWORK_ATTEMPT:
        sizes = accumulate(len(title) for title in group.titles)
        told = max(1, sum(size_chars <= MAX_NAMED_CHARS for size_chars in sizes))
    words = "; ".join([group.finding.title, *group.titles[1:told]])
    more = len(group.titles) - told
    return f"{words} and {more} more" if more else words


def circumstances(group: Group) -> list[str]:
    finding, where = group.finding, group.finding.place
    process = finding.process or ""
    if not where and process not in finding.title:
        where = process[:100]
    times = f"{group.count} times" if group.count > 1 else ""
    return [text for text in (*group.phases, where, times) if text]


def group_row(group: Group) -> Row:
    texts = {}
    if len(group.titles) > 1:
        texts["all of them"] = "\n".join(group.titles)
    severity, rule = group.finding.severity, group.finding.rule
    sign = f"{rule} {technique_in(group.finding)}"
    return row(severity, named(group), *circumstances(group), sign, texts=texts)


def ending(exit_code: int | None, signal: str | None) -> str:
    if signal:
        return f"killed by {signal}"
    return "no end seen" if exit_code is None else f"exit {exit_code}"


def size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes} bytes"


def process_tree(processes: list[Item]) -> list[Row]:
    """Every process below that which started it, in order of birth.

    Those of our own are left out where they started nothing of the package. No recursion: a package
    can nest its processes deeper than Python can recurse.
    """
    # By phase, trigger and pid, since each jail has pids of its own: the way from the first
    # ancestor down, as places in the list. Parents stand before their children.
    ways: dict[tuple[str, str | None, int], tuple[int, ...]] = {}
    for number, process in enumerate(processes):
        if process["argv"] == ["launch.py"] and not process["ppid"]:
            continue
        jail = process["phase"], process["trigger"]
        above = ways.get((*jail, process["ppid"]), ())
        ways[*jail, process["pid"]] = (*above, number)
    rows: list[Row] = []
    for way in sorted(ways.values(), reverse=True):
        process, depth = processes[way[-1]], len(way) - 1
        # From the last to the first: what was added before is what stands below it, if deeper.
        started_something = bool(rows) and rows[-1].depth > depth
        if not process["own"] or started_something:
            rows.append(process_row(process, depth))
    return rows[::-1]


def process_row(process: Item, depth: int) -> Row:
    words = " ".join(word[:1000] for word in process["argv"][:64])
    if process["own"]:
        words = plain(words, MAX_OWN_COMMAND_CHARS + 1)
    end = ending(process["exit_code"], process["signal"])
    return row("", words, process["phase"], f"pid {process['pid']}", end, depth=depth)


def phase_row(phase: Phase) -> Row:
    texts = {}
    for name, stream in (("stdout", phase.stdout), ("stderr", phase.stderr)):
        if stream.size_bytes:
            texts[f"{name}, {stream.size_bytes} bytes"] = stream.text
    end = ending(phase.exit_code, phase.signal)
    return row(phase.outcome, phase.title, end, f"{phase.duration_sec:.1f} s", texts=texts)


def network_row(item: Item) -> Row:
    witness, texts = "+".join(item["witness"]), {}
    payload, tls = item["payload"], item["tls"]
    if payload and payload["bytes"]:
        texts[f"sent, {payload['bytes']} bytes, sha256 {payload['sha256']}"] = payload["text"]
    about = [item["name"], item["phase"], item["place"], witness]
    about += ["does not trust our certificate"] if tls and not tls["trusted_us"] else []
    return row(item["kind"], item["target"], *about, texts=texts)


def request_rows(items: list[Item]) -> list[Row]:
    """Each URL once for each method, with the headers and the body of the first request."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item["method"], item["url"]), []).append(item)
    rows = []
    for (method, url), group in groups.items():
        first, texts = group[0], {}
        bait = list(dict.fromkeys(name for item in group for name in item["bait"]))
        sends = f"sends {', '.join(bait)}" if bait else ""
        times = f"{len(group)} times" if len(group) > 1 else ""
        texts["headers"] = "\n".join(f"{name}: {value}" for name, value in first["headers"])
        body = first["body"]
        if body["bytes"]:
            texts[f"body, {body['bytes']} bytes, sha256 {body['sha256']}"] = body["text"]
        sent = size(body["bytes"] or None)
        about = (first["phase"], first["place"], sent, sends, times)
        rows.append(row("", f"{method} {url}", *about, texts=texts))
    return rows


def file_row(item: Item) -> Row:
    return row(item["change"], item["path"], item["phase"], size(item["bytes"]))


def code_row(item: Item) -> Row:
    texts = {f"sha256 {item['sha256']}": item["text"]}
    place = item["at"] or "no known place"
    return row(item["severity"], place, item["phase"], size(item["bytes"]), texts=texts)


def notable_code(items: list[Item]) -> list[Item]:
    """The pieces of code that are a finding, the decoded first: generators write the others."""
    told = [item for item in items if item["severity"] in (Severity.HIGH, Severity.MEDIUM)]
    return sorted(told, key=lambda item: [*Severity].index(item["severity"]))


def download_row(item: Item) -> Row:
    cached = "from the cache" if item["from_cache"] else ""
    return row("", item["file"], size(item["bytes"]), cached, f"sha256 {item['sha256']}")


def listed(title: str, items: list[Item], as_row: Callable[[Item], Row]) -> Section:
    return Section(title, [as_row(item) for item in items[:MAX_ROWS]], len(items))


def sections(report: Report) -> list[Section]:
    """The report's lists in the order in which people want them."""
    lists, notes = report.lists, report.coverage["notes"]
    groups = [group_row(group) for group in report.groups[:MAX_ROWS]]
    tree = process_tree(lists["processes"])
    missed = [row("gap", gap) for gap in report.gaps[:MAX_ROWS]]
    missed += [row("note", note) for note in notes[:MAX_ROWS]]
    urls = request_rows(lists["requests"])
    new = news_rows(report.changes)[:MAX_ROWS]
    news = [Section("New in this release", new, news_total(report.changes))] if new else []
    phases = [phase_row(phase) for phase in report.phases[:MAX_ROWS]]
    return [
        Section("Findings", groups, len(report.groups)),
        *news,
        Section("URLs", urls[:MAX_ROWS], len(urls)),
        listed("Hosts", lists["network"], network_row),
        Section("Processes", tree[:MAX_ROWS], len(tree)),
        listed("Files", lists["files"], file_row),
        listed("Code made at run time", notable_code(lists["code"]), code_row),
        Section("Not covered", missed[:MAX_ROWS], len(report.gaps) + len(notes)),
        Section("Phases", phases, len(report.phases)),
        listed("Downloads", lists["downloads"], download_row),
    ]


def render_text(report: Report) -> bytes:
    """The report for a terminal, in UTF-8, at most 2 MB. No untrusted text leaves its line."""
    parts: list[bytes] = []
    left_bytes = MAX_TERMINAL_BYTES
    for line in text_lines(report):
        part = line.encode() + b"\n"
        left_bytes -= len(part)
        if left_bytes < 0:
            parts.append(b"... and more: --json has it\n")
            break
        parts.append(part)
    return b"".join(parts)


def text_lines(report: Report) -> Iterator[str]:
    top = headline(report)
    # "clean: six 1.17.0: nothing found in install, import": the verdict first, as in the message.
    words = (str(report.verdict), top.package, top.head, top.worst)
    yield ": ".join(text for text in words if text)
    if top.missed:
        yield top.missed
    yield f"{top.summary}, run {report.order.run_id}"
    for section in sections(report):
        if not section.rows:
            continue
        yield f"\n{section.title} ({section.total})"
        for shown in section.rows:
            yield from row_lines(shown)
        if section.total > len(section.rows):
            yield f"  … and {section.total - len(section.rows)} more: --json has them"


def row_lines(shown: Row) -> Iterator[str]:
    indent = "  " * min(shown.depth + 1, 20)
    mark = f"{shown.mark:8} " if shown.mark else ""
    about = f"  ({shown.about})" if shown.about else ""
    yield f"{indent}{mark}{shown.what}{about}"
    for heading, text in shown.texts.items():
        yield f"      {heading}"
        lines = text.split("\n")
        if len(lines) > MAX_SHOWN_LINES:
            half = MAX_SHOWN_LINES // 2
            lines = [*lines[:half], "…", *lines[-half:]]
        for line in lines:
            yield f"      | {plain(line, MAX_SHOWN_CHARS)}"
