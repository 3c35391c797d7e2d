"""Inside the namespace: makes it, mounts, runs the command, cleans up.

Run by `outcrop.fuse.namespace` as `python -m outcrop.fuse.keeper SOCKET ORDER`: descriptors of a
socket to it and of a file that says what to do.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from outcrop.fuse import system_calls as linux
from outcrop.fuse.errors import (
    CommandNotExecutable,
    CommandNotFound,
    MountError,
    MountpointUnusable,
    NamespaceUnavailable,
)
from outcrop.fuse.mount import MountOptions, mount_directly
from outcrop.fuse.namespace import ABORT_SIGNAL
from outcrop.fuse.overlay import WritableLayer, make_read_only, mount_overlay

_STAGING = ("/tmp", "/mnt", "/media", "/srv", "/opt", "/home", "/var")  # noqa: S108
_WATCHED = frozenset(
    {
        signal.SIGCHLD,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        ABORT_SIGNAL,
    }
)
_SI_KERNEL = 0x80


def main(arguments: Sequence[str]) -> int:
    """Do as ordered; how it went is sent over the socket, the exit status means nothing."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    with os.fdopen(int(arguments[1]), encoding="ascii") as order:
        order.seek(0)
        wanted = json.load(order)
    with socket.socket(fileno=int(arguments[0])) as caller:
        caller.set_inheritable(False)
        try:
            status = _run(caller, wanted["mounts"], wanted["layers"], wanted["command"], mask)
        except MountError as error:
            message = {"error": type(error).__name__, "message": str(error), "hint": error.hint}
            caller.send(json.dumps(message).encode())
            return 1
        with contextlib.suppress(BrokenPipeError):
            caller.send(json.dumps({"status": status}).encode())
    return 0


def _run(
    caller: socket.socket,
    mounts: Sequence[tuple[str, str]],
    layers: Sequence[Mapping[str, str]],
    command: Sequence[str],
    mask: AbstractSet[int],
) -> int:
    cwd = Path.cwd()
    targets = [Path(path) for path, _ in mounts]
    enter_namespace()
    linux.die_with_parent(signal.SIGKILL)
    make_mountpoints(targets)
    with contextlib.suppress(OSError):
        os.chdir(cwd)
    for target, (_, fsname) in zip(targets, mounts, strict=True):
        _hand_out_mount(caller, target, fsname)
    try:
        if caller.recv(16) != b"go":
            return 1  # the caller is gone
        with _made_writable(layers) as overlays:
            return _watch(_start(command, mask), [*overlays, *targets])
    finally:
        _abort(targets)


@contextlib.contextmanager
def _made_writable(layers: Sequence[Mapping[str, str]]) -> Iterator[list[Path]]:
    """Put a writable layer on top of mounts; at the end nobody may be writing any more.

    Raises MountError, MountpointBusy.
    """
    overlays: list[Path] = []
    try:
        for layer in layers:
            target = Path(layer["mountpoint"])
            paths = WritableLayer(
                upper=Path(layer["upper"]), work=Path(layer["work"]), has_user_attributes=True
            )
            mount_overlay(target, target, paths, fsname=f"overlay_{target.name}")
            overlays.append(target)
        yield overlays
        for target in overlays:
            make_read_only(target)
    finally:
        _abort(overlays)


def _hand_out_mount(caller: socket.socket, target: Path, fsname: str) -> None:
    # The caller's children may change user only where the caller is root.
    options = MountOptions(allow_other=os.geteuid() == 0)
    fd = mount_directly(target, fsname=fsname, options=options)
    try:
        socket.send_fds(caller, [b"fd"], [fd])
    finally:
        os.close(fd)


# ---- namespaces -----------------------------------------------------------------------------


