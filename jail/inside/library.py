"""The library as it is, whatever was done to it: modules that are loaded late, though a package may
have put a `re.py` of its own before them on the path, and what the system really says. A part of
the audit hook.
"""

from __future__ import annotations

import os
import sys


def load_from_library(name: str) -> None:
    """Import a module of the library; whoever imports it after that gets this module."""
    if name in sys.modules:
        return
    folder = os.__file__.removesuffix("/os.py")
    places = [folder, f"{folder}/lib-dynload"]
    # Another thread may import at the same time: all that was on the path stays there.
    sys.path[:0] = places
    try:
        __import__(name)
    finally:
        for place in places:
            sys.path.remove(place)


def kernel_name() -> os.uname_result:
    """The kernel's name for itself and this machine: where another victim is played, `os` may have
    no such function, or tell another.
    """
    told: os.uname_result = sys.modules["posix"].uname()
    return told
