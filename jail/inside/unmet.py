"""Looks in the source for what is not run because another project is not there: `try: import numpy`
and an act after that. Who has numpy runs it. And for what an import runs on a condition only.

Runs no code of the package, in a child of the launcher, as gates.py. Only what would be run is
looked at: the modules themselves, and the functions that they call.
"""

import ast
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from jail.inside.branches import Left, UnmetInFile
from jail.inside.ending import Teller, now_sec
from jail.inside.fallen import UNMET_NOT_LOOKED_AT
from jail.inside.gates import MAX_TEXT_DEPTH, SourceFile, texts_in
from jail.inside.held_back import called_by_imports, held_acts, may_hold
from jail.inside.rest import act_among, run_in
from jail.inside.sources import MAX_ASKED_BYTES, MAX_LOOKED_BYTES, code_in, files_of, start_of
from jail.inside.statements import tree_of
from jail.inside.words import read_names

MAX_UNMET_SEC = 10.0  # of the processor
MAX_UNMET = 20
MORE_UNMET = f"more than {MAX_UNMET} acts are behind what is not there"
HELD_TEXT = "{} is behind a condition that may not be met here ({})"

# What is imported: `from a.b import c`, `import a, b as c`; backslashes and all. In a text that is
# executed, the `n` of a line's end may stand before it.
GAP = rb"[\s\\]+"
ONE_NAME = rb"[\w.]+(?:" + GAP + rb"as" + GAP + rb"\w+)?"
IMPORTED = re.compile(
    rb"from" + GAP + rb"([\w.]+)" + GAP + rb"import\b"
    rb"|import" + GAP + rb"(" + ONE_NAME + rb"(?:[\s\\]*,[\s\\]*" + ONE_NAME + rb")*)"
)
# By which a project is asked for in another way; what goes on where one is not there. Each is
# looked for by itself: among all at once, it takes many times as long.
ASKING_WORDS = (
    *(b"find_spec", b"find_loader", b"find_module", b"import_module", b"__import__"),
    *(b"pkg_resources", b"pkgutil", b"importlib_metadata", b"importlib.metadata"),
)
METADATA_WORD, ASKED_METADATA = b"metadata", re.compile(rb"importlib\s+import\b[^\n]*\bmetadata\b")
LOADED_WORD, LOADED = b"modules", re.compile(rb"\.\s*modules\b|\bsys\s+import\b")  # sys.modules
CATCHING_WORDS = (b"except", b"suppress")
# What executes a text; see texts_in.
TEXT_WORDS = re.compile(r"\b(?:exec|eval)\b")
# `[console_scripts]` and `spam:main` of `spam = spam:main`, in entry_points.txt.
ENTRY_GROUPS = re.compile(r"^\s*\[", re.MULTILINE)
PROGRAM_GROUPS = ("console_scripts]", "gui_scripts]")
TARGET = re.compile(r"=\s*([\w.]+)\s*:\s*(\w+)")


def named_like(project: str) -> str:
    """A project's name as most modules have it: `google_auth` of "Google-Auth"."""
    return re.sub(r"[-_.]+", "_", project).lower()


class There:
    """Which modules can be imported, by what lies in the site-packages."""

    def __init__(self, site: str) -> None:
        own = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        # The interpreter's own has pip. Its prefix would be that of the Python which it is made of:
        # the launcher runs without `site`.
        prefix = sys.executable.rpartition("/bin/")[0]
        self.sites = [site, f"{prefix}/{own}"]
        self.known: dict[str, str] = {}
        self.folders: dict[str, set[str]] = {}
        self.projects: set[str] = set()

    def parts_of(self, folder: str) -> set[str]:
        """The modules in a folder."""
        if folder not in self.folders:
            self.folders[folder] = {name.partition(".")[0] for name in self.names_in(folder)}
        return self.folders[folder]

    def missing(self, name: str) -> str:
        """The project that a module is in, if it is not there: "" if it is."""
        if name not in self.known:
            parts = name.split(".")
            is_ours = parts[0] in sys.stdlib_module_names or parts[0] in ("", "__main__")
            missing = "" if is_ours else self.missing_in(self.sites[0], parts)
            for site in self.sites[1:] if missing else ():
                missing = missing and self.missing_in(site, parts) and missing
            self.known[name] = missing
        return self.known[name]

    def absent(self, project: str) -> str:
        """The module that a project is named like, if no project of that name is there."""
        if not self.projects:
            folders = [name for site in self.sites for name in self.names_in(site)]
            metadata = [name for name in folders if name.endswith((".dist-info", ".egg-info"))]
            self.projects = {
                named_like(name.rpartition(".")[0].partition("-")[0]) for name in metadata
            }
        name = named_like(project)
        return "" if name in self.projects else name

    def names_in(self, folder: str) -> list[str]:
        return os.listdir(folder) if os.path.isdir(folder) else []

    def missing_in(self, folder: str, parts: Sequence[str]) -> str:
        """`google.cloud.storage` where only google.cloud is there; below a package with code of its
        own anything may be.
        """
        for depth, part in enumerate(parts, 1):
            if part not in self.parts_of(folder):
                return ".".join(parts[:depth])
            folder = f"{folder}/{part}"
            if not os.path.isdir(folder) or "__init__" in self.parts_of(folder):
                return ""
        return ""


