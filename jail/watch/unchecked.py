"""Programs that were started and could not be looked at in time, as on a busy machine: which of
them are known by the trace alone.

A second thread can have changed what the trace says before the kernel read it. So the program may
have been another, which then became what it was said to be, or has changed its own words. A few
programs do one thing, whatever their words, and leave these alone: whether such a program was what
it is said to be, its own words show.
"""

import re

from jail.watch.calls import Call, Delete, Execute, LookInto, Observed, Reach
from jail.watch.events import StartsUnchecked
from jail.watch.processes import Process

MAX_DOUBTFUL = 10_000  # processes
# What ctypes.util.find_library asks: /sbin/ldconfig -p, gcc, /usr/lib/gcc/.../collect2, /bin/ld
PLAIN_PROGRAM = re.compile(
    r"(?:/usr)?/(?:s?bin|lib(?:exec)?/gcc/[\w.-]+/[\w.]+)"
    r"/(?:ldconfig|ld(?:\.\w+)?|(?:[\w-]+-)?(?:gcc|cc|g\+\+|c\+\+|cpp|as)(?:-\d+)?"
    r"|cc1(?:plus)?|collect2|uname|arch|locale|getconf|lscpu|nproc)",
    re.ASCII,
)


class Unchecked:
    """`programs` are those of which nothing but the trace tells what they were."""

    def __init__(self) -> None:
        self.programs: list[str] = []
        # By the number of its process: a program, and whether it was gone.
        self.doubtful: dict[int, tuple[str, bool]] = {}

    def note(self, process: Process, program: str, started: Observed | None) -> None:
        """A program was not looked at in time; `started` is what was found later, if anything."""
        is_same = started is None or (started.is_as_told and bool(started.program))
        is_plain = PLAIN_PROGRAM.fullmatch(program) is not None
        if is_same and is_plain and len(self.doubtful) < MAX_DOUBTFUL:
            self.doubtful[process.number] = program, started is None
        else:
            self.programs.append(program)

    def event(self) -> StartsUnchecked:
        """What is told of the programs, of which there is at least one."""
        return StartsUnchecked(len(self.programs), self.programs[0])

    def take(self, process: Process, call: Call) -> None:
        """A process does something. What was gone must have done nothing, but for starting others,
        which are looked at themselves; what was found to be as it should must not have become that
        only then.
        """
        if not self.doubtful or not isinstance(call, Execute | Reach | Delete | LookInto):
            return
        # What a compiler has made for itself: /tmp/ccXXXXXX.o
        if isinstance(call, Delete) and call.name.startswith(b"/tmp/cc"):
            return
        is_start = isinstance(call, Execute)
        # A copy of it may act for it.
        parent = process.parent if process.fresh and not is_start else None
        for actor in (process, parent):
            if actor is None or actor.number not in self.doubtful:
                continue
            program, was_gone = self.doubtful[actor.number]
            has_become = actor is process and is_start
            if was_gone or has_become:
                del self.doubtful[actor.number]
                self.programs.append(program)
