"""Publishing without effect: a store that takes everything and changes nothing.

A dry run is a publish like any other, to the very end, on top of these two. Contents of files are
counted and dropped; whatever may be read again (catalogs, history, manifest, rules for catalogs) is
kept in a directory that goes with the dry run.
"""

import threading
from collections.abc import Iterator

from outcrop.formats.hashes import Compression, HashAlgorithm, Suffix, hash_file_name
from outcrop.repository.object_writer import Compressor, ObjectWriter, StoredObject
from outcrop.storage.errors import ObjectNotFound
from outcrop.storage.store import Sink, WritableStore

_KEPT_SUFFIXES = ("C", "H", "X", "M")


class RehearsalStore:
    """Reads from `inner`, and from `kept` what was written here; `inner` is never written to."""

    def __init__(self, inner: WritableStore, kept: WritableStore) -> None:
        self._inner = inner
        self._kept = kept
        self._lock = threading.Lock()
        self._written: set[str] = set()
        self._removed: set[str] = set()

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """Pour a file into the sink; contents that were written here are not there."""
        with self._lock:
            is_ours, is_gone = name in self._written, name in self._removed
        if is_gone:
            raise ObjectNotFound(f"{name}: removed in this dry run")
        (self._kept if is_ours else self._inner).fetch(name, sink, byte_range=byte_range)

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """As the store beneath does."""
        self._inner.fetch_external(url_path, sink, byte_range=byte_range)

    def write(self, name: str, data: bytes) -> None:
        """Take a file."""
        with self._lock:
            self._written.add(name)
            self._removed.discard(name)
        if not name.startswith("data/") or name.endswith(_KEPT_SUFFIXES):
            self._kept.write(name, data)

    def keep(self, name: str, data: bytes) -> None:
        """Have a file that was written here ready to be read."""
        with self._lock:
            is_ours = name in self._written
        if is_ours:
            self._kept.write(name, data)

    def replace(self, name: str, data: bytes, expected: bytes | None) -> None:
        """Take a file, whatever is there now: nothing of it will last."""
        self.write(name, data)

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the file would be there by now, with this content."""
        with self._lock:
            if name in self._written or name in self._removed:
                return name in self._written
        return self._inner.holds(name, data)

    def exists(self, name: str) -> bool:
        """Whether the file would be there by now."""
        with self._lock:
            if name in self._written:
                return True
            if name in self._removed:
                return False
        return self._inner.exists(name)

    def remove(self, name: str) -> None:
        """Count a file as gone."""
        with self._lock:
            self._written.discard(name)
            self._removed.add(name)

    def iter_names(self, prefix: str = "") -> Iterator[str]:
        """All names there would be by now."""
        with self._lock:
            written, removed = set(self._written), set(self._removed)
        yield from (name for name in written if name.startswith(prefix))
        for name in self._inner.iter_names(prefix):
            if name not in written and name not in removed:
                yield name

    def sync(self) -> None:
        """Nothing written here is to survive anything."""

    def close(self) -> None:
        """Nothing to let go of: `inner` is the caller's."""


class RehearsalWriter(ObjectWriter):
    """An object writer that counts as stored what a `RehearsalStore` has dropped."""

    def __init__(
        self, store: WritableStore, algorithm: HashAlgorithm, compressor: Compressor
    ) -> None:
        super().__init__(store, algorithm, compressor)
        self._seen: set[str] = set()

    def put_readable(self, plain: bytes, suffix: Suffix, compression: Compression) -> StoredObject:
        """Count one object as stored, and keep it."""
        stored = self.put(plain, suffix, compression)
        if isinstance(self.store, RehearsalStore):
            name = f"data/{hash_file_name(stored.hash)}{suffix.value}"
            self.store.keep(name, self._pack(plain, compression))
        return stored

    def _has(self, name: str, stored: bytes) -> bool:
        if name in self._seen:
            return True
        self._seen.add(name)
        return super()._has(name, stored)
