"""The watch of keeper's self-check: it starts one jail that does nothing, and tells the service
what works on this machine.
"""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from jail.orders import (
    MAX_PACKET_BYTES,
    STARTED,
    WORK_IN_JAIL,
    Answer,
    JailSettings,
    Machine,
    Order,
    Start,
)

TRIAL_SEC = 20.0
MAX_TRIAL_BYTES = 2000  # of each pipe of the jail
NO_STRACE = (
    "strace can't be used here: apt-get install -y strace; in a container add --cap-add SYS_PTRACE."
)
NO_CGROUPS = "each process is limited instead; run as root with a writable cgroup file system."


def trial(
    settings: JailSettings,
    order: Order,
    machine: Machine,
    scratch: Path,
    control: socket.socket,
    stream: socket.socket,
) -> None:
    """Send on `stream` JSON for the service when a bare interpreter ran in a jail to its end, else
    the reason why not.

    Called without privileges, with the arguments of a watch.
    """
    failure = start_jail(order, scratch, control)
    if failure:
        stream.sendall(failure.encode())
        return
    told = {
        "works": True,
        "checks": [asdict(check) for check in look_at(settings, machine)],
        "index_url": machine.index_url,
        "default_index": machine.default_index,
    }
    stream.sendall(json.dumps(told).encode())


def start_jail(order: Order, scratch: Path, control: socket.socket) -> str:
    """Start a bare interpreter in a jail: "" when it ran to its end, else what was in the way."""
    (scratch / order.site).mkdir()
    start = Start(0, ("start", "/dev/null", f"{WORK_IN_JAIL}/{order.site}"), {}, False)
    control.settimeout(TRIAL_SEC)
    control.send(json.dumps(asdict(start)).encode())
    packet, fds, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, 16)
    answer = Answer(**json.loads(packet))
    if answer.ended:
        return answer.error
    answer = Answer(**json.loads(control.recv(MAX_PACKET_BYTES)))
    # It has ended, and what little it said is in the pipes.
    stdout, stderr, log = (os.read(fd, MAX_TRIAL_BYTES) for fd in fds[:3])
    if stdout.startswith(STARTED) and answer.status == 0:
        return ""
    words = (log or stderr).decode(errors="replace").strip()
    return words or f"the jail ended with status {answer.status}"


@dataclass(frozen=True)
class Check:
    """A line of the self-check; a failed one that is not `required` costs coverage only."""

    name: str
    passed: bool
    required: bool
    detail: str


def look_at(settings: JailSettings, machine: Machine) -> list[Check]:
    """What there is on a machine where a jail can be started."""
    # An ordinary user's namespace has only the user 0.
    is_root = os.getuid() != 0
    who = "an ordinary user, by user namespaces"
    if is_root:
        own = settings.nsjail_disable_clone_newuser
        who = f"root, ids in the jail are {'real' if own else 'those of a user namespace'}"
    groups = ", ".join(machine.cgroups) or f"{machine.no_cgroups}: {NO_CGROUPS}"
    size = f"{settings.max_disk_bytes} bytes for each run"
    return [
        Check("nsjail", True, True, machine.nsjail),
        Check("jail python", True, True, f"{settings.jail_python_name} with our own pip"),
        Check("namespaces", True, True, who),
        Check("scratch tmpfs", True, True, size),
        Check("kernel witness", machine.strace is not None, False, machine.strace or NO_STRACE),
        Check("cgroups", bool(machine.cgroups), False, groups),
    ]


def lacks(settings: JailSettings, machine: Machine) -> list[str]:
    """Notes for a report, of what could be looked at better elsewhere."""
    checks = look_at(settings, machine)
    return [f"{check.name}: {check.detail}" for check in checks if not check.passed]
