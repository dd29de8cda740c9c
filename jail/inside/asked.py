"""By which calls code asks for another project, whether it is there or for its version, and for
which one.
"""

import ast
import re
from collections.abc import Callable

from jail.inside.rest import IMPORT_CALL, run_in

# These are false where there is no module of that name.
ASKED_WHETHER = re.compile(
    r"(?:importlib\.(?:util\.)?|pkgutil\.|imp\.)?(?:find_spec|find_loader|find_module)"
    r"|sys\.modules\.get"
)
# These raise where there is no project of that name: `importlib.metadata.version("numpy")`.
ASKED_VERSION = re.compile(
    r"importlib[._]metadata\.(?:version|distribution|metadata|requires|files)"
    r"|importlib[._]metadata\.Distribution\.from_name"
    r"|pkg_resources\.(?:get_distribution|require|get_provider)"
)
# What is there, all of it: `"numpy" in packages_distributions()`.
ALL_THERE = re.compile(
    r"importlib[._]metadata\.(?:packages_distributions|distributions|Distribution\.discover)"
    r"|pkgutil\.(?:iter_modules|walk_packages)|pkg_resources\.(?:working_set|iter_entry_points)"
)
# `numpy>=1.20`
REQUIREMENT_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class AskedProjects:
    """What a file asks for.

    Args:
        name_of: a dotted name, with its first part as it was imported.
        missing: the project that a module is in, if it is not there; "" if it is.
        absent: the same of a project, by its own name.
    """

    def __init__(
        self,
        name_of: Callable[[ast.AST], str],
        missing: Callable[[str], str],
        absent: Callable[[str], str],
    ) -> None:
        self.name_of, self.missing, self.absent = name_of, missing, absent
        self.texts: dict[str, list[str]] = {}  # of variables
        self.lists: set[str] = set()  # variables that hold what is there
        # The file's own functions that ask for what they are given, and whether they raise.
        self.askers: dict[str, tuple[str, bool]] = {}

    def note_function(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """`def has(name): return find_spec(name) is not None`"""
        first = function.args.args[-1:] if len(function.args.args) == 1 else []
        nodes = [*ast.walk(function)] if first else []
        is_caught = any(isinstance(node, ast.Try) for node in nodes)
        for node in nodes:
            match node:
                case ast.Call(func, [ast.Name(name), *_]) if name == first[0].arg:
                    kind = self.kind_of(self.name_of(func))
                    if kind:
                        self.askers[function.name] = kind, kind != "whether" and not is_caught

    def note(self, target: ast.AST | None, value: ast.AST | None) -> None:
        """A variable that holds names: `NAMES = ("numpy", "scipy")`, `for name in NAMES:`."""
        if isinstance(target, ast.Name):
            self.texts[target.id] = self.texts_of(value)
            if self.is_list(value):
                self.lists.add(target.id)

    def texts_of(self, value: ast.AST | None) -> list[str]:
        match value:
            case ast.Constant(str(text)):
                return [text]
            case ast.Name(name):
                return self.texts.get(name, [])
            case ast.Tuple(parts) | ast.List(parts) | ast.Set(parts):
                return [text for part in parts for text in self.texts_of(part)]
            case ast.Dict(keys):
                return [text for part in keys for text in self.texts_of(part)]
        return []

    def kind_of(self, name: str) -> str:
        """How a function asks, by its name; "" if it does not."""
        if ASKED_WHETHER.fullmatch(name):
            return "whether"
        if ASKED_VERSION.fullmatch(name):
            return "version"
        return "import" if IMPORT_CALL.fullmatch(name) else ""

    def first_unmet(self, texts: list[str], kind: str) -> str:
        """The first of these names that is not there."""
        if kind != "version":
            return next(filter(None, map(self.missing, texts)), "")
        names = [found[0] for found in map(REQUIREMENT_NAME.match, texts) if found]
        return next(filter(None, map(self.absent, names)), "")

    def whether(self, call: ast.Call) -> str:
        """What is not there if a call is false for want of it."""
        name = self.name_of(call.func)
        kind, is_raised = self.askers.get(name, (self.kind_of(name), False))
        is_asked = kind == "whether" or (name in self.askers and not is_raised)
        return self.first_unmet(self.texts_of(call.args[0]), kind) if is_asked and call.args else ""

    def is_list(self, value: ast.AST | None) -> bool:
        """Whether it holds what is there: `{item.name for item in distributions()}`"""
        parts = [*ast.walk(value)] if value else []
        names = [self.name_of(part) for part in parts if isinstance(part, ast.Name | ast.Attribute)]
        return any(name in self.lists or ALL_THERE.fullmatch(name) for name in names)

    def among(self, wanted: ast.AST, there: ast.AST) -> str:
        """What is not there of `wanted`: by the name of a module, or of a project."""
        texts = self.texts_of(wanted) if self.is_list(there) else []
        return self.first_unmet([text for text in texts if self.missing(text)], "version")

    def listed(self, call: ast.Call) -> str:
        """What is not there and is looked for in a list of all that is:
        `any(item.name == "numpy" for item in distributions())`, `packages_distributions().get("x")`
        """
        found = [self.among(part, call.func) for part in call.args]
        for node in ast.walk(call):
            if isinstance(node, ast.Compare):
                found += [self.among(part, call) for part in (node.left, *node.comparators)]
        return next(filter(None, found), "")

    def raising(self, node: ast.AST) -> str:
        """What is not there if code raises for want of it: `importlib.import_module("numpy")`."""
        for call in run_in([node]):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = self.name_of(call.func)
            kind, is_raised = self.askers.get(name, (self.kind_of(name), True))
            if kind and kind != "whether" and is_raised:
                project = self.first_unmet(self.texts_of(call.args[0]), kind)
                if project:
                    return project
        return ""
