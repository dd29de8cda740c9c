"""Other victims: gates of a system, of CI and of a date open, and what harmless packages do there
does not look evil.
"""

import datetime
import re
from pathlib import Path

import pytest
from inside import Stand, make_python

ACTS = "print('acted')"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def stand(tmp_path: Path, python: Path) -> Stand:
    return Stand(tmp_path / "stand", python)


GATES = {
    "windows": [
        "import os\nif os.name == 'nt': {}",
        "from os import name\nif name == 'nt': {}",
        "import sys\nif sys.platform.startswith('win'): {}",
        "import platform\nif platform.system() == 'Windows': {}",
        "from platform import uname\nif uname().system == 'Windows': {}",
        "import os\nif os.path.isdir(os.environ.get('APPDATA', '')): {}",
        "import os\nif os.path.isdir(os.environ.get('APPDATA', '') + '\\\\..\\\\Local'): {}",
        "import winreg, msvcrt, ctypes, subprocess\nctypes.windll.kernel32.Beep(1)\n"
        "subprocess.run(['true'], creationflags=subprocess.CREATE_NO_WINDOW)\n{}",
    ],
    "macos": [
        "import sys\nif sys.platform == 'darwin': {}",
        "import platform\nif platform.system() == 'Darwin' and platform.mac_ver()[0]: {}",
    ],
    "ci": ["import os\nif os.getenv('GITHUB_ACTIONS') == 'true' and 'CI' in os.environ: {}"],
    "later": [
        "import datetime\nif datetime.date.today().year > YEAR + 2: {}",
        "from datetime import datetime\nif datetime.now().year > YEAR + 2: {}",
        "from datetime import datetime, UTC\nif datetime.now(UTC).year > YEAR + 2: {}",
        "import time\nif time.clock_gettime(time.CLOCK_REALTIME) > 86400 * 366 * (YEAR - 1968): {}",
        "import time\nif time.time() > 86400 * 366 * (YEAR + 2 - 1970): {}",
        "import time\nif time.localtime().tm_year > YEAR + 2: {}",
        "import time\nif int(time.strftime('%Y')) > YEAR + 2: {}",
    ],
}
CASES = [(victim, gate) for victim, gates in GATES.items() for gate in gates]


@pytest.mark.parametrize(("victim", "gate"), CASES)
def test_a_gate_opens_for_its_victim_alone(stand: Stand, victim: str, gate: str) -> None:
    this_year = str(datetime.datetime.now(datetime.UTC).year)
    stand.write({"a.py": gate.format(ACTS).replace("YEAR", this_year)})
    opened = stand.imports("a", victim=victim)
    assert opened.how() == {}
    assert "acted" in opened.stdout
    other = "macos" if victim != "macos" else "ci"
    assert "acted" not in stand.imports("a", victim=other).stdout
    assert "acted" not in stand.imports("a").stdout


LOOKS = """
import os, sys
sys.addaudithook(lambda event, words: event == "open" and "cord" in str(words) and print(words[0]))
folder = os.environ.get("APPDATA", "/none") + "\\\\discord"
if os.path.exists(folder):
    print("it is there")
"""


def test_who_looks_for_a_folder_of_windows_and_goes_away_has_looked(stand: Stand) -> None:
    stand.write({"a.py": LOOKS})
    looked = stand.imports("a", victim="windows")
    assert looked.how() == {} and "it is there" not in looked.stdout
    assert f"{stand.home}/AppData/Roaming/discord" in looked.stdout
    assert "discord" not in stand.imports("a").stdout


def test_the_name_of_a_machine_has_the_form_of_one(stand: Stand) -> None:
    stand.write({"a.py": "import os\nprint(os.environ['COMPUTERNAME'])"})
    assert re.search(r"DESKTOP-[0-9A-Z]{7}\n", stand.imports("a", victim="windows").stdout)


