"""The warden of one phase: trusted, outside the jail, between the service and the package.

It reads the phase's description (one JSON object) from stdin, makes a network and a process namespace whose only
way out is itself, starts the jail in them, gives up its privileges, and only then reads what the jail makes: requests
to the package index, DNS questions, output, files. It writes one JSON object a line to stdout, each bounded, the last
one with "kind": "end". If it dies, the jail dies; if the service dies, it dies.
"""

import base64
import codecs
import contextlib
import ctypes
import fcntl
import hashlib
import http.client
import io
import ipaddress
import json
import os
import re
import resource
import select
import signal
import socket
import ssl
import stat
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

MAX_OUTPUT_BYTES = 1 << 20  # kept of each of stdout and stderr
MAX_TEXT_CHARS = 4096  # of any one string that the jail made, output apart
MAX_EVENTS_PER_KIND = 2000  # a flood of one kind must not push out the others
MAX_PAGE_BYTES = 32 << 20  # one project page of the index
MAX_REQUEST_BYTES = 16 << 10  # request line and headers from the jail
MAX_FILE_BYTES = 1 << 20  # of any one file of the scratch
MAX_CONNECTIONS = 32  # served at once to the jail; more are closed at once
MAX_REDIRECTS = 5
MAX_MEMORY_BYTES = 1 << 30  # of the warden itself
IDLE_SEC = 60.0  # a silent connection, either way
UPSTREAM_TIMEOUT_SEC = 15.0
POLL_SEC = 0.02  # how stale a look at the disk may be
WALK_SEC = 1.0  # the same, where looking takes a walk
INDEX_PORT = 3141
STARTED = b"snakehook: jail ready\n"  # launch.py's first line: from here on the package may have had its say
LAZY_CODECS = ("ascii", "idna", "latin-1", "unicode_escape")
JAIL_PYTHON = "/opt/snakehook/python/bin/python"
PIP_AGAIN = re.compile(r"/opt/snakehook/python/lib/python[0-9.]+/site-packages/pip/__pip-runner__\.py")
SYSTEM_LOOK = re.compile(r"(/usr)?/bin/(lsb_release|uname)")
JSON_PAGE = "application/vnd.pypi.simple.v1+json"

MAX_TRACE_LINE_BYTES = 1 << 20
MAX_AUDIT_LINE_BYTES = 8 << 10  # the hook keeps to half of it
MAX_COMMAND_CHARS = 16 << 10  # of a command and its arguments
MAX_SEARCHED_BYTES = 16 << 20  # of each kind of thing that is searched for bait
MAX_CODES = 500  # pieces of generated source
MAX_CODE_BYTES = 64 << 10
MAX_FOLDERS = 40_000  # of the scratch that are looked into
MAX_LISTING_CHARS = 48 << 20  # of the paths of the scratch, each counted as PATH_CHARS more: 200,000 of usual length
PATH_CHARS = 200
MAX_READ_BYTES = 8 << 20  # of each kind of file of the scratch; a file counts PAGE_BYTES at least
PAGE_BYTES = 4096
MAX_DEPTH = 100
MAX_WAITING_BYTES = 1 << 20  # of the calls of a process whose parent is not known yet
MAX_NUMBERS = 200_000  # of processes, of sockets
MAX_KNOWN = 400_000  # files that the pages of a run name
MAX_PID = 1 << 22  # the kernel's own limit
MAX_READS = 4  # of the Python witness for one of the kernel's
MAX_TWIN_CHARS = 500  # compared to find what two witnesses say of the same act
STRACE_CALLS = "execve,execveat,fork,vfork,clone,clone3,connect,sendto,sendmsg,sendmmsg,bind,socket,unlink,unlinkat"
STRACE_CALLS += ",exit_group"
STRACE_FLAGS = ["-f", "-q", "-y", "--seccomp-bpf", "--decode-pids=pidns", "-xx", "-s", "4096"]
STRACE_FLAGS += ["-e", f"trace={STRACE_CALLS}", "-e", "signal=!SIGCHLD"]

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
M_ARENA_MAX = -8
CAP_SYS_PTRACE = 19
KEYCTL, KEYCTL_JOIN_SESSION_KEYRING = 219 if os.uname().machine == "aarch64" else 250, 1

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Index:
    """The upstream package index. `hosts` are all that may be asked, its own included; `max_bytes` the run's limit."""

    url: str
    hosts: list[str]
    denylist: list[str]
    max_bytes: int
    cache: str


@dataclass(frozen=True)
class Phase:
    """What the service asks for, in one JSON object.

    `paths` are those of nsjail.cfg, `options` nsjail's own for what differs from run to run, `user` and `group` the
    jail's ids, `cgroups` the directories of groups to join. An `own_disk` is a file system of the scratch alone.
    """

    launch: list[str]
    nsjail: str
    strace: str | None
    options: list[str]
    paths: dict[str, str]
    user: int
    group: int
    new_user: bool
    own_disk: bool
    max_disk_bytes: int
    max_files: int
    deadline_sec: float
    cgroups: list[str]
    index: Index | None
    distribution: str | None
    site: str
    bait: dict[str, str]
    telling: dict[str, str]


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class Stream:
    """The one way out: JSON lines on stdout, bounded by kind, with the time of a clock that cannot jump.

    Of each kind what the service will call grave (`telling`: a pattern by kind) has room of its own, so that no flood
    of the common keeps it out.
    """

    def __init__(self, telling: dict[str, str]) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[tuple[str, bool]] = Counter()
        self.lost: Counter[str] = Counter()
        self.epoch = time.time() - time.monotonic()
        self.telling = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in telling.items()}

    def is_telling(self, kind: str, text: str) -> bool:
        return kind in self.telling and bool(self.telling[kind].fullmatch(text))

    def room(self, kind: str, telling: bool = False) -> bool:
        """Whether one more of this kind may be kept; those that may not are counted."""
        with self.lock:
            self.counts[kind, telling] += 1
            is_room = self.counts[kind, telling] <= (MAX_CODES if kind == "code" else MAX_EVENTS_PER_KIND)
            self.lost[kind] += not is_room
            return is_room

    def emit(self, kind: str, *, telling: bool = False, **fields: Any) -> bool:
        """Write an event, if there is room for it, with texts cut to MAX_TEXT_CHARS: whether it was written."""
        if not self.room(kind, telling):
            return False
        if kind != "code":  # which has a bound of its own
            fields = {k: v[:MAX_TEXT_CHARS] if isinstance(v, str) else v for k, v in fields.items()}
        self.write(kind, **fields)
        return True

    def write(self, kind: str, seen: float | None = None, **fields: Any) -> None:
        at = round(self.epoch + (seen or time.monotonic()), 6)
        line = json.dumps({"kind": kind, "at": at, **fields})
        with self.lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


# --- privileged: namespaces and the jail -----------------------------------------------------------------------------


def enter_namespaces(rootless: bool) -> None:
    """Leave the machine's network and processes behind; without root, by way of a user namespace."""
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | (CLONE_NEWUSER if rootless else 0)), "unshare")
    if rootless:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")


