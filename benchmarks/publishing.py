"""Publishing a whole tree, against `tar | zlib-6` of the same tree; and an archive of it."""

import os
import shlex
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.content import Tree
from benchmarks.origin import Origin, stored_bytes
from benchmarks.sandbox import Sandbox, UnavailableError

_TIMEOUT_SECONDS = 900
_TAR, _DIRECTORY = "tar, zlib-6", "outcrop"
_INGEST, _UNPACK = "outcrop ingest", "tar -x, outcrop"
_ZLIB_STREAM = Path(__file__).with_name("zlib_stream.py")


@dataclass(frozen=True, slots=True)
class PublishSample:
    """One way to compress the tree. `stored_bytes` is file data, `metadata_bytes` the rest."""

    candidate: str
    round: int
    wall_seconds: float
    cpu_seconds: float
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
    _timed(sandbox, ["tar", "-c", "-f", str(archive), "-C", str(tree.root), "."], {})
    try:
        for number in range(rounds):
            for candidate in (_TAR, _DIRECTORY, _INGEST, _UNPACK):
                progress(f"round {number + 1}/{rounds}  publish  {candidate}")
                _preread(tree)
                if candidate == _TAR:
                    yield _tar(sandbox, tree, number)
                else:
                    yield _publish(sandbox, program, tree, archive, number, candidate)
    finally:
        archive.unlink()


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
    unpacked = sandbox.directory / "unpacked"
    try:
        origin.create()
        command = {
            _DIRECTORY: lambda: origin.publish_command(tree),
            _INGEST: lambda: origin.ingest_command(archive),
            _UNPACK: lambda: origin.unpack_command(archive, unpacked),
        }[candidate]()
        wall, cpu, _ = _timed(sandbox, command, origin.environment)
        stored, metadata = stored_bytes(origin)
    except RuntimeError as error:
        raise UnavailableError(str(error)) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    return PublishSample(candidate, number, wall, cpu, tree.small_bytes, stored, metadata)


def _tar(sandbox: Sandbox, tree: Tree, number: int) -> PublishSample:
    stream = shlex.join([sys.executable, str(_ZLIB_STREAM)])
    command = ["sh", "-c", f"tar -cf - -C {shlex.quote(str(tree.root))} . | {stream}"]
    wall, cpu, output = _timed(sandbox, command, {})
    return PublishSample(_TAR, number, wall, cpu, tree.small_bytes, int(output))


def _timed(
    sandbox: Sandbox, command: list[str], environment: dict[str, str]
) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds of the process and its children, stdout)."""
    before, start = os.times(), time.perf_counter()
    output = sandbox.run(
        command, timeout_seconds=_TIMEOUT_SECONDS, measured=True, environment=environment
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user - before.children_user
    return wall, cpu + after.children_system - before.children_system, output
