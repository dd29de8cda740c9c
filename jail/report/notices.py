"""What is said of what the workers in the jail tell. It may be forged by the package that they
share an interpreter with, which accuses nobody but itself.
"""

import re
from dataclasses import replace

from jail.report.techniques import TIME_BASED_EVASION, technique_of_look
from jail.report.text import plain
from jail.watch.events import Finding, Phase, PhaseName, Rule, Severity
from jail.watch.noticed import LookedInto, Notice, Noticed, ReleaseNoted, Slept

MAX_NOTICE_CHARS = 300
LINGER_SEC = 3  # what is left at work gets: jail/inside/ending.py
# What builds packages is changed by others that build packages, and what is private in typing by
# typing_extensions, which hundreds bring along.
USUAL = ("distutils.", "setuptools.", "typing._")
# What the library lets everybody replace, as its own documentation says.
REPLACEABLE = {"warnings.showwarning", "warnings.formatwarning", "sys.excepthook"}
REPLACEABLE |= {"sys.displayhook", "sys.unraisablehook", "threading.excepthook"}
REPLACEABLE |= {"sys.breakpointhook", "logging._loggerClass", "logging._logRecordFactory"}
# By these its own code is called for what others do.
CALLED_FOR_OTHERS = {"sys.addaudithook", "sys.settrace", "sys.setprofile", "gc.callbacks"}
CALLED_FOR_OTHERS |= {"threading.settrace", "threading.setprofile", "signal.signal"}
# Many programs end in order; calls have their turn with those.
REPLACEABLE |= {"signal.signal"}
# What only makes a name up: joblib's pool gives its semaphores others.
REPLACEABLE |= {"multiprocessing.synchronize.SemLock._make_name"}
# comm, For Kernel developers: kernels put their own there.
REPLACEABLE |= {"comm.create_comm", "comm.get_comm_manager"}
# How the error of a command line is shown, which nobody's data go through: celery.
ERRORS_SHOWN = re.compile(r"click\.exceptions\.\w+\.(?:show|format_message)")
# What a program loads to be changed by it, by the word that is in the names of such modules.
PLUG_INS = {"pytest": ("_pytest.", "pytest.")}
# "/srv/site/x-1.0/lib/python3.11/site-packages/pytest_x/plugin.py:12"
MODULE_OF_PLACE = re.compile(r".*/site-packages/(\w+)[/.].*", re.ASCII)
# Keys of Windows' registry by which programs are started: at a login, at the start, by another.
AUTOSTART = re.compile(
    r"(?i).*\\(?:currentversion\\(?:policies\\explorer\\)?run(?:once|onceex|services\w*)?"
    r"|windows nt\\currentversion\\(?:winlogon|windows|image file execution options)"
    r"|active setup\\installed components|currentcontrolset\\services|command processor"
    r"|inprocserver32|environment)(?:\\.*)?",
    re.DOTALL,
)
# What everybody opens: who answers for it is started by others. A program's own kind of file or
# link, HKEY_CURRENT_USER\Software\Classes\mytool\shell\open\command, is opened by itself alone.
KNOWN_TYPES = (
    r"\*|(?:exe|com|bat|cmd|pif|scr|msc|cpl|lnk|reg|in[fi]|txt|xml|html?|hta|jse?|vb[se]|ws[fh]"
    r"|dll|sys|jpeg|png)file|ms-[\w-]+|folder|directory|drive|allfilesystemobjects"
    r"|internetshortcut|appx\w+|launcher\.systemsettings|clsid\\[^\\]+|https?|ftp|mailto|tel"
    r"|chromehtml|firefox(?:html|url)(?:-\w+)?|msedgehtm|python\.\w+|word\.[\w.]+|excel\.[\w.]+"
    r"|\.(?:exe|com|bat|cmd|pif|scr|ms[ci]|lnk|url|reg|in[fi]|txt|log|md|csv|json|xml|html?|hta"
    r"|jse?|vb[se]|ws[fh]|ps1|pyw?|jar|pdf|docx?|xlsx?|pptx?|rtf|zip|jpe?g|png|gif|mp[34])"
)
OPENED_BY_ALL = re.compile(
    rf"(?i).*\\(?:{KNOWN_TYPES})\\shell\\(?:open|runas)\\command(?:\\.*)?", re.DOTALL
)
# How a job ended that something has to be said of.
LEFT, STOPPED, RAISED = "left", "stopped", "raised"


