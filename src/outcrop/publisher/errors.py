"""What can go wrong while a revision is made: whoever publishes can do something about it."""

import errno

from outcrop.errors import OutcropError


class PublishError(OutcropError):
    """The publishing family. The repository is as it was before."""

    exit_code = 9


class PublishInProgress(PublishError):
    """Another process is publishing to the same repository."""

    errno = errno.EBUSY


class TransactionOpen(PublishError):
    """Somebody has a transaction open on the repository."""

    errno = errno.EBUSY


class TransactionBusy(PublishError):
    """Files of an open transaction are still being written."""

    errno = errno.EBUSY


class NoTransaction(PublishError):
    """There is no open transaction to publish, to resume or to abort."""


class CollectionInProgress(PublishError):
    """Garbage collection or a check of the repository is under way."""

    errno = errno.EBUSY


class SourceUnreadable(PublishError):
    """Something in the source directory cannot be read."""


class SourceChanged(PublishError):
    """A file of the source kept changing, or went away, while it was read."""


class PathRefused(PublishError):
    """A path that the source may not have, or that cannot be published to."""

    errno = errno.EINVAL


class ArchiveInvalid(PublishError):
    """A tar archive is damaged, cut short, or none at all."""

    errno = errno.EBADMSG


class MemberRefused(PublishError):
    """A member of an archive that no repository can hold, or that would leave its place."""

    errno = errno.EINVAL


class LimitExceeded(PublishError):
    """A file or a catalog is larger than the repository's settings allow."""

    errno = errno.EFBIG


class TagExists(PublishError):
    """The repository has a tag of that name."""

    errno = errno.EEXIST


class ScratchFull(PublishError):
    """There is no room for the catalogs being edited."""

    errno = errno.ENOSPC


class PublisherSettingsError(OutcropError):
    """A parameter of `server.conf` has a value it cannot have, or is missing."""

    exit_code = 7
    errno = errno.EINVAL
