"""Which threads that C code made for itself are at work: Python knows nothing of them, the kernel
does. Most wait for others to give them something, as those of numpy; who waits with a timeout goes
on by itself.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading

from jail.inside.library import kernel_name

TASKS = "/proc/self/task"
FDS = "/proc/self/fd"
MAX_TASKS = 200  # that are looked at
PROC_LINE_BYTES = 300
RUNNING = "running"
ALWAYS = -1
# A wait is for so long where the argument at this place is a time: a pointer to a time, or
# milliseconds, which are negative where there is no end. By machine and number of the call.
TIME_POINTERS = {
    # nanosleep, clock_nanosleep, restart_syscall; ppoll, select, pselect6, epoll_pwait2, futex,
    # futex_waitv, rt_sigtimedwait, semtimedop, io_getevents, recvmmsg
    "x86_64": {35: ALWAYS, 230: ALWAYS, 219: ALWAYS, 271: 2, 23: 4, 270: 4, 441: 3, 202: 3, 449: 3}
    | {128: 2, 220: 3, 208: 4, 299: 4},
    "aarch64": {101: ALWAYS, 115: ALWAYS, 128: ALWAYS, 73: 2, 72: 4, 441: 3, 98: 3, 449: 3}
    | {137: 2, 192: 3, 4: 4, 243: 4},
}
# poll, epoll_wait, epoll_pwait
MILLISECONDS = {"x86_64": {7: 2, 232: 3, 281: 3}, "aarch64": {22: 3}}
MACHINE_NAME = kernel_name().machine

# Our own names for them: a package may replace those of the modules.
list_folder, open_file, read_file, close_file = os.listdir, os.open, os.read, os.close
read_link, own_task = os.readlink, _thread.get_native_id


def proc_line(path: str) -> str:
    """The start of a file of /proc; "" of a thread that has ended."""
    try:
        fd = open_file(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return read_file(fd, PROC_LINE_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        close_file(fd)


def goes_on_by_itself(said: str, machine: str = MACHINE_NAME) -> bool:
    """Whether a thread is at work, or waits with a timeout, by its file `syscall`.

    >>> goes_on_by_itself("202 0x7f80 0x189 0x0 0x7ffd10 0x0 0xffffffff 0x7f80 0x7f80", "x86_64")
    True
    >>> goes_on_by_itself("202 0x7f80 0x189 0x0 0x0 0x0 0xffffffff 0x7f80 0x7f80", "x86_64")
    False
    """
    number, *arguments = said.split()[:7] or [""]
    if not number.isdigit() or len(arguments) < 6:
        return number == RUNNING
    place = TIME_POINTERS.get(machine, {}).get(int(number))
    if place is not None:
        return place == ALWAYS or int(arguments[place], 16) != 0
    place = MILLISECONDS.get(machine, {}).get(int(number))
    return place is not None and int(arguments[place], 16) & 1 << 31 == 0


def has_timer_file() -> bool:
    """Whether a timer is open as a file, for which any wait may be."""
    try:
        names = list_folder(FDS)
    except OSError:
        return False
    for name in names:
        try:
            if read_link(f"{FDS}/{name}") == "anon_inode:[timerfd]":
                return True
        # That of the listing itself.
        except OSError:
            continue
    return False


def native_at_work() -> list[str]:
    """The threads at work that are none of Python's, as a reader names them."""
    try:
        tasks = list_folder(TASKS)
    except OSError:
        return []
    if len(tasks) <= len(sys._current_frames()):
        return []
    known = {str(thread.native_id) for thread in threading.enumerate()} | {str(own_task())}
    others = [task for task in tasks if task not in known][:MAX_TASKS]
    busy = [task for task in others if goes_on_by_itself(proc_line(f"{TASKS}/{task}/syscall"))]
    if not busy and others and has_timer_file():
        busy = others[:1]
    return [f"a native thread ({proc_line(f'{TASKS}/{task}/comm')})" for task in busy]
