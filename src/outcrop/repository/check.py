"""Checking a whole repository: every signature, hash, size, counter and reference.

Reads through the same trust chain and readers as everything else, so what passes here is what a
client would accept; beyond that it asks what no client does: whether the numbers add up and
whether every referenced object is there and is what it should be. One engine for a reader, who
fetches, and for a stratum 0, which knows its store and its reflog.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from outcrop.errors import FormatError
from outcrop.formats.catalog import Counters, DirectoryEntry, NestedCatalog
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.history import Tag
from outcrop.repository.catalogs import MAX_CATALOG_BYTES, Catalog, CatalogTree
from outcrop.repository.check_catalog import CatalogReport, Problem, check_catalog, problem_at
from outcrop.repository.check_objects import (
    ContentCheck,
    ExistenceCheck,
    NoObjectCheck,
    ObjectCheck,
    Progress,
    Say,
)
from outcrop.repository.check_references import check_meta_info, check_reflog, check_tags
from outcrop.repository.errors import PathNotFound
from outcrop.repository.history import History
from outcrop.repository.open import RepositorySource
from outcrop.repository.reachable import map_ahead
from outcrop.repository.reflog import Reflog
from outcrop.repository.stored import StoredObjects
from outcrop.storage.errors import StorageError
from outcrop.trust.chain import TrustedManifest

MAX_PROBLEMS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What to check.

    The trunk, or the revision of `tag`, or with `all_tags` the trunk and all of them; of these the
    catalogs that `subtree` is in or above. `fetch` fetches every object; without it objects are
    looked up in the listing of the store, if there is one.
    """

    tag: str | None = None
    all_tags: bool = False
    subtree: bytes = b""
    fetch: bool = True
    workers: int = 8


@dataclass(slots=True)
class CheckResult:
    """The outcome of a check: the repository is sound if there are no problems.

    `objects` is how many were looked at. Of more than `MAX_PROBLEMS` problems the rest is only
    counted, in `more_problems`.
    """

    fqrn: str
    revision: int
    root_hash: str
    catalogs: int = 0
    entries: int = 0
    objects: int = 0
    external: int = 0
    tags: int = 0
    problems: list[Problem] = field(default_factory=list)
    more_problems: int = 0

    def add(self, problem: Problem) -> None:
        """Put a problem down."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more_problems += 1


def check_repository(
    source: RepositorySource,
    options: CheckOptions,
    *,
    now: int,
    list_stored: Callable[[], StoredObjects] | None = None,
    open_reflog: Callable[[TrustedManifest], Reflog] | None = None,
    progress: Progress = lambda _phase, _done, _total: None,
) -> CheckResult:
    """Check a repository; `list_stored` and `open_reflog` give what only its stratum 0 knows.

    Raises TrustError, StorageError or FormatError where not even the trunk can be opened, and
    TagNotFound, PathNotFound.
    """
    trusted = source.fetch_manifest(now=now)
    manifest = trusted.manifest
    result = CheckResult(source.fqrn, manifest.revision, str(manifest.root_catalog))
    history = source.history(trusted)
    # Publishers may go on, so objects are listed after it is known which must be there.
    stored = list_stored() if list_stored is not None else None
    reflog = open_reflog(trusted) if open_reflog is not None else None
    result.tags = len(history.tags)
    lock = threading.Lock()

    def say(problem: Problem) -> None:
        with lock:
            result.add(problem)

    objects = _object_check(source, options, stored, say, progress)
    with ThreadPoolExecutor(options.workers) as executor:
        walk = _Walk(source, result, objects, executor, progress)
        for root in _roots(trusted, history, options):
            walk.check_root(root, options.subtree)
        objects.finish()
    result.objects, result.external = objects.count, objects.external
    for problem in (
        *check_tags(history, trusted, stored),
        *check_reflog(source, trusted, history, reflog),
        *check_meta_info(source, trusted),
    ):
        result.add(problem)
    return result


def _object_check(
    source: RepositorySource,
    options: CheckOptions,
    stored: StoredObjects | None,
    say: Say,
    progress: Progress,
) -> ObjectCheck:
    if options.fetch:
        return ContentCheck(source.store, say, progress, workers=options.workers)
    return NoObjectCheck() if stored is None else ExistenceCheck(stored, say)


@dataclass(frozen=True, slots=True)
class _Root:
    """A root catalog, and what is said of it where it is named."""

    hash: ContentHash
    size: int
    revision: int
    named_by: str


def _roots(trusted: TrustedManifest, history: History, options: CheckOptions) -> Iterator[_Root]:
    def of_tag(tag: Tag) -> _Root:
        return _Root(tag.hash, tag.size, tag.revision, f"tag {tag.name}")

    if options.tag is not None:
        yield of_tag(history.get(options.tag))
        return
    manifest = trusted.manifest
    yield _Root(manifest.root_catalog, manifest.catalog_size, manifest.revision, "manifest")
    if options.all_tags:
        yield from map(of_tag, history.tags)


@dataclass(slots=True)
class _Below:
    """The sum over the children of a catalog, to be held against what the catalog says."""

    path: bytes
    said: Counters
    waiting: int
    found: Counters = field(default_factory=Counters)
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class _Visit:
    """A catalog to be checked: where it is, and what its parent says of it."""

    nested: NestedCatalog
    entry: DirectoryEntry | None = None
    below: _Below | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is remembered of a checked catalog: its own total and its root entry."""

    total: Counters
    root: DirectoryEntry | None


