"""Every other test believes the stand-ins, so they are tried here: by the real pip, over real
sockets."""

import http.client
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from standins import (
    LOST_ANSWER,
    SIMPLE_JSON,
    SLOW_ANSWER,
    Discord,
    Drip,
    Endless,
    Index,
    Reply,
    drop,
    hang,
    json_reply,
    redirect,
    sdist,
    too_many,
    too_many_header,
    too_many_html,
    wait_for,
    wheel,
)

AGENT = "DiscordBot (stand-in test)"


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as index:
        yield index


@pytest.fixture
def discord() -> Iterator[Discord]:
    with Discord() as discord:
        yield discord


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    venv = tmp_path_factory.mktemp("pip") / "venv"
    done = run([sys.executable, "-m", "venv", str(venv)])
    if done.returncode:
        pytest.skip(f"no pip here, and no venv to get one: {done.stdout}")
    return [str(venv / "bin/python"), "-m", "pip"]


def run(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, **environment}
    return subprocess.run(
        command, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
    )


def install(pip: Sequence[str], index: Index, home: Path, requirement: str) -> Path:
    """Install as a user would, build isolation and all; returns the target directory."""
    site = home / "site"
    # An older pip that finds setuptools and wheel beside it would build without isolation.
    options = [
        "--use-pep517",
        "--no-compile",
        "--disable-pip-version-check",
        "--index-url",
        index.url,
    ]
    done = run([*pip, "install", *options, "--target", str(site), requirement], HOME=str(home))
    if "No matching distribution found for wheel" in done.stdout and not importlib.util.find_spec(
        "wheel"
    ):
        pytest.skip("this pip or setuptools needs wheel to build, and it is not installed here")
    assert done.returncode == 0, done.stdout
    return site


