"""What is said of what is noticed beside what the kernel sees: tries that failed, looks at secrets
that are not there, signs of a sandbox. Above each rule is an example of it.

Python says it, and may be lied to by the package that it runs: it can only speak against itself.
"""

from jail.report.letters import is_known, name_seen_as
from jail.report.notices import looked_into, noticed, slept
from jail.report.places import what_is_refused_at
from jail.report.techniques import (
    FILE_DISCOVERY,
    MASQUERADING,
    PROCESS_COMMUNICATION,
    SYSTEM_CHECKS,
    technique_of,
)
from jail.report.text import plain
from jail.watch.events import Finding, Phase, PhaseName, Rule, Severity
from jail.watch.noticed import (
    ChannelLeft,
    CommandTaken,
    LookedInto,
    MachineRead,
    Noticed,
    OddlyNamed,
    PlaceTaken,
    Remark,
    Slept,
    Sought,
    Walked,
    WriteRefused,
)

MAX_REMARK_CHARS = 300
MAX_NAMED_PATHS = 6  # in one title
# Who looks for as many kinds of secrets has a thief's list; a library of many clouds has fewer.
MANY_STORES = 6
PASSING_FOLDERS = ("/tmp/", "/dev/shm/")  # noqa: S108
# Who looks at as many signs of a sandbox wants to know whether it is in a sandbox.
MANY_SIGNS = 3


def judge_remark(phase: Phase, event: Remark) -> Finding | None:
    """The finding, if there is one."""
    match event:
        case Noticed():
            return noticed(phase, event)
        case Slept():
            return slept(event)
        case LookedInto():
            return looked_into(event)
        case WriteRefused():
            return refused(phase, event)
        case Sought():
            return sought(phase, event)
        case Walked():
            return walked(phase, event)
        case MachineRead():
            return looked_at_machine(phase, event)
        case CommandTaken():
            return took_command(event)
        case PlaceTaken():
            return took_place(event)
        case ChannelLeft():
            return left_channel(phase, event)
        case OddlyNamed():
            return took_name(event)
    return None


def is_asked_for(phase: Phase) -> bool:
    """What a program or a function does for who calls it: it is only told."""
    return phase.name in (PhaseName.CALL, PhaseName.EXECUTE)


def remark(
    severity: Severity, rule: Rule, title: str, place: str | None = None, technique: str = ""
) -> Finding:
    return Finding(severity, rule, plain(title, MAX_REMARK_CHARS), place, technique=technique)


# WriteRefused("/etc/cron.d/x", ...): high persistence.write
# "tries to write /etc/cron.d/x (scheduled jobs): refused"
# A function that is called with made-up arguments exists to do that, install_service() say: info.
def refused(phase: Phase, event: WriteRefused) -> Finding | None:
    kind, severity, technique = what_is_refused_at(event.path)
    if not kind:
        return None
    if phase.name == PhaseName.CALL:
        severity = Severity.INFO
    verb = "remove" if event.removes else "write"
    title = f"tries to {verb} {event.path} ({kind}): refused"
    return remark(severity, Rule.PERSISTENCE_WRITE, title, event.place, technique)


# Sought(("npm", "browser"), ("~/.npmrc", ...), is_grave=True, ...): high secret.read
# "looks for secrets of npm, browser: /home/dev/.npmrc, /home/dev/.mozilla/firefox"
def sought(phase: Phase, event: Sought) -> Finding:
    is_many = len(event.stores) >= MANY_STORES
    if phase.name == PhaseName.CALL:
        severity = Severity.MEDIUM if is_many else Severity.INFO
    elif phase.name == PhaseName.EXECUTE:
        severity = Severity.HIGH if is_many else Severity.INFO
        if event.is_grave and not is_many:
            severity = Severity.MEDIUM
    else:
        severity = Severity.HIGH if is_many or event.is_grave else Severity.MEDIUM
    title = f"looks for secrets of {', '.join(event.stores)}: {named_paths(event.paths)}"
    return remark(severity, Rule.SECRET_READ, title, event.place)


# Walked(("/home/dev", "/home/dev/Documents", ...), ...): medium secret.read
# "walks through the home, 12 folders: /home/dev, /home/dev/Documents"
def walked(phase: Phase, event: Walked) -> Finding:
    severity = Severity.INFO if is_asked_for(phase) else Severity.MEDIUM
    title = f"walks through the home, {len(event.folders)} folders: {named_paths(event.folders)}"
    return remark(severity, Rule.SECRET_READ, title, event.place, FILE_DISCOVERY)


# MachineRead(("how long it has run",), ("/proc/uptime",), ...): info code.gated
# "looks at how long it has run: /proc/uptime"
def looked_at_machine(phase: Phase, event: MachineRead) -> Finding:
    is_curious = len(event.signs) >= MANY_SIGNS and not is_asked_for(phase)
    severity = Severity.MEDIUM if is_curious else Severity.INFO
    title = f"looks at {', '.join(event.signs)}: {named_paths(event.paths)}"
    return remark(severity, Rule.CODE_GATED, title, event.place, SYSTEM_CHECKS)


# CommandTaken("aws", "boto4"): medium persistence.write "installs a command named aws (boto4)"
def took_command(event: CommandTaken) -> Finding:
    title = f"installs a command by the name of a well-known program: {event.name}"
    technique = technique_of("on the command path")
    return remark(Severity.MEDIUM, Rule.PERSISTENCE_WRITE, title, f"bin/{event.name}", technique)


# PlaceTaken("bin/activate", "virtual environment", "x"): medium persistence.write
# "installs bin/activate, which others than its own programs use (virtual environment)"
def took_place(event: PlaceTaken) -> Finding:
    title = f"installs {event.path}, which others than its own programs use ({event.used_by})"
    technique = technique_of(event.used_by)
    return remark(Severity.MEDIUM, Rule.PERSISTENCE_WRITE, title, event.path, technique)


# OddlyNamed("lib/.../site-packages/r\u0435quests", "x"): medium persistence.write
# "installs lib/.../site-packages/r\u0435quests, which is read as requests"
# A name that nobody knows misleads nobody: info.
def took_name(event: OddlyNamed) -> Finding | None:
    taken = name_seen_as(event.path.rpartition("/")[2])
    if not taken:
        return None
    title = f"installs {event.path}, which is read as {taken}"
    severity = Severity.MEDIUM if is_known(taken) else Severity.INFO
    return remark(severity, Rule.PERSISTENCE_WRITE, title, event.path, MASQUERADING)


# ChannelLeft("/home/dev/.config/x", "FIFO"): medium persistence.write
# "leaves a FIFO to talk through: /home/dev/.config/x"
# Among what is passing they are everyday, and so where programs and functions are asked to work.
def left_channel(phase: Phase, event: ChannelLeft) -> Finding:
    is_everyday = event.path.startswith(PASSING_FOLDERS) or is_asked_for(phase)
    severity = Severity.INFO if is_everyday else Severity.MEDIUM
    title = f"leaves a {event.form} to talk through: {event.path}"
    return remark(severity, Rule.PERSISTENCE_WRITE, title, None, PROCESS_COMMUNICATION)


def named_paths(paths: tuple[str, ...]) -> str:
    """The first paths, and how many more there are."""
    more = len(paths) - MAX_NAMED_PATHS
    words = ", ".join(paths[:MAX_NAMED_PATHS])
    return f"{words} and {more} more" if more > 0 else words
