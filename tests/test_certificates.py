"""Certificates for the decoy internet, by the real openssl, checked by real clients."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jail.watch.certificates import MAX_CERTIFICATES, Authority, CertificateError

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(not OPENSSL, reason="there is no openssl program here")


@pytest.fixture
def authority() -> Iterator[Authority]:
    authority = Authority(str(OPENSSL), "Meadow Trust 7")
    yield authority
    authority.close()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str | None:
    """The ALPN protocol that both agreed on. Raises ssl.SSLError where the client refuses."""
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(near, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            near.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(far, server_hostname=name) as connection:
            connection.send(b"x")
            return connection.selected_alpn_protocol()
    finally:
        far.close()
        thread.join()


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "x_1.a-b.example.co.uk",
        "1.2.3.4",
        "2606:4700::1111",
        "a." * 100 + "example.com",
    ],
)
def test_a_client_that_trusts_the_authority_accepts_each_name(
    authority: Authority, name: str
) -> None:
    server = authority.context(name)
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.set_alpn_protocols(["h2", "http/1.1"])
    assert server
    assert handshake(server, client, name) == "http/1.1"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "other.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ssl.create_default_context(), name)


def test_the_certificate_is_found_in_a_folder_by_its_hash(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / authority.link_name).write_bytes(authority.certificate)
    server = authority.context("example.com")
    assert server
    assert (
        handshake(server, ssl.create_default_context(capath=str(tmp_path)), "example.com") is None
    )


def test_the_authority_is_some_years_old_and_signed_by_itself(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "root.pem").write_bytes(authority.certificate)
    words = [str(OPENSSL), "verify", "-check_ss_sig", "-CAfile", "root.pem", "root.pem"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True).returncode == 0
    words = [str(OPENSSL), "x509", "-noout", "-startdate", "-in", "root.pem"]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True).stdout
    since_sec = ssl.cert_time_to_seconds(said.partition("=")[2].strip())
    assert 399 < (time.time() - since_sec) / 86_400 < 3000


ODD = ["1.2.3.4.5", "999.1.1.1", "a" * 64, "a" * 300, "\u212a.com", "*.com", "a\0b", "fe80::1%lo"]
ODD += ["fe80::1%,DNS:evil.com"]


@pytest.mark.parametrize(
    "name",
    [
        *ODD,
        "",
        "a b.com",
        "a,DNS:evil.com",
        "a\n",
        "-config",
        "a/../b",
        "$(id)",
        "@/etc/passwd",
        "A.com",
    ],
)
def test_what_is_no_name_never_reaches_the_command_line(
    authority: Authority, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("openssl was started")

    monkeypatch.setattr(subprocess, "run", run)
    assert authority.context(name) is None


def test_certificates_are_made_once_and_are_few(authority: Authority) -> None:
    first = authority.context("a.example.com")
    assert first is authority.context("a.example.com")
    made = [authority.context(f"a{number}.example.com") for number in range(MAX_CERTIFICATES + 5)]
    assert sum(context is not None for context in made) == MAX_CERTIFICATES - 1
    assert authority.context("a.example.com") is first


def test_nothing_is_written_and_no_descriptor_is_left(tmp_path: Path) -> None:
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        authority = Authority(str(OPENSSL), "Meadow")
        authority.context("example.com")
        authority.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="openssl"):
        Authority(str(tmp_path / "openssl"), "Meadow")
    with pytest.raises(CertificateError, match="ended with 1"):
        Authority("/bin/false", "Meadow")
    with pytest.raises(CertificateError, match="gave no certificate"):
        Authority("/bin/true", "Meadow")
    with pytest.raises(CertificateError, match="title"):
        Authority(str(OPENSSL), "/CN=Meadow")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_works_without_privileges() -> None:
    program = (
        "import ctypes, resource, sys; sys.path.append(sys.argv[1])\n"
        "from jail.watch.certificates import Authority\n"
        "import os; ids = (65534, 65534, 65534)\n"
        "os.setgroups([]); os.setresgid(*ids); os.setresuid(*ids)\n"
        "libc = ctypes.CDLL(None); libc.prctl(4, 0, 0, 0, 0); libc.prctl(38, 1, 0, 0, 0)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "print(Authority(sys.argv[2], 'Meadow').context('example.com'))\n"
    )
    root = Path(__file__).resolve().parent.parent
    words = [sys.executable, "-I", "-S", "-c", program, str(root), str(OPENSSL)]
    done = subprocess.run(words, env={}, capture_output=True, text=True, cwd="/")
    assert "SSLContext" in done.stdout, done.stderr
