"""Reading the upper directory of an overlayfs: what was changed, as the kernel wrote it down.

Everything that was changed is in the upper directory itself, so the mount is not needed: files
with their content, names that went as *whiteouts*, directories that hide what was beneath them
(*opaque*). What was only moved or got new metadata is there without its content; that is a matter
of catalogs: a directory with a *redirect* is moved with everything in it, and a file that is a
*metacopy* keeps the content of its row.

How each of them looks: docs/explanation/transactions.md.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from outcrop.formats.catalog import Chunk, DirectoryEntry
from outcrop.publisher.changes import VIRTUAL_DIRECTORY, DirectoryChange
from outcrop.publisher.errors import PathRefused, SourceUnreadable
from outcrop.publisher.options import OnChange
from outcrop.publisher.rules import shown_path
from outcrop.publisher.scan import SourceEntry, scan_directory, source_error
from outcrop.publisher.upper_attributes import UpperAttributes
from outcrop.repository.editor import CatalogEditor

WHITEOUT_PREFIX = b".wh."
_OPAQUE_MARKER = b".wh..wh..opq"
_WHITEOUT_TARGET = b"(overlay-whiteout)"
_STAGING = b"/.outcrop-moving-%d"


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that got new metadata or a new place, and still has the content of `row`."""

    entry: SourceEntry
    row: DirectoryEntry
    chunks: Sequence[Chunk]


@dataclass(frozen=True, slots=True)
class UpperChange:
    """One directory of the upper: a change, and beside it the files whose content is kept."""

    change: DirectoryChange
    kept: Sequence[KeptFile] = ()


@dataclass(slots=True)
class _Directory:
    """A directory of the upper; `lower` is where in the base that is what it covers, if any.

    `is_plain`: so are all above it, each in its own place. `staged` is where its lower content
    waits in the editor until the directory's turn comes.
    """

    path: bytes
    lower: bytes | None
    is_plain: bool
    staged: bytes | None = None


@dataclass(slots=True)
class _Scan:
    """What is in one directory of the upper."""

    own: os.stat_result
    entries: list[SourceEntry] = field(default_factory=list)
    directories: list[SourceEntry] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    metacopies: list[SourceEntry] = field(default_factory=list)


