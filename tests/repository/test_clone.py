"""Whole subtrees cloned, moved and removed: held against a model and an independent checker."""

import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.checker import Checker

from outcrop.errors import FormatError
from outcrop.formats.catalog import Chunk, Counters, DirectoryEntry
from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.publisher.compression import CompressionChoice
from outcrop.repository.commit import store_catalogs
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.errors import NotADirectory, PathExists, PathNotFound, PathNotMovable
from outcrop.repository.object_writer import ObjectWriter
from outcrop.repository.tree import MAX_DEPTH
from outcrop.storage.local import LocalStore

DIRECTORY = DirectoryEntry(name=b"", mode=stat.S_IFDIR | 0o755, size=4096, mtime=1)
XATTRS = b"\x01\x01\x06\x01user.ab"
MARKER = b".cvmfscatalog"
OPAQUE = b".wh..wh..opq"


@dataclass
class Node:
    """What the model knows of a path; `links` are the names of its hard link group.

    `mtime` tells one thing at a path from another that was or comes there.
    """

    kind: str
    links: frozenset[bytes] = field(default_factory=frozenset)
    mtime: int = 1


class Model:
    """An editor over a store on disk, and a dict of what should be in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = LocalStore(place / "store")
        self.writer = ObjectWriter(
            self.store, HashAlgorithm.SHA1, CompressionChoice.FAST.compressor
        )
        self.content = self.writer.put(b"content").hash
        self.chunk = self.writer.put(b"chunk", Suffix.CHUNK).hash
        self.empty = self.writer.put(b"").hash
        self.nodes: dict[bytes, Node] = {b"": Node("directory")}
        self.nested: set[bytes] = set()
        self.serial = 1
        self.editor = CatalogEditor.create(self.store, self._scratch(), DIRECTORY, now=1)

    def _scratch(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.place))

    def close(self) -> None:
        self.editor.__exit__()

    # --- operations, on both sides ---

    def file(self, name: bytes, **changes: object) -> DirectoryEntry:
        entry = DirectoryEntry(name=name, mode=stat.S_IFREG | 0o644, size=7, mtime=self.serial)
        return replace(entry, **{"content": self.content, **changes})

    def make_directory(self, path: bytes) -> None:
        self.serial += 1
        self.editor.put_directory(path, replace(DIRECTORY, xattrs=XATTRS, mtime=self.serial))
        self.nodes[path] = Node("directory", mtime=self.serial)

    def make_file(self, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        self.forget(path)
        self.serial += 1
        self.editor.put(directory, [(self.file(name), ())])
        self.nodes[path] = Node("file", mtime=self.serial)

    def make_chunked(self, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        self.forget(path)
        self.serial += 1
        entry = self.file(name, content=None, is_chunked=True, size=10, xattrs=XATTRS)
        chunks = [Chunk(0, 5, self.chunk), Chunk(5, 5, self.chunk)]
        self.editor.put(directory, [(entry, chunks)])
        self.nodes[path] = Node("chunked", mtime=self.serial)

    def make_links(self, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        names = [name, name + b"+1", name + b"+2"]
        for other in names:
            self.forget(directory + b"/" + other)
        self.serial += 1
        edits = [(self.file(n, nlink=3, hardlink_group=1), ()) for n in names]
        self.editor.put(directory, edits)
        for other in names:
            self.nodes[directory + b"/" + other] = Node("file", frozenset(names), self.serial)

    def nest(self, path: bytes) -> None:
        if path and path not in self.nested:
            self.editor.nest(path)
            self.editor.put(path, [(self.file(MARKER, size=0, content=self.empty), ())])
            self.nodes[path + b"/" + MARKER] = Node("file", mtime=self.serial)
            self.nested.add(path)
        elif path:
            self.editor.unnest(path)
            self.remove(path + b"/" + MARKER)
            self.nested.discard(path)

    def remove(self, path: bytes) -> None:
        self.editor.remove(path)
        self.forget(path)

    def forget(self, path: bytes) -> None:
        self.unlink(path)
        for below in self.at_or_below(path):
            self.nodes.pop(below, None)
            self.nested.discard(below)

    def unlink(self, path: bytes) -> None:
        """Take a name out of its hard link group."""
        directory, _, name = path.rpartition(b"/")
        node = self.nodes.get(path)
        if node is not None:
            for other in node.links:
                left = node.links - {name}
                found = self.nodes[directory + b"/" + other]
                found.links = left if len(left) > 1 else frozenset()

    def at_or_below(self, path: bytes) -> list[bytes]:
        return [p for p in self.nodes if p == path or p.startswith(path + b"/")]

    def clone(self, source: bytes, target: bytes) -> None:
        self.editor.clone(source, target)
        for path in self.at_or_below(source):
            new = target + path[len(source) :]
            self.nodes[new] = replace(self.nodes[path], links=frozenset())
            if path in self.nested:
                self.nested.add(new)

    def move(self, source: bytes, target: bytes) -> None:
        self.editor.move(source, target)
        node = self.nodes[source]
        names = node.links
        stays = source.rpartition(b"/")[0] == target.rpartition(b"/")[0]
        if names and stays:
            old, new = source.rpartition(b"/")[2], target.rpartition(b"/")[2]
            for other in names:
                found = self.nodes[source.rpartition(b"/")[0] + b"/" + other]
                found.links = (names - {old}) | {new}
        elif names:
            self.unlink(source)
            node.links = frozenset()
        for path in self.at_or_below(source):
            new_path = target + path[len(source) :]
            self.nodes[new_path] = self.nodes.pop(path)
            if path in self.nested:
                self.nested.discard(path)
                self.nested.add(new_path)

    def merge(self, source: bytes, target: bytes, *, whiteouts: bool) -> None:
        self.editor.merge(source, target, whiteouts=whiteouts)
        upper = {path[len(source) :]: self.nodes[path] for path in self.at_or_below(source)}
        whites = {
            path
            for path, node in upper.items()
            if whiteouts and node.kind != "directory" and _name(path).startswith(b".wh.")
        }
        for white in whites:
            directory, name = target + white.rpartition(b"/")[0], _name(white)
            if name == OPAQUE:
                self.forget(directory)
            elif not name.startswith(b".wh..wh."):
                self.forget(directory + b"/" + name[4:])
                if name[4:] == MARKER:
                    self.nested.discard(directory)
        upper = {path: node for path, node in upper.items() if path not in whites}
        for path, node in upper.items():
            old = self.nodes.get(target + path)
            if old is not None and "directory" not in (old.kind, node.kind):
                self.unlink(target + path)
            elif old is not None and not old.kind == node.kind == "directory":
                self.forget(target + path)
        for path, node in upper.items():
            gone = {_name(white) for white in whites}
            links = node.links - gone
            self.nodes[target + path] = replace(node, links=links)
            if source + path in self.nested:
                self.nested.add(target + path)

    # --- looking at it ---

    def save(self, *, reopens: bool) -> None:
        with ThreadPoolExecutor(2) as executor:
            stored = store_catalogs(self.editor, self.writer, executor, now=2, ttl=240)
        self.root = stored.root
        if reopens:
            self.editor.__exit__()
            ref = ObjectRef(stored.root.hash, Suffix.CATALOG, size=stored.root.size)
            self.editor = CatalogEditor.open(self.store, self._scratch(), ref)

    def check(self) -> None:
        """Compare what was stored with the model, and with the rules of the format."""
        checker = Checker(self.place / "store", "", b"")
        checker.manifest = {"C": str(self.root.hash), "B": str(self.root.size), "D": "240"}
        catalog = CatalogEditor.open(
            self.store, self._scratch(), ObjectRef(self.root.hash, Suffix.CATALOG)
        )
        with catalog:
            checker.manifest["S"] = catalog.root.properties["revision"]
        entries = checker.load()
        assert checker.problems == []
        assert set(entries) == set(self.nodes)
        assert set(checker.catalogs) == self.nested | {b""}
        for path, node in self.nodes.items():
            row = entries[path].row
            assert bool(row["flags"] & 1) == (node.kind == "directory")
            assert row["mtime"] == node.mtime
            assert bool(entries[path].chunks) == (node.kind == "chunked")
            if node.kind != "directory":
                assert entries[path].nlink == (len(node.links) or 1)
                assert (row["xattr"] is not None) == (node.kind == "chunked")


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    model = Model(tmp_path)
    yield model
    model.close()


OPERATIONS = ("directory", "directory", "file", "chunked", "links", "nest", "nest", "remove",
              "clone", "clone", "move", "move", "save", "reopen", "whiteout", "merge",
              "merge")  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 999), st.integers(0, 999)),
    min_size=15,
    max_size=50,
)


def step(model: Model, operation: str, one: int, other: int) -> None:
    """Do something that is possible; numbers choose the paths."""
    directories = sorted(p for p, node in model.nodes.items() if node.kind == "directory")
    existing = sorted(p for p in model.nodes if p and not p.endswith(MARKER))
    new = directories[other % len(directories)] + b"/%d" % (one % 5)
    if operation == "directory" and new not in model.nodes:
        model.make_directory(new)
    elif operation in ("file", "chunked", "links"):
        getattr(model, f"make_{operation}")(new)
    elif operation == "nest":
        model.nest(directories[one % len(directories)])
    elif operation == "whiteout":
        model.make_file(new.rpartition(b"/")[0] + b"/" + whiteout(one))
    elif operation == "merge":
        source, target = (directories[number % len(directories)] for number in (one, other))
        merge_if_possible(model, source, target, whiteouts=one % 3 > 0)
    elif operation in ("save", "reopen"):
        model.save(reopens=operation == "reopen")
    elif existing:
        source = existing[one % len(existing)]
        if operation == "remove":
            model.remove(source)
        elif new not in model.nodes and not (new + b"/").startswith(source + b"/"):
            (model.clone if operation == "clone" else model.move)(source, new)


def whiteout(number: int) -> bytes:
    if number % 5 == 0:
        return OPAQUE
    return b".wh." + (b"%d" % (number % 5) if number % 7 else MARKER)


def merge_if_possible(model: Model, one: bytes, other: bytes, *, whiteouts: bool) -> None:
    pair = one + b"/", other + b"/"
    if not (pair[0].startswith(pair[1]) or pair[1].startswith(pair[0])):
        model.merge(one, other, whiteouts=whiteouts)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_sequence_of_edits_comes_out_as_the_model_says(steps: list) -> None:
    with tempfile.TemporaryDirectory() as place:
        model = Model(Path(place))
        for operation, one, other in steps:
            if len(model.nodes) < 300:
                step(model, operation, one, other)
        model.save(reopens=False)
        model.check()
        model.close()


def test_counters_kept_by_deltas_are_those_of_a_recount(model: Model) -> None:
    model.make_directory(b"/a")
    model.make_chunked(b"/a/c")
    model.save(reopens=True)
    model.make_chunked(b"/a/c")
    model.make_links(b"/a/l")
    model.remove(b"/a/l")
    before = model.editor.root.finish().self_
    model.editor.root.recount()
    assert model.editor.root.finish().self_ == before
    assert before == Counters(
        regular=3, dir=2, chunked=1, chunks=2, chunked_size=10, file_size=24, xattr=2
    )


def test_a_clone_of_a_moved_tree_of_catalogs_is_complete(model: Model) -> None:
    for path in (b"/a", b"/a/b", b"/a/b/c", b"/a/d"):
        model.make_directory(path)
        model.make_links(path + b"/l")
    for path in (b"/a", b"/a/b/c", b"/a/d"):
        model.nest(path)
    model.save(reopens=True)
    model.move(b"/a", b"/moved")
    model.clone(b"/moved", b"/copy")
    model.make_file(b"/copy/b/c/new")
    model.clone(b"/copy/b", b"/moved/d/b")
    model.remove(b"/moved/b")
    model.save(reopens=False)
    model.check()
    assert model.nested == {
        b"/moved", b"/moved/d", b"/moved/d/b/c", b"/copy", b"/copy/b/c", b"/copy/d",
    }  # fmt: skip


def test_a_renamed_file_keeps_its_row_and_its_hard_links(model: Model) -> None:
    model.make_links(b"/l")
    model.make_chunked(b"/c")
    model.save(reopens=True)
    model.move(b"/l", b"/m")
    model.move(b"/c", b"/d")
    model.save(reopens=False)
    model.check()
    assert {path for path, node in model.nodes.items() if node.links} == {b"/m", b"/l+1", b"/l+2"}


def test_layers_are_laid_over_each_other_with_their_nested_catalogs(model: Model) -> None:
    for path in (b"/up", b"/up/n", b"/up/new", b"/up/new/n", b"/low", b"/low/n", b"/low/n/o"):
        model.make_directory(path)
        model.make_links(path + b"/l")
    model.make_directory(b"/up/n/kind")
    model.make_file(b"/low/n/kind")
    model.make_file(b"/up/kind")
    model.make_directory(b"/low/kind")
    model.nest(b"/low/kind")
    for path in (b"/up/n", b"/up/new/n", b"/low/n/o"):
        model.nest(path)
    model.save(reopens=True)
    model.merge(b"/up", b"/low", whiteouts=False)
    model.merge(b"/up/new", b"/made", whiteouts=False)
    model.save(reopens=True)
    model.check()
    assert {b"/low/n", b"/low/n/o", b"/low/new/n", b"/made/n"} <= model.nested
    assert len(model.nodes[b"/low/n/l"].links) == 3


def test_whiteouts_hide_what_is_below_only_if_they_are_to(model: Model) -> None:
    for path in (b"/up", b"/up/o", b"/up/x", b"/up/.wh.dir", b"/low", b"/low/o", b"/low/o/gone",
                 b"/low/gone", b"/low/n", b"/up/n", b"/up/n/new", b"/low/dir"):  # fmt: skip
        model.make_directory(path)
    for path in (b"/up/.wh.gone", b"/up/.wh.none", b"/up/o/.wh..wh..opq", b"/up/.wh..wh.plnk",
                 b"/up/n/.wh..cvmfscatalog", b"/up/n/new/.wh.x", b"/low/n/kept"):  # fmt: skip
        model.make_file(path)
    model.nest(b"/low/o")
    model.nest(b"/low/n")
    model.clone(b"/low", b"/plain")
    model.save(reopens=True)
    model.merge(b"/up", b"/plain", whiteouts=False)
    model.merge(b"/up", b"/low", whiteouts=True)
    model.save(reopens=True)
    model.check()
    assert {path for path in model.nodes if path.startswith(b"/low/")} == {
        b"/low/o", b"/low/x", b"/low/.wh.dir", b"/low/dir", b"/low/n", b"/low/n/kept",
        b"/low/n/new",
    }  # fmt: skip
    assert {b"/plain/.wh.gone", b"/plain/gone", b"/plain/o/gone"} <= model.nodes.keys()


def test_the_same_layer_again_changes_nothing(model: Model) -> None:
    for path in (b"/up", b"/up/a"):
        model.make_directory(path)
        model.make_file(path + b"/f")
        model.make_chunked(path + b"/c")
    model.merge(b"/up", b"/low", whiteouts=True)
    model.save(reopens=True)
    told: list[bytes] = []
    model.editor.merge(b"/up", b"/low", on_merged=lambda path, *_: told.append(path))
    assert told == []
    assert not any(catalog.is_dirty for catalog in model.editor.loaded())


def test_layers_that_cannot_be_merged_are_refused(model: Model) -> None:
    for path in (b"/a", b"/a/b"):
        model.make_directory(path)
    model.make_file(b"/f")
    for source, target, error in (
        (b"/none", b"/a", PathNotFound),
        (b"/a", b"/none/x", PathNotFound),
        (b"/f", b"/a", NotADirectory),
        (b"/f", b"/new", NotADirectory),
        (b"/a", b"/f", NotADirectory),
        (b"/a", b"/a", PathNotMovable),
        (b"/a", b"/a/b", PathNotMovable),
        (b"/a/b", b"/a", PathNotMovable),
        (b"", b"/a", PathNotMovable),
        (b"/a", b"", PathNotMovable),
        (b"/a", b"/.cvmfs", PathNotMovable),
    ):
        with pytest.raises(error):
            model.editor.merge(source, target)
    model.save(reopens=False)
    model.check()


def test_of_a_merge_only_what_the_layer_has_is_looked_at(model: Model) -> None:
    for path in (b"/up", b"/up/a", b"/low", b"/low/a", b"/low/b", b"/low/gone"):
        model.make_directory(path)
        model.nest(path)
    model.make_file(b"/up/.wh.gone")
    model.save(reopens=True)
    fetched = []
    fetch = model.store.fetch
    model.store.fetch = lambda name, sink: (fetched.append(name), fetch(name, sink))[1]  # type: ignore[method-assign]
    model.editor.merge(b"/up", b"/low", whiteouts=True)
    assert len(fetched) <= 5  # the root is there, /up, /up/a, /low, /low/a; the counters of /gone


def test_clones_and_moves_to_impossible_places_are_refused(model: Model) -> None:
    for path in (b"/a", b"/a/b", b"/c"):
        model.make_directory(path)
    model.make_file(b"/f")
    for source, target, error in (
        (b"/none", b"/x", PathNotFound),
        (b"/a", b"/c", PathExists),
        (b"/a/b", b"/a", PathExists),
        (b"/a", b"/a", PathExists),
        (b"/a", b"/a/b/x", PathNotMovable),
        (b"", b"/x", PathNotMovable),
        (b"/a", b"", PathNotMovable),
        (b"/a", b"/.cvmfs/x", PathNotMovable),
        (b"/a", b"/.cvmfs", PathNotMovable),
        (b"/a", b"/x/y", PathNotFound),
        (b"/a", b"/f/y", NotADirectory),
        (b"/a", b"/" + b"x" * 256, PathNotMovable),
        (b"/a", b"/..", PathNotMovable),
        (b"/a", b"/c/", PathNotMovable),
    ):
        for operation in (model.editor.clone, model.editor.move):
            with pytest.raises(error):
                operation(source, target)
    model.save(reopens=False)
    model.check()


def test_only_catalogs_of_the_subtree_and_on_the_way_are_touched(model: Model) -> None:
    for path in (b"/a", b"/a/b", b"/other", b"/to"):
        model.make_directory(path)
        model.nest(path)
    model.save(reopens=True)
    fetched = []
    fetch = model.store.fetch
    model.store.fetch = lambda name, sink: (fetched.append(name), fetch(name, sink))[1]  # type: ignore[method-assign]
    model.move(b"/a", b"/to/a")
    assert len(fetched) == 3  # /a, /a/b, /to
    model.editor.remove(b"/to")
    assert len(fetched) == 3


def test_a_catalog_deeper_than_any_path_is_refused(model: Model) -> None:
    path = b""
    name = b"/" + b"x" * 255
    while len(path) < MAX_DEPTH * 5:
        path += name
        model.editor.put_directory(path, DIRECTORY)
    with pytest.raises(FormatError, match="a path of more than"):
        model.editor.clone(b"/" + b"x" * 255, b"/copy")


def test_a_nested_catalog_outside_of_its_parent_is_refused(model: Model) -> None:
    model.make_directory(b"/a")
    model.make_directory(b"/b")
    model.nest(b"/a")
    model.save(reopens=True)
    inner = model.editor.listing(b"/a")
    inner.nested[b"/b"] = model.editor.root.nested[b"/a"]
    with pytest.raises(FormatError, match="outside"):
        model.editor.clone(b"/a", b"/c")


def test_a_clone_of_a_catalog_without_its_root_entry_is_refused(model: Model) -> None:
    model.make_directory(b"/a")
    model.nest(b"/a")
    model.editor.listing(b"/a").remove(b"/a")
    with pytest.raises(FormatError, match="no entry of its own"):
        model.editor.clone(b"/a", b"/c")


def test_a_missing_catalog_is_named(model: Model) -> None:
    model.make_directory(b"/a")
    model.nest(b"/a")
    model.save(reopens=True)
    nested = model.editor.root.nested[b"/a"]
    assert nested is not None
    missing = ContentHash.of(b"nothing", HashAlgorithm.SHA1)
    model.editor.root.nested[b"/a"] = replace(nested, hash=missing)
    with pytest.raises(Exception, match=str(missing)[2:10]):
        model.editor.clone(b"/a", b"/c")
