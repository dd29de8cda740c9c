"""What bad packages do that leaves nothing in the scratch, and code that nobody wrote: many
stand-ins in one wheel, in a real jail; and relatives of each that stay clean.

The stand-ins are harmless: what they decode and execute only computes.
"""

import importlib.util
import marshal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, Snakehook, make_state, open_folder, variables
from standins import Content, Index, json_reply

Report = dict[str, Any]

PAYLOAD = "import socket\nhost = socket.gethostname"
BITS = "".join(f"{byte:08b}" for byte in PAYLOAD.encode())
TRY = (
    "import os\nHOME = os.path.expanduser('~')\n"
    "def tried(do, *words):\n"
    "    try: return do(*words)\n"
    "    except OSError: return None\n"
)
FROM_BITS = "exec(int(''.join('01'[c == {one!r}] for c in text), 2).to_bytes({size}, 'big'))\n"


def hidden_in(zero: str, one: str) -> str:
    """A module whose own last line is what it executes."""
    text = BITS.replace("0", zero).replace("1", one)
    read = "text = open(__file__, encoding='utf-8').read().rpartition('#')[2]\n"
    return read + FROM_BITS.format(one=one, size=len(BITS) // 8) + f"#{text}"


# What the modules of one wheel do, and what must be said of each: severity, rule, words of the
# title, and where.
ACTS: dict[str, tuple[dict[str, Content], list[tuple[str, str, str]]]] = {
    "refused": (
        {
            "refused.py": f"{TRY}import pip\n"
            "tried(open, '/etc/cron.d/sync', 'w')\n"
            "tried(os.open, '/etc/ld.so.preload', os.O_WRONLY | os.O_CREAT)\n"
            "tried(open, os.path.dirname(pip.__file__) + '/x.pth', 'w')\n"
            "tried(open, '/var/tmp/.x', 'wb')\n"
        },
        [
            ("high", "persistence.write", "tries to write /etc/cron.d/sync (scheduled jobs): re"),
            ("high", "persistence.write", "tries to write /etc/ld.so.preload (loaded into"),
            ("high", "persistence.write", "/pip/x.pth (installed code): refused"),
            ("medium", "persistence.write", "tries to write /var/tmp/.x (outside of what"),
        ],
    ),
    "thief": (
        {
            "thief.py": f"{TRY}for path in ('.azure/tokens.json', '.config/discord/Storage',\n"
            "    '.mozilla/firefox/installs.ini', '.my.cnf', '.config/rclone/rclone.conf'):\n"
            "    tried(open, os.path.join(HOME, path))\n"
            "tried(open, '/etc/shadow')\n"
        },
        [
            (
                "high",
                "secret.read",
                "databases, hosting, accounts of the machine: /home/dev/",
            )
        ],
    ),
    "walker": (
        {
            "walker.py": f"{TRY}for name in 'abcdef': os.makedirs(HOME + '/made/' + name)\n"
            "for folder, _, _ in os.walk(HOME): pass\n"
        },
        [("medium", "secret.read", "walks through the home, ")],
    ),
    "curious": (
        {
            "curious.py": f"{TRY}import ctypes\nctypes.CDLL(None).ptrace\n"
            "for path in ('/etc/machine-id', '/sys/class/dmi/id/product_name', '/proc/uptime',\n"
            "    '/proc/self/status'):\n"
            "    tried(open, path)\n"
        },
        [
            ("medium", "evidence.tamper", "asks the C library for ptrace"),
            ("medium", "code.gated", "looks at the machine's identity, the machine's maker (DMI)"),
        ],
    ),
    "tracer": (
        {
            "tracer.py": "import ctypes, os\ncall = ctypes.CDLL(None, use_errno=True).syscall\n"
            "got = [call(101, 0, 0, 0, 0), ctypes.get_errno()]\n"
            "got += [call(310, os.getppid(), 0, 0, 0, 0, 0), ctypes.get_errno()]\n"
            "got += [call(311, os.getppid(), 0, 0, 0, 0, 0), ctypes.get_errno()]\n"
            "assert got == [-1, 38] * 3, got\n"  # the kernel serves none of them
            "os.system('perl -e \"syscall(101, 16, getppid(), 0, 0)\"')\n"
        },
        [
            ("medium", "evidence.tamper", "calls ptrace(PTRACE_TRACEME)"),
            ("medium", "evidence.tamper", "calls process_vm_readv, by which"),
            ("medium", "evidence.tamper", "calls process_vm_writev, by which"),
            ("medium", "evidence.tamper", "calls ptrace(PTRACE_ATTACH)"),
        ],
    ),
    "planter": (
        {
            "planter.py": f"{TRY}for path in ('.claude/settings.json', '.cursor/mcp.json',\n"
            "    '.gemini/settings.json', 'work/app/.vscode/tasks.json', 'work/app/AGENTS.md',\n"
            "    'work/app/.github/workflows/sync.yml'):\n"
            "    os.makedirs(os.path.dirname(f'{HOME}/{path}'), exist_ok=True)\n"
            "    open(f'{HOME}/{path}', 'w').write('{}')\n"
        },
        [
            ("high", "persistence.write", "/.claude/settings.json (coding agent)"),
            ("high", "persistence.write", "/.cursor/mcp.json (coding agent)"),
            ("high", "persistence.write", "/.gemini/settings.json (coding agent)"),
            ("high", "persistence.write", "/work/app/.vscode/tasks.json (editor's or agent's"),
            ("high", "persistence.write", "/work/app/AGENTS.md (editor's or agent's rules"),
            ("high", "persistence.write", "/.github/workflows/sync.yml (project's automation)"),
        ],
    ),
    "asker": (
        {
            "asker.py": f"{TRY}import socket\n"
            "for path in ('/var/run/docker.sock', '/tmp/ssh-x/agent.7', '/run/user/1000/bus'):\n"
            "    tried(socket.socket(socket.AF_UNIX).connect, path)\n"
        },
        [
            ("medium", "network.attempt", "docker.sock (the machine's containers)"),
            ("medium", "network.attempt", "agent.7 (the machine's ssh agent)"),
            ("info", "network.attempt", "/bus (the machine's session bus)"),
        ],
    ),
    "blanks": (
        {"blanks.py": hidden_in(" ", "\t")},
        [("high", "code.dynamic", "executes decoded code, 39 bytes, made of characters that do")],
    ),
    "zero_width": (
        {"zero_width.py": hidden_in("\u200b", "\u200d")},
        [("high", "code.dynamic", "executes decoded code, 39 bytes, made of characters that do")],
    ),
    "picture": (
        {
            "picture/__init__.py": "import os\n"
            "exec(open(os.path.dirname(__file__) + '/logo.png', 'rb').read()[8:])\n",
            "picture/logo.png": b"\x89PNG\r\n\x1a\n" + PAYLOAD.encode(),
        },
        [("high", "code.dynamic", "39 bytes, that came from a sound, a picture or a font")],
    ),
    "lent": (
        {
            "lent/__init__.py": "import os\nfrom lent.runs import run\n"
            "run(open(os.path.dirname(__file__) + '/logo.png', 'rb').read()[8:])\n",
            "lent/runs.py": "def run(text): exec(text)\n",
            "lent/logo.png": b"\x89PNG\r\n\x1a\n" + PAYLOAD.encode() + b"#",
        },
        [("high", "code.dynamic", "40 bytes, that came from a sound, a picture or a font")],
    ),
    "sound": (
        {
            "sound/__init__.py": "import os, wave\n"
            "with wave.open(os.path.dirname(__file__) + '/noise.wav') as noise:\n"
            "    exec(bytes(b ^ 7 for b in noise.readframes(99)))\n",
            "sound/noise.wav": b"RIFF" + (36 + len(PAYLOAD)).to_bytes(4, "little") + b"WAVEfmt "
            b"\x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data"
            + len(PAYLOAD).to_bytes(4, "little")
            + bytes(byte ^ 7 for byte in PAYLOAD.encode()),
        },
        [("high", "code.dynamic", "39 bytes, that came from a sound, a picture or a font")],
    ),
    "numbers": (
        {"numbers_.py": f"exec(''.join(map(chr, {[*f'{PAYLOAD}_ex'.encode()]})))\n"},
        [("high", "code.dynamic", "42 bytes, that stands here as numbers")],
    ),
    "letters": (
        {
            "letters.py": "exec(bytes(b ^ 90 for b in "
            f"{[byte ^ 90 for byte in b'zzz = sum(range(12))']}))\n"
        },
        [("high", "code.dynamic", "20 bytes, that stands here as numbers, backwards or shifted")],
    ),
    "grown": (
        {
            "grown.py": "import ast\n"
            f"name = ''.join(map(chr, {[*b'socket']}))\n"
            "tree = ast.Module([ast.Import([ast.alias(name)])], [])\n"
            "exec(compile(ast.fix_missing_locations(tree), 'x', 'exec'))\n"
        },
        [("high", "code.dynamic", "13 bytes, built as a tree, whose words stand nowhere (socket)")],
    ),
    "compiled": (
        {
            "compiled/__init__.py": "import importlib.machinery as m, os\n"
            "path = os.path.join(os.path.dirname(__file__), 'table.dat')\n"
            "m.SourcelessFileLoader('table', path).load_module()\n",
            "compiled/table.dat": importlib.util.MAGIC_NUMBER
            + bytes(12)
            + marshal.dumps(compile("x = 1", "x", "exec")),
        },
        [("high", "code.dynamic", "compiled, from a file that is no module")],
    ),
    "careful": (
        {
            "careful.py": f"{TRY}import glob\n"
            "for path in ('.config/discord/Local Storage/leveldb', '.mozilla/firefox/*',\n"
            "    '.config/solana/id.json', '.config/gh/hosts.yml'):\n"
            "    for found in glob.glob(os.path.join(HOME, path)):\n"
            "        for name in glob.glob(found + '/*') or [found]: open(name, 'rb').read()\n"
        },
        [
            ("high", "secret.read", "reads or touches /home/dev/.config/discord/Local Storage/lev"),
            ("high", "secret.read", "reads or touches /home/dev/.mozilla/firefox/"),
            ("high", "secret.read", "reads or touches /home/dev/.config/solana/id.json"),
        ],
    ),
    # Who asks whether it is there is heard by nobody, and finds it there.
    "watchful": (
        {
            "watchful.py": f"{TRY}import pathlib\n"
            "if os.path.exists(HOME + '/.pgpass'): open(HOME + '/.pgpass').read()\n"
            "if os.access(HOME + '/.netrc', os.R_OK): open(HOME + '/.netrc').read()\n"
            "for path in ('gcloud/application_default_credentials.json',\n"
            "    'google-chrome/Local State', 'google-chrome/Default/Cookies'):\n"
            "    file = pathlib.Path(HOME, '.config', path)\n"
            "    if file.is_file(): file.read_bytes()\n"
        },
        [
            ("high", "secret.read", f"reads or touches /home/dev/{path}")
            for path in (
                *(".pgpass", ".netrc", ".config/gcloud/application_default_credentials.json"),
                *(".config/google-chrome/Local State", ".config/google-chrome/Default/Cookies"),
            )
        ],
    ),
    "wiper": (
        {
            "wiper.py": f"{TRY}import glob, shutil\ntried(shutil.rmtree, HOME + '/Documents')\n"
            "for path in glob.glob(HOME + '/projects/*/src/*/models.py'):\n"
            "    open(path, 'a').write('import sync\\n')\n"
        },
        [
            ("high", "persistence.write", "/models.py (somebody's own file)"),
            ("high", "persistence.write", "deleted /home/dev/Documents/"),
        ],
    ),
    "talker": (
        {
            "talker.py": f"{TRY}import socket\nos.mkfifo(HOME + '/.config/.pulse')\n"
            "socket.socket(socket.AF_UNIX).bind(HOME + '/.local/share/s')\n"
            "os.mkfifo('/dev/shm/x')\n"
        },
        [
            ("medium", "persistence.write", "leaves a FIFO to talk through: /home/dev/.config/.p"),
            ("medium", "persistence.write", "leaves a socket to talk through: /home/dev/.local/sh"),
            ("info", "persistence.write", "leaves a FIFO to talk through: /dev/shm/x"),
        ],
    ),
    "runner": (
        {
            "runner.py": f"{TRY}import subprocess\n"
            "subprocess.run(['tee', '/etc/cron.d/sync'], input=b'x', stderr=subprocess.DEVNULL)\n"
        },
        [("high", "process.spawn", "runs tee /etc/cron.d/sync")],
    ),
    "crowded": (
        {"crowded.py": f"import json;{' ' * 300}exec('x = 1')\n"},
        [("high", "code.dynamic", "hides code behind 300 blanks in a line: exec('x = 1')")],
    ),
    "taker": (
        {
            "signals_all-1.0.dist-info/entry_points.txt": "[console_scripts]\naws = taker:main\n",
            "taker.py": "def main(): pass\n",
        },
        [("medium", "persistence.write", "by the name of a well-known program: aws")],
    ),
}

# A relative of each of these, as harmless packages have them.
CALM: dict[str, Content] = {
    "calm/__init__.py": "",
    "calm/writes.py": f"{TRY}import tempfile\n"
    "os.makedirs(HOME + '/.cache/calm', exist_ok=True)\n"
    "open(HOME + '/.cache/calm/index', 'w').close()\n"
    "tempfile.NamedTemporaryFile().close()\nos.mkfifo(tempfile.mkdtemp() + '/x')\n"
    "open(os.devnull, 'w').close()\n",
    "calm/reads.py": f"{TRY}for path in ('/.config/calm/config.toml', '/.calmrc', '/.gitconfig'):\n"
    "    tried(open, HOME + path)\n"
    "for path in ('/etc/passwd', '/etc/mime.types', '/proc/cpuinfo', '/proc/self/status'):\n"
    "    tried(open, path)\n"
    "tried(os.listdir, HOME + '/.config')\n"
    "found = [os.path.exists(HOME + name) for name in ('/.netrc', '/.pgpass', '/.calmrc')]\n",
    "calm/generates.py": "import collections, ctypes, dataclasses, enum, socket\n"
    "Point = collections.namedtuple('Point', 'x y')\n"
    "@dataclasses.dataclass(order=True)\nclass Record:\n    x: int = 0\n"
    "names = ['a', 'b']\n"
    "exec('def f({0}): return ({0})'.format(', '.join(names)))\n"
    "exec(open(__file__.replace('generates', 'data')).read())\n"
    "ctypes.CDLL(None).getpid()\n"
    # Whether an address is good: it looks into nobody but itself.
    "ctypes.CDLL(None).syscall(310, ctypes.CDLL(None).getpid(), 0, 0, 0, 0, 0)\n"
    "a, b = socket.socketpair(socket.AF_UNIX)\n",
    # As who checks types or counts lines changes what he has parsed.
    "calm/changes.py": "import ast, socket, subprocess\n"
    "class Counts(ast.NodeTransformer):\n"
    "    def visit_Constant(self, node): return ast.copy_location(ast.Constant(8), node)\n"
    "tree = Counts().visit(ast.parse(open(__file__.replace('changes', 'data')).read()))\n"
    "exec(compile(ast.fix_missing_locations(tree), 'x', 'exec'))\n",
    "calm/data.py": "import socket\nhost = socket.gethostname\n",
    "calm/shows.py": "import os\n"
    "def icon(): return open(os.path.dirname(__file__) + '/logo.png', 'rb').read()\n"
    "icon()\nVersion = eval(''.join(['in', 't']))\n"
    "face = '\U0001f468\u200d\U0001f469\u200d\U0001f467'\n"
    f"table = [1,{' ' * 60}2]{' ' * 200}# far off\n",
    "calm/logo.png": b"\x89PNG\r\n\x1a\nint",
    "calm-1.0.dist-info/entry_points.txt": "[console_scripts]\ncalm-tool = calm:main\n",
}


@pytest.fixture(scope="module")
def shared_index() -> Iterator[Index]:
    with Index() as index:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        yield index


@pytest.fixture(scope="module")
def snakehook_here(jail: None, shared_index: Index, jail_python_cache: Path) -> Iterator[Snakehook]:
    with open_folder("signals") as home:
        yield Snakehook(PROGRAM, variables(make_state(home, jail_python_cache), shared_index))


@pytest.fixture(scope="module")
def acted(snakehook_here: Snakehook, shared_index: Index) -> Report:
    """The report of the wheel with all acts; yanked, too."""
    files: dict[str, Content] = {}
    for kind, _ in ACTS.values():
        files |= kind
    shared_index.add_wheel("signals-all", "1.0", files)
    shared_index.entry("signals-all", yanked="it steals")
    return snakehook_here.triage("signals-all", "--mode", "import")[1]


@pytest.mark.parametrize("kind", ACTS)
def test_the_act_is_told(acted: Report, kind: str) -> None:
    for severity, rule, words in ACTS[kind][1]:
        told = [item for item in acted["findings"] if item["rule"] == rule]
        titles = [(item["severity"], item["title"]) for item in told]
        fitting = [found for found, title in titles if words in title]
        assert severity in fitting, (words, titles)


def test_each_finding_names_its_technique(acted: Report) -> None:
    assert all(item["technique"].startswith("T1") for item in acted["findings"])
    by_title = {item["title"]: item["technique"] for item in acted["findings"]}
    assert by_title["tries to write /etc/cron.d/sync (scheduled jobs): refused"] == "T1053.003"


def test_that_it_was_yanked_is_noted(acted: Report) -> None:
    notes = [note for note in acted["coverage"]["notes"] if "yanked" in note]
    assert notes == ["install: signals-all 1.0 was yanked by its owner: it steals"]


def test_the_harmless_relatives_stay_clean(snakehook_here: Snakehook, shared_index: Index) -> None:
    shared_index.add_wheel("calm", "1.0", CALM)
    _, report, _ = snakehook_here.triage("calm", "--mode", "import")
    loud = [item for item in report["findings"] if item["severity"] != "info"]
    assert loud == []
    assert (report["verdict"], report["coverage"]["not_run"]) == ("clean", [])
    assert not any("yanked" in note for note in report["coverage"]["notes"])


def test_why_pip_found_nothing_is_the_reason(
    snakehook_here: Snakehook, shared_index: Index
) -> None:
    status = {"status": "quarantined", "reason": "malware"}
    page = {"meta": {"api-version": "1.4"}, "name": "ill", "files": [], "project-status": status}
    shared_index.answer("/simple/ill/", json_reply(200, page))
    shared_index.add_file("abroad", "abroad-1.0-cp311-cp311-win_amd64.whl", b"PK")
    shared_index.add_wheel("needy", "1.0", {"needy.py": ""}, requires=["absent-thing>=2"])
    names = ("ill", "abroad", "needy")
    reasons = {name: snakehook_here.triage(name)[1]["reason"] for name in names}
    quarantined = "install: the index has quarantined ill (malware): it gives out none of its files"
    assert reasons["ill"] == quarantined
    lacking = "install: needy needs absent-thing>=2, of which the index has nothing that fits here"
    assert reasons["needy"] == lacking
    assert reasons["abroad"].endswith("wheels for other machines or Pythons: cp311 win_amd64")
