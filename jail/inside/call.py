"""A worker that calls the public functions, classes and methods of a package with made-up
arguments: code that only runs when somebody calls it.

Words, after the file for what is told: the site-packages of the installation, a folder for samples,
seconds for each call, then names of modules as for imports.py.
"""

import contextlib
import enum
import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any, NoReturn

from jail.inside.ending import How, hide
from jail.inside.imports import Importer
from jail.inside.jobs import Jobs
from jail.inside.made_up import Mock, Samples, arguments
from jail.inside.patches import Originals, own_files
from jail.inside.words import read_names

MAX_CALLS = 400
MAX_METHODS = 40  # of one class
MAX_LAZY = 40  # names of one module that are only made when somebody asks
MAX_RETURNED = 40  # of what one call gives back
MAX_RETURNED_DEEP = 3  # `decorator(argument)(function)(argument)`
# What Python itself calls of what a class makes, as a reader of a list, a `with` or a print does.
SPECIAL_METHODS = frozenset(
    f"__{name}__"
    for name in (
        *("call", "enter", "aenter", "iter", "aiter", "next", "anext", "getitem", "setitem"),
        *("getattr", "contains", "len", "bool", "str", "repr", "format", "eq", "lt", "hash"),
        *("add", "truediv", "or", "get", "set", "reduce", "fspath", "index", "int"),
        *("setitem", "delitem", "missing", "reversed", "bytes", "float", "exit", "aexit", "await"),
        *("sub", "mul", "matmul", "mod", "floordiv", "and", "xor", "lshift", "rshift", "neg"),
    )
)
# Of a class that cannot be made with made-up arguments, methods are called on a mock.
NEVER_MADE = (BaseException, enum.Enum, ModuleType)


class Overdue(BaseException):
    """A call took too long. Not an Exception, which many catch."""


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


def module_of(value: Any) -> object:
    """The name of the module that defines it, None if it does not say."""
    if isinstance(value, functools.partial):
        return module_of(value.func)
    return getattr(value, "__module__", None)


def is_written(function: object) -> bool:
    """Whether somebody wrote it: a dataclass makes methods by itself."""
    return type(function) is FunctionType and not function.__code__.co_filename.startswith("<")


def public_names(module: ModuleType) -> list[str]:
    """What others may use: `__all__`, and what has no underscore."""
    listed = module.__dict__.get("__all__", ())
    names = [name for name in listed if isinstance(name, str)] if listed else []
    return [*dict.fromkeys([*names, *(name for name in vars(module) if name[:1] != "_")])]


def methods(kind: type, mine: set[str], seen: set[int]) -> list[str]:
    """The public methods and properties that the package's own classes give to what it makes,
    without those that were `seen` in another class.
    """
    found: dict[str, None] = {}
    for base in kind.__mro__:
        if base.__module__ not in mine:
            continue
        for name, value in [*vars(base).items()]:
            plain = getattr(value, "__func__", value)
            is_called = is_plain_function(plain) or isinstance(value, PROPERTIES)
            is_special = name in SPECIAL_METHODS and is_written(plain)
            if is_called and (name[:1] != "_" or is_special) and id(value) not in seen:
                seen.add(id(value))
                found[name] = None
    # What has a name of its own comes first.
    return sorted(found, key=SPECIAL_METHODS.__contains__)


def find_calls(modules: Sequence[ModuleType], seen: set[int]) -> Iterator[PublicCall]:
    """All that can be called of these modules, each once, functions and classes first. A class with
    very many methods comes last with most of them: it must not take the turns of others.
    """
    mine = {module.__name__ for module in modules}
    kinds: list[tuple[str, type, Any]] = []
    last: list[PublicCall] = []
    for module in modules:
        for name in public_names(module):
            value: Any = module.__dict__.get(name)
            if module_of(value) not in mine or id(value) in seen:
                continue
            seen.add(id(value))
            title = f"{module.__name__}.{name}"
            if isinstance(value, type):
                kinds += [(*item, None) for item in with_inner(title, value, mine, seen)]
            elif is_plain_function(value):
                yield PublicCall(title, value)
            else:
                kinds.append((title, type(value), value))
        for number, call in enumerate(lazy_calls(module)):
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


def with_inner(
    title: str, kind: type, mine: set[str], seen: set[int]
) -> Iterator[tuple[str, type]]:
    """A class, and the public ones that are written in it."""
    yield title, kind
    for name, value in [*vars(kind).items()]:
        is_inner = isinstance(value, type) and value.__module__ in mine and name[:1] != "_"
        if is_inner and id(value) not in seen:
            seen.add(id(value))
            yield from with_inner(f"{title}.{name}", value, mine, seen)


def makings(title: str, kind: type, mine: set[str]) -> Iterator[PublicCall]:
    """What makes something of a class, or another class with this as its base."""
    if issubclass(kind, type):
        yield PublicCall(title, making(kind))
    elif not issubclass(kind, NEVER_MADE):
        yield PublicCall(title, kind)
    if type(kind).__module__ in mine or has_own(kind, "__init_subclass__", mine):
        yield PublicCall(f"{title}, as a base", making(type(kind), kind))


def making(metaclass: Any, *bases: type) -> Callable[[], Any]:
    """A call that makes a class."""
    return lambda: metaclass("Sample", bases, {})


def has_own(kind: type, name: str, mine: set[str]) -> bool:
    """Whether a class of the package's own gives it that."""
    return any(name in vars(base) for base in kind.__mro__ if base.__module__ in mine)


def asking(module: ModuleType, name: str) -> Callable[[], Any]:
    """A call that asks a module for a name."""
    return lambda: getattr(module, name)


