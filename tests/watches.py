"""Watches for the tests of keeper: what a taken-over one may try, and what an honest one sees.

The order's `module_name` names the function; what it returns goes to the test as JSON.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jail.orders import (
    MAX_PACKET_BYTES,
    PYTHON_IN_JAIL,
    WORK_IN_JAIL,
    JailSettings,
    Machine,
    Order,
)
from jail.watch.environment import lay_machine
from jail.watch.limits import count_oom_kills
from jail.watch.tools import lay_out_tools

TARGET = f"{WORK_IN_JAIL}/site/victim-1"
TELL = "/dev/null"  # nobody listens to what a trigger tells beside the hook
PATIENCE_SEC = 20.0


@dataclass
class Place:
    """What a watch is called with, and what most of them do with it."""

    settings: JailSettings
    order: Order
    machine: Machine
    scratch: Path
    control: socket.socket
    stream: socket.socket
    files: tuple[int, ...] = ()

    def send(self, **request: object) -> None:
        self.control.send(json.dumps(request).encode())

    def start(self, number: int, *launch: str, index: bool = False, **variables: str) -> None:
        words = list(launch) or ["start", TELL, TARGET]
        self.send(jail=number, launch=words, variables=variables, has_index=index)

    def answer(self) -> tuple[dict[str, Any], list[int]]:
        """The next answer of the run keeper and its descriptors; {} when there is none.

        The one that only brings the view of the jail's processes is left out.
        """
        self.control.settimeout(PATIENCE_SEC)
        fds = [-1]
        while len(fds) == 1:
            try:
                packet, fds, _, _ = socket.recv_fds(self.control, MAX_PACKET_BYTES, 20)
            except ConnectionError:
                return {}, []
            if len(fds) == 1:
                os.close(fds[0])
        return json.loads(packet) if packet else {}, fds

    def run(self, number: int, source: str, **options: Any) -> dict[str, Any]:
        """Run `source` in a jail and read all that it says, to its end."""
        module = f"source{number}"
        folder = self.scratch / "site" / "victim-1"
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(source)
        self.start(number, "file", TELL, TARGET, f"{module}.py", **options)
        return self.follow()

    def follow(self) -> dict[str, Any]:
        answer, fds = self.answer()
        said = dict.fromkeys(fds[:5], b"")
        ended = answer.get("ended", True)
        open_fds = set(fds[:4])
        deadline = time.monotonic() + PATIENCE_SEC
        while (open_fds or not ended) and time.monotonic() < deadline:
            waiting = [*open_fds, *fds[4:5], self.control.fileno()]
            for fd in select.select(waiting, [], [], 1)[0]:
                if fd == self.control.fileno():
                    answer, _ = self.answer()
                    ended = True
                else:
                    data = os.read(fd, 1 << 16)
                    said[fd] += data
                    if not data:
                        open_fds.discard(fd)
        texts = [data.decode(errors="replace") for data in said.values()]
        names = ("stdout", "stderr", "log", "trace", "audit")
        return dict(zip(names, texts, strict=False)) | answer | {"fds": len(fds)}


def act(
    settings: JailSettings,
    order: Order,
    machine: Machine,
    scratch: Path,
    control: socket.socket,
    stream: socket.socket,
    *files: int,
) -> None:
    """Do what the order says."""
    lay_machine(scratch, settings, machine)
    lay_out_tools(scratch / "bin")
    watch: Callable[[Place], object] = globals()[str(order.module_name)]
    try:
        told = watch(Place(settings, order, machine, scratch, control, stream, files))
    except Exception:
        told = {"failure": traceback.format_exc()}
    stream.sendall(json.dumps(told).encode())


def links_in(folder: str) -> dict[str, str]:
    """Where the links of a folder lead; the one that the look itself needs is left out."""
    found = {}
    for path in Path(folder).iterdir():
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = str(path.readlink())
    return found


# --- honest ones


def look(place: Place) -> dict[str, object]:
    """What this process is, and what it has."""
    status = Path("/proc/self/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    cache = Path(place.machine.cache, "probe")
    cache.write_text("written")
    cache.unlink()
    return {
        "status": {name: value.split() for name, value in facts.items()},
        "fds": links_in("/proc/self/fd"),
        "pid": os.getpid(),
        "environment": sorted(os.environ),
        "folders": sorted(path.name for path in place.scratch.iterdir()),
        "mounts": [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if "/scratch " in line
        ],
    }


def read_in_hand(place: Place) -> dict[str, Any]:
    """What came with the order, and whether a jail gets to it."""
    (fd,) = place.files
    jail = place.run(0, SHOW_LINKS)
    return {"text": os.read(fd, 100).decode(), "name": place.order.artifact, "jail": jail["stdout"]}


SHOW_LINKS = """
import os
for name in os.listdir('/proc/self/fd'):
    path = f'/proc/self/fd/{name}'
    if os.path.exists(path):
        print(os.readlink(path))
