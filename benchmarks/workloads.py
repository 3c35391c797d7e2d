"""What the clients do, and how their output shows that they did it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.content import LARGE_FILE, Tree, shuffled, write_list

MISSING_EVERY = 5  # 20 % of the looked up paths do not exist


@dataclass(frozen=True, slots=True)
class Workload:
    """One client program: its command for a tree's root, and a check of what it printed."""

    name: str
    title: str
    operations: int
    unit: str
    command: Callable[[Path], list[str]]
    check: Callable[[str], bool]


def make_workloads(tree: Tree, client: Path, directory: Path) -> list[Workload]:
    """All workloads on a tree; their lists of paths go into `directory`."""
    stat_list, read_list = directory / "stat.list", directory / "read.list"
    small = (*tree.files, *tree.symlinks)
    looked_up = shuffled(small, missing_every=MISSING_EVERY)
    write_list(stat_list, looked_up)
    write_list(read_list, shuffled(tree.files, seed=3))
    hidden = sum(path.endswith("/.cvmfscatalog") for path in tree.files)
    missing = -(-len(small) // MISSING_EVERY)
    program = str(client)
    workloads = [
        Workload(
            "find",
            "find -newermt, attributes of all",
            tree.entries,
            "entries",
            lambda root: ["find", str(root), "-newermt", "2000-01-01"],
            lambda text: text.count("\n") == tree.entries,
        ),
        Workload(
            "ls",
            "ls -lR",
            tree.entries,
            "entries",
            lambda root: ["ls", "-lR", str(root)],
            lambda text: (
                len(re.findall("^[-dl]r", text, re.MULTILINE)) == tree.entries - 1 - hidden
            ),
        ),
        Workload(
            "names",
            "find, names only",
            tree.entries,
            "entries",
            lambda root: ["find", str(root)],
            lambda text: text.count("\n") == tree.entries,
        ),
        Workload(
            "stat",
            "random stat, 20 % missing",
            len(looked_up),
            "lookups",
            lambda root: [program, "stat", str(root), str(stat_list)],
            lambda text: text == f"{len(small) - missing} found {missing} missing\n",
        ),
        Workload(
            "read",
            "small files, open+read+close",
            len(tree.files),
            "files",
            lambda root: [program, "read", str(root), str(read_list)],
            lambda text: text == f"{len(tree.files)} files {tree.small_bytes} bytes\n",
        ),
    ]
    if tree.large_bytes:
        workloads.append(
            Workload(
                "sequential",
                f"{tree.large_bytes // 1_000_000} MB file, start to end",
                tree.large_bytes // 1_000_000,
                "MB",
                lambda root: [program, "sequential", str(root / LARGE_FILE)],
                lambda text: text == f"{tree.large_bytes} bytes\n",
            )
        )
    return workloads
