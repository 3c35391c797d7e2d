"""Marking: which catalogs and objects the revisions need that are kept (spec 14).

Kept are the trunk, so many of its predecessors as asked for, and every tagged revision. A revision
is followed through all its nested catalogs; a catalog that several share is read once.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from outcrop.formats.hashes import ContentHash
from outcrop.repository.catalogs import Catalog
from outcrop.repository.errors import RepositoryIncomplete
from outcrop.repository.hash_set import HashSet
from outcrop.repository.reachable import CatalogReader, iter_objects, nested_catalogs
from outcrop.storage.errors import ObjectNotFound

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which predecessors of the trunk stay: so many, or all since a time and the one before.

    `revisions` of `None`: as many as there are. `since` is unix time.
    """

    revisions: int | None = None
    since: int = 0


@dataclass(slots=True)
class Marked:
    """What is kept. `oldest_at` is when the oldest kept revision of the trunk was put on record.

    `incomplete` are revisions with catalogs missing: swept in part, or damaged.
    """

    preserved: HashSet = field(default_factory=HashSet)
    revisions: dict[ContentHash, None] = field(default_factory=dict)
    catalogs: int = 0
    oldest_at: int = 0
    incomplete: list[ContentHash] = field(default_factory=list)


class Marker:
    """Collects everything reachable from revisions, into `marked`."""

    def __init__(
        self,
        reader: CatalogReader,
        executor: Executor,
        recorded_at: Mapping[ContentHash, int],
        progress: Progress,
    ) -> None:
        """`recorded_at` is when each root catalog was put into the reflog, unix time."""
        self.marked = Marked()
        self._reader = reader
        self._executor = executor
        self._recorded_at = recorded_at
        self._progress = progress
        self._lock = threading.Lock()

    def mark_trunk(self, root: ContentHash, keep: Keep) -> None:
        """Mark the trunk and its kept predecessors.

        Raises RepositoryIncomplete if any catalog of the trunk itself is missing: with such a
        repository nothing can be told to be unneeded.
        """
        predecessor, recorded_at = self._mark_trunk(root)
        self.marked.oldest_at = recorded_at
        depth = 0
        while predecessor is not None and recorded_at >= keep.since:
            if keep.revisions is not None and depth >= keep.revisions:
                break
            if predecessor in self.marked.revisions:
                break
            found = self._mark_revision(predecessor)
            if found is None:
                break
            predecessor, recorded_at = found
            self.marked.oldest_at = min(self.marked.oldest_at, recorded_at)
            depth += 1

    def mark_tags(self, roots: Iterable[ContentHash]) -> None:
        """Mark tagged revisions. Those that are missing are left out: nothing can be done."""
        for root in dict.fromkeys(roots):
            if root not in self.marked.revisions:
                self._mark_revision(root)

    def _mark_trunk(self, root: ContentHash) -> tuple[ContentHash | None, int]:
        found = self._mark_revision(root)
        if found is None or self.marked.incomplete:
            raise RepositoryIncomplete(
                f"the trunk, root catalog {root}, lacks catalogs: nothing is deleted",
                hint="outcrop check tells which; bring them back from a backup or a replica",
            )
        return found

    def _mark_revision(self, root: ContentHash) -> tuple[ContentHash | None, int] | None:
        """Mark all of a revision; its predecessor and time, `None` if its root is missing."""
        try:
            with self._reader.open(root) as catalog:
                nested = self._take(catalog)
                previous, modified_at = catalog.previous, catalog.last_modified
        except ObjectNotFound:
            return None
        self.marked.revisions[root] = None
        if not self._mark_below(nested):
            self.marked.incomplete.append(root)
        return previous, self._recorded_at.get(root, modified_at)

    def _mark_below(self, level: Sequence[ContentHash]) -> bool:
        """Mark nested catalogs, level by level; whether all are there."""
        is_complete = True
        while level:
            below: list[ContentHash] = []
            for nested in self._executor.map(self._visit, self._unseen(level)):
                if nested is None:
                    is_complete = False
                else:
                    below += nested
            level = below
        return is_complete

    def _unseen(self, hashes: Iterable[ContentHash]) -> list[ContentHash]:
        return [found for found in dict.fromkeys(hashes) if found.digest not in self._preserved]

    @property
    def _preserved(self) -> HashSet:
        return self.marked.preserved

    def _visit(self, content_hash: ContentHash) -> list[ContentHash] | None:
        try:
            with self._reader.open(content_hash) as catalog:
                return self._take(catalog)
        except ObjectNotFound:
            return None

    def _take(self, catalog: Catalog) -> list[ContentHash]:
        """Preserve what a catalog refers to, then itself; its nested catalogs."""
        for batch in iter_objects(catalog):
            with self._lock:
                self._preserved.add_all(batch.digests)
        nested = nested_catalogs(catalog)
        with self._lock:
            self._preserved.add(catalog.hash.digest)
            self.marked.catalogs += 1
            self._progress("reading kept catalogs", self.marked.catalogs, None)
        return nested
