"""What is given out in the place of a project on the denylist that another requires: wheels of its
name and versions, with a module that has everything and does nothing, so that the rest runs.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterable

MAX_VERSIONS = 400
ZIP_DATE = (2020, 1, 1, 0, 0, 0)
# `torch-2.5.1-cp311-cp311-manylinux1_x86_64.whl`, `torch-2.5.1.tar.gz`: the version of a file.
VERSIONED = re.compile(
    r"[^-]+-([0-9][0-9a-z.!+_]{0,60}?)(?:-[^/]+\.whl|\.tar\.gz|\.zip)", re.ASCII | re.IGNORECASE
)
MODULE = '''"""Stands for a module that was not installed."""
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


class Kind(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Anything(metaclass=Kind):
    def __init__(self, *args, **keywords):
        pass

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything

    def __call__(self, *args, **keywords):
        # What it decorates stays what it is.
        return args[0] if len(args) == 1 and callable(args[0]) else Anything()

    def __iter__(self):
        return iter(())


class Module(ModuleType):
    __path__ = []
    __version__ = "%s"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Finder:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.startswith(__name__ + ".") else None

    def create_module(self, spec):
        return Module(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(Finder())
sys.modules[__name__].__class__ = Module
'''


def versions_of(files: Iterable[str]) -> list[str]:
    """The versions that a project's files have, the last of the page if they are many."""
    found: dict[str, None] = {}
    for name in files:
        match = VERSIONED.fullmatch(name)
        if match:
            found[match[1]] = None
    return [*found][-MAX_VERSIONS:]


def stand_in(project: str, version: str) -> tuple[str, bytes]:
    """A wheel of a project (its canonical name): the name of the file, and its bytes."""
    name = project.replace("-", "_")
    folder = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": MODULE % version,
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{folder}/RECORD"])
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in {**files, f"{folder}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(path, ZIP_DATE), text)
    return f"{name}-{version}-py3-none-any.whl", data.getvalue()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
