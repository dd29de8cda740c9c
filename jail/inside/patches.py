"""What a package has changed of others when it was imported: import hooks, replaced functions.

Only looks: no code of the package runs, but that of its import hooks, which are asked for modules
that everybody knows.
"""

from __future__ import annotations

import builtins
import sys
from types import CodeType, FunctionType, ModuleType

from jail.inside.ending import Teller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

# Asked of a new import hook: one that answers to these, and not only to names of its own, may
# change what others import.
KNOWN_NAMES = ("json", "ssl", "subprocess", "requests", "urllib3", "eth_account", "solana", "boto3")
MAX_TOLD_PATCHES = 50


def own_files(names: Collection[str], site: str) -> set[str]:
    """The files of the package's own modules, without their suffixes."""
    modules = {name.partition(":")[0].replace(".", "/") for name in names}
    return {f"{site}/{module}{end}" for module in modules for end in ("", "/__init__")}


def own_packages(names: Collection[str]) -> tuple[str, ...]:
    """The names that have none of `names` above them: all below is the package's own, its tests
    too, which are not among `names`.
    """
    modules = {name.partition(":")[0] for name in names}
    found = []
    for module in modules:
        parts = module.split(".")
        if not any(".".join(parts[:depth]) in modules for depth in range(1, len(parts))):
            found.append(module)
    return tuple(found)


def is_of(files: set[str], path: str) -> bool:
    """Whether `path` is one of `files`."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}" in files


def code_of(value: Any) -> CodeType | None:
    """The code of a function, or of the method that an object's type is called by."""
    if type(value) in (staticmethod, classmethod):
        value = value.__func__
    if type(value) is FunctionType:
        code: CodeType = value.__code__
        return code
    call = type.__dict__["__dict__"].__get__(type(value)).get("__call__")
    if type(call) is FunctionType and not isinstance(value, type):
        return call.__code__
    return None


def names_in(code: CodeType) -> dict[str, CodeType]:
    """The functions and classes that the code of a module or class defines."""
    return {const.co_name: const for const in code.co_consts if isinstance(const, CodeType)}


def is_defined(defined: dict[str, CodeType], owner: str | None, name: str) -> bool:
    """Whether a module's own code defines `name`, in the class `owner` if there is one."""
    if owner is None:
        return name in defined
    return owner in defined and name in names_in(defined[owner])


def source_code(module: ModuleType) -> CodeType | None:
    """The code of a module as its file has it, None where there is none."""
    spec = module.__dict__.get("__spec__")
    get_code = getattr(getattr(spec, "loader", None), "get_code", None)
    try:
        code = get_code(spec.name) if get_code and spec else None
    except Exception:  # whatever a loader of the package's own may raise
        return None
    return code if isinstance(code, CodeType) else None


class Originals:
    """What was there before the package: `tell_changes` says what is another now."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.hooks = [*sys.meta_path, *sys.path_hooks]
        self.builtins = dict(vars(builtins))

    def tell_changes(self, names: Collection[str], teller: Teller) -> None:
        """Tell each import hook and each replaced function: what, and where its code stands.

        Args:
            names: the package's own modules.
        """
        mine = own_files(names, self.site)
        packages = own_packages(names)
        for hook in [*sys.meta_path, *sys.path_hooks]:
            if not any(hook is known for known in self.hooks):
                self.tell_hook(hook, teller)
        for what, value in [*self.replaced(mine, packages)][:MAX_TOLD_PATCHES]:
            code = code_of(value)
            if code:
                teller.tell("patched", what, at=f"{code.co_filename}:{code.co_firstlineno}")

    def replaced(self, mine: set[str], packages: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
        """What is the package's now of the built-in functions, and of other modules'."""
        yield from self.replaced_builtins(mine)
        yield from self.replaced_elsewhere(mine, packages)

    def tell_hook(self, hook: Any, teller: Teller) -> None:
        """Tell of an import hook, with those of KNOWN_NAMES that it answers to."""
        kind = hook if isinstance(hook, type) else type(hook)
        find: Any = getattr(hook, "find_spec", None)
        answered = []
        for name in KNOWN_NAMES if find else ():
            try:
                if find(name, None, None) is not None:
                    answered.append(name)
            except BaseException:  # noqa: S112 - what it is to be asked to do, it has done
                continue
        find_code = code_of(getattr(find, "__func__", find)) or code_of(hook)
        at = f"{find_code.co_filename}:{find_code.co_firstlineno}" if find_code else ""
        what = f"{kind.__module__}.{kind.__qualname__}"
        teller.tell("import hook", what, text=",".join(answered), at=at)

    def replaced_builtins(self, mine: set[str]) -> Iterator[tuple[str, Any]]:
        """Built-in functions that are the package's now."""
        for name, original in self.builtins.items():
            now = vars(builtins).get(name)
            code = code_of(now) if now is not original else None
            if code and is_of(mine, code.co_filename):
                yield f"builtins.{name}", now

    def replaced_elsewhere(
        self, mine: set[str], packages: Collection[str]
    ) -> Iterator[tuple[str, Any]]:
        """Functions and methods of other modules whose code is the package's now."""
        for name, module in [*sys.modules.items()]:
            if not isinstance(module, ModuleType) or name in ("__main__", "builtins"):
                continue
            file = str(module.__dict__.get("__file__", ""))
            is_below = any(name.startswith(f"{package}.") for package in packages)
            # A module without a file is made by a package at run time.
            is_made = not file or file.startswith(f"{self.site}/")
            if is_of(mine, file) or (is_below and is_made):
                continue
            yield from self.replaced_in(name, module, mine)

    def replaced_in(
        self, name: str, module: ModuleType, mine: set[str]
    ) -> Iterator[tuple[str, Any]]:
        """Those of one module. What it did not define itself was added to it, which many do."""
        defined: dict[str, CodeType] | None = None
        for path, owner, attribute, value in members(module):
            code = code_of(value)
            if not code or not is_of(mine, code.co_filename):
                continue
            if defined is None:
                source = source_code(module)
                defined = names_in(source) if source else None
            # A module that is written in C never had a function in Python.
            if defined is None or is_defined(defined, owner, attribute):
                yield f"{name}.{path}", value


def members(module: ModuleType) -> Iterator[tuple[str, str | None, str, Any]]:
    """The variables of a module, and of the classes that it defines: path, class, name, value."""
    for name, value in [*module.__dict__.items()]:
        yield name, None, name, value
        if isinstance(value, type) and value.__dict__.get("__module__") == module.__name__:
            for attribute, member in [*type.__dict__["__dict__"].__get__(value).items()]:
                yield f"{name}.{attribute}", name, attribute, member
