"""From a source directory to edits: what of a subtree is not as it should be.

The source is walked once, parents before children. A directory proven unchanged by its stamp costs
a listing and no more; of any other the entries are compared with the catalog's rows, and only
what differs is written. Contents are stored by the pipeline meanwhile, so a directory's rows of
regular files follow when they are known.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from outcrop.formats.catalog import Chunk, DirectoryEntry
from outcrop.formats.dirtab import Dirtab
from outcrop.formats.hashes import Compression, Suffix
from outcrop.publisher.errors import LimitExceeded, PathRefused
from outcrop.publisher.pipeline import FileContent, FileJob, Pipeline
from outcrop.publisher.previous_state import KnownFile, PreviousState, Stamps, content_key
from outcrop.publisher.scan import (
    DIRECTORY_BYTES,
    SourceEntry,
    SourceReader,
    hardlink_groups,
    scan_directory,
)
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.working_catalog import Edit

CATALOG_MARKER = b".cvmfscatalog"
VIRTUAL_DIRECTORY = b"/.cvmfs"
_GRAFT_PREFIX = b".cvmfsgraft-"
_EDITS_AT_ONCE = 4096
_MARKER_MODE = stat.S_IFREG | 0o644

ScanProgress = Callable[[int], None]
"""Told how many entries were dealt with so far."""


@dataclass(slots=True)
class ChangeCounts:
    """How many entries are new, and how many there before are different now, by kind.

    Kinds are `files`, `directories`, `symlinks` and `specials`.
    """

    added: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0
    bytes_stored: int = 0

    def note(self, entry: DirectoryEntry, before: DirectoryEntry | None) -> None:
        """Count an entry that was written; one of another kind than before is a new one."""
        kind = kind_of(entry)
        is_new = before is None or kind_of(before) != kind
        (self.added if is_new else self.changed)[kind] += 1


def kind_of(entry: DirectoryEntry) -> str:
    """The word for an entry in counts."""
    if entry.is_regular:
        return "files"
    if entry.is_directory:
        return "directories"
    return "symlinks" if entry.is_symlink else "specials"


@dataclass(slots=True)
class _OpenDirectory:
    """A directory whose files are under way. `before` are the catalog's rows of it, by name."""

    source: bytes
    path: bytes
    own: os.stat_result
    before: dict[bytes, DirectoryEntry]
    entries: dict[bytes, SourceEntry]
    known: dict[bytes, KnownFile]
    missing: int = 1  # the visit itself, until it has been through all entries
    edits: list[Edit] = field(default_factory=list)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    groups: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRules:
    """What the repository asks of its content.

    Files larger than `max_file_bytes` are warned of, or refused if `is_strict`. `now` (unix time)
    is the age of what is in the repository only.
    """

    dirtab: Dirtab
    compression: Compression
    max_file_bytes: int
    is_strict: bool
    now: int


