"""The watch of one run: its phases one after the other, its budget, and the stream of its report to
the service.

It runs without privileges, forked from the run keeper. All bytes that a package made are read here
and in the rooms that this one imports, and nowhere else.
"""

import codecs
import contextlib
import ctypes
import gc
import json
import shutil
import socket
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from jail.orders import MAX_JAILS, PROGRAMS, JailSettings, Machine, Order
from jail.report.message import fallback_embed, render_embed
from jail.report.page import render_page
from jail.report.rows import render_text
from jail.report.rules import judge
from jail.report.verdict import Report, as_json, assemble
from jail.watch.decoys import Decoys
from jail.watch.dropped import Dropped
from jail.watch.earlier import EarlierRelease
from jail.watch.events import NotRun, Omission, Outcome, Phase, PhaseName
from jail.watch.evidence import Evidence
from jail.watch.payload import Search
from jail.watch.ready import WaitingJail, await_order
from jail.watch.record import Record
from jail.watch.resources import Resources
from jail.watch.scratch import Scratch
from jail.watch.second_try import available, missed_modules, second_installation
from jail.watch.served import SecondStages
from jail.watch.session import Session
from jail.watch.trial import lacks
from jail.watch.triggers import Trigger, installation, triggers, variables, without_installation
from jail.watch.upstream import PackageCache, Refused, Upstream, file_hosts
from jail.watch.world import make_world

MAX_PROGRESS_FRAMES = 500
MAX_PROGRESS_BYTES = 300
MAX_COMPLAINT_BYTES = 4000
M_ARENA_MAX = -8  # an option of mallopt
STACK_BYTES = 1 << 20
SWITCH_SEC = 0.0005

# The user that this becomes may not be able to read our own standard library: what is loaded late,
# is loaded here.
for codec in ("ascii", "cp437", "idna", "latin-1", "unicode_escape", "utf-16-le"):
    codecs.lookup(codec)


class Outlet:
    """The one way out: frames on the stream to the service, `b"<name> <length>\\n"` and that many
    bytes.
    """

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.lock = threading.Lock()
        self.left_progress = MAX_PROGRESS_FRAMES

    def send(self, name: str, data: bytes = b"") -> None:
        """Send a frame. Raises OSError when the service is gone."""
        with self.lock:
            self.stream.sendall(f"{name} {len(data)}\n".encode() + data)

    def progress(self, text: str) -> None:
        """Say what is about to start."""
        self.left_progress -= 1
        if self.left_progress >= 0:
            self.send("progress", text.encode()[:MAX_PROGRESS_BYTES])

    def summary(self, outcome: str, reason: str, verdict: str) -> None:
        """Say how the run went."""
        self.send(
            "summary",
            json.dumps({"outcome": outcome, "reason": reason, "verdict": verdict}).encode(),
        )


class Run:
    """One run on its way through its phases."""

    def __init__(self, resources: Resources, outlet: Outlet) -> None:
        self.resources = resources
        self.outlet = outlet
        self.phases: list[Phase] = []
        self.not_run: list[NotRun] = []
        self.notes: list[str] = []
        self.is_interrupted = False
        self.has_tried_again = False
        self.waiting: WaitingJail | None = None
        self.earlier: EarlierRelease | None = None

    def go(self) -> None:
        """Install, then run what the mode asks for."""
        resources = self.resources
        order = resources.order
        install = self.phase(installation(order, resources.settings.run_timeout_sec))
        # pip may end badly after all has landed: then it is there for a victim, too.
        has_landed = install.outcome is Outcome.FAILED and resources.installed.is_there
        if install.outcome is not Outcome.OK and not has_landed:
            self.not_run += without_installation(order)
            return
        if order.mode == "detonate":
            self.earlier = EarlierRelease(resources)
            self.earlier.begin()
        found, self.not_run = triggers(order, resources.installed, resources.settings)
        waiting = deque(found)
        while waiting:
            trigger = waiting.popleft()
            if self.is_interrupted:
                return
            if self.is_over():
                self.leave_out(trigger)
                continue
            if trigger.with_missed and not self.has_tried_again:
                self.has_tried_again = True
                waiting.appendleft(trigger)
                waiting.extendleft(self.second_try())
                continue
            phase = self.phase(trigger)
            if phase.outcome is Outcome.TIMEOUT and self.is_over():
                self.leave_out(trigger)
            self.fall_short(phase)

    def fall_short(self, phase: Phase) -> None:
        """Say what of a phase there was no time for: of calls with made-up arguments a note will
        do.
        """
        if not phase.shortfall:
            return
        if phase.name is PhaseName.CALL:
            self.notes.append(f"{phase.title}: {phase.shortfall}")
        else:
            item = NotRun(phase.name, phase.trigger, Omission.LEFT_OUT, phase.shortfall)
            self.not_run.append(item)

    def second_try(self) -> list[Trigger]:
        """pip once more, for the modules that the package asked for and missed, if the index has
        them: what is imported later finds them.
        """
        resources = self.resources
        missed = missed_modules(resources.record.seen, resources.installed)
        found, notes = available(missed, resources.upstream, resources.settings)
        self.notes += notes
        return [second_installation(resources.order, resources.settings, found)] if found else []

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
        return time.monotonic() > self.resources.end_sec or len(self.phases) >= MAX_JAILS

    def phase(self, trigger: Trigger) -> Phase:
        """Run one trigger in a jail."""
        waiting, self.waiting = self.waiting, None
        session = waiting.session if waiting else Session(self.resources, len(self.phases), trigger)
        self.outlet.progress(session.phase.title)
        phase = session.run(waiting.install if waiting else None)
        self.phases.append(phase)
        self.is_interrupted = phase.outcome is Outcome.INTERRUPTED
        return phase


