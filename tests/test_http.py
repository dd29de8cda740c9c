"""The HTTP contract, line by line: the real service, real sockets, with real runs behind it."""

import contextlib
import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import falcon
import falcon.testing
import pytest
from conftest import (
    PROGRAM,
    ROOT,
    Answer,
    Serve,
    Service,
    Snakehook,
    make_state,
    open_folder,
    serving,
    variables,
)
from standins import Discord, Index, gate, wait_for

import snakehook as program

BODY = json.dumps({"package_name": "tiny", "version": "1.0"}).encode()
LIMIT_BYTES = 64 << 10
README = ROOT / "README.md"


@pytest.fixture(autouse=True)
def tiny(index: Index) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": "print('tiny was imported')\n"})


@pytest.fixture(scope="module")
def service(jail: None, jail_python_cache: Path) -> Iterator[Service]:
    """One service for all tests that need nothing special of it, and don't mind others' runs."""
    with open_folder("http") as home, Index() as index, Discord() as discord:
        state = make_state(home, jail_python_cache)
        program = Snakehook(PROGRAM, variables(state, index))
        webhook = {"DISCORD_WEBHOOK_URL": discord.url}
        with serving(program, home / "service.log", QUEUE_LIMIT=1000, **webhook) as service:
            yield service


def is_json_error(answer: Answer) -> bool:
    return answer.headers["content-type"].startswith("application/json") and bool(
        answer.json["error"]
    )


def exchange(service: Service, data: bytes) -> bytes:
    """Send raw bytes, and nothing more, and return all that comes back until the service closes."""
    with service.connect() as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(
            ConnectionResetError
        ):  # the service closed with some of our bytes unread
            while block := connection.recv(65536):
                received += block
        return received


def head(service: Service, *lines: str) -> bytes:
    usual = (
        "POST /v1/triage HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {service.token}",
    )
    return "\r\n".join((*usual, "Content-Type: application/json", *lines, "", "")).encode()


def test_a_request_is_accepted_and_its_report_is_where_location_says(
    serve: Serve, discord: Discord
) -> None:
    with serve() as service:
        accepted = service.request("POST", "/v1/triage", BODY, Content_Type="application/json")
        assert accepted.status == 202
        assert accepted.headers["content-type"].startswith("application/json")
        assert accepted.json == {"run_id": accepted.json["run_id"], "status": "accepted"}
        assert isinstance(accepted.json["run_id"], str) and accepted.json["run_id"]
        assert accepted.headers["location"].endswith(f"/v1/triage/{accepted.json['run_id']}")

        report = service.finished(accepted.json["run_id"])
        assert service.get(accepted.headers["location"]).json == report
        assert report["outcome"] == "ok", report
        assert report["submitted_at"] <= report["started_at"] <= report["finished_at"]
        assert report["delivery"] == {"state": "delivered", "attempts": 1, "last_error": None}
        assert len(discord.messages) == 1

        page = service.get(f"{accepted.headers['location']}/report.html")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert b"tiny" in page.body

        evidence = service.get(f"{accepted.headers['location']}/evidence.jsonl.gz")
        assert evidence.status == 200
        events = [json.loads(line) for line in gzip.decompress(evidence.body).splitlines()]
        assert {"output", "download", "end"} <= {event["kind"] for event in events}
        assert [event["at"] for event in events] == sorted(event["at"] for event in events)

        for path in ("", "/report.html", "/evidence.jsonl.gz"):
            assert service.get(f"{accepted.headers['location']}{path}", token=None).status == 401


FIELDS = [
    "run_id",
    "status",
    "request",
    "outcome",
    "reason",
    "submitted_at",
    "started_at",
    "finished_at",
    "phases",
    "findings",
    "downloads",
    "network",
    "processes",
    "files",
    "code",
    "coverage",
    "delivery",
]


def test_the_state_so_far_can_be_asked_for_while_a_run_waits_and_runs(
    serve: Serve, index: Index
) -> None:
    with gate(index, "slow") as slow, serve(MAX_CONCURRENCY=1) as service:
        first, second = service.accept("slow"), service.accept("tiny", mode="import")
        assert slow.asked.wait(30)
        running, queued = service.report(first), service.report(second)
        assert (running["status"], running["outcome"], running["delivery"]["state"]) == (
            "running",
            None,
            "pending",
        )
        assert running["started_at"] and not running["finished_at"]
        assert (queued["status"], queued["outcome"], queued["started_at"]) == ("queued", None, None)
        assert queued["request"] == {
            **dict.fromkeys(("file_path", "entrypoint", "module_name", "artifact")),
            "package_name": "tiny",
            "version": "1.0",
            "mode": "import",
        }
        for report in (running, queued):
            assert set(FIELDS) <= set(report)
        for attachment in ("report.html", "evidence.jsonl.gz"):  # not there yet
            assert service.get(f"/v1/triage/{first}/{attachment}").status == 404
        slow.opened.set()
        assert service.finished(first)["outcome"] == "failed"
        assert service.finished(second)["outcome"] == "ok"


