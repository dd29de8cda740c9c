"""How far a worker is, by what it says to the launcher:

    total 120      it has found so many jobs, or that many more: calls are found by importing, which
                   are jobs, too
    begin 7 s.api  it is about to do number 7, which is called so; all before were done
    failed 9 s.api its module failed at line 9 (missed: for want of another project); see rest.py
    linger         that job is done, but what it left at work gets its time
    done           it has done the last job, and lingers
    left 2         and this many threads were still at work then
    looked 0 gc    a module has looked where it could find how to say all this itself

Each line begins with a word that is drawn for each worker, and attested.py keeps it from what the
worker runs. Nobody is done who has not begun each job.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_JOBS = 20_000
# What a worker says first, which of these words say that a module failed, and which that it comes
# to its end.
WORKER_WORDS, END_WORDS = (b"total", b"begin"), (b"linger", b"done", b"left")
FALL_WORDS = (b"failed", b"missed")
LOOK_WORD = b"looked"
MAX_NUMBER_DIGITS, MAX_NAME_BYTES = 6, 300

# Where a module failed, and whether that was for want of another project.
Fallen = tuple[int, bool]


class JobsDone:
    """How far a worker is. `at` is the job that it is at, or the next; `skips` it leaves out."""

    def __init__(self, at: int, skips: Sequence[int] = ()) -> None:
        self.at = self.start = at
        self.begun = {*skips}
        self.looked = ""
        self.name = ""
        self.total: int | None = None
        self.totals = 0
        self.is_lingering = False
        self.is_done = False
        self.left = 0
        self.fallen: dict[str, Fallen] = {}

    def take(self, line: bytes) -> None:
        """Read a line of a worker, `begin 7 s.api`; what it cannot mean is passed over."""
        word, _, rest = line.partition(b" ")
        digits, _, name = rest.partition(b" ")
        is_number = digits.isdigit() and len(digits) <= MAX_NUMBER_DIGITS
        is_whole = is_number and len(name) <= MAX_NAME_BYTES
        words = WORKER_WORDS + FALL_WORDS + END_WORDS
        if word not in (*words, LOOK_WORD) or not (is_whole or not rest):
            return
        number = int(digits or 0)
        job = name.decode("utf-8", "replace")
        if word == LOOK_WORD:
            self.looked = job
            return
        self.is_lingering = word in END_WORDS
        if word == b"total":
            self.total = min(number, MAX_JOBS)
            self.totals += 1
        elif word == b"begin" and self.total is not None and number < self.total:
            self.at = number
            self.begun.add(number)
            self.name = job
        elif word in FALL_WORDS and len(self.fallen) < MAX_JOBS:
            self.fallen[job] = number, word == b"missed"
        elif word == b"done":
            self.is_done = self.begun.issuperset(range(self.start, self.total or 0))
        elif word == b"left":
            self.left = number
