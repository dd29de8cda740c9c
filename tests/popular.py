"""Detonate popular, harmless packages from the real index and print what snakehook says of each.

    python tests/popular.py [LIST [NAME ...]]

LIST is a file with a package on each line: name, version, kind (tests/popular_kinds.txt, 100 of
all kinds, is the default). With names, only those of them.

A script, not a test: it needs the index and takes minutes. The environment goes through to
snakehook (STATE_DIR, PIP_CACHE_DIR, RUN_TIMEOUT_SEC, ...); REPORTS_DIR, if set, is a folder for the
whole reports. Exit code 1 when any package yields a `high` finding: each of those is a defect, or a
true one that the README names.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
PROGRAM = TESTS.parent / "snakehook.py"
COLUMNS = "{:<24} {:<12} {:<10} {:<8} {:<8} {:>6} {:>5} {:>6} {:>5}  {}"
TITLES = ("package", "version", "kind", "verdict", "outcome", "sec", "high", "medium", "info")
MAX_WORDS = 200  # characters of the last column


def read_list(path: Path) -> list[tuple[str, str, str]]:
    """The packages of a list. `six 1.17.0 library`, `# a comment`"""
    rows = []
    for line in path.read_text().splitlines():
        words = line.partition("#")[0].split()
        if words:
            name, version, kind = words
            rows.append((name, version, kind))
    return rows


def detonate(name: str, version: str) -> tuple[dict[str, Any], float]:
    """The report and the seconds it took; without a report one with the outcome `error`."""
    begun = time.monotonic()
    command = [sys.executable, str(PROGRAM), "triage", name, version]
    command += ["--json", "--mode", "detonate"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took_sec = time.monotonic() - begun
    if not done.stdout:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        nothing = {"verdict": "unseen", "outcome": "error", "reason": last, "findings": []}
        return nothing, took_sec
    report: dict[str, Any] = json.loads(done.stdout)
    return report, took_sec


def words_of(report: dict[str, Any]) -> str:
    """What made the verdict: the titles of its severity, or why not all was seen."""
    verdict = report["verdict"]
    titles = [
        f"{finding['rule']}: {finding['title']} ({finding['phase']} {finding['trigger']})"
        for finding in report["findings"]
        if finding["severity"] == verdict
    ]
    if not titles:
        titles = [report["reason"], *report.get("coverage", {}).get("gaps", [])]
    return "; ".join(title for title in titles if title)[:MAX_WORDS]


def main(arguments: list[str]) -> int:
    path = Path(arguments[0]) if arguments else TESTS / "popular_kinds.txt"
    wanted = arguments[1:]
    verdicts: Counter[str] = Counter()
    print(COLUMNS.format(*TITLES, "why"), flush=True)
    for name, version, kind in read_list(path):
        if wanted and name not in wanted:
            continue
        report, took_sec = detonate(name, version)
        if folder := os.environ.get("REPORTS_DIR"):
            Path(folder, f"{name}.json").write_text(json.dumps(report, indent=1))
        counts = Counter(finding["severity"] for finding in report["findings"])
        numbers = [counts[severity] for severity in ("high", "medium", "info")]
        about = (name, version, kind, report["verdict"], report["outcome"])
        line = COLUMNS.format(*about, f"{took_sec:.1f}", *numbers, words_of(report))
        print(line, flush=True)
        verdicts[report["verdict"]] += 1
    print(f"{verdicts.total()} packages: {dict(verdicts)}")
    return 1 if verdicts["high"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
