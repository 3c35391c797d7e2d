"""One catalog being edited: an SQLite file in a scratch directory, thrown away if all fails.

Statements only; which path belongs to which catalog is `repository.editor`'s knowledge. Rows are
written with upserts so that an entry that stays keeps its row id (clients make inodes of them).
The counters of the catalog's own rows follow every edit, so sealing costs what changed.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from outcrop.errors import FormatError
from outcrop.formats.catalog import (
    DDL,
    SCHEMA,
    SCHEMA_REVISION,
    Chunk,
    Counters,
    DirectoryEntry,
    EntryFlags,
    NestedCatalog,
    Statistics,
    parent_hash,
    path_hash,
)
from outcrop.formats.hashes import ContentHash
from outcrop.repository import catalog_sql as sql
from outcrop.repository.catalog_files import compact, connect, count_rows, set_properties, upgrade
from outcrop.repository.tally import Tally

Edit = tuple[DirectoryEntry, Sequence[Chunk]]
"""An entry to be written, with its chunks (none but for chunked files)."""

Key = tuple[int, int]
Outline = tuple[dict[Key, list[tuple[Key, bytes, bool]]], dict[Key, int]]
"""See `WorkingCatalog.outline`."""

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
        self._tally = Tally(Counters())
        self._connection: sqlite3.Connection | None = None
        self._highest_group: int | None = None

    @classmethod
    def create(cls, file: Path, mountpoint: bytes, *, now: int) -> Self:
        """Make an empty catalog of revision 0; its root entry has to be put in."""
        catalog = cls(file, mountpoint, None)
        catalog._connection = database = connect(file, new=True)
        for statement in DDL:
            database.execute(statement)
        properties = {"schema_revision": SCHEMA_REVISION, "revision": 0, "last_modified": now}
        catalog.set_properties(schema=SCHEMA, **properties)
        if mountpoint:
            database.execute(sql.INSERT_ROOT_PREFIX, (mountpoint,))
        catalog.is_dirty = True
        return catalog

    @classmethod
    def open(cls, file: Path, mountpoint: bytes, base: ContentHash) -> Self:
        """Take over a plain catalog file. Raises FormatError for what cannot be written to."""
        catalog = cls(file, mountpoint, base)
        try:
            catalog._load()
        except (sqlite3.Error, FormatError) as error:
            raise FormatError(f"catalog {base}: {error}") from error
        return catalog

    @property
    def database(self) -> sqlite3.Connection:
        """The open file, inside a transaction."""
        if self._connection is None:
            self._connection = connect(self.file, new=False)
        return self._connection

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

    def _load(self) -> None:
        was_older = upgrade(self.database, self.properties)
        statistics = self.statistics
        own = count_rows(self.database) if was_older else statistics.self_
        self._tally = Tally(own)
        self.subtree = statistics.subtree
        self.base_total = statistics.total
        self.nested.update(_nested_of(self.database.execute(sql.SELECT_NESTED)))

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

    def set_properties(self, **values: str | int) -> None:
        """Write rows of the `properties` table."""
        set_properties(self.database, **values)

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

    @property
    def root_key(self) -> Key:
        """The key of its root's row."""
        return path_hash(self.mountpoint)

    @property
    def own_entries(self) -> int:
        """How many rows it has."""
        return self._tally.counters(0).entries

    def directories(self, directory: bytes) -> list[tuple[bytes, bool]]:
        """The names of a directory's subdirectories; whether each has a catalog of its own."""
        rows = self.database.execute(sql.SELECT_DIRECTORIES, path_hash(directory))
        return [(bytes(name), bool(is_mountpoint)) for name, is_mountpoint in rows]

    def outline(self) -> Outline:
        """All directories by their parent's key, and the number of other entries in each."""
        children: dict[Key, list[tuple[Key, bytes, bool]]] = {}
        for a, b, parent_a, parent_b, name, is_mountpoint in self.database.execute(sql.OUTLINE):
            child = ((a, b), bytes(name), bool(is_mountpoint))
            children.setdefault((parent_a, parent_b), []).append(child)
        files = {(a, b): number for a, b, number in self.database.execute(sql.COUNT_FILES)}
        return children, files

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
        for entry, chunks in {edit[0].name: edit for edit in edits}.values():
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
            self._count(row, len(chunks))
            chunk_rows += [(*key, c.offset, c.size, c.hash.digest) for c in chunks]
        self.database.executemany(sql.UPSERT_ENTRY, rows)
        if chunk_rows:
            self.database.executemany(sql.INSERT_CHUNK, chunk_rows)

    def put_at(self, path: bytes, entry: DirectoryEntry) -> None:
        """Write one row that is neither chunked nor hard linked, also the catalog's root."""
        self.is_dirty = True
        key, parent = path_hash(path), parent_hash(path)
        self._release(key, parent)
        row = entry.to_row()
        self._count(row, 0)
        self.database.execute(sql.UPSERT_ENTRY, (*key, *parent, *row))

    def rename(self, path: bytes, new_path: bytes) -> None:
        """Give a row that is no directory's another name in the same directory."""
        self.is_dirty = True
        old, new = path_hash(path), path_hash(new_path)
        self.database.execute(sql.RENAME_ENTRY, (*new, new_path.rpartition(b"/")[2], *old))
        self.database.execute(sql.RENAME_CHUNKS, (*new, *old))

    def remove(self, path: bytes) -> None:
        """Delete one row (and its chunks), if it is there."""
        self.is_dirty = True
        key = path_hash(path)
        self._release(key, parent_hash(path))
        self.database.execute(sql.DELETE_ENTRY, key)

    def remove_below(self, directory: bytes) -> None:
        """Delete the rows of everything below a directory, as far as they are in this catalog."""
        self.is_dirty = True
        self.select_below(directory)
        self._delete_moved()

    def add_links(self, directory: bytes, delta: int) -> None:
        """Change the link count of a directory's row, if it is in this catalog."""
        self.is_dirty = True
        self.database.execute(sql.ADD_LINKS, (delta, *path_hash(directory)))

    def _count(self, row: tuple[Any, ...], chunks: int) -> None:
        """Count a row, given as the values of `COLUMNS`, that is about to be written."""
        self._tally.add_row(1, row[3], row[2], row[6], has_xattr=row[11] is not None, chunks=chunks)

    def _release(self, key: Key, parent: Key) -> bool:
        """Undo what a row means to other rows: its chunks, the count of its hard link group.

        Returns whether it is a directory's.
        """
        row = self.database.execute(sql.SELECT_OLD, key).fetchone()
        if row is None:
            return False
        hardlinks, flags, mode, size, has_xattr = row
        chunks = 0
        is_directory = bool(flags & EntryFlags.DIRECTORY.value)
        if not is_directory and flags & EntryFlags.CHUNKED.value:
            chunks = self.database.execute(sql.DELETE_CHUNKS, key).rowcount
        self._tally.add_row(-1, mode, size, flags, has_xattr=bool(has_xattr), chunks=chunks)
        if hardlinks >> 32 and not is_directory:
            left = (hardlinks & 0xFFFFFFFF) - 1
            self.database.execute(
                sql.SET_GROUP_LINKS,
                (hardlinks - 1 if left > 1 else 1, *parent, hardlinks, *key),
            )
        return is_directory

    def _new_group(self) -> int:
        if self._highest_group is None:
            found = self.database.execute(sql.SELECT_HIGHEST_LINKS)
            self._highest_group = found.fetchone()[0] >> 32
        self._highest_group += 1
        return self._highest_group

    def select_below(self, directory: bytes) -> None:
        """Put the keys of the rows below a directory into the temporary table `moved`."""
        a, b = path_hash(directory)
        for statement in sql.SELECT_BELOW:
            self.database.execute(statement, {"a": a, "b": b})

    def _delete_moved(self) -> Counters:
        """Delete these rows; returns what they count."""
        gone = count_rows(self.database, within="moved")
        self._tally.add(gone, -1)
        for statement in sql.DELETE_MOVED:
            self.database.execute(statement)
        return gone

    def move_below(self, directory: bytes, target: "WorkingCatalog") -> None:
        """Move the rows of everything below a directory into another catalog."""
        self.is_dirty = target.is_dirty = True
        shift = target.groups_to_shift()
        self.select_below(directory)
        with self.attached(target):
            for statement in sql.COPY_MOVED:
                self.database.execute(statement, {"shift": shift})
        target.add_counters(self._delete_moved())

    @contextmanager
    def attached(self, target: "WorkingCatalog") -> Iterator[None]:
        """Have another catalog's file as the database `target` of this one's, to write there."""
        target.close()
        database = self.database
        database.execute("COMMIT")  # a database cannot be attached within a transaction
        database.execute("ATTACH ? AS target", (str(target.file),))
        database.execute("PRAGMA target.journal_mode = OFF")
        database.execute("PRAGMA target.synchronous = OFF")
        database.execute("BEGIN")
        yield
        database.execute("COMMIT")
        database.execute("DETACH target")
        database.execute("BEGIN")

    def groups_to_shift(self) -> int:
        """Make room for foreign hard link groups: what to add to their `hardlinks`."""
        shift = self._new_group() - 1
        self._highest_group = None
        return shift << 32

    def add_counters(self, counters: Counters) -> None:
        """Count rows that were written past this object."""
        self._tally.add(counters)
        self.is_dirty = True

    # --- bind mountpoints ---

    def bindings(self) -> dict[bytes, NestedCatalog]:
        """The root catalogs that are shown somewhere in it, by mountpoint."""
        return dict(_nested_of(self.database.execute(sql.SELECT_BINDINGS)))

    def bind(self, bound: NestedCatalog) -> None:
        """Note which root catalog a mountpoint shows; its row is put separately."""
        self.is_dirty = True
        row = (bound.path, str(bound.hash), bound.size)
        self.database.execute(sql.INSERT_BINDING, row)

    def unbind(self, path: bytes) -> None:
        """Forget what a mountpoint shows."""
        self.is_dirty = True
        self.database.execute(sql.DELETE_BINDING, (path,))

    # --- sealing ---

    def seal(self, *, now: int, ttl: int | None = None) -> Statistics:
        """Make it the next revision of itself: counters, properties, compaction; then close.

        `ttl` is for a root catalog only. Every nested catalog must have its object by now.
        """
        self.set_properties(
            revision=int(self.properties.get("revision", "0")) + 1,
            last_modified=now,
            previous_revision=str(self.base) if self.base is not None else _NULL_HASH_TEXT,
        )
        if ttl is not None:
            self.set_properties(TTL=ttl)
        return self.finish()

    def finish(self) -> Statistics:
        """Write the counters and the nested catalogs' rows, compact if worth it, close."""
        self._store_nested()
        statistics = Statistics(self._tally.counters(len(self.nested)), self.subtree)
        self.database.executemany(sql.UPSERT_COUNTER, statistics.rows())
        compact(self.database, statistics.self_.entries)
        self.close()
        return statistics

    def recount(self) -> Statistics:
        """Count the rows anew, whatever the counters in the file say."""
        self._tally = Tally(count_rows(self.database))
        return Statistics(self._tally.counters(len(self.nested)), self.subtree)

    def _store_nested(self) -> None:
        rows = [(n.path, str(n.hash), n.size) for n in self.nested.values() if n is not None]
        self.database.execute(sql.DELETE_NESTED)
        self.database.executemany(sql.INSERT_NESTED, rows)


def _nested_of(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[bytes, NestedCatalog]]:
    for path, text, size in rows:
        content_hash = ContentHash.parse(text.decode("ascii", "replace"))
        yield path, NestedCatalog(path, content_hash, size or 0)


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
