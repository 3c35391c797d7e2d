"""Checking one catalog against itself: rows, flags, path hashes, links, chunks, counters (spec 6).

Directory by directory, so that memory is needed for the largest directory and no more.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from outcrop.errors import FormatError
from outcrop.formats.catalog import (
    COUNTER_NAMES,
    Counters,
    DirectoryEntry,
    path_hash,
    select_list,
)
from outcrop.formats.hashes import ObjectRef
from outcrop.formats.xattrs import parse_xattrs
from outcrop.repository.catalogs import Catalog
from outcrop.repository.check_rows import PlainRowReader, PlainRows, TakePlain
from outcrop.repository.files import pieces_of

T = TypeVar("T")
_MARKER = b".cvmfscatalog"
_COUNTED_SINCE_REVISION = 5
_SHOWN_STRAYS = 5

TakeObject = Callable[[bytes, ObjectRef], None]
"""Takes the path of a regular file and one of the objects it consists of."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, and where: a path, an object or a file of the repository."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def problem_at(path: bytes, what: str) -> Problem:
    """A problem with what is at a path of the repository."""
    return Problem((path or b"/").decode("utf-8", "backslashreplace"), what)


@dataclass(slots=True)
class CatalogReport:
    """What the walk over one catalog found. `root` is the catalog's root entry, if it has one."""

    root: DirectoryEntry | None = None
    mountpoints: dict[bytes, DirectoryEntry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    entries: int = 0


@dataclass(slots=True)
class _Group:
    """Hard links to one file: all must be alike, and say how many they are."""

    first: DirectoryEntry
    path: bytes
    members: int = 0


def check_catalog(
    catalog: Catalog, take: TakeObject, take_plain: TakePlain | None = None
) -> CatalogReport:
    """Walk all rows that hang on the catalog's root and hold them against the rest.

    With `take_plain`, which takes the plain files of a directory at once, this is much quicker.
    Raises FormatError for rows that cannot be read.
    """
    report = CatalogReport(catalog.find(catalog.mountpoint))
    if report.root is None:
        report.problems.append(problem_at(catalog.mountpoint, "the catalog has no root entry"))
        return report
    _Walk(catalog, report, take, take_plain).run(report.root)
    return report


class _Walk:
    """The state of one walk."""

    def __init__(
        self,
        catalog: Catalog,
        report: CatalogReport,
        take: TakeObject,
        take_plain: TakePlain | None,
    ) -> None:
        self._catalog = catalog
        self._report = report
        self._take = take
        self._take_plain = take_plain
        self._plain = PlainRowReader(catalog)
        self._counted: Counter[str] = Counter()
        self._groups: dict[int, _Group] = {}
        self._todo: list[tuple[bytes, DirectoryEntry]] = []
        self._query = (
            f"SELECT md5path_1, md5path_2, {select_list(catalog.columns)} FROM catalog "
            "WHERE parent_1 = ? AND parent_2 = ?"
        )

    def run(self, root: DirectoryEntry) -> None:
        mountpoint = self._catalog.mountpoint
        if root.is_nested_root != bool(mountpoint):
            self._say(mountpoint, "wrong nested-root flag")
        self._count(root)
        self._report.entries = 1
        self._todo.append((mountpoint, root))
        while self._todo:
            self._check_directory(*self._todo.pop())
        self._check_groups()
        self._check_strays()
        self._check_mountpoints()
        self._check_counters()

    def _say(self, path: bytes, what: str) -> None:
        self._report.problems.append(problem_at(path, what))

    def _count(self, entry: DirectoryEntry) -> None:
        counted = self._counted
        if entry.xattrs:
            counted["xattr"] += 1
        if entry.is_directory:
            counted["dir"] += 1
        elif entry.is_symlink:
            counted["symlink"] += 1
        elif entry.is_regular:
            counted["regular"] += 1
            counted["file_size"] += entry.size
            if entry.is_chunked:
                counted["chunked"] += 1
                counted["chunked_size"] += entry.size
            if entry.is_external:
                counted["external"] += 1
                counted["external_file_size"] += entry.size
        else:
            counted["special"] += 1

    def _check_directory(self, directory: bytes, own: DirectoryEntry) -> None:
        catalog = self._catalog
        stored = catalog.stored_path(directory)
        plain = self._plain.read(stored) if self._take_plain is not None else None
        names = set(plain.names) if plain is not None else set()
        query = self._query
        if plain is not None:
            self._count_plain(directory, plain)
            query += f" AND NOT {self._plain.is_plain}"
        subdirectories = 0
        is_done = plain is not None and not plain.others
        for first, second, *row in () if is_done else catalog.query(query, path_hash(stored)):
            entry = DirectoryEntry.from_row(row)
            path = directory + b"/" + entry.name
            if (first, second) != path_hash(stored + b"/" + entry.name):
                self._say(path, "is not found by its path hash")
            if entry.name in names:
                self._say(path, "is there twice")
            names.add(entry.name)
            subdirectories += entry.is_directory
            self._check_entry(path, entry)
        self._report.entries += len(names)
        if own.nlink != 2 + subdirectories and not own.is_bind_mountpoint:
            self._say(directory, f"link count {own.nlink} with {subdirectories} subdirectories")
        if directory == catalog.mountpoint and directory and _MARKER not in names:
            self._say(directory, "nested catalog without .cvmfscatalog")

    def _count_plain(self, directory: bytes, plain: PlainRows) -> None:
        self._counted["symlink"] += plain.symlinks
        for files in plain.files:
            self._counted["regular"] += len(files.names)
            self._counted["file_size"] += files.size
            if self._take_plain is not None:
                self._take_plain(directory, files)

    def _check_entry(self, path: bytes, entry: DirectoryEntry) -> None:
        self._count(entry)
        if not entry.name:
            self._say(path, "has no name")
        if entry.xattrs:
            self._try(path, lambda: parse_xattrs(entry.xattrs or b""))
        if entry.is_directory:
            if entry.is_nested_mountpoint or entry.is_bind_mountpoint:
                self._report.mountpoints[path] = entry
            else:
                self._todo.append((path, entry))
                if entry.is_nested_root:
                    self._say(path, "is marked as the root of a nested catalog")
            return
        if entry.hardlink_group:
            self._join_group(path, entry)
        elif entry.nlink != 1:
            self._say(path, f"link count {entry.nlink}, but it is in no group")
        if entry.is_regular:
            self._check_content(path, entry)

    def _check_content(self, path: bytes, entry: DirectoryEntry) -> None:
        chunks = self._catalog.chunks(path, entry.algorithm) if entry.is_chunked else []
        self._counted["chunks"] += len(chunks)
        if entry.is_chunked and not chunks:
            self._say(path, "is said to have chunks, and has none")
        for piece in self._try(path, lambda: pieces_of(path, entry, chunks)) or ():
            self._take(path, piece.ref)
        if entry.content is None:
            if not entry.is_chunked and entry.size == 0:
                self._say(path, "an empty file without content hash")
        elif (entry.is_chunked or entry.size == 0) and not entry.is_external:
            ref = ObjectRef(entry.content, compression=entry.compression, size=entry.size)
            self._take(path, ref)

    def _try(self, path: bytes, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except FormatError as error:
            self._say(path, str(error))
            return None

    def _join_group(self, path: bytes, entry: DirectoryEntry) -> None:
        group = self._groups.setdefault(entry.hardlink_group, _Group(entry, path))
        group.members += 1
        if _shared(entry) != _shared(group.first):
            shown = group.path.decode("utf-8", "backslashreplace")
            self._say(path, f"differs from {shown}, a hard link to the same file")

    def _check_groups(self) -> None:
        for group in self._groups.values():
            if group.first.nlink != group.members:
                self._say(
                    group.path,
                    f"link count {group.first.nlink}, but its group has {group.members} members",
                )

    def _check_strays(self) -> None:
        """Rows that the walk did not come to."""
        ((rows,),) = self._catalog.query("SELECT count(*) FROM catalog")
        if rows != self._report.entries:
            names = self._catalog.query(
                "SELECT name FROM catalog c WHERE NOT EXISTS (SELECT 1 FROM catalog p WHERE "
                "p.md5path_1 = c.parent_1 AND p.md5path_2 = c.parent_2) "
                f"AND name <> '' ORDER BY name LIMIT {_SHOWN_STRAYS}"
            )
            self._say(
                self._catalog.mountpoint,
                f"{rows} rows, but only {self._report.entries} have a parent{_list(names)}",
            )
        ((chunks,),) = self._catalog.query("SELECT count(*) FROM chunks")
        if chunks != self._counted["chunks"]:
            self._say(
                self._catalog.mountpoint,
                f"{chunks} chunks, but only {self._counted['chunks']} belong to chunked files",
            )

    def _check_mountpoints(self) -> None:
        mountpoints, nested = self._report.mountpoints, self._catalog.nested
        for path in mountpoints.keys() - nested.keys():
            self._say(path, "mountpoint without a nested catalog")
        for path in nested.keys() - mountpoints.keys():
            self._say(path, "nested catalog without a mountpoint")

    def _check_counters(self) -> None:
        rows = self._catalog.query("SELECT counter, value FROM statistics")
        stored = dict(rows)
        own = Counters(
            **{name: self._counted[name] for name in COUNTER_NAMES if name != "nested"},
            nested=sum(not e.is_bind_mountpoint for e in self._report.mountpoints.values()),
        )
        for name in COUNTER_NAMES:
            for kind in ("self", "subtree"):
                is_old = self._catalog.schema_revision < _COUNTED_SINCE_REVISION
                if f"{kind}_{name}".encode() not in stored and not is_old:
                    self._say(self._catalog.mountpoint, f"there is no counter {kind}_{name}")
            found = stored.get(f"self_{name}".encode())
            counted = getattr(own, name)
            if found is not None and found != counted:
                self._say(
                    self._catalog.mountpoint, f"counter self_{name} is {found}, counted {counted}"
                )


def _shared(entry: DirectoryEntry) -> tuple[object, ...]:
    """What is the same of all hard links to one file."""
    return (
        entry.mode, entry.nlink, entry.size, entry.rdev, entry.mtime, entry.mtime_ns, entry.uid,
        entry.gid, entry.content, entry.symlink, entry.xattrs, entry.flags,
    )  # fmt: skip


def _list(names: Iterable[tuple[object]]) -> str:
    shown = [n.decode("utf-8", "backslashreplace") for (n,) in names if isinstance(n, bytes)]
    return f"; among the others are {', '.join(shown)}" if shown else ""
