"""One act, one line: the findings as a reader wants them, the gravest first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jail.report.acts import act_of, names_of_targets
from jail.report.descent import Descent
from jail.watch.events import (
    Connection,
    Finding,
    NameAsked,
    Phase,
    PhaseName,
    Rule,
    Seen,
    Severity,
    is_near,
)
from jail.watch.world_events import Conversation, Request

MAX_GROUP_TITLES = 50
# The order of findings of the same severity: what tells most about a package comes first.
RULE_ORDER = (
    Rule.SECRET_SENT,
    Rule.SECRET_READ,
    Rule.CODE_REMOTE,
    Rule.PERSISTENCE_WRITE,
    Rule.EVIDENCE_TAMPER,
    Rule.WITNESS_HIDDEN,
    Rule.CODE_DYNAMIC,
    Rule.NETWORK_ATTEMPT,
    Rule.PROCESS_SPAWN,
    Rule.PTH_CODE,
    Rule.CODE_GATED,
    Rule.LIMIT_HIT,
)

Found = tuple[Phase, tuple[Finding, ...]]  # the findings of one event


@dataclass
class Group:
    """The findings of one act: of one event, of one line of code again and again, or of what is a
    part of it.

    `finding` is the gravest of the first event, `titles` are all different ones, up to a bound: its
    own first, then the gravest.
    """

    finding: Finding
    phases: list[PhaseName] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    count: int = 0


def gravity(finding: Finding) -> tuple[int, int]:
    """What to sort by: the least comes first."""
    return severity_rank(finding), RULE_ORDER.index(finding.rule)


def severity_rank(finding: Finding) -> int:
    return list(Severity).index(finding.severity)


def worst_of(found: Sequence[Found]) -> dict[int, Finding]:
    """By place in the list: the gravest finding of each event that has one."""
    return {
        number: min(findings, key=gravity) for number, (_, findings) in enumerate(found) if findings
    }


def groups_of(found: Sequence[Found], wholes: Mapping[int, int]) -> list[Group]:
    """The findings by act, the gravest first.

    Those of one event are one act, and so are those that act_of calls by the same words, and those
    that `wholes` says are a part of another.
    Of the same severity each rule's first group comes before any rule's second, so that no flood of
    one rule hides another.
    """
    worst = worst_of(found)
    groups: dict[tuple[Severity, Rule, str], Group] = {}
    told: dict[int, dict[str, int]] = {}  # by group: how grave each title is
    for number, finding in worst.items():
        head = worst[wholes.get(number, number)]
        key = head.severity, head.rule, act_of(head)
        group = groups.setdefault(key, Group(head))
        group.count += 1
        phase = found[number][0]
        if phase.name not in group.phases:
            group.phases.append(phase.name)
        titles = told.setdefault(id(group), {group.finding.title: -1})
        titles.setdefault(finding.title, severity_rank(finding))
    turns: Counter[tuple[Severity, Rule]] = Counter()
    ranked = []
    for number, group in enumerate(groups.values()):
        titles = told[id(group)]
        group.titles = sorted(titles, key=titles.__getitem__)[:MAX_GROUP_TITLES]
        severity, rule = gravity(group.finding)
        turns[group.finding.severity, group.finding.rule] += 1
        turn = turns[group.finding.severity, group.finding.rule]
        ranked.append(((severity, turn, rule, number), group))
    return [group for _, group in sorted(ranked, key=lambda pair: pair[0])]


def wholes_of(seen: Sequence[Seen], found: Sequence[Found]) -> dict[int, int]:
    """Which findings are a part of an act that another tells, and of which, by their places.

    Args:
        seen: what they were found in, place by place; there may be more findings after that.
    """
    worst = worst_of(found[: len(seen)])
    return commands_of_commands(seen, worst) | words_with_hosts(seen, worst)


def commands_of_commands(seen: Sequence[Seen], worst: Mapping[int, Finding]) -> dict[int, int]:
    """What a command has started is a part of it, unless that is graver: `sh -c "curl x | sh"`
    starts `curl x` and `sh`.
    """
    wholes: dict[int, int] = {}
    for number, above in Descent(seen).above.items():
        if number not in worst or worst[number].rule is not Rule.PROCESS_SPAWN:
            continue
        rank = severity_rank(worst[number])
        graver = (other for other in above if other in worst and is_as_grave(worst[other], rank))
        whole = next(graver, number)
        if whole != number:
            wholes[number] = wholes.get(whole, whole)
    return wholes


def is_as_grave(finding: Finding, rank: int) -> bool:
    return severity_rank(finding) <= rank


def words_with_hosts(seen: Sequence[Seen], worst: Mapping[int, Finding]) -> dict[int, int]:
    """What is said to one host in one jail, and is less grave, is a part of the gravest of it."""
    names = names_of_hosts(seen)
    by_host: dict[tuple[int, str], list[int]] = {}
    for number, finding in worst.items():
        host = host_of(seen[number], names)
        if host and finding.rule is Rule.NETWORK_ATTEMPT:
            by_host.setdefault((id(seen[number].phase), host), []).append(number)
    wholes = {}
    for numbers in by_host.values():
        first = min(numbers, key=lambda number: (severity_rank(worst[number]), number))
        for number in numbers:
            if severity_rank(worst[number]) > severity_rank(worst[first]):
                wholes[number] = first
    return wholes


def names_of_hosts(seen: Sequence[Seen]) -> dict[tuple[int, str], str]:
    """By phase and address without its port: the name that the package had asked for."""
    named = names_of_targets(seen).items()
    return {(phase, target.rpartition(":")[0]): name for (phase, target), name in named}


def host_of(entry: Seen, names: Mapping[tuple[int, str], str]) -> str:
    """Whom an event is about, by what the kernel and the resolver tell; "" for nobody far away.

    The name that a request gives itself may be anybody's.
    """
    event = entry.event
    if isinstance(event, NameAsked):
        return event.name.lower()
    if not isinstance(event, Connection | Conversation | Request) or is_near(event.target):
        return ""
    if isinstance(event, Connection) and event.listens:
        return ""
    address = event.target.rpartition(":")[0]
    return names.get((id(entry.phase), address), address).lower()
