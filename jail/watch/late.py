"""Ends a jail whose time is over, though we are kept from looking at the clock.

A read of a pipe waits, whatever flags it has, while somebody else has the lock of that pipe. A
process of the jail has it for as long as it likes: it splices into the pipe, from a socket on which
nothing comes. Our read waits, then, until that process is killed: so a thread that reads nothing
has it killed.
"""

import threading
import time
from collections.abc import Callable

from jail.watch.resources import Resources

LATE_SEC = 1.0  # after its time; who is not kept from it has ended the jail by then


def at_latest(resources: Resources, end: Callable[[], object]) -> threading.Timer:
    """Call `end` from a thread of its own, when a phase that begins now has had its time. Cancel it
    when the jail has ended.
    """
    left_sec = min(resources.end_sec - time.monotonic(), resources.settings.run_timeout_sec)
    timer = threading.Timer(max(left_sec, 0) + LATE_SEC, end)
    timer.daemon = True
    timer.start()
    return timer
