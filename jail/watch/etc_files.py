"""The jail's /etc, and its host's name: what an ordinary machine has there, drawn for each run.

What the loader and the programs of this machine look for is copied from its own /etc. Nothing else
is: no key, no name of this machine.
"""

import contextlib
import os
from pathlib import Path

from jail.orders import HOME_IN_JAIL
from jail.watch.ages import set_age
from jail.watch.chance import SYSTEM_RANDOM

MIN_SET_UP_DAYS, MAX_SET_UP_DAYS = 40, 700  # since the machine was set up
# The loader needs the first; what system it is, the jail sees in its /usr anyway.
COPIED = (Path("/etc/ld.so.cache"), Path("/etc/debian_version"))
# A new one at each reading.
UUID = Path("/proc/sys/kernel/random/uuid")
ALTERNATIVES = Path("/etc/alternatives")
MAX_COPIED_BYTES, MAX_LINKS_COPIED = 4 << 20, 2000
# What people and companies call their machines, with a number or a word behind.
HOST_WORDS = (
    *("apollo", "atlas", "birch", "cedar", "delta", "ember", "falcon", "gemini", "harbor", "iris"),
    *("juno", "kepler", "lynx", "maple", "nova", "orion", "pine", "quartz", "raven", "sierra"),
    *("thinkpad", "latitude", "desktop", "workstation", "dev", "laptop", "devbox", "xps"),
)
TIME_ZONES = (
    *("Europe/Berlin", "Europe/London", "Europe/Paris", "Europe/Warsaw", "Europe/Madrid"),
    *("America/New_York", "America/Chicago", "America/Los_Angeles", "America/Sao_Paulo"),
    *("Asia/Tokyo", "Asia/Kolkata", "Asia/Singapore", "Australia/Sydney"),
)
ZONE_FOLDER = Path("/usr/share/zoneinfo")
ACCOUNTS = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
games:x:5:60:games:/usr/games:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
backup:x:34:34:backup:/var/backups:/usr/sbin/nologin
sshd:x:{sshd}:65534::/run/sshd:/usr/sbin/nologin
{user}:x:{uid}:{gid}:{user},,,:{home}:/bin/bash
"""
GROUPS = """\
root:x:0:
daemon:x:1:
adm:x:4:{user}
tty:x:5:
disk:x:6:
cdrom:x:24:{user}
sudo:x:27:{user}
www-data:x:33:
video:x:44:{user}
users:x:100:
{user}:x:{gid}:
"""
HOSTS = """\
127.0.0.1\tlocalhost
127.0.1.1\t{host}
::1\tlocalhost ip6-localhost ip6-loopback
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
NAME_SERVICES = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
# One resolver, watch on the jail's loopback: it records every name and knows none.
RESOLVER_LINES = "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n"
SHELLS = "/bin/sh\n/bin/bash\n/usr/bin/bash\n/bin/dash\n/usr/bin/dash\n"
PROFILE = """\
if [ "$(id -u)" -eq 0 ]; then
  PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
else
  PATH="/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
fi
export PATH
"""


def make_host_name() -> str:
    """The name of the jail's host."""
    word = SYSTEM_RANDOM.choice(HOST_WORDS)
    ends = (str(SYSTEM_RANDOM.randrange(99) + 1), f"{SYSTEM_RANDOM.randrange(1 << 16):04x}")
    return f"{word}-{SYSTEM_RANDOM.choice(ends)}"


def lay_etc(folder: Path, host: str, user: int, group: int) -> None:
    """Fill the jail's /etc. Raises OSError.

    Args:
        user, group: the ids that the package has.
    """
    zone = SYSTEM_RANDOM.choice(TIME_ZONES)
    about = {"user": HOME_IN_JAIL.rpartition("/")[2], "uid": user, "gid": group, "host": host}
    about |= {"home": HOME_IN_JAIL, "sshd": 100 + SYSTEM_RANDOM.randrange(20)}
    texts = {"passwd": ACCOUNTS, "group": GROUPS, "hosts": HOSTS, "hostname": "{host}\n"}
    texts |= {"nsswitch.conf": NAME_SERVICES, "resolv.conf": RESOLVER_LINES}
    filled = {name: text.format(**about).encode() for name, text in texts.items()}
    filled |= {"machine-id": UUID.read_bytes().replace(b"-", b""), "timezone": f"{zone}\n".encode()}
    filled |= {"shells": SHELLS.encode(), "profile": PROFILE.encode()}
    copied = {path.name: copy_of(path) for path in COPIED}
    filled |= {name: data for name, data in copied.items() if data}
    for name, data in filled.items():
        (folder / name).write_bytes(data)
        set_age(folder / name, MAX_SET_UP_DAYS, MIN_SET_UP_DAYS)
    for name in ("cron.d", "profile.d", "ssl/certs", ALTERNATIVES.name):
        (folder / name).mkdir(parents=True)
    (folder / "localtime").symlink_to(ZONE_FOLDER / zone)
    (folder / "mtab").symlink_to("../proc/self/mounts")
    (folder / "os-release").symlink_to("../usr/lib/os-release")
    copy_links(ALTERNATIVES, folder / ALTERNATIVES.name)


def copy_of(path: Path) -> bytes:
    """A file of this machine, as far as there is one."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(MAX_COPIED_BYTES)
    return b""


def copy_links(source: Path, target: Path) -> None:
    """The links of a folder, which name programs of /usr. Debian keeps a README beside them."""
    # There are hundreds: objects of pathlib would take four times as long.
    for name in sorted(os.listdir(source) if source.is_dir() else [])[:MAX_LINKS_COPIED]:
        with contextlib.suppress(OSError):
            os.symlink(os.readlink(f"{source}/{name}"), f"{target}/{name}")  # noqa: PTH115, PTH211
