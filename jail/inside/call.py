"""A worker that calls the public functions, classes and methods of a package with made-up
arguments: code that only runs when somebody calls it.

Words, after the file for what is told: the site-packages of the installation, a folder for samples,
seconds for each call, then names of modules as for imports.py.
"""

import contextlib
import functools
import inspect
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from jail.inside.added import added_modules
from jail.inside.ending import How, Teller, hide
from jail.inside.imports import Importer
from jail.inside.jobs import Jobs
from jail.inside.made_up import MADE_UP_WORD, Mock, Samples, arguments, takes_any
from jail.inside.own_code import own_files
from jail.inside.patches import Originals
from jail.inside.public import (
    PROPERTIES,
    Own,
    PublicCall,
    find_calls,
    is_plain_function,
    methods,
    plugged_calls,
)
from jail.inside.words import read_names

MAX_CALLS = 400
MAX_RETURNED = 40  # of what one call gives back
MAX_STEPS = 50  # of a generator
MAX_TRIES = 4  # of a call that takes any number of arguments
MAX_OVERDUE_TOLD = 5
MAX_RETURNED_DEEP = 3  # `decorator(argument)(function)(argument)`


class Overdue(BaseException):
    """A call took too long. Not an Exception, which many catch."""


class Caller:
    """Calls, each within `each_sec`.

    `mine` is what the package has written, `seen` the functions that have a turn.
    """

    def __init__(
        self, samples: Samples, each_sec: float, mine: Own, seen: set[int], teller: Teller
    ) -> None:
        self.samples, self.teller = samples, teller
        self.each_sec = each_sec
        self.mine, self.seen = mine, seen
        self.calls: dict[str, PublicCall] = {}
        self.made: dict[type, Any] = {}
        self.overdue = 0  # calls that took too long

    def call(self, name: str) -> None:
        """Do one of `calls`. Raises whatever it raises, Overdue when it takes too long."""
        call = self.calls[name]
        signal.signal(signal.SIGALRM, overdue)
        # Again and again: the first alarm may be caught.
        signal.setitimer(signal.ITIMER_REAL, self.each_sec, self.each_sec / 4)
        try:
            if call.method is None:
                self.finish(self.with_arguments(call.target))
            else:
                self.call_method(call.target, call.method, call.instance)
        except Overdue:
            self.tell_overdue(name)
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def tell_overdue(self, name: str) -> None:
        """Of the first overdue calls: what such a function does later nobody has seen."""
        self.overdue += 1
        if self.overdue <= MAX_OVERDUE_TOLD:
            text = f"what {name} does after {self.each_sec:g} s of a call"
            self.teller.tell("ended", "", how=How.NOT_RUN, text=text)

    def with_arguments(self, target: Callable[..., Any], *given: Any) -> Any:
        """Call with what is given, and what else it takes; with more where it says that it takes
        any and fails without. Raises whatever the last try does.
        """
        positional, keywords = arguments(target, self.samples, len(given))
        more: list[Any] = []
        takes_more, takes_names = takes_any(target)
        for _ in range(MAX_TRIES):
            try:
                return target(*given, *positional, *more, **keywords)
            except (TypeError, IndexError, ValueError):
                if not takes_more:
                    raise
                more.append(self.samples.value(MADE_UP_WORD))
            except KeyError as error:
                name = error.args[0] if error.args else None
                if not takes_names or not isinstance(name, str) or name in keywords:
                    raise
                keywords[name] = self.samples.for_parameter(name, inspect.Parameter.empty)
        return target(*given, *positional, *more, **keywords)

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
            self.use_property(static, instance, deep)
        elif isinstance(static, functools.singledispatchmethod):
            for function in [*static.dispatcher.registry.values()]:
                self.finish(self.with_arguments(function, instance), deep)
        elif isinstance(static, functools.partialmethod):
            method_of = static.__get__
            self.finish(self.with_arguments(method_of(instance, kind)), deep)
        else:
            self.finish(self.with_arguments(static, instance), deep)

    def use_property(self, static: Any, instance: Any, deep: int) -> None:
        """Read it, and give it another value, as far as it can be set."""
        is_plain = isinstance(static, property)
        get, put = (static.fget, static.fset) if is_plain else (static.func, None)
        try:
            self.finish(get(instance) if get else None, deep)
        finally:
            if put:
                self.with_arguments(put, instance)

    def instance(self, kind: Any) -> Any:
        """One of `kind`, or a mock."""
        try:
            return self.with_arguments(kind)
        # Whatever the class of a package raises: it may want what nobody can make up.
        except Exception:
            return Mock(kind.__name__)

    def finish(self, result: Any, deep: int = 0) -> None:
        """Run what was only prepared: a coroutine, the first steps of a generator, the block of
        a `with`; and what the package gives back for others to call, a function or an object.
        """
        given = result
        if inspect.isgenerator(result):
            given = [item for _, item in zip(range(MAX_STEPS), result, strict=False)]
            result.close()
        elif inspect.iscoroutine(result) or inspect.isasyncgen(result):
            import asyncio

            step = result if inspect.iscoroutine(result) else first_steps(result)
            given = asyncio.run(awaited(step, self.each_sec))
        elif isinstance(result, contextlib.AbstractContextManager):
            with result as inner:
                self.pass_on(inner, result, deep)
        elif isinstance(result, contextlib.AbstractAsyncContextManager):
            import asyncio

            inner = asyncio.run(awaited(entered(result), self.each_sec))
            self.pass_on(inner, result, deep)
        if deep < MAX_RETURNED_DEEP:
            self.go_on(given, deep + 1)

    def pass_on(self, inner: Any, manager: Any, deep: int) -> None:
        """Call what a `with` has to give, unless it is itself."""
        if inner is not manager and deep < MAX_RETURNED_DEEP:
            self.go_on(inner, deep + 1)

    def go_on(self, result: Any, deep: int) -> None:
        """Call a function that was given back, or the methods of an object, each once; the same of
        what a list or a table has.
        """
        if is_plain_function(result):
            code = getattr(result, "__code__", result)
            if result in self.mine and id(code) not in self.seen:
                self.seen.add(id(code))
                self.finish(self.with_arguments(result), deep)
            return
        if type(result) in (dict, list, tuple):
            items = result.values() if type(result) is dict else result
            for item in itertools.islice([*items], MAX_RETURNED if deep < MAX_RETURNED_DEEP else 0):
                with contextlib.suppress(Exception):
                    self.go_on(item, deep + 1)
            return
        kind = type(result)
        if kind not in self.mine:
            return
        for name in methods(kind, self.mine, self.seen)[:MAX_RETURNED]:
            # One that fails keeps no other from its turn. Overdue is no Exception.
            with contextlib.suppress(Exception):
                self.call_method(kind, name, result, deep)
        # What it has for others to use: `client.files.upload()`.
        kept = [*getattr(result, "__dict__", {}).values()] if deep < MAX_RETURNED_DEEP else []
        for item in kept[:MAX_RETURNED]:
            with contextlib.suppress(Exception):
                self.go_on(item, deep + 1)


