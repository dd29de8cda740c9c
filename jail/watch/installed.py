"""What pip has installed: the files that the distributions list as theirs, and what of them can be
run.

Hostile input: the metadata of wheels, METADATA, RECORD and entry_points.txt.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from jail.orders import WORK_IN_JAIL, Order
from jail.watch.contents import (
    METADATA_PATH,
    Contents,
    metadata_folders,
    parse_project,
    parse_record,
    plain_project,
    read_contents,
)
from jail.watch.foreign import made_for_others
from jail.watch.requirements import required_elsewhere
from jail.watch.scratch import Scratch
from jail.watch.well_known import WELL_KNOWN

MAX_RECORD_BYTES = 8 << 20  # plotly's has 2 MB
MAX_DEPENDENCIES = 200  # whose modules are looked for
PROGRAM_START_BYTES = 256
# What acts at the start of an interpreter, wherever it lies: `six.pth`, `sitecustomize.py`.
STARTUP_FILE = re.compile(r".*(?:\.pth|/(?:site|user)customize(?:/.*|\.[^/]*))", re.DOTALL)


@dataclass
class Installed:
    """`owners` are the paths in the scratch that a RECORD names, with the project that does.

    `site` is the site-packages of the target, relative to its prefix, and `contents` what the
    target has; `dependencies` are the shallowest modules of the other projects, and what
    these plug in elsewhere. `natives` are the
    target's programs that no Python runs. `has_startup`: whether there are files, whosever, that
    act at the start of an interpreter.
    """

    owners: dict[str, str] = field(default_factory=dict)
    site: str = ""
    contents: Contents = field(default_factory=Contents)
    elsewhere: list[str] = field(default_factory=list)  # what it requires on some
    dependencies: dict[str, list[str]] = field(default_factory=dict)
    more_dependencies: int = 0  # than are looked at
    natives: set[str] = field(default_factory=set)
    has_startup: bool = False
    foreign: str = ""  # what of the target no Python of ours imports, in one line
    files: frozenset[str] = frozenset()  # all that there are, relative to the prefix

    @property
    def is_there(self) -> bool:
        """Whether the target has landed, whatever pip says."""
        return bool(self.site)


def read_installed(scratch: Scratch, files: Collection[str], order: Order) -> Installed:
    """Read the metadata of every distribution in the install target."""
    prefix = f"{order.site}/"
    below = frozenset(path.removeprefix(prefix) for path in files if path.startswith(prefix))
    texts: dict[str, str] = {}

    def read(path: str) -> str:
        if path not in texts:
            # Each is asked for again.
            lines = scratch.lines(prefix + path, "RECORD", MAX_RECORD_BYTES)
            texts[path] = "\n".join(lines)
        return texts[path]

    has_startup = any(STARTUP_FILE.fullmatch(path) for path in files)
    installed = Installed(files=below, has_startup=has_startup)
    for path in sorted(below):
        match = METADATA_PATH.fullmatch(path)
        if not match:
            continue
        project = parse_project(read(path)) or plain_project(match[2])
        record = read(f"{path.rpartition('/')[0]}/RECORD")
        for listed in parse_record(record, match[1]):
            if listed in below:
                installed.owners.setdefault(prefix + listed, project)
        if project != order.package_name and len(installed.dependencies) < MAX_DEPENDENCIES:
            installed.dependencies[project] = []
        elif project != order.package_name and project not in WELL_KNOWN:
            installed.more_dependencies += 1
    read_target(installed, scratch, order, read)
    for project in installed.dependencies:
        contents = read_contents(below, read, project)
        # Whose programs load plug-ins loads those of dependencies, too.
        plugged = [plugin.target for plugin in contents.plugins]
        installed.dependencies[project] = [*contents.first, *plugged]
    return installed


def read_target(
    installed: Installed, scratch: Scratch, order: Order, read: Callable[[str], str]
) -> None:
    """What the target itself has."""
    folders = metadata_folders(installed.files, read, order.package_name)
    installed.site = folders[0][0] if folders else ""
    installed.contents = read_contents(installed.files, read, order.package_name)
    for _, folder in folders:
        installed.elsewhere += required_elsewhere(read(f"{folder}/METADATA"))

    def start_of(path: str, most_bytes: int) -> bytes:
        return scratch.read(f"{order.site}/{path}", "compiled", most_bytes)

    installed.foreign = made_for_others(installed.site, installed.contents.listed, start_of)
    for program in installed.contents.programs:
        start = scratch.read(f"{order.site}/{program}", "program", PROGRAM_START_BYTES)
        # `#!/opt/.../bin/python`
        first_line = start.partition(b"\n")[0]
        if not (first_line.startswith(b"#!") and b"python" in first_line):
            installed.natives.add(program)


def reader_of(place: str | None, installed: Installed, order: Order) -> str | None:
    """The project whose file a place (`/.../site-packages/six.py:3`) is in, by what is listed."""
    start = f"{WORK_IN_JAIL}/"
    if not place or not place.startswith(f"{start}{order.site}/"):
        return None
    return installed.owners.get(place.removeprefix(start).rpartition(":")[0])
