"""What pip has installed: the files that the distributions list as theirs, the scripts and modules
of the target.

Hostile input: the metadata of wheels, RECORD and entry_points.txt.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from jail.orders import Order
from jail.watch.contents import METADATA_PATH, Contents, parse_project, parse_record, read_contents
from jail.watch.scratch import Scratch

MAX_ENTRIES = 10_000  # scripts, modules

# `site/six-1.17.0/six-1.17.0.dist-info/RECORD`: the folder of the metadata, and the project's name
# in it.
RECORD_PATH = re.compile(r"((?:[^/]+/){2}([^/-]+)[^/]*\.dist-info)/RECORD", re.DOTALL)
# `black = black:patched_main [extra]`, a line of entry_points.txt.
SCRIPT = re.compile(
    r"\s*([\w.-]{1,100})\s*=\s*([A-Za-z_][\w.]{0,200}:[A-Za-z_][\w.]{0,200})\s*(?:\[.*)?", re.ASCII
)
# `black/__init__.py,sha256=47DEQ...,0`, a line of RECORD: the top-level module of a file with code.
MODULE = re.compile(
    r'"?((?!__pycache__)[A-Za-z_]\w{0,100})(?:/.*)?(?:\.pyc?|\.(?:[\w-]+\.)?so),.*', re.ASCII
)
SCRIPT_SECTIONS = ("[console_scripts]", "[gui_scripts]")


@dataclass
class Installed:
    """`owners` are the paths in the scratch that a RECORD names; scripts and modules are the
    target's own.
    """

    owners: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)  # name: module:attribute
    modules: list[str] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents)


def canonical(name: str) -> str:
    """A project's name in its one form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_installed(scratch: Scratch, files: Collection[str], order: Order) -> Installed:
    """Read the metadata of every distribution in the install target.

    Of the target's scripts and modules those that are named like it come first: a person would try
    them.
    """
    installed = Installed()
    prefix = f"{order.site}/"
    below = [path[len(prefix):] for path in files if path.startswith(prefix)]
    def read(path: str) -> str:
        return "\n".join(scratch.lines(prefix + path, "RECORD"))
    for path in below:
        m = METADATA_PATH.fullmatch(path)
        if m:
            owner = parse_project(read(path)) or ""
            for theirs in parse_record(read(path.rpartition("/")[0] + "/RECORD"), m[1]):
                if prefix + theirs in files:
                    installed.owners.setdefault(prefix + theirs, owner)
    installed.contents = read_contents(below, read, order.package_name)
    installed.modules = installed.contents.first
    installed.scripts = {e.name: e.target for e in installed.contents.scripts}
    return installed


def parse_scripts(lines: list[str]) -> dict[str, str]:
    """The console and GUI scripts of an entry_points.txt: name, module:attribute."""
    scripts: dict[str, str] = {}
    section = ""
    for line in lines:
        if line.startswith("["):
            section = line.strip()
            continue
        script = (
            SCRIPT.fullmatch(line)
            if section in SCRIPT_SECTIONS and len(scripts) < MAX_ENTRIES
            else None
        )
        if script:
            scripts[script[1]] = script[2]
    return scripts
