"""The watch of keeper's self-check: it starts one jail that does nothing, and tells the service
what works on this machine.
"""

import json
import os
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

from jail.orders import (
    JAIL_FDS,
    LAUNCHER_IN_JAIL,
    MAX_PACKET_BYTES,
    PROGRAMS,
    PYTHON_IN_JAIL,
    SCRATCH_FOLDERS,
    STARTED,
    WORK_IN_JAIL,
    Answer,
    JailSettings,
    Machine,
    Order,
    Start,
)
from jail.watch.environment import lay_machine
from jail.watch.sockets import MAX_NETWORK_SOCKETS, Sockets

TRIAL_SEC = 20.0
# The launcher starts it as it starts a package's program.
BARE_PYTHON = ("program", LAUNCHER_IN_JAIL[0], "-V")
MAX_TRIAL_BYTES = 2000  # of each pipe of the jail
NO_STRACE = (
    "strace can't be used here: apt-get install -y strace; in a container add --cap-add SYS_PTRACE."
)
# For an ordinary user and for root.
NO_JAIL = (
    "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0), or run as root",
    "a container needs --cap-add NET_ADMIN --cap-add SYS_ADMIN --security-opt seccomp=unconfined "
    "(and apparmor=unconfined where AppArmor is on)",
)
# Of the decoy internet, by how far it reaches.
REACHES = {
    "full": "every port of every address answers",
    "ports": "some 30 ports of every address answer; for all: apt-get install -y nftables, and a "
    "kernel with tproxy (modprobe nft_tproxy nf_tproxy_ipv6)",
    "off": "nothing answers: apt-get install -y iproute2, or DECOY_INTERNET=false",
}
NO_TLS = "; it speaks no TLS: apt-get install -y openssl"
# Where the jail has something of its own, whatever the machine has there.
OWN_PLACES = (
    *(PYTHON_IN_JAIL, WORK_IN_JAIL, "/etc", "/bin", "/boot", "/dev", "/proc", "/run", "/sys"),
    *filter(None, SCRATCH_FOLDERS.values()),
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
    lay_machine(scratch, settings, machine, has_pip=False)
    failure, reached = start_jail(control)
    reason = why_no_jail(settings, machine, failure) if failure else None
    if failure and not reason:
        stream.sendall(failure.encode())
        return
    has_tls = shutil.which("openssl", path=PROGRAMS) is not None
    checks = [reason] if reason else look_at(settings, machine, reached, has_tls)
    told = {
        "works": not reason,
        "checks": [check._asdict() for check in checks],
        "index_url": machine.index_url,
        "default_index": machine.default_index,
    }
    stream.sendall(json.dumps(told).encode())


def no_jail(error: str) -> bytes:
    """JSON for the service where no jail can be made: `error` is "namespaces: ..." and the like."""
    name, _, detail = error.partition(": ")
    if name == "namespaces":
        detail += f": {NO_JAIL[os.geteuid() == 0]}."
    check = Check(name, False, True, detail)
    told = {"works": False, "checks": [check._asdict()], "index_url": "", "default_index": False}
    return json.dumps(told).encode()


def start_jail(control: socket.socket) -> tuple[str, str]:
    """Start a bare interpreter in a jail: "" when it ran to its end, else what was in the way; and
    how far the decoy internet reaches there.
    """
    start = Start(0, BARE_PYTHON, {}, False)
    control.settimeout(TRIAL_SEC)
    control.send(json.dumps(start._asdict()).encode())
    pipes: list[int] = []
    answer, reached = Answer(0, False), ""
    while not answer.ended:
        packet, fds, _, _ = socket.recv_fds(
            control, MAX_PACKET_BYTES, len(JAIL_FDS) + MAX_NETWORK_SOCKETS
        )
        answer = Answer(**json.loads(packet))
        # The view of the jail's processes comes alone.
        if len(fds) > 1:
            pipes = fds
            reached = Sockets(fds[len(JAIL_FDS) :]).reach()
    if not pipes:
        return answer.error, ""
    # It has ended, and what little it said is in the pipes.
    stdout, stderr, log = (os.read(fd, MAX_TRIAL_BYTES) for fd in pipes[:3])
    if stdout.startswith(STARTED) and answer.status == 0:
        return "", reached
    words = (log or stderr).decode(errors="replace").strip()
    return words or f"the jail ended with status {answer.status}", reached


# No dataclass: the self-check would wait for the loading of what makes those.
class Check(NamedTuple):
    """A line of the self-check; a failure that is not `required` costs coverage only."""

    name: str
    passed: bool
    required: bool
    detail: str


def why_no_jail(settings: JailSettings, machine: Machine, failure: str) -> Check | None:
    """What the operator can change so that there is a jail, None where that is not known."""
    base = Path(machine.base)
    for place in OWN_PLACES:
        if base.is_relative_to(place):
            detail = (
                f"{settings.jail_python_name} (JAIL_PYTHON_NAME) lies in {place}, which is another"
                " folder in the jail: name a Python that lies elsewhere, or move this one."
            )
            return Check("jail python", False, True, detail)
    closed = find_closed(machine, Path(settings.state_dir), failure)
    return closed_to_jail(closed) if closed else None


# "[W] mountSinglePoint():222 mount('/root/python' -> '/run/user/nsjail.0.root//root/python'): ...
# Permission denied"
# "[E] buildMountTree():328 Failed to mount mandatory point: '/'"
def find_closed(machine: Machine, state_dir: Path, failure: str) -> Path | None:
    """The folder above what nsjail could not mount through which the jail's user can't pass.

    That user is who we are by now: nsjail is, too, where the jail has a user namespace.
    """
    needed = {f"mount('{machine.base}'": Path(machine.base)}
    # The jail's top lies in the scratch, which is below.
    needed["mandatory point: '/'"] = state_dir / "scratch"
    for words, path in needed.items():
        for folder in reversed(path.parents) if words in failure else ():
            if not os.access(folder, os.X_OK):
                return folder
    return None


def closed_to_jail(folder: Path) -> Check:
    """Why no jail works there, and what to do."""
    detail = (
        f"no jail can be started here: {folder} is closed to the jail's user, {os.getuid()}, and"
        f" what the jail needs lies below it: chmod o+x {folder}, or have it lie elsewhere"
        " (JAIL_PYTHON_NAME), or leave out NSJAIL_DISABLE_CLONE_NEWUSER=0."
    )
    return Check("namespaces", False, True, detail)


def look_at(settings: JailSettings, machine: Machine, reached: str, has_tls: bool) -> list[Check]:
    """What there is on a machine where a jail can be started.

    Args:
        reached: a word of REACHES; `has_tls`: whether there can be certificates.
    """
    # An ordinary user's namespace has only the user 0.
    is_root = os.getuid() != 0
    who = "an ordinary user, by user namespaces"
    if is_root:
        own = settings.nsjail_disable_clone_newuser
        who = f"root, ids in the jail are {'real' if own else 'those of a user namespace'}"
    groups = ", ".join(machine.cgroups) or f"{machine.no_cgroups}: {NO_CGROUPS}"
    size = f"{settings.max_disk_bytes} bytes for each run"
    outside = REACHES[reached] + ("" if has_tls else NO_TLS)
    is_whole = reached == "full" and has_tls
    if not settings.decoy_internet:
        outside, is_whole = "not wanted (DECOY_INTERNET)", True
    return [
        Check("nsjail", True, True, machine.nsjail),
        Check("jail python", True, True, f"{settings.jail_python_name} with our own pip"),
        Check("namespaces", True, True, who),
        Check("scratch tmpfs", True, True, size),
        Check("kernel witness", machine.strace is not None, False, machine.strace or NO_STRACE),
        Check("cgroups", bool(machine.cgroups), False, groups),
        Check("decoy internet", is_whole, False, outside),
    ]


def lacks(settings: JailSettings, machine: Machine, reached: str, has_tls: bool) -> list[str]:
    """Notes for a report, of what could be looked at better elsewhere."""
    checks = look_at(settings, machine, reached, has_tls)
    return [f"{check.name}: {check.detail}" for check in checks if not check.passed]
