"""Stands in our pip for its module `distro`, which starts a dozen programs to tell the name of the
system, for a header that our index does not read.
"""

from collections.abc import Callable


def __getattr__(_name: str) -> Callable[..., str]:
    return lambda *_, **__: ""