HARMLESS = {
    "looks for a library": "import ctypes\nw = getattr(ctypes, 'windll', None)\n"
    "if w: w.kernel32.SetConsoleMode(w.kernel32.GetStdHandle(-11), 7)",
    "reads the registry": "import sys\nif sys.platform == 'win32':\n    import winreg\n    try:\n"
    "        k = winreg.OpenKey(winreg.HKEY_CURRENT_USER, 'Software')\n    except OSError: pass",
    "counts keys": "import os\nif os.name == 'nt':\n    import winreg\n    n = 0\n    try:\n"
    "        while True:\n            winreg.EnumKey(winreg.HKEY_LOCAL_MACHINE, n); n += 1\n"
    "    except WindowsError: pass",
    "keeps settings": "import os\nif os.name == 'nt':\n"
    "    base = os.path.join(os.environ['LOCALAPPDATA'], 'calm')\n"
    "    os.makedirs(base, exist_ok=True)\n"
    "    with open(base + '\\\\settings.json', 'w') as f: f.write('{}')\n"
    "    assert os.path.exists(base + '/settings.json') and os.listdir(base + '\\\\')",
    "asks the library": "import platform, os, subprocess, tempfile, pathlib, uuid, getpass\n"
    "platform.platform(); platform.win32_ver(); pathlib.Path('x').resolve(); uuid.uuid4()\n"
    "tempfile.NamedTemporaryFile().close(); assert os.popen('true').close() is None\n"
    "assert subprocess.run(['true']).returncode == 0; pathlib.Path(os.devnull).read_text()",
    "uses threads and processes": "import asyncio, sys\nfrom multiprocessing import get_context\n"
    "from concurrent.futures import ThreadPoolExecutor, ProcessPoolExecutor\n"
    "if sys.platform == 'win32':\n"
    "    asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())\n"
    "asyncio.run(asyncio.sleep(0))\nwith ThreadPoolExecutor() as pool: pool.submit(int).result()",
    "compares and pickles dates": "import datetime as d, pickle, time, calendar, email.utils\n"
    "n = d.datetime.now()\nassert type(n) is d.datetime and isinstance(n, d.date)\n"
    "assert pickle.loads(pickle.dumps(n)) == n\nclass D(d.datetime): pass\n"
    "assert type(D.now()) is D\n"
    "assert abs(time.time() - n.timestamp()) < 5\nassert d.datetime.now(d.UTC).tzinfo is d.UTC\n"
    "time.monotonic(); time.sleep(0.01); email.utils.formatdate()",
    "reads another's console": "import os\nif os.name == 'nt':\n    import msvcrt\n"
    "    assert not msvcrt.kbhit()",
    "waits on a lock": "import threading, queue\nq = queue.Queue()\n"
    "threading.Thread(target=lambda: q.put(1)).start()\nassert q.get(timeout=5) == 1",
}


@pytest.mark.parametrize("victim", ["windows", "macos", "ci", "later"])
def test_harmless_modules_are_imported_as_ever(stand: Stand, victim: str) -> None:
    """All in one: none of them fails, and no program but `true` is started."""
    names = [name.replace(" ", "_") for name in HARMLESS]
    watch = (
        "import sys\ndef hook(event, args):\n    if event in ('subprocess.Popen', 'os.system'):\n"
        "        print(event, args[1])\nsys.addaudithook(hook)\n"
    )
    stand.write({f"{name}.py": text for name, text in zip(names, HARMLESS.values(), strict=True)})
    stand.write({"a_hook.py": watch})
    ended = stand.imports("a_hook", *names, victim=victim)
    assert (ended.code, ended.how(), ended.stderr) == (0, {}, "")
    shell = "subprocess.Popen ['/bin/sh', '-c', 'true']"
    # The library's own question, which it need not ask where it is told the answer.
    system = "subprocess.Popen ['uname', '-p']"
    assert set(ended.stdout.splitlines()) <= {"subprocess.Popen ['true']", shell, system}


def test_a_program_that_windows_would_open_is_started(stand: Stand) -> None:
    text = "import os\ntry: os.startfile('dropped.exe')\nexcept OSError as error: print(error)"
    stand.write({"a.py": text})
    assert "dropped.exe" in stand.imports("a", victim="windows").stdout


@pytest.mark.parametrize(
    "opens",
    [
        "winreg.CreateKey(winreg.HKEY_CURRENT_USER, RUN)",
        "winreg.OpenKey(winreg.HKEY_CURRENT_USER, RUN, 0, winreg.KEY_SET_VALUE)",
        "winreg.OpenKeyEx(winreg.ConnectRegistry(None, winreg.HKEY_CURRENT_USER), RUN)",
    ],
)
def test_what_is_written_to_the_registry_is_an_audit_event(stand: Stand, opens: str) -> None:
    stand.write(
        {
            "a.py": "import sys, winreg\n"
            "RUN = r'Software\\Microsoft\\Windows\\CurrentVersion\\Run'\n"
            "sys.addaudithook(lambda e, a: print(e, *a) if e == 'winreg.SetValue' else None)\n"
            f"with {opens} as key:\n"
            "    winreg.SetValueEx(key, 'Updater', 0, winreg.REG_SZ, 'evil.exe')\n"
        }
    )
    ended = stand.imports("a", victim="windows")
    run = "HKEY_CURRENT_USER\\Software\\Microsoft\\Windows\\CurrentVersion\\Run"
    assert ended.stdout == f"winreg.SetValue {run} Updater 1 evil.exe\n"
