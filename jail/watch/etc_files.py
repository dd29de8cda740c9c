"""The jail's /etc, and its host's name: what an ordinary machine has there, drawn for each run.

What the loader and the programs of this machine look for is copied from its own /etc. Nothing else
is: no key, no name of this machine.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from jail.orders import HOME_IN_JAIL
from jail.watch.ages import drawn_times, set_age
from jail.watch.chance import SYSTEM_RANDOM

MIN_SET_UP_DAYS, MAX_SET_UP_DAYS = 40, 700  # since the machine was set up
# The loader needs the first; what system it is, the jail sees in its /usr anyway.
COPIED = (Path("/etc/ld.so.cache"), Path("/etc/debian_version"))
# A new one at each reading.
UUID = Path("/proc/sys/kernel/random/uuid")
ALTERNATIVES = Path("/etc/alternatives")
OS_RELEASE = Path("/usr/lib/os-release")
# `GlobalSign_Root_R46.pem`, `002c0b4f.0`; of the authorities that all machines of a system have.
CERTIFICATES_OF_SYSTEM = Path("/etc/ssl/certs")
AUTHORITIES = "/usr/share/ca-certificates/mozilla/"
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
sync:x:4:65534:sync:/bin:/bin/sync
games:x:5:60:games:/usr/games:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
lp:x:7:7:lp:/var/spool/lpd:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
news:x:9:9:news:/var/spool/news:/usr/sbin/nologin
uucp:x:10:10:uucp:/var/spool/uucp:/usr/sbin/nologin
proxy:x:13:13:proxy:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
backup:x:34:34:backup:/var/backups:/usr/sbin/nologin
list:x:38:38:Mailing List Manager:/var/list:/usr/sbin/nologin
irc:x:39:39:ircd:/run/ircd:/usr/sbin/nologin
_apt:x:42:65534::/nonexistent:/usr/sbin/nologin
systemd-network:x:998:998:systemd Network Management:/:/usr/sbin/nologin
messagebus:x:{bus}:{bus}::/nonexistent:/usr/sbin/nologin
sshd:x:{sshd}:65534::/run/sshd:/usr/sbin/nologin
{user}:x:{uid}:{gid}:{user},,,:{home}:/bin/bash
"""
GROUPS = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:{user}
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
news:x:9:
uucp:x:10:
man:x:12:
proxy:x:13:
kmem:x:15:
dialout:x:20:{user}
cdrom:x:24:{user}
floppy:x:25:{user}
sudo:x:27:{user}
audio:x:29:{user}
dip:x:30:{user}
www-data:x:33:
backup:x:34:
operator:x:37:
list:x:38:
irc:x:39:
src:x:40:
shadow:x:42:
utmp:x:43:
video:x:44:{user}
sasl:x:45:
plugdev:x:46:{user}
staff:x:50:
games:x:60:
users:x:100:{user}
systemd-network:x:998:
messagebus:x:{bus}:
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
# What stands on every machine and is the same on most.
PLAIN_TEXTS = {
    "environment": "",
    "host.conf": "multi on\n",
    "ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n",
    "networks": "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n\n",
    "subgid": "{user}:100000:65536\n",
    "subuid": "{user}:100000:65536\n",
    "issue": "{system} \\n \\l\n\n",
    "issue.net": "{system}\n",
    "fstab": "UUID={disk} / ext4 errors=remount-ro 0 1\nUUID={swap} none swap sw 0 0\n",
}
# For root alone: what is in them would be nobody's.
FOR_ROOT_ALONE = ("gshadow", "gshadow-", "shadow", "shadow-", "sudoers")
FOLDERS_OF_ETC = (
    *("apt/apt.conf.d", "apt/sources.list.d", "bash_completion.d", "binfmt.d", "ca-certificates"),
    *("cron.d", "cron.daily", "cron.hourly", "cron.monthly", "cron.weekly", "default", "dpkg"),
    *("environment.d", "init.d", "iproute2", "kernel", "ld.so.conf.d", "logrotate.d", "network"),
    *("modules-load.d", "opt", "pam.d", "perl", "profile.d", "python3", "security", "selinux"),
    *("skel", "ssh", "ssl/certs", "ssl/private", "sudoers.d", "sysctl.d", "systemd/system"),
    *("terminfo", "tmpfiles.d", "udev/rules.d", "update-motd.d", "X11", "xdg/autostart"),
    *(f"rc{level}.d" for level in "0123456S"),
)
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


