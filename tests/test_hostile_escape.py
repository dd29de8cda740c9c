"""A package can't get out of its jail, nor see what is outside: each test tries it on a real jail.

Every probe is made by root's jail and by an ordinary user's, since the mechanisms differ.
"""

import json
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Snakehook
from hostile import (
    PROBES,
    add_probe,
    assert_nothing_is_left,
    findings,
    in_one_jail,
    last_json,
    own_phase,
)
from standins import Index

from jail.watch.etc_files import FOLDERS_OF_ETC, FOR_ROOT_ALONE, PLAIN_TEXTS
from jail.watch.tools import TOOLS

REFUSED = {"EPERM", "EACCES", "ENOSYS", "SIGSYS"}
READ_ONLY = REFUSED | {"EROFS", "ENOENT", "EBUSY"}


@dataclass(frozen=True)
class Jail:
    """The program as one of two users runs it, and the index that it installs from."""

    program: Snakehook
    index: Index

    def probe(self, source: str, **settings: object) -> tuple[Any, dict[str, Any]]:
        """What a module that begins with PROBES said, and the report; nothing is left of it."""
        add_probe(self.index, source)
        _, report, _ = self.program.triage("probe", *in_one_jail(), **settings)
        self.nothing_is_left()
        return last_json(report), report

    def answers(self, name: str) -> dict[str, Any]:
        """What the probes of SOURCES[name] got: those of all names are made in one jail, once for
        each user."""
        user = tuple(self.program.command)
        if user not in answers:
            add_probe(
                self.index,
                "".join(
                    f"\ndef probes():{indented(source)}\nprobes()\n" for source in SOURCES.values()
                ),
            )
            _, report, _ = self.program.triage("probe", *in_one_jail())
            self.nothing_is_left()
            lines = own_phase(report)["stdout"]["text"].splitlines()
            assert len(lines) == len(SOURCES), report
            answers[user] = dict(zip(SOURCES, map(json.loads, lines), strict=True))
        found: dict[str, Any] = answers[user][name]
        return found

    def nothing_is_left(self) -> None:
        assert_nothing_is_left(self.program.state, self.program.cache)


answers: dict[tuple[str, ...], dict[str, Any]] = {}


def indented(source: str) -> str:
    return source.replace("\n", "\n    ")


@pytest.fixture
def jail_of(program: Snakehook, index: Index) -> Jail:
    return Jail(program, index)


SEARCH = """
ELSEWHERE = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/opt/venv",
             "/srv/site", sys.base_prefix)
def search():
    found = []
    for folder, folders, names in os.walk("/", followlinks=False):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in ELSEWHERE]
        for name in names:
            path = os.path.join(folder, name)
            try:
                if os.path.isfile(path) and NEEDLE in open(path, "rb").read(1 << 20):
                    found.append(path)
            except OSError:
                pass
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("environ", "cmdline", "maps", "mountinfo", "cgroup", "comm"):
            try:
                if NEEDLE in open(f"/proc/{pid}/{name}", "rb").read():
                    found.append(f"/proc/{pid}/{name}")
            except OSError:
                pass
    return found

def parents():
    # The ancestors' memory and descriptors, by every number there could be.
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return sorted(pid for pid in pids if pid != os.getpid())

tell(secrets=search, variables=lambda: sorted(os.environ),
     descriptors=lambda: sorted(os.listdir("/proc/1/fd")),
     memory=lambda: open("/proc/1/mem", "r+b").close(),
     kernel=lambda: open("/proc/kcore", "rb").close(),
     sysrq=lambda: open("/proc/sysrq-trigger", "w").close())
"""


def test_no_secret_of_the_service_is_in_the_jail(jail_of: Jail) -> None:
    needle = f"needle-{secrets.token_hex(8)}"
    given = {
        "API_TOKEN": needle,
        "AWS_PROFILE": needle,
        "PIP_EXTRA_INDEX_URL": f"http://{needle}.example/",
        "PYTHONWARNINGS": f"ignore:{needle}",
    }
    seen, report = jail_of.probe(SEARCH.replace("NEEDLE", repr(needle.encode())), **given)
    assert seen["secrets"] == []
    assert not set(given) & set(seen["variables"])
    assert needle not in str(report)
    assert {seen[name] for name in ("kernel", "sysrq")} <= READ_ONLY


