"""The forms of the bait: keys, tokens and files as those make them who give them out or keep them.

Neither length, letters, check digits nor size may say that they are decoys. All is drawn anew for
each run. A value has letters and digits alone, so that it is the same in a form, a URL and in JSON.
"""

import base64
import json
import secrets
import string
import time
import zlib
from collections.abc import Callable
from itertools import pairwise

from jail.watch.ages import SEC_OF_DAY
from jail.watch.home_files import FIRST_NAMES, LAST_NAMES, PROJECT_SUBJECTS, drawn_address
from jail.watch.sqlite_file import DATABASE_PAGE_BYTES, TableRow, database

DIGITS_62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
DIGITS_36 = string.digits + string.ascii_lowercase
AWS_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
HEX_LETTERS = "0123456789abcdef"
CHECKED_CHARS, CHECK_CHARS = 30, 6
LINE_CHARS = 70  # of a key, as ssh-keygen writes it
VALUE_CHARS = 40  # of what is looked for, in a file that has no form for it
MORE_CHARS = 64
MIN_TURNS_OF_NAME = 3  # from letters to digits and back
SITES = ("github.com", "mail.google.com", "www.amazon.com", "www.reddit.com", "gitlab.com")


def drawn_word(count: int, letters: str = DIGITS_62) -> str:
    """Letters and digits."""
    return "".join(secrets.choice(letters) for _ in range(count))


def in_base_62(number: int) -> str:
    """With zeros in front.

    >>> in_base_62(63)
    '000011'
    """
    found = ""
    while number:
        number, rest = divmod(number, len(DIGITS_62))
        found = DIGITS_62[rest] + found
    return found.rjust(CHECK_CHARS, "0")


def checked_token(prefix: str) -> str:
    """A token as GitHub and npm give them out: its last characters are a checksum of the others."""
    word = drawn_word(CHECKED_CHARS)
    return f"{prefix}{word}{in_base_62(zlib.crc32(word.encode()))}"


def in_url_base_64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def web_token(**claims: object) -> tuple[str, str]:
    """A JSON web token, and the start of its signature, that of 2048 bits."""
    about = {"alg": "RS256", "kid": drawn_word(43), "typ": "JWT"}
    head = in_url_base_64(json.dumps(about).encode())
    issued_sec = int(time.time()) - secrets.randbelow(SEC_OF_DAY)
    body = json.dumps({**claims, "iat": issued_sec, "exp": issued_sec + SEC_OF_DAY})
    signature = drawn_word(342)
    return f"{head}.{in_url_base_64(body.encode())}.{signature}", signature[:MORE_CHARS]


def drawn_host(service: str) -> str:
    """A host as companies name theirs, below the top-level name that is nobody's."""
    return f"{service}.{secrets.choice(PROJECT_SUBJECTS)}.internal"


def token_for_packages() -> str:
    # No longer than what a name can carry in two labels: thieves send it so.
    return f"pypi-AgEI{drawn_word(60 + secrets.randbelow(12))}"


def token_of_a_job() -> str:
    return web_token(sub=f"repo:dev/app:{drawn_word(12)}")[0]


# What thieves of credentials look for in an environment.
VARIABLES: dict[str, Callable[[], str]] = {
    "AWS_SECRET_ACCESS_KEY": lambda: drawn_word(40),
    "GITHUB_TOKEN": lambda: checked_token("ghp_"),
    "TWINE_PASSWORD": token_for_packages,
    "NPM_TOKEN": lambda: checked_token("npm_"),
    "OPENAI_API_KEY": lambda: f"sk-proj-{drawn_word(20)}T3BlbkFJ{drawn_word(20)}",
}
# What only a machine of continuous integration has.
CI_VARIABLES_WITH_BAIT: dict[str, Callable[[], str]] = {
    "ACTIONS_RUNTIME_TOKEN": token_of_a_job,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token_of_a_job,
    "CI_JOB_TOKEN": lambda: f"glcbt-64_{drawn_word(20)}",
}

