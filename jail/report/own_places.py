"""How grave a change of a file is by where it lies: where code waits for others, or among
somebody's own files; and which tools set up such a place for who calls them.
"""

import re

from jail.report.own_secrets import is_own_secret
from jail.report.places import what_waits_at
from jail.watch.events import FileChanged, Phase, PhaseName, Severity

# What lay in the home before any package came.
PERSONAL_FILE = "somebody's own file"
# The kinds of places that tools of these modules set up for who calls them.
PLACES_OF_TOOLS = {
    "notebook start": "jupyter_core jupyter_server jupyterlab jupyterlab_server notebook nbclassic"
    " nbconvert IPython ipykernel",
    "cloud or container tool": "awscli botocore boto3 docker kubernetes",
    "version control": "git dulwich",
    "Python start": "pip",
}
# "/srv/site/x-1.0/lib/python3.11/site-packages/jupyter_core/application.py:12"
TOP_MODULE = re.compile(r".*/site-packages/(\w+)[/.].*", re.ASCII)


def waiting_at(phase: Phase, event: FileChanged, path: str) -> tuple[Severity, str] | None:
    """How grave a change is under one of the file's names, and why; None where nothing waits."""
    kind = what_waits_at(path) or (PERSONAL_FILE if event.was_there else "")
    return (severity_at(phase, kind, path, event.place), kind) if kind else None


def severity_at(phase: Phase, kind: str, path: str, place: str | None) -> Severity:
    """How grave it is to write where a kind of program executes or obeys it, by the line that does.

    A tool that is run, or a function of it that is called, and sets up what is its own, its
    password, too (`wandb.login()`): info.
    """
    is_asked = phase.name in (PhaseName.CALL, PhaseName.EXECUTE)
    found = TOP_MODULE.fullmatch(place or "")
    module = found[1] if found else ""
    is_own = module in PLACES_OF_TOOLS.get(kind, "").split()
    is_own |= is_own_secret(path, module.replace("_", "-"))
    return Severity.INFO if is_asked and is_own else Severity.HIGH
