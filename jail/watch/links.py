"""The other names of a file of the scratch: those that symbolic links to its folders give it.

Hostile input: the links' names and targets, which may be any, in circles, too.
"""

import os
from bisect import bisect_left

from jail.orders import SCRATCH_FOLDERS, WORK_IN_JAIL

MAX_NAMES = 20  # of one file
MAX_REACHED = 200  # files that one new link gives a new name


def raw_seen(path: str) -> str:
    """A path of the scratch as the jail sees it, its bytes as they are."""
    folder, _, rest = path.partition("/")
    inside = SCRATCH_FOLDERS.get(folder)
    return f"{inside}/{rest}" if inside else f"{WORK_IN_JAIL}/{path}"


def in_scratch(seen: str) -> str | None:
    """The path of the scratch that the jail sees as `seen`; None of what is not of the scratch."""
    places = {WORK_IN_JAIL: ""}
    places |= {inside: folder for folder, inside in SCRATCH_FOLDERS.items() if inside}
    for inside, folder in places.items():
        if seen == inside or seen.startswith(f"{inside}/"):
            return f"{folder}{seen[len(inside) :]}".strip("/")
    return None


class Links:
    """What leads where. `links` are targets by the path of the link, as they stand in it."""

    def __init__(self, links: dict[str, str]) -> None:
        self.sources: dict[str, list[str]] = {}  # links by where they lead
        self.targets: dict[str, str] = {}
        for link, text in links.items():
            folder = os.path.dirname(raw_seen(link))  # noqa: PTH120 - any bytes
            target = in_scratch(os.path.normpath(os.path.join(folder, text)))  # noqa: PTH118
            if target and target.partition("/")[0] in SCRATCH_FOLDERS:
                self.sources.setdefault(target, []).append(link)
                self.targets[link] = target

    def other_names(self, path: str) -> list[str]:
        """By which further paths a file can be reached, at most MAX_NAMES."""
        if not self.sources:
            return []
        names = [path]
        for name in names:
            end = len(name)
            while end > 0 and len(names) <= MAX_NAMES:
                for link in self.sources.get(name[:end], []):
                    other = link + name[end:]
                    if other not in names:
                        names.append(other)
                end = name.rfind("/", 0, end)
        return names[1 : MAX_NAMES + 1]

    def reached_by(self, link: str, files: list[str]) -> list[str]:
        """Of `files`, which are sorted, those in the folder that `link` leads to."""
        target = self.targets.get(link)
        if target is None:
            return []
        start = bisect_left(files, f"{target}/")
        end = bisect_left(files, f"{target}0")  # which follows the slash
        return files[start : min(end, start + MAX_REACHED)]