def get(
    url: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    return send(url, method, None, headers)


def send(
    url: str, method: str, body: bytes | None, headers: dict[str, str], timeout_sec: float = 10
) -> tuple[int, http.client.HTTPMessage, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_sec)
    try:
        connection.request(
            method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, headers
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def post(url: str, payload: object, timeout_sec: float = 10) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "User-Agent": AGENT}
    status, _, body = send(url, "POST", json.dumps(payload).encode(), headers, timeout_sec)
    return status, json.loads(body) if body.startswith(b"{") else body


def multipart(boundary: str, *parts: tuple[str, bytes]) -> bytes:
    pieces = [f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


def test_pip_installs_a_wheel_its_dependency_and_its_script(
    pip: list[str], index: Index, tmp_path: Path
) -> None:
    index.add_wheel("Dep.Lib", "1", {"deplib.py": "WORD = 'from the dependency'\n"})
    entry = index.add_wheel(
        "top-pkg",
        "1.0.0",
        {"top_pkg/__init__.py": "import deplib\n\ndef main():\n    print(deplib.WORD)\n"},
        requires=["dep-lib>=1"],
        console_scripts={"top-pkg": "top_pkg:main"},
        requires_python=">=3.8",
    )
    site = install(pip, index, tmp_path, "top-pkg==1.0.0")
    done = run([str(site / "bin/top-pkg")], PYTHONPATH=str(site))
    assert done.stdout == "from the dependency\n"
    assert entry["filename"] == "top_pkg-1.0.0-py3-none-any.whl"
    paths = [path for method, path in index.requests if method == "GET"]
    assert "/simple/dep-lib/" in paths
    assert (
        f"/files/{entry['filename']}.metadata" in paths
    )  # pip used the metadata and checked its hash
    assert index.headers[0]["accept"].startswith(SIMPLE_JSON)


@pytest.mark.skipif(not importlib.util.find_spec("setuptools"), reason="no setuptools to repack")
def test_pip_builds_a_setup_py_with_setuptools_from_the_index(
    pip: list[str], index: Index, tmp_path: Path
) -> None:
    index.add_sdist(
        "old-style",
        "2.0",
        {"old_style/__init__.py": "HERE = True\n", "old_style/a/__init__.py": ""},
    )
    site = install(pip, index, tmp_path, "old-style==2.0")
    assert (site / "old_style/a/__init__.py").exists()
    built_with = importlib.metadata.version("setuptools")
    assert any(path.startswith(f"/files/setuptools-{built_with}-") for _, path in index.requests)


def test_pip_builds_with_a_backend_in_the_tree(
    pip: list[str], index: Index, tmp_path: Path
) -> None:
    prelude = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    index.add_backend_sdist("own-backend", "0.1", prelude, {"own_backend.py": "HERE = True\n"})
    site = install(pip, index, tmp_path, "own-backend==0.1")
    assert (site / "own_backend.py").exists()
    assert (tmp_path / "ran").exists()
    assert {path.split("/")[2] for _, path in index.requests if path.startswith("/simple/")} == {
        "own-backend"
    }


def test_the_same_files_give_the_same_bytes() -> None:
    for build in (wheel, sdist):
        first = build("Same.Pkg", "1.0", {"same.py": ""})
        assert first == build("Same.Pkg", "1.0", {"same.py": ""})
        assert first[0].startswith("same_pkg-1.0")


def test_index_is_strict(index: Index) -> None:
    index.add_wheel("some-pkg", "1", {})
    assert get(f"{index.url}/some-pkg/", Accept=SIMPLE_JSON)[0] == 200
    assert get(f"{index.url}/some-pkg/", "HEAD")[2] == b""
    assert get(f"{index.url}/Some_Pkg/")[0] == 404
    assert get(f"{index.url}/some-pkg")[0] == 404
    assert get(f"{index.url}/some-pkg/", Accept="text/html")[0] == 406
    assert get(f"{index.url}/some-pkg/", "POST")[0] == 405
    assert index.requests[-1] == ("POST", "/simple/some-pkg/")


def test_index_misbehaves_on_command(index: Index) -> None:
    index.add_wheel("bad", "1", {})
    index.entry("bad", hashes={"sha256": "0" * 64}, core_metadata=None)
    index.entry("bad", filename="../evil-1.tar.gz", url="http://127.0.0.2:1/evil-1.tar.gz")
    page = json.loads(get(f"{index.url}/bad/")[2])
    assert page["versions"] == ["1"]
    assert [file["filename"] for file in page["files"]] == [
        "bad-1-py3-none-any.whl",
        "../evil-1.tar.gz",
    ]
    assert page["files"][0]["hashes"] == {"sha256": "0" * 64}
    assert "core-metadata" not in page["files"][0]

    index.answer("/files/bad-1-py3-none-any.whl", redirect("/elsewhere"))
    status, headers, _ = get(f"{index.origin}/files/bad-1-py3-none-any.whl?again")
    assert (status, headers["Location"]) == (302, "/elsewhere")
    index.answer("/drip", Drip("abc", gap_sec=0.01))
    assert get(f"{index.origin}/drip")[2] == b"abc"
    index.answer("/short", Reply(200, "abc", {"Content-Length": "99"}))
    with pytest.raises(http.client.IncompleteRead):
        get(f"{index.origin}/short")
    index.answer("/drop", drop)
    with pytest.raises(http.client.RemoteDisconnected):
        get(f"{index.origin}/drop")

    index.answer("/endless", Endless())
    parts = urlsplit(index.origin)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", "/endless")
    assert len(connection.getresponse().read(1_000_000)) == 1_000_000
    connection.close()


def test_a_fault_in_a_handler_is_raised_at_the_end() -> None:
    def broken(exchange: object) -> None:
        raise KeyError("a mistake in the test")

    with pytest.raises(ExceptionGroup, match="Index failed"), Index() as index:
        index.answer("/x", broken)
        with pytest.raises(http.client.RemoteDisconnected):
            get(f"{index.origin}/x")
        wait_for(lambda: index._server.faults)


def test_closing_ends_what_hangs() -> None:
    with Index() as index:
        parts = urlsplit(index.origin)
        index.answer("/hang", hang)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        connection.request("GET", "/hang")
        wait_for(lambda: index.requests)
    with pytest.raises(ConnectionError):
        connection.getresponse()
    connection.close()


def test_wait_for() -> None:
    values = iter([0, 0, 3])
    assert wait_for(lambda: next(values)) == 3
    with pytest.raises(TimeoutError, match="not true within"):
        wait_for(lambda: False, deadline_sec=0.02)


FULL = {
    "title": "t" * 256,
    "description": "d" * 3000,
    "url": "https://example.com/",
    "color": 0xFF0000,
    "timestamp": "2024-01-01T00:00:00Z",
    "fields": [{"name": "n", "value": "v" * 100}] * 25,
    "footer": {"text": "f"},
    "author": {"name": "a" * 117},
}


def test_discord_takes_what_is_just_within_the_limits(discord: Discord) -> None:
    assert get(discord.url, **{"User-Agent": AGENT})[0] == 200
    counted = 256 + 3000 + 25 * 101 + 1 + 117
    payload = {"content": "c" * 2000, "embeds": [FULL, {"title": "r" * 101}]}
    assert counted + 101 == 6000
    status, answer = post(f"{discord.url}?wait=true", payload)
    assert (status, answer["content"]) == (200, "c" * 2000)
    assert int(answer["id"]) > 0
    assert post(discord.url, {"content": "no wait"}) == (204, b"")
    assert [message.payload["content"][0] for message in discord.messages] == ["c", "n"]
    assert discord.messages[0].payload == payload
    assert discord.refusals == []


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        ({"content": "c" * 2001}, "content"),
        ({"content": 7}, "content"),
        ({"content": "\ud800"}, "payload"),
        ({"embeds": [{"title": "t" * 257}]}, "embeds.0.title"),
        ({"embeds": [{"description": "d" * 4097}]}, "embeds.0.description"),
        ({"embeds": [{}]}, "embeds.0.description"),
        ({"embeds": [{"title": "t"}] * 11}, "embeds"),
        ({"embeds": [FULL, {"title": "r" * 102}]}, "embeds"),
        ({"embeds": {"title": "t"}}, "embeds"),
        ({"embeds": [{"fields": [{"name": "n", "value": "v"}] * 26}]}, "embeds.0.fields"),
        ({"embeds": [{"fields": [{"name": "n" * 257, "value": "v"}]}]}, "embeds.0.fields.0.name"),
        ({"embeds": [{"fields": [{"name": " ", "value": "v"}]}]}, "embeds.0.fields.0.name"),
        ({"embeds": [{"fields": [{"name": "n", "value": "v" * 1025}]}]}, "embeds.0.fields.0.value"),
        ({"embeds": [{"fields": [{"name": "n", "value": ""}]}]}, "embeds.0.fields.0.value"),
        ({"embeds": [{"fields": [{"name": "n"}]}]}, "embeds.0.fields.0.value"),
        ({"embeds": [{"footer": {"text": "f" * 2049}}]}, "embeds.0.footer.text"),
        ({"embeds": [{"author": {"name": "a" * 257}}]}, "embeds.0.author.name"),
        ({"embeds": [{"title": "t", "url": "javascript:alert(1)"}]}, "embeds.0.url"),
        ({"embeds": [{"title": "t", "url": "https://"}]}, "embeds.0.url"),
        ({"embeds": [{"image": {"url": "attachment://not-sent.png"}}]}, "embeds.0.image.url"),
        ({"embeds": [{"title": "t", "color": "#ff0000"}]}, "embeds.0.color"),
        ({"embeds": [{"title": "t", "timestamp": "yesterday"}]}, "embeds.0.timestamp"),
    ],
)
def test_discord_refuses_what_breaks_a_limit(discord: Discord, payload: object, where: str) -> None:
    status, answer = post(f"{discord.url}?wait=true", payload)
    assert (status, answer["code"]) == (400, 50035)
    node = answer["errors"]
    for step in where.split("."):
        node = node[step]
    assert node["_errors"][0]["message"]
    assert discord.messages == []
    assert discord.refusals == [answer]


