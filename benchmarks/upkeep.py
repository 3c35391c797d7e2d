"""Garbage collection and check of a large repository: `python -m benchmarks.upkeep`.

The repository has many catalogs and several revisions, each of which changes some of them. Its
objects are empty files of the right names: neither command looks into them.
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.publisher.create import create_repository
from outcrop.publisher.session import open_session
from outcrop.repository.working_catalog import Edit
from outcrop.storage.locations import Locations

FQRN = "upkeep.example.org"
_FILES = 50
_DIRECTORIES = 40
_ENTRIES = _DIRECTORIES * (_FILES + 1) + 2
_CHANGED_PART = 10
_NOW = 1_800_000_000


@dataclass(frozen=True, slots=True)
class UpkeepSample:
    """One command. Memory is the peak of the process."""

    command: str
    entries: int
    revisions: int
    wall_seconds: float
    cpu_seconds: float
    memory_mebibytes: float
    said: str


def build(root: Path, entries: int, revisions: int) -> None:
    """A repository with so many entries; each later revision changes a tenth of the catalogs."""
    locations = Locations(root)
    create_repository(
        locations, FQRN, algorithm=HashAlgorithm.SHA1, garbage_collectable=True, now=_NOW
    )
    data = locations.repository(FQRN) / "data"
    for number in range(256):
        (data / f"{number:02x}").mkdir(exist_ok=True)
    packages = max(entries // _ENTRIES, 1)
    for revision in range(revisions):
        changed = range(packages) if not revision else range(revision, packages, _CHANGED_PART)
        with open_session(locations, FQRN, now=_NOW + revision) as session:
            for package in changed:
                path = b"/package%05d" % package
                if not revision:
                    session.editor.put_directory(path, _directory(path))
                    session.editor.nest(path)
                    session.editor.put(path, [_file(b".cvmfscatalog", b"", data)])
                for directory in range(_DIRECTORIES if not revision else 4):
                    below = path + b"/d%02d" % directory
                    if not revision:
                        session.editor.put_directory(below, _directory(below))
                    salt = below + b"%d" % revision
                    edits = [_file(b"file%02d" % n, salt + b"%d" % n, data) for n in range(_FILES)]
                    session.editor.put(below, edits)
            session.publish([], workers=2)


def _directory(path: bytes) -> DirectoryEntry:
    return DirectoryEntry(
        name=path.rpartition(b"/")[2], mode=0o40755, nlink=2, size=4096, mtime=_NOW
    )


def _file(name: bytes, content: bytes, data: Path) -> Edit:
    digest = hashlib.sha1(content).digest() if content else bytes.fromhex(_EMPTY)
    text = digest.hex()
    os.close(os.open(data / text[:2] / text[2:], os.O_CREAT | os.O_WRONLY, 0o666))
    size = len(content)
    content_hash = ContentHash(HashAlgorithm.SHA1, digest)
    entry = DirectoryEntry(
        name=name, mode=0o100644, size=size, mtime=_NOW, mtime_ns=1, content=content_hash
    )
    return entry, ()


_EMPTY = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"


def measure(root: Path, entries: int, revisions: int) -> Iterator[UpkeepSample]:
    """Check, collect in a dry run, collect all but the newest revision, check what is left."""
    for arguments in (
        ["check", FQRN],
        ["gc", FQRN, "--keep", "0", "--dry-run"],
        ["gc", FQRN, "--keep", "0", "--yes"],
        ["gc", FQRN, "--keep", "0", "--yes", "--orphans", "@1"],
        ["check", "--all-tags", FQRN],
    ):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        command = [sys.executable, "-c", _PROGRAM, *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, "OUTCROP_ROOT": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        said, memory = done.stdout.strip().splitlines()[-1:], done.stderr.split()[-1:]
        yield UpkeepSample(
            " ".join(arguments),
            entries,
            revisions,
            wall,
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            int(memory[0]) / 1024 if memory and memory[0].isdecimal() else 0.0,
            "".join(said) or done.stderr[-300:],
        )


_PROGRAM = """
import resource, sys
from outcrop.cli.main import run
code = run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Build, measure, print one line per command (JSON with `--json`)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--revisions", type=int, default=5)
    parser.add_argument("--directory", type=Path, required=True, help="Made, and deleted.")
    parser.add_argument("--keep", action="store_true", help="Do not delete it.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if not options.keep:
            stack.callback(shutil.rmtree, options.directory, ignore_errors=True)
        if not options.directory.exists():
            build(options.directory, options.entries, options.revisions)
        for sample in measure(options.directory, options.entries, options.revisions):
            if options.json:
                print(json.dumps(asdict(sample)), flush=True)
                continue
            print(
                f"{sample.wall_seconds:7.2f} s  {sample.cpu_seconds:7.2f} s CPU "
                f"{sample.memory_mebibytes:6.0f} MiB  {sample.command}: {sample.said}",
                flush=True,
            )


if __name__ == "__main__":
    main()
