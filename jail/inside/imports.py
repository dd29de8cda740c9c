"""A worker that imports modules, loads entry points, and runs by their path the files that the
standard library or the interpreter's own modules hide.

Words, after the file for what is told: the site-packages of the installation, as whom (see
victims.py), then names: `pkg.module`, or `pkg.module:attribute` for an entry point, packed as
words.py says.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import opcode
import os
import sys
from types import FrameType, ModuleType

from jail.inside.added import added_modules
from jail.inside.attested import expect, say
from jail.inside.ending import How, Teller, hide
from jail.inside.executed import Executed
from jail.inside.fallen import said_of_fallen
from jail.inside.jobs import Jobs
from jail.inside.patches import Originals
from jail.inside.victims import become
from jail.inside.words import read_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

SUFFIXES = importlib.machinery.all_suffixes()
TOP_FINDERS = (
    importlib.machinery.BuiltinImporter,
    importlib.machinery.FrozenImporter,
    importlib.machinery.PathFinder,
)
MAX_MODULE_FAILURES = 3  # of one module
IMPORT_NAME = opcode.opmap["IMPORT_NAME"]
# Our own names for them: a package may replace those of the modules.
import_module = importlib.import_module


def module_file(folder: str, name: str) -> str | None:
    """The file of a top-level module in `folder`; None of a folder without code of its own."""
    for suffix in SUFFIXES:
        for path in (f"{folder}/{name}/__init__{suffix}", f"{folder}/{name}{suffix}"):
            if os.path.isfile(path):
                return path
    return None


def found_first(name: str) -> str | None:
    """Where Python finds a top-level module: a path, or the word of its loader."""
    for finder in TOP_FINDERS:
        try:
            spec = finder.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec:
            return spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return None


class Importer:
    """Imports names from `site`, also those that are hidden there."""

    def __init__(self, site: str, teller: Teller) -> None:
        self.site = site
        self.teller = teller
        # By top-level name the file, and what Python finds in its place.
        self.hidden: dict[str, tuple[str, str]] = {}
        self.shelves: dict[str, dict[str, ModuleType]] = {}
        self.failures = Failures()
        self.executed = Executed(site, teller)
        self.deadly: set[str] = set()  # modules that ended an interpreter

    def look(self, names: Sequence[str]) -> list[str]:
        """`names` with the hidden last: what they do to the library's harms no other. Those
        are told.
        """
        names = self.sort(names)
        for top, (path, first) in self.hidden.items():
            self.teller.tell("shadowed", top, text=first, at=path)
        return names

    def sort(self, names: Sequence[str]) -> list[str]:
        """The same, with nothing told."""
        for top in dict.fromkeys(name.partition(":")[0].partition(".")[0] for name in names):
            path = module_file(self.site, top)
            first = found_first(top) if path else None
            if path and first and not first.startswith(f"{self.site}/"):
                self.hidden[top] = path, first
        return sorted(names, key=self.is_hidden)

    def is_hidden(self, name: str) -> bool:
        """Whether `import` of it finds another."""
        return name.partition(":")[0].partition(".")[0] in self.hidden

    def load(self, name: str) -> None:
        """Import a module, or load an entry point. Raises whatever it raises."""
        try:
            self.load_once(name)
        except BaseException as error:
            self.failures.note(error)
            raise

    def load_once(self, name: str) -> None:
        """The same, with nothing kept of how it went."""
        module_name, _, attributes = name.partition(":")
        if self.is_hidden(name):
            loaded: Any = self.load_hidden(module_name)
        else:
            self.keep_failed_packages(module_name)
            loaded = self.import_own(module_name)
        for attribute in attributes.split(".") if attributes else ():
            loaded = getattr(loaded, attribute)

    def import_own(self, name: str) -> Any:
        """Import a module. Where the package has put another in its place, or nothing, its file is
        run by its path.
        """
        is_barred = sys.modules.get(name, sys) is None
        loaded = None if is_barred else import_module(name)
        path = self.executed.missed_file(name)
        if path:
            self.teller.tell("shadowed", name, text="sys.modules", at=path)
            own = self.run_aside(name, path)
            return own if is_barred else loaded
        return import_module(name) if is_barred else loaded

    def run_aside(self, name: str, path: str) -> ModuleType:
        """Run the file of a module whose place another has, which gets it back."""
        stand_in = sys.modules.pop(name, sys)
        try:
            return self.run_by_path(name, path)
        finally:
            sys.modules.pop(name, None)
            if stand_in is not sys:
                sys.modules[name] = stand_in

    def keep_failed_packages(self, name: str) -> None:
        """A package above `name` whose own code fails would hide what is in it: what it has made
        until then stays for its package.
        """
        parts = name.split(".")
        for above in (".".join(parts[:depth]) for depth in range(1, len(parts))):
            if above in sys.modules:
                continue
            if above in self.deadly:
                self.stand_in_for(above)
                continue
            try:
                import_module(above)
            except BaseException:
                spec = importlib.util.find_spec(above)
                if not spec or spec.submodule_search_locations is None:
                    raise
                self.run_and_keep(above, spec)

    def stand_in_for(self, name: str) -> None:
        """Let an empty package stand for a package whose own code ends the interpreter."""
        spec = importlib.util.find_spec(name)
        if spec:
            sys.modules[name] = importlib.util.module_from_spec(spec)

    def run_and_keep(self, name: str, spec: importlib.machinery.ModuleSpec) -> None:
        """Run a module that fails once more, and keep what it has made."""
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            if spec.loader:
                spec.loader.exec_module(module)
        except BaseException:  # the import of itself has told of it
            sys.modules[name] = module

    def loaded(self, name: str) -> ModuleType | None:
        """A module of the package that was imported, also where Python does not find it."""
        shelf = self.shelves.get(name.partition(".")[0], {})
        return shelf.get(name) if self.is_hidden(name) else sys.modules.get(name)

    def load_hidden(self, name: str) -> Any:
        """Run the file under its name while the module that hides it is set aside."""
        top = name.partition(".")[0]
        shelf = self.shelves.setdefault(top, {})
        set_aside = self.swap(top, shelf)
        try:
            if top not in sys.modules:
                self.run_by_path(top, self.hidden[top][0])
            return self.import_own(name)
        finally:
            shelf.update(self.swap(top, set_aside))

    def swap(self, top: str, modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
        """Put `modules` in the place of what is loaded of `top`, which is returned."""
        taken = {
            name: module
            for name, module in [*sys.modules.items()]
            if name == top or name.startswith(f"{top}.")
        }
        for name in taken:
            del sys.modules[name]
        sys.modules.update(modules)
        return taken

    def run_by_path(self, name: str, path: str) -> ModuleType:
        """Make a module of the file, in sys.modules, and run it."""
        folder, _, file = path.rpartition("/")
        places = [folder] if file.startswith("__init__.") else None
        spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
        if not spec or not spec.loader:
            raise ImportError(f"no loader for {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module


class Failures:
    """A finder of sys.meta_path for modules that have failed again and again, in whatever order
    they were imported: the next time they fail at once. Hundreds may ask for the same module.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.errors: dict[str, BaseException] = {}
        self.imported: set[str] = set()  # top-level modules that were to be loaded

    def note(self, error: BaseException) -> None:
        """Count a failure for each module whose own code it has ended."""
        tb = error.__traceback__
        while tb:
            frame = tb.tb_frame
            name = frame.f_globals.get("__name__")
            if frame.f_code.co_name == "<module>" and isinstance(name, str):
                self.counts[name] = self.counts.get(name, 0) + 1
                self.errors[name] = error
            tb = tb.tb_next

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise what a module of that name has raised before, if it was often enough."""
        # importlib.util.find_spec asks, too, and does not load.
        if "." not in name and sys._getframe(2).f_code.co_name == "_find_and_load_unlocked":
            self.imported.add(name)
        if self.counts.get(name, 0) >= MAX_MODULE_FAILURES:
            raise self.errors[name].with_traceback(None)


class Missing:
    """The last finder of sys.meta_path: asked for what no other has found, it tells of it, if an
    import statement asked: names that are made up at run time mean something else.
    """

    def __init__(self, site: str, teller: Teller) -> None:
        self.site = site
        self.teller = teller
        self.told: set[tuple[str, str]] = set()
        self.names: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Tell which file asked for a module that is not there, each once."""
        if "." in name:
            return
        frame: FrameType | None = sys._getframe(1)
        while frame and frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        if not frame or frame.f_code.co_code[frame.f_lasti] != IMPORT_NAME:
            return
        file = frame.f_code.co_filename
        if file.startswith(f"{self.site}/") and (name, file) not in self.told:
            self.told.add((name, file))
            self.names.add(name)
            self.teller.tell("missed", name, at=f"{file}:{frame.f_lineno}")


