"""Extended attributes of a directory entry as one blob. Spec: docs/reference/formats/xattrs.md."""

from collections.abc import Mapping
from typing import Final

from outcrop.errors import FormatError

VERSION: Final = 1
MAX_ATTRIBUTES: Final = 255
MAX_NAME_BYTES: Final = 255
MAX_VALUE_BYTES: Final = 255
"""Counts and lengths are one byte each. (Upstream lets 256 in, and stores 0.)"""


def parse_xattrs(blob: bytes) -> dict[bytes, bytes]:
    """Names and values. Raises FormatError."""
    if len(blob) < 2 or blob[0] != VERSION:
        raise FormatError(f"extended attributes are not of version {VERSION}: {blob[:2].hex()}")
    attributes: dict[bytes, bytes] = {}
    position = 2
    for _ in range(blob[1]):
        header = blob[position : position + 2]
        if len(header) < 2:
            raise FormatError("extended attributes are cut short")
        value_start = position + 2 + header[0]
        position = value_start + header[1]
        name = blob[value_start - header[0] : value_start]
        if position > len(blob):
            raise FormatError("extended attributes are cut short")
        if not name or b"\0" in name or name in attributes:
            raise FormatError(f"extended attribute name {name!r} is empty, odd or there twice")
        attributes[name] = blob[value_start:position]
    if position != len(blob):
        raise FormatError(f"{len(blob) - position} bytes after the last extended attribute")
    return attributes


def serialize_xattrs(attributes: Mapping[bytes, bytes]) -> bytes | None:
    """The blob, names in byte order; `None`, as the catalog has it, for no attributes.

    Raises FormatError for what has no room: 256 attributes, a name or a value of 256 bytes.
    """
    if not attributes:
        return None
    if len(attributes) > MAX_ATTRIBUTES:
        raise FormatError(f"{len(attributes)} extended attributes: the limit is {MAX_ATTRIBUTES}")
    blob = bytearray((VERSION, len(attributes)))
    for name, value in sorted(attributes.items()):
        if not 0 < len(name) <= MAX_NAME_BYTES or b"\0" in name:
            raise FormatError(f"extended attribute name {name[:60]!r} is empty, odd or too long")
        if len(value) > MAX_VALUE_BYTES:
            raise FormatError(
                f"extended attribute {name!r} has {len(value)} bytes: the limit is "
                f"{MAX_VALUE_BYTES}"
            )
        blob += bytes((len(name), len(value))) + name + value
    return bytes(blob)
