"""What popular packages do that only looks bad: exact forms, each with who does it."""

import re

# The files in which tools keep their own passwords, and the projects that are those tools.
OWN_SECRETS = {
    ".aws/credentials": "boto3 botocore awscli aiobotocore aioboto3 s3transfer sagemaker",
    ".pypirc": "twine setuptools flit flit-core hatch poetry keyring pip readme-renderer",
    ".docker/config.json": "docker docker-compose podman testcontainers",
    ".kube/config": "kubernetes kubernetes-asyncio openshift pykube-ng",
    ".git-credentials": "gitpython dulwich dvc",
}

# Looks at the system that tell nobody anything; of those that the machine does not have, the look
# comes to nothing.
#   platform, psutil, py-cpuinfo   uname -p     sw_vers      sysctl -n hw.ncpu     arch
#   ctypes.util.find_library       ldconfig -p  gcc -Wl,-t -o /tmp/x -lfoo         ld -t -lfoo
#   matplotlib                     fc-list --format=%{file}\n                      gs --version
HARMLESS_LOOKS = re.compile(
    r"(?:/bin/sh -c |sh -c )?(?:uname( -[a-z])?|arch|machine|sw_vers( -\w+)?|sysctl( -n)? (hw|machdep|kern)(\.[\w.]+)?"
    r"|file -b( -L)? \S+|(cmd /c )?ver|ldconfig -p|fc-list( \S+)?|(gs|gswin32c|gswin64c) --version"
    r"|lsb_release( -\w+)?|getconf \w+|(gcc|cc|ld)( -\S+| \S+)*( -l\S+)( \S+)?|which \w+|locale -a"
    r"|lscpu|nproc|tput \w+|stty size)( 2> ?/dev/null)?",
    re.ASCII,
)

# Lines of .pth files of distributions that many have. The start of the interpreter runs what they
# lead to all the same.
#   setuptools: distutils-precedence.pth
#   pytest-cov: pytest-cov.pth; coverage: a1_coverage.pth
#   namespace packages of setuptools: x-nspkg.pth
STARTUP_LINES = re.compile(
    r"import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os\.environ\.get\(var, 'local'\)"
    r" == 'local'; enabled and __import__\('_distutils_hack'\);?"
    r"|import os, sys;exec\('if ''COV_CORE_SOURCE'' in os\.environ: .{0,200}"
    r"|import sys; exec\('try: import coverage; coverage\.process_startup\(\).{0,60}"
    r"|import sys, ?types, ?os;has_mfs = sys\.version_info > \(3, 5\);p = os\.path\.join\("
    r"sys\._getframe\(1\)\.f_locals\['sitedir'\], \*\('[\w.]+',(?: ?'[\w.]+',?)*\)\);.{0,600}"
    r"|import _virtualenv"
)


def is_own_secret(path: str, reader: str | None) -> bool:
    """Whether the project that reads a decoy file is one that keeps its own password there."""
    names = [names for end, names in OWN_SECRETS.items() if path.endswith(f"/{end}")]
    return any(reader in tools.split() for tools in names)


def is_harmless_look(argv: tuple[str, ...]) -> bool:
    """Whether a command only looks at the system."""
    first, *others = argv or ("",)
    shell = first if " ".join(others).startswith("-c ") else first.rpartition("/")[2]
    return HARMLESS_LOOKS.fullmatch(" ".join([shell, *others])) is not None


def is_known_startup(line: str) -> bool:
    """Whether a line that every interpreter executes is one of those that many have."""
    return STARTUP_LINES.fullmatch(line) is not None
