"""Modules of the library that are loaded late, whatever a package has put before it on the path: a
`re.py` of its own must not stand for what the audit hook needs. A part of that hook.
"""

from __future__ import annotations

import os
import sys


def load_from_library(name: str) -> None:
    """Import a module of the library; whoever imports it after that gets this one."""
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
