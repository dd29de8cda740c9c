"""Nothing of a package outlives its phase, and neither the service nor another run feels it.

Also what one run leaves to the next, or tells a parallel one: nothing.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, Serve, Snakehook
from hostile import PROBES, add_probe, assert_nothing_is_left, in_turn, last_json, processes_of, wait_until_nothing_runs
from standins import Discord, Index, wait_for


@pytest.fixture(params=["as root", "as an ordinary user"])
def program(request: pytest.FixtureRequest, jail: None) -> Snakehook:
    if request.param == "as root" and os.geteuid() != 0:
        pytest.skip("needs root")
    found: Snakehook = request.getfixturevalue("snakehook" if request.param == "as root" else "ordinary")
    return found


def state_of(program: Snakehook) -> Path:
    return Path(program.environment["STATE_DIR"])


def nothing_is_left(program: Snakehook) -> None:
    assert_nothing_is_left(state_of(program), Path(program.environment["PIP_CACHE_DIR"]))


# --- outliving the phase ----------------------------------------------------------------------------------------------

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
    "a stopped grandchild": "pid = os.fork() or (os.setsid(), time.sleep(3600)); os.kill(pid, signal.SIGSTOP)",
    "a process in the middle of vfork": "os.fork() or os.posix_spawn('/bin/sleep', ['sleep', '3600'], {})",
}


# What the next one sees of those before: itself, the launcher and its own children.
OTHERS = "print(sum(name.isdigit() for name in os.listdir('/proc')), flush=True)\n"


def test_nothing_outlives_its_phase(program: Snakehook, index: Index) -> None:
    phases = in_turn(program, index, {name: f"{OTHERS}{HIDE}\n{source}\n" for name, source in CLINGING.items()})
    seen = {name: (phase["outcome"], phase["stdout"]["text"]) for name, phase in phases.items()}
    assert seen == dict.fromkeys(CLINGING, ("ok", "2\n"))


def test_a_build_that_leaves_a_process_behind_is_not_waited_for(program: Snakehook, index: Index) -> None:
    index.add_backend_sdist(
        "probe",
        "1.0",
        PROBES + HIDE.replace("    os.setsid()", "    os.closerange(0, 64)\n    os.setsid()") + "hide()\n",
        {"probe.py": "print('\"imported\"')\n"},
    )
    _, report, _ = program.triage("probe", "--mode", "import")
    assert (report["outcome"], last_json(report)) == ("ok", "imported")
    nothing_is_left(program)


def test_the_launcher_can_not_be_ended_by_a_package(program: Snakehook, index: Index) -> None:
    source = """
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT):
    os.kill(1, number)
