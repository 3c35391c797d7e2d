import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import golden_database
from tests.support.hostile import gives_value_or, inputs, truncated

from outcrop.errors import FormatError
from outcrop.formats.xattrs import parse_xattrs, serialize_xattrs

EXAMPLE = bytes.fromhex("01020601757365722e61620a03757365722e636f6c6f72726564")
ATTRIBUTES = {b"user.a": b"b", b"user.color": b"red"}

names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)
values = st.binary(max_size=255)


def test_reads_and_writes_the_example_of_the_specification():
    assert parse_xattrs(EXAMPLE) == ATTRIBUTES
    assert serialize_xattrs(ATTRIBUTES) == EXAMPLE


def test_names_are_written_in_byte_order():
    backwards = dict(reversed(ATTRIBUTES.items()))
    assert serialize_xattrs(backwards) == EXAMPLE


def test_no_attributes_are_no_blob():
    assert serialize_xattrs({}) is None


@given(st.dictionaries(names, values, min_size=1, max_size=5))
@settings(deadline=None)
def test_reads_what_it_wrote(attributes):
    blob = serialize_xattrs(attributes)
    assert blob is not None
    assert parse_xattrs(blob) == attributes


def test_all_limits_at_once_fit():
    attributes = {b"%0255d" % number: b"v" * 255 for number in range(255)}
    assert parse_xattrs(serialize_xattrs(attributes) or b"") == attributes


@pytest.mark.parametrize(
    "attributes",
    [
        {b"": b"x"},
        {b"a\0b": b"x"},
        {b"n" * 256: b""},
        {b"user.a": b"v" * 256},
        {b"%d" % number: b"" for number in range(256)},
    ],
)
def test_refuses_to_write_what_has_no_room(attributes):
    with pytest.raises(FormatError):
        serialize_xattrs(attributes)


@pytest.mark.parametrize(
    "blob",
    [
        b"\2" + EXAMPLE[1:],
        EXAMPLE + b"\0",
        b"\1\3" + EXAMPLE[2:],
        b"\1\1\0\0",
        b"\1\1\0\1x",
        b"\1\1\1\0\0",
        b"\1\2\1\0a\1\0a",
    ],
)
def test_refuses_a_blob_that_is_damaged(blob):
    with pytest.raises(FormatError):
        parse_xattrs(blob)


@pytest.mark.parametrize("blob", list(truncated(EXAMPLE)))
def test_refuses_a_blob_that_is_cut_short(blob):
    with pytest.raises(FormatError):
        parse_xattrs(blob)


@given(inputs(EXAMPLE))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_format_error(data):
    gives_value_or(FormatError, parse_xattrs, data)


def test_golden_blobs_are_written_back_byte_for_byte():
    rows = golden_database("basic", "C").execute("SELECT xattr FROM catalog WHERE xattr NOT NULL")
    blobs = [blob for (blob,) in rows]
    assert len(blobs) > 5
    assert all(serialize_xattrs(parse_xattrs(blob)) == blob for blob in blobs)
