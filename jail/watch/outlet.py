"""What the watch of a run tells the service: frames on one stream."""

import contextlib
import json
import socket
import threading
import traceback

from jail.watch.events import NotRun, Omission, PhaseName

MAX_PROGRESS_FRAMES = 500
MAX_PROGRESS_BYTES = 300
MAX_COMPLAINTS = 16  # the service takes a few more, and then nothing of the run
MAX_COMPLAINT_BYTES = 4000


class Outlet:
    """The one way out: frames on the stream to the service, `b"<name> <length>\\n"` and that many
    bytes.
    """

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.lock = threading.Lock()
        self.left_progress = MAX_PROGRESS_FRAMES
        self.faults = 0  # of ours that there was a complaint about

    def send(self, name: str, data: bytes = b"") -> None:
        """Send a frame. Raises OSError when the service is gone."""
        with self.lock:
            self.stream.sendall(f"{name} {len(data)}\n".encode() + data)

    def progress(self, text: str) -> None:
        """Say what is about to start."""
        self.left_progress -= 1
        if self.left_progress >= 0:
            self.send("progress", text.encode()[:MAX_PROGRESS_BYTES])

    def summary(self, outcome: str, reason: str, verdict: str) -> None:
        """Say how the run went."""
        self.send(
            "summary",
            json.dumps({"outcome": outcome, "reason": reason, "verdict": verdict}).encode(),
        )


def complain(outlet: Outlet, fault: BaseException | None) -> None:
    """Tell the service of a fault of ours, for its log; of many only the first are told."""
    outlet.faults += 1
    if outlet.faults > MAX_COMPLAINTS:
        return
    words = "".join(traceback.format_exception(fault)).encode(errors="replace")
    # The service may be gone, too.
    with contextlib.suppress(OSError):
        outlet.send("complaint", words[-MAX_COMPLAINT_BYTES:])


def seen_by_nobody(outlet: Outlet) -> list[NotRun]:
    """A gap, where threads that read what the jail does have ended with a fault: what they would
    have seen may have been anything.
    """
    if not outlet.faults:
        return []
    count = "a part" if outlet.faults == 1 else f"{outlet.faults} parts"
    reason = f"not all was watched: {count} of the watch failed, the service's log says how"
    return [NotRun(PhaseName.INSTALL, None, Omission.LEFT_OUT, reason)]
