"""What may be said of a package, green only where all of it ran and was seen; a report's bounds."""

import json
from typing import Any

import pytest
from reports import HOSTILE, SETTINGS, a_phase, an_order, report_of, saying

from jail.orders import WORK_IN_JAIL
from jail.report.groups import RULE_ORDER
from jail.report.lists import (
    LIST_BYTES,
    MAX_LIST_ITEMS,
    Entry,
    best_items,
    fitted,
    with_shorter_texts,
)
from jail.report.rules import judge
from jail.report.verdict import Report, Verdict, as_json, assemble
from jail.watch.events import (
    NOBODY,
    Actor,
    BaitRead,
    Change,
    Code,
    Connection,
    DependencyDenied,
    Downloaded,
    Event,
    Exec,
    FileChanged,
    IndexRefused,
    LeftAtWork,
    NameAsked,
    Net,
    NotRun,
    Omission,
    Outcome,
    Phase,
    PhaseName,
    Printed,
    ProcessEnded,
    Rule,
    Severity,
    StartsUnchecked,
    StartupCode,
)
from jail.watch.noticed import Notice, Noticed
from jail.watch.record import SEARCHED_FOR_BAIT, Record

MAX_REPORT_BYTES = 10_000_000  # what the service takes
INSTALL, IMPORT, EXECUTE = PhaseName.INSTALL, PhaseName.IMPORT, PhaseName.EXECUTE
START = PhaseName.START
WHO = Actor(7, "python", "/x.py:3")
FAILED = a_phase(EXECUTE, "tool", Outcome.FAILED, 2)


# --- verdict ---


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        ([BaitRead("/x", None), StartupCode("/x", "y")], Verdict.HIGH),
        ([StartupCode("/x", "y"), Code("0", 1, None, False, "x = 1")], Verdict.MEDIUM),
        ([Code("0", 1, None, False, "x = 1")], Verdict.CLEAN),
        ([], Verdict.CLEAN),
    ],
)
def test_the_worst_finding_decides(events: list[Any], verdict: Verdict) -> None:
    assert report_of(*events).verdict == verdict


def test_a_program_that_could_not_be_looked_at_in_time_is_a_gap() -> None:
    sentences = {1: "a program had gone on before", 2: "2 programs had gone on before"}
    for count, sentence in sentences.items():
        report = report_of(StartsUnchecked(count, "/bin/sh"))
        assert report.verdict == Verdict.UNSEEN
        gaps = report.coverage["gaps"]
        assert [gap for gap in gaps if sentence in gap and gap.endswith(": /bin/sh")]


NOTHING = NotRun(EXECUTE, None, Omission.NOTHING_THERE, "the distribution declares no script")
CALL = PhaseName.CALL
WHOLE = [*map(a_phase, (INSTALL, START, IMPORT, CALL, EXECUTE))]


@pytest.mark.parametrize(
    ("mode", "phases", "not_run"),
    [
        ("install", [a_phase()], []),
        ("import", [a_phase(), a_phase(IMPORT, "x")], []),
        ("execute", [a_phase(), FAILED], []),
        ("detonate", WHOLE, []),
        ("detonate", WHOLE[:4], [NOTHING]),
        ("detonate", [*WHOLE[:4], FAILED], []),
    ],
)
def test_it_is_clean_when_all_ran_and_was_seen(
    mode: str, phases: list[Phase], not_run: list[NotRun]
) -> None:
    report = report_of(mode=mode, phases=phases, not_run=not_run)
    assert (report.verdict, report.gaps) == (Verdict.CLEAN, [])


