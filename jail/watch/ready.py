"""A jail that stands, with all of pip loaded, and waits for what to install; and a run that is made
ready before its request is there, by such a jail.

Such a run is as fresh as any other: one run, with a scratch, bait, a world and a jail of its own,
and no byte of a package until the request is there. Who sends that is the service, or has taken it
over: it is checked as keeper checks an order.
"""

import json
import os
import secrets
from pathlib import Path

from jail.orders import GRACE_SEC, SCRATCH_FOLDERS, Order, parse_order
from jail.watch.asking import ask_for_jail
from jail.watch.inlet import Inlet
from jail.watch.resources import Resources
from jail.watch.triggers import PATH_IN_JAIL, Trigger, installation, variables

READY_SEC = float(GRACE_SEC["ready"] - GRACE_SEC["triage"])
# Of an installation's variables, those that tell what is installed.
NAMING_VARIABLES = ("VIRTUAL_ENV", "PIP_NO_COMPILE")


def make_fifo(folder: Path) -> Path:
    """A FIFO in the scratch, for a jail that is made ready. Raises OSError."""
    path = folder / "tmp" / secrets.token_hex(8)
    os.mkfifo(path, 0o600)
    return path


class ReadyJail:
    """A jail that installs, and the FIFO on which it hears what. To be made while nothing of a
    package runs, which could find the FIFO: before all, or for what the package misses.
    """

    def __init__(self, resources: Resources, path: Path) -> None:
        self.resources, self.path = resources, path
        # Open for reading, too: so nobody has to wait for the other, and what is written stays.
        self.fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        trigger = installation(resources.order, resources.settings.run_timeout_sec)
        environment = variables(resources.order, trigger) | {"PATH": PATH_IN_JAIL}
        for variable in NAMING_VARIABLES:
            environment.pop(variable, None)
        launch = ("ready", f"{SCRATCH_FOLDERS['tmp']}/{path.name}")
        self.number = ask_for_jail(resources, trigger, launch, environment)

    def install(self, trigger: Trigger) -> int:
        """Tell it what the order now says: the number of the jail."""
        said = {
            "words": trigger.launch[1:],
            "variables": variables(self.resources.order, trigger),
        }
        os.write(self.fd, json.dumps(said).encode() + b"\n")
        return self.number

    def cancel(self) -> None:
        """There is nothing to install."""
        self.resources.jails.end(self.number)
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


def await_order(inlet: Inlet) -> Order | None:
    """The order of the run, on a line of its own; None when nobody wants it any more.

    `b'{"task": "triage", "run_id": "0af3...", "package_name": "six", "version": "1.17.0", ...}\\n'`

    Raises OrderError.
    """
    line = inlet.line(READY_SEC)
    return None if line is None else parse_order(line)
