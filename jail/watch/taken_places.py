"""Files that a project installs where others than its own programs execute or obey them: what a
wheel has in .data/data lands anywhere below the prefix, and acts there though nobody imports it.

Hostile input: the paths.
"""

import fnmatch
import re
from collections.abc import Iterator

from jail.watch.commands import PROGRAMS_OF_OTHERS, commands_taken
from jail.watch.installed import Installed
from jail.watch.noticed import PlaceTaken, Remark
from jail.watch.odd_names import odd_names

MAX_TAKEN_PLACES = 50

# By kind, relative to the prefix. That may be a virtual environment, that of conda, the folder of
# Python itself in a container, or ~/.local. `*` stands for anything, slashes included.
PREFIX_PLACES = {
    # docs.python.org: venv. An activation is read by the shell of who types it.
    "virtual environment": """
    pyvenv.cfg bin/activate bin/activate.* bin/Activate.ps1 bin/activate_this.py
    bin/python3.[0-9]* bin/pythonw
    """,
    # docs.conda.io: Managing environments
    "conda environment": "etc/conda/*",
    # ipython.readthedocs.io: Configuration; docs.jupyter.org: Common directories
    "notebook start": """
    etc/ipython/* etc/jupyter/*.py share/jupyter/*.py share/jupyter/kernels/python3/*
    """,
    # bash(1), fish: Configuration files
    "shell start": "etc/profile* etc/bash.bashrc etc/zsh* share/fish/vendor_conf.d/* etc/fish/*",
    # systemd.unit(5), XDG Autostart, dbus-daemon(1)
    "login session": """
    share/systemd/* lib/systemd/* etc/systemd/* etc/xdg/autostart/* share/dbus-1/services/*
    share/applications/mimeapps.list
    """,
    # cron(8)
    "scheduled jobs": "etc/cron*",
    # git-config(1), docs.docker.com: CLI plug-ins
    "other programs": "etc/gitconfig share/git-core/* lib/docker/cli-plugins/* etc/pip.conf",
    # docs.python.org: sys.path. The target's own site-packages is another folder.
    "library of a Python": "lib/python3* lib64/python3* lib/pypy3*",
}
RIGHTFUL_OWNERS = {"ipykernel": "notebook start", "python": "virtual environment"}
PREFIX_PATTERNS = {
    kind: re.compile("|".join(map(fnmatch.translate, paths.split())))
    for kind, paths in PREFIX_PLACES.items()
}
# Read when somebody completes the words of that command.
COMPLETIONS = re.compile(
    r"share/(?:bash-completion/completions|fish/vendor_completions\.d|zsh/site-functions)"
    r"/_?([\w-]+)(?:\.\w+)?",
    re.ASCII,
)


def kind_of_place(path: str, site: str) -> str:
    """What executes or obeys a file below the prefix, "" where only its own project does.

    >>> kind_of_place("bin/activate", "lib/python3.11/site-packages")
    'virtual environment'
    """
    if re.sub(r"^lib64/", "lib/", path).startswith(f"{re.sub('^lib64/', 'lib/', site)}/"):
        return ""
    completion = COMPLETIONS.fullmatch(path)
    if completion and completion[1] in PROGRAMS_OF_OTHERS:
        return "shell start"
    for kind, paths in PREFIX_PATTERNS.items():
        if paths.match(path):
            return kind
    return ""


def all_taken(installed: Installed, prefix: str) -> Iterator[Remark]:
    """Commands of others, names that may be read as others', and such places, that an installation
    takes.

    Args:
        prefix: of the installation, `site/a-1.0/`.
    """
    yield from commands_taken(installed.owners, prefix)
    yield from odd_names(installed.owners, prefix)
    count = 0
    for listed, project in sorted(installed.owners.items()):
        path = listed.removeprefix(prefix)
        kind = kind_of_place(path, installed.site)
        if not kind or RIGHTFUL_OWNERS.get(project) == kind:
            continue
        count += 1
        if count > MAX_TAKEN_PLACES:
            return
        yield PlaceTaken(path, kind, project)
