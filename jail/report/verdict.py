"""From what was seen to a report: its lists, how the run went, and what may be said of the package.

"Clean" must never be able to mean "we did not look": it is what is left when there is neither a
finding nor a gap.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from jail.orders import JailSettings, Order
from jail.report.acts import without_repeats
from jail.report.groups import Found, Group, groups_of, wholes_of
from jail.report.lists import (
    LIST_BYTES,
    MAX_LIST_ITEMS,
    Entry,
    Item,
    best_items,
    entries,
    fitted,
)
from jail.report.notices import note_on
from jail.report.outcome import (
    EVENT_WORDS,
    LIMITS,
    Facts,
    explained,
    gaps_of,
    is_extra,
    outcome_of,
    sentence,
)
from jail.report.techniques import technique_in
from jail.report.text import plain
from jail.watch.events import (
    Connection,
    Finding,
    IndexRefused,
    LeftAtWork,
    NotRun,
    Omission,
    Outcome,
    Phase,
    PhaseName,
    Printed,
    Rule,
    Severity,
    is_near,
)
from jail.watch.noticed import Noticed, ReleaseNoted
from jail.watch.record import Record

MAX_CROWD = MAX_LIST_ITEMS // 10  # findings of one rule and severity in a phase; more are a crowd
MAX_NOTE_CHARS = 500


class Verdict(StrEnum):
    HIGH = "high"
    MEDIUM = "medium"
    UNSEEN = "unseen"
    CLEAN = "clean"


@dataclass(frozen=True)
class Report:
    """A finished run. `lists` are those of the contract, by name, entry by entry."""

    order: Order
    started_at: str
    finished_at: str
    outcome: Outcome
    reason: str
    verdict: Verdict
    gaps: list[str]
    groups: list[Group]
    phases: list[Phase]
    lists: dict[str, list[Item]]
    coverage: Item
    changes: Item | None = None


def assemble(
    order: Order,
    settings: JailSettings,
    record: Record,
    phases: Sequence[Phase],
    *,
    kernel_witness: bool,
    started_at_sec: float,
    finished_at_sec: float,
    decoy_internet: str = "off",
    not_run: Sequence[NotRun] = (),
    notes: Sequence[str] = (),
    interrupted: bool = False,
    error: str = "",
    changes: Item | None = None,
) -> Report:
    """The report of a run.

    Args:
        phases: in the order in which they ran, with those that something ended.
        kernel_witness: whether there was a kernel witness.
        started_at_sec, finished_at_sec: seconds since 1970.
        not_run, notes: what watch left out, and what else it has to say.
        interrupted: the service was stopped during the run.
        error: what went wrong in the sandbox outside of any phase.
        changes: what is new in this release.
    """
    facts = Facts(order, settings, record, phases, not_run, kernel_witness, interrupted, error)
    outcome, reason = outcome_of(facts)
    gaps = gaps_of(facts)
    found = [*without_repeats(record.seen), *limit_findings(facts)]
    lists, cut = all_lists(facts, found)
    coverage: Item = {
        "kernel_witness": kernel_witness,
        "python_witness": bool(phases) and all(phase.python_witness for phase in phases),
        "decoy_internet": decoy_internet,
        "dropped_events": record.lost.total() + cut.total(),
        "gaps": gaps[:MAX_LIST_ITEMS],
        "not_run": [sentence(item) for item in not_run[:MAX_LIST_ITEMS]],
        "notes": [*dict.fromkeys(all_notes(facts, cut, notes))][:MAX_LIST_ITEMS],
    }
    return Report(
        order,
        iso(started_at_sec),
        iso(finished_at_sec),
        outcome,
        reason,
        verdict_of(found, gaps),
        gaps,
        groups_of(found, wholes_of(record.seen, found)),
        [*phases],
        lists,
        coverage,
        changes,
    )


def iso(at_sec: float) -> str:
    return datetime.fromtimestamp(at_sec, UTC).isoformat(timespec="milliseconds")


def limit_findings(facts: Facts) -> Iterator[Found]:
    """What the limits say of a package: a phase that had to be ended, a flood."""
    # That the run had no more time for it is not this trigger's doing.
    out_of_time = {
        (item.phase, item.trigger) for item in facts.not_run if item.why == Omission.OUT_OF_TIME
    }
    for phase in facts.phases:
        if is_extra(phase):
            continue
        if phase.outcome in LIMITS and (phase.name, phase.trigger) not in out_of_time:
            severity = Severity.INFO if is_server(facts, phase) else Severity.MEDIUM
            yield phase, (Finding(severity, Rule.LIMIT_HIT, explained(facts, phase)),)
    by_title = {phase.title: phase for phase in facts.phases}
    for (title, kind), count in facts.record.lost.items():
        what = f"did so much that {count} of one kind were not kept: {EVENT_WORDS.get(kind, kind)}"
        phase = by_title.get(title, Phase(PhaseName.INSTALL))
        # Calls with made-up arguments are tried as far as there is room for them.
        severity = Severity.INFO if phase.name is PhaseName.CALL else Severity.MEDIUM
        yield phase, (Finding(severity, Rule.LIMIT_HIT, plain(what, MAX_NOTE_CHARS)),)


def is_server(facts: Facts, phase: Phase) -> bool:
    """Whether a program was stopped that had begun to listen on its own machine: it serves until
    somebody stops it. That not all of it was seen stays a gap.
    """
    if phase.name is not PhaseName.EXECUTE or phase.outcome is not Outcome.TIMEOUT:
        return False
    events = [seen.event for seen in facts.record.seen if seen.phase is phase]
    bound = [event.target for event in events if isinstance(event, Connection) and event.listens]
    # `127.0.0.1:8888`, and not `unix:/tmp/x`.
    return any(is_near(target) and target.rpartition(":")[2].isdigit() for target in bound)


def verdict_of(found: Sequence[Found], gaps: Sequence[str]) -> Verdict:
    """The worst finding decides; without a finding it is only clean when there is no gap."""
    severities = {finding.severity for _, findings in found for finding in findings}
    if Severity.HIGH in severities:
        return Verdict.HIGH
    if Severity.MEDIUM in severities:
        return Verdict.MEDIUM
    return Verdict.UNSEEN if gaps else Verdict.CLEAN


def all_lists(facts: Facts, found: Sequence[Found]) -> tuple[dict[str, list[Item]], Counter[str]]:
    """Each list of the contract, phases and coverage apart, and how many items had no room."""
    by_name: dict[str, list[Entry]] = {
        name: [] for name in LIST_BYTES if name not in ("phases", "coverage", "changes")
    }
    by_name["findings"] = [*finding_entries(found)]
    for seen in facts.record.seen:
        for entry in entries(seen):
            by_name[entry.name].append(entry)
    lists, cut = {}, Counter[str]()
    for name, items in by_name.items():
        lists[name], cut[name] = best_items(items)
    ranks = list(Severity)
    lists["findings"].sort(key=lambda item: ranks.index(item["severity"]))
    return lists, +cut


def finding_entries(found: Sequence[Found]) -> Iterator[Entry]:
    """What is many of its kind gives way to what is rare, whatever the severity."""
    crowds: Counter[tuple[Rule, Severity, str]] = Counter()
    for phase, findings in found:
        for finding in findings:
            crowd = finding.rule, finding.severity, phase.title
            crowds[crowd] += 1
            rank = list(Severity).index(finding.severity)
            if crowds[crowd] > MAX_CROWD:
                rank += len(Severity)
            item: Item = {"severity": finding.severity, "rule": finding.rule}
            item |= {"phase": phase.name, "title": finding.title, "at": finding.place}
            more: Item = {"trigger": phase.trigger, "process": finding.process}
            more["technique"] = technique_in(finding)
            yield Entry("findings", item, more, rank)


def all_notes(facts: Facts, cut: Counter[str], notes: Sequence[str]) -> Iterator[str]:
    """What a reader should know besides, in one line each."""
    for note in notes:
        yield plain(note, MAX_NOTE_CHARS)
    for denied in facts.denied:
        yield plain(denied, MAX_NOTE_CHARS)
    for seen in facts.record.seen:
        note, event = "", seen.event
        if isinstance(event, LeftAtWork):
            note = f"what {event.count} processes were still waiting to do was not seen"
        if isinstance(event, IndexRefused):
            note = f"refused {event.target}: {event.reason}"
        if isinstance(event, Noticed | ReleaseNoted):
            note = note_on(event)
        if note:
            yield plain(f"{seen.phase.title}: {note}", MAX_NOTE_CHARS)
    for item in facts.not_run:
        if item.why == Omission.NOTHING_THERE:
            yield sentence(item)
    for (title, kind), count in facts.record.lost.items():
        what = f"{title}: {count} were not kept or looked at: {EVENT_WORDS.get(kind, kind)}"
        yield plain(what, MAX_NOTE_CHARS)
    for title, count in facts.record.repeats.items():
        what = f"{count} more pieces of code from lines that are told: all were judged"
        yield plain(f"{title}: {what}", MAX_NOTE_CHARS)
    for name, count in cut.items():
        yield f"{count} entries had no room in the list {name}; all were judged"


def phase_item(phase: Phase) -> Item:
    def printed(stream: Printed) -> Item:
        return {
            "text": stream.text,
            "bytes": stream.size_bytes,
            "truncated": stream.truncated,
        }

    return {
        "name": phase.name,
        "trigger": phase.trigger,
        "outcome": phase.outcome,
        "exit_code": phase.exit_code,
        "signal": phase.signal,
        "duration_s": round(phase.duration_sec, 3),
        "stdout": printed(phase.stdout),
        "stderr": printed(phase.stderr),
    }


def as_json(report: Report) -> bytes:
    """The body of the report: an ASCII JSON object that begins with "phases", within 10 MB.

    `coverage.shortened` counts by list the items whose texts had to be cut for that.
    """
    every = {"phases": [phase_item(phase) for phase in report.phases], **report.lists}
    parts, shortened = [], {}
    for name, items in every.items():
        texts, count = fitted(items, LIST_BYTES[name])
        parts.append(f'"{name}": [{", ".join(texts)}]')
        if count:
            shortened[name] = count
    coverage: dict[str, Any] = {**report.coverage, "shortened": shortened}
    parts.append(f'"coverage": {fitted_one(coverage, LIST_BYTES["coverage"])}')
    parts.append(f'"changes": {fitted_one(report.changes, LIST_BYTES["changes"])}')
    return f"{{{', '.join(parts)}}}".encode("ascii")


def fitted_one(item: Item | None, limit_bytes: int) -> str:
    (text,), _ = fitted([item or {}], limit_bytes)
    return text if item else "null"
