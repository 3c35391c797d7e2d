"""Reading catalogs: one SQLite file each, and the tree they make when nested.

The files are hostile even when their hash is right (a hash says which bytes, not which meaning):
only plain tables are accepted, every row is checked before it becomes a value, and what SQLite
dislikes is a FormatError. Column meanings are in `outcrop.formats.catalog`.
"""

import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from outcrop.errors import FormatError
from outcrop.formats.catalog import (
    DEFAULT_TTL_SECONDS,
    Chunk,
    DirectoryEntry,
    NestedCatalog,
    Statistics,
    check_schema,
    path_hash,
    select_list,
)
from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.repository.databases import open_database
from outcrop.storage.store import ObjectOpener

MAX_CATALOG_BYTES = 4 << 30
"""Limit of an uncompressed catalog whose size is not known beforehand."""

MAX_OPEN_CATALOGS = 256
"""Nested catalogs kept open by one tree; the least recently used are closed beyond that."""

_ROWS_AT_ONCE = 256

_TABLES = ("properties", "catalog", "chunks", "nested_catalogs")


class Catalog:
    """One catalog, open for reading at the place where it is mounted.

    `mountpoint` is where the tree shows it: its own root prefix, but for a bind mountpoint, where
    a catalog written for one place is shown at another. Safe to use from several threads.
    """

    def __init__(self, fd: int, object_hash: ContentHash, mountpoint: bytes = b"") -> None:
        """Take over `fd`, a plain catalog file. Raises FormatError."""
        self.hash = object_hash
        self.mountpoint = mountpoint
        self._file = _OwnedFile(fd)
        self._lock = threading.Lock()
        try:
            self._database = open_database(fd)
            self.properties = _read_properties(self._database)
            self.schema_revision = check_schema(self.properties)
            columns = _check_tables(self._database)
            self.root_prefix = os.fsencode(self.properties.get("root_prefix", ""))
            self.nested = dict(self._read_nested(columns))
            (self.max_rowid,) = self._one("SELECT coalesce(max(rowid), 0) FROM catalog", ())
        except sqlite3.Error as error:
            raise FormatError(f"catalog {object_hash}: {error}") from error
        except FormatError as error:
            raise FormatError(f"catalog {object_hash}: {error}") from error
        self._select_list = select_list(columns["catalog"])
        self.columns = columns["catalog"]

    def _read_nested(
        self, columns: dict[str, frozenset[str]]
    ) -> Iterator[tuple[bytes, NestedCatalog]]:
        size = "size" if "size" in columns["nested_catalogs"] else "0"
        query = f"SELECT path, sha1, {size} FROM nested_catalogs"
        if "bind_mountpoints" in columns:
            query += " UNION ALL SELECT path, sha1, size FROM bind_mountpoints"
        for path, text, plain_size in self._database.execute(query):
            if type(path) is not bytes or type(text) is not bytes:
                raise FormatError("a nested catalog's path or hash is not text")
            if not path.startswith(self.root_prefix + b"/"):
                raise FormatError(f"nested catalog at {path!r} is outside of {self.root_prefix!r}")
            shown = self.mountpoint + path[len(self.root_prefix) :]
            content_hash = ContentHash.parse(text.decode("ascii", "replace"))
            known_size = plain_size if type(plain_size) is int and plain_size > 0 else 0
            yield shown, NestedCatalog(shown, content_hash, known_size)

    @property
    def revision(self) -> int:
        """The catalog's own revision number."""
        return self._number("revision", 0)

    @property
    def ttl_seconds(self) -> int:
        """For how long a client may believe in this root catalog."""
        return self._number("TTL", DEFAULT_TTL_SECONDS)

    @property
    def last_modified(self) -> int:
        """When the catalog was written, unix seconds."""
        return self._number("last_modified", 0)

    @property
    def previous(self) -> ContentHash | None:
        """The predecessor of this catalog, where there was one."""
        text = self.properties.get("previous_revision", "")
        found = ContentHash.parse(text) if text else None
        return None if found is None or found.is_null else found

    def _number(self, key: str, default: int) -> int:
        text = self.properties.get(key, "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else default

    @property
    def statistics(self) -> Statistics:
        """The stored counters."""
        return Statistics.from_rows(self.query("SELECT counter, value FROM statistics"))

    def stored_path(self, path: bytes) -> bytes:
        """The path by which this catalog's rows know a path of the tree."""
        return self.root_prefix + path[len(self.mountpoint) :]

    def find(self, path: bytes) -> DirectoryEntry | None:
        """The entry at a path, `None` if this catalog has none there. Raises FormatError."""
        rows = self.query(
            f"SELECT {self._select_list} FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?",
            path_hash(self.stored_path(path)),
        )
        return DirectoryEntry.from_row(rows[0]) if rows else None

    def entries(self, directory: bytes) -> list[DirectoryEntry]:
        """All entries of a directory, by one query, in no order. Raises FormatError."""
        rows = self.query(
            f"SELECT {self._select_list} FROM catalog WHERE parent_1 = ? AND parent_2 = ?",
            path_hash(self.stored_path(directory)),
        )
        return [DirectoryEntry.from_row(row) for row in rows]

    def iter_rows(self, directory: bytes) -> Iterator[tuple[Any, ...]]:
        """The entries of a directory by name, as `DirectoryEntry.from_row` takes them.

        They come as they are needed, however many there are. Raises FormatError.
        """
        sql = (
            f"SELECT {self._select_list} FROM catalog WHERE parent_1 = ? AND parent_2 = ? "
            "ORDER BY name"
        )
        try:
            with self._lock:
                cursor = self._database.execute(sql, path_hash(self.stored_path(directory)))
            while True:
                with self._lock:
                    rows = cursor.fetchmany(_ROWS_AT_ONCE)
                if not rows:
                    return
                yield from rows
        except (sqlite3.Error, OverflowError) as error:
            raise FormatError(f"catalog {self.hash}: {error}") from error

    def chunks(self, path: bytes, algorithm: HashAlgorithm) -> list[Chunk]:
        """The chunks of a file in order; empty for a file that is one object.

        Raises FormatError where they do not follow each other from 0 on.
        """
        rows = self.query(
            "SELECT offset, size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? "
            "ORDER BY offset",
            path_hash(self.stored_path(path)),
        )
        chunks: list[Chunk] = []
        position = 0
        for offset, size, digest in rows:
            if offset != position or type(size) is not int or size <= 0:
                raise FormatError(f"{path!r}: chunk at {offset!r} does not follow at {position}")
            if type(digest) is not bytes:
                raise FormatError(f"{path!r}: chunk at {offset} has no hash")
            chunks.append(Chunk(offset, size, ContentHash(algorithm, digest)))
            position += size
        return chunks

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, text as bytes. Raises FormatError."""
        try:
            with self._lock:
                return self._database.execute(sql, parameters).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise FormatError(f"catalog {self.hash}: {error}") from error

    def _one(self, sql: str, parameters: Sequence[Any]) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._database.execute(sql, parameters).fetchone()
        return row

    @property
    def file_size(self) -> int:
        """Bytes of the uncompressed database file."""
        return os.fstat(self._file.fd).st_size


class _OwnedFile:
    """Keeps a file open (and with it a cache's pin) for as long as the catalog is used."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def _check_tables(database: sqlite3.Connection) -> dict[str, frozenset[str]]:
    """Refuse views, triggers and computed columns: a catalog is data and may run nothing."""
    names = set()
    for kind, name in database.execute("SELECT type, name FROM sqlite_master"):
        if kind not in (b"table", b"index"):
            raise FormatError(f"has a {kind!r}, which no catalog has")
        if kind == b"table":
            names.add(name.decode("ascii", "replace"))
    columns = {}
    for table in (*_TABLES, "statistics", "bind_mountpoints"):
        if table not in names:
            if table in _TABLES:
                raise FormatError(f"has no table {table}")
            continue
        rows = database.execute(f"PRAGMA table_xinfo({table})").fetchall()
        if any(row[6] for row in rows):
            raise FormatError(f"has computed columns in {table}")
        columns[table] = frozenset(row[1].decode("ascii", "replace") for row in rows)
    return columns


def _read_properties(database: sqlite3.Connection) -> dict[str, str]:
    pairs = database.execute("SELECT key, value FROM properties LIMIT 1000")
    return {
        os.fsdecode(key): os.fsdecode(value) if type(value) is bytes else str(value)
        for key, value in pairs
        if type(key) is bytes
    }


class CatalogTree:
    """The catalogs of one revision: the root, and the nested ones as they are needed."""

    def __init__(
        self, opener: ObjectOpener, root: ObjectRef, *, previous: "CatalogTree | None" = None
    ) -> None:
        """Open the root catalog, fetching it if need be. Raises StorageError, FormatError.

        Catalogs that `previous`, the tree of another revision, has open and this one shares are
        taken over.
        """
        self._opener = opener
        self._lock = threading.Lock()
        self._loaded: OrderedDict[bytes, Catalog] = OrderedDict()
        open_before = previous.loaded if previous is not None else ()
        self._known = {(c.hash, c.mountpoint): c for c in open_before}
        self.root = self._open(root, b"")

    def _open(self, ref: ObjectRef, mountpoint: bytes) -> Catalog:
        known = self._known.pop((ref.hash, mountpoint), None)
        if known is not None:
            return known
        fd = self._opener.open_object(ref, pin=True, limit=MAX_CATALOG_BYTES)
        return Catalog(fd, ref.hash, mountpoint)

    def holding(self, path: bytes) -> Catalog:
        """The catalog with the row of `path`; of a nested catalog's mountpoint, the parent."""
        return self._descend(path.rpartition(b"/")[0]) if path else self.root

    def listing(self, directory: bytes) -> Catalog:
        """The catalog with the rows of a directory's entries; of a mountpoint, the child."""
        return self._descend(directory)

    def _descend(self, path: bytes) -> Catalog:
        catalog = self.root
        while catalog.nested:
            mountpoint = _first_mountpoint(catalog, path)
            if mountpoint is None:
                break
            catalog = self._child(catalog, mountpoint)
        return catalog

    def _child(self, parent: Catalog, mountpoint: bytes) -> Catalog:
        with self._lock:
            found = self._loaded.get(mountpoint)
            if found is not None:
                self._loaded.move_to_end(mountpoint)
                return found
        nested = parent.nested[mountpoint]
        ref = ObjectRef(nested.hash, Suffix.CATALOG, size=nested.size or None)
        child = self._open(ref, mountpoint)
        inner = parent.find(mountpoint)
        is_bind = inner is not None and inner.is_bind_mountpoint
        if not is_bind and child.root_prefix != parent.stored_path(mountpoint):
            raise FormatError(
                f"catalog {nested.hash} was made for {child.root_prefix!r}, not {mountpoint!r}"
            )
        with self._lock:
            self._loaded[mountpoint] = child
            while len(self._loaded) > MAX_OPEN_CATALOGS:
                self._loaded.popitem(last=False)
        return child

    @property
    def loaded(self) -> list[Catalog]:
        """The catalogs open now, root first."""
        with self._lock:
            return [self.root, *self._loaded.values()]


def _first_mountpoint(catalog: Catalog, path: bytes) -> bytes | None:
    """The outermost nested catalog of `catalog` at or above `path`."""
    end = len(catalog.mountpoint)
    nested = catalog.nested
    while end < len(path):
        end = path.find(b"/", end + 1)
        if end < 0:
            end = len(path)
        if path[:end] in nested:
            return path[:end]
    return None
