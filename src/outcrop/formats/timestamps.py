"""Points in time as users write them: `2026-11-22T07:43:54Z`, or a date alone."""

import calendar
import re

from outcrop.errors import FormatError

_UTC = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2}):(\d{2})Z)?", re.ASCII)
_DAYS_IN_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def parse_utc(text: str) -> int:
    """Unix time of `YYYY-MM-DDThh:mm:ssZ`; a date alone means its first second. UTC always.

    Raises FormatError.
    """
    match = _UTC.fullmatch(text)
    if match is None:
        raise FormatError(f"{text[:40]!r} is not a time: expected YYYY-MM-DDThh:mm:ssZ")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    if not 1 <= month <= 12 or year < 1970:
        raise FormatError(f"{text!r} is not a time: no such month")
    days = _DAYS_IN_MONTH[month - 1] + (month == 2 and calendar.isleap(year))
    if not 1 <= day <= days or hour > 23 or minute > 59 or second > 59:
        raise FormatError(f"{text!r} is not a time: no such day or hour")
    return calendar.timegm((year, month, day, hour, minute, second))