DESCRIPTORS = """
def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found
seen = descriptors()
witness = [number for number, what in seen.items() if what.startswith("/run/initctl")]
print(json.dumps({number: what for number, what in seen.items() if number not in witness}))
"""


def test_only_three_descriptors_are_inherited(jail_of: Jail) -> None:
    seen, _ = jail_of.probe(DESCRIPTORS)
    assert sorted(seen) == ["0", "1", "2"]
    assert seen["0"] == "/dev/null"


PROCESSES = """
names = {pid: open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc") if pid.isdigit()}
def signalled():
    reached = []
    for pid in range(2, 5000):  # not 1, which is our own launcher
        try:
            os.kill(pid, 0)
            reached.append(pid)
        except ProcessLookupError:
            pass
    return reached
tell(names=lambda: names, signalled=signalled, everyone=lambda: os.kill(-1, 0),
     group=lambda: [os.getsid(0), os.getpgid(0), os.getppid()])
"""


def test_a_package_sees_and_signals_no_process_but_its_own(jail_of: Jail) -> None:
    seen = jail_of.answers("processes")
    assert all("/opt/venv" in name for name in seen["names"].values()), seen["names"]
    assert set(map(str, seen["signalled"])) - set(seen["names"]) <= {
        str(pid) for pid in range(2, 12)
    }
    assert len(seen["signalled"]) <= 3


MOUNTS = """
def mounts():
    return [line.split() for line in open("/proc/self/mountinfo")]
def writable():
    # Where one covers another, the last counts.
    top = {line[4]: line[5].split(",") for line in mounts()}
    return sorted(place for place, options in top.items() if "rw" in options)
def options():
    return {line[4]: sorted({"nosuid", "nodev"} - set(line[5].split(","))) for line in mounts()}
tell(places=lambda: sorted(line[4] for line in mounts()), writable=writable, options=options,
     bin=lambda: os.listdir("/bin"), path=lambda: os.environ["PATH"].split(":"),
     top=lambda: sorted(os.listdir("/")), etc=lambda: sorted(os.listdir("/etc")),
     devices=lambda: sorted(os.listdir("/dev")), sys=lambda: os.listdir("/sys"),
     kernel=lambda: os.listdir("/sys/kernel"), var=lambda: os.listdir("/var"),
     kinds=lambda: sorted({line[line.index("-") + 1] for line in mounts()}))
"""
SCRATCH = {"/home/dev", "/tmp", "/dev/shm"}  # noqa: S108
PLACES = {"/", "/proc", "/usr", "/bin", "/lib", "/lib64", "/sbin", "/sys", "/boot"} | SCRATCH
# Of a made-up machine; the kernel's own /sys has far more.
SYS = {"block", "bus", "class", "dev", "devices", "firmware", "fs", "kernel", "module", "power"}
VAR = {"lib", "lock", "log", "run", "spool"}  # links lie in it
ETC = {"ld.so.cache", "alternatives", "passwd", "group", "hosts", "nsswitch.conf", "resolv.conf"}
ETC |= {"hostname", "machine-id", "os-release", "debian_version", "localtime", "timezone", "mtab"}
ETC |= {"shells", "profile", "profile.d", "cron.d"}
ETC |= {"ssl"}  # what the run trusts
ETC |= {*PLAIN_TEXTS, *FOR_ROOT_ALONE, *(path.partition("/")[0] for path in FOLDERS_OF_ETC)}
DEVICES = {"null", "zero", "full", "random", "urandom", "shm", "tty"}
WRITABLE_DEVICES = {f"/dev/{name}" for name in DEVICES}
DEVICES |= {"fd", "stdin", "stdout", "stderr"}  # links


