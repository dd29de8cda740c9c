"""Keeper as a program: python -I -S jail, with the socket of the orders as standard input."""

import sys
from pathlib import Path

# Our own package comes last, so that nothing beside it stands for a module of the library.
sys.path[:] = [*sys.path[1:], str(Path(__file__).resolve().parent.parent)]

import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402

from jail import keeper, machine, orders  # noqa: E402

# All that a watch needs is loaded here: its user may not be able to read our files.
from jail.watch.main import watch  # noqa: E402
from jail.watch.trial import trial  # noqa: E402


def main() -> None:
    """Take the settings, tell what works here, then serve the service until it ends."""
    os.umask(0o022)
    service = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    packet = service.recv(orders.MAX_PACKET_BYTES + 1)
    if not packet:
        return
    settings = orders.parse_settings(packet)
    if os.geteuid() == 0 and not machine.may_look_into_processes():
        keeper.unmask_proc()
    found, checks = machine.prepare(settings, lambda *what: keeper.try_jail(*what, trial))
    told = {
        "checks": [vars(check) for check in checks],
        "works": found is not None,
        "index_url": found.index_url if found else "",
        "default_index": found is not None and found.default_index,
    }
    service.send(json.dumps(told).encode())
    if found:
        keeper.serve(service, settings, found, watch)


if __name__ == "__main__":
    main()
