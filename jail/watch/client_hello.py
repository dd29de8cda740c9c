"""Reads for whom a client of TLS asks, before it is answered (RFC 8446 section 4.1.2, RFC 6066).

Hostile input: anything that begins as a message of TLS does. Beyond the name nothing of it counts.
"""

import struct
from dataclasses import dataclass

MAX_HELLO_BYTES = 32 << 10
MAX_RECORDS = 64
HANDSHAKE, CLIENT_HELLO, SERVER_NAME, HOST_NAME = 22, b"\x01", 0, 0


@dataclass(frozen=True)
class ClientHello:
    """The name in lower case, None where there is none; and whether it is a hello at all."""

    name: str | None
    is_hello: bool = True


NO_HELLO = ClientHello(None, is_hello=False)


def is_tls(data: bytes | bytearray) -> bool:
    """Whether a connection may begin like this: `16 03`."""
    return data[:1] == b"\x16" and data[1:2] in (b"", b"\x03")


def read_client_hello(data: bytes | bytearray) -> ClientHello | None:
    """What the first bytes of a connection say; None while more are needed.

    `16 03 01 02 00`: a record, its version and length. In it `01 00 01 fc`: the hello and its
    length; version, 32 random bytes; then session, ciphers, compression, extensions, each after
    its length.
    """
    message = bytearray()
    at = 0
    wanted = 4
    records = 0
    while len(message) < wanted:
        records += 1
        if records > MAX_RECORDS:
            return NO_HELLO
        if len(data) < at + 5:
            return None if len(data) < MAX_HELLO_BYTES else NO_HELLO
        kind, _, length = struct.unpack_from("!BHH", data, at)
        if kind != HANDSHAKE or not length:
            return NO_HELLO
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if len(message) >= 4:
            wanted = 4 + int.from_bytes(message[1:4])
        if message[:1] not in (b"", CLIENT_HELLO) or wanted > MAX_HELLO_BYTES:
            return NO_HELLO
    try:
        return ClientHello(find_name(bytes(message[:wanted])))
    except (struct.error, IndexError, UnicodeDecodeError):
        return NO_HELLO


def find_name(message: bytes) -> str | None:
    """The name in a hello. Raises struct.error, IndexError, UnicodeDecodeError."""
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + struct.unpack_from("!H", message, at)[0]
    at += 1 + message[at]
    at += 2
    while at < len(message):
        kind, length = struct.unpack_from("!HH", message, at)
        if kind == SERVER_NAME:
            # `00 0e  00  00 0b  e x a m p l e . c o m`: of the list, its only entry.
            _, entry, size = struct.unpack_from("!HBH", message, at + 4)
            name = message[at + 9 : at + 9 + size].decode("ascii")
            return name.lower() if entry == HOST_NAME and name else None
        at += 4 + length
    return None
