"""The file under a catalog being edited: opened, brought up to date, counted, compacted."""

import sqlite3
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.catalog import (
    COUNTER_NAMES,
    SCHEMA,
    SCHEMA_REVISION,
    Counters,
    Statistics,
    check_schema,
)
from outcrop.repository import catalog_sql as sql

PAGE_BYTES = 1024
"""Upstream's page size. Bigger pages save a tenth of the reading time of huge catalogs and make
the small ones, which most are, three times as large in every client's cache; compressed they are
alike."""

_PAGE_CACHE_KIB = 32 << 10
_MAX_FREE_PAGES = 0.20
_MAX_FREE_ROW_IDS = 0.25


def connect(file: Path, *, new: bool) -> sqlite3.Connection:
    """Open a catalog for editing, inside a transaction."""
    # One thread at a time, but not always the same: sealing is spread over several.
    database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
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
    return database


def upgrade(database: sqlite3.Connection, properties: dict[str, str]) -> bool:
    """Bring a catalog of an older revision up to date, as upstream does (spec 6.1).

    Returns whether anything had to be done. Raises FormatError for what cannot be written to.
    """
    revision = check_schema(properties)
    if properties.get("schema") != SCHEMA:
        raise FormatError(f"has schema {properties.get('schema')}; only {SCHEMA} can be written to")
    if revision >= SCHEMA_REVISION:
        return False
    for table, column, kind in sql.UPGRADE_COLUMNS:
        present = {row[1].decode() for row in database.execute(f"PRAGMA table_info({table})")}
        if column not in present:
            database.execute(f"ALTER TABLE {table} ADD {column} {kind}")
    database.execute(sql.CREATE_BIND_MOUNTPOINTS)
    database.executemany("INSERT OR IGNORE INTO statistics VALUES (?, ?)", Statistics().rows())
    set_properties(database, schema_revision=SCHEMA_REVISION)
    return True


def set_properties(database: sqlite3.Connection, **values: str | int) -> None:
    """Write rows of the `properties` table."""
    rows = [(key, str(value)) for key, value in values.items()]
    database.executemany(sql.UPSERT_PROPERTY, rows)


def count_rows(database: sqlite3.Connection, *, within: str = "") -> Counters:
    """Count a catalog's rows, or only those with a row id in the temporary table `within`."""
    row = database.execute(sql.count_statement(within)).fetchone()
    return Counters(**dict(zip(COUNTER_NAMES, row, strict=True)))


def compact(database: sqlite3.Connection, rows: int) -> None:
    """Give deleted rows' space and numbers back where it is more than upstream tolerates.

    `rows` is how many there are.
    """
    (highest,) = database.execute(sql.SELECT_HIGHEST_ROW_ID).fetchone()
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    (free,) = database.execute("PRAGMA freelist_count").fetchone()
    if free <= _MAX_FREE_PAGES * pages and highest - rows <= _MAX_FREE_ROW_IDS * highest:
        return
    for statement in sql.COMPACT:
        database.execute(statement)