def test_nothing_is_mounted_but_what_the_policy_lists(jail_of: Jail) -> None:
    seen = jail_of.answers("mounts")
    others = {
        place
        for place in seen["places"]
        if place not in PLACES and not place.startswith(("/etc/", "/dev/"))
    }
    ours = {"/opt/venv", "/srv/site", "/run/initctl", "/etc"}
    bases = others - ours
    assert len(bases) <= 1, (
        others
    )  # the installation of the jail's Python, where it is not below /usr
    assert set(seen["etc"]) <= ETC
    assert set(seen["devices"]) <= DEVICES
    assert (set(seen["sys"]), set(seen["var"]), seen["kernel"]) == (SYS, VAR, [])
    assert not {"sysfs", "cgroup", "cgroup2", "debugfs", "securityfs"} & set(seen["kinds"])
    # Whatever else the machine's owner has installed.
    assert "sh" in seen["bin"]
    assert set(seen["bin"]) <= set(TOOLS)
    assert [place for place in seen["path"] if not place.startswith(("/opt/", "/srv/"))] == ["/bin"]


def test_nothing_can_be_written_but_the_scratch(jail_of: Jail) -> None:
    seen = jail_of.answers("mounts")
    writable = {place for place in seen["writable"] if not place.startswith("/srv/")}
    assert writable - WRITABLE_DEVICES == SCRATCH - WRITABLE_DEVICES


def test_every_mount_is_nosuid_and_nodev(jail_of: Jail) -> None:
    seen = jail_of.answers("mounts")
    for place, missing in seen["options"].items():
        # An empty, read-only tmpfs and a read-only proc: no file of ours is in either.
        if place in ("/", "/proc"):
            continue
        # Device nodes must stay devices.
        if place in WRITABLE_DEVICES - SCRATCH:
            assert missing in ([], ["nodev"]), place
        else:
            assert missing == [], place


OVERWRITE = """
PYTHON = os.path.realpath(sys.executable)
LIBRARY = os.path.dirname(os.__file__)
def overwrite(path):
    def probe():
        with open(path, "r+b") as file:
            file.write(file.read(1))
    return probe
def replaced(path):
    return lambda: os.rename(path, path + ".old")
def reopened(path):
    return lambda: os.open(f"/proc/self/fd/{os.open(path, os.O_RDONLY)}", os.O_RDWR)
def added(folder):
    return lambda: open(os.path.join(folder, "planted.pth"), "w").close()
everything = {}
INSIDE = "/opt/venv/bin"
LIBRARY_OF_JAIL = next(path for path in sys.path if path.startswith("/opt/venv/"))
for path in (PYTHON, "/opt/venv/bin/python", INSIDE + "/activate_this.py",
             LIBRARY_OF_JAIL + "/_virtualenv.py", "/bin/sh", "/etc/passwd", "/etc/resolv.conf",
             "/proc/self/exe"):
    everything[f"overwrite {path}"] = overwrite(path)
    everything[f"rename {path}"] = replaced(path)
    everything[f"open {path}"] = reopened(path)
    everything[f"chmod {path}"] = lambda path=path: os.chmod(path, 0o777)
    everything[f"link {path}"] = lambda path=path: os.link(path, "/tmp/hard")
for folder in (LIBRARY, "/opt/venv/lib", INSIDE, "/usr/bin", "/etc", "/",
               "/opt", "/proc/sys", "/dev"):
    everything[f"add {folder}"] = added(folder)
everything["core_pattern"] = lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/x")
everything["oom"] = lambda: open("/proc/1/oom_score_adj", "w").write("-1000")
AUDIT = "/run/initctl"
everything["read the witness"] = lambda: os.open(AUDIT, os.O_RDONLY | os.O_NONBLOCK)
everything["chmod the witness"] = lambda: os.chmod(AUDIT, 0o666)
everything["remove the witness"] = lambda: os.remove(AUDIT)
tell(**everything)
"""


