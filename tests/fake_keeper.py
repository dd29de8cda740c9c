"""In place of jail/__main__.py: plays keeper and watch as the name of the package says.

Started like keeper, with the socket of the orders as standard input. A name stands for what its
watch does; "refused" is an order that is not taken the first time.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

WHOLE = b'{"phases": [], "findings": [], "coverage": {"notes": ["caf\\u00e9"]}}'
EMBED = {
    "title": "tiny 1.0",
    "description": "all went well",
    "fields": [],
    "image": {"url": "https://evil.example/pixel.png"},
    "footer": {"text": "another footer"},
}


def send(stream: socket.socket, name: str, data: bytes = b"") -> None:
    stream.sendall(f"{name} {len(data)}\n".encode() + data)


def send_summary(stream: socket.socket, outcome: str, verdict: str, reason: str = "") -> None:
    said = {"outcome": outcome, "reason": reason, "verdict": verdict}
    send(stream, "summary", json.dumps(said).encode())


def send_report(stream: socket.socket, outcome: str, text: bytes) -> None:
    send_summary(stream, outcome, "clean", "as it \x1b[2J should be")
    send(stream, "report", WHOLE)
    send(stream, "evidence", b"evidence")
    send(stream, "dropped", b"dropped")
    send(stream, "page", b"<!doctype html>page")
    send(stream, "embed", json.dumps(EMBED).encode())
    send(stream, "text", text)
    send(stream, "end")


def status(pid: int) -> bytes:
    """The lines of privileges of every thread."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    lines = b"\n".join((thread / "status").read_bytes() for thread in threads)
    return lines.replace(b"\t", b" ")


def play(order: dict[str, Any], stream: socket.socket) -> None:
    if order["task"] == "hosts":
        send(stream, "text", b"files.example\n$(reboot)\nmore.example:8443\n")
        send(stream, "report", b'{"phases": []}')
        send(stream, "embed", json.dumps(EMBED).encode())
        send_summary(stream, os.environ.get("FAKE_INDEX", "ok"), "unseen", "no answer")
        send(stream, "end")
        return
    name = order["package_name"]
    if name == "silent":
        return
    send(stream, "progress", b"install")
    if name == "dies":
        send(stream, "progress", b"import dies \x1b[2J")
        return
    if name == "complains":
        send(stream, "complaint", b"Traceback\n2026-01-01 00:00:00 INFO \x1b[2Jforged\xff")
        return
    if name == "babbles":
        stream.sendall(b"hello, world\n")
    if name == "floods":
        stream.sendall(b"progress 1\nx" * 501)
    if name in ("hangs", "stops"):
        while stream.recv(1):
            pass
        if name == "hangs":
            threading.Event().wait()
        send_report(stream, "interrupted", b"interrupted\n")
        return
    if name == "kills":
        os._exit(1)
    send_report(stream, "ok", status(os.getppid()) if name == "status" else b"tiny 1.0: clean\n")


def run(order: dict[str, Any], stream: socket.socket) -> None:
    with stream:
        try:
            play(order, stream)
        except OSError as error:
            print(f"the service hung up: {error}", file=sys.stderr)


def main() -> None:
    """Ends without a word when the service does."""
    with contextlib.suppress(ConnectionError):
        serve()


def serve() -> None:
    orders = socket.socket(fileno=os.dup(0))
    settings = json.loads(orders.recv(1 << 17))
    folder = Path(settings["state_dir"])
    told = {
        "user": os.geteuid(),
        "environment": sorted(set(os.environ) - {"LC_CTYPE"}),
        "settings": settings,
        "orders": (taken := []),
    }
    note = folder.parent / "keeper.json"
    note.write_text(json.dumps(told))
    if (folder.parent / "slow").exists():
        (folder.parent / "slow").read_bytes()
    works = not (folder.parent / "broken").exists()
    check = {"name": "namespaces", "passed": works, "required": True, "detail": "tried"}
    checks = {"checks": [check], "works": works, "default_index": True}
    packet = json.dumps(checks | {"index_url": "https://index.example/simple"}).encode()
    orders.send(packet)
    while True:
        packet, fds, _, _ = socket.recv_fds(orders, 1 << 17, 4)
        if not packet:
            return
        order = json.loads(packet)
        # None is ever made ready here.
        if order["task"] == "ready":
            socket.socket(fileno=fds[0]).close()
            continue
        taken.append(order)
        note.write_text(json.dumps(told))
        stream = socket.socket(fileno=fds[0])
        if order["package_name"] == "refused" and len(taken) == 1:
            stream.close()
            continue
        threading.Thread(target=run, args=(order, stream), daemon=True).start()


if __name__ == "__main__":
    main()
