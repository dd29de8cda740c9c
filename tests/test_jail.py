"""What a package finds in its jail, what it can't reach from there, and that it leaves nothing."""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Snakehook, Triage, phase_of
from hostile import assert_nothing_is_left, in_one_jail, own_phase
from standins import Index

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gets real ids and cgroups")

LOOK = """
import glob, json, os, resource, socket

def attempt(what):
    try:
        return what() or "it worked"
    except OSError as error:
        return type(error).__name__

def connect(host, port):
    socket.create_connection((host, port), timeout=5).close()

def waits_of_a_child():
    near, far = os.pipe()
    if os.fork() == 0:
        for _ in range(CALLS):
            os.stat("/")
        status = open("/proc/self/status").read()
        os.write(far, status.partition("voluntary_ctxt_switches:")[2].split()[0].encode())
        os._exit(0)
    os.wait()
    return int(os.read(near, 100))

CALLS = 1000
ELSEWHERE = ("/", "/usr", "/etc", "/opt", "/srv", "/opt/venv",
             "/proc/sys/kernel")
SCRATCH = ("/home/dev", "/tmp", "/dev/shm", "/srv/site")
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "uid_map": open("/proc/self/uid_map").read().split(),
    "host": socket.gethostname(),
    "python": os.path.realpath("/opt/venv/bin/python"),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
    "as": resource.getrlimit(resource.RLIMIT_AS)[0],
    "interfaces": [name for _, name in socket.if_nameindex()],
    "index": attempt(lambda: connect("127.0.0.1", 3141)),
    "service": attempt(lambda: connect("127.0.0.1", SERVICE_PORT)),
    "world": attempt(lambda: connect("192.0.2.1", 443)),
    "name": attempt(lambda: socket.getaddrinfo("exfil.attacker.example", 443)),
    "environment": dict(os.environ), "devices": os.listdir("/dev"),
    "everybody": [attempt(lambda: open(path).read()) for path in
                  glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline")],
    "write": {path: attempt(lambda: open(path + "/x", "w").close()) for path in ELSEWHERE},
    "here": {path: attempt(lambda: open(path + "/x", "w").close()) for path in SCRATCH},
    "waits": waits_of_a_child(),
}))
"""


