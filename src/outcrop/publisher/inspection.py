"""Checking, scrubbing and mending what a stratum 0 has stored."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.reflog import Ref
from outcrop.publisher.errors import PathRefused
from outcrop.publisher.lock import collecting_lock, publishing_lock
from outcrop.publisher.options import Tell, say_nothing
from outcrop.publisher.session import default_workers, local_errors, scratch_directory
from outcrop.publisher.upkeep import StratumZeroSource
from outcrop.repository.check import CheckOptions, CheckResult, check_repository
from outcrop.repository.errors import ReflogMissing
from outcrop.repository.reflog_rebuild import find_refs
from outcrop.repository.scrub import ScrubResult, scrub
from outcrop.repository.stored import StoredObjects
from outcrop.storage.errors import ObjectCorrupt
from outcrop.storage.local import LocalStore
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore


def check_stratum_zero(
    locations: Locations,
    fqrn: str,
    options: CheckOptions,
    *,
    looks_up_objects: bool = True,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> CheckResult:
    """Check a repository that is published here, its store and its reflog included.

    Nobody collects garbage meanwhile; publishers go on. Raises CollectionInProgress and what
    `check_repository` raises.
    """
    tell = progress or say_nothing
    with contextlib.ExitStack() as stack:
        stack.enter_context(local_errors(fqrn))
        opened = StratumZeroSource.open(locations, fqrn, store=store)
        opened.settings.spool.mkdir(parents=True, exist_ok=True)
        stack.enter_context(collecting_lock(opened.settings.spool, fqrn))
        list_stored: Callable[[], StoredObjects] | None = None
        if looks_up_objects:
            list_stored = lambda: StoredObjects.listed(opened.store, tell)  # noqa: E731
        return check_repository(
            opened.source,
            options,
            now=now,
            list_stored=list_stored,
            open_reflog=opened.reflog,
            progress=tell,
        )


def scrub_stratum_zero(
    locations: Locations,
    fqrn: str,
    *,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> ScrubResult:
    """Hash every stored file of a repository that is published here. Raises StorageError."""
    opened = StratumZeroSource.open(locations, fqrn, store=store)
    return scrub(opened.store, workers=default_workers(), progress=progress or say_nothing)


def scrub_directory(directory: Path, *, progress: Tell | None = None) -> ScrubResult:
    """Hash every file of a data directory, whoever published it. Raises PathRefused."""
    if directory.resolve().name != "data":
        raise PathRefused(
            f"{directory} is no data directory", hint="/srv/cvmfs/software.example.org/data is one"
        )
    store = LocalStore(directory.resolve().parent)
    return scrub(store, workers=default_workers(), progress=progress or say_nothing)


def list_reflog(
    locations: Locations, fqrn: str, *, now: int, store: WritableStore | None = None
) -> list[Ref]:
    """All references, newest first. Raises ReflogMissing, TrustError, StorageError."""
    opened = StratumZeroSource.open(locations, fqrn, store=store)
    trusted = opened.source.fetch_manifest(now=now)
    refs = opened.reflog(trusted).read_complete(trusted.manifest.reflog)
    return sorted(refs, key=lambda ref: (-ref.timestamp, ref.type, str(ref.hash)))


def mend_reflog(
    locations: Locations,
    fqrn: str,
    *,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> str | None:
    """Write the reflog anew if it is missing or damaged; what was wrong with it, if anything was.

    Raises what `rebuild_reflog` raises.
    """
    opened = StratumZeroSource.open(locations, fqrn, store=store)
    trusted = opened.source.fetch_manifest(now=now)
    try:
        opened.reflog(trusted).read_complete(trusted.manifest.reflog)
    except (ReflogMissing, ObjectCorrupt, FormatError) as error:
        rebuild_reflog(locations, fqrn, now=now, progress=progress, store=store)
        return str(error)
    return None


def rebuild_reflog(
    locations: Locations,
    fqrn: str,
    *,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> list[Ref]:
    """Find the revisions that are stored, and write the reflog anew. Publishers are kept out.

    Raises PublishInProgress, TransactionOpen, CollectionInProgress, TrustError, StorageError.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(local_errors(fqrn))
        opened = StratumZeroSource.open(locations, fqrn, store=store)
        spool = opened.settings.spool
        spool.mkdir(parents=True, exist_ok=True)
        stack.enter_context(publishing_lock(spool, fqrn))
        stack.enter_context(collecting_lock(spool, fqrn))
        scratch = stack.enter_context(scratch_directory(spool))
        trusted, history = opened.fetch_trunk(now=now)
        refs = find_refs(
            opened.store,
            trusted.manifest,
            history,
            now=now,
            scratch=scratch,
            progress=progress or say_nothing,
        )
        opened.reflog(trusted).rebuild(refs)
    return refs
