"""A repository as the tree a mount shows. Knows no kernel: see `outcrop.fuse.view.View`.

Rows of a directory go from SQLite to the engine untouched by Python, but for the few that need
thought: hard links, devices, chunked and external files, variant symlinks, mapped owners.
"""

import errno
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from outcrop.client.ownership import Ownership
from outcrop.errors import FormatError
from outcrop.formats.catalog import EntryFlags, path_hash
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.formats.xattrs import parse_xattrs
from outcrop.fuse.view import (
    OPAQUE,
    ROW_DIRECT_IO,
    ROW_HAS_XATTRS,
    ROW_HIDDEN,
    Extent,
    Row,
    StatFs,
)
from outcrop.repository.catalogs import MAX_CATALOG_BYTES, Catalog
from outcrop.repository.errors import RepositoryError
from outcrop.repository.files import Piece, find_piece, pieces_of
from outcrop.repository.symlinks import expand, is_variant
from outcrop.repository.tree import Revision

FIRST_INODE = 255
"""Inodes count from here, so the root directory, row 1 of the root catalog, is 256 (spec 20)."""

_NAME, _INO, _MODE, _LINKS, _UID, _GID, _SIZE, _RDEV = range(8)
_TARGET, _KIND, _CONTENT, _BITS = 10, 11, 12, 13
_COMPRESSION_SHIFT = 4
_NEEDS_THOUGHT = 1 << 8
_FLAGS_SHIFT = 16
_PIECES_KEPT = 1024

_THOUGHTFUL = int(EntryFlags.SPECIAL | EntryFlags.CHUNKED | EntryFlags.EXTERNAL | EntryFlags.HIDDEN)


class NoSuchAttribute(RepositoryError):
    """There is no extended attribute of that name."""

    errno = errno.ENODATA


class MountAttributes(Protocol):
    """The attributes that report state instead of being stored (spec 21)."""

    def find(self, revision: Revision, path: bytes, name: bytes) -> bytes | None:
        """The value; `None` if the name is not magic.

        Raises NoSuchAttribute if it is, but not for this path.
        """

    def visible(self, path: bytes) -> Sequence[bytes]:
        """The names a listing of this path shows."""

    def is_magic(self, name: bytes) -> bool:
        """Whether a stored attribute of that name is hidden by a magic one."""

    def statfs(self, revision: Revision) -> StatFs:
        """Capacity of the cache and number of entries."""