def asks_for_others(data: bytes, missing: Callable[[str], str], *, is_started: bool) -> bool:
    """Whether a file may ask for what is not there, and go on without: most do not, and are not
    parsed.
    """
    if any(word in data for word in ASKING_WORDS):
        return True
    if LOADED_WORD in data and LOADED.search(data):
        return True
    if METADATA_WORD in data and ASKED_METADATA.search(data):
        return True
    # Of a program, that it fails is no gap.
    if not is_started and not any(word in data for word in CATCHING_WORDS):
        return False
    asked: set[bytes] = set()
    for match in IMPORTED.finditer(data):
        for part in (match[1] or match[2]).split(b","):
            asked.add((part.replace(b"\\", b" ").split() or [b""])[0])
    return any(missing(name.decode("utf-8", "replace")) for name in asked)


def act_in_left(source: SourceFile, left: Left) -> tuple[str, int] | None:
    """The first act and its line in what is not run. What the missing project itself does there is
    none of it: `numba.jit(nopython=True)(function)`.
    """
    nodes = (node for node in run_in(left.nodes) if root_of(source, node) != left.project)
    return act_among(source, nodes, is_strict=True)


def root_of(source: SourceFile, node: ast.AST) -> str:
    """The first part of the name that a call begins with, "" of what is no call."""
    root: ast.AST | None = node if isinstance(node, ast.Call) else None
    while isinstance(root, ast.Call | ast.Attribute | ast.Subscript):
        root = root.func if isinstance(root, ast.Call) else root.value
    return source.name_of(root).partition(".")[0] if isinstance(root, ast.Name) else ""


def unmet_acts(
    text: str,
    missing: Callable[[str], str],
    entries: Collection[str] = (),
    *,
    absent: Callable[[str], str] | None = None,
    is_program: bool = False,
    depth: int = 0,
) -> Iterator[tuple[str, int, str]]:
    """The acts in some source behind projects that are not there: project, line and act. Raises
    RecursionError or MemoryError where it is too deep to be looked at.

    Args:
        entries: functions that are called from elsewhere.
        absent: as `missing`, of a project by its own name.
        is_program: it is run as `__main__`.
    """
    try:
        tree = tree_of(text)
        walker = UnmetInFile(tree, missing, absent or missing, is_program)
        walker.walk(entries)
        source = SourceFile(tree) if walker.found else walker.source
        found = [(left.project, act_in_left(source, left)) for left in walker.found]
        has_texts = depth < MAX_TEXT_DEPTH and TEXT_WORDS.search(text)
        inner = [*texts_in([*ast.walk(tree)])] if has_texts else []
    # Python does not run it either.
    except (SyntaxError, ValueError):
        return
    for project, act in found:
        if act:
            yield project, act[1], act[0]
    for text_inside in inner:
        for project, _, act_inside in unmet_acts(
            text_inside, missing, absent=absent, depth=depth + 1
        ):
            yield project, 1, act_inside


def called_by_programs(site: str) -> dict[str, set[str]]:
    """The functions that programs are, by their module."""
    found: dict[str, set[str]] = {}
    for name in os.listdir(site) if os.path.isdir(site) else ():
        path = f"{site}/{name}/entry_points.txt"
        text = code_in(path, start_of(path)) if name.endswith(".dist-info") else ""
        for group in ENTRY_GROUPS.split(text):
            targets = TARGET.findall(group) if group.startswith(PROGRAM_GROUPS) else []
            for module, function in targets:
                found.setdefault(module, set()).add(function)
    return found


def tell_unmet(path: str, site: str, words: Sequence[str], end_sec: float) -> None:
    """Tell the acts that were not run for want of other projects.

    Args:
        path: the file for what is told.
        site: the site-packages of the installation.
        words: names as for imports.py.
        end_sec: by the clock of now_sec; what is not looked at by then is told.
    """
    teller, there = Teller(path), There(site)
    most_sec = time.process_time() + MAX_UNMET_SEC
    entries = called_by_programs(site)
    told: set[tuple[str, str, int]] = set()
    files = [*dict.fromkeys(files_of(site, read_names(words)))]
    called_first = called_by_imports(site, files)
    for file in files:
        if time.process_time() > most_sec or now_sec() > end_sec:
            teller.tell("unmet", "", text=UNMET_NOT_LOOKED_AT)
            return
        data = start_of(file, MAX_ASKED_BYTES)
        module = file.removeprefix(f"{site}/").removesuffix(".py").removesuffix("/__init__")
        called = entries.get(module.replace("/", "."), ())
        is_program = file.endswith("/__main__.py")
        is_cut, is_started = len(data) >= MAX_ASKED_BYTES, is_program or bool(called)
        is_asking = is_cut or asks_for_others(data, there.missing, is_started=is_started)
        is_holding = may_hold(data)
        if not is_asking and not is_holding:
            continue
        # Cut, it would be no Python: what stands before the cut would be passed over, too.
        if len(data) > MAX_LOOKED_BYTES:
            teller.tell("unmet", "", text=UNMET_NOT_LOOKED_AT, at=file)
            continue
        text = code_in(file, data)
        try:
            walk = unmet_acts(
                text, there.missing, called, absent=there.absent, is_program=is_program
            )
            found = [*walk] if is_asking else []
            held = held_acts(text, called_first) if is_holding else []
        except (RecursionError, MemoryError):
            teller.tell("unmet", "", text=UNMET_NOT_LOOKED_AT, at=file)
            continue
        lines = {line for _, line, _ in found}
        found += [
            ("", line, HELD_TEXT.format(act, kind)) for kind, line, act in held if line not in lines
        ]
        for project, line, act in found:
            if (project, file, line) in told:
                continue
            if len(told) >= MAX_UNMET:
                teller.tell("unmet", "", text=MORE_UNMET)
                return
            told.add((project, file, line))
            teller.tell("unmet", project, text=act, at=f"{file}:{line}")
