"""Opens this folder to the rooms in it: `python enter.py ROOM ARGUMENT ...` runs `main` of one.

The package finds the __main__ of a `python -c`, with nothing in it.
"""

import importlib
import sys
from types import ModuleType

FOLDER = __file__.rpartition("/")[0]


def starter(room: str) -> list[str]:
    """The start of a command that runs `main` of a room of this folder in a Python as any other."""
    return [sys.executable, f"{FOLDER}/enter.py", room]


def open_rooms() -> None:
    """Make the modules of this folder those of jail.inside."""
    for name, places in (("jail", [""]), ("jail.inside", [FOLDER])):
        module = ModuleType(name)
        module.__path__ = places
        sys.modules[name] = module


def enter() -> None:
    """Run the room that the first argument names, which is cut out."""
    room = sys.argv.pop(1)
    open_rooms()
    sys.argv[0] = "-c"
    sys.path[0] = ""
    sys.modules["__main__"] = ModuleType("__main__")
    importlib.import_module(f"jail.inside.{room}").main()


if __name__ == "__main__":
    enter()