SILENT = a_phase(IMPORT, "x", python_witness=False)
STOPPED = a_phase(IMPORT, "x", Outcome.TIMEOUT, None)
CRASHED = a_phase(EXECUTE, "x", Outcome.FAILED, None, signal="SIGSEGV")
BROKEN = a_phase(IMPORT, "x", Outcome.FAILED, 1, stderr=Printed("\nKeyError: 'a'\n", 3))
ABSENT = a_phase(IMPORT, "x", Outcome.ERROR, None, reason="no jail")
UNSEEN: dict[str, tuple[dict[str, Any], str]] = {
    "no kernel witness": ({"kernel_witness": False}, "the kernel witness was off"),
    "no Python witness": ({"phases": [a_phase(), SILENT]}, "was silent in import x"),
    "stopped": ({"phases": [a_phase(), STOPPED]}, "timeout: import x: stopped after 45 s"),
    "a signal": ({"phases": [*WHOLE[:3], CRASHED], "mode": "detonate"}, "killed by SIGSEGV"),
    "broken off": ({"phases": [a_phase(), BROKEN]}, "import x: exit code 1: KeyError: 'a'"),
    "not started": ({"phases": [a_phase(), ABSENT]}, "error: import x: no jail"),
    "no installation": (
        {"phases": [a_phase(outcome=Outcome.FAILED, exit_code=1)]},
        "failed: install: exit code 1",
    ),
    "nothing": ({"phases": []}, "error: nothing was run"),
    "an error": ({"error": "no disk"}, "error: no disk"),
    "interrupted": ({"interrupted": True}, "interrupted: the service was stopped"),
    "left out": (
        {"not_run": [NotRun(IMPORT, "y", Omission.LEFT_OUT, "one of more than 8")]},
        "not run: import y: one of more than 8",
    ),
    "no time": (
        {"not_run": [NotRun(IMPORT, "y", Omission.OUT_OF_TIME, "(RUN_BUDGET_SEC)")]},
        "not run: import y: (RUN_BUDGET_SEC)",
    ),
    "not there": (
        {"not_run": [NotRun(IMPORT, None, Omission.NOT_FOUND, "no module")]},
        "not run: import: no module",
    ),
    "forgotten": ({"phases": WHOLE[:3], "mode": "detonate"}, "not run: execute"),
}


@pytest.mark.parametrize("what", UNSEEN)
@pytest.mark.parametrize("grave", [False, True])
def test_what_was_not_seen_is_never_clean(what: str, grave: bool) -> None:
    changes, words = UNSEEN[what]
    changes = {"mode": "import", "phases": [a_phase(), a_phase(IMPORT, "x")]} | changes
    record = Record(judge)
    if grave:
        record.add(a_phase(), BaitRead("/x", None), 0)
    report = report_of(record=record, **changes)
    # A limit is a finding of its own, a medium one.
    unseen = Verdict.MEDIUM if what == "stopped" else Verdict.UNSEEN
    assert report.verdict == (Verdict.HIGH if grave else unseen)
    assert any(words in gap for gap in report.gaps), report.gaps


def test_what_was_lost_is_a_gap_and_a_finding() -> None:
    record = Record(judge)
    record.lose(a_phase(), "Exec", 7)
    record.lose(a_phase(), "folder")
    report = report_of(record=record)
    assert report.verdict == Verdict.MEDIUM
    assert report.gaps == [
        "install: 7 were not kept or looked at: command",
        "install: 1 were not kept or looked at: folder",
    ]
    titles = [finding["title"] for finding in report.lists["findings"]]
    assert titles[0] == "did so much that 7 of one kind were not kept: command"
    assert report.coverage["dropped_events"] == 8


# --- outcome ---


