"""One publisher at a time: a lock file in the spool area that the kernel releases for the dead."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outcrop.publisher.errors import PublishInProgress, TransactionOpen


@contextmanager
def publishing_lock(spool: Path, fqrn: str) -> Iterator[int]:
    """Hold the repository's publishing lock; gives the kernel's time (ns) of taking it.

    That is the clock that also stamps files. Raises PublishInProgress at once if another process
    has the lock, TransactionOpen if `cvmfs_server transaction` was begun.
    """
    fd = os.open(spool / "is_publishing.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishInProgress(
                f"{fqrn}: {_owner(fd)} is publishing",
                hint="wait until it has finished, and publish again",
            ) from None
        if (spool / "in_transaction.lock").exists():
            raise TransactionOpen(
                f"{fqrn}: a transaction is open",
                hint="publish or abort it with the tool it was begun with",
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield os.fstat(fd).st_mtime_ns
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _owner(fd: int) -> str:
    text = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
    return f"process {text}" if text.isdecimal() else "another process"
