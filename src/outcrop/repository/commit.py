"""Making what an editor holds the next revision: objects first, the signed manifest last.

Catalogs are stored from the deepest up, then root, history, certificate and meta info; all that is
recorded in the reflog and made durable, and only then is `.cvmfspublished` replaced, by a rename.
Whenever this ends early, readers see the old revision, and nothing they see is touched.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from outcrop.formats.catalog import NestedCatalog, Statistics
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.formats.history import TRUNK, Tag
from outcrop.formats.manifest import Breadcrumb, Manifest
from outcrop.formats.reflog import Ref, RefType
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.errors import RevisionConflict
from outcrop.repository.object_writer import ObjectWriter
from outcrop.repository.reflog import Reflog
from outcrop.repository.shortcuts import make_shortcuts
from outcrop.repository.tag_database import TagDatabase
from outcrop.repository.working_catalog import WorkingCatalog
from outcrop.storage.errors import FileChanged
from outcrop.storage.store import read_object
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import TrustedManifest, TrustedWhitelist, verify_manifest
from outcrop.trust.signing import sign_manifest

MANIFEST = ".cvmfspublished"
MAX_HISTORY_BYTES = 1 << 30

HistoryEdit = Callable[[TagDatabase], None]
"""Brings a history up to date; called once, before anything is written."""

FollowUp = Callable[[Manifest, Sequence[Tag]], NestedCatalog | None]
"""Stores the root catalog of one more revision, on top of a manifest's, for what can only be known
when that one has its tags; `None` if there is nothing to be added."""


@dataclass(frozen=True, slots=True)
class NewTag:
    """A name the new revision gets."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The certificate and its private key, as PEM."""

    certificate_pem: bytes
    repository_key_pem: bytes

    def __repr__(self) -> str:
        return "SigningKeys(…)"


@dataclass(frozen=True, slots=True)
class StoredCatalogs:
    """What storing an editor's catalogs came to.

    `root` and its `statistics`, the number of entries in each catalog that was written by
    mountpoint, and what the store grew by.
    """

    root: NestedCatalog
    statistics: Statistics
    entries: Mapping[bytes, int]
    new_bytes: int


