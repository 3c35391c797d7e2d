"""Objects for storage tests: plain bytes with the reference and the stored form they belong to."""

import os
import zlib
from dataclasses import dataclass

from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, ObjectRef, Suffix


@dataclass(frozen=True)
class StoredObject:
    """An object in its two forms."""

    ref: ObjectRef
    plain: bytes
    stored: bytes

    def unsized(self) -> ObjectRef:
        """The reference of one who does not know the size."""
        return ObjectRef(self.ref.hash, self.ref.suffix, self.ref.compression)


def stored_object(
    plain: bytes,
    *,
    algorithm: HashAlgorithm = HashAlgorithm.SHA1,
    compression: Compression = Compression.ZLIB,
    suffix: Suffix = Suffix.FILE,
) -> StoredObject:
    """Make an object of plain bytes."""
    stored = zlib.compress(plain) if compression is Compression.ZLIB else plain
    ref = ObjectRef(ContentHash.of(stored, algorithm), suffix, compression, len(plain))
    return StoredObject(ref, plain, stored)


def random_object(size: int) -> StoredObject:
    """An object nobody has seen before, and that hardly compresses."""
    return stored_object(os.urandom(size))


def read_and_close(fd: int) -> bytes:
    """All bytes of an open file."""
    try:
        return os.pread(fd, os.fstat(fd).st_size + 1, 0)
    finally:
        os.close(fd)