# A file's bytes, and of them what is looked for elsewhere.
Made = tuple[bytes, str]


def key_of_ssh() -> Made:
    """What looks like a private key of 3072 bits: of its length, and as readable."""
    kinds = (len(kind).to_bytes(4, "big") + kind for kind in (b"none", b"none", b""))
    head = b"openssh-key-v1\0" + b"".join(kinds) + (1).to_bytes(4, "big")
    public = b"\0\0\0\7ssh-rsa\0\0\0\3\1\0\1\0\0\1\x81\0" + secrets.token_bytes(384)
    private = secrets.token_bytes(1408)
    parts = (len(part).to_bytes(4, "big") + part for part in (public, private))
    text = base64.b64encode(head + b"".join(parts)).decode()
    value = drawn_word(VALUE_CHARS)
    middle = len(text) // 2 // LINE_CHARS * LINE_CHARS
    text = text[:middle] + value + text[middle + len(value) :]
    lines = [text[start : start + LINE_CHARS] for start in range(0, len(text), LINE_CHARS)]
    framed = "\n".join(["-----BEGIN {0}-----", *lines, "-----END {0}-----", ""])
    return framed.format("OPENSSH PRIVATE KEY").encode(), value


def keys_of_aws() -> Made:
    value = drawn_word(40)
    key = f"AKIA{drawn_word(16, AWS_LETTERS)}"
    text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {value}\n"
    return text.encode(), value


def password_for_packages() -> Made:
    value = token_for_packages()
    servers = "[distutils]\nindex-servers =\n    main\n\n"
    return f"{servers}[main]\nusername = __token__\npassword = {value}\n".encode(), value


def password_of_git() -> Made:
    value = checked_token("ghp_")
    return f"https://dev:{value}@github.com\n".encode(), value


def passwords_of_docker() -> Made:
    value = drawn_word(36)
    coded = base64.b64encode(f"dev:{value}".encode()).decode()
    auths = {"auths": {drawn_host("registry"): {"auth": coded}}}
    return json.dumps(auths, indent="\t").encode(), value


def clusters_of_kubernetes() -> Made:
    token, value = web_token(sub="system:serviceaccount:dev:deployer")
    authority = base64.b64encode(secrets.token_bytes(780)).decode()
    address = f"https://10.{secrets.randbelow(250)}.{secrets.randbelow(250)}.1:6443"
    text = f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {authority}
    server: {address}
  name: staging
contexts:
- context:
    cluster: staging
    user: dev
  name: staging
current-context: staging
kind: Config
preferences: {{}}
users:
- name: dev
  user:
    token: {token}
