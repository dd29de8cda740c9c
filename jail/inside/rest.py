"""Looks at what of a module was never run because the module failed: whether it would act.

Runs no code of the package, in a child of the launcher, as gates.py. A module that fails for want
of another project is told elsewhere: of it counts what would have come next. One that fails for
another reason may do so on this machine only: of it all functions count, too.
"""

import ast
import glob
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence

from jail.inside.ending import Teller
from jail.inside.fallen import NOT_LOOKED_AT
from jail.inside.gates import ACT_NAMES, MAX_ACT_CHARS, SECRETS, SourceFile
from jail.inside.sources import MAX_LOOKED_BYTES
from jail.inside.unwritten import POWERS

MAX_REST_SEC = 3.0
MAX_RESTS = 100
NO_SOURCE = "what its source would tell, which can't be read"
# What can be any function: looked up by a name that is made at run time, or decoded. Those that
# only look have no place here: a module that fails is full of them.
MADE_UP_CALL = re.compile(r"(?:(?:importlib\.)?import_module|compile|open|(?:io|os)\.open)")
# In a function these are no act that was missed: many decode, and tidy up.
WEAK_ACTS = re.compile(
    r"(?:base64\.)?\w*b64decode|zlib\.decompress|bytes\.fromhex|pickle\.loads|shutil\.rmtree"
)
IMPORT_CALL = re.compile(r"__import__|(?:importlib\.)?import_module")
# Without what may stand before a name: a line may be a million characters long.
ACT_LAST_NAMES = ACT_NAMES.pattern.replace(r"(?:.*\.)?", "")
ACT_WORDS = re.compile(rf"\b{ACT_LAST_NAMES}\s*\(")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
# Of a `try` that failed, what stands in its `except` was not what failed.
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def rest_of(body: Sequence[ast.AST], line: int) -> Iterator[ast.AST]:
    """The statements that come after a line at which a module failed, and other branches.

    >>> [ast.unparse(node) for node in rest_of(ast.parse("a\\nif b:\\n  c\\nelse:\\n  d").body, 3)]
    ['d']
    """
    for number, statement in enumerate(body):
        first, last = lines_of(statement)
        if first > line:
            yield from body[number:]
            return
        if last < line or isinstance(statement, FUNCTIONS):
            continue
        blocks = [getattr(statement, name, []) for name in BLOCKS]
        for block in blocks:
            if isinstance(block, list) and block:
                is_in_it = lines_of(block[0])[0] <= line <= lines_of(block[-1])[1]
                yield from rest_of(block, line) if is_in_it else block


def lines_of(node: ast.AST) -> tuple[int, int]:
    """The first and the last line of some code."""
    first = getattr(node, "lineno", 0)
    if isinstance(node, ast.match_case):
        return lines_of(node.pattern)[0], lines_of(node.body[-1])[1]
    return first, getattr(node, "end_lineno", None) or first


