"""Looks in the source for acts that an import runs only on a condition which maybe none of our
victims meets: a variable of the environment, a file, luck, or what nobody knows. Those on the
system, on CI, on the date and on another project are brought about by other triggers.

Runs no code of the package, as unmet.py.
"""

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from jail.inside.branches import AT_ONCE
from jail.inside.conditions import CI_NAMES, ENVIRONMENT_NAMES
from jail.inside.gates import ACT_NAMES, MAX_ACT_CHARS, SECRETS, SourceFile, is_end
from jail.inside.rest import IMPORT_CALL, run_in
from jail.inside.sources import start_of
from jail.inside.statements import NamesInFile, caught_by, tree_of
from jail.inside.versions import version_test

MET_ELSEWHERE = {"system", "CI", "date", "Python version", "run as a program", "other projects"}
UNKNOWN = "that is not known"
# A file without any of these holds no act: most are not parsed. Each is looked for by itself: among
# all at once, it takes many times as long.
HELD_WORDS = (
    *(b"exec", b"eval(", b"__import__", b"system(", b"popen(", b"Popen(", b"spawn", b"startfile"),
    *(
        b"check_output(",
        b"check_call(",
        b"getoutput(",
        b"subprocess.",
        b"urlopen(",
        b"urlretrieve(",
    ),
    *(b"create_connection(", b"requests.", b"httpx.", b"session.", b"socket.", b"b64decode"),
    *(b"marshal.", b"zlib.", b"fromhex(", b"pickle.", b"windll", b"rmtree", b".ssh", b"id_rsa"),
    *(b".aws", b".pypirc", b".npmrc", b"git-cred", b"Login", b"wallet", b".docker", b".kube"),
    *(b".netrc", b"Cookies", b"getattr(os", b"getattr(sub", b"getattr(soc", b"getattr(bui"),
    *(b"getattr(__",),
)
# What of these is an act, and no word of a comment: to parse a file takes a hundred times as long.
HELD_ACT = re.compile(
    rb"\b(?:exec|eval|__import__|system|popen|exec[lv]\w*|\w*spawn\w*|startfile|Popen|check_output"
    rb"|check_call|getoutput|urlopen|urlretrieve|create_connection|\w*b64decode|fromhex|rmtree)"
    rb"\s*\(|\b(?:import|from)\b[^#\n]*\b(?:subprocess|socket|requests|httpx|marshal|zlib|pickle)\b"
    rb"|\bsession\.|windll|\.ssh\b|id_rsa|\.aws\b|\.pypirc|\.npmrc|git-cred|Login Data|wallet"
    rb"|\.docker|\.kube|\.netrc|Cookies|getattr\s*\(\s*(?:os|sub|soc|bui|__)"
)
# `start()`, `core.start()`, `x = core.start()`, at the start of a line.
CALLED_AT_ONCE = re.compile(rb"^(?:\w+ = )?(?:\w+\.)*(\w+)\(", re.MULTILINE)
# These call what they are given: `Thread(target=act).start()`, `atexit.register(act)`.
STARTERS = re.compile(
    r"(?:.*\.)?(?:Thread|Timer|Process|submit|start_new_thread|run_in_executor|call_soon"
    r"|call_later)"
    r"|atexit\.register|weakref\.finalize|map|filter"
)
MAX_CALLED = 3  # functions that call functions


