"""What is run once more, when what a package had missed is there."""

import dataclasses

from reports import SETTINGS

from jail.orders import Order
from jail.watch.events import Outcome, Phase, PhaseName
from jail.watch.second_try import tries_again
from jail.watch.triggers import Trigger

ORDER = Order("triage", "0" * 32, "asks", "1.0", "detonate")
ALONE = [Trigger(PhaseName.IMPORT, name, ("import", name)) for name in ("asks", "serves")]


def run_again(*phases: Phase) -> list[str | None]:
    triggers = tries_again(["helper"], ALONE, phases, ORDER, SETTINGS)
    return [trigger.title for trigger in triggers]


def test_what_failed_is_imported_again_once_the_rest_is_installed() -> None:
    fine = Phase(PhaseName.IMPORT, "asks", Outcome.OK)
    failed = Phase(PhaseName.IMPORT, "serves", Outcome.FAILED)
    assert run_again(fine, failed) == ["of helper", "serves"]


def test_a_program_that_failed_says_nothing_of_the_module_of_its_name() -> None:
    fine = Phase(PhaseName.IMPORT, "asks", Outcome.OK)
    failed = dataclasses.replace(fine, name=PhaseName.EXECUTE, outcome=Outcome.FAILED)
    assert run_again(fine, failed) == ["of helper"]


def test_without_anything_to_install_nothing_is_run_again() -> None:
    failed = Phase(PhaseName.IMPORT, "asks", Outcome.FAILED)
    assert tries_again([], ALONE, [failed], ORDER, SETTINGS) == []
