"""The plumbing of the decoy internet, for its tests: no jail has it yet."""

# open_decoy_network is called in a new network namespace, with the power over that one alone.
# It takes no word from anybody but two choices: no byte of a package, of watch or of the service
# gets here. OSError is raised where the kernel refuses.

import fcntl
import os
import socket
import struct
import subprocess
from pathlib import Path

from jail.orders import DNS_PORT, INDEX_PORT

# The jail's own address, as many a virtual machine has it, and where the listeners of the decoy
# internet stand (world.nft names them, too): on addresses of documentation, so that localhost and
# the jail's own address answer nothing that an ordinary machine's do not.
JAIL_ADDRESS = "10.0.2.15"
DECOY_ADDRESS: dict[int, tuple[str, int]] = {
    socket.AF_INET: ("192.0.2.1", 9),
    socket.AF_INET6: ("2001:db8::1", 9),
}
# What is served where the kernel can't hand over every port.
DECOY_PORTS = [21, 22, 25, 80, 110, 123, 143, 443, 465, 587, 993, 995, 1080, 1337, 2525, 3000]
DECOY_PORTS += [3128, 4443, 4444, 5000, 5555, 6667, 7777, 8000, 8080, 8081, 8443, 8888, 9000, 9999]
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
# rtnetlink(7): add an address to `lo` (number 1), add a route of the kind `local`; attributes.
RTM_NEWADDR, RTM_NEWROUTE, ACK_AND_CREATE, LOOPBACK = 20, 24, 0x405, 1
# The table RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL.
LOCAL_ROUTE = (255, 3, 254, 2)
IFA_LOCAL, RTA_OIF, RTA_PREFSRC = 2, 4, 7
# That foreign addresses may be bound, that a datagram tells which one it was sent to, that its
# answer may come from there: IP_TRANSPARENT, IP_RECVORIGDSTADDR, IP_PKTINFO; the same for IPv6,
# and IPV6_V6ONLY.
OPTIONS: dict[int, tuple[int, tuple[int, ...]]] = {
    socket.AF_INET: (socket.SOL_IP, (19, 20, 8)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, (75, 74, 49, 26)),
}
KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
BACKLOG = 4096


# The sockets of DNS; of the index, if the jail may see it; of the decoy internet, if there is one:
# then the network answers for the whole world, without nft (the program's path) on a few ports.
def open_decoy_network(index: bool, decoy: bool, nft: str | None) -> list[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up = b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(16, "little")
        fcntl.ioctl(control, SIOCSIFFLAGS, up)
    near = [(kind, DNS_PORT) for kind in KINDS if not decoy]
    near += [(socket.SOCK_STREAM, INDEX_PORT)] if index else []
    sockets = open_world(nft) if decoy else []
    sockets += [stand_at(socket.AF_INET, kind, "127.0.0.1", port) for kind, port in near]
    return [held.detach() for held in sockets]


def open_world(nft: str | None) -> list[socket.socket]:
    address = socket.inet_pton(socket.AF_INET, JAIL_ADDRESS)
    about = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, LOOPBACK)
    rtnetlink(RTM_NEWADDR, about, {IFA_LOCAL: address})
    # Every address is the jail's own, and what it sends comes from the one above. A machine without
    # IPv6 has jails without it.
    families: dict[int, dict[int, bytes]] = {socket.AF_INET: {RTA_PREFSRC: address}}
    if Path("/proc/self/net/if_inet6").exists():
        families[socket.AF_INET6] = {}
    for family, source in families.items():
        route = struct.pack("=8BI", family, 0, 0, 0, *LOCAL_ROUTE, 0)
        rtnetlink(RTM_NEWROUTE, route, {RTA_OIF: struct.pack("=I", LOOPBACK), **source})
    kinds = [(family, kind) for family in families for kind in KINDS]
    sockets = [stand_at(*kind, "", DNS_PORT) for kind in kinds]
    # Constant words, and a program that the machine's owner put there.
    rules = [nft or "", "-f", str(Path(__file__).with_name("world.nft"))]
    if nft and subprocess.run(rules, env={}, capture_output=True).returncode == 0:
        return sockets + [stand_at(*kind, *DECOY_ADDRESS[kind[0]]) for kind in kinds]
    return sockets + [stand_at(*kind, "", port) for kind in kinds for port in DECOY_PORTS]


# A socket for what the jail sends to `host`, "" being every address.
def stand_at(family: int, kind: int, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, kind)
    level, options = OPTIONS[family]
    for option in options:
        listener.setsockopt(level, option, 1)
    listener.bind((host, port))
    if kind == socket.SOCK_STREAM:
        listener.listen(BACKLOG)
    return listener


# Have the kernel add an address or a route.
def rtnetlink(kind: int, body: bytes, attributes: dict[int, bytes]) -> None:
    for number, value in attributes.items():
        body += struct.pack("=HH", 4 + len(value), number) + value
    head = struct.pack("=IHHII", 16 + len(body), kind, ACK_AND_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(head + body)
        error = -struct.unpack_from("=i", kernel.recv(4096), 16)[0]
    if error:
        raise OSError(error, os.strerror(error))
