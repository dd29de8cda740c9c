"""How old a file seems to be that watch has just made."""

import os
import time
from pathlib import Path

from jail.watch.chance import SYSTEM_RANDOM

SEC_OF_DAY = 86_400
RECENT_SEC = 600  # so long ago at least


def drawn_times(most_days: int, least_days: int = 0) -> tuple[float, float]:
    """When something was read last and changed last that seems to be so many days old."""
    now_sec = time.time()
    spread_sec = (most_days - least_days) * SEC_OF_DAY
    age_sec = RECENT_SEC + least_days * SEC_OF_DAY + SYSTEM_RANDOM.randrange(spread_sec)
    return now_sec - SYSTEM_RANDOM.randrange(age_sec), now_sec - age_sec


def set_age(path: Path, most_days: int, least_days: int = 0) -> None:
    """Let it seem to have been changed so many days ago, and read since then. A link, too."""
    os.utime(path, drawn_times(most_days, least_days), follow_symlinks=False)