class DirectorySync:
    """Makes one subtree of an editor's revision equal to a directory on disk."""

    def __init__(
        self,
        editor: CatalogEditor,
        pipeline: Pipeline,
        reader: SourceReader,
        previous: PreviousState,
        *,
        stamps: Stamps,
        rules: SyncRules,
        progress: ScanProgress,
    ) -> None:
        self._editor = editor
        self._pipeline = pipeline
        self._reader = reader
        self._previous = previous
        self._stamps = stamps
        self._rules = rules
        self._progress = progress
        self._seen = 0
        self.counts = ChangeCounts()

    def run(self, source: bytes, target: bytes) -> None:
        """Walk the source. Raises PublishError, StorageError; the editor is unusable then."""
        self._make_parents(target)
        waiting = [(source, target)]
        while waiting:
            directory, path = waiting.pop()
            own, entries = scan_directory(directory)
            self._check_names(directory, path, entries)
            if not (
                self._previous.is_current
                and self._previous.proves(path, self._stamps.stamp(own, entries))
            ):
                self._visit(directory, path, own, entries)
            waiting += [
                (directory + b"/" + entry.name, path + b"/" + entry.name)
                for entry in reversed(entries)
                if stat.S_ISDIR(entry.stat.st_mode)
            ]
            self._seen += len(entries)
            self._progress(self._seen)
        self._pipeline.finish()

    def _make_parents(self, target: bytes) -> None:
        end = target.find(b"/", 1)
        while end > 0:
            path = target[:end]
            entry = self._editor.find(path)
            if entry is not None and not entry.is_directory:
                raise PathRefused(f"{_shown(path)} is no directory, so nothing can be below it")
            if entry is None:
                above = self._editor.get(path.rpartition(b"/")[0])
                new = replace(
                    above, name=b"", mode=stat.S_IFDIR | 0o755, size=DIRECTORY_BYTES,
                    mtime=self._rules.now, mtime_ns=None, xattrs=None,
                )  # fmt: skip
                self._editor.put_directory(path, new)
                self.counts.note(new, None)
            end = target.find(b"/", end + 1)

    def _check_names(self, source: bytes, path: bytes, entries: Sequence[SourceEntry]) -> None:
        for name, seen in entries:
            if not name.startswith(b".cvmfs"):
                continue
            shown = _shown(source + b"/" + name)
            if path + b"/" + name == VIRTUAL_DIRECTORY:
                raise PathRefused(f"{shown}: /.cvmfs in a repository is reserved")
            if name.startswith(_GRAFT_PREFIX):
                raise PathRefused(f"{shown}: graft files are not supported yet")
            if name == CATALOG_MARKER and not stat.S_ISREG(seen.st_mode):
                raise PathRefused(f"{shown} must be a regular file")
            if name == CATALOG_MARKER and not path:
                raise PathRefused(
                    f"{shown}: the root of a repository always has a catalog",
                    hint="remove that file",
                )

    def _visit(
        self, source: bytes, path: bytes, own: os.stat_result, entries: list[SourceEntry]
    ) -> None:
        """Bring one directory up to date, but for what the pipeline has yet to tell."""
        before = self._put_directory(source, path, own)
        by_name = {entry.name: entry for entry in entries}
        is_wanted = bool(path) and self._rules.dirtab.matches(path)
        self._set_nested(path, CATALOG_MARKER in by_name or is_wanted)
        directory = _OpenDirectory(
            source, path, own, before, by_name, self._previous.files(path) if before else {}
        )
        if is_wanted and CATALOG_MARKER not in by_name:
            self._keep_marker(directory)
        self._remove_vanished(directory)
        groups = hardlink_groups(e for e in entries if not stat.S_ISDIR(e.stat.st_mode))
        directory.missing += len(groups)
        for group in groups:
            self._start(directory, group)
        self._finish_one(directory)

    def _put_directory(
        self, source: bytes, path: bytes, own: os.stat_result
    ) -> dict[bytes, DirectoryEntry]:
        """Write the directory's own row if need be; return the rows of what it holds now."""
        entry = self._reader.read_entry(source, path.rpartition(b"/")[2], own)
        old = self._editor.find(path)
        if old is None or not old.is_directory:
            self._editor.put_directory(path, entry)
            self.counts.note(entry, old)
            return {}
        if _metadata(old) != _metadata(entry):
            self._editor.put_directory(path, entry)
            self.counts.note(entry, old)
        return {entry.name: entry for entry in self._editor.entries(path)}

    def _set_nested(self, path: bytes, wanted: bool) -> None:
        if wanted and not self._editor.is_nested(path):
            self._editor.nest(path)
        elif not wanted and self._editor.is_nested(path):
            self._editor.unnest(path)

    def _keep_marker(self, directory: _OpenDirectory) -> None:
        """See to a catalog marker that is in the repository only, as the dirtab wants it."""
        marker = directory.before.pop(CATALOG_MARKER, None)
        if marker is not None and marker.is_regular:
            return
        content = self._pipeline.writer.put(b"", Suffix.FILE, self._rules.compression).hash
        entry = DirectoryEntry(
            name=CATALOG_MARKER,
            mode=_MARKER_MODE,
            mtime=self._rules.now,
            uid=directory.own.st_uid,
            gid=directory.own.st_gid,
            content=content,
            algorithm=content.algorithm,
            compression=self._rules.compression,
        )
        directory.edits.append((entry, ()))
        self.counts.note(entry, marker)

    def _remove_vanished(self, directory: _OpenDirectory) -> None:
        for name, old in directory.before.items():
            path = directory.path + b"/" + name
            entry = directory.entries.get(name)
            if entry is None and path != VIRTUAL_DIRECTORY:
                self._editor.remove(path)
            if old.is_directory and (entry is None or not stat.S_ISDIR(entry.stat.st_mode)):
                self._previous.remove(path)

    # --- what is no directory ---

    def _start(self, directory: _OpenDirectory, group: list[SourceEntry]) -> None:
        """Have a file (all its names in the directory) looked at, and read if need be."""
        name, seen = group[0]
        if not stat.S_ISREG(seen.st_mode):
            self._finish(directory, group, None)
            return
        self._check_size(directory, group[0])
        unread = self._content_before(directory, group[0])
        if unread is not None:
            self._finish(directory, group, unread)
            return
        path = directory.source + b"/" + name
        self._pipeline.submit(FileJob(path, seen, partial(self._finish_read, directory, group)))

    def _check_size(self, directory: _OpenDirectory, entry: SourceEntry) -> None:
        if entry.stat.st_size > self._rules.max_file_bytes:
            message = (
                f"{_shown(directory.source + b'/' + entry.name)} has {entry.stat.st_size} bytes, "
                f"the limit is {self._rules.max_file_bytes}"
            )
            if self._rules.is_strict:
                raise LimitExceeded(message, hint="CVMFS_FILE_MBYTE_LIMIT sets it")
            self._reader.warnings.append(message)

    def _content_before(self, directory: _OpenDirectory, entry: SourceEntry) -> FileContent | None:
        """The content the catalog has, if this file is certain to have it still."""
        known = directory.known.get(entry.name)
        before = directory.before.get(entry.name)
        if known is None or before is None or not before.is_regular or before.is_external:
            return None
        if known.record != self._stamps.record(entry):
            return None
        chunks = tuple(self._editor.chunks(directory.path + b"/" + entry.name, before))
        if known.key != content_key(before.content, chunks):
            return None
        return FileContent(entry.stat, before.compression, before.content, chunks)

    def _finish_read(
        self, directory: _OpenDirectory, group: list[SourceEntry], content: FileContent
    ) -> None:
        self.counts.bytes_read += content.seen.st_size
        self.counts.bytes_stored += content.new_bytes
        self._finish(directory, group, content)

    def _finish(
        self, directory: _OpenDirectory, group: list[SourceEntry], content: FileContent | None
    ) -> None:
        """Write the rows of one file, now that its content is known, if they differ."""
        number = self._group_number(directory, group)
        edits: list[Edit] = []
        is_different = False
        for name, seen in group:
            path = directory.source + b"/" + name
            if content is None:
                entry = self._reader.read_entry(path, name, seen)
                entry = replace(entry, nlink=len(group), hardlink_group=number)
            else:
                entry = self._reader.read_file_entry(
                    path, name, content, nlink=len(group), group=number
                )
                directory.entries[name] = SourceEntry(name, content.seen)
                directory.keys[name] = content_key(content.content, content.chunks)
            chunks = content.chunks if content is not None else ()
            edits.append((entry, chunks))
            is_different = is_different or not self._is_there(directory, entry, chunks)
        if is_different:
            directory.edits += edits
            for entry, _ in edits:
                self.counts.note(entry, directory.before.get(entry.name))
        self._finish_one(directory)

    def _group_number(self, directory: _OpenDirectory, group: list[SourceEntry]) -> int:
        """The number of a hard link group: the catalog's if it has the very same group."""
        if len(group) == 1:
            return 0
        before = directory.before.get(group[0].name)
        if before is not None and before.hardlink_group:
            names = {n for n, e in directory.before.items()
                     if e.hardlink_group == before.hardlink_group}  # fmt: skip
            if names == {name for name, _ in group}:
                return before.hardlink_group
        directory.groups -= 1  # below zero: no number of the catalog's
        return directory.groups

    def _is_there(
        self, directory: _OpenDirectory, entry: DirectoryEntry, chunks: Sequence[Chunk]
    ) -> bool:
        before = directory.before.get(entry.name)
        if before != entry:
            return False
        if not entry.is_chunked:
            return True
        path = directory.path + b"/" + entry.name
        return self._editor.chunks(path, entry) == list(chunks)

    def _finish_one(self, directory: _OpenDirectory) -> None:
        """Note that one file, or the visit, is through; write what has gathered."""
        directory.missing -= 1
        if directory.edits and (not directory.missing or len(directory.edits) >= _EDITS_AT_ONCE):
            self._editor.put(directory.path, directory.edits)
            directory.edits = []
        if not directory.missing:
            stamp = self._stamps.stamp(directory.own, directory.entries.values())
            keys = [directory.keys[name] for name in directory.entries if name in directory.keys]
            self._previous.put(directory.path, stamp, keys)


def _metadata(entry: DirectoryEntry) -> tuple[object, ...]:
    """What of a directory's row is the directory's own; its size means nothing."""
    return (entry.mode, entry.mtime, entry.mtime_ns, entry.uid, entry.gid, entry.xattrs)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "/"
