"""Reports for tests: of what was seen, and such as a package would make that says one thing
wherever it can."""

from collections.abc import Sequence
from typing import Any

from jail.orders import JailSettings, Order
from jail.report.letters import with_escapes
from jail.report.rules import judge
from jail.report.verdict import Report, assemble
from jail.watch.events import (
    MAX_CODE_BYTES,
    MAX_TEXT_CHARS,
    Actor,
    BaitRead,
    Change,
    Code,
    Connection,
    Downloaded,
    Event,
    Exec,
    FileChanged,
    IndexRefused,
    NameAsked,
    Net,
    NotRun,
    Omission,
    Outcome,
    Phase,
    PhaseName,
    Printed,
    ProcessEnded,
    StartupCode,
)
from jail.watch.record import Record
from jail.watch.world_events import (
    Conversation,
    Kept,
    NamesDecoded,
    Payload,
    RemoteCode,
    Reply,
    Request,
    Speaker,
    Tls,
)

INDEX_URL = "https://index.example/simple"
SETTINGS = JailSettings(
    cgroup_pids_max=128,
    decoy_internet=True,
    enable_cgroup_pids_limit=True,
    index_file_hosts=(),
    jail_python_name="",
    keep_samples_bytes=2_000_000_000,
    max_concurrency=2,
    max_disk_bytes=1_000_000_000,
    max_download_bytes=300_000_000,
    nsjail_chroot_path="",
    nsjail_config_path="",
    nsjail_disable_clone_newuser=True,
    nsjail_group=65534,
    nsjail_path="",
    nsjail_user=65534,
    package_denylist=(),
    pip_cache_dir="",
    pip_index_url=INDEX_URL,
    pip_package="",
    rlimit_as_mb=1024,
    rlimit_cpu_sec=30,
    rlimit_nofile=1024,
    run_budget_sec=300,
    run_timeout_sec=45,
    state_dir="",
)
HOSTILE = {
    "html": "</pre></li><script>alert(1)</script><img src=x onerror=alert(1)><!--<style>*{}",
    "attribute": "\"' onclick=alert(1) x=\"'><svg/onload=alert(1)>&lt;b&gt;&#60;i&#62;",
    "template": "$head ${kind} $$ {0} %s <!-- report -->",
    "markdown": "**b** __u__ ~~s~~ ||spoiler|| # h\n> q\n- l\n[click](http://evil.example) \\",
    "backticks": "`a` ``b`` ```c\nd``` `",
    "mentions": "@everyone @here <@1> <@&2> <#3> <:a:4> <t:0:R> </a:5>",
    "ansi": "\x1b[2J\x1b]0;title\x07\x1b[31mred\x9b1A\x08\x7f\r",
    "bidi": "\u202ecod.exe\u2066\u200f\u061c\u200b\ufeff",
    "look-alikes": "r\u0435quests \u043e\u0455 \u3164\u2800 a\ufe01\ufe02",
    "surrogates": "\ud800 \udfff \udc80",
    "nul": "a\0b\0",
    "separators": "a\nb\u2028c\u2029d\x85e\x0bf\x0cg\x1ch",
    "astral": "\U0001f40d" * 5000,
    "combining": "z" + "\u0301" * 5000,
    "empty": "",
    "blank": " \t ",
    "tabs": "\t" * 20_000,
    "controls": "\x01" * 20_000,
    "long": "A" * 100_000,
    "quotes": "\"'&<>" * 4_000,
    "folders": "/srv/site/x/" * 1_700 + "evil",
}


def an_order(mode: str = "install", **changes: Any) -> Order:
    fields = {"task": "triage", "run_id": "ab" * 16, "package_name": "a-package", "version": "1.0"}
    return Order(**fields | {"mode": mode} | changes)


