"""Who may do what: each process of a run by the kernel's own account, and where the secrets are."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, Serve, Service, Snakehook, free_port, serving
from hostile import Family, Process, assert_nothing_is_left, descendants, family_of
from standins import Discord, Index, wait_for

from jail.orders import PYTHON_IN_JAIL

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SERVICE_USER, WATCH_USER = "65533", "65534"
# What a process would need to regain power: all of it is empty, and no program gives it back.
POWERS = ("CapInh", "CapPrm", "CapEff", "CapAmb")
NO_POWER = {name: ["0" * 16] for name in POWERS} | {"NoNewPrivs": ["1"]}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into them")


@pytest.fixture(autouse=True)
def sleepy(index: Index) -> None:
    index.add_wheel("sleepy", "1.0", {"sleepy.py": "__import__('select').select([], [], [], 60)\n"})


def status_of(pid: int) -> dict[str, list[str]]:
    """What the kernel says of a process: the words of each line of its status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def packages() -> list[Process]:
    """The processes in jails that run a package."""
    # nsjail has the words of the command, too, and is in the jail before it gives up its power.
    python = f"{PYTHON_IN_JAIL}/bin/python "
    inside = [process for process in descendants() if process.command.startswith(python)]
    return [process for process in inside if process.is_jailed and "sleepy" in process.command]


@contextmanager
def triaging(program: Snakehook) -> Iterator[Family]:
    """`snakehook triage` while the package is imported, ended at the end."""
    process = program.start("triage", "sleepy", "1.0", "--mode", "import", **QUIET)
    try:
        wait_for(packages, 30)
        yield family_of(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def detonating(service: Service) -> Iterator[Family]:
    """A service while it imports the package."""
    service.accept("sleepy", mode="import")
    wait_for(packages, 30)
    yield family_of(service.process.pid)


def check_powers(family: Family, *, is_root: bool) -> None:
    """Only keeper and run keeper have any, and theirs is that of who started us."""
    starter = "0" if is_root else str(os.geteuid() or 1000)
    service = status_of(family.service)
    assert set(service["Uid"]) == {SERVICE_USER if is_root else starter}
    assert {name: service[name] for name in NO_POWER} == NO_POWER
    assert family.keeper
    keepers = [family.keeper, *family.run_keepers]
    assert len(keepers) == 2
    for pid in keepers:
        assert set(status_of(pid)["Uid"]) == {starter}
    (watch,) = [status_of(pid) for pid in family.watches]
    assert set(watch["Uid"]) == {WATCH_USER if is_root else starter}
    assert {name: watch[name] for name in NO_POWER} == NO_POWER
    for process in packages():
        package = status_of(process.pid)
        assert set(package["Uid"]) == {WATCH_USER if is_root else starter}
        assert {name: package[name] for name in NO_POWER} == NO_POWER
        assert package["Seccomp"] == ["2"]


def test_nobody_has_power_who_meets_a_stranger_in_a_triage(program: Snakehook) -> None:
    is_root = os.geteuid() == 0 and program.command[0] != "setpriv"
    with triaging(program) as family:
        check_powers(family, is_root=is_root)
    assert_nothing_is_left(program.state, program.cache)


def test_nobody_has_power_who_meets_a_stranger_in_the_service(
    program: Snakehook, discord: Discord, tmp_path: Path
) -> None:
    is_root = os.geteuid() == 0 and program.command[0] != "setpriv"
    # A run that is made ready would be one more, or not, as the moment has it.
    settings = {"DISCORD_WEBHOOK_URL": discord.url, "READY_RUN": "false"}
    with serving(program, tmp_path / "log", **settings) as service, detonating(service) as family:
        check_powers(family, is_root=is_root)
    assert_nothing_is_left(program.state, program.cache)


def test_nobody_has_power_who_meets_a_stranger_under_waitress_serve(serve: Serve) -> None:
    start = ["-c", "import sys, waitress.runner; sys.exit(waitress.runner.run())"]
    words = ["--listen=127.0.0.1:{port}", "--call", "snakehook:create_app"]
    started = serve(*words, command=[sys.executable, *start], PYTHONPATH=ROOT)
    with started as service, detonating(service) as family:
        check_powers(family, is_root=os.geteuid() == 0)


@as_root
def test_the_ids_are_the_operator_s_choice(serve: Serve) -> None:
    ids = {"SERVICE_USER": 54321, "SERVICE_GROUP": 54322, "NSJAIL_USER": 54323}
    with serve(**ids) as service, detonating(service) as family:
        assert set(status_of(family.service)["Uid"]) == {"54321"}
        assert set(status_of(family.service)["Gid"]) == {"54322"}
        assert status_of(family.service)["Groups"] == []
        (watch,) = family.watches
        assert set(status_of(watch)["Uid"]) == {"54323"}


@as_root
def test_a_state_dir_that_the_service_s_user_can_t_reach_is_told(
    snakehook: Snakehook, discord: Discord, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    settings = {"API_TOKEN": "t", "DISCORD_WEBHOOK_URL": discord.url, "STATE_DIR": closed / "state"}
    done = snakehook.with_settings(**settings).run("serve", "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"STATE_DIR {closed / 'state'}" in line
    assert "Permission denied" in line


def memory_of(pid: int) -> Iterator[bytes]:
    """All that a process has written to its memory, and its environment and command line."""
    for name in ("environ", "cmdline"):
        yield Path(f"/proc/{pid}/{name}").read_bytes()
    # 55d0e7a3b000-55d0e7a5c000 rw-p 00000000 00:00 0   [heap]
    maps = Path(f"/proc/{pid}/maps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for start, end in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps, re.MULTILINE):
            memory.seek(int(start, 16))
            try:
                yield memory.read(int(end, 16) - int(start, 16))
            except OSError:  # of a device, or not there yet
                continue


def holders(pids: Sequence[int], secret: str) -> list[int]:
    """Those that have the secret somewhere."""
    needle = secret.encode()
    return [pid for pid in pids if any(needle in block for block in memory_of(pid))]


@as_root
def test_only_the_service_holds_the_secrets(serve: Serve, discord: Discord) -> None:
    with serve() as service, detonating(service) as family:
        everybody = [process.pid for process in descendants() if process.command]
        assert {family.service, family.keeper, *family.watches} < set(everybody)
        for secret in (service.token, discord.token):
            assert holders(everybody, secret) == [family.service]


@as_root
def test_nobody_but_root_can_look_into_service_and_watch(serve: Serve) -> None:
    """They are not dumpable: not even who has the same user id reads their memory."""
    with serve() as service, detonating(service) as family:
        for pid in (family.service, *family.watches):
            assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
