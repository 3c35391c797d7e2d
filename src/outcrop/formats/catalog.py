"""Catalogs: the rows of a subtree's directory entries. Spec: docs/reference/formats/catalog.md.

This module knows what the columns mean, bit by bit; opening SQLite files is `repository.catalogs`'s
job. Paths are bytes, relative to the repository root: the root is `b""`, all others begin with `/`
and do not end with one. In nested catalogs, too, paths count from the root of the repository.
"""

import hashlib
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntFlag
from struct import Struct
from typing import Any, Self

from outcrop.errors import FormatError
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm
from outcrop.formats.rows import read_integer, text_of

SCHEMA = "2.5"
SCHEMA_REVISION = 7
READABLE_SCHEMAS = ("2.4", "2.5")
DEFAULT_TTL_SECONDS = 240

MAX_NAME_BYTES = 255
MAX_SYMLINK_BYTES = 4095
"""What Linux can have on disk, so what a publisher can have read."""

_TWO_NUMBERS = Struct("<qq")
_MAX_UINT32 = 0xFFFFFFFF
_MAX_MODE = 0o177777
_NS_PER_SECOND = 1_000_000_000

DDL = (
    "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
    "CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, "
    "parent_2 INTEGER, hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, "
    "mtimens INTEGER, flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, "
    "xattr BLOB, CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2))",
    "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)",
    "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, "
    "hash BLOB, CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size), "
    "FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2))",
    "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, "
    "CONSTRAINT pk_nested_catalogs PRIMARY KEY (path))",
    "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, "
    "CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))",
    "CREATE TABLE statistics (counter TEXT, value INTEGER, "
    "CONSTRAINT pk_statistics PRIMARY KEY (counter))",
)
"""What a writer executes for a new catalog, in this order (schema 2.5 revision 7)."""


