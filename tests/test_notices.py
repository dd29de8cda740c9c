"""What is told beside what a package does: by the workers in the jail, and of skipped sleeps."""

import json
from pathlib import Path

import pytest
from reports import report_of
from test_watch import SETTINGS

from jail.inside import supervise
from jail.inside.gates import MAX_GATES, gates_of, tell_gates
from jail.orders import HOME_IN_JAIL
from jail.report.harmless import is_harmless_look, is_known_startup
from jail.report.own_secrets import is_own_secret
from jail.report.rules import judge
from jail.watch import endings
from jail.watch.calls import Sleep
from jail.watch.changes import plain_text
from jail.watch.endings import end_phase
from jail.watch.events import (
    BaitRead,
    Event,
    LeftAtWork,
    Outcome,
    Phase,
    PhaseName,
    Severity,
    StartupCode,
)
from jail.watch.noticed import Notice, Noticed, Slept
from jail.watch.python_witness import Malformed, parse_event
from jail.watch.second_try import FITTING, NOT_NEEDED
from jail.watch.sleeps import skipped_sec
from jail.watch.trace import TraceReader
from jail.watch.triggers import Trigger
from jail.watch.withheld import stand_in, versions_of

IMPORT, CALL = Phase(PhaseName.IMPORT, "all modules"), Phase(PhaseName.CALL)
EXECUTE = Phase(PhaseName.EXECUTE, "tool")
LSB_RELEASE = ("getopt", "--name", "lsb_release", "-o", "hvidrcas", "-l", "help,version,id", "--")
SITE = "/srv/site/x-1.0/lib/python3.11/site-packages"
PLUG_IN, OTHER = f"{SITE}/_hypothesis_pytestplugin.py:433", f"{SITE}/evil/__init__.py:3"
CLICK = "click.exceptions"
SEMAPHORE_NAME = "multiprocessing.synchronize.SemLock._make_name"
RUN = r"HKEY_CURRENT_USER\Software\Microsoft\Windows\CurrentVersion\Run"
SYSTEM = r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet"
WINDOWS_NT = r"HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
LOGON, DEBUGGED = rf"{WINDOWS_NT}\Winlogon", rf"{WINDOWS_NT}\Image File Execution Options\a.exe"


def opens(name: str) -> Noticed:
    """What is named so, a kind of file or a kind of link, is to be opened by another program."""
    key = rf"HKEY_CURRENT_USER\Software\Classes\{name}\shell\open\command"
    return Noticed(Notice.REGISTRY, f"{key}\\", text="x.exe")


# --- sleeps ---

LONG = b"CLOCK_REALTIME, 0, {tv_sec=50, tv_nsec=0}, 0x7ffe) = 0 (INJECTED)"
UNTIL = b"CLOCK_MONOTONIC, TIMER_ABSTIME, {tv_sec=6132, tv_nsec=499665280}, NULL) = 0 (INJECTED)"


@pytest.mark.parametrize(
    ("text", "asked_sec"),
    [
        (LONG, 50),
        (UNTIL, 6032),
        (b"{tv_sec=7, tv_nsec=5}, NULL) = 0 (INJECTED) <0.000051>", 7),
        # Short ones are everywhere, and those that were slept are no news.
        (b"{tv_sec=1, tv_nsec=0}, NULL) = 0 (INJECTED)", 0),
        (LONG.removesuffix(b" (INJECTED)"), 0),
        (b"0x1000, NULL) = -1 EFAULT (Bad address)", 0),
        (b"{tv_sec=" + b"9" * 18 + b", tv_nsec=0}, NULL) = 0 (INJECTED)", 10**9),
    ],
)
def test_a_skipped_sleep_is_as_long_as_it_was_meant_to_be(text: bytes, asked_sec: int) -> None:
    assert skipped_sec(text, 100.0, 1e9) == asked_sec