def open_network(serve_index: bool) -> list[socket.socket]:
    """The jail's whole network: a loopback with a resolver and, if asked, the index, whose far ends we hold."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    sockets = []
    for kind, port in ((socket.SOCK_DGRAM, 53), (socket.SOCK_STREAM, 53), (socket.SOCK_STREAM, INDEX_PORT)):
        if port != INDEX_PORT or serve_index:
            sockets.append(socket.socket(socket.AF_INET, kind))
            sockets[-1].bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                sockets[-1].listen(4096)
    return sockets


def jail_command(phase: Phase, rootless: bool, log_fd: int, trace_fd: int) -> list[str]:
    """The kernel witness, the sandbox, the launcher: strace ... nsjail ... launch.py ..."""
    if rootless or phase.new_user:
        user, group = (0, 0) if rootless else (phase.user, phase.group)  # rootless, the namespace has the id 0 only
        ids = ["--user", f"{phase.user}:{user}:1", "--group", f"{phase.group}:{group}:1"]
    else:
        ids = ["--disable_clone_newuser", "--user", str(phase.user), "--group", str(phase.group)]
    return [
        *([phase.strace, *STRACE_FLAGS, "-o", f"/proc/self/fd/{trace_fd}"] if phase.strace else []),
        *[phase.nsjail, *phase.options, *ids, "--log_fd", str(log_fd)],
        *["--", JAIL_PYTHON, "-I", "-S", "/opt/snakehook/launch.py", *phase.launch],
    ]


def may_look_into_processes() -> bool:
    """Whether strace, as we are, can read what the jail's user passes to the kernel: in a container it may not.

    If not, it and the jail get a user namespace with all the ids as they are: in there it has SYS_PTRACE, and over
    what is outside no power at all. Else a package could blind it: by a program that can't be read, by a prctl.
    """
    effective = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(effective and int(effective[1], 16) >> CAP_SYS_PTRACE & 1)


def keep_jail(phase: Phase, control: socket.socket, lifeline: int, pipes: dict[str, int]) -> int:
    """Make the namespaces, hand over their sockets, run the jail, and end it when `lifeline` closes: return its status.

    This process keeps the privilege to kill the jail; the warden, which parses what the jail says, must not have it.
    A parent-death signal would not do: the kernel refuses it when an unprivileged parent leaves a root child.
    """
    control.recv(2)  # the warden has looked at the scratch
    for name in ("site", "home", "tmp", "shm"):  # what nsjail mounts must be a folder, not a link that leads elsewhere
        os.close(os.open(Path(phase.paths["SCRATCH"], name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
    rootless = os.geteuid() != 0
    enter_namespaces(rootless)
    sockets = open_network(phase.index is not None)
    socket.send_fds(control, [b"s"], [one.fileno() for one in sockets])
    proc_fd = os.open("/proc", os.O_PATH)  # the child mounts another one over it
    own_user = bool(phase.strace and not rootless and not may_look_into_processes())
    maps = {name: Path("/proc/self", name).read_text() for name in ("uid_map", "gid_map") if own_user}
    near, far = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        check(libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None), "mounting /proc")
        for cgroup in phase.cgroups:
            Path(cgroup, "cgroup.procs").write_text("0")
        # A session keyring of its own: an inherited one names the container in /proc/keys.
        libc.syscall(KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None)
        if own_user:
            check(libc.unshare(CLONE_NEWUSER), "unshare of the user namespace")
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials clears it
            far.close()
            near.send(b"u")
            if not near.recv(1):
                os._exit(1)
        stdio = (os.open(os.devnull, os.O_RDONLY), pipes["stdout"], pipes["stderr"])
        for target, source in enumerate(stdio):
            os.dup2(source, target)
        os.set_inheritable(pipes["log"], True)
        os.set_inheritable(pipes["trace"], True)
        os.nice(10)  # whatever runs in the jail, the service and the wardens come first
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))  # the one value that keeps the host's crash helper out
        argv = jail_command(phase, rootless, pipes["log"], pipes["trace"])
        os.execve(argv[0], argv, {f"SNAKEHOOK_{name}": path for name, path in phase.paths.items()})
    near.close()
    if own_user:
        far.recv(1)
        for name, text in maps.items():
            same = (f"{first} {first} {count}\n" for first, _, count in map(str.split, text.splitlines()))
            map_fd = os.open(f"{pid}/{name}", os.O_WRONLY, dir_fd=proc_fd)
            os.write(map_fd, "".join(same).encode())
            os.close(map_fd)
        far.send(b"m")
    ended = os.pidfd_open(pid)
    select.select([lifeline, ended], [], [])
    os.kill(pid, signal.SIGKILL)  # the first process of its namespace: the kernel takes all the others with it
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def drop_privileges(phase: Phase) -> None:
    """From here on hostile bytes are parsed: as the jail's user, with nothing to regain, bounded like a jail."""
    service = os.getppid()
    for codec in LAZY_CODECS:
        codecs.lookup(codec)  # the jail's user may not be able to read our own standard library
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(phase.group, phase.group, phase.group)
        os.setresuid(phase.user, phase.user, phase.user)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "not dumpable")
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "parent-death signal")
    if os.getppid() != service:
        os._exit(1)


# --- the index, as the jail may see it -------------------------------------------------------------------------------


