"""What is run: pip, then the triggers that the mode of the order asks for, each with the words for
launch.py.
"""

import os
from dataclasses import dataclass

from jail.orders import AUDIT_IN_JAIL, HOME_IN_JAIL, INDEX_PORT, PYTHON_IN_JAIL, WORK_IN_JAIL, Order
from jail.watch.events import NotRun, Omission, PhaseName
from jail.watch.contents import pack_names
from jail.watch.installed import Installed

MAX_TRIGGERS = 8  # jails started for one kind of trigger
MAX_OMISSIONS = 50  # told of one kind of trigger

INDEX_IN_JAIL = f"http://127.0.0.1:{INDEX_PORT}/simple/"
VARIABLES_IN_JAIL = {
    "HOME": HOME_IN_JAIL,
    "USER": "dev",
    "LOGNAME": "dev",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
    "TMPDIR": "/tmp",  # noqa: S108 - the jail's own, on the scratch
    "PATH": f"{PYTHON_IN_JAIL}/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
PIP_VARIABLES = {
    # For the pips that pip starts, too.
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    # A build must not set up the pip that comes after it.
    "PIP_CONFIG_FILE": os.devnull,
}


@dataclass(frozen=True)
class Trigger:
    """One jail to start: its phase, what a reader calls it, the words for launch.py."""

    phase: PhaseName
    title: str | None
    launch: tuple[str, ...]


def variables(order: Order, phase: PhaseName) -> dict[str, str]:
    """The environment of a jail, but for the bait."""
    prefix = {"SNAKEHOOK_PREFIX": f"{WORK_IN_JAIL}/{order.site}"}
    if phase is PhaseName.INSTALL:
        return VARIABLES_IN_JAIL | PIP_VARIABLES | prefix | {"SNAKEHOOK_PIP": "1"}
    return VARIABLES_IN_JAIL | prefix


def installation(order: Order, timeout_sec: int) -> Trigger:
    """pip as people run it, pointed at the index on the loopback; what follows `--` can't be an
    option.
    """
    words = [
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--no-compile",
    ]
    words += ["--progress-bar", "off", "--retries", "1", "--timeout", str(timeout_sec)]
    words += ["--index-url", INDEX_IN_JAIL, "--ignore-installed", "--prefix", f"{WORK_IN_JAIL}/{order.site}"]
    words += ["--", f"{order.package_name}=={order.version}"]
    return Trigger(PhaseName.INSTALL, None, ("pip", *words))


def without_installation(order: Order) -> list[NotRun]:
    """What the mode would have run if the installation had succeeded."""
    phases = {
        "install": [],
        "import": [PhaseName.IMPORT],
        "detonate": [PhaseName.START, PhaseName.IMPORT, PhaseName.EXECUTE],
    }.get(order.mode, [PhaseName.EXECUTE])
    reason = "the installation did not succeed"
    return [NotRun(phase, None, Omission.LEFT_OUT, reason) for phase in phases]


def triggers(order: Order, installed: Installed) -> tuple[list[Trigger], list[NotRun]]:
    """What to run after the installation, at most MAX_TRIGGERS of a kind, and what is left out or
    not there.
    """
    target = f"{WORK_IN_JAIL}/{order.site}"
    match order.mode:
        case "import":
            return imports(installed, target, Omission.NOT_FOUND)
        case "execute_module":
            return execute_module(order, installed, target)
        case "execute":
            return execute(order, installed, target)
        case "detonate":
            return detonate(installed, target)
        case _:
            return [], []


def detonate(installed: Installed, target: str) -> tuple[list[Trigger], list[NotRun]]:
    """A bare start of the interpreter, each module, each script."""
    start = Trigger(PhaseName.START, None, ("start", AUDIT_IN_JAIL, target))
    # Code that nobody can import is odd enough to be called a gap.
    modules, not_imported = imports(installed, target, Omission.LEFT_OUT)
    no_script = "the distribution declares no console script"
    nothing = NotRun(PhaseName.EXECUTE, None, Omission.NOTHING_THERE, no_script)
    scripts, not_executed = bounded(all_scripts(installed, target), nothing)
    c = installed.contents
    site = f"{target}/lib/python3.11/site-packages"
    words, left = pack_names([*c.first, *c.others, *(p.target for p in c.plugins)])
    tell = AUDIT_IN_JAIL
    many = [Trigger(PhaseName.IMPORT, "all modules", ("imports", tell, "40", "10", site, "self", *words))]
    for who in ("windows", "macos", "ci", "later"):
        many.append(Trigger(PhaseName.IMPORT, f"as {who}", ("imports", tell, "30", "10", site, who, *words)))
    if c.tests:
        test_words, _ = pack_names(c.tests)
        many.append(Trigger(PhaseName.IMPORT, "tests", ("imports", tell, "30", "10", site, "self", *test_words)))
    many.append(Trigger(PhaseName.CALL, None, ("call", tell, "10", "3", site, "/tmp/samples", "0.5", *words)))
    runs = [Trigger(PhaseName.EXECUTE, p, ("file", tell, target, p)) for p in c.programs[:8]]
    runs += [Trigger(PhaseName.EXECUTE, f"python -m {m}", ("module", tell, target, m)) for m in c.mains[:2]]
    return [start, *modules, *many, *scripts, *runs], [*not_imported, *not_executed]


def imports(
    installed: Installed, target: str, why_none: Omission
) -> tuple[list[Trigger], list[NotRun]]:
    """A trigger for each top-level module; `why_none` is told where there is none."""
    found = [
        Trigger(PhaseName.IMPORT, name, ("import", AUDIT_IN_JAIL, target, name)) for name in installed.modules
    ]
    no_module = "the distribution has no importable module"
    return bounded(found, NotRun(PhaseName.IMPORT, None, why_none, no_module))


def all_scripts(installed: Installed, target: str) -> list[Trigger]:
    """A trigger for each script."""
    return [
        Trigger(PhaseName.EXECUTE, name, ("script", AUDIT_IN_JAIL, target, name, place))
        for name, place in installed.scripts.items()
    ]


def execute(order: Order, installed: Installed, target: str) -> tuple[list[Trigger], list[NotRun]]:
    """The file, the object or the script that the order names, or else the first script."""
    wanted = order.entrypoint
    if order.file_path:
        return [Trigger(PhaseName.EXECUTE, order.file_path, ("file", target, order.file_path))], []
    if wanted and ":" in wanted:
        launch = ("script", target, order.package_name, wanted)
        return [Trigger(PhaseName.EXECUTE, wanted, launch)], []
    found = [
        trigger for trigger in all_scripts(installed, target) if wanted in (None, trigger.title)
    ]
    if found:
        return found[:1], []
    missing = f"no console script {wanted or ''}".rstrip()
    reason = f"{missing} (it declares {', '.join(installed.scripts) or 'none'})"
    return [], [NotRun(PhaseName.EXECUTE, wanted, Omission.NOT_FOUND, reason)]


def execute_module(
    order: Order, installed: Installed, target: str
) -> tuple[list[Trigger], list[NotRun]]:
    """`python -m` with the module that the order names, or else the first of the distribution."""
    module = order.module_name or next(iter(installed.modules), None)
    if module:
        return [Trigger(PhaseName.EXECUTE, f"python -m {module}", ("module", target, module))], []
    return [], [
        NotRun(PhaseName.EXECUTE, None, Omission.NOT_FOUND, "the distribution has no module")
    ]


def bounded(found: list[Trigger], nothing: NotRun) -> tuple[list[Trigger], list[NotRun]]:
    """The first MAX_TRIGGERS, and what is told of the others; `nothing` where there is none."""
    if not found:
        return [], [nothing]
    reason = f"one of more than {MAX_TRIGGERS}"
    left_out = [
        NotRun(trigger.phase, trigger.title, Omission.LEFT_OUT, reason)
        for trigger in found[MAX_TRIGGERS : MAX_TRIGGERS + MAX_OMISSIONS]
    ]
    return found[:MAX_TRIGGERS], left_out
