"""Archives as streams: all formats and compressions, read once; whole or refused."""

import io
import os
import random
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tars import COMPRESSORS, END, extended, gnu_tar, header, member, pack, padded

from outcrop.publisher import tar_stream
from outcrop.publisher.errors import ArchiveInvalid, LimitExceeded, PublishError, SourceUnreadable
from outcrop.publisher.tar_members import TarMember
from outcrop.publisher.tar_stream import TarReader


class Dribble(io.RawIOBase):
    """A pipe that gives a few bytes at a time, and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)
        self._random = random.Random(1)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, self._random.randrange(1, 700)))


def read_all(data: bytes) -> list[tuple[TarMember, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(m, b"".join(reader.blocks(m))) for m in reader]


def contents(data: bytes) -> dict[bytes, bytes]:
    return {m.name: content for m, content in read_all(data)}


def make_tree(root: Path) -> Path:
    source = root / "tree"
    long = source / ("d" * 90) / ("e" * 90)
    long.mkdir(parents=True)
    (long / ("f" * 200)).write_bytes(b"long names")
    (source / "ü \udcff\n").write_bytes(os.urandom(3000))
    (source / "empty").touch()
    (source / "link").symlink_to("t" * 150)
    (source / "hard").hardlink_to(source / "empty")
    os.mkfifo(source / "fifo")
    return source


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"], ["--format=oldgnu"]])
def test_what_gnu_tar_writes(tmp_path: Path, options: list[str]) -> None:
    source = make_tree(tmp_path)
    found = {m.name.rstrip(b"/"): (m, data) for m, data in read_all(gnu_tar(source, *options))}
    paths = [source, *source.rglob("*")]
    assert set(found) == {
        os.fsencode(f"./{p.relative_to(source)}").removesuffix(b"/.") for p in paths
    }
    for path in paths:
        name = b"./" + os.fsencode(path.relative_to(source))
        entry, data = found[b"." if name == b"./." else name]
        seen = path.lstat()
        assert (entry.uid, entry.gid, entry.mtime) == (seen.st_uid, seen.st_gid, int(seen.st_mtime))
        assert stat.S_IMODE(entry.mode) == stat.S_IMODE(seen.st_mode)
        if entry.is_hard_link:
            assert {name, entry.link} == {b"./hard", b"./empty"}
        elif path.is_symlink():
            assert entry.link == os.fsencode(path.readlink())
        elif path.is_file():
            assert data == path.read_bytes()
        if options == ["--format=posix"] and not entry.is_hard_link:
            assert entry.mtime_ns == seen.st_mtime_ns % 1_000_000_000


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes(tmp_path: Path, format_: int) -> None:
    source = tmp_path / "tree"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_bytes(bytes(range(256)) * 10)
    (source / "a/link").symlink_to("b")
    found = read_all(pack(source, format_))
    assert [m.name for m, _ in found] == [b"././", b"./a/", b"./a/b/", b"./a/b/file", b"./a/link"]
    assert found[3][1] == bytes(range(256)) * 10
    assert found[4][0].link == b"b"


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compression_is_known_by_its_first_bytes(name: str) -> None:
    compress = COMPRESSORS[name]
    archive = member(b"a", os.urandom(5000)) + member(b"b", bytes(3_000_000)) + END
    assert contents(compress(archive)) == contents(archive)
    cut = len(archive) // 2
    if name != "plain":  # several streams in a row are one archive
        assert contents(compress(archive[:cut]) + compress(archive[cut:])) == contents(archive)
        reader = TarReader(Dribble(compress(archive)))
        assert [m.name for m in reader] == [b"a", b"b"]


@pytest.mark.parametrize("name", COMPRESSORS)
def test_archives_that_are_cut_short_are_refused(name: str) -> None:
    whole = COMPRESSORS[name](member(b"a", os.urandom(2000)) + member(b"b", b"x") + END)
    # Without its last zeros a plain archive still has an end marker.
    last = len(whole) - (512 if name == "plain" else 1)
    for size in [*range(0, last, 97), last - 1]:
        with pytest.raises(ArchiveInvalid):
            contents(whole[:size])


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_flipped_bits_of_compressed_archives_are_found(name: str) -> None:
    compress = COMPRESSORS[name]
    if name == "zstd":  # checksums are an option; the tool sets it
        compress = _zstd_with_checksum
    whole = compress(member(b"a", os.urandom(2000)) + END)
    rest = 20 if name == "gzip" else 4  # gzip does not check its header
    for at in range(rest, len(whole), 61):
        broken = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        with pytest.raises(ArchiveInvalid):
            contents(broken)
    with pytest.raises(ArchiveInvalid):  # of the very last byte bzip2 needs a few bits only
        contents(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])


def _zstd_with_checksum(data: bytes) -> bytes:
    from backports import zstd

    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


@pytest.mark.parametrize("name", COMPRESSORS)
def test_nothing_but_zeros_may_follow(name: str) -> None:
    compress = COMPRESSORS[name]
    archive = member(b"a", b"x") + END
    assert contents(compress(archive + bytes(9000))) == {b"a": b"x"}
    assert contents(compress(archive) + bytes(3000)) == {b"a": b"x"}
    for spoilt in (compress(archive + archive), compress(archive) + b"garbage, and more of it"):
        with pytest.raises(ArchiveInvalid, match="other bytes after the end"):
            contents(spoilt)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\3\4" + bytes(1000), b"\x1f\x8b", os.urandom(999)]
)
def test_what_is_no_archive(data: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        contents(data)


def test_an_archive_without_members() -> None:
    assert contents(bytes(10240)) == {}


def test_an_archive_may_come_from_a_pipe() -> None:
    archive = member(b"a", os.urandom(300_000)) + END
    read_end, write_end = os.pipe()

    def feed() -> None:
        with os.fdopen(write_end, "wb") as out:
            out.write(archive)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(read_end, "rb", buffering=0) as source:
        found = [(m.name, reader.read(m)) for reader in [TarReader(source)] for m in reader]
    thread.join()
    assert found == [(b"a", archive[512 : 512 + 300_000])]


def test_an_archive_that_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with os.fdopen(os.dup(0), "rb", buffering=0) as source:
        os.dup2(fd, source.fileno())
        os.close(fd)
        with pytest.raises(SourceUnreadable, match="Is a directory"):
            TarReader(source)


def test_members_nobody_asks_for_are_skipped() -> None:
    archive = member(b"a", os.urandom(3_000_001)) + member(b"b", b"x") + END
    assert [m.name for m in TarReader(io.BytesIO(archive))] == [b"a", b"b"]
    reader = TarReader(io.BytesIO(archive))
    for entry in reader:
        next(reader.blocks(entry))


def test_global_headers_are_for_all_that_follow() -> None:
    archive = (
        extended([(b"uid", b"7"), (b"comment", b"by git")], kind=b"g")
        + member(b"a") + extended([(b"uid", b"8")]) + member(b"b") + member(b"c") + END
    )  # fmt: skip
    assert [m.uid for m, _ in read_all(archive)] == [7, 8, 7]


def test_volume_labels_are_no_members() -> None:
    assert contents(header(b"label", kind=b"V") + member(b"a") + END) == {b"a": b""}


@pytest.mark.parametrize("kind", [b"1", b"2", b"5", b"6"])
def test_sizes_of_what_has_no_content_mean_nothing(kind: bytes) -> None:
    archive = header(b"a", kind=kind, size=4096, link=b"b") + member(b"b", b"x") + END
    assert [m.name for m, _ in read_all(archive)] == [b"a", b"b"]


# --- sparse files ---


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], ["--format=posix", "--sparse-version=0.0"],
     ["--format=posix", "--sparse-version=0.1"], ["--format=posix", "--sparse-version=1.0"]],
)  # fmt: skip
def test_holes_are_zeros(tmp_path: Path, options: list[str]) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for n in range(60):
            file.seek(n * 40_000)
            file.write(b"data %d" % n)
        file.truncate(5_000_000)
    (tmp_path / "other").write_bytes(b"other")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(100_000)
    archive = gnu_tar(tmp_path, "--sparse", *options)
    assert len(archive) < 1_000_000
    found = contents(archive)
    for name in ("sparse", "other", "hole"):
        assert found[b"./" + name.encode()] == (tmp_path / name).read_bytes()


def old_sparse(name: bytes, extents: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    block = bytearray(header(name, kind=b"S", size=len(data), magic=b"ustar  \0"))
    for n, (offset, length) in enumerate(extents):
        block[386 + 24 * n : 410 + 24 * n] = b"%011o\0%011o\0" % (offset, length)
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(data)


def test_a_sparse_file_by_hand() -> None:
    archive = old_sparse(b"s", [(3, 2), (7, 1)], 10, b"abc") + END
    assert contents(archive) == {b"s": b"\0\0\0ab\0\0c\0\0"}


@pytest.mark.parametrize(
    ("extents", "size"),
    [([(0, 4)], 10), ([(5, 2), (0, 1)], 10), ([(0, 3)], 2), ([(0o77777777777, 3)], 10)],
)
def test_lies_about_holes_are_found(extents: list[tuple[int, int]], size: int) -> None:
    with pytest.raises(ArchiveInvalid, match="member s"):
        contents(old_sparse(b"s", extents, size, b"abc") + END)


def test_holes_are_bounded_in_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "MAX_HOLE_BYTES", 1000)
    files = old_sparse(b"a", [(600, 3)], 603, b"abc") + old_sparse(b"b", [(600, 3)], 603, b"abc")
    with pytest.raises(LimitExceeded, match="member b: the sparse files so far"):
        contents(files + END)


@pytest.mark.parametrize(
    "text",
    [b"9999999\n0\n", b"x\n", b"1\n0\n", b"\n", b"1" * 2000, b"1\n-1\n5\n", b"2\n0\n5\n0\n5\n"],
)
def test_maps_before_the_data_are_bounded_and_true(text: bytes) -> None:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
               (b"GNU.sparse.name", b"s"), (b"GNU.sparse.realsize", b"10")]  # fmt: skip
    archive = extended(records) + member(b"GNUSparseFile.0/s", padded(text) + b"abcde") + END
    with pytest.raises((ArchiveInvalid, LimitExceeded)):
        contents(archive)


# --- bombs ---


def test_extended_headers_are_bounded() -> None:
    huge = header(b"x", kind=b"x", size=b"\x80" + bytes(5) + b"\1" + bytes(5))
    with pytest.raises(LimitExceeded, match="an extended header of 1099511627776 bytes"):
        contents(huge + bytes(4096))
    with pytest.raises(LimitExceeded, match="extended header"):
        contents(header(b"x", kind=b"L", size=1 << 20) + bytes(4096))
    globals_ = b"".join(extended([(b"k%d" % n, b"v" * 500_000)], kind=b"g") for n in range(4))
    with pytest.raises(LimitExceeded, match="global headers"):
        contents(globals_ + member(b"a") + END)


def test_a_member_larger_than_the_archive() -> None:
    with pytest.raises(ArchiveInvalid, match="member big: the archive is cut short within it"):
        contents(header(b"big", size=b"\x80" + bytes(5) + b"\1" + bytes(5)) + bytes(4096))


def test_endless_padding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "_MAX_PADDING_BYTES", 1 << 20)
    with Path("/dev/zero").open("rb", buffering=0) as zeros, pytest.raises(ArchiveInvalid):
        list(TarReader(zeros))


SEEDS = [
    member(b"a", b"content") + extended([(b"path", b"b")]) + member(b"x") + END,
    old_sparse(b"s", [(3, 2), (7, 1)], 10, b"abc") + END,
    *(compress(member(b"a", b"content") + END) for compress in COMPRESSORS.values()),
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(0, 3000), st.binary(min_size=1, max_size=20))
def test_any_bytes_are_an_archive_or_refused(seed: bytes, at: int, patch: bytes) -> None:
    at %= len(seed)
    data = seed[:at] + patch + seed[at + len(patch) :]
    try:
        for entry, content in read_all(data):
            assert len(content) == entry.size
    except PublishError:
        return
