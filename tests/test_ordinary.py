"""Nothing in the jail names us, and nothing is the same in two runs but what many machines have.

A package that can tell that it is watched does nothing. So here is one that reads all that can be
read, in two runs.
"""

import base64
import json
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, Snakehook, make_state, open_folder, phase_of, variables
from standins import Index

from jail.watch.etc_files import copy_links

# Reads everything but the machine's own /usr and the numbers of other processes.
LOOK = r"""
import base64, gc, json, os, stat, sys, zlib

def text(path, most=1 << 16):
    try:
        return open(path, "rb").read(most).decode("utf-8", "replace")
    except OSError as error:
        return type(error).__name__

seen = {"environment": dict(os.environ), "host": os.uname().nodename, "files": {}, "links": {}}
own = os.path.realpath(sys.base_prefix)
OTHERS = {"/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", own}
seen["top"] = sorted(os.listdir("/"))
seen["cpus"] = os.cpu_count()
seen["about"] = {}
for folder, folders, names in os.walk("/", followlinks=False):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in OTHERS]
    for name in [*folders, *names]:
        path = os.path.join(folder, name)
        about = os.lstat(path)
        if os.path.islink(path):
            seen["links"][path] = os.readlink(path)
        elif stat.S_ISREG(about.st_mode) and "/site-packages/pip" not in path:
            whole = open(path, "rb").read() if os.access(path, os.R_OK) else b""
            seen["files"][path] = whole[:4096].decode("latin-1")
            seen.setdefault("sums", {})[path] = zlib.crc32(whole)
        seen["about"][path] = [about.st_mode, int(about.st_mtime), about.st_size]
seen["proc"] = {
    f"{pid}/{name}": text(f"/proc/{pid}/{name}")
    for pid in ("1", "self", str(os.getppid()))
    for name in ("cmdline", "environ", "mountinfo", "mounts", "maps", "cgroup", "comm", "status")
}
seen["written"] = text("/proc/1/io").partition("wchar: ")[2].split()[:1]
seen["fds"] = {
    f"{pid}/{fd}": os.readlink(f"/proc/{pid}/fd/{fd}")
    for pid in ("1", "self") for fd in os.listdir(f"/proc/{pid}/fd")
    if os.path.lexists(f"/proc/{pid}/fd/{fd}")
}
seen["modules"] = {name: str(getattr(module, "__file__", None)) + str(vars(module).keys())
                   for name, module in [*sys.modules.items()] if name != __name__}
seen["sys"] = {name: repr(getattr(sys, name)) for name in dir(sys) if name != "modules"}
frame, seen["frames"] = sys._getframe(), []
while frame:
    names = [frame.f_code.co_filename, frame.f_code.co_name]
    seen["frames"].append([*names, str(frame.f_globals.get("__name__"))])
    frame = frame.f_back
# What can be found though nobody imported it.
seen["unimported"] = sorted({
    what.__module__ for what in gc.get_objects()
    if type(what) is type(text) and type(what.__module__) is str
} - {*sys.modules} - {"__main__"})
seen["nets"] = {name: text(f"/proc/net/{name}") for name in ("tcp", "udp", "tcp6", "udp6")}
os.set_blocking(0, False)
packed = zlib.compress(json.dumps(seen).encode(), 9)
for start in range(0, len(packed), 60000):
    print(base64.b85encode(packed[start:start + 60000]).decode())
"""
# Where the kernel keeps what /sys/class/dmi leads to.
DMI_CLASS = "devices/virtual"
# What would tell a package that it is watched, and by whom.
OURS = re.compile(
    r"snake|jail|sandbox|nsjail|triage|decoy|bait|detonat|honey|audit|launcher|strace|scratch",
    re.IGNORECASE,
)
# Python's own names of the module sys.
EXEMPT = re.compile(r"addaudithook|'audit'|\baudit\Z|function audit>")
# Keys and tokens are random: any short word may stand in them.
KEYS = re.compile(r"(?=[a-z0-9+/=_-]*[A-Z])(?=[A-Za-z+/=_-]*[0-9])[A-Za-z0-9+/=_-]{40,}")


@pytest.fixture(scope="module")
def two_looks(
    jail: None, jail_python_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Any]]]:
    """What a package finds in two runs."""
    with open_folder("looks") as home, Index() as index:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        index.add_wheel("looker", "1.0", {"looker.py": LOOK})
        program = Snakehook(PROGRAM, variables(make_state(home, jail_python_cache), index))
        yield [look(program) for _ in range(2)]


