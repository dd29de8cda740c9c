"""The index on the jail's loopback: a real gateway between real clients and a stand-in index."""

import contextlib
import errno
import hashlib
import http.client
import io
import json
import os
import socket
import ssl
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from standins import Endless, Index, Reply, redirect, wait_for

from jail.orders import Order
from jail.watch import gateway as gateway_room
from jail.watch import upstream as upstream_room
from jail.watch.events import DependencyDenied, Downloaded, Event, IndexRefused
from jail.watch.gateway import Gateway
from jail.watch.upstream import PackageCache, Refused, Upstream, file_hosts

ORDER = Order("triage", "0" * 32, "calm", "1.0", "install")
MAX_BYTES = 1_000_000


class Jail:
    """A client of a gateway, and what the gateway told."""

    def __init__(self, index: Index, folder: Path) -> None:
        self.events: list[Event] = []
        self.searched: list[bytes] = []
        self.upstream = Upstream(index.url, MAX_BYTES)
        self.cache = PackageCache(folder)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.gateway = self.make(ORDER)

    def make(self, order: Order) -> Gateway:
        """A gateway that takes connections in place of the last one."""
        denylist = ("torch",)
        return Gateway(order, denylist, self.upstream, self.cache, self.search, self.events.append)

    def search(self, kind: str, where: str, data: bytes) -> bool:
        self.searched.append(data)
        return b"bait" in data

    def start(self) -> None:
        self.upstream.learn_hosts(())
        self.gateway.start(self.listener)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address[0], self.address[1], timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def page(self, project: str) -> list[dict[str, Any]]:
        status, body = self.get(f"/simple/{project}/")
        assert status == 200
        files: list[dict[str, Any]] = json.loads(body)["files"]
        return files

    def say(self, data: bytes) -> bytes:
        """Send these bytes; all that is answered."""
        with socket.create_connection(self.address, timeout=20) as client:
            answer = b""
            # Who hangs up before all was read resets the connection.
            with contextlib.suppress(ConnectionError):
                client.sendall(data)
                # Not connected any more, it may be.
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
                while block := client.recv(1 << 16):
                    answer += block
            return answer

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def unstarted(index: Index, tmp_path: Path) -> Iterator[Jail]:
    index.add_wheel("calm", "1.0", {"calm.py": ""})
    index.add_sdist("calm", "1.0", {"calm.py": ""})
    jail = Jail(index, tmp_path)
    yield jail
    jail.gateway.close()


@pytest.fixture
def jail(unstarted: Jail) -> Jail:
    unstarted.start()
    return unstarted


# What may be asked, and how.


class FullTable(socket.socket):
    """A listener of a process that has no descriptor left."""

    asked = 0

    def accept(self) -> NoReturn:
        self.asked += 1
        assert self.asked < 50, "it does not wait"
        raise OSError(errno.EMFILE, "Too many open files")


