"""What the hostile suite shares: code that its packages begin with, and what is left of them."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import Snakehook, groups
from standins import Index, wait_for

# Each probe is a function that returns what it got; in a child of its own, since some are meant to
# kill it.
PROBES = '''
import ctypes, errno, json, os, signal, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def called(result):
    """What a C function or system call came to: "it worked" or the error's name."""
    return "it worked" if result not in (-1, None) else errno.errorcode[ctypes.get_errno()]

def call(number, *arguments):
    ctypes.set_errno(0)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
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


# The triggers of `--mode import` that run what the modules' own triggers have run already.
LATER_IMPORTS = {"all modules", "dependencies", "as windows", "as macos", "as ci, later"}
# How a module begins that acts in its own trigger alone, and not in these jails, which have the
# same scratch. For what is long or laborious.
ONCE = """
import os
if os.path.exists("/tmp/acted-" + __name__):
    raise SystemExit
open("/tmp/acted-" + __name__, "w").close()
"""


def own_phases(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The phases of the modules' own triggers; there is at least one."""
    found = [
        phase
        for phase in report["phases"]
        if phase["name"] in ("import", "execute") and phase["trigger"] not in LATER_IMPORTS
    ]
    assert found, (report["outcome"], report["reason"], report["phases"])
    return found


def own_phase(report: dict[str, Any]) -> dict[str, Any]:
    """The phase of the one module's own trigger."""
    (phase,) = own_phases(report)
    return phase


def last_json(report: dict[str, Any]) -> Any:
    """What the one module printed as JSON on its last line, in its own trigger."""
    phase = own_phase(report)
    printed = phase["stdout"]["text"].strip()
    assert printed, (report["outcome"], report["reason"], phase["stderr"]["text"])
    return json.loads(printed.splitlines()[-1])


def add_probe(index: Index, source: str, name: str = "probe", **about: Any) -> None:
    """A wheel with one module, named like it, that begins with PROBES."""
    index.add_wheel(name, "1.0", {f"{name.replace('-', '_')}.py": PROBES + source}, **about)


def in_one_jail(module: str = "probe") -> tuple[str, ...]:
    """To run a module in a single jail; what is imported is imported as other victims, too."""
    return ("--mode", "execute_module", "--module-name", module)


def in_turn(
    program: Snakehook, index: Index, sources: Mapping[str, str], **settings: object
) -> dict[str, dict[str, Any]]:
    """The phase of each of the `sources`, at most 8: modules of one package, imported in turn."""
    names = {f"probe_{number}": name for number, name in enumerate(sources)}
    modules = {f"{module}.py": ONCE + PROBES + sources[name] for module, name in names.items()}
    index.add_wheel("probe", "1.0", modules)
    _, report, _ = program.triage("probe", "--mode", "import", **settings)
    assert_nothing_is_left(program.state, program.cache)
    phases = {names[phase["trigger"]]: phase for phase in own_phases(report)}
    assert phases.keys() == sources.keys(), report
    return phases


@dataclass(frozen=True)
class Process:
    """What /proc says of a process."""

    pid: int
    parent: int
    command: str  # its words, with spaces between
    mounts: str  # its mountinfo

    @property
    def is_keeper(self) -> bool:
        """A keeper, or what was forked from it: a run keeper or a watch."""
        return " -I -S " in self.command and self.command.endswith("/jail/__main__.py")

    @property
    def is_jailed(self) -> bool:
        return " /opt/venv " in self.mounts

    def works_for(self, state: Path) -> bool:
        """Whether it is part of a run of this STATE_DIR: its scratch is mounted there."""
        return f" {state}/scratch " in self.mounts


def read_process(pid: int) -> Process | None:
    """None for what has ended; a zombie has no command and no mounts."""
    folder = Path(f"/proc/{pid}")
    try:
        # 4242 (a name) S 4241 ...
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
    words, mounts = b"", ""
    with suppress(OSError):
        words = (folder / "cmdline").read_bytes()
        mounts = (folder / "mountinfo").read_text(errors="replace")
    return Process(pid, parent, words.decode(errors="replace").replace("\0", " ").strip(), mounts)


def descendants() -> Iterator[Process]:
    """All processes that these tests have started, and their orphans (see conftest)."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    found = [process for process in map(read_process, numbers) if process]
    parents = {process.pid: process.parent for process in found}
    for process in found:
        pid = process.parent
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        if pid == os.getpid():
            yield process


def processes_of(state: Path) -> list[str]:
    """The processes of the runs of a STATE_DIR, those in jails included, and keepers without a
    service; not the service itself, nor its keeper."""
    found = []
    for process in descendants():
        is_orphan = process.is_keeper and process.parent == os.getpid()
        if is_orphan or process.is_jailed or process.works_for(state):
            found.append(f"{process.pid}: {process.command[:200]}")
    return found


def our_groups() -> list[Path]:
    """Those of keepers that these tests have started, even if one is a zombie by now."""
    ours = {str(process.pid) for process in descendants()}
    return [group for group in groups() if group.name.partition("-")[0] in ours]


def leftovers(state: Path, cache: Path | None = None) -> list[str]:
    """Processes, mounts, cgroups, scratches and half downloads of the runs of this STATE_DIR."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = processes_of(state)
    found += [line for line in mounts if f" {state}/" in line]
    found += [str(group) for group in our_groups()]
    if (state / "scratch").exists():
        found += [str(path) for path in (state / "scratch").iterdir()]
    if cache:
        found += [str(path) for path in cache.rglob(".*")]
    return found


def assert_nothing_is_left(state: Path, cache: Path | None = None, within_sec: float = 2.0) -> None:
    """Nothing of the runs of this STATE_DIR is left, or soon won't be: a report may be there
    before the last process of its run is gone."""
    with suppress(TimeoutError):
        wait_for(lambda: not leftovers(state, cache), within_sec, every_sec=0.05)
    assert leftovers(state, cache) == []


@dataclass(frozen=True)
class Family:
    """The processes of a service, by their role; those of jails are not among them."""

    service: int
    keeper: int | None
    run_keepers: tuple[int, ...]
    watches: tuple[int, ...]


def family_of(service: int) -> Family:
    """Who descends from a service, as its process id tells."""
    processes = list(descendants())
    keepers = [process for process in processes if process.is_keeper]
    first = [process.pid for process in keepers if process.parent == service]
    run_keepers = [process.pid for process in keepers if process.parent in first]
    watches = [process.pid for process in keepers if process.parent in run_keepers]
    return Family(service, first[0] if first else None, tuple(run_keepers), tuple(watches))


def findings(report: dict[str, Any], rule: str) -> list[str]:
    """The titles of the findings of a rule."""
    return [finding["title"] for finding in report["findings"] if finding["rule"] == rule]


def targets(
    report: dict[str, Any], kinds: Iterable[str] = ("dns", "tcp", "udp", "other")
) -> set[str]:
    return {attempt["target"] for attempt in report["network"] if attempt["kind"] in kinds}
