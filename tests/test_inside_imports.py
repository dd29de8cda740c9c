"""The worker that imports all modules, and the launcher's side of it: what one module does ends no
other, and what is odd is told.
"""

import dis
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest
from conftest import ROOT
from inside import Stand, make_python

from jail.inside.attested import attest
from jail.inside.executed import TOO_MANY_EXECUTED
from jail.inside.native_threads import goes_on_by_itself
from jail.watch.packing import pack_names

ALL_RAN, SOME_LEFT, SOME_NOT_RUN, NOT_SURE = 0, 80, 81, 84
# Threads act after a while, as those of thieves do.
LATE = "import threading, time, os\ndef act():\n    time.sleep(0.4)\n    os.write(1, b'acted\\n')\n"
LOOPS = "import threading, time\ndef loop():\n    while True:\n        time.sleep(0.2)\n"
PRINTS = "print(__name__)\n"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def stand(tmp_path: Path, python: Path) -> Stand:
    return Stand(tmp_path / "stand", python)


@pytest.mark.parametrize(
    ("ends", "how"),
    [
        ("raise RuntimeError('no')", "raised"),
        ("import nothing_there", "raised"),
        ("raise SystemExit(3)", "exited"),
        ("raise KeyboardInterrupt", "raised"),
        ("import os; os._exit(0)", "died"),
        ("import os, signal; os.kill(0, signal.SIGKILL)", "died"),
        ("import os; os.abort()", "died"),
        ("import os; os.closerange(3, 1000)", "died"),
        ("while True: pass", "stopped"),
    ],
)
def test_a_module_that_ends_badly_ends_no_other(stand: Stand, ends: str, how: str) -> None:
    stand.write({"a.py": PRINTS, "b.py": ends, "c.py": PRINTS})
    ended = stand.imports("a,b,c", each_sec="1")
    assert ended.how() == {"b": how}
    assert {"a", "c"} <= set(ended.stdout.split())
    assert ended.code == (SOME_LEFT if how == "stopped" else ALL_RAN)


def test_one_worker_does_for_all_that_end_well(stand: Stand) -> None:
    stand.write({f"m{number}.py": "import os; print(os.getpid())" for number in range(300)})
    ended = stand.imports(*(f"m{number}" for number in range(300)))
    assert ended.code == ALL_RAN
    assert len(ended.stdout.split()) == 300
    assert len(set(ended.stdout.split())) == 1
    assert [said["text"] for said in ended.of("jobs")] == ["300 ran"]


# Two modules that were never run, and as much code as the package likes under names of the site's.
FLOOD = """
import sys
from jail.inside import executed
executed.MAX_EXECUTED_FILES = 3
class Teller:
    def tell(self, event, what, text): print(event, text)
found = executed.Executed(sys.argv[1], Teller())
for number in range(int(sys.argv[2])):
    exec(compile("", f"{sys.argv[1]}/{number}.py", "exec"))
    exec(compile("", "elsewhere.py", "exec"))
print(*(found.missed_file(name) is not None for name in ("a", "b")))
"""


