"""Catalog, history and reflog files made in memory, for the simulator."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from outcrop.formats import catalog, history, reflog
from outcrop.formats.catalog import Chunk, DirectoryEntry, NestedCatalog, Statistics
from outcrop.formats.hashes import ContentHash

_INSERT_ENTRY = (
    "INSERT INTO catalog (hardlinks, hash, size, mode, mtime, mtimens, flags, name, symlink, uid, "
    "gid, xattr, md5path_1, md5path_2, parent_1, parent_2) "
    "VALUES (?,?,?,?,?,?,?,CAST(? AS TEXT),CAST(? AS TEXT),?,?,?,?,?,?,?)"
)


def catalog_file(
    entries: Iterable[tuple[bytes, DirectoryEntry, Sequence[Chunk]]],
    *,
    nested: Iterable[NestedCatalog],
    statistics: Statistics,
    properties: Mapping[str, str],
    sabotage: Sequence[str],
) -> bytes:
    """A catalog's plain bytes; the statements of `sabotage` have the last word."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    for statement in ("BEGIN", *catalog.DDL):
        database.execute(statement)
    database.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
    for path, entry, chunks in entries:
        key = catalog.path_hash(path)
        database.execute(_INSERT_ENTRY, (*entry.to_row(), *key, *catalog.parent_hash(path)))
        database.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?)",
            [(*key, chunk.offset, chunk.size, chunk.hash.digest) for chunk in chunks],
        )
    database.executemany(
        "INSERT INTO nested_catalogs VALUES (CAST(? AS TEXT), ?, ?)",
        [(child.path, str(child.hash), child.size) for child in nested],
    )
    database.executemany("INSERT INTO statistics VALUES (?, ?)", statistics.rows())
    for statement in sabotage:
        database.execute(statement)
    return _finish(database)


def history_file(fqrn: str, tags: Iterable[history.Tag], previous: str) -> bytes:
    """A history's plain bytes."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    for statement in ("BEGIN", *history.DDL):
        database.execute(statement)
    properties = {
        "schema": history.SCHEMA,
        "schema_revision": str(history.SCHEMA_REVISION),
        "fqrn": fqrn,
        "previous_revision": previous,
    }
    database.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
    database.executemany(history.INSERT_TAG, [tag.to_row() for tag in tags])
    return _finish(database)


def reflog_file(fqrn: str, refs: Iterable[reflog.Ref]) -> bytes:
    """A reflog's bytes."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    for statement in ("BEGIN", *reflog.DDL):
        database.execute(statement)
    properties = {"schema": "1.0", "schema_revision": "0", "fqrn": fqrn}
    database.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())
    database.executemany(reflog.INSERT_REF, [ref.to_row() for ref in refs])
    return _finish(database)


def null_hash() -> str:
    """What upstream writes where there is no predecessor."""
    return "0" * 40


def hash_or_null(content_hash: ContentHash | None) -> str:
    """The text form of a predecessor."""
    return str(content_hash) if content_hash is not None else null_hash()


def _finish(database: sqlite3.Connection) -> bytes:
    database.execute("COMMIT")
    data = database.serialize()
    database.close()
    return data
