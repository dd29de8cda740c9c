"""The package index on the jail's loopback, read-only: project pages and the files that they name,
nothing else.

Hostile input: the jail's requests. Nothing of a request but a project's name, or the choice of
a file that a page named, goes upstream, so no data leaves this way.
"""

import contextlib
import io
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import urljoin

from jail.orders import Order
from jail.watch.events import (
    MAX_TEXT_CHARS,
    DependencyDenied,
    Downloaded,
    Event,
    IndexRefused,
    printable,
)
from jail.watch.fitting import may_fit
from jail.watch.index_http import MAX_REQUEST_BYTES, REQUEST, page_of, read_head, send_head
from jail.watch.offered import PYTHON_OF_PIP, Offered, read_page
from jail.watch.release import MAX_RELEASE_FILES, is_of_version
from jail.watch.resolver import NO_ROOM_ERRORS, NO_ROOM_SEC, close_listener
from jail.watch.sample import BesideIndex, Sample, is_of_order, status_of
from jail.watch.upstream import (
    JSON_PAGE,
    MAX_PAGE_BYTES,
    NamedFile,
    PackageCache,
    Refused,
    Upstream,
)
from jail.watch.withheld import sha256_of, stand_in, versions_of

MAX_CLIENTS = 32  # served at once; more are closed at once
MAX_KNOWN = 400_000  # files that the pages of a run name
IDLE_SEC = 60.0
MAX_SECOND_FILE_BYTES = 25_000_000  # of what is installed later; numpy has 18 MB
# Fields of a page's entry that pip looks at, passed on as they are.
PASSED_ON = ("requires-python", "size", "upload-time", "yanked")

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!-]{0,250}", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Gateway:
    """Serves one jail.

    Args:
        order: which project is the target; with `artifact`, only its files of that kind are
            offered.
        denylist: projects of which only stand-ins are given out.
        search: looks for bait in what the jail asks for (kind, where, bytes): whether it may be in.
        tell: takes the events.
        given: what there is beside the index.
    """

    def __init__(
        self,
        order: Order,
        denylist: tuple[str, ...],
        upstream: Upstream,
        cache: PackageCache,
        search: Callable[[str, str, bytes], bool],
        tell: Callable[[Event], object],
        given: BesideIndex | None = None,
    ) -> None:
        self.order = order
        self.denylist = denylist
        self.upstream = upstream
        self.cache = cache
        self.search = search
        self.tell = tell
        self.given = given
        self.places = threading.BoundedSemaphore(MAX_CLIENTS)
        self.known: dict[
            tuple[str, str], tuple[str, str]
        ] = {}  # (sha256 in link, name): (URL, sha256)
        # What is installed later must not bring another version of the target.
        self.is_second = False
        self.release: set[str] = set()  # the names of the target's files of this version
        self.offered: Offered | None = None  # what the index says of the target
        self.python: tuple[int, int] | None = None  # that pip runs with
        self.own_tag = ""  # of the jail's interpreter
        self.stand_ins: dict[tuple[str, str], bytes] = {}  # by sha256 and name
        self.listener: socket.socket | None = None
        self.closed = threading.Event()

    def start(self, listener: socket.socket) -> None:
        """Serve in threads, until `close`."""
        self.listener = listener
        threading.Thread(target=self.listen, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections.

        What is being served ends with the jail, at the latest with an answer.
        """
        self.closed.set()
        if self.listener:
            close_listener(self.listener)

    def listen(self, listener: socket.socket) -> None:
        """Take connections when it is known which hosts may be asked; until then they wait."""
        self.upstream.ready.wait()
        with listener:
            while not self.closed.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError as error:
                    # Else it was closed, or who asked has gone.
                    if error.errno in NO_ROOM_ERRORS:
                        self.closed.wait(NO_ROOM_SEC)
                    continue
                if self.places.acquire(blocking=False):
                    threading.Thread(target=self.converse, args=(connection,), daemon=True).start()
                else:
                    self.tell(IndexRefused("a connection", "too many connections"))
                    connection.close()

    def converse(self, connection: socket.socket) -> None:
        """Answer one request after the other.

        A jail that hangs up or is silent has nobody to tell.
        """
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(IDLE_SEC)
                # Or a short body waits, some 40 ms, until the far end has acknowledged its head.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self.answer(connection):
                    pass
        finally:
            self.places.release()

    def answer(self, connection: socket.socket) -> bool:
        """Answer one request; whether the connection may carry another."""
        head = read_head(connection)
        if not head:
            return False
        try:
            body, content_type = self.body(head)
        except Refused as refused:
            self.tell(IndexRefused(printable(head.partition(b"\r\n")[0]), str(refused)))
            send_head(connection, refused.status, 0, "text/plain")
            return False
        with body:
            send_head(connection, 200, body.seek(0, os.SEEK_END), content_type)
            body.seek(0)
            connection.sendfile(body)
        return True

    def body(self, head: bytes) -> tuple[BinaryIO, str]:
        """What a request asks for, with its type. Raises Refused."""
        line = printable(head.partition(b"\r\n")[0])
        if self.search("index request", line, head):
            raise Refused(403, "it carries a decoy's value, or was too much to be searched for one")
        match = REQUEST.fullmatch(head)
        if not match or len(head) > MAX_REQUEST_BYTES:
            raise Refused(400, "not a plain GET of a project page or one of its files")
        with self.upstream.lock:
            if self.offered is None and (python := PYTHON_OF_PIP.search(head)):
                self.python = int(python[1]), int(python[2])
            if match["project"]:
                return self.page(match["project"].decode()), JSON_PAGE
            return self.file(
                match["sha256"].decode(), match["file"].decode()
            ), "application/octet-stream"

    def page(self, project: str) -> BinaryIO:
        """The project's page with every link turned to this gateway.

        Of a project on the denylist it names stand-ins. Raises Refused for a project that the index
        doesn't have, or a page that is no such page.
        """
        if project in self.denylist:
            self.tell(DependencyDenied(project))
        if len(self.known) > MAX_KNOWN:
            raise Refused(403, "the pages of this run name too many files")
        given = self.given if project == self.order.package_name else None
        if given and given.in_hand:
            return page_of(project, [self.give_out(given.in_hand)])
        self.upstream.is_needed = True
        page_url, data = f"{self.upstream.url}/{project}/", io.BytesIO()
        is_target = project == self.order.package_name and self.offered is None
        if is_target:
            self.offered = Offered()
        try:
            self.upstream.fetch(page_url, JSON_PAGE, data, MAX_PAGE_BYTES)
        except Refused as refused:
            kept = given.find_kept(str(refused)) if given and refused.status == 404 else None
            if not kept:
                raise
            return page_of(project, [self.give_out(kept)])
        files = []
        try:
            said = json.loads(data.getvalue())
            entries = said["files"]
            if is_target:
                self.offered = read_page(said, self.order.version)
            if given and not any(
                is_of_order(self.order, str(entry["filename"])) for entry in entries
            ):
                kept = given.find_kept(status_of(said))
                files += [self.give_out(kept)] if kept else []
            if project in self.denylist:
                files += self.stand_ins_for(project, entries)
                entries = []
            for entry in self.fitting(project, entries):
                offer = self.offer(page_url, entry)
                self.note_release(project, str(entry["filename"]))
                if offer and project == self.order.package_name:
                    self.note_file(offer)
                if offer and self.is_wanted(project, offer["filename"]) and self.is_bearable(offer):
                    files.append(offer)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise Refused(502, f"no JSON project page (PEP 691): {type(error).__name__}") from error
        return page_of(project, files)

    def give_out(self, sample: Sample) -> dict[str, Any]:
        """The entry of a file that is not the index's."""
        self.known[sample.sha256, sample.name] = ("", sample.sha256)
        return sample.entry()

    def offer(self, page_url: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        """One file of a page for the jail, None when it may not have it: no sha256, an odd name, a
        foreign host.

        `{"filename": "six-1.17.0-py2.py3-none-any.whl", "url": "https://...", "hashes": {"sha256":
        "4721..."}, "requires-python": ">=2.7", "core-metadata": {"sha256": "..."}}`
        """
        name, digest = str(entry["filename"]), str(entry["hashes"].get("sha256"))
        url = urljoin(page_url, entry["url"])
        if (
            not FILE_NAME.fullmatch(name)
            or not SHA256.fullmatch(digest)
            or not self.upstream.allowed(url)
        ):
            self.tell(IndexRefused(printable(url.encode(errors="replace")), "bad link"))
            return None
        self.known[digest, name] = (url, digest)
        offer = {"filename": name, "url": f"/files/{digest}/{name}", "hashes": {"sha256": digest}}
        for field in PASSED_ON:
            if field in entry:
                offer[field] = entry[field]
        metadata = entry.get("core-metadata")
        if isinstance(metadata, dict) and SHA256.fullmatch(str(metadata.get("sha256"))):
            self.known[digest, f"{name}.metadata"] = (f"{url}.metadata", metadata["sha256"])
            offer["core-metadata"] = {"sha256": metadata["sha256"]}
        return offer

    def note_file(self, offer: dict[str, Any]) -> None:
        """Remember a file of the target, of whatever release."""
        name, digest = offer["filename"], offer["hashes"]["sha256"]
        url, _ = self.known[digest, name]
        self.upstream.files[name] = NamedFile(url, digest, bool(offer.get("yanked")))

    def stand_ins_for(self, project: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A stand-in for each version on a page."""
        offers = []
        for version in versions_of(str(entry["filename"]) for entry in entries):
            name, wheel = stand_in(project, version)
            digest = sha256_of(wheel)
            self.stand_ins[digest, name] = wheel
            url = f"/files/{digest}/{name}"
            offers.append({"filename": name, "url": url, "hashes": {"sha256": digest}})
        return offers

    def is_bearable(self, offer: dict[str, Any]) -> bool:
        """Whether it is small enough for something that nobody declared to need."""
        size = offer.get("size")
        return not self.is_second or not isinstance(size, int) or size <= MAX_SECOND_FILE_BYTES

    def note_release(self, project: str, name: str) -> None:
        """Keep the name of a file of the release that is looked at."""
        is_target = project == self.order.package_name and len(self.release) < MAX_RELEASE_FILES
        if is_target and FILE_NAME.fullmatch(name) and is_of_version(name, self.order.version):
            self.release.add(name)

    def fitting(self, project: str, entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """What pip may take of a page. The target's is seen whole: a person may name any file."""
        for entry in entries:
            if project == self.order.package_name or may_fit(str(entry["filename"]), self.own_tag):
                yield entry

    def is_wanted(self, project: str, name: str) -> bool:
        """Whether the order's `artifact` lets pip see this file. Other projects are seen whole."""
        artifact = self.order.artifact
        if project != self.order.package_name:
            return True
        if self.is_second and [self.order.version] != versions_of([name.lower()]):
            return False
        if not artifact:
            return True
        if artifact in ("wheel", "sdist"):
            return name.endswith(".whl") == (artifact == "wheel")
        return name == artifact

    def file(self, sha256: str, name: str) -> BinaryIO:
        """The verified bytes of a file that a page named, from the cache or from upstream.

        Raises Refused.
        """
        if (sha256, name) in self.stand_ins:
            return io.BytesIO(self.stand_ins[sha256, name])
        if (sha256, name) not in self.known:
            raise Refused(404, "no page of this run named that file")
        url, digest = self.known[sha256, name]
        file = self.cache.find(digest)
        from_cache = file is not None
        if file:
            self.upstream.spend(os.fstat(file.fileno()).st_size)
        elif not url:
            raise Refused(502, "the sample is in PIP_CACHE_DIR no more")
        else:
            file = self.cache.download(self.upstream, url, digest)
        if not name.endswith(".metadata"):
            size_bytes = os.fstat(file.fileno()).st_size
            where = printable(url.encode(errors="replace"))[:MAX_TEXT_CHARS]
            self.tell(Downloaded(name, size_bytes, digest, from_cache, where))
        return file
