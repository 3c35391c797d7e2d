"""What a tar archive says of one member: headers of all dialects, extended headers, sparse maps.

Pure: bytes in, values out; which header belongs to which member is `publisher.tar_stream`'s
knowledge. Read are v7, ustar, pax (also star's and libarchive's attributes) and GNU headers. Names
are bytes: no character set is assumed anywhere. User and group names are ignored.
"""

import base64
import binascii
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Final
from urllib.parse import unquote_to_bytes

from outcrop.formats.catalog import MAX_SYMLINK_BYTES
from outcrop.publisher.errors import ArchiveInvalid, LimitExceeded, MemberRefused

BLOCK_BYTES: Final = 512
MAX_PATH_BYTES: Final = 4095
"""What Linux takes as a path, so what a tree on disk can have had."""

MAX_RECORDS_BYTES: Final = 1 << 20
"""Limit of one extended header, and of all that the global ones of an archive say."""

MAX_EXTENTS: Final = 1 << 17
"""Limit of the pieces of data between the holes of one sparse file."""

Extents = list[tuple[int, int]]
"""Offset and length of each piece of data of a sparse file; the rest of it is zeros."""

_HEADER = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_MAX_ID = 0xFFFFFFFF - 1  # the last number means "nobody" to chown(2)
_MAX_TIME = 1 << 48
_NS = 1_000_000_000
_NUMBER = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,15})(?:\.([0-9]{0,32}))?")
_XATTR_KEY = b"SCHILY.xattr."
_LIBARCHIVE_XATTR_KEY = b"LIBARCHIVE.xattr."
_TEXTS = {b"path": "name", b"linkpath": "link"}
_NUMBERS = {b"uid": "uid", b"gid": "gid"}
_SPARSE_PAIR_KEYS = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_KINDS: Final = {
    b"0": stat.S_IFREG, b"\0": stat.S_IFREG, b"7": stat.S_IFREG, b"S": stat.S_IFREG,
    b"1": stat.S_IFREG, b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR, b"D": stat.S_IFDIR, b"6": stat.S_IFIFO,
}  # fmt: skip


