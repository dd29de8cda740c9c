"""The sockets of a jail's network, by what they are for."""

import socket
from collections.abc import Iterable

from jail.orders import DNS_PORT, INDEX_PORT

MAX_NETWORK_SOCKETS = 150  # of a jail's network


class Sockets:
    """The sockets that the run keeper made, in whatever order, by what they are for."""

    def __init__(self, fds: Iterable[int]) -> None:
        self.dns: list[socket.socket] = []
        self.index: socket.socket | None = None
        self.decoys: list[socket.socket] = []
        for fd in fds:
            held = socket.socket(fileno=fd)
            port = held.getsockname()[1]
            if port == DNS_PORT:
                self.dns.append(held)
            elif port == INDEX_PORT:
                self.index = held
            else:
                self.decoys.append(held)

    def reach(self) -> str:
        """How much of the world is answered: a word of the report's coverage."""
        ports = {held.getsockname()[1] for held in self.decoys}
        if not ports:
            return "off"
        return "full" if len(ports) == 1 else "ports"