class ThreeWaits(threading.Event):
    """Is set when it was waited for three times."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        if self.waits == 3:
            self.set()
        return self.is_set()


def test_a_gateway_without_a_descriptor_waits_for_one(jail: Jail) -> None:
    jail.upstream.ready.set()
    jail.gateway.closed = waiting = ThreeWaits()
    listener = FullTable()
    jail.gateway.listen(listener)
    assert (listener.asked, waiting.waits) == (3, 3)


def test_the_body_of_an_answer_does_not_wait_for_word_of_its_head(jail: Jail) -> None:
    """Or each page costs pip 40 ms: the time after which a kernel acknowledges what nobody
    answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=20)
        served, _ = listener.accept()
        with client, served.dup() as seen:
            client.sendall(b"GET /simple/calm/ HTTP/1.1\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            jail.gateway.places.acquire()
            jail.gateway.converse(served)
            assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_page_names_its_files_at_the_gateway_and_each_is_given_out(jail: Jail) -> None:
    files = jail.page("calm")
    assert [file["filename"] for file in files] == ["calm-1.0-py3-none-any.whl", "calm-1.0.tar.gz"]
    for file in files:
        digest = file["hashes"]["sha256"]
        assert file["url"] == f"/files/{digest}/{file['filename']}"
        status, body = jail.get(file["url"])
        assert (status, hashlib.sha256(body).hexdigest()) == (200, digest)
    assert [(event.file, event.from_cache) for event in jail.told(Downloaded)] == [
        ("calm-1.0-py3-none-any.whl", False),
        ("calm-1.0.tar.gz", False),
    ]


def test_metadata_is_given_out_and_is_no_download(jail: Jail) -> None:
    file = jail.page("calm")[0]
    status, body = jail.get(file["url"] + ".metadata")
    assert status == 200
    assert hashlib.sha256(body).hexdigest() == file["core-metadata"]["sha256"]
    assert jail.told(Downloaded) == []


def test_one_connection_carries_many_requests(jail: Jail) -> None:
    connection = http.client.HTTPConnection(jail.address[0], jail.address[1], timeout=20)
    with contextlib.closing(connection):
        for _ in range(3):
            connection.request("GET", "/simple/calm/")
            assert connection.getresponse().read()


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST /simple/calm/ HTTP/1.1",
        b"HEAD /simple/calm/ HTTP/1.1",
        b"CONNECT example.com:443 HTTP/1.1",
        b"GET http://example.com/ HTTP/1.1",
        b"GET /simple/calm/?q=1 HTTP/1.1",
        b"GET /simple/Calm/ HTTP/1.1",
        b"GET /simple/calm HTTP/1.1",
        b"GET /simple/ca--lm/ HTTP/1.1",
        b"GET /simple/" + b"a" * 201 + b"/ HTTP/1.1",
        b"GET /simple/../files/ HTTP/1.1",
        b"GET / HTTP/1.1",
        b"GET /simple/calm/ HTTP/1.0",
        b"\x16\x03\x01",
    ],
)
def test_all_else_is_refused_and_goes_nowhere(
    jail: Jail, index: Index, request_line: bytes
) -> None:
    before = len(index.requests)
    answer = jail.say(request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert len(index.requests) == before
    assert len(jail.told(IndexRefused)) == 1


def test_a_body_is_no_request(jail: Jail) -> None:
    answer = jail.say(b"GET /simple/calm/ HTTP/1.1\r\nContent-Length: 4\r\n\r\ndata")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_headers_without_end_are_refused(jail: Jail) -> None:
    answer = jail.say(b"GET /simple/calm/ HTTP/1.1\r\n" + b"x: y\r\n" * 10_000)
    assert answer.startswith(b"HTTP/1.1 400 ") or not answer


def test_no_header_of_the_jail_goes_upstream(jail: Jail, index: Index) -> None:
    jail.say(b"GET /simple/calm/ HTTP/1.1\r\nUser-Agent: secret\r\nX-Data: secret\r\n\r\n")
    assert "secret" not in str(index.headers)


def test_a_file_that_no_page_named_is_not_asked_for(jail: Jail, index: Index) -> None:
    before = len(index.requests)
    status, _ = jail.get(f"/files/{'0' * 64}/calm-1.0.tar.gz")
    assert status == 404
    assert len(index.requests) == before


def test_a_name_that_carries_bait_goes_nowhere(jail: Jail, index: Index) -> None:
    before = len(index.requests)
    assert jail.get("/simple/this-is-bait/")[0] == 403
    assert len(index.requests) == before


def test_of_the_denylist_only_stand_ins_are_given_out(jail: Jail, index: Index) -> None:
    """One for each version that there is: what is required may be pinned."""
    index.add_wheel("torch", "2.5.1", {"torch/__init__.py": "evil = True\n"})
    index.add_wheel("torch", "2.6.0", {"torch/__init__.py": "evil = True\n"})
    status, body = jail.get("/simple/torch/")
    assert (status, jail.told(DependencyDenied)) == (200, [DependencyDenied("torch")])
    files = json.loads(body)["files"]
    assert [file["filename"] for file in files] == [
        "torch-2.5.1-py3-none-any.whl",
        "torch-2.6.0-py3-none-any.whl",
    ]
    for file in files:
        status, data = jail.get(file["url"])
        assert (status, hashlib.sha256(data).hexdigest()) == (200, file["hashes"]["sha256"])
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert b"evil" not in archive.read("torch/__init__.py")
    assert not [path for _, path in index.requests if path.startswith("/files/torch")]


def test_a_denied_project_that_the_index_does_not_have_is_not_found(jail: Jail) -> None:
    assert jail.get("/simple/torch/")[0] == 404


def is_served(jail: Jail) -> bool:
    """Whether there is a place; until then connections are closed without an answer."""
    try:
        return jail.get("/simple/calm/")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_flood_of_connections_is_bounded(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_room, "IDLE_SEC", 60.0)
    with contextlib.ExitStack() as clients:
        for _ in range(gateway_room.MAX_CLIENTS):
            clients.enter_context(socket.create_connection(jail.address))
        with socket.create_connection(jail.address, timeout=20) as one_more:
            assert one_more.recv(1) == b""
    assert jail.told(IndexRefused)[0].reason == "too many connections"
    wait_for(lambda: is_served(jail))


def test_it_ends_when_its_jail_has_ended(unstarted: Jail) -> None:
    unstarted.start()
    unstarted.gateway.close()
    wait_for(lambda: unstarted.listener.fileno() == -1)


# Which artefacts of the target are offered.


@pytest.mark.parametrize(
    ("artifact", "names"),
    [
        (None, ["calm-1.0-py3-none-any.whl", "calm-1.0.tar.gz"]),
        ("wheel", ["calm-1.0-py3-none-any.whl"]),
        ("sdist", ["calm-1.0.tar.gz"]),
        ("calm-1.0.tar.gz", ["calm-1.0.tar.gz"]),
        ("calm-9.9.tar.gz", []),
    ],
)
def test_an_artifact_hides_the_others_of_the_target(
    unstarted: Jail, index: Index, artifact: str | None, names: list[str]
) -> None:
    index.add_wheel("other", "1.0", {"other.py": ""})
    index.add_sdist("other", "1.0", {"other.py": ""})
    unstarted.gateway = unstarted.make(ORDER._replace(artifact=artifact))
    unstarted.start()
    assert [file["filename"] for file in unstarted.page("calm")] == names
    assert len(unstarted.page("other")) == 2


# What the index may answer.


def test_a_project_that_is_not_there_is_not_found(jail: Jail) -> None:
    assert jail.get("/simple/absent/")[0] == 404
    assert jail.told(IndexRefused)[0].reason == "the index answered 404"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"files": 1}',
        b'{"files": [1]}',
        b'{"files": [{"filename": "x"}]}',
        b'{"files": [{"filename": "x", "hashes": 1, "url": "x"}]}',
        b'{"files": [{"filename": "x", "hashes": {}, "url": 1}]}',
        b"[" * 100_000,
    ],
)
def test_a_page_that_is_none_is_refused(jail: Jail, index: Index, body: bytes) -> None:
    index.answer("/simple/odd/", Reply(body=body))
    assert jail.get("/simple/odd/")[0] == 502
    assert "PEP 691" in jail.told(IndexRefused)[0].reason


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "https://elsewhere.example/calm-1.0.tar.gz"},
        {"url": "ftp://127.0.0.1/x"},
        {"hashes": {}},
        {"hashes": {"sha256": "short"}},
        {"filename": "../../etc/passwd"},
        {"filename": "-r"},
        {"filename": "ca\nlm"},
    ],
)
def test_an_odd_link_is_not_offered(jail: Jail, index: Index, fields: dict[str, Any]) -> None:
    index.add_file("odd", "odd-1.0.tar.gz", b"data")
    entry = index.entry("odd")
    entry.update(fields)
    assert jail.page("odd") == []
    assert [event.reason for event in jail.told(IndexRefused)] == ["bad link"]


