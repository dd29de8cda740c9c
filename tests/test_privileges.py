"""Giving up power: what is gone afterwards, in processes of their own."""

import ctypes
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from jail import privileges

HEAD = f"import os, signal, sys, time\nsys.path.append({str(ROOT)!r})\n"
DROP = f"{HEAD}from jail.privileges import *\nfrom jail import privileges\n"


def run(source: str) -> "subprocess.CompletedProcess[str]":
    """A fresh interpreter: what it gives up, we keep."""
    return subprocess.run(
        [sys.executable, "-c", DROP + source], capture_output=True, text=True, timeout=20
    )


STATUS = "print(open('/proc/self/status').read())\n"


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has power to give up")


@pytest.mark.usefixtures("root")
def test_root_becomes_a_user_without_power() -> None:
    done = run(f"drop(65534, 65533)\n{STATUS}")
    lines = [line.split() for line in done.stdout.splitlines() if line]
    status = {words[0]: words[1:] for words in lines}
    assert status["Uid:"] == ["65534"] * 4
    assert status["Gid:"] == ["65533"] * 4
    assert status["Groups:"] == []
    assert status["NoNewPrivs:"] == ["1"]
    for name in ("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"):
        assert status[name] == ["0" * 16]


@pytest.mark.usefixtures("root")
def test_nobody_of_the_same_user_looks_into_it() -> None:
    done = run("drop(65534, 65534)\nprint(os.stat('/proc/self/maps').st_uid)\n")
    assert done.stdout == "0\n"


@pytest.mark.usefixtures("root")
def test_its_memory_is_bounded() -> None:
    done = run("drop(65534, 65534)\nx = bytearray(1 << 30)\n")
    assert "MemoryError" in done.stderr


@pytest.mark.usefixtures("root")
def test_the_one_user_of_a_namespace_stays_and_loses_all_power() -> None:
    source = (
        "check(libc.unshare(0x10000000), 'user namespace')\n"
        "open('/proc/self/setgroups', 'w').write('deny')\n"
        "open('/proc/self/uid_map', 'w').write('0 0 1')\n"
        "open('/proc/self/gid_map', 'w').write('0 0 1')\n"
        f"drop(0, 0)\n{STATUS}"
        "print(libc.mount(b'none', b'/proc', b'tmpfs', 0, None), libc.unshare(0x20000))\n"
        "os.execv('/bin/sh', ['sh', '-c', 'grep Cap /proc/self/status'])\n"
    )
    done = run(source)
    assert "-1 -1" in done.stdout, done.stderr
    words = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("Cap")]
    assert set(words) == {"0" * 16}
    assert len(words) == 10


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("step", ["setresuid", "setresgid"])
def test_a_step_that_did_not_happen_is_noticed(step: str) -> None:
    done = run(f"os.{step} = lambda *_: None\ndrop(65534, 65534)\nprint('went on')\n")
    assert "PermissionError" in done.stderr
    assert "went on" not in done.stdout


@pytest.mark.usefixtures("root")
def test_groups_that_stay_are_noticed() -> None:
    source = "os.setgroups([4])\nos.setgroups = lambda _: None\ndrop(65534, 65534)\n"
    assert "Groups is 4" in run(source).stderr


@pytest.mark.usefixtures("root")
def test_capabilities_that_stay_are_noticed() -> None:
    # SECBIT_KEEP_CAPS: a change of user takes none away.
    source = (
        "libc.prctl(8, 1, 0, 0, 0)\n"
        "class Broken:\n"
        "    def __getattr__(self, name): return getattr(libc, name)\n"
        "    def capset(self, *_): return 0\n"
        "privileges.libc = Broken()\n"
        "drop(65534, 65534)\nprint('went on')\n"
    )
    done = run(source)
    assert "CapPrm is" in done.stderr
    assert "went on" not in done.stdout


def test_a_call_that_failed_is_an_error() -> None:
    privileges.check(0, "nothing")
    ctypes.set_errno(1)
    with pytest.raises(PermissionError, match="the attempt: Operation not permitted"):
        privileges.check(-1, "the attempt")


def test_a_child_dies_with_its_parent() -> None:
    source = (
        "parent = os.pidfd_open(os.getpid())\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    die_with_parent(parent)\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(100)\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Which would wait for the child, which has our end of a pipe.
    begun = time.monotonic()
    assert run(source).stdout
    assert time.monotonic() - begun < 10


def test_a_child_whose_parent_is_dead_already_ends() -> None:
    source = (
        "parent = os.pidfd_open(os.getpid())\n"
        "if os.fork() == 0:\n"
        "    time.sleep(0.5)\n"
        "    die_with_parent(parent)\n"
        "    print('went on')\n"
    )
    assert run(source).stdout == ""
