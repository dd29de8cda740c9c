"""A home that somebody lives in: the files of some weeks, and a folder for a new project, drawn for
each run. None of them is bait: see decoys.py for that.
"""

import base64
import itertools
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from jail.watch.ages import SEC_OF_DAY, set_age

MAX_AGE_DAYS = 15
CONFIGURATION_AGE_DAYS = 200  # at most, of what is set up once
SKELETON = Path("/etc/skel")  # what this machine gives every user
MAX_SKELETON_BYTES = 64 << 10
FOLDERS_OF_A_HOME = (
    *("Desktop", "Documents", "Downloads", "Music", "Pictures", "Public"),
    *("Templates", "Videos", ".cache", ".config", ".local/share", ".local/state"),
)
FIRST_NAMES = ("Alex", "Chris", "Dana", "Jordan", "Kim", "Lee", "Maria", "Nina", "Sam", "Tom")
LAST_NAMES = ("Becker", "Costa", "Dubois", "Ivanov", "Kumar", "Larsen", "Meyer", "Novak", "Silva")
PROJECT_SUBJECTS = (
    *("billing", "catalog", "forecast", "inventory", "ledger", "metrics", "orders", "planner"),
    *("pricing", "reports", "scheduler", "search", "shipping", "survey", "tickets"),
)
PROJECT_KINDS = ("api", "app", "cli", "service", "tools", "worker", "etl", "bot")
BRANCHES = ("feature/export", "fix/timeouts", "feature/login", "refactor/models", "fix/encoding")
MESSAGES = (
    *("Add tests for the parser", "Fix off by one in paging", "Bump dependencies", "Clean up"),
    *("Handle empty input", "Move settings to one place", "Speed up the import", "Add docs"),
)
DOCUMENTS = (
    *("notes.txt", "todo.md", "meeting {day}.md", "{subject} budget.csv", "cv {year}.txt"),
    *("{subject} plan.md", "contacts.csv", "ideas.txt", "invoice {number}.txt"),
)
DOWNLOADS = ("{subject}-{number}.csv", "photo_{number}.txt", "{subject}_export.json", "slides.txt")
PLAIN_WORDS = (
    "the of to and a in for is on that by this with you it not or be are from at as your all"
)
PLAIN_WORDS += (
    " have new more an was we will can us about if page my has search free but our one other"
)
HISTORY = (
    *("ls -la", "cd {project}", "git status", "git diff", "git pull", "git log --oneline"),
    *("git commit -am '{message}'", "git push", "git checkout -b {branch}", "vim README.md"),
    *("python3 -m venv .venv", "source .venv/bin/activate", "pytest -q", "htop", "df -h"),
    *("pip install -r requirements.txt", "grep -rn {subject} src/", "docker ps", "exit"),
    *("curl -s localhost:8000/health", "tail -f /tmp/{subject}.log", "ssh {host}", "history"),
)
SOURCE = '''"""{Subject} of the {kind}."""

from dataclasses import dataclass


@dataclass
class {Subject}:
    name: str
    amount: int = {number}


def total(items: list[{Subject}]) -> int:
    return sum(item.amount for item in items)
'''
GIT_CONFIG = """\
[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
[branch "main"]
\tremote = origin
\tmerge = refs/heads/main
"""
IGNORED = ".venv/\n__pycache__/\n*.pyc\n.pytest_cache/\ndist/\n"
PROFILE_LINES = "case $- in\n  *i*) ;;\n  *) return;;\nesac\nHISTSIZE={size}\n"


