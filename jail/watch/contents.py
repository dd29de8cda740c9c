"""What an installed distribution has that can be run: modules, scripts, programs, entry points.

Pure functions on hostile text: METADATA, RECORD and entry_points.txt. Paths are relative to the
prefix of the installation, `lib/python3.11/site-packages/six.py` say.
"""

import csv
import posixpath
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

MAX_RECORD_PATHS = 200_000
MAX_MODULES = 20_000  # as many as the worker in the jail takes
MAX_MODULE_CHARS = 300
MAX_ENTRY_POINTS = 2_000

# `lib/python3.11/site-packages/s06-evil-1.0.dist-info/METADATA`; the folder may be spelled as it
# likes.
METADATA_PATH = re.compile(r"(lib(?:64)?/python3\.\d+/site-packages)/([^/]+)\.dist-info/METADATA")
# `Name: s06_evil`, a line of METADATA before the first blank one.
NAME_LINE = re.compile(r"Name:\s*([A-Za-z0-9._-]{1,200})\s*", re.ASCII | re.IGNORECASE)
# The folder of the metadata without its ending: `s06-evil-1.0`, a name and a version.
FOLDER_NAME = re.compile(r"(.+?)-\d[^-]*")
# `pkg/sub/__init__.py`, `pkg/fast.cpython-311-x86_64-linux-gnu.so`, `pkg/fast.abi3.so`
MODULE_PATH = re.compile(
    r"((?:[^/.]+/)*[^/.]+)(?:\.pyc?|(?:\.cpython-3\d+[a-z0-9_-]*|\.abi3)?\.so)", re.ASCII
)
# Neither a comma nor a line's end, which our own words for the jail have between names.
MODULE_PART = re.compile(r"[\w +@~=!-]+")
# `[console_scripts]`
GROUP_LINE = re.compile(r"\s*\[([^\]]{1,200})\]\s*")
# `black = black:patched_main [extra]`; of a plug-in the attribute may be missing.
ENTRY_LINE = re.compile(
    r"\s*([^=\s][^=]{0,200}?)\s*="
    r"\s*([^\W\d][\w.]{0,200}(?:\s*:\s*[^\W\d][\w.]{0,200})?)\s*(?:\[.*)?"
)
SCRIPT_GROUPS = ("console_scripts", "gui_scripts")
TEST_PARTS = {"test", "tests", "testing", "conftest", "benchmarks", "examples"}


@dataclass(frozen=True)
class EntryPoint:
    """`target` is module:attribute, or a module."""

    group: str
    name: str
    target: str


@dataclass
class Contents:
    """What a distribution has.

    `first` are the shallowest modules with code, which people import; `others` all that are left,
    but `tests`, many of which act when they are imported. `mains` can be run by `python -m`.
    `programs` are files below bin/ that no entry point stands for. `missing` is in RECORD and not
    there.
    """

    listed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    mains: list[str] = field(default_factory=list)
    scripts: list[EntryPoint] = field(default_factory=list)
    plugins: list[EntryPoint] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    left_out: int = 0  # modules beyond the bounds


