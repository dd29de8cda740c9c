"""Nothing of a package outlives its phase, and neither the service nor another run feels it.

Also what one run leaves to the next, or tells a parallel one: nothing.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, Serve, Snakehook, copy_program
from hostile import (
    PROBES,
    add_probe,
    assert_nothing_is_left,
    family_of,
    findings,
    in_one_jail,
    in_turn,
    last_json,
    own_phase,
    processes_of,
)
from standins import Discord, Index, wait_for

from jail.orders import GRACE_SEC


def nothing_is_left(program: Snakehook) -> None:
    assert_nothing_is_left(program.state, program.cache)


HIDE = """
def hide(*, deaf=True):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    if deaf:
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    libc.prctl(1, 0, 0, 0, 0)  # clear the parent-death signal
    while True: time.sleep(3600)
"""
CLINGING = {
    "a double fork in a session of its own, deaf to all signals": "hide()",
    "many of them": "for _ in range(10): hide()",
    "a grandchild that holds stdout and stderr": "hide(deaf=False)",
    "a stopped grandchild": """
pid = os.fork() or (os.setsid(), __import__('select').select([], [], [], 3600))
os.kill(pid, signal.SIGSTOP)
""",
    "a process in the middle of vfork": """
os.fork() or os.posix_spawn('/bin/sleep', ['sleep', '3600'], {})
""",
}


# What the next one sees of those before: itself, the launcher and its own children.
OTHERS = "print(sum(name.isdigit() for name in os.listdir('/proc')), flush=True)\n"


def test_nothing_outlives_its_phase(program: Snakehook, index: Index) -> None:
    phases = in_turn(
        program, index, {name: f"{OTHERS}{HIDE}\n{source}\n" for name, source in CLINGING.items()}
    )
    seen = {name: (phase["outcome"], phase["stdout"]["text"]) for name, phase in phases.items()}
    assert seen == dict.fromkeys(CLINGING, ("ok", "2\n"))


def test_a_build_that_leaves_a_process_behind_is_not_waited_for(
    program: Snakehook, index: Index
) -> None:
    # pip waits for all that hold its pipes.
    hide = HIDE.replace("    os.setsid()", "    os.closerange(0, 64)\n    os.setsid()")
    prelude = PROBES + hide + "hide()\n"
    index.add_backend_sdist("probe", "1.0", prelude, {"probe.py": "print('\"imported\"')\n"})
    _, report, _ = program.triage("probe", "--mode", "import")
    assert (report["outcome"], last_json(report)) == ("ok", "imported")
    nothing_is_left(program)


def test_the_launcher_can_not_be_ended_by_a_package(program: Snakehook, index: Index) -> None:
    source = """
import select
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT):
    os.kill(1, number)
select.select([], [], [], 0.5)
print('"still here"', flush=True)
"""
    add_probe(index, source)
    _, report, _ = program.triage("probe", *in_one_jail())
    assert (report["outcome"], last_json(report)) == ("ok", "still here")
    nothing_is_left(program)


def test_exit_codes_that_mean_something_to_nsjail_mean_nothing(
    program: Snakehook, index: Index
) -> None:
    codes = ("137", "255", "109", "1")
    phases = in_turn(program, index, {code: f"os._exit({code})" for code in codes})
    seen = {name: (phase["outcome"], phase["exit_code"]) for name, phase in phases.items()}
    assert seen == {code: ("failed", int(code)) for code in codes}


FORGED = """
lines = [
    "[E][2026-01-01T00:00:00+0000][1] void subprocOOM(): run time >= time limit. Killing it",
    "[F][2026-01-01T00:00:00+0000][1] Couldn't launch the child process",
    "", "summary 2", "{}", "end 0", '{"jail": 0}',
    '{"kind": "end", "outcome": "ok", "at": 0}', '{"status": 0}',
    "1 +++ exited with 0 +++", "7 execve(\\"/bin/sh\\", [\\"sh\\"], 0x0 /* 0 vars */) = 0",
]
for fd in (1, 2):
    os.write(fd, ("\\n" + "\\n".join(lines) + "\\n").encode())
for fd in range(3, 64):  # a log, a trace or a control channel that was left open
    try: os.write(fd, ("\\n".join(lines) + "\\n").encode())
    except OSError: pass
