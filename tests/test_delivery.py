"""A finished run reaches Discord once, however Discord misbehaves, over real sockets."""

import hashlib
import http.client
import json
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import Serve, Service, Snakehook
from standins import (
    LOST_ANSWER,
    SLOW_ANSWER,
    Discord,
    Handler,
    Index,
    Recorded,
    Reply,
    drop,
    hang,
    json_reply,
    redirect,
    too_many,
    too_many_header,
    too_many_html,
    wait_for,
)

import snakehook as program
from snakehook import STATEMENTS, Delivery, KeeperLink, Store, TriageRequest, make_own_result

RUN_ID = "5" * 32
MIB = 1 << 20
LOST = re.compile("lost|cut short")  # what `last_error` says of an attempt whose end is not known
SIX = TriageRequest("six", "1.16.0", "install")
OWN = make_own_result(SIX, "ok", "all went well")


def finished_run(
    page: bytes = b"<p>", evidence: bytes = b"{}", embed: bytes = OWN.embed
) -> dict[str, Any]:
    return {"run_id": RUN_ID, "embed": embed, "page": page, "evidence": evidence, "dropped": b""}


def deliver(discord: Discord, attempts: int = 1, **pieces: bytes) -> tuple[Delivery, float]:
    begun = Delivery("pending", attempts)
    delivery, pause_sec, _ = program.deliver(discord.url, finished_run(**pieces), begun)
    assert discord.token not in str(delivery)
    return delivery, pause_sec


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})


def chunks_that_break_off(exchange: BaseHTTPRequestHandler) -> None:
    """A 429 of a proxy that dies while it sends the body."""
    exchange.send_response(429)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.send_header("Retry-After", "3")
    exchange.end_headers()
    exchange.wfile.write(b'40\r\n{"retry_after"')
    exchange.close_connection = True


@pytest.mark.parametrize(
    ("answer", "told_sec"),
    [
        (too_many(1.337), 1.337),
        (too_many(64.57, everywhere=True), 64.57),
        (json_reply(429, {"retry_after": 2}), 2),
        (json_reply(429, {"retry_after": "2.5"}), 2.5),
        (too_many_header(7), 7),
        (too_many_header("0.25"), 0.25),
        (too_many_html(9), 9),
        (Reply(429, "[]", {"Retry-After": "3"}), 3),
        (json_reply(429, {"retry_after": None}, {"Retry-After": "3"}), 3),
        (json_reply(429, {"message": "no time"}, {"Retry-After": "3"}), 3),
        (Reply(429, "[" * 60_000, {"Retry-After": "3"}), 3),
        (Reply(429, b"\xff\xfe{", {"Retry-After": "3"}), 3),
        (Reply(429, '{"retry_after": 1', {"Retry-After": "3", "Content-Length": "400"}), 3),
        (chunks_that_break_off, 3),
    ],
    ids=lambda value: str(value) if isinstance(value, int | float) else "",
)
def test_429_waits_as_told(discord: Discord, answer: Handler, told_sec: float) -> None:
    discord.script(answer)
    delivery, pause_sec = deliver(discord)
    assert (delivery.state, delivery.last_error) == ("pending", "Discord answered 429")
    assert pause_sec == pytest.approx(told_sec)
    assert len(discord.attempts) == 1  # not asked again before its time


@pytest.mark.parametrize(
    "answer",
    [
        too_many_html(),
        too_many_header("Wed, 21 Oct 2026 07:28:00 GMT"),
        too_many_header("soon"),
        Reply(429),
        json_reply(429, {"retry_after": [1]}),
        json_reply(429, {"retry_after": 10**400}),
    ],
    ids=["html", "date", "word", "nothing", "list", "huge"],
)
def test_429_without_a_time_that_can_be_read_waits_a_while(
    discord: Discord, answer: Handler
) -> None:
    discord.script(answer)
    delivery, pause_sec = deliver(discord)
    assert delivery.state == "pending"
    assert 10 <= pause_sec <= 3600


@pytest.mark.parametrize("told", ["NaN", "-5", "0", "Infinity", "1e9", "true"])
def test_429_with_a_nonsense_time_neither_hammers_nor_waits_for_ever(
    discord: Discord, told: str
) -> None:
    discord.script(Reply(429, f'{{"retry_after": {told}}}'))
    assert 0.1 <= deliver(discord)[1] <= 3600


