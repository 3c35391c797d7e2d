"""Editing a revision: entries are put and removed by path, the catalogs follow by themselves.

The editor fetches the catalogs it needs into a scratch directory and keeps the tree of them
consistent at every step: transition points (the same directory in parent and child), link counts
of directories, hard link groups, subtree counters. It knows no source of changes and writes
nothing to a store: `repository.commit` does that with what the editor made dirty.

Paths are bytes from the repository's root: `b""` is the root, all others begin with `/`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from outcrop.errors import FormatError
from outcrop.formats.catalog import MAX_NAME_BYTES, Chunk, DirectoryEntry, NestedCatalog
from outcrop.repository.errors import NotADirectory, PathExists, PathNotFound, PathNotMovable
from outcrop.repository.subtree import (
    MAX_PATH_BYTES,
    copy_below,
    copy_nested,
    nested_copies,
    root_entry,
)
from outcrop.repository.working_catalog import Edit, WorkingCatalog
from outcrop.repository.working_tree import WorkingTree, is_at_or_below

VIRTUAL_DIRECTORY = b"/.cvmfs"
"""The hidden directory of every repository; what is in it is made by the publisher itself."""

OnMerged = Callable[[bytes, DirectoryEntry | None, DirectoryEntry | None], None]
"""Told of a path, its entry now (`None`: it is gone) and its entry before, if it had one."""

_CATALOG_MARKER = b".cvmfscatalog"
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"


class CatalogEditor(WorkingTree):
    """The catalogs of one revision in the making. For one thread; use as a context manager.

    What it left in the scratch directory is deleted at the end.
    """

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
        gone = _mountpoints_from(catalog, directory)
        if gone:
            self._drop_nested(catalog, gone)
            for loaded in list(self._loaded.values()):
                if is_at_or_below(loaded.mountpoint, directory) and loaded is not catalog:
                    self._forget(loaded)
        catalog.remove_below(directory)
        self._add_links(directory.rpartition(b"/")[0], -1)

    def _drop_nested(self, catalog: WorkingCatalog, gone: Collection[bytes]) -> None:
        """Take children off a catalog, and off its counters: by the smaller part of them."""
        stays = catalog.nested.keys() - set(gone)
        if len(stays) < len(gone):
            catalog.subtree = self._sum_totals(catalog, stays)
        else:
            catalog.subtree -= self._sum_totals(catalog, gone)
        for mountpoint in gone:
            del catalog.nested[mountpoint]

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

    # --- whole subtrees ---

    def clone(self, source: bytes, target: bytes) -> None:
        """Make `target`, which must not exist, a copy of `source` with all that is below.

        The copies of hard links are files of their own; nested catalogs are copied, too. No
        content is read. Raises PathNotFound, PathExists, NotADirectory, PathNotMovable.
        """
        self._check_target(source, target)
        self._copy(source, target, keeps_links=False)

    def move(self, source: bytes, target: bytes) -> None:
        """Give `source`, with all that is below, another path. Raises as `clone` does.

        Hard links stay links as far as they stay in one directory.
        """
        self._check_target(source, target)
        catalog, directory = self.holding(source), source.rpartition(b"/")[0]
        if not self.get(source).is_directory and directory == target.rpartition(b"/")[0]:
            catalog.rename(source, target)
            return
        self._copy(source, target, keeps_links=True)
        self.remove(source)

    def _check_target(self, source: bytes, target: bytes) -> None:
        self.get(source)
        _check_movable(source, target)
        name = target.rpartition(b"/")[2]
        if name in (b"", b".", b"..") or len(name) > MAX_NAME_BYTES or b"\0" in name:
            raise PathNotMovable(f"{_shown(target)} is no possible path")
        if self.find(target) is not None:
            raise PathExists(
                f"{_shown(target)} exists already", hint="remove it first, or choose another path"
            )
        if is_at_or_below(target, source):
            raise PathNotMovable(f"{_shown(target)} is inside of {_shown(source)}")
        parent = target.rpartition(b"/")[0]
        if not self.get(parent).is_directory:
            raise NotADirectory(f"{_shown(parent)} is no directory, so nothing can be below it")

    def _copy(self, source: bytes, target: bytes, *, keeps_links: bool) -> None:
        entry = self.get(source)
        if entry.is_directory:
            self._copy_directory(entry, source, target, keeps_links=keeps_links)
            return
        directory, _, name = target.rpartition(b"/")
        chunks = self.chunks(source, entry)
        self.put(directory, [(replace(entry, name=name, nlink=1, hardlink_group=0), chunks)])

    def _copy_directory(
        self, entry: DirectoryEntry, source: bytes, target: bytes, *, keeps_links: bool
    ) -> None:
        origin, place = self.holding(source), self.holding(target)
        copies = nested_copies(origin, source, target)
        self.put_directory(target, entry)
        is_nested = source in origin.nested
        place.put_at(target, replace(root_entry(entry, target), is_nested_mountpoint=is_nested))
        if not is_nested:
            copy_below(origin, source, place, target, keeps_links=keeps_links)
        place.nested.update(dict.fromkeys(copy.place for copy in copies))
        for new in copy_nested(copies, self._open_source, self._new_file, keeps_links=keeps_links):
            self._loaded[new.mountpoint] = new

    # --- layers ---

    def merge(
        self,
        source: bytes,
        target: bytes,
        *,
        whiteouts: bool = False,
        on_merged: OnMerged | None = None,
    ) -> None:
        """Lay the directory `source` over the directory `target`, which is made if it is missing.

        What only one of them has is in the result; where both have something, `source` wins, and
        directories become one, with the metadata `source` has. Hard links of `source` stay links.
        With `whiteouts`, files named `.wh.NAME` and `.wh..wh..opq` are not copied but hide what
        `target` has, as in the layers of a container image. No content is read, and of `target`
        nothing but what `source` has, too. Raises PathNotFound, NotADirectory, PathNotMovable,
        FormatError.
        """
        self._check_layers(source, target)
        tell = on_merged or _say_nothing
        waiting = [(source, target)]
        while waiting:
            upper, lower = waiting.pop()
            if len(lower) > MAX_PATH_BYTES:
                raise FormatError(f"a path of more than {MAX_PATH_BYTES} bytes: {lower[:60]!r}…")
            before = self._clear_for_layer(upper, lower, whiteouts=whiteouts)
            if self.find(lower) is None:
                self._copy(upper, lower, keeps_links=True)
                if whiteouts:
                    self._drop_whiteouts(lower)
                tell(lower, self.get(lower), before)
            else:
                self._merge_directory(upper, lower, tell)
                waiting += self._merge_entries(upper, lower, tell, whiteouts=whiteouts)

    def _check_layers(self, source: bytes, target: bytes) -> None:
        found = self.find(target)
        if found is None:
            self._check_target(source, target)
        _check_movable(source, target)
        for path, entry in ((source, self.get(source)), (target, found)):
            if entry is not None and not entry.is_directory:
                raise NotADirectory(f"{_shown(path)} is no directory: only such ones are merged")
        if is_at_or_below(target, source) or is_at_or_below(source, target):
            raise PathNotMovable(f"of {_shown(source)} and {_shown(target)} one is in the other")

    def _clear_for_layer(
        self, upper: bytes, lower: bytes, *, whiteouts: bool
    ) -> DirectoryEntry | None:
        """Remove what cannot become one with a directory above it; returns what there was."""
        before = self.find(lower)
        is_opaque = whiteouts and self.find(upper + b"/" + _OPAQUE) is not None
        if before is not None and (is_opaque or not before.is_directory):
            self.remove(lower)
        return before

    def _merge_directory(self, upper: bytes, lower: bytes, tell: OnMerged) -> None:
        """Give a directory the metadata of another one, and a catalog if that has one."""
        entry, old = self.get(upper), self.get(lower)
        wanted = replace(root_entry(entry, lower), nlink=old.nlink)
        if wanted != root_entry(old, lower):
            self.put_directory(lower, wanted)
            tell(lower, wanted, old)
        if self.is_nested(upper):
            self.nest(lower)

    def _merge_entries(
        self, upper: bytes, lower: bytes, tell: OnMerged, *, whiteouts: bool
    ) -> list[tuple[bytes, bytes]]:
        """Write what a directory has into another one, but for subdirectories: those it returns."""
        edits: list[Edit] = []
        directories = []
        found = self.entries(upper)
        if whiteouts:
            for entry in filter(_is_whiteout, found):
                self._hide(lower, entry.name.removeprefix(_WHITEOUT), tell)
        for entry in found:
            path = lower + b"/" + entry.name
            if entry.is_directory:
                directories.append((upper + b"/" + entry.name, path))
            elif not (whiteouts and _is_whiteout(entry)):
                chunks = self.chunks(upper + b"/" + entry.name, entry)
                old = self.find(path)
                if old != entry or entry.hardlink_group or self.chunks(path, old) != chunks:
                    edits.append((entry, chunks))
                    tell(path, entry, old)
        if edits:
            self.put(lower, edits)
        return directories

    def _hide(self, directory: bytes, name: bytes, tell: OnMerged) -> None:
        """Remove what a whiteout names, if it is there; names of whiteouts are for others."""
        path = directory + b"/" + name
        if not name or name.startswith(_WHITEOUT) or (old := self.find(path)) is None:
            return
        if name == _CATALOG_MARKER:
            self.unnest(directory)
        self.remove(path)
        tell(path, None, old)

    def _drop_whiteouts(self, top: bytes) -> None:
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            for entry in self.entries(directory):
                path = directory + b"/" + entry.name
                if entry.is_directory:
                    waiting.append(path)
                elif _is_whiteout(entry):
                    self.remove(path)

    # --- bind mountpoints ---

    def bind(self, path: bytes, entry: DirectoryEntry, bound: NestedCatalog) -> None:
        """Show another root catalog at a path that must not exist; `entry` is that root's."""
        name = path.rpartition(b"/")[2]
        self.put_directory(path, entry)
        catalog = self.holding(path)
        catalog.put_at(path, replace(root_entry(entry, path), name=name, is_bind_mountpoint=True))
        catalog.bind(replace(bound, path=path))

    def unbind(self, path: bytes) -> None:
        """Undo `bind`."""
        self.holding(path).unbind(path)
        self.remove(path)

    def bindings(self, directory: bytes) -> dict[bytes, NestedCatalog]:
        """What is bound in a directory, by path."""
        return self.listing(directory).bindings()

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
        inner = [m for m in parent.nested if is_at_or_below(m, path)]
        total = self._sum_totals(parent, inner)
        parent.subtree -= total
        child.subtree += total
        for mountpoint in inner:
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


def _mountpoints_from(catalog: WorkingCatalog, directory: bytes) -> list[bytes]:
    """The nested catalogs of a catalog at or below a directory."""
    return [m for m in catalog.nested if is_at_or_below(m, directory)]


def _check_movable(*paths: bytes) -> None:
    for path in paths:
        if not path or is_at_or_below(path, VIRTUAL_DIRECTORY):
            raise PathNotMovable(f"{_shown(path)} can be neither moved nor replaced")


def _is_whiteout(entry: DirectoryEntry) -> bool:
    return not entry.is_directory and entry.name.startswith(_WHITEOUT)


def _say_nothing(path: bytes, now: object, before: object) -> None:
    pass


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "/"
