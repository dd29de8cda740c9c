"""Takes a payload out of its wrappings: percent signs, escapes, base64, hex, compression, archives.

Hostile input: bombs, archives within archives, runs of text that only look encoded. All of it is
bounded by the number of layers and by their bytes together.
"""

import base64
import binascii
import bz2
import contextlib
import html
import lzma
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, auto
from itertools import islice
from urllib.parse import unquote_to_bytes

from jail.watch.fields import fields_of

MAX_LAYERS = 120
MAX_LAYER_BYTES = 1 << 20  # of any one layer; what it has beyond is not looked at
MAX_ALL_BYTES = 4 << 20  # of all layers of a payload
MIN_LAYER_BYTES = 8
MAX_LAYERS_DEEP = 6
MAX_RUNS = 40  # of text that looks encoded, in one layer
MAX_MEMBERS = 40  # of archives, in one layer
MAX_STREAMS = 4  # compressed, of each kind, in one layer
MAX_ENTITIES_BYTES = 64 << 10
MAX_XZ_MEMORY_BYTES = 72 << 20  # the strongest kind takes 65 MiB; few of them are touched
MAX_BASE85_RUNS = 2  # of each kind, in one layer: to decode them is slow
MAX_BASE85_CHARS = 4 << 10
# Text shows in its first bytes: they have no controls but those of lines, or hardly any.
START_BYTES = 4096
MAX_CONTROLS_SHARE = 0.02

# "a%20b".
PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
# "\n", "\/", "\u0041", "\x41": of JSON, Python, JavaScript.
ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
# "=3D", and a "=" that ends a line: of mail.
QUOTED = re.compile(rb"=(?:[0-9A-F]{2}|\r?\n)")
# "&#65;", "&#x41;", "&amp;": of HTML. Python makes no number of thousands of digits.
CHARACTER_NAME = re.compile(rb"&(?:#[0-9]{1,20}|#[xX][0-9a-fA-F]{1,20}|[A-Za-z0-9]{1,31});?")
# "QVdTX1NFQ1JFVA==", in lines as mail has it, in either alphabet.
BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]+)*")
BASE64_VALUE = re.compile(rb"[A-Za-z0-9+/_-]{2,}={0,2}")
# "QVdT=X1NF=Q1JF": pieces with an end each, put together.
BASE64_PIECES = re.compile(rb"[A-Za-z0-9+/_=-]{20,}")
# "4157535f534543524554", in either case.
HEX_RUN = re.compile(rb"[0-9a-fA-F]{16,}")
# "IFLVGX2TIVBVERKU", in either case.
BASE32_RUNS = (re.compile(rb"[A-Z2-7]{16,}"), re.compile(rb"[a-z2-7]{16,}"))
# "K~q&rE@s7*": as Python's b85 has it, and as its a85.
BASE85_RUNS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], bytes]], ...] = (
    (re.compile(rb"[0-9A-Za-z!#$%&()*+;<=>?@^_`{|}~-]{25,}"), base64.b85decode),
    (re.compile(rb"[!-u]{25,}"), base64.a85decode),
)
# "token=" of a form.
FIELD_NAME = re.compile(rb"\A[A-Za-z0-9_.-]{1,40}=")
# "0100000101010111", a space maybe after each byte.
BITS_RUN = re.compile(rb"(?:[01]{8}[ ,]?){8,}")
BIT_SEPARATORS = b" ,"
# Numbers of bytes: "41:57:53", "0x41, 0x57", "65, 87, 83".
NUMBERS = (
    (re.compile(rb"(?:0x)?[0-9a-fA-F]{2}(?:[,;:\s]{1,2}(?:0x)?[0-9a-fA-F]{2}){11,}"), 16),
    (re.compile(rb"[0-9]{1,3}(?:[,;\s]{1,2}[0-9]{1,3}){11,}"), 10),
)
# One of them: "41", "0x41", "65".
NUMBER = re.compile(rb"(?:0x)?([0-9a-fA-F]{1,3})")
TO_USUAL_BASE64 = bytes.maketrans(b"-_", b"+/")
CONTROLS = bytes([*range(9), *range(14, 32), 127])