class HeldBack:
    """One file, as far as an import runs it. The first look knows only what imported names stand
    for: of most files that is enough.
    """

    def __init__(self, tree: ast.Module, *, is_first: bool) -> None:
        self.source: SourceFile = NamesInFile(tree) if is_first else SourceFile(tree)
        self.is_first = is_first
        self.name_of = self.source.name_of
        # What is run when something of this name is called.
        self.functions: dict[str, list[ast.stmt]] = {}
        for node in self.source.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self.functions[node.name] = node.body
            elif isinstance(node, ast.ClassDef):
                self.functions[node.name] = [*at_once(node)]
        # What variables hold that are given one value: `_IN_DEVELOPMENT = False`.
        self.values: dict[str, bool] = {}
        for node in tree.body:
            match node:
                case ast.Assign([ast.Name(name)], ast.Constant(value)):
                    self.values[name] = bool(value)
                case ast.AnnAssign(ast.Name(name), _, ast.Constant(value)):
                    self.values[name] = bool(value)
        self.tree = tree

    def acts(self, entries: Collection[str] = ()) -> Iterator[tuple[str, int, str]]:
        """What each waits for, the line of the act, and the act; `entries` are the functions that
        other files call.
        """
        yield from self.block(self.tree.body, 0)
        for name in entries:
            yield from self.block(self.functions.get(name, []), 1)

    def block(self, body: Sequence[ast.stmt], depth: int) -> Iterator[tuple[str, int, str]]:
        """Statements that are run."""
        for number, statement in enumerate(body):
            match statement:
                case ast.If(test, then, other):
                    yield from self.branch(test, then, other, depth)
                    # `if not it_is_so: return`
                    if is_end(then) and self.fixed(test) is None and self.truth(test) is not False:
                        yield from self.held(test, body[number + 1 :], depth)
                        return
                case ast.While(test, then):
                    yield from self.branch(test, then, [], depth)
                case ast.Try():
                    yield from self.block(statement.body, depth)
                    yield from self.handlers(statement)
                    yield from self.block([*statement.orelse, *statement.finalbody], depth)
                case ast.For() if self.source.waits_for(statement.iter):
                    yield from self.held(statement.iter, statement.body, depth)
                case ast.With() | ast.AsyncWith() | ast.ClassDef() | ast.For() | ast.AsyncFor():
                    yield from self.block(statement.body, depth)
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    for part in statement.decorator_list:
                        yield from self.named(part, depth)
                case _:
                    yield from self.called(statement, depth)

    def branch(
        self, test: ast.expr, then: Sequence[ast.stmt], other: Sequence[ast.stmt], depth: int
    ) -> Iterator[tuple[str, int, str]]:
        """Both branches, as far as it is known which one is run. What nobody runs is left out."""
        fixed = self.fixed(test)
        if fixed is not None:
            yield from self.block(then if fixed else other, depth)
            return
        is_true = self.truth(test)
        if is_true is not False:
            yield from self.block(then, depth)
            yield from self.held(test, other, depth)
        if is_true is not True:
            yield from self.held(test, then, depth)
            yield from self.block(other, depth)

    def handlers(self, statement: ast.Try) -> Iterator[tuple[str, int, str]]:
        """What is done about an error that may never come; a failed import is told elsewhere."""
        for handler in statement.handlers:
            if not caught_by(handler) & {"ImportError", "ModuleNotFoundError"}:
                act = self.act_in(handler.body)
                if act:
                    yield "an error", *act

    def called(self, statement: ast.stmt, depth: int) -> Iterator[tuple[str, int, str]]:
        """What functions of the file do that are called at once."""
        for node in run_in([statement]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Call):
                yield from self.picked(node.func)
            match node:
                case ast.Call(function, given):
                    is_start = STARTERS.fullmatch(self.name_of(function)) is not None
                    others = [*given, *(word.value for word in node.keywords)] if is_start else []
                    for part in (function, *others):
                        yield from self.named(part, depth)
                case ast.BoolOp(ast.And(), [test, *then]):
                    yield from self.held(test, then, depth)
                case ast.IfExp(test, then, other):
                    yield from self.held(test, [then, other], depth)
                case ast.ListComp(then, [ast.comprehension(ifs=[test, *_])]):
                    yield from self.held(test, [then], depth)

    def named(self, node: ast.AST, depth: int) -> Iterator[tuple[str, int, str]]:
        """What a function of the file does, or an object of one of its classes when it is made."""
        name = node.id if isinstance(node, ast.Name) else ""
        if depth < MAX_CALLED:
            yield from self.block(self.functions.get(name, []), depth + 1)

    def picked(self, chosen: ast.Call) -> Iterator[tuple[str, int, str]]:
        """A function that acts and is one to choose from:
        `{"prod": act}.get(os.environ.get("X"), print)()`
        """
        kind = self.source.waits_for(chosen)
        names = {node.id for node in ast.walk(chosen) if isinstance(node, ast.Name)}
        own = self.functions if self.is_first else self.source.acting
        if kind and kind not in MET_ELSEWHERE and not names.isdisjoint(own):
            yield kind, chosen.lineno, ast.unparse(chosen)[:MAX_ACT_CHARS]

    def held(
        self, test: ast.expr, body: Sequence[ast.AST], depth: int
    ) -> Iterator[tuple[str, int, str]]:
        """The act that a condition holds back, if there is one that no other trigger meets. In
        functions, many conditions are on what they were given.
        """
        act = self.act_in(body)
        if not act:
            return
        kind = self.source.waits_for(test)
        text = ast.unparse(test)
        is_other = "TYPE_CHECKING" in text or "sys.modules" in text or kind in MET_ELSEWHERE
        is_given = bool(depth) and not kind and not self.is_first
        if not is_other and not is_given:
            yield kind or UNKNOWN, *act

    def fixed(self, test: ast.expr) -> bool | None:
        """What a condition is for everybody who has this Python and imports the file."""
        is_newer = version_test(test, self.name_of)
        if is_newer is not None:
            return is_newer
        match test:
            case ast.Constant(value):
                return bool(value)
            case ast.Name(name):
                return self.values.get(name)
            case ast.UnaryOp(ast.Not(), inner):
                is_true = self.fixed(inner)
                return None if is_true is None else not is_true
            case ast.Compare(ast.Name("__name__"), [ast.Eq()], _):
                return False
        return None

    def truth(self, test: ast.expr) -> bool | None:
        """What it is here, as far as it is known: no variable of the environment but CI's is set,
        for which there is a default.
        """
        match test:
            case ast.UnaryOp(ast.Not(), inner):
                is_true = self.truth(inner)
                return None if is_true is None else not is_true
            case ast.Call(func, [ast.Constant(str(name))]):
                is_asked = ENVIRONMENT_NAMES.fullmatch(self.name_of(func)) is not None
                return False if is_asked and not CI_NAMES.fullmatch(name) else None
            case ast.BoolOp(op, values):
                deciding = isinstance(op, ast.Or)
                found = [self.truth(value) for value in values]
                return deciding if deciding in found else None
        return self.fixed(test)

    def act_in(self, body: Sequence[ast.AST]) -> tuple[int, str] | None:
        """The line of the first act in what is run, and the act."""
        for node in run_in(body):
            if isinstance(node, ast.Call) and self.is_act(node):
                return node.lineno, ast.unparse(node)[:MAX_ACT_CHARS]
        return None

    def is_act(self, call: ast.Call) -> bool:
        name = self.name_of(call.func)
        own = self.functions if self.is_first else self.source.acting
        # Its own method, `self.act()`, too.
        is_known = ACT_NAMES.fullmatch(name) or name.removeprefix("self.") in own
        is_import = IMPORT_CALL.fullmatch(name) is not None
        is_plain = name == "eval" and any(map(is_value, call.args[:1]))
        if is_known and not is_import and not is_plain:
            return True
        match call:
            # getattr(os, "sys" + "tem")("id"), (lambda run: run("id"))(getattr(os, "system"))
            case ast.Call(ast.Call(ast.Name("getattr"), [_, _, *_]) | ast.Lambda()):
                return True
            case ast.Call(ast.Name("getattr"), [owner, named, *_]):
                owned = f"{self.name_of(owner)}.{getattr(named, 'value', '')}"
                return ACT_NAMES.fullmatch(owned) is not None
        texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant)]
        return any(SECRETS.search(text) for text in texts if isinstance(text, str))


