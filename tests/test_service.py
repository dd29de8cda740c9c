"""The service between a keeper and a Discord that play: root given up, the stream, the report."""

import html
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import falcon
import pytest
from conftest import ROOT, Service, Snakehook, open_folder, serving
from standins import Discord, wait_for

import snakehook as program
from snakehook import (
    Frame,
    Result,
    ServiceError,
    Store,
    TriageRequest,
    WatchError,
    check_status,
    fit_state_dir,
    join_report,
    make_own_result,
    make_result,
    read_frames,
    receive_result,
)

SIX = TriageRequest("six", "1.16.0", "import")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be given up")


@pytest.fixture
def home() -> Iterator[Path]:
    with open_folder("service") as folder:
        (folder / "state").mkdir()
        yield folder


@pytest.fixture
def played(home: Path, discord: Discord) -> Snakehook:
    """The program with the keeper that plays, in a folder that only root can read."""
    code = home / "code"
    (code / "jail").mkdir(parents=True)
    shutil.copy(ROOT / "snakehook.py", code)
    shutil.copy(ROOT / "tests" / "fake_keeper.py", code / "jail" / "__main__.py")
    (code / "jail" / "nsjail.cfg").touch()
    for name in ("__init__.py", "settings.toml", "request.toml", "store.toml", "empty_report.toml"):
        shutil.copy(ROOT / "jail" / name, code / "jail")
    shutil.copytree(ROOT / "jail" / "command", code / "jail" / "command")
    libraries = Path(falcon.__file__).parent.parent
    for name in ("falcon", "waitress", "packaging", "pip"):
        (code / name).symlink_to(libraries / name)
    code.chmod(0o700)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "STATE_DIR": str(home / "state"),
        "PIP_CACHE_DIR": str(home / "cache"),
        "API_TOKEN": "very-secret-token",
        "DISCORD_WEBHOOK_URL": discord.url,
    }
    return Snakehook([sys.executable, str(code / "snakehook.py")], environment)


@contextmanager
def playing(played: Snakehook, **settings: Any) -> Iterator[Service]:
    log = Path(played.environment["HOME"]) / "service.log"
    with serving(played, log, API_TOKEN="very-secret-token", **settings) as service:
        yield service


def keeper_note(home: Path) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((home / "keeper.json").read_text())
    return note


def assert_powerless(status: str) -> None:
    """Every thread's status: no privilege, and none to be had."""
    for line in status.splitlines():
        name, _, text = line.partition(":")
        if name.startswith("Cap"):
            assert int(text, 16) == 0, line
        if name == "NoNewPrivs":
            assert text.strip() == "1"
        if name in ("Uid", "Gid") and os.geteuid() == 0:
            assert set(text.split()) == {"65533"}, line
        if name == "Groups" and os.geteuid() == 0:
            assert not text.split()
    assert "NoNewPrivs" in status


def status_of(pid: int) -> str:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return "\n".join((thread / "status").read_text() for thread in threads)


# Who does what


@pytest.mark.parametrize("way", ["serve", "waitress-serve"])
def test_what_listens_can_do_nothing_else(played: Snakehook, home: Path, way: str) -> None:
    words: tuple[str, ...] = ("serve", "--listen", "127.0.0.1:{port}")
    if way == "waitress-serve":
        start = "import sys, waitress.runner; sys.exit(waitress.runner.run())"
        words = ("--listen=127.0.0.1:{port}", "--call", "snakehook:create_app")
        played = Snakehook([sys.executable, "-c", start], dict(played.environment))
        played = played.with_settings(PYTHONPATH=home / "code")
    log = home / "service.log"
    with serving(played, log, *words, API_TOKEN="very-secret-token") as service:
        service.finished(service.accept("tiny"))
        assert_powerless(status_of(service.process.pid))
        keeper = keeper_note(home)
    assert keeper["user"] == os.geteuid()
    assert set(keeper["environment"]) <= {"SSL_CERT_FILE", "SSL_CERT_DIR"}
    assert "secret" not in json.dumps(keeper)


