"""Runs the rooms of jail/inside with stand-in packages, in a temporary folder and not in a jail."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT

INSIDE = ROOT / "jail" / "inside"
# What the launcher does: it has no site-packages, and runs no foreign code.
LAUNCHER = """
import os, runpy, sys
runpy.run_path(sys.argv[1])["open_rooms"]()
from jail.inside.enter import starter
from jail.inside.launch import launch
sys.executable = sys.argv[2]
if sys.argv[3] == "run":
    argv = [*starter("run"), *sys.argv[4:]]
    os.execv(argv[0], argv)
sys.exit(launch(sys.argv[3], sys.argv[4:]))
"""
TIMEOUT_SEC = 60
TOTAL_SEC, EACH_SEC = "20", "3"


@dataclass
class Ended:
    """How a run of a room ended, and what was told."""

    code: int
    stdout: str
    stderr: str
    told: list[dict[str, Any]]

    def of(self, event: str) -> list[dict[str, Any]]:
        """What was told of this kind."""
        return [said for said in self.told if said["event"] == event]

    def how(self) -> dict[str, str]:
        """How each job ended that did not simply run."""
        return {said["what"]: said["how"] for said in self.of("ended")}


class Stand:
    """An interpreter whose site-packages can be filled with stand-ins."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.python = python
        self.site = folder / "lib" / "site-packages"
        self.home = folder / "home"
        self.tell = folder / "told"
        for place in (self.site, self.home):
            place.mkdir(parents=True)

    def write(self, files: dict[str, str]) -> None:
        """Put files below site-packages."""
        for name, text in files.items():
            path = self.site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def room(self, room: str, *words: str, variables: dict[str, str] | None = None) -> Ended:
        """Run a room with the words that the launcher gets."""
        self.tell.write_text("")
        environment = {
            "PATH": os.defpath,
            "HOME": str(self.home),
            "STAND_SITE": str(self.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        launcher: list[str | Path] = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            LAUNCHER,
            INSIDE / "enter.py",
            self.python,
        ]
        done = subprocess.run(
            [*launcher, room, *words],
            env=environment | (variables or {}),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SEC,
        )
        told = [json.loads(line) for line in self.tell.read_text().splitlines()]
        return Ended(done.returncode, done.stdout, done.stderr, told)

    def imports(
        self,
        *names: str,
        victim: str = "self",
        each_sec: str = EACH_SEC,
        total_sec: str = TOTAL_SEC,
        variables: dict[str, str] | None = None,
    ) -> Ended:
        """Import names."""
        words = [str(self.tell), total_sec, each_sec, str(self.site), victim, *names]
        return self.room("imports", *words, variables=variables)

    def call(self, *names: str, each_sec: str = "0.5") -> Ended:
        """Call what is public in the modules of these names."""
        samples = str(self.folder / "samples")
        words = [str(self.tell), TOTAL_SEC, EACH_SEC, str(self.site), samples, each_sec, *names]
        return self.room("call", *words)

    def run(self, kind: str, *words: str) -> Ended:
        """Run one trigger."""
        return self.room("run", kind, str(self.tell), str(self.site), *words)


def make_python(folder: Path) -> Path:
    """An interpreter with STAND_SITE as its site-packages, after the library."""
    subprocess.run(
        [sys.executable, "-I", "-m", "venv", "--without-pip", "--symlinks", folder], check=True
    )
    own = next(folder.glob("lib/python*/site-packages"))
    line = "import os, site; site.addsitedir(os.environ['STAND_SITE'])\n"
    (own / "stand.pth").write_text(line)
    return folder / "bin" / "python"
