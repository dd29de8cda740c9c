"""A headless Chromium that is spoken to on two pipes: for tests that look at pages as people do."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
ANSWER_SEC = 30.0
ARGUMENTS = (
    *("--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--disable-dev-shm-usage", "--disable-component-update", "--disable-sync"),
)


class Chromium:
    """One page. Messages are JSON with a zero byte at the end."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        self.write_fd, self.read_fd = write_fd, read_fd
        self.rest = b""
        self.number = 0
        self.session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]

    def ask(self, method: str, **words: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what is told meanwhile is passed over."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": words}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        deadline_sec = time.monotonic() + ANSWER_SEC
        while time.monotonic() < deadline_sec:
            while b"\0" in self.rest:
                line, _, self.rest = self.rest.partition(b"\0")
                said = json.loads(line)
                if said.get("id") == self.number:
                    assert "error" not in said, said
                    result: dict[str, Any] = said["result"]
                    return result
            data = os.read(self.read_fd, 1 << 16)
            assert data, "Chromium ended"
            self.rest += data
        raise TimeoutError(method)

    def evaluate(self, expression: str) -> Any:
        """The value of some JavaScript in the page, whatever the page's own policy is."""
        said = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def show(self, page: bytes, width: int, *, dark: bool = False) -> Self:
        """Show a page as a phone of this width does, and wait until it is laid out."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        frame = self.ask("Page.getFrameTree")["frameTree"]["frame"]["id"]
        self.ask("Page.setDocumentContent", frameId=frame, html=page.decode())
        return self

    def press(self, key: str) -> None:
        """Press a key, `Tab` or `Enter`."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        taken = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A Chromium of its own, with nothing left behind. Only where PROGRAM is one."""
    assert PROGRAM
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # It reads from descriptor 3 and writes to 4.
    move = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
    alone = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [PROGRAM, *ARGUMENTS, *alone, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(
            ["/bin/bash", "-c", move, "bash", str(to_read), str(from_write), *command],
            pass_fds=(to_read, from_write),
            env={"PATH": os.environ["PATH"], "HOME": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        try:
            yield Chromium(to_write, from_read)
        finally:
            os.close(to_write)
            os.close(from_read)
            process.kill()
            process.wait()
