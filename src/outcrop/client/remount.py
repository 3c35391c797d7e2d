"""Following the trunk: look for a new revision when the TTL is over, and switch to it."""

import logging
import threading
import time
from collections.abc import Callable
from enum import Enum

from outcrop.client.connection import Connection
from outcrop.client.magic_xattrs import MountState
from outcrop.client.view import RepositoryView
from outcrop.errors import FormatError
from outcrop.formats.manifest import Breadcrumb
from outcrop.repository.tree import Revision
from outcrop.storage.errors import StorageError, StorageFull
from outcrop.trust.errors import TrustError

log = logging.getLogger(__name__)

RETRY_SECONDS = 180
"""After a failed look for a new revision (spec 20)."""


class Outcome(Enum):
    """What a look for a new revision came to, in the words of `cvmfs_talk remount`."""

    UP_TO_DATE = "Catalog up to date"
    APPLIED = "New revision applied"
    FAILED = "Failed"
    FAILED_NO_SPACE = "Failed (no space)"
    FIXED = "Catalog up to date (fixed revision)"


class Remounter:
    """Keeps a view at the newest revision. `tree_changed` tells the engine after a switch."""

    def __init__(
        self,
        connection: Connection,
        view: RepositoryView,
        state: MountState,
        tree_changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._view = view
        self._state = state
        self._tree_changed = tree_changed
        self._clock = clock
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remount", daemon=True)
        self._state.expires_at = clock() + self._ttl_seconds()
        self._state.is_offline = view.revision.manifest is None and not connection.is_fixed
        if self._state.is_offline:
            self._state.expires_at = clock() + RETRY_SECONDS

    def start(self) -> None:
        """Begin to look by itself, unless the revision is fixed."""
        if not self._connection.is_fixed:
            self._thread.start()

    def stop(self) -> None:
        """End the thread; a look under way finishes first."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stopping.wait(max(0.2, self._state.expires_at - self._clock())):
            self.remount()

    def _ttl_seconds(self) -> int:
        ttl = max(1, self._view.revision.catalogs.root.ttl_seconds)
        limit = self._connection.settings.max_ttl_seconds
        return ttl if limit is None else min(ttl, limit)

    def remount(self) -> Outcome:
        """Look for a new revision now and switch to it if there is one."""
        if self._connection.is_fixed:
            return Outcome.FIXED
        with self._lock:
            try:
                outcome = self._look()
            except StorageFull as error:
                log.warning("%s: new revision not loaded: %s", self._view.revision.fqrn, error)
                outcome = Outcome.FAILED_NO_SPACE
            except (StorageError, TrustError, FormatError) as error:
                log.warning("%s: no look at the trunk: %s", self._view.revision.fqrn, error)
                outcome = Outcome.FAILED
            failed = outcome in (Outcome.FAILED, Outcome.FAILED_NO_SPACE)
            self._state.is_offline = failed
            wait = RETRY_SECONDS if failed else self._ttl_seconds()
            self._state.expires_at = self._clock() + min(wait, self._ttl_seconds())
        return outcome

    def _look(self) -> Outcome:
        shown = self._view.revision
        source = self._connection.source
        trusted = source.fetch_manifest(now=int(self._clock()), not_before=_seen(shown))
        if trusted.manifest.root_catalog == shown.root_hash:
            return Outcome.UP_TO_DATE
        revision = source.open_manifest(trusted, previous=shown)
        self._view.show(revision)
        self._tree_changed()
        log.info("%s: revision %d applied", revision.fqrn, revision.number)
        return Outcome.APPLIED


def _seen(revision: Revision) -> Breadcrumb:
    published_at = 0
    if revision.manifest is not None:
        published_at = revision.manifest.manifest.published_at
    return Breadcrumb(revision.root_hash, published_at, revision.number)
