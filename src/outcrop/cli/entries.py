"""Directory entries as commands show them: one line of text, or fields for JSON."""

import os
import stat
from datetime import UTC, datetime
from typing import Any

from outcrop.cli.output import shown
from outcrop.formats.catalog import DirectoryEntry

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def type_of(entry: DirectoryEntry) -> str:
    """The kind of an entry as a word: `file`, `directory`, `symlink`."""
    return _TYPES[stat.S_IFMT(entry.mode)]


def iso_time(at: int, nanoseconds: int | None = None) -> str:
    """`2026-11-22T07:43:54Z`; with a fraction where nanoseconds are known and not zero."""
    try:
        text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"@{at}"
    return f"{text}.{nanoseconds:09d}Z" if nanoseconds else f"{text}Z"


def human_size(size: int) -> str:
    """`4.2 MB`: three digits at most, decimal units."""
    value = float(size)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1000
    digits = 0 if unit == "B" or value >= 99.5 else 1
    return f"{value:.{digits}f} {unit}"


def entry_fields(path: bytes, entry: DirectoryEntry) -> dict[str, Any]:
    """What `--json` says about an entry. Bytes that are not UTF-8 are surrogate escapes."""
    fields: dict[str, Any] = {
        "path": os.fsdecode(path or b"/"),
        "name": os.fsdecode(entry.name),
        "type": type_of(entry),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "nlink": entry.nlink,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": iso_time(entry.mtime, entry.mtime_ns),
    }
    if entry.is_symlink:
        fields["target"] = os.fsdecode(entry.symlink)
    if entry.content is not None:
        fields["hash"] = str(entry.content)
    if entry.rdev:
        fields["device"] = [os.major(entry.rdev), os.minor(entry.rdev)]
    return fields


def name_and_target(entry: DirectoryEntry) -> str:
    """The name, and for a symlink where it leads."""
    if entry.is_symlink:
        return f"{shown(entry.name)} -> {shown(entry.symlink)}"
    return shown(entry.name)


def long_line(entry: DirectoryEntry, *, human: bool) -> str:
    """A line of `ls -l`: mode, links, owner, size, time in UTC, name."""
    size = human_size(entry.size) if human else str(entry.size)
    if entry.rdev:
        size = f"{os.major(entry.rdev)},{os.minor(entry.rdev)}"
    return (
        f"{stat.filemode(entry.mode)} {entry.nlink:>3} {entry.uid:>5} {entry.gid:>5} "
        f"{size:>10} {iso_time(entry.mtime)} {name_and_target(entry)}"
    )
