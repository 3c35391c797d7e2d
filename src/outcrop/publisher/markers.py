"""Files that make a directory a nested catalog, where the publisher itself puts them."""

import stat
from dataclasses import dataclass, replace

from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.hashes import Compression, Suffix
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.object_writer import ObjectWriter

CATALOG_MARKER = b".cvmfscatalog"
AUTO_MARKER = b".cvmfsautocatalog"
"""Beside a catalog marker: it is there to keep catalogs small, and may go when it is too small."""

DIRTAB = b".cvmfsdirtab"


@dataclass(frozen=True, slots=True)
class MarkerWriter:
    """Puts markers into a revision in the making; `now` (unix time) is their age."""

    editor: CatalogEditor
    writer: ObjectWriter
    compression: Compression
    now: int

    def nest(self, path: bytes, *markers: bytes, permissions: int) -> None:
        """Give a directory a catalog of its own, with these empty files of its owner's in it."""
        above = self.editor.get(path)
        self.editor.nest(path)
        content = self.writer.put(b"", Suffix.FILE, self.compression).hash
        marker = DirectoryEntry(
            name=b"",
            mode=stat.S_IFREG | permissions,
            mtime=self.now,
            uid=above.uid,
            gid=above.gid,
            content=content,
            algorithm=content.algorithm,
            compression=self.compression,
        )
        for name in markers:
            found = self.editor.find(path + b"/" + name)
            if found is None or not found.is_regular:
                self.editor.put(path, [(replace(marker, name=name), ())])

    def unnest(self, path: bytes, *markers: bytes) -> None:
        """Merge the catalog of a directory into its parent's, and drop what marks it as one."""
        self.editor.unnest(path)
        for name in markers:
            if self.editor.find(path + b"/" + name) is not None:
                self.editor.remove(path + b"/" + name)
