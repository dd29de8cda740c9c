"""Takes forms apart: the fields of JSON, of an encoded form, of a query.

Hostile input: nesting without end, fields without number; what is too large is not taken apart.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

MAX_FORM_BYTES = 256 << 10
MAX_FIELDS = 2000
MIN_LISTED_BYTES = 8  # of a list of numbers that are bytes

Field = tuple[str, bytes]

# "key=a%20b&n=1".
FORM = re.compile(rb"[A-Za-z0-9_.%\[\]-]{1,200}=[^\s\"{}<>]*")


def fields_of(data: bytes) -> list[Field]:
    """The fields of a form by name, in order; none of what is no form."""
    if len(data) > MAX_FORM_BYTES:
        return []
    if data.lstrip()[:1] in (b"{", b"["):
        try:
            return list(fields_of_json(json.loads(data)))
        except (ValueError, RecursionError):
            return []
    return fields_of_query(data) if FORM.fullmatch(data.strip()) else []


def fields_of_query(data: bytes) -> list[Field]:
    """`d=abc&n=1`."""
    found = []
    for part in data.strip().split(b"&")[:MAX_FIELDS]:
        name, _, value = part.partition(b"=")
        found.append((name.decode("latin-1"), unquote_to_bytes(value.replace(b"+", b" "))))
    return found


def fields_of_json(content: Any) -> Iterator[Field]:
    """`{"d": ["abc", "def"], "n": [65, 66]}`: texts, and lists of numbers that are bytes."""
    waiting = [("", content)]
    for _ in range(MAX_FIELDS):
        if not waiting:
            return
        name, value = waiting.pop()
        if isinstance(value, str):
            yield name, value.encode("utf-8", "replace")
        elif isinstance(value, dict):
            waiting += reversed(value.items())
        elif isinstance(value, list) and is_bytes(value):
            yield name, bytes(value)
        elif isinstance(value, list):
            waiting += [(name, item) for item in reversed(value)]


def is_bytes(values: list[Any]) -> bool:
    numbers = [value for value in values if type(value) is int and 0 <= value < 256]
    return len(numbers) == len(values) >= MIN_LISTED_BYTES
