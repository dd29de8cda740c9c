"""Time plain `pip install` on this machine against snakehook's install phase, side by side in one
run.

    python tests/bench.py [ROUNDS]

A script, not a test: it needs the index. Both sides install the same pinned packages with the same
pip, in turns, from caches that a first round (not counted) has filled. The environment goes through
to snakehook (STATE_DIR, ...).
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (("six", "1.17.0"), ("requests", "2.32.3"), ("black", "24.10.0"))
ROW = "{:<10} {:>9} {:>9} {:>9} {:>6} {:>7}"


def plain_sec(python: Path, name: str, version: str) -> float:
    """A plain `pip install` into a fresh folder."""
    with tempfile.TemporaryDirectory() as target:
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-compile",
        ]
        variables = {name: value for name, value in os.environ.items() if name != "PIP_FIND_LINKS"}
        variables["PIP_CONFIG_FILE"] = os.devnull  # the same one index on both sides
        words = [*command, "--target", target, f"{name}=={version}"]
        begun = time.monotonic()
        subprocess.run(words, env=variables, check=True, stdin=subprocess.DEVNULL)
        return time.monotonic() - begun


def jailed_sec(name: str, version: str) -> tuple[float, float]:
    """The install phase of a run, and the whole run with the program's start and self-check."""
    begun = time.monotonic()
    command = [sys.executable, str(ROOT / "snakehook.py"), "triage", name, version, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    whole_sec = time.monotonic() - begun
    report: dict[str, Any] = (
        json.loads(done.stdout) if done.stdout else {"outcome": done.stderr, "phases": []}
    )
    if report["outcome"] != "ok":
        raise SystemExit(f"{name}: {report['outcome']}")
    return float(report["phases"][0]["duration_s"]), whole_sec


def make_python(folder: Path) -> Path:
    """An interpreter with the pip that the jail has, for the other side."""
    sys.path.insert(0, str(ROOT))
    from snakehook import find_package, load_settings

    settings = load_settings(os.environ, service=False)
    venv = folder / "venv"
    command = [settings.jail_python_name, "-I", "-m", "venv", "--without-pip", str(venv)]
    subprocess.run(command, check=True)
    (library,) = venv.glob("lib/python3*/site-packages")
    pip = Path(find_package("pip"))
    for source in (pip, *pip.parent.glob("pip-*.dist-info")):
        shutil.copytree(source, library / source.name)
    return venv / "bin" / "python"


def main(rounds: int) -> None:
    print(ROW.format("package", "plain s", "phase s", "run s", "ratio", "rounds"))
    with tempfile.TemporaryDirectory() as folder:
        python = make_python(Path(folder))
        for name, version in PACKAGES:
            plain, phase, whole = [], [], []
            for number in range(rounds + 1):
                outside = plain_sec(python, name, version)
                inside, run = jailed_sec(name, version)
                if number:
                    plain.append(outside)
                    phase.append(inside)
                    whole.append(run)
            medians = [statistics.median(seconds) for seconds in (plain, phase, whole)]
            ratio = f"{medians[1] / medians[0]:.2f}"
            print(
                ROW.format(name, *(f"{median:.2f}" for median in medians), ratio, rounds),
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
