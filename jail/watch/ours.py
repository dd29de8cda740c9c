"""What a package can only have from us: no sign of it."""

from urllib.parse import urlsplit

from jail.watch.names import MAX_ADDRESSES
from jail.watch.resources import Resources


def what_is_ours(
    resources: Resources,
) -> tuple[frozenset[str], tuple[str, ...], frozenset[str], bool]:
    """The fields of jail.report.indicators.OwnWords, in their order."""
    wholes: set[str] = set()
    parts: list[str] = []
    if resources.world:
        wholes, parts = resources.world.made_up()
    parts += resources.decoys.values.values()
    hosts = {urlsplit(f"//{host}").hostname or "" for host in resources.upstream.hosts}
    # As jail/inside/made_up.py has it: may be somebody's, but it was us who named it.
    hosts.add(f"{resources.host.lower()}.com")
    return frozenset(wholes), tuple(parts), frozenset(hosts), len(wholes) < MAX_ADDRESSES