def test_a_file_with_another_sha256_is_not_given_out(jail: Jail, index: Index) -> None:
    file = jail.page("calm")[1]
    index.answer("/files/calm-1.0.tar.gz", Reply(body=b"other"))
    assert jail.get(file["url"])[0] == 502
    assert "sha256" in jail.told(IndexRefused)[0].reason
    assert jail.told(Downloaded) == []
    assert not any(jail.cache.folder.iterdir())


def test_redirects_lead_to_allowed_hosts_only(jail: Jail, index: Index) -> None:
    index.answer("/simple/near/", redirect(f"{index.url}/calm/"))
    index.answer("/simple/far/", redirect("https://elsewhere.example/"))
    index.answer("/simple/round/", redirect("/simple/round/"))
    assert jail.get("/simple/near/")[0] == 200
    assert jail.get("/simple/far/")[0] == 403
    assert jail.get("/simple/round/")[0] == 502


def test_an_endless_page_is_cut_off(
    jail: Jail, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_room, "MAX_PAGE_BYTES", 10_000)
    index.answer("/simple/endless/", Endless())
    assert jail.get("/simple/endless/")[0] == 502


def test_the_download_limit_counts_everything(jail: Jail, index: Index) -> None:
    index.add_file("big", "big-1.0.tar.gz", os.urandom(MAX_BYTES))
    assert jail.get(jail.page("big")[0]["url"])[0] == 403
    assert jail.upstream.left_bytes < 0
    assert jail.get("/simple/calm/")[0] == 403


# The cache.


