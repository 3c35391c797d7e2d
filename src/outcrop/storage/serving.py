"""A static HTTP server for stored repositories: what `outcrop serve` runs.

It answers `GET` and `HEAD` of `/cvmfs/FQRN/.cvmfs*` and `/cvmfs/FQRN/data/XX/*`, and nothing
else. For a laptop, a test, a site behind squids; not for the open internet.

The standard library's `http.server` parses every request with the e-mail package and cannot bound
its threads or the time a client may take over a request; hence this one. A connection has a
thread; where all are taken, the connection idle longest makes room.
"""

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from outcrop.storage.errors import StorageUnavailable
from outcrop.storage.http_answer import Content, Refusal, ServedTree
from outcrop.storage.http_request import Refused, Request, find_head

logger = logging.getLogger(__name__)

_SMALL_BYTES = 64 * 1024
"""Up to here head and body leave in one `send`; larger files go through `sendfile`."""
_DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a client may cost. Durations in seconds."""

    connections: int = 128
    head_seconds: float = 10
    idle_seconds: float = 30
    stall_seconds: float = 30
    """How long a client may take none of the bytes it asked for."""


@dataclass(frozen=True, slots=True)
class Served:
    """One answered request, as the counting hook of tests and the access log see it."""

    method: str
    path: str
    status: int
    sent_bytes: int
    """Of the body."""


class Server:
    """Serves the repositories below one directory until `stop`. A context manager.

    `fqrns` names the only ones served; None serves whatever is there at the time of the request.
    `port` 0 takes a free one; `.port` says which. `on_request` is called from many threads.
    Raises StorageUnavailable when the address cannot be bound.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fqrns: Collection[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: ServerLimits = ServerLimits(),
        on_request: Callable[[Served], None] | None = None,
    ) -> None:
        self._tree = ServedTree(directory, None if fqrns is None else frozenset(fqrns))
        self._limits = limits
        self._on_request = on_request
        self._listener = _listen(host, port)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.requests = 0
        self.sent_bytes = 0
        self._counting = threading.Lock()
        self._open = _Connections(limits.connections)
        self._is_stopping = False
        self._acceptor = threading.Thread(target=self._accept, name="outcrop-serve", daemon=True)

    @property
    def url(self) -> str:
        """Base URL; a repository is at `{url}/FQRN`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/cvmfs"

    def start(self) -> None:
        """Begin to answer; returns at once."""
        self._acceptor.start()

    def stop(self, grace_seconds: float = 5) -> None:
        """Accept nothing new, let running answers finish within the grace time, return."""
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._acceptor.is_alive():
            self._acceptor.join()
        self._open.close_all(grace_seconds)

    def wait(self) -> None:
        """Block until `stop`."""
        self._acceptor.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        while self._open.wait_for_room() and not self._is_stopping:
            try:
                peer, _ = self._listener.accept()
            except OSError as error:
                if self._is_stopping:
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    logger.warning("cannot accept a connection: %s", error)
                    time.sleep(0.1)
                continue
            self._begin(_Connection(peer))

    def _begin(self, connection: "_Connection") -> None:
        self._open.add(connection)
        thread = threading.Thread(
            target=self._converse, args=(connection,), name="outcrop-serve", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no thread left on this machine
            logger.warning("cannot serve a connection: %s", error)
            connection.peer.close()
            self._open.discard(connection)

    def _converse(self, connection: "_Connection") -> None:
        """Answer one request after the other until either side has had enough."""
        try:
            with contextlib.suppress(OSError), contextlib.closing(connection.peer):
                connection.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self._is_stopping and self._answer_next(connection):
                    pass
        finally:
            self._open.discard(connection)

    def _answer_next(self, connection: "_Connection") -> bool:
        try:
            head = connection.read_head(self._limits)
            if not head:
                return False
            request = Request.parse(head)
        except Refused as refused:
            self._send(connection, Request("-", "-", keeps_alive=False), Refusal(refused.status))
            connection.drain()
            return False
        with self._tree.open(request) as answer:
            self._send(connection, request, answer)
        if not request.keeps_alive:
            connection.drain()
        return request.keeps_alive

    def _send(
        self, connection: "_Connection", request: Request, answer: "Content | Refusal"
    ) -> None:
        peer = connection.peer
        peer.settimeout(self._limits.stall_seconds)
        head = answer.head(keeps_alive=request.keeps_alive and not self._is_stopping)
        body_bytes = 0 if request.method == "HEAD" else answer.length
        self._count(Served(request.method, request.path, answer.status, body_bytes))
        if isinstance(answer, Refusal) or body_bytes == 0:
            peer.sendall(head)
        else:
            _send_content(peer, head, answer)

    def _count(self, served: Served) -> None:
        # Before the answer leaves: who has the answer can rely on the count.
        with self._counting:
            self.requests += 1
            self.sent_bytes += served.sent_bytes
        logger.info("%s %s %d %d", served.method, served.path, served.status, served.sent_bytes)
        if self._on_request is not None:
            self._on_request(served)


class _Connection:
    """A client's socket and what of its next request has arrived."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.idle_since: float | None = time.monotonic()
        self._received = bytearray()

    def read_head(self, limits: ServerLimits) -> bytes:
        """The next request head; empty when the client is gone or was idle. Raises Refused."""
        self.idle_since = None if self._received else time.monotonic()
        patience = limits.head_seconds if self._received else limits.idle_seconds
        deadline = time.monotonic() + patience
        while not (length := find_head(self._received)):
            self.peer.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                block = self.peer.recv(8192)
            except TimeoutError:
                if not self._received:
                    return b""
                raise Refused(HTTPStatus.REQUEST_TIMEOUT) from None
            if not block:
                return b""
            if self.idle_since is not None:
                self.idle_since = None
                deadline = time.monotonic() + limits.head_seconds
            self._received += block
        head = bytes(self._received[:length])
        del self._received[:length]
        return head

    def drain(self) -> None:
        """Before closing: bytes left unread would make the kernel cut off the answer."""
        self.peer.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            self.peer.settimeout(left)
            if not self.peer.recv(65536):
                return

    def hang_up(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self.peer.shutdown(how)


@dataclass(slots=True)
class _Connections:
    """The open connections, never more than the limit."""

    limit: int
    _members: set[_Connection] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _is_closed: bool = False

    def add(self, connection: _Connection) -> None:
        with self._changed:
            self._members.add(connection)

    def discard(self, connection: _Connection) -> None:
        with self._changed:
            self._members.discard(connection)
            self._changed.notify_all()

    def wait_for_room(self) -> bool:
        """Return when one more fits, hanging up on who is idle longest; False when closed."""
        with self._changed:
            while len(self._members) >= self.limit and not self._is_closed:
                idle = [member for member in self._members if member.idle_since is not None]
                if idle:
                    min(idle, key=lambda member: member.idle_since or 0).hang_up(socket.SHUT_RD)
                self._changed.wait(0.1)
            return not self._is_closed

    def close_all(self, grace_seconds: float) -> None:
        """End idle connections now, the others when answered, all after the grace time."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for how, seconds in ((socket.SHUT_RD, grace_seconds), (socket.SHUT_RDWR, 1.0)):
                for member in self._members:
                    member.hang_up(how)
                self._changed.wait_for(lambda: not self._members, seconds)


def _send_content(peer: socket.socket, head: bytes, content: Content) -> None:
    """Raises ConnectionError when the file turned out shorter than was promised."""
    if content.length <= _SMALL_BYTES:
        body = os.pread(content.fd, content.length, content.offset)
        peer.sendall(head + body)
        sent_bytes = len(body)
    else:
        peer.sendall(head, socket.MSG_MORE)
        with os.fdopen(content.fd, "rb", buffering=0, closefd=False) as file:
            sent_bytes = peer.sendfile(file, content.offset, content.length)
    if sent_bytes != content.length:
        raise ConnectionError(f"sent {sent_bytes} bytes of {content.length}")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        raise StorageUnavailable(
            f"cannot listen on {host} port {port}: {error}",
            hint="Is something else using it? Choose another with --port, or 0 for any free one.",
        ) from error
