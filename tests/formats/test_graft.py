"""Graft files: what is read, and what is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hostile import gives_value_or, inputs

from outcrop.errors import FormatError
from outcrop.formats.catalog import Chunk
from outcrop.formats.graft import MAX_BYTES, Graft
from outcrop.formats.hashes import Compression, ContentHash, HashAlgorithm

ONE, TWO = "1" * 40, "2" * 40
ZEROS = "0" * 40
PLAIN = f"size=14\nchecksum={ONE}\n".encode()


def chunked(offsets: str = "0,10", hashes: str = f"{ONE},{TWO}", size: int = 15) -> bytes:
    return (
        f"size={size}\nchecksum={ZEROS}\nchunk_offsets={offsets}\nchunk_checksums={hashes}\n"
    ).encode()


def test_a_plain_graft_is_zlib_unless_it_says_otherwise() -> None:
    graft = Graft.parse(PLAIN)
    assert (graft.size, str(graft.checksum), graft.chunks) == (14, ONE, ())
    assert graft.compression is Compression.ZLIB
    assert Graft.parse(PLAIN + b"compression=none").compression is Compression.NONE


def test_blanks_comments_and_unknown_keys_do_not_count() -> None:
    text = b"# a comment\n\n  size = 14 \r\nchecksum\t= " + ONE.encode() + b"\nmode=0644\n"
    assert Graft.parse(text) == Graft.parse(PLAIN)


def test_chunks_reach_to_the_end_of_the_file() -> None:
    graft = Graft.parse(chunked())
    assert graft.checksum is None
    assert graft.chunks == (
        Chunk(0, 10, ContentHash.parse(ONE)),
        Chunk(10, 5, ContentHash.parse(TWO)),
    )


def test_hashes_may_be_of_any_algorithm_for_content() -> None:
    graft = Graft.parse(f"size=0\nchecksum={ONE}-shake128\n".encode())
    assert graft.algorithm is HashAlgorithm.SHAKE128


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no size"),
        (b"size=1\n", "no checksum"),
        (b"checksum=" + ONE.encode(), "no size"),
        (PLAIN + b"size=15\n", "a second time"),
        (PLAIN + b"nonsense\n", "KEY=VALUE"),
        (PLAIN + b"compression=zstd\n", "zstd"),
        (PLAIN.replace(b"14", b"-14"), "number"),
        (PLAIN.replace(b"14", b"1_4"), "number"),
        (PLAIN.replace(b"14", b"9" * 19), "number"),
        (PLAIN.replace(b"14", b"\xd9\xa1"), "size"),
        (f"size=1\nchecksum={ZEROS}\n".encode(), "zeros"),
        (f"size=1\nchecksum={'1' * 32}\n".encode(), "MD5"),
        (b"size=1\nchecksum=x\n", "content hash"),
        (PLAIN + b"chunk_offsets=0\n", "no chunk_checksums"),
        (PLAIN + b"chunk_checksums=" + ONE.encode(), "no chunk_offsets"),
        (chunked(offsets="0"), "1 chunk_offsets and 2"),
        (chunked(offsets="1,10"), "begin with 0"),
        (chunked(offsets="0,0"), "grow"),
        (chunked(offsets="0,15"), "within the size"),
        (chunked(offsets="0,"), "number"),
        (chunked(hashes=f"{ONE},{TWO}-rmd160"), "different algorithms"),
        (b" " * (MAX_BYTES + 1), "limit"),
    ],
)
def test_what_is_wrong_is_said(text: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Graft.parse(text)


@given(inputs(PLAIN, chunked()))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_graft_or_an_error(text: bytes) -> None:
    assert gives_value_or(FormatError, Graft.parse, text) in (True, False)


@given(st.lists(st.integers(1, 1 << 40), min_size=2, max_size=5), st.sampled_from(Compression))
@settings(max_examples=50, deadline=None)
def test_what_is_written_reads_back(sizes: list[int], compression: Compression) -> None:
    content = ContentHash.of(b"x", HashAlgorithm.RMD160)
    chunks = tuple(Chunk(sum(sizes[:n]), size, content) for n, size in enumerate(sizes))
    graft = Graft(
        size=sum(sizes), checksum=None, compression=compression, algorithm=content.algorithm,
        chunks=chunks,
    )  # fmt: skip
    assert Graft.parse(graft.serialize()) == graft
