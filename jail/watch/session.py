"""One jail, from the request to start it until all that it did is told: its pipes, its limits, how
it ended.

Hostile input: what the jail prints; the other kinds go to the rooms that read them.
"""

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from jail.orders import JAIL_FDS, MAX_PACKET_BYTES, STARTED, Answer, Kill, Start
from jail.watch.changes import Changes
from jail.watch.endings import end_phase
from jail.watch.events import MAX_EVENTS, BaitRead, Outcome, Phase, PhaseName, Printed, printable
from jail.watch.gateway import Gateway
from jail.watch.installed import read_installed, reader_of
from jail.watch.limits import full_disk, reached_limit, want_of_memory
from jail.watch.python_witness import PythonWitness
from jail.watch.resolver import Resolver
from jail.watch.resources import Journal, Resources
from jail.watch.story import Story
from jail.watch.triggers import SAMPLES, Trigger, variables

MAX_OUTPUT_BYTES = 1 << 20  # kept of each of stdout, stderr and nsjail's log
MAX_READS = 4  # of the Python witness for one of the kernel's
READ_BYTES = 1 << 16
POLL_SEC = 0.02  # how stale a look at the limits may be
MAX_DRAIN_SEC = 5.0  # what the pipes of an ended jail still hold is read for this long
MAX_LOG_CHARS = 1000  # shown of nsjail's log


