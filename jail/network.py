"""The network of a jail: a loopback that leads nowhere, and the sockets at which watch answers."""

import fcntl
import socket

from jail.orders import DNS_PORT, INDEX_PORT

SIOCSIFFLAGS, IFF_UP, BACKLOG = 0x8914, 1, 4096


# The sockets of DNS, and of the index, if the jail may see it. Called in a new network namespace,
# with the power over that one alone: no word of a package, of watch or of the service gets here but
# this choice. OSError is raised where the kernel refuses.
def open_network(index: bool) -> list[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up = b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(16, "little")
        fcntl.ioctl(control, SIOCSIFFLAGS, up)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", DNS_PORT))
    ports = [DNS_PORT, INDEX_PORT] if index else [DNS_PORT]
    streams = [socket.create_server(("127.0.0.1", port), backlog=BACKLOG) for port in ports]
    return [server.detach() for server in (datagrams, *streams)]
