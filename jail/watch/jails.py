"""The jails of a run, as watch asks the run keeper for them: one at work, and the next, that waits.

What that waits for is that somebody reads what it prints: its launcher fills the pipe before it
says that it is there. We alone have the other end. So no package, at work in the jail before, can
let it begin. It can leave it no memory or process: then it is made anew. It may guess that it is
there, and reaches nothing of it.
"""

import contextlib
import json
import os
import socket
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence

from jail.orders import JAIL_FDS, MAX_PACKET_BYTES, Answer, Kill, Start
from jail.watch.sockets import MAX_NETWORK_SOCKETS

# What the launcher of a jail that waits prints first, and the word that tells it to.
FILL, WAIT = b"\0", "wait"
# Of what a jail has left in the FIFO, which would be taken for the next one's. Who splices into it
# fills its pages anew, while we read: more than a pipe holds.
MAX_LAST_READS, READ_BYTES = 4096, 1 << 16


class Jails:
    """Asks for jails, and takes the answers; `control` leads to the run keeper.

    `following` is the jail that waits to be the next, by its words; `is_gone`, that the run keeper
    has ended.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.count = 0
        self.following: tuple[Sequence[str], int] | None = None
        self.is_gone = False
        # What was answered about a jail before anybody asked for that.
        self.early: defaultdict[int, list[tuple[Answer, list[int]]]] = defaultdict(list)

    def ask(self, launch: Sequence[str], environment: Mapping[str, str], *, has_index: bool) -> int:
        """Ask for a jail with these words for its launcher: its number."""
        number, self.count = self.count, self.count + 1
        start = Start(number, tuple(launch), dict(environment), has_index)
        self.control.send(json.dumps(start._asdict()).encode())
        return number

    def kill(self, number: int) -> None:
        """Ask for the end of a jail."""
        self.control.send(json.dumps(Kill(number)._asdict()).encode())

    def end(self, number: int) -> None:
        """End a jail in which nothing of a package has run, and of which nobody will hear: what its
        pip has told already is not the next one's.
        """
        self.kill(number)
        answers = self.known(number)
        while not any(answer.ended for answer, _ in answers):
            self.receive()
            answers += self.known(number)
        for _, fds in answers:
            # The view of its processes came alone.
            if len(fds) > 1:
                deque(said_on(fds[JAIL_FDS.index("audit")], MAX_LAST_READS), 0)
            for fd in fds:
                os.close(fd)

    def receive(self) -> None:
        """Wait for an answer, and keep it for who asks."""
        most_fds = len(JAIL_FDS) + MAX_NETWORK_SOCKETS
        packet, fds, _, _ = socket.recv_fds(self.control, MAX_PACKET_BYTES, most_fds)
        self.is_gone = not packet
        if packet:
            answer = Answer(**json.loads(packet))
            self.early[answer.jail].append((answer, fds))

    def known(self, number: int) -> list[tuple[Answer, list[int]]]:
        """What was answered about a jail by now, with the descriptors that came with it."""
        answers = self.early.pop(number, [])
        if self.is_gone and not any(answer.ended for answer, _ in answers):
            answers.append((Answer(number, True, error="the run keeper ended"), []))
        return answers


def said_on(fd: int, most_reads: int) -> Iterator[bytes]:
    """What is in the FIFO of the Python witness by now."""
    with contextlib.suppress(BlockingIOError):
        for _ in range(most_reads):
            yield os.read(fd, READ_BYTES)
