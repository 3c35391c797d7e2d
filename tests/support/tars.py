"""Tar archives for tests: by Python's and GNU's writers, and by hand where no writer would."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from backports import zstd

END = bytes(1024)
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}


def header(
    name: bytes = b"file",
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    """One header block, with the right checksum."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = (
        name.ljust(100, b"\0") + mode + uid + b"0000000\0" + digits + mtime + b" " * 8 + kind
        + link.ljust(100, b"\0") + magic + bytes(64) + b"%07o\0%07o\0" % device
        + prefix.ljust(155, b"\0") + bytes(12)
    )  # fmt: skip
    assert len(block) == 512
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(name: bytes, data: bytes = b"", **options: object) -> bytes:
    """A header and what follows it."""
    return header(name, size=len(data), **options) + padded(data)


def padded(data: bytes) -> bytes:
    """Content as it follows a header."""
    return data + bytes(-len(data) % 512)


def extended(records: Iterable[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """An extended header with these records."""
    text = b""
    for key, value in records:
        line = b" " + key + b"=" + value + b"\n"
        length = len(line)
        while length != len(line) + len(str(length)):
            length = len(line) + len(str(length))
        text += b"%d" % length + line
    return member(b"PaxHeaders/x", text, kind=kind)


def pack(source: Path, format_: int = tarfile.PAX_FORMAT) -> bytes:
    """A directory's content as Python's tarfile writes it, attributes included."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=format_, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for path in [source, *sorted(source.rglob("*"))]:
            name = "./" + str(path.relative_to(source))
            info = archive.gettarinfo(path, name)
            if format_ == tarfile.PAX_FORMAT:
                info.pax_headers |= _attributes(path)
                info.pax_headers["mtime"] = _decimal(path.lstat().st_mtime_ns)
            else:
                info.mtime = path.lstat().st_mtime_ns // 1_000_000_000
            if info.isreg():
                with path.open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    return out.getvalue()


def _decimal(nanoseconds: int) -> str:
    return f"{nanoseconds // 1_000_000_000}.{nanoseconds % 1_000_000_000:09}"


def _attributes(path: Path) -> dict[str, str]:
    return {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode(
            "utf-8", "surrogateescape"
        )
        for name in os.listxattr(path, follow_symlinks=False)
    }


def gnu_tar(source: Path, *options: str) -> bytes:
    """A directory's content as GNU tar writes it."""
    command = ["tar", "-c", "-f", "-", *options, "-C", str(source), "."]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
