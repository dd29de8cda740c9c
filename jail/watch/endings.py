"""How a phase ended, from what the kernel and the launcher say."""

import os
from collections.abc import Collection

from jail.orders import JailSettings
from jail.watch.events import Outcome, Phase
from jail.watch.triggers import MANY_KINDS, Trigger

# Exit codes of the launcher after many jobs, as jail/inside/supervise.py has them.
ALL_JOBS_RAN, SOME_JOBS_LEFT, SOME_JOBS_NOT_RUN, JOBS_NOT_SURE = 0, 80, 81, 84
KILLED_CODE = 128 + 9  # as a shell tells it
# What the kernel sends to who has used up its seconds of CPU time.
CPU_SIGNALS = {"SIGXCPU", "SIGKILL"}


def end_phase(
    phase: Phase,
    trigger: Trigger,
    main_exit: tuple[int | None, str | None] | None,
    status: int | None,
    settings: JailSettings,
    signals: Collection[str] = (),
    came_to_end: bool = True,
) -> None:
    """Say how a phase ended that came to its end and that nobody of us stopped.

    Args:
        main_exit: exit code and signal of the launcher's child, if the kernel witness saw them.
        status: what the launcher itself ended with.
        signals: by which any process was ended. pip has no limit of CPU time, but a build has, and
            then pip fails.
        came_to_end: what runs in the jail has said so, which counts for an import: a module
            that ends its interpreter may do so with any code.
    """
    if trigger.launch[0] in MANY_KINDS:
        end_jobs(phase, status)
        return
    phase.exit_code, phase.signal = main_exit or (status, None)
    phase.outcome = Outcome.OK if phase.exit_code == 0 else Outcome.FAILED
    if trigger.launch[0] == "import" and phase.outcome is Outcome.OK and not came_to_end:
        phase.shortfall = "it ends the interpreter that imports it"
    was_killed = phase.signal in CPU_SIGNALS or phase.exit_code == KILLED_CODE
    if trigger.launch[0] == "pip" and phase.outcome is Outcome.FAILED:
        was_killed |= not CPU_SIGNALS.isdisjoint(signals)
    # A package may end itself by the same signal. It can't be much faster than all processors.
    least_sec = settings.rlimit_cpu_sec / (os.cpu_count() or 1)
    if was_killed and phase.duration_sec > least_sec:
        phase.outcome = Outcome.TIMEOUT
        limit = f"{settings.rlimit_cpu_sec} s of CPU time, RLIMIT_CPU_SEC"
        phase.reason = f"killed by the kernel at the limit of a process ({limit})"


def end_jobs(phase: Phase, status: int | None) -> None:
    """The launcher runs no foreign code: its exit code is the proof that no job was left out."""
    phase.exit_code = status
    is_known = status in (ALL_JOBS_RAN, SOME_JOBS_LEFT, SOME_JOBS_NOT_RUN, JOBS_NOT_SURE)
    phase.outcome = Outcome.OK if is_known else Outcome.FAILED
    if status == SOME_JOBS_NOT_RUN:
        phase.shortfall = "not all of it was run within its time"
    elif status == JOBS_NOT_SURE:
        phase.shortfall = "a module looks into what imports it, and could forge that others ran"
    elif status == SOME_JOBS_LEFT:
        phase.shortfall = "something did not end within its time, or was left at work"
