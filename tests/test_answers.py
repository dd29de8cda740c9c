"""What is served is valid, marked, and of the form that is expected."""

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jail.watch.answers import Asked, Given, answer
from jail.watch.http_request import HttpRequest
from jail.watch.stubs import MAX_MARKS, OTHERS, Marks

ADDRESS = "71.4.3.2"
MARKS = Marks()


def ask(url: str, method: str = "GET", **headers: str) -> Given:
    parts = urlsplit(url)
    request = HttpRequest(method, parts.path, False, list(headers.items()))
    host, path = parts.hostname or "", parts.path.lower() or "/"
    return answer(Asked(request, url, host, path, parts.query, MARKS.mark(url), ADDRESS))


FILES = """
a.py a.sh a.js a.ps1 a.yml a.ini a.bat a.csv a.json a.html a.xml a.css a.pdf a.png a.jpg a.exe
a-1.0-py3-none-any.whl bun-linux-x64.zip a.tar a.tgz a.gz a.tar.gz stage2 raw/AbCd a.txt a.php
"""


@pytest.mark.parametrize("file", FILES.split())
def test_every_text_carries_the_mark_of_its_url(file: str) -> None:
    url = f"https://example.com/x/{file}"
    found = ask(url)
    assert found.status == 200
    assert MARKS.find(found.body) == url
    assert len(found.body) < 16 << 10


@pytest.mark.parametrize("file", ["stage2", "a.py", "?x=1", ""])
def test_python_runs_and_says_so(file: str) -> None:
    source = ask(f"http://1.2.3.4/{file}").body.decode()
    names: dict[str, object] = {}
    commands: list[object] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "subprocess.Popen":
            commands.append(arguments[1])

    sys.addaudithook(hook)
    exec(source, names)  # noqa: S102 - our own, harmless
    assert names["__version__"] == "0.0.0"
    (command,) = commands[-1:]
    assert isinstance(command, list)
    assert MARKS.is_own_act(tuple(command))


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("file", ["stage2", "install.sh"])
def test_a_shell_runs_it_and_says_so(shell: str, file: str) -> None:
    script = ask(f"http://1.2.3.4/{file}").body
    done = subprocess.run([shell, "-ex"], input=script, capture_output=True)
    assert done.returncode == 0
    own = [line[2:] for line in done.stderr.decode().splitlines() if "/bin/true" in line]
    assert [MARKS.is_own_act(tuple(line.split())) for line in own] == [True]
    evaluated = subprocess.run(
        [shell, "-c", 'eval "$(cat)"; echo on'], input=script, capture_output=True
    )
    assert evaluated.stdout == b"on\n"


def test_a_script_runs_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "stage2"
    file.write_bytes(ask("http://1.2.3.4/stage2").body)
    file.chmod(0o700)
    assert subprocess.run([file]).returncode == 0
    assert subprocess.run([sys.executable, file]).returncode == 0


def test_archives_are_valid_and_hold_a_program(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(ask("https://e.com/bun-linux-x64.zip").body)) as archive:
        assert archive.testzip() is None
        assert {"bun-linux-x64/bun", "bun"} <= set(archive.namelist())
        assert archive.read("bun").startswith(b"#!/bin/sh")
    for name in ("x.tar.gz", "x.tgz", "x.tar", "x.tar.xz", "x.tar.bz2", "x.txz"):
        with tarfile.open(fileobj=io.BytesIO(ask(f"https://e.com/{name}").body)) as opened:
            assert "x/bin/x" in opened.getnames()
    assert gzip.decompress(ask("https://e.com/x.gz").body).startswith(b"#!/bin/sh")
    assert lzma.decompress(ask("https://e.com/x.xz").body)
    assert bz2.decompress(ask("https://e.com/x.bz2").body)