def test_the_trace_tells_a_skipped_sleep() -> None:
    assert TraceReader().take(b"7 clock_nanosleep(" + LONG + b"\n") == [Sleep(7, 50)]


# --- lines of the workers ---


def test_a_line_of_a_worker_is_a_notice() -> None:
    said = {"event": "ended", "pid": 7, "what": "s.proxy", "how": "raised", "text": "x"}
    assert parse_event(json.dumps(said).encode()) == Noticed(Notice.ENDED, "s.proxy", "raised", "x")
    said = {"event": "patched", "pid": 7, "what": "json.dumps", "at": "/s.py:12"}
    expected = Noticed(Notice.PATCHED, "json.dumps", place="/s.py:12")
    assert parse_event(json.dumps(said).encode()) == expected


def test_what_a_package_writes_there_can_do_no_harm() -> None:
    said = {"event": "missed", "pid": 7, "what": "\x1b[2J" + "x" * 9000, "at": ["\n"]}
    line = json.dumps(said).encode()
    with pytest.raises(Malformed):
        parse_event(line)
    notice = parse_event(line.replace(b"x" * 5000, b""))
    assert isinstance(notice, Noticed)
    assert "\x1b" not in notice.what
    assert len(notice.what) <= 4096


@pytest.mark.parametrize(
    ("phase", "event", "severity", "words"),
    [
        (IMPORT, Noticed(Notice.PATCHED, "json.dumps"), Severity.MEDIUM, "json.dumps"),
        (CALL, Noticed(Notice.PATCHED, "json.dumps"), Severity.INFO, "json.dumps"),
        # What is there to be replaced, by a kernel or a plug-in, or only shown.
        (IMPORT, Noticed(Notice.PATCHED, "comm.create_comm"), Severity.INFO, "create_comm"),
        (IMPORT, Noticed(Notice.PATCHED, "comm.base.publish"), Severity.MEDIUM, "publish"),
        (IMPORT, Noticed(Notice.PATCHED, "_pytest.x.f", place=PLUG_IN), Severity.INFO, "_pytest"),
        (IMPORT, Noticed(Notice.PATCHED, "json.dumps", place=PLUG_IN), Severity.MEDIUM, "json"),
        (IMPORT, Noticed(Notice.PATCHED, "_pytest.x.f", place=OTHER), Severity.MEDIUM, "_pytest"),
        (IMPORT, Noticed(Notice.PATCHED, f"{CLICK}.UsageError.show"), Severity.INFO, "show"),
        (IMPORT, Noticed(Notice.PATCHED, "click.core.Command.invoke"), Severity.MEDIUM, "invoke"),
        (CALL, Noticed(Notice.HOOKED, "s.Finder", text="json"), Severity.INFO, "by s.Finder"),
        (IMPORT, Noticed(Notice.PATCHED, "gc.callbacks"), Severity.MEDIUM, "for what others do"),
        (IMPORT, Noticed(Notice.PATCHED, "logging._loggerClass"), Severity.INFO, "logging"),
        (IMPORT, Noticed(Notice.PATCHED, "distutils.x.f"), Severity.INFO, "distutils"),
        (IMPORT, Noticed(Notice.PATCHED, "warnings.formatwarning"), Severity.INFO, "warnings"),
        (IMPORT, Noticed(Notice.PATCHED, "typing._check_generic"), Severity.INFO, "typing"),
        (IMPORT, Noticed(Notice.PATCHED, SEMAPHORE_NAME), Severity.INFO, "_make_name"),
        (IMPORT, Noticed(Notice.PATCHED, f"{SEMAPHORE_NAME}s"), Severity.MEDIUM, "_make_names"),
        (IMPORT, Noticed(Notice.PATCHED, "typing.cast"), Severity.MEDIUM, "typing.cast"),
        (IMPORT, Noticed(Notice.REGISTRY, f"{RUN}\\Updater", text="x"), Severity.HIGH, "Updater"),
        (IMPORT, Noticed(Notice.REGISTRY, f"{RUN}Once"), Severity.HIGH, "RunOnce"),
        (IMPORT, Noticed(Notice.REGISTRY, r"HKEY_CURRENT_USER\Calm\Run x"), Severity.INFO, "Calm"),
        (IMPORT, opens("mytool"), Severity.INFO, "mytool"),
        (IMPORT, opens(".mytool"), Severity.INFO, ".mytool"),
        (IMPORT, opens("MyTool.Document.1"), Severity.INFO, "MyTool"),
        (IMPORT, opens("exefile"), Severity.HIGH, "exefile"),
        (IMPORT, opens("ms-settings"), Severity.HIGH, "ms-settings"),
        (IMPORT, opens("mscfile"), Severity.HIGH, "mscfile"),
        (IMPORT, opens("Folder"), Severity.HIGH, "Folder"),
        (IMPORT, opens(".exe"), Severity.HIGH, ".exe"),
        (IMPORT, opens(".txt"), Severity.HIGH, ".txt"),
        (IMPORT, opens("http"), Severity.HIGH, "http"),
        (IMPORT, Noticed(Notice.REGISTRY, rf"{SYSTEM}\Services\x\y"), Severity.HIGH, "Services"),
        (IMPORT, Noticed(Notice.REGISTRY, rf"{LOGON}\Shell"), Severity.HIGH, "Winlogon"),
        (IMPORT, Noticed(Notice.REGISTRY, rf"{DEBUGGED}\Debugger"), Severity.HIGH, "a.exe"),
        (IMPORT, Noticed(Notice.HOOKED, "s.F", text="json"), Severity.MEDIUM, "(json)"),
        (IMPORT, Noticed(Notice.HOOKED, "s.F"), Severity.INFO, "s.F"),
        (IMPORT, Noticed(Notice.GATED, "CI", text="f()"), Severity.INFO, "(CI): f()"),
        (IMPORT, Noticed(Notice.ENDED, "s", "left", "1 at work"), Severity.MEDIUM, "1 at work"),
        (CALL, Noticed(Notice.ENDED, "s", "left", "1 at work"), Severity.INFO, "1 at work"),
        (EXECUTE, Noticed(Notice.ENDED, "s", "stopped", "after 5 s"), Severity.INFO, "5 s"),
        (IMPORT, LeftAtWork(1, "sleep"), Severity.MEDIUM, "1 processes"),
        (CALL, LeftAtWork(1, "sleep"), Severity.INFO, "1 processes"),
        (IMPORT, Slept(3600, "python"), Severity.INFO, "3600 s: skipped"),
    ],
)
def test_what_is_told_is_judged(phase: Phase, event: Event, severity: str, words: str) -> None:
    (finding,) = judge(phase, event)
    assert finding.severity == severity
    assert words in finding.title