class Certainty(IntEnum):
    """How a layer was come by: by its marks, by putting parts together, or by trying."""

    MARKED = auto()
    JOINED = auto()
    GUESSED = auto()


@dataclass(frozen=True)
class Layer:
    """What was found at one depth of a payload; the `last` has nothing in it."""

    data: bytes
    is_last: bool
    certainty: Certainty = Certainty.MARKED
    is_cut: bool = False  # there may be more in it, for which there was no room


def is_text(data: bytes) -> bool:
    """Whether it may be text in some encoding."""
    start = data[:START_BYTES]
    controls = len(start) - len(start.translate(None, CONTROLS))
    return controls <= len(start) * MAX_CONTROLS_SHARE


def unquote(data: bytes) -> Iterator[bytes]:
    if PERCENT.search(data):
        yield unquote_to_bytes(data.replace(b"+", b" "))


def unescape(data: bytes) -> Iterator[bytes]:
    if b"\\" in data:
        yield ESCAPE.sub(escaped_bytes, data)


def escaped_bytes(match: re.Match[bytes]) -> bytes:
    if match[1]:
        return chr(int(match[1], 16)).encode("utf-8", "replace")
    if match[2]:
        return bytes.fromhex(match[2].decode())
    return ESCAPED.get(match[3], match[3])


def unquote_mail(data: bytes) -> Iterator[bytes]:
    if QUOTED.search(data):
        yield binascii.a2b_qp(data)


def unescape_html(data: bytes) -> Iterator[bytes]:
    if b"&#" in data:
        yield CHARACTER_NAME.sub(named_character, data[:MAX_ENTITIES_BYTES])


def named_character(match: re.Match[bytes]) -> bytes:
    return html.unescape(match[0].decode()).encode("utf-8", "replace")


def runs(pattern: re.Pattern[bytes], data: bytes) -> list[bytes]:
    """The longest pieces of text that look encoded."""
    found = [match[0] for match in pattern.finditer(data)]
    return sorted(found, key=len, reverse=True)[:MAX_RUNS]


def from_base64_run(run: bytes) -> bytes:
    text = run.translate(TO_USUAL_BASE64, b"\r\n")
    # Four characters are three bytes. The last may lack their padding; a single character
    # says nothing.
    whole = text[:-1] if len(text) % 4 == 1 else text
    return base64.b64decode(whole + b"=" * (-len(whole) % 4))