@needs_root
def test_a_triage_gives_root_up_after_it_has_opened_its_page(played: Snakehook, home: Path) -> None:
    page = home / "code" / "page.html"
    done = played.run("triage", "status", "1.0", "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert_powerless(done.stdout)
    assert page.read_bytes() == b"<!doctype html>page"
    assert page.stat().st_uid == 0


@needs_root
def test_state_dir_is_made_to_fit(played: Snakehook, home: Path) -> None:
    """The service can write there, but not move what root keeps there."""
    state = home / "state"
    (state / "python").mkdir()
    (state / "lock").touch()
    with playing(played) as service:
        service.finished(service.accept("tiny"))
        found = state.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 65533, 0o1771)
        for path in (state / "lock", *state.glob("snakehook.sqlite*")):
            assert path.stat().st_uid == 65533
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        code = f"import os; os.rename({str(state / 'python')!r}, {str(state / 'other')!r})"
        command = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"]
        python = "/usr/bin/python3"
        if shutil.which("setpriv") and Path(python).exists():
            moved = subprocess.run([*command, python, "-c", code], capture_output=True, text=True)
            assert "PermissionError" in moved.stderr


@needs_root
@pytest.mark.parametrize("trick", ["link", "second name", "folder", "pipe", "somebody's"])
def test_no_other_file_is_handed_to_the_service(tmp_path: Path, trick: str) -> None:
    secret, state = tmp_path / "secret", tmp_path / "state"
    secret.write_text("root's")
    state.mkdir()
    path = state / "snakehook.sqlite"
    match trick:
        case "link":
            path.symlink_to(secret)
        case "second name":
            path.hardlink_to(secret)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.touch()
            os.chown(path, 1000, 1000)
    with pytest.raises(OSError):
        fit_state_dir(state, 65533, 65533)
    assert (secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode)) == (0, 0o644)
    assert path.lstat().st_uid in (0, 1000)


@needs_root
def test_a_store_that_root_made_is_handed_over(played: Snakehook, home: Path) -> None:
    store = Store(home / "state" / "snakehook.sqlite")
    run_id = store.add(SIX, 10)
    store.db.close()
    with playing(played) as service:
        assert service.finished(run_id)["outcome"] == "ok"


