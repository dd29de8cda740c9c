"""Made-up values: what a function is called with that nobody told us how to call."""

import enum
import inspect
import io
import os
import re
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any, Literal

from jail.inside.library import kernel_name

# Drawn anew in each interpreter, and named after the host, which is drawn for the run: a value that
# is always the same would tell a function who calls it.
DOMAIN = f"{kernel_name().nodename.lower()}.com"
URL = f"https://api.{DOMAIN}/v1/items"
HEX_KEY = f"0x{os.urandom(32).hex()}"
TOKEN = f"tk_live_{os.urandom(10).hex()}"
MADE_UP_WORDS = [
    "alpha",
    "books",
    "charlie",
    "daily",
    "eagle",
    "forest",
    "garden",
    "harbor",
    "island",
    "jupiter",
    "kitchen",
    "lemon",
]
MADE_UP_WORD = MADE_UP_WORDS[os.urandom(1)[0] % len(MADE_UP_WORDS)]
# By the name of a parameter, the first that fits.
BY_NAME: tuple[tuple[str, Any], ...] = (
    (r"url|uri|endpoint|webhook|link|href|origin|proxy", URL),
    (r"host|domain|server|fqdn", f"api.{DOMAIN}"),
    (r"ip|ip_?addr(ess)?", "203.0.113.7"),
    (r"port", 8080),
    (r"priv(ate)?_?key|secret_?key|mnemonic|seed|pk|wallet", HEX_KEY),
    (r"token|api_?key|secret|password|passwd|pass_?word|auth|credentials?|key|license", TOKEN),
    (r"user(_?name)?|login|account|owner|author", "dev"),
    (r"e?mail|recipient|sender", f"dev@{DOMAIN}"),
    (r"dir|directory|folder|root|prefix|cwd|workdir|dest(ination)?|target_?dir", "FOLDER"),
    (r"(in|out)?(put)?_?(path|file|filename|file_?name|filepath|fname|src|source)s?", "FILE"),
    (r"(in|out)?_?(put_)?(stream|fp|fh|f|reader|writer|file_?obj(ect)?|io)", "STREAM"),
    (r"count|n|num|number|size|length|limit|index|idx|i|id|timeout|seconds|width|height", 1),
    (r"verbose|debug|force|flag|is_\w+|has_\w+|enabled?", True),
    (r"json|payload_?json", f'{{"name": "{MADE_UP_WORD}"}}'),
    (r"code|source_?code|script|expr(ession)?", "1 + 1"),
    (r"cmd|command", "true"),
    (r"args|argv|items|values|list|lines|rows|words", [MADE_UP_WORD]),
    (r"kwargs|options|opts|config|settings|params|headers|env|mapping|meta(data)?", {}),
    (r"callback|func(tion)?|fn|handler|predicate|factory|hook", "CALLABLE"),
    (r"bytes|buf(fer)?|blob|raw", MADE_UP_WORD.encode()),
    (
        r"text|msg|message|string|s|data|content|body|name|title|label|value|query|line",
        MADE_UP_WORD,
    ),
)
# By what an annotation says, the first that fits.
BY_ANNOTATION: tuple[tuple[str, Any], ...] = (
    (r"Callable", "CALLABLE"),
    (r"dict|Dict|Mapping|MutableMapping", {}),
    (r"list|List|Sequence|Iterable|Collection|tuple|Tuple|Iterator", [MADE_UP_WORD]),
    (r"set|Set|frozenset", {MADE_UP_WORD}),
    (r"str|AnyStr|Text", None),  # a text: its name says which
    (r"Path(Like)?", "PATH"),
    (r"bytes|bytearray|Buffer", MADE_UP_WORD.encode()),
    (r"datetime", "NOW"),
    (r"bool", True),
    (r"int|Integral", 1),
    (r"float|Real|Decimal", 1.0),
)
MAX_PARAMETERS = 30
WRITTEN_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class Mock:
    """Has every attribute, can be called, compared, counted, awaited, and does nothing."""

    def __init__(self, name: str = "mock", kind: type | None = None) -> None:
        self.__dict__["_name"] = name
        self.__dict__["_kind"] = kind or Mock

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """For isinstance(): who wants an object of a class of his own gets it."""
        return self.__dict__["_kind"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = self.__dict__[name] = Mock(f"{self._name}.{name}")
        return made

    def __setattr__(self, name: str, value: object) -> None:
        self.__dict__[name] = value

    def __call__(self, *_args: Any, **_keywords: Any) -> Any:
        return Mock(f"{self._name}()")

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def __str__(self) -> str:
        return MADE_UP_WORD

    def __fspath__(self) -> str:
        return MADE_UP_WORD

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def __int__(self) -> int:
        return 1

    __index__ = __int__

    def __float__(self) -> float:
        return 1.0

    def __contains__(self, _item: object) -> bool:
        return False

    def __getitem__(self, key: object) -> Any:
        # An end, for who counts until there is none.
        if isinstance(key, int) and key > 0:
            raise IndexError(key)
        return Mock(f"{self._name}[]")

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def __await__(self) -> Iterator[Any]:
        return iter(())

    def __lt__(self, _other: object) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def _other(self, *_args: object) -> Any:
        return Mock(self._name)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _other
    __truediv__ = __floordiv__ = __mod__ = __and__ = __or__ = __xor__ = __neg__ = __invert__ = (
        __lshift__
    ) = __rshift__ = _other


class Samples:
    """A folder with a file in it for whoever asks for a file: nothing in it is bait."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.file = f"{folder}/notes.txt"
        os.makedirs(folder, exist_ok=True)
        with open(self.file, "w") as file:
            file.write(f"{MADE_UP_WORD}\n")

    def value(self, said: Any) -> Any:
        """What a word of the tables stands for."""
        if said == "FOLDER":
            return self.folder
        if said == "FILE":
            return self.file
        if said == "STREAM":
            return io.StringIO(f"{MADE_UP_WORD}\n")
        if said == "CALLABLE":
            return Mock("callback")
        if said == "PATH":
            import pathlib

            return pathlib.Path(self.file)
        if said == "NOW":
            import datetime

            return datetime.datetime.now()
        return type(said)(said) if isinstance(said, list | dict | set) else said

    def for_parameter(self, name: str, annotation: Any) -> Any:
        """A value by annotation and name, a mock where neither says anything."""
        told = "" if annotation is inspect.Parameter.empty else annotation_text(annotation)
        offered = choices(annotation)
        if offered:
            return offered[0]
        words = set(re.findall(r"\w+", told))
        for pattern, said in BY_ANNOTATION:
            if any(re.fullmatch(pattern, word) for word in words):
                if said is None:
                    break
                return self.value(said)
        kind = written_class(annotation) if told else None
        if kind:
            return Mock(name, kind)
        by_name = self.by_name(name.lower().strip("_"))
        if told and isinstance(by_name, str) != ("str" in words):
            return MADE_UP_WORD if "str" in words else Mock(name)
        return Mock(name) if by_name is None else by_name

    def by_name(self, name: str) -> Any:
        """A value by the whole name, or by its last word; None if it says nothing."""
        for wanted in (name, name.rpartition("_")[2]):
            for pattern, said in BY_NAME:
                if re.fullmatch(pattern, wanted):
                    return self.value(said)
        return None


def choices(annotation: Any) -> list[Any]:
    """What an annotation lists: the values of a Literal, the members of an enum."""
    try:
        if isinstance(annotation, enum.EnumMeta):
            return [*annotation]
        return [*typing.get_args(annotation)] if typing.get_origin(annotation) is Literal else []
    # Whatever an object of the package says when it is looked at.
    except Exception:
        return []


def written_class(annotation: Any) -> type | None:
    """The class that an annotation is, if it was written in Python: of a class in C a mock
    would be taken for what it can't be.
    """
    is_class = isinstance(annotation, type)
    return annotation if is_class and annotation.__flags__ & WRITTEN_IN_PYTHON else None


def annotation_text(annotation: Any) -> str:
    """An annotation as it is written."""
    if isinstance(annotation, str):
        return annotation
    try:
        return annotation.__name__ if type(annotation) is type else repr(annotation)
    # Whatever an object of the package says when it is to be shown.
    except Exception:
        return ""


def plain_twin(function: FunctionType) -> FunctionType:
    """A function with the same code, of which nobody can say that it takes other arguments."""
    twin = FunctionType(
        function.__code__, {}, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    with suppress(Exception):  # some are only made when somebody asks
        twin.__annotations__ = function.__annotations__
    return twin


def takes_any(function: Any) -> tuple[bool, bool]:
    """Whether a function takes any number of arguments, and any names, whatever it says."""
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return bool(flags & inspect.CO_VARARGS), bool(flags & inspect.CO_VARKEYWORDS)


def parameters_of(function: Any) -> list[inspect.Parameter]:
    """What it takes. A function that takes what it names is asked itself, for what it says of
    itself (`__signature__`, `__wrapped__`) need not be so; of a function that hands
    all on counts what it says.

    Raises:
        ValueError, TypeError: it does not say what it takes.
    """
    if isinstance(function, MethodType) and function.__self__ is not None:
        return parameters_of(function.__func__)[1:]
    if type(function) is FunctionType and not takes_any(function)[0]:
        return [*inspect.signature(plain_twin(function)).parameters.values()]
    try:
        return [*inspect.signature(function).parameters.values()]
    # Whatever it is made to raise when it is asked.
    except Exception:
        if type(function) is FunctionType:
            return [*inspect.signature(plain_twin(function)).parameters.values()]
        maker = inspect.getattr_static(function, "__init__", None)
        if not isinstance(function, type) or type(maker) is not FunctionType:
            raise
        return parameters_of(maker)[1:]


def arguments(
    function: Callable[..., Any], samples: Samples, skip: int = 0
) -> tuple[list[Any], dict[str, Any]]:
    """What to call `function` with: only what has no default is given.

    Args:
        skip: parameters at the start that the caller gives.

    Raises:
        ValueError, TypeError: it does not say what it takes.
    """
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in parameters_of(function)[skip:][:MAX_PARAMETERS]:
        if parameter.default is not parameter.empty:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = samples.for_parameter(parameter.name, parameter.annotation)
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = value
        else:
            positional.append(value)
    return positional, keywords
