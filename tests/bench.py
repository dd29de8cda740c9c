"""How long a run takes, from the POST to the finished report, beside a plain `pip install --target`
by the same pip; and what the service itself costs.

    python tests/bench.py [--quick] [--rounds N] [--mode M] [--cold] [--against PLACE] [NAME==V ...]

A script, not a test: it needs the index. Both sides take turns, so that whatever else the machine
does hits both alike; a first round, not counted, fills the caches. The plain side runs as people
run it, from pip's own cache. With --against the other side is the same run by another checkout;
then a second line tells the times without the triggers that only one of the two has. With --cold no
run is made ready before its request. Beside the time stands the processor's time, which is steadier
where the machine has other work. Only root can see the memory of the service.
"""

import argparse
import http.client
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from conftest import CERTIFICATES, ROOT, Service, Snakehook, free_port, open_folder, serving
from standins import Discord, wait_for

# docopt is published as source only: pip builds a wheel of it, here each time.
PACKAGES = ("six==1.17.0", "requests==2.32.3", "black==24.10.0", "numpy==2.1.3", "docopt==0.6.2")
QUICK_PACKAGES = PACKAGES[:2]
RUN_SEC = 300
REST_SEC = 1.0  # before each side's turn: the other's last processes have gone
READY_PROCESSES = 7  # keeper's, the run keeper's and its watch among them
ROW = "{:<18} {:>7} {:>13} {:>7} {:>13} {:>6} {:>7} {:>7} {:>6} {:>6}"
BARE = (
    "import falcon, waitress\n"
    "class Health:\n"
    "    def on_get(self, request, response):\n"
    "        response.media = {'status': 'ok'}\n"
    "app = falcon.App()\n"
    "app.add_route('/healthz', Health())\n"
    "waitress.serve(app, listen='127.0.0.1:{port}', _quiet=True)\n"
)


def make_plain_python(folder: Path) -> Path:
    """An interpreter with the pip that the jail has, compiled as pip compiles what it installs."""
    sys.path.insert(0, str(ROOT))
    from snakehook import find_package, load_settings

    settings = load_settings(os.environ, service=False)
    venv = folder / "venv"
    command = [settings.jail_python_name, "-I", "-m", "venv", "--without-pip", str(venv)]
    subprocess.run(command, check=True)
    (library,) = venv.glob("lib/python3*/site-packages")
    pip = Path(find_package("pip"))
    for source in (pip, *pip.parent.glob("pip-*.dist-info")):
        shutil.copytree(source, library / source.name)
    python = venv / "bin" / "python"
    subprocess.run([str(python), "-m", "compileall", "-q", str(library)], check=True)
    return python


@dataclass(frozen=True)
class Cost:
    """What one installation or run took: of a person's time, of the processors'."""

    seconds: float
    processor_sec: float


