"""What the process of a watch is told of itself before it begins."""

import ctypes
import gc
import sys
import threading

M_ARENA_MAX = -8  # an option of mallopt
STACK_BYTES = 1 << 20
SWITCH_SEC = 0.0005


def prepare_process() -> None:
    """Make the threads of a gateway fit into what memory a watch may have, and take turns often."""
    threading.stack_size(STACK_BYTES)
    # What keeper has loaded stays shared with it: the collector would write to each page of it.
    gc.freeze()
    # Else each thread has 64 MiB of addresses for its own allocations.
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    # Else each connection waits for the thread that reads the witnesses.
    sys.setswitchinterval(SWITCH_SEC)
