"""What a phase changed in the scratch, told file by file.

Hostile input: the contents of the files that changed.
"""

import re
import time
from collections.abc import Callable
from dataclasses import replace

from jail.orders import Order
from jail.watch.decoys import Decoys
from jail.watch.dropped import Drop, Way
from jail.watch.events import Change, Event, FileChanged, StartupCode, printable
from jail.watch.installed import Installed
from jail.watch.links import Links
from jail.watch.noticed import ChannelLeft
from jail.watch.scratch import FOLDERS, MAX_FILE_BYTES, FileState, Scratch, as_seen
from jail.watch.served import SecondStages
from jail.watch.shadows import Shadows

MAX_STARTUP_LINES = 10  # of one file
MAX_COMPARE_SEC = 5.0  # for the changes of one phase
# Where pip builds.
PIP_FOLDER = "tmp/pip-"
# `site/six-1.17.0/sitecustomize.py`: imported by every interpreter that has its folder on the path.
CUSTOMIZE = re.compile(r".*/(?:site|user)customize(?:/__init__)?\.pyc?", re.DOTALL)
# `site/six-1.17.0/lib/python3.11/site-packages/six.pth`: where .pth files act.
IN_SITE_PACKAGES = re.compile(r"site/[^/]+/lib(?:64)?/python3\.\d+/site-packages/[^/]+", re.DOTALL)

# `site/six-1.17.0/lib/python3.11/site-packages/__pycache__/six.cpython-311.pyc`, and what it is
# called until it is whole: `six.cpython-311.pyc.139637976727232`
COMPILED_FILE = re.compile(r"(site/.*/)__pycache__/([^/]+)\.cpython-\d+\.pyc(?:\.\d+)?", re.DOTALL)

States = dict[str, FileState]


def source_of(path: str) -> str:
    """The source that the launcher has compiled to this file, after pip; else the file itself."""
    compiled = COMPILED_FILE.fullmatch(path)
    return f"{compiled[1]}{compiled[2]}.py" if compiled else path


def plain_text(line: str) -> str:
    """A line as text: its bytes may be any, but those of a string in quotes stay readable."""
    text = printable(line.encode(errors="replace"))
    # A person reads the backslashes of a source as they are.
    return text.replace("\\\\", "\\")


def rank(path: str) -> tuple[int, str]:
    """By folder of the scratch, then by name."""
    return FOLDERS.index(path.partition("/")[0]), path


