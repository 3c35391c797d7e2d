"""A view over a dictionary, for tests of the engine."""

import errno
import os
import threading
from collections.abc import Sequence

from outcrop.fuse.view import OPAQUE, Extent, Row, StatFs

ROOT = Row(b"", 256, 0o40755, 2, 0, 0, 4096, 0, 1000, None, None, OPAQUE, None, 0)


def file_row(name: bytes, content: bytes, **changes: object) -> Row:
    """A file whose content is its own key."""
    row = Row(
        name, 1000 + len(name), 0o100644, 1, 0, 0, len(content), 0, 5, 7, None, OPAQUE, content, 0
    )
    return row._replace(**changes)  # type: ignore[arg-type]


def directory_row(name: bytes, **changes: object) -> Row:
    """A directory."""
    row = Row(name, 2000 + len(name), 0o40755, 2, 0, 0, 4096, 0, 5, 7, None, OPAQUE, None, 0)
    return row._replace(**changes)  # type: ignore[arg-type]


def symlink_row(name: bytes, target: bytes, **changes: object) -> Row:
    """A symlink."""
    row = Row(name, 3000, 0o120777, 1, 0, 0, 0, 0, 5, 7, target, OPAQUE, None, 0)
    return row._replace(**changes)  # type: ignore[arg-type]


class DictView:
    """Lists what the dictionary says and remembers what it was asked.

    `gates` maps a path to an event that calls for that path wait for; `waiting` is released once
    by each call that has begun to wait.
    """

    def __init__(self, tree: dict[bytes, Sequence[tuple[object, ...]]] | None = None) -> None:
        self.tree = tree if tree is not None else {b"": []}
        self.root_row: tuple[object, ...] = ROOT
        self.calls: list[tuple[object, ...]] = []
        self.gates: dict[bytes, threading.Event] = {}
        self.waiting = threading.Semaphore(0)
        self.failures: dict[bytes, BaseException] = {}
        self.pieces: dict[bytes, Sequence[Extent]] = {}
        self.xattrs: dict[bytes, dict[bytes, bytes]] = {}
        self.statfs_answer: object = StatFs(512, 100, 50, 10, 5)

    def _enter(self, path: bytes, *call: object) -> None:
        self.calls.append(call)
        gate = self.gates.get(path)
        if gate is not None:
            self.waiting.release()
            assert gate.wait(60)
        if path in self.failures:
            raise self.failures[path]

    def root(self) -> Row:
        self.calls.append(("root",))
        return self.root_row  # type: ignore[return-value]

    def list_directory(self, path: bytes) -> Sequence[tuple[object, ...]]:
        self._enter(path, "list", path)
        if path not in self.tree:
            raise FileNotFoundError(errno.ENOENT, "no such directory")
        return self.tree[path]

    def open_extent(self, path: bytes, kind: int, content: bytes, size: int, offset: int) -> Extent:
        self._enter(path, "open", path, offset)
        if path in self.pieces:
            for piece in self.pieces[path]:
                if piece.offset <= offset < piece.offset + piece.length:
                    return piece._replace(fd=os.dup(piece.fd))
            raise AssertionError(f"no piece for {offset}")
        return Extent(memory_file(content), 0, size, 0)

    def list_xattrs(self, path: bytes) -> Sequence[bytes]:
        self._enter(path, "listxattr", path)
        return list(self.xattrs.get(path, {}))

    def get_xattr(self, path: bytes, name: bytes) -> bytes:
        self._enter(path, "getxattr", path, name)
        try:
            return self.xattrs.get(path, {})[name]
        except KeyError:
            raise OSError(errno.ENODATA, "no such attribute") from None

    def statfs(self) -> StatFs:
        self.calls.append(("statfs",))
        return self.statfs_answer  # type: ignore[return-value]

    def count(self, *call: object) -> int:
        """How often it was asked this."""
        return self.calls.count(call)


def memory_file(content: bytes) -> int:
    """An open file with this content."""
    fd = os.memfd_create("content", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd
