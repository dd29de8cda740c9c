"""What a run needs before its first jail: bait and a home around it, a machine that is made up, the
index, the decoy internet.

It reads nothing that a package made, but for a file in hand.
"""

import shutil
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from jail.orders import PROGRAMS, JailSettings, Machine, Order
from jail.watch.decoys import Decoys
from jail.watch.environment import lay_machine
from jail.watch.events import Event, Finding, Phase, PhaseName
from jail.watch.evidence import Evidence
from jail.watch.home_files import Home
from jail.watch.inlet import Inlet
from jail.watch.jails import Jails
from jail.watch.payload import Search
from jail.watch.ready import await_order
from jail.watch.record import Record
from jail.watch.resources import Resources
from jail.watch.sample import make_given
from jail.watch.scratch import Scratch
from jail.watch.served import SecondStages
from jail.watch.tools import lay_out_tools
from jail.watch.triggers import Trigger, variables
from jail.watch.upstream import PackageCache, Upstream
from jail.watch.world import make_world


def prepare_run(
    settings: JailSettings,
    order: Order,
    machine: Machine,
    folder: Path,
    control: socket.socket,
    stream: socket.socket,
    fds: Sequence[int],
    judge: Callable[[Phase, Event], tuple[Finding, ...]],
) -> tuple[Resources, str]:
    """What the jails of a run share; and why it can't be run, "" if it can. Raises OSError.

    Args:
        folder: the run's scratch.
        fds: the descriptor of a file in hand, if there is one.
        judge: gives the findings of an event.
        control, stream: to the run keeper, and to the service.
    """
    evidence, cache = Evidence(), PackageCache(Path(machine.cache))
    given, trouble = make_given(order, fds, cache, settings, folder / "../samples")
    # The home comes after the bait: it gives their folders an age, too.
    decoys, lived_in = Decoys(folder / "home"), Home(folder / "home")
    resources = Resources(
        host=lay_machine(folder, settings, machine),  # before the disk is looked at
        settings=settings,
        order=order,
        machine=machine,
        jails=Jails(control),
        inlet=Inlet(stream),
        scratch=Scratch(folder, settings.max_disk_bytes),
        decoys=decoys,
        record=Record(judge, evidence.keep),
        evidence=evidence,
        upstream=Upstream(machine.index_url, settings.max_download_bytes),
        cache=cache,
        given=given,
        cgroup_id=order.run_id,
        project=lived_in.project,
    )
    resources.upstream.is_needed = given.in_hand is None
    if settings.decoy_internet:
        openssl = shutil.which("openssl", path=PROGRAMS)
        resources.world = make_world(openssl, resources.decoys.values, {})
        resources.stages = SecondStages(resources.world.marks)
        resources.world.lay_trust(folder / "etc/ssl/certs")
    lay_out_tools(folder / "bin")
    learn_hosts(resources)
    resources.states = resources.scratch.snapshot()
    return resources, trouble


def learn_hosts(resources: Resources) -> None:
    """Ask the index from which hosts files may come, while the first jail is being made."""
    configured = resources.settings.index_file_hosts
    resources.upstream.ready.clear()
    ask = threading.Thread(target=resources.upstream.learn_hosts, args=(configured,), daemon=True)
    ask.start()


def take_order(resources: Resources) -> bool:
    """Wait for the order of a run that was made ready: False when none comes."""
    order = await_order(resources.inlet)
    if order is None:
        return False
    resources.order = resources.given.order = order
    # The index may have come back.
    if resources.upstream.failure:
        learn_hosts(resources)
    return True


def know_environment(resources: Resources) -> None:
    """Tell the decoy internet what a jail's environment is, of which it looks for the whole."""
    if resources.world:
        start = Trigger(PhaseName.START, None, ("start",))
        environment = variables(resources.order, start) | resources.decoys.variables
        resources.world.search = Search(resources.decoys.values, environment)
