"""Code that was built as a tree of its syntax (ast.Module) and never was a text. A part of the
audit hook; it looks at nodes of the library's own kinds alone, and no code of the package runs.
"""

from __future__ import annotations

import _ast
import sys

from jail.inside.library import load_from_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MAX_NODES = 20_000
# pytest writes much of its own into what it has parsed: one word in so many is the file's.
MAX_WORDS_FOR_ONE = 8
KINDS = frozenset(kind for kind in vars(_ast).values() if isinstance(kind, type))
# Where each kind of node has a word that stands in the text that it was parsed from.
WORD_FIELDS = {
    _ast.Name: "id",
    _ast.Attribute: "attr",
    _ast.FunctionDef: "name",
    _ast.AsyncFunctionDef: "name",
    _ast.ClassDef: "name",
    _ast.alias: "name",
    _ast.arg: "arg",
    _ast.ImportFrom: "module",
}


def nodes_of(tree: Any) -> list[_ast.AST]:
    """A tree and all that is in it; nothing where it has nodes of a package's own kinds, or too
    many.
    """
    found = [tree]
    for node in found:
        if type(node) not in KINDS or len(found) > MAX_NODES:
            return []
        for value in node.__dict__.values():
            inner = value if type(value) is list else [value]
            found += [item for item in inner if isinstance(item, _ast.AST)]
    return found


def words_in_tree(nodes: Iterable[_ast.AST]) -> list[tuple[str, int, int]]:
    """The words in it, each with the first and the last line where it should stand."""
    found = []
    for node in nodes:
        told = node.__dict__
        word, line = told.get(WORD_FIELDS.get(type(node), "")), told.get("lineno")
        if type(word) is str and type(line) is int:
            end = told.get("end_lineno")
            found.append((word.partition(".")[0], line, end if type(end) is int else line))
    return found


def was_parsed_from(nodes: Iterable[_ast.AST], text: str) -> bool:
    """Whether it says of its words where they stand, and they do."""
    lines, words = text.split("\n"), words_in_tree(nodes)
    standing = 0
    for word, first, last in words:
        standing += any(word in line for line in lines[max(0, first - 1) : last])
    return 0 < len(words) <= standing * MAX_WORDS_FOR_ONE


def as_text(tree: Any) -> bytes:
    """A tree as a person would have written it."""
    load_from_library("ast")
    try:
        text: str = sys.modules["ast"].unparse(tree)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return b""
    return text.encode("utf-8", "replace")