def test_neither_the_interpreter_nor_anything_else_outside_of_the_scratch_can_be_changed(
    jail_of: Jail,
) -> None:
    seen = jail_of.answers("overwrite")
    open_to_it = {
        what: got
        for what, got in seen.items()
        if got not in READ_ONLY | {"EXDEV", "ETXTBSY", "EINVAL"}
    }
    assert open_to_it == {}


SETUID = """
import shutil
def setuid():
    shutil.copy("/bin/true", "/tmp/suid")
    os.chmod("/tmp/suid", 0o6755)
    shutil.copy(os.path.realpath("/bin/sh"), "/tmp/sh")
    os.chmod("/tmp/sh", 0o6755)
    return os.popen("/tmp/sh -p -c 'id -u'").read()
WORDS = ("Cap", "NoNew", "Seccomp:")
def status():
    return [line.split() for line in open("/proc/self/status") if line.startswith(WORDS)]
SU = "find /usr/bin -perm -4000 -user root -name su -exec {} -c true ';' 2>&1"
tell(setuid=setuid, status=status, su=lambda: os.popen(SU).read()[:200],
     setuid_0=lambda: os.setresuid(0, 0, 0), setgid_0=lambda: os.setresgid(0, 0, 0),
     groups=lambda: os.setgroups([0]), owner=lambda: os.chown("/tmp", 0, 0),
     block=lambda: os.mknod("/tmp/disk", 0o060666, os.makedev(8, 0)),
     memory=lambda: os.mknod("/tmp/mem", 0o020666, os.makedev(1, 1)),
     null=lambda: os.mknod("/home/dev/null", 0o020666, os.makedev(1, 3)),
     dumped=lambda: call(157, 4, 1))
"""


def test_setuid_files_and_device_nodes_give_nothing(jail_of: Jail) -> None:
    seen = jail_of.answers("setuid")
    assert seen["setuid"].split()[0] == "65534"
    status = dict(seen["status"])
    assert (status["NoNewPrivs:"], status["Seccomp:"]) == ("1", "2")
    for name in ("CapEff:", "CapPrm:", "CapInh:", "CapAmb:"):
        assert int(status[name], 16) == 0, name
    names = ("setuid_0", "setgid_0", "groups", "owner", "block", "memory", "null")
    assert {seen[name] for name in names} <= REFUSED | {"EINVAL"}


NAMESPACES = """
flags = {"mount": 0x20000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000,
         "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000, "time": 0x80}
probes = {}
def unshare(flag):
    return lambda: called(libc.unshare(flag))
def clone(flag):
    return lambda: call(56, flag | signal.SIGCHLD, 0, 0, 0, 0)
def clone3(flag):
    return lambda: call(435, (ctypes.c_uint64 * 11)(flag, 0, 0, 0, signal.SIGCHLD), 88)
def setns(flag):
    return lambda: called(libc.setns(os.pidfd_open(os.getppid()), flag))
for name, flag in flags.items():
    probes[f"unshare {name}"] = unshare(flag)
    probes[f"unshare user and {name}"] = unshare(flag | flags["user"])
    if name != "time":  # which clone doesn't know
        probes[f"clone {name}"] = clone(flag)
        probes[f"clone user and {name}"] = clone(flag | flags["user"])
    probes[f"clone3 {name}"] = clone3(flag)
    probes[f"setns {name}"] = setns(flag)
probes["setns file"] = lambda: called(libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0))
tell(**probes)
"""


def test_no_new_namespace_by_unshare_clone_clone3_or_setns(jail_of: Jail) -> None:
    seen = jail_of.answers("namespaces")
    assert {what: got for what, got in seen.items() if got not in ("EPERM", "ENOSYS")} == {}
    assert {got for what, got in seen.items() if what.startswith("clone3")} == {
        "ENOSYS"
    }  # libc falls back to clone


