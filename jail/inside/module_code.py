"""What the code of a module itself defines, as its file has it: a name that a package has put there
is another's, or was added.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import resolve_name
from types import CodeType, ModuleType

from jail.inside.library import load_from_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OWN_LIBRARY = os.__file__.removesuffix("os.py")
# What stands before a name that gets its value only later, from others: `handler = None`.
PLACEHOLDERS = {"LOAD_CONST", "LOAD_SMALL_INT", "COPY", "STORE_NAME", "IMPORT_NAME", "IMPORT_FROM"}


def is_class(value: Any) -> bool:
    """Whether it is a class, not an object that claims to be a class."""
    return issubclass(type(value), type)


def variables_of(kind: type) -> Any:
    """Those of a class itself, whatever its own class makes of such questions."""
    # A class that C code has not made ready has none: that of capsules, in some Pythons.
    return type.__dict__["__dict__"].__get__(kind) or {}


def names_in(code: CodeType) -> dict[str, CodeType]:
    """The functions and classes that the code of a module or class defines."""
    return {const.co_name: const for const in code.co_consts if isinstance(const, CodeType)}


def is_defined(defined: dict[str, CodeType], owner: str | None, name: str) -> bool:
    """Whether a module's own code defines `name`, in the class `owner` if there is one."""
    if owner is None:
        return name in defined
    return owner in defined and name in names_in(defined[owner])


def is_inherited(kind: Any, name: str) -> bool:
    """Whether another class gives it to `kind`: `connect` of socket.socket, say."""
    bases = type.__dict__["__mro__"].__get__(kind)[1:-1] if is_class(kind) else ()
    return any(name in variables_of(base) for base in bases)


def is_imported(module: ModuleType, source: CodeType | None, name: str, value: Any) -> bool:
    """Whether the module's own code has imported that name from where it is another now: `post` of
    requests, which requests.api defines.
    """
    if source is None or name not in source.co_names:
        return False
    # Loaded when it is needed: hardly ever.
    load_from_library("dis")
    import dis

    level, start, taken = 0, "", ""
    found = []
    for step in dis.get_instructions(source):
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT") and type(step.argval) is int:
            level = step.argval
        elif step.opname == "IMPORT_NAME":
            start = f"{'.' * level}{step.argval}"
        elif step.opname == "IMPORT_FROM":
            taken = str(step.argval)
        elif step.opname == "STORE_NAME":
            if taken and step.argval == name:
                package = str(module.__dict__.get("__package__"))
                with suppress(ImportError):
                    there = sys.modules.get(resolve_name(start, package))
                    names = there.__dict__ if type(there) is ModuleType else {}
                    found += [names[taken]] if taken in names else []
            taken = ""
    return bool(found) and all(there is not value for there in found)


def source_code(module: ModuleType) -> CodeType | None:
    """The code of a module as its file has it, None where there is none."""
    spec = module.__dict__.get("__spec__")
    get_code = getattr(getattr(spec, "loader", None), "get_code", None)
    try:
        code = get_code(spec.name) if get_code and spec else None
    except Exception:  # whatever a loader of the package's own may raise
        return None
    return code if isinstance(code, CodeType) else None


def is_given(module: ModuleType, source: CodeType | None, name: str) -> bool:
    """Whether the module gives that name a value itself, `getpass = unix_getpass`, or says that it
    offers it: then what stands there now is in its place.
    """
    if source is None:
        return False
    if name not in source.co_names:
        # The library makes some of its own by a loop: hashlib.sha256.
        listed = module.__dict__.get("__all__")
        is_listed = isinstance(listed, list | tuple) and name in listed
        return is_listed and str(module.__dict__.get("__file__")).startswith(OWN_LIBRARY)
    load_from_library("dis")
    import dis

    before = ""
    given = []
    for step in dis.get_instructions(source):
        if step.opname == "STORE_NAME" and step.argval == name:
            given.append(before not in PLACEHOLDERS)
        before = step.opname
    return any(given)
