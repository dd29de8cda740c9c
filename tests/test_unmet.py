"""What is behind another project that is not there is not run, and told as a gap."""

import json
import time
from pathlib import Path

import pytest
from reports import report_of

from jail.inside.fallen import UNMET_NOT_LOOKED_AT
from jail.inside.sources import MAX_ASKED_BYTES, MAX_LOOKED_BYTES
from jail.inside.unmet import MAX_UNMET, MORE_UNMET, There, tell_unmet, unmet_acts
from jail.watch.events import Omission, Phase, PhaseName, Seen
from jail.watch.installed import Installed
from jail.watch.noticed import Notice, Noticed
from jail.watch.unmet import acts_not_run, waited_for

CI = "as ci, later"
SITE = "lib/python3.11/site-packages"
ACT = "import os, sys, importlib\ndef act():\n    open(os.path.expanduser('~/.ssh/id_rsa'))\n"
HERE = {
    "os",
    "sys",
    "pkg_resources",
    "importlib",
    "json",
    "contextlib",
    "typing",
    "there",
    "unittest",
}


def missing(name: str) -> str:
    """numpy, and whatever else is not in HERE."""
    top = name.partition(".")[0]
    return "" if top in HERE or not top else top


def found_in(source: str) -> set[str]:
    return {f"{project} {act}" for project, _, act in unmet_acts(ACT + source, missing)}


# Whoever has numpy runs them, and nobody here does.
NOT_RUN = [
    "try:\n import numpy\n act()\nexcept ImportError: pass\n",
    "try:\n import numpy as np, os\n act()\nexcept: pass\n",
    "try:\n from numpy.linalg import x\nexcept ImportError: pass\nelse:\n act()\n",
    "try:\n if os:\n  with os: import numpy\n act()\nexcept (ValueError, ImportError): pass\n",
    "try:\n try: import numpy\n except ImportError: raise\n act()\nexcept ImportError: pass\n",
    "import contextlib\nwith contextlib.suppress(ImportError):\n import numpy\n act()\n",
    "try:\n importlib.import_module('numpy')\n act()\nexcept ImportError: pass\n",
    "try:\n x = [__import__('numpy')]\n act()\nexcept Exception: pass\n",
    "from importlib import import_module as get\ntry:\n get('numpy.fft'); act()\nexcept: pass\n",
    "from importlib.util import find_spec\nif find_spec('numpy'): act()\n",
    "if importlib.util.find_spec('numpy') is None: pass\nelse: act()\n",
    "HAS = importlib.util.find_spec('numpy') is not None\nif os and HAS: act()\n",
    "importlib.util.find_spec('numpy') and act()\n",
    "x = act() if importlib.util.find_spec('numpy') else 0\n",
    "if (spec := importlib.util.find_spec('numpy')) is not None: act()\n",
    "if 'numpy' in sys.modules: act()\n",
    "if 'numpy' not in sys.modules: pass\nelse: act()\n",
    "try: import numpy as np\nexcept ImportError: np = None\nif np: act()\n",
    "try: import numpy as np\nexcept ImportError: np = None\nif np is not None: act()\n",
    "HAS = False\ntry:\n import numpy\n HAS = True\nexcept ImportError: pass\nif HAS: act()\n",
    "HAS = True\ntry: import numpy\nexcept ImportError: HAS = False\nif not HAS: pass\nelse: act()",
    "try: import numpy\nexcept ImportError: MISSED = 1\nelse: MISSED = 0\nif not MISSED: act()\n",
    "def f():\n try: import numpy\n except ImportError: return\n act()\nf()\n",
    "def f():\n if not importlib.util.find_spec('numpy'): return\n act()\nf()\n",
    "for _ in [1]:\n try: import numpy\n except ImportError: continue\n act()\n",
    "while True:\n try: import numpy\n except ImportError: break\n act()\n",
    "def f():\n import numpy\n act()\ntry: f()\nexcept ImportError: pass\n",
    "def g():\n try:\n  import numpy\n  act()\n except ImportError: pass\ndef f(): g()\nf()\n",
    "class K:\n def __init__(self):\n  try: import numpy; act()\n  except ImportError: pass\nK()\n",
    "class K:\n def go(self):\n  try: import numpy; act()\n  except ImportError: pass\nK().go()\n",
    "class K:\n try: import numpy; act()\n except ImportError: pass\n",
    "def f():\n try: import numpy; act()\n except ImportError: pass\nimport there\nthere.run(f)\n",
    "try:\n import numpy\n getattr(os, 'sys' + 'tem')('id')\nexcept ImportError: pass\n",
    "try:\n import numpy\n open(os.path.expanduser('~/.aws/x'))\nexcept ImportError: pass\n",
    "try: import json\nexcept ImportError: pass\ntry: import numpy; act()\nexcept: pass\n",
    "try: os.x\nexcept AttributeError:\n try: import numpy; act()\n except ImportError: pass\n",
    "try:\n from numpy import jit\n X = jit(exec(x))(len)\nexcept ImportError: pass\n",
    "def f():\n try: import numpy; act()\n except ImportError: pass\ndef g(x=f()): pass\n",
    "exec('try:\\n import numpy\\n exec(x)\\nexcept ImportError: pass')\n",
    "if sys.version_info >= (3, 8):\n try: import numpy; act()\n except ImportError: pass\n",
    "try:\n importlib.metadata.version('numpy')\n act()\nexcept Exception: pass\n",
    "from importlib.metadata import version\ntry: V = version('numpy')\nexcept: 0\nelse: act()\n",
    "from importlib import metadata as m\ntry: m.version('numpy'); act()\n"
    "except m.PackageNotFoundError: pass\n",
    "def has(n):\n try: importlib.metadata.distribution(n); return True\n except: return False\n"
    "if has('numpy'): act()\n",
    "def has(n): return importlib.util.find_spec(n) is not None\nif has('numpy'): act()\n",
    "def need(n): return importlib.import_module(n)\ntry:\n need('numpy'); act()\nexcept: pass\n",
    "import pkg_resources as p\ntry: p.get_distribution('numpy>=1'); act()\n"
    "except p.DistributionNotFound: pass\n",
    "if 'numpy' in importlib.metadata.packages_distributions(): act()\n",
    "if importlib.metadata.packages_distributions().get('numpy'): act()\n",
    "D = {d.name for d in importlib.metadata.distributions()}\nif 'numpy' in D: act()\n",
    "if any(d.name == 'numpy' for d in importlib.metadata.distributions()): act()\n",
    "N = 'numpy'\nif importlib.util.find_spec(N): act()\n",
    "N = ['json', 'numpy']\nfor n in N:\n try: __import__(n); act()\n except: pass\n",
    "for n in ('numpy', 'os'):\n if importlib.util.find_spec(n): act()\n",
    "if sys.modules.get('numpy'): act()\n",
]

