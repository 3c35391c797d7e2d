"""Checking that objects which catalogs refer to are there, and are what they should be."""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.repository.check_catalog import Problem
from outcrop.repository.check_rows import PlainFiles, TakePlain
from outcrop.repository.files import MAX_FILE_BYTES
from outcrop.repository.hash_set import DIGEST_BYTES, HashSet
from outcrop.repository.stored import StoredObjects
from outcrop.storage.errors import StorageError
from outcrop.storage.store import ObjectStore, fetch_object

_MAX_WAITING = 64
_BATCH = 16
_CLAIM_BYTES = 8

Progress = Callable[[str, int, int | None], None]
Say = Callable[[Problem], None]


class ObjectCheck(Protocol):
    """Takes references one after the other, each with the path of a file that has it."""

    count: int
    """Objects looked at."""

    external: int
    """References to external data, which is stored elsewhere."""

    @property
    def take_plain(self) -> TakePlain | None:
        """Takes plain files at once; `None` where each must be taken by itself."""

    def take(self, path: bytes, ref: ObjectRef) -> None:
        """Look at an object, or see that it will be looked at."""

    def finish(self) -> None:
        """Return when all are looked at."""


class NoObjectCheck:
    """Looks at catalogs only."""

    def __init__(self) -> None:
        self.count = 0
        self.external = 0

    def take(self, path: bytes, ref: ObjectRef) -> None:
        """Count external data."""
        self.external += ref.url_path is not None

    def take_plain(self, directory: bytes, files: PlainFiles) -> None:
        """None of them is external."""

    def finish(self) -> None:
        """Nothing to wait for."""


class ExistenceCheck:
    """Looks every object up in the listing of a store."""

    def __init__(self, stored: StoredObjects, say: Say) -> None:
        self.count = 0
        self.external = 0
        self._stored = stored
        self._say = say
        self._seen = _Seen()

    def take(self, path: bytes, ref: ObjectRef) -> None:
        """Look it up."""
        if ref.url_path is not None:
            self.external += 1
            return
        if not self._seen.add(ref, ref.hash.digest):
            return
        self.count += 1
        if not self._stored.has(ref.hash, ref.suffix):
            shown = path.decode("utf-8", "backslashreplace")
            self._say(Problem(ref.path, f"is missing; {shown} needs it"))

    def take_plain(self, directory: bytes, files: PlainFiles) -> None:
        """Look them all up."""
        new = self._seen.add_all(files.algorithm, files.digests)
        self.count += len(new)
        missing = set(self._stored.missing(files.algorithm, Suffix.FILE, new))
        for name, digest in zip(files.names, files.digests, strict=True) if missing else ():
            if digest in missing:
                missing.remove(digest)
                ref = ObjectRef(ContentHash(files.algorithm, digest))
                shown = (directory + b"/" + name).decode("utf-8", "backslashreplace")
                self._say(Problem(ref.path, f"is missing; {shown} needs it"))

    def finish(self) -> None:
        """Nothing to wait for."""


class ContentCheck:
    """Fetches every object once, in several threads: hash, compression and size must be right."""

    def __init__(self, store: ObjectStore, say: Say, progress: Progress, *, workers: int) -> None:
        self.count = 0
        self.external = 0
        self._store = store
        self._say = say
        self._progress = progress
        self._seen = _Seen()
        self._executor = ThreadPoolExecutor(workers)
        self._batch: list[tuple[bytes, ObjectRef]] = []
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    @property
    def take_plain(self) -> None:
        """There is no such way: what is said of each must be right."""

    def take(self, path: bytes, ref: ObjectRef) -> None:
        """Have it fetched, unless it was already; waits if many are to be fetched."""
        if ref.url_path is not None:
            self.external += 1
        elif self._seen.add(ref, _claim(ref)):
            self._batch.append((path, ref))
            if len(self._batch) == _BATCH:
                self._submit()

    def _submit(self) -> None:
        batch, self._batch = self._batch, []
        self._waiting.append(self._executor.submit(self._check, batch))
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft().result()

    def _check(self, batch: list[tuple[bytes, ObjectRef]]) -> None:
        with Path(os.devnull).open("r+b", buffering=0) as nowhere:
            for path, ref in batch:
                try:
                    fetch_object(self._store, ref, nowhere, limit=MAX_FILE_BYTES)
                except StorageError as error:
                    shown = path.decode("utf-8", "backslashreplace")
                    self._say(Problem(ref.path, f"{error}; {shown} needs it"))
        with self._lock:
            self.count += len(batch)
            self._progress("objects", self.count, None)

    def finish(self) -> None:
        """Return when all are looked at; those not begun are dropped after an error."""
        self._submit()
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self._executor.shutdown(cancel_futures=True)


class _Seen:
    """The objects taken already, in little memory."""

    def __init__(self) -> None:
        self._sets: dict[str, HashSet] = {}

    def add(self, ref: ObjectRef, key: bytes) -> bool:
        """Whether there was no object of this kind with this key (20 bytes) before."""
        return self._set(ref.hash.algorithm, ref.suffix).add(key)

    def add_all(self, algorithm: HashAlgorithm, digests: list[bytes]) -> list[bytes]:
        """Add plain files by their digests; those are returned that were not in before."""
        return self._set(algorithm, Suffix.FILE).add_all(b"".join(digests))

    def _set(self, algorithm: HashAlgorithm, suffix: Suffix) -> HashSet:
        ending = algorithm.text_suffix + suffix
        found = self._sets.get(ending)
        if found is None:
            found = self._sets[ending] = HashSet()
        return found


def _claim(ref: ObjectRef) -> bytes:
    """An object with what is said of it: another catalog may say something else."""
    told = (ref.size or 0) << 1 | ref.compression.value
    return ref.hash.digest[: DIGEST_BYTES - _CLAIM_BYTES] + told.to_bytes(_CLAIM_BYTES, "big")
