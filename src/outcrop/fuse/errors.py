"""What keeps a mount from coming up or going away."""

from outcrop.errors import OutcropError


class MountError(OutcropError):
    """The mount family."""

    exit_code = 8


class FuseUnavailable(MountError):
    """This machine, or this user on it, cannot use FUSE; the message says why in one line."""


class MountpointUnusable(MountError):
    """The mount point is missing or is not a directory we may use."""


class MountpointBusy(MountError):
    """Something is mounted there already, or is still using the mount."""


class NotMounted(MountError):
    """There is no mount at the path."""


class NamespaceUnavailable(MountError):
    """The kernel refuses the namespaces that a private mount needs."""


class CommandNotFound(MountError):
    """There is no such program to run beside the mount."""

    exit_code = 127


class CommandNotExecutable(MountError):
    """The program to run beside the mount is there, but cannot be run."""

    exit_code = 126
