"""Making graft files: what a file holds, hashed here and published there without its content."""

import os
import shutil
import zlib
from pathlib import Path
from typing import BinaryIO, Final

from outcrop.errors import FormatError
from outcrop.formats.catalog import Chunk
from outcrop.formats.graft import Graft
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, new_hasher
from outcrop.publisher.errors import PathRefused

PREFIX: Final = ".cvmfsgraft-"
DEFAULT_CHUNK_MEBIBYTES: Final = 24
_BLOCK_BYTES: Final = 1 << 20


class _Object:
    """Hashes what an object would be stored as."""

    def __init__(self, algorithm: HashAlgorithm, compression: Compression) -> None:
        self._hasher = new_hasher(algorithm)
        self._deflater = zlib.compressobj() if compression is Compression.ZLIB else None

    def update(self, block: bytes) -> None:
        self._hasher.update(self._deflater.compress(block) if self._deflater else block)

    def hash(self) -> ContentHash:
        if self._deflater is not None:
            self._hasher.update(self._deflater.flush())
        return self._hasher.hash()


def make_graft(
    stream: BinaryIO,
    *,
    chunk_bytes: int,
    algorithm: HashAlgorithm,
    compression: Compression,
    with_bulk: bool = False,
) -> Graft:
    """Read a file to its end; one larger than `chunk_bytes` gets chunks of that size.

    Then the hash of the whole is only in it `with_bulk`. Raises OSError.
    """
    if chunk_bytes <= 0:
        raise FormatError(f"chunks cannot have {chunk_bytes} bytes")
    whole = _Object(algorithm, compression)
    chunks: list[Chunk] = []
    size = 0
    while True:
        part, count = _Object(algorithm, compression), 0
        while count < chunk_bytes:
            block = stream.read(min(_BLOCK_BYTES, chunk_bytes - count))
            if not block:
                break
            whole.update(block)
            part.update(block)
            count += len(block)
        if count:
            chunks.append(Chunk(size, count, part.hash()))
        size += count
        if count < chunk_bytes:
            break
    is_chunked = len(chunks) > 1
    return Graft(
        size=size,
        checksum=whole.hash() if with_bulk or not is_chunked else None,
        compression=compression,
        algorithm=algorithm,
        chunks=tuple(chunks) if is_chunked else (),
    )


def write_graft(graft: Graft, target: Path, *, mode: int) -> None:
    """Put an empty file at `target` and the graft beside it. Raises OSError."""
    target.with_name(PREFIX + target.name).write_bytes(graft.serialize())
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    os.fchmod(fd, mode)
    os.close(fd)


def files_to_graft(source: Path, target: Path | None) -> list[tuple[Path, Path | None]]:
    """Which files are grafted to where; the directories they go to are made.

    A directory stands for all regular files below it. Raises PathRefused, OSError.
    """
    if not source.is_dir():
        if target is not None and target.is_dir():
            target = target / source.name
        return [(source, target)]
    if target is not None and not target.is_dir():
        raise PathRefused(f"{source} is a directory, but {target} is not")
    pairs: list[tuple[Path, Path | None]] = []
    for here, directories, names in os.walk(source):
        directories.sort()
        there = target / Path(here).relative_to(source) if target is not None else None
        if there is not None:
            there.mkdir(exist_ok=True)
            shutil.copymode(here, there)
        for name in sorted(names):
            file = Path(here, name)
            if file.is_file() and not file.is_symlink():
                pairs.append((file, there / name if there is not None else None))
    return pairs
