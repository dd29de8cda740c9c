"""Which code is the package's own, by the files of its modules. No code of the package runs when it
is looked at.
"""

from __future__ import annotations

import functools
from types import CodeType, FunctionType, MethodType

from jail.inside.module_code import is_class, variables_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

MAX_WRAPPED = 10  # of a function within a function
# Which object it is. `id` would tell the audit hook of each question; and a class may have code of
# the package's say what it is equal to, and how it is hashed.
identity = object.__hash__
# What the library makes of a function, and where it has it.
WRAPPERS = {
    identity(staticmethod): "__func__",
    identity(classmethod): "__func__",
    identity(MethodType): "__func__",
    identity(property): "fget",
    identity(functools.partial): "func",
    identity(functools.cached_property): "func",
    identity(functools._lru_cache_wrapper): "__wrapped__",
}


def own_files(names: Collection[str], site: str) -> set[str]:
    """The files of the package's own modules, without their suffixes."""
    modules = {name.partition(":")[0].replace(".", "/") for name in names}
    return {f"{site}/{module}{end}" for module in modules for end in ("", "/__init__")}


def unwrapped(value: Any) -> Any:
    """The function in what the library makes of it: a method, a property, a partial or a cached
    function.
    """
    for _ in range(MAX_WRAPPED):
        name = WRAPPERS.get(identity(type(value)))
        if name is None:
            break
        value = getattr(value, name)
    return value


def code_of(value: Any) -> CodeType | None:
    """The code of a function, of the method that an object's type is called by, or of the first
    method that a class has.
    """
    value = unwrapped(value)
    if type(value) is FunctionType:
        code: CodeType = value.__code__
        return code
    return code_of_class(value) if is_class(value) else code_of_calls(type(value))


def code_of_class(kind: type) -> CodeType | None:
    """The code of the first method that a class has."""
    for member in [*variables_of(kind).values()]:
        method = unwrapped(member)
        if type(method) is FunctionType:
            code: CodeType = method.__code__
            return code
    return None


def code_of_calls(kind: type) -> CodeType | None:
    """The code by which objects of a class are called."""
    call = variables_of(kind).get("__call__")
    return call.__code__ if type(call) is FunctionType else None


class OwnCode:
    """What is the package's own, in one pass over all modules: there are ten thousand values, of
    some hundred files and classes, and each of those is looked at once.

    Args:
        files: the files of its modules, without their suffixes.
    """

    def __init__(self, files: Collection[str]) -> None:
        self.files = files
        self.paths: dict[str, bool] = {}
        # By identity, and kept here, so that no other gets theirs.
        self.classes: dict[int, tuple[type, CodeType | None]] = {}
        self.silent: dict[int, type] = {}  # whose objects have no code: str, int, dict

    def has(self, path: str) -> bool:
        """Whether a file is one of them."""
        if path not in self.paths:
            folder, _, name = path.rpartition("/")
            self.paths[path] = f"{folder}/{name.partition('.')[0]}" in self.files
        return self.paths[path]

    def code(self, value: Any) -> CodeType | None:
        """The code of a value, None where that is not the package's."""
        kind = type(value)
        if identity(kind) in self.silent:
            return None
        if is_class(value):
            if identity(value) not in self.classes:
                self.classes[identity(value)] = value, code_of_class(value)
            code = self.classes[identity(value)][1]
        else:
            code = code_of(value)
            if not code and identity(kind) not in WRAPPERS:
                self.silent[identity(kind)] = kind
        return code if code and self.has(code.co_filename) else None