"""


def see_jail(place: Place) -> dict[str, Any]:
    """What a package can tell of its jail."""
    source = (
        "import json, os, resource, socket\n"
        "s = socket.socket(); s.settimeout(1)\n"
        "print(json.dumps({\n"
        "  'uid': os.getuid(), 'nice': os.nice(0), 'core': resource.getrlimit(4),\n"
        "  'pids': [n for n in os.listdir('/proc') if n.isdigit()],\n"
        "  'variables': dict(os.environ), 'keys': open('/proc/keys').read(),\n"
        "  'mountinfo': open('/proc/self/mountinfo').read(),\n"
        "  'fds': os.listdir('/proc/self/fd'),\n"
        "  'devices': open('/proc/net/dev').read(),\n"
        "  'index': s.connect_ex(('127.0.0.1', 3141)),\n"
        "  'cgroup': open('/proc/self/cgroup').read()}))\n"
    )
    return place.run(0, source, index=True)


def several(place: Place) -> list[dict[str, Any]]:
    """Jails one after the other, over the same scratch, each with a network of its own."""
    write = "open('/tmp/left', 'w').write('by the first')"
    read = "import os; print(open('/tmp/left').read(), os.readlink('/proc/self/ns/net'))"
    return [place.run(0, write), place.run(3, read), place.run(7, read)]


def killed(place: Place) -> dict[str, Any]:
    """A jail that would go on for ever, with children that ignore signals."""
    source = (
        "import os, select, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "os.fork(); os.fork(); print('at work', flush=True); select.select([], [], [], 1000)\n"
    )
    folder = place.scratch / "site" / "victim-1"
    folder.mkdir()
    (folder / "endless.py").write_text(source)
    place.start(0, "file", TELL, TARGET, "endless.py")
    _, fds = place.answer()
    said = b""
    while b"at work" not in said:
        said += os.read(fds[0], 4096)
    place.send(jail=0)
    begun = time.monotonic()
    answer, _ = place.answer()
    return answer | {"took_sec": time.monotonic() - begun}


def greedy(place: Place) -> dict[str, Any]:
    """More memory than a run may have."""
    told = place.run(0, "x = []\nwhile True: x.append(bytearray(10_000_000))")
    return told | {"oom_kills": count_oom_kills(place.machine.cgroups, place.order.run_id)}


def endless(place: Place) -> None:
    """A jail at work, and a watch that waits for ever."""
    folder = place.scratch / "site" / "victim-1"
    folder.mkdir()
    (folder / "endless.py").write_text(
        "import select; print('at work', flush=True); select.select([], [], [], 1000)"
    )
    place.start(0, "file", TELL, TARGET, "endless.py")
    _, fds = place.answer()
    said = b""
    while b"at work" not in said:
        said += os.read(fds[0], 4096)
    place.stream.sendall(b"at work\n")
    time.sleep(1000)


def first_jail(place: Place) -> float:
    """When a jail's interpreter said that it is there."""
    place.start(0)
    _, fds = place.answer()
    os.read(fds[0], 4096)
    return time.monotonic()


# --- taken-over ones

