"""What a package offers to those who use it: the functions, classes, methods and objects that a
worker can call. Looks at modules that are imported; what runs then of the package is its own way to
be looked at.
"""

import enum
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

from jail.inside.made_up import MADE_UP_WORD

MAX_METHODS = 40  # of one class
MAX_HELD = 40  # of a table
MAX_LAZY = 40  # names of one module that are only made when somebody asks
# What Python itself calls of what a class makes, as a reader of a list, a `with` or a print does.
SPECIAL_METHODS = frozenset(
    f"__{name}__"
    for name in (
        *("call", "enter", "aenter", "iter", "aiter", "next", "anext", "getitem", "setitem"),
        *("getattr", "contains", "len", "bool", "str", "repr", "format", "eq", "lt", "hash"),
        *("add", "truediv", "or", "get", "set", "reduce", "fspath", "index", "int"),
        *("delitem", "missing", "reversed", "bytes", "float", "exit", "aexit", "await"),
        *("setattr", "delattr", "delete", "set_name", "class_getitem", "instancecheck", "prepare"),
        *("copy", "deepcopy", "getstate", "setstate", "dir", "sizeof", "reduce_ex"),
        *("sub", "mul", "matmul", "mod", "floordiv", "and", "xor", "lshift", "rshift", "neg"),
    )
)
# Of a class that cannot be made with made-up arguments, methods are called on a mock.
NEVER_MADE = (BaseException, enum.Enum, ModuleType)


PROPERTIES = (property, functools.cached_property)


@dataclass(frozen=True)
class PublicCall:
    """What is called: a function, a class, or the method `method` of what a class makes, or of the
    one `instance` of it that a module has.
    """

    name: str
    target: Callable[..., Any]
    method: str | None = None
    instance: Any = None


def is_plain_function(value: object) -> bool:
    """A function written in Python, however it is wrapped by the library."""
    if type(value) is FunctionType:
        return True
    if isinstance(value, MethodType | functools.partial):
        return is_plain_function(function_in(value))
    return callable(value) and not isinstance(value, type) and hasattr(value, "__wrapped__")


def function_in(value: Any) -> Any:
    """What a method or a partial function calls."""
    return value.__func__ if isinstance(value, MethodType) else value.func


def module_of(value: Any) -> str:
    """The name of the module that defines it, "" if it does not say."""
    if isinstance(value, functools.partial):
        return module_of(value.func)
    name = getattr(value, "__module__", None)
    return name if isinstance(name, str) else ""


def offered(value: Any, mine: set[str]) -> str:
    """What a variable is for who uses the package: "class", "function", "object", or "" for what is
    not the package's own.

    To look at it can run its code, and that may raise anything.
    """
    try:
        if module_of(value) not in mine:
            return ""
        if isinstance(value, type):
            return "class"
        return "function" if is_plain_function(value) else "object"
    # Whatever the value of a package says when it is asked for its module or its class.
    except Exception:
        return ""


def is_written(function: object) -> bool:
    """Whether somebody wrote it: a dataclass makes methods by itself."""
    return type(function) is FunctionType and not function.__code__.co_filename.startswith("<")


def public_names(module: ModuleType) -> list[str]:
    """What others may use: `__all__`, and what has no underscore."""
    listed = module.__dict__.get("__all__")
    if not isinstance(listed, list | tuple | set | frozenset):
        listed = ()
    names = [name for name in listed if isinstance(name, str)]
    return [*dict.fromkeys([*names, *(name for name in vars(module) if name[:1] != "_")])]


def methods(kind: type, mine: set[str], seen: set[int]) -> list[str]:
    """The public methods and properties that the package's own classes give to what it makes,
    without those that were `seen` in another class.
    """
    found: dict[str, None] = {}
    for base in own_bases(kind, mine):
        for name, value in [*vars(base).items()]:
            if is_method(name, value) and id(value) not in seen:
                seen.add(id(value))
                found[name] = None
    # What has a name of its own comes first.
    return sorted(found, key=SPECIAL_METHODS.__contains__)


def is_method(name: str, value: Any) -> bool:
    """Whether a variable of a class is a public method or property."""
    try:
        plain = getattr(value, "__func__", value)
        is_called = is_plain_function(plain) or isinstance(value, PROPERTIES)
        is_special = name in SPECIAL_METHODS and is_written(plain)
    except Exception:  # what it runs to be looked at
        return False
    return is_called and (name[:1] != "_" or is_special)


def own_bases(kind: type, mine: set[str]) -> list[type]:
    """The package's own classes among those that a class is made of."""
    return [base for base in kind.__mro__ if module_of(base) in mine]


