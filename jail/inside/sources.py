"""The source of an installation, for what only looks at it: runs no code of the package."""

import os
import re
from collections.abc import Iterator

MAX_LOOKED_BYTES = 1 << 20  # of a file that is taken apart
MAX_ASKED_BYTES = 8 << 20  # of a file of which only words are looked for
# `# -*- coding: utf-7 -*-`, in one of the first two lines.
CODING = re.compile(rb"(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)")


def files_of(site: str, names: list[str]) -> Iterator[str]:
    """The source files of the modules, and of what every interpreter executes at its start."""
    for name in os.listdir(site) if os.path.isdir(site) else ():
        if name.endswith(".pth"):
            yield f"{site}/{name}"
    for name in names:
        path = f"{site}/{name.partition(':')[0].replace('.', '/')}"
        for file in (f"{path}/__init__.py", f"{path}/__main__.py", f"{path}.py"):
            if os.path.isfile(file):
                yield file


def start_of(path: str, limit_bytes: int = MAX_LOOKED_BYTES) -> bytes:
    """The start of a file, as UTF-8; nothing, if it can't be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit_bytes)
    except OSError:
        return b""
    coding = CODING.match(data)
    if not coding:
        return data
    try:
        return data.decode(coding[1].decode(), "replace").encode(errors="replace")
    # One that Python does not know: then it does not run the file either.
    except (LookupError, ValueError):
        return data


def code_in(path: str, data: bytes) -> str:
    """The text of a source file; of a .pth file what is executed, each line at its place."""
    text = data.decode("utf-8", "replace")
    if path.endswith(".pth"):
        return "\n".join(line if line.startswith("import") else "" for line in text.split("\n"))
    return text
