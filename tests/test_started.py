"""What the kernel started, as /proc has it: the true program is told, and no harmless start is
taken for a lie, whatever right there is to see it.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Snakehook, Triage
from hostile import add_probe, findings, in_one_jail, last_json, own_phase
from standins import Index, wait_for

from jail.keeper import STRACE_FLAGS
from jail.watch.calls import Execute
from jail.watch.started import Starts
from jail.watch.trace import HELD_SEC

SH = os.path.realpath("/bin/sh").encode()


@pytest.fixture
def starts() -> Iterator[Starts]:
    starts = Starts(os.open("/proc", os.O_PATH))
    yield starts
    starts.close()


class Blind(Starts):
    """Without the right to see which file a process runs."""

    def program(self, pid: int) -> bytes:
        return b""


@pytest.fixture
def blind() -> Iterator[Blind]:
    blind = Blind(os.open("/proc", os.O_PATH))
    yield blind
    blind.close()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Any]:
    """Start a program that waits for its input, in `tmp_path`: the call that did it."""
    waiting = []

    def start(file: str, *words: str) -> Execute:
        process = subprocess.Popen(words, executable=file, stdin=subprocess.PIPE, cwd=tmp_path)
        waiting.append(process)
        # For a moment it is a program without words.
        wait_for(Path(f"/proc/{process.pid}/cmdline").read_bytes)
        argv = tuple(map(os.fsencode, words))
        until_sec = time.time() + 60
        return Execute(process.pid, b"", file.encode(), argv, None, held_until_sec=until_sec)

    yield start
    for process in waiting:
        process.communicate()


def script(path: Path, first_line: str) -> str:
    path.write_text(f"{first_line}\nread x\n")
    path.chmod(0o755)
    return str(path)


def test_strace_holds_a_program_for_as_long_as_its_reader_believes() -> None:
    assert STRACE_FLAGS[-1] == f"-einject=/^execve:delay_exit={HELD_SEC * 1e6:.0f}"


def test_a_program_is_what_the_call_names(starts: Starts, sleeper: Any) -> None:
    call = sleeper("/bin/sh", "any name", "-c", "read x")
    seen = starts.look(call)
    assert seen and (seen.program, seen.argv) == (SH, (b"any name", b"-c", b"read x"))
    assert seen.is_as_told and seen.in_time


@pytest.mark.parametrize(
    "lie",
    [
        {"file": b"/usr/bin/env"},
        {"file": b"/usr/bin/none"},
        {"file": b"sh"},
        {"argv": (b"sh", b"-c", b"true")},
        {"argv": (b"sh", b"-c")},
        {"argv": (b"sh", b"-c", b"read x", b"y")},
        {"argv": ()},
    ],
)
def test_another_file_or_other_words_are_a_lie(
    starts: Starts, sleeper: Any, lie: dict[str, Any]
) -> None:
    call = sleeper("/bin/sh", "sh", "-c", "read x")
    seen = starts.look(replace(call, **lie))
    assert seen and not seen.is_as_told
    assert (seen.program, seen.argv) == (SH, (b"sh", b"-c", b"read x"))


@pytest.mark.parametrize("first_line", ["#!/bin/sh", "#! /bin/sh -e", "#!/bin/sh\t-eu \t", "#!sh"])
def test_a_script_is_what_its_first_line_makes_of_it(
    starts: Starts, sleeper: Any, tmp_path: Path, first_line: str
) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    path = script(tmp_path / "script", first_line)
    call = sleeper(path, "script", "a", "b")
    seen = starts.look(call)
    assert seen and seen.program == SH and seen.is_as_told, seen
    assert seen.argv[-3:] == (path.encode(), b"a", b"b")


def test_an_interpreter_with_a_word_of_its_own_is_no_script(
    starts: Starts, sleeper: Any, tmp_path: Path
) -> None:
    path = script(tmp_path / "script", "#!/bin/sh -e")
    call = sleeper("/bin/sh", "/bin/sh", "-u", path, "a")
    seen = starts.look(replace(call, file=path.encode(), argv=(b"script", b"a")))
    assert seen and not seen.is_as_told


def test_a_script_by_a_relative_name_and_one_whose_interpreter_is_a_script(
    starts: Starts, sleeper: Any, tmp_path: Path
) -> None:
    script(tmp_path / "inner", "#!/bin/sh -e")
    script(tmp_path / "outer", f"#!{tmp_path}/inner")
    for file in ("./inner", f"{tmp_path}/outer"):
        seen = starts.look(sleeper(file, "x", "a"))
        assert seen and seen.is_as_told, (file, seen)


def test_a_link_and_a_file_that_is_gone_are_no_lie(
    starts: Starts, sleeper: Any, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/bin/sh")
    seen = starts.look(sleeper(f"{tmp_path}/link", "link", "-c", "read x"))
    assert seen and seen.is_as_told
    (tmp_path / "copy").write_bytes(Path("/bin/sh").read_bytes())
    (tmp_path / "copy").chmod(0o755)
    call = sleeper(f"{tmp_path}/copy", "copy", "-c", "read x")
    (tmp_path / "copy").unlink()
    seen = starts.look(call)
    assert seen and seen.is_as_told


def test_long_and_many_words_are_compared_as_far_as_strace_shows_them(
    starts: Starts, sleeper: Any
) -> None:
    call = sleeper("/bin/sh", "sh", "-c", "read x", "y" * 5000, *["z"] * 5000)
    shown = (*call.argv[:3], b"y" * 4096, *call.argv[4:4096])
    seen = starts.look(replace(call, argv=shown, is_abridged=True))
    assert seen and seen.is_as_told
    seen = starts.look(replace(call, argv=(b"sh", b"-c", b"true", *shown[3:]), is_abridged=True))
    assert seen and not seen.is_as_told


def test_who_is_gone_is_nothing_and_a_late_look_is_said_to_be_one(
    starts: Starts, sleeper: Any
) -> None:
    done = subprocess.Popen(["/bin/true"])
    done.wait()
    assert starts.look(Execute(done.pid, b"", b"/bin/true", (b"true",), None)) is None
    call = sleeper("/bin/sh", "sh", "-c", "read x")
    seen = starts.look(replace(call, held_until_sec=time.time() - 1))
    assert seen and seen.is_as_told and not seen.in_time


def test_without_the_right_to_see_the_file_name_and_words_count(
    blind: Blind, sleeper: Any, tmp_path: Path
) -> None:
    call = sleeper("/bin/sh", "x", "-c", "read x")
    seen = blind.look(call)
    assert seen and seen.is_as_told and seen.program == b""
    for lie in ({"file": b"/bin/true"}, {"argv": (b"x", b"-c", b"true")}):
        seen = blind.look(replace(call, **lie))
        assert seen and not seen.is_as_told
    seen = blind.look(sleeper(script(tmp_path / "script", "#!/bin/sh -e"), "script", "a"))
    assert seen and seen.is_as_told


def test_where_there_is_the_right_a_program_that_hides_itself_is_a_lie(
    blind: Blind, sleeper: Any
) -> None:
    blind.has_rights = True
    seen = blind.look(sleeper("/bin/sh", "sh", "-c", "read x"))
    assert seen and not seen.is_as_told


# --- in the jail ----------------------------------------------------------------------------------

HARMLESS = """
import multiprocessing, os, subprocess, sys
def run(*words, **options):
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, **options)
if __name__ != "__mp_main__":
    with open("/tmp/script", "w") as file: file.write("#!/bin/sh -e\\necho $1\\n")
    os.chmod("/tmp/script", 0o755)
    os.symlink("/bin/true", "/tmp/link")
    run("/tmp/script", "x")
    run("./script", "x", cwd="/tmp")
    run("/tmp/link")
    run("which", "sh")
    run("sh", "-c", "ls /; exec env true")
    run(sys.executable, "-c", "print(1)")
    run("x" * 5000, "y" * 5000, executable="/bin/true")
    run("echo", *["z"] * 5000)
    run("true")
    run(executable="/bin/true", *["..."])
    memory = os.memfd_create("m")
    os.write(memory, open("/bin/true", "rb").read())
    if not os.fork(): os.execve(memory, ["memory"], {})
    os.wait()
    if not os.fork(): os.execv("/proc/self/exe", ["python", "-c", "print(1)"])
    os.wait()
    multiprocessing.get_context("spawn").Process(target=print).start()
    print("done")
