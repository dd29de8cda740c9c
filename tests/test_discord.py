"""One message per run on Discord, whatever the package says; the webhook's address stays a secret."""

import importlib
import io
import json
import urllib.request
from collections.abc import Iterator
from email.message import Message as Headers
from pathlib import Path
from typing import Any
from urllib.response import addinfourl

import pytest
import responses
from conftest import Serve, Snakehook
from standins import Discord, Index, Reply, wait_for

import snakehook as program
from snakehook import Delivery, Phase, Report, Sandbox, TriageRequest

requests: Any = importlib.import_module("requests")  # its types are a package of their own
SECRET = "h00k-s3cr3t-t0ken"
WEBHOOK = f"https://discord.example/api/webhooks/1/{SECRET}"
INDEX = "https://index.example/simple"


class ThroughRequests(urllib.request.HTTPSHandler):
    """Sends what urllib would send by `requests`, where `responses` plays the server."""

    def https_open(self, request: urllib.request.Request) -> Any:
        try:
            answer = requests.request(
                request.get_method(),
                request.full_url,
                data=request.data,
                headers=dict(request.header_items()),
                allow_redirects=False,
                timeout=10,
            )
        except requests.ConnectionError as error:
            raise ConnectionRefusedError(str(error)) from error
        headers = Headers()
        for name, value in answer.headers.items():
            headers[name] = value
        response = addinfourl(io.BytesIO(answer.content), headers, request.full_url, answer.status_code)
        response.msg = answer.reason  # type: ignore[attr-defined]
        return response


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[responses.RequestsMock]:
    monkeypatch.setattr(program, "opener", urllib.request.build_opener(program.NoRedirect, ThroughRequests))
    with responses.RequestsMock() as server:
        yield server


def sandbox(*, default_index: bool = True) -> Sandbox:
    return Sandbox(
        nsjail="",
        strace=None,
        python=Path(),
        base="",
        index_url=INDEX,
        default_index=default_index,
        privileged=False,
    )


def report(**changes: Any) -> Report:
    whole = Report("5" * 32, "finished", TriageRequest("six", "1.16.0", "detonate"), "2026-01-01T00:00:00+00:00")
    whole.outcome, whole.finished_at = "ok", "2026-01-01T00:00:10+00:00"
    whole.phases = [Phase("install", None, "ok", 0, None, 1.5), Phase("import", "six", "failed", 1, None, 0.5)]
    whole.downloads = [{"file": "six-1.16.0-py2.py3-none-any.whl", "bytes": 11053, "sha256": "0", "from_cache": False}]
    for name, value in changes.items():
        setattr(whole, name, value)
    return whole


def deliver(whole: Report) -> Delivery:
    row = {"message": json.dumps(program.discord_message(whole, sandbox())), "page": b"<p>", "evidence": b"{}"}
    return program.deliver(WEBHOOK, row, Delivery("pending", 1))[0]


def sent(server: responses.RequestsMock) -> str:
    body = server.calls[0].request.body
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)


# --- one message ------------------------------------------------------------------------------------------------------


def test_a_report_is_posted_once_and_waited_for(server: responses.RequestsMock) -> None:
    server.post(WEBHOOK, json={"id": "1"}, match=[responses.matchers.query_param_matcher({"wait": "true"})])
    assert deliver(report()).state == "delivered"
    assert len(server.calls) == 1
    assert "Python-urllib" not in str(server.calls[0].request.headers)


def test_no_mention_can_ring(server: responses.RequestsMock) -> None:
    server.post(WEBHOOK, json={"id": "1"})
    deliver(report(reason="@everyone <@123> <@&456>"))
    assert '"allowed_mentions": {"parse": []}' in sent(server)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_webhook_that_is_gone_is_refused_and_not_named(server: responses.RequestsMock, status: int) -> None:
    server.post(WEBHOOK, status=status, body=f"no such webhook {SECRET}")
    delivery = deliver(report())
    assert delivery.state == "refused"
    assert str(status) in str(delivery.last_error)
    assert SECRET not in str(delivery.last_error)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_with_a_report(server: responses.RequestsMock, status: int) -> None:
    server.post(WEBHOOK, status=status, headers={"Location": "https://elsewhere.example/"})
    assert deliver(report()).state != "delivered"
    assert len(server.calls) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_discord_in_trouble_is_asked_again_later(server: responses.RequestsMock, status: int) -> None:
    server.post(WEBHOOK, status=status, json={"retry_after": 0.5})
    assert deliver(report()).state == "pending"


def test_a_discord_that_can_t_be_reached_is_asked_again_later(server: responses.RequestsMock) -> None:
    server.post(WEBHOOK, body=requests.ConnectionError(f"can't reach {WEBHOOK}"))
    delivery = deliver(report())
    assert delivery.state == "pending"
    assert SECRET not in str(delivery.last_error)


# --- what a person reads ----------------------------------------------------------------------------------------------


def embed(whole: Report, *, default_index: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = program.discord_message(whole, sandbox(default_index=default_index))["embeds"][0]
    return found


def test_the_embed_says_what_a_reader_wants_to_know() -> None:
    text = json.dumps(embed(report(outcome="failed", reason="import six: exit code 1")), ensure_ascii=False)
    for fact in ("six 1.16.0", "failed", "detonate", "2.0 s", "install", "six-1.16.0-py2.py3-none-any.whl", "5" * 32):
        assert fact in text


def test_it_links_to_the_project_s_page() -> None:
    assert embed(report())["url"] == "https://index.example/project/six/1.16.0/"
    assert embed(report(), default_index=False)["url"] == "https://index.example/simple/six/"


# --- from a package to the channel ------------------------------------------------------------------------------------


def test_a_run_ends_in_one_message_over_a_real_socket(serve: Serve, discord: Discord, index: Index) -> None:
    index.add_wheel("talker", "1.0", {"talker.py": "import sys; sys.exit('@everyone [click](https://evil.example)')\n"})
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
    footers = " ".join(message.payload["embeds"][0]["footer"]["text"] for message in discord.messages)
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
    code, whole, errors = snakehook.triage("one", DISCORD_WEBHOOK_URL=discord.url, LOG_LEVEL="DEBUG")
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
    assert (code, whole["outcome"], whole["delivery"]["state"]) == (0, "ok", "refused")  # nobody tries again
    assert discord.token not in errors + str(whole["delivery"]["last_error"])
    assert wait_for(lambda: len(discord.attempts) == 1)
