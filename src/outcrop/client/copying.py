"""Copying files and directories out of a repository, as `cp -a` would out of a mount.

Names and targets are the repository's, so nothing of it is trusted with the place it goes to:
every step is made relative to an open directory, never through a symbolic link, and a file
appears under its name only when it is whole.
"""

import contextlib
import errno
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from outcrop.errors import OutcropError
from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.xattrs import parse_xattrs
from outcrop.repository.files import Piece, pieces_of
from outcrop.repository.tree import Revision

logger = logging.getLogger(__name__)

DOWNLOADS = 8
"""Files of one directory copied at the same time: most of it is waiting for servers."""

MAX_DEPTH = 200
"""Levels of directories; each costs an open file."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = stat.S_ISUID | stat.S_ISGID


class CopyFailed(OutcropError):
    """The place to copy to cannot take it."""


@dataclass(slots=True)
class CopyResult:
    """What was copied; `skipped` counts entries and attributes the system did not let us make."""

    files: int = 0
    directories: int = 0
    others: int = 0
    bytes: int = 0
    skipped: int = 0


Progress = Callable[[CopyResult], None]


def copy_tree(
    revision: Revision,
    source: bytes,
    destination: Path,
    *,
    progress: Progress = lambda result: None,
) -> CopyResult:
    """Copy what is at `source`, a normalized path, to the path `destination` itself.

    Directories are merged into one that is there; anything else is replaced. Kept: modes, times,
    symlinks, extended attributes, hard links, and as root owners and devices. Who is not root
    owns the copy, and set-id bits are dropped. Raises CopyFailed, StorageError, FormatError.
    """
    entry = revision.get(source)
    parent = _open_directory(destination.parent)
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        copy = _Copy(revision, pool, progress)
        name = os.fsencode(destination.name or ".")
        if entry.is_directory:
            copy.directory(source, entry, parent, name)
        else:
            copy.entries(source.rpartition(b"/")[0], [(entry, name)], parent)
    return copy.result


class _Copy:
    """One run: what it copies from, and how far it is."""

    def __init__(self, revision: Revision, pool: ThreadPoolExecutor, progress: Progress) -> None:
        self.revision = revision
        self.pool = pool
        self.progress = progress
        self.is_root = os.geteuid() == 0
        self.result = CopyResult()

    def directory(
        self, path: bytes, entry: DirectoryEntry, parent: "_Directory", name: bytes
    ) -> None:
        """Make a directory and all below it; mode and times last, so that it can be filled."""
        if path.count(b"/") > MAX_DEPTH:
            raise CopyFailed(f"deeper than {MAX_DEPTH} directories: {os.fsdecode(path[:80])!r}…")
        here = _make_directory(parent, name)
        found = self.revision.entries(path)
        self.entries(path, [(e, e.name) for e in found if not e.is_directory], here)
        for child in found:
            if child.is_directory:
                self.directory(path + b"/" + child.name, child, here, child.name)
        self._finish(entry, here.fd)
        self.result.directories += 1
        self.progress(self.result)

    def entries(
        self, directory: bytes, entries: Sequence[tuple[DirectoryEntry, bytes]], here: "_Directory"
    ) -> None:
        """Make everything in a directory that is not one. Hard links are groups within it."""
        first_names: dict[int, bytes] = {}
        links: list[tuple[bytes, bytes]] = []
        files: list[tuple[DirectoryEntry, list[Piece], bytes]] = []
        for entry, name in entries:
            first = first_names.setdefault(entry.hardlink_group, name)
            if entry.hardlink_group and first is not name:
                links.append((first, name))
            elif entry.is_regular:
                path = directory + b"/" + entry.name
                pieces = pieces_of(path, entry, self.revision.chunks(path, entry))
                files.append((entry, pieces, name))
            else:
                self._other(entry, here, name)
        self._files(files, here)
        for first, name in links:
            with _placed(here, name) as temporary, self._may_be_refused(name):
                os.link(
                    first, temporary, src_dir_fd=here.fd, dst_dir_fd=here.fd, follow_symlinks=False
                )
            self.result.files += 1

    def _files(
        self, files: Sequence[tuple[DirectoryEntry, list[Piece], bytes]], here: "_Directory"
    ) -> None:
        try:
            running = [self.pool.submit(self._file, *file, here) for file in files]
            for one in running:
                self.result.bytes += one.result()
                self.result.files += 1
                self.progress(self.result)
        except BaseException:
            self.pool.shutdown(cancel_futures=True)
            raise

    def _file(
        self, entry: DirectoryEntry, pieces: list[Piece], name: bytes, here: "_Directory"
    ) -> int:
        with _placed(here, name) as temporary:
            fd = os.open(temporary, _NEW_FILE, 0o600, dir_fd=here.fd)
            try:
                for piece in pieces:
                    self._append(piece, fd)
                self._finish(entry, fd)
            finally:
                os.close(fd)
        return entry.size

    def _append(self, piece: Piece, out: int) -> None:
        source = self.revision.opener.open_object(piece.ref)
        try:
            done = 0
            while done < piece.size:
                count = os.sendfile(out, source, done, min(piece.size - done, 1 << 30))
                if count == 0:
                    raise CopyFailed(f"object {piece.ref.path} became shorter while it was read")
                done += count
        finally:
            os.close(source)

    def _other(self, entry: DirectoryEntry, here: "_Directory", name: bytes) -> None:
        """A symlink, fifo, socket or device."""
        with _placed(here, name) as temporary, self._may_be_refused(name):
            if entry.is_symlink:
                os.symlink(entry.symlink, temporary, dir_fd=here.fd)
            else:
                os.mknod(temporary, entry.mode, entry.rdev, dir_fd=here.fd)
            if self.is_root:
                os.chown(temporary, entry.uid, entry.gid, dir_fd=here.fd, follow_symlinks=False)
            if not entry.is_symlink:
                os.chmod(temporary, stat.S_IMODE(entry.mode), dir_fd=here.fd)
            os.utime(temporary, ns=_times(entry), dir_fd=here.fd, follow_symlinks=False)
            self.result.others += 1

    def _finish(self, entry: DirectoryEntry, fd: int) -> None:
        """Owner, then mode (a new owner clears set-id bits), then attributes, then times."""
        mode = stat.S_IMODE(entry.mode)
        if self.is_root:
            os.fchown(fd, entry.uid, entry.gid)
        elif entry.is_regular:
            mode &= ~_SET_ID
        os.fchmod(fd, mode)
        for name, value in (parse_xattrs(entry.xattrs) if entry.xattrs else {}).items():
            with self._may_be_refused(entry.name + b" attribute " + name):
                os.setxattr(fd, name, value)
        os.utime(fd, ns=_times(entry))

    @contextlib.contextmanager
    def _may_be_refused(self, subject: bytes) -> Iterator[None]:
        """What only root may make, or this file system cannot hold, is left out and counted."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
            self.result.skipped += 1
            logger.warning(
                "not copied: %s: %s", subject.decode("utf-8", "backslashreplace"), error.strerror
            )