# Noticed(PATCHED, "json.dumps", place="/…/s.py:12"): medium code.dynamic
# "puts its own code in the place of json.dumps"
# Noticed(HOOKED, "s.Finder", text="json,requests"): medium code.dynamic
# Noticed(ENDED, "import s", how="left", text="1 at work: Thread-1 at /…/s.py:3"): medium limit.hit
# Noticed(REGISTRY, "HKEY_CURRENT_USER\...\Run\Updater", text="evil.exe"): high persistence.write
# Noticed(TRACES, "ptrace", place="/…/s.py:9"): medium evidence.tamper
# "asks the C library for ptrace, by which processes look into each other"
# Noticed(UNHEARD, "compile", place="/…/s.py:9"): high evidence.tamper
# "gives code a name that can lie to the Python witness, by compile"
# Noticed(CROWDED, "exec(x)", text="400", place="/…/s.py:9"): high code.dynamic
# "hides code behind 400 blanks in a line: exec(x)"
# Noticed(GATED, "time", text="exec(...)", place="/…/s.py:9"): info code.gated
def noticed(phase: Phase, event: Noticed) -> Finding | None:
    """The finding, if there is one."""
    match event.kind:
        case Notice.PATCHED:
            title = f"puts its own code in the place of {event.what}"
            if event.what in CALLED_FOR_OTHERS:
                title = f"has its own code called for what others do, by {event.what}"
            severity = Severity.INFO if is_usual(event) else unasked(phase)
            return said(severity, Rule.CODE_DYNAMIC, title, event.place)
        case Notice.HOOKED if event.text:
            title = f"changes the import of other modules ({event.text}) by {event.what}"
            return said(unasked(phase), Rule.CODE_DYNAMIC, title, event.place)
        # Hundreds bring that of six along.
        case Notice.HOOKED if not event.what.endswith("._SixMetaPathImporter"):
            title = f"has its own say in what other modules import: {event.what}"
            return said(Severity.INFO, Rule.CODE_DYNAMIC, title, event.place)
        case Notice.GATED if event.what:
            title = f"does this only on a condition ({event.what}): {event.text}"
            return said(Severity.INFO, Rule.CODE_GATED, title, event.place)
        case Notice.REGISTRY:
            # As a person writes it.
            value = event.what.replace("\\\\", "\\")
            is_start = any(keys.fullmatch(value) for keys in (AUTOSTART, OPENED_BY_ALL))
            title = f"sets {value} in the registry of Windows: {event.text}"
            severity = Severity.HIGH if is_start else Severity.INFO
            return said(severity, Rule.PERSISTENCE_WRITE, title, event.place)
        case Notice.TRACES:
            title = f"asks the C library for {event.what}, by which processes look into each other"
            found = said(Severity.MEDIUM, Rule.EVIDENCE_TAMPER, title, event.place)
            return replace(found, technique=technique_of_look(event.what))
        case Notice.UNHEARD if event.what:
            title = f"gives code a name that can lie to the Python witness, by {event.what}"
            return said(Severity.HIGH, Rule.EVIDENCE_TAMPER, title, event.place)
        case Notice.CROWDED:
            title = f"hides code behind {event.text} blanks in a line: {event.what}"
            return said(Severity.HIGH, Rule.CODE_DYNAMIC, title, event.place)
        case Notice.ENDED:
            return ended(phase, event)
    return None


def is_usual(event: Noticed) -> bool:
    """Whether what is replaced is there to be replaced, or by whom does so."""
    if event.what.startswith(USUAL) or event.what in REPLACEABLE:
        return True
    module = MODULE_OF_PLACE.fullmatch(event.place or "")
    hosts = [names for word, names in PLUG_INS.items() if module and word in module[1]]
    is_plug_in = any(event.what.startswith(names) for names in hosts)
    return is_plug_in or ERRORS_SHOWN.fullmatch(event.what) is not None


def unasked(phase: Phase) -> Severity:
    """How grave it is to change what others run: many functions exist for that, and are called by
    us alone.
    """
    return Severity.INFO if phase.name is PhaseName.CALL else Severity.MEDIUM


def ended(phase: Phase, event: Noticed) -> Finding | None:
    """Of what was still at work. Programs and calls exist to work: there it is only told."""
    is_asked = phase.name in (PhaseName.CALL, PhaseName.EXECUTE)
    severity = Severity.INFO if is_asked else Severity.MEDIUM
    if event.how == LEFT:
        title = f"goes on after {LINGER_SEC} s more: {event.text}"
        return said(severity, Rule.LIMIT_HIT, title, event.place)
    if event.how == STOPPED:
        title = f"{event.what or phase.title} did not end, and was stopped {event.text}"
        return said(severity, Rule.LIMIT_HIT, title, event.place)
    return None


# Slept(3600, "python x.py"): info limit.hit "asked to sleep 3600 s: skipped"
def slept(event: Slept) -> Finding:
    """A long sleep that the witness has skipped."""
    title = f"asked to sleep {event.asked_sec} s: skipped"
    found = said(Severity.INFO, Rule.LIMIT_HIT, title, None, event.process)
    return replace(found, technique=TIME_BASED_EVASION)


# LookedInto("ptrace(PTRACE_TRACEME)", "tool --go"): medium evidence.tamper
# "calls ptrace(PTRACE_TRACEME), by which processes look into each other"
def looked_into(event: LookedInto) -> Finding:
    """What is said where only the C library is asked for the call, and nobody need have asked it:
    compiled code and a bare system call are told like this.
    """
    title = f"calls {event.call}, by which processes look into each other"
    found = said(Severity.MEDIUM, Rule.EVIDENCE_TAMPER, title, None, event.process)
    return replace(found, technique=technique_of_look(event.call))


def said(
    severity: Severity, rule: Rule, title: str, place: str | None, process: str | None = None
) -> Finding:
    return Finding(severity, rule, plain(title, MAX_NOTICE_CHARS), place, process)


def note_on(event: Noticed | ReleaseNoted) -> str:
    """What a reader should know of it besides; "" for most."""
    if isinstance(event, ReleaseNoted):
        return event.text
    match event.kind:
        case Notice.SHADOWED:
            return f"{event.what} is found in {event.text} first; its own was run by its path"
        case Notice.COUNTED if event.what == "imports" and RAISED in event.text:
            return f"of its modules {event.text}"
        case Notice.ENDED if event.how == "not run":
            return f"{event.how}: {event.text}"
    return ""
