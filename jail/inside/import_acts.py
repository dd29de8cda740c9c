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
# That of what is installed; in none of the folders in which reads are told.
INSTALLED = f"{os.environ.get('VIRTUAL_ENV', sys.prefix)}/lib/"


def is_of_import(event: str, arguments: tuple[Any, ...], direct: FrameType) -> bool:
    """Whether a library's file is read, by whomever; or by the import system a file of the
    installation, or the list of a folder.
    """
    if event in LISTED:
        return is_import_system(direct)
    if event != "open":
        return False
    path, mode, flags = arguments
    # No path that leads elsewhere, and none of a class of the package's own.
    if type(path) is not str or "/." in path or flags & WRITES:
        return False
    if path.startswith(LIBRARIES):
        return mode in ("r", "rb")
    return path.startswith(INSTALLED) and is_import_system(direct)


def is_import_system(frame: FrameType) -> bool:
    """Whether it is Python's own that imports."""
    return frame.f_code.co_filename.startswith("<frozen importlib")