@pytest.mark.parametrize(
    "event",
    [
        # six and botocore have one of these for names of their own.
        Noticed(Notice.HOOKED, "six._SixMetaPathImporter"),
        Noticed(Notice.ENDED, "s.optional", "raised", "ImportError"),
        Noticed(Notice.MISSED, "simplejson"),
        Noticed(Notice.SHADOWED, "typing"),
        Noticed(Notice.COUNTED, "imports", text="8 ran"),
    ],
)
def test_what_harmless_packages_tell_is_no_finding(event: Noticed) -> None:
    assert judge(IMPORT, event) == ()


# --- harmless in an exact form only ---

COVERAGE = (
    'import sys; exec(\'import os\\n\\nif os.getenv("COVERAGE_PROCESS_START") or'
    ' os.getenv("COVERAGE_PROCESS_CONFIG"):\\n try:\\n  import coverage\\n except:\\n  pass\\n'
    ' else:\\n  coverage.process_startup(slug="pth")\')'
)
SETUPTOOLS = (
    "import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') =="
    " 'local'; enabled and __import__('_distutils_hack').add_shim(); "
)


COVERAGE = (
    r"import sys; exec('import os\n\nif os.getenv(\"COVERAGE_PROCESS_START\") or "
    r'os.getenv("COVERAGE_PROCESS_CONFIG"):\n try:\n  import coverage\n except:\n  pass\n else:'
    r"""\n  coverage.process_startup(slug="pth")')"""
)
ZOPE = (
    "import sys, types, os;p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('zope',));"
    "importlib = __import__('importlib.util');__import__('importlib.machinery');m ="
    " sys.modules.setdefault('zope', importlib.util.module_from_spec("
    "importlib.machinery.PathFinder.find_spec('zope', [os.path.dirname(p)])));m = m or"
    " sys.modules.setdefault('zope', types.ModuleType('zope'));mp = (m or []) and"
    " m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)"
)