def run_in(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """All nodes that are run with these; not what stands in functions that nobody calls."""
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        if isinstance(node, FUNCTIONS):
            waiting += [*getattr(node, "decorator_list", []), *node.args.defaults]
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def act_among(
    source: SourceFile, nodes: Iterator[ast.AST], *, is_strict: bool
) -> tuple[str, int] | None:
    """The first act and its line, if there is one; `is_strict`: what may be any counts, too."""
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        name = source.name_of(node.func)
        is_named = isinstance(node.func, ast.Name | ast.Attribute)
        # getattr(os, "sys" + "tem")("id"), (lambda: ...)(), TABLE[3]("id")
        is_plain = is_constant(node) and not is_powerful_import(name, node)
        is_plain |= is_below_itself(node)
        is_made_up = not is_named or (MADE_UP_CALL.fullmatch(name) and not is_plain)
        is_secret = any(
            isinstance(inner, ast.Constant) and SECRETS.search(str(inner.value))
            for inner in ast.walk(node)
        )
        is_import = IMPORT_CALL.fullmatch(name) is not None and is_plain
        # What a function calls is walked through, too.
        is_weak = not is_strict and WEAK_ACTS.fullmatch(name) is not None
        is_known = ACT_NAMES.fullmatch(name) or (is_strict and name in source.acting)
        is_act = bool(is_known) and not is_import and not is_weak
        if is_act or is_secret or (is_strict and is_made_up):
            return ast.unparse(node)[:MAX_ACT_CHARS], node.lineno
    return None


def is_powerful_import(name: str, call: ast.Call) -> bool:
    """Whether it imports what gives code the powers of the system: `__import__("os")`. Of others
    that are imported like that, what they do is seen.
    """
    wanted = call.args[0] if call.args else None
    module = str(wanted.value).partition(".")[0] if isinstance(wanted, ast.Constant) else ""
    return IMPORT_CALL.fullmatch(name) is not None and module in POWERS


def is_below_itself(call: ast.Call) -> bool:
    """Whether it names what lies below the package itself: `__import__(__package__ + ".fft")`."""
    match call.args[:1]:
        case [ast.BinOp(ast.Name("__package__" | "__name__"), ast.Add(), ast.Constant(str(end)))]:
            return end.startswith(".")
    return False


def is_constant(call: ast.Call) -> bool:
    """Whether the first argument stands there as it is."""
    return bool(call.args) and isinstance(call.args[0], ast.Constant)


def act_in_rest(text: str, line: int, is_missing: bool) -> tuple[str, int] | None:
    """What a module would have done, and the line: None if nothing that counts."""
    try:
        tree = ast.parse(text)
        source = SourceFile(tree)
        rest = [*rest_of(tree.body, line)]
        found = act_among(source, run_in(rest), is_strict=True)
        # Its functions are nobody's, as long as it fails.
        if not found and rest and not is_missing:
            found = act_among(source, ast.walk(tree), is_strict=False)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return act_in_words(text)
    return found


def act_in_words(text: str) -> tuple[str, int] | None:
    """The first act in what this Python can't read: it may be for a later Python."""
    found = ACT_WORDS.search(text) or SECRETS.search(text)
    return (found[0][:MAX_ACT_CHARS], text.count("\n", 0, found.start()) + 1) if found else None


def source_file(site: str, name: str) -> str | None:
    """The source file of a module."""
    path = f"{site}/{name.replace('.', '/')}"
    found = [file for file in (f"{path}/__init__.py", f"{path}.py") if os.path.isfile(file)]
    return found[0] if found else None


def tell_rest(path: str, site: str, fallen: Mapping[str, tuple[int, bool]]) -> None:
    """Tell what modules that failed would have done.

    Args:
        path: the file for what is told.
        site: the site-packages of the installation.
        fallen: by name the line at which each failed, 0 if nothing of it was run, and whether that
            was for want of a project that is not there.
    """
    teller = Teller(path)
    end_sec = time.process_time() + MAX_REST_SEC
    count = 0
    for name, (line, is_missing) in fallen.items():
        if not name:
            continue
        # The processor's time: others may have the processors.
        if count >= MAX_RESTS or time.process_time() > end_sec:
            teller.tell("unrun", "", text=NOT_LOOKED_AT)
            return
        file = source_file(site, name)
        if file is None:
            compiled = glob.glob(f"{site}/{glob.escape(name.replace('.', '/'))}.*")
            # In an archive on the path, say, or another module has removed it.
            if not is_missing and ":" not in name:
                place = compiled[0] if compiled else site
                teller.tell("unrun", name, text=NO_SOURCE, at=f"{place}:{line}")
                count += 1
            continue
        try:
            with open(file, "rb") as data:
                start = data.read(MAX_LOOKED_BYTES + 1)
        # The package may have seen to it that nobody reads it.
        except OSError:
            teller.tell("unrun", name, text=NO_SOURCE, at=f"{file}:{line}")
            count += 1
            continue
        found = act_in_rest(start.decode("utf-8", "replace"), line, is_missing)
        if not found and len(start) > MAX_LOOKED_BYTES:
            found = NO_SOURCE, line
        if found:
            teller.tell("unrun", name, text=found[0], at=f"{file}:{found[1]}")
            count += 1
