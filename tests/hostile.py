"""What the hostile suite shares: code that hostile packages begin with, and a look at what they left."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from conftest import ROOT, Snakehook
from standins import Index, wait_for

# Each probe is a function that returns what it got; in a child of its own, since some are meant to kill it.
PROBES = '''
import ctypes, errno, json, os, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def called(result):
    """What a C function or system call came to: "it worked" or the error's name."""
    return "it worked" if result not in (-1, None) else errno.errorcode[ctypes.get_errno()]

def call(number, *arguments):
    ctypes.set_errno(0)
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return called(libc.syscall(ctypes.c_long(number), *words))

def attempt(what):
    """What `what` returns, the name of its error, or of the signal that ended it."""
    far, near = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = what()
            result = "it worked" if result is None else result
        except OSError as error:
            result = errno.errorcode.get(error.errno, type(error).__name__)
        except BaseException as error:
            result = type(error).__name__
        os.write(near, json.dumps(result).encode())
        os._exit(0)
    os.close(near)
    said = b""
    while data := os.read(far, 65536):
        said += data
    os.close(far)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return json.loads(said or b'"nothing"')

def tell(**probes):
    print(json.dumps({name: attempt(probe) for name, probe in probes.items()}), flush=True)
'''


def last_json(report: dict[str, Any]) -> Any:
    """What the last phase printed as JSON on its last line."""
    phase = report["phases"][-1]
    assert phase["stdout"]["text"].strip(), (report["outcome"], report["reason"], phase["stderr"]["text"])
    return json.loads(phase["stdout"]["text"].strip().splitlines()[-1])


def add_probe(index: Index, source: str, name: str = "probe", **about: Any) -> None:
    """A wheel with one module, named like it, that begins with PROBES."""
    index.add_wheel(name, "1.0", {f"{name.replace('-', '_')}.py": PROBES + source}, **about)


def in_turn(
    program: Snakehook, index: Index, sources: Mapping[str, str], **settings: object
) -> dict[str, dict[str, Any]]:
    """The phase of each of the `sources`, at most 8: modules of one package, imported one after the other."""
    names = {f"probe_{number}": name for number, name in enumerate(sources)}
    modules = {f"{module}.py": PROBES + sources[name] for module, name in names.items()}
    index.add_wheel("probe", "1.0", modules)
    _, report, _ = program.triage("probe", "--mode", "import", **settings)
    assert_nothing_is_left(Path(program.environment["STATE_DIR"]), Path(program.environment["PIP_CACHE_DIR"]))
    phases = {names[one["trigger"]]: one for one in report["phases"] if one["name"] == "import"}
    assert phases.keys() == sources.keys(), report
    return phases


def tight_jail(folder: Path, **bounds: int) -> Path:
    """A JAIL_DIR whose warden keeps a hundred events of a kind, or to other `bounds`: floods need not be long."""
    jail = shutil.copytree(ROOT / "jail", folder / "jail")
    source = (jail / "warden.py").read_text()
    for name, value in {"MAX_EVENTS_PER_KIND": 100, **bounds}.items():
        source, found = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value}  ", source, flags=re.MULTILINE)
        assert found == 1, name
    (jail / "warden.py").write_text(source)
    return jail


def processes_of(state: Path) -> list[str]:
    """The processes of the runs of a STATE_DIR, those in jails included; not the program itself."""
    marks = (f"{state}/scratch/", f"{state}/python/")
    inside = "/".join(state.parts[-2:]) + "/scratch/"  # as mountinfo shows it, whatever the mount point
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            mounts = (folder / "mountinfo").read_text(errors="replace")
        except OSError:  # gone, or a zombie
            continue
        jailed = any(inside in line and " /opt/snakehook/" in line for line in mounts.splitlines())
        if jailed or any(mark.encode() in words for mark in marks):
            found.append(f"{folder.name}: {words[:200]!r}")
    return found


def groups_of(state: Path) -> list[Path]:
    prefix = hashlib.sha256(str(state).encode()).hexdigest()[:8]
    return [one for parent in Path("/sys/fs/cgroup").glob("**/snakehook") for one in parent.glob(f"{prefix}-*")]


def assert_nothing_is_left(state: Path, cache: Path | None = None) -> None:
    """No process, mount, cgroup, scratch directory or half a download of the runs of this STATE_DIR."""
    assert processes_of(state) == []
    assert f"{state}/" not in Path("/proc/self/mountinfo").read_text()
    assert groups_of(state) == []
    assert list((state / "scratch").iterdir()) == []
    if cache:
        assert [path.name for path in cache.rglob(".*")] == []


def wait_until_nothing_runs(state: Path, within_sec: float = 2.0) -> None:
    wait_for(lambda: not processes_of(state), within_sec)


def findings(report: dict[str, Any], rule: str) -> list[str]:
    return [one["title"] for one in report["findings"] if one["rule"] == rule]


def targets(report: dict[str, Any], kinds: Iterable[str] = ("dns", "tcp", "udp", "other")) -> set[str]:
    return {one["target"] for one in report["network"] if one["kind"] in kinds}
