"""Chance from the system, for what is drawn anew for each run: a package can't foresee it.

The functions of `secrets` are those of this class; to load that module, with what it has beside
them, takes the self-check longer than all that it draws.
"""

from random import SystemRandom

SYSTEM_RANDOM = SystemRandom()
