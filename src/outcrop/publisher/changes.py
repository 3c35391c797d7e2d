"""From changed directories to edits: what of a revision is not as it should be.

Every way to publish tells of directories, parents before children: what each one is like, or what
is new in it. Their entries are compared with the catalog's rows, and only what differs is written.
Contents are stored by the pipeline meanwhile, so a directory's rows of regular files follow when
they are known.
"""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.dirtab import Dirtab
from outcrop.formats.hashes import Suffix
from outcrop.publisher.counts import ChangeCounts, kind_of
from outcrop.publisher.errors import PathRefused
from outcrop.publisher.file_changes import FileChanges, OpenDirectory
from outcrop.publisher.options import PublishOptions, Tell, say_nothing
from outcrop.publisher.previous_state import SourceMemory
from outcrop.publisher.rules import (
    AUTO_MARKER,
    CATALOG_MARKER,
    VIRTUAL_DIRECTORY,
    SyncRules,
    read_dirtab,
    shown_path,
)
from outcrop.publisher.scan import DIRECTORY_BYTES, SourceEntry, SourceReader
from outcrop.publisher.session import PublishSession

__all__ = [
    "CATALOG_MARKER",
    "VIRTUAL_DIRECTORY",
    "ChangeApplier",
    "ChangeCounts",
    "DirectoryChange",
    "SyncRules",
    "kind_of",
]

_MARKER_MODE = stat.S_IFREG | 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryChange:
    """One directory of the new revision.

    `path` is in the repository (`b""`: the root), `source` the directory on this machine that
    content, symlinks and attributes of `entries` are read from. `own` is the directory's own
    metadata; with `None` it stays as it is, and must exist. `entries` are by name: all there are
    if `is_complete`, so that what the repository has besides goes; else those that are new or may
    have changed, and `removed` are the names that go. A subdirectory is only ever made or updated
    by a change of its own.
    """

    path: bytes
    source: bytes
    own: os.stat_result | None
    entries: list[SourceEntry] = field(default_factory=list)
    removed: Collection[bytes] = ()
    is_complete: bool = True


