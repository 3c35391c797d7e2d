"""The object store protocol, and the only reader of objects for everything above storage.

Names are repository-relative: `.cvmfspublished`, `data/XX/REST[suffix]`. A store moves bytes and
judges none; the sink it pours them into does. That is why a store takes a sink and returns no
bytes: a store that can ask somewhere else (another proxy, another host, past a cache) does so when
the sink says the bytes are corrupt, and nobody can forget the check.
"""

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, Protocol, cast, runtime_checkable

from isal import igzip_lib

from outcrop.formats.hashes import Compression, ContentHash, ObjectRef, new_hasher
from outcrop.storage.errors import InvalidName, ObjectCorrupt, ObjectTooBig

MAX_NAMED_FILE_BYTES = 64 * 1024 * 1024
"""Limit of a mutable file (`.cvmfspublished` and friends) where no tighter one is known."""

MAX_UNSIZED_OBJECT_BYTES = 1024 * 1024 * 1024
"""Limit of an object whose size no catalog tells, where the caller knows no tighter one."""


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

        Raises ObjectNotFound, ObjectCorrupt (also for a range the file does not hold),
        ObjectTooBig, InvalidName or StorageUnavailable; each names the place that was asked. What
        the sink raises goes through unless asking elsewhere helps.
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

    def replace(self, name: str, data: bytes, expected: bytes | None) -> None:
        """Put a file where `expected` is what is there now (`None`: nothing). Else: FileChanged.

        Of two who expect the same only one gets through, as far as the place can see to that.
        """

    def exists(self, name: str) -> bool:
        """Whether the file is there."""

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the file is there with this content, as far as that can be told cheaply.

        False makes the caller write it, so a store may always say so.
        """

    def remove(self, name: str) -> None:
        """Delete the file; it need not exist."""

    def iter_names(self, prefix: str = "") -> Iterator[str]:
        """All names below a prefix, in no order, without leftovers of unfinished writes."""

    def sync(self) -> None:
        """Return when everything written so far survives a power cut."""


@runtime_checkable
class BulkStore(WritableStore, Protocol):
    """A place that deletes many files at once sooner than one after the other."""

    def remove_many(self, names: Sequence[str]) -> None:
        """Delete files; they need not exist. Raises StorageError, with some deleted maybe."""


def remove_files(store: WritableStore, names: Sequence[str]) -> None:
    """Delete files as fast as the store can; they need not exist."""
    if isinstance(store, BulkStore):
        store.remove_many(names)
        return
    for name in names:
        store.remove(name)


class FileFacts(NamedTuple):
    """A stored file from outside: its size in bytes, and when it was written, in unix time."""

    size: int
    modified_at: int


@runtime_checkable
class DatedStore(WritableStore, Protocol):
    """A place that can tell about a file without handing it out."""

    def find_facts(self, name: str) -> FileFacts | None:
        """What is known of the file; `None` if it is not there."""


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

    `out` must be seekable and is emptied first, and again whenever the transfer starts over.
    Nothing in it may be used before `finish` returned. `limit` bounds the plain bytes where the
    reference does not know the size, so a decompression bomb stops early. The stored bytes are
    bounded too: by what so many plain bytes could need at worst.
    """

    def __init__(self, ref: ObjectRef, out: BinaryIO, *, limit: int) -> None:
        self._ref = ref
        self._out = out
        self._limit = ref.size if ref.size is not None else limit
        self._stored_limit = self._limit
        if ref.compression is Compression.ZLIB:
            self._stored_limit += self._limit // 4 + _ZLIB_OVERHEAD_BYTES
        _empty(out)
        self._reset()

    def _reset(self) -> None:
        self._hasher = new_hasher(self._ref.hash.algorithm)
        self._inflater = _new_inflater() if self._ref.compression is Compression.ZLIB else None
        self._stored_size = 0
        self._plain_size = 0

    def begin(self) -> None:
        """Start over."""
        if self._stored_size:
            _empty(self._out)
            self._reset()

    def write(self, block: bytes) -> None:
        """Hash, inflate, write. Raises ObjectTooBig, ObjectCorrupt."""
        if not block:
            return
        self._stored_size += len(block)
        if self._stored_size > self._stored_limit:
            raise self._too_many("stored")
        self._hasher.update(block)
        if self._inflater is None:
            self._emit(block)
        else:
            self._inflate(self._inflater, block)

    def _inflate(self, inflater: igzip_lib.IgzipDecompressor, block: bytes) -> None:
        if inflater.eof:
            raise ObjectCorrupt(f"{self._ref.path}: bytes after the end of the zlib stream")
        while True:
            step = min(_INFLATE_STEP, self._limit - self._plain_size + 1)
            try:
                plain = inflater.decompress(block, step)
            except _InflateError as error:
                raise ObjectCorrupt(f"{self._ref.path}: not a zlib stream: {error}") from error
            self._emit(plain)
            if inflater.eof:
                if inflater.unused_data:
                    raise ObjectCorrupt(f"{self._ref.path}: bytes after the end of the zlib stream")
                return
            if inflater.needs_input:
                return
            block = b""  # the inflater kept what it has not unpacked yet

    def _emit(self, plain: bytes) -> None:
        self._plain_size += len(plain)
        if self._plain_size > self._limit:
            raise self._too_many("plain")
        self._out.write(plain)

    def _too_many(self, form: str) -> ObjectCorrupt | ObjectTooBig:
        if self._ref.size is not None:
            return ObjectCorrupt(
                f"{self._ref.path}: too many {form} bytes, its catalog says {self._ref.size}"
            )
        return ObjectTooBig(
            f"{self._ref.path}: too many {form} bytes, at most {self._limit} plain ones are taken"
        )

    def finish(self) -> None:
        """Raises ObjectCorrupt unless stream end, hash and size are all right."""
        found = self._hasher.hash()
        if found != self._ref.hash:
            raise ObjectCorrupt(f"{self._ref.path}: content hash is {found}")
        if self._inflater is not None and not self._inflater.eof:
            raise ObjectCorrupt(f"{self._ref.path}: the zlib stream is cut short")
        if self._ref.size is not None and self._plain_size != self._ref.size:
            raise ObjectCorrupt(
                f"{self._ref.path}: has {self._plain_size} bytes, its catalog says {self._ref.size}"
            )


