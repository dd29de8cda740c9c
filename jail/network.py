# The network of a jail: a loopback that leads nowhere, and the sockets at which watch answers.
#
# open_network is called in a new network namespace, and has power over that namespace alone. Nobody
# tells it more than one choice: no byte of a package, of watch or of the service gets here.
# The tools are those of the machine's owner, and run what stands in the files beside this file.

import fcntl
import shutil
import socket

from jail.orders import DNS_PORT, INDEX_PORT, JAIL_DIR, PROGRAMS

V4, V6, UDP, TCP = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM, socket.SOCK_STREAM
SIOCSIFFLAGS, IFF_UP, BACKLOG = 0x8914, 1, 4096
# The level, and the options of it. IP_TRANSPARENT: foreign addresses may be bound.
# IP_RECVORIGDSTADDR: a datagram tells to which address it was sent. IP_PKTINFO: its answer may come
# from there. The same for IPv6, and IPV6_V6ONLY.
OPTIONS = {V4: (socket.SOL_IP, 19, 20, 8), V6: (socket.IPPROTO_IPV6, 75, 74, 49, 26)}
# Where the listeners of the decoy internet stand; world.nft sends all to them. Neither localhost
# nor the jail's own address, which answer nothing that another machine's do not: addresses of
# networks that many machines have, for a jail can read them in /proc/net.
DECOY_PLACES = {V4: ("172.17.0.1", 5355), V6: ("fd17:625c:f037:2::1", 5355)}
# What is served where the kernel can't hand over every port.
DECOY_PORTS = [21, 22, 25, 80, 110, 123, 143, 443, 465, 587, 993, 995, 1080, 1337, 2525, 3000, 3128]
DECOY_PORTS += [4443, 4444, 5000, 5555, 6667, 7777, 8000, 8080, 8081, 8443, 8888, 9000, 9999]


# The socket of the index, for a jail that may see it.
def open_index() -> int:
    return stand_at(TCP, V4, "127.0.0.1", INDEX_PORT).detach()


# The sockets of DNS; of the decoy internet, if it is wanted: then the network answers for the whole
# world, as far as the tools of this machine reach. Raises OSError where the kernel refuses.
def open_network(decoy: bool) -> list[int]:
    with socket.socket(V4, UDP) as control:
        up = b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(16, "little")
        fcntl.ioctl(control, SIOCSIFFLAGS, up)
    places = [(V4, "127.0.0.1", DNS_PORT)]
    if decoy and has_done("ip", "-batch", "world.ip"):
        # A machine without IPv6 has jails without it.
        has_v6 = has_done("ip", "route", "add", "local", "::/0", "dev", "lo")
        families = [V4, V6] if has_v6 else [V4]
        places = [(family, "", DNS_PORT) for family in families]
        if has_done("nft", "-f", "world.nft"):
            places += [(family, *DECOY_PLACES[family]) for family in families]
        else:
            places += [(family, "", port) for family in families for port in DECOY_PORTS]
    sockets = [stand_at(kind, *place) for kind in (UDP, TCP) for place in places]
    return [held.detach() for held in sockets]


# Whether there is such a tool, and it did what it was told. What starts it is loaded here, since
# most starts need not wait for it. Only the self-check's run keeper loads it: before the first
# order keeper loads watch's rooms, and it with them.
def has_done(tool: str, *words: str) -> bool:
    import subprocess

    path = shutil.which(tool, path=PROGRAMS)
    if not path:
        return False
    done = subprocess.run([path, *words], env={}, cwd=JAIL_DIR, capture_output=True)  # noqa: S603
    return done.returncode == 0


# A socket for what the jail sends to `host`, "" being every address.
def stand_at(kind: int, family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    held = socket.socket(family, kind)
    level, *options = OPTIONS[family]
    for option in options:
        held.setsockopt(level, option, 1)
    held.bind((host, port))
    if kind == TCP:
        held.listen(BACKLOG)
    return held