def path_hash(path: bytes) -> tuple[int, int]:
    """The key of a path: both halves of its MD5 as little-endian signed 64-bit numbers."""
    first, second = _TWO_NUMBERS.unpack(hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


def parent_hash(path: bytes) -> tuple[int, int]:
    """The `parent_1, parent_2` of a path; the root directory has (0, 0)."""
    return path_hash(path.rpartition(b"/")[0]) if path else (0, 0)


class EntryFlags(IntFlag):
    """The `flags` column but for its two numbers: hash algorithm (8-10), compression (11-13)."""

    DIRECTORY = 1
    NESTED_MOUNTPOINT = 2
    FILE = 4
    SYMLINK = 8
    SPECIAL = 16
    NESTED_ROOT = 32
    CHUNKED = 64
    EXTERNAL = 128
    BIND_MOUNTPOINT = 0x4000
    HIDDEN = 0x8000
    DIRECT_IO = 0x10000


_ALGORITHM_SHIFT = 8
_COMPRESSION_SHIFT = 11

# Plain numbers: an IntFlag's `&` takes longer than all the rest of reading a row.
(_DIRECTORY, _NESTED_MOUNTPOINT, _FILE, _SYMLINK, _SPECIAL, _NESTED_ROOT, _CHUNKED, _EXTERNAL,
 _BIND_MOUNTPOINT, _HIDDEN, _DIRECT_IO) = map(int, EntryFlags)  # fmt: skip

COLUMNS = (
    "hardlinks", "hash", "size", "mode", "mtime", "mtimens", "flags", "name", "symlink",
    "uid", "gid", "xattr",
)  # fmt: skip
"""The columns of a directory entry, without its key, in the order of `DirectoryEntry.from_row`."""


def select_list(available: Collection[str]) -> str:
    """SQL for `COLUMNS` of a catalog that may be older: NULL for what revision < 7 lacks."""
    return ", ".join(c if c in available else f"NULL AS {c}" for c in COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One row: everything a repository says about one name.

    `mode` has the file type bits. `size` is in bytes; for a symlink the length of the raw target,
    for a device 0 (the number is in `rdev`, glibc's 64-bit encoding). `mtime` is unix seconds,
    `mtime_ns` the nanoseconds within the second, `None` where the publisher did not record them.
    `hardlink_group` is 0 for none, else unique in its catalog. `xattrs` is the blob of spec 7.
    """

    name: bytes
    mode: int
    nlink: int = 1
    hardlink_group: int = 0
    size: int = 0
    rdev: int = 0
    mtime: int = 0
    mtime_ns: int | None = None
    uid: int = 0
    gid: int = 0
    content: ContentHash | None = None
    algorithm: HashAlgorithm = HashAlgorithm.SHA1
    compression: Compression = Compression.ZLIB
    symlink: bytes = b""
    xattrs: bytes | None = None
    is_nested_mountpoint: bool = False
    is_nested_root: bool = False
    is_bind_mountpoint: bool = False
    is_hidden: bool = False
    is_chunked: bool = False
    is_external: bool = False
    is_direct_io: bool = False

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_special(self) -> bool:
        """Whether it is a fifo, socket or device."""
        return not (self.is_directory or self.is_regular or self.is_symlink)

    @property
    def flags(self) -> int:
        """The `flags` column, both numbers included."""
        if self.is_directory:
            mountpoint = _mountpoint_kind(
                (_NESTED_ROOT if self.is_nested_root else 0)
                | (_NESTED_MOUNTPOINT if self.is_nested_mountpoint else 0)
                | (_BIND_MOUNTPOINT if self.is_bind_mountpoint else 0)
            )
            return _DIRECTORY | mountpoint | (_HIDDEN if self.is_hidden else 0)
        if self.is_symlink:
            return _FILE | _SYMLINK
        if self.is_special:
            return _FILE | _SPECIAL
        has_hash = self.content is not None or self.is_chunked
        return (
            _FILE
            | (_CHUNKED if self.is_chunked else 0)
            | (_EXTERNAL if self.is_external else 0)
            | (_DIRECT_IO if self.is_direct_io else 0)
            | (self.algorithm.number - 1 if has_hash else 0) << _ALGORITHM_SHIFT
            | self.compression.value << _COMPRESSION_SHIFT
        )

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Self:
        """Read the values of `COLUMNS` as SQLite gives them (text as bytes).

        Raises FormatError where a value is of the wrong kind or contradicts another. Only the
        root of a catalog has an empty name; that is for the caller to know.
        """
        hardlinks, digest, size, mode, mtime, mtime_ns, bits, name, symlink, uid, gid, xattrs = row
        _check_types(row)
        _check_kind(name, mode, bits)
        regular = stat.S_ISREG(mode)
        directory = stat.S_ISDIR(mode)
        device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
        mountpoint = _mountpoint_kind(bits) if directory else 0
        chunked = regular and bits & _CHUNKED != 0
        algorithm, compression = HashAlgorithm.SHA1, Compression.ZLIB
        if regular:
            compression = _compression((bits >> _COMPRESSION_SHIFT) & 7, name)
            if digest or chunked:
                algorithm = HashAlgorithm.from_number(((bits >> _ALGORITHM_SHIFT) & 7) + 1)
        return cls(
            name=name,
            mode=mode,
            nlink=hardlinks & _MAX_UINT32,
            hardlink_group=hardlinks >> 32,
            size=len(symlink or b"") if stat.S_ISLNK(mode) else 0 if device else size,
            rdev=size if device else 0,
            mtime=mtime,
            mtime_ns=mtime_ns,
            uid=uid & _MAX_UINT32,
            gid=gid & _MAX_UINT32,
            content=ContentHash(algorithm, digest) if digest and regular else None,
            algorithm=algorithm,
            compression=compression,
            symlink=symlink or b"",
            xattrs=xattrs or None,
            is_nested_mountpoint=mountpoint == _NESTED_MOUNTPOINT,
            is_nested_root=mountpoint == _NESTED_ROOT,
            is_bind_mountpoint=mountpoint == _BIND_MOUNTPOINT,
            is_hidden=directory and bits & _HIDDEN != 0,
            is_chunked=chunked,
            is_external=regular and bits & _EXTERNAL != 0,
            is_direct_io=regular and bits & _DIRECT_IO != 0,
        )

    def to_row(self) -> tuple[Any, ...]:
        """The values of `COLUMNS` for a writer, name and symlink as bytes.

        Names need not be UTF-8, so a writer's statement takes both as blobs and makes them text:
        `CAST(? AS TEXT)`.
        """
        return (
            self.hardlink_group << 32 | self.nlink,
            self.content.digest if self.content is not None else None,
            self.rdev if self.rdev else self.size,
            self.mode,
            self.mtime,
            self.mtime_ns,
            self.flags,
            self.name,
            self.symlink,
            self.uid,
            self.gid,
            self.xattrs,
        )


def _mountpoint_kind(bits: int) -> int:
    """A directory is at most one of the three kinds of mountpoint; the first of them wins."""
    for kind in (_NESTED_ROOT, _NESTED_MOUNTPOINT, _BIND_MOUNTPOINT):
        if bits & kind:
            return kind
    return 0


def _check_types(row: Sequence[Any]) -> None:
    """Refuse a row with a value of a type or size no writer puts there."""
    hardlinks, digest, size, mode, mtime, mtime_ns, bits, name, symlink, uid, gid, xattrs = row
    if type(name) is not bytes or len(name) > MAX_NAME_BYTES or b"/" in name or b"\0" in name:
        raise FormatError(f"catalog row has an impossible name: {name!r:.300}")
    if name in (b".", b".."):
        raise FormatError(f"catalog row has a name every directory has: {name!r}")
    for value in (hardlinks, size, mode, mtime, bits, uid, gid):
        if type(value) is not int:
            raise FormatError(f"catalog row {name!r}: a number is missing or of another kind")
    if size < 0 or hardlinks < 0:
        raise FormatError(f"catalog row {name!r}: negative size or link count")
    if mtime_ns is not None and (type(mtime_ns) is not int or not 0 <= mtime_ns < _NS_PER_SECOND):
        raise FormatError(f"catalog row {name!r}: impossible nanoseconds: {mtime_ns!r:.60}")
    for value in (digest, symlink, xattrs):
        if value is not None and type(value) is not bytes:
            raise FormatError(f"catalog row {name!r}: hash, symlink or xattrs are not bytes")
    if symlink and (len(symlink) > MAX_SYMLINK_BYTES or b"\0" in symlink):
        raise FormatError(f"catalog row {name!r}: impossible symlink target")


def _check_kind(name: bytes, mode: int, bits: int) -> None:
    """Refuse a row whose file type is unknown, or contradicts its flags."""
    if not 0 <= mode <= _MAX_MODE or stat.S_IFMT(mode) not in _KINDS:
        raise FormatError(f"catalog row {name!r}: mode {mode:o} is of no known file type")
    if not 0 <= bits <= _MAX_UINT32:
        raise FormatError(f"catalog row {name!r}: flags {bits} are out of range")
    directory, symlink = bits & _DIRECTORY != 0, bits & _SYMLINK != 0
    if stat.S_ISDIR(mode) != directory or stat.S_ISLNK(mode) != symlink:
        raise FormatError(f"catalog row {name!r}: mode {mode:o} contradicts its flags")
    if not name and not directory:
        raise FormatError("catalog row without a name is not a directory")


_KINDS = frozenset(
    (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR,
     stat.S_IFBLK)
)  # fmt: skip


def _compression(number: int, name: bytes) -> Compression:
    try:
        return Compression(number)
    except ValueError as error:
        raise FormatError(f"catalog row {name!r}: unknown compression {number}") from error


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row of `chunks`: `size` plain bytes at `offset` of the file."""

    offset: int
    size: int
    hash: ContentHash


@dataclass(frozen=True, slots=True)
class NestedCatalog:
    """One row of `nested_catalogs`: where a child catalog is mounted and which object it is.

    `size` is the number of bytes of its uncompressed database file (0: unknown, old schema).
    """

    path: bytes
    hash: ContentHash
    size: int


@dataclass(frozen=True, slots=True)
class Counters:
    """The statistics of one catalog (`self`) or of all below it (`subtree`); spec 6.7."""

    regular: int = 0
    symlink: int = 0
    special: int = 0
    dir: int = 0
    nested: int = 0
    chunked: int = 0
    chunks: int = 0
    file_size: int = 0
    chunked_size: int = 0
    xattr: int = 0
    external: int = 0
    external_file_size: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(*(getattr(self, f) + getattr(other, f) for f in COUNTER_NAMES))

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(*(getattr(self, f) - getattr(other, f) for f in COUNTER_NAMES))

    @property
    def entries(self) -> int:
        """All directory entries."""
        return self.regular + self.symlink + self.special + self.dir

    @classmethod
    def of_entry(cls, entry: DirectoryEntry, chunks: int = 0) -> "Counters":
        """What one entry adds, `chunks` being the number of its chunks."""
        xattr = 1 if entry.xattrs else 0
        if entry.is_directory:
            return cls(dir=1, xattr=xattr)
        if entry.is_symlink:
            return cls(symlink=1, xattr=xattr)
        if entry.is_special:
            return cls(special=1, xattr=xattr)
        return cls(
            regular=1,
            file_size=entry.size,
            xattr=xattr,
            chunked=int(entry.is_chunked),
            chunked_size=entry.size if entry.is_chunked else 0,
            chunks=chunks,
            external=int(entry.is_external),
            external_file_size=entry.size if entry.is_external else 0,
        )

    def csv(self) -> str:
        """`name,value` lines in upstream's order, as the magic attributes print them."""
        return "".join(f"{name},{getattr(self, name)}\n" for name in sorted(COUNTER_NAMES))


COUNTER_NAMES = tuple(f.name for f in fields(Counters))


@dataclass(frozen=True, slots=True)
class Statistics:
    """Both sets of counters of a catalog."""

    self_: Counters = field(default_factory=Counters)
    subtree: Counters = field(default_factory=Counters)

    @property
    def total(self) -> Counters:
        """This catalog and everything below it."""
        return self.self_ + self.subtree

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[object, object]]) -> "Statistics":
        """Read `counter, value` rows as SQLite gives them; counters an old revision lacks are 0.

        Raises FormatError.
        """
        values = {
            (name := text_of(counter, "statistics counter")): read_integer(value, f"counter {name}")
            for counter, value in rows
        }
        return cls(
            Counters(*(values.get(f"self_{name}", 0) for name in COUNTER_NAMES)),
            Counters(*(values.get(f"subtree_{name}", 0) for name in COUNTER_NAMES)),
        )

    def rows(self) -> list[tuple[str, int]]:
        """The 24 rows a writer stores."""
        return [
            (f"{kind}_{name}", getattr(counters, name))
            for kind, counters in (("self", self.self_), ("subtree", self.subtree))
            for name in COUNTER_NAMES
        ]


def check_schema(properties: Mapping[str, str]) -> int:
    """Refuse a catalog we cannot read; return its schema revision. Raises FormatError."""
    schema = properties.get("schema", "1.0")
    if schema not in READABLE_SCHEMAS:
        raise FormatError(f"catalog schema {schema:.20} is not supported: expected 2.4 or 2.5")
    return read_integer(properties.get("schema_revision", "0"), "catalog schema revision")
