"""What a jail prints, as much of it as is kept."""

from jail.watch.events import Printed


class Output:
    """What was written to one of the jail's pipes: up to `max_bytes` of its start, and how much it
    was.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.kept = bytearray()
        self.size_bytes = 0

    def take(self, data: bytes) -> None:
        """Keep what there is room for."""
        self.size_bytes += len(data)
        self.kept += data[: self.max_bytes - len(self.kept)]

    def drop_start(self, size_bytes: int) -> None:
        """Forget the first bytes."""
        del self.kept[:size_bytes]
        self.size_bytes -= size_bytes

    def printed(self) -> Printed:
        """As the report has it."""
        text = self.kept.decode("utf-8", "replace")
        return Printed(text, self.size_bytes, self.size_bytes > len(self.kept))
