"""What CernVM-FS wrote, written again: the same catalogs row by row, the same object names."""

import os
from pathlib import Path

import pytest
from tests.support import golden
from tests.support.checker import Checker
from tests.support.materialized import materialize
from tests.support.stratum_zero import StratumZero

from outcrop.formats.hashes import HashAlgorithm

CHUNKING = {
    "CVMFS_MIN_CHUNK_SIZE": 16384,
    "CVMFS_AVG_CHUNK_SIZE": 32768,
    "CVMFS_MAX_CHUNK_SIZE": 65536,
}
NOT_CONTENT = {"rowid"}
TIMED = ("revision", "last_modified", "previous_revision")

SETUPS = {
    "basic": (HashAlgorithm.SHA1, "zlib"),
    "shake128": (HashAlgorithm.SHAKE128, "zlib"),
    "uncompressed": (HashAlgorithm.SHA1, "none"),
}


def load(name: str) -> Checker:
    directory = golden.directory(name)
    key = golden.public_key(name).read_bytes()
    checker = Checker(directory / "repo", golden.fqrn(name), key)
    checker.load()
    return checker


def publish_again(upstream: Checker, name: str, tmp_path: Path, *, as_root: bool) -> Checker:
    algorithm, compression = SETUPS[name]
    source = tmp_path / "source"
    source.mkdir()
    materialize(upstream, source, as_root=as_root)
    stratum_zero = StratumZero(tmp_path / "world", algorithm=algorithm, compression=compression)
    stratum_zero.create()
    stratum_zero.configure(**CHUNKING)
    stratum_zero.publish(source)
    return stratum_zero.checked()


def rows_of(checker: Checker, mountpoint: bytes, *, without: set[str]) -> dict:
    """The rows of one catalog by path hash; hard link groups by their members."""
    rows = {}
    catalog = checker.catalogs[mountpoint]
    members: dict[int, list] = {}
    for row in catalog.rows:
        members.setdefault(row["hardlinks"] >> 32, []).append(row["name"])
    for row in catalog.rows:
        group, links = row["hardlinks"] >> 32, row["hardlinks"] & 0xFFFFFFFF
        same = {key: value for key, value in row.items() if key not in without}
        same["hardlinks"] = (sorted(members[group]) if group else [], links)
        rows[row["md5path_1"], row["md5path_2"]] = same
    return rows


def assert_equal_catalogs(ours: Checker, theirs: Checker, *, without: set[str]) -> None:
    assert set(ours.catalogs) == set(theirs.catalogs)
    for mountpoint, their_catalog in theirs.catalogs.items():
        our_catalog = ours.catalogs[mountpoint]
        their_rows = rows_of(theirs, mountpoint, without=without)
        assert rows_of(ours, mountpoint, without=without) == their_rows
        assert our_catalog.statistics == their_catalog.statistics
        assert sorted(our_catalog.chunk_rows) == sorted(their_catalog.chunk_rows)
        assert set(our_catalog.nested) == set(their_catalog.nested)
        for key, value in their_catalog.properties.items():
            if key not in TIMED:
                assert our_catalog.properties[key] == value


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the golden tree's owners")
@pytest.mark.parametrize("name", SETUPS)
def test_golden_content_published_by_root_makes_equal_catalogs_and_objects(
    name: str, tmp_path: Path
) -> None:
    upstream = load(name)
    ours = publish_again(upstream, name, tmp_path, as_root=True)
    assert_equal_catalogs(ours, upstream, without=NOT_CONTENT)


@pytest.mark.parametrize("name", ["shake128", "uncompressed"])
def test_golden_content_published_by_anybody_differs_in_owners_alone(
    name: str, tmp_path: Path
) -> None:
    upstream = load(name)
    ours = publish_again(upstream, name, tmp_path, as_root=False)
    assert_equal_catalogs(ours, upstream, without=NOT_CONTENT | {"uid", "gid"})
