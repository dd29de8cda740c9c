"""What an interrupted pip had put in its place: files of the wheels that it was given or has built,
of which no RECORD tells yet, the file that it was just writing, and those that it makes itself.
They are the package's as far as those of a finished installation are, and no more.

Hostile input: the list of contents of a wheel, and its entry points.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import BinaryIO

from jail.watch.contents import SCRIPT_GROUPS, parse_entry_points, plain_project
from jail.watch.events import Downloaded, Seen
from jail.watch.installed import Installed, read_installed
from jail.watch.members import BROKEN_ARCHIVE, READ_METHODS, TooMuch, check_zip_end
from jail.watch.resources import Resources
from jail.watch.scratch import MAX_FILE_BYTES, FileState
from jail.watch.upstream import PackageCache

MAX_WHEELS, MAX_UNPACKED = 500, 200_000
MAX_BUILT_WHEELS = 20
MAX_HALF_WRITTEN = 8  # files that are compared; a pip writes one at a time
MAX_ENTRY_POINTS_BYTES = 64 << 10
# `site/six-1.17.0/lib/python3.11/site-packages/six.py`, `site/x-1.0/include/site/python3.11/x/x.h`,
# `site/x-1.0/bin/x`
IN_PREFIX = re.compile(
    r"site/[^/]+/(?:(lib(?:64)?/python3\.\d+/site-packages/)|(include/site/python3\.\d+/[^/]+/))?"
    r"(.+)",
    re.DOTALL,
)
# `tmp/pip-ephem-wheel-cache-x1y2/wheels/ab/x-1.0-py3-none-any.whl`, which a source has become
BUILT_WHEEL = re.compile(r"tmp/pip-[^/]+/(?:[^/]+/)*([^/-]+)-[^/]+\.whl")
# `x-1.0.data/scripts/x`: not what lands in the library as it is
DATA_MEMBER = re.compile(r"[^/]+\.data/([^/]+)/(.+)", re.DOTALL)
DATA_SCRIPT = re.compile(r"[^/]+\.data/scripts/.+", re.DOTALL)
# `x-1.0.dist-info/INSTALLER`, and what it is called until it is whole: `INSTALLERa1b2c3d_.tmp`
MADE_BY_PIP = re.compile(
    r"([^/]+\.dist-info)/(?:INSTALLER|REQUESTED|RECORD|direct_url\.json)(?:[a-z0-9_]{8}\.tmp)?"
)


class Folder(StrEnum):
    """Where pip puts a file, in an installation's prefix."""

    LIBRARY = "library"
    HEADERS = "headers"
    PREFIX = "prefix"  # all the rest of it


DATA_FOLDERS = {
    "purelib": Folder.LIBRARY,
    "platlib": Folder.LIBRARY,
    "headers": Folder.HEADERS,
}

Place = tuple[Folder, str]  # and the path in it
OpenFile = Callable[[str], BinaryIO]
OpenWheel = Callable[[], BinaryIO | None]


@dataclass(frozen=True)
class Landing:
    """What a wheel puts in one place."""

    project: str
    member: str
    size_bytes: int
    open_wheel: OpenWheel


@dataclass
class Unpacked:
    """What wheels put where: `parts` by their places; `scripts`, which pip makes or changes, and
    the folders of the `metadata`, with their projects.
    """

    parts: dict[Place, list[Landing]] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def add(self, place: Place, part: Landing) -> None:
        if self.count >= MAX_UNPACKED:
            return
        self.count += 1
        self.parts.setdefault(place, []).append(part)
        # The first line names another Python then.
        if DATA_SCRIPT.fullmatch(part.member):
            self.scripts[place[1]] = part.project

    def owner(self, place: Place, size_bytes: int) -> str:
        """Whose a whole file is, or a file that pip makes; "" if it is nobody's."""
        whole = [part for part in self.parts.get(place, []) if part.size_bytes == size_bytes]
        if whole:
            return whole[0].project
        folder, path = place
        if folder == Folder.PREFIX:
            return self.scripts.get(path, "")
        made = MADE_BY_PIP.fullmatch(path) if folder == Folder.LIBRARY else None
        return self.metadata.get(made[1], "") if made else ""

    def longer(self, place: Place, size_bytes: int) -> Landing | None:
        """What a file there may become that is not whole."""
        longer = (part for part in self.parts.get(place, []) if part.size_bytes > size_bytes)
        return next(longer, None)


def read_landed(resources: Resources, files: Mapping[str, FileState], is_whole: bool) -> Installed:
    """What an installation has installed; `is_whole`: whether pip came to its end.

    Else a RECORD may be missing.
    """
    installed = read_installed(resources.scratch, files, resources.order)
    if not is_whole:
        cache, open_file = resources.cache, resources.scratch.open
        unpacked = unpacked_owners(files, resources.record.seen, cache, open_file)
        installed.owners = unpacked | installed.owners
    return installed


