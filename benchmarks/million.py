"""One repository of a million entries: filled, published again, edited and kept up.

Trees of 10,000, 100,000 and 1,000,000 small files go into a new repository each. The last one
serves for everything after that: the directory unchanged, one file by diff list and by transaction,
a half of it copied, moved and removed, `check` and `gc`. Beside most stands what the machine takes
for the like without any repository.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.costs import Cost, middle, run_measured
from benchmarks.mounts import list_mounts, unmount
from benchmarks.origin import FQRN
from benchmarks.sandbox import Sandbox, UnavailableError

_FILES_PER_DIRECTORY = 49
_DIRECTORIES_PER_CATALOG = 800
_SETTLE_SECONDS = 3.0
_ROUNDS = 3
_FEW_ENTRIES = 10_000
_BYTES_PER_ENTRY = 12 * 1024  # a page and an inode, in the tree and in the store, and some room


@dataclass(frozen=True, slots=True)
class Row:
    """What a command took; `beside` is the command it is compared with, if there is one.

    `start` is what the same command took with nothing to do.
    """

    name: str
    title: str
    entries: int
    cost: Cost
    start: Cost | None = None
    beside: str = ""
    beside_cost: Cost | None = None

    @property
    def microseconds_per_entry(self) -> float | None:
        """CPU time without that of the start."""
        if self.start is None:
            return None
        return (self.cost.cpu_seconds - self.start.cpu_seconds) / self.entries * 1e6

    @property
    def user_microseconds_per_entry(self) -> float | None:
        """The part of it that is not the kernel's."""
        if self.start is None:
            return None
        return (self.cost.user_seconds - self.start.user_seconds) / self.entries * 1e6


