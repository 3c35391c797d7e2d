"""Opening a repository at a revision: the trunk, a tag, a date or a root hash.

The trunk is what the trust chain says it is. A first look costs four requests: manifest,
whitelist, certificate and root catalog; with a warm cache only the mutable two.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.manifest import Breadcrumb, Manifest
from outcrop.repository.catalogs import CatalogTree
from outcrop.repository.history import History, read_history
from outcrop.repository.shortcuts import with_shortcut
from outcrop.repository.tree import Revision
from outcrop.storage.errors import StorageError
from outcrop.storage.store import ObjectOpener, ObjectStore, read_file
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import (
    TrustedManifest,
    read_manifest_unverified_pointer,
    verify_manifest,
    verify_whitelist,
)
from outcrop.trust.errors import CertificateNotListed, TrustError
from outcrop.trust.keys import PublicKey

log = logging.getLogger(__name__)

MAX_MANIFEST_BYTES = 64 << 10
MAX_WHITELIST_BYTES = 1 << 20
MAX_CERTIFICATE_BYTES = 1 << 20
MAX_META_INFO_BYTES = 64 << 10


class Breadcrumbs(Protocol):
    """Remembers between mounts which revision was seen last (spec 4.4); the cache does."""

    def read_breadcrumb(self, fqrn: str) -> Breadcrumb | None:
        """What was seen last, `None` if nothing was or it cannot be read."""

    def write_breadcrumb(self, fqrn: str, breadcrumb: Breadcrumb) -> None:
        """Remember."""


def _nowhere_else() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RepositorySource:
    """Where a repository's bytes come from and whom to believe about them."""

    fqrn: str
    store: ObjectStore
    opener: ObjectOpener
    public_keys: Sequence[PublicKey]
    blacklist: Blacklist
    breadcrumbs: Breadcrumbs | None = None
    switch_host: Callable[[], bool] = _nowhere_else
    """Ask another host from now on; `False` if there is none."""

    def fetch_manifest(self, *, now: int, not_before: Breadcrumb | None = None) -> TrustedManifest:
        """Fetch and verify the manifest of the trunk. Raises TrustError, StorageError.

        `now` is unix time. With `not_before` an older manifest is refused (replay protection). A
        host whose answer cannot be believed, a stale replica for one, is left once for the next
        (spec 4.3).
        """
        try:
            return self._fetch_manifest(now, not_before)
        except (TrustError, FormatError) as error:
            if isinstance(error, CertificateNotListed) or not self.switch_host():
                raise
            log.warning("%s: asking another host: %s", self.fqrn, error)
            return self._fetch_manifest(now, not_before)

    def _fetch_manifest(self, now: int, not_before: Breadcrumb | None) -> TrustedManifest:
        data = read_file(self.store, ".cvmfspublished", limit=MAX_MANIFEST_BYTES)
        pointer = read_manifest_unverified_pointer(data)
        certificate = b""
        if pointer.certificate is not None:
            ref = ObjectRef(pointer.certificate, Suffix.CERTIFICATE)
            certificate = with_shortcut(
                ref, pointer, lambda ref: self._read_small(ref, MAX_CERTIFICATE_BYTES)
            )
        whitelist = verify_whitelist(
            read_file(self.store, ".cvmfswhitelist", limit=MAX_WHITELIST_BYTES),
            master_keys=self.public_keys,
            fqrn=self.fqrn,
            now=now,
        )
        return verify_manifest(
            data,
            certificate=certificate,
            whitelist=whitelist,
            fqrn=self.fqrn,
            blacklist=self.blacklist,
            not_before=not_before,
        )

    def _read_small(self, ref: ObjectRef, limit: int) -> bytes:
        fd = self.opener.open_object(ref, limit=limit)
        with os.fdopen(fd, "rb") as file:
            return file.read(limit)

    def open_trunk(self, *, now: int) -> Revision:
        """Open the newest revision. Raises TrustError, StorageError, FormatError.

        With breadcrumbs a server that cannot be reached or believed leaves the revision seen
        last, if all that is needed of it is in the cache.
        """
        known = self.breadcrumbs.read_breadcrumb(self.fqrn) if self.breadcrumbs else None
        try:
            manifest = self.fetch_manifest(now=now, not_before=known)
        except (StorageError, TrustError) as error:
            if known is None:
                raise
            log.warning("%s: offline, using the revision seen last: %s", self.fqrn, error)
            return self._open_offline(known, error)
        return self.open_manifest(manifest)

    def _open_offline(self, known: Breadcrumb, cause: StorageError | TrustError) -> Revision:
        root = ObjectRef(known.root_catalog, Suffix.CATALOG)
        try:
            return Revision(self.fqrn, self.opener, CatalogTree(self.opener, root))
        except StorageError:
            raise cause from None

    def open_manifest(
        self, trusted: TrustedManifest, *, previous: Revision | None = None
    ) -> Revision:
        """Open the revision a verified manifest points at, and remember having seen it."""
        manifest = trusted.manifest
        root = ObjectRef(manifest.root_catalog, Suffix.CATALOG, size=manifest.catalog_size or None)
        before = previous.catalogs if previous is not None else None
        catalogs = with_shortcut(
            root, manifest, lambda ref: CatalogTree(self.opener, ref, previous=before)
        )
        self._remember(manifest)
        return Revision(self.fqrn, self.opener, catalogs, trusted)

    def _remember(self, manifest: Manifest) -> None:
        if self.breadcrumbs is None:
            return
        seen = Breadcrumb(manifest.root_catalog, manifest.published_at, manifest.revision)
        try:
            self.breadcrumbs.write_breadcrumb(self.fqrn, seen)
        except StorageError as error:
            # A read-only or full cache still serves; it only cannot start offline from here.
            log.warning("%s: the revision seen is not remembered: %s", self.fqrn, error)

    def history(self, trusted: TrustedManifest) -> History:
        """The tags a verified manifest points at."""
        return read_history(self.opener, trusted.manifest.history)

    def open_tag(self, name: str, *, now: int) -> Revision:
        """Open the revision with that tag. Raises TagNotFound."""
        trusted = self.fetch_manifest(now=now)
        tag = self.history(trusted).get(name)
        return self._open_root(tag.hash, tag.size, trusted, name)

    def open_date(self, timestamp: int, *, now: int) -> Revision:
        """Open the newest tagged revision not younger than a unix time. Raises TagNotFound."""
        trusted = self.fetch_manifest(now=now)
        tag = self.history(trusted).get_at(timestamp)
        return self._open_root(tag.hash, tag.size, trusted, tag.name)

    def open_root_hash(self, root_hash: ContentHash) -> Revision:
        """Open a root catalog the caller vouches for by naming its hash; nothing is signed."""
        return self._open_root(root_hash, 0, None, None)

    def _open_root(
        self, root_hash: ContentHash, size: int, trusted: TrustedManifest | None, tag: str | None
    ) -> Revision:
        root = ObjectRef(root_hash, Suffix.CATALOG, size=size or None)
        return Revision(self.fqrn, self.opener, CatalogTree(self.opener, root), trusted, tag)

    def meta_info(self, trusted: TrustedManifest) -> bytes | None:
        """The JSON text of the meta information object; `None` where there is none."""
        if trusted.manifest.meta_info is None:
            return None
        ref = ObjectRef(trusted.manifest.meta_info, Suffix.META_INFO)
        return self._read_small(ref, MAX_META_INFO_BYTES)
