"""Checking one catalog against itself, its parent and its children (spec 6)."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from outcrop.errors import FormatError
from outcrop.formats.catalog import COUNTER_NAMES, Counters, DirectoryEntry, Statistics
from outcrop.formats.xattrs import parse_xattrs
from outcrop.repository.catalogs import Catalog
from outcrop.repository.files import Piece, pieces_of

T = TypeVar("T")
_MARKER = b".cvmfscatalog"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, and where: a path, an object or a file of the repository."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(slots=True)
class CatalogReport:
    """What the walk over one catalog found."""

    counters: Counters = field(default_factory=Counters)
    pieces: list[Piece] = field(default_factory=list)
    mountpoints: dict[bytes, DirectoryEntry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    entries: int = 0


def check_catalog(catalog: Catalog) -> CatalogReport:
    """Walk all rows that hang on the catalog's root and hold them against the rest."""
    report = CatalogReport()
    root = catalog.find(catalog.mountpoint)
    if root is None:
        report.problems.append(_problem(catalog.mountpoint, "the catalog has no root entry"))
        return report
    if root.is_nested_root != bool(catalog.mountpoint):
        report.problems.append(_problem(catalog.mountpoint, "wrong nested-root flag"))
    totals = [Counters.of_entry(root)]
    report.entries = 1
    todo = [(catalog.mountpoint, root)]
    while todo:
        directory, entry = todo.pop()
        for path, child in _children(catalog, directory, entry, report):
            totals.append(_check_entry(catalog, path, child, report))
            if child.is_directory and path not in report.mountpoints:
                todo.append((path, child))
    _check_counts(catalog, _sum(totals), report)
    return report


def _sum(parts: list[Counters]) -> Counters:
    return Counters(*(sum(getattr(part, name) for part in parts) for name in COUNTER_NAMES))


def _children(
    catalog: Catalog, directory: bytes, entry: DirectoryEntry, report: CatalogReport
) -> Iterator[tuple[bytes, DirectoryEntry]]:
    children = catalog.entries(directory)
    report.entries += len(children)
    names = [child.name for child in children]
    if len(set(names)) != len(names):
        report.problems.append(_problem(directory, "has a name twice"))
    subdirectories = sum(child.is_directory for child in children)
    if entry.nlink != 2 + subdirectories and not entry.is_bind_mountpoint:
        report.problems.append(
            _problem(directory, f"link count {entry.nlink} with {subdirectories} subdirectories")
        )
    _check_groups(directory, children, report)
    if directory == catalog.mountpoint and directory and _MARKER not in names:
        report.problems.append(_problem(directory, "nested catalog without .cvmfscatalog"))
    for child in children:
        yield directory + b"/" + child.name, child


def _check_groups(directory: bytes, children: list[DirectoryEntry], report: CatalogReport) -> None:
    members = Counter(child.hardlink_group for child in children if child.hardlink_group)
    for child in children:
        expected = members[child.hardlink_group] if child.hardlink_group else 1
        if not child.is_directory and child.nlink != expected:
            report.problems.append(
                _problem(
                    directory + b"/" + child.name,
                    f"link count {child.nlink}, but its group has {expected} members",
                )
            )


def _check_entry(
    catalog: Catalog, path: bytes, entry: DirectoryEntry, report: CatalogReport
) -> Counters:
    if catalog.find(path) != entry:
        report.problems.append(_problem(path, "is not found by its path hash"))
    if entry.xattrs:
        _collect(report, path, lambda: parse_xattrs(entry.xattrs or b""))
    if entry.is_nested_mountpoint or entry.is_bind_mountpoint:
        report.mountpoints[path] = entry
        if path not in catalog.nested:
            report.problems.append(_problem(path, "mountpoint without a nested catalog"))
    chunks = 0
    if entry.is_regular:
        rows = catalog.chunks(path, entry.algorithm)
        chunks = len(rows)
        if bool(rows) != entry.is_chunked:
            report.problems.append(_problem(path, "the chunked flag contradicts the chunks"))
        pieces = _collect(report, path, lambda: pieces_of(path, entry, rows))
        report.pieces += pieces or []
        if entry.size == 0 and entry.content is None:
            report.problems.append(_problem(path, "an empty file without content hash"))
    return Counters.of_entry(entry, chunks)


def _collect(report: CatalogReport, path: bytes, step: Callable[[], T]) -> T | None:
    try:
        return step()
    except FormatError as error:
        report.problems.append(_problem(path, str(error)))
        return None


def _check_counts(catalog: Catalog, counted: Counters, report: CatalogReport) -> None:
    own = Counters(
        **{name: getattr(counted, name) for name in COUNTER_NAMES if name != "nested"},
        nested=sum(not entry.is_bind_mountpoint for entry in report.mountpoints.values()),
    )
    report.counters = own
    ((rows,),) = catalog.query("SELECT count(*) FROM catalog")
    if rows != report.entries:
        report.problems.append(
            _problem(catalog.mountpoint, f"{rows} rows, but only {report.entries} have a parent")
        )
    for path in catalog.nested.keys() - report.mountpoints.keys():
        report.problems.append(_problem(path, "nested catalog without a mountpoint"))
    stored: Statistics = catalog.statistics
    for name in COUNTER_NAMES:
        if getattr(stored.self_, name) != getattr(own, name):
            report.problems.append(
                _problem(
                    catalog.mountpoint,
                    f"counter self_{name} is {getattr(stored.self_, name)}, "
                    f"counted {getattr(own, name)}",
                )
            )


def _problem(path: bytes, what: str) -> Problem:
    return Problem((path or b"/").decode("utf-8", "backslashreplace"), what)
