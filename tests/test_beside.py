"""The children of the launcher that only read: how each ended is known, whoever reaped it."""

import os
import signal
import time
from pathlib import Path

import pytest
from conftest import Triage
from standins import Index, wait_for

from jail.inside.beside import begin, came_to_end, in_child, note, statuses
from jail.inside.fallen import UNMET_NOT_LOOKED_AT
from jail.inside.source_look import SourceLook
from jail.inside.supervise import reap_orphans

ACT = "try:\n    import numpy\n    exec(x)\nexcept ImportError:\n    pass\n"
ENDS_OTHERS = "import os, signal\nos.kill(-1, signal.SIGKILL)\n"


def fail() -> None:
    raise OSError("it can't be read")


def wait_long() -> None:
    time.sleep(60)


def test_a_child_came_to_its_end_only_if_its_work_did() -> None:
    assert in_child(lambda: None)
    assert not in_child(fail)
    assert not in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_what_another_has_reaped_is_not_forgotten() -> None:
    """The supervisor reaps all that ends, while it waits for its worker."""
    fine, ended = begin(lambda: None), begin(wait_long)
    os.kill(ended, signal.SIGKILL)

    def are_reaped() -> bool:
        reap_orphans(-1)
        return None not in (statuses[fine], statuses[ended])

    wait_for(are_reaped, 30)
    assert came_to_end(fine)
    assert not came_to_end(ended)


def test_a_number_that_comes_again_is_another_s() -> None:
    ended = begin(fail)
    assert not came_to_end(ended)
    note(ended, 0)
    assert not came_to_end(ended)


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "as it is"])
def test_a_look_that_does_not_come_to_its_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    (tmp_path / "asks.py").write_text(ACT)
    tell = tmp_path / "tell"
    tell.touch()
    look = SourceLook([str(tell), "", "", str(tmp_path), "", "asks"], 30.0)
    if ends:
        monkeypatch.setattr("jail.inside.gates.tell_gates", lambda *_: os._exit(1))
    look.begin()
    look.end()
    assert (UNMET_NOT_LOOKED_AT in tell.read_text()) == ends
    assert "asks.py:3" in tell.read_text()


def test_who_ends_all_others_in_its_jail_does_not_hide_what_its_source_has(
    triage: Triage, index: Index
) -> None:
    """Its own process and the launcher are all that is left then."""
    index.add_wheel("ender", "1.0", {"ender.py": f"{ENDS_OTHERS}{ACT}"})
    _, report, _ = triage("ender", "--mode", "import")
    # Maybe the look was done before.
    words = ("not all files could be looked at", "ender.py:5")
    gaps = [gap for gap in report["coverage"]["gaps"] if any(word in gap for word in words)]
    assert gaps, report["coverage"]
    assert report["verdict"] != "clean"
