"""The record of a run: all that was seen, within bounds, so that no flood of one thing hides
another.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from jail.watch.events import (
    MAX_CODES,
    MAX_EVENTS,
    Code,
    Connection,
    Event,
    Exec,
    FileChanged,
    Finding,
    NameAsked,
    Phase,
    Seen,
    Severity,
    WorldEvent,
)

# Room of its own for the first event of each subject (a host, a program, a folder), as many
# subjects as this of one kind and severity in one phase.
MAX_SUBJECTS = 500
# Over the run, of one severity: once for what is the first of its subject, once for the rest.
MAX_RECORD_CHARS = 24 << 20
# Ends the name of what was lost where it was not searched: it may have had bait in it.
SEARCHED_FOR_BAIT = "searched for bait"
EVENT_CHARS = 700  # that an event takes beside its texts


def size_chars(event: Event) -> int:
    """About how much memory an event takes: the characters of its texts and lists of texts."""
    size = EVENT_CHARS
    for value in vars(event).values():
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, tuple):
            size += sum(len(word) for word in value)
    return size


def subject(event: Event) -> str:
    """What an event is about, so that a flood of one does not hide the first of another; "" for
    most.

    The host of "203.0.113.1:443", "example.org" of "a.b.example.org", a program, a folder, a
    file.
    """
    match event:
        case Connection():
            return event.target.rpartition(":")[0]
        case NameAsked():
            return ".".join(event.name.rsplit(".", 2)[-2:])
        case Exec():
            return event.program
        case FileChanged():
            return event.path.rpartition("/")[0]
        case Code():
            return event.place or ""
        case WorldEvent():
            return str(getattr(event, "target", ""))
    return ""


@dataclass
class Record:
    """All that was seen in a run, in order; what there was no room for is counted.

    `judge` gives the findings of an event. Room is counted by phase, kind and worst severity, so
    that no flood of the common keeps out the grave, and by worst severity over the run.
    """

    judge: Callable[[Phase, Event], tuple[Finding, ...]]
    keep: Callable[[Seen], None] = lambda _: None  # the evidence file
    seen: list[Seen] = field(default_factory=list)
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)  # by phase title and kind
    repeats: Counter[str] = field(default_factory=Counter)  # by phase title: see is_repeat
    counts: Counter[tuple[str, str, Severity | None]] = field(default_factory=Counter)
    subjects: dict[tuple[str, str, Severity | None], set[str]] = field(default_factory=dict)
    chars: Counter[tuple[Severity | None, bool]] = field(default_factory=Counter)

    def add(self, phase: Phase, event: Event, at_sec: float) -> bool:
        """Keep an event, if there is room for it: whether it was kept."""
        findings = self.judge(phase, event)
        severities = [finding.severity for finding in findings]
        worst = min(severities, key=list(Severity).index, default=None)
        is_repeat = self.is_repeat(phase, event, worst)
        if not self.has_room(phase, event, worst):
            if is_repeat:
                self.repeats[phase.title] += 1
            else:
                self.lose(phase, type(event).__name__)
            return False
        seen = Seen(event, phase, at_sec, findings)
        self.seen.append(seen)
        self.keep(seen)
        return True

    def is_repeat(self, phase: Phase, event: Event, worst: Severity | None) -> bool:
        """Whether it is more code from a line that some is told of, and nothing to look at."""
        known = self.subjects.get((phase.title, type(event).__name__, worst), ())
        is_harmless = worst in (None, Severity.INFO)
        return isinstance(event, Code) and is_harmless and subject(event) in known

    def has_room(self, phase: Phase, event: Event, worst: Severity | None) -> bool:
        """Whether there is room for another event, which is taken."""
        key = (phase.title, type(event).__name__, worst)
        about, known = subject(event), self.subjects.setdefault(key, set())
        is_first = about != "" and about not in known and len(known) < MAX_SUBJECTS
        most = MAX_CODES if isinstance(event, Code) else MAX_EVENTS
        size = size_chars(event)
        is_large = self.chars[worst, is_first] + size > MAX_RECORD_CHARS
        if is_large or (not is_first and self.counts[key] >= most):
            return False
        self.chars[worst, is_first] += size
        if is_first:
            known.add(about)
        else:
            self.counts[key] += 1
        return True

    def lose(self, phase: Phase, kind: str, count: int = 1) -> None:
        """Count what was not kept or not looked at."""
        self.lost[phase.title, kind] += count
