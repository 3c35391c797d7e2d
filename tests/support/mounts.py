"""Real mounts through the real command, and their certain end.

Whatever a test does, a mount it made is gone afterwards: unmounted, or its connection aborted
through /sys/fs/fuse and the mount detached, its server process ended by its own process id.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 60


def outcrop(
    root: Path, *arguments: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with `root` as its world."""
    done = subprocess.run(
        [Path(sys.executable).with_name("outcrop"), *arguments],
        env={**os.environ, "OUTCROP_ROOT": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"outcrop {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
    return done


@dataclass(frozen=True)
class Mount:
    """A mounted repository."""

    root: Path
    mountpoint: Path
    pid: int

    def status(self) -> dict[str, Any]:
        """What `outcrop status` says of it."""
        done = outcrop(self.root, "status", str(self.mountpoint), "--json")
        found = json.loads(done.stdout)
        return found[0] if isinstance(found, list) else found

    def remount(self) -> str:
        """Look for a new revision."""
        return outcrop(self.root, "remount", str(self.mountpoint)).stdout

    def kill(self) -> None:
        """End the server without a chance to clean up, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(self.pid))


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Poll until it holds; fails after the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextlib.contextmanager
def mounted(
    root: Path, target: str, mountpoint: Path, *options: str, **environment: str
) -> Iterator[Mount]:
    """Mount with `outcrop mount`; unmounted at the end whatever happens."""
    mountpoint.mkdir(exist_ok=True)
    try:
        done = outcrop(root, "mount", target, str(mountpoint), "--json", *options, **environment)
        yield Mount(root, mountpoint, json.loads(done.stdout)["pid"])
    finally:
        end(root, mountpoint)


def end(root: Path, mountpoint: Path) -> None:
    """Unmount politely, then not."""
    if not mount_lines(mountpoint):
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        outcrop(root, "umount", str(mountpoint), check=False)
    for line in mount_lines(mountpoint):
        minor = line.split()[2].partition(":")[2]
        with contextlib.suppress(OSError):
            Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
        subprocess.run(["umount", "-l", str(mountpoint)], check=False)


def mount_lines(mountpoint: Path) -> list[str]:
    """Lines of mountinfo for a mount point; asks no file system anything."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == str(mountpoint)]
