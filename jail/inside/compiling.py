"""Compiles what was installed, so that modules which are imported in one jail after the other are
compiled once. Runs in a child of the launcher, after pip and before any trigger.
"""

import os
import py_compile
import time
from collections.abc import Iterator
from importlib.util import cache_from_source

MAX_COMPILE_SEC = 4.0
PASSED_OVER = {"test", "tests", "testing", "__pycache__"}


def sources_below(prefix: str) -> Iterator[str]:
    """The Python files of the installation, tests left out."""
    for folder, folders, files in os.walk(f"{prefix}/lib"):
        folders[:] = sorted(name for name in folders if name not in PASSED_OVER)
        for name in sorted(files):
            if name.endswith(".py"):
                yield f"{folder}/{name}"


def compile_installed(prefix: str) -> None:
    """Compile as many as there is time for; what can't be compiled is passed over, and what comes
    compiled is left: it need not be what its source says, and not every installer compiles anew.
    """
    deadline_sec = time.monotonic() + MAX_COMPILE_SEC
    for path in sources_below(prefix):
        if time.monotonic() > deadline_sec:
            return
        if os.path.exists(cache_from_source(path)):
            continue
        try:
            py_compile.compile(path, doraise=True, quiet=2)
        except (py_compile.PyCompileError, OSError, ValueError, RecursionError, MemoryError):
            continue
