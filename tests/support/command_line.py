"""The `outcrop` command in this process, with what it printed and how it ended."""

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.simulator import RepositorySimulator

from outcrop.cli.main import run


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """What was printed, as text."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> list[str]:
        """What was printed, line by line."""
        return self.text.splitlines()

    @property
    def json(self) -> Any:
        """What was printed with --json."""
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a command that was given --json."""
        found: dict[str, Any] = json.loads(self.stderr)
        return found


def outcrop(*arguments: str | Path) -> Ended:
    """Run a command line."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    stderr = io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = run([str(argument) for argument in arguments])
    stdout.flush()
    return Ended(code, stdout.buffer.getvalue(), stderr.getvalue())  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Stored:
    """A simulated repository in a directory, and how to name it to a command."""

    simulator: RepositorySimulator
    directory: Path
    key: Path

    def run(self, command: str, *arguments: str | Path) -> Ended:
        """Run a command with this repository as TARGET."""
        options = ("--key", self.key, "--no-cache")
        return outcrop(command, self.directory, *arguments, *options)

    def publish(self, *arguments: Any, **options: Any) -> None:
        """Publish with the simulator, and store the outcome."""
        self.simulator.publish(*arguments, **options)
        self.simulator.dump(self.directory)


def store(simulator: RepositorySimulator, place: Path) -> Stored:
    """Write a simulated repository below a directory."""
    stored = Stored(simulator, place / simulator.fqrn, place / "master.pub")
    simulator.dump(stored.directory)
    stored.key.write_bytes(simulator.public_key)
    return stored


@contextlib.contextmanager
def changed(stored: Stored) -> Iterator[RepositorySimulator]:
    """What is done to the simulator inside the `with` is stored after it."""
    yield stored.simulator
    stored.simulator.dump(stored.directory)
