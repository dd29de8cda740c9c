"""An act that an import runs on a condition which nobody here meets is a gap, in all its words."""

from pathlib import Path

import pytest
from test_unmet import told_of

from jail.inside.held_back import held_acts, may_hold
from jail.watch.events import Phase, PhaseName, Seen
from jail.watch.installed import Installed
from jail.watch.noticed import Notice, Noticed
from jail.watch.unmet import acts_not_run

ACT = "import os, sys, random, socket\ndef act():\n    os.system('id')\n"

# Nobody can know from here whether these ever act.
HELD = [
    "if os.environ.get('APP_ENV') == 'prod': act()\n",
    "if os.getenv('TOKEN'): act()\n",
    "if os.path.exists('/opt/app/flag'): act()\n",
    "if os.cpu_count() > 64: getattr(os, 'sys' + 'tem')('id')\n",
    "if random.random() < 0.01: act()\n",
    "if sys.argv[0] != '-c': act()\n",
    "import __main__\nif getattr(__main__, '__file__', None): act()\n",
    "def right():\n try: return os.stat('/opt/x').st_size\n except OSError: return 0\n"
    "if right(): act()\n",
    "class K:\n is_prod = os.environ.get('APP_ENV') == 'prod'\nif K.is_prod: act()\n",
    "try: raise ValueError\nexcept KeyError: act()\nexcept ValueError: pass\n",
    "for _ in range(os.environ.get('N', '').count('x')): act()\n",
    "[act() for name in os.environ if name == 'PROD']\n",
    "while os.path.exists('/opt/x'): act()\n",
    "os.environ.get('X') and act()\n",
    "X = act() if os.environ.get('X') else 0\n",
    "def f():\n if not os.environ.get('X'): return\n act()\nf()\n",
    "def f():\n if os.path.exists('/opt/x'): act()\ndef g(): f()\ng()\n",
    "if socket.gethostname().startswith('build-'): open(os.path.expanduser('~/.ssh/id_rsa'))\n",
    "if not os.environ.get('X'): pass\nelse: act()\n",
]

HELD += [
    "if os.getenv('X'): eval('__import__(\"os\").system(\"id\")')\n",
    "if os.getenv('X'): exec('1')\n",
    "if os.path.exists('/x'): (lambda run: run('id'))(print)\n",
    "if os.path.exists('/x'): X = [getattr(os, '\\x73ystem')]\n",
    "{'prod': act}.get(os.environ.get('X'), print)()\n",
    "class K:\n def __init__(self):\n  if os.getenv('X'): act()\nK()\n",
    "def f():\n if os.getenv('X'): act()\nimport threading\nthreading.Thread(target=f).start()\n",
    "def f(g):\n if os.getenv('X'): act()\n@f\ndef g(): pass\n",
    "class K:\n def __init__(self):\n  if os.getenv('X'): self.go()\n def go(self): act()\nK()\n",
]

# These are run here, by another trigger, or by nobody.
NOT_HELD = [
    "act()\n",
    "if os.name == 'nt': act()\n",
    "if os.environ.get('GITHUB_ACTIONS'): act()\n",
    "if sys.version_info >= (3, 8): act()\n",
    "if sys.version_info < (3, 8): act()\n",
    "if __name__ == '__main__': act()\n",
    "DEBUG = False\nif DEBUG: act()\n",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING: act()\n",
    "for name in ('a', 'b'): act()\n",
    "try: import numpy\nexcept ImportError: act()\n",
    "def f():\n if os.environ.get('X'): act()\n",
    "def f(x):\n if x: act()\nf(0)\n",
    "if os.environ.get('X'): Y = 1\nact()\n",
    "if os.environ.get('X'):\n def act(): pass\n",
    "if os.getpid() == 1: X = eval('\"\\\\ud800-\\\\udfff\"')\n",
    "value = os.getenv('X', 'False')\nif value in ('True', 'False'): Y = eval(value)\n",
    "if os.path.exists('/opt/x'): print('there')\n",
    "if not os.environ.get('X'): act()\n",
    "try: os.x\nexcept AttributeError: Y = 1\n",
    "if os.path.exists('/x'): Y = getattr(os, 'O_BINARY', 0)\n",
    "{'prod': str}.get(os.environ.get('X'), print)()\n",
    "class K:\n def __init__(self):\n  if os.getenv('X'): act()\n",
    "def f():\n if os.getenv('X'): act()\nX = [f]\nX.append(f)\n",
]


@pytest.mark.parametrize("source", HELD)
def test_an_act_on_a_condition_is_found(source: str) -> None:
    assert may_hold((ACT + source).encode())
    assert len(held_acts(ACT + source)) == 1


@pytest.mark.parametrize("source", NOT_HELD)
def test_what_is_run_anyway_or_never_is_not_held_back(source: str) -> None:
    assert held_acts(ACT + source) == []


def test_a_file_without_an_act_is_not_parsed() -> None:
    assert not may_hold(b"import os\nif os.path.exists('/opt/x'):\n    X = 1\n")


def test_what_is_held_back_is_told_as_a_gap(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("import os\nif os.getenv('X'):\n    os.system('id')\n")
    ((what, text, at),) = told_of(tmp_path, "m")
    assert (what, at) == ("", "m.py:3")
    event = Noticed(Notice.UNMET, what, text=text, place="/s/m.py:3")
    seen = [Seen(event, Phase(PhaseName.IMPORT, "all modules"), 0.0, ())]
    (left,) = acts_not_run(seen, Installed(site="lib"))
    told = "os.system('id') is behind a condition that may not be met here (environment)"
    assert left.reason == f"{told} (/s/m.py:3)"


def test_what_waits_for_a_project_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import os\ntry:\n    import numpyy\nexcept ImportError:\n    numpyy = None\n"
        "if numpyy:\n    os.system('id')\n"
    )
    assert [(what, text) for what, text, _ in told_of(tmp_path, "m")] == [
        ("numpyy", "os.system('id')")
    ]


def test_what_another_module_calls_at_its_import_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/__init__.py").write_text("from m import core\ncore._start()\n")
    start = (
        "import os\ndef {}():\n    if os.getenv('X') != '1':\n        return\n    os.system('id')\n"
    )
    (tmp_path / "m/core.py").write_text(start.format("_start"))
    (tmp_path / "m/tool.py").write_text(start.format("main"))
    assert [at for _, _, at in told_of(tmp_path, "m", "m.core", "m.tool")] == ["m/core.py:5"]
