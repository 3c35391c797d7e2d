"""Real mounts for the engine's tests: gone afterwards, whatever happened."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outcrop.fuse import mount as mounts
from outcrop.fuse.engine import Engine
from outcrop.fuse.errors import MountError
from outcrop.fuse.view import View

WATCHDOG_SECONDS = 60


@pytest.fixture
def serve_mount(tmp_path: Path) -> Iterator[Callable[..., tuple[Path, Engine]]]:
    """Mount a view in a directory of the test's, served by a thread of this process.

    A watchdog cuts a mount off that outlives any test's patience, so that nothing hangs on it.
    """
    with contextlib.ExitStack() as ends:

        def start(view: View, name: str = "mnt", **settings: Any) -> tuple[Path, Engine]:
            mountpoint = tmp_path / name
            mountpoint.mkdir()
            engine = Engine(view, mounts.mount(mountpoint, fsname=name), **settings)
            thread = threading.Thread(target=engine.serve)
            watchdog = threading.Timer(WATCHDOG_SECONDS, mounts.abort, [mountpoint])

            def end() -> None:
                with contextlib.suppress(MountError):
                    mounts.unmount(mountpoint, lazy=True)
                thread.join(10)
                if thread.is_alive():
                    engine.stop()
                    thread.join(10)
                watchdog.cancel()
                assert not thread.is_alive(), "serve() did not end"
                engine.close()

            thread.start()
            watchdog.start()
            ends.callback(end)
            return mountpoint, engine

        yield start
