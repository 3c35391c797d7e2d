"""What can go wrong about how a client is set up."""

import errno

from outcrop.errors import OutcropError


class SettingsError(OutcropError):
    """A parameter has a value it cannot have, or one that is needed is missing."""

    exit_code = 7
    errno = errno.EINVAL


class NotMounted(OutcropError):
    """There is no mount of ours at that place."""

    exit_code = 8


class MountFailed(OutcropError):
    """The server process of a mount ended before the mount was ready."""

    exit_code = 8
