"""The package index, as we ask it: which hosts, how much, and the files that earlier runs have
kept.

Hostile input: what the index answers, and what lies in the cache, is not trusted: hosts, sizes and
sha256 are checked.
"""

import contextlib
import hashlib
import http.client
import io
import json
import os
import ssl
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urljoin, urlsplit

from jail.watch.events import printable

JSON_PAGE = "application/vnd.pypi.simple.v1+json"
MAX_PAGE_BYTES = 32 << 20  # of one project page
MAX_REDIRECTS = 5
UPSTREAM_TIMEOUT_SEC = 15.0
MAX_CACHE_BYTES = 5_000_000_000
BLOCK_BYTES = 1 << 16


class NamedFile(NamedTuple):
    """A file that a page of the index names."""

    url: str
    sha256: str
    is_yanked: bool


class Refused(Exception):
    """A request that is not answered with what it asks for: the HTTP status for the jail, the
    reason for the report.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Upstream:
    """The index at `index_url`.

    `max_bytes` is what the run may load; `hosts` are all that may be asked.

    Not for two threads at once: whoever asks holds `lock`, so that no more than one page is in
    memory.
    """

    def __init__(self, index_url: str, max_bytes: int) -> None:
        self.url = index_url
        self.max_bytes = self.left_bytes = max_bytes
        self.hosts = {urlsplit(index_url).netloc}
        self.ready = threading.Event()  # the hosts are known, or `failure` says why not
        self.failure = ""
        self.is_needed = True  # a file in hand may require nothing of the index
        self.files: dict[str, NamedFile] = {}  # that the target's page names
        self.lock = threading.Lock()
        self.connections: dict[
            tuple[str, str], http.client.HTTPConnection
        ] = {}  # by scheme and host

    def learn_hosts(self, configured: Iterable[str]) -> None:
        """Add the hosts from which files may come: `configured`, or else those that the index's
        page for pip names.
        """
        self.hosts |= set(configured)
        self.failure = ""
        try:
            if not configured:
                with self.lock:
                    self.hosts |= self.hosts_of_pip()
        except (
            Refused,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ) as error:
            self.failure = f"{self.url} does not answer as a JSON package index (PEP 691): {error}"
        finally:
            self.ready.set()

    def hosts_of_pip(self) -> set[str]:
        """An index without pip names no other hosts.

        Raises Refused, or what a page that is none makes of json.
        """
        page_url = f"{self.url}/pip/"
        page = io.BytesIO()
        before_bytes = self.left_bytes
        self.left_bytes = MAX_PAGE_BYTES
        try:
            self.fetch(page_url, JSON_PAGE, page, MAX_PAGE_BYTES)
        except Refused as refused:
            if refused.status != 404:
                raise
            return set()
        finally:
            self.left_bytes = before_bytes
        files = json.loads(page.getvalue())["files"]
        return {urlsplit(urljoin(page_url, file["url"])).netloc for file in files} - {""}

    def spend(self, size_bytes: int) -> None:
        """Count towards what the run may load. Raises Refused when that is spent."""
        self.left_bytes -= size_bytes
        if self.left_bytes < 0:
            raise Refused(403, "the run's download limit is spent")

    def allowed(self, url: str) -> bool:
        """Whether this may be asked: one of the hosts, and no less secure than the index itself."""
        parts, own = urlsplit(url), urlsplit(self.url)
        return parts.netloc in self.hosts and parts.scheme in ("https", own.scheme)

    def fetch(self, url: str, accept: str, into: BinaryIO, limit_bytes: int) -> None:
        """Write the body of `url` to `into`, redirects followed among the allowed hosts only.

        Raises Refused.
        """
        try:
            for _ in range(MAX_REDIRECTS + 1):
                if not self.allowed(url):
                    where = printable(url.encode(errors="replace"))
                    raise Refused(403, f"a redirect to another host: {where}")
                response = self.ask(url, accept)
                if response.status == 200:
                    self.copy(response, into, limit_bytes)
                    return
                if response.status not in (301, 302, 303, 307, 308):
                    raise Refused(
                        404 if response.status == 404 else 502,
                        f"the index answered {response.status}",
                    )
                url = urljoin(url, response.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = printable(str(error).encode(errors="replace"))
            raise Refused(502, f"the index can't be read: {reason}") from error
        raise Refused(502, "the index redirects without end")

    def copy(self, response: http.client.HTTPResponse, into: BinaryIO, limit_bytes: int) -> None:
        """Write a response's body, counted as it comes. Raises Refused."""
        while block := response.read(BLOCK_BYTES):
            self.spend(len(block))
            into.write(block)
            if into.tell() > limit_bytes:
                raise Refused(502, "the index's answer is too large")

    def ask(self, url: str, accept: str) -> http.client.HTTPResponse:
        """Send a GET on the connection that there is to the host, or a new one."""
        parts = urlsplit(url)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection = self.connection(parts.scheme, parts.netloc)
        while True:
            used_before = connection.sock is not None
            try:
                connection.request(
                    "GET", target, headers={"Accept": accept, "User-Agent": "snakehook"}
                )
                return connection.getresponse()
            except (OSError, http.client.HTTPException):
                connection.close()
                # It may have been closed at the far end while it lay idle, or its last answer was
                # not read to the end.
                if not used_before:
                    raise

    def connection(self, scheme: str, host: str) -> http.client.HTTPConnection:
        """The connection to a host, made when it is first asked."""
        if (scheme, host) not in self.connections:
            if scheme == "http":
                made = http.client.HTTPConnection(host, timeout=UPSTREAM_TIMEOUT_SEC)
            else:
                context = ssl.create_default_context()
                made = http.client.HTTPSConnection(
                    host, timeout=UPSTREAM_TIMEOUT_SEC, context=context
                )
            self.connections[scheme, host] = made
        return self.connections[scheme, host]


