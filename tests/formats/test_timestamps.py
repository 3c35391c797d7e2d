from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.errors import FormatError
from outcrop.formats.timestamps import parse_utc

EPOCH, LAST_DAY = datetime.fromisoformat("1970-01-01"), datetime.fromisoformat("9999-12-31")


@given(st.datetimes(EPOCH, LAST_DAY, timezones=st.just(UTC)))
@settings(deadline=None)
def test_reads_any_second(moment):
    moment = moment.replace(microsecond=0)  # a float cannot hold them for all years
    assert parse_utc(moment.strftime("%Y-%m-%dT%H:%M:%SZ")) == int(moment.timestamp())


def test_a_date_means_its_first_second():
    assert parse_utc("2024-02-29") == parse_utc("2024-02-29T00:00:00Z") == 1709164800


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2023-02-29",
        "2024-13-01",
        "2024-00-01",
        "2024-01-00",
        "1969-12-31",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00+01:00",
        "2024-1-1",
        "2024-01-01\n",
        "٢٠٢٤-01-01",
    ],
)
def test_refuses_what_is_no_time(text):
    with pytest.raises(FormatError):
        parse_utc(text)