@pytest.mark.parametrize(
    ("count", "said"),
    [(3, "True True\n"), (5, f"unrun {TOO_MANY_EXECUTED}\nFalse False\n")],
)
def test_more_executed_code_than_is_kept_is_told_once(
    tmp_path: Path, count: int, said: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").touch()
    words = [sys.executable, "-c", FLOOD, str(tmp_path), str(count)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == said, done.stderr


def test_names_may_be_packed(stand: Stand) -> None:
    stand.write({f"pack/m{number}.py": PRINTS for number in range(700)})
    names = [f"pack.m{number}" for number in range(700)]
    words, _ = pack_names(names)
    assert words[0].startswith("*")
    assert stand.imports(*words).stdout.split() == names


def test_what_there_was_no_time_for_is_told(stand: Stand) -> None:
    stand.write({f"m{number}.py": "while True: pass" for number in range(70)})
    ended = stand.imports(*(f"m{number}" for number in range(70)), total_sec="2")
    assert ended.code == SOME_NOT_RUN
    assert ended.how()[""] == "not run"


def test_that_there_was_no_time_for_any_job_is_told_and_no_success(stand: Stand) -> None:
    stand.write({"a.py": PRINTS, "x.pth": "import time; time.sleep(60)\n"})
    ended = stand.imports("a", total_sec="1")
    assert ended.code not in (0, SOME_NOT_RUN)
    assert [said["text"] for said in ended.of("ended")] == ["any job, for want of time"]


def test_a_pth_file_that_ends_the_interpreter_is_no_success(stand: Stand) -> None:
    stand.write({"a.py": PRINTS, "x.pth": "import os; os._exit(0)\n"})
    ended = stand.imports("a")
    assert (ended.code, ended.stdout) == (SOME_NOT_RUN, "")


@pytest.mark.parametrize(
    "starts",
    [
        LATE + "threading.Thread(target=act, daemon=True).start()",
        LATE + "threading.Timer(0.3, act).start()",
        LATE + "from concurrent.futures import ThreadPoolExecutor as E\nE().submit(act)",
        LATE + "import _thread; _thread.start_new_thread(act, ())",
        "import atexit, os; atexit.register(os.write, 1, b'acted\\n')",
        "import os, signal\nsignal.signal(14, lambda *_: os.write(1, b'acted\\n'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.4)",
        "import os\nclass Last:\n    def __del__(self, w=os.write):\n"
        "        w(1, b'acted\\n')\nlast = Last()",
    ],
    ids=["thread", "timer", "executor", "bare thread", "atexit", "alarm", "finalizer"],
)
@pytest.mark.parametrize("after", ["", "import os; os._exit(0)"], ids=["last", "then one dies"])
def test_background_work_gets_its_time(stand: Stand, starts: str, after: str) -> None:
    stand.write({"a.py": starts, "b.py": after})
    ended = stand.imports("a,b")
    assert "acted" in ended.stdout
    assert ended.code == ALL_RAN


# 30 s from now.
C_TIMER = """
import ctypes, signal
made, clock = ctypes.c_void_p(), (ctypes.c_long * 4)(0, 0, 30, 0)
event = (ctypes.c_int * 16)(0, 0, signal.SIGALRM)
ctypes.CDLL(None).timer_create(1, event, ctypes.byref(made))
ctypes.CDLL(None).timer_settime(made, 0, clock, None)
"""


def test_a_timer_that_python_does_not_know_is_told(stand: Stand) -> None:
    stand.write({"a.py": C_TIMER})
    ended = stand.imports("a")
    assert (ended.code, ended.how()) == (SOME_LEFT, {"imports": "left"})
    assert "a timer" in ended.of("ended")[0]["text"]


# A thread that Python knows nothing of calls a function of the C library.
NATIVE = """
import ctypes
made, library = ctypes.c_void_p(), ctypes.CDLL(None)
library.pthread_create(ctypes.byref(made), None, library.{}, ctypes.c_void_p({}))
"""


@pytest.mark.parametrize(("call", "is_told"), [(("sleep", 30), True), (("pause", 0), False)])
def test_a_native_thread_that_goes_on_by_itself_is_told(
    stand: Stand, call: tuple[str, int], is_told: bool
) -> None:
    """One that waits for others without an end is none that is left, as those of numpy."""
    stand.write({"a.py": NATIVE.format(*call)})
    ended = stand.imports("a")
    assert ended.code == (SOME_LEFT if is_told else ALL_RAN)
    assert ended.how() == ({"imports": "left"} if is_told else {})
    told = [said["text"] for said in ended.of("ended")]
    assert all(text.startswith("1 at work: a native thread (python") for text in told), told


@pytest.mark.parametrize(
    ("said", "machine", "goes_on"),
    [
        ("running", "x86_64", True),
        ("202 0x1 0x189 0x0 0x7ffd10 0x0 0xffffffff 0x1 0x2", "x86_64", True),
        ("202 0x1 0x189 0x0 0x0 0x0 0xffffffff 0x1 0x2", "x86_64", False),
        ("230 0x1 0x0 0x7f00 0x0 0x0 0x0 0x1 0x2", "x86_64", True),
        ("232 0x5 0x7f00 0x10 0x3e8 0x0 0x0 0x1 0x2", "x86_64", True),
        ("232 0x5 0x7f00 0x10 0xffffffff 0x0 0x0 0x1 0x2", "x86_64", False),
        ("7 0x7f00 0x1 0xffffffffffffffff 0x0 0x0 0x0 0x1 0x2", "x86_64", False),
        ("0 0x5 0x7f00 0x8 0x0 0x0 0x0 0x1 0x2", "x86_64", False),
        ("98 0x1 0x189 0x0 0x7ffd10 0x0 0xffffffff 0x1 0x2", "aarch64", True),
        ("98 0x1 0x189 0x0 0x0 0x0 0xffffffff 0x1 0x2", "aarch64", False),
        ("-1 0x7ffd10 0x7f00", "x86_64", False),
        ("", "x86_64", False),
    ],
)
def test_who_waits_with_an_end_goes_on(said: str, machine: str, goes_on: bool) -> None:
    assert goes_on_by_itself(said, machine) == goes_on


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_never_ends_is_told(stand: Stand, daemon: bool) -> None:
    text = f"{LOOPS}threading.Thread(target=loop, daemon={daemon}).start()"
    stand.write({"a.py": text, "b.py": "import atexit; atexit.register(print, 'at the end')"})
    ended = stand.imports("a,b")
    assert ended.code == SOME_LEFT
    assert ended.how() == {"imports": "left"}
    assert "at the end" in ended.stdout


@pytest.mark.parametrize(
    "waits",
    [
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor()\npool.submit(print, 'done').result()",
        "import threading, queue\nthreading.Thread(target=queue.Queue().get, daemon=True).start()",
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
    ids=["executor", "queue", "event"],
)
def test_a_thread_that_waits_for_work_is_none_that_is_left(stand: Stand, waits: str) -> None:
    stand.write({"a.py": waits})
    ended = stand.imports("a")
    assert (ended.code, ended.how()) == (ALL_RAN, {})


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"wave.py": PRINTS}, "wave"),
        ({"time.py": PRINTS}, "time"),
        ({"typing.py": PRINTS + "import os"}, "typing"),
        ({"enum/__init__.py": "from .x import y\n" + PRINTS, "enum/x.py": "y = 1"}, "enum,enum.x"),
        ({"json/__init__.py": PRINTS, "json/decoder.py": PRINTS}, "json.decoder,json"),
    ],
)
def test_what_the_library_hides_is_run_by_its_path(
    stand: Stand, files: dict[str, str], names: str
) -> None:
    stand.write({**files, "zz.py": "import wave, time, typing, enum, json; json.dumps(1)"})
    ended = stand.imports(f"{names},zz")
    assert ended.stdout.split() and set(ended.stdout.split()) <= set(names.split(","))
    assert [said["what"] for said in ended.of("shadowed")] == [
        names.partition(".")[0].split(",")[0]
    ]
    assert (ended.code, ended.how()) == (ALL_RAN, {})