def test_a_full_queue_is_503_with_retry_after_and_room_comes_back(
    serve: Serve, index: Index
) -> None:
    with gate(index, "slow") as slow, serve(MAX_CONCURRENCY=1, QUEUE_LIMIT=1) as service:
        first = service.accept("slow")
        assert slow.asked.wait(30)
        second = service.accept("slow")
        full = service.post({"package_name": "tiny", "version": "1.0"})
        assert full.status == 503
        assert int(full.headers["retry-after"]) > 0
        assert "queue" in full.json["error"].lower()
        slow.opened.set()
        service.finished(first)
        service.finished(second)
        assert service.finished(service.accept("tiny"))["outcome"] == "ok"


def test_runs_work_side_by_side_up_to_max_concurrency(serve: Serve, index: Index) -> None:
    with (
        gate(index, "one") as first,
        gate(index, "two") as two,
        serve(MAX_CONCURRENCY=2) as service,
    ):
        runs = [service.accept("one"), service.accept("two")]
        assert first.asked.wait(30)
        assert two.asked.wait(30)
        third = service.accept("tiny")
        assert [service.report(run)["status"] for run in (*runs, third)] == [
            "running",
            "running",
            "queued",
        ]
        first.opened.set()
        two.opened.set()
        assert service.finished(third)["outcome"] == "ok"


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"{",
            b"{'package_name': 'six'}",
            b"package_name=six",
            b"\xff\xfe\x00",
            b"[" * 60_000,
            b'{"a":' * 13_000,
        ),
        b'{"package_name": "six", "version": "1.0"} trailing',
    ],
    ids=lambda body: repr(body[:12]),
)
def test_400_what_is_not_json(service: Service, body: bytes) -> None:
    answer = service.request("POST", "/v1/triage", body, Content_Type="application/json")
    assert answer.status == 400
    assert is_json_error(answer)
    assert "JSON" in answer.json["error"]


@pytest.mark.parametrize("token", [None, "wrong", "\u00e4\u00f6", "x" * 5000])
def test_401_without_the_token(service: Service, token: str | None) -> None:
    for method, path in (
        ("POST", "/v1/triage"),
        ("GET", "/v1/triage/" + "0" * 32),
        ("GET", "/"),
        ("GET", "/docs"),
    ):
        answer = service.request(method, path, BODY if method == "POST" else None, token=token)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert is_json_error(answer)


def test_the_scheme_is_bearer(service: Service) -> None:
    answer = service.request(
        "GET", "/v1/triage/x", token=None, Authorization=f"Basic {service.token}"
    )
    assert answer.status == 401


def test_413_is_decided_before_the_body_is_read(service: Service) -> None:
    for size in (LIMIT_BYTES + 1, 10**12):
        status = exchange(service, head(service, f"Content-Length: {size}"))
        assert status.startswith(b"HTTP/1.1 413 ")
        assert json.loads(status.partition(b"\r\n\r\n")[2])["error"]


def test_who_is_refused_is_not_asked_for_the_body(service: Service) -> None:
    for line in (f"Content-Length: {LIMIT_BYTES + 1}", "Content-Length: 5, 5"):
        received = exchange(service, head(service, "Expect: 100-continue", line))
        assert re.match(rb"HTTP/1.1 4(13|00) ", received)


