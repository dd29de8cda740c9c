"""How a run went: whether the sandbox did what the mode asks for, and what it did not see."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jail.orders import WORK_IN_JAIL, JailSettings, Order
from jail.report.text import plain
from jail.watch.events import (
    Change,
    DependencyDenied,
    FileChanged,
    NotRun,
    Omission,
    Outcome,
    Phase,
    PhaseName,
    StartsUnchecked,
)
from jail.watch.noticed import Notice, Noticed
from jail.watch.record import SEARCHED_FOR_BAIT, Record

MAX_SENTENCE_CHARS = 300
# Without a subject these say that there was more of the kind than is told.
MORE_THAN_TOLD = (Notice.GATED, Notice.READS, Notice.UNHEARD)
# What each mode runs. A phase of these that is neither run nor explained is a gap.
PROMISED = {
    "install": (PhaseName.INSTALL,),
    "execute": (PhaseName.INSTALL, PhaseName.EXECUTE),
    "execute_module": (PhaseName.INSTALL, PhaseName.EXECUTE),
    "import": (PhaseName.INSTALL, PhaseName.IMPORT),
    "detonate": (*PhaseName,),
}
# `/srv/site/x-1.0/lib/python3.11/site-packages/x/a.py`
CODE = re.compile(rf"{re.escape(WORK_IN_JAIL)}/site/.*\.(?:py|so|pth)", re.DOTALL)
# The modes that are for one trigger, which the request names: it decides over the run.
ONE_TRIGGER = {"execute", "execute_module"}
DEPENDENCIES = "dependencies"  # the trigger that imports what dependencies have
# The triggers that import all modules: `all modules`, `as windows`.
WHOLE_TURN = re.compile(r"all modules|as [\w, ]+")
# How a phase ends that a limit of the sandbox ended.
LIMITS = {Outcome.TIMEOUT, Outcome.MEMORY, Outcome.DISK, Outcome.DOWNLOAD_CAP}
# What an event is called where it was not kept.
EVENT_WORDS = {
    "Exec": "command",
    "Connection": "connection",
    "NameAsked": "name",
    "FileChanged": "file",
    "Code": "code",
    "ProcessEnded": "process",
}
# The line of an error output that says what was wrong, among pip's advice. Samples:
#   ModuleNotFoundError: No module named 'torch'
#   ERROR: Could not find a version that satisfies the requirement x==9
CAUSE = re.compile(
    r"(?:[A-Za-z_.]{0,200}(?:Error|Exception|Interrupt|Exit)\b(?!: subprocess)"
    r"|ERROR: (?!Failed to build))"
)


@dataclass(frozen=True)
class Facts:
    """All that is known of a run when it has ended; `assemble` says what each is."""

    order: Order
    settings: JailSettings
    record: Record
    phases: Sequence[Phase]
    not_run: Sequence[NotRun]
    kernel_witness: bool
    interrupted: bool
    error: str

    @property
    def denied(self) -> list[str]:
        """What was asked for and is on the denylist, a sentence each."""
        projects = [
            seen.event.project
            for seen in self.record.seen
            if isinstance(seen.event, DependencyDenied)
        ]
        withheld = "is on the denylist and was not given out, a stand-in was"
        return [f"{project} {withheld}" for project in dict.fromkeys(projects)]


def explained(facts: Facts, phase: Phase) -> str:
    """One line that tells a reader what to make of a phase that did not go well."""
    settings = facts.settings
    match phase.outcome:
        case Outcome.TIMEOUT if not phase.reason:
            what = f"stopped after {settings.run_timeout_sec} s (RUN_TIMEOUT_SEC)"
        case Outcome.MEMORY:
            limit = f"{settings.rlimit_as_mb} MiB, RLIMIT_AS_MB"
            what = f"killed by the kernel for want of memory ({limit})"
        case Outcome.DISK:
            limit = f"{settings.max_disk_bytes} bytes, MAX_DISK_BYTES"
            what = f"stopped when the scratch was full ({limit})"
        case Outcome.DOWNLOAD_CAP:
            limit = f"{settings.max_download_bytes} downloaded bytes"
            what = f"stopped after {limit} (MAX_DOWNLOAD_BYTES)"
        case _:
            what = phase.reason or own_words(facts, phase)
    return plain(f"{phase.title}: {what}", MAX_SENTENCE_CHARS)


def own_words(facts: Facts, phase: Phase) -> str:
    """How a phase ended by itself, with the line of its error output that says why."""
    if phase.name == PhaseName.INSTALL and facts.denied:
        return facts.denied[0]
    how = f"killed by {phase.signal}" if phase.signal else f"exit code {phase.exit_code}"
    lines = [line.strip() for line in phase.stderr.text.splitlines() if line.strip()]
    causes = [line for line in lines if CAUSE.match(line)] or lines
    return ": ".join([how, *causes[-1:]])


def is_decisive(facts: Facts, phase: Phase) -> bool:
    """Whether a phase that failed by itself makes the run fail."""
    if phase.name == PhaseName.INSTALL:
        return not is_extra(phase)
    return facts.order.mode in ONE_TRIGGER


def is_extra(phase: Phase) -> bool:
    """Whether it is a second installation, of what the package asks for and does not require."""
    return phase.name == PhaseName.INSTALL and phase.trigger is not None


def outcome_of(facts: Facts) -> tuple[Outcome, str]:
    """The outcome of the run and its reason: the first thing that kept it from being all right."""
    if facts.interrupted:
        return Outcome.INTERRUPTED, "the service was stopped during the run"
    if facts.error:
        return Outcome.ERROR, facts.error
    if not facts.phases:
        return Outcome.ERROR, "nothing was run"
    for phase in facts.phases:
        is_failed = phase.outcome == Outcome.FAILED or is_extra(phase)
        if is_failed and not is_decisive(facts, phase):
            continue
        if phase.outcome != Outcome.OK:
            return phase.outcome, explained(facts, phase)
    for item in facts.not_run:
        if item.why == Omission.NOT_FOUND:
            return Outcome.FAILED, sentence(item)
    for item in facts.not_run:
        if item.why == Omission.OUT_OF_TIME:
            return Outcome.TIMEOUT, sentence(item)
    return Outcome.OK, ""


def sentence(item: NotRun) -> str:
    title = f"{item.phase} {item.trigger}" if item.trigger else str(item.phase)
    return plain(f"{title}: {item.reason}", MAX_SENTENCE_CHARS)


def ran_to_its_end(phase: Phase) -> bool:
    """Whether all of a trigger had its turn.

    A program that ends with 2 for want of arguments has done what it does. An import, a start or a
    build that fails was broken off in the middle, and so was whatever a signal ended.
    """
    if is_extra(phase):
        return True
    if phase.outcome == Outcome.FAILED:
        return phase.name == PhaseName.EXECUTE and phase.signal is None
    return phase.outcome == Outcome.OK


def gaps_of(facts: Facts) -> list[str]:
    """What was not seen, a sentence each: where there is one, nothing can be called clean."""
    return [*broken_off(facts), *never_run(facts), *unseen(facts), *left_out(facts)]


def broken_off(facts: Facts) -> Iterator[str]:
    if facts.interrupted or facts.error or not facts.phases:
        outcome, reason = outcome_of(facts)
        yield plain(f"{outcome}: {reason}", MAX_SENTENCE_CHARS)
    # What has had a second try counts by that.
    tries = {(phase.name, phase.trigger): phase for phase in facts.phases}
    for phase in tries.values():
        if not ran_to_its_end(phase):
            yield plain(f"{phase.outcome}: {explained(facts, phase)}", MAX_SENTENCE_CHARS)


def never_run(facts: Facts) -> Iterator[str]:
    """Of modules that failed whoever imported them, what they would have done after that.

    One that fails on Linux and runs as on Windows has run. What a dependency has is only imported
    once.
    """
    turns: set[str] = set()  # the jails in which the target's modules had their turn
    failed: dict[str, dict[str, Noticed]] = {}
    # Where not all that failed was looked at, any module may have been about to act.
    cut: dict[str, str] = {}
    for seen in facts.record.seen:
        event = seen.event
        if not isinstance(event, Noticed) or seen.phase.name != PhaseName.IMPORT:
            continue
        # A package can tell of jobs where there were none: of one module that is imported alone.
        is_turn = WHOLE_TURN.fullmatch(seen.phase.trigger or "") is not None
        if event.kind is Notice.COUNTED and is_turn:
            turns.add(seen.phase.title)
        if event.kind is Notice.UNRUN and not event.what:
            cut[seen.phase.title] = event.text
        elif event.kind is Notice.UNRUN:
            failed.setdefault(event.what, {})[seen.phase.title] = event
    if cut and turns <= cut.keys():
        title, text = next(iter(cut.items()))
        yield plain(f"{title}: {text}", MAX_SENTENCE_CHARS)
    for module, told in failed.items():
        is_everywhere = turns <= told.keys() | cut.keys()
        is_dependency = any(title.endswith(f" {DEPENDENCIES}") for title in told)
        if is_everywhere or is_dependency:
            first = next(iter(told.values()))
            what = f"{module} fails before this could run: {first.text} ({first.place})"
            yield plain(what, MAX_SENTENCE_CHARS)


def unseen(facts: Facts) -> Iterator[str]:
    if not facts.kernel_witness:
        yield "the kernel witness was off"
    silent = [phase.title for phase in facts.phases if not phase.python_witness]
    if silent:
        yield plain(f"the Python witness was silent in {', '.join(silent)}", MAX_SENTENCE_CHARS)
    calls = {phase.title for phase in facts.phases if phase.name == PhaseName.CALL}
    for (title, kind), count in facts.record.lost.items():
        # What a call does is harmless but for this.
        if title in calls and SEARCHED_FOR_BAIT not in kind:
            continue
        what = f"{title}: {count} were not kept or looked at: {EVENT_WORDS.get(kind, kind)}"
        yield plain(what, MAX_SENTENCE_CHARS)

    for seen in facts.record.seen:
        event = seen.event
        if isinstance(event, FileChanged) and is_removed_code(seen.phase, event):
            what = f"{event.path} was removed, and not run again"
            yield plain(f"{seen.phase.title}: {what}", MAX_SENTENCE_CHARS)
        if isinstance(event, StartsUnchecked):
            yield plain(f"{seen.phase.title}: {unchecked(event)}", MAX_SENTENCE_CHARS)
        if isinstance(event, Noticed) and event.kind in MORE_THAN_TOLD and not event.what:
            yield plain(f"{seen.phase.title}: {event.text}", MAX_SENTENCE_CHARS)


def is_removed_code(phase: Phase, event: FileChanged) -> bool:
    """Whether installed code was removed that would have had its turn as other victims', and been
    called.
    """
    is_early = phase.name in (PhaseName.START, PhaseName.IMPORT)
    return is_early and event.change is Change.DELETED and bool(CODE.fullmatch(event.path))


def unchecked(event: StartsUnchecked) -> str:
    """In words, that programs could not be looked at."""
    count = "a program" if event.count == 1 else f"{event.count} programs"
    return f"{count} had gone on before we looked, on a busy machine: {event.program}"


def left_out(facts: Facts) -> Iterator[str]:
    for item in facts.not_run:
        if item.why != Omission.NOTHING_THERE:
            yield plain(f"not run: {sentence(item)}", MAX_SENTENCE_CHARS)
    for denied in facts.denied:
        yield plain(f"withheld: {denied}", MAX_SENTENCE_CHARS)
    known = {phase.name for phase in facts.phases} | {item.phase for item in facts.not_run}
    for name in PROMISED[facts.order.mode]:
        if name not in known and facts.phases:
            yield f"not run: {name}"
