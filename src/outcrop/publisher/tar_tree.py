"""The tree that the members of an archive make, on top of the one that the repository has.

Members come in any order, and more than once: a later one replaces an earlier one, of whatever
kind. Rows are gathered by directory and written many at a time; contents may become known later
than the member was seen, so each is checked to be still wanted. Hard links wait until what they
lead to is in the catalog.

Nothing is ever put below what is no directory: a symlink in the repository or in the archive leads
nowhere, it is an entry like any other.
"""

import stat
from collections.abc import Sequence
from dataclasses import replace

from outcrop.formats.catalog import Chunk, DirectoryEntry
from outcrop.publisher.counts import ChangeCounts
from outcrop.publisher.errors import MemberRefused
from outcrop.publisher.markers import CATALOG_MARKER, MarkerWriter
from outcrop.publisher.rules import SyncRules, shown_path
from outcrop.publisher.scan import DIRECTORY_BYTES
from outcrop.publisher.session import PublishSession
from outcrop.repository.working_catalog import Edit

_ROWS_AT_ONCE = 4096
_MAX_WAITING_LINKS = 50_000
_MAX_KNOWN_DIRECTORIES = 100_000


class MemberTree:
    """Edits a session's revision member by member.

    All paths are in the repository. Directories that no member made, but that others are in, get
    `uid` and `gid`, or (`None`) those of the directory above.
    """

    def __init__(
        self,
        session: PublishSession,
        rules: SyncRules,
        counts: ChangeCounts,
        *,
        uid: int | None,
        gid: int | None,
    ) -> None:
        self._session = session
        self._editor = session.editor
        self._rules = rules
        self._counts = counts
        self._uid = uid
        self._gid = gid
        self._known: set[bytes] = set()  # directories that are in the editor
        self._rows: dict[bytes, dict[bytes, Edit]] = {}
        self._row_count = 0
        self._under_way: dict[bytes, int] = {}
        self._serial = 0
        self._links: dict[bytes, bytes] = {}
        self._linked: set[bytes] = set()  # what links lead to, and the directories above

    # --- members ---

    def put(self, path: bytes, entry: DirectoryEntry) -> None:
        """A symlink or special file."""
        self._claim(path)
        self._add(path, entry, ())

    def begin_file(self, path: bytes) -> int:
        """A regular file, whose content is not known yet. Returns a number for `end_file`."""
        self._claim(path)
        self._mark(path)
        self._serial += 1
        self._under_way[path] = self._serial
        return self._serial

    def end_file(
        self, path: bytes, number: int, entry: DirectoryEntry, chunks: Sequence[Chunk]
    ) -> None:
        """The content is known; nothing happens if another member took the name meanwhile."""
        if self._under_way.get(path) == number:
            del self._under_way[path]
            self._add(path, entry, chunks)

    def link(self, path: bytes, target: bytes) -> None:
        """Another name of a file, which must be there by now."""
        target = self._links.get(target, target)
        if path == target:
            return
        self._claim(path)
        self._links[path] = target
        while target and target not in self._linked:
            self._linked.add(target)
            target = target.rpartition(b"/")[0]
        if len(self._links) >= _MAX_WAITING_LINKS:
            self.settle()

    def put_directory(self, path: bytes, entry: DirectoryEntry) -> None:
        """A directory, or new metadata for one."""
        if path and path not in self._known:
            if self._is_pending(path) or path in self._linked:
                self.settle()
            self.open_directory(path.rpartition(b"/")[0], path)
        old = self._editor.find(path)
        if old is None or not old.is_directory or _metadata(old) != _metadata(entry):
            self._editor.put_directory(path, entry)
            self._counts.note(path, entry, old)
        self._know(path)

    def remove(self, path: bytes) -> bool:
        """Remove a path with everything below; whether it was there."""
        self.settle()
        self._known.clear()
        if self._editor.find(path) is None:
            return False
        self._editor.remove(path)
        self._counts.note_removed(path)
        directory, _, name = path.rpartition(b"/")
        if name == CATALOG_MARKER and self._editor.is_nested(directory):
            self._editor.unnest(directory)
        return True

    def nest(self, path: bytes, markers: MarkerWriter) -> None:
        """Give a directory a catalog of its own, and the marker that says so."""
        self.open_directory(path, path)
        self.settle()
        markers.nest(path, CATALOG_MARKER, permissions=0o644)

    # --- directories ---

    def open_directory(self, directory: bytes, path: bytes) -> None:
        """Make a directory, and those above it, if need be, for `path` to be put into it."""
        missing = []
        above = directory
        while above not in self._known:
            missing.append(above)
            if not above:
                break
            above = above.rpartition(b"/")[0]
        for above in reversed(missing):
            entry = None if self._is_pending(above) else self._editor.find(above)
            if self._is_pending(above) or (entry is not None and not entry.is_directory):
                raise MemberRefused(
                    f"{shown_path(path)} cannot be put below {shown_path(above)}, which is no "
                    "directory",
                    hint="symlinks are not followed: have the archive made with real paths",
                )
            if entry is None:
                self._make(above)
            self._know(above)

    def _make(self, path: bytes) -> None:
        """Make a directory that no member has told of (yet)."""
        above = self._editor.get(path.rpartition(b"/")[0])
        entry = DirectoryEntry(
            name=path.rpartition(b"/")[2],
            mode=stat.S_IFDIR | 0o755,
            size=DIRECTORY_BYTES,
            mtime=self._rules.now,
            uid=above.uid if self._uid is None else self._uid,
            gid=above.gid if self._gid is None else self._gid,
        )
        self._editor.put_directory(path, entry)
        self._counts.note(path, entry, None)

    def _know(self, path: bytes) -> None:
        """Note that a directory is there."""
        if len(self._known) >= _MAX_KNOWN_DIRECTORIES:
            self.settle()  # what is under way may rely on what is about to be forgotten
            self._known.clear()
        self._known.add(path)

    # --- names ---

    def _claim(self, path: bytes) -> None:
        """Make way for something that is no directory."""
        directory = path.rpartition(b"/")[0]
        if directory not in self._known:
            self.open_directory(directory, path)
        if path in self._known:
            self.settle()
            self._known.clear()
        elif path in self._linked:
            self.settle()
        self._links.pop(path, None)
        self._under_way.pop(path, None)

    def _is_pending(self, path: bytes) -> bool:
        """Whether something that is no directory has the name, and the catalog does not know."""
        directory, _, name = path.rpartition(b"/")
        return (
            path in self._under_way or path in self._links or name in self._rows.get(directory, ())
        )

    def _mark(self, path: bytes) -> None:
        """A catalog marker makes its directory the root of a nested catalog."""
        directory, _, name = path.rpartition(b"/")
        if name == CATALOG_MARKER:
            self._editor.nest(directory)

    # --- rows ---

    def _add(self, path: bytes, entry: DirectoryEntry, chunks: Sequence[Chunk]) -> None:
        directory, _, name = path.rpartition(b"/")
        self._rows.setdefault(directory, {})[name] = (entry, chunks)
        self._row_count += 1
        if self._row_count >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows, self._row_count = self._rows, {}, 0
        for directory, by_name in rows.items():
            self._write(directory, list(by_name.values()))

    def _write(self, directory: bytes, edits: list[Edit]) -> None:
        """Write rows into a directory: those that differ from what is there."""
        is_fresh = self._editor.listing(directory).is_empty(directory)
        different = []
        for new, chunks in edits:
            entry = new
            path = directory + b"/" + entry.name
            before = None if is_fresh else self._editor.find(path)
            if before is not None and before.is_direct_io and entry.is_regular:
                entry = replace(entry, is_direct_io=True)  # nothing else says so
            if before == entry and self._editor.chunks(path, entry) == list(chunks):
                continue
            different.append((entry, chunks))
            self._counts.note(path, entry, before)
        if different:
            self._editor.put(directory, different)

    def settle(self) -> None:
        """Have everything so far in the editor, hard links too."""
        self._session.pipeline.finish()
        self._flush()
        links, self._links, self._linked = self._links, {}, set()
        by_target: dict[bytes, list[bytes]] = {}
        for path, target in links.items():
            by_target.setdefault(target, []).append(path)
        for target, paths in by_target.items():
            self._put_links(target, paths)

    # --- hard links ---

    def _put_links(self, target: bytes, paths: list[bytes]) -> None:
        """Write names of a file: those in one directory are one group, all others copies."""
        entry = self._editor.find(target)
        if entry is None or entry.is_directory:
            raise MemberRefused(
                f"{shown_path(paths[0])}: a hard link to {shown_path(target)}, which is no file "
                "of the repository, nor of the archive before it"
            )
        if not entry.is_regular and any(p.endswith(b"/" + CATALOG_MARKER) for p in paths):
            raise MemberRefused(f"{shown_path(paths[0])} must be a regular file")
        chunks = self._editor.chunks(target, entry)
        home, _, name = target.rpartition(b"/")
        groups: dict[bytes, list[bytes]] = {}
        for path in paths:
            directory, _, link = path.rpartition(b"/")
            groups.setdefault(directory, []).append(link)
        self._check_directories(home, groups, target)
        if home in groups:
            groups[home] += {name, *self._names_of(home, entry)} - set(groups[home])
        for directory, names in groups.items():
            self._put_group(directory, names, entry, chunks)

    def _check_directories(
        self, home: bytes, groups: dict[bytes, list[bytes]], target: bytes
    ) -> None:
        for directory, names in groups.items():
            if directory != home and not self._rules.with_split_links:
                raise MemberRefused(
                    f"{shown_path(directory + b'/' + names[0])} is a hard link to "
                    f"{shown_path(target)}, in another directory",
                    hint="CVMFS_IGNORE_XDIR_HARDLINKS=true makes them two files",
                )

    def _names_of(self, directory: bytes, entry: DirectoryEntry) -> list[bytes]:
        """All names of a file in its directory, as far as the catalog knows."""
        group = entry.hardlink_group
        if not group:
            return []
        return [e.name for e in self._editor.entries(directory) if e.hardlink_group == group]

    def _put_group(
        self, directory: bytes, names: list[bytes], entry: DirectoryEntry, chunks: Sequence[Chunk]
    ) -> None:
        is_group = len(names) > 1
        present = {name: self._editor.find(directory + b"/" + name) for name in names}
        befores = [old for old in present.values() if old is not None]
        if entry.is_regular and any(old.is_direct_io for old in befores):
            entry = replace(entry, is_direct_io=True)  # all names of a file have the same flags
        edits: list[Edit] = []
        for name, before in present.items():
            new = replace(entry, name=name, nlink=len(names), hardlink_group=-1 if is_group else 0)
            path = directory + b"/" + name
            edits.append((new, chunks))
            if before is None or replace(before, nlink=1, hardlink_group=0) != replace(
                new, nlink=1, hardlink_group=0
            ):
                self._counts.note(path, new, before)
            if name == CATALOG_MARKER:
                self._mark(path)
        self._editor.put(directory, edits)


def _metadata(entry: DirectoryEntry) -> tuple[object, ...]:
    """What of a directory's row is the directory's own; its size means nothing."""
    return (entry.mode, entry.mtime, entry.mtime_ns, entry.uid, entry.gid, entry.xattrs)
