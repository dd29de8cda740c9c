"""HTTP as the gateway speaks it with pip: requests taken apart, pages and heads of answers made.

Hostile input: the jail's requests.
"""

import http.client
import io
import json
import re
import socket
from typing import Any, BinaryIO

MAX_REQUEST_BYTES = 16 << 10  # request line and headers

# `GET /simple/requests/ HTTP/1.1` or `GET /files/<sha256>/requests-2.32.3.tar.gz HTTP/1.1`, then
# headers: no other method, no query, no body, and the name in its one canonical form.
REQUEST = re.compile(
    rb"GET /(?:simple/(?P<project>(?=[a-z0-9-]{1,200}/)[a-z0-9]+(?:-[a-z0-9]+)*)/"
    rb"|files/(?P<sha256>[0-9a-f]{64})/(?P<file>[A-Za-z0-9._+!-]{1,255})) HTTP/1\.1\r\n"
    rb"(?:[^\r\n]+\r\n)*\r\n"
)


def page_of(project: str, files: list[dict[str, Any]]) -> BinaryIO:
    """A project's page for the jail."""
    page = {"meta": {"api-version": "1.0"}, "name": project, "files": files}
    return io.BytesIO(json.dumps(page).encode())


def read_head(connection: socket.socket) -> bytes:
    """Request line and headers, and whatever came with them; b"" when the jail has hung up."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_REQUEST_BYTES:
        data = connection.recv(MAX_REQUEST_BYTES)
        if not data:
            break
        head += data
    return head


def send_head(connection: socket.socket, status: int, length_bytes: int, content_type: str) -> None:
    """Send the head of an answer; any but 200 is the connection's last."""
    more = "" if status == 200 else "Connection: close\r\n"
    head = f"HTTP/1.1 {status} {http.client.responses[status]}\r\nContent-Type: {content_type}\r\n"
    connection.sendall(f"{head}Content-Length: {length_bytes}\r\n{more}\r\n".encode())
