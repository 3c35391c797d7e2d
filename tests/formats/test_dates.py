import contextlib
import os
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.errors import FormatError
from outcrop.formats.dates import MAX_CHARACTERS, parse_date

NOW = 1795335834
"""Sunday, 2026-11-22 08:23:54 UTC."""

MIDNIGHT = NOW - NOW % 86400
HOUR, DAY = 3600, 86400

UNDERSTOOD = {
    "now": NOW,
    "today": NOW,
    "yesterday": NOW - DAY,
    "tomorrow": NOW + DAY,
    "3 days ago": NOW - 3 * DAY,
    "3 DAYS  AGO": NOW - 3 * DAY,
    "3days ago": NOW - 3 * DAY,
    "-3 days": NOW - 3 * DAY,
    "- 3 days": NOW - 3 * DAY,
    "+3 days": NOW + 3 * DAY,
    "day ago": NOW - DAY,
    "1 week ago": NOW - 7 * DAY,
    "2 fortnights ago": NOW - 28 * DAY,
    "last week": NOW - 7 * DAY,
    "this week": NOW,
    "next hour": NOW + HOUR,
    "90 sec ago": NOW - 90,
    "30 min ago": NOW - 1800,
    "1 day ago 2 hours ago": NOW - DAY - 2 * HOUR,
    "1 day 2 hours ago": NOW + DAY - 2 * HOUR,  # `ago` is about one item only
    "1 month ago": NOW - 31 * DAY,
    "1 year ago": NOW - 365 * DAY,
    "13 months ago": NOW - (365 + 31) * DAY,
    "@1795335834": 1795335834,
    "@-5": -5,
    "@1.9": 1,
    "@-1.5": -2,
    "2026-11-22": MIDNIGHT,
    "2026-11-2": MIDNIGHT - 20 * DAY,
    "20261122": MIDNIGHT,
    "2026/11/22": MIDNIGHT,
    "11/22/2026": MIDNIGHT,
    "11/22/26": MIDNIGHT,
    "11/22": MIDNIGHT,
    "12/31/99": 946598400,
    "22 Nov 2026": MIDNIGHT,
    "22-Nov-2026": MIDNIGHT,
    "Nov 22, 2026": MIDNIGHT,
    "november 22": MIDNIGHT,
    "2026-11-22 07:43:54": MIDNIGHT + 27834,
    "2026-11-22 07:43": MIDNIGHT + 27780,
    "2026-11-22T07:43:54Z": MIDNIGHT + 27834,
    "2026-11-22T07:43:54.9+01:00": MIDNIGHT + 27834 - HOUR,
    "2026-11-22 07:43:54 -0130": MIDNIGHT + 27834 + 5400,
    "2026-11-22 UTC": MIDNIGHT,
    "Sun Nov 22 18:26:53 UTC 2026": MIDNIGHT + 66413,
    "Sun, 22 Nov 2026 18:26:53 +0000": MIDNIGHT + 66413,
    "7am": MIDNIGHT + 7 * HOUR,
    "12 am": MIDNIGHT,
    "12:30 p.m.": MIDNIGHT + 45000,
    "yesterday 10:00": MIDNIGHT - DAY + 10 * HOUR,
    "10:00 yesterday": MIDNIGHT - DAY + 10 * HOUR,
    "2026-11-22 3 days ago": MIDNIGHT - 3 * DAY,
    "2026-03-31 1 month ago": 1772496000,  # the 31st of February is the 3rd of March
    "sunday": MIDNIGHT,
    "next sunday": MIDNIGHT + 7 * DAY,
    "last sunday": MIDNIGHT - 7 * DAY,
    "monday": MIDNIGHT + DAY,
    "next monday": MIDNIGHT + DAY,
    "last monday": MIDNIGHT - 6 * DAY,
    "thursday 3 weeks ago": MIDNIGHT - 17 * DAY,
    "2026-11-22 monday": MIDNIGHT,  # a date outweighs a day of the week
}

REFUSED = [
    "",
    " ",
    "soon",
    "ago",
    "3",
    "3 dayz",
    "3 daysago",
    "a week ago",
    "yesterday ago",
    "3 days ago ago",
    "2026-02-30",
    "2026-13-01",
    "2026-00-01",
    "22/11/2026",
    "0000-01-01",
    "24:00",
    "23:60",
    "23:59:60",
    "13 pm",
    "10:00 10:00",
    "2026-11-22 2026-11-22",
    "monday tuesday",
    "10:00 UTC UTC",
    "10:00 +2500",
    "10:00 -1 day",  # GNU date reads a time zone and adds a day: nobody means that
    "10:00 -10 days",
    "2026-11-22, 10:00",
    "T10:00",
    "10000 years ago",
    "999999999 days ago",
    "@",
    "@1e9",
    "@9999999999999",
    "٣ days ago",
    "now\0",
    "x" * (MAX_CHARACTERS + 1),
]


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_means_a_point_in_time(text):
    assert parse_date(text, now=NOW) == UNDERSTOOD[text]


@pytest.mark.parametrize("text", REFUSED)
def test_refuses_what_it_does_not_understand_with_an_example_of_what_it_does(text):
    with pytest.raises(FormatError) as caught:
        parse_date(text, now=NOW)
    assert "3 days ago" in str(caught.value.hint)


UNITS = {"sec": 1, "minutes": 60, "hour": HOUR, "days": DAY, "week": 7 * DAY}


@given(st.integers(0, 10_000), st.sampled_from(sorted(UNITS)), st.integers(0, 4_000_000_000))
@settings(deadline=None)
def test_so_long_ago_is_so_much_less_than_now(count, unit, now):
    if now - count * UNITS[unit] > -60_000_000_000:
        assert parse_date(f"{count} {unit} ago", now=now) == now - count * UNITS[unit]


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from([*UNDERSTOOD, *REFUSED, "+", "-", "utc", "nov", "7", ":", "pm"]), max_size=4
    ).map(" ".join)
)
@settings(deadline=None)
def test_any_text_is_a_time_or_a_format_error(text):
    with contextlib.suppress(FormatError):
        assert isinstance(parse_date(text, now=NOW), int)


@pytest.mark.system
def test_agrees_with_gnu_date_on_all_it_understands():
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    for text in UNDERSTOOD:
        before = int(time.time())
        printed = subprocess.run(
            ["date", "-u", "--date", text, "+%s"],
            env=environment, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        possible = {parse_date(text, now=now) for now in range(before, int(time.time()) + 1)}
        assert int(printed) in possible, text
