"""What of a package is not run, and how that is told: modules that fail, code for others."""

import json
import os
import signal
import zipfile
from pathlib import Path
from typing import Any

import pytest
from inside import Stand, make_python
from reports import report_of

from jail.inside import launch, supervise
from jail.inside.fallen import NOT_LOOKED_AT
from jail.inside.rest import MAX_RESTS, NO_SOURCE, act_in_rest, tell_rest
from jail.inside.sources import MAX_LOOKED_BYTES
from jail.watch.events import Phase, PhaseName
from jail.watch.foreign import made_for_others
from jail.watch.noticed import Notice, Noticed

SITE = "lib/python3.11/site-packages"
ACT = "import os\ndef act():\n    open('/x/.ssh/id_rsa')\n"


@pytest.fixture(scope="module")
def stand_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def stand(tmp_path: Path, stand_python: Path) -> Stand:
    return Stand(tmp_path / "stand", stand_python)


@pytest.mark.parametrize(
    ("rest", "is_missing"),
    [
        ("raise OSError\nact()\n", False),
        ("import nothing\nact()\n", True),
        ("raise OSError\nX = 1\n", False),  # its functions are nobody's
        ("try:\n    raise OSError\nexcept TypeError:\n    act()\n", True),
        ("if os:\n    raise OSError\nelse:\n    act()\n", True),
        ("for x in ():\n    pass\nelse:\n    raise OSError\nos.system('x')\n", True),
        ("class K:\n    raise OSError\n    act()\n", True),
        ("raise OSError\n@act()\ndef f(): pass\n", True),
        ("raise OSError\ndef f(x=act()): pass\n", True),
        ("raise OSError\ngetattr(os, 'sys' + 'tem')('x')\n", True),
        ("raise OSError\n__builtins__['ex' + 'ec'](x)\n", True),
        ("raise OSError\n(lambda: act())()\n", True),
        ("raise OSError\n__import__('os').system('x')\n", True),
        ("raise OSError\nimport importlib as i\ni.import_module('os').abort()\n", True),
        ("raise OSError\nimport importlib\nimportlib.import_module(name)\n", True),
    ],
)
def test_what_would_have_acted_is_found(rest: str, is_missing: bool) -> None:
    line = 4 + rest[: max(rest.find("OSError"), 0)].count("\n")
    assert act_in_rest(ACT + rest, line, is_missing)


@pytest.mark.parametrize(
    ("text", "line", "is_missing"),
    [
        # It has done all that it does.
        (f"{ACT}act()\nraise OSError\n", 5, False),
        (f"import sys\n{ACT}sys.exit(act())\n", 5, False),
        # What nobody can use without the project that is missing.
        (f"{ACT}import nothing\n", 4, True),
        (f"{ACT}import nothing\nclass K(nothing.Base):\n    def f(self): act()\n", 4, True),
        ("raise OSError\ndef f(x): return getattr(x, x.y)(1) or open(x)\n", 1, False),
        ("raise OSError\ndef f(x): return bytes.fromhex(x)\n", 1, False),
        ("import shutil\nraise OSError\ndef f(x): shutil.rmtree(x)\n", 2, False),
        ("raise OSError\nX = sorted([1])\nimport os\nHOME = os.getcwd()\n", 1, False),
        ("print 'of old'\n", 0, False),
        ("import nothing\n__import__('sqlalchemy-stubs')\n", 1, True),
        ("import nothing\n__import__(__package__ + '.fft')\n", 1, True),
    ],
)
def test_what_would_not_is_none(text: str, line: int, is_missing: bool) -> None:
    assert act_in_rest(text, line, is_missing) is None


NAMES = ["raises", "helps", "wants", "dies", "foreign", "foreign_too", "circular", "done", "plug:Y"]
NAMES += ["maybe", "needs", "refuses", "rude"]