def test_discord_refuses_what_is_no_message(discord: Discord) -> None:
    json_headers = {"Content-Type": "application/json", "User-Agent": AGENT}
    assert post(discord.url, {"content": " "})[1]["code"] == 50006
    assert post(discord.url, [])[1]["code"] == 50109
    assert send(discord.url, "POST", b'{"content": NaN}', json_headers)[0] == 400
    assert send(discord.url, "POST", b'{"content": "\xff"}', json_headers)[0] == 400
    assert send(discord.url, "POST", b'{"content": "x"}', {"User-Agent": AGENT})[0] == 400
    assert post(discord.url + "x", {"content": "x"})[0] == 401
    assert post(f"{discord.origin}/api/webhooks/1/x", {"content": "x"})[0] == 404
    urllibs = {"Content-Type": "application/json", "User-Agent": "Python-urllib/3.11"}
    assert send(discord.url, "POST", b'{"content": "x"}', urllibs)[0::2] == (
        403,
        b"error code: 1010",
    )
    assert discord.messages == []


def test_discord_takes_attachments_byte_for_byte(discord: Discord) -> None:
    headers = {"Content-Type": 'multipart/form-data; boundary="bound"', "User-Agent": AGENT}
    data = bytes(range(256)) + b"\r\n\r\n--boun\r\n\n\r"
    payload = ('Content-Disposition: form-data; name="payload_json"', b'{"content": "x"}')
    file = 'Content-Disposition: form-data; name="files[%d]"; filename="f%d"\r\n'
    file += "Content-Type: application/x"
    body = multipart("bound", payload, *((file % (n, n), data) for n in range(10)))
    status, _, answer = send(f"{discord.url}?wait=true", "POST", body, headers)
    assert (status, len(json.loads(answer)["attachments"])) == (200, 10)
    assert discord.messages[0].files == {f"f{n}": data for n in range(10)}

    def refused(body: bytes) -> int:
        return send(discord.url, "POST", body, headers)[0]

    assert refused(multipart("bound", payload, *((file % (n, n), b"") for n in range(11)))) == 400
    assert refused(multipart("bound", payload, (file % (0, 0), b""), (file % (1, 0), b""))) == 400
    assert refused(multipart("other", payload)) == 400
    assert refused(body[:-4]) == 400
    assert refused(multipart("bound", (file % (0, 0), bytes(10 * 1024**2)))) == 413
    assert len(discord.messages) == 1