MOUNTING = """
probes = {}
def mount(source, path, flags):
    return lambda: called(libc.mount(source, path, None, flags, None))
def set_attributes(path):
    return lambda: call(442, -100, path, 0, (ctypes.c_uint64 * 4)(0, 1), 32)
MS_REMOUNT, MS_BIND = 32, 4096
for place in ("/usr", "/etc/passwd", "/opt/venv", "/opt/venv/bin", "/proc", "/",
              "/home/dev"):
    path = place.encode()
    probes[f"remount {place}"] = mount(None, path, MS_REMOUNT | MS_BIND)
    probes[f"remount rw {place}"] = mount(b"none", path, MS_REMOUNT)
    probes[f"unmount {place}"] = lambda path=path: called(libc.umount2(path, 2))
    probes[f"bind over {place}"] = mount(b"/tmp", path, MS_BIND)
    probes[f"mount_setattr {place}"] = set_attributes(path)
    probes[f"open_tree {place}"] = lambda path=path: call(428, -100, path, 1)
    probes[f"fspick {place}"] = lambda path=path: call(433, -100, path, 0)
probes["proc"] = lambda: called(libc.mount(b"proc", b"/tmp", b"proc", 0, None))
probes["tmpfs"] = lambda: called(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None))
probes["fsopen"] = lambda: call(430, b"tmpfs", 0)
probes["fsconfig"] = lambda: call(431, 0, 6, 0, 0, 0)
probes["fsmount"] = lambda: call(432, 0, 0, 0)
probes["move_mount"] = lambda: call(429, -100, b"/tmp", -100, b"/usr", 0)
probes["pivot_root"] = lambda: call(155, b"/tmp", b"/tmp")
probes["chroot"] = lambda: os.chroot("/tmp")
probes["swapon"] = lambda: call(167, b"/tmp", 0)
tell(**probes)
"""


def test_no_mount_can_be_remounted_unmounted_or_covered(jail_of: Jail) -> None:
    seen = jail_of.answers("mounting")
    assert {what: got for what, got in seen.items() if got not in ("EPERM", "ENOSYS")} == {}


OTHERS = """
parent = os.getppid()
buffer = ctypes.create_string_buffer(4096)
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
local = iovec(ctypes.addressof(buffer), 8)
remote = iovec(ctypes.addressof(buffer), 8)
tell(
    traceme=lambda: call(101, 0, 0, 0, 0), attach=lambda: call(101, 16, parent, 0, 0),
    seize=lambda: call(101, 0x4206, parent, 0, 0),
    readv=lambda: call(310, parent, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0),
    writev=lambda: call(311, parent, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0),
    getfd=lambda: call(438, os.pidfd_open(parent), 1, 0),
    kcmp=lambda: call(312, parent, parent, 0, 0, 0),
    madvise=lambda: call(440, os.pidfd_open(parent), 0, 0, 0, 0),
)
"""


def test_no_process_can_look_into_another(jail_of: Jail) -> None:
    seen = jail_of.answers("others")
    assert {what: got for what, got in seen.items() if got not in ("EPERM", "ENOSYS")} == {}