def test_where_a_module_failed_and_for_want_of_what_is_known(stand: Stand) -> None:
    stand.write(
        {
            "pack/__init__.py": "",
            "pack/raises.py": f"{ACT}if 1:\n    raise OSError\nact()\n",
            "pack/helps.py": f"{ACT}from pack import raises\nact()\n",
            "pack/wants.py": f"{ACT}try:\n    import not_there\nexcept ImportError as error:\n"
            "    raise RuntimeError('pip install more') from error\ndef f(): act()\n",
            "pack/dies.py": f"import os\nos._exit(0)\n{ACT}act()\n",
            # For a system that has what is in none of the files here.
            "pack/foreign.py": f"{ACT}from pack import _native\n",
            "pack/foreign_too.py": f"{ACT}import pack._native.deep\n",
            # As yt-dlp does.
            "pack/maybe.py": "try:\n    import also_not_there\nexcept ImportError:\n"
            "    also_not_there = None\n",
            "pack/needs.py": f"{ACT}from pack.maybe import also_not_there\n"
            "if not also_not_there:\n    raise ImportError('also_not_there is not installed')\n"
            "def f(): act()\n",
            "pack/rude.py": f"{ACT}class E(ImportError):\n    def __str__(self): 1 / 0\n"
            "raise E\nact()\n",
            "pack/refuses.py": f"{ACT}raise ImportError('not today')\ndef f(): act()\n",
            "pack/circular.py": f"{ACT}from pack import helps_not\ndef f(): act()\n",
            "pack/helps_not.py": "raise OSError\n",
            "pack/done.py": f"{ACT}raise OSError\n",
            "pack/plug.py": f"{ACT}X = 1\n",
        }
    )
    names = [f"pack.{name}" for name in NAMES]
    told = {item["what"]: item["at"] for item in stand.imports(*names).of("unrun")}
    places = {name: place.removeprefix(f"{stand.site}/") for name, place in told.items()}
    assert places == {
        "pack.raises": "pack/raises.py:6",
        "pack.helps": "pack/helps.py:5",
        "pack.dies": "pack/dies.py:6",
        "pack.rude": "pack/rude.py:7",
        "pack.refuses": "pack/refuses.py:3",
        "pack.circular": "pack/circular.py:3",
    }


def test_what_files_at_the_start_add_is_imported(stand: Stand) -> None:
    stand.write(
        {
            "plain.py": "",
            "odd-name/added.py": "print('from a folder')\n",
            "odd-name/deep/more.py": "print('from below')\n",
            "more.pth": "odd-name\ninside.zip\nnot-there\nbroken.zip\n",
            "broken.zip": "no archive",
        }
    )
    with zipfile.ZipFile(stand.site / "inside.zip", "w") as packed:
        packed.writestr("zipped/__init__.py", "print('from an archive')\n")
        packed.writestr("zipped/data.txt", "")
    ended = stand.imports("plain")
    printed = {"from a folder", "from below", "from an archive"}
    assert printed <= {*ended.stdout.splitlines()}, ended
    assert ended.code == 0


def test_what_waits_longer_than_anybody_is_told_as_left_at_work(stand: Stand) -> None:
    stand.write(
        {
            "waits.py": "import signal, threading\nthreading.Timer(20, print).start()\n"
            "signal.setitimer(signal.ITIMER_PROF, 20)\n"
        }
    )
    ended = stand.imports("waits")
    (told,) = [item for item in ended.of("ended") if item["how"] == "left"]
    assert ended.code == supervise.SOME_LEFT
    assert "a timer of 20 s" in told["text"] and told["text"].startswith("2 at work"), told


def unrun(module: str, title: str) -> tuple[Phase, Noticed]:
    phase = Phase(PhaseName.IMPORT, title)
    return phase, Noticed(Notice.UNRUN, module, text="act()", place="/s/m.py:4")


def counted(title: str) -> tuple[Phase, Noticed]:
    return Phase(PhaseName.IMPORT, title), Noticed(Notice.COUNTED, "imports", text="1 raised")


def cut_short(title: str) -> tuple[Phase, Noticed]:
    return Phase(PhaseName.IMPORT, title), Noticed(Notice.UNRUN, "", text="in part")


JAILS = [counted(title) for title in ("all modules", "as windows", "dependencies")]


@pytest.mark.parametrize(
    ("told", "is_gap"),
    [
        ([unrun("s.a", "all modules"), unrun("s.a", "as windows")], True),
        ([unrun("s.a", "all modules")], False),
        ([unrun("s.a", "all modules"), cut_short("as windows")], True),
        ([unrun("dep", "dependencies")], True),
        # A module that is imported alone has no jobs to be told of: it says so itself.
        ([counted("s"), unrun("s.a", "all modules"), unrun("s.a", "as windows")], True),
        ([], False),
    ],
)
def test_what_fails_in_every_jail_is_a_gap(told: list[Any], is_gap: bool) -> None:
    report = report_of(*[*JAILS, *told])
    gaps = [gap for gap in report.gaps if "fails before this could run: act() (/s/m.py:4)" in gap]
    assert bool(gaps) == is_gap
    assert report.coverage["gaps"] == report.gaps