# Nothing of these acts for want of a project.
HARMLESS = [
    "try: import numpy as np\nexcept ImportError: np = None\n",
    "try:\n import numpy\n def f(): act()\nexcept ImportError: pass\n",
    "try:\n import numpy\n class K(numpy.A):\n  def f(self): act()\nexcept ImportError: pass\n",
    "try:\n import numpy\n from numpy import x, y\n HAS = x.z(1)\nexcept ImportError: HAS = 0\n",
    "try:\n import there\n act()\nexcept ImportError: pass\n",
    "try: import numpy\nexcept ImportError: act()\n",
    "try: import numpy\nexcept ImportError: pass\nact()\n",
    "try:\n act()\n import numpy\nexcept ImportError: pass\n",
    "def f():\n try: import numpy\n except ImportError: return\n act()\n",
    "def f():\n import numpy\n act()\n",
    "if not importlib.util.find_spec('numpy'): act()\n",
    "if importlib.util.find_spec('there'): act()\n",
    "try: import numpy as np\nexcept ImportError: np = None\nif np is None: act()\n",
    "import typing\nif typing.TYPE_CHECKING:\n try: import numpy; act()\n except: pass\n",
    "if __name__ == '__main__':\n try: import numpy; act()\n except ImportError: pass\n",
    "if sys.version_info < (3, 8):\n try: import numpy; act()\n except ImportError: pass\n",
    "try: import json\nexcept ImportError:\n try: import simplejson; act()\n except: pass\n",
    "try:\n from . import fast\n act()\nexcept ImportError: pass\n",
    "import numpy\nact()\n",  # the module fails: that is told otherwise
    "try: import a\nexcept ImportError:\n try: import b\n except ImportError: b = None\n",
    "try:\n import numpy\n X = __import__('sqlalchemy-stubs')\nexcept ImportError: pass\n",
    "DEBUG = False\nif DEBUG: act()\n",
    "try:\n import numpy as np\n X = np.jit(cache=True)(len)\nexcept ImportError: pass\n",
    "try:\n from numpy import jit\n X = jit()(len)\nexcept ImportError: pass\n",
    "try: V = importlib.metadata.version('numpy')\nexcept Exception: V = '0'\nact()\n",
    "try:\n V = importlib.metadata.version('there')\n act()\nexcept Exception: pass\n",
    "def has(n): return importlib.util.find_spec(n)\nif has('json'): act()\nX = has('numpy')\n",
    "for n in ('json', 'os'):\n if importlib.util.find_spec(n): act()\n",
    "HAS = {n: importlib.util.find_spec(n) for n in ('numpy', 'json')}\n",
    "for d in importlib.metadata.distributions():\n if d.name == 'there': act()\n",
]


