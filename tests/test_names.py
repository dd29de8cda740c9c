"""Names of the decoy internet, and what hides in questions for them."""

import base64
import ipaddress
import os
import time
from collections.abc import Callable

import pytest

from jail.watch import labels as labels_room
from jail.watch.labels import Hidden, domains_left_out, join_labels
from jail.watch.names import DNS_HEADER_BYTES, MAX_ADDRESSES, Kind, Names, registered, reply

SECRET = b"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY and more"
REAL = """
discord.com api.ipify.org example.com raw.githubusercontent.com a.b.c.oast.fun rentry.co bit.ly
c2.evil-host.xyz example.co.uk x.example.com.br t.me 0x0.st xn--80ak6aa92e.com x_y.example.com
thisisaverylongname.com schtroumpfs.be sqlite.org 4b1d2ce8f09e.ngrok.io rb.gy w3.org
abcdefgh.trycloudflare.com telemetry.googlesyndication.com strengthsfinder.com
"""
UNREAL = """
localhost printer.local exfil.badhost.example x.test a.invalid hidden.onion router.lan com co.uk
metadata.google.internal host.docker.internal no.suchtop a..com -a.com a-.com xkqjwzptvbn.com
a1b2c3d4e5f6.com d41d8cd98f00b204e9800998ecf8427e.com a%20b.com
iuqerfsodp9ifjaposdfjhgosurijfaewrwergwea.com wpad 1.2.3.4
"""
ODD = ("", ".", "a" * 64 + ".com", "a." * 130 + "com", "a\n.com", "a.com\n", "\u212aelvin.com")
ORDINARY = """
discord.com www.python.org api.github.com raw.githubusercontent.com media.example.co.uk
ec2-54-12-8-9.compute-1.amazonaws.com d3f8ykwhia686p.cloudfront.net o447951.ingest.sentry.io
s3.dualstack.eu-west-1.amazonaws.com safebrowsing.googleapis.com huggingface.co
us-central1-aiplatform.googleapis.com fonts.gstatic.com objects.githubusercontent.com localhost
printer.local 4b1d2ce8f09e.ngrok.io 1.2.3.4.in-addr.arpa a.b.c.d.e.f
"""


def names(salt: bytes = b"salt") -> Names:
    return Names(salt, lambda name: f"served to {name}")


@pytest.mark.parametrize("name", REAL.split())
def test_what_somebody_can_have_registered_exists(name: str) -> None:
    address = ipaddress.ip_address(names().address(name) or "")
    assert address.is_global


@pytest.mark.parametrize("name", [*UNREAL.split(), *ODD])
def test_what_nobody_can_have_registered_does_not_exist(name: str) -> None:
    assert names().address(name) is None
    assert names().answer(name, Kind.A) is None


def test_addresses_are_stable_in_a_run_and_others_in_the_next() -> None:
    run, other = names(b"one"), names(b"two")
    asked = [f"host{number}.example.com" for number in range(500)]
    addresses = [run.address(name) for name in asked]
    assert addresses == [run.address(name) for name in asked]
    assert len(set(addresses)) == len(asked)
    assert len(set(addresses) & {other.address(name) for name in asked}) < 5
    assert [run.name_of(address or "") for address in addresses] == asked
    assert run.name_of("8.8.8.8") is None


def test_a_million_names_take_no_more_memory_than_ten_thousand() -> None:
    run = names()
    for number in range(MAX_ADDRESSES + 500):
        assert run.address(f"n{number}.com")
    assert len(run.by_address) == MAX_ADDRESSES


def test_records_are_small_and_plausible() -> None:
    run = names()
    assert run.answer("www.example.com", Kind.AAAA) == []
    assert run.answer("www.example.com", 65) == []
    assert run.answer("www.example.com", Kind.MX) == [
        (Kind.MX, b"\0\x0a\x04mail\x07example\x03com\0")
    ]
    (kind, text), *_ = run.answer("example.com", Kind.TXT) or []
    assert (kind, text) == (Kind.TXT, b"\x15served to example.com")
    address = run.address("www.example.com") or ""
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert run.answer(reverse, Kind.PTR) == [(Kind.PTR, b"\x03www\x07example\x03com\0")]
    assert run.answer("8.8.8.8.in-addr.arpa", Kind.PTR) is None


def test_a_reply_is_a_dns_message() -> None:
    question = b"\x03www\x07example\x03com\0\0\x01\0\x01"
    message = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0" + question + b"trailing"
    end = DNS_HEADER_BYTES + len(question)
    said = reply(message, end, [(Kind.A, bytes([52, 1, 2, 3]))])
    assert said[:2] == b"\xab\xcd"
    assert said[2:12] == b"\x81\x80\0\x01\0\x01\0\0\0\0"
    assert said[12:] == question + b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\x34\x01\x02\x03"
    assert reply(message, end, None)[3] & 15 == 3
    assert reply(message, end, [])[3] & 15 == 0


@pytest.mark.parametrize("name", ["discord.com", "example.co.uk", "example.com.br"])
def test_what_is_registered(name: str) -> None:
    assert registered(f"a.b.{name}") == registered(name) == name


def find_hidden(names: list[str]) -> list[Hidden]:
    """The texts that are in names."""
    return [hidden for hidden in join_labels(names) if hidden.data]


def test_domains_that_are_too_many_to_be_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_room, "MAX_DOMAINS", 2)
    names = [f"{b'root:x:0'.hex()}.evil{number}.com" for number in range(3)]
    assert len(find_hidden(names)) == 2
    assert domains_left_out(names) == 1
    assert domains_left_out(names[:2]) == 0


def base64_url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def base32(data: bytes) -> bytes:
    return base64.b32encode(data).rstrip(b"=").lower()


CODES: list[Callable[[bytes], bytes]] = [base64_url, base32, lambda data: data.hex().encode()]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    "name",
    ["{piece}.evil.xyz", "{number}.{piece}.x7.evil.co.uk", "{piece}.{number}.evil.unknowntop"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_text_cut_into_names_is_put_together(
    code: Callable[[bytes], bytes], name: str, whole: bool
) -> None:
    if whole:
        text = code(SECRET).decode()
        pieces = [text[at : at + 30] for at in range(0, len(text), 30)]
    else:
        pieces = [code(SECRET[at : at + 20]).decode() for at in range(0, 60, 20)]
    asked = [name.format(piece=piece, number=number) for number, piece in enumerate(pieces)]
    (hidden,) = find_hidden(["www.python.org", *asked])
    assert hidden.data == (SECRET if whole else SECRET[:60])
    assert hidden.questions == len(pieces)
    assert "evil" in hidden.domain


def test_a_text_in_one_name_is_read() -> None:
    labels = SECRET[:40].hex()
    (hidden,) = find_hidden([f"{labels[:60]}.{labels[60:]}.evil.xyz"])
    assert hidden.data == SECRET[:40]


def test_ordinary_names_hide_nothing() -> None:
    ordinary = ORDINARY.split()
    assert find_hidden(ordinary) == []
    assert find_hidden([*ordinary, "", ".", "..", "a" * 4000]) == []


def test_many_names_take_bounded_time() -> None:
    flood = [
        f"{os.urandom(20).hex()}.{number % 3000}.evil{number % 700}.com"
        for number in range(100_000)
    ]
    start = time.process_time()
    find_hidden(flood)
    assert time.process_time() - start < 5
