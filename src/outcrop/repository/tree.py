"""One revision of a repository as a tree of paths: look up, list, walk, read.

Paths are bytes below the root of the repository: `b""` is the root, all others begin with `/`.
`normalize` makes one of what a user types.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outcrop.formats.catalog import Chunk, DirectoryEntry
from outcrop.formats.hashes import ContentHash
from outcrop.formats.xattrs import parse_xattrs
from outcrop.repository.catalogs import Catalog, CatalogTree
from outcrop.repository.errors import (
    NotADirectory,
    NotAFile,
    NotASymlink,
    PathNotFound,
    TooManyLinks,
)
from outcrop.repository.files import Piece, RepositoryFile, pieces_of
from outcrop.repository.symlinks import expand
from outcrop.storage.store import ObjectOpener
from outcrop.trust.chain import TrustedManifest

MAX_LINKS = 40
MAX_DEPTH = 4096
"""Deeper than any path the kernel could name; stops a walk of a malicious tree."""


def normalize(path: bytes) -> bytes:
    """`/a//b/./c/` → `/a/b/c`, `/` → the root; `..` stays above nothing: `/../a` → `/a`."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"".join(b"/" + part for part in parts)


@dataclass(frozen=True, slots=True)
class Revision:
    """A repository as of one root catalog, which the trust chain or the caller vouches for.

    `manifest` is `None` where the caller named the root hash or only the cache could be asked;
    `tag` is set where one was asked for.
    """

    fqrn: str
    opener: ObjectOpener
    catalogs: CatalogTree
    manifest: TrustedManifest | None = None
    tag: str | None = None

    @property
    def root_hash(self) -> ContentHash:
        """The hash of the root catalog."""
        return self.catalogs.root.hash

    @property
    def number(self) -> int:
        """The revision number."""
        return self.catalogs.root.revision

    def find(self, path: bytes) -> DirectoryEntry | None:
        """The entry at a normalized path, symlinks not followed; `None` if there is none."""
        return self.catalogs.holding(path).find(path)

    def get(self, path: bytes) -> DirectoryEntry:
        """The entry at a normalized path, symlinks not followed. Raises PathNotFound."""
        entry = self.find(path)
        if entry is None:
            raise PathNotFound(f"{self.fqrn}:{_shown(path)}: no such file or directory")
        return entry

    def resolve(self, path: bytes, environment: Mapping[str, str]) -> bytes:
        """Follow symlinks, the last one too. Links out of the repository are not found.

        Raises PathNotFound, TooManyLinks.
        """
        todo = [part for part in normalize(path).split(b"/") if part][::-1]
        done = b""
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                done = done.rpartition(b"/")[0]
                continue
            here = done + b"/" + part
            entry = self.get(here)
            if not entry.is_symlink:
                done = here
                continue
            links += 1
            if links > MAX_LINKS:
                raise TooManyLinks(f"{self.fqrn}:{_shown(path)}: too many symbolic links")
            target = expand(entry.symlink, environment)
            if target.startswith(b"/"):
                target = self._inside(target, path)
                done = b""
            todo += [p for p in target.split(b"/") if p not in (b"", b".")][::-1]
        return done

    def _inside(self, target: bytes, path: bytes) -> bytes:
        prefix = b"/cvmfs/" + self.fqrn.encode()
        if target != prefix and not target.startswith(prefix + b"/"):
            raise PathNotFound(
                f"{self.fqrn}:{_shown(path)}: leads out of the repository to {_shown(target)}"
            )
        return target[len(prefix) :]

    def entries(self, path: bytes) -> list[DirectoryEntry]:
        """All entries of a directory but hidden ones, by name. Raises NotADirectory."""
        if not self.get(path).is_directory:
            raise NotADirectory(f"{self.fqrn}:{_shown(path)}: not a directory")
        entries = self.catalogs.listing(path).entries(path)
        return sorted(
            (e for e in entries if not e.is_hidden and e.name), key=lambda entry: entry.name
        )

    def walk(self, path: bytes = b"") -> Iterator[tuple[bytes, list[DirectoryEntry]]]:
        """Every directory at and below `path` with its entries, parents first, in name order."""
        todo = [path]
        while todo:
            here = todo.pop()
            if here.count(b"/") > MAX_DEPTH:
                raise TooManyLinks(f"{self.fqrn}:{_shown(here[:100])}…: too deep")
            entries = self.entries(here)
            yield here, entries
            below = [here + b"/" + entry.name for entry in entries if entry.is_directory]
            todo += reversed(below)

    def readlink(self, path: bytes) -> bytes:
        """The raw target of a symlink, variables not expanded. Raises NotASymlink."""
        entry = self.get(path)
        if not entry.is_symlink:
            raise NotASymlink(f"{self.fqrn}:{_shown(path)}: not a symbolic link")
        return entry.symlink

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        """The stored extended attributes."""
        entry = self.get(path)
        return parse_xattrs(entry.xattrs) if entry.xattrs else {}

    def chunks(self, path: bytes, entry: DirectoryEntry) -> list[Chunk]:
        """The chunks of a regular file; none if it is one object."""
        if not entry.is_chunked:
            return []
        return self.catalogs.holding(path).chunks(path, entry.algorithm)

    def pieces(self, path: bytes) -> list[Piece]:
        """The objects of a regular file. Raises NotAFile."""
        entry = self.get(path)
        if not entry.is_regular:
            raise NotAFile(f"{self.fqrn}:{_shown(path)}: not a regular file")
        return pieces_of(path, entry, self.chunks(path, entry))

    def open(self, path: bytes) -> io.BufferedReader:
        """Open a regular file for reading; fetches the chunks that are touched."""
        pieces = self.pieces(path)
        size = pieces[-1].offset + pieces[-1].size if pieces else 0
        return io.BufferedReader(RepositoryFile(self.opener, pieces, size), 128 * 1024)

    def catalog_of(self, path: bytes, entry: DirectoryEntry) -> Catalog:
        """The catalog that answers for a path: of a mountpoint, the nested one."""
        return self.catalogs.listing(path) if entry.is_directory else self.catalogs.holding(path)


def _shown(path: bytes) -> str:
    """A path for a message."""
    return (path or b"/").decode("utf-8", "backslashreplace")