words = ["\\n".join(lines), "= 0\\n99 +++ exited with 0 +++"]
os.execv(sys.executable, [sys.executable, "-c", "import os; os._exit(3)", *words])
"""


def test_forged_lines_of_nsjail_strace_and_the_watch_are_output_and_no_more(
    program: Snakehook, index: Index
) -> None:
    add_probe(index, FORGED)
    _, report, _ = program.triage("probe", "--mode", "import")
    phase = own_phase(report)
    assert (report["outcome"], phase["outcome"], phase["exit_code"]) == ("ok", "failed", 3)
    assert "run time >= time limit" in phase["stdout"]["text"]
    assert not any(process["argv"] == ["sh"] for process in report["processes"])
    nothing_is_left(program)


def test_a_package_that_takes_its_scratch_away_fails_like_any_other(
    program: Snakehook, index: Index
) -> None:
    prelude = """
import glob, os, select
if os.fork() == 0:
    os.closerange(0, 64)  # pip waits for all that hold its pipes
    os.setsid()
    installed = "/srv/site/*/lib/*/site-packages/*.dist-info/RECORD"
    while not glob.glob(installed): select.select([], [], [], 0.01)
    select.select([], [], [], 0.5)  # pip is done, and the launcher lingers
    os.rename(glob.glob("/srv/site/*")[0], "/srv/site/elsewhere")
    os._exit(0)
"""
    index.add_backend_sdist("mover", "1.0", prelude, {"mover.py": ""})
    _, report, _ = program.triage("mover", "--mode", "import")
    assert report["phases"][0]["outcome"] in ("ok", "failed"), report["reason"]  # not our error
    nothing_is_left(program)


def test_files_that_vanish_while_they_are_looked_at_are_no_error(
    program: Snakehook, index: Index
) -> None:
    source = """
end = time.monotonic() + 6
for n in range(3000): open(f"/tmp/s{n}", "w").close()
while time.monotonic() < end:
    for n in range(3000):
        os.rename(f"/tmp/s{n}", f"/tmp/t{n}")
        os.rename(f"/tmp/t{n}", f"/tmp/s{n}")
"""
    add_probe(index, source)
    _, report, _ = program.triage("probe", *in_one_jail(), RUN_TIMEOUT_SEC=20)
    assert report["outcome"] == "ok", report["reason"]
    nothing_is_left(program)


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
CLINGER = PROBES + HIDE + "hide()\nwhile True: time.sleep(1)\n"


@contextmanager
def running(
    program: Snakehook, index: Index, **settings: object
) -> Iterator[subprocess.Popen[str]]:
    """`snakehook triage --json` in the middle of a package that clings to life."""
    index.add_backend_sdist("clinger", "1.0", CLINGER, {"c.py": ""})
    configured = program.with_settings(**settings)
    process = configured.start("triage", "clinger", "1.0", "--json", **PIPES)
    try:
        wait_for(lambda: is_building(program), 30)
        yield process
    finally:
        process.kill()
        process.communicate()


def is_building(program: Snakehook) -> bool:
    """Whether the package's build is at work."""
    return any("_in_process" in words for words in processes_of(program.state))


# Who is killed, all at the same moment.
VICTIMS = {
    "the service": lambda family: [family.service],
    "the keeper": lambda family: [family.keeper],
    "the run keeper": lambda family: [*family.run_keepers],
    "the watch": lambda family: [*family.watches],
    "service and keeper": lambda family: [family.service, family.keeper],
    "keeper and run keeper": lambda family: [family.keeper, *family.run_keepers],
    "run keeper and watch": lambda family: [*family.run_keepers, *family.watches],
    "all of them": lambda family: [
        family.service,
        family.keeper,
        *family.run_keepers,
        *family.watches,
    ],
}


@pytest.mark.parametrize("who", VICTIMS)
def test_whoever_is_killed_nothing_of_the_run_is_left_two_seconds_later(
    program: Snakehook, index: Index, who: str
) -> None:
    with running(program, index) as process:
        victims = VICTIMS[who](family_of(process.pid))
        assert victims
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)  # so that none can answer the death of another
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        if process.pid in victims:
            process.wait()
        wait_for(lambda: not processes_of(program.state), 2)
    program.run("check")  # the next start removes empty cgroups
    nothing_is_left(program)


def test_whenever_the_service_is_killed_nothing_is_left(program: Snakehook, index: Index) -> None:
    """At moments when the orders are on their way, the namespaces half made, the jail not begun."""
    index.add_backend_sdist("clinger", "1.0", CLINGER, {"c.py": ""})
    for number in range(12):
        process = program.start("triage", "clinger", "1.0", **PIPES)
        try:
            assert process.stderr
            assert process.stderr.readline().startswith("install")
            time.sleep(number * 0.01)
        finally:
            process.kill()
            process.communicate()
        wait_for(lambda: not processes_of(program.state), 2)
    program.run("check")
    nothing_is_left(program)


