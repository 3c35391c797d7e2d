"""Finding the references of a lost reflog: what can still be walked to from the manifest (spec 11).

The predecessors of the trunk and of every tagged revision, and of the tag database, until one is
missing. Revisions beyond a gap that a garbage collection left are not found unless they have tags.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.manifest import Manifest
from outcrop.formats.reflog import Ref, RefType
from outcrop.repository.commit import MAX_HISTORY_BYTES
from outcrop.repository.history import History
from outcrop.repository.mark import Progress
from outcrop.repository.reachable import CatalogReader
from outcrop.repository.tag_database import TagDatabase
from outcrop.storage.errors import ObjectCorrupt, ObjectNotFound
from outcrop.storage.store import WritableStore, read_object


def find_refs(
    store: WritableStore,
    manifest: Manifest,
    history: History,
    *,
    now: int,
    scratch: Path,
    progress: Progress,
) -> list[Ref]:
    """All references that can be found, each once.

    A root catalog is recorded with the time it was written, so that a later garbage collection
    knows its age; all else with `now`. Damaged objects are passed over. Raises StorageError.
    """
    reader = CatalogReader(store, scratch)
    tagged = [tag.hash for tag in history.tags]
    refs: list[Ref] = []
    for ref in _catalogs(reader, [manifest.root_catalog, *tagged]):
        refs.append(ref)
        progress("revisions", len(refs), None)
    refs += (Ref(found, RefType.HISTORY, now) for found in _histories(store, manifest.history))
    for named, kind in (
        (manifest.certificate, RefType.CERTIFICATE),
        (manifest.meta_info, RefType.META_INFO),
    ):
        if named is not None:
            refs.append(Ref(named, kind, now))
    return refs


def _catalogs(reader: CatalogReader, roots: Iterable[ContentHash]) -> Iterator[Ref]:
    waiting = deque(roots)
    seen: set[ContentHash] = set()
    while waiting:
        root = waiting.popleft()
        if root in seen:
            continue
        seen.add(root)
        try:
            with reader.open(root) as catalog:
                previous, modified_at = catalog.previous, catalog.last_modified
        except (ObjectNotFound, ObjectCorrupt, FormatError):
            continue
        yield Ref(root, RefType.CATALOG, modified_at)
        if previous is not None:
            waiting.append(previous)


def _histories(store: WritableStore, newest: ContentHash | None) -> Iterator[ContentHash]:
    seen: set[ContentHash] = set()
    found = newest
    while found is not None and found not in seen:
        seen.add(found)
        try:
            data = read_object(store, ObjectRef(found, Suffix.HISTORY), limit=MAX_HISTORY_BYTES)
            with TagDatabase.open(data) as database:
                previous = database.previous
        except (ObjectNotFound, ObjectCorrupt, FormatError):
            return
        yield found
        found = previous
