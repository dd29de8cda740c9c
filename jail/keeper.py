"""Keeper and its run keepers: what has power in a run, and reads no byte that a package made."""

# Theory of operation
#
# The service starts keeper once, as a fresh program: no secret is in its memory or environment.
# For each order of the service keeper forks a run keeper. A run keeper has the run's cgroups, and
# mount and IPC namespaces of its own (an ordinary user's in a user namespace). It mounts the
# scratch there, a tmpfs of bounded size, and forks the watch of the run, which gives up all power
# before anything else. Then it waits for one of these:
#
#   a request of watch       it starts a jail, or kills it
#   the end of the jail      it tells watch, which may ask for the next one
#   the end of watch         it kills what is left and ends
#   the service hangs up     the same
#   the deadline             the same
#
# Nobody is believed. The service talks to strangers, and watch reads what packages made: either may
# have been taken over. So both have a few words only. orders.py checks them, and beside each
# stands below why it is harmless. A refusal is one line on stderr and has no other effect.
#
# Nothing is left behind, whoever is killed. Each process dies with its parent by a signal of the
# kernel. Watch and every jail are the first processes of PID namespaces: the kernel takes their
# children with them. Mounts and networks go with their last process. Only cgroups stay, empty:
# keeper removes them when a run keeper has ended, or the next keeper does.

import contextlib
import ctypes
import fcntl
import json
import os
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jail import orders
from jail.orders import Answer, JailSettings, Kill, Machine, Order, OrderError, Start
from jail.privileges import check, die_with_parent, drop, libc

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_STRICTATIME = 2, 4, 8, 1 << 24
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
SYS_CLONE, SYS_KEYCTL = (220, 219) if os.uname().machine == "aarch64" else (56, 250)
KEYCTL_JOIN_SESSION_KEYRING = 1
MAX_LOG_CHARS = 500  # of a line
MAX_REFUSALS = 50  # of a run; then it ends
MAX_FDS = 8  # of a packet; the kernel closes the others
OWN_PIDS = 4  # strace, nsjail and launch.py count, but are not the package's
# The kernel witness. The reader of its output expects exactly this.
STRACE_CALLS = "execve,execveat,fork,vfork,clone,clone3,connect,sendto,sendmsg,sendmmsg,bind,socket"
STRACE_FLAGS = ["-f", "-q", "-y", "--seccomp-bpf", "--decode-pids=pidns", "-xx", "-s", "4096"]
STRACE_FLAGS += ["-e", f"trace={STRACE_CALLS},unlink,unlinkat,exit_group", "-e", "signal=!SIGCHLD"]

# What reads a run's hostile bytes: settings, order, machine, scratch, control, stream.
Watch = Callable[[JailSettings, Order, Machine, Path, socket.socket, socket.socket], None]


def log(text: str, fd: int = 2) -> None:
    """Write one bounded line to `fd`, whatever somebody made us quote."""
    os.write(fd, re.sub(r"[^ -~]", "?", f"keeper: {text}")[:MAX_LOG_CHARS].encode() + b"\n")