MALFORMED = (
    b"",
    b"\0",
    b"{",
    b"[]",
    b"null",
    b'"start"',
    b"[" * 50_000,
    b'{"jail": 1e309}',
    b'{"jail": ' + b"9" * 5000 + b"}",
    b'{"jail": -1}',
    b'{"jail": 400}',
    b'{"jail": "0"}',
    b'{"jail": true}',
    b'{"jail": null}',
    b'{"jail": 1.0}',
    b'{"jail": [0]}',
    b'{"jail": 0}',  # was not started
    b'{"jail": 0, "kill": true}',
    b'{"jail": 0, "launch": [], "variables": {}}',
    b'{"jail": 0, "launch": "start", "variables": {}, "has_index": false}',
    b'{"jail": 0, "launch": {}, "variables": {}, "has_index": false}',
    b'{"jail": 0, "launch": ["start"], "variables": [], "has_index": false}',
    b'{"jail": 0, "launch": ["start"], "variables": {}, "has_index": 1}',
    b'{"jail": 0, "launch": ["start", 1], "variables": {}, "has_index": false}',
    b'{"jail": 0, "launch": ["start", null], "variables": {}, "has_index": false}',
    b'{"jail": 0, "launch": ["a\\u0000b"], "variables": {}, "has_index": false}',
    b'{"jail": 0, "launch": ["\\ud800"], "variables": {}, "has_index": false}',
    b'{"jail": 0, "launch": ["a"], "variables": {"A": "a\\u0000b"}, "has_index": false}',
    b'{"jail": 0, "launch": ["a"], "variables": {"A\\u0000": ""}, "has_index": false}',
    b'{"jail": 0, "launch": ["a"], "variables": {"A": 1}, "has_index": false}',
    b'{"jail": 0, "launch": ["' + b"a" * 4097 + b'"], "variables": {}, "has_index": false}',
    b'{"jail": 0, "launch": ["a"], "variables": {}, "has_index": false, "user": 0}',
    b'{"jail": 0, "launch": ["a"], "variables": {}, "has_index": false, "more": "'
    + b"a" * 150_000
    + b'"}',
)


def malformed(place: Place) -> dict[str, Any]:
    """Every odd packet but the empty one, one at a time; then an honest request."""
    refusals = 0
    for packet in MALFORMED[1:]:
        place.control.send(packet)
    place.start(0)
    while True:
        answer, fds = place.answer()
        if fds or not answer:
            break
        assert answer["ended"] is True, answer
        refusals += answer["error"].startswith("refused: ")
    return {"refusals": refusals, "answer": answer, "end": place.answer()[0]}


def three_at_once(place: Place) -> dict[str, Any]:
    """A second jail while one is at work, a third, numbers again; then the first is killed."""
    folder = place.scratch / "site" / "victim-1"
    folder.mkdir()
    source = "import select; print('at work', flush=True); select.select([], [], [], 1000)"
    (folder / "endless.py").write_text(source)
    at_work, outputs = [], []
    for number in (1, 2):
        place.start(number, "file", TELL, TARGET, "endless.py")
        answer, fds = place.answer()
        at_work.append(answer["jail"])
        outputs.append(fds[0])
    refused = []
    for number in (3, 1, 0):
        place.start(number)
        answer, _ = place.answer()
        refused.append((answer["jail"], answer["error"][:8]))
    place.send(jail=1)
    killed, _ = place.answer()
    place.start(3)
    third, _ = place.answer()
    second = b""
    while not second.endswith(b"at work\n"):
        second += os.read(outputs[1], 4096)
    return {
        "at_work": at_work,
        "refused": refused,
        "killed": [killed["jail"], killed["status"]],
        "third": third,
        "second": second.decode().lstrip("\n"),
    }


# Splicing has two numbers: of x86-64, and of arm64.
HOLDING = """
import os, socket, threading, time
near, far = socket.socketpair()
fifo = os.open("/run/initctl", os.O_WRONLY)
thread = threading.Thread(target=os.splice, args=(near.fileno(), fifo, 1), daemon=True)
thread.start()
call = f"/proc/self/task/{thread.native_id}/syscall"
while open(call).read().split()[0] not in ("275", "76"):
    time.sleep(0.001)
os.write(1, b"at work\\n")
thread.join()
"""


