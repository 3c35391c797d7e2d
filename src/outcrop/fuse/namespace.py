"""Runs a command that alone sees FUSE mounts: no privilege, no trace on the host.

Three processes: the caller stays outside and serves the mounts; a *keeper*
(`outcrop.fuse.keeper`, a fresh interpreter, since namespaces cannot be entered by a process with
threads) makes the namespace and the mounts in it, and hands the open FUSE devices out; the command
is the keeper's child. When the command ends the keeper aborts the mounts, so that nothing that is
still using them can hang, and reports how it ended.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from outcrop.fuse import errors
from outcrop.fuse.errors import MountError
from outcrop.fuse.mount import receive_fd
from outcrop.fuse.overlay import WritableLayer

ABORT_SIGNAL = signal.SIGRTMIN + 3
"""Tells the keeper to cut the mounts off and to kill the command: nobody serves them."""

_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_JOIN_SECONDS = 10
_PACKET_BYTES = 1 << 16

_ERRORS: dict[str, type[MountError]] = {
    kind.__name__: kind
    for kind in (
        errors.FuseUnavailable,
        errors.MountpointBusy,
        errors.MountpointUnusable,
        errors.NamespaceUnavailable,
        errors.CommandNotFound,
        errors.CommandNotExecutable,
    )
}


def run_in_namespace(
    mounts: Sequence[tuple[str, str]],
    command: Sequence[str],
    *,
    serve: Callable[[int, int], None],
    layers: Mapping[str, WritableLayer] | None = None,
) -> int:
    """Run `command` with FUSE file systems mounted that nobody else sees; return its exit status.

    `mounts` are pairs of path (`/cvmfs/…`, need not exist on the host) and file system name.
    `serve(index, fd)` is called in a thread of its own for each; it must serve the device until
    that is unmounted, and owns the fd. The command keeps the caller's uid, terminal, standard
    streams, environment and working directory. Signals sent to the caller's main thread meanwhile
    are passed on. A command that a signal ended gives 128 + its number. The mounts named in
    `layers` can be written to; the changes are in the layer.

    Raises NamespaceUnavailable, FuseUnavailable, MountpointUnusable, CommandNotFound,
    CommandNotExecutable, MountpointBusy (the command is over, but something it started still has
    files open for writing in a layer), and what `serve` raised.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            keeper = _start_keeper(theirs, mounts, layers or {}, command)
        with _Servers(serve, keeper) as servers, _signals_passed_on(keeper):
            for index in range(len(mounts)):
                servers.start(index, _receive_device(ours, keeper))
            ours.send(b"go")
            status = _receive(ours, keeper)["status"]
            keeper.wait()
    servers.raise_failure()
    return int(str(status))


def _start_keeper(
    connection: socket.socket,
    mounts: Sequence[tuple[str, str]],
    layers: Mapping[str, WritableLayer],
    command: Sequence[str],
) -> "subprocess.Popen[bytes]":
    """The keeper is told what to do by a file: a command may be longer than a packet."""
    order = os.memfd_create("order")
    told = [
        {"mountpoint": mountpoint, "upper": str(layer.upper), "work": str(layer.work)}
        for mountpoint, layer in layers.items()
    ]
    try:
        with os.fdopen(os.dup(order), "w", encoding="ascii") as file:
            json.dump({"mounts": list(mounts), "layers": told, "command": list(command)}, file)
        arguments = [str(connection.fileno()), str(order)]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "outcrop.fuse.keeper", *arguments],
            pass_fds=[connection.fileno(), order, *_inherited()],
        )
    finally:
        os.close(order)


def _inherited() -> list[int]:
    """Descriptors a shell gave us for the command (`3<file`): Python's own are not inheritable."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(entry.name) > 2 and os.get_inheritable(int(entry.name)):
                found.append(int(entry.name))
    return found


def _receive_device(connection: socket.socket, keeper: "subprocess.Popen[bytes]") -> int:
    """The next FUSE device; an error message instead of it is raised."""
    waiting = connection.recv(_PACKET_BYTES, socket.MSG_PEEK)
    if waiting == b"fd":
        fd = receive_fd(connection)
        if fd is not None:
            return fd
    _receive(connection, keeper)
    raise MountError("the namespace keeper sent no device")


def _receive(connection: socket.socket, keeper: "subprocess.Popen[bytes]") -> dict[str, object]:
    """The next message. Raises the error in it, or MountError if the keeper is gone."""
    try:
        data = connection.recv(_PACKET_BYTES)
    except ConnectionResetError:
        data = b""
    if not data:
        status = keeper.wait()
        raise MountError(f"the namespace keeper ended early (status {status})")
    message: dict[str, object] = json.loads(data)
    if "error" in message:
        keeper.wait()
        hint = message.get("hint")
        kind = _ERRORS.get(str(message["error"]), MountError)
        raise kind(str(message["message"]), hint=None if hint is None else str(hint))
    return message


class _Servers:
    """The threads that serve the mounts."""

    def __init__(
        self, serve: Callable[[int, int], None], keeper: "subprocess.Popen[bytes]"
    ) -> None:
        self._serve = serve
        self._keeper = keeper
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def start(self, index: int, fd: int) -> None:
        """Serve one more device."""
        thread = threading.Thread(
            target=self._run, args=(index, fd), name=f"serve-{index}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _run(self, index: int, fd: int) -> None:
        try:
            self._serve(index, fd)
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            self._failures.append(error)
            # Nobody answers the command any more: it must not wait for that.
            self._abort()

    def _abort(self) -> None:
        if self._keeper.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._keeper.send_signal(ABORT_SIGNAL)

    def __enter__(self) -> "_Servers":
        return self

    def __exit__(self, *_: object) -> None:
        self._abort()  # an orderly end has none left to abort
        self._keeper.wait()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def raise_failure(self) -> None:
        """Raise what serving failed with, if it did."""
        if self._failures:
            raise self._failures[0]


@contextlib.contextmanager
def _signals_passed_on(keeper: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Pass signals on to the command, but for those the terminal sent to all of us anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground():
            return
        if keeper.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper.pid, number)

    before = {number: signal.getsignal(number) for number in _FORWARDED}
    for number in _FORWARDED:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _in_foreground() -> bool:
    """Whether Ctrl-C on our terminal reaches the command without our help."""
    try:
        terminal = os.open(Path("/dev/tty"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
