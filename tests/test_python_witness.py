"""What Python says, forged or not, and the hook that says it."""

import fcntl
import hashlib
import importlib.util
import json
import marshal
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jail.inside.crowded import crowded_lines
from jail.inside.library import load_from_library
from jail.orders import JAIL_DIR
from jail.report.rules import judge
from jail.watch.attempts import Opened
from jail.watch.events import (
    MAX_CODE_BYTES,
    MAX_CODES,
    Code,
    Event,
    Phase,
    PhaseName,
    Severity,
)
from jail.watch.noticed import Notice, Noticed
from jail.watch.python_witness import (
    MAX_AUDIT_LINE_BYTES,
    MAX_SAYINGS,
    MAX_SAYINGS_BYTES,
    Head,
    Malformed,
    Piece,
    PythonWitness,
    Said,
    Saying,
    Started,
    parse_event,
)

HOOK = JAIL_DIR / "inside" / "audit.py"


class Telling:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.witness = PythonWitness(self.tell)

    def tell(self, event: Event, at_sec: float | None) -> bool:
        self.events.append(event)
        return True

    @property
    def codes(self) -> list[Code]:
        return [event for event in self.events if isinstance(event, Code)]

    @property
    def notices(self) -> list[Noticed]:
        return [event for event in self.events if isinstance(event, Noticed)]


@pytest.fixture
def telling() -> Telling:
    return Telling()


# --- its lines ----------------------------------------------------------------------------------

SAYINGS: dict[str, tuple[dict[str, Any], Saying]] = {
    "a command": (
        {"event": "spawn", "what": "true \xe4", "at": "x.py:3"},
        Saying(Said.SPAWN, 7, "true \xe4", "x.py:3"),
    ),
    "a long one": (
        {"event": "spawn", "what": "x" * 900, "at": "x.py:3"},
        Saying(Said.SPAWN, 7, "x" * 500, "x.py:3"),
    ),
    "an address": (
        {"event": "address", "what": ["203.0.113.1", 443], "at": "x.py:3"},
        Saying(Said.ADDRESS, 7, "203.0.113.1:443", "x.py:3"),
    ),
    "one by IPv6": (
        {"event": "address", "what": ["::FFFF:127.0.0.1%lo", 443, 0, 0], "at": "x.py:3"},
        Saying(Said.ADDRESS, 7, "[::ffff:127.0.0.1]:443", "x.py:3"),
    ),
    "one by name": (
        {"event": "address", "what": ["localhost", 1], "at": "x.py:3"},
        Saying(Said.ADDRESS, 7, "localhost:1", "x.py:3"),
    ),
    "a path": (
        {"event": "address", "what": "/run/s\xe4", "at": "x.py:3"},
        Saying(Said.ADDRESS, 7, r"unix:/run/s\xe4", "x.py:3"),
    ),
    "an abstract path": (
        {"event": "address", "what": "\0x", "at": "x.py:3"},
        Saying(Said.ADDRESS, 7, "unix:@x", "x.py:3"),
    ),
    "a name": (
        {"event": "name", "what": "UPPER.example.", "at": "x.py:3"},
        Saying(Said.NAME, 7, "upper.example", "x.py:3"),
    ),
    "a file": (
        {"event": "open", "what": "/home/\udcff\n", "at": "a\x1b.py:3"},
        Saying(Said.OPEN, 7, "/home/\\\\xff\\n", "a\\x1b.py:3"),
    ),
}


@pytest.mark.parametrize(("fields", "saying"), SAYINGS.values(), ids=SAYINGS)
def test_a_saying_is_read_as_the_kernel_writes_it(fields: dict[str, Any], saying: Saying) -> None:
    assert parse_event(json.dumps({"pid": 7, **fields}).encode()) == saying


def test_the_other_lines() -> None:
    assert parse_event(b'{"event": "start", "pid": 7, "what": ["python"]}') == Started(7)
    line = b'{"event": "code", "pid": 7, "id": 2, "text": "7031", "at": "x:1", "bytes": 3,'
    line += b' "decoded": 1}'
    assert parse_event(line) == Piece(7, 2, b"p1", Head(3, "x:1", False))
    line = b'{"event": "code", "pid": 7, "id": 2, "text": "70"}'
    assert parse_event(line) == Piece(7, 2, b"p", None)


MALFORMED = {
    "not json": b"not json",
    "a list": b"[]",
    "a number": b"7",
    "another event": b'{"event": "end", "pid": 1, "what": "x", "at": "x"}',
    "an event that is a list": b'{"event": [], "pid": 1, "what": "x", "at": "x"}',
    "no pid": b'{"event": "start"}',
    "pid 0": b'{"event": "start", "pid": 0}',
    "pid -1": b'{"event": "start", "pid": -1}',
    "a huge pid": b'{"event": "start", "pid": %d}' % 10**30,
    "an endless pid": b'{"event": "start", "pid": 1e999}',
    "a pid of too many digits": b'{"event": "start", "pid": "%s"}' % (b"1" * 5000),
    "no place": b'{"event": "open", "pid": 1, "what": "x"}',
    "odd hex": b'{"event": "code", "pid": 1, "id": 1, "text": "zz"}',
    "a text that is a number": b'{"event": "code", "pid": 1, "id": 1, "text": 7}',
    "an endless size": b'{"event": "code", "pid": 1, "id": 1, "text": "", "at": "", "bytes": 1e999,'
    b' "decoded": true}',
    "deep": b"[" * 4000 + b"]" * 4000,
    "too long": b'{"event": "open", "pid": 1, "what": "%s", "at": ""}'
    % (b"x" * MAX_AUDIT_LINE_BYTES),
    "not text": b"\xff\xfe",
}


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED)
def test_what_the_hook_does_not_write_is_malformed(line: bytes, telling: Telling) -> None:
    with pytest.raises(Malformed):
        parse_event(line)
    telling.witness.take(line + b"\n")
    assert telling.witness.malformed == 1


# --- the account --------------------------------------------------------------------------------


def line(event: str, pid: int = 7, **fields: Any) -> bytes:
    return json.dumps({"event": event, "pid": pid, **fields}).encode() + b"\n"


