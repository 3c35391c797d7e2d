"""The statements that `repository.working_catalog` executes; all names in them are our own."""

from outcrop.formats.catalog import COLUMNS

_ALL_COLUMNS = ("md5path_1", "md5path_2", "parent_1", "parent_2", *COLUMNS)
_COLUMN_LIST = ", ".join(_ALL_COLUMNS)
_TEXT_COLUMNS = ("name", "symlink")  # given as bytes, as names need not be UTF-8
_CHUNK_COLUMNS = "md5path_1, md5path_2, offset, size, hash"
_AT = "WHERE md5path_1 = ? AND md5path_2 = ?"
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM catalog "

SELECT_ENTRY = _SELECT + _AT
SELECT_ENTRIES = _SELECT + "WHERE parent_1 = ? AND parent_2 = ?"
SELECT_ANY_ENTRY = "SELECT 1 FROM catalog WHERE parent_1 = ? AND parent_2 = ? LIMIT 1"
SELECT_OLD = f"SELECT hardlinks, flags, mode, size, xattr IS NOT NULL FROM catalog {_AT}"
"""What has to be known of a row that is about to be replaced."""

SELECT_HIGHEST_LINKS = "SELECT coalesce(max(hardlinks), 0) FROM catalog"
SELECT_CHUNKS = f"SELECT offset, size, hash FROM chunks {_AT} ORDER BY offset"
SELECT_DIRECTORIES = (
    "SELECT name, flags & 16386 FROM catalog WHERE parent_1 = ? AND parent_2 = ? AND flags & 1"
)
OUTLINE = (
    "SELECT md5path_1, md5path_2, parent_1, parent_2, name, flags & 16386 FROM catalog "
    "WHERE flags & 1"
)
COUNT_FILES = (
    "SELECT parent_1, parent_2, count(*) FROM catalog WHERE NOT flags & 1 "
    "GROUP BY parent_1, parent_2"
)
SELECT_NESTED = "SELECT path, sha1, size FROM nested_catalogs"
SELECT_HIGHEST_ROW_ID = "SELECT coalesce(max(rowid), 0) FROM catalog"

UPSERT_ENTRY = (
    f"INSERT INTO catalog ({_COLUMN_LIST}) VALUES ("
    + ", ".join("CAST(? AS TEXT)" if c in _TEXT_COLUMNS else "?" for c in _ALL_COLUMNS)
    + ") ON CONFLICT (md5path_1, md5path_2) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in COLUMNS)
)
INSERT_CHUNK = f"INSERT INTO chunks ({_CHUNK_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
INSERT_NESTED = "INSERT INTO nested_catalogs (path, sha1, size) VALUES (CAST(? AS TEXT), ?, ?)"
INSERT_ROOT_PREFIX = "INSERT INTO properties VALUES ('root_prefix', CAST(? AS TEXT))"
UPSERT_PROPERTY = "INSERT OR REPLACE INTO properties VALUES (?, ?)"
UPSERT_COUNTER = "INSERT OR REPLACE INTO statistics VALUES (?, ?)"

DELETE_ENTRY = f"DELETE FROM catalog {_AT}"
DELETE_CHUNKS = f"DELETE FROM chunks {_AT}"
DELETE_NESTED = "DELETE FROM nested_catalogs"

SELECT_BINDINGS = "SELECT path, sha1, size FROM bind_mountpoints"
INSERT_BINDING = INSERT_NESTED.replace("nested_catalogs", "bind_mountpoints")
DELETE_BINDING = "DELETE FROM bind_mountpoints WHERE path = CAST(? AS TEXT)"

RENAME_ENTRY = f"UPDATE catalog SET md5path_1 = ?, md5path_2 = ?, name = CAST(? AS TEXT) {_AT}"
RENAME_CHUNKS = f"UPDATE chunks SET md5path_1 = ?, md5path_2 = ? {_AT}"
ADD_LINKS = f"UPDATE catalog SET hardlinks = hardlinks + ? {_AT}"
SET_GROUP_LINKS = (
    "UPDATE catalog SET hardlinks = ? WHERE parent_1 = ? AND parent_2 = ? AND hardlinks = ? "
    "AND NOT (md5path_1 = ? AND md5path_2 = ?)"
)

SELECT_BELOW = (
    "CREATE TEMP TABLE IF NOT EXISTS moved (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER)",
    "DELETE FROM temp.moved",
    "INSERT INTO temp.moved "
    "WITH RECURSIVE below (id, a, b) AS ("
    " SELECT rowid, md5path_1, md5path_2 FROM main.catalog WHERE parent_1 = :a AND parent_2 = :b"
    " UNION ALL SELECT c.rowid, c.md5path_1, c.md5path_2 FROM main.catalog c JOIN below"
    " ON c.parent_1 = below.a AND c.parent_2 = below.b) "
    "SELECT id, a, b FROM below",
)
"""Put the keys of all rows below a directory into the table `moved`."""

DELETE_MOVED = (
    "DELETE FROM main.chunks WHERE (md5path_1, md5path_2) IN (SELECT a, b FROM temp.moved)",
    "DELETE FROM main.catalog WHERE rowid IN (SELECT id FROM temp.moved)",
    "DELETE FROM temp.moved",
)

_SHIFTED = "CASE WHEN hardlinks >> 32 THEN hardlinks + :shift ELSE hardlinks END"
COPY_MOVED = (
    f"INSERT INTO target.catalog ({_COLUMN_LIST}) "
    f"SELECT {_COLUMN_LIST.replace('hardlinks', _SHIFTED)} FROM main.catalog "
    "WHERE rowid IN (SELECT id FROM temp.moved) ORDER BY rowid",
    f"INSERT INTO target.chunks ({_CHUNK_COLUMNS}) SELECT {_CHUNK_COLUMNS} FROM main.chunks "
    "WHERE (md5path_1, md5path_2) IN (SELECT a, b FROM temp.moved)",
)
"""Copy these rows to the attached database `target`, hard link groups renumbered by `shift`."""

