"""Whether a person wrote the text that became code, or can read it where it stands: not by the name
of a decoder, but by what was done. A part of the audit hook; no code of the package runs.

Nobody wrote what is made of blanks or of characters that do not show, what comes from a sound or a
picture, and what asks for the powers of the system in words that stand nowhere.
"""

from __future__ import annotations

import os
from _ast import AST
from types import CodeType, FrameType

from jail.inside.disguises import Disguises
from jail.inside.library import load_from_library
from jail.inside.origins import decodes, is_foreign_file
from jail.inside.trees import as_text, nodes_of, was_parsed_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_LOOK_BYTES = 256 << 10  # of a file or a value that is looked at
MAX_TEXTS = 200  # files that are remembered with what they are
MAX_READINGS = 32  # of the files that were opened last
MAX_VALUES = 300  # of a frame
MAX_FRAMES = 20
MAX_SOURCE_CHARS = 64 << 10
MAX_PARSED = 8  # texts that are remembered
UNREADABLE_TREE = b"(a tree that can't be written as text)"
TREE = "<tree>"  # instead of the name under which it is compiled, which nobody tells

# Zero-width characters, joiners, fillers, variation selectors, tags: a run of them says nothing
# that a person reads. Emoji have two or three of them.
UNSEEN = (
    "[\u00ad\u034f\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\U000e0000-\U000e01ef]{16,}"
)
LONE_MARKS = "\u200b\u200c\u2060\u2061\u2062\u2063\u2064\u180e\ufeff"
# Blanks at the end of a line, and long runs anywhere. An editor leaves blanks or tabs there, and
# not one after the other again and again, nor so many of so many lengths.
TAIL = r"(?m)[ \t\v\f]+$|[ \t\v\f]{64,}"
TURN = r"(?:(?<= )\t|(?<=\t) )"
LONG_TAIL_CHARS, MANY_LENGTHS = 9, 8
MANY_TURNS = 32
MEDIA = (
    *(".wav", ".mp3", ".ogg", ".flac", ".aac", ".mid", ".mp4", ".avi", ".webm"),
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".ico", ".webp", ".tiff", ".svg"),
    *(".ttf", ".otf", ".woff", ".woff2", ".pdf"),
)
# A name alone does nothing. fontTools has the words that stand in each font evaluated: `Version`.
DOES_SOMETHING = frozenset("([=@ \t\r\n\f")
# Modules that give code the powers of the system: what imports them does more than compute.
POWERS = {
    *("os", "subprocess", "pty", "ctypes", "shutil", "winreg", "getpass", "sqlite3"),
    *("socket", "ssl", "urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib"),
    *("base64", "zlib", "marshal", "paramiko", "asyncio", "importlib", "multiprocessing"),
    *("webbrowser", "telnetlib", "urllib3", "websockets", "pickle", "keyring", "pynput"),
}
# Code that imports, by what it says: `"import os"`, f"from {name} import x".
QUOTED_IMPORT = r"""["'][^"'\n]*\b(?:import|from)\s+%s\b"""


def is_carrier(text: str) -> bool:
    """Whether a text has a second text in it that nobody sees."""
    # Loaded when it is needed: this file is loaded at the start of every Python.
    load_from_library("re")
    import re

    if not text.isascii():
        # One by one between others: two kinds of them, in which Persian and emoji have but one.
        counts = [text.count(mark) for mark in LONE_MARKS]
        if re.search(UNSEEN, text) or sum(count >= MANY_TURNS for count in counts) > 1:
            return True
    if not any(blank in text for blank in (" \n", "\t\n", "\t ")):
        return False
    tails = re.findall(TAIL, text)
    lengths = [len(tail) for tail in tails if len(tail) >= LONG_TAIL_CHARS]
    if len(lengths) >= MANY_TURNS and len({*lengths}) >= MANY_LENGTHS:
        return True
    return len(re.findall(TURN, "".join(tails))) >= MANY_TURNS


