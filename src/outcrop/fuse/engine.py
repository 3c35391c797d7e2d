"""Serves one FUSE mount: the kernel's requests are answered in C, the view is asked by directory.

`_engine.c` and `csrc/` hold the engine itself; here are its settings and what happens to an
exception a view raises.
"""

import errno
import logging
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from outcrop.fuse import _engine
from outcrop.fuse.view import View

_logger = logging.getLogger("outcrop.fuse")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine may use of the machine.

    `threads` stay, more are made while requests wait for the view, up to `max_threads`; beyond
    that, requests wait in a queue. `max_rows` directory entries are kept in memory (about 180
    bytes each), plus what the kernel itself remembers. `max_extents` files stay open for reading;
    fewer where the process may not open twice as many.
    """

    threads: int = 2
    max_threads: int = 64
    max_rows: int = 1_000_000
    max_extents: int = 1024

    def __post_init__(self) -> None:
        if self.threads < 1 or self.max_threads < max(2, self.threads):
            raise ValueError("threads must be at least 1, max_threads at least 2 and threads")
        if self.max_rows < 1 or self.max_extents < 1:
            raise ValueError("max_rows and max_extents must be at least 1")


def _nothing() -> None:
    pass


class Engine:
    """Answers one mounted file system from a view.

    `fd` is the open FUSE device of the mount and belongs to the engine from then on.
    `object_directory_fd` stays the caller's and must outlive the engine: content-addressed files
    found there are read without asking the view. `entry_timeout_seconds` is how long the kernel
    may use names and attributes without asking again; `tree_changed` cuts it short. `on_stop` is
    called once when serving ends, before calls into the view that are under way are waited for:
    the place to make them come back.
    """

    def __init__(
        self,
        view: View,
        fd: int,
        *,
        object_directory_fd: int | None = None,
        entry_timeout_seconds: float = 3600,
        threads: int = 2,
        max_threads: int = 64,
        use_no_open: bool = True,
        limits: EngineLimits | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        limits = limits or EngineLimits(threads=threads, max_threads=max_threads)
        if not 0 <= entry_timeout_seconds <= 365 * 86400:
            raise ValueError(f"entry_timeout_seconds: {entry_timeout_seconds} is out of range")
        failures = _Failures()
        self._core = _engine.Core(
            fd,
            view.root,
            view.list_directory,
            view.open_extent,
            view.list_xattrs,
            view.get_xattr,
            view.statfs,
            failures.report,
            failures.log,
            on_stop or _nothing,
            object_directory_fd=-1 if object_directory_fd is None else object_directory_fd,
            timeout_ns=round(entry_timeout_seconds * 1e9),
            threads=limits.threads,
            max_threads=limits.max_threads,
            max_rows=limits.max_rows,
            max_extents=_affordable_extents(limits.max_extents),
            use_no_open=use_no_open,
        )

    def serve(self) -> None:
        """Answer the kernel until the file system is unmounted, aborted, or `stop` is called.

        Signal handlers run meanwhile if this is the main thread; an exception from one ends
        serving and is raised here, as is a KeyboardInterrupt or SystemExit that a view raised.
        Raises OSError if the device fails. An engine serves once.
        """
        self._core.serve()

    def stop(self) -> None:
        """Make `serve` return when the calls into the view that are under way have returned.

        Safe in a signal handler and in any thread. Nothing is unmounted: programs that use the
        mount get errors once the device is closed.
        """
        self._core.stop()

    def tree_changed(self) -> None:
        """The view shows another tree from now on: forget listings, here and in the kernel.

        Entries that are the same in the new tree (same name and type, and same content of a file
        or target of a symlink) keep their page cache, open files and working directories; files
        that are gone keep their content for those who have them open. Returns when the kernel has
        been told, for which it may wait for calls into the view: hold no lock a view needs, and
        do not call this from a view.
        """
        self._core.tree_changed()

    def statistics(self) -> dict[str, int]:
        """Counters since the start (`requests_…`, `python_calls`, …) and present sizes."""
        return self._core.statistics()

    def close(self) -> None:
        """Close the device; programs that still use the mount get ENOTCONN.

        Raises RuntimeError while `serve` is running.
        """
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _affordable_extents(wanted: int) -> int:
    """The view, its cache and its connections need descriptors as well."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return wanted
    return max(16, min(wanted, allowed // 2))


_EXPECTED = frozenset({errno.ENODATA, errno.ENOENT, errno.EOPNOTSUPP, errno.ERANGE})
"""Answers, not failures: a missing attribute, a directory that went with the old tree."""

_BURST = 20
_BURST_SECONDS = 10.0


class _Failures:
    """Turns a view's exceptions into errnos and log lines, not more than a reader can use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self._count = 0

    def report(self, operation: str, path: bytes, error: BaseException) -> int:
        """The errno for the kernel."""
        number = getattr(error, "errno", None)
        if not isinstance(number, int) or not 0 < number < 512:
            number = errno.EIO
        if number in _EXPECTED:
            _logger.debug("%s %s: %s", operation, _shown(path), error)
        elif self._may_log():
            unexpected = not isinstance(getattr(error, "errno", None), int)
            _logger.error(
                "%s %s: %s (%s)",
                operation,
                _shown(path),
                str(error) or type(error).__name__,
                os.strerror(number),
                extra={"path": _shown(path)},
                exc_info=error if unexpected and not isinstance(error, ValueError) else None,
            )
        return number

    def log(self, path: bytes, message: str) -> None:
        """Something the engine itself has found wrong."""
        if self._may_log():
            _logger.error("%s %s", _shown(path), message, extra={"path": _shown(path)})

    def _may_log(self) -> bool:
        """A server that is down fails every read of every program: say so, not each time."""
        with self._lock:
            now = time.monotonic()
            if now - self._since > _BURST_SECONDS:
                if self._count > _BURST:
                    _logger.error("%d more failures were not logged", self._count - _BURST)
                self._since = now
                self._count = 0
            self._count += 1
            return self._count <= _BURST


def _shown(path: bytes) -> str:
    return os.fsdecode(path or b"/").encode("utf-8", "backslashreplace").decode()