def test_a_kept_file_is_taken_from_the_cache_and_checked_again(
    jail: Jail, index: Index, tmp_path: Path
) -> None:
    file = jail.page("calm")[1]
    digest = file["hashes"]["sha256"]
    assert jail.get(file["url"])[0] == 200
    assert [path.name for path in tmp_path.iterdir()] == [digest]
    index.answer("/files/calm-1.0.tar.gz", Reply(500))
    assert jail.get(file["url"])[0] == 200
    assert [event.from_cache for event in jail.told(Downloaded)] == [False, True]
    (tmp_path / digest).write_bytes(b"changed")
    assert jail.get(file["url"])[0] == 502
    assert not (tmp_path / digest).exists()


def test_what_comes_from_the_cache_counts_too(jail: Jail, index: Index, tmp_path: Path) -> None:
    data = os.urandom(MAX_BYTES)
    (tmp_path / hashlib.sha256(data).hexdigest()).write_bytes(data)
    index.add_file("big", "big-1.0.tar.gz", data)
    assert jail.get(jail.page("big")[0]["url"])[0] == 403


def test_a_link_in_the_cache_leads_nowhere(jail: Jail, tmp_path: Path) -> None:
    file = jail.page("calm")[1]
    outside = tmp_path.parent / "outside"
    outside.write_bytes(b"x")
    (tmp_path / file["hashes"]["sha256"]).symlink_to(outside)
    assert jail.get(file["url"])[0] == 200
    assert outside.exists()


def test_the_oldest_files_go_when_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PackageCache(tmp_path)
    now_sec = time.time()
    for age in range(5):
        path = tmp_path / str(age)
        path.write_bytes(bytes(100))
        os.utime(path, (now_sec - age, now_sec - age))
    monkeypatch.setattr(upstream_room, "MAX_CACHE_BYTES", 250)
    cache.trim()
    assert len(list(tmp_path.iterdir())) == 5
    cache.has_grown = True
    cache.trim()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_what_a_taken_over_watch_left_in_the_cache_ends_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PackageCache(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "other folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    for name in ("pipe", "folder", "loop", "gone"):
        assert cache.find(name) is None
    assert not (tmp_path / "pipe").exists()
    monkeypatch.setattr(upstream_room, "MAX_CACHE_BYTES", 0)
    cache.has_grown = True
    cache.trim()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "other folder"]


# The hosts that files may come from.


def test_the_page_of_pip_names_the_hosts(index: Index) -> None:
    own = index.origin.partition("//")[2]
    assert file_hosts(index.url, ()) == [own]
    index.entry("pip", url="https://files.example/pip.whl")
    assert file_hosts(index.url, ()) == sorted([own, "files.example"])


def test_configured_hosts_need_no_answer(index: Index) -> None:
    own = index.origin.partition("//")[2]
    assert file_hosts(index.url, ("files.example",)) == sorted([own, "files.example"])
    assert index.requests == []


def test_an_index_without_pip_names_no_others() -> None:
    with Index() as empty:
        assert file_hosts(empty.url, ()) == [empty.origin.partition("//")[2]]


@pytest.mark.parametrize(
    "reply",
    [Reply(500), Reply(body=b"<html>"), Reply(body=b"[1]"), redirect("https://elsewhere.example/")],
)
def test_an_index_that_does_not_answer_as_one_is_told(index: Index, reply: Reply) -> None:
    index.answer("/simple/pip/", reply)
    with pytest.raises(Refused, match="does not answer as a JSON package index"):
        file_hosts(index.url, ())


def test_an_index_that_is_down_is_told(index: Index) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(Refused, match="does not answer as a JSON package index"):
        file_hosts(f"http://127.0.0.1:{port}/simple", ())


def test_asking_for_the_hosts_spends_nothing_of_the_run(index: Index) -> None:
    upstream = Upstream(index.url, 10)
    upstream.learn_hosts(())
    assert upstream.left_bytes == 10


def test_nobody_is_served_before_the_hosts_are_known(unstarted: Jail) -> None:
    unstarted.gateway.start(unstarted.listener)
    with socket.create_connection(unstarted.address) as early:
        early.sendall(b"GET /simple/calm/ HTTP/1.1\r\n\r\n")
        early.settimeout(0.2)
        with pytest.raises(TimeoutError):
            early.recv(1)
        unstarted.upstream.learn_hosts(())
        early.settimeout(20)
        assert early.recv(12) == b"HTTP/1.1 200"


def test_a_certificate_that_nobody_trusts_ends_the_connection(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    make_certificate(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with pytest.raises(Refused, match="CERTIFICATE_VERIFY_FAILED"):
            file_hosts(f"https://127.0.0.1:{listener.getsockname()[1]}/simple", ())


def make_certificate(certificate: Path, key: Path) -> None:
    """A certificate for 127.0.0.1 that it has signed itself."""

    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl += ["-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*openssl, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
