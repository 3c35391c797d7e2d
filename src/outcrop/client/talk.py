"""The talk socket of a running mount: one command per connection, the reply is text (spec 22)."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from outcrop.fuse.errors import NotMounted

MAX_COMMAND_BYTES = 512
_REPLY_LIMIT_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60

Commands = Mapping[str, Callable[[], str]]


class TalkServer:
    """Answers commands on a Unix socket until stopped. One thread: commands are rare."""

    def __init__(self, path: Path, commands: Commands) -> None:
        self._path = path
        self._commands = commands
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)
        with _reachable(path) as address:
            self._socket.bind(address)
        path.chmod(0o600)
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._run, name="talk", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more and remove the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_TIMEOUT_SECONDS)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        text = connection.recv(MAX_COMMAND_BYTES).rstrip(b"\0\n").decode("utf-8", "replace")
        command = self._commands.get(text)
        reply = command() if command is not None else "unknown command"
        connection.sendall(reply.encode("utf-8", "surrogateescape") + b"\n")


def talk(path: Path, command: str) -> str:
    """Send a command to a running mount and return its reply. Raises NotMounted."""
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
            _reachable(path) as address,
        ):
            connection.settimeout(_TIMEOUT_SECONDS)
            connection.connect(address)
            connection.sendall(command.encode())
            connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
                if sum(map(len, parts)) > _REPLY_LIMIT_BYTES:
                    break
    except OSError as error:
        raise NotMounted(f"{path}: the mount does not answer: {error.strerror or error}") from error
    return b"".join(parts).decode("utf-8", "surrogateescape").rstrip("\n")


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A short address for a path: Unix sockets take 107 bytes only."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)