def test_a_wheel_can_be_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "evil_tool-2.0-py3-none-any.whl"
    wheel.write_bytes(ask(f"https://e.com/{wheel.name}").body)
    with zipfile.ZipFile(wheel) as archive:
        record = archive.read("evil_tool-2.0.dist-info/RECORD").decode().splitlines()
        assert {line.split(",")[0] for line in record} == set(archive.namelist())
        archive.extractall(tmp_path)  # noqa: S202 - our own
    done = subprocess.run([sys.executable, "-c", "import evil_tool"], cwd=tmp_path)
    assert done.returncode == 0


def test_a_picture_is_one() -> None:
    data = ask("https://e.com/a.png").body
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, kinds = 8, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        chunk = data[at + 4 : at + 8 + length]
        assert zlib.crc32(chunk) == int.from_bytes(data[at + 8 + length : at + 12 + length])
        kinds.append(chunk[:4])
        at += 12 + length
    assert kinds == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.ipify.org/", ADDRESS),
        ("https://icanhazip.com/", ADDRESS),
        ("https://checkip.amazonaws.com/", ADDRESS),
        ("https://ipinfo.io/ip", ADDRESS),
        ("https://ifconfig.me/ip", ADDRESS),
    ],
)
def test_an_address_as_text(url: str, expected: str) -> None:
    assert ask(url).body.decode() == expected + "\n"


@pytest.mark.parametrize(
    ("method", "url", "status", "keys"),
    [
        ("GET", "https://api.ipify.org/?format=json", 200, {"ip"}),
        ("GET", "http://ip-api.com/json", 200, {"query", "country", "city", "status"}),
        ("GET", "https://ipinfo.io/json", 200, {"ip", "city", "loc"}),
        ("GET", "https://discord.com/api/webhooks/1/a", 200, {"id", "name"}),
        ("POST", "https://discord.com/api/webhooks/1/a?wait=true", 200, {"id"}),
        ("GET", "https://discord.com/api/v9/users/@me", 200, {"username", "email"}),
        ("POST", "https://api.telegram.org/bot1:a/sendMessage", 200, {"ok", "result"}),
        ("GET", "https://api.github.com/repos/a/b/releases/latest", 200, {"tag_name", "assets"}),
        ("POST", "https://api.github.com/gists", 201, {"id", "html_url"}),
        ("GET", "https://api.github.com/user", 200, {"login"}),
        ("POST", "https://file.io/", 200, {"success", "link"}),
        ("GET", "https://api.gofile.io/getServer", 200, {"status", "data"}),
        ("GET", "https://anything.org/pypi/Foo/json", 200, {"info", "releases"}),
        ("POST", "https://c2.evil.xyz/collect", 200, {"ok", "id", "cmd"}),
        ("GET", "https://c2.evil.xyz/api/v1/tasks", 200, {"ok", "command"}),
        ("GET", "https://api.evil.xyz/", 200, {"ok"}),
    ],
)
def test_forms_that_programs_expect(method: str, url: str, status: int, keys: set[str]) -> None:
    found = ask(url, method)
    assert found.status == status
    assert keys <= set(json.loads(found.body))


def test_a_webhook_takes_what_it_is_given() -> None:
    found = ask("https://discord.com/api/webhooks/1/a", "POST")
    assert (found.status, found.body) == (204, b"")


@pytest.mark.parametrize("url", ["https://transfer.sh/a.zip", "https://0x0.st/"])
def test_an_upload_is_answered_with_its_address(url: str) -> None:
    assert ask(url, "PUT").body.startswith(b"https://")


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "http://1.2.3.4/latest/meta-data/",
        "http://100.100.100.200/latest/",
    ],
)
def test_what_a_real_machine_would_not_get_is_refused(url: str) -> None:
    found = ask(url)
    assert (found.status, found.refused) == (404, True)
    assert MARKS.find(found.body) is None


def test_a_repository_asks_who_you_are_and_then_is_not_there() -> None:
    url = "https://github.com/a/b.git/info/refs?service=git-upload-pack"
    first, then = ask(url), ask(url, authorization="Basic ZGV2OmtleQ==")
    assert (first.status, first.refused) == (401, True)
    assert dict(first.headers)["WWW-Authenticate"].startswith("Basic ")
    assert (then.status, then.refused) == (404, True)


