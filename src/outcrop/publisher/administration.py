"""What an administrator does to whole repositories: list them, mark them, remove them."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from outcrop.errors import OutcropError
from outcrop.formats.parameters import parse_parameters
from outcrop.publisher.counts import ChangeCounts
from outcrop.publisher.create import MASTER_REPLICA
from outcrop.publisher.errors import PublishError
from outcrop.publisher.lock import publishing_lock
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.publish import PublishResult, publish_changes
from outcrop.publisher.session import PublishSession, local_errors
from outcrop.publisher.settings import StratumZeroSettings
from outcrop.publisher.settings_file import SettingsFile
from outcrop.publisher.transaction_area import TransactionArea
from outcrop.publisher.union import hide_revision
from outcrop.repository.commit import MANIFEST
from outcrop.storage.locations import Locations
from outcrop.storage.store import WritableStore, remove_files
from outcrop.storage.upstream import open_store, parallel_requests

REPLICA_MARKER = ".cvmfs_master_replica"
_MAX_CONFIG_BYTES = 1 << 20
_BATCH_NAMES = 200


class NotARepository(PublishError):
    """A directory that is to be deleted does not look like a stored repository."""


@dataclass(frozen=True, slots=True)
class LocalRepository:
    """A repository that is published or replicated here, by its `server.conf`.

    `kind` is `stratum0` or `stratum1`; `problem` tells why nothing more could be found out.
    """

    fqrn: str
    kind: str
    upstream: str = ""
    is_in_transaction: bool = False
    problem: str | None = None


def list_repositories(locations: Locations) -> Iterator[LocalRepository]:
    """Everything that is configured below `repositories.d`, by name."""
    directory = locations.server_config("x").parent
    if not directory.is_dir():
        return
    for entry in sorted(directory.iterdir()):
        file = entry / "server.conf"
        if not file.is_file():
            continue
        try:
            with file.open("rb") as opened:
                assignments = parse_parameters(opened.read(_MAX_CONFIG_BYTES), environment={})
        except (OutcropError, OSError) as error:
            yield LocalRepository(entry.name, "unknown", problem=f"{file}: {error}")
            continue
        values = {assignment.name: assignment.value for assignment in assignments}
        spool = Path(values.get("CVMFS_SPOOL_DIR") or locations.spool(entry.name))
        yield LocalRepository(
            values.get("CVMFS_REPOSITORY_NAME") or entry.name,
            values.get("CVMFS_REPOSITORY_TYPE") or "stratum0",
            values.get("CVMFS_UPSTREAM_STORAGE", ""),
            (spool / "in_transaction.lock").exists(),
        )


def set_replicable(store: WritableStore, *, is_replicable: bool) -> None:
    """Allow stratum 1 servers to replicate a repository, or not."""
    if is_replicable:
        store.write(REPLICA_MARKER, MASTER_REPLICA)
    else:
        store.remove(REPLICA_MARKER)
    store.sync()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alterations:
    """What is to be different about a repository; `None`: nothing. `ttl_seconds` is the manifest's.

    The files of a volatile repository are those that clients evict first.
    """

    is_garbage_collectable: bool | None = None
    is_volatile: bool | None = None
    ttl_seconds: int | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """What of it is in `server.conf`."""
        found = {}
        if self.is_garbage_collectable is not None:
            switch = "true" if self.is_garbage_collectable else "false"
            found["CVMFS_GARBAGE_COLLECTION"] = switch
        if self.ttl_seconds is not None:
            found["CVMFS_REPOSITORY_TTL"] = str(self.ttl_seconds)
        return found


def alter_repository(
    locations: Locations,
    fqrn: str,
    alterations: Alterations,
    *,
    now: int,
    store: WritableStore | None = None,
) -> PublishResult:
    """Write the settings and publish a revision by them, content unchanged; both or none.

    Killed in between, the next publish completes it. Raises what `publish_changes` raises.
    """

    def apply(session: PublishSession, _tell: Tell) -> ChangeCounts:
        if alterations.is_volatile is not None:
            session.editor.root.set_properties(volatile=int(alterations.is_volatile))
        return ChangeCounts()

    StratumZeroSettings.read(locations, fqrn)  # says what is wrong with the file
    with local_errors(fqrn):
        file = SettingsFile.read(locations.server_config(fqrn) / "server.conf")
        file.change(alterations.parameters)
        try:
            return publish_changes(
                locations, fqrn, apply, options=PublishOptions(), now=now, store=store
            )
        except OutcropError:
            file.restore()
            raise


@dataclass(frozen=True, slots=True)
class RemovedRepository:
    """What was deleted, and which key files are still there."""

    fqrn: str
    kept_data: bool
    kept_keys: tuple[Path, ...]


def remove_repository(
    locations: Locations, fqrn: str, *, keep_data: bool = False, store: WritableStore | None = None
) -> RemovedRepository:
    """Delete a repository: its manifest first, so that it is gone at once, its settings last.

    Keys stay: they may be the only ones. Interrupted, it goes on when called again. Raises
    RepositoryNotFound, PublishInProgress, TransactionOpen, StorageError.
    """
    settings = StratumZeroSettings.read(locations, fqrn)
    with local_errors(fqrn):
        settings.spool.mkdir(parents=True, exist_ok=True)
        with publishing_lock(settings.spool, fqrn):
            if not keep_data:
                _remove_data(settings, store)
            hide_revision(TransactionArea(settings.spool, fqrn), settings.union_directory)
            shutil.rmtree(settings.spool)
            shutil.rmtree(locations.server_config(fqrn))
    kept = tuple(sorted(locations.keys.glob(f"{fqrn}.*")))
    return RemovedRepository(fqrn, keep_data, kept)


def _remove_data(settings: StratumZeroSettings, store: WritableStore | None) -> None:
    directory = settings.upstream.directory
    if store is not None or directory is None:
        store = store if store is not None else open_store(settings.upstream)
        _unpublish(store)
        names = list(store.iter_names())
        batches = [names[at : at + _BATCH_NAMES] for at in range(0, len(names), _BATCH_NAMES)]
        with ThreadPoolExecutor(parallel_requests(settings.upstream)) as executor:
            for _ in executor.map(partial(remove_files, store), batches):
                pass
        return
    if not directory.is_dir():
        return
    for entry in directory.iterdir():
        if not entry.name.startswith(".cvmfs") and entry.name not in _OWN_NAMES:
            raise NotARepository(
                f"{entry} is nothing that belongs to a repository",
                hint="move it away, or keep the data and delete it yourself",
            )
    _unpublish(open_store(settings.upstream))
    shutil.rmtree(directory)


def _unpublish(store: WritableStore) -> None:
    store.remove(MANIFEST)
    store.sync()


_OWN_NAMES = ("data", "stats", "api")
