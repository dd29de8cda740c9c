"""Stand-ins for the two servers that snakehook talks to: a package index and Discord's webhooks.

Real sockets on loopback, so that what is tested is what runs: pip, urllib and the watch see an
HTTP/1.1 server. Whatever either of them can be told to do wrong is a `Handler`, so one `Reply` or
`Drip` serves both.
"""

import base64
import calendar
import csv
import functools
import gzip
import hashlib
import importlib.metadata
import io
import json
import math
import secrets
import socket
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message as Headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

T = TypeVar("T")
Handler = Callable[[BaseHTTPRequestHandler], None]
Content = str | bytes
Files = Mapping[str, Content]

SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
UPLOAD_TIME = "2024-01-01T00:00:00.000000Z"
MTIME = (2024, 1, 1, 0, 0, 0)  # of archive members, fixed: the same files give the same hash
# What a legacy setup.py is built with: an older pip or setuptools asks for wheel too, and that for
# packaging.
LAZY_PROJECTS = frozenset({"setuptools", "wheel", "packaging"})


def wait_for(
    predicate: Callable[[], T], deadline_sec: float = 10.0, *, every_sec: float = 0.01
) -> T:
    """Poll until the predicate is true and return its value; never sleep for a guessed time."""
    end = time.monotonic() + deadline_sec
    while not (value := predicate()):
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {deadline_sec:g} s, last value {value!r}")
        time.sleep(every_sec)
    return value


def _bytes(content: Content) -> bytes:
    return content.encode() if isinstance(content, str) else content


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        True  # headers and body are two writes: Nagle would add 40 ms to each answer
    )

    def serve(self) -> None:
        cast(_Server, self.server).serve(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = serve

    def log_message(self, format: str, *args: object) -> None:
        pass  # the stand-ins keep their own records


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, serve: Handler) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.serve = serve
        self.closing = threading.Event()
        self.faults: list[Exception] = []
        self._open: set[socket.socket] = set()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own looks the address up in DNS

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # A client that hangs up is what many tests want; anything else is a fault of ours.
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.faults.append(error)

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        for sock in list(self._open):  # else a kept-alive connection would go on being served
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone between the copy and here
        self.server_close()


class _Standin:
    """Serves from `with` to its end. A fault in a handler is raised there, not lost in a thread."""

    def __init__(self) -> None:
        self._server = _Server(self._serve)
        self._lock = threading.RLock()
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _serve(self, exchange: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        if self._server.faults and kind is None:
            raise ExceptionGroup(f"{type(self).__name__} failed", self._server.faults)


def _begin(
    exchange: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], length: int | None
) -> bool:
    """Send the head; true when a body may follow."""
    stated = {name.lower() for name in headers}
    bodiless = status in (204, 304) or exchange.command == "HEAD"
    exchange.send_response(status)
    for name, value in headers.items():
        exchange.send_header(name, value)
    if length is None or stated & {"content-length", "transfer-encoding"}:
        exchange.send_header(
            "Connection", "close"
        )  # a length that may be a lie: never reuse the connection
    elif status not in (204, 304):
        exchange.send_header("Content-Length", str(length))
    exchange.end_headers()
    return not bodiless


@dataclass(frozen=True)
class Reply:
    """One whole answer. A `Content-Length` among the headers is sent as it is, however wrong."""

    status: int = 200
    body: Content = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, exchange: BaseHTTPRequestHandler) -> None:
        body = _bytes(self.body)
        if _begin(exchange, self.status, self.headers, len(body)):
            exchange.wfile.write(body)


@dataclass(frozen=True)
class Drip:
    """An answer that comes a few bytes at a time."""

    body: Content = b"{}"
    gap_sec: float = 0.05
    chunk_bytes: int = 1
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, exchange: BaseHTTPRequestHandler) -> None:
        body = _bytes(self.body)
        if not _begin(exchange, self.status, self.headers, len(body)):
            return
        for start in range(0, len(body), self.chunk_bytes):
            exchange.wfile.write(body[start : start + self.chunk_bytes])
            if _closing(exchange).wait(self.gap_sec):
                return


@dataclass(frozen=True)
class Endless:
    """A body without length that ends only when the client hangs up or the stand-in closes."""

    chunk: bytes = bytes(65536)
    gap_sec: float = 0.0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, exchange: BaseHTTPRequestHandler) -> None:
        if _begin(exchange, self.status, self.headers, None):
            while not _closing(exchange).wait(self.gap_sec):
                exchange.wfile.write(self.chunk)