# What a package puts in the place of its own submodule, which then counts as imported.
STAND_INS = {
    "made": "class Own(types.ModuleType): pass\nsys.modules['s.made'] = Own('s.made')\n",
    "dressed": "m = sys.modules['s.dressed'] = types.ModuleType('s.dressed')\n"
    "m.__file__ = f'{__path__[0]}/dressed.py'\n"
    "m.__spec__ = importlib.util.spec_from_file_location('s.dressed', m.__file__)\n",
    "false": "class F:\n    def __bool__(self): raise OSError\nsys.modules['s.false'] = F()\n",
    "barred": "sys.modules['s.barred'] = None\n",
    "asked": "importlib.util.find_spec('s.asked')\nsys.modules['s.asked'] = sys\n",
    "hooked": "class Hook:\n    def find_spec(self, name, *_):\n"
    "        if name == 's.hooked':\n"
    "            return importlib.machinery.ModuleSpec(name, self)\n"
    "    def create_module(self, spec): pass\n    def exec_module(self, module): pass\n"
    "sys.meta_path.insert(0, Hook())\n",
    "sub": "sub = sys.modules['s.sub'] = types.ModuleType('s.sub')\nsub.__path__ = []\n",
}


def test_what_has_another_in_its_place_is_run_by_its_path(stand: Stand) -> None:
    start = "import importlib.machinery, importlib.util, sys, types\n"
    files = {f"s/{name}.py": PRINTS for name in STAND_INS if name != "sub"}
    files["s/__init__.py"] = start + "".join(STAND_INS.values())
    files |= {"s/sub/__init__.py": f"from . import deep\n{PRINTS}", "s/sub/deep.py": PRINTS}
    # The stand-in stays for who uses it.
    keeps = "import sys\nassert type(sys.modules['s.made']).__name__ == 'Own'\n" + PRINTS
    files["s/zz.py"] = keeps
    stand.write(files)
    names = [f"s.{name}" for name in STAND_INS]
    ended = stand.imports("s", *names, "s.zz")
    assert sorted(ended.stdout.split()) == sorted([*names, "s.sub.deep", "s.zz"])
    assert {said["what"] for said in ended.of("shadowed")} == {*names}
    assert (ended.code, ended.how()) == (ALL_RAN, {})


