"""What a package asks for and does not declare: `try: import requests` runs the rest only where
somebody has requests. Installed once more by pip, if the index has it under that name.
"""

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from jail.orders import WORK_IN_JAIL, JailSettings, Order
from jail.watch.contents import plain_project
from jail.watch.events import Outcome, Phase, PhaseName, Seen
from jail.watch.installed import Installed
from jail.watch.noticed import Notice, Noticed
from jail.watch.triggers import Trigger, pip_words
from jail.watch.unmet import project_of
from jail.watch.upstream import JSON_PAGE, MAX_PAGE_BYTES, Refused, Upstream

MAX_SECOND = 5  # projects
MAX_ASKED_NAMES = 12  # names that the index is asked for
MAX_SECOND_BYTES = 3_000_000  # of the smallest wheel
MAX_TOLD_NAMES = 20

# `chardet-5.2.0-py3-none-any.whl`, `brotli-1.1.0-cp311-cp311-manylinux_2_17_x86_64.whl`: what this
# machine can use.
FITTING = re.compile(
    r"[^-]+-[^-]+(?:-\d[^-]*)?-(?:(?:\w+\.)?py3-none-any"
    rf"|(?:cp3{sys.version_info.minor}-cp3{sys.version_info.minor}|cp3\d+-abi3)"
    rf"-\S*linux\S*{os.uname().machine}\S*)\.whl",
    re.ASCII,
)
# `>=3.14`, of the field requires-python.
NEEDED_PYTHON = re.compile(r">=\s*3\.(\d+)")
# What does the same faster, and very many ask for first; then the tools of developers that ask for
# plug-ins themselves. These are told, and not installed: nobody's act waits for what few have.
NOT_NEEDED_NAMES = """
brotli brotlicffi cchardet chardet cjson faust_cchardet fastjson isal lz4 orjson pysimdjson
rapidjson simplejson snappy toml ujson uvloop yajl zlib_ng zstandard
Cython coverage cython flake8 hypothesis mypy nose pylint setuptools sphinx
"""
NOT_NEEDED = frozenset(NOT_NEEDED_NAMES.split())
MODULE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,60}", re.ASCII)
# What other systems and Pythons have in their own library.
ELSEWHERE_NAMES = """
BaseHTTPServer ConfigParser Cookie HTMLParser Queue StringIO Tkinter UserDict __builtin__ _winreg
cPickle cStringIO cookielib commands copy_reg distutils dummy_thread exceptions htmlentitydefs
httplib java md5 new org sets sha thread tkMessageBox urllib2 urlparse xmlrpclib pkg_resources
"""
LIBRARIES_ELSEWHERE = frozenset(ELSEWHERE_NAMES.split())


def missed_modules(seen: Iterable[Seen], installed: Installed) -> list[str]:
    """The top-level modules that the target's own files asked for and did not find."""
    own = {
        name.partition(".")[0] for name in (*installed.contents.first, *installed.contents.tests)
    }
    own_files = set(installed.contents.listed)
    found: dict[str, None] = {}
    for item in seen:
        event = item.event
        if not isinstance(event, Noticed) or event.kind is not Notice.MISSED or event.how:
            continue
        if not MODULE_NAME.fullmatch(event.what):
            continue
        # `/opt/.../work/site/six-1.17.0/lib/python3.11/site-packages/six.py:3`
        place = (event.place or "").removeprefix(f"{WORK_IN_JAIL}/").rpartition(":")[0]
        path = place.split("/", 2)[-1]
        is_library = event.what in sys.stdlib_module_names or event.what in LIBRARIES_ELSEWHERE
        if path in own_files and event.what not in own and not is_library:
            found[event.what] = None
    return [*found]


def wanted(missed: Sequence[str], waited: Sequence[str], settings: JailSettings) -> list[str]:
    """The projects that the index is asked for, by the names of modules; acts wait for those in
    `waited`.
    """
    found: list[str] = []
    denied = {plain_project(name) for name in settings.package_denylist}
    for module in missed[:MAX_ASKED_NAMES]:
        is_waited = module in waited
        project = project_of(module) if is_waited else plain_project(module)
        is_needed = is_waited or module not in NOT_NEEDED
        if is_needed and project not in denied:
            found.append(project)
    return found


def available(projects: Iterable[str], upstream: Upstream) -> list[str]:
    """Those of them that the index has a small wheel of, so many as are installed."""
    found = (project for project in projects if has_small_wheel(project, upstream))
    return [*islice(found, MAX_SECOND)]


def notes_of_missed(missed: Sequence[str], installed: Installed) -> list[str]:
    """Notes on what was missed: what is there now, and what is not."""
    there = {plain_project(project) for project in installed.owners.values()}
    found = [name for name in missed if project_of(name) in there]
    left_out = [name for name in missed if name not in found]
    notes = []
    if found:
        names = ", ".join(map(project_of, found))
        notes.append(f"it asks for what it does not require; installed later: {names}")
    if left_out:
        names = ", ".join(left_out[:MAX_TOLD_NAMES])
        notes.append(f"it asks for modules that are not there: {names}")
    return notes


def has_small_wheel(project: str, upstream: Upstream) -> bool:
    """Whether the index has a wheel of it that is soon loaded."""
    page = io.BytesIO()
    try:
        with upstream.lock:
            upstream.fetch(
                f"{upstream.url.rstrip('/')}/{project}/", JSON_PAGE, page, MAX_PAGE_BYTES
            )
        said: Any = json.loads(page.getvalue())
        files = said["files"]
        sizes = [int(file.get("size") or 0) for file in files if is_for_us(file)]
    except (Refused, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False
    return bool(sizes) and min(sizes[-MAX_ASKED_NAMES:]) <= MAX_SECOND_BYTES


def is_for_us(file: dict[str, Any]) -> bool:
    """Whether a file of a project's page is a wheel that this machine can use."""
    least = NEEDED_PYTHON.search(str(file.get("requires-python")))
    is_too_new = least is not None and int(least[1]) > sys.version_info.minor
    return not is_too_new and FITTING.fullmatch(str(file["filename"])) is not None


def second_installation(order: Order, settings: JailSettings, projects: Sequence[str]) -> Trigger:
    """pip once more, for each alone where they can't be had together. Nothing is built: what is
    foreign to the package runs no code here.
    """
    _, install, *words = pip_words(order, settings.run_timeout_sec, *projects)
    launch = ("pip", install, "--only-binary", ":all:", *words)
    return Trigger(PhaseName.INSTALL, f"of {', '.join(projects)}", launch)


def tries_again(
    projects: Sequence[str],
    first: Sequence[Trigger],
    phases: Sequence[Phase],
    order: Order,
    settings: JailSettings,
    *,
    acts_wait: bool = False,
) -> list[Trigger]:
    """pip once more for `projects`, if the index has any: what is imported later finds them. Then
    what failed of the modules that are imported alone, maybe for want of them; or all that there
    was before (`first`), where acts wait for them.
    """
    if not projects:
        return []
    # A program may have the name of a module, and be short of nothing but arguments.
    imports = [phase for phase in phases if phase.name is PhaseName.IMPORT]
    failed = {phase.trigger for phase in imports if phase.outcome is Outcome.FAILED}
    alone = [trigger for trigger in first if trigger.launch[0] == "import"]
    again = [trigger for trigger in alone if trigger.title in failed]
    return [second_installation(order, settings, projects), *(first if acts_wait else again)]