def make_place(sandbox: Sandbox, entries: int) -> tuple[Path, str]:
    """A directory for so many entries: in memory if root and there is room. The second says so."""
    place = sandbox.directory / "million"
    place.mkdir()
    needed = entries * _BYTES_PER_ENTRY
    why = "not root"
    if os.geteuid() == 0:
        why = f"{needed / 1024**3:.0f} GiB of memory are not free"
        if _available_memory() > needed:
            try:
                options = f"size={needed},nr_inodes=0"
                command = ["mount", "-t", "tmpfs", "-o", options, "outcrop-bench", str(place)]
                sandbox.run(command, timeout_seconds=30)
            except RuntimeError as error:
                why = str(error)
            else:
                _touch_memory(place / "touched", needed * 3 // 4)
                return place, "many entries: the tree and the repository were in memory (tmpfs)"
    return place, f"many entries: the tree and the repository were on disk: {why}"


def measure_million(
    sandbox: Sandbox,
    program: str | None,
    place: Path,
    sizes: Sequence[int],
    progress: Callable[[str], None],
) -> Iterator[Row]:
    """All rows, the smallest tree first. Raises UnavailableError, RuntimeError, OSError."""
    if program is None:
        raise UnavailableError("there is no outcrop command")
    for size in sizes[:-1]:
        progress(f"{size:,} new files")
        rounds = _ROUNDS if size <= _FEW_ENTRIES else 1
        subject = _Subject(sandbox, program, place / str(size), size)
        yield subject.publish_new(rounds)
        sandbox.run(["rm", "-r", str(subject.directory)], timeout_seconds=600)
    progress(f"{sizes[-1]:,} new files")
    subject = _Subject(sandbox, program, place / str(sizes[-1]), sizes[-1])
    for step in (
        lambda: [subject.publish_new(1)],
        subject.publish_unchanged,
        subject.publish_one,
        subject.publish_transaction,
        subject.edit,
        subject.keep_up,
    ):
        for row in step():
            progress(f"{row.title}: {row.cost.wall_seconds:.2f} s")
            yield row


class _Subject:
    """A tree of small files and the repository it is published to."""

    def __init__(self, sandbox: Sandbox, program: str, directory: Path, entries: int) -> None:
        self._sandbox = sandbox
        self._program = program
        self._entries = entries
        self.directory = directory
        self._tree = self.directory / "tree"
        self._file = _build(self._tree, entries)
        self._root = self.directory / "world-0"
        self._settle_at = time.monotonic() + _SETTLE_SECONDS

    def _outcrop(self, *words: str) -> Cost:
        environment = {"OUTCROP_ROOT": str(self._root)}
        return run_measured(self._sandbox, [self._program, *words], environment)

    def _native(self, *command: str) -> Cost:
        return run_measured(self._sandbox, command, quiet=True)

    def publish_new(self, rounds: int) -> Row:
        """Everything new; each round in another repository, the first of which is kept."""
        nothing = self.directory / "nothing"
        nothing.mkdir()
        self._settle()
        starts, costs = [], []
        for number in reversed(range(rounds)):
            self._root = self.directory / f"world-{number}"
            self._root.mkdir()
            self._outcrop("mkfs", FQRN, "--gc")
            starts.append(self._outcrop("publish", FQRN, "--from", str(nothing)))
            costs.append(self._outcrop("publish", FQRN, "--from", str(self._tree)))
        read = self._native("sh", "-c", 'tar -c -C "$0" . | cat', str(self._tree))
        title = f"publish --from, {self._entries:,} new files"
        return Row(
            "new", title, self._entries, middle(costs), middle(starts), "tar, reading all", read
        )

    def publish_unchanged(self) -> Iterator[Row]:
        """The directory again; nothing in it has changed."""
        found = self._native("find", str(self._tree), "-ls")
        cost = self._outcrop("publish", FQRN, "--from", str(self._tree))
        title = "publish --from, unchanged"
        yield Row("unchanged", title, self._entries, cost, beside="find -ls", beside_cost=found)

    def publish_one(self) -> Iterator[Row]:
        """One changed file, named in a list."""
        listed = self.directory / "changed.txt"
        name = self._file.relative_to(self._tree)
        listed.write_text(f"M {name}\n")
        costs = []
        for number in range(_ROUNDS):
            self._file.write_text(f"changed {number}\n")
            command = ("publish", FQRN, "--from", str(self._tree), "--diff", str(listed))
            costs.append(self._outcrop(*command))
        yield Row("diff list", "publish --diff, one file", self._entries, middle(costs))

    def publish_transaction(self) -> Iterator[Row]:
        """One changed file in a transaction in place; only root may."""
        if os.geteuid() != 0:
            return
        union = self.directory / "union"
        settings = self._root / "etc/cvmfs/repositories.d" / FQRN / "server.conf"
        with settings.open("a") as file:
            file.write(f"CVMFS_UNION_DIR={union}\n")
        opened, published = [], []
        others = self._sandbox.processes()
        try:
            for number in range(_ROUNDS):
                opened.append(self._outcrop("transaction", FQRN))
                (union / self._file.relative_to(self._tree)).write_text(f"changed {number}\n")
                published.append(self._outcrop("publish", FQRN))
        finally:
            for mount in list_mounts(self.directory):
                unmount(mount.mountpoint, lazy=True)
            self._sandbox.end(self._sandbox.processes() - others)
        yield Row("transaction", "transaction", self._entries, middle(opened))
        title = "publish, one file changed in it"
        yield Row("transaction publish", title, self._entries, middle(published))

    def edit(self) -> Iterator[Row]:
        """A half is copied, the copy moved, what was moved removed; and so on disk."""
        half = self._entries // 2
        local = [str(self._tree / name) for name in ("left", "copy", "moved")]
        for name, words, beside, places in (
            ("clone", ("/left", "/copy"), "cp -al", local[:2]),
            ("mv", ("/copy", "/moved"), "mv", local[1:]),
            ("rm", ("/moved", "--yes"), "rm -r", local[2:]),
        ):
            cost = self._outcrop(name, FQRN, *words)
            native_cost = self._native(*beside.split(), *places)
            yield Row(name, f"{name}, {half:,} entries", half, cost, None, beside, native_cost)

    def keep_up(self) -> Iterator[Row]:
        """Check, and collect what all revisions but the last have, a removed catalog included."""
        self._outcrop("rm", FQRN, "/left/top000", "--yes")
        listed = self._native("find", str(self._root / "srv"), "-ls")
        for name, title, words in (
            ("check", "check", ("check", FQRN)),
            ("dry gc", "gc --keep 0 --dry-run", ("gc", FQRN, "--keep", "0", "--dry-run")),
            ("gc", "gc --keep 0", ("gc", FQRN, "--keep", "0", "--yes")),
            (
                "orphans",
                "gc --keep 0 --orphans, nothing to do",
                ("gc", FQRN, "--keep", "0", "--yes", "--orphans", "@1"),
            ),
        ):
            cost = self._outcrop(*words)
            yield Row(name, title, self._entries, cost, None, "find -ls of the store", listed)

    def _settle(self) -> None:
        """Files that are younger than this would be read again for being too new."""
        time.sleep(max(self._settle_at - time.monotonic(), 0))


def _build(root: Path, entries: int) -> Path:
    """A tree of about so many entries in two halves, with nested catalogs; one of its files."""
    count = entries // (_FILES_PER_DIRECTORY + 1)
    number = 0
    for directory in range(count):
        half = root / ("left" if directory < count // 2 else "right")
        top = half / f"top{directory // _DIRECTORIES_PER_CATALOG:03}"
        place = top / f"dir{directory:05}"
        place.mkdir(parents=True)
        if not (top / ".cvmfscatalog").exists():
            (top / ".cvmfscatalog").touch()
        for file in range(_FILES_PER_DIRECTORY):
            handle = os.open(f"{place}/file{file:02}.py", os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(handle, b"print(%d)\n" % number)
            os.close(handle)
            number += 1
    return place / "file00.py"


def _touch_memory(file: Path, size: int) -> None:
    """Have a virtual machine's host give us the memory now, not when the largest tree needs it."""
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, size)
    file.unlink()


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
