"""The history: a database of tags, which are named revisions.

Spec: docs/reference/formats/history.md. Values and SQL text; opening database files is the
business of `outcrop.repository`.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash
from outcrop.formats.rows import check_integer, hash_of, text_of

SCHEMA: Final = "1.0"
SCHEMA_REVISION: Final = 3
READABLE_SCHEMAS: Final = ("1.0",)

TRUNK: Final = "trunk"
TRUNK_PREVIOUS: Final = "trunk-previous"
UNDO_TAGS: Final = (TRUNK, TRUNK_PREVIOUS)
"""Tags every publish moves; no user may set them."""
TRUNK_DESCRIPTION: Final = "current HEAD"
TRUNK_PREVIOUS_DESCRIPTION: Final = "default undo target"

DDL: Final = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
    "CREATE TABLE branches (branch TEXT, parent TEXT, initial_revision INTEGER, "
    "CONSTRAINT pk_branch PRIMARY KEY (branch), "
    "FOREIGN KEY (parent) REFERENCES branches (branch), "
    "CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)))",
    "INSERT INTO branches (branch, parent, initial_revision) VALUES ('', NULL, 0)",
    "CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, "
    "channel INTEGER, description TEXT, size INTEGER, branch TEXT, "
    "CONSTRAINT pk_tags PRIMARY KEY (name), FOREIGN KEY (branch) REFERENCES branches (branch))",
    "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash))",
)
"""What a writer executes for a new history, in this order; then the properties."""

COLUMNS: Final = (
    "name", "hash", "revision", "timestamp", "channel", "description", "size", "branch",
)  # fmt: skip
"""The columns of a tag, in the order of `Tag.from_row`."""

INSERT_TAG: Final = (
    "INSERT OR REPLACE INTO tags "
    "(name, hash, revision, timestamp, channel, description, size, branch) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

UPGRADE: Final = (
    "CREATE TABLE IF NOT EXISTS recycle_bin (hash TEXT, flags INTEGER, "
    "CONSTRAINT pk_hash PRIMARY KEY (hash))",
    "CREATE TABLE IF NOT EXISTS branches (branch TEXT, parent TEXT, initial_revision INTEGER, "
    "CONSTRAINT pk_branch PRIMARY KEY (branch), "
    "FOREIGN KEY (parent) REFERENCES branches (branch), "
    "CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)))",
    "INSERT OR IGNORE INTO branches (branch, parent, initial_revision) VALUES ('', NULL, 0)",
)
"""What a writer executes for a history of an older revision, after adding `UPGRADE_COLUMNS`."""
UPGRADE_COLUMNS: Final = {
    "size": "ALTER TABLE tags ADD size INTEGER",
    "branch": "ALTER TABLE tags ADD branch TEXT REFERENCES branches (branch)",
}
FILL_UPGRADED: Final = "UPDATE tags SET size = coalesce(size, 0), branch = coalesce(branch, '')"

SELECT_BRANCHES: Final = "SELECT branch, parent, initial_revision FROM branches ORDER BY branch"
INSERT_BRANCH: Final = "INSERT INTO branches (branch, parent, initial_revision) VALUES (?, ?, ?)"
DELETE_BRANCH: Final = "DELETE FROM branches WHERE branch = ?"
SET_PARENT: Final = "UPDATE branches SET parent = ? WHERE parent = ?"

SELECT_ROLLED_BACK: Final = (
    f"SELECT {', '.join(COLUMNS)} FROM tags WHERE branch = '' AND (revision > ? OR name = ?) "
    "ORDER BY revision, name"
)
DELETE_ROLLED_BACK: Final = "DELETE FROM tags WHERE branch = '' AND (revision > ? OR name = ?)"
"""What a rollback to a tag deletes; its revision and its name are the parameters of both."""

_MISSING: Final = {"size": "0 AS size", "branch": "'' AS branch"}


def select_tags(available: Collection[str]) -> str:
    """SQL for all tags, newest first, of a history whose `tags` table has these columns.

    An old one may lack `size` (revision 0) and `branch` (before revision 3).
    """
    return f"{_select(available)} ORDER BY timestamp DESC, revision DESC"


def select_tag(available: Collection[str]) -> str:
    """SQL with one placeholder: the tag of that name."""
    return f"{_select(available)} WHERE name = ?"


def select_tag_at(available: Collection[str]) -> str:
    """SQL with one placeholder, a unix time: the newest tag of the trunk at that time."""
    trunk = "branch = '' AND " if "branch" in available else ""
    return f"{_select(available)} WHERE {trunk}timestamp <= ? ORDER BY revision DESC LIMIT 1"


def _select(available: Collection[str]) -> str:
    columns = (c if c in available else _MISSING.get(c, f"NULL AS {c}") for c in COLUMNS)
    return f"SELECT {', '.join(columns)} FROM tags"


@dataclass(frozen=True, slots=True)
class Tag:
    """A named revision.

    `hash` is its root catalog, `size` that catalog's plain size in bytes (0: unknown),
    `timestamp` the unix time the revision was published. `branch` is empty for the trunk.
    """

    name: str
    hash: ContentHash
    size: int
    revision: int
    timestamp: int
    channel: int = 0
    description: str = ""
    branch: str = ""

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Read the values of `COLUMNS` as SQLite gives them. Raises FormatError."""
        if len(row) != len(COLUMNS):
            raise FormatError(f"a tag's row has {len(COLUMNS)} columns, not {len(row)}")
        name = text_of(row[0], "tag name")
        if not name or not name.isprintable():
            raise FormatError(f"a tag's name is empty or not printable: {name[:60]!r}")
        subject = f"tag {name}"
        return cls(
            name=name,
            hash=hash_of(row[1], subject),
            revision=check_integer(row[2], f"{subject}: revision"),
            timestamp=check_integer(row[3], f"{subject}: timestamp"),
            channel=check_integer(row[4] or 0, f"{subject}: channel"),
            description=text_of(row[5] or "", f"{subject}: description"),
            size=check_integer(row[6] or 0, f"{subject}: size"),
            branch=text_of(row[7] or "", f"{subject}: branch"),
        )

    def to_row(self) -> tuple[str, str, int, int, int, str, int, str]:
        """The values of `COLUMNS` for a writer."""
        return (
            self.name, str(self.hash), self.revision, self.timestamp, self.channel,
            self.description, self.size, self.branch,
        )  # fmt: skip

    def machine_line(self) -> str:
        """One line of `cvmfs_server tag -l -x`."""
        return (
            f"{self.name} {self.hash} {self.size} {self.revision} {self.timestamp} "
            f"{self.branch or '(default)'} {self.description}"
        )


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of revisions beside the trunk, whose name is empty and who alone has no parent.

    `initial_revision` is the number of the first revision tagged on it.
    """

    name: str
    parent: str | None
    initial_revision: int

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Read a row of `SELECT_BRANCHES`. Raises FormatError."""
        name = text_of(row[0] if row[0] is not None else "", "branch name")
        parent = None if row[1] is None else text_of(row[1], f"branch {name}: parent")
        if not (name + (parent or "")).isprintable():
            raise FormatError(f"a branch's name is not printable: {name[:60]!r}")
        return cls(name, parent, check_integer(row[2] or 0, f"branch {name}: initial revision"))


