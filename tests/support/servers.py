"""A real HTTP server and a real HTTP proxy on the loopback device that misbehave when told to.

    with HttpServer({"/cvmfs/a.test/.cvmfspublished": b"..."}) as server:
        server.fail(Fault.STALL, path=".cvmfspublished", times=1)
        ...  # server.url, server.requests

Both speak just enough HTTP/1.1 over plain sockets: whoever misbehaves must be free to write
anything. Every request is recorded before it is answered or not.
"""

import contextlib
import enum
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

_MAX_HEAD_BYTES = 65536
_LOST = (ConnectionError, TimeoutError, OSError)


class Fault(enum.Enum):
    """A way to misbehave."""

    KILL = "closes the connection instead of answering"
    RESET = "resets the connection instead of answering"
    STALL = "never answers"
    STALL_IN_BODY = "sends half the body, then nothing"
    SLOW_HEADERS = "sends the head byte by byte"
    SLOW_BODY = "sends the body byte by byte"
    GARBAGE = "answers what is no HTTP"
    GARBAGE_HEADERS = "sends headers without end"
    ERROR_400 = "400 Bad Request"
    ERROR_403 = "403 Forbidden"
    ERROR_404 = "404 Not Found"
    ERROR_429 = "429 Too Many Requests"
    ERROR_500 = "500 Internal Server Error"
    ERROR_502_SQUID = "502 Bad Gateway, said by squid"
    ERROR_503 = "503 Service Unavailable"
    ERROR_ENDLESS = "500 and a page without end"
    TRUNCATE = "closes the connection in the middle of the body"
    SHORT = "sends half the body as if it were all"
    EMPTY = "sends no body as if it were all"
    FLIP = "flips one bit of the body"
    WRONG_BODY = "sends a web page with status 200"
    OVERSIZED = "sends a body without end with status 200"
    REDIRECT = "redirects to `redirect_to`, or to the same path"
    REDIRECT_LOOP = "redirects for ever"
    IGNORE_RANGE = "sends the whole file when asked for a range"
    WRONG_RANGE = "sends another range than asked for"


_STATUS_LINES = {
    Fault.ERROR_400: "400 Bad Request",
    Fault.ERROR_403: "403 Forbidden",
    Fault.ERROR_404: "404 Not Found",
    Fault.ERROR_429: "429 Too Many Requests",
    Fault.ERROR_500: "500 Internal Server Error",
    Fault.ERROR_502_SQUID: "502 Bad Gateway",
    Fault.ERROR_503: "503 Service Unavailable",
}


@dataclass(frozen=True)
class Recorded:
    """A request as it came. `connection` numbers the connections."""

    method: str
    target: str
    headers: Mapping[str, str]
    connection: int

    @property
    def path(self) -> str:
        """The target's path, unescaped."""
        return unquote(urlsplit(self.target).path)


@dataclass
class _Order:
    fault: Fault
    path: str
    times: int | None
    applies: Callable[[Recorded], bool]


@dataclass(frozen=True)
class _Reply:
    status: str = "200 OK"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Gone(Exception):
    """The connection is to be closed."""


