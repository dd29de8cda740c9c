"""What a project requires on other systems and Pythons alone: nothing of it is installed here.

Hostile input: METADATA.
"""

import re

from jail.watch.contents import plain_project
from jail.watch.well_known import WELL_KNOWN

MAX_REQUIREMENTS = 500
# `Requires-Dist: pywin32>=226; sys_platform == "win32"`
REQUIREMENT = re.compile(
    r"Requires-Dist:\s*([A-Za-z0-9][A-Za-z0-9._-]{0,100})[^;]{0,500};(.{1,500})",
    re.ASCII | re.IGNORECASE,
)
# What has no other markers is wanted by who asks for an extra.
MARKERS = re.compile(r"\b(?:sys_platform|platform_\w+|os_name|python_\w+|implementation_\w+)\b")
EXTRA = re.compile(r"\bextra\b")


def required_elsewhere(metadata: str) -> list[str]:
    r"""The projects, in their canonical form, without those that everybody has.

    >>> required_elsewhere('Name: a\nRequires-Dist: b>=1; os_name == "nt"\nRequires-Dist: c\n')
    ['b']
    """
    found: dict[str, None] = {}
    for line in metadata.partition("\n\n")[0].splitlines():
        match = REQUIREMENT.fullmatch(line.strip())
        if not match or EXTRA.search(match[2]) or not MARKERS.search(match[2]):
            continue
        project = plain_project(match[1])
        if project not in WELL_KNOWN and len(found) < MAX_REQUIREMENTS:
            found[project] = None
    return [*found]
