"""The bait: decoy credentials in the jail's home and environment, made afresh for each run,
worthless everywhere.

A file's bait is sprung when it is read, a variable's when its value turns up in what the package
does.
"""

import base64
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jail.orders import HOME_IN_JAIL
from jail.watch.bait_forms import (
    CI_VARIABLES_WITH_BAIT,
    FILES,
    HEX_LETTERS,
    OPEN_FILES,
    VARIABLES,
    drawn_word,
    name_of_profile,
)
from jail.watch.contents import plain_project
from jail.watch.events import NOBODY, Actor, BaitLeaked, Event
from jail.watch.login_files import LOGIN_FILES, PROFILES_OF_FIREFOX, profiles_of_firefox
from jail.watch.record import SEARCHED_FOR_BAIT

MAX_SEARCHED_BYTES = 16 << 20  # of each kind of thing in one phase
DAY_NS = 86_400 * 10**9

Times = tuple[int, int, int]  # of access, modification and change, in nanoseconds


class Decoys:
    """The decoys of one run: their values by name (`GITHUB_TOKEN`, `~/.pypirc`), and the files,
    held open so that renaming or deleting them hides nothing.
    """

    def __init__(self, home: Path) -> None:
        """Lay the files out under `home`. Raises OSError."""
        self.tell: Callable[[Event], object] = ignore
        self.lose: Callable[[str, int], object] = ignore
        self.variables = {name: make() for name, make in VARIABLES.items()}
        self.ci_variables = {name: make() for name, make in CI_VARIABLES_WITH_BAIT.items()}
        everywhere = self.variables | self.ci_variables
        self.forms = {name: disguises(value) for name, value in everywhere.items()}
        self.values = dict(everywhere)
        self.files: dict[str, int] = {}  # descriptors, by the path in the jail
        self.texts: dict[str, bytes] = {}
        self.times: dict[str, Times] = {}
        self.lock = threading.Lock()
        self.found: set[str] = set()
        self.searched_bytes: Counter[str] = (
            Counter()
        )  # by kind: no flood of one keeps another from being searched
        drawn = {"profile": name_of_profile(), "key": drawn_word(40, HEX_LETTERS)}
        profiles = profiles_of_firefox(drawn["profile"])
        makers = FILES | LOGIN_FILES | {PROFILES_OF_FIREFOX: lambda: (profiles, "")}
        for form, make_file in makers.items():
            data, value = make_file()
            name = form.format(**drawn)
            path = f"{HOME_IN_JAIL}/{name}"
            # What is only read on the way to others has nothing in it that anybody would send.
            if value:
                self.forms[f"~/{name}"] = disguises(value)
                self.values[f"~/{name}"] = value
            mode = 0o644 if name in OPEN_FILES else 0o600
            self.files[path] = lay(home / name, data, mode)
            self.texts[path] = data

    @property
    def paths(self) -> tuple[str, ...]:
        """The decoy files, as the jail sees them."""
        return tuple(self.files)

    def environment(self, *, is_in_ci: bool) -> dict[str, str]:
        """The bait of a jail's environment."""
        return self.variables | (self.ci_variables if is_in_ci else {})

    def begin(self, tell: Callable[[Event], object], lose: Callable[[str, int], object]) -> None:
        """Before each phase: make the next read of each file show, and the next leak of each value
        be told again.

        `tell` takes BaitLeaked, `lose(kind, count)` what was not searched. An access time before
        the change time is always updated (relatime), and a change time can't be set by anybody.
        """
        self.tell, self.lose = tell, lose
        self.found.clear()
        self.searched_bytes.clear()
        now_ns = time.time_ns()
        for path, fd in self.files.items():
            modified_ns = now_ns - DAY_NS * 30 - secrets.randbelow(DAY_NS * 300)
            accessed_ns = now_ns - DAY_NS - secrets.randbelow(DAY_NS * 29)
            os.utime(fd, ns=(accessed_ns, modified_ns))
            self.times[path] = times_of(fd)

    def changed_ns(self) -> dict[int, int]:
        """The change time of each file, by its inode, which it keeps whatever it is called."""
        files = [os.fstat(fd) for fd in self.files.values()]
        return {about.st_ino: about.st_ctime_ns for about in files}

    def is_unchanged(self, path: str, inode: int) -> bool:
        """Whether this is a decoy file in its place with what we wrote: only its times are new."""
        if path not in self.files or os.fstat(self.files[path]).st_ino != inode:
            return False
        text = self.texts[path]
        return os.pread(self.files[path], len(text) + 1, 0) == text

    def sprung(self) -> list[str]:
        """The files that were read, or touched in a way that could hide it, since `begin`."""
        return [path for path, fd in self.files.items() if times_of(fd) != self.times[path]]

    def search_file(self, path: str, data: bytes) -> None:
        """Search what stands in a file; a decoy's own value is no news in its own place."""
        own = path.replace(HOME_IN_JAIL, "~", 1) if path in self.files else ""
        self.search("file", path, data, own=own)

    def search(
        self, kind: str, where: str, data: bytes, actor: Actor = NOBODY, own: str = ""
    ) -> bool:
        """Tell the first place of the phase where each value turns up: whether `data` may have one.

        As it is, or in the encodings that thieves use. `kind` ("command", "file") has a bound of
        its own. Threads may search side by side.
        """
        with self.lock:
            self.searched_bytes[kind] += len(data)
            if self.searched_bytes[kind] > MAX_SEARCHED_BYTES:
                self.lose(f"{kind}, {SEARCHED_FOR_BAIT}", 1)
                return True
        names = []
        for name, forms in self.forms.items():
            if name != own and any(form in data for form in forms):
                names.append(name)
        for name in names:
            with self.lock:
                is_new = name not in self.found
                self.found.add(name)
            if is_new:
                self.tell(BaitLeaked(name, f"{kind} {where}", actor))
        return bool(names)

    def close(self) -> None:
        """Let go of the files."""
        for fd in self.files.values():
            os.close(fd)


def ignore(*_: object) -> None:
    """Take what nobody waits for: there is no phase yet."""


def lay(path: Path, data: bytes, mode: int) -> int:
    """Write a decoy file, as its owner would keep it, and return a descriptor of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def times_of(fd: int) -> Times:
    about = os.fstat(fd)
    return about.st_atime_ns, about.st_mtime_ns, about.st_ctime_ns


def disguises(value: str) -> set[bytes]:
    """`value` as plain text, reversed, hex, base32, and what its base64 is at each of its three
    offsets. As names of hosts and projects, too, which have small letters only.
    """
    plain = value.encode()
    in_32 = base64.b32encode(plain).rstrip(b"=")[:-1]
    forms = {
        plain,
        plain.lower(),
        plain_project(value).encode(),
        plain[::-1],
        plain.hex().encode(),
        plain.hex().upper().encode(),
        in_32,
        in_32.lower(),
    }
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + plain)
        core = coded[(offset * 4 + 2) // 3 :].rstrip(b"=")[:-2]
        forms |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return forms
