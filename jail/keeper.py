# Keeper and its run keepers: what has power in a run, and reads no byte that a package made.

# Theory of operation
#
# The service starts keeper once, as a fresh program: no secret is in its memory or environment.
# For each order of the service keeper forks a run keeper. A run keeper has the run's cgroups, and
# mount and IPC namespaces of its own (an ordinary user's in a user namespace). It mounts the
# scratch there, a tmpfs of bounded size, and forks the watch of the run, which gives up all power
# before anything else. Then it waits for one of these:
#
#   a request of watch       it starts a jail, or kills it
#   the end of a jail        it tells watch
#   the end of watch         it kills what is left and ends
#   the service hangs up     the same
#   the deadline             the same
#
# A run may be ordered before it is known what it will run, so that all is ready for it. For us it
# is a run like any other: watch hears on its stream, from the service, what we would have told it.
# Likewise watch may ask for a second jail while one is at work. What holds that until its turn is
# watch's business: for us both are at work. They are of one run and one package: nothing of one has
# to be kept from the other.
#
# Nobody is believed. The service talks to strangers, and watch reads what packages made: either may
# have been taken over. So both have a few words only. orders.py checks them, and beside each
# stands below why it is harmless. A refusal is a line on stderr and has no other effect.
#
# Nothing is left behind, whoever is killed. Each process dies with its parent by a signal of the
# kernel. Watch and every jail are the first processes of PID namespaces: the kernel takes their
# children with them. Mounts and networks go with their last process. Only cgroups stay, empty:
# keeper removes them when a run keeper has ended, or the next keeper does.