@needs_root
def test_a_state_dir_that_the_service_can_t_reach_is_told(played: Snakehook, home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    done = played.with_settings(STATE_DIR=closed / "state").run("serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "STATE_DIR" in line
    assert str(closed / "state") in line


POWERLESS = {
    "Uid": "65533\t65533\t65533\t65533",
    "Groups": "",
    "CapInh": "0" * 16,
    "CapPrm": "0" * 16,
    "CapEff": "0" * 16,
    "CapAmb": "0" * 16,
    "NoNewPrivs": "1",
}


def as_status(**changes: str) -> str:
    lines = [f"{name}:\t{text}" for name, text in (POWERLESS | changes).items()]
    return "\n".join(["Name:\tpython", *lines, ""])


NOTHING_MORE = """
import sys
import snakehook

class Closed:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(f"{name} is loaded late")

snakehook.load_libraries()
snakehook.give_up_root(65533, 65533)
sys.meta_path.insert(0, Closed())
# An untrusted text, the name of a host, a token, a report, a run that is kept.
assert "\\u202e" not in snakehook.printable_line("a\\u202eb", 60)
"xn--bcher-kva.example".encode("idna")
assert not snakehook.authorized("Bearer \\xe9", "token")
snakehook.make_own_result(snakehook.TriageRequest("six", "1.0", "install"), "error", "a reason")
store = snakehook.Store(snakehook.Path(sys.argv[1]))
assert store.add(snakehook.TriageRequest("six", "1.0", "install"), 1)
# The test itself: there is a module that it would have seen.
try:
    import wave
except ImportError as error:
    print(error)
"""


# As the commands that show a report do it.
NOTHING_MORE_TO_SHOW = """
import sys
import snakehook

class Closed:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(f"{name} is loaded late")

snakehook.give_up_root(65533, 65533)
sys.meta_path.insert(0, Closed())
assert "\\u202e" not in snakehook.printable_line("a\\u202eb", 60)
"""


def test_nothing_is_loaded_to_show_a_report_after_root_was_given_up() -> None:
    command = [sys.executable, "-c", NOTHING_MORE_TO_SHOW]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_nothing_is_loaded_after_root_was_given_up(home: Path) -> None:
    (home / "state").chmod(0o777)
    command = [sys.executable, "-c", NOTHING_MORE, str(home / "state" / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("wave is loaded late\n", "")


def test_a_thread_without_privileges_passes() -> None:
    check_status(as_status(), 65533)
    check_status(as_status(Uid="1000\t1000\t1000\t1000", Groups="27 1000"), None)


@pytest.mark.parametrize(
    "change",
    [
        {"Uid": "65533\t65533\t0\t65533"},
        {"Uid": "65533\t1000\t65533\t65533"},
        {"Groups": "0"},
        {"CapInh": "0000000000000001"},
        {"CapPrm": "0000000000200000"},
        {"CapEff": "000001ffffffffff"},
        {"CapAmb": "0000000000000400"},
        {"NoNewPrivs": "0"},
    ],
    ids=str,
)
def test_any_privilege_that_is_left_ends_the_start(change: dict[str, str]) -> None:
    with pytest.raises(ServiceError):
        check_status(as_status(**change), 65533)


def test_root_that_stayed_is_seen_by_an_ordinary_user_s_start() -> None:
    with pytest.raises(ServiceError):
        check_status(as_status(Uid="1000\t1000\t0\t1000"), None)


# The stream


def frame(name: str, data: bytes = b"") -> bytes:
    return f"{name} {len(data)}\n".encode() + data


SUMMARY = frame("summary", b'{"outcome": "ok", "reason": "fine", "verdict": "clean"}')
REPORT = frame("report", b'{"phases": [1]}')
EMBED = frame("embed", b'{"title": "t", "description": "d", "fields": []}')
WHOLE = SUMMARY + REPORT + EMBED + frame("page", b"page") + frame("end")
BEGUN = frame("progress", b"import six")


@contextmanager
def stream_of(data: bytes, *, hold: bool = False) -> Iterator[socket.socket]:
    """A stream whose watch sends this and ends, or does not."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        try:
            theirs.sendall(data)
        except OSError:
            return
        if not hold:
            theirs.close()

    thread = threading.Thread(target=send)
    thread.start()
    with ours, theirs:
        yield ours
    thread.join(10)


def frames_of(data: bytes, deadline_sec: float = 5) -> list[tuple[Frame, bytes]]:
    with stream_of(data) as stream:
        return list(read_frames(stream, deadline_sec))


def result_of(data: bytes, *, hold: bool = False, budget_sec: int = 5) -> tuple[Result, list[str]]:
    titles: list[str] = []
    with stream_of(data, hold=hold) as stream:
        return receive_result(stream, "r", SIX, budget_sec, titles.append), titles


def test_frames_come_as_they_were_sent() -> None:
    large = os.urandom(5_000_000)
    data = BEGUN + frame("page", large) + frame("evidence") + frame("end")
    assert frames_of(data) == [
        (Frame.PROGRESS, b"import six"),
        (Frame.PAGE, large),
        (Frame.EVIDENCE, b""),
        (Frame.END, b""),
    ]


def test_what_comes_after_the_end_is_not_read() -> None:
    assert frames_of(frame("end") + b"garbage" * 1000) == [(Frame.END, b"")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"summary",
        b"summary 5\nabc",
        b"hello 5\nhello",
        b"summary five\n12345",
        b"summary -5\n",
        b"summary 05\n12345",
        b"Summary 5\n12345",
        b" summary 5\n12345",
        b"summary 5\r\n12345",
        b"summary  5\n12345",
        b"\x00" * 1000,
        b"s" * 100_000,
        b"summary 99999999999999999999\n",
        b"value 5\n12345",
        b"__class__ 5\n12345",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_nonsense_ends_the_reading(data: bytes) -> None:
    with pytest.raises(WatchError):
        frames_of(BEGUN + data)


@pytest.mark.parametrize("name", [kind.name.lower() for kind in Frame])
def test_every_frame_has_its_bound_in_bytes_and_in_number(name: str) -> None:
    max_bytes, max_count = Frame[name.upper()].value
    with pytest.raises(WatchError, match="too much"):
        frames_of(f"{name} {max_bytes + 1}\n".encode())
    if name != "end":
        with pytest.raises(WatchError, match="too much"):
            frames_of(frame(name) * (max_count + 1))


def test_a_watch_that_says_nothing_more_has_a_deadline() -> None:
    begun = time.monotonic()
    with stream_of(BEGUN, hold=True) as stream, pytest.raises(WatchError):
        list(read_frames(stream, 0.3))
    assert time.monotonic() - begun < 5


def test_a_watch_that_drips_has_a_deadline() -> None:
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        theirs.sendall(b"page 1000\n")
        while not over.wait(0.02):
            try:
                theirs.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    begun = time.monotonic()
    with ours, theirs:
        with pytest.raises(WatchError):
            list(read_frames(ours, 0.5))
        over.set()
        thread.join(10)
    assert time.monotonic() - begun < 5


def test_a_whole_report_is_taken_as_it_is() -> None:
    result, titles = result_of(BEGUN + WHOLE)
    assert titles == ["import six"]
    assert (result.outcome, result.verdict, result.reason) == ("ok", "clean", "fine")
    assert (result.report, result.page, result.told) == (b'{"phases": [1]}', b"page", True)


def summary(**fields: object) -> bytes:
    return frame("summary", json.dumps(fields).encode())


@pytest.mark.parametrize(
    "data",
    [
        REPORT + EMBED,
        SUMMARY + EMBED,
        SUMMARY + REPORT,
        summary(outcome="fine", verdict="clean") + REPORT + EMBED,
        summary(outcome="ok", verdict="green") + REPORT + EMBED,
        summary(outcome=["ok"], verdict="clean") + REPORT + EMBED,
        summary(outcome="ok", verdict={"clean": 1}) + REPORT + EMBED,
        frame("summary", b"[" * 4000) + REPORT + EMBED,
        frame("summary", b"[]") + REPORT + EMBED,
        frame("summary", b"\xff") + REPORT + EMBED,
        SUMMARY + frame("report", b"") + EMBED,
        SUMMARY + frame("report", b'{"run_id": "other"}') + EMBED,
        SUMMARY + frame("report", b'{"phases": []') + EMBED,
        SUMMARY + frame("report", '{"phases": ["\u00e4"]}'.encode()) + EMBED,
        SUMMARY + REPORT + frame("embed", b"[" * 30_000),
        SUMMARY + REPORT + frame("embed", b'"text"'),
        SUMMARY + REPORT + frame("embed", b'{"title": "t", "description": "d"}'),
        SUMMARY + REPORT + frame("embed", b'{"title": 1, "description": "d", "fields": []}'),
    ],
    ids=range(18),
)
def test_a_report_that_can_t_be_one_is_replaced_by_one_that_says_so(data: bytes) -> None:
    result, _ = result_of(BEGUN + data + frame("end"))
    assert (result.outcome, result.verdict, result.told) == ("error", "high", False)
    (finding,) = json.loads(result.report)["findings"]
    assert (finding["rule"], finding["severity"]) == ("evidence.tamper", "high")
    assert finding["phase"] == "import"
    assert finding["title"] == result.reason


@pytest.mark.parametrize(
    ("data", "hold"),
    [(b"", False), (b"", True), (b"hello\n", True), (b"progress 1\nx" * 501, True)],
    ids=["dies", "hangs", "babbles", "floods"],
)
def test_a_watch_that_fails_at_work_is_high(
    data: bytes, hold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "STREAM_GRACE_SEC", -4.5)
    result, _ = result_of(BEGUN + data, hold=hold)
    assert (result.outcome, result.verdict) == ("error", "high")
    assert result.reason.isprintable()


def test_a_watch_that_never_began_is_no_finding() -> None:
    """Nothing of the package was run."""
    result, titles = result_of(b"")
    assert (result.outcome, result.verdict, titles) == ("error", "unseen", [])
    assert json.loads(result.report)["findings"] == []


def test_a_title_can_t_act_and_a_phase_is_one_of_ours() -> None:
    result, titles = result_of(frame("progress", b"\x1b[2J\xff\n <b>"))
    assert titles[0].isprintable()
    assert json.loads(result.report)["findings"][0]["phase"] == "install"


def test_a_complaint_stands_in_the_log_with_the_run(caplog: pytest.LogCaptureFixture) -> None:
    result_of(BEGUN + frame("complaint", b"Traceback \xff") + WHOLE)
    (record,) = [record for record in caplog.records if "Traceback" in record.getMessage()]
    assert "run r" in record.getMessage()


def pieces(**changes: bytes) -> dict[Frame, bytes]:
    usual = dict.fromkeys(Frame, b"") | {
        Frame.SUMMARY: b'{"outcome": "ok", "reason": "a\\u001b[2J\\nb", "verdict": "clean"}',
        Frame.REPORT: b'{"phases": []}',
        Frame.EMBED: b'{"title": "t", "description": "d", "fields": []}',
    }
    return usual | {Frame[name.upper()]: data for name, data in changes.items()}


def test_a_reason_and_a_text_can_t_act_in_a_terminal() -> None:
    result = make_result(pieces(text=b"one\x1b[2J\r\ntwo \xe2\x80\xae\xff\n"))
    assert result.reason.isprintable()
    assert all(line.isprintable() for line in result.text.split("\n"))
    assert len(result.text.split("\n")) == 2


def test_a_message_has_no_more_than_what_is_known() -> None:
    embed = {
        "title": "t",
        "description": "d",
        "fields": [],
        "color": 1,
        "image": {"url": "https://evil.example/"},
        "author": {"name": "Discord"},
        "footer": {"text": "run of another"},
    }
    result = make_result(pieces(embed=json.dumps(embed).encode()))
    assert set(json.loads(result.embed)) == {"title", "description", "fields", "color"}


HEAD = '{"run_id": "5", "delivery": {"last_error": "gone}"}}'


def test_a_report_is_joined_without_being_read() -> None:
    body = b'{"phases": [], "nonsense": ,,, }'
    whole = join_report(HEAD, body)
    assert whole == HEAD[:-1].encode() + b", " + body[1:]


def test_a_joined_report_is_json() -> None:
    own = make_own_result(SIX, "error", "it \u202e died", "call")
    report = json.loads(join_report(HEAD, own.report))
    assert report["delivery"] == {"last_error": "gone}"}
    assert report["findings"][0]["phase"] == "call"
    assert report["coverage"]["notes"] == ["it \u202e died"]


# A service with a keeper that plays


def test_a_run_ends_in_report_page_evidence_and_message(
    played: Snakehook, discord: Discord
) -> None:
    with playing(played) as service:
        run_id = service.accept("tiny", artifact="wheel")
        report = service.finished(run_id)
        page = service.get(f"/v1/triage/{run_id}/report.html")
        evidence = service.get(f"/v1/triage/{run_id}/evidence.jsonl.gz")
        dropped = service.get(f"/v1/triage/{run_id}/dropped.tar.gz")
    assert list(report)[:6] == ["verdict", "run_id", "status", "request", "outcome", "reason"]
    assert (report["outcome"], report["verdict"]) == ("ok", "clean")
    assert report["reason"].isprintable()
    assert report["request"]["artifact"] == "wheel"
    assert report["coverage"]["notes"] == ["caf\u00e9"]
    assert (page.body, evidence.body) == (b"<!doctype html>page", b"evidence")
    assert (dropped.body, dropped.headers["content-type"]) == (b"dropped", "application/gzip")
    (message,) = discord.messages
    assert message.files["dropped.tar.gz"] == b"dropped"
    (embed,) = message.payload["embeds"]
    assert embed["footer"]["text"] == f"snakehook run {run_id}"
    assert "image" not in embed
    assert message.payload["allowed_mentions"] == {"parse": []}


def test_an_order_says_what_was_asked_for_and_nothing_else(played: Snakehook, home: Path) -> None:
    with playing(played) as service:
        run_id = service.accept("Tiny", mode="execute", file_path="-x.py")
        service.finished(run_id)
    (order,) = keeper_note(home)["orders"]
    assert order == {
        "task": "triage",
        "run_id": run_id,
        "package_name": "tiny",
        "version": "1.0",
        "mode": "execute",
        "file_path": "./-x.py",  # no word may begin like an option
    }


@pytest.mark.parametrize("name", ["dies", "babbles", "floods", "complains", "silent"])
def test_a_watch_that_fails_costs_its_report_and_nothing_else(
    played: Snakehook, discord: Discord, name: str
) -> None:
    with playing(played, MAX_CONCURRENCY=1) as service:
        lost, good = service.accept(name), service.accept("tiny")
        report = service.finished(lost, 30)
        assert service.finished(good, 30)["outcome"] == "ok"
        assert service.healthy()
        page = service.get(f"/v1/triage/{lost}/report.html").body.decode()
        log = service.log.read_text()
    expected = "unseen" if name == "silent" else "high"
    assert (report["outcome"], report["verdict"]) == ("error", expected)
    assert report["reason"] in html.unescape(page)
    assert len(discord.messages) == 2
    assert "\x1b" not in log
    assert not [line for line in log.splitlines() if line.startswith("2026-01-01")]


def test_an_order_that_was_refused_is_given_again(played: Snakehook, home: Path) -> None:
    with playing(played) as service:
        assert service.finished(service.accept("refused"))["outcome"] == "ok"
    assert len(keeper_note(home)["orders"]) == 2


def test_runs_that_fail_one_after_the_other_are_told(played: Snakehook) -> None:
    with playing(played, MAX_CONCURRENCY=1) as service:
        for _ in range(program.MAX_FAILED_RUNS):
            assert service.healthy()
            service.finished(service.accept("dies"))
        assert not service.healthy()
        service.finished(service.accept("tiny"))
        assert service.healthy()


def test_a_keeper_that_ends_costs_no_run(played: Snakehook, home: Path) -> None:
    with playing(played, MAX_CONCURRENCY=1) as service:
        run_id = service.accept("kills")
        wait_for(lambda: not service.healthy(), 10)
        answer = service.post({"package_name": "tiny", "version": "1.0"})
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        wait_for(lambda: service.report(run_id)["status"] == "queued", 10)
        assert "Traceback" not in service.log.read_text(), service.log.read_text()
    # Of another length, so that Python does not take the compiled file of before.
    (home / "code" / "jail" / "__main__.py").write_text(
        (ROOT / "tests" / "fake_keeper.py").read_text().replace('"kills"', '"no longer"')
    )
    with playing(played) as service:
        assert service.finished(run_id)["outcome"] == "ok"


def test_it_listens_before_keeper_has_tried_a_jail(played: Snakehook, home: Path) -> None:
    os.mkfifo(home / "slow")
    with playing(played, health=503) as service:
        answer = service.post({"package_name": "tiny", "version": "1.0"})
        assert answer.status == 503
        assert "checked" in answer.json["error"]
        with (home / "slow").open("w"):
            pass
        wait_for(service.healthy, 10)
        assert service.finished(service.accept("tiny"))["outcome"] == "ok"


def test_where_no_jail_works_it_says_so_and_goes_on(
    played: Snakehook, home: Path, discord: Discord
) -> None:
    with playing(played) as service:
        run_id = service.accept("tiny")
        service.finished(run_id)
    (home / "broken").touch()
    with playing(played, health=503) as service:
        assert service.report(run_id)["outcome"] == "ok"

        def refusal() -> str:
            answer = service.post({"package_name": "tiny", "version": "1.0"})
            assert answer.status == 503
            return str(answer.json["error"])

        wait_for(lambda: "snakehook check" in refusal())
        assert "FAIL namespaces: tried" in service.log.read_text()


@pytest.mark.parametrize("name", ["hangs", "stops"])
def test_sigterm_puts_a_run_back_and_is_quick(played: Snakehook, home: Path, name: str) -> None:
    """However often: a stop on purpose is no crash."""
    run_id = ""
    for times in (1, 2, 3):
        with playing(played) as service:
            run_id = run_id or service.accept(name)
            wait_for(lambda: service.report(run_id)["status"] == "running", 10)  # noqa: B023
            begun = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(10) == 0
            assert time.monotonic() - begun < 5
            assert "Traceback" not in service.log.read_text(), times
    store = sqlite3.connect(home / "state" / "snakehook.sqlite")
    assert store.execute("SELECT status, starts FROM runs").fetchall() == [("queued", 0)]
    store.close()


def test_a_store_of_another_version_is_left_alone(played: Snakehook, home: Path) -> None:
    path = home / "state" / "snakehook.sqlite"
    store = sqlite3.connect(path)
    store.execute("CREATE TABLE runs (status, delivery, due_at, message)")
    store.execute("INSERT INTO runs VALUES ('queued', 'pending', 0, '')")
    store.commit()
    store.close()
    done = played.run("serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    assert "STATE_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    store = sqlite3.connect(path)
    assert store.execute("SELECT * FROM runs").fetchall() == [("queued", "pending", 0, "")]
    store.close()


def connection_to(service: Service) -> socket.socket:
    connection = service.connect()
    connection.sendall(b"GET /healthz HTTP/1.1\r\n")
    return connection


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_an_address_has_room_for_so_many_and_its_oldest_makes_room(played: Snakehook) -> None:
    with playing(played) as service:
        idle = [connection_to(service) for _ in range(program.MAX_PEER_CONNECTIONS + 10)]
        try:
            assert service.healthy()
            wait_for(lambda: sum(map(is_closed, idle)) >= 10, 3)
            assert [is_closed(connection) for connection in idle[-3:]] == [False] * 3
        finally:
            for connection in idle:
                connection.close()


# The command line


def exits(played: Snakehook, *words: str, **settings: Any) -> tuple[int, str, str]:
    done = played.with_settings(**settings).run(*words)
    return done.returncode, done.stdout, done.stderr


def test_what_a_triage_prints(played: Snakehook, discord: Discord) -> None:
    code, out, err = exits(played, "triage", "tiny", "1.0")
    assert (code, out, err) == (0, "tiny 1.0: clean\n", "install ...\n")
    code, out, err = exits(played, "triage", "tiny", "1.0", "--json", DISCORD_WEBHOOK_URL=None)
    assert json.loads(out)["delivery"]["last_error"] == "no webhook is configured"
    assert len(discord.messages) == 1


def test_a_triage_whose_watch_dies_is_high(played: Snakehook) -> None:
    code, out, err = exits(played, "triage", "dies", "1.0")
    assert code == 1
    assert out.startswith("high: dies 1.0: outcome error")
    assert "\x1b" not in out + err


def test_a_report_that_discord_did_not_take_is_told_on_stderr(played: Snakehook) -> None:
    nowhere = "http://127.0.0.1:9/api/webhooks/1/s3cr3t"
    code, out, err = exits(played, "triage", "tiny", "1.0", DISCORD_WEBHOOK_URL=nowhere)
    assert (code, out) == (0, "tiny 1.0: clean\n")
    (line,) = [line for line in err.splitlines() if "Discord" in line]
    assert line.startswith("Not delivered to Discord: ")
    assert "s3cr3t" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_for_what_was_seen_so_far(played: Snakehook, number: int) -> None:
    process = played.start("triage", "stops", "1.0", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr
    assert process.stderr.readline() == "install ...\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (4, "interrupted\n"), err


def test_a_watch_that_does_not_stop_is_left(played: Snakehook, home: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(home / 'code')!r}); from jail.command import main;"
    code += "main.INTERRUPT_SEC = 0.5; sys.exit(main.main())"
    played = Snakehook([sys.executable, "-c", code], played.environment)
    process = played.start("triage", "hangs", "1.0", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr
    assert process.stderr.readline() == "install ...\n"
    for _ in range(20):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out[:17]) == (1, "high: hangs 1.0: "), err


def test_check_tells_the_index_and_the_webhook(played: Snakehook) -> None:
    code, out, _ = exits(played, "check")
    assert code == 0
    assert out.splitlines() == [
        "ok   namespaces: tried",
        "ok   index: https://index.example/simple, files from files.example, more.example:8443",
        "ok   webhook: 127.0.0.1 answers",
    ]


def test_hosts_have_their_ports_and_no_other_words(played: Snakehook) -> None:
    nowhere = "https://discord.example/api/webhooks/1/s3cr3t"
    code, out, _ = exits(played, "hosts", "--index", DISCORD_WEBHOOK_URL=nowhere)
    assert code == 0
    assert out.split() == [
        "discord.example:443",
        "files.example:443",
        "index.example:443",
        "more.example:8443",
    ]


def test_an_index_that_is_down_is_no_fault_of_the_sandbox(played: Snakehook, home: Path) -> None:
    keeper = home / "code" / "jail" / "__main__.py"
    keeper.write_text(keeper.read_text().replace('"FAKE_INDEX", "ok"', '"FAKE_INDEX", "error"'))
    code, out, err = exits(played, "hosts", "--index")
    assert (code, out, "no answer" in err) == (4, "", True)
    code, out, _ = exits(played, "check")
    assert (code, "lack index: no answer" in out) == (0, True)


def test_a_sandbox_that_does_not_work_is_3(played: Snakehook, home: Path) -> None:
    (home / "broken").touch()
    commands: list[tuple[str, ...]] = [("triage", "tiny", "1.0"), ("check",), ("hosts", "--index")]
    for command in commands:
        code, out, err = exits(played, *command)
        assert code == 3
        assert "FAIL namespaces: tried" in out + err


def test_a_keeper_that_can_t_start_is_3(played: Snakehook, home: Path) -> None:
    (home / "code" / "jail" / "__main__.py").write_text("raise SystemExit(1)\n")
    code, out, err = exits(played, "triage", "tiny", "1.0")
    assert (code, out) == (3, "")
    assert "Traceback" not in err
