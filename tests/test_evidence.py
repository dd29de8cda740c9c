"""The evidence: a line for each kind of event, and a file that stays within its bounds."""

import gzip
import json
import os
import re
from typing import Any, get_args

import pytest
from conftest import ROOT

from jail.watch import evidence as evidence_room
from jail.watch.events import (
    Actor,
    BaitLeaked,
    BaitRead,
    Change,
    Code,
    Connection,
    DependencyDenied,
    Downloaded,
    Event,
    Exec,
    FailedOften,
    FileChanged,
    IndexRefused,
    LeftAtWork,
    NameAsked,
    Net,
    Outcome,
    Phase,
    PhaseName,
    Printed,
    ProcessEnded,
    Seen,
    StartsUnchecked,
    StartupCode,
    TraceContradicted,
    TraceCut,
    WitnessTampered,
    WorldEvent,
)
from jail.watch.evidence import Evidence, describe
from jail.watch.noticed import (
    ChannelLeft,
    CommandTaken,
    LookedInto,
    MachineRead,
    Notice,
    Noticed,
    OddlyNamed,
    PlaceTaken,
    ReleaseNoted,
    Remark,
    Slept,
    Sought,
    Walked,
    WriteRefused,
)
from jail.watch.world_events import (
    Conversation,
    Kept,
    NamesDecoded,
    Payload,
    PiecesJoined,
    RemoteCode,
    Reply,
    Request,
    Speaker,
)

ACTOR = Actor(pid=7, process="python x.py", place="x.py:1", hidden=True)
WHO = {
    "pid": 7,
    "process": "python x.py",
    "place": "x.py:1",
    "witness": ["kernel", "python"],
    "own": False,
    "hidden": True,
}
SENT = Payload(3, "ab", "sent")
PHASE = Phase(PhaseName.IMPORT, "x")

