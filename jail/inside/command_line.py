"""What the command line of a process says: that of a person, not how the launcher started it.

The kernel witness has the true command line, from before any foreign code runs.
"""

import sys

# The 48th and 49th field of /proc/self/stat: where the words lie in memory. The second field,
# the name of the program, is in brackets: "7 (python) S 1 7 7 0 -1 4194304 ..."
WORDS_FIELDS = slice(45, 47)  # of those behind the brackets


def look_like(*words: str) -> None:
    """Let this interpreter look as if it was started with these words after its own name.

    The last word is filled up with blanks, which must mean nothing there: what `-c` executes, say.
    """
    shown = [sys.executable, *words]
    sys.orig_argv[:] = shown
    try:
        with open("/proc/self/stat") as file:
            start, end = map(int, file.read().rpartition(") ")[2].split()[WORDS_FIELDS])
        import ctypes

        text = "\0".join(shown).encode(errors="surrogateescape")[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start - 1) + b"\0", end - start)
    except (ImportError, OSError, ValueError):  # it is the looks alone
        return
