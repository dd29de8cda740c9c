"""Where a command writes, by its words: what a shell or `cp` opens nobody hears, and where it is
refused it leaves no trace.

`cp x.sh /etc/profile.d/x.sh`    `sh -c "echo x >> /etc/crontab"`
"""

import re
from collections.abc import Sequence

from jail.report.places import what_is_refused_at
from jail.watch.events import Severity

MAX_JUDGED_CHARS, MAX_WRITTEN_FILES = 8_000, 100
# Their last word is where they write.
WRITING = re.compile(r"\b(?:cp|mv|ln|tee|install|touch|chmod|chown|rsync|sed -i\S*|truncate)\b")
# `echo x >> /etc/crontab`, `dd if=x of=/etc/crontab`
REDIRECTED = re.compile(r"(?:>{1,2}\|? *|\bof=)[\"']?([^\s;|&<>()\"']+)")
# Where the next command begins: `cp x y && chmod +x y`. The last word: `y` of `cp x "y"`.
COMMAND_ENDS = re.compile(r"[;|&\n]+")
LAST_WORD = re.compile(r"([^\s\"']+)[\s\"']*\Z")


def writes_for_others(argv: Sequence[str]) -> bool:
    """Whether a command writes where code waits for others than who started it.

    Args:
        argv: its words; those of `sh -c` are one.
    """
    text = " ".join(argv)[:MAX_JUDGED_CHARS]
    targets = REDIRECTED.findall(text)
    for command in COMMAND_ENDS.split(text):
        last = LAST_WORD.search(command) if WRITING.search(command) else None
        targets += [last[1]] if last else []
    severities = [what_is_refused_at(path)[1] for path in targets[:MAX_WRITTEN_FILES]]
    return Severity.HIGH in severities