class _Walk:
    """Walks catalogs, each once for all revisions that share it."""

    def __init__(
        self,
        source: RepositorySource,
        result: CheckResult,
        objects: ObjectCheck,
        executor: ThreadPoolExecutor,
        progress: Progress,
    ) -> None:
        self._source = source
        self._result = result
        self._objects = objects
        self._executor = executor
        self._progress = progress
        self._seen: dict[tuple[ContentHash, bytes], _Seen | None] = {}

    def check_root(self, root: _Root, subtree: bytes) -> None:
        """Check the catalogs of a revision. Raises PathNotFound."""
        visit = _Visit(NestedCatalog(b"", root.hash, root.size))
        if subtree:
            visit = self._find(root, subtree)
        level = [visit]
        while level:
            level = self._check_level(level, root)

    def _find(self, root: _Root, subtree: bytes) -> _Visit:
        """The catalog that has the entries of a directory."""
        tree = CatalogTree(self._source.opener, ObjectRef(root.hash, Suffix.CATALOG))
        entry = tree.holding(subtree).find(subtree)
        if entry is None or not entry.is_directory:
            shown = subtree.decode("utf-8", "backslashreplace")
            raise PathNotFound(f"{shown} is no directory in revision {root.revision}")
        found = tree.listing(subtree)
        return _Visit(NestedCatalog(found.mountpoint, found.hash, found.file_size))

    def _check_level(self, level: list[_Visit], root: _Root) -> list[_Visit]:
        children: list[_Visit] = []
        new = [visit for visit in level if self._key(visit) not in self._seen]
        opened = map_ahead(self._executor, self._open, new)
        for visit in level:
            if self._key(visit) not in self._seen:
                found = next(opened)
                if isinstance(found, Catalog):
                    children += self._check(visit, found, root)
                else:
                    self._result.add(problem_at(visit.nested.path, str(found)))
                    self._seen[self._key(visit)] = None
            self._check_transition(visit)
        return children

    @staticmethod
    def _key(visit: _Visit) -> tuple[ContentHash, bytes]:
        return visit.nested.hash, visit.nested.path

    def _open(self, visit: _Visit) -> Catalog | StorageError | FormatError:
        """Fetch and open a catalog; or why not: one that is missing does not end the check."""
        ref = ObjectRef(visit.nested.hash, Suffix.CATALOG)
        try:
            fd = self._source.opener.open_object(ref, limit=MAX_CATALOG_BYTES)
            return Catalog(fd, visit.nested.hash, visit.nested.path)
        except (StorageError, FormatError) as error:
            return error

    def _check(self, visit: _Visit, catalog: Catalog, root: _Root) -> list[_Visit]:
        """Check one catalog; its children are what is to be checked next."""
        self._check_identity(visit, catalog, root)
        try:
            report = check_catalog(catalog, self._objects.take, self._objects.take_plain)
            statistics = catalog.statistics
        except FormatError as error:
            self._result.add(problem_at(visit.nested.path, str(error)))
            self._seen[self._key(visit)] = None
            return []
        for problem in report.problems:
            self._result.add(problem)
        self._result.catalogs += 1
        self._result.entries += report.entries
        self._progress("catalogs", self._result.catalogs, None)
        self._seen[self._key(visit)] = _Seen(statistics.total, report.root)
        return list(self._children(catalog, report, statistics.subtree))

    def _check_identity(self, visit: _Visit, catalog: Catalog, root: _Root) -> None:
        path, size = visit.nested.path, visit.nested.size
        if size and size != catalog.file_size:
            what = f"catalog {catalog.hash} has {catalog.file_size} bytes, not {size} as it is said"
            self._result.add(problem_at(path, what))
        if catalog.root_prefix != path:
            what = f"catalog {catalog.hash} was made for {catalog.root_prefix!r}"
            self._result.add(problem_at(path, what))
        if not path and catalog.revision != root.revision:
            what = f"the root catalog is of revision {catalog.revision}, not {root.revision}"
            self._result.add(Problem(root.named_by, what))

    def _children(
        self, catalog: Catalog, report: CatalogReport, said: Counters
    ) -> Iterable[_Visit]:
        """The nested catalogs, all of which count for what the catalog says is below it."""
        nested = [
            (path, entry)
            for path, entry in report.mountpoints.items()
            if path in catalog.nested and not entry.is_bind_mountpoint
        ]
        below = _Below(catalog.mountpoint, said, len(nested))
        if not nested:
            self._compare(below)
        for path, entry in nested:
            yield _Visit(catalog.nested[path], entry, below)

    def _check_transition(self, visit: _Visit) -> None:
        """Hold a checked catalog against its parent."""
        seen, below = self._seen[self._key(visit)], visit.below
        if seen is not None and visit.entry is not None and seen.root is not None:
            different = [
                name
                for name in _SAME_AT_TRANSITION
                if getattr(seen.root, name) != getattr(visit.entry, name)
            ]
            if different:
                what = f"mountpoint and nested root differ in {', '.join(different)}"
                self._result.add(problem_at(visit.nested.path, what))
        if below is None:
            return
        below.waiting -= 1
        if seen is None:
            below.is_known = False
        else:
            below.found += seen.total
        if not below.waiting:
            self._compare(below)

    def _compare(self, below: _Below) -> None:
        if below.is_known and below.found != below.said:
            self._result.add(
                problem_at(below.path, "the subtree counters are not the sum of the children")
            )


_SAME_AT_TRANSITION = ("mode", "size", "mtime", "mtime_ns", "uid", "gid", "nlink", "xattrs")
"""Of all else the nested root is right, and the mountpoint a copy."""
