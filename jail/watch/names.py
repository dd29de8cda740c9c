"""The names of the decoy internet: which exist, and under which address.

A name exists where somebody can have registered it. Its address looks public, stays the same for
the run, and is another in the next. Hostile input: names, in any number.
"""

import hashlib
import ipaddress
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

MAX_ADDRESSES = 10_000  # whose addresses are remembered
MAX_NAME_CHARS = 253
MAX_KINDS = 10  # of questions for one name that are told
MAX_TEXT_BYTES = 255  # of a string of a TXT record

# Top-level names, but those of two letters: packages, services and thieves are found under
# them. Who asks for a name under any other wants to know whether somebody makes names up.
TOP_NAMES = """
academy accountant agency ai app art asia auction audio auto autos aws baby band bar best bet bid
bike bio biz black blog blue boats bond boo book build business buzz cafe cam camera camp capital
cards care career cash casino cat cc center ceo cfd channel chat cheap church city claims click
clinic cloud club codes coffee com community company computer cool country courses credit
cricket cyou dad data date day deals delivery design dev digital direct directory discount dog
domains download earth education email energy engineer engineering enterprises equipment
estate eu events exchange expert express faith family fan farm fashion film finance financial
fit fitness flights foo football forum foundation fun fund fyi gallery game games garden gay
gdn gift gifts gives glass global gold golf google gov graphics gratis green group guide guru hair
haus health help homes host hosting house how icu inc info ink institute int international
investments jobs jp kim land law lawyer lease legal lgbt life lighting limited link live loan
loans lol love ltd makeup management market marketing mba media men menu mil mobi moda mom
money monster mov movie museum name navy net network new news ninja nyc observer one online
ooo org page partners parts party pet phd photo photography photos pics pictures pink pizza
place plus press pro productions promo properties protection pub pw quest racing radio recipes
red rent rentals repair report rest restaurant review reviews rip rocks run sale salon sarl
sbs school science services sex sh shoes shop shopping show singles site ski skin soccer social
software solar solutions space sport store stream studio study style support surf surgery
systems taxi team tech technology tel tennis theater tips tires tokyo tools top tours town toys
trade trading training travel tube university uno vegas ventures vet viajes video villas vip
vision vodka vote voyage wang watch webcam website wedding wiki win wine work works world wtf
xn--p1ai xxx xyz yoga zip zone
"""
TOP = frozenset(TOP_NAMES.split())
COUNTRIES = re.compile(
    "a[c-gilmoq-uwxz]|b[abd-jmnorstvwyz]|c[acdf-ik-oru-z]|d[ejkmoz]|e[cegrstu]|f[ijkmor]"
    "|g[abd-ilmnp-uwy]|h[kmnrtu]|i[del-oq-t]|j[emop]|k[eghimnprwyz]|l[abcikr-vy]|m[ac-eghk-z]"
    "|n[acefgilopruz]|om|p[ae-hk-nr-twy]|qa|r[eosuw]|s[a-eg-ort-vx-z]|t[cdf-hj-ortvwz]"
    "|u[agksyz]|v[aceginu]|w[fs]|y[et]|z[amw]"
)
# Below the name of a country these are no name of anybody: example.co.uk, example.com.br.
SHARED = frozenset(("ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"))
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# "4.3.2.1.in-addr.arpa".
REVERSE = re.compile(r"((?:[0-9]{1,3}\.){4})in-addr\.arpa", re.ASCII)
# What nobody registers but who asks whether made-up names exist: "xkqjwzptv", "a1b2c3d4e5f6g7",
# a checksum, forty letters on end. Only the part that is registered is looked at.
RANDOM = re.compile(
    r"(?=.{9}).*[bcdfghjklmnpqrstvwxz]{7}.*|(?:[a-z]{1,2}[0-9]{1,2}){5,}[a-z0-9]*"
    r"|(?=.*[0-9])(?=.*[a-f])[0-9a-f]{16,}|[a-z0-9]{32,}",
    re.ASCII,
)
# Where servers stand: the first parts of addresses that large providers have.
NETWORKS = (13, 18, 20, 23, 34, 35, 44, 45, 51, 52, 54, 65, 77, 94, 104, 138, 142, 146, 159, 185)


class Kind(IntEnum):
    """Of a question, as far as it is answered; others are answered with nothing."""

    A = 1
    NS = 2
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    ANY = 255


# As the report names them.
KIND_NAMES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA"}
KIND_NAMES |= {33: "SRV", 35: "NAPTR", 64: "SVCB", 65: "HTTPS", 255: "ANY", 257: "CAA"}


