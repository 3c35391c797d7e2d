"""Values out of rows of a SQLite file: of the right type, or FormatError.

SQLite's columns have no types, so any cell of a hostile file may hold an integer, a float, text, a
blob or NULL.
"""

import re
from typing import Final

from outcrop.errors import FormatError
from outcrop.formats.hashes import ContentHash
from outcrop.formats.signed import parse_content_hash

MAX_INT64: Final = (1 << 63) - 1


def check_integer(
    value: object, subject: str, *, minimum: int = 0, maximum: int = MAX_INT64
) -> int:
    """The cell, if it is an integer in the range. Raises FormatError naming the subject."""
    if type(value) is not int or not minimum <= value <= maximum:
        raise FormatError(f"{subject} is no integer from {minimum} to {maximum}: {_show(value)}")
    return value


def read_integer(value: object, subject: str) -> int:
    """The cell, if it is an integer of 64 bits or the decimal text of one.

    Counters and properties are text in some files and numbers in others. Raises FormatError.
    """
    if type(value) is bytes:
        value = value.decode("ascii", "replace")
    if type(value) is str and _DECIMAL.fullmatch(value) is not None:
        value = int(value)
    return check_integer(value, subject, minimum=-MAX_INT64 - 1)


_DECIMAL = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def text_of(value: object, subject: str) -> str:
    """Text of a cell, read as `str` or `bytes`; bytes that are not UTF-8 are shown escaped."""
    if type(value) is bytes:
        return value.decode("utf-8", "backslashreplace")
    if type(value) is str:
        return value
    raise FormatError(f"{subject} is not text: {_show(value)}")


def hash_of(value: object, subject: str) -> ContentHash:
    """A content hash out of its text form."""
    text = text_of(value, f"{subject}: hash")
    try:
        return parse_content_hash(text.encode("utf-8", "backslashreplace"))
    except FormatError as error:
        raise FormatError(f"{subject}: {error}") from error


def _show(value: object) -> str:
    return repr(value)[:60]
