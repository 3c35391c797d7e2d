"""What to put into a simulated repository: nodes by path, and the catalogs they fall into."""

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MTIME = 1_600_000_000


@dataclass(frozen=True, kw_only=True)
class Node:
    """What all kinds of entries have; `mode` without the file type."""

    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = MTIME
    mtime_ns: int | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def file_type(self) -> int:
        """The S_IF… bits."""
        return stat.S_IFREG


@dataclass(frozen=True)
class File(Node):
    """A regular file.

    `chunk_bytes` cuts it into chunks of that size. `link_group` other than 0 makes all files of
    the directory with that number one hard-linked file. `is_external`: not among the objects but
    on the external server. `is_compressed`: as the repository has it unless told.
    """

    data: bytes = b""
    chunk_bytes: int | None = None
    link_group: int = 0
    is_external: bool = False
    is_compressed: bool | None = None
    is_direct_io: bool = False


@dataclass(frozen=True)
class Symlink(Node):
    """A symbolic link."""

    target: bytes
    mode: int = field(default=0o777, kw_only=True)

    @property
    def file_type(self) -> int:
        """The S_IF… bits."""
        return stat.S_IFLNK


@dataclass(frozen=True)
class Directory(Node):
    """A directory; those on the way to a path need not be named."""

    mode: int = field(default=0o755, kw_only=True)

    @property
    def file_type(self) -> int:
        """The S_IF… bits."""
        return stat.S_IFDIR


@dataclass(frozen=True)
class Special(Node):
    """A fifo, socket or device: `kind` is its S_IF… bits."""

    kind: int
    rdev: int = 0

    @property
    def file_type(self) -> int:
        """The S_IF… bits."""
        return self.kind


Content = bytes | File | Symlink | Directory | Special


def complete(files: Mapping[bytes, Content], nested: Iterable[bytes]) -> dict[bytes, Node]:
    """All nodes by path: the root, directories on the way and catalog markers included."""
    nodes: dict[bytes, Node] = {b"": Directory()}
    for path, content in files.items():
        nodes[path] = File(content) if isinstance(content, bytes) else content
    for path in nested:
        nodes.setdefault(path + b"/.cvmfscatalog", File(b""))
    for path in list(nodes):
        while (path := parent_of(path)) not in nodes:
            nodes[path] = Directory()
    return dict(sorted(nodes.items()))


def owner(path: bytes, nested: frozenset[bytes]) -> bytes:
    """The mountpoint of the catalog a path is in; a mountpoint itself is in its own catalog."""
    while path and path not in nested:
        path = parent_of(path)
    return path


def parent_of(path: bytes) -> bytes:
    """The directory a path is in."""
    return path.rpartition(b"/")[0]
