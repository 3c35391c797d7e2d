"""Reading the tag database: which revisions have names."""

import os
import sqlite3
from dataclasses import dataclass

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.history import Tag, select_tags
from outcrop.repository.databases import open_database
from outcrop.repository.errors import TagNotFound
from outcrop.storage.store import ObjectOpener

MAX_HISTORY_BYTES = 1 << 30
_MAX_TAGS = 1_000_000


@dataclass(frozen=True, slots=True)
class History:
    """All tags of a repository, newest first (spec 10)."""

    tags: tuple[Tag, ...] = ()

    def get(self, name: str) -> Tag:
        """The tag of that name. Raises TagNotFound."""
        for tag in self.tags:
            if tag.name == name:
                return tag
        raise TagNotFound(f"no tag {name!r} in the history", hint="outcrop log lists the tags")

    def get_at(self, timestamp: int) -> Tag:
        """The newest tag on the default branch not younger than unix time `timestamp`."""
        known = [tag for tag in self.tags if not tag.branch and tag.timestamp <= timestamp]
        if not known:
            raise TagNotFound("no tag is as old as that date", hint="outcrop log lists the tags")
        return max(known, key=lambda tag: tag.revision)


def read_history(opener: ObjectOpener, history: ContentHash | None) -> History:
    """Fetch and read the history object a manifest names; none means no tags."""
    if history is None:
        return History()
    ref = ObjectRef(history, Suffix.HISTORY)
    fd = opener.open_object(ref, limit=MAX_HISTORY_BYTES)
    try:
        return History(tuple(_read_tags(fd)))
    except sqlite3.Error as error:
        raise FormatError(f"history {history}: {error}") from error
    finally:
        os.close(fd)


def _read_tags(fd: int) -> list[Tag]:
    database = open_database(fd)
    try:
        kinds = database.execute("SELECT type FROM sqlite_master WHERE name = 'tags'").fetchall()
        if kinds != [(b"table",)]:
            raise FormatError("the history has no table of tags")
        columns = [row[1].decode() for row in database.execute("PRAGMA table_info(tags)")]
        rows = database.execute(f"{select_tags(columns)} LIMIT {_MAX_TAGS}")
        return [Tag.from_row(row) for row in rows]
    finally:
        database.close()
