"""What a machine offers for a jail: the interpreter that is made once, cgroups, and what is told
where no jail can be made."""

import json
import marshal
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, open_folder

import jail.machine
from jail.machine import DEFAULT_INDEX, MachineError, prepare
from jail.orders import JailSettings, Machine
from jail.watch.environment import PACKED_NAME, lay_environment
from jail.watch.trial import no_jail
from snakehook import find_package

WORKS = b'{"works": true}'


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder("machine") as folder:
        yield folder


@pytest.fixture
def settings(folder: Path) -> JailSettings:
    """Settings with which the interpreter can be made, by a pip that is quick to copy."""
    for name in ("state", "cache", "library"):
        (folder / name).mkdir()
    pip = folder / "library" / "pip"
    (pip / "_vendor" / "distro").mkdir(parents=True)
    (pip / "_vendor" / "distro" / "__init__.py").write_text("raise SystemExit('its own')\n")
    (pip / "__init__.py").touch()
    (pip / "__main__.py").write_text(
        "print('  -i  Base URL of the Python Package Index (default\\n"
        "   https://index.example/simple/). This should')\n"
    )
    metadata = folder / "library" / "pip-99.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pip\nVersion: 99.1\n")
    fields: dict[str, Any] = dict.fromkeys(JailSettings.__annotations__, 0)
    fields |= {
        "jail_python_name": str(sys._base_executable),  # type: ignore[attr-defined]
        "nsjail_path": "/usr/bin/true",
        "nsjail_user": 65534,
        "nsjail_group": 65534,
        "pip_cache_dir": str(folder / "cache"),
        "pip_index_url": "",
        "pip_package": str(pip),
        "state_dir": str(folder / "state"),
    }
    return JailSettings(**fields)


def works(_: Machine) -> bytes:
    return WORKS


def test_the_interpreter_has_our_pip_and_the_hook(settings: JailSettings) -> None:
    machine, told = prepare(settings, works)
    assert told == WORKS
    python = Path(machine.python)
    library = next(python.glob("lib/python*/site-packages"))
    assert (library / "pip" / "__main__.py").exists()
    assert list((library / "pip").glob("__pycache__/*.pyc"))
    assert (library / "pip-99.1.dist-info" / "METADATA").exists()
    # The hook is for the jail.
    assert not (library / "_virtualenv.pth").exists()
    assert machine.base == sys.base_prefix
    for path in python.rglob("*"):
        mode = path.stat().st_mode
        assert mode & 0o444 == 0o444
        assert not mode & 0o022


def test_the_image_names_neither_us_nor_where_it_was_made(settings: JailSettings) -> None:
    machine, _ = prepare(settings, works)
    with Path(machine.python, "image").open("rb") as file:
        image, pip_files = (marshal.load(file) for _ in range(2))  # noqa: S302
    for name, data in {**image["files"], **pip_files, "hook": image["hook"]}.items():
        for word in (b"snakehook", b"jail", settings.state_dir.encode()):
            assert word not in data, (name, word)


def test_pip_is_seen_at_work_so_that_a_ready_run_has_it_loaded(settings: JailSettings) -> None:
    machine, _ = prepare(settings._replace(pip_package=find_package("pip")), works)
    image = marshal.loads(Path(machine.python, "image").read_bytes())  # noqa: S302
    packed = marshal.loads(image["rooms"])  # noqa: S302
    found: dict[str, tuple[str, ...]] = {}
    exec(marshal.loads(packed["rooms"]["pip_modules"]), found)  # noqa: S102, S302
    loaded = [name for name in found["NAMES"] if name.partition(".")[0] == "pip"]
    # All but a few modules of pip serve an installation, from its session to what writes files.
    assert len(loaded) > 200
    assert {"http.client", "zipfile"} <= set(found["NAMES"])


