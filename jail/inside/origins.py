"""Where code comes from: which frame of Python asked for something, and whether text was decoded
before it became code. A part of the audit hook; no code of the package runs when it is looked at.
"""

from __future__ import annotations

import os
import sys
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType

from jail.inside.paths import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBRARY = os.__file__.removesuffix("os.py")
# These rooms: their folder, or in the jail the one name of all their files.
OWN_CODE = sys._getframe().f_code.co_filename
INSIDE = OWN_CODE if OWN_CODE.startswith("<") else f"{OWN_CODE.rpartition('/')[0]}/"
# Nobody's doing but the machinery's: the standard library and pip, the import system, the
# launcher and the hook.
TRUSTED = (LIBRARY, f"{sys.prefix}/", "<frozen", INSIDE)
# What turns text that nobody can read into code, by the names that code has for it.
DECODERS = {
    *("b64decode", "b32decode", "b16decode", "b85decode", "a85decode", "urlsafe_b64decode"),
    *(
        "decodebytes",
        "decompress",
        "unhexlify",
        "fromhex",
        "a2b_base64",
        "rot13",
        "rot_13",
        "marshal",
    ),
}
MAX_WRITTEN = 10_000  # files that are remembered
MAX_CALLS_DEEP, MAX_CODES_READ = 3, 300  # of functions that call functions, in search of a decoder
# These execute what they are given; what the rest of the library compiles, it has written itself.
RUNNERS = {
    f"{LIBRARY}{name}.py"
    for name in (
        *("ast", "bdb", "code", "codeop", "cProfile"),
        *("doctest", "importlib/abc", "pdb", "profile", "timeit", "trace"),
    )
}


def is_foreign_file(name: str) -> bool:
    return not name.startswith(TRUSTED)


def is_foreign(frame: FrameType) -> bool:
    return is_foreign_file(frame.f_code.co_filename)


