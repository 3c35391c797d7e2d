import contextlib
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.golden_objects import golden_database, golden_object

from outcrop.errors import FormatError
from outcrop.formats import _cuts
from outcrop.formats.chunking import DEFAULT_CHUNK_SIZES, ChunkSizes, Cutter, cut_marks

GOLDEN_SIZES = ChunkSizes(16384, 32768, 65536)


def lcg_bytes(count):
    """The reference data of the specification: an MMIX generator's top bytes."""
    data = bytearray()
    state = 42
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        data.append(int(float(state) * 256 / 2**64) % 256)
    return bytes(data)


def slow_cut_marks(data, sizes):
    """The definition: every possible cut is tried with signed, wrapping 32-bit arithmetic."""
    threshold = 0xFFFFFFFF // sizes.average
    marks = []
    start = 0
    while start + sizes.minimum < len(data):
        for position in range(start + sizes.minimum, len(data)):
            checksum = 0
            for byte in data[position - 31 : position + 1]:
                checksum = (checksum << 1 ^ byte) & 0xFFFFFFFF
            distance = (checksum - 0x7FFFFFFF + 2**31) % 2**32 - 2**31
            if (
                position == start + sizes.maximum
                or abs(distance) < threshold
                or distance == -(2**31)
            ):
                marks.append(position)
                start = position
                break
        else:
            break
    return marks


sizes_and_data = st.tuples(
    st.builds(
        lambda minimum, more, most: ChunkSizes(minimum, minimum + more, minimum + more + most),
        st.integers(32, 80),
        st.integers(1, 60),
        st.integers(1, 100),
    ),
    st.one_of(
        st.binary(max_size=600),
        st.integers(0, 255).flatmap(lambda b: st.integers(0, 900).map(lambda n: bytes([b]) * n)),
        st.randoms(use_true_random=False).map(lambda r: r.randbytes(r.randrange(2000))),
    ),
)


def test_cuts_the_reference_data_where_upstream_does():
    marks = cut_marks(lcg_bytes(2_000_000), ChunkSizes(51200, 102400, 204800))
    first = cut_marks(lcg_bytes(3_600_000), ChunkSizes(512000, 1024000, 2048000))
    assert first == [742752, 2790752, 3521796]
    assert all(51200 <= right - left <= 204800 for left, right in pairwise(marks))


@given(sizes_and_data)
@settings(deadline=None, max_examples=60)
def test_cuts_where_the_definition_says(case):
    sizes, data = case
    assert cut_marks(data, sizes) == slow_cut_marks(data, sizes)


@given(sizes_and_data, st.lists(st.integers(0, 100), max_size=60))
@settings(deadline=None, max_examples=60)
def test_block_sizes_do_not_matter(case, lengths):
    sizes, data = case
    cutter = Cutter(sizes)
    marks, position = [], 0
    for length in [*lengths, len(data)]:
        found = cutter.feed(data[position : position + length])
        assert all(position <= mark < position + length for mark in found)
        marks += found
        position += length
    assert marks == cut_marks(data, sizes)


def test_a_byte_at_a_time_gives_the_same_cuts():
    data, sizes = lcg_bytes(20_000), ChunkSizes(64, 128, 300)
    cutter = Cutter(sizes)
    assert [m for byte in data for m in cutter.feed(bytes((byte,)))] == cut_marks(data, sizes)


@pytest.mark.parametrize(("size", "cuts"), [(0, 0), (63, 0), (64, 0), (65, 1), (128, 1), (129, 2)])
def test_all_zeros_are_cut_at_every_maximum_and_never_at_the_end(size, cuts):
    sizes = ChunkSizes(32, 48, 64)
    assert cut_marks(bytes(size), sizes) == [64 * n for n in range(1, cuts + 1)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_buffer(kind):
    data = lcg_bytes(5000)
    sizes = ChunkSizes(64, 128, 300)
    assert cut_marks(kind(data), sizes) == cut_marks(data, sizes) != []


@pytest.mark.parametrize(
    "sizes",
    [(31, 64, 128), (64, 64, 128), (64, 128, 128), (0, 0, 0), (-1, 64, 128), (32, 64, 2**41)],
)
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(FormatError):
        ChunkSizes(*sizes)
    with pytest.raises((ValueError, OverflowError)):
        _cuts.Scanner(*sizes)


@pytest.mark.parametrize("block", [None, "text", 5, [1]])
def test_other_than_bytes_is_a_type_error(block):
    with pytest.raises(TypeError):
        Cutter().feed(block)


def test_the_scanner_takes_three_positional_numbers_only():
    with pytest.raises(TypeError):
        _cuts.Scanner(32, 64, 128, 256)
    with pytest.raises(TypeError):
        _cuts.Scanner(32, 64, maximum=128)


def test_defaults_are_four_eight_and_sixteen_mebibytes():
    assert ChunkSizes(4 * 2**20, 8 * 2**20, 16 * 2**20) == DEFAULT_CHUNK_SIZES


def is_refused_while_another_thread_scans(data):
    """Whether this thread ran during the other's scan, and could not use its cutter."""
    cutter = Cutter(ChunkSizes(32, 2**30, 2**31))
    started = threading.Event()

    def scan():
        started.set()
        with contextlib.suppress(RuntimeError):  # the other thread was first: try again
            cutter.feed(data)

    thread = threading.Thread(target=scan)
    thread.start()
    started.wait()
    try:
        cutter.feed(b"")
    except RuntimeError as error:
        return "one thread" in str(error)
    finally:
        thread.join()
    return False


def test_other_threads_run_while_a_block_is_scanned_and_may_not_use_the_same_cutter():
    data = bytes(20_000_000)
    assert any(is_refused_while_another_thread_scans(data) for _ in range(100))


@pytest.mark.parametrize("name", ["basic", "shake128", "uncompressed", "gc"])
def test_cuts_the_golden_files_where_upstream_did(name):
    database = golden_database(name, "C")
    rows = database.execute(
        "SELECT md5path_1, md5path_2, offset, chunks.size, hex(chunks.hash), flags FROM chunks "
        "JOIN catalog USING (md5path_1, md5path_2) ORDER BY 1, 2, 3"
    ).fetchall()
    files = {}
    for one, two, offset, size, digest, flags in rows:
        tail = {0: "", 2: "-shake128"}[flags >> 8 & 7]
        plain = golden_object(name, digest.decode().lower() + tail, "P")
        assert len(plain) == size
        files.setdefault((one, two), []).append((offset, plain))
    assert len(files) >= 2
    for chunks in files.values():
        whole = b"".join(plain for _, plain in chunks)
        assert cut_marks(whole, GOLDEN_SIZES) == [offset for offset, _ in chunks[1:]]
