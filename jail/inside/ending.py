"""How a trigger ends: what it left at work gets some seconds to act, then the interpreter goes.

A daemon thread that is started just before the main module ends does not finish a millisecond of
work: a package that acts in it, in a timer or in an executor would go unseen. This runs in the
same interpreter as the package, which can forge or silence it: what it tells is annotation.
"""

from __future__ import annotations

# What signal itself is made of, without its names for numbers: they take long to load.
import _signal as signal  # type: ignore[import-not-found]
import _thread
import atexit
import os
import sys
import threading
import time
from types import FrameType

from jail.inside.json_line import json_of
from jail.inside.native_threads import native_at_work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_LINGER_SEC = 3.0
JOIN_SEC = 1.0  # for threads that have nothing more to do
LOOK_SEC = 0.02
MAX_TOLD_BYTES = 4000  # below PIPE_BUF, so that lines of many processes don't mix
MAX_LONG_CHARS, MAX_SHORT_CHARS = 500, 150
MAX_LINES = 200  # of one event; the counts at the end have them all
MAX_TOLD_THREADS = 5

# These rooms: their folder, or in the jail the name that all of their files share.
OWN_FILE = sys._getframe().f_code.co_filename
OWN_FRAMES = OWN_FILE if OWN_FILE.startswith("<") else f"{OWN_FILE.rpartition('/')[0]}/"
# A package may replace those of the modules, as gevent does.
now_sec = time.monotonic
allocate_lock, get_ident = _thread.allocate_lock, _thread.get_ident
open_path, write_fd, close_fd, own_pid = os.open, os.write, os.close, os.getpid
read_fd, OWN_TIMERS = os.read, "/proc/self/timers"
get_timer = signal.getitimer
# Those that count the processor's time are as good to wait with: the interpreter works meanwhile.
TIMER_KINDS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
CONDITION_WAIT = threading.Condition.wait.__code__
# Where the thread of an executor waits that nobody has given anything to do.
EXECUTOR_FILE = f"{os.__file__.removesuffix('os.py')}concurrent/futures/thread.py"


class How:
    """How a job ended."""

    RAN = "ran"
    RAISED = "raised"
    EXITED = "exited"  # by SystemExit
    DIED = "died"  # its process ended under it
    STOPPED = "stopped"  # it took too long
    LEFT = "left"  # it was done, but some of its threads were not
    NOT_RUN = "not run"


