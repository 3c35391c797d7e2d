import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import NAMES, golden_fields, golden_object
from tests.support.hostile import gives_value_or, inputs

from outcrop.errors import FormatError
from outcrop.formats.meta_info import MAX_BYTES, SKELETON, parse_meta_info, serialize_meta_info

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=20), values, max_size=5))
@settings(deadline=None, max_examples=50)
def test_reads_what_it_wrote(meta_info):
    assert parse_meta_info(serialize_meta_info(meta_info)) == meta_info


@pytest.mark.parametrize("name", NAMES)
def test_reads_golden_meta_info(name):
    meta_info = parse_meta_info(golden_object(name, golden_fields(name)["M"], "M"))
    assert set(meta_info) == set(SKELETON)
    assert {k: type(v) for k, v in meta_info.items()} == {k: type(v) for k, v in SKELETON.items()}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"text"',
        b"{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\xff"}',
        b"[" * 60000,
        b'{"a":' * 12000,
        b'{"a": ' + b"9" * 60000 + b"}",
        b" " * (MAX_BYTES + 1),
    ],
)
def test_refuses_what_is_no_json_object_of_bounded_size(data):
    with pytest.raises(FormatError):
        parse_meta_info(data)


@pytest.mark.parametrize(
    "meta_info", [{"a": float("nan")}, {"a": object()}, {"a": "x" * MAX_BYTES}, {(1, 2): 3}]
)
def test_refuses_to_write_what_it_would_not_read(meta_info):
    with pytest.raises(FormatError):
        serialize_meta_info(meta_info)


def test_the_size_limit_is_inclusive():
    data = json.dumps({"a": "x" * (MAX_BYTES - len('{"a": ""}'))}).encode()
    assert len(data) == MAX_BYTES
    assert parse_meta_info(data)


@given(inputs(serialize_meta_info(SKELETON)))
@settings(deadline=None)
def test_any_bytes_give_a_value_or_a_format_error(data):
    gives_value_or(FormatError, parse_meta_info, data)
