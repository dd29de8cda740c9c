"""Runs `main` of a room: `python enter.py ROOM ARGUMENT ...`, or in the jail loader.py does.

The package finds the __main__ of a `python -c`, with nothing in it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = globals().get("__file__", "").rpartition("/")[0]


def starter(room: str) -> list[str]:
    """The start of a command that runs `main` of a room of this folder in a Python as any other."""
    # Who made the rooms importable knows by which program.
    entry: list[str] = sys.modules["jail.inside"].__dict__["entry"]
    return [sys.executable, *entry, room]


def open_rooms() -> None:
    """Make the modules of this folder those of jail.inside."""
    package = "jail.inside"
    for name, places in ((package.partition(".")[0], [""]), (package, [FOLDER])):
        module: Any = ModuleType(name)
        module.__path__ = places
        module.entry = [f"{FOLDER}/enter.py"]
        sys.modules[name] = module


def enter() -> None:
    """Run the room that the first argument names, which is cut out."""
    room = sys.argv.pop(1)
    sys.argv[0] = "-c"
    # pip is started with -P: nothing in the working directory is its own.
    if not sys.flags.safe_path:
        sys.path[0] = ""
    sys.modules["__main__"] = ModuleType("__main__")
    importlib.import_module("jail.inside.command_line").look_like("-c", shown_code(room))
    importlib.import_module(f"jail.inside.{room}").main()


def shown_code(room: str) -> str:
    """What a person would have Python execute, to do what a room does."""
    kind, words = "".join(sys.argv[1:2]), sys.argv[4:]
    if room == "installer":
        return "import pip.__main__"
    if room != "run" or not words:
        return "import asyncio"
    if kind == "file":
        return f"import runpy; runpy.run_path({words[-1]!r})"
    # After the name of a module may come where it lies; the target of a script comes last.
    name = words[0] if kind == "import" else words[-1]
    return f"import {name.partition(':')[0]}"


if __name__ == "__main__":
    open_rooms()
    enter()
