"""What a tired reader would curse at: acts that are not the package's, are no evasion, or are one.

Each has a relative here that is one, and stays told.
"""

import hashlib
import io
import re
import shutil
import subprocess
import sysconfig
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from conftest import Snakehook, Triage, phase_of
from standins import BACKEND, BACKEND_PYPROJECT, Content, Index, sdist, wheel

from jail.report.acts import act_of
from jail.report.harmless import STARTUP_TEXTS, is_known_startup
from jail.report.rules import judge
from jail.watch.endings import end_phase
from jail.watch.events import (
    Code,
    Downloaded,
    Finding,
    Outcome,
    Phase,
    PhaseName,
    Rule,
    Seen,
    Severity,
)
from jail.watch.scratch import FileState
from jail.watch.triggers import Trigger
from jail.watch.unpacked import unpacked_owners
from jail.watch.upstream import PackageCache

HIGH = Severity.HIGH
SITE = "site/big-1.0/lib/python3.11/site-packages"


def of(report: dict[str, Any], rule: str, severity: str = "") -> list[str]:
    """The titles of a report's findings by a rule."""
    return [
        finding["title"]
        for finding in report["findings"]
        if finding["rule"] == rule and severity in ("", finding["severity"])
    ]


# --- pip that did not come to its end -------------------------------------------------------------


def test_what_an_interrupted_pip_had_unpacked_is_the_wheel_s(tmp_path: Path) -> None:
    _, data = wheel("big", "1.0", {"big.py": "x = 1\n", "big-more.pth": "import os\n"})
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / digest).write_bytes(data)
    (tmp_path / ("0" * 64)).write_bytes(b"no zip")
    # Its last record says that the list of members is longer than anybody would read.
    (tmp_path / ("2" * 64)).write_bytes(data[:-10] + b"\xff" * 4 + data[-6:])
    files = {
        f"{SITE}/big.py": FileState(6, 1, 1),
        f"{SITE}/big-more.pth": FileState(10, 2, 1),
        # What a build has put there itself: another name, or another size.
        f"{SITE}/evil.pth": FileState(10, 3, 1),
        f"{SITE}/big/big.py": FileState(6, 4, 1),
        "home/.bashrc": FileState(6, 5, 1),
    }

    def nothing(path: str) -> BinaryIO:
        return io.BytesIO(b"")

    given = [
        Downloaded("big-1.0-py3-none-any.whl", len(data), digest, False),
        Downloaded("other-1.0-py3-none-any.whl", 6, "0" * 64, False),
        Downloaded("vast-1.0-py3-none-any.whl", len(data), "2" * 64, False),
        Downloaded("big-1.0.tar.gz", 6, "1" * 64, False),
    ]
    seen = [Seen(event, Phase(PhaseName.INSTALL), 0.0, ()) for event in given]
    found = unpacked_owners(files, seen, PackageCache(tmp_path), nothing)
    assert found == {f"{SITE}/big.py": "big", f"{SITE}/big-more.pth": "big"}
    longer = files | {f"{SITE}/big.py": FileState(7, 1, 1)}
    assert unpacked_owners(longer, seen[1:], PackageCache(tmp_path), nothing) == {}


WHEEL: dict[str, Content] = {
    "big.py": "x = 1\n" * 9,
    "big-hook.pth": "import os\n",
    "big-1.0.data/data/etc/big.conf": "x",
    "big-1.0.data/scripts/big-old": "#!python\nimport big\n",
    "big-1.0.data/purelib/more.py": "y = 1\n",
    "big-1.0.data/headers/big.h": "int x;\n",
}
INFO = "big-1.0.dist-info"
# What lies in the prefix of an installation that was broken off, and what is in it.
THE_PACKAGE_S = {
    f"{SITE}/big.py": WHEEL["big.py"][:17],  # half written
    f"{SITE}/big-hook.pth": "",
    f"{SITE}/more.py": "y = 1\n",
    f"{SITE}/{INFO}/INSTALLER": "pip\n",
    f"{SITE}/{INFO}/RECORDa1b2c3_9.tmp": "big.py,",
    "site/big-1.0/etc/big.conf": "x",
    "site/big-1.0/bin/big-old": "#!/opt/venv/bin/python\nimport big\n",
    "site/big-1.0/bin/big": "#!/opt/venv/bin/python\n",
    "site/big-1.0/include/site/python3.11/big/big.h": "int x;\n",
}
NOBODY_S = {
    f"{SITE}/big-1.0.data/purelib/more.py": "y = 1\n",  # pip does not put it there
    f"{SITE}/{INFO}/INSTALLER.pth": "pip\n",
    f"{SITE}/other-1.0.dist-info/INSTALLER": "pip\n",
    "site/big-1.0/bin/big-new": "#!/bin/sh\n",
    "site/big-1.0/bin/big.py": "x = 1\n",
    "home/.bashrc": "x = 1\n",
}