def test_429_holds_back_every_message_until_the_time_it_named(
    serve: Serve, discord: Discord
) -> None:
    discord.script(too_many(2.5))
    with serve() as service:
        runs = [service.accept("tiny"), service.accept("tiny")]
        reports = [service.finished(run, 60) for run in runs]
    assert {report["delivery"]["state"] for report in reports} == {"delivered"}
    assert len(discord.messages) == 2
    first, second = (attempt.at for attempt in discord.attempts[:2])
    assert 2.5 <= second - first < 20


def half_an_answer(exchange: BaseHTTPRequestHandler) -> None:
    exchange.wfile.write(b"HTTP/1.1 20")
    exchange.close_connection = True


def babble(exchange: BaseHTTPRequestHandler) -> None:
    exchange.wfile.write(b"\x16\x03\x01 not HTTP\r\n\r\n")
    exchange.close_connection = True


@pytest.mark.parametrize(
    "answer",
    [
        drop,
        hang,
        half_an_answer,
        babble,
        LOST_ANSWER,
        *(Reply(code, "no") for code in (500, 502, 503, 504, 520, 599)),
    ],
    ids=["drop", "hang", "half", "babble", "lost", "500", "502", "503", "504", "520", "599"],
)
def test_trouble_is_tried_again_after_a_pause(
    discord: Discord, answer: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "DISCORD_TIMEOUT_SEC", 0.4)
    discord.script(answer)
    delivery, pause_sec = deliver(discord)
    assert (delivery.state, delivery.attempts) == ("pending", 1)
    assert delivery.last_error
    assert 0.5 <= pause_sec <= 4


def test_a_server_that_does_not_speak_tls_is_tried_again(discord: Discord) -> None:
    url = discord.url.replace("http:", "https:")
    delivery, pause_sec, _ = program.deliver(url, finished_run(), Delivery("pending", 1))
    assert delivery.state == "pending"
    assert "SSL" in str(delivery.last_error)
    assert discord.token not in str(delivery)
    assert pause_sec > 0


def test_pauses_grow_to_a_bound_and_differ(discord: Discord) -> None:
    url = "http://127.0.0.1:1/api/webhooks/1/secret"  # nobody listens
    pauses = []
    for attempts in range(1, 16):
        several = [
            program.deliver(url, finished_run(), Delivery("pending", attempts))[1] for _ in range(5)
        ]
        assert len(set(several)) > 1  # jittered
        pauses.append(max(several))
    assert pauses[0] <= 4
    assert max(pauses) <= 900
    assert min(pauses[10:]) >= 120
    for early, late in zip(pauses[:5], pauses[3:], strict=False):
        assert late > early


@pytest.mark.parametrize("attempts", [1_000, 1_100, 100_000])
def test_an_outage_of_weeks_does_not_end_the_attempts(discord: Discord, attempts: int) -> None:
    discord.script(Reply(503))
    delivery, pause_sec = deliver(discord, attempts)
    assert delivery.state == "pending"
    assert 0 < pause_sec <= 900


def test_a_slow_answer_is_an_answer(discord: Discord) -> None:
    discord.script(SLOW_ANSWER)
    assert deliver(discord) == (Delivery("delivered", 1, None), 0)
    assert len(discord.messages) == 1


def test_5xx_and_dropped_connections_are_retried_until_it_is_through(
    tmp_path: Path, discord: Discord
) -> None:
    discord.script(Reply(503, "down"), drop)
    with delivering(tmp_path, discord) as (service, run_id):
        wait_for(lambda: delivery_of(service, run_id)["state"] == "delivered", 30)
        assert delivery_of(service, run_id)["attempts"] == 3
    assert len(discord.messages) == 1
    at = [attempt.at for attempt in discord.attempts]
    assert at[1] - at[0] >= 0.9
    assert at[2] - at[1] >= 1.9


def test_attempts_go_on_across_a_restart(serve: Serve, discord: Discord) -> None:
    discord.script(Reply(500))
    with serve(API_TOKEN="t") as service:
        run_id = service.accept("tiny")
        wait_for(
            lambda: service.report(run_id)["delivery"]["last_error"] == "Discord answered 500", 60
        )
        service.process.kill()
        service.process.wait()
    with serve(API_TOKEN="t") as service:
        delivery = service.finished(run_id, 60)["delivery"]
    assert (delivery["state"], delivery["attempts"], len(discord.messages)) == ("delivered", 2, 1)