@pytest.mark.parametrize(
    ("mode", "phases", "outcome", "reason"),
    [
        ("detonate", [*WHOLE[:3], FAILED], Outcome.OK, ""),
        ("import", [a_phase(), BROKEN], Outcome.OK, ""),
        ("execute", [a_phase(), FAILED], Outcome.FAILED, "execute tool: exit code 2"),
        ("execute_module", [a_phase(), FAILED], Outcome.FAILED, "execute tool: exit code 2"),
        ("import", [a_phase(), STOPPED], Outcome.TIMEOUT, "import x: stopped after 45 s"),
        ("import", [a_phase(), ABSENT], Outcome.ERROR, "import x: no jail"),
        ("import", [a_phase(), STOPPED, ABSENT], Outcome.TIMEOUT, "import x: stopped"),
        ("install", [a_phase(outcome=Outcome.MEMORY)], Outcome.MEMORY, "RLIMIT_AS_MB"),
        ("install", [a_phase(outcome=Outcome.DISK)], Outcome.DISK, "MAX_DISK_BYTES"),
        ("install", [a_phase(outcome=Outcome.DOWNLOAD_CAP)], Outcome.DOWNLOAD_CAP, "MAX_DOWN"),
        ("install", [], Outcome.ERROR, "nothing was run"),
    ],
)
def test_the_outcome_is_what_the_sandbox_could_do(
    mode: str, phases: list[Phase], outcome: Outcome, reason: str
) -> None:
    report = report_of(mode=mode, phases=phases)
    assert report.outcome == outcome
    assert reason in report.reason


@pytest.mark.parametrize(
    ("omission", "outcome"),
    [
        (Omission.NOTHING_THERE, Outcome.OK),
        (Omission.LEFT_OUT, Outcome.OK),
        (Omission.OUT_OF_TIME, Outcome.TIMEOUT),
        (Omission.NOT_FOUND, Outcome.FAILED),
    ],
)
def test_what_was_not_run_has_its_outcome(omission: Omission, outcome: Outcome) -> None:
    report = report_of(not_run=[NotRun(IMPORT, None, omission, "why")])
    assert report.outcome == outcome
    assert report.coverage["not_run"] == ["import: why"]


def test_stopping_and_errors_come_before_all_else() -> None:
    failed = a_phase(outcome=Outcome.FAILED, exit_code=1)
    assert report_of(phases=[failed], error="no disk").outcome == Outcome.ERROR
    stopped = report_of(phases=[failed], error="no disk", interrupted=True)
    assert (stopped.outcome, stopped.reason) == (
        Outcome.INTERRUPTED,
        "the service was stopped during the run",
    )


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("", "install: exit code 1"),
        ("a\nlast\n\n", "install: exit code 1: last"),
        ("ERROR: No matching distribution\nhint: x\n", "ERROR: No matching distribution"),
        ("ERROR: Failed to build x\nvery.OddError: y\nerror: z", "very.OddError: y"),
        ("KeyError: 1\nsubprocess.CalledProcessError: subprocess-x\n", "KeyError: 1"),
        ("\x1b[31mError\x07", "\\x1b[31mError\\x07"),
    ],
)
def test_a_reason_is_the_line_that_says_what_was_wrong(stderr: str, reason: str) -> None:
    phase = a_phase(outcome=Outcome.FAILED, exit_code=1, stderr=Printed(stderr, len(stderr)))
    report = report_of(phases=[phase])
    assert report.reason.endswith(reason)
    assert report.reason.isprintable()


def test_a_denied_dependency_is_the_reason_of_an_installation_that_fails() -> None:
    phase = a_phase(outcome=Outcome.FAILED, exit_code=1)
    report = report_of(DependencyDenied("torch"), phases=[phase])
    denied = "torch is on the denylist and was not given out, a stand-in was"
    assert report.reason == f"install: {denied}"
    assert report.coverage["notes"] == [denied]


def test_with_a_dependency_withheld_nothing_can_be_clean() -> None:
    report = report_of(DependencyDenied("torch"))
    assert report.verdict == Verdict.UNSEEN
    assert report.gaps == [
        "withheld: torch is on the denylist and was not given out, a stand-in was"
    ]


def test_a_second_installation_decides_nothing() -> None:
    """What the package asks for and does not declare may be broken: that is not its doing."""
    for outcome in (Outcome.FAILED, Outcome.TIMEOUT, Outcome.DOWNLOAD_CAP):
        report = report_of(phases=[a_phase(), a_phase(INSTALL, "of helper", outcome, 1)])
        assert (report.outcome, report.verdict) == (Outcome.OK, Verdict.CLEAN)


