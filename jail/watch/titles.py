"""What a trigger is called that a package named: never as one of ours, nor as another of its."""

# Of our triggers only this has a title of a single word; the others have blanks: "all modules".
DEPENDENCIES_TITLE = "dependencies"
# Each of our other titles has one of these signs: "all modules", "python -m s", "bin/s".
TITLE_SIGNS = frozenset(" /'")


def title_of(name: str) -> str:
    """The title of what a package calls so. No title of ours begins with a quotation mark.

    >>> [title_of(name) for name in ("six", "all modules", "dependencies", "'all modules'")]
    ['six', "'all modules'", "'dependencies'", "''all modules''"]
    """
    is_plain = TITLE_SIGNS.isdisjoint(name) and name != DEPENDENCIES_TITLE
    return name if is_plain else f"'{name}'"
