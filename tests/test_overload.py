"""More requests than the service can work on: it reports what it accepts, refuses the rest at once,
lets others in."""

import http.client
import json
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler

import pytest
from conftest import Serve, Service, patched
from soak import Tally, ask, hammer, idlers, size, unreported
from standins import Discord, Index, Reply, wait_for

MIB = 1 << 20
CLIENTS, SECONDS = 60, 10.0
GROWTH_BYTES = 16 * MIB  # what memory may grow by, once what is made once is made


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})


def test_a_full_queue_refuses_at_once_and_what_was_accepted_is_reported(
    serve: Serve, discord: Discord
) -> None:
    with serve(
        QUEUE_LIMIT=4, PER_IP_RATE_LIMIT=60, PER_IP_RATE_WINDOW_SEC=60, LOG_LEVEL="WARNING"
    ) as service:
        warm = hammer(service.port, service.token, CLIENTS, 3)
        before = size(service.process.pid)
        tally = hammer(service.port, service.token, CLIENTS, SECONDS)
        accepted = warm.accepted + tally.accepted
        assert unreported(service, discord, accepted, 60) == []
        after = size(service.process.pid)
        print(f"{tally.statuses}, {len(accepted)} accepted, {before} -> {after}")
        print(
            f"latency: median {tally.quantile_sec(0.5):.3f} s,"
            f" 99 % {tally.quantile_sec(0.99):.3f} s"
        )
        assert tally.faults == Counter()
        assert accepted
        assert tally.statuses[503] > 0
        assert tally.statuses[429] > 0
        assert tally.quantile_sec(0.99) < 10
        assert after.rss_bytes - before.rss_bytes < GROWTH_BYTES
        assert after.descriptors <= before.descriptors + 10
        assert after.threads <= before.threads + 2
        # The buckets are the clients' own: somebody else gets in as soon as there is room.
        assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
        assert "Traceback" not in service.log.read_text()
    assert len(discord.messages) == len(accepted) + 1


def test_the_queue_never_holds_more_than_its_limit(serve: Serve, index: Index) -> None:
    opened = threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        opened.wait(60)
        Reply(404)(exchange)

    index.answer("/simple/slow/", wait)
    try:
        with serve(MAX_CONCURRENCY=1, QUEUE_LIMIT=3) as service:
            service.accept("slow")
            tally = hammer(service.port, service.token, 30, 2)
            assert (
                len(tally.accepted) == 3
            )  # one runs, three wait: whatever comes at the same moment
            assert set(tally.statuses) == {202, 503}
            assert tally.faults == Counter()
            opened.set()
            for run_id in tally.accepted:
                service.finished(run_id, 60)
    finally:
        opened.set()


def test_no_queue_at_all_is_a_queue(serve: Serve) -> None:
    with serve(MAX_CONCURRENCY=1, QUEUE_LIMIT=0) as service:
        assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
        wait_for(lambda: service.post({"package_name": "tiny", "version": "1.0"}).status == 202, 20)


def test_half_open_and_slow_clients_keep_nobody_out(serve: Serve, discord: Discord) -> None:
    with serve(**patched(MAX_HEADERS_SEC=6, MAX_REQUEST_SEC=6)) as service:
        before = size(service.process.pid)
        with idlers(service.port, service.token, 100) as sockets:
            assert len(sockets) == 100
            answers = Tally()
            for _ in range(8):
                ask(service.port, service.token, "127.0.0.1", answers)
            assert answers.faults == Counter()
            assert answers.statuses[202] > 0
            assert answers.quantile_sec(1) < 5
            assert service.healthy()
            assert unreported(service, discord, answers.accepted, 60) == []
        wait_for(lambda: size(service.process.pid).descriptors <= before.descriptors + 5, 40)


def test_clients_that_do_not_read_keep_nobody_out(serve: Serve, index: Index) -> None:
    noise = "import os, sys\nsys.stdout.write(os.urandom(400_000).hex())\n"
    index.add_wheel("noisy", "1.0", {"noisy.py": noise})
    with serve() as service, ExitStack() as stack:
        run_id = service.accept("noisy", mode="import")
        service.finished(run_id, 60)
        before = size(service.process.pid)
        request = f"GET /v1/triage/{run_id} HTTP/1.1\r\nHost: x\r\n"
        request += f"Authorization: Bearer {service.token}\r\n\r\n"
        for number in range(40):
            source = (f"127.3.0.{number // 10 + 1}", 0)
            deaf = socket.create_connection(("127.0.0.1", service.port), 20, source)
            stack.enter_context(deaf).sendall(request.encode() * 3)
        begun = time.monotonic()
        assert service.get(f"/v1/triage/{run_id}").status == 200
        assert service.finished(service.accept("tiny"), 60)["outcome"] == "ok"
        assert time.monotonic() - begun < 30
        grown = size(service.process.pid).rss_bytes - before.rss_bytes
        print(f"{grown / MIB:.1f} MiB for 40 clients that don't read")
        assert grown < 256 * MIB


def test_one_peer_s_many_connections_keep_nobody_out(serve: Serve) -> None:
    with serve() as service, ExitStack() as stack:
        for _ in range(700):
            greedy = socket.create_connection(
                ("127.0.0.1", service.port), source_address=("127.0.0.9", 0), timeout=20
            )
            stack.enter_context(greedy)
        answers = Tally()
        for number in range(5):
            ask(service.port, service.token, f"127.0.0.{10 + number}", answers)
        assert answers.faults == Counter()
        assert answers.quantile_sec(1) < 10
        assert size(service.process.pid).descriptors < 300


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "slow"])
def test_a_client_that_is_never_done_is_cut_off(serve: Serve, drip: bytes) -> None:
    """A connection costs one of five hundred places."""
    times = {"MAX_HEADERS_SEC": 3, "MAX_REQUEST_SEC": 3}
    with serve(**patched(**times)) as service, service.connect() as connection:
        connection.settimeout(60)
        connection.sendall(b"POST /v1/triage HTTP/1.1\r\nHost: x\r\n")
        connection.settimeout(0.5)
        begun, received = time.monotonic(), None
        while received is None and time.monotonic() < begun + 30:
            with suppress(TimeoutError):
                connection.sendall(drip)
                received = connection.recv(65536)
        assert received == b""
        assert time.monotonic() > begun + 2


def keep_alive(service: Service, count: int) -> Counter[int]:
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    body = json.dumps({"package_name": "tiny"}).encode()
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}
    for _ in range(count):
        connection.request("POST", "/v1/triage", body, headers)
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
    connection.close()
    return statuses


def test_a_client_that_keeps_its_connection_is_limited_like_any_other(serve: Serve) -> None:
    with serve(PER_IP_RATE_LIMIT=5, PER_IP_RATE_WINDOW_SEC=3600) as service:
        assert keep_alive(service, 50) == {422: 5, 429: 45}