EVENTS: list[tuple[Event, dict[str, Any]]] = [
    (
        Exec("/bin/sh", ("sh", "-c", "id"), None, ACTOR),
        {"kind": "exec", "target": "/bin/sh", "argv": ["sh", "-c", "id"], "error": None} | WHO,
    ),
    (
        Connection(Net.TCP, "192.0.2.1:80", False, "ENETUNREACH", ACTOR),
        {"kind": "network", "target": "192.0.2.1:80", "net": "tcp", "error": "ENETUNREACH"} | WHO,
    ),
    (
        Connection(Net.TCP, "0.0.0.0:80", True, None, ACTOR),
        {"kind": "network", "target": "listen 0.0.0.0:80", "net": "tcp", "error": None} | WHO,
    ),
    (NameAsked("a.example", ACTOR), {"kind": "dns", "target": "a.example", "net": "dns"} | WHO),
    (
        FileChanged("/home/x", Change.CREATED, 3, "x.py:2"),
        {"kind": "file", "path": "/home/x", "change": "created", "bytes": 3, "place": "x.py:2"},
    ),
    (
        StartupCode("/x.pth", "import os"),
        {"kind": "pth", "path": "/x.pth", "line": "import os", "place": "/x.pth"},
    ),
    (
        Code("ab", 3, "x.py:3", True, "1+1", "made of blanks"),
        {
            "kind": "code",
            "sha256": "ab",
            "bytes": 3,
            "place": "x.py:3",
            "decoded": True,
            "text": "1+1",
            "how": "made of blanks",
        },
    ),
    (BaitRead("/home/dev/.pypirc", None), {"kind": "bait", "target": "/home/dev/.pypirc"}),
    (
        BaitLeaked("NPM_TOKEN", "command curl", ACTOR),
        {"kind": "leak", "target": "NPM_TOKEN", "reason": "command curl"} | WHO,
    ),
    (WitnessTampered("no such pid"), {"kind": "tamper", "reason": "no such pid"}),
    (TraceContradicted("both", ACTOR), {"kind": "contradicted", "reason": "both"} | WHO),
    (TraceCut("connect", ACTOR), {"kind": "cut", "target": "connect"} | WHO),
    (
        FailedOften("/x", "ENOENT", 300, ACTOR),
        {"kind": "failed_often", "target": "/x", "error": "ENOENT", "count": 300} | WHO,
    ),
    (StartsUnchecked(2, "/bin/x"), {"kind": "unchecked", "target": "/bin/x", "count": 2}),
    (LeftAtWork(2, "sleep 9"), {"kind": "left", "count": 2, "process": "sleep 9"}),
    (
        Downloaded("x.whl", 9, "cd", True),
        {"kind": "download", "file": "x.whl", "bytes": 9, "sha256": "cd", "from_cache": True},
    ),
    (
        IndexRefused("GET /", "not plain"),
        {"kind": "refused", "target": "GET /", "reason": "not plain"},
    ),
    (DependencyDenied("torch"), {"kind": "denied", "project": "torch"}),
    (
        Conversation(
            Net.TCP,
            "24.1.2.3:22",
            0,
            "a.example",
            Reply.DECOY,
            Speaker.DECOY,
            None,
            None,
            (),
            actor=ACTOR,
        ),
        {"kind": "conversation", "target": "24.1.2.3:22", "net": "tcp", "name": "a.example"}
        | {"reply": "decoy", "first": "decoy", "tls": None, "payload": None, "bait": []}
        | WHO,
    ),
    (
        Request(
            "24.1.2.3:80", 0, "POST", "http://a.example/", (("A", "b"),), SENT, 200, actor=ACTOR
        ),
        {"kind": "request", "method": "POST", "url": "http://a.example/", "headers": [["A", "b"]]}
        | {"status": 200, "environment": False, "opaque": False}
        | {"body": {"size_bytes": 3, "sha256": "ab", "text": "sent", "truncated": False}}
        | WHO,
    ),
    (
        RemoteCode("http://a.example/x", Kept.FILE, "/tmp/x", "x.py:4", ACTOR),  # noqa: S108
        {"kind": "remote_code", "url": "http://a.example/x", "kept": "file"} | WHO,
    ),
    (
        NamesDecoded("a.example", 3, "root"),
        {"kind": "names_decoded", "domain": "a.example", "questions": 3, "text": "root"},
    ),
    (
        PiecesJoined("https://a.example", 3, ("NPM_TOKEN",)),
        {"kind": "pieces_joined", "place": "https://a.example", "count": 3, "bait": ["NPM_TOKEN"]}
        | {"environment": False},
    ),
    (
        Noticed(Notice.ENDED, "s.proxy", "raised", "ImportError", "x.py:1"),
        {"kind": "notice", "notice": "ended", "target": "s.proxy", "how": "raised"}
        | {"reason": "ImportError", "place": "x.py:1"},
    ),
    (WriteRefused("/etc/x", "x.py:1"), {"kind": "write_refused", "path": "/etc/x"}),
    (
        Sought(("npm",), ("/home/x/.npmrc",), False, "x.py:1"),
        {"kind": "sought", "stores": ["npm"], "paths": ["/home/x/.npmrc"], "is_grave": False},
    ),
    (Walked(("/home/x",), "x.py:1"), {"kind": "walked", "folders": ["/home/x"]}),
    (
        MachineRead(("uptime",), ("/proc/uptime",), "x.py:1"),
        {"kind": "machine_read", "signs": ["uptime"], "paths": ["/proc/uptime"]},
    ),
    (
        PlaceTaken("bin/activate", "virtual environment", "x"),
        {
            "kind": "place_taken",
            "path": "bin/activate",
            "used_by": "virtual environment",
            "project": "x",
        },
    ),
    (
        OddlyNamed("a/\u0455s.py", "x"),
        {"kind": "oddly_named", "path": "a/\u0455s.py", "project": "x"},
    ),
    (
        ChannelLeft("/home/x/f", "FIFO"),
        {"kind": "channel_left", "path": "/home/x/f", "form": "FIFO"},
    ),
    (CommandTaken("aws", "x"), {"kind": "command_taken", "name": "aws", "project": "x"}),
    (ReleaseNoted("it was yanked"), {"kind": "release", "text": "it was yanked"}),
    (
        LookedInto("ptrace(PTRACE_ATTACH)", "./x"),
        {"kind": "looked_into", "call": "ptrace(PTRACE_ATTACH)", "process": "./x"},
    ),
    (Slept(3600, "python x.py"), {"kind": "slept", "seconds": 3600, "process": "python x.py"}),
    (
        ProcessEnded(7, 1, ("x",), 0, None, False, True),
        {
            "kind": "process",
            "pid": 7,
            "ppid": 1,
            "argv": ["x"],
            "exit_code": 0,
            "signal": None,
            "own": False,
            "acted": True,
        },
    ),
]