def look(triage: Triage, index: Index, **settings: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a module of a package sees, and the report of that run."""
    source = LOOK.replace("SERVICE_PORT", index.origin.rpartition(":")[2])
    index.add_wheel("looker", "1.0", {"looker.py": source})
    _, report, errors = triage("looker", *in_one_jail("looker"), **settings)
    own = own_phase(report)
    assert own["outcome"] == "ok", (report, errors)
    seen: dict[str, Any] = json.loads(own["stdout"]["text"])
    return seen, report


SECRETS = {
    "API_TOKEN": "tok-zq7x-secret",
    "AWS_SECRET_ACCESS_KEY": "aws-zq7x-secret",
    "HTTPS_PROXY": "http://p-zq7x:1",
}


def check_that_it_is_locked_in(seen: dict[str, Any], report: dict[str, Any]) -> None:
    assert seen["interfaces"] == ["lo"]
    assert seen["index"] == "ConnectionRefusedError"  # no index outside of the install phase
    assert seen["service"] == "ConnectionRefusedError"  # the jail's loopback is not the machine's
    # Who answers is the decoy internet; it knows no name that nobody can have.
    assert seen["world"] == "it worked"
    assert seen["name"] == "gaierror"
    (world,) = [item for item in report["network"] if item["target"] == "192.0.2.1:443"]
    assert world["answer"] == "decoy"
    questions = [attempt for attempt in report["network"] if attempt["kind"] == "dns"]
    assert "exfil.attacker.example" in {attempt["target"] for attempt in questions}
    assert {attempt["phase"] for attempt in questions} == {"execute"}
    assert "zq7x" not in json.dumps([seen["environment"], seen["everybody"]])
    assert set(seen["write"].values()) <= {"OSError", "PermissionError", "FileNotFoundError"}
    assert set(seen["here"].values()) == {"it worked"}
    # A stop for the kernel witness is a wait. A child that does nothing of interest has a few.
    assert seen["waits"] < 100


def test_a_package_is_locked_in(triage: Triage, index: Index, discord: Any) -> None:
    seen, report = look(triage, index, **SECRETS)
    check_that_it_is_locked_in(seen, report)


def test_a_package_is_locked_in_when_an_ordinary_user_runs_it(
    ordinary: Snakehook, index: Index
) -> None:
    seen, report = look(ordinary.triage, index, **SECRETS)
    check_that_it_is_locked_in(seen, report)
    assert (seen["uid"], seen["gid"]) == (65534, 65534)
    # What root has, and this run had not.
    assert any(note.startswith("cgroups: ") for note in report["coverage"]["notes"])


def test_an_ordinary_user_s_installation_fails_and_times_out_like_root_s(
    ordinary: Snakehook, index: Index
) -> None:
    index.add_backend_sdist(
        "stuck", "1.0", "import time\nwhile True: time.sleep(1)\n", {"stuck.py": ""}
    )
    code, report, _ = ordinary.triage("stuck", RUN_TIMEOUT_SEC=6)
    assert (code, report["outcome"]) == (4, "timeout")
    assert_nothing_is_left(ordinary.state, ordinary.cache)


@as_root
def test_as_root_the_jail_s_ids_are_real(triage: Triage, index: Index) -> None:
    seen, _ = look(triage, index)
    assert (seen["uid"], seen["gid"], seen["groups"]) == (65534, 65534, [])
    assert seen["uid_map"] == ["0", "0", "4294967295"]


@as_root
def test_nsjail_user_and_group(triage: Triage, index: Index) -> None:
    seen, _ = look(triage, index, NSJAIL_USER=54321, NSJAIL_GROUP=54322)
    assert (seen["uid"], seen["gid"]) == (54321, 54322)


@as_root
def test_a_user_namespace_may_be_asked_for(triage: Triage, index: Index) -> None:
    # The user namespace's root may not pass through somebody's private home.
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("needs a Python outside of a home directory")
    seen, _ = look(triage, index, NSJAIL_DISABLE_CLONE_NEWUSER=0, JAIL_PYTHON_NAME=python)
    assert seen["uid_map"] == ["65534", "65534", "1"]


@as_root
@pytest.mark.parametrize("below", ["the state", "the program", "nothing"])
def test_a_closed_folder_above_what_the_jail_needs_is_named(
    jail: None, snakehook: Snakehook, ordinary_home: tuple[Path, str], home: Path, below: str
) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    program, python = ordinary_home
    settings: dict[str, object] = {"NSJAIL_DISABLE_CLONE_NEWUSER": 0, "JAIL_PYTHON_NAME": python}
    if below == "the state":
        settings["STATE_DIR"] = closed / "state"
        (closed / "state").mkdir()
    if below == "the program":
        shutil.copytree(program / "jail", closed / "jail")
        shutil.copy(program / "snakehook.py", closed)
        snakehook = replace(snakehook, command=(sys.executable, str(closed / "snakehook.py")))
    done = snakehook.with_settings(**settings).run("check")
    # Of the program the jail needs a copy only, which stands with its interpreter.
    if below != "the state":
        assert done.returncode == 0, done.stdout
        return
    assert done.returncode == 3
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert f"{closed} is closed to the jail's user, 65534" in line
    assert f"chmod o+x {closed}" in line
    # What is said to help does.
    closed.chmod(0o701)
    assert snakehook.with_settings(**settings).run("check").returncode == 0


def test_a_python_that_lies_where_the_jail_has_another_folder(
    jail: None, snakehook: Snakehook
) -> None:
    system = Path("/usr/bin/python3")
    if not system.exists():
        pytest.skip("needs a Python that finds its library from anywhere")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        python = Path(folder, "bin", "python3")
        python.parent.mkdir()
        shutil.copy(system.resolve(), python)
        done = snakehook.with_settings(JAIL_PYTHON_NAME=python).run("check")
    assert done.returncode == 3
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert f"{python} (JAIL_PYTHON_NAME) lies in /tmp, which is another folder in the jail" in line


def test_limits_of_a_process(triage: Triage, index: Index) -> None:
    seen, _ = look(triage, index, RLIMIT_NOFILE=256, RLIMIT_CPU_SEC=17)
    assert (seen["nofile"], seen["cpu"]) == (256, 17)


def test_another_policy_file(triage: Triage, index: Index, tmp_path: Path) -> None:
    policy = (ROOT / "jail/nsjail.cfg").read_text()
    lines = [line for line in policy.splitlines() if 'dst: "/dev/zero"' not in line]
    (tmp_path / "other.cfg").write_text("\n".join(lines))
    seen, _ = look(triage, index, NSJAIL_CONFIG_PATH=tmp_path / "other.cfg")
    assert "zero" not in seen["devices"]
    assert "full" in seen["devices"]


def test_another_python(triage: Triage, index: Index) -> None:
    other = shutil.which("python3", path="/usr/bin")
    if not other:
        pytest.skip("there is no other Python here")
    seen, _ = look(triage, index, JAIL_PYTHON_NAME=other)
    assert seen["python"] == os.path.realpath(other)


FORKS = """
import os, time
count = 0
try:
    while count < 400:
        if os.fork() == 0:
            __import__('select').select([], [], [], 60)
            os._exit(0)
        count += 1
except OSError as error:
    print(count, error.strerror)
    os._exit(0)
print(count, "and no end")
os._exit(0)
"""


def test_a_package_starts_no_more_processes_than_it_may(triage: Triage, index: Index) -> None:
    index.add_wheel("forks", "1.0", {"forks.py": FORKS})
    _, report, _ = triage("forks", "--mode", "import", CGROUP_PIDS_MAX=40)
    count = int(phase_of(report, "forks")["stdout"]["text"].split()[0])
    assert 20 <= count <= 44
    # The next jail is made meanwhile; where it finds no room, it is made anew.
    assert len(report["phases"]) == 5
    assert "error" not in {phase["outcome"] for phase in report["phases"]}


def test_the_limit_of_processes_can_be_switched_off(triage: Triage, index: Index) -> None:
    index.add_wheel("forks", "1.0", {"forks.py": FORKS})
    settings = {"CGROUP_PIDS_MAX": 40, "ENABLE_CGROUP_PIDS_LIMIT": "false"}
    _, report, _ = triage("forks", "--mode", "execute_module", **settings)
    assert report["phases"][-1]["stdout"]["text"] == "400 and no end\n"


def test_a_package_that_fills_the_disk_is_stopped(
    triage: Triage, index: Index, state: Path
) -> None:
    fill = "f = open('/tmp/big', 'wb')\nwhile True: f.write(bytes(1 << 20))\n"
    index.add_wheel("filler", "1.0", {"filler.py": fill})
    code, report, _ = triage("filler", "--mode", "import", MAX_DISK_BYTES=20_000_000)
    assert (code, report["outcome"]) == (4, "disk")
    assert "MAX_DISK_BYTES" in report["reason"]
    assert_nothing_is_left(state)


def test_a_package_that_takes_too_much_memory_is_stopped(triage: Triage, index: Index) -> None:
    source = "eaten = [bytearray(1 << 20) for _ in range(4096)]\nprint('full')\n"
    index.add_wheel("eater", "1.0", {"eater.py": source})
    code, report, _ = triage("eater", "--mode", "import", RLIMIT_AS_MB=256)
    assert (code, report["outcome"] in ("memory", "failed")) == (4, True), report
    imports = report["phases"][1:]
    assert len(imports) > 1  # also in the jails that import all modules
    assert [phase for phase in imports if "full" in phase["stdout"]["text"]] == []


def test_phases_share_the_scratch_but_no_process(triage: Triage, index: Index) -> None:
    prelude = """
import os, time
with open(os.path.expanduser("~/note"), "w") as note:
    note.write("left by the build")
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 100)
    __import__('select').select([], [], [], 60)
    os._exit(0)
