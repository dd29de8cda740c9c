"""Where a module failed, as a worker says it to the launcher, which looks at the rest: rest.py."""

import re
import sys

from jail.inside.jobs import short_name

MAX_CAUSES = 20
# `libGL.so.1: cannot open shared object file: No such file or directory`
NO_LIBRARY = re.compile(r".*cannot open shared object file.*", re.DOTALL)


def is_want_of_another(error: BaseException, own: str) -> bool:
    """Whether a module failed for want of a project or a library that is not there, whatever was
    made of that: `own` is the first part of its own name.
    """
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            return False
        if isinstance(cause, ImportError):
            missed = str(cause.name or "").partition(".")[0]
            if missed not in ("", own) or NO_LIBRARY.fullmatch(str(cause)):
                return True
        cause = cause.__cause__ or cause.__context__
    return False


def said_of_fallen(name: str, error: BaseException) -> str:
    """`failed 12 s.proxy`: the line of the module at which it failed, 0 where nothing of it was
    run. `missed 12 s.proxy`: for want of another. "" of one that was imported all the same.
    """
    module = name.partition(":")[0]
    if module in sys.modules:
        return ""
    line = 0
    tb = error.__traceback__
    while tb and not line:
        frame = tb.tb_frame
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == module:
            line = tb.tb_lineno
        tb = tb.tb_next
    how = "missed" if is_want_of_another(error, module.partition(".")[0]) else "failed"
    return f"{how} {line} {short_name(module)}"
