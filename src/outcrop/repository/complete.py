"""Whether a revision is all there: garbage collection may have taken part of it and been killed.

What it has in common with a revision that is kept is there in any case, so only catalogs that
differ from those at the same place are looked into.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.repository.catalogs import MAX_CATALOG_BYTES, Catalog
from outcrop.repository.errors import RepositoryIncomplete
from outcrop.repository.hash_set import divided
from outcrop.repository.reachable import iter_objects
from outcrop.storage.errors import ObjectNotFound
from outcrop.storage.store import ObjectOpener, WritableStore

_THREADS = 8
_AT_ONCE = 10_000


def require_complete(
    store: WritableStore, opener: ObjectOpener, root: ContentHash, kept: ContentHash
) -> None:
    """See that nothing of a revision is missing; `kept` is the root catalog of the trunk.

    Objects are looked up, not read. Raises RepositoryIncomplete, StorageError, FormatError.
    """
    names = _iter_names(opener, root, kept)
    with ThreadPoolExecutor(_THREADS) as executor:
        while batch := list(islice(names, _AT_ONCE)):
            for name, is_there in zip(batch, executor.map(store.exists, batch), strict=True):
                if not is_there:
                    raise _incomplete(root, name)


def _incomplete(root: ContentHash, name: str) -> RepositoryIncomplete:
    return RepositoryIncomplete(
        f"the revision with the root catalog {root} is not all there: {name} is missing",
        hint="a garbage collection may have begun to delete it; "
        "outcrop check --tag or --all-tags tells what else is missing",
    )


def _iter_names(opener: ObjectOpener, root: ContentHash, kept: ContentHash) -> Iterator[str]:
    """The objects that are named by catalogs which the kept revision does not have there."""
    waiting: list[tuple[ContentHash, ContentHash | None]] = [(root, kept)]
    while waiting:
        wanted, other = waiting.pop()
        if wanted == other:
            continue
        try:
            catalog = _open(opener, wanted)
        except ObjectNotFound as error:
            raise _incomplete(root, ObjectRef(wanted, Suffix.CATALOG).path) from error
        for batch in iter_objects(catalog):
            yield from map(batch.name_of, divided(batch.digests))
        beside = _nested(_open(opener, other)) if other is not None else {}
        waiting += [(found, beside.get(path)) for path, found in _nested(catalog).items()]


def _open(opener: ObjectOpener, content_hash: ContentHash) -> Catalog:
    fd = opener.open_object(ObjectRef(content_hash, Suffix.CATALOG), limit=MAX_CATALOG_BYTES)
    return Catalog(fd, content_hash)


def _nested(catalog: Catalog) -> dict[bytes, ContentHash]:
    """The nested catalogs by path, without those bound from elsewhere."""
    try:
        rows = catalog.query("SELECT path, sha1 FROM nested_catalogs")
        return {path: ContentHash.parse(text.decode("ascii")) for path, text in rows}
    except (AttributeError, UnicodeDecodeError) as error:
        raise FormatError(f"catalog {catalog.hash}: a nested catalog's hash is no text") from error
