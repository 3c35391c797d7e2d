"""Reading the tag database: which revisions have names, and which branches there are."""

import os
import sqlite3
from dataclasses import dataclass

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.history import SELECT_BRANCHES, Branch, Tag, select_tags
from outcrop.repository.databases import open_database
from outcrop.repository.errors import TagNotFound
from outcrop.storage.store import ObjectOpener

MAX_HISTORY_BYTES = 1 << 30
_MAX_TAGS = 1_000_000
_MAX_BRANCHES = 10_000
_THE_TRUNK = Branch("", None, 0)


@dataclass(frozen=True, slots=True)
class History:
    """All tags of a repository, newest first, and its branches (spec 10).

    The trunk is the branch without a name; it is always there.
    """

    tags: tuple[Tag, ...] = ()
    branches: tuple[Branch, ...] = (_THE_TRUNK,)

    def get(self, name: str) -> Tag:
        """The tag of that name. Raises TagNotFound."""
        for tag in self.tags:
            if tag.name == name:
                return tag
        raise TagNotFound(f"no tag {name!r} in the history", hint="outcrop log lists the tags")

    def find_head(self, branch: str) -> Tag | None:
        """The newest revision tagged on a branch; `None` where there is no such branch."""
        on_branch = [tag for tag in self.tags if tag.branch == branch]
        return max(on_branch, key=lambda tag: tag.revision, default=None)

    def branch_tree(self) -> list[tuple[int, Branch]]:
        """The branches, each below its parent, with their depths; the trunk's is 0.

        A branch whose parents go in circles or lead nowhere hangs below the trunk.
        """
        by_name = {branch.name: branch for branch in self.branches}
        children: dict[str, list[Branch]] = {}
        for branch in self.branches:
            if branch.name:
                parent = branch.parent if _leads_to_trunk(branch, by_name) else ""
                children.setdefault(parent or "", []).append(branch)
        tree: list[tuple[int, Branch]] = []
        todo = [(0, by_name.get("", _THE_TRUNK))]
        while todo:
            level, branch = todo.pop()
            tree.append((level, branch))
            todo += [(level + 1, child) for child in reversed(children.get(branch.name, []))]
        return tree

    def get_at(self, timestamp: int) -> Tag:
        """The newest tag on the default branch not younger than unix time `timestamp`."""
        known = [tag for tag in self.tags if not tag.branch and tag.timestamp <= timestamp]
        if not known:
            raise TagNotFound("no tag is as old as that date", hint="outcrop log lists the tags")
        return max(known, key=lambda tag: tag.revision)


def _leads_to_trunk(branch: Branch, by_name: dict[str, Branch]) -> bool:
    seen = set()
    while branch.name and branch.name not in seen:
        seen.add(branch.name)
        above = by_name.get(branch.parent or "")
        if above is None:
            return False
        branch = above
    return not branch.name


def read_history(opener: ObjectOpener, history: ContentHash | None) -> History:
    """Fetch and read the history object a manifest names; none means no tags."""
    if history is None:
        return History()
    ref = ObjectRef(history, Suffix.HISTORY)
    fd = opener.open_object(ref, limit=MAX_HISTORY_BYTES)
    try:
        return _read(fd)
    except sqlite3.Error as error:
        raise FormatError(f"history {history}: {error}") from error
    finally:
        os.close(fd)


def _read(fd: int) -> History:
    database = open_database(fd)
    try:
        tables = dict(database.execute("SELECT name, type FROM sqlite_master").fetchall())
        if tables.get(b"tags") != b"table":
            raise FormatError("the history has no table of tags")
        columns = [row[1].decode() for row in database.execute("PRAGMA table_info(tags)")]
        rows = database.execute(f"{select_tags(columns)} LIMIT {_MAX_TAGS}")
        tags = tuple(Tag.from_row(row) for row in rows)
        if tables.get(b"branches") != b"table":
            return History(tags)
        found = database.execute(f"{SELECT_BRANCHES} LIMIT {_MAX_BRANCHES}")
        return History(tags, tuple(Branch.from_row(row) for row in found))
    finally:
        database.close()
