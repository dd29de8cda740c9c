"""What the index says of the release that was asked for: why pip finds nothing, whether it was
yanked.

Hostile input: the index's page of the project, whose owner wrote parts of it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jail.orders import Order
from jail.watch.contents import plain_project
from jail.watch.events import Event, Outcome, Phase, printable
from jail.watch.noticed import ReleaseNoted
from jail.watch.releases import version_key

MAX_SAID_CHARS = 200  # of a reason that the page gives
MAX_PLATFORMS = 4  # that are named
# pip's last word: `No matching distribution found for six>=2`
NOTHING_FOUND = re.compile(r"No matching distribution found for (([A-Za-z0-9._-]+)[^\s(]*)")
# `{"python":"3.11"` in pip's User-Agent. pip asks for the target's page before any of its code.
PYTHON_OF_PIP = re.compile(rb'"python":"(\d{1,2})\.(\d{1,3})')
SDIST_END = re.compile(r"\.(?:tar\.(?:gz|bz2|xz)|tgz|zip)", re.ASCII)
STATUS_FIELDS = (
    ("project-status", "status", "reason"),
    ("meta", "project-status", "project-status-reason"),
)
# `>=3.8`, `!=3.0.*`, `~=3.9`, `<4`
CLAUSE = re.compile(r"\s*(~=|==|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?\s*", re.ASCII)


@dataclass
class Offered:
    """What a project's page says of one version. `is_there`: whether there is a page at all."""

    is_there: bool = False
    status: str = ""  # PEP 792: "quarantined"
    status_reason: str = ""
    versions: list[str] = field(default_factory=list)  # of all files, as the page has them
    files: list[str] = field(default_factory=list)  # names, of the version
    wants: list[str] = field(default_factory=list)  # of each file, what Python it requires
    yanked: str | None = None  # the reason, "" for none


def said_by(value: Any) -> str:
    return printable(str(value).encode(errors="replace"))[:MAX_SAID_CHARS]


def version_in(name: str) -> str:
    """The version in a file's name, "" for what is no file of a release.

    `six-1.17.0-py2.py3-none-any.whl`, `python-dateutil-2.9.0.tar.gz`
    """
    if name.endswith(".whl"):
        return name.split("-")[1] if name.count("-") >= 4 else ""
    end = SDIST_END.search(name)
    return name[: end.start()].rpartition("-")[2] if end else ""


def bare_version(version: str) -> str:
    """1.0 and 1.0.0 are the same; a wheel has `_` for what is `+` elsewhere."""
    return re.sub(r"(?:\.0)+$", "", version.lower().replace("_", "+"))


def newest_of(versions: Sequence[str]) -> str:
    """The last in the order of PEP 440; a page may have them in the order of their letters.

    >>> newest_of(["1.10.0", "1.9.0", "nightly"])
    '1.10.0'
    """
    found = ((version_key(bare_version(version)), version) for version in versions)
    known = [(key, version) for key, version in found if key]
    return max(known)[1] if known else versions[-1]


def status_in(page: dict[str, Any]) -> tuple[str, str]:
    """The status of a project (PEP 792) and its reason, "" where none is said; as the specification
    has it, and as its example does.

    {"project-status": {"status": "quarantined", "reason": "malware"}}
    {"meta": {"project-status": "quarantined", "project-status-reason": "malware"}}
    """
    for place, status, reason in STATUS_FIELDS:
        found = page.get(place)
        if isinstance(found, dict) and found.get(status):
            return said_by(found[status]), said_by(found.get(reason) or "")
    return "", ""


def read_page(page: dict[str, Any], version: str) -> Offered:
    """Read a project page (PEP 691) for one version. Raises ValueError, LookupError, TypeError
    or AttributeError for what is no such page.

    {"project-status": {"status": "quarantined", "reason": "malware"}, "files": [{"filename":
    "a-1.0.tar.gz", "requires-python": ">=3.8", "yanked": "broken"}]}
    """
    offered = Offered(is_there=True)
    offered.status, offered.status_reason = status_in(page)
    for entry in page["files"]:
        name = str(entry["filename"])
        found = version_in(name)
        offered.versions.append(found)
        if bare_version(found) != bare_version(version):
            continue
        offered.files.append(name)
        offered.wants.append(str(entry.get("requires-python") or ""))
        yanked = entry.get("yanked")
        if yanked:
            offered.yanked = "" if yanked is True else said_by(yanked)
    return offered


