"""Checking a whole repository: every signature, hash, size, counter and reference.

Reads through the same trust chain and readers as everything else, so what passes here is what a
client would accept; beyond that it asks what no client does: whether the numbers add up and
whether every referenced object is there and is what it should be.
"""

import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.catalog import Counters
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.manifest import Manifest
from outcrop.formats.reflog import Ref, RefType
from outcrop.repository.catalogs import Catalog, CatalogTree
from outcrop.repository.check_catalog import Problem, check_catalog
from outcrop.repository.databases import open_database
from outcrop.repository.files import MAX_FILE_BYTES, Piece
from outcrop.repository.open import RepositorySource
from outcrop.storage.errors import StorageError
from outcrop.storage.store import fetch_object, read_file
from outcrop.trust.chain import TrustedManifest

MAX_REFLOG_BYTES = 1 << 30
WORKERS = 8

Progress = Callable[[str, int, int | None], None]


@dataclass(slots=True)
class CheckResult:
    """The outcome of a check: the repository is sound if there are no problems."""

    fqrn: str
    revision: int
    root_hash: str
    catalogs: int = 0
    entries: int = 0
    objects: int = 0
    external: int = 0
    tags: int = 0
    problems: list[Problem] = field(default_factory=list)


def check_repository(
    source: RepositorySource,
    *,
    now: int,
    data: bool = True,
    tags: bool = False,
    progress: Progress = lambda _phase, _done, _total: None,
) -> CheckResult:
    """Check the trunk, and with `tags` every tagged revision; with `data` fetch every object.

    Raises TrustError, StorageError or FormatError where not even the trunk can be opened.
    """
    trusted = source.fetch_manifest(now=now)
    manifest = trusted.manifest
    result = CheckResult(source.fqrn, manifest.revision, str(manifest.root_catalog))
    checker = _Checker(source, result, progress, check_data=data)
    checker.check_root(manifest.root_catalog, manifest.catalog_size)
    history = source.history(trusted)
    result.tags = len(history.tags)
    if tags:
        for tag in history.tags:
            checker.check_root(tag.hash, tag.size)
    _check_reflog(source, trusted, result)
    _check_meta_info(source, trusted, result)
    if data:
        checker.check_objects()
    return result


class _Checker:
    """Walks catalogs, each once, and collects the objects they name."""

    def __init__(
        self,
        source: RepositorySource,
        result: CheckResult,
        progress: Progress,
        *,
        check_data: bool,
    ) -> None:
        self._source = source
        self._result = result
        self._progress = progress
        self._check_data = check_data
        self._seen: dict[tuple[ContentHash, bytes], Counters] = {}
        self._objects: set[ObjectRef] = set()

    def check_root(self, root_hash: ContentHash, size: int) -> None:
        """Check the catalogs below a root catalog."""
        ref = ObjectRef(root_hash, Suffix.CATALOG, size=size or None)
        tree = CatalogTree(self._source.opener, ref)
        self._check_tree(tree, tree.root)

    def _check_tree(self, tree: CatalogTree, catalog: Catalog) -> Counters:
        """All counters at and below a catalog, as counted. Recursion ends where paths do."""
        key = (catalog.hash, catalog.mountpoint)
        if key in self._seen:
            return self._seen[key]
        report = check_catalog(catalog)
        problems = self._result.problems
        problems += report.problems
        self._result.catalogs += 1
        self._result.entries += report.entries
        self._progress("catalogs", self._result.catalogs, None)
        self._remember(report.pieces)
        below = Counters()
        for path, mountpoint in report.mountpoints.items():
            if mountpoint.is_bind_mountpoint or path not in catalog.nested:
                continue
            try:
                child = tree.listing(path)
                below += self._check_tree(tree, child)
            except (StorageError, FormatError) as error:
                problems.append(Problem(os.fsdecode(path), str(error)))
                continue
            self._check_transition(path, mountpoint.mode, mountpoint.mtime, child)
        if catalog.statistics.subtree != below:
            where = os.fsdecode(catalog.mountpoint or b"/")
            problems.append(Problem(where, "the subtree counters are not the sum of the children"))
        self._seen[key] = report.counters + below
        return self._seen[key]

    def _check_transition(self, path: bytes, mode: int, mtime: int, child: Catalog) -> None:
        root = child.find(path)
        if root is not None and (root.mode, root.mtime) != (mode, mtime):
            self._result.problems.append(
                Problem(os.fsdecode(path), "mountpoint and nested root have different attributes")
            )

    def _remember(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.ref.url_path is not None:
                self._result.external += 1
            elif self._check_data:
                self._objects.add(piece.ref)

    def check_objects(self) -> None:
        """Fetch every object once, in several threads; nothing is kept."""
        work: queue.SimpleQueue[ObjectRef] = queue.SimpleQueue()
        for ref in self._objects:
            work.put(ref)
        total = len(self._objects)
        lock = threading.Lock()

        def run() -> None:
            while True:
                try:
                    ref = work.get_nowait()
                except queue.Empty:
                    return
                problem = self._check_object(ref)
                with lock:
                    self._result.objects += 1
                    if problem is not None:
                        self._result.problems.append(problem)
                    self._progress("objects", self._result.objects, total)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _check_object(self, ref: ObjectRef) -> Problem | None:
        try:
            with Path(os.devnull).open("r+b", buffering=0) as nowhere:
                fetch_object(self._source.store, ref, nowhere, limit=MAX_FILE_BYTES)
        except StorageError as error:
            return Problem(ref.path, str(error))
        return None


def _check_reflog(source: RepositorySource, trusted: TrustedManifest, result: CheckResult) -> None:
    manifest = trusted.manifest
    if manifest.reflog is None:
        return
    try:
        refs = {(ref.hash, ref.type) for ref in _read_reflog(_fetch_reflog(source, manifest))}
    except (StorageError, FormatError, sqlite3.Error) as error:
        result.problems.append(Problem(".cvmfsreflog", str(error)))
        return
    for kind, wanted in (
        (RefType.CATALOG, manifest.root_catalog),
        (RefType.CERTIFICATE, manifest.certificate),
        (RefType.HISTORY, manifest.history),
        (RefType.META_INFO, manifest.meta_info),
    ):
        if wanted is not None and (wanted, kind) not in refs:
            result.problems.append(Problem(".cvmfsreflog", f"does not list {kind.name} {wanted}"))


def _fetch_reflog(source: RepositorySource, manifest: Manifest) -> bytes:
    data = read_file(source.store, ".cvmfsreflog", limit=MAX_REFLOG_BYTES)
    found = ContentHash.of(data, manifest.algorithm)
    # Garbage collection rewrites the reflog, but not the signed manifest (spec 14, quirk 3).
    if found != manifest.reflog and not manifest.garbage_collectable:
        raise FormatError(f"content hash is {found}, the manifest says {manifest.reflog}")
    return data


def _read_reflog(data: bytes) -> list[Ref]:
    fd = os.memfd_create("reflog")
    try:
        os.write(fd, data)
        database = open_database(fd)
        try:
            rows = database.execute("SELECT hash, type, timestamp FROM refs").fetchall()
        finally:
            database.close()
    finally:
        os.close(fd)
    return [Ref.from_row(row) for row in rows]


def _check_meta_info(
    source: RepositorySource, trusted: TrustedManifest, result: CheckResult
) -> None:
    try:
        source.meta_info(trusted)
    except StorageError as error:
        result.problems.append(Problem("meta info", str(error)))