time.sleep(0.5)
print('"still here"', flush=True)
"""
    add_probe(index, source)
    _, report, _ = program.triage("probe", "--mode", "import")
    assert (report["outcome"], last_json(report)) == ("ok", "still here")
    nothing_is_left(program)


# --- lies about how it ended ------------------------------------------------------------------------------------------


def test_exit_codes_that_mean_something_to_nsjail_mean_nothing(program: Snakehook, index: Index) -> None:
    codes = ("137", "255", "109", "1")
    phases = in_turn(program, index, {code: f"os._exit({code})" for code in codes})
    seen = {name: (phase["outcome"], phase["exit_code"]) for name, phase in phases.items()}
    assert seen == {code: ("failed", int(code)) for code in codes}


FORGED = """
lines = [
    "[E][2026-01-01T00:00:00+0000][1] void subprocOOM(): run time >= time limit. Killing it",
    "[F][2026-01-01T00:00:00+0000][1] Couldn't launch the child process",
    "snakehook: jail ready", '{"kind": "end", "outcome": "ok", "at": 0}', '{"status": 0}',
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


def test_forged_lines_of_nsjail_strace_and_the_warden_are_output_and_no_more(program: Snakehook, index: Index) -> None:
    add_probe(index, FORGED)
    _, report, _ = program.triage("probe", "--mode", "import")
    phase = report["phases"][-1]
    assert (report["outcome"], phase["outcome"], phase["exit_code"]) == ("failed", "failed", 3)
    assert "run time >= time limit" in phase["stdout"]["text"]
    assert not any(one["argv"] == ["sh"] for one in report["processes"])
    nothing_is_left(program)


def test_a_package_that_takes_its_scratch_away_fails_like_any_other(program: Snakehook, index: Index) -> None:
    prelude = """
import glob, os, time
if os.fork() == 0:
    os.closerange(0, 64)  # pip waits for all that hold its pipes
    os.setsid()
    while not glob.glob("/opt/snakehook/work/site/*/*.dist-info/RECORD"): time.sleep(0.01)
    time.sleep(0.5)  # pip is done, and the launcher lingers
    os.rename(glob.glob("/opt/snakehook/work/site/*")[0], "/opt/snakehook/work/site/elsewhere")
    os._exit(0)
"""
    index.add_backend_sdist("mover", "1.0", prelude, {"mover.py": ""})
    _, report, _ = program.triage("mover", "--mode", "import")
    assert report["phases"][0]["outcome"] in ("ok", "failed"), report["reason"]  # not our error
    nothing_is_left(program)


def test_files_that_vanish_while_they_are_looked_at_are_no_error(program: Snakehook, index: Index) -> None:
    source = """
end = time.monotonic() + 6
for n in range(3000): open(f"/tmp/s{n}", "w").close()
while time.monotonic() < end:
    for n in range(3000):
        os.rename(f"/tmp/s{n}", f"/tmp/t{n}")
        os.rename(f"/tmp/t{n}", f"/tmp/s{n}")
"""
    add_probe(index, source)
    _, report, _ = program.triage("probe", "--mode", "import", RUN_TIMEOUT_SEC=20)
    assert report["outcome"] == "ok", report["reason"]
    nothing_is_left(program)


# --- the service dies -------------------------------------------------------------------------------------------------


@contextmanager
def running(program: Snakehook, index: Index) -> Iterator["subprocess.Popen[str]"]:
    """The program in the middle of a package that clings to life; ended at the end."""
    index.add_backend_sdist("clinger", "1.0", PROBES + HIDE + "hide()\nwhile True: time.sleep(1)\n", {"c.py": ""})
    process = program.start("triage", "clinger", "1.0", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any("backend" in one or "_in_process" in one for one in processes_of(state_of(program))), 20)
        yield process
    finally:
        process.kill()
        process.wait()


def children_of(pid: int, called: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid and called in (folder / "cmdline").read_text():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def test_when_the_service_is_killed_nothing_of_it_runs_two_seconds_later(program: Snakehook, index: Index) -> None:
    with running(program, index) as process:
        process.kill()
        process.wait()
        wait_until_nothing_runs(state_of(program), 2)
    program.run("check")  # the next start tidies up
    nothing_is_left(program)


def test_when_service_and_warden_are_killed_at_once_nothing_runs_two_seconds_later(
    program: Snakehook, index: Index
) -> None:
    with running(program, index) as process:
        wardens = children_of(process.pid, "warden.py")
        assert wardens
        process.send_signal(signal.SIGSTOP)
        for pid in (*wardens, process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        wait_until_nothing_runs(state_of(program), 2)
    program.run("check")
    nothing_is_left(program)


def test_when_the_warden_is_killed_the_run_is_reported_and_nothing_is_left(program: Snakehook, index: Index) -> None:
    add_probe(index, HIDE + "hide()\nwhile True: time.sleep(1)\n")
    process = program.start("triage", "probe", "1.0", "--mode", "import", "--json", stdout=-1, stderr=-1)
    try:
        for phase in range(1):
            wait_for(lambda: any("import probe" in one or "probe" in one for one in imports(program)), 20)
            os.kill(children_of(process.pid, "warden.py")[phase], signal.SIGKILL)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    report = json.loads(out)
    assert (process.returncode, report["outcome"]) == (4, "error")
    wait_until_nothing_runs(state_of(program), 2)
    nothing_is_left(program)


def imports(program: Snakehook) -> list[str]:
    return [one for one in processes_of(state_of(program)) if "importlib.import_module" in one]


def test_a_warden_whose_service_died_before_it_could_ask_starts_no_jail(
    jail: None, snakehook: Snakehook, index: Index, tmp_path: Path
) -> None:
    """The orders are all in the pipe, and the parent is gone before the warden looks who it is."""
    source = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
import snakehook
started = subprocess.Popen
def popen(argv, **options):
    if not str(argv[-1]).endswith("warden.py") or "clinger" not in sys.argv:
        return started(argv, **options)
    if not os.path.exists({str(tmp_path / "first")!r}):  # the self-check's
        open({str(tmp_path / "first")!r}, "w").close()
        return started(argv, **options)
    slow = "import os, sys, time; time.sleep(0.5); os.execv(sys.executable, [sys.executable, '-I', sys.argv[1]])"
    warden = started([argv[0], "-I", "-c", slow, argv[-1]], **options)
    class Dying:
        def __getattr__(self, name): return getattr(warden, name)
        def write(self, data):
            warden.stdin.write(data); warden.stdin.flush()
            os.kill(os.getpid(), 9)
    class Fake:
        stdin, stdout = Dying(), warden.stdout
        def __getattr__(self, name): return getattr(warden, name)
        def __enter__(self): return self
        def __exit__(self, *_): pass
    return Fake()
subprocess.Popen = snakehook.subprocess.Popen = popen
sys.exit(snakehook.main(sys.argv[1:]))
"""
    index.add_backend_sdist("clinger", "1.0", PROBES + HIDE + "hide()\nwhile True: time.sleep(1)\n", {"c.py": ""})
    program = replace(snakehook, command=[sys.executable, "-c", source])
    process = program.start("triage", "clinger", "1.0", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait(30) == -signal.SIGKILL
    wait_until_nothing_runs(state_of(program), 2)
    snakehook.run("check")
    nothing_is_left(program)


# --- runs side by side ------------------------------------------------------------------------------------------------

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
    limits = {"MAX_CONCURRENCY": 2, "RUN_TIMEOUT_SEC": 12, "RLIMIT_AS_MB": 256, "MAX_DISK_BYTES": 50_000_000}
    with serve(**limits) as service:
        nasty = service.accept("nasty", mode="import")
        wait_for(lambda: any("nasty" in one for one in processes_of(state)), 20)
        innocent = service.finished(service.accept("innocent", mode="import"), 30)
        assert service.healthy()
        assert (innocent["outcome"], innocent["reason"]) == ("ok", "")
        assert innocent["phases"][-1]["stdout"]["text"] == "a thread\n0 []\n"
        assert not [one for one in innocent["findings"] if one["severity"] == "high"]
        assert service.finished(nasty, 60)["outcome"] in ("timeout", "memory")
        again = service.finished(service.accept("innocent", mode="import"), 30)  # the worker is free
        assert again["outcome"] == "ok"
        titles = [message.payload["embeds"][0]["title"] for message in discord.messages]
        assert sorted(titles) == ["innocent 1.0", "innocent 1.0", "nasty 1.0"]
        assert_nothing_is_left(state)


def test_the_same_package_twice_at_once_works(serve: Serve, index: Index, state: Path) -> None:
    index.add_backend_sdist("twin", "1.0", "import time; time.sleep(0.3)\n", {"twin.py": "print('twin')\n"})
    with serve(MAX_CONCURRENCY=2) as service:
        for report in [service.finished(one) for one in [service.accept("twin", mode="import") for _ in range(4)]]:
            assert (report["outcome"], report["phases"][-1]["stdout"]["text"]) == ("ok", "twin\n"), report["reason"]
        assert_nothing_is_left(state)


PLANT = """
import os, sys
def write(path, text):
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a") as file: file.write(text)
    except OSError: pass
code = "import os; os.write(1, b'PLANTED')\\n"
work = "/opt/snakehook/work"
for folder in {*sys.path, work + "/site/victim-1.0", "/home/dev/.local/lib/python3.11/site-packages", "/tmp", work}:
    write(folder + "/planted.pth", code)
    write(folder + "/sitecustomize.py", code)
for folder in ("/home/dev/.config/pip", "/home/dev/.pip", "/etc", "/opt/snakehook/python"):
    path = folder + "/pip.conf"
    write(path, "[global]\\nindex-url = http://127.0.0.1:9/\\n")
for path in ("/home/dev/.bashrc", "/home/dev/.profile", "/home/dev/.pydistutils.cfg", "/home/dev/.netrc"):
    write(path, code)
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


def test_names_and_versions_that_look_alike_when_joined_do_not_collide(serve: Serve, index: Index, state: Path) -> None:
    index.add_wheel("foo-1", "2", {"foo_one.py": "print('foo-1 of 2')\n"})
    index.add_wheel("foo", "1.post2", {"foo.py": "print('foo of 1.post2')\n"})
    with serve(MAX_CONCURRENCY=2) as service:
        asked = [("foo-1", "2"), ("foo", "1-2")]
        ids = [service.post({"package_name": n, "version": v, "mode": "import"}).json["run_id"] for n, v in asked]
        said = [service.finished(one)["phases"][-1]["stdout"]["text"] for one in ids]
        assert said == ["foo-1 of 2\n", "foo of 1.post2\n"]
        assert_nothing_is_left(state)


# --- the clock --------------------------------------------------------------------------------------------------------

JUMPS = """
import itertools, runpy, sys, time
real, calls = time.time, itertools.count()
time.time = lambda: real() + (JUMP if next(calls) > 1 else 0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_an_hour_changes_no_outcome(
    jail: None, snakehook: Snakehook, index: Index, tmp_path: Path, jump: int
) -> None:
    jail_dir = tmp_path / "jail"
    jail_dir.mkdir()
    for path in (ROOT / "jail").iterdir():
        if path.is_file() and path.name != "warden.py":
            (jail_dir / path.name).write_bytes(path.read_bytes())
    (jail_dir / "real_warden.py").write_bytes((ROOT / "jail" / "warden.py").read_bytes())
    wrapper = JUMPS.replace("JUMP", str(jump)).replace(
        "sys.argv = sys.argv[1:]", f"sys.argv = [{str(jail_dir / 'real_warden.py')!r}]"
    )
    (jail_dir / "warden.py").write_text(wrapper)
    program = replace(
        snakehook, command=[sys.executable, "-c", JUMPS.replace("JUMP", str(jump)), *snakehook.command[1:]]
    )
    index.add_wheel("quick", "1.0", {"quick.py": "print('quick')\n"})
    index.add_wheel("slow", "1.0", {"slow.py": "import time\nwhile True: time.sleep(1)\n"})
    settings = {"RUN_TIMEOUT_SEC": 4, "JAIL_DIR": jail_dir}
    assert program.triage("quick", "--mode", "import", **settings)[1]["outcome"] == "ok"
    _, report, _ = program.triage("slow", "--mode", "import", **settings)
    assert report["outcome"] == "timeout"
    assert 4 <= report["phases"][-1]["duration_s"] < 12
    nothing_is_left(program)


def test_nsjail_s_own_time_limit_which_follows_the_wall_clock_is_off() -> None:
    assert re.findall(r"^time_limit: (\d+)", (ROOT / "jail/nsjail.cfg").read_text(), re.MULTILINE) == ["0"]
    assert "--time_limit" not in (ROOT / "jail/warden.py").read_text() + (ROOT / "snakehook.py").read_text()
