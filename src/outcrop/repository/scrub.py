"""Scrubbing a store: every file below `data` must have the name its content asks for.

Looks at files, not at catalogs: it also finds damage in what no revision uses any more, and files
that are no objects at all.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from outcrop.formats.hashes import ContentHash, HashAlgorithm, new_hasher
from outcrop.repository.check_catalog import Problem
from outcrop.repository.check_objects import Progress
from outcrop.repository.reachable import map_ahead
from outcrop.repository.stored import parse_object_name
from outcrop.storage.errors import ObjectNotFound, StorageError
from outcrop.storage.store import WritableStore

_BATCH_NAMES = 64
_MAX_PROBLEMS = 10_000


@dataclass(slots=True)
class ScrubResult:
    """What was found: `objects` and their `stored_bytes`, and what is wrong with which file."""

    objects: int = 0
    stored_bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    more_problems: int = 0


def scrub(
    store: WritableStore,
    *,
    workers: int,
    progress: Progress = lambda _phase, _done, _total: None,
) -> ScrubResult:
    """Read every file of a store in several threads and hash it.

    Raises StorageError where there is no listing to be had.
    """
    result = ScrubResult()
    lock = threading.Lock()

    def check(names: list[str]) -> None:
        for name in names:
            size, what = _check_file(store, name)
            with lock:
                result.objects += 1
                result.stored_bytes += size
                if what is None:
                    continue
                if len(result.problems) < _MAX_PROBLEMS:
                    result.problems.append(Problem(name, what))
                else:
                    result.more_problems += 1

    with ThreadPoolExecutor(workers) as executor:
        batches = _batches(store.iter_names("data/"))
        for _ in map_ahead(executor, check, batches, ahead=4 * workers):
            progress("objects", result.objects, None)
    return result


def _batches(names: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for name in names:
        batch.append(name)
        if len(batch) == _BATCH_NAMES:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_file(store: WritableStore, name: str) -> tuple[int, str | None]:
    """Its size, and what is wrong with it."""
    parsed = parse_object_name(name)
    if parsed is None:
        return 0, "not the name of an object"
    sink = _Hashing(parsed.hash.algorithm)
    try:
        store.fetch(name, sink)
    except ObjectNotFound:
        return 0, None  # collected since it was listed
    except StorageError as error:
        return sink.size, str(error)
    found = sink.hash()
    return sink.size, None if found == parsed.hash else f"its content hash is {found}"


class _Hashing:
    """A sink that keeps nothing but the hash."""

    def __init__(self, algorithm: HashAlgorithm) -> None:
        self._algorithm = algorithm
        self.begin()

    def begin(self) -> None:
        self.size = 0
        self._hasher = new_hasher(self._algorithm)

    def write(self, block: bytes) -> None:
        self.size += len(block)
        self._hasher.update(block)

    def finish(self) -> None:
        """The hash is compared by the caller, who can say more."""

    def hash(self) -> ContentHash:
        return self._hasher.hash()
