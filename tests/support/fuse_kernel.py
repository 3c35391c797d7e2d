"""The other side of an engine, without a kernel: requests are written and answers read by hand.

The device is one end of a packet socket; read(2) and writev(2) on it behave as on /dev/fuse.
"""

import errno
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from outcrop.fuse.engine import Engine, EngineLimits
from outcrop.fuse.view import View

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, UNLINK = 1, 2, 3, 4, 5, 10
OPEN, READ, WRITE, STATFS, RELEASE, GETXATTR, LISTXATTR = 14, 15, 16, 17, 18, 22, 23
INIT, OPENDIR, READDIR, ACCESS, INTERRUPT, DESTROY, IOCTL = 26, 27, 28, 34, 36, 38, 39
BATCH_FORGET, READDIRPLUS, STATX = 42, 44, 52
NOTIFY_INVAL_INODE, NOTIFY_INVAL_ENTRY, NOTIFY_INC_EPOCH = 2, 3, 8

ASYNC_READ, NO_OPEN_SUPPORT, PARALLEL_DIROPS = 1 << 0, 1 << 17, 1 << 18
DO_READDIRPLUS, READDIRPLUS_AUTO, MAX_PAGES = 1 << 13, 1 << 14, 1 << 22
CACHE_SYMLINKS, NO_OPENDIR_SUPPORT, WRITEBACK = 1 << 23, 1 << 24, 1 << 16
EXPLICIT_INVAL_DATA, INIT_EXT, HAS_EXPIRE_ONLY = 1 << 25, 1 << 30, 1 << 35
MODERN = (
    ASYNC_READ
    | NO_OPEN_SUPPORT
    | PARALLEL_DIROPS
    | DO_READDIRPLUS
    | READDIRPLUS_AUTO
    | MAX_PAGES
    | CACHE_SYMLINKS
    | NO_OPENDIR_SUPPORT
    | EXPLICIT_INVAL_DATA
    | WRITEBACK
    | INIT_EXT
    | HAS_EXPIRE_ONLY
)

_HEADER = struct.Struct("<IIQQIIIHH")
_ANSWER = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_DEADLINE = 20.0


@dataclass(frozen=True)
class Attributes:
    """struct fuse_attr, as far as tests look at it."""

    ino: int
    size: int
    mtime: int
    mtime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int

    @classmethod
    def parse(cls, data: bytes) -> "Attributes":
        """From the bytes of a struct fuse_attr."""
        found = _ATTR.unpack_from(data)
        ino, size, _, _, mtime, _, _, mtime_ns, _, mode, nlink, uid, gid, rdev, _, _ = found
        return cls(ino, size, mtime, mtime_ns, mode, nlink, uid, gid, rdev)


@dataclass(frozen=True)
class Entry:
    """struct fuse_entry_out."""

    nodeid: int
    entry_valid: int
    attributes: Attributes

    @classmethod
    def parse(cls, data: bytes) -> "Entry":
        """From the bytes of an answer to LOOKUP."""
        nodeid, _, entry_valid, _, _, _ = _ENTRY.unpack_from(data)
        return cls(nodeid, entry_valid, Attributes.parse(data[_ENTRY.size :]))


@dataclass(frozen=True)
class Listed:
    """One name of a READDIR or READDIRPLUS answer."""

    name: bytes
    ino: int
    cookie: int
    type: int
    entry: Entry | None


@dataclass(frozen=True)
class Notice:
    """A notification: code and body."""

    code: int
    body: bytes

    def name(self) -> tuple[int, int, bytes]:
        """Of an INVAL_ENTRY: parent node, flags, name."""
        parent, length, flags = struct.unpack_from("<QII", self.body)
        return parent, flags, self.body[16 : 16 + length]

    def inode(self) -> tuple[int, int, int]:
        """Of an INVAL_INODE: node, offset, length."""
        node, offset, length = struct.unpack("<Qqq", self.body)
        return node, offset, length


class Refused(OSError):
    """The answer was an error."""


