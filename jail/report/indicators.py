"""What to look for elsewhere: names, URLs and addresses that the package reached for, and the
hashes of its files.

Nothing that the decoy internet made up, nothing that is ours, and no host that very many reach for:
of these only the full URL of what somebody has put there.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from jail.report.lists import Item

MAX_INDICATORS = 200
MAX_INDICATOR_CHARS = 300
MAX_LABEL_CHARS = 24  # of a name; longer labels carry data, such as what was stolen
# Shorter labels carry data where so many of one domain are asked for: what was sent in names.
CODED_LABEL = re.compile(r"[0-9a-f]{12,}|[a-z2-7]{16,}", re.ASCII)
MIN_CODED_NAMES = 3
MAX_BAIT_PATH_CHARS = 60  # of a URL that carries bait
# Whoever asks them is not known by that. Names below them neither.
WELL_KNOWN_HOSTS = """
adobe.com akamai.net amazon.com amazontrust.com anaconda.com anaconda.org apache.org apple.com
archive.org arxiv.org atlassian.com atlassian.net baidu.com bing.com bitbucket.org
checkip.amazonaws.com cloudflare-dns.com cloudflare.com cloudflare.net conda.io debian.org
digicert.com discord.com discord.gg discordapp.com discordapp.net dns.google docker.com docker.io
dropbox.com dropboxapi.com duckduckgo.com elastic.co example.com example.edu example.net example.org
facebook.com fastly.net fedoraproject.org freegeoip.app geojs.io geolocation-db.com ghcr.io
github.com githubassets.com githubusercontent.com gitlab.com gnu.org gofile.io golang.org
google-analytics.com google.com googleapis.com googletagmanager.com googleusercontent.com
gravatar.com gstatic.com hf.co httpbin.org huggingface.co icanhazip.com ident.me ifconfig.co
ifconfig.io ifconfig.me ip-api.com ip.sb ipapi.co ipecho.net ipify.org ipinfo.io ipwho.is
ipwhois.app jsdelivr.net jsonip.com kernel.org letsencrypt.org linkedin.com live.com mega.nz
microsoft.com microsoftonline.com mozilla.com mozilla.org myexternalip.com myip.com nodejs.org
ntp.org office.com office365.com openai.com oracle.com pastebin.com pool.ntp.org pypa.io python.org
pytorch.org quad9.net readthedocs.io readthedocs.org reddit.com redhat.com rust-lang.org seeip.org
sentry.io slack.com sourceforge.net stackoverflow.com statuspage.io steampowered.com t.me
telegram.org tensorflow.org transfer.sh twitter.com ubuntu.com unpkg.com user-agent.io verisign.com
wikimedia.org wikipedia.org windows.com windowsupdate.com wtfismyip.com x.com yahoo.com yandex.ru
youtube.com
"""
WELL_KNOWN_SUFFIXES = frozenset(WELL_KNOWN_HOSTS.split())
# What jail/inside/made_up.py calls functions with.
ARGUMENTS = frozenset({"203.0.113.7"})
# What somebody has put on such a host: a webhook, a bot, a repository, a paste.
PUT_THERE = (
    (r"(?:.+\.)?discord(?:app)?\.com", r"/api/(?:v[0-9]+/)?webhooks/[0-9]+/[\w-]+"),
    (r"api\.telegram\.org", r"/bot[\w:-]+"),
    (r"hooks\.slack\.com", r"/services/[\w/]+"),
    (r"(?:gist\.)?github\.com|(?:raw|gist)\.githubusercontent\.com", r"/[^/]+/[^/]+(?:/.*)?"),
    (r"(?:gitlab|bitbucket)\.(?:com|org)", r"/[^/]+/[^/]+(?:/.*)?"),
    (r"api\.github\.com", r"/(?:repos|gists)/[^/]+(?:/.*)?"),
    (r"pastebin\.com", r"/(?:raw/)?\w{6,}"),
    (r"cdn\.discordapp\.com", r"/attachments/.+"),
)
# The resolvers that all ask; and what is nobody's address on the internet.
RESOLVERS = "1.1.1.1 1.0.0.1 8.8.8.8 8.8.4.4 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220"
KNOWN_ADDRESSES = frozenset(RESOLVERS.split())
NOBODYS = [
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10"),
        *("ff00::/8",),
    )
]
# Two labels at least; the last is no number, and not one of the machine's own.
PUBLIC_NAME = re.compile(
    r"(?!.*\.(?:arpa|home|internal|invalid|lan|local|localdomain|localhost|onion\.invalid)\Z)"
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{1,62}",
    re.ASCII,
)


@dataclass(frozen=True)
class OwnWords:
    """What is ours, or made up, and so tells nothing of the package.

    Args:
        wholes: addresses, and parts of the path of a URL.
        parts: texts anywhere in a URL: marks, decoys' values.
        hosts: of the index, and what functions are called with.
        knows_addresses: whether `wholes` has all the addresses that were made up.
    """

    wholes: frozenset[str] = frozenset()
    parts: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    knows_addresses: bool = True


@dataclass
class Indicators:
    """Collects them: of each kind its values, with where they come from first."""

    own: OwnWords
    drains: frozenset[str] = frozenset()  # domains below which names carry data
    found: dict[tuple[str, str], Item] = field(default_factory=dict)

    def add(self, kind: str, value: str, item: Mapping[str, object]) -> None:
        """Keep an indicator that is new and short enough, while there is room."""
        if len(value) <= MAX_INDICATOR_CHARS and len(self.found) < MAX_INDICATORS:
            about = {"phase": item.get("phase"), "place": item.get("place")}
            self.found.setdefault((kind, value), {"kind": kind, "value": value} | about)

    def add_host(self, host: str, item: Mapping[str, object]) -> None:
        """A name or an address, if it may be told."""
        if is_address(host):
            if self.is_the_package_s(host):
                self.add("address", host, item)
            return
        name = without_data(host.lower().rstrip("."))
        bare = without_code(name)
        name = bare if bare in self.drains else name
        is_ours = any(part.lower() in name for part in self.own.parts)
        if PUBLIC_NAME.fullmatch(name) and not is_ours and not self.is_well_known(name):
            self.add("name", name, item)

    def is_the_package_s(self, address: str) -> bool:
        """Whether nobody but the package has named an address."""
        is_told = address in self.own.wholes | ARGUMENTS or not self.own.knows_addresses
        return is_public(address) and not is_told

    def is_well_known(self, name: str) -> bool:
        labels = name.split(".")
        above = {".".join(labels[number:]) for number in range(len(labels))}
        return not above.isdisjoint(WELL_KNOWN_SUFFIXES | ARGUMENTS | self.own.hosts)

    def add_url(self, item: Mapping[str, object]) -> None:
        """The URL of a request, if it may be told, and its host. A query says more of the victim
        than of the thief.
        """
        try:
            parts = urlsplit(str(item["url"]))
            host = (parts.hostname or "").lower()
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return
        self.add_host(host, item)
        path = parts.path or "/"
        is_cut = self.is_made_up(path) or (item["bait"] and len(path) > MAX_BAIT_PATH_CHARS)
        is_told = self.may_be_told(host, path)
        if is_told and not is_cut and re.fullmatch(r"[!-~]*", path):
            shown = f"[{host}]" if ":" in host else host
            self.add("url", f"{parts.scheme}://{shown}{port}{path}", item)

    def is_made_up(self, path: str) -> bool:
        """Whether a path has something in it that we have told the package."""
        is_told = any(part in path for part in self.own.parts)
        return is_told or not self.own.wholes.isdisjoint(path.split("/"))

    def may_be_told(self, host: str, path: str) -> bool:
        if is_address(host):
            return self.is_the_package_s(host)
        if not self.is_well_known(host):
            return PUBLIC_NAME.fullmatch(host) is not None
        return any(
            re.fullmatch(hosts, host) and re.match(paths, path, re.ASCII)
            for hosts, paths in PUT_THERE
        )


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(host: str) -> bool:
    """Whether an address can be somebody's."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    in_use = not any(address.version == net.version and address in net for net in NOBODYS)
    return in_use and str(address) not in KNOWN_ADDRESSES