def test_what_has_no_file_or_was_run_is_not_run_again(stand: Stand) -> None:
    """As six, py and others do it."""
    stand.write(
        {
            "six.py": "import sys, types\nprint(__name__)\n"
            "sys.modules['six.moves'] = types.ModuleType('six.moves')\n",
            "p/__init__.py": "import sys, types\nprint(__name__)\n"
            "class Lazy(types.ModuleType):\n    pass\n"
            "lazy = Lazy('p')\nlazy.__path__ = __path__\n"
            "sys.modules['p'], sys.modules['p.path'] = lazy, Lazy('p.path')\n",
            "p/real.py": "import sys\nprint(__name__)\nsys.modules[__name__] = sys\n",
            "both.py": PRINTS,
            "alias.py": "import both, sys\nprint(__name__)\nsys.modules['old'] = both\n",
            "early.pth": "import early\n",
            "early.py": f"def f(): pass\n{PRINTS}",
        }
    )
    ended = stand.imports("six", "six.moves", "p", "p.path", "p.real", "both", "alias", "early")
    assert sorted(ended.stdout.split()) == sorted(["six", "p", "p.real", "both", "alias", "early"])
    assert (ended.of("shadowed"), ended.how()) == ([], {})


def test_what_nothing_hides_is_not_told_as_hidden(stand: Stand) -> None:
    stand.write({"waves.py": PRINTS, "winreg.py": PRINTS, "ns/deep/code.py": PRINTS})
    ended = stand.imports("waves,winreg,ns.deep.code")
    assert ended.stdout.split() == ["waves", "winreg", "ns.deep.code"]
    assert ended.of("shadowed") == []


def test_a_package_may_have_modules_of_our_names(stand: Stand) -> None:
    rooms = ("imports", "jobs", "ending", "jail", "victims", "enter")
    stand.write({f"{room}.py": PRINTS for room in rooms})
    ended = stand.imports(",".join(rooms))
    assert ended.stdout.split() == list(rooms)


def test_what_a_module_asks_for_and_misses_is_told(stand: Stand) -> None:
    stand.write(
        {
            "a.py": "try:\n    import not_declared\nexcept ImportError: pass",
            "b.py": "import importlib.util; importlib.util.find_spec('made_up_at_run_time')",
            "c.py": "import json",
            "d.py": "try:\n    import broken_lib\nexcept OSError: pass",
            "broken_lib.py": "raise OSError",
            "e.py": "import importlib.util; importlib.util.find_spec('whole_lib')",
            "whole_lib.py": "",
        }
    )
    missed = stand.imports("a,b,c,d,e").of("missed")
    assert [(said["what"], said.get("how", said.get("at"))) for said in missed] == [
        ("not_declared", f"{stand.site}/a.py:2"),
        ("broken_lib", "raised"),
    ]


def test_an_entry_point_is_loaded(stand: Stand) -> None:
    stand.write({"a/b.py": "print('loaded')\nclass Plug:\n    part = 1\n"})
    ended = stand.imports("a.b:Plug.part", "a.b:Gone")
    assert ended.stdout.split() == ["loaded"]
    assert ended.how() == {"a.b:Gone": "raised"}


