"""What an interrupted pip had unpacked: files of the wheels that it was given, of which no RECORD
tells yet. They are the package's as far as those of a finished installation are, and no more.

Hostile input: the list of contents of a wheel.
"""

import re
import zipfile
from collections.abc import Iterable, Mapping

from jail.watch.contents import plain_project
from jail.watch.events import Downloaded, Seen
from jail.watch.installed import Installed, read_installed
from jail.watch.members import BROKEN_ARCHIVE, TooMuch, check_zip_end
from jail.watch.resources import Resources
from jail.watch.scratch import FileState
from jail.watch.upstream import PackageCache

MAX_WHEELS, MAX_UNPACKED = 500, 200_000
# `site/six-1.17.0/lib/python3.11/site-packages/six.py`
IN_LIBRARY = re.compile(r"site/[^/]+/lib(?:64)?/python3\.\d+/site-packages/(.+)", re.DOTALL)


def read_landed(resources: Resources, files: Mapping[str, FileState], is_whole: bool) -> Installed:
    """What an installation has installed; `is_whole`: whether pip came to its end.

    Else a RECORD may be missing.
    """
    installed = read_installed(resources.scratch, files, resources.order)
    if not is_whole:
        unpacked = unpacked_owners(files, resources.record.seen, resources.cache)
        installed.owners = unpacked | installed.owners
    return installed


def unpacked_owners(
    files: Mapping[str, FileState], seen: Iterable[Seen], cache: PackageCache
) -> dict[str, str]:
    """The files of the scratch that have name and size of a wheel's, each with the project."""
    members: dict[tuple[str, int], str] = {}
    given = [known.event for known in seen if isinstance(known.event, Downloaded)]
    wheels = [file for file in given if file.file.endswith(".whl")]
    for wheel in wheels[:MAX_WHEELS]:
        project = plain_project(wheel.file.partition("-")[0])
        for name, size_bytes in contents_of(wheel.sha256, cache):
            if len(members) < MAX_UNPACKED:
                members.setdefault((name, size_bytes), project)
    found = {}
    for path, state in files.items():
        match = IN_LIBRARY.fullmatch(path)
        project = members.get((match[1], state.size_bytes), "") if match else ""
        if project:
            found[path] = project
    return found


def contents_of(sha256: str, cache: PackageCache) -> list[tuple[str, int]]:
    """Name and size of what a wheel holds; nothing of what is none, or is not kept."""
    file = cache.find(sha256)
    if not file:
        return []
    with file:
        try:
            check_zip_end(file)
            with zipfile.ZipFile(file) as wheel:
                return [(member.filename, member.file_size) for member in wheel.infolist()]
        except (*BROKEN_ARCHIVE, TooMuch):
            return []