def plain(python: Path, cache: Path, requirement: str) -> Cost:
    """A plain `pip install` into a fresh folder, without the wheels that it built before."""
    shutil.rmtree(cache / "wheels", ignore_errors=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    # The same one index on both sides.
    variables |= {"PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": str(cache)}
    with tempfile.TemporaryDirectory() as target:
        words = [str(python), "-m", "pip", "install", "--quiet", "--target", target, requirement]
        begun, used = time.monotonic(), children_sec()
        subprocess.run(words, env=variables, check=True, stdin=subprocess.DEVNULL)
        return Cost(time.monotonic() - begun, children_sec() - used)


def children_sec() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def keeper_sec(service: Service) -> float:
    """What the processors did for keeper's own and for all runs that it has buried."""
    (keeper,) = children(service.process.pid)
    # "4242 (python) S 1 ...": utime, stime, cutime, cstime are the 14th to the 17th.
    fields = Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def run(service: Service, requirement: str, mode: str) -> tuple[Cost, dict[str, Any]]:
    """A run by a service: from the POST until the store has the finished report."""
    used = keeper_sec(service)
    name, _, version = requirement.partition("==")
    answer = service.post({"package_name": name, "version": version, "mode": mode})
    assert answer.status == 202, answer
    report = service.finished(answer.json["run_id"], RUN_SEC)
    assert report["outcome"] == "ok", (requirement, report["outcome"], report["reason"])
    ends = [datetime.fromisoformat(report[key]) for key in ("submitted_at", "finished_at")]
    time.sleep(REST_SEC)  # it is buried, and the next may be made ready
    seconds = (ends[1] - ends[0]).total_seconds()
    return Cost(seconds, keeper_sec(service) - used), report


@contextmanager
def running(
    checkout: Path, folder: Path, discord: Discord, **settings: object
) -> Iterator[Service]:
    """A service of a checkout, with the real index and a Discord of our own."""
    environment = {name: os.environ[name] for name in ("PATH", *CERTIFICATES) if name in os.environ}
    for name in ("state", "cache"):
        (folder / name).mkdir(parents=True)
    environment |= {
        "HOME": str(folder),
        "STATE_DIR": str(folder / "state"),
        "PIP_CACHE_DIR": str(folder / "cache"),
        "DISCORD_WEBHOOK_URL": discord.url,
        "LOG_LEVEL": "WARNING",
        "PYTHONPATH": str(checkout),
    }
    program = Snakehook([sys.executable, str(checkout / "snakehook.py")], environment)
    with serving(program, folder / "log", **settings) as service:
        yield service


Report = dict[str, Any]


def triggers_of(report: Report) -> Counter[tuple[str, str | None]]:
    return Counter((phase["name"], phase["trigger"]) for phase in report["phases"])


def same_triggers_sec(run_sec: float, report: Report, other: Report) -> float:
    """What a run took without the triggers that the other has not; of two alike the second goes."""
    shared = triggers_of(report) & triggers_of(other)
    for phase in report["phases"]:
        trigger = phase["name"], phase["trigger"]
        if not shared[trigger]:
            run_sec -= phase["duration_s"]
        shared[trigger] -= 1
    return run_sec


def describe_same_triggers(pairs: list[tuple[tuple[Cost, Report], tuple[Cost, Report]]]) -> None:
    others, runs = [], []
    for (other_cost, other), (cost, report) in pairs:
        others.append(same_triggers_sec(other_cost.seconds, other, report))
        runs.append(same_triggers_sec(cost.seconds, report, other))
    medians = statistics.median(others), statistics.median(runs)
    count = (triggers_of(pairs[0][0][1]) & triggers_of(pairs[0][1][1])).total()
    told = f"{medians[0]:.2f} and {medians[1]:.2f}, ratio {medians[1] / medians[0]:.2f}"
    print(f"{'':<18} the {count} triggers that both have: {told}", flush=True)


def cells(costs: list[Cost]) -> tuple[str, str]:
    seconds = [cost.seconds for cost in costs]
    return f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f} to {max(seconds):.2f}"


def median_processor_sec(costs: list[Cost]) -> float:
    return statistics.median(cost.processor_sec for cost in costs)


def ratio(costs: list[Cost], others: list[Cost]) -> str:
    medians = [statistics.median(cost.seconds for cost in side) for side in (costs, others)]
    return f"{medians[0] / medians[1]:.2f}"


def compare(
    requirements: list[str],
    rounds: int,
    mode: str,
    folder: Path,
    against: Path | None,
    **settings: object,
) -> None:
    """The table: medians and spread of both sides, and the ratio of the medians."""
    other = "plain" if against is None else "other"
    print(f"mode {mode}, {rounds} rounds in turns; seconds: median, spread, processor")
    print(ROW.format("package", other, "", "run", "", "ratio", "cpu", "cpu run", "ratio", "jails"))
    with Discord() as discord, ExitStack() as stack:
        service = stack.enter_context(running(ROOT, folder / "own", discord, **settings))
        if against:
            beside = stack.enter_context(running(against, folder / "other", discord))
        else:
            python = make_plain_python(folder)
        for requirement in requirements:
            others, runs, jails = [], [], 0
            pairs = []
            for _ in range(rounds + 1):
                if against:
                    before = run(beside, requirement, mode)
                    others.append(before[0])
                else:
                    others.append(plain(python, folder / "pip", requirement))
                    time.sleep(REST_SEC)
                cost, report = run(service, requirement, mode)
                runs.append(cost)
                jails = len(report["phases"])
                if against:
                    pairs.append((before, (cost, report)))
            # The first fills the caches.
            del others[0], runs[0]
            used = [median_processor_sec(costs) for costs in (others, runs)]
            times = (*cells(others), *cells(runs), ratio(runs, others))
            processor = (f"{used[0]:.2f}", f"{used[1]:.2f}", f"{used[1] / used[0]:.2f}")
            print(ROW.format(requirement, *times, *processor, jails), flush=True)
            if against:
                describe_same_triggers(pairs[1:])


