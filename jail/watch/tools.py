"""The programs of the machine that a jail finds by their name: these and no others, whatever else
the machine's owner has installed.

What a package does must not depend on that. Where gcloud is, an SDK asks it for an account, and
gcloud's own acts would be told as the package's. These are what every machine has, what builds
need, and what thieves use. They are links in a folder of their own, which the jail sees as /bin,
the only folder of the system on its PATH. Who knows the path of a program below /usr can start it
all the same.
"""

import os
from pathlib import Path

# The shell, and what its scripts are made of.
FOR_SHELLS = """
sh bash dash env [ test true false echo printf yes sleep timeout nohup nice date expr seq
cat head tail tac tee cut tr sort uniq wc comm cmp diff patch split shuf od
grep egrep fgrep sed awk mawk gawk perl find xargs file
ls cp mv ln rm rmdir mkdir mkfifo mktemp touch chmod chown chgrp install stat du df dd sync
pwd dirname basename readlink realpath which printenv stty tty
tar gzip gunzip zcat bzip2 xz zip unzip
"""
# What tells a program as whom and where it runs.
FOR_LOOKS = "id whoami groups hostname uname arch nproc ps getconf getent locale ldd lscpu kill"
# What fetches, wraps and hides; git for a requirement in a repository.
FOR_THIEVES = "curl wget openssl base64 base32 md5sum sha1sum sha256sum sha512sum cksum xxd git"
# What compiles extensions.
FOR_BUILDS = """
gcc g++ cc c++ cpp as ld ar nm ranlib strip objcopy objdump readelf make pkg-config
x86_64-linux-gnu-gcc x86_64-linux-gnu-g++ aarch64-linux-gnu-gcc aarch64-linux-gnu-g++
"""
# The system's own, beside that of the jail.
FOR_SCRIPTS = "python3 python3.11 python3.12 python3.13 python3.14"
TOOLS = f"{FOR_SHELLS} {FOR_LOOKS} {FOR_THIEVES} {FOR_BUILDS} {FOR_SCRIPTS}".split()
SYSTEM_BIN = "/usr/bin"


def lay_out_tools(folder: Path) -> None:
    """Make a link for each program that is there."""
    for name in TOOLS:
        if os.access(f"{SYSTEM_BIN}/{name}", os.X_OK):
            (folder / name).symlink_to(f"{SYSTEM_BIN}/{name}")