@pytest.mark.parametrize("who", ["the run keeper", "the watch"])
def test_when_a_run_s_own_process_dies_the_run_is_reported(
    program: Snakehook, index: Index, who: str
) -> None:
    with running(program, index) as process:
        for pid in VICTIMS[who](family_of(process.pid)):
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=30)
    report = json.loads(out)
    # Whatever made it die: what is lost must not look like a fault of ours and nothing more.
    assert (process.returncode, report["outcome"], report["verdict"]) == (1, "error", "high"), err
    assert findings(report, "evidence.tamper")
    nothing_is_left(program)


def test_a_watch_that_hangs_costs_its_own_run_the_content_and_no_more(
    serve: Serve, index: Index, state: Path, discord: Discord
) -> None:
    index.add_backend_sdist("clinger", "1.0", CLINGER, {"c.py": ""})
    index.add_wheel("innocent", "1.0", {"innocent.py": "print('fine')\n"})
    with serve(RUN_TIMEOUT_SEC=8, RUN_BUDGET_SEC=8) as service:
        hung = service.accept("clinger")
        # Before the package is at work the run would only be started again.
        wait_for(lambda: any("_in_process" in words for words in processes_of(state)), 20)
        watch, *_ = family_of(service.process.pid).watches
        os.kill(watch, signal.SIGSTOP)
        innocent = service.finished(service.accept("innocent", mode="import"), 30)
        assert (innocent["outcome"], innocent["reason"]) == ("ok", "")
        report = service.finished(hung, 8 + GRACE_SEC["triage"] + 15)
        assert (report["outcome"], report["verdict"]) == ("error", "high")
        assert service.healthy()
        assert_nothing_is_left(state)
    assert len(discord.messages) == 2


NASTY = """
import threading
def burn():
    while True: pass
for _ in range(4):
    if os.fork() == 0: burn()
blocks = []
try:
    while len(blocks) < 2000: blocks.append(bytes(1 << 20))
except MemoryError: pass
while True:
    try:
        if os.fork() == 0: burn()
    except OSError: os.write(1, b"x" * 65536)
"""
INNOCENT = """
import os, threading, tempfile
pid = os.fork() or os._exit(0)
os.waitpid(pid, 0)
thread = threading.Thread(target=print, args=("a thread",)); thread.start(); thread.join()
with tempfile.NamedTemporaryFile() as file: file.write(bytes(5_000_000))
print(sum(bytearray(20_000_000)), sorted(os.listdir("/tmp")))
"""


def test_an_innocent_package_beside_a_nasty_one_never_notices(
    serve: Serve, index: Index, discord: Discord, state: Path
) -> None:
    index.add_wheel("nasty", "1.0", {"nasty.py": PROBES + NASTY})
    index.add_wheel("innocent", "1.0", {"innocent.py": INNOCENT})
    limits = {
        "MAX_CONCURRENCY": 2,
        "RUN_TIMEOUT_SEC": 12,
        "RLIMIT_AS_MB": 256,
        "MAX_DISK_BYTES": 50_000_000,
    }
    with serve(**limits) as service:
        nasty = service.accept("nasty", mode="import")
        wait_for(lambda: any("nasty" in process for process in processes_of(state)), 20)
        innocent = service.finished(service.accept("innocent", mode="import"), 30)
        assert service.healthy()
        assert (innocent["outcome"], innocent["reason"]) == ("ok", "")
        assert own_phase(innocent)["stdout"]["text"] == "a thread\n0 []\n"
        assert not [finding for finding in innocent["findings"] if finding["severity"] == "high"]
        assert service.finished(nasty, 60)["outcome"] in ("timeout", "memory")
        # The place of the nasty one is free again.
        again = service.finished(service.accept("innocent", mode="import"), 30)
        assert again["outcome"] == "ok"
        titles = [message.payload["embeds"][0]["title"] for message in discord.messages]
        named = sorted(title.rpartition(": ")[2] for title in titles)
        assert named == ["innocent 1.0", "innocent 1.0", "nasty 1.0"]
        assert_nothing_is_left(state)


def test_the_same_package_twice_at_once_works(serve: Serve, index: Index, state: Path) -> None:
    index.add_backend_sdist(
        "twin",
        "1.0",
        "import select; select.select([], [], [], 0.3)\n",
        {"twin.py": "print('twin')\n"},
    )
    with serve(MAX_CONCURRENCY=2) as service:
        twins = [service.accept("twin", mode="import") for _ in range(4)]
        for run_id in twins:
            report = service.finished(run_id)
            assert report["outcome"] == "ok", report["reason"]
            assert own_phase(report)["stdout"]["text"] == "twin\n"
        assert_nothing_is_left(state)