class UpperDirectory:
    """The changes in an upper directory, relative to the revision that is in the editor.

    `attributes` tells which of the kernel's two name spaces the notes are in.
    """

    def __init__(self, root: bytes, attributes: UpperAttributes, editor: CatalogEditor) -> None:
        self._root = root
        self._attributes = attributes
        self._editor = editor
        self._directories: list[_Directory] = []
        self._moves: dict[bytes, bytes] = {}  # from where in the base a directory came, by path
        self._moved_files: dict[bytes, tuple[DirectoryEntry, Sequence[Chunk]]] = {}
        self._covering: dict[bytes, list[bytes]] = {}  # the directories that cover one of the base

    def changes(self, *, on_change: OnChange | None = None) -> Iterator[UpperChange]:
        """The changed directories, parents first; each must be applied before the next is asked.

        Directories that were moved are moved in the editor, which `on_change` is told of. Raises
        PathRefused, SourceUnreadable, SourceChanged.
        """
        self._plan()
        self._move()
        if on_change is not None:
            for target, source in self._moves.items():
                on_change("rem", source)
                on_change("add", target)
        for directory in self._directories:
            if directory.staged is not None:
                self._unstage(directory)
            yield self._change(directory)

    # --- where everything belongs -------------------------------------------------------------

    def _plan(self) -> None:
        """Find out of all directories what of the base they cover, before anything is edited."""
        self._check_reserved()
        waiting = [_Directory(b"", b"", is_plain=True)]
        while waiting:
            directory = waiting.pop()
            self._directories.append(directory)
            if directory.lower is not None:
                self._covering.setdefault(directory.lower, []).append(directory.path)
            waiting += [self._locate(directory, name) for name in self._subdirectories(directory)]

    def _check_reserved(self) -> None:
        path = self._root + VIRTUAL_DIRECTORY
        if os.path.lexists(path):
            raise PathRefused(
                "/.cvmfs in the transaction was changed: it is reserved",
                hint="undo that, or abort the transaction",
            )

    def _subdirectories(self, directory: _Directory) -> list[bytes]:
        """The directories in one; rows of files that were moved into it are kept meanwhile."""
        path = self._root + directory.path
        names = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                    elif self._attributes.has_metacopies and entry.is_file(follow_symlinks=False):
                        self._keep_moved(directory, entry.name)
        except OSError as error:
            raise source_error(path, error) from error
        return names

    def _keep_moved(self, directory: _Directory, name: bytes) -> None:
        path = directory.path + b"/" + name
        source = self._attributes.redirect(self._root + path, directory.lower)
        row = self._row(source) if source is not None else None
        if row is not None:
            self._moved_files[path] = row

    def _locate(self, parent: _Directory, name: bytes) -> _Directory:
        path = parent.path + b"/" + name
        natural = None if parent.lower is None else parent.lower + b"/" + name
        lower = self._covered(path, parent, natural)
        if lower is not None and lower != natural:
            self._moves[path] = lower
        return _Directory(path, lower, parent.is_plain and lower == path)

    def _covered(self, path: bytes, parent: _Directory, natural: bytes | None) -> bytes | None:
        """The directory of the base whose content shows through, if there is one."""
        source = self._root + path
        if self._attributes.is_opaque(source) or os.path.lexists(source + b"/" + _OPAQUE_MARKER):
            return None
        lower = self._attributes.redirect(source, parent.lower) or natural
        if lower is None or not lower:
            return None
        entry = self._editor.find(lower)
        return lower if entry is not None and entry.is_directory else None

    # --- what was moved -----------------------------------------------------------------------

    def _move(self) -> None:
        """Take the moved directories to their new places, or aside until those can be made."""
        if not self._moves:
            return
        # What is to be seen at its old place, too, was not moved but copied, note and all.
        are_gone = all(self._is_gone(source) for source in self._moves.values())
        is_single = len(set(self._moves.values())) == len(self._moves)
        take: Callable[[bytes, bytes], None] = self._editor.clone
        if are_gone and is_single:
            take = self._editor.move
        by_path = {directory.path: directory for directory in self._directories}
        # What was moved out of a directory that was moved itself comes first.
        for path in sorted(self._moves, key=lambda path: -self._moves[path].count(b"/")):
            directory = by_path[path]
            if self._is_free(path, by_path):
                take(self._moves[path], path)
            else:
                directory.staged = self._staging_place()
                take(self._moves[path], directory.staged)

    def _is_gone(self, source: bytes) -> bool:
        """Whether a directory of the base is hidden wherever its old parent shows."""
        parent, _, name = source.rpartition(b"/")
        places = self._covering.get(parent, ())
        return bool(places) and all(self._hides(place, name, source) for place in places)

    def _hides(self, place: bytes, name: bytes, source: bytes) -> bool:
        path = place + b"/" + name
        if not os.path.lexists(self._root + path):
            return False
        return path not in self._covering.get(source, ()) or path in self._moves

    def _is_free(self, path: bytes, by_path: dict[bytes, _Directory]) -> bool:
        """Whether the new place can be taken at once."""
        above = path.rpartition(b"/")[0]
        entry = self._editor.find(above)
        is_there = entry is not None and entry.is_directory
        return by_path[above].is_plain and is_there and self._editor.find(path) is None

    def _staging_place(self) -> bytes:
        number = 1
        while self._editor.find(_STAGING % number) is not None:
            number += 1
        return _STAGING % number

    def _unstage(self, directory: _Directory) -> None:
        if self._editor.find(directory.path) is not None:
            self._editor.remove(directory.path)
        self._editor.move(directory.staged or b"", directory.path)

    # --- what is in a directory ---------------------------------------------------------------

    def _change(self, directory: _Directory) -> UpperChange:
        source = self._root + directory.path
        scan = self._scan(source)
        is_complete = directory.lower is None
        change = DirectoryChange(
            path=directory.path,
            source=source,
            own=scan.own,
            entries=sorted(scan.entries + scan.directories) if is_complete else scan.entries,
            removed=() if is_complete else scan.removed,
            is_complete=is_complete,
        )
        return UpperChange(change, [self._kept(directory, entry) for entry in scan.metacopies])

    def _scan(self, source: bytes) -> _Scan:
        own, entries = scan_directory(source)
        has_whiteouts = self._attributes.has_whiteouts(source)
        scan = _Scan(own)
        for entry in entries:
            gone = self._whiteout(source, entry, has_whiteouts)
            if gone is not None:
                scan.removed.append(gone)
            elif entry.name == _OPAQUE_MARKER:
                continue
            elif stat.S_ISDIR(entry.stat.st_mode):
                scan.directories.append(entry)
            elif self._attributes.is_metacopy(source + b"/" + entry.name, entry.stat):
                scan.metacopies.append(entry)
            else:
                scan.entries.append(entry)
        present = {name for name, _ in (*scan.entries, *scan.directories, *scan.metacopies)}
        scan.removed = [name for name in scan.removed if name not in present]
        return scan

    def _whiteout(self, source: bytes, entry: SourceEntry, has_whiteouts: bool) -> bytes | None:
        """The name that an entry makes disappear, if it is one of those."""
        name, seen = entry
        path = source + b"/" + name
        if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0:
            return name
        if stat.S_ISLNK(seen.st_mode) and seen.st_size == len(_WHITEOUT_TARGET):
            return name if os.readlink(path) == _WHITEOUT_TARGET else None  # noqa: PTH115
        if not stat.S_ISREG(seen.st_mode) or seen.st_size or name == _OPAQUE_MARKER:
            return None
        if name.startswith(WHITEOUT_PREFIX) and name != WHITEOUT_PREFIX:
            return name[len(WHITEOUT_PREFIX) :]
        return name if has_whiteouts and self._attributes.is_whiteout(path) else None

    def _kept(self, directory: _Directory, entry: SourceEntry) -> KeptFile:
        """Find the row whose content a metacopy has."""
        path = directory.path + b"/" + entry.name
        kept = self._moved_files.get(path) or self._row(path)
        if kept is None:
            raise SourceUnreadable(
                f"{shown_path(path)} has no content in the transaction, nor in the repository",
                hint="abort the transaction, or remove that file in it",
            )
        return KeptFile(entry, *kept)

    def _row(self, path: bytes) -> tuple[DirectoryEntry, Sequence[Chunk]] | None:
        row = self._editor.find(path)
        if row is None or not row.is_regular:
            return None
        return row, self._editor.chunks(path, row)