def test_each_run_has_a_hook_of_its_own_that_unpacks_to_the_same(
    settings: JailSettings, tmp_path: Path
) -> None:
    machine, _ = prepare(settings, works)
    hooks = []
    for name in ("a", "b"):
        lay_environment(Path(machine.python, "image"), tmp_path / name, 17)
        hooks.append((tmp_path / name / "bin" / "activate_this.py").read_bytes())
        (library,) = (tmp_path / name).glob("lib/python*/site-packages")
        assert (library / "_virtualenv.pth").read_text() == "import _virtualenv"
        assert (library / "pip" / "__main__.py").exists()
    first, second = hooks
    # What they have in common is the part that unpacks the rest; even their sizes are drawn.
    same = sum(ours == theirs for ours, theirs in zip(first, second, strict=False))
    assert same < len(first) // 4
    told = []
    for hook in hooks:
        code = marshal.loads(hook[16:])  # noqa: S302
        packed = max((const for const in code.co_consts if type(const) is bytes), key=len)
        text = packed[256:].translate(packed[:256])
        (name,) = set(re.findall(rb"\b_[a-z]{8}\.[a-z]{5}\b", text))
        assert name != PACKED_NAME
        told.append(text.replace(name, PACKED_NAME))
    assert told[0] == told[1]
    assert told[0].startswith(b"00000017")


def test_the_index_is_what_pip_says(settings: JailSettings) -> None:
    machine, _ = prepare(settings, works)
    assert (machine.index_url, machine.default_index) == ("https://index.example/simple", True)
    other = settings._replace(pip_index_url="https://mirror.example/simple")
    machine, _ = prepare(other, works)
    assert (machine.index_url, machine.default_index) == ("https://mirror.example/simple", False)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (
            "Base URL of the Python Package Index (default https://a.example/simple). This",
            "https://a.example/simple",
        ),
        (
            "Base URL of the Python\n   Package Index (default\n   http://a.example:8/x/). T",
            "http://a.example:8/x",
        ),
        ("Base URL of the Python Package Index. This", None),
        ("Base URL of it (see the manual) (default https://a.example)", None),
        ("Base URL of it (default ftp://a.example)", None),
    ],
)
def test_the_help_of_pip(text: str, url: str | None) -> None:
    found = DEFAULT_INDEX.search(text)
    assert (found[1] if found else None) == url


def test_it_is_made_once(settings: JailSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = prepare(settings, works)

    def fail(*_: object) -> str:
        raise AssertionError("a program was run")

    monkeypatch.setattr(jail.machine, "run_tool", fail)
    second, _ = prepare(settings, works)
    assert second.python == first.python


def test_another_pip_or_a_python_that_is_gone_makes_another(settings: JailSettings) -> None:
    first, _ = prepare(settings, works)
    library = Path(settings.pip_package).parent
    (library / "pip-99.1.dist-info").rename(library / "pip-99.2.dist-info")
    second, _ = prepare(settings, works)
    assert second.python != first.python
    (Path(second.python) / "bin" / "python").unlink()
    (Path(second.python) / "bin" / "python").symlink_to("/nonexistent")
    third, _ = prepare(settings, works)
    assert third.python == second.python
    assert os.access(Path(third.python) / "bin" / "python", os.X_OK)


def test_what_a_dead_keeper_left_is_removed(settings: JailSettings) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    folder = Path(settings.state_dir, "python")
    folder.mkdir()
    for pid in (dead, os.getppid()):
        (folder / f"{pid}-python" / "lib").mkdir(parents=True)
    prepare(settings, works)
    assert not (folder / f"{dead}-python").exists()
    assert (folder / f"{os.getppid()}-python").exists()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="there is no setpriv here")
