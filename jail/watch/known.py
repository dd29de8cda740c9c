"""What a run's findings are for the run of the next release: told to the service, which keeps it
and does not read it, and heard from it then; and which of a run's own findings are new beside that.

Hostile input: all that is heard. A package may have chosen the words of a title, and who told it,
or sends it, may have been taken over.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jail.orders import OrderError
from jail.watch.drawn import without_drawn
from jail.watch.events import Outcome, Rule, Severity
from jail.watch.inlet import Inlet
from jail.watch.releases import version_key

MAX_KNOWN_RELEASES, MAX_KNOWN_FINDINGS = 12, 200  # the first as jail/store.toml has it
MAX_ACTS_BYTES, MAX_ACT_TITLE_CHARS = 24 << 10, 400  # of a run; of a title
MAX_STORED_FINDINGS = 500  # of a report; where there are as many, there may have been more
MAX_VERSION_CHARS = 200
MAX_NEW_FINDINGS = 60  # that are named; the others are counted
KNOWN_RUN_ID = re.compile(r"[0-9a-f]{32}")
VERDICT_WORD = re.compile(r"[a-z]{1,20}")
# Of a new finding; who wants more finds it among the findings.
TOLD = ("severity", "rule", "phase", "trigger", "title", "at")

KnownAct = tuple[str, str, str, str]  # rule, phase, title, place
NewFinding = dict[str, Any]


@dataclass(frozen=True)
class KnownReport:
    """Of an earlier release. `is_whole`: all of its findings are among `findings`."""

    version: str
    run_id: str
    outcome: str
    verdict: str
    is_whole: bool
    findings: tuple[KnownAct, ...]


def acts_for_later(findings: Sequence[NewFinding]) -> bytes:
    """What the watch of another release may want to know of these findings, as parse_acts reads it.

    `b'{"is_whole": true, "findings": [["secret.read", "import", "reads or touches /x", null]]}'`
    """
    rows = {
        (item["rule"], item["phase"], item["title"][:MAX_ACT_TITLE_CHARS], item["at"])
        for item in findings
    }
    texts, left_bytes = [], MAX_ACTS_BYTES
    for row in sorted(rows, key=repr)[:MAX_KNOWN_FINDINGS]:
        text = json.dumps(row)
        left_bytes -= len(text) + 2
        if left_bytes > 0:
            texts.append(text)
    is_whole = len(texts) == len(rows) and len(findings) < MAX_STORED_FINDINGS
    whole = json.dumps(is_whole)
    return f'{{"is_whole": {whole}, "findings": [{", ".join(texts)}]}}'.encode()


def known_earlier(inlet: Inlet, version: str) -> KnownReport | None:
    """What the service has told by now of the report of a release. Nobody waits for it."""
    try:
        return known_report(inlet.line(), version)
    except OrderError:
        return None


def known_report(line: bytes | None, version: str) -> KnownReport | None:
    """The report of a release, None where nothing is known of it.

    `b'[{"version": "1.0", "run_id": "0af3...", "outcome": "ok", "verdict": "high", "acts": "..."},
    ...]'`, with what acts_for_later has made.
    """
    try:
        told = json.loads(line or b"[]")
    except (ValueError, RecursionError):
        return None
    for item in told[:MAX_KNOWN_RELEASES] if isinstance(told, list) else []:
        found = parse_report(item) if isinstance(item, dict) else None
        if found and version_key(found.version) == version_key(version):
            return found
    return None


def parse_report(item: Mapping[str, Any]) -> KnownReport | None:
    """One report; None where it is not as it should be."""
    words = [item.get(key) for key in ("version", "run_id", "outcome", "verdict")]
    texts = [word for word in words if isinstance(word, str)]
    told = parse_acts(item.get("acts"))
    if len(texts) < len(words) or told is None:
        return None
    version, run_id, outcome, verdict = texts
    is_known = outcome in set(Outcome) and VERDICT_WORD.fullmatch(verdict) is not None
    if not is_known or not KNOWN_RUN_ID.fullmatch(run_id) or len(version) > MAX_VERSION_CHARS:
        return None
    return KnownReport(version, run_id, outcome, verdict, *told)


def parse_acts(text: object) -> tuple[bool, tuple[KnownAct, ...]] | None:
    """Whether a report is whole, and its findings; None where the text is not as it should be."""
    try:
        told = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    rows = told.get("findings") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(rows, list):
        return None
    acts = tuple(acts_in(rows[:MAX_KNOWN_FINDINGS]))
    return told.get("is_whole") is True and len(acts) == len(rows), acts


def acts_in(rows: Sequence[Any]) -> Iterator[KnownAct]:
    """Those that are four texts, of which the last may be missing."""
    for row in rows:
        is_row = isinstance(row, list) and len(row) == len(("rule", "phase", "title", "place"))
        words = ["" if word is None else word for word in row] if is_row else []
        texts = [word for word in words if isinstance(word, str)]
        if is_row and len(texts) == len(words):
            rule, phase, title, place = texts
            yield rule, phase, title, place


def same_act(act: KnownAct, version: str, is_drawn: Callable[[str], bool]) -> KnownAct:
    """What is the same in two runs. A place counts where the title does not say what was done."""
    rule, phase, title, place = act
    file = without_drawn(place, version, is_drawn) if rule == Rule.CODE_DYNAMIC else ""
    return rule, phase, without_drawn(title, version, is_drawn), file


def compare_findings(
    findings: Sequence[NewFinding],
    known: KnownReport | None,
    version: str,
    made_up: frozenset[str],
) -> dict[str, Any]:
    """What `changes` has of findings: those that the earlier release's report does not have.

    Args:
        findings: of this run, in the order of the report, for the release `version`.
        made_up: the addresses of this run's decoy internet.
    """
    if not known:
        return {"reported": None, "new_findings": [], "new_finding_counts": {}}
    # Of the other run it is not known which addresses were made up.
    before = {same_act(act, known.version, lambda _: True) for act in known.findings}
    before |= {same_act(act, known.version, lambda _: False) for act in known.findings}
    # What is done in several phases is one act.
    fresh: dict[tuple[str, str], NewFinding] = {}
    for finding in findings:
        place = finding["at"] or ""
        act = finding["rule"], finding["phase"], finding["title"], place
        if same_act(act, version, made_up.__contains__) not in before:
            told = {key: finding[key] for key in TOLD}
            fresh.setdefault((finding["rule"], finding["title"]), told)
    new = list(fresh.values())
    severities = Counter(str(item["severity"]) for item in new)
    counts = {str(severity): severities[severity] for severity in Severity}
    about = {key: getattr(known, key) for key in ("run_id", "outcome", "verdict", "is_whole")}
    return {
        "reported": about,
        "new_findings": new[:MAX_NEW_FINDINGS],
        "new_finding_counts": counts,
    }
