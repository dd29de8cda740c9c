"""What a package has changed of others when it was imported: import hooks, replaced functions.

Only looks: no code of the package runs, but that of its import hooks, which are asked for modules
that everybody knows.
"""

from __future__ import annotations

# As ending.py, which says why.
import _signal as signal  # type: ignore[import-not-found]
import builtins
import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from types import CodeType, FunctionType, ModuleType

from jail.inside.ending import Teller
from jail.inside.module_code import (
    is_class,
    is_defined,
    is_given,
    is_imported,
    is_inherited,
    names_in,
    source_code,
    variables_of,
)
from jail.inside.own_code import OwnCode, code_of, own_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

# Asked of a new import hook: a hook that answers to these, and not only to names of its own, may
# change what others import.
KNOWN_NAMES = (
    *("json", "ssl", "subprocess", "socket", "getpass", "requests", "urllib3", "httpx", "aiohttp"),
    *("eth_account", "web3", "solana", "solders", "bitcoinlib", "boto3", "botocore", "paramiko"),
    *("cryptography", "jwt", "keyring", "dotenv", "github", "slack_sdk", "openai", "anthropic"),
    *("numpy", "pandas", "django", "flask", "fastapi", "sqlalchemy", "psycopg2", "redis", "yaml"),
)
LIBRARY_PATH = os.__file__.removesuffix("/os.py")
MAX_TOLD_PATCHES = 50
UNKNOWN_ENCODING = "x-utf-8-mac"
MAX_KEPT = 100  # variables of an object
HANDLED_SIGNALS = tuple(signal.valid_signals())
# Of what Python itself calls, for whatever is run later: where it is kept, and its name.
CALLED_ALWAYS = (
    ("sys.settrace", lambda: [sys.gettrace()]),
    ("sys.setprofile", lambda: [sys.getprofile()]),
    ("threading.settrace", lambda: [kept_by("threading", "_trace_hook")]),
    ("threading.setprofile", lambda: [kept_by("threading", "_profile_hook")]),
    ("gc.callbacks", lambda: kept_by("gc", "callbacks") or []),
    ("signal.signal", lambda: [*map(signal.getsignal, HANDLED_SIGNALS)]),
)


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


def kept_by(module: str, name: str) -> Any:
    """What a module has under that name, None where it is not loaded."""
    return getattr(sys.modules.get(module), name, None)


