"""Who may change a repository now: lock files in the spool area (spec 32).

`is_publishing.lock` and `is_collecting.lock` are flock(2)-ed, so the kernel releases them for the
dead. `in_transaction.lock` is a file that exists for as long as a transaction is open, through
crashes and reboots; whoever is not in that transaction leaves the repository alone.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outcrop.errors import OutcropError
from outcrop.publisher.errors import (
    CollectionInProgress,
    PublishInProgress,
    TransactionBusy,
    TransactionOpen,
)

TRANSACTION_LOCK = "in_transaction.lock"
_PUBLISHING_LOCK = "is_publishing.lock"
_SHELL_LOCK = "is_entered.lock"
_COLLECTING_LOCK = "is_collecting.lock"
_POLL_SECONDS = 0.05
_MAX_COMMAND_BYTES = 80


@contextmanager
def publishing_lock(
    spool: Path, fqrn: str, *, wait_seconds: float = 0.0, within_transaction: bool = False
) -> Iterator[int]:
    """Hold the repository's publishing lock; gives the kernel's time (ns) of taking it.

    That is the clock that also stamps files. An open transaction is refused, but by those
    `within_transaction`. Raises PublishInProgress if another process has the lock, TransactionOpen
    if somebody's transaction is open, both for longer than `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                fd = stack.enter_context(_locked(spool / _PUBLISHING_LOCK, fqrn))
                if within_transaction or not (spool / TRANSACTION_LOCK).exists():
                    break
                error: OutcropError = _transaction_open(fqrn)
            except PublishInProgress as busy:
                error = busy
            stack.close()
            if time.monotonic() >= deadline:
                raise error
            time.sleep(_POLL_SECONDS)
        yield os.fstat(fd).st_mtime_ns


@contextmanager
def collecting_lock(spool: Path, fqrn: str) -> Iterator[None]:
    """Keep garbage collection and checks apart; whoever collects holds `publishing_lock`, too.

    Raises CollectionInProgress.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(spool / _COLLECTING_LOCK, fqrn))
        except PublishInProgress as busy:
            raise CollectionInProgress(
                f"{fqrn}: garbage is collected, or the repository checked, at this time ({busy})",
                hint="wait until it has finished, and try again",
            ) from None
        yield


@contextmanager
def shell_lock(spool: Path, fqrn: str) -> Iterator[None]:
    """Be the only one in the shell of a transaction. Raises TransactionBusy."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(spool / _SHELL_LOCK, fqrn))
        except PublishInProgress as busy:
            raise TransactionBusy(
                f"{fqrn}: the transaction is open in a shell ({busy})",
                hint="leave that shell; it publishes or aborts",
            ) from None
        yield


@contextmanager
def _locked(file: Path, fqrn: str) -> Iterator[int]:
    """Have a lock file to oneself, our process id in it. Raises PublishInProgress."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishInProgress(
                f"{fqrn}: {_owner(fd)} is changing the repository",
                hint="wait until it has finished, and try again",
            ) from None
        _held.add(fd)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        try:
            yield fd
        finally:
            os.ftruncate(fd, 0)
            fcntl.flock(fd, fcntl.LOCK_UN)  # also of a copy that a fork has not closed yet
    finally:
        _held.discard(fd)
        os.close(fd)


_held: set[int] = set()


def _let_go() -> None:
    """A process forked off (a mount server, for example) is not to hold our locks beyond our end.

    Nothing of ours is unwound there: such a process ends without.
    """
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _transaction_open(fqrn: str) -> TransactionOpen:
    return TransactionOpen(
        f"{fqrn}: a transaction is open",
        hint=f"publish it (outcrop publish {fqrn}) or abort it (outcrop abort {fqrn}) first; "
        "one begun with cvmfs_server with that tool",
    )


def _owner(fd: int) -> str:
    """The process whose id is in a lock file, and what it runs as far as that can be known."""
    text = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
    if not text.isdecimal():
        return "another process"
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{text}/cmdline").read_bytes()[:_MAX_COMMAND_BYTES].split(b"\0")
        shown = b" ".join(words).decode("utf-8", "replace").strip()
        if shown:
            return f"process {text} ({shown})"
    return f"process {text}"