def look(program: Snakehook) -> dict[str, Any]:
    code, report, errors = program.triage("looker", "--mode", "import")
    own = phase_of(report, "looker")
    assert own["outcome"] == "ok", (code, own["stderr"]["text"], errors)
    lines = own["stdout"]["text"].splitlines()
    packed = b"".join(base64.b85decode(line) for line in lines)
    seen: dict[str, Any] = json.loads(zlib.decompress(packed))
    return seen


def texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """All texts in what was seen, keys too, each with the way to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield where, key
            yield from texts(inner, f"{where}/{key[:80]}")
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, where)
    elif isinstance(value, str):
        yield where, value


def test_no_word_of_ours_is_in_the_jail(two_looks: list[dict[str, Any]]) -> None:
    found = set()
    for seen in two_looks:
        for where, text in texts(seen):
            # The interpreter's own words, such as sys.excepthook.
            for match in OURS.finditer(EXEMPT.sub("", KEYS.sub("", text))):
                found.add((where, text[max(0, match.start() - 40) : match.end() + 40]))
    assert found == set()


def test_what_differs_between_machines_differs_between_runs(
    two_looks: list[dict[str, Any]],
) -> None:
    first, second = two_looks
    assert first["host"] != second["host"]
    for path in ("/etc/machine-id", "/etc/hostname", "/home/dev/.bash_history"):
        assert first["files"][path] != second["files"][path], path
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"):
        assert first["environment"][name] != second["environment"][name]
    # What the first process of the jail has written by then.
    assert first["written"] and first["written"] != second["written"]


# What is the same on very many machines.
ORDINARY = re.compile(
    r"/etc/(?:alternatives/.*|debian_version|ld\.so\.cache|shells|profile|nsswitch\.conf"
    r"|resolv\.conf|timezone|passwd|group|ssl/.*|host\.conf|ld\.so\.conf|networks|sub[gu]id"
    r"|issue(?:\.net)?)"
    r"|/opt/venv/.*(?:activate.*|Activate\.ps1|pyvenv\.cfg|_virtualenv\.p(?:th|y)|\.gitignore)"
    r"|/sys/.*"
    r"|/home/dev/\.(?:vimrc|python_history|profile|bash_logout|bashrc)"
    r"|.*/\.git/(?:HEAD|config|description)|.*/\.gitignore|.*/__init__\.py"
    r"|/srv/site/looker-1\.0/.*"
)


def test_no_file_of_the_machine_is_of_today(two_looks: list[dict[str, Any]]) -> None:
    for seen in two_looks:
        etc = {path: about for path, about in seen["about"].items() if path.startswith("/etc/")}
        days_ago = [(time.time() - changed_sec) / 86_400 for _, changed_sec, _ in etc.values()]
        assert min(days_ago) > 0.006 and len({int(days) for days in days_ago}) > 30
        # As many as on a machine, and not all for everybody.
        assert len([path for path in etc if path.count("/") == 2]) > 60
        assert etc["/etc/shadow"][0] & 0o777 == 0
        authorities = [path for path in etc if path.startswith("/etc/ssl/certs/")]
        assert len(authorities) > 3
        assert [path for path in seen["links"] if re.fullmatch(r"/etc/ssl/.*/[0-9a-f]{8}\.0", path)]
    roots = [
        [text for path, text in seen["files"].items() if re.fullmatch(r"/etc/ssl/.*\.pem", path)]
        for seen in two_looks
    ]
    assert len(roots[0]) == len(roots[1]) == 1 and roots[0] != roots[1]


def test_no_file_is_the_same_but_what_many_machines_have(two_looks: list[dict[str, Any]]) -> None:
    first, second = (seen["sums"] for seen in two_looks)
    same = {path for path in first if second.get(path) == first[path] and first[path] != 0}
    assert {path for path in same if not ORDINARY.fullmatch(path)} == set()


def test_the_home_is_one_that_somebody_lives_in(two_looks: list[dict[str, Any]]) -> None:
    for seen in two_looks:
        home = {path: about for path, about in seen["about"].items() if "/home/dev/" in path}
        tops = {path.split("/")[3] for path in home}
        assert tops >= {"Desktop", "Documents", "Downloads", "projects", ".bashrc", ".gitconfig"}
        assert any(path.endswith("/.git/HEAD") for path in home)
        files = {path: about for path, about in home.items() if path in seen["files"]}
        days = {about[1] // 86_400 for about in files.values()}
        assert len(files) > 30
        assert len(days) > 8
        assert len({about[0] & 0o777 for about in files.values()}) > 1
    first, second = (set(seen["files"]) for seen in two_looks)
    assert {path for path in first ^ second if path.startswith("/home/dev/projects/")}


def test_the_top_of_the_machine_has_what_programs_look_at(
    two_looks: list[dict[str, Any]],
) -> None:
    for seen in two_looks:
        assert {"boot", "etc", "home", "sys", "tmp", "usr", "var"} <= {*seen["top"]}
        assert seen["links"]["/var/run"] == "/run"
        assert seen["files"][f"/sys/{DMI_CLASS}/dmi/id/product_name"]
        # What tells one machine from all others is root's, and so are the files of the kernel.
        serial = f"/sys/{DMI_CLASS}/dmi/id/product_uuid"
        kernels = [path for path in seen["about"] if path.startswith("/boot/vmlinuz-")]
        assert [seen["about"][path][0] & 0o777 for path in (serial, *kernels)] == [0, 0]
        online = seen["files"]["/sys/devices/system/cpu/online"].split("-")[-1]
        assert int(online) + 1 == seen["cpus"] == os.cpu_count()
    models = [
        [text for path, text in seen["files"].items() if path.startswith(f"/sys/{DMI_CLASS}/dmi")]
        for seen in two_looks
    ]
    assert models[0] != models[1]


def test_what_is_mounted_names_no_folder_of_ours(two_looks: list[dict[str, Any]]) -> None:
    for seen in two_looks:
        for line in seen["proc"]["self/mountinfo"].splitlines():
            root, place = line.split()[3:5]
            # The machine's own, or a folder of the one disk.
            assert root == place or re.fullmatch(
                r"/\d+|/(?:venv|site|home|shm|initctl)|/usr/.*|/(?:null|zero|full|tty|u?random)|/",
                root,
            ), line
    for option in (r"nr_inodes=\d+", r"size=\d+k"):
        drawn = [set(re.findall(option, seen["proc"]["self/mountinfo"])) for seen in two_looks]
        assert drawn[0] != drawn[1]


def test_no_descriptor_and_no_argument_is_ours(two_looks: list[dict[str, Any]]) -> None:
    for seen in two_looks:
        own = {key: what for key, what in seen["fds"].items() if key.startswith("self/")}
        for what in own.values():
            assert what == "/dev/null" or re.fullmatch(r"pipe:\[\d+\]|/proc/\d+/fd", what), own
        words = seen["proc"]["self/cmdline"].split("\0")
        assert words[:2] == ["/opt/venv/bin/python", "-c"]
        assert words[2].rstrip() == "import looker"
        # Where the kernel lets us say how many there are.
        if Path("/proc/self/timers").exists():
            assert words[2:] == ["import looker", ""]
            assert not re.search("  |\0\0", seen["proc"]["1/cmdline"])
        assert "import looker" in seen["sys"]["orig_argv"]
        assert {file for file, *_ in seen["frames"] if "/opt/venv/" in file} == set()


def test_what_nobody_imported_has_a_name_of_the_run(two_looks: list[dict[str, Any]]) -> None:
    first, second = (
        {*seen["unimported"], *(name for _, _, name in seen["frames"])} for seen in two_looks
    )
    usual = re.compile(
        r"looker|importlib.*|__main__|_frozen_importlib.*|collections.*|namedtuple_.*"
    )
    assert {name for name in first & second if not usual.fullmatch(name)} == set()
    assert any(name.endswith(".run") for name in first)
    hooks = [seen["about"]["/opt/venv/bin/activate_this.py"][2] for seen in two_looks]
    assert hooks[0] != hooks[1]


def test_no_socket_stands_at_an_address_of_documentation(two_looks: list[dict[str, Any]]) -> None:
    # 192.0.2.0/24 and 2001:db8::/32 (RFC 5737, RFC 3849), as the kernel writes them.
    for seen in two_looks:
        assert seen["nets"]["udp"].count("\n") > 1
        for table in seen["nets"].values():
            assert not re.search(r"[0-9A-F]{2}0200C0:|B80D0120", table)


def test_no_decoy_has_the_size_of_a_placeholder(two_looks: list[dict[str, Any]]) -> None:
    least = {".ssh/id_rsa": 2000, ".config/google-chrome/Default/Login Data": 16_000}
    least |= {".bitcoin/wallet.dat": 60_000, ".kube/config": 1000}
    for seen in two_looks:
        for name, size_bytes in least.items():
            assert seen["about"][f"/home/dev/{name}"][2] >= size_bytes


def test_what_lies_beside_the_links_to_programs_keeps_none_from_being_copied(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "alternatives", tmp_path / "copied"
    source.mkdir()
    target.mkdir()
    (source / "README").write_text("Read update-alternatives(1).")
    for name in ("awk", "which"):
        (source / name).symlink_to(f"/usr/bin/{name}.x")
    copy_links(source, target)
    assert {path.name: str(path.readlink()) for path in target.iterdir()} == {
        "awk": "/usr/bin/awk.x",
        "which": "/usr/bin/which.x",
    }