@pytest.mark.parametrize("line", [COVERAGE, ZOPE])
def test_lines_that_many_have_are_known(line: str) -> None:
    assert is_known_startup(line)
    assert not is_known_startup(f"{line};import evil")


def test_a_known_startup_line_is_known_whole() -> None:
    assert is_known_startup(plain_text(SETUPTOOLS))
    assert is_known_startup(plain_text(COVERAGE))
    assert not is_known_startup(plain_text(COVERAGE).replace("import coverage", "import x"))
    for more in ("import evil", "exec('x')"):
        assert not is_known_startup(plain_text(SETUPTOOLS + more))
        assert not is_known_startup(plain_text(f"import os; {more}"))
    (finding,) = judge(Phase(PhaseName.INSTALL), StartupCode("/x.pth", plain_text(SETUPTOOLS)))
    assert finding.severity == Severity.INFO


def test_a_tool_reads_its_own_secret_and_no_other() -> None:
    path = f"{HOME_IN_JAIL}/.aws/credentials"
    assert is_own_secret(path, "boto3")
    for other, reader in ((path, "evil"), (path, None), (f"{HOME_IN_JAIL}/.ssh/id_rsa", "boto3")):
        assert not is_own_secret(other, reader)
    read = BaitRead(path, "/x.py:1", "botocore")
    severities = [judge(phase, read)[0].severity for phase in (IMPORT, CALL, EXECUTE)]
    assert severities == ["high", "info", "info"]


NETRC, PGPASS = f"{HOME_IN_JAIL}/.netrc", f"{HOME_IN_JAIL}/.pgpass"
GOOGLE = f"{HOME_IN_JAIL}/.config/gcloud/application_default_credentials.json"


@pytest.mark.parametrize(
    ("read", "severities"),
    [
        # requests looks for the host that it asks, whenever it asks one.
        (BaitRead(NETRC, "/requests/utils.py:3", "requests"), ["info"] * 4),
        (BaitRead(NETRC, "/evil.py:3", "evil"), ["high"] * 4),
        (BaitRead(NETRC, "setup.py:3", None), ["high"] * 4),
        # As a C library opens it that connects to a database.
        (BaitRead(PGPASS, None), ["medium", "medium", "info", "info"]),
        (BaitRead(PGPASS, "/asyncpg/x.py:3", "asyncpg"), ["high", "high", "info", "info"]),
        (BaitRead(GOOGLE, "/google/auth/x.py:3", "google-auth"), ["high", "high", "info", "info"]),
        (BaitRead(GOOGLE, None), ["high"] * 4),
    ],
)
def test_what_tools_read_by_themselves_is_no_theft(read: BaitRead, severities: list[str]) -> None:
    phases = (Phase(PhaseName.INSTALL), IMPORT, CALL, EXECUTE)
    assert [judge(phase, read)[0].severity for phase in phases] == severities


