"""The statistics database of a repository (spec 31): a row for each publish and each collection.

It is upstream's file, so its tools and ours may take turns. It is a help to people and nothing
depends on it: what goes wrong here is told as a warning.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from outcrop.errors import FormatError

SCHEMA: Final = "1.0"
SCHEMA_REVISION: Final = 4
TABLES: Final = {"publish": "publish_statistics", "gc": "gc_statistics"}
MAX_ROWS: Final = 1_000_000
_BUSY_SECONDS: Final = 5.0
_TIME: Final = "%Y-%m-%d %H:%M:%S"

_PUBLISH_COLUMNS: Final = (
    "revision", "files_added", "files_removed", "files_changed", "chunks_added",
    "chunks_duplicated", "catalogs_added", "directories_added", "directories_removed",
    "directories_changed", "symlinks_added", "symlinks_removed", "symlinks_changed",
    "sz_bytes_added", "sz_bytes_removed", "sz_bytes_uploaded", "sz_catalog_bytes_uploaded",
)  # fmt: skip
_GC_COLUMNS: Final = (
    "n_preserved_catalogs", "n_condemned_catalogs", "n_condemned_objects", "sz_condemned_bytes",
    "n_duplicate_delete_requests",
)  # fmt: skip
_COLUMNS: Final = {"publish": _PUBLISH_COLUMNS, "gc": _GC_COLUMNS}


@dataclass(slots=True, kw_only=True)
class PublishStatistics:
    """What a publish changed, in upstream's words. `sz_…` are bytes."""

    revision: int = 0
    files_added: int = 0
    files_removed: int = 0
    files_changed: int = 0
    chunks_added: int = 0
    chunks_duplicated: int = 0
    catalogs_added: int = 0
    directories_added: int = 0
    directories_removed: int = 0
    directories_changed: int = 0
    symlinks_added: int = 0
    symlinks_removed: int = 0
    symlinks_changed: int = 0
    sz_bytes_added: int = 0
    sz_bytes_removed: int = 0
    sz_bytes_uploaded: int = 0
    sz_catalog_bytes_uploaded: int = 0

    def count_entries(self, what: str, by_kind: Mapping[str, int]) -> None:
        """Take over how many files, directories and symlinks were `added`, `removed`, `changed`."""
        for kind in ("files", "directories", "symlinks"):
            setattr(self, f"{kind}_{what}", by_kind.get(kind, 0))


@dataclass(slots=True, kw_only=True)
class GarbageStatistics:
    """What a collection deleted. `sz_condemned_bytes` is `None` where nobody measured."""

    n_preserved_catalogs: int = 0
    n_condemned_catalogs: int = 0
    n_condemned_objects: int = 0
    sz_condemned_bytes: int | None = None
    n_duplicate_delete_requests: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one table as they are, oldest first; values are text, numbers or `None`."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def record(
    file: Path,
    fqrn: str,
    statistics: PublishStatistics | GarbageStatistics,
    *,
    started_at: int,
    finished_at: int,
    is_success: bool,
    days_to_keep: int = 0,
) -> None:
    """Add a row, making the database where it is missing; rows older than so many days go.

    0 days keep all. Raises sqlite3.Error, OSError, FormatError.
    """
    kind = "publish" if isinstance(statistics, PublishStatistics) else "gc"
    values = {
        "start_time": _text_of(started_at),
        "finish_time": _text_of(finished_at),
        **asdict(statistics),
        "success": int(is_success),
    }
    with _open(file, fqrn) as database:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        database.execute(
            f"INSERT INTO {TABLES[kind]} ({names}) VALUES ({marks})", tuple(values.values())
        )
        if days_to_keep:
            oldest = _text_of(max(finished_at - days_to_keep * 86400, 0))
            for table in TABLES.values():
                database.execute(f"DELETE FROM {table} WHERE start_time < ?", (oldest,))


def read_table(file: Path, kind: str) -> Table:
    """All rows of `publish` or `gc`. Raises FormatError; FileNotFoundError for no database."""
    with closing(_connect_existing(file)) as database:
        try:
            cursor = database.execute(f"SELECT * FROM {TABLES[kind]} ORDER BY 1 LIMIT {MAX_ROWS}")
            columns = tuple(column[0] for column in cursor.description)
            return Table(columns, cursor.fetchall())
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise FormatError(f"{file}: not a statistics database: {error}") from error


