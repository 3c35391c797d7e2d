"""One catalog being edited: an SQLite file in a scratch directory, thrown away if all fails.

Statements only; which path belongs to which catalog is `repository.editor`'s knowledge. Rows are
written with upserts so that an entry that stays keeps its row id (clients make inodes of them).
The counters of the catalog's own rows are not kept up to date while editing but counted once, when
it is sealed: that is exact whatever happened, and far cheaper than compressing the result.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from outcrop.errors import FormatError
from outcrop.formats.catalog import (
    COUNTER_NAMES,
    DDL,
    SCHEMA,
    SCHEMA_REVISION,
    Chunk,
    Counters,
    DirectoryEntry,
    EntryFlags,
    NestedCatalog,
    Statistics,
    check_schema,
    parent_hash,
    path_hash,
)
from outcrop.formats.hashes import ContentHash
from outcrop.repository import catalog_sql as sql

Edit = tuple[DirectoryEntry, Sequence[Chunk]]
"""An entry to be written, with its chunks (none but for chunked files)."""

PAGE_BYTES = 1024
"""Upstream's page size. Bigger pages save a tenth of the reading time of huge catalogs and make
the small ones, which most are, three times as large in every client's cache; compressed they are
alike."""

_PAGE_CACHE_KIB = 32 << 10
_NULL_HASH_TEXT = "0" * 40


class WorkingCatalog:
    """A writable catalog mounted at `mountpoint`.

    `base` is the object it was opened from (`None` for a new one) and `base_total` what the
    parent's subtree counters account for it. `nested` are its children by mountpoint; a child
    that has no object yet is there with `None`. The editor changes `nested` and `subtree`.
    """

    def __init__(self, file: Path, mountpoint: bytes, base: ContentHash | None) -> None:
        self.mountpoint = mountpoint
        self.base = base
        self.file = file
        self.is_dirty = False
        self.nested: dict[bytes, NestedCatalog | None] = {}
        self.subtree = Counters()
        self.base_total = Counters()
        self._connection: sqlite3.Connection | None = None
        self._highest_group: int | None = None

    @classmethod
    def create(cls, file: Path, mountpoint: bytes, *, now: int) -> Self:
        """Make an empty catalog of revision 0; its root entry has to be put in."""
        catalog = cls(file, mountpoint, None)
        database = catalog._open(new=True)
        for statement in DDL:
            database.execute(statement)
        catalog._set_properties(
            schema=SCHEMA, schema_revision=SCHEMA_REVISION, revision=0, last_modified=now
        )
        if mountpoint:
            database.execute(sql.INSERT_ROOT_PREFIX, (mountpoint,))
        catalog.is_dirty = True
        return catalog

    @classmethod
    def open(cls, file: Path, mountpoint: bytes, base: ContentHash) -> Self:
        """Take over a plain catalog file. Raises FormatError for what cannot be written to."""
        catalog = cls(file, mountpoint, base)
        try:
            catalog._upgrade()
            catalog._load()
        except sqlite3.Error as error:
            raise FormatError(f"catalog {base}: {error}") from error
        return catalog

    @property
    def database(self) -> sqlite3.Connection:
        """The open file, inside a transaction."""
        return self._connection if self._connection is not None else self._open()

    @property
    def is_open(self) -> bool:
        """Whether it holds a file descriptor now."""
        return self._connection is not None

    def close(self) -> None:
        """Put everything into the file and let go of it; it opens again when needed."""
        if self._connection is not None:
            self._connection.execute("COMMIT")
            self._connection.close()
            self._connection = None

    def discard(self) -> None:
        """Let go of the file and delete it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.file.unlink(missing_ok=True)

    def _open(self, *, new: bool = False) -> sqlite3.Connection:
        # One thread at a time, but not always the same: sealing is spread over several.
        database = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False)
        database.text_factory = bytes
        if new:
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        for pragma in (
            "journal_mode = OFF",  # scratch: a crash throws it away
            "synchronous = OFF",
            "locking_mode = EXCLUSIVE",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
            f"cache_size = -{_PAGE_CACHE_KIB}",
        ):
            database.execute(f"PRAGMA {pragma}")
        database.execute("BEGIN")
        self._connection = database
        return database

    def _upgrade(self) -> None:
        """Bring a catalog of an older revision up to date, as upstream does (spec 6.1)."""
        database = self.database
        revision = check_schema(self.properties)
        if self.properties.get("schema") != SCHEMA:
            raise FormatError(
                f"catalog {self.base} has schema {self.properties.get('schema')}; "
                f"only {SCHEMA} can be written to"
            )
        if revision >= SCHEMA_REVISION:
            return
        for table, column, kind in sql.UPGRADE_COLUMNS:
            present = {row[1].decode() for row in database.execute(f"PRAGMA table_info({table})")}
            if column not in present:
                database.execute(f"ALTER TABLE {table} ADD {column} {kind}")
        database.execute(sql.CREATE_BIND_MOUNTPOINTS)
        database.executemany("INSERT OR IGNORE INTO statistics VALUES (?, ?)", Statistics().rows())
        self._set_properties(schema_revision=SCHEMA_REVISION)

    def _load(self) -> None:
        statistics = self.statistics
        self.subtree = statistics.subtree
        self.base_total = statistics.total
        for path, text, size in self.database.execute(sql.SELECT_NESTED):
            content_hash = ContentHash.parse(text.decode("ascii", "replace"))
            self.nested[path] = NestedCatalog(path, content_hash, size or 0)

    @property
    def properties(self) -> dict[str, str]:
        """The `properties` table."""
        pairs = self.database.execute("SELECT key, value FROM properties")
        return {key.decode(): _text(value) for key, value in pairs}

    @property
    def statistics(self) -> Statistics:
        """The counters as the file has them, so those of the last sealing."""
        rows = self.database.execute("SELECT counter, value FROM statistics")
        return Statistics.from_rows(rows)

    def _set_properties(self, **values: str | int) -> None:
        self.database.executemany(
            sql.UPSERT_PROPERTY,
            [(key, str(value)) for key, value in values.items()],
        )

    # --- reading ---

    def find(self, path: bytes) -> DirectoryEntry | None:
        """The row of a path."""
        row = self.database.execute(sql.SELECT_ENTRY, path_hash(path)).fetchone()
        return None if row is None else DirectoryEntry.from_row(row)

    def entries(self, directory: bytes) -> list[DirectoryEntry]:
        """The rows of everything directly in a directory."""
        rows = self.database.execute(sql.SELECT_ENTRIES, path_hash(directory))
        return [DirectoryEntry.from_row(row) for row in rows]

    def is_empty(self, directory: bytes) -> bool:
        """Whether there is no row below a directory."""
        found = self.database.execute(sql.SELECT_ANY_ENTRY, path_hash(directory))
        return found.fetchone() is None

    def chunks(self, path: bytes, entry: DirectoryEntry) -> list[Chunk]:
        """The chunks of a file, by offset."""
        rows = self.database.execute(sql.SELECT_CHUNKS, path_hash(path))
        return [Chunk(o, s, ContentHash(entry.algorithm, bytes(digest))) for o, s, digest in rows]

    # --- editing ---

    def put(
        self,
        directory: bytes,
        edits: Iterable[Edit],
        *,
        before_replacing: Callable[[bytes], None],
    ) -> None:
        """Write the rows of entries of one directory; what had their names is replaced.

        Entries with the same `hardlink_group` (not 0; numbered by the caller, for this call only)
        become one group. Where an entry replaces a directory, `before_replacing` is told its path
        to empty it.
        """
        self.is_dirty = True
        parent = path_hash(directory)
        fresh = self.is_empty(directory)
        groups: dict[int, int] = {}
        rows: list[tuple[Any, ...]] = []
        chunk_rows: list[tuple[Any, ...]] = []
        for entry, chunks in edits:
            path = directory + b"/" + entry.name
            key = path_hash(path)
            if not fresh and self._release(key, parent):
                before_replacing(path)
            row = entry.to_row()
            if entry.hardlink_group:
                group = groups.get(entry.hardlink_group) or self._new_group()
                groups[entry.hardlink_group] = group
                row = (group << 32 | entry.nlink, *row[1:])
            rows.append((*key, *parent, *row))
            chunk_rows += [(*key, c.offset, c.size, c.hash.digest) for c in chunks]
        self.database.executemany(sql.UPSERT_ENTRY, rows)
        if chunk_rows:
            self.database.executemany(sql.INSERT_CHUNK, chunk_rows)

    def put_at(self, path: bytes, entry: DirectoryEntry) -> None:
        """Write one row that is neither chunked nor hard linked, also the catalog's root."""
        self.is_dirty = True
        key, parent = path_hash(path), parent_hash(path)
        self._release(key, parent)
        self.database.execute(sql.UPSERT_ENTRY, (*key, *parent, *entry.to_row()))

    def remove(self, path: bytes) -> None:
        """Delete one row (and its chunks), if it is there."""
        self.is_dirty = True
        key = path_hash(path)
        self._release(key, parent_hash(path))
        self.database.execute(sql.DELETE_ENTRY, key)

    def remove_below(self, directory: bytes) -> None:
        """Delete the rows of everything below a directory, as far as they are in this catalog."""
        self.is_dirty = True
        self._select_below(directory)
        self._delete_moved()

    def add_links(self, directory: bytes, delta: int) -> None:
        """Change the link count of a directory's row, if it is in this catalog."""
        self.is_dirty = True
        self.database.execute(sql.ADD_LINKS, (delta, *path_hash(directory)))

    def _release(self, key: tuple[int, int], parent: tuple[int, int]) -> bool:
        """Undo what a row means to other rows: its chunks, the count of its hard link group.

        Returns whether it is a directory's.
        """
        row = self.database.execute(sql.SELECT_LINKS, key).fetchone()
        if row is None:
            return False
        hardlinks, flags = row
        if flags & EntryFlags.DIRECTORY.value:
            return True
        if flags & EntryFlags.CHUNKED.value:
            self.database.execute(sql.DELETE_CHUNKS, key)
        if hardlinks >> 32:
            left = (hardlinks & 0xFFFFFFFF) - 1
            self.database.execute(
                sql.SET_GROUP_LINKS,
                (hardlinks - 1 if left > 1 else 1, *parent, hardlinks, *key),
            )
        return False

    def _new_group(self) -> int:
        if self._highest_group is None:
            found = self.database.execute(sql.SELECT_HIGHEST_LINKS)
            self._highest_group = found.fetchone()[0] >> 32
        self._highest_group += 1
        return self._highest_group

    def _select_below(self, directory: bytes) -> None:
        a, b = path_hash(directory)
        for statement in sql.SELECT_BELOW:
            self.database.execute(statement, {"a": a, "b": b})

    def _delete_moved(self) -> None:
        for statement in sql.DELETE_MOVED:
            self.database.execute(statement)

    def move_below(self, directory: bytes, target: "WorkingCatalog") -> None:
        """Move the rows of everything below a directory into another catalog."""
        self.is_dirty = target.is_dirty = True
        shift = target._groups_to_shift() << 32  # noqa: SLF001 - the same class
        target.close()
        self._select_below(directory)
        database = self.database
        database.execute("COMMIT")  # a database cannot be attached within a transaction
        database.execute("ATTACH ? AS target", (str(target.file),))
        database.execute("PRAGMA target.journal_mode = OFF")
        database.execute("PRAGMA target.synchronous = OFF")
        database.execute("BEGIN")
        for statement in sql.COPY_MOVED:
            database.execute(statement, {"shift": shift})
        self._delete_moved()
        database.execute("COMMIT")
        database.execute("DETACH target")
        database.execute("BEGIN")

    def _groups_to_shift(self) -> int:
        """Make room for foreign hard link groups: by how much their numbers must grow."""
        shift = self._new_group() - 1
        self._highest_group = None
        return shift

    # --- sealing ---

    def seal(self, *, now: int, ttl: int | None = None) -> Statistics:
        """Make it the next revision of itself: counters, properties, compaction; then close.

        `ttl` is for a root catalog only. Every nested catalog must have its object by now.
        """
        self._set_properties(
            revision=int(self.properties.get("revision", "0")) + 1,
            last_modified=now,
            previous_revision=str(self.base) if self.base is not None else _NULL_HASH_TEXT,
        )
        if ttl is not None:
            self._set_properties(TTL=ttl)
        return self.finish()

    def finish(self) -> Statistics:
        """Write the counters and the nested catalogs' rows, compact if worth it, close."""
        self._store_nested()
        row = self.database.execute(sql.COUNT).fetchone()
        counted = Counters(**dict(zip(COUNTER_NAMES, row, strict=True)))
        statistics = Statistics(counted, self.subtree)
        self.database.executemany(sql.UPSERT_COUNTER, statistics.rows())
        self._compact()
        self.close()
        return statistics

    def _store_nested(self) -> None:
        rows = [(n.path, str(n.hash), n.size) for n in self.nested.values() if n is not None]
        self.database.execute(sql.DELETE_NESTED)
        self.database.executemany(sql.INSERT_NESTED, rows)

    def _compact(self) -> None:
        """Give deleted rows' space and numbers back where it is more than upstream tolerates."""
        database = self.database
        count, highest = database.execute(sql.SELECT_ROW_IDS).fetchone()
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        if free <= 0.20 * pages and highest - count <= 0.25 * highest:
            return
        for statement in sql.COMPACT:
            database.execute(statement)


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
