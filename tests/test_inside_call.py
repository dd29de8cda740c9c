"""The worker that calls what is public with made-up arguments."""

from pathlib import Path

import pytest
from inside import Stand, make_python

SOME_LEFT, NOT_PREPARED = 80, 83
OTHER = (
    "def f(): print('called')\nclass C:\n    def go(self): print('called')\n"
    "class Command:\n    def __init__(self, f): self.callback = f\n"
    "    def go(self): print('called')\n"
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def stand(tmp_path: Path, python: Path) -> Stand:
    return Stand(tmp_path / "stand", python)


@pytest.mark.parametrize(
    "text",
    [
        "def f(): print('acted')",
        "def f(url: str, *, token): print('acted')",
        "class C:\n    def __init__(self, path): print('acted')",
        "class C:\n    def go(self, n: int): print('acted')",
        "class C:\n    def __init__(self): raise ValueError\n    def go(self): print('acted')",
        "class C:\n    @staticmethod\n    def go(x): print('acted')",
        "class C:\n    @classmethod\n    def go(cls, x): print('acted')",
        "class C:\n    @property\n    def go(self): print('acted')",
        "class C:\n    def __call__(self): print('acted')",
        "class B:\n    def go(self): print('acted')\nclass C(B): pass",
        "async def f(host): print('acted')",
        "def f():\n    print('acted')\n    yield 1\n    raise ValueError",
        "async def f():\n    print('acted')\n    yield 1",
        "import functools\n@functools.lru_cache\ndef f(): print('acted')",
        "import functools\ndef d(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a)\n"
        "    return g\n@d\ndef f(x): print('acted')",
        "__all__ = ['_f']\ndef _f(): print('acted')",
        "import json\ndef mine(*a): print('acted')\njson.dumps = mine",
        "def __getattr__(name): print('acted')",
        "__all__ = ['late']\ndef __getattr__(name):\n    if name == 'late': print('acted')",
        "class B:\n    def __init_subclass__(cls): print('acted')",
        "class M(type):\n    def __call__(cls): print('acted')\nclass C(metaclass=M): pass",
        "import contextlib\n@contextlib.contextmanager\ndef f(n):\n    print('acted')\n    yield",
        "class C:\n    def __len__(self): print('acted')",
        "import functools\nclass C:\n    @functools.cached_property\n"
        "    def go(self): print('acted')",
        "import functools\ndef _f(a, b): print('acted')\nf = functools.partial(_f, 1)",
        "class _C:\n    def go(self, x): print('acted')\ngo = _C().go",
        "import threading\ndef f():\n    threading.Timer(0.3, print, ['acted']).start()",
        "class _C:\n    def go(self): print('acted')\nclient = _C()",
        "class _C:\n    def go(self): print('acted')\ndef connect(): return _C()",
        "class _C:\n    def bad(self): raise ValueError\n    def go(self): print('acted')\n"
        "def connect(): return _C()",
        "class C:\n    class Inner:\n        def go(self): print('acted')",
        "def d(f):\n    def g(*a): print('acted')\n    return g",
        "def d(name):\n    def e(f):\n        def g(*a): print('acted')\n        return g\n"
        "    return e",
        "def f():\n    yield 1\n    print('acted')\n    yield 2",
        "async def f():\n    yield 1\n    print('acted')\n    yield 2",
        "def _f(x): print('acted')\nCOMMANDS = {'send': _f}",
        "class Odd(Exception):\n    def __init__(self, why): print('acted')",
        "def f():\n    def g(x): print('acted')\n    return {'go': g}",
        "class _C:\n    def go(self): print('acted')\ndef f(): return 1, _C()",
        "class C:\n    def __set_name__(self, owner, name): print('acted')",
        "class C:\n    def __class_getitem__(cls, kind): print('acted')",
        "class C:\n    def __setitem__(self, key, value): print('acted')",
        # What a package says of its own code need not be so.
        "def f(x): print('acted')\nf.__module__ = 'requests.api'",
        "class C:\n    __module__ = 'requests'\n    def go(self): print('acted')",
        "__name__ = 'requests'\ndef f(x): print('acted')",
        "def f(x): print('acted')\nf.__signature__ = 5",
        "def f(x): print('acted')\nf.__wrapped__ = lambda a, b, c: 0",
        "class E:\n    def __repr__(self): raise OSError\ndef f(x: E()): print('acted')",
        # What another library makes of a function, or keeps it in.
        "import other\n@other.Command\ndef f(x): print('acted')",
        "import functools\n@functools.singledispatch\ndef f(x): pass\n"
        "@f.register\ndef _(x: bytes): print('acted')",
        "import functools\nclass C:\n    def _go(self, a, b): print('acted')\n"
        "    go = functools.partialmethod(_go, 1)",
        "def _f(x): print('acted')\nCOMMANDS = {'a': [{'b': _f}]}",
        "class _C:\n    def go(self): print('acted')\nKINDS = {'c': _C}",
        "def d(f):\n    def g(*a, **k): return f(*a, **k)\n    return g\n"
        "@d\ndef f(x, y): print('acted')",
        "def f(**options): options['url'], options['n'], print('acted')",
        "class C:\n    def _go(self): print('acted')\n    ALL = {'go': _go}",
        "import types\ndef _f(x): print('acted')\nclass _A: pass\napi = _A()\napi.f = _f",
        "import functools\nclass C:\n    @functools.singledispatchmethod\n"
        "    def go(self, x): print('acted')",
        "import asyncio\nasync def _g():\n    await asyncio.sleep(0.05)\n    print('acted')\n"
        "async def f(x): asyncio.ensure_future(_g())",
        # What is wanted of another kind.
        "import enum\nclass E(enum.Enum):\n    A = 1\ndef f(x: E): assert isinstance(x, E);"
        " print('acted')",
        "class A: pass\ndef f(config: A): assert isinstance(config, A); print('acted')",
        "import typing\ndef f(x: typing.Literal['a']): assert x == 'a'; print('acted')",
        "import enum\nclass E(enum.Enum):\n    A = 1\n    @classmethod\n"
        "    def _missing_(cls, value): print('acted')",
        # What only comes of what is given back.
        "class C:\n    @property\n    def x(self): pass\n    @x.setter\n"
        "    def x(self, to): print('acted')",
        "class _C:\n    def go(self): print('acted')\nasync def f(): return _C()",
        "class _C:\n    def go(self): print('acted')\ndef f(): yield _C()",
        "class _C:\n    def go(self): print('acted')\nclass C:\n"
        "    def __init__(self): self.files = _C()",
        "def f():\n    for n in range(20): yield n\n    print('acted')",
        "class C:\n"
        + "".join(f"    def m{n}(self): pass\n" for n in range(60))
        + "    def z(self): print('acted')",
    ],
)
def test_what_is_public_is_called(stand: Stand, text: str) -> None:
    stand.write({"s/__init__.py": "", "s/a.py": text, "other.py": OTHER})
    ended = stand.call("s,s.a")
    assert "acted" in ended.stdout
    assert ended.code == 0


@pytest.mark.parametrize(
    "text",
    [
        "def _f(): print('called')",
        "from shutil import rmtree, move\nfrom subprocess import run",
        "class Odd(Exception):\n    def _make(self): print('called')",
        "def _f(): print('called')\n_COMMANDS = {'send': _f}",
        "from other import f",
        "import functools, other\nf = functools.partial(other.f)",
        "import other\nclient = other.C()\ndef connect(): return other.C()",
        "import other\ncommand = other.Command(other.f)\nCOMMANDS = {'a': [other.C, other.C()]}",
        "def main():\n    if __name__ == '__main__': print('called')",
    ],
)
def test_what_is_private_or_anothers_is_not(stand: Stand, text: str) -> None:
    stand.write({"a.py": text, "other.py": OTHER})
    assert "called" not in stand.call("a").stdout


def test_what_an_entry_point_names_is_called(stand: Stand) -> None:
    text = "def _finish(dist): print('acted')\ndef _other(): print('called')\n"
    stand.write({"s/__init__.py": "", "s/a.py": text})
    ended = stand.call("s,s.a,s.a:_finish,s.a:_gone")
    assert (ended.code, ended.stdout) == (0, "acted\n")


@pytest.mark.parametrize(
    ("ends", "how"),
    [
        ("raise RuntimeError", "raised"),
        ("raise SystemExit(2)", "exited"),
        ("import time; time.sleep(60)", "raised"),
        ("[0 for _ in iter(int, 1)]", "raised"),
        ("input('who? ')", "raised"),
        ("import os; os._exit(3)", "died"),
        ("import os, signal; os.kill(0, 9)", "died"),
    ],
)
def test_a_call_that_ends_badly_ends_no_other(stand: Stand, ends: str, how: str) -> None:
    text = f"def a(): print('first')\ndef b(): {ends}\ndef c(): print('last')"
    stand.write({"m.py": text})
    ended = stand.call("m")
    # Of what takes too long it is told that not all of it was seen.
    assert ended.how() in ({"m.b": how}, {"m.b": how, "": "not run"})
    assert ended.code == 0
    assert {"first", "last"} <= set(ended.stdout.split())


def test_a_call_that_cannot_be_interrupted_is_stopped(stand: Stand) -> None:
    text = (
        "def b():\n    import signal\n    signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
        "    while True: pass\ndef c(): print('last')"
    )
    stand.write({"m.py": text})
    ended = stand.call("m")
    assert ended.how() == {"m.b": "stopped"}
    assert (ended.code, ended.stdout) == (SOME_LEFT, "last\n")


def test_arguments_fit_annotations_and_names(stand: Stand) -> None:
    text = """
from pathlib import Path
from typing import Callable, Optional
def f(url, token, filename, port, private_key, items: list, options: "dict[str, int]", n: int,
      data: bytes, when_done: Callable[[], None], name: Optional[str], where: Path, thing,
      path: "str | Path", ratio: float, flag: bool, kept=5, *more, key: str, other=6, **rest):
    assert url.startswith("https://"), url
    assert len(token) > 8 and len(private_key) == 66
    assert open(filename).read() and where.exists()
    assert (port, items, options, n, data) == (8080, [name], {}, 1, name.encode())
    when_done(); assert isinstance(name, str)
    for part in thing.parts: thing[0] + 1
    with thing as opened: opened.read(int(thing))
    assert Path(path).exists() and (ratio, flag) == (1.0, True)
    assert (kept, more, other, rest) == (5, (), 6, {}) and isinstance(key, str)
    print("fits")
"""
    stand.write({"m.py": text})
    ended = stand.call("m")
    assert (ended.stdout, ended.how()) == ("fits\n", {})


def test_no_more_is_called_than_is_told(stand: Stand) -> None:
    text = "\n".join(f"def f{number}(): print({number})" for number in range(450))
    stand.write({"m.py": text})
    ended = stand.call("m")
    assert len(ended.stdout.split()) == 400
    assert [said["text"] for said in ended.of("ended")] == ["50 of 450 calls"]
    assert [said["text"] for said in ended.of("jobs")] == ["400 ran"]


def test_what_is_cut_short_is_told(stand: Stand) -> None:
    """A function that first waits longer than a call may has not been seen."""
    stand.write({"m.py": "import threading\ndef f(): threading.Event().wait(60)\ndef g(): pass"})
    ended = stand.call("m")
    assert [said["text"] for said in ended.of("ended") if said["how"] == "not run"] == [
        "what m.f does after 0.5 s of a call"
    ]
    stand.write({"m.py": "def g(): pass"})
    assert stand.call("m").of("ended") == []


def test_what_the_library_s_module_hides_is_called(stand: Stand) -> None:
    stand.write({"wave.py": "def f(): print('acted')", "m.py": "import wave\nwave.open"})
    ended = stand.call("wave,m")
    assert (ended.stdout, ended.of("shadowed")) == ("acted\n", [])


def test_what_is_inherited_is_called_once(stand: Stand) -> None:
    classes = "\n".join(f"class C{number}(Base): pass" for number in range(20))
    stand.write({"m.py": f"class Base:\n    def go(self, stream): print(stream.read())\n{classes}"})
    assert len(stand.call("m").stdout.split()) == 1


def test_no_two_callers_are_known_by_the_same_word(stand: Stand) -> None:
    stand.write({"m.py": "def f(text, thing): print(text, thing)"})
    words = {word for _ in range(6) for word in stand.call("m").stdout.split()}
    assert len(words) > 1


def test_modules_that_cannot_be_imported_end_no_call(stand: Stand) -> None:
    stand.write(
        {
            "a.py": "def f(): print('first')",
            "b.py": "import os; os._exit(0)",
            "c.py": "raise ValueError",
            "d.py": "def f(): print('last')\ndef g(): __import__('os')._exit(1)\n"
            "def h(): print('h')",
        }
    )
    ended = stand.call("a,b,c,d")
    assert ended.stdout.split() == ["first", "last", "h"]
    assert ended.how() == {"b": "died", "d.g": "died"}
    assert ended.code == NOT_PREPARED


# A package can know that it is about to be called: its import then ends the interpreter.
@pytest.mark.parametrize(
    ("way_out", "code"),
    [
        ("os._exit(0)", NOT_PREPARED),
        ("os.write(pipe, b'total 1\\ndone\\nleft 0\\n'); os._exit(0)", NOT_PREPARED),
        ("while True: pass", SOME_LEFT),
    ],
)
def test_who_ends_before_it_is_called_was_not_called(stand: Stand, way_out: str, code: int) -> None:
    find = (
        "pipe = max(int(fd) for fd in os.listdir('/proc/self/fd')"
        " if os.path.exists('/proc/self/fd/' + fd) and os.path.isfile('/proc/self/fd/' + fd) == 0)"
    )
    stand.write({"m.py": f"import os\n{find}\n{way_out}\ndef f(): print('called')"})
    ended = stand.call("m")
    assert (ended.stdout, ended.code) == ("", code)


# What a module offers may be odd, on purpose or not: what else it offers has its turn.
@pytest.mark.parametrize(
    "odd",
    [
        "__all__ = 5",
        "def odd(): pass\nodd.__module__ = []",
        "class Odd:\n    @property\n    def __module__(self): raise RuntimeError\nodd = Odd()",
        "class Lazy:\n    def __getattr__(self, name): raise RuntimeError\n"
        "class Odd:\n    lazy = Lazy()\nodd = Odd()\nlazy = Lazy()",
        "del __name__",
        "class _Odd:\n    def go(self): f()\nimport sys\nsys.modules[__name__] = _Odd()",
    ],
)
def test_odd_variables_keep_nothing_from_its_turn(stand: Stand, odd: str) -> None:
    stand.write({"m.py": f"def f(): print('called')\n{odd}"})
    ended = stand.call("m")
    assert (ended.stdout, ended.code) == ("called\n", 0)
