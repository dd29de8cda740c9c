"""The name in a client's first message of TLS, from real clients and from none."""

import os
import ssl
import struct

import pytest

from jail.watch.client_hello import MAX_HELLO_BYTES, is_tls, read_client_hello


def real_hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    message = hello[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(piece)) + piece for piece in pieces)


@pytest.mark.parametrize("name", ["example.com", "A.Example.COM", "x" * 60 + ".example.com"])
@pytest.mark.parametrize("size", [10, 100, 16384])
def test_the_name_is_read_however_it_is_cut(name: str, size: int) -> None:
    data = in_records(real_hello(name), size)
    assert is_tls(data[:1])
    assert is_tls(data)
    for end in (0, 1, 5, 44, len(data) - 1):
        assert read_client_hello(data[:end]) is None
    found = read_client_hello(data)
    assert found
    assert (found.name, found.is_hello) == (name.lower(), True)
    assert read_client_hello(data + b"more") == found


def test_a_client_may_name_nobody() -> None:
    found = read_client_hello(real_hello(None))
    assert found
    assert (found.name, found.is_hello) == (None, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x00",
        b"\x17\x03\x01\x00\x05hello",
        b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\x03\x03\x00\x00",
        real_hello("example.com").replace(b"example", b"ex\xff\xfeple"),
        b"\x16\x03\x01\x00\x01\x01" * MAX_HELLO_BYTES,
    ],
    ids=lambda data: data[:10].hex(),
)
def test_what_is_none_is_no_hello(data: bytes) -> None:
    found = read_client_hello(data)
    assert found
    assert (found.name, found.is_hello) == (None, False)


def test_no_garbage_raises() -> None:
    good = real_hello("example.com")
    for _ in range(3000):
        spoiled = bytearray(good)
        for _ in range(3):
            spoiled[5 + os.urandom(1)[0] % (len(good) - 5)] = os.urandom(1)[0]
        read_client_hello(bytes(spoiled))
        read_client_hello(b"\x16\x03\x01" + os.urandom(200))
    assert not is_tls(b"GET /")
