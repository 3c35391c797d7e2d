"""Differences between revisions as `outcrop diff` prints them: for people, programs, as JSON."""

from collections.abc import Iterator
from typing import Any

from outcrop.cli.entries import type_of
from outcrop.cli.output import shown
from outcrop.formats.catalog import Counters, DirectoryEntry
from outcrop.repository.diff import Aspect, Difference

MACHINE_HEADER = (
    "# line descriptor: A - add, R - remove, M - modify, S - statistics; modify flags: S - size, "
    "M - mode, T - timestamp, C - content, L - symlink target; entry types: F - regular file, "
    "S - symbolic link, D - directory, N - nested catalog"
)

_ASPECTS = {
    Aspect.LINK_COUNT: ("I", "link-count"),
    Aspect.SIZE: ("S", "size"),
    Aspect.MODE: ("M", "mode"),
    Aspect.MTIME: ("T", "timestamp"),
    Aspect.SYMLINK: ("L", "symlink-target"),
    Aspect.CONTENT: ("C", "content"),
    Aspect.HARDLINK_GROUP: ("G", "hardlink-group"),
    Aspect.NESTED_CATALOG: ("N", "nested-catalog"),
    Aspect.CHUNKED: ("P", "chunked-file"),
    Aspect.XATTRS: ("X", "xattrs"),
    Aspect.EXTERNAL: ("E", "external-file"),
    Aspect.BIND_MOUNTPOINT: ("B", "bind-mountpoint"),
    Aspect.HIDDEN: ("H", "hidden"),
    Aspect.DIRECT_IO: ("D", "direct-io"),
    Aspect.OWNER: ("O", "owner"),
}
"""The letter and the word of each, as `cvmfs_server diff` has them; ours alone is the owner."""


def machine_line(difference: Difference) -> str:
    """One line of `cvmfs_server diff -m`."""
    path = shown(difference.path or b"/")
    old, new = difference.old, difference.new
    if old is not None and new is not None:
        letters = "".join(letter for letter, _ in _named(difference.aspects))
        before, after = _letter(old), _letter(new)
        return f"M[{letters}] {before if before == after else before + after} {path}"
    operation, entry, sign = ("A", new, "+") if old is None else ("R", old, "-")
    if entry is None:
        raise ValueError("a difference without an entry")
    return f"{operation} {_letter(entry)} {path} {sign}{entry.size}"


def text_line(difference: Difference) -> str:
    """One line of `cvmfs_server diff`."""
    path = shown(difference.path or b"/")
    old, new = difference.old, difference.new
    if old is not None and new is not None:
        words = ", ".join(word for _, word in _named(difference.aspects))
        before, after = _word(old), _word(new)
        return f"{path} modify {before if before == after else f'{before}->{after}'} [{words}]"
    operation, entry, sign = ("add", new, "+") if old is None else ("remove", old, "-")
    if entry is None:
        raise ValueError("a difference without an entry")
    return f"{path} {operation} {_word(entry)} {sign}{entry.size} bytes"


def difference_fields(difference: Difference) -> dict[str, Any]:
    """What `--json` says about a difference."""
    entry = difference.new or difference.old
    fields: dict[str, Any] = {
        "path": difference.path.decode("utf-8", "surrogateescape") or "/",
        "change": difference.change.value,
        "type": type_of(entry) if entry is not None else None,
    }
    if difference.old is not None:
        fields["old_size"] = difference.old.size
    if difference.new is not None:
        fields["new_size"] = difference.new.size
    if difference.old is not None and difference.new is not None:
        fields["old_type"] = type_of(difference.old)
        fields["modified"] = [word for _, word in _named(difference.aspects)]
    return fields


def statistics_of(old: Counters, new: Counters) -> dict[str, int]:
    """How many more there are of each kind; directories without those counted twice."""
    delta = new - old
    return {
        "files": delta.regular,
        "symlinks": delta.symlink,
        "directories": delta.dir - delta.nested,
        "catalogs": delta.nested,
    }


def statistics_lines(delta: dict[str, int], *, is_machine: bool) -> Iterator[str]:
    """The statistics as `cvmfs_server diff` prints them, before all differences."""
    labels = {"files": "# regular files", "symlinks": "# symlinks", "directories": "# directories"}
    letters = {"files": "F", "symlinks": "S", "directories": "D", "catalogs": "N"}
    for kind, count in delta.items():
        if is_machine:
            yield f"S {letters[kind]} {count}"
        else:
            yield f"d({labels.get(kind, '# catalogs')}): {count}"


def _named(aspects: Aspect) -> Iterator[tuple[str, str]]:
    return (names for aspect, names in _ASPECTS.items() if aspect & aspects)


def _letter(entry: DirectoryEntry) -> str:
    return "F" if entry.is_regular else "S" if entry.is_symlink else _directory(entry, "D", "U")


def _word(entry: DirectoryEntry) -> str:
    if entry.is_regular:
        return "file"
    return "symlink" if entry.is_symlink else _directory(entry, "directory", "unknown")


def _directory(entry: DirectoryEntry, directory: str, other: str) -> str:
    return directory if entry.is_directory else other
