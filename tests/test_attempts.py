"""What fails is told: looks for secrets that are not there, writes where nobody can, walks through
the home, signs of a sandbox. Each with a harmless relative that stays clean."""

# ruff: noqa: S108 - the paths are those of the jail

import json

import pytest

from jail.orders import HOME_IN_JAIL, PYTHON_IN_JAIL, WORK_IN_JAIL
from jail.report.places import what_waits_at
from jail.report.rules import judge
from jail.report.techniques import technique_in
from jail.watch.attempts import MANY_FOLDERS, MAX_ATTEMPTS, MAX_PATHS, Attempts, Opened
from jail.watch.credential_stores import CREDENTIAL_STORES, store_of
from jail.watch.events import (
    Actor,
    Change,
    Connection,
    Event,
    Exec,
    FileChanged,
    Finding,
    Net,
    Phase,
    PhaseName,
    Rule,
    Severity,
)
from jail.watch.noticed import LookedInto, Notice, Noticed, Sought
from jail.watch.python_witness import PythonWitness

HIGH, MEDIUM, INFO = Severity.HIGH, Severity.MEDIUM, Severity.INFO
READ, WRITE, LIST = Opened.READ, Opened.WRITE, Opened.LIST
REMOVE, FOLDER = Opened.REMOVE, Opened.FOLDER
SITE = f"{WORK_IN_JAIL}/site/a-1.0/lib/python3.11/site-packages"


def findings(name: PhaseName, *opened: tuple[Opened, str]) -> list[Finding]:
    """What is said of a phase in which Python opened these paths; `~` is the home."""
    attempts = Attempts()
    for number, (how, path) in enumerate(opened):
        attempts.note(how, path.replace("~", HOME_IN_JAIL, 1), f"/x.py:{number}")
    return [found for event in attempts.events() for found in judge(Phase(name), event)]