def test_what_has_a_second_try_counts_by_that() -> None:
    """A module that failed for want of what was installed later."""
    ran, failed = a_phase(IMPORT, "m"), a_phase(IMPORT, "m", Outcome.FAILED, 1)
    assert report_of(phases=[a_phase(), failed, ran], mode="import").verdict == Verdict.CLEAN
    assert report_of(phases=[a_phase(), ran, failed], mode="import").verdict == Verdict.UNSEEN


def test_what_calls_lose_is_only_told() -> None:
    """They are tried with made-up arguments, as far as there is room for them."""
    record, call = Record(judge), a_phase(CALL)
    record.lose(call, "Code", 7)
    report = report_of(record=record, phases=[a_phase(), call])
    assert (report.verdict, report.gaps) == (Verdict.CLEAN, [])
    assert "call: 7 were not kept or looked at: code" in report.coverage["notes"]


def test_what_calls_send_and_nobody_searched_for_bait_is_a_gap() -> None:
    record, call = Record(judge), a_phase(CALL)
    record.lose(call, f"payload, {SEARCHED_FOR_BAIT}", 7)
    report = report_of(record=record, phases=[a_phase(), call])
    assert report.verdict == Verdict.UNSEEN
    assert report.gaps == ["call: 7 were not kept or looked at: payload, searched for bait"]


@pytest.mark.parametrize(
    ("phase", "name", "is_gap"),
    [
        (a_phase(IMPORT, "all modules"), "x/a.py", True),
        (a_phase(PhaseName.START), "x/a.cpython-311-x86_64-linux-gnu.so", True),
        # Nothing of it is to be run after that.
        (a_phase(IMPORT, "all modules"), "x/data.txt", False),
        (a_phase(EXECUTE, "x"), "x/a.py", False),
        # pip's doing, or a build's.
        (a_phase(), "x/a.py", False),
    ],
)
def test_code_that_removes_itself_is_a_gap(phase: Phase, name: str, is_gap: bool) -> None:
    """What it would have done as somebody else's, or been called for, nobody has seen."""
    path = f"{WORK_IN_JAIL}/site/x-1.0/lib/python3.11/site-packages/{name}"
    removed = (phase, FileChanged(path, Change.DELETED, None, None))
    gaps = report_of(removed, phases=[a_phase(), phase], mode="install").gaps
    assert gaps == [f"{phase.title}: {path} was removed, and not run again"] * is_gap


def test_what_workers_tell_is_noted() -> None:
    events: list[Event] = [
        Noticed(Notice.SHADOWED, "wave", text="/usr/lib/wave.py"),
        Noticed(Notice.COUNTED, "imports", text="2 raised, 8 ran"),
        Noticed(Notice.COUNTED, "imports", text="8 ran"),
        Noticed(Notice.ENDED, "", how="not run", text="3 of 9 jobs"),
    ]
    notes = report_of(*events, phases=[a_phase(IMPORT, "all modules")]).coverage["notes"]
    assert [note.partition(": ")[2] for note in notes] == [
        "wave is found in /usr/lib/wave.py first; its own was run by its path",
        "of its modules 2 raised, 8 ran",
        "not run: 3 of 9 jobs",
    ]


def test_a_limit_is_a_finding() -> None:
    report = report_of(phases=[a_phase(outcome=Outcome.TIMEOUT)])
    (finding,) = report.lists["findings"]
    assert (finding["severity"], finding["rule"]) == ("medium", "limit.hit")
    assert finding["title"] == "install: stopped after 45 s (RUN_TIMEOUT_SEC)"


