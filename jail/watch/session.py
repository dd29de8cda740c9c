"""One jail, from its turn until all that it did is told: its pipes, its limits, how it ended.

Hostile input: what the jail prints; the other kinds go to the rooms that read them.
"""

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from jail.orders import JAIL_FDS, SCRATCH_FOLDERS, STARTED, Answer
from jail.watch.asking import ask_for_jail
from jail.watch.attempts import READ_BY_ALL
from jail.watch.captures import Captures
from jail.watch.changes import Changes
from jail.watch.endings import end_phase
from jail.watch.events import BaitRead, Outcome, Phase, PhaseName, printable
from jail.watch.installed import reader_of
from jail.watch.jails import FILL, MAX_LAST_READS, READ_BYTES, said_on
from jail.watch.late import at_latest
from jail.watch.limits import count_oom_kills, full_disk, reached_limit, want_of_memory
from jail.watch.output import Output
from jail.watch.outside import Outside
from jail.watch.python_witness import PythonWitness
from jail.watch.resources import Journal, Resources
from jail.watch.started import Starts
from jail.watch.story import Story
from jail.watch.taken_places import all_taken
from jail.watch.triggers import SAMPLES, Trigger
from jail.watch.unpacked import read_landed

MAX_OUTPUT_BYTES = 1 << 20  # kept of each of stdout, stderr and nsjail's log
MAX_READS = 4  # of the Python witness for each read of the kernel's
TRACE_PIPE_BYTES = 16 << 10
POLL_SEC = 0.02  # how stale a look at the limits may be
MAX_DRAIN_SEC = 5.0  # what the pipes of an ended jail still hold is read for this long
MAX_LOG_CHARS = 1000  # shown of nsjail's log


