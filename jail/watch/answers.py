"""What the decoy internet answers to a request: two tables, by host and path and by extension.

Where programs expect a certain form, they get it; all else is what may be wanted by its name, by
the Accept header, or by its path. What is served is made by stubs.py and carries a mark.
"""

import base64
import bz2
import hashlib
import lzma
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jail.watch import stubs
from jail.watch.http_request import HttpRequest

PLAIN_TYPE, HTML_TYPE, JSON_TYPE = (
    "text/plain; charset=utf-8",
    "text/html; charset=utf-8",
    "application/json",
)
BINARY = "application/octet-stream"
GIVES = ("GET", "HEAD")
# Parts of the URLs below that no package has named.
MADE_UP_PARTS = ("v0.0.0", "tool.zip")


@dataclass(frozen=True)
class Given:
    """A response without its usual headers. `refused`: the package did not get what it wanted."""

    status: int
    content_type: str = PLAIN_TYPE
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    refused: bool = False


@dataclass(frozen=True)
class Asked:
    """A request as the tables see it: host and path in lower case, the URL as it was."""

    request: HttpRequest
    url: str
    host: str
    path: str
    query: str
    mark: str
    public_address: str

    @property
    def stem(self) -> str:
        """The last part of the URL's path without its extensions, fit to be a file's name."""
        name = self.url.split("?")[0].rstrip("/").rpartition("/")[2]
        bare = re.sub(r"\.(?:tar\.)?[A-Za-z0-9]{1,5}\Z", "", name)
        return re.sub(r"[^A-Za-z0-9_.-]", "", bare)[:80].lstrip(".") or "package"

    @property
    def token(self) -> str:
        """Letters as services give them for what was uploaded; no mark."""
        return token_of(self.mark)

    def text(self, template: str) -> bytes:
        return stubs.text(template, self.mark)


def token_of(mark: str) -> str:
    """The token that stands for what is served from the URL with this mark."""
    return hashlib.sha256(mark.encode()).hexdigest()[:10]


def text_of(template: str) -> Callable[[Asked], Given]:
    return lambda asked: Given(200, PLAIN_TYPE, asked.text(template))


def json_answer(content: Any, status: int = 200) -> Given:
    return Given(status, JSON_TYPE, stubs.json_text(content))


def anything(asked: Asked) -> Given:
    """JSON in which many programs find what they look for; whoever runs a text of it, tells."""
    script = stubs.coded_first(asked.mark).decode()
    command = f"/bin/true {asked.mark}"
    link = f"https://{asked.host}/{asked.token}"
    about: dict[str, Any] = {
        "ok": True,
        "success": True,
        "status": "ok",
        "message": "ok",
        "error": None,
    }
    about |= {"id": asked.mark, "token": asked.mark, "version": "0.0.0", "url": link}
    about |= {"link": link, "data": {}, "result": {}, "results": [], "items": []}
    about |= {"code": script, "payload": script, "script": script, "content": script}
    about |= {"cmd": command, "command": command}
    return json_answer(about)


def refuse(asked: Asked) -> Given:
    return Given(404, HTML_TYPE, b"<html><body>404 Not Found</body></html>\n", refused=True)


def public_address(asked: Asked) -> Given:
    if "json" in asked.query or "json" in asked.path:
        return json_answer({"ip": asked.public_address})
    return Given(200, PLAIN_TYPE, asked.public_address.encode() + b"\n")


def whereabouts(asked: Asked) -> Given:
    if asked.path.endswith(("/ip", "/ip/")):
        return public_address(asked)
    address = asked.public_address
    about: dict[str, Any] = {"status": "success", "success": True, "ip": address, "query": address}
    about |= {"origin": address, "city": "Columbus", "region": "Ohio", "regionName": "Ohio"}
    about |= {"country": "US", "countryCode": "US", "country_code": "US", "zip": "43215"}
    about |= {"country_name": "United States", "postal": "43215", "loc": "39.9612,-82.9988"}
    about |= {"lat": 39.9612, "lon": -82.9988, "latitude": 39.9612, "longitude": -82.9988}
    about |= {"timezone": "America/New_York", "org": "AS7018 AT&T Services", "isp": "AT&T"}
    return json_answer(about)


def discord_webhook(asked: Asked) -> Given:
    if asked.request.method not in GIVES and "wait=true" not in asked.query:
        return Given(204)
    return json_answer({"id": "1290000000000000000", "type": 1, "name": "Captain", "content": ""})


def discord(asked: Asked) -> Given:
    user = {"id": "1290000000000000001", "username": "dev", "email": "dev@example.com"}
    return json_answer({**user, "verified": True, "mfa_enabled": False, "premium_type": 0})


def telegram(asked: Asked) -> Given:
    if asked.path.endswith("getupdates"):
        return json_answer({"ok": True, "result": []})
    message = {"message_id": 1, "date": 1767605400, "id": 7000000001, "is_bot": True}
    return json_answer({"ok": True, "result": {**message, "chat": {"id": 1, "type": "private"}}})


