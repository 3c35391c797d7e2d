"""Looking up, listing, walking and reading a revision, on the simulator."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.simulator import File, RepositorySimulator, Symlink
from tests.support.sources import source_of, trunk_of

from outcrop.formats.hashes import Compression, HashAlgorithm
from outcrop.repository.errors import (
    NotADirectory,
    NotAFile,
    NotASymlink,
    PathNotFound,
    TagNotFound,
)
from outcrop.repository.tree import normalize

BIG = os.urandom(1000) * 95 + b"end"


def make_sim(**options: object) -> RepositorySimulator:
    return RepositorySimulator(
        {
            b"/a/b/c": b"deep",
            b"/big": File(BIG, chunk_bytes=10_000),
            b"/n/x": b"in nested",
            b"/n/m/y": b"in nested nested",
            b"/link": Symlink(b"a/b"),
            b"/variant": Symlink(b"$(FLAVOUR:-plain)/b"),
            b"/plain/b": b"variant",
            b"/empty": b"",
            b"/attributes": File(b"x", xattrs={b"user.one": b"1"}),
        },
        nested=[b"/n", b"/n/m"],
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        (b"", b""),
        (b"/", b""),
        (b"a/b", b"/a/b"),
        (b"//a///b//", b"/a/b"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/../..", b""),
    ],
)
def test_what_users_type_becomes_a_path(typed: bytes, path: bytes) -> None:
    assert normalize(typed) == path


def test_opening_costs_four_requests_and_a_listing_at_most_its_catalog(tmp_path: Path) -> None:
    sim = make_sim()
    revision = trunk_of(sim, tmp_path)
    assert sorted(sim.requests) == sorted(
        [".cvmfspublished", ".cvmfswhitelist", sim.certificate_name, sim.catalog_name()]
    )
    sim.requests.clear()
    revision.entries(b"")
    revision.get(b"/n")
    assert sim.requests == []
    revision.entries(b"/n")
    assert sim.requests == [sim.catalog_name(b"/n")]
    revision.entries(b"/n")
    assert len(sim.requests) == 1


def test_a_second_opening_asks_for_the_mutable_files_only(tmp_path: Path) -> None:
    sim = make_sim()
    trunk_of(sim, tmp_path)
    sim.requests.clear()
    trunk_of(sim, tmp_path)
    assert sorted(sim.requests) == [".cvmfspublished", ".cvmfswhitelist"]


def test_reading_a_byte_of_a_chunked_file_fetches_one_chunk(tmp_path: Path) -> None:
    sim = make_sim()
    revision = trunk_of(sim, tmp_path)
    sim.requests.clear()
    with revision.open(b"/big") as file:
        file.seek(55_555)
        assert file.raw.read(1) == BIG[55_555:55_556]
    assert sim.requests == [sim.object_names(b"/big")[5]]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(BIG) + 10), st.integers(0, 30_000)), max_size=6))
def test_any_reads_of_a_chunked_file_give_its_bytes(reads: list[tuple[int, int]]) -> None:
    revision = trunk_of(_SHARED)
    with revision.open(b"/big") as file:
        for offset, size in reads:
            file.seek(offset)
            assert file.read(size) == BIG[offset : offset + size]


_SHARED = RepositorySimulator({b"/big": File(BIG, chunk_bytes=10_000)})


@pytest.mark.parametrize("algorithm", [a for a in HashAlgorithm if a is not HashAlgorithm.MD5])
@pytest.mark.parametrize("compression", Compression)
def test_all_algorithms_and_compressions_read(
    algorithm: HashAlgorithm, compression: Compression
) -> None:
    revision = trunk_of(make_sim(algorithm=algorithm, compression=compression))
    for path, data in ((b"/a/b/c", b"deep"), (b"/big", BIG), (b"/n/m/y", b"in nested nested")):
        with revision.open(path) as file:
            assert file.read() == data


def test_external_data_comes_from_elsewhere_by_name_and_range() -> None:
    sim = RepositorySimulator(
        {
            b"/whole": File(b"external", is_external=True, is_compressed=False),
            b"/ranges": File(BIG, is_external=True, is_compressed=False, chunk_bytes=20_000),
        }
    )
    revision = trunk_of(sim)
    sim.requests.clear()
    with revision.open(b"/whole") as file:
        assert file.read() == b"external"
    with revision.open(b"/ranges") as file:
        assert file.read() == BIG
    assert set(sim.requests) == {"external:/whole", "external:/ranges"}
    sim.external[b"/whole"] = b"EXTERNAL"
    with pytest.raises(Exception, match="content hash"), revision.open(b"/whole") as file:
        file.read()


def test_a_walk_sees_everything_once_in_order() -> None:
    revision = trunk_of(make_sim())
    walked = [
        directory + b"/" + entry.name for directory, entries in revision.walk() for entry in entries
    ]
    assert len(set(walked)) == len(walked)
    assert {b"/a/b/c", b"/n/m/y", b"/big", b"/link"} <= set(walked)
    assert [d for d, _ in revision.walk()] == [b"", b"/a", b"/a/b", b"/n", b"/n/m", b"/plain"]


def test_symlinks_and_variables_are_followed() -> None:
    revision = trunk_of(make_sim())
    assert revision.resolve(b"/link/c", {}) == b"/a/b/c"
    assert revision.resolve(b"/variant", {}) == b"/plain/b"
    assert revision.resolve(b"/variant", {"FLAVOUR": "a"}) == b"/a/b"
    assert revision.readlink(b"/variant") == b"$(FLAVOUR:-plain)/b"


def test_each_wrong_use_of_a_path_has_its_own_error() -> None:
    revision = trunk_of(make_sim())
    with pytest.raises(PathNotFound):
        revision.get(b"/nothing")
    with pytest.raises(PathNotFound):
        revision.entries(b"/a/b/c/d")
    with pytest.raises(NotADirectory):
        revision.entries(b"/big")
    with pytest.raises(NotAFile):
        revision.open(b"/a")
    with pytest.raises(NotASymlink):
        revision.readlink(b"/big")


def test_attributes_are_read() -> None:
    revision = trunk_of(make_sim())
    assert revision.xattrs(b"/attributes") == {b"user.one": b"1"}
    assert revision.xattrs(b"/big") == {}


def test_revisions_open_by_tag_date_and_hash() -> None:
    sim = make_sim()
    sim.publish({b"/v": b"1"}, tag="v1")
    first = sim.manifest.root_catalog
    sim.publish({b"/v": b"2"}, tag="v2", at=sim.now + 500)
    source = source_of(sim)
    assert source.open_tag("v1", now=sim.now).root_hash == first
    assert source.open_date(sim.now + 499, now=sim.now).root_hash == first
    assert source.open_date(sim.now + 500, now=sim.now).number == 3
    assert source.open_root_hash(first).number == 2
    with pytest.raises(TagNotFound):
        source.open_tag("v3", now=sim.now)
    with pytest.raises(TagNotFound):
        source.open_date(sim.now - 1000, now=sim.now)


def test_a_new_revision_takes_over_the_catalogs_it_shares(tmp_path: Path) -> None:
    sim = make_sim()
    source = source_of(sim, cache_directory=tmp_path)
    old = source.open_trunk(now=sim.now)
    old.entries(b"/n/m")
    sim.publish({**sim.files, b"/n/x": b"changed"})
    new = source.open_manifest(source.fetch_manifest(now=sim.now), previous=old)
    sim.requests.clear()
    new.entries(b"/n/m")
    assert sim.requests == [sim.catalog_name(b"/n")]
    assert new.catalogs.listing(b"/n/m") is old.catalogs.listing(b"/n/m")
