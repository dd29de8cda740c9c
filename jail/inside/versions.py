"""What a condition on the version of Python is here: `sys.version_info[:2] >= (3, 8)`."""

import ast
import operator
import sys
from collections.abc import Callable
from typing import Any

VERSION_INFO = "sys.version_info"
VERSION_NUMBERS: dict[str, Any] = {
    VERSION_INFO: tuple(sys.version_info),
    f"{VERSION_INFO}.major": sys.version_info.major,
    f"{VERSION_INFO}.minor": sys.version_info.minor,
    "sys.hexversion": sys.hexversion,
}
COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def version_test(test: ast.expr, name_of: Callable[[ast.AST], str]) -> bool | None:
    """What `sys.version_info[:2] >= (3, 8)` is here; None of any other condition."""
    match test:
        case ast.UnaryOp(ast.Not(), inner):
            is_true = version_test(inner, name_of)
            return None if is_true is None else not is_true
        case ast.Compare(left, [sign], [right]) if type(sign) in COMPARED:
            asked, given = version_part(left, name_of), version_part(right, name_of)
            if type(asked) is type(given) and asked is not None:
                return bool(COMPARED[type(sign)](asked, given))
    return None


def version_part(node: ast.expr, name_of: Callable[[ast.AST], str]) -> Any:
    """The value of a part of the version, or of the numbers that it is compared with."""
    match node:
        case ast.Constant(int(number)):
            return number
        case ast.Tuple(items) if all(isinstance(item, ast.Constant) for item in items):
            return tuple(ast.literal_eval(node))
        case ast.Subscript(value, ast.Constant(int(at))) if name_of(value) == VERSION_INFO:
            return sys.version_info[at] if at < len(sys.version_info) else None
        case ast.Subscript(value, ast.Slice(None, ast.Constant(int(end)), None)):
            return tuple(sys.version_info)[:end] if name_of(value) == VERSION_INFO else None
        case ast.Name() | ast.Attribute():
            return VERSION_NUMBERS.get(name_of(node))
    return None