def test_a_server_that_was_stopped_is_a_gap_and_no_act() -> None:
    """It serves until somebody stops it; that not all was seen is told in any case."""
    for name, target, severity, verdict in (
        (EXECUTE, "127.0.0.1:0", "info", Verdict.UNSEEN),
        (EXECUTE, "[::1]:8888", "info", Verdict.UNSEEN),
        # Others can reach it; a file is none; nobody asked for it.
        (EXECUTE, "0.0.0.0:80", "medium", Verdict.MEDIUM),
        (EXECUTE, "unix:/tmp/x", "medium", Verdict.MEDIUM),
        (IMPORT, "127.0.0.1:0", "medium", Verdict.MEDIUM),
    ):
        phase = a_phase(name, "x", Outcome.TIMEOUT, None)
        listens = Connection(Net.OTHER, target, True, None, NOBODY)
        report = report_of((phase, listens), phases=[a_phase(), phase], mode="detonate")
        found = {item["rule"]: item["severity"] for item in report.lists["findings"]}
        assert (found["limit.hit"], report.verdict) == (severity, verdict), (name, target)
    hanging = a_phase(EXECUTE, "x", Outcome.TIMEOUT, None)
    assert report_of(phases=[a_phase(), hanging], mode="detonate").verdict is Verdict.MEDIUM


def test_notes_say_what_else_there_is_to_know() -> None:
    events: list[Event] = [LeftAtWork(2, "sleep"), IndexRefused("/simple/x", "no such page")]
    report = report_of(*events, notes=["as root"], not_run=[NOTHING])
    assert report.coverage["notes"] == [
        "as root",
        "install: what 2 processes were still waiting to do was not seen",
        "install: refused /simple/x: no such page",
        "execute: the distribution declares no script",
    ]


# --- findings by act ---


def heads(report: Report) -> list[str]:
    return [group.finding.title for group in report.groups]


def test_every_rule_has_its_place() -> None:
    assert set(RULE_ORDER) == set(Rule)
    assert len(RULE_ORDER) == len(Rule)


def test_the_gravest_comes_first_and_no_flood_hides_another_rule() -> None:
    flood = [Connection(Net.TCP, f"192.0.2.1:{n}", False, None, Actor(7)) for n in range(400)]
    rare: list[Event] = [BaitRead("/home/dev/.ssh/id_rsa", None), StartupCode("/x.pth", "y")]
    report = report_of(*flood, *rare, FileChanged("/home/dev/.bashrc", Change.CREATED, 1, None))
    assert heads(report)[:4] == [
        "reads or touches /home/dev/.ssh/id_rsa",
        "created /home/dev/.bashrc (shell start)",
        "connects (tcp) to 192.0.2.1:0",
        "connects (tcp) to 192.0.2.1:1",
    ]
    assert heads(report)[-1] == "/x.pth runs code at every interpreter start: y"


def test_findings_of_one_event_are_one_act() -> None:
    hidden = Actor(7, "python", hidden=True)
    report = report_of(Connection(Net.TCP, "192.0.2.1:1", False, None, hidden))
    assert len(report.lists["findings"]) == 2
    assert heads(report) == [
        "from Python, but unseen by Python's own witness: connects (tcp) to 192.0.2.1:1"
    ]


def test_what_one_line_does_again_and_again_is_one_act() -> None:
    events = [Connection(Net.TCP, f"192.0.2.1:{n}", False, None, WHO) for n in range(90)]
    (group,) = report_of(*events, *events[:1]).groups
    assert (group.count, len(group.titles)) == (91, 50)
    assert group.finding.title == "connects (tcp) to 192.0.2.1:0"


def test_the_same_in_several_phases_is_one_act() -> None:
    phases = [a_phase(), a_phase(START), a_phase(IMPORT, "x"), a_phase(IMPORT, "y")]
    asked = NameAsked("evil.example", Actor(7, "python"))
    report = report_of(*[(phase, asked) for phase in phases[1:]], phases=phases)
    (group,) = report.groups
    assert (group.phases, group.count) == ([START, IMPORT], 3)
    assert len(report.lists["findings"]) == 2  # of the contract: once for each phase


# --- the lists of the contract ---