def hang(exchange: BaseHTTPRequestHandler) -> None:
    """Take the request and never answer."""
    _closing(exchange).wait()
    exchange.close_connection = True


def drop(exchange: BaseHTTPRequestHandler) -> None:
    """Close the connection without a byte."""
    exchange.close_connection = True


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status, headers={"Location": location})


def json_reply(status: int, value: object, headers: Mapping[str, str] = {}) -> Reply:
    return Reply(status, json.dumps(value), {"Content-Type": "application/json", **headers})


def _closing(exchange: BaseHTTPRequestHandler) -> threading.Event:
    return cast(_Server, exchange.server).closing


def _stem(name: str, version: str) -> str:
    return f"{canonicalize_name(name).replace('-', '_')}-{Version(version)}"


class About(TypedDict, total=False):
    """What a distribution says of itself, beyond name and version."""

    requires: Sequence[str]
    console_scripts: Mapping[str, str]
    requires_python: str
    metadata: Mapping[str, str]  # any other header


def _metadata(name: str, version: str, about: About) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if "requires_python" in about:
        lines.append(f"Requires-Python: {about['requires_python']}")
    lines += [f"Requires-Dist: {requirement}" for requirement in about.get("requires", ())]
    lines += [f"{key}: {value}" for key, value in about.get("metadata", {}).items()]
    return "\n".join(lines) + "\n"


def _entry_points(console_scripts: Mapping[str, str]) -> str:
    return "[console_scripts]\n" + "".join(
        f"{name} = {target}\n" for name, target in console_scripts.items()
    )


def _top_level(files: Files) -> list[str]:
    tops = {PurePosixPath(path).parts[0] for path in files}
    return sorted(top.removesuffix(".py") for top in tops if "." not in top.removesuffix(".py"))


def _zip_wheel(info: str, members: Files) -> bytes:
    """The members and their RECORD. A RECORD among them is kept: a test may want it wrong."""
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for path, content in members.items():
        digest = (
            base64.urlsafe_b64encode(hashlib.sha256(_bytes(content)).digest()).rstrip(b"=").decode()
        )
        rows.writerow((path, f"sha256={digest}", len(_bytes(content))))
    rows.writerow((f"{info}/RECORD", "", ""))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, content in {f"{info}/RECORD": record.getvalue(), **members}.items():
            member = zipfile.ZipInfo(path, MTIME)
            member.external_attr = 0o100644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return buffer.getvalue()


WHEEL = """\
Wheel-Version: 1.0
Generator: standins
Root-Is-Purelib: true
Tag: py3-none-any
"""


def wheel(name: str, version: str, files: Files, **about: Unpack[About]) -> tuple[str, bytes]:
    """A `py3-none-any` wheel as (filename, bytes). Files in its `.dist-info` replace the generated
    ones."""
    info = f"{_stem(name, version)}.dist-info"
    generated: dict[str, Content] = {
        f"{info}/METADATA": _metadata(name, version, about),
        f"{info}/WHEEL": WHEEL,
        f"{info}/top_level.txt": "".join(f"{top}\n" for top in _top_level(files)),
    }
    if "console_scripts" in about:
        generated[f"{info}/entry_points.txt"] = _entry_points(about["console_scripts"])
    return f"{_stem(name, version)}-py3-none-any.whl", _zip_wheel(info, generated | dict(files))


def sdist(name: str, version: str, files: Files, **about: Unpack[About]) -> tuple[str, bytes]:
    """A source distribution as (filename, bytes); files without a build of their own get a
    `setup.py`."""
    stem = _stem(name, version)
    members = {"PKG-INFO": _metadata(name, version, about), **files}
    if not {"setup.py", "pyproject.toml"} & files.keys():
        packages = (PurePosixPath(path).parent for path in files if path.endswith("/__init__.py"))
        arguments: dict[str, object] = {
            "name": name,
            "version": version,
            "packages": sorted(".".join(package.parts) for package in packages),
            "py_modules": sorted(
                path[:-3] for path in files if path.endswith(".py") and "/" not in path
            ),
            "install_requires": list(about.get("requires", ())),
            "python_requires": about.get("requires_python", ""),
            "entry_points": _entry_points(about.get("console_scripts", {})),
        }
        members["setup.py"] = f"from setuptools import setup\n\nsetup(**{arguments!r})\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in members.items():
            member = tarfile.TarInfo(f"{stem}/{path}")
            member.size, member.mode, member.mtime = (
                len(_bytes(content)),
                0o644,
                calendar.timegm(MTIME),
            )
            archive.addfile(member, io.BytesIO(_bytes(content)))
    return f"{stem}.tar.gz", gzip.compress(buffer.getvalue(), compresslevel=1, mtime=0)


