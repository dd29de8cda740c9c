"""Compiled code that another Python or another system would import, and ours does not.

Beside a source that does nothing it lies there unseen: here the source is imported.

Hostile input: the names of files, and the first bytes of compiled ones.
"""

import os
import re
from collections.abc import Callable, Iterable

MAX_LOOKED_PYCS = 200  # more are not opened, and count as what they may be
MAX_TOLD_FOREIGN = 5
PYC_HEAD_BYTES = 8
# `pkg/__pycache__/mod.cpython-312.pyc`, `mod.cpython-312.opt-1.pyc`
CACHED = re.compile(r"(?:.*/)?__pycache__/[^/]+\.([^/.]+)(?:\.opt-\w+)?\.pyc", re.DOTALL)
# `fast.cpython-310-x86_64-linux-gnu.so`, `fast.cp311-win_amd64.pyd`, `fast.pyd`; of those without a
# tag, and of `fast.abi3.so`, nobody says for whom they are.
COMPILED_LIBRARY = re.compile(r".*\.(cpython-[^/.]+)\.so|.*\.pyd", re.DOTALL)
# `/srv/site/x-1.0/lib/python3.11/site-packages`
SITE_VERSION = re.compile(r".*/python(\d+)\.(\d+)/site-packages")


def made_for_others(site: str, listed: Iterable[str], read: Callable[[str, int], bytes]) -> str:
    """One line that names what of the target nobody can run here, "" if there is nothing.

    Args:
        site: the target's site-packages, which tells the version of our Python.
        listed: its files.
        read: so many bytes of the start of a file.
    """
    version = SITE_VERSION.fullmatch(site)
    tag = "cpython-{}{}".format(*version.groups()) if version else ""
    found, looked = [], 0
    for path in listed:
        cached, library = CACHED.fullmatch(path), COMPILED_LIBRARY.fullmatch(path)
        if cached and cached[1] != tag:
            looked += 1
            head = read(path, PYC_HEAD_BYTES) if looked <= MAX_LOOKED_PYCS else b""
            if is_used(head):
                found.append(path)
        elif library and not is_ours(library[1] or "", tag):
            found.append(path)
    if not found:
        return ""
    names = ", ".join(path.removeprefix(f"{site}/") for path in found[:MAX_TOLD_FOREIGN])
    more = f" and {len(found) - MAX_TOLD_FOREIGN} more" if len(found) > MAX_TOLD_FOREIGN else ""
    return f"compiled for another Python or system: {names}{more}"


def is_ours(tag: str, own: str) -> bool:
    """Whether a library with this tag is for our Python on our system.

    >>> is_ours("cpython-310-darwin", "cpython-311")
    False
    """
    return tag == own or (tag.startswith(f"{own}-{os.uname().machine}-linux"))


def is_used(head: bytes) -> bool:
    """Whether a Python of its version imports it in place of its source: it names no time of the
    source, which no installation has as it was (PEP 552).

    b"\\xcb\\r\\r\\n" and the flags: 0 of a file with a time, 1 of a file that is never compared
    """
    return len(head) < PYC_HEAD_BYTES or bool(head[4] & 1)