def test_each_event_stands_in_its_list() -> None:
    events: list[Event] = [
        Downloaded("x.whl", 3, "cd", True),
        Connection(Net.TCP, "192.0.2.1:443", False, None, WHO),
        Connection(Net.TCP, "0.0.0.0:80", True, None, WHO),
        Connection(Net.TCP, "127.0.0.1:3141", False, None, Actor(7, "pip", own=True)),
        NameAsked("evil.example", Actor(7, "pip", own=True)),
        FileChanged("/tmp/x", Change.CREATED, 3, "/x.py:3"),  # noqa: S108
        Code("ab", 3, "/x.py:3", True, "x=1"),
        ProcessEnded(7, 6, ("python", "x"), 1, None, False, False),
        Exec("/bin/true", ("true",), None, WHO),
    ]
    report = report_of(*events)
    body = json.loads(as_json(report))
    assert [*body] == [
        *("phases", "findings", "downloads", "network", "requests", "processes", "files"),
        *("code", "indicators", "coverage", "changes"),
    ]
    assert body["changes"] is None
    downloaded = {"file": "x.whl", "bytes": 3, "sha256": "cd", "from_cache": True, "url": ""}
    assert body["downloads"] == [downloaded]
    assert [(item["kind"], item["target"]) for item in body["network"]] == [
        ("tcp", "192.0.2.1:443"),
        ("other", "listen 0.0.0.0:80"),
        ("dns", "evil.example"),
    ]
    first = body["network"][0]
    assert (first["process"], first["place"]) == ("python", "/x.py:3")
    assert (first["witness"], first["answer"]) == (["kernel", "python"], "refused")
    assert {"name", "tls", "payload", "phase", "trigger"} < {*first}
    assert body["processes"][0]["argv"] == ["python", "x"]
    assert (body["files"][0]["change"], body["files"][0]["sha256"]) == ("created", None)
    assert (body["code"][0]["at"], body["code"][0]["text"]) == ("/x.py:3", "x=1")
    assert body["phases"][0]["stdout"] == {"text": "", "bytes": 0, "truncated": False}
    assert body["coverage"]["decoy_internet"] == "off"
    finding = body["findings"][0]
    names = ("severity", "rule", "phase", "title", "at", "trigger", "process", "technique")
    assert {*finding} == {*names}


def test_the_json_begins_as_the_service_expects() -> None:
    assert as_json(report_of()).startswith(b'{"phases":')


def test_findings_are_sorted_by_severity() -> None:
    events: list[Event] = [
        StartupCode("/x", "y"),
        Code("0", 1, None, False, "x"),
        BaitRead("/x", None),
    ]
    severities = [item["severity"] for item in report_of(*events).lists["findings"]]
    assert severities == ["high", "medium", "info"]


def test_an_item_is_listed_once() -> None:
    event = FileChanged("/tmp/x", Change.CREATED, 3, None)  # noqa: S108
    assert len(report_of(event, event).lists["files"]) == 1


def test_of_a_full_list_the_worse_gives_way() -> None:
    entries = [Entry("x", {"number": n}, {}, rank=n % 2) for n in range(3 * MAX_LIST_ITEMS)]
    items, cut = best_items(entries)
    assert len(items) == MAX_LIST_ITEMS
    assert cut == 2 * MAX_LIST_ITEMS
    assert [item["number"] for item in items] == [2 * n for n in range(MAX_LIST_ITEMS)]


def test_a_crowd_gives_way_to_the_rare() -> None:
    crowd = [BaitRead(f"/{n}", None) for n in range(600)]
    report = report_of(*crowd, StartupCode("/x.pth", "y"))
    rules = [item["rule"] for item in report.lists["findings"]]
    assert rules == ["secret.read"] * (MAX_LIST_ITEMS - 1) + ["pth.code"]
    assert report.coverage["dropped_events"] == 101
    assert "101 entries had no room in the list findings" in report.coverage["notes"][0]
    # What is only not listed was judged: it makes no gap.
    assert report.gaps == []