class RepositoryView:
    """Shows one revision of a repository at a time; `show` switches to another."""

    def __init__(
        self,
        revision: Revision,
        *,
        ownership: Ownership,
        environment: Mapping[str, str],
        attributes: MountAttributes,
    ) -> None:
        self._revision = revision
        self._ownership = ownership
        self._environment = environment
        self._attributes = attributes
        self._lock = threading.Lock()
        self._inode_bases: dict[tuple[ContentHash, bytes], int] = {}
        self._next_base = FIRST_INODE
        self._pieces: OrderedDict[bytes, list[Piece]] = OrderedDict()
        self._statements: dict[frozenset[str], str] = {}

    @property
    def revision(self) -> Revision:
        """What is shown now."""
        return self._revision

    def show(self, revision: Revision) -> None:
        """Switch to another revision; the engine must be told that the tree changed."""
        self._revision = revision

    # --- directories -----------------------------------------------------------------------

    def root(self) -> Row:
        """The root directory's row."""
        catalog = self._revision.catalogs.root
        rows = self._rows(catalog, b"", "md5path_1 = ? AND md5path_2 = ?")
        if not rows:
            raise FormatError(f"catalog {catalog.hash} has no root directory")
        return Row(*rows[0])

    def list_directory(self, path: bytes) -> Sequence[tuple[object, ...]]:
        """All entries of a directory, by one query."""
        catalog = self._revision.catalogs.listing(path)
        return self._rows(catalog, path, "parent_1 = ? AND parent_2 = ?")

    def _rows(self, catalog: Catalog, path: bytes, condition: str) -> list[tuple[Any, ...]]:
        statement = self._statements.get(catalog.columns)
        if statement is None:
            statement = _select(catalog.columns, self._ownership)
            self._statements[catalog.columns] = statement
        key = path_hash(catalog.stored_path(path))
        rows = catalog.query(statement + condition, (self._inode_base(catalog), *key))
        everything = self._ownership.is_mapped
        groups: dict[int, int] = {}
        for index, row in enumerate(rows):
            if everything or row[_BITS] & _NEEDS_THOUGHT:
                rows[index] = self._think(catalog, path, row, groups)
        return rows

    def _inode_base(self, catalog: Catalog) -> int:
        key = (catalog.hash, catalog.mountpoint)
        with self._lock:
            base = self._inode_bases.get(key)
            if base is None:
                base = self._inode_bases[key] = self._next_base
                self._next_base += catalog.max_rowid
        return base

    def _think(
        self, catalog: Catalog, directory: bytes, row: tuple[Any, ...], groups: dict[int, int]
    ) -> tuple[Any, ...]:
        new = list(row)
        for column in (_INO, _LINKS, _UID, _GID, _SIZE, _KIND, _BITS):
            if type(row[column]) is not int:
                raise FormatError(f"catalog {catalog.hash}: {row[_NAME]!r} has a broken row")
        flags = row[_BITS] >> _FLAGS_SHIFT
        group = row[_LINKS] >> 32
        if group:
            new[_INO] = groups.setdefault(group, row[_INO])
            new[_LINKS] = row[_LINKS] & 0xFFFFFFFF
        if flags & EntryFlags.SPECIAL:
            new[_RDEV], new[_SIZE] = row[_SIZE], 0
        if row[_TARGET] is not None and is_variant(row[_TARGET]):
            new[_TARGET] = expand(row[_TARGET], self._environment)
        if flags & (EntryFlags.CHUNKED | EntryFlags.EXTERNAL) and row[_SIZE]:
            path = directory + b"/" + row[_NAME]
            new[_KIND], new[_CONTENT] = OPAQUE, _locator(catalog, path)
        new[_UID] = self._ownership.uid_map.shown(row[_UID])
        new[_GID] = self._ownership.gid_map.shown(row[_GID])
        new[_BITS] = row[_BITS] & (ROW_HAS_XATTRS | ROW_HIDDEN | ROW_DIRECT_IO)
        return tuple(new)

    # --- content ---------------------------------------------------------------------------

    def open_extent(self, path: bytes, kind: int, content: bytes, size: int, offset: int) -> Extent:
        """Find the object with the byte at `offset`, downloading it if need be."""
        opener = self._revision.opener
        if kind != OPAQUE:
            algorithm = HashAlgorithm.from_number(kind & ((1 << _COMPRESSION_SHIFT) - 1))
            compression = Compression(kind >> _COMPRESSION_SHIFT)
            ref = ObjectRef(ContentHash(algorithm, content), compression=compression, size=size)
            return Extent(opener.open_object(ref), 0, size, 0)
        piece = find_piece(self._pieces_of(content), offset)
        if piece is None:
            raise FormatError(f"{path!r}: no object has its byte {offset}")
        return Extent(opener.open_object(piece.ref), piece.offset, piece.size, 0)

    def _pieces_of(self, locator: bytes) -> list[Piece]:
        with self._lock:
            pieces = self._pieces.get(locator)
            if pieces is not None:
                self._pieces.move_to_end(locator)
                return pieces
        text, mountpoint, path = locator.split(b"\0")
        catalog = self._catalog(ContentHash.parse(text.decode()), mountpoint)
        entry = catalog.find(path)
        if entry is None:
            raise FormatError(f"catalog {catalog.hash} has no row for {path!r}")
        chunks = catalog.chunks(path, entry.algorithm) if entry.is_chunked else []
        pieces = pieces_of(path, entry, chunks)
        with self._lock:
            self._pieces[locator] = pieces
            while len(self._pieces) > _PIECES_KEPT:
                self._pieces.popitem(last=False)
        return pieces

    def _catalog(self, content_hash: ContentHash, mountpoint: bytes) -> Catalog:
        """A catalog by its hash: of the revision shown, or of an older one a file is open from."""
        for catalog in self._revision.catalogs.loaded:
            if catalog.hash == content_hash and catalog.mountpoint == mountpoint:
                return catalog
        ref = ObjectRef(content_hash, Suffix.CATALOG)
        fd = self._revision.opener.open_object(ref, limit=MAX_CATALOG_BYTES)
        return Catalog(fd, content_hash, mountpoint)

    # --- attributes ------------------------------------------------------------------------

    def list_xattrs(self, path: bytes) -> Sequence[bytes]:
        """Stored attributes, and the magic ones where they are to be seen."""
        stored = self._revision.xattrs(path)
        plain = [name for name in stored if not self._attributes.is_magic(name)]
        return [*plain, *self._attributes.visible(path)]

    def get_xattr(self, path: bytes, name: bytes) -> bytes:
        """A magic or stored attribute. Raises NoSuchAttribute."""
        value = self._attributes.find(self._revision, path, name)
        if value is not None:
            return value
        entry = self._revision.get(path)
        value = parse_xattrs(entry.xattrs).get(name) if entry.xattrs else None
        if value is None:
            raise NoSuchAttribute(f"{path!r} has no attribute {name!r}")
        return value

    def statfs(self) -> StatFs:
        """Capacity of the cache and number of entries."""
        return self._attributes.statfs(self._revision)


