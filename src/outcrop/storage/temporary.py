"""Files without a name: where the plain bytes of an object go that is not (yet) in a cache."""

import fcntl
import io
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from outcrop.formats.hashes import ObjectRef
from outcrop.storage.errors import write_error
from outcrop.storage.store import MAX_UNSIZED_OBJECT_BYTES, ObjectStore, fetch_object

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_MEMORY_BYTES = 1024 * 1024
"""Objects up to this size are kept in memory rather than in a file."""

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class OutputFile(io.FileIO):
    """A file descriptor being written: `write` takes every byte or raises OSError.

    The descriptor stays the caller's. (A plain FileIO may write a part and say how much.)
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "r+b", closefd=False)

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of it."""
        view = memoryview(data)
        written = super().write(view) or 0
        while written < len(view):
            written += super().write(view[written:]) or 0
        return written


class TransientOpener:
    """Opens objects without keeping them: each open is a download, each file has no name.

    Small objects are sealed memory, others unlinked files in `directory` (default: the system's
    directory for temporary files).
    """

    def __init__(self, store: ObjectStore, *, directory: Path | None = None) -> None:
        self._store = store
        self._directory = directory

    def open_object(
        self, ref: ObjectRef, *, pin: bool = False, limit: int = MAX_UNSIZED_OBJECT_BYTES
    ) -> int:
        """See `ObjectOpener`. There is nothing to pin an object in, so `pin` means nothing."""
        try:
            if ref.size is not None and ref.size <= MAX_MEMORY_BYTES:
                return self._open_in_memory(ref, limit)
            return self._open_in_file(ref, limit)
        except OSError as error:  # stores raise no OSError: it is the place of the plain bytes
            raise write_error(error, f"{ref.path}: temporary file") from error

    def _open_in_memory(self, ref: ObjectRef, limit: int) -> int:
        fd = os.memfd_create("outcrop-object", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            fetch_object(self._store, ref, OutputFile(fd), limit=limit)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open_in_file(self, ref: ObjectRef, limit: int) -> int:
        writer, reader = _create_unnamed(self._directory or Path(tempfile.gettempdir()))
        try:
            fetch_object(self._store, ref, OutputFile(writer), limit=limit)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return reader


def _create_unnamed(directory: Path) -> tuple[int, int]:
    """A new unlinked file, opened for writing and again for reading."""
    path = directory / f"outcrop-{secrets.token_hex(8)}"
    writer = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return writer, os.open(path, os.O_RDONLY)
    except OSError:
        os.close(writer)
        raise
    finally:
        path.unlink()


def open_again(fd: int) -> int:
    """Another descriptor of the same file, read-only, with a position and locks of its own."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    except OSError:  # no /proc: shares position and locks, which readers by position bear
        return os.dup(fd)
