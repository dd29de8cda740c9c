"""Detonate 30 popular, harmless packages from the real index and print what snakehook says of each.

    python tests/popular.py [NAME ...]

A script, not a test: it needs the index and takes minutes. The environment goes through to
snakehook (STATE_DIR, PIP_CACHE_DIR, RUN_TIMEOUT_SEC, ...); REPORTS_DIR, if set, is a folder for the
whole reports. Exit code 1 when any package yields a `high` finding: each of those is a defect.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parent.parent / "snakehook.py"
PACKAGES = (
    # pure wheels
    ("six", "1.17.0"),
    ("requests", "2.32.3"),
    ("attrs", "24.2.0"),
    ("jinja2", "3.1.4"),
    ("boto3", "1.35.60"),
    # console scripts
    ("black", "24.10.0"),
    ("flask", "3.0.3"),
    ("httpie", "3.2.4"),
    ("ipython", "8.29.0"),
    ("pytest", "8.3.3"),
    ("virtualenv", "20.27.1"),
    ("twine", "5.1.1"),
    ("gitpython", "3.1.43"),
    ("yt-dlp", "2024.11.4"),
    # compiled: C, C++, Rust, mypyc
    ("numpy", "2.1.3"),
    ("cryptography", "43.0.3"),
    ("lxml", "5.3.0"),
    ("pillow", "11.0.0"),
    ("pydantic", "2.9.2"),
    ("aiohttp", "3.10.10"),
    ("psutil", "6.1.0"),
    # source only, or for this Python: plain setup.py, C extensions
    ("docopt", "0.6.2"),
    ("termcolor", "1.1.0"),
    ("future", "0.18.2"),
    ("pyperclip", "1.8.2"),
    ("wrapt", "1.12.1"),
    ("markupsafe", "2.0.0"),
    # with .pth files
    ("setuptools", "75.3.0"),
    ("pytest-cov", "6.0.0"),
    ("future-fstrings", "1.2.0"),
)
COLUMNS = "{:<16} {:<10} {:<8} {:>6} {:>5} {:>6} {:>5}  {}"


def detonate(name: str, version: str) -> tuple[dict[str, Any], float]:
    """The report and the seconds it took; without a report one with the outcome `error`."""
    begun = time.monotonic()
    command = [
        sys.executable,
        str(PROGRAM),
        "triage",
        name,
        version,
        "--json",
        "--mode",
        "detonate",
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took_sec = time.monotonic() - begun
    if not done.stdout:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"outcome": "error", "reason": last, "findings": []}, took_sec
    report: dict[str, Any] = json.loads(done.stdout)
    return report, took_sec


def main(wanted: list[str]) -> int:
    high_count = 0
    print(
        COLUMNS.format(
            "package", "version", "outcome", "sec", "high", "medium", "info", "high titles"
        )
    )
    for name, version in PACKAGES:
        if wanted and name not in wanted:
            continue
        report, took_sec = detonate(name, version)
        if folder := os.environ.get("REPORTS_DIR"):
            Path(folder, f"{name}.json").write_text(json.dumps(report, indent=1))
        counts = Counter(finding["severity"] for finding in report["findings"])
        titles = [
            f"{finding['rule']}: {finding['title']}"
            for finding in report["findings"]
            if finding["severity"] == "high"
        ]
        why = titles if titles or report["outcome"] == "ok" else [f"({report['reason']})"]
        numbers = [counts[severity] for severity in ("high", "medium", "info")]
        words = "; ".join(title[:100] for title in why)
        print(
            COLUMNS.format(name, version, report["outcome"], f"{took_sec:.1f}", *numbers, words),
            flush=True,
        )
        high_count += counts["high"]
    return 1 if high_count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