def _locator(catalog: Catalog, path: bytes) -> bytes:
    """A content key that finds a file's objects again when the tree shows another revision."""
    return b"\0".join((str(catalog.hash).encode(), catalog.mountpoint, path))


def _select(columns: Collection[str], ownership: Ownership) -> str:
    """SQL that makes `Row`-shaped tuples; the first parameter is the inode base.

    Rows that need thought carry their flags in the high part of `bits`.
    """
    nanoseconds = "mtimens" if "mtimens" in columns else "NULL"
    has_xattrs = "(xattr IS NOT NULL)" if "xattr" in columns else "0"
    uid, gid = "uid", "gid"
    if ownership.claim is not None:
        uid, gid = (str(int(number)) for number in ownership.claim)
    mode = "mode"
    if ownership.world_readable:
        mode = f"mode | (CASE WHEN flags & 1 THEN {0o555} WHEN flags & 8 THEN 0 ELSE {0o444} END)"
    needs_thought = (
        f"flags & {_THOUGHTFUL} OR hardlinks > {0xFFFFFFFF} OR (flags & 8 AND instr(symlink, '$('))"
    )
    bits = (
        f"{has_xattrs} | (((flags >> 15) & 1) << 1) | (((flags >> 16) & 1) << 2) | (CASE WHEN "
        f"{needs_thought} THEN (flags << {_FLAGS_SHIFT}) | {_NEEDS_THOUGHT} ELSE 0 END)"
    )
    kind = (
        "CASE WHEN hash IS NULL OR (flags & 28) != 4 THEN 0 "
        f"ELSE (((flags >> 8) & 7) + 1) | (((flags >> 11) & 7) << {_COMPRESSION_SHIFT}) END"
    )
    return (
        f"SELECT name, rowid + ?, {mode}, hardlinks, {uid}, {gid}, "
        "CASE WHEN flags & 8 THEN 0 ELSE size END, 0, mtime, "
        f"{nanoseconds}, nullif(symlink, ''), {kind}, hash, ifnull({bits}, {_NEEDS_THOUGHT}) "
        "FROM catalog WHERE "
    )