class _Faulty:
    """What server and proxy share: sockets, threads, recording, misbehaviour."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.redirect_to: str | None = None
        self._orders: list[_Order] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._connections: dict[int, socket.socket] = {}
        self._accepted = 0
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        """The paths of all requests, in order."""
        return [request.path for request in self.requests]

    def start(self) -> None:
        """Listen (again, on the same port)."""
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener, self._stopping)

    def stop(self) -> None:
        """Refuse connections from now on and cut those that are open, like a killed process."""
        self._stopping.set()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            _cut(connection)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=10)
        self._threads.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def fail(
        self,
        fault: Fault,
        *,
        path: str = "",
        times: int | None = None,
        when: Callable[[Recorded], bool] = lambda request: True,
    ) -> None:
        """Misbehave for requests whose path contains `path`, so many times (None: until told)."""
        with self._lock:
            self._orders.append(_Order(fault, path, times, when))

    def behave(self) -> None:
        """No more faults."""
        with self._lock:
            self._orders.clear()

    def _find_fault(self, request: Recorded) -> Fault | None:
        with self._lock:
            for order in self._orders:
                if order.path in request.path and order.applies(request) and order.times != 0:
                    if order.times is not None:
                        order.times -= 1
                    return order.fault
        return None

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        with self._lock:
            self._threads = [known for known in self._threads if known.is_alive()]
            thread.start()
            self._threads.append(thread)

    def _accept(self, listener: socket.socket, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._accepted += 1
                number = self._accepted
                self._connections[number] = connection
            self._spawn(self._serve, connection, number, stopping)

    def _serve(self, connection: socket.socket, number: int, stopping: threading.Event) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            buffer = b""
            while not stopping.is_set():
                head, buffer = _read_head(connection, buffer)
                request = _parse_head(head, number)
                with self._lock:
                    self.requests.append(request)
                self._misbehave_or_answer(connection, request, stopping)
        except (_Gone, *_LOST):
            pass
        finally:
            with self._lock:
                self._connections.pop(number, None)
            _cut(connection)

    def _misbehave_or_answer(
        self, connection: socket.socket, request: Recorded, stopping: threading.Event
    ) -> None:
        fault = self._find_fault(request)
        if fault is Fault.KILL:
            raise _Gone
        if fault is Fault.RESET:
            linger_never = b"\1\0\0\0\0\0\0\0"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_never)
            connection.close()
            raise _Gone
        if fault is Fault.STALL:
            stopping.wait()
            raise _Gone
        if fault is Fault.GARBAGE:
            connection.sendall(b"\x00\x01 this is no answer\r\n\r\n")
            raise _Gone
        reply = self._spoil(fault, request) if fault else self.reply_to(request)
        self._send(connection, request, reply, fault, stopping)

    def reply_to(self, request: Recorded) -> _Reply:
        """The answer of one who behaves."""
        raise NotImplementedError

    def _spoil(self, fault: Fault, request: Recorded) -> _Reply:
        if fault in _STATUS_LINES:
            extra = {"X-Squid-Error": "ERR_CONNECT_FAIL 111"} if "SQUID" in fault.name else {}
            return _Reply(_STATUS_LINES[fault], b"<html>an error</html>", extra)
        if fault in (Fault.REDIRECT, Fault.REDIRECT_LOOP):
            base = self.redirect_to if fault is Fault.REDIRECT else None
            location = f"{base or self.address}{urlsplit(request.target).path}"
            return _Reply("302 Found", b"", {"Location": location})
        if fault is Fault.WRONG_BODY:
            return _Reply(body=b"<html>Welcome to the hotel's wireless network</html>")
        if fault is Fault.IGNORE_RANGE:
            headers = {name: v for name, v in request.headers.items() if name != "range"}
            return self.reply_to(
                Recorded(request.method, request.target, headers, request.connection)
            )
        reply = self.reply_to(request)
        if fault is Fault.SHORT:
            return _Reply(reply.status, reply.body[: len(reply.body) // 2], reply.headers)
        if fault is Fault.EMPTY:
            return _Reply(reply.status, b"", reply.headers)
        if fault is Fault.FLIP and reply.body:
            middle = len(reply.body) // 2
            flipped = bytes([reply.body[middle] ^ 1])
            body = reply.body[:middle] + flipped + reply.body[middle + 1 :]
            return _Reply(reply.status, body, reply.headers)
        if fault is Fault.WRONG_RANGE:
            headers = {**reply.headers, "Content-Range": f"bytes 0-{len(reply.body) - 1}/999999"}
            return _Reply(reply.status, reply.body, headers)
        return reply

    def _send(
        self,
        connection: socket.socket,
        request: Recorded,
        reply: _Reply,
        fault: Fault | None,
        stopping: threading.Event,
    ) -> None:
        is_endless = fault in (Fault.OVERSIZED, Fault.ERROR_ENDLESS)
        status = {
            Fault.OVERSIZED: "200 OK",
            Fault.ERROR_ENDLESS: "500 Internal Server Error",
        }.get(fault, reply.status)
        headers = dict(reply.headers)
        if is_endless:
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(reply.body))
        head = f"HTTP/1.1 {status}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        body = b"" if request.method == "HEAD" else reply.body
        if fault is Fault.GARBAGE_HEADERS:
            _send_endless(
                connection, head[:-2].encode(), b"X-Filler: aaaaaaaaaaaaaaa\r\n", stopping
            )
        elif is_endless:
            _send_endless(connection, head.encode(), b"x" * 65536, stopping)
        elif fault is Fault.SLOW_HEADERS:
            _send_slowly(connection, head.encode(), stopping)
        elif fault is Fault.SLOW_BODY:
            connection.sendall(head.encode())
            _send_slowly(connection, body, stopping)
        elif fault in (Fault.TRUNCATE, Fault.STALL_IN_BODY):
            connection.sendall(head.encode() + body[: len(body) // 2])
            if fault is Fault.STALL_IN_BODY:
                stopping.wait()
            raise _Gone
        else:
            connection.sendall(head.encode() + body)


class HttpServer(_Faulty):
    """Serves a dictionary (URL path → bytes) or a directory."""

    def __init__(self, files: Mapping[str, bytes] | Path | None = None) -> None:
        self.files: Mapping[str, bytes] | Path = {} if files is None else files
        super().__init__()

    @property
    def url(self) -> str:
        """The server's URL, as the base for stores: no slash at the end."""
        return self.address

    def reply_to(self, request: Recorded) -> _Reply:
        """Find the file; one range is understood."""
        data = self._find(request.path)
        if data is None:
            return _Reply("404 Not Found", b"<html>no such file</html>")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if asked is None:
            return _Reply(body=data, headers={"Content-Type": "application/octet-stream"})
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        if first > last:
            return _Reply("416 Range Not Satisfiable", b"<html>no such bytes</html>")
        where = f"bytes {first}-{last}/{len(data)}"
        return _Reply("206 Partial Content", data[first : last + 1], {"Content-Range": where})

    def _find(self, path: str) -> bytes | None:
        if isinstance(self.files, Path):
            place = self.files / path.lstrip("/")
            if ".." in place.parts or not place.is_file():
                return None
            return place.read_bytes()
        return self.files.get(path)


