"""What a package offers to those who use it: the functions, classes, methods and objects that a
worker can call. Looks at modules that are imported; what runs then of the package is its own way to
be looked at.
"""

import collections
import enum
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from jail.inside.made_up import MADE_UP_WORD

MAX_METHODS = 40  # of one class
MAX_HELD = 40  # of a table
MAX_HELD_DEEP = 3  # tables in tables
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
        *("radd", "rsub", "rmul", "rmatmul", "rtruediv", "ror", "iadd", "isub", "imul", "ior"),
        *("sub", "mul", "matmul", "mod", "floordiv", "and", "xor", "lshift", "rshift", "neg"),
    )
)
# Of a class that cannot be made with made-up arguments, methods are called on a mock.
NEVER_MADE = (BaseException, enum.Enum, ModuleType)


PROPERTIES = (property, functools.cached_property)
WITH_NAMES = (FunctionType, MethodType, type)
# What makes methods in a class, and is none itself.
METHOD_MAKERS = (functools.partialmethod, functools.singledispatchmethod)
TABLE_KINDS = (
    *(dict, collections.OrderedDict, collections.defaultdict, MappingProxyType),
    *(list, tuple, set, frozenset, collections.deque),
)


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


class Own:
    """What is the package's own: by the names of its modules; and by the variables that a function
    has, since a name is no more than what the package says of itself.
    """

    def __init__(self, modules: Mapping[str, Any]) -> None:
        self.names = {*modules}
        there = (module for module in modules.values() if isinstance(module, ModuleType))
        self.spaces = {id(module.__dict__) for module in there}
        self.kinds: dict[type, bool] = {}  # whether a class has functions of the package's own

    def __contains__(self, value: Any) -> bool:
        if module_of(value) in self.names or self.has_written(value):
            return True
        return self.has_own(value if isinstance(value, type) else type(value))

    def has_written(self, value: Any) -> bool:
        """Whether it is a function that stands in one of the package's modules."""
        plain = inner_function(value)
        return type(plain) is FunctionType and id(plain.__globals__) in self.spaces

    def has_own(self, kind: type) -> bool:
        """Whether one of its own methods is written there. Thousands of variables are of few
        kinds.
        """
        if kind not in self.kinds:
            self.kinds[kind] = any(self.has_written(item) for item in [*vars(kind).values()])
        return self.kinds[kind]


def inner_function(value: Any) -> Any:
    """The function in what the library makes of it: a method, a property, a partial function."""
    if isinstance(value, staticmethod | classmethod | MethodType):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.partial) else value


def offered(value: Any, mine: Own) -> str:
    """What a variable is for who uses the package: "class", "function", "object", or "" for what is
    not the package's own.

    To look at it can run its code, and that may raise anything.
    """
    try:
        if value not in mine:
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


def methods(kind: type, mine: Own, seen: set[int]) -> list[str]:
    """The public methods and properties that the package's own classes give to what it makes,
    without those that were `seen` in another class.
    """
    found: dict[str, None] = {}
    for base in own_bases(kind, mine):
        for name, value in [*vars(base).items()]:
            is_foreign = module_of(base) not in mine.names and not mine.has_written(value)
            if is_method(name, value) and id(value) not in seen and not is_foreign:
                seen.add(id(value))
                found[name] = None
    # What has a name of its own comes first.
    return sorted(found, key=SPECIAL_METHODS.__contains__)


def is_method(name: str, value: Any) -> bool:
    """Whether a variable of a class is a public method or property."""
    try:
        plain = getattr(value, "__func__", value)
        is_made = isinstance(value, PROPERTIES + METHOD_MAKERS)
        is_called = is_made or is_plain_function(plain)
        is_special = name in SPECIAL_METHODS and is_written(plain)
    except Exception:  # what it runs to be looked at
        return False
    return is_called and (name[:1] != "_" or is_special)


def own_bases(kind: type, mine: Own) -> list[type]:
    """The package's own classes among those that a class is made of."""
    return [base for base in kind.__mro__ if base in mine]