@pytest.mark.parametrize("source", NOT_RUN)
def test_an_act_behind_what_is_not_there_is_found(source: str) -> None:
    assert {name.partition(" ")[0] for name in found_in(source)} == {"numpy"}


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_not_needed_or_run_anyway_is_none(source: str) -> None:
    assert found_in(source) == set()


def test_a_program_s_own_functions_count(tmp_path: Path) -> None:
    act = "def main():\n    import numpy\n    exec(input())\n"
    (tmp_path / "s-1.dist-info").mkdir()
    (tmp_path / "s-1.dist-info/entry_points.txt").write_text(
        "[console_scripts]\ns = s.go:main\n[x]\ny=s:main\n"
    )
    (tmp_path / "s").mkdir()
    (tmp_path / "s/__init__.py").write_text(act)
    (tmp_path / "s/go.py").write_text(act)
    (tmp_path / "s/__main__.py").write_text(f"{act}if __name__ == '__main__': main()\n")
    assert told_of(tmp_path, "s", "s.go") == [("numpy", "exec(input())", "s/go.py:3")]


def told_of(site: Path, *names: str, left_sec: float = 60) -> list[tuple[str, str, str]]:
    tell = site / "told"
    tell.write_text("")
    tell_unmet(str(tell), str(site), names, time.monotonic() + left_sec)
    told = [json.loads(line) for line in tell.read_text().splitlines()]
    places = [said.get("at", "").removeprefix(f"{site}/") for said in told]
    return [(said["what"], said["text"], at) for said, at in zip(told, places, strict=True)]


def test_files_of_all_kinds_are_looked_at(tmp_path: Path) -> None:
    act = "try:\n    import numpy\n    exec(x)\nexcept ImportError:\n    pass\n"
    (tmp_path / "plain.py").write_text(act)
    odd = act.replace("import numpy", "import os, \\\n numpy")
    (tmp_path / "odd.py").write_text(odd)
    (tmp_path / "coded.py").write_bytes(b"# coding: utf-7\n" + act.encode("utf-7"))
    (tmp_path / "hook.pth").write_text(f"some/path\nimport os; exec({act!r})\n")
    (tmp_path / "broken.py").write_text("import numpy\ntry: = 1\n")
    (tmp_path / "loaded.py").write_text("from sys import modules\n'numpy' in modules and exec(x)\n")
    told = told_of(tmp_path, "plain", "odd", "coded", "broken", "not_there", "loaded")
    places = {"plain.py:3", "odd.py:4", "coded.py:4", "hook.pth:1", "loaded.py:2"}
    assert {at for _, _, at in told} == places


def test_what_is_too_deep_to_be_looked_at_is_told(tmp_path: Path) -> None:
    elifs = "".join(f"elif x == {number}: import numpy\n" for number in range(900))
    (tmp_path / "deep.py").write_text(
        f"try:\n    pass\nexcept ImportError: pass\nif x: pass\n{elifs}"
    )
    assert told_of(tmp_path, "deep") == [("", UNMET_NOT_LOOKED_AT, "deep.py")]


