"""One trigger at a time, as a person would type it: background work gets its time, and the
interpreter ends as it always does.
"""

import fcntl
import os
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import ROOT
from inside import INSIDE, Stand, make_python
from standins import wait_for
from test_inside_imports import LATE, LOOPS

from jail.inside.supervise import waited_sec, with_waiting


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def stand(tmp_path: Path, python: Path) -> Stand:
    return Stand(tmp_path / "stand", python)


WAITING = """
import fcntl, os, sys
sys.path.insert(0, {root!r})
from jail.inside import launch
write = os.write
os.write = lambda fd, data: write(fd, data[:4096])
launch.wait_for_reader()
fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK)
try:
    write(1, b"x")
except BlockingIOError:
    print("it has no room", file=sys.stderr)
"""


def test_a_jail_that_waits_leaves_no_room_though_its_writes_come_short() -> None:
    """A write to a pipe comes short where there is no memory, as a package at work may see to."""
    near, far = os.pipe()
    command = [sys.executable, "-c", WAITING.format(root=str(ROOT))]
    done = subprocess.run(command, stdout=far, stderr=subprocess.PIPE, text=True, timeout=10)
    os.close(near)
    os.close(far)
    assert done.stderr == "it has no room\n"


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (("start",), ""),
        (("import", "a"), "a ['-c']"),
        (("import", "a", "/nowhere"), "a ['-c']"),
        (("script", "go", "a:go"), "a ['go']\nwent"),
        (("file", "bin/go"), "__main__ ['bin/go']"),
        (("module", "a"), "__main__ ['a.py']"),
    ],
)
def test_each_kind_runs_as_it_is_typed(stand: Stand, words: tuple[str, ...], printed: str) -> None:
    text = "import sys\nprint(__name__, [w.replace(SITE, '') for w in sys.argv])\n"
    text = text.replace("SITE", repr(f"{stand.site}/"))
    stand.write({"a.py": f"{text}def go(): print('went')\n", "bin/go": text})
    ended = stand.run(*words)
    assert (ended.code, ended.stdout.strip()) == (0, printed)
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("text", "code", "printed"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('sorry')", 1, "sorry"),
        ("raise ValueError('odd')", 1, "ValueError: odd"),
        ("import os; os._exit(9)", 9, ""),
    ],
)
def test_the_exit_code_is_the_triggers_own(
    stand: Stand, text: str, code: int, printed: str
) -> None:
    stand.write({"a.py": text})
    ended = stand.run("import", "a")
    assert ended.code == code
    assert printed in ended.stderr
    assert "jail/inside" not in ended.stderr


def test_of_the_only_module_is_told_what_is_told_of_many(stand: Stand) -> None:
    """It has no jail in which all modules are imported."""
    stand.write(
        {
            "wave.py": "import json\nprint(__name__)\ntry: import not_declared\n"
            "except ImportError: pass\ndef dumps(*a): pass\njson.dumps = dumps\n"
            "raise ValueError('at the end')"
        }
    )
    ended = stand.run("import", "wave", str(stand.site))
    assert (ended.code, ended.stdout) == (1, "wave\n")
    assert "at the end" in ended.stderr
    assert [(said["event"], said["what"]) for said in ended.told] == [
        ("shadowed", "wave"),
        ("missed", "not_declared"),
        ("patched", "json.dumps"),
    ]


@pytest.mark.parametrize("kind", ["import", "module"])
def test_a_daemon_thread_acts(stand: Stand, kind: str) -> None:
    stand.write({"a.py": f"{LATE}threading.Thread(target=act, daemon=True).start()"})
    assert "acted" in stand.run(kind, "a").stdout


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_never_ends_is_told_and_ended(stand: Stand, daemon: bool) -> None:
    stand.write({"a.py": f"{LOOPS}threading.Thread(target=loop, daemon={daemon}).start()"})
    ended = stand.run("import", "a")
    assert ended.code == 0
    assert ended.how() == {"import a": "left"}


def test_nothing_is_told_of_a_package_that_just_ends(stand: Stand) -> None:
    stand.write({"a.py": "import threading\nthreading.Thread(target=print).start()"})
    ended = stand.run("import", "a")
    (told,) = ended.told
    # An import says that it came to its end, and no more.
    assert (ended.code, told["event"], told["how"]) == (0, "ended", "ran")


MAIN = """
import runpy, sys
runpy.run_path(sys.argv.pop(1))["open_rooms"]()
from jail.inside.launch import main
sys.exit(main())
"""


def test_a_launcher_that_waits_begins_when_somebody_reads(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    words: list[str | Path] = [MAIN, INSIDE / "enter.py", "wait", "program", "/bin/touch", begun]
    near, far = os.pipe()
    size_bytes = fcntl.fcntl(far, fcntl.F_GETPIPE_SZ)
    launcher = subprocess.Popen([sys.executable, "-I", "-S", "-c", *words], stdout=far)
    os.close(far)

    def unread_bytes() -> int:
        return int.from_bytes(fcntl.ioctl(near, termios.FIONREAD, bytes(4)), sys.byteorder)

    wait_for(lambda: unread_bytes() == size_bytes or launcher.poll() is not None)
    assert (launcher.poll(), begun.exists()) == (None, False)
    with os.fdopen(near, "rb") as output:
        assert output.read() == bytes(size_bytes) + b"\n"
    assert (launcher.wait(10), begun.exists()) == (0, True)


BUSY = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"


def test_a_busy_machine_gives_a_job_more_time_and_a_package_no_more_than_twice() -> None:
    given = {waiting: with_waiting(10.0, waiting) for waiting in (-1.0, 0.0, 4.0, 500.0)}
    assert given == {-1.0: 10.0, 0.0: 10.0, 4.0: 14.0, 500.0: 20.0}


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not say")
def test_that_a_process_waits_for_a_processor_is_seen() -> None:
    rivals = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        deadline_sec = time.monotonic() + 30
        while min(waited_sec(rival.pid) for rival in rivals) < 0.05:
            assert time.monotonic() < deadline_sec
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert waited_sec(rivals[0].pid) == 0.0
