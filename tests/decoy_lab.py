"""A network namespace that answers for the whole world as a jail's does, to try the decoy in."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jail.orders import DNS_PORT, PROGRAMS
from jail.watch.decoy import Decoy
from jail.watch.events import WorldEvent
from jail.watch.names import DNS_HEADER_BYTES, reply
from jail.watch.world import TRUST_VARIABLES, World, make_world
from jail.watch.world_events import Conversation, Request

ROOT = Path(__file__).resolve().parent.parent
ORDINARY = ("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups")
TOOLS = ("ip", "nft")
HAS_TOOLS = all(shutil.which(tool, path=PROGRAMS) for tool in TOOLS)
NSENTER = shutil.which("nsenter")
SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYq7c31d2f0a9b"
ENVIRONMENT = {"HOME": "/home/dev", "LANG": "C.UTF-8", "USER": "dev", "SHELL": "/bin/bash"}
ENVIRONMENT |= {"PATH": "/usr/bin:/bin", "AWS_SECRET_ACCESS_KEY": SECRET}

# Runs in the namespace: makes the network, hands the sockets over, and stays until its end of the
# socket is closed. The resolver is one that stands nowhere.
HOLDER = """
import ctypes, os, socket, sys
sys.path.append(sys.argv[1])
from jail import network
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.geteuid(), os.getegid()
flags = 0x40020000 | (0x10000000 if uid else 0)
if libc.unshare(flags):
    raise OSError(ctypes.get_errno(), "unshare")
if uid:
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
    open("/proc/self/gid_map", "w").write(f"0 {gid} 1")
libc.mount(b"none", b"/", None, 0x44000, None)
for source, target in (("resolv.conf", "/etc/resolv.conf"), ("certs", "/etc/ssl/certs")):
    if libc.mount(os.path.join(sys.argv[3], source).encode(), target.encode(), None, 4096, None):
        raise OSError(ctypes.get_errno(), "mount")
with socket.socket(fileno=int(sys.argv[2])) as near:
    has_done = network.has_done
    network.has_done = lambda tool, *words: tool in sys.argv[4:] and has_done(tool, *words)
    fds = [*network.open_network(True), network.open_index()]
    socket.send_fds(near, [b"network"], fds)
    for fd in fds:
        os.close(fd)
    near.recv(1)
"""


@dataclass
class Lab:
    """The namespace, with a decoy that answers it."""

    holder: "subprocess.Popen[bytes]"
    world: World
    decoy: Decoy
    folder: Path
    names: list[str]
    prefix: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a client in the namespace."""
        options.setdefault("timeout", 60)
        environment = self.environment | options.pop("env", {})
        return subprocess.run(
            [*self.prefix, *words],
            env=environment,
            capture_output=True,
            text=True,
            **options,
        )

    def python(self, source: str, *words: str, **options: Any) -> str:
        """Run a program in the namespace: what it prints."""
        done = self.run(sys.executable, "-c", source, *words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def events(self) -> list[WorldEvent]:
        """End the decoy: all that was seen."""
        return [event for _, event in self.decoy.close()]


def requests_of(events: list[WorldEvent]) -> list[Request]:
    return [event for event in events if isinstance(event, Request)]


def conversations_of(events: list[WorldEvent]) -> list[Conversation]:
    return [event for event in events if isinstance(event, Conversation)]


def answer_questions(server: socket.socket, world: World, asked: list[str]) -> None:
    """A small resolver: tells every name, and answers from the address that was asked."""
    while True:
        try:
            message, control, _, client = server.recvmsg(4096, 256)
        except OSError:
            return
        if len(message) < DNS_HEADER_BYTES + 5:
            return
        labels, at = [], DNS_HEADER_BYTES
        while length := message[at]:
            labels.append(message[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name, kind = ".".join(labels).lower(), int.from_bytes(message[at + 1 : at + 3])
        asked.append(name)
        said = reply(message, at + 5, world.names.answer(name, kind))
        with contextlib.suppress(OSError):
            own = [entry for entry in control if entry[:2] in ((socket.SOL_IP, 8), (41, 50))]
            server.sendmsg([said], answer_from(own), 0, client)


def answer_from(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """The control messages that make an answer come from where the question went to."""
    found = []
    for level, kind, data in control:
        if level == socket.SOL_IP:
            # `interface, address to send from, address of the header`.
            found.append((level, kind, bytes(4) + data[8:12] + bytes(4)))
        else:
            found.append((level, kind, data[:16] + bytes(4)))
    return found


@contextmanager
def open_lab(
    ordinary: bool = False, tools: Sequence[str] = TOOLS, openssl: bool = True
) -> Iterator[Lab]:
    """Make the namespace, as root or as an ordinary user, and answer it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    values = {"AWS_SECRET_ACCESS_KEY": SECRET}
    world = make_world(shutil.which("openssl") if openssl else None, values, ENVIRONMENT)
    (folder / "resolv.conf").write_text("nameserver 9.9.9.9\n")
    certs = folder / "certs"
    certs.mkdir()
    world.lay_trust(certs)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = [*(ORDINARY if ordinary else ()), "/usr/bin/python3" if ordinary else sys.executable]
    holder = subprocess.Popen(
        [*words, "-c", HOLDER, str(ROOT), str(far.fileno()), str(folder), *tools],
        pass_fds=[far.fileno()],
        cwd="/",
    )
    far.close()
    _, fds, _, _ = socket.recv_fds(near, 100, 250)
    assert fds, "no network was made"
    sockets = [socket.socket(fileno=fd) for fd in fds]
    decoys = [held for held in sockets if held.getsockname()[1] not in (DNS_PORT, 3141)]
    dns = [held for held in sockets if held.getsockname()[1] == DNS_PORT]
    decoy = Decoy(world, decoys)
    decoy.start()
    asked: list[str] = []
    resolvers = [held for held in dns if held.type == socket.SOCK_DGRAM]
    threads = [start(answer_questions, server, world, asked) for server in resolvers]
    user = ("--user", "--preserve-credentials") if ordinary else ()
    # Entering a mount namespace leads to its root, unless a folder is named.
    spaces = (*user, "--net", "--mount", f"--wd={folder}")
    prefix = (str(NSENTER), f"--target={holder.pid}", *spaces, "--")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    environment |= TRUST_VARIABLES
    try:
        yield Lab(holder, world, decoy, folder, asked, prefix, environment)
    finally:
        near.close()
        holder.wait()
        if decoy.thread.is_alive():
            decoy.close()
        for server in resolvers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for held in sockets:
            held.close()
        shutil.rmtree(folder)


def start(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread
