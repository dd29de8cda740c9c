# Keeper as a program: python -I -S jail/__main__.py, with the service's socket for orders as its
# input.

import sys

# Our own package comes last, so that nothing beside it stands for a module of the library.
sys.path.append(__file__.rpartition("/jail/")[0])

import contextlib
import os
import socket

from jail import orders
from jail.keeper import House, serve, try_jail
from jail.machine import MachineError, prepare

# All that the watch of the self-check needs is loaded here, and the rest before the first order:
# its user may not be able to read our files.
from jail.watch.trial import no_jail, trial


# Take the settings, tell what works here, and serve the service until it ends.
def main() -> None:
    os.umask(0o022)
    service = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    settings = orders.parse_settings(service.recv(orders.MAX_PACKET_BYTES))
    with contextlib.suppress(ConnectionError):
        try:
            found, told = prepare(settings, lambda found: try_jail(House(settings, found, trial)))
        except (MachineError, OSError) as error:
            service.send(no_jail(str(error)))
            return
        service.send(told)
        from jail.watch.main import watch

        serve(service, House(settings, found, watch))


main()