@pytest.mark.parametrize("is_built", [False, True])
def test_what_an_interrupted_pip_was_about_to_write_is_the_wheel_s(
    tmp_path: Path, is_built: bool
) -> None:
    name, data = wheel("big", "1.0", WHEEL, console_scripts={"big": "big:main"})
    contents = {path: str(text).encode() for path, text in (THE_PACKAGE_S | NOBODY_S).items()}
    source = Downloaded("big-1.0.tar.gz", 6, "1" * 64, False)
    digest = hashlib.sha256(data).hexdigest()
    given = source if is_built else Downloaded(name, len(data), digest, False)
    cache_folder = tmp_path / "cache"
    cache_folder.mkdir()
    if is_built:
        contents[f"tmp/pip-ephem-wheel-cache-x1/wheels/ab/{name}"] = data
        # Of a name that no source has: whoever built it only says so.
        contents["tmp/pip-wheel-x1/boto3-1.0-py3-none-any.whl"] = data
    else:
        (cache_folder / digest).write_bytes(data)

    def owners(contents: Mapping[str, bytes]) -> dict[str, str]:
        files = {path: FileState(len(text), 1, 1) for path, text in contents.items()}
        seen = [Seen(given, Phase(PhaseName.INSTALL), 0.0, ())]
        cache = PackageCache(cache_folder)
        return unpacked_owners(files, seen, cache, lambda path: io.BytesIO(contents[path]))

    found = owners(contents)
    assert found == dict.fromkeys(THE_PACKAGE_S, "big")
    # As long as a half of the wheel's, and not the start of it.
    assert f"{SITE}/big.py" not in owners(contents | {f"{SITE}/big.py": b"import evil.again"})


KILLER = """
import glob, os, select, signal, sys
while not glob.glob("/srv/site/*/lib/python3*/site-packages/zeros.bin"):
    select.select([], [], [], 0.001)
os.kill(int(sys.argv[1]), signal.SIGKILL)
"""
INTERRUPTED_BUILD = f"""
import glob, os, subprocess, sys
if not os.path.exists("/tmp/once"):
    open("/tmp/once", "w").close()
    open(os.path.expanduser("~/.bashrc"), "a").write("# more\\n")
    library = os.path.join(os.environ["VIRTUAL_ENV"], "lib/python3.11/site-packages")
    os.makedirs(library, exist_ok=True)
    open(os.path.join(library, "planted.pth"), "w").write("import os\\n")
    if "killed" in os.getcwd():
        words = [sys.executable, "-c", {KILLER!r}, str(os.getppid())]
        subprocess.Popen(words, start_new_session=True, stdout=-3, stderr=-3)
"""


def big_wheel(name: str) -> bytes:
    """A wheel with a large member, and RECORD at its end, as tools make them."""
    _, data = wheel(name, "1.0", {f"{name}.py": "x = 1\n", f"{name}-hook.pth": "\n"})
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as first, zipfile.ZipFile(out, "w") as last:
        names = sorted(first.namelist(), key=lambda member: member.endswith("RECORD"))
        for member in names[:-1]:
            last.writestr(member, first.read(member))
        last.writestr("zeros.bin", bytes(80_000_000), zipfile.ZIP_DEFLATED, 1)
        last.writestr(names[-1], first.read(names[-1]))
    return out.getvalue()


@pytest.mark.parametrize(("how", "outcome"), [("killed", "failed"), ("filled", "disk")])
def test_what_an_interrupted_installation_leaves_is_not_the_package_s(
    triage: Triage, index: Index, how: str, outcome: str
) -> None:
    filename, _ = wheel(how, "1.0", {})
    build = INTERRUPTED_BUILD + BACKEND.format(filename=filename)
    files: dict[str, Content] = {
        "pyproject.toml": BACKEND_PYPROJECT,
        "backend.py": build,
        filename: big_wheel(how),
    }
    index.add_file(how, *sdist(how, "1.0", files))
    limits = {"MAX_DISK_BYTES": 30_000_000} if how == "filled" else {}
    _, report, _ = triage(how, **limits)
    assert report["outcome"] == outcome, (report["reason"], report["phases"])
    # It was broken off before pip could tell what it has installed.
    assert not [item for item in report["files"] if item["path"].endswith("/RECORD")]
    # What its build did before that is its own doing, and told.
    written = sorted(of(report, "persistence.write", "high"))
    assert [title.partition(" (")[0].rpartition("/")[2] for title in written] == [
        "planted.pth",
        ".bashrc",
    ]
    assert of(report, "persistence.write", "medium") == []
    started = of(report, "pth.code")
    assert started and all("planted.pth" in title for title in started)


