"""Looks in the source for acts behind a condition: on the date, the system, CI, the command line.
No other trigger may be able to make them true.

Runs no code of the package, in a child of the launcher, which has none of its files on the path.
"""

import ast
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence

from jail.inside.conditions import (
    CI_NAMES,
    ENVIRONMENT_NAMES,
    GATES,
    PLACES,
    RAISES_WITHOUT,
    SECRET_PLACES,
    THERE,
    WAITING_WORDS,
)
from jail.inside.ending import How, Teller, now_sec
from jail.inside.sources import code_in, files_of, start_of
from jail.inside.versions import version_test
from jail.inside.words import read_names

MAX_LOOK_SEC = 4.0
MAX_GATES = 30
MAX_ACT_CHARS = 120
MAX_TEXT_DEPTH = 2  # of code in a text in code

# What an act is, by the name that is called: what starts, sends, decodes, destroys.
ACT_NAMES = re.compile(
    r"(?:exec|eval|__import__|os\.(?:system|popen|exec\w+|spawn\w+|posix_spawn\w*|startfile)"
    r"|(?:.*\.)?(?:Popen|check_output|check_call|getoutput|urlopen|urlretrieve|create_connection)"
    r"|subprocess\.(?:run|call)|(?:requests|httpx|session)\.(?:get|post|put|request)"
    r"|socket\.(?:socket|gethostbyname|getaddrinfo)|(?:base64\.)?\w*b64decode|marshal\.loads"
    r"|zlib\.decompress|bytes\.fromhex|pickle\.loads|ctypes\.windll\..*|shutil\.rmtree)"
)
# What is only named to be taken: `~/.aws/credentials`, "Login Data".
SECRETS = re.compile(
    r"\.ssh\b|id_rsa|\.aws\b|\.pypirc|\.npmrc|\.git-credentials|Login Data|wallet|\.docker/config"
    r"|\.kube/config|\.netrc|(?:^|[\"'/\\])Cookies(?:$|[\"'])"
)
# A file without any of these does nothing that counts, and is not parsed: `os.system("id")`.
ACTING_WORDS = re.compile(
    rb"exec|eval\(|__import__|\bos\b|Popen|check_|getoutput|urlopen|urlretrieve|_connection"
    rb"|subprocess|requests|httpx|session|socket|b64decode|marshal|decompress|fromhex|pickle|windll"
    rb"|rmtree|ssh|id_rsa|\.aws|pypirc|npmrc|credentials|Login|wallet|docker|kube|netrc|Cookies"
)


