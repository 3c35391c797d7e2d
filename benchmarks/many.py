"""`python -m benchmarks.many`: publishing a million entries, none of them, and one of them.

Trees of 10,000, 100,000 and 1,000,000 small files in nested catalogs of 40,000 entries, each into a
new repository; then the largest again, unchanged, against `find -ls`, and one file by diff list.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars import Bar
from benchmarks.origin import FQRN, outcrop_program

_FILES_PER_DIRECTORY = 49
_DIRECTORIES_PER_CATALOG = 800
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Run:
    """What one command took."""

    wall_seconds: float
    cpu_seconds: float
    resident_bytes: int


def build(root: Path, entries: int) -> Path:
    """A tree of about so many entries; returns one of its files."""
    number = 0
    for directory in range(entries // (_FILES_PER_DIRECTORY + 1)):
        top = root / f"top{directory // _DIRECTORIES_PER_CATALOG:03}"
        place = top / f"dir{directory:05}"
        place.mkdir(parents=True)
        (top / ".cvmfscatalog").touch()
        for file in range(_FILES_PER_DIRECTORY):
            (place / f"file{file:02}.py").write_bytes(b"print(%d)\n" % number)
            number += 1
    return place / "file00.py"


def run(command: list[str], root: Path, given: bytes = b"") -> Run:
    """Run a command to its end. Raises RuntimeError if it fails."""
    begun = time.perf_counter()
    with (root / "stdin").open("w+b") as stdin:
        stdin.write(given)
        stdin.seek(0)
        process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.DEVNULL,
            env=os.environ | {"OUTCROP_ROOT": str(root)},
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise RuntimeError(f"{command[:3]} ended with {process.returncode}")
    return Run(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def measure(workdir: Path, program: str, sizes: list[int]) -> list[Bar]:
    """All rows, smallest tree first. The last one is published again."""
    per_entry: list[float] = []
    for size in sizes:
        world, tree = workdir / f"world-{size}", workdir / f"tree-{size}"
        world.mkdir()
        file = build(tree, size)
        run([program, "mkfs", FQRN], world)
        (world / "nothing").mkdir()
        start = run([program, "publish", FQRN, "--from", str(world / "nothing")], world)
        time.sleep(3)  # so that no file is too new to be known again
        first = run([program, "publish", FQRN, "--from", str(tree)], world)
        per_entry.append((first.cpu_seconds - start.cpu_seconds) / size * 1e6)
        print(f"{size:9,} new: {first}; {per_entry[-1]:.0f} µs of CPU an entry", flush=True)
    found = run(["find", str(tree), "-ls"], world)
    unchanged = run([program, "publish", FQRN, "--from", str(tree)], world)
    ones = []
    for round_number in range(3):
        file.write_text(f"changed {round_number}\n")
        listed = b"M " + os.fsencode(file.relative_to(tree)) + b"\n"
        command = [program, "publish", FQRN, "--from", str(tree), "--diff", "-"]
        ones.append(run(command, world, listed))
    one = sorted(ones, key=lambda each: each.wall_seconds)[1]
    print(f"find -ls: {found}\nunchanged: {unchanged}\none of them: {one}", flush=True)
    return [
        Bar("new files, most by least an entry", "times", 1.2, max(per_entry) / min(per_entry)),
        Bar("new files, resident", "MiB", 600.0, first.resident_bytes / _MEBIBYTE),
        Bar(
            "unchanged directory, wall beyond 1.5 x find -ls", "s", 5.0,
            unchanged.wall_seconds - 1.5 * found.wall_seconds,
        ),
        Bar("one file of all by diff list, wall", "s", 1.0, one.wall_seconds),
        Bar("one file of all by diff list, resident", "MiB", 200.0, one.resident_bytes / _MEBIBYTE),
    ]  # fmt: skip


def main() -> int:
    """Exit code 0: measured; 1: there is nothing to measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000, help="in the largest tree")
    parser.add_argument(
        "--workdir", type=Path, default=Path("/var/tmp"), help="a disk with 10 GB and 3M inodes"
    )
    options = parser.parse_args()
    program = outcrop_program()
    if program is None:
        print("there is no outcrop command", file=sys.stderr)
        return 1
    sizes = [options.entries // 100, options.entries // 10, options.entries]
    with tempfile.TemporaryDirectory(prefix="outcrop-bench-", dir=options.workdir) as workdir:
        for bar in measure(Path(workdir), program, sizes):
            print(bar)
    return 0


if __name__ == "__main__":
    sys.exit(main())