@dataclass(slots=True)
class TarMember:
    """One member. `mode` has the file type; of a hard link it says "regular file".

    `stored_bytes` follow in the archive; `size` is what they make, more for a sparse file, whose
    pieces of data are `extents`. `link` is the target of a symlink, the other name of a hard link.
    `mtime_ns` are the nanoseconds within the second.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    mtime_ns: int = 0
    link: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    stored_bytes: int = 0
    extents: Extents | None = None

    @property
    def is_hard_link(self) -> bool:
        """Whether it is another name of a member before it."""
        return self.type == b"1"

    @property
    def shown(self) -> str:
        """Its name, for people."""
        return shown(self.name)


def shown(name: bytes) -> str:
    """A name of any length for a message."""
    return "member " + name[:300].decode("utf-8", "backslashreplace")


def is_header(block: bytes) -> bool:
    """Whether a block is as long as a header and has the right checksum."""
    if len(block) != BLOCK_BYTES:
        return False
    try:
        wanted = _number(block[148:156])
    except ValueError:
        return False
    found = sum(block) - sum(block[148:156]) + 8 * 0x20
    if found == wanted:
        return True
    # Some old tars added up signed bytes.
    high = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
    return found - 256 * high == wanted


def parse_header(block: bytes, *, at: int) -> TarMember:
    """Read a header; `at` is its place in the archive. Raises ArchiveInvalid."""
    if not is_header(block):
        raise ArchiveInvalid(
            f"the archive is damaged: at byte {at} there should be a header, with its checksum",
            hint="nothing was published; make or fetch the archive again",
        )
    (name, mode, uid, gid, size, mtime, _, kind, link, magic, _, _, major, minor, prefix, tail) = (
        _HEADER.unpack(block)
    )
    name = _text(name)
    if magic == b"ustar\x0000" and prefix[0]:
        prefix = prefix[:131] if tail[8:] == b"tar\0" else prefix
        name = _text(prefix) + b"/" + name
    try:
        is_device = kind in (b"3", b"4")
        member = TarMember(
            name, kind, _number(mode) & 0o7777 | _KINDS.get(kind, 0),
            _number(uid), _number(gid), _number(size), _number(mtime), 0, _text(link),
            (_number(major), _number(minor)) if is_device else (0, 0),
        )  # fmt: skip
    except ValueError as error:
        raise ArchiveInvalid(
            f"{shown(name)}: its header has an impossible number: {error}"
        ) from None
    if kind in (b"0", b"\0") and name.endswith(b"/"):  # v7 knew no other way to say it
        member.mode = member.mode & 0o7777 | stat.S_IFDIR
    member.stored_bytes = member.size
    return member


def complete(member: TarMember, records: Mapping[bytes, bytes]) -> None:
    """Apply the extended header's records to a member, then check what it says by now.

    Raises ArchiveInvalid, MemberRefused.
    """
    if records:
        _apply(member, records)
    _check_numbers(member)
    if b"\0" in member.name or len(member.name) > MAX_PATH_BYTES + 1:
        raise MemberRefused(
            f"{member.shown}: its name is longer than {MAX_PATH_BYTES} bytes or odd"
        )
    kind = stat.S_IFMT(member.mode)
    if not kind:
        raise MemberRefused(f"{member.shown} is of the unknown type {member.type!r}")
    if kind != stat.S_IFREG or member.is_hard_link:
        # A directory's size is a wish for room on disk, a link's that of what it leads to.
        member.size = 0
        member.stored_bytes = member.stored_bytes if member.type == b"D" else 0
    if kind == stat.S_IFLNK and not 0 < len(member.link) <= MAX_SYMLINK_BYTES:
        raise MemberRefused(f"{member.shown}: a symlink to {len(member.link)} bytes of name")
    if b"\0" in member.link:
        raise MemberRefused(f"{member.shown}: a link to an impossible name")


def _check_numbers(member: TarMember) -> None:
    if not 0 <= member.size < 1 << 62:
        raise ArchiveInvalid(f"{member.shown}: {member.size} bytes is no size of a file")
    for number in (member.uid, member.gid):
        if not 0 <= number <= _MAX_ID:
            raise MemberRefused(f"{member.shown}: {number} is no number of a user or group")
    if not -_MAX_TIME < member.mtime < _MAX_TIME:
        raise MemberRefused(f"{member.shown}: {member.mtime} is no time of any file")
    if not (0 <= member.rdev[0] < 1 << 12 and 0 <= member.rdev[1] < 1 << 20):
        raise MemberRefused(f"{member.shown}: {member.rdev} is no number of a device")


def _apply(member: TarMember, records: Mapping[bytes, bytes]) -> None:
    try:
        for key, value in records.items():
            if key in _TEXTS:
                setattr(member, _TEXTS[key], value)
            elif key in _NUMBERS:
                setattr(member, _NUMBERS[key], _decimal(value))
            elif key == b"size":
                member.size = member.stored_bytes = _decimal(value)
            elif key == b"mtime":
                member.mtime, member.mtime_ns = _time(value)
            elif key == b"SCHILY.devmajor":
                member.rdev = (_decimal(value), member.rdev[1])
            elif key == b"SCHILY.devminor":
                member.rdev = (member.rdev[0], _decimal(value))
            else:
                _apply_xattr(member, key, value)
    except ValueError as error:
        raise ArchiveInvalid(f"{member.shown}: its extended header is odd: {error}") from None
    if b"path" in records and member.type in (b"0", b"\0"):
        is_directory = member.name.endswith(b"/")
        member.mode = member.mode & 0o7777 | (stat.S_IFDIR if is_directory else stat.S_IFREG)


def _apply_xattr(member: TarMember, key: bytes, value: bytes) -> None:
    if key.startswith(_XATTR_KEY):
        name = key[len(_XATTR_KEY) :].replace(b"%3D", b"=").replace(b"%25", b"%")
        member.xattrs[name] = value
    elif key.startswith(_LIBARCHIVE_XATTR_KEY):
        name = unquote_to_bytes(key[len(_LIBARCHIVE_XATTR_KEY) :])
        try:
            plain = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error as error:
            raise ValueError(f"an attribute is no base64: {error}") from None
        member.xattrs.setdefault(name, plain)


def _text(padded: bytes) -> bytes:
    return padded.partition(b"\0")[0]


def _number(digits: bytes) -> int:
    """A number of a header: octal digits, or 256 to the power of anything if the first bit is set.

    Raises ValueError.
    """
    if digits[0] & 0x80:
        bits = 8 * len(digits) - 1
        value = int.from_bytes(digits, "big") & ((1 << bits) - 1)
        return value - (1 << bits) if value >> (bits - 1) else value
    text = digits.rstrip(b"\0 ")
    if not text.isdigit():  # int() takes signs, underscores and more
        text = digits.partition(b"\0")[0].strip(b" ")
        if not text:
            return 0
        if not text.isdigit():
            raise ValueError(repr(text))
    return int(text, 8)


def _decimal(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no number")
    return int(text)


def _time(text: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds, the latter never negative."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no time")
    sign, seconds, fraction = match.groups()
    total = int(seconds) * _NS + int((fraction or b"")[:9].ljust(9, b"0"))
    return divmod(-total if sign else total, _NS)


# --- extended headers ---


def parse_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """The `LENGTH KEY=VALUE` lines of an extended header. Raises ArchiveInvalid."""
    records = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if _NUMBER.fullmatch(digits) else 0
        equals = data.find(b"=", space, end)
        if end > len(data) or equals < 0 or data[end - 1 : end] != b"\n":
            raise ArchiveInvalid(f"an extended header is damaged near {data[position:][:40]!r}")
        records.append((data[space + 1 : equals], data[equals + 1 : end - 1]))
        position = end
    return records


def merge_records(
    known: Mapping[bytes, bytes], records: list[tuple[bytes, bytes]]
) -> dict[bytes, bytes]:
    """Later records replace earlier ones; one without a value makes an earlier one void.

    The pairs of a sparse map that come as two records each are gathered into one map.
    """
    merged = dict(known)
    pairs: list[bytes] = []
    for key, value in records:
        if key in _SPARSE_PAIR_KEYS:
            pairs.append(value)
        elif value or key.startswith((_XATTR_KEY, _LIBARCHIVE_XATTR_KEY)):
            merged[key] = value
        else:
            merged.pop(key, None)
    if pairs:
        merged[b"GNU.sparse.map"] = b",".join(pairs)
    return merged


# --- sparse files ---


def parse_sparse_block(block: bytes, *, first: bool) -> tuple[Extents, bool]:
    """The extents in an old GNU header, or in a block after it, and whether another one follows."""
    start, count, more = (386, 4, 482) if first else (0, 21, 504)
    extents: Extents = []
    try:
        for at in range(start, start + 24 * count, 24):
            if block[at] == 0:
                break
            extents.append((_number(block[at : at + 12]), _number(block[at + 12 : at + 24])))
    except ValueError as error:
        raise ArchiveInvalid(
            f"the map of a sparse file has an impossible number: {error}"
        ) from None
    return extents, block[more] != 0


def sparse_size(header: bytes) -> int:
    """What an old GNU header of a sparse file says the file's size is."""
    try:
        return _number(header[483:495])
    except ValueError as error:
        raise ArchiveInvalid(f"the size of a sparse file is no number: {error}") from None


def parse_sparse_map(text: bytes) -> Extents:
    """Extents in decimal digits, separated by commas (pax 0.0, 0.1) or lines (1.0)."""
    try:
        numbers = [_decimal(digits) for digits in text.replace(b"\n", b",").split(b",")]
    except ValueError as error:
        raise ArchiveInvalid(f"the map of a sparse file is odd: {error}") from None
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def set_sparse(member: TarMember, extents: Extents, size: int) -> None:
    """Make a member a sparse file. Raises ArchiveInvalid where the map is not true."""
    if len(extents) > MAX_EXTENTS:
        raise LimitExceeded(f"{member.shown}: {len(extents)} pieces, the limit is {MAX_EXTENTS}")
    position = 0
    for offset, length in extents:
        if offset < position or length < 0:
            raise ArchiveInvalid(f"{member.shown}: the map of this sparse file goes back")
        position = offset + length
    if not position <= size < 1 << 62:
        raise ArchiveInvalid(f"{member.shown}: data beyond the end of this sparse file")
    if sum(length for _, length in extents) != member.stored_bytes:
        raise ArchiveInvalid(
            f"{member.shown}: the map of this sparse file is not of the {member.stored_bytes} "
            "bytes that are there"
        )
    member.size = size
    member.extents = extents
