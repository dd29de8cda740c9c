"""What a release has beside what was run: its other files, and rows of RECORD for files that are
not there. Both are told and no more: numpy has sixty wheels.
"""

import re
from collections.abc import Collection, Iterable

from jail.orders import Order
from jail.watch.events import Downloaded, Seen
from jail.watch.installed import Installed
from jail.watch.scratch import as_seen

MAX_TOLD_FILES = 5
MAX_RELEASE_FILES = 2_000
# `numpy-2.1.3-cp311-cp311-win32.whl`, `my-pkg-1.0.tar.gz`, `my_pkg-1.0-py2.7.egg`,
# `my-pkg-1.0.win32-py2.7.exe`: the version of a file.
FILE_VERSION = re.compile(
    r"(?:[^-]+-([^-]+)-.+\.(?:whl|egg)|.+-([0-9][^-]*?)(?:\.tar\.\w+|\.zip|\.tgz|\.win.*\.exe))",
    re.ASCII,
)


def is_of_version(file: str, version: str) -> bool:
    """Whether a file of a project's page has this version, however many zeros end it."""
    match = FILE_VERSION.fullmatch(file.lower())
    return match is not None and bare(match[1] or match[2]) == bare(version)


def bare(version: str) -> str:
    """
    >>> [bare(version) for version in ("1.0.0", "1", "1.10")]
    ['1', '1', '1.10']
    """
    return re.sub(r"(?:\.0+)+$", "", version)


def other_files(release: Collection[str], seen: Iterable[Seen]) -> str:
    """Which files of the release pip did not take, source first; "" where there are none."""
    taken = {item.event.file for item in seen if isinstance(item.event, Downloaded)}
    # With none of them there was no installation, which is told elsewhere.
    others = sorted(set(release) - taken, key=lambda file: (file.endswith(".whl"), file))
    if not others or len(others) == len(release):
        return ""
    return f"other files of the release, not looked at (artifact chooses): {first_names(others)}"


def absent_files(missing: Collection[str], site: str) -> str:
    """What RECORD lists and nobody finds; "" where it is all there."""
    if not missing:
        return ""
    paths = [as_seen(f"{site}/{path}") for path in missing]
    return f"its RECORD lists files that are not there: {first_names(paths)}"


def beside(
    release: Collection[str], seen: Iterable[Seen], installed: Installed, order: Order
) -> list[str]:
    """Notes on all that."""
    told = [other_files(release, seen), absent_files(installed.contents.missing, order.site)]
    elsewhere = [name for name in installed.elsewhere if name not in installed.owners.values()]
    if elsewhere:
        names = first_names(elsewhere)
        told.append(f"required on other systems or Pythons, not looked at: {names}")
    return [note for note in told if note]


def first_names(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    told = [*names][:MAX_TOLD_FILES]
    more = len(names) - len(told)
    return ", ".join(told) + (f" and {more} more" if more else "")
