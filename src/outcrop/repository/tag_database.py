"""Editing the history: a copy of the tag database, in memory. Reading is `history`'s business."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from outcrop.errors import FormatError
from outcrop.formats import history as sql
from outcrop.formats.hashes import ContentHash
from outcrop.formats.history import (
    COLUMNS,
    READABLE_SCHEMAS,
    SCHEMA,
    SCHEMA_REVISION,
    TRUNK,
    TRUNK_DESCRIPTION,
    TRUNK_PREVIOUS,
    TRUNK_PREVIOUS_DESCRIPTION,
    Branch,
    Tag,
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
        for statement in sql.DDL:
            history._database.execute(statement)
        history._set_properties(schema=SCHEMA, schema_revision=str(SCHEMA_REVISION), fqrn=fqrn)
        history._database.execute("PRAGMA foreign_keys = ON")
        return history

    @classmethod
    def open(cls, data: bytes) -> Self:
        """Read a plain history object, and bring an older one up to date.

        Raises FormatError for one that cannot be written to.
        """
        history = cls()
        try:
            history._database.execute("PRAGMA trusted_schema = OFF")
            history._database.deserialize(data)
            history._upgrade()
            history._database.execute("PRAGMA foreign_keys = ON")
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

    def _upgrade(self) -> None:
        """Bring a history of an older revision up to date, as upstream does (spec 10)."""
        self._check_tables()
        schema, revision = self._property("schema"), self._property("schema_revision")
        if schema not in READABLE_SCHEMAS:
            raise FormatError(f"a history of schema {schema[:20]} cannot be written to")
        is_number = revision.isascii() and revision.isdecimal() and len(revision) < 10
        if not is_number or int(revision) > SCHEMA_REVISION:
            raise FormatError(
                f"a history of schema revision {revision[:20]} cannot be written to: "
                f"{SCHEMA_REVISION} is the newest known",
                hint="a newer Outcrop may know it",
            )
        if int(revision) == SCHEMA_REVISION:
            return
        for statement in sql.UPGRADE:
            self._database.execute(statement)
        present = {row[1].decode() for row in self._database.execute("PRAGMA table_info(tags)")}
        for column, statement in sql.UPGRADE_COLUMNS.items():
            if column not in present:
                self._database.execute(statement)
        self._database.execute(sql.FILL_UPGRADED)
        self._set_properties(schema_revision=str(SCHEMA_REVISION))

    def _check_tables(self) -> None:
        """A history is data: what would run something when it is written to is refused."""
        kinds = {kind for (kind,) in self._database.execute("SELECT type FROM sqlite_master")}
        if not kinds <= {b"table", b"index"}:
            raise FormatError(f"the history has a {sorted(kinds)[-1]!r}, which no history has")

    def _property(self, key: str) -> str:
        row = self._database.execute("SELECT value FROM properties WHERE key = ?", (key,))
        found = row.fetchone()
        if found is None:
            return "0"
        value = found[0]
        return str(value, "utf-8", "replace") if isinstance(value, bytes) else str(value)

    def _set_properties(self, **values: str) -> None:
        for pair in values.items():
            self._run("INSERT OR REPLACE INTO properties VALUES (?, ?)", pair)

    def _run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement. Raises FormatError."""
        try:
            return self._database.execute(statement, parameters).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise FormatError(f"the history: {error}") from error

    # --- tags ---

    @property
    def previous(self) -> ContentHash | None:
        """The history object this one succeeds, `None` for the first. Raises FormatError."""
        text = self._property("previous_revision")
        found = ContentHash.parse(text) if len(text) > 1 else None
        return None if found is None or found.is_null else found

    def find(self, name: str) -> Tag | None:
        """The tag of that name; `None` where there is none."""
        rows = self._run(sql.select_tag(COLUMNS), (name,))
        return Tag.from_row(rows[0]) if rows else None

    def tags(self) -> list[Tag]:
        """All tags, newest first."""
        return [Tag.from_row(row) for row in self._run(sql.select_tags(COLUMNS))]

    def put(self, tag: Tag) -> None:
        """Set a tag, replacing one of that name; its branch must exist."""
        self._run(sql.INSERT_TAG, tag.to_row())

    def remove(self, name: str) -> None:
        """Delete a tag; it need not exist."""
        self._run("DELETE FROM tags WHERE name = ?", (name,))

    def move_trunk(self, root: Tag) -> None:
        """Make a revision the trunk (`root`'s name is not used); remember the one before."""
        before = self.find(TRUNK)
        self.remove(TRUNK_PREVIOUS)
        if before is not None:
            self.put(replace(before, name=TRUNK_PREVIOUS, description=TRUNK_PREVIOUS_DESCRIPTION))
        self.put(replace(root, name=TRUNK, description=TRUNK_DESCRIPTION, branch=""))

    def roll_back(self, target: Tag, renewed: Tag) -> list[Tag]:
        """Forget all of the trunk that is newer than `target`; put `renewed` in its place.

        Returns the tags that went, `target` and the former trunk among them.
        """
        condition = (target.revision, target.name)
        gone = [Tag.from_row(row) for row in self._run(sql.SELECT_ROLLED_BACK, condition)]
        self._run(sql.DELETE_ROLLED_BACK, condition)
        self.put(renewed)
        return gone

    # --- branches ---

    def branches(self) -> list[Branch]:
        """All branches by name; the trunk, whose name is empty, is the first."""
        return [Branch.from_row(row) for row in self._run(sql.SELECT_BRANCHES)]

    def put_branch(self, branch: Branch) -> None:
        """Make a branch, unless there is one of that name. Its parent must exist."""
        if all(known.name != branch.name for known in self.branches()):
            row = (branch.name, branch.parent, branch.initial_revision)
            self._run(sql.INSERT_BRANCH, row)

    def prune_branches(self) -> None:
        """Delete branches without tags; the children of such a one become its parent's."""
        used = {tag.branch for tag in self.tags()}
        parents = {branch.name: branch.parent for branch in self.branches()}
        for name in [name for name in parents if name and name not in used]:
            parent = parents.pop(name)
            parents |= {child: parent for child, above in parents.items() if above == name}
            self._run(sql.SET_PARENT, (parent, name))
            self._run(sql.DELETE_BRANCH, (name,))

    # --- the end ---

    def serialize(self, previous: ContentHash | None) -> bytes:
        """The new history object's plain bytes; `previous` is the object it succeeds."""
        self._set_properties(previous_revision=str(previous) if previous else _NULL_HASH_TEXT)
        self._run("VACUUM")
        return self._database.serialize()
