"""What every import does with files, hundreds of times. Nothing of that is told, so who imports is
not looked up: to look at a frame is an event of Python's, too. A part of the audit hook.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

from jail.inside.watched import LISTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR
# The standard library's folder, and pip's.
LIBRARIES = (f"{os.__file__.removesuffix('/os.py')}/", f"{sys.prefix}/")
# That of what is installed; in none of the folders in which reads are told. A package that gives a
# Python of its own another loses what is told of the imports below that.
INSTALLED = f"{os.environ.get('VIRTUAL_ENV', sys.prefix)}/lib/"


def is_library_read(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a library's file is read, by whomever."""
    if event != "open":
        return False
    path, mode, flags = arguments
    is_read = type(mode) is str and mode in ("r", "rb") and not opens_to_write(flags)
    return is_read and type(path) is str and any(is_below(path, folder) for folder in LIBRARIES)


def opens_to_write(flags: Any) -> bool:
    """Whether a file is opened to be written. A package can bring the event about with an object of
    its own, whose code would run where nothing is told.
    """
    return type(flags) is int and bool(flags & WRITES)


def is_of_import(event: str, arguments: tuple[Any, ...], direct: FrameType) -> bool:
    """Whether the import system reads a file of the installation, or lists a folder."""
    if event in LISTED:
        return is_import_system(direct)
    if event != "open":
        return False
    path, _, flags = arguments
    is_read = type(path) is str and not opens_to_write(flags)
    return is_read and is_below(path, INSTALLED) and is_import_system(direct)


def is_below(path: str, folder: str) -> bool:
    """Whether it lies there, and leads nowhere else. Python's own folder may have any name."""
    return path.startswith(folder) and "/." not in path[len(folder) - 1 :]


def is_import_system(frame: FrameType) -> bool:
    """Whether it is Python's own that imports."""
    return frame.f_code.co_filename.startswith("<frozen importlib")
