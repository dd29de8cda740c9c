"""Questions for names that come as requests of HTTP: RFC 8484, and the JSON of public resolvers.

Who asks so is seen by no resolver: the decoy internet answers, and knows the same names. Hostile
input: URLs and bodies.
"""

import base64
import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from jail.watch.http_request import HttpRequest
from jail.watch.names import KIND_NAMES, MAX_NAME_CHARS, TTL_SEC, Kind, reply
from jail.watch.resolver import MALFORMED, MAX_MESSAGE_BYTES, Records, parse_question

PATHS = ("/dns-query", "/resolve")
MESSAGE_TYPE, JSON_NAMES_TYPE = "application/dns-message", "application/dns-json"
NO_SUCH_NAME = 3
MAX_FIELDS_OF_QUERY = 20
KINDS_BY_NAME = {name: kind for kind, name in KIND_NAMES.items()}
KIND_NUMBER = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True)
class HttpsQuestion:
    """A question for a name; `message` is empty where it came as fields of a query."""

    name: str
    kind: int
    message: bytes = b""
    end: int = 0

    def answer(self, records: Records | None) -> tuple[str, bytes]:
        """The type and the body of the response, in the form of the question."""
        if self.message:
            return MESSAGE_TYPE, reply(self.message, self.end, records)
        about: dict[str, object] = {"Status": 0 if records is not None else NO_SUCH_NAME}
        about |= {"Question": [{"name": f"{self.name}.", "type": self.kind}]}
        about["Answer"] = [
            {"name": f"{self.name}.", "type": kind, "TTL": TTL_SEC, "data": data_text(kind, data)}
            for kind, data in records or ()
        ]
        return JSON_NAMES_TYPE, json.dumps(about).encode()


def question_in(request: HttpRequest, url: str) -> HttpsQuestion | None:
    """The question of a request; None where it is none.

    `/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB`, the same as a body, or
    `/resolve?name=www.example.com&type=TXT`.
    """
    parts = urlsplit(url)
    if parts.path not in PATHS:
        return None
    if request.value("content-type").lower() == MESSAGE_TYPE:
        return question_of_message(bytes(request.body.start[:MAX_MESSAGE_BYTES]))
    try:
        fields = dict(parse_qsl(parts.query, max_num_fields=MAX_FIELDS_OF_QUERY))
        if "dns" in fields:
            coded = fields["dns"][:MAX_MESSAGE_BYTES]
            return question_of_message(base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
    except ValueError:
        return None
    name = fields.get("name", "").rstrip(".").lower()
    kind = fields.get("type", "A").upper()
    number = int(kind) if KIND_NUMBER.fullmatch(kind) else KINDS_BY_NAME.get(kind, 0)
    is_name = 0 < len(name) <= MAX_NAME_CHARS and name.isascii() and name.isprintable()
    return HttpsQuestion(name, number) if is_name else None


def question_of_message(message: bytes) -> HttpsQuestion | None:
    question = parse_question(message)
    if question is MALFORMED or message[4:6] != b"\0\1":
        return None
    return HttpsQuestion(question.name.lower(), question.kind, message, question.end)


def data_text(kind: int, data: bytes) -> str:
    """A record as people write it: `93.184.216.34`, `"text"`, `10 mail.example.com.`."""
    match kind:
        case Kind.A:
            return str(ipaddress.IPv4Address(data))
        case Kind.TXT:
            return json.dumps(data[1:].decode("utf-8", "replace"))
        case Kind.MX:
            return f"{int.from_bytes(data[:2])} {name_text(data[2:])}"
    return name_text(data)


def name_text(data: bytes) -> str:
    """`07 e x a m p l e 03 c o m 00`: "example.com."."""
    return "".join(f"{label}." for label in labels_of(data))


def labels_of(data: bytes) -> Iterable[str]:
    at = 0
    while at < len(data) and data[at]:
        yield data[at + 1 : at + 1 + data[at]].decode("latin-1")
        at += 1 + data[at]
