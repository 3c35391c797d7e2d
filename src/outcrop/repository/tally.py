"""The counters of a catalog's own rows, kept up to date row by row while it is edited.

So a catalog of 200,000 entries with one change need not be counted again. Whatever a tally says
must be what counting the rows would say; a property test holds it to that.
"""

import stat
from typing import Any

from outcrop.errors import FormatError
from outcrop.formats.catalog import COUNTER_NAMES, Counters, EntryFlags

_CHUNKED = int(EntryFlags.CHUNKED)
_EXTERNAL = int(EntryFlags.EXTERNAL)
(_REGULAR, _SYMLINK, _SPECIAL, _DIR, _NESTED, _CHUNKED_FILES, _CHUNKS, _FILE_SIZE, _CHUNKED_SIZE,
 _XATTR, _EXTERNAL_FILES, _EXTERNAL_SIZE) = range(len(COUNTER_NAMES))  # fmt: skip


class Tally:
    """Running counters; `nested` is not among them, as catalogs know their children anyway."""

    __slots__ = ("_values",)

    def __init__(self, counters: Counters) -> None:
        self._values = [getattr(counters, name) for name in COUNTER_NAMES]

    def counters(self, nested: int) -> Counters:
        """What was counted, with the number of nested catalogs."""
        values = self._values.copy()
        values[_NESTED] = nested
        return Counters(*values)

    def add(self, counters: Counters, sign: int = 1) -> None:
        """Count many rows, or (`sign` -1) take them back; their `nested` does not matter."""
        self._values = [
            value + sign * getattr(counters, name)
            for value, name in zip(self._values, COUNTER_NAMES, strict=True)
        ]

    def add_row(
        self, sign: int, mode: Any, size: Any, flags: Any, *, has_xattr: bool, chunks: int
    ) -> None:
        """Count one row and its chunks, or take it back. Raises FormatError for no such row."""
        if not (type(mode) is int and type(size) is int and type(flags) is int):
            raise FormatError("catalog row: a number is missing or of another kind")
        values = self._values
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFREG:
            values[_REGULAR] += sign
            values[_FILE_SIZE] += sign * size
            if flags & _CHUNKED:
                values[_CHUNKED_FILES] += sign
                values[_CHUNKED_SIZE] += sign * size
            if flags & _EXTERNAL:
                values[_EXTERNAL_FILES] += sign
                values[_EXTERNAL_SIZE] += sign * size
        elif kind == stat.S_IFDIR:
            values[_DIR] += sign
        else:
            values[_SYMLINK if kind == stat.S_IFLNK else _SPECIAL] += sign
        values[_CHUNKS] += sign * chunks
        if has_xattr:
            values[_XATTR] += sign
