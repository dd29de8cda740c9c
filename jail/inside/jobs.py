"""The side of a worker: does job after job and says to the launcher how far it is.

See supervise.py for what is said on the pipe. Everything here shares an interpreter with the
package.
"""

from __future__ import annotations

import os
import sys

from jail.inside.ending import (
    MAX_LINGER_SEC,
    How,
    Teller,
    at_work,
    end,
    linger,
    now_sec,
    own_frames_cut,
    said_of,
    tell_left,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

MAX_BETWEEN_SEC = 6.0  # waited for threads between the jobs
MAX_JOB_BYTES = 300
QUIT_CODE = 82

write_pipe, fstat, quit_now = os.write, os.fstat, os._exit


def read_words(fd: int) -> list[str]:
    """The words in a file that is open and is read by nobody else."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="surrogateescape").split("\0")


def short_name(name: str) -> str:
    """A job's name, as long as the launcher takes it."""
    return name.encode(errors="replace")[:MAX_JOB_BYTES].decode(errors="ignore")


class Pipe:
    """The pipe to the launcher. A package that closes all descriptors closes this, too: what has
    its number then is not ours to write to. `sign` is the word that lines begin with.
    """

    def __init__(self, fd: int, sign: str) -> None:
        self.fd, self.sign = fd, sign
        os.set_inheritable(fd, False)
        self.inode = fstat(fd).st_ino

    def say(self, line: str) -> None:
        """Say a line; without the pipe this interpreter ends, and the next goes on."""
        try:
            if fstat(self.fd).st_ino == self.inode:
                write_pipe(self.fd, f"{self.sign} {line}\n".encode(errors="replace"))
                return
        except OSError:
            pass
        quit_now(QUIT_CODE)


class Jobs:
    """What a worker was asked for, by its arguments, which are cut out of sys.argv. The first of
    its words are that of its lines and the file for what is told; `words` are the others.
    """

    def __init__(self) -> None:
        pipe, given, start, skipped = sys.argv[1:5]
        del sys.argv[1:5]
        sign, path, *self.words = read_words(int(given))
        self.teller = Teller(path)
        self.pipe = Pipe(int(pipe), sign)
        self.start = int(start)
        self.skips = {int(number) for number in skipped.split(",") if number}
        self.counts: dict[str, int] = {}
        self.between_sec = 0.0
        self.known: set[str] = set()  # at work since an earlier job

    def prepare(self, names: Sequence[str], do: Callable[[str], None]) -> None:
        """Do what every worker must do first; whatever it raises is passed over."""
        self.pipe.say(f"total {len(names)}")
        for number, name in enumerate(names):
            if number not in self.skips:
                self.pipe.say(f"begin {number} {short_name(name)}")
                self.outcome(name, do)

    def run(self, names: Sequence[str], do: Callable[[str], None], prepared: int = 0) -> None:
        """Do each job; whatever it raises is told, and the next one follows.

        Args:
            prepared: how many jobs of `prepare` there were, which come first in the numbers.
        """
        self.pipe.say(f"total {prepared + len(names)}")
        for number, name in enumerate(names, prepared):
            if number < self.start or number in self.skips:
                continue
            self.pipe.say(f"begin {number} {short_name(name)}")
            how, text = self.outcome(name, do)
            self.counts[how] = self.counts.get(how, 0) + 1
            if how is not How.RAN:
                self.teller.tell("ended", name, how=how, text=text)
            self.let_threads_act()

    def outcome(self, name: str, do: Callable[[str], None]) -> tuple[str, str]:
        """Do one job: how it ended, and a line on that."""
        try:
            do(name)
        except SystemExit as error:
            return How.EXITED, str(error.code)
        except BaseException as error:
            return How.RAISED, said_of(own_frames_cut(error))
        return How.RAN, ""

    def let_threads_act(self) -> None:
        """A later job may end this interpreter: what a job left at work gets its time before."""
        busy = set(at_work())
        if busy <= self.known or self.between_sec >= MAX_BETWEEN_SEC:
            return
        self.pipe.say("linger")
        begun_sec = now_sec()
        self.known = set(linger(min(MAX_LINGER_SEC, MAX_BETWEEN_SEC - self.between_sec)))
        self.between_sec += now_sec() - begun_sec

    def end(self, what: str) -> NoReturn:
        """Say that all is done, give the threads their time, and end as Python does."""
        self.pipe.say("done")
        left = linger(0.0 if self.known and set(at_work()) <= self.known else MAX_LINGER_SEC)
        self.pipe.say(f"left {len(left)}")
        tell_left(self.teller, what, left)
        counts = ", ".join(f"{count} {how}" for how, count in sorted(self.counts.items()))
        self.teller.write({"event": "jobs", "pid": os.getpid(), "what": what, "text": counts})
        end(0, left)
