"""What the service knows of other releases of a project: the findings of their reports, and which
of a run's own findings are new beside them.

Hostile input: all of it. A package may have chosen the words of a title, and who sends it may have
been taken over.
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

MAX_KNOWN_RELEASES, MAX_KNOWN_FINDINGS = 12, 200  # as jail/store.toml has them
MAX_STORED_FINDINGS = 500  # of a report; one that has as many may have had more
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


def hear_known(inlet: Inlet, version: str) -> KnownReport | None:
    """What the service has told by now of the report of a release. Nobody waits for it."""
    try:
        return known_report(inlet.line(), version)
    except OrderError:
        return None


def known_report(line: bytes | None, version: str) -> KnownReport | None:
    """The report of a release, None where nothing is known of it.

    `b'[{"version": "1.0", "run_id": "0af3...", "outcome": "ok", "verdict": "high", "count": 1,
    "findings": [["secret.read", "import", "reads or touches /x", "/srv/x.py:3"]]}, ...]'`
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
    rows, count = item.get("findings"), item.get("count")
    if len(texts) < len(words) or type(count) is not int or not isinstance(rows, list):
        return None
    version, run_id, outcome, verdict = texts
    is_known = outcome in set(Outcome) and VERDICT_WORD.fullmatch(verdict) is not None
    if not is_known or not KNOWN_RUN_ID.fullmatch(run_id) or len(version) > MAX_VERSION_CHARS:
        return None
    acts = tuple(acts_in(rows[:MAX_KNOWN_FINDINGS]))
    is_whole = len(acts) == len(rows) < MAX_KNOWN_FINDINGS and count < MAX_STORED_FINDINGS
    return KnownReport(version, run_id, outcome, verdict, is_whole, acts)


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
    before = {
        same_act(act, known.version, is_drawn)
        for act in known.findings
        for is_drawn in (lambda _: True, lambda _: False)
    }
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
