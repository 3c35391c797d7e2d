"""How many bytes a cache directory holds: one number shared by all processes that use it.

The file `outcrop.usage` has 24 bytes: `outcrop1`, the number of bytes and the number of users, both
as little endian 64 bit. Who opens the cache adds itself as a user and takes itself away at the end;
a user too many, seen by one who is alone with the directory, means a crash, and the number of bytes
is not believed. It is raised before a file appears and lowered after it went, so a process killed
between leaves it too high, not too low, and the next eviction, which counts anyway, puts it right.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from outcrop.storage.cache_directory import CacheDirectory, try_lock, wait_for_lock

_FILE = "outcrop.usage"
_RECORD = struct.Struct("<8sqq")
_MAGIC = b"outcrop1"
_LOCK_SECONDS = 1.0


class UsageCounter:
    """The shared number. Where the directory cannot be written it is only this process's."""

    def __init__(self, directory: CacheDirectory, count: Callable[[], int]) -> None:
        """`count` looks at every file and adds up; called when the number cannot be believed."""
        self._directory = directory
        self._count = count
        self._lock = threading.Lock()
        self._private: tuple[int, int] | None = None
        self._fd = self._open()
        with self._lock, self._locked_file():
            stored = self._read()
            if stored is None or (directory.is_sole_user and stored[1] != 0):
                self._write(count(), 1)
            else:
                self._write(stored[0], stored[1] + 1)

    def _open(self) -> int | None:
        try:
            return os.open(
                _FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=self._directory.fd
            )
        except OSError:
            return None

    @contextmanager
    def _locked_file(self) -> Iterator[None]:
        if self._fd is not None:
            wait_for_lock(self._fd, fcntl.LOCK_EX, seconds=_LOCK_SECONDS)
        try:
            yield
        finally:
            if self._fd is not None:
                try_lock(self._fd, fcntl.LOCK_UN)

    def _read(self) -> tuple[int, int] | None:
        """Bytes and users."""
        if self._fd is None:
            return self._private
        record = os.pread(self._fd, _RECORD.size + 1, 0)
        if len(record) != _RECORD.size:
            return None
        magic, total, users = _RECORD.unpack(record)
        if magic != _MAGIC or total < 0 or users < 0:
            return None
        return total, users

    def _write(self, total: int, users: int) -> None:
        self._private = total, users
        if self._fd is not None:
            try:
                os.pwrite(self._fd, _RECORD.pack(_MAGIC, total, users), 0)
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
            with self._locked_file():
                bytes_before, users = self._read() or (self._count(), 1)
                total = max(0, bytes_before + size)
                self._write(total, users)
                return total

    @property
    def total(self) -> int:
        """The number of bytes."""
        with self._lock:
            self._follow_file()
            stored = self._read()
        return self.add(0) if stored is None else stored[0]

    def close(self) -> None:
        """Stop counting."""
        with self._lock:
            with self._locked_file():
                stored = self._read()
                if stored is not None:
                    self._write(stored[0], max(0, stored[1] - 1))
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