def is_value(text: ast.expr) -> bool:
    r"""Whether what is evaluated does nothing: a value, `eval('"\uD800"')`; or it is in a variable,
    as of a setting, which is everywhere.
    """
    if not isinstance(text, ast.Constant):
        return isinstance(text, ast.Name)
    try:
        ast.literal_eval(str(text.value))
    except (SyntaxError, ValueError):
        return False
    return True


def at_once(kind: ast.ClassDef) -> Iterator[ast.stmt]:
    """What is run when an object of a class is made."""
    for node in kind.body:
        if isinstance(node, ast.FunctionDef) and node.name in AT_ONCE:
            yield from node.body


def called_by_imports(site: str, files: Iterable[str]) -> set[str]:
    """The functions that are called at the level of the modules which are imported first:
    `core.start()`.
    """
    found: set[str] = set()
    for file in files:
        folder, _, name = file.rpartition("/")
        if name == "__init__.py" or folder == site:
            found |= {word.decode() for word in CALLED_AT_ONCE.findall(start_of(file))}
    return found


def may_hold(data: bytes) -> bool:
    """Whether a file can hold an act."""
    return any(word in data for word in HELD_WORDS) and HELD_ACT.search(data) is not None


def held_acts(text: str, entries: Collection[str] = ()) -> list[tuple[str, int, str]]:
    """The acts in some source that a condition holds back: what it is on, the line, the act. Raises
    RecursionError or MemoryError where it is too deep to be looked at.

    >>> held_acts("import os\\nif os.path.exists('/opt/x'): os.system('id')")
    [('files', 2, "os.system('id')")]
    """
    try:
        tree = tree_of(text)
        if not any(HeldBack(tree, is_first=True).acts(entries)):
            return []
        return [*dict.fromkeys(HeldBack(tree, is_first=False).acts(entries))]
    # Python does not run it either.
    except (SyntaxError, ValueError):
        return []
