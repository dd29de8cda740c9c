"""The warden of one phase: trusted, outside the jail, between the service and the package.

It reads the phase's description (one JSON object) from stdin, makes a network and a process namespace whose only
way out is itself, starts the jail in them, gives up its privileges, and only then reads what the jail makes: requests
to the package index, DNS questions, output, files. It writes one JSON object a line to stdout, each bounded, the last
one with "kind": "end". If it dies, the jail dies; if the service dies, it dies.
"""

import codecs
import contextlib
import ctypes
import fcntl
import hashlib
import http.client
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

MAX_OUTPUT_BYTES = 1 << 20  # kept of each of stdout and stderr
MAX_TEXT_CHARS = 4096  # of any one string that the jail made, output apart
MAX_EVENTS_PER_KIND = 2000  # a flood of one kind must not push out the others
MAX_PAGE_BYTES = 64 << 20  # one project page of the index
MAX_REQUEST_BYTES = 16 << 10  # request line and headers from the jail
MAX_METADATA_BYTES = 1 << 20  # entry_points.txt and RECORD of the installed distribution
MAX_CONNECTIONS = 32  # served at once to the jail; more are closed at once
MAX_REDIRECTS = 5
MAX_MEMORY_BYTES = 1 << 30  # of the warden itself
IDLE_SEC = 60.0  # a silent connection, either way
UPSTREAM_TIMEOUT_SEC = 15.0
POLL_SEC = 0.05  # how stale a look at the disk may be
INDEX_PORT = 3141
STARTED = b"snakehook: jail ready\n"  # launch.py's first line: from here on the package may have had its say
LAZY_CODECS = ("ascii", "idna", "latin-1", "unicode_escape")
JSON_PAGE = "application/vnd.pypi.simple.v1+json"

STRACE_FLAGS = ["-f", "-q", "--seccomp-bpf", "-xx", "-s", "4096", "-e", "trace=execve,execveat,fork,vfork,clone"]

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Index:
    """The upstream package index. `hosts` are all that may be asked, its own included; `max_bytes` what the run may load."""

    url: str
    hosts: list[str]
    denylist: list[str]
    max_bytes: int


@dataclass(frozen=True)
class Phase:
    """What the service asks for. Ids are those of the jail's user; a `cgroups` entry is a directory to join."""

    launch: list[str]
    nsjail: str
    strace: str | None
    config: str
    chroot: str
    python: str
    base: str
    jail: str
    scratch: str
    own_disk: bool
    cache: str
    environment: dict[str, str]
    privileged: bool
    user: int
    group: int
    new_user: bool
    deadline_sec: float
    rlimits: dict[str, int]
    cgroups: list[str]
    index: Index | None
    distribution: str | None
    site: str


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
            if kind not in ("output", "end"):
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
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM)]
    if serve_index:
        sockets.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    for one, port in zip(sockets, (53, 53, INDEX_PORT), strict=False):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
        if one.type == socket.SOCK_STREAM:
            one.listen(128)
    return sockets


def jail_command(phase: Phase, log_fd: int, trace_fd: int) -> list[str]:
    """The kernel witness, the sandbox, the launcher: strace ... nsjail ... launch.py ..."""
    if phase.privileged and not phase.new_user:
        ids = ["--disable_clone_newuser", "--user", str(phase.user), "--group", str(phase.group)]
    else:
        outside = (phase.user, phase.group) if phase.privileged else (0, 0)  # rootless, the namespace has the id 0 only
        ids = ["--user", f"{phase.user}:{outside[0]}:1", "--group", f"{phase.group}:{outside[1]}:1"]
    return [
        *([phase.strace, *STRACE_FLAGS, "-o", f"/proc/self/fd/{trace_fd}"] if phase.strace else []),
        *[phase.nsjail, "--config", phase.config, "--log_fd", str(log_fd), *ids],
        *(["--chroot", phase.chroot] if phase.chroot else []),
        *["--time_limit", str(int(phase.deadline_sec) + 5)],
        *[word for name, value in phase.rlimits.items() for word in (f"--rlimit_{name}", str(value))],
        *[word for name, value in phase.environment.items() for word in ("--env", f"{name}={value}")],
        *["--", "/opt/snakehook/python/bin/python", "-I", "/opt/snakehook/launch.py", *phase.launch],
    ]


