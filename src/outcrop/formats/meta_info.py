"""Meta info: JSON in which a repository says whom it belongs to and where it is from.

Spec: docs/reference/formats/meta-info.md.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from outcrop.errors import FormatError

MAX_BYTES: Final = 65536

SKELETON: Final[Mapping[str, object]] = {
    "administrator": "",
    "email": "",
    "organisation": "",
    "description": "",
    "url": "",
    "recommended-stratum0": "",
    "recommended-stratum1s": [],
    "custom": {},
}
"""The keys a new repository starts with. Others are allowed, none is required."""


def parse_meta_info(data: bytes) -> dict[str, Any]:
    """Read the object. Raises FormatError."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"meta info of {len(data)} bytes: the limit is {MAX_BYTES}")
    try:
        parsed = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"meta info is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise FormatError("meta info is JSON, but not an object")
    return parsed


def serialize_meta_info(meta_info: Mapping[str, Any]) -> bytes:
    """Write the object for people to read. Raises FormatError if it is too large or no JSON."""
    try:
        text = json.dumps(dict(meta_info), indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"meta info cannot be written as JSON: {error}") from error
    data = text.encode() + b"\n"
    if len(data) > MAX_BYTES:
        raise FormatError(f"meta info of {len(data)} bytes: the limit is {MAX_BYTES}")
    return data


def _refuse_constant(name: str) -> object:
    raise FormatError(f"meta info is not JSON: it has no {name}")
