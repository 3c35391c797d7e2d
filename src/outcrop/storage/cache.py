"""The client cache: plain objects as files in CernVM-FS's layout, shared by processes (spec 18).

A file appears under its name only after its content was checked, so what is there is believed,
but for its size. The time of last use is the file's mtime, refreshed when older than ten minutes:
by `open_object` here, and by the FUSE engine for what it opens itself. Above the quota the files
unused for longest go, until half of it is free. A pinned object is one somebody holds open with a
shared lock on the descriptor: eviction, in whichever process, leaves it alone.
"""

import fcntl
import logging
import os
import threading
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.fqrn import check_fqrn
from outcrop.formats.hashes import ObjectRef, hash_file_name
from outcrop.formats.manifest import Breadcrumb
from outcrop.storage.cache_contents import CacheContents
from outcrop.storage.cache_directory import CacheDirectory, try_lock
from outcrop.storage.errors import is_no_room, write_error
from outcrop.storage.flights import Flights
from outcrop.storage.store import (
    MAX_UNSIZED_OBJECT_BYTES,
    ObjectOpener,
    ObjectStore,
    fetch_object,
)
from outcrop.storage.temporary import OutputFile, TransientOpener, open_again

_log = logging.getLogger(__name__)


class Cache:
    """One cache directory. Any number of processes and threads may use it at once.

    Objects above half the quota, and all objects while the directory cannot be written, are
    served without being kept.
    """

    def __init__(self, directory: Path, *, quota_bytes: int | None) -> None:
        """Open or make the directory; no quota means no eviction, except when the disk is full.

        Raises StorageReadOnly, StorageFull, StorageUnavailable where there can be no directory. A
        directory that is there but not writable serves what it has.
        """
        self._directory = CacheDirectory(directory)
        self._contents = CacheContents(self._directory, quota_bytes=quota_bytes)
        self._pins = _Pins(self._directory)

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._directory.path

    @property
    def directory_fd(self) -> int:
        """A descriptor of the directory, the same number for the cache's whole life.

        Do not duplicate it: if the directory is deleted and made again, this number is the one
        that leads to the new one.
        """
        return self._directory.fd

    @property
    def quota_bytes(self) -> int | None:
        """What all objects together may have, or None."""
        return self._contents.quota_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects, whichever process put them there."""
        return self._contents.used_bytes

    @property
    def pinned_bytes(self) -> int:
        """Bytes of the objects that were pinned through this instance and still are."""
        return self._pins.total_bytes()

    def opener(self, store: ObjectStore) -> ObjectOpener:
        """Opens objects from the cache, and fetches from the store what is not there."""
        return _CacheOpener(self._directory, self._contents, self._pins, store)

    def has(self, ref: ObjectRef) -> bool:
        """Whether the object is here, in the size its catalog tells."""
        try:
            found = os.stat(hash_file_name(ref.hash), dir_fd=self.directory_fd)
        except OSError:
            return False
        return found.st_size > 0 if ref.size is None else found.st_size == ref.size

    def evict(self, ref: ObjectRef) -> bool:
        """Drop an object; False if it was not here or is pinned."""
        return self._contents.drop(ref)

    def cleanup(self, to_bytes: int) -> int:
        """Evict until no more than that is used, if pins allow; what is used then."""
        self._contents.evict(to_bytes)
        return self._contents.used_bytes

    def read_breadcrumb(self, fqrn: str) -> Breadcrumb | None:
        """What was last believed about a repository, or None."""
        fd = self._directory.open_file(_breadcrumb_name(fqrn))
        if fd is None:
            return None
        try:
            return Breadcrumb.parse(os.read(fd, Breadcrumb.MAX_BYTES))
        except (OSError, FormatError) as error:
            _log.warning("breadcrumb cannot be used: %s", error, extra={"fqrn": fqrn})
            return None
        finally:
            os.close(fd)

    def write_breadcrumb(self, fqrn: str, breadcrumb: Breadcrumb) -> None:
        """Remember it. Raises StorageReadOnly, StorageFull, StorageUnavailable."""
        name = _breadcrumb_name(fqrn)
        try:
            temporary, fd = self._directory.create_temporary()
            try:
                OutputFile(fd).write(breadcrumb.serialize())
                os.fsync(fd)
                self._directory.rename(temporary, name)
            except OSError:
                self._directory.remove(temporary)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise write_error(error, f"{self.directory / name}") from error

    def close(self) -> None:
        """Let go of the directory. Descriptors that were given out stay open."""
        self._contents.close()
        self._directory.close()


def _breadcrumb_name(fqrn: str) -> str:
    return f"cvmfschecksum.{check_fqrn(fqrn)}"


class _Pins:
    """The locks that keep objects from eviction, and what of it this process did."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}

    def add(self, ref: ObjectRef, fd: int) -> bool:
        """Lock an open object; False if it is just being evicted."""
        if not try_lock(fd, fcntl.LOCK_SH):
            return False
        found = os.fstat(fd)
        with self._lock:
            self._sizes[hash_file_name(ref.hash)] = found.st_size
        return found.st_nlink > 0

    def total_bytes(self) -> int:
        with self._lock:
            self._sizes = {n: size for n, size in self._sizes.items() if self._is_locked(n)}
            return sum(self._sizes.values())

    def _is_locked(self, name: str) -> bool:
        fd = self._directory.open_file(name)
        if fd is None:
            return False
        try:
            return not try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)


