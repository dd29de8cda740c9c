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
import json
import os
import re
import resource
import select
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

MAX_OUTPUT_BYTES = 1 << 20  # kept of each of stdout and stderr
MAX_TEXT_CHARS = 4096  # of any one string that the jail made, output apart
MAX_EVENTS_PER_KIND = 2000  # a flood of one kind must not push out the others
MAX_PAGE_BYTES = 32 << 20  # one project page of the index
MAX_REQUEST_BYTES = 16 << 10  # request line and headers from the jail
MAX_METADATA_BYTES = 1 << 20  # entry_points.txt and RECORD of the installed distribution
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
JSON_PAGE = "application/vnd.pypi.simple.v1+json"

MAX_TRACE_LINE_BYTES = 4 << 20
MAX_CONTENTS = 100  # changed files that are searched for bait
MAX_CODES = 200  # pieces of generated source
MAX_CODE_BYTES = 64 << 10
MAX_FILES = 200_000  # of the scratch that are looked at
MAX_DEPTH = 100
MAX_REPEATS = 20  # of one and the same act
MAX_TWIN_CHARS = 500  # compared to find what two witnesses say of the same act
STRACE_CALLS = "execve,execveat,fork,vfork,clone,clone3,connect,sendto,sendmsg,sendmmsg,bind,socket,unlink,unlinkat"
STRACE_FLAGS = ["-f", "-q", "--seccomp-bpf", "--decode-pids=pidns", "-xx", "-s", "4096"]
STRACE_FLAGS += ["-e", f"trace={STRACE_CALLS}", "-e", "signal=!SIGCHLD"]

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CAP_SYS_PTRACE = 19

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


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


