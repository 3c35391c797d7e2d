"""What can go wrong between a repository and the place its bytes are in."""

import errno

from outcrop.errors import OutcropError


class StorageError(OutcropError):
    """The storage family. `is_retryable`: the same call may succeed a moment later."""

    exit_code = 5
    is_retryable = False


class InvalidName(StorageError):
    """Not a name a file in a store can have: empty, absolute, or leading out of the store."""


class ObjectNotFound(StorageError):
    """The store answered that it has no such object."""


class ObjectCorrupt(StorageError):
    """The bytes that came are not the ones asked for: wrong hash, bad compression, wrong size."""


class ObjectTooBig(StorageError):
    """The object is larger than the reader was prepared to take."""


class FileChanged(StorageError):
    """A file was to be replaced, but it is not any more what it was when it was read."""

    is_retryable = True


class StorageUnavailable(StorageError):
    """No server, proxy or disk gave an answer in time."""

    is_retryable = True


class StorageFull(StorageError):
    """The disk or the quota has no room, even after evicting what could go."""

    errno = errno.ENOSPC


class AccessDenied(StorageError):
    """The service knows no such user, or the user may not do this."""

    errno = errno.EACCES


class BucketMissing(StorageError):
    """The service has no bucket (or container) of that name."""


class StorageSettingsError(OutcropError):
    """Where a repository is to be stored is said in a way that cannot be."""

    exit_code = 7
    errno = errno.EINVAL


class StorageReadOnly(StorageError):
    """The place cannot be written to."""

    errno = errno.EROFS


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}


def is_no_room(error: OSError) -> bool:
    """Whether the operating system says that a disk or a quota is full."""
    return error.errno in _NO_ROOM


def read_error(error: OSError, place: str) -> StorageError:
    """The storage error for a failed read of `place`; raise it `from` the original."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return ObjectNotFound(f"{place}: not found")
    return StorageUnavailable(f"{place}: cannot be read: {error.strerror}")


def write_error(error: OSError, place: str) -> StorageError:
    """The storage error for a failed write to `place`; raise it `from` the original."""
    if is_no_room(error):
        return StorageFull(f"{place}: {error.strerror}", hint="make room on that disk")
    if error.errno in _NO_WRITING:
        return StorageReadOnly(f"{place}: cannot be written: {error.strerror}")
    return StorageUnavailable(f"{place}: cannot be written: {error.strerror}")
