"""The story of one jail: what the kernel saw, with who did it and what Python should have said of
it.

The trace names a program or an address as strace read it, just before the kernel did: a second
thread can have changed it in between. So a program is looked at when it was started (started.py),
nothing is passed over by its name alone, and a result that the name can't have is told by itself.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from jail.watch.calls import (
    Call,
    Delete,
    End,
    Execute,
    FirstCallUnseen,
    LookInto,
    Observed,
    Reach,
    Sleep,
    Socket,
)
from jail.watch.events import (
    Actor,
    Change,
    Exec,
    FileChanged,
    LeftAtWork,
    ProcessEnded,
    WitnessTampered,
    printable,
)
from jail.watch.ledger import Bait, Ledger, Tell
from jail.watch.names import Questions
from jail.watch.peers import Named
from jail.watch.processes import Process, ProcessTree
from jail.watch.programs import (
    JAIL_PYTHON,
    OWN_PROGRAM,
    found_program,
    is_missing,
    is_pip_again,
    is_pool_helper,
    is_system_look,
    keeps_hook,
    program_name,
    program_words,
)
from jail.watch.python_witness import MAX_TWIN_CHARS, PythonWitness, Said
from jail.watch.reaches import Reaches
from jail.watch.trace import TraceReader
from jail.watch.unchecked import Unchecked

MAX_COMMAND_BYTES = 64 << 10  # of one command
MAX_TOLD_CHARS = 1000  # of a command that is told beside another
# What a program may do first and unseen, by its numbers on x86-64 and on arm64: to end, and what
# the C library does at the start of each program. None is the number of a traced call on the other.
HARMLESS_FIRST = {231, 94} | {273, 99}  # exit_group, set_robust_list


class Story:
    """Reads the trace of one jail and tells its events, each with the process and the place that it
    came from.

    Args:
        launch_kind: the first word for launch.py; what pip itself does is expected.
        index: whether the jail has the index on its loopback.
        account: what Python says; feed it before the trace of the same time.
        bait: where values of decoys are searched for.
        tell: takes the events.
        look: what a program is found to be that has just been started; None where it is gone.
            Without it the trace is believed.
    """

    def __init__(
        self,
        launch_kind: str,
        index: bool,
        account: PythonWitness,
        bait: Bait,
        tell: Tell,
        look: Callable[[Execute], Observed | None] | None = None,
    ) -> None:
        self.is_pip = launch_kind == "pip"
        self.account, self.bait, self.tell = account, bait, tell
        self.ledger = Ledger(account, tell)
        self.reaches = Reaches(self.ledger, bait, index)
        self.look = look
        self.passed_over: tuple[str, ...] = ()  # folders in which a deleted file is no news
        self.unchecked = Unchecked()
        self.reader = TraceReader()
        self.tree = ProcessTree(JAIL_PYTHON.encode())
        self.lost: Counter[str] = Counter()  # by kind, for Record.lose; whole after finish()
        self.main_argv: tuple[str, ...] | None = None  # as it was meant to be

    @property
    def started(self) -> bool:
        """Whether the kernel saw the launcher start."""
        return self.tree.launcher is not None

    @property
    def named(self) -> Named:
        """The far ends that calls named; whole only after finish(), where the trace is.

        The launcher is the last to end in its jail. Where its end is not told, strace was ended
        first, or was not read to its end.
        """
        named, launcher = self.reaches.named, self.tree.launcher
        if not launcher or (launcher.exit_code is None and launcher.signal is None):
            named.is_whole = False
        return named

    @property
    def main_exit(self) -> tuple[int | None, str | None] | None:
        """How the launcher's child, which runs the phase, ended: (exit code, None) or (None,
        signal's name).

        None while it runs, and where the trace ends before it does.
        """
        main = self.tree.main
        if not main or (main.exit_code is None and main.signal is None):
            return None
        return main.exit_code, main.signal

    @property
    def signals(self) -> set[str]:
        """By which the processes of the jail were ended that have ended."""
        return {process.signal for process in self.tree.ended if process.signal}

    @property
    def python_witness(self) -> bool:
        """Whether the hook spoke in the launcher's child; without a trace, in any."""
        if self.tree.main:
            return self.tree.main.jail_pid in self.account.started
        return bool(self.account.started)

    def take_trace(self, data: bytes) -> None:
        """Some bytes of strace's output."""
        self.take(self.read_trace(data))

    def read_trace(self, data: bytes) -> list[Call]:
        """The calls in some bytes of strace's output, for `take`: programs that were started are
        looked at before anything else is done, since they are held for a moment only.
        """
        calls = self.reader.take(data)
        for call in calls:
            if isinstance(call, Execute) and call.error is None and self.look:
                call.started = self.look(call)
        return calls

    def take(self, calls: list[Call]) -> None:
        """Tell what calls come to."""
        for call in calls:
            for process, assigned in self.tree.assign(call):
                self.act(process, assigned)

    def act(self, process: Process, call: Call) -> None:
        self.unchecked.take(process, call)
        match call:
            case Reach():
                self.reaches.reach(process, call)
            case Execute():
                self.execute(process, call)
            case Socket():
                self.reaches.make(call)
            case Delete():
                self.delete(process, call)
            case Sleep() | LookInto() if not process.own:
                self.ledger.tell_remark(process, call)
            case End():
                self.give_up(process)
                self.ledger.tell_failures(process)
                self.tell_silence(process, call)
            case FirstCallUnseen() if call.number not in HARMLESS_FIRST:
                what = f"the first call of {process.title}, number {call.number}, was not shown"
                self.ledger.tell_contradiction(process, what)

    def execute(self, process: Process, call: Execute) -> None:
        if process.failed and process.failed.argv != call.argv:
            self.give_up(process)
        program = program_name(call)
        if call.error:
            # PATH is searched: it may be found in the next folder.
            process.failed = process.failed or call
            self.ledger.count_failure(process, program, call.error)
            return
        process.failed = None
        if call.is_unread or is_missing(program):
            self.ledger.tell_contradiction(
                process, f"{program}, which can't be started, was started"
            )
        started = call.started
        # In the memory of what is our own nobody else has a hand, nor in that of a child of the
        # launcher at its first program, which changes its own words soon.
        is_launched = process.fresh and process.parent is self.tree.launcher
        is_ours = process.own or is_launched
        if self.look and not is_ours and not (started and started.in_time):
            self.unchecked.note(process, program, started)
        words = program_words(call, program)
        if started and program == OWN_PROGRAM:
            program = found_program(started) or program
        if started is None or is_launched or (started.is_as_told and started.program):
            self.become(process, call, program, words)
            return
        found = replace(call, argv=started.argv)
        actual = found_program(started) or program
        true_words = program_words(found, actual)
        if started.is_as_told:
            # Of a script these are the interpreter's.
            self.become(process, call, program, true_words)
        elif started.in_time:
            true_line = " ".join((actual, *true_words[1:]))[:MAX_TOLD_CHARS]
            self.ledger.tell_contradiction(
                process, f"{program} was to be started, and {true_line} was"
            )
            self.become(process, found, actual, true_words)
        else:
            # It may have become another since, which the trace tells in its turn.
            self.become(process, call, program, words)
            self.tell_exec(process, found, actual, true_words)

    def become(self, process: Process, call: Execute, program: str, argv: tuple[str, ...]) -> None:
        """Tell a program that was started.

        What pip starts is the package's, a build backend or git say, unless it is pip once more
        or looks at the system. Descent and the first program decide, by the kernel's account: a
        package can neither claim to be pip nor turn into it.
        """
        self.tell_exec(process, call, program, argv)
        if process.fresh and process.own:
            is_pips = is_pip_again(program, argv) or is_system_look(program, process.program)
            # The launcher runs nothing but pip here, if need be more than once.
            process.own = self.is_pip and (process.parent is self.tree.launcher or is_pips)
        if process.fresh and process is self.tree.main:
            self.main_argv = argv
        process.program, process.argv, process.fresh = program, argv, False

    def give_up(self, process: Process) -> None:
        """Tell the program that a process could not become."""
        failed, process.failed = process.failed, None
        if failed:
            program = program_name(failed)
            self.tell_exec(process, failed, program, program_words(failed, program))

    def tell_exec(
        self, process: Process, call: Execute, program: str, argv: tuple[str, ...]
    ) -> None:
        if call.is_cut:
            self.ledger.tell_cut(process, "exec")
        line = b" ".join(call.argv)
        # As a list, or as the string that a shell gets for its last word.
        twins = {text[:MAX_TWIN_CHARS].decode("latin-1") for text in (line, *call.argv[-1:])}
        place = self.account.place(Said.SPAWN, process.family, twins)
        is_helper = is_pool_helper(program, argv)
        actor = self.ledger.actor(process, place, expected=not is_helper)
        event = Exec(program, argv, call.error, actor, is_helper)
        # Pools start their workers past the hook. A worker with a hook of its own says all.
        is_new = not call.error and process.jail_pid not in self.account.pids
        if actor.hidden and is_new and keeps_hook(program, argv):
            process.unsaid = event
            event = replace(event, actor=replace(actor, hidden=False))
        self.ledger.tell_once((Exec, process.number, program, argv, call.error), process, event)
        title = " ".join(argv)
        self.bait.search(
            "command",
            title[:200],
            line[:MAX_COMMAND_BYTES],
            Actor(process.pid, title[:300], place, process.own),
        )

    def tell_silence(self, process: Process, end: End) -> None:
        """Tell of a Python that was started unsaid, if it came to its own end and never spoke."""
        event, process.unsaid = process.unsaid, None
        if event and end.exit_code is not None and process.jail_pid not in self.account.started:
            self.ledger.tell_once((Exec, process.number, "silent"), process, event)

    def delete(self, process: Process, call: Delete) -> None:
        path = os.path.join(call.folder, call.name)  # noqa: PTH118 - they are bytes
        plain = printable(os.path.normpath(path).replace(b"//", b"/"))
        # pip tidies up. A path that leads back may come by a link, and only looks like pip's.
        is_pips = plain.startswith("/tmp/pip-") and b".." not in path  # noqa: S108
        is_tidying = (self.is_pip and is_pips) or plain.startswith(self.passed_over)
        if not process.own and not is_tidying:
            actor = self.ledger.actor(process, None, expected=False)
            self.file_changed(FileChanged(plain, Change.DELETED, None, None, actor))

    def file_changed(self, event: FileChanged) -> None:
        """Tell a change of a file, once, with the place where Python says it opened it."""
        self.ledger.tell_file(event)

    def opened_at(self, path: str) -> str | None:
        """Where Python says that it opened `path`, as the jail names it: for BaitRead, say."""
        return self.account.place(Said.OPEN, [0], [path])

    def finish(self, questions: Mapping[str, Questions]) -> None:
        """Tell what is known only at the end: names asked for, processes, source cut off, a false
        Python witness.

        Args:
            questions: each name that the resolver was asked for.
        """
        self.take(self.reader.finish())
        for process, assigned in self.tree.settle_all():
            self.act(process, assigned)
        for process in [*self.tree.alive.values()]:
            self.give_up(process)
            self.ledger.tell_failures(process)
        self.reaches.tell_names(questions)
        self.account.finish()
        self.tell_processes()
        self.tell_tampering()
        self.lost += self.account.lost + self.tree.lost

    def tell_processes(self) -> None:
        for process in self.tree.everybody():
            is_as_meant = process is self.tree.main and process.argv is self.main_argv
            event = ProcessEnded(
                process.pid,
                process.parent.pid if process.parent else 0,
                process.argv,
                process.exit_code,
                process.signal,
                process.own or is_as_meant,
                process.acted,
            )
            self.tell(event, None)
        if self.tree.left_at_work:
            count = len(self.tree.left_at_work)
            self.tell(LeftAtWork(count, self.tree.left_at_work[0].title), None)
        if self.unchecked.programs:
            self.tell(self.unchecked.event(), None)

    def tell_tampering(self) -> None:
        """Whether lines of the Python witness can't be the hook's."""
        strangers = len(self.account.pids - self.tree.jail_pids) - self.tree.unnumbered
        if self.started and (self.account.malformed or strangers > 0):
            lines = f"{self.account.malformed} malformed lines"
            reason = f"{lines}, {max(strangers, 0)} processes that do not exist"
            self.tell(WitnessTampered(reason), None)
