"""Tags and branches as commands show them: tables, lines for programs, fields for JSON."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from outcrop.cli.entries import iso_time
from outcrop.cli.output import printable
from outcrop.formats.history import Tag
from outcrop.repository.history import History

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("kiB", 1 << 10))


def tag_fields(tag: Tag) -> dict[str, Any]:
    """What `--json` says about a tag."""
    return {
        "name": tag.name,
        "revision": tag.revision,
        "published_at": iso_time(tag.timestamp),
        "root_hash": str(tag.hash),
        "catalog_size": tag.size,
        "branch": tag.branch,
        "description": tag.description,
    }


def tag_details(tag: Tag) -> Iterator[str]:
    """All about one tag, as `cvmfs_server tag -i` prints it."""
    yield f"Name:         {printable(tag.name)}"
    yield f"Revision:     {tag.revision}"
    yield f"Timestamp:    {tag_time(tag.timestamp)}"
    yield f"Branch:       {printable(tag.branch)}"
    yield f"Root Hash:    {tag.hash}"
    yield f"Catalog Size: {_size(tag.size)}"
    yield printable(tag.description)


def tag_table(tags: Sequence[Tag]) -> Iterator[str]:
    """All tags, oldest first, as `cvmfs_server tag -l` prints them."""
    heads = ("Name", "Revision", "Timestamp", "Branch")
    rows = [
        (printable(t.name), str(t.revision), tag_time(t.timestamp), printable(t.branch))
        for t in reversed(tags)
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    yield " │ ".join([*(h.ljust(w) for h, w in zip(heads, widths, strict=True)), "Description"])
    rules = ["─" * width for width in widths] + ["─" * len("Description ")]
    yield "─┼─".join(rules)
    for row, tag in zip(rows, reversed(tags), strict=True):
        name, revision, time, branch = (
            text.rjust(width) if column == 1 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield " │ ".join((name, revision, time, branch, printable(tag.description)))
    yield "─┴─".join(rules)
    yield f"listing contains {len(tags)} tags"


def branch_lines(history: History, *, is_machine: bool = False) -> Iterator[str]:
    """The tree of branches, as `cvmfs_server tag -b` (or `-bx`) prints it."""
    for level, branch in history.branch_tree():
        name = f"{printable(branch.name) or '(default)'} @{branch.initial_revision}"
        if is_machine:
            yield f"[{level}] {' ' * level}{name}"
        else:
            yield "│ " * (level - 1) + ("├ " if level else "") + name


def tag_time(at: int) -> str:
    """`22 Nov 2026 07:43:54`, UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%d %b %Y %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"@{at}"


def _size(size: int) -> str:
    for unit, bytes_in in _UNITS:
        if size > bytes_in:
            return f"{size / bytes_in:.3f} {unit}"
    return f"{size} Byte"
