"""Does many jobs in one interpreter, and goes on in a new one where a job takes it along.

The launcher calls `supervise`: it is the first process of the jail and runs no foreign code, so
that nothing in the jail can end it, and its exit code is the proof that no job was left out. A
worker is a Python like any other, with all .pth files; it tells on a pipe where it is, see
progress.py.
"""

from __future__ import annotations

# What signal itself is made of, without its names for numbers: they take long to load.
import _signal as signal  # type: ignore[import-not-found]
import os
import select
import time

from jail.inside.beside import note
from jail.inside.ending import MAX_LINGER_SEC, How, Teller
from jail.inside.enter import starter
from jail.inside.progress import Fallen, JobsDone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STARTUP_SEC = 15.0  # until the first word of a worker: the .pth files act before
END_SEC = MAX_LINGER_SEC + 5.0  # for threads, atexit and finalizers
MAX_WORKERS = 60
REDONE_IMPORTS, MAX_REDONE_SEC = 3, 2.0
LISTEN_SEC = 0.25
WORDS_BYTES, SIGN_BYTES = 1 << 14, 16
# Exit codes of the launcher. None of what a package can make its own interpreter end with counts.
ALL_RAN, SOME_LEFT, SOME_NOT_RUN, NOT_PREPARED, NOT_SURE = 0, 80, 81, 83, 84


# No dataclass, and no named tuple: what those import takes longer than all the rest of the
# launcher.
class Limits:
    """Seconds: for all jobs together, and for each. After so many of the workers that ended too
    early (`redone`) all is done again, if it does not take long: threads and atexit of the others
    get their time, too. `totals` that a worker tells: the last is of all its jobs.
    """

    def __init__(self, total_sec: float, each_sec: float, redone: int, totals: int) -> None:
        self.total_sec, self.each_sec = total_sec, each_sec
        self.redone, self.totals = redone, totals