# --- the limit of CPU time ------------------------------------------------------------------------

BUSY_BUILD = """
import os, resource, sys
print("limit", resource.getrlimit(resource.RLIMIT_CPU)[0], file=sys.stderr, flush=True)
while True: pass
"""


def test_pip_has_the_whole_deadline_and_what_it_builds_the_limit(
    triage: Triage, index: Index
) -> None:
    index.add_backend_sdist("busy", "1.0", BUSY_BUILD, {"busy.py": ""})
    code, report, _ = triage("busy", RLIMIT_CPU_SEC=2)
    assert (code, report["outcome"]) == (4, "timeout"), report["phases"]
    assert "RLIMIT_CPU_SEC" in report["reason"]
    assert report["verdict"] != "clean"
    # pip itself came to its end, and told of it.
    install = phase_of(report, None)
    assert (install["exit_code"], install["signal"]) == (1, None)


def settings(**about: Any) -> Any:
    class Settings:
        rlimit_cpu_sec = 2

    return Settings()


def ended(kind: str, signals: set[str], exit_code: int, duration_sec: float) -> Outcome:
    phase = Phase(PhaseName.INSTALL, None)
    phase.duration_sec = duration_sec
    trigger = Trigger(PhaseName.INSTALL, None, (kind,))
    end_phase(phase, trigger, (exit_code, None), 0, settings(), signals)
    return phase.outcome


def test_a_build_that_fails_by_itself_is_no_timeout() -> None:
    assert ended("pip", {"SIGKILL"}, 1, 60.0) is Outcome.TIMEOUT
    assert ended("pip", set(), 1, 60.0) is Outcome.FAILED
    assert ended("pip", {"SIGSEGV"}, 1, 60.0) is Outcome.FAILED
    # Faster than any limit; and where pip succeeded nothing was missed.
    assert ended("pip", {"SIGKILL"}, 1, 0.01) is Outcome.FAILED
    assert ended("pip", {"SIGKILL"}, 0, 60.0) is Outcome.OK


# --- Python's witness, scripts, and what is told --------------------------------------------------

ACTS = r"""
import os, socket, subprocess, sys
question = b"ab\1\0\0\1\0\0\0\0\0\0\3own\7example\3net\0\0\1\0\1"
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(question, ("127.0.0.1", 53))
connect = "import socket; socket.socket().connect_ex(('203.0.113.7', 80))"
subprocess.run(["/usr/bin/python3", "-c", connect])
# The interpreter that the environment is made of, as tests of psutil call it.
child = "import subprocess; subprocess.run(['/bin/true', 'below the base'])"
subprocess.run([os.path.realpath(sys.executable), "-c", child])
fetch = ["download", "--timeout", "2", "--retries", "0", "-i", "https://mirror.example.net/", "x"]
subprocess.run([sys.executable, "-m", "pip", *fetch], stdout=subprocess.DEVNULL)
# The worker of a pool, by the call that has no audit event.
from multiprocessing.util import spawnv_passfds
words = [sys.executable, "-c", "print('a worker is at work')"]
os.waitpid(spawnv_passfds(os.fsencode(sys.executable), words, ()), 0)
try:
    import _native
    _native.reach(b"203.0.113.8", 81)
except ImportError:
    pass

def main():
    import argparse
    print("I am in", os.getcwd(), os.listdir("."))
    for folder, _, names in os.walk("."):
        for name in names: open(os.path.join(folder, name), "rb").read()
    argparse.ArgumentParser().parse_args(["--no-such"])
"""
# Python code that does the same unseen.
GOES_AROUND = r"""
import ctypes, os, socket, struct
from multiprocessing.util import spawnv_passfds
os.waitpid(spawnv_passfds(b"/bin/true", ["true", "unsaid"], ()), 0)
try:
    import _native
except ImportError:
    pass
libc = ctypes.CDLL(None)
fd = libc.socket(2, 1, 0)
address = struct.pack("=H", 2) + struct.pack("!H", 82) + socket.inet_aton("203.0.113.9") + bytes(8)
libc.connect(fd, address, 16)
"""
NATIVE = r"""
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <arpa/inet.h>
#include <sys/socket.h>
static PyObject *reach(PyObject *self, PyObject *args) {
    const char *host; int port; struct sockaddr_in to = {0};
    if (!PyArg_ParseTuple(args, "yi", &host, &port)) return NULL;
    to.sin_family = AF_INET; to.sin_port = htons(port); inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return PyLong_FromLong(connect(fd, (void *)&to, sizeof to));
}
static PyMethodDef methods[] = {{"reach", reach, METH_VARARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "", -1, methods};
PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&module); }
"""