"""


def assert_nothing_is_taken_for_a_lie(report: dict[str, Any]) -> None:
    assert own_phase(report)["stdout"]["text"].split()[-1] == "done", own_phase(report)
    assert findings(report, "evidence.tamper") == []


def test_harmless_starts_are_no_lies(program: Snakehook, index: Index) -> None:
    index.add_wheel("starts", "1.0", {"starts.py": HARMLESS})
    _, report, _ = program.triage("starts", "--mode", "import", DECOY_INTERNET="false")
    assert_nothing_is_taken_for_a_lie(report)


@pytest.mark.parametrize("how", ["without CAP_SYS_PTRACE", "with a user namespace"])
def test_harmless_starts_are_no_lies_where_their_files_can_t_be_seen(
    jail: None, snakehook: Snakehook, index: Index, ordinary_home: tuple[Path, str], how: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    index.add_wheel("starts", "1.0", {"starts.py": HARMLESS})
    options: dict[str, object] = {"DECOY_INTERNET": "false"}
    if how == "with a user namespace":
        options |= {"NSJAIL_DISABLE_CLONE_NEWUSER": "0", "JAIL_PYTHON_NAME": ordinary_home[1]}
    else:
        limited = ("setpriv", "--bounding-set=-sys_ptrace", *snakehook.command)
        snakehook = replace(snakehook, command=limited)
    _, report, _ = snakehook.triage("starts", "--mode", "import", **options)
    assert_nothing_is_taken_for_a_lie(report)


# What could change what is found of a program while it is held, or tell when it is looked at.
WRITE = """
def written(name, pid="self"):
    # By who is it, and by its parent of a child.
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
    os.write(fd, b"1")

