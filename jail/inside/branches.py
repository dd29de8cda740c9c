"""Walks through source as Python would where some projects are not there, and finds what is not
run for want of them: what comes after `import numpy` in a `try`, what stands under `if numpy:`.

Runs no code of the package. Only what would be run is walked through: the module itself, and the
functions that it calls. What is not known may be either.
"""

import ast
import re
from collections.abc import Callable, Collection, Sequence

from jail.inside.asked import AskedProjects
from jail.inside.rest import run_in
from jail.inside.statements import NamesInFile, caught_by, targets_of
from jail.inside.versions import version_test

SUPPRESS = re.compile(r"(?:contextlib\.)?suppress")
IMPORT_ERRORS = {"ImportError", "ModuleNotFoundError", "PackageNotFoundError"}
IMPORT_ERRORS |= {"DistributionNotFound", "ResolutionError"}
CATCHING_NAMES = {*IMPORT_ERRORS, "Exception", "BaseException"}
# Of a class that is called.
AT_ONCE = {"__new__", "__init__", "__post_init__", "__init_subclass__", "__del__", "__call__"}


class Left:
    """Code is left in the middle because a project is not there: by the import itself that fails
    (`is_raised`), or by what was made of that. `nodes` is what is not run. `is_sure` is false where
    it depends on something else, too.
    """

    def __init__(self, project: str, line: int, *, is_raised: bool = False) -> None:
        self.project, self.line, self.is_raised = project, line, is_raised
        self.nodes: list[ast.AST] = []
        self.is_sure = True