def store_catalogs(
    editor: CatalogEditor,
    writer: ObjectWriter,
    executor: Executor,
    *,
    now: int,
    ttl: int,
    revision: int | None = None,
) -> StoredCatalogs:
    """Seal and store every catalog that changed, deepest first, siblings in parallel.

    `revision` is the root catalog's new number; without it each catalog counts for itself.
    """
    if revision is not None:
        editor.root.set_properties(revision=revision - 1)  # sealing adds one

    def store(catalog: WorkingCatalog) -> tuple[NestedCatalog, Statistics, int]:
        statistics = catalog.seal(now=now, ttl=None if catalog.mountpoint else ttl)
        plain = catalog.file.read_bytes()
        stored = writer.put(plain, Suffix.CATALOG)
        nested = NestedCatalog(catalog.mountpoint, stored.hash, len(plain))
        return nested, statistics, stored.new_bytes

    new_bytes = 0
    entries: dict[bytes, int] = {}
    for level in editor.dirty_levels():
        # All are stored before any is settled: settling may close one to stay below the limit.
        stored_level = list(executor.map(store, level))
        for catalog, (nested, statistics, grown) in zip(level, stored_level, strict=True):
            editor.settle(catalog, nested, statistics)
            entries[catalog.mountpoint] = statistics.self_.entries
            new_bytes += grown
    return StoredCatalogs(nested, statistics, entries, new_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What it takes to make a revision the trunk.

    `base` is the manifest it succeeds (`None`: the repository's first); it must still be the one
    that is served when the new one takes its place. `now` is the unix time of publication. With
    `follow_up` one more revision may come at once after each.
    """

    writer: ObjectWriter
    reflog: Reflog
    keys: SigningKeys
    whitelist: TrustedWhitelist
    base: TrustedManifest | None
    now: int
    follow_up: FollowUp | None = None

    def sign(
        self,
        template: Manifest,
        root: NestedCatalog,
        revision: int,
        tags: Sequence[NewTag],
        *,
        removed_tags: Collection[str] = (),
    ) -> TrustedManifest:
        """Store all that belongs to a new root catalog, and make it the trunk.

        `template` has what stays from revision to revision: name, ttl, garbage collection, meta
        info. `removed_tags` go from the history before `tags` are set. Raises RevisionConflict if
        the trunk is not `base` any more, TrustError if clients would not accept the result.
        """
        at = Tag("", root.hash, root.size, revision, self.now)

        def edit(history: TagDatabase) -> None:
            for name in removed_tags:
                history.remove(name)
            if removed_tags:
                history.prune_branches()
            for wanted in tags:
                history.put(replace(at, name=wanted.name, description=wanted.description))
            history.move_trunk(at)

        manifest = replace(
            template, root_catalog=root.hash, catalog_size=root.size, revision=revision
        )
        return self.sign_edited(manifest, edit)

    def sign_edited(
        self, manifest: Manifest, edit: HistoryEdit, *, other_roots: Sequence[ContentHash] = ()
    ) -> TrustedManifest:
        """Make the revision that `manifest` names the trunk, with an edited history.

        Certificate, history, reflog checksum and time of the manifest are set here. It may be the
        trunk already, if only its tags change. `other_roots` are stored root catalogs that some
        tag keeps. Raises RevisionConflict, TrustError.
        """
        certificate = self.writer.put(self.keys.certificate_pem, Suffix.CERTIFICATE).hash
        other_roots = (manifest.root_catalog, *other_roots)
        manifest, history = self._store_history(manifest, edit)
        roots = {manifest.root_catalog: None, **dict.fromkeys(other_roots)}
        refs = [Ref(root, RefType.CATALOG, self.now) for root in roots]
        refs += [
            Ref(content_hash, kind, self.now)
            for content_hash, kind in (
                (certificate, RefType.CERTIFICATE),
                (history, RefType.HISTORY),
                (manifest.meta_info, RefType.META_INFO),
            )
            if content_hash is not None
        ]
        trusted = self._sign(
            replace(
                manifest,
                certificate=certificate,
                history=history,
                published_at=self.now,
                reflog=self.reflog.add(refs),
            )
        )
        if trusted.manifest.has_alternative_paths:
            make_shortcuts(self.writer.store, trusted.manifest)
        self._replace_manifest(trusted)
        return trusted

    def _store_history(self, manifest: Manifest, edit: HistoryEdit) -> tuple[Manifest, ContentHash]:
        """Edit the history, and have the revision followed by the one that shows it, if any."""
        with self._open_history(manifest) as history:
            edit(history)
            root = self.follow_up(manifest, history.tags()) if self.follow_up else None
            if root is not None:
                number = manifest.revision + 1
                trunk = history.find(TRUNK)
                if trunk is not None:
                    at = Tag("", root.hash, root.size, number, self.now)
                    history.put(
                        replace(at, name=TRUNK, description=trunk.description, branch=trunk.branch)
                    )
                manifest = replace(
                    manifest,
                    root_catalog=root.hash,
                    catalog_size=root.size,
                    revision=number,
                    micro_catalog=None,
                )
            stored = self.writer.put(history.serialize(manifest.history), Suffix.HISTORY)
        return manifest, stored.hash

    def _open_history(self, template: Manifest) -> TagDatabase:
        if template.history is None:
            return TagDatabase.create(template.fqrn or "")
        return open_history(self.writer, template.history)

    def _sign(self, manifest: Manifest) -> TrustedManifest:
        """Sign, and look at the result as a client would."""
        data = sign_manifest(manifest, self.keys.repository_key_pem, self.writer.algorithm)
        return verify_manifest(
            data,
            certificate=self.keys.certificate_pem,
            whitelist=self.whitelist,
            fqrn=manifest.fqrn or "",
            blacklist=Blacklist(),
            not_before=Breadcrumb.of(self.base.manifest) if self.base is not None else None,
        )

    def check_signing(self) -> None:
        """See early whether clients would accept a manifest signed with these keys now.

        Raises TrustError; FormatError for keys that are none; RevisionConflict where the trunk is
        from the future.
        """
        if self.base is None:
            return
        manifest = self.base.manifest
        if self.now < manifest.published_at:
            raise RevisionConflict(
                f"{manifest.fqrn}: revision {manifest.revision} was published "
                f"{manifest.published_at - self.now} seconds in the future",
                hint="set this computer's clock: clients refuse a revision older than the last",
            )
        unstored = ContentHash.of(self.keys.certificate_pem, self.writer.algorithm)
        self._sign(replace(manifest, certificate=unstored, published_at=self.now))

    def _replace_manifest(self, trusted: TrustedManifest) -> None:
        store = self.writer.store
        store.sync()
        try:
            store.replace(MANIFEST, trusted.data, self.base.data if self.base is not None else None)
        except FileChanged as error:
            raise RevisionConflict(
                f"{trusted.manifest.fqrn}: somebody else published while this revision was made",
                hint="publish again: it starts from the new revision then",
            ) from error
        store.sync()


def open_history(writer: ObjectWriter, history: ContentHash) -> TagDatabase:
    """A repository's history, ready to be edited."""
    ref = ObjectRef(history, Suffix.HISTORY)
    return TagDatabase.open(read_object(writer.store, ref, limit=MAX_HISTORY_BYTES))