class Worker:
    """One interpreter, and what it says. Its arguments are the descriptors of its pipe and of its
    words, the number of its first job, and those that it leaves out.
    """

    def __init__(
        self, command: Sequence[str], words: Sequence[str], start: int, skips: list[int]
    ) -> None:
        self.pipe, far = os.pipe()
        os.set_inheritable(far, True)
        skipped = ",".join(str(number) for number in skips)
        # Thousands of names would make a command line that nobody reads.
        given = os.memfd_create("words", 0)
        sign = os.urandom(SIGN_BYTES).hex()
        os.write(given, "\0".join([sign, *words]).encode(errors="surrogateescape"))
        self.sign = f"{sign} ".encode()
        argv = [*command, str(far), str(given), str(start), skipped]
        self.pid = os.fork()
        if self.pid == 0:
            # A signal to its whole group must not reach others.
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(self.pipe)
            os.execv(argv[0], argv)
        os.close(far)
        os.close(given)
        self.ended = os.pidfd_open(self.pid)
        self.sources = [self.pipe, self.ended]
        self.rest = b""

    def read(self) -> tuple[list[bytes], bool]:
        """The lines that it says within LISTEN_SEC, and whether it has ended.

        Its pipe may stay open in its children, or be closed by it: that it has ended is what
        counts, once all is read.
        """
        ready, _, _ = select.select(self.sources, [], [], LISTEN_SEC)
        data = b""
        if self.pipe in ready:
            data = os.read(self.pipe, WORDS_BYTES)
            if not data:
                self.sources.remove(self.pipe)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[:WORDS_BYTES]
        lines = [line.removeprefix(self.sign) for line in lines if line.startswith(self.sign)]
        return lines, self.ended in ready and not data

    def reap(self, *, kill: bool) -> int:
        """Its exit code as a shell tells it."""
        if kill:
            signal.pidfd_send_signal(self.ended, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pipe)
        os.close(self.ended)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def reap_orphans(pid: int) -> None:
    """As the first process here we inherit them: they count against the limit of processes until
    somebody looks at them. `pid` is nobody's orphan.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == pid:
            return
        note(*os.waitpid(ended.si_pid, 0))


def waited_sec(pid: int) -> float:
    """How long a process has waited for a processor so far; 0 where the kernel does not say.

    /proc/7/schedstat: `8120000 69570 12`, nanoseconds at work, nanoseconds waiting, times at work.
    """
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            return int(file.read(100).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def with_waiting(allowed_sec: float, waiting_sec: float) -> float:
    """The time for a job on a machine that is busy with others: at most twice as long, since a
    package can keep the machine busy itself.
    """
    return allowed_sec + min(max(waiting_sec, 0.0), allowed_sec)


def follow(worker: Worker, progress: JobsDone, limits: Limits, deadline_sec: float) -> bool:
    """Read what a worker says to its end. Returns whether it must be stopped."""
    since_sec, before_sec = time.monotonic(), waited_sec(worker.pid)
    allowed_sec = STARTUP_SEC
    while True:
        lines, has_ended = worker.read()
        for line in lines:
            progress.take(line)
        if lines:
            since_sec, before_sec = time.monotonic(), waited_sec(worker.pid)
            allowed_sec = END_SEC if progress.is_lingering else limits.each_sec
        if has_ended:
            return False
        reap_orphans(worker.pid)
        now_sec = time.monotonic()
        # An end that was begun is let come to its end.
        is_out_of_time = now_sec > deadline_sec and not progress.is_done
        # That others have the processors is not its doing.
        most_sec = with_waiting(allowed_sec, waited_sec(worker.pid) - before_sec)
        if now_sec > since_sec + most_sec or is_out_of_time:
            return True


def supervise(
    command: Sequence[str],
    words: Sequence[str],
    teller: Teller,
    limits: Limits,
    fallen: dict[str, Fallen],
    look: Callable[[], None] | None = None,
) -> int:
    """Run workers until all jobs are done, or time or workers run out.

    Args:
        command: a worker's program; see Worker for its arguments.
        words: what it is to do.
        fallen: takes the modules that failed, by name.
        look: is begun beside the first worker.

    Returns:
        ALL_RAN, SOME_LEFT or SOME_NOT_RUN; NOT_SURE where a module could say it all itself;
        NOT_PREPARED where a worker ended by itself before all jobs were found; or what the first
        worker ended with where it ended before any job.
    """
    deadline_sec = time.monotonic() + limits.total_sec
    start, furthest, total = 0, 0, 0
    skips: list[int] = []
    is_any_left = is_any_lost = is_found = was_stopped = False
    looked = ""
    for number in range(MAX_WORKERS):
        begun_sec = time.monotonic()
        worker = Worker(command, words, start, skips)
        # The kernel witness takes our first child for what the phase is about.
        if look and number == 0:
            look()
        progress = JobsDone(start, skips)
        was_stopped = follow(worker, progress, limits, deadline_sec)
        code = worker.reap(kill=was_stopped)
        fallen |= progress.fallen
        looked = looked or progress.looked
        if progress.total is None:
            if was_stopped:
                teller.tell("ended", "", how=How.NOT_RUN, text="any job, for want of time")
            return code or SOME_NOT_RUN
        is_prepared = progress.totals >= limits.totals
        is_found |= is_prepared
        total = progress.total
        is_any_left |= was_stopped or progress.left > 0
        furthest = max(furthest, total if progress.is_done else progress.at + 1)
        if progress.is_done:
            break
        how = How.STOPPED if was_stopped else How.DIED
        text = f"after {limits.each_sec:g} s" if was_stopped else f"exit code {code}"
        teller.tell("ended", progress.name, how=how, text=text)
        fallen[progress.name] = 0, False
        # The next worker goes on without it, and finds none of what it offers.
        if not is_prepared:
            is_any_lost |= not was_stopped
            if progress.at in skips or time.monotonic() > deadline_sec:
                break
            skips.append(progress.at)
            continue
        skips.append(progress.at)
        was_long = time.monotonic() - begun_sec - limits.each_sec > MAX_REDONE_SEC
        if len(skips) > limits.redone or was_long:
            start = max(start, progress.at + 1)
        if start >= total or time.monotonic() > deadline_sec:
            break
    if is_any_lost or not (is_found or was_stopped):
        return NOT_PREPARED
    if furthest < total or not is_found:
        left_out = f"{total - furthest} of {total} jobs" if is_found else "any call"
        teller.tell("ended", "", how=How.NOT_RUN, text=left_out)
        return SOME_NOT_RUN
    if looked:
        teller.tell("ended", "", how=How.NOT_RUN, text=f"maybe some jobs, by {looked}")
        return NOT_SURE
    return SOME_LEFT if is_any_left else ALL_RAN


def run_several(
    commands: Sequence[Sequence[str]], path: str, total_sec: float, each_sec: float
) -> int:
    """Run programs, one after the other, each with an end: ALL_RAN, SOME_LEFT or SOME_NOT_RUN.

    Args:
        path: the file for what is told.
    """
    teller = Teller(path)
    deadline_sec = time.monotonic() + total_sec
    is_any_stopped = False
    for number, argv in enumerate(commands):
        left_sec = min(each_sec, deadline_sec - time.monotonic())
        if left_sec <= 0:
            text = f"{len(commands) - number} of {len(commands)} programs"
            teller.tell("ended", "", how=How.NOT_RUN, text=text)
            return SOME_NOT_RUN
        if run_within(argv, left_sec):
            continue
        is_any_stopped = True
        teller.tell("ended", " ".join(argv[3:]), how=How.STOPPED, text=f"after {left_sec:.1f} s")
    return SOME_LEFT if is_any_stopped else ALL_RAN


def run_within(argv: Sequence[str], limit_sec: float) -> bool:
    """Run a program: whether it ended by itself within the limit."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            os.execv(argv[0], [*argv])
        finally:
            os._exit(127)
    ended = os.pidfd_open(pid)
    deadline_sec = time.monotonic() + limit_sec
    has_ended: list[int] = []
    while not has_ended and time.monotonic() < deadline_sec:
        has_ended, _, _ = select.select([ended], [], [], LISTEN_SEC)
        reap_orphans(pid)
    if not has_ended:
        signal.pidfd_send_signal(ended, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ended)
    return bool(has_ended)


def launch_jobs(
    room: str,
    words: Sequence[str],
    fallen: dict[str, Fallen],
    look: Callable[[], None] | None = None,
) -> int:
    """What the launcher does for the rooms `imports` and `call`: returns its exit code.

    Args:
        words: the file for what is told, seconds for all jobs together, seconds for each, then
            what the room itself takes.
        fallen: takes the modules that failed, by name.
        look: is begun beside the first worker.
    """
    path, total_sec, each_sec, *rest = words
    redone, totals = (REDONE_IMPORTS, 1) if room == "imports" else (0, 2)
    limits = Limits(float(total_sec), float(each_sec), redone, totals)
    return supervise(starter(room), [path, *rest], Teller(path), limits, fallen, look)
