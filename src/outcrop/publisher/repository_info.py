"""The trunk signed again as it is: with other meta information, or after its key was replaced."""

from collections.abc import Mapping
from typing import Any

from outcrop.formats.meta_info import SKELETON, parse_meta_info, serialize_meta_info
from outcrop.publisher.keyring import sign_again
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.session import local_errors, read_signing_keys
from outcrop.publisher.upkeep import StratumZeroSource
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore
from outcrop.trust.chain import TrustedManifest


def read_repository_info(
    locations: Locations, fqrn: str, *, now: int, store: WritableStore | None = None
) -> dict[str, Any]:
    """The meta information of a repository that is published here; a skeleton where it has none.

    Raises RepositoryNotFound, TrustError, StorageError, FormatError.
    """
    opened = StratumZeroSource.open(locations, fqrn, store=store)
    data = opened.source.meta_info(opened.source.fetch_manifest(now=now))
    return parse_meta_info(data) if data is not None else dict(SKELETON)


def sign_trunk_again(
    locations: Locations,
    fqrn: str,
    *,
    meta_info: Mapping[str, Any] | None = None,
    now: int,
    store: WritableStore | None = None,
    wait_seconds: float = 0.0,
) -> TrustedManifest:
    """Sign the trunk with the key of the key directory; with `meta_info` in place of what it has.

    The revision stays the same. Raises PublishInProgress, TransactionOpen, TrustError (also if
    readers would not believe that key), StorageError, FormatError.
    """
    data = serialize_meta_info(meta_info) if meta_info is not None else None
    opened = StratumZeroSource.open(locations, fqrn, store=store)
    settings = opened.settings
    with local_errors(fqrn):
        settings.spool.mkdir(parents=True, exist_ok=True)
        with publishing_lock(settings.spool, fqrn, wait_seconds=wait_seconds):
            base = opened.source.fetch_manifest(now=now)
            keys = read_signing_keys(locations, fqrn)
            return sign_again(
                settings, opened.store, keys, base.whitelist, base, now=now, meta_info=data
            )
