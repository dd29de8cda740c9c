"""Code that was no text before it ran: compiled files that come without their source, and code that
a package puts together from instructions. A part of the audit hook; no code of the package runs.
"""

from __future__ import annotations

from jail.inside.library import load_from_library
from jail.inside.origins import is_foreign, is_foreign_file
from jail.inside.unwritten import first_bytes, is_media

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

COMPILED_ENDS = (".pyc", ".pyo")
MAX_SOURCELESS = 20  # that one process tells
MAX_CODES_OF_FILE = 5000
sourceless: set[str] = set()  # files that were told
# The import system's own function, in which a compiled file becomes code.
UNMARSHALLER = "_compile_bytecode"


def listing(code: CodeType | bytes) -> bytes:
    """The instructions of code that has no source."""
    load_from_library("dis")
    import dis
    import io

    text = io.StringIO()
    dis.dis(code, file=text)
    return text.getvalue().encode("utf-8", "replace")


def sourceless_file(direct: FrameType) -> str:
    """The compiled file without a source that the import system makes code of, "" where it is none,
    or none of the package's.
    """
    code, told = direct.f_code, direct.f_locals
    is_import = code.co_filename.startswith("<frozen importlib") and code.co_name == UNMARSHALLER
    if not is_import or told.get("source_path"):
        return ""
    path = told.get("bytecode_path")
    is_told = len(sourceless) >= MAX_SOURCELESS or path in sourceless
    if is_told or not isinstance(path, str) or not is_foreign_file(path):
        return ""
    sourceless.add(path)
    return path


def how_compiled(path: str) -> tuple[bool, str]:
    """Whether nobody would take such a file for code, and in words what it is."""
    if is_media(path):
        return True, "that came from a sound, a picture or a font"
    if not path.endswith(COMPILED_ENDS):
        return True, "compiled, from a file that is no module"
    return False, "compiled, without a source"


def how_assembled(direct: FrameType, instructions: Any) -> tuple[bool, str] | None:
    """Of code that is made of instructions: whether these stand in who makes it, and in words what
    it is. None of what is only changed in its names, as many do with `code.replace`.
    """
    code = direct.f_code
    if not is_foreign(direct) or not isinstance(instructions, bytes):
        return None
    words = {word for const in code.co_consts if type(const) is tuple for word in const}
    if "replace" in code.co_names and "CodeType" not in code.co_names and "co_code" not in words:
        return None
    return instructions in bytes_in(code), "put together from instructions"


def stands_in_source(code: CodeType) -> bool:
    """Whether code is what a file gives that a person can read, the file that it names: of a
    function that was handed on to another process, say.
    """
    text = first_bytes(code.co_filename)
    try:
        whole = compile(text, code.co_filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(text) and any(inner == code for inner in codes_in(whole))


def codes_in(code: CodeType) -> list[CodeType]:
    """Code and all that is in it."""
    found, index = [code], 0
    while index < len(found) < MAX_CODES_OF_FILE:
        found += [const for const in found[index].co_consts if type(const) is type(code)]
        index += 1
    return found


def bytes_in(code: CodeType) -> set[bytes]:
    """The bytes that stand in it."""
    return {const for const in code.co_consts if type(const) is bytes}
