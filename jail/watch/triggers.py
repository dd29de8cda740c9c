"""What is run: pip, then the triggers that the mode of the order asks for, each with the words for
launch.py.

The words are understood by jail/inside/launch.py; what each kind runs stands there.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jail.orders import (
    AUDIT_IN_JAIL,
    HOME_IN_JAIL,
    INDEX_PORT,
    PYTHON_IN_JAIL,
    SCRATCH_FOLDERS,
    WORK_IN_JAIL,
    JailSettings,
    Order,
)
from jail.watch.contents import EntryPoint
from jail.watch.events import NotRun, Omission, PhaseName
from jail.watch.installed import Installed
from jail.watch.packing import pack_names
from jail.watch.titles import DEPENDENCIES_TITLE, title_of
from jail.watch.well_known import WELL_KNOWN

MAX_TRIGGERS = 8  # jails started for one kind of trigger; what is more shares a jail
MAX_SEVERAL = 60  # programs that share a jail
MAX_DEPENDENCY_MODULES = 60
MAX_MAINS = 4
# For all jobs of a jail, and for each. The first gives way to RUN_TIMEOUT_SEC.
IMPORTS_SEC, IMPORT_SEC = 33.0, 10.0
VICTIM_SEC = 30.0
CALLS_SEC, CALL_SEC, ONE_CALL_SEC = 10.0, 3.0, 0.5
PROGRAM_SEC = 5.0
# What a jail takes beside its jobs: to start, and to end what they left at work.
MARGIN_SEC = 12.0
OTHER_VICTIMS = ("windows", "macos", "ci,later")

# The kinds of words for launch.py after which the launcher's own exit code tells how it went.
MANY_KINDS = frozenset({"imports", "call", "several"})
SAMPLES = "samples"  # the folder of made-up files, in the jail's /tmp

INDEX_IN_JAIL = f"http://127.0.0.1:{INDEX_PORT}/simple/"
VARIABLES_IN_JAIL = {
    "HOME": HOME_IN_JAIL,
    "USER": "dev",
    "LOGNAME": "dev",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
    "TMPDIR": "/tmp",  # noqa: S108 - the jail's own, on the scratch
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
PATH_IN_JAIL = f"{PYTHON_IN_JAIL}/bin:/bin"
PIP_VARIABLES = {
    # For the pips that pip starts, too.
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    # A build must not set up the pip that comes after it. By this the audit hook knows pip, in
    # which the installation is not active: what pip does is not the package's doing.
    "PIP_CONFIG_FILE": os.devnull,
}
# Some of those that other victims have: by these the audit hook knows whom to become before any
# .pth file acts. jail/inside/victims.py adds the others.
VICTIM_VARIABLES = {
    "self": {},
    "windows": {"OS": "Windows_NT"},
    "macos": {"__CF_USER_TEXT_ENCODING": "0x1F5:0x0:0x0"},
    "ci,later": {"CI": "true", "GITHUB_ACTIONS": "true"},
}


@dataclass(frozen=True)
class Trigger:
    """One jail to start: its phase, what a reader calls it, the words for launch.py.

    `with_missed`: what the package asks for and does not declare is to be there.
    """

    phase: PhaseName
    title: str | None
    launch: tuple[str, ...]
    with_missed: bool = False

    @property
    def victim(self) -> str:
        """As whom modules are imported: "windows", "ci,later"; "self" for most."""
        return self.launch[5] if self.launch[0] == "imports" else "self"

    @property
    def is_in_ci(self) -> bool:
        """Whether the environment is that of continuous integration."""
        return "ci" in self.victim.split(",")


def variables(order: Order, trigger: Trigger) -> dict[str, str]:
    """The environment of a jail, but for the bait."""
    prefix = f"{WORK_IN_JAIL}/{order.site}"
    # As in a virtual environment that was activated.
    found = {"PATH": f"{prefix}/bin:{PATH_IN_JAIL}", "VIRTUAL_ENV": prefix}
    found |= VARIABLES_IN_JAIL
    if trigger.phase is PhaseName.INSTALL:
        found |= PIP_VARIABLES
        # Where modules are imported, then many times, it costs less than it saves that the launcher
        # compiles them after pip: all, or what is new. Both are yes to pip.
        if order.mode in ("import", "detonate"):
            found["PIP_NO_COMPILE"] = "1"
    return found | VICTIM_VARIABLES[trigger.victim]


def pip_words(order: Order, timeout_sec: int, *requirements: str) -> tuple[str, ...]:
    """pip as people run it, pointed at the index on the loopback; what follows `--` can't be an
    option.

    All lands as in a virtual environment, the files of `.data/data` too: with --target it would
    not. --ignore-installed, because our own pip is none of the target's.
    """
    words = ["install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    # To compile thousands of files may take longer than a phase may: see jail/inside/compiling.py.
    words.append("--no-compile")
    words += ["--progress-bar", "off", "--retries", "1", "--timeout", str(timeout_sec)]
    # What is installed is looked at, but by no resolver; and the index on the loopback has no TLS.
    words += ["--no-warn-conflicts", "--use-deprecated", "legacy-certs"]
    words += ["--index-url", INDEX_IN_JAIL]
    words += ["--ignore-installed", "--prefix", f"{WORK_IN_JAIL}/{order.site}"]
    return ("pip", *words, "--", *requirements)


def installation(order: Order, timeout_sec: int) -> Trigger:
    """The target and what it declares to need."""
    words = pip_words(order, timeout_sec, f"{order.package_name}=={order.version}")
    return Trigger(PhaseName.INSTALL, None, words)


def without_installation(order: Order) -> list[NotRun]:
    """What the mode would have run if the installation had succeeded."""
    phases = {
        "install": [],
        "import": [PhaseName.IMPORT],
        "detonate": [PhaseName.START, PhaseName.IMPORT, PhaseName.CALL, PhaseName.EXECUTE],
    }.get(order.mode, [PhaseName.EXECUTE])
    reason = "the installation did not succeed"
    return [NotRun(phase, None, Omission.LEFT_OUT, reason) for phase in phases]


def triggers(
    order: Order, installed: Installed, settings: JailSettings
) -> tuple[list[Trigger], list[NotRun]]:
    """What to run after the installation, in this order, and what is left out or not there."""
    plan = Plan(order, installed, settings)
    match order.mode:
        case "import":
            return plan.imports(Omission.NOT_FOUND)
        case "execute_module":
            return plan.execute_module()
        case "execute":
            return plan.execute()
        case "detonate":
            return plan.detonate()
        case _:
            return [], []


class Plan:
    """The triggers of one run."""

    def __init__(self, order: Order, installed: Installed, settings: JailSettings) -> None:
        self.order = order
        self.installed = installed
        self.contents = installed.contents
        self.prefix = f"{WORK_IN_JAIL}/{order.site}"
        self.site = f"{self.prefix}/{installed.site}"
        self.most_sec = max(settings.run_timeout_sec - MARGIN_SEC, 1.0)
        names = [*self.contents.first, *self.contents.others]
        names += [plugin.target for plugin in self.contents.plugins]
        self.names, self.left_out = pack_names(names)
        # Then there is nothing more among all modules.
        self.is_alone = len(set(names)) == 1 and bool(self.contents.first)
        # Files that act at the start may add modules: the worker for all of them finds these.
        self.is_alone &= not installed.has_startup

    def trigger(self, phase: PhaseName, title: str | None, kind: str, *words: str) -> Trigger:
        """One of the kinds that run one thing."""
        return Trigger(phase, title, (kind, AUDIT_IN_JAIL, self.prefix, *words))

    def jobs(
        self, title: str, victim: str, total_sec: float, names: Iterable[str] | None = None
    ) -> Trigger:
        """A jail in which one worker after the other imports all of `names`."""
        words = self.names if names is None else [*names]
        total = min(total_sec, self.most_sec)
        each = min(IMPORT_SEC, total)
        seconds = (f"{total:g}", f"{each:g}")
        launch = ("imports", AUDIT_IN_JAIL, *seconds, self.site, victim, *words)
        return Trigger(PhaseName.IMPORT, title, launch)

    def detonate(self) -> tuple[list[Trigger], list[NotRun]]:
        """All there is: start, imports, calls, programs."""
        start, not_started = self.start()
        # Code that nobody can import is odd enough to be called a gap.
        imports, not_imported = self.imports(Omission.LEFT_OUT)
        programs, not_executed = self.programs()
        calls, not_called = self.calls()
        # Programs run without what is missed, as for most people; calls and other victims with it.
        first = [trigger for trigger in imports if not trigger.with_missed]
        later = [trigger for trigger in imports if trigger.with_missed]
        found = [*start, *first, *programs, *later, *calls]
        return found, [*not_started, *not_imported, *not_called, *not_executed]

    def start(self) -> tuple[list[Trigger], list[NotRun]]:
        """A bare interpreter, if anything acts at its start; each other trigger starts it, too."""
        if self.installed.has_startup:
            return [self.trigger(PhaseName.START, None, "start")], []
        reason = "no file acts at the start of an interpreter"
        return [], [NotRun(PhaseName.START, None, Omission.NOTHING_THERE, reason)]

    def imports(self, why_none: Omission) -> tuple[list[Trigger], list[NotRun]]:
        """Top-level modules alone, then all modules, those of dependencies, and all as other
        victims; `why_none` is told where there is none.
        """
        if not self.names:
            no_module = "the distribution has no importable module"
            return [], [NotRun(PhaseName.IMPORT, None, why_none, no_module)]
        first = self.contents.first
        found = [
            self.trigger(PhaseName.IMPORT, title_of(name), "import", name)
            for name in first[:MAX_TRIGGERS]
        ]
        if self.is_alone:
            title = title_of(first[0])
            found = [self.trigger(PhaseName.IMPORT, title, "import", first[0], self.site)]
        else:
            found.append(self.jobs("all modules", "self", IMPORTS_SEC))
        others, more = self.dependency_modules()
        if others:
            found.append(self.jobs(DEPENDENCIES_TITLE, "self", VICTIM_SEC, pack_names(others)[0]))
        for victim in OTHER_VICTIMS:
            title = f"as {victim.replace(',', ', ')}"
            found.append(replace(self.jobs(title, victim, VICTIM_SEC), with_missed=True))
        left_out = self.left_out + self.contents.left_out
        reasons = [f"{left_out} modules are more than can be named"] if left_out else []
        reasons += filter(None, [self.installed.foreign])
        reasons += [f"{more} modules of dependencies are more than are imported"] if more else []
        title = "all modules"
        return found, [
            NotRun(PhaseName.IMPORT, title, Omission.LEFT_OUT, reason) for reason in reasons
        ]

    def dependency_modules(self) -> tuple[list[str], int]:
        """What people import of the dependencies, those left out that everybody has; and how many
        more there are.
        """
        names = [
            name
            for project, modules in self.installed.dependencies.items()
            if project not in WELL_KNOWN
            for name in modules
        ]
        names = [*dict.fromkeys(names)]
        more = max(len(names) - MAX_DEPENDENCY_MODULES, 0) + self.installed.more_dependencies
        return names[:MAX_DEPENDENCY_MODULES], more

    def calls(self) -> tuple[list[Trigger], list[NotRun]]:
        """Calls of what the modules offer; and its tests, which do as much and as odd things."""
        if not self.names:
            reason = "the distribution has no importable module"
            return [], [NotRun(PhaseName.CALL, None, Omission.NOTHING_THERE, reason)]
        folder = f"{SCRATCH_FOLDERS['tmp']}/{SAMPLES}"
        seconds = (f"{min(CALLS_SEC, self.most_sec):g}", f"{CALL_SEC:g}")
        words = (*seconds, self.site, folder, f"{ONE_CALL_SEC:g}", *self.names)
        launch = ("call", AUDIT_IN_JAIL, *words)
        found = [Trigger(PhaseName.CALL, None, launch, with_missed=True)]
        if self.contents.tests:
            tests = self.jobs("tests", "self", VICTIM_SEC, pack_names(self.contents.tests)[0])
            found.append(Trigger(PhaseName.CALL, "tests", tests.launch))
        return found, []

    def programs(self) -> tuple[list[Trigger], list[NotRun]]:
        """Scripts, programs and modules that can be run, a jail each; the rest shares a jail."""
        contents = self.contents
        mains = [
            self.trigger(PhaseName.EXECUTE, f"python -m {name}", "module", name)
            for name in contents.mains
        ]
        found = [self.script(script) for script in contents.scripts]
        found += [self.program(path) for path in contents.programs]
        # A script mostly runs the same as the module that is named like it.
        places = MAX_MAINS if not found else 1
        found = [*found[: MAX_TRIGGERS - 1], *mains[:places], *found[MAX_TRIGGERS - 1 :]]
        found += mains[places:]
        if not found:
            reason = "the distribution declares no console script"
            nothing = NotRun(PhaseName.EXECUTE, None, Omission.NOTHING_THERE, reason)
            return [], [nothing]
        return self.several(found)

    def several(self, found: list[Trigger]) -> tuple[list[Trigger], list[NotRun]]:
        """The first MAX_TRIGGERS of them, and another for what is more."""
        alone, others = found[:MAX_TRIGGERS], found[MAX_TRIGGERS:]
        if not others:
            return alone, []
        words = [json.dumps(other.launch) for other in others[:MAX_SEVERAL]]
        seconds = (f"{min(IMPORTS_SEC, self.most_sec):g}", f"{PROGRAM_SEC:g}")
        title = f"{len(words)} more programs"
        shared = Trigger(PhaseName.EXECUTE, title, ("several", AUDIT_IN_JAIL, *seconds, *words))
        reason = f"one of more than {MAX_TRIGGERS + MAX_SEVERAL}"
        left_out = [
            NotRun(other.phase, other.title, Omission.LEFT_OUT, reason)
            for other in others[MAX_SEVERAL : 2 * MAX_SEVERAL]
        ]
        return [*alone, shared], left_out

    def script(self, script: EntryPoint) -> Trigger:
        """A console or GUI script."""
        title = title_of(script.name)
        return self.trigger(PhaseName.EXECUTE, title, "script", script.name, script.target)

    def program(self, path: str) -> Trigger:
        """A file that a wheel brings for bin/."""
        if path in self.installed.natives:
            return Trigger(PhaseName.EXECUTE, path, ("program", f"{self.prefix}/{path}"))
        return self.trigger(PhaseName.EXECUTE, path, "file", path)

    def execute(self) -> tuple[list[Trigger], list[NotRun]]:
        """The file, the object or the script that the order names, or else the first script."""
        wanted, path = self.order.entrypoint, self.order.file_path
        if path:
            # A person says where a module lies; or a program.
            below_site = f"{self.installed.site}/{path}"
            place = path if below_site not in self.installed.files else below_site
            return [self.trigger(PhaseName.EXECUTE, path, "file", place)], []
        if wanted and ":" in wanted:
            name = self.order.package_name
            return [self.trigger(PhaseName.EXECUTE, wanted, "script", name, wanted)], []
        scripts = self.contents.scripts
        found = [self.script(script) for script in scripts if wanted in (None, script.name)]
        if found:
            return found[:1], []
        missing = f"no console script {wanted or ''}".rstrip()
        declared = ", ".join(script.name for script in scripts)
        reason = f"{missing} (it declares {declared or 'none'})"
        return [], [NotRun(PhaseName.EXECUTE, wanted, Omission.NOT_FOUND, reason)]

    def execute_module(self) -> tuple[list[Trigger], list[NotRun]]:
        """`python -m` with the module that the order names, or else the first of those that are
        made for it, or else the first of all.
        """
        candidates = [*self.contents.mains, *self.contents.first]
        name = self.order.module_name or next(iter(candidates), None)
        if name:
            return [self.trigger(PhaseName.EXECUTE, f"python -m {name}", "module", name)], []
        reason = "the distribution has no module"
        return [], [NotRun(PhaseName.EXECUTE, None, Omission.NOT_FOUND, reason)]