@pytest.mark.parametrize(
    ("command", "is_harmless"),
    [
        (("uname", "-p"), True),
        (("cat", "/proc/cpuinfo"), True),
        (("cat", "/proc/1/environ"), False),
        (("/bin/sh", "-c", "uname -p 2> /dev/null"), True),
        (("/sbin/ldconfig", "-p"), True),
        (("sysctl", "-n", "hw.ncpu"), True),
        (("gcc", "-Wl,-t", "-o", "/x/y", "-lfoo"), True),
        (("ld", *("-x" for _ in range(9000))), False),
        (("/bin/sh", "-c", "uname -p; curl x"), False),
        (("sysctl", "-w", "kernel.x=1"), False),
        (("/bin/sh", "-c", "paperconf -s 2> /dev/null"), True),
        (("pg_config", "--libdir"), True),
        (("g++", "-v"), True),
        (("gcc", "-v", "-o", "/home/dev/.local/bin/x"), False),
        ((*LSB_RELEASE, "-a"), True),
        ((*LSB_RELEASE, "-a; id"), False),
        (("system_profiler", "-xml", "SPFontsDataType"), True),
        (("system_profiler", "-xml", "SPFontsDataType; id"), False),
        (("id",), False),
        ((), False),
    ],
)
def test_a_look_at_the_system_is_exact(command: tuple[str, ...], is_harmless: bool) -> None:
    assert is_harmless_look(command) == is_harmless


# --- gates ---


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import os\nif os.name == 'nt':\n    os.system('x')\n", "system"),
        ("import sys\nWIN = sys.platform == 'win32'\nif WIN:\n    exec(code)\n", "system"),
        ("from datetime import date\nif date.today() > DAY:\n    exec(code)\n", "date"),
        ("import datetime as dt\nif dt.datetime.now() > X:\n    exec(code)\n", "date"),
        ("import os\nif os.environ.get('GITHUB_ACTIONS'):\n    exec(code)\n", "CI"),
        ("import os\nif 'CI' in os.environ:\n    exec(code)\n", "CI"),
        ("import sys\nif 'steal' in sys.argv:\n    exec(code)\n", "command line"),
        ("import socket\nif socket.gethostname() == 'build':\n    exec(code)\n", "machine"),
        ("import time\ndef f():\n    if time.time() < 9e9:\n        return\n    exec(x)\n", "date"),
        (
            "import os\ndef act():\n    open('.ssh/id_rsa')\nif os.name == 'nt':\n    act()\n",
            "system",
        ),
        ("import os; os.name == 'nt' and exec(code)\n", "system"),
        ("import os\nif os.getppid() != 1:\n    exec(code)\n", "parent"),
        ("import os\nif '/home' in os.environ['PATH']:\n    exec(code)\n", "environment"),
        ("import os\nif os.getenv('SSH_TTY'):\n    exec(code)\n", "environment"),
        ("import sys\nif sys.prefix != sys.base_prefix:\n    exec(code)\n", "environment"),
        ("import sys\nif sys.version_info < (3, 8):\n    exec(code)\n", "Python version"),
        (
            "import sys\nif sys.version_info[0] == 3:\n    pass\nelse:\n    exec(x)\n",
            "Python version",
        ),
        (
            "import sys\ndef f():\n    if sys.version_info > (3,):\n        return\n    exec(x)\n",
            "Python version",
        ),
        ("import os\nif os.path.isdir('/var/lib/x'):\n    exec(code)\n", "files"),
        ("import random\nif random.random() < 0.1:\n    exec(code)\n", "chance"),
        (
            "from importlib.util import find_spec\nif find_spec('x'):\n    exec(code)\n",
            "other projects",
        ),
        ("import sys\nmatch sys.platform:\n    case 'win32':\n        exec(x)\n", "system"),
        # Any variable, and whatever else tells this place from another.
        ("import os\nDEBUG = os.environ.get('DEBUG')\nif DEBUG:\n    exec(code)\n", "environment"),
        (
            "import os\ntry:\n    os.environ['X']\n    exec(x)\nexcept KeyError: pass\n",
            "environment",
        ),
        ("import os\ndef f():\n    return os.getenv('X')\nif f():\n    exec(x)\n", "environment"),
        ("import sys\nif hasattr(sys, 'ps1'):\n    exec(x)\n", "company"),
        ("try:\n    get_ipython()\n    exec(x)\nexcept NameError: pass\n", "company"),
        ("import inspect\nif 'x' in str(inspect.stack()):\n    exec(x)\n", "company"),
        ("import os\nif os.sep == '\\\\':\n    exec(x)\n", "system"),
        ("import pathlib\nif (pathlib.Path.home() / 'x').exists():\n    exec(x)\n", "files"),
        ("import os\nif os.path.exists(os.path.join(h, '.electrum')):\n    exec(x)\n", "files"),
        ("import os\np = h + '/.config/gcloud/x'\nif os.access(p, 4):\n    exec(x)\n", "files"),
        ("import os\np = h / '.netrc'\nif p.is_file():\n    exec(x)\n", "files"),
        ("try:\n    open('/opt/x')\n    exec(x)\nexcept OSError: pass\n", "files"),
        ("import time\nif time.monotonic() - t > 60:\n    exec(x)\n", "date"),
        ("if __name__ == '__main__':\n    exec(x)\n", "run as a program"),
        ("import os; exec(\"if os.name == 'nt': exec(code)\")\n", "system"),
    ],
)
def test_an_act_behind_a_condition_is_found(source: str, kind: str) -> None:
    assert {found for found, _, _ in gates_of(source)} == {kind}


