"""The object store protocol, and the only reader of objects for everything above storage.

Names are repository-relative: `.cvmfspublished`, `data/XX/REST[suffix]`. A store moves bytes and
judges none; the sink it pours them into does. That is why a store takes a sink and returns no
bytes: a store that can ask somewhere else (another proxy, another host, past a cache) does so when
the sink says the bytes are corrupt, and nobody can forget the check.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from isal import isal_zlib

from outcrop.formats.hashes import Compression, ContentHash, ObjectRef, new_hasher
from outcrop.storage.errors import ObjectCorrupt, ObjectTooBig

MAX_NAMED_FILE_BYTES = 64 * 1024 * 1024
"""Limit of a mutable file (`.cvmfspublished` and friends) where no tighter one is known."""


class Sink(Protocol):
    """Where a store pours bytes. `begin` may come again: the transfer starts over."""

    def begin(self) -> None:
        """Forget everything written so far."""

    def write(self, block: bytes, /) -> None:
        """Take the next bytes. Raises ObjectTooBig or ObjectCorrupt as soon as it can know."""

    def finish(self) -> None:
        """All bytes were written. Raises ObjectCorrupt if they are not what was asked for."""


class ObjectStore(Protocol):
    """A place to read from. Safe to call from several threads."""

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """Pour the file `name` (or `(offset, length)` of it) into the sink, then finish it.

        Raises ObjectNotFound, ObjectCorrupt, ObjectTooBig or StorageUnavailable; each names the
        place that was asked. What the sink raises goes through unless asking elsewhere helps.
        """

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """The same for external data: `url_path` is the path inside the repository (spec 24).

        Raises StorageUnavailable where no external server is configured.
        """

    def close(self) -> None:
        """Let go of connections and threads."""


class WritableStore(ObjectStore, Protocol):
    """A place a publisher writes to. Every write is atomic: the old or the new, never half."""

    def write(self, name: str, data: bytes) -> None:
        """Put a file, replacing what was there. Raises StorageFull, StorageReadOnly."""

    def exists(self, name: str) -> bool:
        """Whether the file is there."""

    def remove(self, name: str) -> None:
        """Delete the file; it need not exist."""

    def iter_names(self, prefix: str = "") -> Iterator[str]:
        """All names below a prefix, in no order, without leftovers of unfinished writes."""

    def sync(self) -> None:
        """Return when everything written so far survives a power cut."""


class MemorySink:
    """Collects a whole (small) file; the limit is what the caller is ready to hold."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        """Start over."""
        self._parts.clear()
        self._size = 0

    def write(self, block: bytes) -> None:
        """Keep the block. Raises ObjectTooBig."""
        self._size += len(block)
        if self._size > self._limit:
            raise ObjectTooBig(f"more than {self._limit} bytes")
        self._parts.append(bytes(block))

    def finish(self) -> None:
        """Nothing to check: a mutable file is judged by its signature."""

    @property
    def data(self) -> bytes:
        """What was collected."""
        return b"".join(self._parts)


class ObjectSink:
    """Checks one object on the fly: hashes the stored bytes, writes the plain ones to `out`.

    `out` must be seekable and is truncated by `begin`. Nothing in it may be used before `finish`
    returned. `limit` bounds the plain bytes where the reference does not know the size, so a
    decompression bomb stops early.
    """

    def __init__(self, ref: ObjectRef, out: BinaryIO, *, limit: int) -> None:
        self._ref = ref
        self._out = out
        self._limit = ref.size if ref.size is not None else limit
        self.begin()

    def begin(self) -> None:
        """Start over."""
        self._out.seek(0)
        self._out.truncate()
        self._hasher = new_hasher(self._ref.hash.algorithm)
        self._inflate = (
            isal_zlib.decompressobj() if self._ref.compression is Compression.ZLIB else None
        )
        self._plain_size = 0

    def write(self, block: bytes) -> None:
        """Hash, inflate, write. Raises ObjectTooBig, ObjectCorrupt."""
        self._hasher.update(block)
        if self._inflate is None:
            self._emit(bytes(block))
            return
        pending = block
        while pending:
            if self._inflate.eof:
                raise ObjectCorrupt(f"{self._ref.path}: bytes after the end of the zlib stream")
            try:
                plain = self._inflate.decompress(pending, _INFLATE_STEP)
            except isal_zlib.error as error:
                raise ObjectCorrupt(f"{self._ref.path}: not a zlib stream: {error}") from error
            self._emit(plain)
            pending = self._inflate.unconsumed_tail
            if not plain and not pending:
                break

    def _emit(self, plain: bytes) -> None:
        self._plain_size += len(plain)
        if self._plain_size > self._limit:
            raise ObjectTooBig(f"{self._ref.path}: more than {self._limit} bytes when unpacked")
        self._out.write(plain)

    def finish(self) -> None:
        """Raises ObjectCorrupt unless stream end, hash and size are all right."""
        found = self._hasher.hash()
        if found != self._ref.hash:
            raise ObjectCorrupt(f"{self._ref.path}: content hash is {found}")
        if self._inflate is not None and not self._inflate.eof:
            raise ObjectCorrupt(f"{self._ref.path}: the zlib stream is cut short")
        if self._ref.size is not None and self._plain_size != self._ref.size:
            raise ObjectCorrupt(
                f"{self._ref.path}: has {self._plain_size} bytes, its catalog says {self._ref.size}"
            )


_INFLATE_STEP = 1 << 20


def read_file(store: ObjectStore, name: str, *, limit: int = MAX_NAMED_FILE_BYTES) -> bytes:
    """Read a mutable, unhashed file whole; believing it is the business of `outcrop.trust`."""
    sink = MemorySink(limit)
    store.fetch(name, sink)
    return sink.data


def fetch_object(store: ObjectStore, ref: ObjectRef, out: BinaryIO, *, limit: int) -> None:
    """Write the plain bytes of an object to `out`; it holds them only if this returns."""
    sink = ObjectSink(ref, out, limit=limit)
    if ref.url_path is None:
        store.fetch(ref.path, sink)
    elif ref.offset is None:
        store.fetch_external(ref.url_path, sink)
    else:
        store.fetch_external(ref.url_path, sink, byte_range=(ref.offset, ref.size or 0))


def read_object(store: ObjectStore, ref: ObjectRef, *, limit: int) -> bytes:
    """The plain bytes of an object, checked. For objects that fit in memory."""
    out = io.BytesIO()
    fetch_object(store, ref, out, limit=limit)
    return out.getvalue()


def read_plain_object(store: ObjectStore, name: str, wanted: ContentHash, *, limit: int) -> bytes:
    """A named file whose hash over the plain bytes is known (`.cvmfsreflog`)."""
    data = read_file(store, name, limit=limit)
    found = ContentHash.of(data, wanted.algorithm)
    if found != wanted:
        raise ObjectCorrupt(f"{name}: content hash is {found}, expected {wanted}")
    return data
