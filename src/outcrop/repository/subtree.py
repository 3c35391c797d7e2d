"""Copying subtrees from place to place in a revision's catalogs: no content is read.

The key of a row is made of its whole path, so every row below a directory that is copied or moved
has to be written anew. New keys are worked out here, from names alone; SQLite does the rest, for
several catalogs at a time.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from typing import Any

from outcrop.errors import FormatError
from outcrop.formats.catalog import DirectoryEntry, EntryFlags, NestedCatalog, path_hash
from outcrop.repository import catalog_sql as sql
from outcrop.repository.catalog_files import count_rows
from outcrop.repository.working_catalog import WorkingCatalog

MAX_PATH_BYTES = 16 << 10
"""Longer than any path the kernel takes: a catalog that has such ones is there to do harm."""

_COPIERS = 2
_KEY = Struct("<qq")
_DIRECTORY = int(EntryFlags.DIRECTORY)

OpenSource = Callable[[bytes, NestedCatalog | None], AbstractContextManager[WorkingCatalog]]
"""Gives the catalog at a mountpoint for the time it is copied; called from several threads."""


@dataclass(frozen=True, slots=True)
class NestedCopy:
    """A nested catalog to be copied: where it is, its object if it has one, and where to."""

    mountpoint: bytes
    nested: NestedCatalog | None
    place: bytes


def copy_below(
    source: WorkingCatalog,
    directory: bytes,
    target: WorkingCatalog,
    place: bytes,
    *,
    keeps_links: bool,
) -> None:
    """Copy the rows below a directory of one catalog to below a directory of another, or the same.

    Hard link groups stay together under new numbers, or become files of their own. Rows of nested
    catalogs are not among them, those of their mountpoints are. Raises FormatError.
    """
    shift = target.groups_to_shift() if keeps_links else 0
    database = source.database
    query = sql.SELECT_PLACES
    if directory != source.mountpoint:
        source.select_below(directory)
        query = sql.SELECT_MOVED_PLACES
    database.execute(sql.CREATE_RELOCATED)
    rows = _relocated(database.execute(query), directory, place)
    database.executemany(sql.INSERT_RELOCATED, rows)
    counters = count_rows(database, within="relocated")
    values = {"shift": shift} if keeps_links else {}

    def copy(schema: str) -> int:
        entries, chunks = sql.relocate_statements(schema, keeps_links=keeps_links)
        database.execute(entries, values)
        return database.execute(chunks).rowcount

    if source is target:
        copied_chunks = copy("main")
    else:
        with source.attached(target):
            copied_chunks = copy("target")
    database.execute(sql.DELETE_RELOCATED)
    target.add_counters(replace(counters, chunks=copied_chunks))


def _relocated(
    rows: Iterable[tuple[Any, ...]], directory: bytes, place: bytes
) -> Iterator[tuple[int, ...]]:
    """Row ids with their new keys. What does not hang below the directory is left out."""
    by_parent: dict[tuple[int, int], list[tuple[int, tuple[int, int], bytes, int]]] = {}
    for row_id, a, b, parent_a, parent_b, name, flags in rows:
        children = by_parent.setdefault((parent_a, parent_b), [])
        children.append((row_id, (a, b), name, flags))
    md5, unpack = hashlib.md5, _KEY.unpack
    waiting = [(path_hash(directory), place)]
    while waiting:
        old, path = waiting.pop()
        if len(path) > MAX_PATH_BYTES:
            raise FormatError(f"a path of more than {MAX_PATH_BYTES} bytes: {path[:60]!r}…")
        parent = path_hash(path)
        prefix = path + b"/"
        for row_id, key, name, flags in by_parent.pop(old, ()):
            new = prefix + name
            yield (row_id, *unpack(md5(new, usedforsecurity=False).digest()), *parent)
            if flags & _DIRECTORY:
                waiting.append((key, new))


def root_entry(entry: DirectoryEntry, place: bytes) -> DirectoryEntry:
    """A directory's entry for another place, as that of no transition."""
    name = place.rpartition(b"/")[2]
    return replace(entry, name=name, is_nested_mountpoint=False, is_nested_root=False)


def nested_copies(catalog: WorkingCatalog, directory: bytes, place: bytes) -> list[NestedCopy]:
    """What of a catalog's children goes along when a directory is copied, itself included.

    Raises FormatError for a child in an impossible place.
    """
    copies = []
    for mountpoint, nested in catalog.nested.items():
        if not mountpoint.startswith(catalog.mountpoint + b"/"):
            raise FormatError(f"nested catalog at {mountpoint!r} is outside of its parent")
        if mountpoint == directory or mountpoint.startswith(directory + b"/"):
            copies.append(NestedCopy(mountpoint, nested, place + mountpoint[len(directory) :]))
    return copies


def copy_nested(
    copies: Iterable[NestedCopy],
    open_source: OpenSource,
    new_file: Callable[[], Path],
    *,
    keeps_links: bool,
) -> Iterator[WorkingCatalog]:
    """Copy nested catalogs and all below them; yields the new ones, closed.

    Each knows the mountpoints of its children, which are yielded, too, at some time. None of them
    has a revision yet. Raises StorageError, FormatError.
    """

    def run(copy: NestedCopy, file: Path) -> tuple[WorkingCatalog, list[NestedCopy]]:
        with open_source(copy.mountpoint, copy.nested) as source:
            new = _copy_catalog(source, file, copy.place, keeps_links=keeps_links)
            below = nested_copies(source, source.mountpoint, copy.place)
        new.nested = dict.fromkeys(inner.place for inner in below)
        return new, below

    with ThreadPoolExecutor(_COPIERS) as executor:
        running = {executor.submit(run, copy, new_file()) for copy in copies}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    new, below = future.result()
                    running |= {executor.submit(run, copy, new_file()) for copy in below}
                    yield new
        finally:
            for future in running:
                future.cancel()


def _copy_catalog(
    source: WorkingCatalog, file: Path, place: bytes, *, keeps_links: bool
) -> WorkingCatalog:
    root = source.find(source.mountpoint)
    if root is None:
        raise FormatError(f"the catalog at {source.mountpoint!r} has no entry of its own")
    new = WorkingCatalog.create(file, place, now=0)
    new.put_at(place, replace(root_entry(root, place), is_nested_root=True))
    copy_below(source, source.mountpoint, new, place, keeps_links=keeps_links)
    new.close()
    return new
