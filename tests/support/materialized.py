"""A repository's content as a tree on disk, and a tree on disk as comparable values."""

import os
import stat
from pathlib import Path

from tests.support.checker import Checker, Entry


def materialize(checker: Checker, target: Path, *, as_root: bool) -> None:
    """Write the loaded tree below `target`. Only root can make owners, devices and all xattrs."""
    root = os.fsencode(target)
    linked: dict[tuple[bytes, int], bytes] = {}
    entries = sorted(checker.entries.items())
    for path, entry in entries:
        place = root + path
        key = (path.rpartition(b"/")[0], entry.group)
        if entry.group and key in linked:
            os.link(linked[key], place, follow_symlinks=False)
            continue
        linked[key] = place
        _make(checker, entry, place, is_root=not path)
        _set_metadata(entry, place, as_root=as_root)
    for path, entry in reversed(entries):
        if entry.kind == stat.S_IFDIR:
            _set_times(entry, root + path)
            os.chmod(root + path, stat.S_IMODE(entry.row["mode"]))


def _make(checker: Checker, entry: Entry, place: bytes, *, is_root: bool) -> None:
    if entry.kind == stat.S_IFDIR:
        if not is_root:
            os.mkdir(place)
    elif entry.kind == stat.S_IFLNK:
        os.symlink(entry.row["symlink"], place)
    elif entry.kind == stat.S_IFREG:
        with open(place, "wb") as file:
            file.write(checker.read(entry.path))
    else:
        os.mknod(place, entry.row["mode"], entry.row["size"])


def _set_metadata(entry: Entry, place: bytes, *, as_root: bool) -> None:
    if as_root:
        os.chown(place, entry.row["uid"], entry.row["gid"], follow_symlinks=False)
    if entry.kind not in (stat.S_IFLNK, stat.S_IFDIR):
        os.chmod(place, stat.S_IMODE(entry.row["mode"]))
    for name, value in parse_xattrs(entry.row["xattr"]).items():
        if as_root or name.startswith(b"user."):
            os.setxattr(place, name, value, follow_symlinks=False)
    _set_times(entry, place)


def _set_times(entry: Entry, place: bytes) -> None:
    ns = entry.row["mtime"] * 1_000_000_000 + (entry.row["mtimens"] or 0)
    os.utime(place, ns=(ns, ns), follow_symlinks=False)


def parse_xattrs(blob: bytes | None) -> dict[bytes, bytes]:
    """The attributes of a row."""
    found = {}
    position = 2
    for _ in range(blob[1] if blob else 0):
        key_end = position + 2 + blob[position]
        value_end = key_end + blob[position + 1]
        found[blob[position + 2 : key_end]] = blob[key_end:value_end]
        position = value_end
    return found


def tree_on_disk(root: Path) -> dict[bytes, tuple]:
    """What a catalog should say of everything below a directory, links and content included."""
    base = os.fsencode(root)
    found = {}
    for directory, _, _ in os.walk(base):
        names: dict[tuple[int, int], set[bytes]] = {}
        for name in os.listdir(directory):
            seen = os.lstat(directory + b"/" + name)
            if not stat.S_ISDIR(seen.st_mode):
                names.setdefault((seen.st_dev, seen.st_ino), set()).add(name)
        path = directory[len(base) :]
        found[path] = _value(directory, os.lstat(directory), frozenset())
        for links in names.values():
            for name in links:
                place = directory + b"/" + name
                found[path + b"/" + name] = _value(place, os.lstat(place), frozenset(links))
    return found


def _value(place: bytes, seen: os.stat_result, links: frozenset) -> tuple:
    content = b""
    if stat.S_ISLNK(seen.st_mode):
        content = os.readlink(place)
    elif stat.S_ISREG(seen.st_mode):
        with open(place, "rb") as file:
            content = file.read()
    xattrs = {
        os.fsencode(name): os.getxattr(place, name, follow_symlinks=False)
        for name in os.listxattr(place, follow_symlinks=False)
    }
    mtime = seen.st_mtime_ns // 1_000_000_000
    return (seen.st_mode, seen.st_uid, seen.st_gid, mtime, content, xattrs, links)


def tree_in_repository(checker: Checker) -> dict[bytes, tuple]:
    """The same of a loaded repository."""
    groups: dict[tuple[bytes, int], set[bytes]] = {}
    for path, entry in checker.entries.items():
        directory, _, name = path.rpartition(b"/")
        key = (directory, entry.group) if entry.group else (path, 0)
        groups.setdefault(key, set()).add(name)
    found = {}
    for path, entry in checker.entries.items():
        row = entry.row
        key = (path.rpartition(b"/")[0], entry.group) if entry.group else (path, 0)
        links = frozenset() if entry.kind == stat.S_IFDIR else frozenset(groups[key])
        content = row["symlink"]
        if entry.kind == stat.S_IFREG:
            content = checker.read(path)
        xattrs = parse_xattrs(row["xattr"])
        found[path] = (row["mode"], row["uid"], row["gid"], row["mtime"], content, xattrs, links)
    return found
