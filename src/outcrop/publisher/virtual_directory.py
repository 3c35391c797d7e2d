"""`/.cvmfs/snapshots`: every tag as a directory of the newest revision (CVMFS_VIRTUAL_DIR).

The root catalogs of tags are bound to these directories as they are, so this costs a few rows. It
can only be written when the tagged root has its hash: a revision with it succeeds that root at
once. `/.cvmfs` is hidden, belongs to nobody who publishes, and is a nested catalog of its own.

A tag with slashes in its name is in directories: an entry with a slash, as CernVM-FS makes it, has
the kernel refuse the whole of `snapshots`.
"""

import stat
import tempfile
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from outcrop.formats.catalog import MAX_NAME_BYTES, DirectoryEntry, NestedCatalog
from outcrop.formats.hashes import Compression, ObjectRef, Suffix
from outcrop.formats.history import TRUNK, TRUNK_PREVIOUS, Tag
from outcrop.formats.manifest import Manifest
from outcrop.publisher.markers import CATALOG_MARKER
from outcrop.repository.catalogs import CatalogTree
from outcrop.repository.commit import store_catalogs
from outcrop.repository.editor import VIRTUAL_DIRECTORY, CatalogEditor
from outcrop.repository.errors import PathNotFound
from outcrop.repository.object_writer import ObjectWriter
from outcrop.storage.temporary import TransientOpener

SNAPSHOTS = VIRTUAL_DIRECTORY + b"/snapshots"
_DIRECTORY_BYTES = 97
_DIRECTORY_MODE = stat.S_IFDIR | 0o555
_MARKER_MODE = stat.S_IFREG | 0o444


@dataclass(frozen=True, slots=True)
class VirtualDirectoryWriter:
    """Makes the revision that follows one whose tags are known. `now` is unix time.

    `warn` is told of tags that can have no directory.
    """

    writer: ObjectWriter
    scratch: Path
    now: int
    warn: Callable[[str], None] = lambda _message: None

    def __call__(self, manifest: Manifest, tags: Collection[Tag]) -> NestedCatalog | None:
        """The root catalog of the next revision; `None` where all is as it should be.

        Raises StorageError, FormatError.
        """
        root = ObjectRef(manifest.root_catalog, Suffix.CATALOG, size=manifest.catalog_size or None)
        with (
            tempfile.TemporaryDirectory(dir=self.scratch) as place,
            CatalogEditor.open(self.writer.store, Path(place), root) as editor,
        ):
            wanted, impossible = wanted_snapshots(tags)
            for name in impossible:
                self.warn(f"the tag {name} gets no directory in {SNAPSHOTS.decode()}")
            if not self._update(editor, wanted):
                return None
            with ThreadPoolExecutor(1) as executor:
                stored = store_catalogs(
                    editor,
                    self.writer,
                    executor,
                    now=self.now,
                    ttl=manifest.ttl,
                    revision=manifest.revision + 1,
                )
            return stored.root

    def _update(self, editor: CatalogEditor, wanted: Mapping[bytes, Tag]) -> bool:
        """Bind what is wanted and not there, and drop the rest; whether there was any."""
        is_there = editor.is_nested(VIRTUAL_DIRECTORY) and editor.find(SNAPSHOTS) is not None
        bound = editor.bindings(SNAPSHOTS) if is_there else {}
        stale = [
            path for path, nested in bound.items()
            if path not in wanted or wanted[path].hash != nested.hash
        ]  # fmt: skip
        missing = [path for path in wanted if path not in bound or path in stale]
        if is_there and not stale and not missing:
            return False
        self._make(editor)
        for path in stale:
            editor.unbind(path)
            _prune(editor, path.rpartition(b"/")[0])
        for path in missing:
            tag = wanted[path]
            entry = self._root_entry(tag)
            self._make_parents(editor, path)
            editor.bind(path, entry, NestedCatalog(path, tag.hash, tag.size))
        return True

    def _make(self, editor: CatalogEditor) -> None:
        old = editor.find(VIRTUAL_DIRECTORY)
        if old is not None and not editor.is_nested(VIRTUAL_DIRECTORY):
            editor.remove(VIRTUAL_DIRECTORY)
        editor.put_directory(VIRTUAL_DIRECTORY, replace(self._directory(), is_hidden=True))
        editor.nest(VIRTUAL_DIRECTORY)
        editor.put_directory(SNAPSHOTS, self._directory())
        content = self.writer.put(b"").hash
        marker = DirectoryEntry(
            name=CATALOG_MARKER,
            mode=_MARKER_MODE,
            mtime=self.now,
            content=content,
            algorithm=content.algorithm,
            compression=Compression.ZLIB,
        )
        editor.put(VIRTUAL_DIRECTORY, [(marker, ())])

    def _directory(self) -> DirectoryEntry:
        return DirectoryEntry(name=b"", mode=_DIRECTORY_MODE, size=_DIRECTORY_BYTES, mtime=self.now)

    def _make_parents(self, editor: CatalogEditor, path: bytes) -> None:
        for parent in reversed(_parents(path)):
            if editor.find(parent) is None:
                editor.put_directory(parent, self._directory())

    def _root_entry(self, tag: Tag) -> DirectoryEntry:
        ref = ObjectRef(tag.hash, Suffix.CATALOG, size=tag.size or None)
        found = CatalogTree(TransientOpener(self.writer.store), ref).root.find(b"")
        if found is None:
            raise PathNotFound(f"the root catalog of the tag {tag.name} has no root directory")
        return found


def wanted_snapshots(tags: Collection[Tag]) -> tuple[dict[bytes, Tag], list[str]]:
    """The directories there are to be, and the tags whose names can be none.

    A directory that is a tag's can hold those of no others.
    """
    wanted: dict[bytes, Tag] = {}
    impossible = []
    for tag in sorted(tags, key=lambda tag: tag.name):
        path = SNAPSHOTS + b"/" + tag.name.encode()
        names = tag.name.encode().split(b"/")
        is_possible = all(n not in (b"", b".", b"..") and len(n) <= MAX_NAME_BYTES for n in names)
        if tag.name in (TRUNK, TRUNK_PREVIOUS):
            continue
        if is_possible and not any(parent in wanted for parent in _parents(path)):
            wanted[path] = tag
        else:
            impossible.append(tag.name)
    return wanted, impossible


def _parents(path: bytes) -> list[bytes]:
    """The directories between `snapshots` and a tag's, the innermost first."""
    found = []
    while (path := path.rpartition(b"/")[0]) != SNAPSHOTS:
        found.append(path)
    return found


def _prune(editor: CatalogEditor, directory: bytes) -> None:
    """Remove directories that no tag is in any more."""
    while directory != SNAPSHOTS and not editor.entries(directory):
        editor.remove(directory)
        directory = directory.rpartition(b"/")[0]