class ChangeApplier:
    """Brings a session's revision in line with changes of directories.

    `dirtab` are the rules in force (`None`: those the base has in its root), `reader` makes
    entries of what is on disk, `memory` knows what was read for the revision before.
    """

    def __init__(
        self,
        session: PublishSession,
        tell: Tell = say_nothing,
        *,
        options: PublishOptions,
        dirtab: Dirtab | None = None,
        reader: SourceReader | None = None,
        memory: SourceMemory | None = None,
    ) -> None:
        settings = session.settings
        self._session = session
        self._editor = session.editor
        self._tell = tell
        self._memory = memory
        dirtab = Dirtab.parse(read_dirtab(session)) if dirtab is None else dirtab
        self._rules = SyncRules.of(session, options, dirtab)
        self._reader = reader or SourceReader(
            with_xattrs=settings.include_xattrs, with_nanoseconds=settings.mtime_nanoseconds
        )
        self.counts = ChangeCounts(on_change=options.on_change)
        self._files = FileChanges(session, self._rules, self._reader, memory, self.counts)
        self._seen = 0

    def apply(self, change: DirectoryChange) -> None:
        """Bring one directory up to date, but for what the pipeline has yet to tell.

        Raises PublishError, StorageError; the session is unusable then.
        """
        path = change.path
        self._rules.check_names(change.source, path, change.entries)
        is_new = self._put_directory(change)
        directory = self._open(change, is_new)
        by_name = directory.entries
        has_marker = CATALOG_MARKER in by_name or (
            not change.is_complete
            and CATALOG_MARKER in directory.before
            and CATALOG_MARKER not in change.removed
        )
        has_marker = has_marker or self._keep_automatic(change, directory)
        is_wanted = bool(path) and self._rules.dirtab.matches(path)
        self._set_nested(path, has_marker or is_wanted)
        if is_wanted and not has_marker:
            self._keep_marker(directory)
        self._remove_vanished(change, directory)
        self._files.start(directory)
        self._seen += len(change.entries)
        self._tell("entries", self._seen, None)

    def finish(self) -> ChangeCounts:
        """Wait for the pipeline; everything is in the editor then."""
        self._session.pipeline.finish()
        self._session.warnings += self._reader.warnings
        return self.counts

    def make_parents(self, target: bytes) -> None:
        """Make the directories above a path where there are none. Raises PathRefused."""
        end = target.find(b"/", 1)
        while end > 0:
            path = target[:end]
            entry = self._editor.find(path)
            if entry is not None and not entry.is_directory:
                raise PathRefused(f"{shown_path(path)} is no directory, so nothing can be below it")
            if entry is None:
                above = self._editor.get(path.rpartition(b"/")[0])
                new = replace(
                    above, name=b"", mode=stat.S_IFDIR | 0o755, size=DIRECTORY_BYTES,
                    mtime=self._rules.now, mtime_ns=None, xattrs=None,
                )  # fmt: skip
                self._editor.put_directory(path, new)
                self.counts.note(path, new, None)
            end = target.find(b"/", end + 1)

    def _put_directory(self, change: DirectoryChange) -> bool:
        """Write the directory's own row if need be; whether there was no such directory."""
        path = change.path
        old = self._editor.find(path)
        is_new = old is None or not old.is_directory
        if change.own is None:
            if is_new:
                raise PathRefused(f"{shown_path(path)} is no directory in the repository")
            return False
        entry = self._reader.read_entry(change.source, path.rpartition(b"/")[2], change.own)
        if old is None or is_new or _metadata(old) != _metadata(entry):
            self._editor.put_directory(path, entry)
            self.counts.note(path, entry, old)
        return is_new

    def _open(self, change: DirectoryChange, is_new: bool) -> OpenDirectory:
        """Gather what is known of a directory, no more than the change is about."""
        before: dict[bytes, DirectoryEntry] = {}
        if not is_new and change.is_complete:
            before = {entry.name: entry for entry in self._editor.entries(change.path)}
        elif not is_new:
            before = self._find_named(change)
        entries = {entry.name: entry for entry in change.entries}
        directory = OpenDirectory(change.source, change.path, change.own, before, entries)
        if self._memory is not None and not change.is_complete:
            self._memory.state.doubt(change.path)
        elif self._memory is not None:
            directory.is_remembered = True
            directory.known = self._memory.state.files(change.path) if before else {}
        return directory

    def _find_named(self, change: DirectoryChange) -> dict[bytes, DirectoryEntry]:
        names = {entry.name for entry in change.entries} | set(change.removed) | {CATALOG_MARKER}
        found = {}
        for name in names:
            entry = self._editor.find(change.path + b"/" + name)
            if entry is not None:
                found[name] = entry
        if any(entry.hardlink_group for entry in found.values()):
            return {entry.name: entry for entry in self._editor.entries(change.path)}
        return found

    def _set_nested(self, path: bytes, wanted: bool) -> None:
        if wanted and not self._editor.is_nested(path):
            self._editor.nest(path)
        elif not wanted and self._editor.is_nested(path):
            self._editor.unnest(path)

    def _keep_automatic(self, change: DirectoryChange, directory: OpenDirectory) -> bool:
        """Keep the markers of an automatic catalog, which a source does not have."""
        markers = {CATALOG_MARKER, AUTO_MARKER}
        if not self._session.settings.autocatalogs or not markers <= directory.before.keys():
            return False
        if markers & (directory.entries.keys() | set(change.removed)):
            return False
        for name in markers:
            del directory.before[name]
        return True

    def _keep_marker(self, directory: OpenDirectory) -> None:
        """See to a catalog marker that is in the repository only, as the dirtab wants it."""
        marker = directory.before.pop(CATALOG_MARKER, None)
        if marker is not None and marker.is_regular:
            return
        pipeline = self._session.pipeline
        above = self._editor.get(directory.path)
        content = pipeline.writer.put(b"", Suffix.FILE, pipeline.compression).hash
        entry = DirectoryEntry(
            name=CATALOG_MARKER,
            mode=_MARKER_MODE,
            mtime=self._rules.now,
            uid=above.uid,
            gid=above.gid,
            content=content,
            algorithm=content.algorithm,
            compression=pipeline.compression,
        )
        directory.edits.append((entry, ()))
        self.counts.note(directory.path + b"/" + CATALOG_MARKER, entry, marker)

    def _remove_vanished(self, change: DirectoryChange, directory: OpenDirectory) -> None:
        for name, old in directory.before.items():
            path = directory.path + b"/" + name
            entry = directory.entries.get(name)
            is_going = entry is None and (change.is_complete or name in change.removed)
            if is_going and path != VIRTUAL_DIRECTORY:
                self._editor.remove(path)
                self.counts.note_removed(path)
            is_replaced = entry is not None and not stat.S_ISDIR(entry.stat.st_mode)
            if self._memory is not None and old.is_directory and (is_going or is_replaced):
                self._memory.state.remove(path)


def _metadata(entry: DirectoryEntry) -> tuple[object, ...]:
    """What of a directory's row is the directory's own; its size means nothing."""
    return (entry.mode, entry.mtime, entry.mtime_ns, entry.uid, entry.gid, entry.xattrs)
