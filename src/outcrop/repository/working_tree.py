"""The catalogs of a revision being edited: fetched as they are needed, kept in scratch files.

What is in them is `repository.editor`'s matter; here is which one has a path, and how they hang
together.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Self

from outcrop.formats.catalog import Counters, DirectoryEntry, NestedCatalog, Statistics
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.repository.working_catalog import WorkingCatalog
from outcrop.storage.store import ObjectStore, fetch_object

MAX_CATALOG_BYTES = 4 << 30
"""Limit of a plain catalog whose size its parent does not tell."""

_MAX_OPEN = 100
_FETCHERS = 4


class WorkingTree:
    """The catalogs of one revision in the making. For one thread; use as a context manager.

    What it left in the scratch directory is deleted at the end.
    """

    def __init__(self, store: ObjectStore, scratch: Path, root: WorkingCatalog) -> None:
        self._store = store
        self._scratch = scratch
        self._numbers = count(1)
        self._open: OrderedDict[bytes, WorkingCatalog] = OrderedDict()
        self._loaded = {b"": root}
        self._totals: dict[ContentHash, Counters] = {}
        self.root = root

    @classmethod
    def open(cls, store: ObjectStore, scratch: Path, root: ObjectRef) -> Self:
        """Start from a published root catalog. Raises StorageError, FormatError."""
        file = scratch / "catalog-0"
        return cls(store, scratch, _fetch(store, file, b"", root.hash, root.size or 0))

    @classmethod
    def create(cls, store: ObjectStore, scratch: Path, root: DirectoryEntry, *, now: int) -> Self:
        """Start from nothing but a root directory."""
        catalog = WorkingCatalog.create(scratch / "catalog-0", b"", now=now)
        catalog.put_at(b"", replace(root, name=b"", nlink=2))
        return cls(store, scratch, catalog)

    def __enter__(self) -> Self:
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

    def loaded(self) -> list[WorkingCatalog]:
        """The catalogs that were needed so far, in the order of their first use."""
        return list(self._loaded.values())

    def every_catalog(self) -> Iterator[WorkingCatalog]:
        """All catalogs of the revision, parents before children; fetched as they come."""
        waiting = [self.root]
        while waiting:
            catalog = self._use(waiting.pop())
            yield catalog
            waiting += [self._child(catalog, path) for path in sorted(catalog.nested, reverse=True)]

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

    def _sum_totals(self, parent: WorkingCatalog, mountpoints: Collection[bytes]) -> Counters:
        """What a catalog's subtree counters account for some of its children."""
        found = Counters()
        unknown = []
        for mountpoint in mountpoints:
            loaded, nested = self._loaded.get(mountpoint), parent.nested[mountpoint]
            if loaded is not None:
                found += loaded.base_total
            elif nested is not None and nested.hash in self._totals:
                found += self._totals[nested.hash]
            elif nested is not None:
                unknown.append(nested)
        if not unknown:
            return found
        with ThreadPoolExecutor(_FETCHERS) as executor:
            return sum(executor.map(self._fetch_total, unknown), start=found)

    def _fetch_total(self, nested: NestedCatalog) -> Counters:
        with self._open_source(nested.path, nested) as catalog:
            return catalog.base_total

    @contextmanager
    def _open_source(
        self, mountpoint: bytes, nested: NestedCatalog | None
    ) -> Iterator[WorkingCatalog]:
        """A nested catalog, closed or even deleted afterwards. Safe in several threads."""
        loaded = self._loaded.get(mountpoint)
        if loaded is not None:
            yield loaded
            loaded.close()
        elif nested is None:
            raise RuntimeError(f"the new catalog at {mountpoint!r} was forgotten")
        else:
            file = self._new_file()
            fetched = _fetch(self._store, file, mountpoint, nested.hash, nested.size)
            self._totals[nested.hash] = fetched.base_total
            try:
                yield fetched
            finally:
                fetched.discard()

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


def is_at_or_below(path: bytes, directory: bytes) -> bool:
    """Whether a path is a directory, or somewhere in it."""
    return path == directory or path.startswith(directory + b"/")
