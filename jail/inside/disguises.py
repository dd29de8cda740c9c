"""Whether source that became code stands near in a shape that nobody reads: as numbers, backwards,
in crumbs, with each letter moved on or XORed by the same. A part of the audit hook; it looks at
values of the library's own types alone, and no code of the package runs.
"""

from __future__ import annotations

from binascii import b2a_base64
from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType
    from typing import Any

MIN_HIDDEN_CHARS = 12  # what is shorter may look like anything
MIN_KINDS = 4  # of differences: a row of dashes is like any other row
MAX_DISGUISED_CHARS = 64 << 10
MAX_CRUMB_CHARS = 4  # on average
MAX_KEY_CHARS = 24
# Of all that one process is looked at for: a byte costs a tenth of a microsecond.
MAX_DISGUISED_BYTES = 1 << 20


class Disguises:
    """What was looked at so far, in one process."""

    def __init__(self) -> None:
        self.left_bytes = MAX_DISGUISED_BYTES

    def hides(self, source: bytes, code: CodeType, values: Iterable[Any]) -> bool:
        """Whether one of `values`, or the numbers in `code` that compiles it, is the source."""
        start = source[:MAX_DISGUISED_CHARS].strip()
        moved = steps(start)
        if len(start) < MIN_HIDDEN_CHARS or len({*moved}) < MIN_KINDS:
            return False
        coded = coded_forms(start)
        if is_spelled(start, code):
            return True
        keys = range(1, min(MAX_KEY_CHARS, len(start) - MIN_HIDDEN_CHARS) + 1)
        crossed = {key: xored(start, key) for key in keys}
        for value in values:
            if self.left_bytes <= 0:
                return False
            readable, data = as_bytes(value, len(start))
            if len(data) < len(start):
                continue
            if start in data:
                if not readable:
                    return True
                continue
            if any(form in data.lower() for form in coded[:-1]) or coded[-1] in data:
                return True
            self.left_bytes -= len(data)
            if start[::-1] in data or moved in steps(data):
                return True
            if any(form in xored(data, key) for key, form in crossed.items()):
                return True
        return False


def as_bytes(value: Any, least: int) -> tuple[bool, bytes]:
    """A value as bytes, and whether a person reads them where they stand; none of what can't hide
    anything of that length.
    """
    kind = type(value)
    if kind is bytes:
        return True, value[:MAX_DISGUISED_CHARS]
    if kind is str:
        # Of letters far away the last eight bits: who hides text there counts on from one of them.
        return True, bytes(ord(letter) & 0xFF for letter in value[:MAX_DISGUISED_CHARS])
    if kind is int and least * 7 <= value.bit_length() <= MAX_DISGUISED_CHARS * 8:
        size_bytes = (value.bit_length() + 7) // 8
        return False, value.to_bytes(size_bytes, "big", signed=value < 0)
    if kind in (list, tuple) and value:
        return False, joined(value[:MAX_DISGUISED_CHARS], least)
    return True, b""


def joined(items: Any, least: int) -> bytes:
    """What numbers, or crumbs of a text, are together."""
    kinds = {*map(type, items)}
    if kinds == {int} and len(items) >= least:
        return bytes(item & 0xFF for item in items)
    if kinds == {str}:
        whole = "".join(items)
        if len(whole) >= least and len(whole) <= len(items) * MAX_CRUMB_CHARS:
            backwards = "".join(reversed(items))
            return f"{whole}\n{backwards}".encode("utf-8", "replace")
    return b""


def coded_forms(data: bytes) -> list[bytes]:
    r"""As hex, `%69%6d`, `\x69\x6d`, and last as base64, which minds capitals."""
    percents = data.hex("%")
    forms = [data.hex(), percents, percents.replace("%", "\\x")]
    base64 = b2a_base64(data[: len(data) // 3 * 3], newline=False)
    return [*(form.encode() for form in forms), base64]


def steps(data: bytes) -> bytes:
    """From each byte to the next: the same however far all of them were moved."""
    return bytes((after - before) & 0xFF for before, after in pairwise(data))


def xored(data: bytes, key_chars: int) -> bytes:
    """Each byte XOR the byte `key_chars` before it: the same whatever key of this length, repeated,
    all of them were XORed with.
    """
    number = int.from_bytes(data, "big")
    return (number ^ (number >> 8 * key_chars)).to_bytes(len(data), "big")[key_chars:]


def is_spelled(source: bytes, code: CodeType) -> bool:
    """Whether code has the number of each letter, and makes letters of numbers: `chr(101) + ...`"""
    numbers = {value for value in code.co_consts if type(value) is int}
    return "chr" in code.co_names and {*source} <= numbers
