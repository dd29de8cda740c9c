"""What a phase changed in the scratch, told file by file.

Hostile input: the contents of the files that changed.
"""

import re
import time
from collections.abc import Callable

from jail.orders import Order
from jail.watch.decoys import Decoys
from jail.watch.events import Change, Event, FileChanged, StartupCode, printable
from jail.watch.scratch import FOLDERS, MAX_FILE_BYTES, FileState, Scratch, as_seen

MAX_COMPARE_SEC = 5.0  # for the changes of one phase
# Where pip builds; it had no time to tidy up when it was stopped.
PIP_FOLDER = "tmp/pip-"
# `site/six-1.17.0/sitecustomize.py`: imported by every interpreter that has its folder on the path.
CUSTOMIZE = re.compile(r".*/(?:site|user)customize(?:/__init__)?\.pyc?", re.DOTALL)

States = dict[str, FileState]


def rank(path: str) -> tuple[int, str]:
    """By folder of the scratch, then by name."""
    return FOLDERS.index(path.partition("/")[0]), path


class Changes:
    """Compares the scratch before and after a phase.

    `tell` takes StartupCode, `changed` takes FileChanged.
    """

    def __init__(
        self,
        scratch: Scratch,
        order: Order,
        decoys: Decoys,
        tell: Callable[[Event], object],
        changed: Callable[[FileChanged], object],
    ) -> None:
        self.scratch = scratch
        self.order = order
        self.decoys = decoys
        self.tell = tell
        self.changed = changed

    def compare(self, before: States, after: States, listed: set[str], was_stopped: bool) -> None:
        """Tell what changed beyond the files that the installed distributions list as theirs."""
        deadline_sec = time.monotonic() + MAX_COMPARE_SEC
        changed = [path for path in {*before, *after} if before.get(path) != after.get(path)]
        # Home and site first: what lies there lasts.
        for number, path in enumerate(sorted(changed, key=rank)):
            if time.monotonic() > deadline_sec:
                self.scratch.lost["FileChanged, not looked at"] += len(changed) - number
                return
            old, new = before.get(path), after.get(path)
            if new:
                self.tell_startup_code(path, path in listed)
            if path in listed or (was_stopped and path.startswith(PIP_FOLDER)):
                continue
            self.tell_change(path, old, new)

    def tell_change(self, path: str, old: FileState | None, new: FileState | None) -> None:
        """Tell that a file is new, other or gone, and search it for bait."""
        seen = as_seen(path)
        if not new:
            self.changed(FileChanged(seen, Change.DELETED, None, None))
            return
        if self.decoys.is_unchanged(seen, new.inode):
            return
        change = Change.MODIFIED if old else Change.CREATED
        self.changed(FileChanged(seen, change, new.size_bytes, None))
        self.decoys.search_file(seen, self.scratch.read(path, "file"))

    def tell_startup_code(self, path: str, is_listed: bool) -> None:
        """Tell a file that every interpreter executes when it starts."""
        # What a distribution lists acts only where the interpreter looks: in the folder itself.
        if is_listed and path.count("/") > self.order.site.count("/") + 2:
            return
        line = self.startup_line(path)
        if line:
            self.tell(StartupCode(as_seen(path), printable(line.encode(errors="replace"))))

    def startup_line(self, path: str) -> str:
        """The line that is executed at the start; "" when there is none."""
        if CUSTOMIZE.fullmatch(path):
            return "the whole file"
        if not path.endswith(".pth"):
            return ""
        lines = self.scratch.lines(path, ".pth")
        for line in lines:
            if line.startswith(("import ", "import\t")):
                return line
        is_cut = sum(map(len, lines)) + len(lines) >= MAX_FILE_BYTES
        return "too long to be looked at" if is_cut else ""
