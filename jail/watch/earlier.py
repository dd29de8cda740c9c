"""The release before the one that is triaged: it is loaded while the jails run, and compared when
they have ended, so that no witness has to wait for it.

At most one file is loaded, from the hosts that the run may ask, by the sha256 that the index names,
and it counts towards what the run may load.
"""

import threading
import time
from typing import Any

from jail.watch.comparison import compare_releases
from jail.watch.events import Downloaded
from jail.watch.members import read_archive
from jail.watch.releases import ReleaseFile, earlier_file, parse_file, version_key
from jail.watch.resources import Resources
from jail.watch.upstream import NamedFile, Refused, Upstream

MAX_EARLIER_BYTES = 64 << 20
MAX_WAIT_SEC = 3.0  # for a download that is still under way when the jails have ended
MIN_LEFT_SEC = 10.0  # of the run's budget, to begin to compare


class EarlierRelease:
    """Of the target. To be made when it is installed."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.target = find_target(resources)
        self.earlier: ReleaseFile | None = None
        self.named: NamedFile | None = None
        self.is_loaded = False
        self.failure = ""
        self.thread: threading.Thread | None = None

    def begin(self) -> None:
        """Choose the release, and load it in a thread."""
        files = self.resources.upstream.files
        if self.target:
            names = [name for name, file in files.items() if not file.is_yanked]
            self.earlier = earlier_file(self.target, names)
        if self.earlier:
            self.named = files[self.earlier.name]
            self.thread = threading.Thread(target=self.load, args=(self.named,), daemon=True)
            self.thread.start()

    def load(self, named: NamedFile) -> None:
        """Load the file into the cache, where it may be already."""
        try:
            kept = self.resources.cache.find(named.sha256)
            if kept:
                kept.close()
            else:
                self.download(named)
            self.is_loaded = True
        except (Refused, OSError, ValueError) as error:
            self.failure = str(error)

    def download(self, named: NamedFile) -> None:
        """Load it on a connection of our own: pip may be at work with the other. Raises Refused."""
        shared = self.resources.upstream
        with shared.lock:
            most_bytes = min(MAX_EARLIER_BYTES, shared.left_bytes // 2)
            shared.left_bytes -= most_bytes
        own = Upstream(shared.url, most_bytes)
        own.hosts = shared.hosts
        try:
            self.resources.cache.download(own, named.url, named.sha256).close()
        finally:
            with shared.lock:
                shared.left_bytes += max(own.left_bytes, 0)

    def report(self) -> dict[str, Any]:
        """What is new, for the report; why nothing can be said of it."""
        about: dict[str, Any] = {"earlier": None, "file": None, "reason": None}
        if not self.target:
            return about | {"reason": "the file that was installed is not known"}
        about["file"] = self.target.name
        if not self.earlier or not self.named:
            kind = "wheel" if self.target.is_wheel else "source distribution"
            return about | {"reason": f"the index has no earlier release with a {kind}"}
        earlier = {"version": self.earlier.version, "file": self.earlier.name}
        about["earlier"] = earlier | {"sha256": self.named.sha256}
        if self.resources.end_sec - time.monotonic() < MIN_LEFT_SEC:
            return about | {"reason": "there was no time left to compare them"}
        if self.thread:
            self.thread.join(MAX_WAIT_SEC)
        if not self.is_loaded:
            reason = self.failure or "it was not loaded in time"
            return about | {"reason": f"{self.earlier.name} can't be compared: {reason}"}
        return about | self.compare(self.earlier, self.named, self.target)

    def compare(
        self, earlier: ReleaseFile, named: NamedFile, target: ReleaseFile
    ) -> dict[str, Any]:
        """Both files as the cache has them, checked again."""
        archives = []
        own = self.resources.upstream.files[target.name]
        for file, digest in ((earlier, named.sha256), (target, own.sha256)):
            kept = self.resources.cache.find(digest)
            if not kept:
                return {"reason": f"{file.name} is not in the cache any more"}
            with kept:
                archives.append(read_archive(file.name, kept))
        return compare_releases(*archives)


def find_target(resources: Resources) -> ReleaseFile | None:
    """The file of the order's release that was loaded."""
    order = resources.order
    for seen in resources.record.seen:
        if not isinstance(seen.event, Downloaded):
            continue
        file = parse_file(seen.event.file)
        is_targets = file is not None and file.project == order.package_name
        is_known = file is not None and file.name in resources.upstream.files
        if file and is_targets and is_known and file.key == version_key(order.version):
            return file
    return None
