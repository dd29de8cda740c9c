"""The decoy internet and real clients in real jails: each gets what it expects, and all that it
says is told, once.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from clients import (
    FETCHING,
    FOREIGN,
    FOREIGN_REQUIRES,
    HIDING,
    HONEST,
    KEEPING,
    STAGES,
    THEFTS,
    THIEVING,
    USUAL,
    source_of,
)
from conftest import PROGRAM, Snakehook, make_state, open_folder, variables
from hostile import ONCE, findings, in_one_jail
from pip._internal.models.index import PyPI
from standins import SIMPLE_JSON, Index

Report = dict[str, Any]
ACCEPT = {"Accept": SIMPLE_JSON}


@pytest.fixture(scope="module")
def shared(jail: None, jail_python_cache: Path) -> Iterator[tuple[Snakehook, Index]]:
    with open_folder("clients") as home, Index() as index:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        state = make_state(home, jail_python_cache)
        yield Snakehook(PROGRAM, variables(state, index)), index


@pytest.fixture(scope="module")
def report(shared: tuple[Snakehook, Index]) -> Report:
    """Of a package with a module for each way to talk; each does it once, in its own jail."""
    program, index = shared
    for library in ("requests", "urllib3", "idna", "certifi", "charset-normalizer"):
        index.add_installed(library)
    modules = {
        "usual": source_of(USUAL),
        "stages": source_of(STAGES, FETCHING),
        "keeping": KEEPING,
        "hiding": HIDING,
        "honest": HONEST,
        "thieves": source_of(THEFTS, THIEVING),
    }
    files = {f"{name}.py": ONCE + source for name, source in modules.items()}
    index.add_wheel("chatty", "1.0", files, requires=["requests"])
    return program.triage("chatty", "--mode", "import")[1]


def got(report: Report, module: str) -> Report:
    """What each client of a module got."""
    (phase,) = [phase for phase in report["phases"] if phase["trigger"] == module]
    answers: Report = json.loads(phase["stdout"]["text"])
    return answers


def titles(report: Report, rule: str, module: str) -> list[str]:
    told = [item for item in report["findings"] if item["trigger"] == module]
    return [item["title"] for item in told if item["rule"] == rule]


def places(items: list[Report]) -> set[str]:
    return {item["url"] for item in items if item["bait"] == ["AWS_SECRET_ACCESS_KEY"]}


def test_each_client_gets_what_it_expects(report: Report) -> None:
    answers = got(report, "usual")
    for program in ("curl", "wget"):
        text = answers.pop(program)
        assert not shutil.which(program) or '"ok": true' in text
    assert answers == {
        "urllib": 200,
        "requests": [200, True, True],
        "tcp": "",
        "udp": 44,
        "smtp": [235, {}],
        "ftp": "226 Transfer complete.",
    }


def test_what_each_client_sends_is_told_with_the_bait_in_it(report: Report) -> None:
    programs = [name for name in ("curl", "wget") if shutil.which(name)]
    hosts = ["urllib", "requests", *programs]
    sent = places(report["requests"])
    assert {f"https://{host}.evil-host.xyz/up" for host in hosts} <= sent
    assert "https://requests.evil-host.xyz/form" in sent
    secrets = "\n".join(titles(report, "secret.sent", "usual"))
    for where in ("45.9.148.3:4444", "45.9.148.3:9999", "smtp.evil-host.xyz", "ftp.evil-host.xyz"):
        assert where in secrets
    said = [item["payload"]["text"] for item in report["network"] if item["payload"]]
    assert any(text.startswith("USER thief\r\nPASS hunter2hunter2\r\n") for text in said)


def test_one_act_is_one_line(report: Report) -> None:
    """Of each host the request alone is told: neither its name nor its connection."""
    attempts = titles(report, "network.attempt", "usual")
    assert [title for title in attempts if "urllib." in title] == [
        "POST https://urllib.evil-host.xyz/up, 51 bytes"
    ]
    assert len([title for title in attempts if "//requests." in title]) == 3
    for program in ("curl", "wget"):
        told = [title for title in attempts if f"{program}." in title]
        assert len(told) == (1 if shutil.which(program) else 0)
    assert not [title for title in attempts if "asks for" in title or "connects" in title]


def test_who_connects_to_a_name_is_not_said_to_hide(report: Report) -> None:
    assert findings(report, "witness.hidden") == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_second_stage_is_told_with_its_url(report: Report, stage: str) -> None:
    if stage == "dollar" and not shutil.which("curl"):
        pytest.skip("there is no curl here")
    assert got(report, "stages")[stage] in (None, 0)
    remote = [item for item in report["findings"] if item["rule"] == "code.remote"]
    host = "hidden_evil_stage" if stage == "indexed" else f"//{stage}.evil-host.xyz/"
    ran = [item for item in remote if host in item["title"]]
    assert any(item["title"].startswith("executes what it fetched") for item in ran)
    assert {item["severity"] for item in ran} <= {"high", "medium"}


def test_the_files_of_one_archive_are_one_finding(report: Report) -> None:
    kept = [title for title in titles(report, "code.remote", "stages") if "keeps" in title]
    assert len([title for title in kept if "archive." in title]) == 1


def test_data_that_is_kept_is_not_high(report: Report) -> None:
    told = [item for item in report["findings"] if item["trigger"] == "keeping"]
    assert [(item["severity"], item["rule"]) for item in told] == [
        ("high", "network.attempt"),
        ("medium", "code.remote"),
    ]


def test_what_is_hidden_in_pieces_or_from_readers_is_told(report: Report) -> None:
    sent = titles(report, "secret.sent", "hiding")
    assert any("NPM_TOKEN in 5 pieces to https://slow.evil-host.xyz" in title for title in sent)
    assert any("AWS_SECRET_ACCESS_KEY in names below evil-zone.xyz" in title for title in sent)
    assert "sends its whole environment to https://names.evil-host.xyz/" in sent
    assert "sends its whole environment to https://whole.evil-host.xyz/" in sent
    assert "sends AWS_SECRET_ACCESS_KEY to https://turned.evil-host.xyz/" in sent
    dark = "POST https://dark.evil-host.xyz/, 600 bytes that can't be read, after"
    assert any(title.startswith(dark) for title in titles(report, "network.attempt", "hiding"))


# Where that is no host of the way's own name.
TOLD_ELSEWHERE = {
    "resolver": "45.9.148.53:53",
    "ports": "in 5 pieces to evil-ports.xyz",
    "hosts": "in 5 pieces to evil-hosts.xyz",
    "headers": "in 5 pieces to http://headers.evil-host.xyz",
    "asked": "in names below evil-asked.xyz",
}


def test_the_ways_out_are_open_to_who_steals(report: Report) -> None:
    answers: Any = got(report, "thieves")
    assert not [text for text in map(str, answers.values()) if "Traceback" in text]
    assert [answers[name] for name in ("imap", "pop", "asked")] == ["OK", "+OK", 0]


@pytest.mark.parametrize("way", THEFTS)
def test_bait_is_told_by_whatever_way_it_leaves(report: Report, way: str) -> None:
    sent = titles(report, "secret.sent", "thieves")
    where = TOLD_ELSEWHERE.get(way, f"{way}.evil-host.xyz")
    assert [title for title in sent if "AWS_SECRET_ACCESS_KEY" in title and where in title]


def test_what_is_sent_to_a_resolver_and_asks_for_nothing_is_told_as_on_any_port(
    report: Report,
) -> None:
    told = {item["target"]: item["payload"] for item in report["network"] if item["payload"]}
    for target in ("45.9.148.53:53", "45.9.148.54:53"):
        assert told[target]["bytes"] == 64


def test_what_only_looks_like_theft_is_a_request_and_nothing_else(report: Report) -> None:
    answers: Any = got(report, "honest")
    assert answers == [200, 200, 404, 200, 200, "* OK"]
    told = [item for item in report["findings"] if item["trigger"] == "honest"]
    assert {item["rule"] for item in told if item["severity"] != "info"} == {"network.attempt"}
    # Each by its name: the addresses are made up.
    connected = [item["title"] for item in told if item["title"].startswith("connects")]
    assert len(connected) == 1
    assert connected[0].endswith(":143 (mail.fair-host.com)")


def test_what_goes_out_is_told_once_by_who_knows_it_best(report: Report) -> None:
    """Not once more by the trace, which saw the same bytes."""
    read = titles(report, "secret.read", "thieves")
    assert not [title for title in read if "in packet to" in title]


def test_who_said_the_first_word_is_told(report: Report) -> None:
    first = {item["name"]: item["first"] for item in report["network"] if item["first"]}
    assert first["imap.evil-host.xyz"] == "decoy"
    assert first["second.evil-host.xyz"] == "package"


class RealIndex(Index):
    """Stand-ins, and for all else the pages of pip's own index."""

    def _page(self, project: str) -> bytes | None:
        return super()._page(project) or real_page(project)


