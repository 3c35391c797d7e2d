"""Reading regular files: which objects hold which bytes, and a file object over them."""

import bisect
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outcrop.errors import FormatError
from outcrop.formats.catalog import Chunk, DirectoryEntry
from outcrop.formats.hashes import ObjectRef, Suffix
from outcrop.storage.store import ObjectOpener

MAX_FILE_BYTES = 1 << 50
"""A file's size comes from a signed catalog; this bound only keeps arithmetic sane."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`size` bytes from `offset` of a file on are the object `ref`."""

    offset: int
    size: int
    ref: ObjectRef


def pieces_of(path: bytes, entry: DirectoryEntry, chunks: Sequence[Chunk]) -> list[Piece]:
    """The objects of a regular file in order; none for an empty one.

    `path` is needed for external data, which is found by name. Raises FormatError where the
    entry's size and its chunks contradict each other.
    """
    if entry.size > MAX_FILE_BYTES:
        raise FormatError(f"{path!r} claims to have {entry.size} bytes")
    if not entry.is_chunked:
        return _whole(path, entry)
    if not chunks or chunks[-1].offset + chunks[-1].size != entry.size:
        raise FormatError(f"{path!r}: its chunks do not add up to {entry.size} bytes")
    return [Piece(chunk.offset, chunk.size, _chunk_ref(path, entry, chunk)) for chunk in chunks]


def _whole(path: bytes, entry: DirectoryEntry) -> list[Piece]:
    if entry.size == 0:
        return []
    if entry.content is None:
        raise FormatError(f"{path!r} has {entry.size} bytes but no content hash")
    ref = ObjectRef(
        entry.content,
        compression=entry.compression,
        size=entry.size,
        url_path=path if entry.is_external else None,
    )
    return [Piece(0, entry.size, ref)]


def _chunk_ref(path: bytes, entry: DirectoryEntry, chunk: Chunk) -> ObjectRef:
    return ObjectRef(
        chunk.hash,
        Suffix.CHUNK,
        compression=entry.compression,
        size=chunk.size,
        url_path=path if entry.is_external else None,
        offset=chunk.offset if entry.is_external else None,
    )


def find_piece(pieces: Sequence[Piece], offset: int) -> Piece | None:
    """The piece with the byte at `offset`."""
    index = bisect.bisect_right(pieces, offset, key=lambda piece: piece.offset) - 1
    if index < 0 or offset >= pieces[index].offset + pieces[index].size:
        return None
    return pieces[index]


class RepositoryFile(io.RawIOBase):
    """A regular file of a repository, open for reading; fetches only the chunks it touches.

    Wrapped in `io.BufferedReader` by `Revision.open`. Not for several threads at once.
    """

    def __init__(self, opener: ObjectOpener, pieces: Sequence[Piece], size: int) -> None:
        self._opener = opener
        self._pieces = pieces
        self._size = size
        self._position = 0
        self._current: Piece | None = None
        self._fd = -1

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, also past the end, as files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}.get(whence)
        if base is None:
            raise ValueError(f"whence is {whence}: expected 0, 1 or 2")
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of the current chunk. Raises StorageError, FormatError."""
        view = memoryview(buffer).cast("B")
        piece = find_piece(self._pieces, self._position)
        if piece is None or not view:
            return 0
        if piece is not self._current:
            self._open(piece)
        start = self._position - piece.offset
        count = os.preadv(self._fd, [view[: piece.size - start]], start)
        if count == 0:
            raise FormatError(f"{piece.ref.path}: shorter than {piece.size} bytes")
        self._position += count
        return count

    def _open(self, piece: Piece) -> None:
        fd = self._opener.open_object(piece.ref)
        self._drop()
        self._fd, self._current = fd, piece

    def _drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._current = -1, None

    def close(self) -> None:
        """Let go of the object."""
        self._drop()
        super().close()
