"""Whether a person wrote the text that became code, or can read it where it stands: not by the name
of a decoder, but by what was done. A part of the audit hook; no code of the package runs.

Nobody wrote what is made of blanks or of characters that do not show, what comes from a sound or a
picture, and what asks for the powers of the system in words that stand nowhere.
"""

from __future__ import annotations

import os
from types import CodeType, FrameType

from jail.inside.library import load_from_library
from jail.inside.origins import is_foreign_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_LOOK_BYTES = 256 << 10  # of a file or a value that is looked at
MAX_TEXTS = 200  # files that are remembered with what they are
MAX_READINGS = 32  # of the files that were opened last
MAX_VALUES = 300  # of a frame
MAX_FRAMES = 20
MAX_SOURCE_CHARS = 64 << 10

# Zero-width characters, joiners, fillers, variation selectors, tags: a run of them says nothing
# that a person reads. Emoji have two or three of them.
UNSEEN = (
    "[\u00ad\u034f\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\U000e0000-\U000e01ef]{16,}"
)
# Blanks at the end of a line. An editor leaves blanks or tabs there, and not one after the other
# again and again.
TAIL = r"(?m)[ \t\v\f]+$"
TURN = r"(?:(?<= )\t|(?<=\t) )"
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
    *("base64", "zlib", "marshal", "paramiko"),
}
# Code that imports, by what it says: `"import os"`, f"from {name} import x".
QUOTED_IMPORT = r"""["'][^"'\n]*\b(?:import|from)\s+%s\b"""


def is_carrier(text: str) -> bool:
    """Whether a text has a second one that nobody sees in it."""
    # Loaded when it is needed: this file is loaded at the start of every Python.
    load_from_library("re")
    import re

    if not text.isascii() and re.search(UNSEEN, text):
        return True
    tails = "".join(re.findall(TAIL, text)) if " \t" in text or "\t " in text else ""
    return len(re.findall(TURN, tails)) >= MANY_TURNS


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
        self.last: dict[str, CodeType] = {}  # who opened it

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
            try:
                # A FIFO would wait for a writer.
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
                with open(fd, "rb") as file:
                    self.texts[path] = file.read(MAX_LOOK_BYTES).decode("utf-8", "replace")
            except (OSError, ValueError):
                self.texts[path] = ""
        return self.texts[path]

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
        if any(is_carrier(text) for text in self.texts_near(frame)):
            return "made of characters that do not show"
        if b"import" not in source:
            return ""
        powers = imported(source.decode("utf-8", "replace")) & POWERS
        hidden = sorted(name for name in powers if not self.stands_anywhere(name, frame))
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
        """What the code that executes has before it, and what it is in."""
        values: list[Any] = [*frame.f_code.co_consts]
        for variables in (frame.f_locals, frame.f_globals):
            values += [*variables.values()][:MAX_VALUES]
        found = []
        for value in values:
            if type(value) is bytes:
                found.append(value[:MAX_LOOK_BYTES].decode("utf-8", "replace"))
            elif type(value) is str:
                found.append(value[:MAX_LOOK_BYTES])
        found += [self.text(path) for path in self.files_around(frame)[:1]]
        found += [self.text(path) for path, code in self.last.items() if code is frame.f_code]
        return found

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

    def stands_anywhere(self, name: str, frame: FrameType) -> bool:
        """Whether the name of a module can be read where the code is, or in what it has read; or,
        as something to be imported, in the other files of its folder.
        """
        around = self.files_around(frame)
        read = [path for path in self.last if not is_media(path)]
        load_from_library("re")
        import re

        word = re.compile(rf"\b{name}\b")
        if any(word.search(self.text(path)) for path in (*around, *read)):
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


def is_media(path: str) -> bool:
    return path.lower().endswith(MEDIA)


def sources_in(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [f"{folder}/{name}" for name in names if name.endswith(".py")][:MAX_TEXTS]
