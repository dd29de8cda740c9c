"""The reader of HTTP requests: whole ones however they come in, and nothing that is ambiguous."""

import hashlib
import time

import pytest

from jail.watch.http_request import MAX_REQUEST_HEAD_BYTES, HttpError, HttpRequest, RequestReader

POST = b"POST /up?a=1 HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3\r\nabc\r\n00A;x=y\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def read(data: bytes, step: int = 1 << 20) -> list[HttpRequest]:
    reader = RequestReader()
    requests = []
    for at in range(0, len(data), step):
        reader.take(data[at : at + step])
        while request := reader.next_request():
            requests.append(request)
    return requests


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1 << 20])
def test_requests_are_read_however_they_come_in(step: int) -> None:
    post, chunked, get, last = read(POST + CHUNKED + GET + b"\r\n" + POST, step)
    assert (post.method, post.target, post.value("host")) == ("POST", "/up?a=1", "example.com")
    assert bytes(post.body.start) == bytes(last.body.start) == b"hello"
    assert post.body.digest.hexdigest() == hashlib.sha256(b"hello").hexdigest()
    assert bytes(chunked.body.start) == b"abc0123456789"
    assert chunked.value("x-sum") == "1"
    assert (get.method, get.body.size_bytes, get.keeps_alive) == ("GET", 0, True)


def test_a_body_is_counted_and_hashed_but_not_kept() -> None:
    reader = RequestReader()
    reader.take(b"PUT /f HTTP/1.0\r\nContent-Length: 50000000\r\n\r\n")
    digest = hashlib.sha256()
    for _ in range(500):
        assert reader.next_request() is None
        reader.take(bytes(100_000))
        digest.update(bytes(100_000))
    request = reader.next_request()
    assert request
    assert request.body.size_bytes == 50_000_000
    assert request.body.digest.digest() == digest.digest()
    assert len(request.body.start) == 1 << 20
    assert request.body.payload(100).truncated
    assert not request.keeps_alive


def test_who_waits_is_told_once_that_he_may_go_on() -> None:
    reader = RequestReader()
    head = POST.replace(b"\r\n\r\nhello", b"\r\nExpect: 100-Continue\r\n\r\n")
    reader.take(head)
    assert reader.next_request() is None
    assert reader.wants_continue()
    assert not reader.wants_continue()
    reader.take(b"hello")
    assert reader.next_request()
    reader.take(head + b"hello")
    assert reader.next_request()
    assert not reader.wants_continue()


HEADERS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6",
    "two equal lengths": b"Content-Length: 5\r\nContent-Length: 5",
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "encoded twice": b"Transfer-Encoding: gzip, chunked",
    "odd encoding": b"Transfer-Encoding: xchunked",
    "odd blanks": b"Transfer-Encoding: \x0bchunked",
    "blank before the colon": b"Transfer-Encoding : chunked",
    "blank before the name": b" Transfer-Encoding: chunked",
    "a folded line": b"X: a\r\n b: c",
    "no colon": b"X",
    "an empty name": b": a",
    "signed length": b"Content-Length: +5",
    "length in hex": b"Content-Length: 0x5",
    "empty length": b"Content-Length: ",
    "list of lengths": b"Content-Length: 5, 5",
    "other digits": "Content-Length: \u0665".encode(),
    "two hosts": b"Host: a\r\nHost: b",
    "lone line feed": b"X: a\nTransfer-Encoding: chunked",
    "lone carriage return": b"X: a\rTransfer-Encoding: chunked",
    "NUL": b"X: a\0b",
    "other expectation": b"Expect: magic",
    "too many": b"\r\n".join(b"X: %d" % number for number in range(101)),
    "too long": b"X: " + b"a" * MAX_REQUEST_HEAD_BYTES,
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_can_be_understood_in_two_ways_is_refused(header: str, step: int) -> None:
    if step == 1 and len(HEADERS[header]) > 1000:
        pytest.skip("the same at any step")
    with pytest.raises(HttpError):
        read(b"POST / HTTP/1.1\r\n" + HEADERS[header] + b"\r\n\r\nhello" + GET, step)


@pytest.mark.parametrize(
    "line",
    [
        b"GET  / HTTP/1.1",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.1 ",
        b"GET / http/1.1",
        b"GET /a b HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET /",
        b"\x16\x03\x01",
        b" GET / HTTP/1.1",
    ],
)
def test_odd_request_lines_are_refused(line: bytes) -> None:
    with pytest.raises(HttpError):
        read(line + b"\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\r\nhelloworld\r\n0\r\n\r\n",
        b"100000000000\r\n",
        b"5;" + b"a" * 300,
        b"0\r\nX : a\r\n\r\n",
        b"0\r\n" + b"X: a\r\n" * 200,
        b"0\r\n" + b"a" * 9000,
        b"1\r\na\r\n" * 100_001,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_odd_chunks_are_refused(body: bytes) -> None:
    with pytest.raises(HttpError):
        read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body)


def test_a_head_that_drips_takes_bounded_time() -> None:
    reader = RequestReader()
    start = time.process_time()
    with pytest.raises(HttpError):
        for _ in range(MAX_REQUEST_HEAD_BYTES + 1):
            reader.take(b"a")
            reader.next_request()
    assert time.process_time() - start < 2


def test_ten_thousand_requests_in_one_go_take_bounded_time() -> None:
    start = time.process_time()
    assert len(read(GET * 10_000)) == 10_000
    assert time.process_time() - start < 3
