"""The part of applying changes that deals with what is no directory: files, links, specials."""

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from outcrop.errors import FormatError
from outcrop.formats.bundles import BUNDLE_PREFIX, is_bundle_name
from outcrop.formats.bundles import MAX_BYTES as MAX_BUNDLE_BYTES
from outcrop.formats.catalog import Chunk, DirectoryEntry
from outcrop.formats.graft import MAX_BYTES as MAX_GRAFT_BYTES
from outcrop.formats.graft import Graft
from outcrop.formats.hashes import Compression, ObjectRef, Suffix
from outcrop.publisher.counts import ChangeCounts
from outcrop.publisher.errors import PathRefused, SourceChanged
from outcrop.publisher.pipeline import FileContent, FileJob
from outcrop.publisher.previous_state import NO_KEY, KnownFile, SourceMemory, content_key
from outcrop.publisher.rules import GRAFT_PREFIX, SyncRules, check_bundle, shown_path
from outcrop.publisher.scan import SourceEntry, SourceReader, hardlink_groups, read_small_file
from outcrop.publisher.session import PublishSession
from outcrop.repository.working_catalog import Edit

_EDITS_AT_ONCE = 4096


@dataclass(slots=True)
class OpenDirectory:
    """A directory whose files are under way. `before` are the catalog's rows of it, by name.

    `is_remembered`: once it is done, what it looked like is kept for the next time.
    """

    source: bytes
    path: bytes
    own: os.stat_result | None
    before: dict[bytes, DirectoryEntry]
    entries: dict[bytes, SourceEntry]
    known: dict[bytes, KnownFile] = field(default_factory=dict)
    is_remembered: bool = False
    missing: int = 1  # the visit itself, until it has been through all entries
    edits: list[Edit] = field(default_factory=list)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    groups: int = 0


