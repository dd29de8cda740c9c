"""The look at the source of what is imported, for what only shows in the code.

It is done while the modules run: that costs no time where a second processor is free, and leaves
them little time to change what is read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from jail.inside import beside
from jail.inside.ending import Teller
from jail.inside.fallen import UNMET_NOT_LOOKED_AT

MAX_DEEP = 20_000  # calls within calls


class SourceLook:
    """`words` are those for the worker that imports."""

    def __init__(self, words: Sequence[str], allowed_sec: float) -> None:
        self.words = words
        self.end_sec = time.monotonic() + allowed_sec
        self.child = 0

    def begin(self) -> None:
        """Begin, in a child."""
        self.child = beside.begin(self.look)

    def end(self) -> None:
        """Wait for it. That it was ended by a package, or by odd source, is told."""
        if not beside.came_to_end(self.child):
            Teller(self.words[0]).tell("unmet", "", text=UNMET_NOT_LOOKED_AT)

    def look(self) -> None:
        """Both looks, side by side. Raises ChildProcessError."""
        # Each `elif` is one deeper. This process ends with the look.
        sys.setrecursionlimit(MAX_DEEP)
        path, site, names = self.words[0], self.words[3], [*self.words[5:]]
        from jail.inside.crowded import tell_crowded
        from jail.inside.gates import tell_gates
        from jail.inside.unmet import tell_unmet

        def look_for_gates() -> None:
            tell_crowded(path, site, names)
            tell_gates(path, site, names)

        gates = beside.begin(look_for_gates)
        tell_unmet(path, site, names, self.end_sec)
        if not beside.came_to_end(gates):
            raise ChildProcessError("the other look did not come to its end")
