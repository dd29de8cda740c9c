"""README.md promises what a test tries to break: each row of its table names tests that exist, and
its figures are those of the code.
"""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

import snakehook as service
from jail import keeper, network
from jail.inside import call, ending, gates
from jail.watch import (
    comparison,
    contents,
    dropped,
    earlier,
    events,
    known,
    members,
    samples,
    scratch,
    second_try,
    session,
    talk,
    trace,
    triggers,
)

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


WORDS = {2: "two", 3: "three", 5: "five", 10: "ten", 12: "twelve"}
HTTP_BOUNDS = (
    f"within {service.MAX_HEADERS_SEC:.0f} seconds and all of it within "
    f"{service.MAX_REQUEST_SEC:.0f}; one address may hold {service.MAX_PEER_CONNECTIONS} "
    f"connections, all together {service.MAX_CONNECTIONS}."
)
# What README.md says of a bound, made of the bound.
FIGURES = [
    f"most {triggers.MAX_TRIGGERS} top-level modules and {triggers.MAX_TRIGGERS} programs have",
    f"up to {contents.MAX_MODULES:,} modules",
    f"and {triggers.MAX_SEVERAL} programs.",
    f"get {WORDS[int(ending.MAX_LINGER_SEC)]} seconds",
    f"more than {gates.MAX_GATES} is a `gap`",
    f"at most {WORDS[second_try.MAX_SECOND]}, and what failed",
    f"A call has {'half a second' if triggers.ONE_CALL_SEC == 0.5 else triggers.ONE_CALL_SEC};",
    f"says of the first {WORDS[call.MAX_OVERDUE_TOLD]}.",
    f"each module has {WORDS[int(triggers.IMPORT_SEC)]} seconds",
    f"`KEEP_SAMPLES_BYTES` and {samples.MAX_SAMPLES} files",
    HTTP_BOUNDS,
    f"the body is larger than {service.MAX_BODY_BYTES >> 10} KiB",
    f"({session.MAX_OUTPUT_BYTES >> 20} MiB of each stream is kept)",
    f"its first {talk.MAX_RAW_TEXT_BYTES >> 10} KiB)",
    f"`body` ({talk.MAX_BODY_TEXT_BYTES >> 10} KiB of it)",
    f"of more than {scratch.MAX_HASHED_FILE_BYTES >> 20} MiB",
    f"`text` ({events.MAX_CODE_BYTES >> 10} KiB at the most)",
    f"at most {earlier.MAX_EARLIER_BYTES >> 20} MiB, and is not",
    f"of the last {WORDS[known.MAX_KNOWN_RELEASES]} releases",
    f"{known.MAX_NEW_FINDINGS} at the most",
    f"{comparison.MAX_DIFF_CHARS} characters of a file, at most {comparison.MAX_DIFFED} files",
    f"comes first, {comparison.MAX_COMPARED} of each",
    f"more than {members.MAX_ARCHIVE_MEMBERS:,} members, {members.MAX_UNPACKED_BYTES >> 20} MiB",
    f"or {WORDS[int(members.MAX_UNPACK_SEC)]} seconds of unpacking",
    f"has the first {scratch.MAX_FILE_BYTES >> 20} MiB of each file",
    f"together has {dropped.MAX_DROPPED_BYTES >> 20} MiB",
    f"which is {trace.HELD_SEC * 1000:.0f} ms",
    f"some {len(network.DECOY_PORTS) // 10 * 10} ports",
]


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_of_the_readme_is_that_of_the_code(figure: str) -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    assert figure in text


def test_the_sleeps_that_are_skipped_are_as_many_as_the_readme_says() -> None:
    (skipped,) = [flag for flag in keeper.STRACE_FLAGS if "nanosleep:retval" in flag]
    count = skipped.rpartition("..")[2]
    assert f"at most {count} of each thread" in (ROOT / "README.md").read_text()


def test_the_readme_has_each_setting_with_its_default() -> None:
    table = (ROOT / "README.md").read_text().partition("| Variable | Default | Meaning |")[2]
    rows = [line.split("|") for line in table.partition("\n\n")[0].splitlines()[2:]]
    told = {name: row[2] for row in rows for name in re.findall(r"`([A-Z_]+)`", row[1])}
    settings = service.SETTINGS["jail"] | service.SETTINGS["service"]
    assert settings.keys() <= told.keys()
    for name, setting in settings.items():
        default = setting["default"][0]
        if isinstance(default, int) and not isinstance(default, bool):
            assert str(default) in told[name].replace(",", " ").split(), name
