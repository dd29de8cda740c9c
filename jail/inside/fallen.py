"""Where a module failed, as a worker says it to the launcher, which looks at the rest: rest.py."""

import os
import sys

from jail.inside.jobs import short_name

MAX_CAUSES = 20
NOT_LOOKED_AT = "not all modules that failed could be looked at"
UNMET_NOT_LOOKED_AT = "not all files could be looked at for acts behind what is not there"
# `cannot import name '_psutil_aix' from 'psutil' (/.../psutil/__init__.py)`; of a module that is
# still being imported it says so before the name.
NOT_OFFERED, FROM_MODULE, AT_FILE = "cannot import name '", "' from '", "' ("
# `libGL.so.1: cannot open shared object file: No such file or directory`
NO_LIBRARY = "cannot open shared object file"
# A library that lies among the modules, and is none.
NO_MODULE = "does not define module export function"


def is_absent(error: ImportError, site: str) -> bool:
    """Whether what is missing of the package's own is in none of its files: nobody has it who has
    installed this release. psutil has modules for other systems, and not what these need.
    """
    name, is_named = error.name or "", isinstance(error, ModuleNotFoundError)
    wanted, start, rest = str(error).partition(FROM_MODULE)
    if start and wanted.startswith(NOT_OFFERED) and AT_FILE in rest:
        name, is_named = f"{rest.partition(AT_FILE)[0]}.{wanted.removeprefix(NOT_OFFERED)}", True
    folder, _, last = f"{site}/{name.replace('.', '/')}".rpartition("/")
    there = os.listdir(folder) if os.path.isdir(folder) else []
    return is_named and not any(file.partition(".")[0] == last for file in there)


def words_of(text: str) -> list[str]:
    """The words of a sentence: `requests` of "requests is not installed."."""
    plain = "".join(letter if letter.isalnum() or letter == "_" else " " for letter in text)
    return plain.split()


def is_want_of_another(error: BaseException, own: str, site: str, asked: set[str]) -> bool:
    """Whether a module failed for want of a project or a library that is not there, whatever was
    made of that.

    Args:
        own: the first part of its own name.
        asked: what was asked for in vain, maybe by another file, and is named in the error:
            `raise ImportError("requests is not installed")`
    """
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            return False
        if isinstance(cause, ImportError):
            missed = str(cause.name or "").partition(".")[0]
            is_own = missed in ("", own)
            text = str(cause)
            is_no_code = NO_LIBRARY in text or NO_MODULE in text
            if not is_own or is_no_code or is_absent(cause, site):
                return True
            if not asked.isdisjoint(words_of(text)):
                return True
        cause = cause.__cause__ or cause.__context__
    return False


def is_removed(module: str, error: BaseException) -> bool:
    """Whether a module that was there when we were told of it is not found: another has removed it,
    or what is above it.
    """
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")


def said_of_fallen(name: str, error: BaseException, site: str, asked: set[str]) -> str:
    """`failed 12 s.proxy`: the line of the module at which it failed, 0 where nothing of it was
    run. `missed 12 s.proxy`: for want of another. "" of an entry point whose module was imported.
    """
    module, colon, _ = name.partition(":")
    if colon and module in sys.modules:
        return ""
    try:
        if not colon and is_removed(module, error):
            return f"failed 0 {short_name(module)}"
        return f"{how_it_fell(module, error, site, asked)} {short_name(module)}"
    except BaseException:  # its own words for itself fail, on purpose maybe
        return f"failed 0 {short_name(module)}"


def how_it_fell(module: str, error: BaseException, site: str, asked: set[str]) -> str:
    """`failed 12`; may raise whatever the error of a package does when it is looked at."""
    line = 0
    tb = error.__traceback__
    while tb and not line:
        frame = tb.tb_frame
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == module:
            line = tb.tb_lineno
        tb = tb.tb_next
    is_missing = is_want_of_another(error, module.partition(".")[0], site, asked)
    how = "missed" if is_missing else "failed"
    return f"{how} {line}"
