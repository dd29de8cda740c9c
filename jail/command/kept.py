# `snakehook samples`: what runs with findings have loaded, and copies of it.
#
# The samples belong to the user that watches are, and are hostile bytes. As root, this becomes that
# user before it reads a sample. Copies are made with the rights of who started us: what makes them
# only counts and hashes the bytes that come out of a pipe.

import argparse
import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from packaging.version import InvalidVersion, Version

import snakehook
from jail.watch.samples import KeptFile, SampleStore
from snakehook import EXIT_OK, ServiceError, Settings

# b"<sha256> <bytes>\n", and as many bytes.
COPY_HEAD = re.compile(rb"([0-9a-f]{64}) (0|[1-9][0-9]{0,15})\n")
COPY_HEAD_BYTES = 100
COPY_BLOCK_BYTES = 1 << 20


def command_samples(arguments: argparse.Namespace) -> int:
    """the files that runs with findings have loaded"""
    settings = snakehook.settings_of_environment()
    if (arguments.name is None) != (arguments.to is None) or (
        arguments.name and not arguments.version
    ):
        raise ServiceError(
            "Give NAME, VERSION and --to FOLDER to copy samples, or none to list them."
        )
    try:
        samples = SampleStore(settings.state_dir / "samples", settings.keep_samples_bytes)
    except FileNotFoundError:
        samples = None
    except OSError as error:
        raise ServiceError(f"The samples in STATE_DIR can't be read: {error.strerror}.") from None
    if arguments.to is not None:
        return copy_out(samples, wanted_release(arguments), Path(arguments.to), settings)
    snakehook.give_up_root(settings.nsjail_user, settings.nsjail_group)
    found = samples.all() if samples else []
    for kept in found:
        print(line_of(kept))
    if not found:
        print("No samples are kept.", file=sys.stderr)
    return EXIT_OK


def wanted_release(arguments: argparse.Namespace) -> tuple[str, Version]:
    try:
        return snakehook.project_name(arguments.name), Version(arguments.version)
    except ValueError:
        raise ServiceError("NAME must be a project's name, VERSION one exact version.") from None


# "evil 1.0  high  4711 bytes  2026-11-26T05:05:00+00:00  evil-1.0.tar.gz  47..."
def line_of(kept: KeptFile) -> str:
    when = datetime.fromtimestamp(min(kept.kept_sec, 4e9), UTC).isoformat(timespec="seconds")
    release = f"{kept.name} {kept.version}"
    words = (release, kept.verdict, f"{kept.size_bytes} bytes", when, kept.file, kept.sha256)
    return "  ".join(words)


def has_version(kept: KeptFile, version: Version) -> bool:
    with contextlib.suppress(InvalidVersion):
        return Version(kept.version) == version
    return False


# Raises ServiceError.
def copy_out(
    samples: SampleStore | None, wanted: tuple[str, Version], folder: Path, settings: Settings
) -> int:
    name, version = wanted
    try:
        folder.mkdir(exist_ok=True)
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ServiceError(
            f"--to must be a folder that can be written: {error.strerror}."
        ) from None
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(near)
        status = 1
        try:
            snakehook.give_up_root(settings.nsjail_user, settings.nsjail_group)
            with os.fdopen(far, "wb") as pipe:
                for kept in samples.all() if samples else []:
                    if kept.name == name and has_version(kept, version):
                        send_sample(samples, kept.sha256, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(far)
    with os.fdopen(near, "rb") as pipe:
        copied = [copy_one(pipe, head, target) for head in heads(pipe)]
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise ServiceError("The samples in STATE_DIR can't be read: their user must get to them.")
    if not copied:
        raise ServiceError(f"No sample of {name} {version} is kept: see 'snakehook samples'.")
    for text in copied:
        print(snakehook.printable_line(str(folder / text), 1000))
    return EXIT_OK


def send_sample(samples: SampleStore | None, sha256: str, pipe: BinaryIO) -> None:
    file = samples.open(sha256) if samples else None
    if file:
        with file:
            pipe.write(f"{sha256} {os.fstat(file.fileno()).st_size}\n".encode())
            while block := file.read(COPY_BLOCK_BYTES):
                pipe.write(block)


def heads(pipe: BinaryIO) -> Iterator[re.Match[bytes]]:
    while head := COPY_HEAD.fullmatch(pipe.readline(COPY_HEAD_BYTES)):
        yield head


# One sample from the pipe to `<sha256>.sample`: its name. Who made the bytes is not believed.
# Raises ServiceError.
def copy_one(pipe: BinaryIO, head: re.Match[bytes], target: int) -> str:
    sha256, left_bytes = head[1].decode(), int(head[2])
    name, digest = f"{sha256}.sample", hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, 0o400, dir_fd=target)
    except OSError as error:
        raise ServiceError(f"{name} can't be written: {error.strerror}.") from None
    try:
        with os.fdopen(fd, "wb") as copy:
            while block := pipe.read(min(left_bytes, COPY_BLOCK_BYTES)):
                left_bytes -= len(block)
                digest.update(block)
                copy.write(block)
    except OSError as error:
        os.unlink(name, dir_fd=target)
        raise ServiceError(f"{name} can't be written: {error.strerror}.") from None
    if digest.hexdigest() != sha256:
        os.unlink(name, dir_fd=target)
        raise ServiceError(f"{name} could not be read whole: try again.")
    return name