def keep_jail(phase: Phase, control: socket.socket, lifeline: int, stdio: list[int], log_fd: int, trace_fd: int) -> int:
    """Make the namespaces, hand over their sockets, run the jail, and end it when `lifeline` closes: return its status.

    This process keeps the privilege to kill the jail; the warden, which parses what the jail says, must not have it.
    A parent-death signal would not do: the kernel refuses it when an unprivileged parent leaves a root child.
    """
    enter_namespaces(not phase.privileged)
    sockets = open_network(phase.index is not None)
    socket.send_fds(control, [b"s"], [one.fileno() for one in sockets])
    for one in sockets:
        one.close()
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        check(libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None), "mounting /proc")
        for cgroup in phase.cgroups:
            Path(cgroup, "cgroup.procs").write_text("0")
        for target, source in enumerate(stdio):
            os.dup2(source, target)
        os.set_inheritable(log_fd, True)
        os.set_inheritable(trace_fd, True)
        argv = jail_command(phase, log_fd, trace_fd)
        paths = {"SCRATCH": phase.scratch, "PYTHON": phase.python, "BASE": phase.base, "JAIL": phase.jail}
        os.execve(argv[0], argv, {f"SNAKEHOOK_{name}": path for name, path in paths.items()})
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
    if phase.privileged:
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

    REQUEST = re.compile(
        rb"GET /(?:simple/(?P<project>[a-z0-9-]{1,200})/"
        rb"|files/(?P<sha256>[0-9a-f]{64})/(?P<file>[A-Za-z0-9._+!-]{1,255})) HTTP/1\.1"
    )
    FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!-]{0,250}", re.ASCII)
    SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

    def __init__(self, index: Index, stream: Stream, cache_fd: int) -> None:
        self.index, self.stream, self.cache_fd = index, stream, cache_fd
        self.places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.lock = threading.Lock()
        self.spent_bytes = 0
        self.exhausted = threading.Event()
        self.known: dict[tuple[str, str], tuple[str, str]] = {}  # (sha256 in link, name): (URL, sha256)
        self.local = threading.local()  # .upstream: idle connections by host
        self.tls = ssl.create_default_context()

    def listen(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            if self.places.acquire(blocking=False):
                threading.Thread(target=self.converse, args=(connection,), daemon=True).start()
            else:
                self.stream.emit("refused", what="index", target="too many connections")
                connection.close()

    def converse(self, connection: socket.socket) -> None:
        self.local.upstream = {}
        try:
            with connection:
                connection.settimeout(IDLE_SEC)
                while self.answer(connection):
                    pass
        except OSError:
            pass  # the jail hung up, or said nothing for long; there is nobody to tell
        finally:
            for upstream in self.local.upstream.values():
                upstream.close()
            self.places.release()

    def answer(self, connection: socket.socket) -> bool:
        """Answer one request; whether the connection may carry another."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(MAX_REQUEST_BYTES)
            head += data
            if not data or len(head) > MAX_REQUEST_BYTES:
                break
        if not head:
            return False
        try:
            line, _, headers = head.partition(b"\r\n")
            match = self.REQUEST.fullmatch(line)
            if not match or not headers.endswith(b"\r\n\r\n"):  # other methods, queries, bodies, headers without end
                raise Refused(400, "not a plain GET of a project page or one of its files")
            if match["project"]:
                page = self.page(match["project"].decode())
                send_head(connection, 200, len(page), JSON_PAGE)
                connection.sendall(page)
            else:
                with self.file(match["sha256"].decode(), match["file"].decode()) as file:
                    send_head(connection, 200, os.fstat(file.fileno()).st_size, "application/octet-stream")
                    connection.sendfile(file)
            return True
        except Refused as refused:
            self.stream.emit("refused", what="index", target=printable(line), reason=str(refused))
            send_head(connection, refused.status, 0, "text/plain")
            return False

    def spend(self, count: int) -> None:
        with self.lock:
            self.spent_bytes += count
            if self.spent_bytes > self.index.max_bytes:
                self.exhausted.set()
                raise Refused(403, "the run's download limit is spent")

    def page(self, project: str) -> bytes:
        """The project's page with every link turned to this gateway.

        Raises Refused for a project on the denylist, one that the index doesn't have, or a page that is no such page.
        """
        if project in self.index.denylist:
            self.stream.emit("denied", project=project)
            raise Refused(403, "the project is on the denylist")
        url = f"{self.index.url}/{project}/"
        try:
            data = b"".join(self.fetch(url, JSON_PAGE, MAX_PAGE_BYTES))
            files = [self.entry(url, one) for one in json.loads(data)["files"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Refused(502, f"no JSON project page (PEP 691): {type(error).__name__}") from error
        page = {"meta": {"api-version": "1.0"}, "name": project, "files": [one for one in files if one]}
        return json.dumps(page).encode()

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
        file = self.cached(digest)
        from_cache = file is not None
        if file is None:
            file = self.download(url, digest)
        size = os.fstat(file.fileno()).st_size
        if from_cache:
            self.spend(size)
        if not name.endswith(".metadata"):
            self.stream.emit("download", file=name, bytes=size, sha256=digest, from_cache=from_cache)
        return file

    def cached(self, digest: str) -> BinaryIO | None:
        try:
            file = open(digest, "rb", opener=self.in_cache)
        except OSError:
            return None
        if hashlib.file_digest(file, "sha256").hexdigest() == digest:  # never trust what lay on a disk
            file.seek(0)
            return file
        file.close()
        return None

    def in_cache(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=self.cache_fd)

    def download(self, url: str, digest: str) -> BinaryIO:
        """Fetch into a nameless file, verify, then keep it by its hash. A wrong hash is Refused and leaves nothing."""
        partial = f".{digest}.{os.getpid()}.{threading.get_ident()}"
        sha256 = hashlib.sha256()
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(open(partial, "x+b", opener=self.in_cache))
            undo.callback(os.unlink, partial, dir_fd=self.cache_fd)
            for block in self.fetch(url, "application/octet-stream", self.index.max_bytes):
                sha256.update(block)
                file.write(block)
            if sha256.hexdigest() != digest:
                raise Refused(502, f"the file's sha256 is {sha256.hexdigest()}, not the one that the index names")
            file.flush()
            os.rename(partial, digest, src_dir_fd=self.cache_fd, dst_dir_fd=self.cache_fd)
            undo.pop_all()
        file.seek(0)
        return file

    def allowed(self, url: str) -> bool:
        parts, own = urlsplit(url), urlsplit(self.index.url)
        return parts.netloc in self.index.hosts and parts.scheme in ("https", own.scheme)

    def fetch(self, url: str, accept: str, limit_bytes: int) -> Iterator[bytes]:
        """The body of `url`, block by block, redirects followed among the allowed hosts only. Raises Refused."""
        for _ in range(MAX_REDIRECTS + 1):
            if not self.allowed(url):
                raise Refused(403, f"a redirect to another host: {printable(url.encode(errors='replace'))}")
            netloc = urlsplit(url).netloc
            try:
                connection, response = self.request(url, accept)
                try:
                    if response.status == 200:
                        while block := response.read(1 << 16):
                            limit_bytes -= len(block)
                            if limit_bytes < 0:
                                raise Refused(502, "the index's answer is too large")
                            self.spend(len(block))
                            yield block
                        self.local.upstream[netloc] = connection
                finally:
                    if netloc not in self.local.upstream:
                        connection.close()
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Refused(502, f"{netloc} can't be reached: {error}") from error
            if response.status == 200:
                return
            if response.status not in (301, 302, 303, 307, 308):
                raise Refused(404 if response.status == 404 else 502, f"the index answered {response.status}")
            url = urljoin(url, response.headers.get("Location", ""))
        raise Refused(502, "the index redirects without end")

    def request(self, url: str, accept: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {"Accept": accept, "User-Agent": "snakehook"}
        connection = self.local.upstream.pop(parts.netloc, None)
        if connection is not None:
            try:
                connection.request("GET", target, headers=headers)
                return connection, connection.getresponse()
            except (OSError, http.client.HTTPException):
                connection.close()  # the far end closed it while it lay idle
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.netloc, timeout=UPSTREAM_TIMEOUT_SEC, context=self.tls)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=UPSTREAM_TIMEOUT_SEC)
        connection.request("GET", target, headers=headers)
        return connection, connection.getresponse()


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


def answer_datagrams(server: socket.socket, stream: Stream) -> None:
    while True:
        query, client = server.recvfrom(4096)
        try:
            name, answer = nxdomain(query)
        except ValueError:
            stream.emit("dns", target="", reason="malformed question", over="udp")
            continue
        stream.emit("dns", target=name, over="udp")
        with contextlib.suppress(OSError):  # nobody waits for it any more
            server.sendto(answer, client)


def answer_streams(server: socket.socket, stream: Stream) -> None:
    """DNS over TCP (RFC 7766), one question a connection: enough to say no."""
    while True:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(0.5)
            length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
            name, answer = nxdomain(connection.recv(min(length, 4096), socket.MSG_WAITALL))
            stream.emit("dns", target=name, over="tcp")
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


class Trace:
    """What strace writes: who was started by whom, and how it ended. The jail can neither see nor forge it."""

    LINE = re.compile(rb"(\d+) (?:\+\+\+ (exited with|killed by) (\w+).*|(?:<\.\.\. )?(\w+)(.*))")
    RESULT = re.compile(rb".*\) += (-?\d+)")

    def __init__(self) -> None:
        self.rest = b""
        self.launcher = self.main = 0  # launch.py, and the child in which it runs the phase
        self.exit_code: int | None = None
        self.signal: str | None = None

    def take(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.line(line)

    def line(self, line: bytes) -> None:
        match = self.LINE.fullmatch(line)
        if not match:
            return
        pid = int(match[1])
        if match[2]:
            if pid == self.main and match[2] == b"killed by":
                self.signal = match[3].decode()
            elif pid == self.main:
                self.exit_code = int(match[3])
        elif match[4] in (b"execve", b"execveat"):
            if not self.launcher and LAUNCHER in match[5]:
                self.launcher = pid
        elif pid == self.launcher and not self.main and (result := self.RESULT.match(match[5])):
            self.main = int(result[1])


LAUNCHER = "".join(f"\\x{byte:02x}" for byte in b"/opt/snakehook/launch.py").encode()


def run(phase: Phase, stream: Stream) -> None:
    """Run the phase and write its events. Raises OSError when the machine can't make the jail."""
    begun = time.monotonic()
    scratch_fd = os.open(phase.scratch, os.O_RDONLY | os.O_DIRECTORY)
    cache_fd = os.open(phase.cache, os.O_RDONLY | os.O_DIRECTORY) if phase.index else -1
    lifeline_far, lifeline = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = {name: os.pipe() for name in ("stdout", "stderr", "log", "trace")}
    if os.fork() == 0:
        for fd in (lifeline, scratch_fd, cache_fd, ours.fileno(), *(near for near, _ in pipes.values())):
            if fd >= 0:
                os.close(fd)
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

    message, fds, _, _ = socket.recv_fds(ours, 4096, 3)
    if not fds:
        raise OSError(json.loads(message)["error"])
    sockets = [socket.socket(fileno=fd) for fd in fds]
    gateway = Gateway(phase.index, stream, cache_fd) if phase.index else None
    serve: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (answer_datagrams, (sockets[0], stream)),
        (answer_streams, (sockets[1], stream)),
    ]
    if gateway:
        serve.append((gateway.listen, (sockets[2],)))
    for target, arguments in serve:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    outputs = {name: Output() for name in ("stdout", "stderr", "log")}
    trace = Trace()
    poll = select.poll()
    takers: dict[int, Callable[[bytes], None]] = {pipes[name][0]: outputs[name].take for name in outputs}
    takers[pipes["trace"][0]] = trace.take
    for fd in (*takers, ours.fileno()):
        poll.register(fd, select.POLLIN)
    stopped: str | None = None
    status: int | None = None
    while takers or status is None:
        for fd, _ in poll.poll(POLL_SEC * 1000):
            if fd == ours.fileno():
                last = json.loads(ours.recv(4096) or b'{"error": "the keeper of the jail died"}')
                status = last.get("status", 255)
                outputs["log"].take(last.get("error", "").encode())
                poll.unregister(fd)
            elif data := os.read(fd, 1 << 16):
                takers[fd](data)
            else:
                poll.unregister(fd)
                del takers[fd]
        if status is None and not stopped:
            stopped = reason_to_stop(phase, begun, gateway, scratch_fd)
            if stopped:
                os.close(lifeline)
    finish(phase, stream, outputs, trace, stopped, status, scratch_fd, begun)


