"""Packs the environment of the jail into one file, its image, from which watch makes a copy for
each run. The jail's own Python runs it, once, before there is a jail.

Arguments: a virtual environment with pip, which gets the file `image`; then, as the jail will see
them, this environment, the FIFO of the audit hook and the home folder. Nothing that lies in the
jail names the folder of here: it tells what this machine is.

The image is what marshal makes of a dict, and then of another, of pip's `files`:

    files   path -> bytes, as they are in every environment
    links   path -> where to
    hook    bytes of the compiled hook: see loader.py
    room    (start, end) in these bytes, of what watch fills in for each run
    rooms   what it fills in there, disguised
    places  paths that get the hook, the launcher's last
"""

import compileall
import importlib.util
import marshal
import os
import py_compile
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKED_FOLDER = Path(__file__).parent
# What the rooms are called there, and the room that loads the others.
OWN_NAME, PLAIN_NAME = "jail.inside", "_activate.tools"
LOADER = "loader"
NOT_PACKED = {LOADER, "pack"}
# A program that runs pip with the arguments that it has, then prints which modules are loaded.
OBSERVED_PIP = """
import runpy, sys
try:
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code:
        raise
print(*sys.modules, sep="\\n")
"""
# Frames of the library's own runpy are called so, wherever a program was started by it.
PLAIN_FILE = "<frozen runpy>"
# A wheel without anything but what pip wants to see.
WHEEL_NAME = "calm-1.0-py3-none-any.whl"
WHEEL_MEMBERS = {
    "calm-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: calm\nVersion: 1.0\n",
    "calm-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "calm-1.0.dist-info/RECORD": "",
    "calm.py": "",
}
# As loader.py has them.
TABLE_AND_NUMBER_BYTES = 256 + 8
# A pyc file that Python takes as it is, whatever its source says: PEP 552, unchecked.
UNCHECKED = (1).to_bytes(4, "little") + bytes(8)
# Every environment that virtualenv or uv makes has a module of that name, which site loads first.
HOOK_NAME = "_virtualenv"
# What Python compiles where it is told to look for compiled files elsewhere, or for none.
HOOK_TEXT = '''"""Patches that are applied at runtime to the virtual environment."""

import os
import sys
from importlib.machinery import SourcelessFileLoader

name = f"{__name__}.{sys.implementation.cache_tag}.pyc"
path = os.path.join(os.path.dirname(__file__), "__pycache__", name)
SourcelessFileLoader(__name__, path).exec_module(sys.modules[__name__])
'''


def plain_code(text: str) -> bytes:
    """Code without docstrings, and with neither the name nor the file that it has here."""
    plain = text.replace(OWN_NAME, PLAIN_NAME)
    code = compile(plain, PLAIN_FILE, "exec", dont_inherit=True, optimize=2)
    return marshal.dumps(code)


def rooms() -> dict[str, bytes]:
    """All rooms, by name."""
    return {
        path.stem: plain_code(path.read_text())
        for path in sorted(PACKED_FOLDER.glob("*.py"))
        if path.stem not in NOT_PACKED
    }


def pip_modules() -> list[str]:
    """What pip has loaded when it has installed a wheel from an index, in the order of loading."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "calm")
        index.mkdir()
        with zipfile.ZipFile(index / WHEEL_NAME, "w") as wheel:
            for name, text in WHEEL_MEMBERS.items():
                wheel.writestr(name, text)
        index.joinpath("index.html").write_text(f'<a href="{WHEEL_NAME}">{WHEEL_NAME}</a>')
        words = ["install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
        words += ["--index-url", f"file://{folder}", "--target", f"{folder}/calm-1.0", "calm==1.0"]
        command = [sys.executable, "-IB", "-c", OBSERVED_PIP, *words]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return [name for name in done.stdout.split() if not name.startswith("__")]


def hook_for(packed: bytes) -> tuple[bytes, tuple[int, int]]:
    """The loader, compiled, and the part of it that is made anew for each run."""
    blank = os.urandom(TABLE_AND_NUMBER_BYTES + len(packed))
    text = (PACKED_FOLDER / f"{LOADER}.py").read_text().replace('b"PACKED"', repr(blank))
    hook = importlib.util.MAGIC_NUMBER + UNCHECKED + plain_code(text)
    start = hook.index(blank)
    return hook, (start, start + len(blank))


def pack(folder: Path, place: str, fifo: str, home: str) -> list[dict[str, Any]]:
    """The two parts of the image of an environment."""
    library = next(folder.glob("lib/python*/site-packages"))
    below = library.relative_to(folder)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        library, quiet=1, stripdir=str(folder), prependdir=place, invalidation_mode=mode
    )
    # A pip that is compiled already loads in a quarter of the time.
    codes = rooms() | {"pip_modules": plain_code(f"NAMES = {pip_modules()!r}")}
    told = {"rooms": codes, "fifo": fifo, "home": home}
    packed = marshal.dumps(told)
    hook, room = hook_for(packed)
    tag = sys.implementation.cache_tag
    places = [f"{below}/__pycache__/{HOOK_NAME}.{tag}.pyc", "bin/activate_this.py"]
    files = {
        f"{below}/{HOOK_NAME}.pth": f"import {HOOK_NAME}".encode(),
        f"{below}/{HOOK_NAME}.py": HOOK_TEXT.encode(),
    }
    pip_files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_file():
            # The scripts that activate it name the folder.
            into = pip_files if name.startswith(f"{below}/pip") else files
            into[name] = path.read_bytes().replace(str(folder).encode(), place.encode())
    packed_environment = {
        "files": files,
        "links": links,
        "hook": hook,
        "room": room,
        "rooms": packed,
        "places": places,
    }
    return [packed_environment, pip_files]


def pack_environment() -> None:
    """Write the image of the folder that the arguments name."""
    folder, *places = sys.argv[1:]
    Path(folder, "image").write_bytes(b"".join(map(marshal.dumps, pack(Path(folder), *places))))


if __name__ == "__main__":
    pack_environment()
