"""Times and sizes as people read them."""

import pytest

from outcrop.cli.entries import human_size, iso_time


@pytest.mark.parametrize(
    ("at", "nanoseconds", "text"),
    [
        (0, None, "1970-01-01T00:00:00Z"),
        (-1, None, "1969-12-31T23:59:59Z"),
        (1_600_000_000, 0, "2020-09-13T12:26:40Z"),
        (1_600_000_000, 5, "2020-09-13T12:26:40.000000005Z"),
        (1 << 62, None, "@4611686018427387904"),
    ],
)
def test_times_are_utc(at: int, nanoseconds: int | None, text: str) -> None:
    assert iso_time(at, nanoseconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_499, "99.5 kB"),
        (99_500, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (4_200_000_000, "4.2 GB"),
        (10**19, "10000 PB"),
    ],
)
def test_sizes_have_three_digits(size: int, text: str) -> None:
    assert human_size(size) == text