def _times(entry: DirectoryEntry) -> tuple[int, int]:
    modified = entry.mtime * 1_000_000_000 + (entry.mtime_ns or 0)
    return modified, modified


class _Directory:
    """An open directory; closed when nobody holds it any more, so never under a busy thread."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


def _open_directory(path: Path) -> _Directory:
    try:
        return _Directory(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise CopyFailed(f"cannot copy to {path}: {error.strerror}") from error


def _make_directory(parent: _Directory, name: bytes) -> _Directory:
    """An open directory of that name, made if need be. Raises CopyFailed for anything else."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        return _Directory(os.open(name, _DIRECTORY, dir_fd=parent.fd))
    except OSError as error:
        raise CopyFailed(
            f"cannot copy into {os.fsdecode(name)!r}: {error.strerror}",
            hint="something of that name is there that is not a directory"
            if error.errno in (errno.ENOTDIR, errno.ELOOP)
            else None,
        ) from error


@contextlib.contextmanager
def _placed(directory: _Directory, name: bytes) -> Iterator[bytes]:
    """A temporary name; what is made under it gets its own name at the end, or vanishes."""
    temporary = b".outcrop-" + secrets.token_hex(8).encode()
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):  # it was refused
            os.rename(temporary, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    except IsADirectoryError as error:
        raise CopyFailed(
            f"cannot replace the directory {os.fsdecode(name)!r} by something else"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory.fd)