import contextlib
import ctypes
import json
import os
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from jail import orders
from jail.network import open_index, open_network
from jail.orders import Answer, JailSettings, Machine, Order, OrderError, Start
from jail.privileges import check, die_with_parent, drop, libc

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18
PROC = (b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
MS_STRICTATIME, KEYCTL_JOIN_SESSION_KEYRING = 1 << 24, 1
SYS_CLONE, SYS_KEYCTL = (220, 219) if os.uname().machine == "aarch64" else (56, 250)
# A line of the log; refused requests until a run ends; descriptors with a packet, where the kernel
# closes what is more.
MAX_LOG_LINE_CHARS, MAX_REFUSALS, MAX_FDS = 500, 50, 8
# Until the kernel has seen that the processes of a cgroup are dead.
BURY_SEC, TICK_SEC = 2.0, 0.001
# strace, nsjail and launch.py of each jail count, but are not the package's. One that is alone may
# have those of the jail that is not there.
OWN_PIDS = 4 * orders.MAX_JAILS_AT_ONCE
# The kernel witness. The reader of its output expects exactly this: calls by name, or by a pattern
# of names. Nobody looks into another process (ptrace, process_vm_readv, process_vm_writev): that is
# refused here, since nsjail.cfg leaves it to strace. The first sleeps of each thread end at once. A
# program that was started is held for some microseconds, in which watch looks at it. strace stops a
# process at all its calls until it makes one that is traced: hence two that nobody reads, and that
# come first, of nsjail's child and, by the C library, of each process and thread.
TRACED = "/^execve,/fork$,/^clone3?$,/^send(to|m),/^unlink,connect,bind,socket,exit_group"
TRACED += ",setresgid,set_robust_list"
STRACE_FLAGS = ["-fqyTttt", "--seccomp-bpf", "--decode-pids=pidns", "-xxs4096", "-esignal=!CHLD"]
STRACE_FLAGS += [f"-etrace={TRACED},/nanosleep|ptrace|_vm_", "-einject=/ptrace|_vm_:error=ENOSYS"]
STRACE_FLAGS += ["-einject=/nanosleep:retval=0:when=1..40", "-einject=/^execve:delay_exit=5000"]


# What is the same for all runs. `watch` reads a run's hostile bytes: it is given settings, order,
# machine, scratch, control, stream, and the file in hand where the order came with a file.
class House(NamedTuple):
    settings: JailSettings
    machine: Machine
    watch: Callable[..., None]


# Write a line of bounded length, whatever somebody made us quote. If nobody reads it, go on.
def log(text: object, fd: int = 2) -> None:
    with contextlib.suppress(OSError):
        line = re.sub(r"[^ -~]", "?", f"keeper: {text}")[:MAX_LOG_LINE_CHARS]
        os.write(fd, line.encode() + b"\n")


# A process that we forked; `fd` is its pidfd.
class Child(NamedTuple):
    pid: int
    fd: int

    # Kill it, if it is still at work, and reap it: its exit code, or minus its signal.
    def end(self) -> int:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


# Fork a process that does `work`, given our pidfd, and dies with us. What it raises is told on the
# descriptor `errors`. Raises OSError. It calls clone, since os.fork makes no namespaces, and since
# unshare makes no PID namespace for the process that calls it.
def spawn(namespaces: int, work: Callable[[int], None], errors: int = 2) -> Child:
    parent = os.pidfd_open(os.getpid())
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = libc.syscall(SYS_CLONE, namespaces | signal.SIGCHLD, 0, 0, 0, 0)
    if pid != 0:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        os.close(parent)
        check(pid < 0, "fork")
        return Child(pid, os.pidfd_open(pid))
    try:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        die_with_parent(parent)
        # In a new user namespace we are nobody until somebody has given it ids.
        while not Path("/proc/self/gid_map").read_text():
            time.sleep(TICK_SEC)
        work(parent)
        os._exit(0)
    except BaseException as error:
        log(repr(error), errors)
    finally:
        os._exit(1)


# Fork a run keeper for each order of the service, until it closes its end of `service`.
def serve(service: socket.socket, house: House) -> None:
    runs: dict[int, RunKeeper] = {}
    try:
        while True:
            # Runs that have ended come first: they do not count when the next order is looked at.
            for fd in select.select([*runs, service.fileno()], [], [])[0]:
                if fd in runs:
                    runs.pop(fd).clean_up()
                    continue
                size, flags = orders.MAX_PACKET_BYTES + 1, socket.MSG_CMSG_CLOEXEC
                packet, fds, _, _ = socket.recv_fds(service, size, MAX_FDS, flags)
                if not packet:
                    return
                try:
                    order = orders.parse_order(packet)
                    others = [run.order for run in runs.values()]
                    places = 1 if order.task == "hosts" else house.settings.max_concurrency
                    stream = take_stream(order, fds, others, places)
                    run = RunKeeper(house, order, stream, *fds)
                    runs[run.start().fd] = run
                except (OrderError, OSError) as error:
                    log(f"refused: {error}")
                for left in fds:
                    os.close(left)
    finally:
        for run in runs.values():
            run.clean_up()


# Harmless whoever sends the order: to start runs is what the service may do, no more at once than
# it was allowed at its start. Of the stream, which is taken out of `fds`, we only ask whether the
# service has hung up. A file in hand is left in `fds` for watch, which has no power; we do not read
# it. Whatever else comes in its place, the service had it already. Raises OrderError, OSError for a
# refusal.
def take_stream(order: Order, fds: list[int], others: list[Order], places: int) -> socket.socket:
    if not 1 <= len(fds) <= 2:
        raise OrderError(f"an order with {len(fds)} descriptors")
    stream = socket.socket(fileno=fds[0])
    del fds[0]
    if (stream.family, stream.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise OrderError(f"run {order.run_id} has no stream")
    if any(other.run_id == order.run_id for other in others):
        raise OrderError(f"run {order.run_id} is under way")
    if sum((other.task == "hosts") == (order.task == "hosts") for other in others) >= places:
        raise OrderError(f"run {order.run_id}, since {places} are at work")
    return stream


# What the watch of a run says, or why there is none.
def try_jail(house: House) -> bytes:
    ours, theirs = socket.socketpair()
    order = Order("triage", os.urandom(16).hex(), "self-check", "0", "install")
    run = RunKeeper(house, order, theirs)
    try:
        run.start(theirs.fileno())
    except OSError as error:
        return str(error).encode()
    said = ours.makefile("rb").read(orders.MAX_PACKET_BYTES)
    run.clean_up()
    return said


# A run: its cgroups, namespaces, scratch, watch, and the jails that watch asks for. `start` and
# `clean_up` are for keeper, what stands between them happens in the process of the run keeper.
class RunKeeper:
    def __init__(self, house: House, order: Order, stream: socket.socket, *files: int) -> None:
        self.settings, self.machine, self.watch = house
        self.order, self.stream, self.files = order, stream, files
        # An ordinary user's namespace has a single user, number 0: outside, that is this user.
        self.is_root = os.geteuid() == 0
        ids = (self.settings.nsjail_user, self.settings.nsjail_group)
        self.user, self.group = ids if self.is_root else (0, 0)
        self.scratch = Path(self.settings.state_dir, "scratch")
        self.disk_bytes = self.settings.max_disk_bytes + orders.SPARE_BYTES
        # The name bears our pid: the next keeper removes what a dead keeper has left.
        name = f"{os.getpid()}-{order.run_id}"
        self.groups = [Path(parent, name) for parent in self.machine.cgroups]
        # Where strace could not look into processes otherwise.
        self.user_namespace = CLONE_NEWUSER if self.is_root and self.machine.own_user else 0
        self.child: Child | None = None
        self.jails: dict[int, Child] = {}  # by number
        self.network: list[int] = []  # of the next jail
        # Of the last jail, and of what watch asked for.
        self.number, self.refusals = -1, 0

    # Make the cgroups and fork the run keeper, or leave nothing. Raises OSError.
    def start(self, errors: int = 2) -> Child:
        # What the run writes to its scratch is memory, too.
        max_bytes = (self.settings.rlimit_as_mb << 20) + self.disk_bytes
        limits = {"memory.limit_in_bytes": max_bytes, "memory.max": max_bytes, "memory.swap.max": 0}
        if self.settings.enable_cgroup_pids_limit:
            limits["pids.max"] = self.settings.cgroup_pids_max + OWN_PIDS
        # Our own end of the stream goes, or the service would never hear that the run has ended.
        with contextlib.ExitStack() as undo, self.stream:
            undo.callback(self.clean_up)
            for group in self.groups:
                group.mkdir()
                for name, value in limits.items():
                    if (group / name).exists():
                        (group / name).write_text(str(value))
            namespaces = CLONE_NEWNS | CLONE_NEWIPC | (0 if self.is_root else CLONE_NEWUSER)
            self.child = spawn(namespaces, self.run, errors)
            if not self.is_root:
                Path(f"/proc/{self.child.pid}/setgroups").write_text("deny")
                self.map_ids(self.child.pid)
            undo.pop_all()
        return self.child

    # End the run keeper, if it has not ended, and remove the cgroups.
    def clean_up(self) -> None:
        status = self.child.end() if self.child else 0
        if status != 0:
            log(f"run {self.order.run_id} was ended, status {status}")
        for group in self.groups:
            # The kernel may take a moment to see that the last process is dead.
            end = time.monotonic() + BURY_SEC
            while group.exists() and time.monotonic() < end:
                with contextlib.suppress(OSError):
                    group.rmdir()
                time.sleep(TICK_SEC)

    # Give a process, which waits for that, the ids of its user namespace: an ordinary user is
    # number 0 there; for root those that are needed are as they are.
    def map_ids(self, pid: int) -> None:
        ids = (("uid_map", os.geteuid(), self.user), ("gid_map", os.getegid(), self.group))
        for name, own, jail in ids:
            more = f"\n{jail} {jail} 1" if self.is_root else ""
            Path(f"/proc/{pid}/{name}").write_text(f"0 {own} 1{more}")

    # 1. The deadline. What we mount is not seen outside. In a container parts of /proc may be
    #    masked. A user namespace may mount a /proc only where it sees another without masks.
    # 2. The scratch. Its top is not watch's: nobody can put a link in the place of a folder that
    #    the next jail mounts. The jail can read the name of its source, and its size, which is
    #    drawn. Of us nobody opens the FIFO but here, before there is a jail: that would wait, and
    #    could not be killed, while a jail's process has it for itself, as one has that splices
    #    into it.
    # 3. Watch inherits all that, and nothing else.
    # 4. Do as watch asks, until it ends or the service hangs up. Then kill it.
    def run(self, _: int) -> None:
        # 1.
        signal.alarm(self.settings.run_budget_sec + orders.GRACE_SEC[self.order.task])
        check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")
        if self.user_namespace:
            check(libc.mount(*PROC), "mounting /proc")
        # 2.
        drawn, inodes = int(self.order.run_id[:3], 16), orders.MAX_INODES + orders.SPARE_INODES
        sizes = f"size={self.disk_bytes + (drawn << 12)},nr_inodes={inodes + drawn},mode=0755"
        place, flags = os.fsencode(self.scratch), MS_NOSUID | MS_NODEV | MS_STRICTATIME
        check(libc.mount(b"tmpfs", place, b"tmpfs", flags, sizes.encode()), "mounting the scratch")
        for name in (*orders.SCRATCH_FOLDERS, *orders.MADE_FOLDERS):
            (self.scratch / name).mkdir()
            os.chown(self.scratch / name, self.user, self.group)
        os.mkfifo(self.scratch / "initctl")
        self.fifo = os.open(self.scratch / "initctl", os.O_RDWR | os.O_NONBLOCK)
        os.fchmod(self.fifo, 0o222)
        # 3.
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = spawn(CLONE_NEWPID, lambda parent: self.be_watch(control, parent))
        control.close()
        # 4.
        self.attend(child)
        for left in (*self.jails.values(), child):
            left.end()

    # Become watch: without power, and with no descriptor but its own. Its user may not be allowed
    # to walk to the scratch, the cache and the image of the jail's interpreter: so it stands in the
    # scratch, and has descriptors of the others.
    def be_watch(self, control: socket.socket, parent: int) -> None:
        os.chdir(self.scratch)
        cache = os.open(self.machine.cache, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        image = os.open(Path(self.machine.python, "image"), os.O_RDONLY)
        drop(self.user, self.group)
        # A change of credentials clears the signal.
        die_with_parent(parent)
        os.dup2(0, 2)
        own = {0, 1, 2, cache, image, control.fileno(), self.stream.fileno(), *self.files}
        for fd in {int(name) for name in os.listdir("/proc/self/fd")} - own:
            with contextlib.suppress(OSError):  # the listing's own is closed by now
                os.close(fd)
        machine = self.machine._replace(cache=f"/proc/self/fd/{cache}")
        machine = machine._replace(python=f"/proc/self/fd/{image}")
        self.watch(self.settings, self.order, machine, Path(), control, self.stream, *self.files)

    def attend(self, child: Child) -> None:
        while True:
            # Made ahead, while watch or a jail is at work, if there may be another jail: that is
            # born into it, nobody else. An installation has no second jail.
            may_follow = self.order.mode != "install" or self.number < 0
            if may_follow and not self.network and len(self.jails) < orders.MAX_JAILS_AT_ONCE:
                check(libc.unshare(CLONE_NEWNET), "network namespace")
                self.network = open_network(self.settings.decoy_internet)
            poll = select.poll()
            poll.register(self.stream, 0)  # only to hear that the service has hung up
            numbers = {jail.fd: number for number, jail in self.jails.items()}
            for fd in (self.control.fileno(), child.fd, *numbers):
                poll.register(fd, select.POLLIN)
            ready = dict(poll.poll())
            has_hung_up = ready.get(self.control.fileno(), 0) & select.POLLHUP
            if child.fd in ready or self.stream.fileno() in ready or has_hung_up:
                return
            for number in [numbers[fd] for fd in numbers if fd in ready]:
                self.answer(Answer(number, True, self.jails.pop(number).end()))
            if self.control.fileno() in ready:
                self.take_request(self.control.recv(orders.MAX_PACKET_BYTES + 1))

    # Nobody waits until watch reads: the run of a watch that does not ends with OSError.
    def answer(self, answer: Answer, fds: Sequence[int] = ()) -> None:
        packet = json.dumps(answer._asdict()).encode()
        socket.send_fds(self.control, [packet], list(fds), socket.MSG_DONTWAIT)

    # Do what watch asks, or refuse it. Where it goes on like that, OrderError ends the run.
    def take_request(self, packet: bytes) -> None:
        try:
            request = orders.parse_request(packet)
            if isinstance(request, Start):
                self.start_jail(request)
            elif request.jail > self.number:
                raise OrderError("a jail that was not started", request.jail)
            # To kill is harmless whoever asks: it is a jail of this run. It may just have ended.
            elif request.jail in self.jails:
                os.kill(self.jails[request.jail].pid, signal.SIGKILL)
        except OrderError as error:
            log(f"run {self.order.run_id}: refused: {error.args[0]}")
            self.refusals += 1
            if self.refusals > MAX_REFUSALS:
                raise
            for jail in error.args[1:]:
                self.answer(Answer(jail, True, error=f"refused: {error.args[0]}"))
        except OSError as error:
            # The machine has no room for a jail, or watch does not read: then this answer ends it.
            if self.number in self.jails:
                self.jails.pop(self.number).end()
            self.answer(Answer(self.number, True, error=str(error)))

    # Harmless whoever asks: orders.MAX_JAILS in all, orders.MAX_JAILS_AT_ONCE at a time, for which
    # there is a network only where there is room for a jail; within the run's cgroups and scratch;
    # words and variables are seen in the jail alone. A package may be at work in the other jail by
    # now. Of what it can write to, nothing is looked up while we have power but the folders
    # themselves, whose names it can't change.
    #
    # 1. A network of its own: a loopback, where nobody listens but the sockets that watch gets.
    # 2. Its top, empty and not watch's, in which nsjail makes the places of mounts. Where nsjail
    #    has a user namespace of its own, the top is that user's.
    #    What it can write to: pipes, and the run's FIFO, which no process of a jail can read, by
    #    its mode on a read-only mount. Watch's end can also write, or it would end with the first
    #    writer.
    # 3. Its first process, in PID and mount namespaces of its own; in a user namespace, too, where
    #    strace could not look into processes otherwise.
    # 4. Watch gets the other ends. None stays open here, whatever fails.
    def start_jail(self, request: Start) -> None:
        if request.jail <= self.number or not self.network:
            raise OrderError("a jail too many, or a number that was used", request.jail)
        self.number = request.jail
        near, far, self.network = self.network, list[int](), []
        try:
            # 1.
            near += [open_index()] if request.has_index else []
            # 2.
            (self.scratch / str(request.jail)).mkdir()
            user = 0 if self.settings.nsjail_disable_clone_newuser else self.user
            os.chown(self.scratch / str(request.jail), user, -1)
            near.insert(0, os.dup(self.fifo))
            pipes = [os.pipe() for _ in orders.JAIL_FDS[:-1]]
            near[:0], far[:] = zip(*pipes, strict=True)
            # 3.
            namespaces = CLONE_NEWPID | CLONE_NEWNS | self.user_namespace
            jail = spawn(namespaces, lambda _: self.be_jail(request, *far), far[2])
            self.jails[request.jail] = jail
            if self.user_namespace:
                self.map_ids(jail.pid)
            # 4.
            self.answer(Answer(request.jail, False), near)
        finally:
            for fd in near + far:
                os.close(fd)

    # 1. See no processes but our own, be bounded by the run's cgroups, and have a session keyring
    #    of our own: an inherited keyring names the container in /proc/keys. Where the kernel
    #    makes none, nobody in the jail can do anything with the old one: nsjail.cfg serves no keys.
    # 2. Our ends of the pipes; only strace and nsjail get the last two.
    # 3. The service and watch come first. A crash does not start the host's helper: of all limits
    #    of core files only 1 keeps it out.
    # 4. The kernel witness, the sandbox, the launcher: strace ... nsjail ... launch.py ...
    def be_jail(self, request: Start, stdout: int, stderr: int, log_fd: int, trace: int) -> None:
        # 1. Watch gets the view of our processes, which says what each of them is.
        check(libc.mount(*PROC), "mounting /proc")
        self.answer(Answer(request.jail, False), [os.open("/proc", os.O_PATH)])
        # To move a single thread, as v1 can, the kernel need not wait for all others; we have none.
        for group in self.groups:
            next(group.glob("tasks"), group / "cgroup.procs").write_text("0")
        libc.syscall(SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None)
        # 2.
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
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
        top = self.settings.nsjail_chroot_path or self.scratch / str(request.jail)
        paths = {"SCRATCH": str(self.scratch), "TOP": str(top), "BASE": self.machine.base}
        os.execve(argv[0], argv, {f"SNAKEHOOK_{name}": path for name, path in paths.items()})

    # What varies from run to run; the rest is in nsjail.cfg.
    def jail_command(self, request: Start, log_fd: int) -> list[str]:
        settings = self.settings
        options = [f"--config={settings.nsjail_config_path}", f"--log_fd={log_fd}", "--rw"]
        options.append(f"--hostname={request.variables.get('HOSTNAME')}")
        # In the jail and outside; without a user namespace there is only the first.
        options.append(f"--user={settings.nsjail_user}:{self.user}:1")
        options.append(f"--group={settings.nsjail_group}:{self.group}:1")
        if self.is_root and settings.nsjail_disable_clone_newuser:
            options.append("--disable_clone_newuser")
        # pip has the whole deadline, and so has any jail for which watch asks like this: the run's
        # own deadline ends it. What pip starts gets the limit of CPU time in the jail.
        cpu_sec = "inf" if request.has_index else settings.rlimit_cpu_sec
        limits: dict[str, object] = {"cpu": cpu_sec, "as": "inf", "nofile": settings.rlimit_nofile}
        # In MiB. The disk is full before a file is too large: less than 16 of them are drawn.
        limits["fsize"] = (self.disk_bytes >> 20) + 17
        # Counted over all jails of the same user: a wider net than a cgroup, but a net.
        pids = settings.cgroup_pids_max * (settings.max_concurrency if self.is_root else 1)
        if not self.groups:
            limits["as"] = settings.rlimit_as_mb
            limits["nproc"] = pids + OWN_PIDS if settings.enable_cgroup_pids_limit else "soft"
        options += [f"--rlimit_{name}={value}" for name, value in limits.items()]
        options += [f"--env={name}={value}" for name, value in request.variables.items()]
        return [self.machine.nsjail, *options, "--", *orders.LAUNCHER_IN_JAIL, *request.launch]