def _empty(out: BinaryIO) -> None:
    # Never truncate for nothing: ext4 then writes the file to disk as soon as it is closed.
    if out.seek(0, io.SEEK_END) > 0:
        out.seek(0)
        out.truncate()


_INFLATE_STEP = 1 << 20
_ZLIB_OVERHEAD_BYTES = 4096
_InflateError = cast("type[Exception]", igzip_lib.IsalError)
"""isal's type stubs call its exception class an exception instance."""


def _new_inflater() -> igzip_lib.IgzipDecompressor:
    # Not isal_zlib.decompressobj: with a length limit it takes all input, keeps output back, and
    # has no way to tell.
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)


class ObjectOpener(Protocol):
    """Objects as open files: what repositories and mounts read through. Safe for many threads."""

    def open_object(
        self, ref: ObjectRef, *, pin: bool = False, limit: int = MAX_UNSIZED_OBJECT_BYTES
    ) -> int:
        """A new read-only file descriptor of exactly the plain, checked bytes, at position 0.

        It is a regular file and the caller's to close. `pin` keeps the object in the cache for as
        long as the descriptor (or a duplicate) is open. `limit` bounds an object of unknown size.
        Raises what `ObjectStore.fetch` raises, and StorageFull.
        """


def check_name(name: str) -> str:
    """Return a store name as it is, or raise InvalidName if it could lead out of the store."""
    if not name.isascii():
        try:
            name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise InvalidName(f"{name[:100]!r} is no bytes") from error
    if "\0" in name or not _NO_NAMES.isdisjoint(name.split("/")):
        raise InvalidName(f"{name[:100]!r} is not the name of a stored file")
    return name


_NO_NAMES = frozenset({"", ".", ".."})


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