class Home:
    """Writes the files of one home. `project` is the new folder, in which nothing is yet."""

    def __init__(self, folder: Path) -> None:
        """Fill `folder`. Raises OSError."""
        self.folder = folder
        self.names = {
            "subject": secrets.choice(PROJECT_SUBJECTS),
            "kind": secrets.choice(PROJECT_KINDS),
            "first": secrets.choice(FIRST_NAMES),
            "last": secrets.choice(LAST_NAMES),
            "branch": secrets.choice(BRANCHES),
        }
        self.names["email"] = drawn_address(self.names["first"], self.names["last"])
        self.names["Subject"] = self.names["subject"].capitalize()
        self.names["project"] = "{subject}-{kind}".format(**self.names)
        for name in FOLDERS_OF_A_HOME:
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.lay_configuration()
        self.lay_papers()
        self.lay_project()
        others = [name for name in PROJECT_SUBJECTS if name != self.names["subject"]]
        self.project = f"projects/{secrets.choice(others)}-{secrets.choice(PROJECT_KINDS)}"
        (folder / self.project).mkdir()
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                set_age(path, MAX_AGE_DAYS)

    def write(self, name: str, text: str, age_days: int = MAX_AGE_DAYS, mode: int = 0o644) -> None:
        """A file, as old as it may be."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        set_age(path, age_days)

    def fill(self, form: str) -> str:
        """A form with its words filled in, some of them drawn each time."""
        number, day = secrets.randbelow(9000) + 1000, secrets.randbelow(28) + 1
        drawn: dict[str, object] = {
            "number": number,
            "day": day,
            "year": time.gmtime().tm_year - day % 3,
        }
        drawn["message"] = secrets.choice(MESSAGES)
        drawn["host"] = f"{secrets.choice(PROJECT_SUBJECTS)}{day}"
        return form.format(**{**self.names, **drawn})

    def lay_configuration(self) -> None:
        """What a shell, git and an editor keep in a home."""
        own = {path.name: path for path in SKELETON.glob(".*") if path.is_file()}
        size = 1000 * (1 + secrets.randbelow(20))
        for name in (".bashrc", ".profile", ".bash_logout"):
            known = own[name].read_bytes()[:MAX_SKELETON_BYTES].decode() if name in own else ""
            text = known or PROFILE_LINES.format(size=size)
            self.write(name, f"{text}\nexport HISTFILESIZE={size}\n", CONFIGURATION_AGE_DAYS)
        history = [self.fill(secrets.choice(HISTORY)) for _ in range(60 + secrets.randbelow(200))]
        self.write(".bash_history", "\n".join(history) + "\n", 2, 0o600)
        user = "[user]\n\tname = {first} {last}\n\temail = ".format(**self.names)
        self.write(".gitconfig", f"{user}{self.names['email']}\n[pull]\n\trebase = true\n", 150)
        self.write(".vimrc", "syntax on\nset number\nset expandtab\n", CONFIGURATION_AGE_DAYS)
        self.write(".python_history", "import json\nimport os\nexit()\n", 9, 0o600)
        keys = [f"{self.fill('{host}')} {key_of_host()}" for _ in range(4)]
        self.write(".ssh/known_hosts", "\n".join(keys) + "\n", 60, 0o600)
        (self.folder / ".ssh").chmod(0o700)

    def lay_papers(self) -> None:
        """What lies in the folders of the desktop."""
        places = {"Documents": DOCUMENTS, "Downloads": DOWNLOADS, "Desktop": DOCUMENTS[:3]}
        for place, forms in places.items():
            for form in some(forms):
                self.write(f"{place}/{self.fill(form)}", everyday_text(20 + secrets.randbelow(300)))

    def lay_project(self) -> None:
        """A project with its history, as git keeps it."""
        top = "projects/{project}".format(**self.names)
        package = "{subject}".format(**self.names)
        for name, form in {
            "README.md": "# {project}\n\n" + everyday_text(40) + "\n",
            "requirements.txt": "requests>=2.3{day}\nclick\n",
            ".gitignore": IGNORED,
            f"src/{package}/__init__.py": "",
            f"src/{package}/models.py": SOURCE,
            f"tests/test_{package}.py": "def test_total() -> None:\n    assert {number} > {day}\n",
        }.items():
            self.write(f"{top}/{name}", self.fill(form))
        commits = ["0" * 40, *(secrets.token_hex(20) for _ in range(3 + secrets.randbelow(9)))]
        now_sec = int(time.time()) - SEC_OF_DAY * MAX_AGE_DAYS
        lines = []
        for before, after in itertools.pairwise(commits):
            now_sec += secrets.randbelow(SEC_OF_DAY)
            who = self.fill("{first} {last} <{email}>")
            message = self.fill("commit: {message}")
            lines.append(f"{before} {after} {who} {now_sec} +0000\t{message}\n")
        self.write(f"{top}/.git/HEAD", "ref: refs/heads/main\n")
        self.write(f"{top}/.git/config", GIT_CONFIG, 40)
        self.write(f"{top}/.git/description", "Unnamed repository; edit this file.\n", 40)
        self.write(f"{top}/.git/refs/heads/main", f"{commits[-1]}\n", 2)
        self.write(f"{top}/.git/logs/HEAD", "".join(lines), 2)
        self.write(f"{top}/.git/COMMIT_EDITMSG", self.fill("{message}\n"), 2)
        for name in (".git/objects/info", ".git/objects/pack", ".git/refs/tags", ".git/hooks"):
            (self.folder / top / name).mkdir(parents=True)


def drawn_address(first: str, last: str) -> str:
    """An address of mail as GitHub gives it to everybody, at which nobody reads mail."""
    number, more = 10_000_000 + secrets.randbelow(90_000_000), secrets.randbelow(99)
    return f"{number}+{first}-{last}{more}@users.noreply.github.com".lower()


def key_of_host() -> str:
    """A public key in the form of ssh-keygen's."""
    kind = b"ssh-ed25519"
    parts = (len(part).to_bytes(4, "big") + part for part in (kind, secrets.token_bytes(32)))
    return f"{kind.decode()} {base64.b64encode(b''.join(parts)).decode()}"


def some(forms: Sequence[str]) -> list[str]:
    """At least half of them."""
    half = len(forms) // 2
    return secrets.SystemRandom().sample(forms, half + secrets.randbelow(half))


def everyday_text(count: int) -> str:
    """So many everyday words."""
    words = PLAIN_WORDS.split()
    return " ".join(secrets.choice(words) for _ in range(count))