@pytest.mark.parametrize(
    ("what", "patch"),
    [
        ("json.dumps", "import json\ndef dumps(*a): pass\njson.dumps = dumps"),
        (
            "json.decoder.JSONDecoder.decode",
            "import json\njson.JSONDecoder.decode = lambda s, t: 1",
        ),
        ("builtins.open", "import builtins\ndef mine(*a): pass\nbuiltins.open = mine"),
        ("other.get", "import other\nclass W:\n    def __call__(self): pass\nother.get = W()"),
        ("time.sleep", "import time\ntime.sleep = lambda s: None"),
    ],
)
def test_a_function_of_another_that_is_replaced_is_told(
    stand: Stand, what: str, patch: str
) -> None:
    stand.write({"a.py": patch, "other.py": "def get(): pass"})
    patched = stand.imports("a").of("patched")
    assert [said["what"] for said in patched] == [what]
    assert patched[0]["at"].startswith(f"{stand.site}/a.py:")


# Each replaces something of others, in another way; first what is told.
OTHER_PATCHES = {
    "pack.post": "import pack\npack.post = lambda *a: 1",
    "os.system": "import os\nos.system = lambda c: 0",
    "socket.socket.connect": "import socket\nsocket.socket.connect = lambda s, a: 0",
    "http.client.HTTPSConnection.request": "import http.client\n"
    "http.client.HTTPSConnection.request = lambda *a: 0",
    "json.loads": "import json\nclass W:\n    def go(self): pass\njson.loads = W().go",
    "json.dump": "import json, functools\ndef mine(a): pass\n"
    "json.dump = functools.partial(mine, 1)",
    "json.load": "import json, functools\n@functools.lru_cache\ndef mine(): pass\njson.load = mine",
    "json.encoder.JSONEncoder": "import json\nclass E:\n    def f(self): pass\n"
    "json.encoder.JSONEncoder = E",
    "other.*": "import sys\ndef get(): pass\nsys.modules['other'] = sys.modules[__name__]",
    "later.*": "import sys\nclass L:\n    def get(self): pass\nsys.modules['later'] = L()",
    "getpass.getpass": "import getpass\ngetpass.getpass = lambda p='': 'x'",
    "random.random": "import random\nrandom.random = lambda: 4",
    "hashlib.sha256": "import hashlib\nhashlib.sha256 = lambda d: d",
    "ssl._create_default_https_context": "import ssl\n"
    "ssl._create_default_https_context = lambda *a: None",
    "logging.root.handle": "import logging\nlogging.root.handle = lambda r: None",
    "signal.signal": "import signal\nsignal.signal(signal.SIGTERM, lambda *a: None)",
    "gc.callbacks": "import gc\ngc.callbacks.append(lambda *a: None)",
    "sys.setprofile": "import sys\ndef watch(*a): pass\nsys.setprofile(watch)",
}


def test_whatever_way_it_is_replaced(stand: Stand) -> None:
    files = {f"a{number}.py": text for number, text in enumerate(OTHER_PATCHES.values())}
    stand.write({"other.py": "", "later.py": "", **files})
    stand.write({"pack/__init__.py": "from .api import post", "pack/api.py": "def post(): pass"})
    told = stand.imports(",".join(f"a{number}" for number in range(len(files)))).of("patched")
    assert {said["what"] for said in told} == {*OTHER_PATCHES}
    assert len(told) == len(OTHER_PATCHES)


@pytest.mark.parametrize(
    "own",
    [
        "import other, sys\nother.handler = lambda: 1\n"
        "sys.modules['old_name'] = sys.modules[__name__]",
        "import user\nclass Base:\n    def go(self): pass\nuser.Child.more = lambda s: 1",
        "import other\nclass Proxy:\n    __class__ = type\nother.decorated = Proxy()",
        "import json\njson.extra = lambda: 1",
        "import other\nother.thing.handler = lambda: 1",
        "import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)",
        "import functools\n@functools.wraps(print)\ndef shout(*a): pass\nprint = shout",
        "import logging\nlogging.Logger.trace = lambda self, *a: None",
        "import other\n@other.decorated\ndef f(): pass",
        "import _socket, other\nother.Capsule = type(_socket.CAPI)",
    ],
)
def test_what_is_added_or_its_own_is_not_told_as_replaced(stand: Stand, own: str) -> None:
    stand.write(
        {
            "a.py": own,
            "other.py": "handler = None\ndef decorated(f): return lambda: f()\n"
            "class T: pass\nthing = T()",
        }
    )
    stand.write({"user.py": "import functools\nclass Child(dict): pass\n"})
    ran = stand.imports("a")
    assert (ran.of("patched"), ran.of("ended"), ran.stderr) == ([], [], "")


