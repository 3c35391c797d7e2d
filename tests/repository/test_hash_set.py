"""A set of digests behaves as a set does."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.repository.hash_set import HashSet, divided

digests = st.binary(min_size=20, max_size=20) | st.builds(
    lambda head, tail: bytes([head]) * 18 + bytes([tail]) * 2,
    st.integers(0, 3),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(digests, max_size=30), max_size=6))
def test_it_holds_what_was_put_in_and_nothing_else(batches: list[list[bytes]]) -> None:
    found, model = HashSet(), set()
    for batch in batches:
        new = found.add_all(b"".join(batch))
        assert set(new) == set(batch) - model
        assert len(new) == len(set(new))
        model |= set(batch)
        assert len(found) == len(model)
    for batch in batches:
        for digest in batch:
            assert digest in found
            turned = digest[1:] + digest[:1]
            assert (turned in found) == (turned in model)


def test_it_grows_without_losing_any() -> None:
    many = [hashlib.sha1(b"%d" % number).digest() for number in range(40_000)]
    found = HashSet()
    for start in range(0, len(many), 7000):
        found.add_all(b"".join(many[start : start + 7000]))
    assert len(found) == len(many)
    assert all(digest in found for digest in many)
    assert hashlib.sha1(b"other").digest() not in found
    assert found.add_all(b"".join(many)) == []


@pytest.mark.parametrize("digest", [b"\0" * 16, b"a" * 16, b"a" * 20])
def test_digests_of_other_lengths_are_padded(digest: bytes) -> None:
    found = HashSet()
    assert digest not in found
    assert found.add(digest)
    assert not found.add(digest)
    assert digest in found


def test_a_digest_across_two_others_is_not_in() -> None:
    first, second = bytes(range(20)), bytes([0, 0]) + bytes(range(100, 118))
    found = HashSet()
    found.add_all(first + second)
    assert divided(first + second) == [first, second]
    assert (first + second)[3:23] not in found
