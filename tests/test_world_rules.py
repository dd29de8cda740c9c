"""What the decoy internet saw, as findings and in the lists of a report."""

from typing import Any

import pytest
from reports import a_phase, report_of

from jail.report.rows import render_text
from jail.report.rules import judge
from jail.report.verdict import Report
from jail.watch.events import (
    Actor,
    BaitLeaked,
    BaitRead,
    Connection,
    Event,
    Exec,
    NameAsked,
    Net,
    Phase,
    PhaseName,
    Rule,
    Severity,
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
    Tls,
)

ACTOR = Actor(7, "python x.py", "/x.py:3")
URL = "https://evil.example.com/c"
TARGET = "24.1.2.3:443"
NOTHING = Payload(0, "", "")
NAME = NameAsked("evil.example.com", ACTOR)
CONNECTION = Connection(Net.TCP, TARGET, False, None, ACTOR)


def request(url: str = URL, **fields: Any) -> Request:
    body = fields.pop("body", NOTHING)
    return Request(TARGET, 0, "POST", url, (("A", "b"),), body, 200, actor=ACTOR, **fields)


def conversation(**fields: Any) -> Conversation:
    about = {"tls": Tls("evil.example.com", True)} | fields
    about |= {"actor": ACTOR}
    start = (Net.TCP, TARGET, 0, "evil.example.com", Reply.DECOY, Speaker.PACKAGE)
    return Conversation(*start, **about)


def found(report: Report) -> list[tuple[str, str, str]]:
    findings = report.lists["findings"]
    return [(item["severity"], item["rule"], item["title"]) for item in findings]


@pytest.mark.parametrize(
    ("event", "rule", "severity", "title"),
    [
        (
            request(body=Payload(1234, "ab", "x"), bait=("NPM_TOKEN",)),
            Rule.SECRET_SENT,
            Severity.HIGH,
            f"sends NPM_TOKEN to {URL}",
        ),
        (
            request(environment=True),
            Rule.SECRET_SENT,
            Severity.HIGH,
            f"sends its whole environment to {URL}",
        ),
        (
            conversation(tls=None, payload=Payload(9, "ab", "x"), bait=("NPM_TOKEN",)),
            Rule.SECRET_SENT,
            Severity.HIGH,
            f"sends NPM_TOKEN to {TARGET} (evil.example.com)",
        ),
        (
            RemoteCode(URL, Kept.EXECUTED, "x", "/x.py:3", ACTOR),
            Rule.CODE_REMOTE,
            Severity.HIGH,
            f"executes what it fetched from {URL}",
        ),
        (
            RemoteCode(URL, Kept.FILE, "/home/dev/agent", "/x.py:3", ACTOR),
            Rule.CODE_REMOTE,
            Severity.HIGH,
            f"keeps in a file what it fetched from {URL}: /home/dev/agent",
        ),
        # Data that nobody ran.
        (
            RemoteCode(URL, Kept.FILE, "/home/dev/.cache/x/list.json", None, ACTOR),
            Rule.CODE_REMOTE,
            Severity.MEDIUM,
            f"keeps in a file what it fetched from {URL}: /home/dev/.cache/x/list.json",
        ),
        (
            PiecesJoined("https://evil.example.com", 5, ("NPM_TOKEN",)),
            Rule.SECRET_SENT,
            Severity.HIGH,
            "sends NPM_TOKEN in 5 pieces to https://evil.example.com",
        ),
        (
            NamesDecoded("evil.example.com", 3, "x", ("NPM_TOKEN",)),
            Rule.SECRET_SENT,
            Severity.HIGH,
            "sends NPM_TOKEN in names below evil.example.com",
        ),
    ],
)
def test_an_event_has_its_finding(event: Event, rule: Rule, severity: Severity, title: str) -> None:
    findings = judge(Phase(PhaseName.IMPORT, "x"), event)
    told = [(finding.severity, finding.rule, finding.title) for finding in findings]
    assert (severity, rule, title) in told


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        (PhaseName.INSTALL, Severity.HIGH),
        (PhaseName.IMPORT, Severity.HIGH),
        (PhaseName.EXECUTE, Severity.MEDIUM),
        (PhaseName.CALL, Severity.INFO),
    ],
)
def test_what_a_program_is_for_is_no_crime(name: PhaseName, severity: Severity) -> None:
    (finding,) = judge(Phase(name, "x"), request())
    assert finding.severity == severity