@pytest.mark.parametrize(
    ("step", "status", "answer"),
    [
        (too_many(0.25), 429, {"retry_after": 0.25, "global": False}),
        (too_many(0.25, everywhere=True), 429, {"retry_after": 0.25, "global": True}),
        (too_many_header(2), 429, b""),
        (json_reply(400, {"code": 50035}), 400, {"code": 50035}),
        (Reply(500, "oops"), 500, b"oops"),
        (redirect("http://127.0.0.1:1/", 307), 307, b""),
    ],
)
def test_discord_answers_as_scripted(
    discord: Discord, step: Reply, status: int, answer: Any
) -> None:
    discord.script(step, None)
    found_status, found = post(discord.url, {"content": "x"})
    assert found_status == status
    assert found == answer or answer.items() <= found.items()
    assert discord.messages == []
    assert post(discord.url, {"content": "x"})[0] == 204
    assert len(discord.attempts) == 2


def test_discord_rate_limit_headers(discord: Discord) -> None:
    discord.script(too_many(0.25), too_many_html(3))
    headers = {"User-Agent": AGENT}
    assert send(discord.url, "POST", b"", headers)[1]["Retry-After"] == "1"
    _, found, body = send(discord.url, "POST", b"", headers)
    assert (found["Retry-After"], found.get_content_type()) == ("3", "text/html")
    assert body.startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("step", "recorded", "error"),
    [(drop, 0, ConnectionError), (LOST_ANSWER, 1, ConnectionError), (hang, 0, TimeoutError)],
)
def test_discord_loses_answers(
    discord: Discord, step: Any, recorded: int, error: type[Exception]
) -> None:
    discord.script(step)
    with pytest.raises(error):
        post(discord.url, {"content": "x"}, timeout_sec=0.2)
    assert len(discord.messages) == recorded


def test_discord_answers_slowly(discord: Discord) -> None:
    discord.script(SLOW_ANSWER)
    start = time.monotonic()
    assert post(discord.url, {"content": "x"}) == (200, {"id": "1"})
    assert time.monotonic() - start > 0.2
    assert len(discord.messages) == 1