def find_calls(modules: dict[str, Any], mine: Own, seen: set[int]) -> Iterator[PublicCall]:
    """All that can be called of these modules, each once, functions and classes first. A class with
    very many methods comes last with most of them: it must not take the turns of others.
    """
    kinds: list[tuple[str, type, Any]] = []
    last: list[PublicCall] = []
    for module_name, module in modules.items():
        # A module can put anything in its own place.
        if not isinstance(module, ModuleType):
            kinds.append((module_name, type(module), module))
            continue
        for name in public_names(module):
            value: Any = module.__dict__.get(name)
            if type(value) in TABLE_KINDS:
                last += held_calls(f"{module_name}.{name}", value, mine, seen)
            what = offered(value, mine)
            if not what:
                last += kept_calls(f"{module_name}.{name}", value, mine, seen)
            if not what or id(value) in seen:
                continue
            seen.add(id(value))
            title = f"{module_name}.{name}"
            if what == "class":
                kinds += [(*item, None) for item in with_inner(title, value, mine, seen)]
                tables = {
                    key: item for key, item in vars(value).items() if type(item) in TABLE_KINDS
                }
                last += held_calls(title, tables, mine, seen)
            elif what == "function":
                yield PublicCall(title, value)
                last += kept_calls(title, value, mine, seen)
            else:
                kinds.append((title, type(value), value))
                last += kept_calls(title, value, mine, seen)
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


def plugged_calls(targets: Sequence[str], mine: Own, seen: set[int]) -> Iterator[PublicCall]:
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
        if attributes:
            yield from calls_of(target, value, mine, seen)


def calls_of(title: str, value: Any, mine: Own, seen: set[int]) -> Iterator[PublicCall]:
    """What can be called of one thing, whatever it is: others get hold of it, though its own name
    is private.
    """
    what = offered(value, mine)
    if not what or id(value) in seen:
        return
    seen.add(id(value))
    if what == "function":
        yield PublicCall(title, value)
        return
    if what == "class":
        yield from makings(title, value, mine)
    kind, instance = (value, None) if what == "class" else (type(value), value)
    for name in methods(kind, mine, seen)[:MAX_METHODS]:
        yield PublicCall(f"{title}.{name}", kind, name, instance)


def held_calls(title: str, table: Any, mine: Own, seen: set[int]) -> Iterator[PublicCall]:
    """What a public table has, `COMMANDS = {"send": _send}`, and tables in it.

    Of a table with anything else no more is looked at than of a table of functions.
    """
    items = table.items() if hasattr(table, "items") else enumerate(table)
    for key, item in [*itertools.islice(items, MAX_HELD)]:
        shown = f"{title}[{key if type(key) is str else ''}]"
        if type(item) not in TABLE_KINDS:
            name = getattr(item, "__name__", "") if issubclass(type(item), WITH_NAMES) else ""
            yield from calls_of(f"{shown} {name}".rstrip(), item, mine, seen)
        elif title.count("[") < MAX_HELD_DEEP:
            yield from held_calls(shown, item, mine, seen)


def kept_calls(title: str, value: Any, mine: Own, seen: set[int]) -> Iterator[PublicCall]:
    """What an object of another library has of the package: that of a command, by click, has the
    function that it was made of as its `callback`. Of a function, what it was given as attributes.
    """
    try:
        kept = [*object.__getattribute__(value, "__dict__").items()]
    except AttributeError:
        return
    # What `__wrapped__` names is called by what wraps it.
    table = {name: item for name, item in kept if name != "__wrapped__"}
    if not issubclass(type(value), (type, ModuleType)):
        yield from held_calls(title, table, mine, seen)


def with_inner(title: str, kind: type, mine: Own, seen: set[int]) -> Iterator[tuple[str, type]]:
    """A class, and the public classes that are written in it."""
    yield title, kind
    for name, value in [*vars(kind).items()]:
        is_inner = name[:1] != "_" and offered(value, mine) == "class"
        if is_inner and id(value) not in seen:
            seen.add(id(value))
            yield from with_inner(f"{title}.{name}", value, mine, seen)


def makings(title: str, kind: type, mine: Own) -> Iterator[PublicCall]:
    """What makes something of a class, or another class with this as its base."""
    if issubclass(kind, type):
        yield PublicCall(title, making(kind))
    elif not issubclass(kind, NEVER_MADE) or is_own_error(kind, mine):
        yield PublicCall(title, kind)
    elif issubclass(kind, enum.Enum) and has_own(kind, "_missing_", mine):
        yield PublicCall(title, asking_for(kind))
    if type(kind) in mine or has_own(kind, "__init_subclass__", mine):
        yield PublicCall(f"{title}, as a base", making(type(kind), kind))


def making(metaclass: Any, *bases: type) -> Callable[[], Any]:
    """A call that makes a class."""
    return lambda: metaclass(MADE_UP_WORD.title(), bases, {})


def asking_for(kind: Callable[[Any], Any]) -> Callable[[], Any]:
    """A call that asks an enum for a value that it has not."""
    return lambda: kind(MADE_UP_WORD)


def is_own_error(kind: type, mine: Own) -> bool:
    """Whether it is an exception that does something when it is made."""
    return issubclass(kind, BaseException) and has_own(kind, "__init__", mine)


def has_own(kind: type, name: str, mine: Own) -> bool:
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
