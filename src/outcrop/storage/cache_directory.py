"""The files of a client cache: layout, names, locks (spec 18). What to keep is decided elsewhere.

Every path is relative to one directory descriptor, so a cache that is moved keeps working. Where
the whole directory was deleted it is made again, under the same descriptor number: whoever was
given that number (the FUSE engine) sees the new directory.
"""

import contextlib
import fcntl
import itertools
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from outcrop.storage.errors import write_error

TRANSACTIONS = "txn"
_OBJECT_DIRECTORIES = tuple(f"{number:02x}" for number in range(256))
_OTHER_DIRECTORIES = (TRANSACTIONS, "quarantaine")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_LEFTOVER_AGE_SECONDS = 60
_LOCK_STEP_SECONDS = 0.005


class StoredFile(NamedTuple):
    """What a scan found out about a file."""

    name: str
    size: int
    used_at_ns: int


class CacheDirectory:
    """An open cache directory. Raises OSError throughout, except where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._temporary_prefix = f"{TRANSACTIONS}/fetch{os.getpid()}-{secrets.token_hex(4)}-"
        try:
            self.fd = self._open()
        except OSError as error:
            raise write_error(error, f"cache directory {path}") from error
        self.is_sole_user = self._take_lock()

    def _open(self) -> int:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a read-only directory: what is in it is served
            _make_directories(fd)
        return fd

    def _take_lock(self) -> bool:
        """Lock the directory as one of its users; whether there is no other."""
        is_sole = try_lock(self.fd, fcntl.LOCK_EX)
        try_lock(self.fd, fcntl.LOCK_SH)
        return is_sole

    def close(self) -> None:
        """Close the descriptor; again does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def recreate(self) -> None:
        """Make again what was deleted: the directory itself or directories in it."""
        with self._lock:
            fd = self._open()
            try:
                if not os.path.samestat(os.fstat(fd), os.fstat(self.fd)):
                    os.dup2(fd, self.fd, inheritable=False)
                    self._take_lock()
            finally:
                os.close(fd)
            _make_directories(self.fd)

    def open_file(self, name: str) -> int | None:
        """A descriptor to read a regular file from, or None if there is no such file."""
        try:
            return os.open(name, _READ, dir_fd=self.fd)
        except OSError:
            return None

    def has(self, name: str, size: int) -> bool:
        """Whether a file of that size is there."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_size == size
        except OSError:
            return False

    def create_temporary(self) -> tuple[str, int]:
        """A new file in `txn`, locked as in use: its name and a descriptor to write to."""
        name = f"{self._temporary_prefix}{next(self._numbers)}"
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=self.fd)
        except FileNotFoundError:
            self.recreate()
            fd = os.open(name, _CREATE, 0o600, dir_fd=self.fd)
        wait_for_lock(fd, fcntl.LOCK_SH, seconds=1)
        return name, fd

    def rename(self, temporary: str, name: str) -> None:
        """Put a finished temporary file in its place."""
        try:
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except FileNotFoundError:
            self.recreate()
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def remove(self, name: str) -> bool:
        """Delete a file; whether it was there and could be deleted."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except OSError:
            return False
        return True

    def remove_if_idle(self, file: StoredFile) -> bool:
        """Delete a file nobody has pinned and nobody used since it was looked at."""
        fd = self.open_file(file.name)
        if fd is None:
            return False
        try:
            if not try_lock(fd, fcntl.LOCK_EX) or os.fstat(fd).st_mtime_ns != file.used_at_ns:
                return False
            return self.remove(file.name)
        finally:
            os.close(fd)

    def iter_objects(self) -> Iterator[StoredFile]:
        """All files in `00` … `ff`."""
        for directory in _OBJECT_DIRECTORIES:
            yield from self._iter_files(directory)

    def _iter_files(self, directory: str) -> Iterator[StoredFile]:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd)
        except OSError:
            return
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # gone since the listing
                        continue
                    if stat.S_ISREG(found.st_mode):
                        name = f"{directory}/{entry.name}"
                        yield StoredFile(name, found.st_size, found.st_mtime_ns)
        finally:
            os.close(fd)

    def sweep_temporaries(self) -> int:
        """Delete old files in `txn` that belong to nobody alive; bytes of those in use."""
        oldest = time.time_ns() - _LEFTOVER_AGE_SECONDS * 10**9
        in_use = 0
        for file in self._iter_files(TRANSACTIONS):
            fd = self.open_file(file.name)
            if fd is None:
                continue
            try:
                if not try_lock(fd, fcntl.LOCK_EX):
                    in_use += file.size
                elif file.used_at_ns < oldest:
                    self.remove(file.name)
            finally:
                os.close(fd)
        return in_use


def _make_directories(fd: int) -> None:
    for name in (*_OTHER_DIRECTORIES, *_OBJECT_DIRECTORIES):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=fd)


def try_lock(fd: int, kind: int) -> bool:
    """Lock an open file (`LOCK_SH`, `LOCK_EX`, `LOCK_UN`) without waiting; whether that worked."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: a cache all the same, but nothing is pinned
        return True
    return True


def wait_for_lock(fd: int, kind: int, *, seconds: float) -> bool:
    """Lock an open file, but wait no longer than that; whether it worked.

    A holder that was stopped or is stuck on a dead disk must not stop everybody else.
    """
    deadline = time.monotonic() + seconds
    while not try_lock(fd, kind):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOCK_STEP_SECONDS)
    return True