def test_a_process_that_acted_stays_in_a_flood_of_processes() -> None:
    flood = [ProcessEnded(n, 1, ("x",), 0, None, False, False) for n in range(2, 700)]
    actor = ProcessEnded(900, 1, ("actor",), 0, None, False, True)
    report = report_of(*flood, actor)
    assert report.lists["processes"][-1]["argv"] == ["actor"]


# --- bounds ---


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_report_is_ascii_json_of_bounded_size(kind: str) -> None:
    for count in (1, 300):
        body = as_json(saying(HOSTILE[kind], count))
        assert body.isascii()
        assert len(body) <= MAX_REPORT_BYTES
        found = json.loads(body)
        for name, limit_bytes in LIST_BYTES.items():
            assert len(json.dumps(found[name])) <= limit_bytes, name


def test_the_shares_are_within_the_whole() -> None:
    assert sum(LIST_BYTES.values()) + 1000 <= MAX_REPORT_BYTES


def test_control_characters_make_no_larger_report() -> None:
    """Each takes six bytes as JSON: 520 sources of them, and streams, were once 196 MB."""
    codes = [Code(f"{n:064}", 64 << 10, None, True, "\x01" * (64 << 10)) for n in range(500)]
    stream = Printed("\x01" * (1 << 20), 1 << 20)
    phases = [a_phase(IMPORT, f"m{n}", stdout=stream, stderr=stream) for n in range(8)]
    report = report_of(*codes, phases=phases)
    body = as_json(report)
    assert len(body) <= MAX_REPORT_BYTES
    found = json.loads(body)
    count = len(found["code"])
    assert count == len(report.lists["code"]) > 100
    assert all(len(item["text"]) > 100 for item in found["code"])
    assert all(phase["stdout"]["truncated"] for phase in found["phases"])
    assert len(found["phases"][0]["stdout"]["text"]) > 10_000
    assert found["coverage"]["shortened"] == {"phases": 8, "code": count}


def test_a_flood_in_one_list_takes_nothing_from_another() -> None:
    stream = Printed("y" * (1 << 20), 1 << 20)
    code = Code("0", 60_000, None, True, "x" * 60_000)
    report = report_of(code, phases=[a_phase(stdout=stream, stderr=stream)] * 10)
    assert json.loads(as_json(report))["code"][0]["text"] == "x" * 60_000


def test_what_is_small_stays_whole_beside_what_is_large() -> None:
    items = [{"text": "x" * 10}, {"text": "y" * 10_000}, {"text": "z" * 10_000}]
    texts, cut = fitted(items, 3_000)
    assert json.loads(texts[0]) == items[0]
    assert cut == 2
    assert sum(len(text) + 2 for text in texts) <= 3_000
    assert all(len(text) > 500 for text in texts[1:])


def test_what_can_not_be_made_to_fit_is_left_out_and_counted() -> None:
    texts, cut = fitted([{"number": 10**50}], 20)
    assert (texts, cut) == ([], 1)


def test_texts_and_lists_are_cut() -> None:
    value = {"text": "abcdef", "truncated": False, "bytes": 6, "list": [1, 2, 3, 4], "no": None}
    assert with_shorter_texts(value, 3) == {
        "text": "ab…",
        "truncated": True,
        "bytes": 6,
        "list": [1, 2, 3],
        "no": None,
    }
    assert with_shorter_texts(value, 6) == value


def test_times_are_iso() -> None:
    report = assemble(
        an_order(),
        SETTINGS,
        Record(judge),
        [a_phase()],
        kernel_witness=True,
        started_at_sec=0,
        finished_at_sec=1.5,
    )
    assert report.started_at == "1970-01-01T00:00:00.000+00:00"
    assert report.finished_at == "1970-01-01T00:00:01.500+00:00"


def test_severities_are_ordered_from_the_gravest() -> None:
    assert [*Severity] == [Severity.HIGH, Severity.MEDIUM, Severity.INFO]
