"""Sleeps that the kernel witness has skipped: how long they were meant to be."""

import re

# clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, {tv_sec=6132, tv_nsec=499665280}, NULL)
# clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=50, tv_nsec=0}, 0x7ffe1c2b)
# nanosleep({tv_sec=50, tv_nsec=0}, 0x7ffe1c2b)
ASKED = re.compile(
    rb"(?:(CLOCK_\w+), (TIMER_ABSTIME|0), )?\{tv_sec=(\d{1,18}), tv_nsec=\d+\}.*"
    rb" = 0 \(INJECTED\)(?: <[0-9.]+>)?",
    re.DOTALL,
)
LEAST_SEC = 5  # what is shorter is no news
MAX_ASKED_SEC = 10**9


def skipped_sec(text: bytes, monotonic_sec: float, epoch_sec: float) -> int:
    """How many seconds a skipped call asked for; 0 of what is short, or was not skipped.

    >>> text = b"CLOCK_REALTIME, 0, {tv_sec=50, tv_nsec=0}, NULL) = 0 (INJECTED) <0.000123>"
    >>> skipped_sec(text, 1.0, 9.0)
    50

    Args:
        text: the arguments and the result, as strace writes them.
        monotonic_sec, epoch_sec: what the two clocks say now; a time may be given by either.
    """
    match = ASKED.fullmatch(text)
    if not match:
        return 0
    asked_sec = float(int(match[3]))
    if match[2] == b"TIMER_ABSTIME":
        asked_sec -= epoch_sec if match[1] == b"CLOCK_REALTIME" else monotonic_sec
    return min(round(asked_sec), MAX_ASKED_SEC) if asked_sec >= LEAST_SEC else 0
