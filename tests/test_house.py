"""The walls of the house: how large a room may be, what it may import, what stands in one place.

What must be trusted stays small, and a reader of one room needs no other but those that it names.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import ROOT

from jail import orders

MAX_ROOT_LINES = 620
MAX_SERVICE_LINES = 900
MAX_ROOM_LINES = 300

SERVICE = "snakehook"
LIBRARIES = {"falcon", "waitress", "packaging"}  # for the service alone
NAMES_LIBRARY = {"packaging"}  # the commands read names and versions, too
# Which rooms a room may import: those whose name begins like this, in the layers from the lowest to
# the highest. All may import the standard library. Within a layer no two rooms need each other.
EVENTS = (
    "jail.watch.events",
    "jail.watch.noticed",
    "jail.watch.record",
    "jail.watch.world_events",
)
LAYERS = {
    "jail.orders": (),
    "jail.privileges": (),
    "jail.machine": ("jail.orders",),
    "jail.network": ("jail.orders", "jail.privileges"),
    "jail.keeper": ("jail.orders", "jail.privileges", "jail.network"),
    "jail.watch.": ("jail.orders", "jail.watch."),
    "jail.report.": ("jail.orders", *EVENTS, "jail.report."),
    "jail.watch.main": ("jail.orders", "jail.watch.", "jail.report."),
    "jail.__main__": ("jail.",),
    # What runs in the jail.
    "jail.inside.": ("jail.inside.",),
    # What people type, as who they are: it uses the service's file, and nobody uses it.
    "jail.command.": ("jail.command.", SERVICE, "jail.watch.samples"),
}
COMMAND = "jail.command"
# The usual names of a program, and of typing, which takes long to load.
DEFINED_TWICE = {"main", "log", "TYPE_CHECKING"}
TOP_LEVEL = {
    *("snakehook.py", "jail", "container", "tests", "README.md", "pyproject.toml", "LICENSE"),
    *(".github", ".ci", ".gitignore", ".dockerignore"),
}
HOST_NAME = re.compile(r"[a-z0-9-]+[.](?:org|com|io)\b", re.IGNORECASE)
# The first digits of the sha256 of each registry's name: not even this test names a registry.
REGISTRY_HASHES = {
    *("a4aa2ac280bb8d1a", "8b5bb5eb9d758455", "8743857e3ea00fd1", "3ca29e55be4befa4"),
    *("71741fe2460a6150", "789e46d79514e280"),
}
BOUND = re.compile(r"MAX_[A-Z0-9_]+|[A-Z0-9_]+_(SEC|BYTES)")


def name_of(path: Path) -> str:
    """jail/watch/main.py is jail.watch.main."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def sources() -> dict[str, str]:
    """The source of the service and of every room, by name; __init__.py are empty."""
    paths = [ROOT / "snakehook.py", *sorted((ROOT / "jail").rglob("*.py"))]
    return {name_of(path): path.read_text() for path in paths if path.name != "__init__.py"}


SOURCES = sources()
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}


def code_lines(source: str) -> int:
    """Lines that are neither blank nor only a comment."""
    lines = [line.strip() for line in source.splitlines()]
    return sum(1 for line in lines if line and not line.startswith("#"))


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported anywhere in a file, those that are parts of one, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            assert node.module
            yield node.module
            for alias in node.names:
                if f"{node.module}.{alias.name}" in SOURCES:
                    yield f"{node.module}.{alias.name}"


def layer_of(name: str) -> str:
    """The entry of LAYERS that fits best."""
    fitting = [prefix for prefix in LAYERS if name.startswith(prefix)]
    assert fitting, f"{name} is a room that nobody planned"
    return max(fitting, key=len)


