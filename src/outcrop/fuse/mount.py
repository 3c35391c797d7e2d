"""Mounts and unmounts FUSE file systems, and tells a live mount from a dead one.

Nothing here ever touches a mounted file system itself (no stat, no open): one whose server is
stuck would take us with it. What is known is read from /proc/self/mountinfo; what must be asked is
asked by another process, with a time limit; fusectl cuts a mount off.
"""

import array
import enum
import errno
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outcrop.fuse import system_calls
from outcrop.fuse.errors import (
    FuseUnavailable,
    MountError,
    MountpointBusy,
    MountpointUnusable,
    NotMounted,
)

DEVICE = "/dev/fuse"
_CONNECTIONS = Path("/sys/fs/fuse/connections")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """How the mount is to behave. Always read-only.

    `allow_other`: other users may use it. `default_permissions`: the kernel checks modes and
    owners. `suid`, `dev`: honour setuid bits and device nodes (root only).
    """

    allow_other: bool = False
    default_permissions: bool = True
    suid: bool = False
    dev: bool = False


class MountState(enum.Enum):
    """What is at a path: nothing of FUSE, a mount that is served, one whose server is gone."""

    NOT_MOUNTED = "not mounted"
    ALIVE = "alive"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of mountinfo: `device` is the minor number, the name of the fusectl directory."""

    device: int
    mountpoint: Path
    type: str
    source: str


def mount(mountpoint: Path, *, fsname: str = "outcrop", options: MountOptions | None = None) -> int:
    """Mount an empty FUSE file system and return the device to serve it with.

    Root calls mount(2), anybody else `fusermount3`. The mount waits for its first answer, so an
    engine must serve the device soon. Raises FuseUnavailable, MountpointUnusable, MountpointBusy.
    """
    options = options or MountOptions()
    _check_mountpoint(mountpoint)
    if os.geteuid() == 0:
        return mount_directly(mountpoint, fsname=fsname, options=options)
    return _mount_by_helper(mountpoint, fsname, options)


def _check_mountpoint(mountpoint: Path) -> None:
    state = mount_state(mountpoint)
    if state is MountState.ALIVE:
        raise MountpointBusy(
            f"{mountpoint}: a FUSE file system is mounted there already",
            hint="unmount it first, or choose another directory",
        )
    if state is MountState.DEAD:
        repair(mountpoint)
    try:
        found = mountpoint.stat()
    except OSError as error:
        raise MountpointUnusable(
            f"{mountpoint}: {error.strerror}", hint="create the directory first"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise MountpointUnusable(f"{mountpoint} is not a directory")


def open_device() -> int:
    """Open the FUSE device. Raises FuseUnavailable."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = {
            errno.ENOENT: "load the fuse kernel module (modprobe fuse)",
            errno.ENODEV: "load the fuse kernel module (modprobe fuse)",
            errno.EACCES: f"ask the administrator for access to {DEVICE} (usually mode 0666)",
            errno.EPERM: f"allow {DEVICE} in this container (e.g. --device {DEVICE})",
        }.get(error.errno or 0)
        reason = (error.strerror or "unknown error").lower()
        raise FuseUnavailable(f"cannot open {DEVICE}: {reason}", hint=hint) from error


def mount_directly(mountpoint: Path, *, fsname: str, options: MountOptions) -> int:
    """Mount with mount(2): for root, here or in a user namespace of one's own."""
    fd = open_device()
    try:
        _mount_device(fd, mountpoint, fsname, options)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _mount_device(fd: int, mountpoint: Path, fsname: str, options: MountOptions) -> None:
    data = [f"fd={fd}", f"rootmode={stat.S_IFDIR:o}", f"user_id={os.getuid()}"]
    data.append(f"group_id={os.getgid()}")
    if options.default_permissions:
        data.append("default_permissions")
    if options.allow_other:
        data.append("allow_other")
    flags = system_calls.MS_RDONLY
    flags |= 0 if options.suid else system_calls.MS_NOSUID
    flags |= 0 if options.dev else system_calls.MS_NODEV
    try:
        system_calls.mount(fsname, mountpoint, "fuse.outcrop", flags, ",".join(data))
    except OSError as error:
        raise _refused(mountpoint, error) from error