"""
    return text.encode(), value


def logins_of_chrome() -> Made:
    value = drawn_word(VALUE_CHARS)
    columns = (
        "origin_url VARCHAR NOT NULL, action_url VARCHAR, username_element VARCHAR,"
        " username_value VARCHAR, password_element VARCHAR, password_value BLOB,"
        " signon_realm VARCHAR NOT NULL, date_created INTEGER NOT NULL, times_used INTEGER"
    )
    rows: list[TableRow] = []
    for number, site in enumerate(SITES):
        # The first password is what is looked for. What is encrypted looks like any bytes.
        hidden = value.encode() if number == 0 else secrets.token_bytes(16 + 16 * (number % 2))
        url = f"https://{site}/login"
        made = 13_340_000_000_000_000 + secrets.randbelow(50_000_000_000_000)
        used = 1 + secrets.randbelow(80)
        user = f"dev{drawn_word(3, string.digits)}"
        words = (url, url, "login", user, "password", b"v11" + hidden, f"https://{site}/")
        rows.append((*words, made, used))
    meta: list[TableRow] = [
        ("mmap_status", "-1"),
        ("version", "39"),
        ("last_compatible_version", "39"),
    ]
    tables: dict[str, tuple[str, list[TableRow]]] = {
        "meta": ("key LONGVARCHAR NOT NULL, value LONGVARCHAR", meta),
        "logins": (columns, rows),
        "stats": ("origin_domain VARCHAR, username_value VARCHAR, update_time INTEGER", []),
        "insecure_credentials": ("parent_id INTEGER, insecurity_type INTEGER NOT NULL", []),
    }
    return database(tables, 20 + secrets.randbelow(400)), value


def logins_of_firefox() -> Made:
    value = drawn_word(MORE_CHARS)
    logins = []
    for number, site in enumerate(SITES):
        hidden = value if number == 0 else drawn_word(MORE_CHARS)
        about: dict[str, object] = {"id": number + 1, "hostname": f"https://{site}"}
        about |= {
            "httpRealm": None,
            "formSubmitURL": f"https://{site}",
            "usernameField": "",
            "passwordField": "",
        }
        about |= {"encryptedUsername": drawn_word(64), "encryptedPassword": hidden, "encType": 1}
        logins.append(about | {"timesUsed": 1 + secrets.randbelow(90)})
    text = json.dumps({"nextId": len(logins) + 1, "logins": logins, "version": 3})
    return text.encode(), value


def seed_of_exodus() -> Made:
    value = drawn_word(VALUE_CHARS)
    size_bytes = 60_000 + 16 * secrets.randbelow(400)
    noise = secrets.token_bytes(size_bytes)
    return b"SECO\0\0\0\0" + noise[:500] + value.encode() + noise[500:], value


def wallet_of_bitcoin() -> Made:
    """A Berkeley database: its magic number, version, pages of 4096 bytes."""
    value = drawn_word(VALUE_CHARS)
    head = bytes(12) + (0x53162).to_bytes(4, "little") + (9).to_bytes(4, "little")
    head += DATABASE_PAGE_BYTES.to_bytes(4, "little") + bytes(36) + b"\4main"
    page = head.ljust(600, b"\0") + b"\4ckey!" + value.encode() + secrets.token_bytes(600)
    pages = 20 + secrets.randbelow(40)
    noise = secrets.token_bytes(DATABASE_PAGE_BYTES)
    return (page.ljust(DATABASE_PAGE_BYTES, b"\0") + noise).ljust(
        pages * DATABASE_PAGE_BYTES, b"\0"
    ), value


def token_of_npm() -> Made:
    value = checked_token("npm_")
    return f"//{drawn_host('npm')}/:_authToken={value}\n".encode(), value


def token_of_github() -> Made:
    value = checked_token("gho_")
    text = f"github.com:\n    user: dev\n    oauth_token: {value}\n    git_protocol: https\n"
    return text.encode(), value


def store_of_discord() -> Made:
    """A table of LevelDB with the account's token: its number, a time, a signature."""
    value = drawn_word(38)
    account = in_url_base_64(str(10**17 + secrets.randbelow(10**18)).encode())
    token = f"{account}.{drawn_word(6)}.{value}"
    row = b"_https://discord.com\0\1token\1" + json.dumps(token).encode()
    noise = secrets.token_bytes(2000 + secrets.randbelow(20_000))
    return noise[:700] + row + noise[700:] + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", value


def key_of_solana() -> Made:
    """The bytes of a key as a list."""
    numbers = [str(byte) for byte in secrets.token_bytes(64)]
    return f"[{','.join(numbers)}]".encode(), ",".join(numbers[:20])


def tokens_of_azure() -> Made:
    value, more = drawn_word(MORE_CHARS), drawn_word(400 + secrets.randbelow(300))
    name = "-".join(drawn_word(count, HEX_LETTERS) for count in (8, 4, 4, 4, 12))
    token = {"credential_type": "RefreshToken", "secret": f"1.A{value}{more}", "client_id": name}
    token |= {"environment": "login.microsoftonline.com", "home_account_id": name, "target": ""}
    tokens = {"AccessToken": {}, "RefreshToken": {f"{name}-refreshtoken": token}}
    return json.dumps(tokens).encode(), value