def suits(wanted: str, python: tuple[int, int]) -> bool:
    """Whether a file wants such a Python (`>=3.8,<4`); what can't be read is no hurdle.

    Of a version with three parts only the first two are compared.
    """
    for text in wanted.split(","):
        clause = CLAUSE.fullmatch(text)
        if not clause:
            continue
        sign, number = clause[1], tuple(int(part) for part in clause[2].split("."))[:2]
        own = python[: len(number)]
        is_whole = clause[3] is not None or len(clause[2].split(".")) <= 2
        if sign == ">=" and own < number:
            return False
        if sign == "<=" and own > number:
            return False
        if sign == ">" and (own < number or (own == number and is_whole)):
            return False
        if sign == "<" and (own > number or (own == number and is_whole)):
            return False
        if sign == "==" and own != number:
            return False
        if sign == "!=" and own == number and is_whole:
            return False
        if sign == "~=" and not (own >= number and own[:1] == number[:1]):
            return False
    return True


def why_not_found(
    offered: Offered, order: Order, python: tuple[int, int] | None, printed: str
) -> str:
    """In one sentence, why pip found nothing of what it names in what it printed."""
    wanted = NOTHING_FOUND.search(printed)
    if not wanted:
        return ""
    if plain_project(wanted[2]) == order.package_name:
        return why_nothing(offered, order, python)
    # What is said of the release is not why.
    needed = said_by(wanted[1])
    return f"{order.package_name} needs {needed}, of which the index has nothing that fits here"


def why_nothing(offered: Offered, order: Order, python: tuple[int, int] | None) -> str:
    """In one sentence, why pip finds nothing to install; "" where the page does not say."""
    name, version = order.package_name, order.version
    if not offered.is_there:
        return f"the index has no project {name}: it was removed, or was never there"
    if offered.status == "quarantined":
        reason = f" ({offered.status_reason})" if offered.status_reason else ""
        return f"the index has quarantined {name}{reason}: it gives out none of its files"
    if not offered.versions:
        return f"the index names no file of {name}: all its releases were removed"
    if not offered.files:
        newest = said_by(newest_of(offered.versions))
        return f"the index has no version {version} of {name}; the newest that it names is {newest}"
    wants = [wanted for wanted in offered.wants if wanted]
    if python and wants and not any(suits(wanted, python) for wanted in offered.wants):
        of_ours = ".".join(map(str, python))
        return f"{name} {version} requires Python {said_by(wants[0])}, and the jail's is {of_ours}"
    return no_fitting_file(offered, order)


def no_fitting_file(offered: Offered, order: Order) -> str:
    """Where there are files, but none of the kind that is needed."""
    name, version, artifact = order.package_name, order.version, order.artifact
    wheels = [file for file in offered.files if file.endswith(".whl")]
    if artifact == "sdist" and len(wheels) == len(offered.files):
        return f"{name} {version} has no source distribution, only wheels"
    if artifact == "wheel" and not wheels:
        return f"{name} {version} has no wheel, only a source distribution"
    if artifact and artifact not in ("sdist", "wheel", *offered.files):
        return f"{name} {version} has no file {artifact}"
    if wheels and (len(wheels) == len(offered.files) or artifact in ("wheel", *wheels)):
        # `a-1.0-cp312-cp312-win_amd64.whl`
        platforms = dict.fromkeys(said_by(" ".join(file[:-4].split("-")[-3::2])) for file in wheels)
        named = ", ".join([*platforms][:MAX_PLATFORMS])
        left = len(platforms) - MAX_PLATFORMS
        more = f" and {left} more" if left > 0 else ""
        return f"{name} {version} has only wheels for other machines or Pythons: {named}{more}"
    return ""


def tell_release(
    offered: Offered,
    order: Order,
    phase: Phase,
    python: tuple[int, int] | None,
    tell: Callable[[Event], object],
) -> None:
    """Say of a first installation that failed why there was nothing, and that a release which was
    asked for is yanked.
    """
    if phase.outcome is Outcome.FAILED and not phase.reason:
        phase.reason = why_not_found(offered, order, python, phase.stderr.text)
    if offered.yanked is not None:
        reason = f": {offered.yanked}" if offered.yanked else ", without a reason"
        name = f"{order.package_name} {order.version}"
        tell(ReleaseNoted(f"{name} was yanked by its owner{reason}"))
    if offered.status in ("archived", "deprecated"):
        tell(ReleaseNoted(f"the project is {offered.status} (PEP 792)"))