def enter_namespace() -> None:
    """Move into a mount namespace of our own; unless root, in a user namespace of our own.

    There we may mount, the command may not: capabilities end at its exec, since the uid is mapped
    to itself. Mounts made on the host later still appear inside (automounted home directories).
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        if uid == 0 and _try_plain_namespace():
            return
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_SLAVE)
    except OSError as error:
        raise NamespaceUnavailable(
            f"cannot make a user namespace: {(error.strerror or '').lower()}",
            hint=_namespace_hint(error.errno),
        ) from error


def _try_plain_namespace() -> bool:
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_SLAVE)
    except PermissionError:
        return False  # root of a container, without the right to mount
    return True


def _namespace_hint(number: int | None) -> str:
    for name, off in (
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == off:
                on = "1" if off == "0" and "max" not in name else "0"
                on = "10000" if "max" in name else on
                return f"the administrator can allow it: sysctl {name.replace('/', '.')}={on}"
    if number == errno.ENOSPC:
        return "the limit of user namespaces is reached (sysctl user.max_user_namespaces)"
    return "a container or a security module (AppArmor, SELinux, seccomp) forbids it"


# ---- mount points the host does not have ------------------------------------------------------


def make_mountpoints(targets: Sequence[Path]) -> None:
    """See that all the directories exist, here inside; the host's file systems are left alone.

    Where one is missing, the nearest directory that exists is covered with a tmpfs that holds
    everything the directory has (bind mounts) and room for the new one.
    """
    try:
        for target in targets:
            if target.is_dir():
                continue
            ancestor = next(parent for parent in target.parents if parent.exists())
            if not _is_ours(ancestor):
                _cover(ancestor)
            target.mkdir(parents=True)
        for covered in sorted(_covered):
            flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
            linux.mount(None, covered, None, flags | linux.MS_NOSUID | linux.MS_NODEV)
    except OSError as error:
        raise MountpointUnusable(
            f"cannot make the mount points {', '.join(map(str, targets))}: {error}",
            hint="make the directories on the host, or allow mounts in user namespaces",
        ) from error


_covered: list[str] = []


def _is_ours(directory: Path) -> bool:
    """Whether the directory is in a tmpfs of ours already."""
    return any(directory.stat().st_dev == Path(path).stat().st_dev for path in _covered)


def _cover(directory: Path) -> None:
    if directory == Path("/"):
        _cover_root()
        return
    original = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        _mount_tmpfs(directory)
        _bind_entries(original, directory, {})
    finally:
        os.close(original)
    _covered.append(str(directory))


def _mount_tmpfs(directory: Path) -> None:
    flags = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("outcrop", directory, "tmpfs", flags, "mode=0755,size=1m")


def _cover_root() -> None:
    """Build a new root with everything in it that the old one has, and move there.

    It is built where another directory was, out of sight of the copies (unbindable), which
    therefore show that directory as it is.
    """
    staging = next(path for path in map(Path, _STAGING) if path.is_dir())
    old_root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    old_staging = os.open(staging, os.O_PATH | os.O_DIRECTORY)
    try:
        _mount_tmpfs(staging)
        linux.mount(None, staging, None, linux.MS_UNBINDABLE)
        _bind_entries(old_root, staging, {staging.name: old_staging})
        linux.mount(None, staging, None, linux.MS_PRIVATE)
        os.chdir(staging)
        linux.pivot_root_here()
        linux.umount(".", linux.MNT_DETACH)
        os.chdir("/")
    finally:
        os.close(old_staging)
        os.close(old_root)
    _covered.append("/")


def _bind_entries(original: int, target: Path, opened: dict[str, int]) -> None:
    """Show every entry of a directory, given by descriptor, in another one."""
    here = f"/proc/self/fd/{original}"
    try:
        names = [entry.name for entry in Path(here).iterdir()]
    except PermissionError:
        return  # what cannot be listed cannot be used by name only; nothing to show
    for name in names:
        with contextlib.suppress(PermissionError, FileNotFoundError):
            known = opened.get(name)
            source = f"{here}/{name}" if known is None else f"/proc/self/fd/{known}"
            _bind(source, f"{here}/{name}", target / name)


def _bind(source: str, shown: str, target: Path) -> None:
    mode = os.lstat(shown).st_mode
    if stat.S_ISLNK(mode):
        target.symlink_to(Path(shown).readlink())
        return
    if stat.S_ISDIR(mode):
        target.mkdir()
    else:
        target.touch()
    linux.mount(source, target, None, linux.MS_BIND | linux.MS_REC)


# ---- the command ------------------------------------------------------------------------------


def _start(command: Sequence[str], mask: AbstractSet[int]) -> int:
    """Start the command; returns its pid. Raises CommandNotFound, CommandNotExecutable."""
    ours, theirs = os.pipe()  # closed by a successful exec, else the reason comes through
    pid = os.fork()
    if pid == 0:
        try:
            linux.die_with_parent(signal.SIGTERM)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)  # Python ignores these; programs expect them
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execvp(command[0], list(command))  # noqa: S606  the caller's own command
        except OSError as error:
            os.write(theirs, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(theirs)
    with os.fdopen(ours, "rb") as failure:
        reason = failure.read()
    if not reason:
        return pid
    os.waitpid(pid, 0)
    why = int(reason)
    if "/" not in command[0] and shutil.which(command[0]) is None:
        why = errno.ENOENT  # execvp says EACCES for a directory in PATH that we may not read
    kind = CommandNotFound if why == errno.ENOENT else CommandNotExecutable
    raise kind(f"cannot run {command[0]}: {os.strerror(why).lower()}")


def _watch(pid: int, targets: Sequence[Path]) -> int:
    """Wait for the command, passing signals on. Returns its exit status as a shell shows it."""
    while True:
        news = signal.sigwaitinfo(_WATCHED)
        if news.si_signo == signal.SIGCHLD:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif news.si_signo == ABORT_SIGNAL:
            _abort(targets)
            os.kill(pid, signal.SIGKILL)
        elif news.si_code != _SI_KERNEL:  # the terminal's own signals reach the command directly
            os.kill(pid, news.si_signo)


def _abort(targets: Sequence[Path]) -> None:
    """End the connections: nothing that still uses the mounts may wait for them."""
    for target in targets:
        with contextlib.suppress(OSError):
            linux.umount(target, linux.MNT_FORCE | linux.MNT_DETACH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