def reason_to_stop(phase: Phase, begun: float, gateway: Gateway | None, scratch_fd: int) -> str | None:
    if time.monotonic() - begun > phase.deadline_sec:
        return "timeout"
    if gateway and gateway.exhausted.is_set():
        return "download_cap"
    if phase.own_disk:
        disk = os.fstatvfs(scratch_fd)
        if disk.f_bavail == 0 or disk.f_favail == 0:
            return "disk"
    return None


def finish(
    phase: Phase,
    stream: Stream,
    outputs: dict[str, Output],
    trace: Trace,
    stopped: str | None,
    status: int,
    scratch_fd: int,
    begun: float,
) -> None:
    """Write what is known when the jail is gone: its output, what it installed, and how it ended."""
    duration_sec = time.monotonic() - begun
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
    exit_code, killed_by = trace.exit_code, trace.signal
    if not trace.main and status >= 0:
        exit_code = status
    reason = None
    if stopped:
        outcome, exit_code, killed_by = stopped, None, None
    elif not started:
        outcome, reason = "error", printable(bytes(outputs["log"].kept[-1000:])) or "the jail did not start"
    else:
        outcome = "ok" if exit_code == 0 else "failed"
    if phase.distribution and outcome == "ok":
        stream.emit("distribution", **installed_distribution(scratch_fd, phase.site, phase.distribution))
    stream.emit(
        "end",
        outcome=outcome,
        reason=reason,
        exit_code=exit_code,
        signal=killed_by,
        duration_s=round(duration_sec, 3),
        dropped=stream.dropped(),
    )


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
