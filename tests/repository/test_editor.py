"""Editing catalogs by path: rows, transition points, link counts and counters stay right."""

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from outcrop.formats.catalog import Chunk, Counters, DirectoryEntry
from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.publisher.compression import CompressionChoice
from outcrop.repository.catalogs import CatalogTree
from outcrop.repository.commit import StoredCatalogs, store_catalogs
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.errors import NotADirectory, PathNotFound
from outcrop.repository.object_writer import ObjectWriter
from outcrop.storage.memory import MemoryStore
from outcrop.storage.temporary import TransientOpener

HASH = ContentHash.of(b"content", HashAlgorithm.SHA1)
DIRECTORY = DirectoryEntry(name=b"", mode=stat.S_IFDIR | 0o755, size=4096, mtime=1)


def file(name: bytes, **changes: object) -> DirectoryEntry:
    entry = DirectoryEntry(name=name, mode=stat.S_IFREG | 0o644, size=7, mtime=1, content=HASH)
    return replace(entry, **changes)


class Workbench:
    """An editor over a store in memory, and what readers see of what it stored."""

    def __init__(self, scratch: Path) -> None:
        self.store = MemoryStore()
        self.scratch = scratch
        self.editor = CatalogEditor.create(self.store, self._directory(), DIRECTORY, now=1)
        self.stored: StoredCatalogs | None = None

    def _directory(self) -> Path:
        place = self.scratch / str(len(list(self.scratch.iterdir())))
        place.mkdir()
        return place

    def save(self) -> CatalogTree:
        """Store what is dirty and read it as anybody would."""
        compressor = CompressionChoice.FAST.compressor
        writer = ObjectWriter(self.store, HashAlgorithm.SHA1, compressor)
        with ThreadPoolExecutor(2) as executor:
            self.stored = store_catalogs(self.editor, writer, executor, now=2, ttl=240)
        return CatalogTree(TransientOpener(self.store), self.root)

    @property
    def root(self) -> ObjectRef:
        assert self.stored is not None
        return ObjectRef(self.stored.root.hash, Suffix.CATALOG, size=self.stored.root.size)

    def reopen(self) -> CatalogEditor:
        """Store, and go on from there with a new editor."""
        self.save()
        self.editor.__exit__()
        self.editor = CatalogEditor.open(self.store, self._directory(), self.root)
        return self.editor


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    bench = Workbench(tmp_path)
    yield bench
    bench.editor.__exit__()


def directories(editor: CatalogEditor, *paths: bytes) -> None:
    for path in paths:
        editor.put_directory(path, DIRECTORY)


def names(tree: CatalogTree, directory: bytes) -> set[bytes]:
    return {entry.name for entry in tree.listing(directory).entries(directory)}


def total(tree: CatalogTree) -> Counters:
    return tree.root.statistics.total


def test_a_new_root_is_an_empty_directory(bench: Workbench) -> None:
    tree = bench.save()
    root = tree.root.find(b"")
    assert root is not None
    assert root.nlink == 2
    assert tree.root.statistics.self_ == Counters(dir=1)
    assert tree.root.revision == 1


def test_entries_are_put_read_and_counted(bench: Workbench) -> None:
    directories(bench.editor, b"/d")
    bench.editor.put(b"/d", [(file(b"f"), ()), (file(b"g", xattrs=b"\x01\x01\x01\x00a"), ())])
    assert bench.editor.get(b"/d/f") == file(b"f")
    tree = bench.save()
    assert names(tree, b"/d") == {b"f", b"g"}
    assert total(tree) == Counters(regular=2, dir=2, file_size=14, xattr=1)


def test_what_is_not_there_is_told(bench: Workbench) -> None:
    assert bench.editor.find(b"/nothing") is None
    with pytest.raises(PathNotFound, match="/nothing"):
        bench.editor.get(b"/nothing")
    with pytest.raises(PathNotFound):
        bench.editor.remove(b"/nothing")


def test_link_counts_follow_subdirectories(bench: Workbench) -> None:
    editor = bench.editor
    directories(editor, b"/a", b"/a/b", b"/a/c")
    assert editor.get(b"/a").nlink == 4
    editor.remove(b"/a/b")
    editor.put(b"/a", [(file(b"c"), ())])
    assert editor.get(b"/a").nlink == 2
    assert editor.get(b"").nlink == 3
    editor.put_directory(b"/a/c", DIRECTORY)
    assert editor.get(b"/a").nlink == 3


