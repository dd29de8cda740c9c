"""Runs one trigger as a person would type it, in an interpreter that then lingers for what the
trigger left at work.

Arguments: what to run (start, import, script, file, module), the file for what is told, the
prefix of the installation, then what the kind needs.
"""

import importlib
import operator
import os
import runpy
import sys
from collections.abc import Callable
from typing import NoReturn

from jail.inside.ending import Teller, end, exit_code, hide, linger, own_frames_cut, tell_left


def run_start(_prefix: str) -> None:
    """Nothing: the .pth files have acted."""


def run_import(_prefix: str) -> None:
    """`python -c "import NAME"`"""
    importlib.import_module(sys.argv.pop(1))


def run_script(_prefix: str) -> None:
    """A console or GUI script: sys.argv is [name, ...], then module:attribute was cut out."""
    sys.argv.pop(0)
    module, _, attribute = sys.argv.pop(1).partition(":")
    sys.exit(operator.attrgetter(attribute)(importlib.import_module(module))())


def run_file(prefix: str) -> None:
    """`python FILE`, relative to the prefix."""
    sys.argv.pop(0)
    sys.argv[0] = os.path.join(prefix, sys.argv[0])  # noqa: PTH118 - pathlib may be unwanted here
    sys.path[0] = os.path.dirname(sys.argv[0])  # noqa: PTH120
    runpy.run_path(sys.argv[0], run_name="__main__")


def run_module(_prefix: str) -> None:
    """`python -m NAME`"""
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


TRIGGER_KINDS: dict[str, Callable[[str], None]] = {
    "start": run_start,
    "import": run_import,
    "script": run_script,
    "file": run_file,
    "module": run_module,
}


def main() -> NoReturn:
    """Run it, let it finish what it has begun, and end as Python ends."""
    kind, path, prefix = sys.argv[1:4]
    del sys.argv[1:4]
    teller = Teller(path)
    what = " ".join([kind, *sys.argv[1:]])
    hide()
    code = 0
    try:
        TRIGGER_KINDS[kind](prefix)
    except SystemExit as error:
        code = exit_code(error)
    except BaseException as error:
        code = 1
        told = own_frames_cut(error)
        # Which a package may have replaced by its own.
        sys.excepthook(type(told), told, told.__traceback__)
    left = linger()
    tell_left(teller, what, left)
    end(code, left)
