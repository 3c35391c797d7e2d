"""Graft files, `.cvmfsgraft-NAME`: what a file holds that a publisher has never seen.

Spec: docs/reference/formats/graft.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from outcrop.errors import FormatError
from outcrop.formats.catalog import Chunk
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm

MAX_BYTES: Final = 16 << 20
MAX_CHUNKS: Final = 1_000_000
_MAX_SIZE: Final = (1 << 63) - 1
_KEYS: Final = (b"size", b"checksum", b"compression", b"chunk_offsets", b"chunk_checksums")
_COMPRESSIONS: Final = {
    "zlib": Compression.ZLIB,
    "default": Compression.ZLIB,
    "none": Compression.NONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Graft:
    """The content of a file of `size` bytes: `checksum` of the whole, or `chunks`, or both.

    `algorithm` is that of all its hashes.
    """

    size: int
    checksum: ContentHash | None
    compression: Compression
    algorithm: HashAlgorithm
    chunks: tuple[Chunk, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a graft file. Raises FormatError."""
        if len(text) > MAX_BYTES:
            raise FormatError(f"graft: {len(text)} bytes, the limit is {MAX_BYTES}")
        values = _parse_lines(text)
        size = _number(values, "size")
        checksum = _hash(_value(values, "checksum"))
        chunks = _parse_chunks(values, size)
        if any(chunk.hash.algorithm is not checksum.algorithm for chunk in chunks):
            raise FormatError("graft: hashes of different algorithms")
        has_whole = any(checksum.digest)
        if not has_whole and not chunks:
            raise FormatError("graft: the checksum is all zeros, and there are no chunks")
        label = values.get("compression", "zlib")
        if label not in _COMPRESSIONS:
            raise FormatError(f"graft: unknown compression {label[:60]!r}")
        return cls(
            size=size,
            checksum=checksum if has_whole else None,
            compression=_COMPRESSIONS[label],
            algorithm=checksum.algorithm,
            chunks=chunks,
        )

    def serialize(self) -> bytes:
        """Write the lines as upstream's tool does."""
        zeros = ContentHash(self.algorithm, bytes(self.algorithm.size))
        lines = [
            f"size={self.size}",
            f"checksum={self.checksum or zeros}",
            f"compression={'none' if self.compression is Compression.NONE else 'zlib'}",
        ]
        if self.chunks:
            lines.append("chunk_offsets=" + ",".join(str(chunk.offset) for chunk in self.chunks))
            lines.append("chunk_checksums=" + ",".join(str(chunk.hash) for chunk in self.chunks))
        return "".join(line + "\n" for line in lines).encode("ascii")


def _parse_lines(text: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(text.split(b"\n"), start=1):
        content = line.strip()
        if not content or content.startswith(b"#"):
            continue
        key, separator, value = (part.strip() for part in content.partition(b"="))
        if not separator:
            raise FormatError(f"graft line {number}: expected KEY=VALUE, not {content[:60]!r}")
        if key not in _KEYS:
            continue
        name = key.decode("ascii")
        if name in values:
            raise FormatError(f"graft line {number}: {name} a second time")
        if not value.isascii():
            raise FormatError(f"graft line {number}: {value[:60]!r} is no value of {name}")
        values[name] = value.decode("ascii")
    return values


def _value(values: Mapping[str, str], name: str) -> str:
    if name not in values:
        raise FormatError(f"graft: there is no {name}")
    return values[name]


def _number(values: Mapping[str, str], name: str) -> int:
    return _parse_number(_value(values, name), name)


def _parse_number(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 19 or int(text) > _MAX_SIZE:
        raise FormatError(f"graft: {name}: {text[:60]!r} is no number of bytes")
    return int(text)


def _hash(text: str) -> ContentHash:
    try:
        content_hash = ContentHash.parse(text)
    except FormatError as error:
        raise FormatError(f"graft: {error}") from error
    if content_hash.algorithm is HashAlgorithm.MD5:
        raise FormatError(f"graft: {text} is an MD5 hash: objects are not named by those")
    return content_hash


def _parse_chunks(values: Mapping[str, str], size: int) -> tuple[Chunk, ...]:
    if "chunk_offsets" not in values and "chunk_checksums" not in values:
        return ()
    offset_texts = _value(values, "chunk_offsets").split(",", MAX_CHUNKS)
    hash_texts = _value(values, "chunk_checksums").split(",", MAX_CHUNKS)
    if len(offset_texts) != len(hash_texts) or len(offset_texts) > MAX_CHUNKS:
        raise FormatError(
            f"graft: {len(offset_texts)} chunk_offsets and {len(hash_texts)} chunk_checksums"
        )
    offsets = [_parse_number(text.strip(), "chunk_offsets") for text in offset_texts]
    ends = [*offsets[1:], size]
    if offsets[0] != 0 or any(begin >= end for begin, end in pairwise([*offsets, size])):
        raise FormatError("graft: chunk_offsets must begin with 0, grow, and be within the size")
    return tuple(
        Chunk(offset, end - offset, _hash(text.strip()))
        for offset, end, text in zip(offsets, ends, hash_texts, strict=True)
    )