KERNEL = """
parameters = (ctypes.c_uint32 * 40)()
tell(
    io_uring_setup=lambda: call(425, 8, ctypes.byref(parameters)),
    io_uring_enter=lambda: call(426, 0, 0, 0, 0, 0, 0),
    io_uring_register=lambda: call(427, -1, 0, 0, 0),
    bpf=lambda: call(321, 0, ctypes.byref((ctypes.c_uint32 * 32)(2, 4, 4, 1)), 128),
    userfaultfd=lambda: call(323, 0), userfaultfd_user_mode=lambda: call(323, 1),
    perf=lambda: call(298, ctypes.byref((ctypes.c_uint32 * 32)(1, 128)), 0, -1, -1, 0),
    keyctl=lambda: call(250, 0, -3, 1), add_key=lambda: call(248, b"user", b"k", b"v", 1, -3),
    request_key=lambda: call(249, b"user", b"k", 0, -3),
    open_by_handle_at=lambda: call(304, -100, ctypes.byref((ctypes.c_uint32 * 32)(8)), 0),
    init_module=lambda: call(175, 0, 0, b""), finit_module=lambda: call(313, 0, b"", 0),
    kexec=lambda: call(246, 0, 0, 0, 0), reboot=lambda: call(169, 0xfee1dead, 672274793, 0, 0),
    syslog=lambda: call(103, 3, ctypes.byref(parameters), 100),
    quotactl=lambda: call(179, 0, 0, 0, 0),
    acct=lambda: call(163, 0), personality=lambda: call(135, 0x0040000),
    sethostname=lambda: socket.sethostname("x"),
    settime=lambda: time.clock_settime(time.CLOCK_REALTIME, 0),
    nice=lambda: os.nice(-5),
    realtime=lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)),
    packet=lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    vsock=lambda: socket.socket(40, socket.SOCK_STREAM).close(),
    alg=lambda: socket.socket(38, 5).close(),
    parent_death=lambda: call(157, 1, 0, 0, 0, 0),
    folder_events=lambda: call(72, os.open("/opt/venv/bin", os.O_RDONLY), 1026, 2),
    folder_events_high=lambda: call(72, os.open("/usr/lib", os.O_RDONLY), 0x700000402, 2),
    lease=lambda: call(72, os.open("/tmp/leased", os.O_RDONLY | os.O_CREAT), 1024, 0),
    core_limit=lambda: call(160, 4, (ctypes.c_uint64 * 2)(0, 0)),
    core_limit_high=lambda: call(302, 0, 0x700000004, (ctypes.c_uint64 * 2)(0, 0), None),
)
"""


def test_the_kernel_s_dangerous_doors_are_shut(jail_of: Jail) -> None:
    seen = jail_of.answers("kernel")
    assert {
        what: got
        for what, got in seen.items()
        if got not in ("EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT")
    } == {}
    assert {seen[f"io_uring_{what}"] for what in ("setup", "enter", "register")} == {"ENOSYS"}


