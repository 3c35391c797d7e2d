"""Collecting the garbage of a stratum 0: when it is due, who may, and what is written down."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from outcrop.formats.dates import parse_date
from outcrop.publisher.errors import PublisherSettingsError
from outcrop.publisher.lock import collecting_lock, publishing_lock
from outcrop.publisher.options import Tell, say_nothing
from outcrop.publisher.recording import record_collection
from outcrop.publisher.session import default_workers, local_errors, scratch_directory
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.statistics import GarbageStatistics
from outcrop.publisher.status_file import date_text, read_time, update_status
from outcrop.publisher.upkeep import StratumZeroSource
from outcrop.repository.collect import Collected, CollectOptions, Log, collect
from outcrop.repository.mark import Keep
from outcrop.storage.local import LocalStore
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore

DEFAULT_TIMESPAN = "3 days ago"
"""What is kept where nobody says: all revisions of the last three days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageOptions:
    """What stays: `keep_revisions` before the trunk, or all since `keep_since` (unix time).

    The two exclude each other; with neither the last three days stay. `deletion_log` is a file
    that the names of deleted objects are appended to. Objects nobody knows of go with
    `orphans_before` (unix time), if they are older than that.
    """

    keep_revisions: int | None = None
    keep_since: int | None = None
    dry_run: bool = False
    deletion_log: Path | None = None
    log: Log | None = None
    orphans_before: int | None = None
    wait_seconds: float = 0.0

    def keep(self, now: int) -> Keep:
        """Which predecessors of the trunk stay. Raises PublisherSettingsError."""
        if self.keep_revisions is not None and self.keep_since is not None:
            raise PublisherSettingsError("either so many revisions are kept, or all since a time")
        if self.keep_revisions is not None:
            return Keep(revisions=self.keep_revisions)
        if self.keep_since is not None:
            return Keep(since=self.keep_since)
        return Keep(since=parse_date(DEFAULT_TIMESPAN, now=now))


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageResult:
    """What a collection came to."""

    fqrn: str
    dry_run: bool
    seconds: float
    collected: Collected
    leftovers: int = 0
    """Unfinished files of writers that died, deleted from the store's temporary area."""

    warnings: tuple[str, ...] = ()


def collect_garbage(
    locations: Locations,
    fqrn: str,
    options: GarbageOptions,
    *,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> GarbageResult:
    """Delete what no kept revision of a repository needs.

    Publishers are kept out meanwhile, readers are not. Whenever this ends early, the next run does
    the rest. Raises NotCollectable, ReflogMissing, RepositoryIncomplete, TransactionOpen,
    PublishInProgress, CollectionInProgress, TrustError, StorageError and FormatError.
    """
    begun = time.monotonic()
    keep = options.keep(now)
    with contextlib.ExitStack() as stack:
        stack.enter_context(local_errors(fqrn))
        settings = StratumZeroSettings.read(locations, fqrn)
        settings.spool.mkdir(parents=True, exist_ok=True)
        scratch = stack.enter_context(_undisturbed(settings, options.wait_seconds))
        opened = StratumZeroSource.open(locations, fqrn, store=store, scratch=scratch)
        trusted, history = opened.fetch_trunk(now=now)
        log_file = options.deletion_log or settings.gc_deletion_log
        collected = collect(
            opened.store,
            opened.reflog(trusted),
            trusted.manifest,
            [tag.hash for tag in history.tags],
            _collect_options(opened, options, keep),
            scratch=scratch,
            log=stack.enter_context(_deletion_log(log_file, options.log, now)),
            progress=progress or say_nothing,
        )
        leftovers, warnings = 0, list[str]()
        if not options.dry_run:
            if isinstance(opened.store, LocalStore):
                leftovers = opened.store.remove_leftovers()
            update_status(opened.store, last_gc=date_text(now))
            warnings = _record(settings, opened.store, collected, now, begun)
    return GarbageResult(
        fqrn=fqrn,
        dry_run=options.dry_run,
        seconds=time.monotonic() - begun,
        collected=collected,
        leftovers=leftovers,
        warnings=tuple(warnings),
    )


@contextlib.contextmanager
def _undisturbed(settings: StratumZeroSettings, wait_seconds: float) -> Iterator[Path]:
    """A scratch directory for the time that nobody publishes, collects or checks."""
    spool, fqrn = settings.spool, settings.fqrn
    with (
        publishing_lock(spool, fqrn, wait_seconds=wait_seconds),
        collecting_lock(spool, fqrn),
        scratch_directory(spool) as scratch,
    ):
        yield scratch


def _collect_options(
    opened: StratumZeroSource, options: GarbageOptions, keep: Keep
) -> CollectOptions:
    # In a local store a look at each object costs little, so a dry run tells the bytes.
    is_cheap = options.dry_run and isinstance(opened.store, LocalStore)
    return CollectOptions(
        keep=keep,
        dry_run=options.dry_run,
        orphans_before=options.orphans_before,
        measure=opened.settings.extended_gc_statistics or is_cheap,
        workers=default_workers(),
    )


def _record(
    settings: StratumZeroSettings,
    store: WritableStore,
    collected: Collected,
    now: int,
    begun: float,
) -> list[str]:
    """Put a collection into the statistics database. Returns warnings."""
    measured = collected.condemned_bytes if settings.extended_gc_statistics else None
    statistics = GarbageStatistics(
        n_preserved_catalogs=collected.preserved_catalogs,
        n_condemned_catalogs=collected.condemned_catalogs,
        n_condemned_objects=collected.objects,
        sz_condemned_bytes=measured,
        n_duplicate_delete_requests=collected.repeated,
    )
    seconds = time.monotonic() - begun
    return record_collection(settings, store, statistics, started_at=now, seconds=seconds)


def maybe_collect(
    locations: Locations,
    fqrn: str,
    *,
    now: int,
    progress: Tell | None = None,
    store: WritableStore | None = None,
) -> GarbageResult | None:
    """Collect garbage as CVMFS_AUTO_GC wants it after a publish; `None` if it is not due.

    Not while the publishing lock is held. Raises what `collect_garbage` raises, and FormatError for
    CVMFS_AUTO_GC_LAPSE and CVMFS_AUTO_GC_TIMESPAN.
    """
    settings = StratumZeroSettings.read(locations, fqrn)
    if not (settings.auto_gc and settings.garbage_collection):
        return None
    opened = StratumZeroSource.open(locations, fqrn, store=store)
    last = last_collected_at(opened.store)
    if last is not None and last > parse_date(settings.auto_gc_lapse, now=now):
        return None
    options = GarbageOptions(keep_since=parse_date(settings.auto_gc_timespan, now=now))
    return collect_garbage(locations, fqrn, options, now=now, progress=progress, store=opened.store)


def last_collected_at(store: WritableStore) -> int | None:
    """When garbage was collected last, by the store's status file; `None` where it does not say."""
    return read_time(store, "last_gc")


@contextlib.contextmanager
def _deletion_log(file: Path | None, other: Log | None, now: int) -> Iterator[Log | None]:
    """A log that appends to a file as upstream does, and tells the other, too."""
    if file is None:
        yield other
        return
    at = datetime.fromtimestamp(now, UTC).strftime("%d %b %Y %H:%M:%S").removeprefix("0")
    with file.open("a", encoding="ascii") as out:
        out.write(f"# Garbage Collection started at {at}\n")

        def log(name: str) -> None:
            out.write(f"{name}\n")
            if other is not None:
                other(name)

        yield log
        out.write(f"# Garbage Collection finished at {at}\n")
