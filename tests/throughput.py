"""Packages a minute for a list, by mode and MAX_CONCURRENCY, with memory at the peak.

    python tests/throughput.py [--mode M ...] [--concurrency N ...] [--list FILE] [--count N]

A script, not a test: it needs the index, and root to see the memory. The list has a NAME VERSION a
line. Each line of the table is a service of its own that gets all of them at once; a first pass
over the list, not counted, fills the cache. Memory is that of all processes of the service and its
runs, shared pages counted once (Pss), and what the runs' cgroups hold, in which their disks are.
"""

import argparse
import os
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

from bench import descendants, running
from conftest import ROOT, Service, groups, open_folder
from standins import Discord, wait_for

POPULAR = Path(__file__).parent / "popular.txt"
LOOK_SEC = 0.25
RUN_SEC = 300
ROW = "{:<10} {:>12} {:>9} {:>12} {:>11} {:>11}  {}"


def pss_mib(pid: int) -> float:
    """A process's share of the memory that it uses; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def held_mib(group: Path) -> float:
    """What a run's cgroup holds, its disk included."""
    for name in ("memory.usage_in_bytes", "memory.current"):
        try:
            return int((group / name).read_text()) / 2**20
        except OSError:
            continue
    return 0.0


class Peak:
    """Looks at the memory of a service and its runs until it is told to stop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.processes_mib = self.groups_mib = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self) -> None:
        pid = self.service.process.pid
        while not self.over.wait(LOOK_SEC):
            everybody = [pid, *descendants(pid)]
            own = [group for group in groups() if int(group.name.partition("-")[0]) in everybody]
            self.processes_mib = max(self.processes_mib, sum(map(pss_mib, everybody)))
            self.groups_mib = max(self.groups_mib, sum(map(held_mib, own)))

    def stop(self) -> None:
        self.over.set()
        self.thread.join()


def work_off(service: Service, requirements: list[str], mode: str) -> tuple[float, Counter[str]]:
    """Ask for all at once: the seconds until the last report, and how the runs ended."""
    begun, ids = time.monotonic(), []
    for requirement in requirements:
        name, _, version = requirement.partition("==")
        answer = service.post({"package_name": name, "version": version, "mode": mode})
        assert answer.status == 202, answer
        ids.append(answer.json["run_id"])

    def is_over() -> bool:
        return all(service.report(run_id)["status"] == "finished" for run_id in ids)

    wait_for(is_over, RUN_SEC * len(ids), every_sec=0.1)
    seconds = time.monotonic() - begun
    return seconds, Counter(service.report(run_id)["outcome"] for run_id in ids)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", nargs="+", default=["install", "detonate"])
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--list", type=Path, default=POPULAR)
    parser.add_argument("--count", type=int, default=30)
    options = parser.parse_args()
    words = [line.partition("#")[0].split() for line in options.list.read_text().splitlines()]
    requirements = ["==".join(found[:2]) for found in words if found][: options.count]
    print(datetime.now().date(), f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{len(requirements)} packages from {options.list.name}")
    heads = ("mode", "concurrency", "seconds", "a minute", "processes", "cgroups", "outcomes")
    print(ROW.format(*heads))
    with open_folder("throughput") as folder, Discord() as discord:
        settings = {"QUEUE_LIMIT": len(requirements), "PIP_CACHE_DIR": str(folder / "packages")}
        (folder / "packages").mkdir()
        with running(ROOT, folder / "warm", discord, **settings) as warm:
            work_off(warm, requirements, "install")
        for mode in options.mode:
            for number in options.concurrency:
                place = folder / f"{mode}-{number}"
                more = settings | {"MAX_CONCURRENCY": number}
                with running(ROOT, place, discord, **more) as service:
                    peak = Peak(service)
                    seconds, outcomes = work_off(service, requirements, mode)
                    peak.stop()
                a_minute = f"{len(requirements) * 60 / seconds:.1f}"
                sizes = (f"{peak.processes_mib:.0f} MiB", f"{peak.groups_mib:.0f} MiB")
                row = (mode, number, f"{seconds:.1f}", a_minute, *sizes, dict(outcomes))
                print(ROW.format(*row), flush=True)


if __name__ == "__main__":
    main()