def test_chunks_go_with_their_file(bench: Workbench) -> None:
    chunks = [Chunk(0, 4, HASH), Chunk(4, 3, HASH)]
    chunked = file(b"f", content=None, is_chunked=True)
    bench.editor.put(b"", [(chunked, chunks)])
    assert bench.editor.chunks(b"/f", chunked) == chunks
    assert total(bench.save()).chunks == 2
    editor = bench.reopen()
    editor.put(b"", [(chunked, chunks[:1])])
    assert editor.chunks(b"/f", chunked) == chunks[:1]
    editor.put(b"", [(file(b"f"), ())])
    assert editor.chunks(b"/f", file(b"f")) == []
    assert total(bench.save()).chunks == 0


def test_hard_links_of_one_call_become_a_group_of_their_own(bench: Workbench) -> None:
    editor = bench.editor
    pair = [(file(n, nlink=2, hardlink_group=-1), ()) for n in (b"a", b"b")]
    other = [(file(n, nlink=2, hardlink_group=-1), ()) for n in (b"c", b"d")]
    editor.put(b"", pair)
    editor.put(b"", other)
    groups = [editor.get(b"/" + name).hardlink_group for name in (b"a", b"b", b"c", b"d")]
    assert groups == [1, 1, 2, 2]


def test_a_removed_hard_link_leaves_the_others_with_one_less(bench: Workbench) -> None:
    editor = bench.editor
    editor.put(b"", [(file(n, nlink=3, hardlink_group=9), ()) for n in (b"a", b"b", b"c")])
    editor.remove(b"/a")
    assert (editor.get(b"/b").nlink, editor.get(b"/b").hardlink_group) == (2, 1)
    editor.put(b"", [(file(b"b"), ())])
    assert (editor.get(b"/c").nlink, editor.get(b"/c").hardlink_group) == (1, 0)


def test_a_nested_catalog_takes_what_is_below(bench: Workbench) -> None:
    editor = bench.editor
    directories(editor, b"/a", b"/a/b", b"/c")
    chunked = file(b"big", content=None, is_chunked=True)
    editor.put(b"/a/b", [(file(b"f"), ()), (chunked, [Chunk(0, 7, HASH)])])
    editor.nest(b"/a")
    assert editor.is_nested(b"/a")
    tree = bench.save()
    assert set(tree.root.nested) == {b"/a"}
    assert names(tree, b"/a/b") == {b"f", b"big"}
    assert tree.listing(b"/a").root_prefix == b"/a"
    assert tree.root.statistics.self_ == Counters(dir=3, nested=1)
    assert tree.root.statistics.subtree == Counters(
        dir=2, regular=2, file_size=14, chunked=1, chunks=1, chunked_size=7
    )
    mountpoint, root = tree.holding(b"/a").find(b"/a"), tree.listing(b"/a").find(b"/a")
    assert mountpoint is not None
    assert root is not None
    assert mountpoint.is_nested_mountpoint
    assert root.is_nested_root
    assert replace(mountpoint, is_nested_mountpoint=False) == replace(root, is_nested_root=False)


def test_a_catalog_between_two_others_takes_over_the_inner_one(bench: Workbench) -> None:
    directories(bench.editor, b"/a", b"/a/b", b"/a/b/c")
    bench.editor.put(b"/a/b/c", [(file(b"f"), ())])
    bench.editor.nest(b"/a/b/c")
    editor = bench.reopen()
    editor.nest(b"/a")
    tree = bench.save()
    assert set(tree.root.nested) == {b"/a"}
    assert set(tree.listing(b"/a").nested) == {b"/a/b/c"}
    assert tree.root.statistics.subtree == Counters(dir=4, nested=1, regular=1, file_size=7)
    editor = bench.reopen()
    editor.unnest(b"/a")
    tree = bench.save()
    assert set(tree.root.nested) == {b"/a/b/c"}
    assert tree.root.statistics.self_ == Counters(dir=4, nested=1)
    assert tree.root.statistics.subtree == Counters(dir=1, regular=1, file_size=7)


def test_a_merged_catalog_brings_its_hard_link_groups_under_new_numbers(bench: Workbench) -> None:
    editor = bench.editor
    directories(editor, b"/a")
    pair = [(file(n, nlink=2, hardlink_group=1), ()) for n in (b"x", b"y")]
    editor.nest(b"/a")
    editor.put(b"/a", pair)
    editor.put(b"", pair)
    editor = bench.reopen()
    editor.unnest(b"/a")
    assert editor.get(b"/x").hardlink_group == editor.get(b"/y").hardlink_group == 1
    assert editor.get(b"/a/x").hardlink_group == editor.get(b"/a/y").hardlink_group == 2


