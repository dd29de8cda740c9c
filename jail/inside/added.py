"""Finds the modules in folders and archives that a .pth file has added to the path: no list of the
distribution says that they can be imported.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

MAX_ADDED = 2000  # modules
MAX_ADDED_SEEN = 20_000  # files
ENDINGS = (".py", ".pyc")


def added_places(site: str) -> list[str]:
    """What the path has below the installation, beside its site-packages."""
    prefix = site.partition("/lib/python")[0]
    return [place for place in sys.path if place.startswith(f"{prefix}/") and place != site]


def files_in(place: str) -> Iterator[str]:
    """The files of a folder or an archive, relative to it."""
    if not os.path.isdir(place):
        # Loaded where there is an archive: few packages have one.
        import zipfile

        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(place) as archive:
            yield from archive.namelist()
        return
    for folder, _, names in os.walk(place):
        below = folder.removeprefix(place).lstrip("/")
        yield from (f"{below}/{name}".lstrip("/") for name in names)


def added_modules(site: str) -> list[str]:
    """Their names, as `import` takes them from there."""
    found: dict[str, None] = {}
    seen = 0
    for place in added_places(site):
        try:
            for path in files_in(place):
                seen += 1
                name = path.removesuffix("c").removesuffix(".py").removesuffix("/__init__")
                parts = name.split("/")
                is_code = path.endswith(ENDINGS) and all(part and "." not in part for part in parts)
                if is_code and parts[-1] != "__main__" and "__pycache__" not in parts:
                    found[".".join(parts)] = None
                if seen >= MAX_ADDED_SEEN or len(found) >= MAX_ADDED:
                    return [*found]
        # No folder and no archive, or a broken archive.
        except (OSError, ImportError, ValueError):
            continue
    return [*found]
