"""A file of a package that the gateway gave out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Downloaded:
    """`url` is where the index has it, "" for a file that came with the order."""

    file: str
    size_bytes: int
    sha256: str
    from_cache: bool
    url: str = ""
