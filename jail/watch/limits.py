"""When a jail has had enough, and the sentence for it."""

import re
import time
from collections.abc import Iterable
from pathlib import Path

from jail.orders import JailSettings
from jail.watch.events import Outcome
from jail.watch.resources import Resources

# How a phase ends, and why.
Reached = tuple[Outcome, str]


def reached_limit(resources: Resources, begun_sec: float, has_index: bool) -> Reached | None:
    """The limit that a jail at work has reached, if any.

    Args:
        begun_sec: when the phase began, by time.monotonic.
        has_index: whether it can load from the index.
    """
    settings, upstream = resources.settings, resources.upstream
    now_sec = time.monotonic()
    if now_sec > resources.end_sec:
        budget_sec = settings.run_budget_sec
        return Outcome.TIMEOUT, f"stopped when the run's {budget_sec} s were over (RUN_BUDGET_SEC)"
    if now_sec > begun_sec + settings.run_timeout_sec:
        return Outcome.TIMEOUT, f"stopped after {settings.run_timeout_sec} s (RUN_TIMEOUT_SEC)"
    if has_index and upstream.failure and upstream.is_needed:
        return Outcome.ERROR, upstream.failure
    if has_index and upstream.left_bytes < 0:
        size_bytes = settings.max_download_bytes
        reason = f"stopped after {size_bytes} downloaded bytes (MAX_DOWNLOAD_BYTES)"
        return Outcome.DOWNLOAD_CAP, reason
    return full_disk(settings) if resources.scratch.is_full() else None


def full_disk(settings: JailSettings) -> Reached:
    """The scratch is full."""
    size_bytes = settings.max_disk_bytes
    return Outcome.DISK, f"stopped when the scratch was full ({size_bytes} bytes, MAX_DISK_BYTES)"


def want_of_memory(settings: JailSettings) -> Reached:
    """The kernel has killed a process of the run."""
    size = settings.rlimit_as_mb
    return Outcome.MEMORY, f"killed by the kernel for want of memory ({size} MiB, RLIMIT_AS_MB)"


# "oom_kill 1", a line of memory.oom_control or of memory.events.
OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE | re.ASCII)


def count_oom_kills(parents: Iterable[str], run_id: str) -> int:
    """Processes of a run that the kernel has killed for want of memory, as its cgroups tell.

    Args:
        parents: the groups in which keeper makes those of the runs.
    """
    count = 0
    for parent in parents:
        for group in Path(parent).glob(f"*-{run_id}"):
            for file in (group / "memory.oom_control", group / "memory.events"):
                text = file.read_text() if file.exists() else ""
                count += sum(int(number) for number in OOM_KILLS.findall(text))
    return count
