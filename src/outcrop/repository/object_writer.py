"""Storing objects: compress, hash the result, write it under that hash if it is new."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from outcrop.formats.hashes import (
    Compression,
    ContentHash,
    HashAlgorithm,
    Suffix,
    hash_file_name,
)
from outcrop.storage.store import WritableStore

Compressor = Callable[[bytes], bytes]
"""Makes a zlib stream of bytes. Which one is a matter of speed and size, not of format."""


class StoredObject(NamedTuple):
    """What became of some bytes. `new_bytes` is what the store grew by: 0 if it had the object."""

    hash: ContentHash
    new_bytes: int


@dataclass(slots=True)
class ObjectTally:
    """How many objects a writer was given, and what the store grew by.

    Contents are files and chunks: `new_contents` were stored, here or, as external data, somewhere
    else; `known_contents` were there.
    """

    new_contents: int = 0
    known_contents: int = 0
    content_bytes: int = 0
    catalog_bytes: int = 0

    def count(self, suffix: Suffix, new_bytes: int) -> None:
        """Take one more; 0 bytes: it was there."""
        if suffix is Suffix.CATALOG:
            self.catalog_bytes += new_bytes
        elif suffix in (Suffix.FILE, Suffix.CHUNK):
            self.content_bytes += new_bytes
            if new_bytes:
                self.new_contents += 1
            else:
                self.known_contents += 1


class ObjectWriter:
    """Puts objects into a store. Safe to use from several threads."""

    def __init__(
        self, store: WritableStore, algorithm: HashAlgorithm, compressor: Compressor
    ) -> None:
        self.store = store
        self.algorithm = algorithm
        self.tally = ObjectTally()
        self._compressor = compressor
        self._lock = threading.Lock()

    def put(
        self,
        plain: bytes,
        suffix: Suffix = Suffix.FILE,
        compression: Compression = Compression.ZLIB,
    ) -> StoredObject:
        """Store one object. Two threads may write the same one; either is whole and right."""
        stored = self._pack(plain, compression)
        content_hash = ContentHash.of(stored, self.algorithm)
        name = f"data/{hash_file_name(content_hash)}{suffix.value}"
        new_bytes = 0
        if not self._has(name, stored):
            self.store.write(name, stored)
            new_bytes = len(stored)
        with self._lock:
            self.tally.count(suffix, new_bytes)
        return StoredObject(content_hash, new_bytes)

    def put_readable(self, plain: bytes, suffix: Suffix, compression: Compression) -> StoredObject:
        """Store one object that is read again before its revision is out."""
        return self.put(plain, suffix, compression)

    def identify(self, plain: bytes, compression: Compression = Compression.ZLIB) -> ContentHash:
        """The name of an object that is kept somewhere else; it counts as new, with no bytes."""
        with self._lock:
            self.tally.new_contents += 1
        return ContentHash.of(self._pack(plain, compression), self.algorithm)

    def _pack(self, plain: bytes, compression: Compression) -> bytes:
        return self._compressor(plain) if compression is Compression.ZLIB else plain

    def _has(self, name: str, stored: bytes) -> bool:
        """Whether the object is there, whole: one torn by a power cut gets written again."""
        return self.store.holds(name, stored)