def serialize(file: Path) -> bytes:
    """The database as one consistent piece. Raises FormatError, FileNotFoundError."""
    with closing(_connect_existing(file)) as database:
        try:
            return bytes(database.serialize())
        except sqlite3.Error as error:
            raise FormatError(f"{file}: not a statistics database: {error}") from error


def merge(files: Iterable[Path], merged: Path) -> int:
    """Put the rows of several databases of one repository into a new one; how many there are.

    Rows that several have are taken once. Raises FormatError, OSError, sqlite3.Error.
    """
    sources = list(files)
    names = {_repository_of(file) for file in sources}
    if len(names) != 1:
        raise FormatError(f"statistics of different repositories: {', '.join(sorted(names))}")
    if merged.exists():
        raise FileExistsError(17, "File exists", str(merged))
    total = 0
    with _open(merged, names.pop()) as database:
        for kind, table in TABLES.items():
            columns = ("start_time", "finish_time", *_COLUMNS[kind], "success")
            found = (row for file in sources for row in _rows_of(file, kind, columns))
            rows = sorted(dict.fromkeys(found), key=lambda row: str(row[0]))
            database.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) "
                f"VALUES ({', '.join('?' * len(columns))})",
                rows,
            )
            total += len(rows)
    return total


def _rows_of(file: Path, kind: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    table = read_table(file, kind)
    places = [table.columns.index(name) if name in table.columns else None for name in columns]
    for row in table.rows:
        yield tuple(None if place is None else row[place] for place in places)


def _repository_of(file: Path) -> str:
    with closing(_connect_existing(file)) as database:
        try:
            row = database.execute("SELECT value FROM properties WHERE key='repo_name'").fetchone()
        except sqlite3.Error as error:
            raise FormatError(f"{file}: not a statistics database: {error}") from error
    return str(row[0]) if row is not None else ""


def _connect_existing(file: Path) -> sqlite3.Connection:
    with file.open("rb"):  # an error that names the file, and never a new one
        return sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=_BUSY_SECONDS)


@contextmanager
def _open(file: Path, fqrn: str) -> Iterator[sqlite3.Connection]:
    """A transaction on the database, made or brought up to date first."""
    with closing(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        _check_or_create(database, file, fqrn)
        yield database
        database.execute("COMMIT")


def _check_or_create(database: sqlite3.Connection, file: Path, fqrn: str) -> None:
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    if "properties" not in tables:
        if tables:
            raise FormatError(f"{file}: not a statistics database")
        _create(database, fqrn)
        return
    properties = dict(database.execute("SELECT key, value FROM properties"))
    if str(properties.get("schema")) != SCHEMA:
        raise FormatError(f"{file}: schema {properties.get('schema')}, expected {SCHEMA}")
    if properties.get("repo_name", fqrn) != fqrn:
        raise FormatError(f"{file}: statistics of {properties['repo_name']}, not of {fqrn}")
    for kind, table in TABLES.items():
        present = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        for column in (*_COLUMNS[kind], "success"):
            if column not in present:  # an older revision of the schema
                database.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")
    database.execute(
        "UPDATE properties SET value=? WHERE key='schema_revision' AND CAST(value AS INTEGER)<?",
        (str(SCHEMA_REVISION), SCHEMA_REVISION),
    )


def _create(database: sqlite3.Connection, fqrn: str) -> None:
    database.execute(
        "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))"
    )
    for kind, table in TABLES.items():
        numbers = ", ".join(f"{column} INTEGER" for column in (*_COLUMNS[kind], "success"))
        database.execute(
            f"CREATE TABLE {table} ({kind}_id INTEGER PRIMARY KEY, start_time TEXT, "
            f"finish_time TEXT, {numbers})"
        )
    database.executemany(
        "INSERT INTO properties VALUES (?, ?)",
        [("schema", SCHEMA), ("schema_revision", str(SCHEMA_REVISION)), ("repo_name", fqrn)],
    )


def _text_of(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_TIME)