def test_a_function_that_keeps_what_it_fetches_is_only_told() -> None:
    kept = RemoteCode(URL, Kept.FILE, "/home/dev/agent", "/x.py:3", ACTOR)
    executed = RemoteCode(URL, Kept.EXECUTED, "x", "/x.py:3", ACTOR)
    for event, severity in ((kept, Severity.INFO), (executed, Severity.HIGH)):
        (found,) = judge(Phase(PhaseName.CALL), event)
        assert found.severity is severity


def test_one_act_is_one_line_with_the_best_detail() -> None:
    sent = request(body=Payload(1234, "ab", "x"))
    report = report_of(NAME, CONNECTION, conversation(), sent)
    assert found(report) == [("high", "network.attempt", f"POST {URL}, 1,234 bytes")]


def test_what_another_phase_did_is_told_too() -> None:
    other = a_phase(PhaseName.IMPORT, "x")
    report = report_of(NAME, conversation(), request(), (other, NAME), phases=[a_phase(), other])
    assert [title for _, _, title in found(report)] == [
        f"POST {URL}",
        "asks for the name evil.example.com",
    ]


def test_a_connection_on_which_nothing_was_said_is_told() -> None:
    report = report_of(NAME, CONNECTION, conversation(tls=None))
    assert [rule for _, rule, _ in found(report)] == ["network.attempt"] * len(found(report))
    assert any(TARGET in title for _, _, title in found(report))


def test_the_entry_of_a_connection_has_what_the_decoy_knows() -> None:
    sent = Payload(3, "ab", "abc")
    report = report_of(CONNECTION, conversation(payload=sent, tls=Tls("evil.example.com", False)))
    (item,) = report.lists["network"]
    assert (item["answer"], item["name"]) == ("decoy", "evil.example.com")
    assert item["tls"] == {"sni": "evil.example.com", "trusted_us": False}
    assert item["payload"]["text"] == "abc"


def test_without_the_decoy_a_connection_was_refused() -> None:
    (item,) = report_of(CONNECTION).lists["network"]
    assert (item["answer"], item["tls"], item["payload"]) == ("refused", None, None)


def test_urls_are_listed_once_with_what_was_sent() -> None:
    body = Payload(3, "ab", "key")
    text = render_text(report_of(request(body=body, bait=("NPM_TOKEN",)), request())).decode()
    assert "\nURLs (1)\n" in text
    assert f"  POST {URL}  (install, /x.py:3, 3 bytes, sends NPM_TOKEN, 2 times)" in text
    assert "| A: b" in text
    assert "| key" in text


def test_a_program_that_only_starts_is_no_remote_code() -> None:
    event = Exec("/bin/true", ("/bin/true",), None, ACTOR)
    rules = {finding.rule for finding in judge(Phase(PhaseName.IMPORT, "x"), event)}
    assert Rule.CODE_REMOTE not in rules


def test_a_function_may_run_an_installer_that_everybody_knows() -> None:
    known = RemoteCode("https://sh.rustup.rs/", Kept.EXECUTED, "sh", None, ACTOR)
    other = RemoteCode("https://sh.rustup.rs.evil.example/", Kept.EXECUTED, "sh", None, ACTOR)
    severities = [
        judge(Phase(name), event)[0].severity
        for name, event in (
            (PhaseName.CALL, known),
            (PhaseName.CALL, other),
            (PhaseName.IMPORT, known),
        )
    ]
    assert severities == [Severity.MEDIUM, Severity.HIGH, Severity.HIGH]


GOOGLE = "~/.config/gcloud/application_default_credentials.json"


@pytest.mark.parametrize(
    ("url", "bait", "body", "severity"),
    [
        ("https://oauth2.googleapis.com/token", (GOOGLE,), Payload(99, "ab", "x"), "info"),
        ("https://oauth2.googleapis.com.evil.example/token", (GOOGLE,), NOTHING, "high"),
        ("https://oauth2.googleapis.com/token", (GOOGLE, "NPM_TOKEN"), NOTHING, "high"),
        ("https://oauth2.googleapis.com/token", ("NPM_TOKEN",), NOTHING, "high"),
    ],
)
def test_a_secret_that_is_sent_where_it_belongs_is_no_theft(
    url: str, bait: tuple[str, ...], body: Payload, severity: str
) -> None:
    told = found(report_of((Phase(PhaseName.CALL, "x"), request(url, bait=bait, body=body))))
    assert [item[0] for item in told if item[1] == Rule.SECRET_SENT] == [severity]


