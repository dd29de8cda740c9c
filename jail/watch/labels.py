"""What hides in questions for names: thieves encode a text, cut it, and ask for each piece.

Hostile input: names, in any number.
"""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from jail.watch.names import registered

MAX_DOMAINS = 200
MAX_HIDDEN_CHARS = 16 << 10  # as they were asked for, of one domain
MIN_HIDDEN_BYTES = 6
MIN_CODED_CHARS = 12
# A number before a piece: "0", "007", "12".
COUNTER = re.compile(r"[0-9]{0,4}", re.ASCII)
HIDDEN_TEXT = re.compile(rb"[\t\n\r -~]+")


@dataclass(frozen=True)
class Hidden:
    """What the questions for names below `domain` say, put together: `questions` of them.

    `coded` is as it was asked for; `data` what it encodes, if that is text, else None.
    """

    domain: str
    questions: int
    coded: str
    data: bytes | None


def from_hex(text: str) -> bytes:
    return bytes.fromhex(text)


def from_base32(text: str) -> bytes:
    # A last piece that got lost must not take the others with it.
    whole = text if len(text) % 8 in (0, 2, 4, 5, 7) else text[:-1]
    return base64.b32decode(whole.upper() + "=" * (-len(whole) % 8))


def from_base64(text: str) -> bytes:
    usual = text.replace("-", "+").replace("_", "/")
    whole = usual[:-1] if len(usual) % 4 == 1 else usual
    return base64.b64decode(whole + "=" * (-len(whole) % 4), validate=True)


CODES: tuple[Callable[[str], bytes], ...] = (from_hex, from_base32, from_base64)


def decode(text: str) -> bytes | None:
    """The text that `text` encodes; None where it is no code, or says nothing that is text."""
    if len(text) < MIN_CODED_CHARS:
        return None
    for code in CODES:
        try:
            data = code(text)
        except ValueError:
            continue
        if len(data) >= MIN_HIDDEN_BYTES and HIDDEN_TEXT.fullmatch(data):
            return data
    return None


def label_pieces(prefixes: list[str]) -> list[str]:
    """The pieces of a text, in order: what stands before the domain in each name.

    Without the numbers of the pieces, and without a label that is in all names.
    """
    counts = Counter(label for prefix in prefixes for label in set(prefix.split(".")))
    pieces = []
    for prefix in prefixes:
        labels = prefix.split(".")
        own = [label for label in labels if len(prefixes) == 1 or counts[label] < len(prefixes)]
        pieces.append("".join(label for label in own if not COUNTER.fullmatch(label)))
    return [piece for piece in pieces if piece]


def prefixes_by_domain(names: Iterable[str]) -> dict[str, list[str]]:
    """What stands before each domain in the names, in the order that they were asked for."""
    found: dict[str, list[str]] = {}
    for name in names:
        labels = name.rstrip(".").split(".")
        domain = registered(name.lower().rstrip(".")) or ".".join(labels[-2:]).lower()
        prefix = ".".join(labels[: -len(domain.split("."))])
        found.setdefault(domain, []).append(prefix)
    return found


def domains_left_out(names: Iterable[str]) -> int:
    """How many domains there are whose names join_labels does not read."""
    return max(0, len(prefixes_by_domain(names)) - MAX_DOMAINS)


def join_labels(names: Iterable[str]) -> list[Hidden]:
    """What names say below each of the first MAX_DOMAINS domains."""
    found = []
    for domain, prefixes in islice(prefixes_by_domain(names).items(), MAX_DOMAINS):
        pieces = label_pieces(list(dict.fromkeys(prefixes)))
        coded = "".join(pieces)[:MAX_HIDDEN_CHARS]
        data = decode(coded)
        if data is None:
            # Each piece may have been encoded by itself.
            parts = [decode(piece) or b"" for piece in pieces]
            data = b"".join(parts)[:MAX_HIDDEN_CHARS]
        found.append(Hidden(domain, len(prefixes), coded, data or None))
    return found
