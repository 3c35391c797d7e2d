"""The simulator must be right itself, or tests on it mean nothing."""

import zlib

import pytest
from tests.support.golden_objects import open_database
from tests.support.keys import other_keys
from tests.support.simulator import (
    MANIFEST,
    WHITELIST,
    Directory,
    File,
    RepositorySimulator,
    Special,
    Symlink,
)

from outcrop.formats.catalog import COLUMNS, DirectoryEntry, Statistics, select_list
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.history import COLUMNS as TAG_COLUMNS
from outcrop.formats.history import Tag, select_tags
from outcrop.formats.manifest import Manifest
from outcrop.formats.signed import SignedText
from outcrop.storage.errors import ObjectNotFound, StorageUnavailable
from outcrop.storage.store import MemorySink, read_file

FILES = {
    b"/dir/f": b"data",
    b"/dir/big": File(bytes(range(256)) * 10, chunk_bytes=1000),
    b"/dir/sub/x": b"",
    b"/link": Symlink(b"dir/f"),
    b"/empty": Directory(mode=0o700, xattrs={b"user.a": b"b"}),
    b"/fifo": Special(0o010000),
    b"/a": File(b"hard", link_group=1),
    b"/b": File(b"hard", link_group=1),
}
NESTED = (b"/dir", b"/dir/sub")


def plain(sim, name):
    """An object's plain bytes, its hash checked."""
    stored = sim.objects[name]
    text = name.removeprefix("data/").replace("/", "").rstrip("CHMPX")
    content_hash = ContentHash.parse(text)
    assert ContentHash.of(stored, content_hash.algorithm) == content_hash
    return zlib.decompress(stored)


def entries(sim, mountpoint=b""):
    """The entries of a catalog by name."""
    database = open_database(plain(sim, sim.catalog_name(mountpoint)))
    rows = database.execute(f"SELECT {select_list(COLUMNS)} FROM catalog")
    return {row.name: row for row in map(DirectoryEntry.from_row, rows)}


def statistics(sim, mountpoint=b""):
    """The counters of a catalog."""
    database = open_database(plain(sim, sim.catalog_name(mountpoint)))
    rows = database.execute("SELECT counter, value FROM statistics")
    return Statistics.from_rows((name.decode(), value) for name, value in rows)


@pytest.mark.parametrize("algorithm", [HashAlgorithm.SHA1, HashAlgorithm.SHAKE128])
def test_entries_are_in_the_catalogs_they_belong_to(algorithm):
    sim = RepositorySimulator(FILES, nested=NESTED, algorithm=algorithm)
    root, middle = entries(sim), entries(sim, b"/dir")
    assert set(root) == {b"", b"dir", b"link", b"empty", b"fifo", b"a", b"b"}
    assert set(middle) == {b"dir", b"f", b"big", b"sub", b".cvmfscatalog"}
    assert (root[b"dir"].is_nested_mountpoint, middle[b"dir"].is_nested_root) == (True, True)
    assert (root[b""].nlink, root[b"a"].nlink, root[b"a"].hardlink_group) == (4, 2, 1)
    assert middle[b"big"].is_chunked


def test_counters_add_up():
    sim = RepositorySimulator(FILES, nested=NESTED)
    root, middle, leaf = (statistics(sim, m) for m in (b"", *NESTED))
    assert root.subtree == middle.total
    assert middle.subtree == leaf.total
    assert (root.self_.dir, root.self_.regular, root.self_.nested, root.self_.xattr) == (3, 2, 1, 1)
    assert (middle.self_.chunked, middle.self_.chunks) == (1, 3)


def test_serves_and_counts():
    sim = RepositorySimulator(FILES)
    assert read_file(sim, MANIFEST) == sim.objects[MANIFEST]
    with pytest.raises(ObjectNotFound):
        read_file(sim, "data/00/00")
    assert sim.requests == [MANIFEST, "data/00/00"]
    sink = MemorySink(100)
    sim.fetch(MANIFEST, sink, byte_range=(1, 4))
    assert sink.data == sim.objects[MANIFEST][1:5]


def test_serves_external_data():
    sim = RepositorySimulator({b"/e": File(b"outside", is_external=True, chunk_bytes=3)})
    sink = MemorySink(100)
    sim.fetch_external(b"/e", sink, byte_range=(3, 3))
    assert (sink.data, sim.object_names(b"/e")) == (b"sid", [])
    with pytest.raises(ObjectNotFound):
        sim.fetch_external(b"/other", sink)
    with pytest.raises(StorageUnavailable):
        RepositorySimulator().fetch_external(b"/e", sink)


def test_a_new_revision_keeps_unchanged_nested_catalogs():
    sim = RepositorySimulator(FILES, nested=NESTED)
    names = [sim.catalog_name(m) for m in (b"", *NESTED)]
    sim.publish({**sim.files, b"/dir/f": b"new"}, tag="v2")
    assert [sim.catalog_name(m) == n for m, n in zip((b"", *NESTED), names, strict=True)] == [
        False, False, True,
    ]  # fmt: skip
    assert sim.manifest.revision == 2
    database = open_database(plain(sim, sim.history_name))
    tags = {tag.name: tag for tag in map(Tag.from_row, database.execute(select_tags(TAG_COLUMNS)))}
    assert {name: tag.revision for name, tag in tags.items()} == {
        "trunk": 2, "trunk-previous": 1, "v2": 2,
    }  # fmt: skip


def test_breaks_what_it_is_told_to():
    sim = RepositorySimulator(FILES)
    before = dict(sim.objects)
    (name,) = sim.object_names(b"/dir/f")
    sim.corrupt(b"/dir/f")
    assert sim.objects[name] != before[name]
    assert len(sim.objects[name]) == len(before[name])
    sim.truncate(name, 3)
    assert len(sim.objects[name]) == 3
    sim.replace(name, b"x")
    assert sim.objects[name] == b"x"
    sim.remove(b"/dir/f")
    assert name not in sim.objects


def test_signs_what_it_is_told_to():
    sim = RepositorySimulator(FILES)
    first, whitelist = sim.objects[MANIFEST], sim.objects[WHITELIST]
    sim.publish()
    sim.roll_back()
    assert sim.objects[MANIFEST] == first
    sim.resign_with(other_keys())
    assert sim.manifest.certificate != Manifest.parse(SignedText.parse(first).body).certificate
    sim.edit_manifest(fqrn="other.org")
    assert b"\nNother.org\n" in sim.objects[MANIFEST]
    sim.expire_whitelist()
    assert sim.objects[WHITELIST] != whitelist


def test_sabotage_is_hashed_and_signed_like_anything_else():
    sim = RepositorySimulator(FILES)
    sim.publish(sabotage={b"": ["UPDATE catalog SET name = '..' WHERE name = 'link'"]})
    database = open_database(plain(sim, sim.catalog_name()))
    assert database.execute("SELECT count(*) FROM catalog WHERE name = '..'").fetchone() == (1,)


def test_dumps_what_a_web_server_would_serve(tmp_path):
    sim = RepositorySimulator(FILES)
    sim.dump(tmp_path)
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == set(sim.objects)
