"""Reads the names of modules that stand in the words for a worker."""

from collections.abc import Sequence


def read_names(words: Sequence[str]) -> list[str]:
    """The names that `words` stand for, each once. Raises OSError for a file not to be read."""
    names: list[str] = []
    for word in words:
        if word.startswith("@"):
            with open(word[1:], encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
                names += file.read().splitlines()
        else:
            head, mark, rest = word.rpartition(">")
            names += [f"{head}{name}" for name in (rest if mark else word).split(",")]
    return [name for name in dict.fromkeys(names) if name]