def from_hex_run(run: bytes) -> bytes:
    return bytes.fromhex(run[: len(run) // 2 * 2].decode())


def decode_base64(data: bytes) -> Iterator[bytes]:
    for run in runs(BASE64_RUN, data):
        if not HEX_RUN.fullmatch(run):
            yield from_base64_run(run)


def decode_hex(data: bytes) -> Iterator[bytes]:
    for run in runs(HEX_RUN, data):
        yield from_hex_run(run)


def decode_numbers(data: bytes) -> Iterator[bytes]:
    for pattern, base in NUMBERS:
        for run in runs(pattern, data):
            numbers = [int(number, base) for number in NUMBER.findall(run)]
            if max(numbers) < 256:
                yield bytes(numbers)


def decode_bits(data: bytes) -> Iterator[bytes]:
    for run in runs(BITS_RUN, data):
        bits = run.translate(None, BIT_SEPARATORS)
        yield int(bits, 2).to_bytes(len(bits) // 8)


def decode_base85(data: bytes) -> Iterator[bytes]:
    """Where it is compressed before: see also Forms of payload.py."""
    for pattern, decode in BASE85_RUNS:
        for run in runs(pattern, data)[:MAX_BASE85_RUNS]:
            # `d=...` of a form, `"..."` of JSON: these signs may be part of it, too.
            for start in {run.strip(b"\"'"), FIELD_NAME.sub(b"", run)}:
                with contextlib.suppress(ValueError):
                    yield decode(start[:MAX_BASE85_CHARS])


def join_fields(data: bytes) -> Iterator[bytes]:
    """A value that was cut, each piece a field of its own."""
    values = [value for _, value in fields_of(data)]
    coded = [value.rstrip(b"=") for value in values if BASE64_VALUE.fullmatch(value)]
    if values:
        yield b"".join(values)
    if len(coded) > 1:
        yield b"".join(from_base64_run(value) for value in coded)


def join_runs(data: bytes) -> Iterator[bytes]:
    """A value that was cut, and then each piece encoded."""
    for pattern, decode in ((BASE64_RUN, from_base64_run), (HEX_RUN, from_hex_run)):
        found = [match[0] for match in islice(pattern.finditer(data), MAX_RUNS)]
        if len(found) > 1:
            yield b"".join(decode(run) for run in found)
    for run in runs(BASE64_PIECES, data) if b"=" in data else ():
        pieces = [piece for piece in run.split(b"=") if piece]
        if len(pieces) > 1:
            yield b"".join(from_base64_run(piece) for piece in pieces)


def decode_base32(data: bytes) -> Iterator[bytes]:
    for pattern in BASE32_RUNS:
        for run in runs(pattern, data):
            whole = run[: len(run) // 8 * 8]
            yield base64.b32decode(whole.upper())


def unpack_bz2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, MAX_LAYER_BYTES)


def unpack_xz(data: bytes) -> bytes:
    unpacker = lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY_BYTES)
    return unpacker.decompress(data, MAX_LAYER_BYTES)


def inflate(data: bytes, format_bits: int) -> bytes:
    return zlib.decompressobj(format_bits).decompress(data, MAX_LAYER_BYTES)


def unpack_gzip(data: bytes) -> bytes:
    return inflate(data, zlib.MAX_WBITS | 16)


def unpack_zlib(data: bytes) -> bytes:
    return inflate(data, zlib.MAX_WBITS)


def unpack_deflate(data: bytes) -> bytes:
    return inflate(data, -zlib.MAX_WBITS)


# By the bytes that each begins with, wherever these stand: a form, a message, another archive may
# be around it.
END_OF_PART_HEAD = b"\r\n\r\n"
STREAMS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], bytes]], ...] = (
    (re.compile(rb"\x1f\x8b\x08"), unpack_gzip),
    (re.compile(rb"BZh[1-9]1AY&SY"), unpack_bz2),
    (re.compile(rb"\xfd7zXZ\x00"), unpack_xz),
    # Its settings, its memory as a power of two, and that its size is not known.
    (re.compile(rb"\x5d\x00\x00[\x00-\xff]{2}\xff{8}"), unpack_xz),
    # Two bytes are too few to search for: at the start of it all, or of a part of a form.
    (re.compile(rb"\A\x78[\x01\x5e\x9c\xda]"), unpack_zlib),
    (re.compile(rb"\r\n\r\n(?=\x78[\x01\x5e\x9c\xda])"), unpack_zlib),
)


