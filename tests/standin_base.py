"""Make a stand-in for the official slim Python image, where no container registry is reached.

    python3 tests/standin_base.py TAG

Debian's bookworm, from this machine's own apt sources, with a copy of the CPython that runs this
under /usr/local, as the official image has it. Kept under ~/.cache/snakehook by a key of all that
goes in: 40 s the first time, then 2.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

PACKAGES = [
    *(
        "ca-certificates",
        "libbz2-1.0",
        "libexpat1",
        "libffi8",
        "libgdbm6",
        "liblzma5",
        "libncursesw6",
        "libnsl2",
    ),
    *(
        "libreadline8",
        "libsqlite3-0",
        "libssl3",
        "libtirpc3",
        "libuuid1",
        "netbase",
        "tzdata",
        "zlib1g",
    ),
]
DEBIAN_PYTHON = ["python3", "python3-pip", "python3-venv"]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "__pycache__",
}
LINKS = (("bin/python3", ""), ("bin/python", "python3"), ("bin/pip", "pip3"))


class BaseError(Exception):
    """Why the stand-in can't be made here, in one sentence."""


def apt_sources() -> bytes:
    """This machine's apt sources, as they are: so no mirror is named here. Raises BaseError on
    another Debian."""
    if not shutil.which("mmdebstrap"):
        raise BaseError(
            "a stand-in for the base image is made with mmdebstrap: apt-get install -y mmdebstrap"
        )
    release = Path("/etc/os-release").read_text()
    if "VERSION_CODENAME=bookworm" not in release:
        raise BaseError(
            "a stand-in for the base image is made on Debian 12 only, with its apt sources"
        )
    found = sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))
    return (
        b"\n\n".join(source.read_bytes() for source in found)
        or Path("/etc/apt/sources.list").read_bytes()
    )


def add_python(tar: tarfile.TarFile) -> None:
    """The interpreter, its shared library, its standard library: laid out as `make install` does
    below /usr/local."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"

    def keep(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        folder, _, last = item.name.rpartition("/")
        if LEFT_OUT & {*folder.split("/"), last} or (
            last.startswith("libpython") and last.endswith(".a")
        ):
            return None
        item.uid = item.gid = 0
        item.uname = item.gname = "root"
        return item

    tar.add(Path(sys.base_prefix, "bin", name).resolve(), f"bin/{name}", filter=keep)
    tar.add(sysconfig.get_path("stdlib"), f"lib/{name}", filter=keep)
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
        tar.add(library.resolve(), f"lib/{library.name}", filter=keep)
    for link, target in LINKS:
        item = tarfile.TarInfo(link)
        item.type, item.linkname, item.mode = tarfile.SYMTYPE, target or name, 0o777
        tar.addfile(item)


def make(work: Path, sources: bytes) -> Path:
    """A root file system as a tar file in `work`. Raises CalledProcessError."""
    (work / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n")
    python = work / "python.tar"
    copied = (
        sys.base_prefix != "/usr"
    )  # Debian's own Python installs to other places: it is taken from Debian
    with tarfile.open(python, "w") as tar:
        if copied:
            add_python(tar)
        for link, target in (
            [] if copied else [("python3", "python3"), ("python", "python3"), ("pip", "pip3")]
        ):
            item = tarfile.TarInfo(f"bin/{link}")
            item.type, item.linkname, item.mode = tarfile.SYMTYPE, f"/usr/bin/{target}", 0o777
            tar.addfile(item)
    hooks = [
        f"tar-in {python} /usr/local",
        # this machine's certificates, and the line that makes pip use them: the way out may be an
        # inspecting proxy
        f"upload {CERTIFICATES} {CERTIFICATES}",
        f"upload {work}/pip.conf /etc/pip.conf",
        'chroot "$1" ldconfig',
        *(['chroot "$1" /usr/local/bin/python3 -I -m ensurepip --default-pip'] if copied else []),
    ]
    command = [
        *("mmdebstrap", "--quiet", "--variant=minbase"),
        f"--include={','.join(PACKAGES + ([] if copied else DEBIAN_PYTHON))}",
        *(
            f"--dpkgopt=path-exclude=/usr/share/{name}/*"
            for name in ("man", "doc", "locale", "info")
        ),
        # as in the official image: apt keeps no 80 MB of binary caches in a layer
        *('--aptopt=Dir::Cache::pkgcache ""', '--aptopt=Dir::Cache::srcpkgcache ""'),
        *(f"--customize-hook={hook}" for hook in hooks),
        *("bookworm", str(work / "base.tar"), "-"),
    ]
    subprocess.run(command, input=sources, check=True)
    return work / "base.tar"


def provide(tag: str) -> None:
    """Make the image or take it from the cache; give it to podman as `tag`. Raises BaseError."""
    sources = apt_sources()
    parts = (
        sys.version,
        sys.base_prefix,
        sources,
        CERTIFICATES.read_bytes(),
        Path(__file__).read_bytes(),
    )
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "snakehook")
    cache.mkdir(parents=True, exist_ok=True)
    image = cache / f"base-{key}.tar"
    try:
        if not image.exists():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                made = make(Path(work), sources)
                for old in cache.glob("base-*.tar"):
                    old.unlink()
                made.rename(image)
        path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        changes = ["--change", path, "--change", 'CMD ["python3"]']
        subprocess.run(
            [shutil.which("podman") or "podman", "import", "--quiet", *changes, str(image), tag],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as error:
        raise BaseError(
            f"no stand-in for the base image: {error.cmd[0]} failed ({error.returncode})"
        ) from error


if __name__ == "__main__":
    provide(sys.argv[1])
