"""Editing a revision: entries are put and removed by path, the catalogs follow by themselves.

The editor fetches the catalogs it needs into a scratch directory and keeps the tree of them
consistent at every step: transition points (the same directory in parent and child), link counts
of directories, hard link groups, subtree counters. It knows no source of changes and writes
nothing to a store: `repository.commit` does that with what the editor made dirty.

Paths are bytes from the repository's root: `b""` is the root, all others begin with `/`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from outcrop.formats.catalog import Chunk, DirectoryEntry, NestedCatalog, Statistics
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.repository.errors import NotADirectory, PathNotFound
from outcrop.repository.working_catalog import Edit, WorkingCatalog
from outcrop.storage.store import ObjectStore, fetch_object

MAX_CATALOG_BYTES = 4 << 30
"""Limit of a plain catalog whose size its parent does not tell."""

_MAX_OPEN = 100


class CatalogEditor:
    """The catalogs of one revision in the making. For one thread; use as a context manager.

    What it left in the scratch directory is deleted at the end.
    """

    def __init__(self, store: ObjectStore, scratch: Path, root: WorkingCatalog) -> None:
        self._store = store
        self._scratch = scratch
        self._numbers = count(1)
        self._open: OrderedDict[bytes, WorkingCatalog] = OrderedDict()
        self._loaded = {b"": root}
        self.root = root

    @classmethod
    def open(cls, store: ObjectStore, scratch: Path, root: ObjectRef) -> "CatalogEditor":
        """Start from a published root catalog. Raises StorageError, FormatError."""
        file = scratch / "catalog-0"
        return cls(store, scratch, _fetch(store, file, b"", root.hash, root.size or 0))

    @classmethod
    def create(
        cls, store: ObjectStore, scratch: Path, root: DirectoryEntry, *, now: int
    ) -> "CatalogEditor":
        """Start from nothing but a root directory."""
        catalog = WorkingCatalog.create(scratch / "catalog-0", b"", now=now)
        catalog.put_at(b"", replace(root, name=b"", nlink=2))
        return cls(store, scratch, catalog)

    def __enter__(self) -> "CatalogEditor":
        return self

    def __exit__(self, *_: object) -> None:
        for catalog in self._loaded.values():
            catalog.discard()

    # --- which catalog ---

    def holding(self, path: bytes) -> WorkingCatalog:
        """The catalog with the row of `path`; of a nested catalog's mountpoint, the parent."""
        return self.listing(path.rpartition(b"/")[0]) if path else self._use(self.root)

    def listing(self, directory: bytes) -> WorkingCatalog:
        """The catalog with the rows of a directory's entries; of a mountpoint, the child."""
        catalog = self.root
        while catalog.nested:
            mountpoint = _first_mountpoint(catalog, directory)
            if mountpoint is None:
                break
            catalog = self._child(catalog, mountpoint)
        return self._use(catalog)

    def is_nested(self, path: bytes) -> bool:
        """Whether the directory is the root of a nested catalog."""
        return bool(path) and path in self.holding(path).nested

    def _child(self, parent: WorkingCatalog, mountpoint: bytes) -> WorkingCatalog:
        loaded = self._loaded.get(mountpoint)
        if loaded is not None:
            return loaded
        nested = parent.nested[mountpoint]
        if nested is None:
            raise RuntimeError(f"the new catalog at {mountpoint!r} was forgotten")
        child = _fetch(self._store, self._new_file(), mountpoint, nested.hash, nested.size)
        self._loaded[mountpoint] = child
        return self._use(child)

    def _new_file(self) -> Path:
        return self._scratch / f"catalog-{next(self._numbers)}"

    def _use(self, catalog: WorkingCatalog) -> WorkingCatalog:
        """Note that a catalog is about to be used, so that not all of them stay open."""
        self._open[catalog.mountpoint] = catalog
        self._open.move_to_end(catalog.mountpoint)
        if len(self._open) > _MAX_OPEN:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
        return catalog

    def _forget(self, catalog: WorkingCatalog) -> None:
        del self._loaded[catalog.mountpoint]
        self._open.pop(catalog.mountpoint, None)
        catalog.discard()

    # --- reading ---

    def find(self, path: bytes) -> DirectoryEntry | None:
        """The entry at a path; `None` where there is none."""
        return self.holding(path).find(path)

    def get(self, path: bytes) -> DirectoryEntry:
        """The entry at a path. Raises PathNotFound."""
        entry = self.find(path)
        if entry is None:
            raise PathNotFound(f"{_shown(path)} does not exist in this revision")
        return entry

    def entries(self, directory: bytes) -> list[DirectoryEntry]:
        """Everything directly in a directory, in no order; nothing where there is no such one."""
        return self.listing(directory).entries(directory)

    def chunks(self, path: bytes, entry: DirectoryEntry) -> list[Chunk]:
        """The chunks of a file, by offset."""
        return self.holding(path).chunks(path, entry) if entry.is_chunked else []

    # --- entries ---

    def put(self, directory: bytes, edits: Sequence[Edit]) -> None:
        """Write entries that are no directories into a directory, which must exist.

        What had their names is replaced, a whole subtree if need be. Entries of one call with the
        same `hardlink_group` (the caller's numbers, not 0) become a hard link group.
        """
        self.listing(directory).put(directory, edits, before_replacing=self._remove_content)

    def put_directory(self, path: bytes, entry: DirectoryEntry) -> None:
        """Make a directory, or give it new metadata; the parent must exist.

        The link count and everything about nested catalogs are the editor's, not `entry`'s.
        """
        catalog = self.holding(path)
        old = catalog.find(path)
        if old is None or not old.is_directory:
            plain = replace(entry, is_nested_mountpoint=False, is_nested_root=False)
            catalog.put_at(path, replace(plain, nlink=2, name=path.rpartition(b"/")[2]))
            self._add_links(path.rpartition(b"/")[0], 1)
            return
        self._put_transition(path, catalog, replace(entry, nlink=old.nlink, name=old.name))

    def remove(self, path: bytes) -> None:
        """Remove an entry, a directory with everything below. Raises PathNotFound."""
        if self.get(path).is_directory:
            self._remove_content(path)
        self.holding(path).remove(path)

    def _remove_content(self, directory: bytes) -> None:
        """Drop what is below a directory that is about to go; nested catalogs go unread."""
        catalog = self.holding(directory)
        for mountpoint in _mountpoints_from(catalog, directory):
            child = self._child(catalog, mountpoint)  # only its counters are needed
            catalog.subtree -= child.base_total
            del catalog.nested[mountpoint]
            for loaded in list(self._loaded.values()):
                if _is_at_or_below(loaded.mountpoint, mountpoint):
                    self._forget(loaded)
        catalog.remove_below(directory)
        self._add_links(directory.rpartition(b"/")[0], -1)

    def _add_links(self, directory: bytes, delta: int) -> None:
        catalog = self.holding(directory)
        catalog.add_links(directory, delta)
        if directory in catalog.nested:
            self.listing(directory).add_links(directory, delta)

    def _put_transition(self, path: bytes, catalog: WorkingCatalog, entry: DirectoryEntry) -> None:
        """Write a directory's row, and the same into the nested catalog it is the root of."""
        is_nested = path in catalog.nested
        plain = replace(entry, is_nested_mountpoint=False, is_nested_root=False)
        catalog.put_at(path, replace(plain, is_nested_mountpoint=is_nested))
        if is_nested:
            self.listing(path).put_at(path, replace(plain, is_nested_root=True))

    # --- nested catalogs ---

    def nest(self, path: bytes) -> None:
        """Give a directory a catalog of its own; not the root, which has one anyway."""
        parent = self.holding(path)
        entry = self.get(path)
        if not entry.is_directory:
            raise NotADirectory(f"{_shown(path)} is no directory: it can hold no nested catalog")
        if not path or path in parent.nested:
            return
        child = WorkingCatalog.create(self._new_file(), path, now=0)
        inner = [m for m in parent.nested if _is_at_or_below(m, path)]
        for mountpoint in inner:
            total = self._child(parent, mountpoint).base_total
            parent.subtree -= total
            child.subtree += total
            child.nested[mountpoint] = parent.nested.pop(mountpoint)
        self._loaded[path] = child
        parent.nested[path] = None
        parent.move_below(path, child)
        self._put_transition(path, parent, entry)

    def unnest(self, path: bytes) -> None:
        """Merge the nested catalog of a directory into its parent."""
        parent = self.holding(path)
        if path not in parent.nested:
            return
        child = self._child(parent, path)
        child.move_below(path, parent)
        parent.subtree = parent.subtree - child.base_total + child.subtree
        del parent.nested[path]
        parent.nested.update(child.nested)
        self._forget(child)
        self._put_transition(path, parent, self.get(path))

    # --- for the commit ---

    def dirty_levels(self) -> Iterator[list[WorkingCatalog]]:
        """The catalogs that need a new object, deepest first; those of one list are siblings.

        Whatever is above a dirty catalog is dirty, and so is always the root.
        """
        depths: dict[bytes, int] = {}
        dirty: dict[bytes, WorkingCatalog] = {b"": self.root}
        for catalog in self._loaded.values():
            if catalog.is_dirty:
                dirty.update({above.mountpoint: above for above in self._lineage(catalog)})
        for catalog in dirty.values():
            depths[catalog.mountpoint] = len(self._lineage(catalog))
        for depth in range(max(depths.values()), 0, -1):
            yield [c for m, c in dirty.items() if depths[m] == depth]

    def _lineage(self, catalog: WorkingCatalog) -> list[WorkingCatalog]:
        """A catalog and all above it, root first."""
        found = [self.root]
        while found[-1] is not catalog:
            mountpoint = _first_mountpoint(found[-1], catalog.mountpoint)
            if mountpoint is None:
                raise RuntimeError(f"the catalog at {catalog.mountpoint!r} hangs nowhere")
            found.append(self._loaded[mountpoint])
        return found

    def settle(
        self, catalog: WorkingCatalog, stored: NestedCatalog, statistics: Statistics
    ) -> None:
        """Note that a sealed catalog has its object now, and tell its parent.

        Raises nothing: catalogs are settled deepest first, so the parent is still unsealed.
        """
        if catalog.mountpoint:
            parent = self.holding(catalog.mountpoint)
            parent.nested[catalog.mountpoint] = stored
            parent.subtree += statistics.total - catalog.base_total
            parent.is_dirty = True
        catalog.base = stored.hash
        catalog.base_total = statistics.total
        catalog.is_dirty = False


def _fetch(
    store: ObjectStore, file: Path, mountpoint: bytes, content_hash: ContentHash, size: int
) -> WorkingCatalog:
    ref = ObjectRef(content_hash, Suffix.CATALOG, size=size or None)
    with file.open("w+b") as out:
        fetch_object(store, ref, out, limit=MAX_CATALOG_BYTES)
    return WorkingCatalog.open(file, mountpoint, content_hash)


def _first_mountpoint(catalog: WorkingCatalog, path: bytes) -> bytes | None:
    """The outermost nested catalog of `catalog` at or above `path`."""
    end = len(catalog.mountpoint)
    while end < len(path):
        end = path.find(b"/", end + 1)
        if end < 0:
            end = len(path)
        if path[:end] in catalog.nested:
            return path[:end]
    return None


def _is_at_or_below(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")


def _mountpoints_from(catalog: WorkingCatalog, directory: bytes) -> list[bytes]:
    """The nested catalogs of a catalog at or below a directory."""
    return [m for m in catalog.nested if _is_at_or_below(m, directory)]


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "/"