def test_modules_that_failed_and_were_not_looked_at_are_a_gap(tmp_path: Path) -> None:
    tell = tmp_path / "tell"
    tell.write_text("")
    count = MAX_RESTS + 1
    site = tmp_path / "lib"
    site.mkdir()
    for number in range(count):
        (site / f"m{number}.py").write_text(f"{ACT}raise OSError\nact()\n")
    tell_rest(str(tell), str(site), {f"m{number}": (4, False) for number in range(count)})
    told = [json.loads(line) for line in tell.read_text().splitlines()]
    assert len(told) == count and told[-1]["what"] == ""
    last = Noticed(Notice.UNRUN, "", text=told[-1]["text"])
    report = report_of((Phase(PhaseName.IMPORT, "all modules"), last))
    assert report.gaps == ["import all modules: not all modules that failed could be looked at"]


def test_a_source_that_nobody_can_read_hides_no_other(tmp_path: Path) -> None:
    """The package may have put something in the place of what failed."""
    tell = tmp_path / "tell"
    tell.write_text("")
    (tmp_path / "first.py").symlink_to("/proc/self/mem")
    (tmp_path / "second.py").write_text(f"{ACT}raise OSError\nact()\n")
    # What comes after so much is not read.
    filler = "x = '" + "a" * MAX_LOOKED_BYTES + "'\n"
    (tmp_path / "third.py").write_text(f"raise OSError\n{filler}\nexec(x)\n")
    failed = {"first": (3, False), "second": (4, False), "third": (1, False)}
    tell_rest(str(tell), str(tmp_path), failed)
    told = [json.loads(line) for line in tell.read_text().splitlines()]
    assert [(said["what"], said["text"]) for said in told] == [
        ("first", NO_SOURCE),
        ("second", "act()"),
        ("third", NO_SOURCE),
    ]


def test_a_look_that_ends_early_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd source may end the child that reads it."""
    tell = tmp_path / "tell"
    tell.write_text("")

    def launch_jobs(_room: str, _words: list[str], fallen: dict[str, tuple[int, bool]]) -> int:
        fallen["first"] = 3, False
        return 81

    monkeypatch.setattr(supervise, "launch_jobs", launch_jobs)
    monkeypatch.setattr(launch, "look_at_rest", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    assert launch.launch("imports", [str(tell), "20", "3", str(tmp_path), "ci", "first"]) == 81
    (said,) = [json.loads(line) for line in tell.read_text().splitlines()]
    assert (said["event"], said["what"], said["text"]) == ("unrun", "", NOT_LOOKED_AT)


@pytest.mark.parametrize(
    ("path", "head", "is_foreign"),
    [
        ("a/__pycache__/m.cpython-312.pyc", b"\1\1\r\n\1\0\0\0", True),
        ("a/__pycache__/m.cpython-312.opt-1.pyc", b"\1\1\r\n\3\0\0\0", True),
        ("a/__pycache__/m.cpython-312.pyc", b"\1\1\r\n\0\0\0\0", False),
        ("a/__pycache__/m.cpython-312.pyc", b"", True),
        ("a/__pycache__/m.cpython-311.pyc", b"\1\1\r\n\1\0\0\0", False),
        ("a/m.cpython-310-x86_64-linux-gnu.so", b"", True),
        ("a/m.cpython-311-darwin.so", b"", True),
        (f"a/m.cpython-311-{os.uname().machine}-linux-gnu.so", b"", False),
        ("a/m.abi3.so", b"", False),
        ("a/m.so", b"", False),
        ("a/m.cp311-win_amd64.pyd", b"", True),
    ],
)
def test_what_another_python_imports_is_told(path: str, head: bytes, is_foreign: bool) -> None:
    told = made_for_others(SITE, [f"{SITE}/{path}"], lambda _path, _bytes: head)
    assert (path in told) == is_foreign


def test_what_another_python_imports_is_told_within_bounds() -> None:
    listed = [f"{SITE}/a/__pycache__/m{number}.cpython-399.pyc" for number in range(900)]
    reads: list[str] = []

    def read(path: str, _most_bytes: int) -> bytes:
        reads.append(path)
        return b"\1\1\r\n\0\0\0\0"

    told = made_for_others(SITE, listed, read)
    assert len(reads) < 900 and len(told) < 300 and "and 695 more" in told
