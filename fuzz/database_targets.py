"""Targets for what is inside databases: rows of any types, and whole damaged SQLite files."""

import io
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import replace

from tests.support.simulator import Directory, File, RepositorySimulator, Symlink

from fuzz.targets import Target, require
from outcrop.errors import FormatError
from outcrop.formats.catalog import COLUMNS as ENTRY_COLUMNS
from outcrop.formats.catalog import COUNTER_NAMES, DirectoryEntry, Statistics
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, ObjectRef
from outcrop.formats.history import COLUMNS as TAG_COLUMNS
from outcrop.formats.history import Tag
from outcrop.formats.reflog import COLUMNS as REF_COLUMNS
from outcrop.formats.reflog import Ref
from outcrop.repository.catalogs import Catalog
from outcrop.storage.errors import ObjectCorrupt, ObjectTooBig
from outcrop.storage.store import ObjectSink

Cell = None | int | float | str | bytes


def cells(data: bytes, count: int) -> list[Cell]:
    """Bytes read as cells: a letter for the kind, then the value; NULL when they run out."""
    stream = io.BytesIO(data)
    found: list[Cell] = []
    while len(found) < count:
        kind = stream.read(1)
        if kind == b"i":
            found.append(int.from_bytes(stream.read(8), "little", signed=True))
        elif kind == b"f":
            found.append(struct.unpack("<d", stream.read(8).ljust(8, b"\0"))[0])
        elif kind in (b"b", b"t"):
            value = stream.read(int.from_bytes(stream.read(1), "little"))
            found.append(value if kind == b"b" else value.decode("utf-8", "replace"))
        else:
            found.append(None)
    return found


def encoded(row: tuple[Cell, ...]) -> bytes:
    """Cells as the bytes `cells` reads them from."""
    parts = []
    for value in row:
        if isinstance(value, int):
            parts.append(b"i" + value.to_bytes(8, "little", signed=True))
        elif isinstance(value, float):
            parts.append(b"f" + struct.pack("<d", value))
        elif isinstance(value, (str, bytes)):
            raw = value.encode() if isinstance(value, str) else value
            parts.append((b"t" if isinstance(value, str) else b"b") + bytes((len(raw),)) + raw)
        else:
            parts.append(b"n")
    return b"".join(parts)


def entry_row(data: bytes) -> None:
    """Read a catalog's row."""
    with suppress(FormatError):
        entry = DirectoryEntry.from_row(cells(data, len(ENTRY_COLUMNS)))
        require(DirectoryEntry.from_row(entry.to_row()) == entry, "written back differently")
        require(0 <= entry.size < 2**63 and 0 <= entry.nlink < 2**32, "impossible numbers")


def tag_row(data: bytes) -> None:
    """Read a history's row."""
    with suppress(FormatError):
        tag = Tag.from_row(cells(data, len(TAG_COLUMNS)))
        require(Tag.from_row(tag.to_row()) == tag, "written back differently")


def ref_row(data: bytes) -> None:
    """Read a reflog's row."""
    with suppress(FormatError):
        ref = Ref.from_row(cells(data, len(REF_COLUMNS)))
        require(Ref.from_row(ref.to_row()) == ref, "written back differently")


def statistics(data: bytes) -> None:
    """Read a catalog's counters."""
    values = cells(data, len(COUNTER_NAMES))
    with suppress(FormatError):
        counters = [(f"self_{n}", v) for n, v in zip(COUNTER_NAMES, values, strict=True)]
        read = Statistics.from_rows(counters)
        require(Statistics.from_rows(read.rows()) == read, "written back differently")


def catalog_file(data: bytes) -> None:
    """Open a catalog and read all of it a reader can ask for."""
    fd = os.memfd_create("catalog")
    os.write(fd, data)
    with suppress(FormatError):
        catalog = Catalog(fd, SHA1)
        with suppress(FormatError):
            require(catalog.statistics is not None, "no statistics")
        require(isinstance(catalog.ttl_seconds, int), "no TTL")
        for path in (b"", b"/dir", b"/nothing"):
            with suppress(FormatError):
                for entry in catalog.entries(path):
                    require(b"/" not in entry.name, "a name that leads elsewhere")
            with suppress(FormatError):
                catalog.find(path)
        with suppress(FormatError):
            position = 0
            for chunk in catalog.chunks(b"/dir/big", HashAlgorithm.SHA1):
                require(chunk.offset == position, "chunks with a gap")
                position += chunk.size


def stored_object(data: bytes) -> None:
    """Unpack an object whose hash is right, but whose content is anything."""
    out = io.BytesIO()
    compression = Compression.NONE if data[:1] == b"n" else Compression.ZLIB
    ref = ObjectRef(ContentHash.of(data, HashAlgorithm.SHA1), compression=compression)
    with suppress(ObjectCorrupt, ObjectTooBig):
        sink = ObjectSink(ref, out, limit=1 << 16)
        for start in range(0, len(data), 7):
            sink.write(data[start : start + 7])
        sink.finish()
        plain = out.getvalue()
        require(len(plain) <= 1 << 16, "more than the limit")
        expected = data if compression is Compression.NONE else zlib.decompress(data)
        require(plain == expected, "other bytes than zlib's")


SHA1 = ContentHash(HashAlgorithm.SHA1, bytes(range(20)))
ENTRY = DirectoryEntry(name=b"f", mode=0o100644, size=5, content=SHA1, mtime_ns=7)
TAG = Tag("v1", SHA1, 4096, 3, 1_700_000_000, description="about")


def _catalog_seeds() -> tuple[bytes, ...]:
    simulator = RepositorySimulator(
        {
            b"/dir/big": File(bytes(300), chunk_bytes=100),
            b"/dir/l": Symlink(b"f"),
            b"/n/f": b"x",
            b"/e": Directory(xattrs={b"user.a": b"b"}),
        },
        nested=[b"/n"],
        now=1_700_000_000,
    )
    names = [simulator.catalog_name(), simulator.catalog_name(b"/n")]
    return tuple(zlib.decompress(simulator.objects[name]) for name in names)


DATABASE_TARGETS = {
    "entry_row": Target(
        "a row of any types gives an entry that reads back equal once written, or FormatError",
        entry_row,
        (encoded(ENTRY.to_row()), encoded(replace(ENTRY, mode=0o120777, symlink=b"x").to_row())),
    ),
    "tag_row": Target(
        "a row of any types gives a tag that reads back equal once written, or FormatError",
        tag_row,
        (encoded(TAG.to_row()),),
    ),
    "ref_row": Target(
        "a row of any types gives a reference that reads back equal once written, or FormatError",
        ref_row,
        (encoded((str(SHA1), 1, 1_700_000_000)),),
    ),
    "statistics": Target(
        "counters of any types give statistics that read back equal once written, or FormatError",
        statistics,
        (encoded((1, "2", b"3", 4)),),
    ),
    "catalog_file": Target(
        "a file gives a catalog or FormatError, and so does each question to it",
        catalog_file,
        _catalog_seeds(),
    ),
    "stored_object": Target(
        "bytes unpack to what zlib says within the limit, or ObjectCorrupt or ObjectTooBig",
        stored_object,
        (zlib.compress(b"hello\n" * 100), b"n plain", zlib.compress(bytes(1 << 17))),
    ),
}