def of_child(name):
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        written(name, child)
    finally:
        os.kill(child, 9)

page = ctypes.create_string_buffer(4096)
tell(
    mem=lambda: written("mem"), mem_of_child=lambda: of_child("mem"),
    clear_refs=lambda: written("clear_refs"), clear_refs_of_child=lambda: of_child("clear_refs"),
    comm_of_child=lambda: of_child("comm"),
    vm_readv=lambda: call(310, os.getppid(), 0, 0, 0, 0, 0),
    vm_writev=lambda: call(311, os.getppid(), 0, 0, 0, 0, 0),
    process_madvise=lambda: call(440, os.pidfd_open(os.getppid()), 0, 0, 21, 0),
    process_mrelease=lambda: call(448, os.pidfd_open(os.getppid()), 0),
    userfaultfd=lambda: call(323, 1), attach=lambda: call(101, 0x4206, os.getppid(), 0, 0),
    set_mm=lambda: called(libc.prctl(35, 8, ctypes.addressof(page), 0, 0)),
)
"""


def test_nobody_in_the_jail_has_a_hand_in_a_program_that_was_started(
    triage: Triage, index: Index
) -> None:
    add_probe(index, WRITE)
    _, report, _ = triage("probe", *in_one_jail(), DECOY_INTERNET="false")
    seen = last_json(report)
    refused = {"EROFS", "EPERM", "EACCES", "ENOSYS"}
    assert {what: got for what, got in seen.items() if got not in refused} == {}
