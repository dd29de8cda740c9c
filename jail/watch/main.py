"""The watch of one run: its phases one after the other, its budget, and the stream of its report to
the service.

It runs without privileges, forked from the run keeper. All bytes that a package made are read here
and in the rooms that this room imports, and nowhere else.
"""

import codecs
import json
import socket
import threading
import time
from collections import deque
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from jail.orders import MAX_JAILS, MAX_JAILS_AT_ONCE, JailSettings, Machine, Order
from jail.report.indicators import OwnWords, find_indicators
from jail.report.message import fallback_embed, render_embed
from jail.report.page import render_page
from jail.report.rows import render_text
from jail.report.rules import judge
from jail.report.verdict import Report, as_json, assemble
from jail.watch.asking import ask_ahead, jail_for
from jail.watch.dropped import Dropped
from jail.watch.earlier import EarlierRelease
from jail.watch.events import NotRun, Omission, Outcome, Phase, PhaseName
from jail.watch.evidence import Evidence
from jail.watch.known import acts_for_later, compare_findings, known_earlier
from jail.watch.ours import what_is_ours
from jail.watch.outlet import Outlet, complain, seen_by_nobody
from jail.watch.preparation import know_environment, prepare_run, take_order
from jail.watch.process import prepare_process
from jail.watch.ready import ReadyJail, make_fifo
from jail.watch.release import beside
from jail.watch.resources import Resources
from jail.watch.sample import keep_samples
from jail.watch.second_try import (
    available,
    missed_modules,
    notes_of_missed,
    tries_again,
    wanted,
)
from jail.watch.session import Session
from jail.watch.trial import lacks
from jail.watch.triggers import Trigger, installation, triggers, without_installation
from jail.watch.unmet import acts_not_run, project_of, waited_for
from jail.watch.upstream import Refused, file_hosts

# The user that this becomes may not be able to read our own standard library: what is loaded late,
# is loaded here.
for codec in ("ascii", "cp437", "idna", "latin-1", "punycode", "unicode_escape", "utf-16-le"):
    codecs.lookup(codec)


