"""What was tried by opening files: what failed leaves no trace in the scratch, and only Python says
it.

Hostile input: paths in the lines of the audit hook. Annotation, never proof.
"""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TypeVar

from jail.orders import HOME_IN_JAIL, SCRATCH_FOLDERS, WORK_IN_JAIL
from jail.watch.command_words import secrets_in_command
from jail.watch.credential_stores import CredentialStore, store_of
from jail.watch.noticed import MachineRead, Remark, Sought, Walked, WriteRefused

MAX_ATTEMPTS = 1000  # of each kind in one jail
MAX_PATHS = 50  # of one event
MAX_PATH_CHARS = 300  # of a path that is told
# Whoever lists as many different folders of the home is looking for something.
MANY_FOLDERS = 5
# Decoys in which pip, git and curl look by themselves, of which the hook hears nothing: these tell
# by Python's word, by a command that names them, and by what turns up elsewhere.
READ_BY_ALL = {f"{HOME_IN_JAIL}/.netrc"}

Tried = TypeVar("Tried")
Value = TypeVar("Value")


class Opened(StrEnum):
    """What a file was opened for, in the words of the audit hook."""

    READ = "read"
    WRITE = "write"
    REMOVE = "remove"
    FOLDER = "folder"  # to be made
    LIST = "list"


# The rest of the jail is mounted read-only. /dev and /proc have files that anybody may write to.
WRITABLE_FOLDERS = (
    f"{WORK_IN_JAIL}/",
    *(f"{path}/" for path in SCRATCH_FOLDERS.values() if path),
    "/dev/",
    "/proc/",
)
# But not what all processes have in common.
KERNEL_SETTINGS = ("/proc/sys/", "/proc/sysrq-trigger")
# What programs keep for themselves, where nobody looks for secrets.
OWN_FOLDERS_OF_TOOLS = (f"{HOME_IN_JAIL}/.cache/", f"{HOME_IN_JAIL}/.local/lib/")
# Signs of one machine, or of a sandbox (MITRE ATT&CK T1497.001, T1082).
SIGNS = {
    "the machine's identity": r"/etc/machine-id|/var/lib/dbus/machine-id"
    r"|/proc/sys/kernel/random/boot_id|/etc/hostid",
    "the machine's maker (DMI)": r"/sys/(?:class|devices/virtual)/dmi/.*|/sys/hypervisor/.*"
    r"|/sys/firmware/dmi/.*",
    "how long it has run": r"/proc/uptime",
    "whether it is traced": r"/proc/(?:self|thread-self|\d+)/(?:task/\d+/)?(?:status|wchan"
    r"|syscall)",
    "whether it is in a container": r"/\.dockerenv|/run/\.containerenv|/proc/(?:1|self)/(?:cgroup"
    r"|environ|mountinfo|sched)|/proc/1/.*",
    "what is loaded into it": r"/proc/(?:self|thread-self|\d+)/(?:maps|smaps|map_files)",
    "who else is at work": r"/proc/\d+/(?:cmdline|comm|exe)",
    "the network's hardware": r"/sys/class/net/.*|/proc/net/arp",
    "the processors": r"/proc/cpuinfo",
    "the disks and modules": r"/proc/(?:modules|partitions|scsi/.*|bus/.*|ide/.*)|/sys/block/.*",
}
SIGN_PATTERNS = [(sign, re.compile(pattern)) for sign, pattern in SIGNS.items()]
# Everybody looks there, and it only tells something beside others.
EVERYDAY_SIGNS = {"the processors", "who else is at work", "the disks and modules"}


def sign_of(path: str) -> str | None:
    for sign, pattern in SIGN_PATTERNS:
        if pattern.fullmatch(path):
            return sign
    return None


class Attempts:
    """The attempts in one jail, each path once."""

    def __init__(self) -> None:
        self.there: frozenset[str] = frozenset()  # files of the decoys: reading them shows itself
        self.lived_in: frozenset[str] = frozenset()  # of the home, before the package came
        self.refused: dict[tuple[Opened, str], str] = {}  # places, by what was tried at a path
        self.sought: dict[str, tuple[CredentialStore, str]] = {}  # stores and places, by the path
        self.folders: dict[str, str] = {}
        self.signs: dict[str, tuple[str, str]] = {}
        self.lost = 0

    def know_home(self, decoys: Iterable[str], lived_in: Iterable[str] | None) -> None:
        """What lies in the home before a package does anything, as the jail sees it."""
        self.there, self.lived_in = frozenset(decoys), frozenset(lived_in or ())

    def note(self, how: Opened, path: str, place: str) -> None:
        """Python opened a path as it is in the jail, normalised.

        As Windows names it, after its own home: `C:\\Users\\dev\\AppData\\Roaming\\discord`.
        """
        if "\\" in path and "AppData" in path:
            below = re.split(r"[\\/]+AppData[\\/]+", path, maxsplit=1)[-1]
            path = f"{HOME_IN_JAIL}/AppData/" + re.sub(r"\\+", "/", below)
        # An empty folder starts nothing, and who makes it mostly wants it to be there.
        if how is Opened.FOLDER:
            return
        if how in (Opened.WRITE, Opened.REMOVE):
            if path.startswith(KERNEL_SETTINGS) or not path.startswith(WRITABLE_FOLDERS):
                self.keep(self.refused, (how, path), place)
            return
        store = None
        if path not in self.there:
            store = store_of(f"{path}/" if how is Opened.LIST else path)
        if store:
            self.keep(self.sought, path, (store, place))
        elif sign := sign_of(path):
            self.keep(self.signs, path, (sign, place))
        is_in_home = f"{path}/".startswith(f"{HOME_IN_JAIL}/")
        if how is Opened.LIST and is_in_home and not path.startswith(OWN_FOLDERS_OF_TOOLS):
            self.keep(self.folders, path, place)

    def note_command(self, line: str, place: str) -> None:
        """Python started a command."""
        for path in secrets_in_command(line):
            store = store_of(path) or store_of(f"{path}/")
            if store and path not in self.there - READ_BY_ALL:
                self.keep(self.sought, path, (store, place))

    def keep(self, found: dict[Tried, Value], key: Tried, value: Value) -> None:
        if key in found:
            return
        if len(found) < MAX_ATTEMPTS:
            found[key] = value
        else:
            self.lost += 1

    def events(self) -> Iterator[Remark]:
        """What they come to: one event for all secrets, since a thief's list is one act."""
        for (how, path), place in self.refused.items():
            yield WriteRefused(path[:MAX_PATH_CHARS], place, how is Opened.REMOVE)
        if self.sought:
            found = [*self.sought.values()]
            stores = dict.fromkeys(store.kind for store, _ in found)
            is_grave = any(store.is_grave for store, _ in found)
            yield Sought((*stores,), first_paths(self.sought), is_grave, found[0][1])
        if len(self.folders) >= MANY_FOLDERS:
            yield Walked(first_paths(self.folders), next(iter(self.folders.values())))
        signs = dict.fromkeys(sign for sign, _ in self.signs.values())
        if not EVERYDAY_SIGNS.issuperset(signs):
            place = next(iter(self.signs.values()))[1]
            yield MachineRead((*signs,), first_paths(self.signs), place)


def first_paths(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path[:MAX_PATH_CHARS] for path in [*paths][:MAX_PATHS])
