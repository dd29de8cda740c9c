"""What is new in a release, for people: rows of a list, and one line."""

from collections.abc import Iterator

from jail.report.lists import Item
from jail.report.text import Row, plain, row
from jail.watch.events import Severity

MAX_NEWS_CHARS = 300
NAMED = 2  # of each kind, in the one line


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count else ""


def named_first(what: str, names: list[str]) -> str:
    """`new .pth evil.pth, x.pth and 3 more`"""
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{what} {', '.join(names[:NAMED])}{more}"


def news_line(changes: Item | None) -> str:
    """What is new in one line, "" where nobody asked for it."""
    if not changes:
        return ""
    first = new_findings_line(changes)
    if changes["reason"]:
        told = [first, f"not compared with an earlier release: {changes['reason']}"]
        return plain("; ".join(part for part in told if part), MAX_NEWS_CHARS)
    counts, requires = changes["counts"], changes["dependencies"]["added"]
    parts = [counted(counts[kind], kind) for kind in ("changed", "added", "removed")]
    files = ", ".join(part for part in parts if part) or "none new"
    told = [
        first,
        f"new since {changes['earlier']['version']}: files: {files}",
        named_first("runs at each start:", changes["startup_files"]),
        named_first("binary:", changes["binaries"]),
        "built by something else" if changes["build"] else "",
        named_first("requires", requires),
        named_first("entry point", changes["entry_points"]["added"]),
    ]
    return plain("; ".join(part for part in told if part), MAX_NEWS_CHARS)


def new_findings_line(changes: Item) -> str:
    """`3 new findings since 1.0`: of those that are worth a look; "" where there are none."""
    counts = changes.get("new_finding_counts", {})
    count = sum(counts.get(severity, 0) for severity in (Severity.HIGH, Severity.MEDIUM))
    plural = "" if count == 1 else "s"
    return f"{count} new finding{plural} since {changes['earlier']['version']}" if count else ""


def news_rows(changes: Item | None) -> list[Row]:
    """The rows, what tells most first."""
    if not changes:
        return []
    found = [*finding_rows(changes)]
    if changes["reason"]:
        return [row("", changes["reason"]), *found]
    return [*found, *notable_rows(changes), *file_rows(changes)]


def finding_rows(changes: Item) -> Iterator[Row]:
    """What the report of the earlier release does not have."""
    reported = changes.get("reported")
    if not reported:
        return
    version, total = changes["earlier"]["version"], sum(changes["new_finding_counts"].values())
    about = [f"run {reported['run_id']}", f"outcome {reported['outcome']}"]
    if not reported["is_whole"]:
        about.append("it has more findings than are compared")
    yield row("", f"{total or 'no'} findings are new beside the report of {version}", *about)
    for item in changes["new_findings"]:
        about = [item["phase"], item["trigger"], item["at"], item["rule"]]
        yield row(item["severity"], item["title"], *about)


def notable_rows(changes: Item) -> Iterator[Row]:
    """What few releases bring."""
    earlier, counts = changes["earlier"], changes["counts"]
    about = [f"{counts[kind]} files {kind}" for kind in ("added", "removed", "changed")]
    yield row("", f"compared with {earlier['file']}", *about)
    for path in changes["startup_files"]:
        yield row("pth", path, "runs at each start of the interpreter")
    for path in changes["binaries"]:
        yield row("binary", path)
    if changes["build"]:
        before, now = changes["build"]
        yield row("build", now or "nothing that is known", f"before: {before or 'nothing'}")
    for name, mark in (("dependencies", "requires"), ("entry_points", "entry")):
        for text in changes[name]["added"]:
            yield row(mark, text, "new")
        for text in changes[name]["removed"]:
            yield row(mark, text, "gone")
    for note in changes["odd"]:
        yield row("odd", note)


def file_rows(changes: Item) -> Iterator[Row]:
    for kind in ("changed", "added"):
        for item in changes[kind]:
            before = item.get("bytes_before")
            sizes = f"{item['bytes']} bytes" + ("" if before is None else f", before {before}")
            texts = {"difference": item["diff"]} if item["diff"] else {}
            yield row(kind, item["path"], sizes, texts=texts)
    for path in changes["removed"]:
        yield row("removed", path)


def news_total(changes: Item | None) -> int:
    """How many rows there would be if none were left out."""
    if not changes:
        return 0
    counts: dict[str, int] = changes.get("new_finding_counts", {})
    left_out = sum(counts.values()) - len(changes.get("new_findings", ()))
    if changes["reason"]:
        return len(news_rows(changes)) + left_out
    files: int = sum(changes["counts"].values())
    return len([*finding_rows(changes), *notable_rows(changes)]) + left_out + files
