"""The published tree and its web server: `outcrop mkfs`, `publish`, `serve`."""

import contextlib
import http.client
import os
import shlex
import shutil
import socket
import sys
import time
from pathlib import Path

from benchmarks.content import Tree
from benchmarks.sandbox import Sandbox, UnavailableError

FQRN = "bench.outcrop.test"
_PUBLISH_SECONDS = 900


def outcrop_program() -> str | None:
    """The command of the same environment as this Python, else the first one on the path."""
    beside = Path(sys.executable).parent / "outcrop"
    return str(beside) if beside.exists() else shutil.which("outcrop")


class Origin:
    """A stratum 0 in the sandbox. `start` publishes and serves; a failure is kept for `require`."""

    fqrn = FQRN

    def __init__(self, sandbox: Sandbox, program: str | None, name: str = "world") -> None:
        self._sandbox = sandbox
        self._program = program or "outcrop"
        self.root = sandbox.directory / name
        self.environment = {"OUTCROP_ROOT": str(self.root)}
        self.key = self.root / f"etc/cvmfs/keys/{FQRN}.pub"
        self.failure: str | None = "not started"
        self._port = 0

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://127.0.0.1:{self._port}/cvmfs/{FQRN}"

    def start(self, tree: Tree) -> None:
        """Publish the tree and serve it."""
        try:
            self.create()
            self._run("publish", FQRN, "--from", str(tree.root))
            self._serve()
        except (RuntimeError, OSError) as error:
            self.failure = str(error)
        else:
            self.failure = None

    def create(self) -> None:
        """An empty repository."""
        self.root.mkdir()
        self._run("mkfs", FQRN)

    def publish_command(self, tree: Tree) -> list[str]:
        """The command whose cost is measured elsewhere."""
        return [self._program, "publish", FQRN, "--from", str(tree.root)]

    def ingest_command(self, archive: Path) -> list[str]:
        """The same content, straight from an archive of it."""
        return [self._program, "ingest", FQRN, "-t", str(archive), "-b", "/", "-k"]

    def unpack_command(self, archive: Path, place: Path) -> list[str]:
        """The archive unpacked, and the directory published."""
        place.mkdir()
        tar = shlex.join(["tar", "-x", "-f", str(archive), "-C", str(place)])
        publish = shlex.join([self._program, "publish", FQRN, "--from", str(place)])
        return ["sh", "-c", f"{tar} && {publish}"]

    def require(self) -> None:
        """Raise UnavailableError unless it is served."""
        if self.failure is not None:
            raise UnavailableError(f"nothing is published: {self.failure}")

    def mount_command(self, mountpoint: Path, cache: Path) -> list[str]:
        """`outcrop mount` in the foreground."""
        options = ["--key", str(self.key), "--cache", str(cache)]
        return [self._program, "mount", "-f", self.url, str(mountpoint), *options]

    def client_config(self, cache: Path) -> str:
        """Parameters for a client that reads such files."""
        values = {
            "CVMFS_SERVER_URL": self.url,
            "CVMFS_PUBLIC_KEY": self.key,
            "CVMFS_HTTP_PROXY": "DIRECT",
            "CVMFS_CACHE_BASE": cache,
            "CVMFS_QUOTA_LIMIT": -1,
            "CVMFS_KCACHE_TIMEOUT": 3600,
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())

    def _run(self, *words: str) -> str:
        return self._sandbox.run(
            [self._program, *words],
            timeout_seconds=_PUBLISH_SECONDS,
            environment=self.environment,
        )

    def _serve(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        log = self._sandbox.directory / "serve.log"
        command = [self._program, "serve", FQRN, "--bind", "127.0.0.1", "--port", str(self._port)]
        server = self._sandbox.spawn(command, log=log, environment=self.environment)
        deadline = time.monotonic() + 30
        while not self._answers():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"outcrop serve: {log.read_text(errors='replace')[-400:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", f"/cvmfs/{FQRN}/.cvmfspublished")
            return connection.getresponse().status == http.client.OK
        return False


def stored_bytes(origin: Origin) -> tuple[int, int]:
    """(file data, catalogs and other metadata) in the repository's objects."""
    data = metadata = 0
    for directory, _, names in os.walk(origin.root / "srv/cvmfs" / FQRN / "data"):
        for name in names:
            size = os.stat(os.path.join(directory, name)).st_size
            if name[-1] in "CHXM":
                metadata += size
            else:
                data += size
    return data, metadata