def native_module(folder: Path) -> bytes | None:
    """A compiled module for the Python of these tests, which is the jail's; None without gcc."""
    compiler, include = shutil.which("gcc"), sysconfig.get_path("include")
    if not compiler or not Path(include, "Python.h").exists():
        return None
    (folder / "native.c").write_text(NATIVE)
    command = [compiler, "-shared", "-fPIC", f"-I{include}", "native.c", "-o", "native.so"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "native.so").read_bytes()


def test_no_harmless_way_is_called_evasion_and_an_evasion_is(
    jail: None, snakehook: Snakehook, index: Index, tmp_path: Path
) -> None:
    native = native_module(tmp_path)
    extension: dict[str, Any] = {"_native.abi3.so": native} if native else {}
    index.add_wheel(
        "acts", "1.0", {"acts.py": ACTS, **extension}, console_scripts={"acts": "acts:main"}
    )
    index.add_wheel("around", "1.0", {"around.py": GOES_AROUND, **extension})
    script = {"RUN_TIMEOUT_SEC": 60}
    _, report, _ = snakehook.triage("acts", "--mode", "execute", **script)
    hidden = [item for item in report["findings"] if item["rule"] == "witness.hidden"]
    assert hidden == [], [hidden, report["coverage"], report["processes"]]
    attempts = of(report, "network.attempt")
    assert any("203.0.113.7:80" in title for title in attempts)
    assert any("own.example.net" in title for title in attempts)
    if native:
        (told,) = [title for title in attempts if "203.0.113.8" in title]
        assert told.endswith("by native code (_native.abi3.so)")
    # The script is at work in a folder of its own: what it reads there is no secret.
    said = report["phases"][-1]["stdout"]["text"]
    assert re.search(r"I am in /home/dev/projects/[a-z]+-[a-z]+ \[\]", said), said
    assert of(report, "secret.read") == []
    # It wanted other arguments. That is no failure of the run's, but for the mode that names it.
    assert report["phases"][-1]["exit_code"] == 2
    assert any("a worker is at work" in title for title in of(report, "process.spawn", "medium"))
    _, report, _ = snakehook.triage("around", "--mode", "import")
    assert any("runs true unsaid" in title for title in of(report, "witness.hidden", "high"))
    assert any("203.0.113.9:82" in title for title in of(report, "witness.hidden", "high"))


# --- what everybody has ---------------------------------------------------------------------------

OLD_NAMESPACE = (
    "import sys, types, os;p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('zope',));"
    "ie = os.path.exists(os.path.join(p,'__init__.py'));m = not ie and"
    " sys.modules.setdefault('zope', types.ModuleType('zope'));mp = (m or []) and"
    " m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)"
)


@pytest.mark.parametrize("what", ["os.system('x')", "", "import zope"])
def test_a_pth_line_is_known_whole_or_not_at_all(what: str) -> None:
    assert is_known_startup(OLD_NAMESPACE)
    assert not is_known_startup(f"{OLD_NAMESPACE};{what} ")
    assert not is_known_startup(OLD_NAMESPACE.replace("('zope',)", f"({what!r},)") + ";")


def test_what_a_known_pth_line_executes_is_known_too() -> None:
    # pytest-cov: the word `subprocess` stands in what it prints.
    (text,) = [text for text in STARTUP_TEXTS if "COV_CORE_SOURCE" in text]
    for shown, severity in ((text, Severity.INFO), (f"{text}\nexec(x)", Severity.MEDIUM)):
        code = Code("", len(shown), "/site/x.pth:1", False, shown)
        (found,) = judge(Phase(PhaseName.START, None), code)
        assert (found.rule, found.severity) == (Rule.CODE_DYNAMIC, severity)


# --- one act, one line ----------------------------------------------------------------------------


def test_one_act_is_one_line_and_two_are_two() -> None:
    def act(rule: Rule, title: str, place: str | None = None) -> str:
        return act_of(Finding(HIGH, rule, title, place))

    reads = {
        act(Rule.SECRET_READ, f"reads or touches /x{line}", f"/s/x.py:{line}") for line in (3, 9)
    }
    assert reads == {"/s/x.py"}
    leaks = {act(Rule.SECRET_READ, f"passes on {name} in output on stdout") for name in ("A", "B")}
    assert len(leaks) == 1
    assert act(Rule.SECRET_READ, "passes on A in file /tmp/x") not in leaks
    slow = {act(Rule.LIMIT_HIT, f"{x} did not end, and was stopped after {x} s") for x in "12"}
    assert len(slow) == 1
    assert act(Rule.LIMIT_HIT, "a did not end: b") not in slow
    hosts = {act(Rule.NETWORK_ATTEMPT, "connects", f"/s/x.py:{line}") for line in (3, 9)}
    assert len(hosts) == 2
