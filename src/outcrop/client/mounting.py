"""Running mounts: start one, serve it, find it again, talk to it, end it.

A mount is one server process. What others need to find it is in a directory of its own below
`Locations.run`: `state.json`, the talk socket, and `log` where it runs in the background.
"""

import contextlib
import hashlib
import json
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from outcrop.client.connection import Connection
from outcrop.client.errors import MountFailed
from outcrop.client.magic_xattrs import MagicXattrs, MountState
from outcrop.client.ownership import IdMap, Ownership
from outcrop.client.remount import Remounter
from outcrop.client.settings import ClientSettings
from outcrop.client.talk import TalkServer, talk
from outcrop.client.view import RepositoryView
from outcrop.errors import OutcropError
from outcrop.fuse.engine import Engine
from outcrop.fuse.errors import NotMounted
from outcrop.fuse.mount import MountOptions, find_mount, mount, mount_state, repair, unmount
from outcrop.fuse.mount import MountState as KernelState
from outcrop.repository.tree import Revision
from outcrop.storage.locations import Locations

log = logging.getLogger(__name__)

READY_TIMEOUT_SECONDS = 120
_STATE_FILE = "state.json"
_TALK_FILE = "talk"
_LOG_FILE = "log"


@dataclass(frozen=True, slots=True)
class MountRecord:
    """What `state.json` says of a running mount."""

    mountpoint: str
    fqrn: str
    target: str
    pid: int
    started_at: int
    cache: str | None
    directory: str

    @property
    def talk_socket(self) -> Path:
        """Where the mount answers."""
        return Path(self.directory) / _TALK_FILE


