"""What a catalog refers to: the objects of its files, and its nested catalogs.

This is what replication and garbage collection go by, and neither looks at single entries. So the
hashes are gathered by SQLite itself, tens of thousands at a time: it does so without Python's lock
and several catalogs are read at once.
"""

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.repository.catalogs import MAX_CATALOG_BYTES, Catalog
from outcrop.storage.errors import write_error
from outcrop.storage.store import ObjectStore, fetch_object
from outcrop.storage.temporary import OutputFile

T = TypeVar("T")
R = TypeVar("R")

_BATCH_ROWS = 50_000

# Of external files nothing is stored. `flags`: 4 file, 8 symlink, 16 special, 128 external.
_FILES = (
    "SELECT rowid AS position, hash AS digest, flags FROM catalog "
    "WHERE rowid > ? AND flags & 156 = 4 AND typeof(hash) = 'blob' AND length(hash) = 20 "
    "ORDER BY rowid"
)
_CHUNKS = (
    "SELECT c.rowid AS position, c.hash AS digest, e.flags AS flags "
    "FROM chunks c CROSS JOIN catalog e USING (md5path_1, md5path_2) "
    "WHERE c.rowid > ? AND e.flags & 128 = 0 AND typeof(c.hash) = 'blob' AND length(c.hash) = 20 "
    "ORDER BY c.rowid"
)


@dataclass(frozen=True, slots=True)
class ObjectBatch:
    """Objects of one kind: their digests, one after the other, of 20 bytes each."""

    algorithm: HashAlgorithm
    suffix: Suffix
    digests: bytes

    @property
    def ending(self) -> str:
        """The end of the objects' names: algorithm and suffix as text."""
        return self.algorithm.text_suffix + self.suffix

    def name_of(self, digest: bytes) -> str:
        """Where the object with one of the digests is stored."""
        text = digest.hex()
        return f"data/{text[:2]}/{text[2:]}{self.ending}"


def iter_objects(catalog: Catalog) -> Iterator[ObjectBatch]:
    """All objects a catalog's files are stored as, with repetitions. Raises FormatError."""
    for query, suffix in ((_FILES, Suffix.FILE), (_CHUNKS, Suffix.CHUNK)):
        position: int | None = -(1 << 63)
        while position is not None:
            rows = catalog.query(
                "SELECT max(position), (flags >> 8) & 7, group_concat(hex(digest), '') "
                f"FROM ({query} LIMIT {_BATCH_ROWS}) GROUP BY 2",
                (position,),
            )
            for _, number, text in rows:
                algorithm = HashAlgorithm.from_number(number + 1)
                yield ObjectBatch(algorithm, suffix, bytes.fromhex(text.decode("ascii")))
            position = max((row[0] for row in rows), default=None)


def nested_catalogs(catalog: Catalog) -> list[ContentHash]:
    """The catalogs mounted in this one; those bound from elsewhere do not belong to it."""
    try:
        rows = catalog.query("SELECT sha1 FROM nested_catalogs")
        return [ContentHash.parse(text.decode("ascii")) for (text,) in rows]
    except (AttributeError, UnicodeDecodeError) as error:
        raise FormatError(f"catalog {catalog.hash}: a nested catalog's hash is no text") from error


def map_ahead(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], *, ahead: int = 8
) -> Iterator[R]:
    """`executor.map`, but never more than so many results ahead of who takes them."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class CatalogReader:
    """Opens catalogs of a store by their hash, each as a file in a scratch directory meanwhile.

    Safe for several threads.
    """

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch

    @contextmanager
    def open(self, content_hash: ContentHash) -> Iterator[Catalog]:
        """Fetch, check and open a catalog. Raises StorageError, FormatError."""
        file = self._scratch / f"catalog-{secrets.token_hex(8)}"
        try:
            fd = self._fetch(content_hash, file)
            yield Catalog(fd, content_hash)
        finally:
            file.unlink(missing_ok=True)

    def _fetch(self, content_hash: ContentHash, file: Path) -> int:
        ref = ObjectRef(content_hash, Suffix.CATALOG)
        try:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise write_error(error, str(file)) from error
        try:
            fetch_object(self._store, ref, OutputFile(fd), limit=MAX_CATALOG_BYTES)
        except OSError as error:
            os.close(fd)
            raise write_error(error, f"{ref.path}: scratch file") from error
        except BaseException:
            os.close(fd)
            raise
        return fd
