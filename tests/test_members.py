"""Archives that nobody unpacks: each kind that a release may have, and each that means harm."""

import gzip
import io
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable

import pytest

from jail.watch import members
from jail.watch.members import (
    MAX_MEMBER_PATH_CHARS,
    MAX_ODD,
    Archive,
    read_archive,
)

MIB = 1 << 20


def a_zip(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(data, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return data.getvalue()


def a_tar(*members: tuple[tarfile.TarInfo | str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", format=form) as archive:
        for about, content in members:
            info = tarfile.TarInfo(about) if isinstance(about, str) else about
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def zip_read(data: bytes) -> Archive:
    return read_archive("x-1.0-py3-none-any.whl", io.BytesIO(data))


def tar_read(data: bytes) -> Archive:
    return read_archive("x-1.0.tar.gz", io.BytesIO(data))


LONG = "/".join(["a folder with a long name"] * 8)
NAMES = ["x.py", LONG + "/x.py", "caf\u00e9/\u8a9e.py", "d" * 90 + "/" + "n" * 99]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_file_is_read_as_the_library_reads_it(form: int) -> None:
    names = [name for name in NAMES if form != tarfile.USTAR_FORMAT or len(name) < 200]
    made = random.Random(2)  # noqa: S311
    contents = {name: made.randbytes(made.randrange(3000)) for name in names}
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    archive = tar_read(a_tar((folder, b""), *contents.items(), form=form))
    assert {name: member.start for name, member in archive.members.items()} == contents
    assert archive.odd == []


def test_a_zip_file_is_read_without_its_folders() -> None:
    archive = zip_read(a_zip(("a/", b""), ("a/x.py", b"1"), ("a/empty", b""), ("\u8a9e", b"2")))
    assert {name: member.start for name, member in archive.members.items()} == {
        "a/x.py": b"1",
        "a/empty": b"",
        "\u8a9e": b"2",
    }
    assert archive.odd == []


@pytest.mark.parametrize("make", [a_zip, a_tar], ids=["zip", "tar"])
def test_odd_names_and_two_members_with_one_are_told(make: Callable[..., bytes]) -> None:
    names = ["/etc/passwd", "../../up", "a/../../b", "C:\\x", "a\\b", "\x1b[2J\nx", "x\u202ey"]
    data = make(*((name, b"odd") for name in names), ("x", b"first"), ("x", b"second"))
    archive = zip_read(data) if make is a_zip else tar_read(data)
    assert archive.members["x"].start == b"second"
    assert sum("leads out" in note for note in archive.odd) >= 4
    assert sum("characters that act" in note for note in archive.odd) == 2
    assert "two members with one name: x" in archive.odd
    assert all(note.isascii() and note.isprintable() for note in archive.odd)


def test_links_and_special_members_are_told_and_not_read() -> None:
    members = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"odd{kind.decode()}")
        info.type, info.linkname = kind, "/etc/passwd" * 30
        members.append((info, b""))
    archive = tar_read(a_tar(*members, ("x.py", b"1"), form=tarfile.GNU_FORMAT))
    assert list(archive.members) == ["x.py"]
    assert len(archive.odd) == 4
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr(link, "/etc/passwd")
    assert zip_read(data.getvalue()).odd == ["a link: link"]


def test_a_bomb_is_cut_and_what_came_first_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_UNPACKED_BYTES", 4 * MIB)
    bomb = bytes(8 * MIB)
    for data, read in (
        (a_zip(("x", b"1"), ("bomb", bomb)), zip_read),
        (a_tar(("x", b"1"), ("bomb", bomb)), tar_read),
    ):
        archive = read(data)
        assert archive.members["x"].start == b"1" and "bomb" not in archive.members
        assert len(archive.odd) == 1 and "not all was looked at" in archive.odd[0]


def test_a_long_member_is_hashed_but_not_kept() -> None:
    archive = zip_read(a_zip(("x", b"x" * MIB)))
    member = archive.members["x"]
    assert member.size_bytes == MIB and not member.is_whole
    assert len(member.start) < MIB // 2


def test_unpacking_has_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_UNPACK_SEC", -1.0)
    assert "not all was looked at" in zip_read(a_zip(("x", b"1"))).odd[0]


def test_headers_that_announce_too_much_take_no_memory() -> None:
    header = bytearray(tarfile.TarInfo("x").tobuf())
    for kind in (b"L", b"x", b"K", b"g"):
        huge = tarfile.TarInfo("long")
        huge.size, huge.type = 8 << 30, kind
        data = gzip.compress(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        assert "too long" in tar_read(data).odd[0]
    for number in (b"-1\0", b"\xff" * 12, b"zzz", b"9" * 11):
        header[124:136] = number.ljust(12, b"\0")
        archive = tar_read(gzip.compress(bytes(header) + bytes(1024)))
        assert archive.members == {} and len(archive.odd) == 1
    # A size in pax's own words, and records that lie about their length.
    for record in (b"19 size=-1000000000\n", b"999999 path=x\n", b"0 path=x\n", b"1 path=x\n"):
        pax = tarfile.TarInfo("pax")
        pax.type, pax.size = b"x", len(record)
        body = pax.tobuf() + record.ljust(512, b"\0") + tarfile.TarInfo("x").tobuf()
        tar_read(gzip.compress(body + bytes(1024)))


def test_a_list_of_very_many_members_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    end = b"PK\5\6" + struct.pack("<4xHHII2x", 9, 9, 1 << 30, 0)
    assert "more than" in zip_read(b"x" * 100 + end).odd[0]
    huge = b"x" * 100 + b"PK\6\7" + bytes(16) + b"PK\5\6" + bytes(18)
    assert "more than" in zip_read(huge).odd[0]
    monkeypatch.setattr(members, "MAX_ARCHIVE_MEMBERS", 500)
    assert "more than 500" in zip_read(a_zip(*((f"{n}", b"") for n in range(501)))).odd[0]
    empty = gzip.compress(b"".join(tarfile.TarInfo(f"{n}").tobuf() for n in range(700)))
    archive = tar_read(empty)
    assert len(archive.members) <= 501 and "more than 500" in archive.odd[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_compressed_in_an_odd_way_is_told(method: int) -> None:
    archive = zip_read(a_zip(("x", b"1" * 100), method=method))
    assert archive.members == {} and "how it is compressed: x" in archive.odd[0]


def test_broken_archives_are_told_whatever_breaks_them() -> None:
    made = random.Random(3)  # noqa: S311
    for data, read in (
        (a_zip(*((name, made.randbytes(400)) for name in NAMES)), zip_read),
        (a_tar(*((name, made.randbytes(400)) for name in NAMES)), tar_read),
    ):
        for cut in range(0, len(data), 97):
            archive = read(data[:cut])
            assert archive.odd or len(archive.members) == len(NAMES)
        for _ in range(300):
            broken = bytearray(data)
            for _ in range(3):
                broken[made.randrange(len(broken))] = made.randrange(256)
            read(bytes(broken))
        if read is tar_read:
            plain = bytearray(gzip.decompress(data))
            for _ in range(300):
                broken = bytearray(plain)
                for _ in range(5):
                    broken[made.randrange(len(broken))] = made.randrange(256)
                read(gzip.compress(bytes(broken), 1))


def test_a_broken_member_hides_no_other() -> None:
    data = a_zip(("x", b"first"), ("y", b"second" * 9), method=zipfile.ZIP_STORED)
    archive = zip_read(data.replace(b"first", b"fir5t"))
    assert archive.odd == ["it can't be read: x"]
    assert list(archive.members) == ["y"]


def test_notes_are_few_and_short() -> None:
    archive = zip_read(a_zip(*(("../" + f"{number}" * 500, b"") for number in range(100))))
    assert len(archive.odd) <= MAX_ODD
    assert all(len(note) < MAX_MEMBER_PATH_CHARS + 100 for note in archive.odd)
