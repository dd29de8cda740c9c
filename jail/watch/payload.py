"""What a payload carries: bait, however it is wrapped, or the whole environment."""

import base64
import re
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from jail.watch.wrappings import CONTROLS, TO_USUAL_BASE64, Certainty, is_text, unwrap

# Of a value: shorter values turn up by chance; of a longer value some pieces are enough.
MIN_VALUE_CHARS = 8
PIECE_CHARS = 40
MAX_PIECES = 3
# The environment was sent when so much of it is there, by name and value.
ENVIRONMENT_SHARE = 0.6
MIN_ENVIRONMENT = 4
# Names alone say more where they are more: so many of all, decoys' among them.
NAMES_SHARE = 0.8
MIN_NAMES = 8
# What has fewer bytes is an identifier or a checksum; of what is no text as a whole, a number.
MIN_OPAQUE_BYTES = 65
MIN_BINARY_BYTES = 24
OPAQUE_RATIO = 0.97  # of the size when packed
LETTERS_SHARE = 1 / 16
LETTERS = string.ascii_uppercase + string.ascii_lowercase
TURNED = LETTERS[13:26] + LETTERS[:13] + LETTERS[39:] + LETTERS[26:39]
ROT13 = bytes.maketrans(LETTERS.encode(), TURNED.encode())
# What XORs with a key that repeats is looked for at the start of a payload.
MAX_KEY_BYTES = 16
MAX_XORED_BYTES = 256 << 10  # of all layers of a payload
# Base85 of ZeroMQ, by that of Python.
IN_85 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
IN_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
TO_Z85 = bytes.maketrans(IN_85, IN_Z85)
# What says of itself that it is encrypted, or packed in a way that is not known here: of OpenSSL,
# Fernet, PGP, age; Zstandard, 7-Zip, RAR; a zip with a password or another way to pack.
SEALED = re.compile(
    rb"\ASalted__|\AgAAAAA[\w-]{60}|-----BEGIN PGP MESSAGE|\Aage-encryption\.org/"
    rb"|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07"
    rb"|PK\x03\x04..(?:[\x01\x03\x05\x07\x09\x0b]|.{2}[\x09\x5d-\x63]\x00)",
    re.DOTALL,
)
# Text that only an encoding of encrypted bytes gives: most signs of base85, hardly a space.
SIGNS_OF_85 = b"!#$%&()*;<>?@^`{|}~"
MIN_SIGNS = 12
MIN_DENSE_CHARS = 200
MIN_LETTERS = 10  # different letters, of text that somebody can read
DENSE_RATIO = 0.8


@dataclass(frozen=True)
class Carried:
    """What was found: names of bait; the environment as a whole; a part that can't be read, and a
    part that was not searched because there is so much of it.
    """

    bait: tuple[str, ...] = ()
    environment: bool = False
    opaque: bool = False
    cut: bool = False


@dataclass
class Forms:
    """How values look, each form with the value's name: as it is, in base64 and base85 at each
    offset, in lower case hex and base32.

    `differences`: see differences_of, by the length of the key.
    """

    plain: list[tuple[bytes, str]] = field(default_factory=list)
    base64: list[tuple[bytes, str]] = field(default_factory=list)
    base85: list[tuple[bytes, str]] = field(default_factory=list)
    lower: list[tuple[bytes, str]] = field(default_factory=list)
    differences: dict[int, list[tuple[bytes, str]]] = field(default_factory=dict)

    def add(self, name: str, value: str) -> None:
        """Add a value. In these bases the outer characters hang on their neighbours."""
        for data in (piece.encode() for piece in pieces_of(value)):
            # UTF-16 with either end first, UTF-32.
            wide = (widened(data, 2, 0), widened(data, 2, 1), widened(data, 4, 0))
            plain = {data, data[::-1], data.translate(ROT13), *wide}
            in_hex = data.hex().encode()
            lower = {data.lower(), in_hex, in_hex[::-1], *in_base32(data)}
            self.plain += [(form, name) for form in plain]
            self.lower += [(form, name) for form in lower]
            self.base64 += [(form, name) for form in in_base64(data)]
            self.base85 += [(form, name) for form in in_base85(data)]
            for key_bytes in range(1, MAX_KEY_BYTES + 1):
                if len(data) >= key_bytes + MIN_VALUE_CHARS:
                    form = differences_of(data, key_bytes)
                    self.differences.setdefault(key_bytes, []).append((form, name))


