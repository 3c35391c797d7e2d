"""What a static HTTP/1.1 server reads in a request and decides about ranges. No IO.

The subset a repository needs: GET and HEAD of files, no bodies, no validators (format-spec
section 1 switches them off), one byte range. Everything else is refused by a status.
"""

import re
from dataclasses import dataclass
from typing import Self

MAX_HEAD_BYTES = 16 * 1024
"""Longest request line and headers together."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")
_HEADER = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\r\n\0]*?)[ \t]*\r\n")
_AUTHORITY = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})", re.IGNORECASE)


class Refused(Exception):
    """The request is answered by this status and the connection closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` has neither host nor query and is not percent-decoded."""

    method: str
    path: str
    keeps_alive: bool
    byte_range: str | None = None

    @classmethod
    def parse(cls, head: bytes) -> Self:
        """Read request line and headers, up to and with the empty line. Raises Refused."""
        line = _REQUEST_LINE.match(head)
        if line is None:
            raise Refused(400)
        if line[3] != b"1":
            raise Refused(505)
        headers = _parse_headers(head, line.end())
        is_http_1_0 = line[4] == b"0"
        if not is_http_1_0 and b"host" not in headers:
            raise Refused(400)
        method = line[1].decode("ascii")
        if method not in ("GET", "HEAD"):
            raise Refused(405)
        return cls(
            method,
            _path(line[2].decode("ascii")),
            _keeps_alive(headers, is_http_1_0=is_http_1_0),
            _wanted_range(headers) if method == "GET" else None,
        )


def find_head(data: bytes | bytearray) -> int:
    """Length of the request head at the start of `data`, 0 while it is unfinished.

    Raises Refused when it cannot become one within the limit.
    """
    end = data.find(b"\r\n\r\n")
    if end > MAX_HEAD_BYTES - 4 or (end < 0 and len(data) >= MAX_HEAD_BYTES):
        raise Refused(431)
    return end + 4 if end >= 0 else 0


def choose_range(wanted: str | None, size: int) -> tuple[int, int] | None:
    """Offset and length to send, or None for the whole file.

    More than one range, or one that is no range, is answered whole, as the standard allows.
    Raises Refused(416) for a range that holds no byte of the file.
    """
    match = _RANGE.fullmatch(wanted) if wanted is not None else None
    if match is None or match[0].endswith("=-"):
        return None
    first, last = match[1], match[2]
    if not first:
        length = min(int(last), size)
        start = size - length
    else:
        start = int(first)
        if last and int(last) < start:
            return None
        length = min(int(last) + 1 if last else size, size) - start
    if length <= 0:
        raise Refused(416)
    return start, length


def _parse_headers(head: bytes, position: int) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    end = len(head) - 2
    while position < end:
        match = _HEADER.match(head, position)
        if match is None:
            raise Refused(400)
        headers[match[1].lower()] = match[2]
        position = match.end()
    return headers


def _path(target: str) -> str:
    authority = _AUTHORITY.match(target)
    if authority is not None:
        target = target[authority.end() :]
    return target.partition("?")[0]


def _keeps_alive(headers: dict[bytes, bytes], *, is_http_1_0: bool) -> bool:
    """A request that brings a body is answered, but where the next one begins is not guessed."""
    if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
        return False
    connection = headers.get(b"connection", b"").lower()
    return b"keep-alive" in connection if is_http_1_0 else b"close" not in connection


def _wanted_range(headers: dict[bytes, bytes]) -> str | None:
    """`If-Range` compares with a validator; files here have none, so it never holds."""
    if b"if-range" in headers:
        return None
    value = headers.get(b"range")
    return value.decode("latin-1") if value is not None else None