BACKEND_PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# The wheel is made beforehand and travels in the sdist, so the backend needs no library.
BACKEND = """
import pathlib as _pathlib
import shutil as _shutil


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _shutil.copy(_pathlib.Path(__file__).with_name({filename!r}), wheel_directory)
    return {filename!r}
"""


def backend_sdist(name: str, version: str, backend_prelude: str, files: Files) -> tuple[str, bytes]:
    """A source distribution with its own PEP 517 backend; the prelude runs when pip imports that
    backend."""
    filename, data = wheel(name, version, files)
    build: dict[str, Content] = {
        "pyproject.toml": BACKEND_PYPROJECT,
        "backend.py": backend_prelude + BACKEND.format(filename=filename),
        filename: data,
    }
    return sdist(name, version, {**files, **build})


@functools.cache
def installed_wheel(name: str) -> tuple[str, bytes]:
    """Repack a distribution of the running environment as the wheel it was, less its tests."""
    distribution = importlib.metadata.distribution(name)
    if distribution.read_text("RECORD") is None:
        raise importlib.metadata.PackageNotFoundError(
            f"{name}: installed without a RECORD, cannot be repacked"
        )
    info = f"{_stem(distribution.name, distribution.version)}.dist-info"
    left_out = {
        "RECORD",
        "INSTALLER",
        "REQUESTED",
        "direct_url.json",
        "uv_cache.json",
    }  # the installer's own
    members: dict[str, Content] = {}
    for path in distribution.files or []:
        if {"..", "__pycache__", "tests"} & set(path.parts):
            continue
        inside = PurePosixPath(path)
        if path.parts[0].endswith(".dist-info"):
            if path.name in left_out:
                continue
            inside = PurePosixPath(
                info, *path.parts[1:]
            )  # older installs spell the folder differently
        members[str(inside)] = Path(str(distribution.locate_file(path))).read_bytes()
    tag = next(
        line[5:]
        for line in (distribution.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag: ")
    )
    return f"{info.removesuffix('.dist-info')}-{tag}.whl", _zip_wheel(info, members)


class Index(_Standin):
    """The JSON simple API and nothing else: canonical names, a final slash, GET or HEAD."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"{self.origin}/simple"
        self.requests: list[tuple[str, str]] = []  # (method, path)
        self.headers: list[dict[str, str]] = []  # of the same requests, names in lower case
        self._answers: dict[str, Handler] = {}
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._files: dict[str, bytes] = {}

    def answer(self, path: str, handler: Handler) -> None:
        """Override one path wholesale, whatever the method; the query does not count."""
        self._answers[path] = handler

    def add_file(
        self, project: str, filename: str, data: bytes, **fields: object
    ) -> dict[str, Any]:
        """Register raw bytes; returns the file's entry in the project's page, live."""
        url = f"/files/{quote(filename)}"
        entry: dict[str, Any] = {
            "filename": filename,
            "url": self.origin + url,
            "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
            "size": len(data),
            "yanked": False,
            "upload-time": UPLOAD_TIME,
        }
        if (metadata := _wheel_metadata(data)) is not None:
            entry["core-metadata"] = {"sha256": hashlib.sha256(metadata).hexdigest()}
        with self._lock:
            self._files[url] = data
            if metadata is not None:
                self._files[f"{url}.metadata"] = metadata
            return self.entry(project, **(entry | fields))

    def add_wheel(
        self, name: str, version: str, files: Files, **about: Unpack[About]
    ) -> dict[str, Any]:
        requires_python = about.get("requires_python")
        return self.add_file(
            name, *wheel(name, version, files, **about), requires_python=requires_python
        )

    def add_sdist(
        self, name: str, version: str, files: Files, **about: Unpack[About]
    ) -> dict[str, Any]:
        requires_python = about.get("requires_python")
        return self.add_file(
            name, *sdist(name, version, files, **about), requires_python=requires_python
        )

    def add_backend_sdist(
        self, name: str, version: str, backend_prelude: str, files: Files
    ) -> dict[str, Any]:
        return self.add_file(name, *backend_sdist(name, version, backend_prelude, files))

    def add_installed(self, name: str) -> dict[str, Any]:
        """Serve a distribution of the running environment; `LAZY_PROJECTS` come so at first
        request."""
        return self.add_file(name, *installed_wheel(name))

    def entry(self, project: str, **fields: object) -> dict[str, Any]:
        """Alter the file entry of that `filename` (without one: the project's last), or add it.

        `None` removes a field. Underscores stand for the API's hyphens (`core_metadata=...`). The
        page is sent as it stands, however wrong.
        """
        with self._lock:
            self._load(project)
            entries = self._entries.setdefault(canonicalize_name(project), [])
            if "filename" in fields:
                entry = next(
                    (known for known in entries if known["filename"] == fields["filename"]), None
                )
                if entry is None:
                    entries.append(entry := {})
            else:
                entry = entries[-1]
            entry.update({key.replace("_", "-"): value for key, value in fields.items()})
            for key in [key for key, value in entry.items() if value is None]:
                del entry[key]
            return entry

    def _load(self, project: str) -> None:
        if project in LAZY_PROJECTS and project not in self._entries:
            self._entries[project] = []  # first, so that add_file does not come back here
            try:
                self.add_installed(project)
            except importlib.metadata.PackageNotFoundError:
                del self._entries[project]

    def _page(self, project: str) -> bytes | None:
        with self._lock:
            self._load(project)
            if project not in self._entries:
                return None
            entries = self._entries[project]
            page = {
                "meta": {"api-version": "1.1"},
                "name": project,
                "versions": sorted(
                    {version for entry in entries if (version := _version(entry["filename"]))}
                ),
                "files": entries,
            }
            return json.dumps(page).encode()

    def _serve(self, exchange: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests.append((exchange.command, exchange.path))
            self.headers.append({name.lower(): value for name, value in exchange.headers.items()})
        path = exchange.path.partition("?")[0]
        self._answers.get(path, self._answer)(exchange)

    def _answer(self, exchange: BaseHTTPRequestHandler) -> None:
        path = exchange.path.partition("?")[0]
        if exchange.command not in ("GET", "HEAD"):
            exchange.close_connection = True  # the request's body, if any, is unread
            Reply(405, headers={"Allow": "GET, HEAD"})(exchange)
        elif (data := self._files.get(quote(unquote(path)))) is not None:
            Reply(200, data, {"Content-Type": "application/octet-stream"})(exchange)
        elif (
            path.startswith("/simple/")
            and path.endswith("/")
            and (page := self._page(path[8:-1])) is not None
        ):
            accept = exchange.headers.get("Accept", "*/*")
            if any(
                kind in accept
                for kind in (SIMPLE_JSON, "application/vnd.pypi.simple.latest+json", "*/*")
            ):
                Reply(200, page, {"Content-Type": SIMPLE_JSON, "Vary": "Accept"})(exchange)
            else:
                Reply(406)(exchange)
        else:
            Reply(404)(exchange)


def _wheel_metadata(data: bytes) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return next(
                archive.read(name)
                for name in archive.namelist()
                if name.endswith(".dist-info/METADATA")
            )
    except (zipfile.BadZipFile, StopIteration):
        return None


def _version(filename: str) -> str | None:
    try:
        parsed = (
            parse_wheel_filename(filename)[1]
            if filename.endswith(".whl")
            else parse_sdist_filename(filename)[1]
        )
    except ValueError:
        return None  # a hostile name is a file entry all the same, but of no version
    return str(parsed)


@dataclass(frozen=True)
class Attempt:
    """One request as it came, whatever became of it."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    at: float  # monotonic seconds


@dataclass(frozen=True)
class Message:
    """One message that stands in the channel."""

    payload: dict[str, Any]
    files: dict[str, bytes]
    at: float  # monotonic seconds


@dataclass(frozen=True)
class Recorded:
    """A step that keeps the message as usual, if it is valid, and then answers so."""

    answer: Handler


Step = Handler | Recorded | None  # None: this one as usual

LOST_ANSWER = Recorded(drop)
SLOW_ANSWER = Recorded(Drip(b'{"id": "1"}'))


def too_many(retry_after_sec: float = 0.05, *, everywhere: bool = False) -> Reply:
    """429 as the API itself sends it: the exact time in the body, whole seconds in the header."""
    body = {
        "message": "You are being rate limited.",
        "retry_after": retry_after_sec,
        "global": everywhere,
    }
    scope = {"X-RateLimit-Scope": "global" if everywhere else "user"}
    if everywhere:
        scope["X-RateLimit-Global"] = "true"
    return json_reply(429, body, {"Retry-After": str(math.ceil(retry_after_sec)), **scope})


def too_many_header(retry_after: float | str = 1) -> Reply:
    """429 with nothing but the header."""
    return Reply(429, headers={"Retry-After": str(retry_after)})


def too_many_html(retry_after: float | str | None = None) -> Reply:
    """429 as the proxy in front of the API sends it to an address it has banned."""
    headers = {"Content-Type": "text/html; charset=UTF-8"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Reply(429, "<!DOCTYPE html><title>Access denied</title><p>error code: 1015</p>", headers)


class Discord(_Standin):
    """A webhook that takes what Discord takes, refuses what it refuses, misbehaves on command."""

    def __init__(self, *, max_request_bytes: int = 10 * 1024**2) -> None:
        super().__init__()
        self.token = secrets.token_urlsafe(51)  # the length of a real one; no log may ever show it
        self.path = f"/api/webhooks/123456789012345678/{self.token}"
        self.url = self.origin + self.path
        self.messages: list[Message] = []
        self.attempts: list[Attempt] = []
        self.refusals: list[dict[str, Any]] = []  # the JSON of every 4xx that was not scripted
        self._max_request_bytes = max_request_bytes
        self._steps: deque[Step] = deque()

    def script(self, *steps: Step) -> None:
        """Queue what the next POSTs to the webhook meet, one step each; then it behaves again."""
        with self._lock:
            self._steps.extend(steps)

    def _serve(self, exchange: BaseHTTPRequestHandler) -> None:
        attempt = self._read(exchange)
        with self._lock:
            self.attempts.append(attempt)
            ours = urlsplit(attempt.path).path == self.path and attempt.method == "POST"
            step = self._steps.popleft() if ours and self._steps else None
        if step is None or isinstance(step, Recorded):
            reply = self._take(attempt)
            (step.answer if step and reply.status < 400 else reply)(exchange)
        else:
            step(exchange)

    def _read(self, exchange: BaseHTTPRequestHandler) -> Attempt:
        headers = {name.lower(): value for name, value in exchange.headers.items()}
        declared = int(headers.get("content-length", 0))
        # Read what is too large too, up to a point: closing on unread bytes would reset the answer
        # away.
        body = exchange.rfile.read(min(declared, 4 * self._max_request_bytes))
        exchange.close_connection = len(body) < declared or "transfer-encoding" in headers
        return Attempt(exchange.command, exchange.path, headers, body, time.monotonic())

    def _take(self, attempt: Attempt) -> Reply:
        """Judge one request and keep its message if it is a good one."""
        url = urlsplit(attempt.path)
        if attempt.headers.get("user-agent", "").startswith("Python-urllib/"):
            # Undocumented, but so it is: the proxy in front of the API bans urllib's default name.
            return Reply(403, "error code: 1010", {"Content-Type": "text/plain; charset=UTF-8"})
        if url.path != self.path:
            known = url.path.startswith(self.path.rpartition("/")[0] + "/")
            unknown = (
                (401, 50027, "Invalid Webhook Token") if known else (404, 10015, "Unknown Webhook")
            )
            return self._refuse(*unknown)
        if attempt.method == "GET":
            webhook = {
                "id": self.path.split("/")[3],
                "type": 1,
                "name": "stand-in",
                "token": self.token,
            }
            return json_reply(200, webhook)
        if attempt.method != "POST":
            return self._refuse(405, 0, "405: Method Not Allowed")
        if len(attempt.body) > self._max_request_bytes:
            return self._refuse(413, 40005, "Request entity too large")
        try:
            payload, files = _parse(attempt)
        except ValueError as error:
            return self._refuse(400, 50109, f"The request body contains invalid JSON. ({error})")
        if errors := _Form().judge(payload, files):
            return self._refuse(400, 50035, "Invalid Form Body", errors)
        if not (str(payload.get("content") or "").strip() or payload.get("embeds") or files):
            return self._refuse(400, 50006, "Cannot send an empty message")
        with self._lock:
            self.messages.append(Message(payload, files, attempt.at))
            identity = str(10**18 + len(self.messages))
        if parse_qs(url.query).get("wait", ["false"])[-1].lower() not in ("true", "1"):
            return Reply(204)
        attachments = [
            {"id": str(n), "filename": name, "size": len(data)}
            for n, (name, data) in enumerate(files.items())
        ]
        return json_reply(
            200,
            {
                "id": identity,
                "type": 0,
                "content": payload.get("content") or "",
                "embeds": payload.get("embeds") or [],
                "attachments": attachments,
            },
        )

    def _refuse(
        self, status: int, code: int, message: str, errors: Mapping[str, Any] | None = None
    ) -> Reply:
        answer: dict[str, Any] = {"message": message, "code": code}
        if errors:
            answer["errors"] = errors
        with self._lock:
            self.refusals.append(answer)
        return json_reply(status, answer)


def _parse(attempt: Attempt) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Payload and attachments, from either of the two forms; ValueError says what is wrong."""
    header = Headers()
    header["Content-Type"] = attempt.headers.get("content-type", "")
    files: dict[str, bytes] = {}
    raw: bytes | None = attempt.body
    if header.get_content_type() == "multipart/form-data":
        raw = None
        for part, data in _parts(attempt.body, str(header.get_param("boundary", ""))):
            name = str(part.get_param("name", header="Content-Disposition"))
            if name == "payload_json" and raw is None:
                raw = data
            elif name.startswith("files[") and name.endswith("]") and name[6:-1].isdecimal():
                filename = part.get_filename()
                if not filename or filename in files:
                    raise ValueError(f"part {name}: no filename, or one used before")
                files[filename] = data
            else:
                raise ValueError(f"unexpected part {name}")
    elif header.get_content_type() != "application/json":
        raise ValueError("neither application/json nor multipart/form-data")
    payload = json.loads(raw.decode(), parse_constant=_no_constant) if raw is not None else {}
    if not isinstance(payload, dict):
        raise ValueError("not an object")
    return payload, files


def _parts(body: bytes, boundary: str) -> list[tuple[Headers, bytes]]:
    """Split a multipart body by the letter; the parser in `email` would translate newlines in
    binary data."""
    mark = b"\r\n--" + boundary.encode()
    first, *pieces = (b"\r\n" + body).split(mark)
    if not boundary or first or len(pieces) < 2 or pieces[-1] not in (b"--", b"--\r\n"):
        raise ValueError("malformed multipart body")
    parts = []
    for piece in pieces[:-1]:
        head, gap, data = piece.partition(b"\r\n\r\n")
        if not head.startswith(b"\r\n") or not gap:
            raise ValueError("malformed part")
        headers = Headers()
        for line in head[2:].decode().split("\r\n"):
            name, _, value = line.partition(":")
            headers[name] = value.strip()
        parts.append((headers, data))
    return parts


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


class _Form:
    """Discord's documented limits; what breaks them is collected as its error answers are."""

    def __init__(self) -> None:
        self.errors: dict[str, Any] = {}
        self.embed_chars = 0

    def judge(self, payload: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        try:
            json.dumps(payload, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self.refuse(("payload",), "STRING_ENCODING", "Lone surrogates are not text.")
            return self.errors
        self.text(payload, "content", (), 2000)
        self.text(payload, "username", (), 80)
        self.url(payload, "avatar_url", (), files)
        for n, embed in enumerate(self.items(payload, "embeds", (), 10)):
            self.embed(embed, ("embeds", n), files)
        if self.embed_chars > 6000:
            self.refuse(
                ("embeds",), "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000"
            )
        if len(files) > 10 or len(self.items(payload, "attachments", (), 10)) > 10:
            self.refuse(("attachments",), "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
        return self.errors

    def embed(
        self, embed: Mapping[str, Any], at: tuple[str | int, ...], files: Mapping[str, bytes]
    ) -> None:
        parts = ("title", "description", "fields", "author", "footer", "image", "thumbnail")
        if not any(embed.get(part) for part in parts):
            self.refuse((*at, "description"), "BASE_TYPE_REQUIRED", "This field is required")
        self.embed_chars += self.text(embed, "title", at, 256) + self.text(
            embed, "description", at, 4096
        )
        self.url(embed, "url", at, {}, attachments=False)
        for part, text, limit in (
            ("footer", "text", 2048),
            ("author", "name", 256),
            ("image", "", 0),
            ("thumbnail", "", 0),
        ):
            if part not in embed:
                continue
            inner = embed[part] if isinstance(embed[part], dict) else {}
            if text:
                self.embed_chars += self.text(inner, text, (*at, part), limit, required=True)
            self.url(inner, "icon_url", (*at, part), files)
            self.url(inner, "url", (*at, part), files, attachments=not text)
        for n, item in enumerate(self.items(embed, "fields", at, 25)):
            here = (*at, "fields", n)
            self.embed_chars += self.text(item, "name", here, 256, required=True)
            self.embed_chars += self.text(item, "value", here, 1024, required=True)
        colour = embed.get("color", 0)
        if not isinstance(colour, int) or not 0 <= colour <= 0xFFFFFF:
            self.refuse(
                (*at, "color"), "NUMBER_TYPE_MAX", "int value should be between 0 and 16777215."
            )
        if "timestamp" in embed:
            try:
                datetime.fromisoformat(embed["timestamp"])
            except (TypeError, ValueError):
                self.refuse(
                    (*at, "timestamp"),
                    "DATE_TIME_TYPE_PARSE",
                    "Could not parse; should be ISO8601.",
                )

    def text(
        self,
        holder: Mapping[str, Any],
        key: str,
        at: tuple[str | int, ...],
        limit: int,
        *,
        required: bool = False,
    ) -> int:
        """The number of characters, without the white space around them, which Discord trims."""
        value = holder.get(key)
        if value is not None and not isinstance(value, str):
            self.refuse((*at, key), "STRING_TYPE_CONVERT", "Could not interpret as string.")
            return 0
        length = len((value or "").strip())
        if required and not length:
            self.refuse((*at, key), "BASE_TYPE_REQUIRED", "This field is required")
        if length > limit:
            self.refuse((*at, key), "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")
        return length

    def url(
        self,
        holder: Mapping[str, Any],
        key: str,
        at: tuple[str | int, ...],
        files: Mapping[str, bytes],
        *,
        attachments: bool = True,
    ) -> None:
        value = holder.get(key)
        if value is None or (attachments and value in {f"attachment://{name}" for name in files}):
            return
        self.text(holder, key, at, 2048)
        try:
            parsed = urlsplit(str(value))
        except ValueError:
            parsed = urlsplit("")
        if (
            parsed.scheme not in ("http", "https")
            or not parsed.hostname
            or any(map(str.isspace, str(value)))
        ):
            self.refuse((*at, key), "URL_TYPE_INVALID_URL", "Not a well formed URL.")

    def items(
        self, holder: Mapping[str, Any], key: str, at: tuple[str | int, ...], limit: int
    ) -> Sequence[Mapping[str, Any]]:
        items = holder.get(key) or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            self.refuse((*at, key), "BASE_TYPE_BAD_TYPE", "Must be a list of objects.")
            return []
        if len(items) > limit:
            self.refuse((*at, key), "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")
        return items

    def refuse(self, at: Sequence[str | int], code: str, message: str) -> None:
        node = self.errors
        for step in at:
            node = node.setdefault(str(step), {})
        node.setdefault("_errors", []).append({"code": code, "message": message})


class Gate:
    """An answer that is given when the test says so: who asks for it waits until then."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked, self.opened = threading.Event(), threading.Event()
        self.count = 0  # of those who asked

    def __call__(self, exchange: BaseHTTPRequestHandler) -> None:
        self.count += 1
        self.asked.set()
        self.opened.wait(40)
        self.reply(exchange)


@contextmanager
def gate(index: Index, project: str) -> Iterator[Gate]:
    """A project page that is a gate: a run that installs it waits, and then fails."""
    waiting = Gate(Reply(404))
    index.answer(f"/simple/{project}/", waiting)
    try:
        yield waiting
    finally:
        waiting.opened.set()


def messages_of(discord: Discord) -> Counter[str]:
    """How many messages stand in the channel for each run id."""
    footers = [message.payload["embeds"][0]["footer"]["text"] for message in discord.messages]
    return Counter(footer.split()[-1] for footer in footers)
