"""What a payload carries: bait, however it is wrapped, or the whole environment."""

import base64
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from jail.watch.wrappings import TO_USUAL_BASE64, unwrap

# Of a value: shorter ones turn up by chance; of a longer one some pieces are enough.
MIN_VALUE_CHARS = 8
PIECE_CHARS = 40
MAX_PIECES = 3
# The environment was sent when so much of it is there, by name and value.
ENVIRONMENT_SHARE = 0.6
MIN_ENVIRONMENT = 4
# Names alone say more where they are more: so many of all, decoys' among them.
NAMES_SHARE = 0.8
MIN_NAMES = 8
# What has fewer bytes is an identifier or a checksum.
MIN_OPAQUE_BYTES = 65
OPAQUE_RATIO = 0.97  # of the size when packed
LETTERS_SHARE = 1 / 16
LETTERS = string.ascii_uppercase + string.ascii_lowercase
TURNED = LETTERS[13:26] + LETTERS[:13] + LETTERS[39:] + LETTERS[26:39]
ROT13 = bytes.maketrans(LETTERS.encode(), TURNED.encode())


@dataclass(frozen=True)
class Carried:
    """What was found: names of bait; the environment as a whole; a part that can't be read."""

    bait: tuple[str, ...] = ()
    environment: bool = False
    opaque: bool = False


@dataclass(frozen=True)
class Forms:
    """How a value looks: as it is, in base64 at each offset, in lower case hex and base32.

    `differences`: see differences_of.
    """

    plain: frozenset[bytes]
    base64: frozenset[bytes]
    lower: frozenset[bytes]
    differences: frozenset[bytes]


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


def forms_of(value: str) -> Forms:
    """All forms of a value. In base64 and base32 the outer characters hang on their neighbours."""
    plain: set[bytes] = set()
    in_64: set[bytes] = set()
    lower: set[bytes] = set()
    differences: set[bytes] = set()
    for piece in pieces_of(value):
        data = piece.encode()
        plain |= {data, data[::-1], data.translate(ROT13)}
        # UTF-16 with either end first, UTF-32.
        plain |= {widened(data, 2, 0), widened(data, 2, 1), widened(data, 4, 0)}
        in_hex = data.hex().encode()
        lower |= {data.lower(), in_hex, in_hex[::-1]}
        differences.add(differences_of(data))
        for offset in range(3):
            coded = base64.b64encode(b"\0" * offset + data)
            core = coded[(offset * 4 + 2) // 3 :].rstrip(b"=")[:-2]
            in_64 |= {core, core[::-1]}
        for offset in range(5):
            coded = base64.b32encode(b"\0" * offset + data)
            lower.add(coded[(offset * 8 + 4) // 5 :].rstrip(b"=")[:-2].lower())
    return Forms(frozenset(plain), frozenset(in_64), frozenset(lower), frozenset(differences))


def widened(data: bytes, width: int, at: int) -> bytes:
    """Each byte as the one at `at` of as many as `width`, the others 0."""
    wide = bytearray(len(data) * width)
    wide[at::width] = data
    return bytes(wide)


def differences_of(data: bytes) -> bytes:
    """Each byte XOR the one before: the same whatever single byte all of them were XORed with."""
    number = int.from_bytes(data)
    return (number ^ (number >> 8)).to_bytes(len(data))[1:]


def is_opaque(data: bytes) -> bool:
    """Whether nobody can read this: it is encrypted, or packed in a way that is not known here."""
    if len(data) < MIN_OPAQUE_BYTES:
        return False
    letters = sum(data.count(letter) for letter in (b" ", b"\n", b"e", b"a", b"0"))
    # What is random can't be packed any more.
    packed_bytes = len(zlib.compress(data, 1))
    return letters < len(data) * LETTERS_SHARE and packed_bytes > len(data) * OPAQUE_RATIO


class Search:
    """Finds the values of one run's bait, and its environment.

    Args:
        values: the bait's values by the names that the report tells.
        environment: the jail's variables; those that are bait count as bait alone.
    """

    def __init__(self, values: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.forms = {name: forms_of(value) for name, value in values.items()}
        self.environment: dict[bytes, bytes] = {}
        for name, value in environment.items():
            if name not in values and value:
                self.environment[name.encode()] = value.encode()
        self.names = [name.encode() for name in environment]

    def look(self, payload: bytes) -> Carried:
        """Search a payload. What it costs is bounded by the layers that `unwrap` makes."""
        bait: set[str] = set()
        environment = False
        opaque = False
        for layer in unwrap(payload):
            bait |= self.bait_in(layer.data)
            environment = environment or self.is_environment(layer.data)
            # Identifiers and checksums, put together, look encrypted.
            is_whole = layer.is_last and not layer.is_joined
            opaque = opaque or (is_whole and is_opaque(layer.data))
        return Carried(tuple(sorted(bait)), environment, opaque)

    def bait_in(self, data: bytes) -> set[str]:
        """The names of the bait in one layer."""
        in_64 = data.translate(TO_USUAL_BASE64)
        lower = data.lower()
        differences = differences_of(data)
        return {
            name
            for name, forms in self.forms.items()
            if any(form in data for form in forms.plain)
            or any(form in in_64 for form in forms.base64)
            or any(form in lower for form in forms.lower)
            or any(form in differences for form in forms.differences)
        }

    def is_environment(self, data: bytes) -> bool:
        """Whether most variables are in one layer, each with its name and its value, or nearly all
        names.
        """
        pairs = self.environment.items()
        found = sum(name in data and value in data for name, value in pairs)
        names = sum(name in data for name in self.names)
        is_all_names = names >= max(MIN_NAMES, len(self.names) * NAMES_SHARE)
        return is_all_names or found >= max(MIN_ENVIRONMENT, len(pairs) * ENVIRONMENT_SHARE)
