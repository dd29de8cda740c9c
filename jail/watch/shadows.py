"""Modules of installed distributions that Python no longer finds: another file comes first."""

import re
from collections.abc import Collection, Mapping

# `.../victim/__init__.py` is found before `.../victim.cpython-311-x86_64-linux-gnu.so`, and that
# before `.../victim.py`.
PACKAGE = re.compile(r"(.*/[^/.]+)/__init__(?:\.[\w-]+)*\.(?:pyc?|so)", re.DOTALL)
EXTENSION = re.compile(r"(.*/[^/.]+)(?:\.[\w-]+)*\.so", re.DOTALL)


class Shadows:
    """`owners` are the distributions that list each file; `files` all that there are."""

    def __init__(self, owners: Mapping[str, str], files: Collection[str]) -> None:
        self.owners = owners
        self.extensions: dict[str, str] = {}
        for path in files:
            extension = EXTENSION.fullmatch(path) if path.endswith(".so") else None
            if extension:
                self.extensions[extension[1]] = path
        self.files = files

    def shadowed_by(self, path: str) -> str | None:
        """The file of another distribution that a file at `path` hides, if any."""
        package, extension = PACKAGE.fullmatch(path), EXTENSION.fullmatch(path)
        hidden: list[str] = []
        if package:
            hidden = [self.extensions.get(package[1], ""), f"{package[1]}.py", f"{package[1]}.pyc"]
        elif extension:
            hidden = [f"{extension[1]}.py", f"{extension[1]}.pyc"]
        for other in hidden:
            owner = self.owners.get(other)
            if owner and other in self.files and owner != self.owners.get(path):
                return other
        return None
