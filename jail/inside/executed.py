"""Which files of modules have been executed in this interpreter: a module that a package put into
sys.modules itself counts as imported, though its file was never run.

It shares the interpreter with the package, which can forge it: annotation.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, PathFinder
from types import CodeType, ModuleType

from jail.inside.ending import Teller
from jail.inside.own_code import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Compiled without its source, a module's code may have been called by any path.
KNOWN_BY_PATH = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
find_in = PathFinder.find_spec
# More than any package has modules. A package can give code that it makes any name, as often as it
# likes: then it is not known any more which modules were run.
MAX_EXECUTED_FILES, MAX_EXECUTED_PATH_CHARS = 50_000, 4096
TOO_MANY_EXECUTED = "so much code was executed that it is not known which modules were run"


class Executed:
    """The files of modules below `site` whose code was executed, or loaded. `teller` is told once
    where they are too many to be kept.
    """

    def __init__(self, site: str, teller: Teller) -> None:
        self.site, self.teller = site, teller
        self.files = {*executed_early(site)}
        self.is_told = False
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook: executed code of a module has its file."""
        path = None
        if event == "exec":
            code = arguments[0]
            if type(code) is CodeType and code.co_name == "<module>":
                path = code.co_filename
        # Of "import" the file of a compiled module; other imports have none.
        elif event == "import":
            path = arguments[1]
        if type(path) is str and len(path) <= MAX_EXECUTED_PATH_CHARS:
            is_of_site = path.startswith(f"{self.site}/")
            if is_of_site and len(self.files) <= MAX_EXECUTED_FILES:
                self.files.add(path)

    def is_whole(self) -> bool:
        """Whether all were kept; where they were not, that is told."""
        is_full = len(self.files) > MAX_EXECUTED_FILES
        if is_full and not self.is_told:
            self.is_told = True
            self.teller.tell("unrun", "", text=TOO_MANY_EXECUTED)
        return not is_full

    def missed_file(self, name: str) -> str | None:
        """The file that Python would run for a module, if that was not run. None where there is no
        such file, as of `six.moves`, and where so many were run that nobody knows.
        """
        if not self.is_whole():
            return None
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
