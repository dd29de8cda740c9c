"""Certificates of the decoy internet: an authority for the run, and a certificate for each name.

The openssl program makes them, since Python's library can't. A name gets to its command line only
if it has the form of a host name.
"""

import ipaddress
import os
import re
import secrets
import ssl
import subprocess
import threading
import time

from jail.watch.ages import SEC_OF_DAY

MAX_CERTIFICATES = 64
MAX_COMMON_NAME_CHARS = 64
TIMEOUT_SEC = 10.0
AUTHORITY_DAYS = 3650
LEAF_DAYS = 90
MIN_AUTHORITY_AGE_DAYS, MORE_AUTHORITY_AGE_DAYS = 400, 2500
ROOTS = ("R1", "R2", "R3", "R4", "G2", "G3", "X1", "CA", "CA 2")
# In DER: two times, of which the first says since when: `30 1e 17 0d 261126144200Z 17 0d ...`.
VALIDITY = re.compile(rb"(\x30\x1e\x17\x0d)[0-9]{12}Z(\x17\x0d[0-9]{12}Z)")
LONG_LENGTH = 128  # from here on a length has more than one byte
# "files.evil.example", what may stand for a host in a certificate, in small letters.
NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
    r"(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*",
    re.ASCII,
)
# "203.0.113.7", or what is meant to look so.
DIGITS = re.compile(r"[0-9.]+", re.ASCII)
# "Meadow Trust Services"
TITLE = re.compile(r"[A-Za-z0-9 ]{1,50}", re.ASCII)
# "4f06f81d", under which the certificate is looked up in a folder.
HASH = re.compile(r"[0-9a-f]{8}", re.ASCII)
CONFIGURATION = b"""
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class CertificateError(Exception):
    """openssl is not there, or did not do what it was asked for."""


def in_memory(data: bytes) -> int:
    """A descriptor of a file that has no name, for programs and functions that want a path."""
    fd = os.memfd_create("certificates", os.MFD_CLOEXEC)
    os.write(fd, data)
    return fd


def path_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


class Authority:
    """The certificate authority of one run. It has one key, which serves for the names as well.

    Args:
        openssl: the program's path.
        title: what the authority calls itself; letters, digits, spaces.

    Raises:
        CertificateError: it could not be made.
    """

    def __init__(self, openssl: str, title: str) -> None:
        if not TITLE.fullmatch(title):
            raise CertificateError(f"no title of an authority: {title!r:.100}")
        self.openssl, self.title = openssl, title
        self.lock = threading.Lock()
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.configuration_fd = in_memory(CONFIGURATION)
        self.fds = [self.configuration_fd]
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        subject = f"/O={title}/CN={title} Root {secrets.choice(ROOTS)}"
        made = self.request(
            [*new_key, "-keyout", "/dev/stdout", "-extensions", "authority", "-subj", subject],
            AUTHORITY_DAYS,
        )
        # `-----BEGIN PRIVATE KEY----- ... -----BEGIN CERTIFICATE----- ...`
        key, mark, certificate = made.partition(b"-----BEGIN CERTIFICATE-----")
        self.key = key
        self.certificate = self.backdated(mark + certificate)
        self.authority_fd = in_memory(key + self.certificate)
        self.fds.append(self.authority_fd)
        found = self.run(["x509", "-noout", "-hash", "-in", path_of(self.authority_fd)])
        digest = found.decode("ascii", "replace").strip()
        if not HASH.fullmatch(digest):
            raise CertificateError(f"openssl gave no hash of the certificate: {digest!r:.100}")
        self.link_name = f"{digest}.0"

    def run(self, words: list[str]) -> bytes:
        """What openssl prints. Raises CertificateError."""
        try:
            done = subprocess.run(  # noqa: S603 - no word of it is a stranger's but checked names
                [self.openssl, *words],
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=self.fds,
                timeout=TIMEOUT_SEC,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CertificateError(f"openssl: {error}") from error
        if done.returncode != 0:
            raise CertificateError(f"openssl {words[0]} ended with {done.returncode}")
        return done.stdout

    def request(self, words: list[str], days: int) -> bytes:
        """A certificate, after the key if a new key was asked for. Raises CertificateError."""
        configuration = ["-config", path_of(self.configuration_fd)]
        return self.run(["req", "-x509", *configuration, "-days", str(days), *words])

    def backdated(self, certificate: bytes) -> bytes:
        """The authority's certificate, of some years ago, since no machine trusts one of today.
        openssl can't be asked for that: so it signs the changed one once more.
        """
        try:
            der = ssl.PEM_cert_to_DER_cert(certificate.decode())
        except ValueError as error:
            raise CertificateError(f"openssl gave no certificate: {certificate!r:.100}") from error
        # A sequence of three: what is signed, by what, and the signature.
        start = head_bytes(der)
        end = start + head_bytes(der[start:]) + body_bytes(der[start:])
        algorithm = der[end : end + head_bytes(der[end:]) + body_bytes(der[end:])]
        age_sec = MIN_AUTHORITY_AGE_DAYS * SEC_OF_DAY
        age_sec += secrets.randbelow(MORE_AUTHORITY_AGE_DAYS * SEC_OF_DAY)
        since = time.strftime("%y%m%d%H%M%SZ", time.gmtime(time.time() - age_sec))
        signed = VALIDITY.sub(lambda found: found[1] + since.encode() + found[2], der[start:end])
        fds = [in_memory(self.key), in_memory(signed)]
        self.fds += fds
        signature = self.run(["dgst", "-sha256", "-sign", *map(path_of, fds)])
        content = signed + algorithm + b"\x03" + length_of(len(signature) + 1) + b"\0" + signature
        return ssl.DER_cert_to_PEM_cert(b"\x30" + length_of(len(content)) + content).encode()

    def context(self, name: str) -> ssl.SSLContext | None:
        """What a server for this name or address speaks TLS with.

        None where it is none, where the certificates of the run are used up, or openssl failed.
        Threads may ask side by side; it takes some 10 ms the first time.
        """
        with self.lock:
            if name in self.contexts:
                return self.contexts[name]
            if len(self.contexts) >= MAX_CERTIFICATES:
                return None
            try:
                context = self.make_context(name)
            except (CertificateError, ssl.SSLError):
                return None
            self.contexts[name] = context
            return context

    def any_context(self) -> ssl.SSLContext | None:
        """What to speak TLS with where no certificate can be made: with clients that don't look."""
        with self.lock:
            return next(reversed(self.contexts.values()), None)

    def make_context(self, name: str) -> ssl.SSLContext:
        """Raises CertificateError, also for what has not the form of a host name."""
        signer = path_of(self.authority_fd)
        leaf = ["-new", "-key", signer, "-CA", signer, "-CAkey", signer, "-extensions", "leaf"]
        common = name if len(name) <= MAX_COMMON_NAME_CHARS else name[-MAX_COMMON_NAME_CHARS:]
        subject = ["-subj", f"/CN={common}", "-addext", f"subjectAltName={alternative(name)}"]
        certificate = self.request([*leaf, *subject], LEAF_DAYS)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Nothing that lets a client make the server work again and again on one connection.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        fd = in_memory(self.key + certificate)
        try:
            context.load_cert_chain(path_of(fd))
        finally:
            os.close(fd)
        return context

    def close(self) -> None:
        """Let go of the key."""
        for fd in self.fds:
            os.close(fd)