"""
    module = """
import os
print(open(os.path.expanduser("~/note")).read())
commands = [open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc") if pid.isdigit()]
print(sum("backend" in command for command in commands))
"""
    index.add_backend_sdist("two-parts", "1.0", prelude, {"two_parts.py": module})
    code, report, _ = triage("two-parts", "--mode", "import")
    assert code in (0, 1), report
    assert phase_of(report, "two_parts")["stdout"]["text"] == "left by the build\n0\n"


def test_runs_share_nothing_that_can_be_written(triage: Triage, index: Index, state: Path) -> None:
    module = """
import os
for folder in ("/home/dev", "/tmp", "/dev/shm", "/srv/site"):
    place = os.path.join(folder, "left-behind")
    print(os.path.exists(place))
    open(place, "w").close()
"""
    index.add_wheel("leaver", "1.0", {"leaver.py": module})
    for _ in range(2):
        _, report, _ = triage("leaver", "--mode", "execute_module")
        assert "True" not in report["phases"][-1]["stdout"]["text"]
        assert report["phases"][-1]["outcome"] == "ok"
    assert_nothing_is_left(state)


def test_nothing_is_left_of_a_package_that_makes_itself_hard_to_remove(
    triage: Triage, index: Index, state: Path
) -> None:
    module = """
import os, signal, time
os.chdir("/tmp")
for _ in range(1500):  # deeper than Python recurses, longer than a path may be
    os.mkdir("deep-below-everything")
    os.chdir("deep-below-everything")
os.mkdir("/tmp/closed")
open("/tmp/closed/file", "w").close()
os.chmod("/tmp/closed", 0)
os.symlink("/", "/tmp/root")
os.mkfifo("/tmp/pipe")
if os.fork() == 0:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    __import__('select').select([], [], [], 600)
"""
    index.add_wheel("clingy", "1.0", {"clingy.py": module})
    _, report, _ = triage("clingy", "--mode", "import")
    assert {phase["outcome"] for phase in report["phases"]} == {"ok"}, report
    assert_nothing_is_left(state)


BLINDERS = {
    # A process that can't be dumped, a program that can't be read: without SYS_PTRACE strace may
    # not look into them.
    "undumpable": """
import ctypes, os, socket
if os.fork() == 0:
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    CONNECT
    print("called", flush=True)
    os._exit(0)
os.wait()
""",
    "unreadable": """
import os, shutil, subprocess, sys
shutil.copy(os.path.realpath(sys.executable), "/tmp/unreadable")
os.chmod("/tmp/unreadable", 0o111)
where = {"PYTHONHOME": sys.base_prefix}
subprocess.run(["/tmp/unreadable", "-c", "import socket; CONNECT; print('called')"], env=where)
""",
}


@as_root
@pytest.mark.parametrize("way", BLINDERS)
def test_no_package_blinds_the_kernel_witness_where_root_may_not_trace_others(
    jail: None, snakehook: Snakehook, index: Index, way: str
) -> None:
    """As in a container, whose root has no SYS_PTRACE."""
    connect = "socket.socket().connect_ex(('203.0.113.77', 443))"
    index.add_wheel(way, "1.0", {f"{way}.py": BLINDERS[way].replace("CONNECT", connect)})
    without = ("setpriv", "--inh-caps", "-sys_ptrace", "--bounding-set", "-sys_ptrace")
    _, report, _ = replace(snakehook, command=[*without, *snakehook.command]).triage(
        way, *in_one_jail(way)
    )
    assert report["outcome"] == "ok", report
    assert "called" in own_phase(report)["stdout"]["text"]
    seen = [attempt for attempt in report["network"] if attempt["target"] == "203.0.113.77:443"]
    assert [attempt["witness"][0] for attempt in seen] == ["kernel"]
    assert not [finding for finding in report["findings"] if finding["rule"] == "evidence.tamper"]
