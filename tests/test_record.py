"""The record of a run: no flood of one thing hides another, and what was lost is counted."""

from jail.watch.events import (
    MAX_CODE_BYTES,
    MAX_CODES,
    MAX_EVENTS,
    NOBODY,
    Change,
    Code,
    Connection,
    Event,
    Exec,
    FileChanged,
    Finding,
    NameAsked,
    Net,
    Phase,
    PhaseName,
    Rule,
    Severity,
)
from jail.watch.record import MAX_RECORD_CHARS, MAX_SUBJECTS, Record, size_chars, subject

PHASE = Phase(PhaseName.IMPORT, "a")


def judge(phase: Phase, event: Event) -> tuple[Finding, ...]:
    """Connections are high, and nothing else is anything."""
    if isinstance(event, Connection):
        return (Finding(Severity.HIGH, Rule.NETWORK_ATTEMPT, event.target),)
    return ()


def connection(target: str) -> Connection:
    return Connection(Net.TCP, target, False, None, NOBODY)


def code(place: str, text: str = "x = 1") -> Code:
    return Code("0" * 64, len(text), place, False, text)


def test_an_event_is_kept_with_what_the_rules_say() -> None:
    kept: list[object] = []
    record = Record(judge, kept.append)
    assert record.add(PHASE, connection("192.0.2.1:80"), 5.0)
    (seen,) = record.seen
    assert (seen.phase, seen.at_sec, seen.findings[0].title) == (PHASE, 5.0, "192.0.2.1:80")
    assert kept == [seen]


def test_a_flood_of_one_host_hides_no_other_host() -> None:
    record = Record(judge)
    for port in range(MAX_EVENTS + 100):
        record.add(PHASE, connection(f"192.0.2.1:{port}"), 0.0)
    assert record.lost == {(PHASE.title, "Connection"): 99}  # one is the first of its host
    assert record.add(PHASE, connection("192.0.2.2:80"), 0.0)
    assert not record.add(PHASE, connection("192.0.2.2:81"), 0.0)
    assert record.add(PHASE, connection("[2001:db8::1]:81"), 0.0)


def test_a_flood_of_names_below_one_hides_no_other_name() -> None:
    record = Record(judge)
    for number in range(MAX_EVENTS + 100):
        record.add(PHASE, NameAsked(f"unix:{number}.flood.example", NOBODY), 0.0)
    assert record.add(PHASE, NameAsked("a.b.exfil.example", NOBODY), 0.0)


def test_firsts_are_bounded_too() -> None:
    record = Record(judge)
    for number in range(10_000):
        record.add(PHASE, NameAsked(f"n{number}.example", NOBODY), 0.0)
    assert len(record.seen) == MAX_EVENTS + MAX_SUBJECTS


def test_a_flood_of_the_common_hides_nothing_grave_and_no_other_kind_or_phase() -> None:
    record = Record(judge)
    for number in range(MAX_EVENTS + 10):
        record.add(PHASE, Exec("/bin/true", (str(number),), None, NOBODY), 0.0)
    assert record.add(PHASE, connection("192.0.2.2:80"), 0.0)
    assert record.add(PHASE, FileChanged("/home/x", Change.CREATED, 1, None), 0.0)
    assert record.add(Phase(PhaseName.IMPORT, "b"), Exec("/bin/true", ("b",), None, NOBODY), 0.0)


def test_fewer_pieces_of_code_are_kept() -> None:
    record = Record(judge)
    for number in range(MAX_CODES + 100):
        record.add(PHASE, code("/x.py:1", str(number)), 0.0)
    assert len(record.seen) == MAX_CODES + 1


def test_over_all_phases_the_memory_is_bounded() -> None:
    record = Record(judge)
    text = "x" * MAX_CODE_BYTES
    for number in range(20):
        phase = Phase(PhaseName.IMPORT, str(number))
        for _ in range(100):
            record.add(phase, code("", text), 0.0)
    size = sum(size_chars(seen.event) for seen in record.seen)
    assert MAX_RECORD_CHARS - 2 * MAX_CODE_BYTES < size <= MAX_RECORD_CHARS
    assert sum(record.lost.values()) == 2000 - len(record.seen)
    # What is refused takes no room from what is small enough.
    assert record.add(PHASE, code("", "x"), 0.0)
    # The first of its place has room of its own, and so has what is graver.
    assert record.add(PHASE, code("/new.py:1", text), 0.0)
    assert record.add(PHASE, connection("192.0.2.2:80"), 0.0)


def test_what_an_event_is_about() -> None:
    assert subject(connection("192.0.2.1:80")) == "192.0.2.1"
    assert subject(connection("unix:/tmp/s")) == "unix"
    assert subject(NameAsked("a.b.example.org", NOBODY)) == "example.org"
    assert subject(FileChanged("/home/a/b", Change.DELETED, None, None)) == "/home/a"


def test_more_code_from_a_line_that_is_told_is_no_flood() -> None:
    """Where each piece was judged to be nothing to look at."""
    record, grave = (
        Record(judge),
        Record(lambda *_: (Finding(Severity.HIGH, Rule.CODE_DYNAMIC, ""),)),
    )
    for number in range(MAX_CODES + 100):
        for each in (record, grave):
            each.add(PHASE, code("/x.py:1", str(number)), 0.0)
    assert (record.lost, record.repeats) == ({}, {PHASE.title: 99})
    assert (grave.lost, grave.repeats) == ({(PHASE.title, "Code"): 99}, {})
