# The vocabulary between the rooms, and every path, port and bound of the jail, each said once.

import json
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

JAIL_DIR = Path(__file__).resolve().parent
# Where the machine's own tools are looked for, whatever our environment says.
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Paths inside the jail. nsjail.cfg mounts them; no other file repeats a path. Each is a path that
# many machines have, since a package can read them all: the interpreter's environment, the
# program that starts all others, a FIFO, where the package is installed.
PYTHON_IN_JAIL = "/opt/venv"
LAUNCHER_IN_JAIL = (f"{PYTHON_IN_JAIL}/bin/python", "-IS", f"{PYTHON_IN_JAIL}/bin/activate_this.py")
AUDIT_IN_JAIL = "/run/initctl"
WORK_IN_JAIL = "/srv"
HOME_IN_JAIL = "/home/dev"
# The folders of the scratch, and where else than below WORK_IN_JAIL the jail sees each; and those
# that watch fills, which the jail can only read.
SCRATCH_FOLDERS = {"site": None, "home": HOME_IN_JAIL}
SCRATCH_FOLDERS |= {"tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108
MADE_FOLDERS = ("bin", "boot", "etc", "sys", "venv")
INDEX_PORT, DNS_PORT = 3141, 53
# launch.py's first line: from here on the package may have had its say, and may read it.
STARTED = b"\n"

# Of a packet between the rooms; the jails of a run, and how many of them there are at once: while
# one is at work, the next is made.
MAX_PACKET_BYTES, MAX_JAILS, MAX_JAILS_AT_ONCE = 96 << 10, 400, 2
# After its own deadline a watch has this long to judge and draw before its run is ended, by task.
# The watch of a run that is made ready waits for its order first.
GRACE_SEC = {"triage": 20, "hosts": 20, "ready": 320}
# The disk is larger than it may be filled: the watch sees the limit passed before the disk is full.
MAX_INODES, SPARE_INODES, SPARE_BYTES = 150_000, 10_000, 64 << 20

WORD = r"(?!-)[!-~]{1,200}"
# What a program can be given as an argument: no zero byte, no character that is half of another.
ARGUMENT = re.compile(r"[^\0\ud800-\udc7f\udd00-\udfff]{0,4096}")


# A word that is not of the vocabulary: who sent it may have been taken over. Nothing was done. Its
# arguments are a text, and the number of the jail that it was about, if any.
class OrderError(Exception): ...


# What the operator set that concerns the jail. The service sends it once, before it has met a
# stranger's byte. `pip_package` is the folder of the pip that is a pinned dependency of ours.
class JailSettings(NamedTuple):
    cgroup_pids_max: int
    decoy_internet: bool
    enable_cgroup_pids_limit: bool
    index_file_hosts: tuple[str, ...]
    jail_python_name: str
    keep_samples_bytes: int
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
# can open it. `no_cgroups`: why there are none. `own_user`: where strace needs a user namespace to
# look into processes.
class Machine(NamedTuple):
    nsjail: str
    strace: str | None
    python: str
    base: str
    cache: str
    index_url: str
    default_index: bool = False
    cgroups: tuple[str, ...] = ()
    no_cgroups: str = ""
    own_user: bool = False


# One run, each field with what it may look like. The service has checked them by PEP 503 and
# PEP 440; this only makes them harmless as words of a command line, of a path and of a URL.
# `task`: "hosts" only asks the index from which hosts its files come; "ready" makes all ready for a
# run whose order comes later, on its stream. A file in hand comes with the order as a descriptor:
# its name is the `artifact`.
class Order(NamedTuple):
    task: Annotated[str, "triage|hosts|ready"]
    run_id: Annotated[str, "[0-9a-f]{32}"]
    package_name: Annotated[str, "(?!.{201})[a-z0-9]+(?:-[a-z0-9]+)*"]
    version: Annotated[str, "[0-9][0-9a-z.!+]{0,199}"]
    mode: Annotated[str, "install|execute|execute_module|import|detonate"]
    file_path: Annotated[str | None, r"(?![-/])(?!(.*/)?\.\.(/|$))[ -~]{1,200}"] = None
    entrypoint: Annotated[str | None, WORD] = None
    module_name: Annotated[str | None, WORD] = None
    artifact: Annotated[str | None, r"(?!\.)[A-Za-z0-9._+!-]{1,200}"] = None

    # The install target, relative to the scratch.
    @property
    def site(self) -> str:
        return f"site/{self.package_name}-{self.version}"


ORDER_FIELDS = {name: get_args(kind)[1] for name, kind in Order.__annotations__.items()}
REQUIRED_FIELDS = ORDER_FIELDS.keys() - Order._field_defaults


# A request of watch: start jail number `jail` with these words for launch.py and this environment.
class Start(NamedTuple):
    jail: int
    launch: tuple[str, ...]
    variables: dict[str, str]
    has_index: bool


# A request of watch: end jail number `jail`.
class Kill(NamedTuple):
    jail: int


# What the run keeper tells watch of a jail: it was started (with descriptors, in the order of
# JAIL_FDS, and the sockets of its network), or it ended: `status` as waitstatus_to_exitcode has it.
class Answer(NamedTuple):
    jail: int
    ended: bool
    status: int = 0
    error: str = ""


JAIL_FDS = ("stdout", "stderr", "log", "trace", "audit")


# The JSON object of a packet. Raises OrderError.
def read_packet(packet: bytes) -> dict[str, Any]:
    try:
        said = json.loads(packet) if len(packet) <= MAX_PACKET_BYTES else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise OrderError(f"no JSON object of at most {MAX_PACKET_BYTES} bytes: {packet[:100]!r}")
    return said


# The settings, which the service sends while it is still to be believed.
def parse_settings(packet: bytes) -> JailSettings:
    said = read_packet(packet)
    said |= {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
    return JailSettings(**said)


# An order of the service. Raises OrderError.
def parse_order(packet: bytes) -> Order:
    said = read_packet(packet)
    if not REQUIRED_FIELDS <= said.keys() <= ORDER_FIELDS.keys():
        raise OrderError(f"an order with other fields: {sorted(said)!r:.200}")
    for key, value in said.items():
        is_fit = isinstance(value, str) and re.fullmatch(ORDER_FIELDS[key], value, re.ASCII)
        if not is_fit and (value is not None or key in REQUIRED_FIELDS):
            raise OrderError(f"an order whose {key} is {value!r:.100}")
    return Order(**said)


# A request of watch. Raises OrderError.
def parse_request(packet: bytes) -> Start | Kill:
    said = read_packet(packet)
    jail, launch, variables = said.get("jail"), said.get("launch"), said.get("variables")
    if type(jail) is not int or not 0 <= jail < MAX_JAILS:
        raise OrderError(f"no number of a jail: {jail!r:.100}")
    if said.keys() == {"jail"}:
        return Kill(jail)
    is_whole = said.keys() == Start.__annotations__.keys() and isinstance(said["has_index"], bool)
    if not is_whole or not isinstance(launch, list) or not isinstance(variables, dict):
        raise OrderError(f"a request with other fields: {sorted(said)!r:.200}", jail)
    for word in [*launch, *variables, *variables.values()]:
        if not isinstance(word, str) or not ARGUMENT.fullmatch(word):
            raise OrderError(f"a word that no program can be given: {word!r:.100}", jail)
    return Start(jail, tuple(launch), variables, said["has_index"])
