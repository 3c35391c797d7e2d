"""Runs of clients on candidates: placed, timed, accounted, checked, bounded."""

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.candidates import Candidate, Shown
from benchmarks.mounts import abort, list_mounts
from benchmarks.sandbox import Sandbox, UnavailableError, cpu_seconds, memory_bytes
from benchmarks.workloads import Workload

STATES = ("cold", "fresh", "second")


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured run of a client. `cpu_seconds` is the client's plus its servers'."""

    candidate: str
    workload: str
    state: str
    round: int
    wall_seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    server_memory_bytes: int


class MeasurementError(Exception):
    """A run failed or showed something else than the tree: its figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which states are measured how many times."""

    rounds: int
    cold_rounds: int
    timeout_seconds: float


class Meter:
    """Measures workloads on candidates, interleaved: every round has each candidate in turn."""

    def __init__(self, sandbox: Sandbox, client: Path, plan: Plan) -> None:
        self._sandbox = sandbox
        self._client = client
        self._plan = plan
        self.failures: dict[str, str] = {}

    def measure(
        self,
        candidates: Sequence[Candidate],
        workloads: Sequence[Workload],
        progress: Callable[[str], None],
    ) -> Iterator[Sample]:
        """All samples. A candidate that fails is left out from then on: see `failures`."""
        for number in range(self._plan.rounds):
            for workload in workloads:
                for candidate in _rotated(candidates, number):
                    if candidate.name in self.failures:
                        continue
                    progress(
                        f"round {number + 1}/{self._plan.rounds}  {workload.name}  {candidate.name}"
                    )
                    try:
                        yield from self._measure_once(candidate, workload, number)
                    except (MeasurementError, UnavailableError) as error:
                        self.failures[candidate.name] = f"{workload.name}: {error}"

    def _measure_once(
        self, candidate: Candidate, workload: Workload, number: int
    ) -> Iterator[Sample]:
        if candidate.has_network and number < self._plan.cold_rounds:
            with candidate.show(cold=True) as shown:
                yield self._pass(candidate, workload, shown, "cold", number)
        self._preread(candidate)
        with candidate.show() as shown:
            yield self._pass(candidate, workload, shown, "fresh", number)
            yield self._pass(candidate, workload, shown, "second", number)

    def _preread(self, candidate: Candidate) -> None:
        """Page cache may have been reclaimed since (DAMON does so); what is timed is no disk."""
        command = [str(self._client), "preread", *map(str, candidate.backing)]
        self._sandbox.run(command, timeout_seconds=self._plan.timeout_seconds)

    def _pass(
        self, candidate: Candidate, workload: Workload, shown: Shown, state: str, number: int
    ) -> Sample:
        output = self._sandbox.directory / "client.out"
        before = cpu_seconds(shown.servers)
        start = time.perf_counter()
        process = self._sandbox.spawn(workload.command(shown.root), measured=True, log=output)
        client_seconds, code = self._wait(process, shown)
        wall_seconds = time.perf_counter() - start
        server_seconds = cpu_seconds(shown.servers) - before
        text = output.read_text(errors="surrogateescape")
        if code != 0 or not workload.check(text):
            raise MeasurementError(f"{state}: client ended with {code}: …{text[-200:].strip()}")
        return Sample(
            candidate=candidate.name,
            workload=workload.name,
            state=state,
            round=number,
            wall_seconds=wall_seconds,
            cpu_seconds=client_seconds + server_seconds,
            server_cpu_seconds=server_seconds,
            server_memory_bytes=memory_bytes(shown.servers),
        )

    def _wait(self, process: subprocess.Popen[bytes], shown: Shown) -> tuple[float, int]:
        """(user+system seconds, exit code). Past the time limit the mount is aborted."""
        handle = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            timed_out = not poll.poll(self._plan.timeout_seconds * 1000)
            if timed_out:
                for mount in list_mounts(shown.root):
                    abort(mount)
                process.kill()
                self._sandbox.end(shown.servers, within_seconds=0)
        except BaseException:
            process.kill()
            raise
        finally:
            os.close(handle)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if timed_out:
            raise MeasurementError(f"no end within {self._plan.timeout_seconds:.0f} s")
        return usage.ru_utime + usage.ru_stime, process.returncode


def _rotated(candidates: Sequence[Candidate], number: int) -> list[Candidate]:
    """Another one starts each round, so that none always follows the same neighbour."""
    first = number % len(candidates) if candidates else 0
    return [*candidates[first:], *candidates[:first]]
