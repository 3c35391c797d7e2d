"""What can go wrong about how a client is set up."""

import errno

from outcrop.errors import OutcropError
from outcrop.fuse.errors import MountError


class SettingsError(OutcropError):
    """A parameter has a value it cannot have, or one that is needed is missing."""

    exit_code = 7
    errno = errno.EINVAL


class MountFailed(MountError):
    """The server process of a mount ended before the mount was ready."""