class Session:
    """Runs one trigger in a jail and fills `phase`.

    `then` is called when the jail has begun: the next can be made while it is at work. `again` is
    the phase of a jail that waited, and never began.
    """

    def __init__(
        self,
        resources: Resources,
        trigger: Trigger,
        then: Callable[[], object] | None = None,
        again: Phase | None = None,
    ) -> None:
        self.resources = resources
        self.number = -1  # of the jail
        self.trigger = trigger
        self.then = then
        self.phase = again or Phase(trigger.phase, trigger.title)
        self.may_be_made_anew = again is None and resources.jails.following is not None
        self.journal = Journal(resources, self.phase)
        self.has_index = trigger.phase is PhaseName.INSTALL
        self.witness = PythonWitness(self.journal.tell, resources.machine.base)
        self.witness.attempts.know_home(resources.decoys.paths, resources.scratch.lived_in)
        kind = trigger.launch[0]
        self.story = Story(kind, self.has_index, self.witness, resources.decoys, self.journal.tell)
        if trigger.phase is PhaseName.CALL:
            # Our own worker has put there what is deleted.
            self.story.passed_over = (f"{SCRATCH_FOLDERS['tmp']}/{SAMPLES}/",)
        max_bytes = min(MAX_OUTPUT_BYTES, resources.left_output_bytes // 4) + len(STARTED)
        self.outputs = {name: Output(max_bytes) for name in ("stdout", "stderr", "log")}
        self.takers: dict[int, Callable[[bytes], None]] = {}
        self.poll = select.poll()
        self.audit_fd = -1
        self.outside: Outside | None = None
        self.starts: Starts | None = None
        self.captures: Captures | None = None
        self.answer: Answer | None = None  # the last answer: the jail has ended
        self.stopped: Outcome | None = None  # why we ended it
        self.begun_sec = time.monotonic()

    def run(self, begin: Callable[[], int]) -> Phase:
        """Let a jail begin, watch it to its end and tell what it did.

        Args:
            begin: asks for the jail, or takes the one that waits, and gives its number.

        Raises OSError when the run keeper is gone.
        """
        resources = self.resources
        resources.decoys.begin(self.journal.tell, self.journal.lose)
        self.expect_decoys()
        self.begun_sec = time.monotonic()
        self.timer = at_latest(resources, self.look_at_limits)
        for fd in (resources.jails.control.fileno(), resources.inlet.stream.fileno()):
            self.poll.register(fd, select.POLLIN)
        self.number = begin()
        self.take_answers()
        self.follow()
        self.phase.duration_sec = round(time.monotonic() - self.begun_sec, 3)
        # Before we read a file ourselves.
        sprung = resources.decoys.sprung()
        self.read_audit(MAX_LAST_READS)
        if self.audit_fd >= 0:
            os.close(self.audit_fd)
        self.story.finish(dict(self.outside.questions) if self.outside else {})
        for path in sprung:
            place = self.story.opened_at(path)
            if path in READ_BY_ALL and not place:
                continue
            reader = reader_of(place, resources.installed, resources.order)
            self.journal.tell(BaitRead(path, place, reader))
        self.tell_files()
        if self.outside:
            self.outside.tell(self.story.named)
        has_started = self.take_output()
        if has_started or self.stopped or self.story.tree.main or not self.may_be_made_anew:
            self.conclude(has_started)
            self.finish()
            return self.phase
        # The package that was at work while it was made may have left it no memory, or no process.
        self.journal.close()
        anew = Session(resources, self.trigger, self.then, self.phase)
        return anew.run(partial(ask_for_jail, resources, self.trigger))

    def expect_decoys(self) -> None:
        """We have touched the decoy files ourselves, wherever they lie by now: that is no change of
        the package's.
        """
        states, changed_ns = self.resources.states, self.resources.decoys.changed_ns()
        for path, state in states.items():
            if state.inode in changed_ns:
                states[path] = replace(state, changed_ns=changed_ns[state.inode])

    def follow(self) -> None:
        """Read all that the jail says until it has ended and its pipes are empty."""
        drained_sec = float("inf")
        while (self.takers or not self.answer) and time.monotonic() < drained_sec:
            for fd, _ in self.poll.poll(POLL_SEC * 1000):
                self.take(fd)
            self.read_audit()
            if self.answer:
                drained_sec = min(drained_sec, time.monotonic() + MAX_DRAIN_SEC)
            elif not self.stopped:
                self.look_at_limits()
        if self.outside:
            self.outside.close()
        if self.starts:
            self.starts.close()
        for fd in self.takers:
            os.close(fd)

    def take(self, fd: int) -> None:
        """Read what there is to read from one descriptor."""
        jails = self.resources.jails
        if fd == jails.control.fileno():
            jails.receive()
            self.take_answers()
        elif fd == self.resources.inlet.stream.fileno():
            if self.resources.inlet.take():
                return
            # It has shut its side down, which says stop.
            self.poll.unregister(fd)
            self.stop(Outcome.INTERRUPTED, "the service was stopped during the run")
        elif fd != self.audit_fd:
            self.take_pipe(fd)

    def take_answers(self) -> None:
        """Take what the run keeper has said of this jail by now."""
        for answer, fds in self.resources.jails.known(self.number):
            self.take_answer(answer, fds)

    def take_answer(self, answer: Answer, fds: list[int]) -> None:
        """Take what the run keeper says: the jail is there, or it has ended."""
        if answer.ended:
            self.answer = answer
            self.timer.cancel()
            self.poll.unregister(self.resources.jails.control.fileno())
        elif len(fds) == 1:
            self.starts = Starts(fds[0])
            self.story.look = self.starts.look
            self.captures = Captures(fds[0], os.fstat(self.resources.scratch.fd).st_dev)
        else:
            self.connect(fds)

    def connect(self, fds: list[int]) -> None:
        """Take over a new jail's pipes and the far ends of its network."""
        pipes = dict(zip(JAIL_FDS, fds, strict=False))
        self.takers = {pipes[name]: output.take for name, output in self.outputs.items()}
        self.takers[pipes["stdout"]] = self.take_stdout
        self.takers[pipes["trace"]] = self.take_trace
        self.audit_fd = pipes["audit"]
        os.set_blocking(self.audit_fd, False)
        # strace waits for us, rather than that we lag behind it. A jail that has waited may have
        # written more than that.
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipes["trace"], fcntl.F_SETPIPE_SZ, TRACE_PIPE_BYTES)
        for fd in (*self.takers, self.audit_fd):
            self.poll.register(fd, select.POLLIN)
        is_second = self.trigger.title is not None
        self.outside = Outside(self.resources, self.journal, fds[len(JAIL_FDS) :], is_second)
        if self.resources.world:
            self.story.reaches.name_of = self.resources.world.names.name_of

    def take_pipe(self, fd: int) -> None:
        """Read from a pipe; at its end let go of it."""
        data = os.read(fd, READ_BYTES)
        if data:
            self.takers[fd](data)
            return
        self.poll.unregister(fd)
        del self.takers[fd]
        os.close(fd)

    def take_stdout(self, data: bytes) -> None:
        """Keep what is printed, and see the jail begin."""
        output = self.outputs["stdout"]
        # What is in front of the launcher's first line is what it has waited with.
        output.take(data if output.kept else data.lstrip(FILL))
        if output.kept and self.then:
            self.then()
            self.then = None

    def take_trace(self, data: bytes) -> None:
        """Python says what it will do before it does: hear that before what the kernel saw at the
        same time.
        """
        calls = self.story.read_trace(data)
        if self.captures:
            self.captures.take(calls)
        self.read_audit()
        self.story.take(calls)

    def read_audit(self, most_reads: int = MAX_READS) -> None:
        """Take what the audit hook has said."""
        if self.audit_fd < 0:
            return
        for data in said_on(self.audit_fd, most_reads):
            self.witness.take(data)

    def look_at_limits(self) -> None:
        """End the jail when it has used up one of its limits."""
        reached = reached_limit(self.resources, self.begun_sec, self.has_index)
        if reached:
            self.stop(*reached)

    def stop(self, outcome: Outcome, reason: str) -> None:
        """End the jail, and say why."""
        if not self.stopped:
            self.stopped, self.phase.reason = outcome, reason
            self.resources.jails.kill(self.number)

    def tell_files(self) -> None:
        """Tell what changed in the scratch, and what an installation has installed."""
        resources = self.resources
        before, after = resources.states, resources.scratch.snapshot()
        is_install = self.trigger.phase is PhaseName.INSTALL
        if is_install:
            is_whole = not self.stopped and self.story.main_exit == (0, None)
            resources.installed = read_landed(resources, after, is_whole)
            for taken in all_taken(resources.installed, f"{resources.order.site}/"):
                self.journal.tell(taken)
        changes = Changes(
            resources.scratch,
            resources.order,
            resources.decoys,
            resources.installed,
            is_install,
            self.journal.tell,
            self.story.file_changed,
            resources.stages,
            SAMPLES if self.trigger.phase is PhaseName.CALL else None,
            is_install and self.trigger.title is not None,
        )
        _, signal = self.story.main_exit or (None, None)
        changes.compare(before, after, self.stopped is not None or signal is not None)
        gone = self.captures.gone(after.values()) if self.captures else []
        resources.dropped.take(self.phase, [*gone, *changes.drops])
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
        # What is not Python has no such witness.
        phase.python_witness = self.story.python_witness or self.trigger.launch[0] == "program"
        if self.stopped:
            phase.outcome = self.stopped
        elif not has_started:
            log = printable(bytes(self.outputs["log"].kept[-MAX_LOG_CHARS:]))
            phase.reason = (answer.error if answer else "") or log or "the jail did not start"
        else:
            ended = self.story.main_exit
            told = self.story.signals, self.witness.came_to_end
            end_phase(phase, self.trigger, ended, status, resources.settings, *told)
            if phase.outcome is Outcome.FAILED and resources.scratch.is_full():
                phase.outcome, phase.reason = full_disk(resources.settings)
        oom_kills = count_oom_kills(resources.machine.cgroups, resources.cgroup_id)
        may_be_memory = phase.outcome in (Outcome.OK, Outcome.FAILED, Outcome.ERROR)
        if oom_kills > resources.oom_kills and may_be_memory:
            phase.outcome, phase.reason = want_of_memory(resources.settings)
        resources.oom_kills = oom_kills
        if self.outside:
            self.outside.tell_release(phase, self.journal.tell)

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