REFUSED = {
    "/etc/cron.d/x": ("scheduled jobs", HIGH, "T1053.003"),
    "/etc/ld.so.preload": ("loaded into every program", HIGH, "T1574.006"),
    "/etc/systemd/system/x.service": ("machine's services", HIGH, "T1543.002"),
    "/etc/profile.d/x.sh": ("login of everybody", HIGH, "T1546.004"),
    "/etc/sudoers.d/x": ("accounts and rights", HIGH, "T1098"),
    "/etc/hosts": ("names and certificates of the machine", HIGH, "T1565.001"),
    "/usr/local/bin/git": ("programs of the machine", HIGH, "T1554"),
    "/etc/claude-code/managed-settings.json": ("agent's or editor's", HIGH, "T1546"),
    f"{PYTHON_IN_JAIL}/lib/python3.11/site-packages/x.pth": ("installed code", HIGH, "T1554"),
    "/usr/lib/python3/dist-packages/six.py": ("installed code", HIGH, "T1554"),
    "/usr/lib/python3.11/os.py": ("installed code", HIGH, "T1554"),
    "/usr/lib/x86_64-linux-gnu/libc.so.6": ("loaded into every program", HIGH, "T1574.006"),
    "/etc/NetworkManager/dispatcher.d/x": ("machine's services", HIGH, "T1543.002"),
    "/etc/environment.d/x.conf": ("login of everybody", HIGH, "T1546.004"),
    "/proc/sys/kernel/core_pattern": ("settings of the kernel", HIGH, "T1611"),
    "/usr/share/x": ("outside of what is its own", MEDIUM, "T1546"),
    "/var/tmp/x": ("outside of what is its own", MEDIUM, "T1546"),
    "/etc/x.conf": ("outside of what is its own", MEDIUM, "T1546"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_a_write_that_is_refused_is_told(path: str) -> None:
    kind, severity, technique = REFUSED[path]
    (found,) = findings(PhaseName.IMPORT, (WRITE, path))
    assert (found.severity, found.rule) == (severity, Rule.PERSISTENCE_WRITE)
    assert found.title.startswith(f"tries to write {path} ({kind}")
    assert found.title.endswith("): refused")
    assert found.place == "/x.py:0" and technique_in(found) == technique


@pytest.mark.parametrize(
    "path",
    [
        *("/tmp/x", "/dev/shm/x", "~/x", "/dev/null", "/dev/tty", "/proc/self/comm"),
        *(f"{SITE}/a/cache.json", f"{WORK_IN_JAIL}/tmp/x", "/x", "/home/else/x", "/run/x.pid"),
    ],
)
def test_a_write_that_may_succeed_or_is_nobody_s_news_is_not(path: str) -> None:
    assert findings(PhaseName.IMPORT, (WRITE, path)) == []


def test_what_a_function_installs_for_who_calls_it_is_only_told() -> None:
    service = "/etc/systemd/system/tool.service"
    words = {WRITE: f"tries to write {service} ", REMOVE: f"tries to remove {service} "}
    for how, title in words.items():
        for phase, severity in ((PhaseName.CALL, INFO), (PhaseName.IMPORT, HIGH)):
            (found,) = findings(phase, (how, service))
            assert found.severity is severity
            assert found.title.startswith(title)
    # Who does both is told of both.
    both = findings(PhaseName.IMPORT, (WRITE, service), (REMOVE, service))
    assert len(both) == 2
    assert findings(PhaseName.IMPORT, (REMOVE, "~/x"), (REMOVE, "/tmp/x")) == []


def test_a_folder_is_no_persistence_and_a_file_in_it_is() -> None:
    assert findings(PhaseName.IMPORT, (FOLDER, "/etc/cron.d")) == []
    (found,) = findings(PhaseName.IMPORT, (FOLDER, "/etc/cron.d"), (WRITE, "/etc/cron.d/x"))
    assert found.severity is HIGH


@pytest.mark.parametrize("store", CREDENTIAL_STORES, ids=lambda store: store.kind)
def test_each_store_of_credentials_is_known_by_its_paths(store: object) -> None:
    assert isinstance(store, type(CREDENTIAL_STORES[0]))
    for word in store.paths.split():
        path = word.replace("*", "/x" if word.endswith("e*") else "x").replace("?", " ")
        found = store_of(path if path.startswith("/") else f"{HOME_IN_JAIL}/{path}")
        assert found is not None and store.source, word


SOUGHT = {
    "/etc/shadow": ("accounts of the machine", HIGH),
    "~/.config/discord/Local Storage/leveldb": ("chat or mail", HIGH),
    "~/.mozilla/firefox/x.default/logins.json": ("browser", HIGH),
    "~/.config/solana/id.json": ("wallet", HIGH),
    "~/.local/share/keyrings/login.keyring": ("password manager", HIGH),
    "~/.npmrc": ("npm", MEDIUM),
    "~/.netrc": ("netrc", MEDIUM),
    "~/.config/gcloud/credentials.db": ("Google Cloud", MEDIUM),
    "~/.azure/msal_token_cache.json": ("Azure", MEDIUM),
    "~/.config/gh/hosts.yml": ("GitHub and GitLab", MEDIUM),
    "/run/secrets/kubernetes.io/serviceaccount/token": ("Kubernetes service account", HIGH),
    "/var/run/secrets/kubernetes.io/serviceaccount/namespace": ("Kubernetes", MEDIUM),
    "~/.ssh/id_ecdsa": ("ssh and gpg keys", HIGH),
    "~/.bash_history": ("shell history", MEDIUM),
    "/home/ubuntu/.aws/credentials": ("AWS", MEDIUM),
    "/root/.config/solana/id.json": ("wallet", HIGH),
    "/mnt/c/Users/mary/AppData/Roaming/Exodus/x": ("wallet", HIGH),
    "/proc/77/environ": ("variables of processes", MEDIUM),
    "/proc/77/mem": ("memory of processes", HIGH),
    "~/projects/app/.env": ("settings of a project", MEDIUM),
    "~/C:\\\\Users\\\\dev\\\\AppData\\\\Roaming\\\\discord\\\\x": ("chat or mail", HIGH),
}


@pytest.mark.parametrize("path", SOUGHT)
def test_a_look_for_a_secret_that_is_not_there_is_told(path: str) -> None:
    kind, severity = SOUGHT[path]
    (found,) = findings(PhaseName.IMPORT, (READ, path))
    assert (found.severity, found.rule) == (severity, Rule.SECRET_READ)
    assert found.title.startswith(f"looks for secrets of {kind}: /")
    assert technique_in(found) == "T1552.001"


CLOUDS = [(READ, "~/.netrc"), (READ, "~/.config/gcloud/access_tokens.db"), (READ, "~/.azure/x")]
THIEF = [*CLOUDS, (READ, "~/.npmrc"), (READ, "~/.netrc"), (READ, "~/.pgpass"), (READ, "~/.s3cfg")]


def test_a_thief_s_list_is_one_act() -> None:
    (found,) = findings(PhaseName.IMPORT, *THIEF)
    assert found.severity is HIGH
    home = HOME_IN_JAIL
    names = f"{home}/.netrc, {home}/.config/gcloud/access_tokens.db, {home}/.azure/x, {home}/.npmrc"
    stores = "netrc, Google Cloud, Azure, npm, databases, hosting"
    assert found.title.startswith(f"looks for secrets of {stores}: {names}")
    assert [found.severity for found in findings(PhaseName.EXECUTE, *THIEF)] == [HIGH]
    assert [found.severity for found in findings(PhaseName.CALL, *THIEF)] == [MEDIUM]


def test_a_library_that_serves_many_clouds_is_no_thief() -> None:
    assert [found.severity for found in findings(PhaseName.IMPORT, *CLOUDS)] == [MEDIUM]
    wallet = (READ, "~/.config/solana/id.json")
    assert [found.severity for found in findings(PhaseName.IMPORT, *CLOUDS, wallet)] == [HIGH]


def test_a_cloud_s_settings_are_no_secret() -> None:
    for name in (".config/gcloud/configurations/config_default", "AppData/Roaming/gcloud/x.json"):
        assert findings(PhaseName.IMPORT, (READ, f"~/{name}")) == []


def test_a_program_or_a_function_that_looks_for_its_own_is_only_told() -> None:
    for phase in (PhaseName.CALL, PhaseName.EXECUTE):
        (found,) = findings(
            phase, (READ, "~/.config/gcloud/access_tokens.db"), (LIST, "~/.config/gcloud")
        )
        assert found.severity is INFO


@pytest.mark.parametrize(
    "path",
    [
        *("~/.cache/a/x", "~/.config/black", "~/.config/matplotlib/rc", "~/.gitconfig", "~/a.txt"),
        *("/etc/passwd", "/etc/hosts", "/etc/os-release", "/proc/cpuinfo", "/proc/meminfo"),
        *("~/.condarc", "/etc/mime.types", "/proc/stat", "/usr/share/zoneinfo/tzdata.zi"),
        *("/proc/77/cmdline", "/proc/modules", "~/.envrc.sample", "~/projects/.environment"),
    ],
)
def test_what_harmless_programs_read_is_not(path: str) -> None:
    assert findings(PhaseName.IMPORT, (READ, path)) == []


def test_a_decoy_tells_by_itself_that_it_was_read() -> None:
    attempts = Attempts()
    attempts.there = frozenset([f"{HOME_IN_JAIL}/.pypirc"])
    attempts.note(READ, f"{HOME_IN_JAIL}/.pypirc", "/x.py:1")
    assert [*attempts.events()] == []


def test_a_walk_through_the_home_is_told_and_a_look_into_a_few_folders_is_not() -> None:
    folders = ["~", *(f"~/folder-{number}" for number in range(MANY_FOLDERS - 1))]
    (found,) = findings(PhaseName.IMPORT, *((LIST, folder) for folder in folders))
    assert (found.severity, found.rule) == (MEDIUM, Rule.SECRET_READ)
    assert found.title.startswith(f"walks through the home, {MANY_FOLDERS} folders: {HOME_IN_JAIL}")
    assert technique_in(found) == "T1083"
    (asked_for,) = findings(PhaseName.EXECUTE, *((LIST, folder) for folder in folders))
    assert asked_for.severity is INFO
    few = folders[1:]
    own = [f"~/.cache/a/{number}" for number in range(50)]
    assert findings(PhaseName.IMPORT, *((LIST, folder) for folder in few + own)) == []


def test_signs_of_a_sandbox_are_told() -> None:
    status = (READ, "/proc/self/status")
    identity, maker = (READ, "/etc/machine-id"), (READ, "/sys/class/dmi/id/product_name")
    (found,) = findings(PhaseName.IMPORT, status)
    assert (found.severity, found.rule) == (INFO, Rule.CODE_GATED)
    assert found.title == "looks at whether it is traced: /proc/self/status"
    assert technique_in(found) == "T1497.001"
    (curious,) = findings(PhaseName.IMPORT, identity, maker, (READ, "/proc/uptime"))
    assert curious.severity is MEDIUM
    (told,) = findings(PhaseName.CALL, identity, maker, (READ, "/proc/uptime"))
    assert told.severity is INFO


def test_what_everybody_reads_counts_beside_a_sign_and_not_alone() -> None:
    everyday = [(READ, "/proc/cpuinfo"), (READ, "/proc/7/cmdline"), (READ, "/proc/modules")]
    assert findings(PhaseName.IMPORT, *everyday) == []
    (curious,) = findings(PhaseName.IMPORT, (READ, "/proc/uptime"), *everyday)
    assert curious.severity is MEDIUM
    assert "the processors" in curious.title


COMMANDS = {
    "cat /home/dev/.netrc": ("netrc", MEDIUM),
    "sh -c cp -r ~/.config/Signal /tmp/x": ("chat or mail", HIGH),
    "sh -c tar czf - $HOME/.azure | wc -c": ("Azure", MEDIUM),
    "dd if=/etc/shadow of=/tmp/x": ("accounts of the machine", HIGH),
}
HARMLESS_COMMANDS = [
    *("cat /home/dev/notes.txt", "git config --global user.name", "ls -la", "grep -r x src"),
    *("docker --config /home/dev/.docker build .", "sh -c command -v git", "cp a b"),
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_takes_secrets_is_told(line: str) -> None:
    attempts = Attempts()
    attempts.note_command(line, "/x.py:3")
    (event,) = attempts.events()
    (found,) = judge(Phase(PhaseName.IMPORT), event)
    kind, severity = COMMANDS[line]
    assert found.title.startswith(f"looks for secrets of {kind}: /") and found.place == "/x.py:3"
    assert found.severity is severity


def test_a_command_that_takes_none_or_a_decoy_is_not() -> None:
    attempts = Attempts()
    attempts.know_home([f"{HOME_IN_JAIL}/.npmrc"], [])
    for line in [*HARMLESS_COMMANDS, f"cat {HOME_IN_JAIL}/.npmrc"]:
        attempts.note_command(line, "/x.py:3")
    assert [*attempts.events()] == []


def test_a_command_that_takes_a_decoy_which_tells_nothing_itself_is() -> None:
    """pip and git look into .netrc, and nobody hears who did: a command's own words say it."""
    attempts = Attempts()
    attempts.know_home([f"{HOME_IN_JAIL}/.netrc"], [])
    attempts.note(READ, f"{HOME_IN_JAIL}/.netrc", "/requests/utils.py:3")
    assert [*attempts.events()] == []
    attempts.note_command(f"cat {HOME_IN_JAIL}/.netrc", "/x.py:3")
    assert [event.stores for event in attempts.events() if isinstance(event, Sought)] == [
        ("netrc",)
    ]


WRITES = {
    ("tee", "-a", "/etc/crontab"): HIGH,
    ("sh", "-c", "echo '* * * * * root x' > /etc/cron.d/x"): HIGH,
    ("cp", "/srv/x.sh", "/etc/profile.d/x.sh"): HIGH,
    ("sh", "-c", "id; ln -s /srv/x /etc/systemd/system/x.service; id"): HIGH,
    ("cp", "/etc/profile.d/x.sh", "/srv/x.sh"): MEDIUM,
    ("sh", "-c", "cat /etc/hosts > /tmp/hosts"): MEDIUM,
    ("ls", "/etc/cron.d"): MEDIUM,
}


@pytest.mark.parametrize("argv", WRITES)
def test_a_command_that_writes_where_code_waits_for_others_is_grave(argv: tuple[str, ...]) -> None:
    event = Exec(f"/usr/bin/{argv[0]}", argv, None, Actor(7, "python x.py"))
    (found,) = judge(Phase(PhaseName.IMPORT), event)
    assert (found.rule, found.severity) == (Rule.PROCESS_SPAWN, WRITES[argv])


def changed(path: str, change: Change, phase: PhaseName, place: str) -> list[Finding]:
    was_there = path.endswith(("notes.txt", ".netrc"))
    event = FileChanged(path, change, 3, place, was_there=was_there)
    return [*judge(Phase(phase), event)]


def test_who_changes_somebody_s_own_files_is_told() -> None:
    at, own = f"{SITE}/a/__init__.py:3", f"{HOME_IN_JAIL}/Documents/notes.txt"
    for change in (Change.MODIFIED, Change.DELETED):
        (found,) = changed(own, change, PhaseName.IMPORT, at)
        assert (found.severity, found.rule) == (HIGH, Rule.PERSISTENCE_WRITE)
        assert found.title == f"{change} {own} (somebody's own file)"
        assert technique_in(found) == "T1485"
    # What it has made itself it may change.
    for change in Change:
        assert changed(f"{HOME_IN_JAIL}/Documents/made", change, PhaseName.IMPORT, at) == []


def test_a_tool_that_is_called_sets_up_its_own_place() -> None:
    path = f"{HOME_IN_JAIL}/.jupyter/jupyter_config.py"
    for module, phase, severity in (
        ("jupyter_core", PhaseName.CALL, INFO),
        ("jupyter_core", PhaseName.IMPORT, HIGH),
        ("evil", PhaseName.CALL, HIGH),
    ):
        (found,) = changed(path, Change.CREATED, phase, f"{SITE}/{module}/application.py:3")
        assert found.severity is severity
    # `wandb.login()`
    for module, phase, severity in (
        ("wandb", PhaseName.CALL, INFO),
        ("wandb", PhaseName.IMPORT, HIGH),
        ("evil", PhaseName.CALL, HIGH),
    ):
        netrc = f"{HOME_IN_JAIL}/.netrc"
        (found,) = changed(netrc, Change.MODIFIED, phase, f"{SITE}/{module}/login.py:3")
        assert found.severity is severity


HOOKS_OF_OTHERS = """
.claude/settings.local.json work/x/CLAUDE.md .codex/config.toml work/x/.codex/config.toml
work/x/.github/copilot-instructions.md work/x/.github/prompts/x.prompt.md work/x/.windsurf/rules/x
.windsurf/mcp_config.json work/x/.cursorrules work/x/.vscode/settings.json work/x/.zed/tasks.json
work/x/.idea/workspace.xml .config/JetBrains/PyCharm2026.1/options/x.xml work/x/.git/hooks/pre-push
work/x/.pre-commit-config.yaml work/x/.envrc work/x/lefthook.yml work/x/Jenkinsfile work/x/.rules
work/x/.gitea/workflows/x.yml work/x/azure-pipelines.yml work/x/.agents/skills/x/SKILL.md
.agents/skills/x/SKILL.md work/x/opencode.json work/x/.continue/config.yaml .factory/mcp.json
work/x/.junie/guidelines.md Documents/Cline/Rules/x.md .config/Code/User/prompts/x.md
work/x/mise.toml work/x/.cargo/config.toml work/x/.nvim.lua .openclaw/x .warp/x.yaml
"""
NO_HOOKS = """
work/x/README.md work/x/rules.md work/x/.github/ISSUE_TEMPLATE.md work/x/.gitignore work/x/x.toml
work/x/settings.json .config/black Documents/notes.md .cache/zed/x work/x/.editorconfig
"""


def test_hooks_of_agents_editors_and_builds_are_known() -> None:
    for path in HOOKS_OF_OTHERS.split():
        assert what_waits_at(f"{HOME_IN_JAIL}/{path}"), path
    for path in NO_HOOKS.split():
        assert what_waits_at(f"{HOME_IN_JAIL}/{path}") is None, path


def test_who_looks_into_processes_is_told() -> None:
    (found,) = judge(Phase(PhaseName.IMPORT), Noticed(Notice.TRACES, "ptrace", place="/x.py:3"))
    assert (found.severity, found.rule) == (MEDIUM, Rule.EVIDENCE_TAMPER)
    assert technique_in(found) == "T1622"


@pytest.mark.parametrize(
    ("call", "technique"),
    [
        ("ptrace(PTRACE_TRACEME)", "T1622"),
        ("ptrace(PTRACE_ATTACH)", "T1055.008"),
        ("process_vm_readv", "T1003"),
        ("process_vm_writev", "T1055"),
    ],
)
def test_what_compiled_code_asks_the_kernel_is_told_as_what_python_asks_for(
    call: str, technique: str
) -> None:
    (found,) = judge(Phase(PhaseName.IMPORT), LookedInto(call, "tool --go"))
    assert (found.severity, found.rule) == (MEDIUM, Rule.EVIDENCE_TAMPER)
    assert found.title == f"calls {call}, by which processes look into each other"
    assert (found.process, technique_in(found)) == ("tool --go", technique)


SOCKETS = {
    "/var/run/docker.sock": (MEDIUM, "containers"),
    "/run/user/1000/podman/podman.sock": (MEDIUM, "containers"),
    "/tmp/ssh-x1/agent.17": (MEDIUM, "ssh agent"),
    "/run/user/1000/gnupg/S.gpg-agent": (MEDIUM, "gpg agent"),
    "/run/user/1000/bus": (INFO, "session bus"),
    "@/tmp/dbus-x": (INFO, "session bus"),
    "/tmp/pymp-x/listener": (INFO, ""),
    "/dev/log": (INFO, ""),
}


@pytest.mark.parametrize("path", SOCKETS)
def test_who_asks_the_machine_s_services_is_told(path: str) -> None:
    severity, service = SOCKETS[path]
    event = Connection(Net.OTHER, f"unix:{path}", False, "ENOENT", Actor(7, "python x.py"))
    (found,) = judge(Phase(PhaseName.IMPORT), event)
    assert (found.severity, found.rule) == (severity, Rule.NETWORK_ATTEMPT)
    words = f" (the machine's {service})" if service else ""
    assert found.title == f"uses unix:{path}{words}"


def test_a_flood_is_bounded_and_counted() -> None:
    attempts = Attempts()
    for number in range(MAX_ATTEMPTS + 7):
        attempts.note(READ, f"{HOME_IN_JAIL}/.azure/{number}", "/x.py:1")
    (event,) = attempts.events()
    assert attempts.lost == 7
    assert len(getattr(event, "paths")) == MAX_PATHS  # noqa: B009


def test_the_lines_of_the_hook_lead_there() -> None:
    told: list[Event] = []

    def take(event: Event, _: float | None) -> bool:
        told.append(event)
        return True

    witness = PythonWitness(take)
    for how, path in (("write", "/etc/cron.d/x"), ("read", "/etc/shadow"), ("list", "/etc/x")):
        line = {"event": "open", "pid": 7, "what": path, "at": "/x.py:4", "how": how}
        witness.take(json.dumps(line).encode() + b"\n")
    witness.take(b'{"event": "open", "pid": 7, "what": "/x", "at": "/x.py:4", "how": "eaten"}\n')
    witness.finish()
    found = [finding for event in told for finding in judge(Phase(PhaseName.IMPORT), event)]
    assert [finding.rule for finding in found] == [Rule.PERSISTENCE_WRITE, Rule.SECRET_READ]
    assert witness.malformed == 1
