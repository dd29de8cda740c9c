"""What an archive says of itself, and how little of it is read to know that."""

import gzip
import io
import resource
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from standins import sdist, wheel

from jail.watch import members
from jail.watch.archive import Unreadable, read_fields

WHEEL = "calm-1.0-py3-none-any.whl"
METADATA = "calm-1.0.dist-info/METADATA"


def fields(data: bytes, name: str) -> tuple[str, str]:
    return read_fields(io.BytesIO(data), name)


def zip_of(members: list[tuple[str, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_wheels_and_sdists_say_name_and_version() -> None:
    for name, data in (wheel("Calm_One", "1.0", {}), sdist("Calm_One", "1.0", {"x.py": ""})):
        assert fields(data, name) == ("Calm_One", "1.0")
    zipped = zip_of([("calm-1.0/PKG-INFO", b"Name: calm\r\nVersion: 1.0\r\n\r\nName: other")])
    assert fields(zipped, "calm-1.0.zip") == ("calm", "1.0")


def test_what_is_vendored_speaks_for_itself_alone() -> None:
    inner = ("calm/_vendor/other-2.0.dist-info/METADATA", b"Name: other\nVersion: 2.0\n")
    data = zip_of([inner, (METADATA, b"Name: calm\nVersion: 1.0\n")])
    assert fields(data, WHEEL) == ("calm", "1.0")


@pytest.mark.parametrize("name", [WHEEL, "calm-1.0.tar.gz", "calm-1.0.zip"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an archive",
        b"PK\3\4" + bytes(100),
        b"PK\5\6",
        b"PK\5\6" + b"\xff" * 18,
        b"\x1f\x8b" + bytes(100),
        gzip.compress(b"no tar", mtime=0),
        gzip.compress(bytes(10_000), mtime=0),
        gzip.compress(b"x" * 10_000, mtime=0)[:-50],
        zip_of([("calm-1.0/x.py", b"")]),
        wheel("calm", "1.0", {})[1][:-30],
        sdist("calm", "1.0", {"x.py": ""})[1][:60],
    ],
)
def test_what_is_no_such_archive_is_told(name: str, data: bytes) -> None:
    with pytest.raises(Unreadable) as told:
        fields(data, name)
    assert len(str(told.value)) < 100


def test_two_metadata_files_that_differ_are_told() -> None:
    data = zip_of(
        [
            (METADATA, b"Name: calm\nVersion: 1.0\n"),
            ("evil-9.0.dist-info/METADATA", b"Name: evil\nVersion: 9.0\n"),
        ]
    )
    with pytest.raises(Unreadable, match="differ"):
        fields(data, WHEEL)


def test_odd_members_of_a_zip_are_not_unpacked() -> None:
    """bz2 and LZMA unpack without bound whatever is asked of them; of an encrypted one nothing is
    known."""
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(Unreadable, match="odd way"):
            fields(zip_of([(METADATA, bytes(3_000_000))], kind), WHEEL)
    data = bytearray(zip_of([(METADATA, b"Name: calm\nVersion: 1.0\n")]))
    for magic, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(magic) + at] |= 1
    with pytest.raises(Unreadable, match="encrypted"):
        fields(bytes(data), WHEEL)


def test_a_bomb_is_unpacked_as_far_as_its_bound_and_no_further() -> None:
    """As long as the process has little memory left, no bomb can go off unseen."""
    big = bytes(40_000_000)
    bomb = zip_of([(METADATA, b"Name: calm\nVersion: 1.0\n\n" + big)])
    pax = tarfile.TarInfo("calm-1.0/x")
    pax.pax_headers = {"comment": "x" * 40_000_000}
    late = [(tarfile.TarInfo("calm-1.0/data"), big), (tarfile.TarInfo("calm-1.0/PKG-INFO"), b"")]
    tars = [tar_of(late), tar_of([(pax, b"")])]
    many = gzip.compress(tarfile.TarInfo("calm-1.0/x").tobuf() * 70_000, 1)
    del big, pax, late
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), hard))
    try:
        assert fields(bomb, WHEEL) == ("calm", "1.0")
        for data in (*tars, many):
            with pytest.raises(Unreadable, match="among its first"):
                fields(data, "calm-1.0.tar.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_list_of_members_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    good = zip_of([(METADATA, b"Name: calm\nVersion: 1.0\n")])
    monkeypatch.setattr(members, "MAX_ZIP_LIST_BYTES", 200)
    assert fields(good, WHEEL) == ("calm", "1.0")
    with pytest.raises(Unreadable, match="too long"):
        fields(zip_of([(f"calm/{number}.py", b"") for number in range(9)]), WHEEL)
    # A short one, and before it the place of one that is longer than the file.
    end = good.index(b"PK\5\6")
    larger = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    with pytest.raises(Unreadable, match="too long"):
        fields(good[:end] + larger + locator + good[end:], WHEEL)


def test_a_link_is_no_metadata() -> None:
    link = tarfile.TarInfo("calm-1.0/PKG-INFO")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.addfile(link)
    with pytest.raises(Unreadable, match="no metadata"):
        fields(data.getvalue(), "calm-1.0.tar.gz")
