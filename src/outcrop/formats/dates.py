"""Points in time as `date --date` reads them: `3 days ago`, `yesterday`, `2026-11-22 07:43:54`.

These are the values of `CVMFS_AUTO_TAG_TIMESPAN`, `CVMFS_AUTO_GC_TIMESPAN` and `gc -t`. All is UTC.
An expression is a sequence of items: a date, a time of day, a day of the week, relative items. What
is understood means the same to GNU date; what GNU date takes besides (military time zones, names
of time zones other than UTC, ordinal words beyond `next` and `last`) is refused, never guessed.
"""

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from outcrop.errors import FormatError

MAX_CHARACTERS: Final = 200
_DAY: Final = 86400
_HINT: Final = "for example '3 days ago', '2026-11-22', '2026-11-22 07:43:54' or '@1795335834'"

_MONTHS: Final = {
    name: number
    for number, full in enumerate(calendar.month_name)
    if full
    for name in (full.lower(), full[:3].lower())
} | {"sept": 9}
_WEEKDAYS: Final = {
    name: number
    for number, full in enumerate(calendar.day_name)
    for name in (full.lower(), full[:3].lower())
} | {"tues": 1, "wednes": 2, "thur": 3, "thurs": 3}
_UNITS: Final = {
    "year": ("months", 12), "month": ("months", 1),
    "fortnight": ("days", 14), "week": ("days", 7), "day": ("days", 1),
    "hour": ("seconds", 3600), "minute": ("seconds", 60), "min": ("seconds", 60),
    "second": ("seconds", 1), "sec": ("seconds", 1),
}  # fmt: skip
_DAY_SHIFTS: Final = {"yesterday": -1, "today": 0, "now": 0, "tomorrow": 1}
_ORDINALS: Final = {"last": -1, "this": 0, "next": 1}

_UNIT_NAMES = "|".join(sorted(_UNITS, key=len, reverse=True))
_UNIT = f"(?P<unit>{_UNIT_NAMES})s?"
_MONTH = f"(?P<monthname>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})"
_WEEKDAY = f"(?P<weekday>{'|'.join(sorted(_WEEKDAYS, key=len, reverse=True))})"
_END = r"(?![a-z0-9])"
# GNU date takes any signed number after a time of day for a time zone: `10:00 -1 day` is tomorrow.
_ZONE = (
    r"(?:\s*(?:(?P<utc>z|utc|ut|gmt)"
    rf"|(?P<zsign>[+-])(?P<zhour>\d\d):?(?P<zminute>\d\d)?(?!\s*(?:{_UNIT_NAMES}))))?"
    r"(?!\s*[+-])"
)


def parse_date(text: str, *, now: int) -> int:
    """The unix time an expression of GNU `date --date` means at `now`, in UTC.

    Fractions of a second are dropped. Raises FormatError.
    """
    wanted = text.strip().lower()
    if not wanted or len(wanted) > MAX_CHARACTERS or not wanted.isascii():
        raise _error(text)
    epoch = re.fullmatch(r"@\s*([+-]?\d{1,12})(?:[.,]\d+)?", wanted)
    if epoch is not None:
        return int(epoch[1]) - _has_negative_fraction(wanted)
    try:
        return _Moment(now).take(wanted)
    except (ValueError, OverflowError) as error:
        raise _error(text) from error


def _has_negative_fraction(text: str) -> bool:
    """`@-1.5` lies in the second that begins at -2."""
    return re.search(r"-\d+[.,]0*[1-9]", text) is not None


def _error(text: str) -> FormatError:
    return FormatError(f"{text[:60]!r} is not a point in time", hint=_HINT)


@dataclass(slots=True)
class _Relative:
    """What is added at the end: calendar months first, then days, then seconds."""

    months: int = 0
    days: int = 0
    seconds: int = 0

    def add(self, unit: str, count: int) -> None:
        """Add so many of a unit."""
        kind, size = _UNITS[unit]
        setattr(self, kind, getattr(self, kind) + count * size)


