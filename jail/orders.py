"""The vocabulary between the rooms, and every path, port and bound of the jail, each said once.

Three channels carry it. The service tells keeper its settings, once, then an order for each run (`parse_order`). The
watch of a run asks its run keeper to start or kill a jail (`parse_request`), and is answered with an `Answer`. Whatever
breaks a rule raises OrderError: who sent it may have been taken over, so the text is shown by `repr` and is bounded.
"""

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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

RUN_ID = re.compile(r"[0-9a-f]{32}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
# Each field of an order with what it may look like. The service has checked them by PEP 503 and PEP 440; this is only
# what makes them harmless as words of a command line, of a path and of a URL.
MODES = ("install", "execute", "execute_module", "import", "detonate")
WORD = r"(?!-)[!-~]{1,200}"
ORDER_FIELDS = {
    "task": "triage|hosts",
    "run_id": RUN_ID.pattern,
    "package_name": r"[a-z0-9]+(?:-[a-z0-9]+)*",
    "version": r"[0-9a-z.!+]{1,200}",
    "mode": "|".join(MODES),
    "file_path": r"(?!-)[ -~]{1,200}",
    "entrypoint": WORD,
    "module_name": WORD,
    "artifact": WORD,
}
OPTIONAL_FIELDS = {"file_path", "entrypoint", "module_name", "artifact"}


class OrderError(Exception):
    """A word that is not of the vocabulary; nothing was done."""


@dataclass(frozen=True)
class JailSettings:
    """What the operator set that concerns the jail. The service sends it once, before it has met a stranger's byte."""

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
    pip_package: str  # the folder of the pip that is a pinned dependency of ours
    rlimit_as_mb: int
    rlimit_cpu_sec: int
    rlimit_nofile: int
    run_budget_sec: int
    run_timeout_sec: int
    state_dir: str


@dataclass(frozen=True)
class Order:
    """One run. `task` is "triage", or "hosts": only ask the index from which hosts its files come."""

    task: str
    run_id: str
    package_name: str
    version: str
    mode: str
    file_path: str | None = None
    entrypoint: str | None = None
    module_name: str | None = None
    artifact: str | None = None

    @property
    def site(self) -> str:
        """The install target, relative to the scratch."""
        return f"site/{self.package_name}-{self.version}"


@dataclass(frozen=True)
class Start:
    """A request of watch: start jail number `jail` with these words for launch.py, and this environment."""

    jail: int
    launch: tuple[str, ...]
    variables: dict[str, str]
    index: bool


@dataclass(frozen=True)
class Kill:
    """A request of watch: end jail number `jail`."""

    jail: int


@dataclass(frozen=True)
class Answer:
    """What the run keeper tells watch of a jail: it was started (with descriptors, in the order of JAIL_FDS, and the
    sockets of its network), or it ended: `status` as waitstatus_to_exitcode has it, `oom_kills` of the run so far."""

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
    return JailSettings(**{key: tuple(value) if isinstance(value, list) else value for key, value in said.items()})


def parse_order(packet: bytes) -> Order:
    """An order of the service, each field checked by ORDER_FIELDS. Raises OrderError."""
    said = read_packet(packet)
    said = {key: value for key, value in said.items() if value is not None or key not in OPTIONAL_FIELDS}
    if not ORDER_FIELDS.keys() - OPTIONAL_FIELDS <= said.keys() <= ORDER_FIELDS.keys():
        raise OrderError(f"an order with other fields: {sorted(said)!r:.200}")
    for key, value in said.items():
        if not isinstance(value, str) or not re.fullmatch(ORDER_FIELDS[key], value, re.ASCII):
            raise OrderError(f"an order whose {key} is {value!r:.100}")
    return Order(**said)


def parse_request(packet: bytes) -> Start | Kill:
    """A request of watch. Raises OrderError.

    Whoever sends it: the words and variables are seen in the jail alone, where hostile code runs in any case.
    """
    said = read_packet(packet)
    jail = said.get("jail")
    if type(jail) is not int or not 0 <= jail < MAX_JAILS:
        raise OrderError(f"no number of a jail: {jail!r:.100}")
    if said.keys() == {"jail"}:
        return Kill(jail)
    launch, variables, index = said.get("launch"), said.get("variables"), said.get("index")
    if said.keys() != {"jail", "launch", "variables", "index"} or not isinstance(index, bool):
        raise OrderError(f"a request with other fields: {sorted(said)!r:.200}")
    if not isinstance(launch, list) or not 0 < len(launch) <= MAX_WORDS:
        raise OrderError("a launch that is no list of words")
    if not isinstance(variables, dict) or len(variables) > MAX_VARIABLES:
        raise OrderError("variables that are no object")
    for name in variables:
        if not VARIABLE.fullmatch(name):
            raise OrderError(f"a variable named {name!r:.100}")
    for word in [*launch, *variables.values()]:
        if not isinstance(word, str) or "\0" in word or len(word.encode(errors="replace")) > MAX_WORD_BYTES:
            raise OrderError(f"a word that no program can be given: {word!r:.100}")
    return Start(jail, tuple(launch), variables, index)