# A process that we forked; `fd` is its pidfd.
@dataclass(frozen=True)
class Child:
    pid: int
    fd: int

    def end(self) -> int:
        """Kill it, if it is still at work, and reap it: its exit code, or minus its signal."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def spawn(flags: int, work: Callable[[int], None], errors: int = 2) -> Child:
    """Fork a process in new namespaces (`flags`) that does `work` and dies with us. Raises OSError.

    `work` is given our pidfd; what it raises is told on the descriptor `errors`.
    """
    # os.fork can't make namespaces, and unshare makes an ordinary user only one for PIDs.
    parent = os.pidfd_open(os.getpid())
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = libc.syscall(SYS_CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0)
    if pid != 0:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        os.close(parent)
        check(pid < 0, "fork")
        return Child(pid, os.pidfd_open(pid))
    status = 1
    try:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        die_with_parent(parent)
        work(parent)
        status = 0
    except BaseException as error:
        log(f"{error!r}", errors)
    finally:
        os._exit(status)


def serve(service: socket.socket, settings: JailSettings, machine: Machine, watch: Watch) -> None:
    """Fork a run keeper for each order of the service, until it closes its end of `service`."""
    runs: dict[int, RunKeeper] = {}
    while True:
        for fd in select.select([service.fileno(), *runs], [], [])[0]:
            if fd in runs:
                runs.pop(fd).bury()
                continue
            packet, fds = b"", list[int]()
            with contextlib.suppress(ConnectionError):
                packet, fds, _, _ = socket.recv_fds(
                    service, orders.MAX_PACKET_BYTES + 1, MAX_FDS, socket.MSG_CMSG_CLOEXEC
                )
            if not packet:
                for run in runs.values():
                    run.bury()
                return
            try:
                order = orders.parse_order(packet)
                others = [run.order for run in runs.values()]
                with take_stream(order, fds, others, settings.max_concurrency) as stream:
                    run = RunKeeper(settings, machine, order)
                    runs[run.start(stream, watch).fd] = run
            except (OrderError, OSError) as error:
                log(f"refused: {error}")
            for fd in fds:
                os.close(fd)


# Harmless whoever sends the order: to start runs is what the service may do, no more at once than
# it was allowed at its start. Of the stream we only ask whether the service has hung up.
def take_stream(order: Order, fds: list[int], others: list[Order], places: int) -> socket.socket:
    """Take the stream of a new run out of `fds`. Raises OrderError, OSError for a refusal."""
    if len(fds) != 1:
        raise OrderError(f"an order with {len(fds)} descriptors")
    stream = socket.socket(fileno=fds[0])
    fds.clear()
    if (stream.family, stream.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise OrderError(f"run {order.run_id} has no stream")
    if any(other.run_id == order.run_id for other in others):
        raise OrderError(f"run {order.run_id} is under way")
    if [other.task for other in others].count(order.task) >= {"hosts": 1}.get(order.task, places):
        raise OrderError(f"run {order.run_id} is one too many")
    return stream


def try_jail(settings: JailSettings, machine: Machine, trial: Watch) -> str:
    """Start a jail with `trial` for its watch, which sends TRIAL_PASSED: "", or what is wrong."""
    order = Order("triage", os.urandom(16).hex(), "check", "0", "install")
    run = RunKeeper(settings, machine, order)
    ours, theirs = socket.socketpair()
    with ours:
        try:
            with theirs:
                run.start(theirs, trial, theirs.fileno())
            with ours.makefile("rb") as words:
                said = words.read(MAX_LOG_CHARS)
        except OSError as error:
            said = str(error).encode()
        finally:
            run.bury()
    return "" if said == orders.STARTED else said.decode(errors="replace") or "no word of why"


class RunKeeper:
    """One run: its cgroups, namespaces, scratch, watch, and the jails that watch asks for."""

    def __init__(self, settings: JailSettings, machine: Machine, order: Order) -> None:
        self.settings, self.machine, self.order = settings, machine, order
        # An ordinary user's namespace has one user, number 0, who is that user outside.
        self.is_root = os.geteuid() == 0
        self.user = settings.nsjail_user if self.is_root else 0
        self.group = settings.nsjail_group if self.is_root else 0
        self.scratch = Path(settings.state_dir, "scratch")
        # The name bears our pid: the next keeper removes what a dead one has left.
        self.groups = [Path(parent, f"{os.getpid()}-{order.run_id}") for parent in machine.cgroups]
        self.child: Child | None = None
        self.jail: Child | None = None
        self.number = -1  # of the last jail
        self.refusals = 0

    def start(self, stream: socket.socket, watch: Watch, errors: int = 2) -> Child:
        """Make the cgroups and fork the run keeper; `bury` ends both. Raises OSError."""
        # What the run writes to its scratch is memory, too.
        disk_bytes = self.settings.max_disk_bytes + orders.SPARE_BYTES
        memory_bytes = (self.settings.rlimit_as_mb << 20) + disk_bytes
        limits = {"memory.limit_in_bytes": memory_bytes, "memory.max": memory_bytes}
        limits["memory.swap.max"] = 0
        if self.settings.enable_cgroup_pids_limit:
            limits["pids.max"] = self.settings.cgroup_pids_max + OWN_PIDS
        for group in self.groups:
            group.mkdir()
            for name, value in limits.items():
                if (group / name).exists():
                    (group / name).write_text(str(value))
        namespaces = CLONE_NEWNS | CLONE_NEWIPC
        if self.machine.own_user:
            namespaces |= CLONE_NEWUSER
        self.child = spawn(namespaces, lambda _: self.run(stream, watch), errors)
        if self.machine.own_user:
            map_ids(self.child.pid)
        return self.child

    def bury(self) -> None:
        """End the run keeper, if it has not ended, and remove the cgroups."""
        status = self.child.end() if self.child else 0
        if status != 0:
            log(f"run {self.order.run_id} was ended, status {status}")
        # The kernel may take a moment to see that the last process is dead.
        for _ in range(200):
            for group in self.groups:
                with contextlib.suppress(OSError):
                    group.rmdir()
            if not any(group.exists() for group in self.groups):
                return
            time.sleep(0.01)
        log(f"{self.groups} can't be removed")

    # 1. Wait for the ids of our user namespace, if we have one.
    # 2. What we mount is not seen outside, and goes when we go. The top of the scratch is not
    #    watch's: nobody puts a link in the place of a folder that the next jail mounts. The jail
    #    can read the name of its source.
    # 3. Watch inherits all that, and nothing else.
    # 4. Do as watch asks, until it ends, the service hangs up or the time is over.
    # 5. Kill what is left.
    def run(self, stream: socket.socket, watch: Watch) -> None:
        """Be the run keeper until the run is over. Raises OSError."""
        # 1.
        while not Path("/proc/self/gid_map").read_text():
            time.sleep(0.001)
        # 2.
        check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")
        size_bytes = self.settings.max_disk_bytes + orders.SPARE_BYTES
        inodes = orders.MAX_INODES + orders.SPARE_INODES
        options = f"size={size_bytes},nr_inodes={inodes},mode=0755".encode()
        place, flags = os.fsencode(self.scratch), MS_NOSUID | MS_NODEV | MS_STRICTATIME
        check(libc.mount(b"tmpfs", place, b"tmpfs", flags, options), "mounting the scratch")
        for name in orders.SCRATCH_FOLDERS:
            (self.scratch / name).mkdir()
            os.chown(self.scratch / name, self.user, self.group)
        # 3.
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            child = spawn(CLONE_NEWPID, lambda me: self.be_watch(watch, theirs, stream, me))
        # 4.
        try:
            self.attend(child, stream)
        # 5.
        finally:
            for left in filter(None, (self.jail, child)):
                left.end()

    def be_watch(
        self, watch: Watch, control: socket.socket, stream: socket.socket, parent: int
    ) -> None:
        """Be watch: without power, and with no descriptor but its own. Raises OSError."""
        # It may not be allowed to walk to the scratch or to the cache: it stands in the one and has
        # a descriptor of the other.
        os.chdir(self.scratch)
        cache = os.open(self.machine.cache, os.O_PATH | os.O_DIRECTORY)
        null = os.open(os.devnull, os.O_RDWR)
        drop(self.user, self.group)
        die_with_parent(parent)
        for fd in range(3):
            os.dup2(null, fd)
        own = {0, 1, 2, cache, control.fileno(), stream.fileno()}
        for fd in {int(name) for name in os.listdir("/proc/self/fd")} - own:
            with contextlib.suppress(OSError):  # the listing itself is closed by now
                os.close(fd)
        machine = replace(self.machine, cache=f"/proc/self/fd/{cache}")
        watch(self.settings, self.order, machine, Path(), control, stream)

    def attend(self, child: Child, stream: socket.socket) -> None:
        """Do as the watch `child` asks, until there is a reason to end."""
        end = time.monotonic() + self.settings.run_budget_sec + orders.GRACE_SEC
        while time.monotonic() < end:
            poll = select.poll()
            poll.register(stream, 0)  # only to hear that the service has hung up
            for fd in (self.control.fileno(), child.fd, *([self.jail.fd] if self.jail else [])):
                poll.register(fd, select.POLLIN)
            ready = dict(poll.poll(max(0.0, end - time.monotonic()) * 1000))
            has_hung_up = ready.get(self.control.fileno(), 0) & select.POLLHUP
            if child.fd in ready or stream.fileno() in ready or has_hung_up:
                return
            if self.jail and self.jail.fd in ready:
                status = self.jail.end()
                self.jail = None
                self.answer(Answer(self.number, True, status, self.oom_kills()))
            elif self.control.fileno() in ready:
                self.take_request()
        log(f"run {self.order.run_id}: its time is over")

    def oom_kills(self) -> int:
        """How many processes the kernel killed for want of memory: lines such as `oom_kill 1`."""
        names = ("memory.oom_control", "memory.events")
        files = [path for group in self.groups for path in map(group.joinpath, names)]
        text = "\n".join(file.read_text() for file in files if file.exists())
        return sum(map(int, re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE)))

    def answer(self, answer: Answer, fds: Iterable[int] = ()) -> None:
        """Tell watch. RuntimeError ends the run of a watch that does not read: nobody waits."""
        try:
            packet = json.dumps(vars(answer)).encode()
            socket.send_fds(self.control, [packet], list(fds), socket.MSG_DONTWAIT)
        except OSError as error:
            raise RuntimeError(f"run {self.order.run_id}: watch takes no answer") from error

    def take_request(self) -> None:
        """Do what watch asks, or refuse it. Raises RuntimeError, which ends the run."""
        packet = self.control.recv(orders.MAX_PACKET_BYTES + 1)
        try:
            request = orders.parse_request(packet)
            if isinstance(request, Kill):
                self.kill_jail(request)
            else:
                self.start_jail(request)
        except OrderError as error:
            log(f"run {self.order.run_id}: refused: {error}")
            self.refusals += 1
            if self.refusals > MAX_REFUSALS:
                raise RuntimeError(f"run {self.order.run_id}: watch talks nonsense") from error
            if error.jail is not None:
                self.answer(Answer(error.jail, True, error=f"refused: {error}"))

    # Harmless whoever asks: it is a jail of this run. It may just have ended.
    def kill_jail(self, request: Kill) -> None:
        """Kill the jail that watch names. Raises OrderError for one that was never asked for."""
        if request.jail > self.number:
            raise OrderError("a jail that was not started", request.jail)
        if self.jail and request.jail == self.number:
            os.kill(self.jail.pid, signal.SIGKILL)

    # Harmless whoever asks: one jail at a time, orders.MAX_JAILS in all, within the run's cgroups
    # and scratch; words and variables are seen in the jail alone.
    # 1. A network of its own: a loopback, where nobody listens but the sockets that watch gets.
    # 2. What it can write to: pipes, and a FIFO which none of its processes can read, by its mode
    #    on a read-only mount. Watch's end can also write, or it would end with the first writer.
    # 3. Its first process, in PID and mount namespaces of its own.
    # 4. Watch gets the other ends, or is told why there is no jail. None stays open here.
    def start_jail(self, request: Start) -> None:
        """Start a jail for watch. Raises OrderError, and RuntimeError as `answer`."""
        if self.jail or request.jail <= self.number:
            raise OrderError("a second jail at a time, or a number that was used", request.jail)
        self.number = request.jail
        near: list[int] = []
        far: list[int] = []
        try:
            # 1.
            check(libc.unshare(CLONE_NEWNET), "network namespace")
            network = open_network(request.index)
            # 2.
            for _ in orders.JAIL_FDS[:-1]:
                ends = os.pipe()
                near.append(ends[0])
                far.append(ends[1])
            fifo = self.scratch / "audit"
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo)
            fifo.chmod(0o222)
            near += [os.open(fifo, os.O_RDWR | os.O_NONBLOCK), *network]
            # 3.
            namespaces = CLONE_NEWPID | CLONE_NEWNS
            self.jail = spawn(namespaces, lambda _: self.be_jail(request, *far), far[2])
            # 4.
            self.answer(Answer(request.jail, False), near)
        except OSError as error:
            self.answer(Answer(request.jail, True, error=str(error)))
        finally:
            for fd in near + far:
                os.close(fd)

    # 1. See no processes but our own, be bounded by the run's cgroups, and have a session keyring
    #    of our own: an inherited one names the container in /proc/keys.
    # 2. Our ends of the pipes; only strace and nsjail get the last two.
    # 3. The service and watch come first. A crash does not start the host's helper: of all limits
    #    of core files only 1 keeps it out.
    # 4. The kernel witness, the sandbox, the launcher: strace ... nsjail ... launch.py ...
    def be_jail(self, request: Start, stdout: int, stderr: int, log_fd: int, trace: int) -> None:
        """Become the first process of a jail. Raises OSError."""
        # 1.
        os.chdir("/")
        flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
        check(libc.mount(b"proc", b"/proc", b"proc", flags, None), "mounting /proc")
        for group in self.groups:
            (group / "cgroup.procs").write_text("0")
        libc.syscall(SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None)
        # 2.
        for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), stdout, stderr)):
            os.dup2(source, target)
        os.set_inheritable(log_fd, True)
        os.set_inheritable(trace, True)
        # 3.
        os.nice(10)
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
        # 4.
        argv = self.jail_command(request, log_fd)
        if self.machine.strace:
            argv = [self.machine.strace, *STRACE_FLAGS, "-o", f"/proc/self/fd/{trace}", *argv]
        # For the mounts of nsjail.cfg; nsjail does not pass it on.
        paths = {
            "SNAKEHOOK_SCRATCH": str(self.scratch),
            "SNAKEHOOK_INSIDE": str(orders.JAIL_DIR / "inside"),
            "SNAKEHOOK_PYTHON": self.machine.python,
            "SNAKEHOOK_BASE": self.machine.base,
        }
        os.execve(argv[0], argv, paths)

    def jail_command(self, request: Start, log_fd: int) -> list[str]:
        """The words of nsjail: what varies; the rest is in nsjail.cfg."""
        settings = self.settings
        options = [f"--config={settings.nsjail_config_path}", f"--log_fd={log_fd}"]
        if settings.nsjail_chroot_path:
            options.append(f"--chroot={settings.nsjail_chroot_path}")
        if self.is_root and settings.nsjail_disable_clone_newuser:
            options += ["--disable_clone_newuser", f"--user={self.user}", f"--group={self.group}"]
        else:
            options.append(f"--user={settings.nsjail_user}:{self.user}:1")
            options.append(f"--group={settings.nsjail_group}:{self.group}:1")
        limits: dict[str, int | str] = {"cpu": settings.rlimit_cpu_sec, "as": "inf"}
        limits["nofile"] = settings.rlimit_nofile
        # The disk is full first.
        limits["fsize"] = (settings.max_disk_bytes + orders.SPARE_BYTES >> 20) + 1
        if not self.groups:
            limits["as"] = settings.rlimit_as_mb
        if not self.groups and settings.enable_cgroup_pids_limit:
            # Counted over all jails of the same user: a wider net than a cgroup, but a net.
            jails = settings.max_concurrency if self.is_root else 1
            limits["nproc"] = settings.cgroup_pids_max * jails + OWN_PIDS
        options += [f"--rlimit_{name}={value}" for name, value in limits.items()]
        options += [f"--env={name}={value}" for name, value in request.variables.items()]
        python = [f"{orders.PYTHON_IN_JAIL}/bin/python", "-I", "-S"]
        launch = [f"{orders.INSIDE_IN_JAIL}/launch.py", *request.launch]
        return [self.machine.nsjail, *options, "--", *python, *launch]


def unmask_proc() -> None:
    """Mount a whole /proc for us: where a container has masked parts of its own, no user namespace
    can mount one. Raises OSError."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    check(libc.unshare(CLONE_NEWNS), "mount namespace")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")
    check(libc.mount(b"proc", b"/proc", b"proc", flags, None), "mounting /proc")


def map_ids(pid: int) -> None:
    """Give process `pid` the ids of its user namespace: for root as they are, else 0 for ours."""
    if os.geteuid() != 0:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        # Lines such as "0 100000 65536".
        lines = Path("/proc/self", name).read_text().splitlines()
        same = [f"{first} {first} {count}\n" for first, _, count in map(str.split, lines)]
        Path(f"/proc/{pid}/{name}").write_text(f"0 {own} 1" if os.geteuid() else "".join(same))


def open_network(index: bool) -> list[int]:
    """Bring up the loopback and listen there: DNS by UDP and TCP, the index. Raises OSError."""
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(dns, SIOCSIFFLAGS, b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(16, "little"))
    dns.bind(("127.0.0.1", orders.DNS_PORT))
    ports = [orders.DNS_PORT, orders.INDEX_PORT] if index else [orders.DNS_PORT]
    servers = [socket.create_server(("127.0.0.1", port), backlog=4096) for port in ports]
    return [server.detach() for server in (dns, *servers)]
