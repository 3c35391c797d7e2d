"""The reflog, `.cvmfsreflog`: every root object a storage holds, for garbage collection.

Spec: docs/reference/formats/reflog.md. Values and SQL text; opening database files is the business
of `outcrop.repository`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, Suffix
from outcrop.formats.rows import check_integer, hash_of

SCHEMA: Final = "1.0"
SCHEMA_REVISION: Final = 0

DDL: Final = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
    "CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, "
    "CONSTRAINT pk_refs PRIMARY KEY (hash))",
)
"""What a writer executes for a new reflog, in this order; then the properties."""

COLUMNS: Final = ("hash", "type", "timestamp")
SELECT_REFS: Final = "SELECT hash, type, timestamp FROM refs"
INSERT_REF: Final = "INSERT OR REPLACE INTO refs (hash, type, timestamp) VALUES (?, ?, ?)"
DELETE_REF: Final = "DELETE FROM refs WHERE hash = ?"


class RefType(IntEnum):
    """What kind of object a reference leads to."""

    CATALOG = 0
    CERTIFICATE = 1
    HISTORY = 2
    META_INFO = 3

    @property
    def suffix(self) -> Suffix:
        """The suffix letter of such objects."""
        return Suffix[self.name]


@dataclass(frozen=True, slots=True)
class Ref:
    """One object and the unix time it was put on record at this server."""

    hash: ContentHash
    type: RefType
    timestamp: int

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Read the values of `COLUMNS` as SQLite gives them. Raises FormatError."""
        if len(row) != len(COLUMNS):
            raise FormatError(f"a reflog row has {len(COLUMNS)} columns, not {len(row)}")
        content_hash = hash_of(row[0], "reflog")
        subject = f"reflog entry {content_hash}"
        return cls(
            content_hash,
            RefType(check_integer(row[1], f"{subject}: type", maximum=max(RefType))),
            check_integer(row[2], f"{subject}: timestamp"),
        )

    def to_row(self) -> tuple[str, int, int]:
        """The values of `COLUMNS` for a writer."""
        return (str(self.hash), int(self.type), self.timestamp)
