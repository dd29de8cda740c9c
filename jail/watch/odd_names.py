"""Files and folders whose names have letters of other alphabets: a module or a command may be read
as another one that everybody knows.

Hostile input: the paths.
"""

from collections.abc import Iterator, Mapping

from jail.watch.noticed import OddlyNamed

MAX_ODD_NAMES = 50
# How text that was made safe writes such a letter.
ESCAPE_STARTS = ("\\u", "\\x", "\\U")


def odd_names(owners: Mapping[str, str], prefix: str) -> Iterator[OddlyNamed]:
    """Each of them once, with all that stands before it.

    Args:
        owners: the project by each path that a RECORD names.
        prefix: of the installation, `site/a-1.0/`.
    """
    told: set[str] = set()
    for listed, project in sorted(owners.items()):
        path = listed.removeprefix(prefix)
        if path.isascii() and not any(escape in path for escape in ESCAPE_STARTS):
            continue
        parts = path.split("/")
        for number, part in enumerate(parts, 1):
            named = "/".join(parts[:number])
            is_odd = not part.isascii() or any(escape in part for escape in ESCAPE_STARTS)
            if is_odd and named not in told and len(told) < MAX_ODD_NAMES:
                told.add(named)
                yield OddlyNamed(named, project)
