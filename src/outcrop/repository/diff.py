"""What is different between two revisions, found without reading what they have in common.

Catalogs are compared from the root down. Where both revisions have the same nested catalog object
at a place, everything below is the same and nothing below is fetched. Directories are merged in
name order, rows that are equal are dropped as SQLite gives them, and differences are yielded as
they are found: neither the size of a tree nor the number of differences matters to memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntFlag, auto
from typing import Any

from outcrop.errors import FormatError
from outcrop.formats.catalog import DirectoryEntry, EntryFlags
from outcrop.repository.catalogs import CatalogTree
from outcrop.repository.errors import TooManyLinks
from outcrop.repository.tree import MAX_DEPTH, Revision


class Change(Enum):
    """What became of a path."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"


class Aspect(IntFlag):
    """What of an entry was modified, in the order in which tools print it (spec 33)."""

    LINK_COUNT = auto()
    SIZE = auto()
    MODE = auto()
    MTIME = auto()
    SYMLINK = auto()
    CONTENT = auto()
    HARDLINK_GROUP = auto()
    NESTED_CATALOG = auto()
    CHUNKED = auto()
    XATTRS = auto()
    EXTERNAL = auto()
    BIND_MOUNTPOINT = auto()
    HIDDEN = auto()
    DIRECT_IO = auto()
    OWNER = auto()


_NOTHING = Aspect(0)


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same in both revisions; `aspects` tell how it was modified.

    A path that became another kind of thing is modified; of a directory that did, what was below
    is removed.
    """

    path: bytes
    old: DirectoryEntry | None
    new: DirectoryEntry | None
    aspects: Aspect = _NOTHING

    @property
    def change(self) -> Change:
        """What became of the path."""
        if self.old is None:
            return Change.ADDED
        return Change.REMOVED if self.new is None else Change.MODIFIED


def diff_revisions(
    old: Revision | CatalogTree, new: Revision | CatalogTree
) -> Iterator[Difference]:
    """All differences, by path; a removed directory comes after what was in it.

    The root directory's own path is empty. Hidden directories (`/.cvmfs`) and what is below bind
    mountpoints are left out. Raises StorageError, FormatError.
    """
    comparison = _Comparison(
        old.catalogs if isinstance(old, Revision) else old,
        new.catalogs if isinstance(new, Revision) else new,
    )
    return comparison.run()


def compare_entries(old: DirectoryEntry, new: DirectoryEntry) -> Aspect:
    """How two entries differ, as far as their rows tell."""
    is_directory = old.is_directory and new.is_directory
    pairs = (
        (Aspect.LINK_COUNT, old.nlink != new.nlink),
        (Aspect.SIZE, not is_directory and (old.size, old.rdev) != (new.size, new.rdev)),
        (Aspect.MODE, old.mode != new.mode),
        (Aspect.MTIME, (old.mtime, old.mtime_ns) != (new.mtime, new.mtime_ns)),
        (Aspect.SYMLINK, old.symlink != new.symlink),
        (Aspect.CONTENT, old.content != new.content),
        (Aspect.HARDLINK_GROUP, old.hardlink_group != new.hardlink_group),
        (
            Aspect.NESTED_CATALOG,
            (old.is_nested_mountpoint, old.is_nested_root)
            != (new.is_nested_mountpoint, new.is_nested_root),
        ),
        (Aspect.CHUNKED, old.is_chunked != new.is_chunked),
        (Aspect.XATTRS, old.xattrs != new.xattrs),
        (Aspect.EXTERNAL, old.is_external != new.is_external),
        (Aspect.BIND_MOUNTPOINT, old.is_bind_mountpoint != new.is_bind_mountpoint),
        (Aspect.HIDDEN, old.is_hidden != new.is_hidden),
        (Aspect.DIRECT_IO, old.is_direct_io != new.is_direct_io),
        (Aspect.OWNER, (old.uid, old.gid) != (new.uid, new.gid)),
    )
    return sum((aspect for aspect, differs in pairs if differs), _NOTHING)


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory that is to be looked into, in the revisions that have it."""

    path: bytes
    in_old: bool
    in_new: bool


_Row = tuple[Any, ...]
_Step = Difference | _Directory
_NAME = 7
_FLAGS = 6
_NOT_PLAIN = EntryFlags.DIRECTORY.value | EntryFlags.CHUNKED.value


