"""Opens this folder to the rooms in it: run by `python -c LOADER ROOM ARGUMENT ...`.

LOADER is what `supervise.loader` gives: the package finds the __main__ of a `python -c`, with
nothing in it.
"""

import importlib
import sys
from types import ModuleType


def open_rooms(folder: str) -> None:
    """Make the modules of `folder` those of jail.inside."""
    for name, places in (("jail", [""]), ("jail.inside", [folder])):
        module = ModuleType(name)
        module.__path__ = places
        sys.modules[name] = module


def enter() -> None:
    """Run the room that the first argument names, which is cut out."""
    folder: str = globals()["__file__"].rpartition("/")[0]
    room = sys.argv.pop(1)
    open_rooms(folder)
    importlib.import_module(f"jail.inside.{room}").main()


if __name__ == "enter":
    enter()
