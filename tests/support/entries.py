"""Nodes of a simulated tree as directory entries, their content put into an object store."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tests.support.tree import Directory, File, Node, Special, Symlink, parent_of

from outcrop.formats.catalog import Chunk, DirectoryEntry
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm, ObjectRef, Suffix
from outcrop.formats.xattrs import serialize_xattrs

Put = Callable[[bytes, Suffix, Compression], ContentHash]


@dataclass(frozen=True)
class Entry:
    """A row, its chunks, and the names of the objects it refers to."""

    row: DirectoryEntry
    chunks: tuple[Chunk, ...] = ()
    object_names: tuple[str, ...] = ()


def make_entries(
    nodes: Mapping[bytes, Node], put: Put, algorithm: HashAlgorithm, compression: Compression
) -> dict[bytes, Entry]:
    """The entry of each node; `put` stores an object."""
    subdirectories = Counter(
        parent_of(path) for path, node in nodes.items() if path and isinstance(node, Directory)
    )
    links = Counter(_link(path, node) for path, node in nodes.items())
    entries = {}
    for path, node in nodes.items():
        row = DirectoryEntry(
            name=path.rpartition(b"/")[2],
            mode=node.file_type | node.mode,
            mtime=node.mtime,
            mtime_ns=node.mtime_ns,
            uid=node.uid,
            gid=node.gid,
            algorithm=algorithm,
            xattrs=serialize_xattrs(node.xattrs),
        )
        if isinstance(node, Directory):
            entries[path] = Entry(replace(row, size=4096, nlink=2 + subdirectories[path]))
        elif isinstance(node, Symlink):
            entries[path] = Entry(replace(row, symlink=node.target, size=len(node.target)))
        elif isinstance(node, Special):
            entries[path] = Entry(replace(row, rdev=node.rdev))
        elif isinstance(node, File):
            if node.link_group:
                nlink = links[_link(path, node)]
                row = replace(row, nlink=nlink, hardlink_group=node.link_group)
            entries[path] = _file_entry(node, row, put, compression)
    return entries


def _link(path: bytes, node: Node) -> tuple[bytes, int] | None:
    is_linked = isinstance(node, File) and node.link_group
    return (parent_of(path), node.link_group) if is_linked else None  # type: ignore[attr-defined]


def _file_entry(node: File, row: DirectoryEntry, put: Put, compression: Compression) -> Entry:
    if node.is_external:
        compression = Compression.NONE
    elif node.is_compressed is not None:
        compression = Compression.ZLIB if node.is_compressed else Compression.NONE
    row = replace(
        row,
        size=len(node.data),
        compression=compression,
        is_external=node.is_external,
        is_direct_io=node.is_direct_io,
    )
    is_chunked = node.chunk_bytes is not None and len(node.data) > node.chunk_bytes
    step = node.chunk_bytes if is_chunked and node.chunk_bytes else max(len(node.data), 1)
    suffix = Suffix.CHUNK if is_chunked else Suffix.FILE
    chunks = []
    for offset in range(0, max(len(node.data), 1), step):
        piece = node.data[offset : offset + step]
        if node.is_external:
            content_hash = ContentHash.of(piece, row.algorithm)
        else:
            content_hash = put(piece, suffix, compression)
        chunks.append(Chunk(offset, len(piece), content_hash))
    names = () if node.is_external else tuple(ObjectRef(c.hash, suffix).path for c in chunks)
    if is_chunked:
        return Entry(replace(row, is_chunked=True), tuple(chunks), names)
    return Entry(replace(row, content=chunks[0].hash), (), names)