class _Moment:
    """The items of one expression as they are read; ValueError for what makes no sense."""

    def __init__(self, now: int) -> None:
        self._now = datetime.fromtimestamp(now, UTC)
        self._date: tuple[int, int, int] | None = None
        self._lacks_year = False
        self._seconds: int | None = None
        self._weekday: tuple[int, int] | None = None
        self._has_relative = False
        self._relative = _Relative()
        self._zone_seconds: int | None = None

    def take(self, text: str) -> int:
        """Read all items and return the unix time."""
        position = 0
        while position < len(text):
            for pattern, method in _ITEMS:
                match = pattern.match(text, position)
                if match is not None:
                    method(self, match)
                    position = match.end()
                    break
            else:
                raise ValueError("not understood")
            position = len(text) - len(text[position:].lstrip())
        return self._resolve()

    def iso_date(self, match: re.Match[str]) -> None:
        """`2026-11-22`, `2026/11/22`, `20261122`."""
        self._set_date(_year(match["year"]), int(match["month"]), int(match["day"]))

    def american_date(self, match: re.Match[str]) -> None:
        """`11/22/2026`, `11/22`."""
        year = self._now.year if match["year"] is None else _year(match["year"])
        self._set_date(year, int(match["month"]), int(match["day"]))

    def named_date(self, match: re.Match[str]) -> None:
        """`22 Nov 2026`, `22-Nov-2026`, `Nov 22, 2026`, `Nov 22`."""
        year = self._now.year if match["year"] is None else _year(match["year"])
        self._set_date(year, _MONTHS[match["monthname"]], int(match["day"]))
        self._lacks_year = match["year"] is None

    def year(self, match: re.Match[str]) -> None:
        """The `2026` at the end of `Sun Nov 22 18:26:53 UTC 2026`."""
        if self._date is None or not self._lacks_year:
            raise ValueError("a number alone")
        self._lacks_year = False
        self._date = (int(match["year"]), *self._date[1:])

    def _set_date(self, year: int, month: int, day: int) -> None:
        if self._date is not None:
            raise ValueError("two dates")
        self._date = (year, month, day)

    def time_of_day(self, match: re.Match[str]) -> None:
        """`07:43`, `07:43:54.5`, `7:43 pm`, `7am`, `07:43Z`, `07:43 +01:00`; after a `t`, too."""
        if self._seconds is not None:
            raise ValueError("two times of day")
        hour, minute = int(match["hour"]), int(match["minute"] or 0)
        second = int(match["second"] or 0)
        if match["half"] is not None:
            if not 1 <= hour <= 12:
                raise ValueError("no such hour")
            hour = hour % 12 + (12 if match["half"] == "p" else 0)
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError("no such time of day")
        self._seconds = hour * 3600 + minute * 60 + second
        if match["utc"] is not None or match["zsign"] is not None:
            self.zone(match)

    def zone(self, match: re.Match[str]) -> None:
        """`utc`, `gmt`, `z`, or after a time of day an offset."""
        if self._zone_seconds is not None:
            raise ValueError("two time zones")
        self._zone_seconds = 0
        if match["utc"] is None:
            offset = int(match["zhour"]) * 60 + int(match["zminute"] or 0)
            if offset > 24 * 60 or int(match["zminute"] or 0) > 59:
                raise ValueError("no such time zone")
            self._zone_seconds = 60 * (offset if match["zsign"] == "+" else -offset)

    def relative(self, match: re.Match[str]) -> None:
        """`3 days ago`, `-2 weeks`, `+1 month`, `year`, `last week`, `next month`."""
        if match["ordinal"] is not None:
            count = _ORDINALS[match["ordinal"]]
        else:
            digits = match["count"]
            count = 1 if digits is None else int(digits)
            count = -count if match["sign"] == "-" else count
        self._has_relative = True
        self._relative.add(match["unit"], -count if match["ago"] else count)

    def day_shift(self, match: re.Match[str]) -> None:
        """`yesterday`, `today`, `now`, `tomorrow`."""
        self._has_relative = True
        self._relative.days += _DAY_SHIFTS[match["shift"]]

    def day_of_week(self, match: re.Match[str]) -> None:
        """`monday`, `next monday`, `last mon`."""
        if self._weekday is not None:
            raise ValueError("two days of the week")
        ordinal = match["ordinal"]
        self._weekday = (_WEEKDAYS[match["weekday"]], _ORDINALS[ordinal] if ordinal else 0)

    def _resolve(self) -> int:
        today = self._now.date()
        day = today if self._date is None else date(*self._date)
        if self._weekday is not None and self._date is None:
            wanted, ordinal = self._weekday
            ahead = (wanted - day.weekday()) % 7
            weeks = ordinal - (ordinal > 0 and ahead > 0)
            day = date.fromordinal(day.toordinal() + ahead + 7 * weeks)
        seconds = self._seconds
        if seconds is None:
            has_day = self._date is not None or self._weekday is not None
            keeps_time = self._has_relative and not has_day
            of_now = self._now.hour * 3600 + self._now.minute * 60 + self._now.second
            seconds = of_now if keeps_time else 0
        ordinal_day = _add_months(day, self._relative.months) + self._relative.days
        days = date.fromordinal(ordinal_day).toordinal() - date(1970, 1, 1).toordinal()
        return days * _DAY + seconds + self._relative.seconds - (self._zone_seconds or 0)