def serve(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


class Refused(Exception):
    """A request that is not answered with what it asks for: the HTTP status for the jail, the reason for the report."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Gateway:
    """A read-only view of the package index: GET of project pages and of the files that they name, nothing else.

    Nothing of the jail's request but a project name or a known file's hash goes upstream, so no data leaves this way.
    """

    REQUEST = re.compile(  # no other method, no query, no body, and a name in its one canonical form
        rb"GET /(?:simple/(?P<project>(?=[a-z0-9-]{1,200}/)[a-z0-9]+(?:-[a-z0-9]+)*)/"
        rb"|files/(?P<sha256>[0-9a-f]{64})/(?P<file>[A-Za-z0-9._+!-]{1,255})) HTTP/1\.1\r\n"
        rb"(?:[^\r\n]+\r\n)*\r\n"
    )
    FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!-]{0,250}", re.ASCII)
    SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

    def __init__(self, index: Index, stream: Stream, bait: "Bait", cache_fd: int) -> None:
        self.index, self.stream, self.bait, self.cache_fd = index, stream, bait, cache_fd
        self.places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.lock = threading.Lock()  # held while upstream is asked, so that no more than one page is read at a time
        self.left_bytes = index.max_bytes
        self.known: dict[tuple[str, str], tuple[str, str]] = {}  # (sha256 in link, name): (URL, sha256)
        self.upstream: dict[tuple[str, str], http.client.HTTPConnection] = {}  # by scheme and host
        self.secure_connection = partial(http.client.HTTPSConnection, context=ssl.create_default_context())

    def listen(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            if self.places.acquire(blocking=False):
                serve(self.converse, connection)
            else:
                self.stream.emit("refused", what="index", target="too many connections")
                connection.close()

    def converse(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # the jail hung up, or was silent: there is nobody to tell
                connection.settimeout(IDLE_SEC)
                while self.answer(connection):
                    pass
        finally:
            self.places.release()

    def answer(self, connection: socket.socket) -> bool:
        """Answer one request; whether the connection may carry another."""
        head = b""
        while b"\r\n\r\n" not in head and len(head) < MAX_REQUEST_BYTES:
            if not (data := connection.recv(MAX_REQUEST_BYTES)):
                break
            head += data
        if not head:
            return False
        try:
            match = self.REQUEST.fullmatch(head)
            if not match or len(head) > MAX_REQUEST_BYTES:
                raise Refused(400, "not a plain GET of a project page or one of its files")
            with self.lock:
                if match["project"]:
                    body, content_type = self.page(match["project"].decode()), JSON_PAGE
                else:
                    body = self.file(match["sha256"].decode(), match["file"].decode())
                    content_type = "application/octet-stream"
            with body:
                send_head(connection, 200, body.seek(0, os.SEEK_END), content_type)
                body.seek(0)
                connection.sendfile(body)
            return True
        except Refused as refused:
            target = printable(head.partition(b"\r\n")[0])
            self.stream.emit("refused", what="index", target=target, reason=str(refused))
            send_head(connection, refused.status, 0, "text/plain")
            return False

    def spend(self, count: int) -> None:
        self.left_bytes -= count
        if self.left_bytes < 0:
            raise Refused(403, "the run's download limit is spent")

    def page(self, project: str) -> BinaryIO:
        """The project's page with every link turned to this gateway.

        Raises Refused for a project on the denylist, one that the index doesn't have, or a page that is no such page.
        """
        if project in self.index.denylist:
            self.stream.emit("denied", project=project)
            raise Refused(403, "the project is on the denylist")
        if self.bait.look("index request for", project, project.encode()):
            raise Refused(403, "it carries a decoy's value")
        if len(self.known) > MAX_KNOWN:
            raise Refused(403, "the pages of this run name too many files")
        url, data = f"{self.index.url}/{project}/", io.BytesIO()
        self.fetch(url, JSON_PAGE, data, MAX_PAGE_BYTES)
        try:
            files = [self.entry(url, one) for one in json.loads(data.getvalue())["files"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Refused(502, f"no JSON project page (PEP 691): {type(error).__name__}") from error
        page = {"meta": {"api-version": "1.0"}, "name": project, "files": [one for one in files if one]}
        return io.BytesIO(json.dumps(page).encode())

    def entry(self, page_url: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        """One file of a page for the jail, None when it may not have it: no sha256, an odd name, a foreign host."""
        name, digest, url = str(entry["filename"]), str(entry["hashes"].get("sha256")), urljoin(page_url, entry["url"])
        if not self.FILE.fullmatch(name) or not self.SHA256.fullmatch(digest) or not self.allowed(url):
            self.stream.emit("refused", what="file", target=printable(url.encode(errors="replace")), reason="bad link")
            return None
        self.known[digest, name] = (url, digest)
        offer = {"filename": name, "url": f"/files/{digest}/{name}", "hashes": {"sha256": digest}}
        offer |= {k: entry[k] for k in ("requires-python", "size", "upload-time", "yanked") if k in entry}
        metadata = entry.get("core-metadata")
        if isinstance(metadata, dict) and self.SHA256.fullmatch(str(metadata.get("sha256"))):
            self.known[digest, name + ".metadata"] = (url + ".metadata", metadata["sha256"])
            offer["core-metadata"] = {"sha256": metadata["sha256"]}
        return offer

    def file(self, sha256: str, name: str) -> BinaryIO:
        """The verified bytes of a file that a page named, from the cache or from upstream. Raises Refused otherwise."""
        if (sha256, name) not in self.known:
            raise Refused(404, "no page of this run named that file")
        url, digest = self.known[sha256, name]
        cached = self.cached(digest)
        file = cached or self.download(url, digest)
        if not name.endswith(".metadata"):
            size = os.fstat(file.fileno()).st_size
            self.stream.emit("download", file=name, bytes=size, sha256=digest, from_cache=cached is not None)
        return file

    def cached(self, digest: str) -> BinaryIO | None:
        """What an earlier run kept, unless it has changed since: what lay on a disk is not trusted."""
        try:
            file = open(digest, "rb", opener=lambda name, flags: os.open(name, flags, dir_fd=self.cache_fd))
        except OSError:
            return None
        self.spend(os.fstat(file.fileno()).st_size)
        if hashlib.file_digest(file, "sha256").hexdigest() == digest:
            return file
        file.close()
        os.unlink(digest, dir_fd=self.cache_fd)
        return None

    def download(self, url: str, digest: str) -> BinaryIO:
        """Fetch into a file that has no name, and so can't outlive us, until its sha256 is found right. Or Refused."""
        try:
            file = os.fdopen(os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=self.cache_fd), "w+b")
            self.fetch(url, "application/octet-stream", file, self.index.max_bytes)
            file.seek(0)  # it may write, too
        except OSError as error:
            raise Refused(502, f"PIP_CACHE_DIR can't be written: {error.strerror}") from error
        if (found := hashlib.file_digest(file, "sha256").hexdigest()) != digest:
            raise Refused(502, f"the file's sha256 is {found}, not the one that the index names")
        with contextlib.suppress(OSError):  # a parallel run was faster, or there is no space to keep it
            os.link(f"/proc/self/fd/{file.fileno()}", digest, dst_dir_fd=self.cache_fd)
        return file

    def allowed(self, url: str) -> bool:
        parts, own = urlsplit(url), urlsplit(self.index.url)
        return parts.netloc in self.index.hosts and parts.scheme in ("https", own.scheme)

    def fetch(self, url: str, accept: str, into: BinaryIO, limit_bytes: int) -> None:
        """Write the body of `url` to `into`, redirects followed among the allowed hosts only. Raises Refused."""
        try:
            for _ in range(MAX_REDIRECTS + 1):
                if not self.allowed(url):
                    raise Refused(403, f"a redirect to another host: {printable(url.encode(errors='replace'))}")
                response = self.ask(url, accept)
                if response.status == 200:
                    while block := response.read(1 << 16):
                        self.spend(len(block))
                        into.write(block)
                        if into.tell() > limit_bytes:
                            raise Refused(502, "the index's answer is too large")
                    return
                if response.status not in (301, 302, 303, 307, 308):
                    raise Refused(404 if response.status == 404 else 502, f"the index answered {response.status}")
                url = urljoin(url, response.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = printable(str(error).encode(errors="replace"))
            raise Refused(502, f"the index can't be read: {reason}") from error
        raise Refused(502, "the index redirects without end")

    def ask(self, url: str, accept: str) -> http.client.HTTPResponse:
        """Send a GET on the connection that there is to the host, or a new one."""
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        if (parts.scheme, parts.netloc) not in self.upstream:
            kind = http.client.HTTPConnection if parts.scheme == "http" else self.secure_connection
            self.upstream[parts.scheme, parts.netloc] = kind(parts.netloc, timeout=UPSTREAM_TIMEOUT_SEC)
        connection = self.upstream[parts.scheme, parts.netloc]
        while True:
            used_before = connection.sock is not None
            try:
                connection.request("GET", target, headers={"Accept": accept, "User-Agent": "snakehook"})
                return connection.getresponse()
            except (OSError, http.client.HTTPException):
                connection.close()
                if not used_before:
                    raise
                # It was closed at the far end while it lay idle, or its last answer was not read to the end.


def send_head(connection: socket.socket, status: int, length: int, content_type: str) -> None:
    more = "" if status == 200 else "Connection: close\r\n"
    head = f"HTTP/1.1 {status} {http.client.responses[status]}\r\nContent-Type: {content_type}\r\n"
    connection.sendall(f"{head}Content-Length: {length}\r\n{more}\r\n".encode())


def printable(data: bytes) -> str:
    """The jail's bytes as text in which control characters can't act, whoever prints it."""
    return data.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


# --- the resolver ----------------------------------------------------------------------------------------------------


NO_QUESTION = ("(malformed question)", b"")


def nxdomain(query: bytes) -> tuple[str, bytes]:
    """The name that `query` asks for and the answer "no such name" (RFC 1035 section 4), or NO_QUESTION."""
    labels: list[bytes] = []
    at = 12
    while at < len(query) and (length := query[at]):
        if length > 63 or len(labels) > 127:
            return NO_QUESTION
        labels.append(query[at + 1 : at + 1 + length])
        at += 1 + length
    if len(query) < at + 5:
        return NO_QUESTION
    return printable(b".".join(labels)), query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + query[12 : at + 5]


def answer_datagrams(server: socket.socket, note: Callable[[str], None]) -> None:
    while True:
        query, client = server.recvfrom(4096)
        name, answer = nxdomain(query)
        note(name)
        with contextlib.suppress(OSError):  # nobody waits for it any more
            server.sendto(answer, client)


def answer_streams(server: socket.socket, note: Callable[[str], None]) -> None:
    """DNS over TCP (RFC 7766), one question a connection: enough to say no. Who is slow or leaves is noted, too."""
    while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(0.5)
            query = b""
            with contextlib.suppress(OSError):
                length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
                query = connection.recv(min(length, 4096), socket.MSG_WAITALL)
            name, answer = nxdomain(query)
            note(name)
            connection.sendall(len(answer).to_bytes(2) + answer)


# --- what the jail leaves --------------------------------------------------------------------------------------------


@dataclass
class Output:
    """What was written to one of the jail's pipes: the start of it, and how much it was."""

    kept: bytearray = field(default_factory=bytearray)
    total_bytes: int = 0

    def take(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self.kept += data[: MAX_OUTPUT_BYTES - len(self.kept)]


class Scratch:
    """The files that the jail can write to. What is too much to look at is counted, not looked at."""

    def __init__(self, phase: Phase, stream: Stream) -> None:
        self.phase, self.stream = phase, stream
        self.fd = os.open(phase.paths["SCRATCH"], os.O_RDONLY | os.O_DIRECTORY)
        self.read_bytes: Counter[str] = Counter()  # by kind: no flood of one keeps another from being read
        self.missed = 0  # by the last walk

    def open(self, path: str) -> int:
        """Open a file or a folder; no part of `path` may be a link, which could lead to files of ours."""
        fd = os.dup(self.fd)
        for part in path.split("/"):
            try:
                step = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            finally:
                os.close(fd)
            fd = step
        return fd

    def read(self, path: str, kind: str) -> bytes:
        """The start of a file; nothing of what is none, is gone, or is too much of its kind."""
        data = b""
        if self.read_bytes[kind] < MAX_READ_BYTES:
            with contextlib.suppress(OSError), os.fdopen(self.open(path), "rb") as file:
                data = file.read(MAX_FILE_BYTES)
        else:
            self.stream.lost[f"{kind}, read"] += 1
        self.read_bytes[kind] += max(len(data), PAGE_BYTES)
        return data

    def lines(self, path: str, kind: str) -> list[str]:
        return self.read(path, kind).decode("utf-8", "replace").splitlines()

    def unlock(self, folder: str) -> None:
        """Give back a permission that was taken away, so that nothing hides behind it: we are the jail's user."""
        above, _, name = folder.rpartition("/")
        above_fd = self.open(above or ".")
        try:
            if os.stat(name, dir_fd=above_fd, follow_symlinks=False).st_mode & 0o500 != 0o500:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above_fd)
                try:
                    Path(f"/proc/self/fd/{fd}").chmod(0o700)
                finally:
                    os.close(fd)
        finally:
            os.close(above_fd)

    def walk(self, *, unlock: bool = False) -> Iterator[tuple[str, os.stat_result | None]]:
        """Every file and folder with what is known of it, the nearest first: no crowd further down hides them."""
        self.missed = 0
        left_chars = MAX_LISTING_CHARS
        folders = [""]
        for folder in folders:  # which grows
            try:
                if unlock and folder:
                    self.unlock(folder.rstrip("/"))
                fd = self.open(folder.rstrip("/") or ".")
            except OSError:  # its permission was taken away, or it is gone
                yield folder, None
                continue
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        path = folder + entry.name
                        left_chars -= len(path) + PATH_CHARS
                        is_folder = entry.is_dir(follow_symlinks=False)
                        too_many = len(folders) >= MAX_FOLDERS or path.count("/") >= MAX_DEPTH
                        if left_chars < 0 or (is_folder and too_many):
                            self.missed += 1
                            continue
                        if is_folder:
                            folders.append(path + "/")
                        with contextlib.suppress(OSError):  # gone while we look, in a phase that goes on
                            yield path, entry.stat(follow_symlinks=False)
            finally:
                os.close(fd)

    def snapshot(self) -> dict[str, tuple[int, int, int]]:
        """Every file: its size, inode, and change time (which nobody in the jail can set)."""
        found = {}
        for path, about in self.walk(unlock=True):  # no jail is at work while this looks
            if not about:
                found[path] = (0, 0, -1)
            elif not stat.S_ISDIR(about.st_mode):
                found[path] = (about.st_size, about.st_ino, about.st_ctime_ns)
        self.stream.lost["file, looked at"] += self.missed
        return found

    def is_full(self) -> bool:
        """Whether the run took more disk than it may. A disk of its own is somewhat larger than that, and so never full
        before this is seen: a package that tidies up in time would hide that its disk was full."""
        used_bytes = files = 0
        if self.phase.own_disk:
            disk = os.fstatvfs(self.fd)
            used_bytes, files = (disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_files - disk.f_ffree
        else:
            for _, about in self.walk():
                used_bytes += about.st_blocks * 512 if about else 0
                files += 1
                if self.missed or files > self.phase.max_files:  # to look at all takes longer than there is
                    return True
        return used_bytes > self.phase.max_disk_bytes or files > self.phase.max_files


SCRIPT = re.compile(r"\s*([\w.-]{1,100})\s*=\s*([A-Za-z_][\w.]{0,200}:[A-Za-z_][\w.]{0,200})\s*(?:\[.*)?", re.ASCII)
MODULE = re.compile(r'"?((?!__pycache__)[A-Za-z_]\w{0,100})(?:/.*)?(?:\.pyc?|\.(?:[\w-]+\.)?so),.*', re.ASCII)


def installed(scratch: Scratch, files: Collection[str]) -> tuple[set[str], dict[str, Any]]:
    """Which of `files` the distributions in `site` list as theirs, and what there is to try of the one that is wanted.

    Of its console scripts and top-level modules those that are named like it come first: a person would try them.
    """
    site, wanted = scratch.phase.site, scratch.phase.distribution
    listed: set[str] = set()
    scripts: dict[str, str] = {}
    modules: set[str] = set()
    for path in files:
        if not (match := re.fullmatch(rf"({re.escape(site)}/([^/-]+)[^/]*\.dist-info)/RECORD", path)):
            continue
        is_wanted = canonical(match[2]) == wanted
        for line in scratch.lines(path, "RECORD"):
            if (theirs := f"{site}/" + line.rsplit(",", 2)[0].strip('"').removeprefix("../../")) in files:
                listed.add(theirs)
            if is_wanted and (module := MODULE.fullmatch(line)):
                modules.add(module[1])
        section = ""
        for line in scratch.lines(f"{match[1]}/entry_points.txt", "entry points") if is_wanted else ():
            if line.startswith("["):
                section = line.strip()
            elif section in ("[console_scripts]", "[gui_scripts]") and (script := SCRIPT.fullmatch(line)):
                scripts[script[1]] = script[2]

    def rank(name: str) -> tuple[bool, str]:
        return canonical(name) != wanted, name

    about = {
        "scripts": [(one, scripts[one]) for one in sorted(scripts, key=rank)],
        "modules": sorted(modules, key=rank),
    }
    return listed, about


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Bait:
    """Watches for the decoys' values, as they are or in the encodings that thieves use."""

    def __init__(self, values: dict[str, str], stream: Stream) -> None:
        self.stream = stream
        self.searched_bytes: Counter[str] = Counter()  # by kind: no flood of one keeps another from being searched
        self.forms = {name: disguises(value) for name, value in values.items()}
        self.told: set[str] = set()
        self.paths = [name.replace("~", "/home/dev", 1) for name in values if name.startswith("~")]

    def look(self, kind: str, where: str, data: bytes, **about: Any) -> bool:
        """Tell the first place where each value turns up, and whether one does here. Threads may look side by side."""
        self.searched_bytes[kind] += len(data)
        if self.searched_bytes[kind] > MAX_SEARCHED_BYTES:
            self.stream.lost[f"{kind}, searched for bait"] += 1
            return False
        found = [one for one, forms in [*self.forms.items()] if any(form in data for form in forms)]
        for name in found:
            if name not in self.told:
                self.told.add(name)
                self.stream.emit("leak", target=name, reason=f"{kind} {where}", **about)
        return bool(found)


def disguises(value: str) -> set[bytes]:
    """`value` as plain text, reversed, hex, base32, and what its base64 is at each of its three offsets."""
    plain = value.encode()
    in_32 = base64.b32encode(plain).rstrip(b"=")[:-1]
    forms = {plain, plain[::-1], plain.hex().encode(), plain.hex().upper().encode(), in_32, in_32.lower()}
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + plain)
        core = coded[(offset * 4 + 2) // 3 :].rstrip(b"=")[:-2]
        forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


# --- the witnesses ---------------------------------------------------------------------------------------------------


class Account:
    """What the Python witness says, by the pid that each process knows itself by. Never proof."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.rest = b""
        self.places: dict[tuple[str, int, str], str] = {}  # (event, pid, subject); pid 0 stands for any
        self.pids: set[int] = set()
        self.started: set[int] = set()
        self.code: dict[tuple[int, int], dict[str, Any]] = {}
        self.malformed = 0

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[: MAX_AUDIT_LINE_BYTES + 1]
        for line in lines:
            try:
                said = json.loads(line) if len(line) <= MAX_AUDIT_LINE_BYTES else {}
                event, pid = said["event"], int(said["pid"])
                if not 0 < pid <= MAX_PID:
                    raise ValueError("no number of a process")
                if len(self.pids) < MAX_NUMBERS:
                    self.pids.add(pid)
                if event == "start":
                    self.started |= self.pids & {pid}
                elif event == "code":
                    self.piece(pid, int(said["id"]), said)
                else:
                    subject = SUBJECTS[event](said["what"])[:MAX_TEXT_CHARS]
                    if (event, pid, subject) not in self.places and self.stream.room(f"Python's {event}"):
                        self.places[event, pid, subject] = at = source_place(said)
                        self.places.setdefault((event, 0, subject), at)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError):
                self.malformed += 1

    def piece(self, pid: int, number: int, said: dict[str, Any]) -> None:
        """Put generated source together, and tell it when it is whole."""
        if "at" in said and (pid, number) not in self.code and len(self.code) < MAX_CODES:
            about = {"bytes": min(max(int(said["bytes"]), 0), 1 << 40), "place": source_place(said)}
            self.code[pid, number] = {**about, "decoded": said["decoded"] is True, "source": b""}
        if code := self.code.get((pid, number)):
            code["source"] += bytes.fromhex(said["text"])[: MAX_CODE_BYTES - len(code["source"])]
            if len(code["source"]) >= min(code["bytes"], MAX_CODE_BYTES):
                self.tell_code(self.code.pop((pid, number)))

    def tell_code(self, code: dict[str, Any]) -> None:
        source = code.pop("source")
        text, digest = source.decode("utf-8", "replace"), hashlib.sha256(source).hexdigest()
        self.stream.emit("code", telling=code["decoded"], sha256=digest, text=text, **code)

    def place(self, event: str, pids: Iterable[int], subjects: Iterable[str]) -> str | None:
        """Where one of `pids` says that it did this to one of `subjects`."""
        said = (self.places.get((event, pid, subject)) for pid in pids for subject in subjects)
        return next((at for at in said if at is not None), None)


def source_place(said: dict[str, Any]) -> str:
    return printable(str(said["at"]).encode(errors="replace"))[:MAX_TEXT_CHARS]


def endpoint(what: Any) -> str:
    """A Python socket address as the kernel witness writes it; of a host that is no address only the port."""
    if not isinstance(what, list) or len(what) < 2:
        return f"unix:{what}".replace("unix:\0", "unix:@")
    try:
        host = ipaddress.ip_address(str(what[0]).partition("%")[0])
    except ValueError:
        return f":{what[1]}"
    text = socket.inet_ntop(socket.AF_INET6 if host.version == 6 else socket.AF_INET, host.packed)
    return f"[{text}]:{what[1]}" if host.version == 6 else f"{text}:{what[1]}"


# What an event of the Python witness is about, as the kernel witness has it.
SUBJECTS: dict[str, Callable[[Any], str]] = {
    "spawn": lambda what: str(what)[:MAX_TWIN_CHARS],
    "address": endpoint,
    "name": lambda what: printable(str(what).encode("latin-1", "replace")).rstrip(".").lower(),
    "open": lambda what: printable(str(what).encode(errors="surrogateescape")),
}


PROCESS_FIELDS = ("pid", "argv", "exit_code", "signal", "own", "acted")


@dataclass(eq=False)
class Process:
    """A process of the jail as the kernel knows it; `jail_pid` is the number that it knows itself by."""

    pid: int
    number: int  # in order of birth: pids come again
    parent: "Process | None" = None  # unknown until the call that made it returns, maybe after its own first ones
    jail_pid: int = 0
    program: str = ""
    argv: list[str] = field(default_factory=list)
    own: bool = False  # the launcher, or pip: its doing is not the package's
    fresh: bool = True  # a copy of its parent, no program of its own yet
    exit_code: int | None = None
    signal: str | None = None
    acted: bool = False
    vain: tuple[Any, ...] | None = None  # a program that it tried to become and could not, yet
    waiting: list[tuple[str, bytes]] = field(default_factory=list)  # what it did before its parent was known
    waiting_bytes: int = 0

    @property
    def title(self) -> str:
        return " ".join(self.argv)[:300]

    @property
    def family(self) -> list[int]:
        """Who may have asked for what this process does: itself or, while it is a copy, its parent."""
        return [self.jail_pid, *([self.parent.jail_pid] if self.fresh and self.parent else [])]


NOBODY = Process(0, 0)


def unescaped(string: bytes) -> bytes:
    return bytes.fromhex(string.replace(b"\\x", b"").decode())


def is_python(program: str) -> bool:
    return program.rpartition("/")[2].startswith("python")


class Trace:
    """The kernel's account, as strace writes it, told event by event with what Python says of the same.

    The jail can neither see nor forge nor stop it. What a Python did, but did not say, was hidden from the hook.
    """

    LINE = re.compile(
        rb"(\d+) +(?:\+\+\+ ((?:exited with|killed by) \w+).*|<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))", re.DOTALL
    )
    CUT = re.compile(rb"(.*)<(?:unfinished|pid changed to (\d+)) \.\.\.>", re.DOTALL)
    RESULT = re.compile(rb"\) += (-?\d+)(?:<([^>]*)>)?(?: (E\w+) \(.*\)| /\* (\d+) in strace's PID NS \*/)?$")
    STRING = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
    ADDRESS = re.compile(
        rb"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?"
        rb'(?:inet_addr\(|inet_pton\(AF_INET6, )"((?:\\x[0-9a-f]{2})*)"'
        rb'|sa_family=AF_UNIX, sun_path=(@?)"((?:\\x[0-9a-f]{2})*)"'
        rb'|sa_family=AF_UNSPEC, sa_data="((?:\\x[0-9a-f]{2})*)"'  # as IPv4, where a datagram is sent
    )
    DESCRIPTOR = re.compile(rb"[^<,]*<((?:\\x[0-9a-f]{2})*)>")  # what the first argument stands for
    LAUNCHER = b'"' + "".join(f"\\x{byte:02x}" for byte in JAIL_PYTHON.encode()).encode() + b'"'

    def __init__(self, phase: Phase, stream: Stream, account: Account, bait: Bait) -> None:
        self.stream, self.account, self.bait = stream, account, bait
        self.is_pip = phase.launch[0] == "pip"
        self.passed_over = {"127.0.0.1:53", *([f"127.0.0.1:{INDEX_PORT}"] if phase.index else [])}
        self.rest = b""
        self.unfinished: dict[int, bytes] = {}
        self.outside: set[int] = set()  # nsjail, making the jail
        self.launcher: Process | None = None
        self.main: Process | None = None  # the launcher's child that runs the phase
        self.main_argv: list[str] = []  # as it was meant to
        self.births = 0
        self.alive: dict[int, Process] = {}
        self.ended: list[Process] = []
        self.leaders: dict[int, int] = {}  # of threads
        self.jail_pids: set[int] = set()
        self.datagram: set[bytes] = set()  # sockets
        self.asked: dict[tuple[str, Process], None] = {}  # names, and who sent them to the resolver
        self.asker = NOBODY  # or the last who turned to the resolver
        self.left: list[Process] = []  # at work when the launcher ended
        self.told: set[tuple[Any, ...]] = set()

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MAX_TRACE_LINE_BYTES:  # an exec with very many arguments: its start and its end will do
            self.rest = self.rest[: 1 << 16] + self.rest[-4096:]
            self.stream.lost["system call, told whole"] += 1
        for line in lines:
            if not (match := self.LINE.fullmatch(line)):
                continue
            pid, how, resumed, end, name, rest = match.groups()
            if how:
                self.unfinished.pop(int(pid), None)
                self.call(int(pid), "exit", how)
            elif name and (cut := self.CUT.fullmatch(rest)):
                self.unfinished[int(cut[2] or pid)] = cut[1]
            elif name:
                self.call(int(pid), name.decode(), rest)
            else:
                self.call(int(pid), resumed.decode(), self.unfinished.pop(int(pid), b"") + end)

    def call(self, pid: int, name: str, rest: bytes) -> None:
        if not self.launcher:
            self.outside.add(pid)
            if name == "execve" and rest.startswith(self.LAUNCHER):
                self.outside.discard(pid)
                self.launcher = self.born(pid)
                self.launcher.argv, self.launcher.own, self.launcher.fresh = ["launch.py"], True, False
                self.settle(self.launcher, NOBODY, 1)
            return
        if pid in self.outside:
            if name == "exit":  # its number may come again
                self.outside.remove(pid)
            return
        if pid in self.leaders:
            if name == "exit":
                del self.leaders[pid]
                return
            pid = self.leaders[pid]
        process = self.alive.get(pid) or self.born(pid)
        if name == "exit_group":
            if process is self.launcher:  # it has lingered: nobody sees what these are still waiting to do
                self.left = [one for one in self.alive.values() if not one.own]
            return
        result = self.RESULT.search(rest)
        if not process.parent:
            process.waiting.append((name, rest))
            process.waiting_bytes += len(rest) + PAGE_BYTES
            if process.waiting_bytes > MAX_WAITING_BYTES:  # a parent that never returns
                self.settle(process, NOBODY, 0)
        elif name == "exit":
            self.end(process, *rest.decode().rsplit(" ", 1))
        elif result:
            error = result[3].decode() if result[3] else None
            strings = [unescaped(one) for one in self.STRING.findall(rest)]
            if name in ("fork", "vfork", "clone", "clone3"):
                self.fork(process, int(result[1]), int(result[4] or result[1]), b"CLONE_THREAD" in rest)
            elif name in ("execve", "execveat"):
                self.execute(process, strings, error)
            elif name == "socket" and result[2] and b"SOCK_DGRAM" in rest and len(self.datagram) < MAX_NUMBERS:
                self.datagram.add(result[2])
            elif name in ("unlink", "unlinkat") and strings and not error:
                self.delete(process, self.DESCRIPTOR.match(rest), strings[0])
            elif name in ("connect", "bind", "sendto", "sendmsg", "sendmmsg"):
                self.reach(process, name, rest, strings, error)

    def born(self, pid: int) -> Process:
        self.births += 1
        self.alive[pid] = process = Process(pid, self.births)
        return process

    def settle(self, process: Process, parent: Process, jail_pid: int) -> None:
        """Now that its parent is known, a process can be said to have done what it did."""
        process.parent, process.jail_pid = parent, jail_pid
        self.jail_pids.add(jail_pid)
        waiting, process.waiting = process.waiting, []
        for name, rest in waiting:
            self.call(process.pid, name, rest)

    def fork(self, parent: Process, jail_pid: int, pid: int, is_thread: bool) -> None:
        if jail_pid <= 0:
            return
        child = self.alive.get(pid) or self.born(pid)
        if is_thread:
            del self.alive[pid]
            self.leaders[pid] = parent.pid
            for name, rest in child.waiting:
                self.call(pid, name, rest)
        elif not child.parent:
            child.program, child.argv, child.own = parent.program, parent.argv, parent.own
            if parent is self.launcher:
                self.main = self.main or child
            self.settle(child, parent, jail_pid)

    def end(self, process: Process, how: str, what: str) -> None:
        process.exit_code, process.signal = (int(what), None) if how == "exited with" else (None, what)
        self.give_up(process)
        del self.alive[process.pid]
        # In a flood of processes only those that did something are kept, so that it hides none of them.
        keep = process.acted or process in (self.launcher, self.main)
        if keep or self.stream.room("process"):
            self.ended.append(process)

    def execute(self, process: Process, strings: list[bytes], error: str | None) -> None:
        program = printable(strings[0]) if strings and strings[0] else "(a file without a name)"
        words = [printable(one)[:1000] for one in strings[1:65]] or [program]
        while sum(map(len, words)) > MAX_COMMAND_CHARS:
            words.pop()
        # As a list, or as the string that a shell gets for its last word.
        twins = {one[:MAX_TWIN_CHARS].decode("latin-1") for one in (b" ".join(strings[1:]), *strings[-1:])}
        if process.vain and process.vain[1] != words:
            self.give_up(process)
        if error:  # PATH is searched: it may be found in the next folder
            process.vain = process.vain or (program, words, twins, error)
            return
        process.vain = None
        self.tell_exec(process, program, words, twins, None)
        if process.fresh and process.own:
            # What pip starts is the package's, a build backend or git say, unless it is pip once more or looks at the
            # system. Descent and the first program decide, by the kernel's account: a package can neither claim to be
            # pip nor turn into it.
            again = program == JAIL_PYTHON and PIP_AGAIN.fullmatch("".join(words[1:2]))
            looks = SYSTEM_LOOK.fullmatch(program) or (
                SYSTEM_LOOK.fullmatch(process.program) and program.startswith(("/usr/", "/bin/"))
            )
            process.own = self.is_pip and bool(process is self.main or again or looks)
        if process is self.main and process.fresh:
            self.main_argv = words
        process.program, process.argv, process.fresh = program, words, False

    def give_up(self, process: Process) -> None:
        vain, process.vain = process.vain, None
        if vain:
            self.tell_exec(process, *vain)

    def tell_exec(self, process: Process, program: str, words: list[str], twins: set[str], error: str | None) -> None:
        place = self.account.place("spawn", process.family, twins)
        by_pool = any(word.startswith("from multiprocessing.") for word in words)  # which spawns by a private call
        self.tell("exec", process, program, not by_pool, [program, *words], place, argv=words, error=error)
        line = " ".join(words)
        self.bait.look("command", line[:200], line.encode(), pid=process.pid, process=line[:300], place=place)

    def reach(self, process: Process, name: str, rest: bytes, strings: list[bytes], error: str | None) -> None:
        fd = self.DESCRIPTOR.match(rest)
        target = "who it was connected to"
        for port, host, abstract, path, raw in self.ADDRESS.findall(rest):
            text = unescaped(host or path or raw)
            if raw:
                if not name.startswith("send") or len(text) < 6:  # a connect with it only ends a connection
                    continue
                port, text = str(int.from_bytes(text[:2])).encode(), socket.inet_ntoa(text[2:6]).encode()
            if port:
                kind = "udp" if fd and fd[1] in self.datagram else "tcp"
                ip = text.decode("ascii", "replace")
                target = f"[{ip}]:{port.decode()}" if ":" in ip else f"{ip}:{port.decode()}"
            else:
                kind, target = "other", f"unix:{abstract.decode()}{printable(text)}"
            if error in ("ENETUNREACH", "EHOSTUNREACH"):  # a thread changed it after strace had read it
                target = target.replace("127.0.0.1:", "changed under way from 127.0.0.1:")
            if target == "127.0.0.1:53":
                self.asker = process
            # The C library asks nscd before it reads /etc/passwd.
            if target in self.passed_over or target == "unix:/var/run/nscd/socket":
                continue
            net = "other" if name == "bind" else kind
            act, is_far = "listen " * (name == "bind") + target, self.stream.is_telling("network", target)
            # Python may have been given a host by name: but only this machine's resolve.
            twins = [target] if is_far and name != "bind" else [target, f":{port.decode()}"]
            place = self.account.place("address", [process.jail_pid], twins)
            self.tell("network", process, act, is_far, [act], place, net=net, error=error)
        if name.startswith("send") and not process.own:
            for data in strings:
                question, answer = nxdomain(data) if data[4:6] == b"\0\1" else NO_QUESTION
                if not answer:
                    self.bait.look("packet to", target, data, pid=process.pid, process=process.title)
                elif len(self.asked) < MAX_EVENTS_PER_KIND:
                    self.asked.setdefault((question, process))

    def delete(self, process: Process, folder: re.Match[bytes] | None, name: bytes) -> None:
        at = unescaped(folder[1]) if folder else b""
        path = printable(os.path.normpath(os.path.join(at, name)))  # noqa: PTH118 - they are bytes
        if not process.own and not (self.is_pip and path.startswith("/tmp/pip-")):  # noqa: S108 - it tidies up
            self.file(path, "deleted", None, pid=process.pid, process=process.title)

    def file(self, path: str, change: str, size_bytes: int | None, **who: Any) -> None:
        if ("file", path, change) not in self.told:
            about = {
                "path": path,
                "change": change,
                "bytes": size_bytes,
                "place": self.account.place("open", [0], [path]),
            }
            if self.stream.emit("file", telling=self.stream.is_telling("file", path), **about, **who):
                self.told.add(("file", path, change))

    def tell(
        self, kind: str, process: Process, target: str, expected: bool, words: list[str], place: str | None, **more: Any
    ) -> None:
        """Tell what a process did: once, and with whether it was hidden from the hook of the Python that it is."""
        key = (kind, process.number, more.get("net"), more.get("error"), *words)
        if key in self.told:
            return
        speaks = is_python(process.program) or not self.account.started.isdisjoint(process.family)
        hidden = expected and speaks and not place and not process.own
        telling = hidden or self.stream.is_telling(kind, " ".join(words))
        about = {"target": target, "pid": process.pid, "process": process.title, "place": place}
        # A requirement by URL leads pip itself astray: nothing but its index is its own to ask.
        own = process.own and (kind == "exec" or not self.stream.is_telling("network", target))
        about |= {"own": own, "witness": ["kernel", "python"] if place else ["kernel"], "hidden": hidden}
        if self.stream.emit(kind, telling=telling, **about, **more):
            process.acted = True
            self.told.add(key)

    def finish(self, questions: dict[str, float]) -> None:
        """Tell what is only known at the end: names that were asked for, processes, Python's loose ends."""
        for process in [*self.alive.values()]:
            if not process.parent:
                self.settle(process, NOBODY, 0)
            self.give_up(process)
        askers: dict[str, list[Process]] = {}
        for name, process in self.asked:
            askers.setdefault(name, []).append(process)
        for name, seen in [*questions.items()]:
            sure = askers.get(name)
            place = self.account.place("name", [0], [name.lower().rstrip(".")])
            expected = bool(sure) and not name.endswith(".arpa")  # which Python asks for by the number
            for process in sure or [self.asker]:
                self.tell("dns", process, name, expected, [name], place, net="dns", seen=seen)
        for process in sorted([*self.ended, *self.alive.values()], key=lambda one: one.number):  # parents come first
            about: dict[str, Any] = {one: getattr(process, one) for one in PROCESS_FIELDS}
            about["own"] |= process is self.main and process.argv is self.main_argv
            self.stream.write("process", ppid=process.parent.pid if process.parent else 0, **about)
        for code in self.account.code.values():  # cut off in the middle
            self.account.tell_code(code)
        for path in self.bait.paths:
            if place := self.account.place("open", [0], [path]):
                self.stream.emit("opened", target=path, place=place)
        if self.left:
            self.stream.emit("left", count=len(self.left), process=self.left[0].title)
        strangers = self.account.pids - self.jail_pids
        if self.launcher and (self.account.malformed or strangers):
            why = f"{self.account.malformed} malformed lines, {len(strangers)} processes that do not exist"
            self.stream.emit("tamper", target="the Python witness", reason=why)


# --- the phase -------------------------------------------------------------------------------------------------------


def run(phase: Phase, stream: Stream) -> dict[str, Any]:
    """Run the phase and write its events; return how it ended. Raises OSError when the machine can't make the jail."""
    begun = time.monotonic()
    threading.stack_size(1 << 20)  # the threads of MAX_CONNECTIONS must fit into MAX_MEMORY_BYTES
    libc.mallopt(M_ARENA_MAX, 1)  # 64 MiB of addresses each
    sys.setswitchinterval(0.0005)  # else each connection waits for the thread that reads the witnesses
    scratch = Scratch(phase, stream)
    cache_fd = os.open(phase.index.cache, os.O_RDONLY | os.O_DIRECTORY) if phase.index else -1
    audit = Path(phase.paths["AUDIT"])
    audit.chmod(0o600)
    audit_fd = os.open(audit, os.O_RDWR | os.O_NONBLOCK)  # our own end for writing keeps it from ending early
    audit.chmod(0o222)  # on a read-only mount: the jail can't read what its other processes said
    lifeline_far, lifeline = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = {name: os.pipe() for name in ("stdout", "stderr", "log", "trace")}
    far_ends = {name: end for name, (_, end) in pipes.items()}
    if os.fork() == 0:
        os.close(lifeline)  # or it would never close
        try:
            ended = keep_jail(phase, theirs, lifeline_far, far_ends)
            theirs.send(json.dumps({"status": ended}).encode())
        except BaseException as error:  # the last frame of a forked child: tell the warden, and never run its code
            theirs.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        finally:
            os._exit(0)
    for fd in (theirs.detach(), *far_ends.values()):  # or they would never end
        os.close(fd)
    drop_privileges(phase)
    before = scratch.snapshot()
    ours.send(b"go")

    message, fds, _, _ = socket.recv_fds(ours, 4096, 3)
    if not fds:
        raise OSError(json.loads(message)["error"])
    sockets = [socket.socket(fileno=fd) for fd in fds]
    bait = Bait(phase.bait, stream)
    questions: dict[str, float] = {}

    def note(name: str) -> None:
        """When a name was first asked for, and whether it carries bait."""
        bait.look("DNS name", name[:200], name.replace(".", "").encode())
        if name not in questions and stream.room("name asked for"):
            questions[name] = time.monotonic()

    serve(answer_datagrams, sockets[0], note)
    serve(answer_streams, sockets[1], note)
    gateway = Gateway(phase.index, stream, bait, cache_fd) if phase.index else None
    if gateway:
        serve(gateway.listen, sockets[2])

    outputs = {name: Output() for name in ("stdout", "stderr", "log")}
    account = Account(stream)
    trace = Trace(phase, stream, account, bait)

    def hear(data: bytes = b"") -> None:
        """Python says what it will do before it does: hear that before what the kernel saw at the same time."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(MAX_READS):
                account.take(os.read(audit_fd, 1 << 16))
        trace.take(data)

    takers: dict[int, Callable[[bytes], None]] = {pipes[name][0]: outputs[name].take for name in outputs}
    takers[pipes["trace"][0]] = hear
    poll = select.poll()
    for fd in (*takers, ours.fileno(), audit_fd):
        poll.register(fd, select.POLLIN)
    look_at_disk = 0.0
    stopped: str | None = None
    status: int | None = None
    while takers or status is None:
        for fd, _ in poll.poll(POLL_SEC * 1000):
            if fd == ours.fileno():
                last = json.loads(ours.recv(4096) or b'{"error": "the keeper of the jail died"}')
                status = last.get("status", 255)
                outputs["log"].take(last.get("error", "").encode())
                poll.unregister(fd)
            elif fd == audit_fd:
                hear()
            elif data := os.read(fd, 1 << 16):
                takers[fd](data)
            else:
                poll.unregister(fd)
                del takers[fd]
        if status is None and not stopped:
            if time.monotonic() - begun > phase.deadline_sec:
                stopped = "timeout"
            elif gateway and gateway.left_bytes < 0:
                stopped = "download_cap"
            elif time.monotonic() > look_at_disk:
                stopped = "disk" if scratch.is_full() else None
                look_at_disk = time.monotonic() + (POLL_SEC if phase.own_disk else WALK_SEC)
            if stopped:
                os.close(lifeline)
    duration_sec = time.monotonic() - begun
    hear()
    trace.finish(questions)
    distribution = tell_files(trace, scratch, before, stopped)
    started = tell_output(trace, outputs)
    exit_code, killed_by = (trace.main.exit_code, trace.main.signal) if trace.main else (status, None)
    reason = None
    if stopped:
        outcome, exit_code, killed_by = stopped, None, None
    elif not started:
        outcome, reason = "error", printable(bytes(outputs["log"].kept[-1000:])) or "the jail did not start"
    else:
        outcome = "ok" if exit_code == 0 else "disk" if scratch.is_full() else "failed"
    if distribution and outcome == "ok":
        stream.write("distribution", **distribution)
    return {
        "outcome": outcome,
        "reason": reason,
        "exit_code": exit_code,
        "signal": killed_by,
        "python_witness": trace.main.jail_pid in account.started if trace.main else bool(account.started),
        "duration_s": round(duration_sec, 3),
        "dropped": dict(+stream.lost),
    }


def where(path: str) -> str:
    """A path of the scratch as the jail sees it."""
    for folder, seen in (("home/", "/home/dev/"), ("tmp/", "/tmp/"), ("shm/", "/dev/shm/")):  # noqa: S108
        if path.startswith(folder):
            return printable(os.fsencode(seen + path[len(folder) :]))
    return printable(os.fsencode(f"/opt/snakehook/work/{path}"))


def tell_files(
    trace: Trace, scratch: Scratch, before: dict[str, tuple[int, int, int]], stopped: str | None
) -> dict[str, Any]:
    """Write what changed in the scratch beyond what the installed distributions list as theirs; return what there is
    to try of the one that is wanted."""
    after = scratch.snapshot()
    listed, distribution = installed(scratch, after) if scratch.phase.distribution else (set(), {})
    for path in sorted({*before, *after}):
        was, is_now, seen = before.get(path), after.get(path), where(path)
        is_read = path not in listed or path.count("/") <= scratch.phase.site.count("/") + 2
        if is_now and was != is_now and is_read and (code := run_at_start(scratch, path)):
            trace.stream.emit("pth", path=seen, place=seen, line=printable(code.encode(errors="replace")))
        if was == is_now or path in listed or (stopped and path.startswith("tmp/pip-")):  # pip had no time to tidy up
            continue
        change = "created" if was is None else "deleted" if is_now is None else "modified"
        trace.file(seen, change, is_now[0] if is_now else None)
        if is_now:
            trace.bait.look("file", seen, scratch.read(path, "file"))
    return distribution


def run_at_start(scratch: Scratch, path: str) -> str:
    """The line of a file that every interpreter runs when it starts; "" when there is none."""
    if re.fullmatch(r".*/(?:site|user)customize(?:/__init__)?\.pyc?", path, re.DOTALL):
        return "the whole file"
    if not path.endswith(".pth"):
        return ""
    lines = scratch.lines(path, ".pth")
    if code := next((one for one in lines if one.startswith(("import ", "import\t"))), ""):
        return code
    return "too long to be looked at" if sum(map(len, lines)) + len(lines) >= MAX_FILE_BYTES else ""


def tell_output(trace: Trace, outputs: dict[str, Output]) -> bool:
    """Write what was printed; whether the launcher said that it is there."""
    stdout = outputs["stdout"]
    started = stdout.kept.startswith(STARTED)
    if started:
        del stdout.kept[: len(STARTED)]
        stdout.total_bytes -= len(STARTED)
    for name in ("stdout", "stderr"):
        output = outputs[name]
        text, is_cut = output.kept.decode("utf-8", "replace"), output.total_bytes > len(output.kept)
        trace.bait.look("output on", name, bytes(output.kept))
        trace.stream.write("output", stream=name, text=text, bytes=output.total_bytes, truncated=is_cut)
    return started


def main() -> None:
    fields = json.loads(sys.stdin.readline())
    index = fields.pop("index")
    phase = Phase(index=Index(**index) if index else None, **fields)
    stream = Stream(phase.telling)
    try:
        end = run(phase, stream)
    except OSError as error:
        end = {"outcome": "error", "reason": f"the jail could not be made: {error}"}
    stream.write("end", **end)


if __name__ == "__main__":
    main()
    os._exit(0)  # the threads that still talk to a dead jail are not waited for