def test_what_is_too_long_to_be_looked_at_is_told(tmp_path: Path) -> None:
    act = "try:\n    import numpy\n    exec(x)\nexcept ImportError:\n    pass\n"
    filler = "x = " + "'" + "a" * MAX_LOOKED_BYTES + "'" + "\n"
    texts = {"before": act + filler, "after": filler + act, "data": f"import json\n{filler}"}
    texts["endless"] = "x = 1\n" * (MAX_ASKED_BYTES // len("x = 1\n") + 1)
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        is_told = name != "data"  # which asks for nothing that is not there
        expected = [("", UNMET_NOT_LOOKED_AT, f"{name}.py")] * is_told
        assert told_of(tmp_path, name) == expected, name


def test_that_there_were_more_is_told(tmp_path: Path) -> None:
    act = "try:\n    import numpy\n    exec(x)\nexcept ImportError:\n    pass\n"
    names = [f"m{number}" for number in range(MAX_UNMET + 1)]
    for name in names:
        (tmp_path / f"{name}.py").write_text(act)
    told = told_of(tmp_path, *names)
    assert len(told) == MAX_UNMET + 1 and told[-1][:2] == ("", MORE_UNMET)
    assert told_of(tmp_path, *names, left_sec=-1) == [("", UNMET_NOT_LOOKED_AT, "")]


def test_of_a_namespace_package_each_part_is_a_project_of_its_own(tmp_path: Path) -> None:
    for path in ("google/cloud/storage/__init__.py", "six.py", "fast.abi3.so", "p/__init__.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    there = There(str(tmp_path))
    is_missing = {
        "six.moves": "",
        "p.made_at_run_time": "",
        "google.cloud.storage.blob": "",
        "fast": "",
        "winreg": "",
        "json.nothing": "",
        "google.cloud.pubsub.x": "google.cloud.pubsub",
        "numpy.linalg": "numpy",
    }
    assert {name: there.missing(name) for name in is_missing} == is_missing


def test_a_project_is_known_by_its_own_name(tmp_path: Path) -> None:
    for name in ("Google_Auth-2.0.dist-info", "zope.interface-7.0.egg-info"):
        (tmp_path / name).mkdir()
    there = There(str(tmp_path))
    is_absent = {"google-auth": "", "zope.interface": "", "Not-There": "not_there", "a.b": "a_b"}
    assert {name: there.absent(name) for name in is_absent} == is_absent


def seen_of(*events: Noticed, phase: PhaseName = PhaseName.IMPORT) -> list[Seen]:
    return [Seen(event, Phase(phase, "all modules"), 0.0, ()) for event in events]


def test_what_is_there_by_now_is_made_good() -> None:
    act = Noticed(Notice.UNMET, "numpy", text="act()", place="/s/m.py:4")
    cloud = Noticed(Notice.UNMET, "google.cloud.x", text="act()", place="/s/m.py:5")
    cut = Noticed(Notice.UNMET, "", text=MORE_UNMET)
    seen = seen_of(act, act, cloud, cut)
    assert waited_for(seen) == ["numpy", "google.cloud.x"]
    nothing = Installed(site=SITE)
    left = acts_not_run(seen, nothing)
    assert {item.why for item in left} == {Omission.LEFT_OUT}
    reasons = [item.reason for item in left]
    assert reasons == [
        "act() waits for numpy, which is not there (/s/m.py:4)",
        "act() waits for google.cloud.x, which is not there (/s/m.py:5)",
        MORE_UNMET,
    ]
    files = frozenset({f"{SITE}/numpy/__init__.py", f"{SITE}/google/cloud/x.py", f"{SITE}/n.py"})
    assert acts_not_run(seen_of(act, cloud), Installed(site=SITE, files=files)) == []
    # What is there by now, and fails, helps nobody.
    broken = Seen(Noticed(Notice.MISSED, "numpy", "raised"), Phase(PhaseName.IMPORT, CI), 0.0, ())
    (item,) = acts_not_run([*seen_of(act), broken], Installed(site=SITE, files=files))
    assert item.reason == "act() waits for numpy, which fails (/s/m.py:4)"
    # Tests need much that is not there.
    assert acts_not_run(seen_of(act, cut, phase=PhaseName.CALL), nothing) == []


def test_what_is_not_run_makes_no_green() -> None:
    seen = seen_of(Noticed(Notice.UNMET, "numpy", text="act()", place="/s/m.py:4"))
    report = report_of(mode="import", not_run=acts_not_run(seen, Installed(site=SITE)))
    told = "not run: import all modules: act() waits for numpy, which is not there (/s/m.py:4)"
    assert told in report.gaps