def imported(source: str) -> set[str]:
    """The first names of the modules that source imports, `__import__("os")` included."""
    load_from_library("ast")
    import ast

    try:
        tree = ast.parse(source[:MAX_SOURCE_CHARS])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found |= {alias.name.partition(".")[0] for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
            case ast.Call(func=ast.Name("__import__"), args=[ast.Constant(str(name)), *_]):
                found.add(name.partition(".")[0])
    return found


class Readings:
    """What the code of this process has read, and what stands in the files that code is in."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}  # by path; "" of what can't be read
        self.carriers: dict[str, bool] = {}  # by path: whether its text is_carrier
        self.last: dict[str, CodeType] = {}  # who opened it
        self.disguises = Disguises()
        self.parsed: list[str] = []  # texts that were compiled last, or made a tree of

    def note(self, path: str, frame: FrameType) -> None:
        """The code of `frame` opens a file to read."""
        self.last.pop(path, None)
        self.last[path] = frame.f_code
        if len(self.last) > MAX_READINGS:
            del self.last[next(iter(self.last))]

    def text(self, path: str) -> str:
        """The start of a file, of what is no text letter by letter."""
        if path not in self.texts:
            if len(self.texts) >= MAX_TEXTS:
                self.texts.clear()
            self.texts[path] = first_bytes(path).decode("utf-8", "replace")
        return self.texts[path]

    def note_text(self, source: bytes) -> None:
        """Source is compiled, or made a tree of, that may be changed and compiled after that."""
        self.parsed.append(source[:MAX_LOOK_BYTES].decode("utf-8", "replace"))
        del self.parsed[:-MAX_PARSED]

    def how_built(self, frame: FrameType, tree: Any) -> tuple[bytes, bool, str] | None:
        """What a tree of syntax that `frame` compiles says as text, whether it is as if it was
        decoded, and how it was built. None of what was parsed from a text, as pytest does with
        each file of tests, and only changed.
        """
        nodes = nodes_of(tree) if isinstance(tree, AST) else None
        if nodes is None:
            return None
        if not nodes:
            return UNREADABLE_TREE, False, "built as a tree of nodes of its own"
        text = as_text(tree) or UNREADABLE_TREE
        powers = imported(text.decode("utf-8", "replace")) & POWERS
        for known in (*reversed(self.parsed), *map(self.text, self.last)):
            if was_parsed_from(nodes, known) and all(name in known for name in powers):
                return None
        how = self.how(frame, text, TREE)
        if not how and powers and decodes(frame):
            how = "by who decodes"
        return text, bool(how), how and f"built as a tree, {how}"

    def carries(self, path: str) -> bool:
        """Whether a file has a second text that nobody sees; attrs compiles from the same one for
        each class.
        """
        if path not in self.carriers:
            if len(self.carriers) >= MAX_TEXTS:
                self.carriers.clear()
            self.carriers[path] = is_carrier(self.text(path))
        return self.carriers[path]

    def has(self, path: str, source: bytes) -> bool:
        """Whether source can be read in the file under whose name it is compiled."""
        if path.startswith("<") or is_media(path):
            return False
        return source.decode("utf-8", "replace").strip("() \n") in self.text(path)

    def how(self, frame: FrameType, source: bytes, path: str) -> str:
        """What source that `frame` compiles under the name `path` was made of, "" where it may have
        been written by a person.
        """
        if is_media(path) or self.is_of_media(frame.f_code, source):
            return "that came from a sound, a picture or a font"
        is_near_carrier = any(is_carrier(text) for text in self.texts_near(frame))
        if is_near_carrier or any(self.carries(path) for path in self.files_around(frame)[:1]):
            return "made of characters that do not show"
        if self.disguises.hides(source, frame.f_code, self.values_near(frame)):
            return "that stands here as numbers, backwards or shifted"
        if b"import" not in source:
            return ""
        text = source.decode("utf-8", "replace")
        powers = imported(text) & POWERS
        hidden = sorted(name for name in powers if not self.stands_anywhere(name, frame, text))
        return f"whose words stand nowhere ({', '.join(hidden)})" if hidden else ""

    def is_of_media(self, code: CodeType, source: bytes) -> bool:
        """Whether a file that was opened as a picture has it, or was opened by who executes it."""
        start = source.decode("utf-8", "replace")[:MAX_LOOK_BYTES].strip()
        acts = not DOES_SOMETHING.isdisjoint(start)
        for path, reader in self.last.items():
            if is_media(path) and (reader is code or (acts and start in self.text(path))):
                return True
        return False

    def texts_near(self, frame: FrameType) -> list[str]:
        """What the code that executes has before it."""
        found = []
        for value in self.values_near(frame):
            if type(value) is bytes:
                found.append(value[:MAX_LOOK_BYTES].decode("utf-8", "replace"))
            elif type(value) is str:
                found.append(value[:MAX_LOOK_BYTES])
        return found

    def values_near(self, frame: FrameType) -> list[Any]:
        """What the code that executes has before it: what stands in it, its variables, and the
        bytes of what it has read.
        """
        values: list[Any] = [*frame.f_code.co_consts]
        for inner in frame.f_code.co_consts:
            values += inner.co_consts if type(inner) is CodeType else ()
        for variables in (frame.f_locals, frame.f_globals):
            values += [*variables.values()][:MAX_VALUES]
        return values + [
            first_bytes(path) for path, code in self.last.items() if code is frame.f_code
        ]

    def files_around(self, frame: FrameType) -> list[str]:
        """The files of the code that executes, and of who called it."""
        found: dict[str, None] = {}
        at: FrameType | None = frame
        for _ in range(MAX_FRAMES):
            if at is None:
                break
            name = at.f_code.co_filename
            if not name.startswith("<") and is_foreign_file(name):
                found[name] = None
            at = at.f_back
        return [*found]

    def stands_anywhere(self, name: str, frame: FrameType, source: str) -> bool:
        """Whether the name of a module can be read where the code is, or in what it has read; or,
        as something to be imported, in the other files of its folder.
        """
        around = self.files_around(frame)
        read = [path for path in self.last if not is_media(path)]
        load_from_library("re")
        import re

        word = re.compile(rf"\b{name}\b")
        if any(word.search(self.text(path)) for path in around):
            return True
        # What was read may be any file: there the whole lines must stand that import it.
        found = [line.strip() for line in source.splitlines() if word.search(line)]
        lines = [line for line in found if "import" in line]
        if any(all(line in self.text(path) for line in lines) for path in read):
            return True
        # Of a program on the command line (`python -c`) there is no file: what it executes stands
        # in it.
        texts = [const for const in frame.f_code.co_consts if type(const) is str]
        if not around and any(word.search(text[:MAX_LOOK_BYTES]) for text in texts):
            return True
        quoted = re.compile(QUOTED_IMPORT % name)
        folders = {os.path.dirname(path) for path in around[:1]}
        return any(
            quoted.search(self.text(path)) for folder in folders for path in sources_in(folder)
        )


def first_bytes(path: str) -> bytes:
    """The start of a file, as far as it can be read."""
    try:
        # A FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with open(fd, "rb") as file:
            return file.read(MAX_LOOK_BYTES)
    except (OSError, ValueError):
        return b""


def is_media(path: str) -> bool:
    """Whether it is a picture, a sound or a font, or lies in an archive by such a name."""
    return any(part.endswith(MEDIA) for part in path.lower().split("/"))


def sources_in(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [f"{folder}/{name}" for name in names if name.endswith(".py")][:MAX_TEXTS]
