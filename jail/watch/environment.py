"""The interpreter's environment of the jail: a copy for each run of what keeper has made once.

A mount of what was made would tell the package where it lies. In the copy the hook is disguised
anew, by a table that is drawn for the run, so that no two runs have the same file. See
jail/inside/pack.py for the image, which is ours; no package has had a hand in it.
"""

import marshal
import os
import re
import time
from pathlib import Path
from typing import Any

from jail.orders import JailSettings, Machine
from jail.watch.ages import SEC_OF_DAY
from jail.watch.chance import SYSTEM_RANDOM
from jail.watch.etc_files import lay_etc, make_host_name
from jail.watch.system_folders import lay_system

# As jail/inside/loader.py has them.
DISGUISE_BYTES, NUMBER_DIGITS = 256, 8
# What jail/inside/pack.py calls our rooms, and what they are called in a run: as long, since that
# is written over. A package can find the names of modules that it never imported.
PACKED_NAME = b"_activate.tools"
CONSONANTS_OF_NAMES, VOWELS_OF_NAMES = "bcdfgklmnprstvz", "aeiou"
MAX_MORE_BYTES = 60_000  # behind the compiled hook, where Python looks no more
# How long ago it seems to have been made.
MIN_MADE_DAYS, MAX_MADE_DAYS = 3, 60


def lay_machine(
    folder: Path, settings: JailSettings, machine: Machine, *, has_pip: bool = True
) -> str:
    """Fill what the jail can only read, in the scratch `folder`: the name of the jail's host.

    Without pip, nearly all of the environment, there are only the interpreter and the launcher; and
    who starts nothing else and speaks to nobody needs no links to programs and to authorities.

    Raises OSError.
    """
    host = make_host_name()
    lay_environment(Path(machine.python), folder / "venv", settings.rlimit_cpu_sec, has_pip=has_pip)
    ids = (settings.nsjail_user, settings.nsjail_group)
    lay_etc(folder / "etc", host, *ids, has_links=has_pip)
    lay_system(folder / "sys", folder / "boot")
    return host


def lay_environment(image: Path, folder: Path, cpu_sec: int, *, has_pip: bool = True) -> None:
    """Write the copy to `folder`. Raises OSError.

    Args:
        cpu_sec: the limit of CPU time that the hook sets for what pip starts.
    """
    with image.open("rb") as file:
        packed: dict[str, Any] = marshal.load(file)  # noqa: S302 - it is our own
        files: dict[str, bytes] = packed["files"]
        if has_pip:
            files |= marshal.loads(file.read())  # noqa: S302 - the same
    # The last place is the launcher's; in the others is what an interpreter with its site loads.
    places = packed["places"] if has_pip else packed["places"][-1:]
    files |= {name: hook_of(packed, cpu_sec) for name in places}
    days = MIN_MADE_DAYS + SYSTEM_RANDOM.randrange(MAX_MADE_DAYS - MIN_MADE_DAYS)
    made_sec = time.time() - days * SEC_OF_DAY - SYSTEM_RANDOM.randrange(SEC_OF_DAY)
    known: set[str] = set()
    for name, data in files.items():
        path = folder / name
        if str(path.parent) not in known:
            path.parent.mkdir(parents=True, exist_ok=True)
            known.add(str(path.parent))
        mode = 0o755 if name.startswith("bin/") else 0o644
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        os.write(fd, data)
        os.utime(fd, (made_sec, made_sec))
        os.close(fd)
    for name, target in packed["links"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)
    for place in (*known, str(folder)):
        os.utime(place, (made_sec, made_sec))


def drawn_name(word: re.Match[bytes]) -> bytes:
    """A name that can be spoken, as long as the word."""
    letters = (CONSONANTS_OF_NAMES, VOWELS_OF_NAMES)
    return "".join(SYSTEM_RANDOM.choice(letters[at % 2]) for at in range(len(word[0]))).encode()


def hook_of(packed: dict[str, Any], cpu_sec: int) -> bytes:
    """The compiled hook of this run."""
    table = bytearray(range(DISGUISE_BYTES))
    SYSTEM_RANDOM.shuffle(table)
    back = bytes(bytearray(table.index(number) for number in range(DISGUISE_BYTES)))
    name = re.sub(rb"[a-z]+", drawn_name, PACKED_NAME)
    rooms = packed["rooms"].replace(PACKED_NAME, name)
    told = f"{cpu_sec:0{NUMBER_DIGITS}}".encode() + rooms
    start, end = packed["room"]
    hook: bytes = packed["hook"]
    filled: bytes = back + told.translate(bytes(table))
    if len(filled) != end - start:
        raise ValueError(f"the hook has room for {end - start} bytes, not for {len(filled)}")
    before, behind = (part.replace(PACKED_NAME, name) for part in (hook[:start], hook[end:]))
    return before + filled + behind + os.urandom(SYSTEM_RANDOM.randrange(MAX_MORE_BYTES))