def dotted(node: ast.AST) -> str:
    """`os.environ.get` of an expression, "" of what is no name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Call) and not parts:
        return dotted(node.func)
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def names_store(node: ast.AST) -> bool:
    """Whether a text says where people keep their secrets."""
    match node:
        case ast.Constant(value=str(text)):
            return SECRET_PLACES.search(text) is not None
    return False


class SourceFile:
    """One file: what in it is behind a condition."""

    def __init__(self, tree: ast.Module, there: Collection[str] | None = None) -> None:
        self.there = there
        self.nodes = [*ast.walk(tree)]
        self.full: dict[str, str] = {}  # `dt` of `from datetime import datetime as dt`
        self.waiting: dict[str, str] = {}  # variables and functions that say what is waited for
        self.acting: dict[str, str] = {}  # functions that act
        self.stores: set[str] = set()  # variables that name where others keep their secrets
        for node in self.nodes:
            self.note_names(node)
        for node in self.nodes:
            self.note_meaning(node)

    def note_names(self, node: ast.AST) -> None:
        """What imported names stand for."""
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self.full[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    self.full[alias.asname] = alias.name

    def note_meaning(self, node: ast.AST) -> None:
        """A variable that holds what is waited for, a function that acts."""
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            kind, name = self.waits_for(node.value), node.targets[0].id
            if kind:
                self.waiting[name] = kind
            elif any(map(names_store, ast.walk(node.value))):
                self.stores.add(name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            act = self.act_in(node.body)
            if act:
                self.acting[node.name] = act
            asked = [part.value for part in node.body if isinstance(part, ast.Return)]
            kind = self.waits_for(asked[0]) if asked and asked[0] else ""
            if kind:
                self.waiting[node.name] = kind

    def name_of(self, node: ast.AST) -> str:
        """A dotted name with its first part as it was imported."""
        first, dot, rest = dotted(node).partition(".")
        return f"{self.full.get(first, first)}{dot}{rest}"

    def waits_for(self, test: ast.expr) -> str:
        """What a condition waits for, "" if it is none of ours."""
        nodes = [*ast.walk(test)]
        texts = [str(node.value) for node in nodes if isinstance(node, ast.Constant)]
        asked = [self.name_of(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name)]
        if any(map(ENVIRONMENT_NAMES.fullmatch, asked)) and any(map(CI_NAMES.fullmatch, texts)):
            return "CI"
        for node in nodes:
            is_look = isinstance(node, ast.Call) and THERE.fullmatch(self.asked_name(node.func))
            if is_look and self.has_place(node):
                return "files"
            name = self.asked_name(node)
            if name in self.waiting:
                return self.waiting[name]
            for kind, pattern in GATES if name else ():
                if pattern.fullmatch(name):
                    return kind
            if name == "__name__" and "__main__" in texts:
                return "run as a program"
        return ""

    def asked_name(self, node: ast.AST) -> str:
        """The name that is asked for: also `sys.ps1` of `hasattr(sys, "ps1")`."""
        match node:
            case ast.Attribute(attr=last):
                return self.name_of(node) or last
            case ast.Name():
                return self.name_of(node)
            case ast.Call(ast.Name("hasattr" | "getattr"), [owner, ast.Constant(str(name)), *_]):
                return f"{self.name_of(owner)}.{name}"
        return ""

    def has_place(self, call: ast.AST) -> bool:
        """Whether it names a place of the machine, as it is written."""
        for node in ast.walk(call):
            if isinstance(node, ast.Constant) and str(node.value).startswith(PLACES):
                return True
            if isinstance(node, ast.Attribute) and self.name_of(node).endswith("Path.home"):
                return True
            if names_store(node) or (isinstance(node, ast.Name) and node.id in self.stores):
                return True
        return False

    def raises_without(self, statement: ast.AST) -> str:
        """What a statement waits for that raises where it is not so, as in `os.environ["X"]`."""
        if isinstance(statement, ast.Assert):
            return self.waits_for(statement.test)
        if not isinstance(statement, ast.Expr | ast.Assign | ast.AnnAssign):
            return ""
        for node in ast.walk(statement):
            if isinstance(node, ast.Subscript) and ENVIRONMENT_NAMES.fullmatch(
                self.name_of(node.value)
            ):
                return self.waits_for(node) or "environment"
            is_opened = isinstance(node, ast.Call) and self.name_of(node.func) == "open"
            if is_opened and self.has_place(node):
                return "files"
            name = self.asked_name(node)
            for kind, pattern in RAISES_WITHOUT:
                if pattern.fullmatch(name):
                    return kind
        return ""

    def act_in(self, body: Sequence[ast.AST]) -> str:
        """The first act in some code as it is written, "" if there is none."""
        for statement in body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    name = self.name_of(node.func)
                    if ACT_NAMES.fullmatch(name) or name in self.acting:
                        return ast.unparse(node)[:MAX_ACT_CHARS]
                elif isinstance(node, ast.Constant) and SECRETS.search(str(node.value)):
                    return repr(node.value)[:MAX_ACT_CHARS]
        return ""

    def gates(self) -> Iterator[tuple[str, int, str]]:
        """What is waited for, its line, and the act."""
        for node in self.nodes:
            if isinstance(node, ast.If | ast.While):
                yield from self.found(node.test, self.waiting_in(node.test, node.body, node.orelse))
            elif isinstance(node, ast.IfExp):
                waiting = self.waiting_in(node.test, [node.body], [node.orelse])
                yield from self.found(node.test, waiting)
            elif isinstance(node, ast.Try):
                yield from self.after_missing(node.body)
                yield from self.after_asking([*node.body, *node.orelse])
            elif isinstance(node, ast.With):
                yield from self.after_asking(node.body)
            elif isinstance(node, ast.Match):
                for case in node.cases:
                    yield from self.found(node.subject, case.body)
                    yield from self.found(case.guard, case.body) if case.guard else ()
            elif isinstance(node, ast.BoolOp):
                for number, value in enumerate(node.values[:-1]):
                    yield from self.found(value, node.values[number + 1 :])
            yield from self.early_ends(getattr(node, "body", None))

    def after_missing(self, body: Sequence[ast.stmt]) -> Iterator[tuple[str, int, str]]:
        """`try: import numpy`, which is not there, and what would have come after that."""
        for number, statement in enumerate(body):
            if self.there is None or not isinstance(statement, ast.Import | ast.ImportFrom):
                continue
            names = [alias.name for alias in statement.names]
            if isinstance(statement, ast.ImportFrom):
                names = ["os" if statement.level else str(statement.module)]
            tops = {name.partition(".")[0] for name in names}
            act = "" if tops <= {*self.there} else self.act_in(body[number + 1 :])
            if act:
                yield "other projects", statement.lineno, act
                return

    def after_asking(self, body: Sequence[ast.stmt]) -> Iterator[tuple[str, int, str]]:
        """`try: os.environ["X"]`, and what comes after that."""
        for number, statement in enumerate(body[:-1]):
            kind = self.raises_without(statement)
            act = self.act_in(body[number + 1 :]) if kind else ""
            if act:
                yield kind, statement.lineno, act
                return

    def waiting_in(
        self, test: ast.expr, body: Sequence[ast.AST], orelse: Sequence[ast.AST]
    ) -> Sequence[ast.AST]:
        """What of both branches was not run: of a condition on the Python version it is known."""
        is_true = version_test(test, self.name_of)
        if is_true is None:
            return [*body, *orelse]
        return orelse if is_true else body

    def found(self, test: ast.expr, body: Sequence[ast.AST]) -> Iterator[tuple[str, int, str]]:
        """The gate that a condition is for what stands behind it, if both are of ours."""
        kind = self.waits_for(test)
        act = self.act_in(body) if kind else ""
        if act:
            yield kind, test.lineno, act

    def early_ends(self, body: object) -> Iterator[tuple[str, int, str]]:
        """`if not it_is_time: return`, and what comes after."""
        if not isinstance(body, list):
            return
        for number, statement in enumerate(body[:-1]):
            if not isinstance(statement, ast.If) or not is_end(statement.body):
                continue
            # Where it does not leave on this Python, what comes after was run.
            if version_test(statement.test, self.name_of) is not False:
                yield from self.found(statement.test, body[number + 1 :])


def is_end(body: list[ast.stmt]) -> bool:
    """Whether code leaves the function or the program."""
    last = body[-1]
    if isinstance(last, ast.Return | ast.Raise):
        return True
    return isinstance(last, ast.Expr) and dotted(last.value).endswith("exit")


def texts_in(nodes: list[ast.AST]) -> Iterator[str]:
    """The code in texts that the code executes: `exec("...")`."""
    for node in nodes:
        if isinstance(node, ast.Call) and dotted(node.func) in ("exec", "eval") and node.args:
            text = node.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield text.value


def gates_of(
    text: str, depth: int = 0, there: Collection[str] | None = None
) -> Iterator[tuple[str, int, str]]:
    """The gates in some source; `there`: the top-level modules that can be imported."""
    try:
        tree = ast.parse(text)
        source = SourceFile(tree, there)
        yield from source.gates()
        inner = [*texts_in(source.nodes)] if depth < MAX_TEXT_DEPTH else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for text_inside in inner:
        for kind, _, act in gates_of(text_inside, depth + 1):
            yield kind, 1, act


def read_source(path: str) -> str:
    """The start of a file, if it can have a gate; of a .pth file what is executed."""
    data = start_of(path)
    is_gated = WAITING_WORDS.search(data) and ACTING_WORDS.search(data)
    return code_in(path, data) if is_gated else ""


def tell_gates(path: str, site: str, words: Sequence[str]) -> None:
    """Tell them.

    Args:
        path: the file for what is told.
        site: the site-packages of the installation.
        words: names as for imports.py.
    """
    teller = Teller(path)
    deadline_sec = now_sec() + MAX_LOOK_SEC
    told: set[tuple[str, str, int]] = set()
    untold: set[tuple[str, str, int]] = set()
    there = {name.partition(".")[0] for name in (os.listdir(site) if os.path.isdir(site) else ())}
    there |= sys.stdlib_module_names
    for file in dict.fromkeys(files_of(site, read_names(words))):
        if now_sec() > deadline_sec:
            teller.tell("ended", "", how=How.NOT_RUN, text="the look for conditions, in part")
            return
        for kind, line, act in gates_of(read_source(file), there=there):
            key = (kind, file, line)
            if len(told) >= MAX_GATES and key not in told:
                untold.add(key)
            elif key not in told:
                told.add(key)
                teller.tell("gated", kind, text=act, at=f"{file}:{line}")
    if untold:
        text = f"{len(untold)} more acts are behind conditions than the {MAX_GATES} that are told"
        teller.tell("gated", "", text=text)