def without_data(name: str) -> str:
    """A name from after the last label that carries data on.

    >>> without_data("4a6f686e2d6c6170746f702d6c6f6f74.x.evil.example")
    'x.evil.example'
    """
    labels = name.split(".")
    long = [number for number, label in enumerate(labels) if len(label) > MAX_LABEL_CHARS]
    return ".".join(labels[max(long) + 1 :]) if long else name


def without_code(name: str) -> str:
    """A name from after the last label that may be an encoded text on.

    >>> without_code("7.38623638643634346137.x.evil.example")
    'x.evil.example'
    """
    labels = name.split(".")
    coded = [number for number, label in enumerate(labels) if CODED_LABEL.fullmatch(label)]
    return ".".join(labels[max(coded) + 1 :]) if coded else name


def find_drains(names: Iterable[str]) -> frozenset[str]:
    """The domains below which many names carry data."""
    counts = Counter(without_code(name) for name in set(names) if without_code(name) != name)
    return frozenset(domain for domain in counts if counts[domain] >= MIN_CODED_NAMES)


def find_indicators(lists: Mapping[str, Sequence[Item]], project: str, own: OwnWords) -> list[Item]:
    """The indicators of a report, the hashes first.

    Args:
        lists: those of the report.
        project: whose files are told by their hash.
    """
    asked = [item["target"].lower() for item in lists["network"] if item["kind"] == "dns"]
    found = Indicators(own, find_drains(asked))
    for item in lists["downloads"]:
        if is_file_of(project, item["file"]):
            found.add("sha256", item["sha256"], {"phase": "install", "place": item["file"]})
    for item in lists["requests"]:
        found.add_url(item)
    for item in lists["network"]:
        for host in hosts_of(item):
            found.add_host(host, item)
    return list(found.found.values())


def hosts_of(item: Item) -> Iterator[str]:
    """What a connection or a question was meant for: an address only where no name stands for it.

    `"target": "203.0.113.66:4444"`, `"target": "exfil.badhost.example"`, `"target": "[::1]:80"`;
    what a package listens on is no far end.
    """
    if item["kind"] == "other":
        return
    if item["tls"] and item["tls"]["sni"]:
        yield item["tls"]["sni"]
    if item["name"]:
        yield item["name"]
    elif item["kind"] == "dns":
        yield item["target"]
    else:
        yield item["target"].rpartition(":")[0].strip("[]")


def is_file_of(project: str, file: str) -> bool:
    """Whether a file is of the project, whose name is in its canonical form."""
    start = file.split("-")[0] if file.endswith(".whl") else file.rpartition("-")[0]
    return re.sub(r"[-_.]+", "-", start).lower() == project
