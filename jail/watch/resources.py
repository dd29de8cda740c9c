"""What the jails of a run share, and the one place where the events of a phase are taken."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from jail.orders import JailSettings, Machine, Order
from jail.watch.decoys import Decoys
from jail.watch.dropped import Dropped
from jail.watch.events import Event, Exec, Phase
from jail.watch.evidence import Evidence
from jail.watch.inlet import Inlet
from jail.watch.installed import Installed
from jail.watch.jails import Jails
from jail.watch.record import Record
from jail.watch.sample import BesideIndex
from jail.watch.scratch import FileState, Scratch
from jail.watch.served import SecondStages
from jail.watch.upstream import PackageCache, Upstream
from jail.watch.world import World

MAX_OUTPUTS_BYTES = 32 << 20  # kept of what all jails of a run print


@dataclass
class Resources:
    """What all jails of a run share.

    `end_sec` is when the run's budget is spent, by time.monotonic.
    """

    settings: JailSettings
    order: Order
    machine: Machine
    jails: Jails
    inlet: Inlet
    scratch: Scratch
    decoys: Decoys
    record: Record
    evidence: Evidence
    upstream: Upstream
    cache: PackageCache
    given: BesideIndex
    cgroup_id: str = ""  # which its cgroups bear: of a run made ready, not that of its order
    host: str = "localhost"  # as the jail's host is called
    project: str = ""  # an empty folder in the home
    end_sec: float = float("inf")
    world: World | None = None
    stages: SecondStages | None = None
    reach: str = "off"  # of the decoy internet, in the last jail
    states: dict[str, FileState] = field(
        default_factory=dict
    )  # of the scratch after the last phase
    oom_kills: int = 0
    left_output_bytes: int = MAX_OUTPUTS_BYTES  # that may still be kept
    installed: Installed = field(default_factory=Installed)
    release: set[str] = field(default_factory=set)  # the names of the target's files
    dropped: Dropped = field(default_factory=Dropped)
    # The time of a clock that can't jump.
    epoch_sec: float = field(default_factory=lambda: time.time() - time.monotonic())

    def now_sec(self) -> float:
        """Seconds since 1970."""
        return self.epoch_sec + time.monotonic()


class Journal:
    """Takes the events of one phase, from several threads; what comes after its end does not go to
    the next phase.
    """

    def __init__(self, resources: Resources, phase: Phase) -> None:
        self.resources = resources
        self.phase = phase
        self.lock = threading.Lock()
        self.is_open = True
        self.lost: Counter[str] = Counter()

    def tell(self, event: Event, at_sec: float | None = None) -> bool:
        """Record an event, of now unless told: whether there was room for it.

        What the decoy internet served may be part of it. What a served script does is no event.
        """
        at_sec = at_sec or self.resources.now_sec()
        record, stages = self.resources.record, self.resources.stages
        with self.lock:
            if not self.is_open:
                return False
            stage = stages.of_event(event) if stages else None
            if stage:
                record.add(self.phase, stage, at_sec)
            if stages and isinstance(event, Exec) and stages.is_own_act(event):
                return True
            return record.add(self.phase, event, at_sec)

    def lose(self, kind: str, count: int = 1) -> None:
        """Count what was not kept or not looked at."""
        with self.lock:
            if self.is_open and count:
                self.lost[kind] += count
                self.resources.record.lose(self.phase, kind, count)

    def close(self) -> None:
        """The phase is over."""
        with self.lock:
            self.is_open = False