class Stream:
    """The one way out: JSON lines on stdout, bounded by kind, in the order of a clock that cannot jump."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.epoch = time.time() - time.monotonic()

    def emit(self, kind: str, **fields: Any) -> None:
        """Write an event; texts in `fields` are cut to MAX_TEXT_CHARS unless the kind has a bound of its own."""
        with self.lock:
            self.counts[kind] += 1
            if self.counts[kind] > MAX_EVENTS_PER_KIND:
                return
            if kind not in ("output", "code", "end"):
                fields = {k: v[:MAX_TEXT_CHARS] if isinstance(v, str) else v for k, v in fields.items()}
            line = json.dumps({"kind": kind, "at": round(self.epoch + time.monotonic(), 6), **fields})
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def dropped(self) -> dict[str, int]:
        return {k: n - MAX_EVENTS_PER_KIND for k, n in self.counts.items() if n > MAX_EVENTS_PER_KIND}


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
        *["--", "/opt/snakehook/python/bin/python", "-I", "/opt/snakehook/launch.py", *phase.launch],
    ]


def may_look_into_processes() -> bool:
    """Whether strace, as we are, can read what the jail's user passes to the kernel: in a container it may not.

    If not, it and the jail get a user namespace with all the ids as they are: in there it has SYS_PTRACE, and over
    what is outside no power at all. Else a package could blind it: by a program that can't be read, by a prctl.
    """
    effective = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(effective and int(effective[1], 16) >> CAP_SYS_PTRACE & 1)


def keep_jail(phase: Phase, control: socket.socket, lifeline: int, stdio: list[int], log_fd: int, trace_fd: int) -> int:
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
    for one in sockets:
        one.close()
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
        if own_user:
            check(libc.unshare(CLONE_NEWUSER), "unshare of the user namespace")
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials clears it
            far.close()
            near.send(b"u")
            if not near.recv(1):
                os._exit(1)
        for target, source in enumerate(stdio):
            os.dup2(source, target)
        os.set_inheritable(log_fd, True)
        os.set_inheritable(trace_fd, True)
        os.nice(10)  # whatever runs in the jail, the service and the wardens come first
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))  # the one value that keeps the host's crash helper out
        argv = jail_command(phase, rootless, log_fd, trace_fd)
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
    for fd in (*stdio, log_fd, trace_fd):
        os.close(fd)
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

    def __init__(self, index: Index, stream: Stream, cache_fd: int) -> None:
        self.index, self.stream, self.cache_fd = index, stream, cache_fd
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
                threading.Thread(target=self.converse, args=(connection,), daemon=True).start()
            else:
                self.stream.emit("refused", what="index", target="too many connections")
                connection.close()

    def converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the jail hung up, or was silent: there is nobody to tell
            connection.settimeout(IDLE_SEC)
            while self.answer(connection):
                pass
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


def nxdomain(query: bytes) -> tuple[str, bytes]:
    """The name that `query` asks for and the answer "no such name" (RFC 1035 section 4). Raises ValueError."""
    labels: list[bytes] = []
    at = 12
    while at < len(query) and (length := query[at]):
        if length > 63 or len(labels) > 127:
            raise ValueError("not a plain name")
        labels.append(query[at + 1 : at + 1 + length])
        at += 1 + length
    if len(query) < at + 5:
        raise ValueError("cut short")
    return printable(b".".join(labels)), query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + query[12 : at + 5]


@dataclass(frozen=True)
class Question:
    """A name that the jail asked for, and when."""

    name: str
    seen: float


def record(questions: list[Question], name: str) -> None:
    if len(questions) <= MAX_EVENTS_PER_KIND:
        questions.append(Question(name, time.monotonic()))


def answer_datagrams(server: socket.socket, questions: list[Question]) -> None:
    while True:
        query, client = server.recvfrom(4096)
        try:
            name, answer = nxdomain(query)
        except ValueError:
            record(questions, "(malformed question)")
            continue
        record(questions, name)
        with contextlib.suppress(OSError):  # nobody waits for it any more
            server.sendto(answer, client)


def answer_streams(server: socket.socket, questions: list[Question]) -> None:
    """DNS over TCP (RFC 7766), one question a connection: enough to say no."""
    while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(0.5)
            length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
            name, answer = nxdomain(connection.recv(min(length, 4096), socket.MSG_WAITALL))
            record(questions, name)
            connection.sendall(len(answer).to_bytes(2) + answer)


# --- what the jail leaves --------------------------------------------------------------------------------------------


@dataclass
class Output:
    """The first MAX_OUTPUT_BYTES of a pipe, and how much there was."""

    kept: bytearray = field(default_factory=bytearray)
    total_bytes: int = 0

    def take(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self.kept += data[: MAX_OUTPUT_BYTES - len(self.kept)]


def open_beneath(root_fd: int, path: str) -> int:
    """Open a file or directory of the scratch; no part of `path` may be a link, which could lead to files of ours."""
    fd = os.dup(root_fd)
    for part in path.split("/"):
        try:
            step = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
        finally:
            os.close(fd)
        fd = step
    return fd


def metadata_lines(root_fd: int, path: str) -> list[str]:
    try:
        with open(open_beneath(root_fd, path), "rb") as file:
            return file.read(MAX_METADATA_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:  # absent, or not a file
        return []


SCRIPT = re.compile(r"\s*([\w.-]{1,100})\s*=\s*([A-Za-z_][\w.]{0,200}:[A-Za-z_][\w.]{0,200})\s*(?:\[.*)?", re.ASCII)
MODULE = re.compile(r'"?([A-Za-z_]\w{0,100})(?:/.*)?(?:\.py|\.(?:[\w-]+\.)?so),.*', re.ASCII)


def installed_distribution(scratch_fd: int, site: str, wanted: str) -> dict[str, Any]:
    """The console scripts and top-level modules of the distribution `wanted` (a canonical name), by its own word.

    Those that are named like the distribution come first: they are what a person would try.
    """
    scripts: dict[str, str] = {}
    modules: set[str] = set()
    site_fd = open_beneath(scratch_fd, site)
    for folder in os.listdir(site_fd):
        if not folder.endswith(".dist-info") or canonical(folder.split("-")[0]) != wanted:
            continue
        section = ""
        for line in metadata_lines(site_fd, f"{folder}/entry_points.txt"):
            if line.startswith("["):
                section = line.strip()
            elif section == "[console_scripts]" and (match := SCRIPT.fullmatch(line)):
                scripts[match[1]] = match[2]
        for line in metadata_lines(site_fd, f"{folder}/RECORD"):
            if match := MODULE.fullmatch(line):
                modules.add(match[1])
    os.close(site_fd)

    def rank(name: str) -> tuple[bool, str]:
        return canonical(name) != wanted, name

    return {
        "scripts": [(name, scripts[name]) for name in sorted(scripts, key=rank)],
        "modules": sorted(modules, key=rank),
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- the phase -------------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """A process of the jail as the kernel knows it; `jail_pid` is the number that it knows itself by."""

    pid: int
    ppid: int = 0
    jail_pid: int = 0
    argv: list[str] = field(default_factory=list)
    exit_code: int | None = None
    signal: str | None = None
    acted: bool = False
    origin: list[str] = field(default_factory=list)  # the first program that it was: what whoever started it wanted

    @property
    def title(self) -> str:
        return " ".join(self.argv)[:300]

    @property
    def is_python(self) -> bool:
        return is_python(self.argv)


def is_python(argv: list[str]) -> bool:
    return bool(argv) and argv[0].rpartition("/")[2].startswith("python")


@dataclass
class Act:
    """What the kernel saw a process do: kind (exec, tcp, udp, other, unlink), what to, and when it was read."""

    kind: str
    pid: int
    target: str
    seen: float
    words: list[str] = field(default_factory=list)
    error: str | None = None
    payload: bytes = b""


class Trace:
    """The kernel's account, as strace writes it. The jail can neither see nor forge nor stop it."""

    LINE = re.compile(
        rb"(\d+) +(?:\+\+\+ (exited with|killed by) (\w+).*|<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))", re.DOTALL
    )
    RESULT = re.compile(rb"\) += (-?\d+)(?: (E\w+) \(.*\)| /\* (\d+) in strace's PID NS \*/)?$")
    STRING = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
    ADDRESS = re.compile(
        rb'sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )"((?:\\x..)*)"'
        rb'|sa_family=AF_UNIX, sun_path=(@?)"((?:\\x..)*)"'
    )
    LAUNCHER = "".join(f"\\x{byte:02x}" for byte in b"/opt/snakehook/python/bin/python").encode()

    def __init__(self) -> None:
        self.rest = b""
        self.unfinished: dict[int, bytes] = {}
        self.launcher = self.main = 0  # launch.py, and the child in which it runs the phase
        self.processes: dict[int, Process] = {}
        self.leaders: dict[int, int] = {}  # of threads
        self.datagram: set[tuple[int, bytes]] = set()  # (process, descriptor)
        self.acts: list[Act] = []
        self.counts: Counter[str] = Counter()
        self.repeats: Counter[int] = Counter()

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MAX_TRACE_LINE_BYTES:  # an exec with very many arguments: its start and its end will do
            self.rest = self.rest[: 1 << 16] + self.rest[-4096:]
        for line in lines:
            match = self.LINE.fullmatch(line)
            if not match:
                continue
            pid = int(match[1])
            if match[2]:
                self.end(pid, match[2] == b"killed by", match[3].decode())
            elif match[6] and match[7].endswith(b"<unfinished ...>"):
                self.unfinished[pid] = match[7][:-16]
            else:
                self.call(pid, (match[4] or match[6]).decode(), self.unfinished.pop(pid, b"") + (match[5] or match[7]))

    def end(self, pid: int, killed: bool, how: str) -> None:
        self.leaders.pop(pid, None)
        self.unfinished.pop(pid, None)
        if process := self.processes.get(pid):
            process.exit_code, process.signal = (None, how) if killed else (int(how), None)
            self.counts["process"] += 1
            # In a flood of processes only those that did something are kept, so that it hides none of them.
            keep = process.acted or pid in (self.launcher, self.main)
            if self.counts["process"] > MAX_EVENTS_PER_KIND and not keep:
                del self.processes[pid]

    def call(self, pid: int, name: str, rest: bytes) -> None:
        if not self.launcher:  # nsjail making the jail
            if name == "execve" and rest.startswith(b'"' + self.LAUNCHER + b'"'):
                self.launcher = pid
                self.processes[pid] = Process(pid, 0, 1, ["launch.py"])
            return
        pid = self.leaders.get(pid, pid)
        process = self.process(pid)
        result = self.RESULT.search(rest)
        if not result:
            return
        done, error = int(result[1]), result[2].decode() if result[2] else None
        strings = [bytes.fromhex(one.replace(b"\\x", b"").decode()) for one in self.STRING.findall(rest)]
        if name in ("fork", "vfork", "clone", "clone3"):
            child = int(result[3] or result[1])
            if done > 0 and b"CLONE_THREAD" in rest:
                self.leaders[child] = pid
            elif done > 0:
                new = self.process(child)
                new.ppid, new.jail_pid, new.argv = pid, done, new.argv or list(process.argv)
                if pid == self.launcher:
                    self.main = self.main or child
        elif name in ("execve", "execveat") and strings:
            words = [printable(one)[:1000] for one in strings[1:65]] or [printable(strings[0])]
            if not error:
                process.argv = words
                process.origin = process.origin or words
            self.act(Act("exec", pid, printable(strings[0]), time.monotonic(), words, error))
        elif name == "socket" and done >= 0:
            fd = (pid, result[1])
            (self.datagram.add if b"SOCK_DGRAM" in rest else self.datagram.discard)(fd)
        elif name in ("unlink", "unlinkat") and strings and not error:
            if name == "unlink" or rest.startswith(b"AT_FDCWD"):
                self.act(Act("unlink", pid, printable(strings[0]), time.monotonic()))
        elif address := self.ADDRESS.search(rest):
            self.address(pid, name, rest, address, strings, error)

    def address(
        self, pid: int, name: str, rest: bytes, address: re.Match[bytes], strings: list[bytes], error: str | None
    ) -> None:
        kind = "udp" if (pid, rest.partition(b",")[0]) in self.datagram else "tcp"
        if address[2] is not None:
            host = bytes.fromhex(address[2].replace(b"\\x", b"").decode()).decode("ascii", "replace")
            target = f"[{host}]:{address[1].decode()}" if ":" in host else f"{host}:{address[1].decode()}"
        else:
            path = bytes.fromhex(address[4].replace(b"\\x", b"").decode())
            kind, target = "other", f"unix:{address[3].decode()}{printable(path)}"
        if name == "bind":
            kind, target = "other", f"listen {target}"
        if target != "unix:/var/run/nscd/socket":  # the C library asks there before it reads /etc/passwd
            self.act(
                Act(kind, pid, target, time.monotonic(), [], error, strings[0] if name.startswith("send") else b"")
            )

    def process(self, pid: int) -> Process:
        return self.processes.setdefault(pid, Process(pid))

    def act(self, act: Act) -> None:
        """Keep an act; what is repeated and repeated does not use up the room of what is not."""
        same = hash((act.kind, act.target, *act.words))
        self.repeats[same] += 1
        if self.repeats[same] > MAX_REPEATS or len(self.repeats) > MAX_FILES:
            return
        self.counts[act.kind] += 1
        if self.counts[act.kind] <= MAX_EVENTS_PER_KIND:
            self.process(act.pid).acted = True
            self.acts.append(act)

    def own(self, is_pip: bool) -> set[int]:
        """The launcher, its child and, when that is pip, pip's helpers: their doing is not the package's.

        A Python that pip starts is a build backend, and so the package's, unless it is pip once more. Descent decides,
        and what a process was first, by the kernel's account: a package can neither claim to be pip nor turn into it.
        """
        own = {self.launcher, self.main} if is_pip else {self.launcher}
        for process in self.processes.values() if is_pip else ():  # parents come before children
            again = any(one.endswith("/pip/__pip-runner__.py") for one in process.origin)
            if process.ppid in own and (again or not is_python(process.origin)):
                own.add(process.pid)
        return own


