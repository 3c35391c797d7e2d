"""A store in a bucket: Amazon S3 and what speaks its language, Google's and Azure's, by obstore.

A put is atomic and, once acknowledged, durable: nothing is left to do for `sync`. Requests that
fail for a reason that may pass are repeated by obstore, as often as the clients were told to.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PreconditionError,
)
from obstore.store import ObjectStore as Client

from outcrop.storage.cloud_errors import cloud_error, is_not_partial, is_not_supported
from outcrop.storage.errors import (
    FileChanged,
    InvalidName,
    ObjectCorrupt,
    ObjectNotFound,
    StorageError,
    StorageUnavailable,
)
from outcrop.storage.store import MAX_NAMED_FILE_BYTES, FileFacts, Sink, check_name

if TYPE_CHECKING:
    from obstore import Attributes, ObjectMeta, UpdateVersion

_BLOCK_BYTES: Final = 1 << 20
_PART_BYTES: Final = 16 << 20
_MAX_SINGLE_PUT_BYTES: Final = 64 << 20
_PARALLEL_PARTS: Final = 4
_MAX_BULK_KEYS: Final = 1000
_FAILURES: Final = (BaseError, OSError, ValueError)
"""What obstore raises: its own tree, FileNotFoundError for a 404, ValueError for odd names."""


@dataclass(frozen=True, slots=True)
class CloudClients:
    """The obstore clients of one bucket: `writer` may send headers that only puts have."""

    reader: Client
    writer: Client


class CloudStore:
    """The files below `prefix` in a bucket.

    `place` is what messages call it. `peeks`: whether an object is asked for before it is put,
    which saves its upload where it is there. Several threads may and should use it at once.
    """

    def __init__(
        self, clients: CloudClients, *, prefix: str = "", place: str, peeks: bool = True
    ) -> None:
        self._reader = clients.reader
        self._writer = clients.writer
        self._prefix = f"{prefix}/" if prefix else ""
        self._place = place
        self._peeks = peeks
        self._deletes_singly = False

    def fetch(self, name: str, sink: Sink, *, byte_range: tuple[int, int] | None = None) -> None:
        """Pour a file into the sink. Raises ObjectNotFound, AccessDenied, StorageUnavailable."""
        key = self._key(name)
        blocks = self._iter_file(key) if byte_range is None else self._iter_range(key, byte_range)
        sink.begin()
        for block in blocks:
            sink.write(block)
        sink.finish()

    def fetch_external(
        self, url_path: bytes, sink: Sink, *, byte_range: tuple[int, int] | None = None
    ) -> None:
        """Raises StorageUnavailable: a bucket has no external data."""
        shown = url_path.decode("utf-8", "backslashreplace")
        raise StorageUnavailable(
            f"{shown}: external data, and {self._place} does not know its server",
            hint="open the repository through HTTP with an external URL",
        )

    def _iter_file(self, key: str) -> Iterator[bytes]:
        with self._errors(key):
            result = obstore.get(self._reader, key)
            for block in result.stream(min_chunk_size=_BLOCK_BYTES):
                yield bytes(block)

    def _iter_range(self, key: str, byte_range: tuple[int, int]) -> Iterator[bytes]:
        offset, length = byte_range
        with self._errors(key):
            size = obstore.head(self._reader, key)["size"]
        if offset + length > size:
            raise ObjectCorrupt(
                f"{self._shown(key)}: has {size} bytes, none at {offset}..{offset + length}"
            )
        if length == 0:
            return
        try:
            with self._errors(key):
                data = obstore.get_range(self._reader, key, start=offset, length=length)
            yield bytes(data)
        except StorageUnavailable as error:
            if not is_not_partial(error.__cause__):
                raise
            yield from self._cut_out(key, offset, length)

    def _cut_out(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        """The range, from a server that only sends whole files (or says that it does)."""
        position, end = 0, offset + length
        for block in self._iter_file(key):
            part = block[max(offset - position, 0) : max(end - position, 0)]
            position += len(block)
            if part:
                yield part
            if position >= end:
                return
        raise ObjectCorrupt(f"{self._shown(key)}: ends at {position}, expected {end}")

    def write(self, name: str, data: bytes) -> None:
        """Put a file: the old or the new is seen, never half. Returns when it is durable."""
        key = self._key(name)
        with self._errors(key):
            obstore.put(
                self._writer,
                key,
                data,
                attributes=_headers(name),
                use_multipart=len(data) > _MAX_SINGLE_PUT_BYTES,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARALLEL_PARTS,
            )

    def replace(self, name: str, data: bytes, expected: bytes | None) -> None:
        """Put a file where `expected` is what is there now. Raises FileChanged.

        The service sees to it, where it knows conditions; one that ignores them leaves a moment
        between the look and the put.
        """
        key = self._key(name)
        found, version = self._read_version(key)
        if found != expected:
            raise FileChanged(f"{self._shown(key)}: somebody else wrote it meanwhile")
        try:
            with self._errors(key):
                obstore.put(
                    self._writer,
                    key,
                    data,
                    attributes=_headers(name),
                    mode="create" if found is None else version or "overwrite",
                    use_multipart=False,
                )
        except FileChanged:
            # A put whose answer was lost is repeated, and finds its own work.
            if self._read_version(key)[0] != data:
                raise
        except StorageUnavailable as error:
            if not is_not_supported(error.__cause__):
                raise
            self.write(name, data)

    def _read_version(self, key: str) -> "tuple[bytes | None, UpdateVersion]":
        """What is there and what to call it in a condition: nothing, for a server without."""
        try:
            with self._errors(key):
                result = obstore.get(self._reader, key)
                meta = result.meta
                if meta["size"] > MAX_NAMED_FILE_BYTES:
                    raise ObjectCorrupt(f"{self._shown(key)}: too large for what it is")
                return bytes(result.bytes()), _version_of(meta)
        except ObjectNotFound:
            return None, {}

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return self._find_size(name) is not None

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the file is there with this size: puts are atomic, and its name is its hash."""
        return self._peeks and self._find_size(name) == len(data)

    def _find_size(self, name: str) -> int | None:
        facts = self.find_facts(name)
        return None if facts is None else facts.size

    def find_facts(self, name: str) -> FileFacts | None:
        """Size and time of a file, `None` if it is not there."""
        key = self._key(name)
        try:
            with self._errors(key):
                meta = obstore.head(self._reader, key)
        except ObjectNotFound:
            return None
        return FileFacts(meta["size"], int(meta["last_modified"].timestamp()))

    def remove(self, name: str) -> None:
        """Delete the file; it need not exist."""
        key = self._key(name)
        try:
            with self._errors(key):
                obstore.delete(self._writer, key)
        except ObjectNotFound:
            return

    def remove_many(self, names: Sequence[str]) -> None:
        """Delete files; they need not exist. A thousand with a request, where the service can."""
        keys = [self._key(name) for name in names]
        for at in range(0, len(keys), _MAX_BULK_KEYS):
            if not self._deletes_singly:
                try:
                    with self._errors(""):
                        # The writer may send headers that are for puts, and deletes one by one.
                        obstore.delete(self._reader, keys[at : at + _MAX_BULK_KEYS])
                    continue
                except StorageError:  # not each service can, and some want what is there
                    pass
            for name in names[at : at + _MAX_BULK_KEYS]:
                self.remove(name)
            self._deletes_singly = True

    def iter_names(self, prefix: str = "") -> Iterator[str]:
        """All names that begin with the prefix; keys that are no names of files are left out."""
        above, _, name_prefix = prefix.rpartition("/")
        if above:
            check_name(above)
        below = (self._prefix + above).rstrip("/")
        with self._errors(below):
            if name_prefix:
                yield from self._iter_alike(below, self._prefix + prefix)
            else:
                yield from self._iter_below(below)

    def _iter_alike(self, directory: str, start: str) -> Iterator[str]:
        """Names in a directory that begin alike: no need to list all that is beside them."""
        found = obstore.list_with_delimiter(self._reader, prefix=directory or None)
        for meta in found["objects"]:
            if meta["path"].startswith(start):
                yield from self._names_of([meta["path"]])
        for below in found["common_prefixes"]:
            if below.startswith(start):
                yield from self._iter_below(below.rstrip("/"))

    def _iter_below(self, directory: str) -> Iterator[str]:
        for page in obstore.list(self._reader, prefix=directory or None):
            yield from self._names_of(found["path"] for found in page)

    def _names_of(self, keys: Iterable[str]) -> Iterator[str]:
        for key in keys:
            name = key.removeprefix(self._prefix)
            if _is_name(name):
                yield name

    def sync(self) -> None:
        """Nothing to do: an acknowledged put survives."""

    def close(self) -> None:
        """Nothing to let go of: connections go with the clients."""

    def _key(self, name: str) -> str:
        if not _is_encodable(check_name(name)):
            raise InvalidName(f"{name[:100]!r}: a bucket has names in UTF-8 only")
        return self._prefix + name

    def _shown(self, key: str) -> str:
        return f"{self._place}/{key}" if key else self._place

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError) as error:
            raise FileChanged(f"{self._shown(key)}: somebody else wrote it meanwhile") from error
        except _FAILURES as error:
            raise cloud_error(error, self._shown(key)) from error


def _version_of(meta: "ObjectMeta") -> "UpdateVersion":
    told = {"e_tag": meta["e_tag"], "version": meta["version"]}
    return cast("UpdateVersion", {key: value for key, value in told.items() if value is not None})


def _headers(name: str) -> "Attributes":
    """What readers and proxies are told of a file (spec 29)."""
    if name.endswith(".html"):
        return {"Content-Type": "text/html"}
    if _OBJECT.match(name):
        return {"Content-Type": "application/octet-stream", "Cache-Control": "max-age=259200"}
    return {"Content-Type": "application/x-cvmfs", "Cache-Control": "max-age=61"}


_OBJECT: Final = re.compile(r"data/[0-9a-f]{2}/")


def _is_encodable(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except InvalidName:
        return False
    return True
