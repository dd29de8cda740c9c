"""Overload, the long version: `python tests/soak.py --minutes 10 --clients 200` prints a table and
exits 1 on a fault.

A real service with a full queue, its stand-ins for the index and Discord, many clients that ask
without a pause, and as many that connect and say nothing or next to nothing. What is accepted must
be reported, the rest be refused at once, and memory stay flat. tests/test_overload.py runs the same
for ten seconds.

`python tests/soak.py --runs 1000` instead does so many small runs in a row, and exits 1 when the
service or keeper holds a tenth more memory at the end than after the first hundred.
"""

import argparse
import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import children
from conftest import ROOT, Service, Snakehook, open_folder, serving
from standins import Discord, Index, wait_for

TIMEOUT_SEC = 30
PAUSE_SEC = 0.02  # of a client between two requests


@dataclass
class Tally:
    """What all clients together were answered."""

    accepted: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_sec: list[float] = field(default_factory=list)
    faults: Counter[str] = field(
        default_factory=Counter
    )  # answers that break the contract, and none at all
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self, status: int, headers: http.client.HTTPMessage, body: bytes, seconds: float
    ) -> None:
        with self.lock:
            self.statuses[status] += 1
            self.latencies_sec.append(seconds)
            if status == 202:
                self.accepted.append(json.loads(body)["run_id"])
            elif status not in (429, 503):
                self.faults[f"answered {status}: {body[:80]!r}"] += 1
            elif not headers.get("Retry-After", "").isdecimal() or not json.loads(body)["error"]:
                self.faults[f"{status} without Retry-After or error"] += 1

    def quantile_sec(self, part: float) -> float:
        ordered = sorted(self.latencies_sec)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def ask(port: int, token: str, source: str, tally: Tally) -> None:
    """One request for a run, from an address of one's own."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=TIMEOUT_SEC, source_address=(source, 0)
    )
    try:
        body = json.dumps({"package_name": "tiny", "version": "1.0"})
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/triage", body, headers)
        answer = connection.getresponse()
        tally.note(answer.status, answer.headers, answer.read(), time.monotonic() - begun)
    except (OSError, http.client.HTTPException) as error:
        with tally.lock:
            tally.faults[type(error).__name__] += 1
    finally:
        connection.close()


def hammer(
    port: int, token: str, clients: int, seconds: float, each: Callable[[], None] = lambda: None
) -> Tally:
    """Let so many clients ask for so long, calling `each` every second meanwhile."""
    tally, over = Tally(), threading.Event()

    def client(number: int) -> None:
        while not over.wait(PAUSE_SEC):
            ask(port, token, f"127.1.{number // 250}.{number % 250 + 1}", tally)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        over.wait(min(1.0, max(0.0, end - time.monotonic())))
        each()
    over.set()
    for thread in threads:
        thread.join(TIMEOUT_SEC + 5)
    return tally


@contextmanager
def idlers(port: int, token: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that keep the service waiting, in four ways, until this ends."""
    head = (
        f"POST /v1/triage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\n"
    )
    beginnings = (
        b"",  # half-open
        head[:30].encode(),  # a head that does not end
        f"{head}Content-Length: 60000\r\n\r\n{{".encode(),  # a body that does not come
        f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: {'x' * 100}".encode(),
    )
    over = threading.Event()
    sockets: list[socket.socket] = []

    def drip() -> None:  # a byte a second for each: never silent, never done
        while not over.wait(1.0):
            for number, sock in enumerate(sockets):
                if number % 4:
                    with contextlib.suppress(OSError):
                        sock.send(b"x")

    thread = threading.Thread(target=drip)
    try:
        for number in range(count):
            # Ten from each address: a service may allow no more than sixteen.
            source = (f"127.2.0.{number // 10 + 1}", 0)
            sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_SEC, source)
            sockets.append(sock)
            sock.sendall(beginnings[number % 4])
        thread.start()
        yield sockets
    finally:
        over.set()
        if thread.is_alive():
            thread.join()
        for sock in sockets:
            sock.close()


@dataclass(frozen=True)
class Size:
    """What a process holds: memory, descriptors, threads."""

    rss_bytes: int
    descriptors: int
    threads: int


def size(pid: int) -> Size:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    descriptors = 0
    # An ordinary user may not look into a service that nobody is to look into.
    with contextlib.suppress(PermissionError):
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Size(int(status["VmRSS"].split()[0]) << 10, descriptors, int(status["Threads"]))


def unreported(
    service: Service, discord: Discord, accepted: list[str], deadline_sec: float
) -> list[str]:
    """Those of the accepted runs that have no report, no delivery or not exactly one message in the
    end."""
    lost = []
    for run_id in accepted:
        try:
            if service.finished(run_id, deadline_sec)["delivery"]["state"] != "delivered":
                lost.append(run_id)
        except TimeoutError:
            lost.append(run_id)
    footers = Counter(
        message.payload["embeds"][0]["footer"]["text"].split()[-1]
        for message in list(discord.messages)
    )
    return lost + [run_id for run_id in accepted if footers[run_id] != 1]