def release(asked: Asked) -> dict[str, Any]:
    owner = "/".join(asked.path.split("/")[2:4])
    page = f"https://github.com/{owner}/releases"
    assets = [{"name": "tool.zip", "browser_download_url": f"{page}/download/v0.0.0/tool.zip"}]
    about = {"tag_name": "v0.0.0", "name": "v0.0.0", "html_url": page, "body": asked.mark}
    return {**about, "prerelease": False, "draft": False, "assets": assets}


def github(asked: Asked) -> Given:
    if asked.path.endswith("/releases/latest"):
        return json_answer(release(asked))
    if asked.path.endswith("/releases"):
        return json_answer([release(asked)])
    if asked.request.method not in GIVES:
        page = f"https://gist.github.com/{asked.token}"
        return json_answer({"id": asked.token, "url": page, "html_url": page, "sha": ""}, 201)
    content = base64.b64encode(asked.text(stubs.SHELL_OR_PYTHON)).decode()
    about = {"login": "dev", "id": 1, "name": "dev", "full_name": "dev/dev", "private": False}
    return json_answer({**about, "encoding": "base64", "content": content, "sha": asked.token})


def git(asked: Asked) -> Given:
    """A repository that is not for everybody: git keeps name and password until it is asked."""
    if asked.request.value("authorization"):
        return refuse(asked)
    ask = ("WWW-Authenticate", 'Basic realm="Git"')
    return Given(401, PLAIN_TYPE, b"Authentication required\n", (ask,), refused=True)


def uploaded(asked: Asked) -> Given:
    """Where the upload can be fetched, as a line of text."""
    if asked.request.method in GIVES:
        return by_its_look(asked)
    return Given(200, PLAIN_TYPE, f"https://{asked.host}/{asked.token}\n".encode())


def stored(asked: Asked) -> Given:
    """The same, and the servers to upload to, as JSON."""
    link = f"https://{asked.host}/{asked.token}"
    data = {"server": "store1", "servers": [{"name": "store1"}], "downloadPage": link}
    return json_answer({"success": True, "status": "ok", "link": link, "url": link, "data": data})


def package_page(asked: Asked) -> Given:
    info = {"name": asked.path.split("/")[2], "version": "0.0.0", "yanked": False, "summary": ""}
    return json_answer({"info": info, "releases": {}, "urls": [], "last_serial": 1})


def index_page(asked: Asked) -> Given:
    """What pip finds when it looks for a project: one wheel."""
    name = re.sub(r"[^a-z0-9]+", "_", asked.path.split("/")[2])
    file = f"{name}-1.0-py3-none-any.whl"
    anchor = f'<a href="/files/{file}">{file}</a>'
    return Given(200, HTML_TYPE, asked.text(stubs.HTML).replace(b"It works.", anchor.encode()))


@dataclass(frozen=True)
class WellKnown:
    """Requests to hosts and paths that match are answered by `make`."""

    host: str
    path: str
    make: Callable[[Asked], Given]


WHEREABOUTS = r"ipinfo\.io|ip-api\.com|ipapi\.co|ipwho\.is|(?:.*\.)?(?:geojs\.io|seeip\.org)"
WHEREABOUTS += r"|freegeoip\.app|ipwhois\.app|geolocation-db\.com|jsonip\.com|api\.myip\.com"
ADDRESS_HOSTS = (
    r"(?:.*\.)?(?:ipify\.org|icanhazip\.com|ident\.me|ipecho\.net|myexternalip\.com|ip\.sb)"
)
ADDRESS_HOSTS += (
    r"|(?:.*\.)?(?:ifconfig\.(?:me|co|io)|wtfismyip\.com|my-ip\.io|eth0\.me)|checkip\..*"
)
LINES = r"(?:.*\.)?(?:transfer\.sh|0x0\.st|bashupload\.com|catbox\.moe|temp\.sh|pastebin\.com)"
STORES = r"(?:.*\.)?(?:file\.io|gofile\.io|anonfiles\.com|tmpfiles\.org|pixeldrain\.com)"
METADATA = r"169\.254\.[0-9.]+|100\.100\.100\.200|fd00:ec2::254|metadata(?:\..*)?"
ROWS = (
    WellKnown(METADATA, ".*", refuse),
    WellKnown(".*", r"/(?:latest/(?:meta-data|api/token|user-data)|computemetadata/).*", refuse),
    WellKnown(WHEREABOUTS, ".*", whereabouts),
    WellKnown(r"httpbin\.org", "/ip", whereabouts),
    WellKnown(ADDRESS_HOSTS, ".*", public_address),
    WellKnown(r"(?:.*\.)?discord(?:app)?\.com", r"/api(?:/v[0-9]+)?/webhooks/.*", discord_webhook),
    WellKnown(r"(?:.*\.)?discord(?:app)?\.com", "/api/.*", discord),
    WellKnown(r"api\.telegram\.org", "/bot.*", telegram),
    WellKnown(r"hooks\.slack\.com", ".*", lambda asked: Given(200, PLAIN_TYPE, b"ok")),
    WellKnown(r"api\.github\.com", ".*", github),
    WellKnown(".*", r".*/info/refs", git),
    WellKnown(LINES, ".*", uploaded),
    WellKnown(STORES, ".*", stored),
    WellKnown(".*", r"/pypi/[^/]+/(?:[^/]+/)?json", package_page),
    WellKnown(".*", r"/simple/[^/]+/", index_page),
)