def lazy_calls(module: ModuleType) -> Iterator[PublicCall]:
    """What a module makes only when somebody asks for it by its name."""
    make = module.__dict__.get("__getattr__")
    if not is_plain_function(make):
        return
    missing = [name for name in public_names(module) if name not in module.__dict__]
    for name in ["sample", *missing]:
        yield PublicCall(f"{module.__name__}.{name}", asking(module, name))


class Caller:
    """Calls, each within `each_sec`.

    `mine` are the names of the package's modules, `seen` the functions that have a turn.
    """

    def __init__(self, samples: Samples, each_sec: float, mine: set[str], seen: set[int]) -> None:
        self.samples = samples
        self.each_sec = each_sec
        self.mine, self.seen = mine, seen
        self.calls: dict[str, PublicCall] = {}
        self.made: dict[type, Any] = {}

    def call(self, name: str) -> None:
        """Do one of `calls`. Raises whatever it raises, Overdue when it takes too long."""
        call = self.calls[name]
        signal.signal(signal.SIGALRM, overdue)
        # Again and again: the first one may be caught.
        signal.setitimer(signal.ITIMER_REAL, self.each_sec, self.each_sec / 4)
        try:
            if call.method is None:
                self.finish(self.with_arguments(call.target))
            else:
                self.call_method(call.target, call.method, call.instance)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def with_arguments(self, target: Callable[..., Any], *given: Any) -> Any:
        """PublicCall with what is given, and what else it takes."""
        positional, keywords = arguments(target, self.samples, len(given))
        return target(*given, *positional, **keywords)

    def call_method(self, kind: Any, method: str, instance: Any, deep: int = 0) -> None:
        """PublicCall a method of an instance, or of a mock where none can be made."""
        static = inspect.getattr_static(kind, method)
        if isinstance(static, staticmethod | classmethod):
            self.finish(self.with_arguments(getattr(kind, method)), deep)
            return
        if instance is None:
            if kind not in self.made:
                self.made[kind] = self.instance(kind)
            instance = self.made[kind]
        if isinstance(static, PROPERTIES):
            get = static.fget if isinstance(static, property) else static.func
            self.finish(get(instance) if get else None, deep)
        else:
            self.finish(self.with_arguments(static, instance), deep)

    def instance(self, kind: Any) -> Any:
        """One of `kind`, or a mock."""
        try:
            return self.with_arguments(kind)
        except Exception:
            return Mock(kind.__name__)

    def finish(self, result: Any, deep: int = 0) -> None:
        """Run what was only prepared: a coroutine, the first step of a generator, the block of a
        `with`; and what the package gives back for others to call, a function or an object.
        """
        if inspect.isgenerator(result):
            next(result, None)
        elif inspect.iscoroutine(result) or inspect.isasyncgen(result):
            import asyncio

            step = result if inspect.iscoroutine(result) else anext(result, None)
            asyncio.run(awaited(step, self.each_sec))
        elif isinstance(result, contextlib.AbstractContextManager):
            with result:
                pass
        elif isinstance(result, contextlib.AbstractAsyncContextManager):
            import asyncio

            asyncio.run(awaited(entered(result), self.each_sec))
        if deep < MAX_RETURNED_DEEP:
            self.go_on(result, deep + 1)

    def go_on(self, result: Any, deep: int) -> None:
        """Call a function that was given back, or the methods of an object, each once."""
        if is_plain_function(result):
            code = getattr(result, "__code__", result)
            if module_of(result) in self.mine and id(code) not in self.seen:
                self.seen.add(id(code))
                self.finish(self.with_arguments(result), deep)
            return
        kind = type(result)
        if kind.__module__ not in self.mine:
            return
        for name in methods(kind, self.mine, self.seen)[:MAX_RETURNED]:
            # One that fails keeps no other from its turn. Overdue is no Exception.
            with contextlib.suppress(Exception):
                self.call_method(kind, name, result, deep)


async def awaited(step: Any, limit_sec: float) -> Any:
    """What `step` gives, within the limit."""
    import asyncio

    return await asyncio.wait_for(step, limit_sec)


async def entered(manager: Any) -> None:
    """Enter and leave."""
    async with manager:
        pass


def overdue(_number: int, _frame: FrameType | None) -> NoReturn:
    """The handler of the alarm."""
    raise Overdue


def patched(originals: Originals, names: Sequence[str], site: str) -> Iterator[PublicCall]:
    """The functions of others that are the package's now."""
    files = own_files(names, site)
    for name, function in originals.replaced(files):
        if callable(function):
            yield PublicCall(name, function)


def main() -> NoReturn:
    """Import, call all that is found, and end."""
    jobs = Jobs()
    site, folder, each_sec, *words = jobs.words
    hide()
    # A prompt gets an end of file.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    originals = Originals(site)
    names = [*dict.fromkeys(name.partition(":")[0] for name in read_names(words))]
    importer = Importer(site, jobs.teller)
    sys.meta_path.insert(0, importer.failures)
    jobs.prepare(names, importer.load)
    modules = [sys.modules[name] for name in names if name in sys.modules]
    seen: set[int] = set()
    mine = {module.__name__ for module in modules}
    caller = Caller(Samples(folder), float(each_sec), mine, seen)
    # What is written to a relative path lands among the samples.
    os.chdir(folder)
    found = [*patched(originals, names, site), *find_calls(modules, seen)]
    if len(found) > MAX_CALLS:
        text = f"{len(found) - MAX_CALLS} of {len(found)} calls"
        jobs.teller.tell("ended", "", how=How.NOT_RUN, text=text)
    caller.calls = {call.name: call for call in found[:MAX_CALLS]}
    jobs.run([*caller.calls], caller.call, prepared=len(names))
    jobs.end("call")