FIRST_RUNS, RUNS_AT_ONCE, MAX_RUNS_GROWTH = 100, 4, 1.10


def own_mib(pid: int) -> float:
    """The memory that a process has for itself, or shares with its own children alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith("Anonymous:")]
    return sizes[0] / 1024


def many_runs(service: Service, count: int) -> int:
    """So many runs in a row, and what the service and keeper hold after each hundred."""
    (keeper,) = children(service.process.pid)
    pids = {"service": service.process.pid, "keeper": keeper}
    found: list[dict[str, float]] = []
    print(f"{'runs':>6} {'service MiB':>12} {'keeper MiB':>12}")
    for begun in range(0, count, FIRST_RUNS):
        for _ in range(0, min(FIRST_RUNS, count - begun), RUNS_AT_ONCE):
            ids = [service.accept("tiny") for _ in range(RUNS_AT_ONCE)]
            for run_id in ids:
                report = service.finished(run_id, 60)
                assert report["outcome"] == "ok", report["reason"]
        found.append({name: own_mib(pid) for name, pid in pids.items()})
        last = found[-1]
        print(f"{begun + FIRST_RUNS:6} {last['service']:12.1f} {last['keeper']:12.1f}", flush=True)
    return int(any(found[-1][name] > found[0][name] * MAX_RUNS_GROWTH for name in pids))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--idlers", type=int, default=100)
    parser.add_argument("--queue-limit", type=int, default=20)
    parser.add_argument(
        "--rate-limit", type=int, default=600, help="PER_IP_RATE_LIMIT, for a minute"
    )
    parser.add_argument("--growth-mib", type=float, default=32, help="what memory may grow by")
    parser.add_argument("--runs", type=int, help="so many small runs in a row, no overload")
    options = parser.parse_args()
    with (
        open_folder("soak") as place,
        Index() as index,
        Discord() as discord,
    ):
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        index.add_wheel("tiny", "1.0", {"tiny.py": ""})
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "STATE_DIR": str(place / "state"),
            "PIP_CACHE_DIR": str(place / "cache"),
            "PIP_INDEX_URL": index.url,
            "DISCORD_WEBHOOK_URL": discord.url,
            "QUEUE_LIMIT": str(options.queue_limit),
            "PER_IP_RATE_LIMIT": str(options.rate_limit),
            "LOG_LEVEL": "WARNING",
        }
        program = Snakehook([sys.executable, str(ROOT / "snakehook.py")], environment)
        sizes: list[tuple[float, Size]] = []
        if options.runs:
            with serving(program, place / "log") as service:
                return many_runs(service, options.runs)
        begun = time.monotonic()
        # `serving` names a rate limit of its own, for tests that ask a lot from one address.
        with serving(program, place / "log", PER_IP_RATE_LIMIT=options.rate_limit) as service:

            def look() -> None:
                sizes.append((time.monotonic() - begun, size(service.process.pid)))

            hammer(
                service.port, service.token, options.clients, 5
            )  # warm: what is made once is made
            look()
            with idlers(service.port, service.token, options.idlers):
                tally = hammer(
                    service.port, service.token, options.clients, options.minutes * 60, look
                )
            lost = unreported(service, discord, tally.accepted, 120 + options.queue_limit * 5)
            look()
            wait_for(service.healthy, 60)
            errors = [
                line
                for line in service.log.read_text().splitlines()
                if "ERROR" in line or "Traceback" in line
            ]
    step = max(1, len(sizes) // 20)
    print(f"{'seconds':>8} {'RSS MiB':>8} {'descriptors':>12} {'threads':>8}")
    for at, measured in [*sizes[::step], sizes[-1]]:
        print(
            f"{at:8.0f} {measured.rss_bytes / 2**20:8.1f}"
            f" {measured.descriptors:12} {measured.threads:8}"
        )
    growth_mib = (max(measured.rss_bytes for _, measured in sizes) - sizes[0][1].rss_bytes) / 2**20
    print(f"answers   {dict(sorted(tally.statuses.items()))}")
    print(
        f"latency   median {tally.quantile_sec(0.5):.3f} s, 99 % {tally.quantile_sec(0.99):.3f} s,",
        end=" ",
    )
    print(f"most {tally.quantile_sec(1):.3f} s")
    print(
        f"accepted  {len(tally.accepted)}, of which not reported exactly once:"
        f" {len(lost)} {lost[:5]}"
    )
    print(f"faults    {dict(tally.faults)}; errors in the log: {len(errors)} {errors[:3]}")
    print(f"growth    {growth_mib:.1f} MiB")
    return int(
        bool(
            lost or tally.faults or errors or growth_mib > options.growth_mib or not tally.accepted
        )
    )


if __name__ == "__main__":
    sys.exit(main())
