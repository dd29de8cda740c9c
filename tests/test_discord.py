"""One message for each run, whatever the package says; the webhook's address stays a secret."""

import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import responses
from conftest import Serve, Snakehook
from standins import Discord, Index, Reply, wait_for

import snakehook as program
from snakehook import Delivery, Result, TriageRequest, make_own_result

requests: Any = importlib.import_module("requests")  # its types are a package of their own
SECRET = "h00k-s3cr3t-t0ken"
WEBHOOK = f"https://discord.example/api/webhooks/1/{SECRET}"
SIX = TriageRequest("six", "1.16.0", "detonate")


def post_by_requests(url: str, body: bytes, content_type: str) -> program.DiscordAnswer:
    """What `post` does, by the library for which `responses` plays the server."""
    headers = {"Content-Type": content_type}
    try:
        answer = requests.post(
            f"{url}?wait=true", data=body, headers=headers, allow_redirects=False, timeout=10
        )
    except requests.ConnectionError as error:
        raise ConnectionRefusedError(str(error)) from error
    return answer.status_code, answer.headers.get("Retry-After"), answer.content


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[responses.RequestsMock]:
    monkeypatch.setattr(program, "post", post_by_requests)
    with responses.RequestsMock() as server:
        yield server


def deliver(result: Result) -> Delivery:
    parcel = {"run_id": "5" * 32} | result._asdict()
    return program.deliver(WEBHOOK, parcel, Delivery("pending", 1))[0]


def sent(server: responses.RequestsMock) -> str:
    body = server.calls[0].request.body
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)


OWN = make_own_result(SIX, "error", "its watch died", "import")


def test_a_report_is_posted_once_and_waited_for(server: responses.RequestsMock) -> None:
    wanted = responses.matchers.query_param_matcher({"wait": "true"})
    server.post(WEBHOOK, json={"id": "1"}, match=[wanted])
    assert deliver(OWN).state == "delivered"
    assert len(server.calls) == 1


def test_no_mention_can_ring(server: responses.RequestsMock) -> None:
    server.post(WEBHOOK, json={"id": "1"})
    deliver(make_own_result(SIX, "error", "@everyone <@123> <@&456>", "import"))
    assert '"allowed_mentions": {"parse": []}' in sent(server)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_webhook_that_is_gone_is_refused_and_not_named(
    server: responses.RequestsMock, status: int
) -> None:
    server.post(WEBHOOK, status=status, body=f"no such webhook {SECRET}")
    delivery = deliver(OWN)
    assert delivery.state == "refused"
    assert str(status) in str(delivery.last_error)
    assert SECRET not in str(delivery.last_error)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_no_delivery(server: responses.RequestsMock, status: int) -> None:
    server.post(WEBHOOK, status=status, headers={"Location": "https://elsewhere.example/"})
    assert deliver(OWN).state == "refused"
    assert len(server.calls) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_discord_in_trouble_is_asked_again_later(
    server: responses.RequestsMock, status: int
) -> None:
    server.post(WEBHOOK, status=status, json={"retry_after": 0.5})
    assert deliver(OWN).state == "pending"


def test_a_discord_that_can_t_be_reached_is_asked_again_later(
    server: responses.RequestsMock,
) -> None:
    server.post(WEBHOOK, body=requests.ConnectionError(f"can't reach {WEBHOOK}"))
    delivery = deliver(OWN)
    assert delivery.state == "pending"
    assert SECRET not in str(delivery.last_error)


def test_the_library_s_own_name_is_not_sent(discord: Discord) -> None:
    """Discord turns it away."""
    program.post(discord.url, b"{}", "application/json")
    (attempt,) = discord.attempts
    assert attempt.headers["user-agent"].startswith("DiscordBot (snakehook, ")


def test_a_query_of_the_webhook_stays(discord: Discord) -> None:
    program.post(f"{discord.url}?thread_id=1", b"{}", "application/json")
    (attempt,) = discord.attempts
    assert attempt.path.endswith("?thread_id=1&wait=true")


def test_a_url_that_is_none_costs_nothing_but_the_attempt() -> None:
    for url in ("http://[::1", "http://a b/", "http://x:99999/", "http://127.0.0.1:9/a b"):
        delivery, _, _ = program.deliver(
            url, {"run_id": "5"} | OWN._asdict(), Delivery("pending", 1)
        )
        assert delivery.state == "pending"
        assert url not in str(delivery.last_error)