def readme_rows() -> list[tuple[set[str], set[str]]]:
    """README.md's table of the evidence: the kinds of each row, and all words in backticks there.

    | `download`, `refused` | what the index gave, what was refused it and why |
    """
    table = (ROOT / "README.md").read_text().partition("| `kind` | What it has |")[2]
    rows = [line for line in table.partition("\n\n")[0].splitlines() if line.startswith("| `")]
    words = [re.findall(r"`([^`]+)`", row) for row in rows]
    heads = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in rows]
    return [(set(head), set(found)) for head, found in zip(heads, words, strict=True)]


def test_the_readme_has_each_kind_and_no_field_that_there_is_not() -> None:
    fields: dict[str, set[str]] = {}
    for event, _ in EVENTS:
        about = describe(event)
        fields.setdefault(about["kind"], set()).update(about)
    rows = readme_rows()
    told = set().union(*(kinds for kinds, _ in rows))
    assert fields.keys() <= told
    # What stands there for a value is no name of a field.
    known = set().union(*fields.values()) - {*Kept}
    for kinds, words in rows:
        there = set().union(*(fields.get(kind, known) for kind in kinds))
        assert (words - kinds) & known <= there, kinds
    (notices,) = [words for kinds, words in rows if "notice" in kinds]
    assert {*Notice} <= notices


def lines(evidence: Evidence) -> list[dict[str, Any]]:
    text = gzip.decompress(evidence.close()).decode("ascii")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(("event", "fields"), EVENTS, ids=[fields["kind"] for _, fields in EVENTS])
def test_an_event_has_its_line(event: Event, fields: dict[str, Any]) -> None:
    evidence = Evidence()
    evidence.keep(Seen(event, PHASE, 1.23456789, ()))
    line = lines(evidence)[0]
    assert line.items() >= fields.items()
    assert (line["at"], line["phase"], line["trigger"]) == (1.234568, "import", "x")


def test_every_kind_of_event_is_tried() -> None:
    bases = (WorldEvent, Remark)
    kinds = {*get_args(Event), *(kind for base in bases for kind in base.__subclasses__())}
    kinds -= {*bases}
    assert {type(event) for event, _ in EVENTS} == kinds


def test_output_and_end_have_lines_too() -> None:
    evidence = Evidence()
    evidence.keep_output(PHASE, 1.0, "stdout", Printed("text", 9, True))
    phase = Phase(PhaseName.START, None, Outcome.FAILED, 3, None, 0.5, reason="why")
    evidence.keep_end(phase, 2.0, {"Exec": 4})
    output, end = lines(evidence)
    assert (output["kind"], output["stream"], output["text"]) == ("output", "stdout", "text")
    assert (output["bytes"], output["truncated"]) == (9, True)
    assert (end["kind"], end["outcome"], end["reason"]) == ("end", "failed", "why")
    assert end["exit_code"] == 3
    assert (end["duration_s"], end["dropped"], end["python_witness"]) == (0.5, {"Exec": 4}, False)


def test_what_does_not_fit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_room, "MAX_EVIDENCE_BYTES", 1000)
    evidence = Evidence()
    for _ in range(20):
        evidence.keep(Seen(DependencyDenied("torch"), PHASE, 1.0, ()))
    lost = evidence.take_lost()
    assert lost > 5
    assert evidence.take_lost() == 0
    assert len(lines(evidence)) == 20 - lost


def test_what_can_not_be_compressed_stays_within_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence_room, "MAX_PACKED_BYTES", 2_000_000)
    evidence = Evidence()
    for _ in range(200):
        evidence.keep(Seen(DependencyDenied(os.urandom(20_000).hex()), PHASE, 1.0, ()))
    assert evidence.take_lost()
    assert 1_000_000 < len(evidence.close()) <= 2_000_000