class Run:
    """One run on its way through its phases."""

    def __init__(self, resources: Resources, folder: Path, outlet: Outlet) -> None:
        self.resources = resources
        self.folder = folder  # the scratch
        self.outlet = outlet
        self.phases: list[Phase] = []
        self.not_run: list[NotRun] = []
        self.notes: list[str] = []
        self.is_interrupted = False
        self.has_tried_again = False
        self.missed: list[str] = []  # what it asked for and was not there
        self.first: list[Trigger] = []  # those before what it may miss is there
        self.ready_jail: ReadyJail | None = None
        self.earlier: EarlierRelease | None = None

    def go(self) -> None:
        """Install, then run what the mode asks for."""
        resources = self.resources
        order = resources.order
        install = self.phase(installation(order, resources.settings.run_timeout_sec))
        self.notes += beside(resources.release, resources.record.seen, resources.installed, order)
        # pip may end badly after all has landed: then it is there for a victim, too.
        has_landed = install.outcome is Outcome.FAILED and resources.installed.is_there
        if install.outcome is not Outcome.OK and not has_landed:
            self.not_run += without_installation(order)
            return
        if order.mode == "detonate":
            self.earlier = EarlierRelease(resources)
            self.earlier.begin()
        found, self.not_run = triggers(order, resources.installed, resources.settings)
        left = deque(found)
        self.first = [*takewhile(lambda trigger: not trigger.with_missed, found)]
        while left:
            trigger = left.popleft()
            if self.is_interrupted:
                return
            if self.is_over():
                self.leave_out(trigger)
                continue
            if trigger.with_missed and not self.has_tried_again:
                self.has_tried_again = True
                left.appendleft(trigger)
                left.extendleft(reversed(self.second_try()))
                continue
            following = left[0] if left else None
            # What comes in between is not known yet.
            if following and following.with_missed and not self.has_tried_again:
                following = None
            phase = self.phase(trigger, following)
            if phase.outcome is Outcome.TIMEOUT and self.is_over():
                self.leave_out(trigger)
            self.fall_short(phase)

    def fall_short(self, phase: Phase) -> None:
        """Say what of a phase there was no time for; of made-up calls a note will do."""
        if phase.shortfall and phase.name is PhaseName.CALL:
            self.notes.append(f"{phase.title}: {phase.shortfall}")
        elif phase.shortfall:
            missed = NotRun(phase.name, phase.trigger, Omission.LEFT_OUT, phase.shortfall)
            self.not_run.append(missed)

    def second_try(self) -> list[Trigger]:
        """What to run once more, with what the package asked for and missed."""
        resources = self.resources
        seen, order, settings = resources.record.seen, resources.order, resources.settings
        waited = waited_for(seen)
        missed = [*waited, *missed_modules(seen, resources.installed)]
        self.missed = [*dict.fromkeys(missed)]
        asked = wanted(self.missed, waited, settings)
        # The jail is made, and pip loaded, while the index is asked.
        ready = self.make_ready_jail() if asked else None
        found = available(asked, resources.upstream)
        if ready and not found:
            ready.cancel()
        self.ready_jail = ready if found else None
        is_waited = any(project_of(module) in found for module in waited)
        return tries_again(found, self.first, self.phases, order, settings, acts_wait=is_waited)

    def make_ready_jail(self) -> ReadyJail | None:
        """A jail that will install; None where the package has filled the disk."""
        try:
            path = make_fifo(self.folder)
        except OSError:
            return None
        return ReadyJail(self.resources, path)

    def news(self) -> dict[str, Any] | None:
        """What is new in this release; None where that was not asked for."""
        is_asked = self.earlier is not None and not self.is_interrupted
        return self.earlier.report() if self.earlier and is_asked else None

    def leave_out(self, trigger: Trigger) -> None:
        """Say that there was no time for it, or not enough."""
        reason = f"the run's {self.resources.settings.run_budget_sec} s were over (RUN_BUDGET_SEC)"
        left_out = NotRun(trigger.phase, trigger.title, Omission.OUT_OF_TIME, reason)
        self.not_run.append(left_out)

    def is_over(self) -> bool:
        """Whether the run's budget is spent."""
        is_out_of_jails = self.resources.jails.count >= MAX_JAILS - MAX_JAILS_AT_ONCE
        return time.monotonic() > self.resources.end_sec or is_out_of_jails

    def phase(self, trigger: Trigger, following: Trigger | None = None) -> Phase:
        """Run one trigger in a jail. The jail of what will follow is made meanwhile."""
        resources = self.resources
        then = partial(ask_ahead, resources, following) if following else None
        session = Session(resources, trigger, then)
        self.outlet.progress(session.phase.title)
        phase = session.run(partial(self.begin, trigger))
        self.phases.append(phase)
        self.is_interrupted = phase.outcome is Outcome.INTERRUPTED
        return phase

    def begin(self, trigger: Trigger) -> int:
        """The number of a jail that is about to begin."""
        ready, self.ready_jail = self.ready_jail, None
        return ready.install(trigger) if ready else jail_for(self.resources, trigger)


def watch(
    settings: JailSettings,
    order: Order,
    machine: Machine,
    scratch: Path,
    control: socket.socket,
    stream: socket.socket,
    *fds: int,
) -> None:
    """Do what `order` says, and write to `stream` how it went.

    Called without privileges; never raises.

    Args:
        scratch: the run's own file system, with the folders of orders.SCRATCH_FOLDERS.
        control: to the run keeper, who makes the jails.
        stream: to the service; shut down by it when the run is to stop.
        fds: the descriptor of a file in hand, if there is one.
    """
    outlet = Outlet(stream)
    threading.excepthook = lambda fault: complain(outlet, fault.exc_value)
    try:
        prepare_process()
        if order.task == "hosts":
            tell_hosts(settings, machine, outlet)
        else:
            triage(settings, order, machine, scratch, control, outlet, *fds)
        outlet.send("end")
    # Whatever it is: without the end, the service says that this run's report is lost.
    except Exception as fault:
        complain(outlet, fault)


