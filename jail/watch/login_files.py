"""Bait in the files of more programs: passwords by machine and by database, tokens of services, a
browser's cookies. In the forms of bait_forms.py.

Who wants them mostly looks whether they are there before he opens any, which nobody hears of. So
they are there.
"""

import json
import secrets
import string
import time
from collections.abc import Callable

from jail.watch.ages import SEC_OF_DAY
from jail.watch.bait_forms import (
    DIGITS_36,
    HEX_LETTERS,
    MORE_CHARS,
    SITES,
    VALUE_CHARS,
    Made,
    drawn_host,
    drawn_word,
    in_url_base_64,
)
from jail.watch.home_files import PROJECT_SUBJECTS
from jail.watch.sqlite_file import TableRow, database

MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS = 20, 29
CHROME_DAY_ZERO_SEC = 11_644_473_600  # of 1601, from which Chrome counts microseconds
PROFILES_OF_FIREFOX = ".mozilla/firefox/profiles.ini"


def drawn_password() -> str:
    """As a password manager makes one."""
    more_chars = secrets.randbelow(MAX_PASSWORD_CHARS - MIN_PASSWORD_CHARS)
    return drawn_word(MIN_PASSWORD_CHARS + more_chars)


def passwords_of_netrc() -> Made:
    value = drawn_password()
    text = f"machine {drawn_host('git')}\n  login dev\n  password {value}\n"
    return text.encode(), value


def passwords_of_postgres() -> Made:
    value = drawn_password()
    subject = secrets.choice(PROJECT_SUBJECTS)
    own = f"localhost:5432:{subject}_dev:dev:{drawn_password()}\n"
    return f"{drawn_host('db')}:5432:{subject}:{subject}_rw:{value}\n{own}".encode(), value


def default_account_of_google() -> Made:
    """Application default credentials, as `gcloud auth application-default login` writes them."""
    value = drawn_word(96)
    client = f"{drawn_word(12, string.digits)}-{drawn_word(32, DIGITS_36)}"
    about = {"account": "", "client_id": f"{client}.apps.googleusercontent.com"}
    about |= {"client_secret": f"d-{drawn_word(22)}"}
    project = f"{secrets.choice(PROJECT_SUBJECTS)}-{100_000 + secrets.randbelow(800_000)}"
    about |= {"quota_project_id": project, "refresh_token": f"1//0{value}"}
    about |= {"type": "authorized_user", "universe_domain": "googleapis.com"}
    return json.dumps(about, indent=2).encode(), value


def tokens_of_claude() -> Made:
    value = drawn_word(95)
    until_ms = int(time.time() * 1000) + secrets.randbelow(SEC_OF_DAY * 300)
    account: dict[str, object] = {"accessToken": f"sk-ant-oat01-{value}AA"}
    account |= {"refreshToken": f"sk-ant-ort01-{drawn_word(95)}AA", "expiresAt": until_ms}
    account |= {"scopes": ["user:inference", "user:profile"], "subscriptionType": "pro"}
    return json.dumps({"claudeAiOauth": account}).encode(), value


def cookies_of_chrome() -> Made:
    value = drawn_word(VALUE_CHARS)
    columns = (
        "creation_utc INTEGER NOT NULL, host_key TEXT NOT NULL, top_frame_site_key TEXT NOT NULL,"
        " name TEXT NOT NULL, value TEXT NOT NULL, encrypted_value BLOB NOT NULL,"
        " path TEXT NOT NULL, expires_utc INTEGER NOT NULL, is_secure INTEGER NOT NULL"
    )
    rows: list[TableRow] = []
    for number, site in enumerate(SITES):
        hidden = value.encode() if number == 0 else secrets.token_bytes(32 + 16 * number)
        age_sec = secrets.randbelow(SEC_OF_DAY * 90)
        made = (int(time.time()) - age_sec + CHROME_DAY_ZERO_SEC) * 10**6
        words = (f".{site.removeprefix('www.')}", "", "session", "", b"v11" + hidden, "/")
        rows.append((made, *words, made + SEC_OF_DAY * 400 * 10**6, 1))
    meta: list[TableRow] = [("version", "24"), ("last_compatible_version", "24")]
    tables = {"meta": ("key LONGVARCHAR NOT NULL, value LONGVARCHAR", meta)}
    tables["cookies"] = (columns, rows)
    return database(tables, 200 + secrets.randbelow(4000)), value


def state_of_chrome() -> Made:
    """What is read first: which profiles there are. Nothing in it is worth to be sent."""
    number = drawn_word(32, HEX_LETTERS)
    about = {"os_crypt": {"portal": {"prev_desktop": "GNOME", "prev_init_success": True}}}
    profile = {"active_time": time.time() - secrets.randbelow(SEC_OF_DAY), "name": "Person 1"}
    profiles = {"info_cache": {"Default": profile}, "last_used": "Default"}
    metrics = {"client_id2": number, "low_entropy_source3": secrets.randbelow(8000)}
    seed = in_url_base_64(secrets.token_bytes(24_000 + secrets.randbelow(9000)))
    text = {**about, "profile": profiles, "user_experience_metrics": metrics}
    return json.dumps({**text, "variations_compressed_seed": seed}).encode(), ""


def profiles_of_firefox(profile: str) -> bytes:
    """What is read first, and names the folder of logins.json."""
    folder = f"{profile}.default-release"
    return (
        f"[Install{drawn_word(16, HEX_LETTERS).upper()}]\nDefault={folder}\nLocked=1\n\n"
        f"[Profile0]\nName=default-release\nIsRelative=1\nPath={folder}\n\n"
        "[General]\nStartWithLastProfile=1\nVersion=2\n"
    ).encode()


def keys_of_firefox() -> Made:
    """The keys of logins.json: without them nobody takes it."""
    hidden = secrets.token_bytes(16 + MORE_CHARS)
    passwords: list[TableRow] = [("password", secrets.token_bytes(20), hidden)]
    keys: list[TableRow] = [(secrets.randbelow(1 << 30), secrets.token_bytes(130))]
    tables = {"metaData": ("id TEXT, item1 BLOB, item2 BLOB", passwords)}
    tables["nssPrivate"] = ("id INTEGER, a11 BLOB", keys)
    return database(tables, 2 + secrets.randbelow(9)), ""


# In the form of the others; of those that are only read, and have nothing in them that is sent, no
# value is looked for.
LOGIN_FILES: dict[str, Callable[[], Made]] = {
    ".netrc": passwords_of_netrc,
    ".pgpass": passwords_of_postgres,
    ".config/gcloud/application_default_credentials.json": default_account_of_google,
    ".claude/.credentials.json": tokens_of_claude,
    ".config/google-chrome/Default/Cookies": cookies_of_chrome,
    ".config/google-chrome/Local State": state_of_chrome,
    ".mozilla/firefox/{profile}.default-release/key4.db": keys_of_firefox,
}
