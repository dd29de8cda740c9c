"""Which file a call of Python means, whatever the package gives: bytes, a descriptor of a folder, a
name below a folder, or a text of a class of its own. A part of the audit hook.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Our own names for them: a package may replace those of the modules.
fsdecode, readlink, listdir = os.fsdecode, os.readlink, os.listdir
normal, join, isdir, path_given = os.path.normpath, os.path.join, os.path.isdir, os.fspath

# Where each audit event has the descriptor of the folder that a name is meant below; -1 for none.
# "open" does not tell it.
FOLDER_OF = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.chmod": 2, "os.symlink": 2}
FOLDER_OF |= {"os.rename": 3, "os.link": 3}
OWN_FDS = "/proc/self/fd"
MAX_OPEN_FOLDERS = 20  # that a process has open and that a name may be meant below


def given_path(what: Any) -> str | None:
    """The path that was given, of no class but str; None of a descriptor."""
    if what is None:
        return "."
    if isinstance(what, int):
        return None
    given = path_given(what)
    return fsdecode(bytes(given)) if isinstance(given, bytes) else str.__str__(given)


def absolute(what: Any) -> str:
    """As os.path.abspath says it, at a small cost: below a folder that is deeper than the kernel
    can tell, which costs Python as many steps as it is deep, a path stays as it is.
    """
    path = given_path(what) or ""
    if path[:1] == "/":
        return normal(path)
    try:
        folder = readlink("/proc/self/cwd")
    except OSError:
        return path
    return normal(join(folder, path))


def below_folder(fd: int, path: str) -> str:
    """A path below the folder of a descriptor."""
    try:
        return normal(join(readlink(f"{OWN_FDS}/{fd}"), path))
    except OSError:
        return path


def meant(event: str, arguments: tuple[Any, ...], position: int) -> list[str]:
    """The files that a call may mean."""
    what = arguments[position]
    path = given_path(what)
    if path is None:
        # A file that is open was told when it was opened; a folder may be listed by its descriptor.
        return [below_folder(what, "")] if event in ("os.listdir", "os.scandir") else []
    if path[:1] == "/":
        return [normal(path)]
    if event in FOLDER_OF and FOLDER_OF[event] < len(arguments):
        fd = arguments[FOLDER_OF[event]]
        if isinstance(fd, int) and fd >= 0:
            return [below_folder(fd, path)]
    found = [absolute(path)]
    # os.open, which alone has no mode.
    if event == "open" and arguments[1] is None:
        found += [normal(join(folder, path)) for folder in open_folders()]
    return found


def open_folders() -> list[str]:
    """The folders that this process has open."""
    found = []
    for fd in listdir(OWN_FDS)[:MAX_OPEN_FOLDERS]:
        try:
            place = readlink(f"{OWN_FDS}/{fd}")
        except OSError:
            continue
        if place[:1] == "/" and isdir(place) and not place.startswith("/proc/"):
            found.append(place)
    return found
