"""Compiles what was installed, so that modules which are imported in one jail after the other are
compiled once. Runs in a child of the launcher, after pip and before any trigger.
"""

import os
import py_compile
import time
from collections.abc import Iterable, Iterator
from importlib.util import cache_from_source

MAX_COMPILE_SEC = 4.0
PASSED_OVER = {"test", "tests", "testing", "__pycache__"}


def sources_below(prefix: str) -> Iterator[str]:
    """The Python files of the installation. Left out are tests, and what an extension module
    stands before: `black/linegen.py` beside `black/linegen.cpython-311-x86_64-linux-gnu.so`.
    """
    for folder, folders, files in os.walk(f"{prefix}/lib"):
        folders[:] = sorted(name for name in folders if name not in PASSED_OVER)
        extensions = {name.partition(".")[0] for name in files if name.endswith(".so")}
        for name in sorted(files):
            stem, _, ending = name.partition(".")
            if ending == "py" and stem not in extensions:
                yield f"{folder}/{name}"


def compile_installed(prefix: str) -> None:
    """Compile as many as there is time for, half of them in a child, since most machines have two
    cores; what comes compiled is left: it need not be what its source says, and not every installer
    compiles anew.
    """
    deadline_sec = time.monotonic() + MAX_COMPILE_SEC
    paths = [path for path in sources_below(prefix) if not os.path.exists(cache_from_source(path))]
    child = os.fork()
    if child == 0:
        try:
            compile_each(paths[1::2], deadline_sec)
        finally:
            os._exit(0)
    compile_each(paths[::2], deadline_sec)
    os.waitpid(child, 0)


def compile_each(paths: Iterable[str], deadline_sec: float) -> None:
    """Compile files until there is no time left; what can't be compiled is passed over."""
    for path in paths:
        if time.monotonic() > deadline_sec:
            return
        try:
            py_compile.compile(path, doraise=True, quiet=2)
        except (py_compile.PyCompileError, OSError, ValueError, RecursionError, MemoryError):
            continue
