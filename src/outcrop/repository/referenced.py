"""All objects that the revisions of a reflog refer to, each once."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.reflog import RefType
from outcrop.repository.hash_set import HashSet
from outcrop.repository.reachable import CatalogReader, iter_objects, nested_catalogs
from outcrop.repository.reflog import Reflog
from outcrop.storage.store import ObjectStore, WritableStore


def iter_referenced(
    store: ObjectStore, fqrn: str, reflog: ContentHash | None, scratch: Path
) -> Iterator[ContentHash]:
    """Catalogs, their objects, tag databases, certificates and meta information.

    `reflog` is the checksum of the reflog, which must be there. Raises ReflogMissing, StorageError,
    FormatError.
    """
    algorithm = reflog.algorithm if reflog is not None else HashAlgorithm.SHA1
    # It is only read, which takes no more than any store can do.
    log = Reflog(
        cast("WritableStore", store),
        scratch / "reflog.chksum",
        fqrn,
        algorithm,
    )
    refs = log.read_complete(reflog)
    seen = HashSet()
    reader = CatalogReader(store, scratch)
    waiting = [ref.hash for ref in refs if ref.type is RefType.CATALOG]
    while waiting:
        content_hash = waiting.pop()
        if not seen.add(content_hash.digest):
            continue
        yield content_hash
        with reader.open(content_hash) as catalog:
            waiting += nested_catalogs(catalog)
            for batch in iter_objects(catalog):
                for digest in seen.add_all(batch.digests):
                    yield ContentHash(batch.algorithm, digest)
    for ref in refs:
        if ref.type is not RefType.CATALOG and seen.add(ref.hash.digest):
            yield ref.hash
