"""What the service tells the watch of a run: lines on the run's stream.

Who sends them is the service, or has taken it over: no line is longer than it may be, and nobody
waits long for a line.
"""

import select
import socket
import time

from jail.orders import MAX_PACKET_BYTES, OrderError

MAX_UNREAD_BYTES = 2 * MAX_PACKET_BYTES  # an order, and what is known of other releases


class Inlet:
    """The one way in: lines, as they come."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.unread = b""

    def take(self) -> bool:
        """Take what has come by now: False when the service has hung up."""
        try:
            data = self.stream.recv(MAX_PACKET_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if len(self.unread) < MAX_UNREAD_BYTES:
            self.unread += data
        return bool(data)

    def line(self, wait_sec: float = 0) -> bytes | None:
        """The next line, without its end; None where none comes in time, or nobody is there.

        Raises OrderError where it has no end.
        """
        end_sec = time.monotonic() + wait_sec
        while b"\n" not in self.unread:
            if len(self.unread) >= MAX_UNREAD_BYTES:
                raise OrderError("a line without an end")
            left_sec = max(end_sec - time.monotonic(), 0)
            has_more = select.select([self.stream], [], [], left_sec)[0]
            if not has_more or not self.take():
                return None
        line, _, self.unread = self.unread.partition(b"\n")
        return line
