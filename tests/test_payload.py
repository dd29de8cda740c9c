"""Bait is found in every wrapping that a thief may use; no wrapping costs more than its bound."""

import base64
import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import random
import secrets
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from typing import Literal
from urllib.parse import quote, urlencode

import pytest

from jail.watch.payload import TO_Z85, Carried, Search
from jail.watch.record import SEARCHED_FOR_BAIT
from jail.watch.sink import Sink
from jail.watch.world import Traffic, make_world
from jail.watch.wrappings import MAX_ALL_BYTES, MAX_LAYERS, unwrap

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYq7c31d2f"
KEY = (
    "-----BEGIN KEY-----\n"
    + "\n".join(secrets.token_hex(32) for _ in range(8))
    + "\n-----END KEY-----\n"
)
VALUES = {"AWS_SECRET_ACCESS_KEY": SECRET, "~/.ssh/id_rsa": KEY}
ENVIRONMENT = {
    "HOME": "/home/dev",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "USER": "dev",
    "SHELL": "/bin/bash",
}
ENVIRONMENT |= {"AWS_SECRET_ACCESS_KEY": SECRET}
BAIT = (("AWS_SECRET_ACCESS_KEY",), SECRET.encode())


def look(payload: bytes) -> Carried:
    return Search(VALUES, ENVIRONMENT).look(payload)