def test_what_a_keeper_with_more_power_has_is_left_alone(settings: JailSettings) -> None:
    """A container without SYS_PTRACE may share the cgroups of a service that has it."""
    folder = Path(settings.state_dir, "python")
    folder.mkdir()
    other = folder / f"{os.getpid()}-python"
    other.mkdir()
    words = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable]
    source = (
        "import json, sys\n"
        "sys.path.append(sys.argv[1])\n"
        "from jail.machine import prepare\n"
        "from jail.orders import JailSettings\n"
        "prepare(JailSettings(**json.loads(sys.argv[2])), lambda machine: b'{}')\n"
    )
    told = json.dumps(settings._asdict())
    done = subprocess.run(
        [*(words if os.geteuid() == 0 else words[-1:]), "-c", source, str(ROOT), told],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert other.exists()


def test_the_link_that_stands_for_the_folder_is_followed(
    settings: JailSettings, folder: Path
) -> None:
    (folder / "elsewhere").mkdir()
    Path(settings.state_dir, "python").symlink_to(folder / "elsewhere")
    machine, _ = prepare(settings, works)
    assert list((folder / "elsewhere").iterdir())
    assert Path(machine.python).is_dir()


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to somebody else")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("name", ["python", "scratch"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_that_the_service_could_change_is_not_used(
    settings: JailSettings, folder: Path, name: str, kind: str
) -> None:
    place = Path(settings.state_dir, name)
    if kind == "link":
        (folder / "elsewhere").mkdir()
        place.symlink_to(folder / "elsewhere")
        os.chown(folder / "elsewhere", 65533, 65533)
        os.chown(place, 0, 0, follow_symlinks=False)
    else:
        place.mkdir()
        os.chown(place, 65533, 65533)
    with pytest.raises(MachineError, match="somebody else's: remove it"):
        prepare(settings, works)


@pytest.mark.usefixtures("root")
def test_the_cache_is_watchs_own(settings: JailSettings, folder: Path) -> None:
    machine, _ = prepare(settings, works)
    about = Path(machine.cache).stat()
    assert (about.st_uid, about.st_mode & 0o777) == (65534, 0o700)
    # Whoever may write to PIP_CACHE_DIR puts a link to a folder of root's there.
    Path(machine.cache).rmdir()
    (folder / "precious").mkdir()
    Path(machine.cache).symlink_to(folder / "precious")
    prepare(settings, works)
    assert (folder / "precious").stat().st_uid == 0


def tries(answers: dict[tuple[bool, bool], bytes]) -> Callable[[Machine], bytes]:
    """Answers by whether there are cgroups, and whether there is strace."""
    return lambda machine: answers.get((bool(machine.cgroups), bool(machine.strace)), b"no way")


def test_no_strace_or_no_cgroups_is_better_than_no_jail(settings: JailSettings) -> None:
    machine, _ = prepare(settings, works)
    if not machine.strace:
        pytest.skip("there is no strace here")
    lesser, _ = prepare(settings, tries({(bool(machine.cgroups), False): WORKS}))
    assert lesser.strace is None
    assert lesser.cgroups == machine.cgroups
    lesser, _ = prepare(settings, tries({(False, True): WORKS}))
    assert lesser.cgroups == ()
    assert lesser.strace
    assert lesser.no_cgroups


def test_where_no_jail_can_be_made_the_reason_and_the_remedy_are_told(
    settings: JailSettings,
) -> None:
    with pytest.raises(MachineError) as failure:
        prepare(settings, lambda _: b"unshare: Operation not permitted")
    told = json.loads(no_jail(str(failure.value)))
    assert told["works"] is False
    (check,) = told["checks"]
    assert check["name"] == "namespaces"
    assert "unshare: Operation not permitted" in check["detail"]
    assert ("--cap-add SYS_ADMIN" in check["detail"]) == (os.geteuid() == 0)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"nsjail_path": ""}, "nsjail"),
        ({"pip_package": ""}, "jail python"),
        ({"pip_package": "/nonexistent/pip"}, "jail python"),
        ({"jail_python_name": shutil.which("false")}, "jail python"),
    ],
)
def test_what_is_missing_is_named(
    settings: JailSettings, changes: dict[str, Any], name: str
) -> None:
    with pytest.raises(MachineError) as failure:
        prepare(settings._replace(**changes), works)
    assert str(failure.value).startswith(f"{name}: ")