def test_who_decodes_text_for_others_is_asked(stand: Stand) -> None:
    stand.write({"a.py": "import codecs\ndef find(n): print('acted')\ncodecs.register(find)"})
    assert stand.imports("a").stdout == "acted\n"


def test_an_import_hook_is_told_with_what_it_answers_to(stand: Stand) -> None:
    finder = (
        "import sys, importlib.machinery as m\nclass F:\n    def find_spec(self, name, *_):\n"
        "        return m.ModuleSpec(name, None) if name in {} else None\nsys.meta_path.{}\n"
    )
    path_hook = "import a, sys\ndef hook(path): return a.F()\nsys.path_hooks.insert(0, hook)\n"
    stand.write(
        {
            "a.py": finder.format("('requests', 'json')", "insert(0, F())"),
            "b.py": finder.format("('b.moves',)", "append(F())"),
            "c.py": path_hook,
        }
    )
    hooks = stand.imports("a,b,c").of("import hook")
    assert [(said["what"], said["text"]) for said in hooks] == [
        ("a.F", "json,requests"),
        ("b.F", ""),
        ("c.hook", "json,requests"),
    ]


def test_a_package_that_fails_hides_nothing_that_is_in_it(stand: Stand) -> None:
    stand.write(
        {
            "s/__init__.py": "made = 'made before'\nimport torch_that_is_missing\nlate = 1",
            "s/sub.py": "from s import made\nprint(made)",
            "s/deep/__init__.py": "raise SystemExit(1)",
            "s/deep/down.py": PRINTS,
            "s/plain.py": "from s import late",
        }
    )
    ended = stand.imports("s,s.sub,s.deep.down,s.plain")
    assert ended.stdout.split("\n") == ["made before", "s.deep.down", ""]
    assert ended.how() == {"s": "raised", "s.plain": "raised"}


def test_a_package_that_ends_the_interpreter_hides_nothing_that_is_in_it(stand: Stand) -> None:
    stand.write({"s/__init__.py": "import os\nos._exit(0)", "s/deep/__init__.py": PRINTS})
    stand.write({"s/deep/down.py": PRINTS, "t.py": PRINTS})
    ended = stand.imports("s,s.deep,s.deep.down,t")
    assert ended.stdout.split("\n") == ["s.deep", "s.deep.down", "t", ""]
    assert (ended.code, ended.how()) == (ALL_RAN, {"s": "died"})


def test_a_module_that_fails_whoever_asks_is_not_run_for_each(stand: Stand) -> None:
    stand.write({"bad.py": "print('runs')\nraise LookupError('no library')"})
    stand.write({f"m{number}.py": "import bad" for number in range(50)})
    ended = stand.imports(*(f"m{number}" for number in range(50)))
    assert ended.stdout.split() == ["runs"] * 3
    assert [*ended.how().values()] == ["raised"] * 50
    assert all("no library" in said["text"] for said in ended.of("ended"))


def test_a_module_that_fails_only_when_it_comes_first_is_run_again(stand: Stand) -> None:
    late = "import sys\nif 'ready' not in sys.modules: raise ImportError('early')\nprint('ran')"
    stand.write({"late.py": late, "ready.py": "", "m.py": "import ready, late"})
    ended = stand.imports("late,m")
    assert (ended.how(), ended.stdout) == ({"late": "raised"}, "ran\n")


