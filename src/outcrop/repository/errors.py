"""What can go wrong about the content of a repository rather than its bytes."""

import errno

from outcrop.errors import OutcropError


class RepositoryError(OutcropError):
    """The repository family."""

    exit_code = 6


class PathNotFound(RepositoryError):
    """There is no such path at this revision."""

    errno = errno.ENOENT


class PathExists(RepositoryError):
    """Something is at a path where something new was to be."""

    errno = errno.EEXIST


class PathNotMovable(RepositoryError):
    """That path cannot be moved or cloned, or not to that place."""

    errno = errno.EINVAL


class NotADirectory(RepositoryError):
    """A directory was asked for and the path is something else."""

    errno = errno.ENOTDIR


class NotAFile(RepositoryError):
    """A regular file was asked for and the path is something else."""

    errno = errno.EISDIR


class NotASymlink(RepositoryError):
    """A symlink was asked for and the path is something else."""

    errno = errno.EINVAL


class TooManyLinks(RepositoryError):
    """Symlinks lead in a circle."""

    errno = errno.ELOOP


class TagNotFound(RepositoryError):
    """No such tag, or none at or before the date."""


class RevisionNotFound(RepositoryError):
    """No such revision, or it was garbage collected."""


class RevisionConflict(RepositoryError):
    """The trunk moved while a new revision was being made."""


class RepositoryExists(RepositoryError):
    """There is already a repository of that name."""


class RepositoryNotFound(RepositoryError):
    """There is no repository of that name here."""


class ReflogMissing(RepositoryError):
    """There is no reflog, or nothing to tell whether it is the right one."""


class RepositoryIncomplete(RepositoryError):
    """An object is missing that a revision cannot be without."""


class NotCollectable(RepositoryError):
    """The repository was published with the promise that no object is ever deleted."""
