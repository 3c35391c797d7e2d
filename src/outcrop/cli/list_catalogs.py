"""`outcrop list-catalogs`: show the catalogs of a repository."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from outcrop.cli.command import Session
from outcrop.cli.exit_codes import READING
from outcrop.cli.targets import TargetChoice, TargetCommand, open_target
from outcrop.repository.catalogs import CatalogTree


@click.command(
    cls=TargetCommand,
    exits=READING,
    examples="""
outcrop list-catalogs software.example.org
outcrop list-catalogs -h -s -e -x software.example.org
""",
)
@click.option("-s", "--sizes", is_flag=True, help="With the size of each, uncompressed.")
@click.option("-e", "--entries", is_flag=True, help="With the number of entries in each.")
@click.option("-h", "--hashes", is_flag=True, help="With the hash of each.")
@click.option("-x", "--flat", is_flag=True, help="As a flat list instead of a tree.")
@click.pass_obj
def command(
    session: Session,
    choice: TargetChoice,
    sizes: bool,
    entries: bool,
    hashes: bool,
    flat: bool,
) -> None:
    """Show all catalogs of a repository: the root one and those nested in it.

    TARGET is a URL, a repository's name, or the directory it is stored in.
    """
    with open_target(session, choice) as opened:
        listed = _walk(opened.revision.catalogs)
        if session.output.is_json:
            session.output.json_items(_fields(catalog) for catalog in listed)
            return
        for catalog in listed:
            columns = [
                *([catalog.hash] if hashes else []),
                *([f"{catalog.size}B"] if sizes else []),
                *([str(catalog.entries)] if entries else []),
                catalog.path.decode("utf-8", "surrogateescape") or "/",
            ]
            indent = "│  " * (catalog.depth - 1) + "├─ " if catalog.depth and not flat else ""
            session.output.line(indent + " ".join(columns))


@dataclass(frozen=True, slots=True)
class _Listed:
    path: bytes
    depth: int
    hash: str
    size: int
    entries: int


def _walk(tree: CatalogTree) -> Iterator[_Listed]:
    waiting = [(b"", 0, tree.root.file_size)]
    while waiting:
        path, depth, size = waiting.pop()
        catalog = tree.listing(path)
        entries = catalog.statistics.self_.entries
        yield _Listed(path, depth, str(catalog.hash), size or catalog.file_size, entries)
        for mountpoint in sorted(catalog.nested, reverse=True):
            entry = catalog.find(mountpoint)
            if entry is None or not entry.is_bind_mountpoint:
                waiting.append((mountpoint, depth + 1, catalog.nested[mountpoint].size))


def _fields(catalog: _Listed) -> dict[str, Any]:
    return {
        "path": catalog.path.decode("utf-8", "surrogateescape") or "/",
        "hash": catalog.hash,
        "size": catalog.size,
        "entries": catalog.entries,
    }