class MountedRepository:
    """A repository shown through one FUSE descriptor: view, engine, remounter and talk socket."""

    def __init__(
        self,
        connection: Connection,
        revision: Revision,
        mountpoint: Path,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to serve. `environment` expands variant symlinks; default: the parameters."""
        self.connection = connection
        self.state = MountState(connection, mountpoint, started_at=time.time())
        self.view = RepositoryView(
            revision,
            ownership=read_ownership(connection.settings),
            environment=environment or connection.parameters.environment(),
            attributes=MagicXattrs(self.state),
        )
        self._engine: Engine | None = None
        self._remounter: Remounter | None = None

    def serve(self, fd: int, *, talk_path: Path | None = None, ready: Callable[[], None]) -> None:
        """Answer the kernel until the file system is unmounted or `stop` is called."""
        cache = self.connection.cache
        self._engine = Engine(
            self.view,
            fd,
            object_directory_fd=cache.directory_fd if cache is not None else None,
            entry_timeout_seconds=self.connection.settings.kernel_cache_seconds,
            on_stop=self.connection.close,  # downloads nobody waits for any more
        )
        self.state.counters = self._engine.statistics
        self._remounter = Remounter(
            self.connection, self.view, self.state, self._engine.tree_changed
        )
        server = TalkServer(talk_path, self._commands()) if talk_path is not None else None
        try:
            if server is not None:
                server.start()
            self._remounter.start()
            ready()
            self._engine.serve()
        finally:
            if server is not None:
                server.stop()
            self._remounter.stop()
            self._engine.close()

    def stop(self) -> None:
        """End `serve` (from a signal handler or another thread)."""
        if self._engine is not None:
            self._engine.stop()

    def status(self) -> dict[str, Any]:
        """What `outcrop status` shows; all values are JSON."""
        revision = self.view.revision
        cache = self.connection.cache
        return {
            "fqrn": revision.fqrn,
            "mountpoint": str(self.state.mountpoint),
            "target": self.connection.target.text,
            "pid": os.getpid(),
            "revision": revision.number,
            "root_hash": str(revision.root_hash),
            "tag": revision.tag,
            "fixed": self.connection.is_fixed,
            "offline": self.state.is_offline,
            "expires_in_seconds": max(0, int(self.state.expires_at - time.time())),
            "uptime_seconds": int(time.time() - self.state.started_at),
            "cache_used_bytes": cache.used_bytes if cache is not None else 0,
            "cache_quota_bytes": cache.quota_bytes if cache is not None else None,
            "open_catalogs": len(revision.catalogs.loaded),
            "requests": dict(self.state.counters()),
        }

    def _commands(self) -> dict[str, Callable[[], str]]:
        return {
            "remount": self._remount,
            "remount sync": self._remount,
            "revision": lambda: str(self.view.revision.number),
            "mountpoint": lambda: str(self.state.mountpoint),
            "pid": lambda: str(os.getpid()),
            "status": lambda: json.dumps(self.status()),
        }

    def _remount(self) -> str:
        return self._remounter.remount().value if self._remounter is not None else "Failed"


def read_ownership(settings: ClientSettings) -> Ownership:
    """How owners are shown. Raises SettingsError where a map cannot be read."""
    if settings.claim_ownership:
        return Ownership(claim=(os.geteuid(), os.getegid()), world_readable=settings.world_readable)
    return Ownership(
        uid_map=IdMap.read(settings.uid_map),
        gid_map=IdMap.read(settings.gid_map),
        world_readable=settings.world_readable,
    )


def run_directory(locations: Locations, mountpoint: Path) -> Path:
    """The directory of a mount's state file, socket and log."""
    name = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    return locations.run / name


def serve_mount(
    connection: Connection,
    mountpoint: Path,
    locations: Locations,
    *,
    allow_other: bool | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Mount a repository and serve it in this process until it is unmounted or told to end.

    Opens the revision first, so what is wrong with it is said before anything is mounted. A dead
    mount at that place is repaired. SIGTERM, SIGINT and SIGHUP unmount; the last two not where they
    are ignored already (nohup).
    """
    mountpoint = mountpoint.absolute()
    if mount_state(mountpoint) is KernelState.DEAD:
        repair(mountpoint)
    revision = connection.open(now=int(time.time()))
    mounted = MountedRepository(connection, revision, mountpoint)
    directory = run_directory(locations, mountpoint)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = mount(mountpoint, fsname=revision.fqrn, options=_options(connection, allow_other))
    device = _device(mountpoint)
    record = _record(connection, mountpoint, directory)
    try:
        with _signals(mounted.stop):
            (directory / _STATE_FILE).write_text(json.dumps(asdict(record)))
            mounted.serve(fd, talk_path=record.talk_socket, ready=ready)
    finally:
        _clean_up(mountpoint, directory, device)
        connection.close()


def _device(mountpoint: Path) -> int | None:
    """What tells this mount from another at the same place."""
    found = find_mount(mountpoint)
    return None if found is None else found.device


def _clean_up(mountpoint: Path, directory: Path, device: int | None) -> None:
    """Remove what is ours: a mount that was detached may have a successor at its place by now."""
    if _pid_of(directory / _STATE_FILE) == os.getpid():
        (directory / _STATE_FILE).unlink(missing_ok=True)
    if _device(mountpoint) == device:
        with contextlib.suppress(OutcropError):
            unmount(mountpoint, lazy=True)


def _options(connection: Connection, allow_other: bool | None) -> MountOptions:
    is_root = os.geteuid() == 0
    return MountOptions(
        allow_other=is_root if allow_other is None else allow_other,
        default_permissions=connection.settings.check_permissions,
        suid=connection.settings.suid and is_root,
    )


def _record(connection: Connection, mountpoint: Path, directory: Path) -> MountRecord:
    cache = connection.cache
    return MountRecord(
        mountpoint=str(mountpoint),
        fqrn=connection.target.fqrn,
        target=connection.target.text,
        pid=os.getpid(),
        started_at=int(time.time()),
        cache=str(cache.directory) if cache is not None else None,
        directory=str(directory),
    )


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [signal.SIGTERM]
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            handled.append(number)
    before = [signal.signal(number, lambda *_: stop()) for number in handled]
    try:
        yield
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)


def start_mount(
    make_connection: Callable[[], Connection],
    mountpoint: Path,
    locations: Locations,
    *,
    allow_other: bool | None = None,
) -> MountRecord:
    """Mount in a background process; returns when the mount is ready.

    `make_connection` is called in that process: connections and threads do not survive a fork.
    Raises what went wrong there.
    """
    mountpoint = mountpoint.absolute()
    directory = run_directory(locations, mountpoint)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_background(make_connection, mountpoint, locations, allow_other, directory, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if answer == b"ready":
        return read_record(locations, mountpoint)
    if answer:
        # Written by our own child a moment ago, through a pipe nobody else has.
        raise pickle.loads(answer)  # noqa: S301
    raise MountFailed(
        f"{mountpoint}: the server process ended before the mount was ready",
        hint=f"its log is {directory / _LOG_FILE}",
    )


def _run_background(
    make_connection: Callable[[], Connection],
    mountpoint: Path,
    locations: Locations,
    allow_other: bool | None,
    directory: Path,
    pipe: int,
) -> NoReturn:
    """The life of the background process, from the first fork to its end."""
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        _redirect_output(directory / _LOG_FILE, keep=pipe)
        _configure_log()
        answered = False

        def ready() -> None:
            nonlocal answered
            answered = True
            os.write(pipe, b"ready")
            os.close(pipe)

        try:
            connection = make_connection()  # paths in it may be relative to here
            os.chdir("/")
            serve_mount(connection, mountpoint, locations, allow_other=allow_other, ready=ready)
            status = 0
        except OutcropError as error:
            log.error("%s: %s", mountpoint, error)
            if not answered:
                os.write(pipe, pickle.dumps(error))
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()  # into the log: nobody above could
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)


def _redirect_output(path: Path, *, keep: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for fd in (null, output):
        if fd > 2 and fd != keep:
            os.close(fd)


def _configure_log() -> None:
    logging.basicConfig(
        level=logging.INFO,
        force=True,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )


# --- finding and ending mounts ---------------------------------------------------------------


def iter_records(locations: Locations) -> Iterator[MountRecord]:
    """Every mount that left a state file, dead ones too."""
    for path in sorted(locations.run.glob(f"*/{_STATE_FILE}")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield MountRecord(**json.loads(path.read_text()))


def read_record(locations: Locations, mountpoint: Path) -> MountRecord:
    """The record of the mount at a place. Raises NotMounted."""
    mountpoint = mountpoint.absolute()
    path = run_directory(locations, mountpoint) / _STATE_FILE
    try:
        return MountRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise NotMounted(
            f"{mountpoint}: no repository is mounted there",
            hint="outcrop status lists the mounts",
        ) from error


def command(record: MountRecord, text: str) -> str:
    """Send a command to a mount's talk socket. Raises NotMounted."""
    return talk(record.talk_socket, text)


def end_mount(locations: Locations, mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount and wait until the server process is gone, or clean up after a dead one.

    Raises NotMounted, MountError (busy).
    """
    mountpoint = mountpoint.absolute()
    state = mount_state(mountpoint)
    if state is KernelState.NOT_MOUNTED:
        record = run_directory(locations, mountpoint) / _STATE_FILE
        record.unlink(missing_ok=True)
        raise NotMounted(f"{mountpoint}: no repository is mounted there")
    if state is KernelState.DEAD:
        repair(mountpoint)
        (run_directory(locations, mountpoint) / _STATE_FILE).unlink(missing_ok=True)
        return
    path = run_directory(locations, mountpoint) / _STATE_FILE
    pid = _pid_of(path)
    unmount(mountpoint, lazy=lazy)
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not lazy and path.exists() and _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    if not lazy and not _is_running(pid):
        path.unlink(missing_ok=True)


def _pid_of(state_file: Path) -> int:
    try:
        return int(json.loads(state_file.read_text())["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0


def _is_running(pid: int) -> bool:
    try:
        if pid:
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return bool(pid)
