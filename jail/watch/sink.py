"""Takes what was sent: counts it, hashes all of it, keeps the start of it."""

import hashlib

from jail.watch.world_events import Payload
from jail.watch.wrappings import is_text

# Kept to be searched.
MAX_START_BYTES = 1 << 20
MAX_LAST_BYTES = 256 << 10
# Shown of what is not text: every byte takes four characters.
MAX_BINARY_TEXT_BYTES = 4 << 10


class Sink:
    """The bytes of one body or connection."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.digest = hashlib.sha256()
        self.start = bytearray()
        self.last = bytearray()  # of what has no room in it

    def take(self, data: bytes | bytearray | memoryview) -> None:
        self.size_bytes += len(data)
        self.digest.update(data)
        room_bytes = MAX_START_BYTES - len(self.start)
        if room_bytes > 0:
            self.start += data[:room_bytes]
        if len(data) > room_bytes:
            self.last += data[max(0, room_bytes) :]
            del self.last[:-MAX_LAST_BYTES]

    @property
    def is_whole(self) -> bool:
        """Whether all of it was kept."""
        return self.size_bytes == len(self.start) + len(self.last)

    def payload(self, max_text_bytes: int, unpacked: bytes | None = None) -> Payload:
        """What is told of it, with a text of at most so many characters.

        Args:
            max_text_bytes: of the text.
            unpacked: what to show instead of the bytes that were sent.
        """
        shown = bytes(self.start) if unpacked is None else unpacked
        if not is_text(shown):
            max_text_bytes = min(max_text_bytes, MAX_BINARY_TEXT_BYTES)
        text = shown[:max_text_bytes].decode("utf-8", "backslashreplace")[:max_text_bytes]
        is_cut = self.size_bytes > len(self.start) or len(shown) > max_text_bytes
        return Payload(self.size_bytes, self.digest.hexdigest(), text, is_cut)