def test_a_client_that_waits_to_be_asked_for_the_body_is_asked(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(head(service, "Expect: 100-continue", f"Content-Length: {len(BODY)}"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 202 ")


def test_413_needs_no_token(service: Service) -> None:
    request = f"POST /v1/triage HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT_BYTES + 1}\r\n\r\n"
    assert exchange(service, request.encode())[9:12] in (b"401", b"413")


def fake_service(**fields: Any) -> Any:
    """What the application needs of a service, for what can be tried without one."""
    settings = {"per_ip_rate_limit": 10, "per_ip_rate_window_sec": 1, "api_token": "t"}
    return SimpleNamespace(settings=SimpleNamespace(**settings), **{"store": None} | fields)


def test_413_behind_another_server_than_waitress() -> None:
    client = falcon.testing.TestClient(program.build_app(fake_service()))
    headers = {"Authorization": "Bearer t", "Content-Type": "application/json"}
    answer = client.simulate_post("/v1/triage", body=b" " * 65_537, headers=headers)
    assert answer.status_code == 413


def test_413_for_a_chunked_body_without_end(service: Service) -> None:
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    with service.connect() as connection:
        connection.sendall(head(service, "Transfer-Encoding: chunked"))
        connection.sendall(chunk * 17)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_the_limit_itself_is_read(service: Service) -> None:
    answer = service.request(
        "POST", "/v1/triage", BODY.ljust(LIMIT_BYTES), Content_Type="application/json"
    )
    assert answer.status == 202


def test_a_chunked_body_is_a_body(service: Service) -> None:
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    answer = exchange(
        service, head(service, "Transfer-Encoding: chunked", "Connection: close") + chunks
    )
    assert answer.startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"]
)
def test_415_what_does_not_say_that_it_is_json(service: Service, kind: str) -> None:
    answer = service.request("POST", "/v1/triage", BODY, Content_Type=kind)
    assert answer.status == 415
    assert is_json_error(answer)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_said_in_other_ways(service: Service, kind: str) -> None:
    assert service.request("POST", "/v1/triage", BODY, Content_Type=kind).status == 202


@pytest.mark.parametrize(
    ("fields", "name", "rule"),
    [
        ([], "body", "object"),
        ({"version": "1"}, "package_name", "string"),
        ({"package_name": "six", "version": 1}, "version", "string"),
        ({"package_name": "-r x", "version": "1"}, "package_name", "project name"),
        ({"package_name": "\u212aeras", "version": "1"}, "package_name", "ASCII"),
        ({"package_name": "\ud800", "version": "1"}, "package_name", "ASCII"),
        ({"package_name": "six\n", "version": "1"}, "package_name", "printable"),
        ({"package_name": "six", "version": "1.*"}, "version", "PEP 440"),
        ({"package_name": "six", "version": "1", "mode": "run"}, "mode", "install, execute"),
        ({"package_name": "six", "version": "1", "file_path": "x"}, "file_path", "mode execute"),
        (
            {"package_name": "six", "version": "1", "mode": "execute", "file_path": "/x"},
            "file_path",
            "relative",
        ),
        (
            {"package_name": "six", "version": "1", "mode": "execute", "file_path": "../x"},
            "file_path",
            "..",
        ),
        (
            {"package_name": "six", "version": "1", "mode": "execute", "entrypoint": "-c"},
            "entrypoint",
            "module:attr",
        ),
        (
            {"package_name": "six", "version": "1", "mode": "execute_module", "module_name": "a b"},
            "module_name",
            "dot",
        ),
        (
            {"package_name": "six", "version": "1", "colour": "red"},
            "colour",
            "package_name, version",
        ),
    ],
)
def test_422_names_the_field_and_the_rule(
    service: Service, fields: Any, name: str, rule: str
) -> None:
    answer = service.post(fields)
    assert answer.status == 422
    assert answer.json["field"] == name
    assert answer.json["error"].startswith(name)
    assert rule in answer.json["error"]


def test_429_for_a_package_on_the_denylist_says_so(serve: Serve) -> None:
    with serve(PACKAGE_DENYLIST="forbidden-fruit") as service:
        answer = service.post({"package_name": "Forbidden_Fruit", "version": "1.0"})
        assert answer.status == 429
        assert "forbidden-fruit" in answer.json["error"]
        assert "denylist" in answer.json["error"]


def test_429_above_the_rate_says_when_to_come_back(serve: Serve) -> None:
    with serve(PER_IP_RATE_LIMIT=3, PER_IP_RATE_WINDOW_SEC=86400) as service:
        statuses = [service.post({}).status for _ in range(4)]
        assert statuses == [422, 422, 422, 429]
        answer = service.post({"package_name": "tiny", "version": "1.0"})
        assert answer.status == 429
        assert 0 < int(answer.headers["retry-after"]) <= 86400 / 3 + 1
        assert "denylist" not in answer.json["error"]
        # Reading with the token costs nothing.
        assert service.get("/v1/triage/unknown").status == 404


def test_a_failed_authentication_costs_a_token_whatever_the_method(serve: Serve) -> None:
    with serve(PER_IP_RATE_LIMIT=3, PER_IP_RATE_WINDOW_SEC=86400) as service:
        answers = [service.get("/v1/triage/x", token="wrong") for _ in range(5)]
        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
        assert service.post({"package_name": "tiny", "version": "1.0"}).status == 429
        assert service.get("/healthz", token=None).status == 200


def test_a_rate_refills(serve: Serve) -> None:
    with serve(PER_IP_RATE_LIMIT=2, PER_IP_RATE_WINDOW_SEC=1) as service:
        wait_for(lambda: service.post({}).status == 429)
        wait_for(lambda: service.post({}).status == 422)


SECOND = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        [f"Content-Length: {len(SECOND)}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", f"Content-Length: {len(SECOND)}"],
        ["Content-Length: 5", "Transfer-Encoding: identity"],
        ["Content-Length: 5", "Transfer-Encoding: chunked, identity"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: +5"],
        ["Content-Length: 5, 5"],
        ["Content-Length: -5"],
        ["Transfer-Encoding: gzip"],
        ["Transfer-Encoding : chunked"],
    ],
    ids=" ".join,
)
def test_a_request_with_a_doubtful_end_gets_exactly_one_answer(
    service: Service, framing: list[str]
) -> None:
    received = exchange(service, head(service, *framing) + b"0\r\n\r\n" + SECOND.encode())
    assert received.count(b"HTTP/1.") == 1, received
    assert re.match(rb"HTTP/1.[01] (400|501) ", received)
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]