def test_a_run_ends_in_one_message_over_a_real_socket(
    serve: Serve, discord: Discord, index: Index
) -> None:
    index.add_wheel(
        "talker",
        "1.0",
        {"talker.py": "import sys; sys.exit('@everyone [click](https://evil.example)')\n"},
    )
    with serve(LOG_LEVEL="DEBUG") as service:
        run_id = service.accept("talker", mode="import")
        finished = service.finished(run_id)
    assert finished["delivery"] == {"state": "delivered", "attempts": 1, "last_error": None}
    assert len(discord.attempts) == len(discord.messages) == 1
    assert discord.attempts[0].path.endswith("?wait=true")
    payload = discord.messages[0].payload
    assert payload["allowed_mentions"] == {"parse": []}
    (shown,) = payload["embeds"]
    assert "talker 1.0" in shown["title"]
    assert shown["url"] == f"{index.url}/talker/"
    assert run_id in shown["footer"]["text"]
    everything = service.log.read_text() + json.dumps(finished)
    assert discord.token not in everything
    assert service.token not in everything


def test_every_run_has_its_own_message(serve: Serve, discord: Discord, index: Index) -> None:
    index.add_wheel("one", "1.0", {"one.py": ""})
    index.add_wheel("two", "1.0", {"two.py": ""})
    with serve() as service:
        runs = {service.accept(name) for name in ("one", "two", "absent")}
        for run_id in runs:
            service.finished(run_id)
    footers = " ".join(
        message.payload["embeds"][0]["footer"]["text"] for message in discord.messages
    )
    assert len(discord.messages) == 3
    assert all(run_id in footers for run_id in runs)


def test_the_webhook_is_a_secret_when_discord_refuses_and_answers_with_it(
    serve: Serve, discord: Discord, index: Index
) -> None:
    index.add_wheel("one", "1.0", {"one.py": ""})
    discord.script(Reply(403, f"forbidden: {discord.path}", {"X-Webhook": discord.path}))
    with serve(LOG_LEVEL="DEBUG") as service:
        finished = service.finished(service.accept("one"))
        words = service.get(f"/v1/triage/{finished['run_id']}/report.html").body.decode()
    assert finished["delivery"]["state"] == "refused"
    assert discord.token not in service.log.read_text() + json.dumps(finished) + words


def test_a_busy_discord_gets_the_report_later(serve: Serve, discord: Discord, index: Index) -> None:
    index.add_wheel("one", "1.0", {"one.py": ""})
    discord.script(Reply(429, '{"retry_after": 0.1}'), Reply(503), None)
    with serve() as service:
        finished = service.finished(service.accept("one"))
    assert (finished["delivery"]["state"], finished["delivery"]["attempts"]) == ("delivered", 3)
    assert len(discord.messages) == 1


def test_the_command_line_posts_when_a_webhook_is_configured(
    snakehook: Snakehook, jail: None, discord: Discord, index: Index
) -> None:
    index.add_wheel("one", "1.0", {"one.py": ""})
    code, whole, errors = snakehook.triage(
        "one", DISCORD_WEBHOOK_URL=discord.url, LOG_LEVEL="DEBUG"
    )
    assert (code, whole["delivery"]["state"], len(discord.messages)) == (0, "delivered", 1)
    assert discord.token not in errors + json.dumps(whole)


def test_without_a_webhook_the_command_line_posts_nothing(
    snakehook: Snakehook, jail: None, discord: Discord, index: Index
) -> None:
    index.add_wheel("one", "1.0", {"one.py": ""})
    snakehook.triage("one")
    assert discord.attempts == []


def test_an_answer_that_is_none_costs_the_command_line_nothing(
    snakehook: Snakehook, jail: None, index: Index, discord: Discord
) -> None:
    def babble(exchange: Any) -> None:
        exchange.wfile.write(b"not http at all\r\n\r\n")
        exchange.close_connection = True

    index.add_wheel("one", "1.0", {"one.py": ""})
    discord.script(babble)
    code, whole, errors = snakehook.triage("one", DISCORD_WEBHOOK_URL=discord.url)
    assert (code, whole["outcome"], whole["delivery"]["state"]) == (
        0,
        "ok",
        "refused",
    )  # nobody tries again
    assert discord.token not in errors + str(whole["delivery"]["last_error"])
    assert wait_for(lambda: len(discord.attempts) == 1)
