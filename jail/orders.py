"""The vocabulary between the rooms, and every path, port and bound of the jail, each said once.

OrderError is raised for whatever breaks a rule: who sent it may have been taken over.
"""

import json
import os
import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

JAIL_DIR = Path(__file__).resolve().parent

# Paths inside the jail. nsjail.cfg mounts them; no other file repeats one.
ROOT_IN_JAIL = "/opt/snakehook"
PYTHON_IN_JAIL = f"{ROOT_IN_JAIL}/python"
INSIDE_IN_JAIL = f"{ROOT_IN_JAIL}/inside"
AUDIT_IN_JAIL = f"{ROOT_IN_JAIL}/audit"
WORK_IN_JAIL = f"{ROOT_IN_JAIL}/work"
HOME_IN_JAIL = "/home/dev"
# The folders of the scratch, and where else than below WORK_IN_JAIL the jail sees each.
SCRATCH_FOLDERS = {"site": None, "home": HOME_IN_JAIL, "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108
INDEX_PORT = 3141
DNS_PORT = 53
# launch.py's first line: from here on the package may have had its say.
STARTED = b"jail ready\n"

MAX_PACKET_BYTES = 96 << 10
MAX_JAILS = 400  # of one run, one after the other
MAX_WORDS = 600  # of a launch
MAX_WORD_BYTES = 4096
MAX_VARIABLES = 100
# After its own deadline a watch has this long to judge and draw before its run is ended.
GRACE_SEC = 20.0
MAX_INODES = 150_000
# The disk is larger than it may be filled: the watch sees the limit passed before the disk is full.
SPARE_BYTES, SPARE_INODES = 64 << 20, 10_000

MODES = ("install", "execute", "execute_module", "import", "detonate")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
WORD = r"(?!-)[!-~]{1,200}"


class OrderError(Exception):
    """A word that is not of the vocabulary, about jail number `jail` if any; nothing was done."""

    def __init__(self, text: str, jail: int | None = None) -> None:
        super().__init__(text)
        self.jail = jail


# What the operator set that concerns the jail. The service sends it once, before it has met a
# stranger's byte. `pip_package` is the folder of the pip that is a pinned dependency of ours.
@dataclass(frozen=True)
class JailSettings:
    cgroup_pids_max: int
    decoy_internet: bool
    enable_cgroup_pids_limit: bool
    index_file_hosts: tuple[str, ...]
    jail_python_name: str
    max_concurrency: int
    max_disk_bytes: int
    max_download_bytes: int
    nsjail_chroot_path: str
    nsjail_config_path: str
    nsjail_disable_clone_newuser: bool
    nsjail_group: int
    nsjail_path: str
    nsjail_user: int
    package_denylist: tuple[str, ...]
    pip_cache_dir: str
    pip_index_url: str
    pip_package: str
    rlimit_as_mb: int
    rlimit_cpu_sec: int
    rlimit_nofile: int
    run_budget_sec: int
    run_timeout_sec: int
    state_dir: str


# What the machine offers for a jail, found once at start, as paths. `cache`: of downloads, as watch
# can open it. `own_user`: strace needs a user namespace to look into processes. `notes`: for the
# report, of what is missing here.
@dataclass(frozen=True)
class Machine:
    nsjail: str
    strace: str | None
    python: str
    base: str
    cache: str
    index_url: str
    default_index: bool
    cgroups: tuple[str, ...] = ()
    own_user: bool = False
    notes: tuple[str, ...] = ()


# One run, each field with what it may look like. The service has checked them by PEP 503 and
# PEP 440; this only makes them harmless as words of a command line, of a path and of a URL.
# `task`: "hosts" only asks the index from which hosts its files come.
@dataclass(frozen=True)
class Order:
    task: Annotated[str, "triage|hosts"]
    run_id: Annotated[str, "[0-9a-f]{32}"]
    package_name: Annotated[str, "(?!.{201})[a-z0-9]+(?:-[a-z0-9]+)*"]
    version: Annotated[str, "[0-9][0-9a-z.!+]{0,199}"]
    mode: Annotated[str, "|".join(MODES)]
    file_path: Annotated[str | None, r"(?![-/])(?!(.*/)?\.\.(/|$))[ -~]{1,200}"] = None
    entrypoint: Annotated[str | None, WORD] = None
    module_name: Annotated[str | None, WORD] = None
    artifact: Annotated[str | None, r"(?!\.)[A-Za-z0-9._+!-]{1,200}"] = None

    @property
    def site(self) -> str:
        """The install target, relative to the scratch."""
        return f"site/{self.package_name}-{self.version}"


ORDER_FIELDS = {field.name: get_args(field.type)[1] for field in fields(Order)}
OPTIONAL_FIELDS = {field.name for field in fields(Order) if field.default is not MISSING}


# A request of watch: start jail number `jail` with these words for launch.py and this environment.
@dataclass(frozen=True)
class Start:
    jail: int
    launch: tuple[str, ...]
    variables: dict[str, str]
    index: bool


# A request of watch: end jail number `jail`.
@dataclass(frozen=True)
class Kill:
    jail: int


# What the run keeper tells watch of a jail: it was started (with descriptors, in the order of
# JAIL_FDS, and the sockets of its network), or it ended: `status` as waitstatus_to_exitcode has it,
# `oom_kills` of the run so far.
@dataclass(frozen=True)
class Answer:
    jail: int
    ended: bool
    status: int = 0
    oom_kills: int = 0
    error: str = ""


JAIL_FDS = ("stdout", "stderr", "log", "trace", "audit")


def read_packet(packet: bytes) -> dict[str, Any]:
    """The JSON object of a packet. Raises OrderError."""
    try:
        said = json.loads(packet) if len(packet) <= MAX_PACKET_BYTES else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise OrderError(f"no JSON object of at most {MAX_PACKET_BYTES} bytes: {packet[:100]!r}")
    return said


def parse_settings(packet: bytes) -> JailSettings:
    """The settings, with exactly the fields that there are. Raises OrderError."""
    said = read_packet(packet)
    if said.keys() != {field.name for field in fields(JailSettings)}:
        raise OrderError(f"settings with other fields: {sorted(said)!r:.200}")
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
    return JailSettings(**given)


def parse_order(packet: bytes) -> Order:
    """An order of the service. Raises OrderError."""
    said = read_packet(packet)
    said = {key: v for key, v in said.items() if v is not None or key not in OPTIONAL_FIELDS}
    if not ORDER_FIELDS.keys() - OPTIONAL_FIELDS <= said.keys() <= ORDER_FIELDS.keys():
        raise OrderError(f"an order with other fields: {sorted(said)!r:.200}")
    for key, value in said.items():
        if not isinstance(value, str) or not re.fullmatch(ORDER_FIELDS[key], value, re.ASCII):
            raise OrderError(f"an order whose {key} is {value!r:.100}")
    return Order(**said)


def parse_request(packet: bytes) -> Start | Kill:
    """A request of watch. Raises OrderError, with the number of the jail where there is one."""
    said = read_packet(packet)
    jail, launch, variables = said.get("jail"), said.get("launch"), said.get("variables")
    if type(jail) is not int or not 0 <= jail < MAX_JAILS:
        raise OrderError(f"no number of a jail: {jail!r:.100}")
    if said.keys() == {"jail"}:
        return Kill(jail)
    if said.keys() != {"jail", "launch", "variables", "index"} or type(said["index"]) is not bool:
        raise OrderError(f"a request with other fields: {sorted(said)!r:.200}", jail)
    if not isinstance(launch, list) or not 0 < len(launch) <= MAX_WORDS:
        raise OrderError("a launch that is no list of words", jail)
    if not isinstance(variables, dict) or len(variables) > MAX_VARIABLES:
        raise OrderError("variables that are no object", jail)
    for name in variables:
        if not VARIABLE.fullmatch(name):
            raise OrderError(f"a variable named {name!r:.100}", jail)
    for word in [*launch, *variables.values()]:
        if not is_word(word):
            raise OrderError(f"a word that no program can be given: {word!r:.100}", jail)
    return Start(jail, tuple(launch), variables, said["index"])


def is_word(value: Any) -> bool:
    """Whether a program can be given it as an argument."""
    try:
        return b"\0" not in os.fsencode(value) and len(os.fsencode(value)) <= MAX_WORD_BYTES
    except (TypeError, UnicodeEncodeError):
        return False
