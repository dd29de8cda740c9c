"""What the watch of a run tells the service: frames on one stream."""

import contextlib
import json
import socket
import threading
import traceback

MAX_PROGRESS_FRAMES = 500
MAX_PROGRESS_BYTES = 300
MAX_COMPLAINT_BYTES = 4000


class Outlet:
    """The one way out: frames on the stream to the service, `b"<name> <length>\\n"` and that many
    bytes.
    """

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.lock = threading.Lock()
        self.left_progress = MAX_PROGRESS_FRAMES

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
    """Tell the service of a fault of ours, for its log."""
    words = "".join(traceback.format_exception(fault)).encode(errors="replace")
    # The service may be gone, too.
    with contextlib.suppress(OSError):
        outlet.send("complaint", words[-MAX_COMPLAINT_BYTES:])