class Originals:
    """What was there before the package: `tell_changes` says what is another now."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.hooks = [*sys.meta_path, *sys.path_hooks]
        self.builtins = dict(vars(builtins))
        # `from posix import *`: no name of it stands in the source of os.
        self.modules = {
            name: dict(module.__dict__)
            for name, module in [*sys.modules.items()]
            if type(module) is ModuleType and module is not builtins
        }

    def tell_changes(self, names: Collection[str], teller: Teller) -> None:
        """Tell each import hook and each replaced function: what, and where its code stands.

        Args:
            names: the package's own modules.
        """
        files = own_files(names, self.site)
        packages = own_packages(names)
        for hook in [*sys.meta_path, *sys.path_hooks]:
            if not any(hook is known for known in self.hooks):
                self.tell_hook(hook, packages, teller)
        for what, value in [*self.replaced(files, packages)][:MAX_TOLD_PATCHES]:
            code = code_of(value)
            at = f"{code.co_filename}:{code.co_firstlineno}" if code else ""
            teller.tell("patched", what, at=at)
        # Who has a say in how text is read is asked for a way that nobody knows.
        with suppress(Exception):
            b"a".decode(UNKNOWN_ENCODING)

    def replaced(
        self, files: Collection[str], packages: Collection[str] = ()
    ) -> Iterator[tuple[str, Any]]:
        """What is the package's now of the built-in functions, and of other modules'.

        Args:
            files: those of the package's own modules, without their suffixes.
        """
        mine = OwnCode(files)
        yield from self.replaced_builtins(mine)
        yield from self.replaced_modules(mine, packages)
        for name, find in CALLED_ALWAYS:
            for value in find():
                if mine.code(value):
                    yield name, value
        yield from self.replaced_elsewhere(mine, packages)

    def tell_hook(self, hook: Any, packages: Collection[str], teller: Teller) -> None:
        """Tell of an import hook, with those of KNOWN_NAMES that it answers to, the package's own
        left out.
        """
        kind: Any = hook if isinstance(hook, type | FunctionType) else type(hook)
        find: Any = getattr(hook, "find_spec", None)
        about: tuple[None, ...] = (None, None)
        # One of sys.path_hooks: what it makes of the library's folder, if it does not leave that.
        if not find and callable(hook):
            about = ()
            with suppress(BaseException):
                find = hook(LIBRARY_PATH).find_spec
        answered = []
        tops = {package.partition(".")[0] for package in packages}
        for name in KNOWN_NAMES if find else ():
            if name in tops:
                continue
            try:
                if find(name, *about) is not None:
                    answered.append(name)
            except BaseException:  # noqa: S112 - what it is to be asked to do, it has done
                continue
        find_code = code_of(getattr(find, "__func__", find)) or code_of(hook)
        at = f"{find_code.co_filename}:{find_code.co_firstlineno}" if find_code else ""
        what = f"{kind.__module__}.{kind.__qualname__}"
        teller.tell("import hook", what, text=",".join(answered), at=at)

    def replaced_builtins(self, mine: OwnCode) -> Iterator[tuple[str, Any]]:
        """Built-in functions that are the package's now."""
        for name, original in self.builtins.items():
            now = vars(builtins).get(name)
            if now is not original and mine.code(now):
                yield f"builtins.{name}", now

    def replaced_modules(
        self, mine: OwnCode, packages: Collection[str]
    ) -> Iterator[tuple[str, Any]]:
        """What stands in the place of a whole module that others would find: the functions of a
        module of the package's own, or the methods of an object.
        """
        tops = {package.partition(".")[0] for package in packages}
        for name, module in [*sys.modules.items()]:
            is_module = issubclass(type(module), ModuleType)
            kind = module if is_module else sys.modules.get(type(module).__module__)
            file = str(getattr(kind, "__dict__", {}).get("__file__", ""))
            if "." in name or name in tops or not mine.has(file):
                continue
            spec = None
            # By hooks that the package may have put there.
            with suppress(Exception):
                spec = PathFinder.find_spec(name)
            if not spec or mine.has(str(spec.origin)):
                continue
            own = vars(module).values() if is_module else [type(module)]
            found = [value for value in own if code_of(value)]
            yield f"{name}.*", found[0] if found else None

    def replaced_elsewhere(
        self, mine: OwnCode, packages: Collection[str]
    ) -> Iterator[tuple[str, Any]]:
        """Functions and methods of other modules whose code is the package's now."""
        for name, module in [*sys.modules.items()]:
            if not isinstance(module, ModuleType) or name in ("__main__", "builtins"):
                continue
            file = str(module.__dict__.get("__file__", ""))
            is_below = any(name.startswith(f"{package}.") for package in packages)
            # A module without a file is made by a package at run time.
            is_made = not file or file.startswith(f"{self.site}/")
            if mine.has(file) or (is_below and is_made):
                continue
            yield from self.replaced_in(name, module, mine)
            yield from replaced_in_objects(name, module, mine)

    def replaced_in(
        self, name: str, module: ModuleType, mine: OwnCode
    ) -> Iterator[tuple[str, Any]]:
        """Those of one module. What it did not define itself was added to it, which many do."""
        source: CodeType | None = None
        before = self.modules.get(name, {})
        for owner, attribute, value in members(module):
            code = mine.code(value)
            if not code:
                continue
            # A class of its own that a decorator of the package's has made anew.
            if is_class(value) and variables_of(value).get("__module__") == name:
                continue
            source = source or source_code(module)
            # A module that is written in C never had a function in Python.
            is_other = source is None or is_defined(names_in(source), owner, attribute)
            if owner is None:
                is_other |= before.get(attribute, value) is not value
                is_other |= is_imported(module, source, attribute, value)
                # What its own package gives a module, its tests too, is nobody else's.
                own_folder = f"{self.site}/{name.partition('.')[0]}/"
                is_given_by_itself = is_given(module, source, attribute)
                is_other |= is_given_by_itself and not code.co_filename.startswith(own_folder)
            else:
                is_other |= is_inherited(module.__dict__.get(owner), attribute)
            if is_other:
                path = f"{owner}.{attribute}" if owner else attribute
                yield f"{name}.{path}", value


def replaced_in_objects(name: str, module: ModuleType, mine: OwnCode) -> Iterator[tuple[str, Any]]:
    """Methods of the only object of its kind, put into it alone: `logging.root.handle`."""
    for variable, value in [*module.__dict__.items()]:
        kind = type(value)
        if kind.__module__ == "builtins" or issubclass(kind, (type, ModuleType)):
            continue
        for attribute, member in kept_in(value):
            if not mine.code(member):
                continue
            # What is not the package's hides no method of its own.
            if any(attribute in variables_of(base) for base in kind.__mro__):
                yield f"{name}.{variable}.{attribute}", member


def kept_in(value: Any) -> list[tuple[str, Any]]:
    """The variables of an object, none where it has no room for them."""
    try:
        return [*object.__getattribute__(value, "__dict__").items()][:MAX_KEPT]
    except AttributeError:
        return []


def members(module: ModuleType) -> Iterator[tuple[str | None, str, Any]]:
    """The variables of a module, and of the classes that it defines: class, name, value."""
    for name, value in [*module.__dict__.items()]:
        yield None, name, value
        if is_class(value) and variables_of(value).get("__module__") == module.__name__:
            for attribute, member in [*variables_of(value).items()]:
                yield name, attribute, member
