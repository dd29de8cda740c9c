"""Which events of Python the audit hook tells, and what it calls them. A part of the hook."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Audit events by what a reader calls them, each with the place of the argument that a reader wants
# (Python's "Audit events table").
SPAWNS = {
    "subprocess.Popen": 1,
    "os.system": 0,
    "os.exec": 1,
    "os.posix_spawn": 1,
    "pty.spawn": 0,
}
PEERS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.bind": 1}
HOST_NAMES = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
OPENED = {"open": 0, "sqlite3.connect": 0, "os.listdir": 0, "os.scandir": 0}
# What is made or removed without being opened.
MADE = {"os.remove": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.mkdir": 0, "os.chmod": 0}
MADE |= {"os.truncate": 0, "os.chown": 0}
MADE_HOW = {"os.remove": "remove", "os.mkdir": "folder"}
LISTED = {"os.listdir", "os.scandir"}
REGISTRY_VALUES = {"winreg.SetValue": 0}  # of our stand-in for Windows' registry
COMPILED = {"compile": 0, "marshal.loads": 0, "code.__new__": 0}
# Of "import" the file of a compiled module; other imports have none.
NATIVE = {"import": 1, "ctypes.dlopen": 0}
LOOKED_UP = {"ctypes.dlsym": 1}
# Functions of the C library by which Python code does unseen what Python would tell.
GOES_AROUND = {
    *("syscall", "socket", "connect", "send", "sendto", "sendmsg", "sendmmsg"),
    *("getaddrinfo", "gethostbyname", "gethostbyname2", "gethostbyaddr", "res_query"),
    *("execl", "execlp", "execv", "execve", "execvp", "execvpe", "execveat", "fexecve"),
    *("posix_spawn", "posix_spawnp", "system", "popen", "fork", "vfork", "clone", "clone3"),
}
LIBRARY_ACTS = {"spawn", "address", "name"}  # of which the kernel sees what they come to
WATCHED = {
    event: (kind, position)
    for kind, events in (
        ("spawn", SPAWNS),
        ("address", PEERS),
        ("name", HOST_NAMES),
        ("open", OPENED),
        ("registry", REGISTRY_VALUES),
        ("open", MADE),
        ("code", COMPILED),
        ("native", NATIVE),
        ("around", LOOKED_UP),
        ("patched", {"sys.addaudithook": 0}),
    )
    for event, position in events.items()
}
# Functions of the C library that are told, by whom they are asked for: they look into processes.
TOLD_FUNCTIONS = {"ptrace", "process_vm_readv", "process_vm_writev"}
# Where an event has the names that the new code bears.
NAMES_OF_CODE = {"compile": slice(1, 2), "code.__new__": slice(1, 3)}


def is_odd_text(value: Any) -> bool:
    """Whether it is a text of a class of the package's own, whose methods are the package's."""
    return isinstance(value, str) and type(value) is not str


def exact_text(value: Any) -> str:
    """A text as Python itself has it; "" of what is none: of `exec` the name is not told."""
    return str.__str__(value) if isinstance(value, str) else ""