def _add_months(day: date, months: int) -> int:
    """The ordinal of a day so many months later; the 31st of a short month runs into the next."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, 1).toordinal() + day.day - 1


def _year(digits: str) -> int:
    """Two digits are of 1969 to 2068."""
    year = int(digits)
    if len(digits) == 2:
        return year + (2000 if year < 69 else 1900)
    return year


def _item(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


_DAY_NUMBER = r"(?P<day>\d{1,2})"
_ITEMS: Final[tuple[tuple[re.Pattern[str], Callable[["_Moment", re.Match[str]], None]], ...]] = (
    (
        _item(rf"(?P<year>\d{{4}})([-/])(?P<month>\d{{1,2}})\2{_DAY_NUMBER}(?=t\d|{_END})"),
        _Moment.iso_date,
    ),
    (_item(rf"(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>\d\d)(?=t\d|{_END})"), _Moment.iso_date),
    (
        _item(rf"(?P<month>\d{{1,2}})/{_DAY_NUMBER}(?:/(?P<year>\d{{4}}|\d\d))?{_END}(?!/)"),
        _Moment.american_date,
    ),
    (
        _item(
            r"(?:(?<=\d)t)?(?P<hour>\d{1,2})(?:(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d+)?)?"
            rf"(?:\s*(?P<half>[ap])\.?m\.?)?)(?![\d:]){_ZONE}){_END}"
        ),
        _Moment.time_of_day,
    ),
    (
        _item(
            r"(?P<hour>\d{1,2})(?P<minute>)(?P<second>)\s*(?P<half>[ap])\.?m\.?"
            rf"(?P<utc>(?!))?(?P<zsign>(?!))?{_END}"
        ),
        _Moment.time_of_day,
    ),
    (
        _item(
            rf"{_DAY_NUMBER}(?:\s*-?\s*){_MONTH}(?:\s*-?\s*(?P<year>\d{{4}})(?!:))?{_END}(?!\s*\d+:)"
        ),
        _Moment.named_date,
    ),
    (
        _item(rf"{_MONTH}\s+{_DAY_NUMBER}{_END}(?!:)(?:\s*,?\s*(?P<year>\d{{4}})(?!:){_END})?"),
        _Moment.named_date,
    ),
    (
        _item(
            r"(?:(?P<ordinal>last|this|next)\s+|(?:(?P<sign>[+-])\s*)?(?:(?P<count>\d{1,9})\s*)?)"
            rf"{_UNIT}{_END}(?:\s+(?P<ago>ago){_END})?"
        ),
        _Moment.relative,
    ),
    (
        _item(rf"(?P<shift>yesterday|today|now|tomorrow){_END}"),
        _Moment.day_shift,
    ),
    (_item(rf"(?:(?P<ordinal>last|this|next)\s+)?{_WEEKDAY}{_END},?"), _Moment.day_of_week),
    (_item(rf"(?P<utc>z|utc|ut|gmt)(?P<zsign>)(?P<zhour>)(?P<zminute>){_END}"), _Moment.zone),
    (_item(rf"(?P<year>\d{{4}}){_END}(?!:)"), _Moment.year),
)
