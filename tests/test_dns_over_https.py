"""Questions for names that come by HTTPS are the resolver's: in both forms, and no others."""

import base64
import json

import pytest

from jail.watch.dns_over_https import HttpsQuestion, question_in
from jail.watch.http_request import HttpRequest
from jail.watch.names import Kind, Names

NAMES = Names(b"salt", lambda name: f"mark of {name}")
MESSAGE = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\4evil\3xyz\0\0\1\0\1"
CODED = base64.urlsafe_b64encode(MESSAGE).decode().rstrip("=")


def ask(url: str, body: bytes = b"", content_type: str = "") -> HttpsQuestion | None:
    request = HttpRequest("GET", "/", False, [("Content-Type", content_type)])
    request.body.take(body)
    return question_in(request, url)


@pytest.mark.parametrize(
    ("url", "kind", "data"),
    [
        ("https://dns.google/resolve?name=www.evil.xyz", 1, NAMES.address("www.evil.xyz")),
        ("https://1.1.1.1/dns-query?name=www.evil.xyz&type=TXT", 16, '"mark of www.evil.xyz"'),
        ("https://dns.google/resolve?name=www.evil.xyz.&type=15", 15, "10 mail.evil.xyz."),
    ],
)
def test_fields_are_answered_as_public_resolvers_do(url: str, kind: int, data: str) -> None:
    question = ask(url)
    assert question
    content_type, body = question.answer(NAMES.answer(question.name, question.kind))
    answer = json.loads(body)
    assert content_type == "application/dns-json"
    assert answer["Status"] == 0
    assert [(item["type"], item["data"]) for item in answer["Answer"]] == [(kind, data)]


def test_a_message_is_answered_by_one() -> None:
    for question in (
        ask(f"https://dns.quad9.net/dns-query?dns={CODED}"),
        ask("https://cloudflare-dns.com/dns-query", MESSAGE, "application/dns-message"),
    ):
        assert question
        assert (question.name, question.kind) == ("www.evil.xyz", Kind.A)
        content_type, body = question.answer(NAMES.answer(question.name, question.kind))
        assert content_type == "application/dns-message"
        assert body.startswith(MESSAGE[:2])
        assert body[7] == 1


def test_a_name_that_nobody_has_does_not_exist() -> None:
    question = ask("https://dns.google/resolve?name=a.invalid")
    assert question
    assert json.loads(question.answer(NAMES.answer(question.name, question.kind))[1])["Status"] == 3


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.xyz/",
        "https://evil.xyz/resolve",
        "https://evil.xyz/resolve?name=",
        "https://evil.xyz/resolve?name=" + "a" * 300,
        "https://evil.xyz/resolve?name=%00%ff",
        "https://evil.xyz/dns-query?dns=!!!",
        "https://evil.xyz/dns-query?dns=" + "A" * 99,
        "https://evil.xyz/resolve?" + "a=1&" * 500,
    ],
)
def test_what_is_no_question_is_a_request_like_others(url: str) -> None:
    assert ask(url) is None
