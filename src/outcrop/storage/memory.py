"""A store in memory: for tests, and for repositories that live no longer than a process."""

import threading
from collections.abc import Iterator, Mapping

from outcrop.storage.errors import FileChanged, ObjectCorrupt, ObjectNotFound, StorageUnavailable
from outcrop.storage.store import Sink, check_name


class MemoryStore:
    """Named bytes in a dictionary; external data (by path in the repository) in another."""

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        external: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._files = {check_name(name): bytes(data) for name, data in (files or {}).items()}
        self._external = None if external is None else dict(external)

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """Pour a file into the sink. Raises ObjectNotFound."""
        check_name(name)
        with self._lock:
            data = self._files.get(name)
        if data is None:
            raise ObjectNotFound(f"{name}: not in this memory store")
        _pour(name, data, sink, byte_range)

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """Pour external data into the sink. Raises ObjectNotFound, StorageUnavailable."""
        if self._external is None:
            raise StorageUnavailable("this memory store has no external data")
        place = url_path.decode("utf-8", "backslashreplace")
        data = self._external.get(url_path)
        if data is None:
            raise ObjectNotFound(f"{place}: not in the external data of this memory store")
        _pour(place, data, sink, byte_range)

    def write(self, name: str, data: bytes) -> None:
        """Put a file."""
        check_name(name)
        with self._lock:
            self._files[name] = bytes(data)

    def replace(self, name: str, data: bytes, expected: bytes | None) -> None:
        """Put a file where `expected` is what is there now. Raises FileChanged."""
        check_name(name)
        with self._lock:
            if self._files.get(name) != expected:
                raise FileChanged(f"{name}: changed meanwhile")
            self._files[name] = bytes(data)

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the file is there with this content."""
        check_name(name)
        with self._lock:
            return self._files.get(name) == data

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        check_name(name)
        with self._lock:
            return name in self._files

    def remove(self, name: str) -> None:
        """Delete the file; it need not exist."""
        check_name(name)
        with self._lock:
            self._files.pop(name, None)

    def iter_names(self, prefix: str = "") -> Iterator[str]:
        """All names that begin with the prefix."""
        with self._lock:
            names = list(self._files)
        return (name for name in names if name.startswith(prefix))

    def sync(self) -> None:
        """Nothing to do: memory survives no power cut anyway."""

    def close(self) -> None:
        """Nothing to let go of; the files stay."""


def _pour(place: str, data: bytes, sink: Sink, byte_range: tuple[int, int] | None) -> None:
    if byte_range is not None:
        offset, length = byte_range
        if offset + length > len(data):
            raise ObjectCorrupt(
                f"{place}: has {len(data)} bytes, none at {offset}..{offset + length}"
            )
        data = data[offset : offset + length]
    sink.begin()
    sink.write(data)
    sink.finish()
