"""The release before the one that is triaged: it is loaded while the jails run, and compared when
they have ended, so that no witness has to wait for it.

At most one file is loaded, from the hosts that the run may ask, by the sha256 that the index names,
and it counts towards what the run may load. Of a file in hand, the project's page comes before it.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from jail.watch.comparison import compare_releases
from jail.watch.events import Downloaded
from jail.watch.gateway import Gateway
from jail.watch.members import read_archive
from jail.watch.releases import ReleaseFile, earlier_file, parse_file, version_key
from jail.watch.resources import Resources
from jail.watch.upstream import NamedFile, Refused, Upstream

MAX_EARLIER_BYTES = 64 << 20
MAX_WAIT_SEC = 3.0  # for a download that is still under way when the jails have ended
MIN_LEFT_SEC = 10.0  # of the run's budget, to begin to compare
MAX_HOSTS_WAIT_SEC = 15.0  # until it is known from which hosts files may come
LATE = "it was not loaded in time"


class EarlierRelease:
    """Of the target. To be made when it is installed."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.target, self.sha256 = find_target(resources)
        self.earlier: ReleaseFile | None = None
        self.named: NamedFile | None = None
        self.is_chosen = False
        self.is_loaded = False
        self.failure = ""
        self.thread: threading.Thread | None = None

    def begin(self) -> None:
        """Choose the release, and load it in a thread."""
        if not self.target:
            return
        if not self.resources.given.in_hand:
            self.choose(self.target, self.resources.upstream.files)
            if not self.named:
                return
        self.thread = threading.Thread(target=self.load, args=(self.target,), daemon=True)
        self.thread.start()

    def choose(self, target: ReleaseFile, files: Mapping[str, NamedFile]) -> None:
        """Choose among the files that the project's page names."""
        names = [name for name, file in files.items() if not file.is_yanked]
        self.earlier = earlier_file(target, names)
        self.named = files[self.earlier.name] if self.earlier else None
        self.is_chosen = True

    def load(self, target: ReleaseFile) -> None:
        """Load the file into the cache, where it may be already."""
        try:
            # pip has not asked for the page of a file in hand.
            if not self.is_chosen:
                self.choose(target, self.ask_index())
            if self.named:
                self.fill_cache(self.named)
        except (Refused, OSError, ValueError) as error:
            self.failure = str(error)

    def ask_index(self) -> Mapping[str, NamedFile]:
        """The files that the index's page of the project names. Raises Refused."""
        shared = self.resources.upstream
        shared.ready.wait(MAX_HOSTS_WAIT_SEC)
        if shared.failure:
            raise Refused(502, shared.failure)
        with self.lent() as own:
            order, cache = self.resources.order, self.resources.cache
            gateway = Gateway(order, (), own, cache, lambda *_: False, lambda _: None)
            gateway.page(order.package_name).close()
            return own.files

    def fill_cache(self, named: NamedFile) -> None:
        """Load the file, unless an earlier run has. Raises Refused."""
        cache = self.resources.cache
        kept = cache.find(named.sha256)
        if not kept:
            with self.lent() as own:
                kept = cache.download(own, named.url, named.sha256)
        kept.close()
        self.is_loaded = True

    @contextlib.contextmanager
    def lent(self) -> Iterator[Upstream]:
        """A connection of our own, since pip may be at work with the other, and bytes for it."""
        shared = self.resources.upstream
        with shared.lock:
            most_bytes = min(MAX_EARLIER_BYTES, shared.left_bytes // 2)
            shared.left_bytes -= most_bytes
        own = Upstream(shared.url, most_bytes)
        own.hosts = shared.hosts
        try:
            yield own
        finally:
            with shared.lock:
                shared.left_bytes += max(own.left_bytes, 0)

    def report(self) -> dict[str, Any]:
        """What is new, for the report; why nothing can be said of it."""
        about: dict[str, Any] = {"earlier": None, "file": None, "reason": None}
        if not self.target:
            return about | {"reason": "the file that was installed is not known"}
        about["file"] = self.target.name
        has_time = self.resources.end_sec - time.monotonic() >= MIN_LEFT_SEC
        if self.thread and has_time:
            self.thread.join(MAX_WAIT_SEC)
        if not self.earlier or not self.named:
            return about | {"reason": self.why_none(self.target)}
        earlier = {"version": self.earlier.version, "file": self.earlier.name}
        about["earlier"] = earlier | {"sha256": self.named.sha256}
        if not has_time:
            return about | {"reason": "there was no time left to compare them"}
        if not self.is_loaded:
            reason = self.failure or LATE
            return about | {"reason": f"{self.earlier.name} can't be compared: {reason}"}
        return about | self.compare(self.earlier, self.named, self.target)

    def why_none(self, target: ReleaseFile) -> str:
        """Why there is no release to compare with."""
        if not self.is_chosen:
            return f"no earlier release is known: {self.failure or LATE}"
        kind = "wheel" if target.is_wheel else "source distribution"
        return f"the index has no earlier release with a {kind}"

    def compare(
        self, earlier: ReleaseFile, named: NamedFile, target: ReleaseFile
    ) -> dict[str, Any]:
        """Both files as the cache has them, checked again."""
        archives = []
        for file, digest in ((earlier, named.sha256), (target, self.sha256)):
            kept = self.resources.cache.find(digest)
            if not kept:
                return {"reason": f"{file.name} is not in the cache any more"}
            with kept:
                archives.append(read_archive(file.name, kept))
        return compare_releases(*archives)


def find_target(resources: Resources) -> tuple[ReleaseFile | None, str]:
    """The file of the order's release that was given out, and its sha256: the index's, or that of
    what stood in its place.
    """
    order = resources.order
    for seen in resources.record.seen:
        if not isinstance(seen.event, Downloaded):
            continue
        file = parse_file(seen.event.file)
        is_targets = file is not None and file.project == order.package_name
        if file and is_targets and file.key == version_key(order.version):
            return file, seen.event.sha256
    return None, ""