class _Comparison:
    def __init__(self, old: CatalogTree, new: CatalogTree) -> None:
        self._old = old
        self._new = new

    def run(self) -> Iterator[Difference]:
        if self._old.root.hash == self._new.root.hash:
            return
        yield from self._root()
        # Not recursion: a tree may be deeper than Python's stack.
        open_directories = [self._directory(_Directory(b"", True, True))]
        while open_directories:
            for step in open_directories[-1]:
                if isinstance(step, Difference):
                    yield step
                    continue
                if len(open_directories) > MAX_DEPTH:
                    raise TooManyLinks(f"{step.path[:100]!r}…: too deep")
                open_directories.append(self._directory(step))
                break
            else:
                open_directories.pop()

    def _root(self) -> Iterator[Difference]:
        old, new = self._old.root.find(b""), self._new.root.find(b"")
        if old is None or new is None:
            raise FormatError("a root catalog has no entry of the root directory")
        aspects = compare_entries(old, new)
        if aspects:
            yield Difference(b"", old, new, aspects)

    def _directory(self, directory: _Directory) -> Iterator[_Step]:
        """Merge both sides of a directory, by name."""
        path = directory.path
        old_rows = _rows(self._old, path) if directory.in_old else iter(())
        new_rows = _rows(self._new, path) if directory.in_new else iter(())
        old, new = next(old_rows, None), next(new_rows, None)
        while old is not None or new is not None:
            if new is None or (old is not None and old[_NAME] < new[_NAME]):
                yield from self._removed(path, DirectoryEntry.from_row(old or ()))
                old = next(old_rows, None)
            elif old is None or new[_NAME] < old[_NAME]:
                yield from self._added(path, DirectoryEntry.from_row(new))
                new = next(new_rows, None)
            else:
                if old != new or old[_FLAGS] & _NOT_PLAIN:
                    yield from self._in_both(
                        path, DirectoryEntry.from_row(old), DirectoryEntry.from_row(new)
                    )
                old, new = next(old_rows, None), next(new_rows, None)

    def _added(self, directory: bytes, entry: DirectoryEntry) -> Iterator[_Step]:
        if entry.is_hidden:
            return
        path = directory + b"/" + entry.name
        yield Difference(path, None, entry)
        if _is_entered(entry):
            yield _Directory(path, in_old=False, in_new=True)

    def _removed(self, directory: bytes, entry: DirectoryEntry) -> Iterator[_Step]:
        if entry.is_hidden:
            return
        path = directory + b"/" + entry.name
        if _is_entered(entry):
            yield _Directory(path, in_old=True, in_new=False)
        yield Difference(path, entry, None)

    def _in_both(
        self, directory: bytes, old: DirectoryEntry, new: DirectoryEntry
    ) -> Iterator[_Step]:
        if old.is_hidden and new.is_hidden:
            return
        path = directory + b"/" + old.name
        aspects = compare_entries(old, new)
        if old.is_chunked and new.is_chunked and self._chunks_differ(path, old, new):
            aspects |= Aspect.CONTENT
        enters_old, enters_new = _is_entered(old), _is_entered(new)
        if _is_place(old) and _is_place(new):
            before = self._old.holding(path).nested.get(path)
            after = self._new.holding(path).nested.get(path)
            if before is not None and after is not None and before.hash == after.hash:
                enters_old = enters_new = False
            elif not enters_old and not enters_new:
                aspects |= Aspect.CONTENT
        if aspects:
            yield Difference(path, old, new, aspects)
        if enters_old or enters_new:
            yield _Directory(path, enters_old, enters_new)

    def _chunks_differ(self, path: bytes, old: DirectoryEntry, new: DirectoryEntry) -> bool:
        """Chunked files have no hash of the whole: their chunks tell."""
        if (old.size, old.algorithm) != (new.size, new.algorithm):
            return True
        before = self._old.holding(path).chunks(path, old.algorithm)
        return before != self._new.holding(path).chunks(path, new.algorithm)


def _rows(tree: CatalogTree, path: bytes) -> Iterator[_Row]:
    catalog = tree.listing(path)
    for row in catalog.iter_rows(path):
        if type(row[_NAME]) is not bytes or type(row[_FLAGS]) is not int:
            raise FormatError(f"catalog {catalog.hash}: an entry of {path!r} has no name or flags")
        if row[_NAME]:
            yield row


def _is_entered(entry: DirectoryEntry) -> bool:
    return entry.is_directory and not entry.is_bind_mountpoint and not entry.is_hidden


def _is_place(entry: DirectoryEntry) -> bool:
    """Whether another catalog begins here."""
    return entry.is_nested_mountpoint or entry.is_bind_mountpoint