def pieces(source: bytes, number: int = 1, size: int | None = None, pid: int = 7) -> bytes:
    about: dict[str, Any] = {"at": "x.py:1", "decoded": True}
    about["bytes"] = len(source) if size is None else size
    lines = b""
    for start in range(0, len(source), 1600):
        text = source[start : start + 1600].hex()
        lines += line("code", pid, id=number, text=text, **about)
        about = {}
    return lines


def test_who_said_what(telling: Telling) -> None:
    witness = telling.witness
    witness.take(line("start") + line("spawn", what="true", at="a.py:1"))
    witness.take(line("spawn", what="true", at="b.py:1") + line("spawn", 8, what="true", at="c:1"))
    assert (witness.started, witness.pids) == ({7}, {7, 8})
    assert witness.place(Said.SPAWN, [7], ["false", "true"]) == "a.py:1"
    assert witness.place(Said.SPAWN, [9, 8], ["true"]) == "c:1"
    assert witness.place(Said.SPAWN, [0], ["true"]) == "a.py:1"
    assert witness.place(Said.OPEN, [7], ["true"]) is None


def test_lines_may_come_in_any_pieces(telling: Telling) -> None:
    for byte in line("start") + line("open", what="/x", at="a.py:1"):
        telling.witness.take(bytes([byte]))
    assert telling.witness.place(Said.OPEN, [7], ["/x"]) == "a.py:1"


def test_a_line_without_an_end_takes_a_bounded_memory(telling: Telling) -> None:
    for _ in range(100):
        telling.witness.take(b"x" * 65536)
    assert len(telling.witness.rest) <= MAX_AUDIT_LINE_BYTES + 1
    telling.witness.take(b"\n" + line("start"))
    assert (telling.witness.malformed, telling.witness.started) == (1, {7})


def test_a_flood_of_sayings_is_bounded_and_counted(telling: Telling) -> None:
    witness = telling.witness
    for number in range(MAX_SAYINGS + 10):
        witness.take_event(Saying(Said.OPEN, 7, str(number), "x.py:1"))
        witness.take_event(Saying(Said.OPEN, 7, "again", "x.py:1"))  # what is known takes no room
    assert witness.lost == {"Python's open": 11}
    witness.take(line("address", what=["192.0.2.1", 1], at="a.py:1"))
    assert witness.place(Said.ADDRESS, [7], ["192.0.2.1:1"]) == "a.py:1"
    for number in range(MAX_SAYINGS):
        witness.take_event(Saying(Said.NAME, 7, f"{number}" + "x" * 4000, "x.py:1"))
    size = sum(len(subject) for kind, _, subject in witness.places if kind is Said.NAME)
    assert size <= 2 * MAX_SAYINGS_BYTES


def test_source_is_put_together(telling: Telling) -> None:
    source = b"x = 1\n" * 1000
    data = pieces(source)
    telling.witness.take(data[:5000])
    assert telling.codes == []
    telling.witness.take(data[5000:])
    (code,) = telling.codes
    assert (code.text.encode(), code.size_bytes, code.place) == (source, len(source), "x.py:1")
    assert code.decoded and code.sha256 == hashlib.sha256(source).hexdigest()


def test_long_source_is_kept_up_to_a_bound(telling: Telling) -> None:
    source = b"x = 1\n" * 20_000
    telling.witness.take(pieces(source))
    (code,) = telling.codes
    assert (code.text.encode(), code.size_bytes) == (source[:MAX_CODE_BYTES], len(source))


def test_source_that_is_cut_off_is_told_at_the_end(telling: Telling) -> None:
    telling.witness.take(pieces(b"half of it", size=100))
    assert telling.codes == []
    telling.witness.finish()
    telling.witness.finish()
    (code,) = telling.codes
    assert (code.text, code.size_bytes) == ("half of it", 100)


def test_pieces_without_a_first_one_are_nothing(telling: Telling) -> None:
    telling.witness.take(line("code", id=1, text="70"))
    telling.witness.finish()
    assert (telling.events, telling.witness.malformed) == ([], 0)


def test_unfinished_sources_are_bounded(telling: Telling) -> None:
    for number in range(MAX_CODES + 5):
        telling.witness.take(pieces(b"x", number, size=10))
    assert len(telling.witness.sources) == MAX_CODES
    assert telling.witness.lost == {"Python's code": 5}


# --- the hook -----------------------------------------------------------------------------------

NAMES = {"FIFO": "audit", "HOME": "home"}