def watch(
    settings: JailSettings,
    order: Order,
    machine: Machine,
    scratch: Path,
    control: socket.socket,
    stream: socket.socket,
) -> None:
    """Do what `order` says, and write to `stream` how it went.

    Called without privileges; never raises.

    Args:
        scratch: the run's own file system, with the folders of orders.SCRATCH_FOLDERS.
        control: to the run keeper, who makes the jails.
        stream: to the service; shut down by it when the run is to stop.
    """
    outlet = Outlet(stream)
    threading.excepthook = lambda fault: complain(outlet, fault.exc_value)
    try:
        prepare_process()
        if order.task == "hosts":
            tell_hosts(settings, machine, outlet)
        else:
            triage(settings, order, machine, scratch, control, outlet)
        outlet.send("end")
    except Exception as fault:
        complain(outlet, fault)


def prepare_process() -> None:
    """Make the threads of a gateway fit into what memory a watch may have, and take turns often."""
    threading.stack_size(STACK_BYTES)
    # What keeper has loaded stays shared with it: the collector would write to each page of it.
    gc.freeze()
    # Else each thread has 64 MiB of addresses for its own allocations.
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    # Else each connection waits for the thread that reads the witnesses.
    sys.setswitchinterval(SWITCH_SEC)


def complain(outlet: Outlet, fault: BaseException | None) -> None:
    """Tell the service of a fault of ours, for its log."""
    words = "".join(traceback.format_exception(fault)).encode(errors="replace")
    # The service may be gone, too.
    with contextlib.suppress(OSError):
        outlet.send("complaint", words[-MAX_COMPLAINT_BYTES:])


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
) -> None:
    """Run the package and send the report."""
    evidence = Evidence()
    resources = Resources(
        settings=settings,
        order=order,
        machine=machine,
        control=control,
        stream=outlet.stream,
        scratch=Scratch(folder, settings.max_disk_bytes),
        decoys=Decoys(folder / "home"),
        record=Record(judge, evidence.keep),
        evidence=evidence,
        upstream=Upstream(machine.index_url, settings.max_download_bytes),
        cache=PackageCache(Path(machine.cache)),
    )
    if settings.decoy_internet:
        openssl = shutil.which("openssl", path=PROGRAMS)
        resources.world = make_world(openssl, resources.decoys.values, {})
        resources.stages = SecondStages(resources.world.marks)
        for name, data in resources.world.trust_files().items():
            (folder / "certificates" / name).write_bytes(data)
    learn_hosts(resources)
    resources.states = resources.scratch.snapshot()
    run = Run(resources, outlet)
    if order.task == "ready":
        run.waiting = WaitingJail(resources, folder)
        found = await_order(outlet.stream, order)
        if found is None:
            return
        resources.order = order = found
        # The index may have come back.
        if resources.upstream.failure:
            learn_hosts(resources)
    begun_sec = time.time()
    resources.end_sec = time.monotonic() + settings.run_budget_sec
    if resources.world:
        start = Trigger(PhaseName.START, None, ("start",))
        environment = variables(order, start) | resources.decoys.variables
        resources.world.search = Search(resources.decoys.values, environment)
    run.go()
    has_tls = resources.world is not None and resources.world.authority is not None
    report = assemble(
        order,
        settings,
        resources.record,
        run.phases,
        kernel_witness=machine.strace is not None,
        started_at_sec=begun_sec,
        finished_at_sec=resources.now_sec(),
        not_run=run.not_run,
        notes=[*lacks(settings, machine, resources.reach, has_tls), *run.notes],
        interrupted=run.is_interrupted,
        decoy_internet=resources.reach,
        changes=run.news(),
    )
    send_report(report, evidence, resources.dropped, machine, outlet)
    resources.cache.trim()


def learn_hosts(resources: Resources) -> None:
    """Ask the index from which hosts files may come, while the first jail is being made."""
    configured = resources.settings.index_file_hosts
    resources.upstream.ready.clear()
    ask = threading.Thread(target=resources.upstream.learn_hosts, args=(configured,), daemon=True)
    ask.start()


def send_report(
    report: Report, evidence: Evidence, dropped: Dropped, machine: Machine, outlet: Outlet
) -> None:
    """Send the report in all its shapes, the one for programs first.

    A fault of ours in drawing it must cost the looks, not the report.
    """
    outlet.summary(report.outcome, report.reason, report.verdict)
    outlet.send("report", as_json(report))
    outlet.send("evidence", evidence.close())
    outlet.send("dropped", dropped.close(report.order))
    try:
        page, text = render_page(report), render_text(report)
        embed = render_embed(report, machine.index_url, machine.default_index)
    except Exception as fault:
        complain(outlet, fault)
        outlet.send("embed", json.dumps(fallback_embed(report.order, report.outcome)).encode())
        return
    outlet.send("page", page)
    outlet.send("embed", json.dumps(embed).encode())
    outlet.send("text", text)
