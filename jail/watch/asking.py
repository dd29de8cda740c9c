"""What a jail is asked for with: the words of its trigger, and its environment."""

from jail.orders import HOME_IN_JAIL
from jail.watch.events import PhaseName
from jail.watch.jails import WAIT
from jail.watch.resources import Resources
from jail.watch.triggers import Trigger, variables
from jail.watch.world import TRUST_VARIABLES


def ask_for_jail(
    resources: Resources,
    trigger: Trigger,
    launch: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> int:
    """Ask the run keeper for a jail with this trigger's words and environment, or others: its
    number.
    """
    environment = environment or variables(resources.order, trigger)
    environment |= resources.decoys.environment(is_in_ci=trigger.is_in_ci)
    # Keeper names the jail's host by it, and many shells and containers have it.
    environment["HOSTNAME"] = resources.host
    # A tool that looks at what lies around it finds none of the bait.
    is_at_work = trigger.phase in (PhaseName.EXECUTE, PhaseName.CALL)
    environment["PWD"] = f"{HOME_IN_JAIL}/{resources.project if is_at_work else ''}".rstrip("/")
    if resources.world and resources.world.authority:
        environment |= TRUST_VARIABLES
    has_index = trigger.phase is PhaseName.INSTALL
    return resources.jails.ask(launch or trigger.launch, environment, has_index=has_index)


def ask_ahead(resources: Resources, trigger: Trigger) -> None:
    """Ask for the jail that comes next, while one is at work: it waits for its turn."""
    number = ask_for_jail(resources, trigger, (WAIT, *trigger.launch))
    resources.jails.following = trigger.launch, number


def jail_for(resources: Resources, trigger: Trigger) -> int:
    """The jail that waits for this trigger, or a new one: its number."""
    following, resources.jails.following = resources.jails.following, None
    if following and following[0] == trigger.launch:
        return following[1]
    if following:
        resources.jails.end(following[1])
    return ask_for_jail(resources, trigger)
