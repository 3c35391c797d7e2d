"""Garbage collection: delete what no kept revision needs (spec 14). Mark, then sweep.

The order of deletions is what makes a collection that was cut short harmless and repeatable: the
objects of a condemned catalog go before it, nested catalogs before those that name them, and the
reflog forgets a revision last of all. So whatever is left can be found again. Readers of kept
revisions are not disturbed.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, Suffix
from outcrop.formats.manifest import Manifest
from outcrop.formats.reflog import Ref, RefType
from outcrop.repository.errors import NotCollectable, RepositoryIncomplete
from outcrop.repository.hash_set import DIGEST_BYTES, HashSet, divided, padded
from outcrop.repository.mark import Keep, Marker, Progress
from outcrop.repository.reachable import (
    CatalogReader,
    ObjectBatch,
    iter_objects,
    map_ahead,
    nested_catalogs,
)
from outcrop.repository.reflog import Reflog
from outcrop.repository.shortcuts import remove_dangling
from outcrop.repository.stored import name_of, parse_object_name
from outcrop.storage.errors import ObjectCorrupt, ObjectNotFound, ObjectTooBig
from outcrop.storage.store import DatedStore, WritableStore, remove_files

_BATCH_NAMES = 200
_BATCH_ORPHANS = 10_000
_WITH_SHORTCUT = "CHMX"

Log = Callable[[str], None]
"""Takes the hash of each object that is deleted, with its suffix letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """What to keep, and how to go about the rest.

    In a dry run nothing is deleted. With `orphans_before` (unix time) objects that no catalog
    refers to and the reflog does not know are deleted too, if they are older. With `measure` the
    bytes are counted, which takes a look at each object.
    """

    keep: Keep
    dry_run: bool = False
    orphans_before: int | None = None
    measure: bool = False
    workers: int = 4


@dataclass(slots=True, kw_only=True)
class Collected:
    """What a collection came to; in a dry run, what it would come to.

    `objects` counts everything deleted: files, chunks, catalogs, and of what is neither
    `auxiliary` (tag databases, certificates, meta information) and `orphans`. `repeated` is how
    often an object was condemned again. `incomplete` are kept revisions that lack catalogs,
    `damaged` condemned catalogs that could not be read: what they refer to is left as orphans.
    """

    preserved_revisions: int = 0
    preserved_catalogs: int = 0
    preserved_objects: int = 0
    condemned_revisions: int = 0
    condemned_catalogs: int = 0
    objects: int = 0
    auxiliary: int = 0
    orphans: int = 0
    repeated: int = 0
    condemned_bytes: int | None = None
    incomplete: list[ContentHash] = field(default_factory=list)
    damaged: list[ContentHash] = field(default_factory=list)


def collect(
    store: WritableStore,
    reflog: Reflog,
    manifest: Manifest,
    tagged: Iterable[ContentHash],
    options: CollectOptions,
    *,
    scratch: Path,
    log: Log | None = None,
    progress: Progress = lambda _phase, _done, _total: None,
) -> Collected:
    """Delete what neither the manifest's trunk with its kept predecessors nor a tag needs.

    `tagged` are the root catalogs of all tags. The caller keeps publishers away. Raises
    NotCollectable, ReflogMissing, RepositoryIncomplete, StorageError, FormatError; up to the first
    deletion always without having changed anything.
    """
    _check_collectable(manifest)
    refs = reflog.read_complete(manifest.reflog)
    with ThreadPoolExecutor(options.workers) as readers, ThreadPoolExecutor(options.workers) as own:
        reader = CatalogReader(store, scratch)
        added_at = {ref.hash: ref.timestamp for ref in refs if ref.type is RefType.CATALOG}
        marker = Marker(reader, readers, added_at, progress)
        marker.mark_trunk(manifest.root_catalog, options.keep)
        marker.mark_tags(tagged)
        marked = marker.marked
        result = Collected(
            preserved_revisions=len(marked.revisions),
            preserved_catalogs=marked.catalogs,
            preserved_objects=len(marked.preserved),
            condemned_bytes=0 if options.measure else None,
            incomplete=marked.incomplete,
        )
        deleter = _Deleter(store, own, options, result, log, progress)
        deleter.has_shortcuts = manifest.has_alternative_paths
        sweeper = _Sweeper(reader, readers, deleter, marked.preserved, result, progress)
        gone = sweeper.sweep([ref for ref in refs if ref.type is RefType.CATALOG])
        gone += sweeper.sweep_auxiliary(refs, manifest, marked.oldest_at)
        if gone and not options.dry_run:
            store.sync()
            reflog.remove(gone)
        if options.orphans_before is not None:
            sweeper.sweep_orphans(store, refs, manifest, options.orphans_before)
        if not options.dry_run:
            remove_dangling(store)
    return result


