"""JSON as json.dumps makes it, for the few kinds of values that the audit hook tells. Loading json
takes longer than the start of Python itself.

No code of a package runs: what is given may be an object of its classes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of each text in a line that is too long; the second where that is not enough.
SHORTER_CHARS = (500, 100)
# What has a shorter name than its number.
SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n"}


def line_within(said: dict[str, Any], limit_bytes: int, whole: str = "") -> str:
    """A line of at most so many bytes: where it would be longer, its texts are cut, but that of the
    key `whole`. What is no text stays what it is: whether code was decoded, say.
    """
    line = json_of(said)
    for limit_chars in SHORTER_CHARS:
        if len(line) >= limit_bytes:
            cut = {key: shorter(value, limit_chars) for key, value in said.items() if key != whole}
            line = json_of({**said, **cut})
    return f"{line}\n"


def shorter(value: Any, limit_chars: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    text = str.__str__(value) if issubclass(kind, str) else json_of(value)
    return text[:limit_chars]


def json_of(value: Any) -> str:
    """`{"what": ["a", 1], "decoded": true}`; what JSON has no word for is told as a text."""
    kind = type(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if issubclass(kind, int):
        return int.__repr__(value)
    if issubclass(kind, str):
        return quoted(value)
    if kind is bytes:
        return quoted(value.decode("utf-8", "backslashreplace"))
    if kind in (list, tuple):
        return f"[{', '.join(map(json_of, value))}]"
    if kind is dict:
        pairs = [f"{quoted(key)}: {json_of(item)}" for key, item in value.items()]
        return f"{{{', '.join(pairs)}}}"
    return quoted(repr(value))


def is_plain(text: str) -> bool:
    """Whether it stands in JSON as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def quoted(text: str) -> str:
    """`"a \\u00e9"`"""
    whole = str.__str__(text)
    if not is_plain(whole):
        whole = "".join(letter if is_plain(letter) else escaped(letter) for letter in whole)
    return f'"{whole}"'


def escaped(letter: str) -> str:
    """What is not plain, by its numbers in UTF-16: letters beyond the first 65,536 have two."""
    if letter in SHORT:
        return SHORT[letter]
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