class UnmetInFile:
    """Walks through a file as Python would, where some projects are not there."""

    def __init__(
        self,
        tree: ast.Module,
        missing: Callable[[str], str],
        absent: Callable[[str], str],
        is_program: bool,
    ) -> None:
        self.tree, self.missing, self.is_program = tree, missing, is_program
        self.source = NamesInFile(tree)
        self.asked = AskedProjects(self.source.name_of, missing, absent)
        self.found: list[Left] = []
        # What variables hold, as far as it is known, and which project made them so.
        self.values: dict[str, bool] = {}
        self.projects: dict[str, str] = {}
        self.catching = 0  # how many around this catch that an import fails
        self.called: dict[str, bool] = {}  # by name, and whether a failure is caught there
        self.functions: dict[str, list[list[ast.stmt]]] = {}
        for node in self.source.nodes:
            self.note_functions(node)

    def note_functions(self, node: ast.AST) -> None:
        """What is run when something of this name is called."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.functions.setdefault(node.name, []).append(node.body)
            self.asked.note_function(node)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name in AT_ONCE:
                    self.functions.setdefault(node.name, []).append(inner.body)

    def walk(self, entries: Collection[str]) -> None:
        """Walk through the module, then through all functions that are called, and `entries`."""
        self.block(self.tree.body)
        self.called |= dict.fromkeys(entries, True)
        walked: set[tuple[str, bool]] = set()
        values, projects = self.values, self.projects
        while not walked >= {*self.called.items()}:
            for name, is_caught in {*self.called.items()} - walked:
                walked.add((name, is_caught))
                for body in self.functions.get(name, ()):
                    self.values, self.projects = dict(values), dict(projects)
                    self.catching = int(is_caught)
                    self.keep(self.block(body))

    def keep(self, left: Left | None) -> None:
        """Keep what is not run; where nobody catches the failure, the module fails: see rest.py."""
        if left and (self.catching or not left.is_raised):
            self.found.append(left)

    def block(self, body: Sequence[ast.stmt]) -> Left | None:
        """Statements: what of them is not run, if they are left in the middle."""
        for number, statement in enumerate(body):
            left = self.statement(statement)
            if left:
                left.nodes += body[number + 1 :]
                if not left.is_sure:
                    self.keep(self.block(body[number + 1 :]))
                return left
        return None

    def statement(self, node: ast.stmt) -> Left | None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                # Its decorators and defaults.
                self.expression(node)
                return None
            case ast.ClassDef():
                for part in (*node.decorator_list, *node.bases):
                    self.expression(part)
                return self.block(node.body)
            case ast.If() | ast.While():
                return self.branch(node)
            case ast.For() | ast.AsyncFor():
                self.expression(node.iter)
                self.asked.note(node.target, node.iter)
                left = self.block(node.body)
                if left and left.is_raised:
                    return left
                self.keep(left)
                return self.block(node.orelse)
            case ast.With() | ast.AsyncWith():
                return self.context(node)
            case ast.Try() | ast.TryStar():
                return self.attempt(node)
            case ast.Match():
                self.expression(node.subject)
                for case in node.cases:
                    self.keep(self.block(case.body))
                return None
            case ast.Import() | ast.ImportFrom():
                return self.left_at(node, self.unmet_import(node))
        return self.simple(node)

    def left_at(self, node: ast.stmt, project: str) -> Left | None:
        return Left(project, node.lineno, is_raised=True) if project else None

    def simple(self, node: ast.stmt) -> Left | None:
        """A statement without others in it."""
        self.expression(node)
        project = self.asked.raising(node)
        if project:
            return self.left_at(node, project)
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            self.asked.note(node.targets[0], value)
        for target in targets_of(node):
            is_true, project = self.truth(value) if value else (None, "")
            if is_true is None:
                self.values.pop(target, None)
                continue
            self.values[target] = is_true
            if project:
                self.projects[target] = project
        return None

    def branch(self, node: ast.If | ast.While) -> Left | None:
        """Both branches, or that which is taken."""
        self.expression(node.test)
        is_true, project = self.truth(node.test)
        if is_true is None:
            first, second = self.block(node.body), self.block(node.orelse)
            if first and second:
                self.keep(second)
                return first
            left = first or second
            if left:
                left.is_sure = False
            return left
        taken, other = (node.body, node.orelse) if is_true else (node.orelse, node.body)
        if project and other:
            self.keep_nodes(project, node.lineno, other)
        left = self.block(taken) or self.left_by(project, node.lineno, taken)
        # A loop is as far as `break` leaves.
        if left and isinstance(node, ast.While) and not left.is_raised:
            self.keep(left)
            return None
        return left

    def left_by(self, project: str, line: int, body: Sequence[ast.stmt]) -> Left | None:
        """Whether code that is run for want of a project leaves what it is in."""
        last = body[-1] if project and body else None
        is_exit = isinstance(last, ast.Expr) and self.source.name_of(last.value).endswith("exit")
        if is_exit or isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break):
            return Left(project, line, is_raised=isinstance(last, ast.Raise))
        return None

    def keep_nodes(self, project: str, line: int, nodes: Sequence[ast.AST]) -> None:
        left = Left(project, line)
        left.nodes += nodes
        self.found.append(left)

    def context(self, node: ast.With | ast.AsyncWith) -> Left | None:
        """`with suppress(ImportError):`, or another."""
        names = [self.source.name_of(item.context_expr) for item in node.items]
        is_catching = any(SUPPRESS.fullmatch(name) for name in names)
        for item in node.items:
            self.expression(item.context_expr)
        self.catching += is_catching
        left = self.block(node.body)
        if left and left.is_raised and is_catching:
            self.keep(left)
            self.lose([node], left.project)
            left = None
        self.catching -= is_catching
        return left

    def attempt(self, node: ast.Try | ast.TryStar) -> Left | None:
        """`try`: what comes after an import that fails, and what is done about that."""
        catching = [handler for handler in node.handlers if CATCHING_NAMES & caught_by(handler)]
        self.catching += bool(catching)
        left = self.block(node.body)
        if left and left.is_raised and catching:
            left.nodes += node.orelse
            if not left.is_sure:
                self.keep(self.block(node.orelse))
            self.keep(left)
            self.catching -= 1
            self.lose([*node.body, catching[0]], left.project)
            body = catching[0].body
            left = self.block(body) or self.left_by(left.project, left.line, body)
        else:
            self.catching -= bool(catching)
            for handler in node.handlers:
                # That of an import which does not fail is not run.
                if not caught_by(handler) <= IMPORT_ERRORS:
                    self.keep(self.block(handler.body))
            left = left or self.block(node.orelse)
        return self.block(node.finalbody) or left

    def lose(self, nodes: Sequence[ast.AST], project: str) -> None:
        """What these would have set is what it is for want of a project."""
        for node in nodes:
            for inner in ast.walk(node):
                for name in targets_of(inner):
                    self.projects[name] = project

    def expression(self, expression: ast.AST) -> None:
        """Note what is called, and what of `numpy and act()` is not run."""
        for node in run_in([expression]):
            if isinstance(node, ast.Call):
                for part in (node.func, *node.args, *(word.value for word in node.keywords)):
                    name = part.id if isinstance(part, ast.Name) else getattr(part, "attr", "")
                    if name in self.functions:
                        is_caught = self.catching > 0 or self.called.get(name, False)
                        self.called[name] = is_caught
            elif isinstance(node, ast.BoolOp):
                for number, value in enumerate(node.values[:-1]):
                    is_true, project = self.truth(value)
                    if project and is_true is isinstance(node.op, ast.Or):
                        self.keep_nodes(project, node.lineno, node.values[number + 1 :])
            elif isinstance(node, ast.IfExp):
                is_true, project = self.truth(node.test)
                if project:
                    self.keep_nodes(project, node.lineno, [node.orelse if is_true else node.body])

    def truth(self, test: ast.expr) -> tuple[bool | None, str]:
        """What a condition is, None if that is not known, and the project that makes it so."""
        is_newer = version_test(test, self.source.name_of)
        if is_newer is not None:
            return is_newer, ""
        match test:
            case ast.Constant(value):
                return bool(value), ""
            case ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
                return False, ""
            case ast.Name(name):
                return self.values.get(name), self.projects.get(name, "")
            case ast.NamedExpr(value=value) | ast.Call(func=ast.Name("bool"), args=[value]):
                return self.truth(value)
            case ast.UnaryOp(ast.Not(), inner):
                is_true, project = self.truth(inner)
                return None if is_true is None else not is_true, project
            case ast.Compare(left, [sign], [right]):
                return self.compared(left, sign, right)
            case ast.BoolOp(op, values):
                return self.joined(isinstance(op, ast.Or), values)
            case ast.Call():
                project = self.asked.whether(test) or self.asked.listed(test)
                return (False, project) if project else (None, "")
        return None, ""

    def joined(self, deciding: bool, values: Sequence[ast.expr]) -> tuple[bool | None, str]:
        """`a and b` is false if one is, whatever the other."""
        found = [self.truth(value) for value in values]
        for is_true, project in found:
            if is_true is deciding:
                return is_true, project
        if any(is_true is None for is_true, _ in found):
            return None, ""
        return not deciding, next((project for _, project in found if project), "")

    def compared(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> tuple[bool | None, str]:
        """`find_spec("numpy") is None`, `"numpy" in sys.modules`, `__name__ == "__main__"`"""
        is_same = isinstance(sign, ast.Is | ast.Eq | ast.In)
        if not is_same and not isinstance(sign, ast.IsNot | ast.NotEq | ast.NotIn):
            return None, ""
        if isinstance(left, ast.Name) and left.id == "__name__":
            return self.is_program is is_same, ""
        if isinstance(sign, ast.In | ast.NotIn):
            is_of_loaded = self.source.name_of(right) == "sys.modules"
            name = str(left.value) if isinstance(left, ast.Constant) else ""
            project = self.missing(name) if is_of_loaded else self.asked.among(left, right)
            return (not is_same, project) if project else (None, "")
        is_true, project = self.truth(left)
        if is_true is None or not isinstance(right, ast.Constant):
            return None, ""
        return (is_true is bool(right.value)) is is_same, project

    def unmet_import(self, node: ast.Import | ast.ImportFrom) -> str:
        """What an import statement asks for that is not there, "" if all is."""
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            if node.level:
                return ""
            # Of a namespace package each part is a project's own.
            names = [f"{node.module}.{name}" if name != "*" else f"{node.module}" for name in names]
        return next(filter(None, map(self.missing, names)), "")
