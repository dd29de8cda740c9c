"""The watch of keeper's self-check: starts one jail that does nothing and says how that went."""

import json
import os
import socket
from dataclasses import asdict
from pathlib import Path

from jail.orders import (
    MAX_PACKET_BYTES,
    STARTED,
    WORK_IN_JAIL,
    Answer,
    JailSettings,
    Machine,
    Order,
    Start,
)

TRIAL_SEC = 20.0
MAX_TRIAL_BYTES = 2000  # of what the jail and nsjail say


def trial(
    settings: JailSettings,
    order: Order,
    machine: Machine,
    scratch: Path,
    control: socket.socket,
    stream: socket.socket,
) -> None:
    """Send STARTED on `stream` when a bare interpreter ran in a jail to its end, else why not.

    Called without privileges, with the arguments of a watch.
    """
    site = scratch / order.site
    site.mkdir()
    start = Start(0, ("start", f"{WORK_IN_JAIL}/{order.site}"), {}, False)
    control.settimeout(TRIAL_SEC)
    control.send(json.dumps(asdict(start)).encode())
    packet, fds, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, 16)
    answer = Answer(**json.loads(packet))
    if not answer.ended:
        answer = Answer(**json.loads(control.recv(MAX_PACKET_BYTES)))
    # What little it says has room in the pipes.
    stdout, stderr, log = (
        (os.read(fd, MAX_TRIAL_BYTES) for fd in fds[:3]) if fds else (b"", b"", b"")
    )
    if stdout.startswith(STARTED) and answer.status == 0:
        stream.sendall(STARTED)
        return
    words = (
        log or stderr or answer.error.encode() or b"the jail ended with status %d" % answer.status
    )
    stream.sendall(words)