def test_a_connection_carries_one_request(service: Service) -> None:
    """So no answers can pile up which nobody reads, and what follows a request is no other."""
    received = exchange(service, SECOND.encode() * 3)
    assert received.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in received.lower()


def test_headers_are_bounded(service: Service) -> None:
    received = exchange(service, head(service, "X-Long: " + "x" * 100_000))
    assert re.match(rb"HTTP/1.[01] 431 ", received)


MISSING = ["0" * 32, "x", "..", "%2e%2e", "%00", "'", "' OR '1'='1", "%F0%9F%90%8D", "%ff"]
MISSING += ["a" * 3000, "0" * 32 + "%0a"]


def test_unknown_and_malformed_ids_are_one_uniform_404(service: Service) -> None:
    answers = set()
    for run_id in MISSING:
        for more in ("", "/report.html", "/evidence.jsonl.gz", "/other"):
            answer = service.get(f"/v1/triage/{run_id}{more}".replace(" ", "%20"))
            answers.add((answer.status, answer.headers["content-type"], answer.body))
    assert len(answers) == 1, answers
    ((status, content_type, body),) = answers
    assert status == 404
    assert content_type.startswith("application/json")
    assert json.loads(body)["error"]


def test_every_404_is_an_error_of_its_own(tmp_path: Path) -> None:
    """What is raised again and again would keep the traceback of each time, and grow for ever."""
    api = program.Api(fake_service(store=program.Store(tmp_path / "runs.sqlite")))
    raised = []
    for _ in range(2):
        with pytest.raises(falcon.HTTPNotFound) as caught:
            api.on_get_run(None, falcon.Response(), "0" * 32)
        raised.append(caught.value)
    assert raised[0] is not raised[1]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/triage/a/b/c", "/v2/triage", "/healthz/x"])
def test_other_paths_are_404_in_json(service: Service, path: str) -> None:
    answer = service.get(path)
    assert answer.status == 404
    assert is_json_error(answer)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/triage"), ("DELETE", "/v1/triage/x"), ("POST", "/healthz")]
)
def test_other_methods_are_405_in_json(service: Service, method: str, path: str) -> None:
    answer = service.request(method, path)
    assert answer.status == 405
    assert is_json_error(answer)


def test_healthz_needs_no_token(service: Service) -> None:
    answer = service.get("/healthz", token=None)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_waitress_serve_runs_it_too(serve: Serve) -> None:
    """With the README's own command, from the name of the program on."""
    match = re.search(r"^uv run .* (waitress-serve .*)$", README.read_text(), re.MULTILINE)
    assert match, "README.md has no waitress-serve command"
    words = [word.replace("0.0.0.0:8080", "127.0.0.1:{port}") for word in match[1].split()[1:]]
    start = ["-c", "import sys, waitress.runner; sys.exit(waitress.runner.run())"]
    with serve(*words, command=[sys.executable, *start], PYTHONPATH=ROOT) as service:
        assert service.finished(service.accept("tiny"))["outcome"] == "ok"
        for size in (LIMIT_BYTES + 1, 10**12):
            received = exchange(service, head(service, f"Content-Length: {size}"))
            assert received.startswith(b"HTTP/1.1 413 ")
        service.process.terminate()
        assert service.process.wait(10) == 0  # in order, not killed


def test_a_port_that_is_taken_is_told_in_one_line(
    serve: Serve, service: Service, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError), serve("serve", "--listen", f"127.0.0.1:{service.port}"):
        pass
    (line,) = (tmp_path / "service.log").read_text().splitlines()
    assert f"127.0.0.1:{service.port}" in line


@pytest.mark.parametrize(
    "listen", ["", "8080", ":8080", "localhost", "localhost:", "localhost:x", "localhost:99999"]
)
def test_listen_takes_a_host_and_a_port(serve: Serve, tmp_path: Path, listen: str) -> None:
    with pytest.raises(AssertionError), serve("serve", "--listen", listen):
        pass
    assert "HOST:PORT" in (tmp_path / "service.log").read_text()