def test_a_crash_starts_no_helper_of_the_host_s(jail_of: Jail) -> None:
    """The kernel starts the program of core_pattern, as root and outside, unless the limit of core
    files is 1 byte."""
    seen, _ = jail_of.probe(
        "import resource\ntell(core=lambda: resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert seen["core"] == [1, 1]


TERMINAL = """
import fcntl, pty, termios
leader, follower = os.openpty() if os.path.exists("/dev/ptmx") else (None, None)
def push(fd, request):
    return lambda: fcntl.ioctl(fd, request, b"x")
probes = {f"fd {fd} {name}": push(fd, request) for fd in (0, 1, 2)
          for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541c), ("64 bits", 0x5412))}
probes["high bits"] = lambda: call(16, 0, 0x7700005412, ctypes.c_char_p(b"x"))
probes["tty"] = lambda: os.open("/dev/tty", os.O_RDWR)
probes["ptmx"] = lambda: os.open("/dev/ptmx", os.O_RDWR)
tell(**probes)
"""


def test_nothing_can_be_typed_into_a_terminal(jail_of: Jail) -> None:
    seen = jail_of.answers("terminal")
    assert seen.pop("tty") in {"ENOENT", "ENXIO"}
    assert seen.pop("ptmx") == "ENOENT"
    assert set(seen.values()) == {"EPERM"}


FOREIGN_CALLS = """
import mmap
def old_call(number, first=0):
    # mov eax, number; mov ebx, first; int 0x80; ret - the way of 32-bit programs into the kernel
    code = b"\\x53\\xb8" + struct.pack("<I", number) + b"\\xbb" + struct.pack("<I", first)
    code += b"\\x31\\xc9\\x31\\xd2\\xcd\\x80\\x5b\\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    result = run()
    return "it worked" if result >= 0 else errno.errorcode.get(-result, str(result))
X32 = 0x40000000
tell(**{
    "old getpid": lambda: old_call(20), "old unshare": lambda: old_call(310, 0x10000000),
    "old ptrace": lambda: old_call(26), "old mount": lambda: old_call(21),
    "x32 getpid": lambda: call(X32 | 39), "x32 unshare": lambda: call(X32 | 272, 0x10000000),
    "x32 ptrace": lambda: call(X32 | 521, 0, 0, 0, 0), "x32 bpf": lambda: call(X32 | 321, 0, 0, 0),
    "x32 clone": lambda: call(X32 | 56, 0x10000011, 0, 0, 0, 0), "future": lambda: call(4095),
})
"""


def test_system_calls_of_other_architectures_are_not_served(jail_of: Jail) -> None:
    seen = jail_of.answers("foreign_calls")
    assert {
        what: got
        for what, got in seen.items()
        if got != ("SIGSYS" if what.startswith("old") else "ENOSYS")
    } == {}


def test_it_is_the_policy_that_refuses_what_it_does_not_list(jail_of: Jail) -> None:
    """A kernel that does not serve x32 says ENOSYS by itself: another number shows who speaks."""
    policy = jail_of.program.state / "other.cfg"
    policy.write_text(
        (ROOT / "jail/nsjail.cfg").read_text().replace("DEFAULT ERRNO(38)", "DEFAULT ERRNO(71)")
    )
    seen, _ = jail_of.probe(FOREIGN_CALLS, NSJAIL_CONFIG_PATH=policy)
    # Of the first calls of a process strace hears before the policy does, and refuses this one.
    if seen["x32 ptrace"] == "ENOSYS":
        del seen["x32 ptrace"]
    assert {
        what: got
        for what, got in seen.items()
        if got != ("SIGSYS" if what.startswith("old") else "EPROTO")
    } == {}


WITNESSES = """
def untraced():
    child = libc.syscall(56, 0x00800000 | 17, 0, 0, 0, 0)  # CLONE_UNTRACED
    if child == 0:
        os._exit(0)
    return called(child)
class fprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
# A filter of one's own that says USER_NOTIF outranks the TRACE of the kernel witness.
filter = (ctypes.c_uint64 * 1)(0x7fc0000000000006)
program = ctypes.byref(fprog(1, ctypes.addressof(filter)))
high = 0x700000000  # bits that the kernel does not look at
path = ctypes.c_char_p(b"/home/dev/.pypirc")
mine = os.open("/tmp/mine", os.O_RDWR | os.O_CREAT)
tell(
    untraced=untraced, seccomp=lambda: call(317, 1, 8, program), strict=lambda: call(317, 0, 0, 0),
    prctl=lambda: call(157, 22, 2, program), prctl_high=lambda: call(157, high | 22, 2, program),
    parent_death_high=lambda: call(157, high | 1, 0),
    tiocsti_high=lambda: call(16, 0, high | 0x5412, path),
    clone_high=lambda: call(56, high | 0x10000011, 0, 0, 0, 0),
    noatime=lambda: call(2, path, 0x40000),
    noatime_at=lambda: call(257, -100, path, high | 0x40000),
    noatime_later=lambda: call(72, mine, 4, 0x40000),
    noatime_high=lambda: call(72, mine, high | 4, 0x40000),
    openat2=lambda: call(437, -100, path, ctypes.byref((ctypes.c_uint64 * 3)(0x40000)), 24),
    flags=lambda: call(16, mine, 0x40086602, ctypes.byref(ctypes.c_long(0x80))),
    attributes=lambda: call(16, mine, high | 0x401c5820, ctypes.byref((ctypes.c_uint32 * 7)(0x40))),
    clone_range=lambda: call(16, mine, 0x40049409, mine),
    copy_range=lambda: call(326, mine, 0, mine, 0, 1, 0),
)
"""


def test_nothing_that_a_package_can_ask_of_the_kernel_goes_past_the_witnesses(
    jail_of: Jail,
) -> None:
    seen = jail_of.answers("witnesses")
    assert set(seen.values()) <= {"EPERM", "ENOSYS"}


SOURCES = {
    "processes": PROCESSES,
    "mounts": MOUNTS,
    "overwrite": OVERWRITE,
    "setuid": SETUID,
    "namespaces": NAMESPACES,
    "mounting": MOUNTING,
    "others": OTHERS,
    "kernel": KERNEL,
    "terminal": TERMINAL,
    "foreign_calls": FOREIGN_CALLS,
    "witnesses": WITNESSES,
}


SWAP = """
import os
work = "/srv"
for name in ("home", "tmp", "shm"):
    try:
        os.rename(f"{work}/{name}", f"{work}/{name}-real")
        os.symlink(OUTSIDE, f"{work}/{name}")
    except OSError:
        pass
"""
LOOK_AROUND = """
found = []
for place in ("/home/dev", "/tmp", "/dev/shm"):
    if os.path.exists(place + "/host-file"):
        found.append(place)
        open(place + "/planted", "w").close()
print(json.dumps(found))
"""


def test_links_in_place_of_the_scratch_s_folders_lead_no_later_phase_out(
    jail_of: Jail, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "host-file").write_text("of the host")
    for folder in (outside, *outside.parents[:2]):
        folder.chmod(0o777)
    prelude = SWAP.replace("OUTSIDE", repr(str(outside)))
    jail_of.index.add_backend_sdist("swapper", "1.0", prelude, {"swapper.py": PROBES + LOOK_AROUND})
    _, report, _ = jail_of.program.triage("swapper", "--mode", "import")
    said = [phase["stdout"]["text"] for phase in report["phases"] if phase["name"] == "import"]
    assert all(text == "[]\n" for text in said), report["phases"]
    assert [path.name for path in outside.iterdir()] == ["host-file"]
    jail_of.nothing_is_left()


PERMISSIONS = """
import os, stat
os.makedirs("/tmp/a", exist_ok=True)
links = {"/home/dev/.ssh-link": "/etc/shadow", "/tmp/a/root": "/", "/tmp/self": "/proc/self/root"}
for name, target in links.items():
    if not os.path.islink(name): os.symlink(target, name)
"""


def test_links_that_lead_out_of_the_scratch_change_nothing_outside(
    jail_of: Jail, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("untouched")
    mine.chmod(0o600)
    more = "for n in range(100):\n    if not os.path.islink(f'/tmp/l{n}'):"
    more += f" os.symlink({str(mine)!r}, f'/tmp/l{{n}}')\n"
    jail_of.index.add_backend_sdist("linker", "1.0", PERMISSIONS + more, {"linker.py": ""})
    _, report, _ = jail_of.program.triage("linker", "--mode", "detonate")
    assert report["outcome"] == "ok", report["reason"]
    assert (mine.read_text(), stat.S_IMODE(mine.stat().st_mode)) == ("untouched", 0o600)
    assert not [finding for finding in report["findings"] if "untouched" in str(finding)]
    jail_of.nothing_is_left()


# Ways to read a file of bait, each with a file of its own.
READING = {
    ".pypirc": "open(path).read()",
    ".git-credentials": "os.read(os.open(path, os.O_RDONLY | os.O_NOATIME), 100)",
    ".kube/config": """was = os.stat(path)
        open(path).read()
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))""",
    ".ssh/id_rsa": """os.rename("/home/dev/.ssh", "/home/dev/x")
        open("/home/dev/x/id_rsa").read()
        os.rename("/home/dev/x", "/home/dev/.ssh")""",
    ".aws/credentials": """os.link(path, "/home/dev/hard")
        open("/home/dev/hard").read()
        os.remove("/home/dev/hard")""",
    ".docker/config.json": """f = open(path)
        bytes(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ))""",
}
READ = """
    path = "/home/dev/{bait}"
    try:
        {how}
        done["{bait}"] = True
    except OSError:
        done["{bait}"] = False
"""


def test_reading_bait_shows_however_it_is_done(jail_of: Jail) -> None:
    source = "".join(READ.format(bait=bait, how=how) for bait, how in READING.items())
    start = "import mmap\nos.chdir(os.path.expanduser('~'))\n"
    source = f"{start}done = {{}}\nif True:{source}print(json.dumps(done))\n"
    done, report = jail_of.probe(source)
    assert done == dict.fromkeys(READING, True) | {".git-credentials": False}
    read = findings(report, "secret.read")
    told = {bait for bait in READING if any(bait in title for title in read)}
    assert told >= {bait for bait, was_read in done.items() if was_read}, read