# A package sees who stands in sys.meta_path: there it finds what virtualenv's own file puts there.
for finder in (Failures, Missing):
    finder.__module__, finder.__qualname__, finder.__name__ = "_virtualenv", "_Finder", "_Finder"


def main() -> NoReturn:
    """Import all, tell what is odd, and end."""
    jobs = Jobs()
    site, victim, *words = jobs.words
    importer = Importer(site, jobs.teller)
    names = importer.look([*dict.fromkeys([*read_names(words), *added_modules(site)])])
    importer.deadly = {name for number, name in enumerate(names) if number in jobs.skips}
    become(victim)
    hide()
    sys.meta_path.insert(0, importer.failures)
    missing = Missing(site, jobs.teller)
    sys.meta_path.append(missing)
    originals = Originals(site)

    def load(name: str) -> None:
        """Import it, and say to the launcher where it failed."""
        try:
            importer.load(name)
        except BaseException as error:
            said = said_of_fallen(name, error, site, missing.names)
            if said:
                say(said)
            raise

    expect(site, names, importer.executed.files)
    jobs.run(names, load)
    originals.tell_changes(names, jobs.teller)
    # What is there, and fails: who goes on without it has not done what needs it.
    for name in sorted(importer.failures.imported - missing.names - {*sys.modules}):
        jobs.teller.tell("missed", name, how=How.RAISED)
    jobs.end("imports")