def _check_collectable(manifest: Manifest) -> None:
    if not manifest.garbage_collectable:
        raise NotCollectable(
            f"{manifest.fqrn}: the repository is not garbage collectable",
            hint="CVMFS_GARBAGE_COLLECTION=true in its server.conf, and publish once",
        )


class _Deleter:
    """Deletes objects in several threads, counts them and writes them down."""

    def __init__(
        self,
        store: WritableStore,
        executor: Executor,
        options: CollectOptions,
        result: Collected,
        log: Log | None,
        progress: Progress,
    ) -> None:
        self._store = store
        self._executor = executor
        self._options = options
        self._result = result
        self._log = log
        self._progress = progress
        self.has_shortcuts = False

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; they are gone when this returns. Raises StorageError."""
        batches = [names[at : at + _BATCH_NAMES] for at in range(0, len(names), _BATCH_NAMES)]
        if self._log is not None:
            for name in names:
                self._log(_hash_in(name))
        for size in self._executor.map(self._delete_batch, batches):
            if self._result.condemned_bytes is not None:
                self._result.condemned_bytes += size
        self._result.objects += len(names)
        verb = "would delete" if self._options.dry_run else "deleting"
        self._progress(f"{verb} objects", self._result.objects, None)

    def _delete_batch(self, names: Sequence[str]) -> int:
        size = 0
        for name in names:
            if self._options.measure and isinstance(self._store, DatedStore):
                facts = self._store.find_facts(name)
                size += facts.size if facts is not None else 0
        if not self._options.dry_run:
            if self.has_shortcuts:
                shortcuts = [f".cvmfsalt-{_hash_in(n)}" for n in names if n[-1] in _WITH_SHORTCUT]
                remove_files(self._store, shortcuts)
            remove_files(self._store, names)
        return size


def _hash_in(name: str) -> str:
    """The hash with its suffix letter, out of `data/XX/REST`."""
    return name.removeprefix("data/").replace("/", "", 1)


class _Sweeper:
    """Finds what the condemned revisions refer to and nobody else needs."""

    def __init__(
        self,
        reader: CatalogReader,
        readers: Executor,
        deleter: _Deleter,
        preserved: HashSet,
        result: Collected,
        progress: Progress,
    ) -> None:
        self._reader = reader
        self._readers = readers
        self._deleter = deleter
        self._preserved = preserved
        self._condemned: dict[str, HashSet] = {}
        self._result = result
        self._progress = progress

    def sweep(self, revisions: Iterable[Ref]) -> list[Ref]:
        """Delete the revisions that are not preserved; these are returned."""
        condemned = [ref for ref in revisions if ref.hash.digest not in self._preserved]
        condemned.sort(key=lambda ref: -ref.timestamp)
        self._result.condemned_revisions = len(condemned)
        levels: list[list[ContentHash]] = []
        level = self._new_catalogs(ref.hash for ref in condemned)
        while level:
            levels.append(level)
            level = self._sweep_level(level)
        # Each catalog is named by one of the level above, which is there for longer.
        for level in reversed(levels):
            self._deleter.delete([name_of(catalog, Suffix.CATALOG) for catalog in level])
        return condemned

    def sweep_auxiliary(self, refs: Iterable[Ref], manifest: Manifest, oldest_at: int) -> list[Ref]:
        """Delete tag databases and the like that are older than all kept revisions of the trunk."""
        used = _auxiliary(manifest)
        gone = [
            ref
            for ref in refs
            if ref.type is not RefType.CATALOG
            and ref.timestamp < oldest_at
            and ref.hash not in used
        ]
        self._deleter.delete([name_of(ref.hash, ref.type.suffix) for ref in gone])
        self._result.auxiliary = len(gone)
        return gone

    def sweep_orphans(
        self, store: WritableStore, refs: Iterable[Ref], manifest: Manifest, before: int
    ) -> None:
        """Delete what nobody knows of: remains of publishers that died, and of damaged catalogs.

        Raises RepositoryIncomplete where an object may seem unknown only because the catalog that
        knows it is missing.
        """
        if self._result.incomplete:
            raise RepositoryIncomplete(
                f"{manifest.fqrn}: {len(self._result.incomplete)} kept revisions lack catalogs, so "
                "nobody can tell which objects are orphans",
                hint="outcrop check --tags tells what is missing",
            )
        if not isinstance(store, DatedStore):
            raise NotCollectable(
                f"{manifest.fqrn}: its store does not tell how old an object is, so orphans cannot "
                "be told from objects being published"
            )
        known = {ref.hash.digest for ref in refs} | {
            content_hash.digest for content_hash in _auxiliary(manifest)
        }
        found: list[str] = []
        for name in store.iter_names("data/"):
            if self._is_orphan(store, name, known, before):
                found.append(name)
            if len(found) == _BATCH_ORPHANS:
                self._delete_orphans(found)
        self._delete_orphans(found)

    def _is_orphan(self, store: DatedStore, name: str, known: set[bytes], before: int) -> bool:
        parsed = parse_object_name(name)
        if parsed is None or parsed.digest in known or parsed.digest in self._preserved:
            return False
        condemned = self._condemned.get(parsed.ending)
        if condemned is not None and parsed.digest in condemned:
            return False
        facts = store.find_facts(name)
        return facts is not None and facts.modified_at < before

    def _delete_orphans(self, names: list[str]) -> None:
        self._deleter.delete(names)
        self._result.orphans += len(names)
        names.clear()

    def _new_catalogs(self, hashes: Iterable[ContentHash]) -> list[ContentHash]:
        return [
            found
            for found in hashes
            if found.digest not in self._preserved
            and self._condemn(found.algorithm.text_suffix + Suffix.CATALOG, padded(found.digest))
        ]

    def _condemn(self, ending: str, digests: bytes) -> list[bytes]:
        new = self._condemned.setdefault(ending, HashSet()).add_all(digests)
        self._result.repeated += len(digests) // DIGEST_BYTES - len(new)
        return new

    def _sweep_level(self, level: Sequence[ContentHash]) -> list[ContentHash]:
        """Delete the objects of catalogs; the condemned catalogs below."""
        below: list[ContentHash] = []
        for nested, batches in map_ahead(self._readers, self._read, level):
            below += self._new_catalogs(nested)
            for batch in batches:
                new = self._condemn(batch.ending, batch.digests)
                self._deleter.delete([batch.name_of(digest) for digest in new])
            self._result.condemned_catalogs += 1
            self._progress("reading condemned catalogs", self._result.condemned_catalogs, None)
        return below

    def _read(self, content_hash: ContentHash) -> tuple[list[ContentHash], list[ObjectBatch]]:
        """What a condemned catalog refers to that is not preserved; nothing if it is gone."""
        batches: list[ObjectBatch] = []
        try:
            with self._reader.open(content_hash) as catalog:
                for batch in iter_objects(catalog):
                    unneeded = [d for d in divided(batch.digests) if d not in self._preserved]
                    batches.append(replace(batch, digests=b"".join(unneeded)))
                return nested_catalogs(catalog), batches
        except ObjectNotFound:
            return [], batches
        except (ObjectCorrupt, ObjectTooBig, FormatError):
            self._result.damaged.append(content_hash)
            return [], batches


def _auxiliary(manifest: Manifest) -> set[ContentHash]:
    """What the manifest names beside its root catalog."""
    named = (
        manifest.certificate, manifest.history, manifest.meta_info, manifest.micro_catalog,
        manifest.root_catalog,
    )  # fmt: skip
    return {content_hash for content_hash in named if content_hash is not None}
