"""Puts the names of thousands of modules into words that fit in a packet to the run keeper.

A few are one word as they are, `s.api,s.web,six`. Many are lines in which each name says how many
parts it shares with the name before: `2 bar` after `plotly.validators.area` is
`plotly.validators.bar`. These are compressed, and cut into words that begin with a star. See
jail/inside/words.py, which reads them.
"""

import base64
import zlib
from collections.abc import Iterable, Sequence

MAX_NAMES_BYTES = 80 << 10  # of a packet of at most orders.MAX_PACKET_BYTES
MAX_NAMES_WORD_BYTES = 4000
STAR = "*"


def pack_names(names: Iterable[str]) -> tuple[list[str], int]:
    """Words for the worker in the jail.

    >>> pack_names(["s.api", "six", "s.plug:Plug"])
    (['s.api,six,s.plug:Plug'], 0)

    Returns:
        the words, and how many names there was no room for.
    """
    wanted = [*names]
    plain = ",".join(wanted)
    if len(plain.encode()) <= MAX_NAMES_WORD_BYTES:
        return ([plain] if plain else []), 0
    fitting = compressed(wanted)
    if len(fitting) <= MAX_NAMES_BYTES:
        return cut(fitting), 0
    # Between these lies the number of names that there is room for.
    least, most = 0, len(wanted)
    while most - least > 1:
        middle = (least + most) // 2
        if len(compressed(wanted[:middle])) <= MAX_NAMES_BYTES:
            least = middle
        else:
            most = middle
    return cut(compressed(wanted[:least])), len(wanted) - least


def front_coded(names: Sequence[str]) -> list[str]:
    """Each name as the number of its first parts that the name before has, too, and the others.

    >>> front_coded(["a.b.c", "a.b.d", "e"])
    ['0 a.b.c', '2 d', '0 e']
    """
    lines = []
    before: list[str] = []
    for name in names:
        parts = name.split(".")
        same = 0
        for part, old in zip(parts, before, strict=False):
            if part != old:
                break
            same += 1
        lines.append(f"{same} {'.'.join(parts[same:])}")
        before = parts
    return lines


def compressed(names: Sequence[str]) -> str:
    """All names in ASCII without quotes and backslashes."""
    lines = "\n".join(front_coded(names))
    return base64.b85encode(zlib.compress(lines.encode(), 9)).decode("ascii")


def cut(text: str) -> list[str]:
    """Words of a length that a program may be given."""
    size = MAX_NAMES_WORD_BYTES - len(STAR)
    return [STAR + text[start : start + size] for start in range(0, len(text), size)]