class FileChanges:
    """Writes the rows of everything in directories but subdirectories, as contents get known."""

    def __init__(
        self,
        session: PublishSession,
        rules: SyncRules,
        reader: SourceReader,
        memory: SourceMemory | None,
        counts: ChangeCounts,
    ) -> None:
        self._editor = session.editor
        self._pipeline = session.pipeline
        self._rules = rules
        self._reader = reader
        self._memory = memory
        self._counts = counts
        self._linked: dict[tuple[int, int], bytes] = {}

    def start(self, directory: OpenDirectory) -> None:
        """Have all entries looked at, and read if need be."""
        entries = [e for e in directory.entries.values() if self._is_published(directory, e)]
        groups = _groups(entries, directory.entries)
        directory.missing += len(groups)
        for group in groups:
            self._check_links(directory, group)
            self._start_group(directory, group)
        self._finish_one(directory)

    def _is_published(self, directory: OpenDirectory, entry: SourceEntry) -> bool:
        mode = entry.stat.st_mode
        if stat.S_ISDIR(mode):
            return False
        if entry.name.startswith(GRAFT_PREFIX):
            self._check_graft(directory, entry)
            return False
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or self._rules.keeps_specials:
            return True
        shown = shown_path(directory.source + b"/" + entry.name)
        self._reader.warnings.append(f"{shown} is a special file: left out")
        if entry.name in directory.before:
            self._editor.remove(directory.path + b"/" + entry.name)
            self._counts.note_removed(directory.path + b"/" + entry.name)
        return False

    def _check_graft(self, directory: OpenDirectory, entry: SourceEntry) -> None:
        """See that a graft file is of something."""
        shown = shown_path(directory.source + b"/" + entry.name)
        grafted = directory.entries.get(entry.name.removeprefix(GRAFT_PREFIX))
        if grafted is None or not stat.S_ISREG(grafted.stat.st_mode):
            self._reader.warnings.append(f"{shown}: there is no file beside it that it could be of")

    def _check_links(self, directory: OpenDirectory, group: list[SourceEntry]) -> None:
        """Refuse links between directories where they are not to be taken apart."""
        name, seen = group[0]
        if self._rules.with_split_links or seen.st_nlink <= len(group):
            return
        path = directory.source + b"/" + name
        other = self._linked.setdefault((seen.st_dev, seen.st_ino), path)
        if other != path:
            raise PathRefused(
                f"{shown_path(path)} is a hard link to {shown_path(other)}, in another directory",
                hint="CVMFS_IGNORE_XDIR_HARDLINKS=true makes them two files",
            )

    def _start_group(self, directory: OpenDirectory, group: list[SourceEntry]) -> None:
        """Have a file (all its names in the directory) looked at, and read if need be."""
        name, seen = group[0]
        if not stat.S_ISREG(seen.st_mode):
            self._finish(directory, group, None)
            return
        path = directory.source + b"/" + name
        if GRAFT_PREFIX + name in directory.entries:
            for other, _ in group:
                refuse_grafted_bundle(directory.source + b"/" + other)
            self._finish(directory, group, self._grafted(directory, group[0]))
            return
        warning = self._rules.size_warning(path, seen.st_size)
        if warning is not None:
            self._reader.warnings.append(warning)
        unread = self._content_before(directory, group[0])
        if unread is not None:
            self._finish(directory, group, unread)
            return
        job = FileJob(
            path,
            seen,
            partial(self._finish_read, directory, group),
            is_external=self._rules.is_external,
        )
        for entry in group:
            if is_bundle_name(entry.name):
                job.data = self._read_bundle(directory, entry)
        self._pipeline.submit(job)

    def _read_bundle(self, directory: OpenDirectory, entry: SourceEntry) -> bytes:
        """A file about bundles, found to be right: what is published is what was looked at."""
        path = directory.source + b"/" + entry.name
        data = read_small_file(path, limit=MAX_BUNDLE_BYTES)
        check_bundle(entry.name, shown_path(path), data)
        if len(data) != entry.stat.st_size:
            raise SourceChanged(f"{shown_path(path)} changed while it was to be published")
        trigger = entry.name.removeprefix(BUNDLE_PREFIX)
        there = directory.entries.get(trigger) or self._editor.find(directory.path + b"/" + trigger)
        if there is None:
            self._reader.warnings.append(
                f"{shown_path(path)}: there is no file beside it that it could be for"
            )
        return data

    def _grafted(self, directory: OpenDirectory, entry: SourceEntry) -> FileContent:
        """What the graft file beside a file says of its content. Raises FormatError."""
        graft = read_graft(directory.source + b"/" + GRAFT_PREFIX + entry.name)
        path = directory.source + b"/" + entry.name
        if entry.stat.st_size:
            self._reader.warnings.append(
                f"{shown_path(path)} is grafted: what it holds here is not published"
            )
        if not self._rules.is_external:
            self._warn_of_absent(path, graft)
        return FileContent(
            entry.stat, graft.compression, graft.checksum, graft.chunks, size=graft.size
        )

    def _warn_of_absent(self, path: bytes, graft: Graft) -> None:
        wanted = [(chunk.hash, Suffix.CHUNK) for chunk in graft.chunks]
        if graft.checksum is not None:
            wanted.append((graft.checksum, Suffix.FILE))
        store = self._pipeline.writer.store
        for content_hash, suffix in wanted:
            if not store.exists(ObjectRef(content_hash, suffix).path):
                self._reader.warnings.append(
                    f"{shown_path(path)} is grafted, but the store has no object {content_hash}"
                )
                return

    def _content_before(self, directory: OpenDirectory, entry: SourceEntry) -> FileContent | None:
        """The content the catalog has, if this file is certain to have it still."""
        known = directory.known.get(entry.name)
        before = directory.before.get(entry.name)
        if self._memory is None or known is None or before is None or not before.is_regular:
            return None
        is_alike = before.is_external == self._rules.is_external
        if not is_alike or known.record != self._memory.stamps.record(entry):
            return None
        chunks = tuple(self._editor.chunks(directory.path + b"/" + entry.name, before))
        if known.key != content_key(before.content, chunks):
            return None
        return FileContent(entry.stat, before.compression, before.content, chunks)

    def _finish_read(
        self, directory: OpenDirectory, group: list[SourceEntry], content: FileContent
    ) -> None:
        self._counts.bytes_read += content.seen.st_size
        self._counts.bytes_stored += content.new_bytes
        self._finish(directory, group, content)

    def _finish(
        self, directory: OpenDirectory, group: list[SourceEntry], content: FileContent | None
    ) -> None:
        """Write the rows of one file, now that its content is known, if they differ."""
        number = self._group_number(directory, group)
        before = [directory.before.get(name) for name, _ in group]
        is_direct_io = any(old is not None and old.is_direct_io for old in before)
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
                entry = self._with_flags(path, entry, is_direct_io=is_direct_io)
                directory.entries[name] = SourceEntry(name, content.seen)
                if content.size is None:  # a graft says nothing of what the file itself holds
                    directory.keys[name] = content_key(content.content, content.chunks)
            chunks = content.chunks if content is not None else ()
            edits.append((entry, chunks))
            is_different = is_different or not self._is_there(directory, entry, chunks)
        if is_different:
            directory.edits += edits
            for (entry, _), old in zip(edits, before, strict=True):
                self._counts.note(directory.path + b"/" + entry.name, entry, old)
        self._finish_one(directory)

    def _with_flags(
        self, path: bytes, entry: DirectoryEntry, *, is_direct_io: bool
    ) -> DirectoryEntry:
        """Add what no source tells: external data by the rules, direct I/O as it was.

        All names of one file have the same flags.
        """
        is_external = self._rules.is_external
        if is_external and entry.is_chunked and entry.compression is not Compression.NONE:
            raise PathRefused(
                f"{shown_path(path)}: external data in chunks cannot be compressed",
                hint="publish with the compression none, or set CVMFS_USE_FILE_CHUNKING=false",
            )
        if is_external or is_direct_io:
            return replace(entry, is_external=is_external, is_direct_io=is_direct_io)
        return entry

    def _group_number(self, directory: OpenDirectory, group: list[SourceEntry]) -> int:
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
        self, directory: OpenDirectory, entry: DirectoryEntry, chunks: Sequence[Chunk]
    ) -> bool:
        before = directory.before.get(entry.name)
        if before != entry:
            return False
        if not entry.is_chunked:
            return True
        path = directory.path + b"/" + entry.name
        return self._editor.chunks(path, entry) == list(chunks)

    def _finish_one(self, directory: OpenDirectory) -> None:
        """Note that one file, or the visit, is through; write what has gathered."""
        directory.missing -= 1
        if directory.edits and (not directory.missing or len(directory.edits) >= _EDITS_AT_ONCE):
            # By name and not by completion: the same content makes the same catalog.
            directory.edits.sort(key=lambda edit: edit[0].name)
            self._editor.put(directory.path, directory.edits)
            directory.edits = []
        memory = self._memory
        if directory.missing or memory is None or not directory.is_remembered:
            return
        if directory.own is not None:
            stamp = memory.stamps.stamp(directory.own, directory.entries.values())
            keys = [
                directory.keys.get(name, NO_KEY)
                for name, (_, seen) in directory.entries.items()
                if stat.S_ISREG(seen.st_mode)
            ]
            memory.state.put(directory.path, stamp, keys)


def refuse_grafted_bundle(path: bytes) -> None:
    """What a file about bundles holds must be known. Raises PathRefused."""
    if is_bundle_name(path.rpartition(b"/")[2]):
        raise PathRefused(f"{shown_path(path)} cannot be grafted: what it holds must be known")


def read_graft(path: bytes) -> Graft:
    """A graft file. Raises FormatError naming it, SourceUnreadable, SourceChanged."""
    try:
        return Graft.parse(read_small_file(path, limit=MAX_GRAFT_BYTES))
    except FormatError as error:
        raise FormatError(f"{shown_path(path)}: {error}", hint="nothing was published") from error


def _groups(entries: Sequence[SourceEntry], names: Collection[bytes]) -> list[list[SourceEntry]]:
    """Entries by file; a grafted one is a file of its own, whatever it is linked to."""
    grafted = [entry for entry in entries if GRAFT_PREFIX + entry.name in names]
    if not grafted:
        return hardlink_groups(entries)
    others = [entry for entry in entries if GRAFT_PREFIX + entry.name not in names]
    return [*hardlink_groups(others), *([entry] for entry in grafted)]