def test_accept_is_heeded() -> None:
    assert ask("https://e.com/", Accept="text/html,*/*").content_type.startswith("text/html")
    assert ask("https://e.com/", Accept="application/json").content_type == "application/json"
    assert ask("https://e.com/", Accept="image/webp,image/*").content_type == "image/png"
    assert ask("https://e.com/", Accept="*/*").content_type.startswith("text/plain")


def test_other_protocols_and_methods() -> None:
    assert ask("https://e.com/ws", Upgrade="websocket").status == 403
    assert ask("https://e.com/", "OPTIONS").status == 204
    assert json.loads(ask("https://e.com/", "DELETE").body)["ok"]


def test_urls_in_answers_carry_no_mark() -> None:
    """Else who follows one would have "run" what was served."""
    for url in ("https://c2.evil.xyz/api/v1", "https://api.github.com/repos/a/b/releases/latest"):
        said = json.loads(ask(url).body)
        links = [value for value in said.values() if isinstance(value, str) and "://" in value]
        assert links
        assert all(MARKS.find(link.encode()) is None for link in links if "\n" not in link)


def test_marks_are_bounded_and_only_their_own_are_found() -> None:
    marks = Marks()
    first = marks.mark("http://a/")
    for number in range(MAX_MARKS + 10):
        marks.mark(f"http://a/{number}")
    assert len(marks.urls) == MAX_MARKS
    assert marks.mark("http://a/") == first
    assert marks.find(b"x" + first.encode() + b"y") == "http://a/"
    assert marks.find(marks.mark("http://new/").encode()) == OTHERS
    assert marks.find(hashlib.sha256(b"").hexdigest().encode()) is None
    assert marks.find(Marks().mark("http://a/").encode()) is None
    assert not marks.is_own_act(("/bin/true", "no"))
    assert not marks.is_own_act(("/bin/sh", first))


@pytest.mark.parametrize(
    "path", ["/" + "a/" * 20_000, "/%00", "/\u212a.py", "/..", "/a." + "z" * 9999, "//"]
)
def test_odd_urls_are_answered(path: str) -> None:
    assert ask("http://e.com" + path).status == 200


PASTES = ["https://pastebin.com/raw/Qm3x", "https://example.com/payload.txt", "http://a.xyz/x.b64"]


@pytest.mark.parametrize("url", PASTES)
def test_a_paste_is_a_script_for_whoever_decodes_it_and_for_whoever_does_not(url: str) -> None:
    served = ask(url).body
    decoded = base64.b64decode(served)
    for source in (served, decoded):
        compile(source, "paste", "exec")
        assert MARKS.find(source) == url
    words = ["bash", "-xc", served.decode()]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0
    assert f"/bin/true {MARKS.mark(url)}" in done.stderr


@pytest.mark.parametrize("file", ["tool.zip", "main.zip", "bun-linux-x64.zip"])
def test_an_archive_unpacks_and_has_what_pip_builds(file: str, tmp_path: Path) -> None:
    url = f"https://example.com/{file}"
    (tmp_path / file).write_bytes(ask(url).body)
    shutil.unpack_archive(tmp_path / file, tmp_path / "unpacked")
    (project, *_) = sorted(tmp_path.rglob("pyproject.toml"))
    backend: dict[str, Any] = {}
    source = (project.parent / "backend.py").read_bytes()
    exec(source, backend)  # noqa: S102 - our own, and harmless
    built = tmp_path / backend["build_wheel"](str(tmp_path))
    with zipfile.ZipFile(built) as wheel:
        assert wheel.testzip() is None


def test_an_index_page_leads_to_a_wheel_that_is_served() -> None:
    page = ask("https://index.example.com/simple/some-tool/").body.decode()
    path = page.partition('href="')[2].partition('"')[0]
    assert path == "/files/some_tool-1.0-py3-none-any.whl"
    assert zipfile.is_zipfile(io.BytesIO(ask(f"https://index.example.com{path}").body))
