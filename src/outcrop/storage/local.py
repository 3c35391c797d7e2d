"""A store in a directory: a stratum 0's storage as the web server serves it (spec 1, 29)."""

import ctypes
import fcntl
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outcrop.storage.errors import (
    FileChanged,
    ObjectCorrupt,
    ObjectNotFound,
    ObjectTooBig,
    StorageUnavailable,
    read_error,
    write_error,
)
from outcrop.storage.store import FileFacts, Sink, check_name, read_file

_BLOCK_BYTES = 1 << 20
_TRANSACTIONS = "data/txn"


class LocalStore:
    """Files below a directory. Writes go to `data/txn` first and are renamed into place.

    File modes are 0666 and directory modes 0777, less the umask, as upstream has them. The
    directory itself need not exist before the first write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefix = f"{root}/"
        self._transactions = f"{root}/{_TRANSACTIONS}"
        self._temporary_prefix = f"{self._transactions}/{secrets.token_hex(8)}-"
        self._numbers = itertools.count()

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """Pour a file into the sink. Raises ObjectNotFound, StorageUnavailable."""
        place = self._prefix + check_name(name)
        fd = _open_file(place)
        try:
            sink.begin()
            for block in _iter_blocks(fd, place, byte_range):
                sink.write(block)
        finally:
            os.close(fd)
        sink.finish()

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """Raises StorageUnavailable: a directory has no external data."""
        place = url_path.decode("utf-8", "backslashreplace")
        raise StorageUnavailable(
            f"{place}: external data, and {self.root} does not know its server",
            hint="open the repository through HTTP with an external URL",
        )

    def write(self, name: str, data: bytes) -> None:
        """Put a file: the old or the new is seen, never half. Raises StorageFull and the like."""
        place = self._prefix + check_name(name)
        temporary = f"{self._temporary_prefix}{next(self._numbers)}"
        try:
            fd = self._create(temporary)
            try:
                _write_all(fd, data)
            finally:
                os.close(fd)
            self._rename(temporary, place)
        except OSError as error:
            _remove_file(temporary)
            raise write_error(error, place) from error

    def link(self, name: str, target: str) -> None:
        """Make a file another name of one in the same directory or below. Raises StorageError."""
        place = self._prefix + check_name(name)
        try:
            Path(place).symlink_to(check_name(target))
        except FileExistsError:
            return
        except OSError as error:
            raise write_error(error, place) from error

    def replace(self, name: str, data: bytes, expected: bytes | None) -> None:
        """Put a file where `expected` is what is there now. Raises FileChanged.

        Processes of this machine take turns by a lock on the directory.
        """
        check_name(name)
        with self._turn():
            if self._read(name) != expected:
                raise FileChanged(f"{self._prefix}{name}: somebody else wrote it meanwhile")
            self.write(name, data)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise write_error(error, str(self.root)) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _read(self, name: str) -> bytes | None:
        try:
            return read_file(self, name)
        except ObjectNotFound:
            return None

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the file is there, whole: one torn by a power cut gets written again."""
        if not self.exists(name):
            return False
        try:
            return read_file(self, name, limit=len(data)) == data
        except (ObjectNotFound, ObjectTooBig):
            return False

    def _create(self, temporary: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            return os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            Path(self._transactions).mkdir(parents=True, exist_ok=True)
            return os.open(temporary, flags, 0o666)

    @staticmethod
    def _rename(temporary: str, place: str) -> None:
        try:
            os.rename(temporary, place)  # noqa: PTH104 - a Path costs more than the system call
        except FileNotFoundError:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, place)  # noqa: PTH104

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        try:
            return stat.S_ISREG(os.stat(self._prefix + check_name(name)).st_mode)  # noqa: PTH116
        except FileNotFoundError:
            return False
        except OSError as error:
            raise read_error(error, self._prefix + name) from error

    def find_facts(self, name: str) -> FileFacts | None:
        """Size and time of a file, `None` if it is not there."""
        place = self._prefix + check_name(name)
        try:
            status = os.stat(place, follow_symlinks=False)  # noqa: PTH116
        except FileNotFoundError:
            return None
        except OSError as error:
            raise read_error(error, place) from error
        return FileFacts(status.st_size, int(status.st_mtime))

    def remove(self, name: str) -> None:
        """Delete the file; it need not exist. Raises StorageReadOnly."""
        place = self._prefix + check_name(name)
        try:
            _remove_file(place)
        except OSError as error:
            raise write_error(error, place) from error

    def iter_names(self, prefix: str = "") -> Iterator[str]:
        """All names that begin with the prefix; what unfinished writes left is not shown."""
        above = prefix.rpartition("/")[0]
        if above:
            check_name(above)
        for name in self._iter_below(above):
            if name.startswith(prefix):
                yield name

    def _iter_below(self, directory: str) -> Iterator[str]:
        if directory == _TRANSACTIONS:
            return
        place = self._prefix + directory
        try:
            with os.scandir(place) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise read_error(error, place) from error
        for name, is_directory in found:
            below = f"{directory}/{name}" if directory else name
            if is_directory:
                yield from self._iter_below(below)
            else:
                yield below

    def remove_leftovers(self) -> int:
        """Delete what dead writers left in `data/txn`; how many files that were.

        Only for the one who holds the repository's publishing lock: nobody else may be writing.
        """
        try:
            names = os.listdir(self._transactions)  # noqa: PTH208
        except FileNotFoundError:
            return 0
        for name in names:
            self.remove(f"{_TRANSACTIONS}/{name}")
        return len(names)

    def sync(self) -> None:
        """Return when everything written survives a power cut. Raises StorageFull and the like."""
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        except OSError as error:
            raise write_error(error, str(self.root)) from error
        try:
            _sync_file_system(fd)
        except OSError as error:
            raise write_error(error, str(self.root)) from error
        finally:
            os.close(fd)

    def close(self) -> None:
        """Nothing to let go of."""


def _open_file(place: str) -> int:
    try:
        # Non-blocking: nobody gets hung up on a named pipe.
        fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise read_error(error, place) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ObjectNotFound(f"{place}: not a regular file")
    return fd


def _iter_blocks(fd: int, place: str, byte_range: tuple[int, int] | None) -> Iterator[bytes]:
    position, length = byte_range or (0, None)
    while length is None or length > 0:
        wanted = _BLOCK_BYTES if length is None else min(length, _BLOCK_BYTES)
        try:
            block = os.pread(fd, wanted, position)
        except OSError as error:
            raise read_error(error, place) from error
        if not block:
            if length is not None:
                raise ObjectCorrupt(f"{place}: ends at {position}, {length} bytes too early")
            return
        yield block
        position += len(block)
        if length is not None:
            length -= len(block)


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def _remove_file(place: str) -> None:
    try:
        os.unlink(place)  # noqa: PTH108
    except FileNotFoundError:
        return


def _sync_file_system(fd: int) -> None:
    # syncfs(2) is not in `os`; unlike sync(2) it leaves other disks alone and reports errors.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