def unpack_streams(data: bytes) -> Iterator[bytes]:
    found = False
    for mark, unpack in STREAMS:
        for match in islice(mark.finditer(data), MAX_STREAMS):
            start = match.end() if match[0] == END_OF_PART_HEAD else match.start()
            with contextlib.suppress(zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
                yield unpack(data[start:])
                found = True
    # Bare deflate has no mark at all.
    if not found and not is_text(data):
        with contextlib.suppress(zlib.error):
            yield unpack_deflate(data)


ZIP_MEMBER = b"PK\x03\x04"
ZIP_HEADER = struct.Struct("<4s5H3I2H")
STORED, DEFLATED, LZMA = 0, 8, 14


def unpack_zip(data: bytes) -> Iterator[bytes]:
    """The members of a zip, by the header before each: it may be cut off, or another around it.

    `50 4b 03 04  14 00  00 00  08 00  ...`: mark, version, flags, method, time, date, checksum,
    packed size, size, length of the name, length of what follows the name.
    """
    at = data.find(ZIP_MEMBER)
    for _ in range(MAX_MEMBERS):
        if at < 0 or len(data) < at + ZIP_HEADER.size:
            return
        header = ZIP_HEADER.unpack_from(data, at)
        method, packed_bytes, name_bytes, extra_bytes = header[3], header[7], header[9], header[10]
        packed = data[at + ZIP_HEADER.size + name_bytes + extra_bytes :]
        if method == DEFLATED:
            with contextlib.suppress(zlib.error):
                yield unpack_deflate(packed)
        elif method == LZMA:
            with contextlib.suppress(lzma.LZMAError, ValueError, EOFError):
                yield unpack_lzma_member(packed)
        elif method == STORED and packed_bytes:
            yield packed[:packed_bytes]
        elif method == STORED:
            # Its size is told after it; the next mark ends it.
            yield packed.partition(b"PK")[0]
        at = data.find(ZIP_MEMBER, at + len(ZIP_MEMBER))


def unpack_lzma_member(data: bytes) -> bytes:
    """`09 04  05 00  5d 00 00 80 00  ...`: version, length of the settings, settings, data.

    The format of a file has behind the settings how large it is; "unknown" serves here, too.
    """
    settings_end = 4 + int.from_bytes(data[2:4], "little")
    return unpack_xz(data[4:settings_end] + b"\xff" * 8 + data[settings_end:])


Unwrapper = Callable[[bytes], Iterable[bytes]]
OF_TEXT: tuple[Unwrapper, ...] = (
    unquote,
    unescape,
    unquote_mail,
    unescape_html,
    decode_numbers,
    decode_bits,
)
# What only may be an encoding: nearly any text can be read so.
GUESSES: tuple[Unwrapper, ...] = (decode_base85,)
JOINS: tuple[Unwrapper, ...] = (join_fields, join_runs)
OF_ANYTHING: tuple[Unwrapper, ...] = (
    unpack_streams,
    unpack_zip,
    decode_base64,
    decode_hex,
    decode_base32,
)


def unwrap_once(data: bytes) -> Iterator[tuple[bytes, Certainty]]:
    """What is directly in a layer."""
    kinds = [(OF_ANYTHING, Certainty.MARKED)]
    if is_text(data):
        kinds += [(OF_TEXT, Certainty.MARKED), (JOINS, Certainty.JOINED)]
        kinds += [(GUESSES, Certainty.GUESSED)]
    for unwrappers, certainty in kinds:
        for unwrapper in unwrappers:
            for found in unwrapper(data):
                yield found, certainty


def unwrap(payload: bytes) -> Iterator[Layer]:
    """Each layer of a payload, the outer first.

    Members of a tar need no unpacking: they stand in it as they are.
    """
    left_bytes = MAX_ALL_BYTES
    seen: set[bytes] = set()
    waiting = [(payload[:MAX_LAYER_BYTES], 0, Certainty.MARKED)]
    # The list grows while it is walked through.
    for data, depth, known in waiting:
        is_last = True
        is_cut = len(data) == MAX_LAYER_BYTES
        for found, certainty in unwrap_once(data) if depth < MAX_LAYERS_DEEP else ():
            layer = found[: min(MAX_LAYER_BYTES, left_bytes)]
            if len(layer) < MIN_LAYER_BYTES or layer in seen:
                continue
            if len(seen) == MAX_LAYERS:
                break
            is_last = is_last and certainty is Certainty.GUESSED
            seen.add(layer)
            left_bytes -= len(layer)
            is_cut = is_cut or left_bytes == 0
            waiting.append((layer, depth + 1, max(known, certainty)))
        yield Layer(data, is_last, known, is_cut)
