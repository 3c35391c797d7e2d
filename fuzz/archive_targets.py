"""Targets that read tar archives: as streams, and what their headers say."""

import io
import tarfile
from contextlib import suppress

from backports import zstd

from fuzz.targets import Target, require
from outcrop.publisher.errors import PublishError
from outcrop.publisher.tar_members import (
    MAX_PATH_BYTES,
    complete,
    merge_records,
    parse_header,
    parse_records,
)
from outcrop.publisher.tar_stream import TarReader

_MAX_CONTENT_BYTES = 1 << 22


def archive(data: bytes) -> None:
    """Read an archive to its end."""
    with suppress(PublishError):
        reader = TarReader(io.BytesIO(data))
        for member in reader:
            require(0 < len(member.name) + 1 <= MAX_PATH_BYTES + 2, "a name of impossible length")
            if member.size < _MAX_CONTENT_BYTES:  # holes are cheap to write and long to read
                size = sum(map(len, reader.blocks(member)))
                require(size == member.size, "content of another size than was said")


def header(data: bytes) -> None:
    """Read one header, its checksum put right, with an extended one before it."""
    block, records = data[:512].ljust(512, b"\0"), data[512:]
    block = block[:148] + b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:]) + block[156:]
    with suppress(PublishError):
        member = parse_header(block, at=0)
        complete(member, merge_records({}, parse_records(records)))
        require(0 <= member.size < 1 << 62 and 0 <= member.mtime_ns < 10**9, "impossible numbers")


def _seed(format_: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_, bufsize=512) as tar:
        info = tarfile.TarInfo("d/" * 60 + "file")
        info.size, info.mtime = 5, 1_700_000_000
        info.pax_headers = {"SCHILY.xattr.user.a": "b"} if format_ == tarfile.PAX_FORMAT else {}
        tar.addfile(info, io.BytesIO(b"hello"))
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "x" * 120
        tar.addfile(info)
    return out.getvalue()[:4000].ljust(4096, b"\0")


_SEEDS = (_seed(tarfile.GNU_FORMAT), _seed(tarfile.PAX_FORMAT))

ARCHIVE_TARGETS = {
    "archive": Target(
        "bytes give members whose content is of the size said, or a PublishError",
        archive,
        (*_SEEDS, *(zstd.compress(seed) for seed in _SEEDS)),
    ),
    "tar_header": Target(
        "a header gives a member with possible numbers, or a PublishError",
        header,
        (*_SEEDS, b"0".ljust(512, b"\0") + b"11 path=ab\n12 mtime=-.5\n9 uid=7\n"),
    ),
}