def accounts_of_gcloud() -> Made:
    value = drawn_word(100)
    about = {"client_id": f"{drawn_word(11, string.digits)}.apps.googleusercontent.com"}
    about |= {"client_secret": drawn_word(24), "refresh_token": f"1//0{value}"}
    who = (secrets.choice(FIRST_NAMES), secrets.choice(LAST_NAMES))
    row = (drawn_address(*who), json.dumps(about | {"type": "authorized_user"}))
    tables = {"credentials": ("account_id TEXT, value BLOB", [row])}
    return database(tables, 1 + secrets.randbelow(9)), value


def ring_of_gnome() -> Made:
    value = drawn_word(VALUE_CHARS)
    noise = secrets.token_bytes(900 + 16 * secrets.randbelow(90))
    head = b"GnomeKeyring\n\r\0\n\0\0\0\0\0\0\0\5Login"
    return head + noise[:60] + value.encode() + noise[60:], value


def vault_of_metamask() -> Made:
    value, more = drawn_word(MORE_CHARS), drawn_word(180 + 4 * secrets.randbelow(90))
    vault = {"data": value + more, "iv": drawn_word(22) + "==", "salt": drawn_word(43) + "="}
    row = json.dumps({"KeyringController": {"vault": json.dumps(vault)}}).encode()
    return secrets.token_bytes(7) + row, value


def keys_of_telegram() -> Made:
    value = drawn_word(VALUE_CHARS)
    return b"TDF$" + secrets.token_bytes(60) + value.encode() + secrets.token_bytes(288), value


def keys_of_ethereum() -> Made:
    value = drawn_word(64, HEX_LETTERS)
    start = {"iv": drawn_word(32, HEX_LETTERS)}
    crypto = {"cipher": "aes-128-ctr", "ciphertext": value, "kdf": "scrypt", "cipherparams": start}
    crypto |= {"mac": drawn_word(64, HEX_LETTERS)}
    text = json.dumps({"address": drawn_word(40, HEX_LETTERS), "crypto": crypto, "version": 3})
    return text.encode(), value


def name_of_profile() -> str:
    """A name as Firefox draws it, which drawn.py takes for a drawn name."""
    while True:
        name = drawn_word(8, DIGITS_36)
        turns = sum(char.isdigit() != after.isdigit() for char, after in pairwise(name))
        if turns >= MIN_TURNS_OF_NAME:
            return name


METAMASK = "Default/Local Extension Settings/nkbihfbeogaeaoehlefnkodbefgpgknn"
FILES: dict[str, Callable[[], Made]] = {
    ".ssh/id_rsa": key_of_ssh,
    ".aws/credentials": keys_of_aws,
    ".pypirc": password_for_packages,
    ".git-credentials": password_of_git,
    ".docker/config.json": passwords_of_docker,
    ".kube/config": clusters_of_kubernetes,
    ".npmrc": token_of_npm,
    ".config/gh/hosts.yml": token_of_github,
    ".config/gcloud/credentials.db": accounts_of_gcloud,
    ".azure/msal_token_cache.json": tokens_of_azure,
    ".config/google-chrome/Default/Login Data": logins_of_chrome,
    f".config/google-chrome/{METAMASK}/000003.log": vault_of_metamask,
    ".mozilla/firefox/{profile}.default-release/logins.json": logins_of_firefox,
    ".config/discord/Local Storage/leveldb/000005.ldb": store_of_discord,
    ".local/share/TelegramDesktop/tdata/key_datas": keys_of_telegram,
    ".local/share/keyrings/login.keyring": ring_of_gnome,
    ".config/Exodus/exodus.wallet/seed.seco": seed_of_exodus,
    ".bitcoin/wallet.dat": wallet_of_bitcoin,
    ".ethereum/keystore/{key}.json": keys_of_ethereum,
    ".config/solana/id.json": key_of_solana,
}
# What programs leave open to everybody.
OPEN_FILES = {
    ".pypirc",
    ".config/Exodus/exodus.wallet/seed.seco",
    ".local/share/TelegramDesktop/tdata/key_datas",
}