class Teller:
    """Writes JSON lines to `path`, the FIFO of the audit hook: each at once and in one piece.

    {"event": "ended", "pid": 7, "what": "s.proxy", "how": "raised", "text": "ImportError: ..."}
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.told: dict[str, int] = {}

    def tell(self, event: str, what: str, **fields: str | int) -> None:
        """Write a line, unless there were MAX_LINES of this event; nobody may be there to read."""
        self.told[event] = self.told.get(event, 0) + 1
        if self.told[event] > MAX_LINES:
            return
        self.write({"event": event, "pid": own_pid(), "what": what, **fields})

    def write(self, said: dict[str, Any]) -> None:
        """Write a line whatever there was before."""
        line = json_of(shortened(said, MAX_LONG_CHARS)) + "\n"
        if len(line) > MAX_TOLD_BYTES:  # of what json writes as \uxxxx
            line = json_of(shortened(said, MAX_SHORT_CHARS)) + "\n"
        try:
            fd = open_path(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return
        try:
            write_fd(fd, line.encode())
        except OSError:
            pass
        finally:
            close_fd(fd)


def shortened(said: dict[str, Any], limit_chars: int) -> dict[str, Any]:
    """`said` with no text in it longer than that."""
    return {
        key: value[:limit_chars] if isinstance(value, str) else value for key, value in said.items()
    }


def hide() -> None:
    """Leave the package a clean namespace: it may have modules of the same names as these."""
    package = __name__.partition(".")[0]
    for name in [*sys.modules]:
        if name == package or name.startswith(f"{package}."):
            del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not is_own_finder(finder)]


def is_own_finder(finder: object) -> bool:
    """Whether it is the finder of loader.py, by which these rooms are found in the jail."""
    return type(finder).__name__ == "Rooms" and type(finder).__module__ == "__main__"


def is_idle(frame: FrameType) -> bool:
    """Whether a thread waits for something that only others can give it, with no end to it."""
    if frame.f_code is CONDITION_WAIT:
        return frame.f_locals.get("timeout") is None
    return frame.f_code.co_filename == EXECUTOR_FILE


def at_work() -> list[str]:
    """The other threads that are doing something, and a timer that is set, as a reader names
    them.
    """
    own = get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    busy = [
        f"{names.get(ident, 'a thread')} at {frame.f_code.co_filename}:{frame.f_lineno}"
        for ident, frame in sys._current_frames().items()
        if ident != own and not is_idle(frame)
    ]
    left_sec = max(get_timer(kind)[0] for kind in TIMER_KINDS)
    busy += [f"a timer of {left_sec:.0f} s"] if left_sec else []
    busy += ["a timer of the C library"] if has_posix_timer() else []
    return [*busy, *native_at_work()]


def has_posix_timer() -> bool:
    """Whether there is a timer that timer_create made, which Python knows nothing of.

    /proc/self/timers, where there are any: `ID: 0`, `signal: 14/0000000000000000`
    """
    try:
        fd = open_path(OWN_TIMERS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(read_fd(fd, 1))
    except OSError:
        return False
    finally:
        close_fd(fd)


def linger(limit_sec: float = MAX_LINGER_SEC) -> list[str]:
    """Wait until nothing is at work, at most `limit_sec`: what still is then."""
    deadline_sec = now_sec() + limit_sec
    lock = allocate_lock()
    lock.acquire()
    busy = at_work()
    while busy and now_sec() < deadline_sec:
        # No sleep: the kernel witness may skip those.
        lock.acquire(timeout=LOOK_SEC)
        busy = at_work()
    return busy


def tell_left(teller: Teller, what: str, left: list[str]) -> None:
    """Say who was still at work."""
    if left:
        who = "; ".join(left[:MAX_TOLD_THREADS])
        teller.tell("ended", what, how=How.LEFT, text=f"{len(left)} at work: {who}")


def exit_code(error: SystemExit) -> int:
    """The code that the interpreter would end with; a text is printed, as it does."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def own_frames_cut(error: BaseException) -> BaseException:
    """`error` without the frames of these files at the top of its traceback."""
    tb = error.__traceback__
    while tb and tb.tb_frame.f_code.co_filename.startswith(OWN_FRAMES):
        tb = tb.tb_next
    return error.with_traceback(tb)


def said_of(error: BaseException) -> str:
    """One line on `error`: what it is, and where it was raised."""
    tb, at = error.__traceback__, ""
    while tb:
        at = f" at {tb.tb_frame.f_code.co_filename}:{tb.tb_lineno}"
        tb = tb.tb_next
    try:
        return f"{type(error).__name__}: {error}{at}"
    except Exception:  # its own words for itself fail
        return f"{type(error).__name__}{at}"


def end(code: int, left: list[str]) -> NoReturn:
    """End the interpreter as it always ends, or, with something left at work, as far as it goes.

    Plain Python would wait for a thread that loops for ever.
    """
    current = threading.current_thread()
    waiting = [thread for thread in threading.enumerate() if thread is not current]
    if not left and all(thread.daemon for thread in waiting):
        sys.exit(code)
    # Executors let their threads go, and others that are done are joined.
    helper = threading.Thread(target=threading._shutdown, daemon=True)  # type: ignore[attr-defined]
    helper.start()
    helper.join(JOIN_SEC)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # the package closed it, or has none
            continue
    os._exit(code)
