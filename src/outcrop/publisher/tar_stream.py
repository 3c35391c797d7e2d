"""Reading a tar archive from its beginning to its end, once: a file, a pipe, compressed or not.

Nothing seeks. Memory is bounded whatever the archive says: one header, one map of a sparse file,
one block of content. An archive that is not whole to its last byte (end marker, checksum of the
compressed stream, nothing but zeros behind) raises, so that nobody publishes half of one.
"""

import bz2
import lzma
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Protocol, cast

from isal import igzip_lib

from outcrop.publisher.errors import ArchiveInvalid, LimitExceeded, SourceUnreadable
from outcrop.publisher.tar_members import (
    BLOCK_BYTES,
    MAX_EXTENTS,
    MAX_PATH_BYTES,
    MAX_RECORDS_BYTES,
    Extents,
    TarMember,
    complete,
    is_header,
    merge_records,
    parse_header,
    parse_records,
    parse_sparse_block,
    parse_sparse_map,
    set_sparse,
    sparse_size,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_HOLE_BYTES: Final = 64 << 30
"""Limit of what the holes of all sparse files of an archive are in sum: they must be hashed."""

_READ_BYTES: Final = 1 << 18
_PLAIN_BYTES: Final = 1 << 20
_CONTENT_BYTES: Final = 1 << 20
_MAX_PADDING_BYTES: Final = 64 << 20
_XZ_MEMORY_BYTES: Final = 256 << 20
_ZSTD_WINDOW_LOG: Final = 27
_ZEROS: Final = bytes(_CONTENT_BYTES)
_NO_BLOCK: Final = bytes(BLOCK_BYTES)
_InflateError = cast("type[Exception]", igzip_lib.IsalError)


class _Decompressor(Protocol):
    """What the decompressors of the standard library, isal and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _new_gzip() -> _Decompressor:
    return cast("_Decompressor", igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))


def _new_xz() -> _Decompressor:
    return cast("_Decompressor", lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES))


def _new_zstd() -> _Decompressor:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return cast("_Decompressor", zstd.ZstdDecompressor(options=options))


_FORMATS: Final[dict[bytes, tuple[str, Callable[[], _Decompressor]]]] = {
    b"\x1f\x8b\x08": ("gzip", _new_gzip),
    b"BZh": ("bzip2", lambda: cast("_Decompressor", bz2.BZ2Decompressor())),
    b"\xfd7zXZ\0": ("xz", _new_xz),
    b"\x28\xb5\x2f\xfd": ("zstd", _new_zstd),
    **{bytes((n,)) + b"\x2a\x4d\x18": ("zstd", _new_zstd) for n in range(0x50, 0x60)},
}
_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zstd.ZstdError, _InflateError)
MAGIC_BYTES: Final = 6


class PlainBytes:
    """The uncompressed bytes of an archive, taken in portions of any size.

    `position` counts plain bytes taken, `read_bytes` those that came from the archive itself.
    """

    def __init__(self, archive: BinaryIO, tell: Callable[[int], None] | None = None) -> None:
        self._archive = archive
        self._tell = tell
        self._buffer = b""
        self._start = 0
        self._inflated: Iterator[bytes] | None = None
        self.position = 0
        self.read_bytes = 0
        self._detect()

    def take(self, size: int) -> bytes:
        """The next bytes: `size` of them, fewer only at the end of the archive."""
        start = self._start
        end = start + size
        if end <= len(self._buffer):
            self._start = end
            self.position += size
            return self._buffer[start:end]
        parts = [self._buffer[start:]]
        missing = size - len(parts[0])
        self._buffer, self._start = b"", 0
        while missing:
            block = self._next_block()
            if not block:
                break
            if len(block) > missing:
                self._buffer, self._start = block, missing
                block = block[:missing]
            parts.append(block)
            missing -= len(block)
        self.position += size - missing
        return b"".join(parts)

    def _detect(self) -> None:
        """Find out by the first bytes whether the archive is compressed, and with what."""
        while len(self._buffer) < BLOCK_BYTES and (block := self._read()):
            self._buffer += block
        head = self._buffer[:BLOCK_BYTES]
        if not head:
            raise ArchiveInvalid("the archive is empty: not even an end marker")
        if is_header(head) or head == _NO_BLOCK:
            return
        for magic, (name, new) in _FORMATS.items():
            if head.startswith(magic):
                self._inflated = self._inflate(name, new, self._buffer)
                self._buffer = b""
                return
        raise ArchiveInvalid(
            "this is no tar archive", hint="known are tar files, plain or as gzip, bzip2, xz, zstd"
        )

    def _next_block(self) -> bytes:
        return self._read() if self._inflated is None else next(self._inflated, b"")

    def _read(self) -> bytes:
        try:
            block = self._archive.read(_READ_BYTES)
        except OSError as error:
            raise SourceUnreadable(f"the archive cannot be read: {error.strerror}") from error
        self.read_bytes += len(block)
        if self._tell is not None:
            self._tell(self.read_bytes)
        return block

    def _inflate(self, name: str, new: Callable[[], _Decompressor], data: bytes) -> Iterator[bytes]:
        """Decompress one stream after the other; archives may be cut into several."""
        try:
            while data:
                stream = new()
                while not stream.eof:
                    if stream.needs_input and not data and not (data := self._read()):
                        raise ArchiveInvalid(
                            f"the {name} stream is cut short", hint="nothing was published"
                        )
                    plain = stream.decompress(data, _PLAIN_BYTES)
                    data = b""
                    if plain:
                        yield plain
                data = self._after_stream(stream.unused_data, name)
        except MemoryError as error:
            raise LimitExceeded(f"the {name} stream needs too much memory") from error
        except _ERRORS as error:
            raise ArchiveInvalid(
                f"the {name} stream is damaged: {error}", hint="nothing was published"
            ) from error

    def _after_stream(self, data: bytes, name: str) -> bytes:
        """What follows a stream: another one, or nothing but the zeros that fill up a tape."""
        data = data.lstrip(b"\0")
        while len(data) < MAGIC_BYTES and (more := self._read()):
            data = (data + more).lstrip(b"\0")
        if data and not any(data.startswith(m) for m, (n, _) in _FORMATS.items() if n == name):
            raise ArchiveInvalid(f"there are other bytes after the end of the {name} stream")
        return data


class TarReader:
    """The members of an archive in order. Iterate once; ask for a member's content at its turn.

    Raises ArchiveInvalid, MemberRefused, LimitExceeded, SourceUnreadable.
    """

    def __init__(self, archive: BinaryIO, tell: Callable[[int], None] | None = None) -> None:
        self._bytes = PlainBytes(archive, tell)
        self._globals: dict[bytes, bytes] = {}
        self._left = 0
        self._padding = 0
        self._holes_left = MAX_HOLE_BYTES

    def __iter__(self) -> Iterator[TarMember]:
        while True:
            self._skip()
            records = dict(self._globals)
            member = self._next(records)
            if member is None:
                self._check_end()
                return
            yield member

    def read(self, member: TarMember) -> bytes:
        """All the content of the member whose turn it is; for small ones."""
        if member.extents is not None:
            return b"".join(self.blocks(member))
        return self._take_content(member, self._left)

    def blocks(self, member: TarMember) -> Iterator[bytes]:
        """The content of the member whose turn it is, in blocks; holes as zeros."""
        position = 0
        for offset, length in member.extents or ((0, self._left),):
            yield from _zeros(offset - position)
            position = offset + length
            while length > 0:
                block = self._take_content(member, min(length, _CONTENT_BYTES))
                length -= len(block)
                yield block
        yield from _zeros(member.size - position)

    # --- headers ---

    def _next(self, records: dict[bytes, bytes]) -> TarMember | None:
        """The next member with what the headers before it say; `None` at the end marker."""
        take = self._bytes.take
        while True:
            at = self._bytes.position
            block = take(BLOCK_BYTES)
            if block == _NO_BLOCK:
                return None
            if len(block) < BLOCK_BYTES:
                raise ArchiveInvalid(
                    f"the archive is cut short: it ends after {at + len(block)} bytes, "
                    "without an end marker",
                    hint="nothing was published; make or fetch the archive again",
                )
            member = parse_header(block, at=at)
            if member.type in _EXTENDED:
                self._read_extended(member, records)
                continue
            if member.type == b"V":  # the name of the volume
                continue
            complete(member, records)
            self._set_content(member, block, records)
            return member

    def _read_extended(self, header: TarMember, records: dict[bytes, bytes]) -> None:
        limit = MAX_RECORDS_BYTES if header.type in b"gxX" else 2 * MAX_PATH_BYTES
        if not 0 <= header.size <= limit:
            raise LimitExceeded(
                f"{header.shown}: an extended header of {header.size} bytes, the limit is {limit}"
            )
        data = self._take_padded(header.size)
        if header.type in b"LK":
            records[b"path" if header.type == b"L" else b"linkpath"] = data.partition(b"\0")[0]
            return
        if header.type == b"A":  # an access list of Solaris
            return
        found = parse_records(data)
        if header.type == b"g":
            self._globals = merge_records(self._globals, found)
            if sum(len(k) + len(v) for k, v in self._globals.items()) > MAX_RECORDS_BYTES:
                raise LimitExceeded(f"global headers of more than {MAX_RECORDS_BYTES} bytes")
        merged = merge_records(records, found)
        records.clear()
        records.update(merged)

    def _take_padded(self, size: int) -> bytes:
        data = self._bytes.take(size + -size % BLOCK_BYTES)
        if len(data) < size + -size % BLOCK_BYTES:
            raise ArchiveInvalid("the archive is cut short within an extended header")
        return data[:size]

    # --- content ---

    def _set_content(self, member: TarMember, block: bytes, records: dict[bytes, bytes]) -> None:
        self._left = member.stored_bytes
        self._padding = -self._left % BLOCK_BYTES
        if member.type == b"S":
            set_sparse(member, self._read_old_map(block, member), sparse_size(block))
        elif records and any(key.startswith(b"GNU.sparse.") for key in records):
            self._set_pax_sparse(member, records)
        if member.extents is not None:
            self._holes_left -= member.size - member.stored_bytes
            if self._holes_left < 0:
                raise LimitExceeded(
                    f"{member.shown}: the sparse files so far have more than "
                    f"{MAX_HOLE_BYTES >> 30} GiB of holes",
                    hint="unpack the archive and publish the directory",
                )

    def _read_old_map(self, block: bytes, member: TarMember) -> Extents:
        extents, is_more = parse_sparse_block(block, first=True)
        while is_more and len(extents) <= MAX_EXTENTS:
            block = self._bytes.take(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES:
                raise ArchiveInvalid(f"{member.shown}: the archive is cut short within its map")
            more, is_more = parse_sparse_block(block, first=False)
            extents += more
        return extents

    def _set_pax_sparse(self, member: TarMember, records: dict[bytes, bytes]) -> None:
        """GNU's formats 0.0 and 0.1 (the map is in the header) and 1.0 (before the data)."""
        member.name = records.get(b"GNU.sparse.name", member.name)
        size = records.get(b"GNU.sparse.realsize", records.get(b"GNU.sparse.size"))
        if size is None:
            raise ArchiveInvalid(f"{member.shown}: a sparse file without a size")
        if records.get(b"GNU.sparse.major") == b"1":
            extents = self._read_map_in_data(member)
        else:
            text = records.get(b"GNU.sparse.map", b"")
            extents = parse_sparse_map(text) if text else []
        ((number, _),) = parse_sparse_map(size + b",0")
        set_sparse(member, extents, number)
        complete(member, {})

    def _read_map_in_data(self, member: TarMember) -> Extents:
        """The map of format 1.0: lines of numbers, the first tells how many pairs follow."""
        lines: list[bytes] = []
        wanted = 1
        rest = b""
        while len(lines) < wanted:
            if self._left < BLOCK_BYTES or len(lines) > 2 * MAX_EXTENTS or len(rest) > 1024:
                raise ArchiveInvalid(f"{member.shown}: the map of this sparse file has no end")
            *more, rest = (rest + self._take_content(member, BLOCK_BYTES)).split(b"\n")
            lines += more
            ((pairs, _),) = parse_sparse_map(lines[0] + b",0") if lines else ((0, 0),)
            wanted = 1 + 2 * min(pairs, MAX_EXTENTS + 1)
        member.stored_bytes = self._left
        return parse_sparse_map(b",".join(lines[1:wanted])) if wanted > 1 else []

    def _take_content(self, member: TarMember, size: int) -> bytes:
        data = self._bytes.take(size)
        if len(data) < size:
            raise ArchiveInvalid(
                f"{member.shown}: the archive is cut short within it", hint="nothing was published"
            )
        self._left -= size
        return data

    def _skip(self) -> None:
        """Go past what of the last member was not asked for."""
        missing = self._left + self._padding
        self._left = self._padding = 0
        while missing:
            data = self._bytes.take(min(missing, _CONTENT_BYTES))
            if not data:
                raise ArchiveInvalid("the archive is cut short within its last member")
            missing -= len(data)

    def _check_end(self) -> None:
        """After the end marker come zeros; reading on also checks the end of a compressed one."""
        padding = 0
        while data := self._bytes.take(_READ_BYTES):
            padding += len(data)
            if data.count(0) != len(data) or padding > _MAX_PADDING_BYTES:
                raise ArchiveInvalid(
                    "there are other bytes after the end of the archive",
                    hint="is it several archives in one? Publish them one by one",
                )


_EXTENDED: Final = frozenset((b"g", b"x", b"X", b"L", b"K", b"A"))


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= len(_ZEROS)