@dataclass
class Kernel:
    """Plays the kernel to an engine that serves a view in a thread."""

    view: View
    entry_timeout_seconds: float = 3600
    object_directory_fd: int | None = None
    use_no_open: bool = True
    limits: EngineLimits = field(default_factory=EngineLimits)
    minor: int = 45
    flags: int = MODERN
    pid: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.engine = Engine(
            self.view,
            theirs.detach(),
            object_directory_fd=self.object_directory_fd,
            entry_timeout_seconds=self.entry_timeout_seconds,
            use_no_open=self.use_no_open,
            limits=self.limits,
        )
        self._uniques = itertools.count(2, 2)
        self._answers: dict[int, tuple[int, bytes]] = {}
        self.notices: list[Notice] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        try:
            self.engine.serve()
        except BaseException as error:  # noqa: BLE001
            self.failure = error

    def __enter__(self) -> Self:
        self._thread.start()
        if self.minor:
            self.init(self.minor, self.flags)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._thread.join(_DEADLINE)
        assert not self._thread.is_alive(), "serve() did not end"
        self.engine.close()

    def unmount(self) -> None:
        """End the connection and wait for serve() to return."""
        self._socket.close()
        self.join()

    def join(self) -> None:
        """Wait for serve() to return."""
        self._thread.join(_DEADLINE)
        assert not self._thread.is_alive()

    def init(self, minor: int, flags: int, major: int = 7) -> tuple[int, ...]:
        """INIT; returns major, minor, max_readahead, flags of the answer."""
        body = struct.pack("<IIIII44x", major, minor, 131072, flags & 0xFFFFFFFF, flags >> 32)
        return struct.unpack_from("<IIII", self.ask(INIT, 0, body))

    def send_raw(self, packet: bytes) -> None:
        """Write any bytes to the device."""
        self._socket.send(packet)

    def send(self, opcode: int, nodeid: int, body: bytes = b"", *, pid: int | None = None) -> int:
        """Send a request, return its unique number."""
        unique = next(self._uniques)
        header = _HEADER.pack(
            _HEADER.size + len(body),
            opcode,
            unique,
            nodeid,
            0,
            0,
            self.pid if pid is None else pid,
            0,
            0,
        )
        self.send_raw(header + body)
        return unique

    def _receive(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._socket], [], [], seconds)
        if not ready:
            return False
        packet = self._socket.recv(2 << 20)
        length, error, unique = _ANSWER.unpack_from(packet)
        assert length == len(packet), "an answer with a wrong length"
        if unique == 0:
            self.notices.append(Notice(error, packet[16:]))
        else:
            assert unique not in self._answers, "a request was answered twice"
            self._answers[unique] = (-error, packet[16:])
        return True

    def has_answer(self, unique: int) -> bool:
        """Whether an answer is here, without waiting."""
        while self._receive(0):
            pass
        return unique in self._answers

    def wait(self, unique: int) -> bytes:
        """The answer's body. Raises Refused with the errno of an error."""
        deadline = time.monotonic() + _DEADLINE
        while unique not in self._answers:
            left = deadline - time.monotonic()
            assert left > 0, f"no answer to request {unique}"
            self._receive(left)
        error, body = self._answers.pop(unique)
        if error:
            assert body == b"", "an error with a body"
            raise Refused(error, errno.errorcode.get(error, str(error)))
        return body

    def ask(self, opcode: int, nodeid: int, body: bytes = b"") -> bytes:
        """Send and wait."""
        return self.wait(self.send(opcode, nodeid, body))

    def settle(self) -> list[Notice]:
        """All notifications so far; taken."""
        while self._receive(0):
            pass
        taken, self.notices = self.notices, []
        return taken

    # ---- requests

    def lookup(self, name: bytes, parent: int = 1) -> Entry:
        """LOOKUP; a negative entry has node 0."""
        return Entry.parse(self.ask(LOOKUP, parent, name + b"\0"))

    def walk(self, path: bytes) -> Entry:
        """LOOKUP of each part."""
        entry = Entry(1, 0, self.getattr(1))
        for name in path.strip(b"/").split(b"/"):
            entry = self.lookup(name, entry.nodeid)
        return entry

    def getattr(self, nodeid: int) -> Attributes:
        """GETATTR."""
        return Attributes.parse(self.ask(GETATTR, nodeid, bytes(16))[16:])

    def forget(self, nodeid: int, count: int = 1) -> None:
        """FORGET, to which there is no answer."""
        self.send(FORGET, nodeid, struct.pack("<Q", count))

    def batch_forget(self, *nodes: tuple[int, int]) -> None:
        """BATCH_FORGET, to which there is no answer."""
        body = struct.pack("<II", len(nodes), 0)
        self.send(BATCH_FORGET, 0, body + b"".join(struct.pack("<QQ", *node) for node in nodes))

    def send_read(self, nodeid: int, offset: int, size: int) -> int:
        """READ, not waited for."""
        return self.send(READ, nodeid, struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0))

    def read(self, nodeid: int, offset: int = 0, size: int = 131072) -> bytes:
        """READ."""
        return self.wait(self.send_read(nodeid, offset, size))

    def readdir(
        self, nodeid: int = 1, offset: int = 0, size: int = 4096, *, plus: bool = True
    ) -> list[Listed]:
        """READDIR or READDIRPLUS, one answer of it."""
        body = struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0)
        data = self.ask(READDIRPLUS if plus else READDIR, nodeid, body)
        assert len(data) <= size
        return list(_parse_listing(data, plus=plus))

    def list(self, nodeid: int = 1, size: int = 4096, *, plus: bool = True) -> list[Listed]:
        """A whole listing, in as many answers as it takes."""
        found: list[Listed] = []
        offset = 0
        while batch := self.readdir(nodeid, offset, size, plus=plus):
            found += batch
            offset = batch[-1].cookie
        return found

    def getxattr(self, nodeid: int, name: bytes, size: int = 4096) -> bytes:
        """GETXATTR."""
        return self.ask(GETXATTR, nodeid, struct.pack("<II", size, 0) + name + b"\0")

    def listxattr(self, nodeid: int, size: int = 4096) -> bytes:
        """LISTXATTR."""
        return self.ask(LISTXATTR, nodeid, struct.pack("<II", size, 0))

    def interrupt(self, unique: int) -> None:
        """INTERRUPT, to which there is no answer."""
        self.send(INTERRUPT, 0, struct.pack("<Q", unique))


def _parse_listing(data: bytes, *, plus: bool) -> Iterator[Listed]:
    at = 0
    while at < len(data):
        entry = Entry.parse(data[at:]) if plus else None
        start = at + (_ENTRY.size + _ATTR.size if plus else 0)
        ino, cookie, length, kind = struct.unpack_from("<QQII", data, start)
        name = data[start + 24 : start + 24 + length]
        assert len(name) == length
        yield Listed(name, ino, cookie, kind, entry)
        at = start + 24 + (length + 7) // 8 * 8
    assert at == len(data)