class _CacheOpener:
    """See `ObjectOpener`."""

    def __init__(
        self, directory: CacheDirectory, contents: CacheContents, pins: _Pins, store: ObjectStore
    ) -> None:
        self._directory = directory
        self._contents = contents
        self._pins = pins
        self._store = store
        self._flights = Flights()
        self._transient = TransientOpener(store)

    def open_object(
        self, ref: ObjectRef, *, pin: bool = False, limit: int = MAX_UNSIZED_OBJECT_BYTES
    ) -> int:
        fd = self._contents.open_file(ref, limit)
        if fd is not None:
            if not pin or self._pins.add(ref, fd):
                return fd
            os.close(fd)
        fd = self._flights.run(_key(ref, limit), lambda: self._download(ref, limit, pin=pin))
        if pin:
            self._pins.add(ref, fd)  # for those who waited for another thread's download
        return fd

    def _download(self, ref: ObjectRef, limit: int, *, pin: bool) -> int:
        fd = self._contents.open_file(ref, limit)
        if fd is not None:  # the download that was under way a moment ago has brought it
            return fd
        try:
            temporary, writer = self._create_temporary()
        except OSError as error:
            _log.warning("%s is not kept: cache not writable: %s", ref.path, error)
            return self._transient.open_object(ref, limit=limit)
        is_kept = False
        try:
            self._fill(writer, ref, limit)
            reader = self._open_reader(temporary, writer, ref, pin=pin)
            try:
                is_kept = self._contents.keep(temporary, ref, os.fstat(reader).st_size)
            except BaseException:
                os.close(reader)
                raise
            return reader
        finally:
            if not is_kept:
                self._directory.remove(temporary)
            os.close(writer)

    def _create_temporary(self) -> tuple[str, int]:
        try:
            return self._directory.create_temporary()
        except OSError as error:
            if not is_no_room(error) or not self._contents.make_room():
                raise
            return self._directory.create_temporary()

    def _fill(self, writer: int, ref: ObjectRef, limit: int) -> None:
        try:
            try:
                fetch_object(self._store, ref, OutputFile(writer), limit=limit)
            except OSError as error:  # stores raise none: it is the cache's disk
                if not is_no_room(error) or not self._contents.make_room():
                    raise
                fetch_object(self._store, ref, OutputFile(writer), limit=limit)
            if ref.size is None:  # nothing would tell a file that a power cut truncated
                os.fsync(writer)
        except OSError as error:
            raise write_error(error, f"{ref.path} in {self._directory.path}") from error

    def _open_reader(self, temporary: str, writer: int, ref: ObjectRef, *, pin: bool) -> int:
        # Before the rename: afterwards somebody else could evict it already.
        reader = self._directory.open_file(temporary)
        if reader is None:  # deleted under us
            reader = open_again(writer)
        if pin:
            self._pins.add(ref, reader)
        return reader


def _key(ref: ObjectRef, limit: int) -> tuple[object, ...]:
    """What downloads must agree on to be the same; hashed faster than the reference itself."""
    return ref.path, ref.compression.value, ref.size, ref.url_path, ref.offset, limit
