import contextlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcrop.errors import FormatError
from outcrop.formats.hashes import (
    Compression,
    ContentHash,
    HashAlgorithm,
    ObjectRef,
    Suffix,
    hash_file_name,
    new_hasher,
)

EMPTY = bytes.fromhex("789c030000000001")
HELLO = bytes.fromhex("789ccb48cdc9c9e70200084b021f")

algorithms = st.sampled_from(list(HashAlgorithm))


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (EMPTY, "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"),
        (EMPTY, "fcdb20b894f31f1306d56294c049ca7293dde0fc-rmd160"),
        (EMPTY, "28d94b83b7229b331fc601362b8e272e02665122-shake128"),
        (HELLO, "5798f7f4ca7585d850eea64610a1f73d8f8de7a3"),
        (HELLO, "9771532cda37f736dff5b6609ddae2f44c6407f2-shake128"),
    ],
)
def test_hashes_the_examples_of_the_specification(stored, text):
    expected = ContentHash.parse(text)
    assert ContentHash.of(stored, expected.algorithm) == expected
    assert str(expected) == text


def test_the_examples_are_what_zlib_makes():
    assert (zlib.compress(b"", 6), zlib.compress(b"hello\n", 6)) == (EMPTY, HELLO)


@given(
    algorithms.flatmap(
        lambda a: st.builds(ContentHash, st.just(a), st.binary(min_size=a.size, max_size=a.size))
    )
)
@settings(deadline=None)
def test_text_form_reads_back(content_hash):
    assert ContentHash.parse(str(content_hash)) == content_hash


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 39,
        "0" * 41,
        "0" * 40 + "C",
        "0" * 40 + "-sha1",
        "0" * 40 + "-RMD160",
        "0" * 32 + "-rmd160",
        "A" * 40,
        "0x" + "0" * 38,
        "0" * 40 + "\n",
        "٣" * 40,
    ],
)
def test_refuses_what_is_no_content_hash(text):
    with pytest.raises(FormatError):
        ContentHash.parse(text)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_gives_a_value_or_a_format_error(text):
    with contextlib.suppress(FormatError):
        assert str(ContentHash.parse(text)) == text


@pytest.mark.parametrize("algorithm", list(HashAlgorithm))
def test_a_digest_has_its_algorithms_length(algorithm):
    with pytest.raises(FormatError, match=algorithm.label):
        ContentHash(algorithm, bytes(19))


@given(algorithms, st.lists(st.binary(max_size=50)))
@settings(deadline=None)
def test_hashing_in_blocks_is_hashing_the_whole(algorithm, blocks):
    hasher = new_hasher(algorithm)
    for block in blocks:
        hasher.update(block)
    assert hasher.hash() == ContentHash.of(b"".join(blocks), algorithm)


def test_equality_takes_the_algorithm_into_account():
    assert ContentHash(HashAlgorithm.SHA1, bytes(20)) != ContentHash(
        HashAlgorithm.RMD160, bytes(20)
    )


def test_null_is_all_zero():
    assert ContentHash(HashAlgorithm.SHA1, bytes(20)).is_null
    assert not ContentHash(HashAlgorithm.SHA1, b"\1" + bytes(19)).is_null


def test_algorithms_by_number_and_label():
    for algorithm in (HashAlgorithm.SHA1, HashAlgorithm.RMD160, HashAlgorithm.SHAKE128):
        assert HashAlgorithm.from_number(algorithm.number) is algorithm
        assert HashAlgorithm.from_label(algorithm.label) is algorithm


@pytest.mark.parametrize("number", [-1, 0, 4, 2**40])
def test_no_content_algorithm_has_another_number(number):
    with pytest.raises(FormatError):
        HashAlgorithm.from_number(number)


@pytest.mark.parametrize("label", ["", "md5", "SHA1", "sha256"])
def test_no_content_algorithm_has_another_label(label):
    with pytest.raises(FormatError):
        HashAlgorithm.from_label(label)


def test_compression_has_three_spellings():
    spellings = {"zlib": Compression.ZLIB, "default": Compression.ZLIB, "none": Compression.NONE}
    assert {label: Compression.from_label(label) for label in spellings} == spellings
    assert [Compression.ZLIB.label, Compression.NONE.label] == ["zlib", "none"]
    with pytest.raises(FormatError):
        Compression.from_label("zstd")


def test_an_objects_path_has_both_suffixes_and_its_cache_name_but_one():
    content_hash = ContentHash.parse("28d94b83b7229b331fc601362b8e272e02665122-shake128")
    rest = "28/d94b83b7229b331fc601362b8e272e02665122-shake128"
    assert ObjectRef(content_hash, Suffix.CATALOG).path == f"data/{rest}C"
    assert ObjectRef(content_hash).path == f"data/{rest}"
    assert hash_file_name(content_hash) == rest