def file_hosts(index_url: str, configured: Iterable[str]) -> list[str]:
    """The hosts that files may come from, the index's own included.

    Raises Refused when the index can't be asked.
    """
    upstream = Upstream(index_url, MAX_PAGE_BYTES)
    upstream.learn_hosts(configured)
    if upstream.failure:
        raise Refused(502, upstream.failure)
    return sorted(upstream.hosts)


class PackageCache:
    """Package files by sha256, kept over runs in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.has_grown = False

    def find(self, digest: str) -> BinaryIO | None:
        """What an earlier run kept, unless it has changed since."""
        try:
            # Not even a pipe, which a watch that was taken over may have put there, keeps us.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(digest, flags, dir_fd=self.fd)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            file = os.fdopen(fd, "rb")
            if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                return file
            file.close()
        else:
            os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(digest, dir_fd=self.fd)
        return None

    def download(self, upstream: Upstream, url: str, digest: str) -> BinaryIO:
        """Fetch a file and keep it. Raises Refused.

        Until its sha256 is found right it has no name, and so can't outlive us.
        """
        try:
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            file = os.fdopen(fd, "w+b")
            upstream.fetch(url, "application/octet-stream", file, upstream.max_bytes)
            # This may write what is still buffered.
            file.seek(0)
        except OSError as error:
            raise Refused(502, f"PIP_CACHE_DIR can't be written: {error.strerror}") from error
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise Refused(502, f"the file's sha256 is {found}, not the one that the index names")
        # It is not kept where a run at the same time was faster, or where there is no space.
        with contextlib.suppress(OSError):
            os.link(f"/proc/self/fd/{fd}", digest, dst_dir_fd=self.fd)
        self.has_grown = True
        return file

    def keep(self, source: BinaryIO, max_bytes: int) -> str:
        """Copy a file into the cache: its sha256. Raises Refused.

        It may grow meanwhile, or change after it was looked at.
        """
        digest, left_bytes = hashlib.sha256(), max_bytes
        source.seek(0)
        try:
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            with os.fdopen(fd, "w+b") as copy:
                while block := source.read(BLOCK_BYTES):
                    left_bytes -= len(block)
                    if left_bytes < 0:
                        raise Refused(403, f"larger than {max_bytes} bytes (MAX_DOWNLOAD_BYTES)")
                    digest.update(block)
                    copy.write(block)
                copy.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(f"/proc/self/fd/{fd}", digest.hexdigest(), dst_dir_fd=self.fd)
        except OSError as error:
            text = f"it can't be copied to PIP_CACHE_DIR: {error.strerror}"
            raise Refused(502, text) from error
        self.has_grown = True
        return digest.hexdigest()

    def trim(self) -> None:
        """Remove the oldest files that there is no room for. Never raises.

        Other runs may do the same at the same time, and a watch that was taken over may have put
        links and folders there: none of that is a reason to lose a report.
        """
        if not self.has_grown:
            return
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                about = path.lstat()
                files.append((about.st_mtime, about.st_size, path))
        left_bytes = MAX_CACHE_BYTES
        for _, size_bytes, path in sorted(files, reverse=True):
            left_bytes -= size_bytes
            if left_bytes < 0:
                with contextlib.suppress(OSError):
                    path.unlink()