# What a module can try so that the next one, `b`, never runs, and all looks well.
FIND_WORKER = """
import os, sys
def found():
    frame = sys._getframe()
    while frame:
        yield from (*frame.f_locals.values(), *frame.f_globals.values())
        frame = frame.f_back
"""
FORGERIES = {
    "says it by the frames": """
for value in found():
    pipe = getattr(value, "pipe", value)
    if hasattr(pipe, "say"):
        for line in ("begin 1 b", "done", "left 0"): pipe.say(line)
        os._exit(0)
    if getattr(value, "__name__", "") == "say":
        for line in ("begin 1 b", "done", "left 0"): value(line)
        os._exit(0)
""",
    "takes the names away": """
for value in found():
    if type(value) is list and "b" in value: value.remove("b")
""",
    "says that it is done": "sys.audit('cpython.run_stdin', b'done'); os._exit(0)",
}
# Here `b` runs by its path, or is told as one that did not run.
PRETENCES = {
    "changes what imports": """
for value in found():
    if hasattr(value, "load_once"): value.load_once = lambda name: None
""",
    "changes the import": """
for value in found():
    if getattr(value, "__name__", "") == "main": value.__globals__["import_module"] = print
""",
    "changes the loader": """
from importlib.machinery import SourceFileLoader
SourceFileLoader.exec_module = lambda self, module: None
""",
    "gives out other code": """
from importlib.machinery import SourceFileLoader
SourceFileLoader.get_code = lambda self, name: compile("", self.path, "exec")
""",
    "runs other code by its name": """
file = __file__.replace("a.py", "b.py")
exec(compile("", file, "exec"))
sys.modules["b"] = sys
""",
    "removes it": "os.unlink(__file__.replace('a.py', 'b.py'))",
    "removes all finders": "sys.meta_path.clear()",
    "says that all is loaded": """
class Loaded(dict):
    __contains__ = lambda self, name: True
    __getitem__ = lambda self, name: sys
sys.modules = Loaded(sys.modules)
""",
}


@pytest.mark.parametrize("how", FORGERIES)
def test_no_module_can_say_for_another_that_it_ran(stand: Stand, how: str) -> None:
    stand.write({"a.py": FIND_WORKER + FORGERIES[how], "b.py": "print('acted')\n"})
    ended = stand.imports("a,b")
    assert ended.stdout.split() == ["acted"], ended


@pytest.mark.parametrize("how", PRETENCES)
def test_what_only_seems_to_run_is_looked_at(stand: Stand, how: str) -> None:
    stand.write(
        {"a.py": FIND_WORKER + PRETENCES[how], "b.py": "import os\nos.system('echo acted')"}
    )
    ended = stand.imports("a,b")
    has_run = "acted" in ended.stdout.split()
    assert has_run or [said["what"] for said in ended.of("unrun")] == ["b"], ended


@pytest.mark.parametrize(
    "look",
    [
        "import gc; gc.get_objects()",
        "import sys; sys._current_frames()",
        "open('/proc/self/mem')",
        "import os; os.chdir('/proc/self'); os.open(b'mem', os.O_RDONLY)",
    ],
)
def test_who_looks_where_our_word_is_makes_it_worth_nothing(stand: Stand, look: str) -> None:
    stand.write({"a.py": look, "b.py": ""})
    assert stand.imports("a,b").code == NOT_SURE


def test_what_many_do_is_no_such_look_and_no_pretence(stand: Stand) -> None:
    odd = "import sys, types\nsys.modules[__name__] = types.SimpleNamespace()\nexec('import os')\n"
    stand.write(
        {
            "a.py": "import collections, gc, sys\ngc.collect()\nsys._getframe(1).f_locals\n",
            "b.py": f"{odd}collections = __import__('collections').namedtuple('K', 'a b')\n",
            "c/__init__.py": "from . import d\nimport sys\nsys.modules['c.e'] = d\n",
            "c/d.py": "import os\nos.system('true')\n",
            "c/e.py": "",
        }
    )
    ended = stand.imports("a,b,c,c.d,c.e")
    assert (ended.code, ended.of("unrun"), ended.how()) == (ALL_RAN, [], {})


def test_the_hook_that_says_it_looks_up_no_name_that_a_module_can_replace() -> None:
    waiting, looked_up = [attest.__code__], []
    while waiting:
        code = waiting.pop()
        inner = [const for const in code.co_consts if isinstance(const, CodeType)]
        waiting += inner
        if code is not attest.__code__:
            looked_up += [step for step in dis.get_instructions(code) if "GLOBAL" in step.opname]
    assert looked_up == []
