"""What the static HTTP server answers: a range of one stored file, or a refusal.

The headers are those of format-spec section 1: mutable files are fresh for 61 seconds (squid does
not cache for 60 or less), objects for three days, and nothing can be asked "if modified".
"""

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

from outcrop.storage.http_request import Refused, Request, choose_range

logger = logging.getLogger(__name__)

_MUTABLE_SECONDS = 61
_OBJECT_SECONDS = 3 * 24 * 3600

_OBJECT = r"data/([0-9a-f]{2})/([0-9a-f]+(?:-[0-9a-z]+)?[A-Z]?)"
_SERVED = re.compile(
    rf"/cvmfs/([A-Za-z0-9][A-Za-z0-9._-]{{0,59}})/(?:(\.cvmfs[A-Za-z0-9._-]*)|{_OBJECT})"
)
_SHORTCUT = re.compile(_OBJECT)
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without content."""

    status: int
    size: int | None = None
    """Of the file, where the range was outside of it."""
    length: int = 0

    def head(self, *, keeps_alive: bool) -> bytes:
        """Status line and headers, to the empty line."""
        lines = ["Content-Length: 0", "Cache-Control: no-store"]
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        if self.size is not None:
            lines.append(f"Content-Range: bytes */{self.size}")
        return _head(self.status, lines, keeps_alive=keeps_alive)


@dataclass(frozen=True, slots=True)
class Content:
    """A range of an open file."""

    fd: int
    size: int
    offset: int
    length: int
    is_partial: bool
    is_mutable: bool

    @property
    def status(self) -> int:
        """206 where a range was asked for, else 200."""
        return HTTPStatus.PARTIAL_CONTENT if self.is_partial else HTTPStatus.OK

    def head(self, *, keeps_alive: bool) -> bytes:
        """Status line and headers, to the empty line."""
        kind = "x-cvmfs" if self.is_mutable else "octet-stream"
        fresh_seconds = _MUTABLE_SECONDS if self.is_mutable else _OBJECT_SECONDS
        lines = [
            f"Content-Type: application/{kind}",
            f"Content-Length: {self.length}",
            "Accept-Ranges: bytes",
            f"Cache-Control: max-age={fresh_seconds}",
            f"Expires: {_http_date(int(time.time()) + fresh_seconds)}",
        ]
        if self.is_partial:
            last = self.offset + self.length - 1
            lines.append(f"Content-Range: bytes {self.offset}-{last}/{self.size}")
        return _head(self.status, lines, keeps_alive=keeps_alive)


class ServedTree:
    """Finds the file a request path names, and nothing beside it.

    A path is matched as it stands, never decoded or joined; below the directory of a repository
    no symbolic link is followed, other than a shortcut to one of its objects.
    """

    def __init__(self, directory: Path, fqrns: frozenset[str] | None) -> None:
        self._directory = directory
        self._fqrns = fqrns

    @contextlib.contextmanager
    def open(self, request: Request) -> Iterator[Content | Refusal]:
        """What to answer; the file stays open inside the `with`."""
        match = _SERVED.fullmatch(request.path)
        if match is None or (self._fqrns is not None and match[1] not in self._fqrns):
            yield Refusal(HTTPStatus.NOT_FOUND)
            return
        try:
            fd = self._open_file(match[1], match[2], match[3], match[4])
        except OSError as error:
            yield Refusal(_status_of(error))
            return
        try:
            yield _content(fd, request, is_mutable=match[2] is not None)
        finally:
            os.close(fd)

    def _open_file(self, fqrn: str, named: str | None, prefix: str, rest: str) -> int:
        # The repository's own directory may be a symbolic link: that is the administrator's.
        root = os.open(self._directory / fqrn, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if named is None:
                return _open_object(root, prefix, rest)
            try:
                return os.open(named, _FILE, dir_fd=root)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
            # `.cvmfsalt-HASH` is a link to the object of that hash (format-spec section 1).
            target = _SHORTCUT.fullmatch(os.readlink(named, dir_fd=root))
            if target is None:
                raise FileNotFoundError(errno.ENOENT, "leads out of the repository", named)
            return _open_object(root, target[1], target[2])
        finally:
            os.close(root)


def _open_object(root: int, prefix: str, rest: str) -> int:
    data = os.open("data", _DIRECTORY, dir_fd=root)
    try:
        directory = os.open(prefix, _DIRECTORY, dir_fd=data)
    finally:
        os.close(data)
    try:
        return os.open(rest, _FILE, dir_fd=directory)
    finally:
        os.close(directory)


def _content(fd: int, request: Request, *, is_mutable: bool) -> Content | Refusal:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return Refusal(HTTPStatus.NOT_FOUND)
    size = found.st_size
    try:
        part = choose_range(request.byte_range, size)
    except Refused as refused:
        return Refusal(refused.status, size)
    offset, length = part or (0, size)
    return Content(fd, size, offset, length, is_partial=part is not None, is_mutable=is_mutable)


def _status_of(error: OSError) -> int:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
        return HTTPStatus.NOT_FOUND
    if error.errno in (errno.EACCES, errno.EPERM):
        return HTTPStatus.FORBIDDEN
    logger.warning("cannot open a stored file: %s", error)
    return HTTPStatus.SERVICE_UNAVAILABLE


def _head(status: int, lines: list[str], *, keeps_alive: bool) -> bytes:
    first = [
        f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}",
        "Server: outcrop",
        f"Date: {_http_date(int(time.time()))}",
        f"Connection: {'keep-alive' if keeps_alive else 'close'}",
    ]
    return "\r\n".join([*first, *lines, "", ""]).encode("ascii")


_dates: dict[int, str] = {}


def _http_date(at: int) -> str:
    """Rendered once a second for each distance, not once a request."""
    text = _dates.get(at)
    if text is None:
        if len(_dates) > 64:
            _dates.clear()
        text = _dates[at] = formatdate(at, usegmt=True)
    return text
