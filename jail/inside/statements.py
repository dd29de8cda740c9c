"""What the statements of some source are, without a look at each expression in them."""

import ast
import functools
from collections.abc import Iterator

from jail.inside.gates import SourceFile
from jail.inside.rest import BLOCKS


@functools.lru_cache(maxsize=1)
def tree_of(text: str) -> ast.Module:
    """The tree of a source, once for all who look at it; raises as ast.parse does."""
    return ast.parse(text)


class NamesInFile(SourceFile):
    """A file of which only is looked up what imported names stand for: most have nothing to tell,
    and to look at every expression takes many times as long.
    """

    def __init__(self, tree: ast.Module) -> None:
        super().__init__(ast.Module([], []))
        self.nodes = [*statements_in(tree)]
        for node in self.nodes:
            self.note_names(node)


def statements_in(tree: ast.Module) -> Iterator[ast.AST]:
    """All statements, and what they are parts of."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in BLOCKS:
            waiting += getattr(node, name, [])


def targets_of(node: ast.AST) -> Iterator[str]:
    """The names that a statement gives a value."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


def caught_by(handler: ast.ExceptHandler) -> set[str]:
    """The names of what a handler catches; all, if it names nothing."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {
        getattr(kind, "id", getattr(kind, "attr", "")) if kind else "BaseException"
        for kind in kinds
    }
