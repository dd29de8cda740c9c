"""Runs one trigger as a person would type it, in an interpreter that then lingers for what the
trigger left at work.

Arguments: what to run (start, import, script, file, module), the file for what is told, the
prefix of the installation, then what the kind needs. After the name of the only module of a
package comes the site-packages: what imports.py looks at besides is looked at here, and needs no
jail of its own.
"""

from __future__ import annotations

import importlib
import operator
import os
import sys

from jail.inside.ending import How, Teller, end, exit_code, hide, linger, own_frames_cut, tell_left

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def run_start(_prefix: str, _teller: Teller) -> None:
    """Nothing: the .pth files have acted."""


def run_import(_prefix: str, teller: Teller) -> None:
    """`python -c "import NAME"`"""
    name, *site = sys.argv[1:]
    del sys.argv[1:]
    if site:
        import_alone(name, site[0], teller)
    else:
        importlib.import_module(name)


def run_script(_prefix: str, _teller: Teller) -> None:
    """A console or GUI script: sys.argv is [name, ...], then module:attribute was cut out."""
    sys.argv.pop(0)
    module, _, attribute = sys.argv.pop(1).partition(":")
    sys.exit(operator.attrgetter(attribute)(importlib.import_module(module))())


def run_file(prefix: str, _teller: Teller) -> None:
    """`python FILE`, relative to the prefix."""
    import runpy

    sys.argv.pop(0)
    sys.argv[0] = os.path.join(prefix, sys.argv[0])
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")


def run_module(_prefix: str, _teller: Teller) -> None:
    """`python -m NAME`"""
    import runpy

    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


TRIGGER_KINDS: dict[str, Callable[[str, Teller], None]] = {
    "start": run_start,
    "import": run_import,
    "script": run_script,
    "file": run_file,
    "module": run_module,
}


def import_alone(name: str, site: str, teller: Teller) -> None:
    """The same, of the only module there is, with a look at what it changes."""
    from jail.inside.imports import Importer, Missing
    from jail.inside.patches import Originals

    importer = Importer(site, teller)
    (name,) = importer.look([name])
    sys.meta_path.append(Missing(site, teller))
    originals = Originals(site)
    hide()
    try:
        if importer.is_hidden(name):
            importer.load_hidden(name)
        else:
            importlib.import_module(name)
    finally:
        originals.tell_changes([name], teller)


def main() -> NoReturn:
    """Run it, let it finish what it has begun, and end as Python ends."""
    kind, path, prefix = sys.argv[1:4]
    del sys.argv[1:4]
    teller = Teller(path)
    what = " ".join([kind, *sys.argv[1:2]])
    # The rooms that are imported later hide themselves.
    if len(sys.argv) < 3 or kind != "import":
        hide()
    code = 0
    try:
        TRIGGER_KINDS[kind](prefix, teller)
        if kind == "import":
            # One that ends the interpreter does not come here, whatever its exit code.
            teller.tell("ended", what, how=How.RAN)
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
