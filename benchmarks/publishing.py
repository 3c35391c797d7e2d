"""Publishing a whole tree, against `tar | zlib-6` of the same tree; and an archive of it."""

import os
import shlex
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.content import Tree
from benchmarks.costs import Cost, run_measured
from benchmarks.origin import Origin, stored_bytes
from benchmarks.sandbox import Sandbox, UnavailableError

_TAR = "tar, zlib-6"
DIRECTORY, FAST = "outcrop", "outcrop, fast"
INGEST, UNPACK = "outcrop ingest", "tar -x, outcrop"
_ZLIB_STREAM = Path(__file__).with_name("zlib_stream.py")


@dataclass(frozen=True, slots=True)
class PublishSample:
    """One way to compress the tree. `stored_bytes` is file data, `metadata_bytes` the rest."""

    candidate: str
    round: int
    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    input_bytes: int
    stored_bytes: int
    metadata_bytes: int = 0

    @property
    def ratio(self) -> float:
        """Stored by input."""
        return self.stored_bytes / self.input_bytes

    @property
    def megabytes_per_core_second(self) -> float:
        """Input by CPU time: what one core would take in, were it used alone."""
        return self.input_bytes / 1e6 / self.cpu_seconds


def measure_publishing(
    sandbox: Sandbox,
    program: str | None,
    tree: Tree,
    rounds: int,
    progress: Callable[[str], None],
) -> Iterator[PublishSample]:
    """`outcrop publish` into a new repository and `tar | zlib-6`, in turn; then from an archive."""
    archive = sandbox.directory / "tree.tar"
    run_measured(sandbox, ["tar", "-c", "-f", str(archive), "-C", str(tree.root), "."])
    for number in range(rounds):
        for candidate in (_TAR, DIRECTORY, FAST, INGEST, UNPACK):
            progress(f"round {number + 1}/{rounds}  publish  {candidate}")
            _preread(tree)
            if candidate == _TAR:
                yield _tar(sandbox, tree, number)
            else:
                yield _publish(sandbox, program, tree, archive, number, candidate)


def zlib_ratio(tree: Tree) -> float:
    """What zlib-6 makes of the files, each compressed by itself as objects must be."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return sum(pool.map(_zlib_size, (tree.root / path for path in tree.files))) / max(
            tree.small_bytes, 1
        )


def _zlib_size(path: Path) -> int:
    return len(zlib.compress(path.read_bytes(), 6))


def _preread(tree: Tree) -> None:
    for path in tree.files:
        (tree.root / path).read_bytes()


def _publish(
    sandbox: Sandbox, program: str | None, tree: Tree, archive: Path, number: int, candidate: str
) -> PublishSample:
    if program is None:
        raise UnavailableError("there is no outcrop command")
    origin = Origin(sandbox, program, f"{candidate.replace(' ', '-')}-{number}")
    unpacked = sandbox.directory / f"unpacked-{number}"
    try:
        origin.create()
        command = {
            DIRECTORY: lambda: origin.publish_command(tree),
            FAST: lambda: [*origin.publish_command(tree), "--compression", "fast"],
            INGEST: lambda: origin.ingest_command(archive),
            UNPACK: lambda: origin.unpack_command(archive, unpacked),
        }[candidate]()
        cost = run_measured(sandbox, command, origin.environment)
        stored, metadata = stored_bytes(origin)
    except RuntimeError as error:
        raise UnavailableError(str(error)) from error
    return _sample(candidate, number, cost, tree, stored, metadata)


def _tar(sandbox: Sandbox, tree: Tree, number: int) -> PublishSample:
    stream = shlex.join([sys.executable, str(_ZLIB_STREAM)])
    command = ["sh", "-c", f"tar -cf - -C {shlex.quote(str(tree.root))} . | {stream}"]
    cost = run_measured(sandbox, command)
    return _sample(_TAR, number, cost, tree, int(cost.output))


def _sample(
    candidate: str, number: int, cost: Cost, tree: Tree, stored: int, metadata: int = 0
) -> PublishSample:
    return PublishSample(
        candidate,
        number,
        cost.wall_seconds,
        cost.cpu_seconds,
        cost.memory_bytes,
        tree.small_bytes,
        stored,
        metadata,
    )
