"""A store that fails at the N-th operation: what SQLite's authors do to their disk.

The loop: run the scenario with operation 1 failing, then 2, … until one run gets through with no
fault; after each, the invariant must hold.
"""

import errno
import os
import signal
import threading
from collections.abc import Iterator
from enum import Enum

from outcrop.storage.errors import StorageFull, StorageUnavailable
from outcrop.storage.store import ObjectStore, Sink, WritableStore


class Kind(Enum):
    """How an operation fails."""

    ERROR = "raises StorageUnavailable"
    SHORT = "stops half way through the bytes, as if that were all"
    FLIP = "flips one bit"
    FULL = "raises StorageFull; on reads, the place the bytes go to is full (OSError)"
    KILL = "the process dies"


class FaultyStore:
    """Wraps a store; its `fail_at`-th read or write (from 1) fails, all others go through."""

    def __init__(self, inner: ObjectStore, *, fail_at: int, kind: Kind) -> None:
        self.operations = 0
        """How many reads and writes there were: less than `fail_at` means no fault happened."""

        self._inner = inner
        self._fail_at = fail_at
        self._kind = kind
        self._lock = threading.Lock()

    def _is_failing(self) -> bool:
        with self._lock:
            self.operations += 1
            return self.operations == self._fail_at

    def _strike(self, name: str) -> None:
        if self._kind is Kind.ERROR:
            raise StorageUnavailable(f"{name}: injected error")
        if self._kind is Kind.KILL:
            os.kill(os.getpid(), signal.SIGKILL)

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        if self._is_failing():
            self._strike(name)
            sink = _FaultySink(sink, self._kind)
        self._inner.fetch(name, sink, byte_range=byte_range)

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        if self._is_failing():
            self._strike(repr(url_path))
            sink = _FaultySink(sink, self._kind)
        self._inner.fetch_external(url_path, sink, byte_range=byte_range)

    def write(self, name: str, data: bytes) -> None:
        if self._is_failing():
            self._strike(name)
            if self._kind is Kind.FULL:
                raise StorageFull(f"{name}: injected full disk")
            data = _spoil(data, self._kind)
        self._writable.write(name, data)

    def remove(self, name: str) -> None:
        if self._is_failing():
            self._strike(name)
        self._writable.remove(name)

    def replace(self, name: str, data: bytes, expected: bytes | None) -> None:
        if self._is_failing():
            self._strike(name)
            if self._kind is Kind.FULL:
                raise StorageFull(f"{name}: injected full disk")
            data = _spoil(data, self._kind)
        self._writable.replace(name, data, expected)

    def holds(self, name: str, data: bytes) -> bool:
        return self._writable.holds(name, data)

    def exists(self, name: str) -> bool:
        return self._writable.exists(name)

    def iter_names(self, prefix: str = "") -> Iterator[str]:
        return self._writable.iter_names(prefix)

    def sync(self) -> None:
        self._writable.sync()

    def close(self) -> None:
        self._inner.close()

    @property
    def _writable(self) -> WritableStore:
        inner = self._inner
        assert hasattr(inner, "write"), "the wrapped store cannot be written to"
        return inner  # type: ignore[return-value]


def _spoil(data: bytes, kind: Kind) -> bytes:
    if kind is Kind.SHORT:
        return data[: len(data) // 2]
    if kind is Kind.FLIP and data:
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return data


class _FaultySink:
    """Spoils the first block; after a short read nothing more comes."""

    def __init__(self, inner: Sink, kind: Kind) -> None:
        self._inner = inner
        self._kind = kind
        self._is_spoilt = False

    def begin(self) -> None:
        self._is_spoilt = False
        self._inner.begin()

    def write(self, block: bytes) -> None:
        if self._kind is Kind.FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._is_spoilt:
            if self._kind is not Kind.SHORT:
                self._inner.write(block)
            return
        self._is_spoilt = True
        self._inner.write(_spoil(block, self._kind))

    def finish(self) -> None:
        self._inner.finish()