class Changes:
    """Compares the scratch before and after a phase.

    Args:
        scratch: just looked at, after the phase.
        installed: what the distributions list as theirs.
        is_install: whether it is the phase that put it there.
        tell, changed: take StartupCode, and FileChanged.
        samples: the folder in tmp that our own worker has filled: what lies there is only searched.
        is_second: whether it installs what the package only asks for, and does not declare.

    `drops` is then what the package has left there, within the bounds of what is read.
    """

    def __init__(
        self,
        scratch: Scratch,
        order: Order,
        decoys: Decoys,
        installed: Installed,
        is_install: bool,
        tell: Callable[[Event], object],
        changed: Callable[[FileChanged], object],
        stages: SecondStages | None,
        samples: str | None = None,
        is_second: bool = False,
    ) -> None:
        self.scratch = scratch
        self.order = order
        self.decoys = decoys
        self.installed = installed
        self.is_install = is_install
        self.tell = tell
        self.changed = changed
        self.stages = stages
        self.is_second = is_second
        self.samples = f"tmp/{samples}/" if samples else None
        self.links = Links(scratch.links)
        self.drops: list[Drop] = []

    def compare(self, before: States, after: States, was_stopped: bool) -> None:
        """Tell what changed beyond the files that the installed distributions list as theirs.

        `was_stopped`: whether the phase's own process was killed, by whomever.
        """
        deadline_sec = time.monotonic() + MAX_COMPARE_SEC
        shadows = Shadows(self.installed.owners, after)
        files = sorted(after)
        changed = [path for path in {*before, *after} if before.get(path) != after.get(path)]
        # Home and site first: what lies there lasts.
        for number, path in enumerate(sorted(changed, key=rank)):
            if time.monotonic() > deadline_sec:
                self.scratch.lost["FileChanged, not looked at"] += len(changed) - number
                return
            old, new = before.get(path), after.get(path)
            owners = self.installed.owners
            is_listed = self.is_install and (path in owners or source_of(path) in owners)
            # What came later is not the package's: pip has fetched it for us.
            if is_listed and self.is_second:
                continue
            if self.samples and path.startswith(self.samples):
                self.decoys.search_file(as_seen(path), self.scratch.read(path, "file"))
                continue
            if new:
                self.tell_startup_code(path, is_listed)
            shadowed = shadows.shadowed_by(path) if new and not old else None
            if is_listed and not shadowed:
                continue
            # It had no time to tidy up.
            if was_stopped and path.startswith(PIP_FOLDER):
                continue
            # Told as start-up code. They act in no interpreter that was there.
            if path.endswith(".pth") and is_in_new_environment(path, before, after):
                self.decoys.search_file(as_seen(path), self.scratch.read(path, "file"))
                continue
            self.tell_change(path, old, new, shadowed)
            for reached in self.links.reached_by(path, files):
                self.tell_new_name(path, reached, after[reached])

    def tell_change(
        self, path: str, old: FileState | None, new: FileState | None, shadowed: str | None
    ) -> None:
        """Tell that a file is new, other or gone, by each of its names, and search it for bait."""
        seen = as_seen(path)
        others = tuple(as_seen(name) for name in self.links.other_names(path))
        if not new:
            self.changed(FileChanged(seen, Change.DELETED, None, None, other_paths=others))
            return
        if self.decoys.is_unchanged(seen, new.inode):
            return
        change = Change.MODIFIED if old else Change.CREATED
        hidden = shadowed.removeprefix(f"{self.order.site}/") if shadowed else None
        digest = self.scratch.digest(path)
        told = FileChanged(seen, change, new.size_bytes, None, other_paths=others)
        event = replace(told, shadows=hidden, sha256=digest)
        self.changed(event)
        channel = "" if new.size_bytes else self.scratch.channel_at(path)
        if channel:
            self.tell(ChannelLeft(seen, channel))
        data = self.scratch.read(path, "file")
        if data:
            is_cut = len(data) < new.size_bytes
            drop = Drop(Way.FILE, seen, None, data, new.size_bytes, digest, is_cut)
            self.drops.append(drop)
        self.decoys.search_file(seen, data)
        stage = self.stages.of_file(event, data) if self.stages else None
        if stage:
            self.tell(stage)

    def tell_new_name(self, link: str, path: str, state: FileState) -> None:
        """Tell that a new link to a folder gives a file of it one more name."""
        name = link + path[len(self.links.targets[link]) :]
        self.changed(FileChanged(as_seen(name), Change.CREATED, state.size_bytes, None))

    def tell_startup_code(self, path: str, is_listed: bool) -> None:
        """Tell a file that every interpreter executes when it starts."""
        # What a distribution lists acts only where the interpreter looks: in the folder itself.
        if is_listed and not IN_SITE_PACKAGES.fullmatch(path):
            return
        for line in self.startup_lines(path):
            self.tell(StartupCode(as_seen(path), plain_text(line)))

    def startup_lines(self, path: str) -> list[str]:
        """The different lines that are executed at the start, or a word on them."""
        if CUSTOMIZE.fullmatch(path):
            return ["the whole file"]
        if not path.endswith(".pth"):
            return []
        lines = self.scratch.lines(path, ".pth")
        executed = [line for line in lines if line.startswith(("import ", "import\t"))]
        found = [*dict.fromkeys(executed)]
        if len(found) > MAX_STARTUP_LINES:
            return [*found[:MAX_STARTUP_LINES], f"{len(found) - MAX_STARTUP_LINES} more lines"]
        is_cut = sum(map(len, lines)) + len(lines) >= MAX_FILE_BYTES
        return [*found, "too long to be looked at"] if is_cut else found


def is_in_new_environment(path: str, before: States, after: States) -> bool:
    """Whether a file is in a virtual environment that was made in this phase, as tox does."""
    parts = path.split("/")
    marks = ["/".join([*parts[:depth], "pyvenv.cfg"]) for depth in range(1, len(parts))]
    return any(mark in after and mark not in before for mark in marks)