def real_page(project: str) -> bytes:
    asked = Request(f"{PyPI.simple_url}/{project}/", headers=ACCEPT)  # noqa: S310 - it is https
    with urlopen(asked, timeout=30) as page:  # noqa: S310
        found: bytes = page.read()
        return found


@pytest.mark.pypi
def test_clients_of_the_real_index_get_what_they_expect(online: Snakehook) -> None:
    with RealIndex() as index:
        files = json.loads(real_page("pip"))["files"]
        hosts = ",".join({file["url"].split("/")[2] for file in files})
        files = {"chatty.py": source_of(FOREIGN)}
        index.add_wheel("chatty", "1.0", files, requires=list(FOREIGN_REQUIRES))
        program = online.with_settings(PIP_INDEX_URL=index.url, INDEX_FILE_HOSTS=hosts)
        _, report, _ = program.triage("chatty", *in_one_jail("chatty"), RUN_TIMEOUT_SEC=120)
    assert got(report, "python -m chatty") == {
        "httpx": 200,
        "httpx_async": 200,
        "aiohttp": 200,
        "aiohttp_websocket": 403,
        "websockets": 403,
        "dnspython": [1, 1, 1, "NXDOMAIN", "NoAnswer"] * 2,
        "paramiko": "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3",
    }
    sent = " ".join(places(report["requests"]))
    for host in ("httpx", "httpx2", "aiohttp", "websockets"):
        assert f"//{host}.evil-host.xyz/" in sent
    asked = {item["target"]: item for item in report["network"] if item["kind"] == "dns"}
    assert asked["dnspython.evil-host.xyz"]["questions"] == ["A", "TXT", "MX", "AAAA"]
    assert asked["dnspython.local"]["answer"] == "refused"
    assert findings(report, "witness.hidden") == []
    assert any(
        "sends 1," in title and ":22 (" in title for title in findings(report, "network.attempt")
    )