def length_of(size_bytes: int) -> bytes:
    """A length in DER: one byte, or how many bytes it has and these.

    >>> length_of(300).hex()
    '82012c'
    """
    if size_bytes < LONG_LENGTH:
        return bytes([size_bytes])
    said = size_bytes.to_bytes((size_bytes.bit_length() + 7) // 8, "big")
    return bytes([LONG_LENGTH | len(said)]) + said


def head_bytes(der: bytes) -> int:
    """How long the kind and the length of a value are: `30 82 01 2c`."""
    return 2 + (der[1] - LONG_LENGTH if der[1] > LONG_LENGTH else 0)


def body_bytes(der: bytes) -> int:
    """How long the value itself is."""
    return int.from_bytes(der[2 : head_bytes(der)], "big") or der[1]


def alternative(name: str) -> str:
    """`name` as subjectAltName has it. Raises CertificateError for what is no name or address."""
    if NAME.fullmatch(name) and not DIGITS.fullmatch(name):
        return f"DNS:{name}"
    # An IPv6 address may carry a zone, which is any text: "fe80::1%,DNS:example.com".
    if "%" in name:
        raise CertificateError(f"an address with a zone: {name!r:.100}")
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError as error:
        raise CertificateError(f"no name: {name!r:.100}") from error