class HttpProxy(_Faulty):
    """Forwards GET requests; caches what it is told to keep wrong, like a broken squid."""

    def __init__(self) -> None:
        self.poisoned: dict[str, bytes] = {}
        """Path → wrong body, answered unless asked with `no-cache`; then forgotten."""

        super().__init__()

    def reply_to(self, request: Recorded) -> _Reply:
        """Ask the host, or answer from the poisoned cache."""
        if "no-cache" in request.headers.get("cache-control", ""):
            self.poisoned.pop(request.path, None)
        elif request.path in self.poisoned:
            return _Reply(body=self.poisoned[request.path])
        return _forward(request)


def _forward(request: Recorded) -> _Reply:
    parts = urlsplit(request.target)
    squid = {"X-Squid-Error": "ERR_CONNECT_FAIL 111"}
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5) as host:
            lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
            lines += [
                f"{name}: {value}" for name, value in request.headers.items() if name in _KEPT
            ]
            host.sendall("\r\n".join([*lines, "", ""]).encode())
            head, body = _read_head(host, b"")
            status, headers = _parse_reply_head(head)
            length = int(headers.get("content-length", 0))
            while len(body) < length:
                block = host.recv(65536)
                if not block:
                    return _Reply("502 Bad Gateway", b"cut short", squid)
                body += block
    except (_Gone, *_LOST):
        return _Reply("503 Service Unavailable", b"cannot reach the host", squid)
    return _Reply(status, body, {n: v for n, v in headers.items() if n != "content-length"})


_KEPT = ("range", "user-agent", "pragma", "cache-control", "accept")


def _parse_reply_head(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    return first.partition(" ")[2], headers


def _read_head(connection: socket.socket, buffer: bytes) -> tuple[bytes, bytes]:
    """The next head, and the bytes after it."""
    while b"\r\n\r\n" not in buffer:
        block = connection.recv(65536)
        if not block or len(buffer) > _MAX_HEAD_BYTES:
            raise _Gone
        buffer += block
    head, _, rest = buffer.partition(b"\r\n\r\n")
    return head, rest


def _parse_head(head: bytes, connection: int) -> Recorded:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Recorded(method, target, headers, connection)


def _send_slowly(connection: socket.socket, data: bytes, stopping: threading.Event) -> None:
    for position in range(len(data)):
        connection.sendall(data[position : position + 1])
        if stopping.wait(0.05):
            raise _Gone


def _send_endless(
    connection: socket.socket, head: bytes, block: bytes, stopping: threading.Event
) -> None:
    connection.sendall(head)
    while not stopping.is_set():
        connection.sendall(block)
    raise _Gone


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
