"""Looks in the source for code that stands far to the right, behind blanks: where no editor shows
it. Runs no code of the package, as gates.py.
"""

import io
import re
import tokenize
from collections.abc import Iterator, Sequence

from jail.inside.ending import Teller, now_sec
from jail.inside.sources import files_of, start_of
from jail.inside.words import read_names

MAX_CROWDED_SEC = 2.0
MAX_CROWDED = 20
MAX_CROWDED_CHARS = 120
# Nobody sets statements apart like that; a table in the source is narrower.
BLANKS_AFTER_SEMICOLON, BLANKS_ANYWHERE = 40, 150
CROWDED_LINE = re.compile(rb";[ \t]{40,}[^\s#]|[ \t]{150,}[^\s#]")
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER, tokenize.DEDENT}
# What does something within a list or a sum, where no statement can begin.
ACTING_NAMES = {
    "exec",
    "eval",
    "__import__",
    "__builtins__",
    "builtins",
    "import_module",
    "importlib",
}
ACTING_NAMES |= {
    "getattr",
    "globals",
    "system",
    "popen",
    "Popen",
    "subprocess",
    "ctypes",
    "urlopen",
}
ACTING_NAMES |= {"b64decode", "marshal", "loads"}
# An f-string's text may hold calls of them.
CALL_IN_TEXT = re.compile(
    r"[bBrRuU]*[fF].*(?:" + "|".join(ACTING_NAMES) + r"|compile)\b", re.DOTALL
)
# After the colon of one of these a statement may begin.
COMPOUND = {"if", "elif", "else", "for", "while", "try", "except", "finally", "with", "def"}
COMPOUND |= {"class", "async", "match", "case"}
OPENING, CLOSING = set("([{"), set(")]}")


class Statements:
    """Follows the tokens of a source: whether the next token begins a statement."""

    def __init__(self) -> None:
        self.depth = 0  # of brackets
        self.first = ""  # of the logical line
        self.begins = True

    def take(self, token: tokenize.TokenInfo) -> None:
        """The next token, comments and empty lines apart."""
        text = token.string
        if token.type == tokenize.NEWLINE:
            self.first, self.begins = "", True
            return
        self.first = self.first or text
        if token.type == tokenize.OP:
            self.depth += (text in OPENING) - (text in CLOSING)
        is_block = text == ":" and self.first in COMPOUND
        self.begins = self.depth == 0 and (text == ";" or is_block)


def crowded_lines(data: bytes) -> Iterator[tuple[int, int, str]]:
    """The lines with code behind blanks: number, how many blanks, the code. Texts, comments and
    the items of a table are none.

    `import six;                                                            exec(x)`
    """
    if not CROWDED_LINE.search(data):
        return
    line, column, last, statements = 0, 0, "", Statements()
    crowd: tuple[int, int, str] | None = None  # of this line, which does nothing so far
    try:
        for token in tokenize.tokenize(io.BytesIO(data).readline):
            if token.type in NO_CODE or token.type == tokenize.ENCODING:
                continue
            if token.start[0] != line:
                column, last, crowd = 0, "", None
            begins = statements.begins
            if token.type != tokenize.INDENT:
                statements.take(token)
            if not token.string.strip():
                continue
            blanks = token.start[1] - column
            least = BLANKS_AFTER_SEMICOLON if last == ";" else BLANKS_ANYWHERE
            if blanks >= least:
                crowd = token.start[0], blanks, token.line[token.start[1] :].strip()
            if crowd and (begins or acts(token, last)):
                yield crowd
                crowd = None
            (line, column), last = token.end, token.string
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError, MemoryError):
        return


def acts(token: tokenize.TokenInfo, last: str) -> bool:
    """Whether a name or an f-string does something, by the token before; `re.compile` does not."""
    if token.type == tokenize.STRING:
        return CALL_IN_TEXT.match(token.string) is not None
    if token.type != tokenize.NAME:
        return False
    return token.string in ACTING_NAMES or (token.string == "compile" and last != ".")


def tell_crowded(path: str, site: str, words: Sequence[str]) -> None:
    """Tell them, of the modules that `words` name; `path` is the file for what is told."""
    teller, told = Teller(path), 0
    deadline_sec = now_sec() + MAX_CROWDED_SEC
    for file in dict.fromkeys(files_of(site, read_names(words))):
        if now_sec() > deadline_sec or told >= MAX_CROWDED:
            return
        for line, blanks, code in crowded_lines(start_of(file)):
            told += 1
            at = f"{file}:{line}"
            teller.tell("crowded", code[:MAX_CROWDED_CHARS], text=str(blanks), at=at)
