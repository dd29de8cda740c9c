"""Reads the names of modules that stand in the words for a worker.

Few are one word, `a,b.c`. Many are compressed lines, see jail/watch/packing.py, in words that begin
with a star; none of our words is from a package.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMPRESSED = "*"


def read_names(words: Sequence[str]) -> list[str]:
    """The names that `words` stand for, each once."""
    packed = "".join(word.removeprefix(COMPRESSED) for word in words if word.startswith(COMPRESSED))
    names = [name for word in words if not word.startswith(COMPRESSED) for name in word.split(",")]
    if packed:
        import base64
        import zlib

        names += decompressed(zlib.decompress(base64.b85decode(packed)).decode())
    return [name for name in dict.fromkeys(names) if name]


def decompressed(text: str) -> Iterator[str]:
    """The name of each line: `2 c` after `a.b.x` is `a.b.c`."""
    before: list[str] = []
    for line in text.splitlines():
        same, _, rest = line.partition(" ")
        before = [*before[: int(same)], *rest.split(".")]
        yield ".".join(before)