def in_zip(data: bytes, method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("readme.txt", "nothing")
        archive.writestr("keys", data)
    return file.getvalue()


def in_streamed_zip(data: bytes) -> bytes:
    """As a program writes it that can't go back: sizes are told after each member."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("keys", "w") as member:
            member.write(data)
        archive.writestr("last", "nothing")
    return pipe.data


def in_tar(data: bytes, mode: Literal["w", "w:gz", "w:xz"]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        member = tarfile.TarInfo("home/dev/keys")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def cut(data: bytes, size: int) -> list[str]:
    return [data[at : at + size].decode() for at in range(0, len(data), size)]


def xored(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[at % len(key)] for at, byte in enumerate(data))


def in_fields(pieces: list[str]) -> bytes:
    return json.dumps({f"part{number}": piece for number, piece in enumerate(pieces)}).encode()


WRAPPINGS = {
    "as it is": lambda data: b"key=" + data,
    "reversed": lambda data: data[::-1],
    "percent": lambda data: quote(data, safe="").encode(),
    "every byte percent": lambda data: "".join(f"%{byte:02x}" for byte in data).encode(),
    "a form": lambda data: urlencode({"text": "keys: " + data.decode()}).encode(),
    "JSON": lambda data: json.dumps({"text": data.decode()}).replace("/", r"\/").encode(),
    "JSON by numbers": lambda data: "".join(f"\\u{byte:04x}" for byte in data).encode(),
    "Python's repr": lambda data: "".join(f"\\x{byte:02x}" for byte in data).encode(),
    "hex": lambda data: data.hex().encode(),
    "upper hex": lambda data: data.hex().upper().encode(),
    "base32": lambda data: base64.b32encode(b"xyz" + data),
    "lower base32": lambda data: base64.b32encode(data).lower(),
    "URL-safe base64": lambda data: base64.urlsafe_b64encode(b"\xff\xfe" + data),
    "base64 in lines": lambda data: base64.encodebytes(b"text before it " * 9 + data),
    "base64 twice": lambda data: base64.b64encode(base64.b64encode(data)),
    "base64 without padding": lambda data: b"?q=" + base64.b64encode(data).rstrip(b"="),
    "base64 of UTF-16": lambda data: base64.b64encode(data.decode().encode("utf-16-le")),
    "quoted-printable": lambda data: b"=\r\n".join(data[i : i + 5] for i in range(0, len(data), 5)),
    "cut into fields of JSON": lambda data: in_fields(cut(data, 15)),
    "cut into fields of a form": lambda data: b"&".join(
        b"part=" + quote(piece).encode() for piece in cut(data, 15)
    ),
    "base64, then cut": lambda data: in_fields(cut(base64.b64encode(b"keys: " + data), 17)),
    "cut, then base64": lambda data: in_fields(
        [base64.b64encode(piece.encode()).decode() for piece in cut(data, 10)]
    ),
    "cut, then hex": lambda data: " ".join(
        piece.encode().hex() for piece in cut(data, 10)
    ).encode(),
    "spaced hex": lambda data: data.hex(" ").encode(),
    "hex with colons": lambda data: data.hex(":").encode(),
    "hex as in C": lambda data: ", ".join(hex(byte) for byte in data).encode(),
    "a list of numbers": lambda data: json.dumps({"d": list(data)}).encode(),
    "numbers": lambda data: " ".join(str(byte) for byte in data).encode(),
    "HTML": lambda data: "".join(f"&#x{byte:x};" for byte in data).encode(),
    "UTF-16, big end first": lambda data: data.decode().encode("utf-16-be"),
    "UTF-32": lambda data: data.decode().encode("utf-32"),
    "ROT13": lambda data: codecs.encode(data.decode(), "rot13").encode(),
    "XOR with one byte": lambda data: bytes(byte ^ 0x5A for byte in b"keys: " + data),
    "XOR with a key": lambda data: xored(b"keys: " + data, b"hunter2"),
    "XOR with 16 bytes, in hex": lambda data: (
        xored(b"x" + data, bytes(range(99, 115))).hex().encode()
    ),
    "base85": lambda data: b'{"d": "' + base64.b85encode(b"key " + data) + b'"}',
    "ASCII85 of Adobe": lambda data: base64.a85encode(b"keys: " + data, adobe=True),
    "base85 of ZeroMQ": lambda data: base64.b85encode(b"k" + data).translate(TO_Z85),
    "gzip, then base85": lambda data: b"d=" + base64.b85encode(gzip.compress(data)),
    "bits": lambda data: "".join(f"{byte:08b}" for byte in data).encode(),
    "spaced bits": lambda data: " ".join(f"{byte:08b}" for byte in b"k" + data).encode(),
    "cut, then base64, put together": lambda data: b"".join(
        base64.b64encode(piece.encode()) for piece in cut(data, 8)
    ),
    "LZMA": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "the strongest xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    "XOR, then base64": lambda data: base64.b64encode(bytes(byte ^ 7 for byte in data)),
    "base64, then reversed": lambda data: base64.b64encode(data)[::-1],
    "reversed, then base64": lambda data: base64.b64encode(data[::-1]),
    "hex, then reversed": lambda data: data.hex()[::-1].encode(),
    "percent twice": lambda data: quote(quote(data, safe=""), safe="").encode(),
    "capitals": bytes.upper,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "deflate": deflated,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda data: in_zip(data, zipfile.ZIP_DEFLATED),
    "zip with LZMA": lambda data: in_zip(data, zipfile.ZIP_LZMA),
    "zip with bz2": lambda data: in_zip(data, zipfile.ZIP_BZIP2),
    "stored zip": lambda data: in_zip(data, zipfile.ZIP_STORED),
    "streamed zip": in_streamed_zip,
    "cut zip": lambda data: in_zip(data, zipfile.ZIP_DEFLATED)[:-80],
    "tar": lambda data: in_tar(data, "w"),
    "tar.gz": lambda data: in_tar(data, "w:gz"),
    "tar.xz": lambda data: in_tar(data, "w:xz"),
    "a zip in a form": lambda data: (
        b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n'
        + in_zip(data, zipfile.ZIP_DEFLATED)
        + b"\r\n--x--\r\n"
    ),
    "zlib in a form": lambda data: b"--x\r\nA: b\r\n\r\n" + zlib.compress(data) + b"\r\n--x--\r\n",
    "zip, base64, JSON, gzip": lambda data: gzip.compress(
        json.dumps({"f": base64.b64encode(in_zip(data, zipfile.ZIP_DEFLATED)).decode()}).encode()
    ),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", VALUES)
def test_bait_is_found_in_each_wrapping(wrapping: str, name: str) -> None:
    payload = WRAPPINGS[wrapping](VALUES[name].encode())  # type: ignore[no-untyped-call]
    assert look(payload).bait == (name,)


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("code", [base64.b64encode, base64.b32encode])
def test_bait_is_found_within_encoded_text_that_begins_elsewhere(
    code: Callable[[bytes], bytes], before: int
) -> None:
    coded = code(b"x" * before + SECRET.encode() + b"\xff")
    assert look(b"glued" + coded).bait == ("AWS_SECRET_ACCESS_KEY",)


def test_a_part_of_a_key_is_bait() -> None:
    lines = KEY.splitlines()
    assert look("".join(lines[1:-1]).encode()).bait == ("~/.ssh/id_rsa",)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0", b"AWS_SECRET_ACCESS_KEY", KEY[:19].encode(), os.urandom(5000), b"=" * 99],
)
def test_nothing_is_found_where_nothing_is(payload: bytes) -> None:
    assert not look(payload).bait
    assert not look(payload).environment


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps(ENVIRONMENT),
        "\n".join(f"{name}={value}" for name, value in ENVIRONMENT.items()),
        base64.b64encode(str(ENVIRONMENT).encode()).decode(),
        urlencode(ENVIRONMENT),
        json.dumps({k: v for k, v in ENVIRONMENT.items() if "AWS" not in k}),
    ],
)
def test_the_whole_environment_is_found(payload: str) -> None:
    assert look(payload.encode()).environment


def test_all_names_of_the_environment_are_found_without_a_value() -> None:
    names = [*ENVIRONMENT, *(f"VARIABLE_{number}" for number in range(6))]
    search = Search(VALUES, dict.fromkeys(names, "1"))
    assert search.look(base64.b64encode(json.dumps(names).encode())).environment
    assert not search.look(json.dumps(names[: len(names) // 2]).encode()).environment


def test_identifiers_that_stand_in_many_fields_are_not_told_as_encrypted() -> None:
    known = {f"id{number}": secrets.token_hex(16) for number in range(40)}
    assert not look(json.dumps(known).encode()).opaque


def test_a_few_variables_are_no_environment() -> None:
    assert not look(json.dumps({"HOME": "/home/dev", "LANG": "C.UTF-8"}).encode()).environment
    assert not look(b"HOME LANG PATH USER SHELL").environment


@pytest.mark.parametrize("size", [100, 1000, 100_000])
def test_what_is_encrypted_is_told_as_such(size: int) -> None:
    assert look(os.urandom(size)).opaque
    assert look(json.dumps({"blob": base64.b64encode(os.urandom(size)).decode()}).encode()).opaque


SMALL = os.urandom(40)
IN_ZIP = in_zip(SMALL, zipfile.ZIP_STORED)


@pytest.mark.parametrize(
    "payload",
    [
        b"Salted__" + SMALL,
        b"gAAAAABl" + base64.urlsafe_b64encode(os.urandom(72)),
        b"-----BEGIN PGP MESSAGE-----\n\nhQEMA\n",
        b"\x28\xb5\x2f\xfd" + SMALL,
        b"7z\xbc\xaf\x27\x1c\0\4" + SMALL,
        IN_ZIP.replace(b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1"),
        IN_ZIP.replace(b"PK\3\4\x14\0\0\0\0", b"PK\3\4\x3f\0\0\0\x5d"),
        SMALL,
        base64.b85encode(os.urandom(400)),
        json.dumps({"data": base64.b85encode(os.urandom(400)).decode()}).encode(),
    ],
    ids=["openssl", "fernet", "pgp", "zstd", "7z", "locked zip", "zstd zip", "raw", "b85", "json"],
)
def test_what_is_encrypted_or_packed_by_others_is_told_as_such(payload: bytes) -> None:
    assert look(payload).opaque


def test_no_chance_makes_what_is_encrypted_readable() -> None:
    seeds = map(random.Random, range(60))
    drawn = [base64.b85encode(seed.randbytes(400)) for seed in seeds]
    assert all(look(payload).opaque for payload in drawn)


@pytest.mark.parametrize("how", [base64.b85encode, base64.a85encode])
def test_the_environment_is_found_in_base85(how: Callable[[bytes], bytes]) -> None:
    assert look(how(zlib.compress(json.dumps(ENVIRONMENT).encode()))).environment


def test_what_can_be_read_is_not_told_as_encrypted() -> None:
    text = "\n".join(
        f"{number} some text of a log, {secrets.token_hex(4)}" for number in range(200)
    ).encode()
    for payload in (
        text,
        gzip.compress(text),
        base64.b64encode(zlib.compress(text)),
        b"t=" + quote(gzip.compress(text)).encode(),
        in_zip(text, zipfile.ZIP_DEFLATED),
        "&".join(f"key{n}={secrets.token_hex(8)}" for n in range(50)).encode(),
        b"https://host.example/a?" + quote("a b&c=d;e[f]{g}(h)*!$'" * 20).encode(),
        base64.b85encode(zlib.compress(text[:2000])),
        bytes([0x1B]) + bytes(47),
    ):
        assert not look(payload).opaque
    assert not look(
        json.dumps({"id": secrets.token_hex(32), "sha": secrets.token_hex(64)}).encode()
    ).opaque


def bomb(depth: int) -> bytes:
    data = bytes(8 << 20)
    for _ in range(depth):
        data = gzip.compress(data)
    return data


@pytest.mark.parametrize(
    "payload",
    [
        bomb(1),
        bomb(3),
        in_zip(bytes(50 << 20), zipfile.ZIP_DEFLATED),
        lzma.compress(bytes(50 << 20)),
        b"PK\x03\x04" * 300_000,
        b"\x1f\x8b\x08" * 300_000,
        b"QUFB" * 300_000,
        b"%41" * 400_000,
        b"\\u0041" * 200_000,
        b"=\n" * 500_000,
        b" ".join(secrets.token_hex(20).encode() for _ in range(25_000)),
        os.urandom(2 << 20),
    ],
    # The same names in every process that runs the tests: some payloads are made by chance.
    ids=[f"payload {number}" for number in range(12)],
)
def test_no_payload_costs_more_than_its_bound(payload: bytes) -> None:
    start = time.process_time()
    layers = list(unwrap(payload))
    look(payload)
    assert len(layers) <= MAX_LAYERS + 1
    assert sum(len(layer.data) for layer in layers) <= MAX_ALL_BYTES + (1 << 20)
    assert time.process_time() - start < 3


def test_the_end_of_what_is_long_is_searched_and_what_is_not_is_counted() -> None:
    traffic = Traffic(make_world(None, VALUES, ENVIRONMENT))
    sink = Sink()
    for _ in range(40):
        sink.take(b"some text of a log\n" * 4000)
    sink.take(b"key=" + SECRET.encode())
    assert traffic.look_at("1.2.3.4:80", sink).bait == ("AWS_SECRET_ACCESS_KEY",)
    assert traffic.lost[f"end of a payload, {SEARCHED_FOR_BAIT}"] >= 1
    small = Traffic(make_world(None, VALUES, ENVIRONMENT))
    short = Sink()
    short.take(b"nothing")
    assert small.look_at("1.2.3.4:80", short) == Carried()
    assert not small.lost
