"""What the decoy internet serves: small, valid, harmless, and marked.

Each text carries a mark that stands for the URL it was served from. Where it turns up again, in
code, in a command, in a file, there what was served was run or kept. The scripts do one thing: they
start /bin/true with their mark, which the kernel's witness sees whatever ran them.
"""

import base64
import gzip
import hashlib
import io
import json
import re
import secrets
import struct
import tarfile
import zipfile
import zlib
from typing import Any

MAX_MARKS = 5000
PREFIX_BYTES, SUFFIX_BYTES = 4, 3
OTHERS = "(one of many URLs)"
ZIP_TIME = (2026, 1, 5, 9, 30, 0)

PYTHON = """# build {mark}
__version__ = "0.0.0"
try:
    __import__("subprocess").call(["/bin/true", "{mark}"])
except OSError:
    pass
"""
# The backend of a source archive, which needs nothing from an index to be built.
PROJECT = b"""[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = (
    PYTHON
    + """
def build_wheel(folder, settings=None, metadata=None):
    import base64, os
    with open(os.path.join(folder, "{built}"), "wb") as file:
        file.write(base64.b64decode("{packed}"))
    return "{built}"
"""
)
SHELL = """#!/bin/sh
# build {mark}
/bin/true {mark}
"""
# Nobody knows who will run what has no name: for a shell the first text is the word ":", the rest a
# command and a document that is thrown away; for Python it is a text, and the rest code.
SHELL_OR_PYTHON = (
    """#!/bin/sh
""\":"
/bin/true {mark}
: <<'"{mark}"'
""\"
"""
    + PYTHON
    + '"{mark}"\n'
)
# Not the first bytes decide, for somebody who decodes base64: letters up to the first "=" count.
# So the first line is a comment to Python and shells, and all of the text to him.
CODED_FIRST = "# {coded}\n" + SHELL_OR_PYTHON.removeprefix("#!/bin/sh\n")
JAVASCRIPT = """// build {mark}
try {{ require("child_process").spawnSync("/bin/true", ["{mark}"]); }} catch (error) {{}}
"""
HTML = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Welcome</title></head>
<body><p>It works.</p><!-- build {mark} --></body></html>
"""
XML = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- build {mark} -->\n<root/>\n'
HASH_COMMENT = "# build {mark}\n"
SEMICOLON_COMMENT = "; build {mark}\n"
REM_COMMENT = "REM build {mark}\r\n"
STYLE = "/* build {mark} */\n"
PDF = """%PDF-1.4
% build {mark}
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [] /Count 0>> endobj
trailer <</Root 1 0 R>>
%%EOF
"""


class Marks:
    """The marks of one run: which URL each stands for. A mark looks like the number of a build."""

    def __init__(self) -> None:
        self.prefix = secrets.token_hex(PREFIX_BYTES)
        self.pattern = re.compile(f"{self.prefix}[0-9a-f]{{{SUFFIX_BYTES * 2}}}".encode())
        self.by_url: dict[str, str] = {}
        self.urls: dict[str, str] = {}
        self.last = self.prefix + "f" * SUFFIX_BYTES * 2

    def mark(self, url: str) -> str:
        """The mark for what is served from `url`; beyond MAX_MARKS all share one."""
        if url in self.by_url:
            return self.by_url[url]
        if len(self.by_url) >= MAX_MARKS:
            return self.last
        mark = self.prefix + secrets.token_hex(SUFFIX_BYTES)
        while mark in self.urls or mark == self.last:
            mark = self.prefix + secrets.token_hex(SUFFIX_BYTES)
        self.by_url[url] = mark
        self.urls[mark] = url
        return mark

    def find(self, data: bytes) -> str | None:
        """The URL from which a part of `data` was served; None where none of it was."""
        for match in self.pattern.finditer(data):
            mark = match[0].decode()
            if mark in self.urls:
                return self.urls[mark]
            if mark == self.last:
                return OTHERS
        return None

    def is_own_act(self, argv: tuple[str, ...]) -> bool:
        """Whether this command is what the served scripts do: it says that one of them ran."""
        is_true = len(argv) == 2 and argv[0] == "/bin/true"
        return is_true and self.find(argv[1].encode(errors="replace")) is not None


def text(template: str, mark: str) -> bytes:
    return template.format(mark=mark).encode()


def coded_first(mark: str) -> bytes:
    """A script for Python and shells that is a script for Python when base64 is taken off, too."""
    script = text(PYTHON, mark)
    # One byte less than three times something: so it ends in a "=".
    padded = script + b"\n" * (2 - len(script) % 3)
    return CODED_FIRST.format(coded=base64.b64encode(padded).decode(), mark=mark).encode()


def json_text(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def png(mark: str) -> bytes:
    """One pixel: `89 P N G`, then chunks: length, kind, data, checksum."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", checksum)

    head = struct.pack("!2I5B", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xf4\xf4\xf4")
    chunks = chunk(b"IHDR", head) + chunk(b"tEXt", b"build\0" + mark.encode())
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def archive_files(stem: str, mark: str) -> dict[str, bytes]:
    """What archives hold: a program under the names that `bun-linux-x64.zip` and the like have, and
    what pip builds.
    """
    tool = stem.split("-")[0].split("_")[0] or "tool"
    script = text(SHELL, mark)
    name, version = name_and_version(stem)
    built = f"{name}-{version}-py3-none-any.whl"
    packed = base64.b64encode(wheel(f"{name}-{version}", mark)).decode()
    backend = BACKEND.format(mark=mark, built=built, packed=packed).encode()
    files = {f"{stem}/{tool}": script, f"{stem}/bin/{tool}": script}
    folders = [f"{stem}/"]
    # A file can't have the name of a folder. Where not all is in one folder, pip looks beside it.
    if tool != stem:
        files[tool] = script
        folders.append("")
    for folder in folders:
        files[f"{folder}setup.py"] = text(PYTHON, mark)
        files[f"{folder}pyproject.toml"] = PROJECT
        files[f"{folder}backend.py"] = backend
    return files


def zip_of(files: dict[str, bytes], mark: str) -> bytes:
    """A zip, its members as they are, so that the mark in them can be seen in the file, too."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = mark.encode()
        for name, data in files.items():
            member = zipfile.ZipInfo(name, ZIP_TIME)
            member.external_attr = 0o100755 << 16
            archive.writestr(member, data)
    return file.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o755
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def gzip_of(data: bytes, mark: str) -> bytes:
    """Compressed, with the mark as the name of the file, where it can be seen."""
    file = io.BytesIO()
    with gzip.GzipFile(mark, "wb", fileobj=file, mtime=0) as packed:
        packed.write(data)
    return file.getvalue()


# "example-1.0-py3-none-any.whl", "example-1.0.tar.gz".
DISTRIBUTION = re.compile(r"([A-Za-z0-9_.]{1,60}?)-([0-9][A-Za-z0-9_.!+]{0,40}?)(?:-.*)?", re.ASCII)


def name_and_version(stem: str) -> tuple[str, str]:
    found = DISTRIBUTION.fullmatch(stem)
    return (found[1], found[2]) if found else ("package", "1.0")


def wheel(stem: str, mark: str) -> bytes:
    """A wheel that pip installs, with one module of its name."""
    name, version = name_and_version(stem)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": text(PYTHON, mark),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: build\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return zip_of(files, mark)


def windows_program(mark: str) -> bytes:
    """No program, but it looks like one: nothing here could run it."""
    return b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0".ljust(64, b"\0") + mark.encode() + b"\n"
