import pytest
from hypothesis import given, settings
from tests.support.hostile import cells

from outcrop.errors import FormatError
from outcrop.formats.rows import check_integer, hash_of, read_integer, text_of


def test_an_integer_is_of_that_type_and_in_its_range():
    assert check_integer(5, "x") == 5
    for value in (True, 5.0, "5", None, -1, 2**63):
        with pytest.raises(FormatError, match="x is no integer"):
            check_integer(value, "x")


@pytest.mark.parametrize(("value", "number"), [(5, 5), ("5", 5), (b"-5", -5), ("-0", 0)])
def test_numbers_may_be_stored_as_text(value, number):
    assert read_integer(value, "x") == number


@pytest.mark.parametrize("value", ["", "5 ", "+5", "5.0", b"\xff", "٣", "9" * 20, 2**63, None])
def test_other_text_is_no_number(value):
    with pytest.raises(FormatError):
        read_integer(value, "x")


def test_text_that_is_not_utf8_is_shown_escaped():
    assert text_of(b"a\xff", "x") == "a\\xff"
    assert text_of("ä", "x") == text_of("ä".encode(), "x") == "ä"


@given(cells)
@settings(deadline=None)
def test_any_cell_gives_a_value_or_a_format_error(cell):
    for read in (check_integer, read_integer, text_of, hash_of):
        try:
            read(cell, "subject")
        except FormatError as error:
            assert "subject" in str(error)