def tell_hosts(settings: JailSettings, machine: Machine, outlet: Outlet) -> None:
    """Only ask the index from which hosts its files come."""
    outlet.send("report", b'{"phases": []}')
    outlet.send("embed", b'{"title": "hosts", "description": "", "fields": []}')
    try:
        hosts = file_hosts(machine.index_url, settings.index_file_hosts)
    except Refused as refused:
        reason = f"{refused}: look at PIP_INDEX_URL and the network; runs fail until it answers."
        outlet.summary(Outcome.ERROR, reason, "unseen")
        return
    outlet.send("text", "".join(f"{host}\n" for host in hosts).encode())
    outlet.summary(Outcome.OK, "", "unseen")


def triage(
    settings: JailSettings,
    order: Order,
    machine: Machine,
    folder: Path,
    control: socket.socket,
    outlet: Outlet,
    *fds: int,
) -> None:
    """Run the package and send the report."""
    stream = outlet.stream
    resources, trouble = prepare_run(settings, order, machine, folder, control, stream, fds, judge)
    run = Run(resources, folder, outlet)
    if order.task == "ready":
        run.ready_jail = ReadyJail(resources, make_fifo(folder))
        if not take_order(resources):
            return
    begun_sec = time.time()
    resources.end_sec = time.monotonic() + settings.run_budget_sec
    know_environment(resources)
    if not trouble:
        run.go()
    report = make_report(run, begun_sec, trouble)
    send_report(report, resources.evidence, resources.dropped, machine, outlet)
    # Whatever is in the way of that: the report is sent.
    fault = keep_samples(resources.record.seen, resources.given, report.verdict)
    if fault:
        complain(outlet, fault)
    resources.cache.trim()


def make_report(run: Run, begun_sec: float, trouble: str) -> Report:
    """The report of a run that is over.

    Args:
        begun_sec: when it began, in seconds since 1970.
        trouble: why it could not be run, "" if it could.
    """
    resources = run.resources
    settings, order, record = resources.settings, resources.order, resources.record
    has_tls = resources.world is not None and resources.world.authority is not None
    run.not_run += acts_not_run(record.seen, resources.installed)
    run.not_run += seen_by_nobody(run.outlet)
    report = assemble(
        order,
        settings,
        record,
        run.phases,
        kernel_witness=resources.machine.strace is not None,
        started_at_sec=begun_sec,
        finished_at_sec=resources.now_sec(),
        not_run=run.not_run,
        notes=[
            *notes_of_missed(run.missed, resources.installed),
            *lacks(settings, resources.machine, resources.reach, has_tls),
            *run.notes,
            *resources.given.notes,
        ],
        error=trouble,
        interrupted=run.is_interrupted,
        decoy_internet=resources.reach,
        changes=run.news(),
    )
    own = OwnWords(*what_is_ours(resources))
    report.lists["indicators"] = find_indicators(report.lists, order.package_name, own)
    if report.changes and report.changes["earlier"]:
        known = known_earlier(resources.inlet, report.changes["earlier"]["version"])
        findings = report.lists["findings"]
        report.changes.update(compare_findings(findings, known, order.version, own.wholes))
    return report


def send_report(
    report: Report, evidence: Evidence, dropped: Dropped, machine: Machine, outlet: Outlet
) -> None:
    """Send the report in all its shapes, first what programs read.

    A fault of ours in drawing it must cost the looks, not the report.
    """
    outlet.summary(report.outcome, report.reason, report.verdict)
    outlet.send("report", as_json(report))
    outlet.send("evidence", evidence.close())
    outlet.send("dropped", dropped.close(report.order))
    outlet.send("acts", acts_for_later(report.lists["findings"]))
    try:
        page, text = render_page(report), render_text(report)
        embed = render_embed(report, machine.index_url, machine.default_index)
    # Whatever it is: the report itself is sent already.
    except Exception as fault:
        complain(outlet, fault)
        outlet.send("embed", json.dumps(fallback_embed(report.order, report.outcome)).encode())
        return
    outlet.send("page", page)
    outlet.send("embed", json.dumps(embed).encode())
    outlet.send("text", text)
