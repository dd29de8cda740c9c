"""What may be told as a sign of a package: its own words, and none of ours."""

from typing import Any

import pytest
from reports import a_phase, report_of

from jail.inside import made_up
from jail.report.indicators import OwnWords, find_indicators
from jail.watch.downloads import Downloaded
from jail.watch.events import Actor, Connection, Event, NameAsked, Net, PhaseName
from jail.watch.names import Names
from jail.watch.payload import Search
from jail.watch.stubs import Marks
from jail.watch.world import World
from jail.watch.world_events import Conversation, Payload, Reply, Request, Speaker, Tls

ACTOR = Actor(7, "python", "/x/evil.py:3")
NO_BODY = Payload(0, "", "")
OWN = OwnWords(
    frozenset({"20.1.2.3", "abcdef0123", "tool.zip"}),
    ("5eedfeed", "AKIAEXAMPLEBAIT"),
    frozenset({"index.test", "files.test", made_up.DOMAIN}),
)


def indicators(*events: Event, own: OwnWords = OWN) -> set[tuple[str, str]]:
    report = report_of(*((a_phase(PhaseName.IMPORT, "evil"), event) for event in events))
    found = find_indicators(report.lists, "a-package", own)
    return {(item["kind"], item["value"]) for item in found}


def asked(name: str) -> NameAsked:
    return NameAsked(name, ACTOR)


def connected(target: str) -> Connection:
    return Connection(Net.TCP, target, False, "python", ACTOR)


def talked(target: str, name: str | None, sni: str | None = None) -> Conversation:
    tls = Tls(sni, True) if sni else None
    return Conversation(Net.TCP, target, 0, name, Reply.DECOY, Speaker.PACKAGE, tls, actor=ACTOR)


def requested(url: str, bait: tuple[str, ...] = ()) -> Request:
    return Request("20.1.2.3:80", 0, "GET", url, (), NO_BODY, 200, bait, actor=ACTOR)


def test_of_names_that_carry_data_only_their_domain_is_told() -> None:
    pieces = [f"{number}.{number}8623638643634346137.drain.badhost.xyz" for number in range(4)]
    hosts = ["4a6f686e2d6c6170.single.xyz", "www.drain.badhost.xyz"]
    found = indicators(*map(asked, pieces), *map(asked, hosts))
    assert found == {("name", name) for name in ("drain.badhost.xyz", *hosts)}


def test_what_the_package_named_is_told() -> None:
    found = indicators(
        asked("exfil.badhost.example"),
        connected("203.0.113.66:4444"),
        connected("[2001:db9::5]:443"),
        talked("20.1.2.3:443", "c2.badhost.example", "front.badhost.example"),
        requested("https://c2.badhost.example:8443/gate/in.php?user=dev&host=laptop#x"),
        requested("http://203.0.113.66/stage2"),
        Downloaded("A_package-1.0.tar.gz", 3, "cd" * 32, False),
        Downloaded("other-1.0.tar.gz", 3, "ef" * 32, False),
    )
    assert found == {
        ("sha256", "cd" * 32),
        ("name", "exfil.badhost.example"),
        ("name", "c2.badhost.example"),
        ("name", "front.badhost.example"),
        ("address", "203.0.113.66"),
        ("address", "2001:db9::5"),
        ("url", "https://c2.badhost.example:8443/gate/in.php"),
        ("url", "http://203.0.113.66/stage2"),
    }


@pytest.mark.parametrize(
    "event",
    [
        # Made up by the decoy internet: an address, where an upload lies, a mark in what it gave.
        connected("20.1.2.3:443"),
        talked("20.1.2.3:443", None),
        requested("http://20.1.2.3/x"),
        requested("https://github.com/a/b/releases/download/v1/tool.zip"),
        # Its own machine, the index, the resolvers, the cloud's metadata.
        connected("127.0.0.1:80"),
        connected("10.0.2.15:80"),
        connected("[::1]:80"),
        connected("[::ffff:10.0.0.1]:80"),
        connected("169.254.169.254:80"),
        connected("8.8.8.8:53"),
        asked("index.test"),
        asked("files.test"),
        asked("localhost"),
        asked("db.internal"),
        asked("4.3.2.1.in-addr.arpa"),
        # What functions are called with.
        requested(made_up.URL),
        # What very many ask.
        asked("api.ipify.org"),
        asked("github.com"),
        asked("www.google.com"),
        asked("discord.com"),
        requested("https://api.ipify.org/?format=json"),
        requested("https://discord.com/api/v9/users/@me"),
        requested("https://api.github.com/user"),
        requested("https://raw.githubusercontent.com/"),
        requested("https://pastebin.com/"),
        # No names.
        asked("a"),
        asked("*.x"),
        asked("x\x1b[2J.example"),
        requested("https://[oops/x"),
        requested("https://x.example:99999/"),
        Connection(Net.TCP, "0.0.0.0:4444", True, "python", ACTOR),
    ],
)
def test_what_is_ours_or_everybody_s_is_not_told(event: Event) -> None:
    assert indicators(event) == set()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            "https://discord.com/api/webhooks/129/AbC-d_e?wait=true",
            "https://discord.com/api/webhooks/129/AbC-d_e",
        ),
        (
            "https://api.telegram.org/bot70:AAx/sendMessage?chat_id=1",
            "https://api.telegram.org/bot70:AAx/sendMessage",
        ),
        (
            "https://raw.githubusercontent.com/thief/repo/main/x.py",
            "https://raw.githubusercontent.com/thief/repo/main/x.py",
        ),
        ("https://pastebin.com/raw/Ab12Cd34", "https://pastebin.com/raw/Ab12Cd34"),
    ],
)
def test_of_a_well_known_host_only_what_somebody_put_there_is_told(url: str, told: str) -> None:
    assert indicators(requested(url)) == {("url", told)}


def test_what_was_stolen_is_no_part_of_what_is_told() -> None:
    long = "QUtJQUlPU0ZPRE5ON0VYQU1QTEU" * 3
    found = indicators(
        asked(f"{long[:40].lower()}.x.badhost.example"),
        asked("akiaexamplebait.badhost.example"),
        requested(f"https://badhost.example/{long}", ("AWS_ACCESS_KEY_ID",)),
        requested("https://badhost.example/AKIAEXAMPLEBAIT"),
        requested("https://badhost.example/5eedfeed01"),
        requested("https://badhost.example/abcdef0123"),
    )
    assert found == {("name", "x.badhost.example"), ("name", "badhost.example")}


def test_without_all_that_was_made_up_no_address_is_told() -> None:
    own = OwnWords(knows_addresses=False)
    found = indicators(connected("203.0.113.66:1"), requested("http://203.0.113.66/x"), own=own)
    assert found == set()


def test_a_flood_is_bounded() -> None:
    found = indicators(*(asked(f"a{number}.example") for number in range(1000)))
    assert len(found) == 200


def test_the_decoy_internet_knows_what_it_made_up() -> None:
    marks = Marks()
    names = Names(b"salt", marks.mark)
    world = World(names, None, marks, Search({}, {}), "24.5.6.7")
    address = names.address("evil.com")
    mark = marks.mark("https://evil.com/upload")
    wholes, parts = world.made_up()
    assert {address, "24.5.6.7", "tool.zip"} <= wholes
    assert any(part in mark for part in parts)
    item: dict[str, Any] = {"downloads": [], "requests": [], "network": []}
    assert find_indicators(item, "x", OwnWords(frozenset(wholes), tuple(parts))) == []