class Account:
    """What the Python witness says, by the pid that each process knows itself by. Never proof."""

    def __init__(self) -> None:
        self.rest = b""
        self.said: dict[tuple[str, int], dict[str, str]] = {}  # (event, pid): subject and first place
        self.anyone: dict[tuple[str, str], str] = {}  # (event, subject): first place
        self.pids: set[int] = set()
        self.code: dict[tuple[int, int], dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.malformed = 0

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[-MAX_TEXT_CHARS:]
        for line in lines:
            try:
                said = json.loads(line)
                event, pid = str(said["event"]), int(said["pid"])
                if event == "code":
                    self.piece(pid, int(said["id"]), said)
                elif event not in ("start", "spawn", "address", "name", "change", "open"):
                    raise ValueError(event)
                else:
                    self.line(event, pid, text(said.get("what")), text(said.get("at")))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
                self.malformed += 1

    def line(self, event: str, pid: int, what: str, at: str) -> None:
        what = what[:MAX_TWIN_CHARS]
        known = self.said.get((event, pid), {})
        if what in known:
            return
        self.counts[event] += 1
        if self.counts[event] <= MAX_EVENTS_PER_KIND:
            self.said.setdefault((event, pid), {})[what] = at
            self.anyone.setdefault((event, what), at)
            self.pids.add(pid)

    def piece(self, pid: int, number: int, said: dict[str, Any]) -> None:
        if "at" in said and (pid, number) not in self.code:
            self.counts["code"] += 1
            if self.counts["code"] <= MAX_CODES:
                whole = {
                    "at": text(said["at"]),
                    "bytes": int(said["bytes"]),
                    "decoded": said["decoded"] is True,
                    "pid": pid,
                }
                self.code[pid, number] = {**whole, "source": b""}
        if (code := self.code.get((pid, number))) and len(code["source"]) < MAX_CODE_BYTES:
            code["source"] += bytes.fromhex(said["text"])[:MAX_CODE_BYTES]

    def twin(self, jail_pids: set[int], event: str, fits: Callable[[str], bool]) -> str | None:
        """The place that one of `jail_pids` gives for the first subject that `fits`."""
        for pid in jail_pids:
            for what, at in self.said.get((event, pid), {}).items():
                if fits(what):
                    return at
        return None


def text(value: Any) -> str:
    """A value of the Python witness as printable text of bounded length."""
    if isinstance(value, list):
        return " ".join(text(one) for one in value[:64])[:MAX_TEXT_CHARS]
    return printable(str(value).encode("utf-8", "backslashreplace")[:MAX_TEXT_CHARS])


def snapshot(scratch_fd: int) -> dict[str, tuple[int, int, int, int]]:
    """Every file of the scratch: its size, inode, change time (which nobody in the jail can set), space."""
    found: dict[str, tuple[int, int, int, int]] = {}
    folders = [""]
    while folders and len(found) < MAX_FILES:
        folder = folders.pop()
        try:
            fd = open_beneath(scratch_fd, folder.rstrip("/") or ".")
        except OSError:  # its permission was taken away, or its path is longer than the kernel takes
            found[folder] = (0, 0, -1, 0)
            continue
        with contextlib.closing(os.scandir(fd)) as entries:
            for entry in entries:
                path = folder + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if path.count("/") < MAX_DEPTH:
                        folders.append(path + "/")
                else:
                    try:
                        about = entry.stat(follow_symlinks=False)
                    except OSError:  # gone while we look, in a phase that goes on
                        continue
                    found[path] = (about.st_size, about.st_ino, about.st_ctime_ns, about.st_blocks * 512)
        os.close(fd)
    return found


def run(phase: Phase, stream: Stream) -> None:
    """Run the phase and write its events. Raises OSError when the machine can't make the jail."""
    begun = time.monotonic()
    sys.setswitchinterval(0.0005)  # else each connection waits for the thread that reads the witnesses
    scratch_fd = os.open(phase.paths["SCRATCH"], os.O_RDONLY | os.O_DIRECTORY)
    cache_fd = os.open(phase.index.cache, os.O_RDONLY | os.O_DIRECTORY) if phase.index else -1
    audit = Path(phase.paths["AUDIT"])
    audit.chmod(0o600)
    audit_fd = os.open(audit, os.O_RDWR | os.O_NONBLOCK)  # our own end for writing keeps it from ending early
    audit.chmod(0o222)  # on a read-only mount: the jail can't read what its other processes said
    lifeline_far, lifeline = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = {name: os.pipe() for name in ("stdout", "stderr", "log", "trace")}
    if os.fork() == 0:
        os.close(lifeline)  # or it would never close
        far = {name: end for name, (_, end) in pipes.items()}
        stdio = [os.open(os.devnull, os.O_RDONLY), far["stdout"], far["stderr"]]
        try:
            ended = keep_jail(phase, theirs, lifeline_far, stdio, far["log"], far["trace"])
            theirs.send(json.dumps({"status": ended}).encode())
        except BaseException as error:  # the last frame of a forked child: tell the warden, and never run its code
            theirs.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        finally:
            os._exit(0)
    os.close(lifeline_far)
    theirs.close()
    for _, end in pipes.values():
        os.close(end)
    drop_privileges(phase)
    before = snapshot(scratch_fd)
    ours.send(b"go")

    message, fds, _, _ = socket.recv_fds(ours, 4096, 3)
    if not fds:
        raise OSError(json.loads(message)["error"])
    sockets = [socket.socket(fileno=fd) for fd in fds]
    questions: list[Question] = []
    serve(answer_datagrams, sockets[0], questions)
    serve(answer_streams, sockets[1], questions)
    gateway = Gateway(phase.index, stream, cache_fd) if phase.index else None
    if gateway:
        serve(gateway.listen, sockets[2])

    outputs = {name: Output() for name in ("stdout", "stderr", "log")}
    trace, account = Trace(), Account()
    poll = select.poll()
    takers: dict[int, Callable[[bytes], None]] = {pipes[name][0]: outputs[name].take for name in outputs}
    takers[pipes["trace"][0]] = trace.take
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
                account.take(os.read(fd, 1 << 16))
            elif data := os.read(fd, 1 << 16):
                takers[fd](data)
            else:
                poll.unregister(fd)
                del takers[fd]
        if status is None and not stopped:
            stopped = reason_to_stop(phase, begun, gateway)
            if not stopped and time.monotonic() > look_at_disk:
                stopped = "disk" if is_full(phase, scratch_fd) else None
                look_at_disk = time.monotonic() + (POLL_SEC if phase.own_disk else WALK_SEC)
            if stopped:
                os.close(lifeline)
    with contextlib.suppress(BlockingIOError):
        while data := os.read(audit_fd, 1 << 16):
            account.take(data)
    duration_sec = time.monotonic() - begun
    merge(phase, stream, trace, account, questions)
    contents = tell_files(phase, stopped is not None, stream, trace, account, before, scratch_fd)
    tell_leaks(phase, stream, trace, account, questions, outputs, contents)
    finish(phase, stream, outputs, trace, stopped, status, scratch_fd, duration_sec)


def serve(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def reason_to_stop(phase: Phase, begun: float, gateway: Gateway | None) -> str | None:
    if time.monotonic() - begun > phase.deadline_sec:
        return "timeout"
    if gateway and gateway.left_bytes < 0:
        return "download_cap"
    return None


def is_full(phase: Phase, scratch_fd: int) -> bool:
    """Whether the run took more disk than it may. A disk of its own is somewhat larger than that, and so never full
    before this is seen: a package that tidies up in time would hide that its disk was full."""
    if phase.own_disk:
        disk = os.fstatvfs(scratch_fd)
        used_bytes, files = (disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_files - disk.f_ffree
    else:
        found = snapshot(scratch_fd)
        used_bytes, files = sum(one[3] for one in found.values()), len(found)
    return used_bytes > phase.max_disk_bytes or files > phase.max_files


# --- merging the witnesses -------------------------------------------------------------------------------------------


def merge(phase: Phase, stream: Stream, trace: Trace, account: Account, questions: list[Question]) -> None:
    """Write what was done, each with who did it, where, and which witness saw it.

    What a Python did by the kernel's account, but not by its own, was hidden from the hook.
    """
    own = trace.own(phase.launch[0] == "pip")
    known = {one.jail_pid for one in trace.processes.values()}
    started = {pid for event, pid in account.said if event == "start"}
    hidden: set[tuple[int, str]] = set()

    def tell(kind: str, act: Act, twin: str | None, expected: bool, **more: Any) -> None:
        process = trace.processes[act.pid]
        witness = ["kernel", "python"] if twin else ["kernel"]
        about = {"target": act.target, "pid": act.pid, "process": process.title, "place": twin}
        stream.emit(kind, **about, own=act.pid in own, witness=witness, **more)
        if expected and not twin and act.pid not in own and (act.pid, act.kind) not in hidden:
            hidden.add((act.pid, act.kind))
            stream.emit("hidden", **about, what=act.kind)

    def pythons(pid: int) -> set[int]:
        """The jail's numbers for `pid` and its parent, as far as they are Pythons."""
        process = trace.processes[pid]
        family = [process, *([trace.processes[process.ppid]] if process.ppid in trace.processes else [])]
        return {one.jail_pid for one in family if one.is_python or one.jail_pid in started}

    for process in trace.processes.values():
        stream.emit(
            "process",
            pid=process.pid,
            ppid=process.ppid,
            argv=[word[:1000] for word in process.argv[:64]],
            exit_code=process.exit_code,
            signal=process.signal,
            own=process.pid in own or (process.pid == trace.main and process.argv == process.origin),
        )
    names = {what.lower().rstrip("."): at for (event, what), at in account.anyone.items() if event == "name"}
    asked = [act for act in trace.acts if act.target == "127.0.0.1:53" and act.kind == "udp"]
    told: set[tuple[str, int, str]] = set()
    for question in questions:
        near = min(asked, key=lambda act: abs(act.seen - question.seen), default=None)
        twin = names.get(question.name.lower())
        if near and ("dns", near.pid, question.name) not in told:
            told.add(("dns", near.pid, question.name))
            tell("dns", replace(near, target=question.name), twin, trace.processes[near.pid].is_python)
        elif not near and ("dns", 0, question.name) not in told:
            told.add(("dns", 0, question.name))
            stream.emit("dns", target=question.name, pid=0, process="", place=None, own=False, witness=["kernel"])
    for act in trace.acts:
        actor = trace.processes[act.pid]
        mine = {actor.jail_pid}
        if act.kind == "exec":
            family = pythons(act.pid)
            # As a list, or as the string that a shell gets for its last word.
            asked_for = {" ".join(act.words)[:MAX_TWIN_CHARS], act.words[-1][:MAX_TWIN_CHARS]}
            twin = account.twin(family, "spawn", lambda what: what[:MAX_TWIN_CHARS] in asked_for)  # noqa: B023
            by_pool = any("multiprocessing" in word for word in act.words)  # which spawns by a private call
            by_pip = actor.ppid in own  # a build backend, started
            key = ("exec", act.pid if not act.error else actor.ppid, " ".join(act.words))
            if key not in told and not by_pip:
                told.add(key)
                tell("exec", act, twin, bool(family) and not by_pool, argv=act.words, error=act.error)
        elif act.kind in ("tcp", "udp", "other"):
            gateway = act.target == f"127.0.0.1:{INDEX_PORT}" and phase.index
            if act in asked or gateway or (act.kind, act.pid, act.target) in told:
                continue
            told.add((act.kind, act.pid, act.target))
            host, _, port = act.target.rpartition(":")
            words = [host.removeprefix("listen ").strip("[]"), port] if act.kind != "other" or port.isdigit() else []
            twin = account.twin(mine, "address", lambda what: all(word in what for word in words))  # noqa: B023
            tell("network", act, twin, actor.is_python or actor.jail_pid in started, net=act.kind, error=act.error)
    for name in phase.bait:
        path = name.replace("~", "/home/dev", 1)
        if twin := account.anyone.get(("open", path)):
            stream.emit("opened", target=path, place=twin)
    for code in account.code.values():
        source = code["source"][:MAX_CODE_BYTES]
        about = {"sha256": hashlib.sha256(source).hexdigest(), "bytes": code["bytes"], "place": code["at"]}
        stream.emit("code", **about, decoded=code["decoded"], text=source.decode("utf-8", "replace"))
    strangers = account.pids - known if trace.counts["process"] <= MAX_EVENTS_PER_KIND else set()
    if phase.strace and (account.malformed or strangers):
        why = f"{account.malformed} malformed lines, {len(strangers)} processes that do not exist"
        stream.emit("tamper", target="the Python witness", reason=why)
    lost = {**trace.counts, **account.counts}
    for kind, count in lost.items():
        if count > MAX_EVENTS_PER_KIND or (kind == "code" and count > MAX_CODES):
            stream.emit("flood", target=kind, count=count)
    stream.emit("witness", python=trace.processes[trace.main].jail_pid in started if trace.main else bool(started))


def where(path: str, phase: Phase) -> str:
    """A path of the scratch as the jail sees it."""
    for folder, seen in (("home/", "/home/dev/"), ("tmp/", "/tmp/"), ("shm/", "/dev/shm/")):  # noqa: S108
        if path.startswith(folder):
            return seen + path[len(folder) :]
    return "/opt/snakehook/work/" + path


def tell_files(
    phase: Phase,
    stopped: bool,
    stream: Stream,
    trace: Trace,
    account: Account,
    before: dict[str, tuple[int, int, int, int]],
    scratch_fd: int,
) -> list[tuple[str, bytes]]:
    """Write what changed in the scratch beyond what the installed distributions list as theirs.

    Returns the first of the changed files with the start of their contents.
    """
    after = snapshot(scratch_fd)
    listed = installed_files(scratch_fd, phase.site) if phase.distribution else set()
    contents: list[tuple[str, bytes]] = []
    for path in sorted({*before, *after}):
        was, is_now = before.get(path), after.get(path)
        if was == is_now or path in listed or (stopped and path.startswith("tmp/pip-")):  # pip had no time to tidy up
            continue
        change = "created" if was is None else "deleted" if is_now is None else "modified"
        seen = printable(where(path, phase).encode(errors="surrogateescape"))
        twin = account.anyone.get(("open", seen))
        stream.emit("file", path=seen, change=change, bytes=is_now[0] if is_now else None, place=twin)
        if path.endswith(".pth") and is_now:
            tell_pth(stream, scratch_fd, path, seen)
        if is_now and len(contents) < MAX_CONTENTS:
            contents.append((f"file {seen}", "\n".join(metadata_lines(scratch_fd, path)).encode()))
    own = trace.own(phase.launch[0] == "pip")
    for act in trace.acts:
        if act.kind == "unlink" and act.pid not in own and "/pip-" not in act.target:
            stream.emit("file", path=act.target, change="deleted", bytes=None, place=None)
    for path in sorted(listed):
        if path.endswith(".pth") and path.count("/") == phase.site.count("/") + 1:
            tell_pth(stream, scratch_fd, path, where(path, phase))
    return contents


def tell_pth(stream: Stream, scratch_fd: int, path: str, seen: str) -> None:
    """Write what changed in the scratch beyond what the installed distributions list as theirs; the start of each."""
    for line in metadata_lines(scratch_fd, path):
        if line.startswith(("import ", "import\t")):
            stream.emit("pth", path=seen, line=printable(line.encode(errors="replace")))
            return


def installed_files(scratch_fd: int, site: str) -> set[str]:
    """Every path that a RECORD in `site` lists, and what pip itself leaves there."""
    listed: set[str] = set()
    try:
        site_fd = open_beneath(scratch_fd, site)
    except OSError:
        return listed
    for folder in os.listdir(site_fd):
        if folder.endswith(".dist-info"):
            own = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
            listed |= {f"{site}/{folder}/{name}" for name in own}
            for line in metadata_lines(site_fd, f"{folder}/RECORD"):
                listed.add(f"{site}/" + line.rsplit(",", 2)[0].strip('"').removeprefix("../../"))
    os.close(site_fd)
    return listed


def tell_leaks(
    phase: Phase,
    stream: Stream,
    trace: Trace,
    account: Account,
    questions: list[Question],
    outputs: dict[str, Output],
    contents: list[tuple[str, bytes]],
) -> None:
    """Where the bait's values turn up again, as they are or in the encodings that thieves use."""
    places = [
        (f"command: {' '.join(act.words)[:200]}", " ".join(act.words).encode()) for act in trace.acts if act.words
    ]
    places += [(f"packet to {act.target}", act.payload) for act in trace.acts if act.payload]
    places += [(f"DNS name {one.name[:200]}", one.name.replace(".", "").encode()) for one in questions]
    places += contents
    places += [(name, bytes(output.kept)) for name, output in outputs.items() if name != "log"]
    places += [(f"generated code at {code['at']}", code["source"]) for code in account.code.values()]
    for name, value in phase.bait.items():
        forms = disguises(value)
        for place, data in places:
            if any(form in data for form in forms):
                stream.emit("leak", target=name, reason=place)
                break


def disguises(value: str) -> list[bytes]:
    """`value` as plain text, reversed, hex, base32, and what its base64 is at each of its three offsets."""
    plain = value.encode()
    forms = [plain, plain[::-1], plain.hex().encode(), plain.hex().upper().encode()]
    in_32 = base64.b32encode(plain).rstrip(b"=")[:-1]
    forms += [in_32, in_32.lower()]
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + plain)
        core = coded[(offset * 4 + 2) // 3 :].rstrip(b"=")[:-2]
        forms += [core, core.replace(b"+", b"-").replace(b"/", b"_")]
    return forms


def finish(
    phase: Phase,
    stream: Stream,
    outputs: dict[str, Output],
    trace: Trace,
    stopped: str | None,
    status: int,
    scratch_fd: int,
    duration_sec: float,
) -> None:
    """Write what is known when the jail is gone: its output, what it installed, and how it ended."""
    stdout = outputs["stdout"]
    started = stdout.kept.startswith(STARTED)
    if started:
        del stdout.kept[: len(STARTED)]
        stdout.total_bytes -= len(STARTED)
    for name in ("stdout", "stderr"):
        output = outputs[name]
        stream.emit(
            "output",
            stream=name,
            text=output.kept.decode("utf-8", "replace"),
            bytes=output.total_bytes,
            truncated=output.total_bytes > len(output.kept),
        )
    main = trace.processes.get(trace.main, Process(0))
    exit_code, killed_by = main.exit_code, main.signal
    if not trace.main and status >= 0:
        exit_code = status
    reason = None
    if stopped:
        outcome, exit_code, killed_by = stopped, None, None
    elif not started:
        outcome, reason = "error", printable(bytes(outputs["log"].kept[-1000:])) or "the jail did not start"
    else:
        outcome = "ok" if exit_code == 0 else "disk" if is_full(phase, scratch_fd) else "failed"
    if phase.distribution and outcome == "ok":
        with contextlib.suppress(OSError):  # the package took it away again
            stream.emit("distribution", **installed_distribution(scratch_fd, phase.site, phase.distribution))
    end = {"outcome": outcome, "reason": reason, "exit_code": exit_code, "signal": killed_by}
    stream.emit("end", **end, duration_s=round(duration_sec, 3), dropped=stream.dropped())


def main() -> None:
    fields = json.loads(sys.stdin.readline())
    index = fields.pop("index")
    stream = Stream()
    try:
        run(Phase(index=Index(**index) if index else None, **fields), stream)
    except OSError as error:
        reason = f"the jail could not be made: {error}"
        stream.emit("end", outcome="error", reason=reason, exit_code=None, signal=None, duration_s=0.0, dropped={})


if __name__ == "__main__":
    main()
    os._exit(0)  # the threads that still talk to a dead jail are not waited for
