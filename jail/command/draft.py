# What a person may report of a run: drafts, made from the report alone. Pure functions.
#
# Nothing is sent. Of names, addresses and URLs only those are shown that the report calls
# indicators: no other is known to be the package's, and not made up by the decoy internet. All
# text of a report is a package's own, and is made safe to print where it is put into a line.

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from snakehook import printable_line

RunReport = Mapping[str, Any]

MAX_SHOWN_FINDINGS, MAX_SENT = 12, 12
MAX_SENTENCE_TOLD_CHARS, MAX_DRAFT_LINE_CHARS = 400, 600
MADE_BY = "Draft, made by a machine (snakehook) in run {}: a person must check it. Sent nowhere."
NO_INSPECTOR = "<the index's public inspector>"
OSV_VERSION, ECOSYSTEM = "1.7.0", "PyPI"
WHEN = {
    "install": "installed",
    "start": "in the path of an interpreter that starts",
    "import": "imported",
    "call": "called",
    "execute": "run",
}
WEB_ADDRESS = re.compile(r"https?://[^\s\"'<>|]*[^\s\"'<>|.,;)]")
IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
# What an index's moderators want to read first, of findings that are equally grave.
FIRST_RULES = ("secret.sent", "code.remote", "persistence.write", "secret.read", "code.dynamic")
# Where pip builds an sdist: "/tmp/pip-install-_2263v3d/evil_e4a24eb0/setup.py:4".
BUILD_FOLDER = re.compile(r"/[^\s:]*/pip-install-[^/\s]+/[^/\s]+/")
# Where it is installed: "/srv/site/evil-1.0/lib/python3.11/site-packages/evil/__init__.py:2".
SITE_FOLDER = re.compile(r"/[^\s:]{1,80}/site/[^/\s:]{1,400}/lib/python3\.\d+/site-packages/")
# "setup.py:4"; "<string>:4 from setup.py:9"; "/opt/.../site-packages/evil/__init__.py:2".
PLACE = re.compile(r"([^\s:]+\.py):([0-9]{1,9})\Z")


def indicators(report: RunReport, kind: str) -> list[str]:
    return [str(item["value"]) for item in report["indicators"] if item["kind"] == kind]


def package_of(report: RunReport) -> str:
    request = report["request"]
    return f"{request['package_name']} {request['version']}"


# Without the folders of the sandbox, which say nothing to anybody else.
def without_folders(text: str) -> str:
    return SITE_FOLDER.sub("", BUILD_FOLDER.sub("", text))


# Text of a report, in which no address or URL stands that may have been made up, nor a folder in
# which pip has built or installed it.
def told(report: RunReport, text: str, limit_chars: int = MAX_SENTENCE_TOLD_CHARS) -> str:
    urls, addresses = set(indicators(report, "url")), set(indicators(report, "address"))

    def tell_url(match: re.Match[str]) -> str:
        plain = re.split(r"[?#]", match[0])[0]
        return plain if plain in urls else "[URL]"

    def tell_address(match: re.Match[str]) -> str:
        return match[0] if match[0] in addresses else "[address]"

    text = without_folders(WEB_ADDRESS.sub(tell_url, text))
    return printable_line(IPV4.sub(tell_address, text), limit_chars)


# The findings that a reader wants, the worst first; of one line of code each rule once.
def main_findings(report: RunReport) -> list[Mapping[str, Any]]:
    worst = [item for item in report["findings"] if item["severity"] == report["verdict"]]
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    for item in worst:
        known.setdefault((item["rule"], item["at"] or item["title"]), item)
    return sorted(known.values(), key=rule_rank)[:MAX_SHOWN_FINDINGS]


def rule_rank(item: Mapping[str, Any]) -> int:
    return FIRST_RULES.index(item["rule"]) if item["rule"] in FIRST_RULES else len(FIRST_RULES)


# The release's own files that were loaded.
def files(report: RunReport) -> list[Mapping[str, Any]]:
    hashes = indicators(report, "sha256")
    return [item for item in report["downloads"] if item["sha256"] in hashes]


# Where the inspector shows a line, or the file that it is in where only that is known; "" where the
# file is not the index's.
def link(report: RunReport, place: str, inspector_url: str) -> str:
    match, found = PLACE.search(place), [item for item in files(report) if item.get("url")]
    if not match or not found:
        return ""
    request, path = report["request"], urlsplit(found[0]["url"]).path
    base = f"{inspector_url or NO_INSPECTOR}/project/{request['package_name']}/{request['version']}"
    name, line = found[0]["file"], match[2]
    built = BUILD_FOLDER.sub("", match[1])
    inside = built.rpartition("/site-packages/")[2].removeprefix("…/").lstrip("/")
    if name.endswith(".whl"):
        return f"{base}{quote(path)}/{quote(inside)}#line.{line}"
    # What was installed may lie somewhere else in an sdist; what built it lies at its place.
    stem = re.sub(r"\.(?:tar\.gz|zip)\Z", "", name)
    known = f"{quote(inside)}#line.{line}" if inside == built else ""
    return f"{base}{quote(path)}/{stem}/{known}"


