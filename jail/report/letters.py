"""Letters of other alphabets that look like Latin ones, and characters that do not show at all: a
name that is read as another one says in the report what it is.

Words of other languages stay as they are: they have letters that look like no Latin one.
"""

import re
import sys

# Each row with the Latin letters that it looks like (Unicode Technical Standard 39, confusables):
# Cyrillic, Greek, and some more.
ROWS_OF_LOOK_ALIKES = {
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456": "aeopcyxsi",
    "\u0458\u0501\u051b\u051d\u04bb\u04cf\u0475\u0410\u0412": "jdqwhlvAB",
    "\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420": "ESIJKMHOP",
    "\u0421\u0422\u0423\u0425\u051a\u051c\u04c0": "CTYXQWI",
    "\u03bf\u03b1\u03bd\u03c1\u03c5\u03b9\u03ba\u03c7\u03b3": "oavpuikxy",
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d": "ABEZHIKMN",
    "\u039f\u03a1\u03a4\u03a5\u03a7": "OPTYX",
    "\u0251\u0261\u0585\u0578\u057d\u0570\u0581": "agonuhg",
}
LOOK_ALIKES = {
    char: letter
    for row, letters in ROWS_OF_LOOK_ALIKES.items()
    for char, letter in zip(row, letters, strict=True)
}
# Wide ones, and those of formulas: a whole alphabet each, of small and large letters.
WIDE_LARGE, WIDE_SMALL = 0xFF21, 0xFF41
FIRST_OF_FORMULAS, LAST_OF_FORMULAS = 0x1D400, 0x1D6A3
LETTERS_OF_ALPHABET = 26
# They count as letters, or as marks on one, and nobody sees them.
UNSEEN_LETTERS = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef"
)
# Several variation selectors, or more marks on one letter than any language has.
UNSEEN_RUN = re.compile(
    rf"[{UNSEEN_LETTERS}]|[\ufe00-\ufe0f]{{2,}}|[\u0300-\u036f\u0483-\u0489]{{4,}}"
)
LONGER_WORD = re.compile(r"\w{2,}")
# As the witnesses write what is not ASCII: `r\u0435quests`.
ESCAPED_LETTER = re.compile(r"\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|\\U([0-9a-f]{8})")
PUNYCODE = "xn--"
MAX_PUNYCODE_CHARS = 63
# What is asked for, imported and typed most: whose name is taken.
KNOWN_PROJECTS = """
aiohttp attr aws azure bash boto3 botocore click cryptography curl discord django docker fastapi
flask git github gitlab google httpx jinja2 kubectl matplotlib microsoft node npm numpy openai
pandas paramiko pip pydantic pypi pytest python pyyaml requests scipy selenium setuptools sklearn
sqlalchemy ssh sudo telegram tensorflow torch urllib3 wheel yaml
"""
NAMES_KNOWN_TO_ALL = frozenset(KNOWN_PROJECTS.split()) | sys.stdlib_module_names


def latin_of(char: str) -> str:
    """The letter that a character looks like, itself if none."""
    code = ord(char)
    for first, letter in ((WIDE_LARGE, "A"), (WIDE_SMALL, "a")):
        if first <= code < first + LETTERS_OF_ALPHABET:
            return chr(ord(letter) + code - first)
    if FIRST_OF_FORMULAS <= code <= LAST_OF_FORMULAS:
        number = (code - FIRST_OF_FORMULAS) % (2 * LETTERS_OF_ALPHABET)
        first_letter = "A" if number < LETTERS_OF_ALPHABET else "a"
        return chr(ord(first_letter) + number % LETTERS_OF_ALPHABET)
    return LOOK_ALIKES.get(char, char)


def seen_as(word: str) -> str:
    """The Latin word that a word is taken for, "" where it is that word or looks like none.

    >>> [seen_as(word) for word in ("r\\u0435quests", "requests", "\\u043f\\u0440\\u0438")]
    ['requests', '', '']
    """
    if word.isascii():
        return ""
    latin = "".join(map(latin_of, word))
    return latin if latin.isascii() else ""


def with_escapes(text: str) -> str:
    """Text with such letters, and what nobody sees, written as escapes."""
    if text.isascii():
        return text
    text = LONGER_WORD.sub(lambda word: in_escapes(word[0]) if seen_as(word[0]) else word[0], text)
    return UNSEEN_RUN.sub(lambda unseen: in_escapes(unseen[0]), text)


def in_escapes(text: str) -> str:
    return text.encode("unicode_escape").decode()


def without_escapes(text: str) -> str:
    """The other way round."""
    return ESCAPED_LETTER.sub(lambda code: chr(int(code[1] or code[2] or code[3], 16)), text)


def name_seen_as(name: str) -> str:
    """What the name of a file, a module or a host is taken for, part by part; "" if for no other.

    >>> name_seen_as("xn--ggle-55da.com")
    'google.com'
    """
    try:
        parts = [plain_label(part) for part in without_escapes(name).split(".")]
    except (ValueError, OverflowError):
        return ""
    taken = [seen_as(part) or part for part in parts]
    return ".".join(taken) if taken != parts and "".join(taken).isascii() else ""


def plain_label(label: str) -> str:
    """Part of a host's name as a person sees it. Raises UnicodeError, a ValueError."""
    if not label.lower().startswith(PUNYCODE) or len(label) > MAX_PUNYCODE_CHARS:
        return label
    return label[len(PUNYCODE) :].encode("ascii").decode("punycode")


def is_known(name: str) -> bool:
    """Whether a name, or a part of it, is one that everybody knows."""
    return not NAMES_KNOWN_TO_ALL.isdisjoint(re.split(r"[.\-_/]", name.lower()))
