"""The wheel: installed elsewhere, without the clone, it is the whole program."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Snakehook, copy_libraries, open_folder
from standins import Index

BUILD = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    """Built from a copy of what is needed, as from a fresh clone."""
    # Not imported: it refuses to be in a process that has the library's own distutils.
    if not importlib.util.find_spec("setuptools"):
        pytest.skip("there is no setuptools here to build a wheel with")
    with open_folder("wheel") as folder:
        clone = folder / "clone"
        clone.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "snakehook.py"):
            shutil.copy(ROOT / name, clone)
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "jail", clone / "jail", ignore=without)
        command = [sys.executable, "-I", "-c", BUILD, str(folder)]
        subprocess.run(command, cwd=clone, check=True, capture_output=True)
        shutil.rmtree(clone)
        (found,) = folder.glob("*.whl")
        yield found


def test_everything_of_the_jail_is_in_the_wheel(wheel: Path) -> None:
    there = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "jail").rglob("*") if path.is_file()]
    needed = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert needed | {"snakehook.py"} <= there
    tops = {name.partition("/")[0] for name in there}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"snakehook.py", "jail"}


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Path]:
    """The `snakehook` of a fresh environment that has the wheel and its dependencies."""
    with open_folder("elsewhere") as folder:
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        (site,) = venv.glob("lib/python3*/site-packages")
        copy_libraries(site)
        pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python")]
        options = ["--no-index", "--no-deps", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", *options, str(wheel)], check=True)
        yield venv / "bin/snakehook"


def test_an_installed_wheel_triages_without_the_clone(
    jail: None, installed: Path, snakehook: Snakehook, index: Index
) -> None:
    index.add_wheel("tiny", "1.0", {"tiny.py": "print('tiny was imported')\n"})
    program = Snakehook([str(installed)], snakehook.environment)
    code, report, _ = program.triage("tiny", "--mode", "import")
    assert (code, report["outcome"], report["verdict"]) == (0, "ok", "clean")
    imports = report["phases"][1:]
    assert [phase["trigger"] for phase in imports][:2] == ["tiny", "as windows"]
    assert {phase["stdout"]["text"] for phase in imports} == {"tiny was imported\n"}
    assert str(ROOT) not in json.dumps(report)


@pytest.mark.pypi
def test_uv_tool_install_gives_a_program_that_triages(
    jail: None, snakehook: Snakehook, index: Index, home: Path, online: Snakehook
) -> None:
    uv = shutil.which("uv")
    if not uv:
        pytest.skip("there is no uv here")
    index.add_wheel("tiny", "1.0", {"tiny.py": ""})
    places = {"UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin")}
    # The README's own words.
    (words,) = [
        line.split()
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("uv tool install ")
    ]
    done = subprocess.run(
        [uv, *words[1:]], cwd=ROOT, env={**os.environ, **places}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    program = Snakehook([str(home / "bin/snakehook")], snakehook.environment)
    code, report, _ = program.triage("tiny", "--mode", "import")
    assert (code, report["outcome"]) == (0, "ok")