def test_a_webhook_that_is_gone_stops_and_shows_in_the_log_and_the_report(
    serve: Serve, discord: Discord
) -> None:
    statuses = (401, 403, 404)
    discord.script(
        *(
            Reply(status, f"no such webhook {discord.path}", {"X-Path": discord.path})
            for status in statuses
        )
    )
    with serve(LOG_LEVEL="DEBUG") as service:
        for count, status in enumerate(statuses, 1):
            run_id = service.accept("tiny")
            refused = service.finished(run_id, 60)["delivery"]
            assert refused == {
                "state": "refused",
                "attempts": 1,
                "last_error": f"Discord answered {status}",
            }

            def refusals(run_id: str = run_id) -> list[str]:
                return [line for line in words(service) if run_id in line and "refused" in line]

            line = wait_for(refusals)
            assert "WARNING" in line[0] and str(status) in line[0]
            assert len(discord.attempts) == count
            assert_secret(service, discord, run_id)
        # The service goes on: the next report is tried again, once.
        assert service.finished(service.accept("tiny"), 60)["delivery"]["state"] == "delivered"


def test_400_falls_back_once_to_a_plain_message(discord: Discord) -> None:
    discord.script(json_reply(400, {"message": "Invalid Form Body", "code": 50035}))
    assert deliver(discord)[0].state == "delivered"
    first, second = discord.attempts
    assert first.headers["content-type"].startswith("multipart/form-data")
    assert second.headers["content-type"].startswith("application/json")
    (message,) = discord.messages
    assert message.files == {}
    assert not message.payload.get("embeds")
    assert RUN_ID in message.payload["content"]
    assert "six 1.16.0" in message.payload["content"]
    assert message.payload["allowed_mentions"] == {"parse": []}
    assert second.path.endswith("?wait=true")


def test_400_twice_is_the_end(discord: Discord) -> None:
    discord.script(Reply(400), Reply(400))
    delivery, _ = deliver(discord)
    assert (delivery.state, delivery.last_error) == ("refused", "Discord answered 400")
    assert len(discord.attempts) == 2


