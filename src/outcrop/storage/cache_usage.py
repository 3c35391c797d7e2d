"""How many bytes a cache directory holds: one number shared by all processes that use it.

The file `outcrop.usage` has 24 bytes: `outcrop1`, the number of bytes and the state, both as
little endian 64 bit. The state is 1 while the cache is in use; found so by somebody who is alone
with the directory it means a crash, and the number is not believed. The number is raised before a
file appears and lowered after it went, so a process killed between leaves it too high, never too
low, and the next eviction, which counts anyway, puts it right.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Callable

from outcrop.storage.cache_directory import CacheDirectory, wait_for_lock

_FILE = "outcrop.usage"
_RECORD = struct.Struct("<8sqq")
_MAGIC = b"outcrop1"
_CLOSED, _IN_USE = 0, 1
_LOCK_SECONDS = 1.0


class UsageCounter:
    """The shared number. Where the directory cannot be written it is only this process's."""

    def __init__(self, directory: CacheDirectory, count: Callable[[], int]) -> None:
        """`count` looks at every file and adds up; called when the number cannot be believed."""
        self._directory = directory
        self._count = count
        self._lock = threading.Lock()
        self._private_total: int | None = None
        self._fd = self._open()
        stored = self._read()
        if stored is None or (directory.is_sole_user and stored[1] != _CLOSED):
            self._write(count(), _IN_USE)
        else:
            self._write(stored[0], _IN_USE)

    def _open(self) -> int | None:
        try:
            return os.open(
                _FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self._directory.fd
            )
        except OSError:
            return None

    def _read(self) -> tuple[int, int] | None:
        if self._fd is None:
            return None if self._private_total is None else (self._private_total, _IN_USE)
        record = os.pread(self._fd, _RECORD.size + 1, 0)
        if len(record) != _RECORD.size:
            return None
        magic, total, state = _RECORD.unpack(record)
        if magic != _MAGIC or total < 0:
            return None
        return total, state

    def _write(self, total: int, state: int) -> None:
        self._private_total = total
        if self._fd is not None:
            try:
                os.pwrite(self._fd, _RECORD.pack(_MAGIC, total, state), 0)
            except OSError:  # a full disk cannot even take this: count alone
                os.close(self._fd)
                self._fd = None

    def _follow_file(self) -> None:
        """The file was deleted (with the cache, perhaps): use the new one, or make it."""
        if self._fd is None:
            self._fd = self._open()
        elif os.fstat(self._fd).st_nlink == 0:
            os.close(self._fd)
            self._fd = self._open()

    def add(self, size: int) -> int:
        """Add bytes (or take away, where negative); the number after that."""
        with self._lock:
            self._follow_file()
            if self._fd is not None:
                wait_for_lock(self._fd, seconds=_LOCK_SECONDS)
            try:
                stored = self._read()
                total = max(0, (self._count() if stored is None else stored[0]) + size)
                self._write(total, _IN_USE)
            finally:
                if self._fd is not None:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            return total

    @property
    def total(self) -> int:
        """The number of bytes."""
        with self._lock:
            self._follow_file()
            stored = self._read()
        return self.add(0) if stored is None else stored[0]

    def close(self, *, is_last: bool) -> None:
        """Stop counting; the last one out says that all went well."""
        with self._lock:
            stored = self._read()
            if is_last and stored is not None:
                self._write(stored[0], _CLOSED)
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
