"""One changed file in a repository of a million entries, published by transaction.

`python -m benchmarks.transactions` (root, about a minute): wall time, CPU time and memory of
`outcrop transaction` and `outcrop publish`, each a process of its own as users start it.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from outcrop.publisher.changes import ChangeCounts
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.publish import publish_changes
from outcrop.publisher.session import PublishSession
from outcrop.storage.locations import Locations

_FQRN = "transactions.example.org"
_SUBTREES = 100
_DIRECTORIES = 10
_FILES = 1000
_ROUNDS = 5
_PROGRAM = Path(sys.executable).with_name("outcrop")


def main() -> None:
    """Make the repository, measure, print one line for each command."""
    if os.geteuid() != 0:
        sys.exit("transactions in place are for root")
    with tempfile.TemporaryDirectory(prefix="outcrop-bench-") as directory:
        place = Path(directory)
        union = _make(place)
        samples: dict[str, list[tuple[float, float, float]]] = {"transaction": [], "publish": []}
        try:
            for number in range(_ROUNDS):
                samples["transaction"].append(_run(place, "transaction", _FQRN))
                (union / "p42/d3/f7").write_text(f"changed {number}\n")
                samples["publish"].append(_run(place, "publish", _FQRN))
        finally:
            for mounted in (union, Locations(place / "root").spool(_FQRN) / "rdonly"):
                os.spawnlp(os.P_WAIT, "umount", "umount", "-l", str(mounted))
        for command, found in samples.items():
            wall, cpu, memory = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"{command:12} {wall:6.2f} s  {cpu:6.2f} CPU s  {memory:4.0f} MB")


def _make(place: Path) -> Path:
    """A repository of as many entries, most of them by copying catalogs; its union directory."""
    for directory in range(_DIRECTORIES):
        inner = place / "source/p0" / f"d{directory}"
        inner.mkdir(parents=True)
        for number in range(_FILES):
            (inner / f"f{number}").write_text(str(number % 50))
    (place / "source/p0/.cvmfscatalog").touch()
    locations = Locations(place / "root")
    _run(place, "mkfs", _FQRN)
    _run(place, "publish", _FQRN, "--from", str(place / "source"))

    def clone(session: PublishSession, _: Tell) -> ChangeCounts:
        for number in range(1, _SUBTREES):
            session.editor.clone(b"/p0", b"/p%d" % number)
        return ChangeCounts()

    now = int(time.time()) + 1
    publish_changes(locations, _FQRN, clone, options=PublishOptions(), now=now)
    union = place / "union"
    with (locations.server_config(_FQRN) / "server.conf").open("a") as file:
        file.write(f"CVMFS_UNION_DIR={union}\n")
    time.sleep(1)
    return union


def _run(place: Path, *words: str) -> tuple[float, float, float]:
    """Run a command; wall seconds, CPU seconds, megabytes at most."""
    begun = time.monotonic()
    environment = {**os.environ, "OUTCROP_ROOT": str(place / "root")}
    to_nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    program = str(_PROGRAM)
    pid = os.posix_spawn(program, [program, *words], environment, file_actions=to_nowhere)
    _, status, used = os.wait4(pid, 0)
    if status:
        sys.exit(f"outcrop {' '.join(words)}: failed")
    return time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
