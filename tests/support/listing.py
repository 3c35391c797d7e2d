"""A tree as lines of the form of the goldens' `expected.tsv`, from a mount or through the API.

Columns: path type mode nlink uid gid size mtime_ns target sha256 xattrs hardlink_group, as
tests/golden/data/README.md explains them.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from outcrop.repository.tree import Revision

_TYPES = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFSOCK: "s",
}


def escaped(text: bytes) -> str:
    """Printable ASCII stays, all else and `% , = ;` become %XX."""
    return "".join(chr(c) if 32 <= c < 127 and chr(c) not in "%,=;" else f"%{c:02X}" for c in text)


@dataclass(frozen=True, slots=True)
class Line:
    """One line before its last column is known; `identity` is equal for hard links."""

    path: bytes
    mode: int
    nlink: int
    owner: tuple[int, int]
    size: int
    mtime_ns: int
    target: str
    sha256: str
    xattrs: dict[bytes, bytes]
    identity: object

    def text(self, group: str) -> str:
        xattrs = ",".join(f"{escaped(k)}={escaped(v)}" for k, v in sorted(self.xattrs.items()))
        columns = (
            escaped(self.path),
            _TYPES[stat.S_IFMT(self.mode)],
            f"{stat.S_IMODE(self.mode):04o}",
            str(self.nlink),
            *map(str, self.owner),
            str(self.size),
            str(self.mtime_ns),
            self.target,
            self.sha256,
            xattrs or "-",
            group,
        )
        return "\t".join(columns)


def listing(lines: Iterable[Line]) -> list[str]:
    """The text of all lines; members of a hard link group name its first path."""
    known = sorted(lines, key=lambda line: line.path.split(b"/") if line.path != b"." else [])
    first: dict[object, bytes] = {}
    count: dict[object, int] = {}
    for line in known:
        first.setdefault(line.identity, line.path)
        count[line.identity] = count.get(line.identity, 0) + 1
    return [
        line.text(
            escaped(first[line.identity])
            if count[line.identity] > 1 and not stat.S_ISDIR(line.mode)
            else "-"
        )
        for line in known
    ]


def expected(path: Path) -> list[str]:
    """The lines of a golden listing."""
    return [line for line in path.read_text().split("\n") if line and not line.startswith("#")]


def lines_of_directory(root: Path, magic: frozenset[str] = frozenset()) -> Iterator[Line]:
    """A mounted (or plain) directory; attributes named in `magic` are left out."""
    top = os.fsencode(root)
    todo = [(top, b".")]
    while todo:
        here, shown = todo.pop()
        found = os.lstat(here)
        yield _line_of_path(here, shown, found, magic)
        if stat.S_ISDIR(found.st_mode):
            for name in os.listdir(here):
                below = name if shown == b"." else shown + b"/" + name
                todo.append((here + b"/" + name, below))


def _line_of_path(here: bytes, shown: bytes, found: os.stat_result, magic: frozenset[str]) -> Line:
    target, sha256 = "-", "-"
    if stat.S_ISLNK(found.st_mode):
        target = escaped(os.readlink(here))
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        target = f"dev:{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    elif stat.S_ISREG(found.st_mode):
        with open(here, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    names = [n for n in os.listxattr(here, follow_symlinks=False) if n not in magic]
    return Line(
        shown,
        found.st_mode,
        found.st_nlink,
        (found.st_uid, found.st_gid),
        found.st_size,
        found.st_mtime_ns,
        target,
        sha256,
        {os.fsencode(n): os.getxattr(here, n, follow_symlinks=False) for n in names},
        (found.st_dev, found.st_ino),
    )


def lines_of_revision(revision: Revision) -> Iterator[Line]:
    """A revision as the Python API reads it."""
    for directory, entries in revision.walk():
        for entry in ([revision.get(b"")] if not directory else []) + entries:
            path = directory + b"/" + entry.name if entry.name else b""
            target, sha256 = "-", "-"
            if entry.is_symlink:
                target = escaped(revision.readlink(path))
            elif entry.is_regular:
                with revision.open(path) as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            elif entry.rdev:
                target = f"dev:{os.major(entry.rdev)}:{os.minor(entry.rdev)}"
            group = entry.hardlink_group
            yield Line(
                path[1:] or b".",
                entry.mode,
                entry.nlink,
                (entry.uid, entry.gid),
                entry.size,
                entry.mtime * 1_000_000_000 + (entry.mtime_ns or 0),
                target,
                sha256,
                revision.xattrs(path),
                (directory, group) if group else path,
            )
