"""Runs pip as `python -m pip` does.

Arguments: those of pip. Without any they come later, on standard input, as a line of JSON: by then
what pip will need is loaded. Nothing of a package runs in this interpreter: what a package brings
for its building runs in children, as it does with any pip.
"""

import gc
import importlib
import json
import os
import runpy
import sys
from contextlib import suppress

from jail.inside.pip_modules import NAMES

MAX_WORDS_BYTES = 1 << 16


def load() -> None:
    """Import what pip imports, sooner or later.

    The collector would look at all of it many times, and find nothing.
    """
    gc.disable()
    for name in NAMES:
        # What it needs nevertheless it imports again, and tells what is wrong.
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    gc.enable()


def words_from_input() -> list[str]:
    """The words that come later, the environment that goes with them, as if it had been ours."""
    import site
    import sysconfig

    with os.fdopen(0, "rb", closefd=False) as given:
        said = json.loads(given.readline(MAX_WORDS_BYTES))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(said["variables"])
    # What audit.py does with a prefix that it finds at the start.
    own, sys.prefix = sys.prefix, os.environ["VIRTUAL_ENV"]
    sys.exec_prefix, site.PREFIXES[:] = sys.prefix, [sys.prefix]
    folders = [folder for folder in sys.path if folder.startswith(f"{own}/")]
    sys.path[:] = [folder for folder in sys.path if folder not in folders] + folders
    importlib.reload(sysconfig)
    return list(said["words"])


def later_words() -> list[str]:
    """Be ready, then wait for the words."""
    load()
    return words_from_input()


def run_pip(words: list[str]) -> int | str | None:
    """What pip ends with: as for any program a number, a sentence, or nothing for success."""
    sys.argv[:] = ["pip", *words]
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code
    return None


def main() -> None:
    code = run_pip(sys.argv[1:] or later_words())
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter has nothing left to do but to tidy up what goes anyway.
    os._exit(code if isinstance(code, int) else bool(code))


if __name__ == "__main__":
    main()
