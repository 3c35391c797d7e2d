"""Writing down what a publish or a collection did, and storing that beside the repository."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from outcrop.errors import OutcropError
from outcrop.publisher.counts import ChangeCounts
from outcrop.publisher.session import Published, PublishSession
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.statistics import (
    GarbageStatistics,
    PublishStatistics,
    record,
    serialize,
)
from outcrop.repository.object_writer import ObjectTally
from outcrop.storage.store import WritableStore

STORED_DATABASE = "stats/stats.db"


class PublishRecord:
    """What is known of a publish so far; `finish` when there is a new revision."""

    def __init__(self) -> None:
        self.statistics = PublishStatistics()
        self.is_success = False

    def finish(self, counts: ChangeCounts, published: Published, tally: ObjectTally) -> None:
        """Take over what changed, and what was stored."""
        found = self.statistics
        found.revision = published.revision
        found.count_entries("added", counts.added)
        found.count_entries("changed", counts.changed)
        found.count_entries("removed", counts.removed)
        found.sz_bytes_added = counts.bytes_added
        found.sz_bytes_removed = counts.bytes_removed
        found.catalogs_added = len(published.catalogs.entries)
        found.chunks_added = tally.new_contents
        found.chunks_duplicated = tally.known_contents
        found.sz_bytes_uploaded = tally.content_bytes
        found.sz_catalog_bytes_uploaded = tally.catalog_bytes
        self.is_success = True


@contextmanager
def recording(session: PublishSession, *, is_kept: bool) -> Iterator[PublishRecord]:
    """Record a publish, however it ends, unless it is a rehearsal.

    What goes wrong with that becomes a warning of the session.
    """
    begun = time.monotonic()
    result = PublishRecord()
    try:
        yield result
    finally:
        if is_kept:
            session.warnings += _keep(
                session.settings,
                session.store,
                result.statistics,
                started_at=session.commit.now,
                seconds=time.monotonic() - begun,
                is_success=result.is_success,
            )


def record_collection(
    settings: StratumZeroSettings,
    store: WritableStore,
    statistics: GarbageStatistics,
    *,
    started_at: int,
    seconds: float,
    is_success: bool = True,
) -> list[str]:
    """Record a garbage collection. Returns warnings."""
    return _keep(
        settings, store, statistics,
        started_at=started_at, seconds=seconds, is_success=is_success,
    )  # fmt: skip


def _keep(
    settings: StratumZeroSettings,
    store: WritableStore,
    statistics: PublishStatistics | GarbageStatistics,
    *,
    started_at: int,
    seconds: float,
    is_success: bool,
) -> list[str]:
    file = settings.statistics_file
    try:
        record(
            file,
            settings.fqrn,
            statistics,
            started_at=started_at,
            finished_at=started_at + int(seconds),
            is_success=is_success,
            days_to_keep=settings.statistics_days,
        )
        if is_success and settings.upload_statistics:
            store.write(STORED_DATABASE, serialize(file))
        if is_success and settings.upload_statistics_plots:
            _store_plots(settings, store)
    except (sqlite3.Error, OSError, OutcropError) as error:
        return [f"statistics were not recorded: {file}: {error}"]
    except ModuleNotFoundError as error:
        return [f"no plot of the statistics: the Python package {error.name} is missing"]
    return []


def _store_plots(settings: StratumZeroSettings, store: WritableStore) -> None:
    # A large package that only who wants plots needs to have, and waits for.
    from outcrop.publisher.statistics_plot import PAGE, plot

    store.write("stats/stats.svg", plot(settings.statistics_file, settings.fqrn, "svg"))
    store.write("stats/index.html", PAGE.replace("FQRN", settings.fqrn).encode())