@pytest.mark.parametrize(
    "source",
    [
        "import os\nif os.name == 'nt':\n    import winreg\nelse:\n    winreg = None\n",
        "import sys\nif sys.platform == 'win32':\n    SEP = ';'\n",
        "import os\nDEBUG = os.environ.get('DEBUG')\nif DEBUG:\n    print(code)\n",
        "import os\ntry:\n    X = os.environ['X']\nexcept KeyError:\n    X = None\n",
        "if __name__ == '__main__':\n    print('ran')\n",
        "import time\nSTART = time.time()\n",
        # What was run here waits for nothing.
        "import sys\nif sys.version_info >= (3, 8):\n    exec(code)\n",
        "import sys\nif not sys.version_info[:2] < (3, 8):\n    exec(code)\n",
        "import sys\nif sys.version_info.major < 3:\n    raise SystemExit\nexec(code)\n",
        "import os\nif name == 'PATH':\n    exec(code)\n",
        "if x:\n    exec(code)\n",
        "match x:\n    case 1:\n        exec(code)\n",
        "import os\nif os.path.isdir(path):\n    exec(code)\n",
        "import os\np = h + '/.config/mine'\nif os.path.exists(p):\n    exec(code)\n",
        "import os\nif os.path.exists(os.path.join(h, 'wallet.py')):\n    exec(code)\n",
        "import random\nSEED = random.random()\n",
        "if (" * 3000,
        "\0",
    ],
)
def test_what_many_do_on_a_condition_is_no_gate(source: str) -> None:
    assert [*gates_of(source)] == []


def test_gates_are_told_with_their_lines_in_pth_files_too(tmp_path: Path) -> None:
    tell = tmp_path / "tell"
    tell.write_text("")
    site = tmp_path / "site"
    site.mkdir()
    (site / "x.pth").write_text("a/folder\nimport os; os.name == 'nt' and exec('x')\n")
    (site / "mod.py").write_text("import sys\n\nif sys.argv[1:]:\n    exec(sys.argv[1])\n")
    missing = "try:\n    import numpy\n    exec(x)\nexcept ImportError: pass\n"
    assert [*gates_of(missing, there={"os"})] == [("other projects", 2, "exec(x)")]
    assert [*gates_of(missing, there={"numpy"})] == [*gates_of(missing)] == []
    tell_gates(str(tell), str(site), ["mod", "not.there"])
    told = [json.loads(line) for line in tell.read_text().splitlines()]
    places = {line["what"]: line["at"].removeprefix(f"{site}/") for line in told}
    assert places == {"system": "x.pth:2", "command line": "mod.py:3"}


