"""Checking the plain rows of a directory all at once, which most rows of most catalogs are.

A row is plain if SQLite alone can tell that nothing is wrong with it but, perhaps, its path hash:
a regular file of one object or a symbolic link, without other names or attributes, and with
nothing in its columns that no writer puts there. All others are for `check_catalog` to look at
one by one, as is a whole directory as soon as anything about its plain rows is not as it should.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import md5
from struct import Struct
from typing import Final

from outcrop.formats.catalog import COLUMNS, MAX_NAME_BYTES, MAX_SYMLINK_BYTES, path_hash
from outcrop.formats.hashes import Compression, HashAlgorithm
from outcrop.repository.catalogs import Catalog
from outcrop.repository.files import MAX_FILE_BYTES

_TWO_NUMBERS: Final = Struct("<qq")

# `flags`: 4 file, 8 symlink; hash algorithm in bits 8-10, compression in bits 11-13.
_FILE_FLAGS: Final = ", ".join(
    str(4 | (algorithm.number - 1) << 8 | compression.value << 11)
    for algorithm in HashAlgorithm
    if algorithm is not HashAlgorithm.MD5
    for compression in Compression
)
_IS_PLAIN: Final = (
    "hardlinks = 1 AND xattr IS NULL AND typeof(name) = 'text' "
    "AND typeof(size) = 'integer' AND size >= 0 "
    "AND typeof(mode) = 'integer' AND typeof(mtime) = 'integer' AND typeof(uid) = 'integer' "
    "AND typeof(gid) = 'integer' AND typeof(hardlinks) = 'integer' AND typeof(flags) = 'integer' "
    "AND ({mtimens} IS NULL OR typeof({mtimens}) = 'integer' AND {mtimens} BETWEEN 0 AND 999999999)"
    f" AND CASE WHEN mode & ~4095 = 32768 THEN flags IN ({_FILE_FLAGS}) AND typeof(hash) = 'blob' "
    f"AND length(hash) = 20 AND size <= {MAX_FILE_BYTES} AND (symlink IS NULL OR symlink = '') "
    "WHEN mode & ~4095 = 40960 THEN flags = 12 AND hash IS NULL AND typeof(symlink) = 'text' "
    f"AND length(CAST(symlink AS BLOB)) <= {MAX_SYMLINK_BYTES} "
    "AND instr(CAST(symlink AS BLOB), x'00') = 0 ELSE 0 END"
)
"""Never true where `DirectoryEntry.from_row` or a look at the entry would find anything wrong."""


@dataclass(frozen=True, slots=True)
class PlainFiles:
    """Regular files of one directory whose contents are one object each, named by `algorithm`."""

    algorithm: HashAlgorithm
    names: list[bytes]
    digests: list[bytes]
    size: int
    """Bytes of all of them together."""


@dataclass(frozen=True, slots=True)
class PlainRows:
    """What is plain in a directory; `others`: whether there is more than that."""

    names: list[bytes]
    files: list[PlainFiles]
    symlinks: int
    others: bool


TakePlain = Callable[[bytes, PlainFiles], None]
"""Takes the path of a directory and plain files in it."""


class PlainRowReader:
    """Reads the plain rows of the directories of one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        known = {name: name if name in catalog.columns else "NULL" for name in COLUMNS}
        self.is_plain = f"({_IS_PLAIN.format(mtimens=known['mtimens'])}) IS TRUE"
        self._plain = (
            "SELECT md5path_1, md5path_2, name, hash, (flags >> 8) & 7, size FROM catalog "
            f"WHERE parent_1 = ? AND parent_2 = ? AND {self.is_plain}"
        )
        self._all = "SELECT count(*) FROM catalog WHERE parent_1 = ? AND parent_2 = ?"

    def read(self, stored: bytes) -> PlainRows | None:
        """The plain rows below a path as the catalog knows it; `None` if one is in doubt.

        Raises FormatError.
        """
        key = path_hash(stored)
        rows = self._catalog.query(self._plain, key)
        ((count,),) = self._catalog.query(self._all, key)
        names = [row[2] for row in rows]
        if not _are_right(stored, rows, names):
            return None
        return PlainRows(
            names,
            _files(rows),
            sum(row[3] is None for row in rows),
            others=count != len(rows),
        )


Row = tuple[int, int, bytes, bytes | None, int, int]


def _are_right(stored: bytes, rows: Sequence[Row], names: list[bytes]) -> bool:
    """Whether names are names, each once, and path hashes those of the paths."""
    if not names:
        return True
    distinct = set(names)
    if len(distinct) != len(names) or not distinct.isdisjoint((b"", b".", b"..")):
        return False
    together = b"".join(names)
    if b"/" in together or b"\0" in together or max(map(len, names)) > MAX_NAME_BYTES:
        return False
    unpack, prefix = _TWO_NUMBERS.unpack, stored + b"/"
    return all(
        unpack(md5(prefix + name, usedforsecurity=False).digest()) == (first, second)
        for first, second, name, *_ in rows
    )


def _files(rows: Sequence[Row]) -> list[PlainFiles]:
    found = []
    for number in {row[4] for row in rows if row[3] is not None}:
        files = [row for row in rows if row[4] == number and row[3] is not None]
        found.append(
            PlainFiles(
                HashAlgorithm.from_number(number + 1),
                [row[2] for row in files],
                [row[3] for row in files if row[3] is not None],
                sum(row[5] for row in files),
            )
        )
    return found