def check_tag_name(name: str) -> str:
    """Return a name a user may give to a tag. Raises FormatError."""
    if _TAG_NAME.fullmatch(name) is None:
        raise FormatError(
            f"not a tag name: {name[:60]!r}", hint="letters, digits and - _ . / : are allowed"
        )
    if name in UNDO_TAGS:
        raise FormatError(f"the tag {name} is moved by every publish and cannot be set")
    return name


def check_branch_name(name: str) -> str:
    """Return a name a user may give to a branch. Raises FormatError."""
    if _BRANCH_NAME.fullmatch(name) is None:
        raise FormatError(
            f"not a branch name: {name[:60]!r}", hint="letters, digits and - _ . @ / are allowed"
        )
    return name


def auto_tag_name(timestamp: int, number: int) -> str:
    """The `number`-th choice (from 0) of a name for a revision nobody named."""
    at = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"generic_{number}-{at}" if number else f"generic-{at}"


def is_auto_tag_name(name: str) -> bool:
    """Whether a tag was set by itself, so that it may go by itself, too."""
    return _AUTO_TAG_NAME.match(name) is not None


_TAG_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,255}")
_BRANCH_NAME = re.compile(r"[A-Za-z0-9_.@/-]{1,255}")
_AUTO_TAG_NAME = re.compile(
    r"generic(_\d+)?-\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,3})?Z", re.ASCII
)