def held_fifo(place: Place) -> dict[str, Any]:
    """A second jail while a process of the first has the FIFO for itself; then the first's end."""
    folder = place.scratch / "site" / "victim-1"
    folder.mkdir()
    (folder / "holding.py").write_text(HOLDING)
    place.start(1, "program", f"{PYTHON_IN_JAIL}/bin/python", "-IS", f"{TARGET}/holding.py")
    _, fds = place.answer()
    said = b""
    while not said.endswith(b"at work\n"):
        said += os.read(fds[0], 4096)
    place.start(2)
    second, _ = place.answer()
    place.send(jail=1)
    killed: dict[str, Any] = {}
    while killed.get("jail") != 1:
        killed, _ = place.answer()
    return {"second": second, "killed": killed["status"]}


def second_jail(place: Place) -> dict[str, Any]:
    """One jail after the other."""
    first = place.run(0, "print('first')")
    place.start(1)
    answer, _ = place.answer()
    return {"first": first["status"], "refusal": answer["error"]}


def descriptors(place: Place) -> dict[str, Any]:
    """Descriptors that nobody asked for, beside a request."""
    request = {"jail": 0, "launch": ["start", TELL, TARGET], "variables": {}, "has_index": False}
    ends = [*os.pipe(), *os.pipe()]
    socket.send_fds(place.control, [json.dumps(request).encode()], ends)
    return place.follow()


def flood(place: Place) -> object:
    """Nonsense for ever: the run ends."""
    while True:
        with contextlib.suppress(OSError):
            place.control.send(b"x" * 1000)


def deaf(place: Place) -> object:
    """Requests whose answers are never read: the run ends."""
    while True:
        with contextlib.suppress(OSError):
            place.send(jail=0)
        time.sleep(0.0005)


def deaf_starts(place: Place) -> object:
    """Jails whose answers are never read."""
    for number in range(400):
        with contextlib.suppress(OSError):
            place.start(number)
        time.sleep(0.02)
    time.sleep(1000)
    return None


def links(place: Place) -> dict[str, Any]:
    """A link to a folder of root's in the place of one that the next jail mounts."""
    tried = {}
    for name in ("site", "initctl"):
        try:
            (place.scratch / name).rename(place.scratch / "away")
            (place.scratch / name).symlink_to("/etc")
            tried[name] = "done"
        except OSError as error:
            tried[name] = type(error).__name__
    return tried


def break_out(place: Place) -> dict[str, str]:
    """Ways back to power, and to what is not ours."""
    libc = ctypes.CDLL(None, use_errno=True)
    tried: dict[str, Callable[[], object]] = {
        "setuid": lambda: os.setuid(0) if os.getuid() else os.setuid(1000),
        "setgid": lambda: os.setgid(0) if os.getgid() else os.setgid(1000),
        "setgroups": lambda: os.setgroups([0]),
        "chroot": lambda: os.chroot("/"),
        "write to the state": lambda: Path(place.settings.state_dir, "left").write_text("x"),
        "write to the interpreter": lambda: Path(place.machine.python, "left").write_text("x"),
        "write to a cgroup": lambda: Path(place.machine.cgroups[0], "left").mkdir(),
        "kill everybody": lambda: os.kill(-1, signal.SIGKILL),
        "raise the memory limit": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
    }
    results = {}
    for name, attempt in tried.items():
        try:
            attempt()
            results[name] = "done"
        except (OSError, ValueError, IndexError) as error:
            results[name] = type(error).__name__
    calls: dict[str, Callable[[], int]] = {
        "mount": lambda: libc.mount(b"none", b"/proc", b"tmpfs", 0, None),
        "unshare": lambda: libc.unshare(0x00020000),
        "ptrace": lambda: libc.ptrace(16, os.getppid() or 1, None, None),
        "no_new_privs": lambda: libc.prctl(38, 0, 0, 0, 0),
    }
    for name, call in calls.items():
        results[name] = "done" if call() == 0 else "refused"
    return results


def die(place: Place) -> object:
    """An end without a word."""
    os._exit(3)


def close_control(place: Place) -> object:
    """A watch that hangs up on its run keeper and stays."""
    place.control.close()
    time.sleep(1000)
    return None


def wait(place: Place) -> object:
    """Nothing, for ever."""
    place.stream.sendall(b"waiting\n")
    time.sleep(1000)
    return None