def defined(tree: ast.Module) -> set[str]:
    """The names that a module makes at its top level."""
    found: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Assign():
                targets = [name for target in node.targets for name in ast.walk(target)]
                found |= {name.id for name in targets if isinstance(name, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


def test_what_runs_as_root_is_small() -> None:
    """All that stands in jail/ itself is loaded by keeper, which is root where root started us."""
    rooms = [name for name in SOURCES if name.count(".") == 1]
    sizes = {name: code_lines(SOURCES[name]) for name in rooms}
    assert sum(sizes.values()) <= MAX_ROOT_LINES, sizes


def test_the_service_is_small() -> None:
    assert code_lines(SOURCES[SERVICE]) <= MAX_SERVICE_LINES


@pytest.mark.parametrize("name", [name for name in SOURCES if name != SERVICE])
def test_a_room_can_be_read_at_one_sitting(name: str) -> None:
    assert code_lines(SOURCES[name]) <= MAX_ROOM_LINES


def test_comment_lines_and_blank_lines_do_not_count() -> None:
    assert code_lines('"""Says\n\nwhat."""\n\n# why\nx = 1  # how\n') == 3


@pytest.mark.parametrize("name", SOURCES)
def test_a_room_imports_what_its_row_allows(name: str) -> None:
    commands = NAMES_LIBRARY if name.startswith(f"{COMMAND}.") else set()
    libraries = LIBRARIES if name == SERVICE else commands
    rooms = () if name == SERVICE else LAYERS[layer_of(name)]
    for module in imports(TREES[name]):
        top = module.partition(".")[0]
        if top in ("jail", SERVICE):
            package = f"{module}."  # `from jail.watch import trace` names the package, too
            named = any(module.startswith(room) or room.startswith(package) for room in rooms)
            assert named, f"{name} imports {module}"
        else:
            assert top in sys.stdlib_module_names | libraries, f"{name} imports {module}"


@pytest.mark.parametrize("name", SOURCES)
def test_no_room_knows_how_pip_is_made(name: str) -> None:
    """It is run as a program: its modules may change with each version."""
    assert not re.search(r"\bpip[./]_(?!_)", SOURCES[name])


def test_rooms_import_only_downward() -> None:
    order = list(LAYERS)
    graph: dict[str, set[str]] = {}
    for name in SOURCES:
        if name == SERVICE:
            continue
        graph[name] = {module for module in imports(TREES[name]) if module in SOURCES} - {SERVICE}
        for module in graph[name]:
            above = order.index(layer_of(module)) > order.index(layer_of(name))
            assert not above, f"{name} imports {module}"
    TopologicalSorter(graph).prepare()  # raises CycleError, with the rooms of the circle


def test_nobody_loads_the_command_line_but_itself() -> None:
    """So it is neither root's code nor the service's."""
    others = [name for name in SOURCES if not name.startswith(f"{COMMAND}.")]
    loading = {
        name
        for name in others
        for module in imports(TREES[name])
        if f"{module}.".startswith(f"{COMMAND}.")
    }
    assert loading == set()


def test_the_service_loads_no_room() -> None:
    """It runs jail/command as a program instead, and then it is no service."""
    code = (
        "import sys, snakehook\n"
        "try: snakehook.main()\n"
        "finally: print([name for name in sys.modules if name.partition('.')[0] == 'jail'])\n"
    )
    for words, loaded in ((["serve"], "[]"), (["check", "-h"], COMMAND)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, env={}, capture_output=True, text=True
        )
        assert loaded in done.stdout, done


def test_no_name_is_defined_in_two_rooms() -> None:
    rooms: dict[str, list[str]] = {}
    for name, tree in TREES.items():
        for word in defined(tree):
            rooms.setdefault(word, []).append(name)
    twice = {word: names for word, names in rooms.items() if len(names) > 1}
    assert {word: names for word, names in twice.items() if word not in DEFINED_TWICE} == {}


def test_launch_says_the_line_that_watch_waits_for() -> None:
    told: list[object] = []
    for node in TREES["jail.inside.launch"].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STARTED_LINE":
            told.append(ast.literal_eval(node.value))
    assert told == [orders.STARTED]


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of the constants that are docstrings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            statement = node.body[0]
            assert isinstance(statement, ast.Expr)
            found.add(id(statement.value))
    return found


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "jail.orders"])
def test_no_path_of_the_jail_is_spelled_out_again(name: str) -> None:
    tree = TREES[name]
    exempt = docstrings(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in exempt:
            continue
        for path in (orders.PYTHON_IN_JAIL, orders.HOME_IN_JAIL):
            assert path not in str(node.value), f"line {node.lineno}: {node.value!r}"


def test_every_bound_is_used() -> None:
    bounds = {
        (name, word)
        for name, tree in TREES.items()
        for word in defined(tree)
        if BOUND.fullmatch(word)
    }
    reads: Counter[str] = Counter()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                reads[node.id] += 1
            elif isinstance(node, ast.Attribute):
                reads[node.attr] += 1
    assert bounds
    assert {(name, word) for name, word in bounds if not reads[word]} == set()


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files of the repository."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"],  # noqa: S607
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        pytest.skip(f"no repository here: {done.stderr.strip()}")
    return done.stdout.splitlines()


def test_nothing_stands_at_the_top_but_what_the_design_lists(tracked: list[str]) -> None:
    assert {path.partition("/")[0] for path in tracked} <= TOP_LEVEL


def test_no_package_registry_is_named(tracked: list[str]) -> None:
    for path in tracked:
        file = ROOT / path
        if file.is_file():
            names = set(HOST_NAME.findall(file.read_bytes().decode("utf-8", "replace")))
            hashes = {sha256(name.lower().encode()).hexdigest()[:16] for name in names}
            assert not hashes & REGISTRY_HASHES, path
