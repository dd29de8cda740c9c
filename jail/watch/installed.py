"""What pip has installed: the files that the distributions list as theirs, the scripts and modules
of the target.

Hostile input: the metadata of wheels, RECORD and entry_points.txt.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from jail.orders import Order
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


def canonical(name: str) -> str:
    """A project's name in its one form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_installed(scratch: Scratch, files: Collection[str], order: Order) -> Installed:
    """Read the metadata of every distribution in the install target.

    Of the target's scripts and modules those that are named like it come first: a person would try
    them.
    """
    installed = Installed()
    modules: set[str] = set()
    for path in files:
        match = RECORD_PATH.fullmatch(path) if path.startswith(f"{order.site}/") else None
        if not match:
            continue
        is_target = canonical(match[2]) == order.package_name
        for line in scratch.lines(path, "RECORD"):
            theirs = f"{order.site}/" + line.rsplit(",", 2)[0].strip('"').removeprefix("../../")
            if theirs in files:
                installed.owners.setdefault(theirs, canonical(match[2]))
            module = MODULE.fullmatch(line) if is_target and len(modules) < MAX_ENTRIES else None
            if module:
                modules.add(module[1])
        if is_target:
            installed.scripts |= parse_scripts(
                scratch.lines(f"{match[1]}/entry_points.txt", "entry points")
            )

    def rank(name: str) -> tuple[bool, str]:
        return canonical(name) != order.package_name, name

    installed.scripts = {
        name: installed.scripts[name] for name in sorted(installed.scripts, key=rank)
    }
    installed.modules = sorted(modules, key=rank)
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