def _refused(mountpoint: Path, error: OSError) -> MountError:
    if error.errno == errno.ENODEV:
        return FuseUnavailable(
            "this kernel has no FUSE", hint="load the fuse kernel module (modprobe fuse)"
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return FuseUnavailable(
            f"{mountpoint}: not permitted to mount",
            hint="a container or a security module (AppArmor, SELinux) forbids it",
        )
    return MountpointUnusable(f"{mountpoint}: cannot mount: {(error.strerror or '').lower()}")


def _mount_by_helper(mountpoint: Path, fsname: str, options: MountOptions) -> int:
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if helper is None:
        raise FuseUnavailable(
            "fusermount3 is not installed, and only root can mount without it",
            hint="install the fuse3 package",
        )
    os.close(open_device())  # a clearer message than the helper's
    words = ["ro", "nosuid", "nodev", "subtype=outcrop", f"fsname={_escaped(fsname)}"]
    if options.default_permissions:
        words.append("default_permissions")
    if options.allow_other:
        words.append("allow_other")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = subprocess.run(
            [helper, "-o", ",".join(words), "--", os.fspath(mountpoint)],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno()), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        theirs.close()
        fd = receive_fd(ours)
    if done.returncode != 0 or fd is None:
        raise _helper_error(mountpoint, done.stderr)
    return fd


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _helper_error(mountpoint: Path, message: str) -> MountError:
    text = " ".join(message.split()) or "fusermount3 failed and did not say why"
    text = re.sub(r"^fusermount3?: ", "", text)
    if "user_allow_other" in text:
        return FuseUnavailable(
            "only root may use allow_other here", hint="add user_allow_other to /etc/fuse.conf"
        )
    if "user has no write access" in text or "mountpoint" in text:
        return MountpointUnusable(f"{mountpoint}: {text}")
    return FuseUnavailable(f"{mountpoint}: {text}")


def receive_fd(connection: socket.socket) -> int | None:
    """One file descriptor sent over a socket, close-on-exec; None if the sender sent none."""
    wanted = array.array("i")
    _, control, _, _ = connection.recvmsg(
        1, socket.CMSG_LEN(wanted.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            wanted.frombytes(data[: wanted.itemsize])
            return wanted[0]
    return None


def iter_mounts() -> Iterator[MountEntry]:
    """The FUSE mounts this process can see, in the order they were made."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if kind[0] == "fuse" or kind[0].startswith("fuse."):
            minor = int(fields[2].partition(":")[2])
            major = int(fields[2].partition(":")[0])
            # The connection is named by the kernel's dev_t: major << 20 | minor.
            yield MountEntry(
                major << 20 | minor, Path(unescaped(fields[4])), kind[0], unescaped(kind[1])
            )


def unescaped(text: str) -> str:
    """A field of mountinfo as it was before the kernel wrote blanks as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), text)


def find_mount(mountpoint: Path) -> MountEntry | None:
    """The FUSE mount at exactly this path, the topmost if there are several."""
    wanted = _resolved(mountpoint)
    found = None
    for entry in iter_mounts():
        if entry.mountpoint == wanted:
            found = entry
    return found


def _resolved(mountpoint: Path) -> Path:
    """Resolve the directory the mount point is in: the mount point itself must not be touched."""
    absolute = mountpoint.absolute()
    if absolute.name in ("", ".."):
        return Path(os.path.normpath(absolute))
    return absolute.parent.resolve() / absolute.name


def mount_state(mountpoint: Path) -> MountState:
    """Whether a FUSE mount is at the path and has a server. Never waits for that server.

    The kernel tells only those who use the mount, and they wait for a server that is stuck. So
    another process asks; if it gets no answer, somebody must be there to give none.
    """
    if find_mount(mountpoint) is None:
        return MountState.NOT_MOUNTED
    probe = subprocess.Popen(
        [sys.executable, "-ISc", _PROBE, os.fspath(_resolved(mountpoint))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        status = probe.wait(_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        probe.kill()  # takes effect when the server answers; somebody has to wait for that
        threading.Thread(target=probe.wait, daemon=True).start()
        return MountState.ALIVE
    if status == _PROBE_DEAD and find_mount(mountpoint) is not None:
        return MountState.DEAD
    return MountState.ALIVE if find_mount(mountpoint) is not None else MountState.NOT_MOUNTED


_PROBE_SECONDS = 5
_PROBE_DEAD = 3
_PROBE = f"""
import errno, os, sys
try:
    os.statvfs(sys.argv[1])
except OSError as error:
    sys.exit({_PROBE_DEAD} if error.errno in (errno.ENOTCONN, errno.ECONNABORTED) else 0)
"""


def _connection(entry: MountEntry) -> Path:
    """The mount's directory in fusectl. Raises OSError where there is no fusectl."""
    if not os.path.ismount(_CONNECTIONS):
        system_calls.mount("fusectl", _CONNECTIONS, "fusectl", 0)
    return _CONNECTIONS / str(entry.device)


def abort(mountpoint: Path) -> None:
    """Cut a mount off from its server: everybody who waits for it gets an error, at once.

    Raises NotMounted, and MountError if the kernel does not let us.
    """
    entry = find_mount(mountpoint)
    if entry is None:
        raise NotMounted(f"{mountpoint}: no FUSE file system is mounted there")
    try:
        (_connection(entry) / "abort").write_text("1")
    except OSError as error:
        raise MountError(
            f"{mountpoint}: cannot abort the connection: {error.strerror}",
            hint="only the user who mounted it, or root, can",
        ) from error


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount; `lazy`: take it out of the tree now, and end it when its last user is gone.

    Raises NotMounted, MountpointBusy, MountError.
    """
    if find_mount(mountpoint) is None:
        raise NotMounted(f"{mountpoint}: no FUSE file system is mounted there")
    if os.geteuid() == 0:
        _unmount_directly(mountpoint, lazy)
    else:
        _unmount_by_helper(mountpoint, lazy)


def _unmount_directly(mountpoint: Path, lazy: bool) -> None:
    flags = system_calls.UMOUNT_NOFOLLOW | (system_calls.MNT_DETACH if lazy else 0)
    try:
        system_calls.umount(_resolved(mountpoint), flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(mountpoint) from error
        reason = (error.strerror or "").lower()
        raise MountError(f"{mountpoint}: cannot unmount: {reason}") from error


def _busy(mountpoint: Path) -> MountpointBusy:
    return MountpointBusy(
        f"{mountpoint} is in use",
        hint="leave the directory and close its files (lsof shows them), or unmount lazily",
    )


def _unmount_by_helper(mountpoint: Path, lazy: bool) -> None:
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if helper is None:
        raise FuseUnavailable("fusermount3 is not installed", hint="install the fuse3 package")
    words = [helper, "-u", "-q", *(["-z"] if lazy else []), "--", os.fspath(_resolved(mountpoint))]
    done = subprocess.run(
        words,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    if find_mount(mountpoint) is not None and not done.stderr.strip():
        raise _busy(mountpoint)
    raise MountError(f"{mountpoint}: cannot unmount: {' '.join(done.stderr.split())}")


def repair(mountpoint: Path) -> bool:
    """Take a dead mount (its server was killed) out of the way. Returns whether there was one."""
    if mount_state(mountpoint) is not MountState.DEAD:
        return False
    unmount(mountpoint, lazy=True)
    return True
