"""Makes a read-only file system writable: the kernel's overlayfs, with the changes in a directory.

Whoever mounts it as root gets everything the kernel offers: a directory is renamed without its
content being copied, and so are owners and modes changed. In a user namespace the kernel keeps its
notes in `user.overlay.*` attributes and does neither: programs copy such a directory.
"""

import errno
from dataclasses import dataclass
from pathlib import Path

from outcrop.fuse import system_calls
from outcrop.fuse.errors import MountError, MountpointBusy, MountpointUnusable
from outcrop.fuse.mount import unescaped

_ROOT_OPTIONS = (
    "index=off,redirect_dir=on,metacopy=on",
    "redirect_dir=on",  # before Linux 4.19
    "",
)
_USER_OPTIONS = ("index=off,userxattr", "userxattr")


@dataclass(frozen=True, slots=True, kw_only=True)
class WritableLayer:
    """Where the changes go: `upper` is what was changed, `work` an empty directory beside it.

    Both must be on one file system, which is no overlayfs. `has_user_attributes`: for mounts in a
    user namespace.
    """

    upper: Path
    work: Path
    has_user_attributes: bool = False


def mount_overlay(mountpoint: Path, lower: Path, layer: WritableLayer, *, fsname: str) -> None:
    """Show `lower` at a mount point with the changes of a layer, open to more of them.

    Raises MountpointUnusable, MountError.
    """
    layers = (
        f"lowerdir={_escaped(lower, ':')},upperdir={_escaped(layer.upper)},"
        f"workdir={_escaped(layer.work)}"
    )
    flags = system_calls.MS_NODEV | system_calls.MS_NOSUID
    choices = _USER_OPTIONS if layer.has_user_attributes else _ROOT_OPTIONS
    for options in choices:
        data = f"{layers},{options}" if options else layers
        try:
            system_calls.mount(fsname, mountpoint, "overlay", flags, data)
        except OSError as error:
            failure = error
            if error.errno != errno.EINVAL:
                break
        else:
            return
    raise _refused(mountpoint, layer, failure) from failure


def make_read_only(mountpoint: Path) -> None:
    """Let nobody write to an overlay any more. Raises MountpointBusy where somebody still does."""
    flags = system_calls.MS_REMOUNT | system_calls.MS_RDONLY
    flags |= system_calls.MS_NODEV | system_calls.MS_NOSUID
    _remount(mountpoint, flags)


def make_writable(mountpoint: Path) -> None:
    """Undo `make_read_only`. Raises MountError."""
    _remount(mountpoint, system_calls.MS_REMOUNT | system_calls.MS_NODEV | system_calls.MS_NOSUID)


def _remount(mountpoint: Path, flags: int) -> None:
    try:
        system_calls.mount(None, mountpoint, None, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise MountpointBusy(
                f"{mountpoint}: files are being written there", hint="lsof shows who does"
            ) from error
        raise MountError(f"{mountpoint}: cannot remount: {(error.strerror or '').lower()}") from (
            error
        )


def _escaped(path: Path, others: str = "") -> str:
    text = str(path).replace("\\", "\\\\")
    for character in "," + others:
        text = text.replace(character, "\\" + character)
    return text


def _refused(mountpoint: Path, layer: WritableLayer, error: OSError) -> MountError:
    reason = (error.strerror or "").lower()
    hints = {
        errno.EINVAL: f"{layer.upper} must be on a disk of its own kind, not on overlayfs (the "
        "root of a container is) or NFS: give the repository another CVMFS_SPOOL_DIR",
        errno.EPERM: "only root can; anybody may in a namespace: outcrop transaction --shell",
        errno.ENODEV: "this kernel has no overlayfs (modprobe overlay)",
    }
    hint = hints.get(error.errno or 0)
    kind = MountpointUnusable if error.errno == errno.EINVAL else MountError
    return kind(f"{mountpoint}: cannot make it writable: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount of any kind, as mountinfo has it; `device` tells two mounts of one from two."""

    device: str
    type: str
    source: str


def mounts_at(mountpoint: Path) -> list[Mounted]:
    """Everything mounted at exactly this path, the topmost last. Touches none of it."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if unescaped(fields[4]) == str(mountpoint):
            found.append(Mounted(fields[2], kind[0], unescaped(kind[1])))
    return found


def bind(source: Path, mountpoint: Path) -> None:
    """Show a mounted directory at another place, too. Raises MountError."""
    try:
        system_calls.mount(str(source), mountpoint, None, system_calls.MS_BIND)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise MountError(f"{mountpoint}: cannot show {source} there: {reason}") from error


def detach(mountpoint: Path) -> None:
    """Take the topmost mount away; it ends when its last user is gone. Raises MountError."""
    flags = system_calls.MNT_DETACH | system_calls.UMOUNT_NOFOLLOW
    try:
        system_calls.umount(mountpoint, flags)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise MountError(f"{mountpoint}: cannot unmount: {reason}") from error
