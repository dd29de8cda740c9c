"""What the package would do if other projects were there: jail/inside/unmet.py finds it. What of it
was not made good by a second try is a gap.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from jail.watch.contents import plain_project
from jail.watch.events import NotRun, Omission, PhaseName, Seen
from jail.watch.installed import Installed
from jail.watch.noticed import Notice, Noticed

# What is imported by another name than its project's: the projects that most people have.
PROJECTS_BY_MODULE = {
    "Crypto": "pycryptodome",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "git": "gitpython",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "nacl": "pynacl",
    "pkg_resources": "setuptools",
    "psycopg2": "psycopg2-binary",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "socks": "pysocks",
    "telegram": "python-telegram-bot",
    "usb": "pyusb",
    "websocket": "websocket-client",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
# The trigger that imports all modules with what was missed, and as no other system's.
LAST_ON_THIS_SYSTEM = "as ci, later"
# `numpy`, `google.cloud.storage`
PROJECT_MODULE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{1,60}", re.ASCII)


def unmet(seen: Iterable[Seen]) -> Iterator[Noticed]:
    """What was told of acts that other projects are needed for. Tests need many."""
    for item in seen:
        event, is_import = item.event, item.phase.name is PhaseName.IMPORT
        if is_import and isinstance(event, Noticed) and event.kind is Notice.UNMET:
            yield event


def waited_for(seen: Iterable[Seen]) -> list[str]:
    """The modules that acts wait for."""
    names = dict.fromkeys(event.what for event in unmet(seen))
    return [name for name in names if PROJECT_MODULE.fullmatch(name)]


def project_of(module: str) -> str:
    """The project that brings a module, as far as it is known: most have the module's name."""
    return PROJECTS_BY_MODULE.get(module) or plain_project(module)


def acts_not_run(seen: Sequence[Seen], installed: Installed) -> list[NotRun]:
    """The acts whose projects are not there, or can't be imported, whatever was tried."""
    broken = {*found_broken(seen)}
    found: dict[str, None] = {}
    for event in unmet(seen):
        is_there = has_landed(event.what, installed)
        if not event.what:
            found[f"{event.text} ({event.place})" if event.place else event.text] = None
        elif not is_there or event.what.partition(".")[0] in broken:
            state = "fails" if is_there else "is not there"
            found[f"{event.text} waits for {event.what}, which {state} ({event.place})"] = None
    title = "all modules"
    return [NotRun(PhaseName.IMPORT, title, Omission.LEFT_OUT, reason) for reason in found]


def found_broken(seen: Iterable[Seen]) -> Iterator[str]:
    """The modules that failed though they were there, on the system that they are made for."""
    for item in seen:
        event, is_last = item.event, item.phase.trigger == LAST_ON_THIS_SYSTEM
        if is_last and isinstance(event, Noticed) and event.kind is Notice.MISSED and event.how:
            yield event.what


def has_landed(module: str, installed: Installed) -> bool:
    """Whether a module is there by now."""
    path = f"{installed.site}/{module.replace('.', '/')}"
    is_file = any(file.startswith((f"{path}/", f"{path}.")) for file in installed.files)
    # Its version may have been asked for, by the project's name.
    return is_file or plain_project(module) in map(plain_project, installed.owners.values())