def pieces_of(value: str) -> list[str]:
    """What is searched of a value: itself, or pieces of its longest lines.

    Line breaks may have changed on the way. A line such as `-----BEGIN` is no secret.
    """
    if len(value) <= PIECE_CHARS * 2 and "\n" not in value:
        return [value] if len(value) >= MIN_VALUE_CHARS else []
    lines = [line.strip() for line in value.split("\n") if not line.startswith("-----")]
    longest = sorted(lines, key=len, reverse=True)[:MAX_PIECES]
    pieces = [line[len(line) // 4 :][:PIECE_CHARS] for line in longest]
    return [piece for piece in pieces if len(piece) >= MIN_VALUE_CHARS * 2]


def in_base64(data: bytes) -> set[bytes]:
    forms = set()
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + data)
        core = coded[(offset * 4 + 2) // 3 :].rstrip(b"=")[:-2]
        forms |= {core, core[::-1]}
    return forms


def in_base32(data: bytes) -> set[bytes]:
    forms = set()
    for offset in range(5):
        coded = base64.b32encode(b"\0" * offset + data)
        forms.add(coded[(offset * 8 + 4) // 5 :].rstrip(b"=")[:-2].lower())
    return forms


def in_base85(data: bytes) -> set[bytes]:
    """What it is in each kind of base85, without the groups that have neighbours in them."""
    forms = set()
    for offset in range(4):
        whole = data[(4 - offset) % 4 :]
        whole = whole[: len(whole) // 4 * 4]
        coded = base64.b85encode(whole)
        forms |= {coded, coded.translate(TO_Z85), base64.a85encode(whole)}
    return forms


def widened(data: bytes, width: int, at: int) -> bytes:
    """`width` bytes for each byte: it stands at place `at` of them, the others are 0."""
    wide = bytearray(len(data) * width)
    wide[at::width] = data
    return bytes(wide)


def differences_of(data: bytes, key_bytes: int) -> bytes:
    """Each byte XOR the byte `key_bytes` before it: the same whatever key of this length, repeated,
    all of them were XORed with.
    """
    number = int.from_bytes(data)
    return (number ^ (number >> 8 * key_bytes)).to_bytes(len(data))[key_bytes:]


def is_opaque(data: bytes, min_bytes: int = MIN_OPAQUE_BYTES) -> bool:
    """Whether nobody can read this: it is encrypted, or packed in a way that is not known here."""
    if len(data) < min_bytes:
        return False
    letters = sum(data.count(letter) for letter in (b" ", b"\n", b"e", b"a", b"0"))
    # What is random can't be packed any more.
    packed_bytes = len(zlib.compress(data, 1))
    return letters < len(data) * LETTERS_SHARE and packed_bytes > len(data) * OPAQUE_RATIO


def is_dense(data: bytes) -> bool:
    """Whether it is text that only base85 of something encrypted or compressed gives."""
    if len(data) < MIN_DENSE_CHARS or sum(sign in data for sign in SIGNS_OF_85) < MIN_SIGNS:
        return False
    has_words = len(data.split()) > len(data) / MIN_DENSE_CHARS + 3
    return not has_words and len(zlib.compress(data, 1)) > len(data) * DENSE_RATIO


def is_sense(data: bytes) -> bool:
    """Whether a guess came out as text. Random bytes may do so by chance, for some signs."""
    try:
        return is_text(data) and len(set(data.decode())) >= MIN_LETTERS
    except UnicodeDecodeError:
        return False


class Search:
    """Finds the values of one run's bait, and its environment.

    Args:
        values: the bait's values by the names that the report tells.
        environment: the jail's variables; those that are bait count as bait alone.
    """

    def __init__(self, values: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.forms = Forms()
        for name, value in values.items():
            self.forms.add(name, value)
        self.environment: dict[bytes, bytes] = {}
        for name, value in environment.items():
            if name not in values and value:
                self.environment[name.encode()] = value.encode()
        self.names = [name.encode() for name in environment]

    def look(self, payload: bytes) -> Carried:
        """Search a payload. What it costs is bounded by the layers that `unwrap` makes."""
        bait: set[str] = set()
        environment = cut = False
        opaque = dense = False
        left_bytes = MAX_XORED_BYTES
        for layer in unwrap(payload):
            bait |= self.bait_in(layer.data) | self.bait_xored(layer.data[:left_bytes])
            left_bytes = max(0, left_bytes - len(layer.data))
            environment = environment or self.is_environment(layer.data)
            cut = cut or layer.is_cut
            is_readable = is_text(layer.data)
            if layer.certainty is Certainty.GUESSED and is_sense(layer.data):
                dense = False
            # Identifiers and checksums, put together, look encrypted.
            if layer.certainty is Certainty.MARKED and not opaque:
                is_binary = layer.data == payload and not is_readable
                min_bytes = MIN_BINARY_BYTES if is_binary else MIN_OPAQUE_BYTES
                opaque = SEALED.search(layer.data[:MAX_XORED_BYTES]) is not None
                opaque = opaque or (layer.is_last and is_opaque(layer.data, min_bytes))
                dense = dense or is_dense(layer.data)
        return Carried(tuple(sorted(bait)), environment, opaque or dense, cut)

    def bait_in(self, data: bytes) -> set[str]:
        """The names of the bait in one layer."""
        forms = self.forms
        in_64 = data.translate(TO_USUAL_BASE64)
        lower = data.lower()
        found = {name for form, name in forms.plain if form in data}
        found.update(name for form, name in forms.base64 if form in in_64)
        found.update(name for form, name in forms.lower if form in lower)
        # It has such signs, and ordinary text has few.
        if len(data.translate(None, SIGNS_OF_85)) < len(data):
            found.update(name for form, name in forms.base85 if form in data)
        if forms.differences:
            differences = differences_of(data, 1)
            found.update(name for form, name in forms.differences[1] if form in differences)
        return found

    def bait_xored(self, data: bytes) -> set[str]:
        """The names of the bait that was XORed with a key of several bytes, repeated."""
        # A key of letters, or of any bytes, leaves no text without controls.
        if data.isascii() and len(data.translate(None, CONTROLS)) == len(data):
            return set()
        found: set[str] = set()
        for key_bytes, forms in self.forms.differences.items():
            differences = differences_of(data, key_bytes)
            found.update(name for form, name in forms if form in differences)
        return found

    def is_environment(self, data: bytes) -> bool:
        """Whether most variables are in one layer, each with its name and its value, or nearly all
        names.
        """
        pairs = self.environment.items()
        found = sum(name in data and value in data for name, value in pairs)
        names = sum(name in data for name in self.names)
        is_all_names = names >= max(MIN_NAMES, len(self.names) * NAMES_SHARE)
        return is_all_names or found >= max(MIN_ENVIRONMENT, len(pairs) * ENVIRONMENT_SHARE)
