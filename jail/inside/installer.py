"""Runs pip as `python -m pip` does, in less time.

Arguments: those of pip. Without any they come later, on standard input, as a line of JSON: by then
all of pip is loaded. Nothing of a package runs in this interpreter: what a package brings for its
building runs in children, as it does with any pip.
"""

import gc
import os
import sys
from typing import Any

MAX_WORDS_BYTES = 1 << 16


def load() -> Any:
    """What an installation imports, sooner or later; pip's `main`.

    The collector would look at all of it many times, and find nothing.
    """
    gc.disable()
    import pip
    from pip._internal.cli import autocompletion, main, main_parser  # noqa: F401
    from pip._internal.commands import install
    from pip._internal.network import session

    names = (*install._INTERNAL_EAGER_IMPORTS, *pip._EAGER_IMPORTS)
    install._eagerly_import_modules(names)
    # It asks the machine what it is, for a header that our index does not read.
    session.__dict__["user_agent"] = lambda: "pip"
    gc.freeze()
    gc.enable()
    return main.cli


def words_from_input() -> list[str]:
    """The words that come later, the environment that goes with them, as if it had been ours."""
    import importlib
    import json
    import site
    import sysconfig

    with os.fdopen(0, "rb", closefd=False) as given:
        said = json.loads(given.readline(MAX_WORDS_BYTES))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(said["variables"])
    # What audit.py does with a prefix that it finds at the start.
    own, sys.prefix = sys.prefix, os.environ["SNAKEHOOK_PREFIX"]
    sys.exec_prefix, site.PREFIXES[:] = sys.prefix, [sys.prefix]
    folders = [folder for folder in sys.path if folder.startswith(f"{own}/")]
    sys.path[:] = [folder for folder in sys.path if folder not in folders] + folders
    importlib.reload(sysconfig)
    return list(said["words"])


def main() -> None:
    run = load()
    sys.argv[:] = ["pip", *(sys.argv[1:] or words_from_input())]
    code = run()
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter has nothing left to do but to tidy up what goes anyway.
    os._exit(int(code))


if __name__ == "__main__":
    main()