def unpacked_owners(
    files: Mapping[str, FileState],
    seen: Iterable[Seen],
    cache: PackageCache,
    open_file: OpenFile,
) -> dict[str, str]:
    """The files of the scratch that an installation of these wheels would have put there, each with
    the project.

    A file has the name and the size of a wheel's, or is the start of it.

    Args:
        open_file: opens a file of the scratch; raises OSError.
    """
    unpacked = Unpacked()
    for project, open_wheel in wheels_of(files, seen, cache, open_file):
        read_wheel(unpacked, project, open_wheel)
    found = {}
    left_compared = MAX_HALF_WRITTEN
    for path, state in files.items():
        place = landed_at(path)
        if not place:
            continue
        project = unpacked.owner(place, state.size_bytes)
        longer = unpacked.longer(place, state.size_bytes)
        if not project and longer and left_compared > 0:
            left_compared -= 1
            project = longer.project if is_start_of(longer, path, open_file) else ""
        if project:
            found[path] = project
    return found


def wheels_of(
    files: Iterable[str], seen: Iterable[Seen], cache: PackageCache, open_file: OpenFile
) -> Iterator[tuple[str, OpenWheel]]:
    """The wheels that pip was given, and those that it has built, each with its project.

    What is built is the project's whose source was given: no build makes a wheel of another's name.
    """
    given = [known.event for known in seen if isinstance(known.event, Downloaded)]
    wheels = [file for file in given if file.file.endswith(".whl")]
    for wheel in wheels[:MAX_WHEELS]:
        project = plain_project(wheel.file.partition("-")[0])
        yield project, partial(cache.find, wheel.sha256)
    sources = {plain_project(file.file.rpartition("-")[0]) for file in given if file not in wheels}
    matches = (match for match in map(BUILT_WHEEL.fullmatch, files) if match)
    built = [match for match in matches if plain_project(match[1]) in sources]
    for match in built[:MAX_BUILT_WHEELS]:
        yield plain_project(match[1]), partial(open_file, match[0])


def read_wheel(unpacked: Unpacked, project: str, open_wheel: OpenWheel) -> None:
    """Add what a wheel holds; nothing of what is none, or is not kept."""
    with suppress(*BROKEN_ARCHIVE, TooMuch), opened(open_wheel) as wheel:
        for member in wheel.infolist():
            name, size_bytes = member.filename, member.file_size
            unpacked.add(landing_place(name), Landing(project, name, size_bytes, open_wheel))
            folder, _, file_name = name.partition("/")
            if file_name == "METADATA":
                unpacked.metadata[folder] = project
            if file_name == "entry_points.txt" and member.compress_type in READ_METHODS:
                with wheel.open(member) as file:
                    text = file.read(MAX_ENTRY_POINTS_BYTES).decode("utf-8", "replace")
                scripts = (e for e in parse_entry_points(text) if e.group in SCRIPT_GROUPS)
                unpacked.scripts |= {f"bin/{script.name}": project for script in scripts}


@contextmanager
def opened(open_wheel: OpenWheel) -> Iterator[zipfile.ZipFile]:
    """A wheel as an archive. Raises TooMuch, and what BROKEN_ARCHIVE names."""
    file = open_wheel()
    if file is None:
        raise TooMuch("it is not kept")
    with file:
        check_zip_end(file)
        with zipfile.ZipFile(file) as wheel:
            yield wheel


def landed_at(path: str) -> Place | None:
    """Where a file of the scratch lies in the prefix, None outside of any."""
    match = IN_PREFIX.fullmatch(path)
    if not match:
        return None
    library, headers, rest = match.groups()
    if library:
        return Folder.LIBRARY, rest
    return (Folder.HEADERS, rest) if headers else (Folder.PREFIX, rest)


def landing_place(member: str) -> Place:
    """Where pip puts what a wheel holds.

    >>> landing_place("x-1.0.data/data/etc/x.conf")
    (<Folder.PREFIX: 'prefix'>, 'etc/x.conf')
    """
    match = DATA_MEMBER.fullmatch(member)
    if not match:
        return Folder.LIBRARY, member
    folder, rest = match.groups()
    if folder == "scripts":
        return Folder.PREFIX, f"bin/{rest}"
    if folder == "data":
        return landed_at(f"site/x/{rest}") or (Folder.PREFIX, rest)
    return DATA_FOLDERS.get(folder, Folder.LIBRARY), rest


def is_start_of(part: Landing, path: str, open_file: OpenFile) -> bool:
    """Whether a file is what a wheel's begins with, as far as is read of it."""
    with suppress(*BROKEN_ARCHIVE, TooMuch), opened(part.open_wheel) as wheel:
        if wheel.getinfo(part.member).compress_type not in READ_METHODS:
            return False
        with open_file(path) as file:
            start = file.read(MAX_FILE_BYTES)
        with wheel.open(part.member) as whole:
            return whole.read(len(start)) == start
    return False
