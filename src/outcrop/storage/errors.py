"""What can go wrong between a repository and the place its bytes are in."""

import errno

from outcrop.errors import OutcropError


class StorageError(OutcropError):
    """The storage family. `is_retryable`: the same call may succeed a moment later."""

    exit_code = 5
    is_retryable = False


class ObjectNotFound(StorageError):
    """The store answered that it has no such object."""


class ObjectCorrupt(StorageError):
    """The bytes that came are not the ones asked for: wrong hash, bad compression, wrong size."""


class ObjectTooBig(StorageError):
    """The object is larger than the reader was prepared to take."""


class StorageUnavailable(StorageError):
    """No server, proxy or disk gave an answer in time."""

    is_retryable = True


class StorageFull(StorageError):
    """The disk or the quota has no room, even after evicting what could go."""

    errno = errno.ENOSPC


class StorageReadOnly(StorageError):
    """The place cannot be written to."""

    errno = errno.EROFS