def nearest_foreign(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of code that is none of the machinery's."""
    while frame and not is_foreign(frame):
        frame = frame.f_back
    return frame


def called_by_nobody(frame: FrameType) -> FrameType | None:
    """The function of the library that began all this, in a thread, for a signal, or at the end.

    A package may have asked for it long ago.
    """
    while frame.f_back:
        frame = frame.f_back
    is_program = frame.f_code.co_name == "<module>"
    is_import_system = frame.f_code.co_filename.startswith("<frozen")
    return None if is_program or is_import_system else frame


def program_of(frame: FrameType | None) -> FrameType | None:
    """The program, where all of it is the machinery's (`python -m pip`); None in the launcher."""
    outermost = frame
    while frame:
        if not frame.f_code.co_filename.startswith("<frozen"):
            outermost = frame
        frame = frame.f_back
    is_own = outermost is None or outermost.f_code.co_filename.startswith(INSIDE)
    return None if is_own else outermost


def place(frame: FrameType) -> str:
    """File and line; for code that has no file those of the code that it came from, too."""
    inner = ""
    while True:
        name, caller = frame.f_code.co_filename, frame.f_back
        if not name.startswith("<") or not caller:
            break
        # A line of a .pth file, which site executes.
        if caller.f_code.co_name == "addpackage":
            name = str(caller.f_locals.get("fullname"))
            break
        # setup.py, which setuptools executes as a string.
        is_module = frame.f_code.co_name == "<module>"
        by_setuptools = "/setuptools/" in caller.f_code.co_filename
        in_setup = str(frame.f_globals.get("__file__")).endswith("/setup.py")
        if in_setup and (by_setuptools or not is_module):
            name = "setup.py"
            break
        inner = inner or f"{name}:{frame.f_lineno} from "
        outer = nearest_foreign(caller)
        if not outer:
            return inner.removesuffix(" from ")
        frame = outer
    return f"{inner}{name}:{frame.f_lineno}"


def is_runner(frame: FrameType, runners: list[FrameType]) -> bool:
    """Whether it executes what it is given. The import system stands between a module's loader,
    which gives it the text, and who imports.
    """
    name = frame.f_code.co_filename
    return name in RUNNERS or (bool(runners) and name.startswith("<frozen importlib"))


def who_compiles(direct: FrameType) -> tuple[FrameType | None, list[FrameType]]:
    """Whose text is compiled: that of who called, or gave it to runners, which come second.

    None if the library has written it.
    """
    frame: FrameType | None = direct
    runners: list[FrameType] = []
    while frame and is_runner(frame, runners):
        if frame.f_code.co_name == "literal_eval":  # it executes nothing
            return None, []
        runners.append(frame)
        frame = frame.f_back
    return (frame, runners) if frame and is_foreign(frame) else (None, [])


def words(code: CodeType) -> set[str]:
    return {*code.co_names, *(const for const in code.co_consts if isinstance(const, str))}


def nameless(code: CodeType) -> list[CodeType]:
    """The lambdas and comprehensions in it."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return [item for item in inner if item.co_name.startswith("<")]


def is_function(value: Any) -> bool:
    return type(value) is FunctionType


def functions(value: Any, names: tuple[str, ...]) -> list[Any]:
    """What of a variable's value may decode: of a class or a module what is called by one of
    `names`.

    No code of the package runs when it is looked at.
    """
    kind = type(value)
    if kind in (FunctionType, BuiltinFunctionType):
        return [value]
    if kind is MethodType:
        return [value.__func__]
    members: Any = {}
    if isinstance(value, type):
        members = type.__dict__["__dict__"].__get__(value)
    elif kind is ModuleType:
        members = value.__dict__
    return [members[name] for name in names if is_function(members.get(name))]


def reaches_decoder(frame: FrameType) -> bool:
    """Whether the code of `frame` names a decoder, or a function that does, and so on."""
    return is_decoder_near([(frame.f_code, {**frame.f_globals, **frame.f_locals})])


def has_decoder(loader: Any) -> bool:
    """The same, of the methods of a module's loader that is the package's own."""
    known: list[tuple[CodeType, dict[str, Any]]] = []
    for kind in type(loader).__mro__:
        for method in type.__dict__["__dict__"].__get__(kind).values():
            if is_function(method) and is_foreign_file(method.__code__.co_filename):
                known.append((method.__code__, method.__globals__))
    return is_decoder_near(known)


def is_decoder_near(level: list[tuple[CodeType, dict[str, Any]]]) -> bool:
    """Whether code, each with the variables that it knows, names a decoder, or a function that
    does, and so on.
    """
    seen: set[CodeType] = set()
    for _ in range(MAX_CALLS_DEEP):
        callees: list[tuple[CodeType, dict[str, Any]]] = []
        for code, variables in level:
            if code in seen or len(seen) > MAX_CODES_READ:
                continue
            seen.add(code)
            if not DECODERS.isdisjoint(words(code)):
                return True
            callees += [(inner, variables) for inner in nameless(code)]
            for name in (*code.co_names, *code.co_varnames, *code.co_freevars):
                for function in functions(variables.get(name), code.co_names):
                    if function.__name__ in DECODERS:
                        return True
                    if is_function(function) and is_foreign_file(function.__code__.co_filename):
                        callees.append((function.__code__, function.__globals__))
        level = callees
    return False


def lines(text: Any) -> set[str]:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return {line.strip() for line in text.split("\n")} if isinstance(text, str) else set()


def readable_lines(code: CodeType) -> set[str]:
    """The lines of the texts that stand in it, and those that say nothing."""
    known = {"", "pass"}
    for const in code.co_consts:
        known |= lines(const)
    return known


def without_fields(text: str) -> str:
    """`def inner(_it, _timer{init}):` without `{init}`, and the like."""
    start, *others = text.split("{")
    for other in others:
        name, end, rest = other.partition("}")
        is_field = end and name.replace("_", "a").isalnum()
        start += rest if is_field else "{" + other
    return start


def is_literal(frame: FrameType, runners: list[FrameType], source: bytes) -> bool:
    """Whether a person can read each line of `source` in the code that executes it, or in what the
    runners put around it.
    """
    known = readable_lines(frame.f_code)
    for runner in runners:
        for value in runner.f_globals.values():
            if isinstance(value, str):
                known |= lines(without_fields(value))
    return lines(source) <= known


def is_decoded(frame: FrameType, runners: list[FrameType], source: bytes) -> bool:
    """Whether who executes `source`, or the generated code that does so itself, decodes: and not
    only what is there to be read.
    """
    if is_literal(frame, runners, source):
        return False
    if any(has_decoder(runner.f_locals.get("self")) for runner in runners):
        return True
    return decodes(frame)


def decodes(frame: FrameType) -> bool:
    """Whether this code, or if it was generated the code that executes it, reaches a decoder."""
    asker: FrameType | None = frame
    # The machinery that executes a .pth file ends in this file, which has the words of all
    # decoders.
    while asker and not asker.f_code.co_filename.startswith(INSIDE):
        if reaches_decoder(asker):
            return True
        asker = asker.f_back if asker.f_code.co_filename.startswith("<") else None
    return False


class Written:
    """The files that code of this process wrote, and whether that code decodes: what is decoded
    into a file, and imported or run from there, is executed no less.
    """

    def __init__(self) -> None:
        self.writers: dict[str, tuple[CodeType, bool]] = {}

    def note(self, path: str, frame: FrameType) -> None:
        """The code of `frame` opens it to write."""
        if len(self.writers) < MAX_WRITTEN:
            self.writers[path] = (frame.f_code, decodes(frame))

    def move(self, old: str, new: str) -> None:
        if old in self.writers:
            self.writers[new] = self.writers[old]

    def has(self, path: str) -> bool:
        """Whether code of this process wrote it."""
        return bool(self.writers) and absolute(path) in self.writers

    def is_decoded(self, path: str, source: bytes, frame: FrameType) -> bool:
        """Whether the code that wrote it, or that of `frame` which runs it, decodes: and not only
        what is there to be read.
        """
        if path not in self.writers:
            return False
        code, has_decoded = self.writers[path]
        if lines(source) <= readable_lines(code) | readable_lines(frame.f_code):
            return False
        return has_decoded or decodes(frame)
