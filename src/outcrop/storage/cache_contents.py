"""What a client cache keeps and what it lets go: quota, use stamps, eviction (spec 18)."""

import fcntl
import logging
import os
import stat
import time

from outcrop.formats.hashes import ObjectRef, hash_file_name
from outcrop.storage.cache_directory import CacheDirectory, try_lock, wait_for_lock
from outcrop.storage.cache_usage import UsageCounter
from outcrop.storage.errors import ObjectTooBig

_log = logging.getLogger(__name__)

STAMP_AGE_SECONDS = 600
"""A file's stamp of last use is refreshed when it is older than this."""

_EVICTION_LOCK = "quarantaine"
_EVICTION_WAIT_SECONDS = 10.0
_EVICTION_PAUSE_SECONDS = 5.0


class CacheContents:
    """The objects of a cache directory and how many bytes they may have together."""

    def __init__(self, directory: CacheDirectory, *, quota_bytes: int | None) -> None:
        self.quota_bytes = quota_bytes
        self._directory = directory
        directory.sweep_temporaries()
        self._usage = UsageCounter(directory, self._count)
        self._next_eviction_at = 0.0

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects, whichever process put them there."""
        return self._usage.total

    def _count(self) -> int:
        return sum(file.size for file in self._directory.iter_objects())

    def open_file(self, ref: ObjectRef, limit: int) -> int | None:
        """A descriptor of an object that is here, stamped as used now; else None.

        A file of another size than the catalog tells (a truncated one, after a power cut) is
        deleted. Raises ObjectTooBig where the size is unknown and above the limit.
        """
        name = hash_file_name(ref.hash)
        fd = self._directory.open_file(name)
        if fd is None:
            return None
        found = os.fstat(fd)
        size = found.st_size
        if size != ref.size and not (ref.size is None and 0 < size <= limit):
            os.close(fd)
            if ref.size is None and size > limit:
                raise ObjectTooBig(f"{ref.path}: {size} bytes, at most {limit} are taken")
            self._replace(name, size, ref)
            return None
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None
        if found.st_mtime < time.time() - STAMP_AGE_SECONDS:
            _stamp(fd)
        return fd

    def _replace(self, name: str, size: int, ref: ObjectRef) -> None:
        _log.warning("cached %s has %d bytes, not %s: fetched again", name, size, ref.size)
        if self._directory.remove(name):
            self._usage.add(-size)

    def keep(self, temporary: str, ref: ObjectRef, size: int) -> bool:
        """Put a checked temporary file in its place, if there is room; whether it went there."""
        name = hash_file_name(ref.hash)
        if self._directory.has(name, size):  # another process was quicker; counted already
            return False
        if not self._reserve(size):
            return False
        try:
            self._directory.rename(temporary, name)
        except OSError as error:
            self._usage.add(-size)
            _log.warning("%s cannot be kept: %s", ref.path, error)
            return False
        return True

    def _reserve(self, size: int) -> bool:
        """Count a file that is about to appear, evicting others if need be; whether it may."""
        quota = self.quota_bytes
        if quota is not None and size > quota - quota // 2:
            return False
        total = self._usage.add(size)
        if quota is None or total <= quota:
            return True
        if time.monotonic() >= self._next_eviction_at:
            self.evict(quota // 2 + size)
            if self._usage.total <= quota:
                return True
            # Pins fill the quota. Looking at every file again for each object would help nobody.
            self._next_eviction_at = time.monotonic() + _EVICTION_PAUSE_SECONDS
        self._usage.add(-size)
        return False

    def drop(self, ref: ObjectRef) -> bool:
        """Delete one object; False if it is not here or is pinned."""
        name = hash_file_name(ref.hash)
        fd = self._directory.open_file(name)
        if fd is None:
            return False
        try:
            if not try_lock(fd, fcntl.LOCK_EX) or not self._directory.remove(name):
                return False
            self._usage.add(-os.fstat(fd).st_size)
            return True
        finally:
            os.close(fd)

    def make_room(self) -> bool:
        """The disk is full: evict half of what is here. Whether anything went."""
        before = self._usage.total
        self.evict(before // 2)
        return self._usage.total < before

    def evict(self, to_bytes: int) -> None:
        """Delete the files unused for longest until only `to_bytes` are left.

        One evicts at a time, in whichever process; who waited may find the work done.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            lock_fd = os.open(_EVICTION_LOCK, flags, dir_fd=self._directory.fd)
        except OSError:  # the directory is gone, so there is nothing to evict either
            return
        try:
            wait_for_lock(lock_fd, fcntl.LOCK_EX, seconds=_EVICTION_WAIT_SECONDS)
            before = self._usage.total
            if before > to_bytes:
                self._usage.add(self._delete_oldest(to_bytes) - before)
        finally:
            os.close(lock_fd)

    def _delete_oldest(self, to_bytes: int) -> int:
        """Returns the number of bytes left, counted anew."""
        directory = self._directory
        # What is about to be renamed was added to the counter already. First txn: a file that
        # moves to its place meanwhile is counted twice, never missed.
        total = directory.sweep_temporaries()
        files = sorted(directory.iter_objects(), key=lambda file: file.used_at_ns)
        total += sum(file.size for file in files)
        for file in files:
            if total <= to_bytes:
                break
            if directory.remove_if_idle(file):
                total -= file.size
        return total

    def close(self) -> None:
        """Let go of the counter."""
        self._usage.close()


def _stamp(fd: int) -> None:
    try:
        os.utime(fd)
    except OSError:  # a read-only cache is evicted by nobody
        return
