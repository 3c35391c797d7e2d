"""What system tests share: the external data of the golden repository behind a web server."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.support import golden


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files, always whole: it knows no ranges."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Who wanted a range only hangs up when it is there."""
        with contextlib.suppress(ConnectionError):
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def external_url() -> Iterator[str]:
    """The server of external data; one that ignores ranges and sends the whole file (200)."""
    directory = str(golden.directory("external") / "external")
    handler = functools.partial(_Quiet, directory=directory)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
