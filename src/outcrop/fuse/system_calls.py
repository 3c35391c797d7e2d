"""The few Linux system calls for mounts and namespaces that Python 3.11 has no name for."""

import ctypes
import os
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 0x1, 0x2, 0x4, 0x20
MS_BIND, MS_REC, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE = 0x1000, 0x4000, 0x20000, 0x40000, 0x80000
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(
    source: str | None, target: Path | str, kind: str | None, flags: int, data: str | None = None
) -> None:
    """Attach a file system to a directory. Raises OSError."""
    _check(
        _libc.mount(
            None if source is None else os.fsencode(source),
            os.fsencode(target),
            None if kind is None else kind.encode(),
            ctypes.c_ulong(flags),
            None if data is None else data.encode(),
        )
    )


def umount(target: Path | str, flags: int) -> None:
    """Detach what is mounted at a path. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), flags))


def unshare(flags: int) -> None:
    """Move this process into new namespaces. Raises OSError."""
    _check(_libc.unshare(flags))


def pivot_root_here() -> None:
    """Make the working directory, a mount, the root; the old root is mounted over it.

    Raises OSError.
    """
    _check(_libc.pivot_root(b".", b"."))


def die_with_parent(signal_number: int) -> None:
    """Have a signal sent to this process when the thread that made it ends. Raises OSError."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0))
