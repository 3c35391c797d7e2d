"""Everything a run starts, mounts and writes, and its end, however the run ends.

All of it lives below one temporary directory, and every process carries the directory's name in
its environment. A guardian process sleeps on a pipe; when the run closes it, or dies, the guardian
ends the marked processes, unmounts what is below the directory, and removes it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.mounts import abort, list_mounts, unmount

_MARKER = "OUTCROP_BENCH_DIRECTORY"
_CPUCLOCK_SCHED = 2
_GRACE_SECONDS = 3.0
_PREFIX = "outcrop-bench-"


class UnavailableError(Exception):
    """Something cannot be measured on this machine; the message says why."""


class Sandbox:
    """One run's temporary directory, its processes and their placement."""

    def __init__(self, parent: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._environment = _environment() | {_MARKER: str(self.directory)}
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sandbox", str(self.directory)],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
            start_new_session=True,
        )
        every = sorted(os.sched_getaffinity(0))
        self.measured_cpu = every[-1]
        self._other_cpus = set(every[:-1]) or {every[-1]}
        self._is_root = os.geteuid() == 0

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._guardian.communicate()  # the end of its input is its signal

    def spawn(
        self,
        command: Sequence[str],
        *,
        measured: bool = False,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process; a measured one on the measured CPU, and before all others if root."""
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
            if measured:
                stack.enter_context(self._first())
                stack.enter_context(self._pinned())
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT if log else None,
                env=self._environment | dict(environment or {}),
            )

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_seconds: float,
        measured: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run to the end, on any CPU; its stdout. Raises RuntimeError with what a failure said."""
        with self._first() if measured else contextlib.nullcontext():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=self._environment | dict(environment or {}),
            )
        try:
            output, told = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            process.kill()  # and no wait: what hangs in a mount ends with the mount
            words = " ".join(command)
            raise RuntimeError(f"`{words}` did not end in {timeout_seconds:.0f} s") from error
        except BaseException:
            process.kill()
            raise
        if process.returncode != 0:
            told = (told.strip() or output.strip())[-600:]
            raise RuntimeError(f"`{' '.join(command)}` ended with {process.returncode}: {told}")
        return output

    def processes(self) -> set[int]:
        """Every process of this run that is alive, but the run itself."""
        return set(_marked_processes(self.directory))

    def end(self, processes: set[int], *, within_seconds: float = 5.0) -> None:
        """Wait for processes to end by themselves, then tell them, then kill them."""
        _end(self.directory, processes, within_seconds)

    @contextlib.contextmanager
    def _pinned(self) -> Iterator[None]:
        """This thread on the measured CPU: what it starts inherits that."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.measured_cpu})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    @contextlib.contextmanager
    def _first(self) -> Iterator[None]:
        """This thread before all others, if root: what it starts inherits that."""
        if not self._is_root:
            yield
            return
        before = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        try:
            yield
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, before)

    def keep_off_measured_cpu(self) -> None:
        """Move this process, and what it starts unmeasured, to the other CPUs, if there are any."""
        os.sched_setaffinity(0, self._other_cpus)

    def use_every_cpu(self) -> None:
        """Undo `keep_off_measured_cpu`, for work that may use the whole machine."""
        os.sched_setaffinity(0, self._other_cpus | {self.measured_cpu})


def cpu_seconds(processes: set[int]) -> float:
    """User and system time of processes with all their threads, ended ones included."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~process << 3) | _CPUCLOCK_SCHED)
    return total


def memory_bytes(processes: set[int]) -> int:
    """Resident memory of the biggest of the processes."""
    biggest = 0
    for process in processes:
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            biggest = max(biggest, pages * os.sysconf("SC_PAGE_SIZE"))
    return biggest


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C", "TZ": "UTC"}


def _marked_processes(directory: Path) -> Iterator[int]:
    wanted = f"{_MARKER}={directory}".encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _end(directory: Path, processes: set[int], within_seconds: float) -> None:
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        alive = processes & set(_marked_processes(directory))
        if number is not None:
            for process in alive:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, number)
        deadline = time.monotonic() + within_seconds
        while alive and time.monotonic() < deadline:
            time.sleep(0.01)
            alive = processes & set(_marked_processes(directory))
        if not alive:
            return


def _clean_up(directory: Path) -> None:
    for mount in list_mounts(directory):
        unmount(mount.mountpoint)
    _end(directory, set(_marked_processes(directory)), _GRACE_SECONDS)
    for mount in list_mounts(directory):
        abort(mount)
        unmount(mount.mountpoint, lazy=True)
    left = list_mounts(directory)
    if left or not directory.name.startswith(_PREFIX):
        print(f"still mounted, so left in place: {[str(mount.mountpoint) for mount in left]}")
        return
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    _clean_up(Path(sys.argv[1]))
