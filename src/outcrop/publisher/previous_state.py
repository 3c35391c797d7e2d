"""What a source directory looked like when it was last published, so that it is not read again.

A database in the spool area has, for each directory of the source, a *stamp* (a compact record of
what `lstat` said about it and everything in it) and a key of every regular file's content. A
directory with an equal stamp, published into the very revision that is still the trunk, needs no
look at catalogs; a file with an equal record and the same content key in the catalog is not read.

Everything here is a cache: whatever does not fit is forgotten and found out anew. A file that was
modified when, or shortly before, it was scanned could change once more without its times telling
(clocks are coarse), so it gets a record that equals none.
"""

import hashlib
import os
import sqlite3
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from outcrop.formats.catalog import Chunk
from outcrop.formats.hashes import ContentHash
from outcrop.publisher.scan import SourceEntry

_FORMAT: Final = "1"
_RACY_NS: Final = 2_000_000_000
_RECORD = struct.Struct("<IIIQQQqqH")  # mode uid gid links inode size mtime ctime, name's length
_DIRECTORY_RECORD = struct.Struct("<IIIQQqq")  # mode uid gid inode device mtime ctime
_LENGTH = struct.Struct("<H")
_SUBDIRECTORY = _RECORD.pack(stat.S_IFDIR, 0, 0, 0, 0, 0, 0, 0, 0)[: -_LENGTH.size]
_NEVER = -(1 << 63)
_NO_FILE = Path(":memory:")
_CERTAIN = b"\1"
_UNCERTAIN = b"\0"

_DDL = (
    "CREATE TABLE properties (key TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE directories (path BLOB PRIMARY KEY, stamp BLOB, keys BLOB) WITHOUT ROWID",
)
_SELECT = "SELECT stamp, keys FROM directories WHERE path = ?"
_UPSERT = "INSERT OR REPLACE INTO directories VALUES (?, ?, ?)"
_RESTAMP = "UPDATE directories SET stamp = ? WHERE path = ?"
_DELETE = "DELETE FROM directories WHERE path = ?1 OR (path >= ?2 AND path < ?3)"

KEY_BYTES = 20
"""Length of a content key."""

NO_KEY: Final = bytes(KEY_BYTES)
"""What a regular file has for a key whose content was not read: it equals none."""


class KnownFile(NamedTuple):
    """A regular file as it was published: its record and its content key."""

    record: bytes
    key: bytes


def content_key(content: ContentHash | None, chunks: Iterable[Chunk]) -> bytes:
    """What tells two contents of files apart: the object's digest, or one of all chunks'."""
    if content is not None:
        return content.digest
    rows = b"".join(struct.pack("<Q", c.offset) + c.hash.digest for c in chunks)
    return hashlib.sha1(rows, usedforsecurity=False).digest()


class Stamps:
    """Makes stamps. `scanned_at_ns` is when the scan began, by the file system's own clock.

    The first byte of a stamp tells whether all its records are certain.
    """

    def __init__(self, scanned_at_ns: int) -> None:
        self._racy_from = scanned_at_ns - _RACY_NS
        self._saw_racy = False

    def record(self, entry: SourceEntry) -> bytes:
        """The record of one entry; of a directory little more than its name."""
        name, seen = entry
        mode = seen.st_mode
        if stat.S_ISDIR(mode):  # it has a stamp of its own
            return _SUBDIRECTORY + _LENGTH.pack(len(name)) + name
        size = seen.st_size if stat.S_ISREG(mode) else seen.st_rdev
        return (
            _RECORD.pack(
                mode, seen.st_uid, seen.st_gid, seen.st_nlink, seen.st_ino, size,
                seen.st_mtime_ns, self._ctime(seen), len(name),
            )
            + name
        )  # fmt: skip

    def stamp(self, directory: os.stat_result, entries: Iterable[SourceEntry]) -> bytes:
        """The stamp of a directory and everything in it, by name."""
        self._saw_racy = False
        own = _DIRECTORY_RECORD.pack(
            directory.st_mode, directory.st_uid, directory.st_gid, directory.st_ino,
            directory.st_dev, directory.st_mtime_ns, self._ctime(directory),
        )  # fmt: skip
        records = [self.record(entry) for entry in entries]
        return b"".join([_UNCERTAIN if self._saw_racy else _CERTAIN, own, *records])

    def _ctime(self, seen: os.stat_result) -> int:
        ctime = seen.st_ctime_ns
        if ctime >= self._racy_from or seen.st_mtime_ns >= self._racy_from:
            self._saw_racy = True
            return _NEVER
        return ctime


