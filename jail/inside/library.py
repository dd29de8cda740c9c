"""Modules of the library that are loaded late, whatever a package has put before it on the path: a
`re.py` of its own must not stand for what the audit hook needs. A part of that hook.
"""

from __future__ import annotations

import os
import sys


def load_from_library(name: str) -> None:
    """Import a module of the library; whoever imports it after that gets this one."""
    whole_path, folder = sys.path[:], os.__file__.removesuffix("/os.py")
    sys.path[:] = [folder, f"{folder}/lib-dynload"]
    try:
        __import__(name)
    finally:
        sys.path[:] = whole_path
