"""Moves the date: `time` and `datetime` tell a later date. Clocks that only run are left alone, and
so is what is written in C and asks the system itself.
"""

import ctypes
import datetime
import gc
import time
from typing import Any

real_time, real_time_ns = time.time, time.time_ns
real_localtime, real_gmtime, real_strftime = time.localtime, time.gmtime, time.strftime
real_ctime, real_asctime = time.ctime, time.asctime
real_clock, real_clock_ns = time.clock_gettime, time.clock_gettime_ns

# Those of the kernel that tell the date: CLOCK_REALTIME, _REALTIME_COARSE and _TAI.
DATE_CLOCKS = {time.CLOCK_REALTIME, 5, 11}


def change_type(kind: type, name: str, value: object) -> None:
    """Change a type that is written in C, in its place: its objects stay its objects, and who has
    imported it has the changed type.
    """
    members: dict[str, object] = gc.get_referents(kind.__dict__)[0]
    members[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


def move_clocks(by_sec: int) -> None:
    """Let all that tells the date tell a date that is `by_sec` later."""

    def moved_time() -> float:
        return real_time() + by_sec

    def moved_localtime(seconds: float | None = None) -> time.struct_time:
        return real_localtime(moved_time() if seconds is None else seconds)

    def moved_gmtime(seconds: float | None = None) -> time.struct_time:
        return real_gmtime(moved_time() if seconds is None else seconds)

    def now(cls: type[datetime.datetime], tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(moved_time(), tz)

    def utcnow(cls: type[datetime.datetime]) -> Any:
        return cls.fromtimestamp(moved_time(), datetime.UTC).replace(tzinfo=None)

    def moved_clock(clock: int) -> float:
        return real_clock(clock) + (by_sec if clock in DATE_CLOCKS else 0)

    def moved_clock_ns(clock: int) -> int:
        return real_clock_ns(clock) + (by_sec * 10**9 if clock in DATE_CLOCKS else 0)

    # `today` of both types asks time.time().
    change_type(datetime.datetime, "now", classmethod(now))
    change_type(datetime.datetime, "utcnow", classmethod(utcnow))
    time.__dict__.update(
        time=moved_time,
        clock_gettime=moved_clock,
        clock_gettime_ns=moved_clock_ns,
        time_ns=lambda: real_time_ns() + by_sec * 10**9,
        localtime=moved_localtime,
        gmtime=moved_gmtime,
        ctime=lambda seconds=None: real_ctime(moved_time() if seconds is None else seconds),
        asctime=lambda when=None: real_asctime(when or moved_localtime()),
        strftime=lambda form, when=None: real_strftime(form, when or moved_localtime()),
    )
