"""Reading a source directory: names, metadata, symlink targets, extended attributes; no content.

All paths are bytes. Nothing is followed: a symlink is an entry like any other.
"""

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.id_map import IdMap
from outcrop.formats.xattrs import MAX_ATTRIBUTES, MAX_VALUE_BYTES, serialize_xattrs
from outcrop.publisher.errors import SourceChanged, SourceUnreadable
from outcrop.publisher.pipeline import FileContent

DIRECTORY_BYTES = 4096
"""What every directory has as its size: it means nothing, and need not differ by file system."""

_NS = 1_000_000_000
_KERNEL_ATTRIBUTES = (b"trusted.overlay.", b"user.overlay.", b"system.nfs4_acl")
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENODATA, errno.ENOSYS)


class SourceEntry(NamedTuple):
    """A name in a directory and what `lstat` says about it."""

    name: bytes
    stat: os.stat_result


def scan_directory(path: bytes) -> tuple[os.stat_result, list[SourceEntry]]:
    """A directory's own `stat` and everything in it, by name.

    Raises SourceUnreadable, SourceChanged (also for a symlink that took the directory's place).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            own = os.fstat(fd)
            with os.scandir(fd) as entries:
                found = [
                    SourceEntry(os.fsencode(e.name), e.stat(follow_symlinks=False)) for e in entries
                ]
        finally:
            os.close(fd)
    except OSError as error:
        raise source_error(path, error) from error
    found.sort()
    return own, found


def read_small_file(path: bytes, *, limit: int) -> bytes:
    """A regular file that means something to the publisher, and one byte more than `limit` at most.

    Raises SourceUnreadable, SourceChanged (also for what is no regular file).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return file.read(limit + 1)
    except OSError as error:
        raise source_error(path, error) from error
    raise SourceChanged(f"{path.decode('utf-8', 'backslashreplace')} is no regular file any more")


def source_error(path: bytes, error: OSError) -> SourceUnreadable | SourceChanged:
    """The error for something of the source that could not be read; raise it `from` the cause."""
    shown = path.decode("utf-8", "backslashreplace")
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return SourceChanged(f"{shown} went away while it was to be published")
    return SourceUnreadable(
        f"{shown} cannot be read: {error.strerror}", hint="nothing was published"
    )


def hardlink_groups(entries: Iterable[SourceEntry]) -> list[list[SourceEntry]]:
    """The entries by file: names of one file in one directory belong together.

    Catalogs know hard links within a directory only; a link from elsewhere is a file of its own.
    """
    groups: list[list[SourceEntry]] = []
    linked: dict[tuple[int, int], list[SourceEntry]] = {}
    for entry in entries:
        if entry.stat.st_nlink > 1:
            key = (entry.stat.st_dev, entry.stat.st_ino)
            if key in linked:
                linked[key].append(entry)
                continue
            linked[key] = [entry]
            groups.append(linked[key])
        else:
            groups.append([entry])
    return groups


@dataclass(frozen=True, slots=True)
class Owners:
    """Who owns in the repository what somebody owns in the source: maps of user and group numbers.

    Without any it is the same number.
    """

    uids: IdMap = field(default_factory=IdMap)
    gids: IdMap = field(default_factory=IdMap)


class SourceReader:
    """Makes directory entries of what is on disk.

    `warnings` collects what a repository cannot hold and was left out, in words.
    """

    def __init__(
        self, *, with_xattrs: bool, with_nanoseconds: bool, owners: Owners | None = None
    ) -> None:
        owners = owners or Owners()
        self._with_xattrs = with_xattrs
        self._with_nanoseconds = with_nanoseconds
        self._uid = owners.uids.mapped
        self._gid = owners.gids.mapped
        self.warnings: list[str] = []

    def read_entry(self, path: bytes, name: bytes, seen: os.stat_result) -> DirectoryEntry:
        """The entry of a directory, symlink or special file, with one link.

        Raises SourceUnreadable, SourceChanged.
        """
        mode = seen.st_mode
        target = b""
        if stat.S_ISLNK(mode):
            try:
                target = os.readlink(path)  # noqa: PTH115 - bytes
            except OSError as error:
                raise source_error(path, error) from error
        is_device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
        return DirectoryEntry(
            name=name,
            mode=mode,
            size=DIRECTORY_BYTES if stat.S_ISDIR(mode) else len(target),
            rdev=seen.st_rdev if is_device else 0,
            mtime=seen.st_mtime_ns // _NS,
            mtime_ns=self._nanoseconds(seen),
            uid=self._uid(seen.st_uid),
            gid=self._gid(seen.st_gid),
            symlink=target,
            xattrs=self._read_xattrs(path),
        )

    def read_file_entry(
        self, path: bytes, name: bytes, content: FileContent, *, nlink: int, group: int
    ) -> DirectoryEntry:
        """The entry of a regular file that was read. Raises as `read_entry` does."""
        seen = content.seen
        return DirectoryEntry(
            name=name,
            mode=seen.st_mode,
            nlink=nlink,
            hardlink_group=group,
            size=seen.st_size if content.size is None else content.size,
            mtime=seen.st_mtime_ns // _NS,
            mtime_ns=self._nanoseconds(seen),
            uid=self._uid(seen.st_uid),
            gid=self._gid(seen.st_gid),
            content=content.content,
            algorithm=content.algorithm,
            compression=content.compression,
            xattrs=self._read_xattrs(path),
            is_chunked=bool(content.chunks),
        )

    def _nanoseconds(self, seen: os.stat_result) -> int | None:
        return seen.st_mtime_ns % _NS if self._with_nanoseconds else None

    def _read_xattrs(self, path: bytes) -> bytes | None:
        if not self._with_xattrs:
            return None
        try:
            names = os.listxattr(path, follow_symlinks=False)
            if not names:
                return None
            found = [
                (os.fsencode(name), os.getxattr(path, name, follow_symlinks=False))
                for name in names
                if not os.fsencode(name).startswith(_KERNEL_ATTRIBUTES)
            ]
        except OSError as error:
            if error.errno in _NO_ATTRIBUTES:
                return None
            raise source_error(path, error) from error
        return serialize_xattrs(dict(self._fitting(path, found)))

    def _fitting(self, path: bytes, found: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        fitting = [(name, value) for name, value in found if len(value) <= MAX_VALUE_BYTES]
        fitting = sorted(fitting)[:MAX_ATTRIBUTES]
        kept = {name for name, _ in fitting}
        for name, value in found:
            if name not in kept:
                self.warnings.append(
                    f"{path.decode('utf-8', 'backslashreplace')}: extended attribute "
                    f"{name.decode('utf-8', 'backslashreplace')} of {len(value)} bytes left out: "
                    f"a repository holds {MAX_ATTRIBUTES} attributes of {MAX_VALUE_BYTES} bytes"
                )
        return fitting