SELECT_PLACES = "SELECT rowid, md5path_1, md5path_2, parent_1, parent_2, name, flags FROM catalog"
SELECT_MOVED_PLACES = f"{SELECT_PLACES} WHERE rowid IN (SELECT id FROM temp.moved)"
CREATE_RELOCATED = (
    "CREATE TEMP TABLE IF NOT EXISTS relocated "
    "(id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, parent_a INTEGER, parent_b INTEGER)"
)
INSERT_RELOCATED = "INSERT INTO temp.relocated VALUES (?, ?, ?, ?, ?)"
DELETE_RELOCATED = "DELETE FROM temp.relocated"
_UNLINKED = "CASE WHEN flags & 1 THEN hardlinks ELSE 1 END"


def relocate_statements(schema: str, *, keeps_links: bool) -> tuple[str, str]:
    """Copy the rows in `relocated` to a database under their new keys.

    Hard link groups are renumbered by `:shift`, or broken up.
    """
    values = _COLUMN_LIST.partition(_ALL_COLUMNS[4])
    links = _SHIFTED if keeps_links else _UNLINKED
    return (
        f"INSERT INTO {schema}.catalog ({_COLUMN_LIST}) "
        f"SELECT r.a, r.b, r.parent_a, r.parent_b, {links}{values[2]} "
        "FROM temp.relocated r CROSS JOIN main.catalog c WHERE c.rowid = r.id ORDER BY r.id",
        f"INSERT INTO {schema}.chunks ({_CHUNK_COLUMNS}) "
        "SELECT r.a, r.b, k.offset, k.size, k.hash FROM main.chunks k "
        "CROSS JOIN main.catalog c ON c.md5path_1 = k.md5path_1 AND c.md5path_2 = k.md5path_2 "
        "CROSS JOIN temp.relocated r ON r.id = c.rowid",
    )


CREATE_NUMBERS = "CREATE TEMP TABLE IF NOT EXISTS numbers (old INTEGER PRIMARY KEY, new INTEGER)"
DELETE_NUMBERS = "DELETE FROM temp.numbers"
INSERT_NUMBERS = "INSERT INTO temp.numbers VALUES (?, ?)"
_CHOWN = (
    "UPDATE catalog SET {0} = (SELECT new FROM temp.numbers WHERE old = {0}) "
    "WHERE {0} IN (SELECT old FROM temp.numbers)"
)
SELECT_UIDS = "SELECT DISTINCT uid FROM catalog"
SELECT_GIDS = "SELECT DISTINCT gid FROM catalog"
CHANGE_UIDS = _CHOWN.format("uid")
CHANGE_GIDS = _CHOWN.format("gid")
BREAK_HARD_LINKS = "UPDATE catalog SET hardlinks = 1 WHERE hardlinks >> 32 AND NOT flags & 1"
DROP_BULK_HASHES = (
    "UPDATE catalog SET hash = NULL WHERE hash IS NOT NULL AND flags & 64 AND EXISTS ("
    "SELECT 1 FROM chunks k WHERE k.md5path_1 = catalog.md5path_1 "
    "AND k.md5path_2 = catalog.md5path_2)"
)
"""Of chunked files; what has no chunks keeps its only content."""

COMPACT = (
    f"CREATE TEMP TABLE dense AS SELECT {_COLUMN_LIST} FROM catalog ORDER BY rowid",
    "DELETE FROM catalog",
    f"INSERT INTO catalog ({_COLUMN_LIST}) SELECT {_COLUMN_LIST} FROM temp.dense ORDER BY rowid",
    "DROP TABLE temp.dense",
    "COMMIT",
    "VACUUM",
    "BEGIN",
)
"""Number the rows without gaps and give unused pages back (spec 6.8)."""

_COUNT = """SELECT
 coalesce(sum(kind = 32768), 0), coalesce(sum(kind = 40960), 0),
 coalesce(sum(kind NOT IN (32768, 40960, 16384)), 0), coalesce(sum(kind = 16384), 0),
 (SELECT count(*) FROM nested_catalogs),
 coalesce(sum(chunked), 0), (SELECT count(*) FROM main.chunks{chunks}),
 coalesce(sum(size * (kind = 32768)), 0), coalesce(sum(size * chunked), 0),
 coalesce(sum(has_xattr), 0), coalesce(sum(external), 0), coalesce(sum(size * external), 0)
 FROM (SELECT mode & 61440 AS kind, size, xattr IS NOT NULL AS has_xattr,
  (mode & 61440) = 32768 AND flags & 64 <> 0 AS chunked,
  (mode & 61440) = 32768 AND flags & 128 <> 0 AS external FROM main.catalog{rows})"""


def count_statement(within: str = "") -> str:
    """The counters of all rows, in the order of `Counters`, or of those in a temporary table.

    The table has columns `id` (row id) and `a`, `b` (key). 32768 is S_IFREG, …
    """
    if not within:
        return _COUNT.format(rows="", chunks="")
    return _COUNT.format(
        rows=f" WHERE rowid IN (SELECT id FROM temp.{within})",
        chunks=f" WHERE (md5path_1, md5path_2) IN (SELECT a, b FROM temp.{within})",
    )


UPGRADE_COLUMNS = (
    ("nested_catalogs", "size", "INTEGER"),
    ("catalog", "xattr", "BLOB"),
    ("catalog", "mtimens", "INTEGER"),
)
CREATE_BIND_MOUNTPOINTS = (
    "CREATE TABLE IF NOT EXISTS bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, "
    "CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))"
)
