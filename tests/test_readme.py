"""README.md promises what a test tries to break: each row of its table names tests that exist."""

import re
import subprocess
import sys

from conftest import ROOT

HEADER = "| What is promised | What enforces it | Which test tries to break it |"


def named_tests() -> list[str]:
    """`file::test` of each row of the table of promises; a row without one is a fault."""
    table = (ROOT / "README.md").read_text().partition(HEADER)[2]
    rows = [line for line in table.partition("\n\n")[0].splitlines()[2:] if line.startswith("|")]
    assert rows, f"README.md has no table that begins with {HEADER}"
    found = []
    for row in rows:
        names = re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", row.rstrip(" |").rpartition("|")[2])
        assert names, f"no test in the row: {row}"
        found += names
    return found


def test_every_promise_of_the_readme_names_tests_that_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    there = {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    assert there, done.stdout + done.stderr
    assert [name for name in named_tests() if name not in there] == []