def archive(asked: Asked) -> Given:
    files = stubs.archive_files(asked.stem, asked.mark)
    return Given(200, "application/zip", stubs.zip_of(files, asked.mark))


def tar(pack: Callable[[bytes, str], bytes]) -> Callable[[Asked], Given]:
    def make(asked: Asked) -> Given:
        files = stubs.tar_of(stubs.archive_files(asked.stem, asked.mark))
        return Given(200, BINARY, pack(files, asked.mark))

    return make


def packed_script(asked: Asked) -> Given:
    """A file that is compressed, and no archive."""
    if ".tar." in asked.path:
        return tar(stubs.gzip_of)(asked)
    return Given(200, BINARY, stubs.gzip_of(asked.text(stubs.SHELL), asked.mark))


def coded(asked: Asked) -> Given:
    return Given(200, PLAIN_TYPE, stubs.coded_first(asked.mark))


EXTENSIONS: tuple[tuple[str, Callable[[Asked], Given]], ...] = (
    ("py pyw", text_of(stubs.PYTHON)),
    ("sh bash zsh", text_of(stubs.SHELL)),
    ("js mjs cjs ts", text_of(stubs.JAVASCRIPT)),
    ("ps1 psm1 rb pl yml yaml toml cfg conf env md list", text_of(stubs.HASH_COMMENT)),
    ("ini reg", text_of(stubs.SEMICOLON_COMMENT)),
    ("bat cmd vbs", text_of(stubs.REM_COMMENT)),
    ("txt b64 base64 enc", coded),
    ("csv", text_of("id,build\n1,{mark}\n")),
    ("json webmanifest map", anything),
    ("html htm xhtml", lambda asked: Given(200, HTML_TYPE, asked.text(stubs.HTML))),
    ("xml rss svg", lambda asked: Given(200, "application/xml", asked.text(stubs.XML))),
    ("css", lambda asked: Given(200, "text/css", asked.text(stubs.STYLE))),
    ("pdf", lambda asked: Given(200, "application/pdf", asked.text(stubs.PDF))),
    (
        "png jpg jpeg gif ico webp bmp",
        lambda asked: Given(200, "image/png", stubs.png(asked.mark)),
    ),
    ("exe dll msi scr", lambda asked: Given(200, BINARY, stubs.windows_program(asked.mark))),
    ("whl", lambda asked: Given(200, BINARY, stubs.wheel(asked.stem, asked.mark))),
    ("zip xpi crx vsix apk jar", archive),
    ("tar", tar(lambda files, mark: files)),
    ("tgz", tar(stubs.gzip_of)),
    ("xz txz", tar(lambda files, mark: lzma.compress(files))),
    ("bz2 tbz", tar(lambda files, mark: bz2.compress(files))),
    ("gz", packed_script),
)
BY_EXTENSION = {word: make for words, make in EXTENSIONS for word in words.split()}
# Where texts are kept that nobody runs as they are. "api.example.com", "/api/", "/v2/".
PASTES = re.compile(r"(?:.*\.)?(?:pastebin|rentry|hastebin|dpaste|ghostbin|controlc|paste)\..*")
LOOKS_LIKE_API = re.compile(r"(?:.*\.)?api[.-].*|[^/]*/(?:.*/)?(?:api|v[0-9]+|graphql)(?:/.*)?")


def by_its_look(asked: Asked) -> Given:
    """What nobody knows a form for: by extension, method, Accept, and the look of the URL."""
    accept = asked.request.value("accept").lower()
    make = BY_EXTENSION.get(asked.path.rpartition("/")[2].rpartition(".")[2])
    if make and "." in asked.path.rpartition("/")[2] and asked.request.method in GIVES:
        return make(asked)
    if asked.request.method == "OPTIONS":
        return Given(204, headers=(("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),))
    if asked.request.method not in GIVES:
        return anything(asked)
    if "json" in accept.split("text/html")[0]:
        return anything(asked)
    if "text/html" in accept:
        return Given(200, HTML_TYPE, asked.text(stubs.HTML))
    if accept.startswith("image/"):
        return Given(200, "image/png", stubs.png(asked.mark))
    if LOOKS_LIKE_API.fullmatch(asked.host + asked.path):
        return anything(asked)
    if PASTES.fullmatch(asked.host):
        return coded(asked)
    return Given(200, PLAIN_TYPE, asked.text(stubs.SHELL_OR_PYTHON))


def answer(asked: Asked) -> Given:
    """What a request is answered with."""
    # Another protocol over this connection is not spoken here.
    if asked.request.value("upgrade"):
        return Given(403, refused=True)
    for row in ROWS:
        if re.fullmatch(row.host, asked.host) and re.fullmatch(row.path, asked.path, re.DOTALL):
            return row.make(asked)
    return by_its_look(asked)
