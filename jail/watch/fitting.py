"""Which files of a project's page pip may take in the jail: some pages name ten thousand, of which
each costs pip and us some time.
"""

from pathlib import Path

OTHER_SYSTEMS = ("win", "macosx", "ios", "android", "emscripten")
OTHER_PYTHONS = ("cp", "pp", "graalpy")


def python_tag(python: Path) -> str:
    """`cp311` for an interpreter with a lib/python3.11; "" where that can't be seen."""
    try:
        (library,) = python.glob("lib/python3.*")
    except (OSError, ValueError):
        return ""
    return f"cp{library.name.removeprefix('python').replace('.', '')}"


def may_fit(name: str, own_tag: str) -> bool:
    """Whether pip may take this file on Linux, with an interpreter of this tag. In doubt it may.

    `aiohttp-3.10.10-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl`
    """
    parts = name.removesuffix(".whl").rsplit("-", 3)
    if not name.endswith(".whl") or len(parts) != 4 or not own_tag:
        return True
    _, pythons, abis, systems = parts
    if all(system.startswith(OTHER_SYSTEMS) for system in systems.split(".")):
        return False
    tags = pythons.split(".")
    is_others = all(tag.startswith(OTHER_PYTHONS) and tag != own_tag for tag in tags)
    return not is_others or "abi3" in abis.split(".")