@pytest.fixture
def hooked(tmp_path: Path, telling: Telling) -> Any:
    """Runs source as a program with the hook, and gives what it said."""
    fifo, home = tmp_path / "audit", tmp_path / "home"
    os.mkfifo(fifo)
    home.mkdir()
    start = (
        f"names = {{'FIFO': {str(fifo)!r}, 'HOME': {str(home)!r}, 'CPU_SEC': 30}}\n"
        # As loader.py does, with nothing of the package on the path.
        f"import sys; whole, own = sys.path[:], [{str(HOOK.parent)!r}]\n"
        f"sys.path[:] = own + [p for p in whole if p not in ('', {str(tmp_path)!r})]\n"
        "import enter, pkgutil, runpy; enter.open_rooms(); sys.path[:] = whole\n"
        # The hook must find them itself.
        "for name in ('ast', 'dis', 'json', 're'): sys.modules.pop(name, None)\n"
        f"exec(compile(open({str(HOOK)!r}).read(), {str(HOOK)!r}, 'exec'), names)\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )

    def run(source: str, **files: str) -> Telling:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(source))
        fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
        try:
            done = subprocess.run(
                [sys.executable, "-S", "-c", start, str(program)],
                env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            with open(fd, "rb", closefd=False) as file:
                telling.witness.take(file.read() or b"")
        finally:
            os.close(fd)
        assert telling.witness.malformed == 0
        return telling

    return run


def said(telling: Telling, kind: Said) -> dict[str, str]:
    """What was done, with the line of it, by the pid that stands for any."""
    found = telling.witness.places.items()
    return {
        subject: place.rpartition(":")[2]
        for (known, pid, subject), place in found
        if known is kind and pid == 0
    }


def test_the_hook_tells_acts_with_their_line(hooked: Any, tmp_path: Path) -> None:
    told = hooked(
        """
        import os, socket, subprocess
        subprocess.run(["true", "a b"])
        socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))
        try: socket.getaddrinfo("b\\u00fccher.invalid", 80)
        except OSError: pass
        open("written", "w").close(); os.remove("written")
        os.path.exists("/nowhere")
        """.replace("open(", f"os.chdir({str(tmp_path)!r}); open(")
    )
    assert said(told, Said.SPAWN) == {"true a b": "3"}
    assert said(told, Said.ADDRESS) == {"127.0.0.1:9": "4"}
    assert said(told, Said.NAME) == {"xn--bcher-kva.invalid": "5"}
    assert said(told, Said.OPEN) == {str(tmp_path / "written"): "7"}
    assert len(told.witness.started) == 1 and told.codes == []


def test_what_a_thread_or_the_end_does_has_a_place(hooked: Any) -> None:
    told = hooked("""
        import atexit, subprocess, threading
        atexit.register(subprocess.run, ["true", "at the end"])
        thread = threading.Thread(target=subprocess.run, args=(["true", "in a thread"],))
        thread.start(); thread.join()
        """)
    assert said(told, Said.SPAWN).keys() == {"true at the end", "true in a thread"}


HELPER = "import base64\ndef undo(text): return base64.b64decode(text)\n"
PLAIN = "print = len\nzzz = 7"
# base64 of PLAIN
CODED = "cHJpbnQgPSBsZW4Kenp6ID0gNw=="

# The standard library compiles what the loader of a package says.
LOADER = """import base64, importlib.abc, importlib.util, sys
class Loader(importlib.abc.InspectLoader):
    def get_source(self, name): return {source}
spec = importlib.util.spec_from_loader("made", Loader())
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
FINDER = (
    LOADER.partition("spec =")[0]
    + """
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        return importlib.util.spec_from_loader(name, Loader()) if name == "made" else None
sys.meta_path.insert(0, Finder())
import made
"""
)

DECODED = {
    "by a module's loader": LOADER.format(source=f"base64.b64decode('{CODED}').decode()"),
    "by an import": FINDER.format(source=f"base64.b64decode('{CODED}').decode()"),
    "by a function of a loader": "import helper\n"
    + LOADER.format(source=f"helper.undo('{CODED}').decode()"),
    "at once": f"import base64\nexec(base64.b64decode('{CODED}'))",
    "in another function": f"{HELPER}exec(undo('{CODED}'))",
    "two calls away": f"{HELPER}def twice(x): return undo(x)\nexec(twice('{CODED}'))",
    "in another module": f"import helper\nexec(helper.undo('{CODED}'))",
    "imported from another module": f"from helper import undo as u\nexec(u('{CODED}'))",
    "under another name": f"from base64 import b64decode as b\nexec(b('{CODED}'))",
    "in a class": f"import helper\nclass C:\n  def m(self, x): return helper.undo(x)\n"
    f"exec(C.m(None, '{CODED}'))",
    "in a lambda": f"import base64\nexec((lambda x: base64.b64decode(x))('{CODED}'))",
    "by timeit": f"import helper, timeit\ntimeit.timeit(helper.undo('{CODED}').decode(), number=1)",
    "by code": "import code, helper\n"
    f"code.InteractiveInterpreter().runcode(compile(helper.undo('{CODED}'), 'x', 'exec'))",
    "by an interpreter": "import code, helper\n"
    f"code.InteractiveInterpreter().runsource(helper.undo('{CODED}').decode(), symbol='exec')",
    "as a tree": "import ast, helper\n"
    f"exec(compile(ast.parse(helper.undo('{CODED}')), 'x', 'exec'))",
    "by the debugger": f"import bdb, helper\nbdb.Bdb().run(helper.undo('{CODED}').decode())",
    "marshalled": "import marshal\n"
    "exec(marshal.loads(marshal.dumps(compile('zzz = 7', 'x', 'exec'))))",
    "as a text of its own": "import helper\nclass S(str):\n  def encode(self, *_): raise OSError\n"
    f"exec(compile(S(helper.undo('{CODED}').decode()), 'x', 'exec'))",
    "as bytes of its own": "import helper\nclass B(bytes):\n"
    "  def __len__(self): raise OSError\n  def decode(self, *_): raise OSError\n"
    f"exec(compile(B(helper.undo('{CODED}')), 'x', 'exec'))",
    "under a name of its own": "import helper\nclass S(str):\n"
    "  def __str__(self): raise OSError\n  def startswith(self, *_): raise OSError\n"
    f"exec(compile(helper.undo('{CODED}'), S('x'), 'exec'))",
    "under a path of its own": "import helper\nclass P:\n  def __fspath__(self): return 'x'\n"
    "  def __str__(self): raise OSError\n"
    f"exec(compile(helper.undo('{CODED}'), P(), 'exec'))",
    # Its line is longer than what can be written in one piece.
    "by code with a long name": "import base64\n"
    f"text = \"exec(base64.b64decode('{CODED}').ljust(1700))\"\n"
    "exec(compile(text, '/' + 'n' * 900, 'exec'))",
    "by code with a name that is longer than all": "import base64\n"
    f"text = \"exec(base64.b64decode('{CODED}'))\"\nexec(compile(text, 'n' * 9000, 'exec'))",
}


@pytest.mark.parametrize("source", DECODED.values(), ids=DECODED)
def test_decoded_code_is_told_as_that(source: str, hooked: Any) -> None:
    told = hooked(source, helper=HELPER)
    assert any(code.decoded and "zzz" in code.text for code in told.codes), told.codes


ODD_NAME = """import base64, helper
class S(str):
  def startswith(self, *_): return True
  def __str__(self): raise OSError
text = "exec(base64.b64decode('{coded}'))"
"""
SILENCING = {
    # Whoever asks where it stands runs the package's own method.
    "a name": ODD_NAME + "exec(compile(text, S('/a/x.py'), 'exec'))",
    "another name": ODD_NAME + "code = compile(text, 'x', 'exec')\n"
    "exec(code.replace(co_name=S('<module>')))",
    "globals": ODD_NAME + "class D(dict):\n  def get(self, *_): raise OSError\n"
    "  def keys(self): raise OSError\n"
    "exec(compile(text, '<x>', 'exec'), D(base64=base64))",
    "locals": ODD_NAME + "class M:\n  def __getitem__(self, name): raise KeyError(name)\n"
    "  def __setitem__(self, *_): pass\n"
    "exec(compile(text, 'x', 'exec'), globals(), M())",
}


@pytest.mark.parametrize("source", SILENCING.values(), ids=SILENCING)
def test_code_that_can_keep_the_hook_from_telling_is_told(source: str, hooked: Any) -> None:
    told = hooked(source.replace("{coded}", CODED), helper=HELPER)
    decoded = [code for code in told.codes if code.decoded and "zzz" in code.text]
    unheard = [notice for notice in told.notices if notice.kind is Notice.UNHEARD]
    assert decoded or unheard


NOT_DECODED = {
    "by a module's loader": LOADER.format(source="'zzz = ' + str(7)"),
    "by an import": FINDER.format(source="'zzz = ' + str(7)"),
    "literal": f"import base64\nbase64.b64decode('{CODED}')\nexec('zzz = 7')",
    "literal, of several lines": "import base64\nbase64.b64decode\n"
    "exec('''\nzzz = 7\nzzz = 8\n''')",
    "literal, by timeit": "import base64, timeit\nbase64.b64decode\n"
    "timeit.timeit('zzz = 7', number=1)",
    "made by code that has nothing to do with decoders": "exec('zzz = ' + str(7))",
    "made beside a function that decodes": f"{HELPER}def make(n): exec(f'zzz = {{n}}')\nmake(7)",
}


@pytest.mark.parametrize("source", NOT_DECODED.values(), ids=NOT_DECODED)
def test_readable_code_is_not_called_decoded(source: str, hooked: Any) -> None:
    told = hooked(source)
    assert [code for code in told.codes if code.decoded] == []
    assert [notice for notice in told.notices if notice.kind is Notice.UNHEARD] == []


# A folder to write to, who writes, and who runs what was written: one of them decodes.
SAVE = """import base64, importlib.util, os, pathlib, runpy, sys, tempfile
sys.dont_write_bytecode = True
folder = tempfile.mkdtemp()
sys.path.insert(0, folder)
w = os.path.join(folder, "w.py")
def save(path, text):
    with open(path, "w") as file: file.write(text)
def load(path):
    spec = importlib.util.spec_from_file_location("w", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
BY_OS = f"""
    fd = os.open(w, os.O_WRONLY | os.O_CREAT)
    os.write(fd, base64.b64decode('{CODED}'))
"""
SAVED = {
    "imported": f"pathlib.Path(w).write_bytes(base64.b64decode('{CODED}'))\nimport w",
    "run": f"save(w, base64.b64decode('{CODED}').decode())\nrunpy.run_path(w)",
    "written by a function": f"def put():{BY_OS}put()\nload(w)",
    "run by who decodes": f"def go():\n  save(w, base64.b64decode('{CODED}').decode())\n"
    "  runpy.run_path(w)\ngo()",
    "under another name": f"def put():{BY_OS}    os.rename(w, w + '.py')\nput()\nload(w + '.py')",
    "a relative path": f"os.chdir(folder)\ndef put():{BY_OS}put()\nrunpy.run_path('w.py')",
}


@pytest.mark.parametrize("source", SAVED.values(), ids=SAVED)
def test_what_is_decoded_into_a_file_and_run_from_there_is_told(source: str, hooked: Any) -> None:
    told = hooked(SAVE + source)
    assert [(code.decoded, code.text) for code in told.codes] == [(True, PLAIN)]


SAVED_READABLE = {
    "generated": "def put(): save(w, ''.join(f'zzz = {n}' for n in [7]))\nput()\nload(w)",
    "generated beside what decodes": f"def undo(): return base64.b64decode('{CODED}')\n"
    "def put(): save(w, f'zzz = {len(w)}')\nput()\nload(w)",
    "there to be read": f"text = base64.b64decode('{CODED}')\nsave(w, 'zzz = 7')\nimport w",
    "decoded data": "def put():\n"
    f"  pathlib.Path(w + '.gif').write_bytes(base64.b64decode('{CODED}'))\n"
    "put()\nimport helper",
    "a module that was there": f"base64.b64decode('{CODED}')\nimport helper",
}


@pytest.mark.parametrize("source", SAVED_READABLE.values(), ids=SAVED_READABLE)
def test_a_file_that_was_not_decoded_may_be_written_and_run(source: str, hooked: Any) -> None:
    told = hooked(SAVE + source, helper=HELPER)
    assert told.codes == []


def test_the_library_s_own_code_is_not_told(hooked: Any) -> None:
    told = hooked("""
        import ast, base64, collections, dataclasses, enum, inspect, timeit, typing
        Point = collections.namedtuple("Point", "x y")
        @dataclasses.dataclass(order=True)
        class Record:
            a: int
        typing.get_type_hints(Record), inspect.signature(Record), enum.Enum("E", "A B")
        ast.literal_eval(base64.b64decode("WzEsIDJd").decode())
        """)
    assert told.codes == []


def test_a_replaced_module_does_not_silence_the_hook(hooked: Any) -> None:
    told = hooked("""
        import json, os, subprocess
        os.write = json.dumps = lambda *_: None
        subprocess.run(["true", "seen"])
        """)
    assert said(told, Said.SPAWN) == {"true seen": "4"}


def test_a_closed_descriptor_does_not_silence_the_hook(hooked: Any) -> None:
    told = hooked("""
        import os, subprocess
        os.closerange(3, 100)
        subprocess.run(["true", "seen"])
        """)
    assert said(told, Said.SPAWN) == {"true seen": "4"}


def test_the_hook_is_made_of_the_library_whatever_the_path_says(hooked: Any) -> None:
    ends = "raise SystemExit(7)"
    # What the hook loads late comes from the library, too.
    acts = """
        text = "imp" + "ort os; x" + " = 1"
        exec(text)
        import marshal
        exec(marshal.loads(marshal.dumps(compile("y = 1", "<y>", "exec"))))
        """
    told = hooked(acts, json=ends, re=ends, ast=ends, dis=ends)
    assert len(told.witness.started) == 1
    assert len(told.codes) == 3


def test_other_threads_can_import_while_the_hook_loads_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Looks:
        def find_spec(self, name: str, *_: object) -> None:
            seen.append([*sys.path])

    seen: list[list[str]] = []
    before = ["/a/package", *sys.path]
    monkeypatch.setattr(sys, "path", [*before])
    monkeypatch.setattr(sys, "meta_path", [Looks(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    load_from_library("colorsys")
    assert seen[0][-len(before) :] == before
    assert seen[0][0] == os.__file__.removesuffix("/os.py")
    assert sys.path == before


def test_the_hook_tells_what_is_opened_in_vain(hooked: Any, tmp_path: Path) -> None:
    told = hooked("""
        import ctypes, os, shutil, sqlite3, tempfile
        home = os.environ["HOME"]
        def tried(do, *words):
            try: do(*words)
            except OSError: pass
            except sqlite3.Error: pass
        tried(open, home + "/.npmrc")
        tried(os.open, "/etc/ld.so.preload", os.O_WRONLY)
        tried(os.symlink, "/x", "/etc/nowhere/y")
        tried(os.listdir, home); tried(os.scandir, home + "/sub")
        tried(sqlite3.connect, home + "/none/cookies")
        tried(open, "/etc/shadow"); tried(open, "/proc/self/status")
        ctypes.CDLL(None).ptrace; ctypes.CDLL(None).getpid
        tried(open, "/usr/share/nothing"); tried(tempfile.gettempdir)
        import colorsys
        """)
    home = tmp_path / "home"
    sayings = said(told, Said.OPEN)
    assert {str(home / ".npmrc"), "/etc/ld.so.preload", "/etc/nowhere/y", str(home)} <= set(sayings)
    assert {str(home / "sub"), str(home / "none/cookies"), "/etc/shadow"} <= set(sayings)
    assert "/usr/share/nothing" not in sayings
    assert [event.what for event in told.notices] == ["ptrace"]
    refused = told.witness.attempts.refused
    assert refused[Opened.WRITE, "/etc/ld.so.preload"].endswith("program.py:5")


def test_no_code_of_an_object_in_an_event_runs_where_nothing_is_told(hooked: Any) -> None:
    told = hooked("""
        import os, sys
        ran = []
        class Odd:
            def __eq__(self, other): ran.append("eq")
            def __and__(self, other): ran.append("and")
            __hash__ = object.__hash__
        for path in (os.__file__, "/etc/shadow"):
            sys.audit("open", path, Odd(), 0)
            sys.audit("open", path, "r", Odd())
        assert not ran, ran
        """)
    assert "/etc/shadow" in said(told, Said.OPEN)


def test_a_path_that_only_begins_like_a_library_s_is_told(hooked: Any) -> None:
    told = hooked("""
        import contextlib, os, sys
        library = os.__file__.removesuffix("os.py")
        for folder, name in ((library, "shadow"), (f"{sys.prefix}/lib/", "gshadow")):
            with contextlib.suppress(OSError):
                open(folder + "../" * folder.count("/") + "etc/" + name, "rb")
        open(os.__file__, "rb").close()
        with contextlib.suppress(OSError):
            open(library + "none/written.py", "w")
        """)
    opened = {path.rpartition("/")[2]: path for path in said(told, Said.OPEN)}
    assert (opened["shadow"], opened["gshadow"]) == ("/etc/shadow", "/etc/gshadow")
    assert opened["written.py"].endswith("/none/written.py")
    assert "os.py" not in opened


@pytest.mark.parametrize(("count", "is_told"), [(3999, False), (4001, True)])
def test_that_more_is_read_than_is_told_is_told_once(
    count: int, is_told: bool, hooked: Any
) -> None:
    told = hooked(f"""
        import contextlib
        for number in range({count}):
            with contextlib.suppress(OSError):
                open(f"/etc/{{number}}")
        """)
    reads = [notice for notice in told.notices if notice.kind is Notice.READS]
    assert bool(reads) is is_told
    assert [notice.what for notice in reads] == [""] * is_told


def test_what_is_removed_or_a_folder_to_be_made_is_told_as_that(hooked: Any) -> None:
    told = hooked("""
        import os
        os.makedirs("/etc", exist_ok=True)
        for act in (os.remove, lambda path: open(path, "r+"), lambda path: os.chmod(path, 0o600)):
            try:
                act("/etc/no-such/x")
            except FileNotFoundError:
                pass
    """)
    refused = [*told.witness.attempts.refused]
    assert refused == [(Opened.REMOVE, "/etc/no-such/x"), (Opened.WRITE, "/etc/no-such/x")]


# Text that no person wrote: 1 and 0 as characters that do not show, sounds, pictures, numbers.
PAYLOAD = "import socket\nzzz = socket.gethostname"
BITS = "".join(f"{byte:08b}" for byte in PAYLOAD.encode())
BLANKS = BITS.replace("0", " ").replace("1", "\t")
ZERO_WIDTH = BITS.replace("0", "\u200b").replace("1", "\u200d")
READ_BITS = "int(''.join('01'[c == {one!r}] for c in {text}), 2)"
AS_TEXT = "exec({number}.to_bytes({size}, 'big').decode())"


def from_bits(text: str, one: str) -> str:
    number = READ_BITS.format(one=one, text=text)
    return AS_TEXT.format(number=number, size=len(BITS) // 8)


# Code that imports nothing, and so has no telling word.
UNIMPORTED = "zzz = sum(range(12))\nwidth = zzz"


def bits_of(zero: str, one: str) -> str:
    return BITS.replace("0", zero).replace("1", one)


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def crossed(text: str) -> bytes:
    return bytes(byte ^ b"k3y!"[at % 4] for at, byte in enumerate(text.encode()))


def in_folder(source: str) -> str:
    return f"import os\nos.chdir(os.path.dirname(__file__))\n{source}"


UNWRITTEN = {
    "of blanks in a text": (from_bits(repr(BLANKS), "\t"), "do not show"),
    "of blanks at the end of its own lines": (
        in_folder(
            "text = open(__file__).read().partition('#')[2].rstrip('#\\n')\n"
            f"{from_bits('text', chr(9))}\n#{BLANKS}"
        ),
        "do not show",
    ),
    "of characters without width": (from_bits(ascii(ZERO_WIDTH), "\u200d"), "do not show"),
    "of a comment that nobody sees": (
        in_folder(
            "text = open(__file__, encoding='utf-8').read().partition('#')[2]\n"
            f"{from_bits('text', chr(0x200D))}\n#{ZERO_WIDTH}"
        ),
        "do not show",
    ),
    "of a picture": (in_folder("exec(open('logo.png').read()[8:])"), "a picture"),
    "of a sound, turned": (
        in_folder("exec(bytes(b ^ 7 for b in open('noise.wav', 'rb').read()))"),
        "a picture",
    ),
    "of a picture, as a program": (in_folder("import runpy\nrunpy.run_path('code.png')"), "a pict"),
    "of numbers": (f"exec(''.join(map(chr, {[*PAYLOAD.encode()]})))", "as numbers"),
    "of a sum": ("exec(" + "+".join(f"chr({ord(c)})" for c in PAYLOAD) + ")", "as numbers"),
    "of one number": (
        f"exec(({int.from_bytes(PAYLOAD.encode())}).to_bytes({len(PAYLOAD)}))",
        "as nu",
    ),
    "of turned letters": (f"exec({PAYLOAD[::-1]!r}[::-1])", "backwards"),
    "of pieces": (f"exec(''.join({[*PAYLOAD]}))", "as numbers, backwards or"),
    "of hex": (
        f"import codecs\nexec(codecs.decode({PAYLOAD.encode().hex()!r}, 'hex'))",
        "or shifted",
    ),
    "of quotes": (
        f"import urllib.parse as p\nexec(p.unquote({quoted(PAYLOAD)!r}))",
        "or shifted",
    ),
    "of letters moved on": (
        f"exec(''.join(chr(ord(c) - 3) for c in {''.join(chr(ord(c) + 3) for c in PAYLOAD)!r}))",
        "or shifted",
    ),
    "of letters crossed with a word": (
        f"D = {crossed(PAYLOAD)!r}\nexec(bytes(b ^ b'k3y!'[i % 4] for i, b in enumerate(D)))",
        "or shifted",
    ),
    "of no import": (
        f"exec(bytes(b ^ 90 for b in {[ord(c) ^ 90 for c in UNIMPORTED]}))",
        "or shifted",
    ),
    "of blanks in a line": (
        f"S = 'a{bits_of(' ', chr(9))}b'\nexec(int(''.join('01'[c == chr(9)] for c in S[1:-1]), 2)"
        f".to_bytes({len(PAYLOAD)}))",
        "do not show",
    ),
    "of characters one by one": (
        f"S = '{'w'.join(bits_of(chr(0x200B), chr(0x200C)))}'\n"
        f"exec(int(''.join('01'[c == chr(0x200c)] for c in S[::2]), 2).to_bytes({len(PAYLOAD)}))",
        "do not show",
    ),
    "of an archive by the name of a picture": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__) + '/art.png')\nimport hid",
        "sound, a picture",
    ),
}


@pytest.fixture
def media(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_text("\x7fPNG    " + PAYLOAD)
    (tmp_path / "code.png").write_text(PAYLOAD)
    (tmp_path / "noise.wav").write_bytes(bytes(byte ^ 7 for byte in PAYLOAD.encode()))
    with zipfile.ZipFile(tmp_path / "art.png", "w") as archive:
        archive.writestr("hid.py", PAYLOAD)


@pytest.mark.parametrize("source", UNWRITTEN.values(), ids=UNWRITTEN)
@pytest.mark.usefixtures("media")
def test_text_that_no_person_wrote_is_told_as_that(source: tuple[str, str], hooked: Any) -> None:
    told = hooked(source[0])
    codes = [code for code in told.codes if code.decoded]
    assert codes and all("zzz" in code.text and source[1] in code.how for code in codes)


WRITTEN = {
    "a file that stands beside it": in_folder("exec(open('helper.py').read())"),
    "a template in another file": in_folder(
        "exec(open('helper.py').read().replace('NAME', 'zzz'))"
    ),
    "an import by name": "for name in ('os', 'socket'): exec(f'import {name}')",
    "of the features to come": "exec('from __future__ import ' + 'annotations')",
    "a function with its names": "names = ['a', 'b']\n"
    "exec('def f({0}): return ({0})'.format(', '.join(names)))",
    "emoji": "face = '\\U0001f468\\u200d\\U0001f469\\u200d\\U0001f467'\n"
    "exec('zzz = ' + str(len(face)))",
    "an editor's blanks": "text = 'a  \\n\\t\\nb \\n'\nexec('zzz = ' + str(len(text)))",
    "beside a picture": in_folder(
        "def show(): return open('logo.png', 'rb').read()\n"
        "show()\ndef make(n): exec(f'zzz = {n}')\nmake(7)"
    ),
    # fontTools: the name of a table, which stands in a font, too.
    "a name that a picture has": in_folder(
        "class K: PNG = zzz = 7\n"
        "def show(): return open('logo.png', 'rb').read()\n"
        "show()\ndef make(n): return eval(n, vars(K) | {})\nmake('zzz')"
    ),
}


@pytest.mark.parametrize("source", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.usefixtures("media")
def test_text_that_a_person_wrote_is_not(source: str, hooked: Any) -> None:
    told = hooked(source, helper="import socket\nNAME = socket.gethostname\n")
    assert [code for code in told.codes if code.decoded] == []


PARTS = compile("print('seven')", "x", "exec")
# What was no text: instructions, and compiled files; whether nobody would take them for code.
ASSEMBLED = {
    "of instructions": (
        "import types\n"
        "def f(): return 7\n"
        "c = f.__code__\n"
        f"exec(types.CodeType(0, 0, 0, 0, 9, 64, {PARTS.co_code!r}, {PARTS.co_consts!r},"
        f" {PARTS.co_names!r}, (), 'x', 'm', 'm', 1, {PARTS.co_linetable!r}, b'', (), ()))",
        "put together from instructions",
        True,
    ),
    "of a function with others": (
        f"def f(): pass\nexec(f.__code__.replace(co_flags=64, co_stacksize=9,"
        f" co_code={PARTS.co_code!r}, co_consts={PARTS.co_consts!r}, co_names={PARTS.co_names!r}))",
        "put together from instructions",
        True,
    ),
    "of a file by another name": (
        in_folder(
            "from importlib.machinery import SourcelessFileLoader as Loader\n"
            "Loader('data', os.path.abspath('data.bin')).load_module()"
        ),
        "from a file that is no module",
        True,
    ),
    "of a module without its source": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\nimport alone",
        "compiled, without a source",
        False,
    ),
}


@pytest.mark.parametrize(("source", "how", "decoded"), ASSEMBLED.values(), ids=ASSEMBLED)
def test_code_that_was_no_text_is_told(
    source: str, how: str, decoded: bool, hooked: Any, tmp_path: Path
) -> None:
    header = importlib.util.MAGIC_NUMBER + bytes(12)
    for name in ("data.bin", "alone.pyc"):
        (tmp_path / name).write_bytes(header + marshal.dumps(PARTS))
    (code,) = [code for code in hooked(source).codes if code.how]
    assert how in code.how and code.decoded is decoded
    (found,) = judge(Phase(PhaseName.IMPORT), code)
    assert found.severity is (Severity.HIGH if decoded else Severity.MEDIUM)
    (called,) = judge(Phase(PhaseName.CALL), code)
    assert called.severity is (Severity.HIGH if decoded else Severity.INFO)


TREES = (
    "import ast, base64, helper\ndef run(*nodes):\n"
    "    tree = ast.fix_missing_locations(ast.Module([*nodes], []))\n"
    "    exec(compile(tree, 'x', 'exec'))\n"
    "def name(*codes): return ''.join(map(chr, codes))\n"
)
SOCKET = [*b"socket"]
# Trees that nobody wrote as text: what of them is told, and whether as if it was decoded.
BUILT = {
    "of numbers": (f"run(ast.Import([ast.alias(name(*{SOCKET}))]))", "import socket", True),
    "of the words of a decoder": (
        "run(ast.Import([ast.alias(base64.b64decode('c29ja2V0').decode())]))",
        "import socket",
        True,
    ),
    "of an expression": (
        f"run(ast.Expr(ast.Call(ast.Name('__import__', ast.Load()),"
        f" [ast.Constant(name(*{SOCKET}))], [])))",
        "__import__('socket')",
        True,
    ),
    "where a text says something else": (
        "tree = ast.parse(open(helper.__file__).read())\n"
        f"tree.body[0].names[0].name = name(*{SOCKET})\nexec(compile(tree, 'x', 'exec'))",
        "import socket",
        True,
    ),
    "of words that can be read": (
        "run(ast.Assign([ast.Name('width', ast.Store())], ast.Constant(7)))",
        "width = 7",
        False,
    ),
    "of nodes of its own": (
        "class Mine(ast.Constant): pass\nrun(ast.Expr(Mine(7)))",
        "(a tree that",
        False,
    ),
}


@pytest.mark.parametrize(("source", "text", "decoded"), BUILT.values(), ids=BUILT)
def test_code_that_was_built_as_a_tree_is_told(
    source: str, text: str, decoded: bool, hooked: Any
) -> None:
    told = hooked(TREES + source, helper="import json\nwidth = 7\nother = width\n")
    (code,) = [code for code in told.codes if code.decoded is decoded]
    assert code.text.startswith(text) and ("built as a tree" in code.how or not decoded)
    (found,) = judge(Phase(PhaseName.CALL), code)
    assert found.severity is (Severity.HIGH if decoded else Severity.INFO)


def test_a_tree_of_a_text_that_can_be_read_is_not(hooked: Any) -> None:
    """As import hooks do that check types, or count what was run."""
    told = hooked(
        "import ast, helper\nclass Change(ast.NodeTransformer):\n"
        "    def visit_Constant(self, node): return ast.copy_location(ast.Constant(8), node)\n"
        "tree = Change().visit(ast.parse(open(helper.__file__).read(), 'x'))\n"
        "exec(compile(ast.fix_missing_locations(tree), 'x', 'exec'))",
        helper="import socket\nname = socket.gethostname\nwidth = 7\n",
    )
    assert [code for code in told.codes if "width" in code.text] == []


def test_code_that_only_gets_another_name_is_not(hooked: Any) -> None:
    told = hooked(
        "def f(): pass\nf.__code__ = f.__code__.replace(co_name='g', co_firstlineno=7)\n"
        "import helper\nimport types\ntypes.FunctionType(f.__code__, {})()",
        helper="x = 1\n",
    )
    assert [code for code in told.codes if code.how or code.decoded] == []


def test_a_function_that_is_handed_on_is_what_its_file_says(hooked: Any) -> None:
    """As PyInstaller gives work to another process."""
    told = hooked(
        "import helper, marshal, types\n"
        "def again(code): return types.FunctionType(marshal.loads(code), {})()\n"
        "again(marshal.dumps(helper.work.__code__))\n",
        helper="import os\ndef work():\n    def inner(): return 7\n    return inner()\n",
    )
    assert [code for code in told.codes if code.decoded] == []
    other = "import helper, marshal\nmarshal.loads(marshal.dumps(helper.work.__code__.replace({})))"
    for change in ("co_consts=(None, 8)", "co_filename='/etc/passwd'"):
        told = hooked(other.format(change), helper="def work():\n    return 7\n")
        assert {code.decoded for code in told.codes} == {True}, change


WAYS_TO_A_FILE = {
    "bytes": "open(b'/etc/no-such/x', 'w')",
    "a name below a folder": "os.open('x', os.O_WRONLY | os.O_CREAT, dir_fd=os.open('/sys', 0))",
    "a text of its own": "class P(str):\n    def startswith(self, *_): return False\n"
    "    def split(self, *_): return ['y']\nopen(P('/etc/no-such/x'), 'w')",
    "cut short": "os.truncate('/etc/no-such/x', 0)",
}


@pytest.mark.parametrize("way", WAYS_TO_A_FILE)
def test_a_file_is_known_however_it_is_named(way: str, hooked: Any) -> None:
    lines = WAYS_TO_A_FILE[way].replace("\n", "\n    ")
    told = hooked(f"import os\ntry:\n    {lines}\nexcept OSError: pass")
    refused = {path for _, path in told.witness.attempts.refused}
    # Of a folder that is open it is not known whether it is the one that is meant.
    assert refused - {f"{Path.cwd()}/x"} in ({"/etc/no-such/x"}, {"/sys/x"}), refused


# A file of tests, of which pytest makes more than there was.
ASSERTING = "import socket, subprocess\n" + "".join(
    f"def test_{number}():\n    assert socket.gethostname() == subprocess.{number}\n"
    for number in ("a", "b", "c")
)
# What generators in wide use do; those that are not there are skipped.
GENERATORS = {
    "attrs": "import attr\n@attr.s(frozen=True, order=True)\n"
    "class C:\n  x = attr.ib(converter=int)",
    "jinja2": "import jinja2\n"
    "jinja2.Template('{% for x in y %}{{ x|upper }}{% endfor %}').render(y=['import os'])",
    "pytest": "import _pytest.assertion.rewrite as r\nimport ast\n"
    "import helper\ntext = open(helper.__file__).read()\ntree = ast.parse(text)\n"
    "r.rewrite_asserts(tree, text.encode())\n"
    "exec(compile(tree, 'helper.py', 'exec'), {'__name__': 'helper'})",
    "numpy": "import numpy",
    "sympy": "import sympy\nx = sympy.Symbol('x')\nsympy.lambdify(x, sympy.sin(x))(1.0)",
    "pydantic": "import pydantic\nclass M(pydantic.BaseModel):\n  x: int = 1\nM(x=2)",
    "networkx": "import networkx as n\nn.write_gml(n.path_graph(3), '/dev/null')",
    "falcon": "import falcon\napp = falcon.App()\nclass R:\n"
    "  def on_get(self, q, s, x): pass\napp.add_route('/{x:int}', R())\n"
    "app._router.find('/3')",
}


@pytest.mark.parametrize("name", GENERATORS)
def test_code_that_generators_make_is_not_called_decoded(name: str, hooked: Any) -> None:
    if not importlib.util.find_spec(name):
        pytest.skip(f"{name} is not installed here")
    sites = [path for path in sys.path if path.endswith("site-packages")]
    told = hooked(f"import sys\nsys.path += {sites!r}\n" + GENERATORS[name], helper=ASSERTING)
    assert [code for code in told.codes if code.decoded] == []


def test_code_behind_blanks_is_found_where_no_editor_shows_it() -> None:
    blanks = " " * 200
    hidden = f"import six;{' ' * 60}exec(x)\nif True:\n{blanks}exec(y)\nx = [1,{blanks}exec(z)]\n"
    assert [*crowded_lines(hidden.encode())] == [
        (1, 60, "exec(x)"),
        (3, 200, "exec(y)"),
        (4, 200, "exec(z)]"),
    ]
    harmless = f"x = 1{blanks}# a remark\ntext = '''a;{blanks}b'''\ny = (1,    2,\n{' ' * 90}3)\n"
    assert [*crowded_lines(harmless.encode())] == []
    assert [*crowded_lines(b"x = '" + b" " * 300 + b"\n\0\xff")] == []


BLANKS_BETWEEN = " " * 161
HIDDEN = (
    f"import six;{BLANKS_BETWEEN}import os;os.system('x')",
    f"x = 1;{BLANKS_BETWEEN}f()",
    f"if x:{BLANKS_BETWEEN}f()",
    f"if x:\n{BLANKS_BETWEEN}f()",
    f"x = [1,{BLANKS_BETWEEN}exec('y')]",
    f"x = [1,\n{BLANKS_BETWEEN}2, 'eval', eval('y')]",
    f"x = 1 or{BLANKS_BETWEEN}__import__('os').system('x')",
    f"x = [1,{BLANKS_BETWEEN}f\"{{exec('y')}}\"]",
    f"x = [1,{BLANKS_BETWEEN}subprocess.run('y')]",
    f"x = [1,{BLANKS_BETWEEN}f'', exec('y'), '']",
    f"x = [1,{BLANKS_BETWEEN}2]; f()",
)
TABLES = (
    f"x = [1,{BLANKS_BETWEEN}2]",
    f"x = [1,\n{BLANKS_BETWEEN}2]",
    f"x = {{'a':{BLANKS_BETWEEN}2}}",
    f"x: int ={BLANKS_BETWEEN}2",
    f"x = f(1,{BLANKS_BETWEEN}g(2), re.compile('x'))",
    f"x = ['a',{BLANKS_BETWEEN}'exec', \"eval it\", 'import os']",
    f"x = ['a'{BLANKS_BETWEEN}]",
    f"x = y[1:{BLANKS_BETWEEN}2]",
)


@pytest.mark.parametrize("source", HIDDEN)
def test_what_acts_behind_blanks_is_hidden_code(source: str) -> None:
    assert len([*crowded_lines(source.encode())]) == 1


@pytest.mark.parametrize("source", TABLES)
def test_the_items_of_a_table_are_no_hidden_code(source: str) -> None:
    assert [*crowded_lines(source.encode())] == []


def test_the_line_of_a_traceback_is_not_called_decoded(hooked: Any) -> None:
    told = hooked(f"""
        import base64, sys
        base64.b64decode("{CODED}")
        table = {{}}
        try: table["first"]["second"] = 7
        except KeyError: sys.excepthook(*sys.exc_info())
        """)
    assert [code for code in told.codes if code.decoded] == []