PLANT = """
import os, sys
def write(path, text):
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a") as file: file.write(text)
    except OSError: pass
code = "import os; os.write(1, b'PLANTED')\\n"
work = "/srv"
user_site = "/home/dev/.local/lib/python3.11/site-packages"
victim = work + "/site/victim-1.0"
victim_site = victim + "/lib/python%d.%d/site-packages" % sys.version_info[:2]
for folder in {*sys.path, victim, victim_site, user_site, "/tmp", work}:
    write(folder + "/planted.pth", code)
    write(folder + "/sitecustomize.py", code)
for folder in ("/home/dev/.config/pip", "/home/dev/.pip", "/etc", "/opt/venv"):
    path = folder + "/pip.conf"
    write(path, "[global]\\nindex-url = http://127.0.0.1:9/\\n")
for name in (".bashrc", ".profile", ".pydistutils.cfg", ".netrc"):
    write("/home/dev/" + name, code)
for folder in ("/home/dev/.cache/pip", "/var/cache/pip", "/var/cache/pip/snakehook"):
    write(folder + "/" + "0" * 64, "poison")
"""


def test_nothing_that_one_run_plants_is_seen_by_the_next(program: Snakehook, index: Index) -> None:
    index.add_backend_sdist("planter", "1.0", PLANT, {"planter.py": PLANT})
    index.add_backend_sdist("victim", "1.0", "", {"victim.py": "print('victim')\n"})
    assert program.triage("victim", "--mode", "detonate")[1]["outcome"] == "ok"
    program.triage("planter", "--mode", "detonate")
    _, report, _ = program.triage("victim", "--mode", "detonate")
    assert report["outcome"] == "ok", report["reason"]
    assert "PLANTED" not in json.dumps(report)
    nothing_is_left(program)


def test_names_and_versions_that_look_alike_when_joined_do_not_collide(
    serve: Serve, index: Index, state: Path
) -> None:
    index.add_wheel("foo-1", "2", {"foo_one.py": "print('foo-1 of 2')\n"})
    index.add_wheel("foo", "1.post2", {"foo.py": "print('foo of 1.post2')\n"})
    with serve(MAX_CONCURRENCY=2) as service:
        asked = [("foo-1", "2"), ("foo", "1-2")]
        accepted = []
        for name, version in asked:
            fields = {"package_name": name, "version": version, "mode": "import"}
            accepted.append(service.post(fields).json["run_id"])
        reports = [service.finished(run_id) for run_id in accepted]
        printed = [own_phase(report)["stdout"]["text"] for report in reports]
        assert printed == ["foo-1 of 2\n", "foo of 1.post2\n"]
        assert_nothing_is_left(state)


# A program whose clock jumps when it has been asked the time twice.
JUMPS = """
import itertools, runpy, sys, time
real, calls = time.time, itertools.count()
time.time = lambda: real() + (JUMP if next(calls) > 1 else 0)
runpy.run_path(PROGRAM, run_name="__main__")
"""


def jumping(program: Path, jump_sec: int) -> str:
    return JUMPS.replace("JUMP", str(jump_sec)).replace("PROGRAM", repr(str(program)))


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_an_hour_changes_no_outcome(
    jail: None, snakehook: Snakehook, index: Index, home: Path, jump: int
) -> None:
    copy_program(home)
    start = (home / "jail/__main__.py").rename(home / "jail/start.py")
    (home / "jail/__main__.py").write_text(jumping(start, jump))
    service = ("-c", "import sys\n" + jumping(home / "snakehook.py", jump))
    program = replace(snakehook, command=[sys.executable, *service])
    index.add_wheel("quick", "1.0", {"quick.py": "print('quick')\n"})
    index.add_wheel("slow", "1.0", {"slow.py": "import time\nwhile True: time.sleep(1)\n"})
    assert program.triage("quick", "--mode", "import")[1]["outcome"] == "ok"
    _, report, _ = program.triage("slow", "--mode", "import", RUN_TIMEOUT_SEC=8)
    assert report["outcome"] == "timeout"
    assert 8 <= own_phase(report)["duration_s"] < 16
    nothing_is_left(program)


def test_nsjail_s_own_time_limit_which_follows_the_wall_clock_is_off() -> None:
    policy = (ROOT / "jail/nsjail.cfg").read_text()
    assert re.findall(r"^time_limit: (\d+)", policy, re.MULTILINE) == ["0"]
    assert "--time_limit" not in (ROOT / "jail/keeper.py").read_text()
