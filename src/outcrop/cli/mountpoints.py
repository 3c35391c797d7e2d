"""The MOUNTPOINT argument: where it is, said without touching what is mounted there.

A mount may be dead or hang; whatever asks it something would fail or hang, too. Only the
directories above it are looked at.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from outcrop.cli.command import Session
from outcrop.client.mounting import MountRecord, iter_records, read_record

_MAX_LINKS = 40

Function = TypeVar("Function", bound=Callable[..., Any])


def locate(text: str) -> Path:
    """The absolute path of a mount point, with no symbolic link in it."""
    path = Path(text).absolute()
    for _ in range(_MAX_LINKS):
        if path.name in ("", ".."):
            return path.resolve()
        path = path.parent.resolve() / path.name
        try:
            path = path.parent / path.readlink()
        except OSError:  # not a link; the kernel says so without asking the file system
            break
    return path


def mountpoints_argument(*, required: bool) -> Callable[[Function], Function]:
    """Decorator: one or more MOUNTPOINTs (or none, for all mounts) as `mountpoints`."""
    metavar = "MOUNTPOINT..." if required else "[MOUNTPOINT]..."
    return click.argument("mountpoints", type=locate, nargs=-1, required=required, metavar=metavar)


def find_records(session: Session, mountpoints: Sequence[Path]) -> list[MountRecord]:
    """The mounts at these places, or all mounts of this user. Raises NotMounted."""
    if not mountpoints:
        return list(iter_records(session.locations))
    return [read_record(session.locations, mountpoint) for mountpoint in mountpoints]