def a_phase(
    name: PhaseName = PhaseName.INSTALL,
    trigger: str | None = None,
    outcome: Outcome = Outcome.OK,
    exit_code: int | None = 0,
    **changes: Any,
) -> Phase:
    return Phase(
        name, trigger, outcome, exit_code, **{"duration_sec": 1.5, "python_witness": True} | changes
    )


def report_of(
    *events: Event | tuple[Phase, Event],
    mode: str = "install",
    phases: Sequence[Phase] | None = None,
    record: Record | None = None,
    **more: Any,
) -> Report:
    """A report of these events, each of the first phase unless a phase stands beside it."""
    phases = [a_phase()] if phases is None else phases
    record = record or Record(judge)
    for number, event in enumerate(events):
        phase, event = event if isinstance(event, tuple) else (phases[0], event)
        record.add(phase, event, float(number))
    order = more.pop("order", an_order(mode))
    times = {"kernel_witness": True, "started_at_sec": 0.0, "finished_at_sec": 3.0}
    return assemble(order, SETTINGS, record, phases, **times | more)


def events_saying(said: str, number: int) -> list[Event]:
    """An event of each kind in which everything that a package has a say in is `said`, as long as
    watch lets it be."""
    source, said = said[:MAX_CODE_BYTES], said[:MAX_TEXT_CHARS]
    actor = Actor(number + 7, said, said, hidden=number % 2 == 1)
    return [
        Exec(said, (said, said, str(number)), said, actor),
        Connection(Net.TCP, f"{said}:{number}", False, said, actor),
        NameAsked(f"{said}{number}", actor),
        FileChanged(f"/home/dev/.bashrc{number}{said}", Change.CREATED, None, said, actor, (said,)),
        StartupCode(said, said),
        Code(f"{number:064}", 3, said, number % 3 == 0, source),
        BaitRead(f"{said}{number}", said),
        Downloaded(f"{said}{number}", 3, "cd" * 32, False),
        IndexRefused(f"{said}{number}", said),
        ProcessEnded(number + 7, number + 6, (said, said), None, None, False, True),
        *world_events_saying(said, number, actor),
    ]


def world_events_saying(said: str, number: int, actor: Actor) -> list[Event]:
    """The same of the decoy internet."""
    target, url = f"24.1.2.3:{number}", f"https://{said}.example.com/{said}{number}"
    payload = Payload(len(said) + 1, "ef" * 32, said, True)
    return [
        Request(target, 0, said, url, ((said, said),), payload, 200, (said,), True, actor=actor),
        Conversation(
            Net.TCP,
            target,
            1,
            said,
            Reply.DECOY,
            Speaker.PACKAGE,
            Tls(said, False),
            payload,
            (said,),
            True,
            actor=actor,
        ),
        RemoteCode(url, list(Kept)[number % 3], said, said, actor),
        NamesDecoded(f"{said}{number}", 3, said, (said,) if number % 2 else ()),
    ]


def saying(said: str, count: int = 1) -> Report:
    """A report in which a package says `said` wherever it can, `count` times in each list."""
    output = Printed(said, len(said) + 1, True)
    phases = [
        a_phase(
            PhaseName.IMPORT, said[:MAX_TEXT_CHARS], Outcome.FAILED, 1, stdout=output, stderr=output
        )
        for _ in range(min(count, 18))
    ]
    events = [event for number in range(count) for event in events_saying(said, number)]
    said = said[:MAX_TEXT_CHARS]
    not_run = [NotRun(PhaseName.EXECUTE, said, Omission.LEFT_OUT, said)] * count
    return report_of(
        *events,
        mode="import",
        phases=[a_phase(stdout=output, stderr=output), *phases],
        not_run=not_run,
        notes=[said] * count,
        error=said,
    )


def assert_inert(text: str) -> None:
    """No character of the text acts, to the eye or to a terminal."""
    bad = {char for char in set(text) if not (char.isprintable() or char == "\n")}
    assert not bad, f"characters that act: {sorted(map(hex, map(ord, bad)))}"
    assert with_escapes(text) == text, "letters that look like others, or are not seen"