def find_calls(modules: dict[str, Any], seen: set[int]) -> Iterator[PublicCall]:
    """All that can be called of these modules, each once, functions and classes first. A class with
    very many methods comes last with most of them: it must not take the turns of others.
    """
    mine = {*modules}
    kinds: list[tuple[str, type, Any]] = []
    last: list[PublicCall] = []
    for module_name, module in modules.items():
        # A module can put anything in its own place.
        if not isinstance(module, ModuleType):
            kinds.append((module_name, type(module), module))
            continue
        for name in public_names(module):
            value: Any = module.__dict__.get(name)
            if type(value) in (dict, list, tuple):
                last += held_calls(f"{module_name}.{name}", value, mine, seen)
            what = offered(value, mine)
            if not what or id(value) in seen:
                continue
            seen.add(id(value))
            title = f"{module_name}.{name}"
            if what == "class":
                kinds += [(*item, None) for item in with_inner(title, value, mine, seen)]
            elif what == "function":
                yield PublicCall(title, value)
            else:
                kinds.append((title, type(value), value))
        for number, call in enumerate(lazy_calls(module_name, module)):
            if number < MAX_LAZY:
                yield call
            else:
                last.append(call)
    # A class that others make by its own name says more than the one instance of a module.
    kinds.sort(key=lambda item: item[2] is not None)
    for title, kind, instance in kinds:
        if instance is None:
            yield from makings(title, kind, mine)
    for title, kind, instance in kinds:
        names = methods(kind, mine, seen)
        calls = [PublicCall(f"{title}.{name}", kind, name, instance) for name in names]
        yield from calls[:MAX_METHODS]
        last += calls[MAX_METHODS:]
    yield from last


def plugged_calls(targets: Sequence[str], mine: set[str], seen: set[int]) -> Iterator[PublicCall]:
    """What entry points name, `s.plug:_finalize`, private or not: programs of others call that."""
    for target in targets:
        name, _, attributes = target.partition(":")
        value: Any = sys.modules.get(name)
        try:
            for attribute in attributes.split(".") if attributes else ():
                value = getattr(value, attribute)
        # Whatever an object of the package says when it is asked.
        except Exception:  # noqa: S112
            continue
        kind = offered(value, mine)
        if attributes and kind and id(value) not in seen:
            seen.add(id(value))
            if kind == "function":
                yield PublicCall(target, value)
            elif kind == "class":
                yield from makings(target, value, mine)


def held_calls(title: str, value: Any, mine: set[str], seen: set[int]) -> Iterator[PublicCall]:
    """The functions in a public table, `COMMANDS = {"send": _send}`, whose own names are private.

    Of a table of anything else no more is looked at than of one of functions.
    """
    items = value.items() if type(value) is dict else enumerate(value)
    for key, item in [*itertools.islice(items, MAX_HELD)]:
        if id(item) not in seen and offered(item, mine) == "function":
            seen.add(id(item))
            shown = key if type(key) is str else ""
            yield PublicCall(f"{title}[{shown}] {getattr(item, '__name__', '')}", item)


def with_inner(
    title: str, kind: type, mine: set[str], seen: set[int]
) -> Iterator[tuple[str, type]]:
    """A class, and the public ones that are written in it."""
    yield title, kind
    for name, value in [*vars(kind).items()]:
        is_inner = name[:1] != "_" and offered(value, mine) == "class"
        if is_inner and id(value) not in seen:
            seen.add(id(value))
            yield from with_inner(f"{title}.{name}", value, mine, seen)


def makings(title: str, kind: type, mine: set[str]) -> Iterator[PublicCall]:
    """What makes something of a class, or another class with this as its base."""
    if issubclass(kind, type):
        yield PublicCall(title, making(kind))
    elif not issubclass(kind, NEVER_MADE) or is_own_error(kind, mine):
        yield PublicCall(title, kind)
    if module_of(type(kind)) in mine or has_own(kind, "__init_subclass__", mine):
        yield PublicCall(f"{title}, as a base", making(type(kind), kind))


def making(metaclass: Any, *bases: type) -> Callable[[], Any]:
    """A call that makes a class."""
    return lambda: metaclass(MADE_UP_WORD.title(), bases, {})


def is_own_error(kind: type, mine: set[str]) -> bool:
    """Whether it is an exception that does something when it is made."""
    return issubclass(kind, BaseException) and has_own(kind, "__init__", mine)


def has_own(kind: type, name: str, mine: set[str]) -> bool:
    """Whether a class of the package's own gives it that."""
    return any(name in vars(base) for base in own_bases(kind, mine))


def asking(module: ModuleType, name: str) -> Callable[[], Any]:
    """A call that asks a module for a name."""
    return lambda: getattr(module, name)


def lazy_calls(module_name: str, module: ModuleType) -> Iterator[PublicCall]:
    """What a module makes only when somebody asks for it by its name."""
    make = module.__dict__.get("__getattr__")
    if not is_plain_function(make):
        return
    missing = [name for name in public_names(module) if name not in module.__dict__]
    for name in [MADE_UP_WORD, *missing]:
        yield PublicCall(f"{module_name}.{name}", asking(module, name))