def private_mib(pid: int) -> float:
    """The memory that is a process's alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(sizes) / 1024


def pss_mib(pid: int) -> float:
    """A process's share of the memory that it uses; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def descendants(pid: int) -> list[int]:
    below = children(pid)
    return below + [further for child in below for further in descendants(child)]


def bare_start_sec() -> float:
    """From the start of a Falcon application on waitress that does nothing to its first answer."""
    port = free_port()
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", BARE.replace("{port}", str(port))])
    try:
        wait_for(lambda: answers(port), 30, every_sec=0.005)
        return time.monotonic() - begun
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def start_sec(folder: Path, discord: Discord) -> float:
    """The same of the service, its self-check included: healthy means that a jail was started."""
    environment = {name: os.environ[name] for name in ("PATH", *CERTIFICATES) if name in os.environ}
    port = free_port()
    environment |= {
        "HOME": str(folder),
        "STATE_DIR": str(folder / "state"),
        "PIP_CACHE_DIR": str(folder / "cache"),
        "DISCORD_WEBHOOK_URL": discord.url,
        "API_TOKEN": "bench",
        "PYTHONPATH": str(ROOT),
    }
    # As the installed command does it: a script would be compiled each time.
    program = Snakehook([sys.executable, "-c", "import snakehook; snakehook.main()"], environment)
    begun = time.monotonic()
    process = program.start("serve", "--listen", f"127.0.0.1:{port}", stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port), 30, every_sec=0.005)
        return time.monotonic() - begun
    finally:
        process.terminate()
        process.wait()


def asked(port: int, over: threading.Event) -> list[float]:
    """How long /healthz took, each time, until it is over."""
    found = []
    while not over.wait(0.01):
        begun = time.monotonic()
        assert answers(port)
        found.append(time.monotonic() - begun)
    return found


def describe_service(rounds: int, folder: Path) -> None:
    """Its start beside a bare one, its idle memory, its answers while it is at work."""
    with Discord() as discord:
        # A run that is ready shares keeper's memory: so first without.
        with running(ROOT, folder / "idle", discord, READY_RUN="false") as service:
            run(service, "six==1.17.0", "detonate")
            own = private_mib(service.process.pid)
            keeper = sum(map(private_mib, children(service.process.pid)))
        with running(ROOT, folder / "service", discord) as service:
            run(service, "six==1.17.0", "install")
            pid = service.process.pid
            # strace, nsjail, the launcher and pip stand below the run keeper.
            wait_for(lambda: len(descendants(pid)) >= READY_PROCESSES, 60)
            time.sleep(REST_SEC)
            ready = sum(map(pss_mib, (pid, *descendants(pid)))) - own - keeper
            print(f"idle        service {own:.1f} MiB, keeper {keeper:.1f} MiB, private memory;")
            print(f"            {ready:.1f} MiB more with a run that is ready")
            over, found = threading.Event(), list[float]()
            asking = threading.Thread(target=lambda: found.extend(asked(service.port, over)))
            fields = {"package_name": "requests", "version": "2.32.3", "mode": "detonate"}
            ids = [service.post(fields).json["run_id"] for _ in range(2)]
            asking.start()
            for run_id in ids:
                service.finished(run_id, RUN_SEC)
            over.set()
            asking.join()
            found.sort()
            middle, late = found[len(found) // 2] * 1000, found[len(found) * 99 // 100] * 1000
            print(f"/healthz    median {middle:.1f} ms, p99 {late:.1f} ms beside two detonations")
        bare, whole = [], []
        for _ in range(rounds):
            bare.append(bare_start_sec())
            whole.append(start_sec(folder / "service", discord))
        medians = [statistics.median(seconds) for seconds in (whole, bare)]
        print(f"cold start  {medians[0]:.2f} s, bare Falcon on waitress {medians[1]:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("requirements", nargs="*", metavar="NAME==VERSION")
    parser.add_argument("--quick", action="store_true", help="about a minute, two packages")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mode", default="install")
    parser.add_argument("--against", type=Path, metavar="PLACE")
    parser.add_argument("--cold", action="store_true", help="READY_RUN=false")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    requirements = options.requirements or list(QUICK_PACKAGES if options.quick else PACKAGES)
    print(datetime.now().date(), f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with open_folder("bench") as folder:
        cold = {"READY_RUN": "false"} if options.cold else {}
        compare(requirements, rounds, options.mode, folder, options.against, **cold)
        if not options.against:
            describe_service(rounds, folder)


if __name__ == "__main__":
    main()
