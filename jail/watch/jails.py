"""The jails of a run, as watch asks the run keeper for them: one at work, and the next, that waits.

What that waits for is that somebody reads what it prints: its launcher fills the pipe before it
says that it is there. We alone have the other end. So no package, at work in the jail before, can
let it begin, keep it from that, or see that it is there.
"""

import json
import os
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence

from jail.orders import JAIL_FDS, MAX_PACKET_BYTES, Answer, Kill, Start
from jail.watch.sockets import MAX_NETWORK_SOCKETS

# What the launcher of a jail that waits prints first, and the word that tells it to.
FILL, WAIT = b"\0", "wait"


class Jails:
    """Asks for jails, and takes the answers; `control` leads to the run keeper.

    `waiting` is the number of the jail that waits to be the next; `is_gone`, that the run keeper
    has ended.
    """

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.count = 0
        self.waiting: int | None = None
        self.is_gone = False
        self.given_up: set[int] = set()
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

    def give_up(self, number: int) -> None:
        """Ask for the end of a jail that nobody will hear of."""
        self.kill(number)
        self.given_up.add(number)
        self.close(number)

    def close(self, number: int) -> None:
        """Close the descriptors of a jail, and forget what was answered."""
        for _, fds in self.early.pop(number, []):
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
        for number in self.given_up:
            self.close(number)

    def known(self, number: int) -> list[tuple[Answer, list[int]]]:
        """What was answered about a jail by now, with the descriptors that came with it."""
        answers = self.early.pop(number, [])
        if self.is_gone and not any(answer.ended for answer, _ in answers):
            answers.append((Answer(number, True, error="the run keeper ended"), []))
        return answers
