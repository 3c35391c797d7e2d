"""A revision in the making: the verified base, an editor on it, a pipeline, and the way to the end.

Every way to publish (a directory, later an overlay or a tar stream) opens a session, turns its
changes into edits and contents, and publishes it. A session that is left before is as if it had
never been.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from outcrop.formats.catalog import DirectoryEntry, NestedCatalog
from outcrop.formats.hashes import ContentHash, ObjectRef, Suffix
from outcrop.publisher.branches import (
    Checkout,
    current_checkout,
    publish_on_branch,
    write_checkout,
)
from outcrop.publisher.compression import CompressionChoice
from outcrop.publisher.errors import (
    LimitExceeded,
    PublishError,
    PublisherSettingsError,
    ScratchFull,
)
from outcrop.publisher.finishing import dirtab_entry, finish_content
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.markers import MarkerWriter
from outcrop.publisher.pipeline import Pipeline
from outcrop.publisher.rehearsal import RehearsalStore, RehearsalWriter
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.virtual_directory import VirtualDirectoryWriter
from outcrop.repository.commit import (
    Commit,
    NewTag,
    SigningKeys,
    StoredCatalogs,
    store_catalogs,
)
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.object_writer import ObjectWriter
from outcrop.repository.open import RepositorySource
from outcrop.repository.reflog import Reflog
from outcrop.storage.errors import is_no_room
from outcrop.storage.local import LocalStore
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore
from outcrop.storage.temporary import TransientOpener
from outcrop.storage.upstream import open_store, parallel_requests
from outcrop.trust.blacklist import Blacklist
from outcrop.trust.chain import TrustedManifest
from outcrop.trust.keys import load_public_keys

_SCRATCH_PREFIX = "publish-"
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a session: the signed manifest, and its catalogs."""

    manifest: TrustedManifest
    catalogs: StoredCatalogs
    revision: int
    """Its number; the manifest has another where a branch is checked out."""


@dataclass(slots=True, kw_only=True)
class PublishSession:
    """Open from lock to manifest. `started_at_ns` is by the clock that stamps files.

    `base` is the trunk; `checkout` the branch that is published to in its place.
    """

    settings: StratumZeroSettings
    base: TrustedManifest
    editor: CatalogEditor
    pipeline: Pipeline
    commit: Commit
    started_at_ns: int
    warnings: list[str]
    checkout: Checkout | None = None
    dirtab_before: DirectoryEntry | None = None

    @property
    def store(self) -> WritableStore:
        """Where the repository is."""
        return self.commit.writer.store

    @property
    def root_hash(self) -> ContentHash:
        """The root catalog that is built upon: the trunk's, or that of the branch."""
        return self.checkout.root if self.checkout else self.base.manifest.root_catalog

    def publish(
        self,
        tags: Sequence[NewTag],
        *,
        workers: int,
        revision: int | None = None,
        removed_tags: Collection[str] = (),
    ) -> Published:
        """Store the catalogs and make the result the trunk, with these tags.

        `revision` is a number of one's own (`None`: the next one), `removed_tags` are dropped.
        Where a branch is checked out the result only gets its tag. Raises RevisionConflict,
        LimitExceeded, StorageError.
        """
        number = revision if revision is not None else self._next_revision()
        markers = MarkerWriter(
            self.editor, self.commit.writer, self.pipeline.compression, self.commit.now
        )
        self.warnings += finish_content(markers, self.settings, dirtab_before=self.dirtab_before)
        with ThreadPoolExecutor(workers) as executor:
            catalogs = store_catalogs(
                self.editor,
                self.commit.writer,
                executor,
                now=self.commit.now,
                ttl=self.settings.ttl_seconds,
                revision=number,
            )
        self._check_limits(catalogs)
        if self.checkout is not None:
            return self._publish_on_branch(self.checkout, catalogs, number, tags)
        template = replace(
            self.base.manifest,
            ttl=self.settings.ttl_seconds,
            garbage_collectable=self.settings.garbage_collection,
            has_alternative_paths=self.settings.alternative_paths,
            micro_catalog=None,  # it would be of the revision before
        )
        trusted = self.commit.sign(template, catalogs.root, number, tags, removed_tags=removed_tags)
        root = NestedCatalog(b"", trusted.manifest.root_catalog, trusted.manifest.catalog_size)
        return Published(trusted, replace(catalogs, root=root), trusted.manifest.revision)

    def _next_revision(self) -> int:
        if self.checkout is not None:
            return int(self.editor.root.properties.get("revision", "0")) + 1
        return self.base.manifest.revision + 1

    def _publish_on_branch(
        self, checkout: Checkout, catalogs: StoredCatalogs, number: int, tags: Sequence[NewTag]
    ) -> Published:
        (tag,) = tags
        trusted = publish_on_branch(self.commit, checkout, catalogs.root, number, tag)
        if not isinstance(self.store, RehearsalStore):
            here = replace(checkout, tag=tag.name, root=catalogs.root.hash)
            write_checkout(self.settings.spool, here)
        return Published(trusted, catalogs, number)

    def _check_limits(self, catalogs: StoredCatalogs) -> None:
        for mountpoint, entries in catalogs.entries.items():
            nested, root = self.settings.max_nested_entries, self.settings.max_root_entries
            limit = nested if mountpoint else root
            if entries <= limit:
                continue
            shown = mountpoint.decode("utf-8", "backslashreplace") or "/"
            message = f"the catalog at {shown} has {entries} entries, the limit is {limit}"
            if self.settings.enforce_limits:
                raise LimitExceeded(message, hint="divide it with .cvmfscatalog or .cvmfsdirtab")
            self.warnings.append(message)


