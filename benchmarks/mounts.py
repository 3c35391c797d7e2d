"""Mount points as the kernel lists them; nothing here touches a file of a mount, which may hang."""

import ctypes
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_MNT_DETACH = 2
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
    """Unmount if mounted; a busy one is detached after a second of asking. Never waits for it."""
    deadline = time.monotonic() + 1
    while is_mounted(mountpoint):
        late = time.monotonic() - deadline
        if os.geteuid() == 0:  # the system call: umount(8) looks at the path, which may hang
            flags = _MNT_DETACH if lazy or late > 0 else 0
            ctypes.CDLL(None).umount2(os.fsencode(mountpoint), flags)
        else:
            tool = shutil.which("fusermount3") or "fusermount"
            options = ["-u", "-q", *(["-z"] if lazy or late > 0 else [])]
            subprocess.run([tool, *options, str(mountpoint)], check=False, timeout=30)
        if late > 5:
            return
        if is_mounted(mountpoint):
            time.sleep(0.05)
