"""What the command line of a process says: that of a person, not how the launcher started it.

The kernel witness has the true command line, from before any foreign code runs.
"""

import sys

# Of the numbers in /proc/self/stat, "7 (python) S 1 7 7 0 -1 4194304 ...", that stand behind the
# letter: where the code, its data, the stack, the words and the environment lie in memory.
CODE_FIELDS, STACK_FIELD, DATA_FIELDS = slice(22, 24), slice(24, 25), slice(41, 44)
WORDS_FIELDS, ENVIRONMENT_FIELDS = slice(44, 46), slice(46, 48)
PR_SET_MM, PR_SET_MM_MAP = 35, 14
# struct prctl_mm_map: eleven addresses, no auxiliary vector, no other program.
MEMORY_MAP, NOTHING_MORE = "=12QIi", (0, 0, -1)


def look_like(*words: str) -> None:
    """Let this interpreter look as if it was started with these words after its own name.

    Where the kernel does not let the words be fewer, the last is filled up with blanks, which
    must mean nothing there: what `-c` executes, say.
    """
    shown = [sys.executable, *words]
    sys.orig_argv[:] = shown
    try:
        with open("/proc/self/stat") as file:
            fields = [*map(int, file.read().rpartition(") ")[2].split()[1:])]
        import ctypes

        start, end = fields[WORDS_FIELDS]
        text = "\0".join(shown).encode(errors="surrogateescape")[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start - 1) + b"\0", end - start)
        end_words(fields, start + len(text))
    except (ImportError, OSError, ValueError):  # it is the looks alone
        return


def end_words(fields: list[int], end: int) -> None:
    """Let the words end there, as far as the kernel knows how many there are."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    start, _ = fields[WORDS_FIELDS]
    brk = libc.sbrk(0)
    places = (*fields[CODE_FIELDS], *fields[DATA_FIELDS], brk, *fields[STACK_FIELD], start, end + 1)
    told = struct.pack(MEMORY_MAP, *places, *fields[ENVIRONMENT_FIELDS], *NOTHING_MORE)
    ended = ctypes.string_at(end, 1)
    ctypes.memmove(end, b"\0", 1)
    if libc.prctl(PR_SET_MM, PR_SET_MM_MAP, told, len(told), 0) != 0:
        ctypes.memmove(end, ended, 1)