@pytest.mark.parametrize(
    ("second", "pause"), [(too_many(1.5), (1.5, 1.5)), (drop, (0.5, 4)), (Reply(503), (0.5, 4))]
)
def test_trouble_with_the_plain_message_is_tried_again(
    discord: Discord, second: Handler, pause: tuple[float, float]
) -> None:
    discord.script(Reply(400), second)
    delivery, pause_sec = deliver(discord)
    assert delivery.state == "pending"
    assert pause[0] <= pause_sec <= pause[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(discord: Discord, status: int) -> None:
    with Discord() as elsewhere:
        discord.script(redirect(elsewhere.url, status))
        delivery, _ = deliver(discord)
        assert elsewhere.attempts == []
        assert delivery.state != "delivered"
        assert str(status) in str(delivery.last_error)
        assert elsewhere.token not in str(delivery)
    assert len(discord.attempts) == 1


def shown(discord: Discord) -> str:
    (message,) = discord.messages
    return json.dumps(message.payload["embeds"], ensure_ascii=False)


def test_attachments_that_fit_go_along(discord: Discord) -> None:
    files = {"report.html": b"<p>\r\n--x\0", "evidence.jsonl.gz": bytes(range(256)) * 4000}
    assert (
        deliver(discord, page=files["report.html"], evidence=files["evidence.jsonl.gz"])[0].state
        == "delivered"
    )
    assert discord.messages[0].files == files


def test_an_attachment_over_the_limit_is_left_out_and_named(discord: Discord) -> None:
    evidence = bytes(11 * MIB)
    assert deliver(discord, evidence=evidence)[0].state == "delivered"
    assert discord.messages[0].files == {"report.html": b"<p>"}
    assert str(len(evidence)) in shown(discord)
    assert hashlib.sha256(evidence).hexdigest() in shown(discord)
    assert "evidence.jsonl.gz" in shown(discord)


def test_two_attachments_over_the_limit_are_both_named_even_in_a_full_message(
    discord: Discord,
) -> None:
    page, evidence = b"a" * (12 * MIB), b"b" * (11 * MIB)
    embed = json.loads(OWN.embed)
    embed["fields"] = [{"name": "x", "value": "x" * 999} for _ in range(5)]
    full = json.dumps(embed).encode()
    assert deliver(discord, page=page, evidence=evidence, embed=full)[0].state == "delivered"
    assert len(discord.attempts) == 1
    assert discord.messages[0].files == {}
    for data in (page, evidence):
        assert str(len(data)) in shown(discord)
        assert hashlib.sha256(data).hexdigest() in shown(discord)


def test_attachments_that_exceed_the_limit_together_go_in_part(discord: Discord) -> None:
    deliver(discord, page=bytes(6 * MIB), evidence=bytes(6 * MIB))
    assert list(discord.messages[0].files) == ["report.html"]
    assert "evidence.jsonl.gz" in shown(discord)


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_discord_takes_what_is_just_within_the_limit(discord: Discord, spare: int) -> None:
    deliver(discord, page=b"x" * 1000, evidence=bytes(program.MAX_ATTACHED_BYTES - 1000 - spare))
    assert discord.refusals == []
    assert len(discord.messages[0].files) == (1 if spare < 0 else 2)


def test_a_limit_lower_than_ours_costs_the_attachments_not_the_report() -> None:
    with Discord(
        max_request_bytes=MIB
    ) as discord:  # Discord has lowered it before, and other chats have their own
        evidence = bytes(2 * MIB)
        assert deliver(discord, evidence=evidence)[0].state == "delivered"
        assert RUN_ID in shown(discord)
        assert hashlib.sha256(evidence).hexdigest() in shown(discord)


def test_attachments_that_never_get_through_are_left_out_in_the_end(discord: Discord) -> None:
    """On a slow line, or behind a proxy that dislikes large bodies, the report must arrive."""
    assert deliver(discord, 20)[0].state == "delivered"
    assert discord.messages[0].files == {}
    assert "evidence.jsonl.gz" in shown(discord)


def messages_of(discord: Discord, run_id: str) -> int:
    return sum(run_id in json.dumps(message.payload) for message in discord.messages)


@pytest.mark.parametrize("later", [None, too_many(0.1), Reply(503)], ids=["none", "429", "503"])
def test_a_lost_answer_stays_on_record_whatever_comes_after_it(
    tmp_path: Path, discord: Discord, later: Reply | None
) -> None:
    discord.script(LOST_ANSWER, later)
    with delivering(tmp_path, discord) as (service, run_id):
        delivery = delivered(service, run_id)
    assert (delivery["attempts"], len(discord.messages)) == (3 if later else 2, 2)
    assert LOST.search(delivery["last_error"]), delivery


def test_an_attempt_that_a_crash_cut_short_is_on_record_whatever_came_before_it(
    serve: Serve, discord: Discord
) -> None:
    discord.script(Reply(503), Recorded(hang))
    with serve(API_TOKEN="t") as service:
        run_id = service.accept("tiny")
        wait_for(lambda: len(discord.messages) == 1, 60)
        service.process.kill()
        service.process.wait()
    with serve(API_TOKEN="t") as service:
        delivery = service.finished(run_id, 60)["delivery"]
    assert messages_of(discord, run_id) == 2
    assert (delivery["state"], delivery["attempts"]) == ("delivered", 3)
    assert LOST.search(delivery["last_error"]), delivery


class NoKeeper:
    """In place of KeeperLink: says nothing until the service stops."""

    def __init__(self) -> None:
        self.ready: dict[str, socket.socket] = {}
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([shutil.which("true") or "true"])

    def self_check(self) -> dict[str, Any]:
        self.socket.recv(1)
        raise program.ServiceError("no keeper here")


@contextmanager
def delivering(place: Path, discord: Discord) -> Iterator[tuple[program.Service, str]]:
    """A service that finds a finished run in its store, and delivers it."""
    places = {
        "STATE_DIR": str(place),
        "PIP_CACHE_DIR": str(place),
        "JAIL_PYTHON_NAME": "/bin/sh",
        "API_TOKEN": "t",
        "DISCORD_WEBHOOK_URL": discord.url,
    }
    store = Store(place / "snakehook.sqlite")
    run_id = store.add(SIX, 10)
    assert run_id
    assert store.write(STATEMENTS["claim"])
    store.finish(run_id, OWN._replace(page=b"<p>", evidence=b"{}"))
    service = program.Service(program.load_settings(places), cast(KeeperLink, NoKeeper()))
    try:
        yield service, run_id
    finally:
        service.stop()


def delivery_of(service: program.Service, run_id: str) -> dict[str, Any]:
    delivery: dict[str, Any] = json.loads(service.store.report(run_id) or b"{}")["delivery"]
    return delivery


def hurry(service: program.Service) -> None:
    """Make every message due. The pauses are not what is tested here: they are cut short."""
    service.store.write("UPDATE runs SET due_at = 0")
    service.all_wait_until = 0.0
    service.start(service.courier, service.deliver_next)


def delivered(service: program.Service, run_id: str) -> dict[str, Any]:
    """Its delivery, at the end."""

    def done() -> dict[str, Any] | None:
        hurry(service)
        delivery = delivery_of(service, run_id)
        return delivery if delivery["state"] == "delivered" else None

    return wait_for(done, 30, every_sec=0.05) or {}


def test_a_delivery_that_can_t_be_noted_is_not_made_again(
    tmp_path: Path, discord: Discord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discord's answer was not lost, so this must not be the cause of a second message."""
    note, failures = Store.note_delivery, iter([False, True, True])

    def fail(store: Store, run_id: str, delivery: Delivery, due_at: float = 0) -> None:
        if next(failures, False):
            raise sqlite3.OperationalError("database or disk is full")
        note(store, run_id, delivery, due_at)

    monkeypatch.setattr(Store, "note_delivery", fail)
    monkeypatch.setattr(program, "STORE_RETRY_SEC", 0.05)
    with delivering(tmp_path, discord) as (service, run_id):
        assert delivered(service, run_id)["attempts"] == 1
    assert len(discord.messages) == 1


def test_nothing_ends_the_courier(
    tmp_path: Path,
    discord: Discord,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of ours is tried again, and the address stands in no traceback."""
    real = program.post
    faults: list[Exception] = [
        RuntimeError(f"fault: {discord.url}"),
        http.client.InvalidURL(discord.url),
    ]

    def post(*arguments: Any) -> program.DiscordAnswer:
        if faults:
            raise faults.pop()
        return real(*arguments)

    monkeypatch.setattr(program, "post", post)
    with delivering(tmp_path, discord) as (service, run_id):
        delivered(service, run_id)
        assert discord.token not in caplog.text + str(service.store.report(run_id))
        assert delivery_of(service, run_id)["attempts"] == 3
    assert len(discord.messages) == 1


def test_a_discord_that_drips_for_ever_is_given_up_for_the_moment(
    tmp_path: Path, discord: Discord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its bytes comes in time, and the answer never does: no message may wait for it."""

    def drip(exchange: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                exchange.wfile.write(b"x")
                time.sleep(0.05)

    monkeypatch.setattr(program, "DISCORD_DEADLINE_SEC", 0.5)
    discord.script(drip)
    with delivering(tmp_path, discord) as (service, run_id):
        assert LOST.search(delivered(service, run_id)["last_error"])
    assert len(discord.attempts) == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_attempt_that_drips_ends_and_frees_its_thread(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Also while TLS is being set up."""
    monkeypatch.setattr(program, "DISCORD_DEADLINE_SEC", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = server.accept()
            # The head of a TLS record of 16,384 bytes, or the start of an answer.
            begun = b"\x16\x03\x03\x40\x00" if scheme == "https" else b"HTTP/1.1 200 OK\r\nX: "
            with connection, suppress(OSError):
                connection.sendall(begun)
                while not stop.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        before = threading.active_count()
        begun_sec = time.monotonic()
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/api/webhooks/1/secret"
        delivery, _, _ = program.deliver(url, finished_run(), Delivery("pending", 1))
        stop.set()
        thread.join(10)
    assert time.monotonic() - begun_sec < 10
    assert (delivery.state, delivery.answer_lost) == ("pending", True)
    wait_for(lambda: threading.active_count() < before)


@pytest.mark.parametrize("clock", [10 * 365 * 86_400, -1])
def test_a_pause_that_was_noted_when_the_clock_was_wrong_ends(
    tmp_path: Path, discord: Discord, clock: int
) -> None:
    with delivering(tmp_path, discord) as (service, run_id):
        delivered(service, run_id)
        service.store.note_delivery(run_id, Delivery("pending", 1), time.time() + clock)
        service.start(service.courier, service.deliver_next)
        wait_for(lambda: delivery_of(service, run_id)["state"] == "delivered", 10)


def ended(service: Service, run_id: str) -> None:
    """Wait until a run has its report, delivered or not."""
    wait_for(lambda: service.report(run_id)["status"] == "finished", 60, every_sec=0.1)


def test_a_slow_discord_does_not_hold_up_runs(serve: Serve, discord: Discord) -> None:
    asked, released = threading.Event(), threading.Event()

    def wait(exchange: BaseHTTPRequestHandler) -> None:
        asked.set()
        released.wait(25)
        Reply(503)(exchange)

    discord.script(wait)
    try:
        with serve(MAX_CONCURRENCY=1) as service:
            runs = [service.accept("tiny") for _ in range(4)]
            assert asked.wait(60)
            for run_id in runs:
                ended(service, run_id)
            assert [service.report(run_id)["delivery"]["state"] for run_id in runs] == [
                "pending"
            ] * 4
            assert len(discord.attempts) == 1
            assert service.healthy()
            released.set()
            for run_id in runs:
                assert service.finished(run_id, 60)["delivery"]["state"] == "delivered"
    finally:
        released.set()
    assert [messages_of(discord, run_id) for run_id in runs] == [1] * 4


def test_one_message_in_trouble_does_not_hold_up_the_others(
    serve: Serve, discord: Discord, state: Path
) -> None:
    discord.script(Reply(500))
    with serve() as service:
        first = service.accept("tiny")
        wait_for(
            lambda: service.report(first)["delivery"]["last_error"] == "Discord answered 500", 60
        )
        store = sqlite3.connect(state / "snakehook.sqlite", timeout=20)
        store.execute("UPDATE runs SET due_at = due_at + 600 WHERE run_id = ?", (first,))
        store.commit()
        store.close()
        assert service.finished(service.accept("tiny"), 60)["delivery"]["state"] == "delivered"
        assert service.report(first)["delivery"]["state"] == "pending"


def words(service: Service) -> list[str]:
    return service.log.read_text().splitlines()


def assert_secret(service: Service, discord: Discord, run_id: str) -> None:
    bodies = [
        service.get(f"/v1/triage/{run_id}{part}").body
        for part in ("", "/report.html", "/evidence.jsonl.gz")
    ]
    for body in (*bodies, service.log.read_bytes()):
        assert discord.token.encode() not in body
        assert discord.path.encode() not in body


def test_the_webhook_is_named_nowhere_whatever_goes_wrong(serve: Serve, discord: Discord) -> None:
    leak = {"Location": discord.url, "X-Webhook": discord.url, "Content-Type": "text/plain"}
    steps: list[Any] = [Reply(500, discord.url, leak), babble, Reply(307, discord.url, leak)]
    discord.script(*steps)
    with serve(LOG_LEVEL="DEBUG") as service:
        run_id = service.accept("tiny")
        for count in range(1, len(steps) + 1):

            def tried(count: int = count) -> bool:
                return bool(
                    service.report(run_id)["delivery"]["attempts"] == count == len(discord.attempts)
                )

            wait_for(tried, 90)
        service.finished(run_id, 60)
        assert_secret(service, discord, run_id)


def test_the_webhook_is_not_in_the_self_check_or_the_list_of_hosts(
    snakehook: Snakehook, discord: Discord
) -> None:
    configured = snakehook.with_settings(DISCORD_WEBHOOK_URL=discord.url, LOG_LEVEL="DEBUG")
    for command in (("check",), ("hosts",), ("hosts", "--index")):
        done = configured.run(*command)
        assert discord.token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "bad", ["ftp://127.0.0.1/{}", "127.0.0.1/{}", "http://user:{}@127.0.0.1/", "http://[::1/{}"]
)
def test_a_webhook_that_is_no_address_is_not_repeated(snakehook: Snakehook, bad: str) -> None:
    done = snakehook.with_settings(DISCORD_WEBHOOK_URL=bad.format("s3cr3t"), API_TOKEN="t").run(
        "serve"
    )
    assert done.returncode == 2
    assert "DISCORD_WEBHOOK_URL" in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr
