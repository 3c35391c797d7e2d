"""Mount points as the kernel lists them; nothing here touches a file of a mount, which may hang."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_FUSECTL = Path("/sys/fs/fuse/connections")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    mountpoint: Path
    device_minor: int
    kind: str


def list_mounts(below: Path) -> list[Mount]:
    """Mounts at or below a directory, the newest first."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        mountpoint = Path(fields[4].encode().decode("unicode_escape"))
        if mountpoint.is_relative_to(below):
            minor = int(fields[2].partition(":")[2])
            mounts.append(Mount(mountpoint, minor, fields[fields.index("-") + 1]))
    return mounts[::-1]


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted exactly there."""
    return any(mount.mountpoint == mountpoint for mount in list_mounts(mountpoint))


def abort(mount: Mount) -> None:
    """Make every request of a FUSE mount fail at once (root, where fusectl is mounted)."""
    if not mount.kind.startswith("fuse"):
        return
    try:
        (_FUSECTL / str(mount.device_minor) / "abort").write_text("1")
    except OSError:
        return  # killing its server has the same effect


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount if mounted; a busy one is detached after a second of asking."""
    deadline = time.monotonic() + 1
    while is_mounted(mountpoint):
        lazy = lazy or time.monotonic() > deadline
        subprocess.run(
            _unmount_command(mountpoint, lazy=lazy),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
        )
        if time.monotonic() > deadline + 5:
            return
        if is_mounted(mountpoint):
            time.sleep(0.05)


def _unmount_command(mountpoint: Path, *, lazy: bool) -> list[str]:
    if os.geteuid() == 0:
        return ["umount", *(["-l"] if lazy else []), str(mountpoint)]
    tool = shutil.which("fusermount3") or "fusermount"
    return [tool, "-u", *(["-z"] if lazy else []), str(mountpoint)]