def plain_project(name: str) -> str:
    """A project's name in its canonical form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_project(metadata: str) -> str | None:
    """The project's name that METADATA has, in its canonical form.

    >>> parse_project("Metadata-Version: 2.1\\nName: s06_evil\\nVersion: 1.0\\n\\nName: other")
    's06-evil'
    """
    for line in metadata.splitlines():
        if not line:
            break
        match = NAME_LINE.fullmatch(line)
        if match:
            return plain_project(match[1])
    return None


def metadata_folders(
    files: Iterable[str], read: Callable[[str], str], project: str
) -> list[tuple[str, str]]:
    """The folders that say they are the metadata of `project`, by METADATA or by their own name.

    Args:
        files: all that there are below the prefix.
        read: the text of one of them.

    Returns:
        for each the site-packages that it lies in, and its own path.
    """
    found = []
    for path in files:
        match = METADATA_PATH.fullmatch(path)
        if not match:
            continue
        named = FOLDER_NAME.fullmatch(match[2])
        names = {parse_project(read(path)), plain_project(named[1] if named else match[2])}
        if project in names:
            found.append((match[1], posixpath.dirname(path)))
    return found


def parse_record(text: str, site: str) -> list[str]:
    """The paths that a RECORD lists, in order; what leads out of the prefix is left out.

    >>> parse_record("six.py,sha256=x,1\\n../../../bin/six,,\\n../../../../etc/x,,", "lib/py/site")
    ['lib/py/site/six.py', 'bin/six']
    """
    paths: dict[str, None] = {}
    try:
        for row in csv.reader(text.splitlines()):
            path = posixpath.normpath(posixpath.join(site, row[0])) if row and row[0] else ""
            if path and not path.startswith(("/", "../")) and path not in (".", ".."):
                paths[path] = None
            if len(paths) >= MAX_RECORD_PATHS:
                break
    except csv.Error:  # a field of more than 128 KiB, say: what came before it counts
        pass
    return [*paths]


def module_name(path: str) -> str | None:
    """The module that a path below site-packages is, None if nobody can import it.

    No import statement can name `a.x-y`, but importlib and the other files of a package can.

    >>> [module_name(path) for path in ("a/__init__.py", "a/b.abi3.so", "a/x-y.py", "a/x,y.py")]
    ['a', 'a.b', 'a.x-y', None]
    """
    match = MODULE_PATH.fullmatch(path) if len(path) <= MAX_MODULE_CHARS else None
    parts = match[1].split("/") if match else []
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    if (
        not parts
        or "__pycache__" in parts
        or not all(MODULE_PART.fullmatch(part) for part in parts)
    ):
        return None
    return ".".join(parts)


def is_test(module: str) -> bool:
    """Whether a module is part of what a package brings to be tested or shown with."""
    parts = module.split(".")
    return not TEST_PARTS.isdisjoint(parts) or parts[-1].startswith("test_")


def shallowest(modules: Collection[str]) -> list[str]:
    """Those with no package above them that has code of its own: of a namespace package each part.

    >>> shallowest(["six", "s.client", "s.client.api"])
    ['six', 's.client']
    """
    there = set(modules)
    found = []
    for module in modules:
        parts = module.split(".")
        above = (".".join(parts[:depth]) for depth in range(1, len(parts)))
        if there.isdisjoint(above):
            found.append(module)
    return found


def parse_entry_points(text: str) -> list[EntryPoint]:
    """All entry points, of all groups.

    >>> parse_entry_points("[console_scripts]\\ngo = a.b:main [x]\\n[pytest11]\\np = a.plug\\n")[1]
    EntryPoint(group='pytest11', name='p', target='a.plug')
    """
    found: dict[tuple[str, str], EntryPoint] = {}
    group = ""
    for line in text.splitlines():
        heading = GROUP_LINE.fullmatch(line)
        if heading:
            group = heading[1].strip()
            continue
        match = None if line.lstrip().startswith(("#", ";")) else ENTRY_LINE.fullmatch(line)
        if match and group and len(found) < MAX_ENTRY_POINTS:
            target = re.sub(r"\s", "", match[2])
            found[group, match[1]] = EntryPoint(group, match[1], target)
    return [*found.values()]


def read_contents(files: Collection[str], read: Callable[[str], str], project: str) -> Contents:
    """What `project` has of the files that are there.

    Args:
        files: all paths below the prefix.
        read: the text of one of them, "" if it cannot be read.
        project: its name in its canonical form.
    """
    there = set(files)
    contents = Contents()
    modules: set[str] = set()
    entries: list[EntryPoint] = []
    for site, folder in metadata_folders(files, read, project):
        listed = parse_record(read(f"{folder}/RECORD"), site)
        contents.listed += [path for path in listed if path in there]
        contents.missing += [path for path in listed if path not in there]
        entries += parse_entry_points(read(f"{folder}/entry_points.txt"))
        named = (
            module_name(path.removeprefix(f"{site}/"))
            for path in contents.listed
            if path.startswith(f"{site}/")
        )
        modules |= {name for name in named if name}
    sort_modules(contents, modules, project)
    contents.scripts = [entry for entry in entries if entry.group in SCRIPT_GROUPS]
    contents.plugins = [entry for entry in entries if entry.group not in SCRIPT_GROUPS]
    contents.scripts.sort(key=lambda entry: (plain_project(entry.name) != project, entry.name))
    made_by_pip = {f"bin/{entry.name}" for entry in contents.scripts}
    contents.programs = [
        path
        for path in contents.listed
        if posixpath.dirname(path) == "bin" and path not in made_by_pip
    ]
    return contents


def sort_modules(contents: Contents, modules: set[str], project: str) -> None:
    """Those that people import, those that are run by `python -m`, tests, and the rest."""

    def rank(module: str) -> tuple[bool, int, str]:
        unlike = plain_project(module.replace(".", "-")) != project
        return unlike, module.count("."), module

    is_main = {module for module in modules if module.rpartition(".")[2] == "__main__"}
    ranked = sorted(modules - is_main, key=rank)
    contents.left_out = max(len(ranked) - MAX_MODULES, 0)
    ranked = ranked[:MAX_MODULES]
    # A package that is nothing but tests is what people import of it.
    first = set(shallowest(ranked))
    contents.first = [module for module in ranked if module in first]
    below = [module for module in ranked if module not in first]
    # Also those that are a program: who runs that is shown what an import runs.
    contents.tests = [module for module in (*below, *sorted(is_main)) if is_test(module)]
    contents.others = [module for module in below if not is_test(module)]
    # Tests that run themselves run for long, and do a lot.
    packages = {
        module.removesuffix("__main__").rstrip(".") for module in is_main if not is_test(module)
    }
    contents.mains = sorted(packages - {""}, key=rank)