def test_what_can_not_be_read_is_told_with_the_bait_that_was_read_before() -> None:
    called = Phase(PhaseName.CALL, "x")
    sent = request(body=Payload(1234, "ab", "x"), opaque=True)
    readable = request("https://fair.example.com/", body=Payload(9, "ab", "x"))
    read = BaitRead("/home/dev/.aws/credentials", "/x.py:2", None)
    title = f"POST {URL}, 1,234 bytes that can't be read"
    fair = ("info", "network.attempt", "POST https://fair.example.com/, 9 bytes")
    assert found(report_of((called, sent), (called, readable))) == [
        # Variables are read unseen: it may be those.
        ("medium", "network.attempt", title),
        fair,
    ]
    told = found(report_of((called, sent), (called, readable), (called, read)))
    late = f"{title}, after /home/dev/.aws/credentials was read"
    assert ("high", "network.attempt", late) in told
    assert fair in told


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        (
            {"payload": Payload(99, "ab", "x"), "opaque": True, "tls": None},
            f"sends 99 bytes that can't be read to {TARGET} (evil.example.com)",
        ),
        (
            {"tls": Tls("evil.example.com", False)},
            f"speaks TLS with {TARGET} (evil.example.com) and trusts nobody but its own authority",
        ),
    ],
)
def test_so_is_what_can_not_be_read_of_a_connection(fields: dict[str, Any], title: str) -> None:
    called = Phase(PhaseName.CALL, "x")
    talk = conversation(**fields)
    read = BaitRead("/home/dev/.ssh/id_rsa", "/x.py:2", None)
    own = BaitRead("/home/dev/.aws/credentials", "/x.py:2", "botocore")
    assert ("info", "network.attempt", title) in found(report_of((called, talk), (called, own)))
    late = ("high", "network.attempt", f"{title}, after /home/dev/.ssh/id_rsa was read")
    assert late in found(report_of((called, talk), (called, read)))


@pytest.mark.parametrize(
    ("phase", "severity"), [(PhaseName.IMPORT, "high"), (PhaseName.EXECUTE, "medium")]
)
def test_a_connection_is_told_with_the_name_that_it_was_meant_for(
    phase: PhaseName, severity: str
) -> None:
    """Its address is made up; and to connect to a name is no worse than to send something there."""
    at = Phase(phase, "x")
    told = found(report_of((at, NAME), (at, CONNECTION), (at, conversation(tls=None))))
    title = f"connects (tcp) to {TARGET} (evil.example.com)"
    assert told == [(severity, "network.attempt", title)]


def test_a_question_that_is_a_request_is_told_once() -> None:
    at = Phase(PhaseName.IMPORT, "x")
    asked = request("https://dns.google/resolve?type=TXT&name=evil.example.com")
    (told,) = found(report_of((at, NAME), (at, asked)))
    assert told[2].startswith("POST https://dns.google/resolve?")


def test_what_the_trace_saw_of_what_was_sent_is_not_told_again() -> None:
    leak = BaitLeaked("NPM_TOKEN", f"packet to {TARGET}", ACTOR)
    elsewhere = BaitLeaked("NPM_TOKEN", "packet to 45.9.148.3:9", ACTOR)
    sent = conversation(tls=None, payload=Payload(40, "ab", "x"), bait=("NPM_TOKEN",))
    at = Phase(PhaseName.IMPORT, "x")
    rules = [rule for _, rule, _ in found(report_of((at, leak), (at, sent)))]
    assert sorted(rules) == ["network.attempt", "secret.sent"]
    rules = [rule for _, rule, _ in found(report_of((at, elsewhere), (at, sent)))]
    assert "secret.read" in rules


@pytest.mark.parametrize(
    ("kept", "subject", "sent", "is_told"),
    [
        (Kept.EXECUTED, "x = 1", NOTHING, False),
        # What was sent on the way counts beside what came back.
        (Kept.EXECUTED, "x = 1", Payload(9, "ab", "x"), True),
        # Data that is only kept is less than that the package asked for it.
        (Kept.FILE, "/home/dev/.cache/x/list.json", NOTHING, True),
    ],
)
def test_what_came_of_a_request_is_told_in_its_place(
    kept: Kept, subject: str, sent: Payload, is_told: bool
) -> None:
    remote = RemoteCode(URL, kept, subject, "/x.py:3", ACTOR)
    elsewhere = (a_phase(PhaseName.IMPORT, "as windows"), request(body=sent))
    report = report_of(request(body=sent), remote, elsewhere)
    rules = [rule for _, rule, _ in found(report)]
    assert rules.count(Rule.NETWORK_ATTEMPT) == (2 if is_told else 0)
    assert rules.count(Rule.CODE_REMOTE) == 1 and len(report.lists["requests"]) == 2