def test_metadata_and_links_of_a_transition_are_the_same_on_both_sides(bench: Workbench) -> None:
    editor = bench.editor
    directories(editor, b"/a")
    editor.nest(b"/a")
    editor.put_directory(b"/a", replace(DIRECTORY, mtime=77, uid=5))
    directories(editor, b"/a/sub")
    tree = bench.save()
    for catalog in (tree.holding(b"/a"), tree.listing(b"/a")):
        entry = catalog.find(b"/a")
        assert entry is not None
        assert (entry.mtime, entry.uid, entry.nlink) == (77, 5, 3)


def test_a_removed_subtree_takes_its_nested_catalogs_along(bench: Workbench) -> None:
    editor = bench.editor
    directories(editor, b"/a", b"/a/b", b"/a/b/c", b"/ab")
    for path in (b"/a/b", b"/a/b/c", b"/ab"):
        editor.nest(path)
    editor.put(b"/a/b/c", [(file(b"f"), ())])
    editor = bench.reopen()
    editor.remove(b"/a")
    tree = bench.save()
    assert names(tree, b"") == {b"ab"}
    assert set(tree.root.nested) == {b"/ab"}
    assert total(tree) == Counters(dir=3, nested=1)


def test_a_replaced_directory_with_catalogs_leaves_nothing_behind(bench: Workbench) -> None:
    directories(bench.editor, b"/a", b"/a/b")
    bench.editor.nest(b"/a")
    bench.editor.nest(b"/a/b")
    editor = bench.reopen()
    editor.put(b"", [(file(b"a"), ())])
    tree = bench.save()
    assert total(tree) == Counters(dir=1, regular=1, file_size=7)
    assert not tree.root.nested


def test_only_catalogs_on_the_way_to_a_change_are_stored_again(bench: Workbench) -> None:
    directories(bench.editor, b"/a", b"/a/b", b"/c")
    for path in (b"/a", b"/a/b", b"/c"):
        bench.editor.nest(path)
    editor = bench.reopen()
    before = dict(bench.save().root.nested)
    editor.put(b"/a/b", [(file(b"f"), ())])
    tree = bench.save()
    assert bench.stored is not None
    assert set(bench.stored.entries) == {b"", b"/a", b"/a/b"}
    assert tree.root.nested[b"/c"] == before[b"/c"]
    assert tree.listing(b"/a/b").revision == 2
    assert tree.listing(b"/a/b").previous is not None


def test_files_hold_no_nested_catalog(bench: Workbench) -> None:
    bench.editor.put(b"", [(file(b"f"), ())])
    with pytest.raises(NotADirectory, match="/f"):
        bench.editor.nest(b"/f")


def test_row_numbers_are_dense_again_after_many_removals(bench: Workbench) -> None:
    bench.editor.put(b"", [(file(b"%d" % n), ()) for n in range(100)])
    editor = bench.reopen()
    for n in range(60):
        editor.remove(b"/%d" % n)
    tree = bench.save()
    assert tree.root.max_rowid == 41


def test_a_row_that_stays_keeps_its_number(bench: Workbench) -> None:
    bench.editor.put(b"", [(file(b"%d" % n), ()) for n in range(10)])
    before = bench.save().root.query("SELECT name, rowid FROM catalog")
    editor = bench.reopen()
    editor.put(b"", [(file(b"5", mtime=9), ())])
    assert bench.save().root.query("SELECT name, rowid FROM catalog") == before


def test_names_that_are_not_utf8_survive(bench: Workbench) -> None:
    bench.editor.put_directory(b"/\xff\xfe", DIRECTORY)
    bench.editor.nest(b"/\xff\xfe")
    link = DirectoryEntry(
        name=b"\x80", mode=stat.S_IFLNK | 0o777, size=2, mtime=1, symlink=b"\xc0\xc1"
    )
    bench.editor.put(b"/\xff\xfe", [(link, ())])
    tree = bench.save()
    assert names(tree, b"") == {b"\xff\xfe"}
    assert tree.listing(b"/\xff\xfe").find(b"/\xff\xfe/\x80") == link


def test_more_catalogs_than_may_be_open_at_once_are_no_problem(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outcrop.repository.working_tree._MAX_OPEN", 3)
    for n in range(10):
        directories(bench.editor, b"/%d" % n)
        bench.editor.nest(b"/%d" % n)
    editor = bench.reopen()
    for n in range(10):
        editor.put(b"/%d" % n, [(file(b"f"), ())])
    assert total(bench.save()) == Counters(dir=21, nested=10, regular=10, file_size=70)


def test_the_scratch_directory_is_empty_afterwards(tmp_path: Path) -> None:
    store = MemoryStore()
    with CatalogEditor.create(store, tmp_path, DIRECTORY, now=1) as editor:
        directories(editor, b"/a")
        editor.nest(b"/a")
        editor.remove(b"/a")
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())
