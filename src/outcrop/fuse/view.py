"""What the engine asks of whatever is mounted: a tree, told one directory at a time.

A view knows no kernel; the engine knows no repository. The repository mount, a git mount and a
virtual folder are three views on one engine. Paths are bytes: `b""` is the root, all others begin
with `/`. A view is a function of the path at the moment of the call; everything that must survive
a change of the tree (content of open files) is in the content key.

Every method may be called from several threads at once and may block (a download); the engine
keeps answering other requests meanwhile. A method fails by raising an exception; its `errno`
attribute (`outcrop.errors`, `OSError`) is the answer to the kernel, EIO where it has none.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """One directory entry as the engine's C code reads it: a plain tuple of this shape.

    A view may hand rows straight from SQLite. `ino` is what `stat` shows (equal for hard links,
    never 0); an entry that is the same in a new tree goes on showing the number it had, so
    numbers of one tree should not come back in another for other files.
    `size` is in bytes, for a symlink 0 (the engine takes the target's length). `mtime_ns` is the
    nanoseconds within the second, `None` counts as 0. `target` is a symlink's target as it is to
    be shown. `kind` and `content` say how a regular file is read:

    * `OBJECT_SHA1`, `OBJECT_RMD160`, `OBJECT_SHAKE128`: `content` is a digest of 20 bytes. If the
      engine was given an object directory and a file `XX/REST` (plus `-rmd160`, `-shake128`) of
      exactly `size` bytes is in it, that file is the content, and the view is not asked.
      The upper four bits of such a `kind` are the view's own (how the object is stored).
    * `OPAQUE`: `content` is a key only the view understands.

    Where there is no such file the engine calls `View.open_extent`. Two rows with equal kind,
    content and size have equal content, whenever they were listed.

    `bits`: `ROW_HAS_XATTRS` there are extended attributes beside the view's magic ones,
    `ROW_HIDDEN` found by name but not listed, `ROW_DIRECT_IO` not cached by the kernel (only where
    the engine is asked to open files: `use_no_open=False`).

    Every value is checked; one that cannot be makes the whole directory unreadable (EIO), with the
    reason in the log.
    """

    name: bytes
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    rdev: int
    mtime: int
    mtime_ns: int | None
    target: bytes | None
    kind: int
    content: bytes | None
    bits: int


OPAQUE = 0
OBJECT_SHA1 = 1
OBJECT_RMD160 = 2
OBJECT_SHAKE128 = 3

ROW_HAS_XATTRS = 1
ROW_HIDDEN = 2
ROW_DIRECT_IO = 4


class Extent(NamedTuple):
    """Where a range of a file's bytes is: in another, open file.

    `length` bytes from `offset` of the file on are the bytes from `position` on of the file open
    as `fd`. The engine owns `fd` from then on and closes it.
    """

    fd: int
    offset: int
    length: int
    position: int


class StatFs(NamedTuple):
    """`statfs` of the mount; blocks are of `block_size` bytes."""

    block_size: int
    blocks: int
    blocks_free: int
    files: int
    files_free: int
    name_max: int = 255


class View(Protocol):
    """A read-only tree."""

    def root(self) -> Row:
        """The root directory's own row; its name is empty."""

    def list_directory(self, path: bytes) -> Sequence[tuple[object, ...]]:
        """All entries of a directory at once, as `Row`-shaped tuples, in any order."""

    def open_extent(self, path: bytes, kind: int, content: bytes, size: int, offset: int) -> Extent:
        """Find the bytes at `offset` of a file, downloading them if need be.

        The extent returned covers `offset`; the engine remembers it and asks again only for
        offsets outside. `path` is where the file was found, for messages and logs.
        """

    def list_xattrs(self, path: bytes) -> Sequence[bytes]:
        """Names of extended attributes to show in a listing."""

    def get_xattr(self, path: bytes, name: bytes) -> bytes:
        """Value of an attribute. Raises with errno ENODATA where there is none."""

    def statfs(self) -> StatFs:
        """File system numbers."""