async def awaited(step: Any, limit_sec: float) -> Any:
    """What `step` gives, within the limit."""
    import asyncio

    result = await asyncio.wait_for(step, limit_sec)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    # What it has begun beside gets its time, too: the loop's end would end it.
    if others:
        await asyncio.wait(others, timeout=limit_sec)
    return result


async def first_steps(generator: Any) -> list[Any]:
    """What the first steps of an asynchronous generator give."""
    given: list[Any] = []
    async for item in generator:
        given.append(item)
        if len(given) >= MAX_STEPS:
            break
    await generator.aclose()
    return given


async def entered(manager: Any) -> Any:
    """Enter and leave: what it gives."""
    async with manager as inner:
        return inner


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
    given = read_names(words)
    wanted = [name.partition(":")[0] for name in given]
    importer = Importer(site, jobs.teller)
    names = importer.sort([*dict.fromkeys([*wanted, *added_modules(site)])])
    sys.meta_path.insert(0, importer.failures)
    jobs.prepare(names, importer.load)
    there = {name: importer.loaded(name) for name in names}
    modules = {name: module for name, module in there.items() if module is not None}
    seen: set[int] = set()
    mine = Own(modules)
    caller = Caller(Samples(folder), float(each_sec), mine, seen, jobs.teller)
    # What is written to a relative path lands among the samples.
    os.chdir(folder)
    found = [
        *patched(originals, names, site),
        *find_calls(modules, mine, seen),
        *plugged_calls([name for name in given if ":" in name], mine, seen),
    ]
    if len(found) > MAX_CALLS:
        text = f"{len(found) - MAX_CALLS} of {len(found)} calls"
        jobs.teller.tell("ended", "", how=How.NOT_RUN, text=text)
    caller.calls = {call.name: call for call in found[:MAX_CALLS]}
    jobs.run([*caller.calls], caller.call, prepared=len(names))
    jobs.end("call")