def lay_etc(folder: Path, host: str, user: int, group: int, *, has_links: bool = True) -> None:
    """Fill the jail's /etc. Raises OSError.

    Args:
        user, group: the ids that the package has.
        has_links: whether those are there that name programs, and the authorities that the machine
            trusts: hundreds.
    """
    zone = SYSTEM_RANDOM.choice(TIME_ZONES)
    about = {"user": HOME_IN_JAIL.rpartition("/")[2], "uid": user, "gid": group, "host": host}
    about |= {
        "home": HOME_IN_JAIL,
        "sshd": 105 + SYSTEM_RANDOM.randrange(15),
        "system": system_name(),
    }
    about |= {"bus": 100 + SYSTEM_RANDOM.randrange(5)}
    about |= {name: UUID.read_text().strip() for name in ("disk", "swap")}
    texts = {"passwd": ACCOUNTS, "group": GROUPS, "hosts": HOSTS, "hostname": "{host}\n"}
    texts |= {"nsswitch.conf": NAME_SERVICES, "resolv.conf": RESOLVER_LINES, **PLAIN_TEXTS}
    filled = {name: text.format(**about).encode() for name, text in texts.items()}
    filled |= {"machine-id": UUID.read_bytes().replace(b"-", b""), "timezone": f"{zone}\n".encode()}
    filled |= {"shells": SHELLS.encode(), "profile": PROFILE.encode()}
    copied = {path.name: copy_of(path) for path in COPIED}
    filled |= {name: data for name, data in copied.items() if data}
    for name, data in filled.items():
        (folder / name).write_bytes(data)
    for name in FOR_ROOT_ALONE:
        (folder / name).touch(0)
    for name in (*FOLDERS_OF_ETC, ALTERNATIVES.name):
        (folder / name).mkdir(parents=True)
    (folder / "localtime").symlink_to(ZONE_FOLDER / zone)
    (folder / "mtab").symlink_to("../proc/self/mounts")
    (folder / "os-release").symlink_to("../usr/lib/os-release")
    if has_links:
        copy_links(ALTERNATIVES, folder / ALTERNATIVES.name)
        copy_certificates(CERTIFICATES_OF_SYSTEM, folder / "ssl/certs")
    # Not all of a moment, and none of this run's.
    for path in (*map(folder.joinpath, FOLDERS_OF_ETC), *folder.iterdir()):
        set_age(path, MAX_SET_UP_DAYS, MIN_SET_UP_DAYS)


def system_name() -> str:
    """What the system calls itself: `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`."""
    lines = copy_of(OS_RELEASE).decode(errors="replace").splitlines()
    found = [line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")]
    return "".join(found[:1]).partition(" (")[0] or "Linux"


def copy_of(path: Path) -> bytes:
    """A file of this machine, as far as there is one."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(MAX_COPIED_BYTES)
    return b""


def copy_links(source: Path, target: Path) -> None:
    """The links of a folder, which name programs of /usr. Debian keeps a README beside them."""
    make_links(links_in(source), target)


def copy_certificates(source: Path, target: Path) -> None:
    """The links to authorities, by name and by checksum. Those that its owner has added say whose
    machine it is: they are left out.
    """
    links = links_in(source)
    known = {
        name: leads_to
        for name, leads_to in links.items()
        if links.get(leads_to, leads_to).startswith(AUTHORITIES)
    }
    make_links(known, target)


def links_in(folder: Path) -> dict[str, str]:
    """Where each link leads, by its name."""
    found: dict[str, str] = {}
    # There are hundreds: objects of pathlib would take four times as long.
    for name in sorted(os.listdir(folder) if folder.is_dir() else [])[:MAX_LINKS_COPIED]:
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"{folder}/{name}")  # noqa: PTH115
    return found


def make_links(links: Mapping[str, str], folder: Path) -> None:
    """They seem to have come together."""
    times = drawn_times(MAX_SET_UP_DAYS, MIN_SET_UP_DAYS)
    for name, leads_to in links.items():
        os.symlink(leads_to, f"{folder}/{name}")  # noqa: PTH211
        os.utime(f"{folder}/{name}", times, follow_symlinks=False)
