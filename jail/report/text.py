"""The one way from untrusted text to shown text: bounded, with nothing left in it that can act."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jail.orders import INDEX_PORT, PYTHON_IN_JAIL, WORK_IN_JAIL
from jail.report.letters import with_escapes

MAX_ROW_CHARS = 300
MAX_BLOCK_CHARS = 6_000  # of a piece of code or of a stream
CUT = "…"

# The sandbox's own long folders, which tell a reader nothing. Samples:
#   /opt/venv/lib/python3.12/site-packages/pip/__main__.py
#   /srv/site/a-package-1.0/lib/python3.12/site-packages/a_package/__init__.py
#   http://127.0.0.1:3141/files/<64 hexadecimal digits>/a_package-1.0.tar.gz
LIBRARY_IN_PREFIX = "lib/python[0-9.]{1,9}/site-packages"
OWN_FOLDERS = re.compile(
    rf"(?:{re.escape(PYTHON_IN_JAIL)}/(?:bin|{LIBRARY_IN_PREFIX})"
    rf"|{re.escape(WORK_IN_JAIL)}/site/[^/\s]{{1,400}}(?:/{LIBRARY_IN_PREFIX})?"
    rf"|http://127\.0\.0\.1:{INDEX_PORT}/files/[0-9a-f]{{64}})/"
)


def plain(text: str, limit_chars: int) -> str:
    """Untrusted text on one line of at most `limit_chars`.

    Control, bidirectional, invisible and surrogate characters are escaped: none can move a cursor,
    turn the reading order or break an encoder. So are letters that only look like Latin ones.
    """
    cut = with_escapes(text[: limit_chars + 1])
    if not cut.isprintable():
        acting = {char for char in set(cut) if not char.isprintable()}
        escapes = {ord(char): char.encode("unicode_escape").decode() for char in acting}
        cut = cut.translate(escapes)
    return cut if len(cut) <= limit_chars else cut[: limit_chars - 1] + CUT


def short(text: str, limit_chars: int = MAX_ROW_CHARS) -> str:
    """Untrusted text as `plain` makes it, with the sandbox's own long folders left out."""
    cut = text[: 8 * limit_chars]
    if len(text) > len(cut):
        cut += CUT
    return plain(OWN_FOLDERS.sub(f"{CUT}/", cut), limit_chars)


def middle_cut(text: str, limit_chars: int) -> str:
    """The start and the end of a text that is longer than `limit_chars`."""
    if len(text) <= limit_chars:
        return text
    half = limit_chars // 2
    return f"{text[:half]}\n{CUT}\n{text[len(text) - half :]}"


def block(text: str, limit_chars: int = MAX_BLOCK_CHARS) -> str:
    """Untrusted text of many lines, each made safe; of a long text the start and the end.

    It is cut before, so that a long text costs no more than a short one, and after, since an
    escape or a tab takes more room than the character that it stands for.
    """
    cut = middle_cut(text, limit_chars).replace("\r\n", "\n").strip("\n").expandtabs(4)
    lines = [short(line, 10 * limit_chars) for line in cut.split("\n")]
    return middle_cut("\n".join(lines), limit_chars)


def fair_shares(sizes: Sequence[int], total: int) -> list[int]:
    """How much of `total` each gets: the small all they need; the large share what is left."""
    shares = [0] * len(sizes)
    left = total
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    for served, number in enumerate(by_size):
        shares[number] = min(sizes[number], left // (len(sizes) - served))
        left -= shares[number]
    return shares


@dataclass(frozen=True)
class Row:
    """A line of a report for people, safe to show: a word of ours, the thing, its circumstances.

    `texts` are of many lines, each with its heading.
    """

    mark: str
    what: str
    about: str
    depth: int = 0
    texts: Mapping[str, str] = field(default_factory=dict)


def row(
    mark: str,
    what: str,
    *about: str | None,
    depth: int = 0,
    texts: Mapping[str, str] | None = None,
) -> Row:
    """The only way into a list for people; `mark` is a word of ours, all else may be hostile."""
    circumstances = ", ".join(short(text) for text in about if text)
    safe = {short(heading): block(text) for heading, text in (texts or {}).items()}
    return Row(mark, short(what), plain(circumstances, MAX_ROW_CHARS), depth, safe)
