"""What lies in the jail of these rooms: one compiled file, made anew for each run, that loads them.

It is the audit hook where site imports it, in every Python. As a program it is the launcher, if it
is the first process of the jail, else the room that its first argument names. pack.py compiles it
under plain names, and watch fills in PACKED: a table of 256 bytes, then under that table the limit
of CPU time in digits and the rooms. So no run's file is that of another.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PACKED = b"PACKED"
TABLE_BYTES, NUMBER_BYTES = 256, 8
MODULE_TYPE, SPEC_TYPE = type(sys), type(sys.__spec__)


def unpacked() -> tuple[int, dict[str, Any]]:
    """The limit of CPU time, in seconds, and what pack.py has packed."""
    data = PACKED[TABLE_BYTES:].translate(PACKED[:TABLE_BYTES])
    told = marshal.loads(data[NUMBER_BYTES:])  # noqa: S302 - it is our own
    return int(data[:NUMBER_BYTES]), told


def run_code(code: bytes, names: dict[str, Any]) -> None:
    """Run a room of ours."""
    exec(marshal.loads(code), names)  # noqa: S102, S302 - it is our own


class Rooms:
    """A finder and loader of the rooms, as long as they are loaded."""

    def __init__(self, codes: dict[str, bytes]) -> None:
        self.codes = codes
        self.package = "jail.inside"
        self.top = self.package.partition(".")[0]
        for name in (self.top, self.package):
            module: Any = MODULE_TYPE(name)
            module.__path__ = []
            module.entry = sys.argv[:1]
            sys.modules[name] = module
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """The spec of a room."""
        package, _, room = name.rpartition(".")
        is_room = package == self.package and room in self.codes
        loader: Any = self
        return SPEC_TYPE(name, loader) if is_room else None

    def create_module(self, spec: object) -> None:
        """As for any module."""

    def exec_module(self, module: Any) -> None:
        """Run the code of a room."""
        room = module.__name__.rpartition(".")[2]
        run_code(self.codes[room], module.__dict__)

    def leave(self) -> None:
        """Leave no module of that name behind, and no finder."""
        sys.meta_path.remove(self)
        for name in [*sys.modules]:
            if name == self.top or name.startswith(f"{self.top}."):
                del sys.modules[name]


def start_hook() -> None:
    """Begin to tell what this Python does."""
    cpu_sec, packed = unpacked()
    rooms = Rooms(packed["rooms"])
    names = {"FIFO": packed["fifo"], "HOME": packed["home"], "CPU_SEC": cpu_sec}
    try:
        run_code(packed["rooms"]["audit"], names | {"__name__": "__main__"})
    finally:
        rooms.leave()


def start_program() -> None:
    """Be the launcher, or what it starts."""
    Rooms(unpacked()[1]["rooms"])
    if os.getpid() == 1:
        from jail.inside.launch import start

        start()
    from jail.inside.enter import enter

    enter()


if __name__ == "__main__":
    start_program()
else:
    start_hook()
    # What is left of it is what every environment has.
    for own in [name for name in globals() if not name.startswith("__")]:
        del globals()[own]
