"""Editing the history: a copy of the tag database, in memory. Reading is `history`'s business."""

import sqlite3
from typing import Self

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import (
    COLUMNS,
    DDL,
    INSERT_TAG,
    READABLE_SCHEMAS,
    SCHEMA,
    SCHEMA_REVISION,
    TRUNK,
    TRUNK_DESCRIPTION,
    TRUNK_PREVIOUS,
    TRUNK_PREVIOUS_DESCRIPTION,
    Tag,
    select_tag,
)

_NULL_HASH_TEXT = "0" * 40


class TagDatabase:
    """A writable history; close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._database.text_factory = bytes

    @classmethod
    def create(cls, fqrn: str) -> Self:
        """Make a history without tags."""
        history = cls()
        for statement in DDL:
            history._database.execute(statement)
        history._set_properties(schema=SCHEMA, schema_revision=str(SCHEMA_REVISION), fqrn=fqrn)
        return history

    @classmethod
    def open(cls, data: bytes) -> Self:
        """Read a plain history object. Raises FormatError for one that cannot be written to."""
        history = cls()
        try:
            history._database.deserialize(data)
            history._check_schema()
        except sqlite3.Error as error:
            history.close()
            raise FormatError(f"the history is no database: {error}") from error
        except FormatError:
            history.close()
            raise
        return history

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the memory."""
        self._database.close()

    def _check_schema(self) -> None:
        schema = self._property("schema")
        if schema not in READABLE_SCHEMAS:
            raise FormatError(f"a history of schema {schema} cannot be written to")
        if self._property("schema_revision") != str(SCHEMA_REVISION):
            raise FormatError(
                f"a history of schema revision {self._property('schema_revision')} cannot be "
                f"written to: expected {SCHEMA_REVISION}",
                hint="publish once with cvmfs_server to bring it up to date",
            )

    def _property(self, key: str) -> str:
        row = self._database.execute("SELECT value FROM properties WHERE key = ?", (key,))
        found = row.fetchone()
        return "0" if found is None else str(found[0], "utf-8", "replace")

    def _set_properties(self, **values: str) -> None:
        self._database.executemany(
            "INSERT OR REPLACE INTO properties VALUES (?, ?)", list(values.items())
        )

    def find(self, name: str) -> Tag | None:
        """The tag of that name; `None` where there is none."""
        row = self._database.execute(select_tag(COLUMNS), (name,)).fetchone()
        return None if row is None else Tag.from_row(row)

    def put(self, tag: Tag) -> None:
        """Set a tag, replacing one of that name."""
        self._database.execute(INSERT_TAG, tag.to_row())

    def remove(self, name: str) -> None:
        """Delete a tag; it need not exist."""
        self._database.execute("DELETE FROM tags WHERE name = ?", (name,))

    def move_trunk(self, root: Tag) -> None:
        """Make a revision the trunk (`root`'s name is not used); remember the one before."""
        before = self.find(TRUNK)
        if before is not None:
            self.put(_renamed(before, TRUNK_PREVIOUS, TRUNK_PREVIOUS_DESCRIPTION))
        self.put(_renamed(root, TRUNK, TRUNK_DESCRIPTION))

    def serialize(self, previous: ContentHash | None) -> bytes:
        """The new history object's plain bytes; `previous` is the object it succeeds."""
        self._set_properties(previous_revision=str(previous) if previous else _NULL_HASH_TEXT)
        return self._database.serialize()


def _renamed(tag: Tag, name: str, description: str) -> Tag:
    return Tag(
        name=name,
        hash=tag.hash,
        size=tag.size,
        revision=tag.revision,
        timestamp=tag.timestamp,
        description=description,
    )