def _iter_records(stamp: bytes) -> Iterable[tuple[bytes, int, bytes]]:
    """Name, ctime and whole record of everything in a stamp."""
    position = len(_CERTAIN) + _DIRECTORY_RECORD.size
    while position < len(stamp):
        fields = _RECORD.unpack_from(stamp, position)
        end = position + _RECORD.size + fields[8]
        yield stamp[end - fields[8] : end], fields[7], stamp[position:end]
        position = end


class PreviousState:
    """The state file of one source and target. Nothing is kept unless `commit` is called.

    `is_current` tells whether equal stamps alone prove that the trunk has the directory: that is
    so if the trunk (`root`) is still what was published then, with the same `options`. Without
    `is_kept` the file is read, at most.
    """

    def __init__(
        self, file: Path, *, root: ContentHash, options: str, is_kept: bool = True
    ) -> None:
        self._options = options
        if not is_kept and not file.exists():
            file = _NO_FILE
        self._database = self._open(file)
        known = dict(self._database.execute("SELECT key, value FROM properties"))
        self.is_current = known.get("root") == str(root) and known.get("options") == options

    @staticmethod
    def _open(file: Path) -> sqlite3.Connection:
        """Open the file; one that is damaged or of another version is started anew."""
        try:
            database = _connect(file)
            row = database.execute("SELECT value FROM properties WHERE key = 'format'").fetchone()
            if row == (_FORMAT,):
                return database
            database.close()
        except sqlite3.DatabaseError:
            pass
        if file != _NO_FILE:
            file.unlink(missing_ok=True)
        database = _connect(file)
        for statement in _DDL:
            database.execute(statement)
        database.execute("INSERT INTO properties VALUES ('format', ?)", (_FORMAT,))
        database.commit()
        return database

    def proves(self, path: bytes, stamp: bytes) -> bool:
        """Whether the trunk is certain to have what a directory with this stamp holds."""
        if not self.is_current or not stamp.startswith(_CERTAIN):
            return False
        row = self._database.execute(_SELECT, (path,)).fetchone()
        return row is not None and row[0] == stamp

    def files(self, path: bytes) -> dict[bytes, KnownFile]:
        """The regular files a directory had, by name; without those whose record is uncertain."""
        row = self._database.execute(_SELECT, (path,)).fetchone()
        if row is None:
            return {}
        stamp, keys = row
        found = {}
        position = 0
        for name, ctime, record in _iter_records(stamp):
            if stat.S_ISREG(_RECORD.unpack_from(record)[0]):
                key = keys[position : position + KEY_BYTES]
                position += KEY_BYTES
                if ctime != _NEVER:
                    found[name] = KnownFile(record, key)
        return found

    def put(self, path: bytes, stamp: bytes, keys: Iterable[bytes]) -> None:
        """Remember a directory, with the content keys of its regular files in stamp order."""
        self._database.execute(_UPSERT, (path, stamp, b"".join(keys)))

    def remove(self, path: bytes) -> None:
        """Forget a directory and all below."""
        self._database.execute(_DELETE, (path, path + b"/", path + b"0"))

    def doubt(self, path: bytes) -> None:
        """One directory's stamp proves nothing any more; what is known of its files stays."""
        row = self._database.execute(_SELECT, (path,)).fetchone()
        if row is not None:
            stamp = _UNCERTAIN + row[0][len(_CERTAIN) :]
            self._database.execute(_RESTAMP, (stamp, path))

    def commit(self, root: ContentHash) -> None:
        """Keep what was put and removed: it is what the revision with this root has."""
        self._database.executemany(
            "INSERT OR REPLACE INTO properties VALUES (?, ?)",
            [("root", str(root)), ("options", self._options)],
        )
        self._database.commit()

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


@dataclass(frozen=True, slots=True)
class SourceMemory:
    """What is known of a source, and how to tell whether it still is so."""

    state: PreviousState
    stamps: Stamps


def _connect(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file)
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def state_file(directory: Path, source: bytes, target: bytes) -> Path:
    """Where the state of a source and a target is kept."""
    name = hashlib.sha1(source + b"\0" + target, usedforsecurity=False).hexdigest()
    return directory / f"{name}.db"


def make_room(state: Path, *, keep: int = 16) -> None:
    """See to it that a state file can be written; the longest unused others are deleted."""
    directory = state.parent
    directory.mkdir(parents=True, exist_ok=True)
    others = [file for file in directory.glob("*.db") if file != state]
    others.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    for file in others[keep - 1 :]:
        file.unlink(missing_ok=True)
