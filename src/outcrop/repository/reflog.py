"""The reflog as a stratum 0 keeps it: `.cvmfsreflog` in the store, its checksum on this machine.

Two files at two places cannot be replaced at once. So the new checksum is put down beside the old
one before the new reflog is written: after a crash, whichever reflog is found, its checksum is
known.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash, HashAlgorithm
from outcrop.formats.reflog import (
    DDL,
    DELETE_REF,
    INSERT_REF,
    SCHEMA,
    SCHEMA_REVISION,
    SELECT_REFS,
    Ref,
)
from outcrop.repository.errors import ReflogMissing
from outcrop.storage.errors import ObjectCorrupt, ObjectNotFound
from outcrop.storage.store import WritableStore, read_file

NAME = ".cvmfsreflog"
MAX_BYTES = 1 << 30


class Reflog:
    """A repository's reflog: read whole, added to, written whole.

    `checksum_file` is `reflog.chksum` in the spool area.
    """

    def __init__(
        self, store: WritableStore, checksum_file: Path, fqrn: str, algorithm: HashAlgorithm
    ) -> None:
        self._store = store
        self._checksum_file = checksum_file
        self._next_file = checksum_file.with_name(checksum_file.name + ".next")
        self._fqrn = fqrn
        self._algorithm = algorithm

    def read(self) -> list[Ref]:
        """All references; none where there is no reflog yet. Raises ObjectCorrupt, FormatError."""
        data = self._read_checked()
        return [] if data is None else self._parse(data)

    def read_complete(self, signed: ContentHash | None) -> list[Ref]:
        """All references of a reflog that must be there, and be the right one.

        Where this machine has no checksum of it, `signed`, the one in the manifest, counts. Raises
        ReflogMissing, ObjectCorrupt, FormatError.
        """
        data = self._read_checked()
        hint = f"outcrop reflog {self._fqrn} rebuild"
        if data is None:
            raise ReflogMissing(f"{self._fqrn}: there is no reflog ({NAME})", hint=hint)
        has_checksum = self._read_checksum(self._checksum_file) is not None
        if not has_checksum and ContentHash.of(data, self._algorithm) != signed:
            raise ReflogMissing(
                f"{self._fqrn}: whether the reflog is the right one cannot be told: there is no "
                f"{self._checksum_file}",
                hint=hint,
            )
        return self._parse(data)

    def _parse(self, data: bytes) -> list[Ref]:
        with closing(_memory_database()) as database:
            try:
                database.deserialize(data)
                return [Ref.from_row(row) for row in database.execute(SELECT_REFS)]
            except sqlite3.Error as error:
                raise FormatError(f"{self._fqrn}: the reflog is no database: {error}") from error

    def add(self, refs: Iterable[Ref]) -> ContentHash:
        """Put objects on record (a known one gets the new time); return the new checksum."""

        def insert(database: sqlite3.Connection) -> None:
            database.executemany(INSERT_REF, [ref.to_row() for ref in refs])

        return self._edit(self._read_checked(), insert)

    def remove(self, refs: Iterable[Ref]) -> ContentHash:
        """Strike objects off the record, which gets smaller; return the new checksum."""

        def delete(database: sqlite3.Connection) -> None:
            database.executemany(DELETE_REF, [(str(ref.hash),) for ref in refs])
            database.execute("VACUUM")

        return self._edit(self._read_checked(), delete)

    def rebuild(self, refs: Iterable[Ref]) -> ContentHash:
        """Start anew with these references, whatever was there; return the new checksum."""

        def insert(database: sqlite3.Connection) -> None:
            database.executemany(INSERT_REF, [ref.to_row() for ref in refs])

        return self._edit(None, insert, over_anything=True)

    def _edit(
        self,
        data: bytes | None,
        change: Callable[[sqlite3.Connection], None],
        *,
        over_anything: bool = False,
    ) -> ContentHash:
        """Write `data`, changed, over `data` (or over anything). Raises FileChanged."""
        with closing(_memory_database()) as database:
            try:
                if data is None:
                    self._create(database)
                else:
                    database.deserialize(data)
                change(database)
            except sqlite3.Error as error:
                raise FormatError(f"{self._fqrn}: the reflog is no database: {error}") from error
            changed = database.serialize()

        def store() -> None:
            if over_anything:
                self._store.write(NAME, changed)
            else:
                self._store.replace(NAME, changed, data)

        return self._write(changed, store)

    def _create(self, database: sqlite3.Connection) -> None:
        for statement in DDL:
            database.execute(statement)
        database.executemany(
            "INSERT INTO properties VALUES (?, ?)",
            [("schema", SCHEMA), ("schema_revision", str(SCHEMA_REVISION)), ("fqrn", self._fqrn)],
        )

    def _read_checked(self) -> bytes | None:
        try:
            data = read_file(self._store, NAME, limit=MAX_BYTES)
        except ObjectNotFound:
            return None
        found = ContentHash.of(data, self._algorithm)
        expected = self._read_checksum(self._checksum_file)
        if found == self._read_checksum(self._next_file):
            self._next_file.replace(self._checksum_file)
        elif expected is not None and found != expected:
            raise ObjectCorrupt(
                f"{self._fqrn}: the reflog's hash is {found}, but {self._checksum_file} says "
                f"{expected}",
                hint="somebody else wrote it, or it is damaged: bring back the right one, or "
                f"find its content anew: outcrop reflog {self._fqrn} rebuild",
            )
        return data

    @staticmethod
    def _read_checksum(file: Path) -> ContentHash | None:
        try:
            text = file.read_text("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        return ContentHash.parse(text)

    def _write(self, data: bytes, store: Callable[[], None]) -> ContentHash:
        checksum = ContentHash.of(data, self._algorithm)
        temporary = self._checksum_file.with_name(self._checksum_file.name + ".tmp")
        with temporary.open("w", encoding="ascii") as out:
            out.write(str(checksum))
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(self._next_file)
        store()
        self._next_file.replace(self._checksum_file)
        return checksum


def _memory_database() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.text_factory = bytes
    return database
