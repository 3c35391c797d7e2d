"""Looking at plain rows all at once finds what looking at each by itself finds."""

import os
import sqlite3
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.support import reachability
from tests.support.stratum_zero import StratumZero

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef
from outcrop.repository.catalogs import Catalog
from outcrop.repository.check_catalog import check_catalog
from outcrop.repository.check_rows import PlainFiles, PlainRowReader

DIGEST = ContentHash(HashAlgorithm.SHA1, bytes(20))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a catalog with rows of every kind."""
    root = tmp_path_factory.mktemp("rows")
    world = StratumZero(root / "world")
    world.create()
    world.configure(CVMFS_INCLUDE_XATTRS="true", CVMFS_MIN_CHUNK_SIZE=1000,
                    CVMFS_AVG_CHUNK_SIZE=2000, CVMFS_MAX_CHUNK_SIZE=4000)  # fmt: skip
    source = root / "source"
    (source / "sub").mkdir(parents=True)
    for name in ("one", "two", "sub/three", "sub/four"):
        (source / name).write_bytes(name.encode())
    (source / "empty").touch()
    (source / "large").write_bytes(os.urandom(12_000))
    os.link(source / "one", source / "linked")
    (source / "symlink").symlink_to("one")
    (source / "sub/symlink").symlink_to("../two")
    os.setxattr(source / "sub/four", "user.color", b"green")
    world.publish(source)
    text = reachability.manifest(world.directory)["C"]
    stored = world.directory / "data" / text[:2] / (text[2:] + "C")
    file = root / "plain"
    file.write_bytes(zlib.decompress(stored.read_bytes()))
    return file


def open_catalog(plain: bytes) -> Catalog:
    fd = os.memfd_create("catalog")
    os.write(fd, plain)
    return Catalog(fd, DIGEST)


def found(plain: bytes, *, at_once: bool) -> tuple[list[str], set[str], int] | str:
    """Problems, objects and entries, or what was wrong with a row."""
    objects: set[str] = set()

    def take(_: bytes, ref: ObjectRef) -> None:
        objects.add(ref.path)

    def take_plain(_: bytes, files: PlainFiles) -> None:
        for digest in files.digests:
            objects.add(ObjectRef(ContentHash(files.algorithm, digest)).path)

    try:
        report = check_catalog(open_catalog(plain), take, take_plain if at_once else None)
    except FormatError:
        return "a row that cannot be"
    return sorted(map(str, report.problems)), objects, report.entries


def changed(plain: Path, *statements: tuple[str, tuple]) -> bytes:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(plain.read_bytes())
    for sql, values in statements:
        database.execute(sql, values)
    data = database.serialize()
    database.close()
    return data


values = st.one_of(
    st.none(),
    st.sampled_from([0, 1, 2, 3, 4, 8, 12, 64, 68, 128, 132, 1 << 32, 4 | 3 << 8, 4 | 2 << 11,
                     0o100644, 0o120777, 0o40755, 0o10644, 999_999_999, 10**9, -1, 1 << 50,
                     (1 << 50) + 1, 1.5]),
    st.sampled_from(["", ".", "..", "one", "two", "a/b", "a\0b", "a" * 255, "a" * 256, "b" * 5000,
                     "1", "é" * 128]),
    st.sampled_from([b"", b"one", bytes(20), bytes(16), bytes(21), b"\xff" * 20]),
    st.integers(-(1 << 63), (1 << 63) - 1),
)  # fmt: skip
columns = st.sampled_from(
    ["md5path_1", "md5path_2", "parent_1", "hardlinks", "hash", "size", "mode", "mtime", "mtimens",
     "flags", "name", "symlink", "uid", "gid", "xattr"]
)  # fmt: skip
rows = st.sampled_from(["empty", "two", "symlink", "three", "four", "sub", "large", "linked"])


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(rows, columns, values), min_size=1, max_size=3))
@example([("two", "name", "one")])
@example([("three", "hardlinks", 2)])
@example([("three", "size", "5")])
@example([("symlink", "symlink", "a\0b")])
@example([("two", "flags", 4 | 3 << 8)])
@example([("two", "hash", None), ("two", "size", 0)])
def test_both_ways_find_the_same(plain: Path, edits: list[tuple]) -> None:
    compare(plain, edits)


def compare(plain: Path, edits: list[tuple]) -> None:
    statements = [
        (f"UPDATE OR REPLACE catalog SET {column} = ? WHERE name = ?", (value, row))
        for row, column, value in edits
    ]
    data = changed(plain, *statements)
    assert found(data, at_once=True) == found(data, at_once=False)


@pytest.mark.system
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(rows, columns, values), min_size=1, max_size=2))
def test_both_ways_find_the_same_whatever_a_row_says(plain: Path, edits: list[tuple]) -> None:
    compare(plain, edits)


def test_most_rows_are_plain(plain: Path) -> None:
    reader = PlainRowReader(open_catalog(plain.read_bytes()))
    top, sub = reader.read(b""), reader.read(b"/sub")
    assert top is not None
    assert sub is not None
    assert sorted(top.names) == [b"empty", b"symlink", b"two"]
    assert (top.symlinks, top.others) == (1, True)
    (files,) = sub.files
    assert (files.names, files.size, sub.others) == ([b"three"], 9, True)


def test_catalogs_without_nanoseconds_are_read_at_once_too(plain: Path) -> None:
    data = changed(plain, ("ALTER TABLE catalog DROP COLUMN mtimens", ()))
    assert PlainRowReader(open_catalog(data)).read(b"").names
    assert found(data, at_once=True) == found(data, at_once=False)
