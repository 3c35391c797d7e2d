"""Diff lists: which paths of a source directory are new, different or gone.

One path a line, relative to the source, after a letter and a blank: `A` or `M` (it is there), `D`
(it is gone); a path without a letter is looked for. Only what is listed is looked at, so a publish
costs what changed and not what there is. How-to: docs/how-to/publish-from-ci.md.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from outcrop.errors import FormatError
from outcrop.publisher.changes import DirectoryChange
from outcrop.publisher.errors import PathRefused, SourceChanged
from outcrop.publisher.rules import GRAFT_PREFIX, shown_path
from outcrop.publisher.scan import SourceEntry, scan_directory, source_error
from outcrop.publisher.walk import walk_directory

MAX_PATHS: Final = 2_000_000
MAX_PATH_BYTES: Final = 4096
_MAX_NAME_BYTES: Final = 255
_BLOCK_BYTES: Final = 1 << 16
_LETTERS: Final = {b"A": "present", b"M": "present", b"D": "gone"}


@dataclass(frozen=True, slots=True)
class ListedPath:
    """What a list says of a path: `present`, `gone` or `unknown`; and where in the list, from 1."""

    state: str
    number: int


def parse_diff_list(
    stream: BinaryIO, *, is_null_separated: bool = False
) -> dict[bytes, ListedPath]:
    """Read a list; of several lines for one path the last counts.

    Paths are without a leading or trailing slash; `b""` is the source itself. Raises FormatError
    naming the line.
    """
    listed: dict[bytes, ListedPath] = {}
    lines = _iter_lines(stream, b"\0" if is_null_separated else b"\n")
    for number, line in enumerate(lines, start=1):
        if line:
            state, path = _parse_line(line, number)
            listed[path] = ListedPath(state, number)
        if len(listed) > MAX_PATHS:
            raise FormatError(
                f"the diff list has more than {MAX_PATHS} paths",
                hint="publish without a list: unchanged files are not read then either",
            )
    return listed


def _iter_lines(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    rest = b""
    number = 0
    while block := stream.read(_BLOCK_BYTES):
        *lines, rest = (rest + block).split(separator)
        number += len(lines)
        yield from lines
        if len(rest) > MAX_PATH_BYTES + 2:
            raise FormatError(f"diff list line {number + 1}: longer than {MAX_PATH_BYTES} bytes")
    yield rest


def _parse_line(line: bytes, number: int) -> tuple[str, bytes]:
    state = "unknown"
    path = line
    if line[:1] in _LETTERS and line[1:2] in (b" ", b"\t"):
        state, path = _LETTERS[line[:1]], line[2:]
    path = path.removeprefix(b"/").removesuffix(b"/")
    while path.startswith(b"./"):
        path = path[2:]
    path = b"" if path == b"." else path
    names = path.split(b"/") if path else []
    is_impossible = any(
        name in (b"", b".", b"..") or len(name) > _MAX_NAME_BYTES or b"\0" in name for name in names
    )
    if is_impossible or len(path) > MAX_PATH_BYTES or (not path and state == "gone"):
        raise FormatError(
            f"diff list line {number}: {line[:300]!r} is no path below the source",
            hint="paths are relative to the directory that is published",
        )
    return state, path


@dataclass(slots=True)
class _Gathered:
    """What is to be told of one directory."""

    entries: dict[bytes, SourceEntry] = field(default_factory=dict)
    removed: list[bytes] = field(default_factory=list)
    whole: list[bytes] = field(default_factory=list)
    """Names of subdirectories that are listed themselves."""


class ListedWalk:
    """The directories of a source that listed paths are in, as changes, parents before children.

    The metadata of these directories, and of those above, is brought up to date as well. A listed
    directory is taken with everything below it unless `is_shallow`. `is_directory` tells whether
    the repository, as it is by then, has a directory at a path.
    """

    def __init__(
        self,
        source: bytes,
        target: bytes,
        listed: Mapping[bytes, ListedPath],
        *,
        is_shallow: bool,
        is_directory: Callable[[bytes], bool],
    ) -> None:
        self._source = source
        self._target = target
        self._is_shallow = is_shallow
        self._is_directory = is_directory
        self._listed = listed
        self._taken: set[bytes] = set()

    def __iter__(self) -> Iterator[DirectoryChange]:
        """Look at what is listed. Raises SourceChanged, SourceUnreadable, PathRefused."""
        if b"" in self._listed and not self._is_shallow:
            yield from walk_directory(self._source, self._target)
            return
        by_directory = self._by_directory()
        # With a separator smaller than any byte of a name, whatever is below comes right after.
        for directory in sorted(by_directory, key=lambda path: path.replace(b"/", b"\0")):
            if not self._is_taken(directory):
                yield from self._visit(directory, by_directory[directory])

    def _by_directory(self) -> dict[bytes, list[bytes]]:
        """Listed names by their directory, with all directories above, for they may be new."""
        by_directory: dict[bytes, list[bytes]] = defaultdict(list)
        by_directory[b""] = []
        for path, listed in self._listed.items():
            if not path or self._is_dropped(path, listed):
                continue
            directory, _, name = path.rpartition(b"/")
            by_directory[directory].append(name)
            while directory and (above := directory.rpartition(b"/")[0]) not in by_directory:
                by_directory[above] = []
                directory = above
        return by_directory

    def _is_dropped(self, path: bytes, listed: ListedPath) -> bool:
        """Whether a directory above went later in the list."""
        while path:
            path = path.rpartition(b"/")[0]
            above = self._listed.get(path)
            if above is not None and above.state == "gone" and above.number > listed.number:
                return True
        return False

    def _is_taken(self, directory: bytes) -> bool:
        """Whether the directory was published as a whole already."""
        while directory:
            if directory in self._taken:
                return True
            directory = directory.rpartition(b"/")[0]
        return False

    def _visit(self, directory: bytes, names: list[bytes]) -> Iterator[DirectoryChange]:
        place = _join(self._target, directory)
        source = _join(self._source, directory)
        # Below what became a symlink there may be nothing left but paths that are gone.
        are_gone = all(self._listed[_join_relative(directory, n)].state == "gone" for n in names)
        own = _directory_stat(source, may_be_symlink=are_gone)
        exists = self._is_directory(place)
        gathered = self._gather(directory, source, sorted(names))
        if own is None:
            if gathered.entries or gathered.whole:
                raise SourceChanged(f"{shown_path(source)} is no directory any more")
            if not exists:
                return
        elif gathered.entries:
            _add_relatives(source, gathered.entries)
        yield DirectoryChange(
            path=place,
            source=source,
            own=own,
            entries=sorted(gathered.entries.values()),
            removed=gathered.removed,
            is_complete=False,
        )
        for name in gathered.whole:
            yield from self._take(
                _join_relative(directory, name), source + b"/" + name, place + b"/" + name
            )

    def _take(self, path: bytes, source: bytes, place: bytes) -> Iterator[DirectoryChange]:
        if not self._is_shallow:
            self._taken.add(path)
            yield from walk_directory(source, place)
            return
        own = _directory_stat(source)
        if own is None:
            raise SourceChanged(f"{shown_path(source)} is no directory any more")
        yield DirectoryChange(path=place, source=source, own=own, is_complete=False)

    def _gather(self, directory: bytes, source: bytes, names: list[bytes]) -> _Gathered:
        gathered = _Gathered()
        for name in names:
            listed = self._listed[_join_relative(directory, name)]
            path = source + b"/" + name
            seen = _stat(path)
            if listed.state == "gone" or (seen is None and listed.state == "unknown"):
                gathered.removed.append(name)
                if name.startswith(GRAFT_PREFIX):
                    _add_if_there(source, name.removeprefix(GRAFT_PREFIX), gathered.entries)
            elif seen is None:
                raise SourceChanged(
                    f"{shown_path(path)} is in the diff list, but not there",
                    hint="list what is gone with the letter D",
                )
            elif stat.S_ISDIR(seen.st_mode):
                gathered.whole.append(name)
            else:
                gathered.entries[name] = SourceEntry(name, seen)
        return gathered


def _join(above: bytes, path: bytes) -> bytes:
    return above + b"/" + path if path else above


def _join_relative(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _stat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise source_error(path, error) from error


def _directory_stat(path: bytes, *, may_be_symlink: bool = False) -> os.stat_result | None:
    """A directory's own metadata, `None` where there is none. Raises PathRefused for a symlink."""
    seen = _stat(path)
    if seen is None or stat.S_ISDIR(seen.st_mode):
        return seen
    if stat.S_ISLNK(seen.st_mode) and not may_be_symlink:
        raise PathRefused(
            f"{shown_path(path)} is a symlink: what is behind it is not published",
            hint="list the path that the files really have",
        )
    return None


def _add_relatives(source: bytes, entries: dict[bytes, SourceEntry]) -> None:
    """Add what belongs to listed files: other names of the same file, graft files and grafted."""
    linked = {(e.stat.st_dev, e.stat.st_ino) for e in entries.values() if e.stat.st_nlink > 1}
    for name in list(entries):
        if name.startswith(GRAFT_PREFIX):
            _add_if_there(source, name.removeprefix(GRAFT_PREFIX), entries)
        else:
            _add_if_there(source, GRAFT_PREFIX + name, entries)
    if linked:
        _, found = scan_directory(source)
        for entry in found:
            if (entry.stat.st_dev, entry.stat.st_ino) in linked:
                entries.setdefault(entry.name, entry)


def _add_if_there(source: bytes, name: bytes, entries: dict[bytes, SourceEntry]) -> None:
    seen = _stat(source + b"/" + name) if name not in entries and len(name) <= 255 else None
    if seen is not None and stat.S_ISREG(seen.st_mode):
        entries[name] = SourceEntry(name, seen)
