"""Looks in the source for code that stands far to the right, behind blanks: where no editor shows
it. Runs no code of the package, as gates.py.
"""

import io
import re
import tokenize
from collections.abc import Iterator, Sequence

from jail.inside.ending import Teller, now_sec
from jail.inside.gates import MAX_LOOKED_BYTES, files_of
from jail.inside.words import read_names

MAX_CROWDED_SEC = 2.0
MAX_CROWDED = 20
MAX_CROWDED_CHARS = 120
# Nobody sets statements apart like that; a table in the source is narrower.
BLANKS_AFTER_SEMICOLON, BLANKS_ANYWHERE = 40, 150
CROWDED_LINE = re.compile(rb";[ \t]{40,}[^\s#]|[ \t]{150,}[^\s#]")
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.DEDENT}


def crowded_lines(data: bytes) -> Iterator[tuple[int, int, str]]:
    """The lines with code behind blanks: number, how many blanks, the code. Texts and comments are
    none.

    `import six;                                                            exec(x)`
    """
    if not CROWDED_LINE.search(data):
        return
    line, column, last = 0, 0, ""
    try:
        for token in tokenize.tokenize(io.BytesIO(data).readline):
            if token.type in NO_CODE or not token.string.strip():
                continue
            if token.start[0] != line:
                column, last = 0, ""
            blanks = token.start[1] - column
            least = BLANKS_AFTER_SEMICOLON if last == ";" else BLANKS_ANYWHERE
            if blanks >= least:
                yield token.start[0], blanks, token.line[token.start[1] :].strip()
            (line, column), last = token.end, token.string
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError, MemoryError):
        return


def tell_crowded(path: str, site: str, words: Sequence[str]) -> None:
    """Tell them, of the modules that `words` name; `path` is the file for what is told."""
    teller, told = Teller(path), 0
    deadline_sec = now_sec() + MAX_CROWDED_SEC
    for file in dict.fromkeys(files_of(site, read_names(words))):
        if now_sec() > deadline_sec or told >= MAX_CROWDED:
            return
        try:
            with open(file, "rb") as source:  # noqa: PTH123
                data = source.read(MAX_LOOKED_BYTES)
        except OSError:
            continue
        for line, blanks, code in crowded_lines(data):
            told += 1
            at = f"{file}:{line}"
            teller.tell("crowded", code[:MAX_CROWDED_CHARS], text=str(blanks), at=at)