@dataclass
class Questions:
    """What was asked for a name: when first, for which kinds of records; whether it exists."""

    at_sec: float
    kinds: list[str]
    is_answered: bool = False

    def add(self, kind: int) -> None:
        """Note one more question."""
        name = KIND_NAMES.get(kind, f"TYPE{kind}")
        if kind and name not in self.kinds and len(self.kinds) < MAX_KINDS:
            self.kinds.append(name)


def registered(name: str) -> str | None:
    """The part of a name that somebody must have registered (example.co.uk); None where none is.

    Args:
        name: in lower case, without a dot at its end.
    """
    labels = name.split(".")
    if len(name) > MAX_NAME_CHARS or not all(LABEL.fullmatch(label) for label in labels):
        return None
    is_country = COUNTRIES.fullmatch(labels[-1]) is not None
    if not is_country and labels[-1] not in TOP:
        return None
    count = 3 if is_country and len(labels) > 1 and labels[-2] in SHARED else 2
    if len(labels) < count or RANDOM.fullmatch(labels[-count]):
        return None
    return ".".join(labels[-count:])


class Names:
    """Which name is which address, in one run.

    Args:
        salt: random bytes of the run.
        served_text: makes the text of a TXT record for a name.
    """

    def __init__(self, salt: bytes, served_text: Callable[[str], str]) -> None:
        self.salt = salt
        self.served_text = served_text
        self.by_address: dict[str, str] = {}

    def address(self, name: str) -> str | None:
        """The IPv4 address of a name, or None where there is no such name."""
        if registered(name) is None:
            return None
        for attempt in range(256):
            seed = self.salt + bytes([attempt]) + name.encode()
            digest = hashlib.sha256(seed).digest()
            host = bytes([NETWORKS[digest[0] % len(NETWORKS)], *digest[1:3], 1 + digest[3] % 254])
            address = ipaddress.IPv4Address(host)
            # Where it is not public, or another name's, the next attempt gives another address.
            if address.is_global and self.by_address.get(str(address), name) == name:
                break
        if len(self.by_address) < MAX_ADDRESSES:
            self.by_address[str(address)] = name
        return str(address)

    def name_of(self, address: str) -> str | None:
        """The name that was asked for before this address was used."""
        return self.by_address.get(address)

    def answer(self, name: str, kind: int) -> list[tuple[int, bytes]] | None:
        """The records for a question, by kind and data; None where there is no such name."""
        if reverse := REVERSE.fullmatch(name):
            address = ".".join(reversed(reverse[1].rstrip(".").split(".")))
            pointed = self.name_of(address)
            return [(Kind.PTR, name_bytes(pointed))] if pointed else None
        owner = registered(name)
        address_of = self.address(name)
        if owner is None or address_of is None:
            return None
        match kind:
            case Kind.A | Kind.ANY:
                return [(Kind.A, ipaddress.IPv4Address(address_of).packed)]
            case Kind.MX:
                return [(Kind.MX, struct.pack("!H", 10) + name_bytes(f"mail.{owner}"))]
            case Kind.NS:
                return [(Kind.NS, name_bytes(f"ns1.{owner}"))]
            case Kind.TXT:
                text = self.served_text(name).encode()[:MAX_TEXT_BYTES]
                return [(Kind.TXT, bytes([len(text)]) + text)]
        return []


def name_bytes(name: str) -> bytes:
    """A name as DNS writes it: `07 e x a m p l e 03 c o m 00`."""
    labels = (label.encode() for label in name.split("."))
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


FLAGS_FOUND, FLAGS_NO_NAME = b"\x81\x80", b"\x81\x83"
DNS_HEADER_BYTES = 12
TTL_SEC = 300
CLASS_IN = 1
NAME_OF_QUESTION = b"\xc0\x0c"


def reply(message: bytes, end: int, records: list[tuple[int, bytes]] | None) -> bytes:
    """The DNS message that answers the only question of `message`.

    Args:
        message: checked to have a question that begins at DNS_HEADER_BYTES and ends at `end`.
        records: what Names.answer said.
    """
    found = records or []
    flags = FLAGS_NO_NAME if records is None else FLAGS_FOUND
    head = message[:2] + flags + struct.pack("!4H", 1, len(found), 0, 0)
    body = message[DNS_HEADER_BYTES:end]
    for kind, data in found:
        fixed = struct.pack("!HHIH", kind, CLASS_IN, TTL_SEC, len(data))
        body += NAME_OF_QUESTION + fixed + data
    return head + body
