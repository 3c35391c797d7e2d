"""What a command takes: time, processor, memory."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sandbox import Sandbox

_LAUNCH = Path(__file__).with_name("launch.py")
_TIMEOUT_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Cost:
    """One command, with the processes it waited for; memory is the peak of the largest."""

    wall_seconds: float
    cpu_seconds: float
    user_seconds: float
    memory_bytes: int
    output: str = ""


def run_measured(
    sandbox: Sandbox,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    quiet: bool = False,
) -> Cost:
    """Run to the end, on every CPU; `quiet`: what it prints is dropped.

    Raises RuntimeError with what a failure said.
    """
    if quiet:
        command = ["sh", "-c", 'exec "$@" > /dev/null', "sh", *command]
    report = sandbox.directory / "cost.json"
    output = sandbox.run(
        [sys.executable, "-I", "-S", str(_LAUNCH), str(report), *command],
        timeout_seconds=_TIMEOUT_SECONDS,
        measured=True,
        environment=environment,
    )
    user, system, wall, memory = json.loads(report.read_text())
    return Cost(wall, user + system, user, memory, output)


def middle(costs: Sequence[Cost]) -> Cost:
    """The one with the median CPU time."""
    return sorted(costs, key=lambda cost: cost.cpu_seconds)[len(costs) // 2]