@pytest.mark.parametrize("more", [0, 2])
def test_that_there_were_more_gates_than_are_told_makes_no_green(tmp_path: Path, more: int) -> None:
    tell = tmp_path / "tell"
    tell.write_text("")
    gate = "import sys\nif sys.argv[1:]: exec(x)\n"
    (tmp_path / "mod.py").write_text(gate * (MAX_GATES + more))
    tell_gates(str(tell), str(tmp_path), ["mod"])
    told = [json.loads(line) for line in tell.read_text().splitlines()]
    events = [Noticed(Notice.GATED, said["what"], text=said["text"]) for said in told]
    report = report_of(*events, mode="import")
    cut = [gap for gap in report.gaps if "2 more acts are behind conditions" in gap]
    assert len(cut) == (1 if more else 0)
    assert {group.finding.severity for group in report.groups} == {Severity.INFO}


# --- endings ---


def test_watch_knows_the_launcher_s_codes() -> None:
    codes = (endings.ALL_JOBS_RAN, endings.SOME_JOBS_LEFT, endings.SOME_JOBS_NOT_RUN)
    assert codes == (supervise.ALL_RAN, supervise.SOME_LEFT, supervise.SOME_NOT_RUN)


@pytest.mark.parametrize(
    ("status", "outcome", "falls_short"),
    [
        (0, "ok", False),
        (80, "ok", True),
        (81, "ok", True),
        (1, "failed", False),
        (9, "failed", False),
    ],
)
def test_the_launcher_s_own_code_tells_how_many_jobs_went(
    status: int, outcome: str, falls_short: bool
) -> None:
    phase = Phase(PhaseName.IMPORT, "all modules")
    trigger = Trigger(PhaseName.IMPORT, "all modules", ("imports",))
    end_phase(phase, trigger, (0, None), status, SETTINGS)
    assert (phase.outcome, bool(phase.shortfall)) == (outcome, falls_short)


@pytest.mark.parametrize(
    ("duration_sec", "signal", "outcome"),
    [(31.0, "SIGXCPU", "timeout"), (31.0, "SIGKILL", "timeout"), (0.1, "SIGKILL", "failed")],
)
def test_who_used_up_its_cpu_time_has_timed_out(
    duration_sec: float, signal: str, outcome: str
) -> None:
    """And not who kills itself at once."""
    phase = Phase(PhaseName.IMPORT, "x", duration_sec=duration_sec)
    trigger = Trigger(PhaseName.IMPORT, "x", ("import",))
    end_phase(phase, trigger, (None, signal), 137, SETTINGS._replace(rlimit_cpu_sec=30))
    assert (phase.outcome, "RLIMIT_CPU_SEC" in phase.reason) == (outcome, outcome == "timeout")
    assert phase.outcome in (Outcome.TIMEOUT, Outcome.FAILED)


# --- what takes the place of others ---


def test_only_wheels_that_fit_are_installed_later() -> None:
    assert FITTING.fullmatch("chardet-5.2.0-py3-none-any.whl")
    assert FITTING.fullmatch("x-1.0-py2.py3-none-any.whl")
    for name in ("x-1.0.tar.gz", "x-1.0-cp27-cp27m-linux_x86_64.whl", "x-1-cp311-cp311-win32.whl"):
        assert not FITTING.fullmatch(name)
    assert "requests" not in NOT_NEEDED


def test_a_stand_in_has_each_version_that_there_is() -> None:
    names = ["a_b-1.0-py3-none-any.whl", "a_b-1.1rc1.tar.gz", "a_b-1.0.tar.gz", "odd", "a-.whl"]
    assert versions_of(names) == ["1.0", "1.1rc1"]
    name, data = stand_in("a-b", "1.0")
    assert name == "a_b-1.0-py3-none-any.whl"
    assert stand_in("a-b", "1.0")[1] == data
