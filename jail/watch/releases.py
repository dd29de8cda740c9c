"""The releases of a project, by the names of its files: which of them came just before another.

Pure functions on what an index's page names: any text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from jail.watch.contents import plain_project

# `1.0`, `2!1.0rc1.post2.dev3+local.1`, in any spelling that PEP 440 allows.
VERSION = re.compile(
    r"v?(?:(?P<epoch>\d{1,20})!)?(?P<release>\d{1,20}(?:\.\d{1,20}){0,40})"
    r"(?:[-_.]?(?P<stage>alpha|a|beta|b|preview|pre|rc|c)[-_.]?(?P<stage_number>\d{0,20}))?"
    r"(?:-(?P<bare>\d{1,20})|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_number>\d{0,20}))?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_number>\d{0,20}))?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+){0,40}))?",
    re.ASCII | re.IGNORECASE,
)
STAGES = {"a": 0, "alpha": 0, "b": 1, "beta": 1, "c": 2, "rc": 2, "pre": 2, "preview": 2}
BEFORE_STAGES, AFTER_STAGES = (-1, 0), (9, 0)
# `six-1.17.0-py2.py3-none-any.whl`, `x-1.0-2-cp311-cp311-linux_x86_64.whl`: with a build number
WHEEL_FILE = re.compile(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+-[^-]+-[^-]+)\.whl", re.IGNORECASE)
# `a-package-1.0.tar.gz`: the version begins after the last dash
SDIST_FILE = re.compile(r"(.+)-([^-]+)(\.tar\.gz|\.zip)", re.IGNORECASE)

# What to compare two versions by.
VersionKey = tuple[
    *tuple[int, tuple[int, ...], tuple[int, int], int],
    *tuple[tuple[int, int], tuple[tuple[int, int, str], ...]],
]


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a release, as its name says. `tags` are what a wheel is for."""

    name: str
    project: str
    version: str
    key: VersionKey
    is_early: bool  # a pre-release, or a developer's
    is_wheel: bool
    tags: str


def version_key(version: str) -> VersionKey | None:
    """What orders a version among others, as PEP 440 has it; None of what is none."""
    match = VERSION.fullmatch(version)
    if not match:
        return None
    release = [int(part) for part in match["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    stage, post, dev = AFTER_STAGES, -1, (1, 0)
    if match["stage"]:
        stage = STAGES[match["stage"].lower()], int(match["stage_number"] or 0)
    if match["bare"] or match["post"]:
        post = int(match["bare"] or match["post_number"] or 0)
    if match["dev"]:
        dev = 0, int(match["dev_number"] or 0)
    # `1.0.dev1` comes before `1.0a1`.
    if match["dev"] and stage == AFTER_STAGES and post < 0:
        stage = BEFORE_STAGES
    local = re.split("[-_.]", match["local"].lower()) if match["local"] else []
    parts = tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in local)
    return int(match["epoch"] or 0), tuple(release), stage, post, dev, parts


def parse_file(name: str) -> ReleaseFile | None:
    """What the name of a file says; None of what is neither a wheel nor a source distribution.

    >>> parse_file("a_package-1.0rc1-py3-none-any.whl").project
    'a-package'
    """
    wheel = WHEEL_FILE.fullmatch(name)
    match = wheel or SDIST_FILE.fullmatch(name)
    key = version_key(match[2].replace("_", "-")) if match else None
    if not match or not key:
        return None
    _, _, stage, _, dev, _ = key
    is_early = stage != AFTER_STAGES or dev[0] == 0
    return ReleaseFile(
        name, plain_project(match[1]), match[2], key, is_early, wheel is not None, match[3]
    )


def likeness(platform: str, other: str) -> tuple[int, bool]:
    """How much the tags of two wheels have in common: parts, and above all the last, the system."""
    pairs = list(zip(platform.split("-"), other.split("-"), strict=False))
    return sum(mine == yours for mine, yours in pairs), pairs[-1][0] == pairs[-1][1]


def earlier_file(target: ReleaseFile, others: Iterable[str]) -> ReleaseFile | None:
    """The file of the same kind from the release before the target's.

    Args:
        others: the names of files that were not withdrawn, of any release.
    """
    before = []
    for name in others:
        file = parse_file(name)
        is_alike = file is not None and file.project == target.project
        if file and is_alike and file.is_wheel == target.is_wheel and file.key < target.key:
            before.append(file)
    # A pre-release is what people had before only where they look for such.
    ready = [file for file in before if not file.is_early]
    if ready and not target.is_early:
        before = ready
    newest = max((file.key for file in before), default=None)
    of_newest = [file for file in before if file.key == newest]
    return max(
        of_newest, key=lambda file: (likeness(file.tags, target.tags), file.name), default=None
    )
