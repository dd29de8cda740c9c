"""The jail's /sys and /boot: what an ordinary machine shows there, drawn for each run.

The real ones would tell which machine this is, and none at all tells a sandbox. No more is here
than what people and programs look at: the maker, the processors, the kernel's files, which nobody
but root reads.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from jail.watch.ages import set_age
from jail.watch.chance import SYSTEM_RANDOM

MAX_KERNEL_DAYS, MAX_UPTIME_DAYS = 60, 9
MAX_CPUS_SHOWN = 256
# Maker, model, name of the board, maker and version of the firmware, kind of chassis (SMBIOS 7.4.1:
# 3 is a desktop, 10 a notebook).
MODELS = (
    ("Dell Inc.", "Latitude 7420", "07MHG4", "Dell Inc.", "1.{:02}.0", 10),
    ("Dell Inc.", "XPS 13 9310", "0MK6WC", "Dell Inc.", "3.{:02}.0", 10),
    ("Dell Inc.", "OptiPlex 7080", "0J37VM", "Dell Inc.", "1.{:02}.2", 3),
    ("LENOVO", "20W0003GUS", "20W0003GUS", "LENOVO", "N34ET{:02}W (1.{:02} )", 10),
    ("LENOVO", "21CBCTO1WW", "21CBCTO1WW", "LENOVO", "N3AET{:02}W (1.{:02} )", 10),
    ("HP", "HP EliteBook 840 G8 Notebook PC", "880D", "HP", "T37 Ver. 01.{:02}.00", 10),
    ("HP", "HP ProDesk 600 G6", "8714", "HP", "S02 Ver. 02.{:02}.00", 3),
    (
        "ASUSTeK COMPUTER INC.",
        "PRIME B560M-A",
        "PRIME B560M-A",
        "American Megatrends",
        "1{:02}0",
        3,
    ),
    ("Framework", "Laptop", "FRANBMCP04", "INSYDE Corp.", "03.{:02}", 10),
)
# For root alone: what tells one machine from all others.
SERIALS = ("product_serial", "product_uuid", "board_serial", "chassis_serial")
DMI = "devices/virtual/dmi/id"
CPUS = "devices/system/cpu"
LOOPBACK = "devices/virtual/net/lo"
EMPTY = ("block", "bus", "class/block", "dev", "firmware", "fs/cgroup", "kernel", "module", "power")
LINKS = {"class/dmi/id": f"../../{DMI}", "class/net/lo": f"../../{LOOPBACK}"}
# The range of megabytes that each file of the kernel has.
KERNEL_FILES = {"vmlinuz": (7, 13), "initrd.img": (34, 78), "System.map": (5, 9)}


def lay_system(sys_folder: Path, boot_folder: Path) -> None:
    """Fill the jail's /sys and /boot. Raises OSError."""
    for name in EMPTY:
        (sys_folder / name).mkdir(parents=True)
    count = min(os.cpu_count() or 1, MAX_CPUS_SHOWN)
    online = f"0-{count - 1}" if count > 1 else "0"
    for number in range(count):
        (sys_folder / CPUS / f"cpu{number}").mkdir(parents=True)
    write_all(sys_folder / CPUS, dict.fromkeys(("online", "possible", "present"), online))
    about_loopback = {"address": "00:00:00:00:00:00", "mtu": "65536", "operstate": "unknown"}
    write_all(sys_folder / LOOPBACK, about_loopback | {"ifindex": "1", "type": "772"})
    write_all(sys_folder / DMI, drawn_model())
    for name in SERIALS:
        (sys_folder / DMI / name).touch(0)
    for name, target in LINKS.items():
        (sys_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (sys_folder / name).symlink_to(target)
    (boot_folder / "grub").mkdir()
    for name, (least, most) in KERNEL_FILES.items():
        path = boot_folder / f"{name}-{os.uname().release}"
        path.touch(0o600)
        # A file with a hole in it takes no room.
        os.truncate(path, (least << 20) + SYSTEM_RANDOM.randrange((most - least) << 20))
        path.chmod(0)
        set_age(path, MAX_KERNEL_DAYS)


def drawn_model() -> dict[str, str]:
    """What the firmware says of the machine."""
    maker, model, board, firm, version, chassis = SYSTEM_RANDOM.choice(MODELS)
    number, day = 10 + SYSTEM_RANDOM.randrange(40), 1 + SYSTEM_RANDOM.randrange(28)
    about = {"sys_vendor": maker, "product_name": model, "board_vendor": maker, "board_name": board}
    about |= {"bios_vendor": firm, "bios_version": version.format(number, number + 2)}
    about |= {"bios_date": f"{1 + SYSTEM_RANDOM.randrange(12):02}/{day:02}/{2022 + day % 4}"}
    return about | {"chassis_vendor": maker, "chassis_type": str(chassis)}


def write_all(folder: Path, lines: Mapping[str, str]) -> None:
    """A file of one line for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, line in lines.items():
        (folder / name).write_text(f"{line}\n")
        set_age(folder / name, MAX_UPTIME_DAYS)
