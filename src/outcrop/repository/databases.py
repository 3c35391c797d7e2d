"""Opening SQLite files that came from outside: read-only, and with nothing in them executed."""

import os
import sqlite3
import tempfile

_MAX_VALUE_BYTES = 16 << 20
_PAGE_CACHE_KIB = 512


def open_database(fd: int) -> sqlite3.Connection:
    """Open the plain database file behind a descriptor; text comes as bytes.

    The connection may be used from several threads, one at a time. Raises sqlite3.Error.
    """
    if os.fstat(fd).st_nlink:
        return _connect(f"/proc/self/fd/{fd}")
    # SQLite opens by name only, and a file without one (no cache, or a cache wiped meanwhile)
    # has none: give it one for a moment.
    with tempfile.NamedTemporaryFile(prefix="outcrop-") as named:
        position = 0
        while count := os.sendfile(named.fileno(), fd, position, 1 << 30):
            position += count
        return _connect(named.name)


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(
        f"file:{path}?mode=ro&immutable=1",
        uri=True,
        check_same_thread=False,
        isolation_level=None,
    )
    database.text_factory = bytes
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    try:
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "query_only=ON"):
            database.execute(f"PRAGMA {pragma}")
        database.execute(f"PRAGMA cache_size=-{_PAGE_CACHE_KIB}")
    except UnicodeDecodeError as error:  # SQLite's complaint quotes the damaged schema
        raise sqlite3.DatabaseError("malformed database schema") from error
    return database
