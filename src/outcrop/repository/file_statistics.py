"""A database of what the files of a revision are made of, as `cvmfs_swissknife filestats` makes it.

Tables: `catalogs`, `files`, `objects` (hash, plain size), which file is made of which objects, and
the lengths of all `symlinks`. An object that several files share is there once.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from outcrop.formats.hashes import ContentHash
from outcrop.repository.catalogs import Catalog
from outcrop.repository.reachable import CatalogReader, nested_catalogs

_SCHEMA: Final = """
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
INSERT INTO properties VALUES ('schema', '1'), ('schema_revision', '1');
CREATE TABLE catalogs (catalog_id INTEGER PRIMARY KEY, num_entries INTEGER, file_size INTEGER);
CREATE TABLE objects (object_id INTEGER PRIMARY KEY, hash BLOB, size INTEGER);
CREATE INDEX idx_object_hash ON objects (hash);
CREATE TABLE files (file_id INTEGER PRIMARY KEY, catalog_id INTEGER,
  FOREIGN KEY (catalog_id) REFERENCES catalogs (catalog_id));
CREATE TABLE files_objects (file_id INTEGER, object_id INTEGER,
  FOREIGN KEY (file_id) REFERENCES files (file_id),
  FOREIGN KEY (object_id) REFERENCES objects (object_id));
CREATE INDEX idx_file_id ON files_objects (file_id);
CREATE INDEX idx_object_id ON files_objects (object_id);
CREATE TABLE symlinks (length INTEGER);
"""

# Flags: 4 file, 8 symlink, 16 special, 64 chunked.
_FILES: Final = (
    "SELECT rowid, hash, size FROM catalog WHERE rowid > ? AND flags & 92 = 4 ORDER BY rowid"
)
_SYMLINKS: Final = (
    "SELECT rowid, length(CAST(symlink AS BLOB)) FROM catalog WHERE rowid > ? AND flags & 8 "
    "ORDER BY rowid"
)
_CHUNKS: Final = (
    "SELECT c.rowid, c.md5path_1, c.md5path_2, c.hash, c.size FROM chunks c "
    "WHERE c.rowid > ? ORDER BY c.rowid"
)
_BATCH: Final = 10_000


def write_file_statistics(
    reader: CatalogReader,
    root: ContentHash,
    file: Path,
    *,
    progress: Callable[[str, int, int | None], None],
) -> int:
    """Make the database of a revision, replacing what is at `file`. Returns how many catalogs.

    Raises StorageError, FormatError, OSError, sqlite3.Error.
    """
    file.unlink(missing_ok=True)
    count = 0
    waiting = [root]
    seen = {root}
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.executescript(_SCHEMA)
        while waiting:
            with reader.open(waiting.pop()) as catalog:
                database.execute("BEGIN")
                _add_catalog(database, catalog)
                database.execute("COMMIT")
                found = [one for one in nested_catalogs(catalog) if one not in seen]
            seen.update(found)
            waiting += found
            count += 1
            progress("catalogs", count, None)
    return count


def _add_catalog(database: sqlite3.Connection, catalog: Catalog) -> None:
    ((entries,),) = catalog.query("SELECT count(*) FROM catalog")
    catalog_id = database.execute(
        "INSERT INTO catalogs (num_entries, file_size) VALUES (?, ?)", (entries, catalog.file_size)
    ).lastrowid
    chunked: dict[tuple[int, int], int] = {}
    for query in (_FILES, _SYMLINKS, _CHUNKS):
        position = -(1 << 63)
        while rows := catalog.query(f"{query} LIMIT {_BATCH}", (position,)):
            position = rows[-1][0]
            if query is _SYMLINKS:
                lengths = [(row[1],) for row in rows]
                database.executemany("INSERT INTO symlinks (length) VALUES (?)", lengths)
                continue
            for row in rows:
                if query is _FILES:
                    file_id = _new_file(database, catalog_id)
                elif (found := chunked.get((row[1], row[2]))) is not None:
                    file_id = found
                else:
                    file_id = chunked[row[1], row[2]] = _new_file(database, catalog_id)
                _add_object(database, file_id, row[-2], row[-1])


def _new_file(database: sqlite3.Connection, catalog_id: int | None) -> int:
    made = database.execute("INSERT INTO files (catalog_id) VALUES (?)", (catalog_id,)).lastrowid
    return made or 0


def _add_object(database: sqlite3.Connection, file_id: int, digest: object, size: object) -> None:
    found = database.execute("SELECT object_id FROM objects WHERE hash = ?", (digest,)).fetchone()
    object_id = (
        found[0]
        if found is not None
        else database.execute(
            "INSERT INTO objects (hash, size) VALUES (?, ?)", (digest, size)
        ).lastrowid
    )
    database.execute("INSERT INTO files_objects VALUES (?, ?)", (file_id, object_id))