class Output:
    """What was written to one of the jail's pipes: up to `max_bytes` of its start, and how much it
    was.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.kept = bytearray()
        self.size_bytes = 0

    def take(self, data: bytes) -> None:
        """Keep what there is room for."""
        self.size_bytes += len(data)
        self.kept += data[: self.max_bytes - len(self.kept)]

    def drop_start(self, size_bytes: int) -> None:
        """Forget the first bytes."""
        del self.kept[:size_bytes]
        self.size_bytes -= size_bytes

    def printed(self) -> Printed:
        """As the report has it."""
        text = self.kept.decode("utf-8", "replace")
        return Printed(text, self.size_bytes, self.size_bytes > len(self.kept))


class Session:
    """Runs one trigger in jail number `number` and fills `phase`."""

    def __init__(self, resources: Resources, number: int, trigger: Trigger) -> None:
        self.resources = resources
        self.number = number
        self.trigger = trigger
        self.phase = Phase(trigger.phase, trigger.title)
        self.journal = Journal(resources, self.phase)
        self.has_index = trigger.phase is PhaseName.INSTALL
        self.witness = PythonWitness(self.journal.tell)
        kind = trigger.launch[0]
        self.story = Story(kind, self.has_index, self.witness, resources.decoys, self.journal.tell)
        max_bytes = min(MAX_OUTPUT_BYTES, resources.left_output_bytes // 4) + len(STARTED)
        self.outputs = {name: Output(max_bytes) for name in ("stdout", "stderr", "log")}
        self.questions: dict[str, float] = {}
        self.takers: dict[int, Callable[[bytes], None]] = {}
        self.poll = select.poll()
        self.audit_fd = -1
        self.resolver: Resolver | None = None
        self.gateway: Gateway | None = None
        self.answer: Answer | None = None  # the last one: the jail has ended
        self.stopped: Outcome | None = None  # why we ended it
        self.begun_sec = time.monotonic()

    def run(self) -> Phase:
        """Start the jail, watch it to its end and tell what it did.

        Raises OSError when the run keeper is gone.
        """
        resources = self.resources
        resources.decoys.begin(self.journal.tell, self.journal.lose)
        self.expect_decoys()
        self.ask_for_jail()
        self.follow()
        self.phase.duration_sec = round(time.monotonic() - self.begun_sec, 3)
        # Before we read a file ourselves.
        sprung = resources.decoys.sprung()
        self.hear_python()
        if self.audit_fd >= 0:
            os.close(self.audit_fd)
        self.story.finish(dict(self.questions))
        for path in sprung:
            place = self.story.opened_at(path)
            reader = reader_of(place, resources.installed, resources.order)
            self.journal.tell(BaitRead(path, place, reader))
        self.tell_files()
        has_started = self.take_output()
        self.conclude(has_started)
        self.finish()
        return self.phase

    def expect_decoys(self) -> None:
        """We have touched the decoy files ourselves, wherever they lie by now: that is no change of
        the package's.
        """
        states, changed_ns = self.resources.states, self.resources.decoys.changed_ns()
        for path, state in states.items():
            if state.inode in changed_ns:
                states[path] = replace(state, changed_ns=changed_ns[state.inode])

    def ask_for_jail(self) -> None:
        """Ask the run keeper for a jail with this trigger's words and environment."""
        resources = self.resources
        environment = variables(resources.order, self.trigger)
        environment |= resources.decoys.environment(is_in_ci=self.trigger.is_in_ci)
        start = Start(self.number, self.trigger.launch, environment, self.has_index)
        resources.control.send(json.dumps(asdict(start)).encode())
        for fd in (resources.control.fileno(), resources.stream.fileno()):
            self.poll.register(fd, select.POLLIN)

    def follow(self) -> None:
        """Read all that the jail says until it has ended and its pipes are empty."""
        drained_sec = float("inf")
        while (self.takers or not self.answer) and time.monotonic() < drained_sec:
            for fd, _ in self.poll.poll(POLL_SEC * 1000):
                self.take(fd)
            self.hear_python()
            if self.answer:
                drained_sec = min(drained_sec, time.monotonic() + MAX_DRAIN_SEC)
            elif not self.stopped:
                self.look_at_limits()
        if self.resolver:
            self.resolver.close()
        if self.gateway:
            self.gateway.close()
        for fd in self.takers:
            os.close(fd)

    def take(self, fd: int) -> None:
        """Read what there is to read from one descriptor."""
        if fd == self.resources.control.fileno():
            self.take_answer()
        elif fd == self.resources.stream.fileno():
            # The service never sends: it has shut its side down, which says stop.
            self.poll.unregister(fd)
            self.stop(Outcome.INTERRUPTED, "the service was stopped during the run")
        elif fd != self.audit_fd:
            self.take_pipe(fd)

    def take_answer(self) -> None:
        """Take what the run keeper says: the jail is there, or it has ended."""
        control = self.resources.control
        packet, fds, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, len(JAIL_FDS) + 3)
        gone = Answer(self.number, True, error="the run keeper ended")
        answer = Answer(**json.loads(packet)) if packet else gone
        if answer.ended:
            self.answer = answer
            self.poll.unregister(control.fileno())
        else:
            self.connect(fds)

    def connect(self, fds: list[int]) -> None:
        """Take over a new jail's pipes and the far ends of its network."""
        pipes = dict(zip(JAIL_FDS, fds, strict=False))
        self.takers = {pipes[name]: output.take for name, output in self.outputs.items()}
        self.takers[pipes["trace"]] = self.take_trace
        self.audit_fd = pipes["audit"]
        os.set_blocking(self.audit_fd, False)
        for fd in (*self.takers, self.audit_fd):
            self.poll.register(fd, select.POLLIN)
        datagrams, listener, *index = [socket.socket(fileno=fd) for fd in fds[len(JAIL_FDS) :]]
        self.resolver = Resolver(datagrams, listener, self.note_question)
        self.resolver.start()
        if index:
            resources = self.resources
            denylist = resources.settings.package_denylist
            self.gateway = Gateway(
                resources.order,
                denylist,
                resources.upstream,
                resources.cache,
                self.search,
                self.journal.tell,
            )
            self.gateway.is_second = self.trigger.title is not None
            self.gateway.start(index[0])

    def take_pipe(self, fd: int) -> None:
        """Read from a pipe; at its end let go of it."""
        data = os.read(fd, READ_BYTES)
        if data:
            self.takers[fd](data)
            return
        self.poll.unregister(fd)
        del self.takers[fd]
        os.close(fd)

    def take_trace(self, data: bytes) -> None:
        """Python says what it will do before it does: hear that before what the kernel saw at the
        same time.
        """
        self.hear_python()
        self.story.take_trace(data)

    def hear_python(self) -> None:
        """Take what the audit hook has said."""
        if self.audit_fd < 0:
            return
        with contextlib.suppress(BlockingIOError):
            for _ in range(MAX_READS):
                self.witness.take(os.read(self.audit_fd, READ_BYTES))

    def note_question(self, name: str) -> None:
        """Keep when a name was first asked for, and look whether it carries bait."""
        self.search("DNS name", name[:200], name.replace(".", "").encode())
        if name in self.questions:
            return
        if len(self.questions) < MAX_EVENTS:
            self.questions[name] = self.resources.now_sec()
        else:
            self.journal.lose("NameAsked")

    def search(self, kind: str, where: str, data: bytes) -> bool:
        """Look for bait in what came from this jail's network."""
        return self.journal.is_open and self.resources.decoys.search(kind, where, data)

    def look_at_limits(self) -> None:
        """End the jail when it has used up one of its limits."""
        reached = reached_limit(self.resources, self.begun_sec, self.has_index)
        if reached:
            self.stop(*reached)

    def stop(self, outcome: Outcome, reason: str) -> None:
        """End the jail, and say why."""
        if not self.stopped:
            self.stopped, self.phase.reason = outcome, reason
            self.resources.control.send(json.dumps(asdict(Kill(self.number))).encode())

    def tell_files(self) -> None:
        """Tell what changed in the scratch, and what an installation has installed."""
        resources = self.resources
        before, after = resources.states, resources.scratch.snapshot()
        is_install = self.trigger.phase is PhaseName.INSTALL
        if is_install:
            resources.installed = read_installed(resources.scratch, after, resources.order)
        changes = Changes(
            resources.scratch,
            resources.order,
            resources.decoys,
            resources.installed,
            is_install,
            self.journal.tell,
            self.story.file_changed,
            SAMPLES if self.trigger.phase is PhaseName.CALL else None,
            is_install and self.trigger.title is not None,
        )
        changes.compare(before, after, self.stopped is not None)
        resources.states = after

    def take_output(self) -> bool:
        """Keep what was printed; whether the launcher said that it is there."""
        has_started = self.outputs["stdout"].kept.startswith(STARTED)
        if has_started:
            self.outputs["stdout"].drop_start(len(STARTED))
        for name in ("stdout", "stderr"):
            output = self.outputs[name]
            self.resources.left_output_bytes -= len(output.kept)
            self.resources.decoys.search("output on", name, bytes(output.kept))
            setattr(self.phase, name, output.printed())
        return has_started

    def conclude(self, has_started: bool) -> None:
        """Say how the phase ended."""
        phase, answer, resources = self.phase, self.answer, self.resources
        status = answer.status if answer else None
        is_python = self.trigger.launch[0] != "program"
        phase.python_witness = self.story.python_witness or not is_python
        if self.stopped:
            phase.outcome = self.stopped
        elif not has_started:
            log = printable(bytes(self.outputs["log"].kept[-MAX_LOG_CHARS:]))
            error = answer.error if answer else ""
            phase.reason = error or log or "the jail did not start"
        else:
            end_phase(phase, self.trigger, self.story.main_exit, status, resources.settings)
            if phase.outcome is Outcome.FAILED and resources.scratch.is_full():
                phase.outcome, phase.reason = full_disk(resources.settings)
        has_killed = bool(answer and answer.oom_kills > resources.oom_kills)
        if has_killed and phase.outcome in (Outcome.OK, Outcome.FAILED, Outcome.ERROR):
            phase.outcome, phase.reason = want_of_memory(resources.settings)
        resources.oom_kills = max(resources.oom_kills, answer.oom_kills if answer else 0)

    def finish(self) -> None:
        """Count what was lost, and write what the evidence has beside the events."""
        resources = self.resources
        self.journal.lose("line of the evidence", resources.evidence.take_lost())
        for lost in (self.story.lost, resources.scratch.lost):
            for kind, count in lost.items():
                self.journal.lose(kind, count)
        self.journal.close()
        at_sec = resources.now_sec()
        for name, printed in (("stdout", self.phase.stdout), ("stderr", self.phase.stderr)):
            resources.evidence.keep_output(self.phase, at_sec, name, printed)
        resources.evidence.keep_end(self.phase, at_sec, dict(self.journal.lost))
