"""Which files of modules have been executed in this interpreter: a module that a package put into
sys.modules itself counts as imported, though its file was never run.

It shares the interpreter with the package, which can forge it: annotation.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, PathFinder
from types import CodeType, ModuleType

from jail.inside.own_code import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Compiled without its source, a module's code may have been called by any path.
KNOWN_BY_PATH = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
find_in = PathFinder.find_spec


class Executed:
    """The files of modules below `site` whose code was executed, or loaded."""

    def __init__(self, site: str) -> None:
        self.site = site
        files = {*executed_early(site)}
        self.files = files

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "exec":
                code = arguments[0]
                if type(code) is CodeType and code.co_name == "<module>":
                    files.add(code.co_filename)
            # Of "import" the file of a compiled module; other imports have none.
            elif event == "import" and type(arguments[1]) is str:
                files.add(arguments[1])

        sys.addaudithook(note)

    def missed_file(self, name: str) -> str | None:
        """The file that Python would run for a module, if that was not run. None where there is no
        such file, as of `six.moves`.
        """
        folder = f"{self.site}/{name.replace('.', '/')}".rpartition("/")[0]
        try:
            spec = find_in(name, [folder])
        # Of a package's own import hooks anything.
        except Exception:
            return None
        path = spec.origin if spec and spec.has_location else None
        if not path or not path.endswith(KNOWN_BY_PATH) or path in self.files:
            return None
        return path if path.startswith(f"{self.site}/") else None


def executed_early(site: str) -> Iterator[str]:
    """The files of what a .pth file has imported, by the functions that they have made."""
    for module in [*sys.modules.values()]:
        variables = module.__dict__ if type(module) is ModuleType else {}
        if str(variables.get("__file__", "")).startswith(f"{site}/"):
            for code in map(code_of, [*variables.values()]):
                if code:
                    yield code.co_filename
