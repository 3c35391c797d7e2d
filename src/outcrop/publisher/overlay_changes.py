"""From an upper directory to edits of a revision."""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from outcrop.formats.bundles import is_bundle_name
from outcrop.formats.catalog import DirectoryEntry
from outcrop.formats.dirtab import MAX_BYTES as MAX_DIRTAB_BYTES
from outcrop.formats.dirtab import Dirtab
from outcrop.publisher.changes import ChangeApplier, ChangeCounts
from outcrop.publisher.errors import PathRefused
from outcrop.publisher.options import PublishOptions, Tell
from outcrop.publisher.overlay import KeptFile, UpperDirectory
from outcrop.publisher.pipeline import FileContent
from outcrop.publisher.rules import DIRTAB, shown_path
from outcrop.publisher.scan import SourceReader, hardlink_groups, source_error
from outcrop.publisher.session import PublishSession
from outcrop.publisher.upper_attributes import UpperAttributes
from outcrop.repository.editor import CatalogEditor
from outcrop.repository.working_catalog import Edit


def apply_upper_directory(
    session: PublishSession,
    tell: Tell,
    *,
    upper: bytes,
    attributes: UpperAttributes,
    keeps_owners: bool,
    options: PublishOptions,
) -> ChangeCounts:
    """Edit a session's revision as an upper directory says.

    With `keeps_owners` what is in the repository keeps its owner whoever has it in the upper
    directory: in a user namespace nobody can give it away. Raises PublishError, StorageError.
    """
    settings = session.settings
    make_reader = partial(_KeepingReader, session.editor, upper) if keeps_owners else SourceReader
    reader = make_reader(
        with_xattrs=settings.include_xattrs, with_nanoseconds=settings.mtime_nanoseconds
    )
    dirtab = _dirtab(upper, attributes)
    applier = ChangeApplier(session, tell, options=options, dirtab=dirtab, reader=reader)
    directory = UpperDirectory(upper, attributes, session.editor)
    for found in directory.changes(on_change=options.on_change):
        applier.apply(found.change)
        if found.kept:
            _put_kept(session.editor, reader, applier.counts, found.change.path,
                      found.change.source, found.kept)  # fmt: skip
    return applier.finish()


def _put_kept(
    editor: CatalogEditor,
    reader: SourceReader,
    counts: ChangeCounts,
    directory: bytes,
    source: bytes,
    kept: Sequence[KeptFile],
) -> None:
    """Write the rows of files that keep their content."""
    by_name = {file.entry.name: file for file in kept}
    edits: list[Edit] = []
    for number, group in enumerate(hardlink_groups(file.entry for file in kept), start=1):
        for name, seen in group:
            path = directory + b"/" + name
            old = editor.find(path)
            if is_bundle_name(name) and by_name[name].row.name != name:
                raise PathRefused(
                    f"{shown_path(path)} has another file's content, which is not known here",
                    hint="write that file anew in the transaction instead of renaming another",
                )
            outside = reader.read_entry(source + b"/" + name, name, seen)
            new = replace(
                by_name[name].row, name=name, mode=outside.mode, uid=outside.uid, gid=outside.gid,
                mtime=outside.mtime, mtime_ns=outside.mtime_ns, xattrs=outside.xattrs,
                nlink=len(group), hardlink_group=number if len(group) > 1 else 0,
            )  # fmt: skip
            edits.append((new, by_name[name].chunks))
            counts.note(path, new, old)
    editor.put(directory, edits)


def _dirtab(upper: bytes, attributes: UpperAttributes) -> Dirtab | None:
    """The rules the new revision will have in its root, if they are not those of the base."""
    path = upper + b"/" + DIRTAB
    try:
        seen = os.lstat(path)
        if stat.S_ISCHR(seen.st_mode) and not seen.st_rdev:
            return Dirtab.parse(b"")
        if not stat.S_ISREG(seen.st_mode):
            raise PathRefused("/.cvmfsdirtab must be a regular file")
        if attributes.is_metacopy(path, seen):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise source_error(path, error) from error
    with os.fdopen(fd, "rb") as file:
        return Dirtab.parse(file.read(MAX_DIRTAB_BYTES + 1))


class _KeepingReader(SourceReader):
    """Reads what is on disk, but for the owners: they stay what they are in the repository."""

    def __init__(
        self, editor: CatalogEditor, upper: bytes, *, with_xattrs: bool, with_nanoseconds: bool
    ) -> None:
        super().__init__(with_xattrs=with_xattrs, with_nanoseconds=with_nanoseconds)
        self._editor = editor
        self._upper = upper

    def read_entry(self, path: bytes, name: bytes, seen: os.stat_result) -> DirectoryEntry:
        """The entry of what is no regular file."""
        return self._kept(path, super().read_entry(path, name, seen))

    def read_file_entry(
        self, path: bytes, name: bytes, content: FileContent, *, nlink: int, group: int
    ) -> DirectoryEntry:
        """The entry of a regular file."""
        entry = super().read_file_entry(path, name, content, nlink=nlink, group=group)
        return self._kept(path, entry)

    def _kept(self, path: bytes, entry: DirectoryEntry) -> DirectoryEntry:
        old = self._editor.find(path.removeprefix(self._upper))
        return entry if old is None else replace(entry, uid=old.uid, gid=old.gid)