def sentences(report: RunReport) -> list[str]:
    found = [(item, told(report, item["title"])) for item in main_findings(report)]
    (first, title), others = found[0], [text for _, text in found[1:4]]
    when = WHEN.get(first["phase"], "used")
    at = f" ({told(report, first['at'])})" if first["at"] else ""
    lines = [f"When {package_of(report)} is {when}, this is what it does{at}: {title}."]
    also = f"It also does this: {'; '.join(others)}." if others else "Nothing as grave was seen."
    lines.append(also)
    sent = next(sent_where(report), "")
    reached = ", ".join(indicators(report, "name")[:3] + indicators(report, "address")[:3])
    if sent:
        lines.append(f"It sends out: {sent}.")
    elif reached:
        lines.append(f"It reaches for {reached}.")
    else:
        lines.append("It was not seen to send anything.")
    return [printable_line(line, MAX_SENTENCE_TOLD_CHARS * 2) for line in lines]


# "POST https://c2.example/gate, 512 bytes, with the decoys GITHUB_TOKEN", what carried bait first.
def sent_where(report: RunReport) -> Iterator[str]:
    known: set[str] = set()
    for item in sorted(report["requests"], key=lambda item: not item["bait"]):
        bait = f", with the decoys {', '.join(item['bait'])}" if item["bait"] else ""
        size_bytes = item["body"]["bytes"]
        if not bait and not size_bytes:
            continue
        line = told(report, f"{item['method']} {item['url']}, {size_bytes} bytes{bait}")
        if line not in known and len(known) < MAX_SENT:
            known.add(line)
            yield line
    for item in report["network"]:
        payload = item["payload"]
        if payload and payload["bytes"] and item["kind"] != "other":
            where = item["name"] or item["target"]
            line = told(report, f"{item['kind']} to {where}, {payload['bytes']} bytes")
            if line not in known and len(known) < MAX_SENT:
                known.add(line)
                yield line


# What the form of an index for malware asks for.
def draft_lines(report: RunReport, inspector_url: str) -> Iterator[str]:
    request = report["request"]
    yield MADE_BY.format(report["run_id"])
    yield ""
    yield f"Project: {request['package_name']}"
    yield f"Version: {request['version']}"
    for item in files(report):
        yield f"File:    {item['file']}, {item['bytes']} bytes, sha256 {item['sha256']}"
    # A file in hand, or a sample, has no link.
    if not inspector_url and any(item.get("url") for item in files(report)):
        yield f"Fill in {NO_INSPECTOR}, or set INSPECTOR_URL."
    yield ""
    yield "What it does, in three sentences:"
    for text in sentences(report):
        yield f"  {text}"
    yield ""
    yield "Where:"
    for item in main_findings(report):
        where = ", ".join(filter(None, (item["phase"], item["at"], item["rule"])))
        yield f"  {item['severity']}: {told(report, item['title'])} ({told(report, where)})"
        place = link(report, item["at"] or "", inspector_url)
        if place:
            yield f"    {place}"
    yield ""
    yield "What was sent where (to a decoy internet, which let nothing out):"
    yield from (f"  {line}" for line in list(sent_where(report)) or ["nothing was seen"])


# A draft for a database of malicious packages, in the OSV format. Its number is the database's.
def osv(report: RunReport, inspector_url: str, modified: str) -> dict[str, Any]:
    name = report["request"]["package_name"]
    package = {"ecosystem": ECOSYSTEM, "name": name, "purl": f"pkg:pypi/{name}"}
    places = [link(report, item["at"] or "", inspector_url) for item in main_findings(report)]
    lines = [*sentences(report), MADE_BY.format(report["run_id"])]
    return {
        "schema_version": OSV_VERSION,
        "id": f"MAL-0000-{name}",
        "modified": modified,
        "summary": f"Malicious code in {name} ({ECOSYSTEM})",
        "details": "\n".join(lines),
        "affected": [{"package": package, "versions": [report["request"]["version"]]}],
        "references": [
            {"type": "EVIDENCE", "url": place}
            for place in dict.fromkeys(places)
            if inspector_url and place
        ],
        "credits": [{"name": "snakehook", "type": "TOOL"}],
        "database_specific": {
            "iocs": {
                "domains": indicators(report, "name"),
                "urls": indicators(report, "url"),
                "ip_addresses": indicators(report, "address"),
                "sha256": indicators(report, "sha256"),
            }
        },
    }


# So that nobody follows it by a slip of the finger: hxxps://evil[.]example/x.
def unfollowable(kind: str, value: str) -> str:
    if kind == "sha256":
        return value
    scheme, mark, rest = value.rpartition("://")
    host, slash, path = rest.partition("/")
    host = host.replace(".", "[.]") if "." in host else host.replace(":", "[:]")
    return f"{scheme.replace('http', 'hxxp')}{mark}{host}{slash}{path}"


def indicator_lines(report: RunReport) -> Iterator[str]:
    yield MADE_BY.format(report["run_id"])
    for item in report["indicators"]:
        about = ", ".join(str(item[key]) for key in ("phase", "place") if item.get(key))
        value = unfollowable(item["kind"], str(item["value"]))
        line = f"{item['kind']:8} {value}  ({without_folders(about)})"
        yield printable_line(line, MAX_DRAFT_LINE_CHARS)


def indicators_json(report: RunReport) -> dict[str, Any]:
    head: dict[str, Any] = {"note": MADE_BY.format(report["run_id"]), "run_id": report["run_id"]}
    head |= {key: report["request"][key] for key in ("package_name", "version")}
    return head | {"indicators": list(report["indicators"])}


def safe_lines(lines: Iterable[str]) -> str:
    return "\n".join(printable_line(line, MAX_DRAFT_LINE_CHARS * 2) for line in lines)