@contextmanager
def open_session(
    locations: Locations,
    fqrn: str,
    *,
    now: int,
    choice: CompressionChoice | None = None,
    workers: int = 0,
    store: WritableStore | None = None,
    is_rehearsal: bool = False,
    wait_seconds: float = 0.0,
    within_transaction: bool = False,
    with_checkout: bool = True,
) -> Iterator[PublishSession]:
    """Lock the repository, verify its trunk and prepare the next revision.

    `choice` overrides the settings' compression, `workers` (0: what processors and store can do)
    the number of threads, `store` where the repository is, `wait_seconds` is for another publisher
    to finish. A rehearsal can be published like any session, without effect. The session is on
    the trunk unless a branch is checked out, or anyway not `with_checkout`. Raises
    PublishInProgress, TrustError and others.
    """
    settings = StratumZeroSettings.read(locations, fqrn)
    choice = choice or settings.compression
    store = store if store is not None else open_store(settings.upstream)
    with ExitStack() as stack:
        stack.enter_context(local_errors(fqrn))
        settings.spool.mkdir(parents=True, exist_ok=True)
        lock = publishing_lock(
            settings.spool, fqrn, wait_seconds=wait_seconds, within_transaction=within_transaction
        )
        started_at_ns = stack.enter_context(lock)
        if wait_seconds:  # whoever was waited for published later than `now`
            now = max(now, started_at_ns // _NS)
        scratch = stack.enter_context(scratch_directory(settings.spool))
        if is_rehearsal:
            store = RehearsalStore(store, LocalStore(scratch / "store"))
        elif isinstance(store, LocalStore):
            store.remove_leftovers()
        warnings: list[str] = []
        commit, base = _prepare_commit(
            locations, settings, store, choice, now, scratch, warn=warnings.append
        )
        checkout = current_checkout(settings.spool, commit) if with_checkout else None
        root = ObjectRef(
            base.manifest.root_catalog, Suffix.CATALOG, size=base.manifest.catalog_size or None
        )
        if checkout is not None:
            root = ObjectRef(checkout.root, Suffix.CATALOG)
        editor = stack.enter_context(CatalogEditor.open(store, scratch, root))
        pipeline = Pipeline(
            commit.writer,
            workers=workers or max(default_workers(), parallel_requests(settings.upstream)),
            chunk_sizes=settings.chunk_sizes,
            compression=choice.stored_as,
            with_bulk=settings.legacy_bulk_chunks,
        )
        yield PublishSession(
            settings=settings,
            base=base,
            editor=editor,
            pipeline=stack.enter_context(pipeline),
            commit=commit,
            started_at_ns=started_at_ns,
            warnings=warnings,
            checkout=checkout,
            dirtab_before=dirtab_entry(editor),
        )


def default_workers() -> int:
    """As many threads as there are processors for this process."""
    return len(os.sched_getaffinity(0))


@contextmanager
def scratch_directory(spool: Path) -> Iterator[Path]:
    """A directory for the time of a publish; what dead ones left goes, too. Needs the lock."""
    parent = spool / "tmp"
    parent.mkdir(exist_ok=True)
    for leftover in parent.glob(f"{_SCRATCH_PREFIX}*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=parent) as scratch:
        yield Path(scratch)


def read_key(locations: Locations, name: str) -> bytes:
    """A file of the key directory. Raises PublisherSettingsError."""
    file = locations.keys / name
    try:
        return file.read_bytes()
    except OSError as error:
        raise PublisherSettingsError(
            f"{file}: {error.strerror}", hint="publishing needs the repository's keys"
        ) from error


def read_signing_keys(locations: Locations, fqrn: str) -> SigningKeys:
    """The certificate and its private key."""
    return SigningKeys(read_key(locations, f"{fqrn}.crt"), read_key(locations, f"{fqrn}.key"))


def _prepare_commit(
    locations: Locations,
    settings: StratumZeroSettings,
    store: WritableStore,
    choice: CompressionChoice,
    now: int,
    scratch: Path,
    *,
    warn: Callable[[str], None],
) -> tuple[Commit, TrustedManifest]:
    """Verify the trunk, and that what is signed on top of it will be believed."""
    fqrn = settings.fqrn
    source = RepositorySource(
        fqrn,
        store,
        TransientOpener(store),
        load_public_keys(read_key(locations, f"{fqrn}.pub")),
        Blacklist(),
    )
    base = source.fetch_manifest(now=now)
    # The repository speaks through its manifest; server.conf only knows how it began.
    is_rehearsal = isinstance(store, RehearsalStore)
    make_writer = RehearsalWriter if is_rehearsal else ObjectWriter
    writer = make_writer(store, base.manifest.algorithm, choice.compressor)
    if is_rehearsal:
        for file in settings.spool.glob("reflog.chksum*"):
            shutil.copy(file, scratch)
    checksum = (scratch if is_rehearsal else settings.spool) / "reflog.chksum"
    commit = Commit(
        writer=writer,
        reflog=Reflog(store, checksum, fqrn, writer.algorithm),
        keys=read_signing_keys(locations, fqrn),
        whitelist=base.whitelist,
        base=base,
        now=now,
        follow_up=(
            VirtualDirectoryWriter(writer, scratch, now, warn)
            if settings.virtual_directory
            else None
        ),
    )
    commit.check_signing()
    return commit, base


@contextmanager
def local_errors(fqrn: str) -> Iterator[None]:
    """What goes wrong with files of this machine, as errors that say so; stores have their own."""
    try:
        yield
    except sqlite3.Error as error:
        raise ScratchFull(f"{fqrn}: a catalog could not be written: {error}") from error
    except OSError as error:
        message = f"{fqrn}: {error.filename or 'the spool area'}: {error.strerror}"
        if is_no_room(error):
            raise ScratchFull(message, hint="make room on that disk") from error
        raise PublishError(message) from error
